//go:build linux

package main

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/anacrolix/go-libutp"
	"github.com/anacrolix/log"
)

// libutpBuffer is the size in bytes of the large send and receive buffers.
const libutpBuffer = 8 << 20

// libutpPeer is go-libutp over its own socket, with its default buffers (1 MiB)
// when buffer is 0. This program links nothing of libcrust's that might change it.
func libutpPeer(name string, buffer int) peer {
	socket := func(addr string) (*utp.Socket, error) {
		conn, err := net.ListenPacket("udp4", addr)
		if err != nil {
			return nil, err
		}
		if buffer > 0 {
			// The kernel gives what it allows.
			_ = conn.(*net.UDPConn).SetReadBuffer(buffer)
			_ = conn.(*net.UDPConn).SetWriteBuffer(buffer)
		}
		quiet := log.Default
		quiet.Handlers = []log.Handler{log.DiscardHandler}
		s, err := utp.NewSocketFromPacketConn(conn, utp.WithLogger(quiet))
		if err == nil && buffer > 0 {
			s.SetOption(utp.SendBuffer, buffer)
			s.SetOption(utp.RecvBuffer, buffer)
		}
		return s, err
	}
	return peer{
		name: name,
		listen: func(addr string) (acceptor, error) {
			s, err := socket(addr)
			return netAcceptor{s}, err
		},
		newDialer: func() (dialer, error) {
			s, err := socket(":0")
			return libutpDialer{s}, err
		},
	}
}

type libutpDialer struct{ socket *utp.Socket }

func (d libutpDialer) Dial(ctx context.Context, addr string) (io.ReadWriteCloser, error) {
	return d.socket.DialContext(ctx, "", addr)
}

// lingering is how long the socket lives on for the ends of its streams: go-libutp
// sends nothing more once the socket is closed, and does not tell when all went out.
const lingering = 50 * time.Millisecond

func (d libutpDialer) Close() error {
	time.Sleep(lingering)
	return d.socket.Close()
}
