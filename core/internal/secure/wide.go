package secure

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"unsafe"
)

// tagSize and nonceSize are, in bytes, those of both record ciphers.
const (
	tagSize   = 16
	nonceSize = 12
)

// kernel computes a record cipher in instructions that Go's own does not use. The
// bytes are the same.
type kernel struct {
	from  int                                   // length in bytes of text from which on it is faster than Go's
	most  uint64                                // longest text the cipher allows
	begin func(secret *[32]byte) wideKey        // expands a key
	plain func(key []byte) (cipher.AEAD, error) // Go's own
}

// wideKey is an expanded key. Texts of any length go; dst has room for tagSize
// bytes behind the sealed text, and src holds the tag behind the text to open.
// src lies at dst or apart from it. open writes zeros when it returns false.
type wideKey interface {
	seal(nonce *[nonceSize]byte, dst, src, extra []byte)
	open(nonce *[nonceSize]byte, dst, src, extra []byte) bool
	zero()
}

// wide is a record cipher that leaves long texts to a kernel, and short ones to
// Go's own. It expands the kernel's key when the first long text comes: a session
// that sends only short ones does not pay for it, in time or memory.
type wide struct {
	cipher.AEAD
	kernel *kernel
	key    wideKey
	secret [32]byte
	erased bool
}

// widen makes a record cipher that uses a kernel, or returns Go's own when the
// machine has none for it.
func widen(k *kernel, own cipher.AEAD, secret *[32]byte) cipher.AEAD {
	if k == nil {
		return own
	}
	return &wide{AEAD: own, kernel: k, secret: *secret}
}

// cipherFor returns what seals or opens a text of n bytes: of a wide one that leaves it
// to Go's own, Go's own itself. With the frames of wide in between, the stack of a
// session that is idle would be twice as large, 4 KiB.
func cipherFor(aead cipher.AEAD, n int) cipher.AEAD {
	if w, ok := aead.(*wide); ok && n < w.kernel.from {
		return w.AEAD
	}
	return aead
}

// takes reports whether a text of n bytes is for the kernel, whose key is then there.
func (w *wide) takes(n int) bool {
	if n < w.kernel.from || uint64(n) > w.kernel.most || w.erased {
		return false
	}
	if w.key == nil {
		w.key = w.kernel.begin(&w.secret)
	}
	return true
}

// Seal is cipher.AEAD's.
func (w *wide) Seal(dst, nonce, text, extra []byte) []byte {
	if len(nonce) != nonceSize || !w.takes(len(text)) {
		return w.AEAD.Seal(dst, nonce, text, extra)
	}
	all, out := extend(dst, len(text)+tagSize)
	if clash(out, text, extra) { // Go's own panics
		return w.AEAD.Seal(dst, nonce, text, extra)
	}
	w.key.seal((*[nonceSize]byte)(nonce), out, text, extra)
	return all
}

// Open is cipher.AEAD's.
func (w *wide) Open(dst, nonce, sealed, extra []byte) ([]byte, error) {
	n := len(sealed) - tagSize
	if len(nonce) != nonceSize || n < 0 || !w.takes(n) {
		return w.AEAD.Open(dst, nonce, sealed, extra)
	}
	all, out := extend(dst, n)
	if clash(out, sealed, extra) { // Go's own panics
		return w.AEAD.Open(dst, nonce, sealed, extra)
	}
	if !w.key.open((*[nonceSize]byte)(nonce), out, sealed, extra) {
		return nil, ErrForged
	}
	return all, nil
}

// erase erases the secrets of a record cipher as far as they are ours. Go's own
// keeps its key, and is what is used from then on.
func erase(aead cipher.AEAD) {
	w, ok := aead.(*wide)
	if !ok {
		return
	}
	if w.key != nil {
		w.key.zero()
		w.key = nil
	}
	clear(w.secret[:])
	w.erased = true
}

// extend returns dst longer by n bytes, and what it is longer by.
func extend(dst []byte, n int) (all, more []byte) {
	if total := len(dst) + n; cap(dst) >= total {
		all = dst[:total]
	} else {
		all = make([]byte, total)
		copy(all, dst)
	}
	return all, all[len(dst):]
}

// clash reports whether the output lies over the input, but not exactly, or over
// what is only authenticated.
func clash(out, in, extra []byte) bool {
	return overlap(out, in) && &out[0] != &in[0] || overlap(out, extra)
}

func overlap(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	first, second := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	return first < second+uintptr(len(b)) && second < first+uintptr(len(a))
}

// goGCM is Go's AES-256-GCM.
func goGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// agrees reports whether a kernel makes what Go's own makes, opens it, and refuses
// what was changed: lengths below, at and above each step it takes. A machine or a
// compiler that gets an instruction wrong is found here, at the first session, and
// not by peers that cannot read a word.
func (k *kernel) agrees() bool {
	var secret [32]byte
	var nonce [nonceSize]byte
	buf := make([]byte, 16<<10)
	extra := make([]byte, 100)
	rand.Read(secret[:])
	rand.Read(nonce[:])
	rand.Read(buf)
	rand.Read(extra)
	own, err := k.plain(secret[:])
	if err != nil {
		return false
	}
	key := k.begin(&secret)
	defer key.zero()
	lengths := []int{0, 1, 16, 63, 64, 129, 255, 256, 500, 1024, 1300, 2049, 2900, 8192, 15000}
	for i, n := range lengths {
		text, extra := buf[:n], extra[:i*i%len(extra)]
		want := own.Seal(nil, nonce[:], text, extra)
		got := make([]byte, n+tagSize)
		key.seal(&nonce, got, text, extra)
		if string(got) != string(want) || !key.open(&nonce, got[:n], got, extra) || string(got[:n]) != string(text) {
			return false
		}
		copy(got, want)
		got[n*i/len(lengths)] ^= 0x10
		if key.open(&nonce, got[:n], got, extra) {
			return false
		}
		for _, left := range got[:n] {
			if left != 0 {
				return false
			}
		}
	}
	return true
}

// checked returns a kernel that works here, else nil.
func checked(k *kernel) *kernel {
	if k == nil || !k.agrees() {
		return nil
	}
	return k
}
