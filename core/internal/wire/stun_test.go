package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
)

// The sample messages of RFC 5769 (sections 2.1 to 2.3). The request uses
// attributes that are not for us.
const (
	stunSampleRequest = `00 01 00 58 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae
		80 22 00 10 53 54 55 4e 20 74 65 73 74 20 63 6c 69 65 6e 74
		00 24 00 04 6e 00 01 ff
		80 29 00 08 93 2f f9 b1 51 26 3b 36
		00 06 00 09 65 76 74 6a 3a 68 36 76 59 20 20 20
		00 08 00 14 9a ea a7 0c bf d8 cb 56 78 1e f2 b5 b2 d3 f2 49 c1 b5 71 a2
		80 28 00 04 e5 7a 3b cf`
	stunSample4 = `01 01 00 3c 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae
		80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20
		00 20 00 08 00 01 a1 47 e1 12 a6 43
		00 08 00 14 2b 91 f5 99 fd 9e 90 c3 8c 74 89 f9 2a f9 ba 53 f0 6b e7 d7
		80 28 00 04 c0 7d 4c 96`
	stunSample6 = `01 01 00 48 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae
		80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20
		00 20 00 14 00 02 a1 47 01 13 a9 fa a5 d3 f1 79 bc 25 f4 b5 be d2 b9 d9
		00 08 00 14 a3 82 95 4e 4b e6 7b f1 17 84 c9 7c 82 92 c2 75 bf e3 ed 41
		80 28 00 04 c8 fb 0b 4c`
)

func TestSTUNSamples(t *testing.T) {
	id := [STUNID]byte(unhex(t, "b7e7a701bc34d686fa87dfae"))
	for text, want := range map[string]STUN{
		stunSampleRequest: {Type: STUNRequest, ID: id, Unknown: 0x0024}, // PRIORITY
		stunSample4:       {Type: STUNSuccess, ID: id, Mapped: netip.MustParseAddrPort("192.0.2.1:32853")},
		stunSample6:       {Type: STUNSuccess, ID: id, Mapped: netip.MustParseAddrPort("[2001:db8:1234:5678:11:2233:4455:6677]:32853")},
	} {
		b := unhex(t, strings.Join(strings.Fields(text), ""))
		if got, err := ParseSTUN(b); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		for n := range b {
			if got, err := ParseSTUN(b[:n]); !errors.Is(err, ErrSTUN) {
				t.Errorf("cut to %d bytes: %+v, %v", n, got, err)
			}
		}
		for i := range b { // every byte is under the fingerprint, at the end
			if i >= len(b)-8 && i < len(b)-4 {
				continue // that says that it is one
			}
			b[i] ^= 1
			if got, err := ParseSTUN(b); !errors.Is(err, ErrSTUN) {
				t.Errorf("with byte %d changed: %+v, %v", i, got, err)
			}
			b[i] ^= 1
		}
	}
}

func TestSTUN(t *testing.T) {
	id := [STUNID]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	const rest = "2112a442 0102030405060708090a0b0c"
	for text, m := range map[string]STUN{
		"0001 0000" + rest:                                  {Type: STUNRequest, ID: id},
		"0001 0008" + rest + "0003 0004 00000006":           {Type: STUNRequest, ID: id, ChangeIP: true, ChangePort: true},
		"0001 0008" + rest + "0003 0004 00000002":           {Type: STUNRequest, ID: id, ChangePort: true},
		"0101 000c" + rest + "0020 0008 0001 3479 ea12d547": {Type: STUNSuccess, ID: id, Mapped: netip.MustParseAddrPort("203.0.113.5:5483")},
		"0101 0018" + rest + "0020 0008 0001 3479 ea12d547 802c 0008 0001 0d97 cb007106": {
			Type: STUNSuccess, ID: id, Mapped: netip.MustParseAddrPort("203.0.113.5:5483"), Other: netip.MustParseAddrPort("203.0.113.6:3479"),
		},
		"0101 0018" + rest + "0020 0014 0002 2115 0113a9fa 0102030405060708090a0b0d": {Type: STUNSuccess, ID: id, Mapped: netip.MustParseAddrPort("[2001:db8::1]:7")},
		"0111 000c" + rest + "0009 0007 00000414 6e6f2e00":                           {Type: STUNError, ID: id, Code: 420, Reason: "no."},
	} {
		b := m.Append(nil)
		golden(t, "STUN", b, text)
		if got, err := ParseSTUN(b); err != nil || got != m {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
		for n := range b {
			if got, err := ParseSTUN(b[:n]); !errors.Is(err, ErrSTUN) {
				t.Errorf("cut to %d bytes: %+v, %v", n, got, err)
			}
		}
	}
	long := STUN{Type: STUNError, Code: 500, Reason: strings.Repeat("x", 1000)}
	if got, err := ParseSTUN(long.Append(nil)); err != nil || len(got.Reason) != maxSTUNReason {
		t.Errorf("a long reason: %d bytes, %v", len(got.Reason), err)
	}
}

// TestSTUNOddities checks what servers send that are older, newer or wrong.
func TestSTUNOddities(t *testing.T) {
	const head, rest = "0101", "2112a442 0102030405060708090a0b0c"
	const mapped, xored = "0001 0008 0001 156b cb007107", "0020 0008 0001 3479 ea12d547"
	for name, c := range map[string]struct {
		text, mapped, other string
		unknown             uint16
	}{
		"MAPPED-ADDRESS alone":    {head + "000c" + rest + mapped, "203.0.113.7:5483", "", 0},
		"both, the old one first": {head + "0018" + rest + mapped + xored, "203.0.113.5:5483", "", 0},
		"both, the old one last":  {head + "0018" + rest + xored + mapped, "203.0.113.5:5483", "", 0},
		"the same twice":          {head + "0018" + rest + xored + "0020 0008 0001 3479 ea12d548", "203.0.113.5:5483", "", 0},
		"RFC 3489's addresses":    {head + "0024" + rest + mapped + "0005 0008 0001 0d97 cb007106 0004 0008 0001 0d96 cb007105", "203.0.113.7:5483", "203.0.113.6:3479", 0},
		"an optional one":         {head + "0014" + rest + "ffff 0002 0000 0000" + xored, "203.0.113.5:5483", "", 0},
		"one to be understood":    {head + "0014" + rest + "7fff 0002 0000 0000" + xored, "203.0.113.5:5483", "", 0x7fff},
	} {
		got, err := ParseSTUN(unhex(t, c.text))
		if err != nil || got.Mapped.String() != c.mapped || got.Unknown != c.unknown || c.other != "" && got.Other.String() != c.other {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, text := range map[string]string{
		"another cookie":             "0101 0000 2112a443 0102030405060708090a0b0c",
		"another method":             "0103 0000" + rest,
		"an indication":              "0011 0000" + rest,
		"no STUN":                    "c101 0000" + rest,
		"a length that lies":         "0101 0004" + rest,
		"no multiple of 4":           "0101 0002" + rest + "0000",
		"an attribute too long":      "0101 0008" + rest + "0020 0008 0001 3479",
		"an attribute far too long":  "0101 0004" + rest + "8022 ffff",
		"no such family":             "0101 000c" + rest + "0020 0008 0003 3479 ea12d547",
		"IPv4 of the size of IPv6":   "0101 0018" + rest + "0020 0014 0001 2115 0113a9fa 0102030405060708090a0b0d",
		"IPv6 of the size of IPv4":   "0101 000c" + rest + "0020 0008 0002 3479 ea12d547",
		"an address without address": "0101 0008" + rest + "0020 0004 0001 3479",
		"an empty address":           "0101 0004" + rest + "0001 0000",
		"a bad old address":          "0101 0008" + rest + "0005 0004 0001 3479",
		"an error without code":      "0111 0000" + rest,
		"code 299":                   "0111 0008" + rest + "0009 0004 00000263",
		"code 700":                   "0111 0008" + rest + "0009 0004 00000700",
		"a change of 3 bytes":        "0001 0008" + rest + "0003 0003 00000600",
		"a wrong fingerprint":        "0101 0008" + rest + "8028 0004 00000000",
		"a short fingerprint":        "0101 0008" + rest + "8028 0003 00000000",
		"more behind a fingerprint":  behindFingerprint(t),
	} {
		if got, err := ParseSTUN(unhex(t, text)); !errors.Is(err, ErrSTUN) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := ParseSTUN(make([]byte, MaxSTUN+4)); !errors.Is(err, ErrSTUN) {
		t.Error("a message that is too long was read")
	}
}

// behindFingerprint is a message with a right fingerprint and an attribute behind it.
func behindFingerprint(t *testing.T) string {
	b := unhex(t, "0101 0010 2112a442 0102030405060708090a0b0c")
	crc := binary.BigEndian.AppendUint32(append(b, 0x80, 0x28, 0, 4), crc32.ChecksumIEEE(b)^stunFingerprint)
	text := ""
	for _, c := range append(crc, 0x80, 0x22, 0, 4, 'x', 'x', 'x', 'x') {
		text += string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])
	}
	return text
}

func FuzzSTUN(f *testing.F) {
	for _, m := range []STUN{
		{Type: STUNRequest, ChangeIP: true},
		{Type: STUNSuccess, ID: [STUNID]byte{1, 2, 3}, Mapped: netip.MustParseAddrPort("203.0.113.5:5483"), Other: netip.MustParseAddrPort("[2001:db8::1]:7")},
		{Type: STUNError, Code: 420, Reason: "Unknown Attribute"},
	} {
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseSTUN(b)
		if err != nil {
			return
		}
		m.Unknown = 0
		if m.Type != STUNError {
			m.Code, m.Reason = 0, ""
		}
		if again, err := ParseSTUN(m.Append(nil)); err != nil || again != m {
			t.Fatalf("%+v comes back as %+v, %v", m, again, err)
		}
	})
}

// TestSTUNAddressForms: an address of IPv4 in IPv6's form is one of IPv4, and one of IPv6 that
// looks so only while it is masked is not.
func TestSTUNAddressForms(t *testing.T) {
	m := STUN{Type: STUNSuccess, ID: [STUNID]byte{1, 2, 3}}
	masked := netip.MustParseAddrPort("[2112:a442:102:300:0:ffff:c000:201]:7") // ::ffff:192.0.2.1 under the mask
	for _, c := range []struct{ at, want netip.AddrPort }{
		{netip.MustParseAddrPort("[::ffff:192.0.2.1]:7"), netip.MustParseAddrPort("192.0.2.1:7")},
		{masked, masked},
	} {
		m.Mapped, m.Other = c.at, c.at
		got, err := ParseSTUN(m.Append(nil))
		if err != nil || got.Mapped != c.want || got.Other != c.want {
			t.Errorf("%v: mapped %v, other %v, %v", c.at, got.Mapped, got.Other, err)
		}
	}
}
