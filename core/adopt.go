package crust

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Both sides may dial at once, several times, and accept in between; still they
// must end with one session, and the same link under it. So one of them
// decides: the side with the greater peer id. The other lays claim to each new
// link, saying which other links to the decider it holds, and the decider
// chooses one and refuses the others. Messages flow only on a chosen link, so
// nothing is in flight on one that is closed.
//
// A claim also tells the decider whether the claimant still has the session
// that the decider believes in, and whether that has a link. Claims are numbered:
// one that is older than the session's own says nothing; a later one that does
// not name the session's claim says that the claimant has lost that link, and one
// that does not name the session, that it has lost the session.
//
// A session that has lost its link, or can have a better one, goes on over the
// chosen link: Claim and Chosen then tell how many records each side has.
//
// Who has dialled, and has no session with the peer, does not wait for all that:
// begin.go says how both still keep the same one.

// adoption is what is known about a link beside the link itself.
type adoption struct {
	how      How
	began    time.Time // the call, or the accepted connection
	linked   time.Time // not after the link's connection was made
	endpoint Endpoint
	within   context.Context // of a dialled link: bounds its adoption
	attempt  *attempt        // ours; nil for a link that was accepted but not punched, and for a bootstrap
	admit    func() bool     // of an accepted link: leave the waiting room
	resume   *peer           // of a link that was dialled for a session, to go on over it
}

// resumes reports whether a link may only go on with a session: it was dialled for
// that, and the peer is still in the same life.
func (a *adoption) resumes(link *secure.Link) bool {
	return a.resume != nil && a.resume.instance == link.Remote.Instance
}

// uninvited reports whether a link was begun by the peer alone.
func (a *adoption) uninvited() bool { return a.admit != nil && a.how != Punched }

// rank orders links: a greater one is better.
func rank(how How, ep Endpoint) int {
	switch {
	case ep.Transport == Tracer: // anything that is not in clear is better
		return -1
	case how == Relayed:
		return 0
	case ep.Transport == UTP:
		return 1
	}
	return 2
}

const (
	// retireGrace is how long a session that the peer has given up may take to
	// deliver what is still on its way.
	retireGrace = time.Second
	// farewellGrace is how long a refused peer may take to hear why.
	farewellGrace = time.Second
)

// refusal is an error that the other side has told, or is to be told.
type refusal struct{ reason wire.Reason }

func (r refusal) Error() string {
	switch r.reason {
	case wire.ReasonDuplicate:
		return "another link carries the session"
	case wire.ReasonNotAllowed:
		return "the peer does not accept sessions"
	case wire.ReasonLimit:
		return "the peer has reached its limit of sessions"
	case wire.ReasonBanned:
		return "the peer has blacklisted us"
	case wire.ReasonStopping:
		return "the peer is stopping"
	case wire.ReasonOver:
		return "the session is over"
	case wire.ReasonProtocol:
		return "the protocol was broken"
	}
	return fmt.Sprintf("the peer refused the link (reason %d)", r.reason)
}

// refusalCode maps a reason that the peer gave.
func refusalCode(r wire.Reason) Code {
	switch r {
	case wire.ReasonNotAllowed:
		return CodeNotAllowed
	case wire.ReasonLimit:
		return CodeLimit
	case wire.ReasonBanned:
		return CodeBanned
	case wire.ReasonStopping, wire.ReasonDisconnect, wire.ReasonDuplicate, wire.ReasonOver:
		return CodeDisconnected
	case wire.ReasonProtocol:
		return CodeProtocol
	}
	return CodeHandshake
}

// adopt is the one door for links: dialled, accepted, and whatever else comes.
// It returns the session that there is with the peer afterwards, which need not
// be on this link. On an error the link is closed.
func (s *Service) adopt(link *secure.Link, a adoption) (*peer, error) {
	id := link.Remote.Peer
	unhurry := func() {}
	if a.within != nil { // an accepted link has the deadline of its handshake
		unhurry = s.hurry(link, a.within)
	}
	defer unhurry()
	denied := s.denies(id, Role(link.Remote.Role), a.how, a.endpoint.Addr.Addr())
	var p *peer
	var err error
	switch {
	case id == s.ID():
		link.Conn.Close() //nolint:errcheck // it is our own
		return nil, &Error{Op: "connect", Peer: id, Endpoint: a.endpoint, Code: CodeSelf, Err: errSelf}
	case denied != nil:
		if a.admit == nil { // it was dialled, and the peer does not know us yet
			link.Conn.Close() //nolint:errcheck // it carries nothing
			return nil, denied
		}
		s.refusedBanned.Add(1)
		err = refusal{reasonOf(denied)}
	case s.unwanted(id, &a):
		if a.admit == nil { // it was dialled, and the peer does not know us yet
			link.Conn.Close() //nolint:errcheck // it carries nothing
			return nil, s.notAllowed(id, a.endpoint)
		}
		err = refusal{wire.ReasonNotAllowed}
	case a.uninvited() && (!s.accept.Load() && s.findAny(id) == nil || s.dropped(id)): // a session may get another link
		err = refusal{wire.ReasonNotAllowed}
	default:
		if denied = s.gated(link, &a); denied != nil {
			if a.admit == nil {
				link.Conn.Close() //nolint:errcheck // it carries nothing
				return nil, denied
			}
			err = refusal{reasonOf(denied)}
			break
		}
		if p = s.beginAtOnce(link, a); p != nil {
			break
		}
		if s.ID().Compare(id) > 0 {
			p, err = s.decide(link, a)
		} else {
			p, err = s.claim(link, a)
		}
	}
	var r refusal
	if errors.As(err, &r) {
		unhurry() // who is refused is not waited for longer than that
		s.refusedSession(link, &a, r.reason)
		s.farewell(link, r.reason)
		switch {
		case r.reason == wire.ReasonDuplicate && p != nil && s.isHidden(p): // it shows soon, or not at all
			return nil, errDuplicate
		case r.reason == wire.ReasonDuplicate && p != nil:
			return p, nil
		}
		return nil, &Error{Op: "connect", Peer: id, Endpoint: a.endpoint, Code: refusalCode(r.reason), Err: err}
	}
	if err != nil {
		link.Conn.Close() //nolint:errcheck // it has failed already
		return nil, s.linkError("connect", id, a.endpoint, err)
	}
	p.sess.Start()
	if denied = s.settle(p, link, &a); denied != nil {
		return nil, denied
	}
	return p, nil
}

// told is a refusal that came from the peer: there is nobody to say farewell to.
type told struct{ reason wire.Reason }

func (t told) Error() string { return refusal(t).Error() }

// await reads what the peer answers, which must be of type want or Refused.
func await(link *secure.Link, want wire.FrameType) ([]byte, error) {
	t, body, err := session.Await(link)
	if err != nil {
		return nil, err
	}
	if t == wire.FrameRefused {
		reason, err := wire.ParseReason(body)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", session.ErrProtocol, err)
		}
		return nil, told{reason}
	}
	if t != want {
		return nil, fmt.Errorf("%w: frame %d where %d was due", session.ErrProtocol, t, want)
	}
	return body, nil
}

// decide is adopt for the side with the greater peer id.
func (s *Service) decide(link *secure.Link, a adoption) (*peer, error) {
	if p := s.secureBeside(link); p != nil {
		return p, refusal{wire.ReasonDuplicate}
	}
	if link.Initiator {
		if err := session.Ask(link); err != nil {
			return nil, err
		}
	}
	body, err := await(link, wire.FrameClaim)
	if err != nil {
		return nil, toldError(link, a, err)
	}
	claim, err := wire.ParseClaim(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", session.ErrProtocol, err)
	}
	var id wire.SessionID
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	for {
		s.mu.Lock()
		p := s.known(link.Remote.Peer)
		if p.staysSecure(link) {
			s.mu.Unlock()
			return p, refusal{wire.ReasonDuplicate}
		}
		if s.begunBefore(link, claim) {
			s.mu.Unlock()
			return p, refusal{wire.ReasonDuplicate}
		}
		if p == nil {
			var err error
			switch {
			case over(a) || s.stale(link, claim, a):
				err = refusal{wire.ReasonDuplicate}
			case claim.Only || a.resumes(link) || s.buried(link, claim):
				err = refusal{wire.ReasonOver}
			default:
				err = s.refuses(link, a)
			}
			if err != nil {
				s.mu.Unlock()
				return nil, err
			}
			if claim.Begun {
				id = claim.Session
			}
			p, call := s.insert(link, a, origin{session: id, claim: claim.Seq, first: s.choose(link, id, 0).Append(nil)})
			s.mu.Unlock()
			call()
			return p, nil
		}
		if p.instance == link.Remote.Instance && p.sess.ID() == claim.Session && p.sess.Resumable() {
			p, call, err := s.decideAgain(link, a, p, claim)
			s.mu.Unlock()
			call()
			if !errors.Is(err, session.ErrEnded) {
				return p, err
			}
		} else if p.unsure && p.instance == link.Remote.Instance && p.sess.Resumable() && claim.Past < p.order {
			p, call, err := s.decideUnsure(link, a, p, claim)
			s.mu.Unlock()
			call()
			if !errors.Is(err, session.ErrEnded) {
				return p, err
			}
		} else {
			last, buried := p.claim, s.buried(link, claim)
			s.mu.Unlock()
			if buried {
				return nil, refusal{wire.ReasonOver}
			}
			if knows(claim, link, p.instance, last) {
				return p, refusal{wire.ReasonDuplicate}
			}
			if a.resume == p && a.resumes(link) { // it has ended the session, and nobody asked for a new one
				if _, suspended := p.sess.Suspended(); suspended { // else what is on its link may still be read
					p.sess.Kill(session.ErrOver)
				}
				return nil, refusal{wire.ReasonOver}
			}
		}
		s.retire(p)
	}
}

// decideAgain decides whether the session that both sides have goes over to
// another link. mu is held; the returned function is to be called without it.
func (s *Service) decideAgain(link *secure.Link, a adoption, p *peer, claim wire.Claim) (*peer, func(), error) {
	_, suspended := p.sess.Suspended()
	holds := slices.Contains(claim.Held, p.claim) || p.claim == 0 && len(claim.Held) > 0
	wanted := suspended || !holds || rank(a.how, a.endpoint) > rank(p.how, p.endpoint)
	if claim.Seq < p.claim || !wanted {
		return p, func() {}, refusal{wire.ReasonDuplicate}
	}
	if a.admit != nil && !a.admit() {
		return nil, func() {}, refusal{wire.ReasonLimit}
	}
	told := p.sess.Received()
	call, err := s.move(p, link, a, origin{claim: claim.Seq, first: s.choose(link, claim.Session, told).Append(nil)}, told, claim.Received)
	return p, call, err
}

// choose decides for a link. mu is held.
func (s *Service) choose(link *secure.Link, id wire.SessionID, received uint64) wire.Chosen {
	c := wire.Chosen{Session: id, Received: received, Order: s.choices.Add(1)}
	if t, ok := s.tombs[link.Remote.Peer]; ok && t.instance == link.Remote.Instance {
		c.Past = t.claim
	}
	return c
}

// nextClaim returns a claim for a link. mu is held.
func (s *Service) nextClaim(link *secure.Link) wire.Claim {
	c := wire.Claim{Seq: s.claimSeq.Add(1), Held: slices.Clone(s.pending[link.Remote.Peer])}
	if t, ok := s.tombs[link.Remote.Peer]; ok && t.instance == link.Remote.Instance {
		c.Past = t.order
	}
	return c
}

// origin is how a session comes to its link.
type origin struct {
	session wire.SessionID // of a new session
	claim   uint64         // seq of the claim; 0: there was none yet
	order   uint64         // of the choice, when the peer decides or begun is set; 0: there was none yet
	first   []byte         // frames that go out first
	begun   bool           // nobody has been asked
}

// move takes a session over to another link. mu is held; the returned function is
// to be called without it.
func (s *Service) move(p *peer, link *secure.Link, a adoption, o origin, told, theirs uint64) (func(), error) {
	if p.staysSecure(link) {
		return func() {}, refusal{wire.ReasonDuplicate}
	}
	if p.hidden && s.full(link, a) {
		return func() {}, refusal{wire.ReasonLimit}
	}
	before := rank(p.how, p.endpoint)
	s.lookup.Lock() // the session's reader tells where it goes on, as soon as it does
	moved, err := p.sess.Resume(link, o.first, told, theirs)
	if err == nil {
		p.claim, p.how, p.endpoint = o.claim, a.way(p), a.endpoint
	}
	s.lookup.Unlock()
	if err != nil {
		return func() {}, err
	}
	p.order, p.elsewhere = o.order, false
	p.sure(func(seq uint64) bool { return seq <= o.claim })
	if p.giveUp != nil {
		p.giveUp()
	}
	if a.how == Dialed {
		p.reach(a.endpoint)
	}
	calls := []func(){moved}
	if p.hidden {
		p.appeared = true
		calls = append(calls, s.announce(p, link, a))
		return func() {
			for _, call := range calls {
				call()
			}
		}, nil
	}
	p.prove(a.how, a.endpoint)
	for _, at := range s.feedAll(p, a.attempt) {
		at.tells(p)
		s.resolve(at)
		if !at.quiet {
			calls = append(calls, s.events.add(Event{Type: EventAlreadyConnected, Peer: p.id, Token: at.token}))
		}
	}
	s.linked(p, before)
	return func() {
		for _, call := range calls {
			call()
		}
	}, nil
}

// toldError turns the peer's refusal into an error of the public kind.
func toldError(link *secure.Link, a adoption, err error) error {
	var t told
	if !errors.As(err, &t) {
		return err
	}
	switch t.reason {
	case wire.ReasonDuplicate:
		return errDuplicate
	case wire.ReasonOver:
		return errOver
	}
	return &Error{Op: "connect", Peer: link.Remote.Peer, Endpoint: a.endpoint, Code: refusalCode(t.reason), Err: t}
}

// errDuplicate says that the peer has chosen another link, which must show soon.
var errDuplicate = errors.New("the peer has chosen another link")

// errOver says that the peer has ended the session that the link was to carry on.
var errOver = fmt.Errorf("%w, and takes a new one", session.ErrOver)

// claim is adopt for the side with the lesser peer id.
func (s *Service) claim(link *secure.Link, a adoption) (*peer, error) {
	id := link.Remote.Peer
	if !link.Initiator {
		if p, err := s.begun(link, a); p != nil || err != nil {
			return p, err
		}
	}
	s.mu.Lock()
	if p := s.known(id); p.staysSecure(link) {
		s.mu.Unlock()
		return p, refusal{wire.ReasonDuplicate}
	}
	claim := s.nextClaim(link)
	better := false
	if p := s.known(id); p != nil && p.instance == link.Remote.Instance {
		_, suspended := p.sess.Suspended()
		linked := p.sess.Live() && !suspended
		if linked {
			claim.Held = append(claim.Held, p.claim)
		}
		if (linked || suspended) && p.sess.Resumable() {
			claim.Session, claim.Received, claim.Begun = p.sess.ID(), p.sess.Received(), p.unsure
			claim.Only = a.resumes(link) && !p.unsure
			better = suspended || rank(a.how, a.endpoint) > rank(p.how, p.endpoint)
		} else if !p.unsure { // it is about to end
			claim.Past = max(claim.Past, p.order)
		}
	}
	if a.resumes(link) && claim.Session == (wire.SessionID{}) { // it has ended meanwhile
		s.mu.Unlock()
		return nil, refusal{wire.ReasonOver}
	}
	if a.uninvited() && !s.accept.Load() && claim.Session == (wire.SessionID{}) {
		s.mu.Unlock()
		return nil, refusal{wire.ReasonNotAllowed}
	}
	if over(a) && !better || len(claim.Held) > wire.MaxHeld {
		s.mu.Unlock()
		return nil, refusal{wire.ReasonDuplicate}
	}
	s.pending[id] = append(s.pending[id], claim.Seq)
	if p := s.known(id); p != nil && p.sess.ID() == claim.Session {
		p.named(claim.Seq)
	}
	s.mu.Unlock()

	err := session.Tell(link, claim.Append(nil))
	var chosen wire.Chosen
	if err == nil {
		var body []byte
		if body, err = await(link, wire.FrameChosen); err == nil {
			if chosen, err = wire.ParseChosen(body); err != nil {
				err = fmt.Errorf("%w: %w", session.ErrProtocol, err)
			}
		}
	}
	for {
		p, call, bad := s.claimed(link, a, claim, chosen, err)
		call()
		if bad != nil || p != nil {
			return p, bad
		}
	}
}

// claimed does what the answer to a claim asks for, or returns neither a session
// nor an error when it has made room for that and is to be called again. The
// returned function is to be called next.
func (s *Service) claimed(link *secure.Link, a adoption, claim wire.Claim, chosen wire.Chosen, err error) (*peer, func(), error) {
	id, nothing := link.Remote.Peer, func() {}
	s.mu.Lock()
	p := s.known(id)
	if p != nil && errors.As(err, new(told)) {
		p.unnamed(func(seq uint64) bool { return seq == claim.Seq })
	}
	same := p != nil && p.instance == link.Remote.Instance
	if err == nil && p.staysSecure(link) {
		err = refusal{wire.ReasonDuplicate}
	}
	if err == nil && s.old(link, chosen, a) { // it has ended meanwhile
		err = refusal{wire.ReasonOver}
	}
	if err == nil && same && p.begunAfter(chosen) {
		p.sess.Rename(chosen.Session)
	}
	ours := p != nil && p.sess.ID() == chosen.Session
	resumes := claim.Session == chosen.Session
	switch {
	case err == nil && same && p.order > chosen.Order: // a later link has been chosen meanwhile
		err = errDuplicate
	case err == nil && resumes && !ours: // the same
		err = refusal{wire.ReasonOver}
	case err == nil && p == nil:
		err = s.refuses(link, a)
	}
	if err != nil || p == nil || ours {
		s.unpend(id, claim.Seq)
	}
	switch {
	case err != nil:
		s.mu.Unlock()
		return nil, s.ended(p, claim, err), toldError(link, a, err)
	case p == nil:
		p, call := s.insert(link, a, origin{session: chosen.Session, claim: claim.Seq, order: chosen.Order})
		s.mu.Unlock()
		return p, call, nil
	case ours && a.admit != nil && !a.admit(): // its connection is closed
		s.mu.Unlock()
		return nil, nothing, refusal{wire.ReasonLimit}
	case ours:
		call, err := s.move(p, link, a, origin{claim: claim.Seq, order: chosen.Order}, claim.Received, chosen.Received)
		s.mu.Unlock()
		if errors.Is(err, session.ErrEnded) {
			err = refusal{wire.ReasonOver}
		}
		return p, call, err
	}
	s.mu.Unlock()
	s.retire(p) // the decider knows: it has ended, or is about to
	return nil, nothing, nil
}

// named notes a claim that names the session, or may be granted for it. Until its
// answer is known the peer may have left the session's link. mu is held.
func (p *peer) named(seq uint64) {
	if len(p.naming) > wire.MaxHeld { // of those that were never answered the last says enough
		p.naming = slices.Delete(p.naming, 0, 1)
	}
	p.naming = append(p.naming, seq)
}

// unnamed forgets claims of named that do not matter any more: they were refused,
// or a later one was granted. mu is held.
func (p *peer) unnamed(which func(seq uint64) bool) {
	p.naming = slices.DeleteFunc(p.naming, which)
}

// sure is unnamed when the peer has the session, or is about to. mu is held.
func (p *peer) sure(which func(seq uint64) bool) {
	p.unsure = false
	if p.known != nil {
		close(p.known)
		p.known = nil
	}
	p.unnamed(which)
}

// ended returns a function that ends a session without a link whose claim was
// refused because the peer has ended it.
func (s *Service) ended(p *peer, claim wire.Claim, err error) func() {
	var t told
	if p == nil || p.sess.ID() != claim.Session || !errors.As(err, &t) || t.reason != wire.ReasonOver {
		return func() {}
	}
	if _, suspended := p.sess.Suspended(); !suspended { // what is on its link may still be read
		return func() {}
	}
	return func() { p.sess.Kill(session.ErrOver) }
}

// over reports whether a link was dialled for an attempt that has had its answer
// by another link: it must not make one more session. mu is held.
func over(a adoption) bool { return a.attempt != nil && a.attempt.resolved }

// unpend forgets a claim that has its answer. mu is held.
func (s *Service) unpend(id PeerID, seq uint64) {
	left := slices.DeleteFunc(s.pending[id], func(v uint64) bool { return v == seq })
	if len(left) == 0 {
		delete(s.pending, id)
	} else {
		s.pending[id] = left
	}
}

// retire ends a session that the peer has given up already. What the peer sent
// before is delivered if it comes soon.
func (s *Service) retire(p *peer) {
	if _, suspended := p.sess.Suspended(); !suspended {
		timer := time.NewTimer(retireGrace)
		defer timer.Stop()
		select {
		case <-p.sess.Done():
			return
		case <-timer.C:
		case <-s.ctx.Done():
		}
	}
	p.sess.Dismiss(wire.ReasonOver, session.ErrReplaced)
	select {
	case <-p.sess.Done():
	case <-s.stopped: // a session that died of a panic is never done
	}
}

// farewell tells the peer why its link is refused, waits until it has heard, and
// closes.
func (s *Service) farewell(link *secure.Link, reason wire.Reason) {
	link.Conn.SetDeadline(time.Now().Add(farewellGrace)) //nolint:errcheck // a closed connection shows at once
	if err := session.Tell(link, wire.AppendReason(nil, wire.FrameRefused, reason)); err == nil {
		if c, ok := link.Conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
			io.Copy(io.Discard, io.LimitReader(link.Conn, 64<<10)) //nolint:errcheck // only the waiting counts
		}
	}
	link.Conn.Close() //nolint:errcheck // it carries nothing
}
