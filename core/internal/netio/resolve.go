package netio

import (
	"context"
	"net/netip"
)

// Resolver looks names up. A Network may implement it.
type Resolver interface {
	// Resolve returns the addresses of a host, those of IPv4 unmapped. It waits until ctx
	// ends. An error says which name could not be looked up.
	Resolve(ctx context.Context, host string) ([]netip.Addr, error)
}
