//go:build linux

package soak

import (
	"fmt"
	"testing"
	"time"
)

// TestScript: a script follows from its seed alone, has every kind of fault, and leaves
// each node alone between two of them.
func TestScript(t *testing.T) {
	p := plan{seed: 7, nodes: 10, chaos: 75 * time.Second, every: 2 * time.Second}
	s := p.write()
	if a, b := fmt.Sprint(s), fmt.Sprint(p.write()); a != b {
		t.Fatalf("one seed gives two scripts:\n%s\n%s", a, b)
	}
	other := p
	other.seed++
	if fmt.Sprint(s) == fmt.Sprint(other.write()) {
		t.Fatal("two seeds give one script")
	}
	for seed := range uint64(200) {
		p.seed = seed
		seen, end := map[kind]bool{}, map[int]time.Duration{}
		for _, f := range p.write().faults {
			seen[f.kind] = true
			if f.at < end[f.node] {
				t.Fatalf("seed %d: %v begins before node %d has had its calm", seed, f, f.node)
			}
			if end[f.node] = f.at + f.span + calm; f.at+f.span > p.chaos {
				t.Fatalf("seed %d: %v does not end in time", seed, f)
			}
			if f.kind.deadly() && f.kind != killed && f.kind != left && f.span <= promise || !f.kind.deadly() && f.span >= promise/2 {
				t.Fatalf("seed %d: %v lasts %v, and the promise is %v", seed, f, f.span, promise)
			}
		}
		for _, k := range kinds {
			if !seen[k] {
				t.Errorf("seed %d: the script has no %s", seed, k)
			}
		}
	}
}
