package crust

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// listenFirst starts a listener of Config.Listen: a random port is the live port
// if that is free.
func (s *Service) listenFirst(ep Endpoint) {
	if s.cfg.LivePort != 0 && ep.Addr.Port() == 0 && ep.Transport != Tracer {
		live := endpoint.New(ep.Transport, netip.AddrPortFrom(ep.Addr.Addr(), s.cfg.LivePort))
		_, err := s.listen(live)
		if err == nil {
			return
		}
		if err.Code != CodeAddressInUse && err.Code != CodePermission {
			s.events.push(Event{Type: EventListenerFailed, detail: &detail{endpoint: live, err: err}})
			return
		}
		s.log.Info("the live port is taken, a random one is used", "endpoint", live, "error", err)
	}
	s.Listen(ep) //nolint:errcheck // it is an event
}

// rotate is the goroutine that gives listeners at random ports new ones, each
// Config.PortRotation. A listener that has a successor accepts for one more
// interval, since its port has been told to peers; connection infos name the
// successor only. Sessions stay where they are.
func (s *Service) rotate() {
	timer := time.NewTimer(s.rotation())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		timer.Reset(s.rotation())
		s.mu.Lock()
		var random []*listener
		for _, l := range s.listeners {
			if l.random {
				random = append(random, l)
			}
		}
		s.mu.Unlock()
		slices.SortFunc(random, func(a, b *listener) int { return endpoint.Compare(a.ep, b.ep) })
		for _, l := range random {
			s.succeed(l)
		}
	}
}

// rotation returns the next interval, a tenth more or less, so that nobody can
// tell a service by its rhythm.
func (s *Service) rotation() time.Duration {
	d := s.cfg.PortRotation
	return d - d/10 + rand.N(d/5+1)
}

// succeed gives a listener a successor, or ends it when it has one.
func (s *Service) succeed(l *listener) {
	s.mu.Lock()
	old := l.old
	s.mu.Unlock()
	if old {
		if s.StopListening(l.ep) == nil {
			s.events.push(Event{Type: EventListenerStopped, detail: &detail{endpoint: l.ep}})
		}
		return
	}
	ep, err := s.Listen(endpoint.New(l.ep.Transport, netip.AddrPortFrom(l.ep.Addr.Addr(), 0)))
	if err != nil {
		return // it is an event; the old one goes on
	}
	s.mu.Lock()
	l.old = true
	if successor := s.listeners[ep]; successor != nil {
		successor.order = l.order
	}
	s.mu.Unlock()
	s.remap()
}

// reapUDP closes sockets that were listeners, or opened for one peer, and serve nobody
// any more. It is called when one is told to stop, and when one has served its last.
func (s *Service) reapUDP() {
	s.udpMu.Lock()
	var drained []*udpSocket
	s.sockets = slices.DeleteFunc(s.sockets, func(u *udpSocket) bool {
		if !u.retired.Load() || u.mux.Stats().Associations > 0 {
			return false
		}
		drained = append(drained, u)
		return true
	})
	s.udpMu.Unlock()
	for _, u := range drained {
		s.spawnBelow(u.close)
	}
	if len(drained) > 0 {
		s.remap()
	}
}
