//go:build linux

package scale

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if Child(Crust()) {
		return
	}
	os.Exit(m.Run())
}

// number reads an environment variable.
func number(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// What an idle session may cost a hub.
const (
	mostMemory     = 48 << 10 // bytes of the Go runtime
	mostGoroutines = 2.0      // a reader, and now and then a writer
	mostHeartbeat  = 40.0     // bytes a second, both ways, by the defaults
	mostCPU        = 0.02     // of a core, for 2,000 sessions
)

// interval is between two heartbeats: what they cost shows in no less time.
const interval = 20 * time.Second

// TestScale: what a session costs a peer that has many does not depend on how many. Of
// CRUST_SCALE_PEERS, 250 unless set, a quarter and half are measured, too, each for
// CRUST_SCALE_SECONDS, 3 unless set, and with CRUST_SCALE_HUBS all are connected to
// several hubs.
func TestScale(t *testing.T) {
	peers, hubs := number(t, "CRUST_SCALE_PEERS", 250), number(t, "CRUST_SCALE_HUBS", 1)
	span := time.Duration(number(t, "CRUST_SCALE_SECONDS", 3)) * time.Second
	f, err := New(Crust(), hubs)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	empty, err := f.Rest(0, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", Heading)
	t.Logf("%s", Line(empty, empty, 0, 0))
	for _, n := range []int{peers / 8, peers / 4, peers / 2, peers} {
		took, err := f.Grow(n)
		if err != nil {
			t.Fatal(err)
		}
		if span >= interval {
			time.Sleep(span) // what follows a connection is not idle: first exchanges of gossip, round trips
		}
		r, err := f.Rest(0, span)
		if err != nil {
			t.Fatal(err)
		}
		broadcast, err := f.Broadcast(0)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(Line(empty, r, took, broadcast))
		if r.Sessions != n {
			t.Fatalf("the hub has %d sessions, want %d", r.Sessions, n)
		}
		if each := (r.Memory - empty.Memory) / uint64(n); n >= 100 && each > mostMemory { // of few, the service itself is the most
			t.Errorf("%d sessions: each takes %d bytes, want at most %d", n, each, mostMemory)
		}
		if each := float64(r.Goroutines-empty.Goroutines) / float64(n); each > mostGoroutines {
			t.Errorf("%d sessions: each has %.1f goroutines, want at most %v", n, each, mostGoroutines)
		}
		if span < interval {
			continue // no heartbeat interval: it is the time after so many have come
		}
		if each := r.Traffic / float64(n); each > mostHeartbeat {
			t.Errorf("%d sessions: the heartbeats of each are %.0f bytes a second, want at most %v", n, each, mostHeartbeat)
		}
		if most := mostCPU * max(1, float64(n)/2000); r.CPU > most {
			t.Errorf("%d sessions: the hub takes %.2f %% of a core, want at most %.2f", n, 100*r.CPU, 100*most)
		}
		if even := r.Traffic / 10; n >= 250 && float64(r.Worst) > 6*even {
			t.Errorf("%d sessions: %d bytes came within 100 ms, which are %.0f on average: a storm", n, r.Worst, even)
		}
	}
}

// TestLineFits: the columns are below their names.
func TestLineFits(t *testing.T) {
	if a, b := len(Heading), len(Line(Rest{}, Rest{Sessions: 2000, Memory: 40 << 20}, time.Second, time.Second)); a != b {
		t.Errorf("the heading has %d columns and a line %d: %s", a, b, Heading)
	}
}
