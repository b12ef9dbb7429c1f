package crust_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// town is two peers, each behind a NAT of its own or none, and public peers in
// different networks to which both are connected. All are 20 ms from each other.
func town(t *testing.T, seed uint64, natA, natB string, cfg crust.Config, f func(t *testing.T, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(seed)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		var public []*node
		for i := range 4 {
			n := newNode(t, crust.On(internet.Host(fmt.Sprintf("198.51.100.%d", 1+i)), over(cfg, "0.0.0.0", "tcp", "utp")))
			defer n.Close()
			public = append(public, n)
		}
		behind := func(nat string, address string) *node {
			var host *simnet.Host
			if nat == "public" {
				host = internet.Host(address)
			} else {
				host = internet.NAT(natsim.MustParse(nat), address).Host("192.168.1.2")
			}
			n := newNode(t, crust.On(host, over(cfg, "0.0.0.0", "tcp", "utp")))
			for _, p := range public {
				link(t, n, p)
			}
			return n
		}
		a, b := behind(natA, "203.0.113.1"), behind(natB, "192.0.2.1")
		defer a.Close()
		defer b.Close()
		time.Sleep(3 * time.Second) // the echoes
		f(t, a, b)
	})
}

// message returns the next message, after any other events.
func (n *node) message(t *testing.T) crust.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for e := range n.Events(ctx) {
		if e.Type == crust.EventMessage {
			return e
		}
	}
	t.Fatal("no message came")
	return crust.Event{}
}

// TestPunch: pairs of NATs, and how soon their peers are connected.
func TestPunch(t *testing.T) {
	const seeds = 20
	for _, c := range []struct {
		a, b      string
		most      time.Duration // for half of the runs
		worst     time.Duration
		must      int             // of seeds
		transport crust.Transport // 0: any
	}{
		{"public", "public", 250 * time.Millisecond, 500 * time.Millisecond, seeds, crust.TCP},
		{"home", "public", 300 * time.Millisecond, 500 * time.Millisecond, seeds, crust.TCP},
		{"public", "symmetric", 300 * time.Millisecond, 500 * time.Millisecond, seeds, crust.TCP},
		{"home", "home", 400 * time.Millisecond, 1500 * time.Millisecond, seeds, 0},
		{"home,udp=off", "home,udp=off", 400 * time.Millisecond, 3 * time.Second, seeds, crust.TCP},
		{"home", "sequential", time.Second, 3 * time.Second, seeds, 0},
		{"home", "symmetric", 3 * time.Second, 12 * time.Second, seeds - 1, 0},
		{"sequential,noise=5", "sequential,noise=5", 2 * time.Second, 6 * time.Second, seeds - 1, 0},
	} {
		t.Run(c.a+" and "+c.b, func(t *testing.T) {
			var took []time.Duration
			for seed := range uint64(seeds) {
				town(t, seed+1, c.a, c.b, crust.Config{ConnectTimeout: 30 * time.Second}, func(t *testing.T, a, b *node) {
					began := time.Now()
					if err := a.ConnectPeer(b.ID(), 7); err != nil {
						t.Fatal(err)
					}
					e := a.final(t, 7)
					if e.Type != crust.EventConnected {
						t.Logf("seed %d: %v %v", seed, e.Type, e.Err())
						return
					}
					took = append(took, time.Since(began))
					p, _ := a.Peer(b.ID())
					for c.transport != 0 && p.Endpoint.Transport != c.transport { // TCP is favoured, and takes a round trip more
						if time.Since(began) > c.worst {
							t.Errorf("seed %d: by %v", seed, p.Endpoint)
							break
						}
						time.Sleep(time.Millisecond)
						p, _ = a.Peer(b.ID())
					}
					if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
						t.Error(err)
					}
					if e := b.message(t); string(e.Data) != "hello" {
						t.Errorf("got %q", e.Data)
					}
				})
			}
			slices.Sort(took)
			if len(took) == 0 {
				t.Fatal("no pair was connected")
			}
			half, last := took[len(took)/2], took[len(took)-1]
			t.Logf("%d of %d, half of them within %v, all within %v", len(took), seeds, half, last)
			if len(took) < c.must || half > c.most || last > c.worst {
				t.Errorf("want %d of %d, half of them within %v, all within %v", c.must, seeds, c.most, c.worst)
			}
		})
	}
}
