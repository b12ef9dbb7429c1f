package netio

import (
	"net"
	"net/netip"
	"time"
)

// TTLWriter is a PacketConn that can send datagrams which do not travel far. A
// PacketConn of a Network may implement it.
type TTLWriter interface {
	// WriteTTL is WriteBatch for datagrams with a time to live (hop limit) of ttl,
	// from 1 to 255. Its error is also errors.ErrUnsupported, wrapped, where the
	// system has no such thing; then nothing has been sent.
	WriteTTL(ttl int, ps []Packets) error
}

// Opener is a Network that can begin a TCP connection with a packet that does not
// travel far. A Network may implement it.
type Opener interface {
	// Open is the beginning of Dial, with a time to live (hop limit) of ttl, from 1 to
	// 255, of the first SYN, which has gone out when Open returns. All that follows
	// travels as far as usual, also the same SYN when it is repeated, after a second;
	// messages of routers where it has died are ignored over IPv4, and end the dial over
	// IPv6. local may have port 0. Errors are those of Dial, and errors.ErrUnsupported,
	// wrapped, where remote has a zone.
	Open(local, remote netip.AddrPort, ttl int) (Opening, error)
}

// Opening is a connection that has begun. Until there is one, a SYN of the other end
// that arrives is enough for it to come about.
type Opening interface {
	// LocalAddr returns this end; the address may be unspecified.
	LocalAddr() netip.AddrPort
	// Wait waits for the connection until a time, and returns it, or an error as Dial's:
	// then nothing is left of it, and whoever is out there hears nothing but perhaps a
	// reset. It is called once, unless Close is.
	Wait(until time.Time) (net.Conn, error)
	// Close gives it up and ends Wait. It may be called at any time, and again; a
	// connection that Wait has returned is not closed.
	Close() error
}
