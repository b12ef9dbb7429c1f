package main

import (
	"sync"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// receipts are the messages with a receipt whose last word has not come. The
// service bounds them.
type receipts struct {
	mu   sync.Mutex
	open map[uint64]*receipt // guarded by mu; by token
}

// receipt is one such message. Its fields are guarded by receipts.mu.
type receipt struct {
	began time.Time
	size  int
	told  bool             // that it was accepted
	early *deliveredReport // came before that was told
}

// begin notes a message that is about to be handed over.
func (r *receipts) begin(j job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = make(map[uint64]*receipt)
	}
	r.open[j.token] = &receipt{began: j.began, size: len(j.data)}
}

// refused forgets a message that was not accepted.
func (r *receipts) refused(token uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, token)
}

// accepted notes that "sent" was told, and returns a last word that has come
// before, or nil.
func (r *receipts) accepted(token uint64) report {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.open[token]
	if found == nil {
		return nil
	}
	found.told = true
	if found.early == nil {
		return nil
	}
	delete(r.open, token)
	return found.early
}

// delivered returns what to tell of the last word on a message, or nil when it
// has to wait for "sent".
func (r *receipts) delivered(e *crust.Event) report {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := r.open[e.Token]
	if found == nil {
		return nil
	}
	word := &deliveredReport{Peer: e.Peer, Len: found.size, Took: milliseconds(time.Since(found.began)), Code: e.Code().String(), Error: why(e)}
	if !found.told {
		found.early = word
		return nil
	}
	delete(r.open, e.Token)
	return word
}
