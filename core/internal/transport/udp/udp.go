// Package udp makes the UDP sockets that everything without a stream runs over:
// unconnected, never fragmented on the way, read and written in batches, many
// datagrams of one length to or from one address as one run where the kernel
// cuts and joins them itself (UDP GSO and GRO).
//
// What the kernel cannot do is found out at run time and done without it.
package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// MaxRun is the longest run, and the longest datagram, in bytes: what an
	// IPv4 packet of 65,535 bytes holds (RFC 768 and RFC 791).
	MaxRun = 65535 - 20 - 8
	// ReadSize is the memory that a run may fill when it is read, in bytes.
	ReadSize = 64 << 10
	// What a socket asks for, in bytes. At 200 Mbyte/s the receive buffer lasts
	// for 40 ms in which nobody reads.
	receiveBuffer = 8 << 20
	sendBuffer    = 4 << 20
)

// Pauses of a reader whose socket only reports trouble.
const (
	patience = 16 // failures in a row that cost no pause: each clears itself
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// Packets is a run of datagrams from or to one address: Buf[:N], cut every
// Segment bytes; the last may be shorter. A Segment of 0, or of N and more, is
// one datagram of N bytes, which may be 0.
type Packets struct {
	Buf     []byte
	N       int // bytes of Buf that are used
	Segment int // bytes of each datagram but the last
	Addr    netip.AddrPort
}

// Stats says how a socket fares. Counts begin at 0 with the socket.
type Stats struct {
	Unsent     uint64 // datagrams that the system refused to send
	ReadErrors uint64 // passing errors of reading
	Overflows  uint64 // datagrams the kernel dropped because the buffer was full, or for a filter; 0 where it does not tell

	ReceiveBuffer, SendBuffer int  // bytes of the kernel's buffers; 0 where it does not tell
	Batches                   bool // many runs are read or written by one call
	GSO, GRO                  bool // the kernel cuts, joins runs
}

// Conn is a UDP socket. ReadBatch is for one goroutine at a time; the other
// methods may be called from any.
type Conn struct {
	socket    *net.UDPConn
	raw       syscall.RawConn
	local     netip.AddrPort
	batch     batch // what one system has and another has not
	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error

	unsent, readErrors atomic.Uint64
}

// Listen opens a socket at addr. Port 0 takes a free one. The unspecified IPv6
// address means IPv4 and IPv6 together, or IPv4 alone where the system has no
// IPv6; the unspecified IPv4 address means IPv4. ctx matters only to the call
// itself.
//
// A port that another socket has is syscall.EADDRINUSE, an address that is not
// this machine's syscall.EADDRNOTAVAIL.
func Listen(ctx context.Context, addr netip.AddrPort) (*Conn, error) {
	if !addr.IsValid() {
		return nil, fmt.Errorf("listen: %w: the address is missing", syscall.EADDRNOTAVAIL)
	}
	if err := ctx.Err(); err != nil { // package net looks at it only to resolve names
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(addr), Err: err}
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	socket, err := listen(ctx, addr)
	if err != nil && addr.Addr() == netip.IPv6Unspecified() && noIPv6(err) {
		socket, err = listen(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()))
	}
	if err != nil {
		return nil, err
	}
	c, err := newConn(socket)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen %s: %w", addr, err), socket.Close())
	}
	return c, nil
}

func listen(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error) {
	var config net.ListenConfig
	socket, err := config.ListenPacket(ctx, family(addr.Addr()), addr.String())
	if err != nil {
		return nil, err
	}
	return socket.(*net.UDPConn), nil
}

// family returns the network of package net for an address to listen at. "udp"
// with an unspecified IPv6 address is both families; with an unspecified IPv4
// address it would be both, too, which is why IPv4 is always "udp4".
func family(a netip.Addr) string {
	switch {
	case a.Is4():
		return "udp4"
	case a.IsUnspecified():
		return "udp"
	}
	return "udp6"
}

// noIPv6 reports whether err is how a system without IPv6 refuses it.
func noIPv6(err error) bool {
	var addr *net.AddrError // net found no address that suits the families there are
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) ||
		errors.Is(err, syscall.EPROTONOSUPPORT) || errors.As(err, &addr)
}

// newConn wraps socket and owns it, unless it fails.
func newConn(socket *net.UDPConn) (*Conn, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	local := socket.LocalAddr().(*net.UDPAddr).AddrPort()
	c := &Conn{
		socket: socket, raw: raw, closed: make(chan struct{}),
		local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port()),
	}
	return c, c.batch.init(c)
}

// LocalAddr returns where the socket listens, with the port it really got. The
// unspecified IPv6 address means both families.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// ReadBatch waits for datagrams and fills up to len(ps) runs, in the order in
// which they came, using ps[i].Buf as memory, of which each must have ReadSize
// bytes. It sets N, Segment and Addr of the first n; n is at least 1 when err
// is nil. Peers of IPv4 have IPv4 addresses whatever the socket; Buf is never
// replaced, and not kept.
//
// Trouble that passes is counted and waited out. An error means that no more
// datagrams will come: net.ErrClosed after Close, otherwise the reason.
func (c *Conn) ReadBatch(ps []Packets) (n int, err error) {
	if len(ps) == 0 {
		return 0, nil
	}
	failures, pause := 0, minPause
	for {
		n, err = c.batch.read(ps)
		if err == nil || errors.Is(err, net.ErrClosed) || !passing(err) {
			return n, err
		}
		c.readErrors.Add(1)
		if failures++; failures <= patience {
			continue
		}
		if !c.wait(pause) {
			return 0, c.fault("read", net.ErrClosed)
		}
		pause = min(2*pause, maxPause)
	}
}

// wait sleeps and reports whether the socket is still open.
func (c *Conn) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.closed:
		return false
	}
}

// passing reports whether reading may succeed after err.
func passing(err error) bool {
	return slices.ContainsFunc(passingErrors, func(one error) bool { return errors.Is(err, one) })
}

// WriteBatch sends runs in order and does not wait for the network: what the
// system refuses because its buffer is full, because the address cannot be
// reached, or only by shorter datagrams, or because a rule forbids it, is
// counted and lost. Where the system has no batches it may wait for room in the
// system's buffer. Runs of more than MaxSegments datagrams, or of more than
// MaxRun bytes, are sent in parts; a single datagram longer than MaxRun is lost.
// An error means that the socket is of no more use: net.ErrClosed after Close.
// ps is not changed and not kept.
func (c *Conn) WriteBatch(ps []Packets) error { return c.batch.write(ps) }

// MaxSegments returns how many datagrams a run to be written should have at
// most: 1 where the kernel does not cut runs. It may fall to 1 when the kernel
// turns out not to.
func (c *Conn) MaxSegments() int { return c.batch.maxSegments() }

// Filter gives the descriptor of the socket to a function that puts a filter into it, or
// takes one out, and returns its error.
func (c *Conn) Filter(set func(fd uintptr) error) error {
	var failed error
	if err := c.raw.Control(func(fd uintptr) { failed = set(fd) }); err != nil {
		return err
	}
	return failed
}

// Stats returns the counts so far.
func (c *Conn) Stats() Stats {
	s := Stats{Unsent: c.unsent.Load(), ReadErrors: c.readErrors.Load()}
	c.batch.stats(&s)
	return s
}

// Close closes the socket and ends ReadBatch. It may be called again.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.closeErr = c.socket.Close()
	})
	return c.closeErr
}

// fault dresses an error as package net does.
func (c *Conn) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: net.UDPAddrFromAddrPort(c.local), Err: err}
}

// sendable reports whether an address can be one to send to. The unspecified
// address is refused because systems take it for the loopback address.
func sendable(to netip.AddrPort) bool {
	return to.IsValid() && !to.Addr().IsUnspecified() && to.Port() != 0
}

// next returns up to count datagrams that begin at an offset of Buf, no more
// than MaxRun bytes unless one alone is longer.
func (p *Packets) next(at, count int) []byte {
	if p.Segment <= 0 || p.Segment >= p.N {
		return p.Buf[:p.N]
	}
	count = max(1, min(count, MaxRun/p.Segment))
	return p.Buf[at:min(at+count*p.Segment, p.N)]
}
