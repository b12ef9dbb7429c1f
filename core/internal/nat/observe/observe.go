// Package observe tells what a NAT in front of us is like, from what others say
// our address is. Votes come in (who saw which socket of ours as what, and when),
// verdicts in the words of RFC 4787 and RFC 5780 come out, one per transport
// protocol and address family. It decides what should be measured next; asking is
// its owner's business.
//
// Nobody is believed alone. Observers count by network, not by address, those that
// came to us and servers whose answers prove nothing count half, the former elect
// nothing as soon as three that we chose have voted, and a verdict needs a majority:
// liars in less than a third of the networks that we dialled cannot turn it.
package observe

import (
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// Proto is a transport protocol. NATs treat them apart, so verdicts are apart.
type Proto uint8

const (
	UDP Proto = iota
	TCP
	protos
)

// String returns "udp" or "tcp".
func (p Proto) String() string {
	if p == TCP {
		return "tcp"
	}
	return "udp"
}

// Flow names one of the four verdicts: a transport protocol and an address family.
type Flow struct {
	Proto Proto
	IPv6  bool
}

// Limits. A Machine holds at most 4 flows of 6 realms of views, each of these sizes:
// some 2 MiB when hostile peers fill every one, a few KiB in life.
const (
	// VoteLife is how long a vote counts.
	VoteLife = 10 * time.Minute
	// FactLife is how long an arrival, a probe that did not arrive, or a hairpin
	// counts. Filtering changes with the router, not with the mapping.
	FactLife = time.Hour
	// MaxDialled and MaxInbound bound the votes of a view: of observers that we
	// dialled or asked, and of others. Neither pushes out the other.
	MaxDialled = 128
	MaxInbound = 32
	// MaxGroup bounds the votes of one observer's network in a view.
	MaxGroup = 8
	// MaxSamples and MaxSample bound the samples of a view and the votes of one.
	MaxSamples = 8
	MaxSample  = 32
	// MaxGap is the longest time between two votes of a sample, by Vote.At. After
	// more, the ports of two mappings say little about each other.
	MaxGap = 200 * time.Millisecond
	// MaxAddrs bounds the addresses of ours that are remembered.
	MaxAddrs = 64
	// enoughSilent networks whose observers did not answer, while nobody did, say that
	// nothing of the protocol gets through; maxSilent bounds what is remembered.
	enoughSilent = 2
	maxSilent    = 8
)

// Vote is what one observer says.
type Vote struct {
	Proto Proto
	// Local is our socket. Its address may be unspecified; its port may not be 0.
	Local netip.AddrPort
	// Seen is where the observer saw packets of Local come from.
	Seen netip.AddrPort
	// Observer is the observer's endpoint as we know it.
	Observer netip.AddrPort
	// Outbound says that we dialled the observer.
	Outbound bool
	// Server says that the observer is a server of our configuration, whose answers
	// are not authenticated. It counts as dialled, with half the weight. What it sees
	// of one socket at each of its addresses counts for the mapping, since one server
	// has several to tell mappings apart.
	Server bool
	// At is when we sent the packet that the observer speaks of. Zero, or later than
	// now, means now.
	At time.Time
}

// Machine collects votes. The zero value is ready. Its methods must not be called at
// the same time. It keeps nothing of what it is given.
type Machine struct {
	views map[key]*view
	facts map[Flow]*flowFacts
	addrs []netip.Addr // our own, sorted
}

// key names a view: votes of one realm say nothing about another's.
type key struct {
	Flow
	realm realm
}

// flowFacts are what is known of a flow whatever the realm.
type flowFacts struct {
	hairpin   bool
	hairpinAt time.Time // zero: not known
	mapped    netip.AddrPort
	mappedAt  time.Time
}

// Observe takes a vote and reports whether it was worth keeping. A vote is dropped
// when it is older than VoteLife, or names no port; when local, seen and
// observer are of different families; when the observer is this machine; when
// Seen is no address that a host can have; and when Seen reaches less far or
// farther than the observer: what a peer on the LAN says is about the LAN, what
// one on the Internet says is about the Internet, and each is kept apart.
//
// Of one socket each network of observers has one vote, its newest.
func (m *Machine) Observe(v Vote, now time.Time) bool {
	r, k, ok := m.admit(v, now)
	if !ok {
		return false
	}
	m.view(k).add(r, now)
	return true
}

// Sample takes votes about packets that were sent one right after another, in that
// order, each to an observer that the socket had not sent to before, so that each
// made a mapping: the order shows how the NAT chooses ports. A new socket has
// sent to nobody. A vote about a mapping that an earlier vote has shown says nothing
// of that and is only observed, as each of them is. A gap of more than MaxGap divides the sample; what follows MaxSample votes
// is not looked at. It reports how many of the votes count in a sample: those that
// we dialled, that Observe would keep and that are of the first one's flow and realm.
func (m *Machine) Sample(votes []Vote, now time.Time) int {
	var run sample
	var of key
	count := 0
	for _, v := range votes[:min(len(votes), MaxSample)] {
		r, k, ok := m.admit(v, now)
		if !ok || !r.dialled {
			continue
		}
		r = m.view(k).add(r, now)
		if count > 0 && k != of {
			continue
		}
		if n := len(run); n > 0 && (r.at.Sub(run[n-1].at) > MaxGap || r.at.Before(run[n-1].at)) {
			m.view(of).addSample(run, now)
			run = nil
		}
		of = k
		run = append(run, r)
		count++
	}
	if count > 0 {
		m.view(of).addSample(run, now)
	}
	return count
}

// admit checks a vote and brings it into the form in which it is kept.
func (m *Machine) admit(v Vote, now time.Time) (record, key, bool) {
	v.Local, v.Seen, v.Observer = unmap(v.Local), unmap(v.Seen), unmap(v.Observer)
	if v.At.IsZero() || v.At.After(now) {
		v.At = now
	}
	k := key{Flow{v.Proto, v.Seen.Addr().Is6()}, realmOf(v.Seen.Addr())}
	local := v.Local.Addr()
	switch {
	case v.Proto >= protos || k.realm == nowhere || realmOf(v.Observer.Addr()) != k.realm:
		return record{}, key{}, false
	case v.Observer.Addr().Is6() != k.IPv6 || local.IsValid() && !local.IsUnspecified() && local.Is6() != k.IPv6:
		return record{}, key{}, false
	case v.Local.Port() == 0 || v.Seen.Port() == 0 || now.Sub(v.At) >= VoteLife:
		return record{}, key{}, false
	case k.realm != onLoopback && m.own(v.Observer.Addr()):
		return record{}, key{}, false
	}
	if !local.IsValid() || local.IsUnspecified() {
		// 0.0.0.0, [::] and nothing are one socket.
		v.Local = netip.AddrPortFrom(unspecified(k.IPv6), v.Local.Port())
	}
	return record{
		local: v.Local, seen: v.Seen, observer: v.Observer, at: v.At,
		group: groupOf(v.Observer.Addr()), dialled: v.Outbound || v.Server, server: v.Server,
	}, k, true
}

// Silent tells of an observer that was asked by a protocol what it sees, several
// times, and did not answer, though it is there by the other protocol.
func (m *Machine) Silent(p Proto, observer netip.AddrPort, now time.Time) {
	observer = unmap(observer)
	r := realmOf(observer.Addr())
	if p >= protos || r == nowhere || r == onLoopback || m.own(observer.Addr()) {
		return
	}
	v := m.view(key{Flow{p, observer.Addr().Is6()}, r})
	v.silent = append(slices.DeleteFunc(v.silent, func(s missed) bool { return s.group == groupOf(observer.Addr()) }), missed{groupOf(observer.Addr()), now})
	v.silent = slices.Delete(v.silent, 0, max(0, len(v.silent)-maxSilent))
}

func (m *Machine) view(k key) *view {
	if m.views == nil {
		m.views = map[key]*view{}
	}
	if m.views[k] == nil {
		m.views[k] = &view{}
	}
	return m.views[k]
}

func (m *Machine) fact(f Flow) *flowFacts {
	if m.facts == nil {
		m.facts = map[Flow]*flowFacts{}
	}
	if m.facts[f] == nil {
		m.facts[f] = &flowFacts{}
	}
	return m.facts[f]
}

// own reports whether an address is one of ours.
func (m *Machine) own(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(m.addrs, a.WithZone(""), netip.Addr.Compare)
	return found
}

// SetAddrs tells which addresses this machine's interfaces have; only the first
// MaxAddrs count. When those of a family have changed, everything learned in that
// family over the old network is forgotten, but for votes about sockets that are
// bound to an address which is still here. The same addresses again change nothing.
func (m *Machine) SetAddrs(addrs []netip.Addr) {
	next := make([]netip.Addr, 0, min(len(addrs), MaxAddrs))
	for _, a := range addrs[:min(len(addrs), MaxAddrs)] {
		if a.IsValid() {
			next = append(next, a.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(next, netip.Addr.Compare)
	next = slices.Compact(next)
	old := m.addrs
	m.addrs = next
	for _, six := range []bool{false, true} {
		if slices.Equal(family(old, six), family(next, six)) {
			continue
		}
		m.forget(six, func(local netip.Addr) bool { return m.own(local) })
	}
}

// Reset forgets everything but our own addresses: after sleep, when the gateway has
// started anew or is another one.
func (m *Machine) Reset() {
	for _, six := range []bool{false, true} {
		m.forget(six, func(netip.Addr) bool { return false })
	}
}

// forget drops what is known in a family but votes of sockets whose address keep holds for.
func (m *Machine) forget(six bool, keep func(local netip.Addr) bool) {
	for k, v := range m.views {
		if k.IPv6 != six {
			continue
		}
		v.filter, v.silent = filterFacts{}, nil
		for _, list := range []*[]record{&v.dialled, &v.inbound} {
			*list = slices.DeleteFunc(*list, func(r record) bool { return !keep(r.local.Addr()) })
		}
		v.samples = slices.DeleteFunc(v.samples, func(s sample) bool { return !keep(s[0].local.Addr()) })
		if len(v.dialled)+len(v.inbound) == 0 {
			delete(m.views, k)
		}
	}
	for f := range m.facts {
		if f.IPv6 == six {
			delete(m.facts, f)
		}
	}
}

// family returns the addresses of one family, in order.
func family(addrs []netip.Addr, six bool) (out []netip.Addr) {
	for _, a := range addrs {
		if a.Is6() == six {
			out = append(out, a)
		}
	}
	return out
}

// SetMapped tells the external endpoint that a port mapper has for us in its
// address's family: one vote, for the address only, and a hint of a second NAT when
// observers say another one. It counts until ClearMapped. A mapping to another
// endpoint than before makes what is known of filtering void.
func (m *Machine) SetMapped(p Proto, external netip.AddrPort, now time.Time) {
	external = unmap(external)
	if p >= protos || realmOf(external.Addr()) == nowhere || external.Port() == 0 {
		return
	}
	f := Flow{p, external.Addr().Is6()}
	if m.fact(f).mapped != external {
		m.voidFiltering(f)
	}
	m.fact(f).mapped, m.fact(f).mappedAt = external, now
}

// ClearMapped tells that the mapper's endpoint of a flow is gone. What arrived
// may have come through it, so what is known of filtering is void.
func (m *Machine) ClearMapped(f Flow) {
	if m.facts[f] == nil || !m.facts[f].mapped.IsValid() {
		return
	}
	m.facts[f].mapped = netip.AddrPort{}
	m.voidFiltering(f)
}

func (m *Machine) voidFiltering(f Flow) {
	for k, v := range m.views {
		if k.Flow == f {
			v.filter = filterFacts{}
		}
	}
}

// SetHairpin tells whether a packet that we sent to our own external endpoint came back.
func (m *Machine) SetHairpin(f Flow, came bool, now time.Time) {
	if f.Proto < protos {
		m.fact(f).hairpin, m.fact(f).hairpinAt = came, now
	}
}

// Verdict is what is known of the NAT of one flow.
type Verdict struct {
	// NAT are the facts in the form in which peers are told. When None, Filtering
	// is a firewall's.
	NAT wire.NAT
	// Local is the socket of ours that NAT.External is of. It is not valid without one.
	Local netip.AddrPort
	// Confidence is in NAT.External's address and, where NAT.Mapping is known, in that.
	Confidence Confidence
	// None says that others see one of our own addresses and the socket's own port.
	None bool
	// Pooled says that the NAT uses several external addresses at a time.
	Pooled bool
	// Near says that nobody on the Internet has voted: the verdict is about what lies
	// between us and a smaller network.
	Near bool
	// Blocked says that nothing of the protocol gets through: observers in several
	// networks are there by the other one, and none has answered.
	Blocked bool
	// HairpinKnown says that NAT.Hairpin was measured.
	HairpinKnown bool
	// External are the endpoints of ours that were seen, the weightiest first, at
	// most MaxExternal.
	External []External
}

// External is an endpoint of ours as others see it.
type External struct {
	Addr netip.AddrPort
	// Weight is how many observers say so, in halves: 2 for the network of one that
	// we dialled and for the port mapper, 1 for that of one that came to us or of a
	// server.
	Weight int
	// Mapped says that the port mapper names it.
	Mapped bool
}

// MaxExternal bounds the endpoints of a verdict.
const MaxExternal = 16

// Confidence says how much a verdict can be relied upon.
type Confidence uint8

const (
	// None: fewer than two observers' weight agree, or no majority.
	None Confidence = iota
	// Tentative: the weight of two observers that we dialled.
	Tentative
	// Confirmed: the weight of three.
	Confirmed
)

// String returns "none", "tentative" or "confirmed".
func (c Confidence) String() string {
	return [...]string{"none", "tentative", "confirmed"}[min(c, Confirmed)]
}

// Weights in halves, and what they must add up to.
const (
	weightDialled   = 2
	weightInbound   = 1
	weightServer    = 1
	tentativeWeight = 2 * weightDialled
	confirmedWeight = 3 * weightDialled
	// electing is how many networks that we chose must have voted for the votes of
	// others to elect nothing.
	electing = 3
)
