package crust_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// bothWorld is two nodes with listeners of TCP and uTP on two hosts in virtual
// time. TCP is blocked between them.
func bothWorld(t *testing.T, seed uint64, l simnet.Link, cfg crust.Config, f func(t *testing.T, w *moving)) {
	synctest.Test(t, func(t *testing.T) {
		keys := sortedKeys(t, 2)
		w := &moving{Net: simnet.New(seed), link: l}
		w.ha, w.hb = w.Host("10.0.0.1"), w.Host("10.0.0.2")
		cfg := over(cfg, "0.0.0.0", "tcp", "utp")
		cfg.Identity = keys[seed%2]
		w.a = newNode(t, crust.On(w.ha, cfg))
		cfg.Identity = keys[1-seed%2]
		w.b = newNode(t, crust.On(w.hb, cfg))
		defer w.b.Close()
		defer w.a.Close()
		w.tcp(false)
		f(t, w)
	})
}

// moving is a world in which sessions move.
type moving struct {
	*simnet.Net
	link   simnet.Link
	ha, hb *simnet.Host
	a, b   *node
}

// tcp opens TCP, or blocks it and breaks what there is.
func (w *moving) tcp(open bool) {
	l := w.link
	l.NoTCP = !open
	w.SetLink(w.ha, w.hb, l)
	if !open {
		w.Reset(w.ha, w.hb)
	}
}

// conversation sends count numbered messages each way, with pauses of up to
// pause, and checks that they come whole, in order and once. Only events of moving
// may come between. It returns those of each side.
func (w *moving) conversation(t *testing.T, seed uint64, count, most int, pause time.Duration) (moves [2][]crust.Event) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var wg sync.WaitGroup
	for k, pair := range [][2]*node{{w.a, w.b}, {w.b, w.a}} {
		from, to := pair[0], pair[1]
		r := rand.New(rand.NewPCG(seed, uint64(k)))
		wg.Go(func() {
			for i := range uint64(count) {
				if err := from.SendWait(ctx, to.ID(), filled(8+r.IntN(most), i), 1); err != nil {
					t.Errorf("message %d: %v", i, err)
					return
				}
				time.Sleep(time.Duration(r.Int64N(int64(pause) + 1)))
			}
		})
		wg.Go(func() {
			next := uint64(0)
			for e := range to.Events(ctx) {
				switch e.Type {
				case crust.EventMessage:
					if !bytes.Equal(e.Data, filled(len(e.Data), next)) {
						t.Errorf("%d bytes came where message %d was due", len(e.Data), next)
						return
					}
					next++
				case crust.EventSuspended, crust.EventResumed, crust.EventAlreadyConnected, crust.EventConnectFailed:
					moves[k] = append(moves[k], e)
				default:
					t.Errorf("%v (%v) after message %d", e.Type, e.Err(), next)
					return
				}
				if next == uint64(count) {
					return
				}
			}
			t.Errorf("%d of %d messages came", next, count)
		})
	}
	wg.Wait()
	return moves
}

// settle waits until both sides have a session over a transport, and takes the
// events of moving. It fails when that takes longer than patience.
func (w *moving) settle(t *testing.T, want crust.Transport, patience time.Duration) {
	t.Helper()
	began := time.Now()
	for !w.over(want) {
		if time.Since(began) > patience {
			pa, _ := w.a.Peer(w.b.ID())
			pb, _ := w.b.Peer(w.a.ID())
			t.Fatalf("after %v the sessions are over %v and %v (suspended: %v, %v), want %v", patience, pa.Endpoint, pb.Endpoint, pa.Suspended, pb.Suspended, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// over reports whether both sides have a session over a transport.
func (w *moving) over(want crust.Transport) bool {
	for _, pair := range [][2]*node{{w.a, w.b}, {w.b, w.a}} {
		p, ok := pair[0].Peer(pair[1].ID())
		if !ok || p.Suspended || p.Endpoint.Transport != want {
			return false
		}
	}
	return true
}

// connect connects a to b by an info.
func (w *moving) connect(t *testing.T, want crust.Transport) {
	t.Helper()
	if err := w.a.Connect(w.b.info(), 1); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{w.a, w.b} {
		if e := n.next(crust.EventConnected); e.Endpoint().Transport != want {
			t.Fatalf("connected by %v, want %v", e.Endpoint(), want)
		}
	}
}

// TestUpgrade: a session that began over uTP because TCP was blocked goes over to
// TCP once that is open, under traffic; when TCP is blocked again and its
// connections break, it is suspended and goes on over uTP, and back again. Order
// is kept and nothing lost or doubled.
func TestUpgrade(t *testing.T) {
	for seed := range uint64(2) {
		t.Run([]string{"the lesser dials", "the greater dials"}[seed], func(t *testing.T) {
			bothWorld(t, seed, simnet.Link{Latency: 10 * time.Millisecond}, crust.Config{}, func(t *testing.T, w *moving) {
				w.connect(t, crust.UTP)
				var opened time.Time
				go func() {
					time.Sleep(time.Second)
					w.tcp(true)
					opened = time.Now()
					w.settle(t, crust.TCP, 10*time.Second)
					t.Logf("over TCP %v after it was opened", time.Since(opened))
					time.Sleep(5 * time.Second)
					w.tcp(false)
					w.settle(t, crust.UTP, 2*time.Second)
					time.Sleep(5 * time.Second)
					w.tcp(true)
				}()
				moves := w.conversation(t, seed, 3000, 3000, 20*time.Millisecond)
				w.settle(t, crust.TCP, time.Second)
				for k, events := range moves {
					var text string
					for _, e := range events {
						text += fmt.Sprintf("%v %v, ", e.Type, e.Endpoint().Transport)
					}
					if text != "resumed tcp, suspended tcp, resumed utp, resumed tcp, " {
						t.Errorf("side %d: %s", k, text)
					}
				}
				if p, _ := w.a.Peer(w.b.ID()); p.Resumed != 3 || p.How != crust.Dialed {
					t.Errorf("%d moves, %v", p.Resumed, p.How)
				}
			})
		})
	}
}

// TestUpgradeAtOnce: connecting again, by an info or to an endpoint, with a peer
// id or without, looks for a better link at once; the answer is that the peer is
// connected already.
func TestUpgradeAtOnce(t *testing.T) {
	for _, name := range []string{"info", "endpoint", "bare endpoint", "bootstrap"} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				contacts := []crust.Contact{{Endpoint: endpointAt("10.0.0.2:7")}}
				bothWorld(t, seed, simnet.Link{Latency: 10 * time.Millisecond}, crust.Config{Contacts: contacts}, func(t *testing.T, w *moving) {
					if _, err := w.b.Listen(endpointAt("0.0.0.0:7")); err != nil {
						t.Fatal(err)
					}
					if err := w.a.ConnectEndpoint(contactOf(t, w.b, crust.UTP, "10.0.0.2"), 1); err != nil {
						t.Fatal(err)
					}
					w.a.next(crust.EventConnected)
					w.b.next(crust.EventConnected)
					w.tcp(true)
					time.Sleep(10 * time.Minute) // by itself it knows no better
					if !w.over(crust.UTP) {
						t.Fatal("the session is not over uTP")
					}
					var err error
					switch name {
					case "info":
						err = w.a.Connect(w.b.info(), 2)
					case "endpoint":
						err = w.a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:7"), Peer: w.b.ID()}, 2)
					case "bare endpoint":
						err = w.a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:7")}, 2)
					default:
						err = w.a.Bootstrap(2)
					}
					if err != nil {
						t.Fatal(err)
					}
					w.settle(t, crust.TCP, 300*time.Millisecond)
					seen := map[crust.EventType]int{}
					for range 2 {
						e := w.a.next(crust.EventAlreadyConnected, crust.EventBootstrapped, crust.EventResumed)
						seen[e.Type]++
						if e.Type != crust.EventResumed && e.Token != 2 || e.Type == crust.EventResumed && e.Endpoint().Transport != crust.TCP {
							t.Errorf("%v with token %d at %v", e.Type, e.Token, e.Endpoint())
						}
					}
					if len(seen) != 2 || seen[crust.EventResumed] != 1 {
						t.Errorf("events: %v", seen)
					}
					w.b.next(crust.EventResumed)
					time.Sleep(time.Minute)
					if w.a.EventsPending() || w.b.EventsPending() || w.ha.Connections() != 1 {
						t.Errorf("something is left: %d connections", w.ha.Connections())
					}
				})
			})
		}
	}
}

// TestUpgradeBothSides: both sides look for a better link at the same moment, many
// times; they end with one, and the same.
func TestUpgradeBothSides(t *testing.T) {
	for seed := range uint64(slowly(40)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			l := simnet.Link{Latency: time.Duration(r.IntN(30)) * time.Millisecond, Jitter: time.Duration(r.IntN(20)) * time.Millisecond}
			bothWorld(t, seed, l, crust.Config{}, func(t *testing.T, w *moving) {
				w.connect(t, crust.UTP)
				ia, ib := w.a.info(), w.b.info()
				w.tcp(true)
				go w.a.Connect(ib, 2) //nolint:errcheck // its event tells
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
				go w.b.Connect(ia, 3) //nolint:errcheck // its event tells
				moves := w.conversation(t, seed, 100, 5000, 10*time.Millisecond)
				w.settle(t, crust.TCP, time.Second)
				time.Sleep(10 * time.Second)
				if n, m := w.ha.Connections(), w.hb.Connections(); n != 1 || m != 1 {
					t.Errorf("%d and %d connections are left", n, m)
				}
				for k, events := range moves {
					resumed := 0
					for _, e := range events {
						if e.Type == crust.EventSuspended {
							t.Errorf("side %d was suspended: %v", k, e.Err())
						}
						if e.Type == crust.EventResumed {
							resumed++
						}
					}
					if resumed != 1 {
						t.Errorf("side %d: %d moves", k, resumed)
					}
				}
			})
		})
	}
}

// TestUpgradeIsBounded: where TCP stays blocked, an idle session costs less and
// less, and in the end nothing; without a word to the program.
func TestUpgradeIsBounded(t *testing.T) {
	bothWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, crust.Config{}, func(t *testing.T, w *moving) {
		counter := &countingNet{Host: w.ha}
		key := sortedKeys(t, 3)[2]
		c := newNode(t, crust.On(counter, crust.Config{Identity: key, NoListen: true}))
		defer c.Close()
		if err := c.Connect(w.b.info(), 1); err != nil {
			t.Fatal(err)
		}
		c.next(crust.EventConnected)
		w.b.next(crust.EventConnected)
		first := counter.count()
		time.Sleep(time.Minute)
		minute := counter.count() - first
		time.Sleep(9 * time.Minute)
		ten := counter.count() - first
		time.Sleep(24 * time.Hour)
		day := counter.count() - first
		time.Sleep(24 * time.Hour)
		two := counter.count() - first
		t.Logf("tries in a minute: %d, in ten: %d, in a day: %d", minute, ten, day)
		if minute < 2 || minute > 6 || ten > 12 || day > 40 || two != day {
			t.Errorf("tries in a minute: %d, in ten: %d, in a day: %d, in two: %d", minute, ten, day, two)
		}
		if c.EventsPending() || w.b.EventsPending() {
			t.Error("the program was told")
		}
		w.tcp(true)
		if err := c.Connect(w.b.info(), 2); err != nil { // that begins anew
			t.Fatal(err)
		}
		c.next(crust.EventAlreadyConnected)
		if e := c.next(crust.EventResumed); e.Endpoint().Transport != crust.TCP {
			t.Errorf("resumed by %v", e.Endpoint())
		}
	})
}

// TestUpgradeNeverRevives: a session that one side ends while the other one looks
// for a better link stays ended, whichever decides, and what was sent before comes.
func TestUpgradeNeverRevives(t *testing.T) {
	for seed := range uint64(slowly(120)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 6))
			bothWorld(t, seed, simnet.Link{Latency: 15 * time.Millisecond, Bandwidth: 4 << 20}, crust.Config{}, func(t *testing.T, w *moving) {
				w.connect(t, crust.UTP)
				ib := w.b.info()
				w.tcp(true)
				ender, other := w.a, w.b
				if seed/2%2 == 1 {
					ender, other = w.b, w.a
				}
				if err := w.a.Connect(ib, 2); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond)
				const count = 20
				for i := range uint64(count) {
					if err := ender.Send(other.ID(), filled(10_000, i), 1); err != nil {
						t.Fatal(err)
					}
				}
				if err := ender.Disconnect(other.ID()); err != nil {
					t.Fatal(err)
				}
				for i := range uint64(count) {
					e := other.next(crust.EventMessage, crust.EventResumed, crust.EventAlreadyConnected)
					for e.Type != crust.EventMessage {
						e = other.next(crust.EventMessage, crust.EventResumed, crust.EventAlreadyConnected)
					}
					if !bytes.Equal(e.Data, filled(10_000, i)) {
						t.Fatalf("message %d is wrong", i)
					}
				}
				for _, n := range []*node{w.a, w.b} {
					e := n.next(crust.EventLost, crust.EventResumed, crust.EventAlreadyConnected)
					for e.Type != crust.EventLost {
						e = n.next(crust.EventLost, crust.EventResumed, crust.EventAlreadyConnected)
					}
					if e.Code() != crust.CodeDisconnected {
						t.Error(e.Err())
					}
				}
				time.Sleep(time.Minute)
				if w.a.EventsPending() || w.b.EventsPending() || len(w.a.Peers())+len(w.b.Peers()) != 0 || w.ha.Connections() != 0 {
					t.Errorf("it lives: %d and %d sessions, %d connections", len(w.a.Peers()), len(w.b.Peers()), w.ha.Connections())
				}
			})
		})
	}
}

// TestMovesAtAnyMoment: short conversations, in which TCP is opened, blocked with
// and without breaking what there is, and connected to again at random moments.
// Whatever happens, messages come in order, once each.
func TestMovesAtAnyMoment(t *testing.T) {
	seeds := uint64(1000)
	if raceDetector {
		seeds = 100
	}
	var moves, most uint64
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		l := simnet.Link{Latency: time.Duration(r.IntN(40)) * time.Millisecond, Jitter: time.Duration(r.IntN(10)) * time.Millisecond}
		if seed%4 == 3 {
			l.Loss, l.Reorder, l.Duplicate = 0.05, 0.05, 0.02
		}
		bothWorld(t, seed, l, crust.Config{}, func(t *testing.T, w *moving) {
			w.connect(t, crust.UTP)
			infos := map[*node][]byte{w.a: w.b.info(), w.b: w.a.info()}
			quiet := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for step := 0; ; step++ {
					select {
					case <-quiet:
						return
					case <-time.After(time.Duration(r.IntN(400)) * time.Millisecond):
					}
					who := []*node{w.a, w.b}[r.IntN(2)]
					switch r.IntN(6) {
					case 0, 1:
						w.tcp(true)
					case 2:
						w.tcp(false)
					case 3:
						w.Reset(w.ha, w.hb)
					default:
						if err := who.Connect(infos[who], 2); err != nil && !errors.Is(err, crust.CodeClosed) {
							t.Error(err)
						}
					}
				}
			})
			w.conversation(t, seed, 40, 8000, 100*time.Millisecond)
			close(quiet)
			wg.Wait()
			w.tcp(true)
			if err := w.a.Connect(infos[w.a], 3); err != nil {
				t.Fatal(err)
			}
			w.settle(t, crust.TCP, 5*time.Second)
			p, _ := w.a.Peer(w.b.ID())
			moves, most = moves+p.Resumed, max(most, p.Resumed)
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d conversations, %d moves, %d at most in one", seeds, moves, most)
	if moves < seeds {
		t.Error("the sessions hardly moved")
	}
}

// countingNet counts dials over TCP.
type countingNet struct {
	*simnet.Host
	mu    sync.Mutex
	dials int
}

func (c *countingNet) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	c.mu.Lock()
	c.dials++
	c.mu.Unlock()
	return c.Host.Dial(ctx, local, remote)
}

func (c *countingNet) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials
}
