package arq

import (
	"fmt"
	"testing"
	"time"
)

// TestPacerKeepsItsRateWhenItIsAskedLate has every burst asked for some time after
// it was ready: a rate that is not reached is never found to be too low.
func TestPacerKeepsItsRateWhenItIsAskedLate(t *testing.T) {
	for _, pacing := range []float64{1e5, 1e6, 1e7, 4e7} {
		for _, late := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond} {
			t.Run(fmt.Sprintf("%.0e B/s, %v late", pacing, late), func(t *testing.T) {
				r := &rate{mtu: 1440, pacing: pacing}
				p := &pacer{}
				p.init(0, 0)
				sent, now := 0, time.Duration(0)
				for now < 2*time.Second {
					now = max(now, p.readyAt(p.burst(r), r)) + late
					p.fill(now, r)
					for p.tokens > 0 {
						p.tokens -= float64(r.mtu)
						sent += r.mtu
					}
				}
				if share := float64(sent) / (pacing * now.Seconds()); share < 0.97 || share > 1.03 {
					t.Errorf("%.2f of the rate is sent", share)
				}
			})
		}
	}
}

// TestPacerForgetsAPause has nothing gather but a few milliseconds' worth.
func TestPacerForgetsAPause(t *testing.T) {
	for pacing, most := range map[float64]float64{1e5: 2880 + 500, 1e7: 10_000 + 50_000, 1e9: 256 << 10} {
		r := &rate{mtu: 1440, pacing: pacing}
		p := &pacer{}
		p.fill(time.Minute, r)
		if p.tokens > most {
			t.Errorf("at %.0e bytes a second %.0f go at once after a pause, at most %.0f should", pacing, p.tokens, most)
		}
	}
}

// TestQueueDrainsWhenTheRateFalls has a link with a deep queue fall to a tenth of
// its rate: the round trip comes back near what it was, and what was learned of the
// old rate does not flood the link, for longer than a measure of the round trip is
// believed.
func TestQueueDrainsWhenTheRateFalls(t *testing.T) {
	for _, queue := range []int{400_000, 900_000, 1 << 20, 1_500_000} {
		w := newWorld(t, 2)
		p := path{rate: 100 * megabit, delay: 20 * time.Millisecond, queue: queue}
		back := path{delay: 20 * time.Millisecond}
		a, b := w.pair(Config{MaxMTU: 1420}, &p, &back)
		a.flood(60000, 8<<20)
		a.pump()
		w.run(w.now+8*time.Second, func() bool { return false })
		before := a.c.Stats()
		p.rate = 10 * megabit
		w.run(w.now+3*time.Second, func() bool { return false })
		got := b.bytes
		for range 9 {
			w.run(w.now+time.Second, func() bool { return false })
			if rtt := a.c.Stats().RTT; rtt > 250*time.Millisecond {
				t.Errorf("queue %d: the round trip is %v, of 40 ms", queue, rtt)
			}
		}
		if share := float64(b.bytes-got) / 9 / p.rate; share < 0.85 {
			t.Errorf("queue %d: %.2f of the rate is used", queue, share)
		}
		if after := a.c.Stats(); after.Lost-before.Lost > 2000 {
			t.Errorf("queue %d: %d datagrams were lost", queue, after.Lost-before.Lost)
		}
	}
}
