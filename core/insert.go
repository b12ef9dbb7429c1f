package crust

import (
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// refuses says why no new session may come, and lets an accepted link out of
// the waiting room. mu is held.
func (s *Service) refuses(link *secure.Link, a adoption) error {
	switch {
	case s.stopping:
		return refusal{wire.ReasonStopping}
	case a.uninvited() && !s.accept.Load():
		return refusal{wire.ReasonNotAllowed}
	case s.full(link, a):
		return refusal{wire.ReasonLimit}
	case a.admit != nil && !a.admit():
		return refusal{wire.ReasonLimit}
	}
	return nil
}

// insert makes the session of a chosen link. mu is held; the returned function
// is to be called without it, before the session starts.
func (s *Service) insert(link *secure.Link, a adoption, o origin) (*peer, func()) {
	p := s.newPeer(link, a, o)
	return p, s.announce(p, link, a)
}

// newPeer makes the session of a link, of which nobody knows yet. mu is held.
func (s *Service) newPeer(link *secure.Link, a adoption, o origin) *peer {
	p := &peer{
		id: link.Remote.Peer, instance: link.Remote.Instance, claim: o.claim, order: o.order, unsure: o.begun,
		how: a.way(nil), endpoint: a.endpoint, since: time.Now(), inbound: a.uninvited(),
	}
	s.recall(p)
	begin := session.New
	if o.begun {
		begin = session.Begin
	}
	p.sess = begin(link, o.session, s.session, (*owner)(s), o.first)
	p.sess.Tag = p
	return p
}

// announce puts a session into the table of peers, and tells the program. mu is held; the
// returned function is to be called without it.
func (s *Service) announce(p *peer, link *secure.Link, a adoption) func() {
	s.lookup.Lock()
	if p.hidden {
		p.hidden, p.since = false, time.Now()
		delete(s.early, p.id)
	}
	s.peers[p.id] = p
	s.lookup.Unlock()
	s.attendNetwork()
	s.enlist(p, &a)
	s.sessions++
	d := &detail{
		appID: link.Remote.AppID, endpoint: a.endpoint, how: p.how, role: Role(link.Remote.Role), took: time.Since(a.began),
	}
	if a.how == Dialed {
		p.reach(a.endpoint)
	}
	joined := s.feedAll(p, a.attempt)
	e := Event{Type: EventConnected, Peer: p.id, detail: d}
	asked := slices.IndexFunc(joined, func(at *attempt) bool { return !at.quiet })
	if asked >= 0 { // the call began before its peer came
		e.Token = joined[asked].token
		d.took = time.Since(joined[asked].began)
	}
	calls := []func(){s.events.add(e)}
	if p.inClear() {
		calls = append(calls, s.warnClear(p, link))
	}
	p.prove(a.how, a.endpoint)
	for i, at := range joined {
		at.tells(p)
		s.resolve(at)
		if i != asked && !at.quiet {
			calls = append(calls, s.events.add(Event{Type: EventAlreadyConnected, Peer: p.id, Token: at.token}))
		}
	}
	calls = append(calls, s.groupsGain(p))
	s.linked(p, rank(a.how, a.endpoint))
	return func() {
		for _, call := range calls {
			call()
		}
		s.sessionBegan(p)
	}
}

// settle does what is to be done for a session that has come to a link, unless the lists
// have changed meanwhile.
func (s *Service) settle(p *peer, link *secure.Link, a *adoption) *Error {
	if denied := s.expel(p); denied != nil {
		return denied
	}
	s.noteReached(link, a)
	s.introduce(p, link)
	s.joinGossip(p)
	s.leaveKeys(p, keysEach, true)
	return nil
}
