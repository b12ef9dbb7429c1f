package punch

import (
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Times of UDP. They are chosen so that pairs of NATs meet as fast as pair_test.go
// says; no specification has them.
const (
	shotLater   = 200 * time.Millisecond // between shots after the first six, half more or less
	guessLater  = 300 * time.Millisecond // the same for guessed ports
	openerAgain = 100 * time.Millisecond // the second opener
	openerLater = time.Second            // those after it
	holdLater   = 2 * time.Second        // between packets that hold one of many sockets open
	holdStagger = 200 * time.Millisecond // in which all of many sockets send once
	holdLow     = 6 * time.Second        // after Shoot: until then only openers hold them
	holdMid     = 2 * time.Second        // after Shoot: from then on these live twice as long
	widen       = 400 * time.Millisecond // when the window of guessed ports grows
	lineStep    = 10 * time.Millisecond  // of a Line, or less: five for each mapping of others
	lineLeast   = 2500 * time.Microsecond
	lineAgain   = 300 * time.Millisecond // when a packet of a Line is sent a second time

	untilDirect = 5 * time.Second
	untilCross  = 6 * time.Second
	untilMany   = 11500 * time.Millisecond
	choice      = time.Second // how much longer the smaller side waits to be told
)

// Bounds of UDP.
const (
	maxOpeners  = 12   // to one target
	maxShots    = 40   // to one target
	guessShots  = 10   // to one guessed target
	holdSends   = 8    // openers and shots from each of many sockets
	firstWindow = 20   // guessed ports at first
	nextWindow  = 20   // added at each widening
	maxWindow   = 100  // guessed ports at most
	vagueWindow = 40   // the same when the facts do not say that there is a sequence
	guessMost   = 1000 // packets to all guessed ports
	lineSteps   = 450  // ports of a Line; each is sent to twice
	maxPairs    = 64   // pairs of endpoints that are remembered
	maxQueue    = 64   // answers that wait for their time
	answers     = 3    // after the first packet of a pair
)

// gaps are between the first shots: they go at 0, 20, 60, 120, 200 and 300 ms.
var gaps = [...]time.Duration{20 * time.Millisecond, 40 * time.Millisecond, 60 * time.Millisecond, 80 * time.Millisecond, 100 * time.Millisecond}

type mode uint8

const (
	straight mode = iota // openers, from Shoot on shots
	guessed              // openers until the peer had its chance, then fewer shots
	held                 // one of many sockets, kept open
	once                 // one shot at Shoot: nobody vouches for the address
)

// target is an endpoint that one socket sends to.
type target struct {
	socket  int
	to      netip.AddrPort
	mode    mode
	openers int
	shots   int
	next    time.Time // of the next packet; zero: none
	base    time.Time // when shots begin; zero: at Shoot, which has not come
}

type pair struct {
	socket int
	to     netip.AddrPort
}

// later is a packet that has its time.
type later struct {
	at time.Time
	pair
	kind Kind
	most int // its size, at most
}

type state uint8

// trying ──▶ chosen ──▶ over
// trying ──▶ over
const (
	trying state = iota
	chosen
	over
)

// udp is the UDP part of a Machine.
type udp struct {
	m       *Machine
	part    Part
	theirs  wire.NAT
	state   state
	until   time.Time // when it gives up
	sockets int       // that can be used
	asked   int       // sockets that Open asks for, or one of the two below
	books   books
	rate    bucket
	targets []target
	due     time.Time // of the first of them; zero: to be found out
	window  int       // steps ahead that are guessed, up to which
	guesses int       // how many
	widenAt time.Time
	quietTo time.Time // until then nothing new is tried, since something came
	ports   []uint16  // to spray
	sprays  bucket
	line    []uint16 // ports of the line
	lineAt  time.Time
	follows []later // what is sent along it a second time
	queue   []later
	pairs   map[pair]bool // heard; true: they hear us too
	choice  pair
	told    bool // Nominated has been returned
	oneWay  bool
}

const (
	asked   = -1 // Open has been returned, or is not needed
	granted = -2 // Opened has been called
)

func newUDP(m *Machine, now time.Time) *udp {
	c := &m.cfg
	theirs := c.Theirs.UDP
	theirs.External = external(theirs)
	u := &udp{
		m: m, theirs: theirs, part: Plan(c.Mine.UDP, theirs, c.Larger), until: now.Add(Patience), sockets: 1,
		rate: newBucket(c.Budget.Rate, 32), sprays: newBucket(c.Budget.SprayPPS, 4), pairs: map[pair]bool{},
		books: newBooks(c),
	}
	u.part.Sockets = min(u.part.Sockets, c.Budget.Sockets)
	if !c.allowed(theirs.External) {
		u.part = Part{Strategy: None, Sockets: 1}
	}
	switch {
	case u.part.Strategy == None || u.part.Ports == Line || u.part.Ports == Block || u.part.Ports == Any:
	case u.part.Ports == Predicted:
		least, most := foreign(theirs, u.age(), u.age()+c.RTT)
		u.guess(now, least+1, min(max(firstWindow, most-least+firstWindow/2), maxWindow/2))
	case u.part.Sockets > 1:
		u.asked = u.part.Sockets - 1
		u.aim(now, 0, theirs.External, held)
	default:
		u.aim(now, 0, theirs.External, straight)
	}
	for _, to := range c.candidates(endpoint.UTP) {
		if to == theirs.External {
			continue
		}
		if u.books.vouched[to.Addr()] {
			u.aim(now, 0, to, straight)
		} else {
			u.aim(now, 0, to, once)
		}
	}
	return u
}

// age is how long ago the peer's facts were true.
func (u *udp) age() time.Duration {
	return time.Duration(u.theirs.Age)*time.Millisecond + u.m.cfg.RTT/2
}

// aim adds a target. Its first packet goes at once, when openers may go to it.
func (u *udp) aim(now time.Time, socket int, to netip.AddrPort, m mode) *target {
	t := target{socket: socket, to: to, mode: m, next: now}
	if u.m.cfg.quiet(to, u.theirs, u.m.cfg.Mine.UDP) || m == once {
		t.openers, t.next = maxOpeners, time.Time{}
	}
	u.targets, u.due = append(u.targets, t), time.Time{}
	return &u.targets[len(u.targets)-1]
}

// guess adds n predicted ports from k steps ahead on.
func (u *udp) guess(now time.Time, k, n int) {
	for ; n > 0; n, k = n-1, k+1 {
		if p := ahead(u.theirs, k); p != 0 {
			u.aim(now, 0, netip.AddrPortFrom(u.theirs.External.Addr(), p), guessed)
		}
		u.window = k
		u.guesses++
	}
}

// shoot begins what comes after Shoot.
func (u *udp) shoot(now time.Time) {
	if u.state != trying {
		return
	}
	for i := range u.targets {
		u.release(&u.targets[i], now)
	}
	switch u.part.Strategy {
	case Cross:
		u.until, u.lineAt = now.Add(untilCross), now
		u.line = line(u.theirs, u.age(), u.part.Slope, lineSteps)
	case Spray, Birthday:
		u.until = now.Add(untilMany)
		if u.part.Ports != Known {
			u.ports = sprayed(u.theirs, u.part.Ports, u.m.cfg.Budget.Sprays, u.m.rand)
		}
	case Predict:
		u.until = now.Add(untilDirect)
		if u.part.Ports == Predicted {
			u.widenAt = now.Add(u.m.cfg.guard() + widen)
		}
	default:
		u.until = now.Add(untilDirect)
		if u.part.Strategy == Direct && vague(u.theirs) {
			u.widenAt = now.Add(u.m.cfg.guard() + widen)
		}
		if len(u.targets) == 0 && len(u.pairs) == 0 && !u.m.cfg.Mine.listens(endpoint.UTP) {
			u.until = now // neither side has anywhere to go
		}
	}
}

// release lets a target shoot.
func (u *udp) release(t *target, now time.Time) {
	switch t.mode {
	case guessed:
		t.base = now.Add(u.m.cfg.guard())
	case held:
		t.base = now.Add(holdLow)
		if t.openers >= maxOpeners { // no openers to it
			t.base = now
		}
	default:
		t.base = now
	}
	if t.next.IsZero() || t.next.After(t.base) {
		t.next = t.base
	}
	u.due = time.Time{}
}

func (u *udp) opened(now time.Time, n int) {
	if u.state != trying || u.asked != asked {
		return
	}
	u.asked = granted
	n = min(max(0, n), u.part.Sockets-1)
	for i := 1; i <= n; i++ {
		t := u.aim(now, i, u.theirs.External, held)
		t.next = now.Add(holdStagger * time.Duration(i) / time.Duration(n))
		if !u.m.gone.IsZero() {
			u.release(t, now)
		}
	}
	u.sockets = 1 + n
}

// poll sends what is due.
func (u *udp) poll(now time.Time) time.Time {
	if u.asked >= 0 {
		if u.asked > 0 && u.state == trying {
			u.m.do(Open{u.asked})
		}
		u.asked = asked
	}
	if u.choice.to.IsValid() && !u.told {
		u.told = true
		u.m.do(Nominated{u.choice.socket, u.choice.to})
	}
	if u.state != over && !now.Before(u.until) {
		u.end()
	}
	if u.state == over {
		return time.Time{}
	}
	next := sooner(u.until, u.pollQueue(now))
	if u.state == chosen {
		return next
	}
	next = sooner(next, u.pollTargets(now))
	if u.m.gone.IsZero() {
		return next
	}
	if now.Before(u.quietTo) {
		return sooner(next, u.quietTo)
	}
	next = sooner(next, u.pollWindow(now))
	next = sooner(next, u.pollSpray(now))
	return sooner(next, u.pollLine(now))
}

// end gives up, or ends the time after a choice.
func (u *udp) end() {
	if u.state == trying {
		reason := ErrSilent
		switch {
		case u.m.gone.IsZero():
			reason = ErrNoGo
		case u.proven():
			reason = ErrChoice
		case u.oneWay:
			reason = ErrOneWay
		case u.part.Strategy == None:
			reason = ErrNoWay
		}
		u.m.do(Failed{endpoint.UTP, reason})
	}
	u.state = over
	u.targets, u.ports, u.line, u.follows, u.queue = nil, nil, nil, nil, nil
}

func (u *udp) proven() bool {
	for _, both := range u.pairs {
		if both {
			return true
		}
	}
	return false
}

// send sends one packet of a size up to most unless a budget forbids it. wait is when
// to try again, when the rate or the account is in the way, and else zero. bulk says
// that it is one of very many.
func (u *udp) send(now time.Time, p pair, ttl int, k Kind, most int, bulk bool) (wait time.Time) {
	if at := u.rate.ready(); at.After(now) {
		return at
	}
	if !u.books.may(p.to.Addr()) {
		return time.Time{}
	}
	size := MinPacket + u.m.rand.IntN(max(MinPacket, most)-MinPacket+1)
	spend := u.m.account.spend
	if bulk {
		spend = u.m.account.bulk
	}
	if !spend(ofUDP, p.to.Addr(), PacketCost(p.to.Addr(), size)) {
		return now.Add(starved)
	}
	u.books.sent(p.to.Addr())
	u.rate.take(now)
	u.m.do(Send{p.socket, p.to, ttl, k, size})
	return time.Time{}
}

func (u *udp) pollQueue(now time.Time) (next time.Time) {
	u.queue = slices.DeleteFunc(u.queue, func(l later) bool {
		if l.at.After(now) {
			next = sooner(next, l.at)
			return false
		}
		wait := u.send(now, l.pair, 0, l.kind, l.most, false)
		next = sooner(next, wait)
		return wait.IsZero()
	})
	return next
}

func (u *udp) pollTargets(now time.Time) (next time.Time) {
	if now.Before(u.due) {
		return u.due
	}
	defer func() { u.due = next }()
	for i := range u.targets {
		t := &u.targets[i]
		if t.next.IsZero() {
			continue
		}
		if (t.mode == guessed || t.mode == held) && now.Before(u.quietTo) && t.next.Before(u.quietTo) {
			next = sooner(next, u.quietTo)
			continue
		}
		if !t.next.After(now) {
			ttl, kind := OpenerTTL, Opener
			if gone := u.m.gone; t.mode == held && !gone.IsZero() && now.Sub(gone) >= holdMid {
				ttl = 2 * OpenerTTL
			}
			if !t.base.IsZero() && !t.base.After(now) {
				ttl, kind = 0, Probe
			}
			if wait := u.send(now, pair{t.socket, t.to}, ttl, kind, MaxPacket, t.mode == guessed || t.mode == held); !wait.IsZero() {
				next = sooner(next, wait)
				continue
			}
			u.advance(t, now, kind)
		}
		next = sooner(next, t.next)
	}
	return next
}

// advance sets when a target's next packet goes, after one of kind went.
func (u *udp) advance(t *target, now time.Time, kind Kind) {
	if kind == Opener {
		t.openers++
		most := maxOpeners
		switch {
		case t.mode == held:
			most, t.next = holdSends-2, now.Add(holdLater)
		case t.openers == 1:
			t.next = now.Add(openerAgain)
		default:
			t.next = now.Add(openerLater)
		}
		if !t.base.IsZero() && t.base.Before(t.next) {
			t.next = t.base
		}
		if t.openers >= most {
			t.next = t.base // zero: Shoot wakes it
		}
		return
	}
	most, gap := maxShots, u.m.between(shotLater/2, shotLater*3/2)
	switch {
	case t.mode == once:
		most = 1
	case t.mode == guessed:
		most, gap = guessShots, u.m.between(guessLater/2, guessLater*3/2)
	case t.mode == held:
		most, gap = holdSends-min(t.openers, holdSends-2), holdLater
	case t.shots < len(gaps):
		gap = gaps[t.shots]
	}
	t.shots++
	t.next = now.Add(gap)
	if t.shots >= most {
		t.next = time.Time{}
	}
}

// pollWindow guesses more ports when those guessed so far were wrong.
func (u *udp) pollWindow(now time.Time) time.Time {
	if u.widenAt.IsZero() || now.Before(u.widenAt) {
		return u.widenAt
	}
	u.widenAt = now.Add(widen)
	from, most := len(u.targets), maxWindow
	if u.part.Strategy == Direct {
		most = vagueWindow
	}
	u.guess(now, u.window+1, min(nextWindow, max(0, most-u.guesses)))
	if from == len(u.targets) {
		u.widenAt = time.Time{}
	}
	u.due = time.Time{}
	for i := from; i < len(u.targets); i++ {
		u.targets[i].next, u.targets[i].base = now, now.Add(openerAgain)
	}
	return sooner(now, u.widenAt)
}

func (u *udp) pollSpray(now time.Time) time.Time {
	for len(u.ports) > 0 {
		if at := u.sprays.ready(); at.After(now) {
			return at
		}
		if wait := u.send(now, pair{0, netip.AddrPortFrom(u.theirs.External.Addr(), u.ports[0])}, 0, Probe, MaxPacket, true); !wait.IsZero() {
			return wait
		}
		u.sprays.take(now)
		u.ports = u.ports[1:]
	}
	return time.Time{}
}

// pollLine sends along the line. Each packet makes our NAT's next mapping: it is an
// opener, so that it meets no NAT of the peer's that is not ready. What follows it
// through the same mapping does reach the peer.
func (u *udp) pollLine(now time.Time) time.Time {
	c := &u.m.cfg
	each := lineEach(u.theirs, c.Mine.UDP)
	for len(u.line) > 0 && !u.lineAt.After(now) {
		to := pair{0, netip.AddrPortFrom(u.theirs.External.Addr(), u.line[0])}
		ttl, kind := OpenerTTL, Opener
		if c.quiet(to.to, u.theirs, c.Mine.UDP) {
			ttl, kind = 0, Probe
		}
		if wait := u.send(now, to, ttl, kind, MaxPacket, true); !wait.IsZero() {
			return wait
		}
		u.follows = append(u.follows, later{now.Add(lineAgain), to, Probe, MaxPacket})
		u.line = u.line[1:]
		u.lineAt = u.lineAt.Add(each)
		if u.lineAt.Before(now.Add(-lineAgain)) { // asked late: do not hurry
			u.lineAt = now.Add(each)
		}
	}
	for len(u.follows) > 0 && !u.follows[0].at.After(now) {
		if wait := u.send(now, u.follows[0].pair, 0, Probe, MaxPacket, true); !wait.IsZero() {
			return wait
		}
		u.follows = u.follows[1:]
	}
	var next time.Time
	if len(u.line) > 0 {
		next = u.lineAt
	}
	if len(u.follows) > 0 {
		next = sooner(next, u.follows[0].at)
	}
	return next
}

// heard takes a valid packet. One without proof says no more than a probe, whatever
// it says: it may have another sender than it seems.
func (u *udp) heard(now time.Time, h Heard) {
	if u.state == over || h.Socket < 0 || h.Socket >= u.sockets || h.Kind == Opener || h.Kind > Nominate || h.From.Port() == 0 {
		return
	}
	p := pair{h.Socket, h.From}
	both, known := u.pairs[p]
	if !known && len(u.pairs) >= maxPairs {
		return
	}
	u.books.heard(p.to.Addr())
	u.oneWay = u.oneWay || h.Kind == Probe
	both = both || h.Proof
	u.pairs[p] = both
	if both {
		u.books.prove(p.to.Addr())
		u.m.account.Prove(p.to.Addr())
	}
	u.quietTo = now.Add(max(3*u.m.cfg.RTT, 500*time.Millisecond))
	most := min(h.Size, MaxPacket)
	switch {
	case h.Kind == Nominate && !u.m.cfg.Larger:
		u.choose(now, p)
		if p == u.choice {
			u.reply(now, p, Nominate, most)
		}
	case h.Kind == Nominate && p == u.choice: // confirmed
		u.queue = slices.DeleteFunc(u.queue, func(l later) bool { return l.kind == Nominate })
	case !known && !(both && u.m.cfg.Larger):
		u.reply(now, p, Answer, most)
		for i := 1; i < answers && (both || u.books.vouched[p.to.Addr()]); i++ {
			u.reply(now.Add(gaps[0]*time.Duration(i*(i+1)/2)), p, Answer, most)
		}
	case !both || h.Kind == Probe:
		u.reply(now, p, Answer, most)
	}
	if both && u.m.cfg.Larger && u.state == trying {
		u.choose(now, p)
		at := now
		for i := range 20 {
			u.reply(at, p, Nominate, MaxPacket)
			gap := shotLater
			if i < len(gaps) {
				gap = gaps[i]
			}
			at = at.Add(gap)
		}
	}
	u.follow(now, p, known, both)
}

// follow asks through a pair that something came through, from now on and until an
// answer comes. known says that this was not the first time.
func (u *udp) follow(now time.Time, p pair, known, both bool) {
	if u.state != trying {
		return
	}
	u.due = time.Time{}
	i := slices.IndexFunc(u.targets, func(t target) bool { return t.socket == p.socket && t.to == p.to })
	switch {
	case both && i >= 0:
		u.targets[i].next = time.Time{}
	case both:
	case i < 0:
		t := u.aim(now, p.socket, p.to, straight)
		t.next, t.base = now, now
	case !known || u.targets[i].mode != straight || u.targets[i].base.After(now):
		t := &u.targets[i]
		t.mode, t.next, t.base, t.shots = straight, now, now, 0
	}
	if both && !u.m.cfg.Larger {
		u.until = latest(u.until, now.Add(choice))
	}
}

func (u *udp) choose(now time.Time, p pair) {
	if u.state != trying {
		return
	}
	u.state, u.choice, u.until = chosen, p, now.Add(Linger)
	u.targets, u.ports, u.line, u.follows = nil, nil, nil, nil
}

func (u *udp) reply(at time.Time, p pair, k Kind, most int) {
	if len(u.queue) < maxQueue {
		u.queue = append(u.queue, later{at, p, k, most})
	}
}

// latest returns the later of two times.
func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
