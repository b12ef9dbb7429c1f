//go:build !linux

package main

import (
	"errors"
	"net/netip"
	"time"
)

// systemClock: how the system holds its clock is not known here.
func systemClock() (synchronized bool, most time.Duration, ok bool) { return false, 0, false }

// pathMTU is not measured here.
func pathMTU(netip.AddrPort) (mtu int, confirmed bool, err error) {
	return 0, false, errors.ErrUnsupported
}
