package crust_test

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestLentSocket: a program that reads its service's UDP socket by itself, and then is
// busy with each message, keeps nobody waiting for more than some milliseconds: what
// comes from another peer over the same socket, acknowledgements too, is received, and
// heartbeats are answered. All arrives in order.
func TestLentSocket(t *testing.T) {
	procs := runtime.GOMAXPROCS(2) // a link that begins on a single processor is not read by the program
	defer runtime.GOMAXPROCS(procs)
	synctest.Test(t, func(t *testing.T) {
		cfg := over(crust.Config{Heartbeat: time.Second, LostAfter: 5 * time.Second}, "0.0.0.0", "utp")
		internet := simnet.New(1)
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), cfg))
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), cfg))
		c := newNode(t, crust.On(internet.Host("10.0.0.3"), cfg))
		defer b.Close()
		defer c.Close()
		defer a.Close()
		linkOver(t, a, b, crust.UTP)
		linkOver(t, c, b, crust.UTP)
		time.Sleep(10 * time.Second)
		runtime.GOMAXPROCS(procs)
		late, token := 0, uint64(0)
		for i := range uint64(300) {
			go func() {
				time.Sleep(time.Millisecond)
				if err := a.Send(b.ID(), filled(20, i), 1); err != nil {
					t.Error(err)
				}
			}()
			if e := b.next(crust.EventMessage); e.Peer != a.ID() || !bytes.Equal(e.Data, filled(20, i)) {
				t.Fatalf("message %d is wrong", i)
			}
			// The program is busy: another goroutine sends to the other peer meanwhile.
			token++
			if err := b.SendReceipt(c.ID(), filled(20, i), 1, token); err != nil {
				t.Fatal(err)
			}
			if e := c.next(crust.EventMessage); !bytes.Equal(e.Data, filled(20, i)) {
				t.Fatalf("message %d to the other peer is wrong", i)
			}
			began := time.Now()
			for synctest.Wait(); !b.EventsPending(); synctest.Wait() {
				if time.Since(began) > 10*time.Millisecond {
					t.Fatal("no receipt within 10 ms while the program is busy")
				}
				time.Sleep(time.Millisecond / 4)
			}
			if time.Since(began) > 0 {
				late++
			}
			if i%100 == 99 {
				if err := c.Send(b.ID(), filled(20, i), 1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
			}
			if e := b.next(crust.EventDelivered); e.Token != token || e.Err() != nil {
				t.Fatalf("receipt %d, %v instead of %d", e.Token, e.Err(), token)
			}
			if i%100 == 99 {
				if e := b.next(crust.EventMessage); e.Peer != c.ID() || !bytes.Equal(e.Data, filled(20, i)) {
					t.Fatalf("message %d of the other peer is wrong", i)
				}
			}
		}
		if late == 0 {
			t.Error("the program never had the socket")
		}
		if a.EventsPending() || b.EventsPending() || c.EventsPending() {
			t.Error("somebody was lost")
		}
	})
}

// TestLentSocketClose: Close returns at any moment while the program reads the socket
// by itself, or has just stopped to do so.
func TestLentSocketClose(t *testing.T) {
	for i := range 70 {
		lentUTP(t, crust.Config{}, func(t *testing.T, a *node, b *consumer) {
			for k := range uint64(i) {
				lone(t, a, b, 20, k)
			}
			began := time.Now()
			if err := b.n.Close(); err != nil || time.Since(began) > 10*time.Millisecond {
				t.Fatalf("closed after %v, %v", time.Since(began), err)
			}
			err := <-b.done
			b.done <- err // it is read again in the end
			if !errors.Is(err, crust.CodeClosed) {
				t.Fatal(err)
			}
		})
	}
}

// TestLentSocketShared: over real sockets, a program that reads its service's socket by
// itself for answers of one peer, while it streams to another one over the same socket
// and a third comes and goes, loses nothing and keeps the order.
func TestLentSocketShared(t *testing.T) {
	const trips, large = 3000, 100
	cfg := over(crust.Config{}, "127.0.0.1", "utp")
	a, b, c, d := newNode(t, cfg), newNode(t, cfg), newNode(t, cfg), newNode(t, cfg)
	for _, n := range []*node{a, c} {
		linkOver(t, n, b, crust.UTP)
	}
	go echo(t.Context(), a)
	var running sync.WaitGroup
	running.Go(func() {
		for i := range uint64(large) {
			if err := b.SendWait(t.Context(), c.ID(), filled(60<<10, i), 1); err != nil {
				t.Error(err)
			}
		}
	})
	running.Go(func() {
		for i := range uint64(large) {
			if e := c.next(crust.EventMessage); !bytes.Equal(e.Data, filled(60<<10, i)) {
				t.Errorf("large message %d is wrong", i)
			}
		}
	})
	running.Go(func() {
		for range 5 { // its dials are answered, and die again before the program is told
			if err := d.ConnectEndpoint(crust.Contact{Endpoint: b.Listeners()[0], Peer: a.ID()}, 1); err != nil {
				t.Error(err)
			}
			d.next(crust.EventConnectFailed)
		}
	})
	for range trips {
		roundTrip(t, b, a.ID())
	}
	running.Wait()
}
