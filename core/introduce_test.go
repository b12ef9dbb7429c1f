package crust_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// chain makes n nodes on a simulated internet, 20 ms apart, each linked to the next.
func chain(t *testing.T, n int, cfg crust.Config, f func(t *testing.T, internet *simnet.Net, nodes []*node)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		var nodes []*node
		for i := range n {
			host := internet.Host(fmt.Sprintf("10.0.0.%d", i+1))
			nodes = append(nodes, newNode(t, crust.On(host, over(cfg, "0.0.0.0", "tcp", "utp"))))
			defer nodes[i].Close()
			if i > 0 {
				link(t, nodes[i-1], nodes[i])
			}
		}
		f(t, internet, nodes)
	})
}

// final returns the event that carries a token, after any others.
func (n *node) final(t *testing.T, token uint64) crust.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for e := range n.Events(ctx) {
		if e.Token == token {
			return e
		}
	}
	t.Fatalf("nothing came for token %d", token)
	return crust.Event{}
}

// TestConnectPeer: a peer of which only the id is known is found over up to six
// peers in a row.
func TestConnectPeer(t *testing.T) {
	for between := 1; between <= 6; between++ {
		t.Run(fmt.Sprint(between), func(t *testing.T) {
			chain(t, between+2, crust.Config{}, func(t *testing.T, _ *simnet.Net, nodes []*node) {
				a, b := nodes[0], nodes[between+1]
				began := time.Now()
				if err := a.ConnectPeer(b.ID(), 7); err != nil {
					t.Fatal(err)
				}
				if e := a.final(t, 7); e.Type != crust.EventConnected || e.Peer != b.ID() {
					t.Fatalf("got %v %v", e.Type, e.Err())
				}
				b.next(crust.EventConnected)
				// The letters' way there and back, and a connection.
				if took, most := time.Since(began), time.Duration(between+1)*40*time.Millisecond+200*time.Millisecond; took > most {
					t.Errorf("it took %v, more than %v", took, most)
				}
				if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
					t.Fatal(err)
				}
				if e := b.next(crust.EventMessage); string(e.Data) != "hello" || e.Peer != a.ID() {
					t.Errorf("got %q of %v", e.Data, e.Peer.Short())
				}
			})
		})
	}
}

// TestConnectPeerNobodyKnows: beyond six peers, and where there is no such peer,
// the call fails when its time is over; without any peer at once.
func TestConnectPeerNobodyKnows(t *testing.T) {
	chain(t, 9, crust.Config{ConnectTimeout: 10 * time.Second}, func(t *testing.T, internet *simnet.Net, nodes []*node) {
		a := nodes[0]
		stranger := newNode(t, crust.On(internet.Host("10.1.0.1"), over(crust.Config{}, "0.0.0.0", "tcp")))
		defer stranger.Close()
		for token, sought := range []*node{nodes[8], stranger} {
			began := time.Now()
			if err := a.ConnectPeer(sought.ID(), uint64(token+1)); err != nil {
				t.Fatal(err)
			}
			e := a.final(t, uint64(token+1))
			if e.Type != crust.EventConnectFailed || crust.CodeOf(e.Err()) != crust.CodeTimeout || time.Since(began) != 10*time.Second {
				t.Errorf("%v, %v after %v", e.Type, e.Err(), time.Since(began))
			}
		}
		if err := stranger.ConnectPeer(a.ID(), 9); err != nil {
			t.Fatal(err)
		}
		if e := stranger.final(t, 9); e.Type != crust.EventConnectFailed || crust.CodeOf(e.Err()) != crust.CodeNoEndpoint {
			t.Errorf("without peers: %v, %v", e.Type, e.Err())
		}
	})
}

func TestConnectPeerWrongUse(t *testing.T) {
	a := newNode(t, crust.Config{})
	if err := a.ConnectPeer(a.ID(), 1); crust.CodeOf(err) != crust.CodeSelf {
		t.Errorf("to itself: %v", err)
	}
	if err := a.ConnectPeer(crust.PeerID{}, 1); crust.CodeOf(err) != crust.CodeInvalid {
		t.Errorf("to nobody: %v", err)
	}
	a.Close()
	if err := a.ConnectPeer(crust.PeerID{1}, 1); crust.CodeOf(err) != crust.CodeClosed {
		t.Errorf("after Close: %v", err)
	}
}

// TestConnectPeerCrossed: both seek each other at once, twice; there is one
// session, each call has one final event, and no other event tells of it.
func TestConnectPeerCrossed(t *testing.T) {
	chain(t, 3, crust.Config{}, func(t *testing.T, _ *simnet.Net, nodes []*node) {
		a, b := nodes[0], nodes[2]
		for _, pair := range [][2]*node{{a, b}, {b, a}} {
			for token := range uint64(2) {
				if err := pair[0].ConnectPeer(pair[1].ID(), token+1); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Minute)
		for _, n := range []*node{a, b} {
			var got [crust.EventStopped + 20]int
			for {
				batch, err := n.TryNextBatch(0)
				if err != nil || len(batch.Events) == 0 {
					break
				}
				for _, e := range batch.Events {
					got[e.Type]++
					if (e.Type == crust.EventConnected || e.Type == crust.EventAlreadyConnected) && e.Token == 0 {
						t.Errorf("%v without a token", e.Type)
					}
				}
				batch.Release()
			}
			if got[crust.EventConnected] != 1 || got[crust.EventAlreadyConnected] != 1 || got[crust.EventConnectFailed] != 0 || got[crust.EventLost] != 0 {
				t.Errorf("events by type: %v", got)
			}
		}
	})
}

// TestConnectPeerRefused: who does not accept sessions does not answer letters
// either.
func TestConnectPeerRefused(t *testing.T) {
	chain(t, 3, crust.Config{ConnectTimeout: 5 * time.Second}, func(t *testing.T, _ *simnet.Net, nodes []*node) {
		a, b := nodes[0], nodes[2]
		b.SetAccept(false)
		if err := a.ConnectPeer(b.ID(), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 1); e.Type != crust.EventConnectFailed || crust.CodeOf(e.Err()) != crust.CodeTimeout {
			t.Errorf("%v, %v", e.Type, e.Err())
		}
		if peers := b.Peers(); len(peers) != 1 {
			t.Errorf("%d peers", len(peers))
		}
	})
}

// TestConnectPeerReversed: the one that seeks cannot reach the other, which
// reaches it: it dials when the letter has come.
func TestConnectPeerReversed(t *testing.T) {
	chain(t, 3, crust.Config{}, func(t *testing.T, internet *simnet.Net, nodes []*node) {
		a := nodes[0]
		shy := newNode(t, crust.On(internet.Host("10.2.0.1"), crust.Config{NoListen: true}))
		defer shy.Close()
		link(t, shy, nodes[2])
		if err := a.ConnectPeer(shy.ID(), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 1); e.Type != crust.EventConnected {
			t.Fatalf("%v, %v", e.Type, e.Err())
		}
		if p, ok := a.Peer(shy.ID()); !ok || p.How != crust.Accepted {
			t.Errorf("connected %v", p.How)
		}
	})
}

// TestConnectPeerMesh: in a mesh a letter takes many ways; each peer handles it once.
func TestConnectPeerMesh(t *testing.T) {
	chain(t, 12, crust.Config{}, func(t *testing.T, internet *simnet.Net, nodes []*node) {
		for i, x := range nodes {
			for _, y := range nodes[min(i+2, len(nodes)):] {
				link(t, x, y)
			}
		}
		before := sent(nodes)
		if err := nodes[0].ConnectPeer(nodes[1].ID(), 1); err != nil {
			t.Fatal(err)
		}
		if e := nodes[0].final(t, 1); e.Type != crust.EventAlreadyConnected {
			t.Errorf("%v, %v", e.Type, e.Err())
		}
		lone := newNode(t, crust.On(internet.Host("10.3.0.1"), over(crust.Config{}, "0.0.0.0", "tcp")))
		defer lone.Close()
		link(t, lone, nodes[3])
		if err := lone.ConnectPeer(nodes[9].ID(), 2); err != nil {
			t.Fatal(err)
		}
		if e := lone.final(t, 2); e.Type != crust.EventConnected {
			t.Errorf("%v, %v", e.Type, e.Err())
		}
		if spent := sent(nodes) - before; spent > 100_000 {
			t.Errorf("%d bytes were sent for one meeting", spent)
		}
	})
}

// sent returns the bytes that nodes have put on the wire.
func sent(nodes []*node) (total uint64) {
	for _, n := range nodes {
		total += n.Stats().WireSentBytes
	}
	return total
}
