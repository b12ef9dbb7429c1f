//go:build linux

package main

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/libcrust/libcrust/tests/scale"
)

// manyConnections is over what is measured, so that the connection manager closes none.
const manyConnections = 20_000

// libp2pStack is go-libp2p's defaults, but for one transport, one security, no metrics,
// and limits that so many connections from one address do not reach.
type libp2pStack struct{}

func (libp2pStack) Name() string { return "libp2p" }

func (libp2pStack) host(addresses libp2p.Option) (host.Host, error) {
	manager, err := connmgr.NewConnManager(manyConnections/2, manyConnections)
	if err != nil {
		return nil, err
	}
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, err
	}
	return libp2p.New(libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(noise.ID, noise.New), addresses,
		libp2p.ConnectionManager(manager), libp2p.ResourceManager(limits), libp2p.DisableMetrics())
}

func (s libp2pStack) Hub() (scale.Hub, error) {
	h, err := s.host(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		return nil, err
	}
	addresses, err := peer.AddrInfoToP2pAddrs(host.InfoFromHost(h))
	if err == nil && len(addresses) == 0 {
		err = errors.New("the host listens nowhere")
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return libp2pHub{h, addresses[0].String()}, nil
}

type libp2pHub struct {
	host    host.Host
	address string
}

func (h libp2pHub) Address() string { return h.address }
func (h libp2pHub) Sessions() int   { return len(h.host.Network().Peers()) }

// Traffic is not counted without metrics.
func (h libp2pHub) Traffic() uint64                         { return 0 }
func (h libp2pHub) Broadcast(context.Context, []byte) error { return errors.ErrUnsupported }
func (h libp2pHub) Close() error                            { return h.host.Close() }

func (s libp2pStack) Client() (scale.Client, error) {
	h, err := s.host(libp2p.NoListenAddrs)
	return libp2pClient{h}, err
}

type libp2pClient struct{ host host.Host }

func (c libp2pClient) Connect(ctx context.Context, address string) error {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return err
	}
	return c.host.Connect(ctx, *info)
}

func (c libp2pClient) Close() error { return c.host.Close() }
