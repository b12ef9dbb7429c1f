package crust_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// comes connects a new node at an address to the besieged service, and returns it with
// its answer.
func (s *siege) comes(t *testing.T, at string, cfg crust.Config) (*node, crust.Event) {
	t.Helper()
	cfg.NoListen = true
	n := newNode(t, crust.On(s.host(at), cfg))
	return n, s.again(t, n)
}

// again connects a node once more.
func (s *siege) again(t *testing.T, n *node) crust.Event {
	t.Helper()
	if err := n.ConnectEndpoint(crust.Contact{Endpoint: s.at}, 1); err != nil {
		t.Fatal(err)
	}
	e := n.next(crust.EventConnected, crust.EventConnectFailed, crust.EventLost)
	if e.Type == crust.EventConnected { // the service may refuse a session that was begun at once
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if n.EventsPending() {
			e = n.next(crust.EventLost, crust.EventConnected)
		}
	}
	return e
}

// refusals returns what was logged of sessions that were refused.
func (b *logBook) refusals() (list []string) {
	for _, r := range b.all() {
		if r.Message != "sessions refused" {
			continue
		}
		var words []string
		r.Attrs(func(a slog.Attr) bool {
			words = append(words, a.Value.String())
			return true
		})
		list = append(list, strings.Join(words, " "))
	}
	return list
}

// TestBoundsOfSessions: beyond each bound a session is refused with a code, counted, and logged with the
// name of the bound; within, and when there is room again, none is.
func TestBoundsOfSessions(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   crust.Config
		first []string // who gets in
		then  string   // who does not
		other string   // who still does
		why   string   // as it is logged
	}{
		"inbound": {crust.Config{MaxPeers: 3, MaxInbound: 2}, []string{"192.0.2.1", "198.51.100.1"}, "203.0.113.9", "", "max_inbound"},
		"address": {crust.Config{MaxPeersPerAddress: 2}, []string{"192.0.2.1", "192.0.2.1"}, "192.0.2.1", "192.0.2.2", "max_peers_per_address"},
		"prefix":  {crust.Config{MaxPeersPerPrefix: 2}, []string{"192.0.2.1", "192.0.2.2"}, "192.0.2.3", "198.51.100.1", "max_peers_per_prefix"},
		"all":     {crust.Config{MaxPeers: 1}, []string{"192.0.2.1"}, "198.51.100.1", "", "max_peers"},
	} {
		t.Run(name, func(t *testing.T) {
			book := &logBook{}
			besiege(t, loggedTo(book, slog.LevelWarn, c.cfg), func(t *testing.T, s *siege) {
				var last *node
				for _, at := range c.first {
					n, e := s.comes(t, at, crust.Config{})
					defer n.Close()
					if last = n; e.Type != crust.EventConnected {
						t.Fatalf("%s: %v", at, e.Err())
					}
				}
				n, e := s.comes(t, c.then, crust.Config{})
				defer n.Close()
				if e.Code() != crust.CodeLimit {
					t.Errorf("one more from %s: %v (%v)", c.then, e.Type, e.Err())
				}
				if c.other != "" {
					n, e := s.comes(t, c.other, crust.Config{})
					defer n.Close()
					if e.Type != crust.EventConnected {
						t.Errorf("%s: %v", c.other, e.Err())
					}
				}
				if st := s.node.Stats(); st.RefusedSessions != 1 || st.ShedSessions != 0 {
					t.Errorf("%d refused, %d shed; want 1 and none", st.RefusedSessions, st.ShedSessions)
				}
				synctest.Wait() // records are handed on
				if why := book.refusals(); !slices.Equal(why, []string{c.why + " 1 " + n.ID().Short()}) {
					t.Errorf("logged is %q", why)
				}
				last.Close() // there is room again
				time.Sleep(time.Second)
				if e := s.again(t, n); e.Type != crust.EventConnected {
					t.Errorf("after another one has left: %v", e.Err())
				}
			})
		})
	}
}

// TestRefusedOnce: a service that has dialled as many as it may have refuses one more that it dials, and
// counts that once.
func TestRefusedOnce(t *testing.T) {
	besiege(t, crust.Config{MaxPeers: 1}, func(t *testing.T, s *siege) {
		for i, at := range []string{"192.0.2.1", "198.51.100.1"} {
			n := newNode(t, crust.On(s.net.Host(at), crust.Config{Listen: []crust.Endpoint{endpointAt(at + ":7")}}))
			defer n.Close()
			if err := s.node.ConnectEndpoint(crust.Contact{Endpoint: endpointAt(at + ":7"), Peer: n.ID()}, 1); err != nil {
				t.Fatal(err)
			}
			e := s.node.next(crust.EventConnected, crust.EventConnectFailed)
			if want := []crust.Code{crust.CodeOK, crust.CodeLimit}[i]; e.Code() != want {
				t.Errorf("dial %d: %v %v, want code %v", i, e.Type, e.Err(), want)
			}
		}
		if st := s.node.Stats(); st.RefusedSessions != 1 {
			t.Errorf("%d sessions are counted as refused", st.RefusedSessions)
		}
	})
}

// Who is known, or of a kept group, gets in when strangers fill the table, and one of
// them goes, with an event on both sides.
func TestRoomForWhoIsKnown(t *testing.T) {
	for name, introduce := range map[string]func(t *testing.T, s *siege, n *node){
		"kept": func(t *testing.T, s *siege, n *node) {
			if err := s.node.Keep(crust.Group{Name: "friends", Peers: []crust.PeerID{n.ID()}}); err != nil {
				t.Fatal(err)
			}
		},
		"known": func(t *testing.T, s *siege, n *node) {
			if e := s.again(t, n); e.Type != crust.EventConnected {
				t.Fatal(e.Err())
			}
			time.Sleep(11 * time.Second)
			if err := n.Disconnect(s.node.ID()); err != nil {
				t.Fatal(err)
			}
			n.next(crust.EventLost)
		},
	} {
		t.Run(name, func(t *testing.T) {
			besiege(t, crust.Config{MaxPeers: 3}, func(t *testing.T, s *siege) {
				friend := newNode(t, crust.On(s.net.Host("198.51.100.1"), crust.Config{NoListen: true}))
				defer friend.Close()
				introduce(t, s, friend)
				var strangers []*node
				for i := range 3 {
					n, e := s.comes(t, fmt.Sprintf("192.0.%d.1", i), crust.Config{})
					defer n.Close()
					if e.Type != crust.EventConnected {
						t.Fatalf("stranger %d: %v", i, e.Err())
					}
					strangers = append(strangers, n)
					time.Sleep(time.Second)
				}
				if e := s.again(t, friend); e.Type != crust.EventConnected {
					t.Fatalf("the friend: %v", e.Err())
				}
				if e := strangers[2].next(crust.EventLost); e.Code() != crust.CodeLimit {
					t.Errorf("the stranger who came last lost its session with %v", e.Err())
				}
				time.Sleep(time.Second)
				if st := s.node.Stats(); st.ShedSessions != 1 || st.Peers != 3 {
					t.Errorf("%d shed, %d peers; want 1 and 3", st.ShedSessions, st.Peers)
				}
				if _, ok := s.node.Peer(friend.ID()); !ok {
					t.Error("the friend is not connected")
				}
				var lost crust.Event
				for lost.Peer != strangers[2].ID() || lost.Type != crust.EventLost {
					lost = s.node.next(crust.EventConnected, crust.EventLost, crust.EventGroup)
				}
				if lost.Code() != crust.CodeLimit {
					t.Errorf("the service says %v of who had to go", lost.Err())
				}
			})
		})
	}
}

func TestBoundsOfMessages(t *testing.T) {
	for name, cfg := range map[string]crust.Config{
		"bytes":    {PeerBytesPerSecond: 64 << 10},
		"messages": {PeerMessagesPerSecond: 100},
	} {
		t.Run(name, func(t *testing.T) {
			besiege(t, cfg, func(t *testing.T, s *siege) {
				bad, e := s.comes(t, offenderAt, crust.Config{})
				defer bad.Close()
				good, other := s.comes(t, innocentAt, crust.Config{})
				defer good.Close()
				if e.Type != crust.EventConnected || other.Type != crust.EventConnected {
					t.Fatal(e.Err(), other.Err())
				}
				const count, size = 4000, 1 << 10
				began := time.Now()
				for range count {
					if err := bad.Send(s.node.ID(), make([]byte, size), 1); err != nil {
						t.Fatal(err)
					}
				}
				if err := good.SendReceipt(s.node.ID(), []byte("hello"), 1, 9); err != nil {
					t.Fatal(err)
				}
				var alerts []crust.Alert
				for got := 0; got < count+1; {
					switch e := s.node.next(crust.EventMessage, crust.EventConnected, crust.EventAlert); e.Type {
					case crust.EventMessage:
						if got++; e.Peer == good.ID() && time.Since(began) > time.Second {
							t.Errorf("another peer's message came after %v", time.Since(began))
						}
					case crust.EventAlert:
						alerts = append(alerts, e.Alert())
					}
				}
				want := 62 * time.Second
				if cfg.PeerMessagesPerSecond > 0 {
					want = 40 * time.Second
				}
				// Up to a second's worth comes at once, and as much in the last read.
				if took := time.Since(began); took < want-5*time.Second || took > want+5*time.Second {
					t.Errorf("%d messages of %d bytes took %v, want some %v", count, size, took, want)
				}
				if len(alerts) == 0 {
					t.Error("no alert about a peer that was held back for so long")
				}
				for _, a := range alerts {
					if a.Kind != crust.AlertFlood || a.Peer != bad.ID() {
						t.Errorf("alert %+v", a)
					}
				}
				if st := s.node.Stats(); st.RatePauses == 0 {
					t.Error("no pause was counted")
				}
			})
		})
	}
}
