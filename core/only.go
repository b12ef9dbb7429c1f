package crust

import (
	"fmt"
	"slices"
	"strings"
)

// ParseHow reads "dialed", "accepted", "mapped", "punched" or "relayed".
func ParseHow(text string) (How, error) {
	for h := Dialed; h <= Relayed; h++ {
		if h.String() == text {
			return h, nil
		}
	}
	return 0, &Error{Op: "parse", Code: CodeInvalid, Err: fmt.Errorf("a way is dialed, accepted, mapped, punched or relayed, not %q", text)}
}

// checkOnly checks the ways of a configuration.
func (c *Config) checkOnly() error {
	for _, h := range c.Only {
		if h < Dialed || h > Relayed {
			return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf("way %d is unknown", h)}
		}
	}
	return nil
}

// allows reports whether links may come about in one of these ways.
func (s *Service) allows(ways ...How) bool {
	return len(s.cfg.Only) == 0 || slices.ContainsFunc(ways, func(h How) bool { return slices.Contains(s.cfg.Only, h) })
}

// notAllowed is why a link is not made.
func (s *Service) notAllowed(id PeerID, ep Endpoint) *Error {
	words := make([]string, len(s.cfg.Only))
	for i, h := range s.cfg.Only {
		words[i] = h.String()
	}
	return &Error{Op: "connect", Peer: id, Endpoint: ep, Code: CodeNotAllowed, Err: fmt.Errorf("links may only be %s", strings.Join(words, ", "))}
}

// unwanted reports whether a link came about in a way that is not allowed.
func (s *Service) unwanted(id PeerID, a *adoption) bool {
	if len(s.cfg.Only) == 0 {
		return false
	}
	s.mu.Lock()
	how := a.way(s.known(id))
	s.mu.Unlock()
	return !s.allows(how)
}
