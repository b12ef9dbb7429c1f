package wire

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func testGossips() map[string]Gossip {
	k := ContactKey{0x0102030405060708, 0x0199c0ffee00}
	return map[string]Gossip{
		"18 0a 06 0003 616263 0002 6465":         {Kind: GossipContacts, Contacts: [][]byte{[]byte("abc"), []byte("de")}},
		"18 0f 04 0102030405060708 0199c0ffee00": {Kind: GossipHave, Keys: []ContactKey{k}},
		"18 04 01 0001 61":                       {Kind: GossipNews, Contacts: [][]byte{[]byte("a")}},
		"18 0f 02 0102030405060708 0199c0ffee00": {Kind: GossipNewKeys, Keys: []ContactKey{k}},
		"18 1d 05 0102030405060708 0199c0ffee00 ffffffffffffffff ffffffffffff": {
			Kind: GossipWant, Keys: []ContactKey{k, {math.MaxUint64, 1<<48 - 1}},
		},
		"18 5d 03 00000199c0ffee01 000102030405060708090a0b0c0d0e0f 0000000000000001" +
			"0102030405060707 00  0102030405060708 02 01 0102030405060708 0199c0ffee00" +
			"fffffffffffffffe 02 00  ffffffffffffffff 01 a0a1a2a3a4a5a6a7": {
			Kind: GossipRanges, Clock: 0x0199c0ffee01, Nonce: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, First: 1,
			Ranges: []Range{
				{Last: k.Position - 1}, {Last: k.Position, Mode: RangeKeys, Keys: []ContactKey{k}},
				{Last: math.MaxUint64 - 1, Mode: RangeKeys}, {Last: math.MaxUint64, Mode: RangeSum, Sum: 0xa0a1a2a3a4a5a6a7},
			},
		},
	}
}

func TestGossip(t *testing.T) {
	for text, g := range testGossips() {
		b := g.Append([]byte{0xee})[1:]
		golden(t, "gossip", b, text)
		whole := body(t, b, FrameGossip)
		if got, err := ParseGossip(whole); err != nil || !reflect.DeepEqual(got, g) {
			t.Errorf("%+v, %v; want %+v", got, err, g)
		}
		// A prefix that ends between two records, keys or ranges is a shorter gossip.
		for n := range whole {
			if got, err := ParseGossip(whole[:n]); err == nil {
				if _, again, _, _ := NextFrame(got.Append(nil)); !bytes.Equal(again, whole[:n]) {
					t.Errorf("%x cut to %d bytes parses as %+v", whole, n, got)
				}
			}
		}
		for _, n := range []int{0, 1, 2, len(whole) - 1} {
			if got, err := ParseGossip(whole[:n]); err == nil {
				t.Errorf("%x cut to %d bytes parses as %+v", whole, n, got)
			}
		}
	}
}

func TestGossipSizes(t *testing.T) {
	for _, g := range testGossips() {
		size := 1
		switch g.Kind {
		case GossipNews, GossipContacts:
			for _, c := range g.Contacts {
				size += GossipContactExtra + len(c)
			}
		case GossipNewKeys, GossipHave, GossipWant:
			size += len(g.Keys) * GossipKeySize
		case GossipRanges:
			size = GossipRangesFixed
			for _, r := range g.Ranges {
				size += r.Size()
			}
		}
		if got := len(body(t, g.Append(nil), FrameGossip)); got != size {
			t.Errorf("kind %d: a body of %d bytes, by the constants %d", g.Kind, got, size)
		}
	}
}

func TestGossipForms(t *testing.T) {
	head := "03 0000000000000001 000102030405060708090a0b0c0d0e0f 0000000000000010"
	key := func(position string) string { return "00000000000000" + position + "000000000001" }
	for name, c := range map[string]struct{ text, says string }{
		"nothing":                        {"", "too early"},
		"an unknown kind":                {"09 aabb", ""},
		"no record":                      {"01", "too early"},
		"an empty record":                {"01 0000", "0 bytes"},
		"a record of 448 bytes":          {"01 01c0" + strings.Repeat("00", 448), ""},
		"a record of 449 bytes":          {"01 01c1" + strings.Repeat("00", 449), "449 bytes"},
		"a record cut short":             {"01 0002 aa", "too early"},
		"half a size":                    {"01 0001 aa 00", "too early"},
		"no key":                         {"02", "0 bytes"},
		"13 bytes of key":                {"05 0102030405060708 0000000001", "13 bytes"},
		"a key with seq 0":               {"04 0102030405060708 000000000000", "sequence number 0"},
		"4096 bytes":                     {"09" + strings.Repeat("00", 4095), ""},
		"4097 bytes":                     {"09" + strings.Repeat("00", 4096), "over 4096"},
		"no range":                       {head, "too early"},
		"a range of one position":        {head + "0000000000000010 00", ""},
		"a range that ends early":        {head + "000000000000000f 00", "before it begins"},
		"a range behind the last":        {head + "ffffffffffffffff 00 ffffffffffffffff 00", "before it begins"},
		"a mode that there is not":       {head + "0000000000000010 03", "mode 3"},
		"a sum cut short":                {head + "0000000000000010 01 00000000000000", "too early"},
		"keys cut short":                 {head + "0000000000000010 02 01", "too early"},
		"no count of keys":               {head + "0000000000000010 02", "too early"},
		"33 keys":                        {head + "0000000000000020 02 21" + strings.Repeat(key("10"), 33), "33 keys"},
		"32 keys":                        {head + "0000000000000020 02 20" + strings.Repeat(key("10"), 32), ""},
		"a key below its range":          {head + "0000000000000020 02 01" + key("0f"), "outside"},
		"a key above its range":          {head + "0000000000000020 02 01" + key("21"), "outside"},
		"keys out of order":              {head + "0000000000000020 02 02" + key("12") + key("11"), "order"},
		"a key of seq 0 in a range":      {head + "0000000000000020 02 01 0000000000000010 000000000000", "sequence number 0"},
		"a second range cut to its last": {head + "0000000000000010 00 ffffffffffffffff", "too early"},
	} {
		got, err := ParseGossip(unhex(t, c.text))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %+v, %v; want an error that says %q", name, got, err, c.says)
		}
		if strings.Contains(c.says, "too early") && !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v is not ErrShort", name, err)
		}
	}
}

func TestKeyOf(t *testing.T) {
	if got := KeyOf(testKey(t, 1).ID(), 7); got != (ContactKey{0x8a88e3dd7409f195, 7}) {
		t.Errorf("%x", got)
	}
}

func FuzzGossip(f *testing.F) {
	for text := range testGossips() {
		f.Add(unhex(f, text)[2:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseGossip(b)
		if err != nil || g.Kind < GossipNews || g.Kind > GossipContacts {
			return
		}
		_, again, rest, err := NextFrame(g.Append(nil))
		if err != nil || len(rest) != 0 || !bytes.Equal(again, b) {
			t.Fatalf("%x comes back as %x, %v", b, again, err)
		}
	})
}
