//go:build crusttest

package main

// #cgo CFLAGS: -DCRUST_TEST=1
// #include "shim_internal.h"
import "C"

import (
	"runtime"
	"sync/atomic"
)

// The functions here are for tests/abi and are in no released library.

// armed is the handle of the service whose dispatcher is to panic next.
var armed atomic.Uint64

// injectFault makes the dispatcher of the armed service panic.
func injectFault(s *service) {
	if armed.CompareAndSwap(s.handle, 0) {
		panic("injected into the dispatcher")
	}
}

//export goCrustTestPanic
func goCrustTestPanic(h C.uint64_t, why *C.char) (rc C.int32_t) {
	defer guard(h, why, &rc)
	if _, err := anyState("crust__test_panic", h); err != nil {
		return result(why, err)
	}
	var nothing []int
	return C.int32_t(nothing[h>>60])
}

//export goCrustTestPanicDispatch
func goCrustTestPanicDispatch(h C.uint64_t) { armed.Store(uint64(h)) }

//export goCrustTestCounter
func goCrustTestCounter(what C.int32_t) C.int64_t {
	switch what {
	case 0:
		return C.int64_t(services.count())
	case 1:
		return C.int64_t(configs.count())
	case 2:
		return C.crust__batches_live()
	case 3:
		return C.crust__batch_bytes_cached()
	case 4:
		return C.int64_t(runtime.NumGoroutine())
	}
	return -1
}
