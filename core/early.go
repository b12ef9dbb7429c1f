package crust

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// MaxFirst is how many messages may be given with one ConnectPeer.
	MaxFirst = 64
	// MaxFirstBytes is how many bytes they may have together: so many fit into one record.
	MaxFirstBytes = 16 << 10
	// feedPause is after how long a full queue is tried again.
	feedPause = 20 * time.Millisecond
)

var (
	errNoRoom    = errors.New("there is no room for the first messages in the queue of the session")
	errAbandoned = errors.New("the call has ended")
	// errAppeared says that the session of a call has appeared.
	errAppeared = errors.New("the session is there")
	// errEarlyLost says that a session has lost the link that was to be its.
	errEarlyLost = errors.New("the link was lost before the peer had answered")
)

// checkFirst copies the messages that are to go first, and returns why they cannot.
func checkFirst(first [][]byte) ([][]byte, error) {
	if len(first) > MaxFirst {
		return nil, fmt.Errorf("%d first messages, and no more than %d may go with the call", len(first), MaxFirst)
	}
	total := uint64(0) // lengths that a caller in C invents must not make it wrap
	for _, m := range first {
		total += min(uint64(len(m)), math.MaxUint64/MaxFirst)
	}
	if total > MaxFirstBytes {
		return nil, fmt.Errorf("the first messages have %d bytes together, and no more than %d may go with the call", total, MaxFirstBytes)
	}
	if len(first) == 0 {
		return nil, nil
	}
	all, list := make([]byte, 0, total), make([][]byte, len(first))
	for i, m := range first {
		all = append(all, m...)
		list[i] = all[len(all)-len(m) : len(all) : len(all)]
	}
	return list, nil
}

// known returns the session with a peer, also a hidden one. mu is held.
func (s *Service) known(id PeerID) *peer {
	if p := s.peers[id]; p != nil {
		return p
	}
	return s.early[id]
}

// findAny is find, also of hidden ones.
func (s *Service) findAny(id PeerID) *peer {
	s.lookup.RLock()
	defer s.lookup.RUnlock()
	if p := s.peers[id]; p != nil {
		return p
	}
	return s.early[id]
}

func (s *Service) isHidden(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.hidden
}

// feed gives a session the first messages of an attempt, unless it has them, and reports
// whether it has. mu is held.
func (s *Service) feed(p *peer, a *attempt) bool {
	switch {
	case len(a.first) == 0 || a.carrier == p:
		return true
	case a.carrier != nil: // it has ended, and the attempt is about to
		return false
	case p.sess.SendFirst(a.first, MustArrive) != nil:
		return false
	}
	a.carrier = p
	return true
}

// feedAll feeds a session the first messages of all attempts that it answers, in the order
// of the calls, and returns those attempts that have nothing more to say, as joined does. mu is held.
func (s *Service) feedAll(p *peer, own *attempt) []*attempt {
	joined := s.joined(p, own)
	for _, a := range slices.SortedFunc(slices.Values(joined), func(a, b *attempt) int { return cmp.Compare(a.order, b.order) }) {
		s.feed(p, a)
	}
	return slices.DeleteFunc(joined, func(a *attempt) bool { return !s.feed(p, a) })
}

// uncarry ends the hidden session that had the first messages of an attempt, which is
// over, if it was the last. mu is held.
func (s *Service) uncarry(a *attempt) {
	p := a.carrier
	if a.carrier = nil; p == nil || s.early[p.id] != p {
		return
	}
	for other := range s.attempts {
		if other.carrier == p {
			return
		}
	}
	s.unhide(p)
	s.spawn(func() { p.sess.Kill(errAbandoned) })
}

// unanswered is why a call fails whose messages a hidden session had that has ended.
func unanswered(why *Error) *Error {
	code := why.Code
	if code == CodeReplaced { // the peer has had it, and knows nothing of it any more
		code = CodeDisconnected
	}
	return &Error{Op: "connect", Peer: why.Peer, Endpoint: why.Endpoint, Code: code, Err: fmt.Errorf("the session ended before the answer of the peer had come, which may have taken the first messages: %w", why)}
}

// unhide forgets a hidden session, which the peer may have taken, and returns the
// attempts whose messages it had. mu is held.
func (s *Service) unhide(p *peer) (carried []*attempt) {
	if s.early[p.id] != p {
		return nil
	}
	s.lookup.Lock()
	delete(s.early, p.id)
	s.lookup.Unlock()
	s.bury(p)
	for a := range s.attempts {
		if a.carrier == p {
			carried = append(carried, a)
		}
	}
	return carried
}

// call is a handshake over a circuit, for an attempt, which may begin its session early.
type call struct {
	s       *Service
	a       *attempt
	conn    *relayConn
	at      Endpoint // of the relay
	dialled time.Time
	shakes  *secure.Call
	sent    chan struct{} // closed when the first flight is sent
	decided chan struct{} // closed when the second flight has come, or none will, and that is seen to

	mu     sync.Mutex
	over   bool          // the second flight has come, or none will
	trying chan struct{} // closed when it is known whether a session begins; nil when no key has come

	// set before trying is closed
	link  *secure.Link // that the key has made
	early *earlyConn   // under the session
	p     *peer        // nil when none has begun
}

// wantsKey reports whether a one-time key of a peer would be of use for an attempt.
func (s *Service) wantsKey(a *attempt) bool {
	return a != nil && len(a.first) > 0 && s.cfg.ResumeWindow > 0 && s.cfg.Gate == nil && s.findAny(a.peer) == nil
}

// newCall prepares a call.
func (s *Service) newCall(a *attempt, conn *relayConn, at Endpoint) (*call, error) {
	shakes, err := secure.NewCall(conn, s.secure, a.peer)
	if err != nil {
		return nil, err
	}
	c := &call{s: s, a: a, conn: conn, at: at, dialled: time.Now(), shakes: shakes, sent: make(chan struct{}), decided: make(chan struct{})}
	conn.keyed = c.keyCame
	return c, nil
}

// make shakes hands, and returns the link, or errAppeared when a session has it already.
func (c *call) make(ctx context.Context) (*secure.Link, error) {
	defer close(c.decided)
	stop := closeWith(ctx, c.conn)
	deadline, _ := ctx.Deadline()
	c.conn.SetDeadline(deadline) //nolint:errcheck // a closed connection shows in the first write
	c.shakes.Send()              //nolint:errcheck // a broken one shows in the first read
	close(c.sent)
	link, rest, early, err := c.shakes.Shake()
	c.mu.Lock()
	c.over = true
	trying := c.trying
	c.mu.Unlock()
	if trying != nil {
		<-trying
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
		c.conn.Close() //nolint:errcheck // it has failed already
		if c.p != nil {
			c.early.end(fmt.Errorf("%w: %v", errEarlyLost, err)) //nolint:errorlint // a deadline of the handshake is none of the link
		}
		return nil, c.s.linkError("connect", c.a.peer, c.at, err)
	case c.p == nil:
		if early {
			link.Rest = rest
		}
		return link, nil
	case early:
		return nil, c.s.appear(c, rest)
	}
	c.early.end(errKeyUnused) // else the circuit would be closed with the session
	c.s.void(c)
	return link, nil
}

// keyCame is the goroutine that begins a session with a one-time key.
func (c *call) keyCame(key wire.OneTimeKey) {
	<-c.sent
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return
	}
	c.trying = make(chan struct{})
	c.mu.Unlock()
	defer close(c.trying)
	link, err := c.shakes.Early(&key, time.Now())
	if err != nil {
		c.s.log.Debug("a relay has given a one-time key that is of no use", "relay", c.conn.from, "error", err)
		return
	}
	early := &earlyConn{relayConn: c.conn, key: key.Name()}
	link.Conn = early
	p := c.s.beginEarly(link, c)
	if p == nil {
		link.Conn = c.conn
		return
	}
	c.link, c.early, c.p = link, early, p
	p.sess.Start()
}

// adoption is what is known of the link of a call.
func (c *call) adoption() adoption {
	return adoption{how: Relayed, began: c.a.began, linked: c.dialled, endpoint: c.at, attempt: c.a}
}

// beginEarly makes the hidden session of a link to a peer that has not answered yet, with the
// first messages of all who call it. It returns nil, and leaves the link as it is, when none may begin before that.
func (s *Service) beginEarly(link *secure.Link, c *call) *peer {
	id, a := link.Remote.Peer, c.adoption()
	if id == s.ID() || s.denies(id, Role(link.Remote.Role), a.how, a.endpoint.Addr.Addr()) != nil || s.unwanted(id, &a) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.attempts { // when one of them fails, what it has said must not come with another one's
		if other != c.a && other.peer == id && len(other.first) > 0 {
			return nil
		}
	}
	o, ok := s.beginning(link, a)
	if !ok || c.a.carrier != nil {
		return nil
	}
	first := link.First
	p := s.newPeer(link, a, o)
	if !slices.Contains(s.feedAll(p, c.a), c.a) { // there is no memory
		s.uncarryAll(p)
		link.First = first
		return nil
	}
	p.hidden, p.decided = true, c.decided
	s.lookup.Lock()
	s.early[id] = p
	s.lookup.Unlock()
	return p
}

// appear takes a hidden session for one whose peer has proved its key, and is there, by the
// circuit of a call, of which rest was read already.
func (s *Service) appear(c *call, rest []byte) error {
	p, a := c.p, c.adoption()
	s.mu.Lock()
	_, suspended := p.sess.Suspended()
	var err error
	switch {
	case !p.hidden: // by another link
		err = errAppeared
	case s.early[p.id] != p:
		err = errAbandoned
	case suspended || p.sess.Link() != c.link:
		err = errEarlyLost
	case s.stopping:
		err = refusal{wire.ReasonStopping}
	case s.full(c.link, a):
		err = refusal{wire.ReasonLimit}
	}
	if err != nil {
		s.mu.Unlock()
		c.early.end(errEarlyLost)
		c.conn.Close() //nolint:errcheck // the session is elsewhere, or over
		return s.linkError("connect", p.id, c.at, err)
	}
	call := s.announce(p, c.link, a)
	s.mu.Unlock()
	call()
	c.early.answered(rest)
	if err := s.settle(p, c.link, &a); err != nil {
		return err
	}
	return errAppeared
}

// void forgets the hidden session of a call, since nobody can have heard of it: the
// peer has not answered with the one-time key, and no claim has named it.
func (s *Service) void(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := c.p
	if s.early[p.id] != p || p.sess.Link() != c.link || len(p.naming) > 0 { // else the peer is asked
		return
	}
	s.lookup.Lock()
	delete(s.early, p.id)
	s.lookup.Unlock()
	s.uncarryAll(p)
	s.spawn(func() { p.sess.Kill(errKeyUnused) })
}

// uncarryAll has the first messages that a session had sent once more by another one. mu is held.
func (s *Service) uncarryAll(p *peer) {
	for a := range s.attempts {
		if a.carrier == p {
			a.carrier = nil
		}
	}
}

// awaitEarly waits until the session that has begun early with a peer, if there is one, has its
// answer, but no longer than the link of another relay has taken, which would
// have to ask the peer about it.
func (s *Service) awaitEarly(ctx context.Context, id PeerID, since time.Time) error {
	p := s.findAny(id)
	if p == nil || !s.isHidden(p) {
		return nil
	}
	timer := time.NewTimer(time.Since(since))
	defer timer.Stop()
	select {
	case <-p.decided:
	case <-timer.C:
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}
