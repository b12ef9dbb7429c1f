package crust_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestHeldBatches: batches that are held, taken in any size and released in any
// order keep their contents, which the program may overwrite; the bytes are
// accounted for, and iterators that are left early lose nothing.
func TestHeldBatches(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{EventQueue: 300_000})
	link(t, a, b)
	const count = 20_000
	go func() {
		for i := range uint64(count) {
			if err := a.SendWait(t.Context(), b.ID(), filled(8+int(i%90), i), 1); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	type held struct {
		batch crust.Batch
		first uint64
	}
	var hold []held
	bytesHeld := 0
	r := rand.New(rand.NewPCG(3, 4))
	release := func(k int) {
		for i, e := range hold[k].batch.Events {
			n := hold[k].first + uint64(i)
			if !bytes.Equal(e.Data, filled(8+int(n%90), n)) {
				t.Fatalf("message %d has changed while its batch was held", n)
			}
			clear(e.Data)
			bytesHeld -= len(e.Data)
		}
		clear(hold[k].batch.Events)
		hold[k].batch.Release()
		hold[k].batch.Release() // harmless
		hold = append(hold[:k], hold[k+1:]...)
	}
	for next := uint64(0); next < count; {
		if r.IntN(10) == 0 { // by the iterator, leaving early
			for len(hold) > 0 { // it may wait, and what is held may be all that the queue allows
				release(r.IntN(len(hold)))
			}
			for e := range b.Events(t.Context()) {
				if e.Type != crust.EventMessage || !bytes.Equal(e.Data, filled(8+int(next%90), next)) {
					t.Fatalf("the iterator got %v where message %d was due", e.Type, next)
				}
				if next++; r.IntN(5) == 0 || next == count {
					break
				}
			}
			continue
		}
		batch, err := b.TryNextBatch(r.IntN(300))
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Events) > 0 {
			hold = append(hold, held{batch, next})
			for _, e := range batch.Events {
				bytesHeld += len(e.Data)
			}
			next += uint64(len(batch.Events))
		}
		for len(hold) > 0 && (len(batch.Events) == 0 || bytesHeld > 50_000 || r.IntN(3) == 0) {
			release(r.IntN(len(hold)))
		}
	}
	for len(hold) > 0 {
		release(0)
	}
	if st := b.Stats(); st.EventBytesQueued != 0 || st.EventsQueued != 0 {
		t.Fatalf("in the end: %+v", st)
	}
}

// TestManyReaders: several goroutines read one service's events by every way;
// each event goes to one of them, and all end after the last.
func TestManyReaders(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{EventQueue: 200_000})
	link(t, a, b)
	const count = 20_000
	var mu sync.Mutex
	seen, stopped := make([]bool, count), 0
	see := func(e crust.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Type {
		case crust.EventMessage:
			n := binary.BigEndian.Uint64(e.Data)
			if seen[n] {
				t.Errorf("message %d came twice", n)
			}
			seen[n] = true
		case crust.EventStopped:
			stopped++
		}
	}
	var readers sync.WaitGroup
	for k := range 6 {
		readers.Go(func() {
			for k%2 == 0 {
				batch, err := b.NextBatch(t.Context(), k*50)
				if err != nil {
					if !errors.Is(err, crust.CodeClosed) {
						t.Error(err)
					}
					return
				}
				for _, e := range batch.Events {
					see(e)
				}
				batch.Release()
			}
			for e := range b.Events(t.Context()) {
				see(e)
			}
		})
	}
	for i := range uint64(count) {
		if err := a.SendWait(t.Context(), b.ID(), filled(8+int(i%40), i), 1); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	b.Close()
	readers.Wait()
	for n, came := range seen {
		if !came {
			t.Fatalf("message %d did not come", n)
		}
	}
	if stopped != 1 {
		t.Fatalf("%d times stopped", stopped)
	}
}

// TestStress: services in one process do at random, over the kernel's network,
// all that they can. Every promise about events holds meanwhile; when it is quiet
// both sides of each pair agree.
func TestStress(t *testing.T) {
	const services = 6
	all := make([]*witness, services)
	contacts := make([]crust.Contact, services)
	for i := range all {
		all[i] = newWitness(t, fmt.Sprint("service ", i), crust.Config{
			Listen: []crust.Endpoint{endpointAt("127.0.0.1:0")}, EventQueue: 200_000, SendQueue: crust.MaxMessage,
		})
		contacts[i] = crust.Contact{Endpoint: all[i].Listeners()[0], Peer: all[i].ID()}
	}
	var wg sync.WaitGroup
	end := time.Now().Add(2 * time.Second)
	for i, w := range all {
		for k := range 2 {
			mine := rand.New(rand.NewPCG(uint64(i), uint64(k)))
			wg.Go(func() {
				for time.Now().Before(end) {
					if j := mine.IntN(services); j != i {
						randomCall(w, mine, contacts[j])
					}
				}
			})
		}
	}
	wg.Wait()
	eventually(t, "not quiet", func() string {
		for _, w := range all {
			if n := w.pendingTokens(); n > 0 {
				return fmt.Sprintf("%s waits for %d answers", w.name, n)
			}
			for _, p := range w.Peers() {
				for _, o := range all {
					if q, ok := o.Peer(w.ID()); o.ID() == p.Peer && (!ok || q.ReceivedMessages != p.SentMessages) {
						return fmt.Sprintf("%s has not got all of %s", o.name, w.name)
					}
				}
			}
		}
		return ""
	})
	// Sessions may still end that were told to, and who reads events may be behind.
	eventually(t, "no agreement", func() string { return strings.Join(disagreements(all...), "; ") })
	eventually(t, "messages are missing", func() string {
		for _, w := range all {
			for _, p := range w.Peers() {
				for _, o := range all {
					if q, ok := o.Peer(w.ID()); o.ID() == p.Peer && (!ok || q.ReceivedMessages != p.SentMessages) {
						return fmt.Sprintf("of %s at %s", w.name, o.name)
					}
				}
			}
			if w.EventsPending() {
				return w.name + " has events"
			}
		}
		return ""
	})
	for _, w := range all {
		wg.Go(func() { w.Close() })
	}
	wg.Wait()
	finals, lost := 0, 0
	for _, w := range all {
		<-w.done
		finals, lost = finals+w.finals, lost+w.lost
	}
	if finals < 100 || lost < 20 {
		t.Errorf("%d answers and %d losses prove little", finals, lost)
	}
}
