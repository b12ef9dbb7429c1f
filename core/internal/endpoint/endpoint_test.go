package endpoint

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func at(text string) Endpoint { return New(TCP, netip.MustParseAddrPort(text)) }

func TestParse(t *testing.T) {
	for text, want := range map[string]struct {
		endpoint Endpoint
		text     string
	}{
		"203.0.113.5:5483":             {at("203.0.113.5:5483"), "tcp://203.0.113.5:5483"},
		"tcp://203.0.113.5:5483":       {at("203.0.113.5:5483"), "tcp://203.0.113.5:5483"},
		"[2001:db8::1]:1":              {at("[2001:db8::1]:1"), "tcp://[2001:db8::1]:1"},
		"tcp://[2001:DB8:0::1]:1":      {at("[2001:db8::1]:1"), "tcp://[2001:db8::1]:1"},
		"tcp://[::]:0":                 {at("[::]:0"), "tcp://[::]:0"},
		"[::ffff:203.0.113.5]:65535":   {at("203.0.113.5:65535"), "tcp://203.0.113.5:65535"},
		"tcp://[fe80::1%eth0]:1":       {at("[fe80::1%eth0]:1"), "tcp://[fe80::1%eth0]:1"},
		"utp://203.0.113.5:1":          {New(UTP, netip.MustParseAddrPort("203.0.113.5:1")), "utp://203.0.113.5:1"},
		"tracer://[2001:db8::1]:40000": {New(Tracer, netip.MustParseAddrPort("[2001:db8::1]:40000")), "tracer://[2001:db8::1]:40000"},
	} {
		got, err := Parse(text)
		if err != nil || got != want.endpoint {
			t.Errorf("Parse(%q) = %v, %v; want %v", text, got, err, want.endpoint)
		}
		if got.String() != want.text {
			t.Errorf("%q is written %q, want %q", text, got, want.text)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "tcp://", "://1.2.3.4:5", "http://1.2.3.4:5", "TCP://1.2.3.4:5", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1",
		":5483", "tcp://:5483", "localhost:5483", "example.org:1", "2001:db8::1:5483", "[1.2.3.4]:5", "1.2.3:4", "1.2.3.4.5:6",
		" 1.2.3.4:5", "1.2.3.4:5 ", "tcp://tcp://1.2.3.4:5", "1.2.3.4:5#peer", "256.1.1.1:1", "[fe80::1%]:1", "1.2.3.4:5\n",
		"[fe80::1%a b]:1", "[fe80::1%a\nb]:1", "[fe80::1%a#b]:1", "[fe80::1%a]b]:1",
	} {
		got, err := Parse(text)
		if err == nil || !got.IsZero() {
			t.Errorf("Parse(%q) = %v, %v", text, got, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), "endpoint ") || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "want") {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
}

func TestNewUnmaps(t *testing.T) {
	e := New(TCP, netip.MustParseAddrPort("[::ffff:10.0.0.1]:9"))
	if e != at("10.0.0.1:9") {
		t.Errorf("New = %v", e)
	}
	if e := New(TCP, netip.AddrPort{}); e.Scope() != Unusable {
		t.Errorf("New of nothing has scope %d", e.Scope())
	}
}

func TestTransport(t *testing.T) {
	for n, want := range map[Transport]string{0: "transport(0)", TCP: "tcp", UTP: "utp", Tracer: "tracer", 4: "transport(4)", 255: "transport(255)"} {
		if n.String() != want {
			t.Errorf("%d is called %s, want %s", uint8(n), n, want)
		}
		if n.Known() != !strings.HasPrefix(want, "transport(") {
			t.Errorf("%s: known %v", n, n.Known())
		}
	}
	if TCP != 1 || UTP != 2 || Tracer != 3 {
		t.Error("the numbers are part of the wire format")
	}
}

func TestText(t *testing.T) {
	type holder struct{ At Endpoint }
	for _, e := range []Endpoint{{}, at("203.0.113.5:5483"), at("[2001:db8::1]:1"), New(UTP, netip.MustParseAddrPort("1.2.3.4:5"))} {
		out, err := json.Marshal(holder{e})
		if err != nil {
			t.Fatal(err)
		}
		back := holder{at("9.9.9.9:9")}
		if err := json.Unmarshal(out, &back); err != nil || back.At != e {
			t.Errorf("%s came back as %v, %v", out, back.At, err)
		}
	}
	back := holder{at("9.9.9.9:9")}
	if err := json.Unmarshal([]byte(`{"At":"nonsense"}`), &back); err == nil || back.At != at("9.9.9.9:9") {
		t.Errorf("nonsense: %v, and the value became %v", err, back.At)
	}
	if !(Endpoint{}).IsZero() || at("0.0.0.0:0").IsZero() || (Endpoint{}).String() != "" {
		t.Error("IsZero")
	}
}

func TestScope(t *testing.T) {
	for scope, addrs := range map[Scope]string{
		Unusable:  "0.0.0.0 :: 224.0.0.1 239.255.255.255 255.255.255.255 ff02::1 ff0e::1",
		Loopback:  "127.0.0.1 127.255.255.254 ::1",
		LinkLocal: "169.254.0.1 169.254.255.254 fe80::1 febf::1 fe80::1%eth0",
		Private:   "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 fc00::1 fdff::1",
		CGNAT:     "100.64.0.0 100.127.255.255",
		Global:    "1.1.1.1 9.255.255.255 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.167.0.1 192.169.0.1 2001:db8::1 fec0::1 2606:4700::1111",
	} {
		for _, text := range strings.Fields(addrs) {
			a := netip.MustParseAddr(text)
			if got := New(TCP, netip.AddrPortFrom(a, 1)).Scope(); got != scope {
				t.Errorf("%s has scope %d, want %d", text, got, scope)
			}
			if a.Is4() {
				mapped := Endpoint{TCP, netip.AddrPortFrom(netip.AddrFrom16(a.As16()), 1)}
				if got := mapped.Scope(); got != scope {
					t.Errorf("%s has scope %d, want %d", mapped, got, scope)
				}
			}
		}
	}
	if (Endpoint{}).Scope() != Unusable {
		t.Error("the zero Endpoint is usable")
	}
	if !slices.IsSorted([]Scope{Unusable, Loopback, LinkLocal, Private, CGNAT, Global}) {
		t.Error("greater does not reach farther")
	}
}

// TestCompare checks every pair of an ordered list.
func TestCompare(t *testing.T) {
	ordered := []Endpoint{
		{}, {Transport: TCP}, at("1.2.3.4:1"), at("1.2.3.4:2"), at("1.2.3.5:1"), at("[::1]:1"), at("[fe80::1]:1"), at("[fe80::1%a]:1"),
		at("[fe80::1%b]:1"), New(UTP, netip.MustParseAddrPort("1.2.3.4:1")), New(Tracer, netip.MustParseAddrPort("1.2.3.4:1")),
	}
	for i, a := range ordered {
		for j, b := range ordered {
			want := min(max(i-j, -1), 1)
			if got := Compare(a, b); got != want {
				t.Errorf("Compare(%v, %v) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"tcp://203.0.113.5:5483", "utp://[2001:db8::1]:40000", "[::ffff:1.2.3.4]:5", "tracer://[fe80::1%eth0]:1", "1.2.3.4:", "[::]:0", "x://",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			if !e.IsZero() {
				t.Fatalf("%q: an error and a value", text)
			}
			return
		}
		if e.IsZero() || !e.Transport.Known() || !e.Addr.IsValid() || e.Addr.Addr().Is4In6() {
			t.Fatalf("%q became %#v", text, e)
		}
		again, err := Parse(e.String())
		if err != nil || again != e {
			t.Fatalf("%q became %q, which became %q, %v", text, e, again, err)
		}
	})
}
