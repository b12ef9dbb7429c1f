package crust_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// at returns where a service on a simulated host listens.
func at(host string, s *crust.Service) crust.Endpoint {
	ep := s.Listeners()[0]
	return endpointAt(netip.AddrPortFrom(netip.MustParseAddr(host), ep.Addr.Port()).String())
}

// sortedKeys returns identities in the order of their ids.
func sortedKeys(t testing.TB, n int) []*identity.Key {
	t.Helper()
	keys := make([]*identity.Key, n)
	for i := range keys {
		seed := make([]byte, identity.SeedSize)
		seed[0] = byte(i + 1)
		key, err := identity.FromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = key
	}
	for i := range keys {
		for j := range i {
			if keys[i].ID().Compare(keys[j].ID()) < 0 {
				keys[i], keys[j] = keys[j], keys[i]
			}
		}
	}
	return keys
}

// TestAnyOrderOfCalls: services connect by info, by endpoint with and without
// peer id and by bootstrap, send and disconnect at random moments over links of
// random latency. Every promise about events holds meanwhile, and when it is
// quiet both sides agree.
func TestAnyOrderOfCalls(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { anyOrder(t, seed) })
		})
	}
}

func anyOrder(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 77))
	internet := simnet.New(seed)
	latency := time.Duration(r.IntN(20)) * time.Millisecond
	internet.SetDefaultLink(simnet.Link{Latency: latency, Jitter: latency * 2})
	keys := sortedKeys(t, 3)
	all := make([]*witness, 2+seed%2)
	contacts := make([]crust.Contact, len(all))
	hosts := make([]*simnet.Host, len(all))
	for i := range all {
		address := fmt.Sprintf("10.0.0.%d", i+1)
		hosts[i] = internet.Host(address)
		contacts[i] = crust.Contact{Endpoint: endpointAt(address + ":700"), Peer: keys[i].ID()}
	}
	for i := range all {
		var others []crust.Contact
		for j := range all {
			if j != i {
				others = append(others, crust.Contact{Endpoint: contacts[j].Endpoint})
			}
		}
		all[i] = newWitness(t, string(rune('a'+i)), crust.On(hosts[i], crust.Config{
			Identity: keys[i], Listen: []crust.Endpoint{endpointAt("0.0.0.0:700")}, Contacts: others,
			ConnectTimeout: 20 * time.Second,
		}))
	}
	var wg sync.WaitGroup
	for i, w := range all {
		mine := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range 60 {
				j := mine.IntN(len(all))
				if j == i {
					continue
				}
				randomCall(w, mine, contacts[j])
				time.Sleep(time.Duration(mine.IntN(60)) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute)
	for _, w := range all {
		if n := w.pendingTokens(); n != 0 {
			t.Errorf("%s: %d calls are not answered", w.name, n)
		}
		for code, n := range w.failed {
			t.Errorf("%s: %d times %v where somebody always listens", w.name, n, code)
		}
	}
	agree(t, all...)
	time.Sleep(time.Second)
	delivered(t, all...)
	for _, w := range all {
		wg.Go(func() { w.Close() })
	}
	wg.Wait()
	for i, w := range all {
		<-w.done
		if n := hosts[i].Connections(); n != 0 {
			t.Errorf("%s: %d connections are left", w.name, n)
		}
		if w.finals == 0 || w.lost == 0 {
			t.Errorf("%s: %d answers and %d losses prove little", w.name, w.finals, w.lost)
		}
	}
}

func randomCall(w *witness, r *rand.Rand, to crust.Contact) {
	switch r.IntN(9) {
	case 0, 1:
		w.ask(false, func(token uint64) error { return w.ConnectEndpoint(to, token) })
	case 2:
		to.Peer = crust.PeerID{}
		w.ask(false, func(token uint64) error { return w.ConnectEndpoint(to, token) })
	case 3:
		w.ask(true, w.Bootstrap)
	case 4, 5:
		w.Disconnect(to.Peer)
	default:
		for range r.IntN(5) {
			w.send(to.Peer, r.IntN(40_000), uint8(r.IntN(2)))
		}
	}
}

// forgetful is a network behind a router that can forget all its connections:
// what is sent on them vanishes, and nothing comes from them.
type forgetful struct {
	netio.Network
	mu    sync.Mutex
	conns []*forgettable
}

type forgettable struct {
	net.Conn
	forgotten, closed chan struct{}
	once              sync.Once
}

func (f *forgetful) wrap(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &forgettable{Conn: c, forgotten: make(chan struct{}), closed: make(chan struct{})}
	f.conns = append(f.conns, w)
	return w, nil
}

func (f *forgetful) forget() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.conns)
	for _, c := range f.conns {
		close(c.forgotten)
	}
	f.conns = nil
	return n
}

func (f *forgetful) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	return f.wrap(f.Network.Dial(ctx, local, remote))
}

func (f *forgetful) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	l, err := f.Network.Listen(ctx, addr)
	return &forgetfulListener{l, f}, err
}

type forgetfulListener struct {
	net.Listener
	router *forgetful
}

func (l *forgetfulListener) Accept() (net.Conn, error) { return l.router.wrap(l.Listener.Accept()) }

func (c *forgettable) isForgotten() bool {
	select {
	case <-c.forgotten:
		return true
	default:
		return false
	}
}

func (c *forgettable) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.isForgotten() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *forgettable) Write(p []byte) (int, error) {
	if c.isForgotten() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *forgettable) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestReconnectBeforeThePeerNoticed: a side that has given a session up connects
// again at once, whichever peer id is greater, although the other side still
// believes in the old one and never hears that it has ended.
func TestReconnectBeforeThePeerNoticed(t *testing.T) {
	for name, who := range map[string]int{"the lesser connects": 0, "the greater connects": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				keys := sortedKeys(t, 2)
				internet := simnet.New(1)
				ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
				a := newNode(t, crust.On(ha, crust.Config{Identity: keys[who], Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
				router := &forgetful{Network: hb}
				b := newNode(t, crust.On(router, crust.Config{Identity: keys[1-who], Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
				link(t, a, b)
				time.Sleep(30 * time.Second)
				internet.Cut(ha, hb)
				if err := a.Disconnect(b.ID()); err != nil {
					t.Fatal(err)
				}
				a.next(crust.EventLost)
				if router.forget() == 0 {
					t.Fatal("there was no connection to forget")
				}
				internet.Heal(ha, hb)
				if _, ok := b.Peer(a.ID()); !ok {
					t.Fatal("the peer has noticed already")
				}
				began := time.Now()
				if err := a.ConnectEndpoint(crust.Contact{Endpoint: at("10.0.0.2", b.Service), Peer: b.ID()}, 5); err != nil {
					t.Fatal(err)
				}
				if e := a.next(crust.EventConnected); e.Token != 5 {
					t.Fatal("connected by itself")
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Fatalf("it took %v", took)
				}
				if e := b.next(crust.EventLost, crust.EventSuspended); e.Type == crust.EventSuspended { // a heartbeat was due just then
					b.next(crust.EventLost)
				}
				b.next(crust.EventConnected)
				if err := a.Send(b.ID(), []byte("here again"), 0); err != nil {
					t.Fatal(err)
				}
				if e := b.next(crust.EventMessage); string(e.Data) != "here again" {
					t.Fatal("another message")
				}
				a.Close()
				b.Close()
			})
		})
	}
}

// TestOneIdentityTwice: two services with one identity take a peer from each
// other; the peer has one session at a time and talks with the last.
func TestOneIdentityTwice(t *testing.T) {
	for name, who := range map[string]int{"lesser": 0, "greater": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				keys := sortedKeys(t, 2)
				internet := simnet.New(1)
				internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
				peer := newWitness(t, "peer", crust.On(internet.Host("10.0.0.1"), crust.Config{
					Identity: keys[1-who], Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")},
				}))
				var twins [2]*witness
				for i := range twins {
					twins[i] = newWitness(t, fmt.Sprint("twin ", i), crust.On(internet.Host(fmt.Sprintf("10.0.0.%d", i+2)), crust.Config{
						Identity: keys[who], Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")},
					}))
				}
				contact := crust.Contact{Endpoint: endpointAt("10.0.0.1:1"), Peer: peer.ID()}
				for round := range 10 {
					w := twins[round%2]
					if err := w.ask(false, func(token uint64) error { return w.ConnectEndpoint(contact, token) }); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Second)
					if _, ok := w.Peer(peer.ID()); !ok {
						t.Fatalf("round %d: the last to connect has no session", round)
					}
					if _, ok := twins[1-round%2].Peer(peer.ID()); ok {
						t.Fatalf("round %d: both have a session", round)
					}
				}
				for _, w := range []*witness{peer, twins[0], twins[1]} {
					w.Close()
					<-w.done
				}
			})
		})
	}
}

// TestAdoptionIsBounded: a peer that falls silent between the handshake and the
// choice of a link holds up neither a Connect nor Close, where the session cannot
// begin before that choice.
func TestAdoptionIsBounded(t *testing.T) {
	for name, who := range map[string]int{"claiming": 0, "deciding": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				keys := sortedKeys(t, 2)
				internet := simnet.New(1)
				ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
				internet.SetLink(ha, hb, simnet.Link{Latency: 100 * time.Millisecond})
				listen := []crust.Endpoint{endpointAt("0.0.0.0:1")}
				a := newNode(t, crust.On(ha, crust.Config{Identity: keys[who], NoListen: true, NoResume: true, ConnectTimeout: 3 * time.Second, CloseTimeout: time.Second}))
				b := newNode(t, crust.On(hb, crust.Config{Identity: keys[1-who], Listen: listen}))
				contact := crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: b.ID()}
				for token := range uint64(2) {
					began := time.Now()
					if err := a.ConnectEndpoint(contact, token); err != nil {
						t.Fatal(err)
					}
					time.Sleep(450 * time.Millisecond) // dialled, and two flights: the third is on its way
					internet.Silence(ha, hb)
					if token == 1 {
						began = time.Now()
						a.Close()
						if took := time.Since(began); took > 1100*time.Millisecond {
							t.Fatalf("closing took %v", took)
						}
						if e := a.next(crust.EventConnectFailed); e.Token != token || e.Code() != crust.CodeCanceled {
							t.Fatal(e.Err())
						}
						a.next(crust.EventStopped)
						break
					}
					e := a.next(crust.EventConnectFailed)
					if took := time.Since(began); e.Code() != crust.CodeTimeout || took > 3100*time.Millisecond {
						t.Fatalf("%v after %v", e.Err(), took)
					}
					if !strings.Contains(e.Err().Error(), "3s") {
						t.Fatalf("%q does not say how long", e.Err())
					}
					internet.Heal(ha, hb)
					time.Sleep(time.Minute)
				}
				b.Close()
			})
		})
	}
}

// TestBegunIsBounded: a peer that falls silent when a session with it has begun, and
// says nothing of it, is lost as any other, and does not hold up Close.
func TestBegunIsBounded(t *testing.T) {
	for name, who := range map[string]int{"claiming": 0, "deciding": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				keys := sortedKeys(t, 2)
				internet := simnet.New(1)
				ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
				internet.SetLink(ha, hb, simnet.Link{Latency: 100 * time.Millisecond})
				a := newNode(t, crust.On(ha, crust.Config{Identity: keys[who], NoListen: true, CloseTimeout: time.Second, ResumeWindow: 5 * time.Second, Heartbeat: 4 * time.Second, LostAfter: 8 * time.Second}))
				b := newNode(t, crust.On(hb, crust.Config{Identity: keys[1-who], Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
				contact := crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: b.ID()}
				for token := range uint64(2) {
					if err := a.ConnectEndpoint(contact, token); err != nil {
						t.Fatal(err)
					}
					a.next(crust.EventConnected)
					internet.Silence(ha, hb) // the third flight, and what is behind it, are on their way
					if err := a.Send(b.ID(), []byte("hello"), 1); err != nil {
						t.Fatal(err)
					}
					began := time.Now()
					if token == 1 {
						a.Close()
						if took := time.Since(began); took > 1100*time.Millisecond {
							t.Fatalf("closing took %v", took)
						}
						break
					}
					a.next(crust.EventSuspended)
					if took := time.Since(began); took > 4*time.Second {
						t.Errorf("suspended after %v", took)
					}
					if e := a.next(crust.EventLost); e.Count() != 1 {
						t.Errorf("lost with %d messages", e.Count())
					}
					internet.Heal(ha, hb)
					time.Sleep(3 * time.Minute)
				}
				b.Close()
			})
		})
	}
}

// TestBegunAndDisconnected: who has begun a session and ends it at once ends it for the
// other side, too, also when that would have had another link.
func TestBegunAndDisconnected(t *testing.T) {
	for seed := range uint64(16) {
		relayWorld(t, seed, 1, "tcp", crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
			both := [2]*node{w.a, w.b}
			for i, n := range both {
				if err := n.ConnectPeer(both[1-i].ID(), uint64(i+1)); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range both {
				n.next(crust.EventConnected)
			}
			time.Sleep(time.Duration(seed/2) * 10 * time.Millisecond)
			if err := both[seed/2%2].Disconnect(both[1-seed/2%2].ID()); err != nil {
				t.Fatal(err)
			}
			for _, n := range both {
				if e := n.pastMoves(crust.EventLost); e.Code() != crust.CodeDisconnected {
					t.Errorf("seed %d: %v", seed, e.Err())
				}
			}
		})
	}
}
