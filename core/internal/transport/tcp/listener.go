// Package tcp makes the TCP sockets that links run over: listeners whose port
// outgoing connections may share, accepting that survives passing trouble, and
// connections that can be written without waiting and read without holding a
// buffer while idle.
package tcp

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

// Pauses of Accept while the system is short of something.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// Listener accepts connections at one address. Its methods may be called from
// any goroutine.
type Listener struct {
	sockets   acceptor
	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
	filtered  atomic.Bool
}

// acceptor is the part of *net.TCPListener that Listener uses.
type acceptor interface {
	AcceptTCP() (*net.TCPConn, error)
	Close() error
	Addr() net.Addr
}

// Listen listens at addr, with the system's longest backlog. Port 0 takes a
// free one. The unspecified IPv6 address means IPv4 and IPv6 together, or IPv4
// alone where the system has no IPv6; the unspecified IPv4 address means IPv4.
// ctx matters only to the call itself.
//
// A port that another socket listens at is syscall.EADDRINUSE, whichever
// program or service it belongs to.
func Listen(ctx context.Context, addr netip.AddrPort) (*Listener, error) {
	if !addr.IsValid() {
		return nil, fmt.Errorf("listen: %w: the address is missing", syscall.EADDRNOTAVAIL)
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	l, err := listen(ctx, addr)
	if err != nil && addr.Addr() == netip.IPv6Unspecified() && noIPv6(err) {
		l, err = listen(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()))
	}
	if err != nil {
		return nil, err
	}
	return newListener(l), nil
}

func newListener(a acceptor) *Listener {
	return &Listener{sockets: a, closed: make(chan struct{})}
}

func listen(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	config := net.ListenConfig{KeepAlive: -1} // sessions have heartbeats of their own
	config.SetMultipathTCP(false)             // its sockets cannot be dialled from by plain ones
	l, err := config.Listen(ctx, family(addr.Addr()), addr.String())
	if err != nil {
		return nil, err
	}
	tcp := l.(*net.TCPListener)
	if err := sharePort(tcp); err != nil {
		return nil, errors.Join(fmt.Errorf("listen %s: cannot share the port with outgoing connections: %w", addr, err), tcp.Close())
	}
	return tcp, nil
}

// family returns the network of package net for an address to listen at. "tcp"
// with an unspecified IPv6 address is both families; with an unspecified IPv4
// address it would be both, too, which is why IPv4 is always "tcp4".
func family(a netip.Addr) string {
	switch {
	case a.Is4():
		return "tcp4"
	case a.IsUnspecified():
		return "tcp"
	}
	return "tcp6"
}

// noIPv6 reports whether err is how a system without IPv6 refuses it.
func noIPv6(err error) bool {
	var addr *net.AddrError // net found no address that suits the families there are
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) ||
		errors.Is(err, syscall.EPROTONOSUPPORT) || errors.As(err, &addr)
}

// Accept waits for the next connection, a *Conn. Trouble that passes, such as
// too many open files or a connection broken before it was accepted, is waited
// out; an error means that no more connections will come: net.ErrClosed after
// Close, otherwise the reason.
func (l *Listener) Accept() (net.Conn, error) {
	pause := minPause
	for {
		conn, err := l.sockets.AcceptTCP()
		if err == nil {
			c, err := newConn(conn)
			if err != nil {
				return nil, err // not a typed nil
			}
			if l.filtered.Load() {
				c.unfilter()
			}
			return c, nil
		}
		if errors.Is(err, net.ErrClosed) || !passing(err) {
			return nil, err
		}
		if !l.wait(pause) {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		}
		pause = min(2*pause, maxPause)
	}
}

// wait sleeps and reports whether the listener is still open.
func (l *Listener) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.closed:
		return false
	}
}

// passing reports whether the next Accept may succeed after err. Apart from
// shortages, Linux hands out network errors of the connection that would have
// been accepted (accept(2)); the listener itself is unharmed.
func passing(err error) bool {
	return slices.ContainsFunc(passingErrors, func(one error) bool { return errors.Is(err, one) })
}

// Addr returns where the listener listens, with the port it really got.
func (l *Listener) Addr() net.Addr { return l.sockets.Addr() }

// Filter gives the descriptor of the socket to a function that puts a filter into it, or
// takes one out, and returns its error. Connections that are accepted afterwards do not
// keep the filter, which the system lets them inherit.
func (l *Listener) Filter(set func(fd uintptr) error) error {
	sockets, ok := l.sockets.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := sockets.SyscallConn()
	if err != nil {
		return err
	}
	l.filtered.Store(true)
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = set(fd) }); err != nil {
		return err
	}
	return failed
}

// Close stops listening and ends Accept. Accepted connections live on. It may
// be called again.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() {
		close(l.closed)
		l.closeErr = l.sockets.Close()
	})
	return l.closeErr
}
