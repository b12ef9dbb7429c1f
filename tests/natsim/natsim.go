// Package natsim is a NAT that only computes: packets and the time go in, packets
// come out, translated, dropped or answered. It has no goroutine, no clock and no
// bytes, so the same NAT works in a virtual internet and between real kernels.
//
// It speaks of NATs in the words of RFC 4787 (UDP) and RFC 5382 (TCP), and knows
// what those RFCs forbid and routers do: ports that can be foretold, answers to
// strangers, state that strangers leave behind, and punishment of strangers.
package natsim

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Depends says on what of the other end a mapping or a filter depends (RFC 4787
// sections 4.1 and 5).
type Depends uint8

const (
	// Independent: one mapping for everybody; anybody may answer.
	Independent Depends = iota
	// OnAddress: by the other end's address.
	OnAddress
	// OnAddressPort: by the other end's address and port.
	OnAddressPort
)

// of returns the part of the other end on which it depends.
func (d Depends) of(remote netip.AddrPort) netip.AddrPort {
	switch d {
	case OnAddress:
		return netip.AddrPortFrom(remote.Addr(), 0)
	case OnAddressPort:
		return remote
	}
	return netip.AddrPort{}
}

// Ports says how the external port of a new mapping is chosen, always between Low
// and High but for a preserved one, and never one that another mapping has.
type Ports uint8

const (
	// Random: any.
	Random Ports = iota
	// Preserve: the internal port; where that is taken, any.
	Preserve
	// Sequential: the last one and Step.
	Sequential
)

// Strangers says what becomes of a packet from outside that no mapping and no
// filter lets in.
type Strangers uint8

const (
	// Drop: nothing.
	Drop Strangers = iota
	// Refuse: it is answered, TCP by a reset, UDP by ICMP "port unreachable".
	Refuse
	// Accept: as Refuse, and a UDP packet leaves an entry as if the router itself
	// had talked to the stranger, as Linux does with an open INPUT chain: while it
	// lasts, what a host sends to the stranger comes from another port than the one
	// that the stranger had sent to.
	Accept
	// Punish: nothing, and all that comes from the stranger's address is dropped
	// for Punishment.
	Punish
)

// IPv6 says what becomes of IPv6, whose addresses are never translated.
type IPv6 uint8

const (
	// IPv6Off drops everything.
	IPv6Off IPv6 = iota
	// IPv6Firewall lets in what Filter lets in.
	IPv6Firewall
	// IPv6Open lets everything through.
	IPv6Open
)

// Config describes a NAT. The zero value is a "full cone" with random ports.
type Config struct {
	Mapping, Filter Depends
	Ports           Ports
	// Step is between two mappings, for Sequential. Zero means 1.
	Step int
	// Low and High bound the ports that are chosen, for blocks as those of
	// carriers. Zero means 1024 and 65535.
	Low, High uint16
	// Parity keeps even ports even and odd ports odd (RFC 4787 section 4.2.2).
	Parity bool
	// Noise is how many mappings a second others make who are not simulated. They
	// take ports of Sequential.
	Noise float64
	// TCP holds Mapping, Filter, Ports, Step, Low, High and Parity of TCP, where they
	// differ. Its other fields mean nothing.
	TCP *Config

	// UDPTimeout ends a mapping and a permission that nothing went out by for so
	// long. Zero means 30 s.
	UDPTimeout time.Duration
	// TCPTimeout is the same for a TCP connection that was answered. Zero means
	// 2 h 4 min (RFC 5382 REQ-5).
	TCPTimeout time.Duration
	// TCPOpening is the same for one that was not answered, or has ended. Zero
	// means 2 min, Linux's for SYN_SENT.
	TCPOpening time.Duration
	// InboundRefresh lets what comes in prolong as well (RFC 4787 REQ-6).
	InboundRefresh bool

	// Strangers is about uninvited packets, also those to ports without mappings.
	Strangers Strangers
	// Punishment is how long Punish lasts. Zero means 30 s.
	Punishment time.Duration
	// Hairpin lets packets from inside to an external endpoint come back in (RFC
	// 4787 REQ-9), from the sender's external endpoint.
	Hairpin bool
	// Arbitrary takes any external address for each mapping in place of one for all
	// (RFC 4787 section 4.1, "IP address pooling").
	Arbitrary bool
	// NoUDP drops UDP in both directions.
	NoUDP bool
	// Firewall translates nothing: addresses inside are public ones, and only the
	// filter works.
	Firewall bool
	// IPv6 is what happens to IPv6.
	IPv6 IPv6
	// Addresses is how many external addresses the NAT gets from laboratories that
	// choose them. Zero means 2. At most 200.
	Addresses int
}

const (
	firstPort, lastPort = 1024, 65535
	defaultUDPTimeout   = 30 * time.Second
	defaultTCPTimeout   = 2*time.Hour + 4*time.Minute
	defaultTCPOpening   = 2 * time.Minute
	defaultPunishment   = 30 * time.Second
	defaultAddresses    = 2
	mostAddresses       = 200
	// afterReset is how long a connection stays known that was reset (Linux's
	// nf_conntrack_tcp_timeout_close).
	afterReset = 10 * time.Second
	// Bounds of the tables.
	mostMappings = 1 << 14
	mostSessions = 1 << 12 // of one mapping
	mostMarks    = 1 << 14 // of strangers, each of punished and of polluting ones
)

// Count returns how many external addresses the NAT gets.
func (c *Config) Count() int {
	if c.Addresses == 0 {
		return defaultAddresses
	}
	return c.Addresses
}

// Check tells what is wrong with a configuration.
func (c *Config) Check() error {
	c = c.withDefaults()
	for _, d := range []time.Duration{c.UDPTimeout, c.TCPTimeout, c.TCPOpening, c.Punishment} {
		if d < 0 {
			return errors.New("a NAT's times are at least 0")
		}
	}
	switch {
	case !(c.Noise >= 0 && c.Noise <= 1e6):
		return errors.New("noise is between 0 and 1000000 mappings a second")
	case c.Addresses < 0 || c.Addresses > mostAddresses:
		return fmt.Errorf("a NAT has at most %d addresses", mostAddresses)
	case c.Strangers > Punish || c.IPv6 > IPv6Open:
		return errors.New("there is no such way with strangers or with IPv6")
	}
	return errors.Join(c.checkRules(), c.TCP.checkRules())
}

// checkRules checks what UDP and TCP may have different.
func (c *Config) checkRules() error {
	switch {
	case c.Mapping > OnAddressPort || c.Filter > OnAddressPort || c.Ports > Sequential:
		return errors.New("there is no such mapping, filter or choice of ports")
	case c.Low == 0 || c.Low > c.High:
		return fmt.Errorf("there are no ports from %d to %d", c.Low, c.High)
	case c.Step < -30_000 || c.Step > 30_000:
		return errors.New("a step is between -30000 and 30000")
	}
	return nil
}

func (c Config) withDefaults() *Config {
	tcp := c
	if c.TCP != nil {
		tcp = *c.TCP
	}
	c.ruleDefaults()
	tcp.ruleDefaults()
	c.TCP = &tcp
	for _, d := range []struct {
		at    *time.Duration
		usual time.Duration
	}{
		{&c.UDPTimeout, defaultUDPTimeout}, {&c.TCPTimeout, defaultTCPTimeout},
		{&c.TCPOpening, defaultTCPOpening}, {&c.Punishment, defaultPunishment},
	} {
		if *d.at == 0 {
			*d.at = d.usual
		}
	}
	return &c
}

func (c *Config) ruleDefaults() {
	if c.Step == 0 {
		c.Step = 1
	}
	if c.Low == 0 {
		c.Low = firstPort
	}
	if c.High == 0 {
		c.High = lastPort
	}
}

// Protocol is a transport protocol by its number in IP.
type Protocol uint8

const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// Flags are those of a TCP segment, as bits of its header (RFC 9293).
type Flags uint8

const (
	FIN Flags = 1
	SYN Flags = 2
	RST Flags = 4
	ACK Flags = 16
)

// Packet is what a NAT sees of one. Its TTL is the caller's.
type Packet struct {
	Protocol Protocol
	From, To netip.AddrPort
	Flags    Flags  // of TCP
	Seq      uint32 // of a SYN
}

// Answer is what the router itself sends back to a packet's source, as from its
// destination.
type Answer uint8

const (
	// NoAnswer: nothing.
	NoAnswer Answer = iota
	// Reset: a TCP reset.
	Reset
	// Unreachable: ICMP "port unreachable" (RFC 792, RFC 4443).
	Unreachable
)

// Result says what becomes of a packet.
type Result struct {
	// Pass lets Packet go on. Otherwise it is dropped, and answered by Answer.
	Pass   bool
	Packet Packet
	// Inside: it goes inside. So does a packet from inside that takes the hairpin.
	Inside bool
	Answer Answer
}
