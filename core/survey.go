package crust

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A survey finds out what observe.Machine wishes to know about our NATs and the peers
// that are connected can show. There is one when enough of them are there, another
// when more have come, and when this machine's network or its mappings have changed;
// each after a moment of random length, since all neighbours of a service that has
// gone may notice at once. Pauses between surveys of the same network double. One
// survey sends some hundred small packets at most, and asks a peer for a few.

const (
	// surveyPeers is how many networks must be there for a survey: of fewer there is
	// nothing to compare.
	surveyPeers = 2
	// surveySoon is how long a survey waits for more peers, and as much again at random.
	surveySoon = 500 * time.Millisecond
	// surveyPause is the least time between two surveys, which doubles up to surveyMost;
	// after that time what is known is looked at again, too, and sooner what grows old
	// before: see renewal.
	surveyPause = 2 * time.Second
	surveyMost  = observe.FactLife / 2
	// surveyRenew is the most that what grows old waits for the least time between two
	// surveys.
	surveyRenew = time.Minute
	// surveySteps bounds the measurements of one survey and flow, surveyTries those of a
	// kind.
	surveySteps = 12
	surveyTries = 3
	// surveyWait is how long a survey waits for the time of the next measurement.
	surveyWait = 1500 * time.Millisecond
	// reachWidth is how many peers are asked for a probe at once.
	reachWidth = 3
	// reachPatience is how long they have, and reachGrace how long a probe that was sent
	// may take, at least.
	reachPatience = 3 * time.Second
	reachGrace    = 400 * time.Millisecond
	// maxMet bounds the addresses that the TCP listener is known to have met; with more
	// it begins anew.
	maxMet = 4096
)

// surveys is when the next one is due. watch.mu guards it.
type surveys struct {
	stir    chan struct{} // has a value when something has changed; nil: no goroutine yet
	epoch   uint64        // counts changes of the network and of mappings
	running bool
	due     bool // one will come as soon as it may
	temper  temper
}

// surveySoon lets a survey begin, for something has changed: more peers are there, or
// with anew what was known says nothing any more.
func (s *Service) surveySoon(anew bool) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.surveys.stir == nil {
		if len(w.asks)+len(w.servers) == 0 {
			return
		}
		w.surveys.stir = make(chan struct{}, 1)
		s.spawn(s.surveyor)
	}
	if anew {
		w.surveys.epoch++
	}
	w.surveys.due = true
	select {
	case w.surveys.stir <- struct{}{}:
	default:
	}
}

// otherNetwork lets a survey begin with nothing known of the NAT.
func (s *Service) otherNetwork() {
	s.lookAround()
	s.watch.mu.Lock()
	s.watch.surveys.temper = untried
	s.watch.mu.Unlock()
	s.surveySoon(true)
}

// surveyor is the goroutine of all surveys.
func (s *Service) surveyor() {
	w := &s.watch
	pause, epoch := surveyPause, uint64(0)
	timer := time.NewTimer(surveyMost)
	defer timer.Stop()
	for {
		select {
		case <-w.surveys.stir:
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		if !s.rest(s.ctx, surveySoon+rand.N(surveySoon)) {
			return
		}
		enough := s.networks() >= surveyPeers || len(s.cfg.STUN) > 0
		w.mu.Lock()
		select { // what came meanwhile is looked at now
		case <-w.surveys.stir:
		default:
		}
		if w.surveys.epoch != epoch {
			epoch, pause = w.surveys.epoch, surveyPause
		}
		w.surveys.due, w.surveys.running = false, enough
		w.mu.Unlock()
		timer.Reset(surveyMost + rand.N(surveyMost/4))
		if !enough {
			continue
		}
		s.survey()
		s.logNAT()
		s.gossip.moved()
		w.mu.Lock()
		w.surveys.running = false
		anew := w.surveys.epoch != epoch
		w.mu.Unlock()
		rest := pause
		if due, ok := s.renewal(); ok {
			due = max(due, min(pause, surveyRenew))
			rest = min(pause, due)
			timer.Reset(due)
		}
		if !anew && !s.rest(s.ctx, rest) {
			return
		}
		pause = min(2*pause, surveyMost)
	}
}

// renewal returns when what observers have said must be asked for again, before it is too
// old to say anything: peers that stay connected tell it once. It reports false when
// nothing of the kind is known.
func (s *Service) renewal() (until time.Duration, ok bool) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, proto := range []observe.Proto{observe.UDP, observe.TCP} {
		for _, six := range []bool{false, true} {
			for _, wish := range w.machine.Wishes(observe.Flow{Proto: proto, IPv6: six}, now) {
				if in := wish.At.Sub(now); in > 0 && (!ok || in < until) {
					until, ok = in, true
				}
			}
		}
	}
	return until, ok
}

// networks returns in how many networks observers are.
func (s *Service) networks() int {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[netip.Prefix]bool{}
	for _, a := range w.asks {
		if a.theirs != 0 {
			found[observe.Network(a.at.Addr())] = true
		}
	}
	return len(found)
}

// survey measures what there is to measure.
func (s *Service) survey() {
	s.lookAround()
	for _, six := range []bool{false, true} {
		s.askServers(observe.Flow{IPv6: six})
		s.surveyFlow(observe.Flow{IPv6: six})
		s.surveyFlow(observe.Flow{Proto: observe.TCP, IPv6: six})
	}
	s.reachListeners()
}

// surveyFlow measures what the machine wishes to know about a flow, the most useful
// first, as far as there are peers to ask.
func (s *Service) surveyFlow(f observe.Flow) {
	w := &s.watch
	tries := map[observe.Probe]int{}
	for range surveySteps {
		if len(s.observers(f)) == 0 && len(s.servers(f)) == 0 || s.ctx.Err() != nil {
			return
		}
		now := time.Now()
		w.mu.Lock()
		wishes := w.machine.Wishes(f, now)
		w.mu.Unlock()
		i := slices.IndexFunc(wishes, func(wish observe.Wish) bool {
			return tries[wish.Probe] < surveyTries && wish.At.Sub(now) <= surveyWait
		})
		if i < 0 || !s.rest(s.ctx, wishes[i].At.Sub(now)) {
			return
		}
		tries[wishes[i].Probe]++
		if !s.measure(f, wishes[i].Probe) {
			tries[wishes[i].Probe] = surveyTries
		}
	}
}

// measure does one measurement, and reports false when there is nobody to do it with.
func (s *Service) measure(f observe.Flow, what observe.Probe) bool {
	switch what {
	case observe.AskVotes, observe.AskSocket:
		return s.askVotes(f)
	case observe.AskSample:
		return s.askSample(f)
	case observe.AskStranger:
		servers := s.filterServers(f, observe.Stranger)
		return s.filterStranger(f) || servers
	case observe.AskNeighbour:
		servers := s.filterServers(f, observe.Neighbour)
		return s.filterNeighbour(f) || servers
	case observe.AskPort:
		return s.filterNeighbour(f)
	case observe.AskHairpin:
		return s.hairpin(f)
	}
	return false
}

// observers returns peers that may be asked about a flow, one of each network and
// address: those that we dialled first, and otherwise in any order.
func (s *Service) observers(f observe.Flow) (list []*asker) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.asks { // in no order
		if a.theirs != 0 && a.place(f).IsValid() && a.place(f).Port() != 0 && a.place(f).Addr().Is6() == f.IPv6 {
			list = append(list, a)
		}
	}
	slices.SortStableFunc(list, func(a, b *asker) int {
		switch {
		case a.dialed == b.dialed:
			return 0
		case a.dialed:
			return -1
		}
		return 1
	})
	seen := map[netip.Prefix]bool{}
	return slices.DeleteFunc(list, func(a *asker) bool {
		network := observe.Network(a.place(f).Addr())
		again := seen[network]
		seen[network] = true
		return again
	})
}

// place is where a peer answers echoes of a protocol.
func (a *asker) place(f observe.Flow) netip.AddrPort {
	if f.Proto == observe.TCP {
		return a.stream
	}
	return a.at
}

// askVotes asks observers what they see of the socket that peers know.
func (s *Service) askVotes(f observe.Flow) bool {
	if f.Proto == observe.TCP {
		return s.askSocketTCP(f, false)
	}
	var waiting []*asker
	for _, a := range s.observers(f) {
		s.watch.mu.Lock()
		stale := a.dialed && time.Since(a.answer) >= echoFresh
		s.watch.mu.Unlock()
		if stale && len(waiting) < sampleWidth {
			waiting = append(waiting, a)
		}
	}
	over := make(chan struct{}, len(waiting))
	for _, a := range waiting {
		s.spawn(func() {
			s.askOften(a)
			over <- struct{}{}
		})
	}
	for range waiting {
		select {
		case <-over:
		case <-s.ctx.Done():
			return false
		}
	}
	return len(waiting) > 0
}

// askSample asks several observers at once about a new socket.
func (s *Service) askSample(f observe.Flow) bool {
	if f.Proto == observe.TCP {
		return s.askSocketTCP(f, true)
	}
	return !f.IPv6 && s.sample()
}

// entrance is a socket that peers may try to reach.
type entrance interface {
	// askEach returns how peers see the entrance, which sends to each at an address;
	// some may not answer.
	askEach(at map[*asker]netip.AddrPort) map[*asker]netip.AddrPort
	// where returns the address at which a peer answers. watch.mu is held.
	where(a *asker) netip.AddrPort
	// knows reports whether it has sent to an address.
	knows(netip.Addr) bool
	local() netip.AddrPort
	close()
}

// askFrom asks peers how they see an entrance, each where it answers.
func (s *Service) askFrom(e entrance, list []*asker) map[*asker]netip.AddrPort {
	at := make(map[*asker]netip.AddrPort, len(list))
	s.watch.mu.Lock()
	for _, a := range list {
		at[a] = e.where(a)
	}
	s.watch.mu.Unlock()
	return e.askEach(at)
}

// entrance opens one.
func (s *Service) entrance(f observe.Flow) (entrance, error) {
	if f.Proto == observe.TCP {
		return s.openDoor(f)
	}
	return s.openWindow(f)
}

// filterStranger has peers send to a socket that has sent to another peer alone. As
// long as it is not known that our NAT stands that, only one does: there are routers
// that drop for a while all that comes from where a stranger's packet has come.
func (s *Service) filterStranger(f observe.Flow) bool {
	list := s.observers(f)
	if len(list) < 2 {
		return false
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	via := slices.IndexFunc(list, func(a *asker) bool { return a.dialed })
	if via < 0 {
		return false
	}
	list[0], list[via] = list[via], list[0]
	senders := list[1:min(len(list), 1+reachWidth)]
	w := &s.watch
	w.mu.Lock()
	temper := w.surveys.temper
	w.mu.Unlock()
	switch temper {
	case punishes:
		return false
	case untried:
		senders = senders[:1]
	}
	tried, heard := s.filter(f, observe.Stranger, list[:1], senders)
	if !tried || temper != untried {
		return tried
	}
	a := senders[0]
	// What a peer says of a connection comes almost a second after its SYN.
	there := f.Proto == observe.TCP && heard > 0 || s.answers(a)
	w.mu.Lock()
	defer w.mu.Unlock()
	if there {
		w.surveys.temper = stands
	} else {
		w.surveys.temper = punishes
		for _, proto := range []observe.Proto{observe.UDP, observe.TCP} { // an address is punished, not a protocol
			w.machine.Punished(proto, a.place(f), time.Now())
		}
	}
	return true
}

// temper is what a NAT does when a stranger's packet has come.
type temper uint8

const (
	untried  temper = iota
	stands          // nothing to the stranger's other packets
	punishes        // it drops them for a while
)

// answers reports whether a peer answers an echo now.
func (s *Service) answers(a *asker) bool {
	s.watch.mu.Lock()
	a.answer = time.Time{}
	s.watch.mu.Unlock()
	began := time.Now()
	for range echoTries + 1 {
		if s.ask(a, began) {
			return true
		}
		if !s.rest(s.ctx, echoPause) {
			return true
		}
	}
	return false
}

// filterNeighbour has peers send, from another port, to a socket that has sent to
// them.
func (s *Service) filterNeighbour(f observe.Flow) bool {
	list := slices.DeleteFunc(s.observers(f), func(a *asker) bool { return !a.dialed })
	s.watch.mu.Lock()
	temper := s.watch.surveys.temper
	s.watch.mu.Unlock()
	if temper == punishes {
		return false
	}
	list = list[:min(len(list), reachWidth)]
	tried, _ := s.filter(f, observe.Neighbour, list, list)
	return tried
}

// filter opens a socket, lets some peers see it, and others, or the same, send to
// where they have seen it. It reports whether any could be asked, and of how many
// something was heard.
func (s *Service) filter(f observe.Flow, contact observe.Contact, via, senders []*asker) (tried bool, heard int) {
	if len(senders) == 0 {
		return false, 0
	}
	e, err := s.entrance(f)
	if err != nil {
		return false, 0
	}
	defer e.close()
	seen := s.askFrom(e, via)
	t := UTP
	if f.Proto == observe.TCP {
		t = TCP
	}
	out := make(chan outcome, 2*len(senders))
	var list []*reaching
	expect := map[*reaching]netip.AddrPort{}
	for _, a := range senders {
		at, ok := seen[a]
		if contact == observe.Stranger {
			at, ok = seen[via[0]]
		}
		if !ok {
			continue
		}
		if r := s.askReach(a, t, at.Port(), out); r != nil {
			list = append(list, r)
			expect[r] = at
		}
	}
	defer s.forgetReaches(list)
	ports := map[*asker]netip.AddrPort{}
	heard = s.await(list, out, func(o outcome) {
		s.watch.mu.Lock()
		defer s.watch.mu.Unlock()
		now := time.Now()
		if ports[o.of.asker] = o.from; !o.from.IsValid() {
			ports[o.of.asker] = netip.AddrPortFrom(o.of.asker.place(f).Addr(), o.said.From)
		}
		switch {
		case o.from.IsValid() && e.knows(o.from.Addr()):
			s.watch.machine.Arrived(f.Proto, o.from, observe.Neighbour, now)
		case o.from.IsValid():
			s.watch.machine.Arrived(f.Proto, o.from, observe.Stranger, now)
		case o.said.To == expect[o.of].Addr() && o.of.asker.dialed:
			s.watch.machine.Missed(f.Proto, o.of.asker.place(f), contact, now)
		}
	})
	if contact == observe.Neighbour {
		s.comparePorts(f, e, seen, ports)
	}
	return len(list) > 0, heard
}

// comparePorts asks peers that have just sent from another port what they see there,
// when that may tell on what the mapping depends.
func (s *Service) comparePorts(f observe.Flow, e entrance, seen, ports map[*asker]netip.AddrPort) {
	w := &s.watch
	w.mu.Lock()
	wanted := w.machine.Verdict(f, time.Now()).NAT.Mapping >= wire.AddressDependent
	w.mu.Unlock()
	if !wanted {
		return
	}
	if f.Proto == observe.TCP && !s.rest(s.ctx, reachGrace) { // until both ends of the connections are free
		return
	}
	for a, at := range ports {
		if at.Port() == 0 {
			continue
		}
		again, ok := e.askEach(map[*asker]netip.AddrPort{a: at})[a]
		if !ok {
			continue
		}
		vote := observe.Vote{Proto: f.Proto, Local: e.local(), Seen: seen[a], Observer: a.place(f), Outbound: a.dialed}
		other := vote
		other.Seen, other.Observer = again, at
		w.mu.Lock()
		w.machine.Observe(vote, time.Now())
		w.machine.Observe(other, time.Now())
		w.mu.Unlock()
	}
}

// await gives each probe's fate to tell: that it has arrived, or that it was sent and
// has not arrived in time, with what was said. Those that were not sent have none. It
// returns of how many something was heard.
func (s *Service) await(list []*reaching, out <-chan outcome, tell func(outcome)) (heard int) {
	timer := time.NewTimer(reachPatience)
	defer timer.Stop()
	arrived, said := map[*reaching]bool{}, map[*reaching]outcome{}
	for waiting := true; waiting && len(arrived) < len(list); {
		select {
		case o := <-out:
			if o.from.IsValid() {
				arrived[o.of] = true
				tell(o)
				continue
			}
			said[o.of] = o
			if !slices.ContainsFunc(list, func(r *reaching) bool { _, word := said[r]; return !word && !arrived[r] }) {
				timer.Reset(max(reachGrace, 3*o.of.asker.peer.sess.Counters().RTT/2)) // all are on their way, if at all
			}
		case <-timer.C:
			waiting = false
		case <-s.ctx.Done():
			return 0
		}
	}
	for _, r := range list {
		o, word := said[r]
		if word || arrived[r] {
			heard++
		}
		if word && !arrived[r] && o.said.Result == wire.ReachDone {
			tell(o)
		}
	}
	return heard
}

// reachListeners has peers send to where our listeners are, as others see them: what
// arrives proves that strangers reach us, and nothing else does.
func (s *Service) reachListeners() {
	s.watch.mu.Lock()
	temper := s.watch.surveys.temper
	s.watch.mu.Unlock()
	width := reachWidth
	switch temper {
	case punishes:
		return
	case untried: // by UDP nothing could be tried
		width = 1
	}
	for _, l := range s.Listeners() {
		if s.isOld(l) || l.Transport == Tracer {
			continue
		}
		for _, six := range []bool{false, true} {
			f := observe.Flow{IPv6: six}
			if l.Transport == TCP {
				f.Proto = observe.TCP
			}
			at := s.seenListener(f, l)
			if !at.IsValid() {
				continue
			}
			s.reachListener(f, l.Transport, at, width)
		}
	}
}

// seenListener returns where others see a listener, if that is known.
func (s *Service) seenListener(f observe.Flow, l Endpoint) netip.AddrPort {
	if f.IPv6 && l.Addr.Addr().Is4() {
		return netip.AddrPort{}
	}
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.machine.Verdict(f, time.Now())
	for _, e := range v.External {
		if e.Mapped && observe.Wide(e.Addr.Addr()) {
			return e.Addr
		}
	}
	switch at := v.NAT.External; {
	case v.Near || !at.IsValid():
	case v.None, v.NAT.Ports == wire.PortsPreserving:
		return netip.AddrPortFrom(at.Addr(), l.Addr.Port())
	case v.NAT.Mapping == wire.EndpointIndependent && f.Proto == observe.UDP:
		return at // the service has one socket of a family
	}
	return netip.AddrPort{}
}

// reachListener has up to width peers send to a listener: strangers to its socket first.
func (s *Service) reachListener(f observe.Flow, t Transport, at netip.AddrPort, width int) {
	list := s.observers(f)
	slices.SortStableFunc(list, func(a, b *asker) int {
		return int(s.contactOf(f, a.place(f).Addr())) - int(s.contactOf(f, b.place(f).Addr()))
	})
	list = list[:min(len(list), width)]
	out := make(chan outcome, 2*len(list))
	var asked []*reaching
	contact := map[*reaching]observe.Contact{}
	for _, a := range list {
		c := s.contactOf(f, a.place(f).Addr())
		if r := s.askReach(a, t, at.Port(), out); r != nil {
			asked = append(asked, r)
			contact[r] = c
		}
	}
	defer s.forgetReaches(asked)
	tried := 0
	s.await(asked, out, func(o outcome) {
		s.watch.mu.Lock()
		defer s.watch.mu.Unlock()
		switch {
		case o.from.IsValid():
			s.watch.machine.Arrived(f.Proto, o.from, contact[o.of], time.Now())
		case o.said.To == at.Addr():
			tried++
		}
	})
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	s.watch.tried[f.Proto] = tried
}

// meets notes that the port of the TCP listener is, or was, in contact with an address:
// filters may let in what comes from there.
func (s *Service) meets(a netip.Addr) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if s.watch.met == nil || len(s.watch.met) >= maxMet {
		s.watch.met = make(map[netip.Addr]bool)
	}
	s.watch.met[a.Unmap()] = true
}

// contactOf says what the socket of listeners has sent to an address before.
func (s *Service) contactOf(f observe.Flow, a netip.Addr) observe.Contact {
	if f.Proto == observe.TCP {
		s.watch.mu.Lock()
		defer s.watch.mu.Unlock()
		if s.watch.met[a.Unmap()] {
			return observe.Neighbour
		}
		return observe.Stranger
	}
	s.udpMu.Lock()
	u := s.udpOpen(a)
	s.udpMu.Unlock()
	if u != nil && u.mux.Contacted(a) {
		return observe.Neighbour
	}
	return observe.Stranger
}
