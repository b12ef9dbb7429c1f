package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Info is a connection info: what one peer gives another out of band.
//
//	version   uint8      InfoVersion
//	peer      [32]byte
//	expires   uint64     seconds since 1970
//	nonce     [16]byte   random, so that no two infos are equal
//	n         uint8      up to MaxEndpoints
//	endpoints n times: transport uint8, size uint8 (4 or 16), address, port uint16
//	fields    as in a handshake payload: 1 mapped, see fieldMapped; 2 facts of the NATs;
//	          others are ignored
//	signature [64]byte   Ed25519 by peer, of InfoContext and all before it
type Info struct {
	Peer      identity.PeerID
	Expires   uint64
	Nonce     [16]byte
	Endpoints []endpoint.Endpoint
	Mapped    uint32 // bit i: a router passes on what comes to Endpoints[i]
	UDP, TCP  NAT    // before the UDP socket and the TCP listener, as they were then
}

// fieldFacts is the tag of the field with both, UDP first, each as NAT.Append writes
// it. It is left out when neither has an external endpoint.
const fieldFacts = 2

// InfoVersion is the version of the form above.
const InfoVersion = 1

// InfoContext goes before the signed bytes, so that a signature of one thing is
// never one of another.
const InfoContext = "libcrust/1 connection info\x00"

// Append appends the info, signed by sign.
func (i Info) Append(b []byte, sign func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, InfoVersion)
	b = append(b, i.Peer[:]...)
	b = binary.BigEndian.AppendUint64(b, i.Expires)
	b = append(b, i.Nonce[:]...)
	eps := i.Endpoints[:min(len(i.Endpoints), MaxEndpoints)]
	b = append(b, byte(len(eps)))
	for _, ep := range eps {
		b = appendEndpoint(b, ep)
	}
	b = appendMapped(b, i.Mapped, len(eps))
	if i.UDP.External.IsValid() || i.TCP.External.IsValid() {
		b = appendField(b, fieldFacts, i.TCP.Append(i.UDP.Append(nil)))
	}
	return append(b, sign(append([]byte(InfoContext), b[start:]...))...)
}

// ParseInfo reads an info and checks its signature; whether it has expired is
// for the caller, who has a clock. Endpoints of unknown transports are left out.
func ParseInfo(b []byte) (Info, error) {
	const fixed = 1 + identity.IDSize + 8 + 16 + 1
	switch {
	case len(b) > MaxInfo:
		return Info{}, fmt.Errorf("connection info of %d bytes is over %d", len(b), MaxInfo)
	case len(b) < fixed+identity.SignatureSize:
		return Info{}, fmt.Errorf("connection info: %w", ErrShort)
	case b[0] != InfoVersion:
		return Info{}, fmt.Errorf("connection info of version %d, want %d", b[0], InfoVersion)
	}
	signed, signature := b[:len(b)-identity.SignatureSize], b[len(b)-identity.SignatureSize:]
	i := Info{Peer: identity.PeerID(b[1:33]), Expires: binary.BigEndian.Uint64(b[33:]), Nonce: [16]byte(b[41:57])}
	rest := signed[fixed:]
	if int(b[57]) > MaxEndpoints {
		return Info{}, fmt.Errorf("connection info with %d endpoints is over %d", b[57], MaxEndpoints)
	}
	eps, kept, rest, err := parseEndpoints(rest, int(b[57]))
	if err == nil {
		i.Endpoints = eps
		i.Mapped, err = parseMapped(rest, kept)
	}
	if err == nil {
		err = i.parseFacts(rest)
	}
	if err != nil {
		return Info{}, fmt.Errorf("connection info: %w", err)
	}
	if !i.Peer.Verify(append([]byte(InfoContext), signed...), signature) {
		return Info{}, errors.New("connection info: its signature is not the peer's")
	}
	return i, nil
}

// parseFacts reads the facts of the NATs in the fields of an info.
func (i *Info) parseFacts(rest []byte) error {
	return fields(rest, func(tag uint8, v []byte) (err error) {
		if tag != fieldFacts {
			return nil
		}
		if i.UDP, v, err = ParseNAT(v); err == nil {
			i.TCP, v, err = ParseNAT(v)
		}
		if err == nil && len(v) > 0 {
			err = fmt.Errorf("facts of the NATs with %d bytes behind them", len(v))
		}
		return err
	})
}

func appendEndpoint(b []byte, ep endpoint.Endpoint) []byte {
	addr := ep.Addr.Addr().AsSlice()
	b = append(b, byte(ep.Transport), byte(len(addr)))
	b = append(b, addr...)
	return binary.BigEndian.AppendUint16(b, ep.Addr.Port())
}

func parseEndpoint(b []byte) (endpoint.Endpoint, []byte, error) {
	if len(b) < 2 {
		return endpoint.Endpoint{}, nil, fmt.Errorf("endpoint: %w", ErrShort)
	}
	t, n := endpoint.Transport(b[0]), int(b[1])
	if n != 4 && n != 16 {
		return endpoint.Endpoint{}, nil, fmt.Errorf("endpoint: an address of %d bytes", n)
	}
	if len(b) < 2+n+2 {
		return endpoint.Endpoint{}, nil, fmt.Errorf("endpoint: %w", ErrShort)
	}
	addr, _ := netip.AddrFromSlice(b[2 : 2+n])
	port := binary.BigEndian.Uint16(b[2+n:])
	return endpoint.New(t, netip.AddrPortFrom(addr, port)), b[4+n:], nil
}
