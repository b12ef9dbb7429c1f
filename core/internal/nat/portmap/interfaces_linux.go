package portmap

import (
	"encoding/binary"
	"net/netip"
	"os"
)

// defaultRoutes reads the routers of the default routes. false means that they
// may not be read.
func defaultRoutes() (map[route]netip.Addr, bool) {
	routes := map[route]netip.Addr{}
	// Of this thread: another may be in another network namespace.
	text, err := os.ReadFile("/proc/thread-self/net/route")
	if err != nil {
		return nil, false
	}
	parseRoutes4(string(text), routes)
	if text, err = os.ReadFile("/proc/thread-self/net/ipv6_route"); err == nil {
		parseRoutes6(string(text), routes)
	}
	return routes, true
}

// nativeOrder turns the bytes of a number, most significant first, into memory's order.
func nativeOrder(number []byte) []byte {
	out := make([]byte, 4)
	binary.NativeEndian.PutUint32(out, binary.BigEndian.Uint32(number))
	return out
}
