//go:build !linux

package netio

import (
	"net"
	"time"
)

// Watch implements Watched by looking each 2 s.
func (system) Watch() (Watcher, error) { return newPoller(pollEvery), nil }

// started is a reading of both clocks.
var started = time.Now()

// asleep returns how long the machine has slept since the program began, as far as
// the clock on the wall tells: it goes on while the other one sleeps, and it may be
// set.
func asleep() time.Duration {
	now := time.Now()
	return now.Round(0).Sub(started.Round(0)) - now.Sub(started)
}

// quiet reports what the system knows of a connection: nothing.
func quiet(net.Conn) (time.Duration, bool) { return 0, false }
