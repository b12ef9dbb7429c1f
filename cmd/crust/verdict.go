package main

import (
	"fmt"
	"strings"

	crust "github.com/libcrust/libcrust/core"
)

// diagnosis is what doctor makes of a NATReport: a word for programs, and sentences
// for people, of which each says what is so and what can be done about it.
type diagnosis struct {
	kind   string
	advice []string
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
	if len(flow.External) == 0 {
		d.kind = "unknown"
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
