//go:build unix

package tcp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

func option(t *testing.T, c *Conn, level, name int) int {
	t.Helper()
	var value int
	var failed error
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { value, failed = syscall.GetsockoptInt(int(fd), level, name) })
	}
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return value
}

func TestSocketOptions(t *testing.T) {
	a, b := pair(t)
	for name, c := range map[string]*Conn{"dialled": a, "accepted": b} {
		if option(t, c, syscall.IPPROTO_TCP, syscall.TCP_NODELAY) == 0 {
			t.Errorf("%s: Nagle's delay is on", name)
		}
		if option(t, c, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 0 {
			t.Errorf("%s: the kernel's keep-alive is on", name)
		}
		if err := c.SetNotSentLowat(16 << 10); err != nil {
			t.Errorf("%s: SetNotSentLowat: %v", name, err)
		}
	}
}

// TestStrangerWithReusePortIsRefused covers the trap of SO_REUSEPORT: two
// listeners that both set it before binding share a port in silence.
func TestStrangerWithReusePortIsRefused(t *testing.T) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return joinPort(raw) }}
	config.SetMultipathTCP(false)
	stranger, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	l, err := Listen(t.Context(), stranger.Addr().(*net.TCPAddr).AddrPort())
	if err == nil {
		l.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("listening at a shared port: %v, want EADDRINUSE", err)
	}
}

func TestDialFromTheListenersPort(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		t.Run(host, func(t *testing.T) {
			ours := mustListen(t, netip.AddrPortFrom(netip.MustParseAddr(host), 0))
			for range 2 { // two connections from one port to two peers
				theirs := mustListen(t, loopback)
				conn, err := Dial(t.Context(), addrOf(ours), addrOf(theirs))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if got := conn.LocalAddr().(*net.TCPAddr).AddrPort().Port(); got != addrOf(ours).Port() {
					t.Fatalf("dialled from port %d, want %d", got, addrOf(ours).Port())
				}
			}
			if again, err := Listen(t.Context(), addrOf(ours)); !errors.Is(err, syscall.EADDRINUSE) {
				t.Fatalf("a second listener after dialling: %v, %v; want EADDRINUSE", again, err)
			}
			target := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addrOf(ours).Port())
			conn, err := Dial(t.Context(), netip.AddrPort{}, target) // the listener still listens
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			accepted, err := ours.Accept()
			if err != nil {
				t.Fatal(err)
			}
			accepted.Close()
			// Connections keep the port; listening there again works all the same.
			ours.Close()
			mustListen(t, addrOf(ours))
		})
	}
}

func TestDialFromABusyPortOfAStranger(t *testing.T) {
	stranger, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	theirs := mustListen(t, loopback)
	c, err := Dial(t.Context(), stranger.Addr().(*net.TCPAddr).AddrPort(), addrOf(theirs))
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("dialling from a stranger's port: %v, want EADDRINUSE", err)
	}
}

func TestDialToItselfIsRefused(t *testing.T) {
	l := mustListen(t, loopback)
	addr := addrOf(l)
	l.Close()
	c, err := Dial(t.Context(), addr, addr)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("a socket dialling itself: %v, want ECONNREFUSED", err)
	}
}

func TestTryWriteNeverWaits(t *testing.T) {
	a, b := pair(t)
	if n, err := a.TryWrite(nil); n != 0 || err != nil {
		t.Fatalf("TryWrite of nothing: %d, %v", n, err)
	}
	chunk := bytes.Repeat([]byte("crust"), 20000)
	var sent bytes.Buffer
	for {
		n, err := a.TryWrite(chunk)
		if err != nil {
			t.Fatal(err)
		}
		sent.Write(chunk[:n])
		if n == 0 {
			break
		}
		if sent.Len() > 1<<30 {
			t.Fatal("1 GiB fits although nobody reads")
		}
	}
	if err := a.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := a.TryWrite(chunk); n != 0 || err != nil {
		t.Fatalf("TryWrite past the deadline: %d, %v", n, err)
	}
	if err := a.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { // a blocked Write does not block TryWrite's neighbour Close, and goes on where TryWrite stopped
		a.Write([]byte("the end"))
		a.CloseWrite()
	}()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(sent.Bytes(), "the end"...); !bytes.Equal(got, want) {
		t.Fatalf("received %d bytes that differ from the %d sent", len(got), len(want))
	}
}

func TestTryWriteErrors(t *testing.T) {
	a, b := pair(t)
	if err := b.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	b.Close() // resets
	a.Read(make([]byte, 1))
	n, err := a.TryWrite([]byte("x"))
	var op *net.OpError
	if n != 0 || !errors.As(err, &op) || op.Addr == nil || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("TryWrite to a broken connection: %d, %v", n, err)
	}
	a.Close()
	if n, err := a.TryWrite([]byte("x")); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("TryWrite after Close: %d, %v; want net.ErrClosed", n, err)
	}
}

func TestTryWriteBesideClose(t *testing.T) {
	for range 50 {
		a, _ := pair(t)
		done := make(chan error)
		go func() {
			for {
				if _, err := a.TryWrite([]byte("x")); err != nil {
					done <- err
					return
				}
			}
		}()
		a.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Fatalf("TryWrite beside Close: %v", err)
		}
	}
}

func TestReadLazyHoldsNoBufferWhileIdle(t *testing.T) {
	a, b := pair(t)
	got := make(chan bool, 1)
	type result struct {
		n   int
		err error
	}
	done := make(chan result)
	buf := make([]byte, 3)
	go func() {
		for {
			n, err := b.ReadLazy(func() []byte { got <- true; return buf })
			done <- result{n, err}
			if err != nil {
				return
			}
		}
	}()
	for _, text := range []string{"abc", "de"} {
		select {
		case <-got:
			t.Fatal("an idle connection asked for a buffer")
		default:
		}
		if _, err := a.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		r := <-done
		if r.err != nil || string(buf[:r.n]) != text {
			t.Fatalf("read %q, %v; want %q", buf[:r.n], r.err, text)
		}
		<-got
	}
	// More than a buffer's worth: one call of get for each read.
	if _, err := a.Write([]byte("fghi")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fgh", "i"} {
		if r := <-done; r.err != nil || string(buf[:r.n]) != want {
			t.Fatalf("read %q, %v; want %q", buf[:r.n], r.err, want)
		}
		<-got
	}
	a.Close()
	if r := <-done; r.n != 0 || r.err != io.EOF {
		t.Fatalf("at the end: %d, %v; want EOF", r.n, r.err)
	}
	if len(got) != 0 {
		t.Fatal("the end of the stream asked for a buffer")
	}
}

func TestReadLazyErrors(t *testing.T) {
	never := func() []byte { t.Error("asked for a buffer"); return nil }
	a, b := pair(t)
	if err := b.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := b.ReadLazy(never); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("past the deadline: %d, %v", n, err)
	}
	if err := b.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := a.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if n, err := b.ReadLazy(never); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("after a reset: %d, %v", n, err)
	}
	c, _ := pair(t)
	done := make(chan error)
	go func() {
		_, err := c.ReadLazy(never)
		done <- err
	}()
	c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("beside Close: %v, want net.ErrClosed", err)
	}
}

func TestDirectCallsDoNotAllocate(t *testing.T) {
	a, b := pair(t)
	buf := make([]byte, 64)
	get := func() []byte { return buf }
	allocs := testing.AllocsPerRun(200, func() {
		if n, err := a.TryWrite(buf); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
		if n, err := b.ReadLazy(get); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
	})
	if allocs != 0 {
		t.Fatalf("TryWrite and ReadLazy allocate %v times", allocs)
	}
}

func TestDialCanceledWhileWaiting(t *testing.T) {
	// A listener whose backlog is full answers no more: the dial waits.
	l, addr := fullListener(t)
	defer syscall.Close(l)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		for {
			c, err := Dial(ctx, netip.AddrPort{}, addr)
			if err != nil {
				done <- err
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("Dial: %v, want context.Canceled", err)
	}
}

// fullListener returns a socket that listens with the smallest backlog.
func fullListener(t *testing.T) (int, netip.AddrPort) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	in4 := name.(*syscall.SockaddrInet4)
	return fd, netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port))
}

// TestNoIPv6 takes the errors that systems without IPv6 give, and those of a
// busy or forbidden port, where IPv4 alone would hide the trouble.
func TestNoIPv6(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.EAFNOSUPPORT: true, syscall.EPROTONOSUPPORT: true, syscall.EADDRNOTAVAIL: true,
		&net.AddrError{Err: "no suitable address found", Addr: "::"}: true,
		syscall.EADDRINUSE: false, syscall.EACCES: false, syscall.EMFILE: false, context.Canceled: false,
	} {
		wrapped := &net.OpError{Op: "listen", Err: err}
		if got := noIPv6(wrapped); got != want {
			t.Errorf("noIPv6(%v) = %v, want %v", err, got, want)
		}
	}
}
