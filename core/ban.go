package crust

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/ban"
	"github.com/libcrust/libcrust/core/internal/bootstrap"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/udpmux"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Who is not wanted: the blacklist, which the room ban keeps, and the whitelists. They are
// asked at every door, of links and of letters, of dials and of what is remembered. A
// change is enforced at once: what is in flight is asked again.
//
// The lists are changed first, then what is in the tables is looked through. Whatever
// comes meanwhile asks the lists after it is in a table, so that nothing slips between.

// MaxBanReason is the longest BanEntry.Reason in bytes.
const MaxBanReason = ban.MaxReason

// BanEntry says who is banned: a peer, whatever its address, or the addresses of a
// prefix, whoever is there. Exactly one of both is set.
type BanEntry struct {
	Peer PeerID
	// Prefix is of IPv4 or IPv6; a prefix of IPv4-mapped IPv6 addresses is one of IPv4. One
	// address is a prefix of 32 or 128 bits. Zones do not count.
	Prefix netip.Prefix
	// Reason is kept for Bans, up to MaxBanReason bytes. Peers do not learn it.
	Reason string
	// Until is when the ban ends, of Bans; zero: with the service. Ban does not look at it.
	Until time.Time
}

// Entry returns what Ban takes to ban the target, for instance an Alert's Suggest.
func (b BanTarget) Entry(reason string) BanEntry {
	return BanEntry{Peer: b.Peer, Prefix: b.Prefix, Reason: reason}
}

// ParseBan reads a peer id of 64 hexadecimal digits, an IP address or a prefix such as
// 203.0.113.0/24.
func ParseBan(text string) (BanEntry, error) {
	e, err := ban.Parse(text)
	if err != nil {
		return BanEntry{}, &Error{Op: "parse", Code: CodeInvalid, Err: err}
	}
	return BanEntry{Peer: e.Peer, Prefix: e.Prefix}, nil
}

// String returns who is banned, as ParseBan reads it.
func (e BanEntry) String() string { return ban.Entry{Peer: e.Peer, Prefix: e.Prefix}.Subject() }

// ParsePrefix reads an IP address or a prefix such as 203.0.113.0/24, for the whitelists.
func ParsePrefix(text string) (netip.Prefix, error) {
	e, err := ban.Parse(text)
	if err == nil && !e.Peer.IsZero() {
		err = fmt.Errorf("%.80q is no IP address and no prefix", text)
	}
	if err != nil {
		return netip.Prefix{}, &Error{Op: "parse", Code: CodeInvalid, Err: err}
	}
	return e.Prefix, nil
}

// lists are the blacklist and the whitelists of a service.
type lists struct {
	peers, prefixes atomic.Bool // the blacklist has some: else it need not be asked
	allows          atomic.Bool // there is a whitelist

	// mu is the innermost of all locks.
	mu      sync.RWMutex
	banned  ban.Set
	nodes   []netip.Prefix // clean; nil: all are allowed
	clients []netip.Prefix
	dials   map[*outgoing]struct{}
}

// outgoing is a dial in flight.
type outgoing struct {
	to     netip.Addr
	peer   PeerID // zero: whoever is there
	cancel context.CancelCauseFunc
}

// openLists makes the lists as the configuration says.
func (s *Service) openLists() error {
	l := &s.lists
	l.banned.Max, l.dials = s.cfg.MaxBans, make(map[*outgoing]struct{})
	if err := s.setAllowed("new", s.cfg.AllowNodes, s.cfg.AllowClients); err != nil {
		return err
	}
	return s.addBans("new", s.cfg.Bans, 0)
}

// Ban blacklists peers and addresses, one or ten thousand, for a time; d zero means for
// as long as the service lives. Who is banned already is so anew, for d from now. It holds
// at once: sessions are lost with CodeBanned, and the peer is told so, without waiting for
// what is queued; what is being connected fails with CodeBanned; and from then on nothing
// is sent to those who are banned nor taken from them, by whatever way they come. What is
// known of them is kept in Config.Cache, and not used; elsewhere it is forgotten. A relay
// is not asked to carry a link for a banned peer, but a peer that is not banned may come
// over one from a banned address, which the relay does not tell. While peer ids are
// banned, peers that dial must ask for a session, which takes a round trip more, so that
// who is banned is told so before it takes itself for connected.
//
// To tell it, the connection of a session that is lost stays, and takes nothing, until the
// peer has closed it, for three round trips but 1 s at least and 2 s at most, and no
// longer than CloseTimeout. 64 may stay so; of more, peers are told if it can be done at once.
//
// Who is banned by its address is turned away when it comes, and sees that at once. On
// Linux, when it comes again and again, the system itself drops what it sends: it gets no
// answer then, and costs this process nothing.
//
// Errors: CodeInvalid (an entry names neither or both, the reason is too long, d is
// negative), CodeSelf, CodeLimit (more than Config.MaxBans), CodeClosed. Then nobody is
// banned who was not before.
func (s *Service) Ban(entries []BanEntry, d time.Duration) error {
	if !s.enter() {
		return &Error{Op: "ban", Code: CodeClosed}
	}
	defer s.leave()
	if err := s.addBans("ban", entries, d); err != nil {
		return err
	}
	if len(entries) > 0 {
		s.log.Info("banned", "count", len(entries), "first", entries[0].short(), "for_ms", d)
	}
	s.enforce()
	s.rekey()
	return nil
}

// short returns who is banned, a peer in short.
func (e BanEntry) short() string {
	if !e.Peer.IsZero() {
		return e.Peer.Short()
	}
	return e.String()
}

// addBans puts entries into the blacklist.
func (s *Service) addBans(op string, entries []BanEntry, d time.Duration) error {
	if d < 0 {
		return &Error{Op: op, Code: CodeInvalid, Err: fmt.Errorf("the time is %v, want 0 or more", d)}
	}
	list, err := cleanBans(op, entries)
	if err != nil {
		return err
	}
	now := time.Now()
	for i := range list {
		if list[i].Peer == s.ID() {
			return &Error{Op: op, Peer: s.ID(), Code: CodeSelf, Err: errSelf}
		}
		if d > 0 {
			list[i].Until = now.Add(d)
		}
	}
	l := &s.lists
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.banned.Add(now, list); err != nil {
		return &Error{Op: op, Code: CodeLimit, Err: err}
	}
	l.note()
	s.stirMute() // an entry may end sooner now
	return nil
}

// note notes whether there is anybody to ask for. mu is held.
func (l *lists) note() {
	peers, prefixes := l.banned.Len()
	l.peers.Store(peers > 0)
	l.prefixes.Store(prefixes > 0)
	l.allows.Store(l.nodes != nil || l.clients != nil)
}

// cleanBans checks entries.
func cleanBans(op string, entries []BanEntry) ([]ban.Entry, error) {
	list := make([]ban.Entry, len(entries))
	for i, e := range entries {
		var err error
		if list[i], err = (ban.Entry{Peer: e.Peer, Prefix: e.Prefix, Reason: e.Reason}).Clean(); err != nil {
			return nil, &Error{Op: op, Peer: e.Peer, Code: CodeInvalid, Err: fmt.Errorf("entry %d: %w", i+1, err)}
		}
	}
	return list, nil
}

// Unban lifts bans, of the very peers, addresses and prefixes that were banned, and
// returns how many there were; an address that a banned prefix holds stays banned. Reason
// and Until do not count. Errors: CodeInvalid.
func (s *Service) Unban(entries []BanEntry) (lifted int, err error) {
	list, err := cleanBans("unban", entries)
	if err != nil {
		return 0, err
	}
	now, l := time.Now(), &s.lists
	l.mu.Lock()
	for _, e := range list {
		if l.banned.Remove(now, e) {
			lifted++
		}
	}
	l.note()
	l.mu.Unlock()
	s.mute()
	if lifted > 0 {
		s.log.Info("bans lifted", "count", lifted)
	}
	s.rekey()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.groups.groups) > 0 {
		for _, e := range list {
			s.groups.hint(now, e.Peer)
		}
		s.wakeGroups()
	}
	return lifted, nil
}

// Bans returns the blacklist: peers in the order of their ids, then prefixes in the order
// of their addresses, IPv4 first.
func (s *Service) Bans() []BanEntry {
	l := &s.lists
	l.mu.Lock()
	list := l.banned.List(time.Now())
	l.note()
	l.mu.Unlock()
	out := make([]BanEntry, len(list))
	for i, e := range list {
		out[i] = BanEntry{Peer: e.Peer, Prefix: e.Prefix, Reason: e.Reason, Until: e.Until}
	}
	return out
}

// SetAllowed replaces Config.AllowNodes and Config.AllowClients. Sessions with peers that
// are not allowed any more are ended, as Ban does it, with CodeNotAllowed. Errors:
// CodeInvalid, CodeClosed.
func (s *Service) SetAllowed(nodes, clients []netip.Prefix) error {
	if !s.enter() {
		return &Error{Op: "allow", Code: CodeClosed}
	}
	defer s.leave()
	if err := s.setAllowed("allow", nodes, clients); err != nil {
		return err
	}
	s.enforce()
	s.rekey()
	return nil
}

// setAllowed checks and sets the whitelists.
func (s *Service) setAllowed(op string, nodes, clients []netip.Prefix) error {
	var clean [2][]netip.Prefix
	for i, list := range [...][]netip.Prefix{nodes, clients} {
		if len(list) > MaxAllowed {
			return &Error{Op: op, Code: CodeLimit, Err: fmt.Errorf("a whitelist has %d prefixes, at most %d are allowed", len(list), MaxAllowed)}
		}
		for _, p := range list {
			p, err := ban.CleanPrefix(p)
			if err != nil {
				return &Error{Op: op, Code: CodeInvalid, Err: err}
			}
			clean[i] = append(clean[i], p)
		}
	}
	l := &s.lists
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes, l.clients = clean[0], clean[1]
	l.note()
	return nil
}

// MaxAllowed bounds each whitelist, in prefixes.
const MaxAllowed = 1024

// bans returns why a peer, at an address, is blacklisted, nil when it is not. Either may
// be zero.
func (s *Service) bans(id PeerID, at netip.Addr) *ban.Entry {
	l := &s.lists
	peers, prefixes := l.peers.Load() && !id.IsZero(), l.prefixes.Load() && at.IsValid()
	if !peers && !prefixes {
		return nil
	}
	var e ban.Entry
	var ok bool
	now := time.Now()
	l.mu.RLock()
	if peers {
		e, ok = l.banned.Peer(now, id)
	}
	if prefixes && !ok {
		e, ok = l.banned.Addr(now, at)
	}
	l.mu.RUnlock()
	if !ok {
		return nil
	}
	found := e // only now it takes memory
	return &found
}

// barred reports whether a contact is blacklisted: nothing is sent there.
func (s *Service) barred(c Contact) bool { return s.bans(c.Peer, c.Endpoint.Addr.Addr()) != nil }

// barredAt reports whether an address is blacklisted.
func (s *Service) barredAt(a netip.Addr) bool { return s.bans(PeerID{}, a) != nil }

// allowed reports whether the whitelist of a role has an address, or there is none. An
// address that is not known is on no list.
func (s *Service) allowed(role Role, at netip.Addr) bool {
	l := &s.lists
	if !l.allows.Load() {
		return true
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := l.nodes
	if role == Client {
		list = l.clients
	}
	return list == nil || contains(list, at)
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// welcomes reports whether anybody at an address may be a peer: it is not blacklisted, and
// on a whitelist, if each role has one.
func (s *Service) welcomes(at netip.Addr) bool {
	return !s.barredAt(at) && (s.allowed(Node, at) || s.allowed(Client, at))
}

// denies returns why there may be no session with a peer over a link, nil when there may.
func (s *Service) denies(id PeerID, role Role, how How, remote netip.Addr) *Error {
	if how == Relayed { // it is the relay's
		remote = netip.Addr{}
	}
	if e := s.bans(id, remote); e != nil {
		return bannedError("connect", id, Endpoint{}, e)
	}
	if !s.allowed(role, remote) {
		return &Error{Op: "connect", Peer: id, Code: CodeNotAllowed, Err: fmt.Errorf("no whitelist allows a %v at this address", role)}
	}
	return nil
}

// bannedError is the error of something that an entry forbids.
func bannedError(op string, id PeerID, ep Endpoint, e *ban.Entry) *Error {
	text := "the peer is blacklisted"
	if e.Prefix.IsValid() {
		text = "the address is blacklisted: it is in " + e.Prefix.String()
	}
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	return &Error{Op: op, Peer: id, Endpoint: ep, Code: CodeBanned, Err: errors.New(text)}
}

// reasonOf is what a peer is told of an error of denies.
func reasonOf(e *Error) wire.Reason {
	if e.Code == CodeBanned {
		return wire.ReasonBanned
	}
	return wire.ReasonNotAllowed
}

// mayDial begins a dial of an endpoint, which ends with the returned context when who is
// there is banned meanwhile. The returned function ends it, and dresses its error.
func (s *Service) mayDial(ctx context.Context, ep Endpoint, expect PeerID) (context.Context, func(error) error, error) {
	l := &s.lists
	to := ep.Addr.Addr()
	if !s.allowed(Node, to) && !s.allowed(Client, to) {
		return nil, nil, &Error{Op: "connect", Peer: expect, Endpoint: ep, Code: CodeNotAllowed, Err: errors.New("no whitelist has the address")}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	d := &outgoing{to, expect, cancel}
	l.mu.Lock()
	l.dials[d] = struct{}{}
	l.mu.Unlock()
	end := func(err error) error {
		l.mu.Lock()
		delete(l.dials, d)
		l.mu.Unlock()
		var why *Error
		if cause := context.Cause(ctx); err != nil && errors.As(cause, &why) && why.Code == CodeBanned {
			err = why
		}
		cancel(nil)
		return err
	}
	if e := s.bans(expect, to); e != nil { // asked last: enforce has seen the dial, or we see the entry
		return nil, nil, end(bannedError("connect", expect, ep, e))
	}
	return ctx, end, nil
}

// dialTCP makes a connection, unless the address is blacklisted.
func (s *Service) dialTCP(ctx context.Context, local, to netip.AddrPort) (net.Conn, error) {
	if e := s.bans(PeerID{}, to.Addr()); e != nil {
		return nil, bannedError("connect", PeerID{}, endpoint.New(TCP, to), e)
	}
	return s.network.Dial(ctx, local, to)
}

// enforce ends what the lists forbid now.
func (s *Service) enforce() {
	l := &s.lists
	l.mu.RLock()
	dials := make([]*outgoing, 0, len(l.dials))
	for d := range l.dials {
		dials = append(dials, d)
	}
	l.mu.RUnlock()
	for _, d := range dials {
		if e := s.bans(d.peer, d.to); e != nil {
			d.cancel(bannedError("connect", d.peer, Endpoint{}, e))
		}
	}
	s.halls.show(func(g *guest) bool { return !s.welcomes(endpointOf(endpoint.TCP, g.conn.RemoteAddr()).Addr.Addr()) })
	s.mu.Lock()
	attempts, peers := make([]*attempt, 0, len(s.attempts)), make([]*peer, 0, len(s.peers))
	for a := range s.attempts {
		attempts = append(attempts, a)
	}
	for _, p := range s.peers {
		peers = append(peers, p)
	}
	ids := make([]PeerID, len(attempts))
	for i, a := range attempts {
		ids[i] = a.peer
	}
	s.mu.Unlock()
	for i, a := range attempts {
		if e := s.bans(ids[i], netip.Addr{}); e != nil {
			a.cancel(bannedError("connect", ids[i], Endpoint{}, e))
		}
	}
	for _, p := range peers {
		s.expel(p)
	}
	s.forgetBanned()
	if b := s.lan.beacon.Load(); b != nil {
		b.Review()
	}
}

// expel ends a session that the lists forbid, and returns why.
func (s *Service) expel(p *peer) *Error {
	_, remote, _, _ := s.whereLink(p)
	ep, how := s.whereabouts(p)
	why := s.denies(p.id, Role(p.sess.Remote().Role), how, remote.Addr())
	if why == nil {
		return nil
	}
	why.Op, why.Endpoint = "session", ep
	s.spawn(func() {
		p.sess.Expel(reasonOf(why), why)
		if c, ok := p.sess.Link().Conn.(*utpConn); ok { // what was under way may keep the word waiting
			s.rest(s.ctx, expelGrace)
			c.assoc.Close(reasonOf(why))
		}
	})
	return why
}

// expelGrace is how long what says good-bye within a stream over UDP may take, before the
// association itself says it.
const expelGrace = 200 * time.Millisecond

// severed takes the end of the association under a connection, as the peer has said it: of
// a banned one there is nothing to go on with.
func (c *utpConn) severed(why error) {
	c.port.Sever()
	var said *udpmux.CloseError
	if !errors.As(why, &said) || said.Reason != wire.ReasonBanned {
		return
	}
	if p := c.s.find(c.assoc.Remote().Peer); p != nil && p.sess.Link().Conn == net.Conn(c) {
		c.s.spawn(func() { p.sess.Kill(session.ErrBanned) })
	}
}

// jots reports whether something may be written down of a peer.
func (s *Service) jots(c *bootstrap.Contact) bool { return s.bans(c.Peer, c.At.Addr.Addr()) == nil }

// shunned reports whether a contact record is neither kept nor told: its peer is
// blacklisted, or every address at which it could be dialled.
func (s *Service) shunned(c wire.Contact) bool {
	if s.bans(c.Peer, netip.Addr{}) != nil {
		return true
	}
	return len(c.Endpoints) > 0 && !slices.ContainsFunc(c.Endpoints, func(ep Endpoint) bool { return !s.barredAt(ep.Addr.Addr()) })
}

// forgetBanned has gossip forget whom the blacklist names now.
func (s *Service) forgetBanned() {
	g := &s.gossip
	if g.stir == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.machine.Review(time.Now())
	g.poke()
}
