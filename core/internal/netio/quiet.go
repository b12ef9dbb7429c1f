package netio

import (
	"net"
	"time"
)

// Quiet returns how long ago anything came from the machine at the other end of a
// connection, acknowledgements of what we sent included, which show nothing to
// Read. It reports false when that is not known: of TCP, it is on Linux alone. A
// connection may know it better by a method Quiet of its own.
func Quiet(conn net.Conn) (time.Duration, bool) {
	if c, ok := conn.(interface{ Quiet() (time.Duration, bool) }); ok {
		return c.Quiet()
	}
	return quiet(conn)
}
