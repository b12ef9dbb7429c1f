package crust

import (
	"context"
	"sync"

	"github.com/libcrust/libcrust/core/internal/session"
)

const (
	// chunkEvents is how many events gather in one chunk of the queue.
	chunkEvents = 4096
	// keepChunks is how many empty chunks are kept for the next flood.
	keepChunks = 4
	// controlReserve is how many events other than messages may wait before no
	// new session is taken on.
	controlReserve = 65536
)

// chunk is a run of events with the buffers that their messages lie in.
type chunk struct {
	events  []Event
	buffers []*session.Buffer
	bytes   int // of messages, for the bound of the queue
	taken   int // events handed out
	refs    int // batches not yet released, and one for the queue
}

// eventQueue is the one bounded queue between the sessions and the program.
// Messages wait for room; other events always get in.
type eventQueue struct {
	onEvents func()
	log      func(*Event) // nil: nobody; may be called with locks held, but not mu
	limit    int          // bytes of messages

	mu      sync.Mutex
	chunks  []*chunk // not yet handed out completely
	free    []*chunk
	count   int           // events waiting
	bytes   int           // what messages are charged with, until their batch is released
	total   uint64        // events ever
	pauses  uint64        // times that a reader had to wait
	ready   chan struct{} // closed when the queue is not empty; nil when nobody waits
	room    chan struct{} // closed when there is room; nil when nobody waits
	closing bool          // the service stops: see bound

	slab    *session.Buffer // where datagrams are gathered; nil when none has come
	slabOf  *chunk          // whose buffer it is
	slabbed int             // bytes of it in use

	turn    *session.Turn                 // lent to who waits; may have been taken back
	reading bool                          // somebody waits at the connection of turn
	streak  int                           // lone messages of one session that somebody waited for
	lone    *session.Session              // which
	late    map[*session.Session]struct{} // to settle when there is room: see session.Overdraw
	stopped bool                          // EventStopped is in
	drained bool                          // EventStopped has been handed out
}

const (
	// messageCost is the bookkeeping that a queued message is charged with, so
	// that a flood of empty messages has a bound too.
	messageCost = 80
	// lendAfter is how many messages of one session must have come one by one,
	// each to a program that waited, before it may read by itself.
	lendAfter = 8
	// bufferShare is the part of its buffers that a delivery is charged with at
	// least. Buffers come in powers of four, so it matters only to messages that
	// are much smaller than the smallest buffer and come one by one.
	bufferShare = 4
)

// tail returns the chunk to append n events to. mu is held.
func (q *eventQueue) tail(n int) *chunk {
	if len(q.chunks) > 0 {
		if c := q.chunks[len(q.chunks)-1]; len(c.events)+n <= chunkEvents {
			return c
		}
	}
	var c *chunk
	if k := len(q.free); k > 0 {
		c, q.free = q.free[k-1], q.free[:k-1]
	} else {
		c = new(chunk)
	}
	c.refs = 1
	q.chunks = append(q.chunks, c)
	return c
}

// grow makes room for n more events. What has been handed out is the program's,
// which may write to it, and is left where it is.
func (c *chunk) grow(n int) {
	if cap(c.events)-len(c.events) >= n {
		return
	}
	left := c.events[c.taken:]
	c.events = append(make([]Event, 0, max(2*len(left), len(left)+n, 16)), left...)
	c.taken = 0
}

// signal wakes one who waits for events. mu is held; the returned function is to
// be called without it.
func (q *eventQueue) signal(before int) func() {
	if q.ready != nil {
		close(q.ready)
		q.ready = nil
	}
	interrupt, call := q.turn, q.onEvents
	if !q.reading {
		interrupt = nil
	}
	if before > 0 {
		call = nil
	}
	return func() {
		if interrupt != nil {
			interrupt.Interrupt()
		}
		if call != nil {
			call()
		}
	}
}

// push adds an event that must not be refused.
func (q *eventQueue) push(e Event) { q.add(e)() }

// maxNews is how many events may wait when one of pushNews is added.
const maxNews = 1 << 16

// pushNews is push for what others can make happen as often as they like: it is left
// out, and false returned, when too many events wait.
func (q *eventQueue) pushNews(e Event) bool {
	q.mu.Lock()
	crowded := q.count >= maxNews
	q.mu.Unlock()
	if !crowded {
		q.push(e)
	}
	return !crowded
}

// add is push, but leaves it to the caller to call what is to be called when
// the queue was empty.
func (q *eventQueue) add(e Event) func() {
	if q.log != nil && isLogged(e.Type) {
		logged := e // so that e need not be on the heap
		q.log(&logged)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return func() {}
	}
	q.stopped = e.Type == EventStopped
	c := q.tail(1)
	c.grow(1)
	c.events = append(c.events, e)
	before := q.count
	q.count++
	q.total++
	return q.signal(before)
}

// bound returns how many bytes of messages may wait. While the service stops it
// is twice the limit: what peers had on their way when they were told then finds
// room, and a program that reads no more does not delay the end. mu is held.
func (q *eventQueue) bound() int {
	if q.closing {
		return 2 * q.limit
	}
	return q.limit
}

// close begins the time of the wider bound.
func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing = true
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// deliver adds messages of a session. It waits for room, or until the session
// may overdraw, and gives up and releases the buffers when the session quits. Without wait, which is for who
// reads by a turn, it takes nothing when there is no room.
func (q *eventQueue) deliver(sess *session.Session, messages []session.Message, buffers []*session.Buffer, wait bool) bool {
	bytes, held := 0, 0
	for i := range messages {
		bytes += len(messages[i].Data) + messageCost
	}
	for _, b := range buffers {
		held += len(b.B)
	}
	bytes = max(bytes, held/bufferShare)
	q.mu.Lock()
	for paused := false; q.bytes > 0 && q.bytes+bytes > q.bound() && !q.stopped; {
		if !wait {
			q.mu.Unlock()
			return false
		}
		if !paused {
			q.pauses++
			paused = true
		}
		if sess.Overdraw(bytes) {
			if q.late == nil {
				q.late = map[*session.Session]struct{}{}
			}
			q.late[sess] = struct{}{}
			break
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-sess.Starved():
		case <-sess.Quit():
			for _, b := range buffers {
				b.Release()
			}
			return false
		}
		q.mu.Lock()
	}
	if q.stopped {
		q.mu.Unlock()
		for i := 0; i < len(buffers) && wait; i++ {
			buffers[i].Release()
		}
		return false
	}
	c := q.tail(len(messages))
	c.grow(len(messages))
	n := len(c.events)
	c.events = c.events[:n+len(messages)]
	peer := sess.Remote().Peer
	for i := range messages {
		e := &c.events[n+i]
		e.Type, e.Priority, e.Peer, e.Data = EventMessage, messages[i].Priority, peer, messages[i].Data
	}
	c.buffers = append(c.buffers, buffers...)
	c.bytes += bytes
	q.bytes += bytes
	before := q.count
	q.count += len(messages)
	q.total += uint64(len(messages))
	reading := q.reading
	if !wait { // it comes from who reads: there is nobody to interrupt
		q.reading = false
	} else if len(messages) > 1 || q.ready == nil {
		q.streak = 0
	} else if q.streak++; q.lone != sess {
		q.streak, q.lone = 1, sess
	}
	call := q.signal(before)
	q.reading = reading
	q.mu.Unlock()
	call()
	return true
}

// lend takes the turn to read for a session when its messages come one by one
// to a program that waits for each. OnEvents is promised to be called from a
// goroutine of the library, so a program that has one does not read itself.
func (q *eventQueue) lend(t *session.Turn) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.onEvents != nil || q.streak < lendAfter || q.lone != t.Session() || q.reading || q.turn != nil && q.turn.Free() || q.closing || q.stopped {
		return false
	}
	q.turn, q.lone = t, nil
	if q.ready != nil { // who waits must come to read
		close(q.ready)
		q.ready = nil
	}
	return true
}

// read reads by the turn that the caller has taken, until something has come or
// ctx ends. mu is held when it is called and when it returns.
func (q *eventQueue) read(ctx context.Context, t *session.Turn) {
	q.reading = true
	q.mu.Unlock()
	free := t.Step(ctx.Done())
	q.mu.Lock()
	q.reading = false
	if !free && q.turn == t {
		q.turn = nil
	}
}

// take hands out up to limit events of the first chunk, all of them when limit is 0.
func (q *eventQueue) take(limit int) (Batch, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == 0 {
		return Batch{}, false
	}
	c := q.chunks[0]
	n := len(c.events) - c.taken
	if limit > 0 {
		n = min(n, limit)
	}
	b := Batch{Events: c.events[c.taken : c.taken+n : c.taken+n], queue: q, chunk: c}
	c.taken += n
	c.refs++
	q.count -= n
	if c.taken == len(c.events) {
		k := copy(q.chunks, q.chunks[1:])
		q.chunks[k] = nil
		q.chunks = q.chunks[:k]
		c.refs--
	}
	if q.stopped && q.count == 0 {
		q.drained = true
	}
	return b, true
}

// release gives a batch back.
func (q *eventQueue) release(c *chunk) {
	q.mu.Lock()
	if c.refs--; c.refs > 0 {
		q.mu.Unlock()
		return
	}
	if q.slabOf == c {
		q.dropSlab()
	}
	buffers := c.buffers
	q.bytes -= c.bytes
	var late map[*session.Session]struct{}
	if q.bytes <= q.limit/2 {
		if q.room != nil {
			close(q.room)
			q.room = nil
		}
		late, q.late = q.late, nil
	}
	q.mu.Unlock()
	for sess := range late {
		sess.Settle()
	}
	for _, b := range buffers {
		b.Release()
	}
	clear(c.events)
	clear(c.buffers)
	*c = chunk{events: c.events[:0], buffers: c.buffers[:0]}
	q.mu.Lock()
	if len(q.free) < keepChunks {
		q.free = append(q.free, c)
	}
	q.mu.Unlock()
}

// trim lets go of the memory of a past flood when nothing waits.
func (q *eventQueue) trim() {
	q.mu.Lock()
	if q.count == 0 {
		q.free = nil
	}
	q.mu.Unlock()
}

// wait blocks until there is an event. It returns nil, the cause of ctx's end,
// or CodeClosed when no event will come.
func (q *eventQueue) wait(ctx context.Context) error {
	q.mu.Lock()
	for {
		switch {
		case q.count > 0:
			q.mu.Unlock()
			return nil
		case q.drained:
			q.mu.Unlock()
			return CodeClosed
		case ctx.Err() != nil:
			q.mu.Unlock()
			return context.Cause(ctx)
		}
		if t := q.turn; t != nil && !q.reading {
			if t.Take() {
				q.read(ctx, t)
				continue
			}
			q.turn = nil
		}
		if q.ready == nil {
			q.ready = make(chan struct{})
		}
		ready := q.ready
		q.mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		q.mu.Lock()
	}
}

// crowded reports whether so many events other than messages wait that no new
// session should come. Of messages there are at most what their cost allows.
func (q *eventQueue) crowded() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count-q.bytes/messageCost > controlReserve
}

// pending reports whether an event waits.
func (q *eventQueue) pending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count > 0
}

// isDrained reports whether EventStopped has been handed out.
func (q *eventQueue) isDrained() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drained
}

// giveBack puts events, whose data is owned, at the front again.
func (q *eventQueue) giveBack(events []Event) {
	if len(events) == 0 {
		return
	}
	c := &chunk{events: append([]Event(nil), events...), refs: 1}
	q.mu.Lock()
	q.chunks = append([]*chunk{c}, q.chunks...)
	before := q.count
	q.count += len(events)
	q.drained = false
	call := q.signal(before)
	q.mu.Unlock()
	call()
}
