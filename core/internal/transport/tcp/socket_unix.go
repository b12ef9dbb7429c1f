//go:build unix

package tcp

import (
	"net"
	"syscall"
)

// passingErrors are the errors of accept(2) after which it can be called again.
var passingErrors = []error{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
	syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EPERM, syscall.EPROTO,
	syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
	syscall.ENOPROTOOPT, syscall.EOPNOTSUPP, syscall.ETIMEDOUT,
}

// sharePort lets outgoing connections use the port of l. SO_REUSEPORT is set
// only now that l is bound: set before, the kernel would give the port to us
// although another socket of the same user listens there with the option, and
// the two would steal each other's connections. A port that is taken has
// already been refused.
func sharePort(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return setOption(raw, syscall.SOL_SOCKET, soReusePort, 1)
}

// joinPort prepares a socket that dials from a port that may be in use.
// SO_REUSEADDR lets a later listener have the port while this connection
// lives, SO_REUSEPORT lets this connection have it while a listener lives.
func joinPort(raw syscall.RawConn) error {
	if err := setOption(raw, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return setOption(raw, syscall.SOL_SOCKET, soReusePort, 1)
}

func setOption(raw syscall.RawConn, level, name, value int) error {
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.SetsockoptInt(int(fd), level, name, value) }); err != nil {
		return err
	}
	return failed
}
