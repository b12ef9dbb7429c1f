//go:build darwin || freebsd

package udp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// dontFragment sets the don't-fragment bit, as far as the system lets it.
func dontFragment(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_DONTFRAG, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
	})
}
