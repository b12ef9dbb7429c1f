//go:build cgo && amd64 && (linux || windows)

package secure

// #cgo noescape crust_gcm_seal
// #cgo nocallback crust_gcm_seal
// #cgo noescape crust_gcm_open
// #cgo nocallback crust_gcm_open
// #cgo noescape crust_gcm_expand
// #cgo nocallback crust_gcm_expand
// #cgo noescape crust_chacha_seal
// #cgo nocallback crust_chacha_seal
// #cgo noescape crust_chacha_open
// #cgo nocallback crust_chacha_open
// #include "wide.h"
import "C"

import (
	"encoding/binary"
	"sync"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// gcmFrom is the length in bytes from which on the kernel is faster than Go's, call
// included. The two met at 130 bytes where this was measured (Zen 5, Go 1.26); at
// 256 the kernel is ahead by a fifth.
const gcmFrom = 256

// chachaFrom is the same for ChaCha20-Poly1305, whose kernel makes 16 blocks at a
// time: the two met at about 1,000 bytes.
const chachaFrom = 1280

// wideGCM returns the kernel for AES-256-GCM, nil where the processor, or the
// system with its registers, lacks AVX-512 with VAES and VPCLMULQDQ.
var wideGCM = sync.OnceValue(func() *kernel {
	if !hasAVX512() || !cpu.X86.HasAVX512VAES || !cpu.X86.HasAVX512VPCLMULQDQ {
		return nil
	}
	return checked(&gcmKernel)
})

func hasAVX512() bool {
	x := &cpu.X86
	return x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ
}

var gcmKernel = kernel{
	from: gcmFrom,
	most: (1<<32 - 2) * 16,
	begin: func(secret *[32]byte) wideKey {
		k := new(gcmKey)
		C.crust_gcm_expand(&k.c, first(secret[:]))
		return k
	},
	plain: goGCM,
}

// gcmKey is an expanded key, in memory of Go that the garbage collector does not
// look into.
type gcmKey struct{ c C.struct_crust_gcm }

func (k *gcmKey) seal(nonce *[nonceSize]byte, dst, src, extra []byte) {
	start := counterBlock(nonce)
	k.sealAt(&start, dst, src, extra)
}

func (k *gcmKey) open(nonce *[nonceSize]byte, dst, src, extra []byte) bool {
	start := counterBlock(nonce)
	return k.openAt(&start, dst, src, extra)
}

func (k *gcmKey) sealAt(start *[16]byte, dst, src, extra []byte) {
	C.crust_gcm_seal(&k.c, first(start[:]), first(dst), first(src), C.size_t(len(src)), first(extra), C.size_t(len(extra)))
}

func (k *gcmKey) openAt(start *[16]byte, dst, src, extra []byte) bool {
	return C.crust_gcm_open(&k.c, first(start[:]), first(dst), first(src), C.size_t(len(src)-tagSize), first(extra), C.size_t(len(extra))) != 0
}

func (k *gcmKey) zero() { *k = gcmKey{} }

// wideChaCha returns the kernel for ChaCha20-Poly1305, nil where the processor, or
// the system with its registers, lacks AVX-512 with IFMA.
var wideChaCha = sync.OnceValue(func() *kernel {
	if !hasAVX512() || !cpu.X86.HasAVX512IFMA {
		return nil
	}
	return checked(&chachaKernel)
})

var chachaKernel = kernel{
	from: chachaFrom,
	most: 1<<38 - 64,
	begin: func(secret *[32]byte) wideKey {
		return &chachaKey{*secret}
	},
	plain: chacha20poly1305.New,
}

type chachaKey struct{ secret [32]byte }

func (k *chachaKey) seal(nonce *[nonceSize]byte, dst, src, extra []byte) {
	C.crust_chacha_seal(first(k.secret[:]), first(nonce[:]), first(dst), first(src), C.size_t(len(src)), first(extra), C.size_t(len(extra)))
}

func (k *chachaKey) open(nonce *[nonceSize]byte, dst, src, extra []byte) bool {
	return C.crust_chacha_open(first(k.secret[:]), first(nonce[:]), first(dst), first(src), C.size_t(len(src)-tagSize), first(extra), C.size_t(len(extra))) != 0
}

func (k *chachaKey) zero() { *k = chachaKey{} }

// counterBlock is the counter block that a nonce of 12 bytes begins with.
func counterBlock(nonce *[nonceSize]byte) (block [16]byte) {
	copy(block[:], nonce[:])
	binary.BigEndian.PutUint32(block[nonceSize:], 1)
	return block
}

// first is a pointer to the first byte, nil or not when there is none.
func first(b []byte) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))) }
