// Command capi is the C face of libcrust: built with -buildmode=c-shared or
// c-archive it gives the functions of include/crust.h. capi/build-lib.sh builds
// it and knows the flags.
//
// shim.c holds the public functions and calls the goCrust functions here. Each
// of those is small: it finds the service behind a handle, turns C arguments
// into Go ones, calls package crust, and turns the error into a code and a text.
// A panic on the way becomes CRUST_ERR_PANICKED and closes the service.
//
// Memory crosses in one direction only: Go reads and writes memory of C during
// a call, C never sees memory of Go.
package main

/*
#cgo CFLAGS: -I${SRCDIR}/../include -DCRUST_BUILDING=1 -std=gnu11 -Wall -Wextra -Wno-unused-parameter -fvisibility=hidden
#cgo LDFLAGS: -lpthread
*/
import "C"

func main() {}
