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
