package wire

import (
	"encoding/binary"
	"fmt"
)

const (
	// MaxRelayKeys is how many one-time keys of a peer a relay keeps, and the most in
	// one frame.
	MaxRelayKeys = 8
	// MaxKeyHello is the most bytes of the hello that goes with such keys.
	MaxKeyHello = 512
	// keySignature is the size of an Ed25519 signature.
	keySignature = 64
	// keyFixed is the size of a key and its signature.
	keyFixed = 32 + keySignature
)

// keyTitle is what the signature of a one-time key begins with.
const keyTitle = "libcrust/1 one-time key\x00"

// KeyName names a one-time key: its first bytes.
type KeyName [8]byte

// OneTimeKey is a public key that a peer has made in advance, to answer one handshake
// with, and has left with a relay.
//
//	until     uint64     milliseconds since 1970-01-01 00:00:00 UTC: the peer forgets the key then
//	key       [32]byte   X25519
//	signature [64]byte   Ed25519, by the peer, of keyTitle, until, key and the hello
//	hello     the rest   with which the peer will answer; 1 to MaxKeyHello bytes
type OneTimeKey struct {
	Until     uint64
	Public    [32]byte
	Signature [keySignature]byte
	Hello     []byte
}

// Name returns the key's name.
func (k *OneTimeKey) Name() KeyName { return KeyName(k.Public[:]) }

// Signed returns what the signature is of.
func (k *OneTimeKey) Signed() []byte {
	b := append([]byte(keyTitle), make([]byte, 0, 8+32+len(k.Hello))...)
	b = binary.BigEndian.AppendUint64(b, k.Until)
	b = append(b, k.Public[:]...)
	return append(b, k.Hello...)
}

// RelayKeys are one-time keys that a peer leaves with a relay. They have one hello, and
// end at the same time.
//
//	flags   uint8        bit 0: the keys that were left before are not to be given any more
//	until   uint64
//	n       uint8        0 to MaxRelayKeys
//	keys    n times:     key, signature
//	hello   the rest     at most MaxKeyHello bytes; not empty unless n is 0
type RelayKeys struct {
	Anew bool
	Keys []OneTimeKey
}

// relayAnew is the one flag of RelayKeys.
const relayAnew = 1

// Append appends the FrameRelayKeys. Until and Hello are those of the first key.
func (r RelayKeys) Append(b []byte) []byte {
	var until uint64
	var hello []byte
	if len(r.Keys) > 0 {
		until, hello = r.Keys[0].Until, r.Keys[0].Hello
	}
	flags := uint8(0)
	if r.Anew {
		flags = relayAnew
	}
	body := binary.BigEndian.AppendUint64([]byte{flags}, until)
	body = append(body, uint8(len(r.Keys))) //nolint:gosec // at most MaxRelayKeys
	for _, k := range r.Keys {
		body = append(append(body, k.Public[:]...), k.Signature[:]...)
	}
	return AppendFrame(b, FrameRelayKeys, append(body, hello...)...)
}

// ParseRelayKeys reads the body of a FrameRelayKeys, of which nothing is a part of what it
// returns. Other flags are ignored. Signatures are not checked.
func ParseRelayKeys(body []byte) (RelayKeys, error) {
	const head = 1 + 8 + 1
	if len(body) < head {
		return RelayKeys{}, fmt.Errorf("relay keys: %w", ErrShort)
	}
	r, until, n := RelayKeys{Anew: body[0]&relayAnew != 0}, binary.BigEndian.Uint64(body[1:]), int(body[9])
	rest := body[head:]
	switch {
	case n > MaxRelayKeys:
		return RelayKeys{}, fmt.Errorf("relay keys: %d keys are over %d", n, MaxRelayKeys)
	case len(rest) < n*keyFixed || n > 0 && len(rest) == n*keyFixed:
		return RelayKeys{}, fmt.Errorf("relay keys: %w", ErrShort)
	case len(rest)-n*keyFixed > MaxKeyHello:
		return RelayKeys{}, fmt.Errorf("relay keys: a hello of %d bytes is over %d", len(rest)-n*keyFixed, MaxKeyHello)
	case n == 0:
		return r, nil
	}
	hello := append([]byte(nil), rest[n*keyFixed:]...) // of all keys: nobody writes to it
	r.Keys = make([]OneTimeKey, n)
	for i := range r.Keys {
		part := rest[i*keyFixed:]
		r.Keys[i] = OneTimeKey{Until: until, Public: [32]byte(part), Signature: [keySignature]byte(part[32:]), Hello: hello}
	}
	return r, nil
}

// AppendRelayKey appends a FrameRelayKey: the key for the opener of a circuit.
//
//	id      uint32
//	key     the rest   a OneTimeKey
func AppendRelayKey(b []byte, id uint32, k *OneTimeKey) []byte {
	body := binary.BigEndian.AppendUint32(nil, id)
	body = binary.BigEndian.AppendUint64(body, k.Until)
	body = append(append(body, k.Public[:]...), k.Signature[:]...)
	return AppendFrame(b, FrameRelayKey, append(body, k.Hello...)...)
}

// ParseRelayKey reads the body of a FrameRelayKey, of which nothing is a part of what it
// returns. The signature is not checked.
func ParseRelayKey(body []byte) (id uint32, k OneTimeKey, err error) {
	const head = 4 + 8 + keyFixed
	switch {
	case len(body) < head+1:
		return 0, k, fmt.Errorf("relay key: %w", ErrShort)
	case len(body) > head+MaxKeyHello:
		return 0, k, fmt.Errorf("relay key: a hello of %d bytes is over %d", len(body)-head, MaxKeyHello)
	}
	k = OneTimeKey{
		Until: binary.BigEndian.Uint64(body[4:]), Public: [32]byte(body[12:]), Signature: [keySignature]byte(body[44:]), Hello: append([]byte(nil), body[head:]...),
	}
	return binary.BigEndian.Uint32(body), k, nil
}

// MaxRelayEarly is the most bytes of a circuit in one FrameRelayEarly, so that with the
// name of the key they are as many as in a FrameRelayData.
const MaxRelayEarly = MaxRelayData - len(KeyName{})

// AppendRelayEarly appends a FrameRelayEarly: up to MaxRelayEarly bytes of a circuit, for
// a target that has the key.
//
//	id      uint32
//	key     [8]byte
//	data    the rest, not empty
func AppendRelayEarly(b []byte, id uint32, key KeyName, data []byte) []byte {
	b = append(b, byte(FrameRelayEarly))
	b = binary.AppendUvarint(b, uint64(4+len(key)+len(data)))
	b = append(binary.BigEndian.AppendUint32(b, id), key[:]...)
	return append(b, data...)
}

// AppendRelayAs appends a frame of bytes of a circuit as ParseRelayBytes has read it.
func AppendRelayAs(b []byte, t FrameType, id uint32, rest []byte) []byte {
	b = append(b, byte(t))
	b = binary.AppendUvarint(b, uint64(4+len(rest)))
	return append(binary.BigEndian.AppendUint32(b, id), rest...)
}

// ParseRelayBytes reads the body of a FrameRelayData or a FrameRelayEarly, as who carries
// it does: rest is all behind the id, and a part of body.
func ParseRelayBytes(t FrameType, body []byte) (id uint32, rest []byte, err error) {
	if id, rest, err = ParseRelayData(body); err == nil && t == FrameRelayEarly && len(rest) <= len(KeyName{}) {
		return 0, nil, fmt.Errorf("relay early: %w", ErrShort)
	}
	return id, rest, err
}
