package benchkit

import (
	"fmt"
	"syscall"
	"time"
)

// processTime returns the processor time of this process, user and system.
func processTime() (time.Duration, error) {
	process, err := syscall.GetCurrentProcess()
	if err != nil {
		return 0, fmt.Errorf("read the process's times: %w", err)
	}
	var created, exited, kernel, user syscall.Filetime
	if err := syscall.GetProcessTimes(process, &created, &exited, &kernel, &user); err != nil {
		return 0, fmt.Errorf("read the process's times: %w", err)
	}
	// A Filetime that is a duration counts 100 ns.
	ticks := func(t syscall.Filetime) int64 { return int64(t.HighDateTime)<<32 | int64(t.LowDateTime) }
	return time.Duration(ticks(kernel)+ticks(user)) * 100, nil
}

// residentBytes returns zero: not known on this system.
func residentBytes() (uint64, error) { return 0, nil }
