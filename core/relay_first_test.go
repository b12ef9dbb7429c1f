package crust_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestFirstMessageAtOnce: over a relay the seeker is connected after exactly one
// round trip to the peer and back, A–R–B–R–A, which is what it takes until the peer
// has proved its key. What it sends then is there half a round trip later, and that
// is also when the other side is connected; its answer takes another half. The same
// over direct links, after the round trip that makes the TCP connection.
func TestFirstMessageAtOnce(t *testing.T) {
	const hop = 20 * time.Millisecond
	for name, c := range map[string]struct {
		by        string // tcp, utp, or over a relay with these links
		relay     bool
		connected time.Duration // at the seeker
		there     time.Duration // its message
		answered  time.Duration
	}{
		"relay between TCP links": {"tcp", true, 4 * hop, 6 * hop, 8 * hop},
		"relay between uTP links": {"utp", true, 4 * hop, 6 * hop, 8 * hop},
		"TCP":                     {"tcp", false, 4 * hop, 5 * hop, 6 * hop},
		"uTP":                     {"utp", false, 2 * hop, 5 * hop, 6 * hop},
	} {
		for seed := range uint64(2) { // the seeker's peer id is the lesser one, or the greater
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				firstMessages(t, seed, c.by, c.relay, func(t *testing.T, a, b *node, connect func(token uint64) error) {
					began := time.Now()
					since := func(what string, want time.Duration) {
						t.Helper()
						if took := time.Since(began); took != want {
							t.Errorf("%s after %v, want %v", what, took, want)
						}
					}
					if err := connect(7); err != nil {
						t.Fatal(err)
					}
					if e := a.next(crust.EventConnected); e.Token != 7 || (e.How() == crust.Relayed) != c.relay {
						t.Fatalf("connected %v, token %d", e.How(), e.Token)
					}
					since("connected", c.connected)
					if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
						t.Fatal(err)
					}
					b.next(crust.EventConnected)
					if e := b.next(crust.EventMessage); string(e.Data) != "hello" {
						t.Errorf("got %q", e.Data)
					}
					since("the message was there", c.there)
					if err := b.Send(a.ID(), []byte("hello yourself"), 1); err != nil {
						t.Fatal(err)
					}
					if e := a.next(crust.EventMessage); string(e.Data) != "hello yourself" {
						t.Errorf("got %q", e.Data)
					}
					since("the answer was there", c.answered)
				})
			})
		}
	}
}

// besideDirect makes worlds of two nodes that are as far from each other as from the
// relay, or farther or nearer, of which the second one can dial the first. It runs f in
// each of them.
func besideDirect(t *testing.T, f func(t *testing.T, w *relayed, way time.Duration)) {
	for _, hop := range []int{12, 16, 20, 21, 25, 30, 40, 60} { // of the relay, in milliseconds, where the direct one takes 20
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(hop, "ms ", seed), func(t *testing.T) {
				way := time.Duration(hop) * time.Millisecond
				relayWorld(t, seed%2, 1, []string{"tcp", "utp"}[seed/2], crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
					w.Heal(w.ha, w.hb)
					w.SetLink(w.ha, w.hosts[0], simnet.Link{Latency: way})
					w.SetLink(w.hb, w.hosts[0], simnet.Link{Latency: way})
					time.Sleep(2 * time.Second) // the round trips to the relay are known
					f(t, w, way)
				})
			})
		}
	}
}

// TestFirstMessageBesideDirect: where the peer can dial the seeker, a direct link comes
// about while the session begins over the relay. Whichever is there first, the first
// message takes no longer than over the relay alone; the session then is on the direct
// link, and nothing is lost, doubled or in another order.
func TestFirstMessageBesideDirect(t *testing.T) {
	const messages = 20
	besideDirect(t, func(t *testing.T, w *relayed, way time.Duration) {
		began := time.Now()
		if err := w.a.ConnectPeer(w.b.ID(), 7); err != nil {
			t.Fatal(err)
		}
		w.a.next(crust.EventConnected)
		if took := time.Since(began); took > 4*way {
			t.Errorf("connected after %v; over the relay alone it takes %v", took, 4*way)
		}
		for k := range uint64(messages) {
			if err := w.a.Send(w.b.ID(), filled(50, k), 1); err != nil {
				t.Fatal(err)
			}
		}
		w.b.next(crust.EventConnected)
		for k := range uint64(messages) {
			if e := w.b.pastMoves(crust.EventMessage); string(e.Data) != string(filled(50, k)) {
				t.Fatalf("message %d is wrong", k)
			}
			if took := time.Since(began); took > 6*way {
				t.Fatalf("message %d was there after %v; over the relay alone it takes %v", k, took, 6*way)
			}
			if err := w.b.Send(w.a.ID(), filled(50, k), 1); err != nil {
				t.Fatal(err)
			}
		}
		for k := range uint64(messages) {
			if e := w.a.pastMoves(crust.EventMessage); string(e.Data) != string(filled(50, k)) {
				t.Fatalf("answer %d is wrong", k)
			}
		}
		w.await(false, time.Second)
		time.Sleep(time.Minute)
		for _, n := range []*node{w.a, w.b} {
			if st := n.Stats(); st.SessionsTotal != 2 {
				t.Errorf("%d sessions, the one with the relay and another one are due", st.SessionsTotal)
			}
			for _, e := range n.waiting() {
				if e.Type == crust.EventMessage || e.Type == crust.EventLost {
					t.Errorf("%v in the end", e.Type)
				}
			}
		}
	})
}

// TestLastMessageBesideDirect: as above, but a side that is connected says one thing and
// closes the session at once, while that moves: the other side has it nevertheless, also
// when the relay tells sooner than the direct link that the session has left it.
func TestLastMessageBesideDirect(t *testing.T) {
	for _, late := range []time.Duration{0, 15 * time.Millisecond} {
		for _, caller := range []bool{true, false} {
			for _, slow := range []bool{false, true} {
				t.Run(fmt.Sprint(late, caller, slow), func(t *testing.T) {
					besideDirect(t, func(t *testing.T, w *relayed, way time.Duration) {
						if err := w.a.ConnectPeer(w.b.ID(), 7); err != nil {
							t.Fatal(err)
						}
						if slow { // from when what the peer has dialled is on its way to the caller
							time.AfterFunc(2*way+95*time.Millisecond, func() { w.SetLink(w.ha, w.hb, simnet.Link{Latency: 300 * time.Millisecond}) })
						}
						lastMessage(t, w, caller, late)
					})
				})
			}
		}
	}
}

// lastMessage has one of two say something and close, and looks whether it comes.
func lastMessage(t *testing.T, w *relayed, caller bool, late time.Duration) {
	t.Helper()
	speaker, other := w.b, w.a
	if caller {
		speaker, other = w.a, w.b
	}
	speaker.next(crust.EventConnected)
	time.Sleep(late)
	if err := speaker.Send(other.ID(), []byte("good bye"), 1); err != nil {
		t.Fatal(err)
	}
	if err := speaker.Disconnect(other.ID()); err != nil {
		t.Fatal(err)
	}
	other.next(crust.EventConnected)
	e := other.next(crust.EventMessage, crust.EventLost, crust.EventResumed)
	for e.Type == crust.EventResumed {
		e = other.next(crust.EventMessage, crust.EventLost, crust.EventResumed)
	}
	if e.Type != crust.EventMessage || string(e.Data) != "good bye" {
		t.Errorf("%v %q, %v", e.Type, e.Data, e.Err())
	}
}

// TestFirstMessageStalled: a relay falls silent when a session is about to begin over it.
// The direct link has waited for that; it costs a round trip, and all messages come.
func TestFirstMessageStalled(t *testing.T) {
	for seed := range uint64(4) {
		relayWorld(t, seed%2, 1, []string{"tcp", "utp"}[seed/2], crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
			w.Heal(w.ha, w.hb)
			time.Sleep(2 * time.Second)
			began := time.Now()
			if err := w.a.ConnectPeer(w.b.ID(), 7); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(70*time.Millisecond, func() { w.Silence(w.hb, w.hosts[0]) })
			if e := w.a.next(crust.EventConnected); e.How() != crust.Relayed {
				t.Fatalf("connected %v", e.How())
			}
			for k := range uint64(5) {
				if err := w.a.Send(w.b.ID(), filled(50, k), 1); err != nil {
					t.Fatal(err)
				}
			}
			if e := w.b.next(crust.EventConnected); e.How() == crust.Relayed {
				t.Errorf("connected %v", e.How())
			}
			for k := range uint64(5) {
				if e := w.b.pastMoves(crust.EventMessage); string(e.Data) != string(filled(50, k)) {
					t.Fatalf("seed %d: message %d is wrong", seed, k)
				}
			}
			// Without a relay it takes 160 ms, and a round trip of the direct link is 40.
			if took := time.Since(began); took > 200*time.Millisecond {
				t.Errorf("seed %d: the messages were there after %v", seed, took)
			}
		})
	}
}

// firstMessages makes two nodes that are 20 ms from each other, or from a relay.
func firstMessages(t *testing.T, seed uint64, by string, relay bool, f func(t *testing.T, a, b *node, connect func(uint64) error)) {
	if relay {
		relayWorld(t, seed, 1, by, crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
			began := time.Now()
			w.Watch(func(from, to netip.AddrPort, data []byte) {
				t.Logf("%v: %v to %v, %d bytes", time.Since(began), from, to, len(data))
			})
			defer w.Watch(nil)
			f(t, w.a, w.b, func(token uint64) error { return w.a.ConnectPeer(w.b.ID(), token) })
		})
		return
	}
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(seed)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		keys := sortedKeys(t, 2)
		var nodes [2]*node
		for i := range nodes {
			cfg := over(crust.Config{Identity: keys[(seed+uint64(i))%2]}, "0.0.0.0", by)
			nodes[i] = newNode(t, crust.On(internet.Host(fmt.Sprintf("10.0.0.%d", i+1)), cfg))
			defer nodes[i].Close()
		}
		to := contactOf(t, nodes[1], nodes[1].Listeners()[0].Transport, "10.0.0.2")
		f(t, nodes[0], nodes[1], func(token uint64) error { return nodes[0].ConnectEndpoint(to, token) })
	})
}

// TestBegunAndRefused: a peer that would not take a session says so in the
// handshake, and the call fails as if nothing had begun.
func TestBegunAndRefused(t *testing.T) {
	for seed := range uint64(2) {
		relayWorld(t, seed, 1, "tcp", crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
			w.Heal(w.ha, w.hb)
			w.b.SetAccept(false)
			if err := w.a.ConnectEndpoint(contactOf(t, w.b, crust.TCP, "10.0.0.2"), 7); err != nil {
				t.Fatal(err)
			}
			if e := w.a.next(crust.EventConnectFailed); e.Code() != crust.CodeNotAllowed {
				t.Errorf("%v", e.Err())
			}
		})
	}
}

// TestBegunCrossed: both connect at once over one relay, each begins a session and
// sends at once; both end with the same one, and nothing is lost or comes twice.
func TestBegunCrossed(t *testing.T) {
	for seed := range uint64(8) {
		relayWorld(t, seed, 1+int(seed/2%2), []string{"tcp", "utp"}[seed/4], crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
			both := [2]*node{w.a, w.b}
			for i, n := range both {
				if err := n.ConnectPeer(both[1-i].ID(), uint64(i+1)); err != nil {
					t.Fatal(err)
				}
			}
			for i, n := range both {
				if e := n.next(crust.EventConnected); e.Token != uint64(i+1) {
					t.Fatalf("connected by token %d", e.Token)
				}
				for k := range uint64(20) {
					if err := n.Send(both[1-i].ID(), filled(5000, k), 1); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, n := range both {
				for k := range uint64(20) {
					if e := n.pastMoves(crust.EventMessage); string(e.Data) != string(filled(5000, k)) {
						t.Fatalf("seed %d: message %d is wrong", seed, k)
					}
				}
			}
			w.await(true, time.Second)
			time.Sleep(time.Minute)
			for _, n := range both {
				if st := n.Stats(); st.SessionsTotal != uint64(1+len(w.relays)) {
					t.Errorf("seed %d: %d sessions", seed, st.SessionsTotal)
				}
			}
		})
	}
}
