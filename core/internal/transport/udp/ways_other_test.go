//go:build !linux

package udp

import "testing"

// ways are the means by which a socket may work here.
var ways = []struct {
	name string
	set  func(t testing.TB, c *Conn)
}{
	{"plain", func(testing.TB, *Conn) {}},
}
