package crust_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// crowd is many peers that keep one hub, and do not know each other.
type crowd struct {
	*testing.T
	internet *simnet.Net
	at       crust.Endpoint
	hub      *mortal
	log      dialLog
	nodes    []*node
	hosts    []*simnet.Host
	lost     time.Time // when the hub was
}

// newCrowd connects them all.
func newCrowd(ctx context.Context, t *testing.T, peers int) *crowd {
	t.Helper()
	c := &crowd{T: t, internet: simnet.New(3), at: endpointAt("10.0.0.1:4000")}
	c.internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
	c.hub = &mortal{internet: c.internet, host: c.internet.Host("10.0.0.1"), cfg: crust.Config{
		Identity: keyOf(t, 1), Listen: []crust.Endpoint{c.at}, CloseTimeout: time.Millisecond, // a kernel does not wait for what is under way
	}}
	c.hub.revive(t)
	for i := range peers {
		h := c.internet.Host(fmt.Sprintf("10.0.%d.%d", 1+i/50, 1+i%50))
		n := newNode(t, crust.On(counting{h, &c.log}, crust.Config{NoListen: true}))
		c.nodes, c.hosts = append(c.nodes, n), append(c.hosts, h)
		go func() {
			for range n.Events(ctx) {
			}
		}()
		keep(t, n, crust.Group{Name: "hub", Contacts: []crust.Contact{{Endpoint: c.at, Peer: c.hub.ID()}}})
	}
	time.Sleep(time.Minute)
	if n := len(c.hub.sessions()); n != peers {
		t.Fatalf("%d of %d are connected at first", n, peers)
	}
	return c
}

// end closes all.
func (c *crowd) end() {
	for _, n := range c.nodes {
		n.Close()
	}
	c.hub.Close()
	c.hub.stop()
}

// count returns how many dials there were between two times after the loss.
func (c *crowd) count(from, to time.Duration) int {
	return c.log.since(c.at, c.lost.Add(from)) - c.log.since(c.at, c.lost.Add(to))
}

// most checks a number of dials.
func (c *crowd) most(what string, n, bound int) {
	c.Helper()
	if n > bound {
		c.Errorf("%d dials %s, at most %d are no storm", n, what, bound)
	}
}

// busiest returns the most dials in any span from a time after the loss on.
func (c *crowd) busiest(from, span time.Duration) int {
	return c.log.busiest(c.at, c.lost.Add(from), span)
}

// comeBack revives the hub, and checks that all are connected to it within a time, which
// is below a minute and a half.
func (c *crowd) comeBack(within time.Duration) {
	c.Helper()
	back := time.Now()
	c.hub.revive(c.T)
	for time.Since(back) < 90*time.Second && len(c.hub.sessions()) < len(c.nodes) {
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(back)
	c.Logf("all are back after %v; most dials in any second %d", took, c.log.busiest(c.at, back, time.Second))
	if n := len(c.hub.sessions()); n != len(c.nodes) || took > within {
		c.Errorf("%d of %d are back after %v, want all after %v", n, len(c.nodes), took, within)
	}
}

// report tells what was counted.
func (c *crowd) report() {
	c.Logf("dials of %d peers: in the first second %d, to 5 s %d, to 30 s %d, to 60 s %d, to 120 s %d; most in any second %d, in any 100 ms %d, after 400 ms %d", len(c.nodes),
		c.count(0, time.Second), c.count(time.Second, 5*time.Second), c.count(5*time.Second, 30*time.Second), c.count(30*time.Second, time.Minute), c.count(time.Minute, 2*time.Minute),
		c.busiest(0, time.Second), c.busiest(0, 100*time.Millisecond), c.busiest(400*time.Millisecond, 100*time.Millisecond))
}

// A hundred peers keep a hub and lose it together: those that dial it are few at any
// moment, while it is away and when it is back.
//
// What redial.go and keep.go draw was drawn 6000 times for a round trip of 40 ms; with
// standard deviations, a hundred peers make so many dials:
//
//	                                 killed           closed
//	most in any 100 ms               43.9   3.2       17.6   1.8
//	the same, after the first 400    13.4   1.6
//	in the first second             144.4   5.8      100     0
//	from 1 s to 5 s                 172     7.6
//	from 5 s to 30 s                612    15
//	most in any second after 5 s     38     2.6
//	the same, after 10 s                              30.8   3.3
//	in the first minute            1128    20        600     0.4
//	most in any second when it is back after 2 minutes      7.5   1.2
//	the same, after 5 s             25.7   3.3
//
// Each bound is six deviations above that or more, and so is that of the mean of five
// losses: chance reaches none of them once in 10^7 runs. Pauses of up to 50 ms, then from 100 to 200 ms and so on, as
// there were once, made 100 dials in 100 ms, 305 in the first second, and 1426 in the
// first minute after a hub was killed.
func TestNoStormWhenAHubIsLost(t *testing.T) {
	const peers, ms = 100, time.Millisecond
	t.Run("closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := newCrowd(ctx, t, peers)
			defer c.end()
			c.lost = time.Now()
			c.hub.Close()
			c.hub.stop()
			time.Sleep(2 * time.Minute)
			c.report()
			c.most("in 100 ms", c.busiest(0, 100*ms), 30)
			c.most("in one second", c.busiest(0, time.Second), peers)
			c.most("in one second later", c.busiest(10*time.Second, time.Second), 51)
			c.most("in the first minute", c.count(0, time.Minute), 620)
			back := time.Now()
			c.comeBack(61 * time.Second) // the longest pause of a group, and a dial
			c.most("in one second when it is back", c.log.busiest(c.at, back, time.Second), 15)
		})
	})
	t.Run("killed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := newCrowd(ctx, t, peers)
			defer c.end()
			const rounds = 5
			sum := 0
			for range rounds {
				c.lost = time.Now()
				c.hub.kill(c.hosts...)
				time.Sleep(2 * time.Minute)
				c.report()
				first := c.busiest(0, 100*ms)
				sum += first
				c.most("in 100 ms", first, 64)
				c.most("in 100 ms later", c.busiest(400*ms, 100*ms), 24)
				c.most("in the first second", c.count(0, time.Second), 180)
				c.most("from 1 s to 5 s", c.count(time.Second, 5*time.Second), 218)
				c.most("from 5 s to 30 s", c.count(5*time.Second, 30*time.Second), 702)
				c.most("in one second later", c.busiest(5*time.Second, time.Second), 54)
				c.most("in the first minute", c.count(0, time.Minute), 1250)
				back := time.Now()
				c.comeBack(61 * time.Second) // the longest pause of a group, and a dial
				c.most("in one second when it is back", c.log.busiest(c.at, back, time.Second), 15)
				time.Sleep(time.Minute)
			}
			c.most(fmt.Sprintf("in the worst 100 ms of %d losses", rounds), sum, 53*rounds)
		})
	})
	t.Run("restarted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c := newCrowd(ctx, t, peers)
			defer c.end()
			c.lost = time.Now()
			c.hub.kill(c.hosts...)
			time.Sleep(5 * time.Second)
			back := time.Now()
			c.comeBack(redialGoneMost + time.Second) // the longest pause of a session, and a dial
			c.most("in one second when it is back", c.log.busiest(c.at, back, time.Second), 46)
		})
	})
}

// redialGoneMost is the constant of that name.
const redialGoneMost = 8 * time.Second
