package benchkit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"time"
)

// RawTCP is TCP without encryption: what the machine can do.
func RawTCP() Transport {
	return tcpTransport{name: "raw-tcp", wrap: func() (wrapper, error) { return wrapper{}, nil }}
}

// TLS is Go's TLS 1.3 with AES-GCM. Both ends prove an Ed25519 key by a
// self-signed certificate and have Go's default settings otherwise.
func TLS() Transport { return tcpTransport{name: "tls", wrap: newTLSWrapper} }

// tcpTransport is TCP with or without a layer on top. After accepting, the
// server sends one byte, by which the client knows that it is connected.
type tcpTransport struct {
	name string
	wrap func() (wrapper, error) // makes what one end needs
}

// wrapper puts the layer of one end on its connections. The zero wrapper puts none.
type wrapper struct {
	server func(net.Conn) net.Conn
	client func(context.Context, net.Conn) (net.Conn, error)
}

func (t tcpTransport) Name() string { return t.name }

func (t tcpTransport) Listen(at netip.Addr, serve func(Conn)) (Server, error) {
	layer, err := t.wrap()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return nil, err
	}
	s := &tcpServer{listener: listener, layer: layer, serve: serve, conns: map[net.Conn]struct{}{}}
	s.running.Go(s.accept)
	return s, nil
}

func (t tcpTransport) NewClient() (Client, error) {
	layer, err := t.wrap()
	return &tcpClient{layer: layer}, err
}

type tcpServer struct {
	listener net.Listener
	layer    wrapper
	serve    func(Conn)
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func (s *tcpServer) Address() string { return s.listener.Addr().String() }

func (s *tcpServer) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // the listener is closed; a client that got no answer reports more
		}
		if !s.add(conn) {
			_ = conn.Close() // it came while the server closed
			return
		}
		s.running.Go(func() { s.run(conn) })
	}
}

func (s *tcpServer) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.conns[conn] = struct{}{}
	}
	return !s.closed
}

func (s *tcpServer) run(conn net.Conn) {
	defer func() {
		_ = conn.Close() // the client may have closed already
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	stream := conn
	if s.layer.server != nil {
		stream = s.layer.server(conn)
	}
	// The first write completes the layer's handshake.
	if _, err := stream.Write([]byte{1}); err != nil {
		return // the client sees its connection end
	}
	s.serve(NewStreamConn(stream, stream.Close))
}

func (s *tcpServer) Close() error {
	s.mu.Lock()
	s.closed = true
	err := s.listener.Close()
	for conn := range s.conns {
		_ = conn.Close() // the client may have closed already
	}
	s.mu.Unlock()
	s.running.Wait()
	return err
}

type tcpClient struct {
	dialer net.Dialer
	layer  wrapper

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (c *tcpClient) Dial(ctx context.Context, address string) (Conn, error) {
	conn, err := c.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stream := conn
	if c.layer.client != nil {
		if stream, err = c.layer.client(ctx, conn); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("the server did not accept: %w", err), conn.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		c.conns = map[net.Conn]struct{}{}
	}
	c.conns[stream] = struct{}{}
	return NewStreamConn(stream, func() error {
		c.mu.Lock()
		delete(c.conns, stream)
		c.mu.Unlock()
		return stream.Close()
	}), nil
}

func (c *tcpClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Close() // the server may have closed already
	}
	clear(c.conns)
	return nil
}

// newTLSWrapper makes an identity and the TLS settings of one end. Like
// libcrust's, its peers know each other by key and not by name.
func newTLSWrapper() (wrapper, error) {
	certificate, err := selfSigned()
	if err != nil {
		return wrapper{}, err
	}
	config := &tls.Config{
		Certificates:          []tls.Certificate{certificate},
		MinVersion:            tls.VersionTLS13,
		ClientAuth:            tls.RequireAnyClientCert,
		InsecureSkipVerify:    true, // the key is the name: requireEd25519 looks at it
		VerifyPeerCertificate: requireEd25519,
	}
	return wrapper{
		server: func(conn net.Conn) net.Conn { return tls.Server(conn, config) },
		client: func(ctx context.Context, conn net.Conn) (net.Conn, error) {
			secure := tls.Client(conn, config)
			return secure, secure.HandshakeContext(ctx)
		},
	}, nil
}

func requireEd25519(certificates [][]byte, _ [][]*x509.Certificate) error {
	certificate, err := x509.ParseCertificate(certificates[0])
	if err != nil {
		return err
	}
	if certificate.PublicKeyAlgorithm != x509.Ed25519 {
		return fmt.Errorf("the peer's key is of type %v, not Ed25519", certificate.PublicKeyAlgorithm)
	}
	return nil
}

func selfSigned() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "bench"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}
