package crust

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/nat/portmap"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// The routers of this machine are asked to pass on what comes to the ports of the
// listeners (nat/portmap). What they give goes into connection infos and letters, so
// that peers simply dial it; a peer with which there is a session is told at once,
// since it may have a better link now, or dial there when this one breaks.

// PortMapMode says whether routers are asked for ports.
type PortMapMode uint8

const (
	// PortMapOn asks the routers of this machine to pass the ports of the listeners on,
	// by PCP, NAT-PMP and UPnP.
	PortMapOn PortMapMode = 0
	// PortMapOff asks nobody.
	PortMapOff PortMapMode = 1
)

// portMapVariable is the environment variable that turns port mapping off.
const portMapVariable = "CRUST_PORTMAP"

// checkPortMap checks the settings of port mapping, and lets the environment turn
// it off.
func (c *Config) checkPortMap() error {
	bad := func(format string, args ...any) error {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf(format, args...)}
	}
	if c.PortMap > PortMapOff {
		return bad("port map mode %d is unknown", c.PortMap)
	}
	switch word := os.Getenv(portMapVariable); word {
	case "":
	case "off":
		c.PortMap = PortMapOff
	default:
		return bad("the environment variable %s is %q, want \"off\" or nothing", portMapVariable, word)
	}
	if c.network == nil && c.mapper == nil {
		c.mapper = func(cfg portmap.Config) mapper { return portmap.New(cfg) }
	}
	if c.PortMap == PortMapOff {
		c.mapper = nil
	}
	return nil
}

// mapper asks routers for ports: a portmap.Client, or a double of it.
type mapper interface {
	Want(wants ...portmap.Want)
	Refresh()
	Mappings() []portmap.Mapping
	Report() portmap.Report
	Close()
}

// mapping is what a service has its routers pass on. mu is taken with no other lock
// held, and poke with any.
type mapping struct {
	mu     sync.Mutex
	client mapper // nil before the first listener that wants a port
	wants  []portmap.Want
	told   []portmap.Mapping // to the program

	poke    sync.Mutex
	pending bool // listeners have changed
	running bool // a goroutine looks at them
}

// remap has the wishes follow the listeners. It may be called with any lock held.
func (s *Service) remap() {
	s.beaconChanged()
	s.gossip.moved()
	if s.cfg.mapper == nil || s.ctx.Err() != nil { // at the end all is given back at once
		return
	}
	m := &s.mapping
	m.poke.Lock()
	defer m.poke.Unlock()
	m.pending = true
	if !m.running {
		m.running = true
		s.spawn(s.wish)
	}
}

// wish is a goroutine that tells the client what is wanted, and makes it with the
// first wish.
func (s *Service) wish() {
	m := &s.mapping
	for {
		m.poke.Lock()
		m.running = m.pending
		if !m.pending {
			m.poke.Unlock()
			return
		}
		m.pending = false
		m.poke.Unlock()
		wants := s.wishes()
		m.mu.Lock()
		if !slices.Equal(wants, m.wants) {
			m.wants = wants
			if m.client == nil {
				m.client = s.cfg.mapper(portmap.Config{Go: s.spawnBelow, Secret: s.mappingSecret(), Changed: s.mappingsChanged})
			}
			m.client.Want(wants...)
		}
		m.mu.Unlock()
	}
}

// mappingSecret is the same for every service with our identity, so that one that is
// started after a crash can renew what the other had.
func (s *Service) mappingSecret() [32]byte {
	return sha256.Sum256(s.key.Sign([]byte("libcrust/1 port mapping\x00")))
}

// mappable is a listener, or a socket that was one and serves its sessions on.
type mappable struct {
	ep    Endpoint
	order uint64
	old   bool // peers are not told of it any more
}

// mappables returns the listeners in the order in which they were started, after
// what is left of those that are no more. A successor takes the place of the one that
// it succeeds.
func (s *Service) mappables() (list []mappable) {
	s.udpMu.Lock()
	for _, u := range s.sockets {
		if u.hole == 0 && u.retired.Load() {
			list = append(list, mappable{ep: u.ep, old: true})
		}
	}
	s.udpMu.Unlock()
	s.mu.Lock()
	for _, l := range s.listeners {
		list = append(list, mappable{l.ep, l.order, l.old})
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b mappable) int {
		return cmp.Or(cmp.Compare(a.order, b.order), endpoint.Compare(a.ep, b.ep))
	})
	return list
}

// wishes returns which ports routers shall pass on: those of all listeners that are
// not for this machine alone.
func (s *Service) wishes() (wants []portmap.Want) {
	given := map[portmap.Protocol]bool{} // the external port is
	for _, m := range s.mappables() {
		w := wantOf(m.ep)
		switch {
		case w.Port == 0:
		case s.cfg.ExternalPort == 0 || m.old || w.Family == portmap.IPv6 || given[w.Protocol]:
			wants = append(wants, w)
		default:
			given[w.Protocol] = true
			if w.Family == portmap.AnyFamily { // routers for IPv6 change no ports
				six := w
				six.Family, w.Family = portmap.IPv6, portmap.IPv4
				wants = append(wants, six)
			}
			w.External = s.cfg.ExternalPort
			wants = append(wants, w)
		}
	}
	return wants
}

// wantOf returns what a listener wants of routers; Port is 0 when it is nothing.
func wantOf(ep Endpoint) portmap.Want {
	a := ep.Addr.Addr()
	if a.IsLoopback() || a.IsLinkLocalUnicast() || ep.Transport == Tracer {
		return portmap.Want{}
	}
	w := portmap.Want{Protocol: portmap.TCP, Port: ep.Addr.Port()}
	if ep.Transport == UTP {
		w.Protocol = portmap.UDP
	}
	switch {
	case !a.IsUnspecified():
		w.Addr, w.Family = a, portmap.IPv4
		if a.Is6() {
			w.Family = portmap.IPv6
		}
	case a.Is4():
		w.Family = portmap.IPv4
	}
	return w
}

// internalOf and externalOf return the ends of a mapping.
func internalOf(m portmap.Mapping) Endpoint { return endpointFor(m.Protocol, m.Internal) }
func externalOf(m portmap.Mapping) Endpoint { return endpointFor(m.Protocol, m.External) }

func endpointFor(p portmap.Protocol, at netip.AddrPort) Endpoint {
	if p == portmap.UDP {
		return endpoint.New(UTP, at)
	}
	return endpoint.New(TCP, at)
}

// mappings returns what routers pass on now, by the listeners that it is for in the
// order in which they were started, without those that have a successor.
func (s *Service) mappings() (list []portmap.Mapping) {
	client := s.mappingClient()
	if client == nil {
		return nil
	}
	all := client.Mappings()
	for _, l := range s.mappables() {
		for _, one := range all {
			if at := internalOf(one); !l.old && at.Transport == l.ep.Transport && at.Addr.Port() == l.ep.Addr.Port() && wantOf(l.ep).Fits(one) {
				list = append(list, one)
			}
		}
	}
	return list
}

// mapped returns where peers can dial the listeners through routers.
func (s *Service) mapped() (eps []Endpoint) {
	for _, m := range s.mappings() {
		if !m.Double {
			eps = append(eps, externalOf(m))
		}
	}
	return eps
}

// mainMapping returns the mapping of the listener that peers know best, of a
// protocol and family.
func mainMapping(list []portmap.Mapping, p portmap.Protocol, six bool) (portmap.Mapping, bool) {
	i := slices.IndexFunc(list, func(m portmap.Mapping) bool { return m.Protocol == p && m.External.Addr().Is6() == six })
	if i < 0 {
		return portmap.Mapping{}, false
	}
	return list[i], true
}

// marks returns the bits of wire.Info.Mapped for endpoints of which some are mapped.
func marks(eps, mapped []Endpoint) (bits uint32) {
	for i, ep := range eps[:min(len(eps), 32)] {
		if slices.Contains(mapped, ep) {
			bits |= 1 << i
		}
	}
	return bits
}

// marked returns the endpoints whose bits are set.
func marked(eps []Endpoint, bits uint32) (mapped []Endpoint) {
	for i, ep := range eps {
		if bits>>i&1 != 0 {
			mapped = append(mapped, ep)
		}
	}
	return mapped
}

// noteMappings tells the observer what routers say. watch.mu is held.
func (s *Service) noteMappings(list []portmap.Mapping, now time.Time) {
	for _, p := range []portmap.Protocol{portmap.TCP, portmap.UDP} {
		for _, six := range []bool{false, true} {
			proto := observe.TCP
			if p == portmap.UDP {
				proto = observe.UDP
			}
			if m, ok := mainMapping(list, p, six); ok {
				s.watch.machine.SetMapped(proto, m.External, now)
			} else {
				s.watch.machine.ClearMapped(observe.Flow{Proto: proto, IPv6: six})
			}
		}
	}
}

// mappedFacts returns what peers should know of the NAT before a listener for whose
// port a router is mapped: whoever sends there arrives. Facts that peers have found
// out against it stay.
func mappedFacts(n wire.NAT, list []portmap.Mapping, p portmap.Protocol) wire.NAT {
	m, ok := mainMapping(list, p, n.External.Addr().Is6())
	if !ok || m.Double || n.Double {
		return n
	}
	n.Mapping, n.Filtering, n.Ports = wire.EndpointIndependent, wire.EndpointIndependent, wire.PortsPreserving
	n.Step, n.Rate, n.Low, n.High, n.Age, n.External = 0, 0, 0, 0, 0, m.External
	return n
}

// mappingsChanged is told by the client that what routers pass on has changed.
func (s *Service) mappingsChanged() {
	if s.ctx.Err() != nil {
		return
	}
	s.gossip.moved()
	m := &s.mapping
	m.mu.Lock()
	now, before := m.client.Mappings(), m.told
	m.told = now
	report := m.client.Report()
	var calls []func()
	lost := false
	for _, old := range before {
		if !slices.ContainsFunc(now, func(n portmap.Mapping) bool { return sameMapping(old, n) }) {
			d := &detail{endpoint: externalOf(old), internal: internalOf(old), means: Means(old.Means), err: m.why(old, now, report)}
			calls, lost = append(calls, s.events.add(Event{Type: EventPortUnmapped, detail: d})), true
		}
	}
	for _, n := range now {
		at := slices.IndexFunc(before, func(old portmap.Mapping) bool { return sameMapping(old, n) })
		if at < 0 || before[at].Means != n.Means || before[at].Gateway != n.Gateway || before[at].Double != n.Double {
			d := &detail{endpoint: externalOf(n), internal: internalOf(n), means: Means(n.Means), err: doubleError(n)}
			if !n.Expires.IsZero() {
				d.lease = max(time.Until(n.Expires), time.Millisecond)
			}
			calls = append(calls, s.events.add(Event{Type: EventPortMapped, detail: d}))
		}
	}
	m.mu.Unlock()
	for _, call := range calls {
		call()
	}
	if len(calls) > 0 {
		s.spawn(func() { s.tellMappings(lost) })
		s.surveySoon(true)
	}
}

// sameMapping reports whether two mappings lead from the same endpoint to the same.
func sameMapping(a, b portmap.Mapping) bool {
	return a.Protocol == b.Protocol && a.Internal == b.Internal && a.External == b.External
}

// doubleError says what keeps peers on the Internet from a mapping, if anything does.
func doubleError(m portmap.Mapping) error {
	if !m.Double {
		return nil
	}
	return &Error{
		Op: "map port", Endpoint: internalOf(m), Code: CodeUnreachable,
		Err: fmt.Errorf("the router has no public address but %v: another NAT is in front of it", m.External.Addr()),
	}
}

// why says why a mapping is gone; nil when it was not wanted any more. mu is held.
func (m *mapping) why(gone portmap.Mapping, now []portmap.Mapping, report portmap.Report) error {
	at := internalOf(gone)
	failed := func(code Code, err error) error { return &Error{Op: "map port", Endpoint: at, Code: code, Err: err} }
	if !slices.ContainsFunc(m.wants, func(w portmap.Want) bool { return w.Fits(gone) }) {
		return nil
	}
	for _, n := range now {
		if n.Protocol == gone.Protocol && n.Internal == gone.Internal {
			return failed(CodeReplaced, fmt.Errorf("%v is passed on instead", n.External))
		}
	}
	for _, f := range report.Failures {
		if f.Want.Fits(gone) && f.Interface.Prefix.Addr() == gone.Internal.Addr() {
			return mapError(at, f.Err)
		}
	}
	if !slices.ContainsFunc(report.Ways, func(w portmap.Way) bool { return w.Interface.Prefix.Addr() == gone.Internal.Addr() }) {
		return failed(CodeAddress, errors.New("this machine has the address no more, or no router behind it"))
	}
	return failed(CodeTimeout, errors.New("the router has not renewed it"))
}

// mapCauses maps what port mapping comes to to codes; the first that matches counts.
var mapCauses = []struct {
	err  error
	code Code
}{
	{portmap.ErrNoGateway, CodeUnreachable},
	{portmap.ErrNoExternal, CodeUnreachable},
	{portmap.ErrConflict, CodeAddressInUse},
	{portmap.ErrRefused, CodeNotAllowed},
	{portmap.ErrResources, CodeLimit},
	{portmap.ErrUnsupported, CodeUnsupported},
	{portmap.ErrSilent, CodeTimeout},
	{errAsked, CodeState},
}

// mapError dresses an error of port mapping.
func mapError(at Endpoint, err error) error {
	e := &Error{Op: "map port", Endpoint: at, Code: CodeOf(err), Err: err}
	for _, c := range mapCauses {
		if errors.Is(err, c.err) {
			e.Code = c.code
			break
		}
	}
	return e
}

// mappingClient returns what asks routers, nil when nobody does.
func (s *Service) mappingClient() mapper {
	s.mapping.mu.Lock()
	defer s.mapping.mu.Unlock()
	return s.mapping.client
}

// closeMapping gives back what routers pass on, within 2 s.
func (s *Service) closeMapping() {
	if client := s.mappingClient(); client != nil {
		client.Close()
	}
}

// refreshMapping has the client look at this machine's addresses, and ask whether
// what it has still holds.
func (s *Service) refreshMapping() {
	if client := s.mappingClient(); client != nil {
		client.Refresh()
	}
}

// The numbers are those of portmap.
var (
	_ = [1]struct{}{}[MeansPCP-Means(portmap.PCP)]
	_ = [1]struct{}{}[MeansUPnPIGD1-Means(portmap.IGD1)]
)

// MappedPort is a port of a listener that a router passes on, or why it does not.
type MappedPort struct {
	// Internal is where the port leads: an address of this machine, behind which the
	// router is, and the port of a listener.
	Internal Endpoint
	// External is where others reach it; zero: nowhere, and Err says why.
	External Endpoint
	// Means is how the router was asked; 0 when there is no mapping.
	Means Means
	// Gateway is the router; the zero Addr when it is not known.
	Gateway netip.Addr
	// Expires is when the router drops it unless it is renewed, which it is at half of
	// its time; zero: never.
	Expires time.Time
	// Double says that another NAT is in front of the router, so that only those
	// between the two reach External.
	Double bool
	// Err says why there is no mapping: an *Error. nil when there is one.
	Err error
}

// errAsked is why there is no mapping yet.
var errAsked = errors.New("the router has been asked and has not answered yet")

// mappedPorts tells of each listener what the router behind each address passes on.
func (s *Service) mappedPorts() (ports []MappedPort) {
	client := s.mappingClient()
	if client == nil {
		return nil
	}
	all, report := client.Mappings(), client.Report()
	var behind []portmap.Interface
	for _, w := range report.Ways {
		if !slices.Contains(behind, w.Interface) {
			behind = append(behind, w.Interface)
		}
	}
	for _, l := range s.mappables() {
		w, asked := wantOf(l.ep), false
		for _, i := range behind {
			one := MappedPort{Internal: endpointFor(w.Protocol, netip.AddrPortFrom(i.Prefix.Addr(), w.Port)), Gateway: i.Gateway}
			if w.Port == 0 || !i.Serves(w) {
				continue
			}
			asked = true
			at := slices.IndexFunc(all, func(m portmap.Mapping) bool { return internalOf(m) == one.Internal })
			if at < 0 {
				one.Err = mapError(one.Internal, whyNot(report, i, w))
			} else {
				m := all[at]
				one.External, one.Means, one.Gateway, one.Expires, one.Double = externalOf(m), Means(m.Means), m.Gateway, m.Expires, m.Double
			}
			ports = append(ports, one)
		}
		if w.Port != 0 && !asked {
			ports = append(ports, MappedPort{Internal: l.ep, Err: mapError(l.ep, cmp.Or(report.Err, portmap.ErrNoGateway))})
		}
	}
	return ports
}

// whyNot says why the router behind an interface does not pass a port on.
func whyNot(report portmap.Report, i portmap.Interface, w portmap.Want) error {
	for _, way := range report.Ways { // by another way the same router may give another reason
		if way.Interface == i && errors.Is(way.Err, portmap.ErrNoExternal) {
			return way.Err
		}
	}
	for _, f := range report.Failures {
		if f.Interface == i && f.Want.Protocol == w.Protocol && f.Want.Port == w.Port {
			return f.Err
		}
	}
	var why error
	for _, way := range report.Ways {
		switch {
		case way.Interface != i:
		case way.Up || way.Err == nil:
			return errAsked
		case why == nil || errors.Is(why, portmap.ErrSilent): // who says something tells more
			why = way.Err
		}
	}
	return why
}
