package main

// #include "shim_internal.h"
import "C"

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// waiter is how programs in poll mode wait: inside crust_poll, or outside on the
// descriptor.
//
// ready holds at most one token. Core's OnEvents puts it there when the queue
// turns from empty to not empty; whoever takes only a part of what waits puts it
// back for the others.
type waiter struct {
	ready   chan struct{}
	wake    chan struct{} // crust_wakeup, for one poll
	stopped chan struct{} // closed when STOPPED has been taken
	freed   chan struct{} // closed when crust_service_free begins
	stop    sync.Once
	waiting atomic.Int32 // polls that are about to wait or do
	signal  signal
}

func (w *waiter) init() {
	w.ready = make(chan struct{}, 1)
	w.wake = make(chan struct{}, 1)
	w.stopped = make(chan struct{})
	w.freed = make(chan struct{})
}

// notify says that events wait. It never blocks.
func (w *waiter) notify() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
	w.signal.set()
}

// wakeup makes one poll return.
func (w *waiter) wakeup() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
	w.signal.set()
}

// ended says that STOPPED has been taken, so that every poll returns.
func (w *waiter) ended() { w.stop.Do(func() { close(w.stopped) }) }

// settle is called, with the source's lock held, after events were looked for.
// It leaves the descriptor readable exactly when something waits, and passes the
// token on when there is more for others. pending is asked again after clearing,
// because what came in between would otherwise go unseen.
func (w *waiter) settle(pending func() bool) {
	if w.waiting.Load() == 0 && !w.signal.opened.Load() {
		return
	}
	if pending() {
		w.notify()
		return
	}
	if len(w.wake) > 0 {
		return
	}
	w.signal.clear()
	if pending() || len(w.wake) > 0 {
		w.signal.set()
	}
}

// signal is the descriptor of crust_service_fd, made when it is first asked for.
// A program that never asks pays nothing.
type signal struct {
	opened atomic.Bool // the descriptor exists
	raised atomic.Bool // and is readable

	mu     sync.Mutex // guards the descriptor and changes of all here
	fds    [2]C.int
	closed bool
}

func (s *signal) set() {
	if !s.opened.Load() || s.raised.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened.Load() && !s.closed && !s.raised.Load() {
		C.crust__signal_set(&s.fds[0])
		s.raised.Store(true)
	}
}

func (s *signal) clear() {
	if !s.raised.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.raised.Load() {
		C.crust__signal_clear(&s.fds[0])
		s.raised.Store(false)
	}
}

// descriptor returns the descriptor and whether this call made it.
func (s *signal) descriptor() (fd C.int, made bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return -1, false, errFreed
	}
	if s.opened.Load() {
		return s.fds[0], false, nil
	}
	if number := C.crust__signal_open(&s.fds[0]); number != 0 {
		if number < 0 {
			return -1, false, failure("crust_service_fd", crust.CodeUnsupported, "this system has no descriptor to wait on; use crust_poll in a thread")
		}
		cause := syscall.Errno(number)
		return -1, false, &crust.Error{Op: "crust_service_fd", Code: crust.CodeOf(cause), Err: cause}
	}
	s.opened.Store(true)
	return s.fds[0], true, nil
}

func (s *signal) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened.Load() && !s.closed {
		C.crust__signal_close(&s.fds[0])
	}
	s.closed = true
}

// poll takes a batch, waiting for timeout; negative means for ever.
func (s *service) poll(timeout time.Duration, limit int) (*C.crust_batch, int, error) {
	select {
	case <-s.wait.freed:
		return nil, 0, errFreed
	case <-s.wait.wake:
		s.events.mu.Lock()
		s.wait.settle(s.pending)
		s.events.mu.Unlock()
		return nil, 0, nil
	default:
	}
	batch, n, err := s.take(limit)
	if n > 0 || err != nil || timeout == 0 {
		return batch, n, err
	}
	s.wait.waiting.Add(1)
	defer s.wait.waiting.Add(-1)
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		if batch, n, err = s.take(limit); n > 0 || err != nil {
			return batch, n, err
		}
		select {
		case <-s.wait.ready:
		case <-s.wait.stopped:
		case <-s.wait.freed:
			return nil, 0, errFreed
		case <-expired:
			return nil, 0, nil
		case <-s.wait.wake:
			s.events.mu.Lock()
			s.wait.settle(s.pending)
			s.events.mu.Unlock()
			return nil, 0, nil
		}
	}
}

// take packs what waits, without waiting for it.
func (s *service) take(limit int) (*C.crust_batch, int, error) {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	if s.events.empty() {
		batch, err := s.core.TryNextBatch(fetchLimit(limit))
		if err != nil {
			if crust.CodeOf(err) == crust.CodeClosed {
				s.wait.ended()
				s.wait.signal.clear()
			}
			return nil, 0, err
		}
		s.events.refill(batch)
	}
	batch, n, stopped, err := s.events.pack(limit)
	if stopped {
		s.wait.ended()
	}
	s.wait.settle(s.pending)
	return batch, n, err
}

// pending reports whether an event waits. The source's lock is held.
func (s *service) pending() bool { return !s.events.empty() || s.core.EventsPending() }

//export goCrustServiceFD
func goCrustServiceFD(h C.uint64_t, out *C.intptr_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := pollMode("crust_service_fd", h)
	if err != nil {
		return result(why, err)
	}
	fd, made, err := s.wait.signal.descriptor()
	if err != nil {
		return result(why, err)
	}
	*out = C.intptr_t(fd)
	if made {
		s.events.mu.Lock()
		defer s.events.mu.Unlock()
		if s.pending() || len(s.wait.wake) > 0 {
			s.wait.signal.set()
		}
	}
	return C.CRUST_OK
}

//export goCrustPoll
func goCrustPoll(h C.uint64_t, timeoutMS C.int32_t, maxEvents C.uint32_t, out **C.crust_batch, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := pollMode("crust_poll", h)
	if err != nil {
		return result(why, err)
	}
	timeout := time.Duration(timeoutMS) * time.Millisecond
	batch, n, err := s.poll(timeout, int(min(maxEvents, maxBatchEvents)))
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
