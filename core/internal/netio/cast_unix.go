//go:build unix

package netio

import (
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// sharePort lets a socket have a port that others have. On Linux SO_REUSEPORT would
// refuse sockets of other users, and is not needed; elsewhere it is.
func sharePort(fd uintptr) error {
	err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && runtime.GOOS != "linux" && runtime.GOOS != "android" {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return os.NewSyscallError("setsockopt", err)
}

// joinGroup joins a group of IPv6 on an interface.
func joinGroup(fd uintptr, group netip.Addr, on int) error {
	request := unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(on)} //nolint:gosec // numbers of interfaces are small
	return os.NewSyscallError("setsockopt", unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &request))
}
