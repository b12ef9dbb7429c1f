//go:build !unix

package tcp

import (
	"net"
	"syscall"
)

// passingErrors are the errors of accept after which it can be called again:
// connection aborted or reset, no buffer space, too many sockets (Winsock).
var passingErrors = []error{
	syscall.Errno(10053), syscall.Errno(10054), syscall.Errno(10055), syscall.Errno(10024),
}

// sharePort does nothing. On Windows SO_REUSEADDR would let any program take
// the port over, so a dial from a listener's port is refused there.
func sharePort(*net.TCPListener) error { return nil }

func joinPort(syscall.RawConn) error { return nil }
