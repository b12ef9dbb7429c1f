package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/libcrust/libcrust/core/identity"
)

const (
	// MaxRelayData is the most bytes of a circuit in one frame.
	MaxRelayData = 16 << 10
	// RelayWindow is how many bytes of frames of data may be under way on a circuit
	// in each direction, each counted as RelayCost says, before the receiver grants
	// more.
	RelayWindow = 256 << 10
	// MinRelayCredit is the least that is granted at once, so that grants, too,
	// have a bound.
	MinRelayCredit = RelayWindow / 16
	// relayOverhead is what a frame of data is longer than its data, at most.
	relayOverhead = 1 + 3 + 4
)

// RelayCost returns what a frame with n bytes of a circuit counts in its window.
func RelayCost(n int) int { return n + relayOverhead }

// RelayOpen asks for a circuit, or announces one. The sender names it; an id is
// odd when the sender's peer id is the greater one of the session's two, otherwise
// even, so that both may name circuits at any time.
//
//	id      uint32
//	flags   uint8      bit 0: the circuit comes from the peer; else it is to go to it
//	                   bit 1: of an announced circuit: a key was given to the opener, and its name follows;
//	                   else the opener takes one
//	peer    [32]byte   peer id of the other end
//	key     [8]byte    only with bits 0 and 1
type RelayOpen struct {
	ID    uint32
	From  bool
	Keyed bool
	Peer  identity.PeerID
	Key   KeyName // zero unless From and Keyed are set
}

// Flags of a RelayOpen.
const (
	relayFrom  = 1
	relayKeyed = 2
)

// Append appends the FrameRelayOpen.
func (o RelayOpen) Append(b []byte) []byte {
	flags := uint8(0)
	if o.From {
		flags = relayFrom
	}
	if o.Keyed {
		flags |= relayKeyed
	}
	body := append(binary.BigEndian.AppendUint32(nil, o.ID), flags)
	body = append(body, o.Peer[:]...)
	if o.From && o.Keyed {
		body = append(body, o.Key[:]...)
	}
	return AppendFrame(b, FrameRelayOpen, body...)
}

// ParseRelayOpen reads the body of a FrameRelayOpen. Other flags, and bytes behind
// the known part, are ignored.
func ParseRelayOpen(body []byte) (RelayOpen, error) {
	if len(body) < 4+1+identity.IDSize {
		return RelayOpen{}, fmt.Errorf("relay open: %w", ErrShort)
	}
	o := RelayOpen{ID: binary.BigEndian.Uint32(body), From: body[4]&relayFrom != 0, Keyed: body[4]&relayKeyed != 0, Peer: identity.PeerID(body[5:])}
	if rest := body[5+identity.IDSize:]; o.From && o.Keyed {
		if len(rest) < len(o.Key) {
			return RelayOpen{}, fmt.Errorf("relay open: %w", ErrShort)
		}
		o.Key = KeyName(rest)
	}
	return o, nil
}

// AppendRelayData appends a FrameRelayData: up to MaxRelayData bytes of a circuit.
//
//	id      uint32
//	data    the rest, not empty
func AppendRelayData(b []byte, id uint32, data []byte) []byte {
	b = append(b, byte(FrameRelayData))
	b = binary.AppendUvarint(b, uint64(4+len(data)))
	return append(binary.BigEndian.AppendUint32(b, id), data...)
}

// ParseRelayData reads the body of a FrameRelayData, of which data is a part.
func ParseRelayData(body []byte) (id uint32, data []byte, err error) {
	if len(body) < 4+1 {
		return 0, nil, fmt.Errorf("relay data: %w", ErrShort)
	}
	if data = body[4:]; len(data) > MaxRelayData {
		return 0, nil, fmt.Errorf("relay data: %d bytes are over %d", len(data), MaxRelayData)
	}
	return binary.BigEndian.Uint32(body), data, nil
}

// AppendRelayCredit appends a FrameRelayCredit: how much more may be sent.
//
//	id      uint32
//	bytes   uint32   MinRelayCredit to RelayWindow, counted as RelayCost says
func AppendRelayCredit(b []byte, id, bytes uint32) []byte {
	body := binary.BigEndian.AppendUint32(nil, id)
	return AppendFrame(b, FrameRelayCredit, binary.BigEndian.AppendUint32(body, bytes)...)
}

// ParseRelayCredit reads the body of a FrameRelayCredit. Bytes behind it are
// ignored.
func ParseRelayCredit(body []byte) (id, bytes uint32, err error) {
	if len(body) < 4+4 {
		return 0, 0, fmt.Errorf("relay credit: %w", ErrShort)
	}
	id, bytes = binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
	if bytes < MinRelayCredit || bytes > RelayWindow {
		return 0, 0, fmt.Errorf("relay credit: %d bytes are out of bounds", bytes)
	}
	return id, bytes, nil
}

// RelayReason is why a circuit ends. Numbers are append-only; an unknown one means
// RelayBroken.
type RelayReason uint16

const (
	RelayDone       RelayReason = 0 // an end has closed it, after all that it sent
	RelayBroken     RelayReason = 1 // it has lost what was under way
	RelayNotAllowed RelayReason = 2 // the relay does not carry links of others, or the end takes none
	RelayNoPeer     RelayReason = 3 // the relay is not connected to the other end
	RelayLimit      RelayReason = 4 // a limit of the relay, or of the other end, is reached
)

// String says the reason in words.
func (r RelayReason) String() string {
	switch r {
	case RelayDone:
		return "closed in order"
	case RelayNotAllowed:
		return "not allowed"
	case RelayNoPeer:
		return "the relay is not connected to the peer"
	case RelayLimit:
		return "a limit of the relay is reached"
	case RelayBroken:
	}
	return "the circuit broke"
}

// AppendRelayClose appends a FrameRelayClose, the last frame of a circuit.
//
//	id      uint32
//	reason  uint16
func AppendRelayClose(b []byte, id uint32, r RelayReason) []byte {
	body := binary.BigEndian.AppendUint32(nil, id)
	return AppendFrame(b, FrameRelayClose, binary.BigEndian.AppendUint16(body, uint16(r))...)
}

// ParseRelayClose reads the body of a FrameRelayClose. Bytes behind it are ignored.
func ParseRelayClose(body []byte) (id uint32, r RelayReason, err error) {
	if len(body) < 4+2 {
		return 0, 0, fmt.Errorf("relay close: %w", ErrShort)
	}
	return binary.BigEndian.Uint32(body), RelayReason(binary.BigEndian.Uint16(body[4:])), nil
}
