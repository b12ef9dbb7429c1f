package crust_test

import (
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// TestPunchMany: after a thousand punches, each 50th of which opens many sockets, or a quarter
// of that under the race detector, no socket, connection or goroutine is left.
func TestPunchMany(t *testing.T) {
	for _, c := range []struct {
		nat   string
		times int
	}{{"home", slowly(980)}, {"symmetric", slowly(20)}} {
		t.Run(c.nat, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
				hosts := []*simnet.Host{
					internet.Host("198.51.100.1"), internet.Host("198.51.100.2"), internet.Host("198.51.100.3"),
					internet.NAT(natsim.MustParse("home"), "203.0.113.1").Host("192.168.1.2"), internet.NAT(natsim.MustParse(c.nat), "192.0.2.1").Host("192.168.1.2"),
				}
				var nodes []*node
				for i, h := range hosts {
					n := newNode(t, crust.On(h, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
					defer n.Close()
					for _, p := range nodes[:min(i, 3)] {
						if i >= 3 {
							link(t, n, p)
						}
					}
					nodes = append(nodes, n)
				}
				a, b := nodes[3], nodes[4]
				// The least of some minutes: a survey takes sockets for a while.
				count := func() (sockets, connections, goroutines int) {
					sockets, connections, goroutines = math.MaxInt, math.MaxInt, math.MaxInt
					for range 5 {
						time.Sleep(time.Minute)
						synctest.Wait()
						s, c := 0, 0
						for _, h := range hosts {
							s += h.Sockets()
							c += h.Connections()
						}
						sockets, connections, goroutines = min(sockets, s), min(connections, c), min(goroutines, runtime.NumGoroutine())
					}
					return sockets, connections, goroutines
				}
				sockets, connections, goroutines := count()
				met := 0
				for i := range c.times {
					if err := a.ConnectPeer(b.ID(), uint64(i+1)); err != nil {
						t.Fatal(err)
					}
					if e := a.final(t, uint64(i+1)); e.Type != crust.EventConnected {
						continue
					}
					met++
					if err := a.Disconnect(b.ID()); err != nil {
						t.Fatal(err)
					}
					a.pastMoves(crust.EventLost)
					time.Sleep(25 * time.Second)
				}
				s, n, g := count()
				t.Logf("%d of %d met; %d sockets, %d connections, %d goroutines; before %d, %d, %d", met, c.times, s, n, g, sockets, connections, goroutines)
				if met < c.times*9/10 || s > sockets || n > connections || g > goroutines+5 {
					t.Error("something is left")
				}
			})
		})
	}
}
