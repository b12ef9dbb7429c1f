package udpmux

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// borrow has packet 0 wake a borrower at y, which so gets the turn to read.
func borrow(t *testing.T, x, y *end) *Borrower {
	t.Helper()
	b := y.Borrower(func() bool { return len(y.news) > 0 })
	if b.Read(0) {
		t.Fatal("the turn is lent before anybody wanted it")
	}
	b.Rest()
	return lent(t, b, x, y, 0)
}

// lent is borrow for a later packet and an association that has a Borrower.
func lent(t *testing.T, b *Borrower, x, y *end, number int) *Borrower {
	t.Helper()
	x.send(t, number, 1, 64)
	synctest.Wait()
	y.check(t, 0, number+1)
	<-y.news
	if !y.mux.isLent() {
		t.Fatal("the turn is not lent")
	}
	return b
}

func (m *Mux) isLent() bool {
	m.turn.mu.Lock()
	defer m.turn.mu.Unlock()
	return m.turn.state == turnFree
}

// borrowed runs f in virtual time, with a turn at y that is lent.
func borrowed(t *testing.T, f func(t *testing.T, w *world, x, y *end, b *Borrower)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{}, nil)
		x, y := w.x.join(t, w.y, w.to)
		searched(t, x, y)
		f(t, w, x, y, borrow(t, x, y))
	})
}

// searched exchanges datagrams until the path has been searched, so that nothing but
// packets is sent any more.
func searched(t *testing.T, x, y *end) {
	t.Helper()
	for range 40 {
		for _, e := range []*end{x, y} {
			if err := e.SendDatagram([]byte("settle")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	<-x.news
	<-y.news
}

// prompt fails unless the first count packets have come, by now.
func prompt(t *testing.T, y *end, count int) {
	t.Helper()
	synctest.Wait()
	y.check(t, 0, count)
}

// TestBorrowerReads: who borrows the turn gets what comes by its own call, and in
// order; when nothing comes the reader has the turn back at once.
func TestBorrowerReads(t *testing.T) {
	borrowed(t, func(t *testing.T, w *world, x, y *end, b *Borrower) {
		for i := 1; i < 50; i++ {
			x.send(t, i, 1, 64)
			synctest.Wait()
			if p, _ := y.got(); p != i {
				t.Fatalf("packet %d was read by somebody else", i)
			}
			if !b.Read(time.Millisecond) || !w.y.isLent() {
				t.Fatal("the turn is gone")
			}
			y.check(t, 0, i+1)
			<-y.news
		}
		if !b.Read(time.Millisecond) {
			t.Fatal("the turn is gone")
		}
		x.send(t, 50, 1, 64)
		prompt(t, y, 51)
		<-y.news
		x.send(t, 51, 1, 64)
		synctest.Wait()
		if !b.Read(time.Millisecond) || !w.y.isLent() {
			t.Fatal("the turn is not lent again")
		}
		y.check(t, 0, 52)
	})
}

// TestBorrowerStaysAway: a turn that is not used is the reader's again within two
// ticks, and at once when the borrower says that it rests.
func TestBorrowerStaysAway(t *testing.T) {
	for _, reads := range []int{0, 1, 3} {
		borrowed(t, func(t *testing.T, w *world, x, y *end, b *Borrower) {
			next := 1
			for ; next <= reads; next++ {
				time.Sleep(3 * loanTick / 4)
				x.send(t, next, 1, 64)
				synctest.Wait()
				b.Read(time.Millisecond)
				<-y.news
			}
			x.send(t, next, 1, 64)
			synctest.Wait()
			if p, _ := y.got(); p != next {
				t.Fatal("the turn was taken back early")
			}
			began := time.Now()
			y.within(t, time.Second, "a packet", func() bool { p, _ := y.got(); return p == next+1 })
			if took := time.Since(began); took > 2*loanTick {
				t.Fatalf("the turn came back after %v", took)
			}
			if w.y.isLent() || b.Read(0) {
				t.Fatal("the turn is still lent")
			}
			x.send(t, next+1, 1, 64)
			prompt(t, y, next+2)
			<-y.news
			x.send(t, next+2, 1, 64)
			synctest.Wait()
			began = time.Now()
			b.Rest()
			if prompt(t, y, next+3); time.Since(began) > 0 {
				t.Fatalf("the turn came back %v after Rest", time.Since(began))
			}
		})
	}
}

// TestBorrowerAsleep: no turn is lent to who sleeps and is not woken, such as by an
// acknowledgement.
func TestBorrowerAsleep(t *testing.T) {
	borrowed(t, func(t *testing.T, w *world, x, y *end, b *Borrower) {
		b.Rest()
		y.send(t, 0, 1, 64)
		if b.Read(0) {
			t.Fatal("the turn is still lent")
		}
		b.Rest()
		time.Sleep(time.Second) // the acknowledgement is sent alone
		if w.y.isLent() {
			t.Fatal("the turn is lent to who sleeps")
		}
		lent(t, b, x, y, 1)
	})
}

// TestBorrowerServesOthers: what comes for other associations while the turn is lent is
// delivered, by the borrower or within two ticks, and then the turn is the reader's. The
// same for what does not come alone, or for nobody.
func TestBorrowerServesOthers(t *testing.T) {
	borrowed(t, func(t *testing.T, w *world, x, y *end, b *Borrower) {
		x2, y2 := newNode(t, w.net.Host(hostC), "0.0.0.0:0", nil).join(t, w.y, w.to)
		if w.y.isLent() {
			t.Fatal("the turn is still lent after a handshake of somebody else")
		}
		searched(t, x2, y2)
		b.Read(0)
		b.Rest()
		lent(t, b, x, y, 1)
		x2.send(t, 0, 1, 64)
		synctest.Wait()
		if p, _ := y2.got(); p != 0 || !b.Read(time.Millisecond) {
			t.Fatal("somebody else has read")
		}
		y2.check(t, 0, 1)
		if w.y.isLent() {
			t.Fatal("the turn is still lent after a packet for somebody else")
		}
		lent(t, b, x, y, 2)
		x2.send(t, 1, 1, 64) // the borrower is away
		began := time.Now()
		y2.within(t, time.Second, "a packet", func() bool { p, _ := y2.got(); return p == 2 })
		if took := time.Since(began); took > 2*loanTick {
			t.Fatalf("a packet for somebody else came after %v", took)
		}
		b.Read(0)
		b.Rest()
		lent(t, b, x, y, 3)
		if err := w.x.WriteTo([]byte("nobody's"), w.to); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.Read(time.Millisecond); w.y.isLent() || len(w.y.strays) != 1 {
			t.Fatal("the turn is still lent after what belongs to nobody")
		}
		lent(t, b, x, y, 4)
		x.send(t, 5, 200, 20_000)
		for b.Read(time.Millisecond) {
			select {
			case <-y.news:
			default:
			}
		}
		y.within(t, time.Minute, "all packets", func() bool { p, _ := y.got(); return p == 205 })
		y.check(t, 0, 205)
	})
}

// TestBorrowerClose: Close of the Mux returns at once while the turn is lent, and the
// borrower gets nothing more.
func TestBorrowerClose(t *testing.T) {
	borrowed(t, func(t *testing.T, w *world, x, y *end, b *Borrower) {
		began := time.Now()
		w.y.stop()
		if took := time.Since(began); took > 0 {
			t.Fatalf("closing took %v", took)
		}
		if b.Read(time.Second) || time.Since(began) > 0 {
			t.Fatal("the turn of a Mux that is closed is still lent")
		}
		b.Rest()
		if err := x.ended(t, time.Second); err == nil {
			t.Fatal("the peer was not told")
		}
	})
	for range 20 { // in the midst of a Read
		borrowed(t, func(t *testing.T, w *world, _, y *end, b *Borrower) {
			over := make(chan struct{})
			go func() {
				defer close(over)
				for b.Read(time.Millisecond) {
				}
			}()
			w.y.Close(wire.ReasonStopping)
			<-over
		})
	}
}

// TestBorrowerFault: when a handler panics in the borrower's call, the reader has
// the turn back.
func TestBorrowerFault(t *testing.T) {
	borrowed(t, func(t *testing.T, _ *world, x, y *end, b *Borrower) {
		faulty := true
		y.SetHandlers(Handlers{Packet: func(p []byte) {
			if faulty {
				faulty = false
				panic("a fault in the library")
			}
		}})
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no fault")
				}
			}()
			x.send(t, 1, 1, 64)
			synctest.Wait()
			b.Read(time.Millisecond)
		}()
		if y.mux.isLent() {
			t.Fatal("the turn is still lent")
		}
	})
}
