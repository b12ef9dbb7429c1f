// Package guard keeps accounts of the work that others make for us: connections,
// handshakes, garbage, broken rules. It says who may make more of it now, and of whom
// a program should be told.
//
// Work is charged to peers, which have proved their keys, and to addresses, which
// must have proved that what is sent there arrives: by TCP's handshake, or by the
// third flight of one over datagrams. Whoever can be framed by a sender of made-up
// addresses must not be named here; that is the caller's part.
//
// An account is a leaky bucket for each kind of work: it fills by what is charged and
// runs out with time, and when it is over its brim there is an Alert, the next one
// about the same a while later, with what was charged in between. What an address is
// charged with, its /24, or /48 of IPv6, is charged with too, for offenders who change
// their addresses; an IPv6 address counts as its /64. What a peer does in its sessions
// beyond its own brim is charged to it alone: a ban of the peer ends that, and its
// neighbours behind a NAT have no part in it. Tables are bounded: when one is full, of
// those that were charged least recently the one that matters least goes.
package guard

import (
	"hash/maphash"
	"math"
	"math/bits"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/identity"
)

// Kind is a kind of work.
type Kind uint8

const (
	Connections Kind = 1 // connections over what is taken of one address, refused unread
	Garbage     Kind = 2 // connections that said nothing, or nothing of our network
	Handshakes  Kind = 3 // handshakes that were begun and never finished
	Sessions    Kind = 4 // sessions that came and went within Brief, or were refused
	Forgery     Kind = 5 // records that do not authenticate
	Protocol    Kind = 6 // rules that were broken by an authenticated peer
	Flood       Kind = 7 // seconds for which a peer was not read, or its datagrams were not taken, since it sends more than it may
	Gossip      Kind = 8 // records of gossip that were refused
	Relay       Kind = 9 // circuits, letters and tests of reachability that were refused
	kinds            = 10
)

// brims says how much of each kind may come at once, and how much in each second
// for ever, from a peer or, of kinds that no peer is charged with, an address.
// Implementation constants, chosen so that no peer of ours reaches them: one that
// connects makes a handful of connections, of which all but one are given up on
// purpose; a crowd behind one NAT that comes back at once makes a thousand.
var brims = [kinds]struct{ brim, rate float64 }{
	Connections: {256, 8},
	Garbage:     {64, 1},
	Handshakes:  {64, 1},
	Sessions:    {64, 1},
	Forgery:     {4, 1.0 / 60},
	Protocol:    {1, 1.0 / 3600},
	Flood:       {10, 0.5},
	Gossip:      {512, 4},
	Relay:       {64, 1},
}

const (
	// addressFactor is how much more than one peer an address may do of what peers
	// are charged with, prefixFactor how much more than one address a prefix.
	addressFactor = 8
	prefixFactor  = 8
	// manyAddresses is how many addresses of a prefix must have been charged before it
	// is the prefix that is accused.
	manyAddresses = 8
	// Brief is how long a session lasts that was not worth its handshake.
	Brief = 10 * time.Second
	// pardon is how many handshakes that are never finished come with each session: who
	// dials several ways at once gives up all but one.
	pardon = 4

	// The tables.
	maxPeers     = 2048
	maxAddresses = 8192
	maxPrefixes  = 2048
	evictLook    = 8 // accounts that are looked at to find the one that goes

	// Alerts: of one offender and kind one in alertEvery, of all alertRate in each
	// second and alertBurst at once.
	alertEvery = 10 * time.Second
	alertRate  = 64
	alertBurst = 512

	// A ban is suggested for banFirst, twice as long with each further alert, up to
	// banMost.
	banFirst = 10 * time.Minute
	banMost  = 24 * time.Hour
)

// ofPeers reports whether a kind is charged to peers.
func (k Kind) ofPeers() bool { return k == Sessions || k >= Protocol }

// withinSessions reports whether a kind is what a peer does in its sessions.
func (k Kind) withinSessions() bool { return k >= Protocol }

// Who is who made work. Peer is zero when no peer has proved its key. Addr is not
// valid when no address has proved itself, or the way goes over a relay.
type Who struct {
	Peer identity.PeerID
	Addr netip.Addr
}

// Figures are what an account says.
type Figures struct {
	Count uint64        // how often, since the last alert about the same
	Bytes uint64        // that came with it, likewise
	CPU   time.Duration // that it has cost, likewise, estimated

	Total        uint64        // work of all kinds since Since
	Sessions     uint64        // sessions of the offender, likewise
	Messages     uint64        // that those which have ended delivered
	MessageBytes uint64        // likewise
	Since        time.Duration // for how long there is the account
}

// Alert names an offender. It is a peer when Peer is not zero, and otherwise Prefix:
// one address, or for IPv6 its /64, or what holds many offenders, a /24 or /48.
type Alert struct {
	Kind   Kind
	Peer   identity.PeerID
	Prefix netip.Prefix // of a peer where it came from; not valid when that is not known
	Many   bool         // Prefix holds many addresses that were charged
	Figures
	Ban time.Duration // for how long a ban is suggested
}

// bucket is what an account has of one kind.
type bucket struct {
	kind    Kind
	charged bool // told means something
	alerts  int
	level   float64
	count   uint64 // since told
	bytes   uint64
	cpu     time.Duration
	told    time.Time // the last alert
}

// tier is whose an account is.
type tier uint8

const (
	ofPeer tier = iota
	ofAddress
	ofPrefix
)

// factor is how much larger a bucket of a kind is than brims says.
func (t tier) factor(k Kind) float64 {
	f := 1.0
	if t >= ofAddress && k.ofPeers() {
		f = addressFactor
	}
	if t == ofPrefix {
		f *= prefixFactor
	}
	return f
}

// account is one of a peer, an address or a prefix.
type account struct {
	tier       tier
	opened, at time.Time
	buckets    []bucket // of the kinds that it was charged with, or pardoned: mostly none
	use        float64  // asked for lately: see Admit
	open       float64  // connections of the last moments: see MayConnect
	openAt     time.Time
	trusted    time.Time // until when
	seen       uint64    // of a prefix: one bit for each of some addresses

	total, sessions, messages, bytes uint64
}

// bucket returns that of a kind, until the next one is asked for.
func (a *account) bucket(kind Kind) *bucket {
	for i := range a.buckets {
		if a.buckets[i].kind == kind {
			return &a.buckets[i]
		}
	}
	a.buckets = append(a.buckets, bucket{kind: kind})
	return &a.buckets[len(a.buckets)-1]
}

// level returns how full the bucket of a kind is.
func (a *account) level(kind Kind) float64 {
	for i := range a.buckets {
		if a.buckets[i].kind == kind {
			return a.buckets[i].level
		}
	}
	return 0
}

// Guard keeps the accounts. It is not safe for use by several goroutines.
type Guard struct {
	cfg       Config
	peers     table[identity.PeerID]
	addresses table[netip.Prefix]
	prefixes  table[netip.Prefix]
	seed      maphash.Seed

	gates      [gates]gate
	alerts     float64 // that may be raised now
	at         time.Time
	suppressed uint64
}

// Config is what a Guard is made of. All fields must be set.
type Config struct {
	// Accepts and Burst bound accepted connections: in each second, and at once.
	Accepts, Burst float64
	// AddressAccepts and AddressBurst bound those of one address.
	AddressAccepts, AddressBurst float64
	// CPU is the part of a processor that handshakes of strangers may take.
	CPU float64
}

// New returns a Guard that has seen nothing.
func New(cfg Config, now time.Time) *Guard {
	g := &Guard{cfg: cfg, seed: maphash.MakeSeed(), alerts: alertBurst, at: now}
	g.peers.init(maxPeers, ofPeer)
	g.addresses.init(maxAddresses, ofAddress)
	g.prefixes.init(maxPrefixes, ofPrefix)
	g.gates[Accept] = gate{rate: cfg.Accepts, burst: cfg.Burst, left: cfg.Burst, at: now}
	second := float64(time.Second)
	g.gates[Answer] = gate{rate: cfg.CPU * second, burst: cfg.CPU * second * answerBurst, left: cfg.CPU * second * answerBurst, at: now}
	return g
}

// PlaceOf returns what counts as one address: an IPv4 address or an IPv6 /64.
func PlaceOf(addr netip.Addr) netip.Prefix { return prefix(addr, 32, 64) }

// AreaOf returns the prefix of an address that is accused when many of it offend: a
// /24, or a /48 of IPv6.
func AreaOf(addr netip.Addr) netip.Prefix { return prefix(addr, 24, 48) }

func prefix(addr netip.Addr, four, six int) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	n := four
	if addr.Is6() {
		n = six
	}
	p, err := addr.Prefix(n)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// Charge charges work: n times a kind, with the bytes that came and the time that it
// took. It returns the alerts that come of it, at most three.
func (g *Guard) Charge(now time.Time, who Who, kind Kind, n int, bytes uint64, cpu time.Duration) []Alert {
	var out []Alert
	shared := n // what its address is charged with
	if n <= 0 || kind == 0 || kind >= kinds {
		return nil
	}
	if !who.Peer.IsZero() && kind.ofPeers() {
		a := g.peers.get(who.Peer, now)
		if kind.withinSessions() {
			shared = min(n, a.room(now, kind))
		}
		if a.charge(now, kind, n, bytes, cpu) && g.mayTell(now) {
			out = append(out, a.alert(now, kind, Alert{Peer: who.Peer, Prefix: PlaceOf(who.Addr)}))
		}
	}
	if !who.Addr.IsValid() || shared == 0 {
		return out
	}
	bytes, cpu = bytes/uint64(n)*uint64(shared), cpu/time.Duration(n)*time.Duration(shared) //nolint:gosec // both are positive
	place, area := PlaceOf(who.Addr), AreaOf(who.Addr)
	a := g.addresses.get(place, now)
	if a.charge(now, kind, shared, bytes, cpu) && g.mayTell(now) {
		a.trusted = time.Time{}
		out = append(out, a.alert(now, kind, Alert{Prefix: place}))
	}
	b := g.prefixes.get(area, now)
	b.seen |= 1 << (maphash.Comparable(g.seed, place) % 64)
	if b.charge(now, kind, shared, bytes, cpu) && bits.OnesCount64(b.seen) >= manyAddresses && g.mayTell(now) {
		out = append(out, b.alert(now, kind, Alert{Prefix: area, Many: true}))
	}
	return out
}

// charge reports whether an alert is due.
func (a *account) charge(now time.Time, kind Kind, n int, bytes uint64, cpu time.Duration) bool {
	a.settle(now)
	b := a.bucket(kind)
	b.level += float64(n)
	b.count += uint64(n)
	b.bytes += bytes
	b.cpu += cpu
	a.total += uint64(n)
	limit := brims[kind].brim * a.tier.factor(kind)
	over := b.level >= limit
	b.level = min(b.level, 2*limit) // who stops is not accused for long
	return over && (!b.charged || now.Sub(b.told) >= alertEvery)
}

// room returns how often more somebody may do a kind of work before its bucket is over the brim.
func (a *account) room(now time.Time, kind Kind) int {
	a.settle(now)
	return max(0, int(math.Ceil(brims[kind].brim*a.tier.factor(kind)-a.level(kind))))
}

// mayTell reports whether one more alert may be raised, and counts it. It is asked last: an
// alert that is not raised for another reason must not take the place of one that is due.
func (g *Guard) mayTell(now time.Time) bool {
	g.alerts = min(g.alerts+alertRate*max(now.Sub(g.at), 0).Seconds(), alertBurst)
	g.at = now
	if g.alerts < 1 {
		g.suppressed++
		return false
	}
	g.alerts--
	return true
}

// settle lets the buckets run out.
func (a *account) settle(now time.Time) {
	d := now.Sub(a.at).Seconds()
	if d <= 0 {
		return
	}
	a.at = now
	calm := true
	for i := range a.buckets {
		b := &a.buckets[i]
		rate := brims[b.kind].rate * a.tier.factor(b.kind)
		if b.level > 0 {
			b.level = max(b.level-d*rate, 0)
		} else if b.level < 0 { // a pardon does not last
			b.level = min(b.level+d*rate, 0)
		}
		calm = calm && b.level <= 0
	}
	if calm {
		a.seen = 0
	}
	a.fade(d)
}

// alert makes an alert of an account, which begins to count anew.
func (a *account) alert(now time.Time, kind Kind, out Alert) Alert {
	b := a.bucket(kind)
	out.Kind = kind
	out.Figures = Figures{
		Count: b.count, Bytes: b.bytes, CPU: b.cpu, Total: a.total, Sessions: a.sessions, Messages: a.messages, MessageBytes: a.bytes,
		Since: now.Sub(a.opened),
	}
	out.Ban = min(banFirst<<min(b.alerts, 10), banMost)
	b.count, b.bytes, b.cpu, b.told, b.charged = 0, 0, 0, now, true
	b.alerts++
	return out
}

// Began notes a session, which pardons handshakes that were given up for it.
func (g *Guard) Began(now time.Time, who Who) {
	for _, a := range g.of(now, who) {
		a.settle(now)
		a.sessions++
		if a.tier == ofPeer {
			continue // no peer is charged with these
		}
		for _, k := range []Kind{Garbage, Handshakes} {
			b := a.bucket(k)
			b.level = max(b.level-pardon, -brims[k].brim*a.tier.factor(k))
		}
	}
}

// Ended notes the end of a session and what it has delivered. One that was brief is
// charged, with the time that its handshake took.
func (g *Guard) Ended(now time.Time, who Who, lasted time.Duration, messages, bytes uint64, cpu time.Duration) []Alert {
	for _, a := range g.of(now, who) {
		a.messages += messages
		a.bytes += bytes
	}
	if lasted >= Brief {
		return nil
	}
	return g.Charge(now, who, Sessions, 1, bytes, cpu)
}

// of returns the accounts that somebody has.
func (g *Guard) of(now time.Time, who Who) []*account {
	var of []*account
	if !who.Peer.IsZero() {
		of = append(of, g.peers.get(who.Peer, now))
	}
	if who.Addr.IsValid() {
		of = append(of, g.addresses.get(PlaceOf(who.Addr), now), g.prefixes.get(AreaOf(who.Addr), now))
	}
	return of
}

// Stats are counts of a Guard.
type Stats struct {
	Peers, Addresses, Prefixes int    // accounts now
	Suppressed                 uint64 // alerts over alertRate, to come later
	Refused                    [gates]uint64
}

// Stats returns the counts.
func (g *Guard) Stats() Stats {
	s := Stats{Peers: len(g.peers.of), Addresses: len(g.addresses.of), Prefixes: len(g.prefixes.of), Suppressed: g.suppressed}
	for i := range g.gates {
		s.Refused[i] = g.gates[i].refused
	}
	return s
}
