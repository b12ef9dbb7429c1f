package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// crowd adds nodes that tell where they are.
func (w *world) crowd(n int) []*node {
	from := len(w.nodes)
	for range n {
		w.add(Config{}, nil).own()
	}
	return w.nodes[from:]
}

// line makes sessions from each node to the next.
func (w *world) line(nodes []*node) {
	for i := range nodes[1:] {
		w.join(nodes[i], nodes[i+1])
	}
}

func TestEveryNodeGetsToKnowEveryOther(t *testing.T) {
	for name, c := range map[string]struct {
		nodes  int
		link   func(w *world, nodes []*node)
		within time.Duration
	}{
		"two nodes":          {2, (*world).line, time.Second},
		"a line of 25 nodes": {25, (*world).line, 8 * time.Second},
		"a hub with 60 peers": {61, func(w *world, nodes []*node) {
			for _, n := range nodes[1:] {
				w.join(n, nodes[0])
			}
		}, 10 * time.Second},
		"60 nodes at random": {60, func(w *world, nodes []*node) { w.mesh(nodes, 4) }, 3 * time.Second},
		"records come after sessions": {30, func(w *world, nodes []*node) {
			w.mesh(nodes, 4)
			w.run(10 * time.Second)
			for range 5 {
				x := w.add(Config{}, nil)
				w.join(x, nodes[0])
				w.run(10 * time.Second)
				x.own()
			}
		}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			nodes := w.crowd(c.nodes)
			c.link(w, nodes)
			took, ok := w.within(c.within, func() bool { return allKnow(w.nodes, w.nodes) })
			if !ok {
				t.Errorf("%d are missing", missing(w.nodes, w.nodes))
			}
			t.Logf("took %s", took)
		})
	}
}

// told collects facts.
func (w *world) told() *[]string {
	var out []string
	w.handle = func(n *node, f Fact) {
		text := fmt.Sprintf("%d: %s %d", n.index, [...]string{"", "discovered", "updated", "forgotten"}[f.Kind], w.byID[f.Contact.Peer].index)
		if f.Kind != Forgotten {
			text += fmt.Sprintf(" at port %d", f.Contact.Endpoints[0].Addr.Port())
		}
		if !f.By.IsZero() {
			text += fmt.Sprintf(" by %d", w.byID[f.By].index)
		}
		if f.Departed {
			text += " departed"
		}
		if c, err := wire.PeekContact(f.Raw); err != nil || c.Peer != f.Contact.Peer || c.Seq != f.Contact.Seq {
			w.t.Errorf("%s: its bytes are another record's: %+v, %v", text, c, err)
		}
		out = append(out, text)
	}
	return &out
}

func at(text string) endpoint.Endpoint {
	e, err := endpoint.Parse(text)
	if err != nil {
		panic(err)
	}
	return e
}

func TestFacts(t *testing.T) {
	w := newWorld(t, 3)
	for range 3 {
		w.add(Config{}, nil)
	}
	facts := w.told()
	expect := func(what string, want ...string) {
		t.Helper()
		w.run(5 * time.Second)
		slices.Sort(*facts)
		slices.Sort(want)
		if !slices.Equal(*facts, want) {
			t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(*facts, "; "), strings.Join(want, "; "))
		}
		*facts = nil
	}
	w.line(w.nodes)
	w.nodes[0].own(at("198.51.100.1:1"))
	expect("the first tells where it is", "1: discovered 0 at port 1 by 0", "2: discovered 0 at port 1 by 1")
	w.nodes[0].own(at("198.51.100.1:1"))
	expect("it says the same again")
	w.nodes[0].own(at("198.51.100.1:2"))
	expect("it has moved", "1: updated 0 at port 2 by 0", "2: updated 0 at port 2 by 1")
	w.nodes[0].m.Own(w.now, nil, 0, 0)
	expect("it does not know where it is")
	w.run(3 * time.Hour)
	expect("it renews its record")
	w.nodes[0].m.Rest()
	w.run(3 * time.Hour)
	expect("it does not want to be dialled", "1: forgotten 0", "2: forgotten 0")
	w.nodes[0].own(at("198.51.100.1:2"))
	expect("it wants to", "1: discovered 0 at port 2 by 0", "2: discovered 0 at port 2 by 1")
	w.nodes[0].m.Depart(w.now)
	w.nodes[0].tick()
	expect("it departs", "1: forgotten 0 by 0 departed", "2: forgotten 0 by 1 departed")
	w.nodes[0].own(at("198.51.100.1:3"))
	w.nodes[0].m.Depart(w.now)
	w.nodes[0].tick()
	expect("it has departed for good")
	w.nodes[2].own(at("198.51.100.3:1"))
	expect("the last tells where it is", "0: discovered 2 at port 1 by 1", "1: discovered 2 at port 1 by 2")
	w.part(w.nodes[1], w.nodes[2])
	expect("it loses its session")
	w.run(3 * time.Hour)
	expect("it was not heard of for long", "0: forgotten 2", "1: forgotten 2")
}

// A vanished node is forgotten when its record ends: no sooner, and not much later.
func TestVanished(t *testing.T) {
	w := newWorld(t, 4)
	nodes := w.crowd(100)
	w.mesh(nodes, 4)
	w.run(40 * time.Minute) // all have renewed their records once
	x := nodes[7]
	c, _, _ := x.m.OwnRecord()
	x.leave()
	w.until(time.UnixMilli(int64(c.Expires())).Add(-time.Second), nil)
	if n := knowing(nodes, x.id); n != 100 {
		t.Errorf("%d nodes know it a second before its record ends", n)
	}
	w.run(2 * time.Second)
	if n := knowing(nodes[8:], x.id); n != 0 {
		t.Errorf("%d nodes know it a second after its record has ended", n)
	}
	if n := missing(nodes[8:], nodes[8:]); n != 0 {
		t.Errorf("%d records that were renewed are missing", n)
	}
	if life := time.Duration(c.Life) * time.Second; life > 2*time.Hour {
		t.Errorf("in a small overlay its record lived %s", life)
	}
}

// What happens on both sides of a partition is known everywhere soon after it ends:
// who came, who left, who moved.
func TestPartition(t *testing.T) {
	w := newWorld(t, 5)
	nodes := w.crowd(120)
	left, right := nodes[:60], nodes[60:]
	w.mesh(left, 3)
	w.mesh(right, 3)
	var cut [][2]*node
	for range 60 {
		c := [2]*node{left[w.rand.IntN(60)], right[w.rand.IntN(60)]}
		w.join(c[0], c[1])
		cut = append(cut, c)
	}
	w.run(time.Minute)
	for _, c := range cut {
		w.part(c[0], c[1])
	}
	w.run(time.Minute)
	leftOnly, rightOnly := w.crowd(40), w.crowd(40)
	for i := range 40 {
		w.join(leftOnly[i], left[i%len(left)])
		w.join(rightOnly[i], right[4+i])
	}
	left[3].own(at("tcp://198.51.100.1:1"))
	right[3].m.Depart(w.now)
	right[3].tick()
	w.run(10 * time.Minute)
	right[3].leave()
	here, there := slices.Concat(left, leftOnly), slices.Concat(right[:3], right[4:], rightOnly)
	if !allKnow(here, here) || !allKnow(there, there) || missing(here, rightOnly) != 40*100 {
		t.Fatal("the two parts are not what they should be")
	}
	for _, c := range cut[:2] {
		w.join(c[0], c[1])
	}
	all := slices.Concat(here, there)
	took, ok := w.within(time.Minute, func() bool { return allKnow(all, all) && knowing(all, right[3].id) == 0 })
	if !ok {
		t.Errorf("%d are missing and %d know who has departed, a minute after two sessions have joined the parts",
			missing(all, all), knowing(all, right[3].id))
	}
	t.Logf("the parts know each other after %s", took)
	for _, n := range all {
		if c, _, _ := n.m.Lookup(left[3].id); n != left[3] && (len(c.Endpoints) == 0 || c.Endpoints[0].Addr.Port() != 1) {
			t.Errorf("node %d has not heard where one has moved to: %v", n.index, c.Endpoints)
		}
	}
}

func TestLostFrames(t *testing.T) {
	w := newWorld(t, 6)
	nodes := w.crowd(60)
	w.loss = 0.3
	w.mesh(nodes, 4)
	took, ok := w.within(3*time.Minute, func() bool { return allKnow(nodes, nodes) })
	if !ok {
		t.Errorf("%d are missing when 30 %% of the frames are lost", missing(nodes, nodes))
	}
	t.Logf("all know all after %s", took)
	// The departed are forgotten, too.
	nodes[0].m.Depart(w.now)
	nodes[0].tick()
	w.run(5 * time.Minute)
	if n := knowing(nodes[1:], nodes[0].id); n > 0 {
		t.Errorf("%d know who has departed", n)
	}
}

// A node that begins anew makes records that hold, though its clock was set back.
func TestBeginsAnew(t *testing.T) {
	w := newWorld(t, 7)
	key := testKeys(t, 1)[0]
	nodes := w.crowd(10)
	w.line(nodes)
	x := w.add(Config{}, key)
	x.own(at("198.51.100.1:1"))
	w.join(x, nodes[0])
	w.run(time.Minute)
	before, _, _ := nodes[9].m.Lookup(x.id)
	x.m.Depart(x.clock())
	x.tick()
	x.leaveSoon()
	w.run(time.Minute)
	if knowing(nodes, x.id) != 0 {
		t.Fatal("it is known although it has departed")
	}
	w.nodes = w.nodes[:len(w.nodes)-1]
	w.skew = -20 * time.Minute
	y := w.add(Config{}, key)
	y.own(at("198.51.100.1:2"))
	w.join(y, nodes[0])
	w.run(20 * time.Second)
	after, _, ok := nodes[9].m.Lookup(x.id)
	if !ok || after.Seq <= before.Seq || after.Endpoints[0].Addr.Port() != 2 {
		t.Errorf("known as %+v, before as %+v", after, before)
	}
}

func TestModes(t *testing.T) {
	w := newWorld(t, 8)
	nodes := w.crowd(20)
	w.mesh(nodes, 3)
	quiet := w.add(Config{Mode: Answer}, nil)
	off := w.add(Config{Mode: Off}, nil)
	quiet.own()
	off.own()
	sent := quiet.bytes
	for _, n := range nodes[:3] {
		w.join(quiet, n)
		w.join(off, n)
	}
	if quiet.bytes != sent {
		t.Error("who only answers has begun")
	}
	w.run(30 * time.Second)
	if n := knowing(nodes, quiet.id); n != 20 {
		t.Errorf("%d know who only answers", n)
	}
	if n := quiet.m.Len() + off.m.Len() + knowing(nodes, off.id); n != 0 || off.bytes > 0 {
		t.Errorf("%d records, %d bytes of who takes no part", n, off.bytes)
	}
	if _, _, next := off.m.Tick(w.now); !next.IsZero() || off.m.Receive(w.now, nodes[0].id, []byte{9}) != nil {
		t.Error("who takes no part has something to do")
	}
	// Two that only answer have nothing to say to each other.
	other := w.add(Config{Mode: Answer}, nil)
	other.own()
	w.join(other, quiet)
	w.run(time.Hour)
	if other.bytes > 0 {
		t.Errorf("%d bytes between two who only answer", other.bytes)
	}
	if got := fmt.Sprint(On, Answer, Off, Mode(9)); got != "on answer off off" {
		t.Error(got)
	}
	if got := [3]uint8{On.Flags(), Answer.Flags(), Off.Flags()}; got != [3]uint8{6, 2, 0} {
		t.Errorf("flags of a hello: %v", got)
	}
}

// signed returns a record.
func signed(key *identity.Key, seq time.Time, life time.Duration, eps ...endpoint.Endpoint) []byte {
	c := wire.Contact{Peer: key.ID(), Seq: uint64(seq.UnixMilli()), Life: uint32(life / time.Second), Endpoints: eps}
	return c.Append(nil, key.Sign)
}

// listener is a machine that the tests talk to, with peers that it has joined.
type listener struct {
	*Machine
	t     *testing.T
	now   time.Time
	peers []identity.PeerID
	seen  int // signatures looked at
}

func listen(t *testing.T, c Config, peers int) *listener {
	l := &listener{t: t, now: start}
	me := testKeys(t, 1)[0]
	c.Self, c.Sign = me.ID(), me.Sign
	c.Verify = func(c wire.Contact, raw []byte) bool { l.seen++; return c.Signed(raw) }
	l.Machine = New(c, start)
	for i := range peers {
		l.peers = append(l.peers, identity.PeerID{0xff, byte(i >> 8), byte(i)})
		l.Join(l.now, Peer{ID: l.peers[i], News: true, Outbound: true})
	}
	return l
}

// hear takes a gossip from a peer.
func (l *listener) hear(peer int, g wire.Gossip) ([]Fact, error) {
	_, body, _, _ := wire.NextFrame(g.Append(nil))
	err := l.Receive(l.now, l.peers[peer], body)
	_, facts, _ := l.Tick(l.now)
	return facts, err
}

func (l *listener) contacts(peer int, raw ...[]byte) ([]Fact, error) {
	return l.hear(peer, wire.Gossip{Kind: wire.GossipContacts, Contacts: raw})
}

func TestRefused(t *testing.T) {
	keys := testKeys(t, 4)
	peer, hostile := keys[1], keys[2]
	ep := at("198.51.100.1:1")
	good := signed(peer, start, time.Hour, ep)
	// change returns the good one with some bytes from i on changed.
	change := func(i int, b ...byte) []byte { return slices.Concat(good[:i], b, good[i+len(b):]) }
	id := func(k *identity.Key) []byte { id := k.ID(); return id[:] }
	for name, c := range map[string]struct {
		raw  []byte
		err  string // of Receive
		seen int    // signatures looked at
		took bool
	}{
		"a good one":                 {good, "", 1, true},
		"signed by another":          {change(1, id(hostile)...), "not signed by its peer", 1, false},
		"a changed port":             {change(len(good)-65, 2), "not signed by its peer", 1, false},
		"a changed signature":        {change(len(good)-1, good[len(good)-1]^1), "not signed by its peer", 1, false},
		"our own, not signed by us":  {change(1, id(keys[0])...), "not signed by its peer", 1, false},
		"expired a second ago":       {signed(peer, start.Add(-time.Hour-time.Second), time.Hour, ep), "", 0, false},
		"it ends 27 hours ahead":     {signed(peer, start.Add(26*time.Hour), time.Hour, ep), "", 0, false},
		"it ends 25 hours ahead":     {signed(peer, start.Add(time.Hour), 24*time.Hour, ep), "", 1, true},
		"a life of two days":         {signed(peer, start, 48*time.Hour, ep), "life", 0, false},
		"of a later version":         {change(0, 2), "", 0, false},
		"no more than a head":        {good[:40], "too early", 0, false},
		"a byte short":               {good[:len(good)-1], "too early", 0, false},
		"a field cut short":          {slices.Concat(good, []byte{1}), "too early", 0, false},
		"a departed one, not known":  {signed(peer, start, time.Hour), "", 1, false},
		"at an address of nobody":    {signed(peer, start, time.Hour, at("0.0.0.0:1")), "nobody can be at", 0, false},
		"two endpoints said, one in": {change(47, 2), "too early", 0, false},
		"with a field that is to come": {func() []byte {
			b := append(good[:len(good)-64:len(good)-64], 99, 0, 1, 7)
			return append(b, peer.Sign(append([]byte(wire.ContactContext), b...))...)
		}(), "", 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, Config{}, 1)
			facts, err := l.contacts(0, c.raw)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v; want an error that says %q", err, c.err)
			}
			if took := len(facts) == 1 && facts[0].Kind == Discovered; took != c.took || !took && len(facts) > 0 {
				t.Errorf("%+v", facts)
			}
			if _, raw, ok := l.Lookup(peer.ID()); ok != c.took || ok && !bytes.Equal(raw, c.raw) {
				t.Errorf("known: %v, as %x", ok, raw)
			}
			if l.seen != c.seen {
				t.Errorf("%d signatures were looked at, want %d", l.seen, c.seen)
			}
			if errors.Is(err, ErrForged) != (c.err == "not signed by its peer") {
				t.Errorf("%v: is it ErrForged?", err)
			}
		})
	}
	l := listen(t, Config{}, 1)
	if _, err := l.hear(0, wire.Gossip{Kind: wire.GossipContacts, Contacts: [][]byte{make([]byte, wire.MaxContact+1)}}); err == nil {
		t.Error("a record that is too large is taken")
	}
	if err := l.Receive(l.now, keys[3].ID(), []byte{1}); err != nil {
		t.Errorf("of a peer that has not joined: %v", err)
	}
	if _, err := l.hear(0, wire.Gossip{Kind: 77}); err != nil {
		t.Errorf("of an unknown kind: %v", err)
	}
}

// A record that is known, and any older one, is refused without a look at its signature.
func TestReplayed(t *testing.T) {
	key := testKeys(t, 2)[1]
	l := listen(t, Config{}, 2)
	older := signed(key, start.Add(-time.Minute), time.Hour, at("198.51.100.1:1"))
	newer := signed(key, start, time.Hour, at("198.51.100.1:2"))
	gone := signed(key, start.Add(time.Second), time.Hour)
	for _, raw := range [][]byte{older, newer, older, newer, gone, newer, gone, older} {
		for peer := range 2 {
			if _, err := l.contacts(peer, raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, ok := l.Lookup(key.ID()); ok || l.seen != 3 {
		t.Errorf("known: %v, %d signatures were looked at", ok, l.seen)
	}
	if s := l.Stats(); s.Taken != 3 || s.Known != 13 || s.Contacts != 16 {
		t.Errorf("%+v", s)
	}
}

// Who makes versions without end is heard a few times and then twice a minute; that it has
// departed is heard at any time.
func TestTooManyVersions(t *testing.T) {
	key := testKeys(t, 2)[1]
	l := listen(t, Config{}, 1)
	for i := range 6000 { // ten minutes
		l.now = start.Add(time.Duration(i) * 100 * time.Millisecond)
		if _, err := l.contacts(0, signed(key, l.now, time.Hour, at(fmt.Sprintf("198.51.100.1:%d", i+1)))); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.Stats(); s.Taken < 20 || s.Taken > 27 || s.Taken+s.Early != 6000 {
		t.Errorf("%+v", s)
	}
	if _, err := l.contacts(0, signed(key, l.now.Add(time.Second), time.Hour)); err != nil || l.Len() != 0 {
		t.Errorf("its departure is not heard: %v", err)
	}
}

// An honest node's versions are all heard, also when it moves a lot.
func TestOwnVersions(t *testing.T) {
	w := newWorld(t, 9)
	nodes := w.crowd(20)
	w.mesh(nodes, 3)
	w.run(time.Minute)
	x := nodes[0]
	made := x.m.own.floor
	for i := range 300 {
		x.own(at(fmt.Sprintf("198.51.100.1:%d", i+1)))
		w.run(time.Second)
	}
	w.run(2 * time.Minute)
	for _, n := range nodes[1:] {
		if c, _, _ := n.m.Lookup(x.id); len(c.Endpoints) != 1 || c.Endpoints[0].Addr.Port() != 300 {
			t.Errorf("node %d knows it at %v", n.index, c.Endpoints)
		}
		if n.m.Stats().Early > 0 {
			t.Errorf("node %d has refused versions", n.index)
		}
	}
	if x.m.own.floor <= made {
		t.Error("it has made no record")
	}
	eps := make([]endpoint.Endpoint, 20)
	for i := range eps {
		eps[i] = endpoint.New(endpoint.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), uint16(i+1)))
	}
	w.run(time.Hour)
	x.own(eps...)
	if c, raw, ok := x.m.OwnRecord(); !ok || len(c.Endpoints) != wire.MaxContactEndpoints || len(raw) > wire.MaxContact {
		t.Errorf("%+v", c)
	}
}

// Records with loopback endpoints are told to, and taken of, peers on the same machine
// only; others do not even hear of them.
func TestLoopback(t *testing.T) {
	w := newWorld(t, 5)
	for range 5 {
		w.add(Config{}, nil)
	}
	here, far := w.nodes[:3], w.nodes[3:]
	for i, a := range here {
		for _, b := range here[:i] {
			w.joinLocal(a, b)
		}
	}
	w.join(here[0], far[0])
	w.join(far[1], here[1])
	w.join(far[0], far[1])
	here[0].own(at("127.0.0.1:1"))
	here[1].own(at("198.51.100.1:2"))
	here[2].own(at("[::1]:3"))
	for _, n := range far {
		n.own()
	}
	w.run(time.Minute)
	if !allKnow(here, here) || !allKnow(here, far) || !allKnow(far, far) {
		t.Errorf("%d, %d and %d are missing", missing(here, here), missing(here, far), missing(far, far))
	}
	for _, n := range far {
		if s := n.m.Stats(); s.Astray > 0 {
			t.Errorf("%d such records were told to node %d, elsewhere", s.Astray, n.index)
		}
	}
	for i, want := range []bool{false, true, false} {
		if got := knowing(far, here[i].id); got != 0 && got != 2 || (got > 0) != want {
			t.Errorf("%d elsewhere know node %d", got, i)
		}
	}
	l := listen(t, Config{}, 1)
	if _, err := l.contacts(0, signed(testKeys(t, 2)[1], start, time.Hour, at("127.0.0.1:22"))); err != nil || l.Len() != 0 || l.Stats().Astray != 1 {
		t.Errorf("of a peer elsewhere: %d known, %+v, %v", l.Len(), l.Stats(), err)
	}
}

// A bad record of a peer does not keep a good one of the same number out, of whoever
// brings it, nor from being asked for; the bad one itself is not looked at again.
func TestBadOneFirst(t *testing.T) {
	key := testKeys(t, 2)[1]
	good := signed(key, start, time.Hour, at("198.51.100.1:1"))
	bad := signed(key, start, time.Second, at("198.51.100.1:1"))
	l := listen(t, Config{}, 2)
	l.now = start.Add(2 * time.Second)
	for range 3 {
		if _, err := l.contacts(0, bad); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.Stats(); s.Expired != 1 || l.Len() != 0 {
		t.Fatalf("%+v", s)
	}
	wants := func(peer int) bool {
		body := wire.Gossip{Kind: wire.GossipHave, Keys: []wire.ContactKey{wire.KeyOf(key.ID(), uint64(start.UnixMilli()))}}.Append(nil)
		_, body, _, _ = wire.NextFrame(body)
		if err := l.Receive(l.now, l.peers[peer], body); err != nil {
			t.Fatal(err)
		}
		out, _, _ := l.Tick(l.now)
		return slices.ContainsFunc(out, func(m Message) bool {
			_, body, _, _ := wire.NextFrame(m.Frame)
			return m.To == l.peers[peer] && body[0] == byte(wire.GossipWant)
		})
	}
	if wants(0) {
		t.Error("who has brought a bad one is asked for it")
	}
	if !wants(1) {
		t.Error("nobody else is asked for it")
	}
	if _, err := l.contacts(1, good); err != nil || l.Len() != 1 {
		t.Errorf("the good one is not taken: %v, %+v", err, l.Stats())
	}
}
