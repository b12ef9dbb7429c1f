package netio

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestSieveAtListeners: who is in the sieve gets no answer, others do, and so does he
// when it is changed. What is accepted has no filter of its own.
func TestSieveAtListeners(t *testing.T) {
	for name, c := range map[string]struct{ at, good, bad string }{
		"IPv4": {"127.0.0.1:0", "127.0.0.2", "127.0.0.3"},
		"IPv6": {"[::1]:0", "", "::1"},
		"both": {"[::]:0", "::1", "127.0.0.3"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := System.Listen(t.Context(), netip.MustParseAddrPort(c.at))
			if err != nil {
				t.Skip("no such address here:", err)
			}
			defer l.Close()
			_, port, err := net.SplitHostPort(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			comes := func(from string, wait time.Duration) bool {
				at := "127.0.0.1"
				if net.ParseIP(from).To4() == nil {
					at = "::1"
				}
				d := net.Dialer{Timeout: wait, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
				conn, err := d.Dial("tcp", net.JoinHostPort(at, port))
				if errors.Is(err, syscall.EADDRNOTAVAIL) {
					t.Skip("no such address here:", err)
				}
				if err != nil {
					if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
						t.Errorf("%s is answered: %v", from, err)
					}
					return false
				}
				defer conn.Close()
				accepted, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer accepted.Close()
				if n := filterOf(t, accepted.(syscall.Conn)); n != 0 {
					t.Errorf("an accepted connection has a filter of %d instructions", n)
				}
				return true
			}
			bad := netip.MustParseAddr(c.bad)
			if err := NewSieve([]netip.Prefix{netip.PrefixFrom(bad, bad.BitLen())}).Put(l); err != nil {
				t.Fatal(err)
			}
			if comes(c.bad, 300*time.Millisecond) {
				t.Error("who is in the sieve comes in")
			}
			if c.good != "" && !comes(c.good, 20*time.Second) {
				t.Error("who is not in the sieve does not come in")
			}
			if err := NewSieve(nil).Put(l); err != nil {
				t.Fatal(err)
			}
			if !comes(c.bad, 20*time.Second) {
				t.Error("without the sieve nobody comes in")
			}
		})
	}
}

// filterOf returns how many instructions a socket has.
func filterOf(t *testing.T, c syscall.Conn) (n uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&n)), 0)
	})
	if err != nil || errno != 0 {
		t.Fatal(err, errno)
	}
	return n
}

// TestSieveOfDatagrams: what comes from whoever is in the sieve is not read.
func TestSieveOfDatagrams(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::]:0"} {
		p, err := System.ListenPacket(t.Context(), netip.MustParseAddrPort(at))
		if err != nil {
			t.Log("no such address here:", err)
			continue
		}
		defer p.Close()
		bad, good := netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.2")
		send := func(from netip.Addr, text string) {
			c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(p.LocalAddr().Port())})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		next := func() string {
			ps := []Packets{{Buf: make([]byte, ReadSize)}}
			if _, err := p.ReadBatch(ps); err != nil {
				t.Fatal(err)
			}
			return string(ps[0].Buf[:ps[0].N])
		}
		if err := NewSieve([]netip.Prefix{netip.PrefixFrom(good, 24).Masked()}).Put(p); err != nil {
			t.Fatal(err)
		}
		if err := NewSieve([]netip.Prefix{netip.PrefixFrom(bad, 32)}).Put(p); err != nil { // in the place of the other
			t.Fatal(err)
		}
		send(bad, "from the banned")
		send(good, "from the other")
		if got := next(); got != "from the other" {
			t.Errorf("%s: read %q", at, got)
		}
		if err := NewSieve(nil).Put(p); err != nil {
			t.Fatal(err)
		}
		send(bad, "lifted")
		if got := next(); got != "lifted" {
			t.Errorf("%s: read %q", at, got)
		}
	}
}

// TestSieveFits: the kernel takes the longest programs there are, or part of them.
func TestSieveFits(t *testing.T) {
	p, err := System.ListenPacket(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var all []netip.Prefix
	for i := range 10_000 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 1}), 32))
	}
	s := NewSieve(all)
	began := time.Now()
	if err := s.Put(p); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d prefixes are put in within %v", s.Len(), time.Since(began))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(p); err == nil {
		t.Error("a closed socket takes a sieve")
	}
	if CanSieve(struct{}{}) || !errors.Is(s.Put(struct{}{}), errors.ErrUnsupported) {
		t.Error("what is no socket takes a sieve")
	}
}
