package crust

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
)

// Group is a set of peers that a service keeps itself connected to: see Service.Keep.
type Group struct {
	// Name is 1 to MaxGroupName bytes of UTF-8.
	Name string
	// Peers are those to be connected.
	Peers []PeerID
	// Contacts are where peers may be. Each of a group without Any names its peer, who
	// is one of the group whether or not Peers has it.
	Contacts []Contact
	// Infos are connection infos of peers, who are of the group as those of Contacts
	// are. They may expire meanwhile: what they say is tried all the same.
	Infos [][]byte
	// Any is how many peers of Role are to be connected, whoever they are and
	// whoever has begun the session. Zero means that the group is of Peers.
	Any int
	// Role is what the peers of Any are to the network. Zero means Node.
	Role Role
}

// GroupInfo describes a group that is kept.
type GroupInfo struct {
	Name string
	// Any and Role are as in Group.
	Any  int
	Role Role
	// Up is how many peers of the group are connected, and Wanted how many should be.
	Up, Wanted int
	// Next is until a group of Any seeks more peers. Zero means now, or not at all.
	Next time.Duration
	// Err is why the last search did not find enough: an *Error, or nil.
	Err error
	// Peers are the peers of the group in the order of their ids; of a group of Any those
	// that are connected, and those that the program has disconnected.
	Peers []GroupPeer
}

// GroupPeer describes a peer of a group.
type GroupPeer struct {
	Peer  PeerID
	State GroupState
	// Tries is how many attempts were in vain since the last session that lasted.
	Tries int
	// Next is until the next attempt. Zero means that none is due.
	Next time.Duration
	// Err is why there is no session: an *Error, or nil.
	Err error
}

// keeping is the groups of a service. Service.mu guards it.
type keeping struct {
	keeper
	woken chan struct{} // has room for one: look again; nil while there is no goroutine
}

const (
	// keepTry bounds one attempt to connect to a peer of a group, unless
	// Config.ConnectTimeout does, and one search for peers of a group of Any.
	keepTry = 20 * time.Second
	// keepSeek is how long peers are asked for one whose endpoints were of no use before it
	// is dialled there again, unless it has answered.
	keepSeek = 3 * time.Second
	// keepKnown bounds the endpoints of one attempt.
	keepKnown = 32
)

// Keep has the service connect to the peers of a group, and connect again whenever one
// is lost, until Release or Close: at where the peer was last, at what the group, the
// cache and other peers tell, over either transport, and by peers that are
// connected to both. A group of the same name is replaced. Sessions that there are
// count, and so do those that the peers begin.
//
// The first attempts begin at once, at most 16 at a time. After a loss, and after each
// attempt in vain, the service waits for a random time that doubles, from 1 s to 1
// minute at most, less when it hears of the peer or its own network has changed.
//
// A peer of a group that the program disconnects stays so, even if there is no session
// at the moment: nothing is tried, and the sessions that it begins are refused, until
// the program connects to it or names it in a call of Keep. A peer that has
// disconnected us is left alone for half a minute at least.
//
// Each change is an EventGroup. Errors: CodeInvalid (the name is not 1 to MaxGroupName
// bytes of UTF-8; no peers, or both Peers and Any; a contact that nobody can be at), CodeSelf,
// CodeBadInfo, CodeLimit (MaxGroups, MaxKept), CodeClosed.
func (s *Service) Keep(g Group) error {
	k, members, err := s.checkGroup(&g)
	if err != nil {
		return err
	}
	now := time.Now()
	s.mu.Lock()
	if err := s.roomFor(k); err != nil {
		s.mu.Unlock()
		return err
	}
	if s.groups.random == nil {
		s.groups.random = rand.N[time.Duration]
	}
	sessions := make(map[PeerID]Role)
	for id, p := range s.peers {
		if p.sess.Live() {
			sessions[id] = Role(p.sess.Remote().Role)
		}
	}
	changes, stops := s.groups.keep(now, k, sessions)
	for id, m := range members {
		to := s.groups.members[id]
		to.learn(m.at...)
		to.mapped = append(to.mapped[:0:0], m.mapped...)
		if m.facts.told() {
			to.facts = m.facts
		}
	}
	if s.groups.woken == nil {
		s.groups.woken = make(chan struct{}, 1)
		s.spawn(s.keepGroups)
	}
	tell := s.tellGroups(changes)
	s.wakeGroups()
	s.mu.Unlock()
	tell()
	for _, stop := range stops {
		stop()
	}
	return nil
}

// roomFor reports whether a group may be added. mu is held.
func (s *Service) roomFor(k *kept) error {
	bad := func(c Code, format string, args ...any) error {
		return &Error{Op: "keep", Code: c, Err: fmt.Errorf(format, args...)}
	}
	if s.stopping {
		return &Error{Op: "keep", Code: CodeClosed}
	}
	groups, peers := 1, len(k.peers)
	for _, g := range s.groups.groups {
		if g.name != k.name {
			groups, peers = groups+1, peers+len(g.peers)
		}
	}
	switch {
	case groups > MaxGroups:
		return bad(CodeLimit, "there are %d groups already", MaxGroups)
	case peers > MaxKept:
		return bad(CodeLimit, "the groups would have %d peers, at most %d are kept", peers, MaxKept)
	}
	return nil
}

// checkGroup checks a group, and returns it and what it tells of its peers.
func (s *Service) checkGroup(g *Group) (*kept, map[PeerID]*member, error) {
	bad := func(c Code, format string, args ...any) (*kept, map[PeerID]*member, error) {
		return nil, nil, &Error{Op: "keep", Code: c, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case g.Name == "" || len(g.Name) > MaxGroupName || !utf8.ValidString(g.Name):
		return bad(CodeInvalid, "the name of a group is 1 to %d bytes of UTF-8, not %d bytes %.80q", MaxGroupName, len(g.Name), g.Name)
	case g.Any < 0 || g.Any > MaxKept:
		return bad(CodeInvalid, "Any is %d, want 0 to %d", g.Any, MaxKept)
	case g.Any > 0 && len(g.Peers) > 0:
		return bad(CodeInvalid, "group %q is of %d peers and of any %d, want one of the two", g.Name, len(g.Peers), g.Any)
	case g.Role > Client:
		return bad(CodeInvalid, "role %d is unknown", g.Role)
	case len(g.Peers) > MaxKept || len(g.Contacts) > MaxKept || len(g.Infos) > MaxKept:
		return bad(CodeLimit, "group %q has %d peers, %d contacts and %d infos, at most %d of each are kept",
			g.Name, len(g.Peers), len(g.Contacts), len(g.Infos), MaxKept)
	}
	k := &kept{name: g.Name, any: g.Any, role: g.Role}
	members := make(map[PeerID]*member)
	add := func(id PeerID) *member {
		if members[id] == nil {
			members[id] = &member{}
			k.peers = append(k.peers, id)
		}
		return members[id]
	}
	for i, id := range g.Peers {
		if id.IsZero() {
			return bad(CodeInvalid, "group %q: the id of peer %d is zero", g.Name, i+1)
		}
		add(id)
	}
	for i, c := range g.Contacts {
		if err := checkDialable(c.Endpoint); err != nil {
			return bad(CodeOf(err), "group %q: contact %d: %w", g.Name, i+1, err)
		}
		switch {
		case g.Any > 0:
			k.contacts = append(k.contacts, c)
		case c.Peer.IsZero():
			return bad(CodeInvalid, "group %q: contact %s does not name its peer", g.Name, c.Endpoint)
		default:
			m := add(c.Peer)
			m.at = append(m.at, c.Endpoint)
		}
	}
	for i, text := range g.Infos {
		info, err := parseInfo(text)
		if err != nil {
			return bad(CodeBadInfo, "group %q: info %d: %w", g.Name, i+1, err)
		}
		if g.Any > 0 {
			for _, ep := range info.Endpoints {
				k.contacts = append(k.contacts, Contact{ep, info.Peer})
			}
			continue
		}
		m := add(info.Peer)
		m.at = append(m.at, info.Endpoints...)
		m.mapped = append(m.mapped, marked(info.Endpoints, info.Mapped)...)
		m.facts = infoFacts{info.UDP, info.TCP}
	}
	switch {
	case members[s.ID()] != nil:
		return nil, nil, &Error{Op: "keep", Peer: s.ID(), Code: CodeSelf, Err: errSelf}
	case g.Any == 0 && len(k.peers) == 0:
		return bad(CodeInvalid, "group %q is of nobody", g.Name)
	}
	return k, members, nil
}

// Release ends that a group is kept, and the attempts for it that are under way.
// Sessions live on. CodeInvalid when there is no group of that name.
func (s *Service) Release(name string) error {
	s.mu.Lock()
	found := s.groups.find(name) != nil
	stops := s.groups.release(name)
	s.wakeGroups()
	s.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	if !found {
		return &Error{Op: "release", Code: CodeInvalid, Err: fmt.Errorf("there is no group %.80q", name)}
	}
	return nil
}

// Groups returns the groups that are kept, in the order in which they came.
func (s *Service) Groups() []GroupInfo {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]GroupInfo, 0, len(s.groups.groups))
	for _, g := range s.groups.groups {
		list = append(list, s.groups.describe(now, g))
	}
	return list
}

// describe describes a group.
func (k *keeper) describe(now time.Time, g *kept) GroupInfo {
	until := func(at time.Time) time.Duration { return max(at.Sub(now), 0) }
	info := GroupInfo{Name: g.name, Any: g.any, Role: g.role, Up: len(g.up), Wanted: g.wanted()}
	if g.any > 0 {
		if g.short() && !g.seek.trying {
			info.Next = until(g.seek.next)
		}
		if g.short() && g.seek.why != nil {
			info.Err = groupError(PeerID{}, g.seek.why)
		}
		for id := range g.up {
			info.Peers = append(info.Peers, GroupPeer{Peer: id, State: GroupUp})
		}
		for _, id := range g.drops {
			if !g.up[id] {
				info.Peers = append(info.Peers, GroupPeer{Peer: id, State: GroupDropped})
			}
		}
	}
	for _, id := range g.peers {
		m := k.members[id]
		p := GroupPeer{Peer: id, State: m.state, Tries: m.tries}
		if m.state == GroupDown || m.state == GroupFailed {
			p.Next = until(m.next)
		}
		if m.state != GroupUp && m.why != nil {
			p.Err = groupError(id, m.why)
		}
		info.Peers = append(info.Peers, p)
	}
	slices.SortFunc(info.Peers, func(a, b GroupPeer) int { return a.Peer.Compare(b.Peer) })
	return info
}

// groupError dresses why a peer of a group is not connected.
func groupError(id PeerID, why error) *Error {
	var e *Error
	if errors.As(why, &e) {
		return e
	}
	if c := Code(0); errors.As(why, &c) {
		return &Error{Op: "keep", Peer: id, Code: c}
	}
	return &Error{Op: "keep", Peer: id, Code: CodeOf(why), Err: why}
}

// tellGroups puts changes into the queue. mu is held; the returned function is to be
// called without it.
func (s *Service) tellGroups(changes []groupChange) func() {
	calls := make([]func(), 0, len(changes))
	for _, c := range changes {
		d := &detail{group: c.group, state: c.state, count: uint64(c.up), wanted: uint64(c.wanted), next: c.next}
		if c.err != nil {
			d.err = groupError(c.peer, c.err)
		}
		calls = append(calls, s.events.add(Event{Type: EventGroup, Peer: c.peer, detail: d}))
	}
	return func() {
		for _, call := range calls {
			call()
		}
	}
}

// wakeGroups has the goroutine of groups look again. mu is held.
func (s *Service) wakeGroups() {
	select {
	case s.groups.woken <- struct{}{}: // a nil channel has no room
	default:
	}
}

// keepGroups is the goroutine that begins attempts when they are due.
func (s *Service) keepGroups() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		s.mu.Lock()
		if s.stopping {
			s.mu.Unlock()
			return
		}
		var tries []groupTry
		var changes []groupChange
		next := now.Add(keepFirst)
		if !s.events.crowded() { // else the program does not read what would pile up
			tries, next, changes = s.groups.due(now)
		}
		tell := s.tellGroups(changes)
		for _, t := range tries {
			s.tryGroup(t)
		}
		woken := s.groups.woken
		s.mu.Unlock()
		tell()
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(next.Sub(now))
			due = timer.C
		}
		select {
		case <-woken:
		case <-due:
		case <-s.ctx.Done():
			return
		}
	}
}

// tryGroup begins one attempt. mu is held.
func (s *Service) tryGroup(t groupTry) {
	ctx, stop := context.WithTimeout(s.ctx, min(keepTry, s.cfg.ConnectTimeout))
	if t.group != nil {
		t.group.seek.stop = stop
		s.spawn(func() {
			defer stop()
			err := s.seekGroup(ctx, t.group)
			s.mu.Lock()
			tell := s.tellGroups(s.groups.sought(time.Now(), t.group, err))
			s.wakeGroups()
			s.mu.Unlock()
			tell()
		})
		return
	}
	m := s.groups.members[t.peer]
	m.stop = stop
	a := &attempt{peer: t.peer, endpoints: slices.Clone(m.at), mapped: slices.Clone(m.mapped), facts: m.facts, quiet: true, kept: true, gone: make(chan struct{})}
	s.spawn(func() {
		defer stop()
		err := s.connectKept(ctx, a)
		s.mu.Lock()
		tell := s.tellGroups(s.groups.tried(time.Now(), t.peer, m, err))
		s.wakeGroups()
		s.mu.Unlock()
		tell()
	})
}

// connectKept connects to a peer of a group.
func (s *Service) connectKept(ctx context.Context, a *attempt) error {
	if e := s.bans(a.peer, netip.Addr{}); e != nil {
		return bannedError("keep", a.peer, Endpoint{}, e)
	}
	for _, ep := range s.whereIs(a.peer) {
		if len(a.endpoints) < keepKnown && !slices.Contains(a.endpoints, ep) {
			a.endpoints = append(a.endpoints, ep)
		}
	}
	a.endpoints = slices.DeleteFunc(a.endpoints, func(ep Endpoint) bool { return s.barred(Contact{ep, a.peer}) })
	if a.info = len(a.endpoints) > 0; !a.info {
		if a.meets = len(s.some(1, a.peer)) > 0; !a.meets {
			return &Error{Op: "keep", Peer: a.peer, Code: CodeNoEndpoint, Err: errors.New("nobody has told where the peer is, and no peer is connected that could introduce the two")}
		}
	}
	deadline, _ := ctx.Deadline()
	s.mu.Lock()
	err := s.register(a, time.Until(deadline), s.runConnect)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-a.gone:
	case <-ctx.Done():
		a.cancel(CodeCanceled)
		<-a.gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.why
}

// Why a peer is not one for a group of any.
var (
	errHasSession = errors.New("there is a session with it already")
	errWasDropped = errors.New("the program has disconnected it")
)

// seekGroup connects to peers of a role until a group has enough, or all that are
// known have been tried.
func (s *Service) seekGroup(ctx context.Context, g *kept) error {
	fits := func(link *secure.Link) error {
		id := link.Remote.Peer
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.peers[id] != nil:
			return &Error{Op: "keep", Peer: id, Code: CodeConnected, Err: errHasSession}
		case s.groups.isDropped(id):
			return &Error{Op: "keep", Peer: id, Code: CodeCanceled, Err: errWasDropped}
		case Role(link.Remote.Role) != g.role:
			return &Error{Op: "keep", Peer: id, Code: CodeNotAllowed, Err: fmt.Errorf("it is a %s, not a %s", Role(link.Remote.Role), g.role)}
		}
		return nil
	}
	v := &venture{op: "keep", began: time.Now(), contacts: g.contacts, fits: fits}
	v.skip = func(c Contact) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !c.Peer.IsZero() && (s.peers[c.Peer] != nil || s.groups.isDropped(c.Peer))
	}
	s.look(v)
	for {
		s.mu.Lock()
		short := g.short() && s.groups.find(g.name) == g
		s.mu.Unlock()
		if !short {
			return nil
		}
		if _, ok := s.venture(ctx, v); !ok {
			break
		}
	}
	if failures := slices.Concat(v.failures, v.ours); len(failures) > 0 {
		return &Error{Op: "keep", Code: CodeOf(failures[0]), Err: sentences(failures)}
	}
	return &Error{Op: "keep", Code: CodeNoEndpoint, Err: errors.New("no more peers are known")}
}

// groupsGain takes note of a new session. mu is held; the returned function is to be called without it.
func (s *Service) groupsGain(p *peer) func() {
	if len(s.groups.groups) == 0 {
		return func() {}
	}
	s.wakeGroups()
	return s.tellGroups(s.groups.connected(time.Now(), p.id, Role(p.sess.Remote().Role)))
}

// groupsLose takes note of the end of a session, and of where the peer was. mu is held;
// the returned function is to be called without it.
func (s *Service) groupsLose(p *peer, why *Error) func() {
	if len(s.groups.groups) == 0 {
		return func() {}
	}
	if m := s.groups.members[p.id]; m != nil {
		at := slices.Clone(p.endpoints)
		slices.Reverse(at) // the newest first
		if p.how == Dialed || p.how == Mapped {
			at = slices.Insert(at, 0, p.endpoint)
		}
		m.learn(slices.DeleteFunc(at, func(ep Endpoint) bool { return slices.Contains(p.told, ep) })...) // what only letters have told has its price
		m.mapped = slices.Clone(p.mapped)
	}
	s.wakeGroups()
	how := endedAtOnce
	switch {
	case errors.Is(why, session.ErrDisconnected):
		how = endedInOrder
	case p.redialing:
		how = endedDialled
	}
	return s.tellGroups(s.groups.lost(time.Now(), p.id, why, how))
}

// groupsDrop takes note that the program disconnects a peer.
func (s *Service) groupsDrop(id PeerID, session bool) {
	s.mu.Lock()
	if len(s.groups.groups) == 0 {
		s.mu.Unlock()
		return
	}
	changes, stops := s.groups.drop(time.Now(), id, session)
	tell := s.tellGroups(changes)
	s.wakeGroups()
	s.mu.Unlock()
	tell()
	for _, stop := range stops {
		stop()
	}
}

// dropped reports whether a peer may not begin a session since the program has
// disconnected it. One that lives may get another link.
func (s *Service) dropped(id PeerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.groups.groups) == 0 || !s.groups.isDropped(id) {
		return false
	}
	p := s.peers[id]
	return p == nil || !p.sess.Live()
}

// heardOf takes note that somebody has told where a peer is.
func (s *Service) heardOf(id PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.groups.groups) > 0 {
		s.groups.hint(time.Now(), id)
		s.wakeGroups()
	}
}

// groupsMoved takes note that this machine's network has changed. mu is held.
func (s *Service) groupsMoved() {
	if len(s.groups.groups) > 0 {
		s.groups.moved(time.Now())
		s.wakeGroups()
	}
}
