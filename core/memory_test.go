package crust_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestMaxMemory: what is sent to many peers whose programs take nothing stays within the
// bound of all queues together, is refused as would-block and counted; other peers get
// theirs, and whoever was refused is told when there is room.
func TestMaxMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 24 << 20
		internet := simnet.New(1)
		small := crust.Config{EventQueue: 64 << 10, MaxHandshakes: 64, MaxPeers: 16}
		cfg := small
		cfg.MaxMemory = most
		hub := newNode(t, crust.On(internet.Host("10.0.0.1"), over(cfg, "0.0.0.0", "tcp")))
		defer hub.Close()
		var peers []*node
		for i := range 10 {
			p := newNode(t, crust.On(internet.Host(fmt.Sprint("10.0.1.", i+1)), over(small, "0.0.0.0", "tcp")))
			defer p.Close()
			link(t, hub, p)
			peers = append(peers, p)
		}
		stalled, quick := peers[:9], peers[9]
		data, sent := make([]byte, 20_000), make([]int, len(stalled))
		for i, p := range stalled {
			for {
				if err := hub.Send(p.ID(), data, 1); err != nil {
					if !errors.Is(err, crust.CodeWouldBlock) {
						t.Fatal(err)
					}
					break
				}
				if sent[i]++; sent[i]%16 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}
		if s := hub.Stats(); s.MemoryBytes > most || s.MemoryBytes < most/4 || s.RefusedMemory == 0 {
			t.Errorf("%d bytes are held, of at most %d; refused %d times", s.MemoryBytes, most, s.RefusedMemory)
		}
		if err := hub.Send(quick.ID(), data, 1); err != nil {
			t.Errorf("a peer that takes what it gets: %v", err)
		}
		quick.next(crust.EventMessage)
		for i, p := range stalled {
			for range sent[i] {
				p.next(crust.EventMessage)
			}
		}
		for range stalled {
			hub.next(crust.EventWritable)
		}
		time.Sleep(2 * time.Minute) // what a quiet session keeps is given back with heartbeats
		if n := hub.Stats().MemoryBytes; n > 100_000 {
			t.Errorf("%d bytes are held when all has arrived", n)
		}
	})
}

// TestAnswersWithoutMemory: a program that answers each message before it takes the next one
// goes on when the bound refuses memory for its answers: what makes some free comes behind
// messages for which the program has no room.
func TestAnswersWithoutMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const messages, size, answer = 500, 10_000, 200_000
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		tight := crust.Config{EventQueue: 1 << 20, MaxHandshakes: 64, MaxMemory: 24 << 20}
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{}, "0.0.0.0", "tcp")))
		defer a.Close()
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), over(tight, "0.0.0.0", "tcp")))
		defer b.Close()
		link(t, a, b)
		askAndAnswer(t, a, b, messages, size, answer, 10*time.Minute)
		if b.Stats().RefusedMemory == 0 {
			t.Error("memory was never short")
		}
		time.Sleep(2 * time.Minute)
		if n := b.Stats().MemoryBytes; n > 100_000 {
			t.Errorf("%d bytes are held when all has arrived", n)
		}
	})
}

// TestMaxMemoryOutOfBounds: a bound that has no room for the others is refused, and the
// default follows them.
func TestMaxMemoryOutOfBounds(t *testing.T) {
	for _, c := range []struct {
		cfg crust.Config
		ok  bool
	}{
		{crust.Config{}, true},
		{crust.Config{MaxMemory: 1}, false},
		{crust.Config{MaxMemory: -1}, false},
		{crust.Config{MaxMemory: 95 << 20}, false},
		{crust.Config{MaxMemory: 96 << 20}, true},
		{crust.Config{MaxMemory: 96 << 20, EventQueue: 17 << 20}, false},
		{crust.Config{EventQueue: 1 << 30, SendQueue: 1 << 30}, true},
	} {
		c.cfg.NoListen = true
		s, err := crust.New(c.cfg)
		if err == nil {
			s.Close()
		}
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, crust.CodeInvalid) || !strings.Contains(err.Error(), "MaxMemory")) {
			t.Errorf("MaxMemory %d, EventQueue %d: %v", c.cfg.MaxMemory, c.cfg.EventQueue, err)
		}
	}
}
