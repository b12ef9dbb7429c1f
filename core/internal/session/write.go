package session

import (
	"context"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// quiet is how long after a write a caller may write itself. A sender in a
// flood comes back sooner, and its messages are gathered instead; an answer to
// a round trip, also on loopback, comes later.
const quiet = 2 * time.Microsecond

// directOver is the size in bytes above which a message is not written by the
// caller: what the connection does not take at once, nothing can overtake.
const directOver = 64 << 10

// Send queues or writes one message. It never blocks. Errors: ErrTooBig,
// ErrWouldBlock, ErrEnded.
func (s *Session) Send(data []byte, priority uint8) error {
	err := s.send(data, priority, true)
	if err == errShort { //nolint:errorlint // it is returned bare
		return ErrWouldBlock
	}
	return err
}

// send is Send, with errShort for ErrWouldBlock when it is memory that is short; when it
// refuses the message, notify says whether a Writable is owed.
func (s *Session) send(data []byte, priority uint8, notify bool) error {
	if len(data) > wire.MaxMessage {
		return ErrTooBig
	}
	s.mu.Lock()
	if s.state != live {
		s.mu.Unlock()
		return ErrEnded
	}
	if s.queued > 0 && s.queued+len(data)+frameCost > s.cfg.SendQueue {
		s.refused = s.refused || notify
		s.mu.Unlock()
		return ErrWouldBlock
	}
	ok := true
	if s.idle() && len(data) <= directOver && s.clock()-s.written > int64(quiet) {
		var d direct
		if d, ok = s.placeDirect(data, priority); ok {
			s.sent++
			s.sentBytes += uint64(len(data))
			s.writing, s.using = true, s.line
			s.queued = len(data) + frameCost
			s.mu.Unlock()
			s.writeDirect(d)
			return nil
		}
	} else {
		ok = s.enqueue(data, priority) != nil
	}
	if !ok {
		s.refused = s.refused || notify
		s.mu.Unlock()
		return errShort
	}
	s.wake()
	s.mu.Unlock()
	return nil
}

// idle reports whether a message may be written by its sender: nothing else is
// to be written before it. mu is held.
func (s *Session) idle() bool {
	l := s.line
	return !s.writing && s.queued == 0 && l != nil && l.try != nil && l.first == nil && len(s.control) == 0 && !s.pongDue && !s.ackDue &&
		!s.kept.behind() && !s.kept.full(directOver, s.mayKeep())
}

// maxTokens bounds the messages of a session whose receipts are owed.
const maxTokens = 4096

// SendReceipt is Send for a message whose sender wants to know when the peer has
// it: the owner then gets token. It also returns ErrWouldBlock while as many as
// maxTokens are owed.
func (s *Session) SendReceipt(data []byte, priority uint8, token uint64) error {
	if len(data) > wire.MaxMessage {
		return ErrTooBig
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live {
		return ErrEnded
	}
	if s.tokens >= maxTokens || s.queued > 0 && s.queued+len(data)+frameCost > s.cfg.SendQueue {
		s.refused = true
		return ErrWouldBlock
	}
	it := s.enqueue(data, priority)
	if it == nil {
		s.refused = true
		return ErrWouldBlock
	}
	s.tokens++
	it.tokens = append(it.tokens, token)
	s.wake()
	return nil
}

// SendRun queues n messages until one is refused, and returns how many were
// accepted and why the next was not. message returns the k-th.
func (s *Session) SendRun(n int, message func(k int) ([]byte, uint8)) (int, error) {
	if n == 1 {
		if err := s.Send(message(0)); err != nil {
			return 0, err
		}
		return 1, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live {
		return 0, ErrEnded
	}
	k, err := 0, error(nil)
	for ; k < n; k++ {
		data, priority := message(k)
		if len(data) > wire.MaxMessage {
			err = ErrTooBig
			break
		}
		if s.queued > 0 && s.queued+len(data)+frameCost > s.cfg.SendQueue || s.enqueue(data, priority) == nil {
			s.refused = true
			err = ErrWouldBlock
			break
		}
	}
	if k > 0 {
		s.wake()
	}
	return k, err
}

// SendWait is Send, but waits while much is queued: more than waitOver, although
// the queue may have a bound beyond that. What is in the caches is sealed faster
// than what is not. A message more urgent than all that is queued waits only for
// the bound. When ctx ends, what Send would accept is accepted.
func (s *Session) SendWait(ctx context.Context, data []byte, priority uint8) error {
	if len(data) > wire.MaxMessage {
		return ErrTooBig
	}
	for {
		s.mu.Lock()
		bound := s.cfg.SendQueue
		if !s.overtakes(priority) {
			bound = min(bound, waitOver)
		}
		full := s.state == live && s.queued > 0 && s.queued+len(data)+frameCost > bound
		room := s.room
		if full || s.account.of.isCrowded() { // before it is tried: it is told once
			room = s.waitRoom()
		}
		s.mu.Unlock()
		if !full {
			err := s.send(data, priority, false)
			switch {
			case err == errShort && room != nil: //nolint:errorlint // it is returned bare
			case err == errShort || err == ErrWouldBlock: //nolint:errorlint // likewise
				continue
			default:
				return err
			}
		}
		select {
		case <-room:
		case <-ctx.Done():
			if err := s.send(data, priority, false); err != errShort && err != ErrWouldBlock { //nolint:errorlint // likewise
				return err
			}
			return context.Cause(ctx)
		}
	}
}

// owed reports, once, whether it is time to tell that a queue which refused a
// message has drained to half. mu is held.
func (s *Session) owed() bool {
	if !s.refused || s.queued > s.cfg.SendQueue/2 || s.tokens > maxTokens/2 {
		return false
	}
	s.refused = false
	return s.state == live
}

// overtakes reports whether a message would go before all that is queued. mu is
// held.
func (s *Session) overtakes(priority uint8) bool {
	for _, q := range s.queues {
		if !q.empty() {
			return priority < q.priority
		}
	}
	return false
}

// waitRoom returns a channel that is closed when there is room, the writer
// stops or the session ends. mu is held.
func (s *Session) waitRoom() chan struct{} {
	if s.room == nil {
		s.room = make(chan struct{})
	}
	return s.room
}

// signalRoom wakes who waits. mu is held.
func (s *Session) signalRoom() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// wake starts the writer goroutine if there is something to write, and nobody
// who writes. mu is held.
func (s *Session) wake() {
	if !s.writing && s.sendable() {
		s.writing = true
		s.owner.Go(s.write)
	}
}

// sendable reports whether there is something to write that may be written now.
// It says what take would take. mu is held.
func (s *Session) sendable() bool {
	l := s.line
	switch {
	case l == nil || l.shut || s.state == ended:
		return false
	case l.first != nil || s.kept.behind():
		return true
	case s.state == finishing:
		return true // the half-close
	}
	return len(s.control) > 0 || s.pongDue || s.ackDue || s.next() != nil || s.lowDue() || s.state == draining && s.drained()
}

// pieceLen returns how much of a message that has left bytes to go the next
// piece takes: pieces of one message are about equal.
func pieceLen(left int) int {
	n := (left + wire.MaxBody - 1) / wire.MaxBody
	return (left + n - 1) / n
}

// sealFrames seals a run of frames with content that lies apart.
func sealFrames(seal secure.Sealer, out, frames []byte) []byte {
	return seal.Seal(out, wire.Header{Type: wire.TypeFrames}, frames)
}

// sealControl seals a run of frames without content.
func sealControl(seal secure.Sealer, out, frames []byte) []byte {
	return seal.Seal(out, wire.Header{Type: wire.TypeControl}, frames)
}

// sealPiece seals a piece of a message that has left bytes to go.
func sealPiece(seal secure.Sealer, out, piece []byte, left int, priority uint8) []byte {
	return seal.Seal(out, wire.Header{Type: wire.TypePiece, Priority: priority, Left: left}, piece)
}

// sealRecord seals a record that is kept, or that will be.
func sealRecord(seal secure.Sealer, out []byte, r record) []byte {
	if r.left > 0 {
		return sealPiece(seal, out, r.body(), int(r.left), r.priority)
	}
	return sealFrames(seal, out, r.body())
}

// direct is a message that its sender writes. What is kept of it is in one or two
// records; otherwise it is data itself.
type direct struct {
	data     []byte
	priority uint8
	control  []byte
	kept     bool
	records  [2]record
}

// placeDirect numbers the records of a message that its sender writes, and keeps
// them if they are kept. They lie in the chunk, or are retained until written. It
// reports false, and has done nothing, when there is no memory for that. mu is held.
func (s *Session) placeDirect(data []byte, priority uint8) (d direct, ok bool) {
	d.data, d.priority, d.kept = data, priority, s.kept.retain
	var buf *Buffer
	if d.kept && len(data) > pieceOver {
		if buf = s.buffer(len(data)); buf == nil {
			return d, false
		}
		copy(buf.B, data)
		defer buf.Release()
	} else if d.kept {
		if d.records[0], ok = s.place(data, priority); !ok {
			return d, false
		}
	}
	if s.due(s.line) {
		d.control = s.controls(s.line, nil)
	}
	if len(data) <= pieceOver {
		s.kept.add(d.records[0], true)
		return d, true
	}
	for i, left := 0, len(data); left > 0; i++ {
		n := pieceLen(left)
		r := record{buf: buf, off: int32(len(data) - left), n: int32(n), left: int32(left), priority: priority}
		if left -= n; left == 0 {
			r.messages = 1
		}
		s.kept.add(r, true)
		d.records[i] = r
	}
	return d, true
}

// seal seals the message.
func (d *direct) seal(seal secure.Sealer, out []byte) []byte {
	if len(d.control) > 0 {
		out = sealControl(seal, out, d.control)
	}
	if d.kept && d.records[0].left == 0 {
		return sealRecord(seal, out, d.records[0])
	}
	if len(d.data) <= pieceOver { // the frame is built where its ciphertext goes
		at := len(out) + wire.SealedHeader
		frame := wire.AppendMessage(out[:at], d.priority, d.data)
		return sealFrames(seal, out, frame[at:])
	}
	for left := len(d.data); left > 0; {
		n := pieceLen(left)
		at := len(d.data) - left
		out = sealPiece(seal, out, d.data[at:at+n], left, d.priority)
		left -= n
	}
	return out
}

// writeDirect writes one message on the caller's goroutine without waiting.
// What does not fit is left to the writer. The caller has set writing.
func (s *Session) writeDirect(d direct) {
	defer func() {
		if fault := recover(); fault != nil { // the caller is the program, which has done nothing wrong
			s.broke()
			s.owner.Fault(s, fault)
		}
	}()
	records := len(d.data)/wire.MaxBody + 2
	out := NewBuffer(wire.MessageFrameSize(len(d.data)) + len(d.control) + records*(wire.SealedHeader+wire.TagSize))
	l := s.using
	s.writeNow(l, d.seal(l.link.Seal, out.B[:0]), len(d.data)+frameCost)
	out.Release()
}

// writeNow writes b without waiting; what does not fit is left to the writer. The
// caller has set writing; queued is what the write makes free.
func (s *Session) writeNow(l *line, b []byte, queued int) {
	n, err := l.try.TryWrite(b)
	s.wireOut.Add(uint64(n))
	now := s.clock()
	s.lastSent.Store(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = now
	if queued > 0 {
		s.wrote(now)
	}
	if err == nil && n == len(b) {
		s.tells(l, l.acked.Load())
		s.queued -= queued
		s.tell = s.owed()
		s.stopWriting()
		if s.tell {
			s.writing = true
			s.owner.Go(s.write)
		} else {
			s.wake()
		}
		return
	}
	s.out = append(s.out[:0], b[n:]...) // an error shows again when the writer writes
	s.outCounts = cap(s.out)
	s.account.force(s.outCounts)
	s.owner.Go(s.write)
}

// write is the writer goroutine. After a panic nobody waits for it.
func (s *Session) write() {
	fault := true
	defer func() {
		if fault {
			s.broke()
		}
	}()
	s.writeAll()
	fault = false
}

// broke ends the session after a fault of who had the write side.
func (s *Session) broke() {
	s.end(ErrFault)
	s.mu.Lock()
	s.stopWriting()
	s.mu.Unlock()
}

// writeAll writes while there is something to write, and gives the write side up.
func (s *Session) writeAll() {
	var mem *Buffer
	counts := 0
	defer func() {
		if mem != nil {
			mem.Release()
		}
		s.account.unforce(counts)
	}()
	var b batch
	s.mu.Lock()
	rest := s.out
	s.out, counts, s.outCounts = nil, s.outCounts, 0
	if len(rest) > 0 {
		b.line, b.freed, b.acks = s.using, s.queued-s.waiting(), s.using.acked.Load()
		s.leaves()
	}
	tell := s.tell
	s.tell = false
	s.mu.Unlock()
	if tell {
		s.owner.Writable(s)
	}
	for {
		if len(rest) > 0 {
			b.out, rest = rest, nil
		} else if !s.take(&b, &mem) {
			return
		}
		n, err := 0, error(nil)
		if len(b.out) > 0 {
			n, err = b.line.link.Conn.Write(b.out)
		}
		s.wireOut.Add(uint64(n))
		now := s.clock()
		s.lastSent.Store(now)
		s.mu.Lock()
		s.written, s.atWire = now, false
		if !s.finished {
			s.queued -= b.freed
		}
		b.freed = 0
		if err == nil {
			s.tells(b.line, b.acks)
		}
		s.account.unforce(counts)
		counts = 0
		if s.queued <= waitOver/2 {
			s.signalRoom()
		}
		writable := s.owed()
		s.mu.Unlock()
		if writable {
			s.owner.Writable(s)
		}
		if err != nil {
			s.hearOut(b.line)
			s.unlink(b.line, broken(err))
		} else if b.last {
			s.halfClose(b.line)
		}
	}
}

// stopWriting gives the write side up. mu is held.
func (s *Session) stopWriting() {
	s.leave()
	s.writing = false
	s.signalRoom()
}

// leave is called by the owner of the write side when it is done with a line. mu
// is held.
func (s *Session) leave() {
	if s.using != nil && s.using.cut {
		s.cede(s.using)
	}
	s.using = nil
}

// leaves notes that who has the write side is about to write, without mu, what it has
// sealed. mu is held.
func (s *Session) leaves() {
	s.atWire = true
	if s.state == ended {
		s.signalRoom()
	}
}

// waiting returns the bytes in the queues. mu is held.
func (s *Session) waiting() (n int) {
	for _, q := range s.queues {
		for _, it := range q.items[q.head:] {
			n += int(it.bytes) + int(it.count)*frameCost
		}
	}
	return n
}

// take seals what is to go out next into b.out, up to about batchBytes: control,
// then what the peer has missed, then what is most urgent. With nothing to write
// it gives the write side up and reports false.
func (s *Session) take(b *batch, mem **Buffer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	*b = batch{line: s.line}
	s.leave()
	l := b.line
	if !s.sendable() {
		s.stopWriting()
		return false
	}
	s.using = l
	*mem, b.keep = s.fit(*mem)
	b.out = (*mem).B[:0]
	asks, next := s.pingSent != 0 && len(s.control) > 0, s.kept.next
	if l.first != nil { // Claim or Chosen: it must end its record
		b.out = sealControl(l.link.Seal, append(b.out, l.owed...), l.first)
		l.first, l.owed = nil, nil
		asks = asks || l.begun
	}
	if len(s.control) > 0 || s.pongDue || s.ackDue || s.due(l) {
		b.out = sealControl(l.link.Seal, b.out, s.controls(l, nil))
	}
	before := len(b.out)
	for len(b.out) < batchBytes && s.line == l && s.kept.behind() {
		r := s.kept.again()
		if !b.takes(int(r.n)) {
			break
		}
		r.buf.Retain() // another line might have it acknowledged
		s.unlocked(func() { b.out = sealRecord(l.link.Seal, b.out, r) })
		r.buf.Release()
		if s.line == l {
			s.kept.next++
		}
	}
	asked := len(s.kept.receipts)
	for len(b.out) < batchBytes && s.line == l && !b.full {
		q := s.next()
		if q == nil {
			break
		}
		it := *q.first()
		if !b.takes(it.length()) {
			break
		}
		if !it.large {
			s.takeRun(b, q, it)
			continue
		}
		s.takePiece(b, q, it)
	}
	s.takeLow(b, len(b.out)-before)
	if s.pleads(l, len(s.kept.receipts) > asked) { // the peer answers a ping with what it has
		b.out = sealControl(l.link.Seal, b.out, s.againPing(nil))
	}
	if s.trip == 0 && s.pingSent == 0 && s.kept.full(wire.MaxBody, s.mayKeep()) { // a longer way bears more
		b.out = sealControl(l.link.Seal, b.out, s.ping(nil, s.clock()))
	}
	s.takeEnd(b)
	if asks || s.kept.next != next {
		s.wrote(s.clock())
	}
	b.acks = l.acked.Load()
	s.leaves()
	return true
}

// takeEnd ends what a draining session sends, when it has sent all. mu is held.
func (s *Session) takeEnd(b *batch) {
	l := b.line
	if s.line != l || len(b.out) >= batchBytes || s.kept.behind() {
		return
	}
	if s.state == draining && s.drained() {
		s.state = finishing
		frame := NewBuffer(minFrame)
		n := len(wire.AppendReason(frame.B[:0], wire.FrameClose, s.reason))
		r := record{buf: frame, n: int32(n)}
		b.out = sealRecord(l.link.Seal, b.out, r)
		s.kept.add(r, true)
		frame.Release()
	}
	if s.state == finishing {
		b.last, l.shut = true, true
	}
}

// minFrame is room for the frame of Close.
const minFrame = 16

// controls returns the frames without content that are to go out, in into if nothing
// else holds them yet, and takes them for sent. mu is held.
func (s *Session) controls(l *line, into []byte) []byte {
	frames := s.control
	if frames == nil {
		frames = into
	}
	if s.pongDue {
		frames = wire.AppendPing(frames, wire.FramePong, s.pong)
	}
	if !s.withheld && (s.pongDue || l.position.Load() != l.acked.Load()) {
		frames = wire.AppendAck(frames, l.counts.ack())
		s.owing = s.clock()
	}
	s.control, s.pongDue, s.ackDue = nil, false, false
	return frames
}

// unlocked runs f, which seals, without mu: the write side is ours, so nobody
// else does. A panic of f finds mu held, as the deferred unlocking expects.
func (s *Session) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// takeRun seals the run of frames at the head of q. mu is held, and released
// while sealing.
func (s *Session) takeRun(b *batch, q *queue, it item) {
	q.pop()
	r := record{buf: it.buf, n: int32(it.n), messages: uint32(it.count)}
	s.unlocked(func() { b.out = sealRecord(b.line.link.Seal, b.out, r) })
	s.kept.add(r, s.line == b.line)
	s.kept.want(it.tokens)
	it.buf.Release()
	b.freed += int(it.bytes) + int(it.count)*frameCost
}

// takePiece seals the next piece of the large message at the head of q. mu is
// held, and released while sealing: the head of a queue of which pieces are out
// stays, so the queue is safe meanwhile.
func (s *Session) takePiece(b *batch, q *queue, it item) {
	left := it.n - it.off
	n := pieceLen(left)
	last := n == left
	if it.off == 0 && !last {
		s.open++
	} else if it.off > 0 && last {
		s.open--
	}
	if last {
		q.pop()
	} else {
		q.first().off += n
	}
	r := record{buf: it.buf, off: int32(it.off), n: int32(n), left: int32(left), priority: q.priority}
	if last {
		r.messages = 1
	}
	s.unlocked(func() { b.out = sealRecord(b.line.link.Seal, b.out, r) })
	s.kept.add(r, s.line == b.line)
	if last {
		s.kept.want(it.tokens)
		it.buf.Release()
		b.freed += int(it.bytes) + frameCost
	}
}

// next returns the most urgent queue that may go on: a further message in
// pieces, be it one piece, must wait while wire.MaxOpenPieces are under way, and
// everything while too much is not acknowledged. mu is held.
func (s *Session) next() *queue {
	if s.kept.full(wire.MaxBody, s.mayKeep()) {
		s.starve()
		return nil
	}
	for _, q := range s.queues {
		if q.empty() {
			continue
		}
		if it := q.first(); it.large && it.off == 0 && s.open >= wire.MaxOpenPieces {
			continue
		}
		return q
	}
	return nil
}
