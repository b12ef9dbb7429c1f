package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/libcrust/libcrust/core/identity"
)

// GossipKind says what a gossip is. A receiver ignores kinds it does not know.
type GossipKind uint8

const (
	GossipNews     GossipKind = 1 // contact records that are new
	GossipNewKeys  GossipKind = 2 // keys of contact records that are new
	GossipRanges   GossipKind = 3 // what the sender has, in sums, to be compared
	GossipHave     GossipKind = 4 // keys of records that the sender has, and the receiver lacked in its ranges
	GossipWant     GossipKind = 5 // keys of records that the sender wants
	GossipContacts GossipKind = 6 // contact records that were wanted
)

const (
	// MaxGossip is the largest body of a FrameGossip in bytes.
	MaxGossip = 4096
	// MaxRangeKeys is how many keys a range of RangeKeys lists.
	MaxRangeKeys = 32
	// GossipKeySize is the size of a key in bytes.
	GossipKeySize = 8 + 6
	// GossipContactExtra is what goes before a record, in bytes.
	GossipContactExtra = 2
	// GossipRangesFixed is the size of a GossipRanges without its ranges, in bytes.
	GossipRangesFixed = 1 + 8 + GossipNonce + 8
	// GossipRangeFixed is the size of a range without what its mode adds, in bytes.
	GossipRangeFixed = 8 + 1
	// GossipNonce is the size of the key of the sums.
	GossipNonce = 16
)

// ContactKey names one version of a contact record. Records are ordered by their
// positions.
type ContactKey struct {
	Position uint64 // the first 8 bytes of the peer id
	Seq      uint64 // below 2^48
}

// KeyOf returns the key of a contact record.
func KeyOf(peer identity.PeerID, seq uint64) ContactKey {
	return ContactKey{binary.BigEndian.Uint64(peer[:]), seq}
}

// RangeMode says what a range tells of the records in it.
type RangeMode uint8

const (
	RangeSkip RangeMode = 0 // nothing
	RangeSum  RangeMode = 1 // their sum
	RangeKeys RangeMode = 2 // their keys, all of them
)

// Range is a range of positions: from the one after the Last of the range before it
// to its own Last.
type Range struct {
	Last uint64
	Mode RangeMode
	// Sum is the sum modulo 2^64 of SipHash-2-4 of each record's peer id and seq (40 bytes)
	// under the nonce of the message.
	Sum uint64
	// Keys are in order of their positions; at most MaxRangeKeys.
	Keys []ContactKey
}

// Size returns the size of the encoded range in bytes.
func (r Range) Size() int {
	switch r.Mode {
	case RangeSum:
		return GossipRangeFixed + 8
	case RangeKeys:
		return GossipRangeFixed + 1 + len(r.Keys)*GossipKeySize
	}
	return GossipRangeFixed
}

// Gossip is the body of a FrameGossip.
//
//	kind     uint8
//
//	GossipNews, GossipContacts, at least once:
//	  size     uint16    1 to MaxContact
//	  record   [size]byte
//
//	GossipNewKeys, GossipHave, GossipWant, at least once:
//	  position uint64
//	  seq      uint48
//
//	GossipRanges:
//	  clock    uint64    milliseconds since 1970, as the sender's clock shows it
//	  nonce    [16]byte  chosen by who began; answers have the same
//	  first    uint64    position
//	  ranges   at least once:
//	    last   uint64    position; not below the range's first
//	    mode   uint8
//	    sum    uint64    RangeSum
//	    n      uint8     RangeKeys, up to MaxRangeKeys; then n keys as above, in order
type Gossip struct {
	Kind     GossipKind
	Contacts [][]byte
	Keys     []ContactKey
	Clock    uint64
	Nonce    [GossipNonce]byte
	First    uint64
	Ranges   []Range
}

// Append appends a FrameGossip. The caller sees to it that the body fits MaxGossip.
func (g Gossip) Append(b []byte) []byte {
	body := make([]byte, 0, 512)
	body = append(body, byte(g.Kind))
	switch g.Kind {
	case GossipNews, GossipContacts:
		for _, c := range g.Contacts {
			body = binary.BigEndian.AppendUint16(body, uint16(len(c)))
			body = append(body, c...)
		}
	case GossipNewKeys, GossipHave, GossipWant:
		body = appendKeys(body, g.Keys)
	case GossipRanges:
		body = binary.BigEndian.AppendUint64(body, g.Clock)
		body = append(body, g.Nonce[:]...)
		body = binary.BigEndian.AppendUint64(body, g.First)
		for _, r := range g.Ranges {
			body = binary.BigEndian.AppendUint64(body, r.Last)
			body = append(body, byte(r.Mode))
			switch r.Mode {
			case RangeSum:
				body = binary.BigEndian.AppendUint64(body, r.Sum)
			case RangeKeys:
				body = appendKeys(append(body, byte(len(r.Keys))), r.Keys)
			}
		}
	}
	return AppendFrame(b, FrameGossip, body...)
}

func appendKeys(b []byte, keys []ContactKey) []byte {
	for _, k := range keys {
		b = binary.BigEndian.AppendUint64(b, k.Position)
		b = binary.BigEndian.AppendUint16(b, uint16(k.Seq>>32))
		b = binary.BigEndian.AppendUint32(b, uint32(k.Seq))
	}
	return b
}

// ParseGossip reads the body of a FrameGossip. Contacts are parts of it, and not
// looked into. Of an unknown kind nothing but the kind is read.
func ParseGossip(body []byte) (Gossip, error) {
	switch {
	case len(body) < 1:
		return Gossip{}, fmt.Errorf("gossip: %w", ErrShort)
	case len(body) > MaxGossip:
		return Gossip{}, fmt.Errorf("gossip: %d bytes are over %d", len(body), MaxGossip)
	}
	g := Gossip{Kind: GossipKind(body[0])}
	var err error
	switch b := body[1:]; g.Kind {
	case GossipNews, GossipContacts:
		g.Contacts, err = parseContacts(b)
	case GossipNewKeys, GossipHave, GossipWant:
		if len(b) == 0 || len(b)%GossipKeySize != 0 {
			err = fmt.Errorf("keys of %d bytes", len(b))
			break
		}
		g.Keys, err = parseKeys(b)
	case GossipRanges:
		err = g.parseRanges(b)
	}
	if err != nil {
		return Gossip{}, fmt.Errorf("gossip: %w", err)
	}
	return g, nil
}

func parseContacts(b []byte) (contacts [][]byte, err error) {
	for first := true; first || len(b) > 0; first = false {
		if len(b) < GossipContactExtra {
			return nil, ErrShort
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[GossipContactExtra:]
		switch {
		case n == 0 || n > MaxContact:
			return nil, fmt.Errorf("a contact record of %d bytes is out of bounds", n)
		case n > len(b):
			return nil, fmt.Errorf("contact record: %w", ErrShort)
		}
		contacts = append(contacts, b[:n:n])
		b = b[n:]
	}
	return contacts, nil
}

// parseKeys reads keys up to the end of b, which is a whole number of them.
func parseKeys(b []byte) ([]ContactKey, error) {
	if len(b) == 0 {
		return nil, nil
	}
	keys := make([]ContactKey, 0, len(b)/GossipKeySize)
	for ; len(b) > 0; b = b[GossipKeySize:] {
		k := ContactKey{binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint16(b[8:]))<<32 | uint64(binary.BigEndian.Uint32(b[10:]))}
		if k.Seq == 0 {
			return nil, errors.New("a key with sequence number 0")
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (g *Gossip) parseRanges(b []byte) error {
	if len(b) < GossipRangesFixed-1+GossipRangeFixed {
		return fmt.Errorf("ranges: %w", ErrShort)
	}
	g.Clock, g.Nonce = binary.BigEndian.Uint64(b), [GossipNonce]byte(b[8:])
	g.First = binary.BigEndian.Uint64(b[8+GossipNonce:])
	first, over := g.First, false
	for b = b[GossipRangesFixed-1:]; len(b) > 0; {
		if len(b) < GossipRangeFixed {
			return fmt.Errorf("range: %w", ErrShort)
		}
		r := Range{Last: binary.BigEndian.Uint64(b), Mode: RangeMode(b[8])}
		if r.Last < first || over {
			return errors.New("range: it ends before it begins")
		}
		var err error
		if b, err = r.parse(b[GossipRangeFixed:], first); err != nil {
			return fmt.Errorf("range: %w", err)
		}
		g.Ranges = append(g.Ranges, r)
		first, over = r.Last+1, r.Last == math.MaxUint64
	}
	return nil
}

// parse reads what the mode adds and returns what follows it.
func (r *Range) parse(b []byte, first uint64) (rest []byte, err error) {
	switch r.Mode {
	case RangeSkip:
		return b, nil
	case RangeSum:
		if len(b) < 8 {
			return nil, ErrShort
		}
		r.Sum = binary.BigEndian.Uint64(b)
		return b[8:], nil
	case RangeKeys:
		if len(b) < 1 {
			return nil, ErrShort
		}
		n := int(b[0])
		if n > MaxRangeKeys {
			return nil, fmt.Errorf("%d keys are over %d", n, MaxRangeKeys)
		}
		end := 1 + n*GossipKeySize
		if len(b) < end {
			return nil, ErrShort
		}
		if r.Keys, err = parseKeys(b[1:end]); err != nil {
			return nil, err
		}
		for _, k := range r.Keys {
			if k.Position < first || k.Position > r.Last {
				return nil, errors.New("its keys are out of order or outside")
			}
			first = k.Position
		}
		return b[end:], nil
	}
	return nil, fmt.Errorf("unknown mode %d", r.Mode)
}
