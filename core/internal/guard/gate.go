package guard

import (
	"math"
	"math/bits"
	"net/netip"
	"time"
)

// There are no puzzles. What does not know the network's name fails at the first tag,
// which costs next to nothing, so that only members can make a service work; they
// would buy key agreements with puzzles on more and faster machines than the telephones
// have that would have to solve them, too. What a cookie proves, that an address is
// one's own, TCP proves by itself, and over datagrams there are cookies. So what is
// scarce is given by address, to those first who have had least.

// Gate is a budget that strangers share.
type Gate uint8

const (
	// Accept is of accepted connections. What is asked for is 1 for each.
	Accept Gate = 0
	// Answer is of the processor's time for answers to first flights that know the
	// network's name. What is asked for is nanoseconds.
	Answer Gate = 1
	gates       = 2
)

const (
	// useFade is within how long what an address has asked for counts e times less.
	useFade = 10 * time.Second
	// answerBurst is how many seconds' worth of Answer may be spent at once.
	answerBurst = 4
	// plenty is the part of a budget that anybody may use.
	plenty = 0.5
	// mostUse is what an address may have asked for lately when the budget begins to be
	// short; the least of strangers gets through until there is leastLeft of it.
	mostUse = 512
	// areaShare is how many addresses of one prefix count as one.
	areaShare = 16
	// pressed is the part of a budget that must have been asked for lately, whether given
	// or not, before who is over a brim is held to what runs out of it.
	pressed = 0.5
	// areaBrim is by how much sooner an address of an accused prefix is over its brims.
	areaBrim = 8
)

// gate is a token bucket.
type gate struct {
	rate, burst, left float64
	asked             float64 // lately, as an account's use
	at                time.Time
	refused           uint64
}

func (g *gate) fill(now time.Time) {
	d := max(now.Sub(g.at), 0).Seconds()
	g.left = min(g.left+g.rate*d, g.burst)
	g.asked *= math.Exp(-d / useFade.Seconds())
	g.at = now
}

// isPressed reports whether so much is asked for that who offends is to get little.
func (g *gate) isPressed() bool { return g.asked > pressed*g.rate*useFade.Seconds() }

// fade forgets what was asked for long ago.
func (a *account) fade(d float64) { a.use *= math.Exp(-d / useFade.Seconds()) }

// MayConnect reports whether one more connection of an address is within what one
// address may make.
func (g *Guard) MayConnect(now time.Time, addr netip.Addr) bool {
	place := PlaceOf(addr)
	if !place.IsValid() {
		return true
	}
	a := g.addresses.get(place, now)
	a.open = max(a.open-max(now.Sub(a.openAt), 0).Seconds()*g.cfg.AddressAccepts, 0)
	a.openAt = now
	if a.open+1 > g.cfg.AddressBurst {
		g.gates[Accept].refused++
		return false
	}
	a.open++
	return true
}

// Admit reports whether work for a stranger fits in a budget now, and takes it out of
// it. The emptier the budget is, the less an address may have asked for lately: so who
// comes for the first time gets in through a flood of others, be they as many as they
// like, as long as each of them or their prefix has come before. Who is trusted may use
// what strangers are not let near. While much is asked for, who is over a brim for what
// came of earlier admissions gets no more than runs out of it: once in a second.
func (g *Guard) Admit(now time.Time, addr netip.Addr, which Gate, cost float64) bool {
	b := &g.gates[which]
	b.fill(now)
	b.asked += cost
	use, known, accused := 0.0, false, false
	if place := PlaceOf(addr); place.IsValid() {
		a, c := g.addresses.get(place, now), g.prefixes.get(AreaOf(addr), now)
		a.settle(now)
		c.settle(now)
		use, known = max(a.use, c.use/areaShare), a.trusts(now)
		accused = !known && b.isPressed() && a.wastes(c)
		a.use++
		c.use++
	}
	ok := false
	switch part := b.left / b.burst; {
	case accused:
	case known:
		ok = part > -plenty
	case part >= plenty:
		ok = true
	case part > 0:
		part /= plenty
		ok = use <= mostUse*part*part*part
	}
	if !ok {
		b.refused++
		return false
	}
	b.left -= cost
	return true
}

// Spend takes more out of a budget: for what has been admitted and cost more.
func (g *Guard) Spend(now time.Time, which Gate, cost float64) {
	b := &g.gates[which]
	b.fill(now)
	b.left = max(b.left-cost, -b.burst)
}

// Trust says that an address is that of a known peer, for a time: its account stays
// where strangers' go. An alert about the address ends it.
func (g *Guard) Trust(now time.Time, addr netip.Addr, d time.Duration) {
	if place := PlaceOf(addr); place.IsValid() {
		a := g.addresses.get(place, now)
		if until := now.Add(d); until.After(a.trusted) {
			a.trusted = until
		}
	}
}

// wastes reports whether nothing came of so much that an address was given that it is
// over a brim, or near one in a prefix that is.
func (a *account) wastes(area *account) bool {
	sooner := 1.0
	if area.over(1) && bits.OnesCount64(area.seen) >= manyAddresses {
		sooner = areaBrim
	}
	return a.over(sooner)
}

// over reports whether an account is over a part of the brim of what connections come to.
func (a *account) over(part float64) bool {
	for _, k := range [...]Kind{Garbage, Handshakes, Sessions} {
		if a.level(k)*part >= brims[k].brim*a.tier.factor(k) {
			return true
		}
	}
	return false
}

// trusts reports whether an account is trusted.
func (a *account) trusts(now time.Time) bool { return now.Before(a.trusted) }

// Hot reports whether an address has asked for so much lately that it gives way to
// others where there is no room for all.
func (g *Guard) Hot(now time.Time, addr netip.Addr) bool {
	place := PlaceOf(addr)
	if !place.IsValid() {
		return false
	}
	a := g.addresses.get(place, now)
	a.settle(now)
	return !a.trusts(now) && (a.use > hotUse || a.level(Garbage)+a.level(Handshakes) > hotFailures)
}

// What makes an address hot: as much as some hundred peers behind a NAT that come
// back at once do not reach by failures.
const (
	hotUse      = 256
	hotFailures = 16
)
