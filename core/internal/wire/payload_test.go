package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// testKey is the identity of a seed that is all one byte.
func testKey(t testing.TB, fill byte) *identity.Key {
	t.Helper()
	k, err := identity.FromSeed(bytes.Repeat([]byte{fill}, identity.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testHello(t testing.TB) Hello {
	return Hello{
		Version: 1, Peer: testKey(t, 1).ID(), AppID: []byte("app"), Role: 1,
		Instance: 0x0102030405060708, Ciphers: 3, LostAfter: 120000, Resume: 30000, Unacked: 8 << 20, Flags: FlagRelay,
	}
}

const (
	// testPeer is the public key of the seed 01 01 ... 01.
	testPeer  = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
	helloText = "01 0001 01  02 0020 " + testPeer + " 04 0001 01  05 0008 0102030405060708  06 0001 03  07 0004 0001d4c0  08 0004 00007530  09 0004 00800000  0a 0001 01"
)

func TestHello(t *testing.T) {
	h := testHello(t)
	golden(t, "hello", h.Append(nil), helloText+"03 0003 617070")
	got, err := ParseHello(h.Append(nil))
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("%+v, %v", got, err)
	}
	h.AppID = nil
	golden(t, "hello without an app id", h.Append(nil), helloText)
	h.AppID = bytes.Repeat([]byte{0xff}, MaxAppID)
	if got, err = ParseHello(h.Append(nil)); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("with the longest app id: %+v, %v", got, err)
	}
	if n := len(h.Append(nil)) + 16 + 32 + 32 + 16; n > MaxNoise {
		t.Errorf("the longest second message has %d bytes, over MaxNoise", n)
	}
}

func TestHelloFieldsInAnyOrderAndUnknownOnes(t *testing.T) {
	b := unhex(t, "7a 0002 abcd 06 0001 01 02 0020"+testPeer+"ff 0000 01 0001 07")
	h, err := ParseHello(b)
	if err != nil || h.Version != 7 || h.Ciphers != 1 || h.Peer.String() != testPeer {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestHelloRefused(t *testing.T) {
	whole := unhex(t, helloText)
	for name, c := range map[string]struct{ text, says string }{
		"empty":                {"", "version"},
		"version 0":            {strings.Replace(helloText, "01 0001 01", "01 0001 00", 1), "version"},
		"no version":           {"02 0020" + testPeer + "06 0001 01", "version"},
		"no peer":              {"01 0001 01 06 0001 01", "peer id"},
		"no cipher":            {"01 0001 01 02 0020" + testPeer, "ChaCha20"},
		"only AES":             {"01 0001 01 02 0020" + testPeer + "06 0001 02", "ChaCha20"},
		"peer of 31 bytes":     {"01 0001 01 02 001f" + testPeer[2:] + "06 0001 01", "peer id"},
		"version of two bytes": {"01 0002 0001", "version"},
		"role of two bytes":    {"04 0002 0001", "role"},
		"instance of 4 bytes":  {"05 0004 00000001", "instance"},
		"ciphers of 0 bytes":   {"06 0000", "ciphers"},
		"lost after 8 bytes":   {"07 0008 0000000000000001", "lost-after"},
		"flags of two bytes":   {"0a 0002 0101", "flags"},
		"empty app id":         {helloText + "03 0000", "app id"},
		"long app id":          {helloText + "03 0101" + strings.Repeat("00", 257), "app id"},
		"a field twice":        {helloText + "01 0001 01", "twice"},
		"an unknown one twice": {helloText + "63 0000 63 0000", "twice"},
		"one byte too many":    {helloText + "00", "too early"},
		"length past the end":  {helloText + "0b 0005 00", "too early"},
	} {
		if h, err := ParseHello(unhex(t, c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; want an error that says %q", name, h, err, c.says)
		}
	}
	for n := range whole { // the last four fields, of 7 bytes each but for the last of 4, may be missing
		if h, err := ParseHello(whole[:n]); err == nil && n != len(whole)-4 && n != len(whole)-11 && n != len(whole)-18 && n != len(whole)-25 {
			t.Errorf("cut to %d bytes it still parses: %+v", n, h)
		}
	}
}

func TestOffer(t *testing.T) {
	golden(t, "offer", AppendOffer(nil), "01 0001 01")
	if v, err := ParseOffer(AppendOffer(nil)); err != nil || v != Version {
		t.Error(v, err)
	}
	if v, err := ParseOffer(unhex(t, "30 0001 ff 01 0001 09")); err != nil || v != 9 {
		t.Errorf("a later version with a field that is unknown: %d, %v", v, err)
	}
	for _, text := range []string{"", "01 0001 00", "01 0000", "01 0002 0101", "01 0001", "30 0001 ff", "01 0001 01 01 0001 01"} {
		if v, err := ParseOffer(unhex(t, text)); err == nil {
			t.Errorf("%q was taken for version %d", text, v)
		}
	}
}

func testInfo(t testing.TB) Info {
	return Info{
		Peer: testKey(t, 1).ID(), Expires: 0x0000000068000000, Nonce: [16]byte(unhex(t, "000102030405060708090a0b0c0d0e0f")),
		Endpoints: []endpoint.Endpoint{
			endpoint.New(endpoint.TCP, netip.MustParseAddrPort("203.0.113.5:5483")),
			endpoint.New(endpoint.UTP, netip.MustParseAddrPort("[2001:db8::1]:40000")),
		},
	}
}

const infoText = "01" + testPeer + "0000000068000000 000102030405060708090a0b0c0d0e0f" +
	"02 01 04 cb007105 156b 02 10 20010db8000000000000000000000001 9c40"

// infoSignature is the Ed25519 signature, by the seed 01 01 ... 01, of
// InfoContext and the bytes of infoText. Ed25519 is deterministic.
const infoSignature = "fd6450714fe9ec9bfa83eb0e494e7c0b3f4ba524ba535f2ecb9e280676732735" +
	"8299031fbe15e4bdc4105dc773c75a3cd8d9b3f442094c3d0458d391d989160e"

// The signature is that of another implementation of Ed25519, too.
func TestInfoSignatureByAnotherImplementation(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	golden(t, "peer", key.Public().(ed25519.PublicKey), testPeer)
	signature := ed25519.Sign(key, append([]byte("libcrust/1 connection info\x00"), unhex(t, infoText)...))
	golden(t, "signature", signature, infoSignature)
}

// TestInfoFacts: facts of the NATs travel with the endpoints, and are left out when
// they tell nothing.
func TestInfoFacts(t *testing.T) {
	k, i := testKey(t, 1), testInfo(t)
	i.UDP = NAT{Mapping: EndpointIndependent, Filtering: AddressPortDependent, Ports: PortsPreserving, External: netip.MustParseAddrPort("203.0.113.9:4000"), Age: 7}
	i.TCP = NAT{Ports: PortsSequential, Step: 2}
	b := i.Append(nil, k.Sign)
	golden(t, "info with facts", b[:len(b)-64], infoText+"02 0024 1d 00 0000 0000 0000 0000 00000007 04 cb007109 0fa0 20 00 0002 0000 0000 0000 00000000 00")
	got, err := ParseInfo(b)
	if err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("%+v, %v", got, err)
	}
	head, facts := b[:len(b)-64-3-0x24], b[len(b)-64-0x24:len(b)-64]
	for n := range 0x25 { // every length but the right one
		v := append(bytes.Clone(facts), 0)[:n]
		if n == 0x24 {
			v = append(bytes.Clone(facts), 0)
		}
		bad := appendField(bytes.Clone(head), fieldFacts, v)
		bad = append(bad, k.Sign(append([]byte(InfoContext), bad...))...)
		if _, err := ParseInfo(bad); err == nil {
			t.Errorf("facts of %d bytes were accepted", len(v))
		}
	}
}

func TestInfo(t *testing.T) {
	k, i := testKey(t, 1), testInfo(t)
	b := i.Append([]byte{0xee}, k.Sign)[1:]
	golden(t, "info without its signature", b[:len(b)-64], infoText)
	golden(t, "signature", b[len(b)-64:], infoSignature)
	got, err := ParseInfo(b)
	if err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := ParseInfo(b[:n]); err == nil {
			t.Errorf("cut to %d of %d bytes it still parses", n, len(b))
		}
	}
	for n := range b {
		for bit := range 8 {
			b[n] ^= 1 << bit
			if _, err := ParseInfo(b); err == nil {
				t.Errorf("with bit %d of byte %d flipped it still parses", bit, n)
			}
			b[n] ^= 1 << bit
		}
	}
	if _, err := ParseInfo(append(b, 0)); err == nil {
		t.Error("with a byte more it still parses")
	}
}

// sealed returns what text says, with the signature of the peer.
func sealed(t *testing.T, text string) []byte {
	b := unhex(t, text)
	return append(b, testKey(t, 1).Sign(append([]byte(InfoContext), b...))...)
}

func TestInfoForms(t *testing.T) {
	head := "01" + testPeer + "0000000068000000 000102030405060708090a0b0c0d0e0f"
	for name, c := range map[string]struct {
		text      string
		endpoints int // -1: refused although the signature is right
	}{
		"no endpoints":              {head + "00", 0},
		"fields of later versions":  {head + "00 63 0002 aabb", 0},
		"an unknown transport":      {head + "02 63 04 01020304 0001 01 04 01020304 0001", 1},
		"an IPv4-mapped address":    {head + "01 01 10 00000000000000000000ffff01020304 0001", 1},
		"32 endpoints":              {head + "20" + strings.Repeat("01 04 01020304 0001", 32), 32},
		"33 endpoints":              {head + "21" + strings.Repeat("01 04 01020304 0001", 33), -1},
		"version 2":                 {"02" + head[2:] + "00", -1},
		"an address of 5 bytes":     {head + "01 01 05 0102030405 0001", -1},
		"an endpoint without port":  {head + "01 01 04 01020304", -1},
		"fewer endpoints than said": {head + "02 01 04 01020304 0001", -1},
		"a field cut short":         {head + "00 63 0002 aa", -1},
		"a field twice":             {head + "00 63 0000 63 0000", -1},
		"over 4096 bytes":           {head + "00 63 0fff" + strings.Repeat("00", 4095), -1},
	} {
		i, err := ParseInfo(sealed(t, c.text))
		if c.endpoints < 0 && err == nil || c.endpoints >= 0 && (err != nil || len(i.Endpoints) != c.endpoints) {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	// Signed by somebody else.
	b := unhex(t, head+"00")
	b = append(b, testKey(t, 2).Sign(append([]byte(InfoContext), b...))...)
	if _, err := ParseInfo(b); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("another peer's signature: %v", err)
	}
	// A signature of the same bytes for another purpose.
	b = unhex(t, head+"00")
	if _, err := ParseInfo(append(b, testKey(t, 1).Sign(b)...)); err == nil {
		t.Error("a signature without the context was accepted")
	}
}

func TestInfoKeepsAtMost32Endpoints(t *testing.T) {
	i := testInfo(t)
	i.Endpoints = nil
	for n := range 40 {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
		i.Endpoints = append(i.Endpoints, endpoint.New(endpoint.TCP, netip.AddrPortFrom(a, 1)))
	}
	got, err := ParseInfo(i.Append(nil, testKey(t, 1).Sign))
	if err != nil || len(got.Endpoints) != MaxEndpoints || got.Endpoints[31] != i.Endpoints[31] {
		t.Errorf("%d endpoints, %v", len(got.Endpoints), err)
	}
}

// The largest info that this version makes fits the bound.
func TestInfoBound(t *testing.T) {
	i := testInfo(t)
	for len(i.Endpoints) < MaxEndpoints {
		i.Endpoints = append(i.Endpoints, i.Endpoints[1])
	}
	if n := len(i.Append(nil, testKey(t, 1).Sign)); n > MaxInfo {
		t.Errorf("%d bytes", n)
	}
}

func TestUnknownFieldLengths(t *testing.T) {
	b := binary.BigEndian.AppendUint16([]byte{200}, 60000)
	b = append(b, make([]byte, 60000)...)
	b = append(b, unhex(t, helloText)...)
	if _, err := ParseHello(b); err != nil {
		t.Errorf("a long field of a later version: %v", err)
	}
}
