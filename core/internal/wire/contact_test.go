package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

func testContact(t testing.TB) Contact {
	return Contact{
		Peer: testKey(t, 1).ID(), Seq: 0x0199c0ffee00, Life: 7200, Role: 1, Flags: ContactRelay | ContactDirect,
		Endpoints: []endpoint.Endpoint{
			endpoint.New(endpoint.TCP, netip.MustParseAddrPort("203.0.113.5:5483")),
			endpoint.New(endpoint.UTP, netip.MustParseAddrPort("[2001:db8::1]:40000")),
		},
	}
}

const (
	contactHead = "01" + testPeer + "00000199c0ffee00 00001c20 01 03"
	contactText = contactHead + "02 01 04 cb007105 156b 02 10 20010db8000000000000000000000001 9c40"
	// contactSignature is the Ed25519 signature, by the seed 01 01 ... 01, of
	// ContactContext and the bytes of contactText.
	contactSignature = "7daec5979584bdcc3fe10cd388992a27028c2a86e2ea8434ce70b9eced93e473" +
		"94385b585b7c70b8c96eb2ad8ed3c42471a1ec7640ae3bdbae57914054b5fb03"
)

// The signature is that of another implementation of Ed25519, too.
func TestContactSignatureByAnotherImplementation(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	signature := ed25519.Sign(key, append([]byte("libcrust/1 contact record\x00"), unhex(t, contactText)...))
	golden(t, "signature", signature, contactSignature)
}

func TestContact(t *testing.T) {
	k, c := testKey(t, 1), testContact(t)
	b := c.Append([]byte{0xee}, k.Sign)[1:]
	golden(t, "contact record without its signature", b[:len(b)-64], contactText)
	golden(t, "signature", b[len(b)-64:], contactSignature)
	if got, err := ParseContact(b); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := ParseContact(b[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes it still parses", n, len(b))
		}
	}
	for n := range b {
		for bit := range 8 {
			b[n] ^= 1 << bit
			if _, err := ParseContact(b); err == nil {
				t.Errorf("with bit %d of byte %d flipped it still parses", bit, n)
			}
			b[n] ^= 1 << bit
		}
	}
	if _, err := ParseContact(append(b, 0)); err == nil {
		t.Error("with a byte more it still parses")
	}
	if _, err := PeekContact(b[:contactFixed+identity.SignatureSize-1]); !errors.Is(err, ErrShort) {
		t.Errorf("shorter than any: %v", err)
	}
}

// PeekContact refuses what ParseContact refuses, but for the signature.
func TestPeekContact(t *testing.T) {
	c := testContact(t)
	b := c.Append(nil, testKey(t, 2).Sign)
	got, err := PeekContact(b)
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v, %v", got, err)
	}
	if got.Signed(b) || got.Signed(nil) {
		t.Error("another peer's signature is taken for the peer's")
	}
	if _, err := ParseContact(b); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("another peer's signature: %v", err)
	}
	b = c.Append(nil, testKey(t, 1).Sign)
	if !got.Signed(b) {
		t.Error("the peer's signature is refused")
	}
	// The signature of the same bytes as another thing.
	bare := b[:len(b)-64]
	for _, context := range []string{"", InfoContext} {
		if _, err := ParseContact(append(bytes.Clone(bare), testKey(t, 1).Sign(append([]byte(context), bare...))...)); err == nil {
			t.Errorf("a signature with the context %q is accepted", context)
		}
	}
}

func TestContactHead(t *testing.T) {
	b := unhex(t, contactHead+"00")
	if peer, seq, err := ContactHead(b); err != nil || peer != testKey(t, 1).ID() || seq != testContact(t).Seq {
		t.Errorf("%v, %x, %v", peer, seq, err)
	}
	shortPrefixes(t, "head of a contact record", b, func(b []byte) error { _, _, err := ContactHead(b); return err })
	b[0] = 2
	if _, _, err := ContactHead(b); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("of another version: %v", err)
	}
}

// signedContact returns what text says, with the signature of the peer.
func signedContact(t testing.TB, b []byte) []byte {
	return append(b[:len(b):len(b)], testKey(t, 1).Sign(append([]byte(ContactContext), b...))...)
}

func TestContactForms(t *testing.T) {
	head := contactHead
	for name, c := range map[string]struct {
		text string
		says string // empty: accepted
	}{
		"a departed peer's":         {head + "00", ""},
		"fields of later versions":  {head + "00 63 0002 aabb", ""},
		"8 endpoints":               {head + "08" + strings.Repeat("01 04 01020304 0001", 8), ""},
		"9 endpoints":               {head + "09" + strings.Repeat("01 04 01020304 0001", 9), "over 8"},
		"448 bytes":                 {head + "00 63 014d" + strings.Repeat("00", 333), ""},
		"449 bytes":                 {head + "00 63 014e" + strings.Repeat("00", 334), "over 448"},
		"version 2":                 {"02" + head[2:] + "00", "version 2"},
		"sequence number 0":         {"01" + testPeer + "0000000000000000 00001c20 00 00 00", "sequence number"},
		"sequence number 2^48":      {"01" + testPeer + "0001000000000000 00001c20 00 00 00", "sequence number"},
		"the last sequence number":  {"01" + testPeer + "0000ffffffffffff 00001c20 00 00 00", ""},
		"life 0":                    {"01" + testPeer + "00000199c0ffee00 00000000 00 00 00", "life"},
		"a life of a day":           {"01" + testPeer + "00000199c0ffee00 00015180 00 00 00", ""},
		"a life of more":            {"01" + testPeer + "00000199c0ffee00 00015181 00 00 00", "life"},
		"an address of 5 bytes":     {head + "01 01 05 0102030405 0001", "5 bytes"},
		"an endpoint without port":  {head + "01 01 04 01020304", "too early"},
		"fewer endpoints than said": {head + "02 01 04 01020304 0001", "too early"},
		"port 0":                    {head + "01 01 04 01020304 0000", "tcp://1.2.3.4:0"},
		"the address 0.0.0.0":       {head + "01 01 04 00000000 0001", "tcp://0.0.0.0:1"},
		"a multicast address":       {head + "01 02 04 e0000001 0001", "utp://224.0.0.1:1"},
		"a field cut short":         {head + "00 63 0002 aa", "too early"},
		"a field twice":             {head + "00 63 0000 63 0000", "twice"},
	} {
		got, err := ParseContact(signedContact(t, unhex(t, c.text)))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %+v, %v; want an error that says %q", name, got, err, c.says)
		}
	}
}

// Who lists only endpoints that this version does not know has not departed.
func TestContactWithUnknownTransports(t *testing.T) {
	got, err := ParseContact(signedContact(t, unhex(t, contactHead+"02 63 04 01020304 0001 01 04 01020304 0001")))
	if err != nil || len(got.Endpoints) != 1 || got.Unknown != 1 || got.Departed() {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParseContact(signedContact(t, unhex(t, contactHead+"01 63 04 01020304 0000")))
	if err != nil || len(got.Endpoints) != 0 || got.Unknown != 1 || got.Departed() {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ParseContact(signedContact(t, unhex(t, contactHead+"00")))
	if err != nil || !got.Departed() {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestContactKeepsAtMost8Endpoints(t *testing.T) {
	c := testContact(t)
	for n := range 20 {
		a := netip.AddrFrom16([16]byte{0x20, 1, 15: byte(n)})
		c.Endpoints = append(c.Endpoints, endpoint.New(endpoint.UTP, netip.AddrPortFrom(a, 1)))
	}
	got, err := ParseContact(c.Append(nil, testKey(t, 1).Sign))
	if err != nil || !reflect.DeepEqual(got.Endpoints, c.Endpoints[:MaxContactEndpoints]) {
		t.Errorf("%+v, %v", got, err)
	}
	c.Endpoints = c.Endpoints[1 : 1+MaxContactEndpoints]
	if n := len(c.Append(nil, testKey(t, 1).Sign)); n != 272 {
		t.Errorf("the largest record that this version makes has %d bytes, docs/PROTOCOL.md says 272", n)
	}
}

func TestContactCurrent(t *testing.T) {
	const made = 1_800_000_000_000
	c := Contact{Seq: made, Life: 7200}
	if c.Expires() != made+7_200_000 {
		t.Errorf("expires at %d", c.Expires())
	}
	hour := uint64(time.Hour / time.Millisecond)
	for name, x := range map[string]struct {
		now  uint64
		says string
	}{
		"just made":           {made, ""},
		"a clock behind":      {made - 24*hour, ""},
		"a clock far behind":  {made - 24*hour - 1, "ahead"},
		"a clock of 1970":     {0, "ahead"},
		"the last moment":     {made + 2*hour - 1, ""},
		"over":                {made + 2*hour, "expired 0s ago"},
		"over for an hour":    {made + 3*hour, "expired 1h0m0s ago"},
		"a clock of nonsense": {math.MaxUint64, "expired"},
	} {
		if err := c.Current(x.now); x.says == "" && err != nil || x.says != "" && (err == nil || !strings.Contains(err.Error(), x.says)) {
			t.Errorf("%s: %v; want an error that says %q", name, err, x.says)
		}
	}
}

// FuzzContact signs what it mutates, so that mutations reach what lies behind the
// signature.
func FuzzContact(f *testing.F) {
	k := testKey(f, 1)
	b := testContact(f).Append(nil, k.Sign)
	f.Add(b[:len(b)-64], true)
	f.Add(b, false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign {
			b = signedContact(t, b)
		}
		peeked, err := PeekContact(b)
		c, errSigned := ParseContact(b)
		if errSigned == nil && (err != nil || !reflect.DeepEqual(c, peeked)) {
			t.Fatalf("%+v, but without its signature %+v, %v", c, peeked, err)
		}
		if err != nil || errSigned != nil {
			return
		}
		if len(c.Endpoints)+c.Unknown > MaxContactEndpoints || c.Life > MaxContactLife || c.Life == 0 || c.Expires() < c.Seq {
			t.Fatalf("accepted %+v", c)
		}
		if !sign {
			return // a signature by somebody else's key: nothing to sign again with
		}
		c.Unknown = 0
		again, err := ParseContact(c.Append(nil, k.Sign))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%+v comes back as %+v, %v", c, again, err)
		}
	})
}
