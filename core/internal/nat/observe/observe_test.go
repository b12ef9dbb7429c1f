package observe

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// udp is a vote of an observer that we dialled about socket 50001.
func udp(seen, observer string) Vote {
	return Vote{Proto: UDP, Local: ep("0.0.0.0:50001"), Seen: ep(seen), Observer: ep(observer), Outbound: true}
}

func inbound(v Vote) Vote { v.Outbound = false; return v }

func server(v Vote) Vote { v.Outbound, v.Server = false, true; return v }

// servers are votes of servers in such networks.
func servers(networks ...int) (votes []Vote) {
	for i, n := range networks {
		votes = append(votes, server(udp("5.9.1.1:7", fmt.Sprintf("20.%d.%d.1:3478", n, 100+i))))
	}
	return votes
}

func observeAll(t *testing.T, m *Machine, votes ...Vote) {
	t.Helper()
	for _, v := range votes {
		if !m.Observe(v, start) {
			t.Fatalf("dropped %+v", v)
		}
	}
}

// TestConfidence checks how many of whom must agree.
func TestConfidence(t *testing.T) {
	for _, c := range []struct {
		name  string
		votes []Vote
		want  Confidence
	}{
		{"one", []Vote{udp("5.9.1.1:7", "20.1.1.1:1")}, None},
		{"two", []Vote{udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1")}, Tentative},
		{"three", []Vote{udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1"), udp("5.9.1.1:7", "20.3.1.1:1")}, Confirmed},
		{"three of one network", []Vote{udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.1.2.1:1"), udp("5.9.1.1:7", "20.1.3.1:1")}, None},
		{"five servers of one network", servers(1, 1, 1, 1, 1), None},
		{"three servers", servers(1, 2, 3), None},
		{"four servers", servers(1, 2, 3, 4), Tentative},
		{"six servers", servers(1, 2, 3, 4, 5, 6), Confirmed},
		{"two and two servers", append(servers(3, 4), udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1")), Confirmed},
		{"a server beside each of two", append(servers(1, 2), udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1")), Tentative},
		{"two and three lying servers", append(servers(3, 4, 5), udp("6.9.1.1:7", "20.1.1.1:1"), udp("6.9.1.1:7", "20.2.1.1:1")), Tentative},
		{"three that came to us", []Vote{inbound(udp("5.9.1.1:7", "20.1.1.1:1")), inbound(udp("5.9.1.1:7", "20.2.1.1:1")), inbound(udp("5.9.1.1:7", "20.3.1.1:1"))}, None},
		{"two and two that came to us", []Vote{udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1"), inbound(udp("5.9.1.1:7", "20.3.1.1:1")), inbound(udp("5.9.1.1:7", "20.4.1.1:1"))}, Confirmed},
		{"one that came to us as well as we to it", []Vote{udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1"), inbound(udp("5.9.1.1:7", "20.1.1.2:1")), inbound(udp("5.9.1.1:7", "20.2.1.2:1"))}, Tentative},
		{"two against two", []Vote{udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1"), udp("6.9.1.1:7", "20.3.1.1:1"), udp("6.9.1.1:7", "20.4.1.1:1")}, None},
		{"an older word of one that has changed its mind", []Vote{udp("6.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1")}, Tentative},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := Machine{}
			observeAll(t, &m, c.votes...)
			if d := m.Verdict(udp4, start); d.Confidence != c.want {
				t.Errorf("%v, want %v: %+v", d.Confidence, c.want, d)
			}
		})
	}
}

// TestRefuses checks which votes are dropped.
func TestRefuses(t *testing.T) {
	m := Machine{}
	m.SetAddrs([]netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("7.7.7.7")})
	for name, v := range map[string]Vote{
		"private by one on the Internet":    udp("192.168.1.5:1", "20.1.1.1:1"),
		"loopback":                          udp("127.0.0.1:1", "20.1.1.1:1"),
		"link-local":                        udp("169.254.1.1:1", "20.1.1.1:1"),
		"unspecified":                       udp("0.0.0.0:1", "20.1.1.1:1"),
		"this network":                      udp("0.1.2.3:1", "20.1.1.1:1"),
		"multicast":                         udp("224.0.0.1:1", "20.1.1.1:1"),
		"broadcast":                         udp("255.255.255.255:1", "20.1.1.1:1"),
		"reserved":                          udp("250.1.1.1:1", "20.1.1.1:1"),
		"documentation":                     udp("192.0.2.1:1", "20.1.1.1:1"),
		"measurement":                       udp("198.19.2.1:1", "20.1.1.1:1"),
		"carrier":                           udp("100.64.1.1:1", "20.1.1.1:1"),
		"public by one on the LAN":          udp("5.9.1.1:1", "192.168.1.9:1"),
		"IPv6 by IPv4":                      udp("[2a00::1]:1", "20.1.1.1:1"),
		"IPv4 by IPv6":                      udp("5.9.1.1:1", "[2a00::1]:1"),
		"no port":                           udp("5.9.1.1:0", "20.1.1.1:1"),
		"nothing":                           {},
		"no observer":                       {Local: ep("0.0.0.0:1"), Seen: ep("5.9.1.1:1"), Outbound: true},
		"no local port":                     {Local: ep("0.0.0.0:0"), Seen: ep("5.9.1.1:1"), Observer: ep("20.1.1.1:1"), Outbound: true},
		"IPv4 seen of an IPv6 socket":       {Local: ep("[2a00::1]:1"), Seen: ep("5.9.1.1:1"), Observer: ep("20.1.1.1:1"), Outbound: true},
		"another protocol":                  {Proto: 9, Local: ep("0.0.0.0:1"), Seen: ep("5.9.1.1:1"), Observer: ep("20.1.1.1:1"), Outbound: true},
		"ourselves":                         udp("5.9.1.1:1", "7.7.7.7:1"),
		"too old":                           {Local: ep("0.0.0.0:1"), Seen: ep("5.9.1.1:1"), Observer: ep("20.1.1.1:1"), Outbound: true, At: start.Add(-VoteLife)},
		"documentation IPv6 by the world's": udp("[2001:db8::1]:1", "[2a00::1]:1"),
		"site IPv6 by the world's":          udp("[fd00::1]:1", "[2a00::1]:1"),
		"translated":                        udp("[64:ff9b::1]:1", "[2a00::1]:1"),
	} {
		if m.Observe(v, start) {
			t.Errorf("%s: kept", name)
		}
		if n := m.Sample([]Vote{v, v}, start); n != 0 {
			t.Errorf("%s: %d sampled", name, n)
		}
	}
	if len(m.views) != 0 {
		t.Error("something was kept")
	}
}

// TestRealms checks that what LAN peers tell is kept apart from what the world tells.
func TestRealms(t *testing.T) {
	m := Machine{}
	m.SetAddrs([]netip.Addr{netip.MustParseAddr("192.168.1.5")})
	for i := range 5 {
		observeAll(t, &m, udp("192.168.1.5:50001", fmt.Sprintf("192.168.1.%d:1", 10+i)))
	}
	d := m.Verdict(udp4, start)
	if !d.Near || !d.None || d.Confidence != Confirmed || d.NAT.External != ep("192.168.1.5:50001") {
		t.Errorf("on the LAN: %+v", d)
	}
	observeAll(t, &m, udp("5.9.1.1:7", "20.1.1.1:1"))
	d = m.Verdict(udp4, start)
	if d.Near || d.None || d.Confidence != None || d.NAT.External != ep("5.9.1.1:7") || len(d.External) != 1 {
		t.Errorf("with one vote of the world: %+v", d)
	}
	m = Machine{}
	for _, o := range []string{"203.0.113.1:1", "203.0.113.2:1", "203.0.113.3:1"} {
		observeAll(t, &m, udp("198.51.100.7:9", o))
	}
	if d := m.Verdict(udp4, start); d.Near || d.Confidence != Confirmed || d.NAT.Mapping != wire.EndpointIndependent {
		t.Errorf("in a laboratory: %+v", d)
	}
}

// TestFlows checks that protocols and families do not mix, and forms of addresses do.
func TestFlows(t *testing.T) {
	m := Machine{}
	tcp := udp("5.9.1.1:8", "20.1.1.1:1")
	tcp.Proto = TCP
	mapped := Vote{Proto: UDP, Local: ep("[::]:50001"), Seen: ep("[::ffff:5.9.1.1]:7"), Observer: ep("[::ffff:20.2.1.1]:1"), Outbound: true}
	observeAll(t, &m, udp("5.9.1.1:7", "20.1.1.1:1"), mapped, tcp, udp("[2a00::5]:9", "[2a01::1]:1"))
	for f, want := range map[Flow]string{udp4: "5.9.1.1:7", {TCP, false}: "5.9.1.1:8", {UDP, true}: "[2a00::5]:9"} {
		if d := m.Verdict(f, start); d.NAT.External != ep(want) || len(d.External) != 1 {
			t.Errorf("%v: %+v, want %s", f, d, want)
		}
	}
	if d := m.Verdict(udp4, start); d.NAT.Mapping != wire.EndpointIndependent || d.Confidence != Tentative {
		t.Errorf("both forms of one socket: %+v", d)
	}
	if d := m.Verdict(Flow{TCP, true}, start); d.Confidence != None || d.NAT != (wire.NAT{}) || d.External != nil {
		t.Errorf("nobody said: %+v", d)
	}
}

// TestNone checks the verdict about a host without a NAT.
func TestNone(t *testing.T) {
	for name, c := range map[string]struct {
		seen string
		want bool
	}{
		"own address and port": {"7.7.7.7:50001", true},
		"own address":          {"7.7.7.7:50002", false},
		"port":                 {"7.7.7.8:50001", false},
	} {
		m := Machine{}
		m.SetAddrs([]netip.Addr{netip.MustParseAddr("7.7.7.7")})
		observeAll(t, &m, udp(c.seen, "20.1.1.1:1"), udp(c.seen, "20.2.1.1:1"))
		d := m.Verdict(udp4, start)
		if d.None != c.want || d.NAT.Mapping != wire.EndpointIndependent || d.Confidence != Tentative {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// TestNoneOfSeveral checks that a host which sends from several addresses of its own
// is not taken for one behind a NAT, and that a liar is not believed.
func TestNoneOfSeveral(t *testing.T) {
	m := Machine{}
	m.SetAddrs([]netip.Addr{netip.MustParseAddr("2a00::5"), netip.MustParseAddr("2a00::6"), netip.MustParseAddr("2a00:1::7")})
	f := Flow{UDP, true}
	observeAll(t, &m, udp("[2a00::5]:50001", "[2a01::1]:1"), udp("[2a00::6]:50001", "[2a02::1]:1"), udp("[2a00:1::7]:50001", "[2a03::1]:1"))
	d := m.Verdict(f, start)
	if !d.None || d.NAT.Mapping != wire.EndpointIndependent || d.NAT.Ports != wire.PortsPreserving || d.Confidence != Confirmed || len(d.External) != 3 {
		t.Errorf("%+v", d)
	}
	m.Observe(udp("[2a04::5]:666", "[2a05::1]:1"), start.Add(time.Second))
	if d := m.Verdict(f, start.Add(time.Second)); !d.None || d.Pooled || d.Confidence != Confirmed || !m.own(d.NAT.External.Addr()) {
		t.Errorf("with one liar: %+v", d)
	}
	m = Machine{}
	observeAll(t, &m, udp("[2a00::5]:50001", "[2a01::1]:1"), udp("[2a00::5]:50001", "[2a02::1]:1"))
	if d := m.Verdict(f, start); d.None {
		t.Errorf("without addresses of our own: %+v", d)
	}
}

// TestExpiry checks that votes do not count for longer than VoteLife.
func TestExpiry(t *testing.T) {
	m := Machine{}
	observeAll(t, &m, udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1"))
	m.Observe(udp("5.9.1.1:7", "20.3.1.1:1"), start.Add(time.Minute))
	if d := m.Verdict(udp4, start.Add(VoteLife-1)); d.Confidence != Confirmed || d.NAT.Age != uint32((VoteLife-time.Minute).Milliseconds()-1) {
		t.Errorf("before: %+v", d)
	}
	if d := m.Verdict(udp4, start.Add(VoteLife)); d.Confidence != None || len(d.External) != 1 || d.External[0].Weight != 2 {
		t.Errorf("after: %+v", d)
	}
	if d := m.Verdict(udp4, start.Add(VoteLife+time.Minute)); d.NAT != (wire.NAT{}) {
		t.Errorf("long after: %+v", d)
	}
}

// TestRemapped checks that a mapping that was made anew, with another port or
// address, is not taken for a symmetric NAT, and that the new one wins.
func TestRemapped(t *testing.T) {
	for _, next := range []string{"5.9.1.1:8", "5.9.1.9:8", "6.7.8.9:8"} {
		m := Machine{}
		now := start
		for i := range 6 {
			m.Observe(udp("5.9.1.1:7", observer(i).String()), now)
		}
		now = now.Add(time.Minute)
		for i := range 6 {
			m.Observe(udp(next, observer(i).String()), now)
			d := m.Verdict(udp4, now)
			if d.NAT.Mapping != wire.EndpointIndependent || d.Pooled {
				t.Errorf("to %s after %d: %+v", next, i+1, d)
			}
			if i >= 2 && next == "5.9.1.1:8" && d.NAT.External != ep(next) {
				t.Errorf("to %s after %d: still at %v", next, i+1, d.NAT.External)
			}
		}
		if d := m.Verdict(udp4, now); d.Confidence != Confirmed || d.NAT.External != ep(next) {
			t.Errorf("to %s: %+v", next, d)
		}
	}
}

// TestNetworkChange checks what is forgotten when addresses change.
func TestNetworkChange(t *testing.T) {
	fill := func() (*Machine, Vote) {
		m := &Machine{}
		m.SetAddrs([]netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("2a00::5")})
		bound := udp("5.9.1.1:9", "20.9.1.1:1")
		bound.Local = ep("10.0.0.5:50002")
		observeAll(t, m, udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1"), udp("5.9.1.1:7", "20.3.1.1:1"), bound, udp("[2a00::5]:50001", "[2a01::1]:1"))
		m.Sample([]Vote{udp("5.9.1.1:7", "20.4.1.1:1"), udp("5.9.1.1:7", "20.5.1.1:1")}, start)
		m.Arrived(UDP, ep("20.8.1.1:1"), Stranger, start)
		m.SetHairpin(udp4, true, start)
		return m, bound
	}
	m, _ := fill()
	before := m.Verdict(udp4, start)
	m.SetAddrs([]netip.Addr{netip.MustParseAddr("2a00::5"), netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("::ffff:10.0.0.5")})
	if d := m.Verdict(udp4, start); d.NAT != before.NAT || d.Confidence != Confirmed || !d.NAT.Hairpin {
		t.Errorf("the same addresses: %+v, before %+v", d, before)
	}
	m.SetAddrs([]netip.Addr{netip.MustParseAddr("2a00::5"), netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("192.168.9.5")})
	d := m.Verdict(udp4, start)
	if len(d.External) != 1 || d.External[0].Addr != ep("5.9.1.1:9") || d.NAT.Filtering != wire.DependsUnknown || d.HairpinKnown || d.Confidence != None {
		t.Errorf("one address less: %+v", d)
	}
	if _, ok := m.Reachable(start); ok {
		t.Error("reachable by what happened in another network")
	}
	if d := m.Verdict(Flow{UDP, true}, start); !d.None {
		t.Errorf("the other family: %+v", d)
	}
	m, _ = fill()
	m.Reset()
	if d := m.Verdict(udp4, start); d.NAT != (wire.NAT{}) || d.External != nil {
		t.Errorf("after Reset: %+v", d)
	}
	observeAll(t, m, udp("[2a00::5]:50001", "[2a01::1]:1"))
	if d := m.Verdict(Flow{UDP, true}, start); !d.None {
		t.Errorf("our own addresses are forgotten after Reset: %+v", d)
	}
}

// TestMapped checks the port mapper's vote and the hint of a second NAT.
func TestMapped(t *testing.T) {
	two := []Vote{udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1")}
	for _, c := range []struct {
		name, mapped string
		votes        []Vote
		double       bool
		want         Confidence
		external     string
	}{
		{"alone", "5.9.1.1:80", nil, false, None, ""},
		{"alone, with a private address", "192.168.0.2:80", nil, true, None, ""},
		{"with one", "5.9.1.1:80", two[:1], false, Tentative, "5.9.1.1:7"},
		{"with two", "5.9.1.1:80", two, false, Confirmed, "5.9.1.1:7"},
		{"another address", "6.9.1.1:80", two, true, Tentative, "5.9.1.1:7"},
		{"a private address", "192.168.0.2:80", two, true, Tentative, "5.9.1.1:7"},
		{"a carrier's address", "100.64.0.2:80", two, true, Tentative, "5.9.1.1:7"},
		{"another address than one", "6.9.1.1:80", two[:1], false, None, "5.9.1.1:7"},
	} {
		m := Machine{}
		observeAll(t, &m, c.votes...)
		m.SetMapped(UDP, ep(c.mapped), start)
		d := m.Verdict(udp4, start)
		listed := slices.ContainsFunc(d.External, func(e External) bool { return e.Mapped && e.Addr == ep(c.mapped) && e.Weight == 2 })
		if d.NAT.Double != c.double || d.Confidence != c.want || !listed || c.external != "" && d.NAT.External != ep(c.external) {
			t.Errorf("%s: %+v", c.name, d)
		}
		m.ClearMapped(udp4)
		d = m.Verdict(udp4, start)
		if d.NAT.Double || slices.ContainsFunc(d.External, func(e External) bool { return e.Mapped }) {
			t.Errorf("%s, mapping gone: %+v", c.name, d)
		}
	}
	m := Machine{}
	m.SetMapped(UDP, ep("0.0.0.0:1"), start)
	m.SetMapped(UDP, ep("5.9.1.1:0"), start)
	m.SetMapped(UDP, netip.AddrPort{}, start)
	m.SetMapped(9, ep("5.9.1.1:1"), start)
	m.ClearMapped(Flow{TCP, true})
	if d := m.Verdict(udp4, start); d.External != nil {
		t.Errorf("mapped to nothing: %+v", d)
	}
}

// TestFiltering checks what arrivals and their absence prove.
func TestFiltering(t *testing.T) {
	type fact struct {
		c       Contact
		arrived bool
		from    string
	}
	never := func(c Contact) []fact {
		return []fact{{c, false, "20.1.1.1:1"}, {c, false, "20.1.1.2:1"}, {c, false, "20.2.1.1:1"}}
	}
	for name, c := range map[string]struct {
		facts []fact
		want  wire.Depends
	}{
		"nothing":                      {nil, wire.DependsUnknown},
		"stranger came":                {[]fact{{Stranger, true, "20.1.1.1:1"}}, wire.EndpointIndependent},
		"stranger came, others missed": {append(never(Stranger), fact{Stranger, true, "20.1.1.1:1"}), wire.EndpointIndependent},
		"neighbour came":               {append(never(Stranger), fact{Neighbour, true, "20.1.1.1:1"}), wire.AddressDependent},
		"nobody came":                  {append(never(Stranger), never(Neighbour)...), wire.AddressPortDependent},
		"two missed":                   {append(never(Stranger), never(Neighbour)[1:]...), wire.DependsUnknown},
		"one network says it missed":   {[]fact{{Neighbour, false, "20.1.1.1:1"}, {Neighbour, false, "20.1.1.2:1"}, {Neighbour, false, "20.1.1.3:1"}, {Neighbour, false, "20.1.1.4:1"}}, wire.DependsUnknown},
		"neighbour came once":          {append(never(Neighbour), fact{Neighbour, true, "20.1.1.1:1"}), wire.AddressDependent},
		"from ourselves":               {[]fact{{Stranger, true, "7.7.7.7:1"}}, wire.DependsUnknown},
		"from our own NAT":             {[]fact{{Stranger, true, "5.9.1.1:99"}}, wire.DependsUnknown},
		"from the LAN":                 {[]fact{{Stranger, true, "192.168.1.9:1"}}, wire.DependsUnknown},
		"of no kind":                   {[]fact{{9, true, "20.1.1.1:1"}, {9, false, "20.1.1.1:1"}}, wire.DependsUnknown},
	} {
		m := Machine{}
		m.SetAddrs([]netip.Addr{netip.MustParseAddr("7.7.7.7")})
		observeAll(t, &m, udp("5.9.1.1:7", "20.1.1.1:1"))
		for _, f := range c.facts {
			if f.arrived {
				m.Arrived(UDP, ep(f.from), f.c, start)
			} else {
				m.Missed(UDP, ep(f.from), f.c, start)
			}
		}
		if d := m.Verdict(udp4, start); d.NAT.Filtering != c.want {
			t.Errorf("%s: %v, want %v", name, d.NAT.Filtering, c.want)
		}
		if d := m.Verdict(Flow{TCP, false}, start); d.NAT.Filtering != wire.DependsUnknown {
			t.Errorf("%s: TCP is said to be %v", name, d.NAT.Filtering)
		}
		if d := m.Verdict(udp4, start.Add(FactLife)); d.NAT.Filtering != wire.DependsUnknown {
			t.Errorf("%s: still %v after FactLife", name, d.NAT.Filtering)
		}
	}
}

// TestReachable checks the rule by which a node takes itself for one that others
// can connect to.
func TestReachable(t *testing.T) {
	now := start
	for name, c := range map[string]struct {
		do   func(m *Machine)
		want string
	}{
		"nothing":             {func(*Machine) {}, ""},
		"a public address":    {func(m *Machine) { m.Observe(udp("7.7.7.7:50001", "20.1.1.1:1"), now) }, ""},
		"a mapping":           {func(m *Machine) { m.SetMapped(TCP, ep("5.9.1.1:80"), now) }, ""},
		"somebody came":       {func(m *Machine) { m.Arrived(TCP, ep("20.1.1.1:1"), Stranger, now) }, "tcp by 20.1.1.1:1, unasked"},
		"somebody came by v6": {func(m *Machine) { m.Arrived(UDP, ep("[2a01::1]:1"), Stranger, now) }, "udp by [2a01::1]:1, unasked"},
		"a LAN peer came":     {func(m *Machine) { m.Arrived(TCP, ep("192.168.1.7:1"), Stranger, now) }, ""},
		"a LAN peer by v6":    {func(m *Machine) { m.Arrived(TCP, ep("[2a00::7]:1"), Stranger, now) }, ""},
		"the carrier's peer":  {func(m *Machine) { m.Arrived(TCP, ep("100.64.1.7:1"), Stranger, now) }, ""},
		"this machine":        {func(m *Machine) { m.Arrived(TCP, ep("127.0.0.1:1"), Stranger, now) }, ""},
		"a neighbour":         {func(m *Machine) { m.Arrived(TCP, ep("20.1.1.1:2"), Neighbour, now) }, ""},
		"mapped and a neighbour": {func(m *Machine) {
			m.SetMapped(TCP, ep("5.9.1.1:80"), now)
			m.Arrived(TCP, ep("20.1.1.1:2"), Neighbour, now)
		}, "tcp by 20.1.1.1:2 through the port mapping"},
		"mapped for another protocol": {func(m *Machine) {
			m.SetMapped(UDP, ep("5.9.1.1:80"), now)
			m.Arrived(TCP, ep("20.1.1.1:2"), Neighbour, now)
		}, ""},
		"a mapping that is gone": {func(m *Machine) {
			m.SetMapped(TCP, ep("5.9.1.1:80"), now)
			m.Arrived(TCP, ep("20.1.1.1:2"), Stranger, now)
			m.ClearMapped(Flow{TCP, false})
		}, ""},
		"a mapping to another endpoint": {func(m *Machine) {
			m.SetMapped(TCP, ep("5.9.1.1:80"), now)
			m.Arrived(TCP, ep("20.1.1.1:2"), Stranger, now)
			m.SetMapped(TCP, ep("5.9.1.1:81"), now.Add(time.Second))
		}, ""},
		"a mapping renewed": {func(m *Machine) {
			m.SetMapped(TCP, ep("5.9.1.1:80"), now)
			m.Arrived(TCP, ep("20.1.1.1:2"), Stranger, now)
			m.SetMapped(TCP, ep("5.9.1.1:80"), now.Add(time.Second))
		}, "tcp by 20.1.1.1:2, unasked"},
		"the newest": {func(m *Machine) {
			m.Arrived(UDP, ep("20.3.1.1:2"), Stranger, now.Add(time.Second))
			m.Arrived(TCP, ep("20.2.1.1:2"), Stranger, now)
			m.Arrived(UDP, ep("[2a01::1]:1"), Stranger, now)
		}, "udp by 20.3.1.1:2, unasked"},
	} {
		m := Machine{}
		m.SetAddrs([]netip.Addr{netip.MustParseAddr("7.7.7.7"), netip.MustParseAddr("2a00::5")})
		c.do(&m)
		proof, ok := m.Reachable(now.Add(2 * time.Second))
		if ok != (c.want != "") || ok && proof.String() != c.want {
			t.Errorf("%s: %v %q, want %q", name, ok, proof, c.want)
		}
		if _, ok := m.Reachable(now.Add(FactLife + time.Second)); ok {
			t.Errorf("%s: still after FactLife", name)
		}
	}
}

// TestPairs checks that dependent mappings are told apart by a second port.
func TestPairs(t *testing.T) {
	for want, second := range map[wire.Depends]string{wire.AddressDependent: "5.9.1.1:700", wire.AddressPortDependent: "5.9.1.1:701"} {
		m := Machine{}
		observeAll(t, &m, udp("5.9.1.1:700", "20.1.1.1:1"), udp("5.9.1.1:900", "20.2.1.1:1"), udp("5.9.1.1:300", "20.3.1.1:1"))
		if w := m.Wishes(udp4, start); !slices.Contains(w, Wish{AskPort, start}) {
			t.Errorf("no wish for a second port: %v", w)
		}
		observeAll(t, &m, udp(second, "20.1.1.1:2"))
		if d := m.Verdict(udp4, start); d.NAT.Mapping != want || d.Confidence != Confirmed {
			t.Errorf("%+v, want %v", d, want)
		}
		if w := m.Wishes(udp4, start); slices.Contains(w, Wish{AskPort, start}) {
			t.Errorf("another wish for a second port: %v", w)
		}
	}
}

// TestWishes checks in which order a fresh machine wants to know.
func TestWishes(t *testing.T) {
	h := newHost(newBox(rand.New(rand.NewPCG(1, 1)), wire.AddressPortDependent, "random"))
	var names []string
	say := func() {
		var now []string
		for _, w := range h.m.Wishes(udp4, h.now) {
			now = append(now, fmt.Sprintf("%v+%v", w.Probe, w.At.Sub(h.now)))
		}
		names = append(names, strings.Join(now, " "))
	}
	say()
	h.sample(3, 0)
	say()
	h.now = h.now.Add(time.Second)
	h.sample(3, 0)
	h.now = h.now.Add(time.Second)
	h.sample(3, 0)
	for i := range 3 {
		h.m.Missed(UDP, observer(100+i), Stranger, h.now)
	}
	h.m.SetHairpin(udp4, true, h.now)
	h.m.Observe(h.vote(0, netip.AddrPortFrom(observer(8).Addr(), 1)), h.now)
	say()
	h.m.Arrived(UDP, observer(0), Neighbour, h.now)
	say()
	want := []string{
		"votes+0s",
		"port+0s stranger+0s hairpin+0s sample+1s votes+5m0s",
		"neighbour+0s votes+5m0s sample+5m0s",
		"votes+5m0s sample+5m0s",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
	}
	if w := h.m.Wishes(Flow{Proto: 9}, h.now); w != nil {
		t.Errorf("wishes for a protocol that is not: %v", w)
	}
}

// TestOlder checks that an older word of an observer does not replace a newer one.
func TestOlder(t *testing.T) {
	m := Machine{}
	older := udp("5.9.1.1:8", "20.1.1.1:1")
	older.At = start.Add(-time.Second)
	observeAll(t, &m, udp("5.9.1.1:7", "20.1.1.1:1"), older)
	if d := m.Verdict(udp4, start); d.NAT.External != ep("5.9.1.1:7") || len(d.External) != 1 {
		t.Errorf("%+v", d)
	}
	later := udp("5.9.1.1:9", "20.1.1.1:1")
	later.At = start.Add(time.Hour)
	observeAll(t, &m, later)
	if d := m.Verdict(udp4, start); d.NAT.External != ep("5.9.1.1:9") || d.NAT.Age != 0 {
		t.Errorf("with one from the future: %+v", d)
	}
	if d := m.Verdict(udp4, start.Add(VoteLife)); d.NAT.External.IsValid() {
		t.Errorf("one from the future counts for longer: %+v", d)
	}
}

// TestRemappedTwice checks that the newer of two large lots is believed, although
// others differ from both.
func TestRemappedTwice(t *testing.T) {
	m := Machine{}
	for i, seen := range []string{"5.9.1.1:5", "5.9.1.1:6", "5.9.1.1:6", "5.9.1.1:6", "5.9.1.1:7", "5.9.1.1:7"} {
		m.Observe(udp(seen, observer(i).String()), start.Add(time.Duration(i)*time.Second))
	}
	if d := m.Verdict(udp4, start.Add(time.Minute)); d.NAT.Mapping != wire.EndpointIndependent || d.NAT.External != ep("5.9.1.1:7") {
		t.Errorf("%+v", d)
	}
}

// TestExternal checks the list of endpoints.
func TestExternal(t *testing.T) {
	m := Machine{}
	observeAll(t, &m, inbound(udp("6.9.1.1:80", "20.4.1.1:1")), udp("5.9.1.1:7", "20.1.1.1:1"), udp("5.9.1.1:7", "20.2.1.1:1"),
		inbound(udp("5.9.1.1:80", "20.3.1.1:1")), inbound(udp("5.9.1.1:80", "20.5.1.1:1")), inbound(udp("5.9.1.1:80", "20.6.1.1:1")))
	m.SetMapped(UDP, ep("5.9.1.1:80"), start)
	want := []External{{ep("5.9.1.1:80"), 5, true}, {ep("5.9.1.1:7"), 4, false}, {ep("6.9.1.1:80"), 1, false}}
	got := m.Verdict(udp4, start).External
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for i := range 40 {
		m.Observe(udp(fmt.Sprintf("5.9.1.1:%d", 1000+i), observer(100+i).String()), start)
	}
	if got := m.Verdict(udp4, start).External; len(got) != MaxExternal || got[0] != want[0] {
		t.Errorf("%d, first %+v", len(got), got[0])
	}
}

// TestNames checks what people read.
func TestNames(t *testing.T) {
	got := fmt.Sprint(UDP, TCP, None, Tentative, Confirmed, Confidence(9), AskVotes, AskSample, AskPort, AskStranger, AskNeighbour, AskHairpin, AskSocket, Probe(9))
	if want := "udp tcp none tentative confirmed confirmed votes sample port stranger neighbour hairpin socket socket"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestSamples checks which votes of a sample count.
func TestSamples(t *testing.T) {
	m := Machine{}
	other := udp("5.9.1.1:2003", "20.4.1.1:1")
	other.Proto = TCP
	n := m.Sample([]Vote{
		inbound(udp("5.9.1.1:99", "20.9.1.1:1")), udp("5.9.1.1:2001", "20.1.1.1:1"), udp("192.168.1.1:1", "20.2.1.1:1"),
		udp("5.9.1.1:2002", "20.3.1.1:1"), other, server(udp("5.9.1.1:2003", "20.5.1.1:1")),
	}, start)
	if d := m.Verdict(udp4, start); n != 3 || d.NAT.Ports != wire.PortsSequential || d.NAT.External != ep("5.9.1.1:2003") {
		t.Errorf("%d count: %+v", n, d)
	}
	if d := m.Verdict(Flow{TCP, false}, start); len(d.External) != 1 {
		t.Errorf("the one of another protocol was not observed: %+v", d)
	}
	if n := m.Sample(nil, start); n != 0 {
		t.Errorf("%d of none", n)
	}
	many := make([]Vote, MaxSample+10)
	for i := range many {
		many[i] = udp(fmt.Sprintf("5.9.1.1:%d", 3000+i), observer(i).String())
	}
	if n := m.Sample(many, start); n != MaxSample {
		t.Errorf("%d count of %d", n, len(many))
	}
	// Old samples make room for new ones: the NAT has been replaced.
	for i := range MaxSamples {
		h := host{local: ep("0.0.0.0:50001"), now: start.Add(time.Duration(i) * time.Second), fresh: 100 + 10*i}
		h.m = m
		h.told(0, uint16(10000+3000*i), uint16(20000+5000*i), uint16(60000-1000*i))
	}
	if d := m.Verdict(udp4, start.Add(10*time.Second)); d.NAT.Ports != wire.PortsRandom {
		t.Errorf("after %d samples of another kind: %+v", MaxSamples, d.NAT)
	}
	bounded(t, &m)
}

// TestLots checks that a few observers who happen to see the same do not hide that
// a mapping depends on the other end.
func TestLots(t *testing.T) {
	m := Machine{}
	for i, port := range []int{5, 5, 6, 6, 7, 8, 9} {
		m.Observe(udp(fmt.Sprintf("5.9.1.1:%d", port), observer(i).String()), start)
	}
	if d := m.Verdict(udp4, start); d.NAT.Mapping != wire.AddressPortDependent || d.Confidence != Confirmed {
		t.Errorf("%+v", d)
	}
}

// TestSockets checks that the mapping is judged by one socket, the one that most
// have seen or the newest, and that no more is confirmed than that socket's votes do.
func TestSockets(t *testing.T) {
	other := func(port uint16, seen, observer string) Vote {
		v := udp(seen, observer)
		v.Local = netip.AddrPortFrom(v.Local.Addr(), port)
		return v
	}
	for _, ports := range [][2]int{{7, 7}, {7, 9}} {
		m := Machine{}
		observeAll(t, &m, udp(fmt.Sprintf("5.9.1.1:%d", ports[0]), "20.1.1.1:1"), udp(fmt.Sprintf("5.9.1.1:%d", ports[1]), "20.2.1.1:1"),
			other(50002, "5.9.1.1:17", "20.3.1.1:1"), other(50003, "5.9.1.1:18", "20.4.1.1:1"), other(50004, "5.9.1.1:19", "20.5.1.1:1"))
		d := m.Verdict(udp4, start)
		if d.Confidence != Tentative || (d.NAT.Mapping == wire.EndpointIndependent) != (ports[0] == ports[1]) {
			t.Errorf("%v: %+v", ports, d)
		}
	}
	for _, first := range []time.Duration{0, 2 * time.Second} {
		m := Machine{}
		for i := range 2 {
			m.Observe(udp("5.9.1.1:7", observer(i).String()), start.Add(first))
			m.Observe(other(50002, "5.9.1.1:8", observer(10+i).String()), start.Add(time.Second))
		}
		want := ep("5.9.1.1:8")
		if first > time.Second {
			want = ep("5.9.1.1:7")
		}
		if d := m.Verdict(udp4, start.Add(3*time.Second)); d.NAT.External != want {
			t.Errorf("%+v, want %v", d, want)
		}
	}
}
