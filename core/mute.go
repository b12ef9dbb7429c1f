package crust

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/ban"
	"github.com/libcrust/libcrust/core/internal/netio"
)

// Who is blacklisted by its address and comes again and again all the same is not heard
// any more, where the system lets a socket refuse packets by itself: neither a connection
// nor a datagram of it comes to this process. The blacklist stays what decides. What the
// sockets refuse follows it:
//
//	acceptLoop, udpmux ──turned away──▶ knocked ──often──▶ muteLoop ─┐
//	Ban, Unban, new sockets, the end of a ban ──▶───────────────────┴▶ mute ──▶ sockets
//
// Nobody is refused by a socket that the blacklist does not name: Unban has changed the
// sockets when it returns, and a ban that ends by itself ends there within muteRest.

// muteRest is between two changes of what sockets refuse, but for Unban: in a flood, many
// become due together.
const muteRest = 200 * time.Millisecond

// muting is what the sockets of a service refuse.
type muting struct {
	able   atomic.Bool   // there is a socket that can
	begun  atomic.Bool   // muteLoop runs
	stir   chan struct{} // wakes it
	change sync.Mutex    // held while sockets are changed, and taken before all other locks

	mu     sync.Mutex // only lists.mu is taken with it
	knocks ban.Knocks
}

// knocked notes that something from an address was turned away for the blacklist.
func (s *Service) knocked(from netip.Addr) {
	m := &s.muting
	if !m.able.Load() {
		return
	}
	e := s.bans(PeerID{}, from)
	if e == nil { // it is not on a whitelist
		return
	}
	m.mu.Lock()
	due := m.knocks.Refused(e.Prefix)
	m.mu.Unlock()
	if !due {
		return
	}
	if m.begun.CompareAndSwap(false, true) {
		s.spawn(s.muteLoop)
	}
	s.stirMute()
}

// mutes notes a new socket that is to refuse what the others do.
func (s *Service) mutes(socket any) {
	if netio.CanSieve(socket) {
		s.muting.able.Store(true)
		s.stirMute()
	}
}

// stirMute has muteLoop look again, if it runs.
func (s *Service) stirMute() {
	select {
	case s.muting.stir <- struct{}{}:
	default:
	}
}

// muteLoop is a goroutine, from the first address that is not heard any more.
func (s *Service) muteLoop() {
	end := time.NewTimer(time.Hour)
	defer end.Stop()
	for s.ctx.Err() == nil {
		if until := s.mute(); until.IsZero() {
			end.Stop()
		} else {
			end.Reset(time.Until(until))
		}
		select {
		case <-s.ctx.Done():
		case <-end.C:
		case <-s.muting.stir:
			s.rest(s.ctx, muteRest)
		}
	}
}

// mute has all sockets refuse those who are still banned of those who came too often, and
// returns when the first of these bans ends, zero for never.
func (s *Service) mute() (until time.Time) {
	m, l := &s.muting, &s.lists
	if !m.begun.Load() {
		return until
	}
	m.change.Lock()
	defer m.change.Unlock()
	now := time.Now()
	m.mu.Lock()
	l.mu.RLock()
	m.knocks.Keep(func(p netip.Prefix) bool {
		_, ok := l.banned.Prefix(now, p)
		return ok
	})
	list := m.knocks.Mute()
	for _, p := range list {
		if e, _ := l.banned.Prefix(now, p); !e.Until.IsZero() && (until.IsZero() || e.Until.Before(until)) {
			until = e.Until
		}
	}
	l.mu.RUnlock()
	m.mu.Unlock()
	sieve := netio.NewSieve(list)
	if n := sieve.Len(); n < len(list) {
		m.mu.Lock()
		m.knocks.Full(n)
		m.mu.Unlock()
	}
	for _, socket := range s.mutable() {
		if err := sieve.Put(socket); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			s.log.Debug("a socket takes no filter", "error", err) // those who are banned are refused here
		}
	}
	return until
}

// mutable returns the sockets that others may come to.
func (s *Service) mutable() (sockets []any) {
	s.mu.Lock()
	for _, l := range s.listeners {
		if l.ln != nil {
			sockets = append(sockets, l.ln)
		}
	}
	s.mu.Unlock()
	s.udpMu.Lock()
	defer s.udpMu.Unlock()
	for _, u := range s.sockets {
		sockets = append(sockets, u.conn)
	}
	return sockets
}
