// Package netio is the seam between libcrust and a network: listen, dial, and
// which addresses this machine has. System is the kernel's network; tests put an
// in-memory internet in its place.
package netio

import (
	"context"
	"net"
	"net/netip"

	"github.com/libcrust/libcrust/core/internal/transport/udp"
)

// Network is where a service lives. All methods may be called from any
// goroutine.
//
// Errors unwrap to the system's (syscall.EADDRINUSE, ECONNREFUSED, ...), to
// net.ErrClosed after Close, and to context.Canceled when a context is
// canceled; timeouts have a Timeout method that returns true.
type Network interface {
	// Listen accepts TCP connections at addr. Port 0 means a random port. The
	// unspecified IPv6 address means IPv4 and IPv6 together, or IPv4 alone
	// where there is no IPv6: the listener's Addr says which it became. A port
	// that anything else listens at is syscall.EADDRINUSE. ctx bounds the call,
	// not the listener. Accept returns an error only when no more connections
	// will come.
	Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error)

	// Dial opens a TCP connection to remote until ctx ends. local says from
	// where: the zero AddrPort means anywhere, an unspecified address any
	// address of remote's family, and its port may be that of a listener of
	// the same Network.
	Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error)

	// ListenPacket opens a UDP socket at addr, by the same rules as Listen. Its
	// port is independent of those of TCP.
	ListenPacket(ctx context.Context, addr netip.AddrPort) (PacketConn, error)

	// Addrs returns the unicast addresses of the interfaces that are up: IPv4
	// unmapped, IPv6 link-local addresses left out because they mean nothing
	// without a zone, none twice. Those that reach farther come first: global,
	// carrier's, private, link-local, loopback; then by value.
	Addrs() ([]netip.Addr, error)
}

// Packets is a run of datagrams from or to one address: Buf[:N], cut every
// Segment bytes; the last may be shorter. A Segment of 0, or of N and more, is
// one datagram of N bytes, which may be 0.
type Packets = udp.Packets

const (
	// MaxRun is the longest run of datagrams, and the longest datagram, in bytes.
	MaxRun = udp.MaxRun
	// ReadSize is the memory that each run needs when it is read, in bytes.
	ReadSize = udp.ReadSize
)

// PacketConn is an unconnected UDP socket that is read and written in batches.
// What it sends is never fragmented on the way: what is too long for the path
// is lost. ReadBatch is for one goroutine at a time; the other methods may be
// called from any.
type PacketConn interface {
	// LocalAddr returns where the socket listens, with the port it really got.
	// The unspecified IPv6 address means both families.
	LocalAddr() netip.AddrPort

	// ReadBatch waits for datagrams and fills up to len(ps) runs, those of one
	// sender in the order in which they came, using ps[i].Buf as memory, of which
	// each must have ReadSize bytes. It sets N, Segment and Addr of the first n
	// and never replaces or keeps Buf; n is at least 1 when err is nil, unless ps
	// is empty. Peers of IPv4 have IPv4 addresses, whatever the socket. An error
	// means that no more datagrams will come: net.ErrClosed after Close.
	ReadBatch(ps []Packets) (n int, err error)

	// WriteBatch sends runs in order and does not wait for the network: what
	// cannot be sent now, or not to that address, or not at that length, counts
	// as lost on the way. Runs may have any number of datagrams of up to MaxRun
	// bytes; those of more than MaxSegments are sent in parts. An error means
	// that the socket is of no more use: net.ErrClosed after Close. ps is neither
	// changed nor kept.
	WriteBatch(ps []Packets) error

	// MaxSegments returns how many datagrams of one run are sent at the price of
	// one: 1 where the system does not cut runs, 64 at most. It may fall to 1.
	MaxSegments() int

	// Close closes the socket and ends ReadBatch. It may be called again.
	Close() error
}

// TryWriter is a connection that can be written without waiting. A net.Conn of
// a Network may implement it.
type TryWriter interface {
	// TryWrite makes one attempt: it sends what fits now of p and returns how
	// much that was, 0 and no error when nothing fits. It never waits, takes no
	// lock that a blocked Write holds, and ignores the write deadline. It may
	// run beside Close and reads, but not beside another write: between two
	// writes the stream would have no order. p is not kept.
	TryWrite(p []byte) (n int, err error)
}

// LazyReader is a connection that can be waited on without a buffer, so that an
// idle one holds none. A net.Conn of a Network may implement it.
type LazyReader interface {
	// ReadLazy waits until there are bytes to read, then calls get, exactly
	// once and on this goroutine, and reads once into what it returns, which
	// must not be empty. n is at least 1 when err is nil. The end of the stream
	// is io.EOF. At the end, at an error, at Close and at the read deadline,
	// which holds as for Read, get has not been called, unless the error came
	// between the look and the read: then n is 0 and the buffer is the
	// caller's again. Not beside another read. get must not block or use the
	// connection.
	ReadLazy(get func() []byte) (n int, err error)
}
