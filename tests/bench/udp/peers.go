//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// peer is one way to carry a stream of bytes between two processes.
type peer struct {
	name string
	// listen accepts streams at an address, port 0 for any.
	listen func(addr string) (acceptor, error)
	// newDialer makes what a dialling program has once.
	newDialer func() (dialer, error)
}

type acceptor interface {
	// Accept waits for the next stream.
	Accept() (io.ReadWriteCloser, error)
	Addr() net.Addr
	Close() error
}

type dialer interface {
	Dial(ctx context.Context, addr string) (io.ReadWriteCloser, error)
	Close() error
}

// peers are all, in the order of tables.
func peers() []peer {
	return []peer{
		tcpPeer("cubic"), tcpPeer("bbr"), quicPeer(), libutpPeer("libutp", 0), libutpPeer("libutp-tuned", libutpBuffer),
		rawPeer("raw-udp", singly), rawPeer("raw-udp-batch", batches), rawPeer("raw-udp-gso", runs),
	}
}

func findPeer(name string) (peer, error) {
	var names []string
	for _, p := range peers() {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return peer{}, fmt.Errorf("there is no transport %q; the transports are %q", name, names)
}

// transport runs a peer under benchkit. After accepting, the server sends one
// byte, by which the client knows that it is connected, as benchkit's own do.
type transport struct{ peer }

func transports() []benchkit.Transport {
	var all []benchkit.Transport
	for _, p := range peers() {
		all = append(all, transport{p})
	}
	return all
}

func (t transport) Name() string { return t.name }

// CarriesDatagrams implements benchkit.Datagrammer.
func (t transport) CarriesDatagrams() bool {
	return t.name == "quic-go" || strings.HasPrefix(t.name, "raw-udp")
}

func (t transport) Listen(at netip.Addr, serve func(benchkit.Conn)) (benchkit.Server, error) {
	in, err := t.listen(netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return nil, err
	}
	s := &server{in: in, serve: serve, streams: map[io.Closer]struct{}{}}
	s.running.Go(s.accept)
	return s, nil
}

func (t transport) NewClient() (benchkit.Client, error) {
	d, err := t.newDialer()
	if err != nil {
		return nil, err
	}
	return &client{dialer: d, streams: map[io.Closer]struct{}{}}, nil
}

type server struct {
	in      acceptor
	serve   func(benchkit.Conn)
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	streams map[io.Closer]struct{}
}

func (s *server) Address() string { return s.in.Addr().String() }

func (s *server) accept() {
	for {
		stream, err := s.in.Accept()
		if err != nil {
			return // closed; a client that got no answer reports more
		}
		s.mu.Lock()
		if s.closed {
			_ = stream.Close() // it came while the server closed
		} else {
			s.streams[stream] = struct{}{}
			s.running.Go(func() { s.run(stream) })
		}
		s.mu.Unlock()
	}
}

func (s *server) run(stream io.ReadWriteCloser) {
	if _, err := stream.Write([]byte{1}); err == nil {
		s.serve(withDatagrams(benchkit.NewStreamConn(stream, stream.Close), stream))
	}
	_ = stream.Close() // the client may have closed already
	s.mu.Lock()
	delete(s.streams, stream)
	s.mu.Unlock()
}

func (s *server) Close() error {
	s.mu.Lock()
	s.closed = true
	for stream := range s.streams {
		_ = stream.Close() // the client may have closed already
	}
	s.mu.Unlock()
	err := s.in.Close()
	s.running.Wait()
	return err
}

type client struct {
	dialer dialer

	mu      sync.Mutex
	streams map[io.Closer]struct{}
}

func (c *client) Dial(ctx context.Context, address string) (benchkit.Conn, error) {
	stream, err := dialAccepted(ctx, c.dialer, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.streams[stream] = struct{}{}
	c.mu.Unlock()
	return withDatagrams(benchkit.NewStreamConn(stream, func() error {
		c.mu.Lock()
		delete(c.streams, stream)
		c.mu.Unlock()
		return stream.Close()
	}), stream), nil
}

// dialAccepted dials and waits for the byte of the other end.
func dialAccepted(ctx context.Context, d dialer, address string) (io.ReadWriteCloser, error) {
	stream, err := d.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = stream.Close() // ends the read below
	})
	defer stop()
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("the server did not accept: %w", err), context.Cause(ctx), stream.Close())
	}
	return stream, nil
}

func (c *client) Close() error {
	c.mu.Lock()
	for stream := range c.streams {
		_ = stream.Close() // the server may have closed already
	}
	clear(c.streams)
	c.mu.Unlock()
	return c.dialer.Close()
}
