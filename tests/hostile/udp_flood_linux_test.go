package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// watcher sees every packet on loopback between two UDP ports, and what the
// victim's port sends to forged addresses, as somebody does who taps the wire.
type watcher struct {
	fd             int
	wg             sync.WaitGroup
	victim, friend uint16

	answers atomic.Int64 // bytes that the victim sent to forged addresses
	replies atomic.Int64 // datagrams that it sent to its friend
	mu      sync.Mutex
	sealed  [][]byte // single datagrams from the friend to the victim
}

const ipHeader, udpHeader = 20, 8

func newWatcher(t *testing.T, victim, friend uint16) *watcher {
	t.Helper()
	const protocol = 0x0008 // ETH_P_IP in network order
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM, protocol)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("tapping the wire and forging addresses is not permitted here")
	}
	if err != nil {
		t.Fatal(err)
	}
	syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<20) //nolint:errcheck // it may see less
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	w := &watcher{fd: fd, victim: victim, friend: friend}
	stop := make(chan struct{})
	w.wg.Go(func() { w.run(stop) })
	t.Cleanup(func() {
		close(stop)
		w.wg.Wait()
		syscall.Close(fd) //nolint:errcheck // it has seen enough
	})
	return w
}

func (w *watcher) run(stop chan struct{}) {
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := syscall.Recvfrom(w.fd, buf, 0)
		ll, ok := from.(*syscall.SockaddrLinklayer)
		if err != nil || !ok || ll.Pkttype == syscall.PACKET_OUTGOING || n < ipHeader+udpHeader || buf[9] != syscall.IPPROTO_UDP {
			continue // loopback shows everything twice: once as it leaves
		}
		source, destination := binary.BigEndian.Uint16(buf[ipHeader:]), binary.BigEndian.Uint16(buf[ipHeader+2:])
		data := buf[ipHeader+udpHeader : n]
		switch {
		case source == w.victim && destination == w.friend:
			w.replies.Add(1)
		case source == w.victim && [4]byte(buf[16:20]) != [4]byte{127, 0, 0, 1}:
			w.answers.Add(int64(len(data)))
		case source == w.friend && destination == w.victim && len(data) < 1200:
			w.mu.Lock()
			if len(w.sealed) < 1000 {
				w.sealed = append(w.sealed, bytes.Clone(data))
			}
			w.mu.Unlock()
		}
	}
}

// forger sends datagrams to a victim as if they came from anywhere on loopback.
type forger struct {
	fd     int
	to     netip.AddrPort
	packet []byte
}

func newForger(t *testing.T, to netip.AddrPort) *forger {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) }) //nolint:errcheck // it has sent enough
	return &forger{fd: fd, to: to}
}

// send sends one datagram. The kernel fills in the checksum of IP; that of UDP
// may be absent.
func (f *forger) send(from netip.AddrPort, data []byte) error {
	p := append(f.packet[:0], 0x45, 0, 0, 0, 0, 0, 0, 0, 64, syscall.IPPROTO_UDP, 0, 0)
	binary.BigEndian.PutUint16(p[2:], uint16(ipHeader+udpHeader+len(data)))
	source, to := from.Addr().As4(), f.to.Addr().As4()
	p = append(append(p, source[:]...), to[:]...)
	p = binary.BigEndian.AppendUint16(p, from.Port())
	p = binary.BigEndian.AppendUint16(p, f.to.Port())
	p = binary.BigEndian.AppendUint16(p, uint16(udpHeader+len(data)))
	p = append(append(p, 0, 0), data...)
	f.packet = p
	return syscall.Sendto(f.fd, p, 0, &syscall.SockaddrInet4{Addr: to})
}

// forgeries makes datagrams of three kinds: noise from anywhere; what the friend
// has said, changed behind the part that names the session, in his name; and the
// same unchanged, in his name and from elsewhere.
func (w *watcher) forgeries(n int, friend netip.AddrPort) (from []netip.AddrPort, data [][]byte) {
	r := rand.New(rand.NewPCG(3, 1))
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range n {
		anywhere := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(r.UintN(250)), byte(r.UintN(250)), byte(2 + r.UintN(250))}), uint16(1024+r.UintN(60000)))
		real := w.sealed[r.IntN(len(w.sealed))]
		switch i % 4 {
		case 0:
			noise := make([]byte, 20+r.IntN(600))
			for k := range noise {
				noise[k] = byte(r.Uint32())
			}
			from, data = append(from, anywhere), append(data, noise)
		case 1:
			from, data = append(from, friend), append(data, flip(r, real, func(at int) bool { return at >= 16 }))
		case 2:
			from, data = append(from, friend), append(data, real)
		default:
			from, data = append(from, anywhere), append(data, real)
		}
	}
	return from, data
}

// flood sends count forgeries at a rate a second, until stop is closed if that is
// sooner.
func (f *forger) flood(t *testing.T, w *watcher, friend netip.AddrPort, count, rate int, stop chan struct{}) (sent int) {
	from, data := w.forgeries(8192, friend)
	began := time.Now()
	for ; sent < count; sent++ {
		if sent%64 == 0 {
			select {
			case <-stop:
				return sent
			default:
			}
			time.Sleep(time.Until(began.Add(time.Duration(float64(sent) / float64(rate) * float64(time.Second)))))
		}
		if err := f.send(from[sent%len(from)], data[sent%len(data)]); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			t.Error(err)
			return sent
		}
	}
	return sent
}

// udpPair is a session over uTP on loopback, with a watcher who has seen some of
// it and a forger.
func udpPair(t *testing.T, network string) (victim, friend *node, w *watcher, f *forger) {
	t.Helper()
	cfg := crust.Config{NetworkName: network, Heartbeat: time.Minute, LostAfter: 10 * time.Minute}
	victim, friend = startUDP(t, cfg), startUDP(t, cfg)
	w = newWatcher(t, victim.at().Addr.Port(), friend.at().Addr.Port())
	f = newForger(t, victim.at().Addr)
	if _, err := friend.connect(victim.at(), victim.ID(), 1); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if err := friend.Send(victim.ID(), bytes.Repeat([]byte{byte(i)}, i*10), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := victim.next(of(crust.EventMessage, friend.ID())); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond) // for acknowledgements, and for the watcher
	w.mu.Lock()
	n := len(w.sealed)
	w.mu.Unlock()
	if n < 50 || w.answers.Load() != 0 {
		t.Fatalf("the watcher has %d datagrams of the session, and %d bytes of others", n, w.answers.Load())
	}
	return victim, friend, w, f
}

// TestUDPForgeriesAreNotAnswered floods a session at rest with 200,000 forged
// datagrams: its peer is told nothing by it, nobody else is, and the session
// lives.
func TestUDPForgeriesAreNotAnswered(t *testing.T) {
	const count, rate = 200_000, 50_000
	victim, friend, w, f := udpPair(t, "forged at rest")
	before, replies := measure(t), w.replies.Load()
	f.flood(t, w, friend.at().Addr, count, rate, nil)
	time.Sleep(200 * time.Millisecond)
	if got := w.replies.Load() - replies; got > 10 {
		t.Errorf("%d datagrams went to the peer because of forgeries", got)
	}
	if got := w.answers.Load(); got != 0 {
		t.Errorf("%d bytes of answer to forgeries", got)
	}
	if err := victim.Send(friend.ID(), []byte("still here"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := friend.next(of(crust.EventMessage, victim.ID())); err != nil {
		t.Fatal(err)
	}
	if p, ok := victim.Peer(friend.ID()); !ok || p.ReceivedMessages != 50 {
		t.Errorf("the session is %+v", p)
	}
	mustReturnTo(t, before)
}

// load sends messages to the victim at a rate, until stop is closed; got counts
// the bytes that arrive.
func load(t *testing.T, victim, friend *node, size, rate int, got *atomic.Int64, stop chan struct{}) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		began := time.Now()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if rate > 0 {
				time.Sleep(time.Until(began.Add(time.Duration(float64(i*size) / float64(rate) * float64(time.Second)))))
			}
			if err := friend.SendWait(t.Context(), victim.ID(), make([]byte, size), 1); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case e := <-victim.events:
				if e.Type == crust.EventMessage {
					got.Add(int64(len(e.Data)))
				} else if e.Type == crust.EventLost && e.Peer == friend.ID() {
					t.Errorf("the session is lost: %v", e.Err())
				}
			case <-stop:
				return
			}
		}
	})
	return wg.Wait
}

// TestUDPForgeryFlood sends a million forged datagrams to a socket that carries a
// session: it loses no more than a tenth of its throughput, members connect
// within a second, nobody gets an answer, and nothing stays behind.
func TestUDPForgeryFlood(t *testing.T) {
	const (
		count   = 1_000_000
		attack  = 60_000   // datagrams a second
		offered = 20 << 20 // bytes a second of the session
		window  = 2 * time.Second
	)
	victim, friend, w, f := udpPair(t, "flooded with forgeries")
	var got atomic.Int64
	warm := make(chan struct{}) // what the session itself holds when it has worked is not the attack's
	done := load(t, victim, friend, 32<<10, offered, &got, warm)
	time.Sleep(window)
	close(warm)
	done()
	before := measure(t)
	var calm, stormy []float64
	throughput := func() float64 {
		from, began := got.Load(), time.Now()
		time.Sleep(window)
		return float64(got.Load()-from) / time.Since(began).Seconds() / 1e6
	}
	stop := make(chan struct{})
	wait := load(t, victim, friend, 32<<10, offered, &got, stop)
	time.Sleep(window / 4)
	for sent := 0; sent < count; {
		calm = append(calm, throughput())
		over := make(chan struct{})
		var wg sync.WaitGroup
		var now int
		wg.Go(func() { now = f.flood(t, w, friend.at().Addr, count, attack, over) })
		stormy = append(stormy, throughput())
		mustConnectWithinASecond(t, victim, "flooded with forgeries")
		close(over)
		wg.Wait()
		sent += now
		if t.Failed() {
			break
		}
	}
	close(stop)
	wait()
	slices.Sort(calm)
	slices.Sort(stormy)
	quiet, loud := calm[len(calm)/2], stormy[len(stormy)/2]
	t.Logf("throughput of a session that is offered %.0f MB/s: %.1f MB/s, under %d forgeries a second %.1f", float64(offered)/1e6, quiet, attack, loud)
	if loud < 0.9*quiet {
		t.Errorf("forgeries took %.0f %% of the throughput", 100*(1-loud/quiet))
	}
	if got := w.answers.Load(); got != 0 {
		t.Errorf("%d bytes of answer to forgeries", got)
	}
	mustReturnTo(t, before)
}

// The forgeries do arrive, from where they pretend to come: otherwise the tests
// above would show nothing.
func TestForgeriesArrive(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // it has heard what it should
	to := c.LocalAddr().(*net.UDPAddr).AddrPort()
	newWatcher(t, to.Port(), 1) // skips where this is not permitted
	f := newForger(t, to)
	from, data := netip.MustParseAddrPort("127.9.8.7:6543"), []byte("not from there")
	if err := f.send(from, data); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, source, err := c.ReadFromUDPAddrPort(buf)
	if err != nil || source != from || !bytes.Equal(buf[:n], data) {
		t.Fatalf("%q from %v, %v", buf[:n], source, err)
	}
}
