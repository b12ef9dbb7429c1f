package secure

import (
	"io"
	"sync"

	"github.com/flynn/noise"
)

// Spare holds one ephemeral key pair in advance. Each handshake uses the spare
// and makes the next one while it waits for the other side, so that making it
// takes no time of a handshake. A pair is used once; its secret is erased with
// the handshake that used it, or by Zero.
type Spare struct {
	mu   sync.Mutex
	pair *noise.DHKey
	over bool // Zero was called
}

// take returns the spare, nil when there is none.
func (s *Spare) take() *noise.DHKey {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pair := s.pair
	s.pair = nil
	return pair
}

// refill makes a spare unless there is one.
func (s *Spare) refill(random io.Reader) {
	if s == nil {
		return
	}
	s.mu.Lock()
	needed := s.pair == nil && !s.over
	s.mu.Unlock()
	if !needed {
		return
	}
	pair, err := sodiumDH{}.GenerateKeypair(random)
	if err != nil {
		return // the handshake that needs one will say why
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pair != nil || s.over {
		clear(pair.Private)
		return
	}
	s.pair = &pair
}

// Zero erases the spare; no other will be made.
func (s *Spare) Zero() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.pair != nil {
		clear(s.pair.Private)
		s.pair = nil
	}
}

// spareDH is the DH function of one handshake, which takes the spare if there is one.
type spareDH struct {
	sodiumDH
	spare *Spare
}

func (d spareDH) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	if pair := d.spare.take(); pair != nil {
		return *pair, nil
	}
	return d.sodiumDH.GenerateKeypair(random)
}
