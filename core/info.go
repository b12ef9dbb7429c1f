package crust

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// infoLifetime is how long a connection info holds.
const infoLifetime = 24 * time.Hour

// ParseConnectionInfo checks what EventConnectionInfo gave to the other side:
// form, signature and age. It returns who made it and where it can be reached.
// Errors are CodeBadInfo.
func ParseConnectionInfo(info []byte) (PeerID, []Endpoint, error) {
	i, err := parseInfo(info)
	return i.Peer, i.Endpoints, err
}

func parseInfo(info []byte) (wire.Info, error) {
	i, err := wire.ParseInfo(info)
	if err == nil && uint64(time.Now().Unix()) > i.Expires {
		err = fmt.Errorf("connection info: it expired at %s", time.Unix(int64(min(i.Expires, 1<<40)), 0).UTC().Format(time.RFC3339))
	}
	if err != nil {
		return wire.Info{}, &Error{Op: "parse", Code: CodeBadInfo, Err: err}
	}
	return i, nil
}

// ParseContact reads "ENDPOINT" or "ENDPOINT#PEER". Errors are CodeInvalid.
func ParseContact(text string) (Contact, error) {
	ep, id, found := strings.Cut(text, "#")
	var c Contact
	var err error
	if c.Endpoint, err = endpoint.Parse(ep); err == nil && found {
		c.Peer, err = identity.ParsePeerID(id)
	}
	if err != nil {
		return Contact{}, &Error{Op: "parse", Code: CodeInvalid, Err: err}
	}
	return c, nil
}

// String returns what ParseContact reads.
func (c Contact) String() string {
	if c.Peer.IsZero() {
		return c.Endpoint.String()
	}
	return c.Endpoint.String() + "#" + c.Peer.String()
}

// connectionInfo makes this service's connection info. It has no contact record in it,
// which whoever takes it could pass on by gossip: an info is for who gets it. The peer sends
// its record itself as soon as there is a session.
func (s *Service) connectionInfo() ([]byte, error) {
	eps, mapped, err := s.endpoints()
	if err != nil {
		return nil, err
	}
	eps = s.withClear(eps)
	i := wire.Info{Peer: s.ID(), Expires: uint64(time.Now().Add(infoLifetime).Unix()), Endpoints: eps, Mapped: mapped}
	i.UDP, i.TCP = s.facts()
	if _, err := rand.Read(i.Nonce[:]); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.made = infoFacts{i.UDP, i.TCP}
	s.mu.Unlock()
	return i.Append(nil, s.key.Sign), nil
}

// endpoints returns where this service may be dialled, those of the widest scope
// first, and of those what routers pass on, which is marked in mapped by bits.
func (s *Service) endpoints() (eps []Endpoint, mapped uint32, err error) {
	addrs, err := s.network.Addrs()
	if err != nil {
		return nil, 0, fmt.Errorf("cannot list the addresses of this machine: %w", err)
	}
	passed := s.mapped()
	eps = append(eps, passed...)
	for _, l := range s.Listeners() {
		if !s.isOld(l) && l.Transport != Tracer {
			eps = append(eps, reachable(l, addrs)...)
		}
	}
	slices.SortStableFunc(eps, func(a, b Endpoint) int { return int(b.Scope()) - int(a.Scope()) })
	seen := make(map[Endpoint]bool, len(eps))
	eps = slices.DeleteFunc(eps, func(ep Endpoint) bool {
		again := seen[ep]
		seen[ep] = true
		return again
	})
	eps = eps[:min(len(eps), wire.MaxEndpoints)]
	return eps, marks(eps, passed), nil
}

// isOld reports whether the listener at ep has a successor.
func (s *Service) isOld(ep Endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.listeners[ep]
	return l != nil && l.old
}

// reachable returns where a listener can be reached: one that is bound to all
// addresses, at each address of its family; dual-stack ones at every address.
func reachable(l Endpoint, addrs []netip.Addr) (eps []Endpoint) {
	if !l.Addr.Addr().IsUnspecified() {
		return []Endpoint{l}
	}
	for _, a := range addrs {
		if a.Is4() || l.Addr.Addr().Is6() {
			eps = append(eps, endpoint.New(l.Transport, netip.AddrPortFrom(a, l.Addr.Port())))
		}
	}
	return eps
}

var errSelf = errors.New("this is our own service")
