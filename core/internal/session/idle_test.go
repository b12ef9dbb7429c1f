package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
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
		beforeA, beforeB, start := ofA.wg.begun(), ofB.wg.begun(), time.Now()
		time.Sleep(20 * resuming.Heartbeat)
		most := int(time.Since(start)/a.hb) + 1
		if n := ofA.wg.begun() - beforeA; n > most || n < most/2 {
			t.Errorf("the initiator began %d goroutines in %d heartbeats", n, most)
		}
		if n := ofB.wg.begun() - beforeB; n > most {
			t.Errorf("the other side began %d goroutines in %d heartbeats", n, most)
		}
	})
}

// TestLostAfterOfNothing: a peer that says to take us for lost after a millisecond has us say
// something every now and then, and no more often: who has thousands of such sessions would
// else do nothing but ping.
func TestLostAfterOfNothing(t *testing.T) {
	for _, initiator := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			la, lb := links(t, 40_000, nil)
			la.Remote.LostAfter, lb.Remote.LostAfter = 1, 1
			if initiator {
				lb.Remote.LostAfter = uint32(usual.LostAfter / time.Millisecond)
			} else {
				la.Remote.LostAfter = uint32(usual.LostAfter / time.Millisecond)
			}
			oa, ob := new(owner), new(owner)
			a, b := start(t, la, resuming, oa), start(t, lb, resuming, ob)
			s, o := a, oa
			if !initiator {
				s, o = b, ob
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			before := o.wg.begun()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			most := int(10*time.Second/(leastHeartbeat*5/8)) + 1 // see spread
			if n := o.wg.begun() - before; n > most || n < 10 || !s.Live() {
				t.Errorf("initiator %v: %d goroutines were begun in ten seconds, want at most %d", initiator, n, most)
			}
		})
	}
}

// TestIdleHoldsNothing: whoever has begun the session, and whoever has sent, after floods of
// large, small and tiny messages and lone ones, both sides soon hold nothing for a session in
// which no more is sent.
func TestIdleHoldsNothing(t *testing.T) {
	for name, cfg := range map[string]Config{"nothing kept": usual, "resuming": resuming} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { idleHoldsNothing(t, cfg) })
		})
	}
}

func idleHoldsNothing(t *testing.T, cfg Config) {
	la, lb := links(t, 1<<20, nil)
	budgets := [2]*Budget{NewBudget(64<<20, 1), NewBudget(64<<20, 1)}
	var sessions [2]*Session
	for i, l := range []*secure.Link{la, lb} {
		cfg.Budget = budgets[i]
		sessions[i] = start(t, l, cfg, new(owner))
	}
	for i, s := range sessions {
		for _, k := range []struct{ size, count int }{{100_000, 20}, {100, 10_000}, {4, 50_000}, {100, 1}} {
			for n := range k.count {
				if err := s.SendWait(t.Context(), numbered(k.size, n), uint8(n%3)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(4 * cfg.Heartbeat)
			synctest.Wait()
			for j, b := range budgets {
				if held := b.Held(); held != 0 {
					t.Errorf("side %d sent %d messages of %d bytes: side %d holds %d bytes", i, k.count, k.size, j, held)
				}
				if records, queues := listed(sessions[j]); records > 0 || queues > 0 {
					t.Errorf("side %d sent %d messages of %d bytes: side %d has room to list %d records, and %d queues", i, k.count, k.size, j, records, queues)
				}
			}
		}
	}
}

// listed returns for how many records a session has a list, and for how many priorities a queue.
func listed(s *Session) (records, queues int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cap(s.kept.records), len(s.queues)
}
