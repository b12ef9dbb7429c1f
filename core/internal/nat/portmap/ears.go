package portmap

import (
	"errors"
	"net"
	"net/netip"
)

// listen hears announcements of the router: of PCP (RFC 6887, section 14.1), of
// NAT-PMP (RFC 6886, section 3.2.1) and of SSDP. It returns what ends that. Where a
// port cannot be listened at there is nothing to hear, which costs time only.
func (s *site) listen() (stop func()) {
	if s.c.cfg.deaf {
		return func() {}
	}
	groups := []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 1}), announcePort),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort),
	}
	if s.iface.Prefix.Addr().Is6() {
		groups = []netip.AddrPort{
			netip.AddrPortFrom(netip.IPv6LinkLocalAllNodes(), announcePort),
			netip.AddrPortFrom(netip.MustParseAddr("ff02::c"), ssdpPort),
		}
	}
	var conns []net.PacketConn
	for _, g := range groups {
		i, err := net.InterfaceByIndex(s.iface.Index)
		if err != nil {
			continue
		}
		conn, err := joinGroup(i, g)
		if err != nil {
			continue
		}
		conns = append(conns, conn)
		s.c.spawn(func() { s.hear(conn) })
	}
	return func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
}

// hear makes the site ask the router when an announcement seems to come from it.
// More is not believed of it.
func (s *site) hear(conn net.PacketConn) {
	buf := make([]byte, maxSSDP+1)
	for {
		n, addr, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			continue
		}
		from, ok := addr.(*net.UDPAddr)
		if !ok || !believed(s.iface, from.AddrPort().Addr()) {
			continue
		}
		if start, ok := announces(buf[:n]); ok {
			if start {
				s.reset.Store(true)
			}
			s.alarm.Store(true)
			poke(s.wake)
		}
	}
}

// announces reports whether a datagram is an announcement, and whether it is of
// the kind that servers send only when they have started or have another address.
// Those of SSDP come now and then.
func announces(b []byte) (start, ok bool) {
	if m, err := parsePCPAnswer(b); err == nil {
		return true, m.Announce
	}
	if m, err := parsePMPAnswer(b); err == nil {
		return true, m.Port == 0 && m.Protocol == 0
	}
	m, err := parseSSDP(b)
	return false, err == nil && m.Notify && m.Alive
}
