package crust_test

import (
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestEarlyDeadLink: of two relays the nearer one, whose key would come first, has a link to
// the peer that is dead, and waits for an answer of the peer itself. It gives no key, and
// what goes with the call is there one round trip over the other relay after the call.
func TestEarlyDeadLink(t *testing.T) {
	for _, dead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			internet.SetDefaultLink(simnet.Link{Latency: earlyHop})
			ha, hb, near, far := internet.Host("10.0.0.1"), internet.Host("10.0.0.2"), internet.Host("10.0.0.3"), internet.Host("10.0.0.4")
			internet.Silence(ha, hb)
			for _, h := range []*simnet.Host{ha, hb} {
				internet.SetLink(h, near, simnet.Link{Latency: earlyHop / 2})
			}
			cfg := over(crust.Config{Gossip: crust.GossipOff}, "0.0.0.0", "tcp")
			a, b := newNode(t, crust.On(ha, cfg)), newNode(t, crust.On(hb, cfg))
			defer a.Close()
			defer b.Close()
			cfg.Relay = crust.RelayData
			relays := []*node{newNode(t, crust.On(near, cfg)), newNode(t, crust.On(far, cfg))}
			for _, r := range relays {
				defer r.Close()
				link(t, a, r)
				link(t, b, r)
			}
			time.Sleep(3 * time.Second)
			want := 2 * earlyHop // over the nearer one
			if dead {
				internet.Silence(near, hb)
				relays[0].NetworkChanged() // all sessions ask their peers
				want = 4 * earlyHop
			}
			time.Sleep(500 * time.Millisecond) // the link is given up after a second
			began := time.Now()
			if err := a.ConnectPeer(b.ID(), 7, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			e := b.next(crust.EventMessage, crust.EventConnected, crust.EventSuspended)
			for e.Type != crust.EventMessage {
				e = b.next(crust.EventMessage, crust.EventConnected, crust.EventSuspended)
			}
			if took := time.Since(began); string(e.Data) != "hello" || took != want {
				t.Errorf("dead %v: %q is there after %v, want %v", dead, e.Data, took, want)
			}
			a.next(crust.EventConnected)
		})
	}
}
