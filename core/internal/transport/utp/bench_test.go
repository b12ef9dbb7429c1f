package utp

import (
	"io"
	"testing"
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
	for b.Loop() {
		ab, ba := &lane{}, &lane{}
		p, q := s.Add(ab, name("a"), name("b")), t.Add(ba, name("b"), name("a"))
		ab.to, ba.to = q, p
		c, d := connect(b, p, q)
		c.Close()
		d.Close()
	}
}
