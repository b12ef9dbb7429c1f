package udpmux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/arq"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A dial that is not committed stays unknown to the peer and leaves nothing.
func TestAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		tap := w.tap()
		a, err := w.x.Dial(t.Context(), w.to, w.y.id)
		if err != nil {
			t.Fatal(err)
		}
		_, mark := tap.since(0, func(tapped) bool { return false })
		if a.SendPacket([]byte("x")) || !errors.Is(a.SendDatagram([]byte("x")), net.ErrClosed) {
			t.Error("something can be sent before Commit")
		}
		a.Close(wire.ReasonDisconnect)
		a.Close(wire.ReasonDisconnect)
		time.Sleep(time.Minute)
		if sent, _ := tap.since(mark, func(tapped) bool { return true }); len(sent) > 0 {
			t.Errorf("%d datagrams after it was abandoned", len(sent))
		}
		if !errors.Is(a.Commit(), ErrState) || w.x.Stats().Associations != 0 || len(w.y.accepted) != 0 {
			t.Error("something is left")
		}
	})
}

// The errors of Dial say what happened.
func TestDialErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, func(c *Config) { c.Associations = 2 })
		nowhere := netip.MustParseAddrPort("192.0.2.99:1")
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := w.x.Dial(ctx, nowhere, w.y.id); !errors.Is(err, secure.ErrNoAnswer) || time.Since(start) != 10*time.Second {
			t.Errorf("nobody: %v after %v", err, time.Since(start))
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := w.x.Dial(ctx, nowhere, w.y.id); !errors.Is(err, context.Canceled) || errors.Is(err, secure.ErrNoAnswer) {
			t.Errorf("canceled: %v", err)
		}
		if _, err := w.x.Dial(ctx, w.to, w.y.id); !errors.Is(err, context.Canceled) {
			t.Errorf("canceled before: %v", err)
		}
		if _, err := w.x.Dial(t.Context(), w.to, w.x.id); !errors.Is(err, secure.ErrWrongPeer) {
			t.Errorf("somebody else: %v", err)
		}
		for _, bad := range []string{"0.0.0.0:1", "192.0.2.2:0", "224.0.0.1:9"} {
			if _, err := w.x.Dial(t.Context(), netip.MustParseAddrPort(bad), w.y.id); err == nil {
				t.Errorf("%s was dialled", bad)
			}
		}
		four := newNode(t, w.a, "0.0.0.0:0", nil)
		if _, err := four.Dial(t.Context(), netip.MustParseAddrPort("[2001:db8::2]:9"), w.y.id); !errors.Is(err, ErrFamily) {
			t.Errorf("the other family: %v", err)
		}
		w.x.join(t, w.y, w.to)
		w.x.join(t, w.y, w.to)
		if _, err := w.x.Dial(t.Context(), w.to, w.y.id); !errors.Is(err, ErrLimit) {
			t.Errorf("over the limit: %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := four.Dial(ctx, w.to, w.y.id); !errors.Is(err, secure.ErrNoAnswer) {
			t.Errorf("the peer is at its limit: %v", err)
		}
		w.x.stop()
		if _, err := w.x.Dial(t.Context(), w.to, w.y.id); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// Close ends a dial at once.
func TestCloseWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{}, nil)
		got := make(chan error)
		go func() {
			_, err := w.x.Dial(context.Background(), netip.MustParseAddrPort("192.0.2.99:1"), w.y.id)
			got <- err
		}()
		time.Sleep(time.Second)
		start := time.Now()
		w.x.Close(0)
		if err := <-got; !errors.Is(err, net.ErrClosed) || time.Since(start) > 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

// A third flight that gets lost is repeated; what went behind it is not lost. A
// peer that is gone before it confirms is given up.
func TestFinishLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		a, err := w.x.Dial(t.Context(), w.to, w.y.id)
		if err != nil {
			t.Fatal(err)
		}
		x := collect(a)
		w.net.Silence(w.a, w.b)
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		x.send(t, 0, 1, 1000)
		time.Sleep(100 * time.Millisecond)
		w.net.Heal(w.a, w.b)
		time.Sleep(time.Second)
		y := <-w.y.accepted
		y.within(t, 5*time.Second, "the packet", func() bool { p, _ := y.got(); return p == 1 })
		time.Sleep(20 * time.Second)
		if s := w.y.Stats(); s.Accepted != 1 {
			t.Fatalf("%+v", s)
		}

		if a, err = w.x.Dial(t.Context(), w.to, w.y.id); err != nil {
			t.Fatal(err)
		}
		x = collect(a)
		w.net.Silence(w.a, w.b)
		start := time.Now()
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := x.ended(t, time.Minute); !errors.Is(err, ErrUnconfirmed) || time.Since(start) > 11*time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

// The confirmation gets lost, and nobody has anything to say: the repeated third
// flight brings it.
func TestConfirmationLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond, Loss: 0.4}, nil)
		for range 20 {
			x, y := w.x.join(t, w.y, w.to)
			time.Sleep(15 * time.Second) // longer than HandshakeTimeout
			select {
			case <-x.closed:
				t.Fatal(x.why)
			case <-y.closed:
				t.Fatal(y.why)
			default:
			}
			x.Assoc.Close(0)
			y.Assoc.Close(0)
		}
	})
}

// Closing tells the peer though datagrams get lost, with a few datagrams only.
func TestCloseLossy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, simnet.Link{Latency: 10 * time.Millisecond, Loss: 0.3}, nil)
		told := 0
		const rounds = 50
		for range rounds {
			x, y := w.x.join(t, w.y, w.to)
			time.Sleep(5 * time.Second)
			before := w.x.Stats().Sent
			x.Assoc.Close(wire.ReasonDisconnect)
			time.Sleep(3 * time.Second)
			if n := w.x.Stats().Sent - before; n > 6 {
				t.Errorf("%d datagrams to close", n)
			}
			select {
			case <-y.closed:
				told++
			default:
				y.Assoc.Close(0)
			}
		}
		if told < rounds*9/10 { // 0.3^3 is under 3 %
			t.Errorf("%d of %d peers were told", told, rounds)
		}
	})
}

// Close of the Mux tells peers and handlers, and joins its goroutines.
func TestMuxClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		var xs, ys []*end
		for range 10 {
			x, y := w.x.join(t, w.y, w.to)
			go x.send(t, 0, 3, 50000)
			xs, ys = append(xs, x), append(ys, y)
		}
		time.Sleep(time.Second)
		start := time.Now()
		w.x.stop()
		w.x.stop()
		if time.Since(start) > 0 {
			t.Errorf("closing took %v", time.Since(start))
		}
		for i := range xs {
			if err := xs[i].ended(t, time.Second); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			var closed *CloseError
			if err := ys[i].ended(t, time.Second); !errors.As(err, &closed) || closed.Reason != wire.ReasonStopping {
				t.Error(err)
			}
		}
		if n := w.a.Sockets(); n != 0 {
			t.Errorf("%d sockets are left", n)
		}
	})
}

// Drained is called when the last association is gone, whatever it was: a dial that came
// to nothing, one that was never committed, and one that said good-bye.
func TestDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x, y atomic.Int64
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		told := func(count *atomic.Int64) func(*Config) {
			return func(c *Config) { c.Drained = func() { count.Add(1) } }
		}
		a, b := newNode(t, w.a, "0.0.0.0:0", told(&x)), newNode(t, w.b, "0.0.0.0:0", told(&y))
		to := b.at(t, hostB)
		gone := func(what string, here, there int64) {
			t.Helper()
			time.Sleep(time.Minute)
			if x.Swap(0) != here || y.Swap(0) != there || a.Stats().Associations+b.Stats().Associations != 0 {
				t.Errorf("%s: not told", what)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, netip.MustParseAddrPort("192.0.2.99:1"), b.id); err == nil {
			t.Fatal("nobody answered")
		}
		gone("a dial without an answer", 1, 0)
		c, err := a.Dial(t.Context(), to, b.id)
		if err != nil {
			t.Fatal(err)
		}
		c.Close(wire.ReasonDisconnect)
		gone("one that was not committed", 1, 0)
		first, _ := a.join(t, b, to)
		second, _ := a.join(t, b, to)
		first.Close(wire.ReasonDisconnect)
		time.Sleep(10 * time.Second)
		if x.Load() != 0 || y.Load() != 0 {
			t.Error("told while one is left")
		}
		second.Close(wire.ReasonDisconnect)
		gone("the last of two", 1, 1)
	})
}

// A socket that fails ends everything with its error.
func TestSocketFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		x, _ := w.x.join(t, w.y, w.to)
		w.x.conn.Close()
		if err := x.ended(t, time.Second); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := w.x.Dial(t.Context(), w.to, w.y.id); err == nil {
			t.Error("a broken socket dials")
		}
	})
}

// Handlers may call everything, also while others send.
func TestReentrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: time.Millisecond, Loss: 0.02}, nil)
		x, y := w.x.join(t, w.y, w.to)
		const count = 500
		var mu sync.Mutex
		var waiting [][]byte // for room
		echo := func() {
			mu.Lock()
			defer mu.Unlock()
			for len(waiting) > 0 && y.SendPacket(waiting[0]) {
				waiting = waiting[1:]
			}
		}
		y.SetHandlers(Handlers{Ready: echo, Packet: func(p []byte) {
			mu.Lock()
			waiting = append(waiting, append([]byte(nil), p...))
			mu.Unlock()
			echo()
			y.SendDatagram(p[:12])
			y.Ping()
			y.Stats()
			y.MaxDatagram()
			y.RemoteAddr()
			w.y.Stats()
		}, Datagram: func(p []byte) {
			y.SendDatagram(p)
		}})
		x.send(t, 0, count, 3000)
		for i := range 100 {
			p := make([]byte, 40)
			stamp(p, i)
			x.SendDatagram(p)
		}
		x.within(t, time.Minute, "echoes", func() bool { p, _ := x.got(); return p == count })
		x.check(t, 0, count)
		if _, d := x.got(); d < 300 {
			t.Errorf("%d datagrams came back", d)
		}
		// To close from inside of a handler is closing as any other.
		y.SetHandlers(Handlers{Packet: func([]byte) { y.Assoc.Close(wire.ReasonBanned) }})
		x.SendPacket([]byte("close"))
		var closed *CloseError
		if err := x.ended(t, time.Second); !errors.As(err, &closed) || closed.Reason != wire.ReasonBanned {
			t.Fatal(err)
		}
	})
}

// A full send buffer refuses, and Ready comes.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 1 << 20}, nil)
		x, y := w.x.join(t, w.y, w.to)
		p := make([]byte, 50000)
		n := 0
		for x.SendPacket(p) {
			n++
		}
		if n < 4 || n > 8 { // the window and two packets
			t.Fatalf("%d packets fit", n)
		}
		start := time.Now()
		<-x.ready
		if d := time.Since(start); d < 50*time.Millisecond || d > 300*time.Millisecond {
			t.Errorf("ready after %v", d)
		}
		if !x.SendPacket(p) {
			t.Error("not ready after Ready")
		}
		y.within(t, time.Second, "packets", func() bool { p, _ := y.got(); return p == n+1 })
	})
}

// Unreliable datagrams overtake packets, come once or not at all, and have a
// largest size.
func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 1 << 20, Duplicate: 0.5, Loss: 0.1}, nil)
		x, y := w.x.join(t, w.y, w.to)
		if err := x.SendDatagram(make([]byte, x.MaxDatagram()+1)); !errors.Is(err, arq.ErrTooBig) {
			t.Fatal(err)
		}
		go x.send(t, 0, 40, 50000)
		time.Sleep(100 * time.Millisecond)
		for i := range 200 {
			p := make([]byte, 100)
			stamp(p, i)
			if err := x.SendDatagram(p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(500 * time.Millisecond)
		p, d := y.got()
		if p > 20 || d < 150 || d > 200 {
			t.Fatalf("%d datagrams and %d packets after half a second", d, p)
		}
		seen := map[string]bool{}
		for _, d := range y.datagrams {
			if seen[string(d)] {
				t.Fatal("a datagram came twice")
			}
			seen[string(d)] = true
		}
		y.within(t, time.Minute, "packets", func() bool { p, _ := y.got(); return p == 40 })
		if s := x.Stats(); s.MaxDatagram < 1400 || s.MaxDatagram != x.MaxDatagram() {
			t.Errorf("%+v", s)
		}
		if err := x.SendDatagram(make([]byte, x.MaxDatagram())); err != nil {
			t.Fatal(err)
		}
	})
}

// Over the kernel's loopback, many at once, and no goroutine is left.
func TestLoopback(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, host := range []string{local, "::1"} {
		b := newNode(t, netio.System, "[::]:0", nil)
		a := newNode(t, netio.System, "[::]:0", nil)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				x, y := a.join(t, b, b.at(t, host))
				// x and y need not be two ends of one association.
				x.send(t, 0, 30, 60000)
				y.send(t, 0, 100, 300)
				for range 10 {
					x.SendDatagram([]byte("datagram"))
				}
			})
		}
		all.Wait()
		b.stop()
		a.stop()
		if s := a.Stats(); s.Dialled != 8 || s.Forged != 0 {
			t.Errorf("%+v", s)
		}
	}
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines are left", n-before)
	}
}
