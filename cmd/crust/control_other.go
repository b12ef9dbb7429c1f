//go:build !unix

package main

import (
	"errors"
	"net"
)

// listenPrivate: there are no sockets here that belong to one user.
func listenPrivate(string) (net.Listener, error) {
	return nil, errors.New("--control needs a system with sockets in its file system that have owners")
}
