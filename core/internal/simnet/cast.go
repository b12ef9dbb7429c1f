package simnet

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/libcrust/libcrust/core/internal/netio"
)

var _ netio.Caster = (*Host)(nil)

// bits4, bits6 say which machines share a segment: those behind the same router, or
// none, whose addresses begin with the same bits.
const bits4, bits6 = 24, 64

// Segments implements netio.Caster. Addresses of IPv6 have a group without a zone.
func (h *Host) Segments() ([]netio.Segment, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	list := []netio.Segment{h.segment(1, localhost4), h.segment(1, netip.IPv6Loopback())}
	for i, a := range h.addrs {
		if !a.IsLoopback() {
			list = append(list, h.segment(2+i, a))
		}
	}
	return list, nil
}

// segment returns the segment of an address of the host.
func (h *Host) segment(number int, a netip.Addr) netio.Segment {
	bits := bits4
	switch {
	case a == localhost4:
		bits = 8
	case a.IsLoopback():
		bits = 128
	case a.Is6():
		bits = bits6
	}
	prefix, _ := a.Prefix(bits)
	s := netio.Segment{Interface: number, Addr: a, Prefix: prefix}
	if a.Is6() {
		if !a.IsLoopback() {
			s.All = netio.CastGroup
		}
		return s
	}
	all := prefix.Addr().As4()
	for n := bits / 8; n < len(all); n++ {
		all[n] = 255
	}
	s.All = netip.AddrFrom4(all)
	return s
}

// ListenShared implements netio.Caster.
func (h *Host) ListenShared(ctx context.Context, six bool, port uint16) (netio.CastConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	addr := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	if six {
		addr = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	err := ctx.Err()
	for other := range h.sockets {
		if other.Port() == port && (covers(other.Addr(), addr.Addr()) || covers(addr.Addr(), other.Addr())) {
			err = syscall.EADDRINUSE
		}
	}
	if err != nil {
		return nil, opError("listen", "udp", netip.AddrPort{}, addr, err)
	}
	c := &packetConn{host: h, addr: addr, shared: true, changed: sync.NewCond(&h.net.mu)}
	h.ears = append(h.ears, c)
	return &castConn{packetConn: c}, nil
}

// ListenCast implements netio.Caster.
func (h *Host) ListenCast(ctx context.Context, s netio.Segment) (netio.CastConn, error) {
	c, err := h.ListenPacket(ctx, netip.AddrPortFrom(s.Addr, 0))
	if err != nil {
		return nil, err
	}
	return &castConn{c.(*packetConn), s}, nil
}

// castConn is a socket of which each can reach all.
type castConn struct {
	*packetConn
	segment netio.Segment // where it sends to all; zero for a shared one
}

// Join implements netio.CastConn: every shared socket hears all.
func (c *castConn) Join(netio.Segment) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return opError("join", "udp", c.addr, netip.AddrPort{}, net.ErrClosed)
	}
	return nil
}

// ReadFrom implements netio.CastConn.
func (c *castConn) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	for len(c.received) == 0 {
		if c.closed {
			return 0, netip.AddrPort{}, opError("read", "udp", c.addr, netip.AddrPort{}, net.ErrClosed)
		}
		c.changed.Wait()
	}
	d := c.take()
	return copy(b, d.data), d.from, nil
}

// WriteTo implements netio.CastConn.
func (c *castConn) WriteTo(b []byte, to netip.AddrPort) error {
	if !c.segment.All.IsValid() || to.Addr() != c.segment.All {
		return c.WriteBatch([]netio.Packets{{Buf: b, N: len(b), Segment: len(b), Addr: to}})
	}
	d := datagram{from: c.addr, to: to, data: slices.Clone(b), ttl: defaultTTL, cast: true}
	see, err := c.castAll(d)
	if see != nil {
		see(d.from, d.to, d.data)
	}
	return err
}

// castAll sends a datagram to all of the segment, and returns who watches.
func (c *castConn) castAll(d datagram) (see func(from, to netip.AddrPort, data []byte), err error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return nil, opError("write", "udp", c.addr, d.to, net.ErrClosed)
	}
	c.host.cast(c.segment, d)
	return n.watch, nil
}

// cast sends a datagram to all of a segment, the host itself included. Called with the
// lock held.
func (h *Host) cast(s netio.Segment, d datagram) {
	all := []*Host{h}
	if !s.Addr.IsLoopback() {
		for a, other := range h.net.space(h.router) {
			if s.Prefix.Contains(a) && other.gate == nil && !slices.Contains(all, other) {
				all = append(all, other)
			}
		}
	}
	slices.SortFunc(all, func(a, b *Host) int { return cmp.Compare(a.number, b.number) })
	for _, other := range all {
		h.net.link(h, other).air(h, other).push(d)
	}
}

// overhear gives a datagram that is for all to the shared sockets. Called with the lock
// held.
func (h *Host) overhear(d datagram) {
	for _, c := range h.ears {
		if c.addr.Port() == d.to.Port() && c.addr.Addr().Is4() == d.to.Addr().Is4() {
			c.arrive(d)
		}
	}
}
