package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// golden fails unless b is the hexadecimal text, in which spaces do not count.
func golden(t *testing.T, what string, b []byte, text string) {
	t.Helper()
	if got, want := hex.EncodeToString(b), strings.ReplaceAll(text, " ", ""); got != want {
		t.Errorf("%s\n got %s\nwant %s", what, got, want)
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shortPrefixes fails unless parse refuses every proper prefix of b with ErrShort.
func shortPrefixes(t *testing.T, what string, b []byte, parse func([]byte) error) {
	t.Helper()
	if err := parse(b); err != nil {
		t.Errorf("%s: the whole does not parse: %v", what, err)
	}
	for n := range b {
		if err := parse(b[:n]); !errors.Is(err, ErrShort) {
			t.Errorf("%s cut to %d of %d bytes: %v, want ErrShort", what, n, len(b), err)
		}
	}
}

func TestConstantsOfTheSpecification(t *testing.T) {
	for name, c := range map[string][2]int{
		"SealedHeader": {SealedHeader, 24}, "MaxBody": {MaxBody, 65519}, "MaxRecord": {MaxRecord, 65559},
		"RekeyInterval": {RekeyInterval, 65536}, "MaxMessage": {MaxMessage, 2097152}, "MaxOpenPieces": {MaxOpenPieces, 8},
		"FlightNonce": {FlightNonce, 24}, "MaxNoise": {MaxNoise, 1024}, "MaxPadding": {MaxPadding, 1024}, "Version": {Version, 1},
		"MaxAppID": {MaxAppID, 256}, "MaxHeld": {MaxHeld, 16}, "MaxEndpoints": {MaxEndpoints, 32}, "MaxInfo": {MaxInfo, 4096},
		"MaxContact": {MaxContact, 448}, "MaxContactEndpoints": {MaxContactEndpoints, 8}, "MaxContactLife": {MaxContactLife, 86400},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %d, and docs/PROTOCOL.md says %d", name, c[0], c[1])
		}
	}
}

func TestFlightHeader(t *testing.T) {
	b := AppendFlightHeader([]byte{0xaa}, 0x0123, 0x0045)
	golden(t, "flight header", b, "aa 0123 0045")
	shortPrefixes(t, "flight header", b[1:], func(b []byte) error { _, _, err := ParseFlightHeader(b); return err })
	for _, c := range []struct {
		noise, pad int
		ok         bool
	}{
		{1, 0, true}, {MaxNoise, MaxPadding, true}, {52, 255, true},
		{0, 0, false}, {0, 10, false}, {MaxNoise + 1, 0, false}, {1, MaxPadding + 1, false}, {65535, 65535, false},
	} {
		n, p, err := ParseFlightHeader(AppendFlightHeader(nil, c.noise, c.pad))
		if (err == nil) != c.ok || c.ok && (n != c.noise || p != c.pad) {
			t.Errorf("%d, %d: read %d, %d, %v", c.noise, c.pad, n, p, err)
		}
	}
}

func TestRecordHeader(t *testing.T) {
	frames := Header{Type: TypeFrames, Len: 0x0102}
	golden(t, "header of frames", frames.Append(nil), "01 00 0102 00000000")
	piece := Header{Type: TypePiece, Priority: 9, Len: 0x4000, Left: 0x123456}
	golden(t, "header of a piece", piece.Append(nil), "02 09 4000 00123456")
	shortPrefixes(t, "header", piece.Append(nil), func(b []byte) error { _, err := ParseHeader(b); return err })

	for _, c := range []struct {
		header string
		ok     bool
	}{
		{"01 00 0000 00000000", true},  // an empty run of frames
		{"01 00 ffef 00000000", true},  // the largest body
		{"01 00 fff0 00000000", false}, // one more
		{"01 01 0001 00000000", false}, // priority outside a piece
		{"01 00 0001 00000001", false}, // left outside a piece
		{"02 00 0001 00000001", true},
		{"02 ff ffef 00200000", true},  // a first piece of the largest message
		{"02 00 0001 00200001", false}, // a message over 2 MiB
		{"02 00 0000 00000001", false}, // an empty piece
		{"02 00 0002 00000001", false}, // a piece longer than what is left
		{"02 00 0001 ffffffff", false},
		{"03 00 0000 00000000", true},
		{"03 00 ffef 00000000", true},
		{"03 01 0001 00000000", false}, // priority outside a piece
		{"03 00 0001 00000001", false}, // left outside a piece
		{"00 00 0001 00000000", false}, {"04 00 0001 00000000", false}, {"ff 00 0001 00000000", false},
	} {
		b := unhex(t, c.header)
		h, err := ParseHeader(b)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.header, err)
		}
		if err == nil && !bytes.Equal(h.Append(nil), b) {
			t.Errorf("%s: appended again it is %x", c.header, h.Append(nil))
		}
	}
}

func TestFrames(t *testing.T) {
	var b []byte
	b = AppendFrame(b, FramePad)
	b = AppendMessage(b, 3, []byte("hi"))
	b = AppendMessage(b, 0, nil)
	b = AppendPing(b, FramePing, 0x0102030405060708)
	b = AppendPing(b, FramePong, 1)
	b = Claim{Seq: 5, Only: true, Session: SessionID{1, 15: 2}, Received: 6, Past: 9, Held: []uint64{2, 4}}.Append(b)
	b = Chosen{Session: SessionID{3, 15: 4}, Received: 7, Order: 8, Past: 9}.Append(b)
	b = AppendReason(b, FrameRefused, ReasonDuplicate)
	b = AppendReason(b, FrameClose, ReasonDisconnect)
	b = AppendAck(b, 0x0807060504030201)
	golden(t, "frames", b, "0000 010303 6869 010100 0208 0102030405060708 0308 0000000000000001"+
		"0439 0000000000000005 01 01000000000000000000000000000002 0000000000000006 0000000000000009 0000000000000002 0000000000000004"+
		"0528 03000000000000000000000000000004 0000000000000007 0000000000000008 0000000000000009 06020003 07020001 0808 0807060504030201")

	want := []FrameType{FramePad, FrameMessage, FrameMessage, FramePing, FramePong, FrameClaim, FrameChosen, FrameRefused, FrameClose, FrameAck}
	rest := b
	for i, wanted := range want {
		kind, body, tail, err := NextFrame(rest)
		if err != nil || kind != wanted {
			t.Fatalf("frame %d: %d, %v", i, kind, err)
		}
		if cap(body) != len(body) {
			t.Errorf("frame %d: appending to the body would overwrite the next frame", i)
		}
		rest = tail
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes are left over", len(rest))
	}
	shortPrefixes(t, "frame", AppendMessage(nil, 1, []byte("hello")), func(b []byte) error { _, _, _, err := NextFrame(b); return err })
}

// A run of frames that is cut anywhere but between two frames is an error, so
// that no half of a message is ever taken for a whole one.
func TestFramesCutAnywhere(t *testing.T) {
	var b []byte
	ends := map[int]bool{0: true}
	for n := range 6 {
		b = AppendMessage(b, uint8(n), bytes.Repeat([]byte{1}, n*60))
		ends[len(b)] = true
	}
	for cut := range b {
		var err error
		for rest := b[:cut]; len(rest) > 0 && err == nil; {
			_, _, rest, err = NextFrame(rest)
		}
		if (err == nil) != ends[cut] {
			t.Errorf("cut at %d: %v, although a frame ends there: %v", cut, err, ends[cut])
		}
	}
}

func TestFrameLengthsThatLie(t *testing.T) {
	for _, text := range []string{
		"01 ffffffffffffffffff01",     // 2^64 - 1
		"01 ffffffffffffffffff02",     // over 64 bits
		"01 ffffffffffffffffffffff01", // a uvarint that is too long
		"01 80",                       // a uvarint that ends too early
		"01 05 00",
		"01 8001 00",
	} {
		if _, _, _, err := NextFrame(unhex(t, text)); err == nil {
			t.Errorf("%s was taken for a frame", text)
		}
	}
}

func TestMessageFrameSize(t *testing.T) {
	for _, n := range []int{0, 1, 62, 125, 126, 127, 128, 129, 1000, 16381, 16382, 16383, 16384, 16385, 65000, 65515} {
		m := make([]byte, n)
		b := AppendMessage(nil, 7, m)
		if len(b) != MessageFrameSize(n) {
			t.Errorf("a message of %d bytes takes %d bytes, MessageFrameSize says %d", n, len(b), MessageFrameSize(n))
		}
		_, body, rest, err := NextFrame(b)
		if err != nil || len(rest) != 0 {
			t.Fatalf("%d bytes: %v, %d left over", n, err, len(rest))
		}
		if p, got, err := ParseMessage(body); err != nil || p != 7 || !bytes.Equal(got, m) {
			t.Errorf("%d bytes come back as %d of priority %d, %v", n, len(got), p, err)
		}
	}
	if _, _, err := ParseMessage(nil); !errors.Is(err, ErrShort) {
		t.Errorf("a message frame without a priority: %v", err)
	}
}

func TestPingAndReason(t *testing.T) {
	shortPrefixes(t, "ping", unhex(t, "00000000000000ff"), func(b []byte) error { _, err := ParsePing(b); return err })
	shortPrefixes(t, "ack", unhex(t, "00000000000000ff"), func(b []byte) error { _, err := ParseAck(b); return err })
	shortPrefixes(t, "reason", unhex(t, "0007"), func(b []byte) error { _, err := ParseReason(b); return err })
	// Later versions may say more after what this version knows.
	if v, err := ParsePing(unhex(t, "00000000000000ff aabb")); err != nil || v != 255 {
		t.Errorf("a longer ping: %d, %v", v, err)
	}
	if r, err := ParseReason(unhex(t, "0005 aabb")); err != nil || r != ReasonLimit {
		t.Errorf("a longer reason: %d, %v", r, err)
	}
	for want, r := range []Reason{
		ReasonOther, ReasonDisconnect, ReasonStopping, ReasonDuplicate, ReasonNotAllowed, ReasonLimit, ReasonProtocol, ReasonBanned,
		ReasonOver,
	} {
		if int(r) != want {
			t.Errorf("reason %d has become %d", want, r)
		}
	}
}

func TestClaim(t *testing.T) {
	for held := range MaxHeld + 1 {
		want := Claim{Seq: 1 << 40, Only: held%2 == 1, Session: SessionID{1, byte(held)}, Received: 1 << 50, Past: 1 << 51}
		for i := range held {
			want.Held = append(want.Held, uint64(i))
		}
		_, body, _, err := NextFrame(want.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseClaim(body)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d held: %+v, %v", held, got, err)
		}
	}
	begun := Claim{Seq: 5, Begun: true, Session: SessionID{1, 15: 2}}
	golden(t, "claim of a session that was begun", begun.Append(nil), "0429 0000000000000005 02 01000000000000000000000000000002 0000000000000000 0000000000000000")
	_, body, _, err := NextFrame(begun.Append(nil))
	if got, perr := ParseClaim(body); err != nil || perr != nil || !reflect.DeepEqual(got, begun) {
		t.Errorf("%+v, %v, %v", got, err, perr)
	}
	for name, at := range map[string][2]int{"for it only": {8, 3}, "without a name": {9, 0}, "with records": {32, 1}} {
		bad := bytes.Clone(body)
		if bad[at[0]] = byte(at[1]); name == "without a name" {
			clear(bad[9:25])
		}
		if _, err := ParseClaim(bad); err == nil {
			t.Errorf("a claim of a session that was begun, %s, was accepted", name)
		}
	}
	for _, n := range []int{42, 48, 41 + 8*MaxHeld + 8} {
		if _, err := ParseClaim(make([]byte, n)); err == nil {
			t.Errorf("a claim of %d bytes was accepted", n)
		}
	}
	shortPrefixes(t, "claim", make([]byte, 41), func(b []byte) error { _, err := ParseClaim(b); return err })
}

func TestChosen(t *testing.T) {
	want := Chosen{SessionID{9, 15: 1}, 1 << 60, 1 << 61, 1 << 62}
	_, body, _, err := NextFrame(want.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{"", "later"} {
		if got, err := ParseChosen(append(bytes.Clone(body), more...)); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
	shortPrefixes(t, "chosen", body, func(b []byte) error { _, err := ParseChosen(b); return err })
	if _, err := ParseChosen(make([]byte, 40)); err == nil {
		t.Error("no session was accepted as one")
	}
}

// A frame is content, or it is not, or may be anywhere.
func TestFramesInRecords(t *testing.T) {
	for f, in := range map[FrameType][2]bool{
		FramePad: {true, true}, FrameMessage: {true, false}, FramePing: {false, true}, FramePong: {false, true}, FrameClaim: {false, true},
		FrameChosen: {false, true}, FrameRefused: {false, true}, FrameClose: {true, false}, FrameAck: {false, true}, FrameReach: {false, true},
		FrameReached: {false, true}, FrameDoors: {false, true}, 200: {true, true},
	} {
		if f.In(TypeFrames) != in[0] || f.In(TypeControl) != in[1] {
			t.Errorf("frame %d", f)
		}
	}
	if !TypeFrames.Counted() || !TypePiece.Counted() || TypeControl.Counted() {
		t.Error("the wrong records are counted")
	}
}

// What runs for each message and each record allocates nothing.
func TestNoAllocations(t *testing.T) {
	buf := make([]byte, 0, 4096)
	message := make([]byte, 200)
	header := Header{Type: TypeFrames, Len: 77}.Append(nil)
	frames := AppendMessage(AppendMessage(nil, 1, message), 2, message[:3])
	for name, f := range map[string]func(){
		"AppendMessage": func() { _ = AppendMessage(buf, 1, message) },
		"AppendHeader":  func() { _ = Header{Type: TypePiece, Len: 1, Left: 2}.Append(buf) },
		"ParseHeader": func() {
			if _, err := ParseHeader(header); err != nil {
				t.Error(err)
			}
		},
		"NextFrame and ParseMessage": func() {
			for rest := frames; len(rest) > 0; {
				_, body, tail, err := NextFrame(rest)
				if err == nil {
					_, _, err = ParseMessage(body)
				}
				if err != nil {
					t.Error(err)
				}
				rest = tail
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// Runs of random frames come out as they went in.
func TestFramesRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var b []byte
		var want [][]byte
		for range r.IntN(20) {
			m := make([]byte, r.IntN(400))
			for i := range m {
				m[i] = byte(r.Uint32())
			}
			b, want = AppendMessage(b, uint8(len(want)), m), append(want, m)
		}
		for i, m := range want {
			kind, body, rest, err := NextFrame(b)
			if err != nil || kind != FrameMessage {
				t.Fatal(kind, err)
			}
			p, got, err := ParseMessage(body)
			if err != nil || int(p) != i || !bytes.Equal(got, m) {
				t.Fatalf("message %d came out as %x of priority %d", i, got, p)
			}
			b = rest
		}
		if len(b) != 0 {
			t.Fatalf("%d bytes are left over", len(b))
		}
	}
}
