package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Contact is a contact record: what a peer tells of itself to whom it may concern,
// and what others tell on. The beacon, gossip and the bootstrap cache carry it.
//
//	version   uint8      ContactVersion
//	peer      [32]byte
//	seq       uint64     milliseconds since 1970 at which it was made
//	life      uint32     seconds for which it holds from then on, 1 to MaxContactLife
//	role      uint8      as in a handshake payload
//	flags     uint8      bits of Contact*
//	n         uint8      up to MaxContactEndpoints
//	endpoints n times as in a connection info
//	fields    as in a handshake payload, all ignored by this version
//	signature [64]byte   Ed25519 by peer, of ContactContext and all before it
//
// Of two records of a peer the one with the greater seq holds. A peer never uses
// a seq twice, also when it has begun anew or its clock was set back: when others
// have a record of it with a greater seq than its own, it makes one greater still.
//
// A record without endpoints says that the peer has departed. It is kept like any
// other until it expires, so that older ones do not come back.
//
// It does not name the network: who gets it came by a link or a beacon that is keyed
// by the network name. A record that a member of two networks has carried over
// leads to dials that nobody answers, and no farther.
type Contact struct {
	Peer      identity.PeerID
	Seq       uint64
	Life      uint32
	Role      uint8
	Flags     uint8
	Endpoints []endpoint.Endpoint
	// Unknown is how many endpoints were left out, because this version does not
	// know their transports. Append does not write them.
	Unknown int
}

const (
	// ContactVersion is the version of the form above.
	ContactVersion = 1
	// ContactContext goes before the signed bytes.
	ContactContext = "libcrust/1 contact record\x00"
	// MaxContactEndpoints is how many endpoints a contact record names.
	MaxContactEndpoints = 8
	// MaxContact is the largest size of a contact record in bytes. One with all its
	// endpoints over IPv6 has 272; what is left is for fields of later versions.
	MaxContact = 448
	// MaxContactLife is the longest life of a contact record in seconds: a day.
	MaxContactLife = 24 * 60 * 60
	// MaxContactAhead bounds how far ahead a record's end may be on the clock of who
	// gets it: MaxContactLife, and two hours by which clocks may differ.
	MaxContactAhead = 26 * time.Hour

	contactFixed = 1 + identity.IDSize + 8 + 4 + 1 + 1 + 1
	// maxSeq bounds seq so that no sum overflows: it is in the year 10889.
	maxSeq = 1 << 48
)

// Bits of Contact.Flags; others are ignored.
const (
	ContactRelay  = 1 // the peer carries links of others
	ContactDirect = 2 // the peer accepts connections at a global endpoint, whoever comes
)

// Departed reports whether the record says that the peer is gone.
func (c Contact) Departed() bool { return len(c.Endpoints) == 0 && c.Unknown == 0 }

// Expires returns when the record ends: milliseconds since 1970.
func (c Contact) Expires() uint64 { return c.Seq + 1000*uint64(c.Life) }

// Current returns nil while the record holds, by a clock that shows now in
// milliseconds since 1970: its end is ahead, by no more than MaxContactAhead.
func (c Contact) Current(now uint64) error {
	switch end := c.Expires(); {
	case end <= now:
		return fmt.Errorf("contact record: it expired %s ago", time.Duration(min(now-end, 1<<43))*time.Millisecond)
	case end-now > uint64(MaxContactAhead/time.Millisecond):
		return fmt.Errorf("contact record: its end is more than %s ahead", MaxContactAhead)
	}
	return nil
}

// Append appends the record with its first MaxContactEndpoints endpoints, signed by sign.
func (c Contact) Append(b []byte, sign func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, ContactVersion)
	b = append(b, c.Peer[:]...)
	b = binary.BigEndian.AppendUint64(b, c.Seq)
	b = binary.BigEndian.AppendUint32(b, c.Life)
	eps := c.Endpoints[:min(len(c.Endpoints), MaxContactEndpoints)]
	b = append(b, c.Role, c.Flags, byte(len(eps)))
	for _, ep := range eps {
		b = appendEndpoint(b, ep)
	}
	return append(b, sign(append([]byte(ContactContext), b[start:]...))...)
}

// ParseContact reads a contact record and checks its signature; whether it holds is
// for the caller, who has a clock: see Current. Endpoints of unknown
// transports are left out.
func ParseContact(b []byte) (Contact, error) {
	c, err := PeekContact(b)
	if err == nil && !c.Signed(b) {
		err = errors.New("contact record: its signature is not the peer's")
	}
	if err != nil {
		return Contact{}, err
	}
	return c, nil
}

// ContactHead reads of a contact record of this version whose it is and which one,
// and checks nothing else.
func ContactHead(b []byte) (peer identity.PeerID, seq uint64, err error) {
	switch {
	case len(b) < contactFixed:
		return peer, 0, fmt.Errorf("contact record: %w", ErrShort)
	case b[0] != ContactVersion:
		return peer, 0, fmt.Errorf("contact record: version %d, want %d", b[0], ContactVersion)
	}
	return identity.PeerID(b[1:33]), binary.BigEndian.Uint64(b[33:]), nil
}

// PeekContact reads a contact record as ParseContact does, but does not check its
// signature, which takes much longer than all the rest. Anybody may have made what it
// returns: for refusing what would not be kept anyway, before Signed.
func PeekContact(b []byte) (Contact, error) {
	c, err := peekContact(b)
	if err != nil {
		return Contact{}, fmt.Errorf("contact record: %w", err)
	}
	return c, nil
}

func peekContact(b []byte) (Contact, error) {
	switch {
	case len(b) > MaxContact:
		return Contact{}, fmt.Errorf("%d bytes are over %d", len(b), MaxContact)
	case len(b) < contactFixed+identity.SignatureSize:
		return Contact{}, ErrShort
	case b[0] != ContactVersion:
		return Contact{}, fmt.Errorf("version %d, want %d", b[0], ContactVersion)
	}
	n, rest := int(b[contactFixed-1]), b[contactFixed:len(b)-identity.SignatureSize]
	c := Contact{
		Peer: identity.PeerID(b[1:33]), Seq: binary.BigEndian.Uint64(b[33:]), Life: binary.BigEndian.Uint32(b[41:]),
		Role: b[45], Flags: b[46],
	}
	switch {
	case c.Seq == 0 || c.Seq >= maxSeq:
		return Contact{}, fmt.Errorf("a sequence number of %d is out of bounds", c.Seq)
	case c.Life == 0 || c.Life > MaxContactLife:
		return Contact{}, fmt.Errorf("a life of %d seconds is out of bounds", c.Life)
	case n > MaxContactEndpoints:
		return Contact{}, fmt.Errorf("%d endpoints are over %d", n, MaxContactEndpoints)
	}
	for range n {
		ep, tail, err := parseEndpoint(rest)
		if err != nil {
			return Contact{}, err
		}
		rest = tail
		if !ep.Transport.Known() {
			c.Unknown++
			continue
		}
		if ep.Scope() == endpoint.Unusable || ep.Addr.Port() == 0 {
			return Contact{}, fmt.Errorf("nobody can be at %s", ep)
		}
		c.Endpoints = append(c.Endpoints, ep)
	}
	return c, fields(rest, func(uint8, []byte) error { return nil })
}

// Signed reports whether b, which PeekContact read as c, is signed by c.Peer.
func (c Contact) Signed(b []byte) bool {
	if len(b) < identity.SignatureSize {
		return false
	}
	end := len(b) - identity.SignatureSize
	return c.Peer.Verify(append([]byte(ContactContext), b[:end]...), b[end:])
}
