package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// STUN is a protocol that is not ours (RFC 8489): servers that tell from where a
// datagram came. It is in clear and its answers prove nothing but that they come from
// somebody who has seen the question.

// STUNType is the type of a message: its class and its method, which is Binding.
type STUNType uint16

const (
	STUNRequest STUNType = 0x0001
	STUNSuccess STUNType = 0x0101
	STUNError   STUNType = 0x0111
)

// Specification constants (RFC 8489 sections 5 and 14, RFC 5780 section 7).
const (
	// STUNID is the size of a transaction id.
	STUNID = 12

	stunHeader      = 20
	stunCookie      = 0x2112A442
	stunFingerprint = 0x5354554e // what the CRC of a message is XORed with
	stunIPv4        = 1
	stunIPv6        = 2

	stunMapped    = 0x0001
	stunChange    = 0x0003
	stunChanged   = 0x0005 // CHANGED-ADDRESS of RFC 3489, which OTHER-ADDRESS is
	stunErrorCode = 0x0009
	stunUnknown   = 0x000a
	stunXORMapped = 0x0020
	stunOptional  = 0x8000 // from here on attributes may be ignored
	stunCRC       = 0x8028
	stunOther     = 0x802c

	changeIP   = 4
	changePort = 2
)

// MaxSTUN is the largest message that is read, in bytes.
const MaxSTUN = 1500

// maxSTUNReason bounds the text of an error (RFC 8489 section 14.8).
const maxSTUNReason = 763

// ErrSTUN means that a datagram is no STUN message of the Binding method, or a
// malformed one.
var ErrSTUN = errors.New("no STUN message")

// STUN is a Binding message.
type STUN struct {
	Type STUNType
	ID   [STUNID]byte
	// Mapped is where the request came from, in an answer.
	Mapped netip.AddrPort
	// Other is another address and another port of the server, of an answer: it
	// answers at each pair of both (RFC 5780).
	Other netip.AddrPort
	// ChangeIP and ChangePort ask the server to answer from Other's address and port.
	ChangeIP, ChangePort bool
	// Code and Reason say why, of an error: from 300 to 699.
	Code   int
	Reason string
	// Unknown is an attribute that must be understood and is not, zero for none. An
	// answer that has one is of no use (RFC 8489 section 6.3.3).
	Unknown uint16
}

// Append appends the message, with Mapped as XOR-MAPPED-ADDRESS, and without Unknown.
//
//	type    uint16
//	length  uint16     of the attributes
//	cookie  uint32     0x2112A442
//	id      [12]byte
//	attributes, each   type uint16, length uint16, value, padding to 4 bytes
func (m STUN) Append(b []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Type))
	b = binary.BigEndian.AppendUint32(append(b, 0, 0), stunCookie)
	b = append(b, m.ID[:]...)
	if m.ChangeIP || m.ChangePort {
		flags := byte(0)
		if m.ChangeIP {
			flags |= changeIP
		}
		if m.ChangePort {
			flags |= changePort
		}
		b = append(stunAttribute(b, stunChange, 4), 0, 0, 0, flags)
	}
	if m.Mapped.IsValid() {
		b = appendSTUNAddr(b, stunXORMapped, m.xor(unmapped(m.Mapped)))
	}
	if m.Other.IsValid() {
		b = appendSTUNAddr(b, stunOther, unmapped(m.Other))
	}
	if m.Type == STUNError {
		reason := m.Reason[:min(len(m.Reason), maxSTUNReason)]
		b = append(stunAttribute(b, stunErrorCode, 4+len(reason)), 0, 0, byte(m.Code/100), byte(m.Code%100))
		b = append(b, reason...)
		b = append(b, make([]byte, -len(reason)&3)...)
	}
	binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at-stunHeader))
	return b
}

func stunAttribute(b []byte, kind uint16, size int) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, kind), uint16(size))
}

func appendSTUNAddr(b []byte, kind uint16, at netip.AddrPort) []byte {
	addr, family := at.Addr().AsSlice(), byte(stunIPv4)
	if len(addr) == 16 {
		family = stunIPv6
	}
	b = append(stunAttribute(b, kind, 4+len(addr)), 0, family)
	return append(binary.BigEndian.AppendUint16(b, at.Port()), addr...)
}

// unmapped returns an address in IPv6's form for IPv4 as one of IPv4.
func unmapped(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// xor changes an address as XOR-MAPPED-ADDRESS has it, and back.
func (m *STUN) xor(at netip.AddrPort) netip.AddrPort {
	key := append(binary.BigEndian.AppendUint32(nil, stunCookie), m.ID[:]...)
	addr := at.Addr().AsSlice()
	for i := range addr {
		addr[i] ^= key[i]
	}
	out, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(out, at.Port()^stunCookie>>16)
}

// ParseSTUN reads one message, which must be all of b. Attributes that it does not
// know and need not are left out; of one that comes twice the first counts. Its error
// wraps ErrSTUN.
func ParseSTUN(b []byte) (STUN, error) {
	bad := func(format string, args ...any) (STUN, error) {
		return STUN{}, fmt.Errorf("%w: "+format, append([]any{ErrSTUN}, args...)...)
	}
	if len(b) < stunHeader || len(b) > MaxSTUN {
		return bad("%d bytes", len(b))
	}
	m := STUN{Type: STUNType(binary.BigEndian.Uint16(b)), ID: [STUNID]byte(b[8:])}
	size := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case binary.BigEndian.Uint32(b[4:]) != stunCookie:
		return bad("another cookie")
	case m.Type != STUNRequest && m.Type != STUNSuccess && m.Type != STUNError:
		return bad("type %#04x", uint16(m.Type))
	case size != len(b)-stunHeader || size%4 != 0:
		return bad("attributes of %d bytes in %d", size, len(b)-stunHeader)
	}
	var seen [6]bool
	for rest := b[stunHeader:]; len(rest) > 0; {
		kind, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		padded := (n + 3) &^ 3
		if len(rest) < 4+padded {
			return bad("attribute %#04x of %d bytes ends too early", kind, n)
		}
		at := len(b) - len(rest)
		if err := m.attribute(kind, rest[4:4+n], b[:at], &seen); err != nil {
			return bad("attribute %#04x: %w", kind, err)
		}
		rest = rest[4+padded:]
		if kind == stunCRC && len(rest) > 0 {
			return bad("%d bytes behind the fingerprint", len(rest))
		}
	}
	if m.Type == STUNError && m.Code == 0 {
		return bad("an error without a code")
	}
	return m, nil
}

// attribute takes one attribute; before is the message up to it.
func (m *STUN) attribute(kind uint16, v, before []byte, seen *[6]bool) error {
	again := func(i int) bool {
		was := seen[i]
		seen[i] = true
		return was
	}
	switch kind {
	case stunXORMapped, stunMapped:
		at, err := parseSTUNAddr(v)
		if err != nil {
			return err
		}
		if kind == stunXORMapped && !again(0) {
			m.Mapped = unmapped(m.xor(at))
		} else if kind == stunMapped && !again(1) && !seen[0] {
			m.Mapped = unmapped(at) // of a server that is older than RFC 5389
		}
	case stunOther, stunChanged:
		at, err := parseSTUNAddr(v)
		if err != nil {
			return err
		}
		if !again(2) {
			m.Other = unmapped(at)
		}
	case stunChange:
		if len(v) != 4 {
			return fmt.Errorf("%d bytes", len(v))
		}
		if !again(3) {
			m.ChangeIP, m.ChangePort = v[3]&changeIP != 0, v[3]&changePort != 0
		}
	case stunErrorCode:
		if len(v) < 4 || v[2]&7 < 3 || v[2]&7 > 6 || v[3] > 99 || len(v) > 4+maxSTUNReason {
			return errors.New("no error code")
		}
		if !again(4) {
			m.Code, m.Reason = int(v[2]&7)*100+int(v[3]), string(v[4:])
		}
	case stunCRC:
		// It is counted in the message's length already (RFC 8489 section 14.7).
		if len(v) != 4 || binary.BigEndian.Uint32(v) != crc32.ChecksumIEEE(before)^stunFingerprint {
			return errors.New("a wrong fingerprint")
		}
	default:
		if kind < stunOptional && !stunIgnored(kind) && !again(5) {
			m.Unknown = kind
		}
	}
	return nil
}

// stunIgnored reports whether an attribute says nothing that changes the meaning of
// the others: what of credentials, which we have none to check, and of older servers.
func stunIgnored(kind uint16) bool {
	switch kind {
	case 0x0004, // SOURCE-ADDRESS of RFC 3489
		0x0006, 0x0008, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e, // USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH
		stunUnknown:
		return true
	}
	return false
}

func parseSTUNAddr(v []byte) (netip.AddrPort, error) {
	if len(v) < 4 || v[1] == stunIPv4 && len(v) != 4+4 || v[1] == stunIPv6 && len(v) != 4+16 || v[1] != stunIPv4 && v[1] != stunIPv6 {
		return netip.AddrPort{}, fmt.Errorf("%d bytes are no address", len(v))
	}
	addr, _ := netip.AddrFromSlice(v[4:])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(v[2:])), nil
}
