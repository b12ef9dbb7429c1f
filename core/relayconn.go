package crust

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// relayConn is an end of a circuit: a stream of bytes to a peer through another
// one, over which the two shake hands as over any other. At most wire.RelayWindow
// bytes wait to be read. As over TCP, what was written before Close still arrives,
// and who closes with unread bytes breaks the circuit.
//
// One goroutine may read and one write at a time; everything else may be called by
// any, at any time.
type relayConn struct {
	s    *Service
	port *port
	from relayAddr

	mu         sync.Mutex // the last of all locks: nothing is called with it held
	changed    chan struct{}
	in         []byte // in[off:] has come and was not read
	off        int
	window     int // what the other end may still send, as wire.RelayCost counts
	owed       int // what it will be granted
	credit     int // what we may still send
	over       bool
	reason     wire.RelayReason // why, when over
	closed     bool
	shut       bool // CloseWrite was called
	readUntil  time.Time
	writeUntil time.Time

	keyed func(wire.OneTimeKey) // takes the first one-time key that comes, in its own goroutine
	early *wire.KeyName         // of the key that bytes may be sealed for; nil for none; constant
}

// grantEach is what is granted at once, in bytes.
const grantEach = wire.RelayWindow / 4

var (
	_ net.Conn         = (*relayConn)(nil)
	_ netio.TryWriter  = (*relayConn)(nil)
	_ netio.LazyReader = (*relayConn)(nil)
)

// relayAddr is the endpoint of a relay as the address of a connection through it.
type relayAddr struct{ ep Endpoint }

// Network returns "relay".
func (relayAddr) Network() string { return "relay" }

// String returns the relay's address and port.
func (a relayAddr) String() string { return a.ep.Addr.String() }

// relayError is why a circuit is of no more use.
type relayError struct{ reason wire.RelayReason }

func (e relayError) Error() string { return "relay: " + e.reason.String() }

func newRelayConn(s *Service, p *port, from Endpoint) *relayConn {
	return &relayConn{s: s, port: p, from: relayAddr{from}, window: wire.RelayWindow, credit: wire.RelayWindow}
}

// wake wakes who waits. mu is held.
func (c *relayConn) wake() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// wait waits until something has changed, or it is time until. mu is held, and
// released while it waits.
func (c *relayConn) wait(until time.Time) {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	changed := c.changed
	c.mu.Unlock()
	defer c.mu.Lock()
	if until.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

// passed reports whether a deadline is over.
func passed(until time.Time) bool { return !until.IsZero() && !time.Now().Before(until) }

func (c *relayConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "relay", Addr: c.from, Err: err}
}

// take takes bytes that have come, and reports false when they are more than was
// granted.
func (c *relayConn) take(data []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.add(data, 0)
}

// takeEarly is take for bytes behind the name of the one-time key that they are sealed
// for. Those of another key than the one that we answer with are dropped, and what is to
// be granted for them at once is returned.
func (c *relayConn) takeEarly(named []byte) (granted int, ok bool) {
	name, data := wire.KeyName(named), named[len(wire.KeyName{}):]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.early != nil && *c.early == name {
		return 0, c.add(data, len(name))
	}
	if c.closed || c.over {
		return 0, true
	}
	if c.window -= wire.RelayCost(len(named)); c.window < 0 {
		return 0, false
	}
	if c.owed += wire.RelayCost(len(named)); c.owed >= grantEach {
		granted, c.owed = c.owed, 0
		c.window += granted
	}
	return granted, true
}

// add takes bytes that have come with extra more of which nobody reads. mu is held.
func (c *relayConn) add(data []byte, extra int) bool {
	if c.closed || c.over {
		return true
	}
	if c.window -= wire.RelayCost(len(data) + extra); c.window < 0 {
		return false
	}
	c.owed += wire.RelayCost(extra)
	if c.off > 0 && len(c.in)+len(data) > cap(c.in) {
		n := copy(c.in, c.in[c.off:])
		c.in, c.off = c.in[:n], 0
	}
	c.in = append(c.in, data...)
	c.wake()
	return true
}

// grant takes what the other end lets us send, and reports false when that is more
// than there can be.
func (c *relayConn) grant(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.credit += n
	c.wake()
	return c.credit <= wire.RelayWindow
}

// ended takes the end of the circuit.
func (c *relayConn) ended(r wire.RelayReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over, c.reason = true, r
		c.wake()
	}
}

// Read implements net.Conn.
func (c *relayConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return c.ReadLazy(func() []byte { return p })
}

// ReadLazy implements netio.LazyReader.
func (c *relayConn) ReadLazy(get func() []byte) (int, error) {
	if err := c.awaitBytes(); err != nil {
		return 0, err
	}
	p := get()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, c.fail("read", net.ErrClosed)
	}
	n := copy(p, c.in[c.off:])
	if c.off += n; c.off == len(c.in) {
		c.in, c.off = c.in[:0], 0
		if cap(c.in) > grantEach { // a flood is over, or a slow reader has come to its end
			c.in = nil
		}
	}
	granted := 0
	if c.owed += n; c.owed >= grantEach && !c.over {
		granted, c.owed = c.owed, 0
		c.window += granted
	}
	c.mu.Unlock()
	if granted > 0 && !c.port.send(wire.AppendRelayCredit(nil, c.port.id, uint32(granted))) { //nolint:gosec // at most wire.RelayWindow
		c.lose()
	}
	return n, nil
}

// awaitBytes waits until there is something to read. io.EOF is returned bare.
func (c *relayConn) awaitBytes() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return c.fail("read", net.ErrClosed)
		case passed(c.readUntil):
			return c.fail("read", os.ErrDeadlineExceeded)
		case c.off < len(c.in):
			return nil
		case c.over && c.reason == wire.RelayDone:
			return io.EOF
		case c.over:
			return c.fail("read", relayError{c.reason})
		}
		c.wait(c.readUntil)
	}
}

// keyCame takes a one-time key of the peer at the other end.
func (c *relayConn) keyCame(key wire.OneTimeKey) {
	c.mu.Lock()
	f := c.keyed
	c.keyed = nil
	if c.closed || c.over {
		f = nil
	}
	c.mu.Unlock()
	if f != nil {
		c.s.spawn(func() { f(key) })
	}
}

// Write implements net.Conn.
func (c *relayConn) Write(p []byte) (int, error) { return c.write(p, true, nil) }

// TryWrite implements netio.TryWriter.
func (c *relayConn) TryWrite(p []byte) (int, error) { return c.write(p, false, nil) }

// write sends p in frames, or with wait false what of it may be sent now: for e, if it is
// not nil.
func (c *relayConn) write(p []byte, wait bool, e *earlyConn) (total int, err error) {
	buf := session.NewBuffer(wire.RelayCost(min(len(p), wire.MaxRelayData) + len(wire.KeyName{})))
	defer buf.Release()
	for total < len(p) {
		n, early, err := c.reserve(len(p)-total, wait, e)
		if n == 0 || err != nil {
			return total, err
		}
		var frame []byte
		if part := p[total : total+n]; early {
			frame = wire.AppendRelayEarly(buf.B[:0], c.port.id, e.key, part)
		} else {
			frame = wire.AppendRelayData(buf.B[:0], c.port.id, part)
		}
		if !c.port.send(frame) {
			c.lose()
			return total, c.fail("write", relayError{wire.RelayBroken})
		}
		total += n
	}
	return total, nil
}

// reserve takes credit for a frame with up to most bytes, and returns for how many, and
// whether they are to go early: with wait false 0 when there is none.
func (c *relayConn) reserve(most int, wait bool, e *earlyConn) (n int, early bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		until, extra := c.writeUntil, 0
		if e != nil {
			if err := e.usable("write"); err != nil {
				return 0, false, err
			}
			if early = e.state == earlyWaits; early {
				until, extra = e.writeUntil, len(e.key)
			}
		}
		n := min(most, wire.MaxRelayData-extra, c.credit-wire.RelayCost(extra))
		switch {
		case c.closed, c.shut, e != nil && e.shut:
			return 0, false, c.fail("write", net.ErrClosed)
		case c.over:
			return 0, false, c.fail("write", relayError{c.reason})
		case wait && passed(until):
			return 0, false, c.fail("write", os.ErrDeadlineExceeded)
		case n > 0:
			c.credit -= wire.RelayCost(n + extra)
			return n, early, nil
		case !wait:
			return 0, false, nil
		}
		c.wait(until)
	}
}

// lose ends a circuit whose session takes no more of it.
func (c *relayConn) lose() {
	c.ended(wire.RelayBroken)
	c.s.circuits.forget(c.port)
}

// CloseWrite ends writing. The other end is not told: a session ends by its own
// word, and the circuit by Close.
func (c *relayConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.shut = true
	c.wake()
	return nil
}

// Close implements net.Conn.
func (c *relayConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.fail("close", net.ErrClosed)
	}
	c.closed = true
	over, reason := c.over, wire.RelayDone
	if c.off < len(c.in) {
		reason = wire.RelayBroken
	}
	c.in, c.off = nil, 0
	c.wake()
	c.mu.Unlock()
	c.s.circuits.forget(c.port)
	if !over {
		c.port.send(wire.AppendRelayClose(nil, c.port.id, reason))
	}
	return nil
}

// LocalAddr returns the relay's address: there is no other.
func (c *relayConn) LocalAddr() net.Addr { return c.from }

// RemoteAddr returns the relay's address.
func (c *relayConn) RemoteAddr() net.Addr { return c.from }

// SetDeadline implements net.Conn.
func (c *relayConn) SetDeadline(t time.Time) error { return c.deadlines(t, true, true) }

// SetReadDeadline implements net.Conn.
func (c *relayConn) SetReadDeadline(t time.Time) error { return c.deadlines(t, true, false) }

// SetWriteDeadline implements net.Conn.
func (c *relayConn) SetWriteDeadline(t time.Time) error { return c.deadlines(t, false, true) }

func (c *relayConn) deadlines(t time.Time, read, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("relay: set: %w", net.ErrClosed)
	}
	if read {
		c.readUntil = t
	}
	if write {
		c.writeUntil = t
	}
	c.wake()
	return nil
}
