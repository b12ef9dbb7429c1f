package secure

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20poly1305"
)

var bothCiphers = []Cipher{ChaCha20Poly1305, AES256GCM}

// oneWay returns a sealer and the opener of the same direction.
func oneWay(t testing.TB, c Cipher) (Sealer, Opener) {
	t.Helper()
	key := [32]byte{31: 7}
	s, _, err := split(c, key, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	_, o, err := split(c, [32]byte{1}, key)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// open opens one record that stands alone in b.
func open(o Opener, b []byte) (wire.Header, []byte, error) {
	if len(b) < wire.SealedHeader {
		return wire.Header{}, nil, wire.ErrShort
	}
	h, err := o.Header(b[:wire.SealedHeader])
	if err != nil {
		return wire.Header{}, nil, err
	}
	body, err := o.Body(nil, b[wire.SealedHeader:])
	return h, body, err
}

func frames(n int) wire.Header { return wire.Header{Type: wire.TypeFrames, Len: n} }

func TestRecordsOfEverySize(t *testing.T) {
	for _, c := range bothCiphers {
		s, o := oneWay(t, c)
		for _, n := range []int{0, 1, 15, 16, 17, 63, 64, 65, 1000, 16384, wire.MaxBody - 1, wire.MaxBody} {
			body := bytes.Repeat([]byte{byte(n)}, n)
			record := s.Seal([]byte("before"), frames(0), body)
			if string(record[:6]) != "before" {
				t.Fatalf("%v: what stood before the record is gone", c)
			}
			record = record[6:]
			if len(record) != wire.SealedHeader+n+wire.TagSize || len(record) > wire.MaxRecord {
				t.Errorf("%v: a body of %d bytes makes a record of %d", c, n, len(record))
			}
			if n > 15 && bytes.Contains(record, body[:16]) {
				t.Errorf("%v: the body is in clear", c)
			}
			h, got, err := open(o, record)
			if err != nil || h != frames(n) || !bytes.Equal(got, body) {
				t.Errorf("%v, %d bytes: %+v, %d bytes, %v", c, n, h, len(got), err)
			}
		}
	}
}

func TestHeaderFieldsArrive(t *testing.T) {
	for _, c := range bothCiphers {
		s, o := oneWay(t, c)
		want := wire.Header{Type: wire.TypePiece, Priority: 200, Len: 3, Left: wire.MaxMessage}
		record := s.Seal(nil, wire.Header{Type: wire.TypePiece, Priority: 200, Left: wire.MaxMessage}, []byte("abc"))
		if h, body, err := open(o, record); err != nil || h != want || string(body) != "abc" {
			t.Errorf("%v: %+v, %q, %v", c, h, body, err)
		}
	}
}

// A sealed header that says what no header may is refused even though it
// authenticates.
func TestHeaderOfAnInsider(t *testing.T) {
	for _, c := range bothCiphers {
		for _, h := range []wire.Header{{Type: 9}, {Type: wire.TypeFrames, Left: 1}, {Type: wire.TypePiece, Left: wire.MaxMessage + 1}} {
			s, o := oneWay(t, c)
			if got, _, err := open(o, s.Seal(nil, h, []byte("x"))); err == nil || errors.Is(err, ErrForged) {
				t.Errorf("%v: %+v came out as %+v, %v", c, h, got, err)
			}
		}
	}
}

// Sealing in place gives the same bytes as sealing apart, whatever the spare
// room of the buffer.
func TestSealInPlaceEqualsSealApart(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range bothCiphers {
		apart, _ := oneWay(t, c)
		inPlace, _ := oneWay(t, c)
		for range 2000 {
			body := make([]byte, r.IntN(3000))
			for i := range body {
				body[i] = byte(r.Uint32())
			}
			want := apart.Seal(nil, frames(0), body)

			prefix, spare := r.IntN(40), r.IntN(64)
			buf := make([]byte, prefix+wire.SealedHeader+len(body), prefix+wire.SealedHeader+len(body)+spare)
			place := buf[prefix+wire.SealedHeader:]
			copy(place, body)
			got := inPlace.Seal(buf[:prefix], frames(0), place)
			if !bytes.Equal(got[prefix:], want) {
				t.Fatalf("%v: %d bytes with %d in front and %d to spare differ", c, len(body), prefix, spare)
			}
			if spare >= wire.TagSize && &got[0] != &buf[:1][0] {
				t.Fatalf("%v: there was room, and the record was moved", c)
			}
		}
	}
}

// Opening in place gives what opening apart gives.
func TestOpenInPlaceEqualsOpenApart(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, c := range bothCiphers {
		s, o := oneWay(t, c)
		for range 500 {
			body := make([]byte, r.IntN(3000))
			for i := range body {
				body[i] = byte(r.Uint32())
			}
			record := s.Seal(nil, frames(0), body)
			if _, err := o.Header(record[:wire.SealedHeader]); err != nil {
				t.Fatal(err)
			}
			sealed := record[wire.SealedHeader:]
			got, err := o.Body(sealed[:0], sealed)
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%v: %d bytes came out as %d, %v", c, len(body), len(got), err)
			}
		}
	}
}

func TestSealAndOpenAllocateNothing(t *testing.T) {
	for _, c := range bothCiphers {
		for _, n := range []int{64, 64000} {
			s, o := oneWay(t, c)
			buf := make([]byte, wire.SealedHeader+n, wire.SealedHeader+n+wire.TagSize)
			allocs := testing.AllocsPerRun(200, func() {
				record := s.Seal(buf[:0], frames(0), buf[wire.SealedHeader:])
				h, err := o.Header(record[:wire.SealedHeader])
				if err != nil || h.Len != n {
					t.Fatal(h, err)
				}
				sealed := record[wire.SealedHeader:]
				if _, err = o.Body(sealed[:0], sealed); err != nil {
					t.Fatal(err)
				}
			})
			if allocs != 0 {
				t.Errorf("%v: %v allocations for a record of %d bytes, sealed and opened", c, allocs, n)
			}
		}
	}
}

// TestTamperedRecords takes three records of a conversation and lets an
// attacker on the path do what it can.
func TestTamperedRecords(t *testing.T) {
	for _, c := range bothCiphers {
		s, _ := oneWay(t, c)
		var records [][]byte
		for _, text := range []string{"first", "second", "third"} {
			records = append(records, s.Seal(nil, frames(0), []byte(text)))
		}
		fresh := func() Opener { _, o := oneWay(t, c); return o }
		refused := func(what string, o Opener, record []byte) {
			t.Helper()
			if h, body, err := open(o, record); err == nil {
				t.Errorf("%v: %s came out as %+v %q", c, what, h, body)
			} else if body != nil {
				t.Errorf("%v: %s: refused, yet it gave %q", c, what, body)
			}
		}
		for n := range records[0] {
			for bit := range 8 {
				forged := bytes.Clone(records[0])
				forged[n] ^= 1 << bit
				refused("a flipped record", fresh(), forged)
			}
			refused("a record cut short", fresh(), records[0][:n])
		}
		refused("a record with a byte more", fresh(), append(bytes.Clone(records[0]), 0))
		refused("the second record first", fresh(), records[1])
		o := fresh()
		if _, _, err := open(o, records[0]); err != nil {
			t.Fatal(err)
		}
		refused("a replayed record", o, records[0])
		o = fresh()
		if _, _, err := open(o, records[0]); err != nil {
			t.Fatal(err)
		}
		refused("a record after one that was dropped", o, records[2])
		spliced := append(bytes.Clone(records[0][:wire.SealedHeader]), records[1][wire.SealedHeader:]...)
		refused("the body of another record", fresh(), spliced)
		halves := append(bytes.Clone(records[0][wire.SealedHeader:]), records[0][:wire.SealedHeader]...)
		refused("header and body exchanged", fresh(), halves)
	}
}

// A record that is sent back to who sealed it does not open.
func TestReflectedRecord(t *testing.T) {
	for _, ciphers := range []uint8{1, 3} {
		a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
		a.Hello.Ciphers, b.Hello.Ciphers = ciphers, ciphers
		x, y := meet(t, a, b, b.Key.ID(), nil)
		if x.err != nil || y.err != nil {
			t.Fatal(x.err, y.err)
		}
		record := x.link.Seal.Seal(nil, frames(0), []byte("mirror"))
		if _, _, err := open(x.link.Open, record); !errors.Is(err, ErrForged) {
			t.Errorf("%v: %v", x.link.Cipher, err)
		}
		if _, body, err := open(y.link.Open, record); err != nil || string(body) != "mirror" {
			t.Errorf("%v: where it belongs it gives %q, %v", x.link.Cipher, body, err)
		}
	}
}

// reference is the record layer once more, written from the Noise
// specification with the counters in the open.
type reference struct {
	c   Cipher
	key []byte
	n   uint64
}

func (r *reference) aead(t *testing.T) cipher.AEAD {
	t.Helper()
	if r.c == ChaCha20Poly1305 {
		a, err := chacha20poly1305.New(r.key)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	block, err := aes.NewCipher(r.key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (r *reference) nonce(n uint64) []byte {
	b := make([]byte, 12)
	if r.c == ChaCha20Poly1305 {
		binary.LittleEndian.PutUint64(b[4:], n)
	} else {
		binary.BigEndian.PutUint64(b[4:], n)
	}
	return b
}

func (r *reference) seal(t *testing.T, plain []byte) []byte {
	t.Helper()
	if r.n != 0 && r.n%65536 == 0 {
		r.key = r.aead(t).Seal(nil, r.nonce(math.MaxUint64), make([]byte, 32), nil)[:32]
	}
	out := r.aead(t).Seal(nil, r.nonce(r.n), plain, nil)
	r.n++
	return out
}

// TestRekeyAtTheBoundary runs both ciphers over three changes of key and
// compares the records around each with the reference.
func TestRekeyAtTheBoundary(t *testing.T) {
	const perKey = wire.RekeyInterval / 2 // two nonces a record
	for _, c := range bothCiphers {
		s, o := oneWay(t, c)
		key := s.half.key
		ref := &reference{c: c, key: bytes.Clone(key[:])}
		buf := make([]byte, 0, 256)
		keys := map[[32]byte]bool{key: true}
		for i := range 3*perKey + 3 {
			body := binary.BigEndian.AppendUint32(nil, uint32(i))
			record := s.Seal(buf, frames(0), body)
			if near := (i+2)%perKey < 4; near {
				ref.n = uint64(2 * i)
				want := ref.seal(t, frames(4).Append(nil))
				want = append(want, ref.seal(t, body)...)
				if !bytes.Equal(record, want) {
					t.Fatalf("%v: record %d\n got %x\nwant %x", c, i, record, want)
				}
				if s.half.key != [32]byte(ref.key) {
					t.Fatalf("%v: another key at record %d", c, i)
				}
			}
			keys[s.half.key] = true
			if h, got, err := open(o, record); err != nil || h.Len != 4 || !bytes.Equal(got, body) {
				t.Fatalf("%v: record %d: %+v, %x, %v", c, i, h, got, err)
			}
		}
		if len(keys) != 4 {
			t.Errorf("%v: %d keys in use, want 4", c, len(keys))
		}
		// The old key opens nothing that is sealed with the new one.
		n := s.half.n
		header := s.Seal(nil, frames(0), nil)[:wire.SealedHeader]
		for _, k := range []struct {
			key  [32]byte
			want error
		}{{key, ErrForged}, {s.half.key, nil}} {
			again := &halfDuplex{key: k.key, cipher: c, n: n}
			if err := again.expand(); err != nil {
				t.Fatal(err)
			}
			if _, err := (Opener{again}).Header(header); !errors.Is(err, k.want) {
				t.Errorf("%v: a record of the fourth key opened with %x: %v", c, k.key[:4], err)
			}
		}
	}
}

// One key never serves two ciphers.
func TestCiphersHaveTheirOwnKeys(t *testing.T) {
	key := [32]byte{5}
	a, err := newHalf(ChaCha20Poly1305, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newHalf(AES256GCM, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.key != key || b.key == key {
		t.Errorf("ChaCha20-Poly1305 has %x, AES-256-GCM %x, both from %x", a.key, b.key, key)
	}
}

func TestZeroErasesTheKey(t *testing.T) {
	for _, c := range bothCiphers {
		s, o := oneWay(t, c)
		s.Zero()
		o.Zero()
		if s.half.key != [32]byte{} || o.half.key != [32]byte{} {
			t.Errorf("%v: a key is still there", c)
		}
	}
}

// TestOldRecordsAfterTheChangeOfKey: what was recorded before a change of key does not open after it, in
// whatever place, neither as a record nor as a datagram; and the numbers under each key are each used once.
func TestOldRecordsAfterTheChangeOfKey(t *testing.T) {
	for _, c := range []Cipher{ChaCha20Poly1305, AES256GCM} {
		seal, _, err := split(c, [32]byte{1}, [32]byte{2})
		if err != nil {
			t.Fatal(err)
		}
		_, open, err := split(c, [32]byte{2}, [32]byte{1})
		if err != nil {
			t.Fatal(err)
		}
		used := map[[32]byte]map[[12]byte]bool{}
		seal.half.aead = counting{seal.half.aead, t, seal.half, used}
		var old [][]byte
		for n := range 2*wire.RekeyInterval/2 + 10 {
			r := seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, []byte("pay once"))
			if _, ok := seal.half.aead.(counting); !ok { // there is a new key
				seal.half.aead = counting{seal.half.aead, t, seal.half, used}
			}
			if n < 3 || n > wire.RekeyInterval/2-3 && n < wire.RekeyInterval/2+3 {
				old = append(old, r)
			}
			for _, o := range old {
				if n%4096 != 4095 && (n < wire.RekeyInterval/2-2 || n > wire.RekeyInterval/2+4) || len(o) == 0 || &o[0] == &r[0] {
					continue
				}
				half := *open.half // a copy, that the attempt may spoil
				if _, err := (Opener{&half}).Header(o[:wire.SealedHeader]); err == nil {
					t.Fatalf("%v: a recorded record opens as number %d", c, n)
				}
			}
			h, err := open.Header(r[:wire.SealedHeader])
			if err != nil {
				t.Fatalf("%v: record %d: %v", c, n, err)
			}
			if body, err := open.Body(nil, r[wire.SealedHeader:]); err != nil || h.Len != len(body) {
				t.Fatalf("%v: record %d: %v", c, n, err)
			}
		}
		if len(used) < 3 {
			t.Errorf("%v: %d keys were used", c, len(used))
		}
	}
}

// counting is an AEAD that has each number once under each key.
type counting struct {
	cipher.AEAD
	t    *testing.T
	half *halfDuplex
	used map[[32]byte]map[[12]byte]bool
}

func (c counting) Seal(dst, nonce, plain, ad []byte) []byte {
	m := c.used[c.half.key]
	if m == nil {
		m = map[[12]byte]bool{}
		c.used[c.half.key] = m
	}
	n := [12]byte(nonce)
	if m[n] {
		c.t.Fatalf("the number %x is used twice under one key", n)
	}
	m[n] = true
	return c.AEAD.Seal(dst, nonce, plain, ad)
}
