package utp

/*
#cgo linux windows LDFLAGS: -static-libstdc++ -static-libgcc
#include "engine.h"
#cgo noescape crust_utp_input
#cgo nocallback crust_utp_input
#cgo noescape crust_utp_write
#cgo nocallback crust_utp_write
#cgo noescape crust_utp_read
#cgo nocallback crust_utp_read
#cgo noescape crust_utp_small
#cgo nocallback crust_utp_small
#cgo noescape crust_utp_sent
#cgo nocallback crust_utp_sent
*/
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	_ "github.com/anacrolix/go-libutp" // libutp itself; doc.go says why not its Go half
)

const (
	// MaxPacket is the size of the largest packet that a Path is given, in
	// bytes. Fewer and larger packets cost fewer locks and calls per byte;
	// libutp counts a packet in 16 bits.
	MaxPacket = C.CRUST_UTP_MTU

	minWindow = 2 * MaxPacket
	maxWindow = 1 << 30 // libutp counts a window in an int

	// tick is how often connections are looked at that wait for time to pass:
	// while they dial, close, or hold a packet that the path refused.
	tick = 10 * time.Millisecond
)

// Path carries the packets of one authenticated peer.
type Path interface {
	// SendPacket sends a packet of up to MaxPacket bytes, which it does not
	// keep or change. True means that the peer's Port.Input will get it,
	// whole, once, in nearly the order of sending, unless the path ends before:
	// then both Ports must be closed. False means that there is no room now: the
	// packet will be offered again, when Port.Input or Port.Ready is called and
	// every 10 ms. It is called by one goroutine at a time and must not wait for
	// the peer; it may call the other Port's Input.
	SendPacket(packet []byte) bool
}

// Config says how a Stack works. The zero value of each field but Go means its
// default.
type Config struct {
	// Go runs a function in a goroutine that the owner joins after Close.
	// Required. A Stack starts one.
	Go func(func())

	// Window is how many bytes of one connection may be received and not read
	// at first. Default 1 MiB, at least 120,000.
	Window int
	// MaxWindow is what it grows to, doubling, while the reader is faster than
	// the sender. Default 64 MiB, at least Window, at most 1 GiB. A reader that
	// has always stopped holds Window, and never more than MaxWindow.
	MaxWindow int

	// Linger is how long a closed connection goes on to deliver what was
	// written. Default 5 s.
	Linger time.Duration
}

// Stack is the uTP of one service. Its methods and those of its Ports and Conns
// may be called from any goroutine.
type Stack struct {
	cfg    Config
	origin time.Time
	wake   chan struct{} // one slot: watched is no longer empty
	quit   chan struct{} // closed by Close

	mu      sync.Mutex
	closed  bool
	ports   map[*Port]struct{}
	watched map[*Port]struct{} // those that tick looks at
}

// New returns a Stack without connections. An error is a mistake in cfg.
func New(cfg Config) (*Stack, error) {
	if cfg.Window == 0 {
		cfg.Window = 1 << 20
	}
	if cfg.MaxWindow == 0 {
		cfg.MaxWindow = max(64<<20, cfg.Window)
	}
	if cfg.Linger == 0 {
		cfg.Linger = 5 * time.Second
	}
	switch {
	case cfg.Go == nil:
		return nil, errors.New("utp: Config.Go is missing")
	case cfg.Window < minWindow || cfg.MaxWindow < cfg.Window || cfg.MaxWindow > maxWindow:
		return nil, fmt.Errorf("utp: windows of %d to %d bytes, not within %d and %d", cfg.Window, cfg.MaxWindow, minWindow, maxWindow)
	case cfg.Linger < 0:
		return nil, fmt.Errorf("utp: negative Linger %v", cfg.Linger)
	}
	s := &Stack{
		cfg: cfg,
		// libutp takes time 0 for "never".
		origin:  time.Now().Add(-time.Hour),
		wake:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
		ports:   map[*Port]struct{}{},
		watched: map[*Port]struct{}{},
	}
	cfg.Go(s.run)
	return s, nil
}

// Close closes all Ports and ends the goroutine that New started.
func (s *Stack) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	ports := make([]*Port, 0, len(s.ports))
	for p := range s.ports {
		ports = append(ports, p)
	}
	s.mu.Unlock()
	for _, p := range ports {
		p.Close()
	}
	close(s.quit)
	return nil
}

// now is the time for libutp, in microseconds.
func (s *Stack) now() C.uint64_t {
	return C.uint64_t(time.Since(s.origin).Microseconds()) //nolint:gosec // not negative
}

// Add makes a Port for one path, which carries one connection. The local and
// remote address are what the connection's methods return. Add it before
// packets of the peer can come. After Close it is closed from the start.
func (s *Stack) Add(path Path, local, remote net.Addr) *Port {
	var seed [8]byte
	rand.Read(seed[:]) //nolint:errcheck // never fails since Go 1.24
	return s.add(path, local, remote, binary.NativeEndian.Uint64(seed[:]))
}

// add is Add with the seed of the numbers that libutp draws.
func (s *Stack) add(path Path, local, remote net.Addr, seed uint64) *Port {
	p := &Port{
		stack:     s,
		path:      path,
		local:     local,
		remote:    remote,
		up:        make(chan struct{}),
		done:      make(chan struct{}),
		readable:  make(chan struct{}, 1),
		writable:  make(chan struct{}, 1),
		readTurn:  make(chan struct{}, 1),
		writeTurn: make(chan struct{}, 1),
	}
	p.readDeadline.changed = make(chan struct{})
	p.writeDeadline.changed = make(chan struct{})
	p.engine = C.crust_utp_new(C.uint64_t(seed), s.now(), C.size_t(s.cfg.Window), C.size_t(s.cfg.MaxWindow))
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.ports[p] = struct{}{}
	}
	s.mu.Unlock()
	if closed || p.engine == nil {
		p.mu.Lock()
		p.free()
		p.mu.Unlock()
	}
	return p
}

// watch has a Port ticked until its tick returns false.
func (s *Stack) watch(p *Port) {
	s.mu.Lock()
	s.watched[p] = struct{}{}
	s.mu.Unlock()
	pulse(s.wake)
}

func (s *Stack) forget(p *Port) {
	s.mu.Lock()
	delete(s.ports, p)
	delete(s.watched, p)
	s.mu.Unlock()
}

// run ticks what is watched. It is the goroutine that New starts.
func (s *Stack) run() {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	var ports []*Port
	for {
		select {
		case <-s.wake:
		case <-s.quit:
			return
		}
		for {
			timer.Reset(tick)
			select {
			case <-timer.C:
			case <-s.quit:
				return
			}
			s.mu.Lock()
			for p := range s.watched {
				ports = append(ports, p)
			}
			clear(s.watched)
			s.mu.Unlock()
			again := false
			for _, p := range ports {
				if p.tick() {
					again = true
					s.watch(p)
				}
			}
			clear(ports)
			ports = ports[:0]
			if !again {
				break
			}
		}
	}
}

// pulse wakes whoever waits at a channel with one slot.
func pulse(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
