package crust

import (
	"maps"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// knows reports whether a claim was made before the claimant could have lost the
// session of an earlier claim.
func knows(c wire.Claim, link *secure.Link, instance, claim uint64) bool {
	return instance == link.Remote.Instance && (c.Seq < claim || slices.Contains(c.Held, claim))
}

// tombstone is a session that has ended. A claim that was made while it lived must
// not revive it, nor a choice that is older: they came with a link that lost the
// race.
type tombstone struct {
	session                wire.SessionID
	theirs                 wire.SessionID // the name that the peer had begun it by
	instance, claim, order uint64
	unsure                 bool
	at                     time.Time
	endpoints, told        []Endpoint // where the peer could be dialled, as in peer
	mapped                 []Endpoint
}

// maxTombstones bounds their table; a link is at most HandshakeTimeout old
// before it is a session, so none needs to be kept longer.
const maxTombstones = 4096

// bury remembers a session that has ended. mu is held.
func (s *Service) bury(p *peer) {
	if len(s.tombs) >= maxTombstones {
		maps.DeleteFunc(s.tombs, func(_ PeerID, t tombstone) bool { return time.Since(t.at) > s.cfg.HandshakeTimeout })
	}
	t, ok := s.tombs[p.id]
	if !ok && len(s.tombs) >= maxTombstones {
		return
	}
	if t.instance != p.instance {
		t.claim, t.order = 0, 0
	}
	n := tombstone{
		session: p.sess.ID(), theirs: p.theirs, instance: p.instance, claim: max(p.claim, t.claim), order: max(p.order, t.order), unsure: p.unsure, at: time.Now(),
		endpoints: p.endpoints, told: p.told, mapped: p.mapped,
	}
	if len(n.endpoints) == 0 {
		n.endpoints, n.told, n.mapped = t.endpoints, t.told, t.mapped
	}
	s.tombs[p.id] = n
}

// recall tells a session what the one before it knew of where the peer can be dialled: a
// peer that has restarted, or was lost for a while, is most often where it was. mu is held.
func (s *Service) recall(p *peer) {
	t := s.tombs[p.id]
	p.endpoints, p.told, p.mapped = slices.Clone(t.endpoints), slices.Clone(t.told), slices.Clone(t.mapped)
}

// stale reports whether a claim was made while a session lived that has ended
// since. When the link was begun after that end, the claimant has merely not
// noticed it. mu is held.
func (s *Service) stale(link *secure.Link, c wire.Claim, a adoption) bool {
	t, ok := s.tombs[link.Remote.Peer]
	return ok && a.linked.Before(t.at) && (knows(c, link, t.instance, t.claim) || t.unsure && t.instance == link.Remote.Instance)
}

// begunBefore reports whether a claim is of a session that the claimant began before
// one that has ended since. Messages behind the claim came in that one. mu is held.
func (s *Service) begunBefore(link *secure.Link, c wire.Claim) bool {
	t, ok := s.tombs[link.Remote.Peer]
	return ok && c.Begun && knows(c, link, t.instance, t.claim)
}

// buried reports whether a claim is of a session that the claimant has begun, which
// was taken here, by that name or by another one, and has ended since. The claimant
// does not know, if the answer was lost with its link. mu is held.
func (s *Service) buried(link *secure.Link, c wire.Claim) bool {
	t, ok := s.tombs[link.Remote.Peer]
	return ok && c.Begun && (c.Session == t.session || c.Session == t.theirs)
}

// old reports whether the decider has made a choice before one by which a session
// came about that has ended since, or chooses another link for that session, since
// it does not know yet that it has ended; or whether the link is of before the end of
// a session that we had begun, and the decider may not have known. mu is held.
func (s *Service) old(link *secure.Link, c wire.Chosen, a adoption) bool {
	t, ok := s.tombs[link.Remote.Peer]
	return ok && t.instance == link.Remote.Instance &&
		(c.Order <= t.order || c.Session == t.session || t.unsure && a.linked.Before(t.at))
}
