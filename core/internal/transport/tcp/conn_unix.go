//go:build unix

package tcp

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// maxWrite bounds one system call, because some systems refuse more than
// 2^31-1 bytes.
const maxWrite = 1 << 30

// direct is what calls straight to the socket need, made once so that no call
// allocates. The write half belongs to the goroutine that writes, the read half
// to the one that reads.
type direct struct {
	raw syscall.RawConn

	write func(fd uintptr) // sends out once
	out   []byte
	sent  int
	wrote error

	read     func(fd uintptr) bool // reads once there is something; false: wait
	get      func() []byte
	received int
	readErr  error
	peeked   [1]byte

	poll     func(fd uintptr) // reads soon into soon, see ReadSoon on Linux
	soon     []byte
	patience time.Duration
}

func (d *direct) init(conn *net.TCPConn) (err error) {
	d.raw, err = conn.SyscallConn()
	d.write = d.sendOnce
	d.read = d.receiveOnce
	return err
}

// TryWrite sends as much of p as fits into the socket's buffer now and returns
// how much that was: 0 and no error when nothing fits. It never waits and
// ignores the write deadline. It may run beside Close and a reader, but not
// beside another write.
func (c *Conn) TryWrite(p []byte) (int, error) {
	d := &c.direct
	if len(p) == 0 {
		return 0, nil
	}
	d.out = p[:min(len(p), maxWrite)]
	// Control, unlike RawConn.Write, takes no lock that could make it wait.
	err := d.raw.Control(d.write)
	d.out = nil
	if err != nil {
		return 0, err
	}
	if d.wrote != nil {
		return 0, c.fault("write", d.wrote)
	}
	return d.sent, nil
}

func (d *direct) sendOnce(fd uintptr) {
	d.sent, d.wrote = 0, nil
	for {
		n, err := syscall.Write(int(fd), d.out)
		switch err {
		case nil:
			d.sent = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			d.wrote = err
		}
		return
	}
}

// ReadLazy waits until there is something to read, calls get once for a buffer
// and reads once into it. At the end of the stream it returns io.EOF, and at an
// error the error, without calling get: a connection that waits holds no
// buffer. get must not return an empty buffer, block, or use the connection.
// The read deadline holds as for Read. Not beside another read.
func (c *Conn) ReadLazy(get func() []byte) (int, error) {
	d := &c.direct
	d.get, d.received, d.readErr = get, 0, nil
	err := d.raw.Read(d.read)
	d.get = nil
	switch {
	case err != nil:
		return 0, err
	case errors.Is(d.readErr, io.EOF):
		return 0, io.EOF
	case d.readErr != nil:
		return 0, c.fault("read", d.readErr)
	}
	return d.received, nil
}

// receiveOnce looks before it asks for a buffer. The look costs a fraction of a
// microsecond; where nothing has come it stands in for the read that would have
// failed. It cannot be left out: the poller reports only what changes after
// RawConn.Read began.
func (d *direct) receiveOnce(fd uintptr) bool {
	n, err := ignoringInterrupts(int(fd), d.peeked[:], peek)
	switch {
	case err == syscall.EAGAIN: // as the system call returns it, bare
		return false
	case err == nil && n == 0:
		d.readErr = io.EOF
	case err != nil:
		d.readErr = err
	default:
		d.received, d.readErr = ignoringInterrupts(int(fd), d.get(), syscall.Read)
	}
	return true
}

func peek(fd int, p []byte) (int, error) {
	n, _, err := syscall.Recvfrom(fd, p, syscall.MSG_PEEK)
	return n, err
}

func ignoringInterrupts(fd int, p []byte, call func(int, []byte) (int, error)) (int, error) {
	for {
		n, err := call(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// fault dresses an error of the system as package net does.
func (c *Conn) fault(call string, err error) error {
	return &net.OpError{Op: call, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(call, err)}
}
