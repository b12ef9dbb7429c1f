package wire

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

func TestDoors(t *testing.T) {
	for text, want := range map[string]Doors{
		"1a 05 156b 9c40 03": {TCP: 5483, UTP: 40000, MappedTCP: true, MappedUTP: true},
		"1a 05 156b 0000 00": {TCP: 5483},
		"1a 05 0000 9c40 02": {UTP: 40000, MappedUTP: true},
		"1a 05 0000 0000 00": {},
	} {
		b := want.Append(nil)
		golden(t, "doors", b, text)
		whole := body(t, b, FrameDoors)
		if got, err := ParseDoors(whole); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if got, err := ParseDoors(append(bytes.Clone(whole[:4]), whole[4]|0xfc, 7)); err != nil || got != want {
			t.Errorf("with flags and bytes to come: %+v, %v; want %+v", got, err, want)
		}
		for n := range whole {
			if got, err := ParseDoors(whole[:n]); err == nil {
				t.Errorf("cut to %d bytes it still parses: %+v", n, got)
			}
		}
	}
}

func FuzzDoors(f *testing.F) {
	f.Add(unhex(f, "156b 9c40 03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseDoors(b)
		if err != nil {
			return
		}
		_, again, _, _ := NextFrame(r.Append(nil))
		if back, err := ParseDoors(again); err != nil || back != r {
			t.Fatalf("%+v comes back as %+v, %v", r, back, err)
		}
	})
}

// Which endpoints a router passes on is told in a field, where any is.
func TestMapped(t *testing.T) {
	k, i, l := testKey(t, 1), testInfo(t), testLetter()
	plain, plainLetter := i.Append(nil, k.Sign), l.Append(nil)
	i.Mapped, l.Mapped = 0b10|1<<31, 0b1|1<<5 // bits of endpoints that are not there are not written
	b, c := i.Append(nil, k.Sign), l.Append(nil)
	const field, letterField = "01 0004 00000002", "01 0004 00000001"
	golden(t, "field of an info", b[len(plain)-64:len(b)-64], field)
	golden(t, "field of a letter", c[len(plainLetter):], letterField)
	i.Mapped, l.Mapped = 0b10, 0b1
	if got, err := ParseInfo(b); err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseLetter(c); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("%+v, %v", got, err)
	}
	head := "01" + testPeer + "0000000068000000 000102030405060708090a0b0c0d0e0f"
	// The bits are of the places of endpoints, also where one before is left out.
	got, err := ParseInfo(sealed(t, head+"03 01 04 01020304 0001 63 04 01020304 0001 01 04 01020304 0002 01 0004 fffffffc"))
	if err != nil || len(got.Endpoints) != 2 || got.Mapped != 0b10 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseInfo(sealed(t, head+"00 01 0003 000000")); err == nil {
		t.Errorf("a field of three bytes: %+v", got)
	}
	// All of the endpoints that there may be.
	i.Endpoints, i.Mapped = nil, 0
	for n := range MaxEndpoints {
		i.Endpoints = append(i.Endpoints, endpoint.New(endpoint.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{1, 2, 3, byte(n)}), 1)))
		i.Mapped |= 1 << n
	}
	if got, err := ParseInfo(i.Append(nil, k.Sign)); err != nil || got.Mapped != 1<<32-1 {
		t.Errorf("%x, %v", got.Mapped, err)
	}
}
