package crust_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// apart is two peers behind NATs of their own that have each other's connection info.
// Each is connected to two public peers, which told it how it is seen; with common set
// these are the same for both, otherwise nobody is connected to both.
func apart(t *testing.T, seed uint64, natA, natB string, common bool, cfg, public crust.Config, f func(t *testing.T, a, b *node, infoA, infoB []byte)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(seed)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		keys := sortedKeys(t, 2)
		var friends []*node
		for i := range 4 {
			n := newNode(t, crust.On(internet.Host([]string{"45.1.0.1", "62.2.0.1", "77.3.0.1", "94.4.0.1"}[i]), over(public, "0.0.0.0", "tcp", "utp")))
			defer n.Close()
			friends = append(friends, n)
		}
		var nodes [2]*node
		for i, nat := range []string{natA, natB} {
			host := internet.NAT(natsim.MustParse(nat), []string{"81.2.0.1", "91.3.0.1"}[i]).Host("192.168.1.2")
			cfg := over(cfg, "0.0.0.0", "tcp", "utp")
			cfg.Identity = keys[(seed+uint64(i))%2]
			nodes[i] = newNode(t, crust.On(host, cfg))
			defer nodes[i].Close()
			mine := friends[2*i : 2*i+2]
			if common {
				mine = friends
			}
			for _, p := range mine {
				link(t, nodes[i], p)
			}
		}
		time.Sleep(5 * time.Second) // the echoes
		f(t, nodes[0], nodes[1], nodes[0].info(), nodes[1].info())
	})
}

// said sends a message between two nodes.
func said(t *testing.T, a, b *node) {
	t.Helper()
	if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
		t.Fatal(err)
	}
	if e := b.message(t); string(e.Data) != "hello" || e.Peer != a.ID() {
		t.Errorf("got %q", e.Data)
	}
}

// TestRendezvous: two peers behind NATs with nobody in between are connected when both
// call Connect with the other's info, also long after each other, over UDP and TCP.
func TestRendezvous(t *testing.T) {
	for _, c := range []struct {
		a, b string
		skew time.Duration
	}{
		{"home", "home", 0},
		{"home", "home", 300 * time.Millisecond},
		{"home", "home", 14 * time.Second},
		{"home", "home", 45 * time.Second},
		{"home,udp=off", "home,udp=off", 0},
		{"home,udp=off", "home,udp=off", 20 * time.Second},
	} {
		t.Run(fmt.Sprint(c.a, c.skew), func(t *testing.T) {
			for seed := range uint64(4) {
				apart(t, seed, c.a, c.b, false, crust.Config{}, crust.Config{}, func(t *testing.T, a, b *node, infoA, infoB []byte) {
					if err := a.Connect(infoB, 7); err != nil {
						t.Fatal(err)
					}
					time.Sleep(c.skew)
					began := time.Now()
					if err := b.Connect(infoA, 8); err != nil {
						t.Fatal(err)
					}
					for token, n := range map[uint64]*node{7: a, 8: b} {
						if e := n.final(t, token); e.Type != crust.EventConnected && e.Type != crust.EventAlreadyConnected {
							t.Fatalf("seed %d: %v %v", seed, e.Type, e.Err())
						}
					}
					if took := time.Since(began); took > 14*time.Second || c.skew == 0 && took > 3*time.Second {
						t.Errorf("seed %d: it took %v", seed, took)
					}
					said(t, a, b)
				})
			}
		})
	}
}

// TestConnectByPeers: the info of a peer behind a NAT is enough when somebody is
// connected to both, who introduces them, or relays where the NATs stay closed; only
// one side calls.
func TestConnectByPeers(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		relay crust.RelayMode
	}{
		{"home", "home", crust.RelaySignal},
		{"home", "symmetric", crust.RelaySignal},
		{"symmetric", "symmetric", crust.RelayData},
	} {
		t.Run(c.a+" and "+c.b, func(t *testing.T) {
			apart(t, 1, c.a, c.b, true, crust.Config{}, crust.Config{Relay: c.relay}, func(t *testing.T, a, b *node, _, infoB []byte) {
				if err := a.Connect(infoB, 7); err != nil {
					t.Fatal(err)
				}
				if e := a.final(t, 7); e.Type != crust.EventConnected {
					t.Fatalf("%v %v", e.Type, e.Err())
				}
				if p, _ := a.Peer(b.ID()); (p.How == crust.Relayed) != (c.relay == crust.RelayData) {
					t.Errorf("connected %v", p.How)
				}
				said(t, a, b)
				said(t, b, a)
			})
		})
	}
}

// TestRendezvousInVain: two of whom each calls while the other one does not are told
// why of each way.
func TestRendezvousInVain(t *testing.T) {
	for nat, why := range map[string]string{
		"home":      "nothing came from the peer, which must call as well",
		"symmetric": "the NATs give each peer another port",
	} {
		apart(t, 1, "home", nat, false, crust.Config{ConnectTimeout: 20 * time.Second}, crust.Config{}, func(t *testing.T, a, b *node, infoA, infoB []byte) {
			calls := map[*node][]byte{a: infoB, b: infoA}
			if nat == "home" { // the NAT of the first one stays open for the other for a while
				delete(calls, b)
			}
			for n, info := range calls {
				began := time.Now()
				if err := n.Connect(info, 7); err != nil {
					t.Fatal(err)
				}
				e := n.final(t, 7)
				if e.Type != crust.EventConnectFailed || time.Since(began) > 21*time.Second {
					t.Fatalf("%v after %v", e.Type, time.Since(began))
				}
				time.Sleep(time.Minute)
				for _, want := range []string{"by peers: ", "no answer within 15s", why, "192.168.1.2"} {
					if !strings.Contains(e.Err().Error(), want) {
						t.Errorf("%s: %q does not say %q", nat, e.Err(), want)
					}
				}
			}
		})
	}
}
