package observe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestServers checks that the addresses of one server tell mappings apart, and prove
// nothing.
func TestServers(t *testing.T) {
	at := func(port, server string) Vote {
		return Vote{Proto: UDP, Local: ep("0.0.0.0:50001"), Seen: ep("5.9.1.1:" + port), Observer: ep(server), Server: true}
	}
	for name, c := range map[string]struct {
		votes []Vote
		want  wire.Depends
	}{
		"one address":          {[]Vote{at("7", "20.1.1.1:1")}, wire.DependsUnknown},
		"independent":          {[]Vote{at("7", "20.1.1.1:1"), at("7", "20.1.1.2:1")}, wire.EndpointIndependent},
		"on the address":       {[]Vote{at("7", "20.1.1.1:1"), at("8", "20.1.1.2:1"), at("8", "20.1.1.2:2")}, wire.AddressDependent},
		"on address and port":  {[]Vote{at("7", "20.1.1.1:1"), at("8", "20.1.1.2:1"), at("9", "20.1.1.2:2")}, wire.AddressPortDependent},
		"two peers against it": {[]Vote{at("7", "20.1.1.1:1"), at("8", "20.1.1.2:1"), udp("5.9.1.1:9", "20.2.1.1:1"), udp("5.9.1.1:9", "20.3.1.1:1")}, wire.EndpointIndependent},
	} {
		m := Machine{}
		observeAll(t, &m, c.votes...)
		if v := m.Verdict(udp4, start); v.NAT.Mapping != c.want || v.Confidence > Tentative || len(c.votes) < 4 && v.Confidence != None {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestBlocked checks when a protocol counts as blocked.
func TestBlocked(t *testing.T) {
	m := Machine{}
	m.SetAddrs([]netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("7.7.7.7")})
	for i, c := range []struct {
		observer string
		want     bool
	}{
		{"20.1.1.1:1", false}, {"20.1.2.1:1", false}, {"7.7.7.7:1", false}, {"127.0.0.1:1", false}, {"0.0.0.0:1", false}, {"192.168.1.9:1", false},
		{"20.2.1.1:1", true}, {"20.3.1.1:1", true},
	} {
		m.Silent(UDP, ep(c.observer), start.Add(time.Duration(i)))
		if v := m.Verdict(udp4, start.Add(time.Minute)); v.Blocked != c.want || v.Confidence != None {
			t.Errorf("after %s: %+v", c.observer, v)
		}
	}
	m.Silent(protos, ep("20.1.1.1:1"), start)
	if m.Verdict(Flow{Proto: TCP}, start).Blocked || m.Verdict(Flow{IPv6: true}, start).Blocked {
		t.Error("another flow is blocked")
	}
	if m.Verdict(udp4, start.Add(VoteLife+time.Second)).Blocked {
		t.Error("it is blocked for ever")
	}
	for i := range 100 {
		m.Silent(UDP, observer(i), start)
	}
	if n := len(m.views[key{udp4, onInternet}].silent); n > maxSilent {
		t.Errorf("%d are remembered", n)
	}
	m.Punished(UDP, ep("20.9.1.1:1"), start)
	if v := m.Verdict(udp4, start); !v.Blocked || v.NAT.Filtering != wire.AddressPortDependent {
		t.Errorf("with a filter: %+v", v)
	}
	m.Observe(udp("5.9.1.1:7", "20.9.1.1:1"), start)
	if m.Verdict(udp4, start).Blocked {
		t.Error("it is blocked although somebody has answered")
	}
	m.SetAddrs(nil)
	if m.Verdict(udp4, start).Blocked {
		t.Error("it is blocked in another network")
	}
}

// TestCarrier checks what proves a provider's NAT.
func TestCarrier(t *testing.T) {
	from := func(local, seen, observer string) func(*Machine) {
		return func(m *Machine) {
			m.Observe(Vote{Proto: TCP, Local: ep(local), Seen: ep(seen), Observer: ep(observer), Outbound: true}, start)
		}
	}
	mapped := func(external string) func(*Machine) {
		return func(m *Machine) { m.SetMapped(UDP, ep(external), start) }
	}
	for name, c := range map[string]struct {
		happens []func(*Machine)
		want    bool
	}{
		"nothing":                     {nil, false},
		"a home":                      {[]func(*Machine){from("192.168.1.5:1", "5.9.1.1:7", "20.1.1.1:1")}, false},
		"sends from a carrier's":      {[]func(*Machine){from("100.64.1.5:1", "5.9.1.1:7", "20.1.1.1:1")}, true},
		"an overlay's":                {[]func(*Machine){from("100.64.1.5:1", "100.64.1.5:1", "100.64.1.9:1")}, false},
		"seen at a carrier's":         {[]func(*Machine){from("192.168.1.5:1", "100.64.7.7:1", "100.64.1.9:1")}, true},
		"the router has a carrier's":  {[]func(*Machine){mapped("100.64.7.7:1")}, true},
		"the router has a private":    {[]func(*Machine){mapped("10.7.7.7:1")}, true},
		"the router has what is seen": {[]func(*Machine){mapped("5.9.1.1:1"), from("192.168.1.5:1", "5.9.1.1:7", "20.1.1.1:1"), from("192.168.1.5:1", "5.9.1.1:7", "20.2.1.1:1")}, false},
	} {
		m := Machine{}
		m.SetAddrs([]netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("100.64.1.5")})
		for _, f := range c.happens {
			f(&m)
		}
		if got := m.Carrier(start); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	m := Machine{}
	for i := range 3 {
		observeAll(t, &m, udp("5.9.1.1:7", observer(i).String()))
	}
	m.SetMapped(UDP, ep("6.6.6.6:7"), start)
	if !m.Carrier(start) {
		t.Error("the router has a public address that peers do not see, and there is one NAT")
	}
}
