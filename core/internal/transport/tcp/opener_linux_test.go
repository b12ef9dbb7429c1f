package tcp

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

// TestSendOpener looks at the SYN that arrives, and dials from the same port to the
// same end right after.
func TestSendOpener(t *testing.T) {
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
			if err := SendOpener(local, remote, int(c.ttl)); err != nil {
				t.Fatal(err)
			}
			// On this machine the handshake is over before the opener is given up.
			if ttl, from := arrived(t, there); ttl != c.ttl || from.Port() != local.Port() {
				t.Errorf("a SYN from %v with a time to live of %d, want port %d and %d", from, ttl, local.Port(), c.ttl)
			}
			conn, err := Dial(t.Context(), local, remote)
			if err != nil {
				t.Fatalf("after an opener: %v", err)
			}
			defer conn.Close()
			if ttl, from := arrived(t, there); ttl != 64 || from.Port() != local.Port() {
				t.Errorf("a dial from %v with a time to live of %d", from, ttl)
			}
			if err := SendOpener(local, remote, 3); !errors.Is(err, syscall.EADDRNOTAVAIL) {
				t.Errorf("an opener beside a connection: %v", err)
			}
		})
	}
}

// arrived accepts a connection and returns what its SYN said.
func arrived(t *testing.T, l *Listener) (ttl byte, from netip.AddrPort) {
	t.Helper()
	if err := l.sockets.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
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
	from = accepted.RemoteAddr().(*net.TCPAddr).AddrPort()
	if syn[0]>>4 == 4 {
		return syn[8], from
	}
	return syn[7], from
}

func TestSendOpenerWrongUse(t *testing.T) {
	local := netip.MustParseAddrPort("0.0.0.0:40001")
	for _, c := range [][2]netip.AddrPort{
		{{}, netip.MustParseAddrPort("127.0.0.1:9")},
		{netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("127.0.0.1:9")},
		{local, {}},
		{local, netip.MustParseAddrPort("127.0.0.1:0")},
	} {
		if err := SendOpener(c[0], c[1], 4); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("from %v to %v: %v", c[0], c[1], err)
		}
	}
	if err := SendOpener(local, netip.MustParseAddrPort("[fe80::1%lo]:9"), 4); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on a link: %v", err)
	}
	if err := SendOpener(local, netip.MustParseAddrPort("127.0.0.1:9"), 0); err == nil {
		t.Error("a time to live of 0 is taken")
	}
}
