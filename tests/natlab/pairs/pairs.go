// Package pairs is the table of what must come of two peers behind NATs: its rows
// and their limits, the runs that were made of them, and the table that follows.
// Tests in virtual time and between real kernels take the rows from here and record
// runs; nattable writes the table.
package pairs

import (
	"fmt"
	"time"
)

// Row is a kind of pair, and what must come of it.
type Row struct {
	// Name is what tests and records call it.
	Name string
	// Pair and Must say for people who the two are, and what must come.
	Pair, Must string
	// P50 and P99 bound how long half and 99 of 100 of the runs that succeed may
	// take, from the call to the connection.
	P50, P99 time.Duration
	// Success is the least part of the runs that must succeed, from 0 to 1.
	Success float64
	// Cases are the pairs themselves. Runs are divided among them evenly.
	Cases []Case
}

// World says how the two sides are placed.
type World uint8

const (
	Apart      World = iota // each behind its own NATs
	Neighbours              // both behind the NAT of A
	OneCarrier              // each behind its own NAT, both of these behind one of the carrier
)

// Case is one pair.
type Case struct {
	// Name is for people and records.
	Name string
	// A and B are NATs in the words of natsim, as tests in virtual time have them:
	// "public" for none, "NAT in CARRIER" for two in a row. B is empty for Neighbours.
	A, B string
	// KindA and KindB are kinds of natlab. Empty: the case is not for namespaces.
	KindA, KindB string
	World        World
	// Listen is "tcp" or "utp" when both sides have no other transport.
	Listen string
	// IPv6 gives both sides no other addresses.
	IPv6 bool
	// Chain is how many peers in a row introduce the two, none of them public. Zero:
	// four public ones know both.
	Chain int
	// Relay has the public peers carry links: the case is for what has no other way.
	Relay bool
	// Cuts: the NATs cut links to relays, too, and a relay may not know it yet. Then a
	// message given with the call is there when a direct link is.
	Cuts bool
	// Mapped is "a" or "b": whose NAT gives ports to who asks for them. In namespaces
	// the kind says so.
	Mapped string
	// Ways are the letters that count as success: T for TCP, U for uTP, R for relayed.
	Ways string
}

func row(name, pair, must string, p50, p99 float64, success float64, cases ...Case) Row {
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	return Row{Name: name, Pair: pair, Must: must, P50: seconds(p50), P99: seconds(p99), Success: success, Cases: cases}
}

// Rows is the table. In it "home" is a NAT of endpoint-independent mapping and
// address-and-port-dependent filtering. All ways are of 40 ms there and back.
var Rows = []Row{
	row("public", "public × any", "T", 0.2, 0.5, 1,
		Case{Name: "public, public", A: "public", B: "public", KindA: "public", KindB: "public", Ways: "T"},
		Case{Name: "public, home", A: "public", B: "home", KindA: "public", KindB: "home", Ways: "T"},
		Case{Name: "home, public", A: "home", B: "public", KindA: "kernel-home", KindB: "public", Ways: "T"},
		Case{Name: "public, random symmetric", A: "public", B: "symmetric", KindA: "public", KindB: "kernel-symmetric", Ways: "T"},
		Case{Name: "sequential symmetric, public", A: "sequential", B: "public", KindA: "sequential", KindB: "public", Ways: "T"},
		Case{Name: "public, home without UDP", A: "public", B: "home,udp=off", KindA: "public", KindB: "kernel-udp-blocked", Ways: "T"},
	),
	row("home", "home × home, dropping routers", "T and U both possible", 0.3, 1.5, 1,
		Case{Name: "home, home", A: "home", B: "home", KindA: "kernel-home", KindB: "home", Ways: "TU"},
		Case{Name: "home, home, by TCP alone", A: "home", B: "home", KindA: "kernel-home", KindB: "kernel-home", Listen: "tcp", Ways: "T"},
		Case{Name: "home, home, by uTP alone", A: "home", B: "home", KindA: "kernel-home", KindB: "kernel-home", Listen: "utp", Ways: "U"},
	),
	row("home-answering", "home × home, routers that send resets, accept and answer, or punish strangers", "T or U", 0.6, 3, 0.99,
		Case{Name: "both send resets", A: "home,strangers=refuse", B: "home,strangers=refuse", KindA: "kernel-home-reset", KindB: "kernel-home-reset", Ways: "TU"},
		Case{Name: "both accept and answer", A: "home,strangers=accept", B: "home,strangers=accept", KindA: "kernel-home-accept", KindB: "kernel-home-accept", Ways: "TU"},
		Case{Name: "both punish", A: "home,strangers=punish", B: "home,strangers=punish", KindA: "home-punish", KindB: "home-punish", Cuts: true, Ways: "TU"},
		Case{Name: "one punishes, one sends resets", A: "home,strangers=punish", B: "home,strangers=refuse", KindA: "home-punish", KindB: "kernel-home-reset", Ways: "TU"},
	),
	row("sequential", "home × sequential symmetric", "T or U by prediction", 0.5, 3, 0.98,
		Case{Name: "home, sequential", A: "home", B: "sequential", KindA: "kernel-home", KindB: "sequential", Ways: "TU"},
		Case{Name: "sequential, home", A: "sequential", B: "home", KindA: "sequential", KindB: "kernel-home", Ways: "TU"},
		Case{Name: "home, downwards by two", A: "home", B: "sequential,step=-2", KindA: "kernel-home", KindB: "sequential-down", Ways: "TU"},
	),
	row("block", "home × block symmetric (≤ 2,048)", "U", 1, 5, 0.98,
		Case{Name: "home, block of 512", A: "home", B: "block", KindA: "kernel-home", KindB: "block", Ways: "TU"},
		Case{Name: "block of 512, home", A: "block", B: "home", KindA: "kernel-block", KindB: "home", Ways: "TU"},
		Case{Name: "home, block of 2,048", A: "home", B: "symmetric,low=40000,high=42047", Ways: "TU"},
	),
	row("random", "home × random symmetric", "U by birthday", 2, 12, 0.98,
		Case{Name: "home, random", A: "home", B: "symmetric", KindA: "kernel-home", KindB: "kernel-symmetric", Ways: "TU"},
		Case{Name: "random, home", A: "symmetric", B: "home", KindA: "symmetric", KindB: "kernel-home", Ways: "TU"},
	),
	row("random-tcp", "the same, UDP blocked", "T by birthday", 3, 15, 0.9,
		Case{Name: "home, random", A: "home,udp=off", B: "symmetric,udp=off", KindA: "kernel-udp-blocked", KindB: "kernel-symmetric-udp-blocked", Ways: "T"},
		Case{Name: "random, home", A: "symmetric,udp=off", B: "home,udp=off", KindA: "symmetric-udp-blocked", KindB: "kernel-udp-blocked", Ways: "T"},
	),
	row("sequential-both", "sequential × sequential, ≤ 20 foreign mappings/s", "U", 1, 6, 0.95,
		Case{Name: "no foreign mappings", A: "sequential", B: "sequential", KindA: "sequential", KindB: "sequential", Ways: "TU"},
		Case{Name: "5 foreign mappings/s", A: "sequential,noise=5", B: "sequential,noise=5", KindA: "sequential-5", KindB: "sequential-5", Ways: "TU"},
		Case{Name: "10 foreign mappings/s", A: "sequential,noise=10", B: "sequential,noise=10", KindA: "sequential-10", KindB: "sequential-10", Ways: "TU"},
		Case{Name: "20 foreign mappings/s", A: "sequential,noise=20", B: "sequential,noise=20", KindA: "sequential-20", KindB: "sequential-20", Ways: "TU"},
	),
	row("random-both", "random × random symmetric", "R, usable", 0.2, 1, 1,
		Case{Name: "random, random", A: "symmetric", B: "symmetric", KindA: "symmetric", KindB: "kernel-symmetric", Relay: true, Ways: "R"},
	),
	row("mapped", "either side with UPnP, NAT-PMP or PCP", "T by mapping", 0.3, 1.5, 1,
		Case{Name: "random symmetric with UPnP, random", A: "symmetric", B: "symmetric", KindA: "kernel-symmetric-upnp", KindB: "kernel-symmetric", Mapped: "a", Ways: "T"},
		Case{Name: "random, random with NAT-PMP", A: "symmetric", B: "symmetric", KindA: "symmetric", KindB: "kernel-symmetric-nat-pmp", Mapped: "b", Ways: "T"},
		Case{Name: "random with PCP, home", A: "symmetric", B: "home", KindA: "kernel-symmetric-pcp", KindB: "home", Mapped: "a", Ways: "T"},
		Case{Name: "home, random with PCP", A: "home", B: "symmetric", KindA: "kernel-home", KindB: "kernel-symmetric-pcp", Mapped: "b", Ways: "T"},
	),
	row("udp-blocked", "UDP blocked on both, home", "T by simultaneous open", 0.3, 3, 0.99,
		Case{Name: "home, home", A: "home,udp=off", B: "home,udp=off", KindA: "udp-blocked", KindB: "kernel-udp-blocked", Ways: "T"},
	),
	row("ipv6", "two stateful IPv6 firewalls", "T", 0.3, 1.5, 1,
		Case{Name: "firewall, firewall", A: "home,ipv6=firewall", B: "home,ipv6=firewall", KindA: "kernel-firewall-ipv6", KindB: "firewall-ipv6", IPv6: true, Ways: "T"},
	),
	row("near", "behind the same NAT, with and without hairpin; carrier NAT under home NAT", "direct where the network allows", 0.3, 3, 1,
		Case{Name: "one NAT without hairpin", A: "home", KindA: "kernel-home", World: Neighbours, Ways: "TU"},
		Case{Name: "one NAT with hairpin", A: "home,hairpin=on", KindA: "home-hairpin", World: Neighbours, Ways: "TU"},
		Case{Name: "one NAT, random", A: "symmetric", KindA: "symmetric", World: Neighbours, Ways: "TU"},
		Case{Name: "home under a carrier, home", A: "home in home", B: "home", KindA: "home-in-carrier", KindB: "kernel-home", Ways: "TU"},
		Case{Name: "both under carriers", A: "home in home", B: "home in home", KindA: "home-in-carrier", KindB: "home-in-carrier", Ways: "TU"},
		Case{Name: "both under one carrier with hairpin", A: "home in home,hairpin=on", B: "home", KindA: "home-in-hairpin", KindB: "home", World: OneCarrier, Ways: "TU"},
		Case{Name: "both under one carrier without: relayed", A: "home in home", B: "home", KindA: "home-in-carrier", KindB: "home", World: OneCarrier, Relay: true, Ways: "R"},
	),
	row("chain", "no public node; a chain of peers connects the two", "as the pair's class, + 0.5 s", 0.8, 2, 1,
		Case{Name: "home, home over one peer", A: "home", B: "home", KindA: "kernel-home", KindB: "home", Chain: 1, Ways: "TU"},
		Case{Name: "home, home over three peers", A: "home", B: "home", KindA: "kernel-home", KindB: "home", Chain: 3, Ways: "TU"},
		Case{Name: "home, home over six peers", A: "home", B: "home", KindA: "kernel-home", KindB: "home", Chain: 6, Ways: "TU"},
	),
}

// RowOf returns the row of that name.
func RowOf(name string) (Row, error) {
	for _, r := range Rows {
		if r.Name == name {
			return r, nil
		}
	}
	return Row{}, fmt.Errorf("the table of pairs has no row %q", name)
}

// InNamespaces returns the cases that are for namespaces.
func (r Row) InNamespaces() (cases []Case) {
	for _, c := range r.Cases {
		if c.KindA != "" {
			cases = append(cases, c)
		}
	}
	return cases
}
