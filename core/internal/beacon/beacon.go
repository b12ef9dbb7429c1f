// Package beacon finds the peers on the networks that this machine is in: it says hello
// to all of a segment, hears hello, answers whoever asks, and says goodbye.
//
// All services share one UDP port, to which hellos and goodbyes go, by the broadcast
// address of IPv4 and by a multicast group of IPv6; all on a machine hear them, those
// of its own services too. Each sends from ports of its own, one at each address, to
// which answers go. The loopback network is a segment like the others: over it the
// services of one machine find each other that accept nobody else.
//
// A service says a few hellos when it begins and when a network changes, and then one
// each five minutes or so, which asks for no answers. docs/PROTOCOL.md says all
// this to the byte.
package beacon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Constants of docs/PROTOCOL.md.
const (
	// every is how often a hello is said when nothing changes, a fifth more or less.
	every = 5 * time.Minute
	// forgetAfter is how long nothing is heard of a peer before it is forgotten: two
	// hellos may get lost.
	forgetAfter = 3*(every+every/5) - 2*time.Minute
	// window is by how much the clocks of two peers may differ.
	window = 2 * time.Hour
	// recordLife is the life of the records that are told, in seconds: a clock that is
	// late by less does no harm.
	recordLife = 4 * 60 * 60
	// jitter is the most that a hello, or an answer, is late on purpose.
	jitter = 100 * time.Millisecond
	// patience is how long answers to a hello are taken.
	patience = 10 * time.Second
)

// Implementation constants.
const (
	// burstRest is the least time between two rounds of first hellos.
	burstRest = 3 * time.Second
	// maxSegments bounds the addresses from which hellos are said.
	maxSegments = 32
	// maxAnswers bounds the answers that wait for their time.
	maxAnswers = 256
	// maxEndpoints bounds the endpoints that are kept of a peer.
	maxEndpoints = 16
)

// burst is when the first hellos are said.
var burst = [...]time.Duration{0, time.Second, 3 * time.Second}

// Segment is a network that an interface of this machine is in, by one of its addresses.
type Segment struct {
	Interface int          // the number that the system gives it
	Addr      netip.Addr   // of this machine; link-local ones of IPv6 have their zone
	Prefix    netip.Prefix // the addresses that are in it, without zones
	All       netip.Addr   // where all machines in it hear; zero: nowhere
}

// contains reports whether an address is in the segment.
func (s *Segment) contains(a netip.Addr) bool {
	return s.Addr.Zone() == a.Zone() && s.Prefix.Contains(a.WithZone(""))
}

// Take takes a datagram, which it does not keep.
type Take func(from netip.AddrPort, datagram []byte)

// Socket is a UDP socket whose owner reads it. Its methods may be called from any
// goroutine.
type Socket interface {
	// Join has it get what is sent to all on a segment.
	Join(s Segment) error
	// WriteTo sends a datagram. The error is net.ErrClosed when no more can be sent or
	// heard.
	WriteTo(datagram []byte, to netip.AddrPort) error
	// Close closes it. It may be called again.
	Close() error
}

// LAN is the networks that this machine is in.
type LAN interface {
	// Segments returns them.
	Segments() ([]Segment, error)
	// Ear opens a port that others of this machine may have, too, and has all that comes
	// there taken, by one goroutine of its own, until it is closed.
	Ear(six bool, port uint16, take Take) (Socket, error)
	// Mouth is the same of a random port at the address of a segment, which may send to
	// all on it.
	Mouth(s Segment, take Take) (Socket, error)
}

// Own is what a service tells of itself.
type Own struct {
	// Listen is where it accepts links; unspecified addresses stand for all of their
	// family, those of IPv6 for IPv4, too.
	Listen []endpoint.Endpoint
	// Endpoints is the same with all addresses named, without loopback ones unless there
	// are no others, the most useful first.
	Endpoints []endpoint.Endpoint
	Role      uint8
	Flags     uint8 // wire.Contact*
}

// FactKind says what has become of a peer.
type FactKind uint8

// The kinds of facts.
const (
	Discovered FactKind = iota + 1 // it is new, or its first endpoint or its role is
	Forgotten                      // it has said goodbye, or nothing was heard of it for long
)

// Fact is what has become of a peer.
type Fact struct {
	Kind FactKind
	Peer Peer // of a forgotten one only its ID
}

// Peer is who was heard.
type Peer struct {
	ID        identity.PeerID
	Role      uint8
	Flags     uint8               // wire.Contact*
	Endpoints []endpoint.Endpoint // in the networks of this machine, the most useful first; at least one
	Heard     time.Time           // when the last time
}

// Config is how a beacon is made. All fields but Shun must be set.
type Config struct {
	Self identity.PeerID
	// Sign signs as Self.
	Sign func([]byte) []byte
	// Seal and Open make and read datagrams: see secure.BeaconKey.
	Seal func(content []byte, most int) ([]byte, error)
	Open func(datagram []byte) ([]byte, error)
	// LAN is the networks of the machine, Port the one that all share.
	LAN  LAN
	Port uint16
	// Quiet means that nothing is ever sent.
	Quiet bool
	// Shun reports whether a peer, zero when it is not told, at an address is not heard
	// and not answered. It may be called with a lock held. Nil means that none is.
	Shun func(id identity.PeerID, from netip.Addr) bool
	// Own returns what is told. It is called with no lock held.
	Own func() Own
	// Tell takes facts, in order, one call at a time, with no lock held.
	Tell func(Fact)
	Log  *slog.Logger
}

// Beacon is the beacon of one service. Its methods may be called from any goroutine.
type Beacon struct {
	cfg     Config
	wake    chan struct{}
	changed atomic.Bool

	// of the goroutine that runs
	ears    [2]Socket // IPv4, IPv6
	mouths  map[Segment]Socket
	own     Own
	record  []byte // of own; nil: there is nothing to tell
	seq     uint64 // of record
	said    int    // hellos since the burst began
	burstAt time.Time
	helloAt time.Time
	logged  map[string]string // by what is wrong, why it was the last time
	known   bool              // somebody may know of us

	mu       sync.Mutex
	segments []Segment // all of this machine, with and without All
	used     []Segment // those of which beacons are taken
	clock    uint64    // the time of what was sent last
	asked    map[nonce]time.Time
	answers  []answer
	heard    table
	facts    []Fact
	telling  bool
	forgetAt time.Time // when somebody may be to be forgotten; zero: never
	tells    bool      // there is something to answer with
}

type nonce [wire.BeaconEcho]byte

// answer is what is to be sent.
type answer struct {
	at   time.Time
	from Segment
	to   netip.AddrPort
	echo nonce
	most int // bytes
}

// New makes a beacon, which does nothing before Run.
func New(c Config) *Beacon {
	b := &Beacon{
		cfg: c, wake: make(chan struct{}, 1), mouths: make(map[Segment]Socket), asked: make(map[nonce]time.Time), logged: make(map[string]string),
	}
	b.heard.init()
	return b
}

// Changed says that the networks of the machine have changed, or what Own returns. It
// may be called with any lock held.
func (b *Beacon) Changed() {
	b.changed.Store(true)
	b.rouse()
}

func (b *Beacon) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run says hello and answers until ctx ends; then it says goodbye, and nothing is sent
// any more. It is called once.
func (b *Beacon) Run(ctx context.Context) {
	defer b.end()
	b.burstAt = time.Now()
	b.helloAt = b.burstAt.Add(rand.N(jitter))
	b.look() // what comes before the first hello is heard
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-timer.C:
		}
		timer.Reset(time.Until(b.step(time.Now())))
	}
}

// step does what is due, and returns when more will be.
func (b *Beacon) step(now time.Time) (next time.Time) {
	if b.changed.Swap(false) {
		if b.said > 0 { // else a burst is about to begin
			b.said = 0
			b.burstAt = later(now, b.burstAt.Add(burstRest))
			b.helloAt = b.burstAt.Add(rand.N(jitter))
		}
		b.look()
	}
	if !now.Before(b.helloAt) {
		b.look()
		b.hello(now)
		if b.said++; b.said < len(burst) {
			b.helloAt = b.burstAt.Add(burst[b.said] + rand.N(jitter))
		} else {
			b.helloAt = now.Add(every - every/5 + rand.N(2*every/5))
		}
	}
	next = earlier(b.helloAt, b.answer(now))
	b.mu.Lock()
	if !b.forgetAt.IsZero() && !now.Before(b.forgetAt) {
		b.forget(now)
	}
	next = earlier(next, b.forgetAt)
	b.mu.Unlock()
	b.tell()
	return next
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// earlier returns the earlier one; a zero time is never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}

// look sees which networks there are, and has the sockets follow.
func (b *Beacon) look() {
	all, err := b.cfg.LAN.Segments()
	if err != nil {
		b.complain("the networks of this machine cannot be listed", err)
		return
	}
	b.own = b.cfg.Own()
	used := usable(all, b.own)
	b.mu.Lock()
	if !slices.Equal(b.segments, all) || !slices.Equal(b.used, used) {
		b.segments, b.used, b.forgetAt = all, used, time.Now()
	}
	b.mu.Unlock()
	for six := range b.ears {
		b.openEar(six, used)
	}
	for s, m := range b.mouths {
		if !slices.Contains(used, s) {
			m.Close() //nolint:errcheck // it has served
			delete(b.mouths, s)
		}
	}
	b.record = nil
	if b.cfg.Quiet {
		return
	}
	for _, s := range used {
		if b.mouths[s] == nil {
			m, err := b.cfg.LAN.Mouth(s, func(from netip.AddrPort, d []byte) { b.take(from, d, false) })
			if err != nil { // an address that is not settled yet, or gone
				b.cfg.Log.Debug("no beacon at an address", "address", s.Addr, "error", err)
				continue
			}
			b.mouths[s] = m
		}
	}
	if len(b.own.Endpoints) > 0 {
		b.record = b.sign(b.own.Endpoints)
	}
	b.mu.Lock()
	b.tells = b.record != nil
	b.mu.Unlock()
}

// usable returns the segments to use: the loopback ones, and those by whose interface
// somebody can come to a listener. Without listeners all are used, for asking.
func usable(all []Segment, own Own) (used []Segment) {
	open := map[int]bool{}
	for _, s := range all {
		if len(own.Listen) == 0 || s.Addr.IsLoopback() || len(doors(own.Listen, s.Addr)) > 0 {
			open[s.Interface] = true
		}
	}
	for _, s := range all {
		if s.All.IsValid() && open[s.Interface] && len(used) < maxSegments {
			used = append(used, s)
		}
	}
	return used
}

// doors returns where links are accepted at an address of this machine.
func doors(listen []endpoint.Endpoint, at netip.Addr) (list []wire.Door) {
	for _, l := range listen {
		a := l.Addr.Addr()
		covers := a == at || a.WithZone("") == at.WithZone("") || a == netip.IPv6Unspecified() || a == netip.IPv4Unspecified() && at.Is4()
		if d := (wire.Door{Transport: l.Transport, Port: l.Addr.Port()}); covers && !slices.Contains(list, d) && len(list) < wire.MaxBeaconDoors {
			list = append(list, d)
		}
	}
	return list
}

// openEar opens the shared port of a family if there is a segment of it, and joins
// what must be joined.
func (b *Beacon) openEar(six int, used []Segment) {
	of := func(s Segment) bool { return s.Addr.Is6() == (six == 1) }
	if !slices.ContainsFunc(used, of) {
		return
	}
	if b.ears[six] == nil {
		ear, err := b.cfg.LAN.Ear(six == 1, b.cfg.Port, func(from netip.AddrPort, d []byte) { b.take(from, d, true) })
		if err != nil {
			b.complain("beacons of others cannot be heard", err, "family", [...]string{"IPv4", "IPv6"}[six])
			return
		}
		b.ears[six] = ear
	}
	for _, s := range used {
		if !of(s) {
			continue
		}
		if err := b.ears[six].Join(s); errors.Is(err, net.ErrClosed) {
			b.ears[six] = nil // the next look opens another
			return
		} else if err != nil {
			b.cfg.Log.Debug("beacons are not heard at an address", "address", s.Addr, "error", err)
		}
	}
}

// complain logs what is wrong, once until it is wrong for another reason.
func (b *Beacon) complain(what string, err error, about ...any) {
	if key := what + fmt.Sprint(about...); b.logged[key] != err.Error() {
		b.logged[key] = err.Error()
		b.cfg.Log.Warn(what, append([]any{"port", b.cfg.Port, "error", err}, about...)...)
	}
}

// sign makes a contact record; without endpoints it says that we are gone.
func (b *Beacon) sign(endpoints []endpoint.Endpoint) []byte {
	b.seq = max(b.seq+1, uint64(time.Now().UnixMilli())) //nolint:gosec // after 1970
	c := wire.Contact{Peer: b.cfg.Self, Seq: b.seq, Life: recordLife, Role: b.own.Role, Flags: b.own.Flags, Endpoints: endpoints}
	return c.Append(nil, b.cfg.Sign)
}

// compose makes a datagram that is sent from a segment.
func (b *Beacon) compose(m wire.Beacon, s Segment, most int) ([]byte, error) {
	b.mu.Lock()
	b.clock = max(b.clock+1, uint64(time.Now().UnixMilli())) //nolint:gosec // after 1970
	m.Time = b.clock
	b.mu.Unlock()
	m.From = s.Addr.WithZone("")
	if m.Kind != wire.BeaconGoodbye {
		m.Doors = doors(b.own.Listen, s.Addr)
	}
	return b.cfg.Seal(m.Append(nil, b.cfg.Sign), most)
}

// hello says hello on all segments. Only first hellos ask.
func (b *Beacon) hello(now time.Time) {
	m := wire.Beacon{Kind: wire.BeaconHello, Record: b.record}
	if b.said < len(burst) {
		m.Flags = wire.BeaconFlagAsks
	} else if b.record == nil {
		return // nothing to ask, nothing to tell
	}
	b.known = b.known || b.record != nil
	b.toAll(now, m)
}

// toAll sends to all on all segments.
func (b *Beacon) toAll(now time.Time, m wire.Beacon) {
	for s := range b.mouths {
		d, err := b.compose(m, s, math.MaxInt)
		if err != nil {
			b.complain("no beacon can be made", err)
			return
		}
		b.mu.Lock()
		for n, at := range b.asked {
			if now.Sub(at) > patience {
				delete(b.asked, n)
			}
		}
		b.asked[nonce(d)] = now // also so as to know our own voice
		b.mu.Unlock()
		b.send(s, d, netip.AddrPortFrom(s.All, b.cfg.Port))
	}
}

func (b *Beacon) send(from Segment, d []byte, to netip.AddrPort) {
	m := b.mouths[from]
	if m == nil {
		return
	}
	err := m.WriteTo(d, to)
	if errors.Is(err, net.ErrClosed) {
		delete(b.mouths, from) // the next look opens another
	} else if err != nil {
		b.cfg.Log.Debug("a beacon could not be sent", "from", from.Addr, "to", to, "error", err)
	}
}

// answer sends the answers that are due, and returns when the next one will be.
func (b *Beacon) answer(now time.Time) (next time.Time) {
	b.mu.Lock()
	var due []answer
	b.answers = slices.DeleteFunc(b.answers, func(a answer) bool {
		if a.at.After(now) {
			next = earlier(next, a.at)
			return false
		}
		due = append(due, a)
		return true
	})
	b.mu.Unlock()
	for _, a := range due {
		if b.record == nil {
			continue
		}
		d, err := b.compose(wire.Beacon{Kind: wire.BeaconAnswer, Echo: a.echo, Record: b.record}, a.from, a.most)
		if err != nil || len(d) > a.most {
			continue
		}
		b.known = true
		b.send(a.from, d, a.to)
	}
	return next
}

// end says goodbye and closes all.
func (b *Beacon) end() {
	if b.known {
		b.toAll(time.Now(), wire.Beacon{Kind: wire.BeaconGoodbye, Record: b.sign(nil)})
	}
	for _, m := range b.mouths {
		m.Close() //nolint:errcheck // it has served
	}
	for _, e := range b.ears {
		if e != nil {
			e.Close() //nolint:errcheck // it has served
		}
	}
}

// Peers returns who was heard, in the order of their ids.
func (b *Beacon) Peers() []Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard.list()
}

// Review forgets peers that Config.Shun says to, since what it says has changed.
func (b *Beacon) Review() {
	if b.cfg.Shun == nil {
		return
	}
	b.mu.Lock()
	for _, p := range b.heard.peers {
		switch n := len(p.ways); {
		case b.cfg.Shun(p.ID, netip.Addr{}):
			b.remove(p)
			continue
		default:
			p.drop(func(w *way) bool { return b.cfg.Shun(p.ID, w.from) })
			if len(p.ways) == 0 {
				b.remove(p)
			} else if len(p.ways) < n {
				b.settle(p)
			}
		}
	}
	b.answers = slices.DeleteFunc(b.answers, func(a answer) bool { return b.cfg.Shun(identity.PeerID{}, a.to.Addr()) })
	b.mu.Unlock()
	b.tell()
}

// tell hands facts over, in order, one call at a time.
func (b *Beacon) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.telling {
		return // who does will see ours
	}
	b.telling = true
	for len(b.facts) > 0 {
		f := b.facts[0]
		b.facts = b.facts[1:]
		b.mu.Unlock()
		b.cfg.Tell(f)
		b.mu.Lock()
	}
	b.facts, b.telling = nil, false
}
