package secure

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// kernelOf returns the kernel for a cipher, nil when the machine has none.
func kernelOf(c Cipher) *kernel {
	if c == AES256GCM {
		return wideGCM()
	}
	return wideChaCha()
}

// eachKernel runs a test for each kernel of the machine, beside Go's own cipher
// under the same key.
func eachKernel(t *testing.T, test func(t *testing.T, r *rand.Rand, key wideKey, own cipher.AEAD)) {
	for _, c := range bothCiphers {
		t.Run(c.String(), func(t *testing.T) {
			k := kernelOf(c)
			if k == nil {
				t.Skip("no kernel for this machine")
			}
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			var secret [32]byte
			fill(r, secret[:])
			own, err := k.plain(secret[:])
			if err != nil {
				t.Fatal(err)
			}
			key := k.begin(&secret)
			defer key.zero()
			test(t, r, key, own)
		})
	}
}

func fill(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}

func some(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	fill(r, b)
	return b
}

// same fails unless the kernel seals and opens as Go's own does: in place and from
// elsewhere, with what lies before and behind unharmed.
func same(t *testing.T, key wideKey, own cipher.AEAD, nonce, text, extra []byte, at int) {
	t.Helper()
	const guard = 70
	n, start := len(text), (*[nonceSize]byte)(nonce)
	want := own.Seal(nil, nonce, text, extra)
	for _, inPlace := range []bool{true, false} {
		mem := bytes.Repeat([]byte{0xa5}, at+n+tagSize+guard)
		out, src := mem[at:at+n+tagSize], text
		if inPlace {
			copy(out, text)
			src = out[:n]
		}
		key.seal(start, out, src, extra)
		if !bytes.Equal(out, want) {
			t.Fatalf("%d bytes with %d of extra data at %d, in place %v: sealed wrongly", n, len(extra), at, inPlace)
		}
		if src = want; inPlace {
			src = out
		}
		if !key.open(start, out[:n], src, extra) || !bytes.Equal(out[:n], text) {
			t.Fatalf("%d bytes with %d of extra data at %d, in place %v: opened wrongly", n, len(extra), at, inPlace)
		}
		if rest := mem[at+n+tagSize:]; bytes.Count(rest, []byte{0xa5}) != len(rest) || bytes.Count(mem[:at], []byte{0xa5}) != at {
			t.Fatalf("%d bytes with %d of extra data at %d, in place %v: wrote beside them", n, len(extra), at, inPlace)
		}
		if !bytes.Equal(out[n:], want[n:]) {
			t.Fatalf("%d bytes: opening changed the tag", n)
		}
	}
}

func TestWideLengths(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *rand.Rand, key wideKey, own cipher.AEAD) {
		for n := range 2200 {
			same(t, key, own, some(r, nonceSize), some(r, n), some(r, n%7), n%64)
		}
		for n := 8 << 10; n < 12<<10; n += 1 + n%3 { // the two lengths of long steps, and what is left behind them
			same(t, key, own, some(r, nonceSize), some(r, n), some(r, n%7), n%64)
		}
		for _, n := range []int{4095, 4096, 4097, 16384, wire.MaxBody, 65535, 65536, 65537, 1<<20 - 1, 1<<20 + 17, 5<<20 + 300} {
			same(t, key, own, some(r, nonceSize), some(r, n), nil, 24)
		}
		for range 200 {
			n := r.IntN(100_000)
			same(t, key, own, some(r, nonceSize), some(r, n), some(r, r.IntN(20)), r.IntN(64))
		}
	})
}

func TestWideExtra(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *rand.Rand, key wideKey, own cipher.AEAD) {
		for n := range 400 {
			for _, text := range []int{0, 1, 16, 255, 257, 600} {
				same(t, key, own, some(r, nonceSize), some(r, text), some(r, n), 0)
			}
		}
	})
}

func TestWideAlignment(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *rand.Rand, key wideKey, own cipher.AEAD) {
		mem := some(r, 2048)
		for at := range 64 {
			for src := range 64 {
				same(t, key, own, mem[at:at+nonceSize], mem[src:src+at*17+src], mem[at+src:2*at+src], at)
			}
		}
	})
}

// TestWideForged changes each bit of what is sealed, of what is only authenticated
// and of the nonce: nothing opens, and nothing is left to read.
func TestWideForged(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *rand.Rand, key wideKey, own cipher.AEAD) {
		for _, n := range []int{0, 1, 15, 16, 100, 256, 300, 1100} {
			nonce, extra := some(r, nonceSize), some(r, 21)
			sealed := own.Seal(nil, nonce, some(r, n), extra)
			all := [][]byte{sealed, extra, nonce}
			for _, part := range all {
				for bit := range len(part) * 8 {
					part[bit/8] ^= 1 << (bit % 8)
					out := bytes.Repeat([]byte{1}, n)
					if key.open((*[nonceSize]byte)(nonce), out, sealed, extra) {
						t.Fatalf("%d bytes: opened with bit %d changed", n, bit)
					}
					if bytes.Count(out, []byte{0}) != n {
						t.Fatalf("%d bytes with bit %d changed: something is left to read", n, bit)
					}
					part[bit/8] ^= 1 << (bit % 8)
				}
			}
			if out := make([]byte, n); !key.open((*[nonceSize]byte)(nonce), out, sealed, extra) {
				t.Fatal("unchanged, it does not open")
			}
		}
	})
}

// TestWideAEAD uses it as records and datagrams do.
func TestWideAEAD(t *testing.T) {
	for _, c := range bothCiphers {
		k := kernelOf(c)
		if k == nil {
			continue
		}
		secret := [32]byte{1, 2, 3}
		aead, err := newAEAD(c, &secret)
		if err != nil {
			t.Fatal(err)
		}
		own, _ := k.plain(secret[:])
		nonce, extra := make([]byte, nonceSize), []byte("extra")
		for n := range k.from * 3 { // across the bound
			text := bytes.Repeat([]byte{byte(n)}, n)
			head := []byte("head")
			sealed := aead.Seal(head, nonce, text, extra)
			if want := own.Seal(head, nonce, text, extra); !bytes.Equal(sealed, want) {
				t.Fatalf("%v: %d bytes: sealed wrongly", c, n)
			}
			plain, err := aead.Open(sealed[4:4], nonce, sealed[4:], extra)
			if err != nil || !bytes.Equal(plain, text) {
				t.Fatalf("%v: %d bytes: %v", c, n, err)
			}
		}
		if w := aead.(*wide); w.key == nil {
			t.Errorf("%v: the kernel was never used", c)
		}
		text := make([]byte, 4096, 4096+tagSize)
		if _, err := aead.Open(nil, nonce, text[:tagSize-1], nil); err == nil {
			t.Errorf("%v: opened less than a tag", c)
		}
		for what, f := range map[string]func(){
			"text":   func() { aead.Seal(text[:0], nonce, text[1:], nil) },
			"opened": func() { aead.Open(text[1:1], nonce, text, nil) }, //nolint:errcheck // it panics
			"extra":  func() { aead.Seal(text[:0], nonce, text, text[8:10]) },
		} {
			if !panics(f) {
				t.Errorf("%v: the output lies over the %s, and nothing says so", c, what)
			}
		}
	}
}

// TestNoAllocation seals and opens what goes to the kernels.
func TestNoAllocation(t *testing.T) {
	for _, c := range bothCiphers {
		aead, err := newAEAD(c, &[32]byte{1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		nonce, extra := make([]byte, nonceSize), []byte("extra")
		text := make([]byte, 4096, 4096+tagSize)
		if got := testing.AllocsPerRun(100, func() {
			sealed := aead.Seal(text[:0], nonce, text, extra)
			if _, err := aead.Open(sealed[:0], nonce, sealed, extra); err != nil {
				t.Error(err)
			}
		}); got != 0 {
			t.Errorf("%v: %v allocations", c, got)
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

// TestWideErase looks at the memory of keys that are over.
func TestWideErase(t *testing.T) {
	for _, c := range bothCiphers {
		k := kernelOf(c)
		if k == nil {
			continue
		}
		h, err := newHalf(c, [32]byte{1})
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 1000)
		first := Sealer{h}.Seal(nil, wire.Header{Type: wire.TypeFrames}, text)
		w := h.aead.(*wide)
		Sealer{h}.Zero()
		if w.key != nil || w.secret != [32]byte{} || h.key != [32]byte{} {
			t.Errorf("%v: a key is left", c)
		}
		// Whoever seals nevertheless does not seal under a key of zeros.
		h.n = 0
		if again := (Sealer{h}).Seal(nil, wire.Header{Type: wire.TypeFrames}, text); !bytes.Equal(again, first) {
			t.Errorf("%v: sealed otherwise after its key was erased", c)
		}
	}
}

// TestWideRekey seals long records across changes of the key: what the kernel
// holds must change as well.
func TestWideRekey(t *testing.T) {
	for _, c := range bothCiphers {
		k := kernelOf(c)
		if k == nil {
			continue
		}
		in, out := direction(t, c), direction(t, c)
		text := bytes.Repeat([]byte("long"), 1000)
		for times := range uint64(3) {
			in.n, out.n = (times+1)*wire.RekeyInterval-4, (times+1)*wire.RekeyInterval-4
			old := out.aead
			for range 4 {
				sealed := Sealer{out}.Seal(nil, wire.Header{Type: wire.TypeFrames}, text)
				own, err := k.plain(out.key[:])
				if err != nil {
					t.Fatal(err)
				}
				if want := own.Seal(nil, out.nonce[:], text, nil); !bytes.Equal(sealed[wire.SealedHeader:], want) {
					t.Fatalf("%v: before %d sealed under another key", c, out.n)
				}
				if _, err := (Opener{in}).Header(sealed[:wire.SealedHeader]); err != nil {
					t.Fatal(err)
				}
				if plain, err := (Opener{in}).Body(nil, sealed[wire.SealedHeader:]); err != nil || !bytes.Equal(plain, text) {
					t.Fatalf("%v: before %d: %v", c, in.n, err)
				}
			}
			if w := old.(*wide); old == out.aead || w.key != nil || w.secret != [32]byte{} {
				t.Fatalf("%v: the old key is left", c)
			}
		}
	}
}

func direction(t *testing.T, c Cipher) *halfDuplex {
	t.Helper()
	h, err := newHalf(c, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// broken is a kernel that does one thing wrong.
type broken struct {
	wideKey
	fault string
}

func (b broken) seal(nonce *[nonceSize]byte, dst, src, extra []byte) {
	b.wideKey.seal(nonce, dst, src, extra)
	switch {
	case b.fault == "a bit of the text" && len(src) > 1024:
		dst[1024] ^= 1
	case b.fault == "a bit of the tag":
		dst[len(src)] ^= 1
	case b.fault == "no extra data":
		b.wideKey.seal(nonce, dst, src, nil)
	}
}

func (b broken) open(nonce *[nonceSize]byte, dst, src, extra []byte) bool {
	before := bytes.Clone(src[:len(dst)])
	switch ok := b.wideKey.open(nonce, dst, src, extra); {
	case b.fault == "opens all":
		return true
	case b.fault == "opens nothing":
		return false
	case b.fault == "leaves what is forged" && !ok:
		copy(dst, before)
		return false
	case b.fault == "opens wrongly" && len(dst) > 2000:
		dst[2000]++
		return ok
	default:
		return ok
	}
}

// TestWideSelfCheck sees the check at the start fail.
func TestWideSelfCheck(t *testing.T) {
	for _, c := range bothCiphers {
		k := kernelOf(c)
		if k == nil {
			continue
		}
		if !k.agrees() {
			t.Errorf("%v: a good kernel is refused", c)
		}
		for _, fault := range []string{"a bit of the text", "a bit of the tag", "no extra data", "opens all", "opens nothing", "leaves what is forged", "opens wrongly"} {
			bad := *k
			bad.begin = func(secret *[32]byte) wideKey { return broken{k.begin(secret), fault} }
			if checked(&bad) != nil {
				t.Errorf("%v: nobody noticed: %s", c, fault)
			}
		}
	}
}

// wideVectors are published: AES-256-GCM's by its authors ("The Galois/Counter Mode
// of Operation", test cases 13 to 16), ChaCha20-Poly1305's in RFC 8439, section 2.8.2.
var wideVectors = []struct {
	cipher                               Cipher
	key, nonce, text, extra, sealed, tag string
}{
	{AES256GCM, strings.Repeat("00", 32), strings.Repeat("00", 12), "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
	{
		AES256GCM, strings.Repeat("00", 32), strings.Repeat("00", 12), strings.Repeat("00", 16), "",
		"cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919",
	},
	{
		AES256GCM, strings.Repeat("feffe9928665731c6d6a8f9467308308", 2), "cafebabefacedbaddecaf888",
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
			"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255", "",
		"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
			"8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad", "b094dac5d93471bdec1a502270e3cc6c",
	},
	{
		AES256GCM, strings.Repeat("feffe9928665731c6d6a8f9467308308", 2), "cafebabefacedbaddecaf888",
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
			"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
			"8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662", "76fc6ece0f4e1768cddf8853bb2d551b",
	},
	{
		ChaCha20Poly1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", "070000004041424344454647",
		hex.EncodeToString([]byte("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.")),
		"50515253c0c1c2c3c4c5c6c7",
		"d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6" +
			"3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36" +
			"92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc" +
			"3ff4def08e4b7a9de576d26586cec64b6116", "1ae10b594f09e26a7e902ecbd0600691",
	},
}

func TestWideVectors(t *testing.T) {
	for i, v := range wideVectors {
		un := func(digits string) []byte {
			b, err := hex.DecodeString(digits)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		want, text := un(v.sealed+v.tag), un(v.text)
		own, err := newAEAD(v.cipher, (*[32]byte)(un(v.key)))
		if err != nil {
			t.Fatal(err)
		}
		if got := own.Seal(nil, un(v.nonce), text, un(v.extra)); !bytes.Equal(got, want) {
			t.Errorf("vector %d: %x, want %x", i, got, want)
		}
		k := kernelOf(v.cipher)
		if k == nil {
			continue
		}
		key, got := k.begin((*[32]byte)(un(v.key))), make([]byte, len(want))
		if key.seal((*[nonceSize]byte)(un(v.nonce)), got, text, un(v.extra)); !bytes.Equal(got, want) {
			t.Errorf("vector %d by the kernel: %x, want %x", i, got, want)
		}
		if !key.open((*[nonceSize]byte)(un(v.nonce)), got[:len(text)], got, un(v.extra)) || !bytes.Equal(got[:len(text)], text) {
			t.Errorf("vector %d by the kernel: does not open", i)
		}
	}
}

// FuzzWide compares the kernels with Go's own ciphers.
func FuzzWide(f *testing.F) {
	if kernelOf(AES256GCM) == nil && kernelOf(ChaCha20Poly1305) == nil {
		f.Skip("no kernel for this machine")
	}
	f.Add(byte(2), []byte("key"), []byte("nonce"), []byte("text"), []byte("extra"), uint16(0), byte(0))
	f.Add(byte(2), []byte("key"), []byte("nonce"), []byte("text that is repeated"), []byte{}, uint16(60000), byte(24))
	f.Add(byte(1), []byte{}, []byte{}, []byte{0xff}, []byte{}, uint16(4097), byte(63))
	f.Fuzz(func(t *testing.T, c byte, secret, nonce, text, extra []byte, n uint16, at byte) {
		k := kernelOf(Cipher(c))
		if k == nil {
			t.Skip("no kernel")
		}
		var s [32]byte
		var start [nonceSize]byte
		copy(s[:], secret)
		copy(start[:], nonce)
		if len(text) > 0 {
			text = bytes.Repeat(text, int(n)/len(text)+1)
		}
		own, err := k.plain(s[:])
		if err != nil {
			t.Fatal(err)
		}
		same(t, k.begin(&s), own, start[:], text, extra, int(at))
	})
}

// TestWithoutKernels runs the tests of records and datagrams again where no kernel
// is used, as on other machines.
func TestWithoutKernels(t *testing.T) {
	const mark = "CRUST_TEST_WITHOUT_KERNELS"
	if os.Getenv(mark) != "" {
		for _, c := range bothCiphers {
			if kernelOf(c) != nil {
				t.Errorf("%v has a kernel", c)
			}
		}
		return
	}
	const tests = "^Test(WithoutKernels|Record|Golden|Datagram|Box|Seal|Wide)"
	run := exec.Command(os.Args[0], "-test.run", tests, "-test.short")
	run.Env = append(os.Environ(), mark+"=1", "GODEBUG=cpu.avx512f=off")
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if !strings.Contains(fmt.Sprintf("%s", out), "PASS") {
		t.Errorf("nothing was tested: %s", out)
	}
}
