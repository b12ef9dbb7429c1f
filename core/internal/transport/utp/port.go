package utp

/*
#include "engine.h"
*/
import "C"

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// writing keeps two engines from being in crust_utp_write at once. It is held
// for the time of a copy, never across a call of a Path.
var writing sync.Mutex

// errViolated is what a connection ends with whose peer sent more than its window.
var errViolated = errors.New("the peer sent more than was allowed")

// errUsed is what a second Dial or Accept returns.
var errUsed = errors.New("the path has had its connection")

// Port is where packets of one path go in and out. It carries one connection:
// one side dials, the other accepts.
type Port struct {
	stack         *Stack
	path          Path
	local, remote net.Addr

	up       chan struct{} // closed when the connection is up or cannot be any more
	done     chan struct{} // closed when the engine is gone
	readable chan struct{} // one slot: the reader should look again
	writable chan struct{} // one slot: the writer should look again

	readTurn, writeTurn         chan struct{} // one slot: full while somebody reads, writes
	readDeadline, writeDeadline deadline

	mu      sync.Mutex
	engine  *C.crust_utp // nil when freed
	isUp    bool         // up is closed
	taken   bool         // Dial or Accept was called
	dialled bool
	sending bool      // somebody is in flush
	doomed  bool      // to be freed by whoever is in flush
	refused bool      // the path had no room
	finish  bool      // FIN follows what was written
	closed  bool      // Conn.Close was called
	linger  time.Time // until when a closed connection delivers
	err     error     // why the engine went without Conn.Close

	reset      [C.CRUST_UTP_HEADER]byte // RST for the peer
	resetReady bool                     // reset is filled
	resetSend  bool                     // reset is to go out
	small      [C.CRUST_UTP_SMALL]byte  // what flush sends
}

// Done is closed when the connection needs the path no more: when Port.Close
// was called, or Conn.Close and the peer has everything or Linger is over.
func (p *Port) Done() <-chan struct{} { return p.done }

// Input takes a packet that the peer's Port has sent. It may change the packet,
// but does not keep it. It does not wait. What is no packet of the connection
// is ignored. The path must not hold a lock that SendPacket takes.
func (p *Port) Input(packet []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil {
		p.refuse(packet)
		return
	}
	if len(packet) < C.CRUST_UTP_HEADER {
		return
	}
	e := p.engine
	acked, window := e.acked, e.peer_window
	C.crust_utp_input(e, (*C.uint8_t)(&packet[0]), C.size_t(len(packet)), p.stack.now())
	if e.unread > 0 || e.eof != 0 || e.error != C.CRUST_UTP_FINE {
		pulse(p.readable)
	}
	if e.acked != acked || e.peer_window != window || e.error != C.CRUST_UTP_FINE {
		pulse(p.writable)
	}
	p.flush()
	p.settle()
}

// refuse answers data of a connection that we closed, and a SYN after Close, by
// RST. Types and offsets are BEP 29's. mu is held.
func (p *Port) refuse(packet []byte) {
	switch {
	case len(packet) > C.CRUST_UTP_HEADER && packet[0] == 0x01 && p.resetReady: // ST_DATA
	case len(packet) == C.CRUST_UTP_HEADER && packet[0] == 0x41 && !p.resetReady: // ST_SYN
		p.reset = [C.CRUST_UTP_HEADER]byte{0x31, 0, packet[2], packet[3]} // ST_RESET, the same id
	default:
		return
	}
	p.resetSend = true
	p.flush()
}

// Ready says that a path that refused packets has room again.
func (p *Port) Ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refused {
		p.flush()
		p.settle()
	}
}

// Close ends the connection at once: what has not been delivered is lost, and
// the peer is told if the path takes a packet. The Conn's methods return
// net.ErrClosed from now on.
func (p *Port) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil {
		return
	}
	p.abort(net.ErrClosed)
}

// Dial opens the connection, which the peer must accept. Once per Port. When
// ctx ends first the Port is closed. Errors are *net.OpError around ctx's,
// syscall.ECONNREFUSED when the peer closed its Port, ETIMEDOUT when it was
// silent for 21 s, net.ErrClosed when this Port was closed.
func (p *Port) Dial(ctx context.Context) (*Conn, error) {
	p.mu.Lock()
	if p.taken {
		p.mu.Unlock()
		return nil, p.fault("dial", errUsed)
	}
	p.taken, p.dialled = true, true
	if p.engine != nil {
		if p.engine.sock != nil { // the peer dials as well
			p.abort(syscall.EISCONN)
		} else {
			C.crust_utp_dial(p.engine, p.stack.now())
			p.flush()
			p.stack.watch(p)
		}
	}
	p.mu.Unlock()
	return p.wait(ctx, "dial")
}

// Accept waits for the connection that the peer dials. Once per Port. When ctx
// ends first the Port is closed. Errors are as those of Dial.
func (p *Port) Accept(ctx context.Context) (*Conn, error) {
	p.mu.Lock()
	if p.taken {
		p.mu.Unlock()
		return nil, p.fault("accept", errUsed)
	}
	p.taken = true
	p.mu.Unlock()
	return p.wait(ctx, "accept")
}

func (p *Port) wait(ctx context.Context, op string) (*Conn, error) {
	select {
	case <-p.up:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.engine == nil:
		return nil, p.fault(op, p.gone())
	case p.engine.error != C.CRUST_UTP_FINE:
		err := p.failure()
		if errors.Is(err, syscall.ECONNRESET) {
			err = syscall.ECONNREFUSED
		}
		p.abort(err)
		return nil, p.fault(op, err)
	case p.engine.established == 0:
		p.abort(ctx.Err())
		return nil, p.fault(op, ctx.Err())
	}
	return &Conn{port: p}, nil
}

// fault is err as package net returns it.
func (p *Port) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: "utp", Source: p.local, Addr: p.remote, Err: err}
}

// failure is why the engine failed. mu is held.
func (p *Port) failure() error {
	switch p.engine.error {
	case C.CRUST_UTP_RESET:
		return syscall.ECONNRESET
	case C.CRUST_UTP_TIMEDOUT:
		return syscall.ETIMEDOUT
	case C.CRUST_UTP_VIOLATED:
		return errViolated
	case C.CRUST_UTP_MEMORY:
		return syscall.ENOMEM
	}
	return errors.ErrUnsupported
}

// gone is why there is no engine. mu is held.
func (p *Port) gone() error {
	if p.err == nil {
		return net.ErrClosed
	}
	return p.err
}

// flush offers the path what waits for it. mu is held, but not while the path
// has a packet: one goroutine at a time is in here, and others leave at once,
// because it looks again after each packet.
func (p *Port) flush() {
	if p.sending {
		return
	}
	p.sending = true
	for {
		packet, data := p.next()
		if packet == nil {
			break
		}
		p.mu.Unlock()
		ok := p.path.SendPacket(packet)
		p.mu.Lock()
		p.refused = !ok
		switch {
		case p.engine == nil || p.doomed:
			continue // only a RST, if anything, is left
		case ok && data:
			C.crust_utp_sent(p.engine, p.stack.now())
			pulse(p.writable)
			continue
		case ok:
			continue
		case !data && packet[0]>>4 != 3: // BEP 29: ST_RESET, which is not repeated
			C.crust_utp_small_back(p.engine, (*C.uint8_t)(&packet[0]), C.size_t(len(packet)))
		}
		p.stack.watch(p)
		break
	}
	p.sending = false
	if p.doomed {
		p.free()
	}
}

// next returns what should go out next, nil when nothing, and whether it is the
// engine's pending packet. mu is held.
func (p *Port) next() (packet []byte, data bool) {
	e := p.engine
	switch {
	case p.resetSend:
		p.resetSend = false
		return p.small[:copy(p.small[:], p.reset[:])], false
	case e == nil || p.doomed:
		return nil, false
	}
	if e.smalls > 0 {
		n := C.crust_utp_small(e, (*C.uint8_t)(&p.small[0]))
		return p.small[:n], false
	}
	if e.pending == nil && e.greet != 0 {
		writing.Lock()
		C.crust_utp_write(e, nil, 0, p.stack.now())
		writing.Unlock()
	}
	if e.pending == nil && p.finish {
		C.crust_utp_finish(e, p.stack.now())
	}
	if e.pending == nil {
		return nil, false
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(e.pending)), e.pending_size), true
}

// settle does what follows from the engine's state. mu is held.
func (p *Port) settle() {
	e := p.engine
	if e == nil || p.doomed {
		return
	}
	failed := e.error != C.CRUST_UTP_FINE
	if (e.established != 0 || failed) && !p.isUp {
		p.isUp = true
		close(p.up)
	}
	switch {
	case e.error == C.CRUST_UTP_VIOLATED, e.error == C.CRUST_UTP_MEMORY, e.error == C.CRUST_UTP_BROKEN:
		p.abort(p.failure())
	case p.closed && failed:
		p.free()
	case p.closed && e.fin_acked != 0 && e.eof == 0:
		p.abort(net.ErrClosed) // nobody will read what the peer may still send
	case p.closed && e.fin_acked != 0:
		p.free()
	}
}

// abort frees the engine and tells the peer if there was a connection. mu is held.
func (p *Port) abort(err error) {
	if p.err == nil && !p.closed {
		p.err = err
	}
	if p.engine.sock != nil {
		C.crust_utp_reset(p.engine, (*C.uint8_t)(&p.reset[0]))
		p.resetReady = true
		p.resetSend = p.engine.error != C.CRUST_UTP_RESET
	}
	p.free()
	p.flush()
}

// free gives the engine back. mu is held.
func (p *Port) free() {
	if p.sending {
		p.doomed = true
		return
	}
	select {
	case <-p.done:
		return
	default:
	}
	if p.engine != nil {
		if p.engine.sock != nil && !p.resetReady {
			C.crust_utp_reset(p.engine, (*C.uint8_t)(&p.reset[0]))
			p.resetReady = true
		}
		C.crust_utp_free(p.engine)
		p.engine = nil
	}
	close(p.done)
	if !p.isUp {
		p.isUp = true
		close(p.up)
	}
	pulse(p.readable)
	pulse(p.writable)
	p.stack.forget(p)
}

// tick does what time brings and returns whether to come again.
func (p *Port) tick() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.engine == nil || p.doomed {
		return false
	}
	C.crust_utp_tick(p.engine, p.stack.now())
	p.flush()
	p.settle()
	if p.engine == nil || p.doomed {
		return false
	}
	if p.closed && !time.Now().Before(p.linger) {
		p.abort(net.ErrClosed)
		return false
	}
	return p.closed || p.refused || p.dialled && !p.isUp
}
