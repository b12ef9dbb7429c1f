package crust_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// TestStanding: gossip tells of a node behind a NAT that lets nobody in as of a client,
// and of one that strangers reach as of a node, unless it is a client by itself. Where
// nobody is on the Internet, there is nobody to reach a node from outside.
func TestStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		start := func(h *simnet.Host, cfg crust.Config) *node {
			n := newNode(t, crust.On(h, gossiping(cfg, "0.0.0.0", "tcp", "utp")))
			return n
		}
		var public []*node
		for i := range 4 {
			public = append(public, start(internet.Host(fmt.Sprintf("23.%d.0.1", i+1)), crust.Config{}))
			defer public[i].Close()
		}
		nodes := map[string]*node{
			"home":          start(internet.NAT(natsim.MustParse("home"), "81.2.0.1").Host("192.168.1.2"), crust.Config{}),
			"full-cone":     start(internet.NAT(natsim.MustParse("full-cone,ports=preserve"), "91.3.0.1").Host("192.168.1.2"), crust.Config{}),
			"public":        start(internet.Host("62.4.0.1"), crust.Config{}),
			"public client": start(internet.Host("77.5.0.1"), crust.Config{Role: crust.Client}),
		}
		for _, n := range nodes {
			defer n.Close()
			for _, p := range public {
				link(t, n, p)
			}
		}
		time.Sleep(5 * time.Minute) // what NATs let in, and a record of it
		for name, want := range map[string]crust.Role{"home": crust.Client, "full-cone": crust.Node, "public": crust.Node, "public client": crust.Client} {
			n := nodes[name]
			var role *crust.Role
			for _, k := range public[0].Known() {
				if k.Peer == n.ID() {
					role = &k.Role
				}
			}
			if r := n.NAT(); role == nil || *role != want || r.Reachable != (name != "home") {
				t.Errorf("%s: %v, want %v; reachable %v because %s", name, role, want, r.Reachable, r.Why)
			}
		}
	})
	gossipChain(t, 3, func(t *testing.T, _ *simnet.Net, _ []*simnet.Host, nodes []*node) {
		allKnow(t, nodes, 10*time.Second)
		for _, k := range nodes[0].Known() {
			if k.Role != crust.Node {
				t.Errorf("on one site: %v", k.Role)
			}
		}
	})
}
