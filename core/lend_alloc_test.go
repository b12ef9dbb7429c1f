//go:build !race

package crust_test

import (
	"runtime"
	"testing"

	crust "github.com/libcrust/libcrust/core"
)

// TestLentAllocations: a round trip between two programs that read by themselves
// costs less than one allocation, whatever else the machine does.
func TestLentAllocations(t *testing.T) {
	for _, transport := range []crust.Transport{crust.TCP, crust.UTP} {
		t.Run(transport.String(), func(t *testing.T) { lentAllocations(t, transport) })
	}
}

func lentAllocations(t *testing.T, transport crust.Transport) {
	const warm, count = 2000, 20_000
	cfg := over(crust.Config{}, "127.0.0.1", transport.String())
	a, b := newNode(t, cfg), newNode(t, cfg)
	linkOver(t, a, b, transport)
	go echo(t.Context(), b)
	trip := func(n int) {
		for range n {
			roundTrip(t, a, b.ID())
		}
	}
	trip(warm)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	trip(count)
	runtime.ReadMemStats(&after)
	if per := float64(after.Mallocs-before.Mallocs) / count; per >= 1 {
		t.Fatalf("%.3f allocations a round trip", per)
	} else {
		t.Logf("%.4f allocations a round trip", per)
	}
}
