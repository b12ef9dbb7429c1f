package secure

import (
	"crypto/cipher"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	benchPlain = 1400 // bytes of a datagram's plaintext
	benchRun   = 40   // datagrams in one GSO run
)

// boxes returns the two ends of an association.
func boxes(t testing.TB, c Cipher) (seal, open *Box, key *HeaderKey) {
	t.Helper()
	key = headerKey(t)
	remote, err := key.Bind(nil)
	if err != nil {
		t.Fatal(err)
	}
	one := func(send, receive byte) *Box {
		b, err := newBox(c, &[32]byte{send}, &[32]byte{receive}, remote)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return one(1, 2), one(2, 1), key
}

// BenchmarkSealRun seals a run of datagrams in place, beside the bare AEAD.
func BenchmarkSealRun(b *testing.B) {
	run := make([]byte, 0, benchRun*(benchPlain+SealOverhead))
	for _, c := range bothCiphers {
		b.Run(c.String()+"/box", func(b *testing.B) {
			box, _, _ := boxes(b, c)
			b.SetBytes(benchRun * benchPlain)
			for b.Loop() {
				out := run
				for range benchRun {
					at := len(out) + wire.HeaderBlock
					out, _ = box.Seal(out, out[at:at+benchPlain])
				}
			}
		})
		b.Run(c.String()+"/bare", func(b *testing.B) {
			aead, nonce := bare(b, c), make([]byte, 12)
			b.SetBytes(benchRun * benchPlain)
			for b.Loop() {
				out := run
				for range benchRun {
					out = aead.Seal(out, nonce, out[len(out):len(out)+benchPlain], nil)
				}
			}
		})
	}
}

func bare(t testing.TB, c Cipher) cipher.AEAD {
	t.Helper()
	aead, err := newAEAD(c, &[32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// BenchmarkOpenRun opens a run of datagrams in place, header block and all, beside
// the bare AEAD.
func BenchmarkOpenRun(b *testing.B) {
	for _, c := range bothCiphers {
		b.Run(c.String()+"/box", func(b *testing.B) {
			seal, open, key := boxes(b, c)
			d, _ := seal.Seal(nil, make([]byte, benchPlain))
			work := make([]byte, len(d))
			b.SetBytes(benchPlain)
			for b.Loop() {
				copy(work, d)
				_, n, _ := key.Open(work)
				if _, err := open.Open(work, n); err != nil {
					b.Fatal(err)
				}
				open.open.window.top, open.open.window.bits[0] = 0, 0
			}
		})
		b.Run(c.String()+"/bare", func(b *testing.B) {
			aead, nonce := bare(b, c), make([]byte, 12)
			d := aead.Seal(nil, nonce, make([]byte, benchPlain), nil)
			work := make([]byte, len(d))
			b.SetBytes(benchPlain)
			for b.Loop() {
				copy(work, d)
				if _, err := aead.Open(work[:0], nonce, work, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStray is what a datagram costs that is no flight and no datagram of ours.
func BenchmarkStray(b *testing.B) {
	n, key, r := NewNetwork("n"), headerKey(b), deterministic(3)
	strays := make([][]byte, 256)
	for i := range strays {
		strays[i] = make([]byte, 1200)
		r.Read(strays[i]) //nolint:errcheck // never fails
	}
	buf := make([]byte, FlightSize)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		key.Open(strays[i%256])
		if _, err := n.OpenFlight(buf, strays[i%256]); err == nil {
			b.Fatal("opened")
		}
		i++
	}
}

// BenchmarkDatagramHandshake is one handshake, both ends.
func BenchmarkDatagramHandshake(b *testing.B) {
	e := newEnds(b, 3)
	e.a.Images, e.b.Images = new(Images), new(Images)
	for b.Loop() {
		e.join(b, here, 0)
	}
}
