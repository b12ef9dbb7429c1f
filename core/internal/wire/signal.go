package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

const (
	// MaxHops is over how many peers in a row a Seek travels.
	MaxHops = 6
	// MaxLetter is the largest sealed letter, in bytes.
	MaxLetter = 1200
	// MeetingID is the size of the name of a meeting.
	MeetingID = 16
)

// AppendSeen appends a FrameSeen: from where the other end's link comes, as this
// end sees it.
//
//	address  4 or 16 bytes
//	port     uint16
func AppendSeen(b []byte, from netip.AddrPort) []byte {
	body := from.Addr().Unmap().AsSlice()
	return AppendFrame(b, FrameSeen, binary.BigEndian.AppendUint16(body, from.Port())...)
}

// ParseSeen reads the body of a FrameSeen.
func ParseSeen(body []byte) (netip.AddrPort, error) {
	if len(body) != 4+2 && len(body) != 16+2 {
		return netip.AddrPort{}, fmt.Errorf("seen: %d bytes are no address and port", len(body))
	}
	n := len(body) - 2
	addr, _ := netip.AddrFromSlice(body[:n])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(body[n:])), nil
}

// Echo is where the sender of the frame answers echoes, at the address that its link
// comes from. A datagram to Port of Tag and a sealed probe that asks is answered by
// one of the receiver's tag and a probe that says from where it came. The same at the
// beginning of a connection to TCP, instead of a handshake, is answered there.
//
//	tag   uint64   random, not zero
//	port  uint16   of UDP; zero: none
//	tcp   uint16   zero, or missing: none; one of the two is not zero
type Echo struct {
	Tag       uint64
	Port, TCP uint16
}

// EchoTag is the size of the tag before an echo.
const EchoTag = 8

// Append appends the FrameEcho.
func (e Echo) Append(b []byte) []byte {
	body := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(nil, e.Tag), e.Port)
	if e.TCP != 0 {
		body = binary.BigEndian.AppendUint16(body, e.TCP)
	}
	return AppendFrame(b, FrameEcho, body...)
}

// ParseEcho reads the body of a FrameEcho.
func ParseEcho(body []byte) (Echo, error) {
	if len(body) < EchoTag+2 {
		return Echo{}, fmt.Errorf("echo: %w", ErrShort)
	}
	e := Echo{Tag: binary.BigEndian.Uint64(body), Port: binary.BigEndian.Uint16(body[EchoTag:])}
	switch rest := body[EchoTag+2:]; {
	case len(rest) >= 2:
		e.TCP = binary.BigEndian.Uint16(rest)
	case len(rest) == 1:
		return Echo{}, fmt.Errorf("echo: %w", ErrShort)
	}
	if e.Tag == 0 || e.Port == 0 && e.TCP == 0 {
		return Echo{}, fmt.Errorf("echo: tag %d, port %d and TCP port %d", e.Tag, e.Port, e.TCP)
	}
	return e, nil
}

// Seek is a letter that looks for its reader: each peer that gets one gives it to
// the reader, when that is connected to it, or else to some of its own peers.
//
//	id      [16]byte   names the meeting, random
//	to      [32]byte   peer id of the reader
//	hops    uint8      over how many more peers it may go, up to MaxHops
//	letter  the rest   sealed; up to MaxLetter bytes
type Seek struct {
	ID     [MeetingID]byte
	To     identity.PeerID
	Hops   uint8
	Letter []byte
}

// Append appends the FrameSeek.
func (s Seek) Append(b []byte) []byte {
	body := append(append([]byte(nil), s.ID[:]...), s.To[:]...)
	return AppendFrame(b, FrameSeek, append(append(body, s.Hops), s.Letter...)...)
}

// ParseSeek reads the body of a FrameSeek, of which Letter is a part.
func ParseSeek(body []byte) (Seek, error) {
	const fixed = MeetingID + identity.IDSize + 1
	if len(body) < fixed {
		return Seek{}, fmt.Errorf("seek: %w", ErrShort)
	}
	s := Seek{ID: [MeetingID]byte(body), To: identity.PeerID(body[MeetingID:]), Hops: body[fixed-1], Letter: body[fixed:]}
	switch {
	case s.Hops > MaxHops:
		return Seek{}, fmt.Errorf("seek: %d hops are over %d", s.Hops, MaxHops)
	case len(s.Letter) == 0 || len(s.Letter) > MaxLetter:
		return Seek{}, fmt.Errorf("seek: a letter of %d bytes is out of bounds", len(s.Letter))
	}
	return s, nil
}

// Reply is a further letter of a meeting: it goes the way that the Seek came, or
// that one again.
//
//	id      [16]byte
//	letter  the rest   sealed; up to MaxLetter bytes
type Reply struct {
	ID     [MeetingID]byte
	Letter []byte
}

// Append appends the FrameReply.
func (r Reply) Append(b []byte) []byte {
	return AppendFrame(b, FrameReply, append(append([]byte(nil), r.ID[:]...), r.Letter...)...)
}

// ParseReply reads the body of a FrameReply, of which Letter is a part.
func ParseReply(body []byte) (Reply, error) {
	if len(body) < MeetingID {
		return Reply{}, fmt.Errorf("reply: %w", ErrShort)
	}
	r := Reply{ID: [MeetingID]byte(body), Letter: body[MeetingID:]}
	if len(r.Letter) == 0 || len(r.Letter) > MaxLetter {
		return Reply{}, fmt.Errorf("reply: a letter of %d bytes is out of bounds", len(r.Letter))
	}
	return r, nil
}

// LetterKind says what a letter is for.
type LetterKind uint8

const (
	LetterOffer  LetterKind = 1 // to the one that is sought
	LetterAnswer LetterKind = 2 // to the one that seeks
	LetterGo     LetterKind = 3 // to the one that is sought: both are ready
)

// Letter is the content of a sealed letter: what two peers that want to meet tell
// each other.
//
//	kind       uint8
//	id         [16]byte  of the meeting, as in Seek
//	written    uint64    milliseconds since 1970-01-01 00:00:00 UTC
//	n          uint8     up to MaxLetterEndpoints
//	endpoints  n times as in a connection info
//	udp, tcp   facts of the NATs, as NAT.Append writes them
//	fields     as in a handshake payload: 1 mapped, see fieldMapped; others are ignored
type Letter struct {
	Kind      LetterKind
	ID        [MeetingID]byte
	Written   uint64
	Endpoints []endpoint.Endpoint
	UDP, TCP  NAT
	Mapped    uint32 // bit i: a router passes on what comes to Endpoints[i]
}

// MaxLetterEndpoints is how many endpoints a letter names.
const MaxLetterEndpoints = 16

// Append appends the letter, with its first MaxLetterEndpoints endpoints.
func (l Letter) Append(b []byte) []byte {
	b = append(b, byte(l.Kind))
	b = append(b, l.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, l.Written)
	eps := l.Endpoints[:min(len(l.Endpoints), MaxLetterEndpoints)]
	b = append(b, byte(len(eps)))
	for _, ep := range eps {
		b = appendEndpoint(b, ep)
	}
	return appendMapped(l.TCP.Append(l.UDP.Append(b)), l.Mapped, len(eps))
}

// ParseLetter reads a letter. Endpoints of unknown transports are left out.
func ParseLetter(b []byte) (Letter, error) {
	const fixed = 1 + MeetingID + 8 + 1
	if len(b) < fixed {
		return Letter{}, fmt.Errorf("letter: %w", ErrShort)
	}
	l := Letter{Kind: LetterKind(b[0]), ID: [MeetingID]byte(b[1:]), Written: binary.BigEndian.Uint64(b[1+MeetingID:])}
	n, rest := int(b[fixed-1]), b[fixed:]
	if l.Kind < LetterOffer || l.Kind > LetterGo {
		return Letter{}, fmt.Errorf("letter: unknown kind %d", l.Kind)
	}
	if n > MaxLetterEndpoints {
		return Letter{}, fmt.Errorf("letter: %d endpoints are over %d", n, MaxLetterEndpoints)
	}
	eps, kept, rest, err := parseEndpoints(rest, n)
	if err != nil {
		return Letter{}, err
	}
	l.Endpoints = eps
	var errUDP, errTCP, errFields error
	if l.UDP, rest, errUDP = ParseNAT(rest); errUDP == nil {
		if l.TCP, rest, errTCP = ParseNAT(rest); errTCP == nil {
			l.Mapped, errFields = parseMapped(rest, kept)
		}
	}
	if err := errors.Join(errUDP, errTCP, errFields); err != nil {
		return Letter{}, fmt.Errorf("letter: %w", err)
	}
	return l, nil
}
