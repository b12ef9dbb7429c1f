// Package natlab puts real programs and kernels behind NATs: two sides, each behind
// a NAT of some kind, and public hosts between them, in network namespaces. A NAT is
// the kernel's, by nftables, or natsim's, by the router of linklab, for what kernels
// cannot do. Measure finds out what a NAT is like by packets alone, so that a test
// knows that it meets the NAT that it asked for.
//
// Everything belongs to the process: nothing is left behind when it ends.
package natlab

import (
	"fmt"
	"strings"

	"github.com/libcrust/libcrust/tests/natsim"
)

// Kind is a kind of NAT.
type Kind struct {
	Name string
	// Words are those of natsim.Parse, for linklab's router. Empty for a kernel's.
	Words string
	// Carrier are words of a second NAT outside, always linklab's.
	Carrier string
	// Rules are those of nftables in a kernel's router, whose outer interface is
	// "link0" and whose inner one is "lan".
	Rules string
	// Mapper is how miniupnpd on a kernel's router is configured; empty: there is none.
	Mapper string
	// HostRules are those of nftables in the machine itself: a firewall on it.
	HostRules string
	// IPv6 has Measure look at IPv6.
	IPv6 bool
	// Public has no NAT at all.
	Public bool
	// Want is what Measure should find.
	Want Facts
}

// Facts are what a NAT does to one transport protocol.
type Facts struct {
	// Blocked: nothing of it gets out, and the other facts mean nothing.
	Blocked            bool
	Mapping, Filtering natsim.Depends
	Ports              Ports
	Step               int // of Sequential
	Strangers          Strangers
	Hairpin            bool
}

// Ports says how external ports are chosen, as far as packets show.
type Ports string

// The ways of choosing ports.
const (
	Preserving Ports = "preserving"
	Sequential Ports = "sequential"
	Block      Ports = "block" // at random from at most 2,048
	Random     Ports = "random"
)

// Strangers says what uninvited packets do, as far as packets show.
type Strangers string

// The ways with strangers.
const (
	Dropped  Strangers = "dropped"
	Refused  Strangers = "refused"  // and told so
	Polluted Strangers = "polluted" // and told so; later the mapping for him is another one
	Punished Strangers = "punished" // for a while nothing of his address passes
	Admitted Strangers = "admitted" // the filter lets everybody in, so there are none
)

// kernel returns the rules of a kernel's NAT. What hosts inside begin may pass; what
// is for the router itself meets the rules of input.
func kernel(nat, input string) string {
	return fmt.Sprintf(`table ip natlab {
	map udp4 { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 5m; size 65535; }
	map tcp4 { type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 2h; size 65535; }
%s
	chain input {
		type filter hook input priority filter; policy accept;
		iifname != "link0" accept
		ct state established,related accept
%s
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname "lan" accept
		ct state established,related accept
		ct status dnat accept
	}
}
`, nat, input)
}

func masquerade(how string) string {
	return `	chain prerouting { type nat hook prerouting priority dstnat; policy accept; }
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "link0" meta l4proto { tcp, udp } masquerade ` + how + `
	}`
}

const (
	// fullCone sends what comes to a port to the host that last sent from it.
	fullCone = `	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "link0" meta l4proto udp dnat ip to udp dport map @udp4
		iifname "link0" meta l4proto tcp dnat ip to tcp dport map @tcp4
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "link0" meta l4proto udp update @udp4 { udp sport : ip saddr . udp sport }
		oifname "link0" meta l4proto tcp update @tcp4 { tcp sport : ip saddr . tcp sport }
		oifname "link0" masquerade
	}`
	// noUDP lets no UDP through.
	noUDP = `
	chain block { type filter hook forward priority -1; meta l4proto udp drop; }`
	inputDrop   = `		drop`
	inputReset  = "		meta l4proto tcp reject with tcp reset\n		reject with icmp port-unreachable"
	inputAccept = `		accept`
)

// hostFirewall is what a machine has that lets in answers alone.
const hostFirewall = `table inet natlab {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state established,related accept
	}
}
`

// facts of the usual NATs.
var (
	home = Facts{Mapping: natsim.Independent, Filtering: natsim.OnAddressPort, Ports: Preserving, Strangers: Dropped}
	cone = Facts{Mapping: natsim.Independent, Filtering: natsim.Independent, Ports: Preserving, Strangers: Admitted}
	hard = Facts{Mapping: natsim.OnAddressPort, Filtering: natsim.OnAddressPort, Ports: Random, Strangers: Dropped}
)

// but returns facts with a change.
func (f Facts) but(change func(*Facts)) Facts {
	change(&f)
	return f
}

func strangers(s Strangers) func(*Facts) { return func(f *Facts) { f.Strangers = s } }
func ports(p Ports, step int) func(*Facts) {
	return func(f *Facts) { f.Ports, f.Step = p, step }
}

// Kinds are those that the laboratory knows.
var Kinds = []Kind{
	{Name: "public", Public: true, Want: Facts{Ports: Preserving, Strangers: Admitted}},

	{Name: "kernel-home", Rules: kernel(masquerade(""), inputDrop), Want: home},
	{Name: "kernel-home-reset", Rules: kernel(masquerade(""), inputReset), Want: home.but(strangers(Refused))},
	{Name: "kernel-home-accept", Rules: kernel(masquerade(""), inputAccept), Want: home.but(strangers(Polluted))},
	{Name: "kernel-full-cone", Rules: kernel(fullCone, inputDrop), Want: cone},
	{Name: "kernel-symmetric", Rules: kernel(masquerade("fully-random"), inputDrop), Want: hard},
	{Name: "kernel-block", Rules: kernel(masquerade("to :40000-40511 fully-random"), inputDrop), Want: hard.but(ports(Block, 0))},

	{Name: "kernel-symmetric-upnp", Rules: mapped("fully-random", ""), Mapper: "enable_upnp=yes\nenable_natpmp=no", Want: hard},
	{Name: "kernel-symmetric-nat-pmp", Rules: mapped("fully-random", noPCP), Mapper: "enable_upnp=no\nenable_natpmp=yes", Want: hard},
	{Name: "kernel-symmetric-pcp", Rules: mapped("fully-random", ""), Mapper: "enable_upnp=no\nenable_natpmp=yes", Want: hard},

	{Name: "home", Words: "home", Want: home},
	{Name: "home-reset", Words: "home strangers=refuse", Want: home.but(strangers(Refused))},
	{Name: "home-accept", Words: "home strangers=accept", Want: home.but(strangers(Polluted))},
	{Name: "home-punish", Words: "home strangers=punish", Want: home.but(strangers(Punished))},
	{Name: "home-hairpin", Words: "full-cone ports=preserve hairpin=on", Want: cone.but(func(f *Facts) { f.Hairpin = true })},
	{Name: "full-cone", Words: "full-cone ports=preserve", Want: cone},
	{Name: "restricted", Words: "restricted", Want: home.but(func(f *Facts) { f.Filtering = natsim.OnAddress })},
	{Name: "symmetric-address", Words: "mapping=address filter=address", Want: hard.but(func(f *Facts) {
		f.Mapping, f.Filtering = natsim.OnAddress, natsim.OnAddress
	})},
	{Name: "symmetric", Words: "symmetric", Want: hard},
	{Name: "sequential", Words: "sequential", Want: hard.but(ports(Sequential, 1))},
	{Name: "sequential-down", Words: "sequential step=-2", Want: hard.but(ports(Sequential, -2))},
	{Name: "sequential-5", Words: "sequential noise=5", Want: hard.but(ports(Sequential, 1))},
	{Name: "sequential-10", Words: "sequential noise=10", Want: hard.but(ports(Sequential, 1))},
	{Name: "sequential-20", Words: "sequential noise=20", Want: hard.but(ports(Sequential, 1))},
	{Name: "block", Words: "block", Want: hard.but(ports(Block, 0))},
	{Name: "kernel-udp-blocked", Rules: kernel(masquerade("")+noUDP, inputDrop), Want: home},
	{Name: "kernel-firewall", HostRules: hostFirewall, Want: home},
	{Name: "kernel-firewall-ipv6", HostRules: hostFirewall, IPv6: true, Want: home},
	{Name: "firewall", Words: "firewall", Want: home},
	{Name: "firewall-ipv6", Words: "home ipv6=firewall", IPv6: true, Want: home},
	{Name: "firewall-ipv6-reset", Words: "home strangers=refuse ipv6=firewall", IPv6: true, Want: home.but(strangers(Refused))},
	{Name: "udp-blocked", Words: "home udp=off", Want: home},
	{Name: "kernel-symmetric-udp-blocked", Rules: kernel(masquerade("fully-random")+noUDP, inputDrop), Want: hard},
	{Name: "symmetric-udp-blocked", Words: "symmetric udp=off", Want: hard},
	{Name: "home-in-hairpin", Words: "home", Carrier: "home hairpin=on", Want: home.but(func(f *Facts) { f.Hairpin = true })},
	{Name: "home-in-carrier", Words: "home", Carrier: "home", Want: home},
	{Name: "home-in-sequential", Words: "home", Carrier: "sequential", Want: hard.but(ports(Sequential, 1))},
}

// ByName returns a kind that the laboratory knows.
func ByName(name string) (Kind, error) {
	var names []string
	for _, k := range Kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, fmt.Errorf("there is no NAT %q; there are %s", name, strings.Join(names, ", "))
}
