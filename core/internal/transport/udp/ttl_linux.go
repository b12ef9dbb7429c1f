package udp

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// WriteTTL is WriteBatch for datagrams with another time to live than the
// system's: see netio.TTLWriter. It makes a system call for each.
func (c *Conn) WriteTTL(ttl int, ps []Packets) error {
	for i := range ps {
		to := ps[i].Addr
		if !sendable(to) {
			c.unsent.Add(1)
			continue
		}
		control := timeToLive(to.Addr(), ttl)
		for at := 0; at < ps[i].N; at += ps[i].Segment {
			d := ps[i].Buf[at:min(at+ps[i].Segment, ps[i].N)]
			_, _, err := c.socket.WriteMsgUDPAddrPort(d, control, to)
			if errors.Is(err, net.ErrClosed) {
				return err
			} else if err != nil {
				c.unsent.Add(1)
			}
		}
	}
	return nil
}

// timeToLive makes the control message for one sendmsg: ip(7) IP_TTL, ipv6(7)
// IPV6_HOPLIMIT, each an int. A peer of IPv4 needs the former on any socket.
func timeToLive(to netip.Addr, ttl int) []byte {
	b := make([]byte, unix.CmsgSpace(4))
	level, kind := uint32(unix.IPPROTO_IP), uint32(unix.IP_TTL)
	if to.Is6() && !to.Is4In6() {
		level, kind = unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT
	}
	head := unix.CmsgLen(0)
	if head == 16 { // the length is as wide as a pointer
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(4))) //nolint:gosec // 20
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(4))) //nolint:gosec // 16
	}
	binary.NativeEndian.PutUint32(b[head-8:], level)
	binary.NativeEndian.PutUint32(b[head-4:], kind)
	binary.NativeEndian.PutUint32(b[head:], uint32(ttl)) //nolint:gosec // from 1 to 255
	return b
}
