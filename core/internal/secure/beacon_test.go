package secure

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
)

func beaconKey(t *testing.T, c *Config) *BeaconKey {
	t.Helper()
	k, err := c.NewBeaconKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Everybody of the network opens a beacon, nobody else does, and nobody changes it.
func TestBeacon(t *testing.T) {
	ours, theirs := beaconKey(t, config(t, "net")), beaconKey(t, config(t, "net"))
	content := bytes.Repeat([]byte{7}, wire.MaxBeacon)
	d, err := ours.Seal(content, math.MaxInt)
	if err != nil {
		t.Fatal(err)
	}
	got, err := theirs.Open(d)
	if err != nil || !bytes.HasPrefix(got, content) || len(bytes.Trim(got[len(content):], "\x00")) > 0 {
		t.Errorf("%x, %v", got, err)
	}
	for name, k := range map[string]*BeaconKey{"another network": beaconKey(t, config(t, "other")), "the default network": beaconKey(t, config(t, ""))} {
		if _, err := k.Open(d); !errors.Is(err, ErrBeacon) {
			t.Errorf("opened by %s: %v", name, err)
		}
	}
	for n := range d {
		d[n] ^= 0x40
		if _, err := theirs.Open(d); !errors.Is(err, ErrBeacon) {
			t.Fatalf("with a bit of byte %d flipped it opens: %v", n, err)
		}
		d[n] ^= 0x40
	}
	for _, n := range []int{0, BeaconNonce, MinBeacon - 1, len(d) - 1} {
		if _, err := theirs.Open(d[:n]); !errors.Is(err, ErrBeacon) {
			t.Errorf("%d bytes of it open: %v", n, err)
		}
	}
	if _, err := theirs.Open(append(d, make([]byte, MaxBeacon)...)); !errors.Is(err, ErrBeacon) {
		t.Errorf("more than a beacon opens: %v", err)
	}
	if _, err := ours.Seal(make([]byte, MinBeacon), math.MaxInt); err == nil {
		t.Error("what is too long is sealed")
	}
}

// Lengths are random, within the bound that is asked for, and none is out of bounds.
func TestBeaconLengths(t *testing.T) {
	k := beaconKey(t, config(t, "net"))
	for _, most := range []int{-1, 0, MinBeacon, MinBeacon + 1, 700, MaxBeacon, MaxBeacon + 1, math.MaxInt} {
		lengths := map[int]bool{}
		for range 2000 {
			d, err := k.Seal([]byte("hello"), most)
			if err != nil || len(d) < MinBeacon || len(d) > max(MinBeacon, min(most, MaxBeacon)) {
				t.Fatalf("%d bytes where %d are the most, %v", len(d), most, err)
			}
			lengths[len(d)] = true
		}
		if want := max(MinBeacon, min(most, MaxBeacon)) - MinBeacon + 1; len(lengths) < want*9/10 {
			t.Errorf("%d different lengths of %d", len(lengths), want)
		}
	}
}

// TestBeaconGolden holds the bytes. They are those of libsodium, too.
func TestBeaconGolden(t *testing.T) {
	c := config(t, "orchard")
	random := make([]byte, BeaconNonce+2)
	for i := range random {
		random[i] = byte(i)
	}
	random[BeaconNonce], random[BeaconNonce+1] = 0, 0 // the shortest
	c.Random = bytes.NewReader(random)
	k := beaconKey(t, c)
	d, err := k.Seal([]byte("hello"), math.MaxInt)
	if err != nil || len(d) != MinBeacon {
		t.Fatal(len(d), err)
	}
	const begin = "000102030405060708090a0b0c0d0e0f101112131415161788dc90b3e07a65c64110e8399a347b3f"
	const end = "9eba90d83b82aa44d8894efc83a177a7"
	if got := hex.EncodeToString(d[:BeaconNonce+16]); got != begin {
		t.Errorf("it begins with %s, want %s", got, begin)
	}
	if got := hex.EncodeToString(d[len(d)-16:]); got != end {
		t.Errorf("it ends with %s, want %s", got, end)
	}
	if _, err := k.Seal(nil, 0); err == nil {
		t.Error("sealed without randomness")
	}
}
