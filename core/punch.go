package crust

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/punch"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Two peers that have met by letters open their NATs together. What to send and
// to dial is for nat/punch; here it is done. The pair of endpoints that works gets
// the ordinary handshake.

const (
	// punchLife bounds one punch.
	punchLife = 20 * time.Second
	// maxPunches bounds those under way: each costs a trial of its key for every
	// datagram from a stranger.
	maxPunches = 16
	// punchQueue is how many things may have happened that were not looked at yet.
	punchQueue = 256
	// turnPatience is how long the side with the greater peer id waits for the other
	// one to begin the handshake on a connection that both may have dialled.
	turnPatience = 400 * time.Millisecond
	// maxHeard bounds the probes of one punch that are listened to.
	maxHeard = 4096
)

// punching is one punch under way. Its goroutine owns the machine.
type punching struct {
	s       *Service
	attempt *attempt
	peer    PeerID
	account *account // its lock guards the machine, too
	machine *punch.Machine
	payer   *payer // the goroutine's
	life    time.Duration
	forget  func()                   // takes it from the service's table
	events  chan func(now time.Time) // for the goroutine
	ready   chan struct{}            // closed by go
	once    sync.Once
	dials   map[int]context.CancelFunc // the goroutine's
	holes   []*hole                    // the goroutine's
	own     *udpSocket                 // the goroutine's: a hole that was nominated
	tokens  map[way]uint64             // the goroutine's: the last that came by a pair of endpoints
	failed  []failed                   // the goroutine's: openers that could not be sent
	ports   map[int]uint16             // the goroutine's: of Dial.Hold
	settled chan struct{}              // closed when TCP has come, or will not
	settle  sync.Once
	done    chan struct{} // closed when it is over

	mu    sync.Mutex
	heard map[[16]byte]struct{}
	pair  netip.AddrPort              // the peer's endpoint that was nominated
	to    map[netip.AddrPort]struct{} // what was dialled by TCP
}

// way is a pair of endpoints: of one of our sockets, and of the peer.
type way struct {
	socket int
	remote netip.AddrPort
}

// failed is an opener of TCP that could not be sent.
type failed struct {
	id  int // of the Dial
	err error
}

// hole is a socket that was opened for one punch. Something else reads from it
// once it is the chosen one.
type hole struct {
	conn  netio.PacketConn
	turn  chan struct{} // has room for one, who reads
	taken atomic.Bool   // by a udpSocket
}

// ReadBatch reads for the udpSocket that the hole has become.
func (h *hole) ReadBatch(ps []netio.Packets) (int, error) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	return h.conn.ReadBatch(ps)
}

func (h *hole) LocalAddr() netip.AddrPort           { return h.conn.LocalAddr() }
func (h *hole) WriteBatch(ps []netio.Packets) error { return h.conn.WriteBatch(ps) }
func (h *hole) MaxSegments() int                    { return h.conn.MaxSegments() }
func (h *hole) Close() error                        { return h.conn.Close() }

// punch makes a punch with the peer of an attempt, unless too many are under way; it
// is to be begun. Both letters are as they were written. round is how long the answer to ours took,
// zero for the side that was sought; crossed says that this one has called the peer as well.
// c pays for what is sent; letters is what ours will have paid the peer, and send hands
// pads to who carries them.
func (s *Service) punch(
	a *attempt, id meetingID, mine, theirs wire.Letter, round time.Duration, crossed bool, c *account, letters int, send func([]byte),
) *punching {
	cfg := punch.Config{RTT: round, Waits: round == 0, Crossed: crossed, UDP: true, TCP: true}
	if !theirs.TCP.Openers || !theirs.TCP.External.Addr().Is4() { // openers of IPv6 may not live long
		cfg.Lead = round / 2
	}
	return s.punchWith(a, id, mine, theirs, cfg, punchLife, c, letters, send)
}

// punchWith is punch with a configuration that lacks what follows from the letters,
// for as long as life, at most punchLife.
func (s *Service) punchWith(
	a *attempt, id meetingID, mine, theirs wire.Letter, cfg punch.Config, life time.Duration, c *account, letters int, send func([]byte),
) *punching {
	if !s.allows(Punched) {
		return nil
	}
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil
	}
	side := func(l wire.Letter) punch.Side { return punch.Side{UDP: l.UDP, TCP: l.TCP, Candidates: l.Endpoints} }
	larger := s.ID().Compare(a.peer) > 0
	wide := sprays(mine.UDP, theirs.UDP, larger) || sprays(mine.TCP, theirs.TCP, larger)
	cfg.Mine, cfg.Theirs, cfg.Larger, cfg.Account, cfg.Never = side(mine), side(theirs), larger, &c.purse, s.routers()
	cfg.Seed = binary.NativeEndian.Uint64(seed[:])
	cfg.Ours, _ = s.network.Addrs() // without them, what is near is known from what we have told
	if p := s.find(a.peer); p != nil {
		if ep, how := s.whereabouts(p); how != Relayed {
			cfg.Vouched = append(cfg.Vouched, ep.Addr.Addr())
		}
	}
	pays := newPayer(cfg, letters, time.Now(), send, func(bytes int) bool { return s.mayTell(doubtful(mine.UDP, mine.TCP), bytes) })
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	if len(s.post.punches) >= maxPunches || s.post.punches[id] != nil {
		return nil
	}
	wide = wide && cfg.Budget == punch.Budget{} // else no ports are guessed
	if wide && s.post.spraying {
		cfg.Budget.Sprays, cfg.Budget.Sprayed, wide = 1, 1, false
	}
	s.post.spraying = s.post.spraying || wide
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &punching{
		s: s, attempt: a, peer: a.peer, account: c, machine: punch.New(cfg, time.Now()), payer: pays,
		events: make(chan func(time.Time), punchQueue), ready: make(chan struct{}), done: make(chan struct{}), tokens: make(map[way]uint64),
		dials: make(map[int]context.CancelFunc), heard: make(map[[16]byte]struct{}), to: make(map[netip.AddrPort]struct{}),
		life: life, settled: make(chan struct{}), ports: make(map[int]uint16),
	}
	streams := func(l wire.Letter) bool {
		return slices.ContainsFunc(l.Endpoints, func(e Endpoint) bool { return e.Transport == TCP })
	}
	if !streams(mine) && !streams(theirs) {
		p.settle.Do(func() { close(p.settled) })
	}
	c.wake = func() { p.tell(func(time.Time) { p.machine.Earned() }) }
	if s.post.punches == nil {
		s.post.punches = make(map[meetingID]*punching)
	}
	s.post.punches[id] = p
	p.forget = func() {
		s.post.mu.Lock()
		defer s.post.mu.Unlock()
		delete(s.post.punches, id)
		if wide {
			s.post.spraying = false
		}
	}
	return p
}

// begin sends the first openers, which no letter may overtake, or shoots if it has been
// told to, and starts the goroutine. It is called once.
func (p *punching) begin() {
	ctx, cancel := context.WithTimeout(p.s.ctx, p.life)
	p.s.log.Debug("punching begun", "peer", p.peer)
	select {
	case <-p.ready:
		p.do(p.machine.Shoot)
	default:
	}
	next := p.poll(ctx)
	p.s.spawn(func() {
		defer cancel()
		p.run(ctx, next)
		p.forget()
	})
}

// sprays reports whether one side may have to guess many ports of the other. One
// punch at a time does that: it takes many sockets, and room in the tables of routers.
func sprays(mine, theirs wire.NAT, larger bool) bool {
	return punch.Plan(mine, theirs, larger).Strategy >= punch.Spray
}

// start lets the machine shoot.
func (p *punching) start() { p.once.Do(func() { close(p.ready) }) }

// tell hands something to the goroutine. What comes too fast is lost.
func (p *punching) tell(f func(now time.Time)) {
	select {
	case p.events <- f:
	default:
	}
}

// run is the goroutine of a punch, of which the machine has been asked already.
func (p *punching) run(ctx context.Context, next time.Time) {
	defer p.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	linger := time.NewTimer(punchLife)
	defer linger.Stop()
	ready, resolved := p.ready, p.attempt.ctx.Done()
	for ; ; next = p.poll(ctx) {
		if due := p.payer.pay(time.Now(), p.account.key); due.Before(next) {
			next = due
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-ready:
			ready = nil
			p.do(p.machine.Shoot)
		case f := <-p.events:
			p.do(f)
		case <-resolved: // there is a session, or the program wants none any more
			resolved = nil
			linger.Reset(punch.Linger)
		case <-linger.C:
			if !p.s.isRelayed(p.peer) {
				return
			}
			linger.Reset(punch.Linger) // a direct link is better
		case <-ctx.Done():
			return
		}
	}
}

// do does something with the machine.
func (p *punching) do(f func(now time.Time)) {
	p.account.mu.Lock()
	defer p.account.mu.Unlock()
	f(time.Now())
}

// poll does what the machine wants, and returns when to ask it again.
func (p *punching) poll(ctx context.Context) (next time.Time) {
	var acts []punch.Action
	met := p.s.find(p.peer)
	for again := true; again; again = len(p.failed) > 0 {
		p.do(func(now time.Time) {
			p.account.session(met)
			for _, f := range p.failed {
				p.machine.Dialled(now, f.id, f.err)
			}
			p.failed = p.failed[:0]
			acts, next = p.machine.Poll(now)
		})
		for _, act := range acts {
			p.act(ctx, act)
		}
	}
	if next.IsZero() {
		next = time.Now().Add(punchLife)
	}
	return next
}

// end gives back what the punch holds.
func (p *punching) end() {
	for _, stop := range p.dials {
		stop()
	}
	for _, h := range p.holes {
		if !h.taken.Load() {
			h.conn.Close() //nolint:errcheck // it carries nothing
		}
	}
	if p.own != nil { // it serves this one peer, if at all
		p.own.retired.Store(true)
		p.s.reapUDP()
	}
	close(p.done)
}

// act does what the machine wants.
func (p *punching) act(ctx context.Context, act punch.Action) {
	switch act := act.(type) {
	case punch.Send:
		p.send(act)
	case punch.Open:
		p.open(ctx, act.Sockets)
	case punch.Dial:
		p.remember(act.To)
		opening, err := p.opener(act)
		if err != nil {
			p.failed = append(p.failed, failed{act.ID, err})
			return
		}
		local := p.local(act)
		dialCtx, stop := context.WithCancel(ctx)
		if opening == nil {
			p.dials[act.ID] = stop
		} else { // at once, since another one may take its place
			p.dials[act.ID] = func() { opening.Close(); stop() } //nolint:errcheck // there is nothing to do about it
		}
		p.s.spawn(func() {
			defer stop()
			err := p.dial(dialCtx, local, act, opening)
			if err == nil {
				p.settle.Do(func() { close(p.settled) })
			}
			p.tell(func(now time.Time) {
				delete(p.dials, act.ID)
				p.machine.Dialled(now, act.ID, err)
			})
		})
	case punch.Stop:
		if stop := p.dials[act.ID]; stop != nil {
			stop()
			delete(p.dials, act.ID)
		}
	case punch.Nominated:
		p.nominated(ctx, act)
	case punch.Failed:
		if act.Transport == TCP {
			p.settle.Do(func() { close(p.settled) })
		}
		p.s.log.Debug("punching has failed", "peer", p.peer.Short(), "transport", act.Transport, "error", act.Reason)
	}
}

// send sends one packet. What cannot be sent is lost.
func (p *punching) send(act punch.Send) {
	if p.s.bans(p.peer, act.To.Addr()) != nil {
		return
	}
	kind := map[punch.Kind]wire.ProbeKind{punch.Probe: wire.ProbeAsk, punch.Answer: wire.ProbeAnswer, punch.Nominate: wire.ProbeNominate}[act.Kind]
	if kind == 0 {
		kind = wire.ProbeAsk // an opener looks like any other, and is not for the peer
	}
	probe := wire.Probe{Kind: kind, Token: p.account.key.Token(act.Socket, act.To), Echo: p.tokens[way{act.Socket, act.To}]}
	d, err := p.account.key.SealSize(nil, probe, act.Size)
	if err != nil {
		return
	}
	if act.Socket > 0 {
		conn := p.holes[act.Socket-1].conn
		ps := []netio.Packets{{Buf: d, N: len(d), Segment: len(d), Addr: act.To}}
		if w, ok := conn.(netio.TTLWriter); ok && act.TTL > 0 {
			w.WriteTTL(act.TTL, ps) //nolint:errcheck // without openers the chances are less
		} else if act.TTL == 0 {
			conn.WriteBatch(ps) //nolint:errcheck // it is lost
		}
		return
	}
	u, err := p.s.udpFor(act.To.Addr())
	switch {
	case err != nil:
	case act.TTL > 0:
		u.mux.WriteTTL(act.TTL, d, act.To) //nolint:errcheck // without openers the chances are less
	default:
		u.mux.WriteTo(d, act.To) //nolint:errcheck // it is lost
	}
}

// open opens sockets.
func (p *punching) open(ctx context.Context, n int) {
	for range n {
		conn, err := p.s.network.ListenPacket(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
		if err != nil {
			break
		}
		h := &hole{conn: conn, turn: make(chan struct{}, 1)}
		p.holes = append(p.holes, h)
		number := len(p.holes)
		p.s.spawnBelow(func() { p.read(h, number) })
	}
	p.do(func(now time.Time) { p.machine.Opened(now, len(p.holes)) })
}

// read is the goroutine that reads from a hole until it is closed or taken.
func (p *punching) read(h *hole, number int) {
	ps := []netio.Packets{{Buf: make([]byte, netio.ReadSize)}}
	for {
		h.turn <- struct{}{}
		n, err := 0, net.ErrClosed
		if !h.taken.Load() {
			n, err = h.conn.ReadBatch(ps)
		}
		<-h.turn
		if err != nil {
			return
		}
		if n > 0 && !p.s.barredAt(ps[0].Addr.Addr()) {
			for at := 0; at < ps[0].N; at += ps[0].Segment {
				p.probe(number, ps[0].Addr, ps[0].Buf[at:min(at+ps[0].Segment, ps[0].N)])
			}
		}
	}
}

// punched looks whether a datagram is a probe of a punch.
func (s *Service) punched(u *udpSocket, from netip.AddrPort, datagram []byte) bool {
	s.post.mu.Lock()
	punches := make([]*punching, 0, maxPunches)
	for _, p := range s.post.punches {
		punches = append(punches, p)
	}
	s.post.mu.Unlock()
	for _, p := range punches {
		if p.probe(u.hole, from, datagram) {
			return true
		}
	}
	return false
}

// probe takes a datagram if it is a probe of this punch.
func (p *punching) probe(socket int, from netip.AddrPort, datagram []byte) bool {
	probe, err := p.account.key.Open(datagram)
	if err != nil {
		return false
	}
	p.mu.Lock()
	nonce := [16]byte(datagram)
	_, again := p.heard[nonce]
	if again || len(p.heard) >= maxHeard {
		p.mu.Unlock()
		return true
	}
	p.heard[nonce] = struct{}{}
	p.mu.Unlock()
	kind := punch.Probe
	switch probe.Kind {
	case wire.ProbeAnswer:
		kind = punch.Answer
	case wire.ProbeNominate:
		kind = punch.Nominate
	}
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	h := punch.Heard{Socket: socket, From: from, Kind: kind, Size: len(datagram), Proof: probe.Echo != 0 && probe.Echo == p.account.key.Token(socket, from)}
	p.tell(func(now time.Time) {
		if len(p.tokens) < punchQueue {
			p.tokens[way{socket, from}] = probe.Token
		}
		p.payer.heard = now
		p.machine.Probe(now, h)
	})
	return true
}

// nominated makes a link of the pair of endpoints that works: the side with the
// greater peer id dials.
func (p *punching) nominated(ctx context.Context, act punch.Nominated) {
	u, err := p.take(act)
	if err != nil {
		p.s.log.Debug("a punched pair of endpoints cannot be used", "error", err)
		return
	}
	p.mu.Lock()
	p.pair = act.Remote
	p.mu.Unlock()
	u.mux.SetAccept(true)
	if p.s.ID().Compare(p.peer) < 0 {
		return
	}
	p.s.spawn(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(ctx, p.s.cfg.HandshakeTimeout)
		defer cancel()
		a, err := u.mux.Dial(ctx, act.Remote, p.peer)
		if err != nil {
			p.s.log.Debug("no handshake through the opened NATs", "peer", p.peer.Short(), "error", err)
			return
		}
		p.yield(ctx)
		p.adopt(p.s.newUTP(a).link(), endpoint.New(UTP, act.Remote), began) //nolint:errcheck // it is logged
	})
}

// take returns the socket of a nominated pair as one of the service's own.
func (p *punching) take(act punch.Nominated) (*udpSocket, error) {
	if act.Socket == 0 {
		return p.s.udpFor(act.Remote.Addr())
	}
	h := p.holes[act.Socket-1]
	h.taken.Store(true) // its reader lets go when something has come
	u, err := p.s.wrapUDP(h, false)
	if err != nil {
		return nil, err
	}
	u.hole, p.own = act.Socket, u
	p.s.udpMu.Lock()
	p.s.sockets = append(p.s.sockets, u)
	p.s.udpMu.Unlock()
	return u, nil
}

// adopt makes a session of a link.
func (p *punching) adopt(link *secure.Link, at Endpoint, began time.Time) error {
	_, err := p.s.adopt(link, adoption{how: Punched, began: p.attempt.began, linked: began, endpoint: at, attempt: p.attempt, within: p.s.ctx})
	if err == nil && p.s.isRelayed(p.peer) { // an older claim than that of the relayed link: another one will do
		err = errDuplicate
	}
	if err != nil {
		p.s.log.Debug("a punched link gave no session", "peer", p.peer.Short(), "error", err)
	}
	return err
}

// opened reports whether an endpoint is that of a peer with which a pair of
// endpoints was nominated.
func (s *Service) opened(at netip.AddrPort) bool {
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	for _, p := range s.post.punches {
		p.mu.Lock()
		same := p.pair == at
		p.mu.Unlock()
		if same {
			return true
		}
	}
	return false
}

// errClosedNATs is why two peers that have met are not connected.
var errClosedNATs = errors.New("neither side could be dialled, and their NATs could not be opened")

// awaitPunch waits until an attempt has its session or nothing is under way for it.
func (s *Service) awaitPunch(a *attempt) {
	s.mu.Lock()
	p := a.punch
	s.mu.Unlock()
	if p == nil {
		s.rest(a.ctx, meetPatience)
		return
	}
	select {
	case <-p.done:
	case <-a.ctx.Done():
	}
}
