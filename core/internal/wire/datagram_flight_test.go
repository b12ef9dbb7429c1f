package wire

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
)

func testFlights() []DatagramFlight {
	noise := func(n int) []byte { return bytes.Repeat([]byte{0xab}, n) }
	return []DatagramFlight{
		{Type: FlightOffer, ID: 1, Noise: noise(EphemeralSize + TagSize)},
		{Type: FlightOffer, ID: 1 << 63, Cookie: [CookieSize]byte{1, 15: 16}, Noise: noise(52)},
		{Type: FlightAnswer, ID: 0x0102030405060708, Noise: noise(MaxDatagramNoise)},
		{Type: FlightFinish, Noise: noise(1)},
		{Type: FlightCookie, ID: 9, Cookie: [CookieSize]byte{7}, Noise: []byte{}},
	}
}

// pad returns how much padding makes a flight at least the smallest offer.
func pad(f DatagramFlight) int {
	return max(0, MinOffer-FlightOverhead-len(f.Noise))
}

func TestDatagramFlightRoundTrip(t *testing.T) {
	for _, f := range testFlights() {
		for _, padding := range []int{pad(f), MaxDatagramFlight - FlightOverhead - len(f.Noise)} {
			b := f.Append([]byte("x"), padding)[1:]
			got, err := ParseDatagramFlight(b)
			if err != nil || !reflect.DeepEqual(got, f) {
				t.Errorf("%+v with %d of padding comes back as %+v, %v", f, padding, got, err)
			}
			if len(b) != FlightOverhead-FlightNonce-TagSize+len(f.Noise)+padding {
				t.Errorf("%d bytes", len(b))
			}
		}
		if f.Type == FlightOffer && f.Ephemeral() != [EphemeralSize]byte(f.Noise) {
			t.Errorf("ephemeral %x of %x", f.Ephemeral(), f.Noise)
		}
	}
}

func TestDatagramFlightGolden(t *testing.T) {
	f := DatagramFlight{Type: FlightAnswer, ID: 0x0102030405060708, Cookie: [CookieSize]byte{0xc0, 15: 0x0c}, Noise: []byte{0xaa, 0xbb}}
	const want = "02" + "0102030405060708" + "c000000000000000000000000000000c" + "0002" + "aabb" + "000000"
	if got := hex.EncodeToString(f.Append(nil, 3)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// Every prefix that loses a byte of the Noise message is refused.
func TestDatagramFlightPrefixes(t *testing.T) {
	for _, f := range testFlights() {
		b := f.Append(nil, pad(f))
		for n := range DatagramFlightHead + len(f.Noise) {
			if got, err := ParseDatagramFlight(b[:n]); err == nil {
				t.Fatalf("%+v cut to %d bytes gives %+v", f, n, got)
			}
		}
	}
}

func TestDatagramFlightBounds(t *testing.T) {
	offer := testFlights()[0]
	for name, c := range map[string]struct {
		f       DatagramFlight
		padding int
	}{
		"an offer one byte short":        {offer, pad(offer) - 1},
		"an offer one byte too long":     {offer, MaxDatagramFlight - FlightOverhead - len(offer.Noise) + 1},
		"an offer without a whole tag":   {DatagramFlight{Type: FlightOffer, Noise: make([]byte, EphemeralSize+TagSize-1)}, 700},
		"type 0":                         {DatagramFlight{Noise: make([]byte, 100)}, 700},
		"type 5":                         {DatagramFlight{Type: 5, Noise: make([]byte, 100)}, 700},
		"an empty answer":                {DatagramFlight{Type: FlightAnswer}, 700},
		"an empty finish":                {DatagramFlight{Type: FlightFinish}, 700},
		"a cookie with a Noise message":  {DatagramFlight{Type: FlightCookie, Noise: make([]byte, 1)}, 700},
		"a Noise message over the bound": {DatagramFlight{Type: FlightAnswer, Noise: make([]byte, MaxDatagramNoise+1)}, 100},
	} {
		if got, err := ParseDatagramFlight(c.f.Append(nil, c.padding)); err == nil {
			t.Errorf("%s gives %+v", name, got)
		}
	}
}

func TestSplitDatagrams(t *testing.T) {
	b := make([]byte, MaxDatagramFlight+1)
	for n := range b {
		nonce, sealed, ok := SplitFlight(b[:n])
		if want := n >= FlightOverhead; ok != want || ok && (len(nonce) != FlightNonce || len(nonce)+len(sealed) != n) {
			t.Errorf("flight of %d bytes: %d and %d, %v", n, len(nonce), len(sealed), ok)
		}
		block, sealed, ok := SplitSealed(b[:n])
		if want := n >= SealOverhead; ok != want || ok && (len(block) != HeaderBlock || len(block)+len(sealed) != n) {
			t.Errorf("sealed datagram of %d bytes: %d and %d, %v", n, len(block), len(sealed), ok)
		}
	}
	if _, _, ok := SplitFlight(b); ok {
		t.Errorf("a flight of %d bytes", len(b))
	}
}

func TestSealedHeaderGolden(t *testing.T) {
	var b [HeaderBlock]byte
	PutSealedHeader(&b, 0x0102030405060708, 0x1112131415161718)
	if got := hex.EncodeToString(b[:]); got != "01020304050607081112131415161718" {
		t.Error(got)
	}
	if cid, n := ParseSealedHeader(&b); cid != 0x0102030405060708 || n != 0x1112131415161718 {
		t.Errorf("%x, %x", cid, n)
	}
}

func TestBindingInAHello(t *testing.T) {
	want := Binding{CID: 0x0102030405060708}
	copy(want.HeaderKey[:], "0123456789abcdef")
	hello := testHello(t)
	payload := want.Append(hello.Append(nil))
	if tail := payload[len(payload)-27:]; hex.EncodeToString(tail) != "100018"+"0102030405060708"+hex.EncodeToString([]byte("0123456789abcdef")) {
		t.Errorf("%x", tail)
	}
	got, err := ParseBinding(payload)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	// Who does not know of bindings reads the same hello.
	if h, err := ParseHello(payload); err != nil || !reflect.DeepEqual(h, hello) {
		t.Errorf("%+v, %v", h, err)
	}
	bare := hello.Append(nil)
	for n := range len(payload) {
		if got, err := ParseBinding(payload[:n]); err == nil || got != (Binding{}) {
			t.Errorf("cut to %d of %d bytes: %+v, %v", n, len(payload), got, err)
		}
	}
	for name, b := range map[string][]byte{
		"missing": bare, "twice": want.Append(payload), "short": appendField(bare, fieldBinding, make([]byte, bindingSize-1)),
		"long": appendField(bare, fieldBinding, make([]byte, bindingSize+1)),
	} {
		if got, err := ParseBinding(b); err == nil || got != (Binding{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// The largest hello makes an answer that fits the smallest offer.
func TestLargestHelloFitsAnAnswer(t *testing.T) {
	h := testHello(t)
	h.AppID = make([]byte, MaxAppID)
	n := len(Binding{}.Append(h.Append(nil))) + EphemeralSize + 32 + 2*TagSize
	if n > MaxDatagramNoise {
		t.Errorf("%d bytes of Noise, over %d", n, MaxDatagramNoise)
	}
}

func FuzzDatagramFlight(f *testing.F) {
	for _, v := range testFlights() {
		f.Add(v.Append(nil, pad(v)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseDatagramFlight(b)
		if len(b) >= DatagramFlightHead && (err == nil) != PossibleFlight(b[:DatagramFlightHead], FlightNonce+len(b)+TagSize) {
			t.Fatalf("%x: %v, unlike what its head says", b, err)
		}
		if err != nil {
			return
		}
		if len(v.Noise) > MaxDatagramNoise || v.Type == FlightOffer && len(v.Noise) < EphemeralSize+TagSize {
			t.Fatalf("accepted %+v", v)
		}
		if again := v.Append(nil, 0); !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x comes back as %x", b, again)
		}
	})
}

func FuzzBinding(f *testing.F) {
	f.Add(Binding{CID: 7, HeaderKey: [HeaderKeySize]byte{1}}.Append(testHello(f).Append(nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseBinding(b)
		if err != nil {
			return
		}
		if again := v.Append(nil); !bytes.Contains(b, again) {
			t.Fatalf("%x gives %+v", b, v)
		}
	})
}
