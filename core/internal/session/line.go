package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// moveGrace is how long a session whose link is gone waits for one that is about
// to come before it tells that it is suspended.
const moveGrace = time.Second

// line is a link while it is under a session. Its first record of content has the
// number told that the peer was told.
type line struct {
	link  *secure.Link
	try   tryWriter     // nil when the connection has none
	gone  chan struct{} // closed when the line is given up
	owed  []byte        // bytes that go out even before: of the handshake; guarded by Session.mu
	first []byte        // frames that go out before all else; guarded by Session.mu
	told  uint64        // up to where what has come was acknowledged by what is out; guarded by Session.mu
	over  error         // the peer has ended the session, and why; guarded by Session.mu
	waits bool          // the reader waits for told; guarded by Session.mu
	begun bool          // by us, before the peer was asked: constant
	asks  bool          // it has not answered yet; the reader's
	cut   bool          // given up; guarded by Session.mu
	shut  bool          // half-closed, or about to be; guarded by Session.mu

	counts
}

func newLine(link *secure.Link, first []byte, told uint64) *line {
	l := &line{link: link, owed: link.First, first: first, told: told, gone: make(chan struct{})}
	link.First = nil
	l.position.Store(told)
	l.acked.Store(told)
	l.try, _ = link.Conn.(tryWriter)
	return l
}

// ready prepares the connection.
func (l *line) ready() {
	l.link.Conn.SetDeadline(time.Time{}) //nolint:errcheck // a closed connection shows in the next read
	if c, ok := l.link.Conn.(interface{ SetNotSentLowat(bytes int) error }); ok {
		c.SetNotSentLowat(notSent) //nolint:errcheck // without it an urgent message waits for more that is in the kernel
	}
}

// drop gives the line up, if there is one, and returns it: its connection is to
// be closed without mu. Its keys are erased by the last who uses them. mu is held.
func (s *Session) drop() *line {
	l := s.line
	if l == nil {
		return nil
	}
	s.line = nil
	l.cut = true
	close(l.gone)
	if s.using != l {
		s.cede(l)
	}
	if s.reading != l {
		l.link.Open.Zero()
	}
	s.control, s.pongDue, s.ackDue, s.pingSent = nil, false, false, 0
	s.clearLow()
	return l
}

// unlink gives a line up whose connection is useless: the session is suspended
// if it may wait for another one, otherwise it ends. The first reason counts.
func (s *Session) unlink(l *line, why error) {
	s.mu.Lock()
	if s.line != l { // replaced, or given up
		s.mu.Unlock()
		return
	}
	if l.over != nil {
		why = l.over
	}
	idle := s.state == draining && s.drained() && s.kept.empty() // as in Disconnect
	over := (idle || s.state == finishing && s.kept.messages() == 0) && !errors.Is(why, ErrElsewhere)
	if over || s.window == 0 || !errors.Is(why, ErrBroken) && !errors.Is(why, ErrSilent) {
		s.mu.Unlock()
		s.end(why)
		return
	}
	s.drop()
	s.cause, s.since = why, s.clock()
	s.mu.Unlock()
	l.link.Conn.Close()
	s.owner.Unlinked(s, why)
}

// await returns the line to read from after old, which is nil at first. While
// there is none it waits, as long as the session may be suspended. It returns nil
// when the session has ended.
func (s *Session) await(old *line) *line {
	told := false
	for {
		s.mu.Lock()
		if old != nil && s.reading == old {
			old.link.Open.Zero()
			s.reading = nil
		}
		if s.state == ended {
			s.mu.Unlock()
			return nil
		}
		l, cause, grace, left := s.line, s.cause, s.alive.grace, s.since+int64(s.window)+s.alive.grace-s.clock()
		resumed := s.resumed > 0 // the first line may be gone before it was read from
		s.reading = l
		s.mu.Unlock()
		switch {
		case l != nil:
			if resumed {
				s.owner.Resumed(s)
			}
			return l
		case left <= 0:
			s.end(fmt.Errorf("%w; no other link came within %v", cause, s.window+time.Duration(grace)))
			continue
		case !told && s.owner.Moving(s) && left > int64(s.window-moveGrace)+grace:
			left = min(left, int64(moveGrace/4))
		case !told:
			told = true
			s.owner.Suspended(s, cause)
			continue
		}
		timer := time.NewTimer(time.Duration(left))
		select {
		case <-s.changed:
		case <-s.quit:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Resumable reports whether the session could go over to another link: it has
// not ended, and what it sends is kept.
func (s *Session) Resumable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state != ended && s.window > 0
}

// Suspended reports whether the session is without a link, and how long it will
// be so at most.
func (s *Session) Suspended() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != nil || s.state == ended {
		return 0, false
	}
	return max(0, s.window-time.Duration(s.clock()-s.since-s.alive.grace)), true
}

// Rename gives the session the name that the peer has for it.
func (s *Session) Rename(id wire.SessionID) {
	s.mu.Lock()
	s.id = id
	s.mu.Unlock()
}

// Received returns how many records of content have come.
func (s *Session) Received() uint64 { return s.has.Load() }

// Resume moves the session to another link to the same peer, which has said to
// have received theirs records, and was told that we have received told. Frames in
// first go out before anything else. The link it had is given up. The returned
// function must be called next, without locks. On an error the session is as
// before, and the link is the caller's: ErrEnded when there is no session to
// resume, ErrProtocol when theirs cannot be true.
func (s *Session) Resume(link *secure.Link, first []byte, told, theirs uint64) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == ended || s.window == 0:
		return nil, ErrEnded
	case theirs < s.kept.acked || theirs > s.kept.sealed:
		return nil, protocol(fmt.Errorf("the peer says to have %d records, of %d that were sent and %d that it had", theirs, s.kept.sealed, s.kept.acked))
	}
	old := s.drop()
	tokens := s.kept.ack(theirs)
	s.tokens -= int32(len(tokens))
	s.kept.next, s.kept.asked = theirs, theirs
	l := newLine(link, first, told)
	l.ready()
	s.line = l
	s.link.Store(link)
	s.resumed++
	now := s.clock()
	s.lastSent.Store(now)
	s.heard(now)
	s.rtt.Store(0)
	s.trip = 0
	s.revived()
	if s.timer != nil && s.state == live {
		s.nextTick = min(s.nextTick, now+int64(s.soon()))
		s.timer.Reset(time.Duration(s.nextTick - now))
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
	s.wake()
	s.signalRoom()
	return func() {
		if old != nil {
			old.link.Conn.Close()
		}
		s.receipts(tokens, nil)
	}, nil
}
