package session

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

// lendTick is how often the reader looks whether its lent turn is in use. The
// turn comes back when it lay unused for one to two of these.
const lendTick = 2 * time.Millisecond

// idleTicks is after how many ticks in one and the same read the reader stops to look.
const idleTicks = 4

// Where the right to read is.
const (
	turnFree  uint32 = iota // lent, and whoever comes may use it
	turnTaken               // in use
	turnBack                // the reader's again
)

// Turn is the right to read for a session, lent by its reader to the program
// that waits for events. When messages come one by one, to wake a reader which
// wakes the program costs more than all the rest: with a turn the program's own
// goroutine waits at the connection, and nobody needs to be woken.
//
//	free ──Take──▶ taken ──Step, all calm──▶ free
//	  │              └──Step: an error, an interruption, a flood──▶ back
//	  └──unused for lendTick, or the session ended──▶ back
type Turn struct {
	in          *inbox
	line        *line
	state       atomic.Uint32
	steps       atomic.Uint32
	asleep      atomic.Bool // the reader waits for wake alone
	interrupted atomic.Bool
	wake        chan struct{}                   // has room for one
	until       <-chan struct{}                 // of the taker: its Step ends when this is closed
	watched     atomic.Pointer[<-chan struct{}] // what the reader watches for it
}

// Session returns whose turn it is.
func (t *Turn) Session() *Session { return t.in.s }

// Take takes a free turn. Whoever got it must call Step.
func (t *Turn) Take() bool { return t.state.CompareAndSwap(turnFree, turnTaken) }

// Free reports whether the turn may be taken, or is.
func (t *Turn) Free() bool { return t.state.Load() != turnBack }

// Interrupt makes a Step that waits return soon. It may be called at any time,
// also when the turn is back.
func (t *Turn) Interrupt() {
	t.interrupted.Store(true)
	t.line.link.Conn.SetReadDeadline(past) //nolint:errcheck // a closed connection interrupts too
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// Step reads once for the session, which may wait, and delivers what has come.
// It is interrupted when until is closed, which may be nil. It reports whether
// the turn is free again; otherwise the reader has it back.
func (t *Turn) Step(until <-chan struct{}) (free bool) {
	in := t.in
	if until != t.until { // seldom: the reader, which does nothing else, watches it
		t.until = until
		watch := until // which then is on the heap, and until is not
		t.watched.Store(&watch)
		t.nudge()
	}
	defer func() {
		if fault := recover(); fault != nil { // the caller is the program, which has done nothing wrong
			in.failed, free = ErrFault, false
			in.s.owner.Fault(in.s, fault)
		}
		if free {
			t.steps.Add(1)
			t.state.Store(turnFree)
		} else {
			t.state.Store(turnBack)
		}
		if !free || t.asleep.CompareAndSwap(true, false) {
			t.nudge()
		}
	}()
	if in.failed = in.receive(true); in.failed != nil || t.interrupted.Load() {
		return false
	}
	if in.failed = in.take(); in.failed != nil {
		return false
	}
	if frames := in.reply(); frames != nil {
		s := in.s
		s.writeNow(in.line, sealControl(in.line.link.Seal, s.scrap[:0], frames), 0)
		s.answering = false
	}
	calm := in.calm()
	return in.deliver(false) && in.closed == nil && calm
}

// nudge wakes the reader.
func (t *Turn) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// calm reports whether what was read is at most one small message.
func (in *inbox) calm() bool {
	return len(in.messages) <= 1 && in.want == smallRead && in.start == in.end && !in.headed && !in.more && len(in.partials) == 0
}

// lend offers the turn to the owner. If it is accepted, lend waits until it is
// back and returns true.
func (in *inbox) lend() bool {
	t := &Turn{in: in, line: in.line, wake: make(chan struct{}, 1)}
	if !in.s.owner.Lend(t) {
		return false
	}
	ticker := time.NewTicker(lendTick)
	defer ticker.Stop()
	gone, until := in.line.gone, (<-chan struct{})(nil)
	for last, same := uint32(0), 0; ; {
		select {
		case <-t.wake:
			ticker.Reset(lendTick)
			if w := t.watched.Swap(nil); w != nil {
				until = *w
			}
		case <-until:
			until = nil
			t.Interrupt()
		case <-ticker.C:
		case <-gone: // its connection is closed: a Step that waits returns
			gone = nil
			last = t.steps.Load()
		}
		if t.state.Load() == turnBack {
			return true
		}
		steps := t.steps.Load()
		if steps != last {
			last, same = steps, 0
			continue
		}
		if t.state.CompareAndSwap(turnFree, turnBack) {
			return true
		}
		if same++; same == idleTicks {
			same = 0
			ticker.Stop()
			t.asleep.Store(true)
			if t.state.Load() != turnTaken && t.asleep.CompareAndSwap(true, false) { // it went on before it could see that we sleep
				ticker.Reset(lendTick)
			}
		}
	}
}

// Reads that are tried without sleeping.
const (
	soonPatience = 100 * time.Microsecond // of one read
	soonHope     = 4                      // most reads that may fail after one another
	soonDespair  = 64                     // reads without a try when they have, doubled each time up to
	soonMost     = 1024
	soonYield    = 32  // tries after which the scheduler is asked whether somebody else wants to run, which costs as much as a short wait
	soonSpell    = 256 // of so many tries one is left out; a multiple of soonYield
)

// ErrLater means that a connection cannot be read without sleeping this time: others
// share what is below it, and somebody else reads there.
var ErrLater = errors.New("not this time")

// readSoon tries to read without sleeping, while that pays: answers that come
// sooner than a sleeping thread is woken. When none has come for some times it
// is left alone for a while.
//
// A goroutine that never sleeps keeps its processor until the scheduler takes it
// away, after 10 ms. So now and then others go first, and more seldom a read
// sleeps if it has to: only then the scheduler asks whether there is something
// to read elsewhere.
func (in *inbox) readSoon() (int, error) {
	if in.skip > 0 {
		in.skip--
		return 0, nil
	}
	switch in.spell++; {
	case in.spell == soonSpell:
		in.spell = 0
		return 0, nil
	case in.spell%soonYield == 0:
		runtime.Gosched()
	}
	n, err := in.soon.ReadSoon(in.get(), soonPatience)
	in.got(n)
	switch {
	case err == ErrLater: //nolint:errorlint // it is returned bare
		return 0, nil
	case n > 0:
		in.hope, in.despair = min(in.hope+1, soonHope), soonDespair
	case in.hope > 0:
		in.hope--
	default:
		in.skip = max(in.despair, soonDespair)
		in.despair = min(2*in.skip, soonMost)
	}
	return n, err
}

// interruption reports whether a read ended by Interrupt, and makes the
// connection readable again, unless the line is given up.
func (in *inbox) interruption(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	in.line.link.Conn.SetReadDeadline(time.Time{}) //nolint:errcheck // a closed connection shows in the next read
	select {
	case <-in.line.gone: // before that deadline, which was to end the reading: see Expel
		return false
	default:
		return true
	}
}
