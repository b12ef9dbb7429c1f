package wire

import (
	"bytes"
	"strings"
	"testing"
)

// testKeys makes one-time keys of repeated bytes.
func testKeys(n int) (keys []OneTimeKey) {
	for i := range n {
		k := OneTimeKey{Until: 0x0102030405060708, Hello: []byte("hello")}
		copy(k.Public[:], bytes.Repeat([]byte{0xa0 + byte(i)}, 32))
		copy(k.Signature[:], bytes.Repeat([]byte{0xc0 + byte(i)}, 64))
		keys = append(keys, k)
	}
	return keys
}

func sameKey(a, b OneTimeKey) bool {
	return a.Until == b.Until && a.Public == b.Public && a.Signature == b.Signature && bytes.Equal(a.Hello, b.Hello)
}

func TestRelayOpenWithKeys(t *testing.T) {
	wants := RelayOpen{ID: 7, Keyed: true, Peer: testKey(t, 1).ID()}
	b := wants.Append(nil)
	golden(t, "relay open that takes a key", b, "0d 25 00000007 02"+testPeer)
	if got, err := ParseRelayOpen(body(t, b, FrameRelayOpen)); err != nil || got != wants {
		t.Errorf("%+v, %v", got, err)
	}
	tells := RelayOpen{ID: 7, From: true, Keyed: true, Peer: wants.Peer, Key: testKeys(1)[0].Name()}
	b = tells.Append(nil)
	golden(t, "relay open that names a key", b, "0d 2d 00000007 03"+testPeer+"a0a0a0a0a0a0a0a0")
	whole := body(t, b, FrameRelayOpen)
	shortPrefixes(t, "relay open", whole, func(b []byte) error { _, err := ParseRelayOpen(b); return err })
	if got, err := ParseRelayOpen(append(whole, 9)); err != nil || got != tells {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRelayKeys(t *testing.T) {
	r := RelayKeys{Anew: true, Keys: testKeys(2)}
	b := r.Append(nil)
	golden(t, "relay keys", b, "1b cf01 01 0102030405060708 02"+
		strings.Repeat("a0", 32)+strings.Repeat("c0", 64)+strings.Repeat("a1", 32)+strings.Repeat("c1", 64)+"68656c6c6f")
	whole := body(t, b, FrameRelayKeys)
	for n := range len(whole) - len("hello") + 1 { // what is behind the keys is all hello
		if _, err := ParseRelayKeys(whole[:n]); err == nil {
			t.Errorf("the first %d bytes are enough", n)
		}
	}
	got, err := ParseRelayKeys(whole)
	if err != nil || !got.Anew || len(got.Keys) != 2 || !sameKey(got.Keys[0], r.Keys[0]) || !sameKey(got.Keys[1], r.Keys[1]) {
		t.Errorf("%+v, %v", got, err)
	}
	none := RelayKeys{Anew: true}
	b = none.Append(nil)
	golden(t, "no relay keys", b, "1b 0a 01 0000000000000000 00")
	if got, err := ParseRelayKeys(body(t, b, FrameRelayKeys)); err != nil || !got.Anew || got.Keys != nil {
		t.Errorf("%+v, %v", got, err)
	}
	many := RelayKeys{Keys: testKeys(MaxRelayKeys + 1)}
	if _, err := ParseRelayKeys(body(t, many.Append(nil), FrameRelayKeys)); err == nil {
		t.Error("more keys than may be")
	}
	for n, fits := range map[int]bool{0: false, 1: true, MaxKeyHello: true, MaxKeyHello + 1: false} {
		r.Keys[0].Hello = make([]byte, n)
		if _, err := ParseRelayKeys(body(t, r.Append(nil), FrameRelayKeys)); (err == nil) != fits {
			t.Errorf("a hello of %d bytes: %v", n, err)
		}
		if _, _, err := ParseRelayKey(body(t, AppendRelayKey(nil, 7, &r.Keys[0]), FrameRelayKey)); (err == nil) != fits {
			t.Errorf("a hello of %d bytes: %v", n, err)
		}
	}
}

func TestRelayKey(t *testing.T) {
	k := testKeys(1)[0]
	b := AppendRelayKey(nil, 7, &k)
	golden(t, "relay key", b, "1c 71 00000007 0102030405060708"+strings.Repeat("a0", 32)+strings.Repeat("c0", 64)+"68656c6c6f")
	whole := body(t, b, FrameRelayKey)
	for n := range len(whole) - len("hello") + 1 {
		if _, _, err := ParseRelayKey(whole[:n]); err == nil {
			t.Errorf("the first %d bytes are enough", n)
		}
	}
	if id, got, err := ParseRelayKey(whole); err != nil || id != 7 || !sameKey(got, k) {
		t.Errorf("%d, %+v, %v", id, got, err)
	}
	want := "libcrust/1 one-time key\x00\x01\x02\x03\x04\x05\x06\x07\x08" + strings.Repeat("\xa0", 32) + "hello"
	if got := string(k.Signed()); got != want {
		t.Errorf("signed is %q", got)
	}
}

func TestRelayEarly(t *testing.T) {
	name := testKeys(1)[0].Name()
	b := AppendRelayEarly(nil, 7, name, []byte("data"))
	golden(t, "relay early", b, "1d 10 00000007 a0a0a0a0a0a0a0a0 64617461")
	id, rest, err := ParseRelayBytes(FrameRelayEarly, body(t, b, FrameRelayEarly))
	if err != nil || id != 7 || KeyName(rest) != name || string(rest[8:]) != "data" {
		t.Errorf("%d, %q, %v", id, rest, err)
	}
	if again := AppendRelayAs(nil, FrameRelayEarly, id, rest); !bytes.Equal(again, b) {
		t.Errorf("passed on as %x", again)
	}
	for n := range 4 + 8 + 1 {
		if _, _, err := ParseRelayBytes(FrameRelayEarly, make([]byte, n)); err == nil {
			t.Errorf("%d bytes", n)
		}
	}
	for n, fits := range map[int]bool{1: true, MaxRelayEarly: true, MaxRelayEarly + 1: false} {
		b := AppendRelayEarly(nil, 1, name, make([]byte, n))
		if _, _, err := ParseRelayBytes(FrameRelayEarly, body(t, b, FrameRelayEarly)); (err == nil) != fits {
			t.Errorf("%d bytes in one frame: %v", n, err)
		}
		if len(b) > RelayCost(n+len(name)) {
			t.Errorf("a frame of %d bytes counts as %d", len(b), RelayCost(n+len(name)))
		}
	}
}

func FuzzRelayKeys(f *testing.F) {
	k := testKeys(2)
	for _, b := range [][]byte{RelayKeys{Anew: true, Keys: k}.Append(nil), RelayKeys{}.Append(nil), AppendRelayKey(nil, 7, &k[0]), AppendRelayEarly(nil, 7, k[0].Name(), []byte("data"))} {
		_, body, _, err := NextFrame(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRelayKeys(b); err == nil {
			if len(r.Keys) > MaxRelayKeys {
				t.Fatalf("%d keys", len(r.Keys))
			}
			_, again, _, _ := NextFrame(r.Append(nil))
			back, err := ParseRelayKeys(again)
			if err != nil || back.Anew != r.Anew || len(back.Keys) != len(r.Keys) {
				t.Fatalf("%+v comes back as %+v, %v", r, back, err)
			}
			for i := range r.Keys {
				if !sameKey(r.Keys[i], back.Keys[i]) {
					t.Fatalf("%+v comes back as %+v", r.Keys[i], back.Keys[i])
				}
			}
		}
		if id, k, err := ParseRelayKey(b); err == nil {
			if _, again, _, err := NextFrame(AppendRelayKey(nil, id, &k)); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x comes back as %x, %v", b, again, err)
			}
		}
		for _, kind := range []FrameType{FrameRelayData, FrameRelayEarly} {
			if id, rest, err := ParseRelayBytes(kind, b); err == nil {
				if kind == FrameRelayEarly && len(rest) <= len(KeyName{}) || len(rest) > MaxRelayData {
					t.Fatalf("%d bytes", len(rest))
				}
				if _, again, _, err := NextFrame(AppendRelayAs(nil, kind, id, rest)); err != nil || !bytes.Equal(again, b) {
					t.Fatalf("%x comes back as %x, %v", b, again, err)
				}
			}
		}
	})
}
