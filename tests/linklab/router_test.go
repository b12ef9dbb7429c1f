//go:build linux

package linklab_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/linklab"
	"github.com/libcrust/libcrust/tests/natsim"
)

// town is two hosts behind one router, which is behind another, a host behind a
// firewall, and two public ones, 10 ms and 5 routers away.
func town(t *testing.T, home, carrier string) *linklab.Lab {
	t.Helper()
	far := linklab.Shape{Delay: 5 * time.Millisecond}
	lab, err := linklab.New(linklab.Config{
		Seed: 3, Hops: 5,
		Hosts: []linklab.HostConfig{
			{Name: "a", Behind: "home"}, {Name: "neighbour", Behind: "home"}, {Name: "walled", Behind: "wall"},
			{Name: "one", Up: far, Down: far}, {Name: "other", Up: far, Down: far},
		},
		Routers: []linklab.RouterConfig{
			{Name: "carrier", NAT: natsim.MustParse(carrier), Up: far, Down: far},
			{Name: "home", NAT: natsim.MustParse(home), Behind: "carrier"},
			{Name: "wall", NAT: natsim.MustParse("firewall strangers=refuse"), Up: far, Down: far},
		},
	})
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	return lab
}

func TestRoutersInARow(t *testing.T) {
	lab := town(t, "home", "sequential")
	a, one, other := udp(t, lab.Host("a")), udp(t, lab.Host("one")), udp(t, lab.Host("other"))
	first := source(t, a, one)
	second := source(t, a, other)
	if first.Addr() != lab.Router("carrier").Public() || lab.Host("a").Public() != first.Addr() || second.Port() != first.Port()+1 {
		t.Errorf("behind a home router and a sequential carrier it comes from %v, then %v", first, second)
	}
	if !answered(t, one, first, a) || answered(t, other, first, a) {
		t.Error("the carrier lets the wrong one in")
	}
	// Neighbours see each other directly.
	neighbour := udp(t, lab.Host("neighbour"))
	if from := source(t, neighbour, udp(t, lab.Host("a"))); from != addrOf(neighbour) || from.Addr() == lab.Host("a").Addr() {
		t.Errorf("the neighbour comes from %v", from)
	}
	lab.Router("carrier").Reboot(true)
	if again := source(t, a, one); again.Addr() == first.Addr() || again.Addr() != lab.Router("carrier").Public() {
		t.Errorf("after a reboot it comes from %v", again)
	}
	if !lab.Router("home").Forward(natsim.UDP, 7, addrOf(a)) || lab.Router("home").Forward(natsim.UDP, 7, addrOf(neighbour)) {
		t.Error("a port is forwarded twice, or not at all")
	}
	if from := source(t, a, other); from.Addr() != lab.Router("carrier").Public() {
		t.Errorf("a forwarded port comes from %v", from)
	}
}

func TestHairpin(t *testing.T) {
	lab := town(t, "full-cone hairpin=on", "full-cone")
	a, neighbour, one := udp(t, lab.Host("a")), udp(t, lab.Host("neighbour")), udp(t, lab.Host("one"))
	source(t, a, one)
	// At the home router itself: what is mapped there shows at its external address.
	lab.Router("home").Forward(natsim.UDP, 4000, addrOf(neighbour))
	if _, err := a.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(lab.Router("home").Public(), 4000)); err != nil {
		t.Fatal(err)
	}
	if err := neighbour.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, from, err := neighbour.ReadFromUDPAddrPort(make([]byte, 10))
	if err != nil || from.Addr() != lab.Router("home").Public() {
		t.Errorf("by the hairpin it comes from %v, %v", from, err)
	}
}

func TestFirewall(t *testing.T) {
	lab := town(t, "home", "full-cone")
	walled, one, other := lab.Host("walled"), lab.Host("one"), lab.Host("other")
	for _, six := range []bool{false, true} {
		addr := linklabAddr(walled, six)
		inside, near, far := udpAt(t, walled, netip.AddrPortFrom(addr, 0)), udpAt(t, one, netip.AddrPortFrom(linklabAddr(one, six), 0)), udpAt(t, other, netip.AddrPortFrom(linklabAddr(other, six), 0))
		if from := source(t, inside, near); from != addrOf(inside) {
			t.Errorf("it comes from %v", from)
		}
		if !answered(t, near, addrOf(inside), inside) || answered(t, far, addrOf(inside), inside) {
			t.Error("the firewall lets the wrong one in")
		}
		// It refuses strangers aloud, by TCP and UDP.
		start := time.Now()
		var err error
		one.Do(func() { _, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, 80).String(), 5*time.Second) })
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) < 20*time.Millisecond {
			t.Errorf("a SYN is answered by %v after %v", err, time.Since(start))
		}
		var conn net.Conn
		one.Do(func() { conn, err = net.Dial("udp", netip.AddrPortFrom(addr, 80).String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte("hello"))
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a datagram is answered by %v", err)
		}
	}
}

func linklabAddr(h *linklab.Host, six bool) netip.Addr {
	if six {
		return h.Addr6()
	}
	return h.Addr()
}

func TestTTL(t *testing.T) {
	lab := town(t, "full-cone", "full-cone")
	a, one := udp(t, lab.Host("a")), udp(t, lab.Host("one"))
	for ttl, want := range map[int]bool{2: false, 7: false, 8: true} { // home, carrier and 5 others
		raw, err := a.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) }), err); err != nil {
			t.Fatal(err)
		}
		if got := answered(t, a, addrOf(one), one); got != want {
			t.Errorf("with a TTL of %d a datagram arrives: %v", ttl, got)
		}
	}
}

// TestSimultaneousOpenOfKernels has two kernels dial each other through NATs.
func TestSimultaneousOpenOfKernels(t *testing.T) {
	home := natsim.MustParse("home")
	way := linklab.Shape{Delay: 10 * time.Millisecond}
	lab, err := linklab.New(linklab.Config{Hosts: []linklab.HostConfig{{Name: "a", NAT: &home, Up: way, Down: way}, {Name: "b", NAT: &home}}})
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	done := make(chan error)
	shoot := func(from, to *linklab.Host) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.Addr().AsSlice(), Port: 4000}, Timeout: 10 * time.Second}
		from.Do(func() {
			conn, err := dialer.Dial("tcp4", netip.AddrPortFrom(to.Public(), 4000).String())
			if err == nil {
				defer conn.Close()
				_, err = conn.Write([]byte("hello"))
				buffer := make([]byte, 5)
				if err == nil {
					_, err = conn.Read(buffer)
				}
			}
			done <- err
		})
	}
	go shoot(lab.Host("a"), lab.Host("b"))
	go shoot(lab.Host("b"), lab.Host("a"))
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
