package beacon

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Bounds of what is remembered.
const (
	// maxPeers bounds the peers that are remembered, and maxPerAddress those that were heard
	// from one address first. When there is no room, the address that has most gives
	// the one up that was heard least recently.
	maxPeers      = 1024
	maxPerAddress = 64
	// moment is how long the hellos of one round may take to arrive.
	moment = 3 * time.Second
	// maxWays bounds the addresses that are remembered of a peer.
	maxWays = 4
	// maxGone bounds the peers that have gone whose last time is remembered.
	maxGone = 1024
	// maxNonces bounds the hellos of nobody that are remembered, twice.
	maxNonces = 4096
	// maxBudgets bounds the addresses for which it is counted what they cost.
	maxBudgets = 1024
)

// limit is how much is done at once, and how much a second after that.
type limit struct{ burst, rate float64 }

var (
	// taken is for the beacons of one address.
	taken = limit{256, 16}
	// answered is for the answers to one address, and answering for all of them: when
	// all of a large network begin at once they have heard each other's hellos.
	answered, answering = limit{32, 4}, limit{128, 16}
)

// peer is who was heard.
type peer struct {
	Peer
	contact wire.Contact
	source  netip.Addr // where it was heard first
	ways    []way
	floor   uint64 // the greatest time of ways that are no more
	known   bool   // the owner was told
	told    Peer   // what it was told
}

// way is an address at which a peer was heard.
type way struct {
	from    netip.Addr
	segment Segment
	doors   []wire.Door
	time    uint64
	heard   time.Time
}

// hear notes a way, in the place of an older one at the same address.
func (p *peer) hear(w way) {
	i := slices.IndexFunc(p.ways, func(o way) bool { return o.from == w.from })
	if i < 0 && len(p.ways) < maxWays {
		p.ways = append(p.ways, w)
		return
	}
	if i < 0 {
		i = 0
		for k := range p.ways {
			if p.ways[k].heard.Before(p.ways[i].heard) {
				i = k
			}
		}
		p.floor = max(p.floor, p.ways[i].time)
	}
	p.ways[i] = w
}

// drop takes ways out.
func (p *peer) drop(over func(w *way) bool) {
	p.ways = slices.DeleteFunc(p.ways, func(w way) bool {
		if !over(&w) {
			return false
		}
		p.floor = max(p.floor, w.time)
		return true
	})
}

// leave takes out where the peer is no more: addresses that a complete record does not
// name and, when it is heard at a new one, those in the same segment at which it was
// not heard in the same moment.
func (p *peer) leave(from netip.Addr, s Segment, now time.Time) {
	moved := !slices.ContainsFunc(p.ways, func(w way) bool { return w.from == from })
	complete := len(p.contact.Endpoints)+p.contact.Unknown < wire.MaxContactEndpoints
	p.drop(func(w *way) bool {
		switch {
		case w.from == from:
			return false
		case moved && w.segment == s && now.Sub(w.heard) > moment:
			return true
		case w.from.IsLoopback() || w.from.IsLinkLocalUnicast():
			return false
		}
		return complete && !slices.ContainsFunc(p.contact.Endpoints, func(ep endpoint.Endpoint) bool { return ep.Addr.Addr() == w.from })
	})
}

// where returns where a peer can be reached in the networks of this machine: where
// it was heard, and of the endpoints of its record those that are in one. Nothing
// farther away is believed. mu is held.
func (b *Beacon) where(p *peer) (eps []endpoint.Endpoint) {
	for _, w := range p.ways {
		for _, d := range w.doors {
			eps = append(eps, endpoint.New(d.Transport, netip.AddrPortFrom(w.from, d.Port)))
		}
	}
	for _, ep := range p.contact.Endpoints {
		if slices.ContainsFunc(b.segments, func(s Segment) bool { return !s.Addr.IsLoopback() && s.contains(ep.Addr.Addr()) }) {
			eps = append(eps, ep)
		}
	}
	slices.SortFunc(eps, func(a, b endpoint.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Transport, b.Transport), cmp.Compare(b.Scope(), a.Scope()), endpoint.Compare(a, b))
	})
	eps = slices.Compact(eps)
	return eps[:min(len(eps), maxEndpoints)]
}

// table is who was heard. The beacon's mu guards it.
type table struct {
	peers    map[identity.PeerID]*peer
	sources  map[netip.Addr]int // how many were heard there first
	gone     map[identity.PeerID]uint64
	now, old map[nonce]struct{} // hellos of nobody
	taken    budgets
	answered budgets
	answers  budget
}

func (t *table) init() {
	t.peers, t.sources = make(map[identity.PeerID]*peer), make(map[netip.Addr]int)
	t.gone, t.taken, t.answered = make(map[identity.PeerID]uint64), make(budgets), make(budgets)
	t.answers = budget{left: answering.burst}
}

// fresh reports whether a nonce is new, and remembers it.
func (t *table) fresh(id nonce) bool {
	_, now := t.now[id]
	_, old := t.old[id]
	if now || old {
		return false
	}
	if t.now == nil || len(t.now) >= maxNonces {
		t.old, t.now = t.now, make(map[nonce]struct{})
	}
	t.now[id] = struct{}{}
	return true
}

// newer reports whether a beacon is newer than what is known of its sender at the
// address from which it comes.
func (t *table) newer(m *wire.Beacon, from netip.Addr) bool {
	p := t.peers[m.Contact.Peer]
	if p == nil {
		return m.Time > t.gone[m.Contact.Peer]
	}
	last := p.floor
	for _, w := range p.ways {
		if w.from == from || m.Kind == wire.BeaconGoodbye {
			last = max(last, w.time)
		}
	}
	return m.Time > last
}

// full returns from which address somebody must give way to one more peer that was heard
// at from; the zero Addr: nobody must. It reports false when from has enough itself.
func (t *table) full(from netip.Addr) (most netip.Addr, ok bool) {
	if t.sources[from] >= maxPerAddress {
		return most, false
	}
	if len(t.peers) < maxPeers {
		return most, true
	}
	most = from
	for a, n := range t.sources {
		if n > t.sources[most] {
			most = a
		}
	}
	return most, most != from
}

// oldest returns whom nothing was heard of for longest of those that were heard at an
// address first.
func (t *table) oldest(source netip.Addr) (oldest *peer) {
	for _, p := range t.peers {
		if p.source == source && (oldest == nil || p.Heard.Before(oldest.Heard)) {
			oldest = p
		}
	}
	return oldest
}

// add enters a peer.
func (t *table) add(id identity.PeerID, from netip.Addr) *peer {
	p := &peer{Peer: Peer{ID: id}, source: from, floor: t.gone[id]}
	delete(t.gone, id)
	t.peers[id] = p
	t.sources[from]++
	return p
}

// remove takes a peer out and remembers its last time.
func (t *table) remove(p *peer) {
	last := p.floor
	for _, w := range p.ways {
		last = max(last, w.time)
	}
	delete(t.peers, p.ID)
	if t.sources[p.source]--; t.sources[p.source] == 0 {
		delete(t.sources, p.source)
	}
	t.depart(p.ID, last)
}

// depart remembers the last time of who is gone, so that nobody brings it back by
// what it said before. Those whose clocks would refuse it anyway make room first.
func (t *table) depart(id identity.PeerID, last uint64) {
	if _, known := t.gone[id]; !known && len(t.gone) >= maxGone {
		var oldest identity.PeerID
		first := true
		for other, at := range t.gone {
			if first || at < t.gone[oldest] {
				oldest, first = other, false
			}
		}
		delete(t.gone, oldest)
	}
	t.gone[id] = max(t.gone[id], last)
}

// budget is how much of a limit is left.
type budget struct {
	left float64
	at   time.Time
}

func (b *budget) fill(l limit, now time.Time) {
	if !b.at.IsZero() {
		b.left = min(b.left+l.rate*now.Sub(b.at).Seconds(), l.burst)
	}
	b.at = now
}

// spend reports whether one more is within the limit, and counts it.
func (b *budget) spend(l limit, now time.Time) bool {
	b.fill(l, now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// budgets is one for each address.
type budgets map[netip.Addr]*budget

// spend is that of an address. There is none for it while all of maxBudgets are in use.
func (all budgets) spend(a netip.Addr, l limit, now time.Time) bool {
	b := all[a]
	if b == nil {
		if len(all) >= maxBudgets {
			maps.DeleteFunc(all, func(_ netip.Addr, b *budget) bool {
				b.fill(l, now)
				return b.left >= l.burst
			})
		}
		if len(all) >= maxBudgets {
			return false
		}
		b = &budget{left: l.burst}
		all[a] = b
	}
	return b.spend(l, now)
}

// list returns the peers that the owner was told of, in the order of their ids.
func (t *table) list() (list []Peer) {
	for _, p := range t.peers {
		if p.known {
			one := p.Peer
			one.Endpoints = slices.Clone(one.Endpoints)
			list = append(list, one)
		}
	}
	slices.SortFunc(list, func(a, b Peer) int { return a.ID.Compare(b.ID) })
	return list
}
