package simnet

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/tests/natsim"
)

// dialing is a socket that has sent a SYN, up to the end of the handshake:
// SYN_SENT, and SYN_RECEIVED when a SYN has met it (RFC 9293 section 3.5).
type dialing struct {
	host *Host
	name tuple
	seq  uint32
	conn *Conn // when both ends are made
	met  bool  // by the SYN of the other end
	done bool
	err  error
	over chan struct{} // closed when done
}

// finish ends a handshake. Called with the lock held.
func (d *dialing) finish(err error) {
	if d.done {
		return
	}
	d.done, d.err = true, err
	delete(d.host.dialing, d.name)
	close(d.over)
	if err != nil && d.conn != nil {
		d.conn.abort()
	}
}

// control is a packet of TCP's handshake on its way.
type control struct {
	natsim.Packet
	ttl      int
	sender   *dialing // whose SYN, or whose answer to one; nil for a listener's
	receiver *dialing // whose SYN is answered
}

// Dial implements netio.Network. Two that dial each other at once are connected,
// without any listener, as in kernels (RFC 9293 section 3.5).
func (h *Host) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	fail := func(err error) (net.Conn, error) {
		return nil, opError("dial", "tcp", local, remote, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	d, err := h.begin(local, remote, defaultTTL)
	if err != nil {
		return fail(err)
	}
	return d.wait(ctx)
}

// wait sends the SYN again each second until the dial has ended.
func (d *dialing) wait(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, synTimeout, syscall.ETIMEDOUT)
	defer cancel()
	tick := time.NewTicker(synRetry)
	defer tick.Stop()
	for {
		select {
		case <-d.over:
		case <-tick.C:
			d.syn()
			continue
		case <-ctx.Done():
			d.host.net.mu.Lock()
			d.finish(reason(ctx))
			d.host.net.mu.Unlock()
		}
		if d.err != nil {
			return nil, opError("dial", "tcp", d.name.local, d.name.remote, d.err)
		}
		return d.conn, nil
	}
}

// begin makes the socket and sends the first SYN.
func (h *Host) begin(local, remote netip.AddrPort, ttl int) (*dialing, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	from, err := h.resolve(local, remote)
	if err != nil {
		return nil, err
	}
	if from.Port() == 0 {
		from = netip.AddrPortFrom(from.Addr(), h.freePort(h.uses))
	}
	name := tuple{from, remote}
	switch {
	case h.conns[name] != nil || h.dialing[name] != nil:
		return nil, syscall.EADDRNOTAVAIL
	case from == remote:
		return nil, syscall.ECONNREFUSED
	}
	h.net.dials++
	d := &dialing{host: h, name: name, seq: h.net.dials, over: make(chan struct{})}
	h.dialing[name] = d
	syn := d.packet()
	syn.ttl = ttl
	h.depart(syn)
	return d, nil
}

// syn sends another SYN.
func (d *dialing) syn() {
	d.host.net.mu.Lock()
	defer d.host.net.mu.Unlock()
	if !d.done {
		d.send()
	}
}

func (d *dialing) send() {
	d.host.depart(d.packet())
}

// packet returns its SYN.
func (d *dialing) packet() control {
	syn := natsim.Packet{Protocol: natsim.TCP, From: d.name.local, To: d.name.remote, Flags: natsim.SYN, Seq: d.seq}
	return control{sender: d, ttl: defaultTTL, Packet: syn}
}

var _ netio.Opener = (*Host)(nil)

// Open implements netio.Opener. Nobody tells that a packet has died on the way.
func (h *Host) Open(local, remote netip.AddrPort, ttl int) (netio.Opening, error) {
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	if ttl < 1 || ttl > 255 {
		return nil, opError("dial", "tcp", local, remote, syscall.EINVAL)
	}
	d, err := h.begin(local, remote, ttl)
	if err != nil {
		return nil, opError("dial", "tcp", local, remote, err)
	}
	return d, nil
}

// LocalAddr implements netio.Opening.
func (d *dialing) LocalAddr() netip.AddrPort { return d.name.local }

// Wait implements netio.Opening.
func (d *dialing) Wait(until time.Time) (net.Conn, error) {
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	return d.wait(ctx)
}

// Close implements netio.Opening.
func (d *dialing) Close() error {
	d.host.net.mu.Lock()
	defer d.host.net.mu.Unlock()
	d.finish(net.ErrClosed)
	return nil
}

// resolve finds from which address of ours to dial. Called with the lock held.
func (h *Host) resolve(local, remote netip.AddrPort) (netip.AddrPort, error) {
	to := remote.Addr()
	peer := h.next(remote)
	from := local.Addr().Unmap()
	if !from.IsValid() || from.IsUnspecified() {
		from = h.source(peer, to)
	}
	switch {
	case !to.IsValid() || remote.Port() == 0 || to.IsUnspecified():
		return local, syscall.EADDRNOTAVAIL
	case !from.IsValid():
		return local, syscall.ENETUNREACH
	case !h.has(from) || from.Is4() != to.Is4():
		return local, syscall.EADDRNOTAVAIL
	case peer == nil:
		return local, syscall.EHOSTUNREACH
	}
	return netip.AddrPortFrom(from, local.Port()), nil
}

// depart sends a packet from a host on its way. Called with the lock held.
func (h *Host) depart(p control) {
	if next := h.next(p.To); next != nil {
		h.net.hop(h, next, p)
	}
}

// hop carries a packet of a handshake over one link. One that is cut tells who
// dials. Called with the lock held.
func (n *Net) hop(from, to *Host, p control) {
	l := n.link(from, to)
	p.ttl -= l.Hops
	switch {
	case l.state == cut && p.sender != nil && p.Flags == natsim.SYN:
		p.sender.finish(syscall.EHOSTUNREACH)
		return
	case l.state != up || l.NoTCP || p.ttl <= 0:
		return
	}
	delay := n.delay(l)
	if delay <= 0 {
		to.meet(from, p)
		return
	}
	time.AfterFunc(delay, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if l.state == up {
			to.meet(from, p)
		}
	})
}

// meet is the arrival of a packet of a handshake from a neighbour. Called with the
// lock held.
func (h *Host) meet(from *Host, p control) {
	if h.gate != nil && from != h {
		if p.ttl--; p.ttl > 0 {
			h.gate.relay(from, p)
		}
		return
	}
	name := tuple{p.To, p.From}
	switch p.Flags {
	case natsim.SYN:
		h.asked(name, p)
	case natsim.SYN | natsim.ACK:
		h.answered(name, p)
	case natsim.ACK:
		if d := p.receiver; d.conn != nil {
			d.finish(nil)
		}
	default: // a reset
		if d := h.dialing[name]; d != nil && d.met {
			d.finish(syscall.ECONNRESET)
		} else if d != nil {
			d.finish(syscall.ECONNREFUSED)
		}
	}
}

// relay passes a packet of a handshake on through the NAT.
func (r *Router) relay(from *Host, p control) {
	n := r.node.net
	result, next := r.decide(from, p.Packet)
	switch {
	case result.Answer == natsim.Reset:
		n.hop(r.node, from, reset(p))
	case next != nil && next != r.node:
		p.Packet = result.Packet
		n.hop(r.node, next, p)
	}
}

// reset returns the reset that answers a packet.
func reset(p control) control {
	return control{ttl: defaultTTL, Packet: natsim.Packet{Protocol: natsim.TCP, From: p.To, To: p.From, Flags: natsim.RST | natsim.ACK}}
}

// reply returns an answer of the host to a packet.
func reply(p control, flags natsim.Flags, sender *dialing) control {
	q := reset(p)
	q.Flags, q.sender, q.receiver = flags, sender, p.sender
	if q.Seq = p.Seq | 1<<31; sender != nil { // a listener's is any other
		q.Seq = sender.seq
	}
	return q
}

// asked is the arrival of a SYN.
func (h *Host) asked(name tuple, p control) {
	c, d, l := h.conns[name], h.dialing[name], h.listening(name.local)
	switch {
	case p.sender.done && d == nil: // who asked has given up, and would say so
	case c != nil && c.peer == p.sender.conn:
		h.depart(reply(p, natsim.SYN|natsim.ACK, d)) // the answer was lost
	case c != nil:
		p.sender.finish(syscall.EADDRNOTAVAIL) // one end of an earlier connection is still there
	case d != nil:
		d.met = true
		h.depart(reply(p, natsim.SYN|natsim.ACK, d))
	case l == nil:
		h.depart(reset(p))
	case len(l.waiting) < backlog:
		p.sender.conn, c = h.net.connect(p.sender.host, p.sender.name, h, name)
		l.waiting = append(l.waiting, c)
		l.changed.Signal()
		h.depart(reply(p, natsim.SYN|natsim.ACK, nil))
	}
}

// answered is the arrival of the answer to a SYN.
func (h *Host) answered(name tuple, p control) {
	d, other := h.dialing[name], p.sender
	if d == nil || d != p.receiver || other != nil && other.done && other.conn == nil {
		if other != nil && !other.done && h.conns[name] == nil {
			h.depart(reset(p))
		}
		return
	}
	if other != nil {
		if d.conn == nil {
			d.conn, other.conn = h.net.connect(h, name, other.host, other.name)
		}
		h.depart(reply(p, natsim.ACK, d))
	}
	d.finish(nil)
}

// connect makes both ends. Called with the lock held.
func (n *Net) connect(a *Host, nameA tuple, b *Host, nameB tuple) (*Conn, *Conn) {
	x, y := newConn(a, nameA), newConn(b, nameB)
	x.peer, y.peer = y, x
	there, middle := n.path(a, b)
	back, _ := n.path(b, a)
	x.out, y.out = newWay(there, middle, x, y), newWay(back, middle, y, x)
	return x, y
}

// reason tells why a dial's context ended.
func reason(ctx context.Context) error {
	if cause := context.Cause(ctx); cause == syscall.ETIMEDOUT {
		return cause
	}
	return ctx.Err()
}
