package wire

import (
	"net/netip"
	"testing"
)

func TestNAT(t *testing.T) {
	for name, c := range map[string]struct {
		nat  NAT
		text string
	}{
		"nothing known": {NAT{}, "00 00 0000 0000 0000 0000 00000000 00"},
		"home": {
			NAT{Mapping: EndpointIndependent, Filtering: AddressPortDependent, Ports: PortsPreserving, Hairpin: true, External: netip.MustParseAddrPort("203.0.113.5:5483"), Age: 1500},
			"1d 01 0000 0000 0000 0000 000005dc 04 cb007105 156b",
		},
		"sequential": {
			NAT{Mapping: AddressPortDependent, Filtering: AddressDependent, Ports: PortsSequential, Step: -2, Rate: 105, Double: true, Openers: true, Agreed: true},
			"2b 0e fffe 0069 0000 0000 00000000 00",
		},
		"block": {
			NAT{Mapping: AddressDependent, Ports: PortsBlock, Low: 1024, High: 1535, External: netip.MustParseAddrPort("[2001:db8::1]:7")},
			"32 00 0000 0000 0400 05ff 00000000 10 20010db8000000000000000000000001 0007",
		},
	} {
		b := c.nat.Append(nil)
		golden(t, name, b, c.text)
		got, rest, err := ParseNAT(append(b, 9))
		if err != nil || got != c.nat || len(rest) != 1 || len(b) > MaxNAT {
			t.Errorf("%s: %+v, %d left of %d bytes, %v", name, got, len(rest), len(b), err)
		}
		for n := range b {
			if got, _, err := ParseNAT(b[:n]); err == nil {
				t.Errorf("%s: cut to %d bytes it still parses: %+v", name, n, got)
			}
		}
	}
}

func TestNATRefused(t *testing.T) {
	for name, text := range map[string]string{
		"sequence of step 0": "21 00 0000 0000 0000 0000 00000000 00",
		"block backwards":    "31 00 0000 0000 0002 0001 00000000 00",
		"address of 5 bytes": "11 00 0000 0000 0000 0000 00000000 05 0102030405 0001",
	} {
		if n, _, err := ParseNAT(unhex(t, text)); err == nil {
			t.Errorf("%s: %+v", name, n)
		}
	}
	if n, _, err := ParseNAT(unhex(t, "f0 f0 0000 0000 0000 0000 00000000 00")); err != nil || n != (NAT{}) {
		t.Errorf("kinds and flags to come: %+v, %v", n, err)
	}
}

func FuzzNAT(f *testing.F) {
	f.Add(NAT{Mapping: EndpointIndependent, Ports: PortsPreserving, External: netip.MustParseAddrPort("203.0.113.5:5483")}.Append(nil))
	f.Add(NAT{Ports: PortsSequential, Step: 1, Rate: 20, External: netip.MustParseAddrPort("[2001:db8::1]:7")}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, rest, err := ParseNAT(b)
		if err != nil {
			return
		}
		again, left, err := ParseNAT(append(n.Append(nil), rest...))
		if err != nil || again != n || len(left) != len(rest) {
			t.Fatalf("%+v comes back as %+v, %v", n, again, err)
		}
	})
}
