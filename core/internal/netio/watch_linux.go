package netio

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watch implements Watched by what the kernel tells (rtnetlink(7)), or by looking
// each 2 s where programs may not listen to that.
func (system) Watch() (Watcher, error) {
	if w, err := newNetlink(); err == nil {
		return w, nil
	}
	return newPoller(pollEvery), nil
}

// asleep returns how long the machine has slept since it was started.
func asleep() time.Duration {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - mono.Nano())
}

// quiet asks the kernel when the last segment came (tcp(7), TCP_INFO), in
// milliseconds.
func quiet(conn net.Conn) (d time.Duration, ok bool) {
	c, is := conn.(syscall.Conn)
	if !is {
		return 0, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) { // a closed connection is known nothing of
		var info unix.TCPInfo
		size := uint32(unix.SizeofTCPInfo)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			d, ok = lastCame(&info, size)
		}
	})
	return d, ok
}

// lastCame reads an answer of size bytes. What imitates a kernel may tell less than was
// asked for (QEMU, the first 4 bytes): then nothing is known, and least of all that
// something has come just now.
func lastCame(info *unix.TCPInfo, size uint32) (time.Duration, bool) {
	if uintptr(size) < unsafe.Offsetof(info.Last_ack_recv)+unsafe.Sizeof(info.Last_ack_recv) {
		return 0, false
	}
	return time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond, true
}

// groups are what the kernel tells of: interfaces, addresses, routes.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

const (
	// netlinkRead is the largest run of messages that the kernel hands over
	// (NLMSG_GOODSIZE is at most a page; dumps, which we do not ask for, 32 KiB).
	netlinkRead = 32 << 10
	// maxRoutes bounds the routes that are remembered. A machine with more is told
	// of some that have not changed.
	maxRoutes = 4096
)

// netlink is a Watcher that listens to the kernel.
type netlink struct {
	file   *os.File
	buf    []byte
	last   view
	routes routes

	mu        sync.Mutex
	attending bool
	until     time.Time // changes are gathered; zero: there are none
}

func newNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &netlink{
		file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, netlinkRead), last: look(view{}, false), routes: routes{},
	}, nil
}

// Next implements Watcher.
func (w *netlink) Next() (Change, error) {
	moved := false
	for {
		n, err := w.file.Read(w.buf)
		switch {
		case err == nil || errors.Is(err, unix.ENOBUFS): // which means that messages were lost
			seen, route := err != nil, err != nil
			if err == nil {
				seen, route = w.routes.take(w.buf[:n])
			}
			moved = moved || route
			if seen {
				w.gatherNow()
			}
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if errors.Is(err, os.ErrClosed) {
				err = net.ErrClosed
			}
			return Change{}, err
		}
		now := view{addrs: w.last.addrs, running: w.last.running, asleep: asleep()}
		if w.gathered() {
			now = look(w.last, false)
		}
		c, changed := now.differ(&w.last)
		w.last = now
		if c.Routes = moved; changed || moved {
			return c, nil
		}
	}
}

// gatherNow begins to gather, unless that has begun.
func (w *netlink) gatherNow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until.IsZero() {
		w.until = time.Now().Add(gather)
		w.arm()
	}
}

// gathered reports whether gathering is over, and sets the next deadline.
func (w *netlink) gathered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	over := !w.until.IsZero() && !time.Now().Before(w.until)
	if over {
		w.until = time.Time{}
	}
	w.arm()
	return over
}

// arm sets when Read ends without a message. mu is held.
func (w *netlink) arm() {
	var at time.Time
	switch {
	case !w.until.IsZero():
		at = w.until
	case w.attending:
		at = time.Now().Add(sleepEvery)
	}
	w.file.SetReadDeadline(at) //nolint:errcheck // a closed file shows in Read
}

// Attend implements Watcher.
func (w *netlink) Attend(attend bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if attend != w.attending {
		w.attending = attend
		w.arm()
	}
}

// Close implements Watcher.
func (w *netlink) Close() error {
	w.file.Close() //nolint:errcheck // it was closed before
	return nil
}

// routes are the routes that the kernel has told of: by what they are for, what
// they are. It tells of some again that are as they were.
type routes map[string]string

// take reads a run of messages. It reports whether addresses, interfaces or
// routes may be different, and whether routes are.
func (r routes) take(b []byte) (some, route bool) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := binary.NativeEndian.Uint32(b)
		kind := binary.NativeEndian.Uint16(b[4:])
		if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(b)) {
			return true, route // not as the kernel writes them: look for ourselves
		}
		body := b[unix.NLMSG_HDRLEN:size]
		switch kind {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
			some = true
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if r.route(kind == unix.RTM_NEWROUTE, body) {
				some, route = true, true
			}
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return some, route
}

// route takes a message about a route, and reports whether it tells anything new.
func (r routes) route(there bool, b []byte) bool {
	if len(b) < unix.SizeofRtMsg {
		return false
	}
	family, table, kind := b[0], b[4], b[7]
	flags := binary.NativeEndian.Uint32(b[8:])
	if table == unix.RT_TABLE_LOCAL || flags&unix.RTM_F_CLONED != 0 || kind != unix.RTN_UNICAST && kind < unix.RTN_BLACKHOLE {
		return false // the machine's own addresses, and what the kernel remembers of others
	}
	key, value := []byte{family, b[1], b[2], b[3], table}, append([]byte(nil), kind)
	for rest := b[unix.SizeofRtMsg:]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			break
		}
		switch attr, body := binary.NativeEndian.Uint16(rest[2:]), rest[unix.SizeofRtAttr:size]; attr {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(body); ok && (a.IsLinkLocalUnicast() || a.IsMulticast()) {
				return false
			}
			fallthrough
		case unix.RTA_SRC, unix.RTA_PRIORITY, unix.RTA_TABLE:
			key = append(key, rest[:size]...)
		case unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_MULTIPATH, unix.RTA_PREFSRC, unix.RTA_VIA:
			value = append(value, rest[:size]...)
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	old, known := r[string(key)]
	switch {
	case !there:
		delete(r, string(key))
		return true
	case known && old == string(value):
		return false
	case len(r) >= maxRoutes:
		clear(r)
	}
	r[string(key)] = string(value)
	return true
}
