package crust_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// relayed is a world of two nodes that cannot reach each other, and relays that
// are connected to both, 20 ms from each.
type relayed struct {
	moving
	t      *testing.T
	relays []*node
	hosts  []*simnet.Host
}

// relayWorld makes a world with n relays; transport is what the links to them are
// over.
func relayWorld(t *testing.T, seed uint64, n int, transport string, cfg, relay crust.Config, f func(t *testing.T, w *relayed)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(seed)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		keys := sortedKeys(t, 2)
		w := &relayed{t: t, moving: moving{Net: internet, link: simnet.Link{Latency: 20 * time.Millisecond}}}
		w.ha, w.hb = internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
		internet.Silence(w.ha, w.hb)
		if cfg.Listen == nil {
			cfg = over(cfg, "0.0.0.0", "tcp", "utp")
		}
		cfg.Identity = keys[seed%2]
		w.a = newNode(t, crust.On(w.ha, cfg))
		cfg.Identity = keys[1-seed%2]
		w.b = newNode(t, crust.On(w.hb, cfg))
		defer w.b.Close()
		defer w.a.Close()
		if relay.Relay == 0 {
			relay.Relay = crust.RelayData
		}
		for i := range n {
			w.hosts = append(w.hosts, internet.Host(fmt.Sprintf("10.0.1.%d", i+1)))
			r := newNode(t, crust.On(w.hosts[i], over(relay, "0.0.0.0", transport)))
			defer r.Close()
			w.relays = append(w.relays, r)
			link(t, w.a, r)
			link(t, w.b, r)
		}
		f(t, w)
	})
}

// meet connects a to b over a relay, and returns how long that took.
func (w *relayed) meet() time.Duration {
	w.t.Helper()
	began := time.Now()
	if err := w.a.ConnectPeer(w.b.ID(), 7); err != nil {
		w.t.Fatal(err)
	}
	e := w.a.next(crust.EventConnected)
	took := time.Since(began)
	if e.Peer != w.b.ID() || e.Token != 7 || e.How() != crust.Relayed {
		w.t.Fatalf("%v of %v, %v, token %d", e.Type, e.Peer.Short(), e.How(), e.Token)
	}
	if e := w.b.next(crust.EventConnected); e.Peer != w.a.ID() || e.How() != crust.Relayed || len(w.hosts) == 1 && e.Endpoint().Addr.Addr().String() != "10.0.1.1" {
		w.t.Fatalf("%v of %v, %v at %v", e.Type, e.Peer.Short(), e.How(), e.Endpoint())
	}
	return took
}

// TestRelay: two peers that cannot reach each other are connected through a third
// after one of their round trips, which is what it takes until one has proved its
// key; messages of any size go both ways.
func TestRelay(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(transport, seed), func(t *testing.T) {
				relayWorld(t, seed, 1, transport, crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
					took := w.meet()
					if took != 80*time.Millisecond {
						t.Errorf("it took %v", took)
					}
					began := time.Now()
					if err := w.a.Send(w.b.ID(), []byte("hello"), 1); err != nil {
						t.Fatal(err)
					}
					if e := w.b.next(crust.EventMessage); string(e.Data) != "hello" || time.Since(began) > 55*time.Millisecond {
						t.Errorf("%q after %v", e.Data, time.Since(began))
					}
					for size := 1; size <= crust.MaxMessage; size = 4*size + 1 {
						for _, pair := range [][2]*node{{w.a, w.b}, {w.b, w.a}} {
							want := filled(size, uint64(size))
							if err := pair[0].Send(pair[1].ID(), want, 1); err != nil {
								t.Fatal(err)
							}
							if e := pair[1].next(crust.EventMessage); !bytes.Equal(e.Data, want) {
								t.Fatalf("%d bytes came as %d others", size, len(e.Data))
							}
						}
					}
				})
			})
		}
	}
}

// how returns over what both sides are connected, 0 when they do not agree.
func (w *relayed) how() crust.How {
	pa, okA := w.a.Peer(w.b.ID())
	pb, okB := w.b.Peer(w.a.ID())
	switch {
	case !okA || !okB || pa.Suspended || pb.Suspended || (pa.How == crust.Relayed) != (pb.How == crust.Relayed):
		return 0
	}
	return pa.How
}

// await waits until both sides are relayed, or are not.
func (w *relayed) await(relayed bool, patience time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	for ; w.how() == 0 || (w.how() == crust.Relayed) != relayed; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > patience {
			pa, _ := w.a.Peer(w.b.ID())
			pb, _ := w.b.Peer(w.a.ID())
			for _, r := range w.relays {
				w.t.Logf("a relay carries %d circuits", r.Stats().Circuits)
			}
			w.t.Errorf("after %v the sessions are %v (suspended: %v) and %v (%v), want relayed: %v", patience, pa.How, pa.Suspended, pb.How, pb.Suspended, relayed)
			return patience
		}
	}
	return time.Since(began)
}

// TestRelayUpgrade: a session goes over from a relay to a direct link as soon as
// there is one, and back when that breaks, again and again under traffic; nothing
// is lost, doubled or out of order.
func TestRelayUpgrade(t *testing.T) {
	const upgrades = 50
	for seed := range uint64(slowly(20)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			relayWorld(t, seed, 1+int(seed%2), []string{"tcp", "utp"}[seed/2%2], over(crust.Config{}, "0.0.0.0", "tcp"), crust.Config{}, func(t *testing.T, w *relayed) {
				w.meet()
				r := rand.New(rand.NewPCG(seed, 9))
				done := make(chan struct{})
				var slowest time.Duration
				go func() {
					defer close(done)
					for range upgrades {
						w.await(true, 20*time.Second)
						time.Sleep(time.Duration(r.Int64N(int64(3 * time.Second))))
						w.Heal(w.ha, w.hb)
						slowest = max(slowest, w.await(false, 5*time.Minute+15*time.Second))
						if t.Failed() {
							return
						}
						time.Sleep(time.Duration(r.Int64N(int64(2 * time.Second))))
						w.Silence(w.ha, w.hb)
						w.Reset(w.ha, w.hb)
					}
				}()
				w.conversation(t, seed, 2000, 20_000, 400*time.Millisecond)
				<-done
				p, _ := w.a.Peer(w.b.ID())
				t.Logf("%d moves, at most %v after a link was possible", p.Resumed, slowest)
				if p.Resumed < 2*upgrades-1 {
					t.Errorf("only %d moves", p.Resumed)
				}
			})
		})
	}
}

// TestRelayUpgradeAtOnce: when the two could have met directly, they are connected
// over the relay first or not at all, and directly within a second.
func TestRelayUpgradeAtOnce(t *testing.T) {
	for seed := range uint64(2) {
		relayWorld(t, seed, 1, "tcp", crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
			w.Heal(w.ha, w.hb)
			if err := w.a.ConnectPeer(w.b.ID(), 7); err != nil {
				t.Fatal(err)
			}
			w.a.next(crust.EventConnected)
			w.b.next(crust.EventConnected)
			w.await(false, time.Second)
		})
	}
}

// TestRelayDies: the relay of a session is killed under traffic; the session goes
// on over another one within three seconds, and nothing is lost.
func TestRelayDies(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		for seed := range uint64(slowly(4)) {
			t.Run(fmt.Sprint(transport, seed), func(t *testing.T) {
				relayWorld(t, seed, 2, transport, crust.Config{Heartbeat: 500 * time.Millisecond, LostAfter: 2 * time.Second}, crust.Config{}, func(t *testing.T, w *relayed) {
					w.meet()
					done := make(chan struct{})
					go func() {
						defer close(done)
						time.Sleep(5 * time.Second)
						p, _ := w.a.Peer(w.b.ID())
						for i, h := range w.hosts {
							if p.Endpoint.Addr.Addr().String() == fmt.Sprintf("10.0.1.%d", i+1) {
								for _, end := range []*simnet.Host{w.ha, w.hb} {
									w.Reset(h, end)
									w.Silence(h, end)
								}
							}
						}
						began := time.Now()
						for q := p; q.Endpoint == p.Endpoint; q, _ = w.a.Peer(w.b.ID()) {
							if time.Since(began) > 10*time.Second {
								t.Errorf("it is still over %v", q.Endpoint)
								return
							}
							time.Sleep(10 * time.Millisecond)
						}
						w.await(true, 10*time.Second)
						took := time.Since(began)
						t.Logf("resumed after %v", took)
						if took > 3*time.Second {
							t.Errorf("it took %v", took)
						}
					}()
					w.talk(t, seed, 2000)
					<-done
				})
			})
		}
	}
}

// talk is conversation where relays may be lost.
func (w *relayed) talk(t *testing.T, seed uint64, count uint64) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var wg sync.WaitGroup
	for k, pair := range [][2]*node{{w.a, w.b}, {w.b, w.a}} {
		from, to := pair[0], pair[1]
		r := rand.New(rand.NewPCG(seed, uint64(k)))
		wg.Go(func() {
			for i := range count {
				if err := from.SendWait(ctx, to.ID(), filled(8+r.IntN(30_000), i), 1); err != nil {
					t.Errorf("message %d: %v", i, err)
					return
				}
				time.Sleep(time.Duration(r.Int64N(int64(10 * time.Millisecond))))
			}
		})
		wg.Go(func() {
			next := uint64(0)
			for e := range to.Events(ctx) {
				switch {
				case e.Type == crust.EventMessage && !bytes.Equal(e.Data, filled(len(e.Data), next)):
					t.Errorf("%d bytes came where message %d was due", len(e.Data), next)
					return
				case e.Type == crust.EventMessage:
					next++
				case e.Type == crust.EventLost && e.Peer == from.ID():
					t.Errorf("the session is lost: %v", e.Err())
					return
				}
				if next == count {
					return
				}
			}
			t.Errorf("%d of %d messages came", next, count)
		})
	}
	wg.Wait()
}

// TestRelayThenPunch: peers behind NATs have their first message over a relay after a
// round trip and a half of it, and a direct link once their NATs are open; where they
// cannot be opened the relay stays. A message that is under way when the session goes
// over to the direct link comes again there.
func TestRelayThenPunch(t *testing.T) {
	for _, c := range []struct {
		a, b   string
		direct time.Duration // 0: never
	}{
		{"home", "public", 2 * time.Second},
		{"home", "home", 3 * time.Second},
		{"home,udp=off", "home,udp=off", 5 * time.Second},
		{"home", "symmetric", 12 * time.Second},
		{"symmetric", "symmetric", 0},
	} {
		t.Run(c.a+" and "+c.b, func(t *testing.T) {
			for seed := range uint64(3) {
				town(t, seed+1, c.a, c.b, crust.Config{Relay: crust.RelayData}, func(t *testing.T, a, b *node) {
					began := time.Now()
					if err := a.ConnectPeer(b.ID(), 7); err != nil {
						t.Fatal(err)
					}
					if e := a.final(t, 7); e.Type != crust.EventConnected {
						t.Fatalf("%v %v", e.Type, e.Err())
					}
					if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
						t.Fatal(err)
					}
					most := 120 * time.Millisecond
					if c.direct > 0 {
						most += 120 * time.Millisecond
					}
					if e := b.message(t); string(e.Data) != "hello" || time.Since(began) > most {
						t.Errorf("%q after %v", e.Data, time.Since(began))
					}
					w := &relayed{t: t, moving: moving{a: a, b: b}}
					if c.direct > 0 {
						w.await(false, c.direct)
						t.Logf("direct after %v", time.Since(began))
						return
					}
					time.Sleep(2 * time.Minute)
					if w.how() != crust.Relayed {
						t.Errorf("connected %v", w.how())
					}
					for i := range uint64(100) {
						if err := b.Send(a.ID(), filled(10_000, i), 1); err != nil {
							t.Fatal(err)
						}
						if e := a.message(t); !bytes.Equal(e.Data, filled(10_000, i)) {
							t.Fatalf("message %d is wrong", i)
						}
					}
				})
			}
		})
	}
}

// TestRelayComesBack: a session whose only relay is away for a while goes on soon
// after that is back, although nobody answers at the endpoints of the peer.
func TestRelayComesBack(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
		w.meet()
		time.Sleep(time.Second)
		for _, end := range []*simnet.Host{w.ha, w.hb} {
			w.Cut(w.hosts[0], end)
			w.Reset(w.hosts[0], end)
		}
		time.Sleep(4 * time.Second)
		for _, end := range []*simnet.Host{w.ha, w.hb} {
			w.Heal(w.hosts[0], end)
		}
		if took := w.await(true, 15*time.Second); took > 8*time.Second { // the session with the relay comes first
			t.Errorf("it took %v", took)
		}
		w.talk(t, 1, 20)
	})
}

// TestRelayComesBackToWhoCannotBeDialled is the same between two of whom nobody can be
// dialled: there is nothing to try until the relay is back.
func TestRelayComesBackToWhoCannotBeDialled(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{NoListen: true}, crust.Config{}, func(t *testing.T, w *relayed) {
		w.meet()
		time.Sleep(time.Second)
		for _, end := range []*simnet.Host{w.ha, w.hb} {
			w.Cut(w.hosts[0], end)
			w.Reset(w.hosts[0], end)
		}
		time.Sleep(4 * time.Second)
		for _, end := range []*simnet.Host{w.ha, w.hb} {
			w.Heal(w.hosts[0], end)
		}
		if took := w.await(true, 25*time.Second); took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
		w.talk(t, 1, 20)
	})
}
