package crust

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A bootstrap tries everybody of whom any source tells, and keeps the first with whom
// a session stands. Contacts that do not answer, that accept a connection and say
// nothing, or that prove who they are and then refuse or say nothing hold nobody up:
// all are tried in one race, in the order of their delays, and while the winner of one
// race makes us wait the others race on.

// source tells whom a bootstrap or a group may try.
type source struct {
	// list returns contacts, the best first, and what is closed when there are more: nil
	// when that is not told.
	list   func(*Service) ([]Contact, <-chan struct{})
	most   int // of its contacts that are tried
	atOnce int // of these that are tried at once, and after each leadEvery as many more
	// at returns where one peer is; nil: that is looked up in list.
	at func(*Service, PeerID) []Endpoint
}

// sources are all of them. A contact of several is tried at its first time.
var sources = []source{
	{list: func(s *Service) ([]Contact, <-chan struct{}) { return s.cfg.Contacts, nil }, most: 1024, atOnce: 64},
	{list: func(s *Service) ([]Contact, <-chan struct{}) { return s.cached(), nil }, most: maxCached, atOnce: 16},
	{list: (*Service).heardContacts, most: 256, atOnce: 16},
	{list: func(s *Service) ([]Contact, <-chan struct{}) { return s.gossiped(), nil }, most: 64, atOnce: 16, at: (*Service).knownAt},
}

const (
	// leadEvery is the time between two lots of one source, unless failures make room
	// before.
	leadEvery = 100 * time.Millisecond
	// ventureLeast and ventureMost bound how long the winner of a race has to become a
	// session before the others race on: twice as long as its handshake took.
	ventureLeast = 50 * time.Millisecond
	ventureMost  = 500 * time.Millisecond
	// venturesAtOnce bounds the winners that are waited for, and the races.
	venturesAtOnce = 32
	// newsPatience is how long a bootstrap waits to hear of somebody when nobody is known
	// who answers, where a source may still tell.
	newsPatience = 2 * time.Second
)

// lead is a contact that is tried, and when.
type lead struct {
	Contact
	delay time.Duration
}

// venture is a search for a session with any of many contacts.
type venture struct {
	op       string
	began    time.Time
	contacts []Contact                // beside those of the sources
	skip     func(Contact) bool       // who is not tried; nil: nobody
	fits     func(*secure.Link) error // whether who has answered is wanted; nil: everybody is
	patience time.Duration            // for news, when nobody answers

	leads    []lead // who is to be tried, and is not being tried
	seen     map[Contact]bool
	news     <-chan struct{} // closed when there is somebody new
	failures []error
	ours     []error // why our own endpoints are left out
}

// look adds whom the sources tell of by now: not our own endpoints, nor who is
// blacklisted.
func (s *Service) look(v *venture) {
	if v.seen == nil {
		v.seen = make(map[Contact]bool)
	}
	v.news = nil
	own := s.own()
	for i, from := range sources {
		contacts, news := from.list(s)
		if news != nil {
			v.news = news
		}
		if i == 0 {
			contacts = slices.Concat(v.contacts, contacts)
		}
		n := 0
		for _, c := range contacts {
			switch {
			case n == from.most || v.seen[c]:
			case own[c.Endpoint] || c.Peer == s.ID():
				if v.seen[c] = true; i == 0 {
					v.ours = append(v.ours, &Error{Op: v.op, Endpoint: c.Endpoint, Code: CodeSelf, Err: errSelf})
				}
			case s.barred(c) || v.skip != nil && v.skip(c):
			default:
				v.seen[c] = true
				v.leads = append(v.leads, lead{c, time.Duration(n/from.atOnce) * leadEvery})
				n++
			}
		}
	}
}

// whereIs returns where the sources say that one peer is.
func (s *Service) whereIs(id PeerID) (list []Endpoint) {
	for _, from := range sources {
		if from.at != nil {
			list = append(list, from.at(s, id)...)
			continue
		}
		contacts, _ := from.list(s)
		for _, c := range contacts {
			if c.Peer == id && checkDialable(c.Endpoint) == nil {
				list = append(list, c.Endpoint)
			}
		}
	}
	return list
}

// gossiped returns some of those that gossip has told of and that are not connected.
func (s *Service) gossiped() (list []Contact) {
	for _, c := range s.pickKnown(64, func(c wire.Contact) bool { return s.find(c.Peer) != nil }) {
		for _, ep := range c.Endpoints {
			list = append(list, Contact{ep, c.Peer})
		}
	}
	return list
}

// own returns where this service itself can be reached.
func (s *Service) own() map[Endpoint]bool {
	addrs, err := s.network.Addrs()
	if err != nil {
		s.log.Warn("cannot list the addresses of this machine", "error", err)
	}
	own := make(map[Endpoint]bool)
	for _, ep := range s.mapped() {
		own[ep] = true
	}
	for _, l := range s.Listeners() {
		for _, ep := range reachable(l, addrs) {
			own[ep] = true
		}
	}
	return own
}

// contactLink is what one contact led to.
type contactLink struct {
	link    *secure.Link
	contact Contact
	dialled time.Time
}

// reached is what came of a contact.
type reached struct {
	contactLink
	p    *peer
	err  error
	rest []lead // who was in the race as well
}

// venture tries all leads until there is a session with one, who is then not in the
// list any more. It returns false when there is none and nothing is left to try, or
// ctx has ended.
func (s *Service) venture(ctx context.Context, v *venture) (reached, bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	raced, taken := make(chan reached, venturesAtOnce), make(chan reached, venturesAtOnce)
	patience, hope, done := time.NewTimer(0), time.NewTimer(v.patience), ctx.Done()
	defer patience.Stop()
	defer hope.Stop()
	races, taking, free, hopeless := 0, 0, true, false
	for {
		if free && races < venturesAtOnce && taking < venturesAtOnce && len(v.leads) > 0 {
			races++
			leads := v.leads
			v.leads = nil
			s.spawn(func() { raced <- s.raceLeads(ctx, v, leads) })
		}
		if races == 0 && taking == 0 && (hopeless || v.news == nil) {
			return reached{}, false
		}
		select {
		case f := <-raced:
			if races--; f.err != nil {
				v.failures = append(v.failures, f.err)
				continue
			}
			id := f.link.Remote.Peer
			v.leads = append(v.leads, slices.DeleteFunc(f.rest, func(l lead) bool { return l.Contact == f.contact || l.Peer == id })...)
			taking, free = taking+1, false
			patience.Reset(min(max(2*time.Since(f.dialled), ventureLeast), ventureMost))
			s.spawn(func() { taken <- s.take(ctx, v.began, f) })
		case f := <-taken:
			if taking--; f.err != nil {
				v.failures, free = append(v.failures, f.err), true
				continue
			}
			cancel()
			for ; races > 0; races-- {
				late := <-raced
				if v.leads = append(v.leads, late.rest...); late.err == nil {
					late.link.Conn.Close() //nolint:errcheck // it carries nothing
				}
			}
			return f, true
		case <-patience.C:
			free = true
		case <-v.news:
			s.look(v)
		case <-hope.C:
			hopeless = true
		case <-done:
			hopeless, done, v.news, v.leads = true, nil, nil, nil
		}
	}
}

// take makes a session of a contact that has proved its identity, and waits until the
// peer is known to have it.
func (s *Service) take(ctx context.Context, began time.Time, f reached) reached {
	stop := closeWith(ctx, f.link.Conn)
	id := f.link.Remote.Peer
	f.p, f.err = s.adopt(f.link, adoption{how: Dialed, began: began, linked: f.dialled, endpoint: f.contact.Endpoint, within: ctx})
	stop()
	if errors.Is(f.err, errDuplicate) { // its other link must show soon
		s.rest(ctx, duplicateRetry)
		if p := s.find(id); p != nil && p.sess.Live() {
			f.p, f.err = p, nil
		}
	}
	if f.err == nil {
		f.err = s.surely(ctx, f.p)
	}
	return f
}

// surely waits until a peer is known to have the session that was begun with it, or why
// not.
func (s *Service) surely(ctx context.Context, p *peer) error {
	s.mu.Lock()
	if !p.unsure {
		s.mu.Unlock()
		return nil
	}
	if p.known == nil {
		p.known = make(chan struct{})
	}
	known := p.known
	s.mu.Unlock()
	select {
	case <-known:
		return nil
	case <-p.sess.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		return cmp.Or[error](p.why, session.ErrOver)
	case <-ctx.Done():
		return s.linkError("connect", p.id, Endpoint{}, context.Cause(ctx))
	}
}

// raceLeads returns the first contact that proves its identity.
func (s *Service) raceLeads(ctx context.Context, v *venture, leads []lead) reached {
	slices.SortStableFunc(leads, func(a, b lead) int { return cmp.Compare(a.delay, b.delay) })
	steps := make([]dial.Step, 0, len(leads))
	expected := make(map[Endpoint][]PeerID) // several contacts may share an endpoint
	for _, l := range leads {
		if expected[l.Endpoint] == nil {
			steps = append(steps, dial.Step{Endpoint: l.Endpoint, Delay: l.delay})
		}
		if !slices.Contains(expected[l.Endpoint], l.Peer) {
			expected[l.Endpoint] = append(expected[l.Endpoint], l.Peer)
		}
	}
	out := newOutcomes(expected)
	defer s.noteFailures(out)
	won, _, err := dial.Race(ctx, steps,
		func(ctx context.Context, step dial.Step) (contactLink, error) {
			ids, dialled := expected[step.Endpoint], time.Now()
			var expect PeerID
			if len(ids) == 1 {
				expect = ids[0]
			}
			link, err := s.try(ctx, step.Endpoint, expect)
			if err != nil {
				if ctx.Err() == nil {
					out.failed(ids)
				}
				return contactLink{}, err
			}
			id := link.Remote.Peer
			out.succeeded(id)
			c := Contact{step.Endpoint, id}
			switch {
			case id == s.ID():
				err = &Error{Op: v.op, Endpoint: step.Endpoint, Code: CodeSelf, Err: errSelf}
			case slices.Contains(ids, id):
			case slices.Contains(ids, PeerID{}):
				c.Peer = PeerID{}
			default:
				err = s.linkError(v.op, id, step.Endpoint, secure.ErrWrongPeer)
				out.failed(ids)
			}
			if err == nil && v.fits != nil {
				err = v.fits(link)
			}
			if err == nil {
				return contactLink{link, c, dialled}, nil
			}
			link.Conn.Close() //nolint:errcheck // it carries nothing
			return contactLink{}, err
		},
		func(c contactLink) { c.link.Conn.Close() })
	if err != nil {
		return reached{err: s.raceError(v.op, PeerID{}, err), rest: leads}
	}
	return reached{contactLink: won, rest: leads}
}

// startBootstrap begins a bootstrap that leaves some contacts out.
func (s *Service) startBootstrap(token uint64, except []Contact) error {
	a := &attempt{token: token, bootstrap: true, except: make(map[Contact]bool, len(except))}
	for _, c := range except {
		if c == (Contact{}) {
			return &Error{Op: "bootstrap", Code: CodeInvalid, Err: errors.New("a contact that is left out has neither an endpoint nor a peer")}
		}
		a.except[c] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bootstrap != nil {
		return &Error{Op: "bootstrap", Code: CodeState, Err: errors.New("a bootstrap is running")}
	}
	if err := s.register(a, s.cfg.BootstrapTimeout, s.runBootstrap); err != nil {
		return err
	}
	s.bootstrap = a
	return nil
}

// runBootstrap is the goroutine of a bootstrap. Those that are given up never learn who
// asked.
func (s *Service) runBootstrap(a *attempt) {
	v := &venture{op: "bootstrap", began: a.began, patience: newsPatience}
	if len(a.except) > 0 {
		v.skip = func(c Contact) bool {
			return a.except[c] || a.except[Contact{Endpoint: c.Endpoint}] || a.except[Contact{Peer: c.Peer}] && c.Peer != PeerID{}
		}
		v.fits = func(l *secure.Link) error {
			if a.except[Contact{Peer: l.Remote.Peer}] {
				return &Error{Op: "bootstrap", Peer: l.Remote.Peer, Code: CodeNotAllowed, Err: errors.New("this bootstrap leaves the peer out")}
			}
			return nil
		}
	}
	s.look(v)
	if f, ok := s.venture(a.ctx, v); ok {
		s.finish(a, Event{Type: EventBootstrapped, Peer: f.p.id, detail: &detail{endpoint: f.contact.Endpoint}})
		return
	}
	e := &Error{Op: "bootstrap", Code: CodeNoEndpoint, Err: errors.New("there are no contacts to try")}
	if failures := slices.Concat(v.failures, v.ours); len(failures) > 0 {
		e = &Error{Op: "bootstrap", Code: CodeOf(failures[0]), Err: sentences(failures)}
	}
	switch cause := a.ended(); {
	case errors.Is(cause, CodeTimeout):
		e.Code, e.Err = CodeTimeout, joinCause("no contact answered within "+s.cfg.BootstrapTimeout.String(), e.Err)
	case cause != nil:
		e.Code, e.Err = CodeCanceled, nil
	}
	s.finish(a, Event{Type: EventBootstrapFailed, detail: &detail{err: e}})
}
