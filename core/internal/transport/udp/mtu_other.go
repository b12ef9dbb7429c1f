//go:build !linux && !darwin && !freebsd && !windows

package udp

import "syscall"

// dontFragment does nothing: the system has no such option for both families.
func dontFragment(syscall.RawConn) {}
