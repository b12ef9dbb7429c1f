package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	crust "github.com/libcrust/libcrust/core"
)

// doctorReport is what doctor found: a nat, what else stands between this machine and
// others, and what it means.
type doctorReport struct {
	natReport
	Health     string             `json:"health"` // healthy, limited or broken
	Kind       string             `json:"kind"`
	Advice     []string           `json:"advice"`
	Expect     []expectation      `json:"expect"`
	Peers      int                `json:"peers"`
	Helpers    []helperReport     `json:"helpers"`
	Servers    []serverReport     `json:"servers"`
	Seen       []seenReport       `json:"seen"`
	Interfaces []networkInterface `json:"interfaces"`
	MTU        mtuReport          `json:"mtu"`
	Clock      clockReport        `json:"clock"`
}

// helperReport is how connecting to a peer that was named has ended.
type helperReport struct {
	Contact string  `json:"contact"`
	Peer    string  `json:"peer"` // "" when it was not reached
	Took    float64 `json:"took_ms"`
	Code    string  `json:"code"`
	Error   string  `json:"error"` // "" for none
}

// serverReport is what a server of STUN has said.
type serverReport struct {
	Server string `json:"server"`
	Seen   string `json:"seen"`  // "" for nothing
	Error  string `json:"error"` // "" for none
}

// seenReport is how one peer sees this machine.
type seenReport struct {
	Peer     crust.PeerID   `json:"peer"`
	From     netip.AddrPort `json:"from"` // where the peer is
	Endpoint crust.Endpoint `json:"endpoint"`
}

func (*doctorReport) name() string { return "doctor" }

// doctorOf says what a report of the NATs means.
func doctorOf(r crust.NATReport, peers int) *doctorReport {
	d := diagnose(r)
	out := &doctorReport{
		natReport: *natOf(r).(*natReport), Kind: d.kind, Advice: d.advice, Expect: d.expect, Health: d.health, Peers: peers,
		Helpers: []helperReport{}, Servers: []serverReport{}, Seen: []seenReport{}, Interfaces: []networkInterface{},
	}
	for _, s := range r.Servers {
		one := serverReport{Server: s.Server}
		if s.Seen.IsValid() {
			one.Seen = s.Seen.String()
		}
		if s.Err != nil {
			one.Error = s.Err.Error()
		}
		out.Servers = append(out.Servers, one)
	}
	for _, s := range r.Seen {
		out.Seen = append(out.Seen, seenReport{s.Peer, s.From, s.At})
	}
	return out
}

// conclude puts what is wrong with the machine itself before what is said of NATs, and
// what could be better behind it.
func (r *doctorReport) conclude(e *examination, facts crust.NATReport) {
	known := len(facts.UDP.External)+len(facts.TCP.External) > 0
	alone := len(e.contacts)+len(e.flags.stun) == 0
	all := func(code crust.Code) bool {
		return len(r.Helpers) > 0 && !slices.ContainsFunc(r.Helpers, func(h helperReport) bool { return h.Code != code.String() })
	}
	broken := func(kind, format string, arguments ...any) {
		r.Health, r.Kind, r.Expect = broken, kind, []expectation{}
		r.Advice = []string{fmt.Sprintf(format, arguments...)}
	}
	forbidden := slices.IndexFunc(r.Helpers, func(h helperReport) bool { return h.Code == crust.CodePermission.String() })
	switch {
	case r.Peers > 0 || known:
	case e.refused != nil && !e.listening:
		broken("no-permission", "The system forbids this program to use the network (%s). Look at the sandbox or container that it runs in (seccomp, AppArmor, SELinux, snap, systemd) and let it open sockets.", oneLine(e.refused))
	case forbidden >= 0:
		broken("no-permission", "The system forbids this program to send (%s). Look at the firewall and the routes of this machine, and let it out.", r.Helpers[forbidden].Error)
	case !connected(e.interfaces) && !e.local():
		broken("no-network", "There is no network: no interface of this machine is up and has an address. Plug in the cable, join the wireless network, or look at the network settings.")
	case all(crust.CodeUnreachable):
		broken("no-route", "This machine has an address, but no way leads from it to the helpers. Look at the default route, the router and the VPN.")
	case alone:
		r.Kind = "no-helper"
		r.Advice = []string{"No helper was named, so what others see of this machine is not known: name peers in three different networks, such as crust doctor 203.0.113.5:5483, or a server by --stun."}
		if mapped := mappedOf(facts); len(mapped) > 0 {
			r.Advice = append(r.Advice, "Your router says that peers reach you at "+strings.Join(mapped, " and ")+".")
		}
	default:
		broken("no-answer", "None of the helpers has answered: is the network's name right, are they running, and does a firewall let this program out?")
	}
	r.judgeMachine()
}

// judgeMachine says what could be better about the machine itself.
func (r *doctorReport) judgeMachine() {
	say := func(format string, arguments ...any) { r.Advice = append(r.Advice, fmt.Sprintf(format, arguments...)) }
	c := r.Clock
	switch {
	case !c.Plausible:
		say("The clock of this machine says %s, which cannot be: peers refuse connection infos, which expire after 24 hours. Set it.", c.Time)
		if r.Health == healthy {
			r.Health = limited
		}
	case c.Stepped != 0:
		say("The clock was set by %.0f ms while doctor looked. That is well if it happens once.", c.Stepped)
	case c.Synchronized != nil && !*c.Synchronized:
		say("Nobody sets the clock of this machine. A day's error makes connection infos useless: turn on time synchronisation (NTP).")
	}
	if m := r.MTU; m.Path > 0 && m.Path < 1280 {
		say("Packets of more than %d bytes do not pass on the way to %s: raise the MTU of the tunnel or VPN to 1280 at least.", m.Path, m.To)
	}
}

// statusError is an exit code without a sentence: the output has said it all.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// status returns the exit code as an error, nil when all is well.
func (r *doctorReport) status() error {
	switch r.Health {
	case limited:
		return statusError(exitLimited)
	case broken:
		return statusError(exitBroken)
	}
	return nil
}

func (r *doctorReport) text() string {
	lines := []string{"", "Interfaces:"}
	for _, i := range r.Interfaces {
		lines = append(lines, "  "+i.text())
	}
	if len(r.Interfaces) == 0 {
		lines = append(lines, "  none is up and has an address")
	}
	lines = append(lines, "", r.natReport.text())
	if len(r.Mapped) == 0 {
		lines = append(lines, "no router was asked to map ports")
	}
	lines = append(lines, "", "Seen from outside:")
	lines = append(lines, r.seenText()...)
	lines = append(lines, "", "Clock: "+r.Clock.text(), "MTU: "+r.MTU.text())
	if len(r.Expect) > 0 {
		lines = append(lines, "", "How peers are met that are:")
		for _, x := range r.Expect {
			lines = append(lines, fmt.Sprintf("  %-46s %s", x.words(), x.Way))
		}
	}
	lines = append(lines, "", r.Kind+":")
	for _, sentence := range r.Advice {
		lines = append(lines, "  "+sentence)
	}
	return strings.Join(append(lines, "", "health: "+r.Health), "\n")
}

// seenText says who has seen what.
func (r *doctorReport) seenText() (lines []string) {
	for _, s := range r.Seen {
		lines = append(lines, fmt.Sprintf("  %s by %s at %s", s.Endpoint, s.Peer.Short(), s.From))
	}
	for _, s := range r.Servers {
		if s.Error != "" {
			lines = append(lines, "  "+s.Server+": "+s.Error)
		} else if s.Seen != "" {
			lines = append(lines, "  "+s.Server+" sees "+s.Seen)
		}
	}
	if len(lines) == 0 {
		lines = []string{"  nobody has told what he sees"}
	}
	return lines
}

// text describes the interface for people.
func (i *networkInterface) text() string {
	var b strings.Builder
	b.WriteString(i.Name + ":")
	for n, a := range i.Addresses {
		if n > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s (%s)", a.Address, a.Scope)
	}
	fmt.Fprintf(&b, ", MTU %d", i.MTU)
	if i.Out {
		b.WriteString(", leads out")
	}
	return b.String()
}

// text describes the clock for people.
func (c *clockReport) text() string {
	switch {
	case !c.Plausible:
		return c.Time + ", which cannot be"
	case c.Synchronized == nil:
		return c.Time + "; whether it is right is not known"
	case !*c.Synchronized:
		return c.Time + ", not synchronised"
	}
	return fmt.Sprintf("%s, synchronised, wrong by %.0f ms at most", c.Time, *c.Error)
}

// text describes the size of packets for people.
func (m *mtuReport) text() string {
	switch {
	case m.Interface == 0:
		return "not known, since nothing leads out"
	case m.Path == 0:
		return fmt.Sprintf("%d bytes at the interface that leads out; on the way it was not measured", m.Interface)
	case m.Confirmed:
		return fmt.Sprintf("%d bytes at the interface that leads out, %d on the way to %s, confirmed", m.Interface, m.Path, m.To)
	}
	return fmt.Sprintf("%d bytes at the interface that leads out, %d on the way to %s as far as routers tell", m.Interface, m.Path, m.To)
}
