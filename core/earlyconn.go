package crust

import (
	"net"
	"os"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// What a program has given with ConnectPeer to be said first may be sent over a relay before the peer
// has answered, when the relay has a one-time key of the peer (relaykeys.go). It goes in
// a session begun at once, as in begin.go, that is hidden: nobody is told of it, and it is
// not in the table of peers. Its link is nothing but what goes out. It appears when the
// peer has proved its key:
//
//	waits ──flight 2 is of the key──▶ live: an ordinary link, and the session appears
//	  ├────flight 2 is another one──▶ void: the session is forgotten, and another one begins on the link which that one makes
//	  └────no flight 2──────────────▶ dead: the session has lost its link
//
// The peer takes what goes early only if it answers with that key, and answers one first
// flight once. So when it answers without, what was sent cannot come to anybody any more,
// and is sent again. When no answer comes it may have come: then
// the session stays hidden, without a link, and goes on over the next one, like any, which
// is when it appears. When it ends before that, the calls whose messages it had
// fail, since nobody can say whether those were delivered.

// earlyState is what is known of an early link.
type earlyState uint8

const (
	earlyWaits earlyState = iota
	earlyLive
	earlyOver // void or dead: see earlyConn.why
)

// earlyConn is a circuit as the connection of a link that was made with a one-time key.
// Until the peer's second flight has come, which is read from the circuit by who shakes
// hands, nothing can be read from it, and what is written is marked. After that it is
// the circuit itself.
type earlyConn struct {
	*relayConn
	key wire.KeyName

	// guarded by relayConn.mu
	state      earlyState
	why        error
	closed     bool
	shut       bool   // CloseWrite was called
	rest       []byte // read behind the second flight
	readUntil  time.Time
	writeUntil time.Time
}

var (
	_ net.Conn         = (*earlyConn)(nil)
	_ netio.TryWriter  = (*earlyConn)(nil)
	_ netio.LazyReader = (*earlyConn)(nil)
)

// usable says why nothing can be done. relayConn.mu is held.
func (e *earlyConn) usable(op string) error {
	switch {
	case e.closed:
		return e.fail(op, net.ErrClosed)
	case e.state == earlyOver:
		return e.fail(op, e.why)
	}
	return nil
}

// Read implements net.Conn.
func (e *earlyConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return e.ReadLazy(func() []byte { return p })
}

// ReadLazy implements netio.LazyReader.
func (e *earlyConn) ReadLazy(get func() []byte) (int, error) {
	rest, err := e.await()
	if err != nil {
		return 0, err
	}
	if !rest {
		return e.relayConn.ReadLazy(get)
	}
	p := get()
	e.mu.Lock()
	defer e.mu.Unlock()
	n := copy(p, e.rest)
	if e.rest = e.rest[n:]; len(e.rest) == 0 {
		e.rest = nil
	}
	return n, nil
}

// await waits until the peer has answered, and reports whether there is something of rest.
func (e *earlyConn) await() (rest bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		if err := e.usable("read"); err != nil {
			return false, err
		}
		switch {
		case e.state == earlyLive:
			return len(e.rest) > 0, nil
		case passed(e.readUntil):
			return false, e.fail("read", os.ErrDeadlineExceeded)
		}
		e.wait(e.readUntil)
	}
}

// Write implements net.Conn.
func (e *earlyConn) Write(p []byte) (int, error) { return e.write(p, true, e) }

// TryWrite implements netio.TryWriter.
func (e *earlyConn) TryWrite(p []byte) (int, error) { return e.write(p, false, e) }

// CloseWrite is as that of the circuit.
func (e *earlyConn) CloseWrite() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.usable("close"); err != nil {
		return err
	}
	e.shut = true
	e.wake()
	return nil
}

// Close implements net.Conn. The circuit goes on only when the session does on the link
// that has come instead.
func (e *earlyConn) Close() error {
	e.mu.Lock()
	closed, over := e.closed, e.state == earlyOver
	e.closed, e.rest = true, nil
	e.wake()
	e.mu.Unlock()
	switch {
	case closed:
		return e.fail("close", net.ErrClosed)
	case over:
		return nil
	}
	return e.relayConn.Close()
}

// SetDeadline implements net.Conn.
func (e *earlyConn) SetDeadline(t time.Time) error { return e.deadline(t, true, true) }

// SetReadDeadline implements net.Conn.
func (e *earlyConn) SetReadDeadline(t time.Time) error { return e.deadline(t, true, false) }

// SetWriteDeadline implements net.Conn.
func (e *earlyConn) SetWriteDeadline(t time.Time) error { return e.deadline(t, false, true) }

func (e *earlyConn) deadline(t time.Time, read, write bool) error {
	e.mu.Lock()
	if e.state == earlyLive {
		e.mu.Unlock()
		return e.deadlines(t, read, write)
	}
	defer e.mu.Unlock()
	if read {
		e.readUntil = t
	}
	if write {
		e.writeUntil = t
	}
	e.wake()
	return nil
}

// answered makes it the circuit itself, of which rest was read already.
func (e *earlyConn) answered(rest []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state != earlyWaits {
		return
	}
	e.state, e.rest = earlyLive, rest
	e.relayConn.readUntil, e.relayConn.writeUntil = e.readUntil, e.writeUntil
	e.wake()
}

// end makes it useless.
func (e *earlyConn) end(why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state == earlyWaits {
		e.state, e.why = earlyOver, why
		e.wake()
	}
}
