package crust_test

import (
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// untilDirect waits until the sessions of two nodes with each other are over no relay.
func untilDirect(t *testing.T, a, b *node, patience time.Duration) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		pa, okA := a.Peer(b.ID())
		pb, okB := b.Peer(a.ID())
		if okA && okB && pa.How != crust.Relayed && pb.How != crust.Relayed {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("after %v one is %v and the other %v", patience, pa.How, pb.How)
		}
	}
}

// behindNATs makes two nodes, each behind a NAT of its own that words describe, and links both
// to hubs.
func behindNATs(t *testing.T, internet *simnet.Net, words string, cfg crust.Config, transports []string, hubs ...*node) (nodes []*node, routers []*simnet.Router) {
	t.Helper()
	for i, external := range []string{"203.0.113.1", "203.0.113.2"} {
		r := internet.NAT(natsim.MustParse(words), external)
		cfg.Identity = keyOf(t, byte(1+i))
		n := newNode(t, crust.On(r.Host("192.168.1.2"), over(cfg, "0.0.0.0", transports...)))
		t.Cleanup(func() { n.Close() })
		for _, hub := range hubs {
			link(t, n, hub)
		}
		nodes, routers = append(nodes, n), append(routers, r)
	}
	time.Sleep(2 * time.Second)
	return nodes, routers
}

// TestRelayedAreIntroducedAgain: two who could not punch when they met over a relay do so
// within a minute of when they can.
func TestRelayedAreIntroducedAgain(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(seed)
			internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
			hub := newNode(t, crust.On(internet.Host("198.51.100.1"), over(crust.Config{Relay: crust.RelayData}, "0.0.0.0", "tcp")))
			defer hub.Close()
			nodes, routers := behindNATs(t, internet, "home", crust.Config{}, []string{"tcp", "utp"}, hub)
			internet.Silence(routers[0].Node(), routers[1].Node())
			a, b := nodes[seed%2], nodes[1-seed%2]
			if err := a.ConnectPeer(b.ID(), 1); err != nil {
				t.Fatal(err)
			}
			if e := a.final(t, 1); e.Type != crust.EventConnected || e.How() != crust.Relayed {
				t.Fatalf("%v, %v", e.Type, e.How())
			}
			time.Sleep(40 * time.Second)
			internet.Heal(routers[0].Node(), routers[1].Node())
			untilDirect(t, a, b, time.Minute)
		})
	}
}

// TestPutBackOnARelay: two whose punched link has died, and whose session a relay carries on, punch
// again within half a minute of when they can, and mostly within ten seconds.
func TestPutBackOnARelay(t *testing.T) {
	late := 0
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(seed)
			internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
			hub := newNode(t, crust.On(internet.Host("198.51.100.1"), over(crust.Config{Relay: crust.RelayData}, "0.0.0.0", "tcp", "utp")))
			defer hub.Close()
			nodes, routers := behindNATs(t, internet, "home", crust.Config{Heartbeat: 2 * time.Second, LostAfter: 6 * time.Second}, []string{"tcp", "utp"}, hub)
			a, b := nodes[seed%2], nodes[1-seed%2]
			if err := a.ConnectPeer(b.ID(), 1); err != nil {
				t.Fatal(err)
			}
			if e := a.final(t, 1); e.Type != crust.EventConnected {
				t.Fatalf("%v, %v", e.Type, e.Err())
			}
			time.Sleep(time.Minute)
			internet.Silence(routers[0].Node(), routers[1].Node())
			isRelayed := func() bool {
				p, ok := a.Peer(b.ID())
				return ok && !p.Suspended && p.How == crust.Relayed
			}
			for began := time.Now(); !isRelayed(); time.Sleep(100 * time.Millisecond) {
				if time.Since(began) > 10*time.Second {
					t.Fatal("no relay carries the session on")
				}
			}
			internet.Heal(routers[0].Node(), routers[1].Node())
			since := time.Now()
			untilDirect(t, a, b, 30*time.Second)
			if time.Since(since) > 10*time.Second {
				late++
			}
		})
	}
	if late > 3 {
		t.Errorf("%d of 6 took more than ten seconds", late)
	}
}

// TestSuccessorIsWhereItWas: who was dialled, has restarted and is met again over a relay,
// since the direct way was blocked just then, is dialled again where it was.
func TestSuccessorIsWhereItWas(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(seed)
			internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
			cfg := crust.Config{Heartbeat: time.Second, LostAfter: 4 * time.Second, ResumeWindow: 20 * time.Second, CloseTimeout: time.Second}
			middle, public := internet.Host("198.51.100.1"), internet.Host("198.51.100.2")
			at := endpointAt("tcp://198.51.100.1:5483")
			hub := newNode(t, crust.On(middle, crust.Config{Relay: crust.RelayData, Listen: []crust.Endpoint{at}}))
			defer hub.Close()
			keys := sortedKeys(t, 2)
			symmetric := internet.NAT(natsim.MustParse("symmetric"), "203.0.113.1")
			cfg.Identity = keys[seed%2]
			a := newNode(t, crust.On(symmetric.Host("192.168.1.2"), over(cfg, "0.0.0.0", "tcp")))
			defer a.Close()
			cfg.Identity = keys[1-seed%2]
			cfg.Listen = []crust.Endpoint{endpointAt("tcp://198.51.100.2:5483")}
			b := newNode(t, crust.On(public, cfg))
			link(t, a, hub)
			link(t, b, hub)
			if err := a.ConnectEndpoint(crust.Contact{Endpoint: cfg.Listen[0], Peer: b.ID()}, 1); err != nil {
				t.Fatal(err)
			}
			if e := a.final(t, 1); e.Type != crust.EventConnected || e.How() != crust.Dialed {
				t.Fatalf("%v, %v", e.Type, e.How())
			}
			internet.Cut(symmetric.Node(), public)
			internet.Silence(middle, public)
			time.Sleep(5 * time.Second)
			b.Close() // nobody hears of it
			b = newNode(t, crust.On(public, cfg))
			defer b.Close()
			internet.Heal(middle, public)
			if err := b.ConnectEndpoint(crust.Contact{Endpoint: at}, 2); err != nil {
				t.Fatal(err)
			}
			for {
				if p, _ := a.Peer(b.ID()); p.How == crust.Relayed {
					break
				}
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			internet.Heal(symmetric.Node(), public)
			untilDirect(t, a, b, 9*time.Second)
		})
	}
}

// TestSuspendedWithoutRelay: a session whose relay is gone goes on within five seconds over a
// link that the two punch when a peer introduces them that does not relay, though one of them
// is dialling where nobody answers.
func TestSuspendedWithoutRelay(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(seed)
			internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
			cfg := crust.Config{Heartbeat: time.Second, LostAfter: 4 * time.Second, ResumeWindow: 20 * time.Second}
			silent := internet.Host("198.51.100.9")
			var hubs []*node
			for i, relay := range []crust.RelayMode{crust.RelayData, crust.RelaySignal} {
				hubs = append(hubs, newNode(t, crust.On(internet.Host([]string{"198.51.100.1", "198.51.100.2"}[i]), over(crust.Config{Relay: relay}, "0.0.0.0", "tcp"))))
				defer hubs[i].Close()
			}
			nodes, routers := behindNATs(t, internet, "restricted", cfg, []string{"tcp", "utp"}, hubs...)
			internet.Silence(routers[0].Node(), routers[1].Node())
			a, b := nodes[seed%2], nodes[1-seed%2]
			for _, r := range routers { // nobody is there, and it takes long to find that out
				internet.Silence(r.Node(), silent)
			}
			if err := a.Keep(crust.Group{Name: "b", Contacts: []crust.Contact{{Endpoint: endpointAt("tcp://198.51.100.9:5483"), Peer: b.ID()}}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(45+seed) * time.Second)
			synctest.Wait()
			if p, ok := a.Peer(b.ID()); !ok || p.How != crust.Relayed {
				t.Fatalf("%v, %v", ok, p.How)
			}
			a.waiting()
			internet.Heal(routers[0].Node(), routers[1].Node())
			hubs[0].Close()
			untilDirect(t, a, b, 5*time.Second)
			for _, e := range a.waiting() {
				if e.Type == crust.EventLost && e.Peer == b.ID() {
					t.Errorf("seed %d: lost: %v", seed, e.Err())
				}
			}
		})
	}
}
