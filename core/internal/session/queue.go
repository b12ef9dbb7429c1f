package session

import (
	"slices"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// mustArrive is the least urgent priority that is never dropped.
	mustArrive = 1
	// pieceOver is the size in bytes above which a message goes in pieces.
	pieceOver = 16 << 10
	// frameCost is added to each message's bytes when the queue is measured,
	// so that a flood of empty messages has a bound too.
	frameCost = 8
	// firstChunk and nextChunk are the sizes of the runs of frames: a lone
	// message takes little memory, a flood goes in full records.
	firstChunk = 1 << 10
	nextChunk  = wire.MaxBody
	// notSent is how much the kernel may hold that has not gone out: what waits
	// there, no urgent message can overtake.
	notSent = 256 << 10
	// waitOver is how much is queued when SendWait waits, until half of it is gone.
	waitOver = 512 << 10
	// batchBytes is how much is sealed for one write.
	batchBytes = 256 << 10
)

// item is a run of frames, or one large message.
type item struct {
	buf      *Buffer
	n        int      // bytes of buf in use
	off      int      // of a large message: bytes already out
	count    uint64   // messages
	bytes    uint64   // of messages
	born     int64    // session clock; set above mustArrive only
	tokens   []uint64 // of messages whose sender wants a receipt
	large    bool
	capacity int // a run takes frames up to here
}

// queue is what waits at one priority.
type queue struct {
	priority uint8
	items    []item
	head     int // items before it are gone
}

func (q *queue) empty() bool { return q.head == len(q.items) }

func (q *queue) first() *item { return &q.items[q.head] }

func (q *queue) pop() {
	q.items[q.head] = item{}
	if q.head++; q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	} else if q.head >= 64 && q.head*2 >= len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
}

// takes reports whether a frame of so many bytes fits into the run that was queued last.
func (q *queue) takes(size int, large bool) bool {
	if large || q.empty() {
		return false
	}
	it := &q.items[len(q.items)-1]
	return !it.large && it.n+size <= it.capacity
}

// oldest returns when the first item was queued that may grow too old: none of which
// pieces are out, which is finished in any case.
func (q *queue) oldest() (int64, bool) {
	i := q.head
	if i < len(q.items) && q.items[i].off > 0 {
		i++
	}
	if i == len(q.items) {
		return 0, false
	}
	return q.items[i].born, true
}

// messages returns how many messages wait.
func (q *queue) messages() (n uint64) {
	for i := range q.items[q.head:] {
		n += q.items[q.head+i].count
	}
	return n
}

// tokensLeft returns the tokens of all messages.
func (q *queue) tokensLeft() (tokens []uint64) {
	for i := range q.items[q.head:] {
		tokens = append(tokens, q.items[q.head+i].tokens...)
	}
	return tokens
}

func (q *queue) clear() {
	for ; !q.empty(); q.pop() {
		q.first().buf.Release()
	}
}

// queueFor returns the queue of a priority. mu is held.
func (s *Session) queueFor(priority uint8) *queue {
	for i, q := range s.queues {
		if q.priority == priority {
			return q
		}
		if q.priority > priority {
			s.queues = slices.Insert(s.queues, i, &queue{priority: priority})
			return s.queues[i]
		}
	}
	s.queues = append(s.queues, &queue{priority: priority})
	return s.queues[len(s.queues)-1]
}

// enqueue copies a message into its queue, and returns the item that it is the
// last message of, nil when there is no memory for it. mu is held.
func (s *Session) enqueue(data []byte, priority uint8) *item {
	q := s.queueFor(priority)
	size := wire.MessageFrameSize(len(data))
	var fresh *Buffer
	room := nextChunk
	if q.empty() {
		room = max(firstChunk, size)
	}
	if len(data) > pieceOver {
		room = len(data)
	}
	if !q.takes(size, len(data) > pieceOver) {
		if fresh = s.buffer(room); fresh == nil {
			return nil
		}
	}
	s.sent++
	s.sentBytes += uint64(len(data))
	s.queued += len(data) + frameCost
	var born int64
	if priority > mustArrive && fresh != nil {
		born = s.clock()
		if _, ok := q.oldest(); !ok { // else that is due sooner
			s.tickBy(born+int64(s.cfg.MaxAge), born)
		}
	}
	if len(data) > pieceOver {
		copy(fresh.B, data)
		q.items = append(q.items, item{buf: fresh, n: len(data), count: 1, bytes: uint64(len(data)), born: born, large: true})
		return &q.items[len(q.items)-1]
	}
	if fresh == nil {
		it := &q.items[len(q.items)-1]
		it.n = len(wire.AppendMessage(it.buf.B[:it.n], priority, data))
		it.count++
		it.bytes += uint64(len(data))
		return it
	}
	n := len(wire.AppendMessage(fresh.B[:0], priority, data))
	q.items = append(q.items, item{buf: fresh, n: n, count: 1, bytes: uint64(len(data)), born: born, capacity: room})
	return &q.items[len(q.items)-1]
}

// drop counts messages that were dropped at one priority.
type drop struct {
	priority     uint8
	count, bytes uint64
	tokens       []uint64
}

// expire drops what is too old: at the first priority above mustArrive whose
// oldest item is over age, that whole queue and every less urgent one, as overlay
// networks expect; a message of which pieces are out is finished. mu is held.
func (s *Session) expire(now int64) (drops []drop) {
	expired := false
	for _, q := range s.queues {
		if q.priority <= mustArrive {
			continue
		}
		if born, ok := q.oldest(); ok && now-born >= int64(s.cfg.MaxAge) {
			expired = true
		}
		if !expired || q.empty() {
			continue
		}
		var kept []item
		if it := q.first(); it.off > 0 {
			kept = []item{*it}
			q.pop()
		}
		d := drop{priority: q.priority}
		for ; !q.empty(); q.pop() {
			it := q.first()
			d.count += it.count
			d.bytes += it.bytes
			d.tokens = append(d.tokens, it.tokens...)
			s.queued -= int(it.bytes) + int(it.count)*frameCost
			it.buf.Release()
		}
		q.items = append(q.items, kept...)
		if d.count > 0 {
			s.dropped += d.count
			s.tokens -= int32(len(d.tokens))
			drops = append(drops, d)
		}
	}
	if len(drops) > 0 {
		s.signalRoom()
	}
	return drops
}
