package crust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// attempt is one Connect or Bootstrap in flight.
type attempt struct {
	// constant, but for endpoints that come by a letter: those are set once, by the
	// attempt's goroutine under Service.mu
	token     uint64
	endpoints []Endpoint
	mapped    []Endpoint       // which of these a router passes on
	bootstrap bool             // with whoever answers
	except    map[Contact]bool // but these
	began     time.Time
	within    time.Duration // of it
	order     uint64
	bare      bool          // an endpoint, not an info
	meets     bool          // the endpoints come by a letter
	clear     bool          // it dials in clear, and nothing else does
	pays      *account      // for what goes to endpoints that have come so; nil without any
	local     bool          // and who has brought them is on this machine
	quiet     bool          // the program knows nothing of it
	kept      bool          // the peer is of a group; it is tried again anyway
	punch     *punching     // with the peer; set before the goroutine needs it
	info      bool          // the endpoints are of an info: there may be ways beside them
	facts     infoFacts     // of that
	gone      chan struct{} // closed when it is resolved; nil when nobody waits
	ctx       context.Context
	cancel    context.CancelCauseFunc

	// guarded by Service.mu
	peer     PeerID   // zero until known
	first    [][]byte // messages that go first in the session; nil when there are none
	carrier  *peer    // the session that has them; nil for none
	resolved bool     // its final event is out
	why      error    // of its failure
}

// duplicateRetry is how long the link that the peer has chosen may take to show.
const duplicateRetry = time.Second

// connect starts an attempt.
func (s *Service) connect(a *attempt) error {
	if a.peer == s.ID() {
		return &Error{Op: "connect", Peer: a.peer, Code: CodeSelf, Err: errSelf}
	}
	at := netip.Addr{}
	if a.bare {
		at = a.endpoints[0].Addr.Addr()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.bans(a.peer, at); e != nil {
		return bannedError("connect", a.peer, Endpoint{}, e)
	}
	if err := s.register(a, s.cfg.ConnectTimeout, s.runConnect); err != nil {
		return err
	}
	s.groups.asked(time.Now(), a.peer)
	return nil
}

// register puts an attempt into the table and starts its goroutine, both before
// the service can begin to stop. mu is held.
func (s *Service) register(a *attempt, timeout time.Duration, run func(*attempt)) error {
	switch {
	case s.stopping:
		return &Error{Op: "connect", Peer: a.peer, Code: CodeClosed}
	case len(s.attempts) >= s.cfg.MaxConnects:
		return &Error{Op: "connect", Peer: a.peer, Code: CodeLimit, Err: fmt.Errorf("%d connects are in flight, MaxConnects allows no more", len(s.attempts))}
	}
	a.began, a.within = time.Now(), timeout
	s.attemptSeq++
	a.order = s.attemptSeq
	ctx, stop := context.WithTimeoutCause(s.ctx, timeout, CodeTimeout)
	var cancel context.CancelCauseFunc
	a.ctx, cancel = context.WithCancelCause(ctx)
	a.cancel = func(cause error) { cancel(cause); stop() }
	s.attempts[a] = struct{}{}
	s.logBegun(a)
	s.spawn(func() { run(a) })
	return nil
}

// resolve marks an attempt whose final event is out. mu is held.
func (s *Service) resolve(a *attempt) {
	a.resolved = true
	if a.gone != nil {
		close(a.gone)
	}
	delete(s.attempts, a)
	a.cancel(errResolved)
	s.uncarry(a)
}

// errResolved ends what an attempt still does after its final event.
var errResolved = errors.New("resolved")

// finish puts the final event of an attempt out, unless it has had one.
func (s *Service) finish(a *attempt, e Event) {
	s.mu.Lock()
	if a.resolved {
		s.mu.Unlock()
		return
	}
	a.why = e.Err()
	s.resolve(a)
	if a.quiet {
		s.mu.Unlock()
		return
	}
	if e.Type == EventConnectFailed || e.Type == EventBootstrapFailed {
		s.failed++
	}
	if s.bootstrap == a {
		s.bootstrap = nil
	}
	e.Token = a.token
	call := s.events.add(e)
	s.mu.Unlock()
	call()
}

// already ends an attempt whose peer has a session, and reports false when that
// session has ended meanwhile: its loss must not come before. Where the attempt
// would have dialled is worth knowing when the link breaks.
func (s *Service) already(a *attempt, p *peer) bool {
	for {
		s.mu.Lock()
		if done := a.resolved; done || s.peers[p.id] != p {
			s.mu.Unlock()
			return done
		}
		if s.feed(p, a) {
			break
		}
		s.mu.Unlock()
		if !s.rest(a.ctx, feedPause) {
			s.connectFailed(a, errNoRoom)
			return true
		}
	}
	s.resolve(a)
	a.tells(p)
	s.seek(p, true)
	call := func() {}
	if !a.quiet {
		call = s.events.add(Event{Type: EventAlreadyConnected, Peer: p.id, Token: a.token})
	}
	s.mu.Unlock()
	call()
	return true
}

// joined returns the attempts that a new session answers, own first,
// then in the order of their beginning. Bootstraps have their own final event, and a
// session in clear answers nobody who did not ask for that. mu is held.
func (s *Service) joined(p *peer, own *attempt) (list []*attempt) {
	for a := range s.attempts {
		if !a.bootstrap && (a == own || a.peer == p.id) && (a.clear || !p.inClear()) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b *attempt) int {
		switch {
		case a == own || b != own && a.order < b.order:
			return -1
		}
		return 1
	})
	return list
}

// runConnect is the goroutine of one Connect.
func (s *Service) runConnect(a *attempt) {
	relaying := false
	var aside *beside
	var known *knownDial
	if a.info && !a.clear {
		aside = s.goBeside(a)
	}
	for over, waited := 0, false; ; {
		if p := s.settled(a); p != nil {
			if s.already(a, p) {
				return
			}
			continue
		}
		if a.ctx.Err() != nil {
			s.connectFailed(a, context.Cause(a.ctx))
			return
		}
		if a.meets && a.endpoints == nil {
			if !relaying {
				relaying = true
				s.spawn(func() { s.meetByRelay(a) })
				known = s.dialKnown(a)
			}
			if err := s.meet(a); err != nil {
				if err, known = s.failedBoth(a, known, err), nil; s.settled(a) != nil {
					continue
				}
				s.connectFailed(a, err)
				return
			}
			continue
		}
		if waited {
			s.connectFailed(a, errClosedNATs)
			return
		}
		dialled := time.Now()
		link, step, err := s.race(a, a.endpoints)
		if err != nil && (a.meets || a.quiet && !a.info) && !waited { // the peer dials as well, and both punch
			waited = true
			s.awaitPunch(a)
			continue
		}
		if err != nil && aside != nil {
			err = s.besides(a, aside, err)
		}
		if err != nil {
			if s.settled(a) == nil {
				s.connectFailed(a, err)
				return
			}
			continue
		}
		s.mu.Lock()
		if a.peer.IsZero() { // else others read it
			a.peer = link.Remote.Peer
		}
		s.mu.Unlock()
		s.yield(a, step)
		if p := s.settled(a); p != nil && !s.improves(p, Dialed, step) { // while we dialled, the peer did
			link.Conn.Close() //nolint:errcheck // it carries nothing
			continue
		}
		p, err := s.adopt(link, adoption{how: Dialed, began: a.began, linked: dialled, endpoint: step, attempt: a, within: a.ctx})
		switch {
		case err == nil:
			if s.already(a, p) { // unless insert has resolved it
				return
			}
		case errors.Is(err, errDuplicate):
			s.awaitOther(a)
		case isLate(err): // the session that the link could have carried on, or came with, has ended meanwhile
			s.rest(a.ctx, redialPause(over))
			over++
		default:
			if s.settled(a) == nil {
				s.connectFailed(a, err)
				return
			}
		}
	}
}

// isLate reports whether a link was of no use because a session had ended.
func isLate(err error) bool {
	var r refusal
	return errors.Is(err, session.ErrOver) || errors.As(err, &r) && (r.reason == wire.ReasonOver || r.reason == wire.ReasonDuplicate)
}

// settled returns the session with the peer of an attempt that is live and has a
// link, nil when there is none. One that is being closed is waited for.
func (s *Service) settled(a *attempt) *peer {
	for {
		s.mu.Lock()
		p := s.peers[a.peer]
		s.mu.Unlock()
		if p == nil {
			return nil
		}
		if p.sess.Live() {
			if _, suspended := p.sess.Suspended(); suspended || !a.clear && s.isClear(p) { // whatever is dialled may carry it on
				return nil
			}
			return p
		}
		select {
		case <-p.sess.Done():
		case <-a.ctx.Done():
			return nil
		}
	}
}

// awaitOther waits until the link that the peer has chosen has become a session,
// which resolves the attempt, but not long.
func (s *Service) awaitOther(a *attempt) {
	timer := time.NewTimer(duplicateRetry)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.ctx.Done():
	}
}

// ended returns why an attempt must end, nil when it need not. The deadline of a
// link in adoption is the attempt's own, and may show before that of ctx does.
func (a *attempt) ended() error {
	if d, ok := a.ctx.Deadline(); ok && a.ctx.Err() == nil && !time.Now().Before(d) {
		return CodeTimeout
	}
	return context.Cause(a.ctx)
}

// connectFailed puts the failure of an attempt out.
func (s *Service) connectFailed(a *attempt, err error) {
	if cause := a.ended(); cause != nil {
		var why *Error
		switch {
		case errors.As(cause, &why) && why.Code == CodeBanned:
			err = why
		case errors.Is(cause, CodeTimeout):
			err = &Error{Op: "connect", Peer: a.peer, Code: CodeTimeout, Err: joinCause("no answer within "+a.within.String(), err)}
		default:
			err = &Error{Op: "connect", Peer: a.peer, Code: CodeCanceled}
		}
	}
	ep := Endpoint{}
	if len(a.endpoints) == 1 {
		ep = a.endpoints[0]
	}
	s.finish(a, Event{Type: EventConnectFailed, Peer: a.peer, detail: &detail{endpoint: ep, err: s.linkError("connect", a.peer, ep, err)}})
}

// joinCause adds what is known about the cause to a sentence.
func joinCause(text string, err error) error {
	if all := sentences(nil); errors.As(err, &all) {
		return fmt.Errorf("%s: %w", text, all)
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, CodeTimeout) {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %w", text, err)
}

// sentences joins errors into one line.
type sentences []error

func (s sentences) Error() string {
	parts := make([]string, len(s))
	for i, err := range s {
		parts[i] = err.Error()
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns the errors.
func (s sentences) Unwrap() []error { return s }

// race dials endpoints until one has proved to be the peer.
func (s *Service) race(a *attempt, endpoints []Endpoint) (*secure.Link, Endpoint, error) {
	if endpoints = ofKind(endpoints, a.clear); a.clear {
		return s.raceClear(a, endpoints)
	}
	if a.bare && len(endpoints) > 0 { // there is nothing to plan, nor to race
		link, err := s.try(a.ctx, endpoints[0], a.peer)
		return link, endpoints[0], err
	}
	ours, err := s.network.Addrs()
	if err != nil {
		s.log.Warn("cannot list the addresses of this machine", "error", err)
	}
	steps := moderate(dial.Plan(endpoints, ours))
	if steps = slices.DeleteFunc(steps, func(step dial.Step) bool { return s.barredAt(step.Endpoint.Addr.Addr()) }); len(steps) == 0 && len(endpoints) > 0 {
		if e := s.bans(a.peer, endpoints[0].Addr.Addr()); e != nil {
			return nil, Endpoint{}, bannedError("connect", a.peer, Endpoint{}, e)
		}
	}
	if a.pays != nil {
		steps = s.knocks(steps, a.local)
	}
	if len(steps) == 0 {
		return nil, Endpoint{}, &Error{Op: "connect", Peer: a.peer, Code: CodeNoEndpoint, Err: errors.New("the peer has told no endpoint that can be reached from here")}
	}
	expect := a.peer
	link, step, err := dial.Race(a.ctx, steps,
		func(ctx context.Context, step dial.Step) (*secure.Link, error) {
			if a.pays != nil {
				return s.knock(ctx, a.pays, step.Endpoint, expect)
			}
			return s.try(ctx, step.Endpoint, expect)
		},
		func(link *secure.Link) { link.Conn.Close() })
	if err != nil {
		return nil, Endpoint{}, s.raceError("connect", expect, err)
	}
	return link, step.Endpoint, nil
}

// telling is the order in which the codes of several causes are taken for the
// whole: who answered wrongly says more than who did not answer.
var telling = []Code{CodeWrongPeer, CodeSelf, CodeHandshake, CodeNetworkName}

// raceError dresses the error of a race: one sentence with the cause for each
// endpoint, and the code that tells most.
func (s *Service) raceError(op string, id PeerID, err error) error {
	var r *dial.RaceError
	if !errors.As(err, &r) || len(r.Errs) == 0 {
		return s.linkError(op, id, Endpoint{}, err)
	}
	e := &Error{Op: op, Peer: id, Err: r}
	rank := len(telling)
	for i, cause := range r.Errs {
		var broke *dial.PanicError
		if errors.As(cause, &broke) {
			s.panicked(broke.Value, broke.Stack)
		}
		code := CodeOf(cause)
		if k := slices.Index(telling, code); k >= 0 && k < rank {
			e.Code, rank = code, k
		} else if e.Code == CodeOK {
			e.Code = code
		}
		var inner *Error
		if errors.As(cause, &inner) && inner.Err != nil {
			r.Errs[i] = inner.Err
		}
	}
	if len(r.Errs) == 1 && r.GaveUp == nil {
		e.Endpoint, e.Err = r.Steps[0].Endpoint, r.Errs[0]
	}
	return e
}

// hurry bounds the adoption of a link that we have dialled: by HandshakeTimeout,
// by the attempt's own deadline and, once the service stops, by CloseTimeout.
// The returned function ends that.
func (s *Service) hurry(link *secure.Link, within context.Context) func() {
	deadline := time.Now().Add(s.cfg.HandshakeTimeout)
	if d, ok := within.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	link.Conn.SetDeadline(deadline) //nolint:errcheck // a closed connection shows in the first write
	stop := context.AfterFunc(s.ctx, func() {
		if d := time.Now().Add(s.cfg.CloseTimeout); d.Before(deadline) {
			link.Conn.SetDeadline(d) //nolint:errcheck // a closed connection shows in the next read
		}
	})
	return func() { stop() }
}

// try dials one endpoint and shakes hands, up to the point where we know the
// peer and it does not know us.
func (s *Service) try(ctx context.Context, ep Endpoint, expect PeerID) (link *secure.Link, err error) {
	began := time.Now()
	defer func() { s.logAttempt(ep, expect, began, err) }()
	if err := checkTransport(ep); err != nil {
		return nil, err
	}
	if !s.allows(Dialed, Mapped) {
		return nil, s.notAllowed(expect, ep)
	}
	ctx, end, err := s.mayDial(ctx, ep, expect)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	if ep.Transport == UTP {
		link, err := s.dialUDP(ctx, ep, expect)
		if err = end(err); err != nil {
			return nil, s.linkError("connect", expect, ep, err)
		}
		return link, nil
	}
	conn, err := s.network.Dial(ctx, netip.AddrPort{}, ep.Addr)
	if err != nil {
		return nil, s.linkError("connect", expect, ep, end(err))
	}
	link, err = s.shake(ctx, conn, ep, expect)
	return link, end(err)
}

// shake shakes hands over a connection that we have made, until ctx ends, which has
// a deadline. On an error the connection is closed.
func (s *Service) shake(ctx context.Context, conn net.Conn, ep Endpoint, expect PeerID) (*secure.Link, error) {
	return s.shakeBy(ctx, conn, ep, expect, secure.Initiate)
}

// shakeBy is shake by a certain handshake.
func (s *Service) shakeBy(ctx context.Context, conn net.Conn, ep Endpoint, expect PeerID,
	initiate func(net.Conn, *secure.Config, PeerID) (*secure.Link, error),
) (*secure.Link, error) {
	stop := closeWith(ctx, conn)
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline) //nolint:errcheck // a closed connection shows in the first write
	link, err := initiate(conn, s.secure, expect)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close() //nolint:errcheck // it has failed already
		return nil, s.linkError("connect", expect, ep, err)
	}
	return link, nil
}

// closeWith closes a connection, or a listener, when ctx ends, unless the returned
// function is called before, which then returns true.
func closeWith(ctx context.Context, conn io.Closer) (stop func() bool) {
	return context.AfterFunc(ctx, func() { conn.Close() })
}

var _ session.Owner = (*owner)(nil)
