package portmap

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Why there is no mapping. What Report returns unwraps to one of these.
var (
	// ErrNoGateway means that no interface has a router behind it.
	ErrNoGateway = errors.New("no router")
	// ErrSilent means that the router did not answer.
	ErrSilent = errors.New("the router does not answer")
	// ErrUnsupported means that the router does not know how, or that its answers
	// make no sense.
	ErrUnsupported = errors.New("the router does not support it")
	// ErrRefused means that the router may not give ports to this machine.
	ErrRefused = errors.New("the router refuses")
	// ErrConflict means that the external port belongs to somebody else.
	ErrConflict = errors.New("the external port is taken")
	// ErrResources means that the router has no more mappings to give.
	ErrResources = errors.New("the router has no more room")
	// ErrNoExternal means that the router has no external address of use: it is
	// not connected, or behind another NAT.
	ErrNoExternal = errors.New("the router has no public address")
)

// Protocol is what a port is of.
type Protocol uint8

// The protocols.
const (
	TCP Protocol = iota + 1
	UDP
)

// String returns "tcp" or "udp".
func (p Protocol) String() string { return strings.ToLower(p.upnp()) }

func (p Protocol) upnp() string {
	if p == TCP {
		return "TCP"
	}
	return "UDP"
}

func (p Protocol) iana() byte {
	if p == TCP {
		return ianaTCP
	}
	return ianaUDP
}

func (p Protocol) pmp() byte {
	if p == TCP {
		return pmpMapTCP
	}
	return pmpMapUDP
}

// Means is a way to ask a router, in the order of preference.
type Means uint8

// The means.
const (
	PCP     Means = iota + 1
	IGD2          // UPnP, AddAnyPortMapping
	Pinhole       // UPnP, in a firewall of IPv6
	NATPMP
	IGD1
)

// String returns "pcp", "upnp-igd2", "upnp-pinhole", "nat-pmp" or "upnp-igd1".
func (m Means) String() string {
	if int(m) >= len(meansNames) {
		return meansNames[0]
	}
	return meansNames[m]
}

var meansNames = [...]string{"none", "pcp", "upnp-igd2", "upnp-pinhole", "nat-pmp", "upnp-igd1"}

// Family says which addresses a port is wanted for.
type Family uint8

// The families.
const (
	AnyFamily Family = iota
	IPv4
	IPv6
)

// Want is a port that others shall reach. Two wants that differ only in External
// are an error of the caller: the first counts.
type Want struct {
	Protocol Protocol
	// Port is the port here, not 0.
	Port uint16
	// External is the port that the router must give, or none; 0: any, the same as
	// Port when it is free.
	External uint16
	Family   Family
	// Addr is the address of this machine that the port is at: only the router behind
	// it is asked. The zero Addr: at all of them.
	Addr netip.Addr
}

// Fits reports whether a mapping is one that is wanted.
func (w Want) Fits(m Mapping) bool {
	return w.Protocol == m.Protocol && w.Port == m.Internal.Port() && (w.Addr == netip.Addr{} || w.Addr == m.Internal.Addr()) &&
		(w.Family == AnyFamily || (w.Family == IPv6) == m.Internal.Addr().Is6())
}

// Mapping is a port that a router passes to this machine.
type Mapping struct {
	Protocol Protocol
	// Internal is where it leads: an address of this machine.
	Internal netip.AddrPort
	// External is where others reach it. Of a pinhole it is Internal.
	External netip.AddrPort
	Means    Means
	// Gateway is the router, the zero Addr when it is not known.
	Gateway netip.Addr
	// Expires is when the router will drop it unless it is renewed; zero: never.
	Expires time.Time
	// Double means that External is not a global address: there is another NAT in
	// front of the router.
	Double bool
}

// Way is one way in which one router was asked.
type Way struct {
	Interface Interface
	Means     Means
	// Up means that the router answers so.
	Up bool
	// Err is why it is not up, nil before it is known.
	Err error
}

// Failure is a wanted port that a router does not pass on, and why.
type Failure struct {
	Want      Want
	Interface Interface
	Err       error
}

// Report is what a person would ask about.
type Report struct {
	// Err is why no router is asked: ErrNoGateway, or the system's error. nil
	// before it is known and when there are routers.
	Err      error
	Ways     []Way
	Failures []Failure
}

// Config says how a Client works. Zero means the default that a field states.
type Config struct {
	// Go runs f in a goroutine that the owner joins. Required. It must not run f
	// on the caller's goroutine.
	Go func(f func())
	// Interfaces lists the addresses behind which routers may be, and in any case
	// those of bound that are among them. Default Interfaces of this package.
	Interfaces func(bound []netip.Addr) ([]Interface, error)
	// Description is what routers show of our mappings, to 32 letters, digits,
	// spaces and -_. of it. Default "libcrust".
	Description string
	// Secret makes the nonces of PCP mappings. The same secret after a crash lets
	// us renew and give back what we had. Default: a random one.
	Secret [32]byte
	// Without leaves means out. Pinhole, IGD1 and IGD2 go together.
	Without []Means
	// Changed is called when Mappings has changed, on a goroutine of the client,
	// not twice at once for one interface. It must not block or call Close. nil:
	// nothing.
	Changed func()

	life uint32 // seconds asked for, for tests
	deaf bool   // hears no announcements, for tests
}

const (
	leaseSeconds    = 3600 // asked for
	maxLeaseSeconds = 86400
	// rescan is how often the interfaces are looked at unasked.
	rescan = 10 * time.Second
	// closeTimeout bounds the giving back of mappings in Close.
	closeTimeout = 1800 * time.Millisecond
	// maxSites bounds the addresses that routers are asked for.
	maxSites = 16
	// maxWants bounds the ports of one client.
	maxWants = 64
	// maxDescription bounds a description, in bytes.
	maxDescription = 32
)

// Client asks the routers of this machine for ports. Its methods may be called from
// any goroutine.
type Client struct {
	cfg     Config
	ctx     context.Context // ended by Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{} // to supervise

	mu     sync.Mutex
	closed bool
	wants  []Want
	sites  map[Interface]*site
	err    error
}

// New starts a client, which does nothing before Want. It returns at once.
func New(cfg Config) *Client {
	if cfg.Interfaces == nil {
		cfg.Interfaces = Interfaces
	}
	cfg.Description = plain(cfg.Description)
	if cfg.Secret == ([32]byte{}) {
		fill(cfg.Secret[:])
	}
	cfg.life = cmp.Or(cfg.life, leaseSeconds)
	c := &Client{cfg: cfg, wake: make(chan struct{}, 1), sites: map[Interface]*site{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.spawn(c.supervise)
	return c
}

// fill fills b with random bytes. crypto/rand never fails.
func fill(b []byte) { _, _ = rand.Read(b) }

// plain makes a description that every router takes.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" -_.", r) {
			return r
		}
		return -1
	}, text)
	return cmp.Or(strings.TrimSpace(text[:min(len(text), maxDescription)]), "libcrust")
}

// spawn runs f in a goroutine that Close waits for. The caller is New or itself
// such a goroutine.
func (c *Client) spawn(f func()) {
	c.running.Add(1)
	c.cfg.Go(func() {
		defer c.running.Done()
		f()
	})
}

// Want says which ports are wanted from now on, at most 64: those that were
// wanted before and are not any more are given back. It returns at once.
func (c *Client) Want(wants ...Want) {
	var kept []Want
	for _, w := range wants {
		same := func(o Want) bool {
			return o.Protocol == w.Protocol && o.Port == w.Port && o.Family == w.Family && o.Addr == w.Addr
		}
		if (w.Protocol == TCP || w.Protocol == UDP) && w.Port != 0 && len(kept) < maxWants && !slices.ContainsFunc(kept, same) {
			kept = append(kept, w)
		}
	}
	c.mu.Lock()
	c.wants = kept
	c.mu.Unlock()
	c.Refresh()
}

// Refresh looks at the interfaces and asks again for what is missing and whether
// what there is still holds: for changes of the network. It returns at once.
func (c *Client) Refresh() {
	poke(c.wake)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sites {
		s.refresh.Store(true)
		poke(s.wake)
	}
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Mappings returns what the routers pass on, ordered by protocol and address.
func (c *Client) Mappings() []Mapping {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Mapping
	for _, s := range c.sites {
		all = append(all, s.mappings...)
	}
	slices.SortFunc(all, func(a, b Mapping) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Internal.Compare(b.Internal), a.External.Compare(b.External))
	})
	return all
}

// Report returns how things are, for people.
func (c *Client) Report() Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := Report{Err: c.err}
	for _, s := range c.sites {
		for _, w := range s.seats {
			r.Ways = append(r.Ways, Way{s.iface, w.means, w.up, w.err})
		}
		r.Failures = append(r.Failures, s.failures...)
	}
	slices.SortFunc(r.Ways, func(a, b Way) int {
		return cmp.Or(a.Interface.Prefix.Addr().Compare(b.Interface.Prefix.Addr()), cmp.Compare(a.Means, b.Means))
	})
	slices.SortFunc(r.Failures, func(a, b Failure) int {
		return cmp.Or(a.Interface.Prefix.Addr().Compare(b.Interface.Prefix.Addr()), cmp.Compare(a.Want.Protocol, b.Want.Protocol),
			cmp.Compare(a.Want.Port, b.Want.Port))
	})
	return r
}

// Close gives the mappings back, for at most 1.8 s, and returns when all goroutines
// have ended, within 2 s. It may be called again.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.sites)
}

// supervise keeps one site for each interface while anything is wanted.
func (c *Client) supervise() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
		c.mu.Lock()
		idle := len(c.wants) == 0 && len(c.sites) == 0
		var bound []netip.Addr
		for _, w := range c.wants {
			if w.Addr.IsValid() && !slices.Contains(bound, w.Addr) {
				bound = append(bound, w.Addr)
			}
		}
		for i := range c.sites { // they have to give back what was wanted before
			bound = append(bound, i.Prefix.Addr())
		}
		c.mu.Unlock()
		if !idle {
			c.reconcile(c.cfg.Interfaces(bound))
			timer.Reset(rescan)
		}
	}
}

// reconcile starts and ends sites.
func (c *Client) reconcile(found []Interface, err error) {
	slices.SortFunc(found, func(a, b Interface) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
	found = found[:min(len(found), maxSites)]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.err = err
	if err != nil {
		return // it may do better the next time
	}
	if len(found) == 0 {
		c.err = ErrNoGateway
	}
	for i, s := range c.sites {
		if !slices.Contains(found, i) {
			s.cancel()
			delete(c.sites, i)
			if len(s.mappings) > 0 && c.cfg.Changed != nil {
				c.spawn(c.cfg.Changed)
			}
		}
	}
	for _, i := range found {
		if c.sites[i] == nil && i.Prefix.IsValid() {
			s := newSite(c, i)
			c.sites[i] = s
			c.spawn(s.run)
		}
	}
}

// without reports whether a way is left out.
func (c *Client) without(m ...Means) bool {
	return slices.ContainsFunc(m, func(m Means) bool { return slices.Contains(c.cfg.Without, m) })
}

// usableExternal reports whether others could possibly send there.
func usableExternal(a netip.AddrPort) bool {
	return a.Port() != 0 && a.Addr().IsGlobalUnicast()
}

// global reports whether an address is on the public internet.
func global(a netip.AddrPort) bool { return endpoint.New(endpoint.UTP, a).Scope() == endpoint.Global }
