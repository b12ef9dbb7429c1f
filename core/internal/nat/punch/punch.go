// Package punch decides when to send what to which endpoint so that two NATs
// open together, over UDP and TCP at the same time.
//
// Each side has a Machine, made of what both told each other: what their NATs do,
// and where they may be. The machine is pure: it knows no sockets, no keys and no
// clock. Its owner asks Poll what to do, does it, and says what came of it:
//
//	New ──▶ openers ──Shoot──▶ shots ──a valid probe──▶ answers ──▶ nomination
//	           (low time to live: both NATs are ready     (the larger peer id
//	            before anything reaches the other)         chooses the pair)
//
//	Poll(now) ──▶ Send, Open, Dial, Stop, Nominated, Failed, and when to ask again
//	Shoot, Opened, Probe, Dialled ◀── what happened
//
// After New and after each of these inputs the owner calls Poll, and sets its
// timer to what that returned.
//
// How the two find each other through NATs that give every peer another port is
// a Strategy: see Plan. Endpoints that the peer listed beside the one that others
// see, its candidates, are always tried too.
//
// # Safety
//
// A peer could name addresses of others, to have them flooded. Targets are the
// external endpoints of the peer's facts, ports guessed at these very addresses,
// and its candidates. Three things bound what goes there. The Account: whatever goes
// to an address that has not proved to be the peer's was paid for beforehand, so that
// nobody gets more than Ratio times what the peer has sent. The number of packets for one
// address: those of the facts get as many as opening the NATs takes (Config.Most),
// any other one packet and one dial, and then one for each that came from it. And
// Budget, for all together.
//
// Never a target are loopback, multicast and broadcast addresses, blocks that are not
// routed, and Config.Never, in which the owner lists its routers; private, link-local
// and carriers' addresses are, when this machine has one of the same block, or both
// sides have the same external address. Ports that are guessed are those that NATs
// give out, from 1024 on.
package punch

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// OpenerTTL is the time to live of openers: they pass three routers and die at the
	// fourth. A house has one or two, and the third may be its provider's; the peer's are
	// usually farther.
	//
	// It is no measurement. An opener has to pass our last NAT and to end before the
	// peer's first one. How far that one is nobody knows before the NATs are open; how
	// far ours is would take an opener of each length and a peer that tells which of
	// them let its answer in: a round trip for each router, before the first opener, for
	// what most need not know. And there are cases where it is wrong:
	//
	//   - A carrier's NAT is farther than that. It sees no opener, so the first that it
	//     sees is a shot of ours, while one of the peer may have come already, as that of
	//     a stranger. NATs that drop or answer those are open by the shots that follow; one
	//     that punishes strangers stays shut for as long as it likes, and the peers stay
	//     on a relay. Sockets that wait for guesses (Hold) open such a NAT later: those of
	//     UDP by openers that travel twice as far from holdMid on, those of TCP by the
	//     kernel, which repeats a SYN with the usual time to live.
	//   - The peer's NAT is among those three routers. Openers reach it, and are what
	//     shots are that come too early. None are sent where that is likely: within near,
	//     and where both have one external address.
	OpenerTTL = 4
	// MaxCandidates bounds the endpoints that a peer may list, over all transports, and
	// maxPorts those of one address and transport. What it lists beyond is not tried.
	MaxCandidates = 16
	maxPorts      = 4
	// MinPacket is the least size of a packet, in bytes without headers. Sizes are random,
	// and an answer is not longer than what it answers.
	MinPacket = 64
	// MaxPacket is the largest one.
	MaxPacket = 80
	// starved is how long to wait for more when the account is empty.
	starved = 50 * time.Millisecond
	// near is a round trip below which openers could reach the peer.
	near = 3 * time.Millisecond
	// Patience is how long a Machine waits for Shoot.
	Patience = 10 * time.Second
)

// Reasons of Failed.
var (
	ErrNoWay  = errors.New("no way through these two NATs is known")
	ErrSilent = errors.New("nothing came through")
	ErrOneWay = errors.New("packets came through in one direction only")
	ErrChoice = errors.New("the peer did not choose")
	ErrNoGo   = errors.New("the peer did not say go")
)

// ErrPort is what the owner says, wrapped or not, when a Dial failed because
// its local port cannot be used (EADDRINUSE, EADDRNOTAVAIL).
var ErrPort = errors.New("the local port cannot be used")

// Side is what one side told the other.
type Side struct {
	// UDP and TCP are the facts of the NAT before the listening sockets. Ages count
	// until the side wrote this.
	UDP, TCP wire.NAT
	// Candidates are other endpoints: of the LAN, global, mapped. UTP ones are
	// probed, TCP ones dialled, others left alone.
	Candidates []endpoint.Endpoint
}

// Budget bounds what one Machine does. Zero fields mean the default, which is
// also the most.
type Budget struct {
	Packets  int // all that are sent, default 8192
	Rate     int // packets a second, default 1500
	Sprays   int // packets to guessed ports of a Spray or Birthday, default 2048
	SprayPPS int // those a second, and dials a second, default 200
	Sockets  int // opened for UDP, default 256
	Dials    int // all that are made, default 2048
	Sprayed  int // dials to guessed ports of a Spray or Birthday, default 1024
	AtOnce   int // dials at once, default 256
}

func (b Budget) filled() Budget {
	fill := func(v *int, most int) {
		if *v <= 0 || *v > most {
			*v = most
		}
	}
	fill(&b.Packets, 8192)
	fill(&b.Rate, 1500)
	fill(&b.Sprays, 2048)
	fill(&b.SprayPPS, 200)
	fill(&b.Sockets, 256)
	fill(&b.Dials, 2048)
	fill(&b.Sprayed, 1024)
	fill(&b.AtOnce, 256)
	return b
}

// Config is what a Machine is made of.
type Config struct {
	Mine, Theirs Side
	// Vouched are addresses from which live links of the peer come: they may be sent
	// to as often as the external ones, and nothing is charged for it.
	Vouched []netip.Addr
	// Ours are the addresses of this machine, and Never those of its routers.
	Ours, Never []netip.Addr
	// Account pays for what goes to other addresses. nil is an empty one of its own.
	Account *Account
	// Larger says that this side's peer id is the larger one: it nominates.
	Larger bool
	// RTT is the round trip of the letters between the two; zero: unknown.
	RTT time.Duration
	// Lead is how much sooner than the peer this side is told to go: half of RTT
	// on the side that sends that letter, zero on the other. TCP begins so much
	// later, so that SYNs cross even where the peer cannot make openers. It is zero
	// too when the peer has said that it makes them.
	Lead time.Duration
	// Waits says that the peer shoots first, when it has our letter. Where there are
	// openers, and no ports are predicted, those of TCP wait for that: so one SYN makes
	// the connection, and no NAT sees two sockets take part in it.
	Waits bool
	// Crossed says, where this side waits, that it has called the peer as well. Then each
	// side's opener is in the way of its other punch, whose dials have the same two ends,
	// and both sides wait: the lesser one twice as long, so that it still has its opener
	// when the other one dials.
	Crossed bool
	// Seed makes the two sides and their tries differ; any number.
	Seed   uint64
	Budget Budget
	// UDP and TCP say which transports may be used.
	UDP, TCP bool
}

// Kind is what a packet says. All but openers are sealed, so that nobody else
// can make them. Openers are as good as random bytes; an owner that seals them as
// probes does no harm.
type Kind uint8

const (
	Opener   Kind = iota // nothing: it makes our NAT ready, and may never arrive
	Probe                // asks whether this pair of endpoints works
	Answer               // something of the other's came through this pair
	Nominate             // this pair is chosen; said back as confirmation
)

// Action is one of Send, Open, Dial, Stop, Nominated and Failed.
type Action interface{ action() }

// Send asks for a UDP packet.
type Send struct {
	Socket int // 0 is the service's own, 1.. those that Opened told of
	To     netip.AddrPort
	TTL    int // time to live, 0 for the system's default
	Kind   Kind
	Size   int // of the datagram, MinPacket to MaxPacket
}

// Open asks for UDP sockets beside the service's own, on ports that the system
// chooses, of the family of the peer's external address. The owner replies by
// Opened.
type Open struct{ Sockets int }

// Dial asks for a TCP connection from the listener's port. The owner replies by
// Dialled, with nil only after the peer has proved that it is the one meant. A
// connection that the service's listener accepts from the peer in the meantime is
// as good.
//
// One with a TTL is an opener: its first SYN, which goes out before the owner looks at
// the next action, does not travel far and only makes our NAT ready. Then the owner
// waits as with any other: a SYN of the peer that comes makes it a connection. It lasts
// less than a second, after which kernels repeat the SYN with the usual time to live.
// The NATs of Linux want what follows a SYN to come from the socket that has sent it;
// so there is one all the time.
//
// Hold asks for a port of its own, which the system chooses the first time.
type Dial struct {
	ID      int
	To      netip.AddrPort
	Hold    int           // number of one of many ports, from 1; 0: the listener's
	TTL     int           // time to live of the first SYN, 0 for the system's default
	Timeout time.Duration // of the connection, without the handshake
}

// Stop takes a Dial back; no Dialled is needed for it.
type Stop struct{ ID int }

// Nominated says that the pair of a local socket and the peer's endpoint works
// in both directions and that both use it. It comes at most once. The Machine
// must go on for Linger, so that the peer gets to know it, and the socket must
// stay.
type Nominated struct {
	Socket int
	Remote netip.AddrPort
}

// Linger is how long a Machine serves its peer after Nominated.
const Linger = 3 * time.Second

// Failed says that one transport has given up, at most once each. Reason is one of
// the Err variables.
type Failed struct {
	Transport endpoint.Transport // UTP or TCP
	Reason    error
}

func (Send) action()      {}
func (Open) action()      {}
func (Dial) action()      {}
func (Stop) action()      {}
func (Nominated) action() {}
func (Failed) action()    {}

// Machine is one side of one punch. It is not safe for use by several goroutines.
type Machine struct {
	cfg     Config
	rand    *rand.Rand
	account *Account
	udp     *udp // nil when not allowed
	tcp     *tcp // nil when not allowed
	acts    []Action
	made    time.Time
	gone    time.Time // when Shoot came; zero before
}

// New returns a machine at the time now, which is when the peer's letter with its
// facts arrived.
func New(c Config, now time.Time) *Machine {
	c.Budget = c.Budget.filled()
	c.RTT, c.Lead = min(max(0, c.RTT), Patience), min(max(0, c.Lead), Patience)
	m := &Machine{cfg: c, rand: rand.New(rand.NewPCG(c.Seed, 0x70756e6368)), made: now, account: c.Account}
	if m.account == nil {
		m.account = new(Account)
	}
	m.account.Agree(agreed(c.Theirs.UDP) && agreed(c.Theirs.TCP))
	for _, a := range c.Vouched {
		m.account.Prove(a)
	}
	if c.UDP {
		m.udp = newUDP(m, now)
	}
	if c.TCP {
		m.tcp = newTCP(m)
	}
	m.divide()
	return m
}

// Shoot says that the peer has sent its openers: from now on everything is sent at
// full time to live. Only the first call counts.
func (m *Machine) Shoot(now time.Time) {
	if !m.gone.IsZero() {
		return
	}
	m.gone = now
	if m.udp != nil {
		m.udp.shoot(now)
	}
	if m.tcp != nil {
		m.tcp.begin(now)
	}
}

// Cross is Config.Crossed for who calls the peer when the Machine was made already.
func (m *Machine) Cross(now time.Time) {
	if m.cfg.Crossed {
		return
	}
	m.cfg.Crossed = true
	if m.tcp != nil {
		m.tcp.cross(now)
	}
}

// Opened says how many sockets an Open brought; they get the numbers 1 to n. Fewer
// than asked for lower the chances.
func (m *Machine) Opened(now time.Time, n int) {
	if m.udp != nil {
		m.udp.opened(now, n)
	}
}

// Heard is a packet other than an opener that came from the peer and proved to be its
// own and no repetition.
type Heard struct {
	Socket int
	From   netip.AddrPort
	Kind   Kind
	Size   int // of the datagram
	// Proof says that it repeats what only a packet of ours to From, from this socket,
	// has told: who is there wants more. Without it From may be anybody, whom the peer
	// has named as the sender.
	Proof bool
}

// Probe says that a packet came.
func (m *Machine) Probe(now time.Time, h Heard) {
	h.From = netip.AddrPortFrom(h.From.Addr().Unmap(), h.From.Port())
	m.account.Earn(PacketCost(h.From.Addr(), h.Size))
	if m.udp != nil {
		m.udp.heard(now, h)
	}
}

// Earned says that the account has more in it.
func (m *Machine) Earned() {
	if m.udp != nil {
		m.udp.due = time.Time{}
	}
}

// Dialled says what came of a Dial. ErrPort has a meaning of its own.
func (m *Machine) Dialled(now time.Time, id int, err error) {
	if m.tcp != nil {
		m.tcp.dialled(now, id, err)
	}
}

// Poll returns what to do now and when to ask again; the zero time: only after
// the next input. The slice is valid until the next call.
func (m *Machine) Poll(now time.Time) ([]Action, time.Time) {
	m.acts = m.acts[:0]
	m.divide()
	var next time.Time
	if m.udp != nil {
		next = m.udp.poll(now)
	}
	if m.tcp != nil {
		next = sooner(next, m.tcp.poll(now))
	}
	return m.acts, next
}

func (m *Machine) do(a Action) { m.acts = append(m.acts, a) }

// between returns a random duration from low to high.
func (m *Machine) between(low, high time.Duration) time.Duration {
	return low + time.Duration(m.rand.Int64N(int64(high-low)+1))
}

// sooner returns the earlier of two times, of which zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// bucket bounds a rate: tokens a second, and some at once.
type bucket struct {
	each  time.Duration // between two tokens
	burst int
	full  time.Time // when it is full again
}

func newBucket(rate, burst int) bucket {
	return bucket{each: time.Second / time.Duration(rate), burst: burst}
}

// ready returns when the next token is there; not after now: it is.
func (b *bucket) ready() time.Time { return b.full.Add(-time.Duration(b.burst-1) * b.each) }

// take takes a token that is ready.
func (b *bucket) take(now time.Time) {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.each)
}

// candidates returns the endpoints of one transport that the peer listed and that may
// be tried, each once.
func (c *Config) candidates(t endpoint.Transport) []netip.AddrPort {
	var out []netip.AddrPort
	ports := map[netip.Addr]int{}
	for i, e := range c.Theirs.Candidates {
		e = endpoint.New(e.Transport, e.Addr)
		if i >= MaxCandidates {
			break
		}
		if e.Transport != t || !c.allowed(e.Addr) || ports[e.Addr.Addr()] >= maxPorts || slices.Contains(out, e.Addr) {
			continue
		}
		ports[e.Addr.Addr()]++
		out = append(out, e.Addr)
	}
	return out
}

// listens reports whether we have told an endpoint of a transport.
func (s Side) listens(t endpoint.Transport) bool {
	return slices.ContainsFunc(s.Candidates, func(e endpoint.Endpoint) bool { return e.Transport == t && reachable(e.Addr) })
}

// reachable reports whether a peer elsewhere may be at an address.
func reachable(a netip.AddrPort) bool {
	e := endpoint.New(endpoint.TCP, a)
	zoneless := a.Addr().Is6() && e.Scope() == endpoint.LinkLocal && a.Addr().Zone() == ""
	return a.Port() != 0 && e.Scope() >= endpoint.LinkLocal && !zoneless
}

// blocks are those whose addresses mean something nearby only (RFC 1918, RFC 6598, RFC
// 3927), and unrouted those that nobody is at, or somebody of another family (RFC 6890,
// RFC 6052, RFC 6666).
var (
	blocks   = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
	unrouted = prefixes("0.0.0.0/8", "192.0.0.0/24", "240.0.0.0/4", "::/96", "64:ff9b::/96", "100::/64")
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// allowed reports whether anything may go to an endpoint of the peer.
func (c *Config) allowed(to netip.AddrPort) bool {
	a := to.Addr().Unmap()
	within := func(p netip.Prefix) bool { return p.Contains(a.WithZone("")) }
	switch {
	case !reachable(to), slices.Contains(c.Never, a), slices.ContainsFunc(unrouted, within):
		return false
	case endpoint.New(endpoint.UTP, to).Scope() == endpoint.Global, sameHouse(c.Mine.UDP, c.Theirs.UDP), sameHouse(c.Mine.TCP, c.Theirs.TCP):
		return true
	}
	for _, e := range c.Mine.Candidates {
		if nearby(a, e.Addr.Addr().Unmap()) {
			return true
		}
	}
	return slices.ContainsFunc(c.Ours, func(o netip.Addr) bool { return nearby(a, o.Unmap()) })
}

// nearby reports whether two addresses that mean nothing to the world can be in one
// network.
func nearby(a, b netip.Addr) bool {
	if a.Is6() != b.Is6() || a.Zone() != b.Zone() {
		return false
	}
	if a.Is6() {
		near, err := a.WithZone("").Prefix(48) // RFC 4193, section 3.1
		return err == nil && near.Contains(b.WithZone(""))
	}
	return slices.ContainsFunc(blocks, func(p netip.Prefix) bool { return p.Contains(a) && p.Contains(b) })
}

// agreed reports whether an external address, if there is one, was seen by several.
func agreed(n wire.NAT) bool { return n.Agreed || !n.External.IsValid() }

// vouched returns the addresses that may get more than one packet.
func (c *Config) vouched() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, n := range []wire.NAT{c.Theirs.UDP, c.Theirs.TCP} {
		if c.allowed(n.External) {
			out[n.External.Addr().Unmap()] = true
		}
	}
	for _, a := range c.Vouched {
		out[a.Unmap()] = true
	}
	return out
}

// quiet reports an endpoint that no openers go to: there is no NAT on the way, or
// they would reach the peer.
func (c *Config) quiet(to netip.AddrPort, theirs, mine wire.NAT) bool {
	return endpoint.New(endpoint.UTP, to).Scope() < endpoint.CGNAT || c.RTT > 0 && c.RTT < near || sameHouse(mine, theirs)
}

// guard is how long the side that guesses ports waits for the other's first shot,
// which finds its filter opened: so its own wrong guesses wake no NAT as a rule.
func (c *Config) guard() time.Duration {
	return min(max(c.RTT+50*time.Millisecond, 100*time.Millisecond), 600*time.Millisecond)
}

// sameHouse reports whether both sides have one external address, so that
// between them there may be no NAT, or one that sends packets back.
func sameHouse(mine, theirs wire.NAT) bool {
	return mine.External.IsValid() && mine.External.Addr().Unmap() == theirs.External.Addr().Unmap()
}

// external returns the peer's external endpoint, IPv4 in IPv6 unmapped.
func external(n wire.NAT) netip.AddrPort {
	return netip.AddrPortFrom(n.External.Addr().Unmap(), n.External.Port())
}
