package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// innerFrames are one of each type, as AppendInner makes them, and as hex.
var innerFrames = []struct {
	name string
	b    []byte
	hex  string
	want Inner
}{
	{"ping", AppendInnerPing(nil), "01", Inner{Type: InnerPing}},
	{"ack", AppendInnerAck(nil, 300, 1<<20, []AckRange{{2, 2}, {5, 9}, {11, 1000}}, 100), "02e807ac028080400" + "2dd07000401" + "00",
		Inner{Type: InnerAck, Ack: Ack{Delay: 300, Limit: 1 << 20, N: 3, Ranges: [MaxAckRanges]AckRange{{11, 1000}, {5, 9}, {2, 2}}}}},
	{"ack of zero", AppendInnerAck(nil, 0, 0, []AckRange{{0, 0}}, MinAckRoom), "020000000000", Inner{Type: InnerAck, Ack: Ack{N: 1}}},
	{"stream", append(AppendInnerStream(nil, 300), "data"...), "03ac0264617461", Inner{Type: InnerStream, Value: 300, Data: []byte("data")}},
	{"datagram", append(AppendInnerDatagram(nil, 4), "data"...), "040464617461", Inner{Type: InnerDatagram, Data: []byte("data")}},
	{"empty datagram", AppendInnerDatagram(nil, 0), "0400", Inner{Type: InnerDatagram}},
	{"challenge", AppendInnerToken(nil, InnerChallenge, 0x0102030405060708), "050102030405060708", Inner{Type: InnerChallenge, Value: 0x0102030405060708}},
	{"response", AppendInnerToken(nil, InnerResponse, 0xfffefdfcfbfaf9f8), "06fffefdfcfbfaf9f8", Inner{Type: InnerResponse, Value: 0xfffefdfcfbfaf9f8}},
	{"close", AppendInnerClose(nil, ReasonLimit), "070005", Inner{Type: InnerClose, Value: 5}},
	{"pad", AppendInnerPad(nil, 3), "00000000", Inner{Type: InnerPad, Data: make([]byte, 3)}},
	{"long pad", AppendInnerPad(nil, 1300)[:2], "0000", Inner{Type: InnerPad, Data: make([]byte, 1)}},
}

func sameInner(a, b *Inner) bool {
	return a.Type == b.Type && a.Value == b.Value && bytes.Equal(a.Data, b.Data) && a.Ack.Delay == b.Ack.Delay &&
		a.Ack.Limit == b.Ack.Limit && slices.Equal(a.Ack.Ranges[:a.Ack.N], b.Ack.Ranges[:b.Ack.N])
}

func TestInner(t *testing.T) {
	for _, c := range innerFrames {
		if got := hex.EncodeToString(c.b); got != c.hex {
			t.Errorf("%s: %s, not %s", c.name, got, c.hex)
		}
		var f Inner
		rest, err := NextInner(c.b, &f)
		if err != nil || len(rest) != 0 || !sameInner(&f, &c.want) {
			t.Errorf("%s: %+v, rest %x, %v", c.name, f, rest, err)
		}
		for i := range c.b {
			if c.want.Type == InnerPad && i > 0 || c.want.Type == InnerStream && i > 3 {
				break // shorter ones are right too
			}
			if _, err := NextInner(c.b[:i], &f); !errors.Is(err, ErrShort) {
				t.Errorf("%s: the first %d bytes: %v", c.name, i, err)
			}
		}
		if c.want.Type == InnerPad || c.want.Type == InnerStream {
			continue
		}
		var g Inner
		rest, err = NextInner(append(slices.Clone(c.b), 1), &g)
		if err != nil || !bytes.Equal(rest, []byte{1}) || !sameInner(&g, &c.want) {
			t.Errorf("%s: before another: %+v, rest %x, %v", c.name, g, rest, err)
		}
	}
	if n := len(AppendInnerPad(nil, 1300)); n != 1301 {
		t.Errorf("a pad of 1300 bytes takes %d", n)
	}
}

func TestInnerRefused(t *testing.T) {
	for name, text := range map[string]string{
		"unknown type":           "08",
		"datagram beyond":        "0405aaaaaaaa",
		"datagram out of bounds": "04ffffffffffffffff7f",
		"stream of nothing":      "0305",
		"stream over its end":    "03ffffffffffffffff3f0000",
		"long offset":            "038000ff",
		"offset of 65 bits":      "03ffffffffffffffffff02ff",
		"65 ranges":              "02ff7f00004000" + "00000000",
		"range below zero":       "020500000006",
		"gap below zero":         "0205000001000400",
		"next below zero":        "020a000001000109",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if rest, err := NextInner(b, new(Inner)); err == nil {
			t.Errorf("%s is accepted, rest %x", name, rest)
		}
	}
}

// An Ack leaves out its lowest ranges, for room or for number.
func TestAckBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var ranges []AckRange
		next := rng.Uint64N(1 << 61)
		for range 1 + rng.IntN(MaxAckRanges+20) {
			last := next + rng.Uint64N(1<<rng.IntN(50))
			ranges = append(ranges, AckRange{next, last})
			next = last + 2 + rng.Uint64N(1<<rng.IntN(50))
		}
		room := MinAckRoom + rng.IntN(800)
		b := AppendInnerAck([]byte("head"), rng.Uint64N(1<<60), rng.Uint64N(1<<60), ranges, room)
		var f Inner
		rest, err := NextInner(b[4:], &f)
		if err != nil || len(rest) != 0 || len(b)-4 > room {
			t.Fatalf("%d bytes in %d, rest %x, %v", len(b)-4, room, rest, err)
		}
		if f.Ack.N < min(len(ranges), MaxAckRanges) && room-(len(b)-4) >= 2*9 {
			t.Fatalf("%d of %d ranges, and %d bytes left", f.Ack.N, len(ranges), room-(len(b)-4))
		}
		for i, r := range f.Ack.Ranges[:f.Ack.N] {
			if r != ranges[len(ranges)-1-i] {
				t.Fatalf("range %d is %v", i, r)
			}
		}
	}
}

func FuzzInner(f *testing.F) {
	for _, c := range innerFrames {
		f.Add(c.b)
	}
	f.Add(append(AppendInnerAck(nil, 7, 9, []AckRange{{1, 4}, {8, 12}}, 100), innerFrames[3].b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Inner
		for len(b) > 0 {
			rest, err := NextInner(b, &x)
			if err != nil {
				return
			}
			var again []byte
			switch x.Type {
			case InnerPad:
				again = append([]byte{0}, x.Data...)
			case InnerPing:
				again = AppendInnerPing(nil)
			case InnerAck:
				ranges := slices.Clone(x.Ack.Ranges[:x.Ack.N])
				for i, r := range ranges {
					if r.First > r.Last || i > 0 && r.Last+1 >= ranges[i-1].First {
						t.Fatalf("ranges %v", ranges)
					}
				}
				slices.Reverse(ranges)
				again = AppendInnerAck(nil, x.Ack.Delay, x.Ack.Limit, ranges, 1<<20)
			case InnerStream:
				again = append(AppendInnerStream(nil, x.Value), x.Data...)
				if len(again) != InnerStreamHead(x.Value)+len(x.Data) {
					t.Fatal("InnerStreamHead is wrong")
				}
			case InnerDatagram:
				again = append(AppendInnerDatagram(nil, len(x.Data)), x.Data...)
				if len(again) != InnerDatagramHead(len(x.Data))+len(x.Data) {
					t.Fatal("InnerDatagramHead is wrong")
				}
			case InnerChallenge, InnerResponse:
				again = AppendInnerToken(nil, x.Type, x.Value)
			case InnerClose:
				again = AppendInnerClose(nil, Reason(x.Value))
			}
			if !bytes.Equal(again, b[:len(b)-len(rest)]) {
				t.Fatalf("%x comes back as %x", b[:len(b)-len(rest)], again)
			}
			b = rest
		}
	})
}
