package crust_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// kept is what a relay has kept to itself of one circuit.
type kept struct {
	id   uint32
	open bool
	key  wire.OneTimeKey
	data []keptFrame
}

type keptFrame struct {
	t    wire.FrameType
	rest []byte
}

// keepFirst has the relay keep the first circuit of a for which a wants a key, after it
// has given one; with only, all else of a, too, of which nothing is carried.
func (w *earlyWorld) keepFirst(only bool) *kept {
	k := &kept{}
	w.tell(func(e *evilRelay) {
		e.keep = func(sess *session.Session, t wire.FrameType, body []byte) bool {
			if sess.Remote().Peer != w.a.ID() {
				return false
			}
			switch t {
			case wire.FrameRelayOpen:
				open, _ := wire.ParseRelayOpen(body)
				if !open.Keyed || k.open {
					return only
				}
				k.open, k.id = true, open.ID
				left := e.left[open.Peer]
				k.key = left[len(left)-1]
				at, _ := sess.At()
				sess.SendLow(at, wire.AppendRelayKey(nil, open.ID, &k.key))
				return true
			case wire.FrameRelayData, wire.FrameRelayEarly:
				id, rest, _ := wire.ParseRelayBytes(t, body)
				if !k.open || id != k.id {
					return only
				}
				k.data = append(k.data, keptFrame{t, bytes.Clone(rest)})
				return true
			}
			return only
		}
	})
	return k
}

// release gives b what was kept.
func (w *earlyWorld) release(k *kept) {
	w.t.Helper()
	if len(k.data) < 2 {
		w.t.Fatalf("%d frames were kept", len(k.data))
	}
	w.tell(func(e *evilRelay) {
		to := e.sessions[w.b.ID()]
		e.next++
		id := e.next<<1 | 1
		at, _ := to.At()
		to.SendLow(at, wire.RelayOpen{ID: id, From: true, Peer: w.a.ID(), Keyed: true, Key: k.key.Name()}.Append(nil))
		for _, d := range k.data {
			to.SendLow(at, wire.AppendRelayAs(nil, d.t, id, d.rest))
		}
	})
}

// silent holds that nothing comes to a node within ten seconds.
func (w *earlyWorld) silent(nodes ...*node) {
	w.t.Helper()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	for _, n := range nodes {
		for _, e := range n.waiting() {
			w.t.Errorf("%v %q, %v", e.Type, e.Data, e.Err())
		}
	}
}

// TestEarlyKept: what was sent for a key and kept by the relay, while the messages came
// otherwise, is not taken any more once the session has ended, also when nobody
// remembers that.
func TestEarlyKept(t *testing.T) {
	for seed := range 2 {
		for _, forget := range []bool{false, true} {
			inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
				k := w.keepFirst(false)
				if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("pay 5")); err != nil {
					t.Fatal(err)
				}
				w.a.next(crust.EventConnected)
				w.b.next(crust.EventConnected)
				if e := w.b.pastMoves(crust.EventMessage); string(e.Data) != "pay 5" {
					t.Fatalf("%q", e.Data)
				}
				w.part()
				time.Sleep(15 * time.Second)
				synctest.Wait()
				if forget {
					crust.ForgetTombs(w.b.Service)
				}
				w.release(k)
				w.silent(w.a, w.b)
			})
		}
	}
}

// TestEarlyFormerLife: the caller has been started again since, and has a session with
// the peer, which goes on.
func TestEarlyFormerLife(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			k := w.keepFirst(false)
			if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("pay 5")); err != nil {
				t.Fatal(err)
			}
			w.a.next(crust.EventConnected)
			w.b.next(crust.EventConnected)
			w.b.pastMoves(crust.EventMessage)
			w.a.Close()
			w.b.next(crust.EventLost)
			w.tell(func(e *evilRelay) { e.keep = nil })
			cfg := w.cfg
			cfg.Identity = w.keys[seed]
			w.a = newNode(t, crust.On(w.ha, cfg))
			w.join(w.a)
			time.Sleep(time.Second)
			synctest.Wait()
			for token := range uint64(2) { // the former life is not the last session
				if token > 0 {
					w.part()
				}
				if err := w.a.ConnectPeer(w.b.ID(), token+8); err != nil {
					t.Fatal(err)
				}
				w.a.next(crust.EventConnected)
				w.b.next(crust.EventConnected)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			w.a.waiting()
			w.b.waiting()
			w.release(k)
			w.silent(w.a, w.b)
		})
	}
}

// TestEarlyLate: what a relay has kept of a call that has failed is of no use when the
// key is ten minutes old, and is a new session before.
func TestEarlyLate(t *testing.T) {
	for seed := range 2 {
		for _, after := range []time.Duration{time.Minute, 11 * time.Minute} {
			inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
				k := w.keepFirst(true)
				if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("pay 5")); err != nil {
					t.Fatal(err)
				}
				w.a.next(crust.EventConnectFailed)
				time.Sleep(after)
				synctest.Wait()
				w.release(k)
				if after < 10*time.Minute {
					w.b.next(crust.EventConnected)
					w.b.pastMoves(crust.EventMessage)
					return
				}
				w.silent(w.a, w.b)
			})
		}
	}
}

// TestEarlyTwoCalls: of two calls to one peer the first fails, and what went with it does
// not come with the other one.
func TestEarlyTwoCalls(t *testing.T) {
	for seed := range 2 {
		inEarlyWorld(t, seed, func(t *testing.T, w *earlyWorld) {
			gives := false
			w.tell(func(e *evilRelay) {
				e.keep = func(sess *session.Session, t wire.FrameType, body []byte) bool {
					if sess.Remote().Peer != w.a.ID() || t == wire.FrameRelayKeys {
						return false
					}
					if open, err := wire.ParseRelayOpen(body); t == wire.FrameRelayOpen && err == nil && open.Keyed && gives {
						left := e.left[open.Peer]
						at, _ := sess.At()
						sess.SendLow(at, wire.AppendRelayKey(nil, open.ID, &left[len(left)-1]))
					}
					return true
				}
			})
			if err := w.a.ConnectPeer(w.b.ID(), 7, []byte("of 7")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			w.tell(func(*evilRelay) { gives = true })
			if err := w.a.ConnectPeer(w.b.ID(), 8, []byte("of 8")); err != nil {
				t.Fatal(err)
			}
			if e := w.a.next(crust.EventConnectFailed); e.Token != 7 {
				t.Fatalf("token %d failed", e.Token)
			}
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			w.tell(func(e *evilRelay) { e.keep = nil })
			time.Sleep(20 * time.Second)
			synctest.Wait()
			for _, e := range w.b.waiting() {
				if string(e.Data) == "of 7" {
					t.Error("what went with the call that has failed has come")
				}
			}
		})
	}
}
