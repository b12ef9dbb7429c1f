package session

import (
	"fmt"
	"sync/atomic"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// MinResendBuffer is the least Config.ResendBuffer: a sender that has filled
	// it must get an acknowledgement.
	MinResendBuffer = 4 * wire.MaxUnacked
	// keptBase is how much may be kept however short the way is, and keptRate the
	// nanoseconds of a round trip for one byte more: it is what fills a link of 250
	// MB/s. More would be in the caches of nobody: with 512 KiB instead of 8 MiB a
	// flood of small messages measured up to 1.5 times as fast.
	keptBase = MinResendBuffer
	keptRate = 4
	// keptCost is added to each kept record's bytes, so that a flood of tiny
	// records has a bound too.
	keptCost = 64
	// firstKeep and nextKeep are the sizes of the memory that small messages are
	// kept in which their sender writes itself.
	firstKeep = 512
	nextKeep  = 8 << 10
	// ackWith is the number of records after which an acknowledgement goes along
	// with whatever is written; after wire.MaxUnackedRun it goes alone.
	ackWith = wire.MaxUnackedRun / 4
)

// record is a sent record of content in plaintext.
type record struct {
	buf      *Buffer // nil when nothing is kept
	off, n   int32   // the body is buf.B[off:off+n]
	left     int32   // of a piece; zero for frames
	priority uint8   // of a piece
	messages uint32  // that end in it
}

// receipt is a message whose sender wants to know when the peer has the record
// that it ends in.
type receipt struct{ number, token uint64 }

// backlog is what has been sent and not yet acknowledged. Records are numbered
// from 0. It is guarded by Session.mu; records are added by the owner of the write
// side only.
//
//	acked ≤ next ≤ sealed: records[0] has the number acked
type backlog struct {
	acked    uint64 // the peer has those before
	next     uint64 // to go out on the line; those after it have gone out on an earlier one
	sealed   uint64 // of the next new record
	asked    uint64 // the peer is asked for those before; see plead
	records  []record
	head     int // records before it are gone
	bytes    int // of records, with keptCost each
	receipts []receipt

	chunk  *Buffer // takes small messages
	used   int32   // bytes of it
	size   int16   // of the chunk, unless a message is larger
	retain bool
	fresh  bool // a record was sealed since the last tick
}

func (k *backlog) empty() bool { return k.acked == k.sealed }

// full reports whether no record of n bytes may be added.
func (k *backlog) full(n, limit int) bool {
	return k.retain && k.bytes > 0 && k.bytes+n+keptCost > limit
}

// add takes a new record, of which it gets a reference to the buffer. It has
// gone out on the line if there is still the one it was sealed for.
func (k *backlog) add(r record, onLine bool) {
	if onLine {
		k.next++
	}
	k.sealed++
	k.fresh = true
	if !k.retain {
		return
	}
	r.buf.Retain()
	k.bytes += int(r.n) + keptCost
	k.records = append(k.records, r)
}

// want notes messages that end in the newest record.
func (k *backlog) want(tokens []uint64) {
	for _, t := range tokens {
		k.receipts = append(k.receipts, receipt{k.sealed - 1, t})
	}
}

// mayKeep returns how many bytes may be kept. It is less than the configured bound
// when the round trip is short, or when the peer has less room. mu is held.
func (s *Session) mayKeep() int {
	theirs := max(int64(s.remote.Unacked), MinResendBuffer)
	return int(min(keptBase+s.trip/keptRate, theirs, int64(s.cfg.ResendBuffer)))
}

// A program that answers messages stops to take them while its answers wait for
// acknowledgements. These come behind further messages, for which there is no
// room then. So a session that waits for acknowledgements may overdraw the room for
// messages, and acknowledges none of them until there is room again: an honest
// peer sends no more than it may keep. If the peer's program does not take messages
// either, both wait, as over any stream.

// overdraft is how much may be overdrawn, in parts of Config.ResendBuffer. It is
// more than one because small messages are charged with more than their bytes.
const overdraft = 2

// starving reports whether there are messages which cannot go out, or for which there is no
// memory, before something is acknowledged. mu is held.
func (s *Session) starving() bool {
	return s.poor && !s.kept.empty() || s.kept.full(wire.MaxBody, s.mayKeep()) && !s.drained()
}

// starve fills Starved.
func (s *Session) starve() {
	select {
	case s.starved <- struct{}{}:
	default:
	}
}

// Starved has an element when the session may have begun to wait for
// acknowledgements, or may get memory. It is for a Deliver that waits.
func (s *Session) Starved() <-chan struct{} { return s.starved }

// Overdraw asks, in Deliver, whether messages must be taken for which there is no
// room. If so Settle must be called when there is.
func (s *Session) Overdraw(bytes int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.starving() || s.overdrawn+bytes > overdraft*s.cfg.ResendBuffer {
		return false
	}
	if !s.takes(bytes) {
		if !s.account.borrow(bytes) {
			return false
		}
		s.borrowed += bytes
	}
	s.overdrawn += bytes
	s.withheld = true
	return true
}

// Settle says that what was overdrawn has room.
func (s *Session) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.withheld {
		s.clearOverdraft()
		s.withheld, s.ackDue = false, true
		s.wake()
	}
}

// clearOverdraft gives back what was overdrawn. mu is held.
func (s *Session) clearOverdraft() {
	s.account.give(s.overdrawn - s.borrowed)
	s.account.repay(s.borrowed)
	s.overdrawn, s.borrowed = 0, 0
}

// behind reports whether records must go out again.
func (k *backlog) behind() bool { return k.next < k.sealed }

// again returns the next record to go out again.
func (k *backlog) again() record { return k.records[k.head+int(k.next-k.acked)] }

// ack forgets the records before n, and returns the tokens of the messages in
// them. n is at most sealed.
func (k *backlog) ack(n uint64) (tokens []uint64) {
	if k.retain {
		for ; k.acked < n; k.acked++ {
			r := &k.records[k.head]
			k.bytes -= int(r.n) + keptCost
			r.buf.Release()
			*r = record{}
			k.head++
		}
		if k.head == len(k.records) {
			k.records, k.head = k.records[:0], 0
		} else if k.head >= 64 && k.head*2 >= len(k.records) {
			m := copy(k.records, k.records[k.head:])
			clear(k.records[m:])
			k.records, k.head = k.records[:m], 0
		}
	}
	k.acked = max(k.acked, n)
	k.next = max(k.next, n)
	i := 0
	for ; i < len(k.receipts) && k.receipts[i].number < n; i++ {
		tokens = append(tokens, k.receipts[i].token)
	}
	if k.receipts = k.receipts[i:]; len(k.receipts) == 0 {
		k.receipts = nil
	}
	return tokens
}

// tokensLeft returns the tokens of all messages.
func (k *backlog) tokensLeft() (tokens []uint64) {
	for _, r := range k.receipts {
		tokens = append(tokens, r.token)
	}
	return tokens
}

// messages returns how many messages are in the records.
func (k *backlog) messages() (n uint64) {
	for _, r := range k.records[k.head:] {
		n += uint64(r.messages)
	}
	return n
}

// place copies a small message as a frame to where it can be kept. It reports false when
// there is no memory. mu is held.
func (s *Session) place(data []byte, priority uint8) (record, bool) {
	k := &s.kept
	size := wire.MessageFrameSize(len(data))
	if k.chunk == nil || int(k.used)+size > len(k.chunk.B) {
		more := min(max(4*int(k.size), firstKeep), nextKeep)
		fresh := s.buffer(max(more, size))
		if fresh == nil {
			return record{}, false
		}
		if k.chunk != nil {
			k.chunk.Release()
		}
		k.size, k.chunk, k.used = int16(more), fresh, 0
	}
	r := record{buf: k.chunk, off: k.used, n: int32(size), messages: 1}
	wire.AppendMessage(k.chunk.B[:k.used], priority, data)
	k.used += int32(size)
	return r, true
}

// body returns the plaintext of a record.
func (r *record) body() []byte { return r.buf.B[r.off : r.off+r.n] }

// rest gives memory back that a quiet session has no use for: when no record of content was
// sealed since the last tick. Every tick does so, not only one that has a heartbeat to send:
// one side only answers those of the other. mu is held.
func (s *Session) rest() {
	k := &s.kept
	if k.fresh || s.writing { // the chunk, and a queue, is the write side's then
		k.fresh = false
		return
	}
	if s.queued == 0 {
		s.queues = nil
	}
	if k.empty() {
		k.trim()
	}
}

// trim gives the memory of a backlog back that is empty.
func (k *backlog) trim() {
	k.records, k.head = nil, 0
	if k.chunk != nil {
		k.chunk.Release()
		k.chunk, k.size = nil, 0
	}
}

// clear gives all memory back.
func (k *backlog) clear() {
	for _, r := range k.records[k.head:] {
		r.buf.Release()
	}
	if k.chunk != nil {
		k.chunk.Release()
	}
	*k = backlog{acked: k.sealed, next: k.sealed, sealed: k.sealed}
}

// counts are what the reader of a line tells its writer: how far it is, and how
// far the peer knows that it is.
type counts struct {
	position atomic.Uint64 // number of the next record on the line
	bytes    atomic.Uint64 // of the bodies of records
	acked    atomic.Uint64 // position as last acknowledged
	ackedB   atomic.Uint64 // bytes then
}

// due reports whether an acknowledgement should go along with what is written. mu
// is held.
func (s *Session) due(l *line) bool {
	return !s.withheld && l.position.Load()-l.counts.acked.Load() >= ackWith
}

// overdue reports whether an acknowledgement must go, if need be alone.
func (c *counts) overdue() bool {
	return c.position.Load()-c.acked.Load() >= wire.MaxUnackedRun || c.bytes.Load()-c.ackedB.Load() >= wire.MaxUnacked
}

// ack returns the number to acknowledge, and takes it for told.
func (c *counts) ack() uint64 {
	bytes := c.bytes.Load() // before position: rather too few of them
	n := c.position.Load()
	c.acked.Store(n)
	c.ackedB.Store(bytes)
	return n
}

// acknowledge returns the frames of an acknowledgement when much has come since the last
// one, for the reader, who writes when nobody else does; otherwise nil.
func (s *Session) acknowledge(l *line) []byte {
	if !l.counts.overdue() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != l || s.state >= finishing || s.withheld {
		return nil
	}
	s.ackDue = true
	if s.writing || l.try == nil {
		s.wake()
		return nil
	}
	return s.takeControls(l)
}

// answer returns the frames of an answer to a ping that has come by a line, for the reader,
// who writes when the session is idle: to start the writer for that costs more than all
// the rest. Otherwise it is nil.
func (s *Session) answer(l *line) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != l || !s.atRest() || len(s.control) > 0 {
		s.wake()
		return nil
	}
	if s.rtt.Load() == 0 && s.pingSent == 0 { // the first ping of a line goes with an answer
		now := s.clock()
		s.control = s.ping(s.scrap[wire.SealedHeader:wire.SealedHeader], now)
		s.wrote(now)
	}
	return s.takeControls(l)
}

// atRest reports whether nobody writes, and nothing that has content is to be written. mu
// is held.
func (s *Session) atRest() bool {
	l := s.line
	return l != nil && !l.shut && l.try != nil && l.first == nil && s.state == live && !s.writing && s.queued == 0 && !s.kept.behind()
}

// ping appends a ping that measures the round trip. mu is held.
func (s *Session) ping(frames []byte, now int64) []byte {
	s.pingSent = uint64(now) + 1
	return wire.AppendPing(frames, wire.FramePing, s.pingSent)
}

// againPing appends one that only has the peer acknowledge. It has the value of the outstanding
// one: the peer answers but the last of several that it reads together. mu is held.
func (s *Session) againPing(frames []byte) []byte {
	return wire.AppendPing(frames, wire.FramePing, s.pingSent)
}

// takeControls takes the write side, which is free, for the reader, and returns the frames
// without content that are to go out. mu is held.
func (s *Session) takeControls(l *line) []byte {
	s.writing, s.using, s.answering = true, l, true
	return s.controls(l, s.scrap[wire.SealedHeader:wire.SealedHeader])
}

// acked takes an acknowledgement.
func (s *Session) acked(l *line, n uint64) error {
	s.mu.Lock()
	if s.line != l {
		s.mu.Unlock()
		return nil
	}
	if n < s.kept.acked || n > s.kept.next {
		s.mu.Unlock()
		return protocol(fmt.Errorf("%d records acknowledged, of %d that were sent and %d that had been acknowledged", n, s.kept.next, s.kept.acked))
	}
	before := s.kept.acked
	tokens := s.kept.ack(n)
	s.tokens -= int32(len(tokens))
	s.wake()
	writable := false
	switch {
	case s.poor && n > before: // else who acknowledges nothing again and again has the program try each time
		if writable = s.eased(); s.poor && s.plead() {
			s.wake()
		}
	case len(tokens) > 0:
		writable = s.owed()
	}
	s.mu.Unlock()
	s.receipts(tokens, nil)
	if writable {
		s.owner.Writable(s)
	}
	return nil
}
