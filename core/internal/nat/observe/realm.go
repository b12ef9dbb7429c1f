package observe

import (
	"net/netip"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// realm says within which network an address means something: as endpoint.Scope,
// with addresses kept for documentation and measurement apart. No host on the
// Internet has those, so a peer there that tells one lies; laboratories do use them.
type realm uint8

const (
	nowhere realm = iota
	onLoopback
	onLink
	onSite
	onCarrier
	onPaper
	onInternet
	realms
)

// unused are blocks that no host is reached at, of those that endpoint.Scope takes for
// global: RFC 6890 (sections 2.2.2 and 2.2.3), RFC 6052, RFC 6666.
var unused = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("100::/64"),
}

// paper are the blocks for documentation (RFC 5737, RFC 3849, RFC 9637) and
// measurement (RFC 2544).
var paper = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("3fff::/20"),
}

func realmOf(a netip.Addr) realm {
	switch (endpoint.Endpoint{Addr: netip.AddrPortFrom(a, 0)}).Scope() {
	case endpoint.Unusable:
		return nowhere
	case endpoint.Loopback:
		return onLoopback
	case endpoint.LinkLocal:
		return onLink
	case endpoint.Private:
		return onSite
	case endpoint.CGNAT:
		return onCarrier
	}
	for _, p := range unused {
		if p.Contains(a) {
			return nowhere
		}
	}
	for _, p := range paper {
		if p.Contains(a) {
			return onPaper
		}
	}
	return onInternet
}

// wide reports whether an address of r is far enough away to prove that strangers
// reach us.
func (r realm) wide() bool { return r >= onPaper }

// groupOf returns the network by which an observer counts: /16 of IPv4 and /32 of
// IPv6, about what one provider gives to one customer at most; elsewhere than on the
// Internet the address.
func groupOf(a netip.Addr) netip.Prefix {
	a = a.WithZone("")
	bits := a.BitLen()
	if realmOf(a) == onInternet {
		bits = 16
		if a.Is6() {
			bits = 32
		}
	}
	p, _ := a.Prefix(bits) // cannot fail: bits is within the address, which has no zone
	return p
}

// Network returns the network by which an observer at an address counts.
func Network(a netip.Addr) netip.Prefix { return groupOf(a.Unmap()) }

// Wide reports whether an address is on the Internet, or in a laboratory's.
func Wide(a netip.Addr) bool { return realmOf(a.Unmap()).wide() }

// whole returns the prefix that is one address.
func whole(a netip.Addr) netip.Prefix {
	a = a.WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// unmap returns an endpoint without the IPv6 form of an IPv4 address and without a zone.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func unspecified(six bool) netip.Addr {
	if six {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
