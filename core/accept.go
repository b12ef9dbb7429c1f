package crust

import (
	"container/list"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// listener is one place where connections are accepted.
type listener struct {
	ln  net.Listener // nil over UDP
	udp *udpSocket
	ep  Endpoint

	random bool   // its port was not asked for
	old    bool   // it has a successor; guarded by Service.mu
	order  uint64 // in which listeners were started, or the predecessor's; guarded by Service.mu
}

// stop stops accepting.
func (l *listener) stop() {
	if l.udp != nil {
		l.udp.stop()
		return
	}
	l.ln.Close() //nolint:errcheck // there is nothing to do about it
}

// open starts to listen at an endpoint.
func (s *Service) open(ep Endpoint) (*listener, error) {
	if ep.Transport == UTP {
		return s.listenUDP(ep)
	}
	ln, err := s.network.Listen(s.ctx, ep.Addr)
	if err != nil {
		return nil, err
	}
	return &listener{ln: ln, ep: endpointOf(ep.Transport, ln.Addr())}, nil
}

// listen starts a listener and its goroutine.
func (s *Service) listen(ep Endpoint) (Endpoint, *Error) {
	if err := s.checkListen(ep); err != nil {
		err.Op = "listen"
		return Endpoint{}, err
	}
	if s.isStopping() {
		return Endpoint{}, &Error{Op: "listen", Endpoint: ep, Code: CodeClosed}
	}
	l, err := s.open(ep)
	if err != nil {
		return Endpoint{}, fail("listen", PeerID{}, ep, err)
	}
	l.random = ep.Addr.Port() == 0
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		l.stop()
		return Endpoint{}, &Error{Op: "listen", Endpoint: ep, Code: CodeClosed}
	}
	s.listenSeq++
	l.order = s.listenSeq
	s.listeners[l.ep] = l
	s.mu.Unlock()
	s.mutes(l.ln)
	s.mute()
	s.remap()
	s.events.push(Event{Type: EventListenerStarted, detail: &detail{endpoint: l.ep}})
	if l.ln != nil {
		s.spawn(func() { s.acceptLoop(l) })
	}
	return l.ep, nil
}

// endpointOf returns the endpoint of a socket's address.
func endpointOf(t endpoint.Transport, addr net.Addr) Endpoint {
	if a, ok := addr.(interface{ AddrPort() netip.AddrPort }); ok {
		return endpoint.New(t, a.AddrPort())
	}
	a, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return Endpoint{}
	}
	return endpoint.New(t, a)
}

// acceptLoop is a listener's goroutine.
func (s *Service) acceptLoop(l *listener) {
	for {
		conn, err := l.ln.Accept()
		if err != nil {
			s.mu.Lock()
			died := s.listeners[l.ep] == l
			if died {
				delete(s.listeners, l.ep)
			}
			s.mu.Unlock()
			if died {
				l.ln.Close() //nolint:errcheck // it has failed already
				s.remap()
				s.events.push(Event{Type: EventListenerFailed, detail: &detail{endpoint: l.ep, err: fail("accept", PeerID{}, l.ep, err)}})
			}
			return
		}
		from := endpointOf(endpoint.TCP, conn.RemoteAddr()).Addr.Addr()
		if !s.welcomes(from) { // before anything is made or counted for it
			s.refusedBanned.Add(1)
			s.logRefused(refusedLists, from)
			s.knocked(from)
			refuse(conn)
			continue
		}
		if !s.mayEnter(conn) {
			refuse(conn)
			continue
		}
		s.meets(from)
		g := s.halls.enter(conn, s.isHot(conn))
		if g == nil {
			conn.Close() //nolint:errcheck // the service stops
			return
		}
		s.spawn(func() { s.respond(g, l.ep.Transport) })
	}
}

// respond is the goroutine of one accepted connection, until it is a session or
// closed.
func (s *Service) respond(g *guest, t endpoint.Transport) {
	began := time.Now()
	// The exact moment at which we give up says nothing about us.
	patience := s.cfg.HandshakeTimeout - rand.N(s.cfg.HandshakeTimeout/4+1)
	g.conn.SetDeadline(began.Add(patience)) //nolint:errcheck // a closed connection shows in the first read
	var link *secure.Link
	var err error
	how := Accepted
	var own *attempt
	if t == Tracer {
		link, err = s.respondClear(g)
	} else if p := s.punchedFrom(endpointOf(t, g.conn.RemoteAddr()).Addr); p != nil {
		how, own = Punched, p.attempt
		link, err = p.shake(g.conn)
	} else {
		var first []byte
		var was bool
		if first, was, err = s.asked(g.conn); was {
			if err != nil {
				swallow(g.conn)
			}
			g.conn.Close() //nolint:errcheck // it has served
			s.halls.part(g)
			return
		}
		b := &begun{Conn: g.conn, first: first}
		if err == nil {
			link, err = secure.Respond(b, s.accepting)
		} else {
			b.came = uint64(len(first))
		}
		if err == nil {
			link.Conn = g.conn
		}
		s.shaken(g, err, b.came)
	}
	if err == nil {
		admit := func() bool { return s.halls.admit(g) }
		_, err = s.adopt(link, adoption{how: how, began: began, linked: began, endpoint: endpointOf(t, g.conn.RemoteAddr()), attempt: own, admit: admit})
		if how == Accepted {
			s.broken(g, err)
		}
	} else {
		if errors.Is(err, secure.ErrFirstFlight) {
			s.halls.demote(g)
			swallow(g.conn)
		}
		g.conn.Close() //nolint:errcheck // it carries nothing
	}
	s.halls.leave(g)
	if err != nil {
		s.log.Debug("accepted connection gave no session", "from", g.conn.RemoteAddr(), "error", err)
	}
}

// swallow reads until the deadline or the end, so that how long we listen does
// not tell at which byte a stranger's first flight went wrong.
func swallow(r io.Reader) {
	var sink [512]byte
	for {
		if _, err := r.Read(sink[:]); err != nil {
			return
		}
	}
}

// guest is an accepted connection that has not yet become a session.
type guest struct {
	conn     net.Conn
	from     netip.Prefix
	at       *list.Element // nil when it has left
	hot      bool          // it is among the first to give way
	evicted  bool
	admitted bool
}

// waitingRoom bounds the guests. When it is full the one who has waited longest
// leaves: honest peers need a moment, those who never speak have all the time. Before
// others leave those who come from where much has failed, or have failed themselves.
type waitingRoom struct {
	limit, perAddress int

	mu      sync.Mutex
	guests  list.List // of *guest, the oldest first
	hot     list.List // likewise, of those that give way first
	from    map[netip.Prefix]int
	closed  bool
	failed  uint64
	evicted uint64
}

// prefixOf is what counts as one address: an IPv4 address or an IPv6 /64.
func prefixOf(addr net.Addr) netip.Prefix {
	ip := endpointOf(endpoint.TCP, addr).Addr.Addr()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// enter takes a guest in, and shows others out to make room. It returns nil
// when the room is closed.
func (w *waitingRoom) enter(conn net.Conn, hot bool) *guest {
	g := &guest{conn: conn, from: prefixOf(conn.RemoteAddr()), hot: hot}
	var out []*guest
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	if w.from == nil {
		w.from = make(map[netip.Prefix]int)
	}
	if w.from[g.from] >= w.perAddress {
		if old := w.oldestFrom(g.from); old != nil {
			out = append(out, old)
		}
	} else if w.guests.Len()+w.hot.Len() >= w.limit {
		l := &w.hot
		if l.Len() == 0 {
			l = &w.guests
		}
		out = append(out, l.Front().Value.(*guest))
	}
	for _, old := range out {
		w.drop(old)
		old.evicted = true
		w.evicted++
	}
	g.at = w.list(g).PushBack(g)
	w.from[g.from]++
	w.mu.Unlock()
	for _, old := range out {
		old.conn.Close() //nolint:errcheck // its goroutine notices
	}
	return g
}

// list returns where a guest is. mu is held.
func (w *waitingRoom) list(g *guest) *list.List {
	if g.hot {
		return &w.hot
	}
	return &w.guests
}

// oldestFrom returns who is to give way to another one from the same address. mu is
// held.
func (w *waitingRoom) oldestFrom(from netip.Prefix) *guest {
	for _, l := range []*list.List{&w.hot, &w.guests} {
		for e := l.Front(); e != nil; e = e.Next() {
			if g := e.Value.(*guest); g.from == from {
				return g
			}
		}
	}
	return nil
}

// demote has a guest who has failed give way first.
func (w *waitingRoom) demote(g *guest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g.at != nil && !g.hot {
		w.guests.Remove(g.at)
		g.hot = true
		g.at = w.hot.PushBack(g)
	}
}

// gone reports whether a guest was shown out.
func (w *waitingRoom) gone(g *guest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return g.evicted || w.closed
}

// drop takes a guest out of the lists. mu is held.
func (w *waitingRoom) drop(g *guest) {
	if g.at == nil {
		return
	}
	w.list(g).Remove(g.at)
	g.at = nil
	if w.from[g.from]--; w.from[g.from] == 0 {
		delete(w.from, g.from)
	}
}

// admit takes a guest out because it becomes a session. It reports false when
// the guest was shown out before.
func (w *waitingRoom) admit(g *guest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g.evicted || w.closed {
		return false
	}
	w.drop(g)
	g.admitted = true
	return true
}

// part is for a guest who wanted no session.
func (w *waitingRoom) part(g *guest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(g)
}

// leave is called when the handshake is over.
func (w *waitingRoom) leave(g *guest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(g)
	if !g.admitted {
		w.failed++
	}
}

// show shows those out for whom a function holds. It is called with mu held.
func (w *waitingRoom) show(which func(*guest) bool) {
	w.mu.Lock()
	var out []*guest
	for e := w.guests.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*guest); which(g) {
			out = append(out, g)
		}
	}
	w.mu.Unlock()
	for _, g := range out {
		g.conn.Close() //nolint:errcheck // its goroutine notices
	}
}

// close shows everybody out.
func (w *waitingRoom) close() {
	w.mu.Lock()
	w.closed = true
	var out []*guest
	for _, l := range []*list.List{&w.guests, &w.hot} {
		for e := l.Front(); e != nil; e = e.Next() {
			out = append(out, e.Value.(*guest))
		}
	}
	w.mu.Unlock()
	for _, g := range out {
		g.conn.Close() //nolint:errcheck // its goroutine notices
	}
}

// counts returns guests now, failed and evicted ever.
func (w *waitingRoom) counts() (now int, failed, evicted uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.guests.Len() + w.hot.Len(), w.failed, w.evicted
}
