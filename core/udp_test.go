package crust_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// slowly returns how often to do what has been done often elsewhere: a quarter of
// n where the race detector makes everything ten times as slow.
func slowly(n int) int {
	if raceDetector {
		return n / 4
	}
	return n
}

// over returns cfg with a random port of each transport at an address, and without
// gossip: peers that must be introduced or met would know where the others are.
func over(cfg crust.Config, address string, transports ...string) crust.Config {
	cfg.Listen, cfg.Gossip = nil, crust.GossipOff
	for _, tr := range transports {
		cfg.Listen = append(cfg.Listen, endpointAt(tr+"://"+address+":0"))
	}
	return cfg
}

// contactOf returns a contact for the listener of a transport at an address.
func contactOf(t testing.TB, n *node, transport crust.Transport, address string) crust.Contact {
	t.Helper()
	for _, ep := range n.Listeners() {
		if ep.Transport == transport {
			return crust.Contact{Endpoint: endpointAt(fmt.Sprintf("%v://%s:%d", transport, address, ep.Addr.Port())), Peer: n.ID()}
		}
	}
	t.Fatalf("there is no listener of %v", transport)
	return crust.Contact{}
}

// linkOver connects two nodes and checks over which transport.
func linkOver(t testing.TB, a, b *node, want crust.Transport) {
	t.Helper()
	link(t, a, b)
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		p, ok := pair[0].Peer(pair[1].ID())
		if !ok || p.Endpoint.Transport != want {
			t.Fatalf("connected by %v, want %v", p.Endpoint, want)
		}
	}
}

// kernelAndVirtual runs a test over the kernel's loopback and over a simulated internet: two nodes
// whose only listeners are uTP.
func kernelAndVirtual(t *testing.T, l simnet.Link, f func(t *testing.T, a, b *node)) {
	t.Run("kernel", func(t *testing.T) {
		f(t, newNode(t, over(crust.Config{AppID: []byte("alice")}, "127.0.0.1", "utp")),
			newNode(t, over(crust.Config{AppID: []byte("bob"), Role: crust.Client}, "127.0.0.1", "utp")))
	})
	t.Run("virtual", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			internet.SetDefaultLink(l)
			a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{AppID: []byte("alice")}, "0.0.0.0", "utp")))
			b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{AppID: []byte("bob"), Role: crust.Client}, "0.0.0.0", "utp")))
			defer b.Close()
			defer a.Close()
			f(t, a, b)
		})
	})
}

// TestUDPHello: two peers that only UDP joins see each other as over TCP, and
// messages of every size come through both ways.
func TestUDPHello(t *testing.T) {
	kernelAndVirtual(t, simnet.Link{Latency: 10 * time.Millisecond}, func(t *testing.T, a, b *node) {
		if err := a.Connect(b.info(), 42); err != nil {
			t.Fatal(err)
		}
		ea, eb := a.next(crust.EventConnected), b.next(crust.EventConnected)
		if ea.Peer != b.ID() || ea.Token != 42 || string(ea.AppID()) != "bob" || ea.Role() != crust.Client || ea.How() != crust.Dialed || ea.Endpoint().Transport != crust.UTP {
			t.Fatalf("dialler saw %+v", ea)
		}
		if eb.Peer != a.ID() || eb.Token != 0 || string(eb.AppID()) != "alice" || eb.Role() != crust.Node || eb.How() != crust.Accepted || eb.Endpoint().Transport != crust.UTP {
			t.Fatalf("acceptor saw %+v", eb)
		}
		for size := 0; size <= crust.MaxMessage; size = size*3 + 1 {
			want := filled(size, uint64(size))
			for _, pair := range [][2]*node{{a, b}, {b, a}} {
				if err := pair[0].Send(pair[1].ID(), want, 3); err != nil {
					t.Fatal(err)
				}
				if got := pair[1].next(crust.EventMessage); !bytes.Equal(got.Data, want) || got.Priority != 3 || got.Peer != pair[0].ID() {
					t.Fatalf("message of %d bytes arrived as %d", size, len(got.Data))
				}
			}
		}
		if err := a.Send(b.ID(), make([]byte, crust.MaxMessage+1), 0); !errors.Is(err, crust.CodeTooBig) {
			t.Fatalf("too big gave %v", err)
		}
		if p, _ := a.Peer(b.ID()); p.Cipher != "AES-256-GCM" && p.Cipher != "ChaCha20-Poly1305" {
			t.Fatalf("the session says that its cipher is %q", p.Cipher)
		}
		if err := a.Disconnect(b.ID()); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*node{a, b} {
			if e := n.next(crust.EventLost); e.Code() != crust.CodeDisconnected {
				t.Fatal(e.Err())
			}
		}
	})
}

// TestDefaultListeners: a service that says nothing of listeners has one over
// each transport, and can be reached by both.
func TestDefaultListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		s, err := crust.New(crust.On(internet.Host("10.0.0.1", "2001:db8::1"), crust.Config{}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		n := &node{Service: s, t: t}
		listeners := s.Listeners()
		if len(listeners) != 2 || listeners[0].Transport == listeners[1].Transport {
			t.Fatalf("it listens at %v", listeners)
		}
		from := internet.Host("10.0.0.2", "2001:db8::2")
		for _, transport := range []crust.Transport{crust.TCP, crust.UTP} {
			for _, address := range []string{"10.0.0.1", "[2001:db8::1]"} {
				o := newNode(t, crust.On(from, crust.Config{NoListen: true}))
				if err := o.ConnectEndpoint(contactOf(t, n, transport, address), 1); err != nil {
					t.Fatal(err)
				}
				o.next(crust.EventConnected)
				n.next(crust.EventConnected)
				o.Close()
				n.next(crust.EventLost)
			}
		}
	})
}

// TestUDPCrossedConnects: both sides connect at once, a thousand times: one
// session each time, no failure, and what is sent at once comes. In the mixed
// run one side dials over TCP and the other over uTP.
func TestUDPCrossedConnects(t *testing.T) {
	t.Run("kernel", func(t *testing.T) {
		a, b := newNode(t, over(crust.Config{}, "127.0.0.1", "utp")), newNode(t, over(crust.Config{}, "127.0.0.1", "utp"))
		crossed(t, a, b, contactOf(t, b, crust.UTP, "127.0.0.1"), contactOf(t, a, crust.UTP, "127.0.0.1"), slowly(1000))
	})
	for name, by := range map[string][2]crust.Transport{
		"virtual": {crust.UTP, crust.UTP}, "virtual mixed": {crust.TCP, crust.UTP},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(3)
				internet.SetDefaultLink(simnet.Link{Latency: 2 * time.Millisecond, Jitter: 3 * time.Millisecond})
				a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
				b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
				defer b.Close()
				defer a.Close()
				rounds := 1000
				if by[0] != by[1] {
					rounds = slowly(rounds)
				}
				won := crossed(t, a, b, contactOf(t, b, by[0], "10.0.0.2"), contactOf(t, a, by[1], "10.0.0.1"), rounds)
				if by[0] != by[1] && (won[crust.TCP] == 0 || won[crust.UTP] == 0) {
					t.Errorf("of %v, the sessions were over %v: nothing was mixed", by, won)
				}
			})
		})
	}
}

// crossed does the rounds, and returns over which transports sessions were at first,
// on either side. Each begins the session by the link that it has dialled; then both
// keep the same link.
func crossed(t *testing.T, a, b *node, toB, toA crust.Contact, rounds int) map[crust.Transport]int {
	a.rush, b.rush = true, true
	won := map[crust.Transport]int{}
	for i := range rounds {
		var both sync.WaitGroup
		both.Go(func() {
			if err := a.ConnectEndpoint(toB, 1); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			if err := b.ConnectEndpoint(toA, 2); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		ea, eb := a.next(crust.EventConnected), b.next(crust.EventConnected)
		won[ea.Endpoint().Transport]++
		won[eb.Endpoint().Transport]++
		want := fmt.Appendf(nil, "round %d", i)
		for _, pair := range [][2]*node{{a, b}, {b, a}} {
			if err := pair[0].Send(pair[1].ID(), want, 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []*node{a, b} {
			if e := n.pastMoves(crust.EventMessage); !bytes.Equal(e.Data, want) {
				t.Fatalf("got %q", e.Data)
			}
		}
		if len(a.Peers()) != 1 || len(b.Peers()) != 1 {
			t.Fatal("not one session")
		}
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			pa, _ := a.Peer(b.ID())
			pb, _ := b.Peer(a.ID())
			if pa.Endpoint.Transport == pb.Endpoint.Transport && !pa.Suspended && !pb.Suspended {
				break
			}
			if time.Since(began) > time.Second {
				t.Fatalf("round %d: one side has %v (suspended: %v), the other %v (%v)", i, pa.Endpoint, pa.Suspended, pb.Endpoint, pb.Suspended)
			}
		}
		pair := [][2]*node{{a, b}, {b, a}}[i%2]
		if err := pair[0].Disconnect(pair[1].ID()); err != nil {
			t.Fatal(err)
		}
		for _, n := range pair {
			n.pastMoves(crust.EventLost)
		}
	}
	return won
}

// pastMoves is next, past the answer to a needless connect and past a session that
// goes over to another link: to TCP, or to the one that both keep.
func (n *node) pastMoves(want crust.EventType) crust.Event {
	n.t.Helper()
	for {
		if e := n.next(want, crust.EventAlreadyConnected, crust.EventResumed); e.Type == want {
			return e
		}
	}
}

// TestUDPMesh: ten services that only uTP joins, over the kernel's loopback and
// over a lossy internet, and ten of which each knows some peers by TCP only and
// others by uTP only.
func TestUDPMesh(t *testing.T) {
	const services, size = 10, 20 << 10
	t.Run("kernel", func(t *testing.T) {
		nodes := make([]*node, services)
		for i := range nodes {
			nodes[i] = newNode(t, over(crust.Config{}, "127.0.0.1", "utp"))
		}
		mesh(t, nodes, slowly(100), size)
	})
	for name, transports := range map[string][2]string{"virtual": {"utp", "utp"}, "virtual mixed": {"tcp", "utp"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(5)
				internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01, Reorder: 0.01})
				nodes := make([]*node, services)
				for i := range nodes {
					host := internet.Host(fmt.Sprintf("10.0.0.%d", i+1))
					nodes[i] = newNode(t, crust.On(host, over(crust.Config{}, "0.0.0.0", transports[i%2])))
					defer nodes[i].Close()
				}
				mesh(t, nodes, slowly(100), size)
			})
		})
	}
}

// mesh connects each pair by whoever comes first, and lets all of them talk.
func mesh(t *testing.T, nodes []*node, messages, size int) {
	infos := make([][]byte, len(nodes))
	for i, n := range nodes {
		infos[i] = n.info()
	}
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			for j := range nodes {
				if i != j {
					if err := n.Connect(infos[j], uint64(j+1)); err != nil {
						t.Error(err)
					}
				}
			}
		})
		wg.Go(func() { meshNode(t, n, len(nodes)-1, messages, size) })
	}
	wg.Wait()
}

// TestUDPFarewell: 1,000 one-byte messages followed at once by an orderly close
// all arrive, before the loss, also where a tenth of the datagrams get lost.
func TestUDPFarewell(t *testing.T) {
	for name, end := range map[string]func(a *node, b crust.PeerID){
		"disconnect": func(a *node, b crust.PeerID) { a.Disconnect(b) },
		"close":      func(a *node, _ crust.PeerID) { a.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			kernelAndVirtual(t, simnet.Link{Latency: 20 * time.Millisecond, Loss: 0.1}, func(t *testing.T, a, b *node) {
				linkOver(t, a, b, crust.UTP)
				for i := range 1000 {
					if err := a.Send(b.ID(), []byte{byte(i)}, 0); err != nil {
						t.Fatal(err)
					}
				}
				end(a, b.ID())
				for i := range 1000 {
					if e := b.next(crust.EventMessage); len(e.Data) != 1 || e.Data[0] != byte(i) {
						t.Fatalf("message %d is %v", i, e.Data)
					}
				}
				if e := b.next(crust.EventLost); e.Code() != crust.CodeDisconnected {
					t.Fatal(e.Err())
				}
			})
		})
	}
}
