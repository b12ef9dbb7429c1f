package simnet

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
)

const (
	// maxSegments bounds the datagrams of one run, as Linux does.
	maxSegments = 64
	// receiveBuffer bounds what waits to be read, in bytes, each datagram
	// counted with overhead more, about as kernels do.
	receiveBuffer = 1 << 20
	overhead      = 256
)

// packetConn is a UDP socket.
type packetConn struct {
	host     *Host
	addr     netip.AddrPort
	received []datagram
	bytes    int // of received, with overhead
	closed   bool
	shared   bool // one of the host's ears, and not of its sockets
	changed  *sync.Cond
}

var (
	_ netio.PacketConn = (*packetConn)(nil)
	_ netio.SoonReader = (*packetConn)(nil)
)

// ListenPacket implements netio.Network.
func (h *Host) ListenPacket(ctx context.Context, addr netip.AddrPort) (netio.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	fail := func(err error) (netio.PacketConn, error) {
		return nil, opError("listen", "udp", netip.AddrPort{}, addr, err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if !addr.Addr().IsUnspecified() && !h.has(addr.Addr()) {
		return fail(syscall.EADDRNOTAVAIL)
	}
	if addr.Port() == 0 {
		addr = netip.AddrPortFrom(addr.Addr(), h.freePort(h.usesPacket))
	}
	taken := func(other netip.AddrPort) bool {
		return other.Port() == addr.Port() && (covers(other.Addr(), addr.Addr()) || covers(addr.Addr(), other.Addr()))
	}
	for other := range h.sockets {
		if taken(other) {
			return fail(syscall.EADDRINUSE)
		}
	}
	for _, other := range h.ears {
		if taken(other.addr) {
			return fail(syscall.EADDRINUSE)
		}
	}
	c := &packetConn{host: h, addr: addr, changed: sync.NewCond(&h.net.mu)}
	h.sockets[addr] = c
	return c, nil
}

// usesPacket reports whether a UDP socket of the host has the port.
func (h *Host) usesPacket(port uint16) bool {
	for addr := range h.sockets {
		if addr.Port() == port {
			return true
		}
	}
	return false
}

// socket returns who takes datagrams to addr, or nil. The closest wins.
func (h *Host) socket(addr netip.AddrPort) *packetConn {
	wildcards := []netip.Addr{addr.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	for _, a := range wildcards {
		if c := h.sockets[netip.AddrPortFrom(a, addr.Port())]; c != nil && covers(a, addr.Addr()) {
			return c
		}
	}
	return nil
}

// Sockets returns how many UDP sockets are open at the host, for tests that
// look for leaks.
func (h *Host) Sockets() int {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return len(h.sockets)
}

// LocalAddr implements netio.PacketConn.
func (c *packetConn) LocalAddr() netip.AddrPort { return c.addr }

// MaxSegments implements netio.PacketConn.
func (c *packetConn) MaxSegments() int { return maxSegments }

// ReadBatch implements netio.PacketConn. Datagrams of one sender and length
// that wait together come as one run.
func (c *packetConn) ReadBatch(ps []netio.Packets) (int, error) {
	if len(ps) == 0 {
		return 0, nil
	}
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	for {
		if n, err := c.readRuns(ps); n > 0 || err != nil {
			return n, err
		}
		c.changed.Wait()
	}
}

// ReadSoon implements netio.SoonReader: it takes what is there, since no time passes
// while it runs.
func (c *packetConn) ReadSoon(ps []netio.Packets, _ time.Duration) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	return c.readRuns(ps)
}

// readRuns takes what is there. Called with the lock held.
func (c *packetConn) readRuns(ps []netio.Packets) (n int, err error) {
	for n < len(ps) && len(c.received) > 0 {
		if c.readRun(&ps[n]) {
			n++
		}
	}
	if n == 0 && c.closed {
		return 0, opError("read", "udp", c.addr, netip.AddrPort{}, net.ErrClosed)
	}
	return n, nil
}

// readRun takes what fits of the datagrams in front. It drops one that is too
// long for the memory and reports false.
func (c *packetConn) readRun(p *netio.Packets) bool {
	first := c.take()
	if len(first.data) > len(p.Buf) {
		return false
	}
	p.Addr, p.Segment = first.from, len(first.data)
	p.N = copy(p.Buf, first.data)
	for count := 1; count < maxSegments && len(c.received) > 0 && p.Segment > 0; count++ {
		next := &c.received[0]
		size := len(next.data)
		if next.from != p.Addr || size == 0 || size > p.Segment || p.N+size > len(p.Buf) {
			break
		}
		p.N += copy(p.Buf[p.N:], next.data)
		c.take()
		if size < p.Segment {
			break
		}
	}
	return true
}

// take removes the datagram in front.
func (c *packetConn) take() datagram {
	d := c.received[0]
	c.received[0] = datagram{}
	c.received = c.received[1:]
	if len(c.received) == 0 {
		c.received = nil
	}
	c.bytes -= len(d.data) + overhead
	return d
}

// WriteBatch implements netio.PacketConn.
func (c *packetConn) WriteBatch(ps []netio.Packets) error { return c.write(defaultTTL, ps) }

func (c *packetConn) write(ttl int, ps []netio.Packets) error {
	sent, see, err := c.sendAll(ttl, ps)
	if see != nil {
		for _, d := range sent {
			see(d.from, d.to, d.data)
		}
	}
	return err
}

// sendAll sends, and returns what somebody watches.
func (c *packetConn) sendAll(ttl int, ps []netio.Packets) (sent []datagram, see func(from, to netip.AddrPort, data []byte), err error) {
	n := c.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return nil, nil, opError("write", "udp", c.addr, netip.AddrPort{}, net.ErrClosed)
	}
	for i := range ps {
		p := &ps[i]
		to := netip.AddrPortFrom(p.Addr.Addr().Unmap(), p.Addr.Port())
		rest := append([]byte(nil), p.Buf[:p.N]...)
		for more := true; more; {
			data := rest
			if more = p.Segment > 0 && len(rest) > p.Segment; more {
				data, rest = rest[:p.Segment:p.Segment], rest[p.Segment:]
			}
			if from := c.host.send(c.addr, to, data, ttl); from.IsValid() && n.watch != nil {
				sent = append(sent, datagram{from: from, to: to, data: data})
			}
		}
	}
	return sent, n.watch, nil
}

// Close implements netio.PacketConn. What has arrived and was not read is gone.
func (c *packetConn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if !c.closed {
		c.closed = true
		if c.shared {
			c.host.ears = slices.DeleteFunc(c.host.ears, func(o *packetConn) bool { return o == c })
		} else {
			delete(c.host.sockets, c.addr)
		}
		c.received, c.bytes = nil, 0
		c.changed.Broadcast()
	}
	return nil
}

// arrive puts a datagram into the receive buffer, if it fits. Called with the
// lock held.
func (c *packetConn) arrive(d datagram) {
	size := len(d.data) + overhead
	if c.bytes+size > receiveBuffer {
		return
	}
	c.bytes += size
	c.received = append(c.received, d)
	c.changed.Signal()
}
