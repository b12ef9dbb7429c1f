package udpmux

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/arq"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// wiretap records what is sent from and to addresses.
type wiretap struct {
	mu   sync.Mutex
	seen []tapped
}

type tapped struct {
	from, to netip.AddrPort
	data     []byte
}

func (w *world) tap() *wiretap {
	tap := &wiretap{}
	w.net.Watch(func(from, to netip.AddrPort, data []byte) {
		tap.mu.Lock()
		tap.seen = append(tap.seen, tapped{from, to, slices.Clone(data)})
		tap.mu.Unlock()
	})
	return tap
}

// since returns what was seen from an index on that match wants, and the index
// for the next call.
func (p *wiretap) since(from int, match func(tapped) bool) (found []tapped, next int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.seen[min(from, len(p.seen)):] {
		if match(s) {
			found = append(found, s)
		}
	}
	return found, len(p.seen)
}

func bytesOf(all []tapped) (n int) {
	for _, s := range all {
		n += len(s.data)
	}
	return n
}

// What an attacker sends again, from the peer's address or from others, moves
// nothing, closes nothing and gets no answer.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		c := w.net.Host(hostC)
		tap := w.tap()
		x, y := w.x.join(t, w.y, w.to)
		x.send(t, 0, 20, 5000)
		y.within(t, time.Minute, "packets", func() bool { p, _ := y.got(); return p == 20 })
		time.Sleep(5 * time.Second)
		old, mark := tap.since(0, func(s tapped) bool { return s.to == w.to })
		evil := netip.MustParseAddrPort(hostC + ":9")
		from := y.RemoteAddr()
		for _, s := range old {
			c.Forge(evil, w.to, s.data) // offers and finishes among them
			c.Forge(from, w.to, s.data)
			bent := slices.Clone(s.data)
			bent[len(bent)-1] ^= 1
			c.Forge(evil, w.to, bent)
		}
		time.Sleep(time.Second)
		// The finish from its own address may be answered by one datagram: the
		// peer may not have had it.
		answers, mark := tap.since(mark, func(s tapped) bool { return s.from == w.to })
		if n := bytesOf(answers); n > 100 {
			t.Errorf("%d bytes in answer to %d replayed datagrams", n, len(old))
		}
		if to := y.RemoteAddr(); to != from || y.Stats().Moves != 0 {
			t.Fatalf("moved to %v", to)
		}
		if s := w.y.Stats(); s.Replayed < 20 || s.Accepted != 1 {
			t.Errorf("%+v", s)
		}
		x.send(t, 20, 5, 5000)
		y.within(t, time.Minute, "packets after the attack", func() bool { p, _ := y.got(); return p == 25 })
		y.check(t, 0, 25)

		// A reflector: the attacker is faster than the peer and sends its newest
		// datagram from another address. That address is asked, with no more than one
		// small datagram for each, and nothing moves since it cannot answer.
		w.net.Cut(w.a, w.b)
		x.Ping()
		time.Sleep(2 * time.Second)
		fresh, mark := tap.since(mark, func(s tapped) bool { return s.to == w.to && s.from == from })
		for _, s := range fresh {
			c.Forge(evil, w.to, s.data)
		}
		time.Sleep(time.Second)
		asked, _ := tap.since(mark, func(s tapped) bool { return s.to == evil })
		if len(asked) == 0 || len(asked) > len(fresh) || bytesOf(asked) > 41*len(fresh) {
			t.Errorf("%d challenges of %d bytes for %d datagrams", len(asked), bytesOf(asked), len(fresh))
		}
		w.net.Heal(w.a, w.b)
		x.send(t, 25, 5, 5000)
		y.within(t, time.Minute, "packets after the reflection", func() bool { p, _ := y.got(); return p == 30 })
		if to := y.RemoteAddr(); to != from || y.Stats().Moves != 0 {
			t.Fatalf("moved to %v", to)
		}
	})
}

// Nobody but the peer can close an association: not by random bytes, not by
// what closed another one.
func TestForeignClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		tap := w.tap()
		x, y := w.x.join(t, w.y, w.to)
		x2, y2 := w.x.join(t, w.y, w.to)
		_, mark := tap.since(0, func(tapped) bool { return false })
		x2.Assoc.Close(wire.ReasonDisconnect)
		y2.ended(t, time.Second)
		byes, _ := tap.since(mark, func(s tapped) bool { return s.to == w.to })
		ours, _ := tap.since(0, func(s tapped) bool { return s.to == w.to && len(s.data) < 100 })
		if len(byes) == 0 || len(ours) == 0 {
			t.Fatalf("%d good-byes, %d datagrams were seen", len(byes), len(ours))
		}
		evil := w.net.Host("203.0.113.1")
		evil.Forge(y.RemoteAddr(), w.to, byes[0].data)
		for _, o := range ours { // with the header of a datagram that was ours
			evil.Forge(y.RemoteAddr(), w.to, slices.Concat(o.data[:16], byes[0].data[16:]))
		}
		time.Sleep(time.Second)
		x.send(t, 0, 3, 1000)
		y.within(t, time.Minute, "packets", func() bool { p, _ := y.got(); return p == 3 })
	})
}

// Who breaks the protocol inside the seal is told so and is gone.
func TestBrokenProtocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, nil)
		x, y := w.x.join(t, w.y, w.to)
		time.Sleep(time.Second)
		x.Assoc.mu.Lock()
		d, _ := x.link.Box.Seal(nil, []byte{250})
		x.Assoc.mu.Unlock()
		w.x.WriteTo(d, w.to)
		if err := y.ended(t, time.Second); !errors.Is(err, arq.ErrProtocol) {
			t.Fatal(err)
		}
		var closed *CloseError
		if err := x.ended(t, time.Second); !errors.As(err, &closed) || closed.Reason != wire.ReasonProtocol {
			t.Fatal(err)
		}
	})
}

// offers makes first flights of different handshakes, as anybody can who knows
// the network's name.
func offers(t testing.TB, count int) [][]byte {
	t.Helper()
	cfg := security(t, "n")
	key, err := secure.NewHeaderKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	all := make([][]byte, count)
	for i := range all {
		local, err := key.Bind(nil)
		if err != nil {
			t.Fatal(err)
		}
		in, err := secure.NewInitiator(cfg, [32]byte{}, local)
		if err != nil {
			t.Fatal(err)
		}
		if all[i], err = in.Offer(nil); err != nil {
			t.Fatal(err)
		}
		in.Close()
	}
	return all
}

// Offers from made-up addresses fill the half of the table and get cookies from
// then on, never more bytes than they have; who answers the cookie gets in, and
// in the end nothing is left.
func TestOfferFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, func(c *Config) { c.HalfOpen, c.HalfOpenPerAddress = 40, 10 })
		c := w.net.Host(hostC)
		tap := w.tap()
		flood := offers(t, 100)
		for i, o := range flood {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i), 1}), 99)
			before, mark := tap.since(0, func(s tapped) bool { return s.to == from })
			c.Forge(from, w.to, o)
			time.Sleep(time.Millisecond)
			after, _ := tap.since(mark, func(s tapped) bool { return s.to == from })
			if bytesOf(after) > len(o) || len(after) > 1 || len(before) > 0 {
				t.Fatalf("%d bytes in answer to %d", bytesOf(after), len(o))
			}
			if len(after) == 0 {
				t.Fatalf("offer %d was not answered", i)
			}
		}
		var asked int
		tap.since(0, func(s tapped) bool {
			if s.from == w.to && len(s.data) < 24+27+16+512 {
				asked++
			}
			return false
		})
		x, y := w.x.join(t, w.y, w.to) // over half of the bound: a cookie first
		x.send(t, 0, 1, 1000)
		y.within(t, time.Second, "a packet", func() bool { p, _ := y.got(); return p == 1 })
		_, mark := tap.since(0, func(tapped) bool { return false })
		for i, o := range flood { // again, from elsewhere
			c.Forge(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 52, byte(i), 1}), 99), w.to, o)
		}
		time.Sleep(time.Second)
		answers, _ := tap.since(mark, func(s tapped) bool { return s.from == w.to && s.to.Port() == 99 })
		if len(answers) > 80 { // those that had got a cookie only may ask for one once more
			t.Errorf("%d answers to offers that came again from elsewhere", len(answers))
		}
		time.Sleep(30 * time.Second)
		w.y.mu.RLock()
		left := len(w.y.answered) + len(w.y.limbo)
		w.y.mu.RUnlock()
		if left != 0 {
			t.Errorf("%d handshakes are still awaited", left)
		}
	})
}

// Cookies really are asked for: with a table of one, each dial needs one, and
// succeeds.
func TestCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: 10 * time.Millisecond}, func(c *Config) { c.HalfOpen = 1 })
		c := w.net.Host(hostC)
		c.Forge(netip.MustParseAddrPort(hostC+":1"), w.to, offers(t, 1)[0])
		time.Sleep(time.Second)
		start := time.Now()
		a, err := w.x.Dial(t.Context(), w.to, w.y.id)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 40*time.Millisecond {
			t.Fatalf("answered after %v instead of two round trips", d)
		}
		a.Close(0)
	})
}

// Silence: junk, flights of another network and sealed datagrams of nobody get no
// byte, and what is no flight goes to Stray.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{}, nil)
		tap := w.tap()
		stranger := newNode(t, w.net.Host(hostC), "[::]:0", func(c *Config) { c.Secure = security(t, "another") })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := stranger.Dial(ctx, w.to, [32]byte{}); !errors.Is(err, secure.ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		for n := range 1300 {
			w.a.Forge(netip.MustParseAddrPort(hostA+":5"), w.to, junk(n))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		answers, _ := tap.since(0, func(s tapped) bool { return s.from == w.to })
		if len(answers) > 0 {
			t.Fatalf("%d answers", len(answers))
		}
		if s := w.y.Stats(); s.Strays < 1300 || len(w.y.strays) == 0 {
			t.Fatalf("%+v", s)
		}
	})
}

// junk returns n bytes that look random.
func junk(n int) []byte {
	b := make([]byte, n)
	x := uint64(n)*0x9E3779B97F4A7C15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// flooder sends datagrams to a socket, about rate a second, until it is told to
// stop.
func flooder(t testing.TB, to netip.AddrPort, datagrams [][]byte, rate int, stop <-chan struct{}) {
	conn, err := netio.System.ListenPacket(t.Context(), netip.MustParseAddrPort(local+":0"))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	batch := make([]netio.Packets, 0, 50)
	tick := time.NewTicker(time.Second * time.Duration(cap(batch)) / time.Duration(rate))
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for batch = batch[:0]; len(batch) < cap(batch); n++ {
			d := datagrams[n%len(datagrams)]
			batch = append(batch, netio.Packets{Buf: d, N: len(d), Segment: len(d), Addr: to})
		}
		if err := conn.WriteBatch(batch); err != nil {
			t.Error(err)
			return
		}
	}
}

// Under a flood of junk, of offers and of what was heard before, an association
// works, and a new one comes up.
func TestFlood(t *testing.T) {
	x, y := loopback(t)
	stop := make(chan struct{})
	var floods sync.WaitGroup
	for _, d := range [][][]byte{{junk(1000), junk(41)}, offers(t, 200)} {
		floods.Go(func() { flooder(t, y.LocalAddr(), d, 5000, stop) })
	}
	x.send(t, 0, 100, 60000)
	y.within(t, time.Minute, "packets", func() bool { p, _ := y.got(); return p == 100 })
	y.check(t, 0, 100)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := x.mux.Dial(ctx, y.LocalAddr(), y.mux.cfg.Secure.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	a.Close(0)
	close(stop)
	floods.Wait()
	if s := y.mux.Stats(); s.Strays == 0 || s.Forged > 0 {
		t.Errorf("%+v", s)
	}
}

// Whatever arrives, the reader goes on, and nothing but what is sealed gets in.
func FuzzReader(f *testing.F) {
	f.Add([]byte(nil), uint16(0))
	f.Add(junk(32), uint16(1))
	f.Add(junk(1300), uint16(100))
	f.Add(offers(f, 1)[0], uint16(0))
	x, y := loopback(f)
	r := &reader{mux: y.mux}
	from := x.LocalAddr()
	f.Fuzz(func(t *testing.T, data []byte, segment uint16) {
		before, _ := y.got()
		buf := slices.Clone(data)
		r.now = y.mux.now()
		r.run(&netio.Packets{Buf: buf, N: len(buf), Segment: int(segment), Addr: from})
		if after, _ := y.got(); after != before || y.RemoteAddr() != from {
			t.Fatal("something got in")
		}
	})
}

// Neither sending nor receiving allocates for each packet.
func TestAllocations(t *testing.T) {
	x, y := loopback(t)
	arrived := make(chan struct{}, 1)
	y.SetHandlers(Handlers{Packet: func([]byte) { pulse(arrived) }, Datagram: func([]byte) { pulse(arrived) }})
	p := make([]byte, 1000)
	for name, send := range map[string]func(){
		"packets":   func() { x.SendPacket(p) },
		"datagrams": func() { _ = x.SendDatagram(p) },
	} {
		n := testing.AllocsPerRun(2000, func() {
			send()
			select {
			case <-arrived:
			case <-time.After(time.Second):
				t.Error(name, "did not arrive")
			}
		})
		// time.After takes three; timers and goroutines of the rest are not for each.
		if n > 8 {
			t.Errorf("%s: %v allocations each", name, n)
		}
	}
}

// TestCarriedElsewhere: an attacker has the peer's datagrams come from an address of his own, while he
// stops those that come straight. While he lets only these through, and keeps the challenge, nothing moves. When he
// passes on what goes there, too, he is a path as any other; the association goes back to the peer within
// a round trip and a half of its next datagram that comes straight. Nothing is lost or doubled meanwhile, and what he
// has recorded moves nothing afterwards.
func TestCarriedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, simnet.Link{Latency: rtt / 2}, nil)
		evil := netip.MustParseAddrPort(hostC + ":9")
		c := w.net.Host(hostC)
		var mu sync.Mutex
		var back, on bool // what he passes on: from the peer, and to it
		var kept [][]byte
		x, y := w.x.join(t, w.y, w.to)
		home := y.RemoteAddr()
		w.net.Watch(func(from, to netip.AddrPort, data []byte) {
			mu.Lock()
			defer mu.Unlock()
			data = slices.Clone(data)
			switch {
			case on && from == home && to == w.to:
				kept = append(kept, data)
				time.AfterFunc(time.Millisecond, func() { c.Forge(evil, w.to, data) })
			case back && from == w.to && to == evil:
				time.AfterFunc(time.Millisecond, func() { c.Forge(w.to, home, data) })
			}
		})
		set := func(forth, backwards bool) {
			mu.Lock()
			defer mu.Unlock()
			on, back = forth, backwards
		}
		x.send(t, 0, 10, 3000)
		y.within(t, time.Minute, "packets before", func() bool { p, _ := y.got(); return p == 10 })

		w.net.Cut(w.a, w.b)
		set(true, false)
		x.send(t, 10, 10, 3000)
		time.Sleep(3 * time.Second)
		if y.RemoteAddr() != home || y.Stats().Moves != 0 {
			t.Fatalf("moved to %v, which has proved nothing", y.RemoteAddr())
		}
		set(true, true)
		x.send(t, 20, 10, 3000)
		y.send(t, 0, 10, 3000)
		y.within(t, time.Minute, "packets over the attacker", func() bool { p, _ := y.got(); return p == 30 })
		x.within(t, time.Minute, "packets back over the attacker", func() bool { p, _ := x.got(); return p == 10 })
		if y.RemoteAddr() != evil {
			t.Fatalf("it is at %v: this test shows nothing", y.RemoteAddr())
		}

		set(false, false)
		w.net.Heal(w.a, w.b)
		x.Ping()
		time.Sleep(3*rtt/2 + time.Millisecond)
		if y.RemoteAddr() != home {
			t.Errorf("it has not come back from %v", y.RemoteAddr())
		}
		moves := y.Stats().Moves
		mu.Lock()
		old := slices.Clone(kept)
		mu.Unlock()
		for _, d := range old {
			c.Forge(evil, w.to, d)
			c.Forge(netip.MustParseAddrPort(hostC+":10"), w.to, d)
		}
		time.Sleep(time.Second)
		x.send(t, 30, 10, 3000)
		y.within(t, time.Minute, "packets afterwards", func() bool { p, _ := y.got(); return p == 40 })
		if y.RemoteAddr() != home || y.Stats().Moves != moves {
			t.Errorf("what was recorded has moved it to %v", y.RemoteAddr())
		}
		y.check(t, 0, 40)
		x.check(t, 0, 10)
	})
}
