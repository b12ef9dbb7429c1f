package main

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

const waitTime = 30 * time.Second

// start makes a service in poll mode on loopback.
func start(t *testing.T) *service {
	t.Helper()
	c := new(config)
	ep, err := crust.ParseEndpoint("tcp://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.cfg.Listen = []crust.Endpoint{ep}
	c.cfg.NetworkName = t.Name()
	var handle uint64
	if err := newService(c, nil, &handle); err != nil {
		t.Fatal(err)
	}
	s := services.get(handle)
	if s == nil {
		t.Fatalf("handle %#x names nothing", handle)
	}
	t.Cleanup(func() { _ = s.free() }) // an error when the test freed it
	return s
}

// await polls one event at a time until one of a type comes.
func await(t *testing.T, s *service, want crust.EventType) {
	t.Helper()
	for {
		b, n, err := pollOne(s)
		if err != nil || n != 1 {
			t.Fatalf("no %v event: %d, %v", want, n, err)
		}
		got := crust.EventType((*event)(eventsOf(b)).kind)
		freeBatch(b)
		if got == want {
			return
		}
	}
}

// pollOne takes one event within waitTime.
func pollOne(s *service) (b batchPointer, n int, err error) {
	for deadline := time.Now().Add(waitTime); ; runtime.Gosched() {
		b, n, _, err = s.poll(1, 0)
		if n > 0 || err != nil || time.Now().After(deadline) {
			return b, n, err
		}
	}
}

func connected(t *testing.T) (a, b *service) {
	t.Helper()
	a, b = start(t), start(t)
	await(t, a, crust.EventListenerStarted)
	if err := b.core.ConnectEndpoint(crust.Contact{Endpoint: a.core.Listeners()[0], Peer: a.id}, 1); err != nil {
		t.Fatal(err)
	}
	await(t, b, crust.EventConnected)
	await(t, a, crust.EventConnected)
	return a, b
}

// Several goroutines poll with small limits, others wake them and look at the
// descriptor; every message comes to exactly one, and freeing ends them all.
func TestPollersShareEverything(t *testing.T) {
	const messages = 20000
	a, b := connected(t)
	var got atomic.Int64
	all := make(chan struct{})
	var group, disturber sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for {
				batch, n, threads, _, err := a.pollOrEnter(1 + i*5)
				if threads != nil {
					leave(threads) // what the C side does after waiting
				}
				if err != nil {
					if crust.CodeOf(err) != crust.CodeClosed {
						t.Error(err)
					}
					return
				}
				if n == 0 {
					runtime.Gosched() // a wakeup, or nothing yet
					continue
				}
				freeBatch(batch)
				if got.Add(int64(n)) == messages {
					close(all)
				}
			}
		})
	}
	disturber.Go(func() {
		for {
			select {
			case <-all:
				return
			default:
			}
			a.wait.wakeup()
			if _, err := a.wait.descriptor(func() bool { return true }); err != nil {
				t.Error(err)
			}
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	for range messages {
		if err := b.core.SendWait(ctx, a.id, []byte("shared"), 1); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-all:
	case <-ctx.Done():
		t.Fatalf("%d of %d messages came", got.Load(), messages)
	}
	disturber.Wait()
	if err := a.free(); err != nil {
		t.Error(err)
	}
	group.Wait()
}

func TestFreeIsForOneCaller(t *testing.T) {
	s := start(t)
	var freed atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			switch err := s.free(); {
			case err == nil:
				freed.Add(1)
			case !errors.Is(err, crust.CodeBadHandle):
				t.Error(err)
			}
		})
	}
	group.Wait()
	if freed.Load() != 1 {
		t.Errorf("%d calls freed the service", freed.Load())
	}
	if services.get(s.handle) != nil {
		t.Error("the handle still names it")
	}
}

func TestPoisonClosesTheService(t *testing.T) {
	a, b := connected(t)
	a.poison("fault of a test")
	await(t, a, crust.EventStopped)
	await(t, b, crust.EventLost)
	if _, err := soundHandle("test", a.handle); !errors.Is(err, crust.CodePanicked) {
		t.Errorf("a poisoned service gives %v", err)
	}
	if err := a.free(); err != nil {
		t.Error(err)
	}
}
