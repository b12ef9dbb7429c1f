package secure

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// Cipher is a record cipher.
type Cipher uint8

const (
	// none is the null cipher of Plain.
	none Cipher = 0
	// ChaCha20Poly1305 is RFC 8439 as Noise uses it. It is computed by
	// x/crypto, which measured 2,400 MB/s where libsodium 1.0.18 has 1,400 and
	// a cgo call for each record, and where wideChaCha has one by a kernel of
	// ours, which has 7,700 for the longest; the bytes are the same.
	ChaCha20Poly1305 Cipher = 1
	// AES256GCM is taken when both sides have AES hardware: 4,800 MB/s, by a
	// kernel of ours 19,000 where wideGCM has one, and constant-time only there.
	AES256GCM Cipher = 2
)

// String returns the cipher's usual name.
func (c Cipher) String() string {
	switch c {
	case AES256GCM:
		return "AES-256-GCM"
	case none:
		return "none"
	case inClear:
		return "none, in clear"
	}
	return "ChaCha20-Poly1305"
}

// HasAES reports whether this machine computes AES and GHASH in hardware.
func HasAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM
}

// ErrForged is returned for a record that does not authenticate.
var ErrForged = errors.New("a record does not authenticate")

// halfDuplex is one direction of a link: a key and a counter. Its nonces are
// Noise's: 32 zero bits, then the counter, little-endian for ChaCha20-Poly1305
// and big-endian for AES-GCM.
type halfDuplex struct {
	aead   cipher.AEAD
	key    [32]byte
	nonce  [12]byte
	n      uint64
	cipher Cipher
	header [wire.SealedHeader]byte
}

func newHalf(c Cipher, key [32]byte) (*halfDuplex, error) {
	if c == AES256GCM { // never one key for two ciphers
		key = keyed(key, "libcrust/1 AES-256-GCM")
	}
	h := &halfDuplex{key: key, cipher: c}
	return h, h.expand()
}

func (h *halfDuplex) expand() (err error) {
	erase(h.aead)
	h.aead, err = newAEAD(h.cipher, &h.key)
	return err
}

// zero erases the key. What is sealed or opened nevertheless is as before.
func (h *halfDuplex) zero() {
	clear(h.key[:])
	erase(h.aead)
}

// newAEAD expands a key.
func newAEAD(c Cipher, key *[32]byte) (cipher.AEAD, error) {
	switch c {
	case none:
		return null{}, nil
	case AES256GCM:
		own, err := goGCM(key[:])
		if err != nil {
			return nil, err
		}
		return widen(wideGCM(), own, key), nil
	}
	own, err := chacha20poly1305.New(key[:])
	if err != nil {
		return nil, err
	}
	return widen(wideChaCha(), own, key), nil
}

func (h *halfDuplex) setNonce(n uint64) {
	if h.cipher == AES256GCM {
		binary.BigEndian.PutUint64(h.nonce[4:], n)
	} else {
		binary.LittleEndian.PutUint64(h.nonce[4:], n)
	}
}

// next prepares the nonce of the next Noise message, and rekeys (Noise
// specification, section 4.2) when RekeyInterval nonces are used up.
func (h *halfDuplex) next() {
	if h.n%wire.RekeyInterval == 0 && h.n > 0 && h.cipher != inClear {
		var zeros [32]byte
		h.setNonce(math.MaxUint64)
		sealed := h.aead.Seal(nil, h.nonce[:], zeros[:], nil)
		copy(h.key[:], sealed)
		clear(sealed)
		if err := h.expand(); err != nil { // 32 bytes are a key of both ciphers
			h.aead = nil
		}
	}
	h.setNonce(h.n)
	h.n++
}

// Sealer seals the records of one direction. It is for one goroutine at a time.
type Sealer struct{ half *halfDuplex }

// Seal appends a record to dst. The body may lie exactly where its ciphertext
// goes, at dst[len(dst)+wire.SealedHeader:], or apart from it; h.Len is set
// from it. Seal allocates only to grow dst and, once in RekeyInterval nonces, to
// rekey.
func (s Sealer) Seal(dst []byte, h wire.Header, body []byte) []byte {
	d := s.half
	h.Len = len(body)
	plain := h.Append(d.header[:0])
	d.next()
	dst = cipherFor(d.aead, len(plain)).Seal(dst, d.nonce[:], plain, nil)
	d.next()
	return cipherFor(d.aead, len(body)).Seal(dst, d.nonce[:], body, nil)
}

// Zero erases the key.
func (s Sealer) Zero() { s.half.zero() }

// Opener opens the records of one direction. It is for one goroutine at a time.
type Opener struct{ half *halfDuplex }

// Header opens a sealed header of wire.SealedHeader bytes.
func (o Opener) Header(sealed []byte) (wire.Header, error) {
	d := o.half
	d.next()
	plain, err := cipherFor(d.aead, len(sealed)-tagSize).Open(d.header[:0], d.nonce[:], sealed, nil)
	switch {
	case err != nil && d.cipher == inClear: // there is nothing to hide
		return wire.Header{}, err
	case err != nil:
		return wire.Header{}, ErrForged
	}
	return wire.ParseHeader(plain)
}

// Body opens a sealed body and appends the plaintext to dst, which may be
// sealed[:0] or lie apart from it. After an error the link is useless.
func (o Opener) Body(dst, sealed []byte) ([]byte, error) {
	d := o.half
	d.next()
	plain, err := cipherFor(d.aead, len(sealed)-tagSize).Open(dst, d.nonce[:], sealed, nil)
	if err != nil {
		return nil, ErrForged
	}
	return plain, nil
}

// Zero erases the key.
func (o Opener) Zero() { o.half.zero() }

// choose picks the record cipher from what both sides offer.
func choose(ours, theirs uint8) Cipher {
	if ours&theirs&wire.CipherAES256GCM != 0 {
		return AES256GCM
	}
	return ChaCha20Poly1305
}

// split makes both directions from the two keys of a finished handshake.
func split(c Cipher, send, receive [32]byte) (Sealer, Opener, error) {
	out, err := newHalf(c, send)
	if err != nil {
		return Sealer{}, Opener{}, fmt.Errorf("record cipher: %w", err)
	}
	in, err := newHalf(c, receive)
	if err != nil {
		return Sealer{}, Opener{}, fmt.Errorf("record cipher: %w", err)
	}
	return Sealer{out}, Opener{in}, nil
}
