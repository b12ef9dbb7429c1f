package udp

import (
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2). Go pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32 // bytes received
}

// control is room for one control message with a number.
type control struct {
	hdr   unix.Cmsghdr
	value [8]byte
}

// vector is the memory of one system call for many messages. It holds pointers
// to what it sends or receives only while that call runs.
type vector struct {
	messages []mmsghdr
	buffers  []unix.Iovec
	names    []unix.RawSockaddrInet6 // large enough for IPv4, too
	controls []control
}

func newVector(size int) vector {
	return vector{make([]mmsghdr, size), make([]unix.Iovec, size), make([]unix.RawSockaddrInet6, size), make([]control, size)}
}

// set makes entry i a message with memory p. The kernel overwrites some of what
// is set here, so it is set anew for each call.
func (v *vector) set(i int, p []byte) {
	b, m := &v.buffers[i], &v.messages[i]
	b.Base = unsafe.SliceData(p)
	b.SetLen(len(p))
	m.hdr = unix.Msghdr{Iov: b, Name: (*byte)(unsafe.Pointer(&v.names[i])), Namelen: unix.SizeofSockaddrInet6}
	m.hdr.SetIovlen(1)
}

// forget lets go of the memory of the first n entries.
func (v *vector) forget(n int) {
	for i := range n {
		v.buffers[i].Base = nil
	}
}

// expect makes room in entry i for a number from the kernel.
func (v *vector) expect(i int) {
	m := &v.messages[i]
	m.hdr.Control = (*byte)(unsafe.Pointer(&v.controls[i]))
	m.hdr.SetControllen(int(unsafe.Sizeof(v.controls[i])))
}

// cut tells the kernel to cut entry i every segment bytes.
func (v *vector) cut(i, segment int) {
	c, m := &v.controls[i], &v.messages[i]
	c.hdr.Level, c.hdr.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	c.hdr.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&c.value)) = uint16(segment)
	m.hdr.Control = (*byte)(unsafe.Pointer(c))
	m.hdr.SetControllen(unix.CmsgSpace(2))
}

// segment returns where received entry i is to be cut: after all of it unless
// the kernel says otherwise.
func (v *vector) segment(i int) int {
	c, m, n := &v.controls[i], &v.messages[i], int(v.messages[i].len)
	if int(m.hdr.Controllen) >= unix.CmsgLen(4) && c.hdr.Level == unix.SOL_UDP && c.hdr.Type == unix.UDP_GRO {
		if s := int(*(*int32)(unsafe.Pointer(&c.value))); s > 0 && s < n {
			return s
		}
	}
	return n
}

// address sets where entry i goes.
func (v *vector) address(i int, to netip.AddrPort, ip6 bool) {
	m, name, a := &v.messages[i], &v.names[i], to.Addr()
	if !ip6 && a.Unmap().Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(name)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(to.Port()), Addr: a.Unmap().As4()}
		m.hdr.Namelen = unix.SizeofSockaddrInet4
		return
	}
	*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(to.Port()), Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		name.Scope_id = zoneIndex(zone)
	}
	m.hdr.Namelen = unix.SizeofSockaddrInet6
}

// sender returns where received entry i came from.
func (v *vector) sender(i int) netip.AddrPort {
	name := &v.names[i]
	if name.Family == unix.AF_INET {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), swapped(name.Port))
	}
	a := netip.AddrFrom16(name.Addr).Unmap()
	if name.Scope_id != 0 && a.IsLinkLocalUnicast() {
		a = a.WithZone(zoneName(name.Scope_id))
	}
	return netip.AddrPortFrom(a, swapped(name.Port))
}

// swapped turns a port from or into network byte order.
func swapped(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// zoneIndex and zoneName ask the system which interface a zone is. Only
// link-local addresses have zones, and nothing of ours tells those to others.
func zoneIndex(zone string) uint32 {
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32) // 0, no zone, for what is no number
	return uint32(n)
}

func zoneName(index uint32) string {
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}

// recvmmsg receives up to len(ms) messages without waiting.
func recvmmsg(fd uintptr, ms []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(ms))), uintptr(len(ms)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// sendmmsg sends up to len(ms) messages without waiting. An error concerns the
// first.
func sendmmsg(fd uintptr, ms []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(ms))), uintptr(len(ms)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}
