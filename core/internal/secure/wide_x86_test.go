//go:build cgo && amd64 && linux

package secure

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"

	"golang.org/x/sys/cpu"
)

// TestWideIsUsed: on a processor for them the kernels pass the check at the start.
// Otherwise the tests here would pass by Go's own ciphers.
func TestWideIsUsed(t *testing.T) {
	x := &cpu.X86
	if hasAVX512() && x.HasAVX512VAES && x.HasAVX512VPCLMULQDQ && wideGCM() == nil {
		t.Error("AES-256-GCM's kernel has failed the check at the start")
	}
	if hasAVX512() && x.HasAVX512IFMA && wideChaCha() == nil {
		t.Error("ChaCha20-Poly1305's kernel has failed the check at the start")
	}
}

// slowGCM is GCM as NIST SP 800-38D writes it down, a bit at a time, from any first
// counter block.
func slowGCM(t *testing.T, secret []byte, start [16]byte, text, extra []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(secret)
	if err != nil {
		t.Fatal(err)
	}
	var h, y [16]byte
	block.Encrypt(h[:], h[:])
	hash := func(data []byte) {
		for len(data) > 0 {
			n := min(len(data), 16)
			for i := range n {
				y[i] ^= data[i]
			}
			data = data[n:]
			var z [16]byte
			v := h
			for bit := range 128 {
				if y[bit/8]>>(7-bit%8)&1 == 1 {
					for i := range z {
						z[i] ^= v[i]
					}
				}
				carry := v[15]&1 == 1
				for i := 15; i > 0; i-- {
					v[i] = v[i]>>1 | v[i-1]<<7
				}
				if v[0] >>= 1; carry {
					v[0] ^= 0xe1
				}
			}
			y = z
		}
	}
	counter, out := start, bytes.Clone(text)
	var stream [16]byte
	for i := range out {
		if i%16 == 0 {
			binary.BigEndian.PutUint32(counter[12:], binary.BigEndian.Uint32(counter[12:])+1)
			block.Encrypt(stream[:], counter[:])
		}
		out[i] ^= stream[i%16]
	}
	hash(extra)
	hash(out)
	hash(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(len(extra))*8), uint64(len(out))*8))
	block.Encrypt(stream[:], start[:])
	for i := range y {
		y[i] ^= stream[i]
	}
	return append(out, y[:]...)
}

// TestWideCounter begins shortly before each carry of the counter, which has 32 bits
// and touches no others.
func TestWideCounter(t *testing.T) {
	if wideGCM() == nil {
		t.Skip("no kernel for this machine")
	}
	r := rand.New(rand.NewPCG(1, 2))
	secret := [32]byte(some(r, 32))
	key := gcmKernel.begin(&secret).(*gcmKey)
	for _, carry := range []uint32{1 << 8, 1 << 16, 1 << 24, 1 << 31, 0} {
		for _, before := range []uint32{1, 2, 3, 4, 5, 15, 16, 17, 30} {
			start := [16]byte(some(r, 16))
			binary.BigEndian.PutUint32(start[12:], carry-before)
			text, extra := some(r, 700), some(r, 3)
			want, got := slowGCM(t, secret[:], start, text, extra), make([]byte, len(text)+tagSize)
			if key.sealAt(&start, got, text, extra); !bytes.Equal(got, want) {
				t.Fatalf("from %#x: sealed wrongly", carry-before)
			}
			if !key.openAt(&start, got[:len(text)], got, extra) || !bytes.Equal(got[:len(text)], text) {
				t.Fatalf("from %#x: opened wrongly", carry-before)
			}
		}
	}
}

// TestWideBounds lays all that a kernel reads and writes against pages that may be
// neither read nor written.
func TestWideBounds(t *testing.T) {
	page := syscall.Getpagesize()
	between := func() []byte {
		mem, err := syscall.Mmap(-1, 0, 6*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Munmap(mem) }) //nolint:errcheck // it is mapped
		for _, guard := range [][]byte{mem[:page], mem[5*page:]} {
			if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		return mem[page : 5*page]
	}
	src, dst, aux := between(), between(), between()
	for _, c := range bothCiphers {
		k := kernelOf(c)
		if k == nil {
			continue
		}
		r := rand.New(rand.NewPCG(3, 4))
		secret := [32]byte(some(r, 32))
		key := k.begin(&secret)
		own, err := k.plain(secret[:])
		if err != nil {
			t.Fatal(err)
		}
		nonce := [nonceSize]byte(some(r, nonceSize))
		fill(r, src)
		fill(r, aux)
		for n := 0; n < 11<<10; n++ {
			if n == 2100 { // from here on whole steps only, until there are longer ones
				n = 8 << 10
			} else if n > 8<<10 {
				n += 9
			}
			for _, atEnd := range []bool{false, true} {
				part := func(mem []byte, n int) []byte {
					if atEnd {
						return mem[len(mem)-n:]
					}
					return mem[:n:n]
				}
				text, out, extra := part(src, n), part(dst, n+tagSize), part(aux, n%100)
				want := own.Seal(nil, nonce[:], text, extra)
				if key.seal(&nonce, out, text, extra); !bytes.Equal(out, want) {
					t.Fatalf("%v: %d bytes: sealed wrongly", c, n)
				}
				if !key.open(&nonce, out[:n:n], out, extra) || !bytes.Equal(out[:n], text) {
					t.Fatalf("%v: %d bytes: opened wrongly in place", c, n)
				}
				sealed := part(src, n+tagSize)
				copy(sealed, want)
				if out = part(dst, n); !key.open(&nonce, out, sealed, extra) {
					t.Fatalf("%v: %d bytes: did not open", c, n)
				}
			}
		}
	}
}
