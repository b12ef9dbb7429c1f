package utp

import (
	"bytes"
	"errors"
	"net"
	"sync"

	libutp "github.com/anacrolix/go-libutp"
)

// memory is a net.PacketConn for go-libutp as it is, to show what it does.
type memory struct {
	in, out chan []byte
	once    sync.Once
	closed  chan struct{}
	net.PacketConn
}

var memoryAddr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}

func newMemory() *memory {
	return &memory{in: make(chan []byte, 100), out: make(chan []byte, 100), closed: make(chan struct{})}
}

func (m *memory) LocalAddr() net.Addr { return memoryAddr }

func (m *memory) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-m.in:
		return copy(b, p), memoryAddr, nil
	case <-m.closed:
		return 0, nil, errors.New("closed")
	}
}

func (m *memory) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case m.out <- bytes.Clone(b):
	default:
	}
	return len(b), nil
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// raw returns go-libutp over a memory.
func raw() (*libutp.Socket, *memory, error) {
	m := newMemory()
	s, err := libutp.NewSocketFromPacketConn(m)
	return s, m, err
}
