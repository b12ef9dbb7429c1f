package session

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// freezer lets one side stand still, as SIGSTOP does to a process, or sleep to a machine:
// nothing of it runs, what it has asked for comes late, and when it goes on its clock has
// jumped. What its kernel holds stays.
type freezer struct {
	mu   sync.Mutex
	thaw chan struct{} // nil while it runs
}

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.thaw = make(chan struct{})
}

func (f *freezer) goOn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.thaw)
	f.thaw = nil
}

// wait waits until the side runs. A nil freezer always does.
func (f *freezer) wait() {
	if f == nil {
		return
	}
	f.mu.Lock()
	thaw := f.thaw
	f.mu.Unlock()
	if thaw != nil {
		<-thaw
	}
}

// frozenConn is a connection of such a side.
type frozenConn struct {
	*cutConn
	f *freezer
}

func (c *frozenConn) Read(p []byte) (int, error) {
	n, err := c.cutConn.Read(p)
	c.f.wait()
	return n, err
}

func (c *frozenConn) ReadLazy(get func() []byte) (int, error) {
	n, err := c.cutConn.ReadLazy(func() []byte {
		c.f.wait()
		return get()
	})
	c.f.wait()
	return n, err
}

func (c *frozenConn) Write(p []byte) (int, error) {
	c.f.wait()
	return c.cutConn.Write(p)
}

func (c *frozenConn) TryWrite(p []byte) (int, error) {
	c.f.wait()
	return c.cutConn.TryWrite(p)
}

// TestOverdue: no answer to a heartbeat is overdue while both are there. When one of them
// stands still it is, soon, and before the link is given up; and no more once that one goes on.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(freezer)
		c := newCutter(t, 40_000, func(int) [2]int { return [2]int{-1, -1} })
		c.dress = func(side int, conn *cutConn) net.Conn {
			if side == 1 {
				return &frozenConn{conn, f}
			}
			return conn
		}
		la, lb := c.link()
		ofA, ofB := &owner{unlinked: make(chan struct{}, 1)}, &owner{unlinked: make(chan struct{}, 1), freeze: f}
		a, b := start(t, la, resuming, ofA), start(t, lb, resuming, ofB)
		for began := time.Now(); time.Since(began) < 3*resuming.Heartbeat; time.Sleep(10 * time.Millisecond) {
			if a.Overdue() || b.Overdue() {
				t.Fatalf("an answer is overdue after %v", time.Since(began))
			}
		}
		f.freeze()
		began := time.Now()
		for !a.Overdue() && time.Since(began) < 2*resuming.Heartbeat {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took > resuming.Heartbeat+overdueAfter+10*time.Millisecond || len(ofA.unlinked) > 0 {
			t.Errorf("nothing was overdue for %v, or the link is gone", took)
		}
		f.goOn()
		time.Sleep(100 * time.Millisecond)
		if a.Overdue() || b.Overdue() || len(ofA.unlinked) > 0 {
			t.Error("an answer is overdue that has come, or the link is gone")
		}
	})
}

// TestSuspendedProcess: a side that stands still for less than LostAfter is not lost, nor
// takes the other one for lost when its clock has jumped; all that is sent meanwhile
// arrives. One that stands still for longer than that and the window is lost within the
// promise.
func TestSuspendedProcess(t *testing.T) {
	for _, span := range []time.Duration{2 * time.Second, 10 * time.Second, time.Minute, 115 * time.Second, time.Hour} {
		for _, traffic := range []time.Duration{0, time.Second, 7 * time.Second} {
			for who := range 2 {
				t.Run(fmt.Sprintf("%v/every %v/side %d", span, traffic, who), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { standStill(t, span, traffic, who) })
				})
			}
		}
	}
}

// standStill has one of two sides, who, stand still while the other sends at intervals.
func standStill(t *testing.T, span, traffic time.Duration, who int) {
	f := new(freezer)
	c := newCutter(t, 40_000, func(int) [2]int { return [2]int{-1, -1} })
	c.dress = func(side int, conn *cutConn) net.Conn {
		if side == who {
			return &frozenConn{conn, f}
		}
		return conn
	}
	c.ready = f.wait // who stands still shakes no hands
	la, lb := c.link()
	of := [2]*owner{{unlinked: make(chan struct{}, 1)}, {unlinked: make(chan struct{}, 1)}}
	of[who].freeze = f
	s := [2]*Session{start(t, la, resuming, of[0]), start(t, lb, resuming, of[1])}
	go c.join(s[0], s[1], of[0], of[1])
	still, other := s[who], s[1-who]
	time.Sleep(time.Minute)
	f.freeze()
	began, sent := time.Now(), 0
	lost := time.Duration(0)
	for time.Since(began) < span && lost == 0 {
		time.Sleep(max(min(traffic, span-time.Since(began)), 100*time.Millisecond))
		select {
		case <-other.Done():
			lost = time.Since(began)
			continue
		default:
		}
		if traffic > 0 && other.Send(numbered(100, sent), 1) == nil {
			sent++
		}
	}
	f.goOn()
	time.Sleep(time.Minute)
	promise := resuming.LostAfter + resuming.ResumeWindow + resuming.Heartbeat
	if span > promise {
		if lost == 0 || lost < resuming.LostAfter-resuming.Heartbeat || lost > promise {
			t.Errorf("lost after %v, promised are %v to %v", lost, resuming.LostAfter, promise)
		}
		return
	}
	if lost > 0 || !still.Live() || !other.Live() {
		t.Fatalf("a side that stood still for %v is lost (after %v), or takes the other for lost", span, lost)
	}
	if err := errors.Join(other.Send(numbered(100, sent), 1), still.Send([]byte("here"), 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	got := of[who].all("message")
	if len(got) != sent+1 || len(of[1-who].all("message")) != 1 {
		t.Fatalf("%d of %d messages have come", len(got), sent+1)
	}
	for i := range got {
		same(t, got[i:i+1], [][]byte{numbered(100, i)})
	}
}
