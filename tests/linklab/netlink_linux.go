package linklab

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// netlink configures network interfaces of the namespace in which it was opened.
type netlink struct{ fd int }

func openNetlink() (netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	return netlink{fd}, err
}

func (n netlink) close() { _ = unix.Close(n.fd) }

// attribute appends one in the form that the kernel wants (rtnetlink(7)).
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func number32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// request sends one message and waits for its acknowledgement.
func (n netlink) request(kind, flags uint16, body []byte) error {
	b := number32(uint32(unix.NLMSG_HDRLEN + len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, 8)...) // sequence and port
	b = append(b, body...)
	if err := unix.Sendto(n.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	got, _, err := unix.Recvfrom(n.fd, answer, 0)
	if err != nil {
		return err
	}
	if got < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("the kernel answered %d bytes that are no acknowledgement", got)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// up starts an interface; with an MTU of 0 its MTU and queue stay as they are.
func (n netlink) up(index, mtu, queue uint32) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], index)
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP)
	if mtu > 0 {
		body = attribute(body, unix.IFLA_MTU, number32(mtu))
		body = attribute(body, unix.IFLA_TXQLEN, number32(queue))
	}
	return n.request(unix.RTM_NEWLINK, 0, body)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// address gives an interface an address of its own, without a network around it.
func (n netlink) address(index uint32, a netip.Addr) error {
	body := []byte{family(a), byte(a.BitLen()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	body = append(body, number32(index)...)
	body = attribute(body, unix.IFA_LOCAL, a.AsSlice())
	body = attribute(body, unix.IFA_ADDRESS, a.AsSlice())
	return n.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
}

// route sends all traffic of the family of a through an interface, from a.
func (n netlink) route(index uint32, a netip.Addr) error {
	body := []byte{family(a), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	if a.Is4() {
		body[6] = unix.RT_SCOPE_LINK
	}
	body = attribute(body, unix.RTA_OIF, number32(index))
	body = attribute(body, unix.RTA_PREFSRC, a.AsSlice())
	return n.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, body)
}
