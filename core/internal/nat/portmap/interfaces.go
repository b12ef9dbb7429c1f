package portmap

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Interface is an address of this machine and the router behind it.
type Interface struct {
	// Name and Index are the system's.
	Name  string
	Index int
	// Prefix is the address with the length of its subnet. IPv4, or a global IPv6
	// address.
	Prefix netip.Prefix
	// Gateway is the router: of IPv6 the link-local address, with its zone. The
	// zero Addr means that it is not known: then only UPnP is tried, and any
	// device on the subnet is taken for it.
	Gateway netip.Addr
	// Bound means that another address of the interface is there for who does not
	// care: this one is for wants that name it.
	Bound bool
}

// Serves reports whether the router behind the interface is asked for a port.
func (i Interface) Serves(w Want) bool {
	local, family := i.Prefix.Addr(), IPv4
	if local.Is6() {
		family = IPv6
	}
	switch {
	case w.Family != AnyFamily && w.Family != family:
		return false
	case w.Addr.IsValid():
		return w.Addr == local
	}
	return !i.Bound
}

// Interfaces returns the addresses of this machine behind which a router may be
// asked. On Linux those are the addresses of interfaces with a default route over
// a router. Elsewhere, and where the routes may not be read, they are the private
// IPv4 addresses, without their routers. Loopback and point-to-point interfaces
// are left out, and so is an interface whose addresses cannot be listed. Each gives
// one address of either family at most, and those of bound that it has. Errors are
// the system's.
func Interfaces(bound []netip.Addr) ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	gateways, known := defaultRoutes()
	var found []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&(net.FlagLoopback|net.FlagPointToPoint) != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		var four, six Interface
		var named []Interface
		for _, addr := range addrs {
			n, ok := addr.(*net.IPNet)
			if !ok {
				continue
			}
			a, _ := netip.AddrFromSlice(n.IP)
			bits, size := n.Mask.Size()
			if a = a.Unmap(); a.Is4() && size == 128 {
				bits -= 96
			}
			gateway, ok := gateways[route{i.Name, a.Is6()}]
			if !mappable(a) || !ok && (known || !a.Is4() || !a.IsPrivate()) {
				continue
			}
			if gateway.IsLinkLocalUnicast() && gateway.Is6() {
				gateway = gateway.WithZone(i.Name)
			}
			// One address is enough for a router to pass a port on: of IPv4 that in
			// the router's subnet, of IPv6 the newest, which is what others see.
			one := Interface{Name: i.Name, Index: i.Index, Prefix: netip.PrefixFrom(a, bits), Gateway: gateway}
			if slices.Contains(bound, a) {
				named = append(named, one)
			}
			switch {
			case a.Is6() && !six.Prefix.IsValid():
				six = one
			case a.Is4() && (!four.Prefix.IsValid() || !four.Prefix.Contains(gateway) && one.Prefix.Contains(gateway)):
				four = one
			}
		}
		for _, one := range []Interface{four, six} {
			if one.Prefix.IsValid() {
				found = append(found, one)
			}
		}
		for _, one := range named {
			if one.Bound = true; one.Prefix != four.Prefix && one.Prefix != six.Prefix {
				found = append(found, one)
			}
		}
	}
	return found, nil
}

// mappable reports whether an address can be behind a router that maps: IPv4, or
// IPv6 that is neither link-local nor unique-local.
func mappable(a netip.Addr) bool {
	return a.IsValid() && a.IsGlobalUnicast() && (a.Is4() || !a.IsPrivate())
}

// route names the default route of one interface and family.
type route struct {
	name string
	six  bool
}

// parseRoutes4 finds the routers of default routes in the text of
// /proc/net/route, the one of the lowest metric for each interface. Lines that it
// does not understand are skipped.
func parseRoutes4(text string, into map[route]netip.Addr) {
	metrics := map[string]uint64{}
	for line := range strings.Lines(text) {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask ...
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		raw, err := hex.DecodeString(f[2])
		flags, err2 := strconv.ParseUint(f[3], 16, 32)
		metric, err3 := strconv.ParseUint(f[6], 10, 32)
		if err != nil || err2 != nil || err3 != nil || len(raw) != 4 || flags&routeGateway == 0 {
			continue
		}
		if before, ok := metrics[f[0]]; ok && before <= metric {
			continue
		}
		// The kernel prints the address as a number of the machine's byte order.
		gateway := netip.AddrFrom4([4]byte(nativeOrder(raw)))
		if mappable(gateway) {
			metrics[f[0]] = metric
			into[route{f[0], false}] = gateway
		}
	}
}

// routeGateway is RTF_GATEWAY: the route goes over a router.
const routeGateway = 2

// parseRoutes6 does the same for /proc/net/ipv6_route.
func parseRoutes6(text string, into map[route]netip.Addr) {
	metrics := map[string]uint64{}
	for line := range strings.Lines(text) {
		// destination length source length next-hop metric refcnt use flags name
		f := strings.Fields(line)
		if len(f) < 10 || f[1] != "00" || f[3] != "00" || strings.Trim(f[0], "0") != "" {
			continue
		}
		raw, err := hex.DecodeString(f[4])
		metric, err2 := strconv.ParseUint(f[5], 16, 32)
		flags, err3 := strconv.ParseUint(f[8], 16, 32)
		if err != nil || err2 != nil || err3 != nil || len(raw) != 16 || flags&routeGateway == 0 {
			continue
		}
		if before, ok := metrics[f[9]]; ok && before <= metric {
			continue
		}
		gateway := netip.AddrFrom16([16]byte(raw))
		if gateway.IsLinkLocalUnicast() || mappable(gateway) {
			metrics[f[9]] = metric
			into[route{f[9], true}] = gateway
		}
	}
}
