package tcp

import (
	"runtime"
	"strings"
	"syscall"
)

// Numbers of <asm/socket.h> and <linux/tcp.h> that package syscall lacks.
const tcpNotSentLowat = 25

var soReusePort = func() int {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return 0x200
	}
	return 15
}()

// SetNotSentLowat bounds what the kernel takes beyond what it has sent, in
// bytes: the socket counts as writable only while less than that is unsent, so
// that an urgent message does not stand behind a full socket buffer. 0 restores
// the system's default. On systems other than Linux it does nothing.
func (c *Conn) SetNotSentLowat(bytes int) error {
	return setOption(c.direct.raw, syscall.IPPROTO_TCP, tcpNotSentLowat, bytes)
}

// unfilter takes the filter out of a connection that it has from its listener.
func (c *Conn) unfilter() {
	setOption(c.direct.raw, syscall.SOL_SOCKET, syscall.SO_DETACH_FILTER, 0) //nolint:errcheck // it may have none
}
