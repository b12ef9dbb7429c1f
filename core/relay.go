package crust

import (
	"errors"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A peer that is connected to two others may carry a link between them, a circuit:
//
//	opener ──Open, Data…──▶ relay ──Open, Data…──▶ target
//	       ◀──Data, Credit──      ◀──Data, Credit──
//
// The opener does not wait for an answer: its handshake goes behind Open. The
// relay sees ids and sizes only; the two ends shake hands with each other as over
// any connection. What it carries goes after its own messages (session.SendLow).
// At most wire.RelayWindow bytes are under way in each direction, so the relay
// holds no more, and an end that reads slowly slows its own sender only.
//
// A circuit is bound to the two links that it goes over: when a session loses its
// link or goes over to another one, its circuits break, and the sessions over them
// look for another link.

// RelayMode tells what a service does for peers that cannot reach each other.
type RelayMode uint8

const (
	// RelaySignal carries letters by which two peers meet, and sends a peer that asks
	// for it a single probe, at the address that its link comes from. No more.
	RelaySignal RelayMode = 0
	// RelayOff does nothing for others.
	RelayOff RelayMode = 1
	// RelayData carries letters and links, within the limits of Config.
	RelayData RelayMode = 2
)

const (
	// openRate bounds the circuits that a peer may open or announce in a second, and
	// openBurst how many at once.
	openRate  = 10
	openBurst = 64
	// paceBurst is for how long a relay that was idle may carry at any rate.
	paceBurst = time.Second / 8
)

// port is an end of a circuit at a session. All but what is constant is guarded by
// circuits.mu.
type port struct {
	// constant
	p       *peer
	at      session.Line
	id      uint32
	conn    *relayConn // who uses the circuit; nil when it is carried for others
	circuit *circuit   // that is carried; else nil
	other   *port      // of a carried circuit: where what comes goes on

	owed int    // bytes that came by this port and were not granted again
	held []byte // frames of data that came by it and wait, for other
	gone bool   // it is not in the table
}

// send queues a frame, and reports false when the port's link is gone.
func (t *port) send(frame []byte) bool { return t.p.sess.SendLow(t.at, frame) }

// circuit is one that is carried for others.
type circuit struct {
	ports [2]*port
	bytes int // carried so far
	until time.Time
}

// caller is who has circuits to us that are neither sessions nor closed yet.
type caller struct {
	circuits int
	due      time.Time // when its session may begin at the earliest
}

// circuits is what a service knows of circuits. Its lock comes after Service.mu,
// and before those of sessions and connections.
type circuits struct {
	mu      sync.Mutex
	ports   map[session.Line]map[uint32]*port
	last    uint32            // the last id that was chosen
	callers map[PeerID]caller // who has circuits to us that are no sessions yet, as relays say
	carried map[*circuit]struct{}
	perPeer map[PeerID]int
	budgets map[PeerID]*budget
	swept   time.Time
	bytes   uint64 // carried ever

	stock    map[*peer][]wire.OneTimeKey // that peers have left here, the newest last
	left     map[*peer]*leftKeys         // that we have left with relays
	renewing bool                        // renewKeys runs
	parted   map[PeerID]time.Time        // when the last session with a peer ended, lately
	unsure   time.Time                   // parted has lost what is before that

	tokens  float64 // bytes that may be carried now; may be negative
	filled  time.Time
	holding []*port // those with held frames, in turn
	keeping bool    // the keeper runs
	nudge   chan struct{}
	scratch []byte
}

// add enters a port. mu is held.
func (c *circuits) add(t *port) {
	if c.ports == nil {
		c.ports = make(map[session.Line]map[uint32]*port)
	}
	if c.ports[t.at] == nil {
		c.ports[t.at] = make(map[uint32]*port)
	}
	c.ports[t.at][t.id] = t
}

// remove takes a port out. mu is held.
func (c *circuits) remove(t *port) {
	if t.gone {
		return
	}
	t.gone, t.held = true, nil
	delete(c.ports[t.at], t.id)
	if len(c.ports[t.at]) == 0 {
		delete(c.ports, t.at)
	}
}

// forget is remove for who uses the circuit.
func (c *circuits) forget(t *port) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(t)
}

// counts returns the circuits that are carried, and the bytes that ever were.
func (c *circuits) counts() (now int, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.carried), c.bytes
}

// name returns a new id for a circuit that we open on a session. mu is held.
func (c *circuits) name(s *Service, p *peer) uint32 {
	c.last++
	if s.ID().Compare(p.id) > 0 {
		return c.last<<1 | 1
	}
	return c.last << 1
}

// mayOpen reports whether a peer's circuit is within its budget. mu is held.
func (c *circuits) mayOpen(p *peer, now time.Time) bool {
	if c.budgets == nil {
		c.budgets = make(map[PeerID]*budget)
	}
	if now.Sub(c.swept) > time.Minute {
		c.swept = now
		for id, b := range c.budgets {
			if now.Sub(b.at) > time.Minute {
				delete(c.budgets, id)
			}
		}
	}
	b := c.budgets[p.id]
	if b == nil {
		b = &budget{left: openBurst, at: now}
		c.budgets[p.id] = b
	}
	b.left = min(b.left+openRate*now.Sub(b.at).Seconds(), openBurst)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// Relay takes the frames of circuits.
func (o *owner) Relay(sess *session.Session, at session.Line, t wire.FrameType, body []byte) error {
	s, p := (*Service)(o), sess.Tag.(*peer)
	c := &s.circuits
	var refused, announced bool
	defer func() { // with no lock held
		if refused {
			s.refusedHelp.Add(1)
			if !announced { // else others have asked the peer
				s.charge(s.whoIs(p), AlertRelay, 1, uint64(len(body)), 0)
			}
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch t {
	case wire.FrameRelayOpen:
		open, err := wire.ParseRelayOpen(body)
		if err != nil {
			return err
		}
		reason, err := s.circuitOpened(p, at, open)
		refused = reason == wire.RelayLimit || reason == wire.RelayNotAllowed
		announced = open.From
		return err
	case wire.FrameRelayData, wire.FrameRelayEarly:
		id, data, err := wire.ParseRelayBytes(t, body)
		if err != nil {
			return err
		}
		if p := c.ports[at][id]; p != nil { // else it has been closed here
			s.circuitData(p, t, data)
		}
	case wire.FrameRelayKeys:
		return s.keysCame(p, body)
	case wire.FrameRelayKey:
		id, key, err := wire.ParseRelayKey(body)
		if err != nil {
			return err
		}
		if t := c.ports[at][id]; t != nil && t.conn != nil {
			t.conn.keyCame(key)
		}
	case wire.FrameRelayCredit:
		id, n, err := wire.ParseRelayCredit(body)
		if err != nil {
			return err
		}
		if t := c.ports[at][id]; t != nil {
			s.circuitCredit(t, int(n))
		}
	case wire.FrameRelayClose:
		id, reason, err := wire.ParseRelayClose(body)
		if err != nil {
			return err
		}
		if t := c.ports[at][id]; t != nil {
			s.circuitClosed(t, reason)
		}
	}
	return nil
}

// circuitOpened begins a circuit that a peer asks for or announces. It returns the reason why
// not. mu is held.
func (s *Service) circuitOpened(p *peer, at session.Line, open wire.RelayOpen) (reason wire.RelayReason, err error) {
	c := &s.circuits
	if (open.ID&1 == 1) != (p.id.Compare(s.ID()) > 0) {
		return wire.RelayDone, errors.New("relay open: the id is not the sender's to choose")
	}
	if c.ports[at][open.ID] != nil {
		return wire.RelayDone, errors.New("relay open: there is a circuit of this id")
	}
	take := s.carry
	if open.From {
		take = s.takeCircuit
	}
	reason = take(p, at, open)
	if reason != wire.RelayDone {
		p.sess.SendLow(at, wire.AppendRelayClose(nil, open.ID, reason))
	}
	return reason, nil
}

// carry begins to carry a circuit that a peer asks for, or returns why not. mu is
// held.
func (s *Service) carry(p *peer, at session.Line, open wire.RelayOpen) wire.RelayReason {
	c, now := &s.circuits, time.Now()
	if s.cfg.Relay != RelayData || s.ctx.Err() != nil {
		return wire.RelayNotAllowed
	}
	if !c.mayOpen(p, now) {
		return wire.RelayLimit
	}
	q := s.find(open.Peer)
	if q == nil || q == p {
		return wire.RelayNoPeer
	}
	for _, end := range []*peer{p, q} { // circuits over circuits could go round in circles
		if _, how := s.whereabouts(end); how == Relayed {
			return wire.RelayNoPeer
		}
	}
	if len(c.carried) >= s.cfg.RelayCircuits || c.perPeer[p.id] >= s.cfg.RelayPerPeer || c.perPeer[q.id] >= s.cfg.RelayPerPeer {
		return wire.RelayLimit
	}
	to, ok := q.sess.At()
	if !ok {
		return wire.RelayNoPeer
	}
	k := &circuit{until: now.Add(s.cfg.RelayLifetime)}
	near, far := &port{p: p, at: at, id: open.ID, circuit: k}, &port{p: q, at: to, id: c.name(s, q), circuit: k}
	near.other, far.other, k.ports = far, near, [2]*port{near, far}
	announce := wire.RelayOpen{ID: far.id, From: true, Peer: p.id}
	key := c.key(q, open.Keyed)
	if key != nil {
		announce.Keyed, announce.Key = true, key.Name()
	}
	if !far.send(announce.Append(nil)) {
		return wire.RelayNoPeer
	}
	if key != nil {
		near.send(wire.AppendRelayKey(nil, near.id, key))
	}
	if c.carried == nil {
		c.carried, c.perPeer, c.nudge = make(map[*circuit]struct{}), make(map[PeerID]int), make(chan struct{}, 1)
	}
	c.carried[k] = struct{}{}
	c.perPeer[p.id]++
	c.perPeer[q.id]++
	c.add(near)
	c.add(far)
	c.keep(s)
	s.log.Debug("link carried", "from", p.id, "to", q.id)
	return wire.RelayDone
}

// keep sees to it that the keeper looks. mu is held.
func (c *circuits) keep(s *Service) {
	if !c.keeping {
		c.keeping = true
		s.spawn(s.keepCircuits)
		return
	}
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

// over takes a carried circuit out of the tables. mu is held.
func (c *circuits) over(k *circuit) {
	if _, ok := c.carried[k]; !ok {
		return
	}
	delete(c.carried, k)
	for _, t := range k.ports {
		c.remove(t)
		if c.perPeer[t.p.id]--; c.perPeer[t.p.id] == 0 {
			delete(c.perPeer, t.p.id)
		}
	}
}

// end ends a carried circuit and tells both ends why. mu is held.
func (c *circuits) end(k *circuit, reason wire.RelayReason) {
	for _, t := range k.ports {
		t.send(wire.AppendRelayClose(nil, t.id, reason))
	}
	c.over(k)
}

// spend reports whether n bytes may be carried now, and counts them if so. mu is
// held.
func (c *circuits) spend(s *Service, n int, now time.Time) bool {
	rate := float64(s.cfg.RelayBytesPerSecond)
	c.tokens = min(c.tokens+rate*now.Sub(c.filled).Seconds(), rate*paceBurst.Seconds())
	c.filled = now
	if c.tokens <= 0 {
		return false
	}
	c.tokens -= float64(n)
	return true
}

// circuitData takes bytes of a circuit, as a frame of a type has brought them. mu is held.
func (s *Service) circuitData(t *port, kind wire.FrameType, data []byte) {
	c := &s.circuits
	if t.conn != nil {
		granted, ok := 0, false
		if kind == wire.FrameRelayEarly {
			granted, ok = t.conn.takeEarly(data)
		} else {
			ok = t.conn.take(data)
		}
		if !ok {
			s.breakPort(t)
		} else if granted > 0 {
			t.send(wire.AppendRelayCredit(nil, t.id, uint32(granted))) //nolint:gosec // at most wire.RelayWindow
		}
		return
	}
	cost := wire.RelayCost(len(data))
	t.owed += cost
	t.circuit.bytes += len(data)
	switch {
	case t.owed > wire.RelayWindow:
		c.end(t.circuit, wire.RelayBroken)
		return
	case t.circuit.bytes > s.cfg.RelayBytesPerCircuit:
		c.end(t.circuit, wire.RelayLimit)
		return
	}
	c.bytes += uint64(len(data))
	if len(t.held) > 0 || !c.spend(s, cost, time.Now()) {
		if len(t.held) == 0 {
			c.holding = append(c.holding, t)
		}
		t.held = wire.AppendRelayAs(t.held, kind, t.other.id, data)
		c.keep(s)
		return
	}
	c.scratch = wire.AppendRelayAs(c.scratch[:0], kind, t.other.id, data)
	if !t.other.send(c.scratch) {
		c.end(t.circuit, wire.RelayBroken)
	}
}

// pass sends the first of the frames that t holds, and returns its size: 0 when
// there is none. mu is held.
func (c *circuits) pass(t *port) int {
	if len(t.held) == 0 {
		return 0
	}
	_, _, rest, err := wire.NextFrame(t.held)
	if err != nil { // it cannot be: they are ours
		c.end(t.circuit, wire.RelayBroken)
		return 0
	}
	n := len(t.held) - len(rest)
	if !t.other.send(t.held[:n]) {
		c.end(t.circuit, wire.RelayBroken)
		return 0
	}
	if t.held = rest; len(rest) == 0 {
		t.held = nil
	}
	return n
}

// circuitCredit takes a grant of an end. mu is held.
func (s *Service) circuitCredit(t *port, n int) {
	c := &s.circuits
	if t.conn != nil {
		if !t.conn.grant(n) {
			s.breakPort(t)
		}
		return
	}
	if t.other.owed -= n; t.other.owed < 0 {
		c.end(t.circuit, wire.RelayBroken)
		return
	}
	if !t.other.send(wire.AppendRelayCredit(nil, t.other.id, uint32(n))) { //nolint:gosec // ParseRelayCredit has checked it
		c.end(t.circuit, wire.RelayBroken)
	}
}

// circuitClosed takes the end of a circuit: what came before it goes first. mu is
// held.
func (s *Service) circuitClosed(t *port, reason wire.RelayReason) {
	c := &s.circuits
	if t.conn != nil {
		t.conn.ended(reason)
		c.remove(t)
		return
	}
	for n := c.pass(t); n > 0; n = c.pass(t) {
		c.tokens -= float64(n)
	}
	if !t.gone {
		t.other.send(wire.AppendRelayClose(nil, t.other.id, reason))
		c.over(t.circuit)
	}
}

// breakPort ends a circuit of ours of which the relay has done something wrong. mu
// is held.
func (s *Service) breakPort(t *port) {
	t.conn.ended(wire.RelayBroken)
	t.send(wire.AppendRelayClose(nil, t.id, wire.RelayBroken))
	s.circuits.remove(t)
}

// cutCircuits breaks the circuits over a session that are not on the link that it
// has now.
func (s *Service) cutCircuits(sess *session.Session) {
	c := &s.circuits
	c.mu.Lock()
	defer c.mu.Unlock()
	now, linked := sess.At()
	for at, ports := range c.ports {
		for _, t := range ports {
			if t.p.sess != sess || linked && at == now {
				break // all ports of a line are of one session
			}
			if t.conn != nil {
				t.conn.ended(wire.RelayBroken)
				c.remove(t)
			} else {
				c.end(t.circuit, wire.RelayBroken)
			}
		}
	}
}

// keepCircuits is a goroutine that passes on what waits for its turn, and ends
// circuits that are too old, while there are circuits.
func (s *Service) keepCircuits() {
	c := &s.circuits
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.mu.Lock()
		next := s.serveCircuits(time.Now())
		if len(c.carried) == 0 {
			c.keeping, c.scratch, c.holding = false, nil, nil
			c.mu.Unlock()
			return
		}
		nudge := c.nudge
		c.mu.Unlock()
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-nudge:
		case <-s.ctx.Done(): // the sessions end, and the circuits with them
			return
		}
	}
}

// serveCircuits does what is due, and returns when to look again. mu is held.
func (s *Service) serveCircuits(now time.Time) time.Duration {
	c, next := &s.circuits, s.cfg.RelayLifetime
	for k := range c.carried {
		if left := k.until.Sub(now); left <= 0 {
			c.end(k, wire.RelayLimit)
		} else {
			next = min(next, left)
		}
	}
	for len(c.holding) > 0 {
		t := c.holding[0]
		if len(t.held) > 0 && !c.spend(s, 0, now) {
			lack := time.Duration(-c.tokens / float64(s.cfg.RelayBytesPerSecond) * float64(time.Second))
			return min(next, max(lack, time.Millisecond))
		}
		c.holding = c.holding[1:]
		c.tokens -= float64(c.pass(t))
		if len(t.held) > 0 {
			c.holding = append(c.holding, t)
		}
	}
	return next
}
