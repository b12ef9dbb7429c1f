package udp

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxSegments is how many datagrams every kernel with UDP GSO takes at once:
	// UDP_MAX_SEGMENTS of Linux was 64 first and grew later.
	maxSegments = 64
	// maxMessages bounds the messages of one system call.
	maxMessages = 64
	// maxIdle bounds the writers kept, of about 10 KiB each: as many as write at
	// the same time.
	maxIdle = 4
)

// batch reads and writes many runs with one system call.
type batch struct {
	c      *Conn
	ip6    bool // the socket's family
	works  bool // there are batches at all
	single error
	gro    bool
	gso    atomic.Bool // until the kernel refuses to cut a run that it sends in pieces
	send   func(fd uintptr, ms []mmsghdr) (int, unix.Errno)
	reader reader

	mu      sync.Mutex
	writers []*writer // idle
}

func (b *batch) init(c *Conn) (err error) {
	b.c, b.send = c, sendmmsg
	b.reader.from, b.reader.call = recvmmsg, b.reader.receive
	b.reader.soon = recvmmsgSoon
	if failed := c.raw.Control(func(fd uintptr) { err = b.setUp(int(fd)) }); failed != nil {
		return failed
	}
	return err
}

// setUp sets the socket's options. What the kernel does not have, or not for
// us, is done without.
func (b *batch) setUp(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	b.ip6 = domain == unix.AF_INET6
	// Without the right to more, the system's bound holds.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	// The don't-fragment bit, and no opinion of the kernel's about path MTUs: a
	// forged ICMP message could lower it, and we search ourselves. A socket of
	// IPv6 needs both for its peers of IPv4.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	if b.ip6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	}
	// Some kernels and sandboxes lack the calls: nothing has come yet, and to
	// send no message works. No messages have an address, too, which QEMU looks at.
	none := newVector(1).messages[:0]
	_, receives := b.reader.from(uintptr(fd), none)
	_, sends := b.send(uintptr(fd), none)
	switch {
	case receives != 0 && receives != unix.EAGAIN:
		b.single = os.NewSyscallError("recvmmsg", receives)
	case sends != 0:
		b.single = os.NewSyscallError("sendmmsg", sends)
	}
	if b.works = b.single == nil; b.works {
		_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
		b.gso.Store(err == nil)
		b.gro = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	}
	return nil
}

// Single returns why each datagram takes a system call of its own, which some kernels and
// sandboxes bring about; nil: many share one, or no system of this kind has such calls.
func (c *Conn) Single() error { return c.batch.single }

func (b *batch) maxSegments() int {
	if b.gso.Load() {
		return maxSegments
	}
	return 1
}

func (b *batch) stats(s *Stats) {
	s.Batches, s.GSO, s.GRO = b.works, b.gso.Load(), b.gro
	// After Close nothing of this is known.
	_ = b.c.raw.Control(func(fd uintptr) {
		s.ReceiveBuffer, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		s.SendBuffer, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		s.Overflows = overflows(fd)
	})
}

// overflows returns SK_MEMINFO_DROPS of <linux/sock_diag.h>: what the kernel
// dropped because the receive buffer was full.
func overflows(fd uintptr) uint64 {
	const drops = 8
	var info [drops + 1]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[drops])
}

// reader is the reading half. It belongs to the goroutine that reads.
type reader struct {
	vector
	count int // of messages that there is room for in this call
	n     int
	errno unix.Errno
	from  func(fd uintptr, ms []mmsghdr) (int, unix.Errno) // recvmmsg; tests put trouble before it
	call  func(fd uintptr) bool                            // receive, made once so that no call allocates

	// of ReadSoon
	patience time.Duration
	soon     func(fd uintptr, ms []mmsghdr) (int, unix.Errno) // recvmmsgSoon; tests put trouble before it
	poll     func(fd uintptr)                                 // receiveSoon, made once; nil before the first call
}

func (b *batch) read(ps []Packets) (int, error) {
	if !b.works {
		return b.c.readOne(ps)
	}
	r := &b.reader
	r.ready(ps)
	err := b.c.raw.Read(r.call)
	r.forget(r.count)
	switch {
	case err != nil:
		return 0, err
	case r.errno != 0:
		return 0, b.c.fault("read", os.NewSyscallError("recvmmsg", r.errno))
	}
	return r.take(ps), nil
}

// ready prepares a call that fills ps.
func (r *reader) ready(ps []Packets) {
	r.count = min(len(ps), maxMessages)
	if len(r.messages) < r.count {
		r.vector = newVector(r.count)
	}
	for i := range r.count {
		r.set(i, ps[i].Buf)
		r.expect(i)
	}
}

// take says in ps what has come, and returns how many runs.
func (r *reader) take(ps []Packets) int {
	for i := range r.n {
		p := &ps[i]
		p.N, p.Segment, p.Addr = int(r.messages[i].len), r.segment(i), r.sender(i)
	}
	return r.n
}

// receive reads what there is; false: nothing, wait.
func (r *reader) receive(fd uintptr) bool {
	for {
		r.n, r.errno = r.from(fd, r.messages[:r.count])
		switch r.errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		return true
	}
}

// writer is what one call of write needs.
type writer struct {
	vector
	b      *batch
	counts [maxMessages]int // datagrams of each message
	filled int
	call   func(fd uintptr) // flush, made once so that no call allocates
}

func newWriter(b *batch) *writer {
	w := &writer{vector: newVector(maxMessages + 1), b: b} // one for apart
	w.call = w.flush
	return w
}

// writer returns a writer that nobody uses.
func (b *batch) writer() *writer {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := len(b.writers) - 1
	if last < 0 {
		return newWriter(b)
	}
	w := b.writers[last]
	b.writers = b.writers[:last]
	return w
}

// idle takes a writer back.
func (b *batch) idle(w *writer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.writers) < maxIdle {
		b.writers = append(b.writers, w)
	}
}

func (b *batch) write(ps []Packets) error {
	if !b.works {
		return b.c.writeEach(ps)
	}
	w := b.writer()
	defer b.idle(w)
	for i, at := 0, 0; i < len(ps); {
		i, at = w.fill(ps, i, at)
		// Control, unlike RawConn.Write, lets writers work at the same time.
		err := b.c.raw.Control(w.call)
		w.forget(w.filled)
		if err != nil {
			return b.c.fault("write", net.ErrClosed)
		}
	}
	return nil
}

// fill makes messages of the datagrams from offset at of ps[i] on, and returns
// where it stopped.
func (w *writer) fill(ps []Packets, i, at int) (int, int) {
	w.filled = 0
	most := w.b.maxSegments()
	for i < len(ps) && w.filled < maxMessages {
		p := &ps[i]
		d := p.next(at, most)
		count := 1
		if p.Segment > 0 && len(d) > p.Segment && most > 1 {
			count = (len(d) + p.Segment - 1) / p.Segment
		}
		if at += len(d); at >= p.N {
			i, at = i+1, 0
		}
		if !sendable(p.Addr) {
			w.b.c.unsent.Add(uint64(count))
			continue
		}
		w.set(w.filled, d)
		w.address(w.filled, p.Addr, w.b.ip6)
		if count > 1 {
			w.cut(w.filled, p.Segment)
		}
		w.counts[w.filled] = count
		w.filled++
	}
	return i, at
}

// flush sends all messages that are filled in.
func (w *writer) flush(fd uintptr) {
	for done := 0; done < w.filled; {
		n, errno := w.b.send(fd, w.messages[done:w.filled])
		switch {
		case errno == 0:
			done += n
			continue
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN: // there is no room for the others either
			for ; done < w.filled; done++ {
				w.b.c.unsent.Add(uint64(w.counts[done]))
			}
			return
		case w.counts[done] > 1 && (errno == unix.EIO || errno == unix.EINVAL):
			w.apart(fd, done, errno)
		default:
			w.b.c.unsent.Add(uint64(w.counts[done]))
		}
		done++
	}
}

// apart sends the datagrams of a message one by one, because the kernel did not
// take it as it is. EIO means that it cannot be cut on its way out. EINVAL means
// that or, from some kernels, that the pieces are too long for the network; then
// they are refused one by one, too. If it was the cutting, runs are not cut by
// the kernel again.
func (w *writer) apart(fd uintptr, i int, errno unix.Errno) {
	m := &w.messages[i]
	whole := unsafe.Slice(w.buffers[i].Base, int(w.buffers[i].Len))
	segment := int(*(*uint16)(unsafe.Pointer(&w.controls[i].value)))
	refused := 0
	for len(whole) > 0 {
		d := whole[:min(segment, len(whole))]
		whole = whole[len(d):]
		w.set(maxMessages, d)
		w.names[maxMessages] = w.names[i]
		w.messages[maxMessages].hdr.Namelen = m.hdr.Namelen
		_, errno := w.b.send(fd, w.messages[maxMessages:])
		for errno == unix.EINTR {
			_, errno = w.b.send(fd, w.messages[maxMessages:])
		}
		if errno != 0 {
			refused++
		}
	}
	w.buffers[maxMessages].Base = nil
	w.b.c.unsent.Add(uint64(refused))
	if errno == unix.EIO || refused == 0 {
		w.b.gso.Store(false)
	}
}
