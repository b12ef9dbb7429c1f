// Package simnet is an in-memory internet for tests: hosts with addresses,
// links with latency and bandwidth that can be cut and healed, streams that
// behave as TCP connections do, datagrams that get lost, doubled and late, and
// routers with NATs of every kind. A Host is a netio.Network.
//
// A packet goes from link to link: from a host behind a router to that router, from
// there to the router or host that has the address in the space outside, and so on.
// Each NAT decides when the packet arrives there. Links between public machines are
// the default ones; those behind a router take no time unless SetLink says so. Of
// TCP, the packets of the handshake travel so, one by one: SYN, SYN+ACK and resets,
// also those that routers send, and a SYN that meets a dial connects both. Later,
// each piece of a stream asks all NATs of its way when it leaves; while one of them
// drops it, the stream waits and tries again each second. There is no ICMP but for
// dials over a cut link. Fragments, IP options and clocks of TCP are not modelled.
//
// It uses no sockets, only locks, conditions and timers, so inside a
// testing/synctest bubble hours of it pass in no time. Everything random comes
// from the seed.
package simnet

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
)

// Link says how the way between two hosts behaves, in each direction. Loss,
// Duplicate, Reorder, MTU and Queue concern datagrams alone: streams are what
// TCP makes of the same link.
type Link struct {
	// Latency is how long a byte travels one way. A dial takes twice as long.
	Latency time.Duration
	// Jitter is the most that is added to Latency at random. Bytes of one
	// stream stay in order, and datagrams do.
	Jitter time.Duration
	// Bandwidth bounds all streams and datagrams of the link together, in bytes
	// a second. A datagram counts with its IP and UDP headers. Zero means no
	// bound.
	Bandwidth int
	// Buffer is how many bytes of one stream may be sent and not yet read, as
	// the buffers of two kernels hold them. Zero means 256 KiB.
	Buffer int
	// Loss is the part of the datagrams that get lost, from 0 to 1.
	Loss float64
	// Duplicate is the part of the datagrams that arrive twice, from 0 to 1.
	Duplicate float64
	// Reorder is the part of the datagrams, from 0 to 1, that are late by up to
	// Latency and Jitter together, or by a millisecond if that is more, so that
	// others overtake them.
	Reorder float64
	// MTU is the longest packet, in bytes with IP and UDP headers (28 of IPv4, 48
	// of IPv6). Longer ones are lost, and nobody is told. Zero means no bound.
	MTU int
	// Queue is how many bytes of datagrams wait for the wire while Bandwidth
	// holds them back; what comes then is lost. Zero means 256 KiB.
	Queue int
	// NoTCP lets dials wait, as Silence does, while datagrams pass and
	// connections that live go on.
	NoTCP bool
	// Hops is how many routers of others are on the way: datagrams, and packets of
	// TCP's handshake, whose TTL is not greater are lost there.
	Hops int
}

const (
	defaultBuffer = 256 << 10
	// maxSegment bounds what travels as one piece.
	maxSegment = 16 << 10
	// backlog bounds connections that wait for Accept.
	backlog = 128
	// synRetry is the pause after which a dial that was not answered is tried again.
	synRetry = time.Second
	// synTimeout is when the kernel gives a dial up: Linux's default of 6 repetitions.
	synTimeout = 127 * time.Second
	// Random ports, Linux's default range.
	firstPort, lastPort = 32768, 60999
)

// Net is one internet. All addresses are in one flat space; every host reaches
// every other by any of its addresses. Its methods may be called from any
// goroutine.
type Net struct {
	// mu guards everything in the package. It is never held while anything
	// waits, other than by a sync.Cond, so a synctest bubble stays durable.
	mu     sync.Mutex
	random *rand.Rand
	hosts  map[netip.Addr]*Host
	count  int // of hosts
	dials  uint32
	links  map[route]*link
	usual  Link
	seed   uint64
	nats   map[netip.AddrPort]*nat // by visible address
	watch  func(from, to netip.AddrPort, data []byte)
	names  map[string][]netip.Addr
}

// SetName makes a name stand for addresses, for all hosts; for none it is unknown.
func (n *Net) SetName(name string, addrs ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.names == nil {
		n.names = make(map[string][]netip.Addr)
	}
	n.names[name] = addrs
}

// Resolve implements netio.Resolver.
func (h *Host) Resolve(_ context.Context, host string) ([]netip.Addr, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if len(h.net.names[host]) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return slices.Clone(h.net.names[host]), nil
}

// route is a pair of hosts, the one made first in front.
type route [2]*Host

// public reports whether the route is between two machines that no router is before.
func (r route) public() bool { return r[0] != r[1] && r[0].router == nil && r[1].router == nil }

// link is the way between two hosts.
type link struct {
	Link
	state linkState
	free  map[*Host]time.Time // when the wire that leaves a host has sent what it was given
	ways  map[*way]struct{}   // every stream that travels here
	airs  map[*Host]*air      // of datagrams, by where they come from
}

// linkState: up -Cut-> cut, up -Silence-> silent, cut and silent -Heal-> up.
type linkState uint8

const (
	up     linkState = iota
	cut              // nothing passes, and dials are told so
	silent           // nothing passes, and nobody is told
)

// New makes an internet without hosts, whose links have no latency and no
// bound on bandwidth.
func New(seed uint64) *Net {
	return &Net{
		random: rand.New(rand.NewPCG(seed, seed)),
		hosts:  map[netip.Addr]*Host{},
		links:  map[route]*link{},
		seed:   seed,
		nats:   map[netip.AddrPort]*nat{},
	}
}

// SetDefaultLink says how links behave that SetLink has not set, from now on.
func (n *Net) SetDefaultLink(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.usual = l
	for route, made := range n.links {
		if made.Link == (Link{}) && route.public() {
			made.Link = l
		}
	}
}

// SetLink says how the link between two hosts behaves, from now on. What is
// under way arrives as it would have.
func (n *Net) SetLink(a, b *Host, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(a, b).Link = l
}

// Cut breaks the link between two hosts. Dials fail with EHOSTUNREACH.
// Connections do not notice: what they send waits for Heal. Datagrams are lost,
// also those under way.
func (n *Net) Cut(a, b *Host) { n.set(a, b, cut) }

// Silence breaks the link as Cut does, but dials are not told either: they wait
// for Heal, their context, or the kernel's two minutes (ETIMEDOUT).
func (n *Net) Silence(a, b *Host) { n.set(a, b, silent) }

// Heal mends the link. What waited arrives now.
func (n *Net) Heal(a, b *Host) { n.set(a, b, up) }

func (n *Net) set(a, b *Host, s linkState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(a, b)
	l.state = s
	if s == up {
		for w := range maps.Clone(l.ways) { // an arrival may add and take away
			w.deliver()
		}
	}
}

// Reset breaks every connection between two hosts: both ends see ECONNRESET.
func (n *Net) Reset(a, b *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w := range maps.Clone(n.link(a, b).ways) { // a reset takes ways away
		w.to.reset()
	}
}

// link returns the link between two hosts, making it when it is first used.
// From a host to itself nothing takes time. Called with n.mu held.
func (n *Net) link(a, b *Host) *link {
	r := route{a, b}
	if a.number > b.number {
		r = route{b, a}
	}
	l := n.links[r]
	if l == nil {
		l = &link{free: map[*Host]time.Time{}, ways: map[*way]struct{}{}, airs: map[*Host]*air{}}
		if r.public() {
			l.Link = n.usual
		}
		n.links[r] = l
	}
	return l
}

// delay draws how long the next piece travels. Called with n.mu held.
func (n *Net) delay(l *link) time.Duration {
	if l.Jitter <= 0 {
		return l.Latency
	}
	return l.Latency + time.Duration(n.random.Int64N(int64(l.Jitter)+1))
}

// transmit lets a host use the wire for size bytes after what it is busy with,
// and returns when they have left. Called with the lock held.
func (l *link) transmit(from *Host, size int, now time.Time) time.Time {
	if l.Bandwidth <= 0 {
		return now
	}
	if free := l.free[from]; free.After(now) {
		now = free
	}
	now = now.Add(time.Duration(float64(size) / float64(l.Bandwidth) * float64(time.Second)))
	l.free[from] = now
	return now
}

func (l *link) buffer() int {
	if l.Buffer > 0 {
		return l.Buffer
	}
	return defaultBuffer
}

// Host is a machine with addresses. It is a netio.Network.
type Host struct {
	net       *Net
	number    int
	addrs     []netip.Addr
	listeners map[netip.AddrPort]*listener
	conns     map[tuple]*Conn
	sockets   map[netip.AddrPort]*packetConn
	ears      []*packetConn // shared sockets
	watchers  []*watcher
	dialing   map[tuple]*dialing
	visible   map[family]netip.AddrPort // what NATs make of its addresses
	router    *Router                   // which it is behind, or nil
	gate      *Router                   // which it is the outside of, or nil
}

var _ netio.Network = (*Host)(nil)

// tuple names a connection on its host.
type tuple struct{ local, remote netip.AddrPort }

// Host adds a machine. Beside the given addresses it has 127.0.0.1 and ::1. An
// address that is malformed or taken makes Host panic: the test is wrong.
func (n *Net) Host(addrs ...string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.host(nil, addrs)
}

// host adds a machine behind a router, or none. Called with the lock held.
func (n *Net) host(r *Router, addrs []string) *Host {
	h := &Host{
		net: n, number: n.count, listeners: map[netip.AddrPort]*listener{}, conns: map[tuple]*Conn{}, dialing: map[tuple]*dialing{},
		sockets: map[netip.AddrPort]*packetConn{}, visible: map[family]netip.AddrPort{}, router: r,
	}
	n.count++
	for _, text := range addrs {
		a := netip.MustParseAddr(text).Unmap()
		if a.IsLoopback() {
			panic("simnet: the address " + text + " is taken")
		}
		n.enter(h, a)
		h.addrs = append(h.addrs, a)
	}
	h.addrs = append(h.addrs, localhost4, netip.IPv6Loopback())
	return h
}

var localhost4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Addrs implements netio.Network.
func (h *Host) Addrs() ([]netip.Addr, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return netio.Usable(slices.Clone(h.addrs)), nil
}

// has reports whether a is an address of the host.
func (h *Host) has(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(h.addrs, a) }

// Connections returns how many connections have an end at the host that is not
// closed, for tests that look for leaks.
func (h *Host) Connections() int {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return len(h.conns)
}

// InUse returns how many sockets of the host are open: connections, dials, listeners
// and those for datagrams.
func (h *Host) InUse() int {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return len(h.conns) + len(h.dialing) + len(h.listeners) + len(h.sockets) + len(h.ears)
}
