package portmap

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// checkEvery is how often a router that has given mappings is asked whether it
	// is still the same; every third time also for one of the mappings.
	checkEvery = 4 * time.Second
	deepEvery  = 3
	// collect is how long a better way is waited for after the first has answered.
	collect = 50 * time.Millisecond
	// faithful is how long the way that was in use is waited for when it fell
	// silent and another answers.
	faithful = 2 * time.Second
	// seekLost is how often a router is looked for that once answered: at first,
	// after a minute, and after an hour.
	seekLost, seekLostLater = time.Second, 3 * time.Second
	// seekFirst and seekLongest are the waits, growing, between searches for a
	// router that never answered.
	seekFirst, seekLongest = 2 * time.Second, 2 * time.Minute
	// refusedWait is how long a router that said no is not asked again, unless
	// something changes.
	refusedWait = time.Minute
	// shunned is how long a way is not used that fell silent when it was asked for
	// its first mapping.
	shunned = 10 * time.Second
	// lossGap is how often at most a loss makes us map again: some routers count
	// their epochs wrong.
	lossGap = 2 * time.Second
	// permanentCheck is how often a permanent mapping is made again.
	permanentCheck = 20 * time.Minute
)

// seat is an agent and what is known of it. Client.mu guards what changes.
type seat struct {
	agent
	means  Means
	up     bool
	asking bool // hello runs
	ever   bool // it has been up
	since  time.Time
	shun   time.Time // it answered, but not when a mapping was asked for
	err    error
}

// site asks the router behind one address. Its goroutine owns what is not said to
// be otherwise.
type site struct {
	c       *Client
	iface   Interface
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{}
	refresh atomic.Bool // ask for everything again
	alarm   atomic.Bool // an announcement came: look whether all is there
	reset   atomic.Bool // one came of a server that has started: map again
	fresh   atomic.Bool // a way has come up

	seats  []*seat
	leases []*lease

	nextSeek  time.Time
	seekWait  time.Duration
	lostAt    time.Time // when the last way fell silent; zero: none did
	nextCheck time.Time
	checks    int
	lossAt    time.Time // when leases were made again because of a loss

	mappings []Mapping // under Client.mu
	failures []Failure // under Client.mu
}

func newSite(c *Client, i Interface) *site {
	s := &site{c: c, iface: i, wake: make(chan struct{}, 1), seekWait: seekFirst}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	ask := caller{i.Prefix.Addr(), netip.AddrPortFrom(i.Gateway, serverPort)}
	if !c.without(PCP) && i.Gateway.IsValid() {
		s.seats = append(s.seats, &seat{means: PCP, agent: &pcpAgent{caller: ask, secret: c.cfg.Secret}})
	}
	if !c.without(IGD1, IGD2, Pinhole) {
		u := &upnpAgent{iface: i, description: c.cfg.Description}
		s.seats = append(s.seats, &seat{means: u.means(), agent: u})
	}
	if !c.without(NATPMP) && i.Gateway.IsValid() && i.Gateway.Is4() {
		s.seats = append(s.seats, &seat{means: NATPMP, agent: &pmpAgent{caller: ask}})
	}
	return s
}

// run is the site's life.
func (s *site) run() {
	defer s.cancel()
	defer s.giveBack()
	defer s.listen()()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s.ctx.Err() == nil {
		s.sync()
		if s.refresh.Swap(false) {
			s.again()
		}
		s.inspect()
		s.keep()
		s.seek()
		s.publish()
		timer.Reset(max(0, time.Until(s.next())))
		select {
		case <-s.ctx.Done():
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// sync makes leases of what is wanted, and gives back what is not.
func (s *site) sync() {
	local := s.iface.Prefix.Addr()
	s.c.mu.Lock()
	wants := slices.Clone(s.c.wants)
	s.c.mu.Unlock()
	wants = slices.DeleteFunc(wants, func(w Want) bool { return !s.iface.Serves(w) })
	s.leases = slices.DeleteFunc(s.leases, func(l *lease) bool {
		if slices.Contains(wants, l.want) {
			return false
		}
		if l.held() && s.seatOf(l).isUp(s.c) {
			if err := l.agent.remove(s.ctx, l); err != nil && s.ctx.Err() != nil {
				return false // giveBack does it
			}
		}
		return true
	})
	for _, w := range wants {
		if !slices.ContainsFunc(s.leases, func(l *lease) bool { return l.want == w }) {
			s.leases = append(s.leases, &lease{want: w, local: local, life: s.c.cfg.life})
			s.nextSeek = time.Time{}
		}
	}
}

// again asks for everything again: the network may be another.
func (s *site) again() {
	s.nextSeek, s.nextCheck, s.seekWait = time.Time{}, time.Time{}, seekFirst
	s.alarm.Store(true)
	for _, l := range s.leases {
		l.retry = time.Time{}
	}
}

func (s *site) seatOf(l *lease) *seat {
	for _, w := range s.seats {
		if w.agent == l.agent {
			return w
		}
	}
	return &seat{}
}

// isUp reads up.
func (w *seat) isUp(c *Client) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return w.up
}

// inspect asks the ways in use whether the router still has what it gave.
func (s *site) inspect() {
	now := time.Now()
	if now.Before(s.nextCheck) {
		if !s.alarm.Load() || now.Before(s.nextCheck.Add(time.Second-checkEvery)) {
			return // an announcement is heeded once a second
		}
	}
	alarm := s.alarm.Swap(false)
	if s.reset.Swap(false) {
		for _, l := range s.leases {
			if l.held() {
				l.renew = []time.Time{now}
			}
		}
	}
	s.nextCheck = now.Add(checkEvery)
	s.checks++
	for _, w := range s.seats {
		at := slices.IndexFunc(s.leases, func(l *lease) bool { return l.agent == w.agent })
		if at < 0 || !w.isUp(s.c) {
			continue
		}
		if err := w.check(s.ctx, s.leases[at], alarm || s.checks%deepEvery == 0); err != nil {
			s.fall(w, err)
		}
	}
	if alarm {
		s.nextSeek = time.Time{}
	}
}

// fall notes that a way does not answer any more, and looks for all.
func (s *site) fall(w *seat, err error) {
	if s.ctx.Err() != nil {
		return
	}
	s.c.mu.Lock()
	w.up, w.err = false, err
	for _, other := range s.seats {
		// What has the same router behind it has to show again that it is there.
		other.up = false
	}
	s.c.mu.Unlock()
	for _, l := range s.leases {
		if l.held() {
			l.renew = []time.Time{time.Now()} // when one is back
		}
	}
	s.lostAt, s.nextSeek = time.Now(), time.Time{}
}

// seek says hello in all ways that are not up, as long as anything is missing.
func (s *site) seek() {
	now := time.Now()
	missing := slices.ContainsFunc(s.leases, func(l *lease) bool { return !l.held() || !s.seatOf(l).isUp(s.c) })
	if !missing || now.Before(s.nextSeek) {
		return
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	ever := false
	for _, w := range s.seats {
		ever = ever || w.ever
		if !w.up && !w.asking {
			w.asking = true
			s.c.spawn(func() { s.hello(w) })
		}
	}
	if !ever {
		s.nextSeek = now.Add(s.seekWait)
		s.seekWait = min(2*s.seekWait, seekLongest)
		return
	}
	wait := seekLost
	switch lost := now.Sub(s.lostAt); {
	case s.lostAt.IsZero() || lost > time.Hour:
		wait = time.Minute
	case lost > time.Minute:
		wait = seekLostLater
	}
	s.nextSeek = now.Add(wait)
}

// hello is run beside the site's goroutine.
func (s *site) hello(w *seat) {
	err := w.agent.hello(s.ctx)
	s.c.mu.Lock()
	w.asking, w.up, w.err = false, err == nil, err
	if err == nil {
		w.means, w.since, w.ever = w.agent.means(), time.Now(), true
	}
	s.c.mu.Unlock()
	if err == nil {
		s.fresh.Store(true)
	}
	poke(s.wake)
}

// candidates returns the ways that are up, that which holds the lease first, then
// the best first. wait is until when it is better to wait for another.
func (s *site) candidates(l *lease, now time.Time) (ways []*seat, wait time.Time) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	var first time.Time
	best := IGD1 + 1
	for _, w := range s.seats {
		if w.up && now.After(w.shun) {
			ways = append(ways, w)
			best = min(best, w.means)
			if first.IsZero() || w.since.Before(first) {
				first = w.since
			}
		}
	}
	for _, w := range s.seats {
		if !w.asking || len(ways) == 0 {
			continue
		}
		switch {
		case l.agent == w.agent:
			wait = later(wait, s.lostAt.Add(faithful))
		case l.agent == nil && w.means < best:
			wait = later(wait, first.Add(collect))
		}
	}
	slices.SortStableFunc(ways, func(a, b *seat) int {
		if (a.agent == l.agent) != (b.agent == l.agent) {
			if a.agent == l.agent {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.means, b.means)
	})
	if !wait.After(now) {
		wait = time.Time{}
	}
	return ways, wait
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// keep maps what is missing and renews what is due.
func (s *site) keep() {
	fresh := s.fresh.Swap(false)
	for _, l := range s.leases {
		s.heed()
		if fresh {
			l.retry = time.Time{}
		}
		now := time.Now()
		if l.held() && !l.mapping.Expires.IsZero() && now.After(l.mapping.Expires) {
			l.agent = nil
		}
		doubt := l.held() && !s.seatOf(l).isUp(s.c)
		due := len(l.renew) > 0 && !now.Before(l.renew[0])
		if l.held() && !doubt && !due || now.Before(l.retry) {
			continue
		}
		ways, wait := s.candidates(l, now)
		if len(ways) == 0 {
			continue
		}
		if l.wait = wait; !wait.IsZero() {
			continue
		}
		s.obtain(l, ways)
	}
	s.heed()
}

// heed makes all leases due of a router that has lost its mappings.
func (s *site) heed() {
	now := time.Now()
	for _, w := range s.seats {
		if !w.isUp(s.c) || now.Before(s.lossAt.Add(lossGap)) || !w.forgot() {
			continue
		}
		s.lossAt = now
		for _, l := range s.leases {
			if l.held() {
				l.renew = []time.Time{now}
			}
			l.retry = time.Time{}
		}
	}
}

// obtain asks the ways in turn for a mapping.
func (s *site) obtain(l *lease, ways []*seat) {
	var first error
	for _, w := range ways {
		if !w.isUp(s.c) {
			continue // it fell when another was asked
		}
		g, err := w.add(s.ctx, l)
		if s.ctx.Err() != nil {
			s.suspect(l, w)
			return
		}
		if err == nil {
			if l.held() && l.agent != w.agent && s.seatOf(l).isUp(s.c) {
				_ = l.agent.remove(s.ctx, l)
			}
			s.take(l, w, g)
			return
		}
		if first == nil {
			first = err
		}
		if gone(err) && l.agent == w.agent {
			l.err = err
			s.fall(w, err)
			return
		}
		if gone(err) {
			s.c.mu.Lock()
			w.err, w.shun = err, time.Now().Add(shunned)
			s.c.mu.Unlock()
		}
	}
	now := time.Now()
	l.err = first
	if len(l.renew) > 1 {
		l.renew = l.renew[1:] // the next of 75 % and 87 %
	} else {
		l.renew = nil
	}
	switch {
	case gone(first):
		l.retry = now.Add(shunned)
	case len(l.renew) == 0:
		l.retry = now.Add(refusedWait)
	}
}

// suspect notes that a router may have made a mapping whose answer nobody waits
// for any more, so that it is given back.
func (s *site) suspect(l *lease, w *seat) {
	if l.held() && !l.unsure {
		return
	}
	l.agent, l.unsure = w.agent, true
	if l.mapping.External.Port() == 0 {
		l.mapping.External = netip.AddrPortFrom(netip.Addr{}, cmp.Or(l.want.External, l.want.Port))
	}
}

// take notes a mapping that was granted.
func (s *site) take(l *lease, w *seat, g grant) {
	now := time.Now()
	l.agent, l.err, l.pinhole, l.retry, l.renew = w.agent, nil, g.pinhole, time.Time{}, nil
	l.mapping = Mapping{
		Protocol: l.want.Protocol,
		Internal: netip.AddrPortFrom(l.local, l.want.Port),
		External: g.external,
		Means:    w.means,
		Gateway:  s.iface.Gateway,
		Double:   !global(g.external),
	}
	half := 0.4 + 0.2*rand.Float64()
	if g.lifetime == 0 {
		l.renew = []time.Time{now.Add(time.Duration(2 * half * float64(permanentCheck)))}
	} else {
		l.mapping.Expires = now.Add(g.lifetime)
		for _, part := range []float64{half, 0.75, 0.87} {
			l.renew = append(l.renew, now.Add(time.Duration(part*float64(g.lifetime))))
		}
	}
	s.lostAt = time.Time{}
}

// next returns when there is something to do again.
func (s *site) next() time.Time {
	now := time.Now()
	next := now.Add(time.Hour)
	held, missing := false, false
	for _, l := range s.leases {
		held = held || l.held()
		missing = missing || !l.held() || !s.seatOf(l).isUp(s.c)
		if len(l.renew) > 0 {
			next = earlier(next, later(l.renew[0], l.retry))
		}
		if l.held() && !l.mapping.Expires.IsZero() {
			next = earlier(next, l.mapping.Expires.Add(time.Millisecond))
		}
		for _, t := range []time.Time{l.retry, l.wait} {
			if t.After(now) {
				next = earlier(next, t)
			}
		}
	}
	if s.alarm.Load() {
		next = earlier(next, s.nextCheck.Add(time.Second-checkEvery))
	}
	if held {
		next = earlier(next, s.nextCheck)
	}
	if missing {
		next = earlier(next, s.nextSeek)
	}
	return later(next, now.Add(10*time.Millisecond))
}

// publish shows the leases to the client's callers.
func (s *site) publish() {
	var mappings []Mapping
	var failures []Failure
	for _, l := range s.leases {
		if l.held() {
			mappings = append(mappings, l.mapping)
			continue
		}
		if l.err != nil {
			failures = append(failures, Failure{l.want, s.iface, l.err})
		}
	}
	same := func(a, b Mapping) bool {
		a.Expires, b.Expires = time.Time{}, time.Time{}
		return a == b
	}
	s.c.mu.Lock()
	changed := !slices.EqualFunc(s.mappings, mappings, same)
	s.mappings, s.failures = mappings, failures
	s.c.mu.Unlock()
	if changed && s.c.cfg.Changed != nil && s.ctx.Err() == nil {
		s.c.cfg.Changed()
	}
}

// giveBack ends the mappings, when the whole client ends.
func (s *site) giveBack() {
	if s.c.ctx.Err() == nil {
		return // the interface has gone, and the router with it
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	dead := map[agent]bool{}
	for _, l := range s.leases {
		if !l.held() || !s.seatOf(l).isUp(s.c) || dead[l.agent] {
			continue
		}
		if err := l.agent.remove(ctx, l); gone(err) || errors.Is(err, context.DeadlineExceeded) {
			dead[l.agent] = true
		}
	}
}
