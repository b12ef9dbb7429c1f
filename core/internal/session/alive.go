package session

import (
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A link that dies says nothing. So who has sent something that asks for an
// answer, and hears nothing from the peer, asks by a ping; when that too has no
// answer, the link is given up, and the session waits for another one. It is not
// lost the sooner for it.
//
// Whatever comes from the peer's machine is a sign of life, acknowledgements of
// the transport included, so a slow or busy way is none that is dead. A peer
// that does not read because its program takes no messages cannot answer either:
// it pads the link with frames that mean nothing, once a second. And while this
// side does not listen, it cannot say that the peer is silent.

// Implementation constants. With askAfter and giveUpAfter a dead link is noticed
// after 2.5 s under traffic, and later where round trips take longer than 250 ms.
const (
	// askAfter is how long nothing is heard before the peer is asked.
	askAfter = 1500 * time.Millisecond
	// giveUpAfter is how long it may take to answer then.
	giveUpAfter = time.Second
	// overdueAfter is how long an answer may take before Overdue says so.
	overdueAfter = 250 * time.Millisecond
	// patientTrips is all of these at least, in round trips.
	patientTrips = 4
	// askEvery is how often an association of datagrams is asked meanwhile, since
	// datagrams get lost.
	askEvery = 200 * time.Millisecond
	// padEvery is how often a side that does not read says that it is there.
	padEvery = time.Second
	// lateTick is how much too late a tick is when the whole program stood still.
	lateTick = 500 * time.Millisecond
	// calmAfter is when a link that was given up is forgotten. Of those within it,
	// each but the first doubles the patience, up to 2^maxAlarms times: the way
	// is one on which answers take long.
	calmAfter = time.Minute
	maxAlarms = 4
	// wholeAfter is at least how long a record may be under way before the link is given
	// up, whatever comes of it meanwhile: the largest takes a thousand bytes a second.
	// Else who carries the link could let a byte pass now and then, and stall it for ever.
	wholeAfter = time.Minute
)

// alive is what a session knows about the peer being there. It is guarded by
// Session.mu; times are of the session's clock, zero means never.
type alive struct {
	asked   int64 // since when a sign of life is due: about when something went out first that has none after it
	last    int64 // when something that asks for an answer went out last
	probed  int64 // since when the link must prove itself
	alarmed int64 // when a link was given up last
	alarms  int
	grace   int64 // how much longer than the window the session waits for a link
}

// heard notes that the peer is there, or that this side cannot say that it is not.
func (s *Session) heard(now int64) {
	s.lastHeard.Store(now)
	s.lastWhole.Store(now)
}

// silentAt returns when the link is given up unless something comes: when nothing has
// for LostAfter, or no whole record for the longer of that and wholeAfter.
func (s *Session) silentAt() int64 {
	return min(s.lastHeard.Load()+int64(s.cfg.LostAfter), s.lastWhole.Load()+max(int64(s.cfg.LostAfter), int64(wholeAfter)))
}

// patience returns a bound on waiting. mu is held.
func (s *Session) patience(least time.Duration, now int64) int64 {
	d := max(int64(least), patientTrips*s.rtt.Load())
	if s.alive.alarms > 1 && now-s.alive.alarmed < int64(calmAfter) {
		d <<= min(s.alive.alarms-1, maxAlarms)
	}
	return min(d, int64(s.cfg.LostAfter))
}

// wrote notes that something goes out that asks for an answer. mu is held.
func (s *Session) wrote(now int64) {
	s.alive.last = now
	if s.alive.asked == 0 {
		s.alive.asked = now
		s.tickBy(now+s.patience(askAfter, now), now)
	}
}

// tickBy makes a tick come at a time at the latest. mu is held.
func (s *Session) tickBy(at, now int64) {
	if s.timer != nil && s.state == live && at < s.nextTick {
		s.nextTick = max(at, now)
		s.timer.Reset(time.Duration(s.nextTick - now))
	}
}

// pulse makes sure that a tick comes soon after messages were read: by then the
// reader may be held up, since the program takes none.
func (s *Session) pulse(now int64) {
	s.mu.Lock()
	s.tickBy(now+int64(padEvery), now)
	s.mu.Unlock()
}

// dueAlive returns when look has something to do, given what is due without it.
// mu is held.
func (s *Session) dueAlive(next, now int64) int64 {
	switch {
	case s.line == nil || s.window == 0:
	case s.paused.Load():
		next = min(next, now+int64(padEvery))
	case s.alive.probed > 0:
		next = min(next, s.alive.probed+s.patience(giveUpAfter, now))
		if _, ok := s.line.link.Conn.(asker); ok {
			next = min(next, now+int64(askEvery))
		}
	case s.alive.asked > 0:
		next = min(next, s.alive.asked+s.patience(askAfter, now))
	}
	return next
}

// Overdue reports whether the peer has owed the answer to a ping for longer than it takes on a
// link that is alive: this one may be dead, and about to be given up. What else comes
// says nothing about that: where a NAT has begun to drop what goes to the peer, its own
// pings still arrive.
func (s *Session) Overdue() bool {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive.probed > 0 || s.pingSent != 0 && now >= int64(s.pingSent)+s.patience(overdueAfter, now) //nolint:gosec // it is a time of the clock
}

// asker is a connection that can make the peer's machine answer, beside the
// stream.
type asker interface{ Ask() }

// Prove makes the link prove itself, since the network has changed: the peer is
// asked at once, and when it says nothing for max(4 round trips, 1 s) the link is
// given up. It does nothing for a session that could not go on over another link.
func (s *Session) Prove() {
	now := s.clock()
	s.mu.Lock()
	l := s.line
	if s.state != live || l == nil || s.window == 0 || s.timer == nil {
		s.mu.Unlock()
		return
	}
	s.probe(now)
	s.tickBy(s.dueAlive(s.nextTick, now), now)
	s.mu.Unlock()
	if a, ok := l.link.Conn.(asker); ok {
		a.Ask()
	}
}

// probe asks the peer, unless it is being asked. mu is held.
func (s *Session) probe(now int64) {
	if s.alive.probed == 0 {
		s.alive.probed = now
	}
	if len(s.control) == 0 {
		s.control = s.ping(s.control, now)
		s.wake()
	}
}

// Forsake gives the link up if it is the session's, and it can go on over another
// one: why says what made it useless.
func (s *Session) Forsake(conn any, why error) {
	s.mu.Lock()
	l := s.line
	if s.state == ended || s.window == 0 || l == nil || any(l.link.Conn) != conn {
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.unlink(l, broken(why))
}

// look asks a peer that has said nothing for long, and gives up a link over which
// it does not answer. It is called by tick, without locks.
func (s *Session) look(now int64) {
	a := &s.alive
	s.mu.Lock()
	l := s.line
	if s.state != live || l == nil || s.window == 0 {
		s.mu.Unlock()
		return
	}
	if paused := s.paused.Load(); paused || now-s.nextTick > int64(lateTick) { // we did not listen
		if a.asked > 0 {
			a.asked = now
		}
		if a.probed > 0 {
			a.probed = now
		}
		if paused && now-s.lastSent.Load() >= int64(padEvery) && len(s.control) == 0 {
			s.control = wire.AppendFrame(s.control, wire.FramePad)
			s.lastSent.Store(now)
			s.wake()
		}
	}
	waits := a.asked > 0 || a.probed > 0
	s.mu.Unlock()
	if !waits {
		return
	}
	heard := s.lastHeard.Load()
	if quiet, ok := netio.Quiet(l.link.Conn); ok {
		heard = max(heard, now-int64(quiet))
	}
	ask, dead := s.judge(l, now, heard)
	if c, ok := l.link.Conn.(asker); ok && ask {
		c.Ask()
	}
	if dead {
		s.unlink(l, ErrSilent)
	}
}

// judge says whether the peer must be asked, and whether the line is dead, given
// when something was heard last.
func (s *Session) judge(l *line, now, heard int64) (ask, dead bool) {
	a := &s.alive
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != l || s.state != live {
		return false, false
	}
	s.believe(l, heard)
	switch {
	case a.probed > 0 && now >= a.probed+s.patience(giveUpAfter, now):
		if now-a.alarmed > int64(calmAfter) {
			a.alarms = 0
		}
		a.alarms++
		a.alarmed, a.grace = now, max(0, s.lastHeard.Load()+int64(s.cfg.LostAfter)-now)
		return false, true
	case a.probed > 0:
		return true, false
	case a.asked > 0 && now >= a.asked+s.patience(askAfter, now):
		s.probe(now)
		return true, false
	}
	return false, false
}

// claimBeat takes the write side for a tick that has something to say, when nobody writes
// and nothing else is to be written: a goroutine for it, with a writer's memory, costs more
// than all the rest. Otherwise it returns no frames, and leaves them to a writer. mu is held.
func (s *Session) claimBeat(now int64) (*line, []byte) {
	if len(s.control) == 0 && !s.ackDue || !s.atRest() || s.lowDue() {
		s.wake()
		return nil, nil
	}
	l := s.line
	s.writing, s.using = true, l
	if s.pingSent != 0 && len(s.control) > 0 {
		s.wrote(now)
	}
	frames := s.controls(l, nil)
	if len(frames) == 0 { // what was to be acknowledged has been
		s.stopWriting()
	}
	return l, frames
}

// writeBeat writes what claimBeat has taken. After a panic nobody waits for it.
func (s *Session) writeBeat(l *line, frames []byte) {
	fault := true
	defer func() {
		if fault {
			s.broke()
		}
	}()
	s.writeNow(l, sealControl(l.link.Seal, nil, frames), 0)
	fault = false
}

// believe notes that something was heard at a time. mu is held.
func (s *Session) believe(l *line, heard int64) {
	a := &s.alive
	if heard >= a.probed {
		a.probed = 0
	}
	if heard >= a.asked {
		a.asked = 0
		if a.last > heard || s.writing && s.using == l { // which the link may hold up
			a.asked = heard
		}
	}
}

// reassured reports whether a tick that has come would do nothing but see that the peer
// has said something since, and puts the next one off.
func (s *Session) reassured() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, heard := s.clock(), s.lastHeard.Load()
	a := &s.alive
	switch {
	case s.state != live || s.line == nil || s.paused.Load() || s.refused || now-s.nextTick > int64(lateTick):
		return false
	case s.rtt.Load() == 0 || a.probed > 0 || heard < a.asked:
		return false
	}
	s.believe(s.line, heard)
	s.rest()
	s.owe(now)
	if s.dueTick(now) <= now { // it is the tick that goes on then, whenever it comes to run
		return false
	}
	s.schedule(now)
	return true
}

// revived forgets what is known of an earlier line. mu is held.
func (s *Session) revived() {
	s.alive.asked, s.alive.last, s.alive.probed, s.alive.grace = 0, 0, 0, 0
}
