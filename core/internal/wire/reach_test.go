package wire

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

const reachNonce = "0102030405060708090a0b0c0d0e0f10"

func TestReach(t *testing.T) {
	nonce := [ProbeNonce]byte(unhex(t, reachNonce))
	for text, r := range map[string]Reach{
		"15 13" + reachNonce + "01 156b": {Nonce: nonce, Transport: endpoint.TCP, Port: 5483},
		"15 13" + reachNonce + "02 0007": {Nonce: nonce, Transport: endpoint.UTP, Port: 7},
		"15 13" + reachNonce + "c8 0007": {Nonce: nonce, Transport: 200, Port: 7},
	} {
		b := r.Append(nil)
		golden(t, "reach", b, text)
		whole := body(t, b, FrameReach)
		if got, err := ParseReach(append(whole, 1, 2)); err != nil || got != r {
			t.Errorf("%+v, %v; want %+v", got, err, r)
		}
		for n := range whole {
			if got, err := ParseReach(whole[:n]); err == nil {
				t.Errorf("cut to %d bytes it still parses: %+v", n, got)
			}
		}
	}
	if got, err := ParseReach(body(t, Reach{Transport: endpoint.TCP}.Append(nil), FrameReach)); err == nil {
		t.Errorf("port 0: %+v", got)
	}
}

func TestReached(t *testing.T) {
	nonce := [ProbeNonce]byte(unhex(t, reachNonce))
	for text, r := range map[string]Reached{
		"16 17" + reachNonce + "00 9c40 cb007105":                         {Nonce: nonce, From: 40000, To: netip.MustParseAddr("203.0.113.5")},
		"16 23" + reachNonce + "00 0000 20010db8000000000000000000000001": {Nonce: nonce, To: netip.MustParseAddr("2001:db8::1")},
		"16 13" + reachNonce + "02 0000":                                  {Nonce: nonce, Result: ReachLimit},
	} {
		b := r.Append(nil)
		golden(t, "reached", b, text)
		whole := body(t, b, FrameReached)
		if got, err := ParseReached(whole); err != nil || got != r {
			t.Errorf("%+v, %v; want %+v", got, err, r)
		}
		for n := range whole {
			if got, err := ParseReached(whole[:n]); err == nil && r.To.IsValid() && n != ProbeNonce+3+4 {
				t.Errorf("cut to %d bytes it still parses: %+v", n, got)
			}
		}
	}
	for name, text := range map[string]string{
		"done to nobody": reachNonce + "00 0000", "5 bytes": reachNonce + "00 0000 0102030405", "17 bytes": reachNonce + "00 0000" + strings.Repeat("00", 17),
		"nothing": "", "a nonce": reachNonce,
	} {
		if got, err := ParseReached(unhex(t, text)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got, err := ParseReached(unhex(t, reachNonce+"77 0000")); err != nil || got.Result != ReachCannot {
		t.Errorf("an unknown result: %+v, %v", got, err)
	}
	if got := body(t, Reached{To: netip.MustParseAddr("::ffff:203.0.113.5")}.Append(nil), FrameReached); len(got) != ProbeNonce+3+4 {
		t.Errorf("a mapped address: %x", got)
	}
}

func FuzzReach(f *testing.F) {
	f.Add(append(make([]byte, ProbeNonce), 1, 21, 107))
	f.Add(append(make([]byte, ProbeNonce), 0, 21, 107, 203, 0, 113, 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseReach(b); err == nil {
			if _, again, _, _ := NextFrame(r.Append(nil)); !bytes.Equal(again, b[:len(again)]) {
				t.Fatalf("%+v comes back as %x", r, again)
			}
		}
		if r, err := ParseReached(b); err == nil {
			_, again, _, _ := NextFrame(r.Append(nil))
			if back, err := ParseReached(again); err != nil || back != r {
				t.Fatalf("%+v comes back as %+v, %v", r, back, err)
			}
		}
	})
}
