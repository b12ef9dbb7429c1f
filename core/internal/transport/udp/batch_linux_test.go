package udp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ways are the means by which a socket may work here.
var ways = []struct {
	name string
	set  func(t testing.TB, c *Conn)
}{
	{"plain", setPlain},
	{"batches", setBatches},
	{"cut and joined", setCut},
}

func setPlain(t testing.TB, c *Conn) {
	c.batch.works = false
	c.batch.gso.Store(false)
	c.option(t, unix.SOL_UDP, unix.UDP_GRO, 0)
}

func setBatches(t testing.TB, c *Conn) {
	if !c.batch.works {
		t.Skip("no batches here")
	}
	c.batch.gso.Store(false)
	c.option(t, unix.SOL_UDP, unix.UDP_GRO, 0)
}

func setCut(t testing.TB, c *Conn) {
	if !c.batch.gso.Load() || !c.batch.gro {
		t.Skip("no GSO or GRO here")
	}
}

func (c *Conn) option(t testing.TB, level, name, value int) {
	t.Helper()
	var failed error
	if err := c.raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, name, value) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

func (c *Conn) optionOf(t testing.TB, level, name int) (value int) {
	t.Helper()
	if err := c.raw.Control(func(fd uintptr) { value, _ = unix.GetsockoptInt(int(fd), level, name) }); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestOptions(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::]:0"} {
		c := open(t, addr)
		if got := c.optionOf(t, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER); got != unix.IP_PMTUDISC_PROBE {
			t.Errorf("%s: IP_MTU_DISCOVER is %d", addr, got)
		}
		if c.LocalAddr().Addr().Is6() {
			if got := c.optionOf(t, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER); got != unix.IPV6_PMTUDISC_PROBE {
				t.Errorf("%s: IPV6_MTU_DISCOVER is %d", addr, got)
			}
		}
		s := c.Stats()
		if os.Geteuid() == 0 && s.ReceiveBuffer < receiveBuffer {
			t.Errorf("%s: %+v", addr, s)
		}
		if s.GSO != (c.MaxSegments() == maxSegments) || s.GSO && !s.Batches {
			t.Errorf("%s: %+v, and MaxSegments is %d", addr, s, c.MaxSegments())
		}
		if c.optionOf(t, unix.SOL_UDP, unix.UDP_GRO) == 1 != s.GRO {
			t.Errorf("%s: %+v", addr, s)
		}
	}
}

// TestRunsArriveWhole shows that runs are cut and joined by the kernel.
func TestRunsArriveWhole(t *testing.T) {
	a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	setCut(t, a)
	sent := run(b.LocalAddr(), 1000, noise(30_500))
	mustWrite(t, a, sent)
	ps := buffers(1)
	if n, err := b.ReadBatch(ps); n != 1 || err != nil || ps[0].N != sent.N || ps[0].Segment != sent.Segment {
		t.Fatalf("%d, %v: %d bytes by %d", n, err, ps[0].N, ps[0].Segment)
	}
}

// kernel stands before the real call and refuses some messages.
func kernel(c *Conn, refuse func(m *mmsghdr) unix.Errno) {
	c.batch.send = func(fd uintptr, ms []mmsghdr) (int, unix.Errno) {
		for i := range ms {
			if errno := refuse(&ms[i]); errno != 0 {
				if i > 0 {
					return sendmmsg(fd, ms[:i])
				}
				return 0, errno
			}
		}
		return sendmmsg(fd, ms)
	}
}

func isRun(m *mmsghdr) bool { return m.hdr.Controllen > 0 }

func size(m *mmsghdr) int { return int(m.hdr.Iov.Len) }

// TestRefusals shows what each refusal of the kernel costs.
func TestRefusals(t *testing.T) {
	interrupted := 0
	for _, c := range []struct {
		name   string
		refuse func(m *mmsghdr) unix.Errno
		lost   uint64
		cuts   bool // afterwards
	}{
		{"cannot cut on this device", func(m *mmsghdr) unix.Errno {
			if isRun(m) {
				return unix.EIO
			}
			return 0
		}, 0, false},
		{"cannot cut", func(m *mmsghdr) unix.Errno {
			if isRun(m) {
				return unix.EINVAL
			}
			return 0
		}, 0, false},
		{"pieces too long", func(m *mmsghdr) unix.Errno {
			if isRun(m) {
				return unix.EINVAL
			}
			if size(m) >= 1000 {
				return unix.EMSGSIZE
			}
			return 0
		}, 40, true},
		{"runs too long", func(m *mmsghdr) unix.Errno {
			if isRun(m) {
				return unix.EMSGSIZE
			}
			return 0
		}, 41, true},
		{"forbidden", func(m *mmsghdr) unix.Errno {
			if isRun(m) {
				return unix.EPERM
			}
			return 0
		}, 41, true},
		{"interrupted", func(m *mmsghdr) unix.Errno {
			if interrupted++; interrupted%3 != 0 {
				return unix.EINTR
			}
			return 0
		}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
			setCut(t, a)
			kernel(a, c.refuse)
			sent := []Packets{
				run(b.LocalAddr(), 0, []byte("first")),
				run(b.LocalAddr(), 1000, noise(20_000)),
				run(b.LocalAddr(), 0, []byte("between")),
				run(b.LocalAddr(), 1000, noise(20_500)),
				run(b.LocalAddr(), 0, []byte("last")),
			}
			mustWrite(t, a, sent...)
			arrived := collect(t, b, a.LocalAddr(), 44-int(c.lost))
			if string(arrived[0]) != "first" || string(arrived[len(arrived)-1]) != "last" {
				t.Error("what should have been sent is not what came")
			}
			if c.lost == 0 {
				mustEqual(t, arrived, datagrams(sent))
			}
			if s := a.Stats(); s.Unsent != c.lost || s.GSO != c.cuts || a.MaxSegments() > 1 != c.cuts {
				t.Errorf("%+v, want %d lost, GSO %v", s, c.lost, c.cuts)
			}
			mustWrite(t, a, run(b.LocalAddr(), 900, noise(1000)), run(b.LocalAddr(), 0, []byte("still works")))
		})
	}
}

// TestSingle: where a call for many messages is missing, the socket says which, and works.
func TestSingle(t *testing.T) {
	missing := func(uintptr, []mmsghdr) (int, unix.Errno) { return 0, unix.ENOSYS }
	for name, remove := range map[string]func(*batch){
		"recvmmsg": func(b *batch) { b.reader.from = missing },
		"sendmmsg": func(b *batch) { b.send = missing },
	} {
		a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
		if err := a.Single(); err != nil {
			t.Skipf("no batches here: %v", err)
		}
		setPlain(t, a) // as before setUp
		remove(&a.batch)
		var failed error
		if err := a.raw.Control(func(fd uintptr) { failed = a.batch.setUp(int(fd)) }); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if err := a.Single(); !errors.Is(err, unix.ENOSYS) || !strings.Contains(err.Error(), name) || a.Stats().Batches {
			t.Errorf("without %s: %v, %+v", name, err, a.Stats())
		}
		mustWrite(t, a, run(b.LocalAddr(), 1000, noise(2500)))
		collect(t, b, a.LocalAddr(), 3)
		mustWrite(t, b, run(a.LocalAddr(), 0, []byte("and back")))
		if got := collect(t, a, b.LocalAddr(), 1); string(got[0]) != "and back" {
			t.Errorf("without %s: got %q", name, got)
		}
	}
}

// trouble stands before the real call and reports errors as long as there are.
func trouble(c *Conn, next func() unix.Errno) {
	c.batch.reader.from = func(fd uintptr, ms []mmsghdr) (int, unix.Errno) {
		if errno := next(); errno != 0 {
			return 0, errno
		}
		return recvmmsg(fd, ms)
	}
}

// TestTroubleInReading shows which errors end reading: those that stay.
func TestTroubleInReading(t *testing.T) {
	t.Run("passes", func(t *testing.T) {
		a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
		setBatches(t, b)
		errnos := []unix.Errno{unix.ECONNREFUSED, unix.EINTR, unix.EHOSTUNREACH, unix.ENOMEM, unix.EMSGSIZE}
		trouble(b, func() (errno unix.Errno) {
			if len(errnos) > 0 {
				errno, errnos = errnos[0], errnos[1:]
			}
			return errno
		})
		mustWrite(t, a, run(b.LocalAddr(), 0, []byte("after all")))
		mustEqual(t, collect(t, b, a.LocalAddr(), 1), [][]byte{[]byte("after all")})
		if s := b.Stats(); s.ReadErrors != 4 { // an interruption is none
			t.Errorf("%+v", s)
		}
	})
	t.Run("stays", func(t *testing.T) {
		b := open(t, "127.0.0.1:0")
		setBatches(t, b)
		trouble(b, func() unix.Errno { return unix.EFAULT })
		if n, err := b.ReadBatch(buffers(1)); n != 0 || !errors.Is(err, unix.EFAULT) {
			t.Errorf("ReadBatch = %d, %v", n, err)
		}
	})
	t.Run("does not end until Close", func(t *testing.T) {
		b := open(t, "127.0.0.1:0")
		setBatches(t, b)
		looks := make(chan struct{}, patience+3)
		trouble(b, func() unix.Errno {
			select {
			case looks <- struct{}{}:
			default:
			}
			return unix.ENOBUFS
		})
		done := make(chan error)
		go func() {
			_, err := b.ReadBatch(buffers(1))
			done <- err
		}()
		for range cap(looks) { // so it goes on looking after the first pause
			<-looks
		}
		b.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadBatch = %v", err)
		}
	})
}

// TestAddresses shows that an address survives the kernel's form, of either
// family.
func TestAddresses(t *testing.T) {
	zone := zoneName(1)
	if zoneIndex(zone) != 1 {
		t.Errorf("interface 1 is %s, and %s is interface %d", zone, zone, zoneIndex(zone))
	}
	const none = 1 << 30 // no system has that many interfaces
	if zoneName(none) != strconv.Itoa(none) || zoneIndex(zoneName(none)) != none || zoneIndex("no such interface") != 0 {
		t.Error("zones without a name do not stay what they are")
	}
	for _, c := range []struct {
		to, from string
		ip6      bool
	}{
		{"192.0.2.1:258", "192.0.2.1:258", false},
		{"192.0.2.1:258", "192.0.2.1:258", true},
		{"[::ffff:192.0.2.1]:258", "192.0.2.1:258", false},
		{"[::ffff:192.0.2.1]:258", "192.0.2.1:258", true},
		{"[2001:db8::1]:65535", "[2001:db8::1]:65535", true},
		{"[fe80::1%" + zone + "]:1", "[fe80::1%" + zone + "]:1", true},
		{"[fe80::1%77777777]:1", "[fe80::1%77777777]:1", true},
	} {
		v := newVector(2)
		v.set(1, nil)
		v.address(1, netip.MustParseAddrPort(c.to), c.ip6)
		if got := v.sender(1); got != netip.MustParseAddrPort(c.from) {
			t.Errorf("%s became %s", c.to, got)
		}
		if four := v.names[1].Family == unix.AF_INET; four == c.ip6 {
			t.Errorf("%s for the wrong family", c.to)
		}
	}
}

// TestFullBuffer shows that a full buffer loses what is sent, without waiting.
func TestFullBuffer(t *testing.T) {
	a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	setBatches(t, a)
	full := true
	kernel(a, func(*mmsghdr) unix.Errno {
		if full {
			return unix.EAGAIN
		}
		return 0
	})
	mustWrite(t, a, run(b.LocalAddr(), 10, noise(1000)))
	full = false
	mustWrite(t, a, run(b.LocalAddr(), 0, []byte("later")))
	mustEqual(t, collect(t, b, a.LocalAddr(), 1), [][]byte{[]byte("later")})
	if s := a.Stats(); s.Unsent != 100 {
		t.Errorf("%+v", s)
	}
}

func TestOverflowsAreCounted(t *testing.T) {
	a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	b.option(t, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	for range 100 {
		mustWrite(t, a, run(b.LocalAddr(), 0, noise(1000)))
	}
	if s := b.Stats(); s.Overflows == 0 || s.Overflows >= 100 {
		t.Errorf("%+v", s)
	}
}

// TestSmallMTU uses a real network whose packets are at most 1,500 bytes, in a
// namespace of its own.
func TestSmallMTU(t *testing.T) {
	a, b := smallNetwork(t)
	setCut(t, a)
	for _, to := range []netip.AddrPort{b.LocalAddr(), netip.MustParseAddrPort("192.0.2.1:1")} {
		before := a.Stats().Unsent
		mustWrite(t, a, run(to, 1473, noise(3*1473)), run(to, 0, noise(1473)))
		if got := a.Stats().Unsent - before; got != 4 {
			t.Errorf("%d of 4 datagrams to %v were refused", got, to)
		}
	}
	if !a.Stats().GSO {
		t.Error("what is too long for the network is taken for a lack of GSO")
	}
	sent := []Packets{run(b.LocalAddr(), 1472, noise(40*1472)), run(b.LocalAddr(), 0, noise(1472))}
	mustWrite(t, a, sent...)
	mustEqual(t, collect(t, b, a.LocalAddr(), 41), datagrams(sent))
}

// smallNetwork opens two sockets of a network that is only theirs. A socket
// stays where it was opened, so the thread, which ends here, is not needed on.
func smallNetwork(t *testing.T) (a, b *Conn) {
	var problem string
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: nobody else can use it now
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			problem = "no namespaces here: " + err.Error()
		} else if err := setLoopback(1500); err != nil {
			problem = "no loopback in the namespace: " + err.Error()
		} else {
			a, _ = Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"))
			b, _ = Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"))
		}
	}()
	<-done
	if problem != "" {
		t.Skip(problem)
	}
	if a == nil || b == nil {
		t.Fatal("no sockets in the namespace")
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	mustNotFail(t, b.socket.SetReadDeadline(time.Now().Add(patient)))
	return a, b
}

// setLoopback starts the loopback device of this thread's namespace.
func setLoopback(mtu uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint32(mtu)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, r); err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return err
	}
	return nil
}

// TestNoAllocations counts what a batch costs once the first is through.
func TestNoAllocations(t *testing.T) {
	for _, w := range ways[1:] {
		a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
		w.set(t, a)
		w.set(t, b)
		sent := []Packets{run(b.LocalAddr(), 1000, noise(3000)), run(b.LocalAddr(), 500, noise(700))}
		ps := buffers(8)
		got := testing.AllocsPerRun(100, func() {
			mustNotFail(t, a.WriteBatch(sent))
			for left := 5; left > 0; {
				n, err := b.ReadBatch(ps)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range ps[:n] {
					left -= max(1, (p.N+p.Segment-1)/p.Segment)
				}
			}
		})
		if got >= 1 { // a collection may empty the pool once
			t.Errorf("%s: %v allocations", w.name, got)
		}
	}
}
