package session

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// lowFrame is a frame of the low class whose body says its number.
func lowFrame(number, size int) []byte {
	return wire.AppendFrame(nil, wire.FrameRelayData, numbered(size, number)...)
}

// at returns the line of a session.
func at(t *testing.T, s *Session) Line {
	t.Helper()
	line, ok := s.At()
	if !ok {
		t.Fatal("there is no line")
	}
	return line
}

// TestLowOrder: frames of the low class arrive whole and in order, large and small.
func TestLowOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, ob := pair(t, usual, 40_000, nil)
		var want [][]byte
		for i := range 500 {
			size := []int{1, 100, 16 << 10}[i%3]
			want = append(want, numbered(size, i))
			if !a.SendLow(at(t, a), lowFrame(i, size)) {
				t.Fatalf("frame %d was dropped", i)
			}
			if i%50 == 0 {
				time.Sleep(time.Second)
			}
		}
		synctest.Wait()
		same(t, ob.all("relay"), want)
	})
}

// TestLowAfterMessages: while messages wait, frames of the low class take a
// twentieth of the link, no more and not much less; urgent or not.
func TestLowAfterMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, ob := pair(t, usual, 30_000, nil)
		const size, low = 60_000, 16 << 10
		ob.gate = make(chan struct{})
		messages, relayed, left := 0, 0, 0
		for i := 0; a.Send(numbered(size, i), uint8(i%3)) == nil; i++ { // until the queue is full
			left++
		}
		for i := range 200 {
			a.SendLow(at(t, a), lowFrame(i, low))
		}
		close(ob.gate)
		synctest.Wait()
		for _, e := range ob.take() {
			switch e.what {
			case "message":
				messages += len(e.data)
				left--
			case "relay":
				if left > 0 {
					relayed += len(e.data)
				}
			}
		}
		if share := float64(relayed) / float64(messages+relayed); left != 0 || share < 0.03 || share > 0.07 {
			t.Errorf("%d bytes of messages came with %d of the low class: %.3f", messages, relayed, share)
		}
	})
}

// TestLowBound: no more than MaxLow bytes wait, and what waits is lost with the
// line, to which frames are bound.
func TestLowBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, ob := pair(t, resuming, 10_000, nil)
		gate := make(chan struct{})
		ob.gate = gate
		if err := a.Send(make([]byte, 1000), 0); err != nil { // whose delivery stops the reader
			t.Fatal(err)
		}
		synctest.Wait()
		line, n := at(t, a), 0
		for ; a.SendLow(line, lowFrame(n, 16<<10)); n++ {
			if n > 2*MaxLow/(16<<10) {
				t.Fatal("there is no bound")
			}
		}
		if n < MaxLow/(17<<10) {
			t.Errorf("only %d frames wait", n)
		}
		la, _ := links(t, 0, nil)
		moved, err := a.Resume(la, nil, a.Received(), 0)
		if err != nil {
			t.Fatal(err)
		}
		moved()
		if a.SendLow(line, lowFrame(0, 1)) {
			t.Error("a frame was taken for a line that is gone")
		}
		if a.mustLow(t) != 0 {
			t.Error("frames wait for a line that is gone")
		}
		close(gate)
	})
}

// mustLow returns the bytes of the low class that wait.
func (s *Session) mustLow(t *testing.T) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.low.bytes
}

// TestLowWhileClosing: a session that is being closed takes and sends none.
func TestLowWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, ob := pair(t, usual, 0, nil)
		line := at(t, a)
		a.Disconnect(wire.ReasonDisconnect, ErrDisconnected)
		if a.SendLow(line, lowFrame(1, 1)) {
			t.Error("it was taken")
		}
		if _, ok := a.At(); ok {
			t.Error("there is a line to send on")
		}
		<-a.Done()
		<-b.Done()
		if got := ob.all("relay"); len(got) != 0 {
			t.Errorf("%d frames came", len(got))
		}
	})
}

// TestRelayRefused: a frame of which the owner says that it breaks the protocol
// ends the session.
func TestRelayRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, ob := pair(t, usual, 0, nil)
		a.SendLow(at(t, a), wire.AppendFrame(nil, wire.FrameRelayClose))
		<-b.Done()
		if ended := ob.all("ended"); len(ended) != 1 || !errors.Is(ended[0].why, ErrProtocol) {
			t.Errorf("%+v", ended)
		}
	})
}

// TestLowQueue: runs come out as they went in, however they are mixed.
func TestLowQueue(t *testing.T) {
	var q lowQueue
	var in, out []byte
	for i := range 3000 {
		f := lowFrame(i, 1+i*37%5000)
		in = append(in, f...)
		q.add(f)
		if i%3 == 0 {
			out = append(out, q.pop()...)
		}
	}
	for !q.empty() {
		out = append(out, q.pop()...)
	}
	if !bytes.Equal(in, out) || q.runs != nil || q.bytes != 0 {
		t.Errorf("%d bytes came out of %d, %d are left", len(out), len(in), q.bytes)
	}
}

// TestSpare: a frame of SendSpare arrives while there is room, is dropped when
// MaxSpare bytes wait, and there is nothing it goes on without a line.
func TestSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, ob := pair(t, usual, 40_000, nil)
		if !a.SendSpare(lowFrame(1, 1000)) {
			t.Fatal("a frame was dropped")
		}
		synctest.Wait()
		same(t, ob.all("relay"), [][]byte{numbered(1000, 1)})
		gate := make(chan struct{})
		ob.gate = gate
		for i := 0; a.Send(numbered(60_000, i), 0) == nil; i++ { // until the queue is full
		}
		n := 0
		for ; a.SendSpare(lowFrame(n, 4000)); n++ {
			if n > MaxSpare/4000 {
				t.Fatal("there is no bound")
			}
		}
		if n < MaxSpare/4000-1 {
			t.Errorf("only %d frames wait", n)
		}
		if !a.SendLow(at(t, a), lowFrame(0, 4000)) {
			t.Error("what need not arrive keeps out what is carried for others")
		}
		close(gate)
	})
	var none Session
	if none.SendSpare(nil) {
		t.Error("a frame was taken without a link")
	}
}

// TestAcknowledgedBesideLow: what has arrived is acknowledged within three heartbeats
// although frames of the low class go both ways all the time, so that no heartbeat is
// due: as between a relay and a peer whose link it carries.
func TestAcknowledgedBesideLow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _, _ := pair(t, resuming, 40_000, nil)
		for i := range 60 {
			if i == 10 {
				if err := a.Send(numbered(1000, 0), 1); err != nil {
					t.Fatal(err)
				}
			}
			if !a.SendLow(at(t, a), lowFrame(i, 100)) || !b.SendLow(at(t, b), lowFrame(i, 100)) {
				t.Fatal("a frame was dropped")
			}
			time.Sleep(resuming.Heartbeat / 2)
			if n := a.Counters().Unacked; i > 10+6 && n > 0 {
				t.Fatalf("%d bytes are not acknowledged after %v", n, time.Duration(i-10)*resuming.Heartbeat/2)
			}
		}
	})
}
