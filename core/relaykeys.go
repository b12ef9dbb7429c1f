package crust

import (
	"errors"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Who calls a peer over a relay could begin half a round trip sooner, if it did not have to
// wait for the key that the peer answers with. So a peer that would take a session leaves a
// few keys with each of its relays, each for one answer; the relay gives one to who
// opens a circuit, and tells the peer which:
//
//	target ──Keys──▶ relay
//	opener ──Open, flight 1──▶ relay ──Open with the key's name, flight 1──▶ target
//	       ◀──Key──                 ◀──flight 2, made with that key──
//	       ──Early: flight 3, records──▶     ──▶
//
// early.go has the opener's side. A key is forgotten when it is used, however that ends,
// when its time is over, when the session with the relay ends, and when the service
// takes no sessions any more. A relay that lies about keys costs the opener what it
// had won by them.

const (
	// keysEach is how many keys are left with a relay at once.
	keysEach = 4
	// keyLife is for how long a key is good; after half of that, or a little later, others
	// take its place. It is also for how long a relay can keep what a caller has sent for
	// the key, and then have the peer take it.
	keyLife = 10 * time.Minute
	// keysAgain is after how long others take the place of keys that were given away while
	// the relay opened more circuits than it may, and a relay that got none, since we would take no
	// session just then, is thought of again.
	keysAgain = time.Minute
)

// leftKeys are the secret halves of the keys that were left with a relay, none while we
// would take no session.
type leftKeys struct {
	keys  []*secure.OneTime // at most wire.MaxRelayKeys, the newest last
	renew time.Time
}

// zero erases all.
func (l *leftKeys) zero() {
	for _, k := range l.keys {
		k.Zero()
	}
	l.keys = nil
}

// mayLeaveKeys reports whether a peer is one to leave keys with: a relay that we are
// connected to directly.
func (s *Service) mayLeaveKeys(p *peer) bool {
	_, how := s.whereabouts(p)
	return p.sess.Remote().Flags&wire.FlagRelay != 0 && how != Relayed && s.cfg.ResumeWindow > 0 && s.cfg.Gate == nil && len(s.cfg.Only) == 0
}

// leavesKeys is mayLeaveKeys while we would take the session of a caller.
func (s *Service) leavesKeys(p *peer) bool { return s.mayLeaveKeys(p) && s.ready() }

// leaveKeys leaves n keys with a relay, none while we would take no session, and none with another
// peer. With anew those that were left before count no more.
func (s *Service) leaveKeys(p *peer, n int, anew bool) {
	may := s.mayLeaveKeys(p)
	if !may || !s.ready() {
		n = 0
	}
	now := time.Now()
	public, secret, err := s.secure.NewOneTime(n, now.Add(keyLife))
	if err != nil {
		s.log.Debug("no one-time keys are made", "error", err)
		return
	}
	c := &s.circuits
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.left[p]
	switch {
	case l == nil && !may:
		return
	case p.sess.Over(): // or nobody would forget them
		(&leftKeys{keys: secret}).zero()
		return
	case l == nil:
		l = &leftKeys{}
		if c.left == nil {
			c.left = make(map[*peer]*leftKeys)
		}
		c.left[p] = l
	}
	tells := n > 0 || anew && len(l.keys) > 0
	if anew {
		l.zero()
		l.renew = now.Add(keyLife/2 + rand.N(keyLife/8))
	}
	if soon := now.Add(keysAgain); n == 0 && (anew || soon.Before(l.renew)) {
		l.renew = soon
	}
	l.keys = append(l.keys, secret...)
	for len(l.keys) > wire.MaxRelayKeys {
		l.keys[0].Zero()
		l.keys = l.keys[1:]
	}
	if !may {
		delete(c.left, p)
	} else if !c.renewing {
		c.renewing = true
		s.spawn(s.renewKeys)
	}
	if tells {
		p.sess.SendControl(wire.RelayKeys{Anew: anew, Keys: public}.Append(nil))
	}
}

// useKey returns the key that a relay has given to who opens a circuit to us, and forgets
// it: nil when there is none, it is not good, or the circuit may not be opened. circuits.mu is held.
func (s *Service) useKey(p *peer, open wire.RelayOpen, may bool) *secure.OneTime {
	l := s.circuits.left[p]
	if l == nil || !open.Keyed {
		return nil
	}
	for i, k := range l.keys {
		if k.Name != open.Key {
			continue
		}
		l.keys = append(l.keys[:i:i], l.keys[i+1:]...)
		if may {
			s.spawn(func() { s.leaveKeys(p, 1, false) })
		} else if soon := time.Now().Add(keysAgain); soon.Before(l.renew) {
			l.renew = soon
		}
		if !may || !time.Now().Before(k.Until) || !s.ready() || !s.untouched(open.Peer, k.Until.Add(-keyLife)) {
			k.Zero()
			return nil
		}
		return k
	}
	return nil
}

// untouched reports whether nothing has been between us and a peer since a key was made. A
// relay may keep for as long as that what the peer has sealed for the key, and the peer may
// have said it by another link meanwhile, or have been started again: claims and tombstones
// tell of links that are as old as one handshake at most. circuits.mu is held.
func (s *Service) untouched(id PeerID, made time.Time) bool {
	c := &s.circuits
	return s.findAny(id) == nil && made.After(c.parted[id]) && made.After(c.unsure)
}

// part notes that the session with a peer ends. It comes before the session is forgotten.
func (c *circuits) part(id PeerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.parted) >= maxTombstones {
		maps.DeleteFunc(c.parted, func(_ PeerID, at time.Time) bool { return now.Sub(at) > keyLife })
	}
	if len(c.parted) >= maxTombstones {
		c.parted, c.unsure = nil, now
	}
	if c.parted == nil {
		c.parted = make(map[PeerID]time.Time)
	}
	c.parted[id] = now
}

// forgetKeys forgets the keys left with a peer, and by it, whose session has ended.
func (s *Service) forgetKeys(p *peer) {
	c := &s.circuits
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stock, p)
	if l := c.left[p]; l != nil {
		l.zero()
		delete(c.left, p)
	}
}

// rekey leaves keys with relays that have none, or takes all back, when it may have
// changed whether we would take a session.
func (s *Service) rekey() {
	s.lookup.RLock()
	var relays []*peer
	for _, p := range s.peers {
		if p.sess.Remote().Flags&wire.FlagRelay != 0 {
			relays = append(relays, p)
		}
	}
	s.lookup.RUnlock()
	c := &s.circuits
	for _, p := range relays {
		c.mu.Lock()
		has := c.left[p] != nil && len(c.left[p].keys) > 0
		c.mu.Unlock()
		if has != s.leavesKeys(p) {
			s.leaveKeys(p, keysEach, true)
		}
	}
}

// renewKeys is a goroutine that renews the keys left with relays, while there are any.
func (s *Service) renewKeys() {
	c := &s.circuits
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var due []*peer
		now, next := time.Now(), keysAgain
		c.mu.Lock()
		for p, l := range c.left {
			if left := l.renew.Sub(now); left > 0 {
				next = min(next, left)
			} else {
				due = append(due, p)
			}
		}
		if len(c.left) == 0 {
			c.renewing = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		for _, p := range due {
			s.leaveKeys(p, keysEach, true)
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-s.ctx.Done(): // the sessions end, and the keys with them
			return
		}
	}
}

// keysCame takes keys that a peer leaves with us. circuits.mu is held.
func (s *Service) keysCame(p *peer, body []byte) error {
	r, err := wire.ParseRelayKeys(body)
	if err != nil || s.cfg.Relay != RelayData || p.sess.Over() {
		return err
	}
	c := &s.circuits
	list := c.stock[p]
	if r.Anew {
		list = nil
	}
	list = append(list, r.Keys...)
	list = list[max(0, len(list)-wire.MaxRelayKeys):]
	if len(list) == 0 {
		delete(c.stock, p)
		return nil
	}
	if c.stock == nil {
		c.stock = make(map[*peer][]wire.OneTimeKey)
	}
	c.stock[p] = list
	return nil
}

// key takes the newest key out that a peer has left here, nil when there is none or none is
// wanted, or the link to the peer may be dead: who begins with a key waits for its peer's
// answer over that relay, and is the sooner connected over another one. mu is held.
func (c *circuits) key(of *peer, wanted bool) *wire.OneTimeKey {
	list := c.stock[of]
	if !wanted || len(list) == 0 || of.sess.Overdue() {
		return nil
	}
	k := list[len(list)-1]
	list[len(list)-1] = wire.OneTimeKey{}
	if c.stock[of] = list[:len(list)-1]; len(list) == 1 {
		delete(c.stock, of)
	}
	return &k
}

// errKeyUnused is why a link of a one-time key is of no use.
var errKeyUnused = errors.New("the peer has not answered with the one-time key")
