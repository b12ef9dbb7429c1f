//go:build !race && amd64

package session

import (
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// shallow is an owner that puts as little below a session's goroutines as a service does.
type shallow struct {
	owner
	running sync.WaitGroup
}

func (o *shallow) Go(f func()) {
	o.running.Add(1)
	go func() {
		defer o.running.Done()
		f()
	}()
}

// through is one end of a connection through memory that takes next to nothing of a stack, as
// a socket does. It notices when its reader's stack is another one.
type through struct {
	net.Conn
	in, out chan []byte
	mem     [16][256]byte
	next    int
	stack   uintptr
	moved   bool
	once    sync.Once
}

func (c *through) Read(p []byte) (int, error) {
	var here byte
	if at := uintptr(unsafe.Pointer(&here)); c.stack == 0 {
		c.stack = at
	} else if c.stack != at {
		c.moved = true
	}
	b, ok := <-c.in
	if !ok {
		return 0, io.EOF
	}
	return copy(p, b), nil
}

func (c *through) Write(p []byte) (int, error) { return c.TryWrite(p) }

func (c *through) TryWrite(p []byte) (int, error) {
	b := c.mem[c.next%len(c.mem)][:]
	c.next++
	n := copy(b, p)
	c.out <- b[:n]
	return n, nil
}

func (c *through) Close() error {
	c.once.Do(func() { close(c.in) })
	return c.Conn.Close()
}

// TestIdleStack: heartbeats are answered on the smallest stack, of 2 KiB. One that has grown
// stays so.
func TestIdleStack(t *testing.T) {
	for name, ciphers := range map[string]uint8{"AES": wire.CipherAES256GCM | wire.CipherChaCha20Poly1305, "ChaCha": wire.CipherChaCha20Poly1305} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { idleStack(t, ciphers) })
		})
	}
}

func idleStack(t *testing.T, ciphers uint8) {
	const pairs = 50
	o := new(shallow)
	var sessions []*Session
	var conns []*through
	for range pairs {
		la, lb := linksBy(t, ciphers, 4<<10, nil)
		there, back := make(chan []byte, 16), make(chan []byte, 16)
		ca, cb := &through{Conn: la.Conn, in: back, out: there}, &through{Conn: lb.Conn, in: there, out: back}
		la.Conn, lb.Conn = ca, cb
		conns = append(conns, ca, cb)
		for _, l := range []*secure.Link{la, lb} {
			s := New(l, wire.SessionID{1}, resuming, o, nil)
			s.Start()
			sessions = append(sessions, s)
		}
	}
	time.Sleep(5 * resuming.Heartbeat)
	synctest.Wait()
	for _, s := range sessions {
		if s.Counters().RTT == 0 {
			t.Error("no ping was answered")
		}
		s.Kill(ErrReplaced)
		<-s.Done()
	}
	o.running.Wait()
	grown := 0
	for _, c := range conns {
		if c.moved {
			grown++
		}
	}
	if grown > len(conns)*2/5 { // some have, when the allocator needed more
		t.Errorf("the stacks of %d readers of %d have grown", grown, len(conns))
	} else {
		t.Logf("the stacks of %d readers of %d have grown", grown, len(conns))
	}
}
