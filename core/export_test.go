package crust

import (
	"github.com/libcrust/libcrust/core/internal/nat/portmap"
	"github.com/libcrust/libcrust/core/internal/netio"
)

// On returns cfg for a service that lives in another network than the kernel's.
func On(network netio.Network, cfg Config) Config {
	cfg.network = network
	return cfg
}

// Control sends a peer a frame that no service would send.
func Control(s *Service, id PeerID, frame []byte) bool {
	p := s.find(id)
	return p != nil && p.sess.SendControl(frame)
}

// Mapper asks routers for ports, or pretends to.
type Mapper = mapper

// Mapping returns cfg for a service that has its ports mapped by what start returns.
func Mapping(cfg Config, start func(portmap.Config) Mapper) Config {
	cfg.mapper = start
	return cfg
}

// HeardContacts returns what Bootstrap may try of the peers that beacons have told of.
func HeardContacts(s *Service) ([]Contact, <-chan struct{}) { return s.heardContacts() }

// Secrets tells what an attacker may know of a session who has everything but keys: its name,
// and how many records of content have come in it.
func Secrets(s *Service, id PeerID) (name [16]byte, received uint64) {
	p := s.find(id)
	return p.sess.ID(), p.sess.Received()
}

// Instance returns which life of a service this is.
func Instance(s *Service) uint64 { return s.secure.Hello.Instance }

// Push puts an event into the queue.
func Push(s *Service, e EventType) { s.events.push(Event{Type: e}) }

// OneTimeKeys returns how many secret halves of one-time keys a service has, of those left with
// relays, and how many keys of others.
func OneTimeKeys(s *Service) (left, stock int) {
	c := &s.circuits
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.left {
		left += len(l.keys)
	}
	for _, list := range c.stock {
		stock += len(list)
	}
	return left, stock
}

// ForgetTombs does what a service does that has lost many sessions since.
func ForgetTombs(s *Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tombs)
}
