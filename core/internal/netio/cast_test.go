package netio

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestSegmentOf: the broadcast address of every kind of network, and none where there is
// none.
func TestSegmentOf(t *testing.T) {
	all := net.FlagUp | net.FlagBroadcast | net.FlagMulticast
	for _, c := range []struct {
		addr         string
		flags        net.Flags
		prefix, want string
	}{
		{"192.168.1.7/24", all, "192.168.1.0/24", "192.168.1.255"},
		{"10.1.2.3/8", all, "10.0.0.0/8", "10.255.255.255"},
		{"10.1.2.3/22", all, "10.1.0.0/22", "10.1.3.255"},
		{"10.1.2.3/30", all, "10.1.2.0/30", "10.1.2.3"},
		{"10.1.2.3/31", all, "10.1.2.2/31", ""},
		{"10.1.2.3/32", all, "10.1.2.3/32", ""},
		{"10.1.2.3/24", net.FlagUp | net.FlagPointToPoint, "10.1.2.0/24", ""},
		{"127.0.0.1/8", net.FlagUp | net.FlagLoopback, "127.0.0.0/8", "127.255.255.255"},
		{"::1/128", net.FlagUp | net.FlagLoopback, "::1/128", ""},
		{"2001:db8::7/64", all, "2001:db8::/64", ""},
		{"fe80::7/64", all, "fe80::/64", "ff12::8000:156c%eth0"},
		{"fe80::7/64", net.FlagUp, "fe80::/64", ""},
	} {
		ip, of, err := net.ParseCIDR(c.addr)
		if err != nil {
			t.Fatal(err)
		}
		of.IP = ip // package net gives the address of IPv4 in 16 bytes
		got, ok := segmentOf(net.Interface{Index: 7, Name: "eth0", Flags: c.flags}, of)
		want := Segment{Interface: 7, Addr: netip.MustParsePrefix(c.addr).Addr(), Prefix: netip.MustParsePrefix(c.prefix)}
		if want.Addr.IsLinkLocalUnicast() && want.Addr.Is6() {
			want.Addr = want.Addr.WithZone("eth0")
		}
		if c.want != "" {
			want.All = netip.MustParseAddr(c.want)
		}
		if !ok || got != want {
			t.Errorf("%s: %+v, want %+v", c.addr, got, want)
		}
	}
	if _, ok := segmentOf(net.Interface{}, &net.IPNet{}); ok {
		t.Error("there is a network without an address")
	}
}

// TestSegments: this machine's loopback network is the first one.
func TestSegments(t *testing.T) {
	all, err := System.(Caster).Segments()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 || !all[0].Addr.IsLoopback() {
		t.Errorf("the first of %v is not the loopback network", all)
	}
	for i, s := range all {
		if slices.Contains(all[:i], s) {
			t.Errorf("%v is there twice", s)
		}
	}
}

// TestCastOnLoopback: all who share a port get what is sent to all on the loopback
// network, and nobody else is let in.
func TestCastOnLoopback(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("whether other systems broadcast on the loopback network has not been tried")
	}
	caster, ctx := System.(Caster), context.Background()
	var ears []CastConn
	port := uint16(0)
	for range 3 {
		ear, err := caster.ListenShared(ctx, false, port)
		if err != nil {
			t.Fatal(err)
		}
		defer ear.Close()
		port = ear.LocalAddr().Port()
		ears = append(ears, ear)
	}
	if _, err := System.ListenPacket(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), port)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("who does not share has got the port: %v", err)
	}
	loopback := Segment{Addr: netip.MustParseAddr("127.0.0.1"), All: netip.MustParseAddr("127.255.255.255")}
	mouth, err := caster.ListenCast(ctx, loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer mouth.Close()
	if err := mouth.WriteTo([]byte("hello"), netip.AddrPortFrom(loopback.All, port)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	for _, ear := range ears {
		ear.(castConn).socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, from, err := ear.ReadFrom(b)
		if err != nil || string(b[:n]) != "hello" || from != mouth.LocalAddr() {
			t.Fatalf("%q from %v, %v", b[:n], from, err)
		}
		if err := ear.Join(loopback); err != nil {
			t.Errorf("join: %v", err)
		}
	}
	if err := ears[0].WriteTo([]byte("answer"), mouth.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	mouth.(castConn).socket.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, _, err := mouth.ReadFrom(b); err != nil || string(b[:n]) != "answer" {
		t.Errorf("%q, %v", b[:n], err)
	}
	for range 2 {
		if err := mouth.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, _, err := mouth.ReadFrom(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from what is closed: %v", err)
	}
	if err := mouth.WriteTo(b, netip.AddrPortFrom(loopback.All, port)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("written to what is closed: %v", err)
	}
}
