package gossip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// bare returns a record without a signature, of the peer of a number.
func bare(peer int, seq time.Time, life time.Duration, addrs ...string) *record {
	c := wire.Contact{Peer: bareID(peer), Seq: uint64(seq.UnixMilli()), Life: uint32(life / time.Second)}
	for _, a := range addrs {
		c.Endpoints = append(c.Endpoints, endpoint.New(endpoint.TCP, netip.AddrPortFrom(netip.MustParseAddr(a), 5483)))
	}
	r := newRecord(c, c.Append(nil, func([]byte) []byte { return make([]byte, identity.SignatureSize) }))
	return r
}

func bareID(peer int) identity.PeerID {
	var id identity.PeerID
	r := rand.New(rand.NewPCG(uint64(peer), 7))
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return id
}

// trusting returns a machine that looks at no signature, and peers that it has joined.
func trusting(t *testing.T, c Config, peers int) *listener {
	l := listen(t, c, peers)
	l.cfg.Verify = func(wire.Contact, []byte) bool { l.seen++; return true }
	return l
}

// offer has a peer bring a record, and reports whether it was taken.
func (l *listener) offer(peer int, r *record) bool {
	l.t.Helper()
	l.now = l.now.Add(20 * time.Millisecond) // no rate is in the way
	taken := l.stats.Taken
	if _, err := l.contacts(peer, r.raw); err != nil {
		l.t.Fatal(err)
	}
	l.check(l.t)
	return l.stats.Taken > taken
}

// check holds the table against its bounds, and its counts against what is in it.
func (l *listener) check(t testing.TB) { checkTable(t, l.Machine) }

func checkTable(t testing.TB, m *Machine) {
	t.Helper()
	prefixes, tellers, departed := map[prefix]int{}, map[*teller]int{}, 0
	for i, e := range m.table.entries {
		if i > 0 && m.table.entries[i-1].record.contact.Peer.Compare(e.record.contact.Peer) >= 0 {
			t.Fatal("the table is out of order")
		}
		if e.position != e.record.key.Position || e.ends < m.table.soonest {
			t.Fatalf("entry %d: %+v", i, e)
		}
		for _, p := range e.record.prefixes {
			prefixes[p]++
		}
		if e.teller != nil {
			tellers[e.teller]++
		}
		if e.record.contact.Departed() {
			departed++
		}
	}
	if len(prefixes) != len(m.table.prefixes) || departed != m.table.departed || len(m.table.entries) > m.table.max+1 {
		t.Fatalf("%d prefixes, counted %d; %d departed, counted %d; %d records", len(prefixes), len(m.table.prefixes), departed, m.table.departed, len(m.table.entries))
	}
	for p, n := range prefixes {
		if n != m.table.prefixes[p] || n > m.table.limit(p) {
			t.Fatalf("%d records have the prefix %x, counted %d, at most %d", n, uint64(p), m.table.prefixes[p], m.table.limit(p))
		}
	}
	for a, n := range tellers {
		if n != a.count || m.table.tellers[a.id] != a {
			t.Fatalf("%d records are a teller's, counted %d", n, a.count)
		}
	}
	for id, a := range m.table.tellers {
		if a.count == 0 && m.links[id] == nil {
			t.Fatal("an account is left that nothing hangs on")
		}
	}
}

func TestBoundsByPrefix(t *testing.T) {
	// Of 1024 records, 16 may have a /24 and 64 a /16; 64 and 256 where no address is global.
	for name, c := range map[string]struct {
		addrs func(i int) []string
		kept  int
	}{
		"one /24":                {func(i int) []string { return []string{fmt.Sprintf("198.51.100.%d", i%250)} }, 16},
		"one /16":                {func(i int) []string { return []string{fmt.Sprintf("198.51.%d.%d", i%100, i)} }, 64},
		"many /16":               {func(i int) []string { return []string{fmt.Sprintf("%d.51.%d.1", 20+i%40, i)} }, 200},
		"one IPv6 /48":           {func(i int) []string { return []string{fmt.Sprintf("2001:db8:1:%x::1", i)} }, 16},
		"one IPv6 /32":           {func(i int) []string { return []string{fmt.Sprintf("2001:db8:%x::1", i)} }, 64},
		"many IPv6 /32":          {func(i int) []string { return []string{fmt.Sprintf("2001:%x::1", 0xdb8+i)} }, 200},
		"one house":              {func(i int) []string { return []string{fmt.Sprintf("192.168.1.%d", i)} }, 64},
		"one site":               {func(i int) []string { return []string{fmt.Sprintf("10.1.%d.1", i)} }, 200},
		"houses behind many /16": {func(i int) []string { return []string{"192.168.1.10", fmt.Sprintf("%d.51.%d.1", 20+i%40, i)} }, 200},
		"IPv4 of one /24 and IPv6 of many": {func(i int) []string {
			return []string{fmt.Sprintf("2001:%x::1", 0xdb8+i), fmt.Sprintf("198.51.100.%d", i)}
		}, 16},
		"the same address in IPv6": {func(i int) []string { return []string{fmt.Sprintf("::ffff:198.51.100.%d", i)} }, 16},
	} {
		t.Run(name, func(t *testing.T) {
			l := trusting(t, Config{MaxKnown: 1024}, 4)
			kept := 0
			for i := range 200 {
				if l.offer(i%4, bare(i, l.now, time.Hour, c.addrs(i)...)) {
					kept++
				}
			}
			if kept != c.kept || l.Len() != kept || l.seen != kept {
				t.Errorf("%d of 200 are kept, want %d; %d signatures were looked at", kept, c.kept, l.seen)
			}
		})
	}
}

// Who is let in can not move to where it is crowded, and who moves away makes room.
func TestMoves(t *testing.T) {
	l := trusting(t, Config{MaxKnown: 1024}, 4)
	for i := range 16 {
		if !l.offer(0, bare(i, l.now, time.Hour, "198.51.100.1")) {
			t.Fatal(i)
		}
	}
	l.offer(0, bare(20, l.now, time.Hour, "203.0.113.1"))
	if l.offer(0, bare(20, l.now, time.Hour, "198.51.100.7")) {
		t.Error("it has moved to a crowded place")
	}
	if !l.offer(0, bare(3, l.now, time.Hour, "198.51.100.9")) {
		t.Error("who is there cannot move there")
	}
	if !l.offer(0, bare(4, l.now, time.Hour, "203.0.113.9")) || !l.offer(0, bare(21, l.now, time.Hour, "198.51.100.7")) {
		t.Error("who has moved away has made no room")
	}
	if !l.offer(1, bare(5, l.now, time.Hour)) || !l.offer(1, bare(22, l.now, time.Hour, "198.51.100.8")) {
		t.Error("who has departed has made no room")
	}
}

func TestBoundByTeller(t *testing.T) {
	l := trusting(t, Config{MaxKnown: 256}, 3)
	addr := func(i int) string { return fmt.Sprintf("%d.%d.1.1", 20+i%100, i) }
	kept := [3]int{}
	for i := range 100 {
		if l.offer(0, bare(i, l.now, time.Hour, addr(i))) {
			kept[0]++
		}
	}
	for i := range 100 { // the same, by another, which brings what the first could not
		if l.offer(1, bare(i, start.Add(-time.Millisecond), time.Hour, addr(i))) {
			kept[1]++
		}
	}
	if kept != [3]int{64, 36, 0} {
		t.Errorf("kept %v", kept)
	}
	// A session that ends and begins again does not help.
	l.Leave(l.now, l.peers[0])
	l.Join(l.now, Peer{ID: l.peers[0], News: true})
	if l.offer(0, bare(1000, l.now, time.Hour, "203.0.113.1")) {
		t.Error("after a new session it can bring more")
	}
	// Nothing is asked of one who may bring no more.
	_, body, _, _ := wire.NextFrame(wire.Gossip{Kind: wire.GossipNewKeys, Keys: []wire.ContactKey{{Position: 5, Seq: 6}}}.Append(nil))
	if err := l.Receive(l.now, l.peers[0], body); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := l.Tick(l.now); len(out) > 0 {
		t.Errorf("it is asked: %x", out)
	}
	// What it renews is kept, and counts for who brings it then.
	if !l.offer(0, bare(3, l.now, 2*time.Hour, addr(3))) || !l.offer(2, bare(4, l.now, 2*time.Hour, addr(4))) {
		t.Error("a renewal is refused")
	}
	if !l.offer(0, bare(1000, l.now, time.Hour, "203.0.113.1")) {
		t.Error("what another has renewed counts for it still")
	}
}

func TestBoundOfDeparted(t *testing.T) {
	l := trusting(t, Config{MaxKnown: 256}, 4)
	for i := range 64 {
		l.offer(i%4, bare(i, l.now, time.Hour, fmt.Sprintf("%d.1.1.1", 20+i)))
	}
	// Departures of peers that are not known are kept, so that digests agree, but few.
	for i := range 100 {
		l.offer(i%4, bare(1000+i, l.now, time.Hour+time.Duration(i)*time.Minute))
	}
	if l.table.departed != 32 || l.Len() != 64 {
		t.Errorf("%d have departed, %d are known", l.table.departed, l.Len())
	}
	if l.table.find(bareID(1099)) == nil || l.table.find(bareID(1000)) != nil {
		t.Error("not those are kept that end last")
	}
	// Those of known peers always count.
	for i := range 64 {
		if !l.offer(i%4, bare(i, l.now, time.Minute)) {
			t.Errorf("peer %d cannot depart", i)
		}
	}
	if l.Len() != 0 || l.table.departed != 32 {
		t.Errorf("%d have departed, %d are known", l.table.departed, l.Len())
	}
}

// A full table makes room for a peer from elsewhere, brought by somebody else, and only so.
func TestFullTable(t *testing.T) {
	l := trusting(t, Config{MaxKnown: 64}, 12)
	for i := range l.peers { // connected peers, of one place, are known by who will have brought most, and stay
		l.offer(2, func() *record {
			r := bare(0, l.now, 24*time.Hour, "198.51.100.1")
			r.contact.Peer = l.peers[i]
			r.contact.Endpoints = []endpoint.Endpoint{at(fmt.Sprintf("198.%d.%d.1:1", i/4, i/2))}
			return newRecord(r.contact, r.contact.Append(nil, func([]byte) []byte { return make([]byte, 64) }))
		}())
	}
	for i := range 100 { // four of a /16, from four
		l.offer(i%4, bare(i, l.now, 24*time.Hour, fmt.Sprintf("20.%d.%d.1", i/4, i)))
	}
	if n := l.Len(); n != 64 {
		t.Fatalf("%d are known", n)
	}
	if l.offer(9, bare(500, l.now, 24*time.Hour, "20.1.7.1")) {
		t.Error("one from a crowded place was let in")
	}
	if l.offer(2, bare(501, l.now, 24*time.Hour, "203.0.113.1")) {
		t.Error("one from elsewhere was let in, from who has brought most")
	}
	facts := l.stats.Displaced
	if !l.offer(9, bare(502, l.now, 24*time.Hour, "203.0.113.1")) || l.stats.Displaced != facts+1 {
		t.Error("one from elsewhere was not let in")
	}
	for _, id := range l.peers {
		if _, _, ok := l.Lookup(id); !ok {
			t.Errorf("the connected peer %s had to go", id.Short())
		}
	}
	// At once not many have to go.
	let := 0
	for i := range 60 {
		taken := l.stats.Taken
		l.contacts(5+i%6, bare(600+i, l.now, 24*time.Hour, fmt.Sprintf("%d.7.1.1", 60+i)).raw)
		let += int(l.stats.Taken - taken)
	}
	if let == 0 || let > displaceRate {
		t.Errorf("%d had to go at once", let)
	}
	l.check(t)
}

// The signatures of what one peer brings are looked at so often a second, and of all.
func TestBoundOfSignatures(t *testing.T) {
	l := trusting(t, Config{}, 8)
	for i := range 4000 {
		l.contacts(0, bare(i, l.now, time.Hour, fmt.Sprintf("%d.%d.1.1", 20+i%100, i%250)).raw)
	}
	if l.seen != TellerBurst {
		t.Errorf("%d signatures of one peer at once", l.seen)
	}
	for i := range 8000 {
		l.contacts(i%8, bare(10000+i, l.now, time.Hour, fmt.Sprintf("%d.%d.1.1", 20+i%100, i%250)).raw)
	}
	if l.seen != VerifyBurst {
		t.Errorf("%d signatures at once", l.seen)
	}
	l.seen = 0
	for i := range 10000 {
		l.now = l.now.Add(time.Millisecond)
		l.contacts(i%8, bare(20000+i, l.now, time.Hour, fmt.Sprintf("%d.%d.1.1", 120+i%100, i%250)).raw)
	}
	if l.seen < 1900 || l.seen > 2001 {
		t.Errorf("%d signatures in 10 seconds", l.seen)
	}
}

// Whatever the peers ask for, no more is sent than configured.
func TestBoundOfBytes(t *testing.T) {
	const perPeer, total, peers = 2000, 1000, 8
	l := trusting(t, Config{PeerRate: perPeer, TotalRate: total}, peers)
	for i := range 600 {
		l.offer(i%peers, bare(i, l.now, 24*time.Hour, fmt.Sprintf("%d.%d.1.1", 20+i%100, i%250)))
	}
	from := l.now
	sent := map[identity.PeerID]int{}
	all := 0
	var keys []wire.ContactKey
	for _, e := range l.table.entries {
		keys = append(keys, e.record.key)
	}
	take := func() {
		out, _, next := l.Tick(l.now)
		for _, m := range out {
			sent[m.To] += len(m.Frame)
			all += len(m.Frame)
		}
		if next.IsZero() || next.Before(l.now) {
			t.Fatal("nothing is planned")
		}
	}
	sum := wire.Gossip{Kind: wire.GossipRanges, Ranges: []wire.Range{{Last: 1<<64 - 1, Mode: wire.RangeSum, Sum: 1}}}
	for l.now.Before(from.Add(time.Minute)) {
		for _, p := range l.peers {
			for _, g := range []wire.Gossip{{Kind: wire.GossipWant, Keys: keys[:250]}, sum} {
				_, body, _, _ := wire.NextFrame(g.Append(nil))
				if err := l.Receive(l.now, p, body); err != nil {
					t.Fatal(err)
				}
				take()
			}
		}
		l.now = l.now.Add(100 * time.Millisecond)
	}
	if most := TotalBurst + 60*total; all > most || all < 60*total {
		t.Errorf("%d bytes were sent in a minute, at most %d", all, most)
	}
	for p, n := range sent {
		if n > PeerBurst+60*perPeer {
			t.Errorf("%d bytes were sent to %s", n, p.Short())
		}
	}
	// News is not kept waiting by that: there is a reserve of what goes to all.
	l.Own(l.now, []endpoint.Endpoint{at("198.51.100.1:1")}, 0, 0)
	news := 0
	for end := l.now.Add(100 * time.Millisecond); l.now.Before(end) && news < peers; {
		out, _, next := l.Tick(l.now)
		for _, m := range out {
			if _, body, _, _ := wire.NextFrame(m.Frame); wire.GossipKind(body[0]) == wire.GossipNews {
				news++
			}
		}
		l.now = next
	}
	if news < peers {
		t.Errorf("%d of %d peers have the news", news, peers)
	}
}

// Picked are peers from as many prefixes as there are.
func TestPick(t *testing.T) {
	l := trusting(t, Config{}, 4)
	for i := range 10 {
		l.offer(i%4, bare(i, l.now, time.Hour, fmt.Sprintf("%d.1.1.1", 20+i)))
	}
	for i := range 200 {
		l.offer(i%4, bare(100+i, l.now, time.Hour, fmt.Sprintf("198.51.%d.1", i)))
	}
	l.offer(0, bare(999, l.now, time.Hour)) // who has departed
	l.Own(l.now, []endpoint.Endpoint{at("198.51.100.1:1")}, 0, 0)
	crowded := 0
	for range 100 {
		got := l.Pick(11, nil)
		if len(got) != 11 {
			t.Fatalf("%d are picked", len(got))
		}
		for _, c := range got {
			if c.Endpoints[0].Addr.Addr().As4()[0] == 198 {
				crowded++
			}
		}
	}
	if crowded != 100 {
		t.Errorf("%d of 100 times one of the crowded /16 is among 11 of 11 of them", crowded)
	}
	all := l.Pick(1000, nil)
	slices.SortFunc(all, func(a, b wire.Contact) int { return a.Peer.Compare(b.Peer) })
	all = slices.CompactFunc(all, func(a, b wire.Contact) bool { return a.Peer == b.Peer })
	if len(all) != 210 || l.Len() != 210 {
		t.Errorf("%d are picked of %d", len(all), l.Len())
	}
	if got := l.Pick(5, func(id identity.PeerID) bool { return id != bareID(3) }); len(got) != 1 || got[0].Peer != bareID(3) {
		t.Errorf("%+v", got)
	}
	n := 0
	l.Known(func(c wire.Contact, raw []byte) bool {
		if p, err := wire.PeekContact(raw); err != nil || p.Peer != c.Peer || c.Peer == l.cfg.Self || c.Departed() {
			t.Errorf("%+v, %v", c, err)
		}
		n++
		return n < 100
	})
	if n != 100 {
		t.Errorf("%d came", n)
	}
}
