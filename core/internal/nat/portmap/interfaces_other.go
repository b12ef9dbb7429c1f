//go:build !linux

package portmap

import "net/netip"

// defaultRoutes knows nothing here.
func defaultRoutes() (map[route]netip.Addr, bool) { return nil, false }

func nativeOrder(number []byte) []byte { return number }
