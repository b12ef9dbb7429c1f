package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

var _ Caster = system{}

// Segments implements Caster.
func (system) Segments() ([]Segment, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	var loopback, others []Segment
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has gone since
		}
		for _, addr := range addrs {
			prefix, ok := addr.(*net.IPNet)
			if !ok {
				continue
			}
			s, ok := segmentOf(i, prefix)
			switch {
			case !ok:
			case s.Addr.IsLoopback():
				loopback = append(loopback, s)
			default:
				others = append(others, s)
			}
		}
	}
	return append(loopback, others...), nil
}

// segmentOf returns the segment of an address of an interface.
func segmentOf(i net.Interface, of *net.IPNet) (Segment, bool) {
	a, ok := netip.AddrFromSlice(of.IP)
	if !ok {
		return Segment{}, false
	}
	a = a.Unmap()
	bits, size := of.Mask.Size()
	if a.Is4() && size == 128 {
		bits -= 96
	}
	prefix, err := a.Prefix(bits)
	if err != nil {
		return Segment{}, false
	}
	s := Segment{Interface: i.Index, Addr: a, Prefix: prefix}
	switch {
	case a.Is4() && bits < 31 && (a.IsLoopback() || i.Flags&net.FlagBroadcast != 0):
		all := prefix.Addr().As4()
		for n := range all {
			all[n] |= byte(0xff >> min(8, max(0, bits-8*n)))
		}
		s.All = netip.AddrFrom4(all)
	case a.Is6() && a.IsLinkLocalUnicast():
		s.Addr = a.WithZone(i.Name)
		if i.Flags&net.FlagMulticast != 0 {
			s.All = CastGroup.WithZone(i.Name)
		}
	}
	return s, true
}

// ListenShared implements Caster.
func (system) ListenShared(ctx context.Context, six bool, port uint16) (CastConn, error) {
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if six {
		at = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	return listenCast(ctx, at, net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = sharePort(fd) })
		return errors.Join(err, failed)
	}})
}

// ListenCast implements Caster. Package net allows every UDP socket to broadcast.
func (system) ListenCast(ctx context.Context, s Segment) (CastConn, error) {
	return listenCast(ctx, netip.AddrPortFrom(s.Addr, 0), net.ListenConfig{})
}

func listenCast(ctx context.Context, at netip.AddrPort, config net.ListenConfig) (CastConn, error) {
	network := "udp4"
	if at.Addr().Is6() {
		network = "udp6"
	}
	socket, err := config.ListenPacket(ctx, network, at.String())
	if err != nil {
		return nil, err
	}
	return castConn{socket.(*net.UDPConn)}, nil
}

// castConn is a CastConn of the kernel's.
type castConn struct{ socket *net.UDPConn }

// LocalAddr implements CastConn.
func (c castConn) LocalAddr() netip.AddrPort {
	a, _ := c.socket.LocalAddr().(*net.UDPAddr)
	return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
}

// Join implements CastConn.
func (c castConn) Join(s Segment) error {
	if !s.All.Is6() {
		return nil
	}
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = joinGroup(fd, s.All.WithZone(""), s.Interface) })
	if errors.Is(failed, syscall.EADDRINUSE) { // it has joined before
		failed = nil
	}
	return errors.Join(err, failed)
}

// ReadFrom implements CastConn. What an earlier datagram has met is no end.
func (c castConn) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	for failures := 0; ; failures++ {
		n, from, err := c.socket.ReadFromUDPAddrPort(b)
		if err == nil || errors.Is(err, net.ErrClosed) || failures >= mostFailures {
			return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
		}
	}
}

// mostFailures is after how many errors in a row nothing more is expected of a socket.
const mostFailures = 64

// WriteTo implements CastConn.
func (c castConn) WriteTo(b []byte, to netip.AddrPort) error {
	_, err := c.socket.WriteToUDPAddrPort(b, to)
	return err
}

// Close implements CastConn.
func (c castConn) Close() error {
	if err := c.socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
