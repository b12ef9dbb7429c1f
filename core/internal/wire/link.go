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
//	session  [16]byte   the session that the sender has with the peer, or zero
//	received uint64     records of content that it has received in it
//	held     []uint64   seq of each other link to this peer that the sender holds
type Claim struct {
	Seq      uint64
	Only     bool
	Session  SessionID
	Received uint64
	Held     []uint64
}

// claimSize is the size in bytes of a claim that names no other link.
const claimSize = 8 + 1 + len(SessionID{}) + 8

// claimOnly is the one flag of a claim.
const claimOnly = 1

// Append appends the FrameClaim.
func (c Claim) Append(b []byte) []byte {
	body := binary.BigEndian.AppendUint64(nil, c.Seq)
	flags := uint8(0)
	if c.Only {
		flags = claimOnly
	}
	body = append(append(body, flags), c.Session[:]...)
	body = binary.BigEndian.AppendUint64(body, c.Received)
	for _, h := range c.Held {
		body = binary.BigEndian.AppendUint64(body, h)
	}
	return AppendFrame(b, FrameClaim, body...)
}

// ParseClaim reads the body of a FrameClaim.
func ParseClaim(body []byte) (Claim, error) {
	if len(body) < claimSize {
		return Claim{}, fmt.Errorf("claim: %w", ErrShort)
	}
	if (len(body)-claimSize)%8 != 0 || len(body) > claimSize+8*MaxHeld {
		return Claim{}, fmt.Errorf("claim: %d bytes are out of bounds", len(body))
	}
	c := Claim{
		Seq: binary.BigEndian.Uint64(body), Only: body[8]&claimOnly != 0,
		Session: SessionID(body[9:]), Received: binary.BigEndian.Uint64(body[25:]),
	}
	for b := body[claimSize:]; len(b) > 0; b = b[8:] {
		c.Held = append(c.Held, binary.BigEndian.Uint64(b))
	}
	return c, nil
}

// Chosen is the answer to a claim: the link carries the session from now on.
//
//	session  [16]byte   the claim's: it goes on; another one: it is new
//	received uint64     records of content that the sender has received in it
type Chosen struct {
	Session  SessionID
	Received uint64
}

// Append appends the FrameChosen.
func (c Chosen) Append(b []byte) []byte {
	return AppendFrame(b, FrameChosen, binary.BigEndian.AppendUint64(c.Session[:], c.Received)...)
}

// ParseChosen reads the body of a FrameChosen, whose session is never zero.
func ParseChosen(body []byte) (Chosen, error) {
	if len(body) < len(SessionID{})+8 {
		return Chosen{}, fmt.Errorf("chosen: %w", ErrShort)
	}
	c := Chosen{Session: SessionID(body), Received: binary.BigEndian.Uint64(body[16:])}
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
