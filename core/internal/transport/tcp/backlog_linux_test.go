package tcp

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBacklogIsLong: while nobody accepts, as many connections wait as the system lets, and none
// of their SYNs vanishes. QEMU gives no more of TCP_INFO than its first word: there the
// connections alone tell.
func TestBacklogIsLong(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Skip(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		t.Run(host, func(t *testing.T) {
			l := mustListen(t, netip.AddrPortFrom(netip.MustParseAddr(host), 0))
			raw, err := l.sockets.(*net.TCPListener).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var info *unix.TCPInfo
			if failed := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); failed != nil || err != nil {
				t.Fatal(failed, err)
			}
			if n := int(info.Sacked); n != 0 && n != most { // of a listener: the length of its backlog
				t.Errorf("the backlog is %d, the system lets it be %d", n, most)
			}
			to := netip.AddrPortFrom(loopback.Addr(), addrOf(l).Port())
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for i := range min(most, 300) {
				c, err := Dial(ctx, netip.AddrPort{}, to)
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				defer c.Close()
			}
		})
	}
}
