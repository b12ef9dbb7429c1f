package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
)

const (
	// maxLocations bounds the descriptions that one search looks at.
	maxLocations = 4
	// portTries is how often another external port is tried after a conflict.
	portTries = 3
)

// searchTimes is when searches are sent; answers may take a second, see ssdpMX.
var searchTimes = []time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond, 2 * time.Second}

// wan is what WANIPConnection:1, :2 and WANPPPConnection:1 have in common.
type wan interface {
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, internal uint16,
		client string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
	GetSpecificPortMappingEntryCtx(ctx context.Context, remote string, external uint16, protocol string) (internal uint16,
		client string, enabled bool, description string, lease uint32, err error)
}

// service is what a router offers that we use.
type service struct {
	web     *web
	control netip.AddrPort
	wan     wan
	any     *internetgateway2.WANIPConnection2 // nil: IGD 1
	wall    *internetgateway2.WANIPv6FirewallControl1
}

// upnpAgent asks one router by UPnP: for ports, or of an IPv6 address for pinholes
// in its firewall.
type upnpAgent struct {
	clock       // of which only the loss is used
	iface       Interface
	description string

	service   *service // set by hello, which runs alone
	external  netip.Addr
	permanent bool // the router knows permanent leases only
}

func (a *upnpAgent) means() Means {
	switch {
	case a.iface.Prefix.Addr().Is6():
		return Pinhole
	case a.service != nil && a.service.any != nil:
		return IGD2
	}
	return IGD1
}

// believed reports whether an SSDP message from an address is the router's.
func believed(i Interface, from netip.Addr) bool {
	from = from.Unmap()
	if i.Gateway.IsValid() && i.Gateway.Is4() || from.IsLinkLocalUnicast() {
		return from == i.Gateway
	}
	// A router's global IPv6 address is not known beforehand, and at times its
	// IPv4 address is not.
	return from != i.Prefix.Addr() && i.Prefix.Masked().Contains(from.WithZone(""))
}

// hello searches until one description leads to a service that works.
func (a *upnpAgent) hello(ctx context.Context) error {
	local := a.iface.Prefix.Addr()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return silent(ctx, err)
	}
	defer func() { _ = conn.Close() }()
	begin, buf := time.Now(), make([]byte, maxSSDP+1)
	var seen []string
	result := ErrSilent
	for i := range searchTimes[1:] {
		targets := searchTargets
		if i == 0 {
			targets = targets[:1]
		}
		if err := a.search(conn, targets); err != nil {
			return silent(ctx, err)
		}
		for next := begin.Add(searchTimes[i+1]); time.Now().Before(next); {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := conn.SetReadDeadline(earlier(next, time.Now().Add(patience))); err != nil {
				return silent(ctx, err)
			}
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if timeout(err) {
				continue
			}
			if err != nil {
				return silent(ctx, err)
			}
			m, err := parseSSDP(buf[:n])
			if err != nil || m.Notify || !believed(a.iface, from.Addr()) || slices.Contains(seen, m.Location) || len(seen) == maxLocations {
				continue
			}
			seen = append(seen, m.Location)
			if result = a.try(ctx, m.Location, from.Addr().Unmap()); result == nil {
				return nil
			}
		}
	}
	return result
}

// search sends searches, to everybody and to the router alone: the one or the
// other is dropped by some switches and by some routers. An error means that
// nothing could be sent.
func (a *upnpAgent) search(conn *net.UDPConn, targets []string) error {
	var last error
	sent := false
	for _, host := range a.groups() {
		for _, target := range targets {
			_, err := conn.WriteToUDPAddrPort(appendSearch(nil, host, target), host)
			sent, last = sent || err == nil, err
		}
	}
	if sent {
		return nil
	}
	return last
}

func (a *upnpAgent) groups() []netip.AddrPort {
	out := []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort)}
	if a.iface.Prefix.Addr().Is6() {
		// ff02::c, and ff05::c for routers that listen to the site only.
		group := netip.MustParseAddr("ff02::c").WithZone(a.iface.Name)
		site := netip.MustParseAddr("ff05::c").WithZone(a.iface.Name)
		out = []netip.AddrPort{netip.AddrPortFrom(group, ssdpPort), netip.AddrPortFrom(site, ssdpPort)}
	}
	if a.iface.Gateway.IsValid() {
		out = append(out, netip.AddrPortFrom(a.iface.Gateway, ssdpPort))
	}
	return out
}

// try looks at one description and asks its services for the external address.
func (a *upnpAgent) try(ctx context.Context, location string, from netip.Addr) error {
	u, where, err := gatewayURL(location, from)
	if err != nil {
		return fmt.Errorf("LOCATION: %w", ErrUnsupported)
	}
	if where.Addr() != from && where.Addr() != a.iface.Gateway {
		return fmt.Errorf("LOCATION: %w", errElsewhere)
	}
	w := newWeb(a.iface.Prefix.Addr(), where.Addr())
	root, err := w.get(ctx, u)
	if err != nil {
		return err
	}
	result := fmt.Errorf("the description has no service that we know: %w", ErrUnsupported)
	for _, s := range a.services(root, u, w) {
		if result = a.greet(ctx, s); result == nil {
			return nil
		}
	}
	return result
}

// services returns what a description offers, best first. Services elsewhere than
// the description are left out.
func (a *upnpAgent) services(root *goupnp.RootDevice, location *url.URL, w *web) (out []*service) {
	for _, kind := range []string{
		internetgateway2.URN_WANIPConnection_2, internetgateway2.URN_WANIPConnection_1,
		internetgateway2.URN_WANPPPConnection_1, internetgateway2.URN_WANIPv6FirewallControl_1,
	} {
		if (kind == internetgateway2.URN_WANIPv6FirewallControl_1) != a.iface.Prefix.Addr().Is6() {
			continue
		}
		clients, err := goupnp.NewServiceClientsFromRootDevice(root, location, kind)
		if err != nil {
			continue
		}
		for _, c := range clients[:min(len(clients), maxLocations)] {
			_, control, err := gatewayURL(c.SOAPClient.EndpointURL.String(), w.host)
			if err != nil || !c.Service.ControlURL.Ok || control.Addr() != w.host {
				continue
			}
			c.SOAPClient.HTTPClient = w.client()
			s := &service{web: w, control: control}
			switch kind {
			case internetgateway2.URN_WANIPConnection_2:
				s.any = &internetgateway2.WANIPConnection2{ServiceClient: c}
				s.wan = s.any
			case internetgateway2.URN_WANIPConnection_1:
				s.wan = &internetgateway2.WANIPConnection1{ServiceClient: c}
			case internetgateway2.URN_WANPPPConnection_1:
				s.wan = &internetgateway2.WANPPPConnection1{ServiceClient: c}
			default:
				s.wall = &internetgateway2.WANIPv6FirewallControl1{ServiceClient: c}
			}
			out = append(out, s)
		}
	}
	return out
}

// greet takes a service that works.
func (a *upnpAgent) greet(ctx context.Context, s *service) error {
	if s.wall != nil {
		_, allowed, err := s.wall.GetFirewallStatusCtx(ctx)
		if err != nil {
			return s.web.meaning(ctx, err)
		}
		if !allowed {
			return fmt.Errorf("no pinholes: %w", ErrRefused)
		}
	} else {
		external, err := s.address(ctx)
		if err != nil {
			return err
		}
		a.external = external
	}
	a.service = s
	return nil
}

// address asks for the external address.
func (s *service) address(ctx context.Context) (netip.Addr, error) {
	text, err := s.wan.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, s.web.meaning(ctx, err)
	}
	external, err := netip.ParseAddr(text)
	if err != nil || !external.Is4() || !usableExternal(netip.AddrPortFrom(external, 1)) {
		return netip.Addr{}, ErrNoExternal
	}
	return external, nil
}

// check connects to where the service listens, which costs a router next to
// nothing. A deep one asks for one mapping and for the external address.
func (a *upnpAgent) check(ctx context.Context, l *lease, deep bool) error {
	s := a.service
	if !deep {
		ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
		defer cancel()
		conn, err := s.web.dial(ctx, "tcp", s.control.String())
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSilent, err)
		}
		return conn.Close()
	}
	if s.wall != nil {
		err := s.web.meaning(ctx, s.wall.UpdatePinholeCtx(ctx, l.pinhole, l.life))
		return a.learn(err, upnpNoPinhole)
	}
	external, err := s.address(ctx)
	if err != nil && !errors.Is(err, ErrNoExternal) {
		return err
	}
	if err == nil && external != a.external {
		a.external = external
		a.lose()
	}
	internal, client, _, _, _, err := s.wan.GetSpecificPortMappingEntryCtx(ctx, "", l.mapping.External.Port(), l.want.Protocol.upnp())
	if err == nil && (internal != l.want.Port || client != l.local.String()) {
		a.lose()
	}
	return a.learn(s.web.meaning(ctx, err), upnpNoEntry)
}

// learn notes a loss. Only silence is an error of a check: what a router cannot
// tell is no reason to leave it.
func (a *upnpAgent) learn(err error, missing upnpError) error {
	if errors.Is(err, missing) {
		a.lose()
	}
	if gone(err) || errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (a *upnpAgent) add(ctx context.Context, l *lease) (grant, error) {
	s := a.service
	if s.wall != nil {
		return a.addPinhole(ctx, l)
	}
	external, err := s.address(ctx)
	if err != nil {
		return grant{}, err
	}
	a.external = external
	port := l.want.External
	if port == 0 {
		port = l.mapping.External.Port()
	}
	if port == 0 {
		port = l.want.Port
	}
	if s.any != nil && l.want.External == 0 && !l.held() {
		got, lifetime, err := a.addAny(ctx, l, port)
		if err == nil {
			return grant{external: netip.AddrPortFrom(external, got), lifetime: lifetime}, nil
		}
		if gone(err) || errors.Is(err, ErrRefused) {
			return grant{}, err
		}
	}
	for try := 0; ; try++ {
		lifetime, err := a.addPort(ctx, l, port)
		if err == nil {
			return grant{external: netip.AddrPortFrom(external, port), lifetime: lifetime}, nil
		}
		if !errors.Is(err, ErrConflict) || l.want.External != 0 || try == portTries {
			return grant{}, err
		}
		if port = randomPort(); errors.Is(err, upnpSamePorts) {
			port = l.want.Port
		}
	}
}

// addAny lets the router choose the port when the wanted one is taken:
// WANIPConnection:2, section 2.5.18.
func (a *upnpAgent) addAny(ctx context.Context, l *lease, port uint16) (uint16, time.Duration, error) {
	s := a.service
	return lasting(a, l.life, func(life uint32) (uint16, error) {
		got, err := s.any.AddAnyPortMappingCtx(ctx, "", port, l.want.Protocol.upnp(), l.want.Port, l.local.String(), true, a.description, life)
		if err == nil && got == 0 {
			return 0, ErrUnsupported
		}
		return got, s.web.meaning(ctx, err)
	})
}

// addPort maps one port, unless it is another's: some routers would overwrite
// the mapping.
func (a *upnpAgent) addPort(ctx context.Context, l *lease, port uint16) (time.Duration, error) {
	s, protocol := a.service, l.want.Protocol.upnp()
	internal, client, _, _, _, err := s.wan.GetSpecificPortMappingEntryCtx(ctx, "", port, protocol)
	if err == nil && (client != l.local.String() || internal != l.want.Port) {
		return 0, upnpConflict
	}
	if err = s.web.meaning(ctx, err); gone(err) {
		return 0, err
	}
	_, lifetime, err := lasting(a, l.life, func(life uint32) (uint16, error) {
		err := s.wan.AddPortMappingCtx(ctx, "", port, protocol, l.want.Port, l.local.String(), true, a.description, life)
		return port, s.web.meaning(ctx, err)
	})
	return lifetime, err
}

// lasting calls add with a lease, and for routers that know permanent ones only
// without. Some of those answer 402 instead of 725.
func lasting(a *upnpAgent, life uint32, add func(life uint32) (uint16, error)) (uint16, time.Duration, error) {
	if !a.permanent {
		port, err := add(life)
		if !errors.Is(err, upnpPermanentOnly) && !errors.Is(err, upnpInvalidArgs) {
			return port, seconds(life), err
		}
	}
	port, err := add(0)
	a.permanent = a.permanent || err == nil
	return port, 0, err
}

func (a *upnpAgent) addPinhole(ctx context.Context, l *lease) (grant, error) {
	s := a.service
	if l.want.External != 0 && l.want.External != l.want.Port {
		return grant{}, fmt.Errorf("a pinhole does not change the port: %w", ErrConflict)
	}
	g := grant{external: netip.AddrPortFrom(l.local, l.want.Port), lifetime: seconds(l.life), pinhole: l.pinhole}
	if l.held() {
		err := s.web.meaning(ctx, s.wall.UpdatePinholeCtx(ctx, l.pinhole, l.life))
		if err == nil || !errors.Is(err, upnpNoPinhole) {
			return g, err
		}
	}
	id, err := s.wall.AddPinholeCtx(ctx, "", 0, l.local.String(), l.want.Port, uint16(l.want.Protocol.iana()), l.life)
	g.pinhole = id
	return g, s.web.meaning(ctx, err)
}

func (a *upnpAgent) remove(ctx context.Context, l *lease) error {
	s, port, protocol := a.service, l.mapping.External.Port(), l.want.Protocol.upnp()
	if l.unsure && s.wan != nil {
		internal, client, _, _, _, err := s.wan.GetSpecificPortMappingEntryCtx(ctx, "", port, protocol)
		if err != nil || internal != l.want.Port || client != l.local.String() {
			return s.web.meaning(ctx, err) // some routers would delete another's
		}
	}
	var err error
	switch {
	case s.wall == nil:
		err = s.wan.DeletePortMappingCtx(ctx, "", port, protocol)
	case !l.unsure: // the id of the pinhole is known
		err = s.wall.DeletePinholeCtx(ctx, l.pinhole)
	}
	err = s.web.meaning(ctx, err)
	if errors.Is(err, upnpNoEntry) || errors.Is(err, upnpNoPinhole) {
		return nil
	}
	return err
}
