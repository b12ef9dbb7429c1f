package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Numbers of RFC 6887.
const (
	pcpVersion      = 2  // section 7.1
	pcpHeader       = 24 // bytes of either header, sections 7.1 and 7.2
	pcpMapSize      = 36 // bytes of the MAP data, section 11.1
	pcpMaxSize      = 1100
	pcpResponse     = 0x80 // the R bit beside the opcode
	pcpAnnounce     = 0    // section 14.1
	pcpMap          = 1    // section 11
	pcpPreferFail   = 2    // option PREFER_FAILURE, section 13.2
	serverPort      = 5351 // PCP and NAT-PMP servers, section 19.1
	announcePort    = 5350 // clients hear announcements here
	pcpNonceSize    = 12
	ianaTCP         = 6
	ianaUDP         = 17
	pcpMaxErrorLife = 3600 // seconds; an error may say longer, and is not believed
)

// pcpResult is a result code of RFC 6887, section 7.4.
type pcpResult uint8

const (
	pcpSuccess       pcpResult = 0
	pcpUnsuppVersion pcpResult = 1
	pcpNotAuthorized pcpResult = 2
	pcpUnsuppOpcode  pcpResult = 4
	pcpUnsuppOption  pcpResult = 5
	pcpNetFailure    pcpResult = 7
	pcpNoResources   pcpResult = 8
	pcpUnsuppProto   pcpResult = 9
	pcpQuota         pcpResult = 10
	pcpCannotProvide pcpResult = 11
	pcpMismatch      pcpResult = 12
)

// err returns what a result means to us, nil for success.
func (r pcpResult) err() error {
	var cause error
	switch r {
	case pcpSuccess:
		return nil
	case pcpNotAuthorized:
		cause = ErrRefused
	case pcpNetFailure:
		cause = ErrNoExternal
	case pcpNoResources, pcpQuota:
		cause = ErrResources
	case pcpCannotProvide:
		cause = ErrConflict
	default:
		cause = ErrUnsupported
	}
	return fmt.Errorf("PCP result %d: %w", uint8(r), cause)
}

// nonce is the mapping nonce of RFC 6887, section 11.1.
type nonce [pcpNonceSize]byte

// pcpRequest is a MAP request, or an ANNOUNCE when Announce is set.
type pcpRequest struct {
	Announce      bool
	Client        netip.Addr // the address that it is sent from
	Lifetime      uint32     // seconds, 0 gives the mapping back
	Nonce         nonce
	Protocol      Protocol
	Internal      uint16
	External      netip.AddrPort // suggested; zero: any
	PreferFailure bool           // that external port or none
}

// appendPCPRequest appends a request, 24 to 64 bytes.
func appendPCPRequest(b []byte, r pcpRequest) []byte {
	op := byte(pcpMap)
	if r.Announce {
		op, r.Lifetime = pcpAnnounce, 0
	}
	b = append(b, pcpVersion, op, 0, 0)
	b = binary.BigEndian.AppendUint32(b, r.Lifetime)
	b = append16(b, r.Client)
	if r.Announce {
		return b
	}
	b = append(b, r.Nonce[:]...)
	b = append(b, r.Protocol.iana(), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, r.Internal)
	b = binary.BigEndian.AppendUint16(b, r.External.Port())
	external := r.External.Addr()
	if !external.IsValid() {
		// All zeros of the family that is asked for, section 11.1.
		external = netip.IPv6Unspecified()
		if r.Client.Is4() {
			external = netip.IPv4Unspecified()
		}
	}
	b = append16(b, external)
	if r.PreferFailure {
		b = append(b, pcpPreferFail, 0, 0, 0)
	}
	return b
}

// append16 appends an address in 16 bytes, IPv4 mapped into IPv6.
func append16(b []byte, a netip.Addr) []byte {
	octets := a.As16()
	return append(b, octets[:]...)
}

// pcpAnswer is a response to a MAP or an ANNOUNCE request.
type pcpAnswer struct {
	Announce bool
	Result   pcpResult
	Lifetime uint32 // seconds; of a failure: for how long it holds
	Epoch    uint32 // seconds since the server lost its state
	// Of MAP only:
	Nonce    nonce
	Protocol Protocol
	Internal uint16
	External netip.AddrPort
}

// errFormat means that bytes are no message of the protocol.
var errFormat = errors.New("malformed")

// parsePCPAnswer parses a response. Answers to other opcodes, of other versions
// and of other lengths than RFC 6887 allows are errFormat, but for the answer of a
// server of another version, which has no more than a header: its Result is
// pcpUnsuppVersion. Options are skipped.
func parsePCPAnswer(b []byte) (pcpAnswer, error) {
	if len(b) < pcpHeader || len(b) > pcpMaxSize || len(b)%4 != 0 || b[1]&pcpResponse == 0 {
		return pcpAnswer{}, errFormat
	}
	a := pcpAnswer{
		Result:   pcpResult(b[3]),
		Lifetime: binary.BigEndian.Uint32(b[4:]),
		Epoch:    binary.BigEndian.Uint32(b[8:]),
	}
	if b[0] != pcpVersion {
		if b[0] > pcpVersion && a.Result == pcpUnsuppVersion {
			return pcpAnswer{Result: pcpUnsuppVersion}, nil
		}
		return pcpAnswer{}, errFormat
	}
	switch b[1] &^ pcpResponse {
	case pcpAnnounce:
		a.Announce = true
		return a, nil
	case pcpMap:
	default:
		return pcpAnswer{}, errFormat
	}
	data := b[pcpHeader:]
	if len(data) < pcpMapSize {
		return pcpAnswer{}, errFormat
	}
	copy(a.Nonce[:], data)
	switch data[12] {
	case ianaTCP:
		a.Protocol = TCP
	case ianaUDP:
		a.Protocol = UDP
	default:
		return pcpAnswer{}, errFormat
	}
	a.Internal = binary.BigEndian.Uint16(data[16:])
	addr := netip.AddrFrom16([16]byte(data[20:36])).Unmap()
	a.External = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(data[18:]))
	return a, nil
}
