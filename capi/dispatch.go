package main

// #include "shim_internal.h"
import "C"

import (
	"context"
	"runtime"

	crust "github.com/libcrust/libcrust/core"
)

// dispatcher calls a program's on_events, always from the same thread, and in
// the end its on_release.
//
// Its goroutine starts in start, belongs to the service, and ends by itself
// after STOPPED; free waits on done. It never gives its thread back, so the
// thread ends with it.
type dispatcher struct {
	service *service
	to      callbacks
	done    chan struct{}
}

func newDispatcher(s *service, to callbacks) *dispatcher {
	return &dispatcher{service: s, to: to, done: make(chan struct{})}
}

func (d *dispatcher) start() { go d.run() }

func (d *dispatcher) run() {
	runtime.LockOSThread()
	defer close(d.done)
	if err := d.deliverAll(); err != nil {
		d.deliverStopped(err)
	}
	if d.to.onRelease != nil {
		C.crust__release(d.to.onRelease, d.to.user)
	}
}

// deliverAll delivers until STOPPED is delivered. After a fault the service
// closes, and what its closing brings is still delivered. The error says why
// there was no STOPPED.
func (d *dispatcher) deliverAll() error {
	for faults := 0; ; {
		stopped, err := d.deliverSome()
		switch {
		case stopped:
			return nil
		case err == nil:
			continue
		case crust.CodeOf(err) != crust.CodePanicked:
			d.service.poison(err.Error())
			return err
		}
		if faults++; faults > 1 {
			return err
		}
	}
}

// deliverSome waits for events and delivers what is there.
func (d *dispatcher) deliverSome() (stopped bool, err error) {
	defer d.catch(&stopped, &err)
	batch, err := d.service.core.NextBatch(context.Background(), fetchEvents)
	if err != nil {
		return false, err
	}
	events := &d.service.events // ours alone until done is closed
	events.refill(batch)
	for !events.empty() {
		injectFault(d.service)
		packed, _, last, err := events.pack(0)
		if err != nil {
			return false, err
		}
		C.crust__deliver(d.to.onEvents, d.to.user, C.uint64_t(d.service.handle), packed)
		stopped = stopped || last
	}
	return stopped, nil
}

// catch is deferred by deliverSome. What was fetched and not delivered is lost.
func (d *dispatcher) catch(stopped *bool, err *error) {
	if fault := recover(); fault != nil {
		text := describeFault(fault)
		d.service.poison(text)
		*stopped = false
		*err = failure("deliver", crust.CodePanicked, "%s", text)
	}
}

// deliverStopped delivers a STOPPED of our own in place of core's.
func (d *dispatcher) deliverStopped(why error) {
	code := crust.CodeOf(why)
	text := why.Error()
	if fault := d.service.fault.Load(); fault != nil && code == crust.CodeClosed {
		code, text = crust.CodePanicked, *fault // core's STOPPED was lost in a fault before
	}
	if batch := packStopped(code, text); batch != nil {
		C.crust__deliver(d.to.onEvents, d.to.user, C.uint64_t(d.service.handle), batch)
	}
}
