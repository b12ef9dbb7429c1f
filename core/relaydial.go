package crust

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Which relay is connected to a peer is not known, so several are asked. One that
// is not says so within a round trip, and the next one is asked at once.

const (
	// relaysTried bounds the relays that are asked in one try.
	relaysTried = 16
	// relaysAtOnce are asked at the same time; then another one each relayStagger.
	relaysAtOnce = 4
	relayStagger = 100 * time.Millisecond
	// relayHead is the head start of direct links when a session looks for another
	// one.
	relayHead = 200 * time.Millisecond
	// latePatience is how long a letter is still of use after a session over a relay
	// has come.
	latePatience = 10 * time.Second
)

// relaysFor returns peers that may carry a link to another one, in any order.
func (s *Service) relaysFor(id PeerID) (list []*peer) {
	s.lookup.RLock()
	defer s.lookup.RUnlock()
	for _, p := range s.peers {
		if p.id == id || p.how == Relayed || p.sess.Remote().Flags&wire.FlagRelay == 0 {
			continue
		}
		if _, ok := p.sess.At(); ok {
			list = append(list, p)
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(len(list), relaysTried)]
}

// raceRelays opens circuits to a peer until one leads to it. It returns the link
// and the endpoint of its relay. For an attempt that is not nil a session may have come of
// it already, by a one-time key: then that is resolved, which ends ctx.
func (s *Service) raceRelays(ctx context.Context, id PeerID, a *attempt) (*secure.Link, Endpoint, error) {
	type way struct {
		p  *peer
		ep Endpoint
	}
	if !s.allows(Relayed) {
		return nil, Endpoint{}, s.notAllowed(id, Endpoint{})
	}
	ways := make(map[netip.AddrPort]way)
	var steps []dial.Step
	for _, p := range s.relaysFor(id) {
		ep, _ := s.whereabouts(p)
		if _, twice := ways[ep.Addr]; !twice {
			ways[ep.Addr] = way{p, ep}
			wait := time.Duration(max(0, len(steps)+1-relaysAtOnce)) * relayStagger
			steps = append(steps, dial.Step{Endpoint: endpoint.New(TCP, ep.Addr), Delay: wait})
		}
	}
	if len(steps) == 0 {
		return nil, Endpoint{}, &Error{Op: "connect", Peer: id, Code: CodeNoEndpoint, Err: errors.New("no peer offers to relay")}
	}
	link, step, err := dial.Race(ctx, steps,
		func(ctx context.Context, step dial.Step) (*secure.Link, error) {
			return s.tryRelay(ctx, ways[step.Endpoint.Addr].p, ways[step.Endpoint.Addr].ep, id, a)
		},
		func(link *secure.Link) { link.Conn.Close() })
	if err != nil {
		return nil, Endpoint{}, s.raceError("connect", id, err)
	}
	return link, ways[step.Endpoint.Addr].ep, nil
}

// tryRelay opens a circuit through a relay and shakes hands with the peer at its
// end.
func (s *Service) tryRelay(ctx context.Context, relay *peer, at Endpoint, id PeerID, a *attempt) (*secure.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	t := &port{p: relay}
	conn := newRelayConn(s, t, at)
	t.conn = conn
	var e *call
	if s.wantsKey(a) {
		var err error
		if e, err = s.newCall(a, conn, at); err != nil {
			return nil, s.linkError("connect", id, at, err)
		}
	}
	began := time.Now()
	c := &s.circuits
	c.mu.Lock()
	line, ok := relay.sess.At()
	t.at, t.id = line, c.name(s, relay)
	if ok {
		if ok = t.send(wire.RelayOpen{ID: t.id, Keyed: e != nil, Peer: id}.Append(nil)); ok {
			c.add(t)
		}
	}
	c.mu.Unlock()
	var link *secure.Link
	var err error
	switch {
	case !ok && e != nil:
		e.shakes.Drop()
		fallthrough
	case !ok:
		return nil, s.linkError("connect", id, at, relayError{wire.RelayBroken})
	case e != nil:
		link, err = e.make(ctx)
	default:
		link, err = s.shake(ctx, conn, at, id)
	}
	if err == nil && a != nil {
		if err = s.awaitEarly(ctx, id, began); err != nil {
			conn.Close() //nolint:errcheck // it carries nothing
		}
	}
	if err != nil {
		return nil, err
	}
	return link, nil
}

// takeCircuit accepts a circuit that a relay announces, or returns why not.
// circuits.mu is held.
func (s *Service) takeCircuit(p *peer, at session.Line, open wire.RelayOpen) wire.RelayReason {
	c := &s.circuits
	if s.ctx.Err() != nil || open.Peer == s.ID() || open.Peer == p.id || s.bans(open.Peer, netip.Addr{}) != nil || !s.accept.Load() && s.findAny(open.Peer) == nil {
		return wire.RelayNotAllowed
	}
	ep, how := s.whereabouts(p)
	if how == Relayed {
		return wire.RelayNotAllowed
	}
	may := c.mayOpen(p, time.Now())
	key := s.useKey(p, open, may)
	if !may {
		return wire.RelayLimit
	}
	t := &port{p: p, at: at, id: open.ID}
	t.conn = newRelayConn(s, t, ep)
	if key != nil {
		t.conn.early = &key.Name
	}
	c.add(t)
	c.calls(open.Peer, p, key != nil)
	s.spawn(func() {
		defer c.called(open.Peer) // also when it panics
		s.respondRelay(t.conn, open.Peer, key)
	})
	return wire.RelayDone
}

// calls counts a circuit that a peer opens to us over a relay. What the peer says
// after its first flight takes a round trip to it, about two to the relay, and half of
// that when the relay has given it a one-time key. mu is held.
func (c *circuits) calls(by PeerID, relay *peer, keyed bool) {
	if c.callers == nil {
		c.callers = make(map[PeerID]caller)
	}
	trips := time.Duration(2)
	if keyed {
		trips = 1
	}
	k, due := c.callers[by], time.Now().Add(trips*relay.sess.Counters().RTT)
	if k.circuits++; k.circuits == 1 || due.Before(k.due) {
		k.due = due
	}
	c.callers[by] = k
}

// called takes a circuit out of the count that is a session now, or closed.
func (c *circuits) called(by PeerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.callers[by]
	if k.circuits--; k.circuits > 0 {
		c.callers[by] = k
	} else {
		delete(c.callers, by)
	}
}

// respondRelay is the goroutine of one accepted circuit, until it is a session or
// closed. It answers with a one-time key if it is not nil.
func (s *Service) respondRelay(conn *relayConn, from PeerID, key *secure.OneTime) {
	g := s.halls.enter(conn, false)
	if g == nil {
		if key != nil {
			key.Zero()
		}
		conn.Close() //nolint:errcheck // the service stops
		return
	}
	began := time.Now()
	conn.SetDeadline(began.Add(s.cfg.HandshakeTimeout)) //nolint:errcheck // a closed connection shows in the first read
	var link *secure.Link
	var err error
	if key != nil {
		link, err = secure.RespondOnce(conn, s.secure, key)
	} else {
		link, err = secure.Respond(conn, s.secure)
	}
	if err == nil && link.Remote.Peer != from {
		err = secure.ErrWrongPeer
	}
	if err == nil {
		admit := func() bool { return s.halls.admit(g) }
		_, err = s.adopt(link, adoption{how: Relayed, began: began, linked: began, endpoint: conn.from.ep, admit: admit})
	} else {
		conn.Close() //nolint:errcheck // it carries nothing
	}
	s.halls.leave(g)
	if err != nil {
		s.log.Debug("a relayed connection gave no session", "relay", conn.from, "error", err)
	}
}

// meetByRelay connects to the peer of an attempt over a relay, while the letters
// are on their way: a direct link takes the session over when it comes.
func (s *Service) meetByRelay(a *attempt) {
	for tries := 1; ; tries++ {
		dialled := time.Now()
		link, ep, err := s.raceRelays(a.ctx, a.peer, a)
		if err == nil {
			if p := s.settled(a); p != nil && !s.improves(p, Relayed, ep) {
				link.Conn.Close() //nolint:errcheck // it carries nothing
				return
			}
			var p *peer
			p, err = s.adopt(link, adoption{how: Relayed, began: a.began, linked: dialled, endpoint: ep, attempt: a, within: a.ctx})
			if err == nil && s.already(a, p) {
				return
			}
		}
		if a.ctx.Err() == nil {
			s.log.Debug("no relay led to a peer", "peer", a.peer, "error", err)
		}
		if !s.rest(a.ctx, redialPause(tries)) {
			return
		}
	}
}

// late waits for what comes to a seeker whose session has come over a relay, and
// still is: it tells where a direct link may be had.
func late[T any](s *Service, a *attempt, came <-chan T) (got T, ok bool) {
	p := s.find(a.peer)
	if p == nil || !s.isRelayed(a.peer) {
		return got, false
	}
	timer := time.NewTimer(latePatience)
	defer timer.Stop()
	select {
	case got = <-came:
		return got, true
	case <-timer.C:
	case <-p.sess.Quit():
	case <-s.ctx.Done():
	}
	return got, false
}

// isRelayed reports whether there is a session with a peer whose link is relayed.
func (s *Service) isRelayed(id PeerID) bool {
	s.lookup.RLock()
	defer s.lookup.RUnlock()
	p := s.peers[id]
	return p != nil && p.how == Relayed
}

// beyondRelay looks at once for a direct link to a peer that may be at endpoints, of
// which routers pass some on.
func (s *Service) beyondRelay(id PeerID, eps, mapped []Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.peers[id]; p != nil {
		p.hear(eps...)
		p.markMapped(mapped...)
		s.seek(p, true)
	}
}

// found is a link to a peer, or why there is none.
type found struct {
	link *secure.Link
	ep   Endpoint
	how  How
	err  error
}

// raceAll dials a peer at its endpoints and, a little later, over relays, again and
// again while it dials, and returns the first link.
func (s *Service) raceAll(a *attempt, eps []Endpoint) found {
	if a.clear {
		r := found{how: Dialed}
		r.link, r.ep, r.err = s.race(a, eps)
		return r
	}
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	results, failed := make(chan found, 2), make(chan struct{})
	s.spawn(func() {
		r := found{how: Dialed, err: errNobody}
		defer func() { results <- r }() // also when it panics
		defer func() {
			if r.err != nil {
				close(failed)
			}
		}()
		if len(eps) > 0 {
			r.link, r.ep, r.err = s.race(&attempt{peer: a.peer, ctx: ctx, bare: len(eps) == 1}, eps)
		}
	})
	s.spawn(func() {
		r := found{how: Relayed, err: errNobody}
		defer func() { results <- r }()
		timer := time.NewTimer(relayHead)
		defer timer.Stop()
		last := false // there is no more to wait for
		for tries := 1; !last && r.err != nil; tries++ {
			select {
			case <-timer.C:
			case <-failed:
				last = true
			case <-ctx.Done():
				return
			}
			r.link, r.ep, r.err = s.raceRelays(ctx, a.peer, nil)
			timer.Reset(redialPause(tries))
		}
	})
	first := <-results
	if first.err != nil {
		second := <-results
		if second.err != nil && second.how == Relayed { // what is told is about the endpoints
			return first
		}
		return second
	}
	cancel()
	if second := <-results; second.err == nil {
		second.link.Conn.Close() //nolint:errcheck // it carries nothing
	}
	return first
}
