package udp

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// readOne reads one datagram by the portable call.
func (c *Conn) readOne(ps []Packets) (int, error) {
	p := &ps[0]
	n, from, err := c.socket.ReadFromUDPAddrPort(p.Buf)
	if err != nil {
		return 0, err
	}
	p.N, p.Segment = n, n
	p.Addr = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

// writeEach sends datagram by datagram by the portable call, which may wait for
// room in the system's buffer.
func (c *Conn) writeEach(ps []Packets) error {
	for i := range ps {
		for at := 0; ; {
			d := ps[i].next(at, 1)
			if err := c.writeOne(d, ps[i].Addr); errors.Is(err, net.ErrClosed) {
				return err
			} else if err != nil {
				c.unsent.Add(1)
			}
			if at += len(d); at >= ps[i].N {
				break
			}
		}
	}
	return nil
}

func (c *Conn) writeOne(d []byte, to netip.AddrPort) error {
	if !sendable(to) {
		return syscall.EADDRNOTAVAIL
	}
	_, err := c.socket.WriteToUDPAddrPort(d, to)
	return err
}
