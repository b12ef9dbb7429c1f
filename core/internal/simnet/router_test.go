package simnet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/tests/natsim"
)

// village is two homes and two public observers, 20 ms and 8 routers from each other.
type village struct {
	net        *Net
	ra, rb     *Router
	a, b       *Host
	one, other *Host // observers
}

const oneWay = 20 * time.Millisecond

func inVillage(t *testing.T, natA, natB string, test func(t *testing.T, v *village)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := New(7)
		n.SetDefaultLink(Link{Latency: oneWay, Hops: 8})
		v := &village{net: n, one: n.Host("198.51.100.1", "2001:db8:1::1"), other: n.Host("198.51.100.2", "2001:db8:2::1")}
		v.ra = n.NAT(natsim.MustParse(natA+" ipv6=firewall"), "203.0.113.1", "203.0.113.2")
		v.rb = n.NAT(natsim.MustParse(natB), "203.0.113.9")
		v.a, v.b = v.ra.Host("192.168.1.2", "2001:db8:a::2"), v.rb.Host("192.168.1.2", "2001:db8:b::2")
		test(t, v)
	})
}

func ap(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// seen sends from a socket and returns from where it arrives.
func seen(t *testing.T, from *packetConn, at *packetConn) netip.AddrPort {
	t.Helper()
	return seenAt(t, from, at, netip.AddrPortFrom(at.host.addrs[0], at.addr.Port()))
}

func seenAt(t *testing.T, from, at *packetConn, to netip.AddrPort) netip.AddrPort {
	t.Helper()
	post(t, from, to, []byte("who am I?"))
	time.Sleep(time.Second)
	got := waiting(t, at)
	if len(got) != 1 {
		t.Fatalf("from %v to %v came %v", from.addr, to, got)
	}
	return got[0].from
}

// reaches reports whether a datagram arrives.
func reaches(t *testing.T, from *packetConn, to netip.AddrPort, at *packetConn) bool {
	t.Helper()
	post(t, from, to, []byte("hello"))
	time.Sleep(time.Second)
	return len(waiting(t, at)) > 0
}

// TestKindsOfNAT measures each as RFC 5780 does.
func TestKindsOfNAT(t *testing.T) {
	for words, want := range map[string]struct {
		mapping, filter natsim.Depends
		ports           natsim.Ports
	}{
		"full-cone":                      {natsim.Independent, natsim.Independent, natsim.Random},
		"restricted":                     {natsim.Independent, natsim.OnAddress, natsim.Preserve},
		"home":                           {natsim.Independent, natsim.OnAddressPort, natsim.Preserve},
		"mapping=address filter=address": {natsim.OnAddress, natsim.OnAddress, natsim.Random},
		"symmetric":                      {natsim.OnAddressPort, natsim.OnAddressPort, natsim.Random},
		"sequential":                     {natsim.OnAddressPort, natsim.OnAddressPort, natsim.Sequential},
	} {
		inVillage(t, words, "home", func(t *testing.T, v *village) {
			at := socketAt(t, v.a, "[::]:1000")
			one, port := socketAt(t, v.one, "[::]:3478"), socketAt(t, v.one, "[::]:3479")
			other := socketAt(t, v.other, "[::]:3478")
			first := seen(t, at, one)
			filter := natsim.OnAddressPort
			switch {
			case reaches(t, other, first, at):
				filter = natsim.Independent
			case reaches(t, port, first, at):
				filter = natsim.OnAddress
			}
			if !reaches(t, one, first, at) {
				t.Errorf("%s: no answer arrives", words)
			}
			second, third := seen(t, at, port), seen(t, at, other)
			mapping, ports := natsim.Independent, natsim.Random
			switch {
			case first != second:
				mapping = natsim.OnAddressPort
			case first != third:
				mapping = natsim.OnAddress
			}
			switch {
			case first.Port() == 1000:
				ports = natsim.Preserve
			case second.Port() == first.Port()+1 && third.Port() == second.Port()+1:
				ports = natsim.Sequential
			}
			if mapping != want.mapping || filter != want.filter || ports != want.ports || first.Addr() != v.ra.External() {
				t.Errorf("%s: mapping %d, filter %d, ports %d: %v, %v, %v", words, mapping, filter, ports, first, second, third)
			}
			// IPv6 is filtered by the same rules and not translated.
			six := seenAt(t, at, one, ap("[2001:db8:1::1]:3478"))
			if six != ap("[2001:db8:a::2]:1000") || reaches(t, other, six, at) != (filter == natsim.Independent) {
				t.Errorf("%s: over IPv6 it comes from %v", words, six)
			}
		})
	}
}

func TestTwoNATsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		carrier := n.NAT(natsim.MustParse("sequential"), "203.0.113.1")
		home := carrier.NAT(natsim.MustParse("home"), "100.64.0.2")
		neighbour := carrier.NAT(natsim.MustParse("full-cone"), "100.64.0.3")
		inside, next, public := home.Host("192.168.1.2"), neighbour.Host("192.168.1.2"), n.Host("198.51.100.1")
		from, at := socketAt(t, inside, "0.0.0.0:1000"), socketAt(t, public, "0.0.0.0:1")
		outside := seen(t, from, at)
		if outside.Addr() != carrier.External() || !reaches(t, at, outside, from) {
			t.Errorf("behind two NATs it comes from %v", outside)
		}
		// Neighbours of one carrier see each other's home routers.
		there := socketAt(t, next, "0.0.0.0:7")
		mapped := seen(t, there, at)
		if mapped.Addr() != carrier.External() {
			t.Errorf("the neighbour comes from %v", mapped)
		}
		post(t, from, ap("100.64.0.3:9"), []byte("nobody"))
		if got := waiting(t, there); len(got) != 0 {
			t.Errorf("received %v", got)
		}
		neighbour.Forward(natsim.UDP, 9, ap("192.168.1.2:7"))
		post(t, from, ap("100.64.0.3:9"), []byte("in"))
		mustGet(t, there, letter{ap("100.64.0.2:1000"), "in"})
	})
}

func TestLANAndHairpin(t *testing.T) {
	for _, words := range []string{"home", "full-cone hairpin=on"} {
		inVillage(t, words, "home", func(t *testing.T, v *village) {
			second := v.ra.Host("192.168.1.3")
			x, y := socketAt(t, v.a, "0.0.0.0:1000"), socketAt(t, second, "0.0.0.0:2000")
			start := time.Now()
			post(t, x, ap("192.168.1.3:2000"), []byte("direct"))
			mustGet(t, y, letter{ap("192.168.1.2:1000"), "direct"})
			if took := time.Since(start); took != 0 {
				t.Errorf("a neighbour is %v away", took)
			}
			at := socketAt(t, v.one, "0.0.0.0:1")
			mappedX, mappedY := seen(t, x, at), seen(t, y, at)
			post(t, x, mappedY, []byte("round"))
			if got := waiting(t, y); strings.HasSuffix(words, "on") != slices.Equal(got, []letter{{mappedX, "round"}}) {
				t.Errorf("%s: by the external endpoint comes %v", words, got)
			}
		})
	}
}

func TestTTL(t *testing.T) {
	inVillage(t, "home", "full-cone", func(t *testing.T, v *village) {
		from, at := socketAt(t, v.a, "0.0.0.0:1000"), socketAt(t, v.b, "0.0.0.0:2000")
		to := seen(t, at, socketAt(t, v.one, "0.0.0.0:1"))
		var got []string
		for _, ttl := range []int{0, 1, 2, 4, 9, 10, 11} {
			text := strconv.Itoa(ttl)
			if err := from.WriteTTL(ttl, []netio.Packets{{Buf: []byte(text), N: len(text), Addr: to}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			for _, l := range waiting(t, at) {
				got = append(got, l.data)
			}
		}
		// Its own router, 8 others and that of b.
		if !slices.Equal(got, []string{"11"}) {
			t.Errorf("arrived with a TTL of %q", got)
		}
		// One that died after its own router has opened it all the same.
		if !reaches(t, at, ap("203.0.113.1:1000"), from) {
			t.Error("the opener opened nothing")
		}
	})
}

// shoot has both homes dial each other from port 1000, which is preserved, b later.
func (v *village) shoot(t *testing.T, later time.Duration) (a, b net.Conn, errA, errB error) {
	done := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		a, errA = v.a.Dial(ctx, ap("0.0.0.0:1000"), ap("203.0.113.9:1000"))
		close(done)
	}()
	time.Sleep(later)
	b, errB = v.b.Dial(ctx, ap("0.0.0.0:1000"), ap("203.0.113.1:1000"))
	<-done
	return a, b, errA, errB
}

func TestSimultaneousOpen(t *testing.T) {
	for _, skew := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond} {
		inVillage(t, "home", "home", func(t *testing.T, v *village) {
			l, err := v.a.Listen(t.Context(), ap("[::]:1000")) // on the port dialled from
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			a, b, errA, errB := v.shoot(t, skew)
			if errA != nil || errB != nil {
				t.Fatalf("skew %v: %v, %v", skew, errA, errB)
			}
			// The SYN of a is lost when b is late; that of b always meets a dial.
			if took := time.Since(start) - skew; took > 3*oneWay {
				t.Errorf("skew %v: it took %v after b began", skew, took)
			}
			if a.RemoteAddr().String() != "203.0.113.9:1000" || b.RemoteAddr().String() != "203.0.113.1:1000" || b.LocalAddr().String() != "192.168.1.2:1000" {
				t.Errorf("%v-%v and %v-%v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
			}
			mustWrite(t, a.(*Conn), "hello")
			mustRead(t, b.(*Conn), "hello")
			mustWrite(t, b.(*Conn), "bye")
			b.Close()
			if got, err := io.ReadAll(a); string(got) != "bye" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			a.Close()
			l.Close()
			if n := v.a.Connections() + v.b.Connections() + len(v.a.dialing) + len(v.b.dialing); n != 0 {
				t.Errorf("%d ends are left", n)
			}
		})
	}
}

// TestResetsCloseHoles: a router that resets strangers ends the dial of whom came
// too early, and its hole with it.
func TestResetsCloseHoles(t *testing.T) {
	inVillage(t, "home", "home strangers=refuse", func(t *testing.T, v *village) {
		_, _, errA, errB := v.shoot(t, 50*time.Millisecond)
		mustFail(t, "the early one", errA, syscall.ECONNREFUSED)
		mustFail(t, "the late one, whose SYNs are dropped", errB, context.DeadlineExceeded)
		time.Sleep(3 * time.Minute)
		a, b, errA, errB := v.shoot(t, 0)
		if errA != nil || errB != nil || a == nil || b == nil {
			t.Errorf("together: %v, %v", errA, errB)
		}
	})
	inVillage(t, "home", "home strangers=punish", func(t *testing.T, v *village) {
		_, _, errA, errB := v.shoot(t, 50*time.Millisecond)
		if errA == nil || errB == nil {
			t.Error("a stranger was not punished")
		}
	})
}

// TestGivenUpInTheMidst: who gives up resets whom his SYN has reached.
func TestGivenUpInTheMidst(t *testing.T) {
	inVillage(t, "full-cone", "home", func(t *testing.T, v *village) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond) // the SYN has arrived, its answer has not
		defer cancel()
		v.ra.Forward(natsim.TCP, 1000, ap("192.168.1.2:1000"))
		go v.b.Dial(ctx, ap("0.0.0.0:1000"), ap("203.0.113.1:1000"))
		_, err := v.a.Dial(t.Context(), ap("0.0.0.0:1000"), ap("203.0.113.9:1000"))
		mustFail(t, "the one that was met", err, syscall.ECONNRESET)
		synctest.Wait()
		if n := v.a.Connections() + v.b.Connections(); n != 0 {
			t.Errorf("%d ends are left", n)
		}
	})
}

func TestDialThroughNAT(t *testing.T) {
	inVillage(t, "symmetric", "home strangers=refuse", func(t *testing.T, v *village) {
		l, err := v.one.Listen(t.Context(), ap("0.0.0.0:80"))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c, err := v.a.Dial(t.Context(), netip.AddrPort{}, ap("198.51.100.1:80"))
		if err != nil || time.Since(start) != 2*oneWay {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		s, err := l.Accept()
		if err != nil || s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr() != v.ra.External() || s.LocalAddr().String() != c.RemoteAddr().String() {
			t.Fatalf("accepted from %v, %v", s.RemoteAddr(), err)
		}
		_, err = v.a.Dial(t.Context(), netip.AddrPort{}, ap("203.0.113.9:80"))
		mustFail(t, "a router that resets", err, syscall.ECONNREFUSED)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = v.b.Dial(ctx, netip.AddrPort{}, ap("203.0.113.1:80"))
		mustFail(t, "a router that is silent", err, context.DeadlineExceeded)
		inside, err := v.b.Listen(t.Context(), ap("0.0.0.0:9000"))
		if err != nil {
			t.Fatal(err)
		}
		v.rb.Forward(natsim.TCP, 80, ap("192.168.1.2:9000"))
		through, err := v.a.Dial(t.Context(), netip.AddrPort{}, ap("203.0.113.9:80"))
		if err != nil {
			t.Fatal(err)
		}
		in, err := inside.Accept()
		if err != nil || in.LocalAddr().String() != "192.168.1.2:9000" {
			t.Fatal(in, err)
		}
		mustWrite(t, through.(*Conn), "by a forward")
		mustRead(t, in.(*Conn), "by a forward")
	})
}

// TestStreamsWhenNATsForget: with the same mapping again a stream goes on; with
// another one its ends do not know each other.
func TestStreamsWhenNATsForget(t *testing.T) {
	for words, address := range map[string]bool{"home": false, "symmetric": false, "home timeout=1m": true} {
		inVillage(t, words, "home", func(t *testing.T, v *village) {
			l, err := v.one.Listen(t.Context(), ap("0.0.0.0:80"))
			if err != nil {
				t.Fatal(err)
			}
			dialled, err := v.a.Dial(t.Context(), ap("0.0.0.0:1000"), ap("198.51.100.1:80"))
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			c, s := dialled.(*Conn), accepted.(*Conn)
			v.ra.Reboot(address)
			mustWrite(t, s, "held by the router")
			c.SetReadDeadline(time.Now().Add(time.Minute))
			_, err = c.Read(make([]byte, 1))
			mustFail(t, words+": a read after a reboot", err, os.ErrDeadlineExceeded)
			c.SetReadDeadline(time.Time{})
			if words == "home" {
				mustWrite(t, c, "again")
				mustRead(t, s, "again")
				mustRead(t, c, "held by the router")
				return
			}
			c.TryWrite([]byte("from elsewhere"))
			_, err = c.Read(make([]byte, 1))
			mustFail(t, words+": a read after a write", err, syscall.ECONNRESET)
		})
	}
}

func TestLinksBehindRouters(t *testing.T) {
	inVillage(t, "home", "home", func(t *testing.T, v *village) {
		v.net.SetLink(v.a, v.ra.Node(), Link{Latency: 5 * time.Millisecond})
		v.net.SetLink(v.ra.Node(), v.one, Link{Latency: 30 * time.Millisecond, Bandwidth: 100_000})
		l, err := v.one.Listen(t.Context(), ap("0.0.0.0:80"))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		c, err := v.a.Dial(t.Context(), netip.AddrPort{}, ap("198.51.100.1:80"))
		if err != nil || time.Since(start) != 70*time.Millisecond {
			t.Fatalf("dialled in %v, %v", time.Since(start), err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		mustWrite(t, c.(*Conn), strings.Repeat("x", 10_000))
		if _, err := io.ReadFull(s, make([]byte, 10_000)); err != nil || time.Since(start) != 135*time.Millisecond {
			t.Errorf("10,000 bytes took %v, %v", time.Since(start), err)
		}
		from, at := socketAt(t, v.a, "0.0.0.0:1000"), socketAt(t, v.one, "0.0.0.0:1")
		start = time.Now()
		post(t, from, ap("198.51.100.1:1"), make([]byte, 1000-headers4))
		if _, err := at.ReadBatch([]netio.Packets{{Buf: make([]byte, netio.ReadSize)}}); err != nil || time.Since(start) != 45*time.Millisecond {
			t.Errorf("a datagram took %v, %v", time.Since(start), err)
		}
		v.net.Cut(v.a, v.ra.Node())
		_, err = v.a.Dial(t.Context(), netip.AddrPort{}, ap("198.51.100.1:80"))
		mustFail(t, "a dial without a router", err, syscall.EHOSTUNREACH)
		mustWrite(t, s.(*Conn), "patience")
		time.Sleep(time.Hour)
		v.net.Heal(v.a, v.ra.Node())
		mustRead(t, c.(*Conn), "patience")
	})
}

func TestUnknownAddressesBehindRouters(t *testing.T) {
	inVillage(t, "home", "home", func(t *testing.T, v *village) {
		for _, to := range []string{"192.168.1.77:1", "10.1.2.3:1", "198.51.100.99:1"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := v.a.Dial(ctx, netip.AddrPort{}, ap(to))
			mustFail(t, to, err, context.DeadlineExceeded)
			cancel()
		}
		defer func() {
			if recover() == nil {
				t.Error("an address was given twice")
			}
		}()
		v.ra.Host("192.168.1.2")
	})
}

// TestHoles opens pairs of NATs, once with a datagram that reaches the other side too
// early, and once with openers that die on the way.
func TestHoles(t *testing.T) {
	for _, c := range []struct {
		a, b        string
		early, open bool // works after an early datagram, after openers
	}{
		{"home", "home", true, true},
		{"home", "home strangers=refuse", true, true},
		{"home strangers=accept", "home strangers=accept", false, true},
		{"home strangers=punish", "home strangers=punish", false, true},
		{"home", "symmetric", false, false},
		{"full-cone", "symmetric", true, true},
	} {
		for opener, want := range map[bool]bool{false: c.early, true: c.open} {
			inVillage(t, c.a, c.b, func(t *testing.T, v *village) {
				sockets := [2]*packetConn{socketAt(t, v.a, "0.0.0.0:1000"), socketAt(t, v.b, "0.0.0.0:2000")}
				at := socketAt(t, v.one, "0.0.0.0:1")
				to := [2]netip.AddrPort{1: seen(t, sockets[0], at), 0: seen(t, sockets[1], at)}
				for i, s := range sockets {
					ttl := defaultTTL
					if opener {
						ttl = 4
					}
					if opener || i == 0 {
						if err := s.WriteTTL(ttl, []netio.Packets{{Buf: []byte("open"), N: 4, Addr: to[i]}}); err != nil {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(time.Second)
				waiting(t, sockets[1])
				works := 0
				for n := range 6 {
					i := n % 2
					post(t, sockets[i], to[i], []byte("hello"))
					time.Sleep(100 * time.Millisecond)
					if got := waiting(t, sockets[1-i]); len(got) > 0 {
						works++
						to[1-i] = got[0].from
					}
				}
				if (works >= 4) != want {
					t.Errorf("%s and %s, openers %v: %d of 6 arrive, want a way %v", c.a, c.b, opener, works, want)
				}
			})
		}
	}
}

// TestOpeners opens pairs of NATs by a SYN of b that dies on the way: then a's dial
// meets it. Those that reach the other NAT wake it.
func TestOpeners(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		ttl   int  // 0: none
		other bool // b has another socket in the place of the one that has sent it
		works bool
	}{
		{"home", "home", 4, false, true},
		{"home", "home", 0, false, false},
		{"home strangers=refuse", "home strangers=refuse", 4, false, true},
		{"home strangers=punish", "home strangers=punish", 4, false, true},
		{"home strangers=punish", "home strangers=punish", defaultTTL, false, false},
		{"home", "home", 4, true, false},
		{"symmetric", "home", 4, false, false},
		{"home", "home", 1, false, false}, // its own NAT does not see it
	} {
		inVillage(t, c.a, c.b, func(t *testing.T, v *village) {
			l, err := v.b.Listen(t.Context(), ap("0.0.0.0:2000"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			toA, toB := ap("203.0.113.1:1000"), ap("203.0.113.9:2000")
			met := make(chan net.Conn, 1)
			if c.ttl > 0 {
				o, err := v.b.Open(ap("0.0.0.0:2000"), toA, c.ttl)
				if err != nil {
					t.Fatal(err)
				}
				if c.other {
					o.Close()
				} else {
					go func() {
						conn, _ := o.Wait(time.Now().Add(900 * time.Millisecond))
						met <- conn
					}()
				}
			}
			time.Sleep(100 * time.Millisecond)
			ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
			defer stop()
			conn, err := v.a.Dial(ctx, ap("0.0.0.0:1000"), toB)
			if (err == nil) != c.works {
				t.Fatalf("%s and %s, openers that pass %d routers: %v", c.a, c.b, c.ttl, err)
			}
			if err != nil {
				return
			}
			there := <-met
			mustWrite(t, conn.(*Conn), "hello")
			mustRead(t, there.(*Conn), "hello")
			_, err = v.a.Open(ap("0.0.0.0:1000"), toB, 4)
			mustFail(t, "an opener beside a connection", err, syscall.EADDRNOTAVAIL)
		})
	}
}

func TestOpenerWrongUse(t *testing.T) {
	n := New(1)
	h := n.Host("10.0.0.1")
	n.Host("10.0.0.2")
	for _, c := range []struct {
		local, remote netip.AddrPort
		ttl           int
		want          error
	}{
		{ap("0.0.0.0:1"), ap("10.0.0.2:0"), 4, syscall.EADDRNOTAVAIL},
		{ap("0.0.0.0:1"), ap("10.0.0.9:1"), 4, syscall.EHOSTUNREACH},
		{ap("10.0.0.7:1"), ap("10.0.0.2:1"), 4, syscall.EADDRNOTAVAIL},
		{ap("0.0.0.0:1"), ap("10.0.0.2:1"), 0, syscall.EINVAL},
		{ap("0.0.0.0:1"), ap("10.0.0.2:1"), 256, syscall.EINVAL},
	} {
		_, err := h.Open(c.local, c.remote, c.ttl)
		mustFail(t, c.remote.String(), err, c.want)
	}
	if h.InUse() != 0 {
		t.Errorf("%d sockets are open", h.InUse())
	}
}
