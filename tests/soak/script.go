//go:build linux

// Package soak lets many processes, each a peer in a network namespace of its own,
// talk for minutes while they and the links between them are maltreated, and accounts
// at the end for every message that was accepted.
//
// What is done to whom and when is a script that follows from a seed. How packets and
// processes happen to meet it does not: the same seed is the same maltreatment.
package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// kind is a way to maltreat a peer or its link.
type kind string

const (
	cut         kind = "cut"         // nothing passes, for less than the promise
	lossy       kind = "lossy"       // packets are lost
	slow        kind = "slow"        // packets take long, each another time
	mangled     kind = "mangled"     // packets come twice and out of order
	reboot      kind = "reboot"      // the NAT forgets all mappings, or there is a cut where there is no NAT
	frozen      kind = "frozen"      // the process stands still (SIGSTOP), for less than the promise
	full        kind = "full"        // the disk of its cache is full
	poor        kind = "poor"        // it may open no more descriptors
	killed      kind = "killed"      // the process dies (SIGKILL) and comes back
	left        kind = "left"        // the process ends in order and comes back
	outage      kind = "outage"      // nothing passes, for longer than the promise
	hibernation kind = "hibernation" // the process stands still for longer than the promise
)

// kinds are all, those that are announced losses last.
var kinds = []kind{cut, lossy, slow, mangled, reboot, frozen, full, poor, killed, left, outage, hibernation}

// deadly tells whether peers are lost by it.
func (k kind) deadly() bool {
	return k == killed || k == left || k == outage || k == hibernation
}

// severs tells whether nothing passes meanwhile, or sessions have to find a new link.
func (k kind) severs() bool {
	return k != full && k != lossy && k != slow && k != mangled
}

// The promise: what the peers are configured to hold. A link is noticed to be dead
// within lostAfter, and a session waits for another one for window.
const (
	heartbeat = 2 * time.Second
	lostAfter = 6 * time.Second
	window    = 20 * time.Second
	promise   = lostAfter + window
)

const (
	// calm is how long a peer is left alone after a fault: enough to dial again.
	calm = 8 * time.Second
	// long is how long something lasts that is longer than the promise, and short bounds
	// what is shorter: less than half, for a machine that has much else to do.
	long  = promise + 8*time.Second
	short = 8 * time.Second
)

// fault is one line of the script. Times are from the beginning of the faults.
type fault struct {
	at, span time.Duration
	kind     kind
	node     int
	words    []string // how the link is, for linklab
}

func (f fault) String() string {
	return strings.TrimSpace(fmt.Sprintf("%8.3f s %6.3f s %-11s node %2d %s", f.at.Seconds(), f.span.Seconds(), f.kind, f.node, strings.Join(f.words, " ")))
}

// plan is what a script is made for.
type plan struct {
	seed  uint64
	nodes int
	chaos time.Duration // within which faults begin and end
	every time.Duration // between two faults, on average
}

// script is when each node starts and what is done to it, in the order of time.
type script struct {
	starts []time.Duration // by node, from the beginning of the test
	faults []fault
}

// write makes the script of a plan. Each kind comes once before any comes again.
func (p plan) write() script {
	random := rand.New(rand.NewPCG(p.seed, 0x736f616b))
	s := script{starts: make([]time.Duration, p.nodes)}
	for i := range s.starts {
		// Out of order: also those come first to whom others want to connect.
		s.starts[i] = time.Duration(random.Int64N(int64(4 * time.Second)))
	}
	free := make([]time.Duration, p.nodes) // when the node has had its calm
	var deck []kind
	for at := time.Duration(0); ; at += p.every/2 + time.Duration(random.Int64N(int64(p.every))) {
		if len(deck) == 0 {
			deck = slices.Clone(kinds)
			random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			if len(s.faults) == 0 {
				// What takes long has to begin early in a short script.
				slices.SortStableFunc(deck, func(a, b kind) int { return order(a) - order(b) })
			}
		}
		if at+short > p.chaos {
			return s
		}
		f := fault{at: at, kind: deck[0], node: random.IntN(p.nodes)}
		if f.kind == full || f.kind == killed || f.kind == left {
			f.node = f.node &^ 1 // others have no disk of their own, and live to the end
		}
		f.draw(random)
		if free[f.node] > at || at+f.span > p.chaos {
			if at+f.span > p.chaos {
				deck = deck[1:] // there is no time left for it
			}
			continue
		}
		deck = deck[1:]
		free[f.node] = at + f.span + calm
		s.faults = append(s.faults, f)
	}
}

// order sorts kinds for the first round.
func order(k kind) int {
	if k == outage || k == hibernation {
		return 0
	}
	return 1
}

// draw decides how long a fault lasts and how bad it is.
func (f *fault) draw(random *rand.Rand) {
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(random.Int64N(int64(most-least)))
	}
	percent := func(least, most int) string { return fmt.Sprintf("%d%%", least+random.IntN(most-least+1)) }
	switch f.span = between(2*time.Second, short); f.kind {
	case cut:
		f.words = []string{"cut"}
	case outage, hibernation:
		f.span = long
		if f.kind == outage {
			f.words = []string{"cut"}
		}
	case lossy:
		f.words = []string{"loss=" + percent(5, 30)}
		if random.IntN(2) == 0 {
			f.words = append(f.words, "loss-burst=4")
		}
	case slow:
		delay := between(50*time.Millisecond, 300*time.Millisecond).Round(time.Millisecond)
		f.words = []string{"delay=" + delay.String(), "jitter=" + (delay / 2).String()}
	case mangled:
		f.words = []string{"duplicate=" + percent(5, 50), "reorder=" + percent(5, 50), "reorder-by=20ms"}
	case reboot:
		f.span = between(100*time.Millisecond, 2*time.Second)
	}
}

// healed is how a link is when nothing is wrong with it.
func healed(delay time.Duration) []string {
	return []string{"cut=off", "loss=0", "loss-burst=0", "delay=" + delay.String(), "jitter=0s", "duplicate=0", "reorder=0"}
}
