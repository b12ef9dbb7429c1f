package tcp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestOpen looks at the SYN that arrives, and has a connection come about.
func TestOpen(t *testing.T) {
	for name, c := range map[string]struct {
		local, remote string
		ttl           byte
	}{
		"IPv4": {"0.0.0.0:0", "127.0.0.1:0", 3},
		"IPv6": {"[::]:0", "[::1]:0", 4},
		"both": {"[::]:0", "127.0.0.1:0", 5},
	} {
		t.Run(name, func(t *testing.T) {
			own, err := Listen(t.Context(), netip.MustParseAddrPort(c.local))
			if err != nil {
				t.Skip("no such address here:", err)
			}
			defer own.Close()
			there, err := Listen(t.Context(), netip.MustParseAddrPort(c.remote))
			if err != nil {
				t.Skip("no such address here:", err)
			}
			defer there.Close()
			sockets := there.sockets.(*net.TCPListener)
			raw, err := sockets.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := setOption(raw, unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1); err != nil {
				t.Skip("the kernel does not keep a SYN:", err)
			}
			local, remote := own.Addr().(*net.TCPAddr).AddrPort(), there.Addr().(*net.TCPAddr).AddrPort()
			o, err := Open(local, remote, int(c.ttl))
			if err != nil {
				t.Fatal(err)
			}
			accepted, ttl := arrived(t, there)
			if from := accepted.RemoteAddr().(*net.TCPAddr).Port; ttl != c.ttl || from != int(local.Port()) || o.LocalAddr().Port() != local.Port() {
				t.Errorf("a SYN from port %d with a time to live of %d, want %d and %d", from, ttl, local.Port(), c.ttl)
			}
			conn, err := o.Wait(time.Now().Add(10 * time.Second))
			if err != nil {
				t.Fatal(err)
			}
			for _, option := range [][2]int{{unix.IPPROTO_IP, unix.IP_TTL}, {unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_IP, ipMinTTL}} {
				dialled, err := Dial(t.Context(), netip.AddrPort{}, remote)
				if err != nil {
					t.Fatal(err)
				}
				if name != "IPv6" && optionOf(t, conn, option) != optionOf(t, dialled, option) {
					t.Errorf("option %v is %d, not as after Dial", option, optionOf(t, conn, option))
				}
				dialled.Close()
				arrived(t, there)
			}
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			if all, err := io.ReadAll(accepted); err != nil || string(all) != "hello" {
				t.Errorf("%q, %v", all, err)
			}
		})
	}
}

func optionOf(t *testing.T, c *Conn, o [2]int) int {
	t.Helper()
	return option(t, c, o[0], o[1])
}

// arrived accepts a connection and returns the time to live of its SYN.
func arrived(t *testing.T, l *Listener) (conn net.Conn, ttl byte) {
	t.Helper()
	if err := l.sockets.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	var syn [128]byte
	size := uint32(len(syn))
	raw, err := accepted.(*Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, failed = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
			uintptr(unsafe.Pointer(&syn)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil || failed != 0 || size < 20 {
		t.Fatal(err, failed, size)
	}
	if syn[0]>>4 == 4 {
		return accepted, syn[8]
	}
	return accepted, syn[7]
}

// TestOpenRefused: nobody is there.
func TestOpenRefused(t *testing.T) {
	l, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	o, err := Open(netip.MustParseAddrPort("0.0.0.0:0"), l.Addr().(*net.TCPAddr).AddrPort(), 4)
	if err == nil {
		_, err = o.Wait(time.Now().Add(10 * time.Second))
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
}

// TestOpenEnds: where nobody answers it ends by Close, or when its time is over, and
// leaves its two ends to others.
func TestOpenEnds(t *testing.T) {
	for name, end := range map[string]func(*Opening){
		"by Close": func(o *Opening) { o.Close() },
		"by time":  func(*Opening) {},
	} {
		l, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		full := backlogged(t)
		o, err := Open(l.Addr().(*net.TCPAddr).AddrPort(), full, 4)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*time.Millisecond, func() { end(o) })
		conn, err := o.Wait(time.Now().Add(100 * time.Millisecond))
		if conn != nil || err == nil {
			t.Fatalf("%s: %v, %v", name, conn, err)
		}
		if name == "by Close" && !errors.Is(err, net.ErrClosed) || name == "by time" && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		again, err := Open(l.Addr().(*net.TCPAddr).AddrPort(), full, 4)
		if err != nil {
			t.Fatalf("%s: the same ends again: %v", name, err)
		}
		again.Close()
		l.Close()
	}
}

// backlogged returns an address at which a SYN is not answered: of a listener whose
// backlog is full.
func backlogged(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	filler, err := Dial(t.Context(), netip.AddrPort{}, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { filler.Close() })
	return at
}

func TestOpenWrongUse(t *testing.T) {
	local := netip.MustParseAddrPort("0.0.0.0:0")
	for _, c := range [][2]netip.AddrPort{
		{{}, netip.MustParseAddrPort("127.0.0.1:9")},
		{local, {}},
		{local, netip.MustParseAddrPort("127.0.0.1:0")},
	} {
		if _, err := Open(c[0], c[1], 4); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("from %v to %v: %v", c[0], c[1], err)
		}
	}
	if _, err := Open(local, netip.MustParseAddrPort("[fe80::1%lo]:9"), 4); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on a link: %v", err)
	}
	for _, ttl := range []int{0, -1, 256} {
		if _, err := Open(local, netip.MustParseAddrPort("127.0.0.1:9"), ttl); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("a time to live of %d: %v", ttl, err)
		}
	}
}
