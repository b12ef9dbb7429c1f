package crust_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// udpWorld is world with listeners of uTP alone, and a link between the two.
func udpWorld(t *testing.T, l simnet.Link, cfg crust.Config, f func(t *testing.T, internet *simnet.Net, ha, hb *simnet.Host, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
		internet.SetLink(ha, hb, l)
		cfg := over(cfg, "0.0.0.0", "utp")
		a, b := newNode(t, crust.On(ha, cfg)), newNode(t, crust.On(hb, cfg))
		defer b.Close()
		defer a.Close()
		linkOver(t, a, b, crust.UTP)
		f(t, internet, ha, hb, a, b)
	})
}

// talk sends count messages of random sizes each way at once, and checks that
// they come whole, in order and once. It returns how long that took.
func talk(t *testing.T, a, b *node, count, most int) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	size := func(i uint64) int { return int(rand.New(rand.NewPCG(i, 9)).Uint64() % uint64(most)) }
	var wg sync.WaitGroup
	for _, pair := range [][2]*node{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		wg.Go(func() {
			for i := range uint64(count) {
				if err := from.SendWait(ctx, to.ID(), filled(size(i), i), 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			next := uint64(0)
			for e := range to.Events(ctx) {
				if e.Type != crust.EventMessage || !bytes.Equal(e.Data, filled(size(next), next)) {
					t.Errorf("%v (%v) of %d bytes where message %d was due", e.Type, e.Err(), len(e.Data), next)
					return
				}
				if next++; next == uint64(count) {
					return
				}
			}
			t.Errorf("%d of %d messages came", next, count)
		})
	}
	wg.Wait()
	return time.Since(began)
}

// TestUDPBadLinks: peers connect, talk and part over links that lose up to a
// fifth of the datagrams, shuffle and double them, are as slow as a satellite,
// or lose everything above 1280 bytes without a word.
func TestUDPBadLinks(t *testing.T) {
	for _, c := range []struct {
		name string
		link simnet.Link
		most time.Duration // for 2.5 MB each way
	}{
		{"loss 1 %", simnet.Link{Latency: 10 * time.Millisecond, Loss: 0.01}, 3 * time.Second},
		{"loss 5 %", simnet.Link{Latency: 10 * time.Millisecond, Loss: 0.05}, 5 * time.Second},
		{"loss 10 %, round trip 300 ms", simnet.Link{Latency: 150 * time.Millisecond, Loss: 0.1}, 60 * time.Second},
		{"loss 20 %", simnet.Link{Latency: 20 * time.Millisecond, Loss: 0.2}, 20 * time.Second},
		{"round trip 300 ms", simnet.Link{Latency: 150 * time.Millisecond, Jitter: 10 * time.Millisecond}, 20 * time.Second},
		{"reordering and doubles", simnet.Link{Latency: 20 * time.Millisecond, Reorder: 0.2, Duplicate: 0.1}, 10 * time.Second},
		{"packets of 1280 bytes", simnet.Link{Latency: 10 * time.Millisecond, MTU: 1280}, 5 * time.Second},
		{"1 MB/s", simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 1 << 20, Queue: 64 << 10}, 10 * time.Second},
		{"all of it", simnet.Link{
			Latency: 150 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.2, Reorder: 0.1, Duplicate: 0.05,
			MTU: 1280, Bandwidth: 4 << 20,
		}, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			udpWorld(t, c.link, crust.Config{}, func(t *testing.T, _ *simnet.Net, ha, hb *simnet.Host, a, b *node) {
				took := talk(t, a, b, 250, 20_000)
				t.Logf("250 messages of 10 kB each way took %v", took.Round(time.Millisecond))
				if took > c.most {
					t.Errorf("it took %v, want %v at most", took, c.most)
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
		})
	}
}

// TestUDPConnectTimesOut: nobody there, somebody who is deaf, or a link that
// loses everything: the failure comes when it was asked for, and says so.
func TestUDPConnectTimesOut(t *testing.T) {
	for name, cfg := range map[string]crust.Config{
		"connect":   {NoListen: true, ConnectTimeout: 7 * time.Second, HandshakeTimeout: time.Minute},
		"handshake": {NoListen: true, HandshakeTimeout: 7 * time.Second},
	} {
		for where, ep := range map[string]string{"nobody": "utp://10.0.0.2:5", "no such host": "utp://10.0.0.9:5", "another network": "utp://10.0.0.2:7"} {
			t.Run(name+"/"+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					internet := simnet.New(1)
					ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
					internet.SetLink(ha, hb, simnet.Link{Latency: 30 * time.Millisecond})
					other := newNode(t, crust.On(hb, crust.Config{NetworkName: "other", Listen: []crust.Endpoint{endpointAt("utp://0.0.0.0:7")}}))
					a := newNode(t, crust.On(ha, cfg))
					began := time.Now()
					if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt(ep)}, 8); err != nil {
						t.Fatal(err)
					}
					e := a.next(crust.EventConnectFailed)
					if took := time.Since(began); e.Code() != crust.CodeTimeout || e.Token != 8 || took != 7*time.Second {
						t.Errorf("%v after %v", e.Err(), took)
					}
					if !strings.Contains(e.Err().Error(), "7s") {
						t.Errorf("%q does not say how long", e.Err())
					}
					a.Close()
					if n := ha.Sockets(); n != 0 {
						t.Errorf("%d sockets are left", n)
					}
					other.Close()
				})
			})
		}
	}
}

// natTimeout is how long routers remember who was sent a datagram (RFC 4787,
// section 4.3, asks for two minutes; half a minute is common).
const natTimeout = 30 * time.Second

// home is a network behind a router that forgets a mapping which nothing left
// through for natTimeout: from then on nothing comes in by it, and what leaves
// next gets another port.
type home struct {
	*simnet.Host
	address netip.Addr // of the router

	mu       sync.Mutex
	port     uint16 // of the latest mapping
	mappings int
}

// homeConn is a socket of a home.
type homeConn struct {
	netio.PacketConn
	home *home
	last time.Time // something left; guarded by home.mu
}

func (h *home) ListenPacket(ctx context.Context, addr netip.AddrPort) (netio.PacketConn, error) {
	c, err := h.Host.ListenPacket(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &homeConn{PacketConn: c, home: h}, nil
}

// fresh reports whether there is a mapping. home.mu is held.
func (c *homeConn) fresh() bool { return !c.last.IsZero() && time.Since(c.last) < natTimeout }

func (c *homeConn) WriteBatch(ps []netio.Packets) error {
	c.home.mu.Lock()
	if !c.fresh() {
		c.home.port++
		c.home.mappings++
		c.home.Host.Rebind(c.LocalAddr().Port(), netip.AddrPortFrom(c.home.address, 20_000+c.home.port))
	}
	c.last = time.Now()
	c.home.mu.Unlock()
	return c.PacketConn.WriteBatch(ps)
}

func (c *homeConn) ReadBatch(ps []netio.Packets) (int, error) {
	for {
		n, err := c.PacketConn.ReadBatch(ps)
		c.home.mu.Lock()
		fresh := c.fresh()
		c.home.mu.Unlock()
		if fresh || err != nil {
			return n, err
		}
	}
}

// TestUDPIdleBehindNAT: an hour of silence behind a router that forgets after
// half a minute. With the default heartbeat the mapping never ends; with one
// that is slower than the router, every heartbeat comes from another port and the
// session goes on all the same. In the end messages go both ways.
func TestUDPIdleBehindNAT(t *testing.T) {
	for name, c := range map[string]struct {
		heartbeat   time.Duration
		least, most int // mappings
	}{"kept": {0, 1, 1}, "lost each time": {50 * time.Second, 80, 116}} { // each 5/8 to 7/8 of the heartbeat
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
				router := &home{Host: internet.Host("192.168.1.2"), address: netip.MustParseAddr("203.0.113.1")}
				a := newNode(t, crust.On(router, crust.Config{NoListen: true, Heartbeat: c.heartbeat, LostAfter: 200 * time.Second}))
				b := newNode(t, crust.On(internet.Host("198.51.100.1"), over(crust.Config{Heartbeat: c.heartbeat, LostAfter: 200 * time.Second}, "0.0.0.0", "utp")))
				defer b.Close()
				defer a.Close()
				if err := a.ConnectEndpoint(contactOf(t, b, crust.UTP, "198.51.100.1"), 1); err != nil {
					t.Fatal(err)
				}
				a.next(crust.EventConnected)
				b.next(crust.EventConnected)
				time.Sleep(time.Hour)
				if a.EventsPending() || b.EventsPending() {
					t.Fatal("something happened in the silence")
				}
				router.mu.Lock()
				mappings := router.mappings
				router.mu.Unlock()
				if mappings < c.least || mappings > c.most {
					t.Errorf("the router made %d mappings in an hour, want %d to %d", mappings, c.least, c.most)
				}
				if st := a.Stats(); st.WireSentBytes > 60_000 {
					t.Errorf("an idle hour cost %d bytes", st.WireSentBytes)
				}
				talk(t, a, b, 20, 20_000)
			})
		})
	}
}

// TestUDPRebinding: the router forgets in the midst of traffic, each second:
// nothing is lost, doubled or late by more than a few round trips, and the same
// session goes on.
func TestUDPRebinding(t *testing.T) {
	const round = 40 * time.Millisecond
	udpWorld(t, simnet.Link{Latency: round / 2}, crust.Config{}, func(t *testing.T, internet *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		inside := a.Listeners()[0].Addr.Port()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		const count = 2000
		var wg sync.WaitGroup
		var stall [2]time.Duration
		for k, pair := range [][2]*node{{a, b}, {b, a}} {
			from, to := pair[0], pair[1]
			wg.Go(func() {
				for i := range uint64(count) {
					if err := from.SendWait(ctx, to.ID(), filled(1000, i), 1); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
			wg.Go(func() {
				last := time.Now()
				for i := range uint64(count) {
					e := to.next(crust.EventMessage)
					if !bytes.Equal(e.Data, filled(1000, i)) {
						t.Errorf("message %d is wrong", i)
						return
					}
					stall[k] = max(stall[k], time.Since(last))
					last = time.Now()
				}
			})
		}
		for i := range uint16(9) {
			time.Sleep(time.Second)
			visible := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i % 3)}), 30_000+i)
			ha.Rebind(inside, visible)
		}
		wg.Wait()
		t.Logf("the longest silence was %v from the peer that moved, %v to it", stall[0], stall[1])
		for _, s := range stall {
			if s > 5*round {
				t.Errorf("a rebinding stopped messages for %v", s)
			}
		}
		if len(a.Peers()) != 1 || len(b.Peers()) != 1 || a.Peers()[0].ReceivedMessages != count {
			t.Error("it is not the same session")
		}
	})
}

// TestUDPSilentPeerIsLost: over uTP, too, a link that says nothing is lost after
// LostAfter, and not much later, whatever the program sends meanwhile.
func TestUDPSilentPeerIsLost(t *testing.T) {
	udpWorld(t, simnet.Link{Latency: 10 * time.Millisecond}, crust.Config{Heartbeat: time.Second, LostAfter: 5 * time.Second, NoResume: true}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		time.Sleep(17 * time.Second)
		net.Cut(ha, hb)
		for range 4 {
			if err := a.Send(b.ID(), []byte("is anybody there"), 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		e, more := a.lostAfter(t)
		if took := 4*time.Second + more; took < 4*time.Second || took > 6*time.Second || e.Code() != crust.CodePeerSilent {
			t.Fatalf("lost after %v: %v", took, e.Err())
		}
		if e, _ := b.lostAfter(t); e.Code() != crust.CodePeerSilent {
			t.Fatal(e.Err())
		}
	})
}

// TestUDPSlowProgram: a program that takes no events for long stops its sender,
// and neither side takes the other for dead; memory stays within bounds.
func TestUDPSlowProgram(t *testing.T) {
	udpWorld(t, simnet.Link{Latency: 5 * time.Millisecond}, crust.Config{Heartbeat: time.Second, LostAfter: 4 * time.Second, EventQueue: 100_000}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		sent, refused := uint64(0), false
		for round := 0; !refused || round < 20; round++ {
			for a.Send(b.ID(), filled(10_000, sent), 1) == nil {
				sent++
			}
			refused = round > 0
			time.Sleep(time.Second)
		}
		const bound = 16 << 20 // both queues, both windows, and what is on the way
		if sent*10_000 > bound {
			t.Fatalf("%d bytes were taken that nobody reads", sent*10_000)
		}
		time.Sleep(10 * time.Minute)
		for i := range sent {
			if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(10_000, i)) {
				t.Fatalf("message %d is wrong", i)
			}
		}
		a.next(crust.EventWritable)
	})
}

// TestTCPIsPreferred: of a peer that listens over both transports TCP wins
// wherever it can; where it is refused uTP comes at once, where nothing answers
// after its head start.
func TestTCPIsPreferred(t *testing.T) {
	const round = 40 * time.Millisecond
	for _, c := range []struct {
		name        string
		change      func(net *simnet.Net, a, b *simnet.Host, nb *node)
		want        crust.Transport
		least, most time.Duration
	}{
		{"both", func(*simnet.Net, *simnet.Host, *simnet.Host, *node) {}, crust.TCP, 0, 5 * round},
		{"slow", func(net *simnet.Net, a, b *simnet.Host, _ *node) {
			net.SetLink(a, b, simnet.Link{Latency: 275 * time.Millisecond}) // uTP is there after 1,050 ms, TCP after 1,100
		}, crust.TCP, 0, 4 * 550 * time.Millisecond},
		{"refused", func(_ *simnet.Net, _, _ *simnet.Host, nb *node) {
			for _, ep := range nb.Listeners() {
				if ep.Transport == crust.TCP {
					if err := nb.StopListening(ep); err != nil {
						nb.t.Fatal(err)
					}
				}
			}
		}, crust.UTP, 0, 5 * round},
		{"blocked", func(net *simnet.Net, a, b *simnet.Host, _ *node) {
			net.SetLink(a, b, simnet.Link{Latency: round / 2, NoTCP: true})
		}, crust.UTP, 500 * time.Millisecond, 600*time.Millisecond + 5*round},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
				internet.SetLink(ha, hb, simnet.Link{Latency: round / 2})
				a := newNode(t, crust.On(ha, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
				b := newNode(t, crust.On(hb, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
				defer b.Close()
				defer a.Close()
				info := b.info()
				c.change(internet, ha, hb, b)
				if err := a.Connect(info, 3); err != nil {
					t.Fatal(err)
				}
				e := a.next(crust.EventConnected)
				t.Logf("connected by %v after %v", e.Endpoint().Transport, e.Took())
				if e.Endpoint().Transport != c.want || e.Took() < c.least || e.Took() > c.most {
					t.Errorf("connected by %v after %v, want %v within %v and %v", e.Endpoint(), e.Took(), c.want, c.least, c.most)
				}
				if e := b.next(crust.EventConnected); e.Endpoint().Transport != c.want {
					t.Errorf("the peer has %v", e.Endpoint())
				}
				time.Sleep(time.Minute) // the losers are gone without a trace
				if a.EventsPending() || b.EventsPending() || len(b.Peers()) != 1 {
					t.Error("the loser of the race shows")
				}
				if n := ha.Connections(); c.want == crust.UTP && n != 0 || n > 1 {
					t.Errorf("%d connections are left", n)
				}
				talk(t, a, b, 10, 20_000)
			})
		})
	}
}

// TestUDPNothingIsLeft: after services that connect, talk and close over uTP in
// every way over the kernel's network, no goroutine and no descriptor remains.
func TestUDPNothingIsLeft(t *testing.T) {
	rounds := func(n int) {
		for i := range n {
			a, b := newNode(t, over(crust.Config{}, "127.0.0.1", "utp")), newNode(t, over(crust.Config{}, "127.0.0.1", "utp"))
			linkOver(t, a, b, crust.UTP)
			for k := range uint64(50) {
				if err := a.Send(b.ID(), filled(1000, k), 1); err != nil {
					t.Fatal(err)
				}
			}
			if i%3 == 0 {
				if err := b.Disconnect(a.ID()); err != nil {
					t.Fatal(err)
				}
			}
			var wg sync.WaitGroup
			wg.Go(func() { a.Close() })
			if i%3 == 1 {
				wg.Wait()
			}
			wg.Go(func() { b.Close() })
			wg.Wait()
		}
	}
	rounds(1)
	descriptors := openDescriptors(t)
	rounds(15)
	eventually(t, "goroutines of the library are left", func() string { return ours() })
	eventually(t, "descriptors are left", func() string {
		if n := openDescriptors(t); n > descriptors {
			return fmt.Sprintf("%d instead of %d", n, descriptors)
		}
		return ""
	})
}

// TestUDPCloseAtOnce: who closes as soon as it is connected, before the other side knows,
// has nothing to deliver, and waits for nobody; nor does the other side, which closes too.
func TestUDPCloseAtOnce(t *testing.T) {
	for _, both := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
			internet.SetLink(ha, hb, simnet.Link{Latency: 20 * time.Millisecond})
			cfg := over(crust.Config{}, "0.0.0.0", "utp")
			a, b := newNode(t, crust.On(ha, cfg)), newNode(t, crust.On(hb, cfg))
			if err := a.Connect(b.info(), 1); err != nil {
				t.Fatal(err)
			}
			a.next(crust.EventConnected)
			began := time.Now()
			var closing sync.WaitGroup
			if closing.Go(func() { a.Close() }); both {
				closing.Go(func() { b.Close() })
			}
			closing.Wait()
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("closed after %v", took)
			}
			b.Close()
		})
	}
}
