package crust_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// consumer is a goroutine of a program that takes events one batch after the
// other, and shows each to the test.
type consumer struct {
	n    *node
	stop context.CancelFunc
	done chan error // why NextBatch gave up
	hold bool       // batches are kept; set before anything comes

	mu     sync.Mutex
	events []crust.Event // with data that is owned
	times  []time.Time
	held   []crust.Batch
}

// consume starts a consumer. It ends with ctx, or by stop.
func consume(ctx context.Context, n *node) *consumer {
	ctx, stop := context.WithCancel(ctx)
	c := &consumer{n: n, stop: stop, done: make(chan error, 1)}
	go func() {
		for {
			b, err := n.NextBatch(ctx, 0)
			if err != nil {
				c.done <- err
				return
			}
			c.mu.Lock()
			for _, e := range b.Events {
				e.Data = bytes.Clone(e.Data)
				c.events, c.times = append(c.events, e), append(c.times, time.Now())
			}
			if c.hold {
				c.held = append(c.held, b)
			} else {
				b.Release()
			}
			c.mu.Unlock()
		}
	}()
	return c
}

// end stops the consumer and waits until it is gone.
func (c *consumer) end() {
	c.stop()
	err := <-c.done
	c.done <- err
}

// take returns the events since the last call, and when they came.
func (c *consumer) take() ([]crust.Event, []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	events, times := c.events, c.times
	c.events, c.times = nil, nil
	return events, times
}

// one expects that exactly one event has come by now, without any time passing.
func (c *consumer) one(t *testing.T, want crust.EventType) crust.Event {
	t.Helper()
	began := time.Now()
	synctest.Wait()
	events, times := c.take()
	if len(events) != 1 || events[0].Type != want {
		t.Fatalf("%d events instead of one %v: %v", len(events), want, events)
	}
	if late := times[0].Sub(began); late > 0 {
		t.Fatalf("%v came %v late", want, late)
	}
	return events[0]
}

// toSelf sends lone messages from one node to the other until the program there
// reads by itself.
func toSelf(t *testing.T, from *node, to *consumer) {
	t.Helper()
	for i := 0; !to.n.ReadsItself(); i++ {
		if i == 50 {
			t.Fatal("the program does not read by itself after 50 lone messages")
		}
		lone(t, from, to, 20, uint64(i))
	}
}

// lone sends one message, which must come at once.
func lone(t *testing.T, from *node, to *consumer, size int, number uint64) {
	t.Helper()
	if err := from.Send(to.n.ID(), filled(size, number), 1); err != nil {
		t.Fatal(err)
	}
	if e := to.one(t, crust.EventMessage); !bytes.Equal(e.Data, filled(size, number)) || e.Peer != from.ID() {
		t.Fatalf("message %d of %d bytes came as %d others", number, size, len(e.Data))
	}
}

// lent is a world in which b's program reads by itself.
func lent(t *testing.T, cfg crust.Config, f func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a *node, b *consumer)) {
	world(t, cfg, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		c := consume(t.Context(), b)
		defer c.end()
		toSelf(t, a, c)
		f(t, net, ha, hb, a, c)
	})
}

// lentOver runs a test in which b's program reads by itself over TCP and over uTP.
func lentOver(t *testing.T, cfg crust.Config, f func(t *testing.T, a *node, b *consumer)) {
	t.Run("tcp", func(t *testing.T) {
		lent(t, cfg, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a *node, b *consumer) { f(t, a, b) })
	})
	t.Run("utp", func(t *testing.T) { lentUTP(t, cfg, f) })
}

// lentUTP is a world without TCP in which b's program reads by itself.
func lentUTP(t *testing.T, cfg crust.Config, f func(t *testing.T, a *node, b *consumer)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(cfg, "0.0.0.0", "utp")))
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(cfg, "0.0.0.0", "utp")))
		defer b.Close()
		defer a.Close()
		linkOver(t, a, b, crust.UTP)
		time.Sleep(time.Second)
		c := consume(t.Context(), b)
		defer c.end()
		toSelf(t, a, c)
		f(t, a, c)
	})
}

// idleFor are times after which the session's own reader is in different states:
// just lent, ticking, asleep.
var idleFor = []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 9 * time.Millisecond, time.Second}

// TestLentCancel: a program that reads by itself is called back by its context
// at once, and what comes afterwards is not lost.
func TestLentCancel(t *testing.T) {
	for _, idle := range idleFor {
		lentOver(t, crust.Config{}, func(t *testing.T, a *node, b *consumer) {
			time.Sleep(idle)
			began := time.Now()
			b.stop()
			if err := <-b.done; !errors.Is(err, crust.CodeCanceled) {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 0 {
				t.Fatalf("canceled after %v", took)
			}
			b.done <- nil // it is read again in the end
			b = consume(t.Context(), b.n)
			defer func() { b.end() }()
			lone(t, a, b, 20, 1)
			b.end()
			for i := range uint64(3) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				began := time.Now()
				if _, err := b.n.NextBatch(ctx, 0); !errors.Is(err, crust.CodeTimeout) || time.Since(began) != time.Second {
					t.Fatalf("%v after %v", err, time.Since(began))
				}
				cancel()
				if err := a.Send(b.n.ID(), filled(20, i), 1); err != nil {
					t.Fatal(err)
				}
				b.n.next(crust.EventMessage)
			}
			b = consume(t.Context(), b.n)
			toSelf(t, a, b)
		})
	}
}

// TestLentTimeouts: a program that gives each wait its own time limit reads by
// itself too, and each limit holds.
func TestLentTimeouts(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		itself := 0
		for i := range uint64(200) {
			limit := time.Duration(i%5+1) * time.Millisecond
			late := i%7 == 6 // the message comes after the limit
			go func() {
				if late {
					time.Sleep(limit)
				}
				time.Sleep(time.Millisecond / 2)
				if b.ReadsItself() {
					itself++
				}
				if err := a.Send(b.ID(), filled(20, i), 1); err != nil {
					t.Error(err)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			began := time.Now()
			batch, err := b.NextBatch(ctx, 0)
			if took := time.Since(began); late && (!errors.Is(err, crust.CodeTimeout) || took != limit) {
				t.Fatalf("%v after %v of %v", err, took, limit)
			}
			cancel()
			if late {
				batch, err = b.NextBatch(t.Context(), 0)
			}
			if err != nil || len(batch.Events) != 1 || !bytes.Equal(batch.Events[0].Data, filled(20, i)) || time.Since(began) > 2*limit {
				t.Fatalf("message %d: %v after %v", i, err, time.Since(began))
			}
			batch.Release()
		}
		if itself == 0 {
			t.Fatal("the program never read by itself")
		}
	})
}

// TestLentOtherEvents: while a program reads by itself, events that do not come
// from that session reach it at once.
func TestLentOtherEvents(t *testing.T) {
	for _, idle := range idleFor {
		lent(t, crust.Config{SendQueue: crust.MaxMessage}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a *node, b *consumer) {
			again := func() {
				t.Helper()
				toSelf(t, a, b)
				time.Sleep(idle)
			}
			time.Sleep(idle)
			if err := b.n.PrepareConnectionInfo(5); err != nil {
				t.Fatal(err)
			}
			info := b.one(t, crust.EventConnectionInfo)
			again()
			if _, err := b.n.Listen(endpointAt("0.0.0.0:0")); err != nil {
				t.Fatal(err)
			}
			b.one(t, crust.EventListenerStarted)
			again()
			c := newNode(t, crust.On(net.Host("10.0.0.3"), crust.Config{NoListen: true}))
			defer c.Close()
			if err := c.Connect(info.Data, 1); err != nil {
				t.Fatal(err)
			}
			b.one(t, crust.EventConnected)
			c.next(crust.EventConnected)
			again()
			lone(t, c, b, 20, 7) // another session
			again()
			if err := c.Disconnect(b.n.ID()); err != nil {
				t.Fatal(err)
			}
			b.one(t, crust.EventLost)
			c.next(crust.EventLost)
			again()
			net.SetLink(ha, hb, simnet.Link{Buffer: 4 << 10})
			net.Cut(ha, hb)
			for b.n.Send(a.ID(), filled(60<<10, 1), 1) == nil {
			}
			synctest.Wait()
			if !b.n.ReadsItself() {
				t.Fatal("writing has disturbed reading")
			}
			net.Heal(ha, hb)
			synctest.Wait()
			events, _ := b.take()
			for range 5000 { // the link has a rate of its own
				if len(events) > 0 {
					break
				}
				if b, err := a.TryNextBatch(0); err != nil {
					t.Fatal(err)
				} else {
					b.Release()
				}
				time.Sleep(time.Microsecond)
				events, _ = b.take()
			}
			if len(events) != 1 || events[0].Type != crust.EventWritable {
				t.Fatalf("%v instead of writable", events)
			}
		})
	}
}

// TestLentDatagrams: while a program reads by itself, datagrams of the same
// session, which do not come through it, reach it at once.
func TestLentDatagrams(t *testing.T) {
	lentUTP(t, crust.Config{}, func(t *testing.T, a *node, b *consumer) {
		for _, idle := range idleFor {
			toSelf(t, a, b)
			time.Sleep(idle)
			if err := a.SendDatagram(b.n.ID(), filled(100, 1)); err != nil {
				t.Fatal(err)
			}
			if e := b.one(t, crust.EventDatagram); !bytes.Equal(e.Data, filled(100, 1)) {
				t.Fatal("another datagram came")
			}
		}
	})
}

// TestLentEnds: however a session ends while the program reads for it, the
// program is told at once, and why.
func TestLentEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(a *node, b *consumer, net *simnet.Net, ha, hb *simnet.Host)
		code crust.Code
	}{
		"peer disconnects": {func(a *node, b *consumer, _ *simnet.Net, _, _ *simnet.Host) { a.Disconnect(b.n.ID()) }, crust.CodeDisconnected},
		"peer stops":       {func(a *node, _ *consumer, _ *simnet.Net, _, _ *simnet.Host) { a.Close() }, crust.CodeDisconnected},
		"we disconnect":    {func(a *node, b *consumer, _ *simnet.Net, _, _ *simnet.Host) { b.n.Disconnect(a.ID()) }, crust.CodeDisconnected},
		"the link breaks":  {func(_ *node, _ *consumer, net *simnet.Net, ha, hb *simnet.Host) { net.Reset(ha, hb) }, crust.CodeReset},
	} {
		for _, idle := range idleFor {
			t.Run(name+" after "+idle.String(), func(t *testing.T) {
				lent(t, crust.Config{NoResume: true}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a *node, b *consumer) {
					time.Sleep(idle)
					c.end(a, b, net, ha, hb)
					if e := b.one(t, crust.EventLost); e.Code() != c.code || e.Peer != a.ID() {
						t.Fatalf("lost as %v", e.Err())
					}
				})
			})
		}
	}
}

// TestLentSilence: the heartbeat works while the program reads: an idle session
// lives, and a silent one is lost in time.
func TestLentSilence(t *testing.T) {
	lent(t, crust.Config{Heartbeat: time.Second, LostAfter: 5 * time.Second, NoResume: true}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a *node, b *consumer) {
		time.Sleep(10 * time.Minute)
		if !b.n.ReadsItself() || a.EventsPending() {
			t.Fatal("ten idle minutes have changed something")
		}
		lone(t, a, b, 20, 3)
		net.Cut(ha, hb)
		began := time.Now()
		time.Sleep(7 * time.Second)
		events, times := b.take()
		if len(events) != 1 || events[0].Code() != crust.CodePeerSilent {
			t.Fatalf("%v", events)
		}
		if took := times[0].Sub(began); took < 5*time.Second || took > 6*time.Second {
			t.Fatalf("lost after %v", took)
		}
	})
}

// TestLentClose: Close returns while the program reads, which then gets the last
// events.
func TestLentClose(t *testing.T) {
	for _, idle := range idleFor {
		lentOver(t, crust.Config{}, func(t *testing.T, a *node, b *consumer) {
			time.Sleep(idle)
			began := time.Now()
			if err := b.n.Close(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 0 {
				t.Fatalf("closing took %v", took)
			}
			err := <-b.done
			b.done <- err // it is read again in the end
			events, _ := b.take()
			if !errors.Is(err, crust.CodeClosed) || len(events) != 2 || events[0].Type != crust.EventLost || events[1].Type != crust.EventStopped {
				t.Fatalf("%v, then %v", events, err)
			}
			if e := a.next(crust.EventLost); e.Code() != crust.CodeDisconnected {
				t.Fatal(e.Err())
			}
		})
	}
}

// TestLentNoRoom: a program that holds on to its batches until the queue is full
// and then reads by itself gets no more than it has room for; when another
// goroutine gives room back, what was read meanwhile comes at once, in order and
// whole.
func TestLentNoRoom(t *testing.T) {
	for _, more := range []int{0, 1, 40} {
		lentOver(t, crust.Config{EventQueue: 64 << 10}, func(t *testing.T, a *node, b *consumer) {
			b.mu.Lock()
			b.hold = true
			b.mu.Unlock()
			var events []crust.Event
			sent := 0
			send := func() {
				if err := a.Send(b.n.ID(), filled(200, uint64(sent)), 1); err != nil {
					t.Fatal(err)
				}
				sent++
				synctest.Wait()
				came, _ := b.take()
				events = append(events, came...)
			}
			for send(); len(events) == sent; send() {
				if sent == 10_000 {
					t.Fatal("the queue has no bound")
				}
			}
			room := len(events)
			for range more {
				send()
			}
			if len(events) != room {
				t.Fatal("the queue has no bound")
			}
			b.mu.Lock()
			b.hold = false
			for i := range b.held {
				b.held[i].Release()
			}
			b.mu.Unlock()
			synctest.Wait()
			came, _ := b.take()
			events = append(events, came...)
			if len(events) != sent {
				t.Fatalf("%d messages while there was no room, %d afterwards, of %d", room, len(events)-room, sent)
			}
			for i, e := range events {
				if !bytes.Equal(e.Data, filled(200, uint64(i))) {
					t.Fatalf("message %d is wrong", i)
				}
			}
			toSelf(t, a, b)
		})
	}
}

// TestLentSlowProgram: what comes while the program does something else is
// received within some milliseconds, and its heartbeats are answered.
func TestLentSlowProgram(t *testing.T) {
	world(t, crust.Config{Heartbeat: time.Second, LostAfter: 5 * time.Second}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		itself := 0
		for i := range uint64(40) {
			go func() {
				time.Sleep(time.Millisecond)
				if b.ReadsItself() {
					itself++
				}
				a.Send(b.ID(), filled(20, i), 1)
				if i%10 == 9 { // the program is busy with that one
					time.Sleep(time.Millisecond)
					a.Send(b.ID(), []byte("more"), 1)
				}
			}()
			if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(20, i)) {
				t.Fatalf("message %d is wrong", i)
			}
			if i%10 == 9 {
				time.Sleep(6 * time.Millisecond)
				if !b.EventsPending() {
					t.Fatal("a message is not received while the program is busy")
				}
				time.Sleep(time.Minute)
				if e := b.next(crust.EventMessage); string(e.Data) != "more" {
					t.Fatalf("%q", e.Data)
				}
			}
		}
		if itself == 0 {
			t.Fatal("the program never read by itself")
		}
		if a.EventsPending() || b.EventsPending() {
			t.Fatal("somebody was lost")
		}
	})
}

// TestLentOnEvents: OnEvents is called from a goroutine of the library, never
// from one of the program that is inside NextBatch.
func TestLentOnEvents(t *testing.T) {
	calls, inside := atomic.Int32{}, atomic.Int32{}
	cfg := crust.Config{OnEvents: func() {
		calls.Add(1)
		stack := make([]byte, 64<<10)
		if bytes.Contains(stack[:runtime.Stack(stack, false)], []byte("NextBatch")) {
			inside.Add(1)
		}
	}}
	world(t, cfg, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		c := consume(t.Context(), b)
		defer c.end()
		synctest.Wait() // the call for the connection may still be under way
		before := calls.Load()
		for i := range uint64(50) {
			lone(t, a, c, 20, i)
		}
		if n := calls.Load() - before; n != 50 || inside.Load() > 0 {
			t.Fatalf("OnEvents was called %d times for 50 messages, and %d times from the program's own goroutine", n, inside.Load())
		}
	})
}

// TestLentFlood: a flood after lone messages arrives whole and in order, and so
// do large messages.
func TestLentFlood(t *testing.T) {
	lent(t, crust.Config{}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a *node, b *consumer) {
		for round := range 3 {
			for i := range uint64(5000) {
				if err := a.SendWait(t.Context(), b.n.ID(), filled(int(i%700), i), 1); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.SendWait(t.Context(), b.n.ID(), filled(crust.MaxMessage, 9), 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			events, _ := b.take()
			if len(events) != 5001 || !bytes.Equal(events[5000].Data, filled(crust.MaxMessage, 9)) {
				t.Fatalf("round %d: %d messages", round, len(events))
			}
			for i, e := range events[:5000] {
				if !bytes.Equal(e.Data, filled(i%700, uint64(i))) {
					t.Fatalf("round %d: message %d is wrong", round, i)
				}
			}
			toSelf(t, a, b)
		}
	})
}

// TestLentConsumers: of several goroutines that wait, one reads by itself. Each
// message comes to one of them, at once, also when the reading one is called
// back or stays away.
func TestLentConsumers(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		all := make([]*consumer, 3)
		for i := range all {
			all[i] = consume(t.Context(), b)
		}
		itself := 0
		for i := range uint64(400) {
			if i%50 == 49 { // one leaves and another comes
				k := i / 50 % 3
				all[k].end()
				all[k] = consume(t.Context(), b)
			}
			if i%20 == 19 {
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			}
			if b.ReadsItself() {
				itself++
			}
			if err := a.Send(b.ID(), filled(20, i), 1); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			synctest.Wait()
			came := 0
			for _, c := range all {
				events, times := c.take()
				came += len(events)
				for k, e := range events {
					if !bytes.Equal(e.Data, filled(20, i)) || times[k] != began {
						t.Fatalf("message %d is wrong or late", i)
					}
				}
			}
			if came != 1 {
				t.Fatalf("message %d came %d times", i, came)
			}
		}
		if itself < 100 {
			t.Fatalf("a program read by itself for %d of 400 messages", itself)
		}
		for _, c := range all {
			c.end()
		}
	})
}

// echo sends every message back until ctx or the service ends.
func echo(ctx context.Context, n *node) {
	for {
		b, err := n.NextBatch(ctx, 0)
		if err != nil {
			return
		}
		for _, e := range b.Events {
			if e.Type == crust.EventMessage {
				n.Send(e.Peer, e.Data, e.Priority) //nolint:errcheck // who waits for it will notice
			}
		}
		b.Release()
	}
}

var thereAndBack = []byte("there and back")

// roundTrip sends a message to a peer that echoes it, and waits for it.
func roundTrip(t testing.TB, n *node, peer crust.PeerID) {
	if err := n.Send(peer, thereAndBack, 1); err != nil {
		t.Fatal(err)
	}
	b, err := n.NextBatch(t.Context(), 0)
	if err != nil || len(b.Events) != 1 || !bytes.Equal(b.Events[0].Data, thereAndBack) {
		t.Fatalf("%v, %v", b.Events, err)
	}
	b.Release()
}

// TestLentEndsAnyTime: over real connections, on one processor and on two, a
// session that ends at any moment of a conversation ends in order on both sides.
func TestLentEndsAnyTime(t *testing.T) {
	ends := []func(a, b *node) error{
		func(a, b *node) error { return a.Disconnect(b.ID()) },
		func(a, b *node) error { return b.Disconnect(a.ID()) },
		func(a, _ *node) error { return a.Close() },
		func(_, b *node) error { return b.Close() },
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, procs := range [][2]int{{1, 1}, {2, 2}, {2, 1}} { // at first, and afterwards
		for i, end := range ends {
			for _, trips := range []uint64{1, 40, 301} {
				runtime.GOMAXPROCS(procs[0])
				transport := []crust.Transport{crust.TCP, crust.UTP}[(i+int(trips))%2] // each end over each
				cfg := over(crust.Config{}, "127.0.0.1", transport.String())
				a, b := newNode(t, cfg), newNode(t, cfg)
				linkOver(t, a, b, transport)
				runtime.GOMAXPROCS(procs[1])
				said, lost := make(chan struct{}), make(chan error, 2)
				go func() { lost <- converse(a, b.ID(), trips, said) }()
				go func() { lost <- converse(b, a.ID(), 0, nil) }()
				<-said
				if err := end(a, b); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if err := <-lost; !errors.Is(err, crust.CodeDisconnected) {
						t.Fatalf("processors %v, end %d after %d trips: %v", procs, i, trips, err)
					}
				}
				a.Close()
				b.Close()
			}
		}
	}
}

// converse echoes numbered messages and returns why the session was lost. With
// said it begins, adds one to each number, and closes said when trips have come
// back; it goes on then.
func converse(n *node, peer crust.PeerID, trips uint64, said chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	number := uint64(0)
	if said != nil {
		if err := n.Send(peer, filled(20, number), 1); err != nil {
			return err
		}
	}
	for {
		b, err := n.NextBatch(ctx, 0)
		if err != nil {
			return err
		}
		for _, e := range b.Events {
			switch {
			case e.Type == crust.EventLost:
				return e.Err()
			case e.Type == crust.EventMessage && !bytes.Equal(e.Data, filled(20, number)):
				return fmt.Errorf("%x came instead of message %d", e.Data, number)
			case e.Type == crust.EventMessage:
				if number++; said != nil {
					if number == trips {
						close(said)
					}
					n.Send(peer, filled(20, number), 1) //nolint:errcheck // it may be the end
				} else {
					n.Send(peer, e.Data, 1) //nolint:errcheck // it may be the end
				}
			}
		}
		b.Release()
	}
}
