package beacon

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// take takes a datagram: of the shared port, or of one of ours, where answers come.
func (b *Beacon) take(from netip.AddrPort, datagram []byte, shared bool) {
	if len(datagram) < wire.BeaconEcho {
		return
	}
	if b.shuns(identity.PeerID{}, from.Addr()) {
		return
	}
	id := nonce(datagram)
	content, err := b.cfg.Open(datagram)
	if err != nil {
		return // no beacon, or of another network: nobody's business
	}
	m, err := wire.PeekBeacon(content)
	if err != nil {
		b.cfg.Log.Debug("a malformed beacon came", "from", from, "error", err)
		return
	}
	if m.Record != nil && b.shuns(m.Contact.Peer, from.Addr()) {
		return
	}
	now := time.Now()
	s, ok := b.admit(from, &m, id, shared, now)
	if !ok {
		return
	}
	if m.Record != nil {
		if !m.Signed(content) { // takes long, so with no lock held
			b.cfg.Log.Debug("a forged beacon came", "from", from, "peer", m.Contact.Peer.Short())
			return
		}
		if !b.learn(from.Addr(), s, &m, now) {
			return
		}
		b.tell()
	}
	if m.Kind == wire.BeaconHello && m.Flags&wire.BeaconFlagAsks != 0 {
		b.answerSoon(answer{from: s, to: from, echo: id, most: len(datagram)}, now)
	}
	b.rouse()
}

// shuns reports whether a peer at an address is not heard.
func (b *Beacon) shuns(id identity.PeerID, from netip.Addr) bool {
	return b.cfg.Shun != nil && b.cfg.Shun(id, from)
}

// admit reports whether a beacon is worth looking at: it comes from a network of this
// machine, from where it says, is not our own, is not too old, nor one too many of
// its sender's.
func (b *Beacon) admit(from netip.AddrPort, m *wire.Beacon, id nonce, shared bool, now time.Time) (Segment, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.used, func(s Segment) bool { return s.contains(from.Addr()) })
	if i < 0 || m.From != from.Addr().WithZone("") || from.Port() == 0 {
		return Segment{}, false
	}
	s := b.used[i]
	_, ours := b.asked[id]
	answers := m.Kind == wire.BeaconAnswer
	switch {
	case ours || answers == shared || m.Record != nil && m.Contact.Peer == b.cfg.Self:
		return s, false
	case answers:
		if at, ok := b.asked[m.Echo]; !ok || now.Sub(at) > patience {
			return s, false
		}
	case !timely(m.Time, now):
		return s, false
	case m.Record == nil && !b.heard.fresh(id):
		return s, false
	}
	if m.Record != nil {
		if err := m.Contact.Current(uint64(now.UnixMilli())); err != nil { //nolint:gosec // after 1970
			b.cfg.Log.Debug("a beacon with an old record came", "from", from, "error", err)
			return s, false
		}
		if !answers && !b.heard.newer(m, from.Addr()) {
			return s, false
		}
	}
	return s, b.heard.taken.spend(from.Addr(), taken, now)
}

// timely reports whether a sender's clock may be right.
func timely(ms uint64, now time.Time) bool {
	d := now.UnixMilli() - int64(ms) //nolint:gosec // below 2^48
	return -window.Milliseconds() <= d && d <= window.Milliseconds()
}

// learn notes what a beacon says, which is signed. It reports false when it was
// overtaken meanwhile.
func (b *Beacon) learn(from netip.Addr, s Segment, m *wire.Beacon, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	t, id := &b.heard, m.Contact.Peer
	p := t.peers[id]
	newer := t.newer(m, from)
	if m.Kind == wire.BeaconAnswer && p != nil { // of who has not said goodbye since, it is no older than our hello
		newer = true
	}
	if !newer {
		return false
	}
	if m.Kind == wire.BeaconGoodbye {
		if p != nil {
			b.remove(p)
		}
		t.depart(id, m.Time)
		return true
	}
	if p == nil {
		most, ok := t.full(from)
		if !ok {
			return true
		}
		if most.IsValid() {
			b.remove(t.oldest(most))
		}
		p = t.add(id, from)
	}
	if m.Contact.Seq >= p.contact.Seq {
		p.contact, p.Role, p.Flags = m.Contact, m.Contact.Role, m.Contact.Flags
	}
	p.Heard, b.forgetAt = now, earlier(now.Add(forgetAfter), b.forgetAt)
	p.leave(from, s, now)
	p.hear(way{from: from, segment: s, doors: m.Doors, time: m.Time, heard: now})
	b.settle(p)
	return true
}

// settle finds out where a peer can be reached, and tells what is new. A peer that
// can be reached nowhere is nobody's business. mu is held.
func (b *Beacon) settle(p *peer) {
	role := p.told.Role
	p.Endpoints = b.where(p)
	switch {
	case len(p.Endpoints) == 0:
		if p.known {
			b.facts = append(b.facts, Fact{Forgotten, Peer{ID: p.ID}})
		}
		p.known = false
		return
	case p.known && p.told.Endpoints[0] == p.Endpoints[0] && role == p.Role:
		return
	}
	p.known, p.told = true, p.Peer
	b.facts = append(b.facts, Fact{Discovered, p.Peer})
}

// remove forgets a peer. mu is held.
func (b *Beacon) remove(p *peer) {
	b.heard.remove(p)
	if p.known {
		b.facts = append(b.facts, Fact{Forgotten, Peer{ID: p.ID}})
	}
}

// forget forgets whom nothing was heard of for long, and who was heard in a network that
// this machine is in no more, and sees when it is to be called again. mu is held.
func (b *Beacon) forget(now time.Time) {
	b.forgetAt = time.Time{}
	for _, p := range b.heard.peers {
		n := len(p.ways)
		p.drop(func(w *way) bool { return now.Sub(w.heard) >= forgetAfter || !slices.Contains(b.used, w.segment) })
		switch {
		case len(p.ways) == 0:
			b.remove(p)
		case len(p.ways) < n:
			b.settle(p)
		}
		for _, w := range p.ways {
			b.forgetAt = earlier(w.heard.Add(forgetAfter), b.forgetAt)
		}
	}
}

// answerSoon notes that somebody has asked.
func (b *Beacon) answerSoon(a answer, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.tells || len(b.answers) >= maxAnswers || !b.heard.answered.spend(a.to.Addr(), answered, now) || !b.heard.answers.spend(answering, now) {
		return
	}
	a.at = now.Add(rand.N(jitter))
	b.answers = append(b.answers, a)
}
