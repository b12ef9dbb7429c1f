package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/libcrust/libcrust/core/identity"
)

// Payload fields, each as tag uint8, len uint16, value. Unknown tags are
// ignored, so that later versions can add some; a known one at most once.
const (
	fieldVersion   = 1  // uint8: highest protocol version the sender speaks
	fieldPeer      = 2  // [32]byte: Ed25519 public key
	fieldAppID     = 3  // up to MaxAppID bytes
	fieldRole      = 4  // uint8: 0 node, 1 client
	fieldInstance  = 5  // uint64: random, anew for each service
	fieldCiphers   = 6  // uint8: bits of Cipher*
	fieldLostAfter = 7  // uint32: milliseconds of silence after which the sender gives a link up
	fieldResume    = 8  // uint32: milliseconds for which the sender keeps a session that has lost its link
	fieldUnacked   = 9  // uint32: bytes of records that the sender has room for before it acknowledges any
	fieldFlags     = 10 // uint8: bits of Flag*
)

// Bits of Hello.Flags; others are ignored.
const (
	FlagRelay  = 1 // the sender carries links of others
	FlagGossip = 2 // the sender answers gossip: it tells at least its own contact record
	FlagNews   = 4 // the sender takes the contact records of others, too; with FlagGossip
	FlagReady  = 8 // the sender, a responder, would take a session now: it may be begun at once
)

// Bits of Hello.Ciphers.
const (
	CipherChaCha20Poly1305 = 1 // every peer has it
	CipherAES256GCM        = 2 // offered where hardware makes it fast and constant-time
)

// Hello is what each side tells about itself inside the handshake: in the
// second Noise message the responder, in the third the initiator.
type Hello struct {
	Version   uint8
	Peer      identity.PeerID
	AppID     []byte
	Role      uint8
	Instance  uint64
	Ciphers   uint8
	LostAfter uint32
	Resume    uint32
	Unacked   uint32
	Flags     uint8
}

func appendField(b []byte, tag uint8, value []byte) []byte {
	b = append(b, tag)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// Append appends the payload.
func (h Hello) Append(b []byte) []byte {
	b = appendField(b, fieldVersion, []byte{h.Version})
	b = appendField(b, fieldPeer, h.Peer[:])
	b = appendField(b, fieldRole, []byte{h.Role})
	b = appendField(b, fieldInstance, binary.BigEndian.AppendUint64(nil, h.Instance))
	b = appendField(b, fieldCiphers, []byte{h.Ciphers})
	b = appendField(b, fieldLostAfter, binary.BigEndian.AppendUint32(nil, h.LostAfter))
	b = appendField(b, fieldResume, binary.BigEndian.AppendUint32(nil, h.Resume))
	if h.Unacked > 0 {
		b = appendField(b, fieldUnacked, binary.BigEndian.AppendUint32(nil, h.Unacked))
	}
	if h.Flags != 0 {
		b = appendField(b, fieldFlags, []byte{h.Flags})
	}
	if len(h.AppID) > 0 {
		b = appendField(b, fieldAppID, h.AppID)
	}
	return b
}

// fields splits a payload and hands each field to take.
func fields(b []byte, take func(tag uint8, value []byte) error) error {
	var seen [256]bool
	for len(b) > 0 {
		if len(b) < 3 {
			return fmt.Errorf("payload field: %w", ErrShort)
		}
		tag, n := b[0], int(binary.BigEndian.Uint16(b[1:]))
		if n > len(b)-3 {
			return fmt.Errorf("payload field %d of %d bytes: %w", tag, n, ErrShort)
		}
		if seen[tag] {
			return fmt.Errorf("payload field %d comes twice", tag)
		}
		seen[tag] = true
		if err := take(tag, b[3:3+n]); err != nil {
			return err
		}
		b = b[3+n:]
	}
	return nil
}

// want checks the length of a field.
func want(name string, value []byte, n int) error {
	if len(value) != n {
		return fmt.Errorf("%s has %d bytes, want %d", name, len(value), n)
	}
	return nil
}

// ParseHello reads a payload.
func ParseHello(b []byte) (Hello, error) {
	var h Hello
	err := fields(b, func(tag uint8, v []byte) (err error) {
		switch tag {
		case fieldVersion:
			if err = want("version", v, 1); err == nil {
				h.Version = v[0]
			}
		case fieldPeer:
			if err = want("peer id", v, identity.IDSize); err == nil {
				h.Peer = identity.PeerID(v)
			}
		case fieldAppID:
			if len(v) == 0 || len(v) > MaxAppID {
				return fmt.Errorf("app id of %d bytes is out of bounds", len(v))
			}
			h.AppID = append([]byte(nil), v...)
		case fieldRole:
			if err = want("role", v, 1); err == nil {
				h.Role = v[0]
			}
		case fieldInstance:
			if err = want("instance", v, 8); err == nil {
				h.Instance = binary.BigEndian.Uint64(v)
			}
		case fieldCiphers:
			if err = want("ciphers", v, 1); err == nil {
				h.Ciphers = v[0]
			}
		case fieldLostAfter:
			if err = want("lost-after", v, 4); err == nil {
				h.LostAfter = binary.BigEndian.Uint32(v)
			}
		case fieldResume:
			if err = want("resume", v, 4); err == nil {
				h.Resume = binary.BigEndian.Uint32(v)
			}
		case fieldUnacked:
			if err = want("unacked", v, 4); err == nil {
				h.Unacked = binary.BigEndian.Uint32(v)
			}
		case fieldFlags:
			if err = want("flags", v, 1); err == nil {
				h.Flags = v[0]
			}
		}
		return err
	})
	switch {
	case err != nil:
		return Hello{}, err
	case h.Version == 0:
		return Hello{}, errors.New("payload without a version")
	case h.Peer.IsZero():
		return Hello{}, errors.New("payload without a peer id")
	case h.Ciphers&CipherChaCha20Poly1305 == 0:
		return Hello{}, errors.New("payload does not offer ChaCha20-Poly1305, which every peer must")
	}
	return h, nil
}

// AppendOffer appends the payload of the first Noise message, which only proves
// that the sender knows the network name.
func AppendOffer(b []byte) []byte { return appendField(b, fieldVersion, []byte{Version}) }

// ParseOffer reads the payload of the first Noise message.
func ParseOffer(b []byte) (version uint8, err error) {
	err = fields(b, func(tag uint8, v []byte) error {
		if tag != fieldVersion {
			return nil
		}
		if err := want("version", v, 1); err != nil {
			return err
		}
		version = v[0]
		return nil
	})
	if err == nil && version == 0 {
		err = errors.New("payload without a version")
	}
	return version, err
}
