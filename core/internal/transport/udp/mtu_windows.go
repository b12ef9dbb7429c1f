package udp

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// Numbers of ws2ipdef.h that package windows lacks.
const (
	ipDontFragment = 14
	ipv6DontFrag   = 14
)

// dontFragment sets the don't-fragment bit, as far as the system lets it.
func dontFragment(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, ipDontFragment, 1)
		_ = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, ipv6DontFrag, 1)
	})
}
