//go:build !unix

package crust

import "net"

// fewFiles reports whether descriptors run short: this system has no small bound.
func fewFiles(net.Conn, int) bool { return false }
