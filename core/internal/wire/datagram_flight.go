package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Specification constants of datagrams; docs/PROTOCOL.md, sections "Datagrams:
// the handshake" and "Datagrams: sealing".
const (
	CookieSize        = 16                                     // bytes of a cookie
	HeaderKeySize     = 16                                     // bytes of a header key: AES-128
	EphemeralSize     = 32                                     // bytes of an ephemeral key, with which each offer's Noise message begins
	datagramFlight    = 1 + 8 + CookieSize + 2                 // bytes of a flight before its Noise message
	FlightOverhead    = FlightNonce + datagramFlight + TagSize // bytes of a datagram of a flight, besides Noise message and padding
	MinOffer          = 640                                    // smallest datagram of an offer: no answer is longer
	MaxDatagramFlight = 1200                                   // largest datagram of any flight
	MaxDatagramNoise  = MinOffer - FlightOverhead              // largest Noise message, so that an answer fits the smallest offer
	HeaderBlock       = 16                                     // bytes of the encrypted header before a sealed datagram
	SealOverhead      = HeaderBlock + TagSize                  // bytes that sealing adds
	ReplayWindow      = 4096                                   // how far behind the highest number a datagram may come
	EpochDatagrams    = 1 << 22                                // numbers under one key
	MaxNumber         = 1<<62 - 1                              // highest number of a datagram
	MaxRefused        = 1 << 36                                // datagrams of one association that may fail to authenticate (RFC 9001, section 6.6)
	DatagramPrologue  = "libcrust/1 datagram"                  // prologue of the Noise handshake, another than over streams
	bindingSize       = 8 + HeaderKeySize
	fieldBinding      = 16 // Binding, in hellos in datagrams
)

// FlightType tells what a flight in a datagram is.
type FlightType uint8

const (
	FlightOffer  FlightType = 1 // first Noise message, from the initiator
	FlightAnswer FlightType = 2 // second, from the responder
	FlightFinish FlightType = 3 // third, from the initiator
	FlightCookie FlightType = 4 // no Noise message: the responder wants the offer again with this cookie
)

// DatagramFlight is the plaintext of a flight in a datagram.
//
//	type     uint8
//	id       uint64               random, of the initiator, the same in all flights of a handshake
//	cookie   [CookieSize]byte     zero but in cookies, and in offers that were asked for one
//	noiseLen uint16
//	noise    [noiseLen]byte
//	padding  the rest, any bytes
type DatagramFlight struct {
	Type   FlightType
	ID     uint64
	Cookie [CookieSize]byte
	Noise  []byte // at most MaxDatagramNoise bytes
}

// Append appends the flight with padding zeros behind it.
func (f DatagramFlight) Append(b []byte, padding int) []byte {
	b = append(b, byte(f.Type))
	b = binary.BigEndian.AppendUint64(b, f.ID)
	b = append(b, f.Cookie[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.Noise)))
	b = append(b, f.Noise...)
	return append(b, make([]byte, padding)...)
}

// DatagramFlightHead is how many bytes PossibleFlight looks at.
const DatagramFlightHead = datagramFlight

var errNoFlight = errors.New("not a flight")

// PossibleFlight reports whether a datagram of size bytes whose plaintext begins
// with head, of DatagramFlightHead bytes, may be a flight. Of random bytes it
// lets one in a hundred pass.
func PossibleFlight(head []byte, size int) bool {
	if len(head) < datagramFlight || size < FlightOverhead || size > MaxDatagramFlight {
		return false
	}
	n := int(binary.BigEndian.Uint16(head[datagramFlight-2:]))
	if n > size-FlightOverhead || n > MaxDatagramNoise {
		return false
	}
	switch FlightType(head[0]) {
	case FlightOffer:
		return size >= MinOffer && n >= EphemeralSize+TagSize
	case FlightAnswer, FlightFinish:
		return n > 0
	case FlightCookie:
		return n == 0
	}
	return false
}

// ParseDatagramFlight reads the plaintext of a flight. Noise is a part of b.
func ParseDatagramFlight(b []byte) (DatagramFlight, error) {
	if len(b) < datagramFlight {
		return DatagramFlight{}, fmt.Errorf("flight: %w", ErrShort)
	}
	if !PossibleFlight(b, FlightNonce+len(b)+TagSize) {
		return DatagramFlight{}, errNoFlight
	}
	n := int(binary.BigEndian.Uint16(b[datagramFlight-2:]))
	return DatagramFlight{
		Type: FlightType(b[0]), ID: binary.BigEndian.Uint64(b[1:]), Cookie: [CookieSize]byte(b[9:]),
		Noise: b[datagramFlight : datagramFlight+n],
	}, nil
}

// Ephemeral returns the ephemeral key of an offer that ParseDatagramFlight has read.
func (f DatagramFlight) Ephemeral() (key [EphemeralSize]byte) {
	copy(key[:], f.Noise)
	return key
}

// SplitFlight splits the datagram of a flight into its nonce and the rest, which
// are parts of b. ok is false when it is too short or too long for one.
func SplitFlight(b []byte) (nonce, sealed []byte, ok bool) {
	if len(b) < FlightOverhead || len(b) > MaxDatagramFlight {
		return nil, nil, false
	}
	return b[:FlightNonce:FlightNonce], b[FlightNonce:], true
}

// SplitSealed splits a sealed datagram into its header block and the ciphertext
// with its tag, which are parts of b. ok is false when it is too short.
func SplitSealed(b []byte) (block, sealed []byte, ok bool) {
	if len(b) < SealOverhead {
		return nil, nil, false
	}
	return b[:HeaderBlock:HeaderBlock], b[HeaderBlock:], true
}

// PutSealedHeader writes the plaintext of a header block: the receiver's name of
// the association, and the number of the datagram.
func PutSealedHeader(b *[HeaderBlock]byte, cid, number uint64) {
	binary.BigEndian.PutUint64(b[:8], cid)
	binary.BigEndian.PutUint64(b[8:], number)
}

// ParseSealedHeader reads the plaintext of a header block.
func ParseSealedHeader(b *[HeaderBlock]byte) (cid, number uint64) {
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// Binding is what each side tells the other, in the hello, of how to address
// datagrams to it.
type Binding struct {
	CID       uint64              // random: the association, to its receiver
	HeaderKey [HeaderKeySize]byte // of all header blocks to the sender of the hello
}

// Append appends the binding as a field of a hello.
func (v Binding) Append(b []byte) []byte {
	value := binary.BigEndian.AppendUint64(make([]byte, 0, bindingSize), v.CID)
	return appendField(b, fieldBinding, append(value, v.HeaderKey[:]...))
}

// ParseBinding finds the binding in a hello.
func ParseBinding(payload []byte) (Binding, error) {
	var v Binding
	found := false
	err := fields(payload, func(tag uint8, value []byte) error {
		if tag != fieldBinding {
			return nil
		}
		if err := want("binding", value, bindingSize); err != nil {
			return err
		}
		found = true
		v.CID = binary.BigEndian.Uint64(value)
		copy(v.HeaderKey[:], value[8:])
		return nil
	})
	if err == nil && !found {
		err = errors.New("payload without a binding")
	}
	if err != nil {
		return Binding{}, err
	}
	return v, nil
}
