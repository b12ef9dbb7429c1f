package crust

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/guard"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Who is worth more gets the room. When there is none, a session ends that is worth
// less than the one that is to come, of these the one that has come last:
//
//	stranger, came to us < known: a session with it has lasted < dialled by us < of a kept group
//
// So a stranger never makes anybody go, and no flood of strangers keeps those out whom
// the program knows.

// value is what a session is worth.
type value uint8

const (
	ofStranger value = iota
	ofKnown
	ofDialled
	ofGroup
)

// errShed is why a session was ended to make room.
var errShed = errors.New("there was no room: the session had to make way for one that is worth more")

// maxKnown bounds the peers that are known for their sessions.
const maxKnown = 1 << 14

// census counts the sessions that peers have begun. Service.mu guards it.
type census struct {
	inbound int
	places  map[netip.Prefix]int // by address
	areas   map[netip.Prefix]int // by prefix
	known   map[PeerID]struct{}  // peers whose sessions have lasted; those that are in the cache
	leaving int                  // sessions that are being ended to make room
	shed    uint64
	refused uint64
}

// count adds a session, or takes it out by -1. mu is held.
func (c *census) count(p *peer, n int) {
	if !p.inbound {
		return
	}
	c.inbound += n
	if !p.from.IsValid() {
		return
	}
	if c.places == nil {
		c.places, c.areas = make(map[netip.Prefix]int), make(map[netip.Prefix]int)
	}
	for _, at := range []struct {
		in  map[netip.Prefix]int
		key netip.Prefix
	}{{c.places, guard.PlaceOf(p.from)}, {c.areas, guard.AreaOf(p.from)}} {
		if at.in[at.key] += n; at.in[at.key] == 0 {
			delete(at.in, at.key)
		}
	}
}

// know notes a peer. mu is held.
func (c *census) know(id PeerID) {
	if c.known == nil {
		c.known = make(map[PeerID]struct{})
	}
	if len(c.known) >= maxKnown { // any half goes
		n := 0
		maps.DeleteFunc(c.known, func(PeerID, struct{}) bool { n++; return n%2 == 0 })
	}
	c.known[id] = struct{}{}
}

// worth returns what a session with a peer is worth. mu is held.
func (s *Service) worth(id PeerID, inbound bool) value {
	_, known := s.census.known[id]
	switch {
	case s.groups.members[id] != nil:
		return ofGroup
	case !inbound:
		return ofDialled
	case known:
		return ofKnown
	}
	return ofStranger
}

// full reports whether there is no room for one more session, which is counted, and makes some if it
// is worth it. mu is held.
func (s *Service) full(link *secure.Link, a adoption) bool {
	why, full := s.crowded(link, a)
	if full {
		s.census.refused++
		s.logCrowded(why, link.Remote.Peer)
	}
	return full
}

// crowded is full, and says which bound there is. mu is held.
func (s *Service) crowded(link *secure.Link, a adoption) (why int, crowded bool) {
	if s.events.crowded() {
		return refusedEvents, true
	}
	c := &s.census
	why, full := refusedPeers, len(s.peers)-c.leaving >= s.cfg.MaxPeers
	if a.uninvited() {
		if !full && c.inbound-c.leaving >= s.cfg.MaxInbound {
			why, full = refusedInbound, true
		}
		if a.how != Relayed {
			from := a.endpoint.Addr.Addr()
			switch {
			case c.places[guard.PlaceOf(from)] >= s.cfg.MaxPeersPerAddress:
				return refusedPlace, true
			case c.areas[guard.AreaOf(from)] >= s.cfg.MaxPeersPerPrefix:
				return refusedArea, true
			}
		}
	}
	return why, full && !s.makeRoom(s.worth(link.Remote.Peer, a.uninvited()))
}

// makeRoom ends the session that is worth least, when it is worth less than one that is
// to come. mu is held.
func (s *Service) makeRoom(worthOf value) bool {
	if worthOf == ofStranger || s.census.leaving > s.cfg.MaxPeers/8 {
		return false
	}
	var least *peer
	var worth value
	for _, p := range s.peers {
		if p.leaving || !p.inbound {
			continue
		}
		w := s.worth(p.id, true)
		if w < worthOf && (least == nil || w < worth || w == worth && p.since.After(least.since)) {
			least, worth = p, w
		}
	}
	if least == nil {
		return false
	}
	least.leaving = true
	least.unwanted.Store(true)
	s.census.leaving++
	s.census.shed++
	s.spawn(func() { least.sess.Disconnect(wire.ReasonLimit, errShed) })
	return true
}

// enlist counts a session that is new in the table. mu is held.
func (s *Service) enlist(p *peer, a *adoption) {
	if a.how != Relayed {
		p.from = a.endpoint.Addr.Addr()
	}
	s.census.count(p, 1)
}

// delist counts a session that has left the table. mu is held.
func (s *Service) delist(p *peer) {
	s.census.count(p, -1)
	if p.leaving {
		s.census.leaving--
	}
	if time.Since(p.since) >= guard.Brief {
		s.census.know(p.id)
	}
}

// pacer holds what a peer sends to its bounds.
type pacer struct {
	bytes, messages float64 // that may still come; may be negative
	at              time.Time
	over            time.Duration // for which the peer was over them, and is not charged with yet
	told            time.Time     // when it was charged last for a datagram
}

// fill lets a pacer have what the time since has brought, of a second's worth at most.
func (p *pacer) fill(now time.Time, rate, count float64) {
	if p.at.IsZero() {
		p.bytes, p.messages = rate, count
	} else {
		d := now.Sub(p.at).Seconds()
		p.bytes, p.messages = min(p.bytes+d*rate, rate), min(p.messages+d*count, count)
	}
	p.at = now
}

// pace keeps the reader of a session while the peer is over its bounds: so the
// connection fills up, and the peer cannot send.
func (s *Service) pace(sess *session.Session, messages []session.Message) {
	rate, count := float64(s.cfg.PeerBytesPerSecond), float64(s.cfg.PeerMessagesPerSecond)
	if rate == 0 && count == 0 {
		return
	}
	p := sess.Tag.(*peer)
	if p.pacer == nil {
		p.pacer = new(pacer)
	}
	p.pacer.fill(time.Now(), rate, count)
	for i := range messages {
		p.pacer.bytes -= float64(len(messages[i].Data))
	}
	p.pacer.messages -= float64(len(messages))
	wait := 0.0
	if rate > 0 {
		wait = max(wait, -p.pacer.bytes/rate)
	}
	if count > 0 {
		wait = max(wait, -p.pacer.messages/count)
	}
	if wait <= 0 {
		return
	}
	d := time.Duration(wait * float64(time.Second))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-sess.Quit():
		return
	}
	s.ratePauses.Add(1)
	p.pacer.over += d
	if n := int(p.pacer.over / time.Second); n > 0 {
		p.pacer.over -= time.Duration(n) * time.Second
		s.charge(s.whoIs(p), AlertFlood, n, 0, 0)
	}
}

// loosePacer is one of datagrams, which come beside the reader of a session, too.
type loosePacer struct {
	sync.Mutex // innermost
	pacer
}

// mayCome reports whether a datagram is within the bounds of its peer: datagrams have as
// much as messages, for themselves, and wait for nothing.
func (s *Service) mayCome(p *peer, size int) bool {
	rate, count := float64(s.cfg.PeerBytesPerSecond), float64(s.cfg.PeerMessagesPerSecond)
	if rate == 0 && count == 0 {
		return true
	}
	if p.loose.Load() == nil {
		p.loose.CompareAndSwap(nil, new(loosePacer))
	}
	b, now := p.loose.Load(), time.Now()
	b.Lock()
	b.fill(now, rate, count)
	fits := (rate == 0 || b.bytes >= float64(size)) && (count == 0 || b.messages >= 1)
	charged := !fits && now.Sub(b.told) >= time.Second
	if fits {
		b.bytes -= float64(size)
		b.messages--
	} else if charged {
		b.told = now
	}
	b.Unlock()
	if charged {
		s.charge(s.whoIs(p), AlertFlood, 1, uint64(size), 0)
	}
	return fits
}
