package netio

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

func TestSystemListensAndDials(t *testing.T) {
	l, err := System.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := System.Dial(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if accepted.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("accepted %v, dialled from %v", accepted.RemoteAddr(), c.LocalAddr())
	}
}

func TestSystemCarriesDatagrams(t *testing.T) {
	var ends [2]PacketConn
	for i := range ends {
		var err error
		if ends[i], err = System.ListenPacket(t.Context(), netip.MustParseAddrPort("127.0.0.1:0")); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
	}
	sent := Packets{Buf: []byte("aabbc"), N: 5, Segment: 2, Addr: ends[1].LocalAddr()}
	if err := ends[0].WriteBatch([]Packets{sent}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 3 {
		p := []Packets{{Buf: make([]byte, ReadSize)}}
		n, err := ends[1].ReadBatch(p)
		if err != nil || n != 1 || p[0].Addr != ends[0].LocalAddr() {
			t.Fatal(n, err, p[0].Addr)
		}
		for d := range slices.Chunk(p[0].Buf[:p[0].N], p[0].Segment) {
			got = append(got, string(d))
		}
	}
	if !slices.Equal(got, []string{"aa", "bb", "c"}) {
		t.Errorf("received %q", got)
	}
}

func TestSystemErrorsComeWithoutAValue(t *testing.T) {
	l, err := System.Listen(t.Context(), netip.MustParseAddrPort("192.0.2.1:0"))
	if l != nil || !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("Listen = %v, %v", l, err)
	}
	p, err := System.ListenPacket(t.Context(), netip.MustParseAddrPort("192.0.2.1:0"))
	if p != nil || !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("ListenPacket = %v, %v", p, err)
	}
	c, err := System.Dial(t.Context(), netip.AddrPort{}, netip.AddrPort{})
	if c != nil || err == nil {
		t.Errorf("Dial = %v, %v", c, err)
	}
}

func TestSystemAddrs(t *testing.T) {
	addrs, err := System.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(addrs, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("%v lacks 127.0.0.1", addrs)
	}
	again, err := System.Addrs()
	if err != nil || !slices.Equal(addrs, again) {
		t.Errorf("first %v, then %v, %v", addrs, again, err)
	}
	for i, a := range addrs {
		if a.Is4In6() || a.Zone() != "" || scope(a) == endpoint.Unusable {
			t.Errorf("%v should not be listed", a)
		}
		if i > 0 && scope(addrs[i-1]) < scope(a) {
			t.Errorf("%v comes after %v", a, addrs[i-1])
		}
	}
}

func TestUsable(t *testing.T) {
	found := parse("127.0.0.1", "::1", "fe80::1", "fe80::1%eth0", "192.168.1.5", "::ffff:203.0.113.5", "2001:db8::5",
		"100.64.0.1", "fd00::1", "169.254.3.4", "203.0.113.5", "224.0.0.1", "0.0.0.0", "10.0.0.1")
	found = append(found, netip.Addr{})
	want := parse("203.0.113.5", "2001:db8::5", "100.64.0.1", "10.0.0.1", "192.168.1.5", "fd00::1", "169.254.3.4", "127.0.0.1", "::1")
	if got := Usable(found); !slices.Equal(got, want) {
		t.Errorf("Usable = %v\nwant     %v", got, want)
	}
	if got := Usable(nil); len(got) != 0 {
		t.Errorf("Usable(nil) = %v", got)
	}
}

func parse(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}
