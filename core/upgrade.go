package crust

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// A session that runs over uTP goes over to TCP when it can, and one over a relay to any
// direct link. Who knows endpoints
// of the peer that promise a better link tries them again, at growing pauses, and
// lets the session move over the link that comes: adopt chooses it by its rank.
// Where a relay carries the session, the side with the greater id has other peers
// introduce the two anew as well, so that they punch once more: the first time a packet
// may have been lost, or a NAT was rebooting.
// Nothing is tried while the session has no link (redial does that), and nothing
// more when it has the best one.
//
// One session costs at most upgradeTries dials of upgradeEndpoints endpoints, each
// a few packets where nobody answers and one handshake, of about 3 KiB, where
// somebody does. A program that connects again begins anew.

const (
	// upgradeFirst and upgradeMost are the pauses between tries, doubled each time;
	// each pause is a random part, of half at least. The first is long enough for
	// a link that was begun together with the one that won, and for what has just
	// broken a TCP link to be over.
	upgradeFirst = 4 * time.Second
	upgradeMost  = 5 * time.Minute
	// upgradeTries bounds the tries of a session: they take about two hours. What
	// keeps TCP out for so long is a firewall, and no moment's trouble.
	upgradeTries = 32
	// upgradeEndpoints bounds the endpoints of one try.
	upgradeEndpoints = 8
	// upgradeTogether bounds the tries of a service at any moment.
	upgradeTogether = 16
	// upgradeMeet is from which try on the two are introduced anew: after 12 to 24 s. By then
	// the punch that began together with the relayed link is over, or soon will be.
	// upgradeMeetAgain is the same for a session that had another link before, with which no
	// punch begins: after 4 to 8 s.
	upgradeMeet      = 2
	upgradeMeetAgain = 1
	// upgradeSettled is how long a link must have lived for its successor's search
	// to begin anew: one that breaks each time it comes up is tried ever less often.
	upgradeSettled = time.Minute
)

// upgrade is the search for a better link. Service.mu guards it.
type upgrade struct {
	woken chan struct{}      // has room for one: look again; nil while nobody searches
	tries int                // since the search began; negative: the next one is due at once
	since time.Time          // when the session's link was chosen
	meet  int                // from which try on the two are introduced anew
	stop  context.CancelFunc // ends a try; nil when there is none
}

// wanted returns the endpoints that promise a better link than there is, the
// newest first. mu is held.
func (s *Service) wanted(p *peer) (eps []Endpoint) {
	if !s.movable(p) {
		return nil
	}
	for _, ep := range slices.Backward(p.endpoints) {
		if rank(Dialed, ep) > rank(p.how, p.endpoint) && len(eps) < upgradeEndpoints {
			eps = append(eps, ep)
		}
	}
	return eps
}

// movable reports whether a session can go over to a better link. mu is held.
func (s *Service) movable(p *peer) bool {
	return !s.stopping && !p.inClear() && s.peers[p.id] == p && p.sess.Live() && p.sess.Resumable()
}

// meetsAnew reports whether a better link may come of being introduced to the peer anew, and
// that is for us to ask for. mu is held.
func (s *Service) meetsAnew(p *peer) bool {
	return p.how == Relayed && s.ID().Compare(p.id) > 0 && s.movable(p)
}

// hopes reports whether a better link can be thought of. mu is held.
func (s *Service) hopes(p *peer) bool { return s.meetsAnew(p) || len(s.wanted(p)) > 0 }

// seek begins to look for a better link, if one can be thought of: soon, or at
// once. mu is held.
func (s *Service) seek(p *peer, atOnce bool) {
	u := &p.upgrade
	hope := s.hopes(p)
	if atOnce && hope {
		u.tries = -1
	}
	switch {
	case u.woken != nil:
		select {
		case u.woken <- struct{}{}:
		default:
		}
	case hope && u.tries < upgradeTries:
		u.woken = make(chan struct{}, 1)
		s.spawn(func() { s.search(p) })
	}
}

// linked takes note of a link that was chosen for a session after one of a given
// rank, and looks for a better one. mu is held.
func (s *Service) linked(p *peer, before int) {
	u, now := &p.upgrade, time.Now()
	if rank(p.how, p.endpoint) <= before && now.Sub(u.since) >= upgradeSettled {
		u.tries = 0
	}
	u.meet = upgradeMeet
	if !u.since.IsZero() {
		u.meet = upgradeMeetAgain
	}
	u.since = now
	if u.stop != nil {
		u.stop()
	}
	s.seek(p, p.how == Relayed)
}

// improves reports whether a link would be better than the one that a session
// has.
func (s *Service) improves(p *peer, how How, ep Endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.sess.Resumable() && rank(how, ep) > rank(p.how, p.endpoint)
}

// search is a goroutine that looks for a better link, until there is one, nothing
// is left to try, or the session ends.
func (s *Service) search(p *peer) {
	for {
		s.mu.Lock()
		u := &p.upgrade
		if u.tries >= upgradeTries || !s.hopes(p) {
			u.woken = nil
			s.mu.Unlock()
			return
		}
		pause, woken := upgradePause(u.tries), u.woken
		s.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			s.improve(p)
		case <-woken:
		case <-p.sess.Quit():
		case <-s.ctx.Done():
		}
		timer.Stop()
	}
}

// upgradePause returns how long to wait before a try.
func upgradePause(tries int) time.Duration {
	if tries < 0 {
		return 0
	}
	most := min(upgradeFirst<<min(tries, 16), upgradeMost)
	return most/2 + rand.N(most/2)
}

// improve dials a peer once at what promises a better link, and lets the session
// go over to it; or has the two introduced anew.
func (s *Service) improve(p *peer) {
	s.mu.Lock()
	u := &p.upgrade
	u.tries = max(u.tries, 0)
	eps, meets := s.payable(p, s.wanted(p)), s.meetsAnew(p)
	if _, suspended := p.sess.Suspended(); suspended || !meets && len(eps) == 0 || s.upgrading >= upgradeTogether {
		s.mu.Unlock()
		return
	}
	meets = meets && u.tries >= u.meet
	u.tries++
	s.upgrading++
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.HandshakeTimeout)
	u.stop = cancel
	s.mu.Unlock()
	defer func() {
		cancel()
		s.mu.Lock()
		s.upgrading--
		u.stop = nil
		s.mu.Unlock()
	}()
	err := errors.New("nobody knows where to dial the peer")
	if len(eps) > 0 {
		err = s.improveAt(ctx, p, eps)
	}
	if err != nil {
		s.log.Debug("a session got no better link", "peer", p.id, "error", err)
	}
	if err != nil && meets {
		s.meetAgain(p)
	}
}

// improveAt dials a peer at endpoints.
func (s *Service) improveAt(ctx context.Context, p *peer, eps []Endpoint) error {
	began := time.Now()
	link, ep, err := s.race(&attempt{peer: p.id, ctx: ctx, bare: len(eps) == 1}, eps)
	if err == nil {
		_, err = s.adopt(link, adoption{how: Dialed, began: began, linked: began, endpoint: ep, within: ctx, resume: p})
	}
	return err
}
