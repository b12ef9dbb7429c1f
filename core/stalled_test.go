package crust_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// fan has one service send count messages of a size to each of its peers at once,
// of which the first does not take any when stalled, and returns how long it took
// until the others had all.
func fan(t testing.TB, hub *node, peers []*node, stalled bool, count, size int) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var all, readers sync.WaitGroup
	began := time.Now()
	for i, p := range peers {
		idle := stalled && i == 0
		all.Go(func() {
			for k := range uint64(count) {
				if err := hub.SendWait(ctx, p.ID(), filled(size, k), 1); err != nil {
					if !idle {
						t.Error(err)
					}
					return
				}
			}
		})
		if idle {
			continue
		}
		readers.Go(func() {
			for got := 0; got < count; {
				batch, err := p.NextBatch(ctx, 0)
				if err != nil {
					t.Error(err)
					return
				}
				got += len(batch.Events)
				batch.Release()
			}
		})
	}
	readers.Wait()
	took := time.Since(began)
	cancel()
	all.Wait()
	return took
}

// TestStalledReader: of 64 peers over uTP that all get much at once, one whose
// program takes nothing slows the others by less than a twentieth.
func TestStalledReader(t *testing.T) {
	const peers, size = 64, 20_000
	count := slowly(200)
	var took [2]time.Duration
	for i, stalled := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			internet.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 1 << 20})
			cfg := over(crust.Config{EventQueue: 100_000}, "0.0.0.0", "utp")
			hub := newNode(t, crust.On(internet.Host("10.0.0.1"), cfg))
			defer hub.Close()
			var all []*node
			for k := range peers {
				p := newNode(t, crust.On(internet.Host(fmt.Sprint("10.0.1.", k+1)), cfg))
				defer p.Close()
				link(t, hub, p)
				all = append(all, p)
			}
			took[i] = fan(t, hub, all, stalled, count, size)
		})
	}
	t.Logf("%d messages of %d bytes to each peer took %v, and %v with one that stalled", count, size, took[0], took[1])
	if took[1] > took[0]+took[0]/20 {
		t.Errorf("%v without and %v with a stalled reader", took[0], took[1])
	}
}

// BenchmarkStalledReader is the same through the kernel, where all share two
// processors: compare its two figures.
func BenchmarkStalledReader(b *testing.B) {
	const peers, count, size = 64, 400, 20_000
	for name, stalled := range map[string]bool{"none": false, "one": true} {
		b.Run(name, func(b *testing.B) {
			cfg := over(crust.Config{}, "127.0.0.1", "utp")
			hub := newNode(b, cfg)
			var all []*node
			for range peers {
				p := newNode(b, cfg)
				link(b, hub, p)
				all = append(all, p)
			}
			b.ResetTimer()
			var took time.Duration
			for range b.N {
				took += fan(b, hub, all, stalled, count, size)
				if stalled {
					b.StopTimer()
					drain(all[0])
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(b.N*(peers-1)*count*size)/took.Seconds()/1e6, "MB/s")
		})
	}
}

// drain takes what waits for a node.
func drain(n *node) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		batch, err := n.NextBatch(ctx, 0)
		cancel()
		if err != nil {
			return
		}
		batch.Release()
	}
}
