package main

import (
	"fmt"
	"strings"

	crust "github.com/libcrust/libcrust/core"
)

// What doctor says in one word.
const (
	healthy = "healthy" // peers reach this machine
	limited = "limited" // not everybody does, or it is not known
	broken  = "broken"  // nobody is met
)

// diagnosis is what doctor makes of a NATReport: words for programs, and sentences
// for people, of which each says what is so and what can be done about it.
type diagnosis struct {
	kind   string
	health string
	advice []string
	expect []expectation
}

// expectation is how peers are met that are behind something.
type expectation struct {
	Peer string `json:"peer"` // one of sites
	Way  string `json:"way"`  // direct, punched, relayed or unknown
}

// The ways in which a link comes about.
const (
	wayDirect  = "direct"  // one dials the other
	wayPunched = "punched" // both open their NATs together
	wayRelayed = "relayed" // a third peer carries the link, if one does
	wayUnknown = "unknown"
)

// What peers are behind, in the words of expectation, and in those for people.
var sites = []struct{ name, words string }{
	{"reachable", "public, mapped, or behind a full cone"},
	{"home", "behind a NAT or firewall as at home"},
	{"sequential", "behind a symmetric NAT that counts"},
	{"block", "behind a symmetric NAT with a block of ports"},
	{"symmetric", "behind a symmetric NAT with random ports"},
}

// words are those of the peer's site for people.
func (x *expectation) words() string {
	for _, s := range sites {
		if s.name == x.Peer {
			return s.words
		}
	}
	return x.Peer
}

// maxBlock is the largest block of ports of which each is tried.
const maxBlock = 2048

// siteOf returns which of sites a flow is of, "" when it is not known.
func siteOf(f crust.NATFlow) string {
	switch {
	case len(f.External) == 0:
		return ""
	case f.None && f.Filtering == crust.NATEndpointIndependent, f.Mapping == crust.NATEndpointIndependent && f.Filtering == crust.NATEndpointIndependent:
		return "reachable"
	case f.None, f.Mapping <= crust.NATEndpointIndependent, f.Ports == crust.NATPortsPreserving: // what is not known is most likely as at home
		return "home"
	case f.Ports == crust.NATPortsSequential:
		return "sequential"
	case f.Ports == crust.NATPortsBlock && f.High-f.Low < maxBlock:
		return "block"
	}
	return "symmetric"
}

// expectations says how peers of each site are met from a site, as the room nat/punch
// does it: ports that everybody sees are found from everywhere, sequences find each
// other too, and nothing else does.
func expectations(mine string) []expectation {
	list := make([]expectation, 0, len(sites))
	for _, s := range sites {
		way := wayRelayed
		switch {
		case mine == "reachable" || s.name == "reachable":
			way = wayDirect
		case mine == "":
			way = wayUnknown
		case mine == "home" || s.name == "home" || mine == "sequential" && s.name == "sequential":
			way = wayPunched
		}
		list = append(list, expectation{s.name, way})
	}
	return list
}

func (d *diagnosis) say(format string, args ...any) {
	d.advice = append(d.advice, fmt.Sprintf(format, args...))
}

// diagnose judges by UDP, and by TCP where nothing of UDP gets through.
func diagnose(r crust.NATReport) diagnosis {
	var d diagnosis
	flow, by := r.UDP, "UDP"
	if r.UDP.Blocked || len(r.UDP.External) == 0 {
		flow, by = r.TCP, "TCP"
	}
	d.health = limited
	if len(flow.External) == 0 {
		d.kind, d.expect = "unknown", expectations("")
		d.say("Nobody has told how they see this machine: connect to peers in three different networks.")
		return d
	}
	if r.UDP.Blocked {
		d.say("UDP does not get through, so TCP is all there is: punching takes longer and succeeds less often. Let UDP out if you can.")
	}
	if mapped := mappedOf(r); len(mapped) > 0 && !r.CGNAT {
		d.kind = "mapped"
		d.say("Your router maps ports: peers reach you at %s.", strings.Join(mapped, " and "))
	} else {
		d.kind = judge(&d, flow, by)
	}
	site := siteOf(flow)
	if d.kind == "mapped" || r.Reachable {
		site = "reachable"
	}
	d.expect = expectations(site)
	if site == "reachable" && !flow.Near {
		d.health = healthy
	}
	if r.Reachable && d.kind != "open" && d.kind != "full-cone" && d.kind != "mapped" {
		d.say("Still, somebody has come to this machine unasked (%s): it can be reached.", r.Why)
	}
	if r.CGNAT {
		d.say("The NAT that others see is your provider's: ports that your own router maps do not help. Ask the provider for a public address, or use IPv6.")
	}
	if flow.Near {
		d.say("Only peers nearby have told something: what the Internet sees is not known.")
	} else if flow.Confidence != "confirmed" {
		d.say("Too few peers in different networks agree for this to be certain: three are enough.")
	}
	if flow.Filtering == crust.NATUnknown {
		d.say("What is let in is not known: it takes two peers or more that send probes for others.")
	}
	return d
}

// mappedOf returns where routers pass ports on.
func mappedOf(r crust.NATReport) (list []string) {
	for _, m := range r.Mapped {
		if m.Err == nil && m.External.Addr.IsValid() && !m.Double {
			list = append(list, m.External.String())
		}
	}
	return list
}

// judge returns the kind of the NAT, and says what follows from it.
func judge(d *diagnosis, f crust.NATFlow, by string) string {
	const router = " Turn on UPnP, NAT-PMP or PCP in your router, or forward a port, to be reached at once."
	switch {
	case f.None && f.Filtering == crust.NATEndpointIndependent:
		d.say("There is no NAT, and nothing is filtered: peers reach you.")
		return "open"
	case f.None && f.Filtering == crust.NATUnknown:
		d.say("There is no NAT.")
		return "public"
	case f.None:
		d.say("There is no NAT, but a firewall lets in answers only: you and a peer open it together. Open the ports of the listeners to be reached at once.")
		return "firewall"
	case f.Mapping == crust.NATEndpointIndependent && f.Filtering == crust.NATEndpointIndependent:
		d.say("Your NAT has one port for everybody and lets everybody in (a full cone): peers reach you at %v.", f.External[0])
		return "full-cone"
	case f.Mapping == crust.NATEndpointIndependent && f.Filtering == crust.NATAddressDependent:
		d.say("Your NAT has one port for everybody and lets in addresses that you have sent to: you and a peer open it together, quickly." + router)
		return "restricted"
	case f.Mapping == crust.NATEndpointIndependent && f.Filtering == crust.NATAddressPortDependent:
		d.say("Your NAT has one port for everybody and lets in answers only, like most at home: you and a peer open it together." + router)
		return "home"
	case f.Mapping == crust.NATEndpointIndependent:
		d.say("Your NAT has one port for everybody: you and a peer open it together." + router)
		return "cone"
	case f.Mapping == crust.NATUnknown:
		d.say("There is a NAT, of which %s shows no more than its address.", by)
		return "nat"
	}
	switch f.Ports {
	case crust.NATPortsSequential:
		d.say("Your NAT has another port for each peer (symmetric), in steps of %d: peers can foretell it, and most get through.%s", f.Step, router)
		return "sequential"
	case crust.NATPortsBlock:
		d.say("Your NAT has another port for each peer (symmetric), from a block between %d and %d: peers that are not behind such a NAT can guess it.%s", f.Low, f.High, router)
		return "block"
	case crust.NATPortsRandom:
		d.say("Your NAT has another port for each peer (symmetric), random ones: peers at home get through by guessing, and another peer must relay between you and those behind such a NAT, too.%s", router)
		return "symmetric"
	}
	d.say("Your NAT has another port for each peer (symmetric).%s", router)
	return "symmetric"
}
