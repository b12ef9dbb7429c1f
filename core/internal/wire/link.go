package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// SessionID names a session between two peers. The side that chooses its first
// link draws it at random; zero names none.
type SessionID [16]byte

// Claim is what the side with the lesser peer id says first on a new link, so
// that the other side can choose one link among several, for a session that
// there is or a new one.
//
//	seq      uint64     counts the sender's claims; greater is later
//	flags    uint8      bit 0: choose the link for that session only
//	                    bit 1: the sender has begun that session, and was not answered yet
//	session  [16]byte   the session that the sender has with the peer, or zero
//	received uint64     records of content that it has received in it
//	past     uint64     order of the last choice that led to a session which is over
//	held     []uint64   seq of each other link to this peer that the sender holds
type Claim struct {
	Seq      uint64
	Only     bool
	Begun    bool
	Session  SessionID
	Received uint64
	Past     uint64
	Held     []uint64
}

// claimSize is the size in bytes of a claim that names no other link.
const claimSize = 8 + 1 + len(SessionID{}) + 8 + 8

// Flags of a claim; others are ignored.
const (
	claimOnly  = 1
	claimBegun = 2
)

// Append appends the FrameClaim.
func (c Claim) Append(b []byte) []byte {
	body := binary.BigEndian.AppendUint64(nil, c.Seq)
	flags := uint8(0)
	if c.Only {
		flags |= claimOnly
	}
	if c.Begun {
		flags |= claimBegun
	}
	body = append(append(body, flags), c.Session[:]...)
	body = binary.BigEndian.AppendUint64(body, c.Received)
	body = binary.BigEndian.AppendUint64(body, c.Past)
	for _, h := range c.Held {
		body = binary.BigEndian.AppendUint64(body, h)
	}
	return AppendFrame(b, FrameClaim, body...)
}

// ParseClaim reads the body of a FrameClaim. A session that its sender has begun has
// a name, and nothing was received in it; and it may go on over any link.
func ParseClaim(body []byte) (Claim, error) {
	if len(body) < claimSize {
		return Claim{}, fmt.Errorf("claim: %w", ErrShort)
	}
	if (len(body)-claimSize)%8 != 0 || len(body) > claimSize+8*MaxHeld {
		return Claim{}, fmt.Errorf("claim: %d bytes are out of bounds", len(body))
	}
	c := Claim{
		Seq: binary.BigEndian.Uint64(body), Only: body[8]&claimOnly != 0, Begun: body[8]&claimBegun != 0,
		Session: SessionID(body[9:]), Received: binary.BigEndian.Uint64(body[25:]), Past: binary.BigEndian.Uint64(body[33:]),
	}
	if c.Begun && (c.Only || c.Session == SessionID{} || c.Received != 0) {
		return Claim{}, errors.New("claim: what it says of the session that was begun cannot be")
	}
	for b := body[claimSize:]; len(b) > 0; b = b[8:] {
		c.Held = append(c.Held, binary.BigEndian.Uint64(b))
	}
	return c, nil
}

// Chosen says that the link carries the session from now on: in answer to a claim,
// or before there is one.
//
//	session  [16]byte   the claim's: it goes on; another one: it is new
//	received uint64     records of content that the sender has received in it
//	order    uint64     counts the sender's choices; greater is later
//	past     uint64     seq of the last claim that led to a session which is over
type Chosen struct {
	Session  SessionID
	Received uint64
	Order    uint64
	Past     uint64
}

// chosenSize is the size in bytes of the body of a FrameChosen.
const chosenSize = len(SessionID{}) + 8 + 8 + 8

// Append appends the FrameChosen.
func (c Chosen) Append(b []byte) []byte {
	body := binary.BigEndian.AppendUint64(c.Session[:], c.Received)
	body = binary.BigEndian.AppendUint64(body, c.Order)
	return AppendFrame(b, FrameChosen, binary.BigEndian.AppendUint64(body, c.Past)...)
}

// ParseChosen reads the body of a FrameChosen, whose session is never zero.
func ParseChosen(body []byte) (Chosen, error) {
	if len(body) < chosenSize {
		return Chosen{}, fmt.Errorf("chosen: %w", ErrShort)
	}
	c := Chosen{Session: SessionID(body), Received: binary.BigEndian.Uint64(body[16:]), Order: binary.BigEndian.Uint64(body[24:]), Past: binary.BigEndian.Uint64(body[32:])}
	if c.Session == (SessionID{}) {
		return Chosen{}, errors.New("chosen: no session is named")
	}
	return c, nil
}

// AppendAck appends a FrameAck.
func AppendAck(b []byte, received uint64) []byte { return AppendPing(b, FrameAck, received) }

// ParseAck reads the body of a FrameAck.
func ParseAck(body []byte) (received uint64, err error) {
	if len(body) < 8 {
		return 0, fmt.Errorf("ack: %w", ErrShort)
	}
	return binary.BigEndian.Uint64(body), nil
}
