package simnet

import (
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/tests/natsim"
)

// defaultTTL is the TTL of a datagram that says nothing else (RFC 1700).
const defaultTTL = 64

// Router has hosts behind it, whose packets to others it translates or filters as
// its NAT does. Addresses behind one router are unknown elsewhere, and may be used
// again behind another; but those that the NAT does not translate, of IPv6 and
// behind a firewall, are routed to it. All methods may be called from any
// goroutine.
type Router struct {
	node  *Host // what it is to others: has its external addresses
	nat   *natsim.NAT
	plain bool // IPv4 is not translated
	hosts map[netip.Addr]*Host
}

// NAT adds a router with external addresses, of which it uses the first until a
// Reboot takes the next. A configuration that is wrong, or an address that is taken,
// makes NAT panic: the test is wrong.
func (n *Net) NAT(c natsim.Config, addrs ...string) *Router { return n.nat(nil, c, addrs) }

// NAT adds a router behind this one.
func (r *Router) NAT(c natsim.Config, addrs ...string) *Router { return r.node.net.nat(r, c, addrs) }

func (n *Net) nat(outside *Router, c natsim.Config, addrs []string) *Router {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := &Router{node: n.host(outside, addrs), plain: c.Firewall, hosts: map[netip.Addr]*Host{}}
	r.node.gate = r
	var external []netip.Addr
	for _, a := range r.node.addrs {
		if a.Is4() && !a.IsLoopback() {
			external = append(external, a)
		}
	}
	nat, err := natsim.New(c, external, n.seed^uint64(r.node.number)<<32)
	if err != nil {
		panic("simnet: " + err.Error())
	}
	r.nat = nat
	return r
}

// Host adds a machine behind the router, as Net.Host does.
func (r *Router) Host(addrs ...string) *Host {
	n := r.node.net
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.host(r, addrs)
}

// Node is the router as a machine, for SetLink, Cut and the like: with a host behind
// it, or with another machine outside. What listens there is never reached.
func (r *Router) Node() *Host { return r.node }

// External is the address that new mappings get.
func (r *Router) External() netip.Addr {
	r.node.net.mu.Lock()
	defer r.node.net.mu.Unlock()
	return r.nat.External()
}

// Reboot has the NAT forget everything, and with address take its next external
// address.
func (r *Router) Reboot(address bool) {
	r.node.net.mu.Lock()
	defer r.node.net.mu.Unlock()
	r.nat.Reboot(address)
}

// Forward forwards an external port to an endpoint behind the router, as a mapping
// asked for by UPnP does. It reports false when another endpoint has the port.
func (r *Router) Forward(p natsim.Protocol, port uint16, to netip.AddrPort) bool {
	r.node.net.mu.Lock()
	defer r.node.net.mu.Unlock()
	return r.nat.Forward(p, port, to)
}

// Unforward takes it away.
func (r *Router) Unforward(p natsim.Protocol, port uint16) {
	r.node.net.mu.Lock()
	defer r.node.net.mu.Unlock()
	r.nat.Unforward(p, port)
}

// space returns where the addresses behind a router are, or the public ones.
func (n *Net) space(r *Router) map[netip.Addr]*Host {
	if r == nil {
		return n.hosts
	}
	return r.hosts
}

// enter gives a machine an address, and routes it from outside if it is not
// translated on the way. Called with the lock held.
func (n *Net) enter(h *Host, a netip.Addr) {
	for r := h.router; ; {
		space := n.space(r)
		if space[a] != nil {
			panic("simnet: the address " + a.String() + " is taken")
		}
		space[a] = h
		if r == nil || a.Is4() && !r.plain {
			return
		}
		h, r = r.node, r.node.router
	}
}

// next returns to whom a host sends what is for an address, or nil: itself, a
// neighbour or its router. Called with the lock held.
func (h *Host) next(to netip.AddrPort) *Host {
	switch {
	case to.Addr().IsLoopback():
		return h
	case h.router == nil:
		return h.net.behind(to)
	}
	if neighbour := h.router.hosts[to.Addr()]; neighbour != nil {
		return neighbour
	}
	return h.router.node
}

// decide lets the NAT decide about a packet that a neighbour sent to the router, and
// returns to whom it goes then. Called with the lock held.
func (r *Router) decide(from *Host, p natsim.Packet) (natsim.Result, *Host) {
	var result natsim.Result
	if from.router == r {
		result = r.nat.Out(time.Now(), p)
	} else {
		result = r.nat.In(time.Now(), p)
	}
	switch {
	case !result.Pass:
		return result, nil
	case result.Inside:
		return result, r.hosts[result.Packet.To.Addr()]
	}
	return result, r.node.next(result.Packet.To)
}

// receive takes a datagram that a neighbour sent. Called with the lock held.
func (h *Host) receive(d datagram, from *Host) {
	if d.cast {
		h.overhear(d)
		return
	}
	if h.gate == nil || from == h {
		if c := h.reached(d.to, from); c != nil {
			c.arrive(d)
		}
		return
	}
	if d.ttl--; d.ttl <= 0 {
		return
	}
	result, next := h.gate.decide(from, natsim.Packet{Protocol: natsim.UDP, From: d.from, To: d.to})
	if next == nil || next == h {
		return // an answer by ICMP means nothing to a socket without a peer
	}
	d.from, d.to = result.Packet.From, result.Packet.To
	h.net.link(h, next).air(h, next).push(d)
}

var _ netio.TTLWriter = (*packetConn)(nil)

// WriteTTL implements netio.TTLWriter: datagrams pass at most ttl-1 routers.
func (c *packetConn) WriteTTL(ttl int, ps []netio.Packets) error { return c.write(ttl, ps) }

// leg is a link of a way, and the machine from which it is entered.
type leg struct {
	*link
	from *Host
}

// path returns the links from one host to another, in order, and which of them is
// the outermost: the one whose buffers a stream has. Called with the lock held.
func (n *Net) path(a, b *Host) (legs []leg, middle *link) {
	up, down := a.above(), b.above()
	for len(up) > 1 && len(down) > 1 && up[len(up)-1] == down[len(down)-1] {
		up, down = up[:len(up)-1], down[:len(down)-1] // both are behind it
	}
	slices.Reverse(down)
	way := append(up, down...)
	for i, from := range way[:len(way)-1] {
		legs = append(legs, leg{n.link(from, way[i+1]), from})
	}
	return legs, legs[len(up)-1].link
}

// above returns the host and the routers that it is behind, from the inside out.
func (h *Host) above() []*Host {
	out := []*Host{h}
	for h.router != nil {
		h = h.router.node
		out = append(out, h)
	}
	return out
}

// passes walks a TCP packet through all NATs at once. It returns the host at which
// it arrives, and as what; or nil, and whether somebody answered by a reset. Called
// with the lock held.
func (n *Net) passes(from *Host, p natsim.Packet) (at *Host, arrived natsim.Packet, refused bool) {
	for at = from.next(p.To); at != nil && at != from && at.gate != nil; {
		result, next := at.gate.decide(from, p)
		if next == nil {
			return nil, p, result.Answer == natsim.Reset
		}
		from, at, p = at, next, result.Packet
	}
	return at, p, false
}
