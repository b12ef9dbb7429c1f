package utp

import (
	"io"
	"net"
	"testing"

	libutp "github.com/anacrolix/go-libutp"
)

func BenchmarkBulk(b *testing.B) {
	c, d := conns(b, Config{})
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	go func() {
		for range b.N {
			c.Write(chunk)
		}
		c.CloseWrite()
	}()
	if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{d}, chunk); err != nil || n != int64(b.N)*int64(len(chunk)) {
		b.Fatal(n, err)
	}
}

func BenchmarkRoundTrip64(b *testing.B) {
	c, d := conns(b, Config{})
	go func() {
		p := make([]byte, 64)
		for {
			n, err := d.Read(p)
			if err != nil {
				return
			}
			d.Write(p[:n])
		}
	}()
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(p)
		io.ReadFull(c, p)
	}
	c.Close()
}

func BenchmarkConnect(b *testing.B) {
	s, t := stack(b, Config{}), stack(b, Config{})
	one := make([]byte, 1)
	for b.Loop() {
		ab, ba := &lane{}, &lane{}
		p, q := s.Add(ab, name("a"), name("b")), t.Add(ba, name("b"), name("a"))
		ab.to, ba.to = q, p
		c, d := connect(b, p, q)
		c.Write(one)
		io.ReadFull(d, one)
		d.Write(one)
		io.ReadFull(c, one)
		c.Close()
		d.Close()
	}
}

// The same with go-libutp as it is, over UDP on loopback.

func rawSockets(b *testing.B) (dial func() net.Conn, accept func() net.Conn) {
	var sockets [2]*libutp.Socket
	for i := range sockets {
		s, err := libutp.NewSocket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		sockets[i] = s
	}
	accepted := make(chan net.Conn, 5)
	go func() {
		for {
			c, err := sockets[1].Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial = func() net.Conn {
		c, err := sockets[0].Dial(sockets[1].Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	return dial, func() net.Conn { return <-accepted }
}

func BenchmarkRawBulk(b *testing.B) {
	dial, accept := rawSockets(b)
	c := dial()
	d := accept()
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	go func() {
		for range b.N {
			c.Write(chunk)
		}
	}()
	if _, err := io.CopyN(io.Discard, d, int64(b.N)*int64(len(chunk))); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkRawRoundTrip64(b *testing.B) {
	dial, accept := rawSockets(b)
	c := dial()
	go io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	d := accept()
	p := make([]byte, 64)
	for b.Loop() {
		d.Write(p)
		io.ReadFull(d, p)
	}
}

// A connection with one byte each way: go-libutp sends the dialler's first byte
// only after its empty first packet was acknowledged, which takes a timer of a
// millisecond, and keeps closed connections until a timer of 500 ms.
func BenchmarkRawConnect(b *testing.B) {
	dial, accept := rawSockets(b)
	p := make([]byte, 1)
	for b.Loop() {
		c := dial()
		d := accept()
		c.Write(p)
		io.ReadFull(d, p)
		d.Write(p)
		io.ReadFull(c, p)
		c.Close()
		d.Close()
	}
}
