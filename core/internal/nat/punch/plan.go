package punch

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// Strategy is how two NATs are opened together, for one transport protocol. Both
// sides of a punch follow the same one.
type Strategy uint8

const (
	None     Strategy = iota // no way that is likely enough: only candidates are tried
	Direct                   // both go to the external endpoint that others see
	Predict                  // one guesses the next ports of the other's sequence
	Cross                    // both guess, along two lines that must meet
	Spray                    // one tries a block of ports, the other opens some sockets
	Birthday                 // one tries ports at random, the other opens many sockets
)

var strategies = [...]string{"none", "direct", "predict", "cross", "spray", "birthday"}

// String returns the name in lower case.
func (s Strategy) String() string {
	if int(s) < len(strategies) {
		return strategies[s]
	}
	return "unknown"
}

// Ports says to which ports of the other side one side goes.
type Ports uint8

const (
	Known     Ports = iota // the external port that was told
	Predicted              // some that come next in the sequence
	Line                   // one after the other along the sequence
	Block                  // all of the block, shuffled
	Any                    // any, the likely ones first
)

// Part is what one side does in a Strategy.
type Part struct {
	Strategy Strategy
	Ports    Ports
	Sockets  int // how many it sends from, at least 1
	Slope    int // of a Line: ports per step, in steps of the sequence
}

const (
	// BirthdaySockets are opened on the side whose ports are random. With 2,048
	// guesses in 64,512 ports they fail once in 3,400 times.
	BirthdaySockets = 256
	// SpraySockets are opened behind a NAT that chooses out of a block.
	SpraySockets = 64
	// MaxBlock is the largest block of ports that is tried as a whole; a larger
	// one is treated as random ports.
	MaxBlock = 2048
)

// class is what a NAT's mapping means for who must find its port.
type class uint8

const (
	fixed      class = iota // the port is known: no NAT, or one port for everybody
	sequential              // the port can be counted
	block                   // the port is one of a few
	random                  // the port is unknown
)

// classify takes what is unknown for the commonest case: a mapping that depends
// on nothing, but random ports where it is known to depend on something. A NAT
// that preserves ports gives the known one to everybody, whatever its mapping
// depends on.
func classify(n wire.NAT) class {
	if n.Mapping <= wire.EndpointIndependent || n.Ports == wire.PortsPreserving {
		return fixed
	}
	switch {
	case n.Ports == wire.PortsSequential && n.Step != 0:
		return sequential
	case n.Ports == wire.PortsBlock && n.Low <= n.High && n.Low > 0 && int(n.High)-int(n.Low) < MaxBlock:
		return block
	}
	return random
}

// vague reports facts that do not say what the mapping depends on: it may be
// sequential after all, by steps of one.
func vague(n wire.NAT) bool { return n.Mapping == wire.DependsUnknown }

// lenient reports a NAT that lets answers in from any port of an address that
// was sent to, or from everybody.
func lenient(n wire.NAT) bool {
	return n.Filtering == wire.EndpointIndependent || n.Filtering == wire.AddressDependent
}

// Plan tells what the side with the facts mine does to meet the side with the
// facts theirs. It depends on nothing else, so that both sides find parts that
// fit from what they told each other: Plan(b, a, false) is the other half of
// Plan(a, b, true). Each must use the facts as the letters said them, its own too.
// larger says whether this side's peer id is the larger one,
// and must differ between them.
//
// Sequences meet blocks, and blocks meet blocks, only with as many mappings as
// would use up the block of a subscriber; a sequence meets random ports once in
// 30 times. These and two NATs with random ports have no way.
func Plan(mine, theirs wire.NAT, larger bool) Part {
	m, t := classify(mine), classify(theirs)
	switch {
	case m == fixed && t == fixed, m == fixed && lenient(mine), t == fixed && lenient(theirs):
		return Part{Direct, Known, 1, 0}
	case m == sequential && t == sequential && larger:
		return Part{Cross, Line, 1, 1}
	case m == sequential && t == sequential:
		return Part{Cross, Line, 1, 2}
	case m == fixed:
		return [...]Part{sequential: {Predict, Predicted, 1, 0}, block: {Spray, Block, 1, 0}, random: {Birthday, Any, 1, 0}}[t]
	case t == fixed:
		sockets := min(SpraySockets, max(1, (int(mine.High)-int(mine.Low)+1)/4)) // leave most of the block to others
		return [...]Part{sequential: {Predict, Known, 1, 0}, block: {Spray, Known, sockets, 0}, random: {Birthday, Known, BirthdaySockets, 0}}[m]
	}
	return Part{None, Known, 1, 0}
}

// foreign returns how many mappings of others a NAT has made in d, at least and
// at most but for rare cases (three deviations of a Poisson process).
func foreign(n wire.NAT, from, to time.Duration) (least, most int) {
	least = int(mean(n, from) - 3*math.Sqrt(mean(n, from)))
	return max(0, least), int(math.Ceil(mean(n, to) + 3*math.Sqrt(mean(n, to))))
}

func mean(n wire.NAT, d time.Duration) float64 { return float64(n.Rate) / 10 * d.Seconds() }

// ahead returns the port k steps after the last one that was seen, k at least 1,
// or 0 when that is no port that a NAT gives out.
func ahead(n wire.NAT, k int) uint16 {
	step := int(n.Step)
	if vague(n) {
		step = 1
	}
	p := int(n.External.Port()) + step*k
	if p < 1024 || p > 65535 {
		return 0
	}
	return uint16(p)
}

// line returns n ports of the line along which facts of an age are followed. It
// begins with the first port that the NAT can have given since then: two lines
// meet when neither side begins ahead of the truth.
func line(n wire.NAT, age time.Duration, slope, count int) []uint16 {
	first, _ := foreign(n, age, age)
	var out []uint16
	for step := range count {
		if p := ahead(n, first+1+slope*step); p != 0 {
			out = append(out, p)
		}
	}
	return out
}

// lineEach returns the time between two ports of a line. Lines of the slopes 1 and
// 2 approach each other as long as either NAT makes less than 0.4 mappings of others
// in it.
func lineEach(a, b wire.NAT) time.Duration {
	rate := max(a.Rate, b.Rate, 1)
	return min(max(10*time.Second/5/time.Duration(rate), lineLeast), lineStep)
}

// sprayed returns up to most ports in the order to try them, each once: all of
// the block, shuffled; or those within 64 of the observed one, then those
// between Low and High when these are told, then the rest, shuffled. None is below
// 1024: NATs do not give those out, and services of others are there.
func sprayed(n wire.NAT, ports Ports, most int, r *rand.Rand) []uint16 {
	bounded := n.Low > 0 && n.Low <= n.High
	var groups [][]uint16
	last := int(n.External.Port())
	switch {
	case ports == Block && bounded:
		groups = append(groups, between(max(1024, int(n.Low)), int(n.High)))
	default:
		groups = append(groups, between(max(1024, last-64), min(65535, last+64)))
		if bounded {
			groups = append(groups, between(max(1024, int(n.Low)), int(n.High)))
		}
		groups = append(groups, between(1024, 65535))
	}
	var seen [65536 / 64]uint64
	out := make([]uint16, 0, most)
	for _, g := range groups {
		for i := range g {
			if len(out) >= most {
				return out
			}
			j := i + r.IntN(len(g)-i)
			g[i], g[j] = g[j], g[i]
			if p := g[i]; seen[p/64]>>(p%64)&1 == 0 {
				seen[p/64] |= 1 << (p % 64)
				out = append(out, p)
			}
		}
	}
	return out
}

// between returns the ports from low to high, none when low is greater.
func between(low, high int) []uint16 {
	out := make([]uint16, 0, max(0, high-low+1))
	for p := low; p <= high; p++ {
		out = append(out, uint16(p))
	}
	return out
}
