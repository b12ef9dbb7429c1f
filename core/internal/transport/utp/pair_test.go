package utp

import (
	"context"
	"net"
	"sync"
	"testing"
)

// lane is a Path that hands packets straight to the other side's Port.
type lane struct {
	to   *Port
	sent func(packet []byte) bool // sees each packet first; false refuses it
	edit func(packet []byte)      // may change what arrives
}

func (l *lane) SendPacket(packet []byte) bool {
	if l.sent != nil && !l.sent(packet) {
		return false
	}
	if l.to == nil {
		return true // a peer that never says anything
	}
	packet = append([]byte(nil), packet...)
	if l.edit != nil {
		l.edit(packet)
	}
	l.to.Input(packet)
	return true
}

// stack returns a Stack that ends with the test, and its goroutine with it.
func stack(t testing.TB, cfg Config) *Stack {
	t.Helper()
	var group sync.WaitGroup
	cfg.Go = func(f func()) { group.Go(f) }
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		group.Wait()
	})
	return s
}

type name string

func (name) Network() string  { return "utp" }
func (n name) String() string { return string(n) }

// ports returns two Ports of two Stacks with lanes between.
func ports(t testing.TB, cfg Config) (a, b *Port, ab, ba *lane) {
	t.Helper()
	ab, ba = &lane{}, &lane{}
	a = stack(t, cfg).Add(ab, name("a"), name("b"))
	b = stack(t, cfg).Add(ba, name("b"), name("a"))
	ab.to, ba.to = b, a
	return a, b, ab, ba
}

// connect has a dial b.
func connect(t testing.TB, a, b *Port) (*Conn, *Conn) {
	t.Helper()
	type result struct {
		conn *Conn
		err  error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := b.Accept(context.Background())
		accepted <- result{c, err}
	}()
	dialled, err := a.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	other := <-accepted
	if other.err != nil {
		t.Fatal(other.err)
	}
	return dialled, other.conn
}

// conns returns a connection over direct lanes.
func conns(t testing.TB, cfg Config) (*Conn, *Conn) {
	t.Helper()
	a, b, _, _ := ports(t, cfg)
	return connect(t, a, b)
}

var _ net.Conn = (*Conn)(nil)
