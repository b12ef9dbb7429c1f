package netio

import (
	"net/netip"
	"os"
	"syscall"
)

// sharePort lets a socket have a port that others have.
func sharePort(fd uintptr) error {
	return os.NewSyscallError("setsockopt", syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
}

// joinGroup joins a group of IPv6 on an interface.
func joinGroup(fd uintptr, group netip.Addr, on int) error {
	request := syscall.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(on)} //nolint:gosec // numbers of interfaces are small
	return os.NewSyscallError("setsockopt", syscall.SetsockoptIPv6Mreq(syscall.Handle(fd), syscall.IPPROTO_IPV6, syscall.IPV6_JOIN_GROUP, &request))
}
