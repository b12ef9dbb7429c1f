package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/libcrust/libcrust/core/identity"
)

// TracerMagic is how every frame of a tracer link begins: "cru1".
const TracerMagic = "cru1"

// Specification constants of tracer links.
const (
	TracerHeaderSize = SealedHeader // bytes of the header of a frame, as many as a sealed header has
	TracerNonce      = 32           // bytes of a nonce in the handshake
	TracerProof      = 32           // bytes of the proof that the network name is known
	TracerSignature  = 64           // bytes of a signature (Ed25519)
	MaxTracerShake   = 1024         // largest body of a frame of the handshake
)

// TypeShake is the type of a tracer frame of the handshake. The other types are those of
// records.
const TypeShake RecordType = 0

// Bits of the flags of a tracer frame; others are ignored.
const tracerDialer = 1 // sent by the side that dialled

// TracerHeader is the header of a tracer frame, which is a record in clear or a message
// of the handshake. The body and a trailer of TagSize zeros follow it.
//
//	magic    [4]byte  TracerMagic
//	type     uint8    0 handshake; else of the record
//	flags    uint8    bit 0: sent by the side that dialled
//	priority uint8    as in a record
//	zero     uint8    ignored
//	len      uint32   of the body
//	left     uint32   as in a record
//	number   uint64   how many frames the sender has sent before on this link
type TracerHeader struct {
	Type     RecordType
	Dialer   bool
	Priority uint8
	Len      int
	Left     int
	Number   uint64
}

// Append appends the header.
func (h TracerHeader) Append(b []byte) []byte {
	b = append(b, TracerMagic...)
	flags := uint8(0)
	if h.Dialer {
		flags |= tracerDialer
	}
	b = append(b, byte(h.Type), flags, h.Priority, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Len))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Left))
	return binary.BigEndian.AppendUint64(b, h.Number)
}

// ErrNoMagic says that a frame of a tracer link does not begin with TracerMagic.
var ErrNoMagic = errors.New("tracer frame: it does not begin with cru1")

// ParseTracerHeader reads a header. Of a record it checks what ParseHeader does, of a
// message of the handshake its length.
func ParseTracerHeader(b []byte) (TracerHeader, error) {
	if len(b) < TracerHeaderSize {
		return TracerHeader{}, fmt.Errorf("tracer frame: %w", ErrShort)
	}
	if string(b[:len(TracerMagic)]) != TracerMagic {
		return TracerHeader{}, ErrNoMagic
	}
	n, left := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	h := TracerHeader{
		Type: RecordType(b[4]), Dialer: b[5]&tracerDialer != 0, Priority: b[6], Number: binary.BigEndian.Uint64(b[16:]),
	}
	switch {
	case h.Type == TypeShake && (n == 0 || n > MaxTracerShake || h.Priority != 0 || left != 0):
		return TracerHeader{}, fmt.Errorf("tracer frame: a handshake of %d bytes is out of bounds", n)
	case n > MaxBody || left > MaxMessage:
		return TracerHeader{}, fmt.Errorf("tracer frame: a body of %d bytes with %d left is out of bounds", n, left)
	}
	h.Len, h.Left = int(n), int(left)
	if h.Type == TypeShake {
		return h, nil
	}
	if _, err := ParseHeader(h.Record().Append(nil)); err != nil {
		return TracerHeader{}, fmt.Errorf("tracer frame: %w", err)
	}
	return h, nil
}

// Record returns the header of the record that the frame is.
func (h TracerHeader) Record() Header {
	return Header{Type: h.Type, Priority: h.Priority, Len: h.Len, Left: h.Left}
}

// TracerShake is one of the three messages with which a tracer link begins, the body of
// its frame.
//
//	step   uint8        1, 2 or 3
//	nonce  [32]byte     steps 1 and 2: random
//	len    uint16       of the fields
//	fields [len]byte    step 1: an offer, steps 2 and 3: a hello
//	proof  [32]byte     step 1: the sender knows the network name
//	signature [64]byte  steps 2 and 3: the sender holds its key
type TracerShake struct {
	Step    uint8
	Nonce   [TracerNonce]byte // not in step 3
	Payload []byte            // the fields
	Proof   []byte            // the proof, or the signature
}

// proofSize returns the size of what a step ends with, and of its nonce.
func proofSize(step uint8) (proof, nonce int) {
	switch step {
	case 1:
		return TracerProof, TracerNonce
	case 2:
		return TracerSignature, TracerNonce
	}
	return TracerSignature, 0
}

// AppendUnproved appends all but the proof: what is proved.
func (m TracerShake) AppendUnproved(b []byte) []byte {
	b = append(b, m.Step)
	if _, nonce := proofSize(m.Step); nonce > 0 {
		b = append(b, m.Nonce[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Payload)))
	return append(b, m.Payload...)
}

// Append appends the message.
func (m TracerShake) Append(b []byte) []byte { return append(m.AppendUnproved(b), m.Proof...) }

// ParseTracerShake reads the message of a step. Payload and Proof lie in b. It does not
// check the proof.
func ParseTracerShake(step uint8, b []byte) (TracerShake, error) {
	if len(b) == 0 {
		return TracerShake{}, fmt.Errorf("tracer handshake: %w", ErrShort)
	}
	if b[0] != step || step < 1 || step > 3 {
		return TracerShake{}, fmt.Errorf("tracer handshake: step %d where %d was due", b[0], step)
	}
	proof, nonce := proofSize(step)
	fixed := 1 + nonce + 2
	if len(b) < fixed+proof {
		return TracerShake{}, fmt.Errorf("tracer handshake: %w", ErrShort)
	}
	n := int(binary.BigEndian.Uint16(b[fixed-2:]))
	switch rest := len(b) - fixed - proof; {
	case rest < n:
		return TracerShake{}, fmt.Errorf("tracer handshake: %w", ErrShort)
	case rest > n:
		return TracerShake{}, fmt.Errorf("tracer handshake: %d bytes too many", rest-n)
	}
	m := TracerShake{Step: step, Payload: b[fixed : fixed+n], Proof: b[fixed+n:]}
	copy(m.Nonce[:nonce], b[1:])
	var err error
	if step == 1 {
		_, err = ParseOffer(m.Payload)
	} else {
		_, err = ParseHello(m.Payload)
	}
	if err != nil {
		return TracerShake{}, err
	}
	return m, nil
}

// Interface check: a signature is of an identity.
var _ = [1]struct{}{}[TracerSignature-identity.SignatureSize]
