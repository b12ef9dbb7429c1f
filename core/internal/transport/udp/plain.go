package udp

import (
	"errors"
	"net"
	"net/netip"
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
			_, err := c.socket.WriteToUDPAddrPort(d, ps[i].Addr)
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if err != nil {
				c.unsent.Add(1)
			}
			if at += len(d); at >= ps[i].N {
				break
			}
		}
	}
	return nil
}

// next returns up to count datagrams that begin at an offset, no more than
// MaxRun bytes unless one alone is longer.
func (p *Packets) next(at, count int) []byte {
	if p.Segment <= 0 || p.Segment >= p.N {
		return p.Buf[:p.N]
	}
	count = max(1, min(count, MaxRun/p.Segment))
	return p.Buf[at:min(at+count*p.Segment, p.N)]
}
