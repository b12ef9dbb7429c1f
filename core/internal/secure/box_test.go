package secure

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// sealed makes the datagram of one number, whatever was sealed before.
func sealed(b *Box, number uint64, plain string) []byte {
	for b.seal.next = number; number >= b.seal.end; b.seal.end += wire.EpochDatagrams {
		b.seal.key = b.seal.ratchet.next()
	}
	d, _ := b.Seal(nil, []byte(plain))
	return d
}

// unseal opens a copy of a datagram.
func unseal(key *HeaderKey, b *Box, d []byte) ([]byte, error) {
	d = bytes.Clone(d)
	_, n, ok := key.Open(d)
	if !ok {
		return nil, ErrForged
	}
	return b.Open(d, n)
}

func TestDatagramsOfEverySize(t *testing.T) {
	for _, c := range bothCiphers {
		seal, open, key := boxes(t, c)
		for i, n := range []int{0, 1, 15, 16, 17, 1200, 1400, 1472, 9000, 65507 - SealOverhead} {
			plain := bytes.Repeat([]byte{byte(n)}, n)
			d, number := seal.Seal([]byte("before"), plain)
			if string(d[:6]) != "before" || len(d) != 6+n+SealOverhead || number != uint64(i) {
				t.Fatalf("%v: %d bytes make %d, number %d", c, n, len(d), number)
			}
			if n > 15 && bytes.Contains(d, plain[:16]) {
				t.Errorf("%v: the plaintext shows", c)
			}
			got, err := unseal(key, open, d[6:])
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%v, %d bytes: %d bytes, %v", c, n, len(got), err)
			}
		}
	}
}

// A run sealed in place, datagram behind datagram, is what they are apart.
func TestSealRunInPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, c := range bothCiphers {
		apart, _, key := boxes(t, c)
		inPlace, open, _ := boxes(t, c)
		inPlace.seal.cid, inPlace.seal.block = apart.seal.cid, apart.seal.block
		run := make([]byte, 0, 64<<10)
		out := run
		var want []byte
		for range 200 {
			n := r.IntN(300)
			at := len(out) + wire.HeaderBlock
			place := out[at : at+n]
			for i := range place {
				place[i] = byte(r.Uint32())
			}
			want, _ = apart.Seal(want, bytes.Clone(place))
			out, _ = inPlace.Seal(out, place)
		}
		if !bytes.Equal(out, want) || &out[0] != &run[:1][0] {
			t.Fatalf("%v: a run in place differs, or was moved", c)
		}
		_, n, _ := key.Open(out)
		if _, err := open.Open(out[:len(out):len(out)], n); !errors.Is(err, ErrForged) {
			t.Errorf("%v: a whole run as one datagram: %v", c, err)
		}
	}
}

// reference datagrams, written from docs/PROTOCOL.md with nothing of box.go but
// the ciphers.
func referenceDatagram(t *testing.T, c Cipher, direction [32]byte, remote Binding, number uint64, plain []byte) []byte {
	t.Helper()
	chain := keyed(direction, "libcrust/1 datagrams "+c.String())
	for range number >> 22 {
		chain = keyed(chain, "next")
	}
	key := keyed(chain, "key")
	r := reference{c: c, key: key[:]}
	block, err := aes.NewCipher(remote.HeaderKey[:])
	if err != nil {
		t.Fatal(err)
	}
	header := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, remote.CID), number)
	block.Encrypt(header, header)
	return r.aead(t).Seal(header, r.nonce(number), plain, header)
}

// The numbers around each change of key give the datagrams of the reference, and
// open in any order that the window allows.
func TestEpochs(t *testing.T) {
	const e = wire.EpochDatagrams
	numbers := []uint64{0, 1, e - 2, e - 1, e, e + 1, 2*e - 1, 2 * e, 3*e + 5}
	for _, c := range bothCiphers {
		key := headerKey(t)
		remote, err := key.Bind(nil)
		if err != nil {
			t.Fatal(err)
		}
		end := func(send, receive byte) *Box {
			b, err := newBox(c, &[32]byte{send}, &[32]byte{receive}, remote)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		seal, open := end(1, 2), end(2, 1)
		for _, n := range numbers {
			d := sealed(seal, n, "text")
			if want := referenceDatagram(t, c, [32]byte{1}, remote, n, []byte("text")); !bytes.Equal(d, want) {
				t.Fatalf("%v: number %d\n got %x\nwant %x", c, n, d, want)
			}
			if got, err := unseal(key, open, d); err != nil || string(got) != "text" {
				t.Fatalf("%v: number %d: %q, %v", c, n, got, err)
			}
		}
		// Over the boundary and back again.
		seal, open = end(1, 2), end(2, 1)
		low := sealed(seal, e-3, "old")
		if _, err := unseal(key, open, sealed(seal, e+4000, "new")); err != nil {
			t.Fatal(err)
		}
		if got, err := unseal(key, open, low); err != nil || string(got) != "old" {
			t.Errorf("%v: a late datagram of the last epoch: %q, %v", c, got, err)
		}
		if open.open.last.aead == nil {
			t.Errorf("%v: the last key is gone too early", c)
		}
		if _, err := unseal(key, open, sealed(seal, e+4200, "new")); err != nil {
			t.Fatal(err)
		}
		if open.open.last.aead != nil {
			t.Errorf("%v: the last key outlives the window", c)
		}
		// Two epochs ahead there is no key, and nothing changes.
		if _, err := unseal(key, open, sealed(seal, 3*e, "far")); !errors.Is(err, ErrForged) {
			t.Errorf("%v: two epochs ahead: %v", c, err)
		}
		if h, _ := open.Highest(); h != e+4200 {
			t.Errorf("%v: highest %d", c, h)
		}
	}
}

// The keys of different epochs, ciphers and directions are different.
func TestKeysOfABoxDiffer(t *testing.T) {
	seen := map[[32]byte]string{}
	for _, c := range bothCiphers {
		for _, direction := range []byte{1, 2} {
			r := newRatchet(c, &[32]byte{direction})
			for range 4 {
				for _, key := range [][32]byte{r.chain, keyed(r.chain, "key")} {
					if at, ok := seen[key]; ok {
						t.Errorf("%v, direction %d: a key as in %s", c, direction, at)
					}
					seen[key] = c.String()
				}
				r.next()
			}
		}
	}
}

func TestReplayWindow(t *testing.T) {
	const w = wire.ReplayWindow
	for _, c := range []struct {
		name    string
		numbers []uint64
		errs    []error // nil when the datagram is good
	}{
		{"twice", []uint64{0, 0}, []error{nil, ErrReplayed}},
		{"in order", []uint64{0, 1, 2, 0, 1, 2}, []error{nil, nil, nil, ErrReplayed, ErrReplayed, ErrReplayed}},
		{"the lowest that is not too old", []uint64{w, 1, 0}, []error{nil, nil, ErrReplayed}},
		{"the whole window back", []uint64{w - 1, 0, 0}, []error{nil, nil, ErrReplayed}},
		{"a jump over the ring", []uint64{5, 5 + 2*w, 5, 5 + w, 6 + w, 5 + 2*w}, []error{nil, nil, ErrReplayed, ErrReplayed, nil, ErrReplayed}},
		{"a jump of exactly the ring", []uint64{3, 3 + 2*w, 3 + 2*w - 64, 3 + 2*w}, []error{nil, nil, nil, ErrReplayed}},
		{"a far jump", []uint64{64, 1 << 21, 64, 1<<21 - w, 1<<21 - w + 1}, []error{nil, nil, ErrReplayed, ErrReplayed, nil}},
		{"words", []uint64{63, 64, 127, 128, 63, 64, 127, 128, 65, 126}, []error{nil, nil, nil, nil, ErrReplayed, ErrReplayed, ErrReplayed, ErrReplayed, nil, nil}},
		{"too high", []uint64{wire.MaxNumber + 1}, []error{ErrReplayed}},
	} {
		seal, open, key := boxes(t, AES256GCM)
		for i, n := range c.numbers {
			if n > wire.MaxNumber {
				d := referenceDatagram(t, AES256GCM, [32]byte{1}, Binding{HeaderKey: key.key}, 0, nil)
				if _, err := open.Open(d, n); !errors.Is(err, c.errs[i]) {
					t.Errorf("%s: number %d: %v", c.name, n, err)
				}
				continue
			}
			if _, err := unseal(key, open, sealed(seal, n, "x")); !errors.Is(err, c.errs[i]) {
				t.Errorf("%s: datagram %d with number %d: %v, want %v", c.name, i, n, err, c.errs[i])
			}
		}
	}
}

// TestWindowAgainstAMap compares the ring with a set that forgets nothing.
func TestWindowAgainstAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20 {
		var w window
		came := map[uint64]bool{}
		var top uint64
		for range 20000 {
			n := top
			switch r.IntN(10) {
			case 0:
				n += uint64(r.IntN(3 * wire.ReplayWindow))
			case 1, 2, 3:
				n += uint64(r.IntN(3))
			default:
				n -= min(n, uint64(r.IntN(wire.ReplayWindow+100)))
			}
			want := n >= top || top-n <= wire.ReplayWindow && !came[n]
			if got := w.fresh(n); got != want {
				t.Fatalf("number %d under %d: fresh %v, want %v", n, top, got, want)
			}
			if want {
				w.add(n)
				came[n] = true
				top = max(top, n+1)
			}
			if w.top != top {
				t.Fatalf("top %d, want %d", w.top, top)
			}
		}
	}
}

// Every truncated prefix and every flipped bit of a datagram is refused, and does
// not use up its number.
func TestTamperedDatagrams(t *testing.T) {
	for _, c := range bothCiphers {
		seal, open, key := boxes(t, c)
		d := sealed(seal, 5, "some text")
		next := sealed(seal, 6, "some text")
		if bytes.Equal(d[:wire.HeaderBlock], next[:wire.HeaderBlock]) || bytes.Equal(d[wire.HeaderBlock:], next[wire.HeaderBlock:]) {
			t.Errorf("%v: two datagrams of one text are alike", c)
		}
		for n := range d {
			if got, err := unseal(key, open, d[:n]); err == nil {
				t.Fatalf("%v: cut to %d bytes: %q", c, n, got)
			}
			for bit := range 8 {
				forged := bytes.Clone(d)
				forged[n] ^= 1 << bit
				// With the number that the block says, and with the right one.
				if got, err := unseal(key, open, forged); err == nil || got != nil {
					t.Fatalf("%v: bit %d of byte %d flipped: %q", c, bit, n, got)
				}
				if got, err := open.Open(forged, 5); err == nil || got != nil {
					t.Fatalf("%v: bit %d of byte %d flipped, number 5: %q", c, bit, n, got)
				}
			}
		}
		for name, forged := range map[string][]byte{
			"a byte more":            append(bytes.Clone(d), 0),
			"another one's header":   append(bytes.Clone(next[:wire.HeaderBlock]), d[wire.HeaderBlock:]...),
			"another one's contents": append(bytes.Clone(d[:wire.HeaderBlock]), next[wire.HeaderBlock:]...),
		} {
			if got, err := unseal(key, open, forged); !errors.Is(err, ErrForged) || got != nil {
				t.Errorf("%v: %s: %q, %v", c, name, got, err)
			}
		}
		if got, err := unseal(key, seal, d); err == nil { // back to who sealed it
			t.Errorf("%v: reflected: %q", c, got)
		}
		if got, err := unseal(key, open, d); err != nil || string(got) != "some text" {
			t.Errorf("%v: after all this the genuine one: %q, %v", c, got, err)
		}
	}
}

// A datagram that is not for this socket gives no association that exists.
func TestHeaderKeys(t *testing.T) {
	seal, _, key := boxes(t, AES256GCM)
	d := sealed(seal, 77, "")
	if cid, n, ok := key.Open(d); !ok || cid != seal.seal.cid || n != 77 {
		t.Errorf("%x, %d, %v", cid, n, ok)
	}
	if cid, n, ok := headerKey(t).Open(d); !ok || cid == seal.seal.cid || n == 77 {
		t.Errorf("with another key: %x, %d, %v", cid, n, ok)
	}
	if _, _, ok := key.Open(d[:SealOverhead-1]); ok {
		t.Error("a datagram that is too short")
	}
	one, err := key.Bind(nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := key.Bind(nil)
	if err != nil || one.CID == two.CID || one.HeaderKey != two.HeaderKey {
		t.Errorf("%+v and %+v, %v", one, two, err)
	}
}

func TestSkippedNumbers(t *testing.T) {
	seal, open, key := boxes(t, AES256GCM)
	if seal.Number() != 0 || !seal.Skip(3) || seal.Number() != 3 || seal.Skip(wire.ReplayWindow+1) {
		t.Errorf("number %d", seal.Number())
	}
	seal.seal.next = wire.EpochDatagrams - 2
	if !seal.Skip(10) {
		t.Fatal("not skipped")
	}
	d, n := seal.Seal(nil, []byte("over the change"))
	if got, err := unseal(key, open, d); n != wire.EpochDatagrams+8 || err != nil || string(got) != "over the change" {
		t.Errorf("number %d: %q, %v", n, got, err)
	}
}

func TestEndOfABox(t *testing.T) {
	for _, c := range bothCiphers {
		seal, open, key := boxes(t, c)
		d := sealed(seal, 0, "x")
		seal.seal.next, seal.seal.end = wire.MaxNumber, wire.MaxNumber+1
		if d, n := seal.Seal(nil, nil); len(d) != SealOverhead || n != wire.MaxNumber {
			t.Errorf("%v: the last number: %d bytes, %d", c, len(d), n)
		}
		if d, _ := seal.Seal(nil, nil); d != nil || seal.Skip(1) {
			t.Errorf("%v: sealed beyond the last number", c)
		}
		other, _, _ := boxes(t, c)
		other.ZeroSeal()
		if d, _ := other.Seal([]byte("kept"), []byte("x")); string(d) != "kept" {
			t.Errorf("%v: sealed after ZeroSeal: %q", c, d)
		}
		open.open.refused = wire.MaxRefused - 1
		forged := bytes.Clone(d)
		forged[20] ^= 1
		if _, err := unseal(key, open, forged); !errors.Is(err, ErrForged) {
			t.Errorf("%v: %v", c, err)
		}
		if _, err := unseal(key, open, d); !errors.Is(err, ErrWornOut) {
			t.Errorf("%v: after the last forgery that is allowed: %v", c, err)
		}
		_, open, key = boxes(t, c)
		open.ZeroOpen()
		if _, err := unseal(key, open, d); !errors.Is(err, ErrWornOut) {
			t.Errorf("%v: after ZeroOpen: %v", c, err)
		}
	}
}

// One goroutine seals while another one opens; the race detector looks on.
func TestHalvesAreIndependent(t *testing.T) {
	x, y, key := boxes(t, AES256GCM)
	var datagrams [][]byte
	for range 500 {
		d, _ := y.Seal(nil, []byte("to x"))
		datagrams = append(datagrams, d)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 500 {
			x.Seal(nil, []byte("to y"))
		}
	})
	for _, d := range datagrams {
		if _, err := unseal(key, x, d); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if h, ok := x.Highest(); !ok || h != 499 || x.Number() != 500 {
		t.Errorf("%d, %v, %d", h, ok, x.Number())
	}
}

func TestBoxAllocatesNothing(t *testing.T) {
	network, stray := NewNetwork("n"), make([]byte, 1200)
	buf := make([]byte, FlightSize)
	for _, c := range bothCiphers {
		seal, open, key := boxes(t, c)
		run := make([]byte, 0, 2000)
		allocs := testing.AllocsPerRun(500, func() {
			d, _ := seal.Seal(run, run[wire.HeaderBlock:wire.HeaderBlock+1400])
			_, n, _ := key.Open(d)
			if _, err := open.Open(d, n); err != nil {
				t.Fatal(err)
			}
			if _, err := open.Open(d, n); !errors.Is(err, ErrReplayed) {
				t.Fatal(err)
			}
			stray[n%1200]++
			if _, err := network.OpenFlight(buf, stray); err == nil {
				t.Fatal("opened")
			}
		})
		if allocs != 0 {
			t.Errorf("%v: %v allocations for a datagram", c, allocs)
		}
	}
}
