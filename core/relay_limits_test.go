package crust_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// circuits fails unless the relay carries a number of circuits.
func (w *relayed) circuits(want int) {
	w.t.Helper()
	synctest.Wait()
	if got := w.relays[0].Stats().Circuits; got != want {
		w.t.Errorf("the relay carries %d circuits, want %d", got, want)
	}
}

// TestRelayModes: who does not offer to carry links is not asked, and does not;
// one that is off does not carry letters either.
func TestRelayModes(t *testing.T) {
	for mode, reached := range map[crust.RelayMode]bool{crust.RelayOff: false, crust.RelaySignal: true} {
		chain(t, 3, crust.Config{Relay: mode, ConnectTimeout: 5 * time.Second}, func(t *testing.T, _ *simnet.Net, nodes []*node) {
			if err := nodes[0].ConnectPeer(nodes[2].ID(), 1); err != nil {
				t.Fatal(err)
			}
			e := nodes[0].final(t, 1)
			if (e.Type == crust.EventConnected) != reached || reached && e.How() == crust.Relayed {
				t.Errorf("mode %d: %v, %v", mode, e.Type, e.How())
			}
			if st := nodes[1].Stats(); st.CarriedBytes != 0 {
				t.Errorf("mode %d: %d bytes carried", mode, st.CarriedBytes)
			}
		})
	}
}

// TestRelayRefused: who accepts no sessions takes none over a relay; when it
// allows them it does.
func TestRelayRefused(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{ConnectTimeout: 5 * time.Second}, crust.Config{}, func(t *testing.T, w *relayed) {
		w.b.SetAccept(false)
		if err := w.a.ConnectPeer(w.b.ID(), 1); err != nil {
			t.Fatal(err)
		}
		if e := w.a.next(crust.EventConnectFailed); e.Token != 1 {
			t.Errorf("token %d", e.Token)
		}
		time.Sleep(time.Second)
		w.circuits(0)
		w.b.SetAccept(true)
		w.meet()
		w.circuits(1)
	})
}

// TestRelayBytesPerCircuit: a circuit that has carried what it may is ended, and the
// session goes on over another one; nothing is lost.
func TestRelayBytesPerCircuit(t *testing.T) {
	relayWorld(t, 1, 1, "tcp", crust.Config{}, crust.Config{RelayBytesPerCircuit: 1 << 20}, func(t *testing.T, w *relayed) {
		w.meet()
		moves := w.conversation(t, 1, 300, 30_000, 5*time.Millisecond)
		p, _ := w.a.Peer(w.b.ID())
		carried := w.relays[0].Stats().CarriedBytes
		if least := carried>>20 - 1; p.Resumed < least || p.Resumed == 0 || len(moves[0]) == 0 {
			t.Errorf("%d bytes were carried, and the session moved %d times", carried, p.Resumed)
		}
		time.Sleep(time.Second) // the last move may be under way
		w.circuits(1)
	})
}

// TestRelayLifetime: a circuit ends when its time is over, used or not.
func TestRelayLifetime(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{}, crust.Config{RelayLifetime: 10 * time.Second}, func(t *testing.T, w *relayed) {
		w.meet()
		began := time.Now()
		w.a.next(crust.EventSuspended)
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("it ended after %v", took)
		}
		w.a.next(crust.EventResumed)
		w.b.next(crust.EventSuspended)
		w.b.next(crust.EventResumed)
		time.Sleep(time.Second) // both sides have asked for another one
		w.circuits(1)
	})
}

// TestRelayBytesPerSecond: what is carried keeps within the rate, and comes whole.
func TestRelayBytesPerSecond(t *testing.T) {
	const rate = 200_000
	relayWorld(t, 0, 1, "tcp", crust.Config{}, crust.Config{RelayBytesPerSecond: rate}, func(t *testing.T, w *relayed) {
		w.meet()
		began, before := time.Now(), w.relays[0].Stats().CarriedBytes
		w.conversation(t, 3, 200, 30_000, 0)
		carried := float64(w.relays[0].Stats().CarriedBytes - before)
		if got := carried / time.Since(began).Seconds(); got > 1.1*rate || got < 0.8*rate {
			t.Errorf("%.0f bytes a second of %d", got, rate)
		}
	})
}

// TestRelayCircuits: no more circuits are carried than the relay and each of its
// peers may have; one that ends makes room.
func TestRelayCircuits(t *testing.T) {
	for name, limits := range map[string]crust.Config{"together": {RelayCircuits: 3}, "of a peer": {RelayPerPeer: 3}} {
		t.Run(name, func(t *testing.T) {
			relayWorld(t, 0, 1, "tcp", crust.Config{ConnectTimeout: 4 * time.Second}, limits, func(t *testing.T, w *relayed) {
				var others []*node
				for i := range 5 {
					h := w.Host(fmt.Sprintf("10.0.2.%d", i+1))
					w.Silence(w.ha, h)
					n := newNode(t, crust.On(h, over(crust.Config{}, "0.0.0.0", "tcp")))
					defer n.Close()
					link(t, n, w.relays[0])
					others = append(others, n)
					if err := w.a.ConnectPeer(n.ID(), uint64(i+1)); err != nil {
						t.Fatal(err)
					}
				}
				seen := map[crust.EventType]int{}
				var reached crust.PeerID
				for range others {
					e := w.a.next(crust.EventConnected, crust.EventConnectFailed)
					if seen[e.Type]++; e.Type == crust.EventConnected {
						reached = e.Peer
					}
				}
				if seen[crust.EventConnected] != 3 {
					t.Errorf("events: %v", seen)
				}
				w.circuits(3)
				if err := w.a.Disconnect(reached); err != nil {
					t.Fatal(err)
				}
				if e := w.a.next(crust.EventLost); e.Peer != reached || e.Code() != crust.CodeDisconnected {
					t.Errorf("%v", e.Err())
				}
				time.Sleep(time.Second)
				w.circuits(2)
				w.meet()
				w.circuits(3)
			})
		})
	}
}

// flood sends messages of 60 KB to a peer until ctx ends.
func flood(ctx context.Context, from, to *node) {
	for i := uint64(0); from.SendWait(ctx, to.ID(), filled(60_000, i), 1) == nil; i++ {
	}
}

// TestRelayOwnTraffic: a relay under load keeps nine tenths of its own throughput
// to a peer that it relays for, whose link is the bottleneck.
func TestRelayOwnTraffic(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{}, crust.Config{RelayBytesPerSecond: 1 << 30}, func(t *testing.T, w *relayed) {
		w.SetLink(w.hosts[0], w.hb, simnet.Link{Latency: 20 * time.Millisecond, Bandwidth: 2 << 20, Buffer: 256 << 10})
		w.meet()
		measure := func(relayed bool) (own, carried float64) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			go flood(ctx, w.relays[0], w.b)
			if relayed {
				go flood(ctx, w.a, w.b)
			}
			for e := range w.b.Events(ctx) {
				if e.Type == crust.EventMessage && e.Peer == w.a.ID() {
					carried += float64(len(e.Data))
				} else if e.Type == crust.EventMessage {
					own += float64(len(e.Data))
				}
			}
			return own, carried
		}
		alone, _ := measure(false)
		own, carried := measure(true)
		t.Logf("%.0f bytes alone, %.0f beside %.0f that were relayed", alone, own, carried)
		if own < 0.9*alone || carried < 0.02*alone {
			t.Errorf("%.0f bytes alone, %.0f beside %.0f that were relayed", alone, own, carried)
		}
	})
}

// TestRelaySlowReader: what a program does not read stops its sender, and does not
// gather at the relay; another session over the same relay goes on.
func TestRelaySlowReader(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{EventQueue: 100_000}, crust.Config{}, func(t *testing.T, w *relayed) {
		w.meet()
		h := w.Host("10.0.2.1")
		w.Silence(w.ha, h)
		c := newNode(t, crust.On(h, over(crust.Config{}, "0.0.0.0", "tcp")))
		defer c.Close()
		link(t, c, w.relays[0])
		if err := w.a.ConnectPeer(c.ID(), 2); err != nil {
			t.Fatal(err)
		}
		w.a.next(crust.EventConnected)
		c.next(crust.EventConnected)
		sent := uint64(0)
		for ; w.a.Send(w.b.ID(), filled(10_000, sent), 1) == nil; sent++ {
		}
		time.Sleep(time.Minute)
		if p, _ := w.a.Peer(w.b.ID()); p.QueuedBytes < 1<<20 {
			t.Errorf("the sender has only %d bytes left", p.QueuedBytes)
		}
		st := w.relays[0].Stats()
		if kept := int64(st.WireReceivedBytes) - int64(st.WireSentBytes); kept > 300<<10 {
			t.Errorf("the relay has taken %d bytes more than it has sent", kept)
		}
		began := time.Now()
		if err := w.a.Send(c.ID(), filled(100_000, 1), 1); err != nil {
			t.Fatal(err)
		}
		if e := c.next(crust.EventMessage); !bytes.Equal(e.Data, filled(100_000, 1)) || time.Since(began) > 200*time.Millisecond {
			t.Errorf("another session waits: %v", time.Since(began))
		}
		for i := range sent {
			if e := w.b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(10_000, i)) {
				t.Fatalf("message %d is wrong", i)
			}
		}
	})
}

// TestRelayClose: closing delivers what was sent, tells the peer, and leaves
// nothing at the relay, whoever closes.
func TestRelayClose(t *testing.T) {
	for _, who := range []string{"a", "b", "relay", "disconnect"} {
		t.Run(who, func(t *testing.T) {
			relayWorld(t, 0, 1, "tcp", crust.Config{ResumeWindow: 5 * time.Second}, crust.Config{}, func(t *testing.T, w *relayed) {
				w.meet()
				for i := range uint64(50) {
					if err := w.a.Send(w.b.ID(), filled(20_000, i), 1); err != nil {
						t.Fatal(err)
					}
				}
				w.circuits(1)
				got, want := uint64(0), uint64(50)
				switch who {
				case "a":
					w.a.Close()
				case "b":
					w.b.Close()
					want = 0 // what it had, it has
				case "relay":
					w.relays[0].Close()
					want = 0
				default:
					if err := w.a.Disconnect(w.b.ID()); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				lost := false
				n, other := w.b, w.a
				if who == "b" {
					n, other = w.a, w.b
				}
				for e := range n.Events(ctx) {
					if e.Type == crust.EventMessage {
						got++
					}
					if e.Type == crust.EventLost && e.Peer == other.ID() {
						lost = true
						if who != "relay" && e.Code() != crust.CodeDisconnected {
							t.Errorf("%v", e.Err())
						}
						break
					}
				}
				if !lost || got < want {
					t.Errorf("%d of %d messages came, lost: %v", got, want, lost)
				}
				time.Sleep(time.Second)
				w.circuits(0)
			})
		})
	}
}
