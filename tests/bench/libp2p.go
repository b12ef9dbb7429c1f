package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// protocol is the name of the streams on which the tests run.
const protocol = "/libcrust-bench/1"

// manyConnections is over what any test holds, so that the connection manager
// does not close connections of the memory test.
const manyConnections = 10_000

// libp2pTransports are go-libp2p over TCP with yamux, once with each of its
// securities.
func libp2pTransports() []benchkit.Transport {
	return []benchkit.Transport{
		libp2pTransport{name: "libp2p-noise", security: libp2p.Security(noise.ID, noise.New)},
		libp2pTransport{name: "libp2p-tls", security: libp2p.Security(libp2ptls.ID, libp2ptls.New)},
	}
}

// libp2pTransport runs hosts as a program would have them: go-libp2p's defaults,
// but for one transport, one security and limits that 500 connections from one
// address do not reach. The dialling host does not listen, as libcrust's does not.
type libp2pTransport struct {
	name     string
	security libp2p.Option
}

func (t libp2pTransport) Name() string { return t.name }

func (t libp2pTransport) newHost(addresses libp2p.Option) (host.Host, error) {
	manager, err := connmgr.NewConnManager(manyConnections/2, manyConnections)
	if err != nil {
		return nil, err
	}
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, err
	}
	return libp2p.New(libp2p.Transport(tcp.NewTCPTransport), t.security, addresses,
		libp2p.ConnectionManager(manager), libp2p.ResourceManager(limits))
}

// multiaddress is how go-libp2p writes an address for TCP, with any port.
func multiaddress(at netip.Addr) string {
	if at.Is4() {
		return fmt.Sprintf("/ip4/%v/tcp/0", at)
	}
	return fmt.Sprintf("/ip6/%v/tcp/0", at)
}

func (t libp2pTransport) Listen(at netip.Addr, serve func(benchkit.Conn)) (benchkit.Server, error) {
	h, err := t.newHost(libp2p.ListenAddrStrings(multiaddress(at)))
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
	s := &libp2pServer{host: h, address: addresses[0].String()}
	h.SetStreamHandler(protocol, func(stream network.Stream) {
		if !s.begin() {
			_ = stream.Reset() // it came while the server closed
			return
		}
		defer s.running.Done()
		conn := benchkit.NewStreamConn(stream, stream.Close)
		serve(conn)
		_ = conn.Close() // the client may have closed already
	})
	return s, nil
}

func (t libp2pTransport) NewClient() (benchkit.Client, error) {
	h, err := t.newHost(libp2p.NoListenAddrs)
	if err != nil {
		return nil, err
	}
	return libp2pClient{h}, nil
}

type libp2pServer struct {
	host    host.Host
	address string
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
}

func (s *libp2pServer) Address() string { return s.address }

// begin counts a stream in, unless the server closes.
func (s *libp2pServer) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

func (s *libp2pServer) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.host.Close()
	s.running.Wait()
	return err
}

type libp2pClient struct{ host host.Host }

// Dial connects the hosts. Host.Connect returns when the peers have identified
// each other, which is how the dialler knows that it was accepted.
func (c libp2pClient) Dial(ctx context.Context, address string) (benchkit.Conn, error) {
	info, err := peer.AddrInfoFromString(address)
	if err != nil {
		return nil, err
	}
	if err := c.host.Connect(ctx, *info); err != nil {
		return nil, err
	}
	lazy := &lazyStream{host: c.host, peer: info.ID}
	return benchkit.NewStreamConn(lazy, lazy.Close), nil
}

func (c libp2pClient) Close() error { return c.host.Close() }

// lazyStream opens its stream when first used, so that tests that send nothing
// measure connections without streams. Closing it closes the connection.
type lazyStream struct {
	host host.Host
	peer peer.ID

	mu     sync.Mutex
	opened network.Stream
}

func (s *lazyStream) stream() (network.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	stream, err := s.host.NewStream(context.Background(), s.peer, protocol)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	s.opened = stream
	return stream, nil
}

func (s *lazyStream) Write(data []byte) (int, error) {
	stream, err := s.stream()
	if err != nil {
		return 0, err
	}
	return stream.Write(data)
}

func (s *lazyStream) Read(data []byte) (int, error) {
	s.mu.Lock()
	stream := s.opened
	s.mu.Unlock()
	if stream == nil {
		return 0, io.ErrClosedPipe // nothing was sent that could be answered
	}
	return stream.Read(data)
}

func (s *lazyStream) Close() error { return s.host.Network().ClosePeer(s.peer) }
