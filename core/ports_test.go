package crust_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestLivePort: listeners take the live port, and a random one where it is taken.
func TestLivePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := simnet.New(1).Host("10.0.0.1")
		cfg := crust.On(host, over(crust.Config{LivePort: 5483}, "0.0.0.0", "tcp", "utp"))
		first, second := newNode(t, cfg), newNode(t, cfg)
		defer second.Close()
		defer first.Close()
		for _, n := range []*node{first, second} {
			for range 2 {
				e := n.next(crust.EventListenerStarted)
				ep := e.Endpoint()
				if taken := n == second; (ep.Addr.Port() == 5483) == taken || ep.Addr.Port() == 0 {
					t.Errorf("listens at %v, the live port being taken: %v", ep, taken)
				}
			}
			if n.EventsPending() {
				t.Error("there is more to tell than two listeners")
			}
		}
		if err := second.StopListening(second.Listeners()[0]); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPortRotationBounds(t *testing.T) {
	for _, d := range []time.Duration{-1, time.Millisecond, 1000 * 24 * time.Hour} {
		if s, err := crust.New(crust.Config{PortRotation: d, NoListen: true}); !errors.Is(err, crust.CodeInvalid) {
			s.Close()
			t.Errorf("a rotation of %v gave %v", d, err)
		}
	}
}

// TestPortRotation: ports change each interval under traffic, over TCP and uTP;
// nothing is lost, infos of the interval before still hold, and sockets that
// serve nobody are given back.
func TestPortRotation(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
				ha := internet.Host("10.0.0.1")
				a := newNode(t, crust.On(ha, over(crust.Config{PortRotation: 3 * time.Second}, "0.0.0.0", transport)))
				b := newNode(t, crust.On(internet.Host("10.0.0.2"), crust.Config{NoListen: true}))
				defer b.Close()
				defer a.Close()
				link(t, b, a)
				ports := map[uint16]bool{}
				for i := range 200 {
					want := bytes.Repeat([]byte{byte(i)}, 10_000)
					if err := b.Send(a.ID(), want, 0); err != nil {
						t.Fatal(err)
					}
					for {
						e := a.next(crust.EventMessage, crust.EventListenerStarted, crust.EventListenerStopped)
						if e.Type == crust.EventMessage {
							if !bytes.Equal(e.Data, want) {
								t.Fatalf("message %d is not what was sent", i)
							}
							break
						}
						ports[e.Endpoint().Addr.Port()] = true
					}
					time.Sleep(100 * time.Millisecond)
				}
				if len(ports) < 5 {
					t.Errorf("%d ports in twenty seconds", len(ports))
				}
				if n := len(a.Listeners()); n != 2 {
					t.Errorf("%d listeners, want the newest and the one before", n)
				}
				c := newNode(t, crust.On(internet.Host("10.0.0.3"), crust.Config{NoListen: true}))
				defer c.Close()
				fresh := a.rotated(t)
				time.Sleep(2600 * time.Millisecond) // less than the shortest interval
				if err := c.Connect(fresh, 7); err != nil {
					t.Fatal(err)
				}
				c.next(crust.EventConnected)
				if _, eps, err := crust.ParseConnectionInfo(fresh); err != nil || len(eps) == 0 || eps[0].Addr.Port() != eps[len(eps)-1].Addr.Port() {
					t.Errorf("an info names %v (%v), want the newest port only", eps, err)
				}
				time.Sleep(20 * time.Second)
				// The first socket serves b, the two newest listen, one may serve c.
				if n := ha.Sockets(); transport == "utp" && n > 4 {
					t.Errorf("%d UDP sockets are open", n)
				}
			})
		})
	}
}

// rotated returns a connection info, past what rotation tells.
func (n *node) rotated(t *testing.T) []byte {
	t.Helper()
	if err := n.PrepareConnectionInfo(1); err != nil {
		t.Fatal(err)
	}
	for {
		if e := n.next(crust.EventConnectionInfo, crust.EventListenerStarted, crust.EventListenerStopped, crust.EventConnected); e.Type == crust.EventConnectionInfo {
			return e.Data
		}
	}
}
