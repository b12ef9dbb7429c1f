package arq

import (
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// path is one direction of a link, in virtual time.
type path struct {
	rate    float64 // bytes a second; zero: no bound
	delay   time.Duration
	jitter  time.Duration // of each datagram on its own: so they overtake
	queue   int           // bytes that wait for the link
	loss    float64
	double  float64
	reorder float64 // share that takes another delay
	mtu     int     // plaintext; larger vanish. Zero: no bound
	cut     bool

	free   time.Duration // when the link has sent what waits
	worst  time.Duration // longest wait in the queue
	queued time.Duration // sum of waits
	passed int
	full   int // dropped from the queue
}

// headers is what the seal, UDP and IP add, in bytes.
const headers = 60

// send returns when a datagram arrives; none is lost on the way when ok.
func (p *path) send(rng *rand.Rand, now time.Duration, n int) (at time.Duration, ok bool) {
	if p.cut || p.mtu > 0 && n > p.mtu {
		return 0, false
	}
	at = now
	if p.rate > 0 {
		p.free = max(p.free, now)
		wait := p.free - now
		if p.queue > 0 && wait.Seconds()*p.rate+float64(n+headers) > float64(p.queue)+1500 {
			p.full++
			return 0, false
		}
		p.worst = max(p.worst, wait)
		p.queued += wait
		p.passed++
		p.free += time.Duration(float64(n+headers) / p.rate * 1e9)
		at = p.free
	}
	if rng.Float64() < p.loss {
		return 0, false
	}
	at += p.delay
	if p.jitter > 0 {
		at += time.Duration(rng.Int64N(int64(p.jitter)))
	}
	if rng.Float64() < p.reorder {
		at += p.delay/2 + time.Duration(rng.Int64N(int64(p.delay)+1000))
	}
	return at, true
}

// event is something to happen in a world: a datagram that arrives at a node,
// or its timer when data is nil.
type event struct {
	at     time.Duration
	serial int
	to     *node
	number uint64
	data   []byte
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].serial < e[j].serial
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	x := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return x
}

// world runs nodes in virtual time.
type world struct {
	t      testing.TB
	rng    *rand.Rand
	now    time.Duration
	queue  events
	serial int
	free   [][]byte
	late   time.Duration // timers fire up to this late
}

func newWorld(t testing.TB, seed uint64) *world {
	return &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: time.Hour}
}

func (w *world) push(e event) {
	w.serial++
	e.serial = w.serial
	heap.Push(&w.queue, e)
}

// at calls f at a time.
func (w *world) at(t time.Duration, f func()) { w.push(event{at: t, do: f}) }

// run goes on until done or until the time is over, and reports done.
func (w *world) run(until time.Duration, done func() bool) bool {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		if done() {
			return true
		}
		e := heap.Pop(&w.queue).(event)
		w.now = max(w.now, e.at)
		switch {
		case e.do != nil:
			e.do()
		case e.data == nil:
			if e.to.timer == e.at {
				e.to.timer = never
				e.to.pump()
			}
		default:
			e.to.receive(e)
		}
	}
	w.now = max(w.now, until)
	return done()
}

// node is one end: a Conn, what it sends, and what it got.
type node struct {
	w      *world
	c      *Conn
	peer   *node
	out    *path
	timer  time.Duration
	number uint64
	seen   map[uint64]bool // the replay window, if the path doubles

	source func() bool // queues more; false when there is no more for now

	packets, bytes int
	check          bool // contents, not only order
	order          uint64
	sentPackets    uint64
	datagrams      []uint64
	responses      []uint64
	closed         []Reason
	delays         []time.Duration
	maxSize        int
	perBurst       int
}

// pair makes two nodes with paths between.
func (w *world) pair(cfg Config, there, back *path) (a, b *node) {
	a, b = &node{w: w, out: there, timer: never}, &node{w: w, out: back, timer: never}
	a.peer, b.peer = b, a
	cfg.Seed = w.rng.Uint64()
	a.c = New(cfg, w.now)
	cfg.Seed = w.rng.Uint64()
	b.c = New(cfg, w.now)
	return a, b
}

// pump sends all that may go and sets the timer.
func (n *node) pump() {
	w := n.w
	n.perBurst = 0
	for {
		for n.source != nil && n.source() {
		}
		if n.number%97 == 13 {
			n.number++ // one is left out
		}
		var b []byte
		if k := len(w.free); k > 0 {
			b, w.free = w.free[k-1], w.free[:k-1]
		}
		most := n.c.MTUNow()
		b, ok := n.c.Next(b[:0], n.number, w.now)
		if !ok {
			w.free = append(w.free, b)
			break
		}
		if len(b) > most {
			w.t.Fatalf("a datagram of %d bytes, at most %d", len(b), most)
		}
		if n.perBurst++; n.perBurst > 1<<17 {
			w.t.Fatal("Next never ends")
		}
		n.transmit(b)
	}
	if at, ok := n.c.Deadline(); ok {
		at = max(at, w.now+time.Microsecond) // asked again at once would find the same
		if w.late > 0 {
			at += time.Duration(w.rng.Int64N(int64(w.late)))
		}
		if at != n.timer {
			n.timer = at
			w.push(event{at: at, to: n})
		}
	} else {
		n.timer = never
	}
}

// transmit puts a datagram on the way; b is the world's.
func (n *node) transmit(b []byte) {
	w := n.w
	n.maxSize = max(n.maxSize, len(b))
	number := n.number
	n.number++
	times := 1
	if n.out.double > 0 && w.rng.Float64() < n.out.double {
		times = 2
	}
	for i := range times {
		at, ok := n.out.send(w.rng, w.now, len(b))
		switch {
		case ok && i > 0:
			w.push(event{at: at, to: n.peer, number: number, data: append([]byte{}, b...)})
		case ok:
			w.push(event{at: at, to: n.peer, number: number, data: b})
		}
	}
}

// receive takes a datagram, and all others that arrive at the same time.
func (n *node) receive(e event) {
	w := n.w
	for {
		if n.seen == nil || !n.seen[e.number] {
			if n.seen != nil {
				n.seen[e.number] = true
			}
			if err := n.c.Receive(e.number, e.data, w.now, n); err != nil {
				w.t.Fatalf("at %v: %v", w.now, err)
			}
		}
		w.free = append(w.free, e.data)
		if len(w.queue) == 0 || w.queue[0].to != n || w.queue[0].data == nil || w.queue[0].at != w.now {
			break
		}
		e = heap.Pop(&w.queue).(event)
	}
	n.pump()
}

// The Handler.

func (n *node) Packet(p []byte) {
	n.packets++
	n.bytes += len(p)
	if len(p) < 16 {
		return
	}
	order := binary.BigEndian.Uint64(p)
	if order != n.order {
		n.w.t.Fatalf("packet %d comes when %d is due", order, n.order)
	}
	n.order++
	n.delays = append(n.delays, n.w.now-time.Duration(binary.BigEndian.Uint64(p[8:])))
	if n.check {
		for i, x := range p[16:] {
			if x != byte(order)+byte(i)*3 {
				n.w.t.Fatalf("packet %d of %d bytes: byte %d is %d", order, len(p), i+16, x)
			}
		}
	}
}

func (n *node) Datagram(p []byte) {
	v := binary.BigEndian.Uint64(p)
	for i, x := range p[8:] {
		if x != byte(v)+byte(i) {
			n.w.t.Fatalf("datagram %d is damaged", v)
		}
	}
	n.datagrams = append(n.datagrams, v)
}
func (n *node) Response(token uint64) { n.responses = append(n.responses, token) }
func (n *node) Closed(r Reason)       { n.closed = append(n.closed, r) }

// packet makes the next packet of a node, of at least 16 bytes, in p.
func (n *node) packet(p []byte) []byte {
	binary.BigEndian.PutUint64(p, n.sentPackets)
	binary.BigEndian.PutUint64(p[8:], uint64(n.w.now))
	if n.peer.check {
		for i := range p[16:] {
			p[16+i] = byte(n.sentPackets) + byte(i)*3
		}
	}
	return p
}

// flood keeps window bytes in the Conn, in packets of size.
func (n *node) flood(size, window int) {
	p := make([]byte, size)
	n.source = func() bool {
		if int(n.c.end-n.c.una)+size+2 > window || !n.c.Send(n.packet(p)) {
			return false
		}
		n.sentPackets++
		return true
	}
}
