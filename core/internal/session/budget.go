package session

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// Half of a budget is set apart: of it each of as many sessions as there may be has an equal
// part for itself, which nobody can take from it. The other half is shared as the memory of a
// switch is among its ports (dynamic thresholds, Choudhury and Hahne 1998): a session gets
// more while what it holds is less than what is free. So those whose peers take nothing
// never have all, and one alone has at most half of it.

const (
	// budgetStep is the part of a budget that must have become free since a session was
	// refused before it is told: no sooner it would get much.
	budgetStep = 64
	// budgetPatience is how long the parts of a large message wait for memory. Several that
	// hold theirs could wait for each other for ever.
	budgetPatience = 10 * time.Second
	// lentPart is the part of a budget that is lent beyond it at most, or leastLent bytes: a
	// large message is there twice while it grows, and a more urgent one may come meanwhile.
	lentPart  = 16
	leastLent = wire.MaxOpenPieces * wire.MaxMessage
)

// errShort is ErrWouldBlock since there is no memory.
var errShort = errors.New("there is no memory for the message")

// ErrMemory is why a session ends for whose large message there is no memory.
var ErrMemory = errors.New("the budget of memory has no room for what the peer sends")

// Budget bounds what many sessions hold together: messages that wait to be sent or
// acknowledged, what is sealed to be written and what is being read, frames that are carried for others, large
// messages until the program gives them back, and what was overdrawn. All methods may be called from any goroutine;
// a nil Budget is without bound.
type Budget struct {
	limit   int64
	part    int64 // that each session has for itself
	held    atomic.Int64
	forced  atomic.Int64 // of held: what was taken although there was none
	lent    atomic.Int64 // of forced: see borrow
	refused atomic.Uint64
	crowded atomic.Bool // somebody waits

	mu      sync.Mutex // taken with a session's held, and no other within
	members map[*Session]struct{}
	waiting map[*Session]struct{}
	wakeAt  int64     // what is held, and not forced, when they are told
	pleaded time.Time // when all members were last to plead
}

// NewBudget returns a budget of so many bytes for so many sessions.
func NewBudget(limit int64, sessions int) *Budget {
	return &Budget{limit: limit, part: limit / 2 / int64(sessions), members: make(map[*Session]struct{}), waiting: make(map[*Session]struct{})}
}

// Held returns the bytes that are held, in the sizes that buffers come in.
func (b *Budget) Held() int64 { return b.held.Load() }

// Refused returns how often a session was refused memory.
func (b *Budget) Refused() uint64 { return b.refused.Load() }

// account is what one session holds of a budget.
type account struct {
	of   *Budget
	held atomic.Int64
}

// take takes n bytes, and reports false when it may not hold as much.
func (a *account) take(n int) bool {
	if a.try(n) {
		return true
	}
	a.of.refused.Add(1)
	return false
}

// try is take for what can be done without.
func (a *account) try(n int) bool {
	b := a.of
	if b == nil {
		return true
	}
	for {
		held := b.held.Load()
		all := held - b.forced.Load()
		own := a.held.Load() + int64(n)
		if own > b.part && own > b.limit/2-all || all+int64(n) > b.limit {
			return false
		}
		if b.held.CompareAndSwap(held, held+int64(n)) {
			a.held.Add(int64(n))
			return true
		}
	}
}

// force takes n bytes, whatever there is. Nobody gets less for that.
func (a *account) force(n int) {
	if b := a.of; b != nil {
		b.held.Add(int64(n)) // first: what is not forced never seems less than it is
		b.forced.Add(int64(n))
	}
}

// unforce gives n bytes back that were forced.
func (a *account) unforce(n int) {
	if b := a.of; b != nil {
		b.forced.Add(-int64(n))
		b.freed(n)
	}
}

// borrow forces n bytes for what has come, up to a bound for all sessions. It is for who must
// read on, since the acknowledgements which make memory free come behind that.
func (a *account) borrow(n int) bool {
	most := max(leastLent, a.of.limit/lentPart)
	for lent := a.of.lent.Load(); lent+int64(n) <= most; lent = a.of.lent.Load() {
		if a.of.lent.CompareAndSwap(lent, lent+int64(n)) {
			a.force(n)
			return true
		}
	}
	return false
}

// repay gives n bytes back that were borrowed, and has readers that wait try again.
func (a *account) repay(n int) {
	b := a.of
	if b == nil || n == 0 {
		return
	}
	a.unforce(n)
	b.lent.Add(-int64(n))
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.waiting {
		s.starve()
	}
}

// takeToRead takes n bytes that are no session's, when with them not more than most are
// held.
func (b *Budget) takeToRead(n int, most int64) bool {
	for {
		held := b.held.Load()
		if held-b.forced.Load()+int64(n) > most {
			return false
		}
		if b.held.CompareAndSwap(held, held+int64(n)) {
			return true
		}
	}
}

// give gives n bytes back.
func (a *account) give(n int) {
	b := a.of
	if b == nil || n == 0 {
		return
	}
	a.held.Add(-int64(n))
	b.freed(n)
}

// all returns what is held and not forced.
func (b *Budget) all() int64 { return b.held.Load() - b.forced.Load() }

// freed takes note that n bytes have been given back.
func (b *Budget) freed(n int) {
	b.held.Add(-int64(n))
	if b.crowded.Load() {
		b.tell()
	}
}

// tell tells those who wait, when it is time.
func (b *Budget) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all() > b.wakeAt {
		return
	}
	b.crowded.Store(false)
	for s := range b.waiting {
		delete(b.waiting, s)
		s.spawn(s.relieved)
	}
}

// isCrowded reports whether somebody waits.
func (b *Budget) isCrowded() bool { return b != nil && b.crowded.Load() }

// await has a session told when there is more room, and all sessions plead for some. s.mu
// may be held.
func (b *Budget) await(s *Session) {
	now := time.Now()
	b.mu.Lock()
	plead := now.Sub(b.pleaded) >= pleadEvery
	if plead {
		b.pleaded = now
	}
	at := max(0, b.all()-b.limit/budgetStep)
	if len(b.waiting) == 0 || at > b.wakeAt {
		b.wakeAt = at
	}
	b.waiting[s] = struct{}{}
	b.crowded.Store(true)
	b.mu.Unlock()
	if plead {
		s.spawn(b.plead)
	}
	b.tell() // it may be so meanwhile
}

// relieved is called when a session that was refused memory may get some.
func (s *Session) relieved() {
	s.mu.Lock()
	writable := s.eased()
	s.starve()
	if s.state != live {
		s.mu.Unlock()
		return
	}
	s.ticking++ // the last word is not said before
	s.mu.Unlock()
	if writable {
		s.owner.Writable(s)
	}
	s.mu.Lock()
	s.ticking--
	s.signalRoom()
	s.mu.Unlock()
}

// buffer returns a buffer of at least n bytes that counts for the session until it is
// released, nil when there is no memory for it: then the call that it was for is refused, and
// relieved is called when there is more. mu is held.
func (s *Session) buffer(n int) *Buffer {
	b := s.counted(n, s.takes(sizeOf(n)), byTake)
	if b == nil {
		s.poorer()
	}
	return b
}

// takes takes n bytes; when it may not, relieved is called when there is more. mu may be held.
func (s *Session) takes(n int) bool {
	if s.account.take(n) {
		return true
	}
	s.account.of.await(s)
	return false
}

// lacks returns how many bytes the piece whose header has come asks for, beside those
// that its message has.
func (in *inbox) lacks() int {
	h := in.header
	for i := range in.partials {
		if p := &in.partials[i]; p.priority == h.Priority {
			if p.have+h.Len > len(p.buf.B) {
				return p.have + h.Left
			}
			return 0
		}
	}
	return max(h.Len, min(h.Left, firstPartial))
}

// pieceBuffer returns a buffer for the piece that has come, nil when there is no memory for
// it. It is lent to a session that holds what becomes free behind the piece only.
func (in *inbox) pieceBuffer(n int) *Buffer {
	s, size := in.s, sizeOf(n)
	if s.takes(size) {
		return s.counted(n, true, byTake)
	}
	s.mu.Lock()
	holds := s.queued > 0 || s.kept.bytes > 0
	s.mu.Unlock()
	for i := range in.partials { // less urgent messages wait for this one
		holds = holds || in.partials[i].priority != in.header.Priority
	}
	return s.counted(n, holds && s.account.borrow(size), byLoan)
}

// awaitRoom waits until there may be memory for the piece that has come.
func (in *inbox) awaitRoom() error {
	s := in.s
	now := s.clock()
	if in.shortAt == 0 {
		in.shortAt = now
	}
	left := budgetPatience - time.Duration(now-in.shortAt)
	s.mu.Lock()
	room, gone := s.waitRoom(), in.line.gone
	s.mu.Unlock()
	switch { // again: there may be room since, and nobody tells of it twice
	case in.claim():
		return nil
	case left <= 0:
		return ErrMemory
	}
	s.paused.Store(true)
	s.pulse(now)
	defer func() {
		s.paused.Store(false)
		s.heard(s.clock())
	}()
	timer := time.NewTimer(min(left, pleadEvery)) // others may have sent more meanwhile
	defer timer.Stop()
	select {
	case <-room:
	case <-s.starved:
	case <-timer.C:
	case <-gone: // what waits comes again by another line
		return ErrBroken
	case <-s.quit:
		return ErrEnded
	}
	return nil
}
