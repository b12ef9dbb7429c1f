package session

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestIdleWakesSeldom: one exchange of pings tells both sides how long the way is, and
// from then on a heartbeat wakes the side that speaks once for its timer, and not to see
// that the answer has come, nor a writer.
func TestIdleWakesSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, ofA, ofB := pair(t, resuming, 40_000, nil)
		time.Sleep(2 * time.Second)
		for side, s := range map[string]*Session{"initiator": a, "other": b} {
			if s.Counters().RTT == 0 {
				t.Errorf("the %s knows no round trip", side)
			}
		}
		synctest.Wait()
		begun := func(o *owner) int {
			o.wg.mu.Lock()
			defer o.wg.mu.Unlock()
			return o.wg.ever
		}
		beforeA, beforeB, start := begun(ofA), begun(ofB), time.Now()
		time.Sleep(20 * resuming.Heartbeat)
		most := int(time.Since(start)/a.hb) + 1
		if n := begun(ofA) - beforeA; n > most || n < most/2 {
			t.Errorf("the initiator began %d goroutines in %d heartbeats", n, most)
		}
		if n := begun(ofB) - beforeB; n > most {
			t.Errorf("the other side began %d goroutines in %d heartbeats", n, most)
		}
	})
}
