package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// BeaconKind says what a beacon is for.
type BeaconKind uint8

const (
	BeaconHello   BeaconKind = 1 // to all on a segment: here I am, and perhaps: who else?
	BeaconAnswer  BeaconKind = 2 // to who has sent a hello
	BeaconGoodbye BeaconKind = 3 // to all on a segment: I was here
)

// BeaconEcho is the size of what an answer repeats of a hello: the beginning of its
// nonce.
const BeaconEcho = 16

// Beacon is the content of a datagram by which the peers on one segment of a network
// find each other. It is sealed under a key that follows from the network name.
//
//	kind      uint8
//	flags     uint8     bits of BeaconFlag*; others are ignored
//	time      uint64    milliseconds since 1970 by the sender's clock; greater than that of
//	                    all it has sent before, whatever its clock does
//	echo      [16]byte  of an answer: the first bytes of the hello's nonce; else zeros
//	size      uint8     4 or 16
//	address             of this size: from which it is sent, without its zone
//	n         uint8     up to MaxBeaconDoors
//	doors     n times transport uint8, port uint16: where the sender accepts links at this
//	                    address
//	length    uint16    up to MaxContact
//	record              of this length: the sender's contact record
//	signature [64]byte  Ed25519 by the record's peer, of BeaconContext and all before it
//	padding             the rest, ignored
//
// A goodbye's record is that of a departed peer, and no other is. A hello without a
// record is from who only asks, and has no signature.
type Beacon struct {
	Kind    BeaconKind
	Flags   uint8
	Time    uint64
	Echo    [BeaconEcho]byte
	From    netip.Addr
	Doors   []Door
	Record  []byte  // nil: there is none
	Contact Contact // what Record says. Append does not look at it
}

// Door is a port at which links are accepted.
type Door struct {
	Transport endpoint.Transport
	Port      uint16
}

// BeaconFlagAsks is set in a hello whose sender wants answers.
const BeaconFlagAsks = 1

const (
	// BeaconContext goes before the signed bytes.
	BeaconContext = "libcrust/1 beacon\x00"
	// MaxBeaconDoors is how many doors a beacon names.
	MaxBeaconDoors = 8
	// MaxBeacon is the largest size of an encoded Beacon without padding.
	MaxBeacon = beaconFixed + 16 + 1 + 3*MaxBeaconDoors + 2 + MaxContact + identity.SignatureSize

	beaconFixed = 1 + 1 + 8 + BeaconEcho + 1
)

// Append appends the beacon with its first MaxBeaconDoors doors, signed by sign if it
// has a record.
func (m Beacon) Append(b []byte, sign func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, byte(m.Kind), m.Flags)
	b = binary.BigEndian.AppendUint64(b, m.Time)
	b = append(b, m.Echo[:]...)
	addr := m.From.Unmap().AsSlice()
	b = append(append(b, byte(len(addr))), addr...)
	doors := m.Doors[:min(len(m.Doors), MaxBeaconDoors)]
	b = append(b, byte(len(doors)))
	for _, d := range doors {
		b = binary.BigEndian.AppendUint16(append(b, byte(d.Transport)), d.Port)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Record))) //nolint:gosec // at most MaxContact
	b = append(b, m.Record...)
	if len(m.Record) == 0 {
		return b
	}
	return append(b, sign(append([]byte(BeaconContext), b[start:]...))...)
}

// PeekBeacon reads a beacon and its padding, but checks neither its signature nor that of
// its record, which take much longer than all the rest: Signed does. Doors of unknown
// transports are left out. It keeps b.
func PeekBeacon(b []byte) (Beacon, error) {
	m, err := peekBeacon(b)
	if err != nil {
		return Beacon{}, fmt.Errorf("beacon: %w", err)
	}
	return m, nil
}

func peekBeacon(b []byte) (Beacon, error) {
	if len(b) < beaconFixed {
		return Beacon{}, ErrShort
	}
	m := Beacon{Kind: BeaconKind(b[0]), Flags: b[1], Time: binary.BigEndian.Uint64(b[2:]), Echo: [BeaconEcho]byte(b[10:])}
	size, rest := int(b[beaconFixed-1]), b[beaconFixed:]
	switch {
	case m.Kind < BeaconHello || m.Kind > BeaconGoodbye:
		return Beacon{}, fmt.Errorf("unknown kind %d", m.Kind)
	case m.Time == 0 || m.Time >= maxSeq:
		return Beacon{}, fmt.Errorf("a time of %d is out of bounds", m.Time)
	case size != 4 && size != 16:
		return Beacon{}, fmt.Errorf("an address of %d bytes", size)
	case len(rest) < size+1:
		return Beacon{}, ErrShort
	}
	addr, _ := netip.AddrFromSlice(rest[:size])
	m.From = addr.Unmap()
	if endpoint.New(endpoint.TCP, netip.AddrPortFrom(addr, 1)).Scope() == endpoint.Unusable {
		return Beacon{}, fmt.Errorf("nobody can be at %s", addr)
	}
	n, rest := int(rest[size]), rest[size+1:]
	switch {
	case n > MaxBeaconDoors:
		return Beacon{}, fmt.Errorf("%d doors are over %d", n, MaxBeaconDoors)
	case len(rest) < 3*n+2:
		return Beacon{}, ErrShort
	}
	for ; n > 0; n-- {
		d := Door{endpoint.Transport(rest[0]), binary.BigEndian.Uint16(rest[1:])}
		rest = rest[3:]
		if d.Port == 0 {
			return Beacon{}, errors.New("a door without a port")
		}
		if d.Transport.Known() {
			m.Doors = append(m.Doors, d)
		}
	}
	length, rest := int(binary.BigEndian.Uint16(rest)), rest[2:]
	if length == 0 {
		if m.Kind != BeaconHello {
			return Beacon{}, errors.New("no record")
		}
		return m, nil
	}
	if length > MaxContact {
		return Beacon{}, fmt.Errorf("a record of %d bytes is over %d", length, MaxContact)
	}
	if len(rest) < length+identity.SignatureSize {
		return Beacon{}, ErrShort
	}
	m.Record = rest[:length:length]
	var err error
	m.Contact, err = PeekContact(m.Record)
	if err == nil && m.Contact.Departed() != (m.Kind == BeaconGoodbye) {
		err = fmt.Errorf("a record of %d endpoints in kind %d", len(m.Contact.Endpoints)+m.Contact.Unknown, m.Kind)
	}
	return m, err
}

// Signed reports whether b, which PeekBeacon read as m, and its record are signed by
// the record's peer. Without a record it reports false.
func (m Beacon) Signed(b []byte) bool {
	if len(m.Record) == 0 || len(b) < beaconFixed {
		return false
	}
	end := beaconFixed + int(b[beaconFixed-1])
	if len(b) <= end {
		return false
	}
	end += 1 + 3*int(b[end]) + 2 + len(m.Record)
	if len(b) < end+identity.SignatureSize {
		return false
	}
	signed := append([]byte(BeaconContext), b[:end]...)
	return m.Contact.Peer.Verify(signed, b[end:end+identity.SignatureSize]) && m.Contact.Signed(m.Record)
}
