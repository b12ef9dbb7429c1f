package arq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// randomPath makes a path of any kind.
func randomPath(rng *rand.Rand) path {
	p := path{delay: time.Duration(rng.Int64N(int64(60 * time.Millisecond)))}
	pick := func(share float64) bool { return rng.Float64() < share }
	if pick(0.7) {
		p.rate = []float64{0.1, 1, 20, 300}[rng.IntN(4)] * 1e6
		p.queue = 8<<10 + rng.IntN(512<<10)
	}
	if pick(0.5) {
		p.loss = rng.Float64() * 0.3
	}
	if pick(0.4) {
		p.jitter = time.Duration(rng.Int64N(int64(20*time.Millisecond))) + 1
	}
	if pick(0.4) {
		p.reorder = rng.Float64() * 0.3
	}
	if pick(0.3) {
		p.double = rng.Float64() * 0.2
	}
	if pick(0.3) {
		p.mtu = 1200 + rng.IntN(300)
	}
	return p
}

// some queues count packets of many sizes, as room is there.
func (n *node) some(rng *rand.Rand, count int) {
	var p []byte
	n.source = func() bool {
		if count == 0 {
			return false
		}
		if p == nil {
			size := 16 + rng.IntN(200)
			if rng.IntN(3) == 0 {
				size = 16 + rng.IntN(MaxPacket-15)
			}
			p = make([]byte, size)
		}
		if !n.c.Send(n.packet(p)) {
			return false
		}
		n.sentPackets++
		p = nil
		count--
		return true
	}
}

// Whatever the path does short of never letting anything through, every packet
// that Send took arrives once, whole and in order, in both directions at once.
func TestAllArrives(t *testing.T) {
	for seed := range uint64(80) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			there, back := randomPath(w.rng), randomPath(w.rng)
			if w.rng.IntN(3) == 0 {
				w.late = 3 * time.Millisecond
			}
			a, b := w.pair(Config{MaxMTU: 1200 + w.rng.IntN(400), SendBuffer: 70000 + w.rng.IntN(1<<21), ReceiveBuffer: 1 << 20}, &there, &back)
			a.check, b.check = true, true
			if w.rng.IntN(2) == 0 { // else a doubled number reaches the Conn
				a.seen, b.seen = map[uint64]bool{}, map[uint64]bool{}
			}
			const there1, back1 = 60, 40
			a.some(w.rng, there1)
			b.some(w.rng, back1)
			a.pump()
			b.pump()
			quiet := func() bool { // and all is acknowledged
				return b.order == there1 && a.order == back1 && a.c.una == a.c.end && b.c.una == b.c.end
			}
			// In the middle, the path is cut for a while, or changes.
			if w.rng.IntN(2) == 0 {
				w.run(w.now+200*time.Millisecond, quiet)
				there.cut, back.cut = true, true
				w.run(w.now+3*time.Second, quiet)
				there, back = randomPath(w.rng), randomPath(w.rng)
				if w.rng.IntN(2) == 0 {
					a.c.Moved(w.now)
					b.c.Moved(w.now)
				}
			}
			if !w.run(w.now+10*time.Minute, quiet) {
				t.Fatalf("%d of %d and %d of %d packets after ten minutes\n%+v %+v\n%+v\n%+v", b.order, there1, a.order, back1, there, back, a.c.Stats(), b.c.Stats())
			}
			for _, n := range []*node{a, b} {
				if s := n.c.Stats(); s.Queued != 0 || s.InFlight < 0 || n.c.flight.missing.n > maxMissing {
					t.Errorf("at the end: %+v", s)
				}
			}
		})
	}
}

// An end that has nothing to do is left alone: no timer goes on for ever.
func TestGoesQuiet(t *testing.T) {
	w := newWorld(t, 1)
	p := path{delay: 5 * time.Millisecond, rate: 1e7, queue: 1 << 20, loss: 0.05, mtu: 1333}
	back := p
	a, b := w.pair(Config{MaxMTU: 9000}, &p, &back)
	a.some(w.rng, 50)
	a.pump()
	w.run(w.now+time.Minute, func() bool { return false })
	if len(w.queue) != 0 {
		t.Errorf("%d events wait a minute after the last packet", len(w.queue))
	}
	for _, n := range []*node{a, b} {
		if at, ok := n.c.Deadline(); ok {
			t.Errorf("a deadline at %v, now %v: %+v", at, w.now, n.c.Stats())
		}
	}
	if b.order != 50 {
		t.Errorf("%d packets arrived", b.order)
	}
}

// The path's MTU is found within some round trips, to the last few bytes, and
// found again when it gets smaller or, after a move, larger.
func TestMTU(t *testing.T) {
	for _, c := range []struct{ config, path int }{{1420, 0}, {1420, 1300}, {1420, 1200}, {9000, 1412}, {60000, 0}, {60000, 8900}, {1201, 0}} {
		for _, loss := range []float64{0, 0.05} {
			w := newWorld(t, 4)
			p := path{delay: 10 * time.Millisecond, rate: 1e7, queue: 400 << 10, mtu: c.path, loss: loss}
			back := path{delay: 10 * time.Millisecond}
			a, b := w.pair(Config{MTU: 1200, MaxMTU: c.config}, &p, &back)
			a.flood(30000, 1<<20)
			a.pump()
			w.run(w.now+6*time.Second, func() bool { return false })
			want := c.config
			if c.path > 0 {
				want = min(want, c.path)
			}
			if got := a.c.Stats().MTU; got > want || got < want-mtuStep && want-got > want/50 {
				t.Errorf("up to %d on a path of %d, loss %v: found %d", c.config, c.path, loss, got)
			}
			if c.config < 1300 || loss > 0 {
				continue
			}
			// The path gets smaller without a word: a black hole.
			p.mtu = 1250
			got := b.bytes
			w.run(w.now+3*time.Second, func() bool { return false })
			if s := a.c.Stats(); s.MTU > 1250 || float64(b.bytes-got) < 0.4*3*p.rate {
				t.Errorf("up to %d: in a black hole above 1250: %d bytes in 3 s, %+v", c.config, b.bytes-got, s)
			}
			p.mtu = 0
			a.c.Moved(w.now)
			w.run(w.now+3*time.Second, func() bool { return false })
			if s := a.c.Stats(); s.MTU != c.config {
				t.Errorf("after a move: %d, not %d", s.MTU, c.config)
			}
		}
	}
}

// An outage says nothing of sizes, and a size that failed is tried again after
// some minutes.
func TestMTUComesBack(t *testing.T) {
	w := newWorld(t, 4)
	p, back := path{delay: 10 * time.Millisecond}, path{delay: 10 * time.Millisecond}
	a, _ := w.pair(Config{MaxMTU: 1420}, &p, &back)
	a.flood(500, 502) // a packet a round trip
	a.pump()
	w.run(w.now+time.Second, func() bool { return false })
	p.cut = true
	w.run(w.now+20*time.Second, func() bool { return false })
	if s := a.c.Stats(); s.MTU != 1200 {
		t.Errorf("in an outage: %+v", s)
	}
	p.cut = false
	w.run(w.now+3*time.Second, func() bool { return false })
	if s := a.c.Stats(); s.MTU != 1420 {
		t.Errorf("after an outage: %+v", s)
	}
	p.mtu = 1300
	a.c.Moved(w.now)
	w.run(w.now+5*time.Second, func() bool { return false })
	p.mtu = 0
	if s := a.c.Stats(); s.MTU > 1300 || s.MTU < 1285 {
		t.Errorf("on a path of 1300: %+v", s)
	}
	w.run(w.now+raiseAfter+5*time.Second, func() bool { return false })
	if s := a.c.Stats(); s.MTU != 1420 {
		t.Errorf("after %v: %+v", raiseAfter, s)
	}
}

// Burst losses are no black hole.
func TestBurstLossKeepsMTU(t *testing.T) {
	w := newWorld(t, 4)
	p := path{delay: 5 * time.Millisecond, rate: 2e7, queue: 1 << 20}
	back := path{delay: 5 * time.Millisecond}
	a, b := w.pair(Config{MaxMTU: 1420}, &p, &back)
	a.flood(60000, 1<<20)
	a.pump()
	for range 20 {
		w.run(w.now+100*time.Millisecond, func() bool { return false })
		p.cut = true
		w.run(w.now+4*time.Millisecond, func() bool { return false })
		p.cut = false
		if s := a.c.Stats(); s.MTU != 1420 {
			t.Fatalf("after a burst of losses: %+v", s)
		}
	}
	if float64(b.bytes) < 0.8*2*p.rate {
		t.Errorf("%d bytes in 2 s", b.bytes)
	}
}

// A path that reorders, but loses nothing, is not slowed by retransmissions.
func TestReordering(t *testing.T) {
	p := path{rate: 200 * megabit, delay: 20 * time.Millisecond, jitter: 5 * time.Millisecond, queue: 2 << 20}
	got, a, _ := goodput(t, 1, Config{MaxMTU: 1420}, p, p, 2*time.Second, 5*time.Second)
	s := a.c.Stats()
	t.Logf("%.1f MB/s, %+v", got/1e6, s)
	if got < 0.8*p.rate {
		t.Errorf("%.1f MB/s of %.1f", got/1e6, p.rate/1e6)
	}
	if again := float64(s.Retransmitted) / 7 / p.rate; again > 0.01 {
		t.Errorf("%.1f%% is sent again: %+v", 100*again, s)
	}
}

func datagram(v uint64, size int) []byte {
	p := binary.BigEndian.AppendUint64(nil, v)
	for i := range size - 8 {
		p = append(p, byte(v)+byte(i))
	}
	return p
}

func TestDatagrams(t *testing.T) {
	w := newWorld(t, 1)
	p := path{rate: 20 * megabit, delay: 20 * time.Millisecond, queue: 100 << 10}
	back := p
	a, b := w.pair(Config{MaxMTU: 1420, DatagramBuffer: 100 << 10}, &p, &back)
	a.seen, b.seen = map[uint64]bool{}, map[uint64]bool{}
	a.flood(60000, 8<<20)
	a.pump()
	w.run(w.now+2*time.Second, func() bool { return false })

	// They overtake the packets that wait.
	if err := a.c.SendDatagram(datagram(1, 500)); err != nil {
		t.Fatal(err)
	}
	sent := w.now
	a.pump()
	if !w.run(w.now+time.Second, func() bool { return len(b.datagrams) == 1 }) || w.now-sent > 100*time.Millisecond {
		t.Errorf("a datagram behind %d bytes takes %v", a.c.Stats().Queued, w.now-sent)
	}

	// The largest goes; a larger one is refused, with the size that does.
	most := a.c.MaxDatagram()
	if most != 1416 || a.c.SendDatagram(datagram(2, most)) != nil {
		t.Errorf("the largest datagram, of %d bytes, is refused", most)
	}
	if err := a.c.SendDatagram(datagram(2, most+1)); !errors.Is(err, ErrTooBig) {
		t.Errorf("one byte more: %v", err)
	}
	a.pump()
	w.run(w.now+time.Second, func() bool { return len(b.datagrams) == 2 })

	// When too many wait, the oldest go.
	for v := range uint64(1000) {
		if err := a.c.SendDatagram(datagram(100+v, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	a.pump()
	w.run(w.now+2*time.Second, func() bool { return false })
	got := b.datagrams[2:]
	dropped := a.c.Stats().Dropped
	if uint64(len(got))+dropped != 1000 || len(got) < 90 || !slices.IsSorted(got) || got[len(got)-1] != 1099 || got[0] != 100+dropped {
		t.Errorf("of 1000 came %d, from %d to %d; %d are counted as dropped", len(got), got[0], got[len(got)-1], dropped)
	}

	// Lost ones stay lost, and none comes twice.
	p.loss, p.double = 0.2, 0.2
	b.datagrams = nil
	for v := range uint64(500) {
		if err := a.c.SendDatagram(datagram(5000+v, 1000)); err != nil {
			t.Fatal(err)
		}
		a.pump()
		w.run(w.now+5*time.Millisecond, func() bool { return false })
	}
	w.run(w.now+2*time.Second, func() bool { return false })
	n := len(b.datagrams)
	slices.Sort(b.datagrams)
	if len(slices.Compact(b.datagrams)) != n || n < 350 || n > 450 {
		t.Errorf("%d of 500 came at a loss of 20 %%, %d of them once", n, len(slices.Compact(b.datagrams)))
	}
}

func TestChallengeAndClose(t *testing.T) {
	w := newWorld(t, 1)
	p, back := path{delay: 5 * time.Millisecond}, path{delay: 5 * time.Millisecond}
	a, b := w.pair(Config{}, &p, &back)
	a.transmit(a.c.Challenge(nil, a.number, 0xfeedfacecafebeef))
	w.run(w.now+time.Second, func() bool { return false })
	if len(a.responses) != 1 || a.responses[0] != 0xfeedfacecafebeef {
		t.Errorf("responses: %x", a.responses)
	}
	for token := range uint64(100) { // a flood gets no more than a few
		w.run(w.now+time.Second, func() bool { return false })
		if err := b.c.Receive(1000+token, wire.AppendInnerToken(nil, wire.InnerChallenge, token), w.now, b); err != nil {
			t.Fatal(err)
		}
	}
	b.pump()
	w.run(w.now+time.Second, func() bool { return false })
	if len(a.responses) != 1+rememberTokens {
		t.Errorf("%d responses", len(a.responses))
	}
	a.transmit(a.c.Close(nil, a.number, wire.ReasonLimit))
	w.run(w.now+time.Second, func() bool { return false })
	if len(b.closed) != 1 || b.closed[0] != wire.ReasonLimit {
		t.Errorf("closed: %v", b.closed)
	}
	b.c.Ping()
	b.pump()
	if _, ok := b.c.Deadline(); ok || len(w.queue) != 0 {
		t.Error("something goes to a peer that closed")
	}
}

func TestPing(t *testing.T) {
	w := newWorld(t, 1)
	p, back := path{delay: 5 * time.Millisecond}, path{delay: 5 * time.Millisecond}
	a, _ := w.pair(Config{}, &p, &back)
	start := w.now
	a.c.Ping()
	a.pump()
	if !w.run(start+time.Second, func() bool { return a.c.Stats().RTT > 0 }) || w.now-start != 10*time.Millisecond {
		t.Errorf("acknowledged after %v, %+v", w.now-start, a.c.Stats())
	}
}
