//go:build !linux

package udp

import (
	"errors"
	"fmt"
)

// WriteTTL sends nothing: only Linux can do so for one datagram, and to change the
// socket would meet datagrams that others send.
func (c *Conn) WriteTTL(int, []Packets) error {
	return fmt.Errorf("a time to live for one datagram: %w", errors.ErrUnsupported)
}
