package udp

import (
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadSoon is ReadBatch, but tries for at most patience without giving up the
// processor to the Go scheduler: for an answer that is expected within some
// microseconds, to sleep and be woken costs several times as much as all the rest.
// It returns 0 and no error when nothing has come, or when there are no batches. A
// thread that waits for this processor gets it. Not beside ReadBatch.
func (c *Conn) ReadSoon(ps []Packets, patience time.Duration) (int, error) {
	r := &c.batch.reader
	if !c.batch.works || len(ps) == 0 {
		return 0, nil
	}
	r.ready(ps)
	r.n, r.errno, r.patience = 0, unix.EAGAIN, patience
	if r.poll == nil {
		r.poll = r.receiveSoon
	}
	err := c.raw.Control(r.poll)
	r.forget(r.count)
	switch {
	case err != nil:
		return 0, err
	case r.errno == 0:
		return r.take(ps), nil
	case r.errno == unix.EAGAIN:
		return 0, nil
	}
	err = c.fault("read", os.NewSyscallError("recvmmsg", r.errno))
	if passing(err) {
		c.readErrors.Add(1)
		return 0, nil
	}
	return 0, err
}

// receiveSoon is ReadSoon at the socket.
func (r *reader) receiveSoon(fd uintptr) {
	for begin := time.Now(); ; {
		r.n, r.errno = r.soon(fd, r.messages[:r.count])
		if r.errno != unix.EAGAIN && r.errno != unix.EINTR {
			return
		}
		r.errno = unix.EAGAIN
		if time.Since(begin) >= r.patience {
			return
		}
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) //nolint:errcheck // it cannot fail
	}
}

// recvmmsgSoon is recvmmsg without the help of the Go scheduler, which has its
// price: a call that does not wait needs none.
func recvmmsgSoon(fd uintptr, ms []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(ms))), uintptr(len(ms)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}
