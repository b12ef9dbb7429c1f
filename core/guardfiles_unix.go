//go:build unix

package crust

import (
	"math"
	"net"
	"syscall"
)

// fewFiles reports whether a connection was given one of the last descriptors. The
// system gives the lowest number that is free, so all below it are in use.
func fewFiles(conn net.Conn, reserve int) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	number := 0
	if raw.Control(func(fd uintptr) { number = int(fd) }) != nil {
		return false
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return false
	}
	most := int(min(uint64(limit.Cur), math.MaxInt32)) // signed on some systems
	return number >= most-min(reserve, most/4)
}
