package simnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// world is two hosts and a listener at b, in a bubble.
type world struct {
	net  *Net
	a, b *Host
	l    net.Listener
}

var port = netip.MustParseAddrPort("10.0.0.2:5483")

func inWorld(t *testing.T, link Link, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{net: New(1)}
		w.a, w.b = w.net.Host("10.0.0.1", "2001:db8::1"), w.net.Host("10.0.0.2", "2001:db8::2")
		w.net.SetLink(w.a, w.b, link)
		var err error
		if w.l, err = w.b.Listen(t.Context(), port); err != nil {
			t.Fatal(err)
		}
		test(t, w)
	})
}

func (w *world) pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	dialled, err := w.a.Dial(t.Context(), netip.AddrPort{}, port)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := w.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialled.(*Conn), accepted.(*Conn)
}

func mustWrite(t *testing.T, c *Conn, text string) {
	t.Helper()
	if n, err := c.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("Write(%q) = %d, %v", text, n, err)
	}
}

func mustRead(t *testing.T, c *Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func mustFail(t *testing.T, what string, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func TestLatency(t *testing.T) {
	inWorld(t, Link{Latency: 20 * time.Millisecond}, func(t *testing.T, w *world) {
		start := time.Now()
		a, b := w.pair(t)
		if took := time.Since(start); took != 40*time.Millisecond {
			t.Errorf("dialling took %v, want one round trip", took)
		}
		start = time.Now()
		mustWrite(t, a, "hello")
		if took := time.Since(start); took != 0 {
			t.Errorf("writing took %v", took)
		}
		mustRead(t, b, "hello")
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("one way took %v", took)
		}
		if a.LocalAddr().String() != b.RemoteAddr().String() || a.RemoteAddr().String() != port.String() || b.LocalAddr().String() != port.String() {
			t.Errorf("addresses %v -> %v and %v -> %v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
		}
	})
}

func TestBandwidthIsShared(t *testing.T) {
	inWorld(t, Link{Bandwidth: 1 << 20, Buffer: 8 << 20}, func(t *testing.T, w *world) {
		start := time.Now()
		done := make(chan time.Duration)
		for range 2 {
			a, b := w.pair(t)
			go func() {
				a.Write(make([]byte, 1<<20))
				a.Close()
			}()
			go func() {
				io.Copy(io.Discard, b)
				done <- time.Since(start)
			}()
		}
		last := max(<-done, <-done)
		if last < 1999*time.Millisecond || last > 2001*time.Millisecond {
			t.Errorf("2 MiB over 1 MiB/s took %v", last)
		}
	})
}

func TestJitterKeepsOrder(t *testing.T) {
	inWorld(t, Link{Latency: time.Millisecond, Jitter: time.Second}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		var sent []byte
		for i := range 100 {
			mustWrite(t, a, string(rune('A'+i%26)))
			sent = append(sent, byte('A'+i%26))
			time.Sleep(10 * time.Millisecond)
		}
		a.Close()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("received %q, %v", got, err)
		}
	})
}

func TestFullBufferBlocksTheWriter(t *testing.T) {
	inWorld(t, Link{Buffer: 1000}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		if n, err := a.TryWrite(make([]byte, 4000)); n != 1000 || err != nil {
			t.Fatalf("TryWrite = %d, %v; want the buffer's 1000", n, err)
		}
		if n, err := a.TryWrite([]byte("x")); n != 0 || err != nil {
			t.Fatalf("TryWrite = %d, %v; want 0", n, err)
		}
		a.SetWriteDeadline(time.Now().Add(time.Second))
		start := time.Now()
		n, err := a.Write([]byte("x"))
		mustFail(t, "Write", err, os.ErrDeadlineExceeded)
		if n != 0 || time.Since(start) != time.Second {
			t.Fatalf("Write gave up after %v with %d bytes", time.Since(start), n)
		}
		a.SetWriteDeadline(time.Time{})
		done := make(chan error)
		go func() {
			_, err := a.Write(make([]byte, 5000))
			done <- err
		}()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatal("Write returned although nobody reads:", err)
		default:
		}
		if _, err := io.ReadFull(b, make([]byte, 6000)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadDeadline(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		b.SetReadDeadline(time.Now().Add(time.Hour))
		start := time.Now()
		_, err := b.Read(make([]byte, 1))
		mustFail(t, "Read", err, os.ErrDeadlineExceeded)
		if time.Since(start) != time.Hour {
			t.Fatalf("after %v", time.Since(start))
		}
		b.SetDeadline(time.Time{})
		mustWrite(t, a, "x")
		mustRead(t, b, "x")
		// A deadline set while a read waits ends it.
		done := make(chan error)
		go func() {
			_, err := b.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		b.SetReadDeadline(time.Unix(1, 0))
		mustFail(t, "Read", <-done, os.ErrDeadlineExceeded)
	})
}

func TestReadLazyAsksOnlyWhenThereIsSomething(t *testing.T) {
	inWorld(t, Link{Latency: time.Second}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		asked := 0
		buf := make([]byte, 10)
		read := func() (int, error) { return b.ReadLazy(func() []byte { asked++; return buf }) }
		mustWrite(t, a, "hello")
		a.Close()
		if n, err := read(); n != 5 || err != nil || asked != 1 {
			t.Fatalf("ReadLazy = %d, %v after %d calls", n, err, asked)
		}
		if n, err := read(); n != 0 || !errors.Is(err, io.EOF) || asked != 1 {
			t.Fatalf("at the end ReadLazy = %d, %v after %d calls", n, err, asked)
		}
	})
}

func TestCloseDeliversThenEnds(t *testing.T) {
	inWorld(t, Link{Latency: time.Second}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		mustWrite(t, a, "bye")
		a.Close()
		mustFail(t, "second Close", a.Close(), net.ErrClosed)
		_, err := a.Write([]byte("x"))
		mustFail(t, "Write after Close", err, net.ErrClosed)
		_, err = a.Read(make([]byte, 1))
		mustFail(t, "Read after Close", err, net.ErrClosed)
		got, err := io.ReadAll(b)
		if string(got) != "bye" || err != nil {
			t.Fatalf("read %q, %v", got, err)
		}
		mustWrite(t, b, "nobody reads this")
		_, err = b.Read(make([]byte, 1)) // EOF was seen, but the reset comes later
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		_, err = b.Write([]byte("x"))
		mustFail(t, "Write after the peer's close", err, syscall.EPIPE)
		b.Close()
		if n := w.a.Connections() + w.b.Connections(); n != 0 {
			t.Errorf("%d ends are left", n)
		}
	})
}

func TestCloseWriteLeavesTheOtherDirection(t *testing.T) {
	inWorld(t, Link{Latency: time.Second}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		mustWrite(t, a, "question")
		if err := errors.Join(a.CloseWrite(), a.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		_, err := a.Write([]byte("x"))
		mustFail(t, "Write after CloseWrite", err, syscall.EPIPE)
		got, err := io.ReadAll(b)
		if string(got) != "question" || err != nil {
			t.Fatalf("read %q, %v", got, err)
		}
		mustWrite(t, b, "answer")
		mustRead(t, a, "answer")
	})
}

func TestCloseWithUnreadBytesResets(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		mustWrite(t, b, "never read")
		a.Close()
		_, err := b.Read(make([]byte, 1))
		mustFail(t, "Read", err, syscall.ECONNRESET)
	})
}

func TestLingerZeroResets(t *testing.T) {
	inWorld(t, Link{Latency: time.Second}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		mustWrite(t, a, "lost")
		a.SetLinger(0)
		a.Close()
		_, err := b.Read(make([]byte, 1))
		mustFail(t, "Read", err, syscall.ECONNRESET)
	})
}

func TestCutAndHeal(t *testing.T) {
	inWorld(t, Link{Latency: time.Millisecond}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		w.net.Cut(w.a, w.b)
		_, err := w.a.Dial(t.Context(), netip.AddrPort{}, port)
		mustFail(t, "Dial", err, syscall.EHOSTUNREACH)
		mustWrite(t, a, "patience")
		b.SetReadDeadline(time.Now().Add(time.Hour))
		_, err = b.Read(make([]byte, 1))
		mustFail(t, "Read over a cut link", err, os.ErrDeadlineExceeded)
		b.SetReadDeadline(time.Time{})
		w.net.Heal(w.b, w.a)
		mustRead(t, b, "patience")
		w.pair(t)
	})
}

func TestSilence(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		w.net.Silence(w.a, w.b)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := w.a.Dial(ctx, netip.AddrPort{}, port)
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(start) != 10*time.Second {
			t.Fatalf("Dial: %v after %v", err, time.Since(start))
		}
		start = time.Now()
		_, err = w.a.Dial(t.Context(), netip.AddrPort{}, port)
		mustFail(t, "Dial without a deadline", err, syscall.ETIMEDOUT)
		if time.Since(start) != synTimeout {
			t.Fatalf("the kernel gave up after %v", time.Since(start))
		}
		done := make(chan error)
		go func() {
			_, err := w.a.Dial(t.Context(), netip.AddrPort{}, port)
			done <- err
		}()
		time.Sleep(5 * time.Second)
		w.net.Heal(w.a, w.b)
		if err := <-done; err != nil {
			t.Fatalf("Dial after Heal: %v", err)
		}
	})
}

func TestReset(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		a, b := w.pair(t)
		done := make(chan error)
		for _, c := range []*Conn{a, b} {
			go func() {
				_, err := c.Read(make([]byte, 1))
				done <- err
			}()
		}
		synctest.Wait()
		w.net.Reset(w.a, w.b)
		mustFail(t, "one end", <-done, syscall.ECONNRESET)
		mustFail(t, "the other", <-done, syscall.ECONNRESET)
	})
}

func TestDialErrors(t *testing.T) {
	inWorld(t, Link{Latency: time.Second}, func(t *testing.T, w *world) {
		six := w.net.Host("2001:db8::6")
		dial := func(from *Host, local, remote string) error {
			var l netip.AddrPort
			if local != "" {
				l = netip.MustParseAddrPort(local)
			}
			c, err := from.Dial(t.Context(), l, netip.MustParseAddrPort(remote))
			if err == nil {
				c.Close()
			}
			return err
		}
		for _, c := range []struct {
			name          string
			from          *Host
			local, remote string
			want          error
		}{
			{"a closed port", w.a, "", "10.0.0.2:1", syscall.ECONNREFUSED},
			{"no such host", w.a, "", "10.9.9.9:1", syscall.EHOSTUNREACH},
			{"no IPv4 here", six, "", "10.0.0.2:5483", syscall.ENETUNREACH},
			{"another's address", w.a, "10.0.0.2:0", "10.0.0.2:5483", syscall.EADDRNOTAVAIL},
			{"mixed families", w.a, "[2001:db8::1]:0", "10.0.0.2:5483", syscall.EADDRNOTAVAIL},
			{"port 0", w.a, "", "10.0.0.2:0", syscall.EADDRNOTAVAIL},
			{"loopback is the own host's", w.a, "", "127.0.0.1:5483", syscall.ECONNREFUSED},
			{"mapped", w.a, "", "[::ffff:10.0.0.2]:5483", nil},
		} {
			mustFail(t, c.name, dial(c.from, c.local, c.remote), c.want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, cancel)
		_, err := w.a.Dial(ctx, netip.AddrPort{}, port)
		mustFail(t, "canceled", err, context.Canceled)
	})
}

func TestCanceledDialLeavesNothing(t *testing.T) {
	inWorld(t, Link{Latency: time.Second}, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel) // the SYN has arrived, its answer has not
		_, err := w.a.Dial(ctx, netip.AddrPort{}, port)
		mustFail(t, "Dial", err, context.Canceled)
		accepted, err := w.l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, err = accepted.Read(make([]byte, 1))
		mustFail(t, "the accepted end", err, syscall.ECONNRESET)
		accepted.Close()
		if n := w.a.Connections() + w.b.Connections(); n != 0 {
			t.Errorf("%d ends are left", n)
		}
	})
}

func TestDialFromTheListenersPort(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		ours, err := w.a.Listen(t.Context(), netip.MustParseAddrPort("[::]:5483"))
		if err != nil {
			t.Fatal(err)
		}
		local := ours.Addr().(*net.TCPAddr).AddrPort()
		c, err := w.a.Dial(t.Context(), local, port)
		if err != nil || c.LocalAddr().String() != "10.0.0.1:5483" {
			t.Fatalf("%v, %v", c, err)
		}
		_, err = w.a.Dial(t.Context(), local, port)
		mustFail(t, "the same connection again", err, syscall.EADDRNOTAVAIL)
		_, err = w.a.Dial(t.Context(), local, netip.MustParseAddrPort("10.0.0.1:5483"))
		mustFail(t, "a socket dialling itself", err, syscall.ECONNREFUSED)
	})
}

func TestListen(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		for text, want := range map[string]error{
			"10.0.0.2:5483": syscall.EADDRINUSE, "0.0.0.0:5483": syscall.EADDRINUSE, "[::]:5483": syscall.EADDRINUSE,
			"10.0.0.9:1": syscall.EADDRNOTAVAIL, "127.0.0.1:5483": nil, "[2001:db8::2]:5483": nil, "[::]:0": nil,
		} {
			l, err := w.b.Listen(t.Context(), netip.MustParseAddrPort(text))
			mustFail(t, text, err, want)
			if err == nil {
				got := l.Addr().(*net.TCPAddr).AddrPort()
				if got.Addr() != netip.MustParseAddrPort(text).Addr() || got.Port() == 0 {
					t.Errorf("%s became %s", text, got)
				}
				l.Close()
			}
		}
		both, err := w.b.Listen(t.Context(), netip.MustParseAddrPort("[::]:7"))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"10.0.0.2:7", "[2001:db8::2]:7"} {
			c, err := w.a.Dial(t.Context(), netip.AddrPort{}, netip.MustParseAddrPort(text))
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			accepted, err := both.Accept()
			if err != nil || accepted.RemoteAddr().String() != c.LocalAddr().String() {
				t.Fatal(accepted, err)
			}
		}
	})
}

func TestCloseListener(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		waiting, err := w.a.Dial(t.Context(), netip.AddrPort{}, port)
		if err != nil {
			t.Fatal(err)
		}
		w.l.Close()
		_, err = waiting.Read(make([]byte, 1))
		mustFail(t, "a connection nobody accepted", err, syscall.ECONNRESET)
		_, err = w.l.Accept()
		mustFail(t, "Accept", err, net.ErrClosed)
		_, err = w.a.Dial(t.Context(), netip.AddrPort{}, port)
		mustFail(t, "Dial", err, syscall.ECONNREFUSED)
		l, err := w.b.Listen(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := l.Accept()
			done <- err
		}()
		synctest.Wait()
		l.Close()
		mustFail(t, "Accept beside Close", <-done, net.ErrClosed)
	})
}

func TestFullBacklogMakesDialsWait(t *testing.T) {
	inWorld(t, Link{}, func(t *testing.T, w *world) {
		for range backlog {
			if _, err := w.a.Dial(t.Context(), netip.AddrPort{}, port); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		done := make(chan error)
		go func() {
			_, err := w.a.Dial(t.Context(), netip.AddrPort{}, port)
			done <- err
		}()
		synctest.Wait()
		if _, err := w.l.Accept(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || time.Since(start) != synRetry {
			t.Fatalf("Dial: %v after %v", err, time.Since(start))
		}
	})
}

func TestAddrs(t *testing.T) {
	h := New(1).Host("10.0.0.1", "2001:db8::1", "203.0.113.7")
	got, err := h.Addrs()
	var want []netip.Addr
	for _, text := range []string{"203.0.113.7", "2001:db8::1", "10.0.0.1", "127.0.0.1", "::1"} {
		want = append(want, netip.MustParseAddr(text))
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Addrs = %v, %v", got, err)
	}
}

func TestSameSeedSamePorts(t *testing.T) {
	ports := func(seed uint64) (out []string) {
		h := New(seed).Host("10.0.0.1")
		for range 20 {
			l, err := h.Listen(t.Context(), netip.MustParseAddrPort("10.0.0.1:0"))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, l.Addr().String())
		}
		return out
	}
	if !slices.Equal(ports(7), ports(7)) || slices.Equal(ports(7), ports(8)) {
		t.Error("ports do not come from the seed")
	}
}

// TestRealTime shows that simnet also works outside a bubble.
func TestRealTime(t *testing.T) {
	n := New(3)
	a, b := n.Host("10.0.0.1"), n.Host("10.0.0.2")
	n.SetDefaultLink(Link{Latency: time.Millisecond})
	l, err := b.Listen(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Dial(t.Context(), netip.AddrPort{}, port)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789"), 100_000)
	go func() {
		c.Write(sent)
		c.Close()
	}()
	got, err := io.ReadAll(accepted)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("received %d bytes, %v", len(got), err)
	}
}
