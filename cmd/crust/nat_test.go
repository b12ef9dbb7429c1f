package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	crust "github.com/libcrust/libcrust/core"
)

// Two peers that know each other's id only meet through a third.
func TestDial(t *testing.T) {
	hub := start(t)
	a, b := start(t), start(t)
	a.tell("dial %s", b.id)
	if l := a.next("connect_failed"); l.text("code") != "no_endpoint" || l.text("peer") != b.id {
		t.Errorf("without any peer: %s", l.raw)
	}
	join(a, hub)
	join(b, hub)
	a.tell("dial %s", b.id)
	if l := a.next("connected"); l.text("peer") != b.id {
		t.Errorf("got %s, want the peer %s", l.raw, b.id)
	}
	if l := b.next("connected"); l.text("peer") != a.id {
		t.Errorf("got %s, want the peer %s", l.raw, a.id)
	}
	refuse := func(code string) { // both have dialled, and may have moved to the link that both keep
		t.Helper()
		if l := a.past("error", "resumed"); l.text("code") != code {
			t.Errorf("got %s, want the code %s", l.raw, code)
		}
	}
	a.tell("dial %s", b.id)
	refuse("connected")
	a.tell("disconnect %s", b.id)
	a.past("lost", "resumed")
	b.past("lost", "resumed")
	a.tell("dial %s", b.id[:20]) // one that has been connected
	if l := a.next("connected"); l.text("peer") != b.id {
		t.Errorf("got %s, want the peer %s", l.raw, b.id)
	}
	a.tell("dial %s", a.id)
	refuse("self")
	a.tell("dial %s", strings.Repeat("0", 64))
	refuse("invalid")
	a.tell("dial %s", strings.Repeat("0", 20))
	refuse("unknown_peer")
	a.tell("dial")
	refuse("invalid")
}

// What goes with a call comes first at the other side, in order; where there is a session it
// goes there. What is malformed, too many or too large is refused, and nobody is called.
func TestDialWithMessages(t *testing.T) {
	hub := start(t, "--relay", "data")
	a, b := start(t), start(t)
	join(a, hub)
	join(b, hub)
	many := func(n, size int) string {
		return `["` + strings.Repeat(strings.Repeat("x", size)+`","`, n-1) + strings.Repeat("x", size) + `"]`
	}
	for _, c := range []struct{ messages, says string }{
		{"hello", "a JSON array of strings"},
		{`"hello"`, "a JSON array of strings"},
		{"null", "a JSON array of strings"},
		{`["hello",null]`, "a JSON array of strings"},
		{`["hello",1]`, "a JSON array of strings"},
		{`["hello"] ["again"]`, "a JSON array of strings"},
		{"[\"\xff\"]", "a JSON array of strings"},
		{many(crust.MaxFirst+1, 1), "65 first messages, and no more than 64"},
		{many(2, crust.MaxFirstBytes/2+1), "16386 bytes together, and no more than 16384"},
	} {
		a.tell("dial %s %s", b.id, c.messages)
		if l := a.refuse("invalid"); !strings.Contains(l.text("error"), c.says) {
			t.Errorf("%.40s: %s does not say %q", c.messages, l.raw, c.says)
		}
	}
	gets := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			l := b.past("message", "resumed", "upgraded")
			if l.text("text") != text || l.text("peer") != a.id || l.number("priority") != 1 {
				t.Errorf("got %s, want %q", l.raw, text)
			}
		}
	}
	a.tell("dial %s  %s ", b.id, `["hello", "two\nlines and \u00e9", ""]`)
	a.past("connected", "resumed", "upgraded")
	if l := b.next("connected"); l.text("peer") != a.id {
		t.Errorf("got %s, want the peer %s", l.raw, a.id)
	}
	gets("hello", "two\nlines and é", "")
	a.tell("dial %s %s", b.id, `["once more"]`)
	if l := a.past("error", "resumed", "upgraded"); l.text("code") != "connected" {
		t.Errorf("got %s, want the code connected", l.raw)
	}
	gets("once more")
	a.tell("dial %s []", b.id)
	if l := a.past("error", "resumed", "upgraded"); l.text("code") != "connected" {
		t.Errorf("got %s, want the code connected", l.raw)
	}
	a.tell("send %s the last", b.id)
	gets("the last")
}

// A peer that carries nothing of others introduces nobody.
func TestRelayOff(t *testing.T) {
	hub := start(t, "--relay", "off")
	config := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(config, []byte(`{"connect_timeout_ms":1000}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := start(t, "--config", config, "--gossip", "off"), start(t) // with it a would know where b is
	join(a, hub)
	join(b, hub)
	a.tell("dial %s", b.id)
	if l := a.next("connect_failed"); l.text("code") != "timeout" {
		t.Errorf("got %s, want code timeout", l.raw)
	}
	if _, stderr, code := invoke("peer", "--relay", "everything"); code != exitUsage || !strings.Contains(stderr, "off, signal or data") {
		t.Errorf("--relay everything: exit code %d, %q", code, stderr)
	}
}

// The names of the fields are the contract.
func TestNAT(t *testing.T) {
	a := start(t)
	a.tell("nat")
	got := a.next("nat")
	has(t, got, "udp", "tcp", "mapped", "external", "hairpin", "cgnat", "reachable", "why")
	if list, ok := got.fields["external"].([]any); !ok || len(list) != 0 || got.fields["hairpin"] != nil || got.fields["cgnat"] != false {
		t.Errorf("got %s", got.raw)
	}
	if list, ok := got.fields["mapped"].([]any); !ok || len(list) != 0 {
		t.Errorf("mapped is %v, want an empty list", got.fields["mapped"])
	}
	for _, flow := range []string{"udp", "tcp"} {
		f, _ := got.fields[flow].(map[string]any)
		for key, want := range map[string]string{"nat": "unknown", "mapping": "unknown", "filtering": "unknown", "ports": "unknown", "confidence": "none"} {
			if f[key] != want {
				t.Errorf("%s: %s is %v, want %q", flow, key, f[key], want)
			}
		}
		if list, ok := f["external"].([]any); !ok || len(list) != 0 {
			t.Errorf("%s: external is %v, want an empty list", flow, f["external"])
		}
	}
	if got.fields["reachable"] != false || got.text("why") == "" {
		t.Errorf("got %s", got.raw)
	}
	a.tell("nat now")
	a.refuse("invalid")
}

// Servers are checked before anything is made.
func TestSTUNFlag(t *testing.T) {
	for _, command := range []string{"peer", "doctor"} {
		if _, stderr, code := invoke(command, "--stun", "0.0.0.0"); code != exitUsage || !strings.Contains(stderr, "nobody can be reached") {
			t.Errorf("%s: exit code %d, %q", command, code, stderr)
		}
	}
	if _, stderr, code := invoke("peer", "--only", "dialed,teleported"); code != exitUsage || !strings.Contains(stderr, "teleported") {
		t.Errorf("--only: exit code %d, %q", code, stderr)
	}
	stdout, stderr, code := invoke("doctor", "--json", "--stun", "127.0.0.1:1")
	if code != exitBroken || stderr != "" || !strings.Contains(stdout, `"servers":[{"server":"127.0.0.1:1","seen":"","error":"no answer"}]`) || !strings.Contains(stdout, `"kind":"no-answer"`) {
		t.Errorf("nobody there: exit code %d, %q, %q", code, stdout, stderr)
	}
}

// What is known is told under the words of RFC 4787.
func TestNATFields(t *testing.T) {
	at := netip.MustParseAddrPort("203.0.113.5:5483")
	for _, c := range []struct {
		flow crust.NATFlow
		want string
	}{
		{crust.NATFlow{None: true, External: []netip.AddrPort{at}, Mapping: crust.NATEndpointIndependent, Ports: crust.NATPortsPreserving, Confidence: "confirmed"},
			`{"nat":"no","mapping":"endpoint-independent","filtering":"unknown","ports":"preserving","confidence":"confirmed","external":["203.0.113.5:5483"]}`},
		{crust.NATFlow{External: []netip.AddrPort{at}, Mapping: crust.NATAddressPortDependent, Filtering: crust.NATAddressDependent, Ports: crust.NATPortsSequential, Step: 2, Double: true, Near: true, Confidence: "tentative"},
			`{"nat":"yes","mapping":"address-and-port-dependent","filtering":"address-dependent","ports":"sequential","step":2,"double":true,"near":true,"confidence":"tentative","external":["203.0.113.5:5483"]}`},
		{crust.NATFlow{External: []netip.AddrPort{at}, Mapping: crust.NATAddressDependent, Ports: crust.NATPortsBlock, Low: 1024, High: 2047, Confidence: "none"},
			`{"nat":"yes","mapping":"address-dependent","filtering":"unknown","ports":"block","low":1024,"high":2047,"confidence":"none","external":["203.0.113.5:5483"]}`},
		{crust.NATFlow{External: []netip.AddrPort{at}, Hairpin: crust.NATHairpinNo, Confidence: "none"},
			`{"nat":"yes","mapping":"unknown","filtering":"unknown","ports":"unknown","hairpin":false,"confidence":"none","external":["203.0.113.5:5483"]}`},
		{crust.NATFlow{Blocked: true, Confidence: "none"},
			`{"nat":"unknown","mapping":"unknown","filtering":"unknown","ports":"unknown","blocked":true,"confidence":"none","external":[]}`},
	} {
		var out bytes.Buffer
		newOutput(&out, true).tell(natOf(crust.NATReport{UDP: c.flow, Reachable: true, Why: "tcp by 192.0.2.1:5, unasked"}))
		if !strings.Contains(out.String(), `"udp":`+c.want+`,"tcp":{`) || !strings.Contains(out.String(), `"reachable":true,"why":"tcp by 192.0.2.1:5, unasked"}`) {
			t.Errorf("got %s, want udp %s", out.String(), c.want)
		}
	}
	var out bytes.Buffer
	yes := crust.NATFlow{External: []netip.AddrPort{at}, Hairpin: crust.NATHairpinYes}
	no := crust.NATFlow{External: []netip.AddrPort{at}, Hairpin: crust.NATHairpinNo}
	newOutput(&out, true).tell(natOf(crust.NATReport{UDP: no, TCP: yes, CGNAT: true}))
	if want := `"external":["tcp://203.0.113.5:5483","utp://203.0.113.5:5483"],"hairpin":true,"cgnat":true,"reachable":false`; !strings.Contains(out.String(), want) {
		t.Errorf("got %s, want %s in it", out.String(), want)
	}
}

// The words of every kind of NAT.
func TestNATForPeople(t *testing.T) {
	at := []netip.AddrPort{netip.MustParseAddrPort("203.0.113.5:5483")}
	for _, c := range []struct {
		flow crust.NATFlow
		want []string
	}{
		{crust.NATFlow{}, []string{"nothing is known"}},
		{crust.NATFlow{None: true, External: at, Filtering: crust.NATAddressDependent}, []string{"203.0.113.5:5483", "no NAT", "filtering address-dependent"}},
		{crust.NATFlow{External: at, Mapping: crust.NATAddressPortDependent, Ports: crust.NATPortsSequential, Step: -2},
			[]string{"mapping address-and-port-dependent", "filtering unknown", "ports sequential by -2"}},
		{crust.NATFlow{External: at, Mapping: crust.NATEndpointIndependent, Ports: crust.NATPortsBlock, Low: 1024, High: 2047, Double: true, Near: true},
			[]string{"mapping endpoint-independent", "ports block from 1024 to 2047", "two NATs", "nearby"}},
		{crust.NATFlow{External: at, Hairpin: crust.NATHairpinYes}, []string{"hairpin"}},
		{crust.NATFlow{Blocked: true}, []string{"blocked"}},
	} {
		lines := strings.Split(natOf(crust.NATReport{UDP: c.flow, Why: "nobody came"}).text(), "\n")
		if len(lines) != 3 || slices.ContainsFunc(c.want, func(w string) bool { return !strings.Contains(lines[0], w) }) {
			t.Errorf("got %q, want %q in the first of 3 lines", lines, c.want)
		}
		if !strings.Contains(lines[2], "not known to be reachable: nobody came") {
			t.Errorf("got %q", lines[2])
		}
	}
}

// doctor connects to peers, says which it reached and what they told.
func TestDoctor(t *testing.T) {
	a := start(t, "--network", "doctor")
	stdout, stderr, code := invoke("doctor", "--network", "doctor", "--wait", "0s", a.at+"#"+a.id, "127.0.0.1:1")
	if code != exitLimited || stderr != "" {
		t.Errorf("exit code %d, standard error %q", code, stderr)
	}
	for _, want := range []string{"listening on tcp://", "connected " + a.id[:8], "not connected: connect tcp://127.0.0.1:1", "\nInterfaces:\n", "\nUDP: ", "\nTCP: ", "\nnot known to be reachable: ", "\nSeen from outside:\n", "\nClock: ", "\nMTU: ", "\nHow peers are met", "\nunknown:\n", "three different networks", "\nhealth: limited\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q has no %q", stdout, want)
		}
	}
	a.next("connected")
	if l := a.next("lost"); l.text("code") != "disconnected" {
		t.Errorf("got %s, want an orderly end", l.raw)
	}
	if stdout, stderr, code = invoke("doctor", "127.0.0.1:1"); code != exitBroken || stderr != "" || !strings.Contains(stdout, "\nno-answer:\n") {
		t.Errorf("nobody there: exit code %d, %q, %q", code, stdout, stderr)
	}
	for _, wrong := range [][]string{{"nowhere"}, {"--wait", "-1s", "127.0.0.1:1"}, {"--wait", "2h", "127.0.0.1:1"}} {
		if _, stderr, code := invoke(append([]string{"doctor"}, wrong...)...); code != exitUsage || stderr == "" {
			t.Errorf("doctor %q: exit code %d, %q", wrong, code, stderr)
		}
	}
}
