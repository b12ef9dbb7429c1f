package arq

import (
	"slices"
	"testing"
	"time"
)

// shared floods one link with n flows that begin apart, and returns what each
// got in the last part.
func shared(t *testing.T, seed uint64, n int, p path, apart, warm, last time.Duration) (got []float64, link *path) {
	w := newWorld(t, seed)
	link = &p
	var to []*node
	start := w.now
	for i := range n {
		back := p
		back.rate = 0
		a, b := w.pair(Config{MaxMTU: 1420}, link, &back)
		a.flood(60000, 8<<20)
		to = append(to, b)
		w.at(start+time.Duration(i)*apart, a.pump)
	}
	w.run(start+warm, func() bool { return false })
	before := make([]int, n)
	for i, b := range to {
		before[i] = b.bytes
	}
	w.run(start+warm+last, func() bool { return false })
	for i, b := range to {
		got = append(got, float64(b.bytes-before[i])/last.Seconds())
	}
	return got, link
}

// jain is the fairness index: 1 when all have the same, 1/n when one has all.
func jain(x []float64) float64 {
	var sum, squares float64
	for _, v := range x {
		sum += v
		squares += v * v
	}
	return sum * sum / (float64(len(x)) * squares)
}

func TestFair(t *testing.T) {
	for _, c := range []struct {
		name  string
		rate  float64 // Mbit/s
		delay time.Duration
		queue float64 // of the product
		loss  float64
	}{
		{"deep queue", 50, 20 * time.Millisecond, 2, 0},
		{"one product", 50, 20 * time.Millisecond, 1, 0},
		{"shallow queue", 50, 20 * time.Millisecond, 0.25, 0},
		{"lossy", 50, 20 * time.Millisecond, 1, 0.02},
		{"slow", 4, 40 * time.Millisecond, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !thorough {
				c.rate /= 8
			}
			for seed := range uint64(3) {
				if !thorough && (seed > 0 || c.queue > 1 || c.loss > 0) {
					break
				}
				p := path{rate: c.rate * megabit, delay: c.delay, loss: c.loss}
				p.queue = int(p.rate * 2 * c.delay.Seconds() * c.queue)
				got, l := shared(t, seed, 2, p, 3*time.Second, 6*time.Second, 20*time.Second)
				index, total := jain(got), got[0]+got[1]
				t.Logf("%.2f and %.2f MB/s: index %.3f, %.0f%% of the link, worst wait %v, mean %v, dropped %.2f%%", got[0]/1e6, got[1]/1e6, index, 100*total/p.rate,
					l.worst, l.queued/time.Duration(l.passed), 100*float64(l.full)/float64(l.full+l.passed))
				if index < 0.8 {
					t.Errorf("seed %d: unfair: %v", seed, got)
				}
				if total < 0.75*p.rate {
					t.Errorf("seed %d: %v of %v is used", seed, total, p.rate)
				}
			}
		})
	}
}

// A queue that could hold a second is not filled.
func TestBufferbloat(t *testing.T) {
	p := path{rate: 20 * megabit, delay: 15 * time.Millisecond, queue: int(20 * megabit)}
	got, a, l := goodput(t, 3, Config{MaxMTU: 1420}, p, p, 5*time.Second, 10*time.Second)
	t.Logf("%.2f MB/s, worst wait %v, mean %v, %+v", got/1e6, l.worst, l.queued/time.Duration(l.passed), a.c.Stats())
	if mean := l.queued / time.Duration(l.passed); mean > 20*time.Millisecond || l.worst > 90*time.Millisecond {
		t.Errorf("datagrams wait %v, at worst %v, for a round trip of 30 ms", mean, l.worst)
	}
	if got < 0.9*p.rate {
		t.Errorf("%.2f MB/s", got/1e6)
	}
}

// Loopback: next to no delay, and a receive buffer that overflows.
func TestLoopback(t *testing.T) {
	for _, late := range []time.Duration{0, 200 * time.Microsecond, 2 * time.Millisecond} {
		for _, queue := range []int{64 << 10, 200 << 10, 1 << 20} {
			for _, rate := range []float64{0.5e9, 4e9} {
				if !thorough && (rate > 1e9 || late == 200*time.Microsecond) {
					continue
				}
				w := newWorld(t, 5)
				w.late = late
				p, back := path{rate: rate, delay: 30 * time.Microsecond, queue: queue}, path{delay: 30 * time.Microsecond}
				a, b := w.pair(Config{MaxMTU: 1420}, &p, &back)
				a.flood(60000, 4<<20)
				start := w.now
				a.pump()
				w.run(start+30*time.Millisecond, func() bool { return false })
				got := b.bytes
				w.run(start+80*time.Millisecond, func() bool { return false })
				speed := float64(b.bytes-got) / 0.05
				s := a.c.Stats()
				t.Logf("queue %4d KiB, timers %6v late, %.1f GB/s: %.0f MB/s, lost %.2f%%, %+v", queue>>10, late, rate/1e9, speed/1e6, 100*float64(s.Lost)/float64(s.Sent), s)
				if speed < 0.4*rate {
					t.Errorf("queue %d KiB, timers %v late: %.0f MB/s of %.0f", queue>>10, late, speed/1e6, rate/1e6)
				}
			}
		}
	}
}

// A link whose rate falls to a tenth is not flooded for long, and one that
// comes back is used again.
func TestRateChanges(t *testing.T) {
	w := newWorld(t, 9)
	p := path{rate: 100 * megabit, delay: 20 * time.Millisecond, queue: 1 << 20}
	back := path{delay: 20 * time.Millisecond}
	a, b := w.pair(Config{MaxMTU: 1420}, &p, &back)
	a.flood(60000, 8<<20)
	a.pump()
	var speeds []float64
	for i, rate := range []float64{100, 100, 10, 10, 100, 100} {
		p.rate = rate * megabit
		got := b.bytes
		start := w.now
		if i%2 == 1 {
			p.full, p.passed, p.queued = 0, 0, 0
		}
		w.run(start+4*time.Second, func() bool { return false })
		speeds = append(speeds, float64(b.bytes-got)/4/p.rate)
	}
	t.Logf("share of the rate used: %.2f", speeds)
	if slices.Min(speeds[:2]) < 0.8 || speeds[3] < 0.85 || speeds[5] < 0.85 {
		t.Errorf("share of the rate used: %.2f", speeds)
	}
}
