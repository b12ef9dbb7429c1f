package netio

import (
	"net"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/transport/tcp"
)

var _ Opener = system{}

// Open implements Opener. Whether other systems do as Linux does has not been tried.
func (system) Open(local, remote netip.AddrPort, ttl int) (Opening, error) {
	o, err := tcp.Open(local, remote, ttl)
	if err != nil {
		return nil, err
	}
	return opening{o}, nil
}

// opening is a tcp.Opening as an Opening.
type opening struct{ *tcp.Opening }

func (o opening) Wait(until time.Time) (net.Conn, error) {
	c, err := o.Opening.Wait(until)
	if err != nil {
		return nil, err
	}
	return c, nil
}
