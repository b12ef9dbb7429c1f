package crust

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/portmap"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Peers tell each other at which ports they can be dialled, at the address that the
// other one sees: when they have learned that address, and when what routers pass
// on has changed. No address is told, so nobody can be made to dial a third party.

const (
	// meetAgain is how many peers, whose links are carried by others, are met again at
	// most when there is a mapping, and againLife for how long that is tried.
	meetAgain = 16
	againLife = 10 * time.Second
	// doorsRest is how often at most a peer makes us dial by telling that it can be
	// dialled elsewhere.
	doorsRest = 10 * time.Second
)

// tellMappings is a goroutine that has sessions make use of what has changed: peers
// are told where they can dial now, those whose links others carry are met again,
// and links that may have come through what is gone are proved.
func (s *Service) tellMappings(lost bool) {
	s.lookAround()
	s.lookup.RLock()
	peers := slices.Collect(maps.Values(s.peers))
	s.lookup.RUnlock()
	open, again := len(s.mapped()) > 0, 0
	for _, p := range peers {
		s.mu.Lock()
		how, seen := p.how, p.seen
		s.seek(p, true)
		s.mu.Unlock()
		switch {
		case how == Relayed:
			if again++; open && again <= meetAgain {
				s.spawn(func() { s.meetAgain(p) })
			}
			continue
		case lost:
			p.sess.Prove()
		}
		s.tellDoors(p, seen)
	}
}

// meetAgain is a goroutine that lets a peer know by letters where it can dial us,
// while another peer carries their link.
func (s *Service) meetAgain(p *peer) {
	ctx, cancel := context.WithTimeout(s.ctx, againLife)
	defer cancel()
	a := &attempt{peer: p.id, meets: true, quiet: true, began: time.Now(), ctx: ctx}
	if err := s.meet(a); err != nil {
		s.log.Debug("a peer was not met again", "peer", p.id, "error", err)
		return
	}
	s.mu.Lock()
	eps, mapped := a.endpoints, a.mapped
	s.mu.Unlock()
	s.beyondRelay(p.id, eps, mapped)
}

// seenFrom notes as whom a peer sees us, and tells it at which ports we can be
// dialled there.
func (s *Service) seenFrom(p *peer, seen netip.Addr) {
	s.mu.Lock()
	p.seen = seen
	relayed := p.how == Relayed
	s.mu.Unlock()
	if !relayed { // else it is the relay that is seen
		s.tellDoors(p, seen)
	}
}

// tellDoors tells a peer at which ports of the address that it sees we can be dialled.
func (s *Service) tellDoors(p *peer, seen netip.Addr) {
	if d := s.doors(seen); d != (wire.Doors{}) {
		p.sess.SendControl(d.Append(nil))
	}
}

// doors returns at which ports we can be dialled at an address, which others see us
// at: those of the listeners if the address is one of ours, and those that a router
// passes on. Who is near needs no help.
func (s *Service) doors(seen netip.Addr) (d wire.Doors) {
	if endpoint.New(TCP, netip.AddrPortFrom(seen, 1)).Scope() < endpoint.CGNAT {
		return d
	}
	if addrs, err := s.network.Addrs(); err == nil && slices.Contains(addrs, seen) {
		for _, l := range s.mappables() {
			if l.old || l.ep.Transport == Tracer || len(reachable(l.ep, []netip.Addr{seen})) == 0 || !l.ep.Addr.Addr().IsUnspecified() && l.ep.Addr.Addr() != seen {
				continue
			}
			if port := l.ep.Addr.Port(); l.ep.Transport == UTP {
				d.UTP = cmp.Or(d.UTP, port)
			} else {
				d.TCP = cmp.Or(d.TCP, port)
			}
		}
	}
	for _, m := range s.mappings() {
		port := m.External.Port()
		switch {
		case m.Double || m.External.Addr() != seen:
		case m.Protocol == portmap.TCP && !d.MappedTCP:
			d.TCP, d.MappedTCP = port, true
		case m.Protocol == portmap.UDP && !d.MappedUTP:
			d.UTP, d.MappedUTP = port, true
		}
	}
	return d
}

// doorsCame takes at which ports a peer says that it can be dialled, and looks for a
// better link there, if that would be one: soon when the link is new, as for any
// other endpoint, and otherwise at once, but not often.
func (s *Service) doorsCame(p *peer, r wire.Doors) {
	_, remote, _, _ := s.whereLink(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.how == Relayed || !remote.IsValid() { // the address is the relay's
		return
	}
	news := false
	for i, at := range []struct {
		t      Transport
		port   uint16
		mapped bool
	}{{UTP, r.UTP, r.MappedUTP}, {TCP, r.TCP, r.MappedTCP}} {
		ep := endpoint.New(at.t, netip.AddrPortFrom(remote.Addr(), at.port))
		if at.port == 0 {
			continue
		}
		if at.mapped {
			p.markMapped(ep)
		}
		if !slices.Contains(p.endpoints, ep) { // it takes the place of what it told before
			p.endpoints = slices.DeleteFunc(p.endpoints, func(e Endpoint) bool { return e == p.doors[i] })
			p.doors[i], news = ep, true
		}
		p.reach(ep)
	}
	if now := time.Now(); news && now.Sub(p.sought) >= doorsRest {
		p.sought = now
		s.seek(p, now.Sub(p.upgrade.since) >= upgradeFirst)
	}
}

// markMapped notes that routers pass on what comes to endpoints of the peer.
// Service.mu is held.
func (p *peer) markMapped(eps ...Endpoint) {
	for _, ep := range eps {
		if slices.Contains(p.mapped, ep) {
			continue
		}
		if len(p.mapped) >= wire.MaxEndpoints {
			p.mapped = slices.Delete(p.mapped, 0, 1)
		}
		p.mapped = append(p.mapped, ep)
	}
}

// throughMapping reports whether an endpoint that was dialled is one that a router
// of the peer passes on. Service.mu is held; either may be nil.
func throughMapping(p *peer, a *attempt, at Endpoint) bool {
	return a != nil && slices.Contains(a.mapped, at) || p != nil && slices.Contains(p.mapped, at)
}

// way returns how a link came about, for people: one that was dialled through a port
// mapping of the peer is told from others. Service.mu is held; p may be nil.
func (a *adoption) way(p *peer) How {
	if (a.how == Dialed || a.how == Punched && a.admit == nil) && throughMapping(p, a.attempt, a.endpoint) {
		return Mapped
	}
	return a.how
}
