package secure

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// inClear is the cipher of tracer links, which is none.
const inClear Cipher = 255

// InClear reports whether the link protects nothing that goes over it: it is a
// tracer link.
func (l *Link) InClear() bool { return l.Cipher == inClear }

// Clear makes sealer and opener of a tracer link, whose other end has proved its
// identity by a handshake of its own. Records go out as tracer frames, in clear,
// numbered on from sent and received, which count those of the handshake. The opener
// notices frames that are none of the other side, or out of their order; it cannot
// notice anything else.
func (l *Link) Clear(sent, received uint64) {
	l.Cipher = inClear
	l.Seal = Sealer{&halfDuplex{aead: &clearAEAD{dialer: l.Initiator}, cipher: inClear, n: 2 * sent}}
	l.Open = Opener{&halfDuplex{aead: &clearAEAD{dialer: !l.Initiator}, cipher: inClear, n: 2 * received}}
}

// clearAEAD is the AEAD of one direction of a tracer link: a header is sealed as a tracer
// header, and a body gets zeros for its tag. Which one is meant tells the nonce: headers
// have even ones.
type clearAEAD struct {
	null
	dialer bool // sent by the side that dialled
}

var _ cipher.AEAD = (*clearAEAD)(nil)

// errOrder says that frames are missing, or come twice.
var errOrder = errors.New("a tracer frame is not the next one")

// Seal implements cipher.AEAD.
func (c *clearAEAD) Seal(dst, nonce, plain, data []byte) []byte {
	n := binary.LittleEndian.Uint64(nonce[4:])
	if n%2 == 1 {
		return c.null.Seal(dst, nonce, plain, data)
	}
	h := wire.Header{
		Type: wire.RecordType(plain[0]), Priority: plain[1], Len: int(binary.BigEndian.Uint16(plain[2:])), Left: int(binary.BigEndian.Uint32(plain[4:])),
	}
	dst = slices.Grow(dst, wire.TracerHeaderSize)
	return wire.TracerHeader{Type: h.Type, Dialer: c.dialer, Priority: h.Priority, Len: h.Len, Left: h.Left, Number: n / 2}.Append(dst)
}

// Open implements cipher.AEAD.
func (c *clearAEAD) Open(dst, nonce, sealed, data []byte) ([]byte, error) {
	n := binary.LittleEndian.Uint64(nonce[4:])
	if n%2 == 1 {
		return c.null.Open(dst, nonce, sealed, data)
	}
	h, err := wire.ParseTracerHeader(sealed)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrForged, err)
	case h.Type == wire.TypeShake:
		return nil, fmt.Errorf("%w: a tracer frame of the handshake comes after it", ErrForged)
	case h.Dialer != c.dialer || h.Number != n/2:
		return nil, fmt.Errorf("%w: %w: number %d where %d was due", ErrForged, errOrder, h.Number, n/2)
	}
	return h.Record().Append(dst), nil
}

// Transcript is what is signed, and proved, in the handshake of a tracer link: the
// BLAKE2b-256 under the network's key for it of the parts, each behind its length as a
// uint32.
func (n *Network) Transcript(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = binary.BigEndian.AppendUint32(all, uint32(len(p)))
		all = append(all, p...)
	}
	sum := keyed(n.tracer, string(all))
	return sum[:]
}
