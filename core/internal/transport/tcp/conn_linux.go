package tcp

import (
	"io"
	"syscall"
	"time"
	"unsafe"
)

// ReadSoon tries to read into p for at most patience without giving up the
// processor to the Go scheduler: for an answer that is expected within some
// microseconds, to sleep and be woken costs several times as much as all the
// rest. It returns 0 and no error when nothing has come, and at the end of the
// stream io.EOF. A thread that waits for this processor gets it. The read
// deadline is not looked at. Not beside another read; p must not be empty.
func (c *Conn) ReadSoon(p []byte, patience time.Duration) (int, error) {
	d := &c.direct
	if d.poll == nil {
		d.poll = d.pollOnce
	}
	d.soon, d.patience, d.received, d.readErr = p, patience, 0, nil
	err := d.raw.Control(d.poll)
	d.soon = nil
	switch {
	case err != nil:
		return 0, err
	case d.readErr == io.EOF: //nolint:errorlint // it is set bare
		return 0, io.EOF
	case d.readErr != nil:
		return 0, c.fault("read", d.readErr)
	}
	return d.received, nil
}

// pollOnce is ReadSoon at the socket. RawSyscall, because a read of a socket
// that does not block needs no help of the scheduler, whose help has its price.
func (d *direct) pollOnce(fd uintptr) {
	for begin := time.Now(); ; {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&d.soon[0])), uintptr(len(d.soon)))
		switch {
		case errno == syscall.EAGAIN || errno == syscall.EINTR:
		case errno != 0:
			d.readErr = errno
			return
		case n == 0:
			d.readErr = io.EOF
			return
		default:
			d.received = int(n)
			return
		}
		if time.Since(begin) >= d.patience {
			return
		}
		syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) //nolint:errcheck // it cannot fail
	}
}
