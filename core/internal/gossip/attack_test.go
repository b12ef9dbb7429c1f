package gossip

import (
	"crypto/ed25519"
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

// flood is an attack on an overlay: tellers that have sessions with all honest nodes
// bring them made-up identities with valid signatures, all of them, as fast as is
// any use.
type flood struct {
	w       *world
	honest  []*node
	tellers []*node
	raws    [][]byte
	made    map[identity.PeerID]bool
	checked map[string]bool // signatures, once each
	batch   int
}

// newFlood makes an overlay of honest nodes, and then the attack on it. addr
// is where a made-up identity says it is.
func newFlood(t *testing.T, honest, tellers, ids, maxKnown int, addr func(i int) string) *flood {
	f := &flood{w: newWorld(t, 21), made: map[identity.PeerID]bool{}, checked: map[string]bool{}}
	for _, k := range testKeys(t, honest) {
		f.join(k, maxKnown)
	}
	f.w.mesh(f.honest, 4)
	f.w.run(20 * time.Second)
	if n := missing(f.honest, f.honest); n > 0 {
		t.Fatalf("%d are missing from the beginning", n)
	}
	for i := range ids {
		k := ed25519.NewKeyFromSeed(fmt.Appendf(nil, "made up %024d", i))
		c := wire.Contact{Peer: identity.PeerID(k.Public().(ed25519.PublicKey)), Seq: uint64(f.w.now.UnixMilli()), Life: 24 * 60 * 60}
		c.Endpoints = []endpoint.Endpoint{at("tcp://" + addr(i) + ":5483")}
		f.made[c.Peer] = true
		f.raws = append(f.raws, c.Append(nil, func(b []byte) []byte { return ed25519.Sign(k, b) }))
	}
	for range tellers {
		x := f.w.add(Config{}, nil)
		x.hostile = func(*node, wire.Gossip) {}
		for _, n := range f.honest {
			f.w.join(x, n)
		}
		f.tellers = append(f.tellers, x)
	}
	f.say()
	return f
}

// join adds an honest node.
func (f *flood) join(k *identity.Key, maxKnown int) *node {
	n := f.w.add(Config{MaxKnown: maxKnown}, k)
	n.m.read = f.w.read
	n.m.cfg.Verify = func(c wire.Contact, raw []byte) bool {
		ok, known := f.checked[string(raw)]
		if !known {
			ok = c.Signed(raw)
			f.checked[string(raw)] = ok
		}
		return ok
	}
	n.own()
	f.honest = append(f.honest, n)
	return n
}

// say has each teller bring twenty identities to each honest node, a little more in a
// second than are looked at, and again.
func (f *flood) say() {
	for _, x := range f.tellers {
		from := f.batch * 20 % len(f.raws)
		f.batch++
		for _, n := range f.honest {
			x.say(n, wire.Gossip{Kind: wire.GossipNews, Contacts: f.raws[from:min(from+20, len(f.raws))]})
		}
	}
	f.w.push(event{at: f.w.now.Add(300 * time.Millisecond), to: f.tellers[0], do: f.say})
}

// kept returns which part of the records of some nodes are known to others: on average, and
// to the one that knows fewest; and how many made-up ones the one knows that knows most.
func (f *flood) kept(by, of []*node) (average, worst float64, madeUp int) {
	worst = 1
	for _, n := range by {
		have, lies := 0, 0
		for _, o := range of {
			if _, _, ok := n.m.Lookup(o.id); ok || o == n {
				have++
			}
		}
		n.m.Known(func(c wire.Contact, _ []byte) bool {
			if f.made[c.Peer] {
				lies++
			}
			return true
		})
		share := float64(have) / float64(len(of))
		average += share / float64(len(by))
		worst, madeUp = min(worst, share), max(madeUp, lies)
	}
	return average, worst, madeUp
}

func TestFlood(t *testing.T) {
	ids, honest, lasting := 10000, 30, 2*time.Minute
	if !thorough {
		ids, honest, lasting = 1000, 20, time.Minute
	}
	text := "\n| made-up identities | table | honest records kept, average (worst node) | made-up ones kept, at most | honest newcomers known to all after | and know of the others | bytes/s a node | signatures looked at a node |\n|---|---|---|---|---|---|---|---|"
	for _, c := range []struct {
		name     string
		maxKnown int
		addr     func(i int) string
		most     int // made-up records that a node may keep
		stays    bool
	}{
		{"on one /24", DefaultMaxKnown, func(i int) string { return fmt.Sprintf("198.51.100.%d", 1+i%250) }, 256, true},
		{"on one /24", 256, func(i int) string { return fmt.Sprintf("198.51.100.%d", 1+i%250) }, 4, true},
		{"in 8 /16", DefaultMaxKnown, func(i int) string { return fmt.Sprintf("198.%d.%d.%d", i%8, i/8%256, 1+i/2048) }, 8 * 1024, true},
		{"in 8 /16", 256, func(i int) string { return fmt.Sprintf("198.%d.%d.%d", i%8, i/8%256, 1+i/2048) }, 8 * 16, true},
		{"all over, full table", 256, func(i int) string { return fmt.Sprintf("%d.%d.7.7", 100+i%100, i/100) }, 256, false},
	} {
		f := newFlood(t, honest, 4, ids, c.maxKnown, c.addr)
		old := slices.Clone(f.honest)
		f.w.run(lasting / 2)
		before, from := uint64(0), f.w.now
		for _, n := range old {
			before += n.bytes
		}
		var newcomers []*node
		newKeys := testKeys(t, honest+3)[honest:]
		for _, k := range newKeys {
			x := f.join(k, c.maxKnown)
			for _, n := range old[:6] {
				f.w.join(x, n)
			}
			newcomers = append(newcomers, x)
		}
		took, known := f.w.within(lasting/2, func() bool { return missing(old, newcomers) == 0 })
		f.w.run(from.Add(lasting / 2).Sub(f.w.now))
		after, checks := uint64(0), uint64(0)
		for _, n := range old {
			after += n.bytes
			checks += n.m.stats.Checked
			checkTable(t, n.m)
		}
		average, worst, madeUp := f.kept(old, old)
		learned, _, _ := f.kept(newcomers, old)
		heard := took.String()
		if !known {
			heard = "not by all"
		}
		text += fmt.Sprintf("\n| %d %s | %d | %.1f %% (%.1f %%) | %d | %s | %.1f %% | %.0f | %d |", ids, c.name, c.maxKnown, 100*average, 100*worst, madeUp,
			heard, 100*learned, float64(after-before)/float64(len(old))/f.w.now.Sub(from).Seconds(), checks/uint64(len(old)))
		if worst <= 0.9 || madeUp > c.most || c.stays && (!known || took > 30*time.Second) {
			t.Errorf("%s, a table of %d: a node has kept %.0f %% of the honest records, and %d made-up ones; newcomers are known after %s: %v",
				c.name, c.maxKnown, 100*worst, madeUp, took, known)
		}
		if rate := float64(after-before) / float64(len(old)) / f.w.now.Sub(from).Seconds(); rate > DefaultTotalRate {
			t.Errorf("%s: an honest node sends %.0f bytes a second", c.name, rate)
		}
	}
	t.Log(text)
}

// An attacker with 30 % of the identities, in 8 /16, and 30 % of our peers, does not get
// most of the places of those that are picked to connect to.
func TestEclipse(t *testing.T) {
	runs := 200
	if !thorough {
		runs = 20
	}
	for _, groups := range []int{2000, 30} {
		owned, picked := 0, 0
		for run := range runs {
			r := rand.New(rand.NewPCG(uint64(run), 9))
			l := trusting(t, Config{Seed: [32]byte{byte(run), byte(groups)}}, 10)
			for _, x := range l.order {
				x.peer.News = false // nothing need be told on
			}
			var all, lies []*record
			for i := range 1000 {
				b := [4]byte{20, 0, byte(r.IntN(250)), byte(1 + r.IntN(250))}
				if i < 300 {
					b[0], b[1] = 198, byte(i%8)
				} else {
					g := r.IntN(groups)
					b[0], b[1] = byte(20+g/250), byte(g%250)
				}
				c := wire.Contact{Peer: bareID(run*1000 + i), Seq: uint64(start.UnixMilli()), Life: 36000}
				c.Endpoints = []endpoint.Endpoint{endpoint.New(endpoint.TCP, netip.AddrPortFrom(netip.AddrFrom4(b), 5483))}
				x := newRecord(c, c.Append(nil, func([]byte) []byte { return make([]byte, 64) }))
				if all = append(all, x); i < 300 {
					lies = append(lies, x)
				}
			}
			lie := map[identity.PeerID]bool{}
			for _, x := range lies {
				lie[x.contact.Peer] = true
			}
			for peer := range 10 {
				bring := all
				if peer < 3 {
					bring = lies
				}
				for i := range r.Perm(len(bring)) {
					if l.table.find(bring[i].contact.Peer) == nil {
						l.now = l.now.Add(20 * time.Millisecond)
						if _, err := l.contacts(peer, bring[i].raw); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			n := 0
			for _, c := range l.Pick(8, nil) {
				if lie[c.Peer] {
					n++
				}
			}
			if picked += n; n > 4 {
				owned++
			}
		}
		t.Logf("honest identities in %d /16: of 8 picked peers %.2f are the attacker's on average; in %.1f %% of %d runs more than half",
			groups, float64(picked)/float64(runs), 100*float64(owned)/float64(runs), runs)
		if owned*20 > runs {
			t.Errorf("in %d of %d runs the attacker has more than half", owned, runs)
		}
	}
}
