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
