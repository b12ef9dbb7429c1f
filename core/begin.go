package crust

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Who has dialled knows the peer half a round trip before the peer knows it, and
// its question which link the session should have costs a whole one. So when it has
// no session with the peer, and the peer's hello has said that it would take one, it
// begins the session at once: Claim or Chosen goes right behind the third flight,
// and messages behind that. The peer is then asked while the session lives already:
//
//	claimant ──flight 3, Claim, messages──▶ decider      decider ──flight 3, Chosen, messages──▶ claimant
//	         ◀──────Chosen or Refused──────                      ◀───────Claim or Refused───────
//
// Until the answer has come nothing that was sent has been received by anybody for
// certain, and all of it is kept. So when the peer would rather have another link,
// since both have dialled, the session goes over to that one and begins once more
// with its first record: nothing is lost, and nothing comes twice, since what came
// by the refused link was not looked at. Both may have begun a session, under two
// names: the decider's name is the one that stays.
//
// Choices of the decider are numbered, as claims are: a claimant takes none that is
// older than the one that it follows.

// ready reports whether a session that a peer begins would be accepted now.
func (s *Service) ready() bool {
	s.lookup.RLock() // mu may be held by who waits for the sockets
	n := len(s.peers)
	s.lookup.RUnlock()
	return s.accept.Load() && len(s.cfg.Only) == 0 && !s.lists.peers.Load() && !s.lists.allows.Load() && s.cfg.Gate == nil && s.ctx.Err() == nil && n < s.cfg.MaxPeers && !s.events.crowded()
}

// beginAtOnce makes the session of a link that we have dialled, before the peer was
// asked. It returns nil when it must be asked.
func (s *Service) beginAtOnce(link *secure.Link, a adoption) *peer {
	s.mu.Lock()
	o, ok := s.beginning(link, a)
	if !ok {
		s.mu.Unlock()
		return nil
	}
	p, call := s.insert(link, a, o)
	s.mu.Unlock()
	call()
	return p
}

// beginning makes what a session begins with before the peer was asked, and reports
// whether it may. mu is held.
func (s *Service) beginning(link *secure.Link, a adoption) (o origin, ok bool) {
	id := link.Remote.Peer
	var name wire.SessionID
	if _, err := rand.Read(name[:]); err != nil || len(s.pending[id]) > wire.MaxHeld || !s.mayBegin(link, a) {
		return origin{}, false
	}
	o = origin{session: name, begun: true}
	if s.ID().Compare(id) > 0 {
		c := s.choose(link, name, 0)
		o.order, o.first = c.Order, c.Append(nil)
	} else {
		c := s.nextClaim(link)
		c.Begun, c.Session = true, name
		o.claim, o.first = c.Seq, c.Append(nil)
	}
	return o, true
}

// mayBegin reports whether a session may begin before the peer was asked. mu is
// held.
func (s *Service) mayBegin(link *secure.Link, a adoption) bool {
	t, buried := s.tombs[link.Remote.Peer]
	switch {
	case !link.Initiator || s.known(link.Remote.Peer) != nil || over(a) || a.resumes(link):
		return false
	case link.Remote.Flags&wire.FlagReady == 0 || link.Remote.Resume == 0 || s.cfg.ResumeWindow == 0: // nothing would be kept
		return false
	case a.how == Punched && a.endpoint.Transport == UTP: // TCP is favoured, and may be under way: it takes a round trip more
		return false
	case buried && a.linked.Before(t.at): // it may be left over from the race for that one
		return false
	case s.expects(link.Remote.Peer, a):
		return false
	}
	_, full := s.crowded(link, a) // which is counted when the peer has answered
	return !full && s.refuses(link, a) == nil
}

// expects reports whether a peer that has called over a relay is about to begin a
// session there, with messages right behind: sooner than it could send them over a
// direct link that we have dialled meanwhile. A session that began on that one would
// refuse those messages, and the peer had to send them again, a round trip later. So
// the link waits, and the peer is asked as for any better link of a session that
// lives. Where nothing comes over the relay after all, that costs one round trip of the
// direct link. mu is held.
func (s *Service) expects(id PeerID, a adoption) bool {
	if a.how == Relayed || !s.ready() {
		return false
	}
	s.circuits.mu.Lock()
	defer s.circuits.mu.Unlock()
	c, ok := s.circuits.callers[id]
	now := time.Now()
	trip := now.Sub(a.linked) / 2 // one of two at least: the connection, and the handshake
	return ok && c.due.Before(now.Add(trip))
}

// decideUnsure is decide when we have begun a session and the peer, in its claim,
// has not known it. mu is held; the returned function is to be called without it.
func (s *Service) decideUnsure(link *secure.Link, a adoption, p *peer, claim wire.Claim) (*peer, func(), error) {
	_, suspended := p.sess.Suspended()
	switch {
	case claim.Only:
		return nil, func() {}, refusal{wire.ReasonOver}
	case !suspended && rank(a.how, a.endpoint) <= rank(p.how, p.endpoint):
		return p, func() {}, refusal{wire.ReasonDuplicate}
	case a.admit != nil && !a.admit():
		return nil, func() {}, refusal{wire.ReasonLimit}
	}
	call, err := s.move(p, link, a, origin{claim: claim.Seq, first: s.choose(link, p.sess.ID(), 0).Append(nil)}, 0, 0)
	if err == nil && claim.Begun {
		p.theirs = claim.Session
	}
	return p, call, err
}

// begun takes what the decider says first on a link that it has dialled. It returns
// neither a session nor an error when the decider asks for our claim.
func (s *Service) begun(link *secure.Link, a adoption) (*peer, error) {
	t, body, err := session.First(link)
	switch {
	case err != nil:
		return nil, err
	case t == wire.FramePad:
		return nil, nil //nolint:nilnil // it is said above
	case t == wire.FrameRefused:
		reason, err := wire.ParseReason(body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", session.ErrProtocol, err)
		}
		return nil, toldError(link, a, told{reason})
	case t != wire.FrameChosen:
		return nil, fmt.Errorf("%w: frame %d where the other side decides", session.ErrProtocol, t)
	}
	chosen, err := wire.ParseChosen(body)
	if err == nil && chosen.Received != 0 {
		err = errors.New("chosen: records received in a session that begins")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", session.ErrProtocol, err)
	}
	for {
		p, retire, call, err := s.agree(link, a, chosen)
		call()
		if err != nil || p != nil {
			return p, err
		}
		s.retire(retire)
	}
}

// agree makes the session that the decider has begun, or lets the one that we have
// begun go over to it. It returns a session that must be retired first. The
// returned function is to be called next.
func (s *Service) agree(link *secure.Link, a adoption, chosen wire.Chosen) (p, retire *peer, call func(), err error) {
	id := link.Remote.Peer
	s.mu.Lock()
	defer s.mu.Unlock()
	p, call = s.known(id), func() {}
	if len(s.pending[id]) > wire.MaxHeld || p.staysSecure(link) {
		return nil, nil, call, refusal{wire.ReasonDuplicate}
	}
	claim := s.nextClaim(link)
	claim.Session = chosen.Session
	o := origin{session: chosen.Session, claim: claim.Seq, order: chosen.Order, first: claim.Append(nil)}
	switch same := p != nil && p.instance == link.Remote.Instance; {
	case s.old(link, chosen, a):
		return nil, nil, call, refusal{wire.ReasonOver}
	case p == nil:
		if err := s.refuses(link, a); err != nil {
			return nil, nil, call, err
		}
		p, call = s.insert(link, a, o)
		for _, seq := range s.pending[id] { // the decider may choose one of those for the session, since it is not sure of it yet
			p.named(seq)
		}
		return p, nil, call, nil
	case same && p.order >= chosen.Order: // it has chosen another link since, or this session's
		return p, nil, call, refusal{wire.ReasonDuplicate}
	case !same || !p.begunAfter(chosen) || !p.sess.Resumable():
		return nil, p, call, nil
	}
	_, suspended := p.sess.Suspended()
	switch {
	case !suspended && rank(a.how, a.endpoint) < rank(p.how, p.endpoint): // the decider will see that, too
		return p, nil, call, refusal{wire.ReasonDuplicate}
	case a.admit != nil && !a.admit():
		return nil, nil, call, refusal{wire.ReasonLimit}
	}
	p.sess.Rename(chosen.Session)
	call, err = s.move(p, link, a, o, 0, 0)
	if errors.Is(err, session.ErrEnded) {
		return nil, p, call, nil
	}
	return p, nil, call, err
}

// begunAfter reports whether a session is one that we have begun and the decider,
// when it chose another name, had not known: it is then the session of that name.
// Otherwise the decider has had it, and it is over. mu is held.
func (p *peer) begunAfter(chosen wire.Chosen) bool { return p.unsure && p.claim > chosen.Past }

// Answered takes what a peer says about the link of a session that was begun at
// once.
func (o *owner) Answered(sess *session.Session, at session.Line, t wire.FrameType, body []byte) error {
	s, p := (*Service)(o), sess.Tag.(*peer)
	var err error
	var reason wire.Reason
	var claim wire.Claim
	var chosen wire.Chosen
	switch decider := s.ID().Compare(p.id) > 0; {
	case t == wire.FrameRefused:
		reason, err = wire.ParseReason(body)
	case t == wire.FrameClaim && decider:
		if claim, err = wire.ParseClaim(body); err == nil && (claim.Session != sess.ID() || claim.Received != 0) {
			err = errors.New("claim: of another session than the one that begins")
		}
	case t == wire.FrameChosen && !decider:
		if chosen, err = wire.ParseChosen(body); err == nil && chosen.Received != 0 {
			err = errors.New("chosen: records received in a session that begins")
		}
	default:
		err = fmt.Errorf("frame %d where the other side decides", t)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", session.ErrProtocol, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peers[p.id] != p || !p.unsure || !sess.On(at) { // another link has brought the answer
		return nil
	}
	switch t {
	case wire.FrameRefused:
		switch reason {
		case wire.ReasonDuplicate:
			p.elsewhere = true
			return session.ErrElsewhere
		case wire.ReasonOver:
			return session.ErrOver
		}
		return &Error{Op: "connect", Peer: p.id, Endpoint: p.endpoint, Code: refusalCode(reason), Err: told{reason}}
	case wire.FrameClaim:
		s.lookup.Lock()
		p.claim = claim.Seq
		s.lookup.Unlock()
	case wire.FrameChosen:
		if chosen.Session != sess.ID() && !p.begunAfter(chosen) {
			return session.ErrOver
		}
		sess.Rename(chosen.Session)
		p.order = chosen.Order
	}
	p.sure(func(seq uint64) bool { return seq <= p.claim })
	return nil
}
