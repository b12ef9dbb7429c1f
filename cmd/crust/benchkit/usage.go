package benchkit

import (
	"runtime"
	"runtime/debug"
	"time"
)

// usage is what a process has used.
type usage struct {
	Heap    uint64        `json:"heap"`  // bytes of live objects, when collected
	Stack   uint64        `json:"stack"` // bytes of goroutine stacks
	RSS     uint64        `json:"rss"`   // bytes of resident memory; zero when the system does not tell
	Mallocs uint64        `json:"mallocs"`
	CPU     time.Duration `json:"cpu"` // user and system
}

// detail says how closely to look at a process, since looking takes time itself.
type detail string

const (
	detailTime   detail = "time"   // CPU only
	detailCounts detail = "counts" // everything, as it is
	// detailLive collects garbage first, so that Heap and RSS hold little but
	// what is reachable.
	detailLive detail = "live"
)

// takeUsage reads the counters of this process.
func takeUsage(how detail) (usage, error) {
	if how == detailLive {
		// This collects twice, which empties pools, and gives freed memory back to
		// the system.
		runtime.GC()
		debug.FreeOSMemory()
	}
	cpu, err := processTime()
	if err != nil || how == detailTime {
		return usage{CPU: cpu}, err
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	rss, err := residentBytes()
	return usage{Heap: memory.HeapAlloc, Stack: memory.StackInuse, RSS: rss, Mallocs: memory.Mallocs, CPU: cpu}, err
}
