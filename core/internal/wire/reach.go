package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Reach asks the receiver to send one probe of kind ProbeReach with the nonce, once,
// from a socket that has sent nothing before, to a port at the address that the
// sender's link comes from: by UDP, or as the first bytes of a TCP connection. Whether
// it arrives shows what the sender's NAT lets in. No other address can be asked for.
//
//	nonce      [16]byte  random
//	transport  uint8     as in an endpoint: TCP or uTP, which means UDP
//	port       uint16    not zero
type Reach struct {
	Nonce     [ProbeNonce]byte
	Transport endpoint.Transport
	Port      uint16
}

// Append appends the FrameReach.
func (r Reach) Append(b []byte) []byte {
	body := append(append([]byte(nil), r.Nonce[:]...), byte(r.Transport))
	return AppendFrame(b, FrameReach, binary.BigEndian.AppendUint16(body, r.Port)...)
}

// ParseReach reads the body of a FrameReach.
func ParseReach(body []byte) (Reach, error) {
	if len(body) < ProbeNonce+3 {
		return Reach{}, fmt.Errorf("reach: %w", ErrShort)
	}
	r := Reach{
		Nonce: [ProbeNonce]byte(body), Transport: endpoint.Transport(body[ProbeNonce]), Port: binary.BigEndian.Uint16(body[ProbeNonce+1:]),
	}
	if r.Port == 0 {
		return Reach{}, fmt.Errorf("reach: port 0")
	}
	return r, nil
}

// ReachResult says what became of a Reach. Numbers are append-only; an unknown one
// means that it was not done.
type ReachResult uint8

const (
	ReachDone    ReachResult = 0 // the one attempt was made, however it ended
	ReachOff     ReachResult = 1 // the receiver does nothing for others
	ReachLimit   ReachResult = 2 // too many, for that peer, that address or altogether
	ReachCannot  ReachResult = 3 // not by this transport, or not to that address
	reachResults             = 4
)

// Reached answers a Reach, after the attempt.
//
//	nonce    [16]byte
//	result   uint8
//	from     uint16    when it was done: the port that it was sent from, at which one
//	                   echo is answered for a moment; 0 when none is
//	address  4 or 16 bytes, missing unless it was done: to which it was sent
type Reached struct {
	Nonce  [ProbeNonce]byte
	Result ReachResult
	From   uint16
	To     netip.Addr
}

// Append appends the FrameReached.
func (r Reached) Append(b []byte) []byte {
	body := append(append([]byte(nil), r.Nonce[:]...), byte(r.Result))
	body = binary.BigEndian.AppendUint16(body, r.From)
	if r.To.IsValid() {
		body = append(body, r.To.Unmap().AsSlice()...)
	}
	return AppendFrame(b, FrameReached, body...)
}

// ParseReached reads the body of a FrameReached.
func ParseReached(body []byte) (Reached, error) {
	const fixed = ProbeNonce + 1 + 2
	if len(body) < fixed {
		return Reached{}, fmt.Errorf("reached: %w", ErrShort)
	}
	r := Reached{Nonce: [ProbeNonce]byte(body), Result: ReachResult(body[ProbeNonce]), From: binary.BigEndian.Uint16(body[ProbeNonce+1:])}
	r.Result = min(r.Result, reachResults-1)
	switch n := len(body) - fixed; {
	case n != 0 && n != 4 && n != 16:
		return Reached{}, fmt.Errorf("reached: an address of %d bytes", n)
	case n > 0:
		addr, _ := netip.AddrFromSlice(body[fixed:])
		r.To = addr.Unmap()
	case r.Result == ReachDone:
		return Reached{}, fmt.Errorf("reached: done without an address")
	}
	return r, nil
}
