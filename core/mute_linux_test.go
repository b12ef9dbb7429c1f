package crust_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/transport/udp"
)

// answered reports whether a connection from an address, which is banned, is answered, by
// a reset. It waits for an answer for d.
func answered(t *testing.T, at crust.Endpoint, from string, d time.Duration) bool {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: d}
	conn, err := dialer.Dial("tcp", at.Addr.String())
	switch e, ok := errors.AsType[net.Error](err); {
	case ok && e.Timeout():
		return false
	case errors.Is(err, syscall.ECONNRESET):
		return true
	case err != nil:
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck // it is a socket
	if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who is banned is let in: %v", err)
	}
	return true
}

// muted comes until there is no answer.
func muted(t *testing.T, at crust.Endpoint, from string) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); answered(t, at, from, 300*time.Millisecond); {
		if time.Now().After(until) {
			t.Fatalf("%s is answered for ever", from)
		}
	}
}

// connects reports whether a peer at an address is connected.
func connects(t *testing.T, at crust.Endpoint, addr string, d time.Duration) bool {
	t.Helper()
	p := newNode(t, crust.On(from{netio.System, netip.MustParseAddr(addr)}, crust.Config{NoListen: true, ConnectTimeout: d}))
	defer p.Close()
	if err := p.ConnectEndpoint(crust.Contact{Endpoint: at}, 1); err != nil {
		t.Fatal(err)
	}
	return p.next(crust.EventConnected, crust.EventConnectFailed).Type == crust.EventConnected
}

// TestBannedAreNotHeard: who is banned by its address is turned away, and when it comes
// again and again gets no answer at all, also at a listener that is new; others come in. It
// is let in as soon as the ban is lifted, or over.
func TestBannedAreNotHeard(t *testing.T) {
	n := newNode(t, crust.Config{})
	defer n.Close()
	at := n.Listeners()[0]
	n.ban(time.Hour, "127.7.0.0/24", "127.7.0.9")
	for range 3 {
		if !answered(t, at, "127.7.0.1", 20*time.Second) {
			t.Fatal("who is banned is not told so")
		}
	}
	muted(t, at, "127.7.0.1")
	again, err := n.Listen(endpointAt("tcp://127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range []crust.Endpoint{at, again} {
		if answered(t, one, "127.7.0.200", 300*time.Millisecond) {
			t.Errorf("%v answers another one of the prefix", one)
		}
		if !connects(t, one, "127.7.1.1", 15*time.Second) {
			t.Errorf("%v keeps out who is not banned", one)
		}
	}
	n.unban("127.7.0.0/24")
	for _, one := range []crust.Endpoint{at, again} {
		if !connects(t, one, "127.7.0.1", 15*time.Second) {
			t.Errorf("%v keeps out whose ban is lifted", one)
		}
		if !answered(t, one, "127.7.0.9", 20*time.Second) {
			t.Errorf("%v does not answer whom the other entry names", one)
		}
	}
	n.ban(time.Hour, "127.7.0.0/24")
	muted(t, at, "127.7.0.1")
	n.ban(100*time.Millisecond, "127.7.0.0/24")
	for until := time.Now().Add(15 * time.Second); !connects(t, at, "127.7.0.1", time.Second); {
		if time.Now().After(until) {
			t.Fatal("the ban does not end")
		}
	}
}

// tallying counts what is read from an address, and from others.
type tallying struct {
	netio.Network
	whom   netip.Addr
	of     *atomic.Uint64
	others *atomic.Uint64
}

type tallyingConn struct {
	*udp.Conn
	h tallying
}

// ListenPacket implements netio.Network.
func (h tallying) ListenPacket(ctx context.Context, addr netip.AddrPort) (netio.PacketConn, error) {
	c, err := udp.Listen(ctx, addr)
	return tallyingConn{c, h}, err
}

func (c tallyingConn) ReadBatch(ps []netio.Packets) (int, error) {
	n, err := c.Conn.ReadBatch(ps)
	for i := range ps[:n] {
		if ps[i].Addr.Addr() == c.h.whom {
			c.h.of.Add(1)
		} else {
			c.h.others.Add(1)
		}
	}
	return n, err
}

// TestBannedDatagramsAreNotHeard: the same of datagrams, which are not read any more.
func TestBannedDatagramsAreNotHeard(t *testing.T) {
	h := tallying{netio.System, netip.MustParseAddr("127.7.0.1"), new(atomic.Uint64), new(atomic.Uint64)}
	n := newNode(t, crust.On(h, crust.Config{Listen: []crust.Endpoint{endpointAt("utp://127.0.0.1:0")}}))
	defer n.Close()
	at := n.Listeners()[0]
	n.ban(time.Hour, "127.7.0.1")
	var socks []net.Conn
	for _, from := range []net.IP{net.IPv4(127, 7, 0, 1), net.IPv4(127, 7, 0, 2)} {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: from}, net.UDPAddrFromAddrPort(at.Addr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		socks = append(socks, c)
	}
	patience := time.Now().Add(20 * time.Second)
	// heard reports whether what is sent from the address is read: what others send after
	// it is read after it.
	heard := func() bool {
		of, others := h.of.Load(), h.others.Load()
		for _, c := range socks {
			if _, err := c.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
		for h.others.Load() == others {
			if time.Now().After(patience) {
				t.Fatal("nothing is read of others")
			}
			<-time.After(time.Millisecond)
		}
		return h.of.Load() > of
	}
	if !heard() {
		t.Error("not heard from the beginning")
	}
	for heard() {
		if time.Now().After(patience) {
			t.Fatal("who is banned is heard for ever")
		}
	}
	n.unban("127.7.0.1")
	if !heard() {
		t.Error("the ban is lifted, and it is not heard")
	}
}
