package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Depends says on what of the other end a NAT's mapping or filtering depends, in
// the words of RFC 4787 sections 4.1 and 5 and RFC 5780.
type Depends uint8

const (
	DependsUnknown       Depends = 0 // not found out
	EndpointIndependent  Depends = 1 // on nothing
	AddressDependent     Depends = 2 // on its address
	AddressPortDependent Depends = 3 // on its address and port
)

// PortRule says how a NAT chooses the external port of a new mapping.
type PortRule uint8

const (
	PortsUnknown    PortRule = 0
	PortsPreserving PortRule = 1 // the internal port, where that is free
	PortsSequential PortRule = 2 // the last one and Step
	PortsBlock      PortRule = 3 // any of Low to High
	PortsRandom     PortRule = 4 // any
)

// NAT is what a peer knows of the translation between one of its sockets and the
// other peers, of one transport protocol and address family. The zero value knows
// nothing. A peer without a NAT has PortsPreserving, EndpointIndependent mapping, and
// an External address of its own.
type NAT struct {
	Mapping   Depends
	Filtering Depends
	Ports     PortRule
	Hairpin   bool // a packet to its own external endpoint comes back to it
	Double    bool // there is a second NAT behind the first
	// Openers says that the peer opens its NAT by packets which do not travel far,
	// before it answers a letter: what comes then meets a NAT that is ready.
	Openers bool
	// Agreed says that observers in several networks agree on External's address. Of
	// one that nobody but a single observer has told, a reader makes less use.
	Agreed bool
	// Step is between two mappings made one after the other, for PortsSequential; it
	// is not zero then. Rate is how many mappings of others come in between, in tenths a second.
	Step int16
	Rate uint16
	// Low and High bound the ports, for PortsBlock.
	Low, High uint16
	// External is the socket's endpoint as last seen by others; for mappings that
	// depend on the other end it is the newest one. Age is how many milliseconds ago
	// that was when the peer wrote this.
	External netip.AddrPort
	Age      uint32
}

const (
	natFixed = 1 + 1 + 2 + 2 + 2 + 2 + 4 + 1
	// MaxNAT is the largest size of an encoded NAT.
	MaxNAT = natFixed + 16 + 2
)

// Append appends
//
//	kinds    uint8   mapping, filtering and ports, of 2, 2 and 3 bits from the lowest on
//	flags    uint8   1 hairpin, 2 double, 4 openers, 8 agreed
//	step     int16
//	rate     uint16
//	low      uint16
//	high     uint16
//	age      uint32
//	size     uint8   0 (no external endpoint), 4 or 16
//	address  [size]byte
//	port     uint16  missing when size is 0
func (n NAT) Append(b []byte) []byte {
	flags := byte(0)
	if n.Hairpin {
		flags |= 1
	}
	if n.Double {
		flags |= 2
	}
	if n.Openers {
		flags |= 4
	}
	if n.Agreed {
		flags |= 8
	}
	b = append(b, byte(n.Mapping)&3|byte(n.Filtering)&3<<2|byte(n.Ports)&7<<4, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(n.Step))
	b = binary.BigEndian.AppendUint16(b, n.Rate)
	b = binary.BigEndian.AppendUint16(b, n.Low)
	b = binary.BigEndian.AppendUint16(b, n.High)
	b = binary.BigEndian.AppendUint32(b, n.Age)
	if !n.External.IsValid() {
		return append(b, 0)
	}
	addr := n.External.Addr().Unmap().AsSlice()
	b = append(append(b, byte(len(addr))), addr...)
	return binary.BigEndian.AppendUint16(b, n.External.Port())
}

// ParseNAT reads what Append wrote, and returns what follows it. Kinds and flags of
// later versions are taken for unknown.
func ParseNAT(b []byte) (n NAT, rest []byte, err error) {
	if len(b) < natFixed {
		return NAT{}, nil, fmt.Errorf("facts of a NAT: %w", ErrShort)
	}
	n = NAT{
		Mapping: Depends(b[0] & 3), Filtering: Depends(b[0] >> 2 & 3), Ports: PortRule(b[0] >> 4 & 7),
		Hairpin: b[1]&1 != 0, Double: b[1]&2 != 0, Openers: b[1]&4 != 0, Agreed: b[1]&8 != 0,
		Step: int16(binary.BigEndian.Uint16(b[2:])), Rate: binary.BigEndian.Uint16(b[4:]),
		Low: binary.BigEndian.Uint16(b[6:]), High: binary.BigEndian.Uint16(b[8:]), Age: binary.BigEndian.Uint32(b[10:]),
	}
	size := int(b[natFixed-1])
	b = b[natFixed:]
	switch {
	case size != 0 && size != 4 && size != 16:
		return NAT{}, nil, fmt.Errorf("facts of a NAT: an address of %d bytes", size)
	case size > 0 && len(b) < size+2:
		return NAT{}, nil, fmt.Errorf("facts of a NAT: %w", ErrShort)
	case size > 0:
		addr, _ := netip.AddrFromSlice(b[:size])
		n.External = netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(b[size:]))
		b = b[size+2:]
	}
	switch {
	case n.Ports > PortsRandom:
		n.Ports = PortsUnknown
	case n.Ports == PortsSequential && n.Step == 0:
		return NAT{}, nil, fmt.Errorf("facts of a NAT: sequential ports with step 0")
	case n.Ports == PortsBlock && n.Low > n.High:
		return NAT{}, nil, fmt.Errorf("facts of a NAT: a block of ports from %d to %d", n.Low, n.High)
	}
	return n, b, nil
}
