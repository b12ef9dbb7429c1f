package linklab

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/tests/natsim"
)

// NAT describes one. It looks at UDP and TCP; all else, fragments and ICMP too, it
// drops.
type NAT = natsim.Config

// Depends says on what of the other end a mapping or a filter depends.
type Depends = natsim.Depends

// The ways of Depends.
const (
	Independent   = natsim.Independent
	OnAddress     = natsim.OnAddress
	OnAddressPort = natsim.OnAddressPort
)

// ParseNAT reads words as natsim.Parse has them: "home", "symmetric",
// "mapping=address", "strangers=refuse".
func ParseNAT(words ...string) (*NAT, error) {
	n, err := natsim.Parse(words...)
	if err != nil {
		return nil, err
	}
	return &n, nil
}

// ports returns protocol and both ends of a packet that a NAT can look at.
func ports(p []byte) (protocol byte, from, to netip.AddrPort, segment []byte, ok bool) {
	source, destination, ok := addresses(p)
	if !ok {
		return
	}
	header := ipv6Header
	if p[0]>>4 == 4 {
		if header = int(p[0]&15) * 4; header < ipv4Header || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
			return 0, from, to, nil, false // a fragment, or no packet at all
		}
		protocol = p[9]
	} else {
		protocol = p[6]
	}
	if len(p) < header+8 || protocol != protocolUDP && (protocol != protocolTCP || len(p) < header+20) {
		return 0, from, to, nil, false
	}
	segment = p[header:]
	from = netip.AddrPortFrom(source, binary.BigEndian.Uint16(segment))
	to = netip.AddrPortFrom(destination, binary.BigEndian.Uint16(segment[2:]))
	return protocol, from, to, segment, true
}

// translate has a NAT decide about a packet from inside or outside, and changes the
// packet if it passes.
func translate(n *natsim.NAT, now time.Time, p []byte, out bool) natsim.Result {
	protocol, from, to, segment, ok := ports(p)
	if !ok {
		return natsim.Result{}
	}
	packet := natsim.Packet{Protocol: natsim.Protocol(protocol), From: from, To: to}
	if protocol == protocolTCP {
		packet.Flags, packet.Seq = natsim.Flags(segment[13]), binary.BigEndian.Uint32(segment[4:])
	}
	decide := n.In
	if out {
		decide = n.Out
	}
	r := decide(now, packet)
	if r.Pass && r.Packet.From != from {
		rewrite(p, segment, protocol, 12, 0, r.Packet.From)
	}
	if r.Pass && r.Packet.To != to {
		rewrite(p, segment, protocol, 16, 2, r.Packet.To)
	}
	return r
}

// rewrite puts an IPv4 address and port at their places in packet and segment, and
// mends the checksums by the difference (RFC 1624).
func rewrite(p, segment []byte, protocol byte, addressAt, portAt int, to netip.AddrPort) {
	a := to.Addr().As4()
	// Equation 3: HC' = ~(~HC + ~m + m').
	address := uint32(0)
	for i := 0; i < 4; i += 2 {
		address += uint32(^binary.BigEndian.Uint16(p[addressAt+i:])) + uint32(binary.BigEndian.Uint16(a[i:]))
	}
	port := uint32(^binary.BigEndian.Uint16(segment[portAt:])) + uint32(to.Port())
	copy(p[addressAt:], a[:])
	binary.BigEndian.PutUint16(segment[portAt:], to.Port())
	mend(p[10:], address)
	if protocol == protocolTCP {
		mend(segment[16:], address+port)
	} else if binary.BigEndian.Uint16(segment[6:]) != 0 {
		mend(segment[6:], address+port)
		if binary.BigEndian.Uint16(segment[6:]) == 0 {
			binary.BigEndian.PutUint16(segment[6:], 0xffff) // zero means none (RFC 768)
		}
	}
}

func mend(checksum []byte, difference uint32) {
	binary.BigEndian.PutUint16(checksum, fold(uint32(^binary.BigEndian.Uint16(checksum))+difference))
}

// age lets a packet pass some routers, and reports whether its TTL allowed it.
func age(p []byte, routers int) bool {
	at := 7 // hop limit
	if p[0]>>4 == 4 {
		at = 8
	}
	if int(p[at]) <= routers {
		return false
	}
	if at == 8 {
		// The TTL is the upper half of a word of the header.
		mend(p[10:], uint32(^binary.BigEndian.Uint16(p[8:]))+uint32(binary.BigEndian.Uint16(p[8:])-uint16(routers)<<8))
	}
	p[at] -= byte(routers)
	return true
}

// refuse writes into b the router's answer to packet p, as from p's destination, and
// returns it. It returns nil when there is none, or no room for it.
func refuse(b, p []byte, answer natsim.Answer) []byte {
	protocol, _, _, segment, ok := ports(p)
	switch {
	case !ok || len(b) < 128:
		return nil
	case answer == natsim.Reset && protocol == protocolTCP:
		return reset(b, p, segment)
	case answer == natsim.Unreachable:
		return unreachable(b, p)
	}
	return nil
}

// header writes an IP header of an answer to p and returns where the rest begins.
func header(b, p []byte, protocol byte, size int) []byte {
	if p[0]>>4 == 6 {
		clear(b[:ipv6Header])
		b[0] = 0x60
		binary.BigEndian.PutUint16(b[4:], uint16(size))
		b[6], b[7] = protocol, 64
		copy(b[8:], p[24:40])
		copy(b[24:], p[8:24])
		return b[:ipv6Header+size]
	}
	clear(b[:ipv4Header])
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(ipv4Header+size))
	copy(b[12:], p[16:20])
	copy(b[16:], p[12:16])
	binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:ipv4Header])))
	return b[:ipv4Header+size]
}

// reset makes the segment that a closed port sends (RFC 9293 section 3.10.7.1).
func reset(b, p, segment []byte) []byte {
	out := header(b, p, protocolTCP, 20)
	s := out[len(out)-20:]
	clear(s)
	copy(s, segment[2:4])
	copy(s[2:], segment[:2])
	s[12] = 5 << 4
	if flags := natsim.Flags(segment[13]); flags&natsim.ACK != 0 {
		copy(s[4:8], segment[8:12])
		s[13] = byte(natsim.RST)
	} else {
		length := uint32(max(0, len(segment)-int(segment[12]>>4)*4))
		if flags&natsim.SYN != 0 {
			length++
		}
		if flags&natsim.FIN != 0 {
			length++
		}
		binary.BigEndian.PutUint32(s[8:], binary.BigEndian.Uint32(segment[4:])+length)
		s[13] = byte(natsim.RST | natsim.ACK)
	}
	binary.BigEndian.PutUint16(s[16:], fold(sum(pseudoHeader(out, protocolTCP, 20), s)))
	return out
}

// unreachable makes "port unreachable" (RFC 792, RFC 4443) with the beginning of p.
func unreachable(b, p []byte) []byte {
	quoted := min(len(p), 64)
	protocol, kind, code := byte(protocolICMP), byte(3), byte(3)
	if p[0]>>4 == 6 {
		protocol, kind, code = protocol6, 1, 4
	}
	out := header(b, p, protocol, 8+quoted)
	m := out[len(out)-8-quoted:]
	clear(m)
	m[0], m[1] = kind, code
	copy(m[8:], p[:quoted])
	start := uint32(0)
	if protocol == protocol6 {
		start = pseudoHeader(out, protocol, len(m))
	}
	binary.BigEndian.PutUint16(m[2:], fold(sum(start, m)))
	return out
}

// pseudoHeader sums what goes before a segment into its checksum.
func pseudoHeader(p []byte, protocol byte, size int) uint32 {
	if p[0]>>4 == 6 {
		return sum(uint32(protocol)+uint32(size), p[8:40])
	}
	return sum(uint32(protocol)+uint32(size), p[12:20])
}
