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

// quarter is a town of which the two hosts are known too.
func quarter(t *testing.T, seed uint64, nats [2]string, f func(t *testing.T, hosts [2]*simnet.Host, nodes [2]*node)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(seed)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		cfg := crust.Config{ConnectTimeout: 30 * time.Second}
		var public []*node
		for i := range 4 {
			n := newNode(t, crust.On(internet.Host(fmt.Sprintf("23.%d.0.1", 1+i)), over(cfg, "0.0.0.0", "tcp", "utp")))
			defer n.Close()
			public = append(public, n)
		}
		var hosts [2]*simnet.Host
		var nodes [2]*node
		for i, words := range nats {
			address, nat := fmt.Sprintf("25.%d.0.1", i), natsim.MustParse(words)
			if inner := "192.168.1.2"; nat.Firewall {
				hosts[i] = internet.NAT(nat).Host(address)
			} else {
				hosts[i] = internet.NAT(nat, address).Host(inner)
			}
			nodes[i] = newNode(t, crust.On(hosts[i], over(cfg, "0.0.0.0", "tcp", "utp")))
			defer nodes[i].Close()
			for _, p := range public {
				link(t, nodes[i], p)
			}
		}
		time.Sleep(3 * time.Second) // the echoes
		f(t, hosts, nodes)
	})
}

// TestPunchTCP: pairs of NATs that meet by TCP alone, since one of them drops UDP, or
// by TCP as well; and that nothing is left open of what did not become a link.
func TestPunchTCP(t *testing.T) {
	seeds := 20
	if raceDetector {
		seeds = 4
	}
	for _, c := range []struct {
		a, b  string
		most  time.Duration // for half of the runs
		worst time.Duration
		luck  bool // that some runs fail, of 25 one perhaps, is no wonder
	}{
		{"home", "home", 300 * time.Millisecond, 1500 * time.Millisecond, false},
		{"home,udp=off", "home,udp=off", 300 * time.Millisecond, 3 * time.Second, false},
		{"home,udp=off,strangers=refuse", "home,strangers=refuse", 600 * time.Millisecond, 3 * time.Second, false},
		{"home,udp=off,strangers=accept", "home,strangers=accept", 600 * time.Millisecond, 3 * time.Second, false},
		{"home,udp=off,strangers=punish", "home,strangers=punish", 600 * time.Millisecond, 3 * time.Second, false},
		{"cone,udp=off", "home", 400 * time.Millisecond, 3 * time.Second, false},
		{"cone,udp=off", "cone,udp=off", 500 * time.Millisecond, 3 * time.Second, false},
		{"home,udp=off", "sequential", 500 * time.Millisecond, 3 * time.Second, false},
		{"sequential,step=-3,noise=5,udp=off", "home,strangers=refuse", 500 * time.Millisecond, 3 * time.Second, false},
		{"home,udp=off", "block", time.Second, 8 * time.Second, false},
		{"home,udp=off", "symmetric", 5 * time.Second, 15 * time.Second, true},
		{"symmetric,udp=off", "home,strangers=refuse", 5 * time.Second, 15 * time.Second, true},
		{"firewall", "firewall,strangers=refuse", 400 * time.Millisecond, 1500 * time.Millisecond, false},
	} {
		t.Run(c.a+" and "+c.b, func(t *testing.T) {
			var took []time.Duration
			for seed := range uint64(seeds) {
				quarter(t, seed+1, [2]string{c.a, c.b}, func(t *testing.T, hosts [2]*simnet.Host, nodes [2]*node) {
					a, b := nodes[0], nodes[1]
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
					if p, _ := a.Peer(b.ID()); p.Endpoint.Transport != crust.TCP || p.How != crust.Punched {
						t.Errorf("seed %d: %v by %v", seed, p.How, p.Endpoint)
					}
					time.Sleep(5 * time.Minute) // and punishments end
					for i, n := range nodes {
						open, want := hosts[i].InUse(), len(n.Peers())+len(n.Listeners())
						for range 60 { // a survey takes sockets for a while
							if open == want {
								break
							}
							time.Sleep(time.Second)
							open, want = hosts[i].InUse(), len(n.Peers())+len(n.Listeners())
						}
						if open != want {
							t.Errorf("seed %d: %d sockets are open, want %d", seed, open, want)
						}
					}
				})
			}
			slices.Sort(took)
			if len(took) == 0 {
				t.Fatal("no pair was connected")
			}
			half, last := took[len(took)/2], took[len(took)-1]
			t.Logf("%d of %d, half of them within %v, all within %v", len(took), seeds, half, last)
			must := seeds
			if c.luck { // less would be one of a million times
				must = seeds * 12 / 20
				if raceDetector {
					must = 1
				}
			}
			if len(took) < must || half > c.most && !(c.luck && raceDetector) || last > c.worst {
				t.Errorf("want %d of them, half within %v, all within %v", must, c.most, c.worst)
			}
		})
	}
}

// TestTCPMapping: what is known of the NAT for TCP soon after peers have come, though
// nothing was punched.
func TestTCPMapping(t *testing.T) {
	for words, want := range map[string]crust.NATFlow{
		"home":              {Mapping: crust.NATEndpointIndependent, Ports: crust.NATPortsPreserving},
		"cone":              {Mapping: crust.NATEndpointIndependent},
		"sequential,step=3": {Mapping: crust.NATAddressPortDependent, Ports: crust.NATPortsSequential, Step: 3},
		"symmetric":         {Mapping: crust.NATAddressPortDependent, Ports: crust.NATPortsRandom},
		"block,udp=off":     {Mapping: crust.NATAddressPortDependent, Ports: crust.NATPortsBlock, Low: 39936, High: 40959},
		"home,tcp-ports=random,tcp-mapping=address-port": {Mapping: crust.NATAddressPortDependent, Ports: crust.NATPortsRandom},
	} {
		t.Run(words, func(t *testing.T) {
			quarter(t, 3, [2]string{words, "home"}, func(t *testing.T, _ [2]*simnet.Host, nodes [2]*node) {
				got := nodes[0].NAT().TCP
				if got.Mapping != want.Mapping || got.Ports != want.Ports || got.Step != want.Step {
					t.Errorf("%+v, want %+v", got, want)
				}
			})
		})
	}
}

// TestPunchTCPCrossed: two behind NATs that call each other within a round trip, by a peer
// that both are connected to, meet as soon as when one of them calls.
func TestPunchTCPCrossed(t *testing.T) {
	for _, swap := range []bool{false, true} {
		for apart := time.Duration(0); apart <= 80*time.Millisecond; apart += 8 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
				hub := newNode(t, crust.On(internet.Host("198.51.100.1"), over(crust.Config{}, "0.0.0.0", "tcp")))
				defer hub.Close()
				var nodes []*node
				for i, external := range []string{"203.0.113.1", "203.0.113.2"} {
					h := internet.NAT(natsim.MustParse("home"), external).Host("192.168.1.2")
					n := newNode(t, crust.On(h, over(crust.Config{Identity: keyOf(t, byte(1+i))}, "0.0.0.0", "tcp")))
					defer n.Close()
					link(t, n, hub)
					nodes = append(nodes, n)
				}
				if swap {
					nodes[0], nodes[1] = nodes[1], nodes[0]
				}
				time.Sleep(2 * time.Second)
				began := time.Now()
				for i, n := range nodes {
					if err := n.ConnectPeer(nodes[1-i].ID(), 1); err != nil {
						t.Fatal(err)
					}
					time.Sleep(apart)
				}
				for _, n := range nodes {
					if e := n.final(t, 1); e.Type != crust.EventConnected {
						t.Fatalf("%v apart: %v (%v)", apart, e.Type, e.Err())
					}
				}
				if took := time.Since(began); took > 1500*time.Millisecond {
					t.Errorf("%v apart: connected after %v", apart, took)
				}
			})
		}
	}
}
