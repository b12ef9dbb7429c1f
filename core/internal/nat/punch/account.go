package punch

import (
	"net/netip"
	"time"
)

// Account bounds the bytes that go to addresses which have not shown that they want
// them. A peer names the addresses, and may name those of others: so it pays
// beforehand. What it has sent earns, by letters, by a session over a relay, by
// packets of the punch itself; what goes to an address that has proved nothing is
// charged, with all headers. So nobody gets more than Ratio times what the peer has
// sent, whoever the peer is and whatever it says. An address is proven by a live link
// with the peer, or when something comes from there that only who gets our packets
// could send.
//
// An Account is not safe for use by several goroutines. The zero value has earned
// nothing, and earns by the lesser ratio.
type Account struct {
	left   [2]int // in bytes, of UDP and of TCP
	share  int    // of what is earned is UDP's, in 256ths
	agreed bool
	proven map[netip.Addr]struct{}
}

const (
	// Ratio is how many bytes each earned one lets go when several observers agree on
	// the peer's external addresses. When only one has told them it is 1: the peer may
	// be deceived, and pay for the deceiver.
	Ratio = 3
	// Sizes of packets, in bytes: IP and UDP headers, and a SYN with the usual options
	// (RFC 791, RFC 8200, RFC 768, RFC 9293).
	headers4, headers6 = 20 + 8, 40 + 8
	syn4, syn6         = 60, 80
	// cushion is what UDP and TCP do not take from each other.
	cushion = 4000
	// reserve is what guesses, and packets of many sockets, leave for better: for dials
	// where the peer says that it listens, and for the handshake there.
	reserve = 700
	// maxProven bounds the addresses that are remembered.
	maxProven = 256
	// synEach is how often a kernel repeats a SYN at most: Linux since 6.5, for the
	// first few.
	synEach = time.Second
)

// purse is one of the two parts of an account.
type purse uint8

const (
	ofUDP purse = iota
	ofTCP
)

// PacketCost returns the bytes on the wire of a datagram to an address.
func PacketCost(to netip.Addr, size int) int {
	if to.Is6() && !to.Is4In6() {
		return headers6 + size
	}
	return headers4 + size
}

// DialCost returns the bytes on the wire of the SYNs of a dial that nobody answers
// until its timeout: one where that is less than a second. An opener has none.
func DialCost(to netip.Addr, timeout time.Duration) int {
	syns := 1 + int(max(0, timeout)/synEach)
	if to.Is6() && !to.Is4In6() {
		return syns * syn6
	}
	return syns * syn4
}

// Agree sets whether several observers agree on the peer's external addresses: see
// Ratio. It holds for what is earned later.
func (a *Account) Agree(agreed bool) { a.agreed = agreed }

// ratio is what a byte earns.
func (a *Account) ratio() int {
	if a.agreed {
		return Ratio
	}
	return 1
}

// Earn takes note of bytes that the peer has sent.
func (a *Account) Earn(bytes int) {
	worth := max(0, bytes) * a.ratio()
	udp := part(worth, a.share)
	a.left[ofUDP] += udp
	a.left[ofTCP] += worth - udp
}

// part returns so many 256ths of bytes, also where an int has 32 bits.
func part(bytes, share int) int { return int(int64(bytes) * int64(share) / 256) }

// divide says which part of the account is for UDP, in 256ths.
func (a *Account) divide(share int) {
	all := a.left[ofUDP] + a.left[ofTCP]
	a.share = share
	a.left[ofUDP] = part(all, share)
	a.left[ofTCP] = all - a.left[ofUDP]
}

// Left returns how many bytes may go. It is negative after Book has taken more than
// there was.
func (a *Account) Left() int { return a.left[ofUDP] + a.left[ofTCP] }

// Spend reports whether bytes may go to an address by TCP, and charges them if so,
// whatever they are divided into: nothing is more likely to lead to the peer than what
// the owner does itself.
func (a *Account) Spend(to netip.Addr, bytes int) bool {
	if a.Proven(to) {
		return true
	}
	if a.Left() < bytes {
		return false
	}
	if a.left[ofTCP] -= bytes; a.left[ofTCP] < 0 {
		a.left[ofUDP] += a.left[ofTCP]
		a.left[ofTCP] = 0
	}
	return true
}

// Book charges bytes that have gone to an address by TCP already.
func (a *Account) Book(to netip.Addr, bytes int) {
	if !a.Proven(to) {
		a.left[ofTCP] -= bytes
	}
}

// bulk is spend for one of very many packets.
func (a *Account) bulk(p purse, to netip.Addr, bytes int) bool {
	return (a.Left() >= bytes+reserve || a.Proven(to)) && a.spend(p, to, bytes)
}

// spend charges bytes to a purse, if there is enough in it or much in the other one.
func (a *Account) spend(p purse, to netip.Addr, bytes int) bool {
	if a.Proven(to) {
		return true
	}
	switch other := 1 - p; {
	case a.Left() < bytes:
		return false
	case a.left[p] >= bytes:
		a.left[p] -= bytes
	case a.left[other] >= bytes+cushion:
		a.left[other] -= bytes
	default:
		return false
	}
	return true
}

// Prove says that an address is the peer's.
func (a *Account) Prove(of netip.Addr) {
	if len(a.proven) >= maxProven {
		return
	}
	if a.proven == nil {
		a.proven = map[netip.Addr]struct{}{}
	}
	a.proven[of.Unmap()] = struct{}{}
}

// Proven reports whether an address is the peer's.
func (a *Account) Proven(of netip.Addr) bool {
	_, ok := a.proven[of.Unmap()]
	return ok
}

// weight is how much a Part sends to silent addresses, about, as multiples of what
// Direct sends.
func (p Part) weight() int {
	switch {
	case p.Strategy == None:
		return 1
	case p.Ports == Any, p.Ports == Block, p.Ports == Line, p.Sockets > 1:
		return 32
	case p.Ports == Predicted:
		return 16
	}
	return 2
}

// divide gives UDP and TCP their parts of the account. What is over needs none.
func (m *Machine) divide() {
	udp, tcp := 0, 0
	if m.udp != nil && m.udp.state != over {
		udp = m.udp.part.weight()
	}
	if m.tcp != nil && !m.tcp.over {
		tcp = m.tcp.part.weight()
	}
	if share := 256 * udp / max(1, udp+tcp); share != m.account.share {
		m.account.divide(share)
	}
}
