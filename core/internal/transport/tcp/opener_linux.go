package tcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// ipMinTTL is IP_MINTTL of <linux/in.h>. The kernel compares it with the time to live
// of what arrives, and of errors with that of the packet which they quote: routers
// that let a packet die quote it with 0 or 1. So errors of that kind are ignored, which
// else would end the connection. For IPv6 there is no such thing.
const ipMinTTL = 21

// Opening is a connection whose SYN has gone out, with a time to live of its own.
// What follows travels as far as usual.
type Opening struct {
	file   *os.File
	raw    syscall.RawConn
	local  netip.AddrPort
	remote netip.AddrPort
	six    bool
	closed atomic.Bool
}

// Open begins a connection from local to remote, of which the SYN has a time to live
// (hop limit) of ttl, from 1 to 255: it has gone out when Open returns. local and the
// errors are as for Dial.
func Open(local, remote netip.AddrPort, ttl int) (*Opening, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	fail := func(call string, err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(local), Addr: net.TCPAddrFromAddrPort(remote), Err: os.NewSyscallError(call, err)}
	}
	switch {
	case !remote.IsValid() || remote.Port() == 0 || !local.IsValid():
		return nil, fail("connect", syscall.EADDRNOTAVAIL)
	case ttl < 1 || ttl > 255:
		return nil, fail("setsockopt", syscall.EINVAL)
	case remote.Addr().Zone() != "": // there is no NAT on a link
		return nil, fmt.Errorf("an opener to %s: %w", remote, errors.ErrUnsupported)
	}
	o := &Opening{remote: remote, six: remote.Addr().Is6()}
	domain := syscall.AF_INET
	if o.six {
		domain = syscall.AF_INET6
	}
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fail("socket", err)
	}
	if call, err := o.connect(fd, sameFamily(local, remote.Addr()), ttl); err != nil {
		syscall.Close(fd) //nolint:errcheck // nothing was written
		return nil, fail(call, err)
	}
	o.file = os.NewFile(uintptr(fd), "tcp")
	if o.raw, err = o.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, o.file.Close())
	}
	return o, nil
}

// connect sends the SYN, and returns which system call failed.
func (o *Opening) connect(fd int, local netip.AddrPort, ttl int) (call string, err error) {
	if err := errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1),
		o.limit(fd, ttl, 2),
		// While it is no connection, it ends without a trace.
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}),
	); err != nil {
		return "setsockopt", err
	}
	if err := syscall.Bind(fd, sockaddr(local)); err != nil {
		return "bind", err
	}
	if err := syscall.Connect(fd, sockaddr(o.remote)); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		return "connect", err
	}
	if err := o.limit(fd, -1, 2); err != nil {
		return "setsockopt", err
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		return "getsockname", err
	}
	switch at := at.(type) {
	case *syscall.SockaddrInet4:
		o.local = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)) //nolint:gosec // it is a port
	case *syscall.SockaddrInet6:
		o.local = netip.AddrPortFrom(netip.AddrFrom16(at.Addr), uint16(at.Port)) //nolint:gosec // it is a port
	}
	return "", nil
}

// limit sets the time to live of what is sent, -1 for the system's, and the least one
// of what is taken.
func (o *Opening) limit(fd, ttl, least int) error {
	if o.six {
		return syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS, ttl)
	}
	return errors.Join(syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_TTL, ttl), syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipMinTTL, least))
}

// LocalAddr returns this end.
func (o *Opening) LocalAddr() netip.AddrPort { return o.local }

// Wait waits until there is a connection, at most until a time, and returns it, or why
// there is none, with the errors of Dial. It is called once.
func (o *Opening) Wait(until time.Time) (*Conn, error) {
	defer o.file.Close() //nolint:errcheck // the connection has another descriptor
	fail := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(o.local), Addr: net.TCPAddrFromAddrPort(o.remote), Err: err}
	}
	o.file.SetWriteDeadline(until) //nolint:errcheck // a closed one shows in the wait
	var failed error
	err := o.raw.Write(func(fd uintptr) (done bool) {
		done, failed = o.done(int(fd))
		return done
	})
	switch {
	case err != nil && o.closed.Load():
		return nil, fail(net.ErrClosed)
	case err != nil:
		return nil, fail(err)
	case failed != nil:
		return nil, fail(os.NewSyscallError("connect", failed))
	}
	conn, err := net.FileConn(o.file)
	if err != nil {
		return nil, fail(err)
	}
	c, err := newConn(conn.(*net.TCPConn))
	if err != nil {
		return nil, err
	}
	return c, c.SetKeepAlive(false)
}

// done reports whether the connection stands, and makes it one like others; or that it
// has failed.
func (o *Opening) done(fd int) (bool, error) {
	errno, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	switch {
	case err != nil:
		return true, err
	case errno != 0:
		return true, syscall.Errno(errno) //nolint:gosec // it is one
	}
	if _, err := syscall.Getpeername(fd); errors.Is(err, syscall.ENOTCONN) {
		return false, nil
	} else if err != nil {
		return true, err
	}
	return true, errors.Join(o.limit(fd, -1, 0), syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{}))
}

// Close gives up what is not yet a connection; Wait ends. It may be called at any
// time, and again.
func (o *Opening) Close() error {
	o.closed.Store(true)
	return o.file.Close()
}

func sockaddr(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
