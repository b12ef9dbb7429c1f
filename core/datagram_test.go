package crust_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestDatagrams: they arrive whole over uTP, and what is too big is refused with
// the size that fits.
func TestDatagrams(t *testing.T) {
	kernelAndVirtual(t, simnet.Link{Latency: 10 * time.Millisecond}, func(t *testing.T, a, b *node) {
		link(t, a, b)
		most, err := a.MaxDatagram(b.ID())
		if err != nil || most < 1100 {
			t.Fatalf("the largest datagram has %d bytes (%v)", most, err)
		}
		for _, size := range []int{0, 1, 1000, most} {
			want := bytes.Repeat([]byte{byte(size), 3}, size)[:size]
			if err := a.SendDatagram(b.ID(), want); err != nil {
				t.Fatal(err)
			}
			if e := b.next(crust.EventDatagram); e.Peer != a.ID() || !bytes.Equal(e.Data, want) {
				t.Fatalf("a datagram of %d bytes arrived as %d from %v", size, len(e.Data), e.Peer)
			}
		}
		if err := a.SendDatagram(b.ID(), make([]byte, 70_000)); !errors.Is(err, crust.CodeTooBig) {
			t.Errorf("70,000 bytes gave %v", err)
		}
		if sa, sb := a.Stats(), b.Stats(); sa.SentDatagrams != 4 || sb.ReceivedDatagrams != 4 || sb.LostDatagrams != 0 {
			t.Errorf("counted %d sent, %d received, %d lost", sa.SentDatagrams, sb.ReceivedDatagrams, sb.LostDatagrams)
		}
	})
}

// TestDatagramsOverTCP: they go before the messages that wait, and the same bound
// holds.
func TestDatagramsOverTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 1 << 20})
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{}, "0.0.0.0", "tcp")))
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{}, "0.0.0.0", "tcp")))
		defer b.Close()
		defer a.Close()
		link(t, a, b)
		most, err := a.MaxDatagram(b.ID())
		if err != nil || most < 1100 {
			t.Fatalf("the largest datagram has %d bytes (%v)", most, err)
		}
		if err := a.SendDatagram(b.ID(), make([]byte, most+1)); !errors.Is(err, crust.CodeTooBig) {
			t.Errorf("a byte too many gave %v", err)
		}
		for range 3 { // three seconds of the link
			if err := a.Send(b.ID(), make([]byte, 1<<20), 0); err != nil {
				t.Fatal(err)
			}
		}
		want := bytes.Repeat([]byte{7}, most)
		if err := a.SendDatagram(b.ID(), want); err != nil {
			t.Fatal(err)
		}
		if e := b.next(crust.EventDatagram, crust.EventMessage); e.Type != crust.EventDatagram || e.Peer != a.ID() || !bytes.Equal(e.Data, want) {
			t.Fatalf("%v of %d bytes came first", e.Type, len(e.Data))
		}
		for range 3 {
			b.next(crust.EventMessage)
		}
		for range 100_000 { // what cannot go is lost, and does not pile up
			if err := a.SendDatagram(b.ID(), want); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Send(b.ID(), []byte("after all that"), 0); err != nil {
			t.Fatal(err)
		}
		came := 0
		for e := b.next(crust.EventDatagram, crust.EventMessage); e.Type == crust.EventDatagram; e = b.next(crust.EventDatagram, crust.EventMessage) {
			came++
		}
		if came == 0 || came > 1000 {
			t.Errorf("%d datagrams of a flood arrived", came)
		}
	})
}

func TestDatagramToNobody(t *testing.T) {
	a := newNode(t, crust.Config{})
	if err := a.SendDatagram(crust.PeerID{1}, nil); !errors.Is(err, crust.CodeUnknownPeer) {
		t.Errorf("SendDatagram gave %v", err)
	}
	if _, err := a.MaxDatagram(crust.PeerID{1}); !errors.Is(err, crust.CodeUnknownPeer) {
		t.Errorf("MaxDatagram gave %v", err)
	}
}

// TestDatagramsOvertake: a datagram does not wait behind messages that fill the
// link, and on a link that loses, those that come are whole.
func TestDatagramsOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 1 << 20, Loss: 0.05})
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{}, "0.0.0.0", "utp")))
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{}, "0.0.0.0", "utp")))
		defer b.Close()
		defer a.Close()
		link(t, a, b)
		for range 3 { // several seconds of the link
			if err := a.Send(b.ID(), make([]byte, 1<<20), 0); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(500 * time.Millisecond)
		sent := map[byte]time.Time{}
		for i := range 100 {
			sent[byte(i)] = time.Now()
			if err := a.SendDatagram(b.ID(), bytes.Repeat([]byte{byte(i)}, 50)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		got := 0
		for b.EventsPending() {
			e := b.next(crust.EventDatagram, crust.EventMessage)
			if e.Type != crust.EventDatagram {
				continue
			}
			if got++; len(e.Data) != 50 || !bytes.Equal(e.Data, bytes.Repeat(e.Data[:1], 50)) {
				t.Fatalf("a datagram arrived as %x", e.Data)
			}
		}
		if got < 70 {
			t.Errorf("%d of 100 datagrams arrived over a link that loses one of twenty", got)
		}
	})
}

// TestDatagramFlood: what the program does not take has a bound, and messages
// still find room.
func TestDatagramFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{}, "0.0.0.0", "utp")))
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{EventQueue: 256 << 10}, "0.0.0.0", "utp")))
		defer b.Close()
		defer a.Close()
		link(t, a, b)
		for i := range 2000 {
			if err := a.SendDatagram(b.ID(), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		if err := a.Send(b.ID(), []byte("still here"), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		st := b.Stats()
		if st.EventBytesQueued > 256<<10 || st.LostDatagrams == 0 || st.ReceivedDatagrams+st.LostDatagrams < 1900 {
			t.Errorf("%d bytes wait; %d datagrams received, %d lost", st.EventBytesQueued, st.ReceivedDatagrams, st.LostDatagrams)
		}
		for {
			if e := b.next(crust.EventDatagram, crust.EventMessage); e.Type == crust.EventMessage {
				break
			}
		}
		if st := b.Stats(); st.EventBytesQueued != 0 {
			t.Errorf("%d bytes are still charged", st.EventBytesQueued)
		}
	})
}
