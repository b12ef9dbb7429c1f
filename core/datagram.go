package crust

import (
	"errors"
	"fmt"

	"github.com/libcrust/libcrust/core/internal/arq"
	"github.com/libcrust/libcrust/core/internal/session"
)

// datagrammer is the connection of a link that carries datagrams beside the
// stream.
type datagrammer interface {
	SendDatagram(data []byte) error
	MaxDatagram() int
}

// SendDatagram sends one datagram of up to MaxDatagram bytes to a peer, at once
// and at most once: it may be lost, overtake and be overtaken, and never waits
// behind messages. It is encrypted and authenticated as messages are. When too
// many wait to be sent, the oldest is dropped. It copies data and never blocks.
//
// Errors: CodeUnknownPeer, CodeTooBig with the size that would fit, CodeClosed,
// and CodeUnsupported while the session's link is not uTP.
func (s *Service) SendDatagram(peer PeerID, data []byte) error {
	p := s.find(peer)
	if p == nil {
		return s.notConnected("send datagram", peer)
	}
	d, ok := p.sess.Link().Conn.(datagrammer)
	if !ok {
		return &Error{Op: "send datagram", Peer: peer, Code: CodeUnsupported, Err: errNoDatagrams}
	}
	err := d.SendDatagram(data)
	switch {
	case err == nil:
		s.datagramsSent.Add(1)
		return nil
	case errors.Is(err, arq.ErrTooBig):
		return &Error{Op: "send datagram", Peer: peer, Code: CodeTooBig, Err: fmt.Errorf("the datagram has %d bytes, %d fit", len(data), d.MaxDatagram())}
	}
	return s.notConnected("send datagram", peer) // the link has just ended
}

var errNoDatagrams = errors.New("the link to the peer is TCP, which has no datagrams")

// MaxDatagram returns how many bytes SendDatagram takes now for a peer: at least
// 1,100 over uTP, more when the path turns out to be wider, and 0 over TCP. The
// error is CodeUnknownPeer.
func (s *Service) MaxDatagram(peer PeerID) (int, error) {
	p := s.find(peer)
	if p == nil {
		return 0, s.notConnected("max datagram", peer)
	}
	if d, ok := p.sess.Link().Conn.(datagrammer); ok {
		return d.MaxDatagram(), nil
	}
	return 0, nil
}

// SendDatagram sends beside the stream.
func (c *utpConn) SendDatagram(data []byte) error { return c.assoc.SendDatagram(data) }

// MaxDatagram returns what fits.
func (c *utpConn) MaxDatagram() int { return c.assoc.MaxDatagram() }

// onDatagram takes a datagram of the peer. One that comes before there is a
// session, or for which there is no room, is lost.
func (c *utpConn) onDatagram(data []byte) {
	id := c.assoc.Remote().Peer
	if c.s.find(id) == nil || !c.s.events.datagram(id, data) {
		c.s.datagramsLost.Add(1)
		return
	}
	c.s.datagramsReceived.Add(1)
}

// slabSize is the size of the buffers that datagrams are gathered in.
const slabSize = 64 << 10

// datagram adds a datagram, which it copies, and reports false when there is no
// room: datagrams get half of what messages may take.
func (q *eventQueue) datagram(peer PeerID, data []byte) bool {
	cost := len(data) + messageCost
	q.mu.Lock()
	if q.stopped || q.closing || q.bytes+cost > q.limit/2 {
		q.mu.Unlock()
		return false
	}
	c := q.tail(1)
	c.grow(1)
	if q.slab == nil || q.slabbed+len(data) > len(q.slab.B) || q.slabOf != c {
		q.dropSlab()
		q.slab, q.slabOf = session.NewBuffer(max(len(data), slabFor(len(c.buffers)))), c
		c.buffers = append(c.buffers, q.slab)
		q.slab.Retain()
	}
	at := q.slab.B[q.slabbed:q.slabbed:len(q.slab.B)]
	at = append(at, data...)
	q.slabbed += len(data)
	n := len(c.events)
	c.events = c.events[:n+1]
	e := &c.events[n]
	e.Type, e.Peer, e.Data = EventDatagram, peer, at[:len(data):len(data)]
	c.bytes += cost
	q.bytes += cost
	before := q.count
	q.count++
	q.total++
	call := q.signal(before)
	q.mu.Unlock()
	call()
	return true
}

// slabFor returns the size of the next slab of a chunk that has n buffers: a
// lone datagram takes little memory, a flood few buffers.
func slabFor(n int) int { return min(2<<10<<(2*min(n, 3)), slabSize) }

// dropSlab lets the slab go that datagrams were gathered in. mu is held.
func (q *eventQueue) dropSlab() {
	if q.slab != nil {
		q.slab.Release()
	}
	q.slab, q.slabOf, q.slabbed = nil, nil, 0
}
