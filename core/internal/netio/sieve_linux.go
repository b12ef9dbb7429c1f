package netio

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sieves is whether the system has socket filters.
const sieves = true

// attach has a socket run a program, in the place of the one before it.
func attach(fd uintptr, program []instruction) error {
	f := unix.SockFprog{Len: uint16(len(program)), Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(program)))} //nolint:gosec // at most maxProgram
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &f))
}

// detach has a socket run none.
func detach(fd uintptr) error {
	err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if errors.Is(err, unix.ENOENT) { // there was none
		return nil
	}
	return os.NewSyscallError("setsockopt", err)
}

// noRoom reports whether a shorter program might be taken: the kernel bounds what a
// socket may have beside its buffers (net.core.optmem_max, once 20 KiB).
func noRoom(err error) bool { return errors.Is(err, unix.ENOMEM) }
