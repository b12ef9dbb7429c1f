package natsim

import (
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// inner is what a mapping is found by from inside, outer from outside.
type inner struct {
	protocol Protocol
	local    netip.AddrPort
	remote   netip.AddrPort // as far as the mapping depends on it
}

type outer struct {
	protocol Protocol
	public   netip.AddrPort
}

// mapping is an external endpoint of a local one.
type mapping struct {
	inner    inner
	public   netip.AddrPort
	until    time.Time
	sessions map[netip.AddrPort]*session // by the other end
}

// session is what passes between a mapping and one other end; while it lives, the
// filter lets that end in.
type session struct {
	until         time.Time
	replied       bool
	finOut, finIn bool
	seq           uint32 // of the SYN that went out
	crossed       bool   // and one came in, that answers nothing
	ended         bool   // by a reset or two FINs: nothing but a SYN prolongs it
}

// pair is an external endpoint and a stranger who has sent to it.
type pair struct {
	at       outer
	stranger netip.AddrPort
}

// NAT is a NAT at work. It is for one goroutine at a time. Times that it is given
// never go back.
type NAT struct {
	config   *Config
	external []netip.Addr
	current  int // of external
	random   *rand.Rand

	inside   map[inner]*mapping
	outside  map[outer]*mapping
	forwards map[outer]netip.AddrPort // by protocol and external port; the address is the zero Addr
	punished map[netip.Addr]time.Time // until when
	polluted map[pair]time.Time
	previous map[uint16]bool // ports that mappings had before a reboot

	last  map[Protocol]uint16    // the port of the latest mapping, for Sequential
	noisy map[Protocol]time.Time // until when others' mappings were counted
}

// New makes a NAT. It has the external addresses, of IPv4, of which it uses the
// first until Reboot takes the next; a Firewall needs none. Everything random comes
// from seed.
func New(c Config, external []netip.Addr, seed uint64) (*NAT, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	n := &NAT{
		config: c.withDefaults(), external: slices.Clone(external), random: rand.New(rand.NewPCG(seed, seed)),
		forwards: map[outer]netip.AddrPort{}, previous: map[uint16]bool{},
	}
	n.forget()
	return n, nil
}

func (n *NAT) forget() {
	n.inside, n.outside = map[inner]*mapping{}, map[outer]*mapping{}
	n.punished, n.polluted = map[netip.Addr]time.Time{}, map[pair]time.Time{}
	n.last, n.noisy = map[Protocol]uint16{}, map[Protocol]time.Time{}
	clear(n.forwards)
}

// External is the address that new mappings get, but for an Arbitrary NAT. It is
// the zero Addr when there is none.
func (n *NAT) External() netip.Addr {
	if len(n.external) == 0 {
		return netip.Addr{}
	}
	return n.external[n.current]
}

// Reboot forgets all mappings, forwards and strangers, and with address takes the
// next external address.
func (n *NAT) Reboot(address bool) {
	clear(n.previous)
	for at := range n.outside {
		n.previous[at.public.Port()] = true
	}
	n.forget()
	if address && len(n.external) > 0 {
		n.current = (n.current + 1) % len(n.external)
		clear(n.previous) // the address differs already
	}
}

// Forward lets everybody in who sends to an external port: what comes goes to a
// local endpoint, and what that endpoint sends comes from there. A mapping that has
// the port ends. It reports false when another endpoint has the port.
func (n *NAT) Forward(p Protocol, port uint16, to netip.AddrPort) bool {
	at := outer{p, netip.AddrPortFrom(netip.Addr{}, port)}
	if old, taken := n.forwards[at]; taken && old != to {
		return false
	}
	for _, m := range slices.Collect(maps.Values(n.inside)) {
		if m.inner.protocol == p && m.public.Port() == port && m.public != m.inner.local {
			n.remove(m)
		}
	}
	n.forwards[at] = to
	return true
}

// Unforward takes a forward away.
func (n *NAT) Unforward(p Protocol, port uint16) {
	delete(n.forwards, outer{p, netip.AddrPortFrom(netip.Addr{}, port)})
}

// rules returns the configuration for a protocol.
func (n *NAT) rules(p Protocol) *Config {
	if p == TCP {
		return n.config.TCP
	}
	return n.config
}

// translates reports whether packets of these ends are translated.
func (n *NAT) translates(p Packet) bool { return !n.config.Firewall && p.From.Addr().Is4() }

// blocked reports whether a packet is dropped without any look.
func (n *NAT) blocked(p Packet) bool {
	return p.Protocol != TCP && p.Protocol != UDP || p.Protocol == UDP && n.config.NoUDP ||
		p.From.Addr().Is4() != p.To.Addr().Is4() || p.From.Addr().Is6() && n.config.IPv6 == IPv6Off
}

// open reports whether packets pass unseen.
func (n *NAT) open(p Packet) bool { return p.From.Addr().Is6() && n.config.IPv6 == IPv6Open }

// Out decides about a packet from inside.
func (n *NAT) Out(now time.Time, p Packet) Result {
	switch {
	case n.blocked(p):
		return Result{}
	case n.open(p):
		return Result{Pass: true, Packet: p}
	case n.translates(p) && slices.Contains(n.external, p.To.Addr()):
		return n.hairpin(now, p)
	}
	public, ok := n.leave(now, p)
	if !ok {
		return Result{}
	}
	p.From = public
	return Result{Pass: true, Packet: p}
}

// hairpin is for a packet from inside to an external address.
func (n *NAT) hairpin(now time.Time, p Packet) Result {
	if !n.config.Hairpin {
		return Result{Answer: n.answer(p)}
	}
	public, ok := n.leave(now, p)
	if !ok {
		return Result{}
	}
	p.From = public
	return n.In(now, p)
}

// leave notes a packet that leaves and returns from where it seems to come.
func (n *NAT) leave(now time.Time, p Packet) (public netip.AddrPort, ok bool) {
	m := n.find(now, p)
	if public, ok = n.forwarded(p); ok && (m == nil || m.sessions[p.To] == nil) {
		return public, true
	}
	if m == nil {
		if p.Flags&RST != 0 {
			return netip.AddrPort{}, false
		}
		if m = n.add(now, p, n.rules(p.Protocol).Mapping.of(p.To)); m == nil {
			return netip.AddrPort{}, false
		}
	}
	if s := m.sessions[p.To]; s == nil && n.isPolluted(now, outer{p.Protocol, m.public}, p.To) {
		if m = n.add(now, p, p.To); m == nil {
			return netip.AddrPort{}, false
		}
	}
	public = m.public
	return public, n.track(now, m, p, p.To, true)
}

// forwarded returns the external endpoint that is forwarded to the packet's source.
func (n *NAT) forwarded(p Packet) (netip.AddrPort, bool) {
	for at, to := range n.forwards {
		if to == p.From && at.protocol == p.Protocol && n.translates(p) && len(n.external) > 0 {
			return netip.AddrPortFrom(n.External(), at.public.Port()), true
		}
	}
	return netip.AddrPort{}, false
}

// find returns the living mapping by which a packet leaves, or nil. One for this
// very other end alone, which a stranger's entry has made necessary, goes first.
func (n *NAT) find(now time.Time, p Packet) *mapping {
	for _, remote := range []netip.AddrPort{p.To, n.dependent(p)} {
		if m := n.inside[inner{p.Protocol, p.From, remote}]; m != nil {
			if now.Before(m.until) {
				return m
			}
			n.remove(m)
		}
	}
	return nil
}

// dependent returns as much of the other end as the mapping depends on.
func (n *NAT) dependent(p Packet) netip.AddrPort {
	if !n.translates(p) {
		return netip.AddrPort{}
	}
	return n.rules(p.Protocol).Mapping.of(p.To)
}

// track notes a packet of a session, and ends the session as TCP does. It reports
// false when there are too many sessions.
func (n *NAT) track(now time.Time, m *mapping, p Packet, remote netip.AddrPort, out bool) bool {
	s := m.sessions[remote]
	if s != nil && !now.Before(s.until) {
		delete(m.sessions, remote)
		s = nil
	}
	if s == nil {
		if p.Flags&RST != 0 {
			return true
		}
		if !m.room(now) {
			return false
		}
		s = &session{}
		m.sessions[remote] = s
	}
	switch {
	case p.Flags&RST != 0 && !s.replied:
		delete(m.sessions, remote)
		n.settle(now, m)
		return true
	case p.Flags&RST != 0:
		s.until, s.ended = now.Add(min(afterReset, s.until.Sub(now))), true
		n.settle(now, m)
		return true
	case s.ended && p.Flags&SYN == 0:
		return true
	case s.ended:
		*s = session{} // the same ends again
	}
	if p.Flags&SYN != 0 && !s.open(p, out) {
		return false
	}
	s.replied = s.replied || !out
	s.finOut = s.finOut || out && p.Flags&FIN != 0
	s.finIn = s.finIn || !out && p.Flags&FIN != 0
	timeout := n.config.UDPTimeout
	if p.Protocol == TCP {
		timeout = n.config.TCPTimeout
		s.ended = s.finOut && s.finIn
		if !s.replied || s.ended {
			timeout = n.config.TCPOpening
		}
	}
	if out || n.config.InboundRefresh || p.Protocol == TCP {
		s.until = now.Add(timeout)
	}
	if s.ended {
		n.settle(now, m)
	} else if s.until.After(m.until) {
		m.until = s.until
	}
	return true
}

// open follows two SYNs that cross as Linux does: what goes out of the one end must
// go on with the numbers of its first SYN once one of the other end has come, so that
// a socket which was opened meanwhile in its place gets nothing out. It reports
// false for that.
func (s *session) open(p Packet, out bool) bool {
	began := s.seq != 0
	switch {
	case out && !s.replied && p.Flags&ACK == 0:
		s.seq = p.Seq
	case out && s.crossed:
		return p.Seq == s.seq
	case !out && began && !s.replied && p.Flags&ACK == 0:
		s.crossed = true
	}
	return true
}

// settle says how long a mapping lives: as long as its sessions, and for a while
// without any when it is for more than one other end.
func (n *NAT) settle(now time.Time, m *mapping) {
	if len(m.sessions) == 0 {
		if m.inner.remote.Port() != 0 {
			n.remove(m)
		} else {
			m.until = now.Add(n.config.TCPOpening)
		}
		return
	}
	m.until = time.Time{}
	for _, s := range m.sessions {
		if s.until.After(m.until) {
			m.until = s.until
		}
	}
}

// room makes room for one session more, if it can.
func (m *mapping) room(now time.Time) bool {
	if len(m.sessions) >= mostSessions {
		maps.DeleteFunc(m.sessions, func(_ netip.AddrPort, s *session) bool { return !now.Before(s.until) })
	}
	return len(m.sessions) < mostSessions
}

// In decides about a packet from outside.
func (n *NAT) In(now time.Time, p Packet) Result {
	switch {
	case n.blocked(p):
		return Result{}
	case n.open(p):
		return Result{Pass: true, Packet: p, Inside: true}
	case now.Before(n.punished[p.From.Addr()]):
		return Result{}
	}
	if to, ok := n.forwards[outer{p.Protocol, netip.AddrPortFrom(netip.Addr{}, p.To.Port())}]; ok && n.translates(p) && p.To.Addr() == n.External() {
		p.To = to
		return Result{Pass: true, Packet: p, Inside: true}
	}
	m := n.outside[outer{p.Protocol, p.To}]
	if m == nil || !now.Before(m.until) || !n.admits(now, m, p) {
		return n.stranger(now, p)
	}
	p.To = m.inner.local
	n.track(now, m, p, p.From, false)
	return Result{Pass: true, Packet: p, Inside: true}
}

// admits reports whether the filter lets a packet in to a living mapping.
func (n *NAT) admits(now time.Time, m *mapping, p Packet) bool {
	filter := n.rules(p.Protocol).Filter
	if s := m.sessions[p.From]; filter == Independent || s != nil && now.Before(s.until) {
		return true
	}
	if filter == OnAddress {
		for remote, s := range m.sessions {
			if remote.Addr() == p.From.Addr() && now.Before(s.until) {
				return true
			}
		}
	}
	return false
}

// stranger is for a packet that nobody inside has asked for.
func (n *NAT) stranger(now time.Time, p Packet) Result {
	if p.Flags&RST != 0 {
		return Result{}
	}
	switch n.config.Strangers {
	case Punish:
		mark(n.punished, now, p.From.Addr(), n.config.Punishment)
	case Accept:
		if p.Protocol == UDP && n.translates(p) {
			mark(n.polluted, now, pair{outer{p.Protocol, p.To}, p.From}, n.config.UDPTimeout)
		}
	}
	return Result{Answer: n.answer(p)}
}

// mark enters something that ends after a while into a bounded table.
func mark[K comparable](table map[K]time.Time, now time.Time, key K, lasts time.Duration) {
	if len(table) >= mostMarks {
		maps.DeleteFunc(table, func(_ K, until time.Time) bool { return !now.Before(until) })
	}
	if len(table) < mostMarks {
		table[key] = now.Add(lasts)
	}
}

func (n *NAT) isPolluted(now time.Time, at outer, stranger netip.AddrPort) bool {
	return now.Before(n.polluted[pair{at, stranger}])
}

func (n *NAT) answer(p Packet) Answer {
	switch {
	case n.config.Strangers != Refuse && n.config.Strangers != Accept || p.Flags&RST != 0:
		return NoAnswer
	case p.Protocol == TCP:
		return Reset
	}
	return Unreachable
}

// add makes a mapping for a packet that leaves, or returns nil when there are too
// many or no port is free.
func (n *NAT) add(now time.Time, p Packet, remote netip.AddrPort) *mapping {
	if len(n.inside) >= mostMappings {
		for _, m := range slices.Collect(maps.Values(n.inside)) {
			if !now.Before(m.until) {
				n.remove(m)
			}
		}
	}
	if len(n.inside) >= mostMappings {
		return nil
	}
	m := &mapping{inner: inner{p.Protocol, p.From, remote}, public: p.From, sessions: map[netip.AddrPort]*session{}}
	if n.translates(p) {
		var ok bool
		if m.public, ok = n.allocate(now, p, remote == p.To); !ok {
			return nil
		}
	} else {
		m.inner.remote = netip.AddrPort{}
	}
	n.inside[m.inner] = m
	n.outside[outer{p.Protocol, m.public}] = m
	return m
}

func (n *NAT) remove(m *mapping) {
	delete(n.inside, m.inner)
	delete(n.outside, outer{m.inner.protocol, m.public})
}

// allocate chooses an external endpoint. alone: for this other end alone.
func (n *NAT) allocate(now time.Time, p Packet, alone bool) (netip.AddrPort, bool) {
	if len(n.external) == 0 {
		return netip.AddrPort{}, false
	}
	addr := n.External()
	if n.config.Arbitrary {
		addr = n.external[n.random.IntN(len(n.external))]
	}
	rules := n.rules(p.Protocol)
	free := func(port uint16) bool {
		at := outer{p.Protocol, netip.AddrPortFrom(addr, port)}
		if m := n.outside[at]; m != nil && !now.Before(m.until) {
			n.remove(m)
		}
		_, forwarded := n.forwards[outer{p.Protocol, netip.AddrPortFrom(netip.Addr{}, port)}]
		return n.outside[at] == nil && !forwarded && !(alone && n.isPolluted(now, at, p.To)) &&
			(!rules.Parity || (port^p.From.Port())&1 == 0)
	}
	low, size := int(rules.Low), int(rules.High)-int(rules.Low)+1
	if rules.Ports == Preserve && free(p.From.Port()) {
		return netip.AddrPortFrom(addr, p.From.Port()), true
	}
	step, offset := 1, n.random.IntN(size)
	if rules.Ports == Sequential {
		step, offset = rules.Step, n.next(now, p.Protocol, rules)
	} else {
		for range 64 {
			if port := uint16(low + n.random.IntN(size)); free(port) && !n.previous[port] {
				return netip.AddrPortFrom(addr, port), true
			}
		}
	}
	for i := range size {
		port := uint16(low + wrap(offset+i*step, size))
		if free(port) {
			n.last[p.Protocol] = port
			return netip.AddrPortFrom(addr, port), true
		}
	}
	return netip.AddrPort{}, false
}

// next returns how far above Low the next port of Sequential is, past those that
// others have taken meanwhile.
func (n *NAT) next(now time.Time, p Protocol, rules *Config) int {
	size := int(rules.High) - int(rules.Low) + 1
	last, begun := n.last[p]
	if !begun {
		n.noisy[p] = now
		return n.random.IntN(size)
	}
	others := n.poisson(n.config.Noise * now.Sub(n.noisy[p]).Seconds())
	n.noisy[p] = now
	return wrap(int(last)-int(rules.Low)+(others+1)*rules.Step, size)
}

func wrap(v, size int) int { return (v%size + size) % size }

// poisson draws how many of independent events happen of which mean are expected.
func (n *NAT) poisson(mean float64) int {
	if mean > 64 { // near enough to the normal distribution
		return max(0, int(math.Round(mean+math.Sqrt(mean)*n.random.NormFloat64())))
	}
	count := 0
	for left := mean - n.random.ExpFloat64(); left > 0; left -= n.random.ExpFloat64() {
		count++
	}
	return count
}
