//go:build linux

package linklab_test

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/linklab"
)

// newLab makes hosts a and b; up and down are of the link of a.
func newLab(t *testing.T, up, down linklab.Shape, change ...func(*linklab.Config)) (lab *linklab.Lab, a, b *linklab.Host) {
	t.Helper()
	config := linklab.Config{Seed: 7, Hosts: []linklab.HostConfig{{Name: "a", Up: up, Down: down}, {Name: "b"}}}
	for _, f := range change {
		f(&config)
	}
	lab, err := linklab.New(config)
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab, lab.Host("a"), lab.Host("b")
}

// udp opens a socket at a host, on any port of its address.
func udp(t *testing.T, h *linklab.Host) *net.UDPConn {
	t.Helper()
	return udpAt(t, h, netip.AddrPortFrom(h.Addr(), 0))
}

func udpAt(t *testing.T, h *linklab.Host, at netip.AddrPort) (conn *net.UDPConn) {
	t.Helper()
	var err error
	h.Do(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	if err == nil {
		err = conn.SetReadBuffer(4 << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func addrOf(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// arrival is a datagram that came.
type arrival struct {
	number int
	size   int
	at     time.Time
	from   netip.AddrPort
}

// flood sends count numbered datagrams of size bytes, each each per tick of 1 ms,
// and returns what arrived until 300 ms after the last.
func flood(t *testing.T, from, to *net.UDPConn, count, size, each int) []arrival {
	t.Helper()
	done := make(chan []arrival)
	go func() {
		var all []arrival
		buffer := make([]byte, 65536)
		for {
			n, sender, err := to.ReadFromUDPAddrPort(buffer)
			if err != nil {
				done <- all
				return
			}
			all = append(all, arrival{int(binary.BigEndian.Uint32(buffer)), n, time.Now(), sender})
		}
	}()
	data := make([]byte, size)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range count {
		if i%each == 0 {
			<-tick.C
		}
		binary.BigEndian.PutUint32(data, uint32(i))
		if _, err := from.WriteToUDPAddrPort(data, addrOf(to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	all := <-done
	if err := to.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return all
}

// nearShare fails when got of count is not the share that was asked for, within
// five standard deviations of a fair game.
func nearShare(t *testing.T, what string, got, count int, share float64) {
	t.Helper()
	want := share * float64(count)
	if off := math.Abs(float64(got) - want); off > 5*math.Sqrt(want*(1-share))+1 {
		t.Errorf("%s: %d of %d, want %.0f", what, got, count, want)
	}
}

// pings returns the sorted times of round trips of small datagrams.
func pings(t *testing.T, a, b *net.UDPConn, count int) []time.Duration {
	t.Helper()
	go func() {
		buffer := make([]byte, 64)
		for {
			n, from, err := b.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			_, _ = b.WriteToUDPAddrPort(buffer[:n], from)
		}
	}()
	times := make([]time.Duration, count)
	buffer := make([]byte, 64)
	for i := range times {
		start := time.Now()
		if _, err := a.WriteToUDPAddrPort(buffer, addrOf(b)); err != nil {
			t.Fatal(err)
		}
		if err := a.SetReadDeadline(start.Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.ReadFromUDPAddrPort(buffer); err != nil {
			t.Fatal(err)
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times
}

func TestDelayIsKept(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond, 75 * time.Millisecond} {
		_, a, b := newLab(t, linklab.Shape{Delay: delay}, linklab.Shape{Delay: delay})
		count := 20
		if delay == 0 {
			count = 500
		}
		times := pings(t, udp(t, a), udp(t, b), count)
		t.Logf("%v each way: %v least, %v median, %v most", delay, times[0], times[count/2], times[count-1])
		if times[0] < 2*delay {
			t.Errorf("a round trip of %v is shorter than two ways of %v", times[0], delay)
		}
		// Other programs share the processors: the quickest shows the laboratory.
		if times[0] > 2*delay+time.Millisecond {
			t.Errorf("the quickest round trip took %v, want %v", times[0], 2*delay)
		}
	}
}

func TestDelayOverIPv6(t *testing.T) {
	_, a, b := newLab(t, linklab.Shape{Delay: 5 * time.Millisecond}, linklab.Shape{})
	times := pings(t, udpAt(t, a, netip.AddrPortFrom(a.Addr6(), 0)), udpAt(t, b, netip.AddrPortFrom(b.Addr6(), 0)), 10)
	if times[0] < 5*time.Millisecond || times[0] > 6*time.Millisecond {
		t.Errorf("the quickest round trip took %v, want 5ms", times[0])
	}
}

func TestNothingIsLostUnasked(t *testing.T) {
	_, a, b := newLab(t, linklab.Shape{Delay: 2 * time.Millisecond, Jitter: 2 * time.Millisecond}, linklab.Shape{})
	all := flood(t, udp(t, a), udp(t, b), 10_000, 1000, 20)
	if len(all) != 10_000 {
		t.Errorf("%d of 10000 arrived", len(all))
	}
	for i, one := range all {
		if one.number != i || one.size != 1000 {
			t.Fatalf("datagram %d of %d bytes came as number %d", one.number, one.size, i)
		}
	}
	up, down := a.Counters()
	if up.Delivered != 10_000 || up.Bytes != 10_000*1028 || down.Packets != 0 {
		t.Errorf("the counters are %+v and %+v", up, down)
	}
}

func TestLossIsTheShareAskedFor(t *testing.T) {
	const count = 10_000
	for _, loss := range []float64{0.01, 0.1} {
		_, a, b := newLab(t, linklab.Shape{Loss: loss}, linklab.Shape{})
		all := flood(t, udp(t, a), udp(t, b), count, 100, 20)
		nearShare(t, "lost", count-len(all), count, loss)
		if up, _ := a.Counters(); int(up.Lost) != count-len(all) {
			t.Errorf("%d counted as lost, %d did not arrive", up.Lost, count-len(all))
		}
	}
}

func TestLossComesInBursts(t *testing.T) {
	const count = 20_000
	_, a, b := newLab(t, linklab.Shape{Loss: 0.05, LossBurst: 8}, linklab.Shape{})
	all := flood(t, udp(t, a), udp(t, b), count, 100, 20)
	bursts, last := 0, -1
	for _, one := range all {
		if one.number > last+1 {
			bursts++
		}
		last = one.number
	}
	lost := count - len(all)
	mean := float64(lost) / float64(bursts)
	if share := float64(lost) / count; share < 0.03 || share > 0.07 || mean < 5.5 || mean > 11 {
		t.Errorf("%.1f%% were lost, %.1f at a time, want 5%%, 8 at a time", 100*share, mean)
	}
}

func TestRateIsKept(t *testing.T) {
	const rate = 20e6
	_, a, b := newLab(t, linklab.Shape{Rate: rate, Queue: 100_000}, linklab.Shape{})
	from, to := udp(t, a), udp(t, b)
	// 1,028 bytes on the link, 40 Mbit/s offered.
	all := flood(t, from, to, 5000, 1000, 5)
	took := all[len(all)-1].at.Sub(all[0].at).Seconds()
	got := float64(len(all)-1) * 1028 * 8 / took
	t.Logf("%.2f Mbit/s of 20", got/1e6)
	if got < 0.97*rate || got > 1.03*rate {
		t.Errorf("%.2f Mbit/s came through, want %.2f", got/1e6, rate/1e6)
	}
	up, _ := a.Counters()
	if int(up.QueueDrops) != 5000-len(all) || up.QueueDrops < 1000 {
		t.Errorf("the queue dropped %d, and %d of 5000 arrived", up.QueueDrops, len(all))
	}
	// The queue of 97 packets drains in 40 ms, and a burst that fits passes whole.
	if all := flood(t, from, to, 90, 1000, 90); len(all) != 90 {
		t.Errorf("%d of 90 that fit the queue arrived", len(all))
	}
}

func TestReorderAndDuplicateAreTheSharesAskedFor(t *testing.T) {
	const count = 10_000
	_, a, b := newLab(t, linklab.Shape{Reorder: 0.05, ReorderBy: 3 * time.Millisecond, Duplicate: 0.02}, linklab.Shape{})
	all := flood(t, udp(t, a), udp(t, b), count, 100, 20)
	seen := make([]bool, count)
	late, twice, highest := 0, 0, -1
	for _, one := range all {
		if seen[one.number] {
			twice++
			continue
		}
		seen[one.number] = true
		if one.number < highest {
			late++
		}
		highest = max(highest, one.number)
	}
	if i := slices.Index(seen, false); i >= 0 {
		t.Errorf("datagram %d did not arrive", i)
	}
	nearShare(t, "late", late, count, 0.05)
	nearShare(t, "twice", twice, count, 0.02)
}

// connected opens a connected socket that never lets the kernel cut packets.
func connected(t *testing.T, h *linklab.Host, to netip.AddrPort) (conn *net.UDPConn) {
	t.Helper()
	var err error
	h.Do(func() { conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if to.Addr().Is4() {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestMTU(t *testing.T) {
	for name, c := range map[string]struct{ icmp, v6 bool }{
		"black hole": {}, "ICMP": {icmp: true}, "black hole over IPv6": {v6: true}, "ICMPv6": {icmp: true, v6: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, b := newLab(t, linklab.Shape{MTU: 1300, ICMP: c.icmp}, linklab.Shape{})
			addr, header := b.Addr(), 28
			if c.v6 {
				addr, header = b.Addr6(), 48
			}
			to := udpAt(t, b, netip.AddrPortFrom(addr, 0))
			from := connected(t, a, addrOf(to))
			receive := func(wait time.Duration) int {
				buffer := make([]byte, 2000)
				if err := to.SetReadDeadline(time.Now().Add(wait)); err != nil {
					t.Fatal(err)
				}
				n, _ := to.Read(buffer)
				return n
			}
			fits := make([]byte, 1300-header)
			if _, err := from.Write(fits); err != nil || receive(5*time.Second) != len(fits) {
				up, _ := a.Counters()
				_, down := b.Counters()
				t.Fatalf("a packet of 1300 bytes did not arrive: %v; %+v, %+v", err, up, down)
			}
			if _, err := from.Write(make([]byte, len(fits)+1)); err != nil {
				t.Fatal(err)
			}
			if n := receive(50 * time.Millisecond); n != 0 {
				t.Errorf("a packet of 1301 bytes arrived as %d", n)
			}
			_, err := from.Write(make([]byte, len(fits)+1))
			if told := errors.Is(err, syscall.EMSGSIZE); told != c.icmp {
				t.Errorf("the next write says %v", err)
			}
		})
	}
}

func TestCutAndRestore(t *testing.T) {
	_, a, b := newLab(t, linklab.Shape{}, linklab.Shape{})
	from, to := udp(t, a), udp(t, b)
	for _, c := range []struct {
		word string
		want int
	}{{"cut", 0}, {"cut=off", 10}, {"loss=100%", 0}, {"loss=0", 10}} {
		if err := a.Change(c.word); err != nil {
			t.Fatal(err)
		}
		if got := len(flood(t, from, to, 10, 100, 10)); got != c.want {
			t.Errorf("after %s %d of 10 arrived, want %d", c.word, got, c.want)
		}
	}
	if err := a.Change("loss=2"); err == nil || !strings.Contains(err.Error(), "no share") {
		t.Errorf("a loss of 200%% gave %v", err)
	}
	if err := a.Change("delay=1ms", "taste=sweet"); err == nil || !strings.Contains(err.Error(), "no such setting") {
		t.Errorf("a wrong word gave %v", err)
	}
}

// source sends one datagram and returns from where it comes.
func source(t *testing.T, from, to *net.UDPConn) netip.AddrPort {
	t.Helper()
	all := flood(t, from, to, 1, 20, 1)
	if len(all) != 1 {
		t.Fatalf("%d datagrams arrived, want 1", len(all))
	}
	return all[0].from
}

// answered tells whether a datagram sent to an address arrives.
func answered(t *testing.T, from *net.UDPConn, to netip.AddrPort, at *net.UDPConn) bool {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte("answer"), to); err != nil {
		t.Fatal(err)
	}
	if err := at.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, _, _ := at.ReadFromUDPAddrPort(make([]byte, 20))
	return n == 6
}

func behind(nat linklab.NAT) func(*linklab.Config) {
	return func(c *linklab.Config) { c.Hosts[0].NAT = &nat }
}

func TestNATMapsAndFilters(t *testing.T) {
	for name, c := range map[string]struct {
		nat               linklab.NAT
		samePort, answers bool
	}{
		"full cone":       {linklab.NAT{}, true, true},
		"port restricted": {linklab.NAT{Filter: linklab.OnAddressPort}, true, false},
		"by address":      {linklab.NAT{Mapping: linklab.OnAddress, Filter: linklab.OnAddress}, true, true},
		"symmetric":       {linklab.NAT{Mapping: linklab.OnAddressPort, Filter: linklab.OnAddressPort}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, b := newLab(t, linklab.Shape{}, linklab.Shape{}, behind(c.nat))
			from, to, other, stranger := udp(t, a), udp(t, b), udp(t, b), udp(t, b)
			first, second := source(t, from, to), source(t, from, other)
			if first.Addr() != a.Public() || first.Addr() == a.Addr() {
				t.Errorf("it comes from %v, the public address is %v, the private one %v", first, a.Public(), a.Addr())
			}
			if (first == second) != c.samePort {
				t.Errorf("two ports of one host see %v and %v", first, second)
			}
			if !answered(t, to, first, from) {
				t.Error("the answer of the one asked did not arrive")
			}
			if got := answered(t, stranger, first, from); got != c.answers {
				t.Errorf("a datagram of another port passes: %v, want %v", got, c.answers)
			}
		})
	}
}

func TestNATForgetsAndRebinds(t *testing.T) {
	_, a, b := newLab(t, linklab.Shape{}, linklab.Shape{}, behind(linklab.NAT{UDPTimeout: time.Second}))
	from, to := udp(t, a), udp(t, b)
	first := source(t, from, to)
	if again := source(t, from, to); again != first {
		t.Errorf("within the timeout it comes from %v, then from %v", first, again)
	}
	if err := a.Rebind(false); err != nil {
		t.Fatal(err)
	}
	if answered(t, to, first, from) {
		t.Error("the old mapping lives on after a rebinding")
	}
	second := source(t, from, to)
	if second.Addr() != first.Addr() || second.Port() == first.Port() {
		t.Errorf("after a rebinding of the port it comes from %v, before from %v", second, first)
	}
	if err := a.Rebind(true); err != nil {
		t.Fatal(err)
	}
	third := source(t, from, to)
	if third.Addr() == first.Addr() || third.Addr() != a.Public() {
		t.Errorf("after a rebinding of the address it comes from %v, before from %v", third, second)
	}
	sent := time.Now()
	for answered(t, to, third, from) {
		if time.Since(sent) > 5*time.Second {
			t.Fatal("answers keep a mapping alive")
		}
	}
	if lived := time.Since(sent); lived < 500*time.Millisecond {
		t.Errorf("a mapping of 1s was gone after %v", lived)
	}
	if err := b.Rebind(false); err == nil {
		t.Error("a host without a NAT was rebound")
	}
}

// stream carries bytes over TCP from a to b and returns the rate in bits per second.
func stream(t *testing.T, a, b *linklab.Host, size int64) float64 {
	t.Helper()
	var listener net.Listener
	var conn net.Conn
	var err error
	b.Do(func() { listener, err = net.Listen("tcp", netip.AddrPortFrom(b.Addr(), 0).String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	got := make(chan int64)
	go func() {
		in, err := listener.Accept()
		if err != nil {
			got <- -1
			return
		}
		n, _ := io.Copy(io.Discard, in)
		in.Close()
		got <- n
	}()
	a.Do(func() { conn, err = net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second) })
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	chunk := make([]byte, 64<<10)
	for sent := int64(0); sent < size; sent += int64(len(chunk)) {
		if _, err := conn.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	if n := <-got; n != size {
		t.Fatalf("%d of %d bytes arrived", n, size)
	}
	return float64(size) * 8 / time.Since(start).Seconds()
}

func TestTCPRunsThrough(t *testing.T) {
	_, a, b := newLab(t, linklab.Shape{}, linklab.Shape{})
	t.Logf("TCP without bounds: %.2f Gbit/s", stream(t, a, b, 256<<20)/1e9)
	shape := linklab.Shape{Delay: 5 * time.Millisecond, Rate: 100e6}
	_, a, b = newLab(t, shape, shape, behind(linklab.NAT{Filter: linklab.OnAddressPort}))
	rate := stream(t, a, b, 16<<20)
	t.Logf("TCP at 100 Mbit/s and 10 ms behind a NAT: %.1f Mbit/s", rate/1e6)
	if rate > 98e6 || rate < 50e6 {
		t.Errorf("TCP has %.1f of 100 Mbit/s", rate/1e6)
	}
}

func TestCommandsRunAtTheirHost(t *testing.T) {
	lab, a, b := newLab(t, linklab.Shape{}, linklab.Shape{})
	var ours, theirs string
	for _, at := range []struct {
		host *linklab.Host
		to   *string
	}{{a, &ours}, {b, &theirs}} {
		command := exec.Command("readlink", "/proc/self/ns/net")
		var text strings.Builder
		command.Stdout = &text
		if err := at.host.Run(command); err != nil {
			t.Fatal(err)
		}
		*at.to = text.String()
	}
	mine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if ours == theirs || ours == mine || !strings.HasPrefix(ours, "net:[") {
		t.Errorf("the namespaces are %q, %q and %q", ours, theirs, mine)
	}
	left := exec.Command("sleep", "1000")
	if err := a.Start(left); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if err := left.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a command outlives its laboratory: %v", err)
	}
	if _, err := os.Stat(a.Namespace().Path()); err == nil {
		t.Error("the namespace outlives its laboratory")
	}
}

func TestWrongConfigurationsAreRefused(t *testing.T) {
	host := func(c linklab.HostConfig) []linklab.HostConfig { return []linklab.HostConfig{c} }
	for want, config := range map[string]linklab.Config{
		"1 to 250 hosts": {},
		"empty or taken": {Hosts: host(linklab.HostConfig{})},
		"jitter":         {Hosts: host(linklab.HostConfig{Name: "a", Up: linklab.Shape{Jitter: 1}})},
		"an MTU of 600":  {MTU: 600, Hosts: host(linklab.HostConfig{Name: "a"})},
		"cannot be its":  {Hosts: host(linklab.HostConfig{Name: "a", Addr: netip.IPv6Loopback()})},
		"at most 200":    {Hosts: host(linklab.HostConfig{Name: "a", NAT: &linklab.NAT{Addresses: 201}})},
	} {
		lab, err := linklab.New(config)
		if err == nil {
			lab.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
