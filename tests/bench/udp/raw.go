//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Raw UDP shows what the machine can do with datagrams: a stream of bytes in them
// without encryption and without repair. Credit keeps the sender from overrunning
// the receiver's socket; if a datagram is lost nevertheless, the stream fails.
//
// Each datagram begins with its kind and a count of bytes, 8 bytes big-endian.
const (
	kindHello   = 1 // to the listening socket
	kindWelcome = 2 // from a socket of the stream's own
	kindData    = 3 // the count of bytes before
	kindCredit  = 4 // the count of bytes received
	kindEnd     = 5
	// kindDatagram is an unreliable datagram, of any length.
	kindDatagram = 6

	rawHeader   = 9
	rawDatagram = 1400 // with the header
	rawPayload  = rawDatagram - rawHeader
	rawRun      = 46      // datagrams of a batch: all that fits into 64 KiB
	rawWindow   = 1 << 20 // bytes on the way: what the socket's buffer surely holds
	rawCredit   = rawWindow / 8
	rawBuffer   = 4 << 20
)

// way is how raw UDP asks the kernel: by a system call for each datagram, by one
// for many datagrams (sendmmsg, recvmmsg), or by one for a run of equal ones, which
// the kernel cuts (GSO) and joins (GRO). Streams know only the first and the last.
type way int

const (
	singly way = iota
	batches
	runs
)

// rawPeer is raw UDP.
func rawPeer(name string, how way) peer {
	return peer{
		name: name,
		listen: func(addr string) (acceptor, error) {
			at, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			socket, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
			return &rawAcceptor{socket, how}, err
		},
		newDialer: func() (dialer, error) { return rawDialer{how}, nil },
	}
}

type rawAcceptor struct {
	socket *net.UDPConn
	way    way
}

func (a *rawAcceptor) Addr() net.Addr { return a.socket.LocalAddr() }
func (a *rawAcceptor) Close() error   { return a.socket.Close() }

func (a *rawAcceptor) Accept() (io.ReadWriteCloser, error) {
	var hello [rawDatagram]byte
	for {
		n, from, err := a.socket.ReadFromUDP(hello[:])
		if err != nil {
			return nil, err
		}
		if n != rawHeader || hello[0] != kindHello {
			continue
		}
		local := a.socket.LocalAddr().(*net.UDPAddr).IP
		own, err := net.DialUDP("udp4", &net.UDPAddr{IP: local}, from)
		if err != nil {
			return nil, err
		}
		s, err := newRawStream(own, a.way)
		if err == nil {
			err = s.control(kindWelcome, 0)
		}
		if err != nil {
			return nil, errors.Join(err, own.Close())
		}
		return s, nil
	}
}

type rawDialer struct{ way way }

func (rawDialer) Close() error { return nil }

func (d rawDialer) Dial(ctx context.Context, addr string) (io.ReadWriteCloser, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	s, err := newRawStream(socket, d.way)
	if err == nil {
		err = s.greet(ctx, to)
	}
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return s, nil
}

// greet says hello until the welcome comes, and connects the socket to where it
// comes from.
func (s *rawStream) greet(ctx context.Context, to netip.AddrPort) error {
	hello := [rawHeader]byte{kindHello}
	for ctx.Err() == nil {
		if _, err := s.socket.WriteToUDPAddrPort(hello[:], to); err != nil {
			return err
		}
		if err := s.socket.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		n, from, err := s.socket.ReadFromUDPAddrPort(s.in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		if n != rawHeader || s.in[0] != kindWelcome {
			return fmt.Errorf("%v answered something else", to)
		}
		if err := s.socket.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		var failed error
		if err := s.raw.Control(func(fd uintptr) {
			failed = unix.Connect(int(fd), &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().Unmap().As4()})
		}); err != nil {
			return err
		}
		return failed
	}
	return context.Cause(ctx)
}

// rawStream is one end of a stream. One goroutine uses it; another may close it.
type rawStream struct {
	socket *net.UDPConn
	raw    syscall.RawConn
	way    way

	sent, credit   uint64
	received, told uint64
	failed         error

	out, oob []byte
	in       []byte // a run: the first count bytes, cut every segment bytes, taken up to at
	count    int
	segment  int
	at       int
	rest     []byte // of the last datagram, in in
	early    []byte // came while writing
}

func newRawStream(socket *net.UDPConn, how way) (*rawStream, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	// The kernel gives what it allows.
	_ = socket.SetReadBuffer(rawBuffer)
	_ = socket.SetWriteBuffer(rawBuffer)
	s := &rawStream{socket: socket, raw: raw, way: how, credit: rawWindow, in: make([]byte, 65536), oob: make([]byte, 64)}
	if how == runs {
		err = s.option(unix.UDP_GRO, 1)
	}
	return s, err
}

func (s *rawStream) option(name, value int) (err error) {
	if failed := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, name, value) }); failed != nil {
		return failed
	}
	return err
}

func (s *rawStream) control(kind byte, count uint64) error {
	var b [rawHeader]byte
	b[0] = kind
	binary.BigEndian.PutUint64(b[1:], count)
	_, err := s.socket.Write(b[:])
	return err
}

func (s *rawStream) Write(data []byte) (int, error) {
	for left := data; len(left) > 0; {
		for s.sent >= s.credit {
			if len(s.rest) > 0 {
				s.early, s.rest = append(s.early, s.rest...), nil
			}
			payload, err := s.next()
			if err != nil {
				return len(data) - len(left), err
			}
			s.early = append(s.early, payload...)
		}
		s.out = s.out[:0]
		for n := 0; len(left) > 0 && s.sent < s.credit && (n == 0 || s.way == runs && n < rawRun); n++ {
			size := min(len(left), rawPayload)
			s.out = append(s.out, kindData)
			s.out = binary.BigEndian.AppendUint64(s.out, s.sent)
			s.out = append(s.out, left[:size]...)
			s.sent += uint64(size)
			left = left[size:]
		}
		if err := s.send(s.out); err != nil {
			return len(data) - len(left), err
		}
	}
	return len(data), nil
}

// send sends a run of the stream's datagrams.
func (s *rawStream) send(run []byte) error {
	if len(run) <= rawDatagram {
		_, err := s.socket.Write(run)
		return err
	}
	return sendRun(s.raw, run, rawDatagram, s.oob)
}

// sendRun sends a run on a connected socket, which the kernel cuts every size bytes.
func sendRun(raw syscall.RawConn, run []byte, size int, oob []byte) error {
	oob = oob[:unix.CmsgSpace(2)]
	clear(oob)
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], uint16(size))
	var err error
	if failed := raw.Write(func(fd uintptr) bool {
		_, err = unix.SendmsgN(int(fd), run, oob, nil, 0)
		return err != unix.EAGAIN
	}); failed != nil {
		return failed
	}
	return err
}

// receiveRun waits for datagrams and returns their bytes' number and the size at
// which they are to be cut.
func receiveRun(raw syscall.RawConn, in, oob []byte) (n, size int, err error) {
	var control int
	if failed := raw.Read(func(fd uintptr) bool {
		n, control, _, _, err = unix.Recvmsg(int(fd), in, oob, 0)
		return err != unix.EAGAIN && err != unix.EINTR
	}); failed != nil {
		return 0, 0, failed
	}
	size = n
	if control >= unix.CmsgLen(4) && binary.NativeEndian.Uint32(oob[8:]) == unix.SOL_UDP && binary.NativeEndian.Uint32(oob[12:]) == unix.UDP_GRO {
		size = int(binary.NativeEndian.Uint32(oob[16:]))
	}
	return n, size, err
}

// next takes one datagram and returns its data, if it has any.
func (s *rawStream) next() ([]byte, error) {
	if s.failed != nil {
		return nil, s.failed
	}
	if s.at >= s.count {
		var err error
		s.at = 0
		if s.way == runs {
			s.count, s.segment, err = receiveRun(s.raw, s.in, s.oob)
		} else {
			s.count, err = s.socket.Read(s.in)
			s.segment = s.count
		}
		if err != nil {
			s.count, s.failed = 0, err
			return nil, err
		}
	}
	datagram := s.in[s.at:min(s.at+s.segment, s.count)]
	s.at += s.segment
	if len(datagram) < rawHeader {
		return nil, nil
	}
	count, payload := binary.BigEndian.Uint64(datagram[1:]), datagram[rawHeader:]
	switch datagram[0] {
	case kindCredit:
		s.credit = max(s.credit, count+rawWindow)
	case kindEnd:
		s.failed = io.EOF
		return nil, io.EOF
	case kindData:
		if count != s.received {
			s.failed = fmt.Errorf("%d bytes were lost on the way", count-s.received)
			return nil, s.failed
		}
		s.received += uint64(len(payload))
		if s.received-s.told >= rawCredit {
			s.told = s.received
			return payload, s.control(kindCredit, s.received)
		}
		return payload, nil
	}
	return nil, nil
}

func (s *rawStream) Read(b []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(b, s.early)
		s.early = s.early[:copy(s.early, s.early[n:])]
		return n, nil
	}
	n := 0
	for n < len(b) {
		if len(s.rest) == 0 {
			if n > 0 && s.at >= s.count {
				break
			}
			var err error
			if s.rest, err = s.next(); err != nil {
				if n > 0 {
					break // the next Read says it
				}
				return 0, err
			}
		}
		took := copy(b[n:], s.rest)
		n += took
		s.rest = s.rest[took:]
	}
	return n, nil
}

func (s *rawStream) Close() error {
	_ = s.control(kindEnd, 0) // the other end may be gone
	return s.socket.Close()
}
