package session

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// short returns a budget that has no more than n bytes for a session.
func short(t *testing.T, n int64) *Budget {
	t.Helper()
	b, _ := full(t, 4)
	b.freed(int(n))
	return b
}

// TestRefusedIsToldSoon: who is refused memory that holds what the peer has already gets it
// with the next round trip, however it sends.
func TestRefusedIsToldSoon(t *testing.T) {
	const size, n = 20_000, 50
	data := numbered(size, 1)
	for name, send := range map[string]func(t *testing.T, s *Session, o *owner){
		"SendWait": func(t *testing.T, s *Session, _ *owner) {
			for range n {
				if err := s.SendWait(t.Context(), data, 1); err != nil {
					t.Fatal(err)
				}
			}
		},
		"Send": func(t *testing.T, s *Session, o *owner) {
			for range n {
				for s.Send(data, 1) != nil {
					o.next(t, "writable")
				}
			}
		},
		"SendReceipt": func(t *testing.T, s *Session, o *owner) {
			for k := range n {
				for s.SendReceipt(data, 1, uint64(k)) != nil {
					o.next(t, "writable")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := resuming
				cfg.Budget = short(t, 64<<10)
				la, lb := links(t, 40_000, nil)
				oa, ob := new(owner), new(owner)
				s := start(t, la, cfg, oa)
				start(t, lb, resuming, ob)
				began := time.Now()
				send(t, s, oa)
				if took := time.Since(began); took > time.Second {
					t.Errorf("%d messages that the peer takes at once took %v", n, took)
				}
			})
		})
	}
}

// next waits until the owner was told something, and forgets what it was told before.
func (o *owner) next(t *testing.T, what string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if len(o.all(what)) > 0 {
			return
		}
	}
	t.Fatalf("the owner is not told: %s", what)
}

// TestPingOfWhoPleads: who is refused memory while a ping is on its way still gets the answer to it.
func TestPingOfWhoPleads(t *testing.T) {
	for name, plead := range map[string]func(s *Session){
		"at once": func(s *Session) { s.poorer() },
		"behind a batch": func(s *Session) { // which is written with the ping, and has something to ask for
			s.poor = true
			s.mu.Unlock()
			s.Send([]byte("more"), 1)
			s.mu.Lock()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				la, lb := links(t, 40_000, nil)
				s := start(t, la, resuming, new(owner))
				start(t, lb, resuming, new(owner))
				synctest.Wait()
				s.Send([]byte("kept"), 1)
				synctest.Wait()
				s.mu.Lock()
				s.control = s.ping(s.control, s.clock())
				plead(s)
				s.wake()
				s.mu.Unlock()
				synctest.Wait()
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.pingSent != 0 || s.kept.acked != s.kept.next {
					t.Errorf("ping %d is not answered, %d of %d records are acknowledged", s.pingSent, s.kept.acked, s.kept.next)
				}
			})
		})
	}
}

// TestPatienceOfEachLink: who has waited for memory for long when the link breaks, and is without one
// for longer, waits over the next one as if it were the first.
func TestPatienceOfEachLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCutter(t, 40_000, func(int) [2]int { return [2]int{-1, -1} })
		cfg := resuming
		cfg.Budget, _ = full(t, 4)
		oa, ob := &owner{unlinked: make(chan struct{}, 1)}, &owner{unlinked: make(chan struct{}, 1)}
		la, lb := c.link()
		a, b := start(t, la, resuming, oa), start(t, lb, cfg, ob)
		data := numbered(1<<20, 1)
		if err := a.Send(data, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(budgetPatience / 2)
		if cfg.Budget.Refused() == 0 {
			t.Fatal("there is memory")
		}
		a.Forsake(la.Conn, ErrBroken)
		b.Forsake(lb.Conn, ErrBroken)
		time.Sleep(2 * budgetPatience)
		go c.join(a, b, oa, ob)
		time.Sleep(budgetPatience / 2)
		if ended := ob.all("ended"); len(ended) > 0 {
			t.Errorf("the session ends: %v", ended[0].why)
		}
		cfg.Budget.freed(1 << 20)
		cfg.Budget.freed(0)
		time.Sleep(time.Second)
	})
}

// TestOthersPlead: a large message finds the memory that other sessions hold for what their
// peers have already.
func TestOthersPlead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := resuming
		cfg.Budget = NewBudget(16<<20, 64)
		for range 64 { // each keeps less than what is acknowledged unasked
			la, lb := links(t, 0, nil)
			s := start(t, la, cfg, new(owner))
			start(t, lb, resuming, new(owner))
			if err := s.Send(make([]byte, 100_000), 1); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := cfg.Budget.Held(); n < 6<<20 {
			t.Fatalf("%d bytes are kept", n)
		}
		la, lb := links(t, 0, nil)
		o := new(owner)
		sender := start(t, la, resuming, new(owner))
		start(t, lb, cfg, o)
		if err := sender.Send(make([]byte, 2<<20), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // before any heartbeat
		if n := len(o.all("message")); n != 1 {
			t.Errorf("%d messages arrive", n)
		}
	})
}

// TestBothSendLarge: two that have memory for one large message or two send each other as
// many as they can, and all arrive.
func TestBothSendLarge(t *testing.T) {
	for _, priorities := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			const n, size = 30, 2 << 20
			la, lb := links(t, 40_000, nil)
			var sessions [2]*Session
			var owners [2]*owner
			for i, link := range []*secure.Link{la, lb} {
				cfg := resuming
				cfg.Budget = NewBudget(16<<20, 16)
				owners[i] = new(owner)
				sessions[i] = start(t, link, cfg, owners[i])
			}
			var senders sync.WaitGroup
			for _, s := range sessions {
				for p := range priorities {
					senders.Go(func() {
						for k := range n {
							if err := s.SendWait(t.Context(), numbered(size, k), uint8(p)); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
			}
			senders.Wait()
			time.Sleep(30 * time.Second)
			for _, o := range owners {
				events := o.take()
				for _, e := range events {
					if e.what == "ended" || e.what == "suspended" {
						t.Errorf("%s: %v", e.what, e.why)
					}
				}
				for p := range priorities {
					if got := len(byPriority(events, uint8(p))); got != n {
						t.Errorf("%d of %d messages arrive", got, n)
					}
				}
			}
		})
	}
}

// TestRepaidIsLentAtOnce: who waits for a loan that another session has gets it when that one repays,
// not a moment later.
func TestRepaidIsLentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := resuming
		cfg.Budget = NewBudget(1<<20, 4)
		la, lb := links(t, 1<<20, nil)
		o := new(owner)
		s := start(t, lb, cfg, o)
		if err := s.Send([]byte("kept"), 1); err != nil { // else nothing is lent
			t.Fatal(err)
		}
		synctest.Wait()
		fill(t, cfg.Budget, 4)
		other := account{of: cfg.Budget}
		for n := 1 << 20; n > 0; n /= 2 {
			for other.borrow(n) {
			}
		}
		stream := sealPiece(la.Seal, nil, make([]byte, wire.MaxBody), wire.MaxBody+1, 1)
		if _, err := la.Conn.Write(sealPiece(la.Seal, stream, make([]byte, 1), 1, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pleadEvery / 2)
		if n := len(o.all("message")); n != 0 {
			t.Fatal("the message needs no loan")
		}
		other.repay(leastLent)
		synctest.Wait()
		if n := len(o.all("message")); n != 1 {
			t.Errorf("%d messages arrive", n)
		}
	})
}

// TestUrgentLargeWithoutMemory: large messages that wait for more urgent ones arrive, though
// together they are more than a session may hold.
func TestUrgentLargeWithoutMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := resuming
		cfg.Budget = NewBudget(16<<20, 64)
		la, lb := links(t, 0, nil)
		o := new(owner)
		start(t, lb, cfg, o)
		const first = 3 * wire.MaxBody // of each message, before the next begins
		var stream []byte
		pieces := func(priority uint8, from, to int) {
			for n := 0; from < to; from += n {
				n = min(wire.MaxBody, to-from)
				stream = sealPiece(la.Seal, stream, make([]byte, n), wire.MaxMessage-from, priority)
			}
		}
		for p := range uint8(wire.MaxOpenPieces) {
			pieces(wire.MaxOpenPieces-p, 0, first)
		}
		for p := range uint8(wire.MaxOpenPieces) {
			pieces(p+1, first, wire.MaxMessage)
		}
		if _, err := la.Conn.Write(stream); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := len(o.all("message")); n != wire.MaxOpenPieces {
			t.Errorf("%d of %d messages arrive", n, wire.MaxOpenPieces)
		}
		if n := cfg.Budget.Held(); n != 0 || cfg.Budget.Refused() == 0 {
			t.Errorf("%d bytes are held, %d times memory was refused", n, cfg.Budget.Refused())
		}
	})
}
