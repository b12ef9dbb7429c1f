package crust_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// beaconing returns cfg for a service of a simulated host, whose beacon the environment
// does not turn off.
func beaconing(t *testing.T, h *simnet.Host, cfg crust.Config, listen ...string) crust.Config {
	for _, text := range listen {
		cfg.Listen = append(cfg.Listen, endpointAt(text))
	}
	return crust.On(h, cfg)
}

// discovered takes the next event, which must tell of a peer at an endpoint of a host.
func (n *node) discovered(t *testing.T, of *node, host string) crust.Event {
	t.Helper()
	e := n.next(crust.EventDiscovered)
	if e.Peer != of.ID() || e.By() != crust.ByBeacon || e.Endpoint().Addr.Addr() != netip.MustParseAddr(host) {
		t.Fatalf("discovered %s at %s by %s, want %s at %s", e.Peer.Short(), e.Endpoint(), e.By(), of.ID().Short(), host)
	}
	return e
}

// TestBeacon: two on one network discover each other, can connect, and are forgotten.
func TestBeacon(t *testing.T) {
	t.Setenv("CRUST_BEACON", "")
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
		ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
		a := newNode(t, beaconing(t, ha, crust.Config{Role: crust.Client, Gossip: crust.GossipOff}, "0.0.0.0:0"))
		time.Sleep(time.Minute)
		began := time.Now()
		b := newNode(t, beaconing(t, hb, crust.Config{Gossip: crust.GossipOff}, "0.0.0.0:0", "utp://0.0.0.0:0"))
		if len(b.PeersOnLAN()) != 0 {
			t.Error("somebody was heard before anything was said")
		}
		e := b.discovered(t, a, "10.0.0.1")
		if e.Role() != crust.Client || time.Since(began) > 250*time.Millisecond {
			t.Errorf("role %v after %v", e.Role(), time.Since(began))
		}
		if e := a.discovered(t, b, "10.0.0.2"); e.Role() != crust.Node || e.Endpoint().Transport != crust.TCP {
			t.Errorf("%v at %v", e.Role(), e.Endpoint())
		}
		list := a.PeersOnLAN()
		if len(list) != 1 || list[0].Peer != b.ID() || len(list[0].Endpoints) != 2 || list[0].Endpoints[1].Transport != crust.UTP || list[0].Role != crust.Node {
			t.Errorf("%+v", list)
		}
		contacts, more := crust.HeardContacts(a.Service)
		if len(contacts) != 2 || contacts[0].Peer != b.ID() || contacts[0].Endpoint != e.Endpoint() && contacts[0].Endpoint != list[0].Endpoints[0] {
			t.Errorf("%v", contacts)
		}
		if len(a.Peers()) > 0 || len(b.Peers()) > 0 {
			t.Error("a beacon alone has connected somebody")
		}
		if err := b.ConnectEndpoint(crust.Contact{Endpoint: e.Endpoint(), Peer: e.Peer}, 1); err != nil {
			t.Fatal(err)
		}
		b.next(crust.EventConnected)
		a.next(crust.EventConnected)
		select {
		case <-more:
			t.Error("nothing new was heard")
		default:
		}
		c := newNode(t, beaconing(t, hb, crust.Config{}, "127.0.0.1:0"))
		b.discovered(t, c, "127.0.0.1")
		c.discovered(t, b, "10.0.0.2")
		time.Sleep(time.Hour)
		select {
		case <-more:
			t.Error("who is on another host's loopback network was heard")
		default:
		}
		c.Close()
		if e := b.next(crust.EventForgotten); e.Peer != c.ID() || e.By() != crust.ByBeacon {
			t.Errorf("forgotten: %s by %s", e.Peer.Short(), e.By())
		}
		b.Close()
		for range 2 {
			if e := a.next(crust.EventForgotten, crust.EventLost); e.Peer != b.ID() {
				t.Errorf("%v of %s", e.Type, e.Peer.Short())
			}
		}
		if len(a.PeersOnLAN()) != 0 {
			t.Error("who has gone is there")
		}
		a.Close()
		if a, b := ha.InUse(), hb.InUse(); a != 0 || b != 0 {
			t.Errorf("%d and %d sockets are left", a, b)
		}
	})
}

// TestBeaconModes: who has it off neither hears nor is heard; who listens hears.
func TestBeaconModes(t *testing.T) {
	t.Setenv("CRUST_BEACON", "")
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		modes := map[string]crust.Config{
			"on": {}, "off": {Beacon: crust.BeaconOff}, "listen": {Beacon: crust.BeaconListen}, "other": {NetworkName: "other"},
			"port": {BeaconPort: 5485}, "none": {NoListen: true}, "refuses": {NoAccept: true}, "only": {Only: []crust.How{crust.Dialed}},
		}
		nodes := map[string]*node{}
		i := 0
		for name, cfg := range modes {
			i++
			nodes[name] = newNode(t, beaconing(t, net.Host(fmt.Sprintf("10.0.0.%d", i)), cfg, "0.0.0.0:0"))
		}
		last := newNode(t, beaconing(t, net.Host("10.0.0.99"), crust.Config{}, "0.0.0.0:0"))
		time.Sleep(time.Second)
		heard := func(by *node, name string) bool {
			return slices.ContainsFunc(by.PeersOnLAN(), func(p crust.LANPeer) bool { return p.Peer == nodes[name].ID() })
		}
		if !heard(last, "on") || len(last.PeersOnLAN()) != 1 {
			t.Errorf("heard: %v", last.PeersOnLAN())
		}
		for name, n := range nodes {
			hears := name == "on" || name == "listen" || name == "none" || name == "refuses" || name == "only"
			found := slices.ContainsFunc(n.PeersOnLAN(), func(p crust.LANPeer) bool { return p.Peer == last.ID() })
			if found != hears {
				t.Errorf("%s has heard: %v", name, found)
			}
		}
		// What changes is told.
		nodes["refuses"].SetAccept(true)
		if _, err := nodes["none"].Listen(endpointAt("0.0.0.0:0")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		if !heard(last, "refuses") || !heard(last, "none") {
			t.Errorf("after the changes: %v", last.PeersOnLAN())
		}
		for _, n := range nodes {
			n.Close()
		}
		last.Close()
	})
}

// TestSetBeacon: a service that turns its beacon off says goodbye and hears nobody; on
// again it is discovered, and discovers; one that only listens is not discovered.
func TestSetBeacon(t *testing.T) {
	t.Setenv("CRUST_BEACON", "")
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
		a := newNode(t, beaconing(t, net.Host("10.0.0.1"), crust.Config{Beacon: crust.BeaconOff, Gossip: crust.GossipOff}, "0.0.0.0:0"))
		defer a.Close()
		b := newNode(t, beaconing(t, net.Host("10.0.0.2"), crust.Config{Gossip: crust.GossipOff}, "0.0.0.0:0"))
		set := func(mode crust.BeaconMode) {
			t.Helper()
			if err := a.SetBeacon(mode); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		for range 3 {
			set(crust.BeaconOn)
			a.discovered(t, b, "10.0.0.2")
			b.discovered(t, a, "10.0.0.1")
			set(crust.BeaconOn) // nothing changes
			set(crust.BeaconOff)
			if e := b.next(crust.EventForgotten); e.Peer != a.ID() || len(a.PeersOnLAN()) != 0 {
				t.Fatalf("forgotten: %s; the other one hears %v", e.Peer.Short(), a.PeersOnLAN())
			}
		}
		set(crust.BeaconAsk)
		if a.discovered(t, b, "10.0.0.2"); len(b.PeersOnLAN()) != 0 {
			t.Error("who only asks was discovered")
		}
		set(crust.BeaconListen)
		time.Sleep(10 * time.Minute)
		a.discovered(t, b, "10.0.0.2")
		if len(b.PeersOnLAN()) != 0 {
			t.Error("who only listens was discovered")
		}
		if err := a.SetBeacon(4); !errors.Is(err, crust.CodeInvalid) {
			t.Error(err)
		}
		b.Close()
		if err := b.SetBeacon(crust.BeaconOn); !errors.Is(err, crust.CodeClosed) {
			t.Error(err)
		}
	})
}

// TestBeaconFollows: a service whose address changes is discovered again at once where it
// is now.
func TestBeaconFollows(t *testing.T) {
	t.Setenv("CRUST_BEACON", "")
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
		a := newNode(t, beaconing(t, ha, crust.Config{}, "0.0.0.0:0"))
		b := newNode(t, beaconing(t, hb, crust.Config{}, "0.0.0.0:0"))
		a.discovered(t, b, "10.0.0.2")
		b.discovered(t, a, "10.0.0.1")
		time.Sleep(time.Minute)
		hb.Readdress("10.0.0.7")
		began := time.Now()
		a.discovered(t, b, "10.0.0.7")
		if took := time.Since(began); took > time.Second {
			t.Errorf("after %v", took)
		}
		a.Close()
		b.Close()
	})
}

// TestBeaconConfig: what cannot be is refused, and the environment turns it off.
func TestBeaconConfig(t *testing.T) {
	for _, c := range []struct {
		word string
		mode crust.BeaconMode
		says string
	}{
		{"", crust.BeaconListen, ""}, {"off", crust.BeaconOn, ""}, {"on", crust.BeaconOn, `CRUST_BEACON is "on"`}, {"", 4, "beacon mode 4"},
	} {
		t.Setenv("CRUST_BEACON", c.word)
		s, err := crust.New(crust.Config{Beacon: c.mode, Listen: []crust.Endpoint{endpointAt("127.0.0.1:0")}, BeaconPort: ownPort()})
		if err == nil {
			s.Close()
		}
		if c.says == "" && err != nil || c.says != "" && (crust.CodeOf(err) != crust.CodeInvalid || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%q, mode %d: %v", c.word, c.mode, err)
		}
	}
}

// ownPort returns a UDP port for the beacons of this process: none that sockets get at
// random. That others share it does no harm.
func ownPort() uint16 { return uint16(20_000 + os.Getpid()%10_000) }

// TestBeaconOnLoopback: two in one process that listen at loopback addresses alone, with
// the kernel's network.
func TestBeaconOnLoopback(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("whether other systems broadcast on the loopback network has not been tried")
	}
	t.Setenv("CRUST_BEACON", "")
	port := ownPort()
	at := func() crust.Config {
		return crust.Config{NetworkName: "TestBeaconOnLoopback", BeaconPort: port, Gossip: crust.GossipOff, Listen: []crust.Endpoint{endpointAt("127.0.0.1:0")}}
	}
	a, b := newNode(t, at()), newNode(t, at())
	e := a.discovered(t, b, "127.0.0.1")
	b.discovered(t, a, "127.0.0.1")
	if err := a.ConnectEndpoint(crust.Contact{Endpoint: e.Endpoint(), Peer: e.Peer}, 1); err != nil {
		t.Fatal(err)
	}
	a.next(crust.EventConnected)
	b.next(crust.EventConnected)
	a.Close()
	for range 2 {
		b.next(crust.EventForgotten, crust.EventLost)
	}
}
