package secure

// #cgo pkg-config: libsodium
// #include <sodium.h>
import "C"

import (
	"hash"
	"runtime"
	"unsafe"
)

// blake2b is BLAKE2b-512 as a hash.Hash that gathers its input, a few hundred
// bytes in a handshake, and hashes it by one call into libsodium. The streaming
// interface of jamesruan/sodium makes a call for each 128 bytes, two more to
// begin and to end, and cannot go on after Sum.
type blake2b struct {
	in    []byte
	first [blake2bInline]byte
}

const (
	blake2bSize   = 64
	blake2bBlock  = 128
	blake2bInline = 2 * blake2bBlock
)

func newBLAKE2b() hash.Hash {
	h := new(blake2b)
	h.in = h.first[:0]
	return h
}

func (h *blake2b) Size() int      { return blake2bSize }
func (h *blake2b) BlockSize() int { return blake2bBlock }
func (h *blake2b) Reset()         { h.in = h.in[:0] }

func (h *blake2b) Write(p []byte) (int, error) {
	h.in = append(h.in, p...)
	return len(p), nil
}

func (h *blake2b) Sum(b []byte) []byte {
	var out [blake2bSize]byte
	var in *C.uchar
	if len(h.in) > 0 {
		in = (*C.uchar)(unsafe.Pointer(unsafe.SliceData(h.in)))
	}
	// It fails only for an output length out of bounds.
	C.crypto_generichash_blake2b((*C.uchar)(unsafe.Pointer(&out[0])), blake2bSize, in, C.ulonglong(len(h.in)), nil, 0)
	runtime.KeepAlive(h)
	return append(b, out[:]...)
}
