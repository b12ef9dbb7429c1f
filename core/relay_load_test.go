package crust_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// ageOf says how long ago a message was sent whose number is the time.
func ageOf(data []byte) time.Duration {
	return time.Since(time.UnixMicro(int64(binary.BigEndian.Uint64(data)))) //nolint:gosec // a time
}

// press is flood, with no more queued than keeps the link busy.
func press(ctx context.Context, from, to *node) {
	for i := uint64(0); ctx.Err() == nil; i++ {
		for p, ok := from.Peer(to.ID()); ok && p.QueuedBytes > 48<<10; p, ok = from.Peer(to.ID()) {
			time.Sleep(5 * time.Millisecond)
		}
		if from.Send(to.ID(), filled(16_000, i), 1) != nil {
			return
		}
	}
}

// loaded is a relay whose uplink is the bottleneck, a friend of it, to which it has
// something to say itself, and peers that meet over it.
type loaded struct {
	relay, friend *node
	left, right   []*node
	mu            sync.Mutex
	came          map[*node]float64 // bytes of messages over the relay
	took          []time.Duration   // of messages of the relay for its friend that are urgent
	own           float64           // bytes of its other ones
}

// The uplink of the relay, and what it may carry: a quarter of that.
const (
	loadedUplink   = 2 << 20
	loadedRate     = loadedUplink / 4
	loadedCircuits = 8
)

// load makes a world in which all circuits that the relay and each peer may have are
// there, and nothing goes over them yet.
func load(t *testing.T, f func(t *testing.T, w *loaded)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond, Buffer: 64 << 10})
		router := internet.NAT(natsim.MustParse("home"), "203.0.113.1")
		rh := router.Host("192.168.1.2")
		internet.SetLink(rh, router.Node(), simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: loadedUplink})
		w := &loaded{came: map[*node]float64{}}
		w.relay = newNode(t, crust.On(rh, over(crust.Config{
			Relay: crust.RelayData, RelayBytesPerSecond: loadedRate, RelayCircuits: loadedCircuits, RelayPerPeer: 2,
		}, "0.0.0.0", "tcp")))
		defer w.relay.Close()
		join := func(host *simnet.Host) *node {
			n := newNode(t, crust.On(host, over(crust.Config{ConnectTimeout: 5 * time.Second}, "0.0.0.0", "tcp")))
			t.Cleanup(func() { n.Close() })
			link(t, w.relay, n)
			return n
		}
		w.friend = join(internet.Host("198.51.100.1"))
		var hosts []*simnet.Host
		for i := range loadedCircuits / 2 {
			for side, list := range []*[]*node{&w.left, &w.right} {
				h := internet.Host(fmt.Sprintf("198.51.%d.1", 101+side+2*i))
				for _, other := range hosts {
					internet.Silence(h, other)
				}
				hosts = append(hosts, h)
				*list = append(*list, join(h))
			}
		}
		for i, n := range w.left {
			for _, m := range w.partners(i) {
				if err := n.ConnectPeer(m.ID(), 1); err != nil {
					t.Fatal(err)
				}
				if e := n.next(crust.EventConnected); e.How() != crust.Relayed {
					t.Fatalf("%v", e.How())
				}
				m.next(crust.EventConnected)
			}
		}
		if n := w.relay.Stats().Circuits; n != loadedCircuits {
			t.Fatalf("%d circuits", n)
		}
		f(t, w)
	})
}

// partners are those that one on the left meets.
func (w *loaded) partners(i int) []*node {
	return []*node{w.right[i], w.right[(i+1)%len(w.right)]}
}

// run lets some time pass in which the relay sends its friend what it can, or only some
// urgent words, and everybody else too if it says so. It returns how many bytes of the
// relay's own came in a second, of those it carried, and how long its urgent words took.
func (w *loaded) run(t *testing.T, busy, others bool) (own, carried float64, words []time.Duration) {
	const lasts = 8 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	w.own, w.took = 0, nil
	clear(w.came)
	var lives sync.WaitGroup
	take := func(n *node) {
		for e := range n.Events(ctx) {
			if e.Type != crust.EventMessage {
				t.Errorf("%v of %v: %v", e.Type, e.Peer.Short(), e.Err())
				continue
			}
			w.mu.Lock()
			switch {
			case e.Peer != w.relay.ID():
				w.came[n] += float64(len(e.Data))
			case e.Priority == 0:
				w.took = append(w.took, ageOf(e.Data))
			default:
				w.own += float64(len(e.Data))
			}
			w.mu.Unlock()
		}
	}
	for _, n := range slices.Concat(w.left, w.right, []*node{w.friend}) {
		lives.Go(func() { take(n) })
	}
	if others {
		for i, n := range w.left {
			for _, m := range w.partners(i) {
				lives.Go(func() { press(ctx, n, m) })
				lives.Go(func() { press(ctx, m, n) })
			}
		}
	}
	if busy {
		lives.Go(func() { press(ctx, w.relay, w.friend) })
	}
	lives.Go(func() {
		for ctx.Err() == nil {
			if err := w.relay.Send(w.friend.ID(), filled(200, uint64(time.Now().UnixMicro())), 0); err != nil { //nolint:gosec // after 1970
				t.Error(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	lives.Wait()
	for _, n := range w.came {
		carried += n
	}
	slices.Sort(w.took)
	time.Sleep(10 * time.Second) // what is under way comes
	for _, n := range slices.Concat(w.left, w.right, []*node{w.friend}) {
		for batch, err := n.TryNextBatch(0); err == nil && len(batch.Events) > 0; batch, err = n.TryNextBatch(0) {
			batch.Release()
		}
	}
	return w.own / lasts.Seconds(), carried / lasts.Seconds(), w.took
}

// TestRelayLoaded: a relay with as many circuits as it and each of its peers may have,
// all of which are flooded in both directions, carries what it may and no more; what it
// has to say itself comes as fast as the rest of its uplink lets it, and what is urgent
// about as soon as without circuits.
func TestRelayLoaded(t *testing.T) {
	load(t, func(t *testing.T, w *loaded) {
		if err := w.left[0].ConnectPeer(w.right[2].ID(), 9); err != nil {
			t.Fatal(err)
		}
		if e := w.left[0].next(crust.EventConnectFailed, crust.EventConnected); e.Type != crust.EventConnectFailed {
			t.Errorf("one circuit more than there may be: %v", e.Type)
		}
		alone, _, calm := w.run(t, true, false)
		_, _, idle := w.run(t, false, false)
		beside, carried, busy := w.run(t, true, true)
		_, most, urgent := w.run(t, false, true)
		show := func(name string, rate, carried float64, took []time.Duration) {
			t.Logf("%s: %.0f bytes a second of its own, %.0f carried; %d urgent words took %v, at most %v",
				name, rate, carried, len(took), took[len(took)/2], took[len(took)-1])
		}
		show("alone", alone, 0, calm)
		show("idle", 0, 0, idle)
		show("beside circuits", beside, carried, busy)
		show("circuits alone", 0, most, urgent)
		for _, c := range []float64{carried, most} {
			if c > 1.05*loadedRate || c < 0.7*loadedRate {
				t.Errorf("%.0f bytes a second were carried, of %d that may be", c, loadedRate)
			}
		}
		if beside < 0.95*(alone-loadedRate) {
			t.Errorf("%.0f bytes a second of its own beside circuits, %.0f alone", beside, alone)
		}
		for name, c := range map[string]struct{ with, without []time.Duration }{"busy": {busy, calm}, "idle": {urgent, idle}} {
			if slow, was := c.with[len(c.with)*9/10], c.without[len(c.without)*9/10]; slow > was+60*time.Millisecond {
				t.Errorf("%s: urgent words took %v, %v without circuits", name, slow, was)
			}
		}
	})
}

// TestRelayOwnLatency: what a relay says to a peer that it relays for waits no longer
// behind what it carries there than behind its own, on the same link.
func TestRelayOwnLatency(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{}, crust.Config{RelayBytesPerSecond: 1 << 30}, func(t *testing.T, w *relayed) {
		w.SetLink(w.hosts[0], w.hb, simnet.Link{Latency: 20 * time.Millisecond, Bandwidth: 2 << 20, Buffer: 128 << 10})
		w.meet()
		measure := func(relayed bool) time.Duration {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			go flood(ctx, w.relays[0], w.b)
			if relayed {
				go flood(ctx, w.a, w.b)
			}
			go func() {
				for ctx.Err() == nil {
					w.relays[0].Send(w.b.ID(), filled(200, uint64(time.Now().UnixMicro())), 0) //nolint:errcheck,gosec // what comes counts
					time.Sleep(20 * time.Millisecond)
				}
			}()
			var took []time.Duration
			for e := range w.b.Events(ctx) {
				if e.Type == crust.EventMessage && e.Priority == 0 {
					took = append(took, ageOf(e.Data))
				}
			}
			if len(took) < 100 {
				t.Fatalf("%d urgent messages came", len(took))
			}
			slices.Sort(took)
			return took[len(took)*9/10]
		}
		alone, beside := measure(false), measure(true)
		t.Logf("nine of ten urgent messages took %v, %v beside what is relayed", alone, beside)
		if beside > alone+40*time.Millisecond { // a record of 33 KiB each way, and some
			t.Errorf("urgent messages took %v, %v beside what is relayed", alone, beside)
		}
	})
}
