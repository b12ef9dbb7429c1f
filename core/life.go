package crust

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/udpmux"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// lives counts the goroutines of a service. A WaitGroup would not do: timers
// may start one while Close is already waiting.
type lives struct {
	mu       sync.Mutex
	running  int
	finished bool
	idle     chan struct{} // closed when running falls to zero; nil when nobody waits
}

// spawn runs f in a goroutine that Close waits for. A panic in f stops the
// service, not the process. It is the only place of this package that starts a
// goroutine, but for shutdown itself.
func (s *Service) spawn(f func()) { s.begin(&s.lives, f) }

// spawnBelow is spawn for what serves the links: it goes on until all sessions
// are gone.
func (s *Service) spawnBelow(f func()) { s.begin(&s.below, f) }

func (s *Service) begin(l *lives, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.finished {
		return
	}
	l.running++
	go func() { // with few frames below f: many readers of sessions live on the smallest stack
		defer s.left(l)
		f()
	}()
}

// enter lets a caller of the public API count as a goroutine of the service
// until it calls leave. It reports false when the service stops.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.lives.mu.Lock()
	s.lives.running++
	s.lives.mu.Unlock()
	return true
}

// leave is the end of a goroutine of the service.
func (s *Service) leave() { s.lives.leave() }

func (l *lives) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running--; l.running == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

// left is deferred by each goroutine of the service.
func (s *Service) left(l *lives) {
	if r := recover(); r != nil {
		s.panicked(r, debug.Stack())
	}
	l.leave()
}

// panicked stops the service after a fault in the library itself.
func (s *Service) panicked(r any, stack []byte) {
	err := &Error{Op: "run", Code: CodePanicked, Err: fmt.Errorf("fault inside the library: %v", r)}
	s.failure.CompareAndSwap(nil, err)
	s.log.Error("fault inside the library", "panic", r, "stack", string(stack))
	s.Stop()
}

// shutdown is what Stop starts.
func (s *Service) shutdown() {
	s.cancel()
	s.unwatchNetwork()
	s.events.close()
	s.mu.Lock()
	for ep, l := range s.listeners {
		l.stop()
		delete(s.listeners, ep)
	}
	peers := make([]*peer, 0, len(s.peers))
	for _, p := range s.peers {
		peers = append(peers, p)
	}
	s.mu.Unlock()
	s.halls.close()
	s.endGossip()
	s.part(peers)
	s.join(&s.lives, s.cfg.CloseTimeout+s.cfg.HandshakeTimeout)
	s.closeBook()
	s.closeMapping()
	s.closeUDP()
	s.join(&s.below, s.cfg.CloseTimeout)
	s.clearTables()
	var err error
	if failure := s.failure.Load(); failure != nil {
		err = failure
	}
	s.closeKeyLog()
	s.secure.Spare.Zero()
	if s.cfg.ownKey {
		s.key.Zero()
	}
	s.logStopped(err)
	s.closeLogs()
	s.events.push(Event{Type: EventStopped, detail: &detail{err: err}})
	close(s.stopped)
}

// part ends sessions in order, all within CloseTimeout: those over relays first, for at
// most partRelayed of it, while those that relay are there.
func (s *Service) part(peers []*peer) {
	const partRelayed = 0.8
	end := time.Now().Add(s.cfg.CloseTimeout)
	first := time.Duration(partRelayed * float64(s.cfg.CloseTimeout))
	timer := time.NewTimer(first)
	defer timer.Stop()
	var relayed []*peer
	for _, p := range peers {
		if _, how := s.whereabouts(p); how == Relayed {
			p.sess.DisconnectWithin(first, wire.ReasonStopping, session.ErrDisconnected)
			relayed = append(relayed, p)
		}
	}
	for _, p := range relayed {
		select {
		case <-p.sess.Done():
			continue
		case <-timer.C:
		}
		break
	}
	for _, p := range peers { // also who came to a relay meanwhile
		p.sess.DisconnectWithin(time.Until(end), wire.ReasonStopping, session.ErrDisconnected)
	}
}

// clearTables gives what a panic has left in the tables its last event.
func (s *Service) clearTables() {
	s.mu.Lock()
	peers, attempts := slices.Collect(maps.Values(s.peers)), slices.Collect(maps.Keys(s.attempts))
	s.mu.Unlock()
	for _, p := range peers {
		s.lose(p, &Error{Op: "session", Peer: p.id, Code: CodeCanceled})
	}
	for _, a := range attempts {
		e := Event{Type: EventConnectFailed, Peer: a.peer, detail: &detail{err: &Error{Op: "connect", Peer: a.peer, Code: CodeCanceled}}}
		if a.bootstrap {
			e = Event{Type: EventBootstrapFailed, detail: &detail{err: &Error{Op: "bootstrap", Code: CodeCanceled}}}
		}
		s.finish(a, e)
	}
}

// join waits until no goroutine runs. When the orderly end takes longer than
// patience, which no orderly end does, sessions are killed.
func (s *Service) join(l *lives, patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		l.mu.Lock()
		if l.running == 0 {
			l.finished = true
			l.mu.Unlock()
			return
		}
		if l.idle == nil {
			l.idle = make(chan struct{})
		}
		idle := l.idle
		l.mu.Unlock()
		select {
		case <-idle:
		case <-timer.C:
			s.lookup.RLock()
			for _, p := range s.peers {
				p.sess.Kill(session.ErrDisconnected)
			}
			for _, p := range s.early {
				p.sess.Kill(session.ErrDisconnected)
			}
			s.lookup.RUnlock()
		}
	}
}

func (s *Service) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// find returns the session with a peer, nil when there is none.
func (s *Service) find(id PeerID) *peer {
	s.lookup.RLock()
	p := s.peers[id]
	s.lookup.RUnlock()
	return p
}

// lose takes a session out of the table and tells the program, at once: when
// the peer may connect again, its loss is in the queue.
func (s *Service) lose(p *peer, why *Error) {
	s.mu.Lock()
	if s.peers[p.id] != p {
		carried := s.unhide(p)
		s.mu.Unlock()
		for _, a := range carried {
			s.connectFailed(a, unanswered(why))
		}
		return
	}
	s.circuits.part(p.id)
	s.lookup.Lock()
	delete(s.peers, p.id)
	s.lookup.Unlock()
	s.attendNetwork()
	for _, end := range []context.CancelFunc{p.giveUp, p.upgrade.stop} {
		if end != nil {
			end()
		}
	}
	s.delist(p)
	s.forget(p)
	c := p.sess.Counters()
	addCounters(&s.past, c)
	s.bury(p)
	p.why = why
	call := s.events.add(Event{Type: EventLost, Peer: p.id, detail: &detail{err: why, count: c.Undelivered}})
	tell := s.groupsLose(p, why)
	s.mu.Unlock()
	call()
	tell()
	s.leaveGossip(p)
	s.sessionEnded(p, why, c)
}

// The methods that session.Owner asks for are on owner, so that they are not
// part of the public API.
type owner Service

// Deliver puts messages into the event queue.
func (o *owner) Deliver(sess *session.Session, messages []session.Message, buffers []*session.Buffer, wait bool) bool {
	s := (*Service)(o)
	if !o.events.deliver(sess, messages, buffers, wait) {
		return false
	}
	if wait {
		s.pace(sess, messages)
	}
	return true
}

// Lend lets the program that waits for events read.
func (o *owner) Lend(t *session.Turn) bool {
	return o.cfg.PeerBytesPerSecond == 0 && o.cfg.PeerMessagesPerSecond == 0 && o.events.lend(t)
}

// Writable tells the program that there is room.
func (o *owner) Writable(sess *session.Session) {
	o.events.push(Event{Type: EventWritable, Peer: sess.Remote().Peer})
}

// Dropped tells the program what will not arrive.
func (o *owner) Dropped(sess *session.Session, priority uint8, count, bytes uint64) {
	o.events.push(Event{Type: EventMessagesDropped, Peer: sess.Remote().Peer, Priority: priority, detail: &detail{count: count, bytes: bytes}})
}

// Ended takes the session out of the table and tells the program.
func (o *owner) Ended(sess *session.Session, why error) {
	s := (*Service)(o)
	p := sess.Tag.(*peer)
	s.cutCircuits(sess)
	s.forgetKeys(p)
	ep, _ := s.whereabouts(p)
	s.lose(p, s.linkError("session", p.id, ep, why))
	s.events.trim()
}

// Fault stops the service.
func (o *owner) Fault(_ *session.Session, fault any) {
	(*Service)(o).panicked(fault, debug.Stack())
}

// Go runs f in a goroutine of the service.
func (o *owner) Go(f func()) { (*Service)(o).spawn(f) }

func (s *Service) notConnected(op string, id PeerID) error {
	code := CodeUnknownPeer
	if s.isStopping() {
		code = CodeClosed
	}
	return &Error{Op: op, Peer: id, Code: code}
}

// sendError dresses what a session says to a message.
func (s *Service) sendError(op string, id PeerID, size int, err error) error {
	switch {
	case errors.Is(err, session.ErrWouldBlock):
		return &Error{Op: op, Peer: id, Code: CodeWouldBlock}
	case errors.Is(err, session.ErrTooBig):
		return &Error{Op: op, Peer: id, Code: CodeTooBig, Err: fmt.Errorf("the message has %d bytes, the limit is 2 MiB (%d bytes)", size, MaxMessage)}
	case errors.Is(err, session.ErrEnded):
		return s.notConnected(op, id)
	}
	return &Error{Op: op, Peer: id, Code: waitCode(err)}
}

// waitCode says why waiting ended.
func waitCode(err error) Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return CodeTimeout
	}
	if c := Code(0); errors.As(err, &c) {
		return c
	}
	return CodeCanceled
}

// causes maps errors of the rooms below to codes; the first that matches counts.
var causes = []struct {
	err  error
	code Code
}{
	{session.ErrBanned, CodeBanned},
	{errShed, CodeLimit},
	{session.ErrFull, CodeLimit},
	{session.ErrMemory, CodeLimit},
	{session.ErrDisconnected, CodeDisconnected},
	{session.ErrStopped, CodeDisconnected},
	{session.ErrSilent, CodePeerSilent},
	{session.ErrReplaced, CodeReplaced},
	{session.ErrOver, CodeDisconnected},
	{session.ErrExpired, CodeExpired},
	{secure.ErrForged, CodeCrypto},
	{session.ErrProtocol, CodeProtocol},
	{secure.ErrNoAnswer, CodeNetworkName},
	{secure.ErrWrongPeer, CodeWrongPeer},
	{secure.ErrHandshake, CodeHandshake},
	{session.ErrFault, CodeInternal},
	{session.ErrBroken, CodeReset},
	{udpmux.ErrBarred, CodeBanned},
	{context.DeadlineExceeded, CodeTimeout},
}

// linkError dresses an error of a link.
func (s *Service) linkError(op string, id PeerID, ep Endpoint, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	out := &Error{Op: op, Peer: id, Endpoint: ep, Code: CodeOf(err), Err: err}
	for _, c := range causes {
		if errors.Is(err, c.err) {
			out.Code = c.code
			break
		}
	}
	return out
}
