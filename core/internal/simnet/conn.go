package simnet

import (
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/tests/natsim"
)

// Conn is one end of a TCP connection. Like a kernel's, it sends what was
// written before Close and then the end of the stream; it resets the peer
// instead when it is closed with unread bytes, after SetLinger(0), or when
// bytes come after Close. A reset lets the peer still read what had arrived.
type Conn struct {
	host   *Host
	peer   *Conn
	name   tuple
	out    *way
	closed bool
	broken bool // reset by the peer
	ended  bool // CloseWrite was called
	linger bool // as by default: what was written is still delivered after Close

	arrived []byte // not yet read
	fin     bool   // the peer's end of stream has arrived

	reading, writing       bool // a Read, a Write runs
	readBefore, writeUntil deadline
	changed                *sync.Cond
}

var (
	_ net.Conn         = (*Conn)(nil)
	_ netio.TryWriter  = (*Conn)(nil)
	_ netio.LazyReader = (*Conn)(nil)
)

// deadline is a time after which waiting ends; its timer wakes who waits.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(t time.Time, wake func()) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), wake)
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// newConn makes an end and enters it in its host's table.
func newConn(h *Host, name tuple) *Conn {
	c := &Conn{host: h, name: name, linger: true, changed: sync.NewCond(&h.net.mu)}
	h.conns[c.name] = c
	return c
}

func (c *Conn) fail(op string, err error) error {
	return opError(op, "tcp", c.name.local, c.name.remote, err)
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.ReadLazy(func() []byte { return p })
}

// ReadLazy implements netio.LazyReader.
func (c *Conn) ReadLazy(get func() []byte) (int, error) {
	mu := &c.host.net.mu
	mu.Lock()
	defer mu.Unlock()
	for c.reading && !c.closed {
		c.changed.Wait()
	}
	c.reading = true
	defer func() {
		c.reading = false
		c.changed.Broadcast()
	}()
	if err := c.awaitBytes(); err != nil {
		return 0, err
	}
	mu.Unlock()
	p := get()
	mu.Lock()
	if c.closed {
		return 0, c.fail("read", net.ErrClosed)
	}
	n := copy(p, c.arrived)
	c.arrived = c.arrived[n:]
	if len(c.arrived) == 0 {
		c.arrived = nil
	}
	c.peer.changed.Broadcast() // there is room again
	return n, nil
}

// awaitBytes waits until there is something to read. io.EOF is returned bare.
func (c *Conn) awaitBytes() error {
	for {
		switch {
		case c.closed:
			return c.fail("read", net.ErrClosed)
		case c.readBefore.passed():
			return c.fail("read", os.ErrDeadlineExceeded)
		case len(c.arrived) > 0:
			return nil
		case c.broken:
			return c.fail("read", syscall.ECONNRESET)
		case c.fin:
			return io.EOF
		}
		c.changed.Wait()
	}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	for c.writing && !c.closed {
		c.changed.Wait()
	}
	c.writing = true
	defer func() {
		c.writing = false
		c.changed.Broadcast()
	}()
	total := 0
	for {
		if !c.closed && c.writeUntil.passed() {
			return total, c.fail("write", os.ErrDeadlineExceeded)
		}
		n, err := c.send(p[total:])
		total += n
		if err != nil || total == len(p) {
			return total, err
		}
		c.changed.Wait()
	}
}

// TryWrite implements netio.TryWriter.
func (c *Conn) TryWrite(p []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	return c.send(p)
}

// send puts on the way what fits. Called with the lock held.
func (c *Conn) send(p []byte) (int, error) {
	switch {
	case c.closed:
		return 0, c.fail("write", net.ErrClosed)
	case c.broken, c.ended:
		return 0, c.fail("write", syscall.EPIPE)
	}
	total := 0
	for len(p) > 0 {
		n := min(len(p), maxSegment, c.out.room())
		if n <= 0 {
			break
		}
		c.out.push(segment{data: append([]byte(nil), p[:n]...)})
		p = p[n:]
		total += n
	}
	return total, nil
}

// CloseWrite ends the stream towards the peer after what was written. Reading
// goes on.
func (c *Conn) CloseWrite() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	switch {
	case c.closed:
		return c.fail("close", net.ErrClosed)
	case c.broken:
		return c.fail("close", syscall.ENOTCONN)
	case !c.ended:
		c.ended = true
		c.out.push(segment{kind: fin})
		c.changed.Broadcast()
	}
	return nil
}

// SetLinger with 0 makes Close reset the connection and drop what was written
// and has not arrived. With anything else Close delivers it.
func (c *Conn) SetLinger(seconds int) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	c.linger = seconds != 0
	return nil
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	switch {
	case c.closed:
		return c.fail("close", net.ErrClosed)
	case !c.linger:
		c.abort()
	default:
		c.shut()
		if len(c.arrived) > 0 {
			c.out.push(segment{kind: rst})
		} else if !c.ended {
			c.out.push(segment{kind: fin})
		}
		c.arrived = nil
	}
	return nil
}

// shut takes the end from its host. Called with the lock held.
func (c *Conn) shut() {
	c.closed = true
	delete(c.host.conns, c.name)
	c.out.forget()
	c.readBefore.set(time.Time{}, nil)
	c.writeUntil.set(time.Time{}, nil)
	c.changed.Broadcast()
}

// abort closes with a reset. Called with the lock held.
func (c *Conn) abort() {
	c.shut()
	c.arrived = nil
	c.out.drop()
	c.out.push(segment{kind: rst})
}

// reset is the arrival of a reset. Called with the lock held.
func (c *Conn) reset() {
	c.broken = true
	c.out.drop()
	c.changed.Broadcast()
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.name.local) }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.name.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBefore, &c.writeUntil) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBefore) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeUntil) }

func (c *Conn) setDeadlines(t time.Time, ds ...*deadline) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.set(t, func() {
			c.host.net.mu.Lock()
			defer c.host.net.mu.Unlock()
			c.changed.Broadcast()
		})
	}
	c.changed.Broadcast()
	return nil
}

// way carries segments from one end to the other, in order.
type way struct {
	link     *link // the outermost, whose buffers it has
	path     []leg // all, in order
	routed   bool  // there is a router before one of the ends
	from, to *Conn
	flight   []segment
	bytes    int // in flight
	last     time.Time
	timer    *time.Timer
}

type segment struct {
	kind kind
	held bool // a NAT drops it: it is sent again
	data []byte
	at   time.Time // of arrival
}

type kind uint8

const (
	data kind = iota
	fin       // the end of the stream
	rst       // a reset
)

// flags are how the segments look to a NAT.
var flags = [...]natsim.Flags{data: natsim.ACK, fin: natsim.FIN | natsim.ACK, rst: natsim.RST}

// resend is after how long a segment is sent again that a NAT has dropped.
const resend = time.Second

func newWay(path []leg, middle *link, from, to *Conn) *way {
	w := &way{link: middle, path: path, routed: from.host.router != nil || to.host.router != nil, from: from, to: to}
	w.enter()
	return w
}

func (w *way) enter() {
	for _, l := range w.path {
		l.ways[w] = struct{}{}
	}
}

// up reports whether all links of the way are.
func (w *way) up() bool {
	return !slices.ContainsFunc(w.path, func(l leg) bool { return l.state != up })
}

// room returns how many bytes may be sent now.
func (w *way) room() int { return w.link.buffer() - w.bytes - len(w.to.arrived) }

// push sends a segment. Called with the lock held.
func (w *way) push(s segment) {
	if !w.send(&s) {
		return
	}
	w.bytes += len(s.data)
	w.flight = append(w.flight, s)
	w.enter()
	w.deliver()
}

// send has the NATs look at a segment and says when it arrives, or that it is held.
// It reports false when it is lost for good.
func (w *way) send(s *segment) bool {
	if s.held = len(w.flight) > 0 && w.flight[len(w.flight)-1].held; s.held {
		return s.kind != rst
	}
	if w.routed {
		p := natsim.Packet{Protocol: natsim.TCP, From: w.from.name.local, To: w.from.name.remote, Flags: flags[s.kind]}
		at, p, refused := w.from.host.net.passes(w.from.host, p)
		there := at != nil && at == w.to.host && p.To == w.to.name.local && p.From == w.to.name.remote
		switch {
		case there:
		case s.kind == rst:
			return false
		case refused || at != nil: // nobody there knows the connection
			w.from.reset()
			return false
		default:
			s.held = true
			return true
		}
	}
	leaves := time.Now()
	for _, l := range w.path {
		leaves = l.transmit(l.from, len(s.data), leaves)
	}
	for _, l := range w.path {
		leaves = leaves.Add(w.from.host.net.delay(l.link))
	}
	if leaves.Before(w.last) {
		leaves = w.last
	}
	w.last, s.at = leaves, leaves
	return true
}

// again sends what was held.
func (w *way) again() {
	held := w.flight
	w.flight = nil
	for i := range held {
		if held[i].held && !w.send(&held[i]) {
			if w.from.broken {
				return
			}
			continue
		}
		w.flight = append(w.flight, held[i])
	}
	w.deliver()
}

// drop loses what is in flight. Called with the lock held.
func (w *way) drop() {
	w.flight, w.bytes = nil, 0
	w.stop()
	w.forget()
}

func (w *way) stop() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// forget takes the way from its links when nothing more will travel.
func (w *way) forget() {
	if len(w.flight) == 0 && (w.from.closed || w.from.broken) {
		for _, l := range w.path {
			delete(l.ways, w)
		}
	}
}

// deliver hands over what has arrived by now and waits for the next segment. A
// broken link holds everything. Called with the lock held.
func (w *way) deliver() {
	for len(w.flight) > 0 && !w.flight[0].held && w.up() && !w.flight[0].at.After(time.Now()) {
		s := w.flight[0]
		w.flight = w.flight[1:]
		w.bytes -= len(s.data)
		w.arrive(s)
	}
	w.stop()
	w.forget()
	if len(w.flight) == 0 || !w.up() {
		return
	}
	wait, then := time.Until(w.flight[0].at), w.deliver
	if w.flight[0].held {
		wait, then = resend, w.again
	}
	w.timer = time.AfterFunc(wait, func() {
		w.from.host.net.mu.Lock()
		defer w.from.host.net.mu.Unlock()
		then()
	})
}

// arrive hands one segment to the receiving end.
func (w *way) arrive(s segment) {
	c := w.to
	switch {
	case s.kind == rst:
		c.reset()
	case c.broken:
	case c.closed && s.kind == data:
		// Nobody is there to read it.
		if !w.from.broken {
			c.out.push(segment{kind: rst})
		}
	case s.kind == fin:
		c.fin = true
	default:
		c.arrived = append(c.arrived, s.data...)
	}
	c.changed.Broadcast()
}
