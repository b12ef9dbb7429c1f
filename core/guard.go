package crust

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/guard"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// The room guard keeps accounts of the work that others make for us; this is its owner,
// which feeds it and tells the program. Work comes from here:
//
//	acceptLoop ──connections──▶ MayConnect, Admit ──no──▶ closed unread
//	respond ──garbage, handshakes──▶ Charge            secure ──before an answer──▶ Admit
//	adopt, lose ──sessions──▶ Ended, Charge            session, gossip, relay ──▶ Charge
//
// Nothing is charged to where a datagram seems to come from until its sender has
// answered what we sent there.

// AlertKind is what somebody does too much of.
type AlertKind uint8

const (
	// AlertConnections is for connections over what is taken of one address.
	AlertConnections AlertKind = 1
	// AlertGarbage is for connections that said nothing, or nothing of this network.
	AlertGarbage AlertKind = 2
	// AlertHandshakes is for handshakes that were begun and never finished.
	AlertHandshakes AlertKind = 3
	// AlertSessions is for sessions that came and went within 10 s, or were refused.
	AlertSessions AlertKind = 4
	// AlertForgery is for records that do not authenticate. Whoever carries a TCP
	// connection can make them, too.
	AlertForgery AlertKind = 5
	// AlertProtocol is for an authenticated peer that broke the protocol.
	AlertProtocol AlertKind = 6
	// AlertFlood is for a peer that sends more than Config.PeerBytesPerSecond and
	// PeerMessagesPerSecond let it, for seconds on end: it is read no faster, and its
	// datagrams are lost.
	AlertFlood AlertKind = 7
	// AlertGossip is for records of gossip that were refused.
	AlertGossip AlertKind = 8
	// AlertRelay is for what a peer has asked for itself too often, or without leave: circuits over
	// this service, letters to be carried, tests of whether it can be reached.
	AlertRelay AlertKind = 9
)

// String returns "connections", "garbage", "handshakes", "sessions", "forgery",
// "protocol", "flood", "gossip" or "relay".
func (k AlertKind) String() string {
	return wordOf(k, "unknown", "connections", "garbage", "handshakes", "sessions", "forgery", "protocol", "flood", "gossip", "relay")
}

// Alert says who makes this service work for nothing.
type Alert struct {
	Kind AlertKind
	// Peer is the offender, when it has proved its key. Zero means that it is Address.
	Peer PeerID
	// Address is where the work comes from: one IPv4 address, or an IPv6 /64; or a /24 or
	// /48 of which many addresses do. Of a peer that is connected over a relay it is not
	// valid.
	Address netip.Prefix
	Figures AlertFigures
	// Suggest is what might be banned, the zero BanTarget for nothing: Address is that of a
	// peer that is of use, too.
	Suggest BanTarget
	// For is for how long it might be banned.
	For time.Duration
}

// BanTarget is what a ban is about: a peer, or when Peer is zero all addresses in Prefix.
type BanTarget struct {
	Peer   PeerID
	Prefix netip.Prefix
}

// String returns the peer's id, the address or the prefix, "" for the zero BanTarget.
func (b BanTarget) String() string {
	switch {
	case !b.Peer.IsZero():
		return b.Peer.String()
	case !b.Prefix.IsValid():
		return ""
	case b.Prefix.IsSingleIP():
		return b.Prefix.Addr().String()
	}
	return b.Prefix.String()
}

// AlertFigures say what the offender has done and given.
type AlertFigures struct {
	Count    uint64        // how often it did, since the last alert of the kind about it
	Bytes    uint64        // that came with it, as far as counted
	CPU      time.Duration // that it has cost, an estimate of what cryptography takes
	Total    uint64        // what it did of all kinds within Since
	Sessions uint64        // its sessions within Since
	Messages uint64        // that it delivered, those of its sessions now included
	Given    uint64        // bytes of these messages
	Since    time.Duration // for how long there are figures of it
}

// Text says all of an alert in one sentence.
func (a Alert) Text() string {
	who := BanTarget{a.Peer, a.Address}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d times", a.Kind, a.Figures.Count)
	if s := who.String(); s != "" {
		if !a.Peer.IsZero() {
			s = "peer " + a.Peer.Short()
		}
		fmt.Fprintf(&b, " by %s", s)
	}
	f := a.Figures
	fmt.Fprintf(&b, ", %d bytes, %v of processor time; within %v %d offences, %d sessions, %d messages of %d bytes delivered",
		f.Bytes, f.CPU.Round(time.Millisecond), f.Since.Round(time.Second), f.Total, f.Sessions, f.Messages, f.Given)
	return b.String()
}

// What cryptography takes on one core of 2020, in round numbers: an answer to a first
// flight, and the third flight with the check of the peer's key.
const (
	answerCost = 150 * time.Microsecond
	finishCost = 150 * time.Microsecond
)

// trustFor is for how long the address of a peer is trusted whose session has lasted.
const trustFor = time.Hour

// guarding is the accounts of a service, and what it counts of them.
type guarding struct {
	mu      sync.Mutex // taken with no other lock held, but mu and lookup may be
	machine *guard.Guard
	noFiles uint64 // connections that were closed since descriptors ran short
	alerts  uint64 // raised
}

// What zero fields of Config mean.
const (
	defaultMaxAccepts       = 2048
	defaultAddressAccepts   = 256
	defaultHandshakePercent = 50
	mostHandshakePercent    = 800
	defaultReservedFiles    = 64
)

// checkGuard puts in the defaults of bounds on what others make us do, or says what is
// wrong.
func (c *Config) checkGuard() error {
	for _, n := range []struct {
		name       string
		value      *int
		zero, most int
	}{
		{"MaxAcceptsPerSecond", &c.MaxAcceptsPerSecond, defaultMaxAccepts, math.MaxInt32},
		{"MaxAcceptsPerAddress", &c.MaxAcceptsPerAddress, defaultAddressAccepts, math.MaxInt32},
		{"HandshakePercent", &c.HandshakePercent, defaultHandshakePercent, mostHandshakePercent},
		{"MaxInbound", &c.MaxInbound, allBut(c.MaxPeers, 8), c.MaxPeers},
		{"MaxPeersPerAddress", &c.MaxPeersPerAddress, allBut(c.MaxPeers, 2), math.MaxInt32},
		{"MaxPeersPerPrefix", &c.MaxPeersPerPrefix, allBut(c.MaxPeers, 4), math.MaxInt32},
		{"PeerBytesPerSecond", &c.PeerBytesPerSecond, 0, math.MaxInt32},
		{"PeerMessagesPerSecond", &c.PeerMessagesPerSecond, 0, math.MaxInt32},
		{"ReservedFiles", &c.ReservedFiles, defaultReservedFiles, math.MaxInt32},
	} {
		if *n.value < 0 || *n.value > n.most {
			return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf("%s is %d, want 0 to %d", n.name, *n.value, n.most)}
		}
		*n.value = cmp.Or(*n.value, n.zero)
	}
	for _, n := range []struct {
		name  string
		value int
		least int
	}{
		{"PeerBytesPerSecond", c.PeerBytesPerSecond, 16 << 10}, {"PeerMessagesPerSecond", c.PeerMessagesPerSecond, 100},
	} {
		if n.value != 0 && n.value < n.least {
			return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf("%s is %d, want 0 or at least %d", n.name, n.value, n.least)}
		}
	}
	return nil
}

// smallTable is the number of sessions up to which none are kept back.
const smallTable = 64

// allBut returns n less one part in so many, or n where that is few.
func allBut(n, part int) int {
	if n <= smallTable {
		return n
	}
	return n - n/part
}

// startGuard makes what accounts need.
func (s *Service) startGuard() {
	c := s.cfg
	s.guard.machine = guard.New(guard.Config{
		Accepts: float64(c.MaxAcceptsPerSecond), Burst: burstOf * float64(c.MaxAcceptsPerSecond),
		AddressAccepts: float64(c.MaxAcceptsPerAddress), AddressBurst: addressBurstOf * float64(c.MaxAcceptsPerAddress),
		CPU: float64(c.HandshakePercent) / 100,
	}, time.Now())
	answering := *s.secure
	answering.Admit = s.mayAnswer
	s.accepting = &answering
	for _, contact := range c.Contacts {
		s.trust(contact.Endpoint.Addr.Addr(), trustFor)
	}
}

const (
	// burstOf is how many seconds' worth of connections may come at once, addressBurstOf
	// from one address: a crowd behind one NAT comes back at the same time.
	burstOf        = 4
	addressBurstOf = 8
)

// trust lets an address in through floods for a while.
func (s *Service) trust(addr netip.Addr, d time.Duration) {
	if !addr.IsValid() {
		return
	}
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	s.guard.machine.Trust(time.Now(), addr, d)
}

// charge charges work and tells the program when it is too much. It must be called
// with no lock held.
func (s *Service) charge(who guard.Who, kind AlertKind, n int, bytes uint64, cpu time.Duration) {
	if s.ctx.Err() != nil { // what breaks then is our own doing
		return
	}
	s.guard.mu.Lock()
	alerts := s.guard.machine.Charge(time.Now(), who, guard.Kind(kind), n, bytes, cpu)
	s.guard.mu.Unlock()
	s.tellAlerts(alerts)
}

// tellAlerts tells the program.
func (s *Service) tellAlerts(alerts []guard.Alert) {
	for _, a := range alerts {
		out := Alert{Kind: AlertKind(a.Kind), Peer: a.Peer, Address: a.Prefix, For: a.Ban, Figures: AlertFigures{
			Count: a.Count, Bytes: a.Bytes, CPU: a.CPU, Total: a.Total, Sessions: a.Sessions, Messages: a.Messages, Given: a.MessageBytes, Since: a.Since,
		}}
		if innocent := s.addGiven(&out); !innocent {
			out.Suggest = BanTarget{Peer: a.Peer}
			if a.Peer.IsZero() {
				out.Suggest.Prefix = a.Prefix
			}
		} else {
			out.For = 0
		}
		s.guard.mu.Lock()
		s.guard.alerts++
		s.guard.mu.Unlock()
		s.events.pushNews(Event{Type: EventAlert, Peer: a.Peer, detail: &detail{alert: &out}})
	}
}

// addGiven adds what sessions that go on have delivered. It reports whether they are
// worth more than the offence, of many addresses: a session has lasted at one of them.
func (s *Service) addGiven(a *Alert) (innocent bool) {
	s.lookup.RLock()
	defer s.lookup.RUnlock()
	for id, p := range s.peers {
		switch {
		case id == a.Peer:
		case !a.Peer.IsZero() || p.how == Relayed || !a.Address.Contains(p.endpoint.Addr.Addr()):
			continue
		}
		c := p.sess.Counters()
		a.Figures.Messages += c.ReceivedMessages
		a.Figures.Given += c.ReceivedBytes
		if a.Peer.IsZero() && !a.Address.IsSingleIP() && time.Since(p.since) >= guard.Brief {
			innocent = true
		}
	}
	return innocent
}

// whoIs returns a session's peer as accounts name it.
func (s *Service) whoIs(p *peer) guard.Who {
	ep, how := s.whereabouts(p)
	who := guard.Who{Peer: p.id}
	if how != Relayed {
		who.Addr = ep.Addr.Addr()
	}
	return who
}

// sessionBegan notes a new session, the peer's doing or ours.
func (s *Service) sessionBegan(p *peer) {
	who := s.whoIs(p)
	now := time.Now()
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	s.guard.machine.Began(now, who)
	if !p.inbound && who.Addr.IsValid() { // we have chosen it
		s.guard.machine.Trust(now, who.Addr, trustFor)
	}
}

// sessionEnded notes the end of a session.
func (s *Service) sessionEnded(p *peer, why error, c session.Counters) {
	who := s.whoIs(p)
	now, lasted := time.Now(), time.Since(p.since)
	charged := lasted
	if !p.inbound || p.unwanted.Load() || s.ctx.Err() != nil { // our own doing
		charged = max(lasted, guard.Brief)
	}
	s.guard.mu.Lock()
	alerts := s.guard.machine.Ended(now, who, charged, c.ReceivedMessages, c.ReceivedBytes, answerCost+finishCost)
	if lasted >= guard.Brief && who.Addr.IsValid() {
		s.guard.machine.Trust(now, who.Addr, trustFor)
	}
	s.guard.mu.Unlock()
	s.tellAlerts(alerts)
	switch {
	case errors.Is(why, session.ErrAccused):
	case errors.Is(why, secure.ErrForged):
		s.charge(guard.Who{Addr: who.Addr}, AlertForgery, 1, 0, 0)
	case errors.Is(why, session.ErrProtocol):
		s.charge(who, AlertProtocol, 1, 0, 0)
	}
}

// refusedSession charges a peer whose session was not taken.
func (s *Service) refusedSession(link *secure.Link, a *adoption, reason wire.Reason) {
	if !a.uninvited() || reason != wire.ReasonLimit && reason != wire.ReasonNotAllowed && reason != wire.ReasonBanned {
		return
	}
	who := guard.Who{Peer: link.Remote.Peer}
	if a.how != Relayed {
		who.Addr = a.endpoint.Addr.Addr()
	}
	s.charge(who, AlertSessions, 1, 0, answerCost+finishCost)
}
