package crust

import (
	"errors"
	"net"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/guard"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// mayEnter reports whether an accepted connection is looked at. One that is not is
// closed before anything was read from it.
func (s *Service) mayEnter(conn net.Conn) bool {
	from := endpointOf(endpoint.TCP, conn.RemoteAddr()).Addr.Addr()
	if fewFiles(conn, s.cfg.ReservedFiles) {
		s.guard.mu.Lock()
		s.guard.noFiles++
		s.guard.mu.Unlock()
		s.logRefused(refusedFiles, from)
		return false
	}
	now := time.Now()
	s.guard.mu.Lock()
	g := s.guard.machine
	ok := g.MayConnect(now, from) && g.Admit(now, from, guard.Accept, 1)
	s.guard.mu.Unlock()
	if !ok {
		s.logRefused(refusedRate, from)
		s.charge(guard.Who{Addr: from}, AlertConnections, 1, 0, 0)
	}
	return ok
}

// refuse closes a connection that was not looked at. The other side sees a reset, and
// the system keeps nothing of it.
func refuse(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		c.SetLinger(0) //nolint:errcheck // it is closed next
	}
	conn.Close() //nolint:errcheck // it carries nothing
}

// mayAnswer reports whether there is time to answer a first flight that knows the
// network's name.
func (s *Service) mayAnswer(conn net.Conn) bool {
	from := endpointOf(endpoint.TCP, conn.RemoteAddr()).Addr.Addr()
	s.guard.mu.Lock()
	ok := s.guard.machine.Admit(time.Now(), from, guard.Answer, float64(answerCost))
	s.guard.mu.Unlock()
	if !ok {
		s.logRefused(refusedBusy, from)
	}
	return ok
}

// shaken notes what became of an accepted connection: a handshake that was finished, or
// why not, and charges its sender, with the bytes that were read of it.
func (s *Service) shaken(g *guest, err error, bytes uint64) {
	from := endpointOf(endpoint.TCP, g.conn.RemoteAddr()).Addr.Addr()
	who := guard.Who{Addr: from}
	switch {
	case err == nil:
		s.guard.mu.Lock()
		s.guard.machine.Spend(time.Now(), guard.Answer, float64(finishCost))
		s.guard.mu.Unlock()
	case s.halls.gone(g): // we have closed it
	case errors.Is(err, secure.ErrBusy):
		s.charge(who, AlertConnections, 1, 0, 0)
	case errors.Is(err, secure.ErrHandshake):
		s.charge(who, AlertHandshakes, 1, bytes, answerCost)
	default:
		s.charge(who, AlertGarbage, 1, bytes, 0)
	}
}

// broken charges who has shaken hands, at a price, and then makes nothing of it. A link
// that is refused, by either side, is none of these.
func (s *Service) broken(g *guest, err error) {
	var e *Error
	if err == nil || errors.As(err, new(refusal)) || errors.As(err, new(told)) || errors.Is(err, errDuplicate) || errors.Is(err, errOver) || s.halls.gone(g) {
		return
	}
	if errors.As(err, &e) && (e.Code == CodeSelf || e.Code == CodeNotAllowed) {
		return
	}
	s.charge(guard.Who{Addr: endpointOf(endpoint.TCP, g.conn.RemoteAddr()).Addr.Addr()}, AlertHandshakes, 1, 0, answerCost+finishCost)
}

// isHot reports whether a connection gives way to others where there is no room.
func (s *Service) isHot(conn net.Conn) bool {
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	return s.guard.machine.Hot(time.Now(), endpointOf(endpoint.TCP, conn.RemoteAddr()).Addr.Addr())
}

// guardStats adds what the guard has counted.
func (s *Service) guardStats(st *Stats) {
	s.mu.Lock()
	st.RefusedSessions, st.ShedSessions = s.census.refused, s.census.shed
	s.mu.Unlock()
	st.RatePauses = s.ratePauses.Load()
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	c := s.guard.machine.Stats()
	st.RefusedConnections, st.RefusedHandshakes, st.RefusedFiles = c.Refused[guard.Accept], c.Refused[guard.Answer], s.guard.noFiles
	st.Alerts, st.SuppressedAlerts = s.guard.alerts, c.Suppressed
}
