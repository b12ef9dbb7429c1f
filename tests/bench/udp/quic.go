//go:build linux

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// quicPeer is one stream of quic-go as it is.
func quicPeer() peer {
	return peer{
		name: "quic-go",
		listen: func(addr string) (acceptor, error) {
			l, err := listenQUIC(addr)
			return quicAcceptor{l}, err
		},
		newDialer: func() (dialer, error) { return newQUICDialer() },
	}
}

func quicConfig() *quic.Config { return &quic.Config{EnableDatagrams: true} }

func quicTLS() (*tls.Config, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		MinVersion:         tls.VersionTLS13,
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // the key would be the name
		NextProtos:         []string{"bench"},
	}, nil
}

func listenQUIC(addr string) (*quic.Listener, error) {
	config, err := quicTLS()
	if err != nil {
		return nil, err
	}
	return quic.ListenAddr(addr, config, quicConfig())
}

type quicAcceptor struct{ listener *quic.Listener }

// Accept opens the one stream of a connection from this end, as this end speaks
// first.
func (a quicAcceptor) Accept() (io.ReadWriteCloser, error) {
	for {
		conn, err := a.listener.Accept(context.Background())
		if err != nil {
			return nil, err
		}
		stream, err := conn.OpenStream()
		if err != nil {
			continue // this one is gone already
		}
		return quicStream{stream, conn}, nil
	}
}

func (a quicAcceptor) Addr() net.Addr { return a.listener.Addr() }
func (a quicAcceptor) Close() error   { return a.listener.Close() }

type quicDialer struct {
	transport *quic.Transport
	socket    *net.UDPConn
	tls       *tls.Config
}

func newQUICDialer() (*quicDialer, error) {
	config, err := quicTLS()
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	return &quicDialer{&quic.Transport{Conn: socket}, socket, config}, nil
}

func (d *quicDialer) connect(ctx context.Context, addr string) (*quic.Conn, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	return d.transport.Dial(ctx, to, d.tls, quicConfig())
}

func (d *quicDialer) Dial(ctx context.Context, addr string) (io.ReadWriteCloser, error) {
	conn, err := d.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil, errors.Join(err, conn.CloseWithError(0, ""))
	}
	return quicStream{stream, conn}, nil
}

func (d *quicDialer) Close() error { return errors.Join(d.transport.Close(), d.socket.Close()) }

// quicStream is a stream that is its connection.
type quicStream struct {
	*quic.Stream
	conn *quic.Conn
}

func (s quicStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	var closed *quic.ApplicationError
	if errors.As(err, &closed) && closed.ErrorCode == 0 {
		err = io.EOF // closed in order
	}
	return n, err
}

func (s quicStream) Close() error { return s.conn.CloseWithError(0, "") }
