package crust

import (
	"net/netip"
	"strings"
	"testing"
)

// TestSieve: what of a contact record is dialled from where.
func TestSieve(t *testing.T) {
	for _, c := range []struct{ name, ours, outside, record, want string }{
		{"global from anywhere", "192.168.1.2", "", "tcp://203.0.113.5:1 tcp://[2001:db8::1]:2", "tcp://203.0.113.5:1 tcp://[2001:db8::1]:2"},
		{"only over TCP", "192.168.1.2", "", "utp://203.0.113.5:1 tcp://203.0.113.5:2", "tcp://203.0.113.5:2"},
		{"private in the same block", "10.9.0.1", "", "tcp://10.0.1.5:1 tcp://192.168.1.5:1", "tcp://10.0.1.5:1"},
		{"private, from the Internet", "203.0.113.9", "203.0.113.9", "tcp://10.0.1.5:1", ""},
		{"private, behind another NAT", "192.168.1.2", "198.51.100.7", "utp://203.0.113.5:1 tcp://192.168.1.5:2", ""},
		{"private, behind the same NAT", "192.168.1.2", "203.0.113.5", "utp://203.0.113.5:1 tcp://192.168.1.5:2", "tcp://192.168.1.5:2"},
		{"private, in the same IPv6 site", "2001:db8:1:2::1 10.0.0.1", "", "tcp://[2001:db8:1:3::9]:1 tcp://10.0.0.9:1", "tcp://[2001:db8:1:3::9]:1 tcp://10.0.0.9:1"},
		{"private, in another IPv6 site", "2001:db8:2:2::1 10.0.0.1", "", "tcp://[2001:db8:1:3::9]:1 tcp://10.0.0.9:1", "tcp://[2001:db8:1:3::9]:1"},
		{"unique local", "fd00:1:2:3::1", "", "tcp://[fd00:1:2:4::1]:1 tcp://[fd00:1:3::1]:1", "tcp://[fd00:1:2:4::1]:1"},
		{"of a provider's NAT", "100.64.3.1", "", "tcp://100.99.1.1:1", "tcp://100.99.1.1:1"},
		{"link-local never", "169.254.1.1 fe80::1", "", "tcp://169.254.1.2:1 tcp://[fe80::2]:1", ""},
		{"routers never", "192.168.1.2", "", "tcp://192.168.1.1:80 tcp://192.168.1.5:2", "tcp://192.168.1.5:2"},
		{"this machine", "192.168.1.2", "", "tcp://127.0.0.1:1", "tcp://127.0.0.1:1"},
	} {
		addrs := func(text string) (list []netip.Addr) {
			for _, word := range strings.Fields(text) {
				list = append(list, netip.MustParseAddr(word))
			}
			return list
		}
		var record []Endpoint
		for _, word := range strings.Fields(c.record) {
			ep, err := ParseEndpoint(word)
			if err != nil {
				t.Fatal(err)
			}
			record = append(record, ep)
		}
		var got []string
		for _, ep := range (sieve{addrs(c.ours), addrs(c.outside), addrs("192.168.1.1")}).pass(record) {
			got = append(got, ep.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
