package udpmux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// node is one end: a Mux, who it is, and the associations that others began.
type node struct {
	*Mux
	t        testing.TB
	id       identity.PeerID
	lives    sync.WaitGroup
	accepted chan *end
	strays   chan []byte
}

// end collects what comes to one end of an association.
type end struct {
	*Assoc
	mu        sync.Mutex
	packets   [][]byte
	datagrams [][]byte
	why       error
	closed    chan struct{}
	ready     chan struct{}
	news      chan struct{}
}

func collect(a *Assoc) *end {
	e := &end{Assoc: a, closed: make(chan struct{}), ready: make(chan struct{}, 1), news: make(chan struct{}, 1)}
	a.SetHandlers(Handlers{
		Packet: func(p []byte) {
			e.mu.Lock()
			e.packets = append(e.packets, append([]byte(nil), p...))
			e.mu.Unlock()
			pulse(e.news)
		},
		Datagram: func(p []byte) {
			e.mu.Lock()
			e.datagrams = append(e.datagrams, append([]byte(nil), p...))
			e.mu.Unlock()
			pulse(e.news)
		},
		Ready:  func() { pulse(e.ready) },
		Closed: func(why error) { e.why = why; close(e.closed) },
	})
	return e
}

func pulse(c chan struct{}) { put(c, struct{}{}) }

// got returns how many packets and datagrams have come.
func (e *end) got() (packets, datagrams int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.packets), len(e.datagrams)
}

// within waits until cond holds, looking whenever something comes, and fails
// the test after d.
func (e *end) within(t testing.TB, d time.Duration, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(d)
	defer limit.Stop()
	for !cond() {
		select {
		case <-e.news:
		case <-limit.C:
			p, g := e.got()
			t.Fatalf("not within %v: %s; %d packets, %d datagrams, %+v", d, what, p, g, e.Stats())
		}
	}
}

// ended waits for Closed.
func (e *end) ended(t testing.TB, d time.Duration) error {
	t.Helper()
	limit := time.NewTimer(d)
	defer limit.Stop()
	select {
	case <-e.closed:
		return e.why
	case <-limit.C:
		t.Fatalf("not closed within %v", d)
		return nil
	}
}

// send sends count packets of size bytes, each with its number, waiting for room.
func (e *end) send(t testing.TB, first, count, size int) {
	t.Helper()
	p := make([]byte, size)
	for i := first; i < first+count; i++ {
		stamp(p, i)
		for !e.SendPacket(p) {
			select {
			case <-e.ready:
			case <-e.closed:
				t.Errorf("closed while sending: %v", e.why)
				return
			}
		}
	}
}

// stamp fills a packet so that any damage shows.
func stamp(p []byte, i int) {
	binary.BigEndian.PutUint32(p, uint32(i))
	for k := 12; k < len(p); k++ {
		p[k] = byte(i + k*7)
	}
	h := fnv.New64a()
	h.Write(p[:4])
	h.Write(p[12:])
	binary.BigEndian.PutUint64(p[4:], h.Sum64())
}

// check looks whether packets first to first+count have come, whole and in order.
func (e *end) check(t testing.TB, first, count int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.packets) != first+count {
		t.Fatalf("%d packets instead of %d", len(e.packets), first+count)
	}
	for i, p := range e.packets[first:] {
		h := fnv.New64a()
		h.Write(p[:4])
		h.Write(p[12:])
		if int(binary.BigEndian.Uint32(p)) != first+i || binary.BigEndian.Uint64(p[4:]) != h.Sum64() {
			t.Fatalf("packet %d of %d bytes is damaged or out of order", first+i, len(p))
		}
	}
}

// security is a service's handshake.
func security(t testing.TB, network string) *secure.Config {
	t.Helper()
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return &secure.Config{Key: k, Network: secure.NewNetwork(network), Hello: wire.Hello{Instance: 7, Ciphers: 3, LostAfter: 1000}}
}

// newNode makes a node at an address of a network. change may change its Config.
func newNode(t testing.TB, network netio.Network, addr string, change func(*Config)) *node {
	t.Helper()
	conn, err := network.ListenPacket(context.Background(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	return newNodeOn(t, conn, change)
}

func newNodeOn(t testing.TB, conn netio.PacketConn, change func(*Config)) *node {
	t.Helper()
	n := &node{t: t, accepted: make(chan *end, 256), strays: make(chan []byte, 16)}
	cfg := Config{
		Secure: security(t, "n"),
		Go:     func(f func()) { n.lives.Go(f) },
		Accept: func(a *Assoc) { n.accepted <- collect(a) },
		Stray:  func(_ netip.AddrPort, d []byte) { put(n.strays, append([]byte(nil), d...)) },
	}
	if change != nil {
		change(&cfg)
	}
	n.id = cfg.Secure.Key.ID()
	m, err := New(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Mux = m
	t.Cleanup(n.stop)
	return n
}

func (n *node) stop() {
	n.Close(wire.ReasonStopping)
	n.lives.Wait()
}

// addr returns where a node at a certain address listens.
func (n *node) at(t testing.TB, host string) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.MustParseAddr(host), n.LocalAddr().Port())
}

// join dials and returns both ends.
func (n *node) join(t testing.TB, peer *node, addr netip.AddrPort) (x, y *end) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a, err := n.Dial(ctx, addr, peer.id)
	if err != nil {
		t.Fatal(err)
	}
	x = collect(a)
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	select {
	case y = <-peer.accepted:
	case <-ctx.Done():
		t.Fatal("not accepted")
	}
	return x, y
}

// world is two hosts with a link between them.
type world struct {
	net  *simnet.Net
	a, b *simnet.Host
	x, y *node
	to   netip.AddrPort // y's
}

const (
	hostA, hostB, hostC = "192.0.2.1", "192.0.2.2", "192.0.2.3"
)

func newWorld(t testing.TB, seed uint64, link simnet.Link, change func(*Config)) *world {
	t.Helper()
	w := &world{net: simnet.New(seed)}
	w.a, w.b = w.net.Host(hostA, "2001:db8::1"), w.net.Host(hostB, "2001:db8::2")
	w.net.SetLink(w.a, w.b, link)
	w.x, w.y = newNode(t, w.a, "[::]:0", change), newNode(t, w.b, "[::]:0", change)
	w.to = w.y.at(t, hostB)
	return w
}

func TestPair(t *testing.T) {
	for _, host := range []string{hostB, "2001:db8::2"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
			x, y := w.x.join(t, w.y, w.y.at(t, host))
			if x.Remote().Peer != w.y.id || y.Remote().Peer != w.x.id || !x.Initiator() || y.Initiator() || x.Cipher() != y.Cipher() {
				t.Fatal("the ends disagree")
			}
			if x.RemoteAddr() != w.y.at(t, host) || x.LocalAddr() != w.x.LocalAddr() {
				t.Fatalf("from %v to %v", x.LocalAddr(), x.RemoteAddr())
			}
			x.send(t, 0, 100, 60000)
			y.send(t, 0, 100, 100)
			if err := x.SendDatagram([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			y.within(t, 20*time.Second, "packets", func() bool { p, d := y.got(); return p == 100 && d == 1 })
			x.within(t, 20*time.Second, "packets", func() bool { p, _ := x.got(); return p == 100 })
			x.check(t, 0, 100)
			y.check(t, 0, 100)
			if string(y.datagrams[0]) != "hello" {
				t.Fatalf("%q", y.datagrams)
			}
			x.Assoc.Close(wire.ReasonDisconnect)
			start := time.Now()
			var closed *CloseError
			if err := y.ended(t, time.Second); !errors.As(err, &closed) || closed.Reason != wire.ReasonDisconnect || time.Since(start) > 20*time.Millisecond {
				t.Fatalf("%v after %v", err, time.Since(start))
			}
			if y.SendPacket([]byte("x")) || y.SendDatagram([]byte("x")) == nil || x.SendPacket([]byte("x")) || x.Commit() == nil {
				t.Fatal("an association that is over goes on")
			}
			time.Sleep(2 * time.Second)
			if s := fmt.Sprint(w.x.Stats().Associations, w.y.Stats().Associations); s != "0 0" {
				t.Fatalf("associations left: %s", s)
			}
			select {
			case <-x.closed:
				t.Fatal("Closed was called at the end that closed")
			default:
			}
			if reasonProtocol != wire.ReasonProtocol || sealHeader != wire.HeaderBlock {
				t.Fatal("a constant is not what it says")
			}
		})
	}
}
