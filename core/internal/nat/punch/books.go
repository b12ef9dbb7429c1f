package punch

import (
	"net/netip"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// books keeps how many packets each address has got, and may get.
type books struct {
	vouched map[netip.Addr]bool
	base    map[netip.Addr]int // what a vouched address gets though it is silent
	all     map[netip.Addr]*entry
	left    int // of all packets
}

type entry struct {
	sent, heard int
	proven      bool // answered a probe of ours, so that it asks for what it gets
}

const (
	maxAccounts = 256 // addresses that are remembered; others get nothing
	heardMost   = 200 // packets that came and count
	provenBase  = 100 // what an address gets beside, once it is proven
)

func newBooks(c *Config) books {
	b := books{vouched: c.vouched(), base: map[netip.Addr]int{}, all: map[netip.Addr]*entry{}, left: c.Budget.Packets}
	const each = maxOpeners + maxShots
	for _, to := range c.candidates(endpoint.UTP) {
		if b.vouched[to.Addr()] && to != external(c.Theirs.UDP) {
			b.base[to.Addr()] += each
		}
	}
	if to := external(c.Theirs.UDP); c.allowed(to) {
		part, most := Plan(c.Mine.UDP, c.Theirs.UDP, c.Larger), 0
		switch {
		case part.Strategy == None:
		case part.Ports == Predicted:
			most = guessMost
		case part.Ports == Line:
			most = 2 * lineSteps
		case part.Ports == Block:
			most = min(c.Budget.Sprays, int(c.Theirs.UDP.High)-int(c.Theirs.UDP.Low)+1)
		case part.Ports == Any:
			most = c.Budget.Sprays
		case part.Sockets > 1:
			most = min(part.Sockets, c.Budget.Sockets) * holdSends
		default:
			most = each
			if part.Strategy == Direct && vague(c.Theirs.UDP) {
				most += vagueWindow * (guessShots + 2)
			}
		}
		b.base[to.Addr()] += most
	}
	return b
}

// Most returns the largest number of UDP packets that a Machine of this Config
// sends to one address that never answers, and which address that is. Addresses
// that nothing vouches for get one.
func (c Config) Most() (addr netip.Addr, packets int) {
	c.Budget = c.Budget.filled()
	b := newBooks(&c)
	for a, n := range b.base {
		if n > packets || n == packets && a.Less(addr) {
			addr, packets = a, n
		}
	}
	return addr, min(packets, c.Budget.Packets)
}

func (b *books) entry(a netip.Addr) *entry {
	x := b.all[a]
	if x == nil && len(b.all) < maxAccounts {
		x = &entry{}
		b.all[a] = x
	}
	return x
}

// may reports whether one more packet may go to an address.
func (b *books) may(a netip.Addr) bool {
	x := b.entry(a)
	if x == nil || b.left <= 0 {
		return false
	}
	limit := 1 + x.heard
	if b.vouched[a] {
		limit = b.base[a] + 3*x.heard
	}
	if x.proven {
		limit += provenBase
	}
	return x.sent < limit
}

// sent counts a packet to an address that may have one.
func (b *books) sent(a netip.Addr) {
	b.all[a].sent++
	b.left--
}

// heard counts a valid packet from an address.
func (b *books) heard(a netip.Addr) {
	if x := b.entry(a); x != nil && x.heard < heardMost {
		x.heard++
	}
}

// prove notes that an address has answered a probe of ours.
func (b *books) prove(a netip.Addr) {
	if x := b.entry(a); x != nil {
		x.proven = true
	}
}
