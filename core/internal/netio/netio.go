// Package netio is the seam between libcrust and a network: listen, dial, and
// which addresses this machine has. System is the kernel's network; tests put an
// in-memory internet in its place.
package netio

import (
	"context"
	"net"
	"net/netip"
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

	// Addrs returns the unicast addresses of the interfaces that are up: IPv4
	// unmapped, IPv6 link-local addresses left out because they mean nothing
	// without a zone, none twice. Those that reach farther come first: global,
	// carrier's, private, link-local, loopback; then by value.
	Addrs() ([]netip.Addr, error)
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
