package netio

import (
	"context"
	"net/netip"
)

// Segment is a network that an interface of this machine is in, by one of its addresses.
// It is comparable.
type Segment struct {
	Interface int          // the number that the system gives it
	Addr      netip.Addr   // of this machine; link-local ones of IPv6 have their zone
	Prefix    netip.Prefix // the addresses that are in it, without zones
	// All is where all machines in it hear: of IPv4 the broadcast address, of IPv6, for
	// link-local addresses alone, CastGroup with the zone. The zero Addr: nowhere.
	All netip.Addr
}

// CastGroup is the multicast group of IPv6 that the library uses on each link: transient,
// of link-local scope (RFC 4291, 2.7), in the range for groups that nobody has
// assigned (RFC 3307, 4.3).
var CastGroup = netip.MustParseAddr("ff12::8000:156c")

// Caster is a Network in which one datagram can reach all machines of a segment. A
// Network may implement it.
type Caster interface {
	// Segments returns the networks that this machine is in, by interface, the
	// loopback ones first; none twice.
	Segments() ([]Segment, error)

	// ListenShared opens a UDP socket at a port of all addresses of a family, which other
	// sockets on this machine may have too, as long as they were all opened so: all of
	// them get what was sent to Segment.All. Of what is sent to the port otherwise one
	// of them gets each datagram. For IPv6 the segments must be joined. Errors are
	// those of ListenPacket.
	ListenShared(ctx context.Context, six bool, port uint16) (CastConn, error)

	// ListenCast opens a UDP socket at the address of a segment and a random port, that
	// may send to Segment.All. What is sent so comes back to this machine's own shared
	// sockets, too.
	ListenCast(ctx context.Context, s Segment) (CastConn, error)
}

// CastConn is a UDP socket of a Caster. ReadFrom is for one goroutine at a time; the
// other methods may be called from any.
type CastConn interface {
	// LocalAddr returns where the socket is.
	LocalAddr() netip.AddrPort
	// Join has a shared socket of IPv6 get what is sent to all on a segment. It may be
	// called again; for IPv4 it does nothing.
	Join(s Segment) error
	// ReadFrom waits for a datagram. Of one that is longer than b the rest is lost.
	// An error means that no more will come: net.ErrClosed after Close.
	ReadFrom(b []byte) (n int, from netip.AddrPort, err error)
	// WriteTo sends a datagram. It waits for room in the system's buffer only.
	WriteTo(b []byte, to netip.AddrPort) error
	// Close closes the socket and ends ReadFrom. It may be called again.
	Close() error
}
