package crust_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	crust "github.com/libcrust/libcrust/core"
)

// witness reads all events of a service and holds them against the promises:
// connected, messages, lost for each peer; one final event for each token; order
// and no gap within a session and priority; nothing after stopped.
type witness struct {
	*crust.Service
	t    testing.TB
	name string
	done chan struct{} // closed after EventStopped

	onStopped func(error) // told why, if not nil; set before anything is stopped

	mu       sync.Mutex
	sessions map[crust.PeerID]map[uint8]uint64 // last number by priority
	open     map[uint64]bool                   // tokens without final event: true for a bootstrap
	token    uint64
	sent     map[stream]uint64 // numbers used up
	got      map[stream]uint64 // the last that came
	finals   int
	lost     int
	failed   map[crust.Code]int
}

// stream is what keeps its order.
type stream struct {
	peer     crust.PeerID
	priority uint8
}

func newWitness(t testing.TB, name string, cfg crust.Config) *witness {
	t.Helper()
	s, err := crust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{
		Service: s, t: t, name: name, done: make(chan struct{}), sessions: map[crust.PeerID]map[uint8]uint64{},
		open: map[uint64]bool{}, sent: map[stream]uint64{}, got: map[stream]uint64{}, failed: map[crust.Code]int{},
	}
	go w.read()
	return w
}

func (w *witness) errorf(format string, args ...any) {
	w.t.Errorf("%s: %s", w.name, fmt.Sprintf(format, args...))
}

func (w *witness) read() {
	defer close(w.done)
	stopped := false
	for {
		b, err := w.NextBatch(context.Background(), 0)
		if err != nil {
			if !stopped {
				w.errorf("no stopped event: %v", err)
			}
			return
		}
		w.mu.Lock()
		for i := range b.Events {
			if stopped {
				w.errorf("%v after stopped", b.Events[i].Type)
			}
			stopped = b.Events[i].Type == crust.EventStopped
			w.see(&b.Events[i])
		}
		w.mu.Unlock()
		b.Release()
	}
}

// see checks one event. mu is held.
func (w *witness) see(e *crust.Event) {
	last, in := w.sessions[e.Peer]
	switch e.Type {
	case crust.EventConnected:
		if in {
			w.errorf("connected twice to %s", e.Peer.Short())
		}
		w.sessions[e.Peer] = map[uint8]uint64{}
		if e.Token != 0 {
			w.final(e, false)
		}
	case crust.EventLost:
		if !in {
			w.errorf("lost %s without a session", e.Peer.Short())
		}
		delete(w.sessions, e.Peer)
		w.lost++
	case crust.EventMessage:
		if !in || len(e.Data) < 8 {
			w.errorf("%d bytes outside of a session", len(e.Data))
			return
		}
		n := binary.BigEndian.Uint64(e.Data)
		key := stream{e.Peer, e.Priority}
		if before, some := last[e.Priority]; some && n != before+1 || n <= w.got[key] {
			w.errorf("message %d of priority %d after %d, and %d ever", n, e.Priority, before, w.got[key])
		}
		last[e.Priority], w.got[key] = n, n
	case crust.EventWritable, crust.EventMessagesDropped:
		if !in {
			w.errorf("%v outside of a session", e.Type)
		}
	case crust.EventAlreadyConnected:
		if !in {
			w.errorf("already connected to %s without a session", e.Peer.Short())
		}
		w.final(e, false)
	case crust.EventConnectFailed:
		w.failed[e.Code()]++
		w.final(e, false)
	case crust.EventBootstrapped, crust.EventBootstrapFailed:
		w.final(e, true)
	case crust.EventConnectionInfo:
		w.final(e, false)
	case crust.EventStopped:
		if w.onStopped != nil {
			w.onStopped(e.Err())
		}
		for peer := range w.sessions {
			w.errorf("stopped with a session with %s", peer.Short())
		}
		for token := range w.open {
			w.errorf("token %d was never answered", token)
		}
	}
}

// final takes a token's final event. mu is held.
func (w *witness) final(e *crust.Event, bootstrap bool) {
	if kind, open := w.open[e.Token]; !open || kind != bootstrap {
		w.errorf("%v for token %d, which awaits nothing of the kind", e.Type, e.Token)
	}
	delete(w.open, e.Token)
	w.finals++
}

// ask makes an asynchronous call with a new token.
func (w *witness) ask(bootstrap bool, call func(token uint64) error) error {
	w.mu.Lock()
	defer w.mu.Unlock() // the final event waits until the token is in the table
	w.token++
	err := call(w.token)
	if err == nil {
		w.open[w.token] = bootstrap
	}
	return err
}

// send sends the next numbered message of a priority.
func (w *witness) send(peer crust.PeerID, size int, priority uint8) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := stream{peer, priority}
	err := w.Send(peer, filled(max(size, 8), w.sent[key]+1), priority)
	if err == nil {
		w.sent[key]++
	}
	return err
}

// pendingTokens returns how many calls await their final event.
func (w *witness) pendingTokens() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.open)
}

// agree checks, when all is quiet, that both sides see the same sessions and
// that everything sent in them has come.
func agree(t testing.TB, all ...*witness) {
	t.Helper()
	for _, text := range disagreements(all...) {
		t.Error(text)
	}
}

// disagreements says where two do not see the same sessions, and sends messages in those
// that there are.
func disagreements(all ...*witness) (list []string) {
	for _, a := range all {
		for _, b := range all {
			if a == b {
				continue
			}
			_, ab := a.Peer(b.ID())
			_, ba := b.Peer(a.ID())
			a.mu.Lock()
			_, seen := a.sessions[b.ID()]
			a.mu.Unlock()
			if ab != ba || ab != seen {
				list = append(list, fmt.Sprintf("%s has %s: %v, the other way %v, by its events %v", a.name, b.name, ab, ba, seen))
			}
			if !ab {
				continue
			}
			for priority := range uint8(2) {
				if err := a.send(b.ID(), 9, priority); err != nil {
					list = append(list, fmt.Sprintf("%s to %s: %v", a.name, b.name, err))
				}
			}
		}
	}
	return list
}

// delivered checks that what agree sent has come.
func delivered(t testing.TB, all ...*witness) {
	t.Helper()
	for _, a := range all {
		for _, b := range all {
			if _, ok := a.Peer(b.ID()); a == b || !ok {
				continue
			}
			for priority := range uint8(2) {
				a.mu.Lock()
				sent := a.sent[stream{b.ID(), priority}]
				a.mu.Unlock()
				b.mu.Lock()
				got := b.got[stream{a.ID(), priority}]
				b.mu.Unlock()
				if sent != got {
					t.Errorf("%s sent %s message %d of priority %d, the last that came is %d", a.name, b.name, sent, priority, got)
				}
			}
		}
	}
}
