//go:build crustcover

package main

// #cgo CFLAGS: -DCRUST_COVER=1
// #include "shim_internal.h"
import "C"

import (
	"os"
	"runtime/coverage"
)

// goCrustCoverFlush writes the coverage counters to $GOCOVERDIR. shim.c calls it
// when the program exits, because the Go runtime does so only in programs of its
// own.
//
//export goCrustCoverFlush
func goCrustCoverFlush() {
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		_ = coverage.WriteMetaDir(dir)
		_ = coverage.WriteCountersDir(dir)
	}
}
