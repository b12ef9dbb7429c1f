package simnet

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
)

const (
	// headers4, headers6 are what IP and UDP put before a datagram, in bytes
	// (RFC 791, RFC 8200, RFC 768).
	headers4, headers6 = 20 + 8, 40 + 8
	// defaultQueue is what a link holds back of datagrams, in bytes.
	defaultQueue = 256 << 10
	// minLate is the least bound on how late a datagram is that Reorder chose.
	minLate = time.Millisecond
)

// datagram is what travels. number orders those that arrive at one instant.
type datagram struct {
	from, to netip.AddrPort // as they show on the way
	data     []byte
	ttl      int
	cast     bool      // to all of a segment
	at       time.Time // of arrival
	number   uint64
}

// air is the way that datagrams take from one host to another. Everything random
// comes from its own source, so that what happens on it depends only on the seed
// and on what is sent there.
type air struct {
	link     *link
	from, to *Host
	random   *rand.Rand
	flight   flight
	count    uint64
	last     time.Time // arrival of the latest that is not late
	timer    *time.Timer
}

// flight is a heap by arrival.
type flight []datagram

func (f flight) Len() int      { return len(f) }
func (f flight) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f flight) Less(i, j int) bool {
	return f[i].at.Before(f[j].at) || f[i].at.Equal(f[j].at) && f[i].number < f[j].number
}

// Push implements heap.Interface.
func (f *flight) Push(x any) { *f = append(*f, x.(datagram)) }

// Pop implements heap.Interface.
func (f *flight) Pop() any {
	last := len(*f) - 1
	d := (*f)[last]
	(*f)[last] = datagram{}
	*f = (*f)[:last]
	return d
}

// newAir makes the way from a host. Called with the lock held.
func newAir(l *link, from, to *Host) *air {
	n := from.net
	return &air{link: l, from: from, to: to, random: rand.New(rand.NewPCG(n.seed, uint64(from.number)<<32|uint64(to.number)))}
}

// send lets a datagram leave the host's socket at local, and returns from where
// it seems to come; the zero AddrPort means that it cannot leave. Called with
// the lock held. It keeps data.
func (h *Host) send(local, to netip.AddrPort, data []byte, ttl int) netip.AddrPort {
	peer := h.next(to)
	from, ok := h.sourceOf(local, peer, to)
	if !ok {
		return netip.AddrPort{}
	}
	if peer != h {
		from = h.seen(from)
	}
	if peer != nil {
		h.net.link(h, peer).air(h, peer).push(datagram{from: from, to: to, data: data, ttl: ttl})
	}
	return from
}

// sourceOf returns from where a socket sends to an address, if it can.
func (h *Host) sourceOf(local netip.AddrPort, peer *Host, to netip.AddrPort) (netip.AddrPort, bool) {
	a := local.Addr()
	if a.IsUnspecified() && covers(a, to.Addr()) {
		a = h.source(peer, to.Addr())
	}
	if !a.IsValid() || a.IsUnspecified() || a.Is4() != to.Addr().Is4() || to.Port() == 0 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, local.Port()), true
}

// air returns the way of datagrams from one host of the link to the other.
func (l *link) air(from, to *Host) *air {
	a := l.airs[from]
	if a == nil {
		a = newAir(l, from, to)
		l.airs[from] = a
	}
	return a
}

// push sends a datagram on its way, or loses it. The same number of random
// values is drawn for each. Called with the lock held.
func (a *air) push(d datagram) {
	l, now := a.link, time.Now()
	lost, twice, late := a.random.Float64() < l.Loss, a.random.Float64() < l.Duplicate, a.random.Float64() < l.Reorder
	jitter, lateness := a.random.Float64(), a.random.Float64()
	size := len(d.data) + headers4
	if d.to.Addr().Is6() {
		size = len(d.data) + headers6
	}
	d.ttl -= l.Hops
	if l.state != up || d.ttl <= 0 || len(d.data) > netio.MaxRun || l.MTU > 0 && size > l.MTU {
		return
	}
	if l.Bandwidth > 0 && l.free[a.from].Sub(now).Seconds()*float64(l.Bandwidth)+float64(size) > float64(l.queue()) {
		return // the queue before the wire is full
	}
	leaves := l.transmit(a.from, size, now)
	if lost {
		return
	}
	spread := l.Latency + l.Jitter
	d.at = leaves.Add(l.Latency + time.Duration(jitter*float64(max(l.Jitter, 0))))
	if late {
		d.at = d.at.Add(time.Duration(lateness * float64(max(spread, minLate))))
	} else {
		if d.at.Before(a.last) {
			d.at = a.last
		}
		a.last = d.at
	}
	a.fly(d)
	if twice {
		d.data = slices.Clone(d.data)
		a.fly(d)
	}
	a.deliver()
}

func (a *air) fly(d datagram) {
	d.number = a.count
	a.count++
	heap.Push(&a.flight, d)
}

// deliver hands over what has arrived by now and waits for the next. Called
// with the lock held.
func (a *air) deliver() {
	now := time.Now()
	for len(a.flight) > 0 && !a.flight[0].at.After(now) {
		d := heap.Pop(&a.flight).(datagram)
		if a.link.state == up {
			a.to.receive(d, a.from)
		}
	}
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	if len(a.flight) > 0 {
		a.timer = time.AfterFunc(a.flight[0].at.Sub(now), func() {
			a.from.net.mu.Lock()
			defer a.from.net.mu.Unlock()
			a.deliver()
		})
	}
}

func (l *link) queue() int {
	if l.Queue > 0 {
		return l.Queue
	}
	return defaultQueue
}

// Forge sends a datagram from a host as if it came from elsewhere, as an
// attacker does whose network lets him. It is carried and lost as any other.
func (h *Host) Forge(from, to netip.AddrPort, data []byte) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if peer := h.next(to); peer != nil {
		n.link(h, peer).air(h, peer).push(datagram{from: from, to: to, data: slices.Clone(data), ttl: defaultTTL})
	}
}

// Watch lets see look at every datagram that a socket sends, also at those that
// get lost later: source and destination as they show on the way. see runs in
// the sender's goroutine, before the datagram may have arrived or after, and
// must not change or keep data. nil ends it.
func (n *Net) Watch(see func(from, to netip.AddrPort, data []byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watch = see
}
