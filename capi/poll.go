package main

// #include "shim_internal.h"
import "C"

import (
	"sync"
	"sync/atomic"
	"syscall"

	crust "github.com/libcrust/libcrust/core"
)

// waiter is how programs in poll mode wait: threads inside crust_poll, in wait.c,
// or programs outside on the descriptor. It is made before the service, whose
// OnEvents is notify.
type waiter struct {
	freed atomic.Bool // crust_service_free has begun
	wake  atomic.Bool // crust_wakeup, for one poll

	mu      sync.RWMutex // held for writing by close only, for reading by all who use what follows
	closed  bool
	threads *C.crust__waiter_head
	signal  signal
}

func newWaiter() (*waiter, error) {
	threads := C.crust__waiter_new()
	if threads == nil {
		return nil, failure("crust_service_new", crust.CodeNoMemory, "no memory for a service")
	}
	return &waiter{threads: threads}, nil
}

// close gives the descriptor and the memory back; threads that still wait there
// hold it until they have left. Calls that come later find nothing.
func (w *waiter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	w.signal.close()
	C.crust__waiter_drop(w.threads)
}

// enter counts a thread in. What it finds out afterwards cannot be missed: a
// change after it changes the returned number. It returns nil after close.
func (w *waiter) enter() (threads *C.crust__waiter_head, seen uint32) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return nil, 0
	}
	atomic.AddInt32((*int32)(&w.threads.refs), 1)
	return w.threads, atomic.LoadUint32((*uint32)(&w.threads.seq))
}

// leave takes back enter for a thread that does not wait.
func leave(threads *C.crust__waiter_head) { C.crust__waiter_drop(threads) }

// others reports whether a thread waits or is about to, beside self of them. mu
// is held.
func (w *waiter) others(self int32) bool { return atomic.LoadInt32((*int32)(&w.threads.refs)) > 1+self }

// notify says that there is reason to look. It never blocks.
func (w *waiter) notify() {
	w.mu.RLock()
	defer w.mu.RUnlock()
	w.tell()
}

// tell is notify with mu held.
func (w *waiter) tell() {
	if w.closed {
		return
	}
	if w.others(0) {
		C.crust__waiter_wake(w.threads)
	}
	w.signal.set()
}

// wakeup makes one poll return.
func (w *waiter) wakeup() {
	w.wake.Store(true)
	w.notify()
}

// settle is called, with the source's lock held, after events were looked for.
// It leaves the descriptor readable exactly when something waits, and wakes the
// other threads when there is more for them. pending is asked again after
// clearing, because what came in between would otherwise go unseen. self is 1 when
// the calling thread is one of those counted in, else 0.
func (w *waiter) settle(pending func() bool, self int32) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed || !w.others(self) && !w.signal.opened.Load() {
		return
	}
	if pending() {
		w.tell()
		return
	}
	w.signal.clear()
	if pending() {
		w.signal.set()
	}
}

// descriptor returns the descriptor, made when it is first asked for, readable
// when something is pending.
func (w *waiter) descriptor(pending func() bool) (C.int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return -1, errFreed
	}
	if !w.signal.opened.Load() {
		if err := w.signal.open(); err != nil {
			return -1, err
		}
		if pending() {
			w.signal.set()
		}
	}
	return w.signal.fds[0], nil
}

// signal is the descriptor of crust_service_fd. A program that never asks for it
// pays nothing. The waiter's mu is held around all calls.
//
// Raising and clearing may run at once, so that the program's thread, which the
// write wakes, never waits for the thread that is still inside the write. raised
// is set before the write and taken back only after a read that found it: so at
// most one write is under way, and raised means readable now or in a moment.
type signal struct {
	opened atomic.Bool // the descriptor exists
	raised atomic.Bool
	fds    [2]C.int
}

func (s *signal) open() error {
	switch number := C.crust__signal_open(&s.fds[0]); {
	case number < 0:
		return failure("crust_service_fd", crust.CodeUnsupported, "this system has no descriptor to wait on; use crust_poll in a thread")
	case number > 0:
		cause := syscall.Errno(number)
		return &crust.Error{Op: "crust_service_fd", Code: crust.CodeOf(cause), Err: cause}
	}
	s.opened.Store(true)
	return nil
}

func (s *signal) set() {
	if s.opened.Load() && s.raised.CompareAndSwap(false, true) {
		C.crust__signal_set(&s.fds[0])
	}
}

// clear is called by one goroutine at a time.
func (s *signal) clear() {
	if s.raised.Load() && C.crust__signal_clear(&s.fds[0]) != 0 {
		s.raised.Store(false)
	}
}

func (s *signal) close() {
	if s.opened.Swap(false) {
		C.crust__signal_close(&s.fds[0])
	}
}

// poll takes a batch, or a wakeup, without waiting. self is 1 when the thread is
// counted in as waiting, else 0.
func (s *service) poll(limit int, self int32) (b *C.crust_batch, n int, woken bool, err error) {
	if s.wait.freed.Load() {
		return nil, 0, false, errFreed
	}
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	if s.wait.wake.CompareAndSwap(true, false) {
		s.wait.settle(s.pending, self)
		return nil, 0, true, nil
	}
	if s.events.empty() {
		batch, err := s.core.TryNextBatch(fetchLimit(limit))
		if err != nil {
			s.wait.settle(s.pending, self)
			return nil, 0, false, err
		}
		s.events.refill(batch)
	}
	b, n, stopped, err := s.events.pack(limit)
	if stopped {
		s.wait.notify() // the others find CLOSED
	}
	s.wait.settle(s.pending, self)
	return b, n, false, err
}

// pollOrEnter is poll, but counts the thread in when there was nothing. It is
// then to wait in C, where it leaves, until the number there is not seen any more.
func (s *service) pollOrEnter(limit int) (b *C.crust_batch, n int, threads *C.crust__waiter_head, seen uint32, err error) {
	b, n, woken, err := s.poll(limit, 0)
	if n > 0 || woken || err != nil {
		return b, n, nil, 0, err
	}
	entered, seen := s.wait.enter()
	if entered == nil {
		return nil, 0, nil, 0, errFreed
	}
	defer func() {
		if threads == nil {
			leave(entered)
		}
	}()
	b, n, woken, err = s.poll(limit, 1)
	if n == 0 && !woken && err == nil {
		threads = entered
	}
	return b, n, threads, seen, err
}

// pending reports whether something waits. The source's lock is held.
func (s *service) pending() bool {
	return s.wait.wake.Load() || !s.events.empty() || s.core.EventsPending()
}

//export goCrustServiceFD
func goCrustServiceFD(h C.uint64_t, out *C.intptr_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := pollMode("crust_service_fd", h)
	if err != nil {
		return result(why, err)
	}
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	fd, err := s.wait.descriptor(s.pending)
	if err != nil {
		return result(why, err)
	}
	*out = C.intptr_t(fd)
	return C.CRUST_OK
}

// goCrustPoll takes a batch. With wait, and when there is none, it gives back a
// waiter that the calling thread waits on before it calls again.
//
//export goCrustPoll
func goCrustPoll(h C.uint64_t, wait C.int, maxEvents C.uint32_t, out **C.crust_batch, waiter **C.crust__waiter_head, seen *C.uint32_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := pollMode("crust_poll", h)
	if err != nil {
		return result(why, err)
	}
	limit := int(min(maxEvents, maxBatchEvents))
	if wait == 0 {
		batch, n, _, err := s.poll(limit, 0)
		return s.give(batch, n, err, out, why)
	}
	batch, n, threads, change, err := s.pollOrEnter(limit)
	*seen, *waiter = C.uint32_t(change), threads
	return s.give(batch, n, err, out, why)
}

// give hands what poll found to the program.
func (s *service) give(batch *C.crust_batch, n int, err error, out **C.crust_batch, why *C.char) C.int32_t {
	if err != nil {
		return result(why, err)
	}
	*out = batch
	return C.int32_t(n)
}

//export goCrustWakeup
func goCrustWakeup(h C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := pollMode("crust_wakeup", h)
	if err != nil {
		return result(why, err)
	}
	s.wait.wakeup()
	return C.CRUST_OK
}

// pollMode returns the service behind a handle unless it is in callback mode.
func pollMode(op string, h C.uint64_t) (*service, error) {
	s, err := anyState(op, h)
	if err != nil {
		return nil, err
	}
	if s.dispatch != nil {
		return nil, failure(op, crust.CodeState, "the service is in callback mode")
	}
	return s, nil
}
