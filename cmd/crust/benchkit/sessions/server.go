package sessions

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	crust "github.com/libcrust/libcrust/core"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// server serves each peer from its first message on. Whoever of its goroutines
// waits for messages may take events, for the others too; with one peer no
// message costs a switch of goroutines.
type server struct {
	node    *node
	address string
	serve   func(benchkit.Conn)
	running sync.WaitGroup
	turn    chan struct{} // one slot: full while somebody takes events

	mu    sync.Mutex // guards what follows, and what conns want
	conns map[crust.PeerID]*served
	over  bool
}

// Bounds of what a peer may send before it is asked for: between two tasks, when others
// take events for it. What each message takes is an estimate.
const (
	maxEarly  = 64 << 20
	earlyEach = 64
)

// served is the session with one peer at the accepting end.
type served struct {
	conn
	server *server
	want   int    // messages that somebody waits for
	size   int    // of each
	into   []byte // where to put it, or nil
	early  [][]byte
	held   int           // bytes of early, with what each message takes beside its own
	err    error         // why no more come
	woken  chan struct{} // one slot
}

func (t transport) Listen(at netip.Addr, serve func(benchkit.Conn)) (benchkit.Server, error) {
	n, err := t.newNode(at)
	if err != nil {
		return nil, err
	}
	started, err := n.await(func(e *crust.Event) bool {
		return e.Type == crust.EventListenerStarted || e.Type == crust.EventListenerFailed
	})
	if err == nil {
		err = started.Err()
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	s := newServer(n, fmt.Sprintf("%s#%s", started.Endpoint(), n.service.ID()), serve)
	s.running.Go(s.run)
	return s, nil
}

func newServer(n *node, address string, serve func(benchkit.Conn)) *server {
	return &server{node: n, address: address, serve: serve, turn: make(chan struct{}, 1), conns: map[crust.PeerID]*served{}}
}

func (s *server) Address() string { return s.address }

// run takes events while nobody else does, and serves the peer that it finds.
func (s *server) run() {
	for {
		s.turn <- struct{}{}
		found, err := s.lead(nil)
		<-s.turn
		if err != nil {
			return // closed: what the client misses it reports
		}
		s.attend(found)
	}
}

// attend serves one peer.
func (s *server) attend(c *served) {
	s.serve(c)
	s.mu.Lock()
	delete(s.conns, c.peer)
	s.mu.Unlock()
	_ = s.node.service.Disconnect(c.peer) // it may be gone
}

// lead takes events until c has what it wants, or, without c, until a new peer
// speaks, and returns it. The caller has the turn.
func (s *server) lead(c *served) (*served, error) {
	n := s.node
	if n.single && n.next == len(n.batch.Events) {
		for event := range n.service.Events(n.ctx) {
			s.mu.Lock()
			found, done := s.deliver(&event, c)
			s.mu.Unlock()
			if done {
				return found, s.fault()
			}
		}
		s.end()
		return nil, s.fault()
	}
	for {
		if _, err := n.peek(); err != nil {
			s.end()
			return nil, s.fault()
		}
		s.mu.Lock()
		for n.next < len(n.batch.Events) {
			event := &n.batch.Events[n.next]
			n.next++
			if found, done := s.deliver(event, c); done {
				s.mu.Unlock()
				return found, s.fault()
			}
		}
		s.mu.Unlock()
	}
}

// end says that no event will come any more.
func (s *server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, c := range s.conns {
		c.fail(io.EOF)
	}
}

func (s *server) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return io.EOF
	}
	return nil
}

// deliver gives an event to the peer that it is of, and tells whether the one who
// leads for c is done. mu is held.
func (s *server) deliver(event *crust.Event, c *served) (found *served, done bool) {
	to := c
	if c == nil || event.Peer != c.peer {
		to = s.conns[event.Peer]
	}
	switch event.Type {
	case crust.EventMessage:
		if to == nil {
			to = &served{conn: conn{node: s.node, peer: event.Peer}, server: s, woken: make(chan struct{}, 1)}
			to.take(event.Data)
			s.conns[event.Peer] = to
			if c == nil {
				return to, true
			}
			s.running.Go(func() { s.attend(to) })
			return nil, false
		}
		to.take(event.Data)
	case crust.EventLost:
		if to != nil {
			to.fail(io.EOF)
		}
	case crust.EventStopped:
		s.over = true
		for _, c := range s.conns {
			c.fail(io.EOF)
		}
		return nil, true
	}
	return nil, c != nil && (c.want == 0 || c.err != nil)
}

// take takes a message: mu is held.
func (c *served) take(data []byte) {
	switch {
	case c.want == 0 && c.held > maxEarly:
		c.early = nil
		c.fail(fmt.Errorf("more than %d bytes arrived before anybody asked for them", maxEarly))
		return
	case c.want == 0:
		c.early = append(c.early, slices.Clone(data))
		c.held += len(data) + earlyEach
		return
	case len(data) != c.size:
		c.fail(fmt.Errorf("a message of %d bytes arrived, not of %d", len(data), c.size))
		return
	}
	copy(c.into, data)
	if c.want--; c.want == 0 {
		c.wake()
	}
}

func (c *served) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.wake()
}

func (c *served) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// receive waits for messages.
func (c *served) receive(count, size int, into []byte) error {
	s := c.server
	s.mu.Lock()
	c.want, c.size, c.into = count, size, into
	for c.want > 0 && len(c.early) > 0 {
		data := c.early[0]
		c.early = c.early[1:]
		c.held -= len(data) + earlyEach
		c.take(data)
	}
	for c.want > 0 && c.err == nil {
		s.mu.Unlock()
		select {
		case s.turn <- struct{}{}:
			s.mu.Lock()
			idle := c.want > 0 && c.err == nil && !s.over
			s.mu.Unlock()
			if idle {
				_, _ = s.lead(c) // its error is c.err as well
			}
			<-s.turn
		case <-c.woken:
		}
		s.mu.Lock()
		if s.over {
			c.fail(io.EOF)
		}
	}
	defer s.mu.Unlock()
	if c.want == 0 {
		return nil
	}
	c.want = 0
	return c.err
}

func (c *served) ReceiveAll(count, size int) error { return c.receive(count, size, nil) }

func (c *served) Receive(message []byte) error { return c.receive(1, len(message), message) }

// ReceiveDatagrams takes all events itself.
func (c *served) ReceiveDatagrams(size int, d time.Duration) (received int, err error) {
	s, n := c.server, c.node
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if _, err := n.peek(); err != nil {
		s.end()
		return 0, err
	}
	ctx, cancel := context.WithTimeout(n.ctx, d) // the first is here
	defer cancel()
	_, report := underWay(size)
	for told := int64(0); ; {
		if _, err := n.peekWithin(ctx); ctx.Err() != nil {
			return received, nil
		} else if err != nil {
			s.end()
			return received, err
		}
		s.mu.Lock()
		for ; n.next < len(n.batch.Events); n.next++ {
			event := &n.batch.Events[n.next]
			if event.Type == crust.EventDatagram && event.Peer == c.peer && len(event.Data) == size {
				received++
			} else {
				s.deliver(event, c)
			}
		}
		err := c.err
		s.mu.Unlock()
		if err == nil && int64(received)-told >= report {
			told = int64(received)
			err = n.service.SendDatagram(c.peer, binary.BigEndian.AppendUint64(nil, uint64(received))) //nolint:gosec // not negative
		}
		if err != nil {
			return received, err
		}
	}
}

// Close does nothing: the server ends the session when it has been served.
func (c *served) Close() error { return nil }

func (s *server) Close() error {
	s.node.cancel()
	err := s.node.service.Close()
	s.running.Wait()
	s.node.batch.Release()
	return err
}
