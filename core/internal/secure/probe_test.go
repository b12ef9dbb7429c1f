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
	want := wire.Probe{Kind: wire.ProbeAnswer, Token: 1, Echo: 2, Seen: netip.MustParseAddrPort("[2001:db8::5]:5483")}
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
	if len(lengths) < MaxProbe-midProbe {
		t.Errorf("%d different lengths", len(lengths))
	}
	for size := midProbe; size <= MaxProbe+20; size++ {
		if d, err := ours.SealAnswer(nil, want, size); err != nil || len(d) > size || len(d) > MaxProbe {
			t.Errorf("%d bytes answer %d, %v", len(d), size, err)
		}
		if d, err := ours.SealSize(nil, want, size); err != nil || len(d) != size {
			t.Errorf("%d bytes instead of %d, %v", len(d), size, err)
		}
	}
	d, _ := ours.SealSize(nil, want, 0) // as short as can be
	if len(d) < MinProbe || len(d) > midProbe {
		t.Errorf("%d bytes", len(d))
	}
	if _, err := theirs.OpenPad(d); !errors.Is(err, ErrProbe) {
		t.Errorf("a probe as a pad: %v", err)
	}
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

// TestPad: what pays goes as a letter, and is good for nothing else.
func TestPad(t *testing.T) {
	a, b := config(t, "net"), config(t, "net")
	ours, err := a.NewProbeKey(b.Key.ID(), [wire.MeetingID]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := b.NewProbeKey(a.Key.ID(), [wire.MeetingID]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{MaxProbe, wire.MaxLetter} {
		pad, err := ours.SealSize(nil, wire.Probe{Kind: wire.ProbePad, Token: 7}, size)
		if err != nil || len(pad) != size {
			t.Fatalf("%d bytes, %v", len(pad), err)
		}
		if number, err := theirs.OpenPad(pad); err != nil || number != 7 {
			t.Errorf("number %d, %v", number, err)
		}
		if _, err := ours.OpenPad(pad); !errors.Is(err, ErrProbe) {
			t.Errorf("sent back to its sender: %v", err)
		}
		if _, err := theirs.Open(pad); !errors.Is(err, ErrProbe) {
			t.Errorf("as a datagram: %v", err)
		}
		pad[len(pad)-1] ^= 1
		if _, err := theirs.OpenPad(pad); !errors.Is(err, ErrProbe) {
			t.Errorf("changed: %v", err)
		}
	}
	for _, n := range []int{0, 1, probeFix - 1, probeFix, wire.MaxLetter + 1, 1 << 16} {
		if _, err := theirs.OpenPad(make([]byte, n)); !errors.Is(err, ErrProbe) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// TestToken: each pair of endpoints has its own, which nobody can foresee.
func TestToken(t *testing.T) {
	a, b := config(t, "net"), config(t, "net")
	seen := map[uint64]bool{}
	for range 2 {
		k, err := a.NewProbeKey(b.Key.ID(), [wire.MeetingID]byte{})
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"203.0.113.5:1", "203.0.113.5:2", "203.0.113.6:1", "[2001:db8::1]:1"} {
			for socket := range 3 {
				token := k.Token(socket, netip.MustParseAddrPort(to))
				if token == 0 || seen[token] || token != k.Token(socket, netip.MustParseAddrPort(to)) {
					t.Errorf("%d for %s", token, to)
				}
				seen[token] = true
			}
		}
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
