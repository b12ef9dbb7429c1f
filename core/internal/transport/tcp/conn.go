package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// Conn is a TCP connection with Nagle's delay and the kernel's keep-alive off.
//
// On Unix it has the methods TryWrite and ReadLazy beside those of net.TCPConn.
// As with any net.Conn, one goroutine may read while another writes and others
// set deadlines and close.
type Conn struct {
	*net.TCPConn
	direct direct
}

// newConn wraps conn and owns it. Package net has already turned Nagle's delay off.
func newConn(conn *net.TCPConn) (*Conn, error) {
	c := &Conn{TCPConn: conn}
	if err := c.direct.init(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// Dial connects to remote. A zero local means any address and port. A local
// port may be one that a Listener of this process or another connection uses;
// an unspecified local address means any of the family of remote.
//
// Errors are of package net and unwrap to the system's: ECONNREFUSED,
// ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EADDRINUSE, context.Canceled when
// ctx is canceled; Timeout() holds when it passes its deadline.
func Dial(ctx context.Context, local, remote netip.AddrPort) (*Conn, error) {
	if !remote.IsValid() || remote.Port() == 0 {
		return nil, fmt.Errorf("dial: %w: the remote address or port is missing", syscall.EADDRNOTAVAIL)
	}
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	if err := ctx.Err(); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(remote), Err: err}
	}
	dialer := net.Dialer{KeepAlive: -1}
	if local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(sameFamily(local, remote.Addr()))
	}
	if local.Port() != 0 {
		dialer.ControlContext = func(_ context.Context, _, _ string, raw syscall.RawConn) error {
			return joinPort(raw)
		}
	}
	dialled, err := dialer.DialContext(ctx, "tcp", remote.String())
	if err != nil {
		return nil, err
	}
	conn := dialled.(*net.TCPConn)
	// A socket that dials its own address connects to itself (RFC 9293,
	// simultaneous open): nobody else is there.
	if conn.LocalAddr().String() == conn.RemoteAddr().String() {
		err := &net.OpError{Op: "dial", Net: "tcp", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: syscall.ECONNREFUSED}
		return nil, errors.Join(err, conn.Close())
	}
	return newConn(conn)
}

// sameFamily turns an unspecified local address into that of remote's family,
// so that the address of a listener for both families can be dialled from.
func sameFamily(local netip.AddrPort, remote netip.Addr) netip.AddrPort {
	a := local.Addr().Unmap()
	switch {
	case a.IsUnspecified() && remote.Is4():
		a = netip.IPv4Unspecified()
	case a.IsUnspecified():
		a = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(a, local.Port())
}
