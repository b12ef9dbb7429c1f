package main

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// The names of doctor's fields and their order are the contract of docs/DOCTOR.md.
func TestDoctorFields(t *testing.T) {
	stdout, stderr, code := invoke("doctor", "--json", "127.0.0.1:1")
	if code != exitBroken || stderr != "" {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	l, err := parseLine(strings.TrimSuffix(stdout, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	has(t, l, "udp", "tcp", "mapped", "external", "hairpin", "cgnat", "reachable", "why", "health", "kind", "advice", "expect", "peers", "helpers",
		"servers", "seen", "interfaces", "mtu", "clock")
	if l.text("health") != "broken" || l.text("kind") != "no-answer" || l.number("peers") != 0 {
		t.Errorf("got %s", l.raw)
	}
	for _, want := range []string{`"expect":[]`, `"helpers":[{"contact":"tcp://127.0.0.1:1","peer":"","took_ms":0,"code":"refused","error":"`, `"servers":[]`, `"seen":[]`} {
		if !strings.Contains(l.raw, want) {
			t.Errorf("%s has no %s", l.raw, want)
		}
	}
}

// What is wrong with the machine is told first, and decides about the exit code.
func TestDoctorConcludes(t *testing.T) {
	helper := []crust.Contact{{Endpoint: crust.Endpoint{Transport: crust.TCP, Addr: netip.MustParseAddrPort("203.0.113.5:5483")}}}
	there := []networkInterface{{Name: "eth0", MTU: 1500, Addresses: []localAddress{{"192.168.1.2/24", scopePrivate}}}}
	alone := []networkInterface{{Name: "lo", MTU: 65536, Addresses: []localAddress{{"127.0.0.1/8", scopeLoopback}, {"fe80::1/64", scopeLink}}}}
	at := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:5483")}
	open := crust.NATFlow{None: true, Mapping: crust.NATEndpointIndependent, Filtering: crust.NATEndpointIndependent, External: at, Confidence: "confirmed"}
	failed := func(code crust.Code) []helperReport {
		return []helperReport{{Contact: "tcp://203.0.113.5:5483", Code: code.String(), Error: "no"}}
	}
	mapped := crust.MappedPort{External: crust.Endpoint{Transport: crust.TCP, Addr: at[0]}, Means: crust.MeansPCP}
	for _, c := range []struct {
		name       string
		interfaces []networkInterface
		contacts   []crust.Contact
		helpers    []helperReport
		refused    error
		facts      crust.NATReport
		peers      int
		kind       string
		code       int
		says       string
	}{
		{"nothing is up", nil, helper, failed(crust.CodeUnreachable), nil, crust.NATReport{}, 0, "no-network", exitBroken, "no interface"},
		{"the machine alone", alone, nil, nil, nil, crust.NATReport{}, 0, "no-network", exitBroken, "no interface"},
		{"no route", there, helper, failed(crust.CodeUnreachable), nil, crust.NATReport{}, 0, "no-route", exitBroken, "default route"},
		{"no sockets", there, nil, nil, errors.New("listen: permission denied"), crust.NATReport{}, 0, "no-permission", exitBroken, "listen: permission denied"},
		{"nothing may be sent", there, helper, failed(crust.CodePermission), nil, crust.NATReport{}, 0, "no-permission", exitBroken, "firewall"},
		{"nobody is there", there, helper, failed(crust.CodeTimeout), nil, crust.NATReport{}, 0, "no-answer", exitBroken, "network's name"},
		{"no helper", there, nil, nil, nil, crust.NATReport{}, 0, "no-helper", exitLimited, "No helper"},
		{"no helper, but a router", there, nil, nil, nil, crust.NATReport{Mapped: []crust.MappedPort{mapped}}, 0, "no-helper", exitLimited, "tcp://203.0.113.9:5483"},
		{"one that tells nothing", there, helper, failed(crust.CodeOK), nil, crust.NATReport{}, 1, "unknown", exitLimited, "Nobody has told"},
		{"all is well", there, helper, failed(crust.CodeOK), nil, crust.NATReport{UDP: open, TCP: open}, 1, "open", exitOK, "peers reach you"},
		{"mapped", there, helper, failed(crust.CodeOK), nil, crust.NATReport{UDP: crust.NATFlow{External: at}, Mapped: []crust.MappedPort{mapped}}, 1, "mapped", exitOK, "maps ports"},
		{"forwarded by hand", there, helper, failed(crust.CodeOK), nil, crust.NATReport{UDP: crust.NATFlow{External: at, Mapping: crust.NATEndpointIndependent, Filtering: crust.NATAddressPortDependent}, Reachable: true, Why: "tcp by x"}, 1, "home", exitOK, "unasked (tcp by x)"},
		{"nearby only", there, helper, failed(crust.CodeOK), nil, crust.NATReport{UDP: crust.NATFlow{None: true, Near: true, Filtering: crust.NATEndpointIndependent, External: at}}, 1, "open", exitLimited, "nearby"},
	} {
		e := &examination{flags: &doctorFlags{}, contacts: c.contacts, interfaces: c.interfaces, helpers: c.helpers, refused: c.refused}
		r := doctorOf(c.facts, c.peers)
		r.Helpers, r.Clock.Plausible = c.helpers, true
		r.conclude(e, c.facts)
		code := exitOK
		var status statusError
		if errors.As(r.status(), &status) {
			code = int(status)
		}
		if r.Kind != c.kind || code != c.code || !strings.Contains(strings.Join(r.Advice, " "), c.says) {
			t.Errorf("%s: %s, exit code %d, %q", c.name, r.Kind, code, r.Advice)
		}
		if text := r.text(); !strings.Contains(text, "\n"+c.kind+":\n") || !strings.HasSuffix(text, "health: "+r.Health) {
			t.Errorf("%s: %s", c.name, text)
		}
	}
}

// A clock that cannot be right makes nobody healthy.
func TestDoctorClock(t *testing.T) {
	now := time.Now()
	if c := lookAtClock(now, now.Add(time.Second)); c.Stepped != 0 || !c.Plausible {
		t.Errorf("a second later: %+v", c)
	}
	if c := lookAtClock(now, now.Add(time.Second).Round(0)); c.Stepped != 0 {
		t.Errorf("without the monotonic clock: %+v", c)
	}
	c := lookAtClock(now, time.Date(1970, 1, 1, 0, 0, 5, 0, time.UTC))
	if c.Plausible || !strings.HasPrefix(c.Time, "1970-01-01T00:00:05") || !strings.Contains(c.text(), "cannot be") {
		t.Errorf("1970: %+v", c)
	}
	yes, no, ms := true, false, 12.0
	for _, x := range []struct {
		clock              clockReport
		text, advice, kind string
	}{
		{clockReport{Plausible: true, Synchronized: &yes, Error: &ms}, "wrong by 12 ms at most", "", healthy},
		{clockReport{Plausible: true, Synchronized: &no}, "not synchronised", "NTP", healthy},
		{clockReport{Plausible: true}, "not known", "", healthy},
		{clockReport{Plausible: true, Stepped: -3000}, "not known", "set by -3000 ms", healthy},
		{clockReport{Time: "1970"}, "cannot be", "Set it", limited},
	} {
		r := &doctorReport{Health: healthy, Clock: x.clock}
		r.judgeMachine()
		if r.Health != x.kind || !strings.Contains(strings.Join(r.Advice, " "), x.advice) || x.advice == "" && len(r.Advice) > 0 || !strings.Contains(x.clock.text(), x.text) {
			t.Errorf("%+v: %s, %q, %q", x.clock, r.Health, r.Advice, x.clock.text())
		}
	}
}

// How peers of each site are met, from each site.
func TestDoctorExpects(t *testing.T) {
	at := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:5483")}
	flow := func(m crust.NATDepends, f crust.NATDepends, p crust.NATPorts) crust.NATFlow {
		return crust.NATFlow{External: at, Mapping: m, Filtering: f, Ports: p}
	}
	const ei, apd = crust.NATEndpointIndependent, crust.NATAddressPortDependent
	block := flow(apd, apd, crust.NATPortsBlock)
	block.Low, block.High = 1024, 1024+maxBlock-1
	wide := block
	wide.High++
	for _, c := range []struct {
		flow crust.NATFlow
		site string
		want string // for each of sites: d, p, r or u
	}{
		{crust.NATFlow{}, "", "duuuu"},
		{flow(ei, ei, crust.NATPortsPreserving), "reachable", "ddddd"},
		{flow(ei, apd, crust.NATPortsRandom), "home", "dpppp"},
		{flow(crust.NATUnknown, crust.NATUnknown, crust.NATPortsUnknown), "home", "dpppp"},
		{flow(apd, apd, crust.NATPortsPreserving), "home", "dpppp"},
		{crust.NATFlow{None: true, External: at, Filtering: apd}, "home", "dpppp"},
		{flow(apd, apd, crust.NATPortsSequential), "sequential", "dpprr"},
		{block, "block", "dprrr"},
		{wide, "symmetric", "dprrr"},
		{flow(crust.NATAddressDependent, apd, crust.NATPortsRandom), "symmetric", "dprrr"},
	} {
		site, got := siteOf(c.flow), ""
		for i, x := range expectations(site) {
			got += x.Way[:1]
			if x.Peer != sites[i].name || x.words() != sites[i].words {
				t.Errorf("%q is the peer %q", x.words(), x.Peer)
			}
		}
		if site != c.site || got != c.want {
			t.Errorf("%+v: site %q, %s, want %q, %s", c.flow, site, got, c.site, c.want)
		}
	}
}

// What leads out is found, and that a large datagram arrives where nobody listens.
func TestDoctorWay(t *testing.T) {
	list, err := localInterfaces()
	if err != nil {
		t.Fatal(err)
	}
	loopback := slices.IndexFunc(list, func(i networkInterface) bool { return i.Addresses[0].Scope == scopeLoopback })
	if loopback < 0 {
		t.Skip("there is no loopback interface")
	}
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(socket.LocalAddr().String())
	whole := min(list[loopback].MTU, 65535) // the largest packet of IPv4
	if m := lookAtWay(list, to); !list[loopback].Out || m.Interface != list[loopback].MTU || runtime.GOOS == "linux" && (m.Path != whole || m.To != "127.0.0.1" || m.Confirmed) {
		t.Errorf("somebody listens: %+v", m)
	}
	socket.Close()
	if m := lookAtWay(list, to); runtime.GOOS == "linux" && (m.Path != whole || !m.Confirmed) {
		t.Errorf("nobody listens: %+v", m)
	}
	if m := lookAtWay(nil, to); m.Interface != 0 || m.Path != 0 || !strings.Contains(m.text(), "not known") {
		t.Errorf("without interfaces: %+v", m)
	}
	for text, want := range map[string]string{"127.0.0.1": scopeLoopback, "::1": scopeLoopback, "169.254.1.1": scopeLink, "fe80::1": scopeLink, "10.0.0.1": scopePrivate,
		"fd00::1": scopePrivate, "100.64.0.1": scopeCGNAT, "::ffff:192.168.0.1": scopePrivate, "8.8.8.8": scopeGlobal, "2001:db8::1": scopeGlobal} {
		if got := scopeOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s reaches %q, want %q", text, got, want)
		}
	}
}
