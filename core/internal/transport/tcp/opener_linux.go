package tcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// SendOpener sends the SYN of a connection from local to remote with a time to
// live (hop limit) of ttl, from 1 to 255, and gives the connection up before it
// returns. The kernel says no word of that, and no answer finds a socket: what is
// left are the entries of NATs and firewalls on the way, this machine's own too.
// local is as for Dial, but must name a port.
func SendOpener(local, remote netip.AddrPort, ttl int) error {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	fail := func(call string, err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(local), Addr: net.TCPAddrFromAddrPort(remote), Err: os.NewSyscallError(call, err)}
	}
	if !remote.IsValid() || remote.Port() == 0 || !local.IsValid() || local.Port() == 0 {
		return fail("connect", syscall.EADDRNOTAVAIL)
	}
	if ttl < 1 || ttl > 255 {
		return fail("setsockopt", syscall.EINVAL)
	}
	if remote.Addr().Zone() != "" { // there is no NAT on a link
		return fmt.Errorf("an opener to %s: %w", remote, errors.ErrUnsupported)
	}
	local = sameFamily(local, remote.Addr())
	domain, level, option := syscall.AF_INET, syscall.IPPROTO_IP, syscall.IP_TTL
	if remote.Addr().Is6() {
		domain, level, option = syscall.AF_INET6, syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS
	}
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer syscall.Close(fd) //nolint:errcheck // nothing was written
	for _, o := range [...][3]int{
		{syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1},
		{syscall.SOL_SOCKET, soReusePort, 1},
		{level, option, ttl},
	} {
		if err := syscall.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fail("setsockopt", err)
		}
	}
	// Where somebody answers at once, it ends by a reset, and nothing keeps the two ends.
	if err := syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}); err != nil {
		return fail("setsockopt", err)
	}
	if err := syscall.Bind(fd, sockaddr(local)); err != nil {
		return fail("bind", err)
	}
	if err := syscall.Connect(fd, sockaddr(remote)); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		return fail("connect", err)
	}
	return nil
}

func sockaddr(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
