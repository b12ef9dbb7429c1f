package udpmux

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestContacted: to whom a socket has sent is known, whatever it was.
func TestContacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		a, b := netip.MustParseAddr(hostA), netip.MustParseAddr(hostB)
		if w.x.Contacted(b) || w.y.Contacted(a) {
			t.Fatal("before anything was sent")
		}
		w.x.join(t, w.y, w.to)
		if !w.x.Contacted(b) || !w.y.Contacted(a) || !w.y.Contacted(netip.MustParseAddr("::ffff:"+hostA)) || w.x.Contacted(a) {
			t.Error("the ends of an association do not know each other")
		}
		stray, opener, never := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("192.0.2.9")
		if err := w.x.WriteTo([]byte("x"), netip.AddrPortFrom(stray, 7)); err != nil {
			t.Fatal(err)
		}
		if err := w.x.WriteTTL(3, []byte("x"), netip.AddrPortFrom(opener, 7)); err != nil {
			t.Fatal(err)
		}
		if !w.x.Contacted(stray) || !w.x.Contacted(opener) || w.x.Contacted(never) {
			t.Error("single datagrams are not remembered, or too many")
		}
	})
}

// TestContactsAreBounded: the newest are remembered, however many there are.
func TestContactsAreBounded(t *testing.T) {
	var c contacts
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	const many = 5 * contactGeneration
	for i := range many {
		c.note(at(i))
		c.note(at(0)) // again and again
	}
	if n := len(c.now) + len(c.old); n > 2*contactGeneration {
		t.Errorf("%d are remembered", n)
	}
	for i := many - contactGeneration; i < many; i++ {
		if !c.has(at(i)) {
			t.Fatalf("the one %d before the last is forgotten", many-i)
		}
	}
	if !c.has(at(0)) || c.has(at(1)) {
		t.Error("an old one is remembered, or one that is sent to is not")
	}
}
