//go:build !unix && !windows

package netio

import (
	"errors"
	"net/netip"
)

// sharePort does nothing: the port is shared with nobody.
func sharePort(uintptr) error { return nil }

// joinGroup is not known here.
func joinGroup(uintptr, netip.Addr, int) error { return errors.ErrUnsupported }
