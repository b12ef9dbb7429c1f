package linklab

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/natsim"
)

// RouterConfig describes a router with a NAT, its hosts and its link to the middle,
// or to the router that it is behind.
type RouterConfig struct {
	Name     string // unique among the routers, not empty
	NAT      NAT
	Up, Down Shape // of the link on its outer side
	// Behind names an earlier router, for two in a row.
	Behind string
}

// Router is one of a laboratory. Its methods may be called by any goroutine.
type Router struct{ node *node }

// node is what has a link: a host, with a NAT of its own or without, or a router.
type node struct {
	lab      *Lab
	name     string
	router   *node // it is behind, or nil
	external []netip.Addr
	config   *NAT // nil for none

	// Of the loop alone:
	up, down pipe
	nat      *natsim.NAT
	host     *Host                // nil for a router
	inside   map[netip.Addr]*node // of a router
}

// translates reports whether a NAT changes addresses of the family of a.
func translates(c *NAT, a netip.Addr) bool { return c != nil && !c.Firewall && a.Is4() }

// addRouter makes the i-th router.
func (l *Lab) addRouter(i int, c RouterConfig, config Config) error {
	if c.Name == "" || l.Router(c.Name) != nil {
		return errors.New("the name is empty or taken")
	}
	if err := errors.Join(c.Up.check(), c.Down.check(), c.NAT.Check()); err != nil {
		return err
	}
	index := len(config.Hosts) + i
	n := &node{
		lab: l, name: c.Name, config: &c.NAT, inside: map[netip.Addr]*node{},
		up: newPipe(c.Up, config.Seed, uint64(4*index)), down: newPipe(c.Down, config.Seed, uint64(4*index+1)),
	}
	address := public4
	if c.Behind != "" {
		above := l.Router(c.Behind)
		if above == nil {
			return fmt.Errorf("there is no router %q before it", c.Behind)
		}
		n.router, address = above.node, carrier4
	}
	for k := range c.NAT.Count() {
		n.external = append(n.external, address(index, k))
		l.enter(n, n.external[k])
	}
	l.routers = append(l.routers, &Router{n})
	var err error
	n.nat, err = natsim.New(c.NAT, n.external, config.Seed^uint64(index)<<32)
	return err
}

// enter lets packets to an address find a node: in the space that it is in, and
// where no NAT translates the address, from outside as well.
func (l *Lab) enter(n *node, a netip.Addr) {
	for ; n.router != nil; n = n.router {
		n.router.inside[a] = n
		if translates(n.router.config, a) {
			return
		}
	}
	l.byAddr[a] = n
}

// Routers returns the routers in the order of the configuration.
func (l *Lab) Routers() []*Router { return l.routers }

// Router returns the router of that name, or nil.
func (l *Lab) Router(name string) *Router {
	for _, r := range l.routers {
		if r.node.name == name {
			return r
		}
	}
	return nil
}

// Name is the name in the configuration.
func (r *Router) Name() string { return r.node.name }

// Public is the external address that new mappings get: behind another router a
// private one.
func (r *Router) Public() (a netip.Addr) {
	r.node.lab.order(func() { a = r.node.nat.External() })
	return a
}

// Reboot has the NAT forget everything, and with address take its next address.
func (r *Router) Reboot(address bool) {
	r.node.lab.order(func() { r.node.nat.Reboot(address) })
}

// Forward forwards an external port to an endpoint behind the router. It reports
// false when another endpoint has the port.
func (r *Router) Forward(p natsim.Protocol, port uint16, to netip.AddrPort) (ok bool) {
	r.node.lab.order(func() { ok = r.node.nat.Forward(p, port, to) })
	return ok
}

// Unforward takes it away.
func (r *Router) Unforward(p natsim.Protocol, port uint16) {
	r.node.lab.order(func() { r.node.nat.Unforward(p, port) })
}

// Change changes what the router's outer link does to packets, in both directions.
func (r *Router) Change(words ...string) error {
	return errors.Join(r.node.change(&r.node.up, words), r.node.change(&r.node.down, words))
}

// Counters returns those of both directions of the router's outer link.
func (r *Router) Counters() (up, down Counters) {
	r.node.lab.order(func() { up, down = r.node.up.count, r.node.down.count })
	return up, down
}

func (n *node) change(p *pipe, words []string) (err error) {
	n.lab.order(func() {
		shape := p.shape
		if err = shape.Set(words...); err == nil {
			p.reshape(shape)
		}
	})
	return err
}

// leave puts a packet from inside on a node's link.
func (l *Lab) leave(n *node, data []byte, now int64) {
	_, to, ok := addresses(data)
	switch {
	case n.inside[to] != nil:
		l.arrive(n.inside[to], data, now) // a neighbour's
		return
	case !ok || to.IsMulticast() || n.router == nil && l.byAddr[to] == nil:
		l.buffers.give(data) // nobody's
		return
	case !n.up.fits(len(data)):
		if n.host != nil && n.up.shape.ICMP && !n.up.shape.Cut {
			l.tell(n.host, data, n.up.shape.MTU)
		}
		l.buffers.give(data)
		return
	}
	if n.nat != nil {
		r := l.translate(n, data, now, true)
		if !r.Pass || r.Inside {
			l.turn(n, data, now, r, &n.up, n.inward)
			return
		}
	}
	l.schedule(&n.up, n, true, data, now)
}

// translate has a node's NAT decide about a packet.
func (l *Lab) translate(n *node, data []byte, now int64, out bool) natsim.Result {
	if !age(data, 1) {
		return natsim.Result{}
	}
	return translate(n.nat, l.start.Add(time.Duration(now)), data, out)
}

// turn is for a packet that the NAT lets not go on: it goes back inside by a hairpin,
// or is dropped and perhaps answered, by back.
func (l *Lab) turn(n *node, data []byte, now int64, r natsim.Result, p *pipe, back func(data []byte, now int64)) {
	if r.Pass {
		n.inward(data, now)
		return
	}
	p.count.NATDrops++
	if buffer := l.buffers.take(); buffer != nil {
		if answer := refuse(buffer, data, r.Answer); answer != nil {
			back(answer, now)
		} else {
			l.buffers.give(buffer)
		}
	}
	l.buffers.give(data)
}

// inward gives a packet to the host or the node behind the router that it is for.
func (n *node) inward(data []byte, now int64) {
	_, to, _ := addresses(data)
	switch inner := n.inside[to]; {
	case n.host != nil:
		if _, err := unix.Write(n.host.tun, data); err != nil {
			n.down.count.Refused++
		}
		n.lab.buffers.give(data)
	case inner != nil:
		n.lab.arrive(inner, data, now)
	default:
		n.lab.buffers.give(data)
	}
}

// outward puts an answer of the router itself on its outer link.
func (n *node) outward(data []byte, now int64) { n.lab.schedule(&n.up, n, true, data, now) }

// cross takes a packet from the end of a link to where it goes from there: to the
// router above, or through the middle.
func (l *Lab) cross(n *node, data []byte, now int64) {
	if n.router != nil {
		l.leave(n.router, data, now)
		return
	}
	_, to, _ := addresses(data)
	if next := l.byAddr[to]; next != nil && age(data, l.hops) {
		l.arrive(next, data, now)
	} else {
		l.buffers.give(data)
	}
}

// arrive takes a packet to the link of the node that it is for.
func (l *Lab) arrive(n *node, data []byte, now int64) {
	if !n.down.fits(len(data)) {
		from, _, _ := addresses(data)
		if sender := l.byAddr[from]; n.down.shape.ICMP && !n.down.shape.Cut && sender != nil && sender.nat == nil {
			l.tell(sender.host, data, n.down.shape.MTU)
		}
		l.buffers.give(data)
		return
	}
	l.schedule(&n.down, n, false, data, now)
}

// deliver takes a packet from the end of a link into the node.
func (l *Lab) deliver(n *node, data []byte, now int64) {
	if n.nat != nil {
		if r := l.translate(n, data, now, false); !r.Pass {
			l.turn(n, data, now, r, &n.down, n.outward)
			return
		}
	}
	n.inward(data, now)
}
