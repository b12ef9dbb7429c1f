package tcp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func mustListen(t *testing.T, addr netip.AddrPort) *Listener {
	t.Helper()
	l, err := Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func addrOf(l *Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// pair returns both ends of a connection.
func pair(t *testing.T) (dialled, accepted *Conn) {
	t.Helper()
	l := mustListen(t, loopback)
	dialled, err := Dial(t.Context(), netip.AddrPort{}, addrOf(l))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted = conn.(*Conn)
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return dialled, accepted
}

func TestListenDialAccept(t *testing.T) {
	a, b := pair(t)
	for _, c := range []struct{ from, to *Conn }{{a, b}, {b, a}} {
		if _, err := c.from.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c.to, got); err != nil || string(got) != "hello" {
			t.Fatalf("read %q, %v", got, err)
		}
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("after CloseWrite: read %d, %v; want EOF", n, err)
	}
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatalf("the other direction after CloseWrite: %v", err)
	}
}

func TestUnspecifiedIPv6IsBothFamilies(t *testing.T) {
	l := mustListen(t, netip.MustParseAddrPort("[::]:0"))
	port := addrOf(l).Port()
	targets := []string{"127.0.0.1"}
	if addrOf(l).Addr().Is6() {
		if probe, err := Listen(t.Context(), netip.MustParseAddrPort("[::1]:0")); err == nil {
			probe.Close()
			targets = append(targets, "::1")
		}
	}
	for _, target := range targets {
		conn, err := Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(netip.MustParseAddr(target), port))
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted.Close()
		conn.Close()
	}
}

func TestUnspecifiedIPv4IsIPv4(t *testing.T) {
	for _, text := range []string{"0.0.0.0:0", "[::ffff:0.0.0.0]:0"} {
		l := mustListen(t, netip.MustParseAddrPort(text))
		if got := addrOf(l).Addr(); got != netip.IPv4Unspecified() {
			t.Errorf("listening at %s reports %s", text, got)
		}
		if conn, err := Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(netip.IPv6Loopback(), addrOf(l).Port())); err == nil {
			conn.Close()
			t.Errorf("a listener at %s took an IPv6 connection", text)
		}
	}
}

func TestBusyPortIsRefused(t *testing.T) {
	first := mustListen(t, loopback)
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		addr := netip.AddrPortFrom(netip.MustParseAddr(host), addrOf(first).Port())
		second, err := Listen(t.Context(), addr)
		if err == nil {
			second.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener at %s: %v, want EADDRINUSE", addr, err)
		}
	}
	stranger, err := net.Listen("tcp4", addrOf(first).String())
	if err == nil {
		stranger.Close()
		t.Error("a plain listener took our port")
	}
}

func TestPortIsFreeAgainAfterClose(t *testing.T) {
	l := mustListen(t, loopback)
	conn, err := Dial(t.Context(), netip.AddrPort{}, addrOf(l))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatalf("Close twice: %v", err)
	}
	mustListen(t, addrOf(l)) // although the accepted connection still has the port
}

func TestListenErrors(t *testing.T) {
	for text, want := range map[string]error{
		"192.0.2.1:0":     syscall.EADDRNOTAVAIL,
		"[2001:db8::1]:0": syscall.EADDRNOTAVAIL,
	} {
		if l, err := Listen(t.Context(), netip.MustParseAddrPort(text)); !errors.Is(err, want) {
			t.Errorf("Listen(%s) = %v, %v; want %v", text, l, err, want)
		}
	}
	if l, err := Listen(t.Context(), netip.AddrPort{}); err == nil || l != nil {
		t.Errorf("Listen(zero) = %v, %v", l, err)
	}
}

func TestDialErrors(t *testing.T) {
	l := mustListen(t, loopback)
	gone := addrOf(l)
	l.Close()
	if c, err := Dial(t.Context(), netip.AddrPort{}, gone); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("where nothing listens: %v, %v", c, err)
	}
	for _, bad := range []netip.AddrPort{{}, netip.MustParseAddrPort("127.0.0.1:0")} {
		if c, err := Dial(t.Context(), netip.AddrPort{}, bad); err == nil || c != nil {
			t.Errorf("Dial(%v) = %v, %v", bad, c, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Dial(ctx, netip.AddrPort{}, gone); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v, %v", c, err)
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err := Dial(ctx, netip.AddrPort{}, gone)
	var timeout interface{ Timeout() bool }
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("late: %v, want a timeout", err)
	}
}

// short is an acceptor that fails some times before it delivers.
type short struct {
	*net.TCPListener
	failures []error
	end      error
	times    []time.Time
}

func (s *short) AcceptTCP() (*net.TCPConn, error) {
	s.times = append(s.times, time.Now())
	if len(s.failures) == 0 {
		if s.end != nil {
			return nil, s.end
		}
		return s.TCPListener.AcceptTCP()
	}
	err := s.failures[0]
	s.failures = s.failures[1:]
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
}
func (s *short) Addr() net.Addr { return &net.TCPAddr{} }
func (s *short) Close() error   { return nil }

func TestAcceptWaitsOutPassingErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &short{end: net.ErrClosed}
		for i := range 40 {
			s.failures = append(s.failures, passingErrors[i%len(passingErrors)])
		}
		_, err := newListener(s).Accept()
		if !errors.Is(err, net.ErrClosed) {
			t.Fatalf("Accept: %v", err)
		}
		if len(s.times) != 41 {
			t.Fatalf("tried %d times, want 41", len(s.times))
		}
		for i := 1; i < len(s.times); i++ {
			if pause := s.times[i].Sub(s.times[i-1]); pause < minPause || pause > maxPause {
				t.Errorf("pause %d was %v, want %v to %v", i, pause, minPause, maxPause)
			}
		}
	})
}

func TestAcceptReturnsWhatDoesNotPass(t *testing.T) {
	s := &short{failures: []error{syscall.EBADF}}
	if _, err := newListener(s).Accept(); !errors.Is(err, syscall.EBADF) {
		t.Fatalf("Accept: %v, want EBADF", err)
	}
}

func TestCloseEndsAcceptDuringAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &short{}
		for range 1000 {
			s.failures = append(s.failures, syscall.EMFILE)
		}
		l := newListener(s)
		done := make(chan error)
		go func() {
			_, err := l.Accept()
			done <- err
		}()
		time.Sleep(time.Minute) // virtual
		synctest.Wait()
		l.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "too many") {
			t.Fatalf("Accept: %v, want closed", err)
		}
	})
}

func TestCloseEndsAccept(t *testing.T) {
	l := mustListen(t, loopback)
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Accept: %v, want net.ErrClosed", err)
	}
}
