package netio

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/transport/tcp"
	"github.com/libcrust/libcrust/core/internal/transport/udp"
)

// System is the kernel's network. Its connections are *tcp.Conn: on Unix they
// are TryWriters and LazyReaders. Its sockets for datagrams are *udp.Conn.
var System Network = system{}

type system struct{}

func (system) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	l, err := tcp.Listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (system) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	c, err := tcp.Dial(ctx, local, remote)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (system) ListenPacket(ctx context.Context, addr netip.AddrPort) (PacketConn, error) {
	c, err := udp.Listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (system) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

func (system) Addrs() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network interfaces: %w", err)
	}
	var found []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("cannot list the addresses of %s: %w", i.Name, err)
		}
		for _, addr := range addrs {
			if prefix, ok := addr.(*net.IPNet); ok {
				a, _ := netip.AddrFromSlice(prefix.IP) // the zero Addr is not usable
				found = append(found, a)
			}
		}
	}
	return Usable(found), nil
}

// Usable picks of a machine's addresses what Network.Addrs promises and puts it
// in that order. It keeps the slice's memory. It is for implementations of
// Network.
func Usable(addrs []netip.Addr) []netip.Addr {
	out := addrs[:0]
	for _, a := range addrs {
		a = a.Unmap()
		if scope(a) != endpoint.Unusable && (a.Is4() || !a.IsLinkLocalUnicast()) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(scope(b), scope(a)), a.Compare(b))
	})
	return slices.Compact(out)
}

func scope(a netip.Addr) endpoint.Scope {
	return endpoint.New(endpoint.TCP, netip.AddrPortFrom(a, 0)).Scope()
}
