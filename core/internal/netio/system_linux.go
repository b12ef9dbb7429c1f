package netio

import (
	"net/netip"

	"github.com/libcrust/libcrust/core/internal/transport/tcp"
)

var _ Opener = system{}

// SendOpener implements Opener. Whether other systems give up a connection without a
// word, so that the NATs on the way do not forget it, has not been tried.
func (system) SendOpener(local, remote netip.AddrPort, ttl int) error {
	return tcp.SendOpener(local, remote, ttl)
}
