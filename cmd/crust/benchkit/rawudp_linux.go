package benchkit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RawUDP is UDP without encryption and without repair: what the machine can do with
// datagrams. A message of up to 1,400 bytes is one datagram, a larger one is cut into
// such; where the kernel can cut and join runs of equal datagrams (GSO and GRO of Linux),
// one system call carries up to 64. Credit keeps a sender from overrunning the other
// end's socket; when a datagram is lost nevertheless, the run fails. It is for links that
// lose and reorder next to nothing, such as the loopback interface.
// Only Linux has it: elsewhere there is none.
func RawUDP() []Transport { return []Transport{udpTransport{}} }

const (
	udpPayload = 1400             // bytes of a datagram at most
	udpRun     = 64               // datagrams of a system call at most
	udpCall    = 60 << 10         // bytes of a system call at most
	udpCredit  = 8                // bytes of a credit: how many bytes of messages have come
	udpBuffer  = 4 << 20          // of a socket, where the kernel gives that
	udpLeast   = 128 << 10        // that may be on their way without: every kernel's default holds that
	udpWait    = 15 * time.Second // for anything to come
)

var errUDPSilent = errors.New("nothing comes any more: a datagram was lost, or the other end has gone")

type udpTransport struct{}

func (udpTransport) Name() string { return "raw-udp" }

func (udpTransport) NewClient() (Client, error) { return udpClient{}, nil }

// Listen answers each datagram at a known port from a socket of its own.
func (udpTransport) Listen(at netip.Addr, serve func(Conn)) (Server, error) {
	socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		return nil, err
	}
	s := &udpServer{socket: socket, at: at, serve: serve, conns: map[*udpConn]struct{}{}}
	s.running.Go(s.accept)
	return s, nil
}

type udpServer struct {
	socket  *net.UDPConn
	at      netip.Addr
	serve   func(Conn)
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*udpConn]struct{}
}

func (s *udpServer) Address() string { return s.socket.LocalAddr().String() }

func (s *udpServer) accept() {
	buffer := make([]byte, 64)
	for {
		_, from, err := s.socket.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return // closed; a client that gets no answer reports more
		}
		socket, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.at, 0)), net.UDPAddrFromAddrPort(from))
		if err != nil {
			continue // the client reports that there is no answer
		}
		c := newUDPConn(socket)
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = socket.Close() // nothing has been said over it
			return
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.running.Go(func() { s.run(c) })
	}
}

// run serves one client, until that has gone or the server closes.
func (s *udpServer) run(c *udpConn) {
	if _, err := c.socket.Write([]byte{1}); err == nil {
		c.patient = true
		s.serve(c)
	}
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	_ = c.Close() // the server may have done it
}

func (s *udpServer) Close() error {
	s.mu.Lock()
	s.closed = true
	err := s.socket.Close()
	for c := range s.conns {
		_ = c.Close() // run closes it, too
	}
	s.mu.Unlock()
	s.running.Wait()
	return err
}

type udpClient struct{}

func (udpClient) Close() error { return nil }

// Dial says hello, and goes on with the socket that answers.
func (udpClient) Dial(ctx context.Context, address string) (Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	wildcard := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		wildcard = netip.IPv6Unspecified()
	}
	hello, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(wildcard, 0)))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = hello.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var answer [8]byte
	err = hello.SetDeadline(time.Now().Add(udpWait))
	if err == nil {
		_, err = hello.WriteToUDPAddrPort([]byte{1}, to)
	}
	var from netip.AddrPort
	if err == nil {
		_, from, err = hello.ReadFromUDPAddrPort(answer[:])
	}
	if err != nil {
		return nil, errors.Join(err, hello.Close())
	}
	// A connected socket is what the kernel sends by fastest.
	if err := connectUDP(hello, from); err != nil {
		return nil, errors.Join(err, hello.Close())
	}
	return newUDPConn(hello), hello.SetDeadline(time.Time{})
}

// udpConn is one end. The kernel may join datagrams that it reads, of which only the last
// may be shorter.
type udpConn struct {
	socket  *net.UDPConn
	runs    bool // the kernel cuts and joins
	roomy   bool // the socket has a buffer of udpBuffer
	segment int  // bytes of the datagrams that it cuts now
	patient bool // waits for messages for ever
	buffer  []byte
	sent    int64 // bytes of messages
	got     int64 // bytes of messages
	told    int64 // of these, by credit
	credit  atomic.Int64
}

func newUDPConn(socket *net.UDPConn) *udpConn {
	c := &udpConn{socket: socket, buffer: make([]byte, 64<<10)}
	c.runs, c.roomy = tuneUDP(socket)
	return c
}

// run returns how many bytes go into one system call for messages of a size, and how many
// of these one datagram has.
func (c *udpConn) run(size int) (call, segment int) {
	segment = min(size, udpPayload)
	if !c.runs {
		return segment, segment
	}
	return segment * max(1, min(udpRun, udpCall/segment)), segment
}

// window is how many bytes may be on their way: eight system calls where the other end,
// which is as this one, has a large buffer; else as many as the smallest one holds.
func (c *udpConn) window(call, segment int) int64 {
	switch {
	case c.runs && c.roomy:
		return int64(8 * call)
	case c.runs:
		return int64(max(min(8*call, udpLeast), call))
	}
	return int64(64 * segment)
}

func (c *udpConn) SendAll(count, size int) error {
	call, segment := c.run(size)
	if c.runs && segment != c.segment {
		if err := cutUDP(c.socket, segment); err != nil {
			return err
		}
		c.segment = segment
	}
	window := c.window(call, segment)
	data := make([]byte, call)
	for left := int64(count) * int64(size); left > 0; {
		for c.sent-c.credit.Load() > window {
			n, err := c.read(false)
			if err != nil {
				return err
			}
			if n > 0 {
				return fmt.Errorf("%d bytes came while sending", n)
			}
		}
		n, err := c.socket.Write(data[:min(left, int64(call))])
		if err != nil {
			return err
		}
		c.sent += int64(n)
		left -= int64(n)
	}
	return nil
}

// read reads what comes next, which is in buffer, and takes credit off: then it returns 0.
func (c *udpConn) read(forever bool) (int, error) {
	deadline := time.Now().Add(udpWait)
	if forever {
		deadline = time.Time{}
	}
	if err := c.socket.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := c.socket.Read(c.buffer)
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return 0, errUDPSilent
	case err != nil:
		return 0, io.EOF // closed, here or there
	case n == 0:
		return 0, io.EOF // goodbye
	case n >= udpCredit && n%udpCredit == 0 && n < MessageSize && c.buffer[0] == 0xff:
		c.credit.Store(int64(binary.BigEndian.Uint64(c.buffer[n-udpCredit:]) & (1<<56 - 1))) //nolint:gosec // 56 bits
		return 0, nil
	}
	return n, nil
}

func (c *udpConn) ReceiveAll(count, size int) error {
	call, segment := c.run(size)
	window := c.window(call, segment)
	for left := int64(count) * int64(size); left > 0; {
		n, err := c.read(false)
		if err != nil {
			return err
		}
		c.got += int64(n)
		left -= int64(n)
		if c.got-c.told >= window/4 {
			c.told = c.got
			var credit [udpCredit]byte
			binary.BigEndian.PutUint64(credit[:], uint64(c.got)|0xff<<56) //nolint:gosec // not negative
			if err := c.write(credit[:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// write sends one datagram.
func (c *udpConn) write(data []byte) error {
	if c.segment != 0 {
		if err := cutUDP(c.socket, 0); err != nil {
			return err
		}
		c.segment = 0
	}
	_, err := c.socket.Write(data)
	return err
}

// Send sends a message of one datagram, or of several that are cut.
func (c *udpConn) Send(message []byte) error {
	for len(message) > udpPayload {
		if err := c.write(message[:udpPayload]); err != nil {
			return err
		}
		message = message[udpPayload:]
	}
	return c.write(message)
}

func (c *udpConn) Receive(message []byte) error {
	for at := 0; at < len(message); {
		n, err := c.read(c.patient)
		if err != nil {
			return err
		}
		if n > len(message)-at {
			return fmt.Errorf("%d bytes came, %d were to come", n, len(message)-at)
		}
		at += copy(message[at:], c.buffer[:n])
	}
	return nil
}

// Close says goodbye, which the other end sees as an empty datagram or as a port at which
// nobody listens.
func (c *udpConn) Close() error {
	_, _ = c.socket.Write(nil) // it may be gone already
	err := c.socket.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// control calls set with a socket's descriptor.
func control(socket *net.UDPConn, set func(fd int) error) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil { //nolint:gosec // a descriptor
		return err
	}
	return failed
}

// tuneUDP gives a socket large buffers, as far as the kernel lets it, and tells whether
// the kernel joins runs of datagrams, and so cuts them, and whether it gave the buffers.
func tuneUDP(socket *net.UDPConn) (runs, roomy bool) {
	runs = control(socket, func(fd int) error {
		for option, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
			if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, udpBuffer) != nil {
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, udpBuffer) // the window holds with less, too
			}
		}
		size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		roomy = err == nil && size >= udpBuffer
		return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}) == nil
	return runs, roomy
}

// cutUDP makes the kernel cut what is written into datagrams of a size, 0 for not.
func cutUDP(socket *net.UDPConn, size int) error {
	return control(socket, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
}

// connectUDP makes an address the only one that a socket sends to and hears.
func connectUDP(socket *net.UDPConn, to netip.AddrPort) error {
	var at syscall.Sockaddr
	if to.Addr().Unmap().Is4() {
		at = &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	} else {
		at = &syscall.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	return control(socket, func(fd int) error { return syscall.Connect(fd, at) })
}
