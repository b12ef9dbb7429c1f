package crust

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// NATDepends says on what of the other end a NAT's mapping or filtering depends
// (RFC 4787 sections 4.1 and 5).
type NATDepends uint8

const (
	NATUnknown              NATDepends = iota // not found out
	NATEndpointIndependent                    // on nothing
	NATAddressDependent                       // on its address
	NATAddressPortDependent                   // on its address and port
)

// String returns "unknown", "endpoint-independent", "address-dependent" or
// "address-and-port-dependent".
func (d NATDepends) String() string {
	return wordOf(d, "unknown", "endpoint-independent", "address-dependent", "address-and-port-dependent")
}

// NATPorts says how a NAT chooses the external port of a new mapping.
type NATPorts uint8

const (
	NATPortsUnknown    NATPorts = iota // not found out
	NATPortsPreserving                 // the internal port, where that is free
	NATPortsSequential                 // the last one and NATFlow.Step
	NATPortsBlock                      // any of NATFlow.Low to High
	NATPortsRandom                     // any
)

// String returns "unknown", "preserving", "sequential", "block" or "random".
func (p NATPorts) String() string {
	return wordOf(p, "unknown", "preserving", "sequential", "block", "random")
}

// NATHairpin says whether what this machine sends to its own external endpoint comes
// back to it, as two peers behind the same NAT need.
type NATHairpin uint8

const (
	NATHairpinUnknown NATHairpin = iota // not tried
	NATHairpinNo
	NATHairpinYes
)

// String returns "unknown", "no" or "yes".
func (h NATHairpin) String() string { return wordOf(h, "unknown", "no", "yes") }

// wordOf returns the word of a number, or the number where it has none.
func wordOf[T ~uint8](n T, words ...string) string {
	if int(n) < len(words) {
		return words[n]
	}
	return fmt.Sprint(uint8(n))
}

// NATFlow is what is known of the NAT between us and others, of one transport
// protocol. The zero value knows nothing.
type NATFlow struct {
	// Confidence is "none", "tentative" or "confirmed": how many peers in different
	// networks agree on the external address, and on the mapping where it is known.
	Confidence string
	// None says that there is no NAT: others see one of this machine's addresses and
	// the port that the socket has. Filtering is then a firewall's.
	None      bool
	Mapping   NATDepends
	Filtering NATDepends
	Ports     NATPorts
	// Step is between two mappings made one after the other; not zero for NATPortsSequential, and zero otherwise.
	Step int
	// Low and High bound the ports, for NATPortsBlock; otherwise both are zero.
	Low, High uint16
	// Near says that no peer on the Internet has told anything: the rest is about what
	// lies between this machine and a smaller network.
	Near bool
	// Double says that there is a second NAT behind the first: the router's own external
	// address is not the one that others see. Without a port mapper it is not known.
	Double bool
	// Blocked says that nothing of this protocol gets through: peers in two networks or
	// more are there by the other one, and none has answered.
	Blocked bool
	Hairpin NATHairpin
	// External are this machine's endpoints as others have seen them, those that
	// most say first; at most 16.
	External []netip.AddrPort
}

// NATReport is what a service has learned about the NATs in front of it, of the
// address family about which more is known; of both, IPv4. Facts come from the peers
// that it is connected to: it knows nothing before there are any, and more is found
// out when it is needed to connect. They are forgotten when this machine's addresses
// change.
type NATReport struct {
	UDP, TCP NATFlow
	// Reachable says that somebody on the Internet has reached this service unasked,
	// within the last hour. False means that nobody has so far, not that nobody could.
	Reachable bool
	// Why says in a few words what proves that, or why there is no proof.
	Why string
	// CGNAT says that the NAT that others see is a provider's and not the user's: this
	// machine or its router has an address of the block for those (RFC 6598), or there
	// are two NATs in a row. A router can map no ports of a provider's NAT.
	CGNAT bool
	// Mapped are the ports that routers pass on to the listeners, and those that they
	// do not, in the order in which the listeners were started. It is empty when port
	// mapping is off, and when no listener is for others.
	Mapped []MappedPort
	// Pending says that more is being found out now, or will be in a moment.
	Pending bool
	// Servers are those of Config.STUN, in that order.
	Servers []NATServer
	// Seen is who has said what, of the peers that are connected now and not over a
	// relay, in the order of their ids, TCP first; at most MaxNATSeen. Each speaks for
	// itself: External is what comes of it all.
	Seen []NATSeen
}

// MaxNATSeen bounds NATReport.Seen.
const MaxNATSeen = 256

// NATSeen is how one peer sees this service.
type NATSeen struct {
	Peer PeerID
	// From is the peer's end of its link, with which it looks.
	From netip.AddrPort
	// At is this service's endpoint as the peer has seen it last. Over TCP it is our
	// end of a link that was dialled, or the listener.
	At Endpoint
}

// NAT returns what is known now. It sends nothing. After Stop it returns what was
// known last.
func (s *Service) NAT() NATReport {
	s.lookAround()
	ports, witnesses := s.mappedPorts(), s.witnesses()
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	now := time.Now()
	r := NATReport{UDP: s.flow(observe.UDP, now), TCP: s.flow(observe.TCP, now), Mapped: ports}
	r.CGNAT = s.watch.machine.Carrier(now)
	r.Pending = s.ctx.Err() == nil && (s.watch.surveys.due || s.watch.surveys.running)
	r.Servers = s.watch.serversOf()
	r.Seen = seenBy(witnesses)
	proof, reached := s.watch.machine.Reachable(now)
	switch {
	case reached:
		r.Reachable, r.Why = true, proof.String()
	case len(r.UDP.External)+len(r.TCP.External) == 0:
		r.Why = "no peer has told yet what it sees"
	case s.watch.tried[observe.UDP]+s.watch.tried[observe.TCP] > 0:
		r.Why = "peers were asked to reach us, and nothing of them has come"
	default:
		r.Why = "nobody on the Internet has come unasked within the last hour"
	}
	return r
}

// witness is a peer that may have said as what it sees us.
type witness struct {
	peer *peer
	from netip.AddrPort
}

// witnesses returns the peers with a link of their own, in the order of their ids.
func (s *Service) witnesses() (list []witness) {
	s.lookup.RLock()
	for _, p := range s.peers {
		if p.how != Relayed {
			list = append(list, witness{p, p.endpoint.Addr})
		}
	}
	s.lookup.RUnlock()
	slices.SortFunc(list, func(a, b witness) int { return a.peer.id.Compare(b.peer.id) })
	return list
}

// seenBy returns what they have said. watch.mu is held.
func seenBy(list []witness) (seen []NATSeen) {
	for _, w := range list {
		if at := w.peer.saw[observe.TCP]; at.IsValid() {
			seen = append(seen, NATSeen{w.peer.id, w.from, endpoint.New(TCP, at)})
		}
		if at := w.peer.saw[observe.UDP]; at.IsValid() {
			seen = append(seen, NATSeen{w.peer.id, w.from, endpoint.New(UTP, at)})
		}
	}
	return seen[:min(len(seen), MaxNATSeen)]
}

// flow returns what is known of a protocol. watch.mu is held.
func (s *Service) flow(p observe.Proto, now time.Time) NATFlow {
	v := s.watch.machine.Verdict(observe.Flow{Proto: p}, now)
	if len(v.External) == 0 {
		if v6 := s.watch.machine.Verdict(observe.Flow{Proto: p, IPv6: true}, now); len(v6.External) > 0 || v6.Blocked && !v.Blocked {
			v = v6
		}
	}
	f := NATFlow{
		Confidence: v.Confidence.String(), None: v.None, Mapping: NATDepends(v.NAT.Mapping), Filtering: NATDepends(v.NAT.Filtering),
		Ports: NATPorts(v.NAT.Ports), Near: v.Near, Double: v.NAT.Double, Blocked: v.Blocked,
	}
	if v.HairpinKnown {
		f.Hairpin = NATHairpinNo
		if v.NAT.Hairpin {
			f.Hairpin = NATHairpinYes
		}
	}
	switch v.NAT.Ports {
	case wire.PortsSequential:
		f.Step = int(v.NAT.Step)
	case wire.PortsBlock:
		f.Low, f.High = v.NAT.Low, v.NAT.High
	}
	for _, e := range v.External {
		f.External = append(f.External, e.Addr)
	}
	return f
}
