package hostile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// harm is what an attacker on the path does to the datagrams of one conversation.
type harm struct {
	toServer bool
	number   int // of the datagram
	kind     string
	seed     uint64
}

// harms are the kinds of harm. Each is given a datagram and one that was seen
// before in the same direction, and returns what arrives.
var harms = map[string]func(r *rand.Rand, b, before []byte) [][]byte{
	"flipped":       func(r *rand.Rand, b, _ []byte) [][]byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return [][]byte{b} },
	"cut":           func(r *rand.Rand, b, _ []byte) [][]byte { return [][]byte{b[:r.IntN(len(b))]} },
	"longer":        func(r *rand.Rand, b, _ []byte) [][]byte { return [][]byte{append(b, byte(r.Uint32()))} },
	"lost":          func(*rand.Rand, []byte, []byte) [][]byte { return nil },
	"doubled":       func(_ *rand.Rand, b, _ []byte) [][]byte { return [][]byte{b, b, b} },
	"after another": func(_ *rand.Rand, b, before []byte) [][]byte { return [][]byte{before, b} },
	"replaced":      func(_ *rand.Rand, _, before []byte) [][]byte { return [][]byte{before} },
	"noise": func(r *rand.Rand, b, _ []byte) [][]byte {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return [][]byte{b}
	},
	"head of another": func(_ *rand.Rand, b, before []byte) [][]byte {
		return [][]byte{append(bytes.Clone(before[:min(16, len(before))]), b[min(16, len(b)):]...)}
	},
}

// TestUDPMutatedConversations lets peers talk through a relay that harms one
// datagram in each conversation, and its neighbours: in a flight or behind. A
// harmed datagram is a lost one: every conversation reaches its end all the same,
// and no message arrives changed, twice or out of turn.
func TestUDPMutatedConversations(t *testing.T) {
	const network, clients, each = "mutated datagrams", 8, 100
	text := []byte(strings.Repeat("a message that must come whole or not at all ", 130))
	server := startUDP(t, crust.Config{NetworkName: network})
	r := rand.New(rand.NewPCG(4, 9))
	var kinds []string
	for kind := range harms {
		kinds = append(kinds, kind)
	}
	plan := make([]harm, clients*each)
	for i := range plan {
		// Half in the flights and what follows at once, the rest behind.
		plan[i] = harm{toServer: i%2 == 0, number: r.IntN(3), kind: kinds[i/2%len(kinds)], seed: uint64(i)}
		if i%4 >= 2 {
			plan[i].number = 3 + r.IntN(12)
		}
	}
	done := make([]atomic.Bool, len(plan))
	var lastMu sync.Mutex
	last := map[[2]any][]byte{}
	tap := newUDPRelay(t, server.at())
	tap.keep = false
	tap.mutate = func(k int, toServer bool, number int, b []byte) [][]byte {
		lastMu.Lock()
		at := [2]any{k, toServer}
		before := last[at]
		last[at] = bytes.Clone(b)
		lastMu.Unlock()
		if k >= len(plan) || plan[k].toServer != toServer || number < plan[k].number || number > plan[k].number+1 {
			return [][]byte{b}
		}
		if before == nil {
			before = b
		}
		done[k].Store(true)
		return harms[plan[k].kind](rand.New(rand.NewPCG(plan[k].seed, uint64(number))), bytes.Clone(b), before)
	}
	stop := make(chan struct{})
	var echo sync.WaitGroup
	echo.Go(func() {
		for {
			select {
			case e := <-server.events:
				if e.Type == crust.EventMessage {
					server.Send(e.Peer, e.Data, 1) //nolint:errcheck // the session may be gone
				}
			case <-stop:
				return
			}
		}
	})
	var wg sync.WaitGroup
	var worst atomic.Int64
	for range clients {
		wg.Go(func() {
			for range each {
				began := time.Now()
				if err := harmed(server, network, tap, text); err != nil {
					t.Error(err)
					return
				}
				if took := int64(time.Since(began)); took > worst.Load() {
					worst.Store(took)
				}
			}
		})
	}
	mustConnectWithinASecond(t, server, network)
	wg.Wait()
	mustConnectWithinASecond(t, server, network)
	close(stop)
	echo.Wait()
	hit := 0
	for i := range done {
		if done[i].Load() {
			hit++
		}
	}
	t.Logf("count: %d harmed conversations of %d, each came to its end, the slowest within %v", hit, len(plan), time.Duration(worst.Load()).Round(time.Millisecond))
	if hit < len(plan)*3/4 {
		t.Errorf("only %d conversations were harmed", hit)
	}
}

// harmed is one conversation through the relay.
func harmed(server *node, network string, tap *udpRelay, text []byte) error {
	c, err := newClient(crust.Config{NetworkName: network})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // said everything
	defer tap.forget(c.at)
	if err := c.connect(tap.at(), server.ID()); err != nil {
		return err
	}
	for k := range 3 {
		message := fmt.Appendf(nil, "%d: %s", k, text)
		if err := c.Send(server.ID(), message, 1); err != nil {
			return err
		}
		e, err := c.await(crust.EventMessage)
		if err != nil || !bytes.Equal(e.Data, message) {
			return fmt.Errorf("message %d came back as %d bytes, %w", k, len(e.Data), err)
		}
	}
	if err := c.Disconnect(server.ID()); err != nil {
		return err
	}
	e, err := c.await(crust.EventLost)
	if e.Type != crust.EventLost || e.Code() != crust.CodeDisconnected {
		return fmt.Errorf("the end was %v: %w", e.Type, err)
	}
	return nil
}
