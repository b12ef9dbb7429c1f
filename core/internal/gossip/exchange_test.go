package gossip

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// The numbers are those of another implementation, which gives the ones of the paper too
// (SipHash-2-4 under 00 .. 0f: of 00 .. 0e a129ca6149be45e5).
func TestHash(t *testing.T) {
	var key [16]byte
	var peer identity.PeerID
	for i := range key {
		key[i] = byte(i)
	}
	for i := range peer {
		peer[i] = byte(i)
	}
	k0, k1 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	const seq = 0x2021222324252627 // bytes 32 to 39
	if got := hash(k0, k1, (*[32]byte)(&peer), seq); got != 0x0e3ea96b5304a7d0 {
		t.Errorf("of 00 .. 27 %016x", got)
	}
	tab := newTable(16)
	r := &record{key: wire.KeyOf(peer, seq), contact: wire.Contact{Peer: peer, Seq: seq}}
	tab.put(r, nil, 0, 1)
	if got := tab.sum(key, 0, 1); got != 0x0e3ea96b5304a7d0 {
		t.Errorf("the sum of one record is %016x", got)
	}
	if got := tab.sum(key, 0, 0); got != 0 {
		t.Errorf("the sum of nothing is %x", got)
	}
}

// fill puts records into a machine's table as if it had always had them.
func (n *node) fill(records ...*record) {
	for _, r := range records {
		n.m.table.put(r, nil, 0, n.m.ends(r, 0))
	}
}

// at returns a record of a peer whose id begins with a position.
func atPosition(position uint64, tail byte, seq int) *record {
	var id identity.PeerID
	binary.BigEndian.PutUint64(id[:], position)
	id[31] = tail
	r := bare(0, start, time.Hour, "198.51.100.1")
	c := r.contact
	c.Peer, c.Seq = id, c.Seq+uint64(seq)
	return newRecord(c, c.Append(nil, func([]byte) []byte { return make([]byte, identity.SignatureSize) }))
}

// Two tables are equal after one exchange and what follows from it, however the
// records that differ lie.
func TestExchange(t *testing.T) {
	const big = 1 << 20 // no bound of the table is in the way
	for name, c := range map[string]struct {
		left, right, both func(i int) *record
		each              [3]int
		within            time.Duration
	}{
		"nothing":             {each: [3]int{0, 0, 0}, within: time.Second},
		"one on one side":     {left: func(i int) *record { return bare(i, start, time.Hour, "198.51.100.1") }, each: [3]int{1, 0, 0}, within: 3 * time.Second},
		"one among 3000":      {left: func(i int) *record { return bare(5000+i, start, time.Hour, "198.51.100.1") }, both: func(i int) *record { return bare(i, start, time.Hour, "198.51.100.1") }, each: [3]int{1, 0, 3000}, within: 4 * time.Second},
		"some on either side": {left: func(i int) *record { return bare(5000+i, start, time.Hour, "198.51.100.1") }, right: func(i int) *record { return bare(6000+i, start, time.Hour, "198.51.100.1") }, both: func(i int) *record { return bare(i, start, time.Hour, "198.51.100.1") }, each: [3]int{100, 100, 1000}, within: 6 * time.Second},
		"newer ones on one side": {
			left:  func(i int) *record { return bare(i, start, time.Hour, "198.51.100.1") },
			right: func(i int) *record { return bare(i, start.Add(time.Second), time.Hour, "198.51.100.1") }, each: [3]int{50, 70, 0}, within: 4 * time.Second,
		},
		"all at neighbouring positions": {
			left: func(i int) *record { return atPosition(1<<63+uint64(i), 0, 0) }, right: func(i int) *record { return atPosition(1<<63+uint64(i), 0, 1) },
			both: func(i int) *record { return atPosition(1<<63-uint64(i)-1, 0, 0) }, each: [3]int{300, 200, 300}, within: 8 * time.Second,
		},
		"at the first and last positions": {
			left: func(i int) *record { return atPosition(uint64(i), 0, 0) }, right: func(i int) *record { return atPosition(math.MaxUint64-uint64(i), 0, 0) },
			both: func(i int) *record { return bare(i, start, time.Hour, "198.51.100.1") }, each: [3]int{60, 60, 100}, within: 5 * time.Second,
		},
		"all on one side": {left: func(i int) *record { return bare(i, start, time.Hour, "198.51.100.1") }, each: [3]int{2000, 0, 0}, within: 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 11)
			a, b := w.add(Config{MaxKnown: big}, nil), w.add(Config{MaxKnown: big}, nil)
			for i, f := range []func(i int) *record{c.left, c.right, c.both} {
				for j := range c.each[i] {
					if i != 1 {
						a.fill(f(j))
					}
					if i != 0 {
						b.fill(f(j))
					}
				}
			}
			want := max(c.each[0], c.each[1])
			if c.left != nil && c.right != nil && c.left(0).key.Position != c.right(0).key.Position {
				want = c.each[0] + c.each[1]
			}
			want += c.each[2]
			w.join(a, b)
			took, ok := w.within(c.within, func() bool {
				return len(a.m.table.entries) == want && slices.Equal(a.m.table.keys(0, len(a.m.table.entries)), b.m.table.keys(0, len(b.m.table.entries)))
			})
			if !ok {
				t.Errorf("%d and %d records, want %d", len(a.m.table.entries), len(b.m.table.entries), want)
			}
			t.Logf("took %s and %d bytes for %d records", took, w.bytes, want-c.each[2])
			// Equal tables have little to say.
			w.run(10 * time.Minute)
			before := w.bytes
			w.run(time.Hour - 15*time.Minute)
			if n := w.bytes - before; n > 45*60*5 {
				t.Errorf("%d bytes in the time after that", n)
			}
		})
	}
}

// Peers whose ids begin alike are told apart as long as one of them is known.
func TestSamePosition(t *testing.T) {
	w := newWorld(t, 12)
	a, b := w.add(Config{}, nil), w.add(Config{}, nil)
	a.fill(atPosition(77, 1, 0), atPosition(77, 2, 0))
	for i := range 100 {
		r := bare(i, start, time.Hour, "198.51.100.1")
		a.fill(r)
		b.fill(r)
	}
	w.join(a, b)
	w.run(10 * time.Minute)
	if n := len(b.m.table.entries); n < 101 {
		t.Errorf("%d are known", n)
	}
	if a.m.table.find(atPosition(77, 2, 0).contact.Peer) == nil || a.m.table.find(atPosition(77, 3, 0).contact.Peer) != nil {
		t.Error("peers of one position are taken for each other")
	}
	checkTable(t, a.m)
	checkTable(t, b.m)
}

// Who says that it has news and does not bring it holds it up for a moment only.
func TestKeysWithoutRecords(t *testing.T) {
	w := newWorld(t, 13)
	nodes := w.crowd(3)
	liar := w.add(Config{}, nil)
	liar.hostile = func(*node, wire.Gossip) {}
	w.line(nodes)
	w.join(liar, nodes[0])
	w.run(30 * time.Second)
	r := bare(1, w.now, time.Hour, "198.51.100.1")
	liar.say(nodes[0], wire.Gossip{Kind: wire.GossipNewKeys, Keys: []wire.ContactKey{r.key}})
	w.run(time.Second)
	nodes[1].fill(r)
	nodes[1].m.links[nodes[0].id].tell(r.key, nodes[1].m.enter(w.now))
	nodes[1].tick()
	if took, ok := w.within(wantPatience+time.Second, func() bool { return nodes[0].m.table.find(r.contact.Peer) != nil }); !ok {
		t.Errorf("not known after %s", took)
	}
	// When the liar goes, what it was asked for is asked of others at once.
	r2 := bare(2, w.now, time.Hour, "198.51.100.1")
	liar.say(nodes[0], wire.Gossip{Kind: wire.GossipNewKeys, Keys: []wire.ContactKey{r2.key}})
	w.run(time.Second)
	nodes[1].fill(r2)
	nodes[1].m.links[nodes[0].id].tell(r2.key, nodes[1].m.enter(w.now))
	nodes[1].tick()
	w.run(200 * time.Millisecond)
	w.part(liar, nodes[0])
	if took, ok := w.within(time.Second, func() bool { return nodes[0].m.table.find(r2.contact.Peer) != nil }); !ok {
		t.Errorf("not known after %s", took)
	}
	if l := nodes[0].m.links[nodes[1].id]; l.asked != 0 || len(nodes[0].m.wanted) != 0 {
		t.Errorf("%d are asked, %d wanted", l.asked, len(nodes[0].m.wanted))
	}
}

// A node whose clock is days off takes the time of the peers that it dials, so that its
// records hold, and it learns theirs. Two that agree against one right clock prove nothing.
func TestWrongClocks(t *testing.T) {
	for name, skew := range map[string]time.Duration{
		"of 1970": -start.Sub(time.Unix(0, 0)), "days behind": -50 * time.Hour, "days ahead": 50 * time.Hour, "a year ahead": 365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 14)
			nodes := w.crowd(20)
			w.mesh(nodes, 3)
			w.run(time.Minute)
			w.skew = skew
			x := w.add(Config{}, nil)
			x.own()
			for _, n := range nodes[:4] {
				w.join(x, n)
			}
			took, ok := w.within(3*time.Minute, func() bool { return knowing(nodes, x.id) == 20 && x.m.Len() == 20 })
			if !ok {
				t.Errorf("%d know it, it knows %d", knowing(nodes, x.id), x.m.Len())
			}
			t.Logf("took %s", took)
		})
	}
	w := newWorld(t, 15)
	x := w.crowd(1)[0]
	w.skew = 50 * time.Hour
	far := w.crowd(5)
	for i, n := range far {
		if i < 2 {
			w.join(x, n)
		} else {
			w.join(n, x) // has dialled us
		}
	}
	w.run(time.Minute)
	if x.m.offset != 0 {
		t.Errorf("two peers and three that came have moved the clock by %s", x.m.offset)
	}
}

// When a node's clock jumps it forgets nothing, and goes on learning.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		w := newWorld(t, 16)
		nodes := w.crowd(30)
		w.mesh(nodes, 3)
		w.run(time.Minute)
		x := nodes[4]
		for _, n := range nodes[10:16] { // it has dialled enough
			w.part(x, n)
			w.join(x, n)
		}
		w.run(5 * time.Minute)
		x.skew += jump
		x.m.base = x.m.base.Add(jump) // the monotonic clock has not jumped
		x.tickAt = time.Time{}
		x.tick()
		w.run(time.Minute)
		if n := x.m.Len(); n != 29 {
			t.Errorf("after a jump by %s it knows %d", jump, n)
		}
		y := w.crowd(1)[0]
		w.join(y, nodes[0])
		took, ok := w.within(time.Minute, func() bool { return knowing([]*node{x}, y.id) == 1 })
		if !ok {
			t.Errorf("after a jump by %s it does not get to know who comes", jump)
		}
		w.run(2 * time.Hour)
		if n := knowing(nodes, x.id) + 100*x.m.Len(); n != 30+100*30 {
			t.Errorf("two hours after a jump by %s: %d; it was heard after %s", jump, n, took)
		}
	}
}

// The same inputs have the same outputs.
func TestSameSeedSameMessages(t *testing.T) {
	run := func() (uint64, int) {
		w := newWorld(t, 17)
		nodes := w.crowd(40)
		w.loss = 0.1
		w.mesh(nodes, 3)
		w.run(5 * time.Minute)
		nodes[3].leave()
		w.run(5 * time.Minute)
		return w.bytes, w.count
	}
	a, b := run()
	c, d := run()
	if a != c || b != d {
		t.Errorf("%d bytes and %d events, then %d and %d", a, b, c, d)
	}
}

// FuzzReceive gives a machine bodies of three peers.
func FuzzReceive(f *testing.F) {
	r := bare(1, start, time.Hour, "198.51.100.1")
	for _, g := range []wire.Gossip{
		{Kind: wire.GossipNews, Contacts: [][]byte{r.raw}},
		{Kind: wire.GossipNewKeys, Keys: []wire.ContactKey{r.key}},
		{Kind: wire.GossipWant, Keys: []wire.ContactKey{r.key}},
		{Kind: wire.GossipRanges, Ranges: []wire.Range{{Last: 1 << 63, Mode: wire.RangeSum}, {Last: math.MaxUint64, Mode: wire.RangeKeys, Keys: []wire.ContactKey{{Position: math.MaxUint64, Seq: 1}}}}},
	} {
		_, body, _, _ := wire.NextFrame(g.Append(nil))
		f.Add(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	}
	var known []*record
	for i := range 60 {
		known = append(known, bare(i, start, time.Hour, fmt.Sprintf("%d.1.1.1", 20+i)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := New(Config{Self: bareID(77), Sign: func([]byte) []byte { return make([]byte, 64) }, Verify: func(wire.Contact, []byte) bool { return true }, MaxKnown: 64}, start)
		for _, r := range known[:40] {
			m.table.put(r, nil, 0, m.ends(r, 0))
		}
		now := start
		for i := range 3 {
			m.Join(now, Peer{ID: bareID(100 + i), News: i < 2, Outbound: true})
		}
		for i := 0; len(b) >= 2; i++ {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			body := b[2 : 2+n]
			b = b[2+n:]
			_ = m.Receive(now, bareID(100+i%3), body)
			out, _, next := m.Tick(now)
			for _, msg := range out {
				kind, body, rest, err := wire.NextFrame(msg.Frame)
				if err != nil || kind != wire.FrameGossip || len(rest) > 0 {
					t.Fatal(kind, err)
				}
				if _, err := wire.ParseGossip(body); err != nil {
					t.Fatalf("it says %x, %v", body, err)
				}
			}
			if next.Before(now) {
				t.Fatal("the next tick is in the past")
			}
			checkTable(t, m)
			if now = next; i%5 == 4 {
				m.Leave(now, bareID(100+i%3))
				m.Join(now, Peer{ID: bareID(100 + i%3), News: true})
			}
		}
	})
}
