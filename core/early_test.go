package crust_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// earlyWorld is two nodes that reach each other by a relay alone, which gives one-time
// keys as it likes.
type earlyWorld struct {
	t    *testing.T
	a, b *node
	evil *evilRelay
	keys []*identity.Key
	net  *simnet.Net
	ha   *simnet.Host
	hb   *simnet.Host
	cfg  crust.Config
}

// earlyHop is how far the nodes are from the relay.
const earlyHop = 20 * time.Millisecond

// inEarlyWorld runs f in a world. With seed 0 the caller has the lesser peer id, with 1
// the greater one.
func inEarlyWorld(t *testing.T, seed int, f func(t *testing.T, w *earlyWorld)) {
	inEarlyWorldOf(t, seed, earlyHop, f)
}

// inEarlyWorldOf is inEarlyWorld with the nodes so far from the relay.
func inEarlyWorldOf(t *testing.T, seed int, hop time.Duration, f func(t *testing.T, w *earlyWorld)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(uint64(seed))
		internet.SetDefaultLink(simnet.Link{Latency: hop})
		ha, hb, hr := internet.Host("10.0.0.1"), internet.Host("10.0.0.2"), internet.Host("10.0.0.3")
		internet.Silence(ha, hb)
		w := &earlyWorld{t: t, net: internet, keys: sortedKeys(t, 4), ha: ha, hb: hb}
		w.evil = newEvilRelay(t, hr, w.keys[3], func(_ int, d []byte) [][]byte { return [][]byte{d} })
		defer w.evil.close()
		w.cfg = over(crust.Config{ResumeWindow: 5 * time.Second, ConnectTimeout: 5 * time.Second, HandshakeTimeout: time.Second}, "0.0.0.0", "tcp")
		w.cfg.Identity = w.keys[seed]
		w.a = newNode(t, crust.On(ha, w.cfg))
		defer w.a.Close()
		w.cfg.Identity = w.keys[1-seed]
		w.b = newNode(t, crust.On(hb, w.cfg))
		defer func() { w.b.Close() }()
		w.join(w.a)
		w.join(w.b)
		time.Sleep(time.Second)
		f(t, w)
	})
}

// tell changes what the relay does.
func (w *earlyWorld) tell(f func(e *evilRelay)) {
	w.evil.mu.Lock()
	defer w.evil.mu.Unlock()
	f(w.evil)
}

// join connects a node to the relay.
func (w *earlyWorld) join(n *node) {
	w.t.Helper()
	if err := n.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.3:9"), Peer: w.evil.id}, 1); err != nil {
		w.t.Fatal(err)
	}
	n.next(crust.EventConnected)
}

// firsts returns n messages of so many bytes to go with a call.
func firsts(n, size int) (list [][]byte) {
	for k := range n {
		list = append(list, filled(size, uint64(k)))
	}
	return list
}

// call connects a to b, with messages that go with the call, and sends more both ways. It returns after which
// time a was connected, and b had its first message. All must come once and in order.
func (w *earlyWorld) call(token uint64) (connected, there time.Duration) {
	w.t.Helper()
	const messages, each = 10, 1500
	first := firsts(messages, each)
	began := time.Now()
	if err := w.a.ConnectPeer(w.b.ID(), token, first...); err != nil {
		w.t.Fatal(err)
	}
	for _, m := range first { // they were copied
		clear(m)
	}
	if n := len(w.a.Peers()); n != 1 {
		w.t.Errorf("%d peers before there is an answer", n)
	}
	if e := w.a.next(crust.EventConnected); e.Peer != w.b.ID() || e.Token != token {
		w.t.Fatalf("connected to %v by token %d", e.Peer.Short(), e.Token)
	}
	connected = time.Since(began)
	for k := range uint64(messages) {
		if err := w.a.Send(w.b.ID(), filled(each, messages+k), crust.MustArrive); err != nil {
			w.t.Fatal(err)
		}
	}
	w.b.next(crust.EventConnected)
	for k := range uint64(2 * messages) {
		if e := w.b.pastMoves(crust.EventMessage); string(e.Data) != string(filled(each, k)) || e.Priority != crust.MustArrive {
			w.t.Fatalf("message %d is wrong", k)
		}
		if k == 0 { // when a is connected at the soonest
			there = time.Since(began)
		}
	}
	for k := range uint64(messages) {
		if err := w.b.Send(w.a.ID(), filled(3000, k), 1); err != nil {
			w.t.Fatal(err)
		}
	}
	for k := range uint64(messages) {
		if e := w.a.pastMoves(crust.EventMessage); string(e.Data) != string(filled(3000, k)) {
			w.t.Fatalf("answer %d is wrong", k)
		}
	}
	w.quiet()
	return connected, there
}

// quiet checks that nothing else comes, and that there is one session between the two.
func (w *earlyWorld) quiet() {
	w.t.Helper()
	time.Sleep(5 * time.Second)
	for _, n := range []*node{w.a, w.b} {
		for _, e := range n.waiting() {
			if e.Type == crust.EventMessage || e.Type == crust.EventLost || e.Type == crust.EventSuspended || e.Type == crust.EventConnected {
				w.t.Errorf("%v in the end: %v", e.Type, e.Err())
			}
		}
		if st := n.Stats(); st.Peers != 2 {
			w.t.Errorf("%d sessions", st.Peers)
		}
	}
}

// part ends the session between the two.
func (w *earlyWorld) part() {
	w.t.Helper()
	if err := w.a.Disconnect(w.b.ID()); err != nil {
		w.t.Fatal(err)
	}
	w.a.next(crust.EventLost)
	w.b.next(crust.EventLost)
	time.Sleep(time.Second)
}

// TestEarlyKeys: whatever a relay does with the keys that were left with it, a peer
// is connected and its messages are there after no more than without keys, once and in order.
func TestEarlyKeys(t *testing.T) {
	const trip = 4 * earlyHop
	var used *wire.OneTimeKey // by the call before
	theirs := func(k []wire.OneTimeKey, n int) *wire.OneTimeKey { k2 := k[len(k)-1-n]; return &k2 }
	for name, c := range map[string]struct {
		give   func(w *earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey)
		before func(w *earlyWorld)
		there  time.Duration
	}{
		"honest": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return newestKey
		}, there: trip},
		"none": {there: trip * 3 / 2},
		"told to the target only": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
				return nil, theirs(left, 0)
			}
		}, there: trip * 3 / 2},
		"given to the opener only": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
				return theirs(left, 0), nil
			}
		}, there: trip * 3 / 2},
		"another one told": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
				return theirs(left, 0), theirs(left, 1)
			}
		}, there: trip * 3 / 2},
		"of another peer": {give: func(w *earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
				return theirs(w.evil.left[w.a.ID()], 0), theirs(left, 0)
			}
		}, there: trip * 3 / 2},
		"twice": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
				if used == nil {
					used = theirs(left, 0)
				}
				return used, used
			}
		}, before: func(w *earlyWorld) {
			if connected, there := w.call(3); connected != trip || there != trip {
				w.t.Errorf("the first time: connected after %v, the message there after %v", connected, there)
			}
			w.part()
		}, there: trip * 3 / 2},
		"old": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) { return &left[0], &left[0] }
		}, before: func(*earlyWorld) { time.Sleep(65 * time.Minute) }, there: trip * 3 / 2},
		"renewed": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return newestKey
		},
			before: func(*earlyWorld) { time.Sleep(5 * time.Hour) }, there: trip},
		"taken back": {give: func(*earlyWorld) func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			return func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) { return &left[0], &left[0] }
		}, before: func(w *earlyWorld) {
			w.b.SetAccept(false)
			w.b.SetAccept(true)
			time.Sleep(time.Second)
		}, there: trip * 3 / 2},
	} {
		for seed := range 2 {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				used = nil
				inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
					if c.give != nil {
						w.tell(func(e *evilRelay) { e.give = c.give(w) })
					}
					if c.before != nil {
						c.before(w)
					}
					if connected, there := w.call(7); connected != trip || there != c.there {
						t.Errorf("connected after %v, want %v; the message there after %v, want %v", connected, trip, there, c.there)
					}
				})
			})
		}
	}
}

// gives has the relay give keys: with void set such as the peer does not answer with.
func (w *earlyWorld) gives(void func(crust.PeerID) bool) {
	w.tell(func(e *evilRelay) {
		e.give = func(p crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
			key, named = newestKey(p, left)
			if void(p) {
				named = nil
			}
			return key, named
		}
	})
}

// swallow has the relay lose frames from now on.
func (w *earlyWorld) swallow(which func(from crust.PeerID, kind wire.FrameType) bool) {
	w.tell(func(e *evilRelay) {
		e.hold = func(from crust.PeerID, kind wire.FrameType) (time.Duration, int) {
			if which(from, kind) {
				return -1, 0
			}
			return 0, 0
		}
	})
}

func never(crust.PeerID) bool { return false }

// TestEarlyAfterRestart: a relay gives a key of a peer's former life. What was sent for it
// is of no use to anybody, and comes to the peer as it is now.
func TestEarlyAfterRestart(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			var former wire.OneTimeKey
			w.tell(func(e *evilRelay) { former = e.left[w.b.ID()][0] })
			w.b.Close()
			w.b = newNode(t, crust.On(w.hb, w.cfg))
			w.join(w.b)
			time.Sleep(time.Second)
			w.tell(func(e *evilRelay) {
				e.give = func(crust.PeerID, []wire.OneTimeKey) (key, named *wire.OneTimeKey) { return &former, &former }
			})
			if connected, there := w.call(7); connected != 4*earlyHop || there != 6*earlyHop {
				t.Errorf("seed %d: connected after %v, the message there after %v", seed, connected, there)
			}
		})
	}
}

// TestEarlyToNobody: a relay gives a key and carries nothing. Nobody is connected before it
// has answered; the call fails, and a later one has what it says delivered.
func TestEarlyToNobody(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			w.gives(never)
			w.swallow(func(from crust.PeerID, kind wire.FrameType) bool {
				return from == w.a.ID() && kind != wire.FrameRelayOpen || from == w.b.ID()
			})
			if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("to nobody")); err != nil {
				t.Fatal(err)
			}
			for range 40 {
				time.Sleep(100 * time.Millisecond)
				if n := len(w.a.Peers()); n != 1 || w.a.Stats().Peers != 1 {
					t.Fatalf("%d peers, where there is the relay", n)
				}
				if err := w.a.Send(w.b.ID(), []byte("too soon"), 1); crust.CodeOf(err) != crust.CodeUnknownPeer {
					t.Fatalf("sent: %v", err)
				}
				if err := w.a.Disconnect(w.b.ID()); crust.CodeOf(err) != crust.CodeUnknownPeer {
					t.Fatalf("disconnected: %v", err)
				}
			}
			if e := w.a.next(crust.EventConnectFailed); e.Token != 7 || e.Code() != crust.CodeTimeout {
				t.Errorf("seed %d: token %d: %v", seed, e.Token, e.Err())
			}
			w.tell(func(e *evilRelay) { e.hold = nil })
			time.Sleep(10 * time.Second)
			w.call(8)
			if n := w.b.Stats().SessionsTotal; n != 2 {
				t.Errorf("seed %d: %d sessions", seed, n)
			}
		})
	}
}

// TestEarlyRefused: a peer stops to take sessions while a relay gives one of its keys. It
// takes nothing, and the call fails.
func TestEarlyRefused(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			w.gives(never)
			w.b.SetAccept(false)
			if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("unwanted")); err != nil {
				t.Fatal(err)
			}
			w.a.next(crust.EventConnectFailed)
			time.Sleep(time.Minute)
			for _, n := range []*node{w.a, w.b} {
				if st := n.Stats(); st.SessionsTotal != 1 {
					t.Errorf("seed %d: %d sessions", seed, st.SessionsTotal)
				}
				for _, e := range n.waiting() {
					t.Errorf("seed %d: %v", seed, e.Type)
				}
			}
		})
	}
}

// TestEarlyAnswerLost: the peer takes what went early, and its answer is lost with
// everything else that it says for a while. The session that it has goes on over another circuit, which
// either of the two opens: the messages are not delivered again.
func TestEarlyAnswerLost(t *testing.T) {
	for seed := range 2 {
		for _, late := range []time.Duration{1500 * time.Millisecond, 2500 * time.Millisecond} {
			inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
				w.gives(never)
				w.swallow(func(from crust.PeerID, kind wire.FrameType) bool { return from == w.b.ID() })
				time.AfterFunc(late, func() { w.tell(func(e *evilRelay) { e.hold = nil }) })
				if err := w.a.ConnectPeer(w.b.ID(), 7, firsts(10, 1500)...); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				w.b.next(crust.EventConnected)
				for k := range uint64(10) {
					if e := w.b.next(crust.EventMessage); string(e.Data) != string(filled(1500, k)) {
						t.Fatalf("message %d is wrong", k)
					}
				}
				if took := time.Since(began); took != 4*earlyHop {
					t.Errorf("seed %d: there after %v", seed, took)
				}
				if e := w.a.next(crust.EventConnected); e.Token != 7 || time.Since(began) < late {
					t.Errorf("seed %d: connected by token %d after %v", seed, e.Token, time.Since(began))
				}
				synctest.Wait()
				for _, e := range w.a.waiting() {
					t.Errorf("seed %d: %v of a session that has just appeared", seed, e.Type)
				}
				if err := w.a.Send(w.b.ID(), []byte("and more"), 1); err != nil {
					t.Fatal(err)
				}
				e := w.b.next(crust.EventMessage, crust.EventSuspended, crust.EventResumed)
				for e.Type != crust.EventMessage {
					e = w.b.next(crust.EventMessage, crust.EventSuspended, crust.EventResumed)
				}
				if string(e.Data) != "and more" {
					t.Errorf("seed %d: %q", seed, e.Data)
				}
				w.quiet()
				for _, n := range []*node{w.a, w.b} {
					if st := n.Stats(); st.SessionsTotal != 2 {
						t.Errorf("seed %d: %d sessions", seed, st.SessionsTotal)
					}
				}
			})
		}
	}
}

// TestEarlyAnswerLostAndOver: as above, but the peer closes the session that it has before
// another link comes. The call fails, since what went with it was delivered.
func TestEarlyAnswerLostAndOver(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			w.gives(never)
			w.swallow(func(from crust.PeerID, kind wire.FrameType) bool { return from == w.b.ID() })
			time.AfterFunc(1500*time.Millisecond, func() { w.tell(func(e *evilRelay) { e.hold = nil }) })
			if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("once")); err != nil {
				t.Fatal(err)
			}
			w.b.next(crust.EventConnected)
			w.b.next(crust.EventMessage)
			if err := w.b.Disconnect(w.a.ID()); err != nil {
				t.Fatal(err)
			}
			if e := w.a.next(crust.EventConnectFailed); e.Token != 7 || e.Code() != crust.CodeDisconnected {
				t.Errorf("seed %d: token %d: %v", seed, e.Token, e.Err())
			}
			time.Sleep(30 * time.Second)
			for _, e := range w.b.waiting() {
				if e.Type == crust.EventMessage {
					t.Errorf("seed %d: %q again", seed, e.Data)
				}
			}
		})
	}
}

// TestEarlyDropped: a relay loses what goes early, and carries the answer. The session
// breaks and goes on over another circuit, by which the messages come, once.
func TestEarlyDropped(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			w.gives(never)
			w.swallow(func(_ crust.PeerID, kind wire.FrameType) bool { return kind == wire.FrameRelayEarly })
			if err := w.a.ConnectPeer(w.b.ID(), 7, firsts(10, 1500)...); err != nil {
				t.Fatal(err)
			}
			w.a.next(crust.EventConnected)
			w.b.next(crust.EventConnected)
			for k := range uint64(10) {
				if e := w.b.next(crust.EventMessage); string(e.Data) != string(filled(1500, k)) {
					t.Fatalf("message %d is wrong", k)
				}
			}
			for _, n := range []*node{w.a, w.b} {
				time.Sleep(5 * time.Second)
				for _, e := range n.waiting() {
					if e.Type != crust.EventSuspended && e.Type != crust.EventResumed {
						t.Errorf("seed %d: %v in the end", seed, e.Type)
					}
				}
			}
		})
	}
}

// TestEarlyTwoOpeners: a relay gives one key to two who call at once. One of them has its
// messages there after a round trip, and the other half of one later.
func TestEarlyTwoOpeners(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			h := w.net.Host("10.0.0.4")
			w.net.Silence(h, w.hb)
			cfg := w.cfg
			cfg.Identity = w.keys[2]
			c := newNode(t, crust.On(h, cfg))
			defer c.Close()
			w.join(c)
			time.Sleep(time.Second)
			w.tell(func(e *evilRelay) {
				e.give = func(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) { return &left[0], &left[0] }
			})
			began := time.Now()
			for _, n := range []*node{w.a, c} {
				if err := n.ConnectPeer(w.b.ID(), 7, firsts(10, 1500)...); err != nil {
					t.Fatal(err)
				}
			}
			next, at := map[crust.PeerID]uint64{}, map[crust.PeerID]time.Duration{}
			for range 2 + 2*10 {
				e := w.b.next(crust.EventConnected, crust.EventMessage)
				if e.Type == crust.EventMessage {
					if string(e.Data) != string(filled(1500, next[e.Peer])) {
						t.Errorf("message %d is wrong", next[e.Peer])
					}
					if next[e.Peer]++; next[e.Peer] == 10 {
						at[e.Peer] = time.Since(began)
					}
				}
			}
			if x, y := at[w.a.ID()], at[c.ID()]; min(x, y) != 4*earlyHop || max(x, y) != 6*earlyHop {
				t.Errorf("seed %d: there after %v and %v", seed, x, y)
			}
			for _, n := range []*node{w.a, c} {
				if e := n.next(crust.EventConnected); e.Took() != 4*earlyHop {
					t.Errorf("seed %d: connected after %v", seed, e.Took())
				}
			}
			time.Sleep(time.Minute)
			for _, e := range w.b.waiting() {
				t.Errorf("seed %d: %v in the end", seed, e.Type)
			}
		})
	}
}

// TestEarlyCrossed: both call each other at once with messages, for keys that hold or do not;
// both end with one session, and nothing is lost or comes twice.
func TestEarlyCrossed(t *testing.T) {
	for seed := range 2 {
		for voids := range 4 {
			for _, apart := range []time.Duration{0, 10 * time.Millisecond, 40 * time.Millisecond, 70 * time.Millisecond, 90 * time.Millisecond} {
				inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
					t.Log(seed, voids, apart)
					both := [2]*node{w.a, w.b}
					w.gives(func(p crust.PeerID) bool { return p == w.a.ID() && voids&1 != 0 || p == w.b.ID() && voids&2 != 0 })
					for i, n := range both {
						if err := n.ConnectPeer(both[1-i].ID(), uint64(i+1), firsts(10, 1500)...); err != nil {
							t.Fatal(err)
						}
						time.Sleep(apart)
					}
					for _, n := range both {
						others := 0
						for k := uint64(0); k < 10; {
							e := n.next(crust.EventConnected, crust.EventAlreadyConnected, crust.EventResumed, crust.EventMessage)
							switch {
							case e.Type != crust.EventMessage:
								others++
							case string(e.Data) != string(filled(1500, k)):
								t.Fatalf("seed %d, %d, %v: message %d is wrong", seed, voids, apart, k)
							default:
								k++
							}
						}
						if others == 0 {
							t.Errorf("seed %d, %d, %v: messages of nobody", seed, voids, apart)
						}
					}
					time.Sleep(time.Minute)
					for _, n := range both {
						if st := n.Stats(); st.SessionsTotal != 2 {
							t.Errorf("seed %d, %d, %v: %d sessions", seed, voids, apart, st.SessionsTotal)
						}
						for _, e := range n.waiting() {
							if e.Type == crust.EventMessage || e.Type == crust.EventLost {
								t.Errorf("seed %d, %d, %v: %v in the end", seed, voids, apart, e.Type)
							}
						}
					}
				})
			}
		}
	}
}

// TestEarlyLast: who is connected closes the session at once. The peer has what went with the
// call, also when it does not use the key.
func TestEarlyLast(t *testing.T) {
	for seed := range 2 {
		for _, void := range []bool{false, true} {
			for _, late := range []time.Duration{0, 10 * time.Millisecond, 45 * time.Millisecond} {
				inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
					w.gives(func(crust.PeerID) bool { return void })
					if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("good bye")); err != nil {
						t.Fatal(err)
					}
					w.a.next(crust.EventConnected)
					time.Sleep(late)
					if err := w.a.Disconnect(w.b.ID()); err != nil {
						t.Fatal(err)
					}
					w.b.next(crust.EventConnected)
					if e := w.b.pastMoves(crust.EventMessage); string(e.Data) != "good bye" {
						t.Errorf("seed %d, %v, %v: %q", seed, void, late, e.Data)
					}
					if e := w.b.pastMoves(crust.EventLost); e.Code() != crust.CodeDisconnected {
						t.Errorf("seed %d, %v, %v: lost: %v", seed, void, late, e.Err())
					}
					if e := w.a.pastMoves(crust.EventLost); e.Count() != 0 {
						t.Errorf("seed %d, %v, %v: %d messages are said to be lost", seed, void, late, e.Count())
					}
				})
			}
		}
	}
}

// TestEarlyClose: either side closes while the call is under way. The call has its final
// event, everything is joined, and the messages came once or not at all.
func TestEarlyClose(t *testing.T) {
	for seed := range 2 {
		for _, void := range []bool{false, true} {
			for _, caller := range []bool{false, true} {
				for late := time.Duration(0); late <= 130*time.Millisecond; late += 10 * time.Millisecond {
					inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
						w.gives(func(crust.PeerID) bool { return void })
						if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("hello")); err != nil {
							t.Fatal(err)
						}
						time.Sleep(late)
						one, other := w.b, w.a
						if caller {
							one, other = w.a, w.b
						}
						began := time.Now()
						one.Close()
						if took := time.Since(began); took > 2*time.Second {
							t.Errorf("seed %d, %v, %v, %v: closing took %v", seed, void, caller, late, took)
						}
						time.Sleep(time.Minute)
						other.Close()
						finals, connected, messages := 0, 0, 0
						for _, e := range w.a.waiting() {
							switch {
							case e.Token == 7:
								finals++
							case e.Type == crust.EventLost && e.Peer == w.b.ID():
								connected--
							}
							if e.Type == crust.EventConnected {
								connected++
							}
						}
						for _, e := range w.b.waiting() {
							if e.Type == crust.EventMessage {
								messages++
							}
						}
						if finals != 1 || connected != 0 || messages > 1 {
							t.Errorf("seed %d, %v, %v, %v: %d final events, %d more connected than lost, %d messages", seed, void, caller, late, finals, connected, messages)
						}
					})
				}
			}
		}
	}
}

// TestEarlyNear: a key that comes as soon as the circuit is asked for is not used before the
// first flight is on its way.
func TestEarlyNear(t *testing.T) {
	for seed := range 2 {
		inEarlyWorldOf(t, seed, 0, func(t *testing.T, w *earlyWorld) {
			w.tell(func(e *evilRelay) { e.give = newestKey })
			for token := range uint64(20) {
				if connected, there := w.call(token + 10); connected > time.Millisecond || there > time.Millisecond {
					t.Errorf("connected after %v, the message there after %v", connected, there)
				}
				w.part()
			}
			w.tell(func(e *evilRelay) {
				if e.early == 0 {
					t.Error("nothing went early")
				}
			})
		})
	}
}
