package simnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// listener is a listening socket.
type listener struct {
	host    *Host
	addr    netip.AddrPort
	waiting []*Conn // not yet accepted
	closed  bool
	changed *sync.Cond
}

// Listen implements netio.Network.
func (h *Host) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	fail := func(err error) (net.Listener, error) {
		return nil, opError("listen", "tcp", netip.AddrPort{}, addr, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if !addr.Addr().IsUnspecified() && !h.has(addr.Addr()) {
		return fail(syscall.EADDRNOTAVAIL)
	}
	if addr.Port() == 0 {
		addr = netip.AddrPortFrom(addr.Addr(), h.freePort(h.uses))
	}
	for other := range h.listeners {
		if other.Port() == addr.Port() && (covers(other.Addr(), addr.Addr()) || covers(addr.Addr(), other.Addr())) {
			return fail(syscall.EADDRINUSE)
		}
	}
	l := &listener{host: h, addr: addr, changed: sync.NewCond(&h.net.mu)}
	h.listeners[addr] = l
	return l, nil
}

// covers reports whether a listener at a takes connections to b.
func covers(a, b netip.Addr) bool {
	return a == b || a == netip.IPv6Unspecified() || a == netip.IPv4Unspecified() && b.Is4()
}

// freePort draws a port that is not in use.
func (h *Host) freePort(used func(uint16) bool) uint16 {
	for {
		port := firstPort + uint16(h.net.random.IntN(lastPort-firstPort+1))
		if !used(port) {
			return port
		}
	}
}

func (h *Host) uses(port uint16) bool {
	for addr := range h.listeners {
		if addr.Port() == port {
			return true
		}
	}
	for t := range h.conns {
		if t.local.Port() == port {
			return true
		}
	}
	for t := range h.dialing {
		if t.local.Port() == port {
			return true
		}
	}
	return false
}

// listening returns who takes connections to addr, or nil. The closest wins.
func (h *Host) listening(addr netip.AddrPort) *listener {
	wildcards := []netip.Addr{addr.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	for _, a := range wildcards {
		if l := h.listeners[netip.AddrPortFrom(a, addr.Port())]; l != nil && covers(a, addr.Addr()) {
			return l
		}
	}
	return nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	for len(l.waiting) == 0 {
		if l.closed {
			return nil, opError("accept", "tcp", netip.AddrPort{}, l.addr, net.ErrClosed)
		}
		l.changed.Wait()
	}
	c := l.waiting[0]
	l.waiting = l.waiting[1:]
	return c, nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// Close implements net.Listener. Connections that nobody accepted are reset.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.closed {
		return opError("close", "tcp", netip.AddrPort{}, l.addr, net.ErrClosed)
	}
	l.closed = true
	delete(l.host.listeners, l.addr)
	for _, c := range l.waiting {
		c.abort()
	}
	l.waiting = nil
	l.changed.Broadcast()
	return nil
}

// source picks the address from which to dial to, or the zero Addr.
func (h *Host) source(peer *Host, to netip.Addr) netip.Addr {
	if peer == h {
		return to
	}
	for _, a := range h.addrs {
		if a.Is4() == to.Is4() && !a.IsLoopback() {
			return a
		}
	}
	return netip.Addr{}
}

// calls names the system call behind an operation that differs from it.
var calls = map[string]string{"dial": "connect", "listen": "bind", "read": "read", "write": "write", "close": "shutdown"}

// opError dresses an error as package net does.
func opError(op, network string, local, remote netip.AddrPort, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = os.NewSyscallError(calls[op], errno)
	}
	e := &net.OpError{Op: op, Net: network, Err: err}
	address := func(a netip.AddrPort) net.Addr {
		switch {
		case !a.IsValid():
			return nil
		case network == "udp":
			return net.UDPAddrFromAddrPort(a)
		}
		return net.TCPAddrFromAddrPort(a)
	}
	e.Source, e.Addr = address(local), address(remote)
	return e
}
