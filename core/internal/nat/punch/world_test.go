package punch

import (
	"container/heap"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// manner is what a NAT does with a packet that no filter lets in.
type manner uint8

const (
	drops    manner = iota
	refuses         // answers by a reset or an ICMP message
	pollutes        // answers, and keeps an entry that takes the port from later mappings
	punishes        // lets nothing of that address in for 30 s
)

// listen is the internal port of the service's sockets.
const listen = 5483

// box is a NAT of one transport protocol, with address-and-port-dependent filtering
// unless facts say otherwise. Its external address is ip; the host behind it has it
// too when there is no translation (facts.Ports preserving and mapping independent).
type box struct {
	r      *rand.Rand
	ip     netip.Addr
	facts  wire.NAT
	manner manner
	rate   float64 // mappings of others a second

	last    uint16 // of a sequence
	lastAt  time.Duration
	out     map[[2]netip.AddrPort]uint16         // internal and remote endpoint: external port
	in      map[uint16]map[netip.AddrPort]uint16 // external port, remote endpoint: internal port
	taken   map[uint16]map[netip.AddrPort]bool   // polluted
	banned  map[netip.Addr]time.Duration
	strange int // packets that met no mapping
}

func newBox(r *rand.Rand, ip string, facts wire.NAT, how manner, rate float64) *box {
	b := &box{r: r, ip: netip.MustParseAddr(ip), facts: facts, manner: how, rate: rate}
	b.facts.Rate = uint16(math.Round(rate * 10))
	b.last = uint16(20000 + r.IntN(20000))
	b.out, b.in = map[[2]netip.AddrPort]uint16{}, map[uint16]map[netip.AddrPort]uint16{}
	b.taken, b.banned = map[uint16]map[netip.AddrPort]bool{}, map[netip.Addr]time.Duration{}
	return b
}

func poisson(r *rand.Rand, mean float64) (n int) {
	for p := r.Float64(); p > math.Exp(-mean) && n < 100000; n++ {
		p *= r.Float64()
	}
	return n
}

// port chooses the external port of a new mapping.
func (b *box) port(now time.Duration, internal uint16, to netip.AddrPort) uint16 {
	free := func(p uint16) bool { return b.in[p][to] == 0 && !b.taken[p][to] }
	for range 100000 {
		var p uint16
		switch b.facts.Ports {
		case wire.PortsSequential:
			others := 0
			if b.lastAt > 0 {
				others = poisson(b.r, b.rate*(now-b.lastAt).Seconds())
			}
			b.lastAt = now
			b.last += uint16(int(b.facts.Step) * (1 + others))
			p = b.last
		case wire.PortsBlock:
			p = b.facts.Low + uint16(b.r.IntN(int(b.facts.High)-int(b.facts.Low)+1))
		case wire.PortsRandom:
			p = uint16(1024 + b.r.IntN(65536-1024))
		default:
			if p = internal; !free(p) {
				p = uint16(1024 + b.r.IntN(65536-1024))
			}
		}
		if free(p) {
			return p
		}
	}
	panic("no port is free")
}

// leave sends out and returns the external endpoint.
func (b *box) leave(now time.Duration, internal uint16, to netip.AddrPort) netip.AddrPort {
	k := [2]netip.AddrPort{netip.AddrPortFrom(b.ip, internal), to}
	p, ok := b.out[k]
	if !ok {
		p = b.port(now, internal, to)
		b.out[k] = p
		if b.in[p] == nil {
			b.in[p] = map[netip.AddrPort]uint16{}
		}
		b.in[p][to] = internal
	}
	return netip.AddrPortFrom(b.ip, p)
}

// enter takes a packet from outside and returns the internal port, or 0, and
// whether the sender is told.
func (b *box) enter(now time.Duration, port uint16, from netip.AddrPort) (internal uint16, told bool) {
	if now < b.banned[from.Addr()] {
		return 0, false
	}
	if internal = b.in[port][from]; internal != 0 {
		return internal, false
	}
	if b.facts.Filtering != wire.AddressPortDependent {
		for remote, to := range b.in[port] {
			if b.facts.Filtering == wire.EndpointIndependent || remote.Addr() == from.Addr() {
				return to, false
			}
		}
	}
	b.strange++
	switch b.manner {
	case refuses:
		return 0, true
	case pollutes:
		if b.taken[port] == nil {
			b.taken[port] = map[netip.AddrPort]bool{}
		}
		b.taken[port][from] = true
		return 0, true
	case punishes:
		b.banned[from.Addr()] = now + 30*time.Second
	}
	return 0, false
}

// observe returns the facts as an observer finds them.
func (b *box) observe(now time.Duration) wire.NAT {
	n := b.facts
	n.External = b.leave(now, listen, netip.MustParseAddrPort("192.0.2.99:5483"))
	return n
}

type event struct {
	at time.Duration
	n  int
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// world is two peers, each behind its boxes, and a path between them.
type world struct {
	r      *rand.Rand
	now    time.Duration
	events events
	count  int
	delay  time.Duration
	loss   float64
	ttl    int // hops to the other's box
	own    int // hops to one's own
	peers  [2]*peer
}

var epoch = time.Unix(1e9, 0)

func (w *world) time() time.Time { return epoch.Add(w.now) }

func (w *world) after(d time.Duration, do func()) {
	w.count++
	heap.Push(&w.events, event{w.now + max(0, d), w.count, do})
}

// run goes on until nothing is left to do or the time is over.
func (w *world) run(until time.Duration) {
	for w.events.Len() > 0 && w.events[0].at <= until {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
}

// peer is one side: machine, sockets, boxes.
type peer struct {
	w        *world
	other    *peer
	m        *Machine
	udp, tcp *box
	sockets  int // beside the service's own
	timer    time.Time

	sent     map[netip.Addr]int // packets by address
	tokens   map[pair]pair      // what came last by a pair of endpoints: where the peer sent it to
	dials    int
	chosen   *Nominated
	failed   []Failed
	links    map[tuple]*conn
	dialling map[int]tuple // by id
	atOnce   int           // dials
	linked   bool
	lan      netip.Addr // in one network with the other, without a box between; zero: none
	blunt    bool       // dials with a time to live fail at once
}

// pump polls the machine and does what it says.
func (p *peer) pump() {
	if p.m == nil {
		return
	}
	acts, next := p.m.Poll(p.w.time())
	opened := -1
	for _, a := range acts {
		switch a := a.(type) {
		case Send:
			p.send(a)
		case Open:
			opened = a.Sockets
		case Nominated:
			p.chosen = &a
		case Failed:
			p.failed = append(p.failed, a)
		case Dial:
			p.dial(a)
		case Stop:
			p.stop(a.ID)
		}
	}
	p.timer = next
	if opened >= 0 {
		p.sockets = opened
		p.m.Opened(p.w.time(), opened)
		p.pump()
		return
	}
	if !next.IsZero() {
		p.w.after(next.Sub(p.w.time()), func() {
			if p.timer.Equal(next) {
				p.pump()
			}
		})
	}
}

// internal is the local port of a UDP socket.
func internal(socket int) uint16 { return listen + uint16(socket) }

func (p *peer) send(a Send) {
	if a.Socket < 0 || a.Socket > p.sockets {
		panic("no such socket")
	}
	p.sent[a.To.Addr()]++
	token, echo := pair{a.Socket, a.To}, p.tokens[pair{a.Socket, a.To}]
	p.carry(p.udp, internal(a.Socket), a.To, a.TTL, func(o *peer, port uint16, from netip.AddrPort) {
		if a.Kind != Opener {
			here := pair{int(port - listen), from}
			if o.tokens == nil {
				o.tokens = map[pair]pair{}
			}
			o.tokens[here] = token
			o.m.Probe(o.w.time(), Heard{here.socket, from, a.Kind, a.Size, echo == here})
			o.pump()
		}
	}, nil)
}

// carry moves a packet through our box, the path and the other's box. told is
// called when a box refuses it.
func (p *peer) carry(b *box, from uint16, to netip.AddrPort, ttl int, arrive func(o *peer, port uint16, from netip.AddrPort), told func()) {
	w, o := p.w, p.other
	if p.lan.IsValid() && to.Addr() == o.lan {
		w.after(time.Millisecond, func() { arrive(o, to.Port(), netip.AddrPortFrom(p.lan, from)) })
		return
	}
	if ttl != 0 && ttl < w.own {
		return
	}
	ext := b.leave(w.now, from, to)
	if w.r.Float64() < w.loss || ttl != 0 && ttl < w.ttl {
		return
	}
	w.after(w.delay+time.Duration(w.r.IntN(2000))*time.Microsecond, func() {
		there := o.udp
		if b == p.tcp {
			there = o.tcp
		}
		if to.Addr() != there.ip {
			return
		}
		port, refused := there.enter(w.now, to.Port(), ext)
		if port != 0 {
			arrive(o, port, ext)
		}
		if refused && told != nil {
			w.after(w.delay, func() {
				if back, _ := b.enter(w.now, ext.Port(), to); back == from {
					told()
				}
			})
		}
	})
}

// tuple is a TCP connection as its host sees it.
type tuple struct {
	local  uint16
	remote netip.AddrPort
}

type conn struct {
	id    int  // of the Dial; -1: accepted
	asked bool // a SYN came: an ACK is enough
	done  bool
}

var errRefused, errTimeout, errExists = errors.New("refused"), errUnanswered, ErrPort

func (p *peer) dial(a Dial) {
	local := uint16(listen)
	if a.Hold > 0 {
		local = 40000 + uint16(a.Hold)
	}
	p.dials++
	p.sent[a.To.Addr()]++
	t := tuple{local, a.To}
	if p.links[t] != nil {
		p.w.after(0, func() { p.dialled(a.ID, errExists) })
		return
	}
	c := &conn{id: a.ID}
	p.dialling[a.ID] = t
	p.links[t] = c
	p.atOnce++
	for seconds := range 5 { // as Linux retransmits
		ttl := 0
		if seconds == 0 {
			ttl = a.TTL
		}
		if again := time.Duration(seconds) * time.Second; again < a.Timeout {
			p.w.after(again, func() {
				if p.links[t] == c && !c.done {
					p.segment(t, "syn", ttl)
				}
			})
		}
	}
	p.w.after(a.Timeout, func() { p.lose(t, c, errTimeout) })
}

func (p *peer) lose(t tuple, c *conn, err error) {
	if c == nil || p.links[t] != c || c.done {
		return
	}
	delete(p.links, t)
	if c.id >= 0 {
		p.atOnce--
		p.dialled(c.id, err)
	}
}

func (p *peer) dialled(id int, err error) {
	p.m.Dialled(p.w.time(), id, err)
	p.pump()
}

func (p *peer) stop(id int) {
	t := p.dialling[id]
	if c := p.links[t]; c != nil && c.id == id && !c.done {
		delete(p.links, t)
		p.atOnce--
	}
}

// segment sends a TCP segment.
func (p *peer) segment(t tuple, what string, ttl int) {
	p.carry(p.tcp, t.local, t.remote, ttl, func(o *peer, port uint16, from netip.AddrPort) {
		o.receive(tuple{port, from}, what)
	}, func() {
		if what == "syn" {
			p.lose(t, p.links[t], errRefused)
		}
	})
}

// receive follows RFC 9293, section 3.5 and figure 8 (simultaneous open).
func (p *peer) receive(t tuple, what string) {
	c := p.links[t]
	switch {
	case what == "rst" && c != nil:
		p.lose(t, c, errRefused)
	case what == "rst":
	case what == "syn" && c != nil:
		c.asked = true
		p.segment(t, "syn+ack", 0)
	case what == "syn" && t.local == listen:
		p.links[t] = &conn{id: -1, asked: true}
		p.segment(t, "syn+ack", 0)
	case c == nil && what != "ack":
		p.segment(t, "rst", 0)
	case c == nil:
	case !c.done && (what == "syn+ack" || c.asked):
		c.done = true
		if what == "syn+ack" {
			for _, again := range []int{0, 250, 750} { // what is sent first, and repeated, acknowledges too
				p.w.after(time.Duration(again)*time.Millisecond, func() { p.segment(t, "ack", 0) })
			}
		}
		p.linked = true
		if c.id >= 0 {
			p.atOnce--
			p.dialled(c.id, nil)
		}
	}
}
