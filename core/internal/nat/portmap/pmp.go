package portmap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Numbers of RFC 6886.
const (
	pmpExternal     = 0   // opcode, section 3.2
	pmpMapUDP       = 1   // section 3.3
	pmpMapTCP       = 2   // section 3.3
	pmpResponse     = 128 // added to the opcode in answers, section 3.5
	pmpMapSize      = 12  // bytes of a mapping request
	pmpExternalSize = 12  // bytes of an answer with the external address
	pmpAnswerSize   = 16  // bytes of an answer to a mapping request
)

// pmpResult is a result code of RFC 6886, section 3.5.
type pmpResult uint16

func (r pmpResult) err() error {
	var cause error
	switch r {
	case 0:
		return nil
	case 2:
		cause = ErrRefused
	case 3:
		cause = ErrNoExternal
	case 4:
		cause = ErrResources
	default: // 1: the version, 5: the opcode
		cause = ErrUnsupported
	}
	return fmt.Errorf("NAT-PMP result %d: %w", uint16(r), cause)
}

// pmpRequest asks for the external address when Port is 0, else for a mapping, or
// with a Lifetime of 0 for the end of it.
type pmpRequest struct {
	Protocol Protocol
	Port     uint16 // internal
	External uint16 // suggested; 0 any
	Lifetime uint32 // seconds
}

// appendPMPRequest appends a request of 2 or 12 bytes.
func appendPMPRequest(b []byte, r pmpRequest) []byte {
	if r.Port == 0 {
		return append(b, 0, pmpExternal)
	}
	b = append(b, 0, r.Protocol.pmp(), 0, 0)
	b = binary.BigEndian.AppendUint16(b, r.Port)
	b = binary.BigEndian.AppendUint16(b, r.External)
	return binary.BigEndian.AppendUint32(b, r.Lifetime)
}

// pmpAnswer is the answer to a request. Of a failure only Result and Epoch count,
// and Port when the server says it.
type pmpAnswer struct {
	Result   pmpResult
	Epoch    uint32 // seconds since the server lost its state
	Address  netip.Addr
	Protocol Protocol
	Port     uint16 // internal; 0: this is about the external address
	External uint16
	Lifetime uint32 // seconds
}

// parsePMPAnswer parses an answer. What is no NAT-PMP answer of the right length
// is errFormat; the failures of some servers end after the epoch and are taken.
func parsePMPAnswer(b []byte) (pmpAnswer, error) {
	if len(b) < 8 || b[0] != 0 || b[1] < pmpResponse || b[1] > pmpResponse+pmpMapTCP {
		return pmpAnswer{}, errFormat
	}
	a := pmpAnswer{Result: pmpResult(binary.BigEndian.Uint16(b[2:])), Epoch: binary.BigEndian.Uint32(b[4:])}
	switch b[1] - pmpResponse {
	case pmpMapUDP:
		a.Protocol = UDP
	case pmpMapTCP:
		a.Protocol = TCP
	}
	switch {
	case a.Protocol == 0 && len(b) == pmpExternalSize:
		a.Address = netip.AddrFrom4([4]byte(b[8:12]))
	case a.Protocol != 0 && len(b) == pmpAnswerSize:
		a.Port = binary.BigEndian.Uint16(b[8:])
		a.External = binary.BigEndian.Uint16(b[10:])
		a.Lifetime = binary.BigEndian.Uint32(b[12:])
	case a.Result != 0 && len(b) == 8:
	default:
		return pmpAnswer{}, errFormat
	}
	return a, nil
}
