package udp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patient is how long a test waits for what must come.
const patient = 20 * time.Second

// open opens a socket that gives up reading when the test hangs.
func open(t testing.TB, addr string) *Conn {
	t.Helper()
	c, err := Listen(context.Background(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.socket.SetReadDeadline(time.Now().Add(patient)); err != nil {
		t.Fatal(err)
	}
	return c
}

// buffers makes memory to read n runs into.
func buffers(n int) []Packets {
	ps := make([]Packets, n)
	for i := range ps {
		ps[i].Buf = make([]byte, ReadSize)
	}
	return ps
}

// run makes a run of datagrams to an address.
func run(to netip.AddrPort, segment int, data []byte) Packets {
	return Packets{Buf: data, N: len(data), Segment: segment, Addr: to}
}

// datagrams cuts runs apart.
func datagrams(ps []Packets) (out [][]byte) {
	for _, p := range ps {
		data := p.Buf[:p.N]
		for p.Segment > 0 && len(data) > p.Segment {
			out = append(out, bytes.Clone(data[:p.Segment]))
			data = data[p.Segment:]
		}
		out = append(out, bytes.Clone(data))
	}
	return out
}

// collect reads until n datagrams have come, all from one address.
func collect(t testing.TB, c *Conn, from netip.AddrPort, n int) (out [][]byte) {
	t.Helper()
	ps := buffers(4)
	for len(out) < n {
		count, err := c.ReadBatch(ps)
		if err != nil {
			t.Fatalf("%d of %d datagrams came, then %v", len(out), n, err)
		}
		for _, p := range ps[:count] {
			if p.Addr != from {
				t.Fatalf("a datagram came from %v, not %v", p.Addr, from)
			}
		}
		out = append(out, datagrams(ps[:count])...)
	}
	return out
}

func mustWrite(t testing.TB, c *Conn, ps ...Packets) {
	t.Helper()
	if err := c.WriteBatch(ps); err != nil {
		t.Fatal(err)
	}
}

func mustEqual(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d datagrams came, not %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("datagram %d of %d: %d bytes came, not the %d that were sent", i, len(got), len(got[i]), len(want[i]))
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// TestRunsArriveAsDatagrams sends runs of all shapes in every way that there is
// on this system.
func TestRunsArriveAsDatagrams(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
			w.set(t, a)
			w.set(t, b)
			for _, shape := range []struct{ n, segment int }{
				{0, 0}, {1, 0}, {1, 1}, {10, 3}, {1400, 1400}, {1400, 5000}, {2 * 1400, 1400}, {14001, 1400},
				{64 * 1000, 1000}, {65 * 1000, 1000}, {65507, 0}, {65507, 1400}, {70000, 1400}, {300, 1}, {3 * 40000, 40000},
			} {
				t.Run(fmt.Sprintf("%d/%d", shape.n, shape.segment), func(t *testing.T) {
					sent := []Packets{run(b.LocalAddr(), shape.segment, noise(shape.n))}
					mustWrite(t, a, sent...)
					want := datagrams(sent)
					mustEqual(t, collect(t, b, a.LocalAddr(), len(want)), want)
				})
			}
			t.Run("many", func(t *testing.T) {
				var sent []Packets
				for i := range 150 {
					sent = append(sent, run(b.LocalAddr(), 100+i%3, noise(150+i*5)))
				}
				mustWrite(t, a, sent...)
				want := datagrams(sent)
				mustEqual(t, collect(t, b, a.LocalAddr(), len(want)), want)
			})
			if s := a.Stats(); s.Unsent != 0 || s.ReadErrors != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestFamilies shows which addresses a socket has, and that it names its peers
// by theirs.
func TestFamilies(t *testing.T) {
	for _, c := range []struct{ listen, from, at string }{
		{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"},
		{"0.0.0.0:0", "127.0.0.1:0", "127.0.0.1"},
		{"[::1]:0", "[::1]:0", "::1"},
		{"[::]:0", "127.0.0.1:0", "127.0.0.1"},
		{"[::]:0", "[::1]:0", "::1"},
	} {
		t.Run(c.listen+" "+c.at, func(t *testing.T) {
			if !hasIPv6() && (c.at == "::1" || c.listen == "[::]:0") {
				t.Skip("no IPv6 here")
			}
			for _, w := range ways {
				a, b := open(t, c.from), open(t, c.listen)
				w.set(t, a)
				w.set(t, b)
				if b.LocalAddr().Addr() != netip.MustParseAddrPort(c.listen).Addr() || b.LocalAddr().Port() == 0 {
					t.Fatalf("listens at %v", b.LocalAddr())
				}
				to := netip.AddrPortFrom(netip.MustParseAddr(c.at), b.LocalAddr().Port())
				mustWrite(t, a, run(to, 2, []byte("hello")))
				mustEqual(t, collect(t, b, a.LocalAddr(), 3), [][]byte{[]byte("he"), []byte("ll"), []byte("o")})
				mustWrite(t, b, run(a.LocalAddr(), 2, []byte("back")))
				mustEqual(t, collect(t, a, to, 2), [][]byte{[]byte("ba"), []byte("ck")})
			}
		})
	}
}

func hasIPv6() bool {
	c, err := Listen(context.Background(), netip.MustParseAddrPort("[::1]:0"))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func TestListenErrors(t *testing.T) {
	taken := open(t, "127.0.0.1:0")
	for _, c := range []struct {
		addr netip.AddrPort
		want error
	}{
		{taken.LocalAddr(), syscall.EADDRINUSE},
		{netip.AddrPortFrom(netip.IPv4Unspecified(), taken.LocalAddr().Port()), syscall.EADDRINUSE},
		{netip.AddrPortFrom(netip.IPv6Unspecified(), taken.LocalAddr().Port()), syscall.EADDRINUSE},
		{netip.MustParseAddrPort("192.0.2.1:0"), syscall.EADDRNOTAVAIL},
		{netip.AddrPort{}, syscall.EADDRNOTAVAIL},
	} {
		if got, err := Listen(t.Context(), c.addr); got != nil || !errors.Is(err, c.want) {
			t.Errorf("Listen(%v) = %v, %v", c.addr, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := Listen(ctx, netip.MustParseAddrPort("127.0.0.1:0")); got != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("Listen = %v, %v", got, err)
	}
	port := taken.LocalAddr()
	taken.Close()
	if again := open(t, port.String()); again.LocalAddr() != port {
		t.Errorf("asked for %v, got %v", port, again.LocalAddr())
	}
}

func TestCloseEndsReading(t *testing.T) {
	for _, w := range ways {
		c := open(t, "127.0.0.1:0")
		w.set(t, c)
		done := make(chan error)
		go func() {
			_, err := c.ReadBatch(buffers(1))
			done <- err
		}()
		first, second := c.Close(), c.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: ReadBatch: %v", w.name, err)
		}
		if _, err := c.ReadBatch(buffers(1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: ReadBatch after Close: %v", w.name, err)
		}
		if err := c.WriteBatch([]Packets{run(c.LocalAddr(), 0, []byte("x"))}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: WriteBatch after Close: %v", w.name, err)
		}
		if first != nil || second != nil {
			t.Errorf("%s: Close: %v, %v", w.name, first, second)
		}
		c.Stats() // must not crash
	}
}

// TestWhatCannotBeSentIsLost shows that it is counted and disturbs nothing else.
func TestWhatCannotBeSentIsLost(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
			w.set(t, a)
			to := b.LocalAddr()
			bad := []Packets{
				run(netip.MustParseAddrPort("[2001:db8::1]:1"), 0, []byte("of the other family")),
				run(netip.AddrPort{}, 0, []byte("nowhere")),
				run(netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port()), 0, []byte("unspecified")),
				run(netip.AddrPortFrom(to.Addr(), 0), 0, []byte("no port")),
				run(to, 0, noise(MaxRun+1)),
			}
			var sent, want []Packets
			for i := range bad {
				good := run(to, 0, []byte{byte(i)})
				sent, want = append(sent, bad[i], good), append(want, good)
			}
			mustWrite(t, a, sent...)
			mustEqual(t, collect(t, b, a.LocalAddr(), len(want)), datagrams(want))
			if s := a.Stats(); s.Unsent != uint64(len(bad)) {
				t.Errorf("%+v, %d could not be sent", s, len(bad))
			}
		})
	}
}

// TestNobodyThere shows that a port where nobody listens does not disturb the
// socket, whatever comes back.
func TestNobodyThere(t *testing.T) {
	for _, w := range ways {
		a, b, gone := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
		w.set(t, a)
		w.set(t, b)
		gone.Close()
		for range 100 {
			mustWrite(t, a, run(gone.LocalAddr(), 10, noise(100)), run(b.LocalAddr(), 0, []byte("x")))
		}
		collect(t, b, a.LocalAddr(), 100)
		mustWrite(t, b, run(a.LocalAddr(), 0, []byte("y")))
		mustEqual(t, collect(t, a, b.LocalAddr(), 1), [][]byte{[]byte("y")})
	}
}

func TestManyWriters(t *testing.T) {
	const writers, batches = 8, 20
	a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range batches {
				mustNotFail(t, a.WriteBatch([]Packets{
					run(b.LocalAddr(), 100, bytes.Repeat([]byte{byte(i)}, 1000)),
					run(b.LocalAddr(), 0, bytes.Repeat([]byte{byte(i)}, 100)),
				}))
			}
		})
	}
	counts := map[byte]int{}
	for _, d := range collect(t, b, a.LocalAddr(), writers*batches*11) {
		if len(d) != 100 || !bytes.Equal(d, bytes.Repeat(d[:1], 100)) {
			t.Fatal("datagrams of two writers are mixed")
		}
		counts[d[0]]++
	}
	wg.Wait()
	for i := range writers {
		if counts[byte(i)] != batches*11 {
			t.Errorf("%d datagrams of writer %d", counts[byte(i)], i)
		}
	}
}

func mustNotFail(t testing.TB, err error) {
	if err != nil {
		t.Error(err)
	}
}

func TestEmptyBatches(t *testing.T) {
	c := open(t, "127.0.0.1:0")
	mustWrite(t, c)
	if n, err := c.ReadBatch(nil); n != 0 || err != nil {
		t.Errorf("ReadBatch(nil) = %d, %v", n, err)
	}
}
