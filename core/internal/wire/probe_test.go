package wire

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestProbe(t *testing.T) {
	for text, p := range map[string]Probe{
		"01 00 0102030405060708 0000000000000000 00":               {Kind: ProbeAsk, Token: 0x0102030405060708},
		"02 01 0000000000000000 1112131415161718 04 cb007105 156b": {Kind: ProbeAnswer, Larger: true, Echo: 0x1112131415161718, Seen: netip.MustParseAddrPort("203.0.113.5:5483")},
		"03 00 0000000000000001 0000000000000002 10 20010db8000000000000000000000001 0007": {
			Kind: ProbeNominate, Token: 1, Echo: 2, Seen: netip.MustParseAddrPort("[2001:db8::1]:7"),
		},
		"05 01 0000000000000007 0000000000000000 00":              {Kind: ProbePad, Larger: true, Token: 7},
		"04 01 0000000000000000 0000000000000000 00" + reachNonce: {Kind: ProbeReach, Larger: true, Nonce: [ProbeNonce]byte(unhex(t, reachNonce))},
		"04 00 0000000000000001 0000000000000000 04 cb007105 156b" + reachNonce: {
			Kind: ProbeReach, Token: 1, Seen: netip.MustParseAddrPort("203.0.113.5:5483"), Nonce: [ProbeNonce]byte(unhex(t, reachNonce)),
		},
	} {
		b := p.Append(nil)
		golden(t, "probe", b, text)
		if got, err := ParseProbe(append(b, 0, 0, 0)); err != nil || got != p || len(b) > MaxProbe {
			t.Errorf("%+v, %v", got, err)
		}
		for n := range b {
			if got, err := ParseProbe(b[:n]); err == nil {
				t.Errorf("cut to %d bytes it still parses: %+v", n, got)
			}
		}
	}
	const tokens = "0102030405060708 1112131415161718"
	for _, text := range []string{"00 00 %s 00", "06 00 %s 00", "01 02 %s 00", "01 00 %s 05 0000000000 0000"} {
		if got, err := ParseProbe(unhex(t, fmt.Sprintf(text, tokens))); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func FuzzProbe(f *testing.F) {
	f.Add(Probe{Kind: ProbeAnswer, Seen: netip.MustParseAddrPort("203.0.113.5:5483")}.Append(nil))
	f.Add(Probe{Kind: ProbeReach, Nonce: [ProbeNonce]byte{1, 2, 3}}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParseProbe(b); err == nil {
			if again, err := ParseProbe(p.Append(nil)); err != nil || again != p {
				t.Fatalf("%+v comes back as %+v, %v", p, again, err)
			}
		}
	})
}
