//go:build !linux

package portmap

import (
	"net"
	"net/netip"
)

// joinGroup opens a socket that hears a multicast group on one interface.
func joinGroup(i *net.Interface, group netip.AddrPort) (net.PacketConn, error) {
	network := "udp4"
	if group.Addr().Is6() {
		network = "udp6"
	}
	return net.ListenMulticastUDP(network, i, net.UDPAddrFromAddrPort(group))
}
