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
// behind messages in a queue of the library. It is encrypted and authenticated
// as messages are. Over uTP it is a datagram on the wire; over TCP it goes into
// the stream before all messages that have not been handed to the system. When
// too many wait to be sent, some are dropped, and all are while the session is
// suspended. It copies data and never blocks.
//
// Errors: CodeUnknownPeer, CodeTooBig with the size that would fit, CodeClosed.
func (s *Service) SendDatagram(peer PeerID, data []byte) error {
	p := s.find(peer)
	if p == nil {
		return s.notConnected("send datagram", peer)
	}
	var err error
	d, own := p.sess.Link().Conn.(datagrammer)
	if own {
		err = d.SendDatagram(data)
	} else {
		err = p.sess.SendDatagram(data)
	}
	switch {
	case errors.Is(err, arq.ErrTooBig), errors.Is(err, session.ErrTooBig):
		most := session.MaxDatagram
		if own {
			most = d.MaxDatagram()
		}
		return &Error{Op: "send datagram", Peer: peer, Code: CodeTooBig, Err: fmt.Errorf("the datagram has %d bytes, %d fit", len(data), most)}
	case errors.Is(err, session.ErrEnded), err != nil && s.find(peer) != p:
		return s.notConnected("send datagram", peer)
	}
	s.datagramsSent.Add(1) // also when the link has just ended: it is lost as on the way
	return nil
}

// MaxDatagram returns how many bytes SendDatagram takes now for a peer: at least
// 1,100, more over uTP when the path turns out to be wider. The error is
// CodeUnknownPeer.
func (s *Service) MaxDatagram(peer PeerID) (int, error) {
	p := s.find(peer)
	if p == nil {
		return 0, s.notConnected("max datagram", peer)
	}
	if d, ok := p.sess.Link().Conn.(datagrammer); ok {
		if most := d.MaxDatagram(); most > 0 {
			return most, nil
		}
	}
	return session.MaxDatagram, nil
}

// SendDatagram sends beside the stream.
func (c *utpConn) SendDatagram(data []byte) error { return c.assoc.SendDatagram(data) }

// MaxDatagram returns what fits.
func (c *utpConn) MaxDatagram() int { return c.assoc.MaxDatagram() }

// onDatagram takes a datagram of the peer. One that comes before there is a
// session, or for which there is no room, is lost.
func (c *utpConn) onDatagram(data []byte) { c.s.datagram(c.assoc.Remote().Peer, data) }

// Datagram takes a datagram that came in the stream.
func (o *owner) Datagram(sess *session.Session, data []byte) {
	(*Service)(o).datagram(sess.Tag.(*peer).id, data)
}

func (s *Service) datagram(id PeerID, data []byte) {
	s.datagramsReceived.Add(1) // before: who has it finds it counted
	if p := s.find(id); p == nil || !s.mayCome(p, len(data)) || !s.events.datagram(id, data) {
		s.datagramsReceived.Add(^uint64(0))
		s.datagramsLost.Add(1)
	}
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
