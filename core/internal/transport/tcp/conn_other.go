//go:build !unix

package tcp

import "net"

// direct is empty: without Unix sockets every call goes through package net.
type direct struct{}

func (d *direct) init(*net.TCPConn) error { return nil }
