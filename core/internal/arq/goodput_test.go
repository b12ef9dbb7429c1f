package arq

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// goodput floods a link for a time and returns bytes a second in its last part.
func goodput(t testing.TB, seed uint64, cfg Config, there, back path, warm, last time.Duration) (float64, *node, *path) {
	w := newWorld(t, seed)
	a, b := w.pair(cfg, &there, &back)
	a.flood(60000, a.c.cfg.SendBuffer)
	start := w.now
	a.pump()
	w.run(start+warm, func() bool { return false })
	got := b.bytes
	w.run(start+warm+last, func() bool { return false })
	return float64(b.bytes-got) / last.Seconds(), a, &there
}

var megabit = 1e6 / 8

// The rate of a link is used whether or not the link loses some.
func TestGoodput(t *testing.T) {
	for _, c := range []struct {
		rate  float64 // Mbit/s
		delay time.Duration
		loss  float64
		want  float64 // share of the rate
	}{
		{200, 20 * time.Millisecond, 0, 0.9},
		{200, 20 * time.Millisecond, 0.01, 0.88},
		{200, 20 * time.Millisecond, 0.05, 0.75},
		{200, 20 * time.Millisecond, 0.10, 0.65},
		{10, 150 * time.Millisecond, 0.10, 0.6},
		{1000, time.Millisecond, 0.001, 0.85},
		{0.5, 50 * time.Millisecond, 0.01, 0.8},
	} {
		for seed := range uint64(2) {
			if !thorough && (seed > 0 || c.rate > 500) {
				break
			}
			p := path{rate: c.rate * megabit, delay: c.delay, loss: c.loss}
			p.queue = int(max(p.rate*2*c.delay.Seconds(), 32<<10))
			got, a, _ := goodput(t, seed, Config{MaxMTU: 1420}, p, p, 2*time.Second, 3*time.Second)
			if got < c.want*p.rate {
				t.Errorf("%v Mbit/s, %v, loss %v, seed %d: %.2f MB/s, %.0f%%: %+v", c.rate, c.delay, c.loss, seed, got/1e6, 100*got/p.rate, a.c.Stats())
			}
		}
	}
}

// TestTable prints goodput over links, as a share of the link's rate. It takes
// long, so it runs when asked for.
func TestTable(t *testing.T) {
	if os.Getenv("ARQ_TABLE") == "" {
		t.Skip("set ARQ_TABLE to run it")
	}
	losses := []float64{0, 0.001, 0.01, 0.05, 0.10}
	for _, rate := range []float64{10, 200, 1000} {
		for _, delay := range []int{0, 10, 20, 150} {
			line := fmt.Sprintf("%5.0f Mbit/s %3d ms:", rate, delay)
			for _, loss := range losses {
				d := time.Duration(delay)*time.Millisecond + 100*time.Microsecond
				p := path{rate: rate * megabit, delay: d, loss: loss, queue: int(max(rate*megabit*2*d.Seconds(), 64<<10))}
				back := p
				last := 5 * time.Second
				if rate > 500 {
					last = 2 * time.Second
				}
				cfg := Config{MTU: 1200, MaxMTU: 1420, SendBuffer: 128 << 20, ReceiveBuffer: 128 << 20}
				got, a, l := goodput(t, 1, cfg, p, back, max(3*time.Second, 40*d), last)
				line += fmt.Sprintf("  %6.2f MB/s (%3.0f%%, %d spur %d full)", got/1e6, 100*got/(rate*megabit), a.c.Stats().Spurious, l.full)
			}
			t.Log(line)
		}
	}
}
