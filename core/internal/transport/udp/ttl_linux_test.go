package udp

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// The receiver sees the time to live that was asked for, and on other datagrams
// the system's own.
func TestWriteTTL(t *testing.T) {
	for name, c := range map[string]struct {
		from, to  string
		level, on int
	}{
		"IPv4":                      {"127.0.0.1:0", "127.0.0.1:0", unix.IPPROTO_IP, unix.IP_RECVTTL},
		"IPv6":                      {"[::1]:0", "[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
		"IPv4 from both families":   {"[::]:0", "127.0.0.1:0", unix.IPPROTO_IP, unix.IP_RECVTTL},
		"IPv6 from both families":   {"[::]:0", "[::1]:0", unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
		"IPv4 from all of its kind": {"0.0.0.0:0", "127.0.0.1:0", unix.IPPROTO_IP, unix.IP_RECVTTL},
	} {
		t.Run(name, func(t *testing.T) {
			from, err := Listen(t.Context(), netip.MustParseAddrPort(c.from))
			if err != nil {
				t.Skip("no such address here:", err)
			}
			defer from.Close() //nolint:errcheck // the test is over
			to, err := Listen(t.Context(), netip.MustParseAddrPort(c.to))
			if err != nil {
				t.Skip("no such address here:", err)
			}
			defer to.Close() //nolint:errcheck // the test is over
			to.option(t, c.level, c.on, 1)
			packet := []Packets{{Buf: []byte("abcdef"), N: 6, Segment: 4, Addr: to.LocalAddr()}}
			if err := from.WriteTTL(5, packet); err != nil {
				t.Fatal(err)
			}
			if err := from.WriteBatch([]Packets{{Buf: []byte("gh"), N: 2, Segment: 2, Addr: to.LocalAddr()}}); err != nil {
				t.Fatal(err)
			}
			for i, want := range []struct {
				data string
				ttl  uint32
			}{{"abcd", 5}, {"ef", 5}, {"gh", 64}} {
				buf, oob := make([]byte, 100), make([]byte, 100)
				n, m, _, _, err := to.socket.ReadMsgUDPAddrPort(buf, oob)
				if err != nil {
					t.Fatal(err)
				}
				messages, err := unix.ParseSocketControlMessage(oob[:m])
				if err != nil {
					t.Fatal(err)
				}
				got := uint32(0)
				for _, m := range messages {
					if m.Header.Type == unix.IP_TTL || m.Header.Type == unix.IPV6_HOPLIMIT {
						got = uint32(m.Data[0])
					}
				}
				if string(buf[:n]) != want.data || got != want.ttl {
					t.Errorf("datagram %d is %q with a time to live of %d, want %q and %d", i, buf[:n], got, want.data, want.ttl)
				}
			}
		})
	}
	closed, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close() //nolint:errcheck // that is the test
	if err := closed.WriteTTL(5, []Packets{{Buf: []byte("x"), N: 1, Segment: 1, Addr: netip.MustParseAddrPort("127.0.0.1:9")}}); err == nil {
		t.Error("a closed socket sends")
	}
}
