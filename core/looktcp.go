package crust

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// What the NAT does to TCP. Links are dialled from random ports, because two ends
// can have one connection only and are not free again at once; so what peers say of
// their links shows whether the NAT keeps ports, and nothing about the listener's,
// from which NATs are opened. For that some peers are asked over connections from the
// listener's port that carry one echo each. Seen from several peers, one port shows a
// mapping that depends on nothing; several, in the order of the connections, how the
// NAT chooses them.
//
// A look costs at most lookWidth connections, of some 600 bytes each. Where the NAT is
// known to keep ports none is made before a punch.

const (
	// lookWidth is how many peers are asked at once, lookStagger how long after one
	// another, so that the mappings are made in that order.
	// lookLeast is how many show how ports are chosen.
	lookWidth   = 4
	lookLeast   = 3
	lookStagger = 2 * time.Millisecond
	// lookPatience bounds a look: it stands in the way of letters.
	lookPatience = 800 * time.Millisecond
	// lookHold is how long connections stay whose mapping is the one that a punch needs:
	// until openers have passed by it.
	lookHold = 3 * time.Second
	// lookFresh is how long a peer that could not be asked is not asked again.
	lookFresh = 10 * time.Minute
	// lookRest is the least time between two looks that nobody waits for, and after the
	// last peer that might be asked has come.
	lookRest = time.Second
	// answerHold is how long the other side may take to close.
	answerHold = 5 * time.Second
)

// look is what is under way. watch.mu guards it.
type look struct {
	running chan struct{} // closed at its end; nil when there is none
	until   time.Time     // connections from the listener's port stay so long
	soon    bool          // one that nobody waits for is to begin
}

// findOut measures what must be known of our NATs before a letter is written.
func (s *Service) findOut() {
	over := make(chan struct{})
	s.spawn(func() {
		defer close(over)
		s.lookAtTCP()
	})
	s.sample()
	select {
	case <-over:
	case <-s.ctx.Done():
	}
}

// ofListener makes of what is known of TCP the facts of the NAT before the
// listener. It takes mu, within which others take watch.mu.
func (s *Service) ofListener(v observe.Verdict) wire.NAT {
	n := v.NAT
	l := s.listenPort(n.External.Addr())
	switch {
	case !n.External.IsValid() || !l.IsValid():
	case n.Ports == wire.PortsPreserving: // also the listener's
		n.External = netip.AddrPortFrom(n.External.Addr(), l.Port())
		if n.Mapping == wire.DependsUnknown {
			n.Mapping = wire.EndpointIndependent
		}
	case n.Mapping == wire.EndpointIndependent && v.Local.Port() != l.Port(): // of a listener that has gone
		n.Mapping = wire.DependsUnknown
	}
	return n
}

// lookAtTCP asks peers about the listener's port, if more must be known of it before a
// letter is written. Of several callers one looks, and all wait for it.
func (s *Service) lookAtTCP() {
	s.watch.mu.Lock()
	running := s.watch.look.running
	s.watch.mu.Unlock()
	if running == nil {
		s.lookOnce(s.lookFrom)
		return
	}
	select {
	case <-running:
	case <-s.ctx.Done():
	}
}

// lookOnce looks at TCP unless somebody does. from tells from which port, given the
// listener's, and for how long connections are held; or that nothing is wanted.
func (s *Service) lookOnce(from func(netip.AddrPort) (netip.AddrPort, time.Duration, bool)) {
	s.watch.mu.Lock()
	if s.watch.look.running != nil {
		s.watch.mu.Unlock()
		return
	}
	running := make(chan struct{})
	s.watch.look.running = running
	s.watch.mu.Unlock()
	defer func() {
		s.watch.mu.Lock()
		defer s.watch.mu.Unlock()
		s.watch.look.running = nil
		close(running)
	}()
	l := s.listenPort(netip.IPv4Unspecified())
	if !l.IsValid() {
		return
	}
	if local, hold, wanted := from(l); wanted {
		s.lookNow(local, hold)
	}
}

// lookFrom tells what must be looked at before a letter is written.
func (s *Service) lookFrom(listener netip.AddrPort) (local netip.AddrPort, hold time.Duration, wanted bool) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	now := time.Now()
	v := s.watch.machine.Verdict(observe.Flow{Proto: observe.TCP}, now)
	mapped := slices.ContainsFunc(v.External, func(e observe.External) bool { return e.Mapped })
	switch n := v.NAT; {
	case n.Ports == wire.PortsPreserving || mapped:
		return local, 0, false
	case n.Mapping < wire.AddressDependent: // not known, or the listener's must be known, and live
		same := v.Local.Port() == listener.Port() && n.Mapping == wire.EndpointIndependent
		return listener, lookHold, !same || s.watch.look.until.Sub(now) < lookHold/2
	case n.Ports == wire.PortsSequential: // new ports make new mappings
		return local, 0, true
	case n.Ports == wire.PortsUnknown: // fewer do not show it
		return local, 0, s.lookable() >= lookLeast
	}
	return local, 0, false
}

// lookSoon has a look at TCP begin when all peers have come that come together, if
// nothing is known of its mapping. Nobody waits for it.
func (s *Service) lookSoon() {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if s.watch.look.soon {
		return
	}
	s.watch.look.soon = true
	s.spawn(func() {
		s.rest(s.ctx, lookRest)
		s.watch.mu.Lock()
		s.watch.look.soon = false
		v := s.watch.machine.Verdict(observe.Flow{Proto: observe.TCP}, time.Now())
		s.watch.mu.Unlock()
		if v.NAT.Mapping != wire.DependsUnknown || s.ctx.Err() != nil {
			return
		}
		s.lookOnce(func(l netip.AddrPort) (netip.AddrPort, time.Duration, bool) { return l, 0, len(s.lookers()) > 1 })
	})
}

// lookable returns how many peers may be asked. watch.mu is held.
func (s *Service) lookable() (n int) {
	for _, a := range s.watch.asks {
		if a.looks() {
			n++
		}
	}
	return n
}

// looks reports whether a peer may be asked over TCP.
func (a *asker) looks() bool {
	return a.dialed && a.stream.Port() != 0 && a.stream.Addr().Is4() && time.Since(a.deaf) > lookFresh
}

// lookers returns peers that may be asked over TCP, each at another address.
func (s *Service) lookers() (list []*asker) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	for _, a := range s.watch.asks {
		again := slices.ContainsFunc(list, func(o *asker) bool { return o.stream.Addr() == a.stream.Addr() })
		if a.looks() && !again && len(list) < lookWidth {
			list = append(list, a)
		}
	}
	return list
}

// lookNow asks some peers, from one port or, when that is 0, from new ones.
func (s *Service) lookNow(local netip.AddrPort, hold time.Duration) {
	lookers := s.lookers()
	if local.Port() == 0 && len(lookers) < 2 {
		return
	}
	votes := make(chan observe.Vote, len(lookers))
	for i, a := range lookers {
		if i > 0 && !s.rest(s.ctx, lookStagger) {
			return
		}
		s.spawn(func() { s.lookThrough(a, local, hold, votes) })
	}
	var seen []observe.Vote
	for range lookers {
		if v := <-votes; v.Seen.IsValid() {
			seen = append(seen, v)
		}
	}
	slices.SortFunc(seen, func(a, b observe.Vote) int { return a.At.Compare(b.At) })
	now := time.Now()
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	s.watch.machine.Sample(seen, now)
	if hold > 0 && len(seen) > 0 {
		s.watch.look.until = now.Add(hold)
	}
}

// lookThrough asks one peer, and gives exactly one vote, which is zero when nothing
// came. The connection goes without a trace.
func (s *Service) lookThrough(a *asker, local netip.AddrPort, hold time.Duration, votes chan<- observe.Vote) {
	ctx, stop := context.WithTimeout(s.ctx, lookPatience)
	defer stop()
	v, conn, err := s.askTCP(ctx, a, local)
	if err != nil {
		s.log.Debug("a peer could not be asked about TCP", "at", a.stream, "error", err)
		if s.ctx.Err() == nil {
			s.watch.mu.Lock()
			a.deaf = time.Now()
			s.watch.mu.Unlock()
		}
	}
	votes <- v
	if conn == nil {
		return
	}
	if hold > 0 && err == nil {
		s.rest(s.ctx, hold)
	}
	if c, ok := conn.(interface{ SetLinger(int) error }); ok {
		c.SetLinger(0) //nolint:errcheck // then the two ends cannot be used for a while
	}
	conn.Close() //nolint:errcheck // it has served
}

// errNoAnswer is why an ask was in vain.
var errNoAnswer = errors.New("the answer does not open")

// askTCP asks a peer what it sees of a new connection. The connection may be there
// though the answer is not.
func (s *Service) askTCP(ctx context.Context, a *asker, local netip.AddrPort) (observe.Vote, net.Conn, error) {
	s.watch.mu.Lock()
	at := a.stream
	s.watch.mu.Unlock()
	return s.askTCPAt(ctx, a, at, local)
}

// askTCPAt asks a peer at a port of its address.
func (s *Service) askTCPAt(ctx context.Context, a *asker, at, local netip.AddrPort) (observe.Vote, net.Conn, error) {
	s.watch.mu.Lock()
	tag := a.theirs
	s.watch.mu.Unlock()
	if local.Port() != 0 && local.Port() == s.listenPort(at.Addr()).Port() {
		s.meets(at.Addr())
	}
	began := time.Now()
	conn, err := s.dialTCP(ctx, local, at)
	if err != nil {
		return observe.Vote{}, nil, err
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline) //nolint:errcheck // a closed connection shows in the write
	release := closeWith(s.ctx, conn)
	defer release()
	d, err := a.key.Seal(binary.BigEndian.AppendUint64(nil, tag), wire.Probe{Kind: wire.ProbeAsk})
	if err == nil {
		_, err = conn.Write(d)
	}
	var head [wire.EchoTag]byte
	if err == nil {
		_, err = io.ReadFull(conn, head[:])
	}
	if err == nil && binary.BigEndian.Uint64(head[:]) != a.ours {
		err = errNoAnswer
	}
	if err != nil {
		return observe.Vote{}, conn, err
	}
	p, _, err := a.readProbe(conn)
	if err == nil && (p.Kind != wire.ProbeAnswer || !p.Seen.IsValid()) {
		err = errNoAnswer
	}
	if err != nil {
		return observe.Vote{}, conn, err
	}
	from := endpointOf(endpoint.TCP, conn.LocalAddr()).Addr
	return observe.Vote{Proto: observe.TCP, Local: from, Seen: p.Seen, Observer: at, Outbound: true, At: began}, conn, nil
}

// readProbe reads a probe from a stream, which does not tell how long it is, and
// returns it with its nonce.
func (a *asker) readProbe(r io.Reader) (p wire.Probe, nonce []byte, err error) {
	buf := make([]byte, maxEcho)
	for n := 0; n < len(buf); {
		m, err := r.Read(buf[n:])
		if n += m; m > 0 {
			if p, err := a.key.Open(buf[:n]); err == nil {
				return p, buf[:16], nil
			}
		}
		if err != nil {
			return p, nonce, err
		}
	}
	return p, nonce, errNoAnswer
}

// maxEcho is the size of the longest sealed probe.
const maxEcho = 160

// asked answers an accepted connection that begins with an ask, and waits until the
// other side has closed it; or takes one that we have asked for (askReach). Otherwise it returns what it has read of the connection.
// An error with was means that the ask deserves no answer.
func (s *Service) asked(conn net.Conn) (first []byte, was bool, err error) {
	w := &s.watch
	w.mu.Lock()
	none := len(w.asks) == 0
	w.mu.Unlock()
	if none {
		return nil, false, nil
	}
	first = make([]byte, wire.EchoTag)
	n, err := io.ReadFull(conn, first)
	if err != nil {
		return first[:n], false, err
	}
	w.mu.Lock()
	a := w.asks[binary.BigEndian.Uint64(first)]
	w.mu.Unlock()
	if a == nil {
		return first, false, nil
	}
	p, nonce, err := a.readProbe(conn)
	w.mu.Lock()
	tag := a.theirs
	w.mu.Unlock()
	seen := endpointOf(endpoint.TCP, conn.RemoteAddr()).Addr
	switch {
	case err == nil && p.Kind == wire.ProbeReach && s.reached(a, p.Nonce, seen):
		return nil, true, nil
	case err != nil || p.Kind != wire.ProbeAsk || tag == 0 || !s.affords(a, nonce):
		return nil, true, errors.Join(errNoAnswer, err)
	}
	d, err := a.key.Seal(binary.BigEndian.AppendUint64(nil, tag), wire.Probe{Kind: wire.ProbeAnswer, Seen: seen})
	if err != nil {
		return nil, true, err
	}
	conn.SetDeadline(time.Now().Add(answerHold)) //nolint:errcheck // a closed connection shows in the write
	if _, err := conn.Write(d); err != nil {
		return nil, true, err
	}
	io.Copy(io.Discard, io.LimitReader(conn, maxEcho)) //nolint:errcheck // only the waiting counts
	return nil, true, nil
}
