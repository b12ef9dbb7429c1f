package simnet

import "net/netip"

// family is a port of a host in one family: what a NAT has one mapping for.
type family struct {
	port uint16
	is4  bool
}

func familyOf(a netip.AddrPort) family { return family{a.Port(), a.Addr().Is4()} }

// nat is where datagrams go that are sent to a visible address.
type nat struct {
	host *Host
	port uint16
}

// Rebind puts a NAT before one port of the host, or makes the one that is there
// forget: from now on, datagrams that the host sends to others from that UDP
// port, in the family of visible, come from visible; those sent to visible
// reach it, and those sent to where it was seen before are lost, also those under
// way. The address may be one that no host has. Where something is visible
// already, Rebind panics: the test is wrong.
func (h *Host) Rebind(port uint16, visible netip.AddrPort) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	visible = netip.AddrPortFrom(visible.Addr().Unmap(), visible.Port())
	owner := h.net.hosts[visible.Addr()]
	if h.net.nats[visible] != nil || owner != nil && owner != h || visible.Port() == 0 {
		panic("simnet: " + visible.String() + " is taken")
	}
	inside := family{port, visible.Addr().Is4()}
	delete(h.net.nats, h.visible[inside])
	h.visible[inside] = visible
	h.net.nats[visible] = &nat{h, port}
}

// Unbind takes the NAT before a port away, in both families.
func (h *Host) Unbind(port uint16) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	for _, is4 := range []bool{true, false} {
		inside := family{port, is4}
		delete(h.net.nats, h.visible[inside])
		delete(h.visible, inside)
	}
}

// behind returns the host that datagrams to an address go to, or nil.
func (n *Net) behind(to netip.AddrPort) *Host {
	if nat := n.nats[to]; nat != nil {
		return nat.host
	}
	return n.hosts[to.Addr()]
}

// seen returns how others see a source of the host.
func (h *Host) seen(from netip.AddrPort) netip.AddrPort {
	if visible, ok := h.visible[familyOf(from)]; ok {
		return visible
	}
	return from
}

// reached returns the socket of the host that a datagram from a host arrives
// at, or nil.
func (h *Host) reached(to netip.AddrPort, from *Host) *packetConn {
	nat := h.net.nats[to]
	switch {
	case nat != nil && nat.host == h:
		inside := h.source(nil, to.Addr())
		if !inside.IsValid() {
			inside = to.Addr()
		}
		return h.socket(netip.AddrPortFrom(inside, nat.port))
	case from != h && h.seen(to) != to:
		return nil // the NAT lets nothing through that was not sent to it
	}
	return h.socket(to)
}
