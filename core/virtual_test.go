package crust_test

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// world is a service on each of two hosts in virtual time.
func world(t *testing.T, cfg crust.Config, f func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
		cfg.Listen = []crust.Endpoint{endpointAt("0.0.0.0:0")}
		a, b := newNode(t, crust.On(ha, cfg)), newNode(t, crust.On(hb, cfg))
		defer b.Close()
		defer a.Close()
		link(t, a, b)
		f(t, net, ha, hb, a, b)
	})
}

// lostAfter waits for a loss and says how long that took.
func (n *node) lostAfter(t *testing.T) (crust.Event, time.Duration) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for e := range n.Events(ctx) {
		if e.Type == crust.EventLost {
			return e, time.Since(began)
		}
	}
	t.Fatal("no loss")
	return crust.Event{}, 0
}

// TestIdleStaysUp: heartbeats keep an idle session, and measure the round trip.
func TestIdleStaysUp(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		net.SetLink(ha, hb, simnet.Link{Latency: 30 * time.Millisecond})
		time.Sleep(10 * time.Minute)
		p, ok := a.Peer(b.ID())
		if !ok || a.EventsPending() || b.EventsPending() {
			t.Fatal("the idle session is gone")
		}
		if p.RTT < 60*time.Millisecond || p.RTT > 61*time.Millisecond {
			t.Fatalf("round trip of %v measured as %v", 60*time.Millisecond, p.RTT)
		}
		if st := a.Stats(); st.WireSentBytes > 10_000 {
			t.Fatalf("ten idle minutes cost %d bytes", st.WireSentBytes)
		}
	})
}

// TestSilentPeerIsLost: a link that says nothing is lost after LostAfter.
func TestSilentPeerIsLost(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		time.Sleep(time.Minute)
		net.Cut(ha, hb)
		for _, n := range []*node{a, b} {
			e, _ := n.lostAfter(t)
			if e.Code() != crust.CodePeerSilent {
				t.Fatal(e.Err())
			}
		}
	})
}

// TestLossWithinPromise: the loss comes between LostAfter and LostAfter plus a
// heartbeat after the link fell silent, whatever the program sends meanwhile.
func TestLossWithinPromise(t *testing.T) {
	world(t, crust.Config{Heartbeat: time.Second, LostAfter: 5 * time.Second, NoResume: true}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		time.Sleep(17 * time.Second)
		net.Cut(ha, hb)
		for range 4 {
			if err := a.Send(b.ID(), []byte("is anybody there"), 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		_, more := a.lostAfter(t)
		if took := 4*time.Second + more; took < 4*time.Second || took > 6*time.Second {
			t.Fatalf("lost after %v", took)
		}
	})
}

// TestOneWayTraffic: a peer that only sends, and one that only receives, are not
// lost, however long.
func TestOneWayTraffic(t *testing.T) {
	world(t, crust.Config{Heartbeat: time.Second, LostAfter: 3 * time.Second}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		for i := range uint64(600) {
			if err := a.Send(b.ID(), filled(100, i), 1); err != nil {
				t.Fatal(err)
			}
			if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(100, i)) {
				t.Fatal("wrong message")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if a.EventsPending() || b.EventsPending() {
			t.Fatal("an event in one-way traffic")
		}
	})
}

// TestSlowProgramIsNotLost: a program that takes no events for long stops its
// sender, and neither side takes the other for dead.
func TestSlowProgramIsNotLost(t *testing.T) {
	world(t, crust.Config{Heartbeat: time.Second, LostAfter: 4 * time.Second, EventQueue: 100_000}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		sent := uint64(0)
		for ; a.Send(b.ID(), filled(10_000, sent), 1) == nil; sent++ {
		}
		time.Sleep(10 * time.Minute)
		for i := range sent {
			if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(10_000, i)) {
				t.Fatalf("message %d is wrong", i)
			}
		}
		a.next(crust.EventWritable)
	})
}

// TestUrgentOvertakes: on a slow link an urgent message overtakes large ones
// that are queued and one that is under way.
func TestUrgentOvertakes(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		net.SetLink(ha, hb, simnet.Link{Bandwidth: 1 << 20, Buffer: 64 << 10})
		for i := range uint64(2) {
			if err := a.Send(b.ID(), filled(1<<20, i), 5); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(300 * time.Millisecond) // the first is on its way
		sent := time.Now()
		if err := a.Send(b.ID(), []byte("urgent"), 0); err != nil {
			t.Fatal(err)
		}
		if e := b.next(crust.EventMessage); string(e.Data) != "urgent" || e.Priority != 0 {
			t.Fatalf("%d bytes of priority %d came first", len(e.Data), e.Priority)
		}
		if took := time.Since(sent); took > 600*time.Millisecond {
			t.Fatalf("the urgent message took %v", took)
		}
		for i := range uint64(2) {
			if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(1<<20, i)) {
				t.Fatalf("large message %d is wrong", i)
			}
		}
	})
}

// TestOldMessagesDrop: on a link that does not move, messages of priority 2 and
// above are dropped when too old, with the less urgent ones, and told; 0 and 1
// arrive when it moves again.
func TestOldMessagesDrop(t *testing.T) {
	world(t, crust.Config{LostAfter: time.Hour, MessageMaxAge: 10 * time.Second, NoResume: true}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		net.SetLink(ha, hb, simnet.Link{Buffer: 4 << 10})
		net.Cut(ha, hb)
		for range 4 { // fill what is under the queue
			if err := a.Send(b.ID(), filled(100_000, 0), 0); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		for _, priority := range []uint8{1, 2, 3, 200} {
			for range 3 {
				if err := a.Send(b.ID(), []byte{priority}, priority); err != nil {
					t.Fatal(err)
				}
			}
		}
		began := time.Now()
		for _, priority := range []uint8{2, 3, 200} {
			e := a.next(crust.EventMessagesDropped)
			if e.Priority != priority || e.Count() != 3 || e.Bytes() != 3 || e.Peer != b.ID() {
				t.Fatalf("dropped %d messages of priority %d", e.Count(), e.Priority)
			}
		}
		if took := time.Since(began); took < 10*time.Second || took > 12*time.Second {
			t.Fatalf("dropped after %v", took)
		}
		net.Heal(ha, hb)
		for range 4 {
			b.next(crust.EventMessage)
		}
		for range 3 {
			if e := b.next(crust.EventMessage); e.Priority != 1 {
				t.Fatalf("priority %d arrived", e.Priority)
			}
		}
		if p, _ := a.Peer(b.ID()); p.DroppedMessages != 9 {
			t.Fatalf("counted %d drops", p.DroppedMessages)
		}
	})
}

// TestConnectTimesOut: nobody there, and nobody who says so.
func TestConnectTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
		net.Silence(ha, hb)
		a := newNode(t, crust.On(ha, crust.Config{NoListen: true, HandshakeTimeout: 100 * time.Second, ConnectTimeout: 7 * time.Second}))
		defer a.Close()
		began := time.Now()
		if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:5")}, 8); err != nil {
			t.Fatal(err)
		}
		if e := a.next(crust.EventConnectFailed); e.Code() != crust.CodeTimeout || e.Token != 8 || time.Since(began) != 7*time.Second {
			t.Fatalf("%v after %v", e.Err(), time.Since(began))
		}
	})
}

// TestRestart: a peer that comes back with the same identity replaces the
// session that its old life left behind.
func TestRestart(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		first := newNode(t, crust.On(ha, crust.Config{Identity: key, NoListen: true}))
		contact := crust.Contact{Endpoint: b.Listeners()[0]}
		contact.Endpoint = endpointAt("10.0.0.2" + contact.Endpoint.String()[len("tcp://0.0.0.0"):])
		if err := first.ConnectEndpoint(contact, 1); err != nil {
			t.Fatal(err)
		}
		first.next(crust.EventConnected)
		b.next(crust.EventConnected)
		net.Cut(ha, hb) // the old life ends without a word
		done := make(chan struct{})
		go func() { first.Close(); close(done) }()
		<-done
		second := newNode(t, crust.On(ha, crust.Config{Identity: key, NoListen: true}))
		defer second.Close()
		net.Heal(ha, hb)
		if err := second.ConnectEndpoint(contact, 2); err != nil {
			t.Fatal(err)
		}
		if e := second.next(crust.EventConnected); e.Peer != b.ID() {
			t.Fatal("not connected again")
		}
		lost := b.next(crust.EventSuspended, crust.EventLost)
		for lost.Type == crust.EventSuspended { // while the way was cut
			lost = b.next(crust.EventSuspended, crust.EventResumed, crust.EventLost)
		}
		if lost.Peer != first.ID() {
			t.Fatal("another peer was lost")
		}
		if e := b.next(crust.EventConnected); e.Peer != first.ID() {
			t.Fatal("another peer came")
		}
	})
}
