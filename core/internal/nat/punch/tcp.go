package punch

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Times of TCP. The pause between two tries is drawn anew each time: two sides
// whose NATs answer by resets would else miss each other for ever.
const (
	tryLeast   = 400 * time.Millisecond // one try, or three round trips: less than kernels wait to repeat a SYN
	tryMost    = 3 * time.Second
	tryGuessed = time.Second     // one try at a sprayed port
	tryHeld    = 4 * time.Second // one try of many sockets, over which kernels repeat the SYN
	pauseLeast = 20 * time.Millisecond
	pauseMost  = 180 * time.Millisecond
	portPause  = 50 * time.Millisecond // after ErrPort

	untilSimultaneous = 10 * time.Second
	untilBirthday     = 15 * time.Second
)

// Bounds of TCP.
const (
	portTries = 3  // that end in ErrPort, before an endpoint is given up
	firstDial = 10 // predicted ports at first
	moreDials = 5  // added at each widening
	mostDials = 32 // predicted ports at most
	heldTries = 4  // of each of many sockets
	maxTries  = 64 // of one endpoint
	moreTries = 16 // of one predicted port
)

// callee is an endpoint that is dialled again and again.
type callee struct {
	to      netip.AddrPort
	fresh   bool
	timeout time.Duration
	left    int       // tries
	ports   int       // tries that ended in ErrPort
	next    time.Time // of the next try; zero: none
	id      int       // of the try under way, 0: none
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
	sprayed map[int]bool // dials to sprayed ports under way
	ports   []uint16     // to spray
	rate    bucket
	window  int // steps ahead that are guessed, up to which
	widenAt time.Time
}

func newTCP(m *Machine) *tcp {
	c := &m.cfg
	t := &tcp{
		m: m, theirs: c.Theirs.TCP, until: m.made.Add(Patience), rate: newBucket(c.Budget.SprayPPS, 4), sprayed: map[int]bool{},
	}
	t.theirs.External = external(t.theirs)
	t.part = planTCP(c)
	return t
}

// planTCP is Plan without what takes hundreds of packets in seconds from one port.
func planTCP(c *Config) Part {
	p := Plan(c.Mine.TCP, c.Theirs.TCP, c.Larger)
	if p.Strategy == Cross || !reachable(c.Theirs.TCP.External) || sameHouse(c.Mine.TCP, c.Theirs.TCP) && !c.Theirs.TCP.Hairpin && !c.Mine.TCP.Hairpin {
		return Part{Strategy: None, Sockets: 1}
	}
	p.Sockets = min(p.Sockets, c.Budget.AtOnce)
	return p
}

// begin makes the callees, at Go.
func (t *tcp) begin(now time.Time) {
	if t.over {
		return
	}
	c := &t.m.cfg
	t.begun, t.until = true, now.Add(untilSimultaneous)
	first := now.Add(c.Lead)
	try := min(max(3*c.RTT, tryLeast), tryMost)
	switch {
	case t.part.Strategy == None:
	case t.part.Ports == Predicted:
		least, _ := foreign(t.theirs, t.age(now), t.age(now))
		t.guess(first, least+1, firstDial)
		t.widenAt = first.Add(widen)
	case t.part.Ports == Block, t.part.Ports == Any:
		t.until = now.Add(untilBirthday)
		t.ports = sprayed(t.theirs, t.part.Ports, c.Budget.Sprayed, t.m.rand)
	case t.part.Sockets > 1:
		t.until = now.Add(untilBirthday)
		for i := range t.part.Sockets {
			at := now.Add(holdStagger * time.Duration(i) / time.Duration(t.part.Sockets))
			t.callees = append(t.callees, callee{to: t.theirs.External, fresh: i > 0, timeout: tryHeld, left: heldTries, next: at})
		}
	default:
		t.callees = append(t.callees, callee{to: t.theirs.External, timeout: try, left: maxTries, next: first})
	}
	vouched := c.vouched()
	strangers := map[netip.Addr]bool{}
	for _, to := range candidates(c.Theirs, endpoint.TCP) {
		left := maxTries
		if !vouched[to.Addr()] {
			if left = 1; strangers[to.Addr()] {
				continue
			}
			strangers[to.Addr()] = true
		}
		if to != t.theirs.External {
			t.callees = append(t.callees, callee{to: to, timeout: try, left: left, next: first})
		}
	}
}

// age is how long ago the peer's facts were true.
func (t *tcp) age(now time.Time) time.Duration {
	return time.Duration(t.theirs.Age)*time.Millisecond + t.m.cfg.RTT/2 + now.Sub(t.m.made)
}

// guess adds n predicted ports from k steps ahead on.
func (t *tcp) guess(at time.Time, k, n int) {
	c := &t.m.cfg
	for ; n > 0; n, k = n-1, k+1 {
		if p := ahead(t.theirs, k); p != 0 {
			to := netip.AddrPortFrom(t.theirs.External.Addr(), p)
			t.callees = append(t.callees, callee{to: to, timeout: min(max(3*c.RTT, tryLeast), tryMost), left: moreTries, next: at})
		}
		t.window = k
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
	if i >= 0 {
		c := &t.callees[i]
		c.id, c.next = 0, now.Add(t.m.between(pauseLeast, pauseMost))
		if errors.Is(err, ErrPort) {
			c.ports++
			c.next = now.Add(portPause)
		}
		if c.left <= 0 || c.ports >= portTries {
			c.next = time.Time{}
		}
	}
	t.won = t.won || err == nil
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
	if !t.begun {
		return t.until
	}
	next := sooner(t.until, t.pollCallees(now))
	if !t.widenAt.IsZero() && !t.widenAt.After(now) {
		t.widenAt = now.Add(widen)
		if len(t.callees) >= mostDials {
			t.widenAt = time.Time{}
		} else {
			t.guess(now, t.window+1, moreDials)
			return now
		}
	}
	next = sooner(next, t.widenAt)
	for len(t.ports) > 0 && t.free() {
		if at := t.rate.ready(); at.After(now) {
			return sooner(next, at)
		}
		t.rate.take(now)
		t.ids++
		t.dials++
		t.sprayed[t.ids] = true
		t.m.do(Dial{ID: t.ids, To: netip.AddrPortFrom(t.theirs.External.Addr(), t.ports[0]), Timeout: tryGuessed})
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
	if t.dials >= b.Dials {
		return false
	}
	atOnce := len(t.sprayed)
	for _, c := range t.callees {
		if c.id != 0 {
			atOnce++
		}
	}
	return atOnce < b.AtOnce
}

func (t *tcp) pollCallees(now time.Time) (next time.Time) {
	for i := range t.callees {
		c := &t.callees[i]
		if c.next.IsZero() || c.id != 0 {
			continue
		}
		if c.next.After(now) {
			next = sooner(next, c.next)
			continue
		}
		if !t.free() { // until another ends; for ever when all dials are made
			if t.dials >= t.m.cfg.Budget.Dials {
				c.next = time.Time{}
			}
			continue
		}
		t.ids++
		t.dials++
		c.id, c.next = t.ids, time.Time{}
		c.left--
		t.m.do(Dial{ID: c.id, To: c.to, Fresh: c.fresh, Timeout: c.timeout})
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
	for _, other := range candidates(c.Theirs, endpoint.TCP) {
		if vouched[other.Addr()] && other != to {
			most[other.Addr()] += maxTries
		}
	}
	switch part := planTCP(&c); {
	case part.Strategy == None:
	case part.Ports == Predicted:
		most[to.Addr()] += mostDials * moreTries
	case part.Ports == Block:
		most[to.Addr()] += min(c.Budget.Sprayed, int(c.Theirs.TCP.High)-int(c.Theirs.TCP.Low)+1)
	case part.Ports == Any:
		most[to.Addr()] += c.Budget.Sprayed
	case part.Sockets > 1:
		most[to.Addr()] += part.Sockets * heldTries
	default:
		most[to.Addr()] += maxTries
	}
	for a, n := range most {
		if n > dials || n == dials && a.Less(addr) {
			addr, dials = a, n
		}
	}
	return addr, min(dials, c.Budget.Dials)
}
