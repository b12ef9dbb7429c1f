//go:build linux

package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// recording is what went over one connection.
type recording struct{ up, down bytes.Buffer }

// relay passes connections on to a service, records them, and cuts them. When it
// is the attacker it answers with a recording instead.
type relay struct {
	net.Listener
	to string

	mu     sync.Mutex
	conns  []net.Conn
	tapes  []*recording
	replay *recording // answers whoever comes
	fooled int        // connections that were answered so
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to}
	t.Cleanup(func() { l.Close(); r.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
	return r
}

func (r *relay) serve(c net.Conn) {
	r.mu.Lock()
	if tape := r.replay; tape != nil {
		r.fooled++
		r.conns = append(r.conns, c)
		r.mu.Unlock()
		io.CopyN(io.Discard, c, 1) //nolint:errcheck // it goes on or not
		c.Write(tape.down.Bytes()) //nolint:errcheck // the same
		io.Copy(io.Discard, c)     //nolint:errcheck // the same
		c.Close()
		return
	}
	out, err := net.Dial("tcp", r.to)
	if err != nil {
		r.mu.Unlock()
		c.Close()
		return
	}
	tape := &recording{}
	r.tapes = append(r.tapes, tape)
	r.conns = append(r.conns, c, out)
	r.mu.Unlock()
	pass := func(to, from net.Conn, tape *bytes.Buffer) {
		b := make([]byte, 32<<10)
		for {
			n, err := from.Read(b)
			r.mu.Lock()
			tape.Write(b[:n])
			r.mu.Unlock()
			if _, failed := to.Write(b[:n]); err != nil || failed != nil {
				to.Close()
				from.Close()
				return
			}
		}
	}
	go pass(out, c, &tape.up)
	pass(c, out, &tape.down)
}

// cut breaks what there is.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// answer has the relay answer with a recording, or none again.
func (r *relay) answer(tape *recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replay = tape
}

// tape returns the recording with a number when there is one, nil otherwise.
func (r *relay) tape(i int) *recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i >= len(r.tapes) {
		return nil
	}
	c := &recording{}
	c.up.Write(r.tapes[i].up.Bytes())
	c.down.Write(r.tapes[i].down.Bytes())
	return c
}

func newService(t *testing.T, key *identity.Key) *crust.Service {
	t.Helper()
	ep, err := crust.ParseEndpoint("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := crust.New(crust.Config{Identity: key, Listen: []crust.Endpoint{ep}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// next returns the next event that is no change of listeners.
func next(t *testing.T, s *crust.Service) crust.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for e := range s.Events(ctx) {
		if e.Type != crust.EventListenerStarted {
			return e
		}
	}
	t.Fatal("no event came")
	return crust.Event{}
}

// until takes events until one of a type, of those that a cut brings.
func until(t *testing.T, s *crust.Service, want crust.EventType) crust.Event {
	t.Helper()
	for {
		e := next(t, s)
		if e.Type == want {
			return e
		}
		if e.Type != crust.EventSuspended && e.Type != crust.EventResumed {
			t.Fatalf("%v (%v) while waiting for %v", e.Type, e.Err(), want)
		}
	}
}

// TestReplayedResumption: an attacker who has recorded all bytes of a resumption
// plays them to the side that was dialled, while the session lives and while it is
// suspended, and answers the side that dials with them. Nobody answers him, nothing
// changes, and the session goes on. Both sides have the greater peer id once.
func TestReplayedResumption(t *testing.T) {
	for _, greater := range []bool{false, true} {
		t.Run(fmt.Sprint("the dialled side decides: ", greater), func(t *testing.T) {
			keys := [2]*identity.Key{}
			for i := range keys {
				key, err := identity.Generate()
				if err != nil {
					t.Fatal(err)
				}
				keys[i] = key
			}
			if (keys[1].ID().Compare(keys[0].ID()) > 0) != greater {
				keys[0], keys[1] = keys[1], keys[0]
			}
			replayed(t, newService(t, keys[0]), newService(t, keys[1]))
		})
	}
}

// replayed has a dial b through a relay.
func replayed(t *testing.T, a, b *crust.Service) {
	at := b.Listeners()[0]
	r := newRelay(t, at.Addr.String())
	through, err := crust.ParseEndpoint("tcp://" + r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.ConnectEndpoint(crust.Contact{Endpoint: through, Peer: b.ID()}, 1); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*crust.Service{a, b} {
		if e := next(t, s); e.Type != crust.EventConnected {
			t.Fatal(e.Type, e.Err())
		}
	}
	number := byte(0)
	talk := func() {
		t.Helper()
		number++
		for _, pair := range [][2]*crust.Service{{a, b}, {b, a}} {
			if err := pair[0].Send(pair[1].ID(), []byte{number}, 0); err != nil {
				t.Fatal(err)
			}
			if e := until(t, pair[1], crust.EventMessage); !bytes.Equal(e.Data, []byte{number}) {
				t.Fatalf("message %d came where %d was due", e.Data, number)
			}
		}
	}
	talk()
	r.cut()
	until(t, a, crust.EventResumed)
	talk()
	tape := r.tape(1) // of the resumption
	if tape == nil || tape.up.Len() < 300 || tape.down.Len() < 300 {
		t.Fatal("there is no recording of a resumption")
	}
	resumed := func(s *crust.Service, peer crust.PeerID) uint64 {
		p, ok := s.Peer(peer)
		if !ok {
			t.Fatal("the session is gone")
		}
		return p.Resumed
	}
	unchanged := func(what string, times uint64) {
		t.Helper()
		if n := resumed(b, a.ID()); n != times {
			t.Errorf("%s: the dialled side has moved %d times, want %d", what, n, times)
		}
		if a.Stats().SessionsTotal != 1 || b.Stats().SessionsTotal != 1 {
			t.Errorf("%s: there is another session", what)
		}
	}
	play(t, at.Addr.String(), tape.up.Bytes())
	unchanged("played while it lives", 1)
	talk()

	r.answer(tape) // the dialling side gets the recorded answers, again and again
	r.cut()
	until(t, a, crust.EventSuspended)
	for deadline := time.Now().Add(10 * time.Second); ; {
		r.mu.Lock()
		fooled := r.fooled
		r.mu.Unlock()
		if fooled >= 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not dial")
		}
		play(t, at.Addr.String(), tape.up.Bytes())
	}
	unchanged("played while it is suspended", 1)
	for name, s := range map[string]*crust.Service{"dialling": a, "dialled": b} {
		if p := s.Peers(); len(p) != 1 || !p[0].Suspended {
			t.Errorf("the %s side is not suspended any more", name)
		}
	}
	r.answer(nil)
	until(t, a, crust.EventResumed)
	talk()
	unchanged("in the end", 2)
	if err := a.Disconnect(b.ID()); err != nil {
		t.Fatal(err)
	}
	until(t, a, crust.EventLost)
	until(t, b, crust.EventLost)
}

// play is the attacker: it plays a recording to a service, whole and flight by
// flight, and must not get a byte for it.
func play(t *testing.T, to string, tape []byte) {
	t.Helper()
	for _, first := range []int{len(tape), 200} {
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(500 * time.Millisecond)) //nolint:errcheck // it is open
		c.Write(tape[:first])                                 //nolint:errcheck // it may have been closed
		c.Write(tape[first:])                                 //nolint:errcheck // the same
		if n, _ := io.Copy(io.Discard, c); n != 0 {
			t.Errorf("the service answered a recording with %d bytes", n)
		}
		c.Close()
	}
}
