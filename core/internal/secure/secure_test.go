package secure

import (
	"net"
	"testing"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

func config(t testing.TB, network string) *Config {
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return &Config{Key: k, Network: NewNetwork(network), Seen: new(Seen), Hello: wire.Hello{Instance: 7, Ciphers: 3, LostAfter: 1000}}
}

func pair(t testing.TB, a, b *Config) (x, y *Link) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan *Link)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
		}
		l, err := Respond(c, b)
		if err != nil {
			t.Error(err)
		}
		done <- l
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	x, err = Initiate(c, a, b.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	x.Conn.Write(x.First)
	return x, <-done
}

func TestHandshake(t *testing.T) {
	a, b := config(t, "n"), config(t, "n")
	x, y := pair(t, a, b)
	if x.Remote.Peer != b.Key.ID() || y.Remote.Peer != a.Key.ID() {
		t.Fatal("wrong identities")
	}
	rec := x.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, []byte("hello"))
	h, err := y.Open.Header(rec[:wire.SealedHeader])
	if err != nil || h.Len != 5 {
		t.Fatal(h, err)
	}
	body, err := y.Open.Body(nil, rec[wire.SealedHeader:])
	if err != nil || string(body) != "hello" {
		t.Fatal(body, err)
	}
}

func BenchmarkHandshake(b *testing.B) {
	x, y := config(b, "n"), config(b, "n")
	for b.Loop() {
		l, m := pair(b, x, y)
		l.Conn.Close()
		m.Conn.Close()
	}
}
