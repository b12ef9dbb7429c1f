package secure

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
)

func TestProbe(t *testing.T) {
	a, b, c := config(t, "net"), config(t, "net"), config(t, "net")
	key := func(c *Config, with *Config, meeting byte) *ProbeKey {
		k, err := c.NewProbeKey(with.Key.ID(), [wire.MeetingID]byte{meeting})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ours, theirs := key(a, b, 1), key(b, a, 1)
	stranger := &Config{Key: b.Key, Network: NewNetwork("other")}
	want := wire.Probe{Kind: wire.ProbeAnswer, Seen: netip.MustParseAddrPort("203.0.113.5:5483")}
	lengths := map[int]bool{}
	for range 1000 {
		d, err := ours.Seal(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		lengths[len(d)] = true
		got, err := theirs.Open(d)
		got.Larger = false
		if err != nil || got != want {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if len(lengths) < maxProbe-minProbe {
		t.Errorf("%d different lengths", len(lengths))
	}
	d, _ := ours.Seal(nil, want)
	for name, k := range map[string]*ProbeKey{
		"its own sender": ours, "another meeting": key(b, a, 2), "another peer": key(c, a, 1), "another network": key(stranger, a, 1),
	} {
		if _, err := k.Open(d); !errors.Is(err, ErrProbe) {
			t.Errorf("opened by %s: %v", name, err)
		}
	}
	for i := range d {
		changed := bytes.Clone(d)
		changed[i] ^= 1
		if _, err := theirs.Open(changed); !errors.Is(err, ErrProbe) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := theirs.Open(d[:i]); !errors.Is(err, ErrProbe) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := theirs.Open(make([]byte, 1200)); !errors.Is(err, ErrProbe) {
		t.Errorf("a long one: %v", err)
	}
}

func BenchmarkStrayProbe(b *testing.B) {
	k, err := config(b, "net").NewProbeKey(config(b, "net").Key.ID(), [wire.MeetingID]byte{})
	if err != nil {
		b.Fatal(err)
	}
	d := make([]byte, 120)
	for b.Loop() {
		if _, err := k.Open(d); err == nil {
			b.Fatal("opened")
		}
	}
}
