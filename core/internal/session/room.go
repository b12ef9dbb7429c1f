package session

import "github.com/libcrust/libcrust/core/internal/wire"

// A connection holds memory while it is at work: what is sealed to be written, until the
// peer has taken it, and what is being read, until the rest of a record has come or the
// program has taken the messages. Both count, as queues do, beyond freeBuffer: that much a
// session with small messages has beside.
//
// Neither a writer nor a reader waits for memory. Only what is written, and acknowledged, is
// ever given back, and acknowledgements come behind messages: who waited might wait for
// itself. More than one record at a time is for speed, and is done without when the budget is
// short. One record is sealed, and one read, in any case, with all control in its turn; when
// there is no memory it is forced: it counts, beyond the limit, one each way for each session
// at most, and nobody gets less for that. To read one that was announced and does not
// come, no more than four times is forced what has come of it.
//
// What is sealed is its session's, like its queue. What is read is no session's: a program
// that takes nothing stops all readers, and must still be able to send, and to overdraw. So
// readers leave an eighth of the budget at least beside what is set apart.
//
// What waits for memory is a call of the program, and the piece of a large message, for
// budgetPatience: see awaitRoom. A program that waits so may take no messages meanwhile, and
// what makes memory free comes behind them, and behind the piece: two whose memory is all
// taken by what they send each other would wait for ever, and so would a session that holds
// what has come of a large message for a more urgent one. So to a session whose peer has yet
// to acknowledge something, or to end another large message, memory is lent, beyond the limit:
// for pieces, and for what is overdrawn. One loan for all sessions is enough for one after the other, not for all that an
// honest peer may have under way on a long way, and who lets large messages begin and never
// end can have it all: then patience ends, as without it.

const (
	// freeBuffer is the largest memory of a reader or a writer that is not counted, in bytes.
	freeBuffer = 8 << 10
	// wholeBatch is the memory for the largest write, in bytes: a batch, the record that
	// goes beyond it, and one of the low class.
	wholeBatch = batchBytes + 2*wire.MaxRecord
	// sealCost is more than a record adds to its body, and tailRoom than what ends a batch
	// takes: a ping, Close.
	sealCost = 64
	tailRoom = 512
	// readAhead is up to how many eighths of the budget readers take memory for speed, and
	// readRecord for one record.
	readAhead  = 2
	readRecord = 3
	// messageCost is the size of a Message, in bytes.
	messageCost = 32
)

// sizeOf returns the size of the buffer for n bytes.
func sizeOf(n int) int { return 1 << (minClass + 2*classOf(n)) }

// spareBuffer is buffer for what can be done without: nobody is told when there is more.
func (s *Session) spareBuffer(n int) *Buffer {
	if sizeOf(n) <= freeBuffer {
		return NewBuffer(n)
	}
	return s.counted(n, s.account.try(sizeOf(n)), byTake)
}

// forcedBuffer is a buffer that counts, whatever there is.
func (s *Session) forcedBuffer(n int) *Buffer {
	s.account.force(sizeOf(n))
	return s.counted(n, true, byForce)
}

// counted returns a buffer that is counted already, nil when it could not be.
func (s *Session) counted(n int, ok bool, by holding) *Buffer {
	if !ok {
		return nil
	}
	b := NewBuffer(n)
	if s.account.of != nil {
		b.account, b.by = &s.account, by
	}
	return b
}

// batch is what the writer has taken from the queues.
type batch struct {
	line  *line
	out   []byte
	freed int    // bytes of the queue that the write makes free
	acks  uint64 // up to where it, or what went before it, acknowledges
	keep  int    // bytes of out for a record of the low class
	some  bool   // it has a record of content
	full  bool   // and no room for the next
	last  bool
}

// fit returns memory for the batch that is sealed next, which may be mem: for all that
// waits, or when there is none for that, for what must go at once and one record. keep is
// how much of it is for a record of the low class. mu is held.
func (s *Session) fit(mem *Buffer) (fits *Buffer, keep int) {
	l := s.line
	least := len(l.owed) + len(l.first) + len(s.control) + 4*sealCost + tailRoom
	most := least + s.low.bytes
	if s.lowDue() {
		keep = len(s.low.runs[s.low.head]) + sealCost
		least += keep
	}
	if s.kept.behind() {
		least += int(s.kept.again().n)
		most = wholeBatch
	} else if q := s.next(); q != nil {
		least += q.first().length()
		most += s.queued
	}
	most = min(max(most, least), wholeBatch)
	if mem != nil && len(mem.B) >= most {
		return mem, keep
	}
	fresh := (*Buffer)(nil)
	if mem == nil || sizeOf(most) > len(mem.B) {
		fresh = s.spareBuffer(most)
	}
	if little := mem == nil || len(mem.B) < least; fresh == nil && little {
		if fresh = s.spareBuffer(least); fresh == nil {
			fresh = s.forcedBuffer(least)
		}
	}
	if fresh == nil {
		return mem, keep
	}
	if mem != nil {
		mem.Release()
	}
	return fresh, keep
}

// takes reports whether the batch has room for a record with so many bytes, as it has for
// the first.
func (b *batch) takes(n int) bool {
	b.full = b.full || b.some && len(b.out)+n+sealCost > cap(b.out)-b.keep-tailRoom
	b.some = true
	return !b.full
}

// length returns how many bytes of the item the next record takes.
func (it *item) length() int {
	if it.large {
		return pieceLen(it.n - it.off)
	}
	return it.n
}

// tally is memory of the reader that counts.
type tally struct {
	n      int32 // bytes
	forced bool
}

// toRead counts n bytes, which there may be of the budget up to parts eighths of it. It
// reports false when that would be too much.
func (s *Session) toRead(n int, parts int64) (t tally, ok bool) {
	b := s.account.of
	if b == nil || n <= freeBuffer {
		return tally{}, true
	}
	return tally{n: int32(n)}, b.takeToRead(n, b.limit*parts/8)
}

// count counts n bytes, whatever there is.
func (s *Session) count(n int) tally {
	if t, ok := s.toRead(n, readRecord); ok {
		return t
	}
	s.account.force(n)
	return tally{int32(n), true}
}

// uncount takes note that what was counted is given back.
func (s *Session) uncount(t *tally) {
	switch b := s.account.of; {
	case t.forced:
		s.account.unforce(int(t.n))
	case t.n > 0:
		b.freed(int(t.n))
	}
	*t = tally{}
}

// drop gives the read buffer back.
func (in *inbox) drop() {
	if in.buf != nil {
		in.buf.Release()
		in.buf = nil
	}
	in.s.uncount(&in.counts)
}

// room makes room to read: at least what the next step needs, or when there is no memory
// for that, some of it.
func (in *inbox) room() {
	if in.buf != nil && !in.lent && in.start == in.end {
		in.start, in.end = 0, 0
	}
	if size := max(in.want, in.need()); in.buf == nil || in.lent || len(in.buf.B) < size {
		in.swap(size)
	}
	if in.start > 0 && (len(in.buf.B)-in.start < in.need() || in.end == len(in.buf.B)) {
		in.end = copy(in.buf.B, in.buf.B[in.start:in.end])
		in.start = 0
	}
}

// swap gets another buffer, of size bytes if there is memory for it. When there is not,
// what can still be read into stays.
func (in *inbox) swap(size int) {
	s, have := in.s, in.end-in.start
	counts, ok := s.toRead(sizeOf(size), readAhead)
	if !ok {
		if in.buf != nil && !in.lent && have < len(in.buf.B) {
			return
		}
		size = max(in.need(), freeBuffer)
		if counts, ok = s.toRead(sizeOf(size), readRecord); !ok {
			size = min(size, max(4*have, freeBuffer))
			counts = s.count(sizeOf(size))
		}
	}
	fresh := NewBuffer(size)
	n := 0
	if in.buf != nil {
		n = copy(fresh.B, in.buf.B[in.start:in.end])
		in.drop()
	}
	in.buf, in.start, in.end, in.lent, in.counts = fresh, 0, n, false, counts
}

// countList counts the list of messages.
func (in *inbox) countList() {
	if n := cap(in.messages) * messageCost; n != int(in.list.n) && (n > freeBuffer || in.list.n > 0) {
		in.s.uncount(&in.list)
		in.list = in.s.count(n)
	}
}
