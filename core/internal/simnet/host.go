package simnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
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

// Dial implements netio.Network.
func (h *Host) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	fail := func(err error) (net.Conn, error) {
		return nil, opError("dial", "tcp", local, remote, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, synTimeout, syscall.ETIMEDOUT)
	defer cancel()
	for {
		c, again, err := h.attempt(ctx, local, remote)
		if err != nil {
			return fail(err)
		}
		if !again {
			return c, nil
		}
		if err := pause(ctx, synRetry); err != nil {
			return fail(err)
		}
	}
}

// attempt sends one SYN. again means that nobody answered it.
func (h *Host) attempt(ctx context.Context, local, remote netip.AddrPort) (c *Conn, again bool, err error) {
	h.net.mu.Lock()
	peer, from, err := h.resolve(local, remote)
	if err != nil {
		h.net.mu.Unlock()
		return nil, false, err
	}
	way := h.net.link(h, peer)
	state, blocked, there, back := way.state, way.NoTCP, h.net.delay(way), h.net.delay(way)
	h.net.mu.Unlock()
	switch {
	case state == cut:
		return nil, false, syscall.EHOSTUNREACH
	case state == silent, blocked:
		return nil, true, nil
	}
	if err := pause(ctx, there); err != nil {
		return nil, false, err
	}
	h.net.mu.Lock()
	l := peer.listening(remote)
	switch {
	case way.state != up || l != nil && len(l.waiting) == backlog:
		h.net.mu.Unlock()
		return nil, true, nil
	case l == nil:
		err = syscall.ECONNREFUSED
	default:
		c, err = h.connect(peer, from, remote)
	}
	if err == nil {
		l.waiting = append(l.waiting, c.peer)
		l.changed.Signal()
	}
	h.net.mu.Unlock()
	if gaveUp := pause(ctx, back); gaveUp != nil && err == nil {
		h.net.mu.Lock()
		defer h.net.mu.Unlock()
		c.abort()
		return nil, false, gaveUp
	}
	return c, false, err
}

// resolve finds who has the remote address, and from which address of ours to
// dial it. Called with the lock held.
func (h *Host) resolve(local, remote netip.AddrPort) (*Host, netip.AddrPort, error) {
	to := remote.Addr()
	peer := h.net.hosts[to]
	if to.IsLoopback() {
		peer = h
	}
	from := local.Addr().Unmap()
	if !from.IsValid() || from.IsUnspecified() {
		from = h.source(peer, to)
	}
	switch {
	case !to.IsValid() || remote.Port() == 0 || to.IsUnspecified():
		return nil, local, syscall.EADDRNOTAVAIL
	case !from.IsValid():
		return nil, local, syscall.ENETUNREACH
	case !h.has(from) || from.Is4() != to.Is4():
		return nil, local, syscall.EADDRNOTAVAIL
	case peer == nil:
		return nil, local, syscall.EHOSTUNREACH
	}
	return peer, netip.AddrPortFrom(from, local.Port()), nil
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

// connect makes both ends. Called with the lock held.
func (h *Host) connect(peer *Host, from, to netip.AddrPort) (*Conn, error) {
	if from.Port() == 0 {
		from = netip.AddrPortFrom(from.Addr(), h.freePort(h.uses))
	}
	if h.conns[tuple{from, to}] != nil || peer.conns[tuple{to, from}] != nil {
		return nil, syscall.EADDRNOTAVAIL // one end of an earlier connection is still there
	}
	if from == to {
		return nil, syscall.ECONNREFUSED
	}
	a := newConn(h, from, to)
	b := newConn(peer, to, from)
	a.peer, b.peer = b, a
	l := h.net.link(h, peer)
	a.out = newWay(l, a, b)
	b.out = newWay(l, b, a)
	return a, nil
}

// calls names the system call behind an operation that differs from it.
var calls = map[string]string{"dial": "connect", "listen": "bind", "read": "read", "write": "write", "close": "shutdown"}

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 && ctx.Err() == nil {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
	}
	if cause := context.Cause(ctx); errors.Is(cause, syscall.ETIMEDOUT) {
		return cause
	}
	return ctx.Err()
}

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
