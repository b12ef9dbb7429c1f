package arq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// counter is a Handler that counts.
type counter struct{ packets, bytes, datagrams int }

func (c *counter) Packet(p []byte)   { c.packets++; c.bytes += len(p) }
func (c *counter) Datagram(p []byte) { c.datagrams++; c.bytes += len(p) }
func (c *counter) Response(uint64)   {}
func (c *counter) Closed(Reason)     {}

// ack makes an acknowledgement of some ranges, the lowest first.
func ack(limit uint64, ranges ...wire.AckRange) []byte {
	return wire.AppendInnerAck(nil, 0, limit, ranges, 1000)
}

func stream(off uint64, data ...byte) []byte {
	return append(wire.AppendInnerStream(nil, off), data...)
}

// sent makes a Conn that has sent the numbers 0 to 4, 6 and 7.
func sent(t *testing.T) *Conn {
	c := New(Config{}, 0)
	for range 7 {
		if !c.Send(make([]byte, 1100)) {
			t.Fatal("refused")
		}
	}
	number := uint64(0)
	for range 7 {
		if _, ok := c.Next(nil, number, 0); !ok {
			t.Fatal("nothing to send")
		}
		if number++; number == 5 {
			number++
		}
	}
	return c
}

func TestHostile(t *testing.T) {
	for name, plain := range map[string][]byte{
		"acknowledges what was never sent":    ack(0, wire.AckRange{First: 8, Last: 8}),
		"acknowledges from there":             ack(0, wire.AckRange{First: 3, Last: 9}),
		"acknowledges what was left out":      ack(0, wire.AckRange{First: 5, Last: 5}),
		"acknowledges over what was left out": ack(0, wire.AckRange{First: 0, Last: 7}),
		"sends beyond the limit":              stream(wire.InitialLimit, 1),
		"sends up to beyond the limit":        stream(wire.InitialLimit-1, 1, 2),
		"sends a packet of no bytes":          stream(0, 0, 0, 0),
		"sends one in a later part":           stream(0, 0, 1, 9, 0, 0),
		"sends an unknown frame":              {99},
		"ends too early":                      {byte(wire.InnerDatagram), 5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := sent(t)
			if err := c.Receive(0, plain, 1, &counter{}); !errors.Is(err, ErrProtocol) {
				t.Errorf("accepted: %v", err)
			}
		})
	}
	c := sent(t)
	if err := c.Receive(1<<62, nil, 1, &counter{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a number out of bounds is accepted: %v", err)
	}
	for i, plain := range [][]byte{
		ack(0, wire.AckRange{First: 0, Last: 4}), ack(0, wire.AckRange{First: 0, Last: 4}, wire.AckRange{First: 6, Last: 7}),
		{}, {0, 9, 9}, stream(wire.InitialLimit-1, 1),
	} {
		if err := c.Receive(uint64(i), plain, 1, &counter{}); err != nil {
			t.Errorf("%x is refused: %v", plain, err)
		}
	}
	if s := c.Stats(); s.InFlight != 0 || s.Queued != 0 {
		t.Errorf("all is acknowledged: %+v", s)
	}
}

// Parts of one byte with holes between take bounded memory, and do not keep the
// stream from going on.
func TestHoles(t *testing.T) {
	c := New(Config{ReceiveBuffer: 1 << 20}, 0)
	h := &counter{}
	number := uint64(0)
	give := func(plain []byte) {
		t.Helper()
		if err := c.Receive(number, plain, time.Duration(number), h); err != nil {
			t.Fatal(err)
		}
		number++
	}
	for off := uint64(1); off < 100_000; off += 2 {
		give(stream(off, 1))
	}
	if n := c.in.held.len(); n > maxHoles {
		t.Errorf("%d runs are held", n)
	}
	if n := c.in.seen.n; n > wire.MaxAckRanges {
		t.Errorf("%d runs of numbers are kept", n)
	}
	if len(c.in.ring.b) > 1<<20 {
		t.Errorf("a ring of %d bytes", len(c.in.ring.b))
	}
	// What was dropped is not acknowledged.
	out, ok := c.Next(nil, 0, time.Second)
	var f wire.Inner
	if _, err := wire.NextInner(out, &f); !ok || err != nil || f.Type != wire.InnerAck || f.Ack.Ranges[0].Last >= number-1 {
		t.Errorf("acknowledged: %+v, %v, %v", f.Ack.Ranges[0], ok, err)
	}
	// Packets of one byte, 0 1 1: the odd places hold ones already.
	for off := uint64(0); off < 3000; off++ {
		b := byte(1)
		if off%3 == 0 {
			b = 0
		}
		if off%2 == 1 && b == 0 {
			b = 1 // as it was sent first
		}
		give(stream(off, b))
	}
	if h.packets == 0 {
		t.Error("nothing is delivered any more")
	}
}

// A peer that never acknowledges makes us keep what Config allows, and probe
// ever more slowly.
func TestSilence(t *testing.T) {
	w := newWorld(t, 1)
	p := path{cut: true}
	a, _ := w.pair(Config{SendBuffer: 1 << 20}, &p, &p)
	a.flood(50000, 1<<30)
	a.pump()
	w.run(w.now+10*time.Minute, func() bool { return false })
	s := a.c.Stats()
	if s.Queued > 1<<20 || s.InFlight > 1<<20 || len(a.c.out.b) > 1<<20 || s.Refused == 0 {
		t.Errorf("%+v, %d bytes of memory", s, len(a.c.out.b))
	}
	if n := s.Sent; n < 300 || n > 1000 {
		t.Errorf("%d datagrams into ten minutes of silence", n)
	}
}

// Memory that a burst needed is given back.
func TestMemoryComesBack(t *testing.T) {
	w := newWorld(t, 1)
	p := path{rate: 1e8, delay: 50 * time.Millisecond, loss: 0.02, queue: 10 << 20}
	back := path{delay: 50 * time.Millisecond}
	a, b := w.pair(Config{}, &p, &back)
	a.flood(60000, 16<<20)
	a.pump()
	w.run(w.now+4*time.Second, func() bool { return false })
	if len(a.c.out.b) < 8<<20 || len(b.c.in.ring.b) < 1<<20 {
		t.Fatalf("rings of %d and %d bytes: the burst was none", len(a.c.out.b), len(b.c.in.ring.b))
	}
	a.flood(1000, 2000)
	w.run(w.now+30*time.Second, func() bool { return false })
	if len(a.c.out.b) > smallRing || len(b.c.in.ring.b) > smallRing {
		t.Errorf("rings of %d and %d bytes", len(a.c.out.b), len(b.c.in.ring.b))
	}
	if n := len(a.c.flight.rec); n > keptRecords {
		t.Errorf("%d records", n)
	}
}

func TestSendBounds(t *testing.T) {
	c := New(Config{SendBuffer: 1}, 0) // raised to one packet
	if c.Send(nil) || c.Send(make([]byte, MaxPacket+1)) {
		t.Error("a packet out of bounds is taken")
	}
	if !c.Send(make([]byte, MaxPacket)) {
		t.Error("the largest packet is refused")
	}
	if c.Send([]byte{1}) {
		t.Error("the buffer takes more than its size")
	}
	if n := c.Stats().Refused; n != 3 {
		t.Errorf("%d packets are counted as refused", n)
	}
}

// FuzzReceive gives a Conn plaintexts of any kind, while it sends.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{}, uint16(3))
	f.Add(append([]byte{12, 0}, ack(1<<20, wire.AckRange{First: 0, Last: 2})...), uint16(900))
	f.Add(append([]byte{9, 0}, stream(5, 0, 1, 0, 0, 1, 7)...), uint16(9))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		c := New(Config{MaxMTU: 1500, SendBuffer: 1 << 20, ReceiveBuffer: 1 << 20}, 0)
		var now time.Duration
		number, theirs := uint64(0), uint64(0)
		buffer := make([]byte, 0, 1500)
		packet := make([]byte, 1+int(size))
		h := &counter{}
		for len(b) >= 2 { // length of a plaintext, microseconds before it
			n, wait := int(b[0]), time.Duration(b[1])*time.Duration(b[1])*time.Microsecond
			b = b[2:]
			n = min(n, len(b))
			now += wait
			c.Send(packet[:min(len(packet), MaxPacket)])
			if theirs%3 == 0 {
				c.SendDatagram(packet[:min(len(packet), 300)]) //nolint:errcheck // fits
			}
			err := c.Receive(theirs, b[:n], now, h)
			theirs++
			b = b[n:]
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Fatal(err)
				}
				return
			}
			for i := 0; ; i++ {
				most := c.MTUNow()
				out, ok := c.Next(buffer[:0], number, now)
				if !ok {
					break
				}
				number++
				if len(out) > most || i > 5000 {
					t.Fatalf("datagram %d of %d bytes, at most %d", i, len(out), most)
				}
			}
			c.Deadline()
			if s := c.Stats(); s.InFlight < 0 || s.Queued < 0 || s.Queued > 1<<20 || s.Window < minDatagrams*c.cfg.MTU {
				t.Fatalf("%+v", s)
			}
		}
	})
}

// The sets agree with a map.
func TestSpans(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s spans
		const most = 400
		var have [most]bool
		for range 200 {
			lo := rng.Uint64N(most)
			hi := min(lo+rng.Uint64N(30), most)
			switch rng.IntN(5) {
			case 0, 1, 2:
				if got, want := s.isolated(lo, hi), lo < hi && !slices.Contains(have[max(lo, 1)-1:min(hi+1, most)], true); lo < hi && got != want {
					t.Fatalf("seed %d: isolated(%d, %d) is %v in %v", seed, lo, hi, got, s.s[s.head:])
				}
				s.add(lo, hi)
				for i := lo; i < hi; i++ {
					have[i] = true
				}
			case 3:
				s.remove(lo, hi)
				for i := lo; i < hi; i++ {
					have[i] = false
				}
			case 4:
				if s.len() > 0 && rng.IntN(4) == 0 {
					for i := s.first().lo; i < s.first().hi; i++ {
						have[i] = false
					}
					s.pop()
				}
			}
			var seen [most]bool
			before := uint64(0)
			for i, x := range s.s[s.head:] {
				if x.lo >= x.hi || i > 0 && x.lo <= before {
					t.Fatalf("seed %d: %v", seed, s.s[s.head:])
				}
				before = x.hi
				for j := x.lo; j < x.hi; j++ {
					seen[j] = true
				}
			}
			if seen != have {
				t.Fatalf("seed %d: wrong: %v", seed, s.s[s.head:])
			}
			s.gaps(lo, hi, func(a, b uint64) {
				for ; a < b; a++ {
					if a < lo || a >= hi || seen[a] {
						t.Fatalf("seed %d: %d is no gap", seed, a)
					}
					seen[a] = true
				}
			})
			if lo < hi && slices.Contains(seen[lo:hi], false) {
				t.Fatalf("seed %d: gaps from %d to %d are missing", seed, lo, hi)
			}
		}
	}
}

func TestNumbers(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var s numbers
		have := map[uint64]bool{}
		for range 1000 {
			x := rng.Uint64N(150)
			if s.has(x) != have[x] {
				t.Fatalf("seed %d: has(%d) is %v", seed, x, s.has(x))
			}
			if s.add(x) == have[x] {
				t.Fatalf("seed %d: add(%d) says that it is new: %v", seed, x, !have[x])
			}
			have[x] = true
			if s.n == wire.MaxAckRanges { // the lowest are forgotten
				for v := range have {
					if v < s.r[0].First {
						delete(have, v)
					}
				}
			}
			for i := 1; i < s.n; i++ {
				if s.r[i].First <= s.r[i-1].Last+1 || s.r[i].Last < s.r[i].First {
					t.Fatalf("seed %d: %v", seed, s.r[:s.n])
				}
			}
		}
	}
}

func TestRing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var r ring
	var want []byte // from lo on
	lo := uint64(1 << 40)
	r.base = lo
	for range 400 {
		p := make([]byte, rng.IntN(70000))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		hi := lo + uint64(len(want))
		r.fit(lo, hi+uint64(len(p)))
		r.write(hi, p)
		want = append(want, p...)
		if n := rng.IntN(len(want) + 1); rng.IntN(3) > 0 {
			want, lo = want[n:], lo+uint64(n)
		}
		if rng.IntN(10) == 0 {
			shrink(&r, lo, lo+uint64(len(want)), uint64(len(want)))
		}
		if got := r.append(nil, lo, len(want)); !slices.Equal(got, want) {
			t.Fatal("other bytes come back")
		}
	}
}

// loop is two Conns whose datagrams arrive at once, in order.
type loop struct {
	a, b   *Conn
	ha, hb counter
	na, nb uint64
	buf    []byte
	now    time.Duration
}

func newLoop(cfg Config) *loop {
	return &loop{a: New(cfg, 0), b: New(cfg, 0), buf: make([]byte, 0, MaxMTU)}
}

// turn lets all go that may, in batches of 64 datagrams each way, and returns
// how many that were.
func (l *loop) turn(t testing.TB) (n int) {
	half := func(from, to *Conn, number *uint64, h Handler) {
		l.now += 10 * time.Microsecond
		for range 64 {
			out, ok := from.Next(l.buf[:0], *number, l.now)
			if !ok {
				return
			}
			if err := to.Receive(*number, out, l.now, h); err != nil {
				t.Fatal(err)
			}
			*number++
			n++
		}
	}
	half(l.a, l.b, &l.na, &l.hb)
	half(l.b, l.a, &l.nb, &l.ha)
	return n
}

func TestNoAllocation(t *testing.T) {
	l := newLoop(Config{})
	packet := make([]byte, 60000)
	small := make([]byte, 100)
	work := func() {
		l.a.Send(packet)
		l.b.Send(small)
		if err := l.a.SendDatagram(small); err != nil {
			t.Fatal(err)
		}
		l.turn(t)
	}
	for range 5000 {
		work()
	}
	got := l.hb.bytes
	if n := testing.AllocsPerRun(2000, work); n > 0 {
		t.Errorf("%v allocations for a packet", n)
	}
	if l.hb.bytes-got < 2000*50000 {
		t.Errorf("only %d bytes went", l.hb.bytes-got)
	}
}

func BenchmarkPacket(b *testing.B) {
	for _, size := range []int{100, 1400, 60000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := newLoop(Config{MaxMTU: 1420})
			packet := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			datagrams := 0
			for range b.N {
				for !l.a.Send(packet) {
					datagrams += l.turn(b)
				}
				if l.a.Stats().Queued > 400<<10 {
					datagrams += l.turn(b)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(max(datagrams, 1)), "ns/datagram")
		})
	}
}

func BenchmarkDatagram(b *testing.B) {
	l := newLoop(Config{MaxMTU: 1420})
	data := binary.BigEndian.AppendUint64(nil, 1)
	data = append(data, make([]byte, 1000)...)
	b.ReportAllocs()
	for i := range b.N {
		if err := l.a.SendDatagram(data); err != nil {
			b.Fatal(err)
		}
		if i%40 == 39 {
			l.turn(b)
		}
	}
}
