package crust

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/gossip"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Peers tell each other over their sessions where they and others can be dialled. What
// is told to whom the room gossip decides; this is its owner. Readers of sessions hand
// over what comes. One goroutine does the rest: it says where we are, has the machine do
// what is due, sends what it returns and tells the program.
//
//	reader of a session ──gossipCame──▶ Machine ◀──join, leave── adopt, lose
//	                                       │
//	goroutine ◀──messages, facts, deadline─┘   ▶ SendSpare, EventDiscovered, EventForgotten
//
// Its frames go behind all messages, and not at all where many wait: a link that is busy
// is the poorest place for them, and what is lost here is found by digests later.

// GossipMode says how a service takes part in gossip.
type GossipMode uint8

const (
	// GossipOn tells peers where this service can be dialled, and learns and tells on
	// where others can.
	GossipOn GossipMode = 0
	// GossipAnswer tells where this service can be dialled to peers that ask, begins
	// nothing, and learns nothing.
	GossipAnswer GossipMode = 1
	// GossipOff takes no part.
	GossipOff GossipMode = 2
)

// String returns "on", "answer" or "off".
func (m GossipMode) String() string { return wordOf(m, "on", "answer", "off") }

// ParseGossipMode reads "on", "answer" or "off".
func ParseGossipMode(text string) (GossipMode, error) {
	for m := GossipOn; m <= GossipOff; m++ {
		if m.String() == text {
			return m, nil
		}
	}
	return 0, &Error{Op: "parse", Code: CodeInvalid, Err: fmt.Errorf("gossip is on, answer or off, not %q", text)}
}

// ownRest is the least time between two looks at where we can be dialled.
const ownRest = 250 * time.Millisecond

// With manyTold peers and more there is a pause of toldRest for each between two ticks of
// the machine: 50 ms with 2,000.
const (
	manyTold = 128
	toldRest = 25 * time.Microsecond
)

// checkGossip checks what check has not, of gossip.
func (c *Config) checkGossip() error {
	if c.Gossip > GossipOff {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf("gossip mode %d is unknown", c.Gossip)}
	}
	return nil
}

// gossiping is a service's part in gossip.
type gossiping struct {
	stir chan struct{} // has room for one: something is to be done; constant after New, nil when gossip is off
	over chan struct{} // closed when the goroutine has ended; likewise
	look atomic.Bool   // where we can be dialled may have changed

	mu      sync.Mutex // taken with no other lock held
	machine *gossip.Machine
	joined  map[PeerID]*partner

	told map[PeerID]discovery // what the program knows; the goroutine's own
}

// partner is a session that takes part.
type partner struct {
	p      *peer
	missed bool // it did not get all that it should
}

// discovery is what an EventDiscovered has told.
type discovery struct {
	at   Endpoint
	role Role
}

// openGossip makes what gossip needs. Its goroutine is started when the listeners are
// there.
func (s *Service) openGossip() error {
	if s.cfg.Gossip == GossipOff {
		return nil
	}
	g := &s.gossip
	cfg := gossip.Config{Self: s.ID(), Sign: s.key.Sign, Mode: gossip.Mode(s.cfg.Gossip), Shun: s.shunned}
	if _, err := rand.Read(cfg.Seed[:]); err != nil {
		return &Error{Op: "new", Code: CodeInternal, Err: err}
	}
	g.machine = gossip.New(cfg, time.Now())
	g.joined, g.told = make(map[PeerID]*partner), make(map[PeerID]discovery)
	g.stir, g.over = make(chan struct{}, 1), make(chan struct{})
	return nil
}

// startGossip begins to take part.
func (s *Service) startGossip() {
	if s.gossip.stir != nil {
		s.gossip.moved()
		s.spawn(s.gossips)
	}
}

// poke has the goroutine do what is due. It may be called with any lock held.
func (g *gossiping) poke() {
	select {
	case g.stir <- struct{}{}:
	default: // it will, or there is none
	}
}

// moved says that where we can be dialled may have changed. It may be called with any
// lock held.
func (g *gossiping) moved() {
	g.look.Store(true)
	g.poke()
}

// gossips is the goroutine of gossip.
func (s *Service) gossips() {
	g := &s.gossip
	defer close(g.over)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var looked time.Time
	for {
		select {
		case <-g.stir:
		case <-timer.C:
		case <-s.ctx.Done():
			s.sayGoodbye()
			return
		}
		var again time.Time // zero: when something happens
		if g.look.Load() {
			if again = looked.Add(ownRest); !time.Now().Before(again) {
				g.look.Store(false)
				s.tellWhere()
				again, looked = time.Time{}, time.Now()
			}
		}
		out, facts, next := s.tick()
		s.send(out)
		for _, f := range facts {
			s.tellFact(f)
		}
		if again.IsZero() || !next.IsZero() && next.Before(again) {
			again = next
		}
		g.rest(s.ctx)
		if timer.Stop(); !again.IsZero() {
			timer.Reset(time.Until(again))
		}
	}
}

// rest waits after a tick, which looks at every peer: with very many of them what they
// say is looked at together, so that this takes no more than about a hundredth of the time.
func (g *gossiping) rest(ctx context.Context) {
	g.mu.Lock()
	n := len(g.joined)
	g.mu.Unlock()
	if n < manyTold {
		return
	}
	timer := time.NewTimer(time.Duration(n) * toldRest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// tellWhere makes our own record anew when where we can be dialled has changed.
func (s *Service) tellWhere() {
	eps, flags, role := s.dialableAt(), s.recordFlags(), s.standing()
	g := &s.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.letsIn() {
		g.machine.Own(time.Now(), eps, uint8(role), flags)
	} else {
		g.machine.Rest()
	}
}

// tick has the machine do what is due. Only the goroutine calls it.
func (s *Service) tick() ([]gossip.Message, []gossip.Fact, time.Time) {
	g := &s.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machine.Tick(time.Now())
}

// send sends what the machine says, behind all messages. What a session does not take
// now is lost.
func (s *Service) send(out []gossip.Message) {
	for _, m := range out {
		if p := s.find(m.To); p == nil || !p.sess.SendSpare(m.Frame) {
			s.missed(m.To)
		}
	}
}

// missed notes that a peer did not get what it should.
func (s *Service) missed(id PeerID) {
	g := &s.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.joined[id]; at != nil {
		at.missed = true
	}
}

// sayGoodbye tells the peers that we go: they shall not dial us any more.
func (s *Service) sayGoodbye() {
	g := &s.gossip
	g.mu.Lock()
	g.machine.Depart(time.Now())
	g.mu.Unlock()
	out, _, _ := s.tick()
	for _, m := range out {
		if p := s.find(m.To); p != nil {
			p.sess.SendControl(m.Frame) // it goes out before the session ends
		}
	}
}

// endGossip waits until the peers were told that we go. The service stops.
func (s *Service) endGossip() {
	if s.gossip.over != nil {
		<-s.gossip.over
	}
}

// takesPart reports whether gossip goes on with a session.
func (s *Service) takesPart(p *peer) bool {
	return s.gossip.stir != nil && p.sess.Remote().Flags&wire.FlagGossip != 0
}

// joinGossip has a session take part, if it does not yet. It has begun.
func (s *Service) joinGossip(p *peer) {
	if !s.takesPart(p) {
		return
	}
	g := &s.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	s.enroll(p)
	g.poke()
}

// enroll is joinGossip with gossip.mu held.
func (s *Service) enroll(p *peer) {
	g := &s.gossip
	if at := g.joined[p.id]; at != nil && at.p == p || s.find(p.id) != p { // or it has left
		return
	}
	g.joined[p.id] = &partner{p: p}
	_, how := s.whereabouts(p)
	g.machine.Join(time.Now(), gossip.Peer{
		ID: p.id, News: p.sess.Remote().Flags&wire.FlagNews != 0, Outbound: how == Dialed || how == Mapped, Local: s.isLocal(p),
	})
}

// rejoinGossip begins anew with a session that has got another link, when it has missed
// something meanwhile.
func (s *Service) rejoinGossip(p *peer) {
	if !s.takesPart(p) {
		return
	}
	g := &s.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.joined[p.id]; at != nil && at.p == p && at.missed {
		delete(g.joined, p.id)
		s.enroll(p)
		g.poke()
	}
}

// leaveGossip ends the part of a session, which is out of the table.
func (s *Service) leaveGossip(p *peer) {
	if !s.takesPart(p) {
		return
	}
	g := &s.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := g.joined[p.id]; at != nil && at.p == p {
		delete(g.joined, p.id)
		g.machine.Leave(time.Now(), p.id)
		g.poke()
	}
}

// gossipCame takes the body of a FrameGossip. An error ends the session.
func (s *Service) gossipCame(p *peer, body []byte) error {
	if !s.takesPart(p) {
		return nil
	}
	g := &s.gossip
	g.mu.Lock()
	s.enroll(p) // the peer may have been quicker than who began the session
	before := refusedOf(g.machine.Stats())
	err := g.machine.Receive(time.Now(), p.id, body)
	refused := refusedOf(g.machine.Stats()) - before
	g.poke()
	g.mu.Unlock()
	if refused > 0 {
		s.charge(s.whoIs(p), AlertGossip, int(refused), uint64(len(body)), 0)
	}
	return err
}

// refusedOf counts the records that were refused through the fault of who told them.
func refusedOf(st gossip.Stats) uint64 { return st.Unchecked + st.Forged + st.Astray }

// tellFact tells the program of a peer that it is not connected to. What it was told of
// it is told to have forgotten, connected or not, however many events wait: there are no
// more of these than of the others.
func (s *Service) tellFact(f gossip.Fact) {
	told, id := s.gossip.told, f.Contact.Peer
	if f.Kind == gossip.Forgotten {
		if _, ok := told[id]; ok {
			delete(told, id)
			s.events.push(Event{Type: EventForgotten, Peer: id, detail: &detail{by: ByGossip}})
		}
		return
	}
	if len(f.Contact.Endpoints) == 0 { // of transports that we do not know
		return
	}
	d := discovery{f.Contact.Endpoints[0], roleOf(f.Contact)}
	if before, ok := told[id]; ok && before == d || s.find(id) != nil {
		return
	}
	if s.events.pushNews(Event{Type: EventDiscovered, Peer: id, detail: &detail{endpoint: d.at, role: d.role, by: ByGossip}}) {
		told[id] = d
	}
	s.heardOf(id)
}

// The bounds of two rooms must agree.
var (
	_ = [1]struct{}{}[GossipOff-GossipMode(gossip.Off)]
	_ = [1]struct{}{}[GossipAnswer-GossipMode(gossip.Answer)]
	_ = [session.MaxSpare/4 - wire.MaxGossip]struct{}{} // several fit
)
