package observe

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// Verdict returns what is known of a flow, of the widest realm that somebody has
// voted in.
func (m *Machine) Verdict(f Flow, now time.Time) Verdict {
	k, v := m.widest(f, now)
	if v == nil {
		out := Verdict{Blocked: m.blocked(f, now)}
		if fact := m.facts[f]; fact != nil && fact.mapped.IsValid() {
			out.NAT.Double = !realmOf(fact.mapped.Addr()).wide()
			out.External = []External{{Addr: fact.mapped, Weight: weightDialled, Mapped: true}}
		}
		return out
	}
	return m.judge(k, v, now).Verdict
}

// widest returns the view of the widest realm in which something is known, nil
// for none, without what is too old.
func (m *Machine) widest(f Flow, now time.Time) (key, *view) {
	for r := realms - 1; r > nowhere; r-- {
		k := key{f, r}
		v := m.views[k]
		if v == nil {
			continue
		}
		v.expire(now)
		if len(v.dialled)+len(v.inbound) > 0 || v.filter.verdict() != wire.DependsUnknown {
			return k, v
		}
	}
	return key{}, nil
}

// blocked reports whether nothing of a flow gets through, when nothing else is known of
// it.
func (m *Machine) blocked(f Flow, now time.Time) bool {
	for r := realms - 1; r > nowhere; r-- {
		if v := m.views[key{f, r}]; v != nil {
			if v.expire(now); v.blocked() {
				return true
			}
		}
	}
	return false
}

// Carrier reports whether there is a provider's NAT before us: an address of the block
// for those (RFC 6598) is the one that we send from, or that others in such a network
// see us at, or the one that the port mapper has; or there are two NATs in a row. An
// address of that block at an interface alone says nothing: overlays use them, too.
func (m *Machine) Carrier(now time.Time) bool {
	for k, v := range m.views {
		if k.IPv6 {
			continue
		}
		v.expire(now)
		for _, r := range slices.Concat(v.dialled, v.inbound) {
			from, to := realmOf(r.local.Addr()), realmOf(r.seen.Addr())
			if from == onCarrier && to.wide() || to == onCarrier && !m.own(r.seen.Addr()) {
				return true
			}
		}
	}
	for p := range protos {
		f := Flow{Proto: p}
		if m.Verdict(f, now).NAT.Double || m.facts[f] != nil && realmOf(m.facts[f].mapped.Addr()) == onCarrier {
			return true
		}
	}
	return false
}

// judgement is a verdict and what it rests on.
type judgement struct {
	Verdict
	ports   allocation
	dialled int  // networks that we dialled which have voted
	pairs   bool // somebody has seen the socket at two ports of one address
}

func (m *Machine) judge(k key, v *view, now time.Time) judgement {
	j := judgement{}
	j.Near = !k.realm.wide()
	j.NAT.Filtering, j.Blocked = v.filter.verdict(), v.blocked()
	if fact := m.facts[k.Flow]; fact != nil && !fact.hairpinAt.IsZero() && now.Sub(fact.hairpinAt) < FactLife {
		j.NAT.Hairpin, j.HairpinKnown = fact.hairpin, true
	}
	var mapped netip.AddrPort
	if fact := m.facts[k.Flow]; fact != nil {
		mapped = fact.mapped
	}
	dialled, inbound := v.voters()
	j.dialled = len(dialled)
	voters := slices.Concat(dialled, inbound)
	electors := voters
	if len(dialled) >= electing {
		electors = dialled
	}
	j.External = externals(voters, mapped)
	if len(voters) == 0 {
		return j
	}
	mapperVotes := realmOf(mapped.Addr()) == k.realm
	winner, accept, weight := m.elect(&j, electors, voters, mapped, mapperVotes)
	if own := slices.IndexFunc(electors, m.unchanged); m.untranslated(electors)*2 > weigh(electors) {
		winner = electors[own]
		j.None, j.Pooled = true, false
		j.NAT.Mapping = wire.EndpointIndependent
		j.ports.rule = wire.PortsPreserving
		j.conclude(winner, m.untranslated(voters), now)
		return j
	}
	socket := v.socket()
	last := newestMade(dialled, accept)
	j.NAT.Mapping = wire.DependsUnknown
	external := winner
	switch {
	case len(socket) >= 2:
		var same cluster[netip.AddrPort]
		j.NAT.Mapping, same = mappingOf(socket)
		if j.NAT.Mapping == wire.EndpointIndependent {
			external = same.list[0]
			weight = min(weight, agree(voters, external.seen, mapped, mapperVotes))
			break
		}
		j.NAT.Mapping, j.pairs = v.depends()
		weight = min(weight, weigh(socket))
		if last >= 0 {
			external = dialled[last]
		}
	case last >= 0:
		external = dialled[last]
	}
	j.ports = v.allocation(j.NAT.Mapping, accept)
	if j.ports.rule == wire.PortsSequential && j.NAT.Mapping != wire.EndpointIndependent {
		external = j.ports.last
	}
	j.conclude(external, weight, now)
	if mapped.IsValid() && (!realmOf(mapped.Addr()).wide() || mapperVotes && j.Confidence > None && !accept(mapped.Addr())) {
		j.NAT.Double = true
	}
	return j
}

// newestMade returns which record is of the mapping that was made last, -1 for none
// at an address that accept holds for.
func newestMade(list []record, accept func(netip.Addr) bool) int {
	best := -1
	for i, r := range list {
		if accept(r.seen.Addr()) && (best < 0 || r.made.After(list[best].made)) {
			best = i
		}
	}
	return best
}

// conclude writes down what the NAT is like, by the mapping that peers are told
// of and the weight of those that agree.
func (j *judgement) conclude(external record, weight int, now time.Time) {
	j.NAT.Ports = j.ports.rule
	j.NAT.Step = int16(j.ports.step)
	j.NAT.Rate = uint16(math.Round(j.ports.rate * 10))
	j.NAT.Low, j.NAT.High = uint16(j.ports.low), uint16(j.ports.high)
	j.NAT.External, j.Local = external.seen, external.local
	j.NAT.Age = uint32(min(max(now.Sub(external.at).Milliseconds(), 0), math.MaxUint32))
	switch {
	case weight >= confirmedWeight:
		j.Confidence = Confirmed
	case weight >= tentativeWeight:
		j.Confidence = Tentative
	}
}

// unchanged reports whether a record shows one of our own addresses and the socket's
// own port.
func (m *Machine) unchanged(r record) bool {
	return m.own(r.seen.Addr()) && r.seen.Port() == r.local.Port()
}

// untranslated returns the weight of those that see us unchanged, at any of our
// addresses: IPv6 hosts choose one by where they send to.
func (m *Machine) untranslated(list []record) (weight int) {
	for _, r := range list {
		if m.unchanged(r) {
			weight += r.weight()
		}
	}
	return weight
}

func weigh(list []record) (weight int) {
	for _, r := range list {
		weight += r.weight()
	}
	return weight
}

// elect finds the external address: the newest record of the one that has most
// votes, which other addresses belong to the same pool, and the weight of all that
// agree, 0 when they are no majority of those that elect.
func (m *Machine) elect(j *judgement, electors, voters []record, mapped netip.AddrPort, mapperVotes bool) (record, func(netip.Addr) bool, int) {
	addrs := count(electors, seenAddr)
	total := 0
	for i := range addrs {
		total += addrs[i].weight
		if mapperVotes && addrs[i].what == mapped.Addr() {
			addrs[i].weight += weightDialled
		}
	}
	if mapperVotes {
		total += weightDialled
	}
	slices.SortStableFunc(addrs, func(a, b cluster[netip.Addr]) int { return cmp.Compare(b.weight, a.weight) })
	top := addrs[0]
	j.Pooled = pooled(addrs)
	accept := func(a netip.Addr) bool { return a == top.what || j.Pooled && near(a, top.what) }
	elected, weight := 0, 0
	for _, c := range addrs {
		if accept(c.what) {
			elected += c.weight
		}
	}
	for _, r := range voters {
		if accept(r.seen.Addr()) {
			weight += r.weight()
		}
	}
	if mapperVotes && accept(mapped.Addr()) {
		weight += weightDialled
	}
	if elected*2 <= total {
		weight = 0
	}
	return top.list[0], accept, weight
}

// pooled reports whether the NAT uses several addresses at a time: more than a third
// of the votes are for others than the first, near to it, and older and newer ones
// mixed; an address that has changed divides them.
func pooled(addrs []cluster[netip.Addr]) bool {
	top := addrs[0]
	oldest, newest := top.list[len(top.list)-1].at, top.list[0].at
	others, total, mixed := 0, 0, len(addrs) > 2
	for i, c := range addrs {
		total += c.weight
		if i == 0 || !near(c.what, top.what) {
			continue
		}
		others += c.weight
		mixed = mixed || !c.list[len(c.list)-1].at.After(newest) && !c.list[0].at.Before(oldest)
	}
	return mixed && others*3 > total && total >= confirmedWeight
}

// near reports whether two addresses can be of one pool: the same /24 or /64.
func near(a, b netip.Addr) bool {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	net, err := a.Prefix(bits)
	return err == nil && net.Contains(b)
}

// agree returns the weight of what names an endpoint; the port mapper names the address.
func agree(voters []record, endpoint, mapped netip.AddrPort, mapperVotes bool) (weight int) {
	for _, r := range voters {
		if r.seen == endpoint {
			weight += r.weight()
		}
	}
	if mapperVotes && mapped.Addr() == endpoint.Addr() {
		weight += weightDialled
	}
	return weight
}

// mappingOf judges ballots about one socket: EndpointIndependent, with those that say
// the same, when most do; or when two lots do that hardly anybody else differs
// from, because the mapping was made anew in between, with the newer lot. Otherwise
// AddressDependent, which stands for both kinds.
func mappingOf(socket []record) (wire.Depends, cluster[netip.AddrPort]) {
	lots := count(socket, seenEndpoint)
	top := lots[0]
	if 2*top.weight > weigh(socket) {
		return wire.EndpointIndependent, top
	}
	if len(lots) >= 2 && len(lots[1].list) >= 2 && 4*(len(top.list)+len(lots[1].list)) > 3*len(socket) {
		if newer(lots[1].list[0], top.list[0]) < 0 {
			top = lots[1]
		}
		return wire.EndpointIndependent, top
	}
	return wire.AddressDependent, cluster[netip.AddrPort]{}
}

// depends tells the two dependent kinds of mapping apart by observers that have seen
// a socket at two ports of one address, and whether there are any. Without them it
// is the kind that most such NATs are.
func (v *view) depends() (wire.Depends, bool) {
	same, different := map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
	for i, a := range v.dialled {
		for _, b := range v.dialled[:i] {
			if a.local != b.local || a.observer.Addr() != b.observer.Addr() {
				continue
			}
			if a.seen == b.seen {
				same[a.group] = true
			} else {
				different[a.group] = true
			}
		}
	}
	if len(same) > len(different) {
		return wire.AddressDependent, true
	}
	return wire.AddressPortDependent, len(same)+len(different) > 0
}

// externals lists the endpoints that were seen, the weightiest first.
func externals(voters []record, mapped netip.AddrPort) []External {
	lots := count(voters, seenEndpoint)
	out := make([]External, 0, len(lots)+1)
	for _, c := range lots {
		e := External{Addr: c.what, Weight: c.weight, Mapped: c.what == mapped}
		if e.Mapped {
			e.Weight += weightDialled
		}
		out = append(out, e)
	}
	if mapped.IsValid() && !slices.ContainsFunc(out, func(e External) bool { return e.Mapped }) {
		out = append(out, External{Addr: mapped, Weight: weightDialled, Mapped: true})
	}
	slices.SortStableFunc(out, func(a, b External) int { return cmp.Compare(b.Weight, a.Weight) })
	return out[:min(len(out), MaxExternal)]
}
