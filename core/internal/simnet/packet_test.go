package simnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
)

// pipe is a UDP socket at each of two hosts.
type pipe struct {
	*world
	from, to *packetConn
}

// inAir runs a test with a socket at 10.0.0.1:1000 and one at 10.0.0.2:2000.
func inAir(t *testing.T, link Link, test func(t *testing.T, p *pipe)) {
	t.Helper()
	inWorld(t, link, func(t *testing.T, w *world) {
		test(t, &pipe{w, socketAt(t, w.a, "[::]:1000"), socketAt(t, w.b, "[::]:2000")})
	})
}

var (
	hostA = netip.MustParseAddrPort("10.0.0.1:1000")
	hostB = netip.MustParseAddrPort("10.0.0.2:2000")
)

func socketAt(t *testing.T, h *Host, addr string) *packetConn {
	t.Helper()
	c, err := h.ListenPacket(t.Context(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*packetConn)
}

func post(t *testing.T, c netio.PacketConn, to netip.AddrPort, data []byte) {
	t.Helper()
	if err := c.WriteBatch([]netio.Packets{{Buf: data, N: len(data), Addr: to}}); err != nil {
		t.Fatal(err)
	}
}

// postNumbers sends n datagrams of a size that are numbered.
func postNumbers(t *testing.T, c netio.PacketConn, to netip.AddrPort, n, size int) {
	t.Helper()
	for i := range n {
		post(t, c, to, binary.BigEndian.AppendUint32(make([]byte, 0, size), uint32(i))[:size])
	}
}

// letter is a datagram that was read.
type letter struct {
	from netip.AddrPort
	data string
}

// waiting returns what has arrived by now, without waiting for more.
func waiting(t *testing.T, c *packetConn) (out []letter) {
	t.Helper()
	synctest.Wait()
	for {
		c.host.net.mu.Lock()
		empty := len(c.received) == 0
		c.host.net.mu.Unlock()
		if empty {
			return out
		}
		ps := []netio.Packets{{Buf: make([]byte, netio.ReadSize)}, {Buf: make([]byte, netio.ReadSize)}}
		n, err := c.ReadBatch(ps)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ps[:n] {
			for data := p.Buf[:p.N]; ; data = data[p.Segment:] {
				if p.Segment == 0 || len(data) <= p.Segment {
					out = append(out, letter{p.Addr, string(data)})
					break
				}
				out = append(out, letter{p.Addr, string(data[:p.Segment])})
			}
		}
	}
}

// numbers returns the numbers of what has arrived by now.
func numbers(t *testing.T, c *packetConn) (out []int) {
	t.Helper()
	for _, l := range waiting(t, c) {
		out = append(out, int(binary.BigEndian.Uint32([]byte(l.data))))
	}
	return out
}

func mustGet(t *testing.T, c *packetConn, want ...letter) {
	t.Helper()
	if got := waiting(t, c); !slices.Equal(got, want) {
		t.Fatalf("received %v, want %v", got, want)
	}
}

func TestDatagramsTakeLatency(t *testing.T) {
	inAir(t, Link{Latency: 20 * time.Millisecond}, func(t *testing.T, p *pipe) {
		start := time.Now()
		post(t, p.from, hostB, []byte("hello"))
		buf := []netio.Packets{{Buf: make([]byte, netio.ReadSize)}}
		n, err := p.to.ReadBatch(buf)
		if n != 1 || err != nil || string(buf[0].Buf[:buf[0].N]) != "hello" || buf[0].Addr != hostA || buf[0].Segment != 5 {
			t.Fatalf("%d, %v: %+v", n, err, buf[0].Addr)
		}
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("one way took %v", took)
		}
	})
}

func TestRuns(t *testing.T) {
	inAir(t, Link{}, func(t *testing.T, p *pipe) {
		first, second := []byte("aaabbbcc"), []byte("dd")
		sent := []netio.Packets{
			{Buf: first, N: len(first), Segment: 3, Addr: hostB},
			{Buf: second, N: len(second), Segment: 10, Addr: hostB},
			{Addr: hostB},
			{Buf: second, N: len(second), Addr: hostB},
		}
		if err := p.from.WriteBatch(sent); err != nil {
			t.Fatal(err)
		}
		first[0] = 'X' // it is the sender's again
		ps := make([]netio.Packets, 5)
		for i := range ps {
			ps[i].Buf = make([]byte, netio.ReadSize)
		}
		n, err := p.to.ReadBatch(ps)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range ps[:n] {
			got = append(got, fmt.Sprintf("%s/%d", p.Buf[:p.N], p.Segment))
		}
		if want := []string{"aaabbbcc/3", "dd/2", "/0", "dd/2"}; !slices.Equal(got, want) {
			t.Errorf("runs %q, want %q", got, want)
		}
		if p.from.MaxSegments() != 64 || p.from.LocalAddr() != netip.MustParseAddrPort("[::]:1000") {
			t.Error(p.from.MaxSegments(), p.from.LocalAddr())
		}
		postNumbers(t, p.from, hostB, 200, 4)
		if n, err := p.to.ReadBatch(ps[:2]); n != 2 || err != nil || ps[0].N != 64*4 || ps[1].N != 64*4 {
			t.Errorf("of 200 datagrams %d runs came, of %d and %d bytes", n, ps[0].N, ps[1].N)
		}
	})
}

// TestWhatHappensComesFromTheSeed sends the same over the same bad link.
func TestWhatHappensComesFromTheSeed(t *testing.T) {
	bad := Link{Latency: 50 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.1}
	arrivals := func(seed uint64) (out []int) {
		synctest.Test(t, func(t *testing.T) {
			n := New(seed)
			a, b, c := n.Host("10.0.0.1"), n.Host("10.0.0.2"), n.Host("10.0.0.3")
			n.SetDefaultLink(bad)
			from, to, other := socketAt(t, a, "0.0.0.0:1000"), socketAt(t, b, "0.0.0.0:2000"), socketAt(t, c, "0.0.0.0:3000")
			var wg sync.WaitGroup
			wg.Go(func() { postNumbers(t, other, hostB, 100, 5) }) // elsewhere: changes nothing
			wg.Go(func() { postNumbers(t, from, hostB, 2000, 4) })
			wg.Wait()
			time.Sleep(time.Second)
			for _, l := range waiting(t, to) {
				if l.from == hostA {
					out = append(out, int(binary.BigEndian.Uint32([]byte(l.data))))
				}
			}
		})
		return out
	}
	first := arrivals(7)
	if !slices.Equal(first, arrivals(7)) || slices.Equal(first, arrivals(8)) {
		t.Error("what happens does not come from the seed")
	}
	inOrder, once := slices.Sorted(slices.Values(first)), slices.Compact(slices.Sorted(slices.Values(first)))
	if slices.Equal(inOrder, first) {
		t.Error("nothing was overtaken")
	}
	if lost := 2000 - len(once); lost < 150 || lost > 250 {
		t.Errorf("%d of 2000 lost", lost)
	}
	if doubled := len(first) - len(once); doubled < 130 || doubled > 230 {
		t.Errorf("%d of 1800 doubled", doubled)
	}
}

func TestOnlyReorderBreaksOrder(t *testing.T) {
	for _, reorder := range []float64{0, 0.2} {
		inAir(t, Link{Latency: 5 * time.Millisecond, Jitter: 100 * time.Millisecond, Reorder: reorder}, func(t *testing.T, p *pipe) {
			for i := range 500 {
				post(t, p.from, hostB, binary.BigEndian.AppendUint32(nil, uint32(i)))
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			got := numbers(t, p.to)
			if len(got) != 500 || slices.IsSorted(got) != (reorder == 0) {
				t.Errorf("reorder %v: %d came, sorted %v", reorder, len(got), slices.IsSorted(got))
			}
		})
	}
}

func TestBandwidthAndQueue(t *testing.T) {
	const packet = 1000
	link := Link{Latency: time.Second, Bandwidth: 10 * packet, Queue: 20 * packet}
	inAir(t, link, func(t *testing.T, p *pipe) {
		postNumbers(t, p.from, hostB, 30, packet-headers4)
		time.Sleep(time.Second)
		for i := range 20 {
			time.Sleep(99 * time.Millisecond)
			if early := numbers(t, p.to); len(early) != 0 {
				t.Fatalf("%v came early", early)
			}
			time.Sleep(time.Millisecond)
			if got := numbers(t, p.to); !slices.Equal(got, []int{i}) {
				t.Fatalf("after %d steps %v came", i+1, got)
			}
		}
		time.Sleep(time.Hour)
		if got := numbers(t, p.to); len(got) != 0 {
			t.Errorf("%v came although the queue was full", got)
		}
	})
	// What gets lost has used the wire, and the other direction has its own.
	link.Loss = 1
	inAir(t, link, func(t *testing.T, p *pipe) {
		postNumbers(t, p.from, hostB, 10, packet-headers4)
		p.net.SetLink(p.a, p.b, Link{Bandwidth: link.Bandwidth})
		start := time.Now()
		postNumbers(t, p.from, hostB, 1, packet-headers4)
		postNumbers(t, p.to, hostA, 1, packet-headers4)
		for _, c := range []struct {
			at   *packetConn
			want time.Duration
		}{{p.from, 100 * time.Millisecond}, {p.to, 1100 * time.Millisecond}} {
			time.Sleep(time.Until(start.Add(c.want - time.Millisecond)))
			early := len(waiting(t, c.at))
			time.Sleep(time.Millisecond)
			if got := len(waiting(t, c.at)); early != 0 || got != 1 {
				t.Errorf("%d came before %v, %d then", early, c.want, got)
			}
		}
	})
}

func TestMTUIsABlackHole(t *testing.T) {
	inAir(t, Link{MTU: 1280}, func(t *testing.T, p *pipe) {
		six := netip.MustParseAddrPort("[2001:db8::2]:2000")
		for _, c := range []struct {
			to     netip.AddrPort
			size   int
			arrive bool
		}{{hostB, 1252, true}, {hostB, 1253, false}, {six, 1232, true}, {six, 1233, false}} {
			post(t, p.from, c.to, make([]byte, c.size))
			if got := waiting(t, p.to); len(got) == 1 != c.arrive {
				t.Errorf("%d bytes to %v: %d arrived", c.size, c.to, len(got))
			}
		}
		loop := netip.MustParseAddrPort("127.0.0.1:1000")
		post(t, p.from, loop, make([]byte, netio.MaxRun))
		post(t, p.from, loop, make([]byte, netio.MaxRun+1))
		if got := waiting(t, p.from); len(got) != 1 || got[0].from != loop {
			t.Errorf("%d arrived at the own host", len(got))
		}
	})
}

func TestReceiveBufferIsBounded(t *testing.T) {
	inAir(t, Link{}, func(t *testing.T, p *pipe) {
		const size = 1000
		most := receiveBuffer / (size + overhead)
		postNumbers(t, p.from, hostB, most+100, size)
		got := numbers(t, p.to)
		if len(got) != most || got[len(got)-1] != most-1 {
			t.Errorf("%d were kept, want the first %d", len(got), most)
		}
		postNumbers(t, p.from, hostB, 1, size)
		if got := numbers(t, p.to); len(got) != 1 {
			t.Error("no room after reading")
		}
	})
}

func TestRebind(t *testing.T) {
	inAir(t, Link{}, func(t *testing.T, p *pipe) {
		first, second := netip.MustParseAddrPort("203.0.113.1:61000"), netip.MustParseAddrPort("203.0.113.1:62000")
		seen := hostA
		for _, visible := range []netip.AddrPort{first, second, netip.MustParseAddrPort("10.0.0.1:1001"), netip.MustParseAddrPort("203.0.113.9:1000")} {
			post(t, p.from, hostB, []byte("before"))
			mustGet(t, p.to, letter{seen, "before"})
			p.a.Rebind(1000, visible)
			post(t, p.to, seen, []byte("to the old address"))
			post(t, p.to, hostA, []byte("around the NAT"))
			mustGet(t, p.from)
			post(t, p.to, visible, []byte("in"))
			mustGet(t, p.from, letter{hostB, "in"})
			seen = visible
		}
		// The other family, other ports and the host itself see no NAT.
		post(t, p.from, netip.MustParseAddrPort("[2001:db8::2]:2000"), []byte("six"))
		mustGet(t, p.to, letter{netip.MustParseAddrPort("[2001:db8::1]:1000"), "six"})
		other := socketAt(t, p.a, "[::]:1002")
		post(t, other, hostB, []byte("other"))
		mustGet(t, p.to, letter{netip.MustParseAddrPort("10.0.0.1:1002"), "other"})
		post(t, other, hostA, []byte("neighbour"))
		mustGet(t, p.from, letter{netip.MustParseAddrPort("10.0.0.1:1002"), "neighbour"})
		p.a.Unbind(1000)
		post(t, p.to, seen, []byte("to the old address"))
		post(t, p.to, hostA, []byte("direct"))
		mustGet(t, p.from, letter{hostB, "direct"})
	})
}

func TestRebindLosesWhatIsUnderWay(t *testing.T) {
	inAir(t, Link{Latency: time.Second}, func(t *testing.T, p *pipe) {
		visible := netip.MustParseAddrPort("203.0.113.1:61000")
		post(t, p.to, hostA, []byte("late"))
		post(t, p.from, hostB, []byte("on its way"))
		p.a.Rebind(1000, visible)
		time.Sleep(2 * time.Second)
		mustGet(t, p.from)
		mustGet(t, p.to, letter{hostA, "on its way"})
	})
}

func TestRebindToWhatIsTakenPanics(t *testing.T) {
	n := New(1)
	a := n.Host("10.0.0.1")
	n.Host("10.0.0.2")
	a.Rebind(1, netip.MustParseAddrPort("203.0.113.1:1"))
	for _, taken := range []string{"10.0.0.2:7", "203.0.113.1:1", "203.0.113.1:0"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s could be had", taken)
				}
			}()
			a.Rebind(2, netip.MustParseAddrPort(taken))
		}()
	}
}

func TestCutLosesDatagrams(t *testing.T) {
	for name, breaks := range map[string]func(n *Net, a, b *Host){"cut": (*Net).Cut, "silence": (*Net).Silence} {
		inAir(t, Link{Latency: time.Second}, func(t *testing.T, p *pipe) {
			post(t, p.from, hostB, []byte("under way"))
			breaks(p.net, p.a, p.b)
			post(t, p.from, hostB, []byte("into nothing"))
			time.Sleep(2 * time.Second)
			p.net.Heal(p.a, p.b)
			post(t, p.from, hostB, []byte("healed"))
			time.Sleep(2 * time.Second)
			if got := waiting(t, p.to); len(got) != 1 || got[0].data != "healed" {
				t.Errorf("%s: %v came", name, got)
			}
		})
	}
}

func TestNoTCP(t *testing.T) {
	inAir(t, Link{NoTCP: true}, func(t *testing.T, p *pipe) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := p.a.Dial(ctx, netip.AddrPort{}, port)
		mustFail(t, "Dial", err, context.DeadlineExceeded)
		post(t, p.from, hostB, []byte("passes"))
		mustGet(t, p.to, letter{hostA, "passes"})
		p.net.SetLink(p.a, p.b, Link{})
		p.pair(t)
	})
}

func TestListenPacket(t *testing.T) {
	inAir(t, Link{}, func(t *testing.T, p *pipe) {
		for text, want := range map[string]error{
			"10.0.0.2:2000": syscall.EADDRINUSE, "0.0.0.0:2000": syscall.EADDRINUSE, "[::]:2000": syscall.EADDRINUSE,
			"10.0.0.9:1": syscall.EADDRNOTAVAIL, "[::]:0": nil, "127.0.0.1:7": nil, "10.0.0.2:5483": nil, // TCP has that one
		} {
			before := p.b.Sockets()
			c, err := p.b.ListenPacket(t.Context(), netip.MustParseAddrPort(text))
			mustFail(t, text, err, want)
			if err == nil {
				if got := c.LocalAddr(); got.Addr() != netip.MustParseAddrPort(text).Addr() || got.Port() == 0 || p.b.Sockets() != before+1 {
					t.Errorf("%s became %s, with %d sockets", text, got, p.b.Sockets())
				}
				c.Close()
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := p.b.ListenPacket(ctx, netip.MustParseAddrPort("[::]:0"))
		mustFail(t, "canceled", err, context.Canceled)
		if p.b.Sockets() != 1 {
			t.Errorf("%d sockets are left", p.b.Sockets())
		}
	})
}

func TestClosePacketConn(t *testing.T) {
	inAir(t, Link{Latency: time.Second}, func(t *testing.T, p *pipe) {
		done := make(chan error)
		go func() {
			_, err := p.to.ReadBatch(make([]netio.Packets, 1))
			done <- err
		}()
		post(t, p.from, hostB, []byte("under way"))
		synctest.Wait()
		if err := errors.Join(p.to.Close(), p.to.Close()); err != nil {
			t.Fatal(err)
		}
		mustFail(t, "ReadBatch beside Close", <-done, net.ErrClosed)
		_, err := p.to.ReadBatch(make([]netio.Packets, 1))
		mustFail(t, "ReadBatch after Close", err, net.ErrClosed)
		mustFail(t, "WriteBatch after Close", p.to.WriteBatch(nil), net.ErrClosed)
		again := socketAt(t, p.b, "[::]:2000")
		post(t, p.from, hostB, []byte("too"))
		time.Sleep(time.Second)
		mustGet(t, again, letter{hostA, "under way"}, letter{hostA, "too"})
	})
}

// TestUndeliverable shows that nobody is told, and that what follows arrives.
func TestUndeliverable(t *testing.T) {
	inAir(t, Link{}, func(t *testing.T, p *pipe) {
		four := socketAt(t, p.a, "10.0.0.1:1001")
		for _, to := range []string{"10.0.0.2:1", "10.9.9.9:2000", "[2001:db8::2]:2000", "10.0.0.2:0", "0.0.0.0:1001"} {
			post(t, four, netip.MustParseAddrPort(to), []byte("lost"))
		}
		post(t, four, netip.AddrPort{}, []byte("lost"))
		post(t, four, netip.MustParseAddrPort("[::ffff:10.0.0.2]:2000"), []byte("mapped"))
		mustGet(t, p.to, letter{netip.MustParseAddrPort("10.0.0.1:1001"), "mapped"})
		mustGet(t, four)
		mustGet(t, p.from)
		small := []netio.Packets{{Buf: make([]byte, 3)}}
		post(t, p.from, hostB, []byte("too long"))
		post(t, p.from, hostB, []byte("fit"))
		if n, err := p.to.ReadBatch(small); n != 1 || err != nil || string(small[0].Buf[:small[0].N]) != "fit" {
			t.Errorf("%d, %v: %q", n, err, small[0].Buf[:small[0].N])
		}
	})
}

func TestForgeAndWatch(t *testing.T) {
	inAir(t, Link{Loss: 0}, func(t *testing.T, p *pipe) {
		var seen []string
		p.net.Watch(func(from, to netip.AddrPort, data []byte) {
			seen = append(seen, fmt.Sprintf("%v %v %s", from, to, data))
		})
		attacker := p.net.Host("192.0.2.66")
		victim := netip.MustParseAddrPort("198.51.100.1:9")
		data := []byte("forged")
		attacker.Forge(victim, hostB, data)
		data[0] = 'X'
		mustGet(t, p.to, letter{victim, "forged"})
		visible := netip.MustParseAddrPort("203.0.113.1:61000")
		p.a.Rebind(1000, visible)
		p.net.SetLink(p.a, p.b, Link{Loss: 1})
		ab := []byte("ab")
		if err := p.from.WriteBatch([]netio.Packets{{Buf: ab, N: 2, Segment: 1, Addr: hostB}}); err != nil {
			t.Fatal(err)
		}
		mustGet(t, p.to)
		p.net.Watch(nil)
		post(t, p.from, hostB, []byte("unseen"))
		want := []string{visible.String() + " 10.0.0.2:2000 a", visible.String() + " 10.0.0.2:2000 b"}
		if !slices.Equal(seen, want) {
			t.Errorf("seen %q, want %q", seen, want)
		}
	})
}

// TestPacketsInRealTime shows that datagrams also travel outside a bubble.
func TestPacketsInRealTime(t *testing.T) {
	n := New(3)
	n.SetDefaultLink(Link{Latency: time.Millisecond})
	from, to := socketAt(t, n.Host("10.0.0.1"), "0.0.0.0:1000"), socketAt(t, n.Host("10.0.0.2"), "0.0.0.0:2000")
	const count, size = 500, 1000
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { postNumbers(t, from, hostB, count/2, size) })
	}
	got := 0
	ps := []netio.Packets{{Buf: make([]byte, netio.ReadSize)}, {Buf: make([]byte, netio.ReadSize)}}
	for got < count*size {
		n, err := to.ReadBatch(ps)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ps[:n] {
			got += p.N
			if p.Addr != hostA || !bytes.Equal(p.Buf[4:p.Segment], make([]byte, p.Segment-4)) {
				t.Fatal("not what was sent")
			}
		}
	}
	wg.Wait()
}
