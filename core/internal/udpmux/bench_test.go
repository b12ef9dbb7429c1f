package udpmux

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
)

const local = "127.0.0.1"

// loopback joins two nodes over the kernel's loopback.
func loopback(t testing.TB) (x, y *end) {
	a, b := newNode(t, netio.System, local+":0", nil), newNode(t, netio.System, local+":0", nil)
	return a.join(t, b, b.LocalAddr())
}

// BenchmarkPackets is bulk by packets of 60,000 bytes.
func BenchmarkPackets(b *testing.B) {
	x, y := loopback(b)
	var count atomic.Int64
	done := make(chan struct{})
	target := int64(b.N)
	y.SetHandlers(Handlers{Packet: func([]byte) {
		if count.Add(1) == target {
			close(done)
		}
	}})
	p := make([]byte, 60000)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for !x.SendPacket(p) {
			<-x.ready
		}
	}
	<-done
	b.StopTimer()
	s := x.Stats()
	b.ReportMetric(float64(s.Sent)/float64(b.N), "datagrams/op")
	b.ReportMetric(float64(s.Lost)/float64(s.Sent), "lost")
	b.ReportMetric(float64(s.MTU), "mtu")
}

// BenchmarkMany is bulk over 64 associations of the same two sockets at once.
func BenchmarkMany(b *testing.B) {
	x, y := newNode(b, netio.System, local+":0", nil), newNode(b, netio.System, local+":0", nil)
	const peers = 64
	var count atomic.Int64
	done := make(chan struct{})
	total := int64(b.N) * peers
	var ends []*end
	for range peers {
		from, to := x.join(b, y, y.LocalAddr())
		to.SetHandlers(Handlers{Packet: func([]byte) {
			if count.Add(1) == total {
				close(done)
			}
		}})
		ends = append(ends, from)
	}
	p := make([]byte, 60000)
	b.SetBytes(int64(len(p)) * peers)
	b.ResetTimer()
	for _, e := range ends {
		go func() {
			for range b.N {
				for !e.SendPacket(p) {
					<-e.ready
				}
			}
		}()
	}
	<-done
	b.StopTimer()
	lost, sent := uint64(0), uint64(0)
	for _, e := range ends {
		s := e.Stats()
		lost, sent = lost+s.Lost, sent+s.Sent
	}
	b.ReportMetric(float64(lost)/float64(sent), "lost")
}

// BenchmarkPing is the round trip of one small packet.
func BenchmarkPing(b *testing.B) {
	x, y := loopback(b)
	back := make(chan struct{}, 1)
	y.SetHandlers(Handlers{Packet: func(p []byte) { y.SendPacket(p) }})
	x.SetHandlers(Handlers{Packet: func(p []byte) { back <- struct{}{} }})
	p := make([]byte, 64)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		x.SendPacket(p)
		<-back
	}
}

// BenchmarkDial is one handshake after another, with the first packet there and
// back.
func BenchmarkDial(b *testing.B) {
	x, y := newNode(b, netio.System, local+":0", nil), newNode(b, netio.System, local+":0", func(c *Config) {
		c.Accept = func(a *Assoc) { a.SetHandlers(Handlers{Packet: func(p []byte) { a.SendPacket(p) }}) }
	})
	for range b.N {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		a, err := x.Dial(ctx, y.LocalAddr(), y.id)
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		back := make(chan struct{})
		a.SetHandlers(Handlers{Packet: func([]byte) { close(back) }})
		if err := a.Commit(); err != nil {
			b.Fatal(err)
		}
		a.SendPacket([]byte("hello"))
		<-back
		a.Close(0)
	}
}

// sizes of datagrams, as the program sees them.
var sizes = []int{64, 1100}

// BenchmarkDatagrams is a flood of unreliable datagrams: how many arrive.
func BenchmarkDatagrams(b *testing.B) {
	for _, size := range sizes {
		b.Run(byteCount(size), func(b *testing.B) {
			x, y := loopback(b)
			var count atomic.Int64
			news := make(chan struct{}, 1)
			y.SetHandlers(Handlers{Datagram: func([]byte) {
				if count.Add(1)%16 == 0 {
					pulse(news)
				}
			}})
			p := make([]byte, size)
			most := int64(200 << 10 / (size + 2))
			patience := time.NewTimer(time.Minute)
			b.ReportAllocs()
			b.ResetTimer()
			start := time.Now()
			for i := range b.N {
				// A program that wants them to arrive does not have more under way
				// than wait for free.
				for i%16 == 0 && int64(i)-count.Load() > most {
					patience.Reset(10 * time.Millisecond)
					select {
					case <-news:
					case <-patience.C:
						most += int64(i) - count.Load() // these are lost
					}
				}
				if err := x.SendDatagram(p); err != nil {
					b.Fatal(err)
				}
			}
			settle(&count, int64(b.N))
			took := time.Since(start)
			b.StopTimer()
			b.ReportMetric(float64(count.Load())/took.Seconds(), "arrived/s")
			b.ReportMetric(float64(count.Load())/float64(b.N), "arrived/sent")
		})
	}
}

// settle waits until count has reached n or no longer grows.
func settle(count *atomic.Int64, n int64) {
	for last := int64(-1); count.Load() < n && last != count.Load(); {
		last = count.Load()
		<-time.After(20 * time.Millisecond)
	}
}

func byteCount(n int) string {
	if n < 1000 {
		return "64B"
	}
	return "1100B"
}

// BenchmarkRaw is the same by bare sockets: datagram by datagram in batches of
// 64, and in runs that the kernel cuts.
func BenchmarkRaw(b *testing.B) {
	for _, segments := range []int{1, 64} {
		for _, size := range sizes {
			name := "batches/"
			if segments > 1 {
				name = "runs/"
			}
			b.Run(name+byteCount(size), func(b *testing.B) { raw(b, segments, size) })
		}
	}
}

func raw(b *testing.B, segments, size int) {
	ctx := context.Background()
	from, err := netio.System.ListenPacket(ctx, netip.MustParseAddrPort(local+":0"))
	if err != nil {
		b.Fatal(err)
	}
	to, err := netio.System.ListenPacket(ctx, netip.MustParseAddrPort(local+":0"))
	if err != nil {
		b.Fatal(err)
	}
	var count atomic.Int64
	ended, news := make(chan struct{}), make(chan struct{}, 1)
	patience, most := time.NewTimer(time.Minute), int64(2048)
	go func() {
		defer close(ended)
		ps := make([]netio.Packets, 64)
		for i := range ps {
			ps[i].Buf = make([]byte, netio.ReadSize)
		}
		for {
			n, err := to.ReadBatch(ps)
			if err != nil {
				return
			}
			for _, p := range ps[:n] {
				count.Add(int64((p.N + size - 1) / size))
			}
			pulse(news)
		}
	}()
	segments = min(segments, netio.MaxRun/size)
	batch := make([]netio.Packets, max(1, 64/segments))
	buf := make([]byte, segments*size)
	for i := range batch {
		batch[i] = netio.Packets{Buf: buf, N: len(buf), Segment: size, Addr: to.LocalAddr()}
	}
	each := segments * len(batch)
	b.ResetTimer()
	start := time.Now()
	for i := 0; i < b.N; i += each {
		for int64(i)-count.Load() > most {
			patience.Reset(10 * time.Millisecond)
			select {
			case <-news:
			case <-patience.C:
				most += int64(i) - count.Load() // these are lost
			}
		}
		if err := from.WriteBatch(batch); err != nil {
			b.Fatal(err)
		}
	}
	settle(&count, int64(b.N))
	took := time.Since(start)
	b.StopTimer()
	b.ReportMetric(float64(count.Load())/took.Seconds(), "arrived/s")
	from.Close()
	to.Close()
	<-ended
}

// BenchmarkStranger is what the reader does about one datagram of 1,000 bytes
// that belongs to nobody: random bytes; flights of the network that nobody waits
// for; sealed datagrams that came before.
func BenchmarkStranger(b *testing.B) {
	x, y := loopback(b)
	y.mux.cfg.Stray = nil
	r := &reader{mux: y.mux, now: y.mux.now(), bucket: bucket{left: flightBurst}}
	var many [][]byte
	for i := range 64 {
		many = append(many, junk(1000+i))
	}
	x.Assoc.mu.Lock()
	replayed, _ := x.link.Box.Seal(nil, make([]byte, 968))
	x.Assoc.mu.Unlock()
	for name, d := range map[string][][]byte{"junk": many, "offer": offers(b, 64), "replayed": {replayed}} {
		b.Run(name, func(b *testing.B) {
			p := netio.Packets{Buf: make([]byte, secure.FlightSize), Addr: x.LocalAddr()}
			b.ReportAllocs()
			for i := range b.N {
				p.N = copy(p.Buf, d[i%len(d)])
				p.Segment = p.N
				r.now += 20 * time.Microsecond // 50,000 a second
				r.run(&p)
			}
		})
	}
}

// BenchmarkFlood is bulk while an attacker sends 50,000 datagrams a second to the
// receiver, beside the same without.
func BenchmarkFlood(b *testing.B) {
	flood := map[string][][]byte{"none": nil, "junk": {junk(1000)}, "offers": offers(b, 256)}
	for _, name := range []string{"none", "junk", "offers"} {
		b.Run(name, func(b *testing.B) {
			x, y := loopback(b)
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				if d := flood[name]; d != nil {
					flooder(b, y.LocalAddr(), d, 50000, stop)
				}
			}()
			var count atomic.Int64
			done := make(chan struct{})
			y.SetHandlers(Handlers{Packet: func([]byte) {
				if count.Add(1) == int64(b.N) {
					close(done)
				}
			}})
			p := make([]byte, 60000)
			b.SetBytes(int64(len(p)))
			b.ResetTimer()
			for range b.N {
				for !x.SendPacket(p) {
					<-x.ready
				}
			}
			<-done
			b.StopTimer()
			close(stop)
			<-stopped
		})
	}
}
