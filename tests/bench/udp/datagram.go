//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
	"golang.org/x/net/ipv4"
)

// datagramStream is a stream whose connection carries unreliable datagrams too.
type datagramStream interface {
	benchkit.DatagramSender
	benchkit.DatagramReceiver
}

// datagramConn is benchkit's view of it.
type datagramConn struct {
	benchkit.Conn
	datagramStream
}

// withDatagrams is conn, with the datagrams of its stream if that has some.
func withDatagrams(conn benchkit.Conn, stream any) benchkit.Conn {
	if s, ok := stream.(datagramStream); ok {
		return datagramConn{conn, s}
	}
	return conn
}

// together is how many datagrams of raw UDP go to one sendmmsg.
const together = 64

// SendDatagrams sends them by the calls of the way.
func (s *rawStream) SendDatagrams(size int, d time.Duration) (sent int, err error) {
	data := make([]byte, size)
	data[0] = kindDatagram
	send := func() (int, error) {
		_, err := s.socket.Write(data)
		return 1, err
	}
	switch s.way {
	case batches:
		conn, ms := ipv4.NewPacketConn(s.socket), make([]ipv4.Message, together)
		for i := range ms {
			ms[i].Buffers = [][]byte{data}
		}
		send = func() (int, error) { return conn.WriteBatch(ms, 0) }
	case runs:
		run, n := []byte(nil), min(together, 65507/size)
		for range n {
			run = append(run, data...)
		}
		send = func() (int, error) { return n, sendRun(s.raw, run, size, s.oob) }
	}
	for start := time.Now(); time.Since(start) < d; {
		n, err := send()
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// ReceiveDatagrams receives them by the calls of the way.
func (s *rawStream) ReceiveDatagrams(size int, d time.Duration) (received int, err error) {
	receive := func() (int, error) {
		n, _, err := s.socket.ReadFromUDPAddrPort(s.in)
		return datagramsIn(n, size), err
	}
	switch s.way {
	case batches:
		conn, ms := ipv4.NewPacketConn(s.socket), make([]ipv4.Message, together)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, 2048)}
		}
		receive = func() (int, error) {
			n, err := conn.ReadBatch(ms, 0)
			return max(n, 0), err
		}
	case runs:
		receive = func() (int, error) {
			n, _, err := receiveRun(s.raw, s.in, s.oob)
			return datagramsIn(n, size), err
		}
	}
	for received == 0 {
		if received, err = receive(); err != nil {
			return received, err
		}
	}
	if err := s.socket.SetReadDeadline(time.Now().Add(d)); err != nil {
		return received, err
	}
	for err == nil {
		var n int
		n, err = receive()
		received += n
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = s.socket.SetReadDeadline(time.Time{})
	}
	return received, err
}

func datagramsIn(n, size int) int { return (max(n, 0) + size - 1) / size }

// SendDatagrams sends QUIC's.
func (s quicStream) SendDatagrams(size int, d time.Duration) (sent int, err error) {
	data := make([]byte, size)
	for start := time.Now(); time.Since(start) < d; sent++ {
		if err := s.conn.SendDatagram(data); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// ReceiveDatagrams receives QUIC's.
func (s quicStream) ReceiveDatagrams(_ int, d time.Duration) (received int, err error) {
	if _, err = s.conn.ReceiveDatagram(context.Background()); err != nil {
		return 0, err
	}
	over, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for err == nil {
		received++
		_, err = s.conn.ReceiveDatagram(over)
	}
	if over.Err() != nil {
		err = nil
	}
	return received, err
}

var (
	_ datagramStream = (*rawStream)(nil)
	_ datagramStream = quicStream{}
)
