package crust

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/beacon"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// The beacon says hello on the networks of this machine, and hears hello (the room
// beacon). It connects to nobody: whom it has heard is told to the program, is there
// for PeersOnLAN, and may be tried by Bootstrap.

// BeaconMode says what a service does on the networks that its machine is in, so that
// peers there find each other.
type BeaconMode uint8

const (
	// BeaconOn says hello, where the service can be reached, answers those who ask, and
	// hears others. A service that listens at loopback addresses alone does so on the
	// loopback network alone; one that listens at certain addresses, on that and on
	// the interfaces that have them; one without listeners asks who is there, and
	// tells nothing.
	BeaconOn BeaconMode = 0
	// BeaconOff sends nothing and hears nothing.
	BeaconOff BeaconMode = 1
	// BeaconListen hears others and sends nothing. They say hello each five minutes or
	// so, and when they begin.
	BeaconListen BeaconMode = 2
	// BeaconAsk hears others, who answer at once, and tells nothing of itself.
	BeaconAsk BeaconMode = 3
)

// DefaultBeaconPort is the UDP port of beacons that Config.BeaconPort stands for when it
// is zero.
const DefaultBeaconPort = 5484

// beaconVariable is the environment variable that turns the beacon off.
const beaconVariable = "CRUST_BEACON"

// checkBeacon checks the settings of the beacon, and lets the environment turn it off.
func (c *Config) checkBeacon() error {
	bad := func(format string, args ...any) error {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf(format, args...)}
	}
	if c.Beacon > BeaconAsk {
		return bad("beacon mode %d is unknown", c.Beacon)
	}
	switch word := os.Getenv(beaconVariable); word {
	case "":
	case "off":
		c.Beacon, c.beaconBarred = BeaconOff, true
	default:
		return bad("the environment variable %s is %q, want \"off\" or nothing", beaconVariable, word)
	}
	c.BeaconPort = cmp.Or(c.BeaconPort, DefaultBeaconPort)
	return nil
}

// LANPeer is a peer whose beacon was heard on a network of this machine.
type LANPeer struct {
	Peer PeerID
	Role Role
	// Endpoints are where it may be, in the networks of this machine, the most useful
	// first: at least one, up to 16. Link-local addresses of IPv6 have the zone of this
	// machine's interface. That the peer is there is not proved until somebody connects;
	// that it has said so is.
	Endpoints []Endpoint
	// Heard is when it was heard the last time.
	Heard time.Time
}

// lan is the beacon of a service.
type lan struct {
	key    *secure.BeaconKey             // constant after New
	beacon atomic.Pointer[beacon.Beacon] // nil: there is none

	setting sync.Mutex // held by who changes it
	mode    BeaconMode
	stop    context.CancelFunc // ends the one that runs

	mu   sync.Mutex
	news chan struct{} // closed when one more peer was heard; nil when nobody waits
}

// SetBeacon changes Config.Beacon of a service that runs. A beacon that is turned off
// says goodbye; who was heard is not in PeersOnLAN any more, without an EventForgotten.
// One that is turned on begins anew, and tells of everybody whom it hears. Where the
// environment has turned beacons off, nothing is sent or heard whatever mode says. It
// returns CodeInvalid for an unknown mode, and CodeClosed.
func (s *Service) SetBeacon(mode BeaconMode) error {
	if mode > BeaconAsk {
		return &Error{Op: "set beacon", Code: CodeInvalid, Err: fmt.Errorf("beacon mode %d is unknown", mode)}
	}
	if !s.enter() {
		return &Error{Op: "set beacon", Code: CodeClosed}
	}
	defer s.leave()
	if !s.cfg.beaconBarred {
		s.setBeacon(mode)
	}
	return nil
}

// setBeacon has the beacon be of a mode.
func (s *Service) setBeacon(mode BeaconMode) {
	l, key := &s.lan, s.lan.key
	l.setting.Lock()
	defer l.setting.Unlock()
	caster, ok := s.network.(netio.Caster)
	if !ok || l.mode == mode {
		return
	}
	var next *beacon.Beacon
	if mode != BeaconOff {
		next = beacon.New(beacon.Config{
			Self: s.ID(), Sign: s.key.Sign, Seal: key.Seal, Open: key.Open,
			LAN: casting{s, caster}, Port: s.cfg.BeaconPort, Quiet: mode == BeaconListen,
			Shun: func(id PeerID, from netip.Addr) bool { return s.bans(id, from) != nil },
			Own: func() beacon.Own {
				own := s.beaconOwn()
				if mode == BeaconAsk {
					own.Endpoints = nil
				}
				return own
			}, Tell: func(f beacon.Fact) {
				if l.beacon.Load() == next {
					s.beaconTold(f)
				}
			}, Log: s.log,
		})
	}
	if l.stop != nil {
		l.stop()
		l.stop = nil
	}
	l.mode = mode
	l.beacon.Store(next)
	if next != nil {
		var ctx context.Context
		ctx, l.stop = context.WithCancel(s.ctx)
		s.spawn(func() { next.Run(ctx) })
	}
}

// beaconChanged has the beacon look again at the listeners and the networks of this
// machine. It may be called with any lock held.
func (s *Service) beaconChanged() {
	if b := s.lan.beacon.Load(); b != nil {
		b.Changed()
	}
}

// beaconOwn returns what the beacon tells of us. The role is that of the configuration,
// unlike in gossip (see standing): that strangers on the Internet do not get in says
// nothing about those who hear the beacon, who are on the same network.
func (s *Service) beaconOwn() beacon.Own {
	own := beacon.Own{Role: uint8(s.cfg.Role)}
	if s.cfg.Relay == RelayData {
		own.Flags |= wire.ContactRelay
	}
	addrs, err := s.network.Addrs()
	if err != nil {
		s.log.Debug("the beacon tells of no addresses", "error", err)
	}
	for _, l := range s.Listeners() {
		if !s.isOld(l) && l.Transport != Tracer {
			own.Listen = append(own.Listen, l)
			own.Endpoints = append(own.Endpoints, reachable(l, addrs)...)
		}
	}
	loopback := func(ep Endpoint) bool { return ep.Scope() == endpoint.Loopback }
	if far := slices.DeleteFunc(slices.Clone(own.Endpoints), loopback); len(far) > 0 {
		own.Endpoints = far
	}
	slices.SortStableFunc(own.Endpoints, func(a, b Endpoint) int { return cmp.Compare(b.Scope(), a.Scope()) })
	own.Endpoints = slices.DeleteFunc(own.Endpoints, func(ep Endpoint) bool { return ep.Scope() == endpoint.Unusable })
	if !s.accept.Load() || !s.allows(Accepted) {
		own.Endpoints = nil // whoever came would be refused
	}
	return own
}

// beaconTold tells the program what has become of a peer.
func (s *Service) beaconTold(f beacon.Fact) {
	if f.Kind == beacon.Forgotten {
		s.events.pushNews(Event{Type: EventForgotten, Peer: f.Peer.ID, detail: &detail{by: ByBeacon}})
		return
	}
	s.events.pushNews(Event{Type: EventDiscovered, Peer: f.Peer.ID, detail: &detail{
		endpoint: f.Peer.Endpoints[0], role: Role(f.Peer.Role), by: ByBeacon,
	}})
	s.heardOf(f.Peer.ID)
	s.lan.mu.Lock()
	defer s.lan.mu.Unlock()
	if s.lan.news != nil {
		close(s.lan.news)
		s.lan.news = nil
	}
}

// PeersOnLAN returns the peers whose beacons were heard on the networks of this machine,
// in the order of their ids, at once: it asks nobody. See Config.Beacon. A service that
// has just begun has heard those that answer within a moment, mostly less than 0.2 s.
func (s *Service) PeersOnLAN() []LANPeer {
	b := s.lan.beacon.Load()
	if b == nil {
		return nil
	}
	peers := b.Peers()
	list := make([]LANPeer, 0, len(peers))
	for _, p := range peers {
		list = append(list, LANPeer{Peer: p.ID, Role: Role(p.Role), Endpoints: p.Endpoints, Heard: p.Heard})
	}
	return list
}

// heardContacts returns where the peers on the LAN can be dialled, the best endpoint of
// each first, and then the second of each, and so on. more is closed when one more was
// heard, or has changed; nil when there is no beacon.
func (s *Service) heardContacts() (list []Contact, more <-chan struct{}) {
	if s.lan.beacon.Load() == nil {
		return nil, nil
	}
	s.lan.mu.Lock()
	if s.lan.news == nil {
		s.lan.news = make(chan struct{})
	}
	more = s.lan.news
	s.lan.mu.Unlock()
	peers := s.PeersOnLAN()
	for n, left := 0, true; left; n++ {
		left = false
		for _, p := range peers {
			if n < len(p.Endpoints) {
				list, left = append(list, Contact{p.Endpoints[n], p.Peer}), true
			}
		}
	}
	return list, more
}

// casting is a beacon.LAN of a network.
type casting struct {
	s  *Service
	on netio.Caster
}

// Segments implements beacon.LAN.
func (c casting) Segments() ([]beacon.Segment, error) {
	all, err := c.on.Segments()
	list := make([]beacon.Segment, 0, len(all))
	for _, s := range all {
		list = append(list, beacon.Segment(s))
	}
	return list, err
}

// Ear implements beacon.LAN.
func (c casting) Ear(six bool, port uint16, take beacon.Take) (beacon.Socket, error) {
	conn, err := c.on.ListenShared(c.s.ctx, six, port)
	if err != nil {
		return nil, err
	}
	return c.serve(conn, take), nil
}

// Mouth implements beacon.LAN.
func (c casting) Mouth(s beacon.Segment, take beacon.Take) (beacon.Socket, error) {
	conn, err := c.on.ListenCast(c.s.ctx, netio.Segment(s))
	if err != nil {
		return nil, err
	}
	return c.serve(conn, take), nil
}

// serve has a socket read, until it is closed.
func (c casting) serve(conn netio.CastConn, take beacon.Take) beacon.Socket {
	e := &castSocket{conn: conn}
	c.s.spawn(func() {
		defer e.over.Store(true)
		defer conn.Close() //nolint:errcheck // it has served
		buf := make([]byte, secure.MaxBeacon+1)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					c.s.log.Warn("nothing more is heard of beacons by a socket", "at", conn.LocalAddr(), "error", err)
				}
				return
			}
			take(from, buf[:n])
		}
	})
	return e
}

// castSocket is a beacon.Socket.
type castSocket struct {
	conn netio.CastConn
	over atomic.Bool // nothing is read any more
}

// Join implements beacon.Socket.
func (e *castSocket) Join(s beacon.Segment) error {
	if e.over.Load() {
		return net.ErrClosed
	}
	return e.conn.Join(netio.Segment(s))
}

// WriteTo implements beacon.Socket.
func (e *castSocket) WriteTo(datagram []byte, to netip.AddrPort) error {
	if e.over.Load() {
		return net.ErrClosed
	}
	return e.conn.WriteTo(datagram, to)
}

// Close implements beacon.Socket.
func (e *castSocket) Close() error { return e.conn.Close() }
