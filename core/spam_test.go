package crust_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// spamming is a service, whose program takes some 1 MiB a second, a peer that sends it 256 KiB
// a second, and one that says what is allowed as fast as it can.
type spamming struct {
	at, good, bad *node

	mu       sync.Mutex
	received map[crust.PeerID]int // bytes of messages and datagrams
	alerts   []crust.Alert
	lost     []crust.Event

	records [][]byte // of the spammer, made up
}

// spammer says something once, the number-th time, and reports whether there was room.
type spammer func(s *spamming, number int) bool

func spamIn(t *testing.T, cfg crust.Config, transport string, f func(t *testing.T, s *spamming)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond, Bandwidth: 2 << 20})
		cfg.EventQueue = 1 << 19
		start := func(host string, cfg crust.Config) *node {
			return newNode(t, crust.On(internet.Host(host), gossiping(cfg, "0.0.0.0", transport)))
		}
		s := &spamming{received: map[crust.PeerID]int{}}
		s.at, s.good, s.bad = start(guardedAt, cfg), start(innocentAt, crust.Config{}), start(offenderAt, crust.Config{})
		for _, n := range []*node{s.good, s.bad} {
			link(t, n, s.at)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { s.take(ctx) })
		all.Go(func() { s.talk(ctx) })
		for _, n := range []*node{s.good, s.bad} { // what others may say of them does not matter
			all.Go(func() {
				for range n.Events(ctx) {
				}
			})
		}
		f(t, s)
		cancel()
		for _, n := range []*node{s.bad, s.good, s.at} {
			n.Close()
		}
		all.Wait()
	})
}

// take is the program of the service.
func (s *spamming) take(ctx context.Context) {
	for {
		batch, err := s.at.NextBatch(ctx, 64)
		if err != nil {
			return
		}
		n := 0
		s.mu.Lock()
		for _, e := range batch.Events {
			s.received[e.Peer] += len(e.Data)
			n += len(e.Data)
			switch e.Type {
			case crust.EventAlert:
				s.alerts = append(s.alerts, e.Alert())
			case crust.EventLost:
				s.lost = append(s.lost, e)
			}
		}
		s.mu.Unlock()
		batch.Release()
		time.Sleep(time.Duration(n) * time.Second / (1 << 20))
	}
}

// talk is the program of the good peer.
func (s *spamming) talk(ctx context.Context) {
	tick := time.NewTicker(time.Second / 64)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		if s.good.SendWait(ctx, s.at.ID(), make([]byte, 4<<10), 1) != nil {
			return
		}
	}
}

// rate returns how many bytes a second come of a peer within a time.
func (s *spamming) rate(of *node, d time.Duration) int {
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.received[of.ID()]
	}
	before := count()
	time.Sleep(d)
	return int(float64(count()-before) / d.Seconds())
}

// message returns a spammer that sends messages of a size.
func message(size int) spammer {
	return func(s *spamming, _ int) bool { return s.bad.Send(s.at.ID(), make([]byte, size), 1) == nil }
}

// datagrams returns one of datagrams.
func datagrams(size int) spammer {
	return func(s *spamming, number int) bool {
		return s.bad.SendDatagram(s.at.ID(), make([]byte, size)) == nil && number%2 != 0
	}
}

// frames returns a spammer that sends frames.
func frames(frame func(s *spamming, number int) []byte) spammer {
	return func(s *spamming, number int) bool {
		return crust.Control(s.bad.Service, s.at.ID(), frame(s, number)) && number%2 != 0
	}
}

// TestSpammers: whatever a peer with a session says as fast as it can, others keep their
// throughput; alerts name it, by its key, and nobody else; and when the program bans whom an alert
// suggests, it is lost at once and nothing more comes of it.
func TestSpammers(t *testing.T) {
	number := func(n int) (id [16]byte) {
		binary.BigEndian.PutUint64(id[:], uint64(n))
		return id
	}
	for name, c := range map[string]struct {
		cfg       crust.Config
		transport string
		kind      crust.AlertKind // zero: nobody is accused
		spam      spammer
	}{
		"messages":         {crust.Config{PeerMessagesPerSecond: 1000}, "tcp", crust.AlertFlood, message(1)},
		"bytes":            {crust.Config{PeerBytesPerSecond: 1 << 19}, "tcp", crust.AlertFlood, message(30_000)},
		"bytes over uTP":   {crust.Config{PeerBytesPerSecond: 1 << 19}, "utp", crust.AlertFlood, message(30_000)},
		"without bounds":   {crust.Config{}, "tcp", 0, message(30_000)},
		"small, unbounded": {crust.Config{}, "tcp", 0, message(100)},
		"datagrams":        {crust.Config{PeerMessagesPerSecond: 500}, "tcp", crust.AlertFlood, datagrams(100)},
		"datagrams in UDP": {crust.Config{PeerMessagesPerSecond: 500}, "utp", crust.AlertFlood, datagrams(1000)},
		"letters": {crust.Config{}, "tcp", crust.AlertRelay, frames(func(_ *spamming, n int) []byte {
			return wire.Seek{ID: number(n), To: crust.PeerID{7}, Hops: wire.MaxHops - 1, Letter: make([]byte, 200)}.Append(nil)
		})},
		"gossip": {crust.Config{}, "tcp", crust.AlertGossip, func(s *spamming, n int) bool {
			if len(s.records) < 5000 {
				_, raw := madeUp(n, nil)
				s.records = append(s.records, raw)
				return true
			}
			at := n % 250 * 20
			crust.Control(s.bad.Service, s.at.ID(), news(s.records[at:at+20]...))
			return false
		}},
		"circuits": {crust.Config{Relay: crust.RelayData}, "tcp", crust.AlertRelay, frames(func(s *spamming, n int) []byte {
			id := uint32(n) << 1
			if s.bad.ID().Compare(s.at.ID()) > 0 {
				id++
			}
			return wire.RelayOpen{ID: id, Peer: crust.PeerID{7}}.Append(nil)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			span := 26 * time.Second // the program takes up to 64 large messages, and then none for two seconds
			if name == "gossip" || name == "datagrams in UDP" {
				span = 6 * time.Second // these are small, and slow to simulate
			}
			spamIn(t, c.cfg, c.transport, func(t *testing.T, s *spamming) { s.run(t, c.spam, c.kind, span) })
		})
	}
}

// run spams, and looks for a span of time what comes of it.
func (s *spamming) run(t *testing.T, spam spammer, kind crust.AlertKind, span time.Duration) {
	quiet := s.rate(s.good, 4*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	var spams sync.WaitGroup
	spams.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			if !spam(s, n) {
				time.Sleep(time.Millisecond)
			}
		}
	})
	time.Sleep(4 * time.Second)
	under := s.rate(s.good, span)
	alerted := func() []crust.Alert {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.alerts
	}
	for began := time.Now(); kind != 0 && len(alerted()) == 0 && time.Since(began) < 20*time.Second; {
		time.Sleep(time.Second)
	}
	alerts := alerted()
	suggest, named := crust.BanTarget{Peer: s.bad.ID()}, 0
	for _, a := range alerts {
		if a.Peer != s.bad.ID() || a.Kind != kind || a.Figures.Count == 0 || a.Address.String() != offenderAt+"/32" {
			t.Errorf("alert: %s", a.Text())
		}
		suggest = a.Suggest
		named++
	}
	if n := s.at.Stats().RefusedHelp; n > 0 != (kind == crust.AlertRelay) {
		t.Errorf("%d letters, circuits and tests are counted as refused", n)
	}
	if named > 0 != (kind != 0) || suggest.Peer != s.bad.ID() {
		t.Errorf("%d alerts name the spammer, the last suggests %v", named, suggest)
	}
	if err := s.at.Ban([]crust.BanEntry{suggest.Entry("spam")}, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // what has come before is taken
	if n := s.rate(s.bad, time.Second); n != 0 {
		t.Errorf("after the ban %d bytes a second come of the spammer", n)
	}
	after := s.rate(s.good, 4*time.Second)
	cancel()
	spams.Wait()
	t.Logf("%d KiB/s, %d in the spam, %d after the ban", quiet>>10, under>>10, after>>10)
	for _, n := range []int{quiet, under, after} {
		if n < 250<<10 {
			t.Errorf("%d bytes a second came of the other peer, want %d", n, 256<<10)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lost) != 1 || s.lost[0].Peer != s.bad.ID() || !errors.Is(s.lost[0].Err(), crust.CodeBanned) {
		t.Errorf("%d sessions were lost", len(s.lost))
	}
}

// TestCarriersAreNotAccused: who carries letters of others, with fewer hops, is not accused of
// their number, however many they are; nor is a program that seeks a thousand peers at once.
func TestCarriersAreNotAccused(t *testing.T) {
	for name, c := range map[string]struct {
		hops        uint8
		rounds, per int // seconds, and letters in each
	}{"carries": {wire.MaxHops - 2, 10, 2000}, "seeks": {wire.MaxHops - 1, 60, 250}, "seeks at once": {wire.MaxHops - 1, 1, 4000}} {
		t.Run(name, func(t *testing.T) {
			spamIn(t, crust.Config{}, "tcp", func(t *testing.T, s *spamming) {
				for r := range c.rounds {
					for i := range c.per {
						id := [wire.MeetingID]byte{byte(i), byte(i >> 8), byte(r)}
						for !crust.Control(s.bad.Service, s.at.ID(), wire.Seek{ID: id, To: crust.PeerID{7}, Hops: c.hops, Letter: make([]byte, 200)}.Append(nil)) {
							time.Sleep(time.Millisecond)
						}
					}
					time.Sleep(time.Second)
				}
				if st := s.at.Stats(); st.Alerts != 0 {
					t.Errorf("%d alerts", st.Alerts)
				}
			})
		})
	}
}
