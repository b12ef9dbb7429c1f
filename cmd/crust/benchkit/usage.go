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

// takeUsage reads the counters. With collect, it collects garbage first, so that
// Heap and RSS hold little but what is reachable. Pools need two collections to
// be emptied, and freed memory is given back to the system.
func takeUsage(collect bool) (usage, error) {
	if collect {
		runtime.GC()
		debug.FreeOSMemory()
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	cpu, err := processTime()
	if err != nil {
		return usage{}, err
	}
	rss, err := residentBytes()
	return usage{Heap: memory.HeapAlloc, Stack: memory.StackInuse, RSS: rss, Mallocs: memory.Mallocs, CPU: cpu}, err
}
