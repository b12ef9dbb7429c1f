package session

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Sizes of the read buffer: it grows while reads fill it. A small one is held
// while the link is quiet, because asking for it only when there is something to
// read costs a system call; a larger one is not.
const (
	smallRead = 512
	largeRead = 128 << 10
	// bulkRead is the largest read while pieces of large messages come. These leave the
	// buffer when they are opened, and it has room for two reads: what is left of the last
	// record is moved to its front a tenth as often as with largeRead, and twice as much
	// is acknowledged and delivered at once.
	bulkRead = 256 << 10
)

// mostListed is how many messages are listed before they are handed over, 32 bytes for
// each. So many of 4 bytes fill so much of a buffer of largeRead bytes that they need not be
// copied out of it.
const mostListed = 8 << 10

// firstPartial is how much memory the first piece of a message gets: a peer that
// announces much and sends little gets little.
const firstPartial = 128 << 10

// partial is a large message of which pieces have come.
type partial struct {
	priority uint8
	buf      *Buffer
	have     int
	left     int
}

// inbox turns bytes from the link into messages. It is the reader's own.
type inbox struct {
	s        *Session
	line     *line
	open     secure.Opener
	lazy     lazyReader
	soon     soonReader
	hope     int16 // how often a soon read may still fail before it is not tried for a while
	skip     int16 // how many reads it is not tried
	despair  int16 // how long that while is
	spell    int16 // how often it was tried since one try was left out
	get      func() []byte
	buf      *Buffer // nil while nothing is buffered and the link is quiet
	start    int     // buf.B[start:end] is read and not yet opened
	end      int
	want     int // size of the next read buffer
	header   wire.Header
	claimed  *Buffer // for the piece whose header has come
	shortAt  int64   // session clock when there was no memory for it first; zero when there is
	number   uint64  // of the next record of content on the line
	has      uint64  // records that have come to the session; those before come again
	size     uint64  // bytes of the bodies of records on the line
	partials []partial
	messages []Message
	buffers  []*Buffer
	bytes    int    // of messages that lie in buf
	total    uint64 // bytes of all messages, when packed
	counts   tally  // for buf
	list     tally  // for messages
	copied   tally  // for what is copied out of buf and not handed over
	rest     []byte // frames of the last record that are not listed yet
	pulse    int64  // session clock at what was read last when Session.pulse was called
	closed   error  // the peer has ended the session
	failed   error  // the link is useless

	headed bool // header is opened, its body is not complete
	whole  bool // a record was complete since note
	asked  bool // a ping has come since the last reply
	came   bool // and content
	short  bool // there is no memory for the piece whose header has come
	used   bool // some message that is listed lies in buf
	lent   bool // and some that was handed over
	more   bool // what is buffered has more than is listed
	packed bool // messages and buffers are ready to be delivered
	bye    bool // closed by Close, which wants to be acknowledged
}

// begin turns to a line. What has come by the one before is delivered.
func (in *inbox) begin(l *line) {
	in.drop()
	in.unclaim()
	link := l.link
	in.line, in.open, in.buf, in.start, in.end, in.lent = l, link.Open, nil, 0, 0, false
	in.want, in.headed, in.failed, in.number, in.size = smallRead, false, nil, l.position.Load(), 0
	in.more, in.rest, in.shortAt = false, nil, 0
	in.lazy, in.soon, in.hope, in.skip, in.despair = nil, nil, 0, 0, 0
	in.lazy, _ = link.Conn.(lazyReader)
	if runtime.GOMAXPROCS(0) > 1 { // on a single processor the peer may need it
		in.soon, _ = link.Conn.(soonReader)
	}
	if in.get == nil {
		in.get = func() []byte {
			in.room()
			return in.buf.B[in.end:min(len(in.buf.B), in.end+bulkRead)]
		}
	}
	if len(link.Rest) > 0 {
		in.buf = NewBuffer(max(smallRead, len(link.Rest)))
		in.counts = in.s.count(len(in.buf.B))
		in.end = copy(in.buf.B, link.Rest)
		link.Rest = nil
	}
}

// free gives all memory back.
func (in *inbox) free() {
	in.drop()
	for _, p := range in.partials {
		p.buf.Release()
	}
	in.unclaim()
	for _, b := range in.buffers {
		b.Release()
	}
	in.partials, in.buffers, in.messages = nil, nil, nil
	in.s.uncount(&in.list)
	in.s.uncount(&in.copied)
}

// need returns how many bytes must be buffered for the next step.
func (in *inbox) need() int {
	if in.headed {
		return in.header.Len + wire.TagSize
	}
	return wire.SealedHeader
}

// loop reads until the link ends, and returns why.
func (in *inbox) loop() error {
	for {
		if in.failed == nil {
			in.failed = in.take()
		}
		if frames := in.reply(); frames != nil {
			s := in.s
			s.writeNow(in.line, sealControl(in.line.link.Seal, s.scrap[:0], frames), 0)
			s.answering = false
		}
		calm, more := len(in.messages) == 1 && in.calm(), in.more
		ok := in.deliver(true)
		switch {
		case in.failed != nil:
			return in.failed
		case !ok:
			return ErrEnded
		case in.closed != nil:
			in.s.sayRead(in.line, in.closed, in.bye)
			return in.closed
		}
		if more {
			continue
		}
		if in.short {
			in.failed = in.awaitRoom()
			continue
		}
		if calm && in.lend() {
			continue // what was read by the turn may not be parsed or delivered yet
		}
		in.failed = in.receive(false)
	}
}

// receive reads once. An interruption is no error.
func (in *inbox) receive(soon bool) error {
	n, err := 0, error(nil)
	if soon && in.soon != nil {
		n, err = in.readSoon()
	}
	if n == 0 && err == nil {
		n, err = in.read()
	}
	switch {
	case n > 0 || err == nil || in.interruption(err):
		return nil
	case errors.Is(err, io.EOF) && in.start == in.end && !in.headed:
		return errHungUp
	}
	return broken(err)
}

// read reads once. While the link is quiet no large buffer is held.
func (in *inbox) read() (n int, err error) {
	lazy := in.lazy != nil && in.want > smallRead
	if in.buf != nil && in.start == in.end && (lazy || in.lent || len(in.buf.B) > in.want) {
		in.drop()
		in.start, in.end, in.lent = 0, 0, false
	}
	if lazy {
		n, err = in.lazy.ReadLazy(in.get)
	} else {
		n, err = in.line.link.Conn.Read(in.get())
	}
	in.got(n)
	return n, err
}

// got takes note of n bytes that have been read into the buffer.
func (in *inbox) got(n int) {
	if n == 0 {
		return
	}
	in.end += n
	in.s.lastHeard.Store(in.s.clock())
	in.s.wireIn.Add(uint64(n))
	most := largeRead
	if in.header.Type == wire.TypePiece {
		most = bulkRead
	}
	switch {
	case in.end == len(in.buf.B):
		in.want = min(in.want*8, most)
	case n < in.want/8:
		in.want = max(in.want/8, smallRead)
	default:
		in.want = min(in.want, most)
	}
}

// take opens every complete record that is buffered. What is to be told about them
// remains for reply.
func (in *inbox) take() error {
	before := in.line.position.Load()
	err := in.parse()
	in.note()
	in.came = in.came || in.number != before
	return err
}

// reply answers a ping that take has found, or lets the peer know what has come if it is
// time: it returns the frames for that, and the write side with them, or nil. Whoever calls it
// seals them itself, with nothing between: see Session.scrap.
func (in *inbox) reply() (frames []byte) {
	s, l := in.s, in.line
	switch {
	case in.asked:
		frames = s.answer(l) // which acknowledges, too
	case in.came:
		frames = s.acknowledge(l)
	}
	in.asked, in.came = false, false
	return frames
}

// note tells the writer how far the reader is.
func (in *inbox) note() {
	in.s.has.Store(in.has)
	in.line.position.Store(in.number)
	in.line.bytes.Store(in.size)
	if in.whole {
		in.whole = false
		in.s.lastWhole.Store(in.s.lastHeard.Load())
	}
}

// parse opens every complete record that is buffered, until mostListed messages are to be
// handed over: then there may be more.
func (in *inbox) parse() error {
	in.short, in.more = false, false
	for in.closed == nil {
		if in.more = in.packed || len(in.messages) >= mostListed; in.more {
			return nil
		}
		if len(in.rest) > 0 {
			if err := in.frames(in.rest); err != nil {
				return err
			}
			continue
		}
		if in.end-in.start < in.need() {
			return nil
		}
		if in.headed && in.header.Type == wire.TypePiece && in.number >= in.has && !in.claim() {
			return nil
		}
		part := in.buf.B[in.start : in.start+in.need()]
		in.start += len(part)
		if !in.headed {
			h, err := in.open.Header(part)
			if err != nil {
				return protocol(err)
			}
			in.header, in.headed = h, true
			continue
		}
		in.headed = false
		if err := in.record(part); err != nil {
			return err
		}
		in.whole = true
	}
	return nil
}

// claim gets the memory that the piece whose header has come asks for.
func (in *inbox) claim() bool {
	n := in.lacks()
	if in.claimed == nil && n > 0 {
		in.claimed = in.pieceBuffer(n)
	}
	if in.short = in.claimed == nil && n > 0; !in.short {
		in.shortAt = 0
	}
	return !in.short
}

// taken returns the memory that was claimed.
func (in *inbox) taken(n int) *Buffer {
	b := in.claimed
	in.claimed = nil
	if b == nil {
		b = NewBuffer(n)
	}
	return b
}

// unclaim gives memory back for which no piece has come.
func (in *inbox) unclaim() {
	if in.claimed != nil {
		in.claimed.Release()
		in.claimed = nil
	}
}

// record opens a record.
func (in *inbox) record(sealed []byte) error {
	if in.header.Type.Counted() {
		if in.line.asks {
			return protocol(errors.New("content before the link is chosen"))
		}
		in.size += uint64(in.header.Len)
		if in.number++; in.number <= in.has { // it has come by another line, too late for us to say so on this one
			if _, err := in.open.Body(sealed[:0], sealed); err != nil {
				return protocol(err)
			}
			return nil
		}
		in.has++
	}
	if in.header.Type == wire.TypePiece {
		return in.piece(sealed)
	}
	frames, err := in.open.Body(sealed[:0], sealed)
	if err != nil {
		return protocol(err)
	}
	return in.frames(frames)
}

// frames takes the frames of a record, until mostListed messages are listed; then rest
// has the others.
func (in *inbox) frames(frames []byte) (err error) {
	for in.rest = nil; len(frames) > 0 && in.closed == nil; {
		if len(in.messages) >= mostListed {
			in.rest = frames
			return nil
		}
		var t wire.FrameType
		var body []byte
		if t, body, frames, err = wire.NextFrame(frames); err != nil {
			return protocol(err)
		}
		switch {
		case !t.In(in.header.Type):
			return protocol(fmt.Errorf("frame %d in a record of type %d", t, in.header.Type))
		case in.line.asks && (t == wire.FrameClaim || t == wire.FrameChosen || t == wire.FrameRefused):
			return in.answered(t, body, len(frames) > 0)
		case t == wire.FrameMessage:
			priority, data, err := wire.ParseMessage(body)
			if err != nil {
				return protocol(err)
			}
			in.messages = append(in.messages, Message{Data: data, Priority: priority})
			in.bytes += len(data)
			in.used = true
		default:
			if err := in.control(t, body); err != nil {
				return err
			}
		}
	}
	return nil
}

// answered takes the peer's answer to Begin.
func (in *inbox) answered(t wire.FrameType, body []byte, more bool) error {
	if more {
		return protocol(fmt.Errorf("frames after frame %d in its record", t))
	}
	in.line.asks = false
	return in.s.owner.Answered(in.s, Line{in.line}, t, body)
}

// piece opens a piece of a large message straight into the message.
func (in *inbox) piece(sealed []byte) error {
	h := in.header
	i := 0
	for i < len(in.partials) && in.partials[i].priority != h.Priority {
		i++
	}
	if i == len(in.partials) {
		if i >= wire.MaxOpenPieces {
			return protocol(fmt.Errorf("more than %d messages in pieces at once", wire.MaxOpenPieces))
		}
		in.partials = append(in.partials, partial{priority: h.Priority, buf: in.taken(max(h.Len, min(h.Left, firstPartial))), left: h.Left})
	}
	p := &in.partials[i]
	if p.left != h.Left {
		return protocol(fmt.Errorf("a piece with %d bytes left where %d are missing", h.Left, p.left))
	}
	if p.have+h.Len > len(p.buf.B) {
		whole := in.taken(p.have + h.Left)
		copy(whole.B, p.buf.B[:p.have])
		p.buf.Release()
		p.buf = whole
	}
	if _, err := in.open.Body(p.buf.B[p.have:p.have], sealed); err != nil {
		return protocol(err)
	}
	p.have += h.Len
	if p.left -= h.Len; p.left > 0 {
		return nil
	}
	in.messages = append(in.messages, Message{p.buf.B[:p.have:p.have], h.Priority, true})
	in.buffers = append(in.buffers, p.buf)
	in.partials = append(in.partials[:i], in.partials[i+1:]...)
	return nil
}

// control does what a frame that is no message asks for.
func (in *inbox) control(t wire.FrameType, body []byte) error {
	s := in.s
	switch t {
	case wire.FrameDatagram:
		if len(body) > wire.MaxStreamDatagram {
			return protocol(fmt.Errorf("a datagram of %d bytes, at most %d are allowed", len(body), wire.MaxStreamDatagram))
		}
		s.owner.Datagram(s, body)
	case wire.FramePing:
		v, err := wire.ParsePing(body)
		if err != nil {
			return protocol(err)
		}
		in.note() // who answers acknowledges all that came before
		s.mu.Lock()
		if s.line == in.line && s.state < finishing {
			s.pong, s.pongDue = v, true // of several pings the last is answered: the memory has a bound
			in.asked = true
		}
		s.mu.Unlock()
	case wire.FramePong:
		v, err := wire.ParsePing(body)
		if err != nil {
			return protocol(err)
		}
		s.mu.Lock()
		if v != 0 && v == s.pingSent {
			trip := max(s.clock()-int64(v-1), 1)
			s.rtt.Store(trip)
			if s.trip == 0 || trip < s.trip {
				s.trip = trip
			}
			s.pingSent = 0
			s.wake() // more may be kept than before
		}
		s.mu.Unlock()
	case wire.FrameAck:
		if in.line.asks {
			return protocol(errors.New("an acknowledgement before the link is chosen"))
		}
		n, err := wire.ParseAck(body)
		if err != nil {
			return protocol(err)
		}
		return s.acked(in.line, n)
	case wire.FrameSeen, wire.FrameSeek, wire.FrameReply, wire.FrameEcho, wire.FrameDoors, wire.FrameReach, wire.FrameReached, wire.FrameGossip:
		if err := s.owner.Control(s, t, body); err != nil {
			return protocol(err)
		}
	case wire.FrameRelayOpen, wire.FrameRelayData, wire.FrameRelayCredit, wire.FrameRelayClose, wire.FrameRelayKeys, wire.FrameRelayKey, wire.FrameRelayEarly:
		return in.relayed(t, body)
	case wire.FrameClose, wire.FrameRefused: // refused: the peer has withdrawn after it was chosen, or given the session up
		r, err := wire.ParseReason(body)
		if err != nil {
			return protocol(err)
		}
		in.closed, in.bye = ErrDisconnected, t == wire.FrameClose
		if r == wire.ReasonStopping {
			in.closed = ErrStopped
		}
		if r == wire.ReasonLimit {
			in.closed = ErrFull
		}
		if r == wire.ReasonOver {
			in.closed = ErrOver
		}
		if r == wire.ReasonBanned {
			in.closed = ErrBanned
		}
		if r == wire.ReasonProtocol {
			in.closed = ErrAccused
		}
	case wire.FrameClaim, wire.FrameChosen:
		return protocol(fmt.Errorf("frame %d inside a session", t))
	}
	return nil
}

// deliver hands over what has been received, and reports whether to go on. If
// the messages fill little of the buffer they are copied out of it, so that
// what the program holds on to is in proportion to what it got. Without wait it
// also reports false, and keeps the messages, when there is no room.
func (in *inbox) deliver(wait bool) bool {
	if len(in.messages) == 0 {
		in.shorten()
		return true
	}
	s := in.s
	if !in.packed {
		in.pack()
		in.countList()
	}
	if wait {
		s.paused.Store(true)
		if now := s.lastHeard.Load(); now-in.pulse > int64(padEvery) {
			in.pulse = now
			s.pulse(now)
		}
	}
	n := uint64(len(in.messages))
	s.received.Add(n) // before: who has a message finds it counted
	s.receivedB.Add(in.total)
	ok := s.owner.Deliver(s, in.messages, in.buffers, wait)
	if wait {
		s.paused.Store(false)
		s.heard(s.clock())
	} else if !ok {
		s.received.Add(-n)
		s.receivedB.Add(-in.total)
		return false
	}
	s.uncount(&in.copied)
	clear(in.messages)
	clear(in.buffers)
	in.messages, in.buffers, in.bytes, in.packed = in.messages[:0], in.buffers[:0], 0, false
	in.shorten()
	return ok
}

// shorten gives the empty list of messages back when a flood is over: what shows it may be
// the first read after its end, which need not bring a message.
func (in *inbox) shorten() {
	if cap(in.messages) > 64 && in.want == smallRead {
		in.messages, in.buffers = nil, nil
		in.countList()
	}
}

// pack makes the messages independent of the read buffer, or keeps it for them.
func (in *inbox) pack() {
	in.packed, in.total = true, 0
	for i := range in.messages {
		in.total += uint64(len(in.messages[i].Data))
	}
	if !in.used {
		return
	}
	in.used = false
	if in.bytes < len(in.buf.B)/4 {
		in.compact()
		return
	}
	in.lent = true
	in.buf.Retain()
	in.buffers = append(in.buffers, in.buf)
}

// compact copies the messages that lie in the read buffer into one of their size.
func (in *inbox) compact() {
	b := NewBuffer(in.bytes)
	in.copied = in.s.count(len(b.B))
	at := 0
	for i := range in.messages {
		m := &in.messages[i]
		if m.own {
			continue
		}
		n := copy(b.B[at:], m.Data)
		m.Data = b.B[at : at+n : at+n]
		at += n
	}
	in.buffers = append(in.buffers, b)
}

// protocol marks an error as the peer's fault.
func protocol(err error) error { return fmt.Errorf("%w: %w", ErrProtocol, err) }
