package dial

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

func endpoints(t *testing.T, text string) (out []endpoint.Endpoint) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		e, err := endpoint.Parse(word)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func addrs(text string) (out []netip.Addr) {
	for _, word := range strings.Fields(text) {
		out = append(out, netip.MustParseAddr(word))
	}
	return out
}

// show writes steps as "milliseconds endpoint", one a line.
func show(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%d %s\n", s.Delay.Milliseconds(), strings.TrimPrefix(s.Endpoint.String(), "tcp://"))
	}
	return b.String()
}

func TestPlan(t *testing.T) {
	for _, c := range []struct{ name, peer, ours, want string }{
		{"nothing", "", "10.0.0.1", ""},
		{"one", "203.0.113.5:1", "", "0 203.0.113.5:1"},
		{"near and far start together", "203.0.113.5:1 192.168.1.5:1", "192.168.1.2",
			"0 192.168.1.5:1 / 0 203.0.113.5:1"},
		{"families alternate, IPv6 first, in the peer's order",
			"203.0.113.5:1 203.0.113.6:1 203.0.113.7:1 [2001:db8::5]:1 [2001:db8::6]:1", "",
			"0 [2001:db8::5]:1 / 250 203.0.113.5:1 / 500 [2001:db8::6]:1 / 750 203.0.113.6:1 / 1000 203.0.113.7:1"},
		{"the groups are staggered apart", "203.0.113.5:1 203.0.113.6:1 10.0.0.5:1 10.0.0.6:1", "",
			"0 10.0.0.5:1 / 0 203.0.113.5:1 / 250 10.0.0.6:1 / 250 203.0.113.6:1"},
		{"carrier-grade NAT is far, link-local near", "100.64.0.5:1 169.254.1.5:1 203.0.113.5:1", "",
			"0 169.254.1.5:1 / 0 100.64.0.5:1 / 250 203.0.113.5:1"},
		{"our own network first among private ones", "10.0.0.5:1 172.16.0.5:1 192.168.7.5:1 192.168.1.5:1", "192.168.1.2",
			"0 192.168.1.5:1 / 250 192.168.7.5:1 / 500 172.16.0.5:1 / 750 10.0.0.5:1"},
		{"our own global network is not preferred", "203.0.113.5:1 198.51.100.5:1", "198.51.100.4",
			"0 203.0.113.5:1 / 250 198.51.100.5:1"},
		{"unique local IPv6", "[fd00:2::5]:1 [fd00:1::5]:1", "fd00:1::1 10.0.0.1",
			"0 [fd00:1::5]:1 / 250 [fd00:2::5]:1"},
		{"nothing but loopback", "127.0.0.1:1 [::1]:1", "10.0.0.1",
			"0 [::1]:1 / 250 127.0.0.1:1"},
		{"loopback of another machine", "127.0.0.1:1 192.168.1.5:1 [::1]:1", "192.168.1.2",
			"0 192.168.1.5:1"},
		{"loopback of this machine", "192.168.1.2:1 127.0.0.1:1 203.0.113.5:1", "192.168.1.2 127.0.0.1",
			"0 127.0.0.1:1 / 0 203.0.113.5:1 / 250 192.168.1.2:1"},
		{"our loopback does not make the same machine", "192.168.1.5:1 127.0.0.1:1", "127.0.0.1 192.168.1.2",
			"0 192.168.1.5:1"},
		{"this machine by a global address", "203.0.113.5:1 127.0.0.1:1", "::ffff:203.0.113.5",
			"0 127.0.0.1:1 / 0 203.0.113.5:1"},
		{"what cannot be dialled", "0.0.0.0:1 [::]:1 224.0.0.1:1 255.255.255.255:1 203.0.113.5:0 [fe80::1]:1", "", ""},
		{"loopback beside what cannot be dialled", "0.0.0.0:1 127.0.0.1:1", "", "0 127.0.0.1:1"},
		{"link-local with a zone", "[fe80::1%eth0]:1", "fe80::2%eth0 fe80::2", "0 [fe80::1%eth0]:1"},
		{"repetitions, also mapped", "203.0.113.5:1 203.0.113.5:1 [::ffff:203.0.113.5]:1 203.0.113.5:2", "",
			"0 203.0.113.5:1 / 250 203.0.113.5:2"},
		{"uTP after TCP", "utp://203.0.113.5:1 203.0.113.5:1 utp://203.0.113.6:1", "",
			"0 203.0.113.5:1 / 500 utp://203.0.113.5:1 / 750 utp://203.0.113.6:1"},
		{"uTP alone has no reason to wait", "utp://203.0.113.5:1 10.0.0.5:1", "",
			"0 10.0.0.5:1 / 0 utp://203.0.113.5:1"},
		{"tracer is raced against nothing", "tracer://203.0.113.5:1 203.0.113.5:1", "", "0 203.0.113.5:1"},
		{"nor against uTP", "tracer://203.0.113.5:1 utp://203.0.113.5:1", "", "0 utp://203.0.113.5:1"},
		{"nor against what cannot be dialled", "tracer://203.0.113.5:1 0.0.0.0:1", "", ""},
		{"tracer alone", "tracer://203.0.113.5:1 tracer://10.0.0.5:1", "", "0 tracer://10.0.0.5:1 / 0 tracer://203.0.113.5:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := show(Plan(endpoints(t, c.peer), addrs(c.ours)))
			want := strings.ReplaceAll(c.want, " / ", "\n")
			if strings.TrimSpace(got) != want {
				t.Errorf("Plan(%s), ours %s:\n%s\nwant\n%s", c.peer, c.ours, got, want)
			}
		})
	}
}

func TestPlanLeavesOutMalformedEndpoints(t *testing.T) {
	bad := []endpoint.Endpoint{
		{}, {Transport: endpoint.TCP}, {Transport: endpoint.TCP, Addr: netip.AddrPortFrom(netip.Addr{}, 5)},
		{Transport: 99, Addr: netip.MustParseAddrPort("203.0.113.5:1")}, {Addr: netip.MustParseAddrPort("203.0.113.5:1")},
	}
	if got := Plan(bad, []netip.Addr{{}}); len(got) != 0 {
		t.Errorf("Plan = %v", got)
	}
}

func TestPlanIsBoundedAndKeepsBothGroups(t *testing.T) {
	var many []endpoint.Endpoint
	for i := range 100 {
		many = append(many, endpoint.New(endpoint.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1)))
	}
	for i := range 100 {
		many = append(many, endpoint.New(endpoint.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 1)))
	}
	got := Plan(many, nil)
	if len(got) != MaxSteps {
		t.Fatalf("%d steps, want %d", len(got), MaxSteps)
	}
	near := 0
	for _, s := range got {
		if s.Endpoint.Scope() == endpoint.Private {
			near++
		}
	}
	if near != MaxSteps/2 {
		t.Errorf("%d of %d steps are near, want half", near, len(got))
	}
	if !slices.IsSortedFunc(got, func(a, b Step) int { return int(a.Delay - b.Delay) }) {
		t.Error("the steps are not in the order of their delays")
	}
}

// FuzzPlan checks what holds for every list: bound, order, no repetition,
// nothing that was not listed.
func FuzzPlan(f *testing.F) {
	f.Add([]byte("\x01\x04\xcb\x00\x71\x05\x01"), []byte{10, 0, 0, 1})
	f.Add([]byte("\x01\x04\x7f\x00\x00\x01\x01\x02\x04\x0a\x00\x00\x05\x01"), []byte{10, 0, 0, 5})
	f.Fuzz(func(t *testing.T, list, own []byte) {
		var listed []endpoint.Endpoint
		for len(list) >= 7 {
			a := netip.AddrFrom4([4]byte(list[2:6]))
			if list[1]&1 == 1 {
				var six [16]byte
				copy(six[:], list[2:6])
				six[15] = list[6]
				a = netip.AddrFrom16(six)
			}
			listed = append(listed, endpoint.Endpoint{Transport: endpoint.Transport(list[0]), Addr: netip.AddrPortFrom(a, uint16(list[6]))})
			list = list[7:]
		}
		ours, _ := netip.AddrFromSlice(own)
		steps := Plan(listed, []netip.Addr{ours})
		if len(steps) > MaxSteps {
			t.Fatalf("%d steps", len(steps))
		}
		seen := map[endpoint.Endpoint]bool{}
		for i, s := range steps {
			e := s.Endpoint
			if seen[e] || e.Scope() == endpoint.Unusable || e.Addr.Port() == 0 || !e.Transport.Known() || e.Addr.Addr().Is4In6() {
				t.Fatalf("step %d: %v", i, s)
			}
			if !slices.ContainsFunc(listed, func(l endpoint.Endpoint) bool { return endpoint.New(l.Transport, l.Addr) == e }) {
				t.Fatalf("step %d: %v was not listed", i, e)
			}
			if s.Delay < 0 || i > 0 && s.Delay < steps[i-1].Delay {
				t.Fatalf("step %d: %v after %v", i, s.Delay, steps[i-1].Delay)
			}
			seen[e] = true
		}
		if !slices.Equal(steps, Plan(listed, []netip.Addr{ours})) {
			t.Fatal("the same list gives another plan")
		}
	})
}
