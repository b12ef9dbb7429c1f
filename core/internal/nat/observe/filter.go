package observe

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// Contact says what we had sent, before a packet, to where it came from.
type Contact uint8

const (
	// Stranger: nothing, to no port of that address.
	Stranger Contact = iota
	// Neighbour: something to the address, nothing to the port.
	Neighbour
	contacts
)

const (
	// enoughMissed probes, of enoughMissers networks, that were asked for and did
	// not arrive prove that they are filtered: one may be lost, and one observer may
	// not have sent it.
	enoughMissed  = 3
	enoughMissers = 2
	// maxMissed bounds what is remembered of them.
	maxMissed = 8
)

// filterFacts are what arrived and what did not.
type filterFacts struct {
	by       [contacts]arrivals
	punished time.Time // zero: nobody was
}

// arrivals are those of one Contact.
type arrivals struct {
	from    netip.AddrPort
	arrived time.Time // zero: nothing did
	missed  []missed
}

type missed struct {
	group netip.Prefix
	at    time.Time
}

func (f *filterFacts) expire(now time.Time) {
	for c := range f.by {
		if now.Sub(f.by[c].arrived) >= FactLife {
			f.by[c].arrived = time.Time{}
		}
		f.by[c].missed = slices.DeleteFunc(f.by[c].missed, func(m missed) bool { return now.Sub(m.at) >= FactLife })
	}
	if now.Sub(f.punished) >= FactLife {
		f.punished = time.Time{}
	}
}

// filtered reports whether probes of that kind are known not to arrive.
func (f *filterFacts) filtered(c Contact) bool {
	list := f.by[c].missed
	groups := map[netip.Prefix]bool{}
	for _, m := range list {
		groups[m.group] = true
	}
	return f.by[c].arrived.IsZero() && (!f.punished.IsZero() || len(list) >= enoughMissed && len(groups) >= enoughMissers)
}

func (f *filterFacts) verdict() wire.Depends {
	switch {
	case !f.by[Stranger].arrived.IsZero():
		return wire.EndpointIndependent
	case !f.by[Neighbour].arrived.IsZero():
		return wire.AddressDependent
	case f.filtered(Neighbour):
		return wire.AddressPortDependent
	}
	return wire.DependsUnknown
}

// Arrived tells of a probe or a connection that came from an endpoint that we had not
// sent to. What comes from this machine, from our own external address or from the
// same IPv6 /64 has not crossed the NAT and is not looked at. The caller vouches
// for c, and that no letter had asked us to open the way.
func (m *Machine) Arrived(p Proto, from netip.AddrPort, c Contact, now time.Time) {
	v := m.filterView(p, &from, c)
	if v == nil {
		return
	}
	a := from.Addr()
	if slices.ContainsFunc(v.dialled, func(r record) bool { return r.seen.Addr() == a }) {
		return
	}
	if realmOf(a) == onInternet && a.Is6() && slices.ContainsFunc(m.addrs, func(o netip.Addr) bool {
		net, err := o.Prefix(64)
		return err == nil && o.Is6() && net.Contains(a)
	}) {
		return
	}
	v.filter.by[c].from, v.filter.by[c].arrived = from, now
}

// Missed tells of a probe that an observer was asked to send from an endpoint that we
// had not sent to, and that did not arrive in time. The caller has waited for at
// least a round trip and a half.
func (m *Machine) Missed(p Proto, from netip.AddrPort, c Contact, now time.Time) {
	v := m.filterView(p, &from, c)
	if v == nil {
		return
	}
	list := append(v.filter.by[c].missed, missed{groupOf(from.Addr()), now})
	v.filter.by[c].missed = slices.Delete(list, 0, max(0, len(list)-maxMissed))
}

// Punished tells of an observer that was asked to send a probe from an endpoint that we
// had not sent to, and of which nothing at all has come since, though it was there
// before: some routers drop all that comes from an address after a stranger's packet
// from there. What does so filters, and no more should be tried.
func (m *Machine) Punished(p Proto, from netip.AddrPort, now time.Time) {
	if v := m.filterView(p, &from, Stranger); v != nil {
		v.filter.punished = now
	}
}

// filterView returns the view that a probe from an endpoint is about, and unmaps
// the endpoint; nil for what cannot be.
func (m *Machine) filterView(p Proto, from *netip.AddrPort, c Contact) *view {
	*from = unmap(*from)
	r := realmOf(from.Addr())
	if p >= protos || c >= contacts || r == nowhere || r == onLoopback || m.own(from.Addr()) {
		return nil
	}
	return m.view(key{Flow{p, from.Addr().Is6()}, r})
}

// Proof is why peers that do not know us can connect to us.
type Proof struct {
	Proto Proto
	// From is who did.
	From netip.AddrPort
	// Mapped says that it came through the port mapper's mapping, from an address
	// that we had sent to.
	Mapped bool
	At     time.Time
}

// String says it in a few words.
func (p Proof) String() string {
	if p.Mapped {
		return fmt.Sprintf("%v by %s through the port mapping", p.Proto, p.From)
	}
	return fmt.Sprintf("%v by %s, unasked", p.Proto, p.From)
}

// Reachable reports whether somebody on the Internet has reached us unasked within
// FactLife, and the newest proof: an arrival from an address that we had sent nothing
// to, or, while the port mapper has a mapping, from another port of one that we
// had. A public address, or a mapping, alone proves nothing.
func (m *Machine) Reachable(now time.Time) (Proof, bool) {
	var best Proof
	for k, v := range m.views {
		if !k.realm.wide() {
			continue
		}
		v.filter.expire(now)
		for c, f := range v.filter.by {
			byMapping := Contact(c) == Neighbour
			if f.arrived.IsZero() || byMapping && (m.facts[k.Flow] == nil || !m.facts[k.Flow].mapped.IsValid()) {
				continue
			}
			p := Proof{Proto: k.Proto, From: f.from, Mapped: byMapping, At: f.arrived}
			if order := p.At.Compare(best.At); best.At.IsZero() || order > 0 || order == 0 && (p.Proto > best.Proto || p.Proto == best.Proto && p.From.Compare(best.From) > 0) {
				best = p
			}
		}
	}
	return best, !best.At.IsZero()
}
