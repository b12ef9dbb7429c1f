package session

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestSpread: the heartbeats of many sessions are as far apart as can be, none is later
// than allowed, and of both sides of one it is always the initiator who speaks.
func TestSpread(t *testing.T) {
	const d, n = 20 * time.Second, 1 << 12
	parts := map[time.Duration]int{}
	for i := range n {
		var id wire.SessionID
		binary.BigEndian.PutUint16(id[:], uint16(i*(1<<16)/n))
		a, b := spread(d, id, true), spread(d, id, false)
		if a < d*5/8 || a > d*7/8 || b <= a || b > d {
			t.Fatalf("%x: %v and %v of %v", id[:2], a, b, d)
		}
		parts[a/(100*time.Millisecond)]++
	}
	for part, count := range parts {
		if count > n/40 {
			t.Errorf("%d of %d are within 100 ms of %v", count, n, part*100*time.Millisecond)
		}
	}
}

// TestOneSideSpeaks: an idle session costs one ping and its answer in each interval,
// whoever's.
func TestOneSideSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := pair(t, resuming, 40_000, nil)
		time.Sleep(resuming.Heartbeat)
		before, began := a.Counters().WireSent, time.Now()
		time.Sleep(100 * resuming.Heartbeat)
		after := a.Counters().WireSent
		const record = 60 // more than a ping, or an answer and an acknowledgement, with all overhead
		if n, most := after-before, uint64(time.Since(began)/(resuming.Heartbeat*5/8)+1)*record; n > most || b.Counters().WireSent == 0 {
			t.Errorf("%d bytes in %v, want at most %d", n, time.Since(began), most)
		}
	})
}

// TestBeats: what a session says while nothing is sent it says at whole beats since its
// owner's epoch, so that the sessions of one owner wake the machine together, and none
// later than it may; and who answers starts next to nothing for it.
func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := resuming
		cfg.Epoch = time.Now().Add(-100 * time.Millisecond)
		a, b, _, ofB := pair(t, cfg, 40_000, nil)
		time.Sleep(2 * cfg.Heartbeat)
		synctest.Wait()
		begun := ofB.wg.begun()
		pings, last := 0, time.Now()
		for range 100 * cfg.Heartbeat / Beat {
			time.Sleep(Beat - time.Since(cfg.Epoch)%Beat - 1)
			before := a.Counters().WireSent
			time.Sleep(2)
			if a.Counters().WireSent != before {
				pings++
				if took := time.Since(last); took > cfg.Heartbeat {
					t.Errorf("silent for %v", took)
				}
				last = time.Now()
			}
			after := a.Counters().WireSent
			time.Sleep(Beat - 4)
			if n := a.Counters().WireSent; n != after {
				t.Fatalf("%d bytes between two beats", n-after)
			}
		}
		if n := ofB.wg.begun() - begun; pings < 100 || n > pings*5/4 || b.Counters().WireSent == 0 {
			t.Errorf("%d pings, and %d goroutines of who answers: want one each, for the look at the time", pings, n)
		}
	})
}
