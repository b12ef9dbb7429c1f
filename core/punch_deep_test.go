package crust_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// TestPunchDeepCarrier: carriers' NATs that are too far for openers are opened by what
// goes the whole way, also when they answer strangers.
func TestPunchDeepCarrier(t *testing.T) {
	for _, c := range []struct {
		a, b string // the carriers' NATs; each side has a home one as well
		most time.Duration
	}{
		{"home", "home", 700 * time.Millisecond},
		{"home,strangers=refuse", "home,strangers=refuse", 2 * time.Second},
		{"home,udp=off", "home,udp=off", 2 * time.Second},
		{"home,udp=off,strangers=refuse", "home,strangers=refuse", 3 * time.Second},
		{"home", "sequential", 3 * time.Second},
		{"symmetric", "home", 12 * time.Second},
	} {
		t.Run(c.a+" and "+c.b, func(t *testing.T) {
			var took []time.Duration
			for seed := range uint64(3) {
				took = append(took, deep(t, seed+1, [2]string{c.a, c.b}))
			}
			slices.Sort(took)
			t.Logf("met after %v", took)
			if took[len(took)/2] > c.most {
				t.Errorf("half of them took %v", took[len(took)/2])
			}
		})
	}
}

// deep has two peers meet behind home NATs and carriers' ones six routers away, and
// returns how long that took, or a minute when they did not.
func deep(t *testing.T, seed uint64, carriers [2]string) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(seed)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		cfg := crust.Config{ConnectTimeout: 30 * time.Second}
		var nodes []*node
		start := func(h *simnet.Host) *node {
			n := newNode(t, crust.On(h, over(cfg, "0.0.0.0", "tcp", "utp")))
			nodes = append(nodes, n)
			return n
		}
		defer func() {
			for _, n := range slices.Backward(nodes) {
				n.Close()
			}
		}()
		for i := range 4 {
			start(internet.Host(fmt.Sprintf("23.%d.0.1", 1+i)))
		}
		for i, words := range carriers {
			carrier := internet.NAT(natsim.MustParse(words), fmt.Sprintf("25.%d.0.1", i))
			home := carrier.NAT(natsim.MustParse("home"), "100.64.0.1")
			internet.SetLink(home.Node(), carrier.Node(), simnet.Link{Latency: 5 * time.Millisecond, Hops: 5})
			n := start(home.Host("192.168.1.2"))
			for _, p := range nodes[:4] {
				link(t, n, p)
			}
		}
		time.Sleep(3 * time.Second) // the echoes
		a, b := nodes[4], nodes[5]
		began := time.Now()
		if err := a.ConnectPeer(b.ID(), 7); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 7); e.Type != crust.EventConnected || e.How() != crust.Punched {
			t.Logf("seed %d: %v by %v: %v", seed, e.Type, e.How(), e.Err())
			took = time.Minute
			return
		}
		took = time.Since(began)
	})
	return took
}
