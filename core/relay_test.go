package crust_test

import (
	"bytes"
	"fmt"
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
		cfg = over(cfg, "0.0.0.0", "tcp", "utp")
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
// after two of their round trips, which is what the handshake takes; messages of
// any size go both ways.
func TestRelay(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(transport, seed), func(t *testing.T) {
				relayWorld(t, seed, 1, transport, crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
					took := w.meet()
					t.Logf("connected after %v", took)
					if took > 180*time.Millisecond {
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
