package crust_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestFirstAlready: where there is a session already, what goes with a call goes there, once, and
// waits for a queue that is full.
func TestFirstAlready(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			w.gives(never)
			w.call(7)
			if err := w.a.ConnectPeer(w.b.ID(), 8, []byte("one"), nil, []byte("three")); err != nil {
				t.Fatal(err)
			}
			if e := w.a.next(crust.EventAlreadyConnected); e.Token != 8 {
				t.Errorf("token %d", e.Token)
			}
			for _, want := range []string{"one", "", "three"} {
				if e := w.b.next(crust.EventMessage); string(e.Data) != want {
					t.Errorf("got %q, want %q", e.Data, want)
				}
			}
			var sizes []int
			for _, size := range []int{100_000, 1000} {
				for w.a.Send(w.b.ID(), filled(size, uint64(len(sizes))), 1) == nil {
					sizes = append(sizes, size)
				}
			}
			if err := w.a.ConnectPeer(w.b.ID(), 9, make([]byte, crust.MaxFirstBytes)); err != nil {
				t.Fatal(err)
			}
			full := time.Now()
			for range 2 {
				if e := w.a.next(crust.EventWritable, crust.EventAlreadyConnected); e.Type == crust.EventAlreadyConnected && (e.Token != 9 || time.Since(full) == 0) {
					t.Errorf("token %d after %v", e.Token, time.Since(full))
				}
			}
			for k, size := range sizes {
				if e := w.b.next(crust.EventMessage); string(e.Data) != string(filled(size, uint64(k))) {
					t.Fatalf("message %d is wrong", k)
				}
			}
			if e := w.b.next(crust.EventMessage); len(e.Data) != crust.MaxFirstBytes {
				t.Errorf("%d bytes", len(e.Data))
			}
			w.quiet()
		})
	}
}

// TestFirstTogether: of two calls to one peer each has its messages delivered, in the order of the calls.
func TestFirstTogether(t *testing.T) {
	for seed := range 2 {
		for _, apart := range []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond} {
			inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
				w.gives(never)
				for token := range uint64(3) {
					if err := w.a.ConnectPeer(w.b.ID(), token+1, filled(100, 2*token), filled(100, 2*token+1)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(apart)
				}
				finals := map[uint64]int{}
				for range 3 {
					finals[w.a.next(crust.EventConnected, crust.EventAlreadyConnected).Token]++
				}
				if len(finals) != 3 {
					t.Errorf("final events: %v", finals)
				}
				w.b.next(crust.EventConnected)
				for k := range uint64(6) {
					if e := w.b.pastMoves(crust.EventMessage); string(e.Data) != string(filled(100, k)) {
						t.Fatalf("seed %d, %v: message %d is wrong", seed, apart, k)
					}
				}
				w.quiet()
			})
		}
	}
}

// TestFirstBounds: more than may go with a call is refused, with the bound.
func TestFirstBounds(t *testing.T) {
	inEarlyWorld(t, 0, func(t *testing.T, w *earlyWorld) {
		for what, c := range map[string]struct {
			first [][]byte
			says  string
		}{
			"too many":     {make([][]byte, crust.MaxFirst+1), "no more than 64"},
			"too big":      {[][]byte{make([]byte, crust.MaxFirstBytes+1)}, "no more than 16384"},
			"too big both": {[][]byte{make([]byte, crust.MaxFirstBytes), {1}}, "no more than 16384"},
		} {
			if err := w.a.ConnectPeer(w.b.ID(), 7, c.first...); crust.CodeOf(err) != crust.CodeInvalid || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", what, err)
			}
		}
		w.gives(never)
		most := make([][]byte, crust.MaxFirst)
		for k := range most {
			most[k] = filled(crust.MaxFirstBytes/crust.MaxFirst, uint64(k))
		}
		began := time.Now()
		if err := w.a.ConnectPeer(w.b.ID(), 7, most...); err != nil {
			t.Fatal(err)
		}
		w.b.next(crust.EventConnected)
		for k := range most {
			if e := w.b.next(crust.EventMessage); string(e.Data) != string(most[k]) {
				t.Fatalf("message %d is wrong", k)
			}
		}
		if took := time.Since(began); took != 4*earlyHop {
			t.Errorf("it took %v", took)
		}
	})
}

// TestFirstByRelays: with several relays, all of which have keys, a message that goes with
// the call is there after a round trip, and the caller connected.
func TestFirstByRelays(t *testing.T) {
	for seed := range uint64(8) {
		for relays := 1; relays <= 3; relays++ {
			relayWorld(t, seed, relays, []string{"tcp", "utp"}[seed%2], crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
				time.Sleep(time.Second)
				began := time.Now()
				if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("hello")); err != nil {
					t.Fatal(err)
				}
				w.b.next(crust.EventConnected)
				if e := w.b.next(crust.EventMessage); string(e.Data) != "hello" {
					t.Errorf("got %q", e.Data)
				}
				if took := time.Since(began); took != 4*earlyHop {
					t.Errorf("seed %d, %d relays: there after %v", seed, relays, took)
				}
				if e := w.a.next(crust.EventConnected); e.Token != 7 || e.Took() != 4*earlyHop {
					t.Errorf("seed %d, %d relays: connected after %v", seed, relays, e.Took())
				}
				if err := w.b.Send(w.a.ID(), []byte("hello yourself"), 1); err != nil {
					t.Fatal(err)
				}
				w.a.pastMoves(crust.EventMessage)
				time.Sleep(time.Minute)
				synctest.Wait()
				for _, n := range []*node{w.a, w.b} {
					if st := n.Stats(); st.SessionsTotal != uint64(1+relays) {
						t.Errorf("seed %d, %d relays: %d sessions", seed, relays, st.SessionsTotal)
					}
					for _, e := range n.waiting() {
						if e.Type != crust.EventResumed {
							t.Errorf("seed %d, %d relays: %v in the end", seed, relays, e.Type)
						}
					}
				}
			})
		}
	}
}

// TestFirstBesideDirect: where a direct link comes about meanwhile, what goes with the call is
// there no later than over the relay alone, once and in order.
func TestFirstBesideDirect(t *testing.T) {
	besideDirect(t, func(t *testing.T, w *relayed, way time.Duration) {
		began := time.Now()
		if err := w.a.ConnectPeer(w.b.ID(), 7, firsts(10, 1500)...); err != nil {
			t.Fatal(err)
		}
		w.b.next(crust.EventConnected)
		for k := range uint64(10) {
			if e := w.b.pastMoves(crust.EventMessage); string(e.Data) != string(filled(1500, k)) {
				t.Fatalf("message %d is wrong", k)
			}
		}
		if took := time.Since(began); took > 4*way {
			t.Errorf("there after %v; over the relay alone it takes %v", took, 4*way)
		}
		if e := w.a.next(crust.EventConnected); e.Token != 7 || e.Took() > 4*way {
			t.Errorf("connected after %v", e.Took())
		}
		w.await(false, time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, n := range []*node{w.a, w.b} {
			if st := n.Stats(); st.SessionsTotal != 2 {
				t.Errorf("%d sessions, the one with the relay and another one are due", st.SessionsTotal)
			}
			for _, e := range n.waiting() {
				if e.Type == crust.EventMessage || e.Type == crust.EventLost {
					t.Errorf("%v in the end", e.Type)
				}
			}
		}
	})
}
