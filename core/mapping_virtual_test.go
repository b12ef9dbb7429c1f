package crust_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/nat/portmap"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// double is a mapper whose router does what the test says.
type double struct {
	cfg    portmap.Config
	iface  portmap.Interface
	router *simnet.Router // nil: there is none
	gives  bool           // whatever is wanted, under its number

	mu        sync.Mutex
	wants     []portmap.Want
	mappings  []portmap.Mapping
	report    portmap.Report
	refreshed int
	closed    bool
}

// mapping returns cfg for a service behind a router, and the mapper that it will
// have. Nothing else may be made in the test that could ask a real one.
func mapping(t *testing.T, cfg crust.Config, router *simnet.Router, gives bool) (crust.Config, *double) {
	t.Setenv("CRUST_PORTMAP", "") // the double is not off
	d := newDouble(router, gives)
	return with(cfg, d), d
}

// giving returns cfg for a service behind a router that gives what is wanted. The
// environment must not turn mapping off.
func giving(cfg crust.Config, router *simnet.Router) crust.Config {
	return with(cfg, newDouble(router, true))
}

func with(cfg crust.Config, d *double) crust.Config {
	return crust.Mapping(cfg, func(c portmap.Config) crust.Mapper {
		d.cfg = c
		return d
	})
}

func newDouble(router *simnet.Router, gives bool) *double {
	d := &double{router: router, gives: gives, iface: portmap.Interface{
		Name: "eth0", Index: 1, Prefix: netip.MustParsePrefix("192.168.1.2/24"), Gateway: netip.MustParseAddr("192.168.1.1"),
	}}
	d.report.Ways = []portmap.Way{{Interface: d.iface, Means: portmap.PCP, Up: gives}}
	return d
}

func (d *double) Want(wants ...portmap.Want) {
	d.mu.Lock()
	d.wants = slices.Clone(wants)
	d.mu.Unlock()
	if d.gives {
		d.cfg.Go(d.give) // which may come after that of a later Want
	}
}

// give has the router pass on what is wanted by now.
func (d *double) give() {
	d.mu.Lock()
	var list []portmap.Mapping
	for _, w := range d.wants {
		if d.iface.Serves(w) {
			list = append(list, d.map4(w, max(w.Port, w.External)))
		}
	}
	d.place(list)
	d.mu.Unlock()
	d.cfg.Changed()
}

// map4 returns what the router would give for a want.
func (d *double) map4(w portmap.Want, port uint16) portmap.Mapping {
	return portmap.Mapping{
		Protocol: w.Protocol, Internal: netip.AddrPortFrom(d.iface.Prefix.Addr(), w.Port), External: netip.AddrPortFrom(d.router.External(), port),
		Means: portmap.PCP, Gateway: d.iface.Gateway, Expires: time.Now().Add(time.Hour),
	}
}

// set has the router pass on just that.
func (d *double) set(list ...portmap.Mapping) {
	d.mu.Lock()
	d.place(list)
	d.mu.Unlock()
	d.cfg.Changed()
}

// place has the router pass on just that. mu is held.
func (d *double) place(list []portmap.Mapping) {
	for _, m := range d.mappings {
		d.router.Unforward(natOf(m.Protocol), m.External.Port())
	}
	for _, m := range list {
		d.router.Forward(natOf(m.Protocol), m.External.Port(), m.Internal)
	}
	d.mappings = list
}

func natOf(p portmap.Protocol) natsim.Protocol {
	if p == portmap.UDP {
		return natsim.UDP
	}
	return natsim.TCP
}

func (d *double) Refresh() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refreshed++
}

func (d *double) Mappings() []portmap.Mapping {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.mappings)
}

func (d *double) Report() portmap.Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.report
}

func (d *double) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

// wanted says what is wanted, sorted, as "tcp 1000 any".
func (d *double) wanted() []string {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []string{}
	for _, w := range d.wants {
		at := []string{portmap.AnyFamily: "any", portmap.IPv4: "4", portmap.IPv6: "6"}[w.Family]
		if w.Addr.IsValid() {
			at = w.Addr.String()
		}
		text := fmt.Sprintf("%v %d %s", w.Protocol, w.Port, at)
		if w.External != 0 {
			text += fmt.Sprintf(" as %d", w.External)
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

func wantWants(t *testing.T, d *double, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := d.wanted(); !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("wanted %q, want %q", got, want)
	}
}

func listen(t *testing.T, n *node, text string) {
	t.Helper()
	if _, err := n.Listen(endpointAt(text)); err != nil {
		t.Fatal(err)
	}
}

// TestMappingWants: what is wanted follows the listeners; those for this machine
// alone want nothing, and without any that does nobody is asked.
func TestMappingWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := simnet.New(1).Host("192.168.1.2", "2001:db8::2")
		cfg, d := mapping(t, over(crust.Config{}, "127.0.0.1", "tcp", "utp"), nil, false)
		s := newNode(t, crust.On(host, cfg))
		defer s.Close()
		if synctest.Wait(); d.cfg.Go != nil {
			t.Fatal("a mapper was made for listeners on loopback")
		}
		if len(s.NAT().Mapped) != 0 {
			t.Errorf("mapped %+v", s.NAT().Mapped)
		}
		listen(t, s, "tcp://0.0.0.0:1000")
		wantWants(t, d, "tcp 1000 4")
		listen(t, s, "utp://[::]:1000")
		listen(t, s, "tcp://192.168.1.2:1001")
		listen(t, s, "tcp://[2001:db8::2]:1002")
		listen(t, s, "tcp://[::1]:1003")
		wantWants(t, d, "tcp 1000 4", "udp 1000 any", "tcp 1001 192.168.1.2", "tcp 1002 2001:db8::2")
		for _, text := range []string{"tcp://0.0.0.0:1000", "utp://[::]:1000"} {
			if err := s.StopListening(endpointAt(text)); err != nil {
				t.Fatal(err)
			}
		}
		wantWants(t, d, "tcp 1001 192.168.1.2", "tcp 1002 2001:db8::2")
		d.mu.Lock()
		before := d.refreshed
		d.mu.Unlock()
		s.NetworkChanged()
		synctest.Wait()
		if d.refreshed == before {
			t.Error("the network has changed and nobody looked")
		}
		s.Close()
		if !d.closed {
			t.Error("nothing was given back")
		}
	})
}

// TestMappingOff: nobody is asked over a network that is not the kernel's, nor
// when that is turned off.
func TestMappingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := simnet.New(1).Host("192.168.1.2")
		cfg, d := mapping(t, over(crust.Config{PortMap: crust.PortMapOff}, "0.0.0.0", "tcp"), nil, false)
		s := newNode(t, crust.On(host, cfg))
		defer s.Close()
		if synctest.Wait(); d.cfg.Go != nil || s.NAT().Mapped != nil {
			t.Error("a mapper was made although it is off")
		}
	})
}

// TestMappingExternalPort: the forced port is for the first listener of either
// protocol, and only where routers choose ports.
func TestMappingExternalPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := simnet.New(1).Host("192.168.1.2", "2001:db8::2")
		cfg, d := mapping(t, crust.Config{ExternalPort: 5483, Listen: []crust.Endpoint{
			endpointAt("tcp://127.0.0.1:1"), endpointAt("tcp://[2001:db8::2]:2"), endpointAt("tcp://[::]:9"), endpointAt("tcp://0.0.0.0:4"), endpointAt("utp://0.0.0.0:5"),
		}}, nil, false)
		s := newNode(t, crust.On(host, cfg))
		defer s.Close()
		wantWants(t, d, "tcp 2 2001:db8::2", "tcp 9 4 as 5483", "tcp 9 6", "tcp 4 4", "udp 5 4 as 5483")
		if err := s.StopListening(endpointAt("tcp://[::]:9")); err != nil {
			t.Fatal(err)
		}
		wantWants(t, d, "tcp 2 2001:db8::2", "tcp 4 4 as 5483", "udp 5 4 as 5483")
	})
}

// TestMappingRotation: a port is wanted as long as its listener accepts, and one of
// UDP as long as it serves a session; the successor has the forced port.
func TestMappingRotation(t *testing.T) {
	for _, external := range []uint16{0, 5483} {
		t.Run(fmt.Sprint("external port ", external), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				cfg, d := mapping(t, over(crust.Config{PortRotation: 10 * time.Second, ExternalPort: external}, "0.0.0.0", "tcp", "utp"), nil, false)
				a := newNode(t, crust.On(internet.Host("10.0.0.1"), cfg))
				defer a.Close()
				b := newNode(t, crust.On(internet.Host("10.0.0.2"), crust.Config{NoListen: true}))
				defer b.Close()
				if err := b.ConnectEndpoint(contactOf(t, a, crust.UTP, "10.0.0.1"), 1); err != nil {
					t.Fatal(err)
				}
				b.final(t, 1)
				as := ""
				if external != 0 {
					as = fmt.Sprint(" as ", external)
				}
				name := map[crust.Transport]string{crust.TCP: "tcp", crust.UTP: "udp"}
				first := a.Listeners()
				for before := first; len(before) < 10; {
					time.Sleep(12 * time.Second)
					var want []string
					now := a.Listeners()
					if len(now) != 4 {
						t.Fatalf("listeners %v", now)
					}
					for _, ep := range now {
						text := fmt.Sprintf("%s %d 4", name[ep.Transport], ep.Addr.Port())
						if !slices.Contains(before, ep) {
							text += as
						}
						want = append(want, text)
					}
					before = append(before, now...)
					for _, ep := range first { // b is there
						if ep.Transport == crust.UTP && !slices.Contains(now, ep) {
							want = append(want, fmt.Sprintf("udp %d 4", ep.Addr.Port()))
						}
					}
					wantWants(t, d, want...)
				}
				if err := b.Disconnect(a.ID()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(25 * time.Second)
				if got := len(d.wanted()); got != 4 {
					t.Errorf("%q are wanted of two listeners and their predecessors", d.wanted())
				}
			})
		})
	}
}

// past returns the next event of a type, after any others.
func (n *node) past(t *testing.T, want crust.EventType) crust.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for e := range n.Events(ctx) {
		if e.Type == want {
			return e
		}
	}
	t.Fatalf("no event %v came", want)
	return crust.Event{}
}

// mappedTown is a peer behind a NAT with a mapper, and one behind another NAT or
// none, 20 ms from a public peer that relays as far as it is told, and to which both
// are connected.
func mappedTown(t *testing.T, natB string, gives bool, relay crust.RelayMode, f func(t *testing.T, a, b *node, d *double)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		public := newNode(t, crust.On(internet.Host("198.51.100.1"), over(crust.Config{Relay: relay}, "0.0.0.0", "tcp")))
		defer public.Close()
		router := internet.NAT(natsim.MustParse("symmetric"), "203.0.113.1")
		cfg, d := mapping(t, over(crust.Config{}, "0.0.0.0", "tcp", "utp"), router, gives)
		a := newNode(t, crust.On(router.Host("192.168.1.2"), cfg))
		defer a.Close()
		host := internet.Host("192.0.2.1")
		if natB != "" {
			host = internet.NAT(natsim.MustParse(natB), "192.0.2.2").Host("192.168.1.2")
		}
		b := newNode(t, crust.On(host, over(crust.Config{ConnectTimeout: 30 * time.Second}, "0.0.0.0", "tcp", "utp")))
		defer b.Close()
		for _, n := range []*node{a, b} {
			if err := n.ConnectEndpoint(contactOf(t, public, crust.TCP, "198.51.100.1"), 1); err != nil {
				t.Fatal(err)
			}
			if gives && n == a {
				for range 2 {
					e := a.past(t, crust.EventPortMapped)
					if in, want := e.Internal(), e.Endpoint(); in.Addr.Addr().String() != "192.168.1.2" || want.Addr.Addr().String() != "203.0.113.1" ||
						in.Transport != want.Transport || e.Means() != crust.MeansPCP || e.Lease() < 59*time.Minute || e.Err() != nil {
						t.Errorf("mapped %v to %v by %v for %v, %v", want, in, e.Means(), e.Lease(), e.Err())
					}
				}
			}
			n.final(t, 1)
		}
		time.Sleep(3 * time.Second) // the echoes
		f(t, a, b, d)
	})
}

// TestMappedPeerIsDialled: a mapped port is in the connection info, where it is
// marked, and peers that know it dial there: whatever NAT they are behind.
func TestMappedPeerIsDialled(t *testing.T) {
	for _, natB := range []string{"", "home", "symmetric", "symmetric,udp=off"} {
		t.Run("by a peer behind "+natB, func(t *testing.T) {
			mappedTown(t, natB, true, crust.RelayOff, func(t *testing.T, a, b *node, _ *double) {
				if err := a.PrepareConnectionInfo(5); err != nil {
					t.Fatal(err)
				}
				info := a.final(t, 5).Data
				_, eps, err := crust.ParseConnectionInfo(info)
				if err != nil || len(eps) != 6 || eps[0].Addr.Addr().String() != "203.0.113.1" || eps[1].Addr.Addr().String() != "203.0.113.1" {
					t.Fatalf("the info names %v, %v", eps, err)
				}
				began := time.Now()
				if err := b.Connect(info, 6); err != nil {
					t.Fatal(err)
				}
				e, took := b.final(t, 6), time.Since(began)
				if e.Type != crust.EventConnected || e.How() != crust.Mapped || e.Endpoint() != eps[0] || e.Endpoint().Transport != crust.TCP || took > 200*time.Millisecond {
					t.Errorf("%v %v by %v at %v after %v", e.Type, e.Err(), e.How(), e.Endpoint(), took)
				}
				if e := a.past(t, crust.EventConnected); e.How() != crust.Accepted {
					t.Errorf("the mapped side says %v", e.How())
				}
				if p, _ := b.Peer(a.ID()); p.How != crust.Mapped {
					t.Errorf("the list of peers says %v", p.How)
				}
			})
		})
	}
}

// TestMappedPeerIsMet: by letters it takes no punching either.
func TestMappedPeerIsMet(t *testing.T) {
	for _, turned := range []bool{false, true} {
		for _, natB := range []string{"home", "symmetric"} {
			t.Run(fmt.Sprint(natB, ", by the mapped side ", turned), func(t *testing.T) {
				mappedTown(t, natB, true, crust.RelaySignal, func(t *testing.T, a, b *node, _ *double) {
					from, to := b, a
					if turned {
						from, to = a, b
					}
					began := time.Now()
					if err := from.ConnectPeer(to.ID(), 6); err != nil {
						t.Fatal(err)
					}
					e, took := from.final(t, 6), time.Since(began)
					if e.Type != crust.EventConnected || took > 350*time.Millisecond {
						t.Fatalf("%v %v after %v", e.Type, e.Err(), took)
					}
					time.Sleep(5 * time.Second)
					for n, want := range map[*node][]crust.How{b: {crust.Mapped}, a: {crust.Accepted, crust.Punched}} {
						p, ok := n.Peer(map[*node]*node{a: b, b: a}[n].ID())
						if !ok || !slices.Contains(want, p.How) || p.Endpoint.Transport != crust.TCP {
							t.Errorf("%v by %v at %v, want %v", ok, p.How, p.Endpoint, want)
						}
					}
				})
			})
		}
	}
}

// TestMappingAppears: a session over a relay, and one over uTP, go over to what a
// new mapping makes possible, at once.
func TestMappingAppears(t *testing.T) {
	ofAll := func(d *double, p portmap.Protocol) (list []portmap.Mapping) {
		for _, w := range d.wants {
			if w.Protocol == p || p == 0 {
				list = append(list, d.map4(w, w.Port))
			}
		}
		return list
	}
	t.Run("relayed", func(t *testing.T) {
		mappedTown(t, "symmetric", false, crust.RelayData, func(t *testing.T, a, b *node, d *double) {
			if err := b.ConnectPeer(a.ID(), 6); err != nil {
				t.Fatal(err)
			}
			if e := b.final(t, 6); e.Type != crust.EventConnected || e.How() != crust.Relayed {
				t.Fatalf("%v %v by %v", e.Type, e.Err(), e.How())
			}
			time.Sleep(time.Minute)
			began := time.Now()
			d.set(ofAll(d, 0)...)
			e := b.past(t, crust.EventResumed)
			if took := time.Since(began); took > time.Second {
				t.Errorf("goes on by %v at %v after %v", e.How(), e.Endpoint(), took)
			}
			for e.Endpoint().Transport != crust.TCP { // what was punched meanwhile may have come first
				e = b.past(t, crust.EventResumed)
			}
			if took := time.Since(began); e.How() != crust.Mapped || took > 3*time.Second {
				t.Errorf("goes on by %v at %v after %v", e.How(), e.Endpoint(), took)
			}
		})
	})
	t.Run("uTP", func(t *testing.T) {
		mappedTown(t, "home", false, crust.RelayOff, func(t *testing.T, a, b *node, d *double) {
			d.set(ofAll(d, portmap.UDP)...)
			if err := a.PrepareConnectionInfo(5); err != nil {
				t.Fatal(err)
			}
			if err := b.Connect(a.final(t, 5).Data, 6); err != nil {
				t.Fatal(err)
			}
			if e := b.final(t, 6); e.Type != crust.EventConnected || e.How() != crust.Mapped || e.Endpoint().Transport != crust.UTP {
				t.Fatalf("%v %v by %v", e.Type, e.Err(), e.How())
			}
			time.Sleep(time.Minute)
			began := time.Now()
			d.set(ofAll(d, 0)...)
			e := b.past(t, crust.EventResumed)
			if took := time.Since(began); e.How() != crust.Mapped || e.Endpoint().Transport != crust.TCP || took > 500*time.Millisecond {
				t.Errorf("goes on by %v at %v after %v", e.How(), e.Endpoint(), took)
			}
		})
	})
}

// TestMappingReport: what is said of ports that are mapped, that are of no use, that
// are gone, and that routers do not give.
func TestMappingReport(t *testing.T) {
	mappedTown(t, "", true, crust.RelayOff, func(t *testing.T, a, b *node, d *double) {
		report := a.NAT().Mapped
		if len(report) != 2 {
			t.Fatalf("%+v", report)
		}
		for _, m := range report {
			if m.Err != nil || m.Double || m.Means != crust.MeansPCP || m.External.Addr.Addr().String() != "203.0.113.1" || m.Internal.Addr.Addr().String() != "192.168.1.2" ||
				m.Gateway.String() != "192.168.1.1" || time.Until(m.Expires) < 58*time.Minute {
				t.Errorf("%+v", m)
			}
		}
		if nat := a.NAT(); !slices.Contains(nat.TCP.External, report[0].External.Addr) || nat.TCP.Double {
			t.Errorf("TCP from outside: %+v", nat.TCP)
		}
		// A router that is behind another one.
		list := d.Mappings()
		for i := range list {
			list[i].External = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.7"), list[i].External.Port())
			list[i].Double = true
		}
		d.set(list...)
		for range 2 {
			if e := a.past(t, crust.EventPortUnmapped); e.Code() != crust.CodeReplaced || e.Endpoint().Addr.Addr().String() != "203.0.113.1" || e.Internal().Addr.Addr().String() != "192.168.1.2" {
				t.Errorf("unmapped %v %v", e.Endpoint(), e.Err())
			}
		}
		for range 2 {
			if e := a.past(t, crust.EventPortMapped); e.Code() != crust.CodeUnreachable || e.Endpoint().Addr.Addr().String() != "10.0.0.7" || !strings.Contains(e.Err().Error(), "another NAT") {
				t.Errorf("mapped %v %v", e.Endpoint(), e.Err())
			}
		}
		if err := a.PrepareConnectionInfo(5); err != nil {
			t.Fatal(err)
		}
		if _, eps, err := crust.ParseConnectionInfo(a.final(t, 5).Data); err != nil || len(eps) != 4 || eps[0].Addr.Addr().String() != "192.168.1.2" {
			t.Errorf("the info names %v, %v", eps, err)
		}
		if nat := a.NAT(); !nat.Mapped[0].Double || !nat.TCP.Double || !nat.UDP.Double {
			t.Errorf("%+v", nat)
		}
		// A router that says no, and one that is gone.
		want := d.wants[0]
		for _, c := range []struct {
			report portmap.Report
			code   crust.Code
			says   string
		}{
			{portmap.Report{Ways: d.report.Ways, Failures: []portmap.Failure{{Want: want, Interface: d.iface, Err: fmt.Errorf("718: %w", portmap.ErrConflict)}}}, crust.CodeAddressInUse, "718"},
			{portmap.Report{Ways: d.report.Ways}, crust.CodeTimeout, "not renewed"},
			{portmap.Report{Err: portmap.ErrNoGateway}, crust.CodeAddress, "no router"},
		} {
			d.set(list...)
			for a.EventsPending() {
				a.past(t, crust.EventPortMapped)
				synctest.Wait()
			}
			d.mu.Lock()
			d.report = c.report
			d.mu.Unlock()
			d.set(list[1:]...)
			e := a.past(t, crust.EventPortUnmapped)
			if e.Code() != c.code || !strings.Contains(e.Err().Error(), c.says) {
				t.Errorf("unmapped %v %v, want %v", e.Endpoint(), e.Err(), c.code)
			}
		}
		d.mu.Lock()
		d.report = portmap.Report{Ways: []portmap.Way{
			{Interface: d.iface, Means: portmap.PCP, Err: portmap.ErrSilent}, {Interface: d.iface, Means: portmap.IGD1, Err: portmap.ErrRefused},
		}}
		d.mu.Unlock()
		d.set()
		if got := a.NAT().Mapped; len(got) != 2 || crust.CodeOf(got[0].Err) != crust.CodeNotAllowed || !errors.Is(got[0].Err, portmap.ErrRefused) ||
			got[0].Internal.Addr.Addr().String() != "192.168.1.2" || !got[0].External.IsZero() {
			t.Errorf("%+v", got)
		}
		d.mu.Lock()
		d.report = portmap.Report{Err: portmap.ErrNoGateway}
		d.mu.Unlock()
		if got := a.NAT().Mapped; len(got) != 2 || crust.CodeOf(got[0].Err) != crust.CodeUnreachable || got[0].Internal.Addr.Addr().String() != "0.0.0.0" {
			t.Errorf("%+v", got)
		}
	})
}
