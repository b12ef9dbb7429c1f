package hostile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// mutation is what an attacker on the path does to one conversation.
type mutation struct {
	toServer bool
	at       int // byte of the direction
	kind     int
	mask     byte
}

const mutationKinds = 5

// apply changes a chunk whose first byte is byte `at` of its direction.
func (m mutation) apply(at int, b []byte, done *atomic.Bool) []byte {
	i := m.at - at
	if i < 0 || i >= len(b) || done.Swap(true) {
		return b
	}
	switch m.kind {
	case 0: // flip
		b[i] ^= m.mask
		return b
	case 1: // drop a byte
		return append(b[:i], b[i+1:]...)
	case 2: // insert a byte
		return append(b[:i:i], append([]byte{m.mask}, b[i:]...)...)
	case 3: // repeat a piece
		return append(b[:len(b):len(b)], b[i:]...)
	default: // overwrite the rest
		for k := range b[i:] {
			b[i+k] ^= m.mask + byte(k)
		}
		return b
	}
}

// TestMutatedConversations lets peers talk through a relay that changes one
// thing in each conversation: in a flight or in a record, either way. Whatever
// happens, no changed message is delivered, and the service goes on.
func TestMutatedConversations(t *testing.T) {
	const network, clients, each = "mutated", 16, 75
	text := []byte(strings.Repeat("a message that must come whole or not at all ", 30))
	quick := crust.Config{NetworkName: network, HandshakeTimeout: 400 * time.Millisecond, ConnectTimeout: 2 * time.Second, CloseTimeout: 200 * time.Millisecond}
	server := start(t, quick)
	r := rand.New(rand.NewPCG(8, 9))
	plan := make([]mutation, 3*clients*each)
	for i := range plan {
		// A third in the flights, the rest in the records behind them.
		plan[i] = mutation{toServer: i%2 == 0, at: r.IntN(1800), kind: r.IntN(mutationKinds), mask: 1 << r.IntN(8)}
		if i%3 == 0 {
			plan[i].at = r.IntN(400)
		}
	}
	done := make([]atomic.Bool, len(plan))
	tap := newRelay(t, server.at())
	tap.mutate = func(k int, toServer bool, at int, b []byte) []byte {
		if k >= len(plan) || plan[k].toServer != toServer {
			return b
		}
		return plan[k].apply(at, b, &done[k])
	}
	var whole, changed atomic.Int64
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case e := <-server.events:
				if e.Type == crust.EventMessage && !bytes.Equal(e.Data, text) {
					changed.Add(1)
				} else if e.Type == crust.EventMessage {
					whole.Add(1)
					server.Send(e.Peer, e.Data, 1) //nolint:errcheck // the session may be gone
				}
			case <-stop:
				return
			}
		}
	})
	var wg sync.WaitGroup
	quick.NoListen = true
	for range clients {
		n := start(t, quick)
		wg.Go(func() {
			for i := range each {
				if err := disturbed(n, server, tap.at(), uint64(i+1), text); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	mustConnectWithinASecond(t, server, network)
	wg.Wait()
	mustConnectWithinASecond(t, server, network)
	close(stop)
	reader.Wait()
	hit := 0
	for i := range done {
		if done[i].Load() {
			hit++
		}
	}
	t.Logf("count: %d mutated conversations over sockets, of %d; %d messages came whole", hit, clients*each, whole.Load())
	if changed.Load() != 0 {
		t.Errorf("%d changed messages were delivered", changed.Load())
	}
	if hit < clients*each*3/4 || whole.Load() == 0 {
		t.Errorf("only %d mutations hit anything, %d messages came through", hit, whole.Load())
	}
}

// disturbed is one conversation that may fail at any point, but must end.
func disturbed(n, server *node, at crust.Endpoint, token uint64, text []byte) error {
	if _, err := n.connect(at, server.ID(), token); err != nil {
		if strings.Contains(err.Error(), "did not come") {
			return err
		}
		return nil
	}
	if err := n.Send(server.ID(), text, 1); err == nil {
		timer := time.NewTimer(300 * time.Millisecond) // a changed length may make either side wait for more
		defer timer.Stop()
		for waiting := true; waiting; {
			select {
			case e := <-n.events:
				if e.Type == crust.EventMessage && !bytes.Equal(e.Data, text) {
					return fmt.Errorf("a changed message of %d bytes was delivered", len(e.Data))
				}
				if e.Type == crust.EventLost {
					return nil
				}
				waiting = e.Type != crust.EventMessage
			case <-timer.C:
				waiting = false
			}
		}
	}
	if err := n.Disconnect(server.ID()); err != nil {
		return nil // it is lost already
	}
	_, err := n.next(of(crust.EventLost, server.ID()))
	return err
}

// TestMutatedFlightsOverSockets sends the service first flights and more, changed
// at random, as fast as it takes them, without waiting for the close.
func TestMutatedFlightsOverSockets(t *testing.T) {
	const network, total, senders = "flooded", 6000, 8
	victim := start(t, crust.Config{NetworkName: network})
	fresh, old := flights(t, network, 20), answered(t, victim, network, 20)
	at := victim.at().Addr.String()
	before := measure(t)
	var next, bytesBack atomic.Int64
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(s), 5))
			for next.Add(1) <= total {
				b := flip(r, fresh[r.IntN(len(fresh))], authentic)
				if r.IntN(3) == 0 {
					b = flip(r, old[r.IntN(len(old))], func(int) bool { return true })
				}
				c, err := net.Dial("tcp", at)
				if err != nil {
					t.Error(err)
					return
				}
				c.Write(b) //nolint:errcheck // the service may have shown it out already
				if r.IntN(50) == 0 {
					c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) //nolint:errcheck // a closed one shows in the read
					n, _ := c.Read(make([]byte, 1))
					bytesBack.Add(int64(n))
				}
				c.Close() //nolint:errcheck // on to the next
			}
		})
	}
	for range 3 {
		mustConnectWithinASecond(t, victim, network)
	}
	wg.Wait()
	t.Logf("count: %d mutated first flights over sockets", total)
	if bytesBack.Load() != 0 {
		t.Errorf("%d answers", bytesBack.Load())
	}
	mustConnectWithinASecond(t, victim, network)
	until(t, victim, "all gone", func(s crust.Stats) bool { return s.Handshakes == 0 })
	mustReturnTo(t, before)
}
