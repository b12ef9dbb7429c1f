package main

// #include "shim_internal.h"
import "C"

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// service is what a crust_service names.
type service struct {
	handle   uint64
	core     *crust.Service
	id       crust.PeerID
	key      *identity.Key
	events   source
	wait     *waiter     // poll mode
	dispatch *dispatcher // callback mode, else nil

	gate *gate // nil: there is none

	freeing atomic.Bool
	fault   atomic.Pointer[string] // what panicked; the service closes then
}

var services = table[service]{kind: kindService, what: "crust_service_new"}

var errFreed = &crust.Error{Op: "crust_poll", Code: crust.CodeClosed, Err: errors.New("the service was freed")}

// faultyCloseTimeout bounds how long freeing a service waits after a fault inside
// the library, which may have left a lock behind.
const faultyCloseTimeout = 10 * time.Second

// anyState returns the service behind a handle, for calls that make sense at the
// end of its life too.
func anyState(op string, handle C.uint64_t) (*service, error) {
	if s := services.get(uint64(handle)); s != nil {
		return s, nil
	}
	return nil, &crust.Error{Op: op, Code: crust.CodeBadHandle, Err: errBadHandle}
}

// sound returns the service behind a handle unless a fault has closed it.
func sound(op string, handle C.uint64_t) (*service, error) { return soundHandle(op, uint64(handle)) }

func soundHandle(op string, handle uint64) (*service, error) {
	s, err := anyState(op, C.uint64_t(handle))
	if err != nil {
		return nil, err
	}
	if text := s.fault.Load(); text != nil {
		return nil, failure(op, crust.CodePanicked, "the service was closed after a %s", *text)
	}
	return s, nil
}

// poison closes the service after a fault. It returns at once, because the fault
// may have left a lock behind that Stop waits for.
func (s *service) poison(text string) {
	if s.fault.CompareAndSwap(nil, &text) {
		go s.stopGuarded()
	}
}

// stopGuarded runs for poison and ends with Stop; what it cannot close, free
// gives up after faultyCloseTimeout.
func (s *service) stopGuarded() {
	defer func() { _ = recover() }()
	s.core.Stop()
}

// newService makes a service in poll mode, or in callback mode when deliver is
// not nil, and writes its handle to out before the first callback can run.
func newService(c *config, deliver *callbacks, out *uint64) error {
	cfg, err := c.forService()
	if err != nil {
		return err
	}
	s := &service{key: cfg.Identity, id: cfg.Identity.ID(), gate: c.heldGate()}
	if s.gate != nil {
		cfg.Gate = s.gate.ask
	}
	if s.wait, err = newWaiter(); err != nil {
		s.gate.drop()
		s.key.Zero()
		return err
	}
	if deliver == nil {
		cfg.OnEvents = s.wait.notify
	}
	if s.core, err = crust.New(cfg); err == nil {
		if s.handle, err = services.add(s); err != nil {
			_ = s.core.Close()
		}
	}
	if err != nil {
		s.wait.close()
		s.gate.drop()
		s.key.Zero()
		return err
	}
	*out = s.handle
	if deliver != nil {
		s.dispatch = newDispatcher(s, *deliver)
		s.dispatch.start()
	}
	return nil
}

// free ends the service: pollers return, sessions and goroutines end, the last
// callback and on_release have returned. Then the handle is stale.
func (s *service) free() error {
	if !s.freeing.CompareAndSwap(false, true) {
		return failure("crust_service_free", crust.CodeBadHandle, "the service is being freed by another call")
	}
	s.wait.freed.Store(true)
	s.wait.notify()
	closed := make(chan struct{})
	go s.closeGuarded(closed)
	if err := s.await(closed); err != nil {
		services.remove(s.handle)
		return err
	}
	services.remove(s.handle)
	s.wait.close()
	s.events.release()
	s.key.Zero()
	return nil
}

// closeGuarded runs for free and ends when core has closed and the dispatcher,
// if there is one, has called on_release.
func (s *service) closeGuarded(closed chan struct{}) {
	defer func() {
		if fault := recover(); fault != nil {
			text := describeFault(fault)
			s.fault.CompareAndSwap(nil, &text)
			return
		}
		close(closed)
	}()
	_ = s.core.Close() // it reports nothing that could still be acted on
	s.gate.drop()
	if s.dispatch != nil {
		<-s.dispatch.done
	}
}

// await waits for closed: for ever in a sound service, for faultyCloseTimeout
// once there was a fault.
func (s *service) await(closed chan struct{}) error {
	tick := time.NewTicker(faultyCloseTimeout / 10)
	defer tick.Stop()
	for left := 10; ; {
		select {
		case <-closed:
			return nil
		case <-tick.C:
		}
		text := s.fault.Load()
		if text == nil {
			continue
		}
		if left--; left == 0 {
			return failure("crust_service_free", crust.CodePanicked, "the service does not close after a %s", *text)
		}
	}
}

// callbacks is a crust_callbacks, read once.
type callbacks struct {
	onEvents  C.crust_events_fn
	onRelease C.crust_release_fn
	user      unsafe.Pointer // the program's, never followed
}

//export goCrustServiceNew
func goCrustServiceNew(p C.uintptr_t, cb *C.crust_callbacks, out *C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(0, why, &rc)
	c := new(config)
	if p != 0 {
		var err error
		if c, err = configAt("crust_service_new", p); err != nil {
			return result(why, err)
		}
	}
	var deliver *callbacks
	if cb != nil {
		deliver = &callbacks{onEvents: cb.on_events, onRelease: cb.on_release, user: cb.user}
	}
	return result(why, newService(c, deliver, (*uint64)(out)))
}

//export goCrustServiceClose
func goCrustServiceClose(h C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := anyState("crust_service_close", h)
	if err != nil {
		return result(why, err)
	}
	s.core.Stop()
	return C.CRUST_OK
}

//export goCrustServiceFree
func goCrustServiceFree(h C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := anyState("crust_service_free", h)
	if err != nil {
		return result(why, err)
	}
	return result(why, s.free())
}

//export goCrustServiceID
func goCrustServiceID(h C.uint64_t, out *C.crust_peer_id, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	s, err := anyState("crust_service_id", h)
	if err != nil {
		return result(why, err)
	}
	*peerID(out) = s.id
	return C.CRUST_OK
}

// peerID looks at a peer id of C as one of Go; both are 32 bytes without padding.
func peerID(p *C.crust_peer_id) *crust.PeerID { return (*crust.PeerID)(unsafe.Pointer(p)) }

// borrow looks at memory of C as a slice, which must not outlive the call. Of no bytes it is
// nil: their pointer may be any number, as Rust's is 1, which Go's runtime takes for a fault
// where it finds it on a stack.
func borrow(p unsafe.Pointer, n C.size_t) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(p), int(n))
}

// own copies memory of C, which the program may change meanwhile. What is longer than all
// that core reads is borrowed: core refuses it for its length, and does not look into it.
func own(p unsafe.Pointer, n C.size_t) []byte {
	if n > crust.MaxConfigJSON {
		return borrow(p, n)
	}
	return slices.Clone(borrow(p, n))
}
