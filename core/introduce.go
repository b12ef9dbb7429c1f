package crust

import (
	"crypto/rand"
	"errors"
	"maps"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Two peers that have no connection info of each other meet by letters. The one
// that seeks gives a letter to some of its peers; each of them hands it to the
// reader, if that is its peer, or to some of its own, over at most wire.MaxHops
// peers in a row. The answer goes the same way back. Letters are sealed: those
// who carry them see the reader's peer id, and nothing of the writer.
//
//	seeker ──Seek──▶ introducer ──Seek──▶ … ──Seek──▶ sought
//	       ◀─Reply──            ◀─Reply── … ◀─Reply──
//
// When the offer has come both sides know where the other one may be, and both
// dial: whoever can be reached is.

const (
	// seekWidth is to how many peers a letter is given on, and firstWidth to how
	// many by its writer.
	seekWidth  = 3
	firstWidth = 8
	// firstHops is what a letter says when its writer gives it away.
	firstHops = wire.MaxHops - 1
	// routeLife is how long the way of a letter is remembered, and maxRoutes of how
	// many; beyond that letters are dropped.
	routeLife = time.Minute
	maxRoutes = 4096
	// letterRate bounds the letters that a peer may have carried or read in a
	// second, and letterBurst how many at once.
	letterRate  = 20
	letterBurst = 60
	// ownRate and ownBurst are how many letters of its own beyond these a peer may write before it
	// is charged with more: a program that seeks a thousand peers at once writes fewer.
	ownRate  = 256
	ownBurst = 4096
	// moreWays is how many ways an answer goes beside the first one that the letter has
	// come: a NAT may let nothing of somebody in for a while.
	moreWays = 2
	// maxReading bounds the letters that are being opened and answered.
	maxReading = 16
	// letterSkew is by how much the clocks of two peers may differ.
	letterSkew = 26 * time.Hour
	// seekAgain is after how long without an answer another letter is sent; the
	// time doubles up to seekMost.
	seekAgain = time.Second
	seekMost  = 8 * time.Second
	// meetPatience is how long a seeker whose dials have failed waits for the peer,
	// which dials as well.
	meetPatience = 5 * time.Second
)

type meetingID = [wire.MeetingID]byte

// route is the way that the letters of one meeting take.
type route struct {
	back  PeerID // who gave us the first letter; zero when we wrote it
	on    PeerID // who gave us the first reply
	until time.Time
	kind  wire.LetterKind   // of the letters that we take
	take  func(wire.Letter) // nil while we take none
	peer  PeerID            // who writes those
	pays  *account          // of the meeting, when it is ours

	answer []byte   // ours, when it is written
	more   []PeerID // who has given us the same letter; at most moreWays
}

// post is what a service knows of letters.
type post struct {
	mu      sync.Mutex
	routes  map[meetingID]*route
	swept   time.Time
	budgets map[PeerID]*budget
	reading int
	punches map[meetingID]*punching

	spraying bool // a punch guesses ports, or opens many sockets
}

// budget is how many letters a peer may still send.
type budget struct {
	left   float64
	at     time.Time
	pardon float64 // of letters: see ownRate
}

// spend reports whether a letter of a peer is within its budget. mu is held.
func (o *post) spend(from PeerID, now time.Time) bool {
	if o.budgets == nil {
		o.budgets = make(map[PeerID]*budget)
	}
	b := o.budgets[from]
	if b == nil {
		b = &budget{left: letterBurst, at: now, pardon: ownBurst}
		o.budgets[from] = b
	}
	d := now.Sub(b.at).Seconds()
	b.left, b.pardon = min(b.left+letterRate*d, letterBurst), min(b.pardon+ownRate*d, ownBurst)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// isSpam reports whether a letter that was not within the budget of who gave it to us is one too
// many. Those of others do not count, which introducers give on with fewer hops: nobody
// is accused of what others write. mu is held.
func (o *post) isSpam(from PeerID, seek wire.Seek) bool {
	b := o.budgets[from]
	if seek.Hops < firstHops || b == nil {
		return false
	}
	if b.pardon >= 1 {
		b.pardon--
		return false
	}
	return true
}

// sweep forgets what is old. mu is held.
func (o *post) sweep(now time.Time) {
	if now.Sub(o.swept) < routeLife/8 && len(o.routes) < maxRoutes {
		return
	}
	o.swept = now
	maps.DeleteFunc(o.routes, func(_ meetingID, r *route) bool { return now.After(r.until) })
	maps.DeleteFunc(o.budgets, func(_ PeerID, b *budget) bool { return now.Sub(b.at) > routeLife })
}

// open begins a route, unless there is one of that name or there are too many.
func (o *post) open(id meetingID, r *route, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sweep(now)
	if o.routes[id] != nil || len(o.routes) >= maxRoutes {
		return false
	}
	if o.routes == nil {
		o.routes = make(map[meetingID]*route)
	}
	r.until = now.Add(routeLife)
	o.routes[id] = r
	return true
}

// ConnectPeer connects to a peer of which only the id is known: peers that are
// connected to this one introduce the two, directly or over up to six peers in a
// row. Then both dial, and open their NATs together; meanwhile a peer that relays
// may carry the link, and where gossip has told of the peer (Known) it is dialled. The final event is as for Connect; without any peer it is
// EventConnectFailed with CodeNoEndpoint, unless gossip has told of it, and CodeTimeout when nobody knows the
// peer, which cannot be told from one that does not answer. Errors: CodeInvalid
// (the id is zero, or first is out of its bounds), CodeSelf, CodeLimit, CodeClosed.
//
// What is to be said at once may go with the call: the messages of first, which are copied, are
// the first ones of the session, in their order, with priority MustArrive. Over a relay that has a
// key that the peer has left with it, lately, they are there after one round trip to
// the peer and back, when EventConnected comes here; otherwise behind the
// handshake, as what is sent at EventConnected. They are at most MaxFirst messages with
// MaxFirstBytes together. Where there is a session
// already, or one comes about otherwise, they go there; a queue that is full is waited for. They are delivered once, or, as
// for Send, EventLost of the peer follows. With EventConnectFailed they are not delivered,
// but who was cut off in the last moment may have taken them, and a relay that lies
// can bring them up to ten minutes later.
func (s *Service) ConnectPeer(id PeerID, token uint64, first ...[]byte) error {
	if id.IsZero() {
		return &Error{Op: "connect", Code: CodeInvalid, Err: errors.New("the peer id is zero")}
	}
	copied, err := checkFirst(first)
	if err != nil {
		return &Error{Op: "connect", Peer: id, Code: CodeInvalid, Err: err}
	}
	return s.connect(&attempt{token: token, peer: id, meets: true, first: copied})
}

// Control takes signals from peers.
func (o *owner) Control(sess *session.Session, t wire.FrameType, body []byte) error {
	s, p := (*Service)(o), sess.Tag.(*peer)
	switch t {
	case wire.FrameSeek:
		seek, err := wire.ParseSeek(body)
		if err != nil {
			return err
		}
		s.seekCame(p, seek)
	case wire.FrameReply:
		reply, err := wire.ParseReply(body)
		if err != nil {
			return err
		}
		s.replyCame(p, reply)
	case wire.FrameSeen:
		from, err := wire.ParseSeen(body)
		if err != nil {
			return err
		}
		s.seenAs(p, from)
	case wire.FrameDoors:
		d, err := wire.ParseDoors(body)
		if err != nil {
			return err
		}
		s.doorsCame(p, d)
	case wire.FrameEcho:
		e, err := wire.ParseEcho(body)
		if err != nil {
			return err
		}
		s.echoAt(p, e)
	case wire.FrameReach:
		r, err := wire.ParseReach(body)
		if err != nil {
			return err
		}
		s.reachCame(p, r)
	case wire.FrameReached:
		r, err := wire.ParseReached(body)
		if err != nil {
			return err
		}
		s.reachedCame(p, r)
	case wire.FrameGossip:
		return s.gossipCame(p, body)
	}
	return nil
}

// seekCame reads a letter or gives it on.
func (s *Service) seekCame(from *peer, seek wire.Seek) {
	now := time.Now()
	s.post.mu.Lock()
	within := s.post.spend(from.id, now)
	spam := !within && s.post.isSpam(from.id, seek)
	s.post.mu.Unlock()
	if spam {
		s.charge(s.whoIs(from), AlertRelay, 1, uint64(len(seek.Letter)), 0)
	}
	if !within {
		s.refusedHelp.Add(1)
		return
	}
	if !s.post.open(seek.ID, &route{back: from.id}, now) {
		if seek.To == s.ID() {
			s.anotherWay(from, seek.ID)
		}
		return
	}
	if seek.To == s.ID() {
		size := len(seek.Letter)
		s.read(slices.Clone(seek.Letter), seek.ID, wire.LetterOffer, func(writer PeerID, l wire.Letter) { s.offered(from, writer, l, size) })
		return
	}
	if s.cfg.Relay == RelayOff || s.bans(seek.To, netip.Addr{}) != nil {
		return
	}
	if p := s.find(seek.To); p != nil {
		seek.Hops = 0
		p.sess.SendControl(seek.Append(nil))
		return
	}
	if seek.Hops == 0 {
		return
	}
	seek.Hops = min(seek.Hops, firstHops) - 1 // so that it cannot be taken for one of ours
	for _, p := range s.some(seekWidth, from.id, seek.To) {
		p.sess.SendControl(seek.Append(nil))
	}
}

// anotherWay sends the answer to a letter that has come again to who brought it, now or
// when it is written.
func (s *Service) anotherWay(from *peer, id meetingID) {
	s.post.mu.Lock()
	r := s.post.routes[id]
	if r == nil || r.back.IsZero() || r.back == from.id || len(r.more) >= moreWays || slices.Contains(r.more, from.id) {
		s.post.mu.Unlock()
		return
	}
	r.more = append(r.more, from.id)
	answer := r.answer
	s.post.mu.Unlock()
	if answer != nil {
		from.sess.SendControl(wire.Reply{ID: id, Letter: answer}.Append(nil))
	}
}

// reply sends the answer to a letter all ways that it has come.
func (s *Service) reply(from *peer, id meetingID, answer []byte) {
	var more []PeerID
	s.post.mu.Lock()
	if r := s.post.routes[id]; r != nil {
		r.answer, more = answer, slices.Clone(r.more)
	}
	s.post.mu.Unlock()
	frame := wire.Reply{ID: id, Letter: answer}.Append(nil)
	from.sess.SendControl(frame)
	for _, id := range more {
		if p := s.find(id); p != nil {
			p.sess.SendControl(frame)
		}
	}
}

// replyCame reads a letter or gives it on.
func (s *Service) replyCame(from *peer, reply wire.Reply) {
	s.post.mu.Lock()
	r := s.post.routes[reply.ID]
	if r == nil || !s.post.spend(from.id, time.Now()) {
		s.post.mu.Unlock()
		if r != nil {
			s.refusedHelp.Add(1)
		}
		return
	}
	to := r.back
	switch {
	case from.id == r.back && !r.back.IsZero():
		to = r.on
	case r.on.IsZero():
		r.on = from.id
	}
	kind, take, peer, pays := r.kind, r.take, r.peer, r.pays
	s.post.mu.Unlock()
	if pays != nil && pays.pad(reply.Letter) {
		return
	}
	if take != nil {
		size := len(reply.Letter)
		s.read(slices.Clone(reply.Letter), reply.ID, kind, func(writer PeerID, l wire.Letter) {
			if writer == peer {
				pays.letter(l, size)
				take(l)
			}
		})
		return
	}
	if p := s.find(to); p != nil && s.cfg.Relay != RelayOff {
		p.sess.SendControl(reply.Append(nil))
	}
}

// read opens a letter beside the reader of a session, and hands over one that is
// what it should be.
func (s *Service) read(letter []byte, id meetingID, kind wire.LetterKind, take func(writer PeerID, l wire.Letter)) {
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	if s.post.reading >= maxReading {
		return
	}
	s.post.reading++
	s.spawn(func() {
		defer func() {
			s.post.mu.Lock()
			s.post.reading--
			s.post.mu.Unlock()
		}()
		writer, content, err := s.secure.OpenLetter(letter)
		if err != nil {
			s.log.Debug("a letter cannot be opened", "error", err)
			return
		}
		l, err := wire.ParseLetter(content)
		age := time.Since(time.UnixMilli(int64(l.Written))) //nolint:gosec // an absurd time is refused
		if err != nil || l.Kind != kind || l.ID != id || age.Abs() > letterSkew || writer == s.ID() {
			s.log.Debug("a letter says nothing of use", "writer", writer.Short(), "error", err)
			return
		}
		take(writer, l)
	})
}

// write seals a letter about ourselves, and returns what is in it.
func (s *Service) write(kind wire.LetterKind, id meetingID, to PeerID) ([]byte, wire.Letter, error) {
	l := wire.Letter{Kind: kind, ID: id, Written: uint64(time.Now().UnixMilli())}
	if kind != wire.LetterGo {
		eps, mapped, err := s.endpoints()
		if err != nil {
			return nil, l, err
		}
		l.Endpoints, l.Mapped = eps[:min(len(eps), wire.MaxLetterEndpoints)], mapped
		l.UDP, l.TCP = s.facts()
		s.discreet(kind, &l.UDP)
		s.discreet(kind, &l.TCP)
	}
	sealed, err := s.secure.SealLetter(nil, to, l.Append(nil))
	return sealed, l, err
}

// offered answers a letter of a size to us, and dials who wrote it.
func (s *Service) offered(from *peer, writer PeerID, l wire.Letter, size int) {
	if s.find(writer) == nil && !s.accept.Load() || s.dropped(writer) || s.bans(writer, netip.Addr{}) != nil {
		return
	}
	s.findOut()
	letter, mine, err := s.write(wire.LetterAnswer, l.ID, writer)
	if err != nil {
		s.log.Warn("cannot answer a letter", "error", err)
		return
	}
	pays, err := s.newAccount(writer, l.ID)
	if err != nil {
		return
	}
	pays.letter(l, size)
	defer s.reply(from, l.ID, letter)
	send := func(pad []byte) { from.sess.SendControl(wire.Reply{ID: l.ID, Letter: pad}.Append(nil)) }
	p := s.answering(writer, mine, l, pays, len(letter), s.isLocal(from), send)
	if p == nil {
		return
	}
	p.begin()
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	if r := s.post.routes[l.ID]; r != nil {
		r.kind, r.peer, r.pays, r.take = wire.LetterGo, writer, pays, func(wire.Letter) { p.start() }
	}
}

// answering dials who wrote a letter, and returns the punch that is to begin; nil for
// none. The rest is as in punch.
func (s *Service) answering(writer PeerID, mine, theirs wire.Letter, pays *account, letters int, local bool, send func([]byte)) *punching {
	s.mu.Lock()
	defer s.mu.Unlock()
	quiet, crossed := 0, false
	for a := range s.attempts {
		if a.quiet {
			quiet++
		}
		crossed = crossed || a.peer == writer && a.meets
		if a.peer == writer && !a.bootstrap && !a.meets && !a.info { // it dials already
			return nil
		}
	}
	if quiet >= max(1, s.cfg.MaxConnects/4) {
		return nil
	}
	a := &attempt{peer: writer, endpoints: theirs.Endpoints, mapped: marked(theirs.Endpoints, theirs.Mapped), pays: pays, quiet: true, local: local}
	if s.register(a, punchLife+meetPatience, s.runConnect) != nil {
		return nil // the other side dials as well
	}
	a.punch = s.punch(a, theirs.ID, mine, theirs, 0, crossed, pays, letters, send)
	return a.punch
}

// some returns up to n live peers at random, without two that are named.
func (s *Service) some(n int, without ...PeerID) (list []*peer) {
	s.lookup.RLock()
	for id, p := range s.peers {
		if !slices.Contains(without, id) {
			list = append(list, p)
		}
	}
	s.lookup.RUnlock()
	mathrand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:min(n, len(list))]
}

// cross tells the punches that a peer has asked for that we call it as well.
func (s *Service) cross(id PeerID) {
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	for _, p := range s.post.punches {
		if p.peer == id {
			p.tell(p.machine.Cross)
		}
	}
}

// meet seeks the peer of an attempt until it has told where it may be, or a
// session with it has come.
func (s *Service) meet(a *attempt) error {
	came := make(chan answer, 1)
	var ids []meetingID
	s.cross(a.peer)
	for pause := seekAgain; ; pause = min(2*pause, seekMost) {
		var id meetingID
		if _, err := rand.Read(id[:]); err != nil {
			return err
		}
		s.findOut()
		pays, err := s.newAccount(a.peer, id)
		if err != nil {
			return err
		}
		letter, mine, err := s.write(wire.LetterOffer, id, a.peer)
		if err != nil {
			return err
		}
		sent := time.Now()
		list := s.some(firstWidth, a.peer)
		if len(list) == 0 && len(ids) == 0 {
			return &Error{Op: "connect", Peer: a.peer, Code: CodeNoEndpoint, Err: errors.New("there is no peer that could introduce the two")}
		}
		take := func(l wire.Letter) {
			select {
			case came <- answer{l, mine, time.Since(sent), pays}:
			default: // there is one
			}
		}
		if s.post.open(id, &route{kind: wire.LetterAnswer, peer: a.peer, take: take, pays: pays}, sent) {
			ids = append(ids, id)
		}
		for _, p := range list {
			p.sess.SendControl(wire.Seek{ID: id, To: a.peer, Hops: firstHops, Letter: letter}.Append(nil))
		}
		timer := time.NewTimer(pause)
		select {
		case got := <-came:
			timer.Stop()
			s.met(a, got)
			return nil
		case <-a.ctx.Done():
			timer.Stop()
			if got, ok := late(s, a, came); ok {
				s.met(a, got)
				s.beyondRelay(a.peer, got.theirs.Endpoints, a.mapped)
			}
			return errNobody
		case <-timer.C:
		}
		if s.settled(a) != nil {
			return nil
		}
	}
}

// answer is what an attempt was waiting for.
type answer struct {
	theirs, mine wire.Letter
	round        time.Duration // that the letters took
	pays         *account
}

// met takes the answer of the peer of an attempt, and has both sides punch.
func (s *Service) met(a *attempt, got answer) {
	id := got.theirs.ID
	s.post.mu.Lock()
	by := s.find(s.post.routes[id].carrier())
	s.post.mu.Unlock()
	send := func(letter []byte) {
		if by != nil {
			by.sess.SendControl(wire.Reply{ID: id, Letter: letter}.Append(nil))
		}
	}
	var p *punching
	if s.mayTell(doubtful(got.mine.UDP, got.mine.TCP), 2*secure.LetterSize) { // the offer, and the go
		p = s.punch(a, id, got.mine, got.theirs, got.round, false, got.pays, 2*secure.LetterSize, send)
	}
	local := s.isLocal(by)
	s.mu.Lock()
	a.endpoints, a.pays, a.local = append([]Endpoint{}, got.theirs.Endpoints...), got.pays, local
	a.mapped = marked(a.endpoints, got.theirs.Mapped)
	a.punch = p
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.start()
	p.begin()
	if letter, _, err := s.write(wire.LetterGo, id, a.peer); err == nil {
		send(letter)
	}
}

// carrier returns who has brought the first reply.
func (r *route) carrier() PeerID {
	if r == nil {
		return PeerID{}
	}
	return r.on
}

// errNobody is why a seeker gives up.
var errNobody = errors.New("no peer has brought an answer")
