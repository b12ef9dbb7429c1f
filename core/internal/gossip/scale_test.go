package gossip

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// update makes TestScale write testdata/scale.json, from which docs/plot-gossip.py
// draws: go test ./core/internal/gossip -run TestScale -update
// with CRUST_GOSSIP_NODES=10000 for all sizes.
var update = flag.Bool("update", false, "write what TestScale has measured into testdata/scale.json")

// scale is what is measured in an overlay of one size. Times are in seconds.
type scale struct {
	Nodes    int `json:"nodes"`
	Sessions int `json:"sessions"` // of a node, on average
	// Known is until so many nodes, in percent, know one that has come, and Forgotten
	// until so many have forgotten one that has departed: medians of several.
	Known     map[string]float64 `json:"known"`
	Forgotten map[string]float64 `json:"forgotten"`
	// KnownBytes and ForgottenBytes are what a node sends for that, on average.
	KnownBytes     float64 `json:"known_bytes"`
	ForgottenBytes float64 `json:"forgotten_bytes"`
	// CaughtUp is until one that has come knows 99 % of the others, and CaughtUpBytes
	// what it and its peers send each other for that.
	CaughtUp      float64 `json:"caught_up"`
	CaughtUpBytes float64 `json:"caught_up_bytes"`
	// IdleBytes is what a node sends in a second when nobody comes and nobody goes, on
	// average, and MostIdle what the one that sends most does.
	IdleBytes float64 `json:"idle_bytes"`
	MostIdle  float64 `json:"most_idle_bytes"`
	// Life is after how long a node that has vanished without a word is forgotten, at most.
	Life float64 `json:"life"`
}

// shares are the percentages of scale.Known.
var shares = []int{50, 90, 99, 100}

// overlay makes nodes that know each other for long, with some dials each.
func overlay(t testing.TB, n, dials int) *world {
	w := newWorld(t, uint64(n))
	every := min(max(time.Duration(n)*time.Second, renewLeast), renewMost)
	var entries []entry
	prefixes := map[prefix]int{}
	for range n {
		x := w.add(Config{}, nil)
		age := time.Duration(w.rand.Int64N(int64(every)))
		c := wire.Contact{Peer: x.id, Endpoints: endpointsOf(x.index), Life: uint32((2*every + lifeExtra) / time.Second)}
		c.Seq = uint64(start.Add(-age).UnixMilli())
		r := newRecord(c, c.Append(nil, x.m.cfg.Sign))
		x.m.own = own{record: r, want: c, set: true, floor: c.Seq, renewAt: every - age, until: c.Expires()}
		x.m.own.want.Seq, x.m.own.want.Life = 0, 0
		entries = append(entries, entry{position: r.key.Position, record: r, ends: x.m.ends(r, 0)})
		for _, p := range r.prefixes {
			prefixes[p]++
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return a.record.contact.Peer.Compare(b.record.contact.Peer) })
	for _, x := range w.nodes {
		x.m.table.entries, x.m.table.prefixes = slices.Clone(entries), maps.Clone(prefixes)
		x.m.table.soonest = 0
	}
	w.mesh(w.nodes, dials)
	for _, x := range w.nodes {
		order := x.m.order
		for _, l := range order { // digests have been equal for long
			l.interval, l.exchangeAt = exchangeMost, time.Duration(w.rand.Int64N(int64(exchangeMost)))
		}
		for i := range x.m.table.entries {
			if e := &x.m.table.entries[i]; e.record.contact.Peer != x.id && len(order) > 0 {
				e.teller = order[w.rand.IntN(len(order))].teller
				e.teller.count++
			}
		}
	}
	return w
}

// spreading measures until shares of nodes have told a fact of a peer, in seconds.
func (w *world) spreading(nodes int, kind FactKind, id identity.PeerID, begin func()) map[string]float64 {
	from, seen := w.now, 0
	out := map[string]float64{}
	w.handle = func(_ *node, f Fact) {
		if f.Kind != kind || f.Contact.Peer != id {
			return
		}
		seen++
		for _, s := range shares {
			if name := strconv.Itoa(s); out[name] == 0 && seen*100 >= s*nodes {
				out[name] = w.now.Sub(from).Seconds()
			}
		}
	}
	begin()
	if !w.until(w.now.Add(5*time.Minute), func() bool { return seen >= nodes }) {
		w.t.Errorf("of %d nodes %d have heard of it", nodes, seen)
	}
	w.handle = nil
	return out
}

// measure measures an overlay.
func measure(t testing.TB, n int) scale {
	const dials = 4
	times, idle := 5, 4*time.Minute
	if n > 1000 {
		times, idle = 3, 90*time.Second
	}
	w := overlay(t, n, dials)
	if m := missing(w.nodes[:10], w.nodes); m != 0 {
		t.Fatalf("%d are missing from the beginning", m)
	}
	w.run(5 * time.Second)
	out := scale{Nodes: n, Sessions: 2 * dials, Known: map[string]float64{}, Forgotten: map[string]float64{}}
	out.Life = float64(w.nodes[0].m.own.record.contact.Life)

	before, each := w.bytes, make([]uint64, n)
	for i, x := range w.nodes {
		each[i] = x.bytes
	}
	w.run(idle)
	out.IdleBytes = float64(w.bytes-before) / float64(n) / idle.Seconds()
	for i, x := range w.nodes {
		out.MostIdle = max(out.MostIdle, float64(x.bytes-each[i])/idle.Seconds())
	}

	// From here on nothing is renewed, so that what is counted is for one record.
	for _, x := range w.nodes {
		x.m.own.renewAt = never
	}
	w.run(15 * time.Second) // what is under way
	known, forgotten := map[string][]float64{}, map[string][]float64{}
	for i := range times {
		old := w.nodes[:n+i]
		x := w.add(Config{}, nil)
		before := w.bytes
		got := w.spreading(len(old), Discovered, x.id, func() {
			x.own()
			for len(x.links) < 2*dials {
				w.join(x, old[w.rand.IntN(n)])
			}
			x.m.own.renewAt = never
		})
		w.until(w.now.Add(time.Hour), func() bool { return x.m.Len()*100 >= 99*len(old) })
		out.CaughtUp = max(out.CaughtUp, w.now.Sub(x.m.base).Seconds())
		w.run(20 * time.Second)
		between := x.bytes
		for _, p := range x.peers() {
			between += p.sentTo[x]
		}
		out.CaughtUpBytes = max(out.CaughtUpBytes, float64(between))
		out.KnownBytes += float64(w.bytes-before-between) / float64(n) / float64(times)
		for s, v := range got {
			known[s] = append(known[s], v)
		}
	}
	for i := range times {
		x := w.nodes[n+i]
		before := w.bytes
		got := w.spreading(n+times-1-i, Forgotten, x.id, func() {
			x.m.Depart(x.clock())
			x.tick()
			x.leaveSoon()
		})
		w.run(20 * time.Second)
		out.ForgottenBytes += float64(w.bytes-before) / float64(n) / float64(times)
		for s, v := range got {
			forgotten[s] = append(forgotten[s], v)
		}
	}
	for _, s := range shares {
		name := strconv.Itoa(s)
		out.Known[name], out.Forgotten[name] = median(known[name]), median(forgotten[name])
	}
	return out
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// row prints what was measured.
func (s scale) row() string {
	return fmt.Sprintf("| %d | %.2f s | %.2f s | %.0f | %.2f s | %.2f s | %.0f | %.1f s | %.0f | %.0f (%.0f) | %s |",
		s.Nodes, s.Known["50"], s.Known["99"], s.KnownBytes, s.Forgotten["50"], s.Forgotten["99"], s.ForgottenBytes,
		s.CaughtUp, s.CaughtUpBytes/1024, s.IdleBytes, s.MostIdle, time.Duration(s.Life)*time.Second)
}

const scaleHead = `
| nodes | half know | 99 % know | bytes a node | half forgot | 99 % forgot | bytes a node | newcomer knows 99 % | KiB for that | idle bytes/s a node (most) | vanished one forgotten within |
|---|---|---|---|---|---|---|---|---|---|---|`

// TestScale: an overlay ten times as large needs some hops more until everybody knows
// of a node that comes or goes, and a node sends no more for it.
func TestScale(t *testing.T) {
	sizes := []int{100, 1000}
	if !thorough {
		sizes = []int{100, 300}
	}
	if most, _ := strconv.Atoi(os.Getenv("CRUST_GOSSIP_NODES")); most > 1000 {
		sizes = append(sizes, most)
	}
	var all []scale
	text := scaleHead
	for _, n := range sizes {
		s := measure(t, n)
		all = append(all, s)
		text += "\n" + s.row()
		if s.KnownBytes > 1000 || s.ForgottenBytes > 1000 {
			t.Errorf("%d nodes: each sends %.0f bytes for one that comes, and %.0f for one that goes", n, s.KnownBytes, s.ForgottenBytes)
		}
		if s.IdleBytes > 512 || s.MostIdle > 2048 {
			t.Errorf("%d nodes: each sends %.0f bytes a second for nothing, one of them %.0f", n, s.IdleBytes, s.MostIdle)
		}
	}
	t.Log(text)
	first := all[0]
	for _, s := range all[1:] {
		// As many times as long as its logarithm is larger, and half as much for chance.
		ratio := 1.5 * math.Log(float64(s.Nodes)) / math.Log(float64(first.Nodes))
		if s.Known["99"] > ratio*first.Known["99"] || s.Forgotten["99"] > ratio*first.Forgotten["99"] {
			t.Errorf("%d nodes take %.2f s to know and %.2f s to forget one, %d take %.2f s and %.2f s",
				s.Nodes, s.Known["99"], s.Forgotten["99"], first.Nodes, first.Known["99"], first.Forgotten["99"])
		}
		if s.KnownBytes > 1.5*first.KnownBytes || s.ForgottenBytes > 1.5*first.ForgottenBytes {
			t.Errorf("%d nodes send %.0f and %.0f bytes each, %d %.0f and %.0f",
				s.Nodes, s.KnownBytes, s.ForgottenBytes, first.Nodes, first.KnownBytes, first.ForgottenBytes)
		}
	}
	if *update {
		b, err := json.MarshalIndent(all, "", "  ")
		if err == nil {
			err = os.WriteFile(filepath.Join("testdata", "scale.json"), append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
