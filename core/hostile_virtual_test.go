package crust_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestUrgentOvertakesLoneLarge: an urgent message overtakes a large one that was
// sent when nothing else was on its way.
func TestUrgentOvertakesLoneLarge(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		net.SetLink(ha, hb, simnet.Link{Bandwidth: 1 << 20, Buffer: 64 << 10})
		time.Sleep(5 * time.Second)
		if err := a.Send(b.ID(), filled(crust.MaxMessage, 1), 5); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		sent := time.Now()
		if err := a.Send(b.ID(), []byte("urgent"), 0); err != nil {
			t.Fatal(err)
		}
		if e := b.next(crust.EventMessage); string(e.Data) != "urgent" {
			t.Fatalf("%d bytes of priority %d came first", len(e.Data), e.Priority)
		}
		if took := time.Since(sent); took > 700*time.Millisecond {
			t.Fatalf("the urgent message took %v", took)
		}
		if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(crust.MaxMessage, 1)) {
			t.Fatal("the large message is wrong")
		}
	})
}

// TestFloodDoesNotKeepOthersOut: a peer that fills the event queue with small
// messages does not make the service refuse others.
func TestFloodDoesNotKeepOthersOut(t *testing.T) {
	world(t, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		const flood = 80_000
		for range flood {
			if err := a.SendWait(t.Context(), b.ID(), []byte{7}, 1); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		if n := b.Stats().EventsQueued; n < flood {
			t.Fatalf("%d events wait", n)
		}
		c := newNode(t, crust.On(net.Host("10.0.0.3"), crust.Config{NoListen: true}))
		defer c.Close()
		if err := c.ConnectEndpoint(crust.Contact{Endpoint: at("10.0.0.2", b.Service)}, 1); err != nil {
			t.Fatal(err)
		}
		c.next(crust.EventConnected)
		time.Sleep(2 * time.Second)
		if _, ok := c.Peer(b.ID()); !ok {
			t.Fatal("the service has refused the session")
		}
	})
}

// TestQueueOfLoneMessages: messages that come one by one do not hold much more
// memory than the event queue allows, however small they are.
func TestQueueOfLoneMessages(t *testing.T) {
	const limit = 100_000
	world(t, crust.Config{EventQueue: limit}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		sent := 0
		for ; sent < 3000; sent++ {
			if err := a.Send(b.ID(), []byte{7}, 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		const smallest = 512 // bytes of the smallest buffer
		if n := b.Stats().EventsQueued; n > 4*limit/smallest+1 {
			t.Fatalf("%d lone messages wait in a queue of %d bytes", n, limit)
		}
		for range sent {
			b.next(crust.EventMessage)
		}
		if st := b.Stats(); st.EventBytesQueued != 0 || st.EventsQueued != 0 || st.BackpressurePauses == 0 {
			t.Fatalf("in the end: %+v", st)
		}
	})
}

// TestCloseWithFullQueue: nobody reads the events of a service whose queue is
// full; it closes in time, and its last event can still be read.
func TestCloseWithFullQueue(t *testing.T) {
	world(t, crust.Config{EventQueue: 50_000, CloseTimeout: 2 * time.Second}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		for a.Send(b.ID(), filled(20_000, 1), 1) == nil {
		}
		time.Sleep(time.Minute)
		if b.Stats().BackpressurePauses == 0 {
			t.Fatal("the queue is not full")
		}
		began := time.Now()
		b.Close()
		if took := time.Since(began); took > 2100*time.Millisecond {
			t.Fatalf("closing took %v", took)
		}
		b.next(crust.EventMessage)
		for e := b.next(crust.EventMessage, crust.EventLost); e.Type != crust.EventLost; {
			e = b.next(crust.EventMessage, crust.EventLost)
		}
		b.next(crust.EventStopped)
		if _, err := b.TryNextBatch(0); !errors.Is(err, crust.CodeClosed) {
			t.Fatalf("after stopped: %v", err)
		}
	})
}

// TestCloseDuringHandshakes: strangers that say nothing, one that says half, and
// dials that nobody answers hold Close up for nothing.
func TestCloseDuringHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		ha, hb, hc := internet.Host("10.0.0.1"), internet.Host("10.0.0.2"), internet.Host("10.0.0.3")
		a := newNode(t, crust.On(ha, crust.Config{Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
		for i := range 20 {
			c, err := hb.Dial(t.Context(), netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.1:1"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(make([]byte, i*20)); err != nil {
				t.Fatal(err)
			}
		}
		internet.Silence(ha, hc)
		for token := range uint64(20) {
			if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.3:1")}, token); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		began := time.Now()
		a.Close()
		if took := time.Since(began); took != 0 {
			t.Fatalf("closing took %v", took)
		}
		for range 20 {
			if e := a.next(crust.EventConnectFailed); e.Code() != crust.CodeCanceled {
				t.Fatal(e.Err())
			}
		}
		a.next(crust.EventStopped)
		if n := ha.Connections(); n != 0 {
			t.Fatalf("%d connections are left", n)
		}
	})
}
