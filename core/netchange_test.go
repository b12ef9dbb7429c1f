package crust_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// roaming is two nodes with a session over one transport, in virtual time. Each
// knows where the other listens.
type roaming struct {
	*moving
	internet *simnet.Net
}

func roam(t *testing.T, transport string, l simnet.Link, cfg crust.Config, f func(t *testing.T, w *roaming)) {
	synctest.Test(t, func(t *testing.T) {
		w := &roaming{moving: &moving{Net: simnet.New(3), link: l}}
		w.internet = w.Net
		w.SetDefaultLink(l)
		w.ha, w.hb = w.Host("10.0.0.1"), w.Host("10.0.0.2")
		cfg := over(cfg, "0.0.0.0", transport)
		w.a = newNode(t, crust.On(w.ha, cfg))
		w.b = newNode(t, crust.On(w.hb, cfg))
		defer w.b.Close()
		defer w.a.Close()
		ta, tb := w.a.info(), w.b.info()
		if err := w.a.Connect(tb, 1); err != nil {
			t.Fatal(err)
		}
		w.a.next(crust.EventConnected)
		w.b.next(crust.EventConnected)
		if err := w.b.Connect(ta, 2); err != nil {
			t.Fatal(err)
		}
		w.b.next(crust.EventAlreadyConnected)
		f(t, w)
	})
}

// transports runs a test over each.
func transports(t *testing.T, l simnet.Link, cfg crust.Config, f func(t *testing.T, w *roaming)) {
	for _, transport := range []string{"tcp", "utp"} {
		t.Run(transport, func(t *testing.T) { roam(t, transport, l, cfg, f) })
	}
}

// seen is what a side has been told while traffic went on, and when.
type seen struct {
	what []crust.Event
	at   []time.Time
	next uint64
	last time.Time // of a message
}

func (s *seen) first(what crust.EventType, after time.Time) (time.Duration, bool) {
	for i, e := range s.what {
		if e.Type == what && !s.at[i].Before(after) {
			return s.at[i].Sub(after), true
		}
	}
	return 0, false
}

func (s *seen) count(what crust.EventType) (n int) {
	for _, e := range s.what {
		if e.Type == what {
			n++
		}
	}
	return n
}

// traffic sends numbered messages of up to most bytes for a time, the ways that
// are wanted, with pauses of up to pause, and does something meanwhile. It checks
// that all come whole, once and in order, and returns what each side was told.
func (w *roaming) traffic(t *testing.T, ways, most int, pause, lasts time.Duration, meanwhile func()) (told [2]seen) {
	t.Helper()
	var wg sync.WaitGroup
	sides := []*node{w.a, w.b}
	ctx, cancel := context.WithTimeout(t.Context(), lasts+3*time.Hour)
	defer cancel()
	total, start := make([]chan uint64, 2), time.Now()
	for k := range 2 {
		from, to := sides[k], sides[1-k]
		total[1-k] = make(chan uint64, 1)
		r := rand.New(rand.NewPCG(uint64(k), 7))
		wg.Go(func() {
			sent := uint64(0)
			for began := time.Now(); k < ways && time.Since(began) < lasts; sent++ {
				if err := from.SendWait(ctx, to.ID(), filled(8+r.IntN(most), sent), 1); err != nil {
					t.Errorf("message %d: %v", sent, err)
					break
				}
				time.Sleep(time.Duration(r.Int64N(int64(pause) + 1)))
			}
			total[1-k] <- sent
		})
	}
	for k := range 2 {
		wg.Go(func() {
			s := &told[k]
			for all := ^uint64(0); ; {
				soon, stop := context.WithTimeout(context.Background(), 100*time.Millisecond)
				b, err := sides[k].NextBatch(soon, 0)
				if stop(); err != nil && soon.Err() == nil {
					t.Errorf("after message %d: %v", s.next, err)
					return
				}
				for _, e := range b.Events {
					if e.Type != crust.EventMessage {
						s.what, s.at = append(s.what, e), append(s.at, time.Now())
						continue
					}
					if !bytes.Equal(e.Data, filled(len(e.Data), s.next)) {
						t.Errorf("%d bytes came where message %d was due", len(e.Data), s.next)
						return
					}
					s.next++
					s.last = time.Now()
				}
				empty := len(b.Events) == 0
				b.Release()
				if all == ^uint64(0) {
					select {
					case all = <-total[k]:
					default:
					}
				}
				if s.next == all && empty && time.Since(start) > lasts {
					return
				}
				if ctx.Err() != nil {
					t.Errorf("%d of %d messages came", s.next, all)
					return
				}
			}
		})
	}
	if meanwhile != nil {
		meanwhile()
	}
	wg.Wait()
	for k := range told {
		if n := told[k].count(crust.EventLost); n > 0 {
			t.Errorf("side %d lost its peer", k)
		}
	}
	return told
}

// TestAddressChange: the machine of one side moves to another address under
// traffic, and back, several times. The session goes on within 2 s, and nothing is
// lost, doubled or out of order.
func TestAddressChange(t *testing.T) {
	transports(t, simnet.Link{Latency: 20 * time.Millisecond}, crust.Config{}, func(t *testing.T, w *roaming) {
		var moved []time.Time
		var worst time.Duration
		told := w.traffic(t, 2, 2000, 20*time.Millisecond, 80*time.Second, func() {
			for i, to := range []string{"10.0.0.3", "10.0.0.4", "10.0.0.1", "10.0.0.5", "10.0.0.6", "10.0.0.1"} {
				time.Sleep(10 * time.Second)
				pa, _ := w.a.Peer(w.b.ID())
				before := pa.ReceivedMessages
				w.ha.Readdress(to)
				moved = append(moved, time.Now())
				time.Sleep(100 * time.Millisecond) // what was under way is there
				for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
					pa, _ = w.a.Peer(w.b.ID())
					pb, _ := w.b.Peer(w.a.ID())
					if !pa.Suspended && !pb.Suspended && pa.ReceivedMessages > before+8 {
						break
					}
					if time.Now().After(deadline) {
						t.Errorf("move %d: nothing comes any more", i)
						return
					}
				}
				worst = max(worst, time.Since(moved[i]))
			}
		})
		t.Logf("the session goes on after %v at the latest", worst)
		if worst > 2*time.Second {
			t.Errorf("the session went on after %v", worst)
		}
		if n := told[0].count(crust.EventNetworkChanged); n != len(moved) {
			t.Errorf("%d changes were told of %d", n, len(moved))
		}
		if n := told[1].count(crust.EventNetworkChanged); n != 0 {
			t.Errorf("the side that stays was told of %d changes", n)
		}
	})
}

// TestSilentDeath: a path that dies under traffic, whichever way that goes, is
// noticed by who sends within 3 s, and mended within 8 s once it carries again.
func TestSilentDeath(t *testing.T) {
	for _, ways := range []int{1, 2} {
		transports(t, simnet.Link{Latency: 40 * time.Millisecond}, crust.Config{}, func(t *testing.T, w *roaming) {
			var died, healed time.Time
			told := w.traffic(t, ways, 500, 200*time.Millisecond, time.Minute, func() {
				time.Sleep(30 * time.Second)
				w.Silence(w.ha, w.hb)
				died = time.Now()
				time.Sleep(10 * time.Second)
				w.Heal(w.ha, w.hb)
				healed = time.Now()
			})
			for k := range ways {
				took, ok := told[k].first(crust.EventSuspended, died)
				if !ok || took > 3*time.Second {
					t.Errorf("%d ways: side %d noticed after %v (%v)", ways, k, took, ok)
				}
				t.Logf("%d ways: side %d noticed after %v", ways, k, took)
				if took, ok := told[k].first(crust.EventResumed, healed); !ok || took > 8*time.Second {
					t.Errorf("%d ways: side %d went on after %v (%v)", ways, k, took, ok)
				}
			}
		})
	}
}

// TestNoFalseAlarm: what is slow, lossy, busy or held up is not dead.
func TestNoFalseAlarm(t *testing.T) {
	ms := time.Millisecond
	for name, c := range map[string]struct {
		transport  string
		link       simnet.Link
		ways, most int
		pause      time.Duration
		lasts      time.Duration
	}{
		"one way over TCP":          {"tcp", simnet.Link{Latency: 20 * ms}, 1, 500, 500 * ms, 10 * time.Minute},
		"one way over uTP":          {"utp", simnet.Link{Latency: 20 * ms}, 1, 500, 500 * ms, 10 * time.Minute},
		"seldom":                    {"utp", simnet.Link{Latency: 20 * ms}, 2, 500, 30 * time.Second, time.Hour},
		"far":                       {"tcp", simnet.Link{Latency: 900 * ms, Jitter: 300 * ms}, 2, 500, time.Second, 5 * time.Minute},
		"far over uTP":              {"utp", simnet.Link{Latency: 900 * ms, Jitter: 300 * ms}, 2, 500, time.Second, 5 * time.Minute},
		"loss":                      {"utp", simnet.Link{Latency: 30 * ms, Loss: 0.3}, 2, 500, 200 * ms, 5 * time.Minute},
		"loss, one way, seldom":     {"utp", simnet.Link{Latency: 30 * ms, Loss: 0.3}, 1, 500, 3 * time.Second, 10 * time.Minute},
		"much over a slow TCP":      {"tcp", simnet.Link{Latency: 20 * ms, Bandwidth: 100_000}, 1, 20_000, 0, 2 * time.Minute},
		"much over a slow uTP":      {"utp", simnet.Link{Latency: 20 * ms, Bandwidth: 100_000, Queue: 400_000}, 1, 20_000, 0, 2 * time.Minute},
		"much over a slowest uTP":   {"utp", simnet.Link{Latency: 20 * ms, Bandwidth: 20_000, Queue: 200_000}, 1, 20_000, 0, 2 * time.Minute},
		"both much over slow uTP":   {"utp", simnet.Link{Latency: 20 * ms, Bandwidth: 50_000, Queue: 400_000}, 2, 20_000, 0, 2 * time.Minute},
		"both much over a slow TCP": {"tcp", simnet.Link{Latency: 20 * ms, Bandwidth: 200_000}, 2, 20_000, 0, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			roam(t, c.transport, c.link, crust.Config{}, func(t *testing.T, w *roaming) {
				for k, told := range w.traffic(t, c.ways, c.most, c.pause, c.lasts, nil) {
					if n := told.count(crust.EventSuspended); n > 0 {
						t.Errorf("side %d was suspended %d times", k, n)
					}
				}
			})
		})
	}
}

// TestHeldUpIsNotDead: a program that takes no messages for long is not taken for
// a dead link, over any transport, whoever waits.
func TestHeldUpIsNotDead(t *testing.T) {
	transports(t, simnet.Link{Latency: 10 * time.Millisecond}, crust.Config{EventQueue: 100_000}, func(t *testing.T, w *roaming) {
		sent := uint64(0)
		for ; w.a.Send(w.b.ID(), filled(10_000, sent), 1) == nil; sent++ {
		}
		time.Sleep(20 * time.Minute)
		for i := range sent {
			if e := w.b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(10_000, i)) {
				t.Fatalf("message %d is wrong", i)
			}
		}
		w.a.next(crust.EventWritable)
		if w.a.EventsPending() || w.b.EventsPending() {
			t.Fatal("more events")
		}
	})
}

// TestNetworkChangedProves: the word that the network has changed finds a link that
// is dead although nothing is sent over it, and leaves one alone that is not.
func TestNetworkChangedProves(t *testing.T) {
	transports(t, simnet.Link{Latency: 100 * time.Millisecond}, crust.Config{}, func(t *testing.T, w *roaming) {
		time.Sleep(time.Minute)
		w.a.NetworkChanged()
		if e := w.a.next(crust.EventNetworkChanged); e.Count() != 0 {
			t.Errorf("%d addresses have changed", e.Count())
		}
		time.Sleep(10 * time.Second)
		if w.a.EventsPending() || w.b.EventsPending() {
			t.Fatal("a link that works was given up")
		}
		w.Silence(w.ha, w.hb)
		w.a.NetworkChanged()
		began := time.Now()
		w.a.next(crust.EventSuspended)
		if took := time.Since(began); took > 1200*time.Millisecond {
			t.Errorf("suspended after %v", took)
		}
		time.Sleep(20 * time.Second) // tries are seldom now
		w.Heal(w.ha, w.hb)
		w.a.NetworkChanged()
		began = time.Now()
		w.a.next(crust.EventResumed)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("resumed after %v", took)
		}
	})
}

// TestNetworkChangedStorm: the word may come as often as it likes, also beside
// Close, and costs nothing but an event each half second.
func TestNetworkChangedStorm(t *testing.T) {
	transports(t, simnet.Link{Latency: 50 * time.Millisecond}, crust.Config{}, func(t *testing.T, w *roaming) {
		told := w.traffic(t, 2, 500, 50*time.Millisecond, 20*time.Second, func() {
			for range 2000 {
				w.a.NetworkChanged()
				time.Sleep(5 * time.Millisecond)
			}
		})
		if n := told[0].count(crust.EventNetworkChanged); n < 10 || n > 22 {
			t.Errorf("%d changes were told in 10 s", n)
		}
		for k := range told {
			if n := told[k].count(crust.EventSuspended); n > 0 {
				t.Errorf("side %d was suspended %d times", k, n)
			}
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					w.a.NetworkChanged()
				}
			})
		}
		w.a.Close()
		wg.Wait()
		w.a.NetworkChanged()
	})
}

// TestNoNetworkWatch: who does not want to watch notices nothing, and a listener
// at an address that has gone leaves its sessions to other sockets.
func TestNoNetworkWatch(t *testing.T) {
	roam(t, "tcp", simnet.Link{Latency: 5 * time.Millisecond}, crust.Config{NoNetworkWatch: true}, func(t *testing.T, w *roaming) {
		w.ha.Readdress("10.0.0.9")
		time.Sleep(500 * time.Millisecond)
		if w.a.EventsPending() {
			t.Error("something was noticed")
		}
		w.a.NetworkChanged()
		w.a.next(crust.EventResumed, crust.EventSuspended)
	})
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(5)
		ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
		a, b := newNode(t, crust.On(ha, over(crust.Config{}, "10.0.0.1", "utp"))), newNode(t, crust.On(hb, over(crust.Config{}, "0.0.0.0", "utp")))
		defer b.Close()
		defer a.Close()
		if err := a.Connect(b.info(), 1); err != nil {
			t.Fatal(err)
		}
		a.next(crust.EventConnected)
		b.next(crust.EventConnected)
		for _, to := range []string{"10.0.0.9", "10.0.0.1"} {
			ha.Readdress(to)
			began := time.Now()
			if err := a.Send(b.ID(), []byte(to), 1); err != nil {
				t.Fatal(err)
			}
			for {
				if e := b.next(crust.EventMessage, crust.EventSuspended, crust.EventResumed); e.Type == crust.EventMessage {
					break
				}
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("the session goes on from %s after %v", to, took)
			}
		}
	})
}
