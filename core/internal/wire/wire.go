// Package wire holds every byte that libcrust's own protocols put on a network,
// and every bound on them. Nothing else in the library slices a packet.
// docs/PROTOCOL.md is the same in prose.
//
// A link begins with three flights, one for each Noise message:
//
//	nonce    [24]byte  random, in clear
//	---- the rest under XChaCha20 keyed by the network name and the nonce ----
//	noiseLen uint16
//	padLen   uint16
//	noise    [noiseLen]byte
//	padding  [padLen]byte   any bytes
//
// Then records flow in both directions, each two Noise transport messages:
//
//	header   [8 + 16]byte   sealed Header
//	body     [n + 16]byte   sealed body, n = Header.Len
//
// The body of a TypeFrames record is a run of frames:
//
//	type     uint8
//	len      uvarint
//	body     [len]byte
//
// The body of a TypePiece record is a piece of one large message, bare. These two
// types are the content of a session: both sides count them, whatever link they
// travel on. The body of a TypeControl record is a run of frames too, which are
// about the link and the counts; these records are not counted.
//
// All integers are big-endian, but for uvarints (as in encoding/binary).
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is the protocol version of this library.
const Version = 1

// Specification constants: changing one makes another protocol.
const (
	FlightNonce       = 24   // bytes of the nonce before a flight
	FlightHeader      = 4    // bytes of the two lengths
	MaxNoise          = 1024 // largest Noise message in a flight
	MaxPadding        = 1024 // largest padding in a flight
	TagSize           = 16   // bytes of an AEAD tag
	HeaderSize        = 8    // bytes of a record header
	SealedHeader      = HeaderSize + TagSize
	MaxBody           = 65535 - TagSize      // largest record body: a Noise message is at most 65535 bytes
	MaxMessage        = 2 << 20              // largest message of a program
	MaxOpenPieces     = 8                    // messages in pieces at once, in each direction
	MaxAppID          = 256                  // bytes of an app id
	MaxStreamDatagram = 1100                 // bytes of a datagram in a frame
	MaxHeld           = 16                   // links named in a claim
	MaxUnacked        = 128 << 10            // bytes of record bodies after which a receiver acknowledges
	MaxUnackedRun     = 128                  // records after which it does
	MaxRecord         = SealedHeader + 65535 // largest record on the wire
	RekeyInterval     = 1 << 16              // nonces (two each record) after which both sides rekey
	MaxEndpoints      = 32                   // endpoints in a connection info
	MaxInfo           = 4096                 // bytes of a connection info
	maxFrameHeader    = 1 + binary.MaxVarintLen32
)

// ErrShort is returned, wrapped, for input that ends too early.
var ErrShort = errors.New("input ends too early")

// AppendFlightHeader appends the two lengths of a flight.
func AppendFlightHeader(b []byte, noiseLen, padLen int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(noiseLen))
	return binary.BigEndian.AppendUint16(b, uint16(padLen))
}

// ParseFlightHeader reads the two lengths of a flight and checks their bounds.
func ParseFlightHeader(b []byte) (noiseLen, padLen int, err error) {
	if len(b) < FlightHeader {
		return 0, 0, fmt.Errorf("flight header: %w", ErrShort)
	}
	noiseLen, padLen = int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	if noiseLen == 0 || noiseLen > MaxNoise || padLen > MaxPadding {
		return 0, 0, fmt.Errorf("flight header: %d bytes of Noise and %d of padding are out of bounds", noiseLen, padLen)
	}
	return noiseLen, padLen, nil
}

// RecordType tells what a record's body is.
type RecordType uint8

const (
	TypeFrames  RecordType = 1 // a run of frames with content
	TypePiece   RecordType = 2 // a piece of one large message
	TypeControl RecordType = 3 // a run of frames without content
)

// Counted reports whether records of this type are content of a session.
func (t RecordType) Counted() bool { return t == TypeFrames || t == TypePiece }

// Header is a record header.
//
//	type     uint8
//	priority uint8   TypePiece: of the message; else zero
//	len      uint16  of the body
//	left     uint32  TypePiece: bytes of the message that are still to come,
//	                 with this piece; else zero
type Header struct {
	Type     RecordType
	Priority uint8
	Len      int
	Left     int
}

// Append appends the header.
func (h Header) Append(b []byte) []byte {
	b = append(b, byte(h.Type), h.Priority)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Len))
	return binary.BigEndian.AppendUint32(b, uint32(h.Left))
}

// ParseHeader reads a record header and checks its bounds.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("record header: %w", ErrShort)
	}
	h := Header{
		Type: RecordType(b[0]), Priority: b[1],
		Len: int(binary.BigEndian.Uint16(b[2:])), Left: int(binary.BigEndian.Uint32(b[4:])),
	}
	switch {
	case h.Len > MaxBody:
		return Header{}, fmt.Errorf("record header: a body of %d bytes is over %d", h.Len, MaxBody)
	case (h.Type == TypeFrames || h.Type == TypeControl) && (h.Priority != 0 || h.Left != 0):
		return Header{}, errors.New("record header: fields of a piece in a record of frames")
	case h.Type == TypePiece && (h.Len == 0 || h.Left < h.Len || h.Left > MaxMessage):
		return Header{}, fmt.Errorf("record header: a piece of %d bytes with %d left is out of bounds", h.Len, h.Left)
	case h.Type != TypeFrames && h.Type != TypePiece && h.Type != TypeControl:
		return Header{}, fmt.Errorf("record header: unknown type %d", h.Type)
	}
	return h, nil
}

// FrameType tells what a frame is. A receiver ignores types it does not know.
type FrameType uint8

const (
	FramePad      FrameType = 0  // body ignored; hides lengths
	FrameMessage  FrameType = 1  // content: priority uint8, message
	FramePing     FrameType = 2  // uint64, to be sent back
	FramePong     FrameType = 3  // uint64 of the ping
	FrameClaim    FrameType = 4  // Claim
	FrameChosen   FrameType = 5  // Chosen: this link carries the session
	FrameRefused  FrameType = 6  // Reason: this link does not
	FrameClose    FrameType = 7  // content: Reason: the session ends after this
	FrameAck      FrameType = 8  // uint64: how many records of content have come
	FrameDatagram FrameType = 9  // a datagram of the program, at most MaxStreamDatagram bytes
	FrameSeen     FrameType = 10 // from where the other end's link comes
	FrameSeek     FrameType = 11 // Seek: a letter that looks for its reader
	FrameReply    FrameType = 12 // Reply: a letter back, or on

	FrameRelayOpen   FrameType = 13 // RelayOpen: a circuit begins
	FrameRelayData   FrameType = 14 // bytes of a circuit
	FrameRelayCredit FrameType = 15 // how many more may be sent
	FrameRelayClose  FrameType = 16 // RelayReason: a circuit ends

	FrameEcho    FrameType = 20 // Echo: where the sender answers echoes
	FrameReach   FrameType = 21 // Reach: send a probe here
	FrameReached FrameType = 22 // Reached: that was done

	FrameGossip FrameType = 24 // Gossip: contact records, and which of them there are
	FrameDoors  FrameType = 26 // Doors: at which ports the sender can be dialled

	FrameRelayKeys  FrameType = 27 // RelayKeys: one-time keys, to be given to who opens circuits
	FrameRelayKey   FrameType = 28 // one of them, for the opener of a circuit
	FrameRelayEarly FrameType = 29 // bytes of a circuit, sealed for one of them
)

// In reports whether a frame of this type belongs into a record of type r. Pad
// and frames of unknown types belong everywhere.
func (t FrameType) In(r RecordType) bool {
	switch t {
	case FrameMessage, FrameClose:
		return r == TypeFrames
	case FramePing, FramePong, FrameClaim, FrameChosen, FrameRefused, FrameAck, FrameDatagram, FrameSeen, FrameSeek, FrameReply, FrameEcho, FrameReach, FrameReached, FrameDoors,
		FrameRelayOpen, FrameRelayData, FrameRelayCredit, FrameRelayClose, FrameRelayKeys, FrameRelayKey, FrameRelayEarly, FrameGossip:
		return r == TypeControl
	}
	return true
}

// AppendFrame appends a frame with a body of one or two parts.
func AppendFrame(b []byte, t FrameType, body ...byte) []byte {
	b = append(b, byte(t))
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

// MessageFrameSize returns how many bytes AppendMessage appends.
func MessageFrameSize(n int) int {
	switch {
	case n+1 < 1<<7:
		return n + 3
	case n+1 < 1<<14:
		return n + 4
	}
	return n + 5
}

// AppendMessage appends a FrameMessage.
func AppendMessage(b []byte, priority uint8, message []byte) []byte {
	n := len(message) + 1
	if n < 1<<7 { // the common case, spelled out
		b = append(b, byte(FrameMessage), byte(n), priority)
		return append(b, message...)
	}
	b = append(b, byte(FrameMessage))
	b = binary.AppendUvarint(b, uint64(n))
	b = append(b, priority)
	return append(b, message...)
}

// NextFrame splits the first frame off b. The body is a part of b.
func NextFrame(b []byte) (t FrameType, body, rest []byte, err error) {
	if len(b) < 2 {
		return 0, nil, nil, fmt.Errorf("frame: %w", ErrShort)
	}
	t = FrameType(b[0])
	n, head := uint64(b[1]), 2
	if n >= 0x80 {
		var size int
		if n, size = binary.Uvarint(b[1:]); size <= 0 {
			return 0, nil, nil, errors.New("frame: malformed length")
		}
		head = 1 + size
	}
	if n > uint64(len(b)-head) {
		return 0, nil, nil, fmt.Errorf("frame of %d bytes: %w", n, ErrShort)
	}
	end := head + int(n)
	return t, b[head:end:end], b[end:], nil
}

// ParseMessage splits the body of a FrameMessage.
func ParseMessage(body []byte) (priority uint8, message []byte, err error) {
	if len(body) < 1 {
		return 0, nil, fmt.Errorf("message frame: %w", ErrShort)
	}
	return body[0], body[1:], nil
}

// ParsePing reads the body of a FramePing or FramePong.
func ParsePing(body []byte) (uint64, error) {
	if len(body) < 8 {
		return 0, fmt.Errorf("ping frame: %w", ErrShort)
	}
	return binary.BigEndian.Uint64(body), nil
}

// AppendPing appends a FramePing or FramePong.
func AppendPing(b []byte, t FrameType, v uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, byte(t), 8), v)
}

// Reason is why a link is refused or a session closed. Numbers are append-only;
// an unknown one means ReasonOther.
type Reason uint16

const (
	ReasonOther      Reason = 0
	ReasonDisconnect Reason = 1 // the program asked for it
	ReasonStopping   Reason = 2 // the service closes
	ReasonDuplicate  Reason = 3 // another link carries the session
	ReasonNotAllowed Reason = 4 // sessions that peers begin are refused
	ReasonLimit      Reason = 5 // a limit is reached
	ReasonProtocol   Reason = 6 // the other side broke the protocol
	ReasonBanned     Reason = 7 // blacklisted
	ReasonOver       Reason = 8 // the session that was to be resumed is over here
)

// AppendReason appends a FrameRefused or FrameClose.
func AppendReason(b []byte, t FrameType, r Reason) []byte {
	return AppendFrame(b, t, byte(r>>8), byte(r))
}

// ParseReason reads the body of a FrameRefused or FrameClose.
func ParseReason(body []byte) (Reason, error) {
	if len(body) < 2 {
		return 0, fmt.Errorf("reason: %w", ErrShort)
	}
	return Reason(binary.BigEndian.Uint16(body)), nil
}
