package crust_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// gateWorld is a service with a gate and another one 10 ms away.
func gateWorld(t *testing.T, transport string, gate func(crust.GateRequest) bool, cfg crust.Config, f func(t *testing.T, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
		cfg.Gate = gate
		a := newNode(t, crust.On(net.Host("10.0.0.1"), over(cfg, "10.0.0.1", transport)))
		b := newNode(t, crust.On(net.Host("10.0.0.2"), over(crust.Config{AppID: []byte("bee"), Role: crust.Client}, "10.0.0.2", transport)))
		defer b.Close()
		defer a.Close()
		f(t, a, b)
	})
}

// TestGate: the program is asked once about each new peer, in either direction, and its
// answer holds; a session that goes on over another link is not asked about again.
func TestGate(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		for _, outbound := range []bool{false, true} {
			for _, yes := range []bool{true, false} {
				var mu sync.Mutex
				var asked []crust.GateRequest
				gate := func(r crust.GateRequest) bool {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, r)
					return yes
				}
				gateWorld(t, transport, gate, crust.Config{}, func(t *testing.T, a, b *node) {
					from, to := b, a
					if outbound {
						from, to = a, b
					}
					if err := from.Connect(to.info(), 1); err != nil {
						t.Fatal(err)
					}
					e := from.final(t, 1)
					if yes && e.Type != crust.EventConnected || !yes && (e.Type != crust.EventConnectFailed || e.Code() != crust.CodeNotAllowed) {
						t.Errorf("%s, outbound %v: %v %v", transport, outbound, e.Type, e.Err())
					}
					time.Sleep(time.Minute)
					if _, ok := a.Peer(b.ID()); ok != yes {
						t.Errorf("a session is %v, the answer was %v", ok, yes)
					}
					if !yes && !outbound {
						if e := a.waiting(); len(e) != 0 {
							t.Errorf("the program is told %v", e[0].Type)
						}
					}
				})
				if len(asked) == 0 || yes && len(asked) != 1 {
					t.Fatalf("%s: asked %d times", transport, len(asked))
				}
				r := asked[0]
				if string(r.AppID) != "bee" || r.Role != crust.Client || r.Outbound != outbound || r.Endpoint.Addr.Addr().String() != "10.0.0.2" || (r.How == crust.Dialed) != outbound {
					t.Errorf("%+v", r)
				}
			}
		}
	}
}

// TestGateStalls: a gate that does not answer refuses after its time, holds up nobody who
// has a session, is not called more often at once than it may, and does not hold up Close.
func TestGateStalls(t *testing.T) {
	var mu sync.Mutex
	calls := 0
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		gate := func(crust.GateRequest) bool {
			mu.Lock()
			calls++
			n := calls
			mu.Unlock()
			if n > 1 {
				<-stuck
			}
			return true
		}
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
		a := newNode(t, crust.On(net.Host("10.0.0.1"), over(crust.Config{Gate: gate, MaxGates: 2}, "10.0.0.1", "tcp")))
		first := newNode(t, crust.On(net.Host("10.0.0.2"), over(crust.Config{}, "10.0.0.2", "tcp")))
		link(t, first, a)
		to := contactOf(t, a, crust.TCP, "10.0.0.1")
		for i, want := range []time.Duration{time.Second, time.Second, 0} { // the third finds no room
			n := newNode(t, crust.On(net.Host([]string{"10.0.1.1", "10.0.1.2", "10.0.1.3"}[i]), over(crust.Config{}, "0.0.0.0", "tcp")))
			began := time.Now()
			if err := n.ConnectEndpoint(to, 1); err != nil {
				t.Fatal(err)
			}
			e := n.final(t, 1)
			if took := time.Since(began); e.Code() != crust.CodeNotAllowed || took < want || took > want+200*time.Millisecond {
				t.Errorf("%d: %v after %v", i, e.Err(), took)
			}
			if err := first.Send(a.ID(), []byte("meanwhile"), 0); err != nil {
				t.Fatal(err)
			}
			a.past(t, crust.EventMessage)
			n.Close()
		}
		began := time.Now()
		a.Close()
		if took := time.Since(began); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		first.Close()
		close(stuck)
	})
	if calls != 3 {
		t.Errorf("called %d times", calls)
	}
}

// TestGatePanics: a panic in the program's gate refuses the peer and ends nothing else.
func TestGatePanics(t *testing.T) {
	gateWorld(t, "tcp", func(crust.GateRequest) bool { panic("policy") }, crust.Config{}, func(t *testing.T, a, b *node) {
		if err := b.Connect(a.info(), 1); err != nil {
			t.Fatal(err)
		}
		if e := b.final(t, 1); e.Code() != crust.CodeNotAllowed {
			t.Error(e.Err())
		}
		if _, err := a.Listen(endpointAt("10.0.0.1:0")); err != nil {
			t.Error(err)
		}
	})
	for _, cfg := range []crust.Config{{GateTimeout: -1}, {GateTimeout: 6 * time.Second}, {MaxGates: -1}, {MaxGates: 5000}} {
		if _, err := crust.New(cfg); crust.CodeOf(err) != crust.CodeInvalid {
			t.Errorf("%v, %v", cfg.GateTimeout, err)
		}
	}
}
