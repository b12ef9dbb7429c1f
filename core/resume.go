package crust

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A session that has lost its link waits for another one, which either side may
// dial. Who knows where the other is does so soon, and again and again until the
// session has a link or has ended: redial.go says when.

// reach notes where the peer may be dialled, the newest last. Service.mu is held.
func (p *peer) reach(eps ...Endpoint) {
	for _, ep := range eps {
		if !mayReach(ep) {
			continue
		}
		p.endpoints = slices.DeleteFunc(p.endpoints, func(e Endpoint) bool { return e == ep })
		if len(p.endpoints) >= wire.MaxEndpoints {
			p.endpoints = slices.Delete(p.endpoints, 0, 1)
		}
		p.endpoints = append(p.endpoints, ep)
	}
}

// Unlinked begins to dial the peer anew: also one that was met over a relay and cannot be
// dialled, since there may be a relay later.
func (o *owner) Unlinked(sess *session.Session, why error) {
	s, p := (*Service)(o), sess.Tag.(*peer)
	s.cutCircuits(sess)
	trip := sess.Counters().RTT
	s.mu.Lock()
	defer s.mu.Unlock()
	ours := isOurs(why) || !s.moved.IsZero() && time.Since(s.moved) < changeFresh
	p.loss, p.fresh = loss{ours: ours, dialled: p.how == Accepted, trip: trip}, true
	if p.inClear() && !slices.ContainsFunc(p.endpoints, isTracer) {
		return // nobody has named where it may be dialled in clear
	}
	if p.redialing || len(p.endpoints) == 0 && p.how != Relayed && len(s.relaysFor(p.id)) == 0 || s.peers[p.id] != p {
		return
	}
	p.redialing = true
	s.spawn(func() { s.redial(p) })
}

// Moving reports whether an answer to a claim of ours is on its way, or has just
// come, or the peer has said that it has another link.
func (o *owner) Moving(sess *session.Session) bool {
	s, p := (*Service)(o), sess.Tag.(*peer)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, suspended := sess.Suspended()
	return !suspended || len(s.pending[p.id]) > 0 || p.elsewhere
}

// Suspended tells the program.
func (o *owner) Suspended(sess *session.Session, why error) {
	s, p := (*Service)(o), sess.Tag.(*peer)
	s.mu.Lock()
	untold := p.hidden || p.appeared // who has it appear tells that it is here
	s.mu.Unlock()
	if untold {
		return
	}
	ep, _ := s.whereabouts(p)
	s.events.push(Event{Type: EventSuspended, Peer: p.id, detail: &detail{endpoint: ep, err: s.linkError("session", p.id, ep, why)}})
}

// Resumed tells the program.
func (o *owner) Resumed(sess *session.Session) {
	s, p := (*Service)(o), sess.Tag.(*peer)
	s.cutCircuits(sess)
	s.mu.Lock() // who has it appear tells that first
	appeared := p.appeared
	p.appeared = false
	s.mu.Unlock()
	if appeared {
		return
	}
	s.rejoinGossip(p)
	ep, how := s.whereabouts(p)
	s.events.push(Event{Type: EventResumed, Peer: p.id, detail: &detail{endpoint: ep, how: how}})
}

// Receipts tells the program the last word on messages of SendReceipt.
func (o *owner) Receipts(sess *session.Session, tokens []uint64, why error) {
	s, p := (*Service)(o), sess.Tag.(*peer)
	var d *detail
	if why != nil {
		d = &detail{err: s.linkError("send", p.id, Endpoint{}, why)}
	}
	for _, token := range tokens {
		s.events.push(Event{Type: EventDelivered, Peer: p.id, Token: token, detail: d})
	}
}

// whereabouts returns the peer's end of a session's link.
func (s *Service) whereabouts(p *peer) (Endpoint, How) {
	s.lookup.RLock()
	defer s.lookup.RUnlock()
	return p.endpoint, p.how
}

// redial is a goroutine that dials a peer whose session is suspended, until it is
// not any more. While the service stops it goes on, for what is to be delivered.
func (s *Service) redial(p *peer) {
	for tries := 0; ; tries++ {
		s.mu.Lock()
		window, suspended := p.sess.Suspended()
		if !suspended {
			p.redialing, p.giveUp = false, nil
			s.mu.Unlock()
			return
		}
		if p.fresh {
			p.fresh, tries = false, 0
		}
		ctx, cancel := context.WithTimeout(context.Background(), window+time.Millisecond)
		p.giveUp, p.resting = cancel, true
		pause := p.loss.pause(tries)
		if p.elsewhere {
			pause = duplicateRetry
		}
		eps := s.payable(p, p.endpoints)
		s.mu.Unlock()
		slices.Reverse(eps) // the newest first
		rested := s.rest(ctx, pause)
		s.mu.Lock()
		p.resting, p.elsewhere = false, false
		s.mu.Unlock()
		if rested {
			s.seekSuspended(p, window)
			err := s.redialOnce(ctx, p, eps)
			s.mu.Lock()
			p.loss.refused = isRefused(err)
			s.mu.Unlock()
		}
		cancel()
	}
}

const (
	// seekTogether bounds the suspended sessions whose peers a service seeks at any moment.
	seekTogether = 16
	// seekAfter is what the endpoints that are known and the relays have before that, and
	// seekLater how much later the one with the lesser id seeks the other: two punches
	// at once between the same two are in each other's way.
	seekAfter = time.Second
	seekLater = 8 * time.Second
)

// seekSuspended has other peers introduce us once more to one whose session is suspended,
// where that is how the two may have met: by the endpoints of a punched link nobody gets
// through any more, and a relay may be gone. Whatever comes of it carries the session on. It
// ends with the window, or the session.
func (s *Service) seekSuspended(p *peer, window time.Duration) {
	s.mu.Lock()
	may := !p.seeking && (p.how == Punched || p.how == Relayed) && !s.isClear(p)
	p.seeking = p.seeking || may
	s.mu.Unlock()
	if !may {
		return
	}
	s.spawn(func() {
		ctx, cancel := context.WithTimeout(context.Background(), window)
		defer cancel()
		s.spawn(func() {
			select {
			case <-p.sess.Quit():
				cancel()
			case <-ctx.Done():
			}
		})
		wait := seekAfter
		if s.ID().Compare(p.id) < 0 {
			wait += seekLater
		}
		s.rest(ctx, wait)
		_, suspended := p.sess.Suspended()
		s.mu.Lock()
		seeks := suspended && ctx.Err() == nil && s.seeking < seekTogether
		if seeks {
			s.seeking++
		}
		s.mu.Unlock()
		if seeks {
			err := s.seekBeside(&attempt{peer: p.id, ctx: ctx})
			s.log.Debug("a suspended peer is not sought any more", "peer", p.id, "error", err)
		}
		s.mu.Lock()
		p.seeking = false
		if seeks {
			s.seeking--
		}
		s.mu.Unlock()
	})
}

// rest waits, and reports whether ctx goes on.
func (s *Service) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// redialOnce dials a peer whose session is suspended at all its endpoints and over
// relays, and lets the session go on over the first link.
func (s *Service) redialOnce(ctx context.Context, p *peer, eps []Endpoint) error {
	began := time.Now()
	won := s.raceAll(&attempt{peer: p.id, ctx: ctx, clear: s.isClear(p)}, eps)
	err := won.err
	if err == nil {
		_, err = s.adopt(won.link, adoption{how: won.how, began: began, linked: began, endpoint: won.ep, within: ctx, resume: p})
	}
	var t told
	switch {
	case errors.As(err, &t) && t.reason == wire.ReasonBanned: // it wants no other session either
		p.sess.Kill(err)
	case errors.Is(err, errDuplicate): // another link, which must show soon
		s.rest(ctx, duplicateRetry)
	case err != nil:
		s.log.Debug("a suspended session got no new link", "peer", p.id, "error", err)
	}
	return err
}
