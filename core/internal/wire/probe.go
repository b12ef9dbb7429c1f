package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// ProbeKind says what a probe is for.
type ProbeKind uint8

const (
	ProbeAsk      ProbeKind = 1 // does this pair of endpoints work?
	ProbeAnswer   ProbeKind = 2 // something of yours came by this pair
	ProbeNominate ProbeKind = 3 // this pair is chosen; said back as confirmation
	ProbeReach    ProbeKind = 4 // what a Reach has asked for
	ProbePad      ProbeKind = 5 // pays for what the other side sends: goes as a letter, never as a datagram
)

// ProbeNonce is the size of what a ProbeReach carries.
const ProbeNonce = 16

// Probe is the content of a datagram by which two peers find out which of their
// endpoints reach each other. It is sealed under a key that only the two have.
//
//	kind    uint8
//	larger  uint8   1 when the sender's peer id is the larger one
//	token   uint64  of a pad its number; else what is to come back from where the probe goes
//	echo    uint64  the last token that came from there; 0: none
//	size    uint8   0, 4 or 16
//	address, port   of the datagram that is answered, as it came here
//	nonce   [16]byte of the Reach; missing in other kinds
//	padding         the rest, ignored
type Probe struct {
	Kind   ProbeKind
	Larger bool
	Token  uint64
	Echo   uint64
	Seen   netip.AddrPort // zero unless it answers
	Nonce  [ProbeNonce]byte
}

const (
	probeFixed = 1 + 1 + 8 + 8 + 1
	// MaxProbe is the largest size of an encoded Probe without padding.
	MaxProbe = probeFixed + 16 + 2 + ProbeNonce
)

// Append appends the probe.
func (p Probe) Append(b []byte) []byte {
	larger := byte(0)
	if p.Larger {
		larger = 1
	}
	b = append(b, byte(p.Kind), larger)
	b = binary.BigEndian.AppendUint64(b, p.Token)
	b = binary.BigEndian.AppendUint64(b, p.Echo)
	if p.Seen.IsValid() {
		addr := p.Seen.Addr().Unmap().AsSlice()
		b = append(append(b, byte(len(addr))), addr...)
		b = binary.BigEndian.AppendUint16(b, p.Seen.Port())
	} else {
		b = append(b, 0)
	}
	if p.Kind == ProbeReach {
		b = append(b, p.Nonce[:]...)
	}
	return b
}

// ParseProbe reads a probe and its padding.
func ParseProbe(b []byte) (Probe, error) {
	if len(b) < probeFixed {
		return Probe{}, fmt.Errorf("probe: %w", ErrShort)
	}
	p := Probe{Kind: ProbeKind(b[0]), Larger: b[1] == 1, Token: binary.BigEndian.Uint64(b[2:]), Echo: binary.BigEndian.Uint64(b[10:])}
	size, rest := int(b[probeFixed-1]), b[probeFixed:]
	switch {
	case p.Kind < ProbeAsk || p.Kind > ProbePad:
		return Probe{}, fmt.Errorf("probe: unknown kind %d", p.Kind)
	case b[1] > 1:
		return Probe{}, fmt.Errorf("probe: a side %d", b[1])
	case size != 0 && size != 4 && size != 16:
		return Probe{}, fmt.Errorf("probe: an address of %d bytes", size)
	case size > 0 && len(rest) < size+2:
		return Probe{}, fmt.Errorf("probe: %w", ErrShort)
	case size > 0:
		addr, _ := netip.AddrFromSlice(rest[:size])
		p.Seen = netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(rest[size:]))
		rest = rest[size+2:]
	}
	if p.Kind == ProbeReach {
		if len(rest) < ProbeNonce {
			return Probe{}, fmt.Errorf("probe: %w", ErrShort)
		}
		p.Nonce = [ProbeNonce]byte(rest)
	}
	return p, nil
}
