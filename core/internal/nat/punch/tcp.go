package punch

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Times of TCP. The pause after a try that was refused is drawn anew each time: two
// sides whose NATs answer by resets would else miss each other for ever. Kernels repeat a
// SYN after one second (RFC 6298, section 2.1): most tries end before.
const (
	tryLeast   = 400 * time.Millisecond // one try, or three round trips: less than kernels wait to repeat a SYN
	tryMost    = 3 * time.Second
	tryUnknown = time.Second             // one try when the round trip is not known
	tryGuessed = 950 * time.Millisecond  // one try at a sprayed port: one SYN
	tryHeld    = 4 * time.Second         // one try of many sockets, over which kernels repeat the SYN
	tryOpener  = 950 * time.Millisecond  // an opener, before kernels repeat it with the usual time to live
	tryHeldOn  = 1950 * time.Millisecond // an opener of many sockets, which kernels repeat once
	pauseLeast = 20 * time.Millisecond
	pauseMost  = 180 * time.Millisecond
	portPause  = 50 * time.Millisecond  // after ErrPort
	dialLater  = 3 * time.Second        // after an opener that has failed
	waits      = 300 * time.Millisecond // how long the side that waits does so after Shoot: see Crossed

	untilSimultaneous = 10 * time.Second
	untilBirthday     = 15 * time.Second
)

// Bounds of TCP.
const (
	portTries = 3   // that end in ErrPort, before an endpoint is given up
	dialFirst = 5   // openers to one endpoint
	moreFirst = 4   // of one predicted port
	firstDial = 10  // predicted ports at first
	lineDials = 400 // along a line
	moreDials = 5   // added at each widening
	vagueMost = 20  // predicted ports when the facts do not say that there is a sequence
	mostDials = 64  // predicted ports at most
	heldTries = 4   // of each of many sockets
	maxTries  = 64  // of one endpoint
	moreTries = 10  // of one predicted port
)

// callee is an endpoint that is dialled again and again.
type callee struct {
	to      netip.AddrPort
	hold    int // number of its socket, of many; zero: the listener's
	timeout time.Duration
	openers int       // that may still be made
	left    int       // tries
	ports   int       // tries that ended in ErrPort
	next    time.Time // of the next dial; zero: none
	from    time.Time // when dials are no openers any more; zero: at Shoot, which has not come
	id      int       // of the dial under way, 0: none
	opening bool      // that is an opener
}

// tcp is the TCP part of a Machine.
type tcp struct {
	m       *Machine
	part    Part
	theirs  wire.NAT
	begun   bool
	over    bool
	won     bool
	until   time.Time
	callees []callee
	ids     int
	dials   int          // made
	atOnce  int          // under way
	sprayed map[int]bool // dials to sprayed ports under way
	ports   []uint16     // to spray, or of a line
	rate    bucket
	window  int // steps ahead that are guessed, up to which
	guesses int // how many
	widenAt time.Time
}

func newTCP(m *Machine) *tcp {
	c := &m.cfg
	t := &tcp{
		m: m, theirs: c.Theirs.TCP, until: m.made.Add(Patience), rate: newBucket(c.Budget.SprayPPS, 4), sprayed: map[int]bool{},
	}
	t.theirs.External = external(t.theirs)
	t.part = planTCP(c)
	switch {
	case t.part.Ports == Predicted:
		least, most := foreign(t.theirs, t.age(), t.age()+c.RTT)
		t.guess(m.made, least+1, min(max(firstDial, most-least+firstDial/2), mostDials))
	case t.part.Strategy == Direct, t.part.Strategy == Predict:
		t.add(m.made, t.theirs.External, maxTries)
	}
	vouched, strangers := c.vouched(), map[netip.Addr]bool{}
	for _, to := range c.candidates(endpoint.TCP) {
		switch {
		case to == t.theirs.External, strangers[to.Addr()]:
		case vouched[to.Addr()]:
			t.add(m.made, to, maxTries)
		default:
			t.add(m.made, to, 1)
			strangers[to.Addr()] = true
		}
	}
	return t
}

// add adds an endpoint to dial, with openers unless nobody vouches for it, which
// one try stands for. Where the other side waits before it dials, because it hopes for
// our SYN, a try lasts until that dial has come to something: if no SYN of ours has
// got through, as when openers died too early, its SYN must not find a socket that is
// just given up. NATs that follow sequence numbers would take no other one after that.
func (t *tcp) add(now time.Time, to netip.AddrPort, tries int) {
	try := tryUnknown
	if rtt := t.m.cfg.RTT; rtt > 0 {
		least := time.Duration(tryLeast)
		if !t.m.cfg.Waits && t.theirs.Openers {
			least = waits + 3*rtt
		}
		try = min(max(3*rtt, tryLeast, least), tryMost)
	}
	c := callee{to: to, timeout: try, left: tries, next: now, openers: dialFirst}
	if tries == moreTries {
		c.openers = moreFirst
	}
	if tries == 1 || !t.opens(to) {
		c.openers, c.next = 0, time.Time{}
	}
	t.callees = append(t.callees, c)
}

// planTCP is Plan within the budget.
func planTCP(c *Config) Part {
	p := Plan(c.Mine.TCP, c.Theirs.TCP, c.Larger)
	if !c.allowed(c.Theirs.TCP.External) {
		return Part{Strategy: None, Sockets: 1}
	}
	p.Sockets = min(p.Sockets, c.Budget.AtOnce)
	return p
}

// begin lets what was opened be dialled, at Shoot.
func (t *tcp) begin(now time.Time) {
	if t.over {
		return
	}
	c := &t.m.cfg
	t.begun, t.until = true, now.Add(untilSimultaneous)
	first := now.Add(c.Lead)
	if t.part.Ports == Predicted {
		t.widenAt = first.Add(c.guard() + widen)
		first = first.Add(c.guard())
	}
	if t.part.Strategy == Direct && vague(t.theirs) {
		t.widenAt = first.Add(widen)
	}
	wait := waits
	if t.yields() {
		wait *= 2
	}
	for i := range t.callees {
		if from := first; t.waits(&t.callees[i]) {
			t.callees[i].release(from.Add(wait))
		} else {
			t.callees[i].release(from)
		}
	}
	switch {
	case t.part.Ports == Block, t.part.Ports == Any:
		t.until = now.Add(untilBirthday)
		t.ports = sprayed(t.theirs, t.part.Ports, c.Budget.Sprayed, t.m.rand)
	case t.part.Ports == Line:
		t.rate = newBucket(min(int(time.Second/lineEach(t.theirs, c.Mine.TCP)), c.Budget.SprayPPS), 1)
		t.ports = line(t.theirs, t.age()+now.Sub(t.m.made), t.part.Slope, min(lineDials, c.Budget.Sprayed))
	case t.part.Sockets > 1:
		t.until = now.Add(untilBirthday)
		for i := range t.part.Sockets {
			at := now.Add(holdStagger * time.Duration(i) / time.Duration(t.part.Sockets))
			held := callee{to: t.theirs.External, hold: i + 1, timeout: tryHeld, left: heldTries, next: at, from: at}
			if t.opens(held.to) {
				held.timeout = tryHeldOn
			}
			t.callees = append(t.callees, held)
		}
	}
	if len(t.callees) == 0 && len(t.ports) == 0 && c.Mine.listens(endpoint.TCP) {
		t.until = now.Add(untilSimultaneous) // the peer may come to us
	}
}

// waits reports whether a callee is not dialled at once after Shoot.
func (t *tcp) waits(c *callee) bool {
	return t.m.cfg.Waits && t.part.Strategy != Predict && t.opens(c.to)
}

// yields reports whether this side lets the other one dial before it: see Crossed.
func (t *tcp) yields() bool { return t.m.cfg.Crossed && !t.m.cfg.Larger }

// cross puts off what still waits, as begin does when that is known.
func (t *tcp) cross(now time.Time) {
	if !t.begun || t.over || !t.yields() {
		return
	}
	for i := range t.callees {
		if c := &t.callees[i]; t.waits(c) && c.from.After(now) {
			if c.next.Equal(c.from) {
				c.next = c.from.Add(waits)
			}
			c.from = c.from.Add(waits)
		}
	}
}

// release lets a callee be dialled for good from a time on.
func (c *callee) release(from time.Time) {
	c.from = from
	if c.id == 0 && (c.next.IsZero() || c.next.After(from)) {
		c.next = from
	}
}

// age is how long ago the peer's facts were true when the machine was made.
func (t *tcp) age() time.Duration {
	return time.Duration(t.theirs.Age)*time.Millisecond + t.m.cfg.RTT/2
}

// guess adds n predicted ports from k steps ahead on.
func (t *tcp) guess(now time.Time, k, n int) {
	for ; n > 0; n, k = n-1, k+1 {
		if p := ahead(t.theirs, k); p != 0 {
			t.add(now, netip.AddrPortFrom(t.theirs.External.Addr(), p), moreTries)
		}
		t.window = k
		t.guesses++
	}
}

// dialled notes the end of a try.
func (t *tcp) dialled(now time.Time, id int, err error) {
	if t.over {
		return
	}
	i := slices.IndexFunc(t.callees, func(c callee) bool { return c.id == id && id != 0 })
	if i < 0 && !t.sprayed[id] {
		return
	}
	delete(t.sprayed, id)
	t.atOnce--
	t.won = t.won || err == nil
	if i >= 0 {
		t.again(&t.callees[i], now, err)
	}
}

// again sets when an endpoint is dialled again.
func (t *tcp) again(c *callee, now time.Time, err error) {
	opening := c.opening
	c.id, c.opening = 0, false
	if errors.Is(err, ErrPort) {
		c.ports++
	}
	switch {
	case opening && !c.from.IsZero():
		c.next = c.from
	case opening && c.openers > 0 && late(err):
		c.next = now
	case opening && c.openers > 0:
		c.next = now.Add(dialLater)
	case opening, c.left <= 0, c.ports >= portTries:
		c.next = time.Time{} // after openers, Shoot wakes it
	case errors.Is(err, ErrPort):
		c.next = now.Add(portPause)
	case late(err): // a SYN that comes meanwhile must find a dial
		c.next = now
	default:
		c.next = now.Add(t.m.between(pauseLeast, pauseMost))
	}
}

// late reports whether a try has ended because nobody has answered.
func late(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// poll dials what is due.
func (t *tcp) poll(now time.Time) time.Time {
	if t.over {
		return time.Time{}
	}
	if reason, done := t.ended(now); done {
		t.end(reason)
		return time.Time{}
	}
	next := sooner(t.until, t.pollCallees(now))
	if !t.widenAt.IsZero() && !t.widenAt.After(now) {
		t.widenAt = now.Add(widen)
		most := mostDials
		if t.part.Strategy == Direct {
			most = vagueMost
		}
		if from := len(t.callees); t.guesses >= most {
			t.widenAt = time.Time{}
		} else {
			t.guess(now, t.window+1, min(moreDials, most-t.guesses))
			for i := from; i < len(t.callees); i++ {
				t.callees[i].release(now.Add(openerAgain))
			}
			return now
		}
	}
	next = sooner(next, t.widenAt)
	for len(t.ports) > 0 && t.free() {
		if at := t.rate.ready(); at.After(now) {
			return sooner(next, at)
		}
		if to := t.theirs.External.Addr(); !t.m.account.bulk(ofTCP, to, DialCost(to, tryGuessed)) {
			return sooner(next, now.Add(starved))
		}
		t.rate.take(now)
		t.sprayed[t.dial(Dial{To: netip.AddrPortFrom(t.theirs.External.Addr(), t.ports[0]), Timeout: tryGuessed})] = true
		t.ports = t.ports[1:]
	}
	return next
}

// ended reports whether it is over, and why it failed, if it did.
func (t *tcp) ended(now time.Time) (reason error, done bool) {
	switch {
	case t.won:
		return nil, true
	case now.Before(t.until) && (!t.begun || t.busy()):
		return nil, false
	case !t.begun:
		return ErrNoGo, true
	case t.part.Strategy == None:
		return ErrNoWay, true
	}
	return ErrSilent, true
}

// busy reports whether anything is under way or to come.
func (t *tcp) busy() bool {
	return len(t.ports) > 0 || len(t.sprayed) > 0 || slices.ContainsFunc(t.callees, func(c callee) bool { return c.id != 0 || !c.next.IsZero() })
}

// end stops what is under way, in order.
func (t *tcp) end(reason error) {
	var ids []int
	for _, c := range t.callees {
		if c.id != 0 {
			ids = append(ids, c.id)
		}
	}
	for id := range t.sprayed {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		t.m.do(Stop{id})
	}
	if reason != nil {
		t.m.do(Failed{endpoint.TCP, reason})
	}
	t.over, t.callees, t.ports, t.sprayed = true, nil, nil, nil
}

// free reports whether the budget has room for one more dial.
func (t *tcp) free() bool {
	b := &t.m.cfg.Budget
	return t.dials < b.Dials && t.atOnce < b.AtOnce
}

// dial asks for one, and returns its id.
func (t *tcp) dial(d Dial) int {
	t.ids++
	t.dials++
	t.atOnce++
	d.ID = t.ids
	t.m.do(d)
	return d.ID
}

// ask returns what is asked for an endpoint now: an opener, if it is too early, or a
// dial, and the bytes that go out by it.
func (t *tcp) ask(c *callee, now time.Time) (d Dial, bytes int) {
	d = Dial{To: c.to, Hold: c.hold, Timeout: c.timeout}
	switch {
	case c.from.IsZero() || c.from.After(now):
		d.TTL, d.Timeout = OpenerTTL, tryOpener
	case c.hold > 0 && t.opens(c.to):
		d.TTL = OpenerTTL
	}
	return d, DialCost(c.to.Addr(), d.Timeout)
}

// opens reports whether openers may go to an endpoint.
func (t *tcp) opens(to netip.AddrPort) bool {
	return t.m.cfg.Mine.TCP.Openers && !t.m.cfg.quiet(to, t.theirs, t.m.cfg.Mine.TCP)
}

func (t *tcp) pollCallees(now time.Time) (next time.Time) {
	for i := range t.callees {
		c := &t.callees[i]
		due := c.next
		if c.opening { // until a dial takes its place
			due = c.from
		} else if c.id != 0 {
			continue
		}
		if due.IsZero() || due.After(now) {
			next = sooner(next, due)
			continue
		}
		if !t.free() { // until another ends; for ever when all dials are made
			if t.dials >= t.m.cfg.Budget.Dials {
				c.next = time.Time{}
			}
			continue
		}
		d, cost := t.ask(c, now)
		spend := t.m.account.spend
		if t.part.Sockets > 1 || t.part.Ports == Predicted {
			spend = t.m.account.bulk
		}
		if !spend(ofTCP, c.to.Addr(), cost) {
			next = sooner(next, now.Add(starved))
			continue
		}
		if c.opening {
			t.m.do(Stop{c.id})
			t.atOnce--
		}
		c.next = time.Time{}
		c.id = t.dial(d)
		if c.opening = d.TTL > 0 && d.Hold == 0; c.opening {
			c.openers--
		} else {
			c.left--
		}
	}
	return next
}

// MostDials returns the largest number of TCP dials that a Machine of this Config
// makes to one address, whatever that answers, and which address that is. An
// address that nothing vouches for gets one.
func (c Config) MostDials() (addr netip.Addr, dials int) {
	c.Budget = c.Budget.filled()
	most := map[netip.Addr]int{}
	vouched := c.vouched()
	to := external(c.Theirs.TCP)
	for _, other := range c.candidates(endpoint.TCP) {
		if vouched[other.Addr()] && other != to {
			most[other.Addr()] += dialFirst + maxTries
		}
	}
	switch part := planTCP(&c); {
	case part.Strategy == None:
	case part.Ports == Predicted:
		most[to.Addr()] += mostDials * (moreFirst + moreTries)
	case part.Ports == Block:
		most[to.Addr()] += min(c.Budget.Sprayed, int(c.Theirs.TCP.High)-int(c.Theirs.TCP.Low)+1)
	case part.Ports == Line:
		most[to.Addr()] += min(c.Budget.Sprayed, lineDials)
	case part.Ports == Any:
		most[to.Addr()] += c.Budget.Sprayed
	case part.Sockets > 1:
		most[to.Addr()] += part.Sockets * heldTries
	default:
		most[to.Addr()] += dialFirst + maxTries
		if part.Strategy == Direct && vague(c.Theirs.TCP) {
			most[to.Addr()] += vagueMost * (moreFirst + moreTries)
		}
	}
	for a, n := range most {
		if n > dials || n == dials && a.Less(addr) {
			addr, dials = a, n
		}
	}
	return addr, min(dials, c.Budget.Dials)
}
