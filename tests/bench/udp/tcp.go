//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// tcpPeer is the kernel's TCP with one of its congestion controls.
func tcpPeer(congestion string) peer {
	control := func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		}); err != nil {
			return err
		}
		if failed != nil {
			return fmt.Errorf("this kernel's TCP has no %s: %w", congestion, failed)
		}
		return nil
	}
	return peer{
		name: "tcp-" + congestion,
		listen: func(addr string) (acceptor, error) {
			config := net.ListenConfig{Control: control}
			listener, err := config.Listen(context.Background(), "tcp", addr)
			return netAcceptor{listener}, err
		},
		newDialer: func() (dialer, error) { return tcpDialer{net.Dialer{Control: control}}, nil },
	}
}

// netAcceptor is a net.Listener as an acceptor.
type netAcceptor struct{ net.Listener }

func (a netAcceptor) Accept() (io.ReadWriteCloser, error) { return a.Listener.Accept() }

type tcpDialer struct{ dialer net.Dialer }

func (d tcpDialer) Dial(ctx context.Context, addr string) (io.ReadWriteCloser, error) {
	return d.dialer.DialContext(ctx, "tcp", addr)
}

func (tcpDialer) Close() error { return nil }
