package linklab

import (
	"encoding/binary"
	"net/netip"
)

const (
	protocolICMP = 1
	protocolTCP  = 6
	protocolUDP  = 17
	protocol6    = 58 // ICMPv6

	ipv4Header = 20
	ipv6Header = 40
)

// addresses returns source and destination of an IP packet.
func addresses(p []byte) (from, to netip.Addr, ok bool) {
	switch {
	case len(p) >= ipv4Header && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= ipv6Header && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return from, to, false
}

// sum adds the 16-bit words of data to a checksum (RFC 1071).
func sum(start uint32, data []byte) uint32 {
	for ; len(data) >= 2; data = data[2:] {
		start += uint32(data[0])<<8 | uint32(data[1])
	}
	if len(data) == 1 {
		start += uint32(data[0]) << 8
	}
	return start
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tooBig writes into b the ICMP message that tells the sender of packet p which
// size would fit, from an address on the way, and returns it. It returns nil when
// p must not be answered.
func tooBig(b, p []byte, mtu int, router4, router6 netip.Addr) []byte {
	if p[0]>>4 == 4 {
		return tooBig4(b, p, mtu, router4)
	}
	return tooBig6(b, p, mtu, router6)
}

// tooBig4 makes "fragmentation needed" (RFC 792, RFC 1191), with the IP header and
// 8 bytes more of p, and more as the laboratory has the room (RFC 1812 section 4.3.2.3).
func tooBig4(b, p []byte, mtu int, router netip.Addr) []byte {
	if p[9] == protocolICMP || p[6]&0x1f != 0 || p[7] != 0 {
		return nil // an ICMP message, or not the first fragment
	}
	quoted := min(len(p), 548)
	b = b[:ipv4Header+8+quoted]
	clear(b)
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = 64, protocolICMP
	a := router.As4()
	copy(b[12:], a[:])
	copy(b[16:20], p[12:16])
	binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:ipv4Header])))
	m := b[ipv4Header:]
	m[0], m[1] = 3, 4
	binary.BigEndian.PutUint16(m[6:], uint16(mtu))
	copy(m[8:], p[:quoted])
	binary.BigEndian.PutUint16(m[2:], fold(sum(0, m)))
	return b
}

// tooBig6 makes "packet too big" (RFC 4443 section 3.2).
func tooBig6(b, p []byte, mtu int, router netip.Addr) []byte {
	if p[6] == protocol6 && len(p) > ipv6Header && p[ipv6Header] < 128 {
		return nil // an ICMPv6 error
	}
	quoted := min(len(p), 1280-ipv6Header-8)
	b = b[:ipv6Header+8+quoted]
	clear(b)
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(8+quoted))
	b[6], b[7] = protocol6, 64
	a := router.As16()
	copy(b[8:], a[:])
	copy(b[24:40], p[8:24])
	m := b[ipv6Header:]
	m[0] = 2
	binary.BigEndian.PutUint32(m[4:], uint32(mtu))
	copy(m[8:], p[:quoted])
	pseudo := sum(uint32(len(m))+protocol6, b[8:40])
	binary.BigEndian.PutUint16(m[2:], fold(sum(pseudo, m)))
	return b
}
