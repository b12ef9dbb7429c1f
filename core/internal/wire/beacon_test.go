package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

func testBeacon(t testing.TB) Beacon {
	record := testContact(t).Append(nil, testKey(t, 1).Sign)
	return Beacon{
		Kind: BeaconAnswer, Time: 0x0199c0ffee01, Echo: [BeaconEcho]byte(unhex(t, beaconEcho)), From: netip.MustParseAddr("10.0.0.5"),
		Doors: []Door{{endpoint.TCP, 5483}, {endpoint.UTP, 40000}}, Record: record, Contact: testContact(t),
	}
}

const (
	beaconEcho = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"
	beaconHead = "02 00 00000199c0ffee01" + beaconEcho + "04 0a000005 02 01 156b 02 9c40"
	// beaconRecord is its length, and the record of contact_test.go.
	beaconRecord = "008c" + contactText + contactSignature
	// beaconSignature is the Ed25519 signature, by the seed 01 01 ... 01, of
	// BeaconContext and all of the above.
	beaconSignature = "a4691acd296886e776eb51f66ecd3cbd23be35cbc643cc733848c72097261ac6" +
		"738c6ce4dbcc8264d673ae3c0ac22b7d8a64cda407b7fb4f809029c702e4e008"
)

// The signature is that of another implementation of Ed25519, too.
func TestBeaconSignatureByAnotherImplementation(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	signature := ed25519.Sign(key, append([]byte("libcrust/1 beacon\x00"), unhex(t, beaconHead+beaconRecord)...))
	golden(t, "signature", signature, beaconSignature)
}

func TestBeacon(t *testing.T) {
	m := testBeacon(t)
	b := m.Append([]byte{0xee}, testKey(t, 1).Sign)[1:]
	golden(t, "beacon without its signature", b[:len(b)-64], beaconHead+beaconRecord)
	golden(t, "signature", b[len(b)-64:], beaconSignature)
	if got, err := PeekBeacon(b); err != nil || !reflect.DeepEqual(got, m) || !got.Signed(b) {
		t.Errorf("%+v, %v", got, err)
	}
	padded := append(bytes.Clone(b), 1, 2, 3)
	if got, err := PeekBeacon(padded); err != nil || !reflect.DeepEqual(got, m) || !got.Signed(padded) {
		t.Errorf("with padding: %+v, %v", got, err)
	}
	shortPrefixes(t, "beacon", b, func(b []byte) error { _, err := PeekBeacon(b); return err })
	for n := range b {
		for bit := range 8 {
			b[n] ^= 1 << bit
			if got, err := PeekBeacon(b); err == nil && got.Signed(b) {
				t.Errorf("with bit %d of byte %d flipped it is still signed", bit, n)
			}
			b[n] ^= 1 << bit
		}
	}
	if m.Signed(nil) || m.Signed(b[:len(b)-1]) || m.Signed(b[:beaconFixed]) || m.Signed(b[:beaconFixed+5]) {
		t.Error("a part of it is signed")
	}
	if (Beacon{}).Signed(b) {
		t.Error("what has no record is signed")
	}
}

// A hello without a record has nothing that could be signed.
func TestBeaconWithoutRecord(t *testing.T) {
	m := Beacon{Kind: BeaconHello, Flags: BeaconFlagAsks, Time: 1, From: netip.MustParseAddr("fe80::1")}
	b := m.Append(nil, func([]byte) []byte { t.Error("it is signed"); return nil })
	golden(t, "hello without a record", b, "01 01 0000000000000001"+strings.Repeat("00", 16)+"10 fe800000000000000000000000000001 00 0000")
	if got, err := PeekBeacon(b); err != nil || !reflect.DeepEqual(got, m) || got.Signed(b) {
		t.Errorf("%+v, %v", got, err)
	}
	shortPrefixes(t, "hello without a record", b, func(b []byte) error { _, err := PeekBeacon(b); return err })
}

// Who signs with another key than the record's cannot speak for its peer, and nobody
// can with a record that he has changed.
func TestBeaconForged(t *testing.T) {
	m := testBeacon(t)
	b := m.Append(nil, testKey(t, 2).Sign)
	if got, err := PeekBeacon(b); err != nil || got.Signed(b) {
		t.Errorf("another's signature: %v", err)
	}
	m.Record = testContact(t).Append(nil, testKey(t, 2).Sign)
	b = m.Append(nil, testKey(t, 1).Sign)
	if got, err := PeekBeacon(b); err != nil || got.Signed(b) {
		t.Errorf("another's signature of the record: %v", err)
	}
}

func TestBeaconForms(t *testing.T) {
	const (
		zeros = "00000000000000000000000000000000"
		hello = "01 00 0000000000000001" + zeros
		from  = "04 0a000005"
	)
	departed := contactHead + "00"
	gone := signedContact(t, unhex(t, departed))
	there := signedContact(t, unhex(t, contactText))
	with := func(kind string, record []byte) string {
		return kind + "00 0000000000000001" + zeros + from + "00" + hexOf(uint16(len(record)), record) + strings.Repeat("00", identity.SignatureSize)
	}
	for name, c := range map[string]struct {
		text string
		says string // empty: accepted
	}{
		"from IPv4":                   {hello + from + "00 0000", ""},
		"from IPv6":                   {hello + "10 20010db8000000000000000000000001 00 0000", ""},
		"from the loopback network":   {hello + "04 7f000001 00 0000", ""},
		"8 doors":                     {hello + from + "08" + strings.Repeat("01 0001", 8) + "0000", ""},
		"9 doors":                     {hello + from + "09" + strings.Repeat("01 0001", 9) + "0000", "over 8"},
		"a door of another transport": {hello + from + "01 63 0001 0000", ""},
		"a door without a port":       {hello + from + "01 01 0000 0000", "without a port"},
		"unknown flags":               {"01 fe 0000000000000001" + zeros + from + "00 0000", ""},
		"kind 0":                      {"00" + hello[2:] + from + "00 0000", "kind 0"},
		"kind 4":                      {"04" + hello[2:] + from + "00 0000", "kind 4"},
		"time 0":                      {"01 00 0000000000000000" + zeros + from + "00 0000", "time of 0"},
		"time 2^48":                   {"01 00 0001000000000000" + zeros + from + "00 0000", "time of"},
		"an address of 5 bytes":       {hello + "05 0a00000500 00 0000", "5 bytes"},
		"from nowhere":                {hello + "04 00000000 00 0000", "0.0.0.0"},
		"from a group":                {hello + "04 e0000001 00 0000", "224.0.0.1"},
		"from everybody":              {hello + "04 ffffffff 00 0000", "255.255.255.255"},
		"an answer without a record":  {"02" + hello[2:] + from + "00 0000", "no record"},
		"a goodbye without a record":  {"03" + hello[2:] + from + "00 0000", "no record"},
		"a record of 449 bytes":       {hello + from + "00 01c1" + strings.Repeat("00", 600), "over 448"},
		"a record that is none":       {hello + from + "00 0070" + strings.Repeat("00", 600), "version 0"},
		"a hello of who is there":     {with("01", there), ""},
		"an answer of who is there":   {with("02", there), ""},
		"a goodbye of who is there":   {with("03", there), "2 endpoints in kind 3"},
		"a hello of who has gone":     {with("01", gone), "0 endpoints in kind 1"},
		"an answer of who has gone":   {with("02", gone), "0 endpoints in kind 2"},
		"a goodbye of who has gone":   {with("03", gone), ""},
	} {
		m, err := PeekBeacon(unhex(t, c.text))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %+v, %v; want an error that says %q", name, m, err, c.says)
		}
	}
	if _, err := PeekBeacon(nil); !errors.Is(err, ErrShort) {
		t.Errorf("nothing: %v", err)
	}
}

// hexOf returns a length and bytes as text.
func hexOf(n uint16, b []byte) string {
	const digits = "0123456789abcdef"
	var text strings.Builder
	for _, c := range append([]byte{byte(n >> 8), byte(n)}, b...) {
		text.WriteByte(digits[c>>4])
		text.WriteByte(digits[c&15])
	}
	return text.String()
}

// The largest beacon has the size that is said, so that all fit a datagram.
func TestLargestBeacon(t *testing.T) {
	c := testContact(t)
	b := c.Append(nil, testKey(t, 1).Sign)
	bare := b[:len(b)-identity.SignatureSize]
	more := MaxContact - len(b) - 3
	record := signedContact(t, append(append(bytes.Clone(bare), 99, byte(more>>8), byte(more)), make([]byte, more)...))
	m := Beacon{Kind: BeaconHello, Time: 1, From: netip.MustParseAddr("fe80::1"), Record: record}
	for range MaxBeaconDoors + 3 { // three are left out
		m.Doors = append(m.Doors, Door{endpoint.TCP, 1})
	}
	b = m.Append(nil, testKey(t, 1).Sign)
	if len(b) != MaxBeacon {
		t.Errorf("%d bytes, want %d", len(b), MaxBeacon)
	}
	if got, err := PeekBeacon(b); err != nil || !got.Signed(b) || len(got.Doors) != MaxBeaconDoors {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzBeacon(f *testing.F) {
	k := testKey(f, 1)
	m := testBeacon(f)
	f.Add(m.Append(nil, k.Sign))
	m.Kind, m.From = BeaconHello, netip.MustParseAddr("fe80::1")
	f.Add(append(m.Append(nil, k.Sign), 0, 0))
	m.Record = nil
	f.Add(m.Append(nil, k.Sign))
	f.Add(Beacon{Kind: BeaconGoodbye, Time: 7, From: m.From, Record: Contact{Peer: k.ID(), Seq: 1, Life: 1}.Append(nil, k.Sign)}.Append(nil, k.Sign))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := PeekBeacon(b)
		if err != nil {
			return
		}
		m.Signed(b)
		if len(m.Doors) > MaxBeaconDoors || len(m.Record) > MaxContact || m.Contact.Departed() != (m.Kind == BeaconGoodbye) && m.Record != nil {
			t.Fatalf("accepted %+v", m)
		}
		again, err := PeekBeacon(m.Append(nil, k.Sign))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v comes back as %+v, %v", m, again, err)
		}
	})
}
