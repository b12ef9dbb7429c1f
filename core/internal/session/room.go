package session

import "github.com/libcrust/libcrust/core/internal/wire"

// What is sealed to be written counts for the session until the peer has taken it, as
// queues do, beyond freeBuffer: that much a session with small messages has beside. To seal
// more than one record at a time is for speed, and is done without when the budget is
// short. One record is sealed in any case: a writer never waits for memory, since only what
// is written, and acknowledged, is ever given back; heartbeats, acknowledgements and control
// go in the same buffer. When there is no memory at all that one record is forced: it counts
// beyond the limit, one for each session at most, and takes nothing from the parts of others.

const (
	// freeBuffer is the largest buffer for sealed records that is not counted, in bytes.
	freeBuffer = 8 << 10
	// wholeBatch is the memory for the largest write, in bytes: a batch, the record that
	// goes beyond it, and one of the low class.
	wholeBatch = batchBytes + 2*wire.MaxRecord
	// sealCost is more than a record adds to its body, and tailRoom than what ends a batch
	// takes: a ping, Close.
	sealCost = 64
	tailRoom = 512
)

// sizeOf returns the size of the buffer for n bytes.
func sizeOf(n int) int { return 1 << (minClass + 2*classOf(n)) }

// spareBuffer is buffer for what can be done without: nobody is told when there is more.
func (s *Session) spareBuffer(n int) *Buffer {
	if sizeOf(n) <= freeBuffer {
		return NewBuffer(n)
	}
	return s.counted(n, s.account.try(sizeOf(n)), false)
}

// forcedBuffer is a buffer that counts, whatever there is.
func (s *Session) forcedBuffer(n int) *Buffer {
	s.account.force(sizeOf(n))
	return s.counted(n, true, true)
}

// counted returns a buffer that is counted already, nil when it could not be.
func (s *Session) counted(n int, ok, forced bool) *Buffer {
	if !ok {
		return nil
	}
	b := NewBuffer(n)
	if s.account.of != nil {
		b.account, b.forced = &s.account, forced
	}
	return b
}

// batch is what the writer has taken from the queues.
type batch struct {
	line  *line
	out   []byte
	freed int  // bytes of the queue that the write makes free
	keep  int  // bytes of out for a record of the low class
	some  bool // it has a record of content
	full  bool // and no room for the next
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
