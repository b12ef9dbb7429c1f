package wire

import (
	"bytes"
	"testing"
)

func TestRelayFrames(t *testing.T) {
	o := RelayOpen{ID: 0x01020304, From: true, Peer: testKey(t, 1).ID()}
	b := o.Append(nil)
	golden(t, "relay open", b, "0d 25 01020304 01"+testPeer)
	whole := body(t, b, FrameRelayOpen)
	shortPrefixes(t, "relay open", whole, func(b []byte) error { _, err := ParseRelayOpen(b); return err })
	if got, err := ParseRelayOpen(whole); err != nil || got != o {
		t.Errorf("%+v, %v", got, err)
	}
	o.From = false
	if got, err := ParseRelayOpen(append(body(t, o.Append(nil), FrameRelayOpen), 9)); err != nil || got != o {
		t.Errorf("%+v, %v", got, err)
	}

	b = AppendRelayData(nil, 7, []byte("data"))
	golden(t, "relay data", b, "0e 08 00000007 64617461")
	if id, data, err := ParseRelayData(body(t, b, FrameRelayData)); err != nil || id != 7 || string(data) != "data" {
		t.Errorf("%d, %q, %v", id, data, err)
	}
	for n := range 5 {
		if _, _, err := ParseRelayData(make([]byte, n)); err == nil {
			t.Errorf("relay data of %d bytes", n)
		}
	}
	for n, fits := range map[int]bool{1: true, MaxRelayData: true, MaxRelayData + 1: false} {
		b := AppendRelayData(nil, 1, make([]byte, n))
		if _, _, err := ParseRelayData(body(t, b, FrameRelayData)); (err == nil) != fits {
			t.Errorf("%d bytes in one frame: %v", n, err)
		}
		if len(b) > RelayCost(n) {
			t.Errorf("a frame of %d bytes counts as %d", len(b), RelayCost(n))
		}
	}

	b = AppendRelayCredit(nil, 7, RelayWindow)
	golden(t, "relay credit", b, "0f 08 00000007 00040000")
	whole = body(t, b, FrameRelayCredit)
	shortPrefixes(t, "relay credit", whole, func(b []byte) error { _, _, err := ParseRelayCredit(b); return err })
	if id, n, err := ParseRelayCredit(whole); err != nil || id != 7 || n != RelayWindow {
		t.Errorf("%d, %d, %v", id, n, err)
	}
	for _, n := range []uint32{0, MinRelayCredit - 1, RelayWindow + 1, 1<<32 - 1} {
		if _, _, err := ParseRelayCredit(body(t, AppendRelayCredit(nil, 7, n), FrameRelayCredit)); err == nil {
			t.Errorf("a credit of %d bytes", n)
		}
	}

	b = AppendRelayClose(nil, 7, RelayLimit)
	golden(t, "relay close", b, "10 06 00000007 0004")
	whole = body(t, b, FrameRelayClose)
	shortPrefixes(t, "relay close", whole, func(b []byte) error { _, _, err := ParseRelayClose(b); return err })
	if id, r, err := ParseRelayClose(whole); err != nil || id != 7 || r != RelayLimit {
		t.Errorf("%d, %v, %v", id, r, err)
	}
}

func TestRelayReasons(t *testing.T) {
	seen := map[string]bool{}
	for r := RelayDone; r <= RelayLimit; r++ {
		seen[r.String()] = true
	}
	if len(seen) != int(RelayLimit)+1 || RelayReason(999).String() != RelayBroken.String() {
		t.Errorf("reasons are not told apart: %v", seen)
	}
}

func FuzzRelay(f *testing.F) {
	f.Add(append(make([]byte, 5), bytes.Repeat([]byte{1}, 32)...))
	f.Add([]byte{0, 0, 0, 7, 0, 4, 0, 0})
	f.Add([]byte{0, 0, 0, 7, 0, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := ParseRelayOpen(b); err == nil {
			_, again, _, _ := NextFrame(o.Append(nil))
			if back, err := ParseRelayOpen(again); err != nil || back != o {
				t.Fatalf("%+v comes back as %+v, %v", o, back, err)
			}
		}
		if id, data, err := ParseRelayData(b); err == nil {
			if len(data) == 0 || len(data) > MaxRelayData {
				t.Fatalf("%d bytes", len(data))
			}
			if _, again, _, err := NextFrame(AppendRelayData(nil, id, data)); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x comes back as %x, %v", b, again, err)
			}
		}
		if id, n, err := ParseRelayCredit(b); err == nil {
			if n < MinRelayCredit || n > RelayWindow {
				t.Fatalf("%d bytes", n)
			}
			if _, again, _, err := NextFrame(AppendRelayCredit(nil, id, n)); err != nil || !bytes.Equal(again, b[:8]) {
				t.Fatalf("%x comes back as %x, %v", b, again, err)
			}
		}
		if id, r, err := ParseRelayClose(b); err == nil {
			if _, again, _, err := NextFrame(AppendRelayClose(nil, id, r)); err != nil || !bytes.Equal(again, b[:6]) {
				t.Fatalf("%x comes back as %x, %v", b, again, err)
			}
		}
	})
}
