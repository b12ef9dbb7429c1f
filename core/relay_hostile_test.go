package crust_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// hostile is a relay, a peer of it that does what the protocol forbids, and a victim
// that the relay is connected to.
type hostile struct {
	relay, victim *node
	evil          *evilRelay
	sess          *session.Session // of the evil one with the relay
	closes        map[uint32]wire.RelayReason
}

func hostileWorld(t *testing.T, cfg crust.Config, f func(t *testing.T, w *hostile)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		keys := sortedKeys(t, 3)
		w := &hostile{closes: map[uint32]wire.RelayReason{}}
		w.evil = newEvilRelay(t, internet.Host("10.0.0.3"), keys[2], nil)
		w.evil.see = func(kind wire.FrameType, body []byte) {
			if id, r, err := wire.ParseRelayClose(body); kind == wire.FrameRelayClose && err == nil {
				w.closes[id] = r
			}
		}
		cfg = over(cfg, "0.0.0.0", "tcp")
		cfg.Relay, cfg.Identity = crust.RelayData, keys[0]
		w.relay = newNode(t, crust.On(internet.Host("10.0.0.1"), cfg))
		w.victim = newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{Identity: keys[1]}, "0.0.0.0", "tcp")))
		link(t, w.relay, w.victim)
		if err := w.relay.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.3:9"), Peer: w.evil.id}, 1); err != nil {
			t.Fatal(err)
		}
		w.relay.next(crust.EventConnected)
		synctest.Wait()
		w.sess = w.evil.sessions[w.relay.ID()]
		f(t, w)
		w.evil.close()
		w.relay.Close()
		w.victim.Close()
	})
}

// send sends frames to the relay and waits until they have been dealt with.
func (w *hostile) send(frames ...[]byte) {
	if at, ok := w.sess.At(); ok {
		for _, f := range frames {
			w.sess.SendLow(at, f)
		}
	}
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

// TestRelayHostileEnd: a peer that breaks the rules of circuits loses the circuit or
// the session, and nobody else anything.
func TestRelayHostileEnd(t *testing.T) {
	full := make([]byte, wire.MaxRelayData)
	for name, c := range map[string]struct {
		frames func(open []byte) [][]byte
		ended  bool
		reason wire.RelayReason
	}{
		"an id that is not its": {func([]byte) [][]byte { return [][]byte{wire.RelayOpen{ID: 2}.Append(nil)} }, true, 0},
		"an id twice":           {func(o []byte) [][]byte { return [][]byte{o, o} }, true, 0},
		"too much data": {func(o []byte) [][]byte {
			frames := [][]byte{o}
			for range 17 {
				frames = append(frames, wire.AppendRelayData(nil, 1, full))
			}
			return frames
		}, false, wire.RelayBroken},
		"too much credit": {func(o []byte) [][]byte {
			return [][]byte{o, wire.AppendRelayCredit(nil, 1, wire.RelayWindow)}
		}, false, wire.RelayBroken},
		"a credit of nothing": {func(o []byte) [][]byte { return [][]byte{o, wire.AppendRelayCredit(nil, 1, 0)} }, true, 0},
		"a frame that is short": {func([]byte) [][]byte {
			return [][]byte{wire.AppendFrame(nil, wire.FrameRelayOpen, 1, 2, 3)}
		}, true, 0},
		"a stranger": {func([]byte) [][]byte {
			return [][]byte{wire.RelayOpen{ID: 1, Peer: crust.PeerID{1}}.Append(nil)}
		}, false, wire.RelayNoPeer},
		"circuits that are not there": {func(o []byte) [][]byte {
			return [][]byte{wire.AppendRelayData(nil, 9, full), wire.AppendRelayCredit(nil, 9, wire.RelayWindow), wire.AppendRelayClose(nil, 9, 7), o, wire.AppendRelayClose(nil, 1, 0)}
		}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			hostileWorld(t, crust.Config{}, func(t *testing.T, w *hostile) {
				w.send(c.frames(wire.RelayOpen{ID: 1, Peer: w.victim.ID()}.Append(nil))...)
				_, lives := w.relay.Peer(w.evil.id)
				if lives == c.ended || w.closes[1] != c.reason {
					t.Errorf("lives: %v, closed: %v", lives, w.closes)
				}
				if n := w.relay.Stats().Circuits; n != 0 {
					t.Errorf("%d circuits are left", n)
				}
				if err := w.relay.Send(w.victim.ID(), []byte("still here"), 0); err != nil {
					t.Error(err)
				}
				w.victim.next(crust.EventMessage)
			})
		})
	}
}

// TestRelaysAreNotAccused: who relays is not accused of circuits that others open over it, however many are refused.
func TestRelaysAreNotAccused(t *testing.T) {
	hostileWorld(t, crust.Config{}, func(t *testing.T, w *hostile) {
		w.victim.ban(0, w.evil.id.String())
		for i := range uint32(270) { // as many as the relay carries
			w.send(wire.RelayOpen{ID: 2*i + 1, Peer: w.victim.ID()}.Append(nil))
			time.Sleep(100 * time.Millisecond)
		}
		if st := w.victim.Stats(); st.Alerts != 0 || st.RefusedHelp < 200 {
			t.Errorf("%d alerts about %d circuits that are refused", st.Alerts, st.RefusedHelp)
		}
	})
}

// TestRelayHostileFlood: who opens circuits without end gets as many as it may have;
// when its session goes, they go.
func TestRelayHostileFlood(t *testing.T) {
	hostileWorld(t, crust.Config{}, func(t *testing.T, w *hostile) {
		for i := range uint32(900) {
			w.send(wire.RelayOpen{ID: 2*i + 1, Peer: w.victim.ID()}.Append(nil))
		}
		if n := w.relay.Stats().Circuits; n != 16 {
			t.Errorf("%d circuits", n)
		}
		limits := 0
		for _, r := range w.closes {
			if r == wire.RelayLimit {
				limits++
			}
		}
		if limits < 850 {
			t.Errorf("%d of 900 circuits were refused", limits)
		}
		if st := w.victim.Stats(); st.Handshakes > 16 {
			t.Errorf("the victim has %d handshakes", st.Handshakes)
		}
		w.sess.Kill(errors.New("done"))
		time.Sleep(time.Second)
		if n := w.relay.Stats().Circuits; n != 0 {
			t.Errorf("%d circuits are left", n)
		}
		time.Sleep(time.Minute)
		if st := w.victim.Stats(); st.Handshakes != 0 {
			t.Errorf("the victim has %d handshakes", st.Handshakes)
		}
	})
}
