package portmap

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// joinGroup opens a socket that hears a multicast group on one interface, and
// nothing else: net.ListenMulticastUDP would also take what is sent to this
// machine alone, and with it the searches that are meant for a program beside us.
func joinGroup(i *net.Interface, group netip.AddrPort) (_ net.PacketConn, err error) {
	family := unix.AF_INET
	if group.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "multicast")
	defer file.Close() // the connection has a duplicate
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, fmt.Errorf("share the port: %w", err)
	}
	if group.Addr().Is4() {
		err = join4(fd, i.Index, group)
	} else {
		err = join6(fd, i.Index, group)
	}
	if err != nil {
		return nil, fmt.Errorf("listen at %v: %w", group, err)
	}
	return net.FilePacketConn(file)
}

func join4(fd, index int, group netip.AddrPort) error {
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(group.Port()), Addr: group.Addr().As4()}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0); err != nil {
		return err
	}
	return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.Addr().As4(), Ifindex: int32(index)})
}

func join6(fd, index int, group netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(group.Port()), ZoneId: uint32(index), Addr: group.Addr().As16()}); err != nil {
		return err
	}
	return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.Addr().As16(), Interface: uint32(index)})
}
