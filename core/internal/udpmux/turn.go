package udpmux

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
)

// loanTick is how often the reader looks whether its lent turn is in use. Longer
// than this, and what Borrower.Read takes, nobody is kept waiting by a borrower
// who stays away.
const loanTick = 2 * time.Millisecond

// Where the right to read from the socket is.
const (
	turnBack  = iota // the reader's
	turnFree         // lent, and who wants it may use it
	turnTaken        // in use
)

// turn is the right to read from the socket, for all associations. When small
// packets come one by one and each is waited for, to wake the reader which wakes
// who waits costs more than all the rest. So the reader lends its turn to a
// Borrower who waits, and whose packets are all that comes.
//
//	back ──lend──▶ free ──Read──▶ taken ──its next packet has come──▶ free
//	                │                └──nothing came, or for others; a fault──▶ back
//	                └──unused for loanTick, Rest──▶ back
type turn struct {
	soon   netio.SoonReader // nil: nothing is lent
	reader *reader          // belongs to who has the turn
	ticker *time.Ticker     // of who lends
	wake   chan struct{}    // one slot: the turn is back
	wanted atomic.Pointer[Borrower]
	naps   atomic.Uint64 // calls of Rest by who is wanted

	mu       sync.Mutex
	state    int
	used     uint64 // times that it was taken
	recalled bool   // it must not be free again
}

func (t *turn) init(m *Mux) {
	t.soon, _ = m.conn.(netio.SoonReader)
	t.reader = m.newReader()
	t.wake = make(chan struct{}, 1)
	t.ticker = time.NewTicker(loanTick)
	t.ticker.Stop()
}

// Borrower is who waits for the packets of one association, and may read from
// the socket for all of them meanwhile. One goroutine at a time uses it.
type Borrower struct {
	assoc *Assoc
	ready func() bool
}

// Borrower returns a borrower. ready reports whether what it waits for has come; it
// must not block.
func (a *Assoc) Borrower(ready func() bool) *Borrower { return &Borrower{a, ready} }

// Read reads from the socket until ready, for about patience at most, in which it
// may call any handler of the Mux. It does not sleep. It returns false, at once,
// when the turn is not lent: then the Borrower should wait as it would without,
// and will get it when the next packet comes alone.
func (b *Borrower) Read(patience time.Duration) bool {
	m := b.assoc.mux
	t := &m.turn
	if t.soon == nil {
		return true
	}
	if t.wanted.Load() != b {
		t.wanted.Store(b)
	}
	if !t.take() {
		return false
	}
	state := turnBack
	defer func() { t.give(state) }() // also after a fault
	r := t.reader
	for end := m.now() + patience; ; {
		n, err := t.soon.ReadSoon(r.packets[:1], end-m.now())
		if n == 0 || err != nil { // the reader will see what is wrong
			return true
		}
		lone, ready := r.batch(n), b.ready()
		switch {
		case lone != b.assoc:
			return true
		case ready:
			state = turnFree
			return true
		case m.now() >= end:
			return true
		}
	}
}

// Rest says that the Borrower is about to sleep, or does not read for other
// reasons.
func (b *Borrower) Rest() {
	t := &b.assoc.mux.turn
	if t.wanted.Load() != b {
		return
	}
	t.naps.Add(1)
	t.mu.Lock()
	back := t.state == turnFree
	if back {
		t.state = turnBack
	}
	t.mu.Unlock()
	if back {
		t.wanted.CompareAndSwap(b, nil)
		t.nudge()
	}
}

// take takes a turn that is free.
func (t *turn) take() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != turnFree {
		return false
	}
	t.state = turnTaken
	t.used++
	return true
}

// give ends what take began.
func (t *turn) give(state int) {
	t.mu.Lock()
	if t.recalled {
		state = turnBack
	}
	t.state = state
	t.mu.Unlock()
	if state == turnBack {
		t.nudge()
	}
}

// nudge wakes the reader.
func (t *turn) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// lend lends the turn to the Borrower of an association for which alone something
// has come, and returns when it is back. naps is what turn.naps was before that was
// delivered: who has begun to sleep since then would not use the turn, and who sleeps
// although it has something to read wakes now.
func (m *Mux) lend(a *Assoc, naps uint64) {
	t := &m.turn
	b := t.wanted.Load()
	if b == nil || b.assoc != a || !b.ready() {
		return
	}
	t.mu.Lock()
	if t.recalled || t.naps.Load() != naps {
		t.mu.Unlock()
		return
	}
	t.state = turnFree
	used := t.used
	t.mu.Unlock()
	t.ticker.Reset(loanTick)
	defer t.ticker.Stop()
	for done, back := m.done, false; !back; {
		idle := false
		select {
		case <-t.wake:
		case <-t.ticker.C:
			idle = true
		case <-done:
			done = nil
		}
		t.mu.Lock()
		t.recalled = t.recalled || done == nil
		if t.state == turnFree && (t.recalled || idle && t.used == used) {
			t.state = turnBack
			t.wanted.CompareAndSwap(b, nil)
		}
		used, back = t.used, t.state == turnBack
		t.mu.Unlock()
	}
}
