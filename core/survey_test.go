package crust_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
	"github.com/libcrust/libcrust/tests/natsim"
)

// settle waits until a service has found out what it can.
func settle(t *testing.T, n *node) crust.NATReport {
	t.Helper()
	for range 600 {
		if r := n.NAT(); !r.Pending {
			return r
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("it measures for a minute")
	return crust.NATReport{}
}

// TestSurvey: what services find out about UDP with four public peers.
func TestSurvey(t *testing.T) {
	const (
		independent = crust.NATEndpointIndependent
		address     = crust.NATAddressDependent
		port        = crust.NATAddressPortDependent
	)
	for _, c := range []struct {
		nat                string
		mapping, filtering crust.NATDepends
		ports              crust.NATPorts
		step               int
		hairpin            crust.NATHairpin
		reachable          bool
	}{
		{"full-cone,ports=preserve", independent, independent, crust.NATPortsPreserving, 0, crust.NATHairpinNo, true},
		{"full-cone,ports=preserve,hairpin=on", independent, independent, crust.NATPortsPreserving, 0, crust.NATHairpinYes, true},
		{"restricted", independent, address, crust.NATPortsPreserving, 0, crust.NATHairpinNo, false},
		{"restricted,hairpin=on", independent, address, crust.NATPortsPreserving, 0, crust.NATHairpinYes, false},
		{"home", independent, port, crust.NATPortsPreserving, 0, crust.NATHairpinNo, false},
		{"home,hairpin=on", independent, port, crust.NATPortsPreserving, 0, crust.NATHairpinYes, false},
		{"home,strangers=punish", independent, port, crust.NATPortsPreserving, 0, crust.NATHairpinNo, false},
		{"home,strangers=accept", independent, port, crust.NATPortsPreserving, 0, crust.NATHairpinNo, false},
		{"symmetric", port, port, crust.NATPortsRandom, 0, crust.NATHairpinUnknown, false},
		{"mapping=address,filter=address", address, address, crust.NATPortsRandom, 0, crust.NATHairpinUnknown, false},
		{"sequential", port, port, crust.NATPortsSequential, 1, crust.NATHairpinUnknown, false},
		{"sequential,step=-2", port, port, crust.NATPortsSequential, -2, crust.NATHairpinUnknown, false},
		{"block", port, port, crust.NATPortsBlock, 0, crust.NATHairpinUnknown, false},
	} {
		t.Run(c.nat, func(t *testing.T) {
			town(t, 1, c.nat, "public", crust.Config{}, func(t *testing.T, a, _ *node) {
				r := settle(t, a)
				f := r.UDP
				if f.Mapping != c.mapping || f.Filtering != c.filtering || f.Ports != c.ports || f.Step != c.step || f.Hairpin != c.hairpin {
					t.Errorf("mapping %v, filtering %v, ports %v by %d, hairpin %v", f.Mapping, f.Filtering, f.Ports, f.Step, f.Hairpin)
				}
				tcp := r.TCP
				if tcp.Mapping != c.mapping || tcp.Filtering != c.filtering || tcp.Ports != c.ports || tcp.Step != c.step || tcp.Confidence != "confirmed" {
					t.Errorf("TCP: mapping %v, filtering %v, ports %v by %d, %s", tcp.Mapping, tcp.Filtering, tcp.Ports, tcp.Step, tcp.Confidence)
				}
				// A connection to ourselves comes from an address that nothing was sent to.
				want := c.hairpin
				if want == crust.NATHairpinYes && c.filtering != independent {
					want = crust.NATHairpinNo
				}
				if tcp.Hairpin != want {
					t.Errorf("TCP: hairpin %v, want %v", tcp.Hairpin, want)
				}
				if f.Confidence != "confirmed" || f.None || f.Double || f.Blocked || r.CGNAT {
					t.Errorf("%+v", r)
				}
				if r.Reachable != c.reachable {
					t.Errorf("reachable %v because %s", r.Reachable, r.Why)
				}
			})
		})
	}
}

// TestSurveySparesSessions: where a stranger's probe makes the router drop all that
// comes from its peer, for a while, that is tried with one, and its session lives.
func TestSurveySparesSessions(t *testing.T) {
	town(t, 1, "home,strangers=punish", "public", crust.Config{}, func(t *testing.T, a, _ *node) {
		settle(t, a)
		time.Sleep(2 * time.Minute)
		batch, err := a.TryNextBatch(0)
		if err != nil {
			t.Fatal(err)
		}
		defer batch.Release()
		suspended := map[crust.PeerID]bool{}
		for _, e := range batch.Events {
			switch e.Type {
			case crust.EventLost:
				t.Errorf("lost: %v", e.Err())
			case crust.EventSuspended:
				suspended[e.Peer] = true
			}
		}
		if n := len(a.Peers()); n != 4 || len(suspended) > 1 {
			t.Errorf("%d peers, %d suspended", n, len(suspended))
		}
	})
}

// TestFactsStayKnown: what peers say counts for ten minutes, and peers that stay connected
// are asked again before: for two hours in which nothing happens it stays known what the
// mappings are like, but while that is measured anew, so that NATs can be opened as well as
// after a minute.
func TestFactsStayKnown(t *testing.T) {
	for _, nat := range []string{"home", "symmetric", "sequential"} {
		t.Run(nat, func(t *testing.T) {
			town(t, 1, nat, "public", crust.Config{}, func(t *testing.T, a, _ *node) {
				first := settle(t, a)
				for end := time.Now().Add(2 * time.Hour); time.Now().Before(end); time.Sleep(10 * time.Second) {
					r := a.NAT()
					for proto, is := range map[string][2]crust.NATFlow{"UDP": {r.UDP, first.UDP}, "TCP": {r.TCP, first.TCP}} {
						now, was := is[0], is[1]
						mapping := now.Mapping == was.Mapping || proto == "TCP" && now.Mapping == crust.NATUnknown // that is looked at before it is used
						if !r.Pending && (!mapping || now.Ports != was.Ports || now.Step != was.Step || now.Confidence == "none" || len(now.External) == 0) {
							t.Fatalf("%v, %s: %+v was %+v", time.Now(), proto, now, was)
						}
					}
				}
				if n := len(a.Peers()); n != 4 {
					t.Errorf("%d peers", n)
				}
			})
		})
	}
}

// TestSurveyIsOff: peers whose Config.Relay says so send no probes.
func TestSurveyIsOff(t *testing.T) {
	town(t, 1, "full-cone,ports=preserve", "home", crust.Config{Relay: crust.RelayOff}, func(t *testing.T, a, _ *node) {
		if r := settle(t, a); r.UDP.Filtering != crust.NATUnknown || r.Reachable || r.UDP.Mapping != crust.NATEndpointIndependent {
			t.Errorf("%+v", r)
		}
	})
}

// serveSTUN answers at two addresses and two ports, as RFC 5780 has it.
func serveSTUN(t *testing.T, host *simnet.Host, addrs [2]string, odd func(*wire.STUN)) {
	t.Helper()
	var conns [2][2]netio.PacketConn
	for i, a := range addrs {
		for k, port := range []uint16{3478, 3479} {
			c, err := host.ListenPacket(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(a), port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			conns[i][k] = c
		}
	}
	for i := range conns {
		for k, c := range conns[i] {
			go func() {
				ps := []netio.Packets{{Buf: make([]byte, netio.ReadSize)}}
				for {
					if _, err := c.ReadBatch(ps); err != nil {
						return
					}
					m, err := wire.ParseSTUN(ps[0].Buf[:ps[0].N])
					if err != nil || m.Type != wire.STUNRequest {
						continue
					}
					from := conns[i][k]
					if m.ChangeIP {
						from = conns[1-i][1-k]
					} else if m.ChangePort {
						from = conns[i][1-k]
					}
					a := wire.STUN{Type: wire.STUNSuccess, ID: m.ID, Mapped: ps[0].Addr, Other: conns[1-i][1-k].LocalAddr()}
					if odd != nil {
						odd(&a)
					}
					d := a.Append(nil)
					from.WriteBatch([]netio.Packets{{Buf: d, N: len(d), Segment: len(d), Addr: ps[0].Addr}}) //nolint:errcheck // it may get lost
				}
			}()
		}
	}
}

// lonely runs a service behind a NAT with servers and no peer at all.
func lonely(t *testing.T, nat string, odd func(*wire.STUN), check func(t *testing.T, r crust.NATReport)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		var servers []string
		for _, a := range [][2]string{{"198.51.100.1", "198.51.100.2"}, {"198.51.100.3", "198.51.100.4"}} {
			serveSTUN(t, internet.Host(a[0], a[1]), a, odd)
			servers = append(servers, a[0]+":3478")
		}
		internet.SetName("stun.example.org", netip.MustParseAddr("198.51.100.3"))
		host := internet.NAT(natsim.MustParse(nat), "203.0.113.1").Host("192.168.1.2")
		cfg := over(crust.Config{STUN: []string{servers[0], "stun.example.org", "nowhere.example.org", "198.51.100.77"}}, "0.0.0.0", "utp")
		n := newNode(t, crust.On(host, cfg))
		defer n.Close()
		check(t, settle(t, n))
	})
}

// TestSTUN: what two servers of RFC 5780 show without any peer.
func TestSTUN(t *testing.T) {
	for nat, want := range map[string][2]crust.NATDepends{
		"full-cone,ports=preserve":       {crust.NATEndpointIndependent, crust.NATEndpointIndependent},
		"restricted":                     {crust.NATEndpointIndependent, crust.NATAddressDependent},
		"home":                           {crust.NATEndpointIndependent, crust.NATAddressPortDependent},
		"symmetric":                      {crust.NATAddressPortDependent, crust.NATAddressPortDependent},
		"mapping=address,filter=address": {crust.NATAddressDependent, crust.NATAddressDependent},
	} {
		t.Run(nat, func(t *testing.T) {
			lonely(t, nat, nil, func(t *testing.T, r crust.NATReport) {
				if r.UDP.Mapping != want[0] || r.UDP.Filtering != want[1] || r.UDP.Confidence == "confirmed" || len(r.UDP.External) == 0 {
					t.Errorf("%+v", r.UDP)
				}
				if len(r.Servers) != 4 {
					t.Fatalf("%d servers", len(r.Servers))
				}
				for i, why := range []string{"", "", "no such host", "no answer"} {
					s := r.Servers[i]
					if why == "" && (s.Err != nil || s.Seen.Addr().String() != "203.0.113.1") || why != "" && (s.Err == nil || !strings.Contains(s.Err.Error(), why) || s.Seen.IsValid()) {
						t.Errorf("%+v, want %q", s, why)
					}
				}
			})
		})
	}
}

// TestSTUNLies: what a server must not say changes nothing, and is told.
func TestSTUNLies(t *testing.T) {
	for want, odd := range map[string]func(*wire.STUN){
		"no answer":          func(a *wire.STUN) { a.ID[0] ^= 1 },
		"error 420: no":      func(a *wire.STUN) { *a = wire.STUN{Type: wire.STUNError, ID: a.ID, Code: 420, Reason: "no"} },
		"without an address": func(a *wire.STUN) { a.Mapped = netip.AddrPort{} },
		"":                   func(a *wire.STUN) { a.Other = netip.MustParseAddrPort("192.168.1.1:80") }, // nobody is sent there
	} {
		lonely(t, "home", odd, func(t *testing.T, r crust.NATReport) {
			s := r.Servers[0]
			if want != "" && (s.Err == nil || !strings.Contains(s.Err.Error(), want) || len(r.UDP.External) != 0) || want == "" && s.Err != nil {
				t.Errorf("%+v, %+v, want %q", s, r.UDP, want)
			}
			if r.UDP.Filtering != crust.NATUnknown {
				t.Errorf("%q: %+v", want, r.UDP)
			}
		})
	}
}

// TestSTUNConfig: which servers New takes.
func TestSTUNConfig(t *testing.T) {
	host := simnet.New(1).Host("203.0.113.1") // nothing is sent anywhere
	for _, good := range []string{"stun.example.org", "stun.example.org:19302", "localhost.", "203.0.113.5", "203.0.113.5:1", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:3478"} {
		s, err := crust.New(crust.On(host, crust.Config{NoListen: true, STUN: []string{good}}))
		if err != nil {
			t.Errorf("%q: %v", good, err)
			continue
		}
		s.Close()
	}
	for _, bad := range []string{"", ":3478", "stun.example.org:0", "stun.example.org:70000", "stun.example.org:x", "a b", "0.0.0.0", "255.255.255.255:1", "fe80::1%eth0", "-x.org", "x..org", strings.Repeat("x", 64)} {
		if s, err := crust.New(crust.On(host, crust.Config{NoListen: true, STUN: []string{bad}})); err == nil {
			s.Close()
			t.Errorf("%q was taken", bad)
		} else if crust.CodeOf(err) != crust.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := crust.New(crust.On(host, crust.Config{NoListen: true, STUN: slices.Repeat([]string{"x.org"}, crust.MaxSTUN+1)})); crust.CodeOf(err) != crust.CodeInvalid {
		t.Errorf("too many: %v", err)
	}
}

// TestCloseWhileAsking: a service that is finding out about its NATs closes at once,
// also when nobody answers.
func TestCloseWhileAsking(t *testing.T) {
	for half := range 24 {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
			n := newNode(t, crust.On(internet.NAT(natsim.MustParse("home,udp=off"), "203.0.113.1").Host("192.168.1.2"), over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
			for i := range 4 {
				p := newNode(t, crust.On(internet.Host(fmt.Sprintf("23.%d.0.1", i+1)), over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
				defer p.Close()
				link(t, n, p)
			}
			time.Sleep(time.Duration(half)*500*time.Millisecond + 10*time.Millisecond)
			began := time.Now()
			n.Close()
			if took := time.Since(began); took > time.Second {
				t.Errorf("after %d half seconds closing took %v", half, took)
			}
		})
	}
}
