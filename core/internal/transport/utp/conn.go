package utp

/*
#include "engine.h"
*/
import "C"

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Conn is a uTP connection. As with any net.Conn, one goroutine may read while
// another writes and others set deadlines and close. Several writers, and
// several readers, take turns: what one Write sends is in one piece.
//
// Errors are *net.OpError and unwrap to os.ErrDeadlineExceeded, net.ErrClosed
// when this side closed it, syscall.ECONNRESET when the peer did without
// reading on, EPIPE for writing after CloseWrite. Once an error other than a
// deadline's has come, it stays.
type Conn struct {
	port *Port
}

// LocalAddr returns what Stack.Add got.
func (c *Conn) LocalAddr() net.Addr { return c.port.local }

// RemoteAddr returns what Stack.Add got.
func (c *Conn) RemoteAddr() net.Addr { return c.port.remote }

// Read takes what has been received, waiting for at least one byte. What came
// before the peer closed or reset the connection is read first. The end of the
// peer's stream is io.EOF.
func (c *Conn) Read(b []byte) (int, error) {
	return c.read(b, nil)
}

// ReadLazy waits until there are bytes to read, then calls get, once, and reads
// into what it returns, which must not be empty. At an error and at the end of
// the stream get is not called. get must not use the connection.
func (c *Conn) ReadLazy(get func() []byte) (int, error) {
	return c.read(nil, get)
}

// ReadNow is Read without waiting: it returns 0 and no error when nothing has come,
// and does not look at the deadline. b must not be empty.
func (c *Conn) ReadNow(b []byte) (int, error) {
	p := c.port
	select {
	case p.readTurn <- struct{}{}:
	default:
		return 0, nil // another reader will have it
	}
	defer func() { <-p.readTurn }()
	n, _, err := p.readNow(b, nil)
	if err != nil && err != io.EOF { //nolint:errorlint // it is ours, bare
		err = p.fault("read", err)
	}
	return n, err
}

// Ready reports whether Read would return at once.
func (c *Conn) Ready() bool {
	p := c.port
	p.mu.Lock()
	e := p.engine
	ready := p.closed || e == nil || p.doomed || e.unread > 0 || e.eof != 0 || e.error != C.CRUST_UTP_FINE
	p.mu.Unlock()
	return ready || p.readDeadline.passed()
}

func (c *Conn) read(b []byte, get func() []byte) (int, error) {
	p := c.port
	if err := p.readDeadline.take(p.readTurn); err != nil {
		return 0, p.fault("read", err)
	}
	defer func() { <-p.readTurn }()
	for {
		if p.readDeadline.passed() {
			return 0, p.fault("read", os.ErrDeadlineExceeded)
		}
		n, ready, err := p.readNow(b, get)
		switch {
		case err == io.EOF: //nolint:errorlint // it is ours, bare
			return 0, io.EOF
		case err != nil:
			return 0, p.fault("read", err)
		case ready:
			return n, nil
		}
		if err := p.readDeadline.wait(p.readable); err != nil {
			return 0, p.fault("read", err)
		}
	}
}

// readNow is one attempt; ready is false when there is nothing yet.
func (p *Port) readNow(b []byte, get func() []byte) (n int, ready bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.engine
	switch {
	case p.closed:
		return 0, false, net.ErrClosed
	case e == nil || p.doomed:
		return 0, false, p.gone()
	case e.unread == 0 && e.eof != 0:
		return 0, false, io.EOF
	case e.unread == 0 && e.error != C.CRUST_UTP_FINE:
		return 0, false, p.failure()
	case get == nil && len(b) == 0:
		return 0, true, nil
	case e.unread == 0:
		return 0, false, nil
	}
	if get != nil {
		b = get()
	}
	n = int(C.crust_utp_read(e, unsafe.Pointer(unsafe.SliceData(b)), C.size_t(len(b)), p.stack.now()))
	p.flush()
	return n, true, nil
}

// Write sends b and returns when the path and one packet's memory have it all:
// it waits while the peer's window is full or the path refuses packets. What
// was written when it fails has been sent or will be.
func (c *Conn) Write(b []byte) (int, error) {
	p := c.port
	if err := p.writeDeadline.take(p.writeTurn); err != nil {
		return 0, p.fault("write", err)
	}
	defer func() { <-p.writeTurn }()
	for n := 0; ; {
		if p.writeDeadline.passed() {
			return n, p.fault("write", os.ErrDeadlineExceeded)
		}
		m, err := p.writeNow(b[n:])
		n += m
		switch {
		case err != nil:
			return n, p.fault("write", err)
		case n == len(b):
			return n, nil
		}
		if err := p.writeDeadline.wait(p.writable); err != nil {
			return n, p.fault("write", err)
		}
	}
}

// TryWrite sends what fits now of b and returns how much that was, 0 and no
// error when nothing fits. It never waits and ignores the write deadline. It
// may run beside Close and reads, but not beside another write.
func (c *Conn) TryWrite(b []byte) (int, error) {
	n, err := c.port.writeNow(b)
	if err != nil {
		return n, c.port.fault("write", err)
	}
	return n, nil
}

// writeNow writes until the window or the path is full.
func (p *Port) writeNow(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		e := p.engine
		switch {
		case p.closed:
			return n, net.ErrClosed
		case e == nil || p.doomed:
			return n, p.gone()
		case e.error != C.CRUST_UTP_FINE:
			return n, p.failure()
		case p.finish:
			return n, syscall.EPIPE
		case n == len(b):
			return n, nil
		}
		if e.pending != nil || e.greet != 0 {
			p.flush()
			if p.engine == nil || p.doomed {
				continue
			}
			if e.pending != nil || e.greet != 0 {
				return n, nil
			}
		}
		writing.Lock()
		m := int(C.crust_utp_write(e, unsafe.Pointer(unsafe.SliceData(b[n:])), C.size_t(len(b)-n), p.stack.now()))
		writing.Unlock()
		if m == 0 {
			return n, nil
		}
		n += m
		p.flush()
	}
}

// CloseWrite ends our stream: the peer reads what was written, then io.EOF. The
// other direction goes on.
func (c *Conn) CloseWrite() error {
	p := c.port
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return p.fault("close", net.ErrClosed)
	case p.engine == nil || p.doomed:
		return p.fault("close", p.gone())
	}
	p.finish = true
	pulse(p.writable)
	p.flush()
	return nil
}

// Close ends the connection for this side: calls that wait return net.ErrClosed,
// and what was received is dropped. It does not wait: what was written goes on
// to be delivered until the peer has it or Linger is over, see Port.Done. The
// path must live until then.
func (c *Conn) Close() error {
	p := c.port
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.fault("close", net.ErrClosed)
	}
	p.closed = true
	pulse(p.readable)
	pulse(p.writable)
	if p.engine == nil || p.doomed {
		return nil
	}
	C.crust_utp_discard(p.engine)
	p.finish = true
	p.linger = time.Now().Add(p.stack.cfg.Linger)
	p.flush()
	p.settle()
	if p.engine != nil {
		p.stack.watch(p)
	}
	return nil
}

// SetDeadline sets both deadlines. Its error is always nil.
func (c *Conn) SetDeadline(t time.Time) error {
	c.port.readDeadline.set(t)
	c.port.writeDeadline.set(t)
	return nil
}

// SetReadDeadline sets until when Read and ReadLazy wait; zero means for ever.
// Its error is always nil.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.port.readDeadline.set(t)
	return nil
}

// SetWriteDeadline sets until when Write waits; zero means for ever. Its error
// is always nil.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.port.writeDeadline.set(t)
	return nil
}

// deadline is until when one direction may wait.
type deadline struct {
	timer *time.Timer // of whoever has the turn

	mu      sync.Mutex
	at      time.Time     // zero: for ever
	changed chan struct{} // closed and replaced when at changes
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *deadline) get() (time.Time, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at, d.changed
}

func (d *deadline) passed() bool {
	at, _ := d.get()
	return !at.IsZero() && !time.Now().Before(at)
}

// wait returns when wake fires or the deadline moved, or with
// os.ErrDeadlineExceeded when it passed. Only for whoever has the turn.
func (d *deadline) wait(wake <-chan struct{}) error {
	at, changed := d.get()
	var passed <-chan time.Time
	if !at.IsZero() {
		if d.timer == nil {
			d.timer = time.NewTimer(time.Until(at))
		} else {
			d.timer.Reset(time.Until(at))
		}
		defer d.timer.Stop()
		passed = d.timer.C
	}
	select {
	case <-wake:
	case <-changed:
	case <-passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// take waits for the turn until the deadline. Whoever has it leaves soon when
// the connection ends.
func (d *deadline) take(turn chan struct{}) error {
	for {
		select {
		case turn <- struct{}{}:
			return nil
		default:
		}
		at, changed := d.get()
		var passed <-chan time.Time
		if !at.IsZero() {
			timer := time.NewTimer(time.Until(at))
			defer timer.Stop()
			passed = timer.C
		}
		select {
		case turn <- struct{}{}:
			return nil
		case <-changed:
		case <-passed:
			return os.ErrDeadlineExceeded
		}
	}
}
