package udp

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkLoopback sends datagrams of 1,400 bytes from one socket to another,
// 45 to a run where there are runs, and counts those that arrive.
func BenchmarkLoopback(b *testing.B) {
	for _, w := range ways {
		b.Run(w.name, func(b *testing.B) {
			const size, segments, window = 1400, 45, 1 << 20
			from, to := open(b, "127.0.0.1:0"), open(b, "127.0.0.1:0")
			w.set(b, from)
			w.set(b, to)
			mustNotFail(b, to.socket.SetReadDeadline(time.Time{}))
			var read atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				ps := buffers(16)
				for {
					n, err := to.ReadBatch(ps)
					if err != nil {
						return
					}
					total := 0
					for _, p := range ps[:n] {
						total += p.N
					}
					read.Add(int64(total))
				}
			}()
			sent := []Packets{run(to.LocalAddr(), size, noise(size*segments))}
			b.SetBytes(size)
			b.ReportAllocs()
			b.ResetTimer()
			total := int64(0)
			for left := b.N; left > 0; left -= segments {
				sent[0].N = size * min(left, segments)
				mustNotFail(b, from.WriteBatch(sent))
				total += int64(sent[0].N)
				for total-read.Load() > window {
					runtime.Gosched()
				}
			}
			for read.Load() < total {
				runtime.Gosched()
			}
			b.StopTimer()
			to.Close()
			<-done
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
		})
	}
}
