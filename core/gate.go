package crust

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
)

// The gate asks the program whether a peer may have a session. It runs code that is not
// ours: in goroutines that nobody waits for longer than Config.GateTimeout, not even
// Close, of which there are Config.MaxGates at most, and with no lock held.

// GateRequest is what Config.Gate is asked about: a peer that has proved its key, and with
// which there is no session.
type GateRequest struct {
	Peer     PeerID
	AppID    []byte
	Role     Role
	Endpoint Endpoint // the peer's end of the link, or of the link to its relay
	How      How      // Dialed or Punched: we would connect to it; Accepted: it begins; Relayed: either
	Outbound bool     // we have dialled
}

const (
	defaultGateTimeout = time.Second
	defaultMaxGates    = 64
	// gateMemory is for how long an answer holds for other links of the same peer: both
	// sides may dial, over several transports.
	gateMemory = 2 * time.Second
)

// checkGate checks what check has not, of the gate.
func (c *Config) checkGate() error {
	bad := func(format string, args ...any) error {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case c.GateTimeout < 0 || c.GateTimeout > maxGateTimeout:
		return bad("GateTimeout is %v, want 0 to %v", c.GateTimeout, maxGateTimeout)
	case c.MaxGates < 0 || c.MaxGates > mostGates:
		return bad("MaxGates is %d, want 0 to %d", c.MaxGates, mostGates)
	}
	if c.GateTimeout == 0 {
		c.GateTimeout = defaultGateTimeout
	}
	if c.MaxGates == 0 {
		c.MaxGates = defaultMaxGates
	}
	return nil
}

const (
	// maxGateTimeout leaves the rest of a handshake its time.
	maxGateTimeout = 5 * time.Second
	mostGates      = 4096
)

// gates is what a service is asking.
type gates struct {
	lives lives // of the goroutines in which the program decides, for which nobody waits

	mu      sync.Mutex
	asked   map[gateKey]*gateAsk
	running int
}

// gateKey is a peer in one life.
type gateKey struct {
	peer     PeerID
	instance uint64
}

// gateAsk is one question.
type gateAsk struct {
	done chan struct{} // closed when it is answered
	yes  bool          // set before that
	at   time.Time     // when it was asked, and then when it was answered; guarded by gates.mu
	over bool          // it is answered, or too late; guarded by gates.mu
}

// gated returns why the program's gate does not let a link make a session, nil when it
// does. A peer that has a session is not asked about.
func (s *Service) gated(link *secure.Link, a *adoption) *Error {
	if s.cfg.Gate == nil {
		return nil
	}
	id := link.Remote.Peer
	if p := s.find(id); p != nil && p.instance == link.Remote.Instance {
		return nil
	}
	refused := func(text string) *Error {
		return &Error{Op: "connect", Peer: id, Endpoint: a.endpoint, Code: CodeNotAllowed, Err: errors.New(text)}
	}
	ask := s.askGate(gateKey{id, link.Remote.Instance}, GateRequest{
		Peer: id, AppID: bytes.Clone(link.Remote.AppID), Role: Role(link.Remote.Role), Endpoint: a.endpoint, How: a.how, Outbound: link.Initiator,
	})
	if ask == nil {
		return refused("the gate is busy: too many peers wait for its answer")
	}
	timer := time.NewTimer(s.cfg.GateTimeout)
	defer timer.Stop()
	select {
	case <-ask.done:
	case <-timer.C:
		s.log.Warn("the gate has not answered in time, which refuses the peer", "peer", id.Short(), "within_ms", s.cfg.GateTimeout)
		return refused("the gate has not answered within " + s.cfg.GateTimeout.String())
	case <-s.ctx.Done():
		return &Error{Op: "connect", Peer: id, Endpoint: a.endpoint, Code: CodeCanceled}
	}
	if !ask.yes {
		return refused("the gate does not let the peer in")
	}
	return nil
}

// askGate puts a question to the program, unless it was put just now. It returns nil when too
// many are open.
func (s *Service) askGate(key gateKey, r GateRequest) *gateAsk {
	g, now := &s.gates, time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, ask := range g.asked { // at most MaxGates open ones, and as many answered
		if ask.over && now.Sub(ask.at) > gateMemory {
			delete(g.asked, k)
		}
	}
	if ask := g.asked[key]; ask != nil {
		return ask
	}
	if g.running >= s.cfg.MaxGates {
		return nil
	}
	if g.asked == nil {
		g.asked = make(map[gateKey]*gateAsk)
	}
	for k, ask := range g.asked {
		if len(g.asked) < 2*s.cfg.MaxGates {
			break
		}
		if ask.over {
			delete(g.asked, k)
		}
	}
	ask := &gateAsk{done: make(chan struct{}), at: now}
	g.asked[key] = ask
	g.running++
	s.begin(&g.lives, func() { s.decideGate(ask, r) })
	return ask
}

// decideGate is the goroutine in which the program answers. A panic in its code refuses.
func (s *Service) decideGate(ask *gateAsk, r GateRequest) {
	g := &s.gates
	defer func() {
		if why := recover(); why != nil {
			s.log.Error("the gate panics, which refuses the peer", "panic", why, "stack", string(debug.Stack()))
			ask.yes = false
		}
		g.mu.Lock()
		g.running--
		ask.at, ask.over = time.Now(), true
		g.mu.Unlock()
		close(ask.done)
	}()
	ask.yes = s.cfg.Gate(r)
}
