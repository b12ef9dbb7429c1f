package secure

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// TestSpare: each pair is used once, and gone after Zero.
func TestSpare(t *testing.T) {
	s := new(Spare)
	if s.take() != nil {
		t.Fatal("a spare from nowhere")
	}
	s.refill(rand.Reader)
	s.refill(rand.Reader)
	dh := spareDH{spare: s}
	first, err := dh.GenerateKeypair(rand.Reader)
	if err != nil || s.take() != nil {
		t.Fatal("the spare was not used up", err)
	}
	second, err := dh.GenerateKeypair(rand.Reader)
	if err != nil || bytes.Equal(first.Private, second.Private) || len(second.Public) != 32 {
		t.Fatal("a pair came twice", err)
	}
	s.refill(rand.Reader)
	kept := s.pair.Private
	s.Zero()
	s.refill(rand.Reader)
	if s.take() != nil || !bytes.Equal(kept, make([]byte, 32)) {
		t.Fatal("a secret outlived Zero")
	}
	(*Spare)(nil).refill(rand.Reader)
}

// TestHandshakesWithSpares: the ephemeral keys of successive handshakes differ.
func TestHandshakesWithSpares(t *testing.T) {
	a, b := config(t, "n"), config(t, "n")
	a.Spare, b.Spare = new(Spare), new(Spare)
	for range 4 {
		x, y := pair(t, a, b)
		if x.Remote.Peer != b.Key.ID() || y.Remote.Peer != a.Key.ID() {
			t.Fatal("wrong identities")
		}
		x.Conn.Close()
		y.Conn.Close()
	}
}
