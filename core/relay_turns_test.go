package crust_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// holding is what a relay that turns evil does to frames, see evilRelay.hold.
type holding func(from crust.PeerID, t wire.FrameType) (late time.Duration, pieces int)

// turning is two peers that are connected by a relay which is going to turn evil.
type turning struct {
	*roaming
	evil *evilRelay
}

// turned is a world of them; there is an honest relay as well if it says so, to which
// both are connected later.
func turned(t *testing.T, honest bool, cfg crust.Config, f func(t *testing.T, w *turning)) {
	synctest.Test(t, func(t *testing.T) {
		link20 := simnet.Link{Latency: 20 * time.Millisecond}
		w := &turning{roaming: &roaming{moving: &moving{Net: simnet.New(1), link: link20}}}
		w.SetDefaultLink(link20)
		w.ha, w.hb = w.Host("10.0.0.1"), w.Host("10.0.0.2")
		w.Silence(w.ha, w.hb)
		keys := sortedKeys(t, 3)
		w.evil = newEvilRelay(t, w.Host("10.0.0.3"), keys[2], func(_ int, d []byte) [][]byte { return [][]byte{d} })
		defer w.evil.close()
		cfg = over(cfg, "0.0.0.0", "tcp")
		cfg.Identity = keys[0]
		w.a = newNode(t, crust.On(w.ha, cfg))
		defer w.a.Close()
		cfg.Identity = keys[1]
		w.b = newNode(t, crust.On(w.hb, cfg))
		defer w.b.Close()
		for _, n := range []*node{w.a, w.b} {
			if err := n.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.3:9"), Peer: w.evil.id}, 1); err != nil {
				t.Fatal(err)
			}
			n.next(crust.EventConnected)
		}
		if err := w.a.ConnectPeer(w.b.ID(), 2); err != nil {
			t.Fatal(err)
		}
		if e := w.a.next(crust.EventConnected); e.How() != crust.Relayed {
			t.Fatalf("%v", e.How())
		}
		w.b.next(crust.EventConnected)
		if honest {
			r := newNode(t, crust.On(w.Host("10.0.0.4"), over(crust.Config{Relay: crust.RelayData}, "0.0.0.0", "tcp")))
			defer r.Close()
			link(t, w.a, r)
			link(t, w.b, r)
		}
		f(t, w)
	})
}

// turn has the relay do so from now on.
func (w *turning) turn(h holding) {
	w.evil.mu.Lock()
	defer w.evil.mu.Unlock()
	w.evil.hold = h
}

// turns are the ways in which a relay may turn, for two peers.
func (w *turning) turns() map[string]holding {
	data := func(t wire.FrameType) bool { return t == wire.FrameRelayData }
	swallow := func(which func(from crust.PeerID, t wire.FrameType) bool) holding {
		return func(from crust.PeerID, t wire.FrameType) (time.Duration, int) {
			if which(from, t) {
				return -1, 0
			}
			return 0, 0
		}
	}
	return map[string]holding{
		"cuts":                 swallow(func(crust.PeerID, wire.FrameType) bool { return true }),
		"stalls":               swallow(func(_ crust.PeerID, t wire.FrameType) bool { return data(t) }),
		"stalls one way":       swallow(func(from crust.PeerID, t wire.FrameType) bool { return from == w.a.ID() && data(t) }),
		"stalls the other way": swallow(func(from crust.PeerID, t wire.FrameType) bool { return from == w.b.ID() && data(t) }),
		"keeps what is granted": swallow(func(_ crust.PeerID, t wire.FrameType) bool {
			return t == wire.FrameRelayCredit
		}),
		"is late":  func(crust.PeerID, wire.FrameType) (time.Duration, int) { return 400 * time.Millisecond, 0 },
		"stops":    func(crust.PeerID, wire.FrameType) (time.Duration, int) { return time.Minute, 0 },
		"trickles": func(crust.PeerID, wire.FrameType) (time.Duration, int) { return 900 * time.Millisecond, 1 },
	}
}

// TestRelayTurns: the relay of a session turns evil under traffic, in ways that break
// no rule. The session goes on over another relay soon, and all messages come, once
// and in order; when nothing but latency is added it stays, and the program can see it.
func TestRelayTurns(t *testing.T) {
	for name, most := range map[string]time.Duration{
		"cuts":                  3 * time.Second,
		"stalls":                3 * time.Second,
		"stalls one way":        5 * time.Second, // what still comes is a sign of life, once each heartbeat
		"stalls the other way":  5 * time.Second,
		"stops":                 3 * time.Second,
		"keeps what is granted": 10 * time.Second,
		"trickles":              62 * time.Second,
		"is late":               0,
	} {
		for ways := 1; ways <= 2; ways++ {
			t.Run(fmt.Sprint(name, ways), func(t *testing.T) {
				turned(t, true, crust.Config{Heartbeat: 2 * time.Second, LostAfter: 50 * time.Second}, func(t *testing.T, w *turning) {
					var began time.Time
					told := w.traffic(t, ways, 4000, 40*time.Millisecond, 10*time.Second, func() {
						time.Sleep(3 * time.Second)
						began = time.Now()
						w.turn(w.turns()[name])
					})
					for k := range told {
						took, ok := told[k].first(crust.EventResumed, began)
						if ok != (most > 0) || took > most {
							t.Errorf("side %d went on after %v (%v)", k, took, ok)
						}
						t.Logf("side %d went on after %v", k, took)
					}
					p, _ := w.a.Peer(w.b.ID())
					// A relay that only keeps grants is as good as another one for a while.
					evil := p.Endpoint.Addr.Addr().String() == "10.0.0.3"
					if evil != (most == 0) && name != "keeps what is granted" || p.How != crust.Relayed {
						t.Errorf("%v over %v", p.How, p.Endpoint)
					}
					if name == "is late" && ways == 1 && p.RTT < 800*time.Millisecond { // else there are no pings
						t.Errorf("a round trip of %v", p.RTT)
					}
				})
			})
		}
	}
}

// TestRelayTurnsAlone: where there is no other relay, both sides are told within a
// bound that the session is suspended, and that it is lost; what came is a beginning
// of what was sent, and the sender is told of how much it is not known.
func TestRelayTurnsAlone(t *testing.T) {
	cfg := crust.Config{Heartbeat: 4 * time.Second, LostAfter: 10 * time.Second, ResumeWindow: 5 * time.Second}
	for name, most := range map[string]time.Duration{
		"cuts":                 cfg.Heartbeat + 3*time.Second,
		"stalls":               cfg.Heartbeat + 3*time.Second,
		"stalls one way":       cfg.Heartbeat + 3*time.Second,
		"stalls the other way": cfg.Heartbeat + 3*time.Second,
		"stops":                cfg.Heartbeat + 3*time.Second,
		"trickles":             62 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			turned(t, false, cfg, func(t *testing.T, w *turning) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				sent := uint64(0)
				send := func() bool {
					if w.a.SendWait(ctx, w.b.ID(), filled(3000, sent), 1) != nil {
						return false
					}
					sent++
					time.Sleep(50 * time.Millisecond)
					return true
				}
				for sent < 50 && send() {
				}
				began := time.Now()
				w.turn(w.turns()[name])
				var sides sync.WaitGroup
				var came, unknown uint64
				for _, n := range []*node{w.a, w.b} {
					sides.Go(func() {
						messages, left, suspended := n.untilLost(ctx, w.evil.id, began)
						if suspended == 0 || suspended > most {
							t.Errorf("suspended after %v", suspended)
						}
						if took := time.Since(began); took > most+cfg.LostAfter+cfg.ResumeWindow {
							t.Errorf("lost after %v", took)
						}
						if n == w.a {
							unknown = left
						} else {
							came = messages
						}
					})
				}
				for send() {
				}
				sides.Wait()
				if came < 50 || came >= sent || unknown < sent-came {
					t.Errorf("%d messages came of %d, %d are said to be unknown", came, sent, unknown)
				}
			})
		})
	}
}

// untilLost takes events until a session is lost that is not the one with a relay. It
// returns how many messages came, each as the one before has it, of how many of ours it
// is not known, and after what time since then the session was suspended.
func (n *node) untilLost(ctx context.Context, relay crust.PeerID, then time.Time) (came, unknown uint64, suspended time.Duration) {
	for e := range n.Events(ctx) {
		switch {
		case e.Type == crust.EventMessage:
			if !bytes.Equal(e.Data, filled(3000, came)) {
				n.t.Errorf("%d bytes came where message %d was due", len(e.Data), came)
			}
			came++
		case e.Peer == relay:
		case e.Type == crust.EventSuspended && suspended == 0:
			suspended = time.Since(then)
		case e.Type == crust.EventLost:
			return came, e.Count(), suspended
		}
	}
	n.t.Error("the session is not lost")
	return came, unknown, suspended
}

// TestRelayHoles: relays that take a circuit and say nothing keep nobody from an honest
// one.
func TestRelayHoles(t *testing.T) {
	const holes = 12
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
		internet.Silence(ha, hb)
		keys := sortedKeys(t, holes+2)
		cfg := over(crust.Config{}, "0.0.0.0", "tcp")
		cfg.Identity = keys[0]
		a := newNode(t, crust.On(ha, cfg))
		defer a.Close()
		cfg.Identity = keys[1]
		b := newNode(t, crust.On(hb, cfg))
		defer b.Close()
		for i := range holes {
			address := fmt.Sprintf("10.0.1.%d", i+1)
			e := newEvilRelay(t, internet.Host(address), keys[2+i], nil)
			e.see = func(wire.FrameType, []byte) {}
			defer e.close()
			if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt(address + ":9"), Peer: e.id}, 1); err != nil {
				t.Fatal(err)
			}
			a.next(crust.EventConnected)
		}
		r := newNode(t, crust.On(internet.Host("10.0.0.4"), over(crust.Config{Relay: crust.RelayData}, "0.0.0.0", "tcp")))
		defer r.Close()
		link(t, a, r)
		link(t, b, r)
		began := time.Now()
		if err := a.ConnectPeer(b.ID(), 2); err != nil {
			t.Fatal(err)
		}
		e := a.final(t, 2)
		if took := time.Since(began); e.Type != crust.EventConnected || e.How() != crust.Relayed || took > 80*time.Millisecond+holes*100*time.Millisecond {
			t.Errorf("%v by %v after %v: %v", e.Type, e.How(), took, e.Err())
		}
	})
}
