package crust

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Where peers can be dialled, as contact records say: what ours says, and what is made
// of those of others.
//
// A record goes to everybody, so it names global endpoints first: those that routers pass
// on, those that listeners have, and where several peers see the listeners: over TCP only
// if strangers get in there, over UDP in any case, to tell whose site it is. Then those of the site (private, and of a provider's NAT),
// for peers in the same one; link-local ones never. A service that listens on loopback
// only has a record of these, for peers on the same machine: the machine of gossip tells
// it to nobody else, and takes such records of nobody else.
//
// Who reads a record dials what is global, and what is of a site only from within: when
// one of the record's global addresses is one of this machine's, also as others see it,
// or in the same IPv6 /48; when it has none, when this machine has an address in the same
// of the blocks for sites. And only by TCP: nobody has paid for the large first flights
// of UDP, and the address may be a third party's. Over UDP peers meet by introducers.

// KnownPeer is a peer whose contact record the service has. It is not connected, or need
// not be. Nothing of it is proved but that the peer holds its key and has said so.
type KnownPeer struct {
	Peer PeerID
	Role Role
	// Endpoints are where the peer says that it may be dialled, up to 8.
	Endpoints []Endpoint
	// Direct says that somebody on the Internet has come to the peer unasked, and Relays
	// that it carries links of others.
	Direct, Relays bool
	// Expires is when the peer is forgotten unless it says by then that it is still there.
	Expires time.Time
}

// Known returns the peers that gossip has told of, connected ones too, in the order of
// their ids: up to 16,384. It is empty unless Config.Gossip is GossipOn.
func (s *Service) Known() (list []KnownPeer) {
	g := &s.gossip
	if g.stir == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.machine.Known(func(c wire.Contact, _ []byte) bool {
		list = append(list, KnownPeer{
			Peer: c.Peer, Role: roleOf(c), Endpoints: slices.Clone(c.Endpoints),
			Direct: c.Flags&wire.ContactDirect != 0, Relays: c.Flags&wire.ContactRelay != 0, Expires: time.UnixMilli(int64(c.Expires())), //nolint:gosec // below 2^49
		})
		return true
	})
	return list
}

// roleOf returns the role in a contact record; one of a later version is that of a client.
func roleOf(c wire.Contact) Role { return Role(min(c.Role, uint8(Client))) }

// countKnown returns how many peers Known returns.
func (s *Service) countKnown() int {
	g := &s.gossip
	if g.stir == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machine.Len()
}

// knownAt returns where a peer may be dialled from here, by its contact record.
func (s *Service) knownAt(id PeerID) []Endpoint {
	g := &s.gossip
	if g.stir == nil {
		return nil
	}
	g.mu.Lock()
	c, _, ok := g.machine.Lookup(id)
	g.mu.Unlock()
	if !ok {
		return nil
	}
	return s.sieve().pass(c.Endpoints)
}

// pickKnown returns the records of up to n peers that may be dialled from here, and of
// them where, but those for which skip holds: at random, and from as many address
// prefixes as there are. skip is called with a lock held; it may call find.
func (s *Service) pickKnown(n int, skip func(wire.Contact) bool) []wire.Contact {
	g := &s.gossip
	if g.stir == nil {
		return nil
	}
	v := s.sieve()
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.machine.Pick(n, func(id PeerID) bool {
		c, _, ok := g.machine.Lookup(id)
		return !ok || skip(c) || len(v.pass(c.Endpoints)) == 0
	})
	for i := range list {
		list[i].Endpoints = v.pass(list[i].Endpoints)
	}
	return list
}

// sieve tells which endpoints of contact records may be dialled from here.
type sieve struct {
	ours    []netip.Addr // of this machine
	outside []netip.Addr // as others see it
	never   []netip.Addr // routers
}

// sieve returns that of this moment.
func (s *Service) sieve() sieve {
	ours, err := s.network.Addrs()
	if err != nil {
		s.log.Debug("cannot list the addresses of this machine", "error", err)
	}
	return sieve{ours: ours, outside: s.outside(), never: s.routers()}
}

// pass returns those endpoints of a record that may be dialled, in a slice of their own.
func (v sieve) pass(eps []Endpoint) (out []Endpoint) {
	global, within := false, false
	for _, ep := range eps {
		if ep.Scope() == endpoint.Global {
			global = true
			within = within || v.here(ep.Addr.Addr())
		}
	}
	for _, ep := range eps {
		if ep.Transport != TCP || slices.Contains(v.never, ep.Addr.Addr()) {
			continue
		}
		switch ep.Scope() {
		case endpoint.Global, endpoint.Loopback: // such records are taken of this machine only
		case endpoint.Private, endpoint.CGNAT:
			if global && !within || !global && !v.inSite(ep.Addr.Addr()) {
				continue
			}
		default:
			continue
		}
		out = append(out, ep)
	}
	return out
}

// siteBits is how long the prefix of a site is at most (RFC 4193, RFC 6177).
const siteBits = 48

// here reports whether a global address is ours, or in our site.
func (v sieve) here(a netip.Addr) bool {
	return slices.Contains(v.outside, a) || slices.ContainsFunc(v.ours, func(o netip.Addr) bool {
		return o == a || a.Is6() && o.Is6() && common(o, a, siteBits)
	})
}

// sites are the blocks of addresses for sites of IPv4.
var sites = [...]netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
}

// inSite reports whether an address that only means something within a site may be one
// of ours.
func (v sieve) inSite(a netip.Addr) bool {
	return slices.ContainsFunc(v.ours, func(o netip.Addr) bool {
		if a.Is6() {
			return o.Is6() && common(o, a, siteBits)
		}
		return slices.ContainsFunc(sites[:], func(p netip.Prefix) bool { return p.Contains(o) && p.Contains(a) })
	})
}

// common reports whether two IPv6 addresses share a prefix of so many bits.
func common(a, b netip.Addr, bits int) bool {
	p, err := a.WithZone("").Prefix(bits)
	return err == nil && p.Contains(b.WithZone(""))
}

// outside returns the addresses at which others see this machine, as far as several
// agree on them, and those of routers that pass ports on.
func (s *Service) outside() (list []netip.Addr) {
	for _, ep := range s.mapped() {
		list = append(list, ep.Addr.Addr())
	}
	for _, f := range []observe.Flow{{Proto: observe.TCP}, {Proto: observe.UDP}, {Proto: observe.TCP, IPv6: true}, {Proto: observe.UDP, IPv6: true}} {
		if at, ok := s.agreedOn(f); ok {
			list = append(list, at)
		}
	}
	return list
}

// agreedOn returns the external address of a flow, if several agree on it. Of one that
// only one peer has told we tell nobody: it may be anybody's.
func (s *Service) agreedOn(f observe.Flow) (netip.Addr, bool) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	v := s.watch.machine.Verdict(f, time.Now())
	return v.NAT.External.Addr().Unmap(), v.NAT.External.IsValid() && !v.Near && v.Confidence > observe.None
}

// siteShare is how many of a record's endpoints are left to those of the site.
const siteShare = 2

// letsIn reports whether peers may dial us.
func (s *Service) letsIn() bool { return s.accept.Load() && s.allows(Accepted) }

// dialableAt returns what our contact record says: where we can be dialled, at most
// wire.MaxContactEndpoints endpoints.
func (s *Service) dialableAt() []Endpoint {
	listed, _, err := s.endpoints()
	if err != nil {
		s.log.Debug("no contact record is made", "error", err)
		return nil
	}
	var global, site, here []Endpoint
	for _, ep := range slices.Concat(listed, s.seenAt()) {
		to := &site
		switch ep.Scope() {
		case endpoint.Global:
			to = &global
		case endpoint.Loopback:
			to = &here
		case endpoint.LinkLocal, endpoint.Unusable:
			continue
		}
		if !slices.Contains(*to, ep) {
			*to = append(*to, ep)
		}
	}
	if len(global)+len(site) == 0 {
		return here[:min(len(here), wire.MaxContactEndpoints)]
	}
	global = global[:min(len(global), wire.MaxContactEndpoints-min(len(site), siteShare))]
	return append(global, site[:min(len(site), wire.MaxContactEndpoints-len(global))]...)
}

// isOpen reports whether strangers get in.
func (s *Service) isOpen(f observe.Flow) bool {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return s.watch.machine.Verdict(f, time.Now()).NAT.Filtering == wire.EndpointIndependent
}

// seenAt returns where others see the listeners, as far as several agree: over TCP, by
// which peers dial what records say, only where the NAT lets strangers in.
func (s *Service) seenAt() (eps []Endpoint) {
	for _, l := range s.Listeners() {
		a := l.Addr.Addr()
		if s.isOld(l) || wantOf(l).Port == 0 { // it is for this machine, or this segment
			continue
		}
		for _, six := range []bool{false, true} {
			f := observe.Flow{IPv6: six}
			if l.Transport == TCP {
				f.Proto = observe.TCP
			}
			if !a.IsUnspecified() && a.Is6() != six {
				continue
			}
			if at, ok := s.agreedOn(f); !ok || l.Transport == TCP && !s.isOpen(f) {
				continue
			} else if ep := endpoint.New(l.Transport, s.seenListener(f, l)); ep.Addr.Addr() == at {
				eps = append(eps, ep)
			}
		}
	}
	return eps
}

// standing returns our role in the contact record. Who reads that a peer is a Node may
// rely on it that others can reach it: a Node that peers on the Internet see, of whom none
// has reached it unasked within the last hour, is a Client there (NATReport.Reachable).
// In a smaller network nobody is outside.
func (s *Service) standing() Role {
	now := time.Now()
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if _, reached := s.watch.machine.Reachable(now); reached {
		return s.cfg.Role
	}
	for _, proto := range []observe.Proto{observe.UDP, observe.TCP} {
		for _, six := range []bool{false, true} {
			if v := s.watch.machine.Verdict(observe.Flow{Proto: proto, IPv6: six}, now); len(v.External) > 0 && !v.Near {
				return Client
			}
		}
	}
	return s.cfg.Role
}

// recordFlags returns the flags of our contact record.
func (s *Service) recordFlags() (flags uint8) {
	if s.cfg.Relay == RelayData {
		flags |= wire.ContactRelay
	}
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if _, reached := s.watch.machine.Reachable(time.Now()); reached {
		flags |= wire.ContactDirect
	}
	return flags
}

// knownDial is a dial of a peer where its contact record says that it is.
type knownDial struct {
	over chan struct{} // closed when it has ended
	err  error         // why in vain; set before that
}

// dialKnown dials the peer of an attempt where its contact record says that it is, beside
// what introducers do. It returns nil when there is no record.
func (s *Service) dialKnown(a *attempt) *knownDial {
	eps := s.knownAt(a.peer)
	if len(eps) == 0 {
		return nil
	}
	k := &knownDial{over: make(chan struct{}), err: errNobody}
	s.spawn(func() {
		defer close(k.over)
		dialled := time.Now()
		link, ep, err := s.race(&attempt{peer: a.peer, ctx: a.ctx}, eps)
		if err == nil {
			if p := s.settled(a); p != nil && !s.improves(p, Dialed, ep) {
				link.Conn.Close() //nolint:errcheck // it carries nothing
				return
			}
			var p *peer
			p, err = s.adopt(link, adoption{how: Dialed, began: a.began, linked: dialled, endpoint: ep, attempt: a, within: a.ctx})
			if err == nil {
				s.already(a, p)
				return
			}
		}
		k.err = err
		if s.isRelayed(a.peer) { // a relay was quicker
			s.beyondRelay(a.peer, eps, nil)
		}
	})
	return k
}

// failedBoth waits for a dial of a known peer, if there is one, and adds why that was in vain to why no
// introducer helped.
func (s *Service) failedBoth(a *attempt, k *knownDial, err error) error {
	if k == nil {
		return err
	}
	<-k.over // soon: the attempt's own deadline bounds it
	var e *Error
	if errors.As(k.err, &e) {
		return &Error{Op: "connect", Peer: a.peer, Code: e.Code, Err: sentences{k.err, err}}
	}
	return err
}
