package gossip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// start is when worlds begin.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is an overlay in virtual time. Its frames need from 20 to 150 ms from
// node to node, each pair always the same.
type world struct {
	t     testing.TB
	rand  *rand.Rand
	now   time.Time
	queue []event // a heap
	count int     // of events ever queued, which orders those of one time
	nodes []*node
	byID  map[identity.PeerID]*node
	bytes uint64 // sent by all

	loss    float64       // of frames
	skew    time.Duration // of the clocks of nodes that are added
	records map[wire.ContactKey]*record
	// handle is called with all facts.
	handle func(n *node, f Fact)
}

// node is one node of a world.
type node struct {
	w      *world
	m      *Machine
	id     identity.PeerID
	key    *identity.Key // nil: signatures are zeros, and are not looked at
	index  int
	links  map[*node]time.Duration // to whom there is a session, and how long a frame takes
	tickAt time.Time
	bytes  uint64           // sent
	sentTo map[*node]uint64 // of that
	skew   time.Duration    // of its clock
	// hostile takes what comes instead of the machine, if it is not nil.
	hostile func(from *node, g wire.Gossip)
	failed  error // what Receive said
}

// event is a frame that arrives, or a tick.
type event struct {
	at       time.Time
	order    int
	to, from *node
	frame    []byte
	do       func()
}

func (a *event) before(b *event) bool {
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.order < b.order
}

func (w *world) push(e event) {
	e.order = w.count
	w.count++
	q := append(w.queue, e)
	for i := len(q) - 1; i > 0; {
		up := (i - 1) / 2
		if !q[i].before(&q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
	w.queue = q
}

func (w *world) pop() event {
	q := w.queue
	top, last := q[0], len(q)-1
	q[0], q[last] = q[last], event{}
	q = q[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(q) {
			break
		}
		if down+1 < len(q) && q[down+1].before(&q[down]) {
			down++
		}
		if !q[down].before(&q[i]) {
			break
		}
		q[i], q[down] = q[down], q[i]
		i = down
	}
	w.queue = q
	return top
}

func newWorld(t testing.TB, seed uint64) *world {
	return &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: start,
		byID: map[identity.PeerID]*node{}, records: map[wire.ContactKey]*record{},
	}
}

func (w *world) seed() (s [32]byte) {
	for i := range 4 {
		binary.BigEndian.PutUint64(s[8*i:], w.rand.Uint64())
	}
	return s
}

// add makes a node. Without a key its records have no signatures.
func (w *world) add(c Config, key *identity.Key) *node {
	n := &node{w: w, index: len(w.nodes), key: key, links: map[*node]time.Duration{}, sentTo: map[*node]uint64{}, skew: w.skew}
	if key != nil {
		n.id, c.Sign = key.ID(), key.Sign
	} else {
		n.id = identity.PeerID(w.seed())
		c.Sign = func([]byte) []byte { return make([]byte, identity.SignatureSize) }
	}
	c.Verify = func(c wire.Contact, raw []byte) bool {
		return bytes.Equal(raw[len(raw)-identity.SignatureSize:], make([]byte, identity.SignatureSize)) || c.Signed(raw)
	}
	c.Self, c.Seed = n.id, w.seed()
	n.m = New(c, n.clock())
	if key == nil {
		n.m.read = w.read
	}
	w.nodes = append(w.nodes, n)
	w.byID[n.id] = n
	return n
}

// read shares records among the nodes.
func (w *world) read(raw []byte) (*record, error) {
	peer, seq, err := wire.ContactHead(raw)
	if err != nil {
		return nil, err
	}
	k := wire.KeyOf(peer, seq)
	r := w.records[k]
	if r == nil {
		if r, err = readRecord(raw); err == nil {
			w.records[k] = r
		}
	}
	return r, err
}

// clock returns the time as a node's clock shows it.
func (n *node) clock() time.Time { return n.w.now.Add(n.skew) }

// join makes a session that a has dialled.
func (w *world) join(a, b *node) { w.joinAs(a, b, false) }

// joinLocal makes one between nodes on one machine.
func (w *world) joinLocal(a, b *node) { w.joinAs(a, b, true) }

func (w *world) joinAs(a, b *node, local bool) {
	if a == b || a.links[b] != 0 {
		return
	}
	delay := 20*time.Millisecond + time.Duration(w.rand.Int64N(int64(130*time.Millisecond)))
	a.links[b], b.links[a] = delay, delay
	a.m.Join(a.clock(), Peer{ID: b.id, News: b.m.cfg.Mode == On, Outbound: true, Local: local})
	b.m.Join(b.clock(), Peer{ID: a.id, News: a.m.cfg.Mode == On, Local: local})
	a.tick()
	b.tick()
}

// part ends a session.
func (w *world) part(a, b *node) {
	if a.links[b] == 0 {
		return
	}
	delete(a.links, b)
	delete(b.links, a)
	a.m.Leave(a.clock(), b.id)
	b.m.Leave(b.clock(), a.id)
	a.tick()
	b.tick()
}

// leave ends all sessions of a node.
func (n *node) leave() {
	for _, other := range n.peers() {
		n.w.part(n, other)
	}
}

// leaveSoon ends all sessions when what was sent has arrived.
func (n *node) leaveSoon() {
	n.w.push(event{at: n.w.now.Add(time.Second), to: n, do: n.leave})
}

// peers returns those with whom there is a session, in order.
func (n *node) peers() []*node {
	return slices.SortedFunc(maps.Keys(n.links), func(a, b *node) int { return a.index - b.index })
}

// mesh gives each node sessions that it dials, to others at random: on average twice
// as many as it dials.
func (w *world) mesh(nodes []*node, dials int) {
	for i, n := range nodes {
		for range dials {
			for len(nodes) > dials {
				if j := w.rand.IntN(len(nodes)); j != i && n.links[nodes[j]] == 0 {
					w.join(n, nodes[j])
					break
				}
			}
		}
	}
}

// tick drives a node's machine and sends what it says.
func (n *node) tick() {
	w := n.w
	if n.hostile != nil {
		return
	}
	out, facts, next := n.m.Tick(n.clock())
	for _, f := range facts {
		if w.handle != nil {
			w.handle(n, f)
		}
	}
	for _, msg := range out {
		n.send(w.byID[msg.To], msg.Frame)
	}
	if !next.IsZero() {
		if next = next.Add(-n.skew); n.tickAt.IsZero() || next.Before(n.tickAt) {
			n.tickAt = next
			w.push(event{at: next, to: n})
		}
	}
}

// send sends a frame over a session.
func (n *node) send(to *node, frame []byte) {
	w := n.w
	n.bytes += uint64(len(frame))
	n.sentTo[to] += uint64(len(frame))
	w.bytes += uint64(len(frame))
	delay := n.links[to]
	if delay == 0 || w.loss > 0 && w.rand.Float64() < w.loss {
		return
	}
	w.push(event{at: w.now.Add(delay), to: to, from: n, frame: frame})
}

// say sends a gossip, for hostile nodes.
func (n *node) say(to *node, g wire.Gossip) { n.send(to, g.Append(nil)) }

// run lets time pass.
func (w *world) run(d time.Duration) { w.until(w.now.Add(d), nil) }

// until runs until a time, or until done says so, and reports whether it did.
func (w *world) until(end time.Time, done func() bool) bool {
	for done == nil || !done() {
		if len(w.queue) == 0 || w.queue[0].at.After(end) {
			w.now = end
			return false
		}
		e := w.pop()
		if e.at.After(w.now) {
			w.now = e.at
		}
		switch {
		case e.do != nil:
			e.do()
		case e.from == nil:
			if e.at.Equal(e.to.tickAt) {
				e.to.tickAt = time.Time{}
				e.to.tick()
			}
		case e.to.links[e.from] != 0:
			w.deliver(e)
		}
	}
	return true
}

// within runs until done says so, and returns after how long it did. It asks ten
// times a second.
func (w *world) within(most time.Duration, done func() bool) (time.Duration, bool) {
	for from := w.now; ; w.run(100 * time.Millisecond) {
		if took := w.now.Sub(from); done() || took >= most {
			return took, done()
		}
	}
}

func (w *world) deliver(e event) {
	kind, body, rest, err := wire.NextFrame(e.frame)
	if err != nil || kind != wire.FrameGossip || len(rest) != 0 || len(body) > wire.MaxGossip {
		w.t.Fatalf("node %d sent a frame %d of %d bytes, %v", e.from.index, kind, len(body), err)
	}
	if e.to.hostile != nil {
		g, err := wire.ParseGossip(body)
		if err != nil {
			w.t.Fatal(err)
		}
		e.to.hostile(e.from, g)
		return
	}
	if err := e.to.m.Receive(e.to.clock(), e.from.id, body); err != nil {
		if e.from.hostile == nil {
			w.t.Fatalf("node %d of node %d: %v", e.to.index, e.from.index, err)
		}
		e.to.failed = err
		w.part(e.to, e.from) // as the session would
		return
	}
	e.to.tick()
}

// endpointsOf gives a node addresses: so many nodes in each /24 of so many /16.
func endpointsOf(index int) []endpoint.Endpoint {
	a := netip.AddrFrom4([4]byte{byte(20 + index%64), byte(index / 64 % 4), byte(index / 256 % 4), byte(index/1024 + 1)})
	return []endpoint.Endpoint{
		endpoint.New(endpoint.TCP, netip.AddrPortFrom(a, 5483)),
		endpoint.New(endpoint.UTP, netip.AddrPortFrom(a, 5483)),
		endpoint.New(endpoint.TCP, netip.MustParseAddrPort("192.168.1.10:5483")),
		endpoint.New(endpoint.UTP, netip.MustParseAddrPort("192.168.1.10:5483")),
	}
}

// own tells a node's machine where it is.
func (n *node) own(eps ...endpoint.Endpoint) {
	if len(eps) == 0 {
		eps = endpointsOf(n.index)
	}
	n.m.Own(n.clock(), eps, 0, 0)
	n.tick()
}

// knowing returns how many of some nodes know a peer.
func knowing(nodes []*node, id identity.PeerID) (n int) {
	for _, x := range nodes {
		if _, _, ok := x.m.Lookup(id); ok {
			n++
		}
	}
	return n
}

// allKnow reports whether each of some nodes knows each of others.
func allKnow(nodes, others []*node) bool {
	return missing(nodes, others) == 0
}

// missing returns how many nodes are not known to how many, added up.
func missing(nodes, others []*node) (n int) {
	for _, a := range nodes {
		for _, b := range others {
			if a == b {
				continue
			}
			if _, _, ok := a.m.Lookup(b.id); !ok {
				n++
			}
		}
	}
	return n
}

// keys are identities that tests share: making them takes time.
var keys []*identity.Key

func testKeys(t testing.TB, n int) []*identity.Key {
	t.Helper()
	for i := len(keys); i < n; i++ {
		k, err := identity.FromSeed(fmt.Appendf(nil, "%032d", i))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys[:n:n]
}
