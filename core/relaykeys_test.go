package crust_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestEarlyKeysAreFew: a peer leaves four keys with a relay, and none with who relays no
// data; a relay keeps them while it is connected. Those who call at once, and get none, are connected as without; a
// moment later there are new ones.
func TestEarlyKeysAreFew(t *testing.T) {
	relayWorld(t, 0, 1, "tcp", crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
		relay := w.relays[0]
		holds := func(what string, left, stock int) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			l, none := crust.OneTimeKeys(w.b.Service)
			nobody, s := crust.OneTimeKeys(relay.Service)
			if l != left || s != stock+4 || none != 0 || nobody != 0 { // four are those of the other one
				t.Errorf("%s: %d secrets at the peer, which has %d of others; %d keys at the relay, which has left %d", what, l, none, s, nobody)
			}
		}
		holds("at first", 4, 4)
		var callers []*node
		for i := range 10 {
			h := w.Host(fmt.Sprintf("10.0.2.%d", i+1))
			w.Silence(h, w.hb)
			n := newNode(t, crust.On(h, over(crust.Config{}, "0.0.0.0", "tcp")))
			defer n.Close()
			n.SetAccept(false) // they leave none
			link(t, n, relay)
			callers = append(callers, n)
		}
		time.Sleep(time.Second)
		soon := 0
		for i, n := range callers {
			if err := n.ConnectPeer(w.b.ID(), uint64(i+1), []byte("hello")); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		for _, n := range callers {
			if e := n.next(crust.EventConnected); e.Took() != 4*earlyHop {
				t.Errorf("connected after %v", e.Took())
			}
		}
		for came := 0; came < 2*len(callers); came++ {
			e := w.b.next(crust.EventConnected, crust.EventMessage)
			switch took := time.Since(began); {
			case e.Type == crust.EventConnected:
			case took == 4*earlyHop:
				soon++
			case took != 6*earlyHop:
				t.Errorf("a message after %v", took)
			}
		}
		if soon != 4 {
			t.Errorf("%d had a key", soon)
		}
		holds("after ten calls", 4, 4)
		w.b.SetAccept(false)
		holds("while none are taken", 0, 0)
		w.b.SetAccept(true)
		holds("when some are taken again", 4, 4)
		w.b.ban(time.Hour, "10.0.1.1/32")
		w.b.unban("10.0.1.1/32")
		time.Sleep(time.Second)
		if left, _ := crust.OneTimeKeys(w.b.Service); left != 0 {
			t.Errorf("%d secrets are left when the relay has gone", left)
		}
		if _, stock := crust.OneTimeKeys(relay.Service); stock != 4 {
			t.Errorf("the relay has %d keys", stock)
		}
	})
	relayWorld(t, 0, 1, "tcp", crust.Config{}, crust.Config{Relay: crust.RelayOff}, func(t *testing.T, w *relayed) {
		if left, _ := crust.OneTimeKeys(w.b.Service); left != 0 {
			t.Errorf("%d keys for who relays nothing", left)
		}
	})
}

// TestEarlyKeysLater: who has as many sessions as it may when a relay comes, or when keys
// would be renewed, leaves none; when there is room again it does, within two minutes, as nobody
// needs to tell it.
func TestEarlyKeysLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: earlyHop})
		b := newNode(t, crust.On(internet.Host("10.0.0.1"), over(crust.Config{MaxPeers: 2}, "0.0.0.0", "tcp")))
		other := newNode(t, crust.On(internet.Host("10.0.0.2"), over(crust.Config{}, "0.0.0.0", "tcp")))
		relay := newNode(t, crust.On(internet.Host("10.0.0.3"), over(crust.Config{Relay: crust.RelayData}, "0.0.0.0", "tcp")))
		for _, n := range []*node{b, other, relay} {
			defer n.Close()
		}
		keys := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			left, _ := crust.OneTimeKeys(b.Service)
			if _, stock := crust.OneTimeKeys(relay.Service); left != want || stock != want {
				t.Errorf("%d secrets at the peer and %d keys at the relay, want %d", left, stock, want)
			}
		}
		link(t, b, other)
		link(t, b, relay)
		for range 2 {
			keys(10*time.Minute, 0)
			if err := b.Disconnect(other.ID()); err != nil {
				t.Fatal(err)
			}
			b.next(crust.EventLost)
			other.next(crust.EventLost)
			keys(2*time.Minute, 4)
			link(t, b, other)
		}
	})
}
