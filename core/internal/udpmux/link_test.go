package udpmux

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/simnet"
)

// Over links of every kind, all packets come, once, in order, both ways.
func TestLinks(t *testing.T) {
	ms := time.Millisecond
	for name, link := range map[string]simnet.Link{
		"clean":       {Latency: 20 * ms},
		"instant":     {},
		"narrow":      {Latency: 20 * ms, Bandwidth: 125000, Queue: 20000},
		"loss 1%":     {Latency: 20 * ms, Loss: 0.01},
		"loss 10%":    {Latency: 150 * ms, Loss: 0.1},
		"loss 30%":    {Latency: 20 * ms, Loss: 0.3},
		"doubled":     {Latency: 5 * ms, Duplicate: 0.3},
		"reordered":   {Latency: 10 * ms, Jitter: 5 * ms, Reorder: 0.2},
		"everything":  {Latency: 30 * ms, Jitter: 20 * ms, Reorder: 0.1, Duplicate: 0.1, Loss: 0.1, Bandwidth: 1 << 20},
		"black hole":  {Latency: 10 * ms, MTU: 1280},
		"small queue": {Latency: 10 * ms, MTU: 1400, Bandwidth: 2 << 20, Queue: 16 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(2) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, seed, link, nil)
					host := []string{hostB, "2001:db8::2"}[seed]
					x, y := w.x.join(t, w.y, w.y.at(t, host))
					const big, small = 20, 200
					go x.send(t, 0, big, 50000)
					go y.send(t, 0, small, 700)
					start := time.Now()
					y.within(t, 5*time.Minute, "large packets", func() bool { p, _ := y.got(); return p >= big })
					x.within(t, 5*time.Minute, "small packets", func() bool { p, _ := x.got(); return p >= small })
					x.check(t, 0, small)
					y.check(t, 0, big)
					if seed == 0 {
						s := x.Stats()
						t.Logf("1 MB in %v: MTU %d, lost %d of %d, rtt %v", time.Since(start).Round(ms), s.MTU, s.Lost, s.Sent, s.RTT.Round(ms))
					}
				})
			}
		})
	}
}

// A path that takes 1,280 bytes only from now on does not stop a transfer.
func TestPathNarrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 4 << 20}
		w := newWorld(t, 3, link, nil)
		x, y := w.x.join(t, w.y, w.to)
		x.send(t, 0, 40, 50000)
		y.within(t, time.Minute, "the beginning", func() bool { p, _ := y.got(); return p == 40 })
		if m := x.Stats().MTU; m < 1400 {
			t.Fatalf("an MTU of %d was found instead of 1440", m)
		}
		link.MTU = 1280
		w.net.SetLink(w.a, w.b, link)
		x.send(t, 40, 40, 50000)
		y.within(t, time.Minute, "the rest", func() bool { p, _ := y.got(); return p == 80 })
		y.check(t, 0, 80)
	})
}

// A link that is cut for some seconds delays, and loses nothing.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 4 << 20}, nil)
		x, y := w.x.join(t, w.y, w.to)
		go x.send(t, 0, 200, 50000)
		for range 3 {
			time.Sleep(500 * time.Millisecond)
			w.net.Cut(w.a, w.b)
			time.Sleep(5 * time.Second)
			w.net.Heal(w.a, w.b)
		}
		y.within(t, time.Minute, "packets", func() bool { p, _ := y.got(); return p == 200 })
		y.check(t, 0, 200)
	})
}

// An idle association with a heartbeat lives for an hour; without one it ends at
// both sides after IdleTimeout.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 50 * time.Millisecond, Loss: 0.1}, nil)
		x, y := w.x.join(t, w.y, w.to)
		for range 180 {
			x.Ping()
			time.Sleep(20 * time.Second)
		}
		x.send(t, 0, 1, 1000)
		y.within(t, 10*time.Second, "a packet after an hour", func() bool { p, _ := y.got(); return p == 1 })
		time.Sleep(time.Second)
		before := w.x.Stats().Sent
		start := time.Now()
		if err := y.ended(t, 10*time.Minute); !errors.Is(err, ErrSilent) {
			t.Fatal(err)
		}
		if d := time.Since(start); d < defaultIdle-5*time.Second || d > defaultIdle+time.Second {
			t.Fatalf("silent after %v", d)
		}
		if err := x.ended(t, 2*time.Second); !errors.Is(err, ErrSilent) {
			t.Fatal(err)
		}
		if n := w.x.Stats().Sent - before; n > 10 {
			t.Fatalf("an idle association sent %d datagrams", n)
		}
	})
}

// visible gives a port of x's host another address, as a NAT does.
func (w *world) visible(addr string) netip.AddrPort {
	to := netip.MustParseAddrPort(addr)
	w.a.Rebind(w.x.LocalAddr().Port(), to)
	return to
}

// A NAT that gives the peer a new port or a new address in the middle of a
// transfer, in either direction, stops it for about a round trip.
func TestRebind(t *testing.T) {
	for _, c := range []struct {
		addr  string
		pause time.Duration
	}{
		{"198.51.100.9:700%d", 2 * rtt},
		{"198.51.100.%d:7000", 3 * rtt}, // what is known of the path is forgotten: a slow start
	} {
		for _, upload := range []bool{true, false} {
			t.Run(fmt.Sprint(upload, c.addr), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testRebind(t, upload, c.addr, c.pause) })
			})
		}
	}
}

const rtt = 40 * time.Millisecond

func testRebind(t *testing.T, upload bool, addr string, pause time.Duration) {
	w := newWorld(t, 1, simnet.Link{Latency: rtt / 2, Bandwidth: 16 << 20}, nil)
	w.visible(fmt.Sprintf(addr, 0))
	x, y := w.x.join(t, w.y, w.to)
	from, to := x, y
	if !upload {
		from, to = y, x
	}
	const count, at = 1500, 5
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for i := 0; i < count; i += at {
			from.send(t, i, at, 5000)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	go func() { // whoever only receives has something to say, too: a heartbeat
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				x.Ping()
			}
		}
	}()
	for i := 1; i <= 5; i++ {
		time.Sleep(200 * time.Millisecond)
		now := w.visible(fmt.Sprintf(addr, i))
		start := time.Now()
		for y.RemoteAddr() != now {
			time.Sleep(time.Millisecond)
			if time.Since(start) > time.Second {
				t.Fatalf("still at %v, not at %v", y.RemoteAddr(), now)
			}
		}
		if d := time.Since(start); d > 3*rtt/2+20*time.Millisecond { // to the peer, and its challenge there and back
			t.Errorf("moved after %v", d)
		}
		p, _ := to.got()
		start = time.Now()
		to.within(t, time.Second, "packets after the move", func() bool { q, _ := to.got(); return q > p+10 })
		if d := time.Since(start); d > pause {
			t.Errorf("the transfer went on %v after the move", d)
		}
	}
	to.within(t, time.Minute, "all packets", func() bool { p, _ := to.got(); return p == count })
	to.check(t, 0, count)
	if m := y.Stats().Moves; m != 5 || x.Stats().Moves != 0 {
		t.Errorf("%d and %d moves instead of 5 and 0", m, x.Stats().Moves)
	}
}
