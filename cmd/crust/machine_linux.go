package main

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// systemClock asks the kernel how it holds the clock: whether somebody sets it, and by
// how much it is wrong at most. ok is false when the kernel does not say.
func systemClock() (synchronized bool, most time.Duration, ok bool) {
	var t unix.Timex // asks, and changes nothing
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, 0, false
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, time.Duration(t.Maxerror) * time.Microsecond, true
}

const (
	// mtuPatience is how long a router or the other end may take to answer a packet.
	mtuPatience = 300 * time.Millisecond
	// mtuRounds bounds the packets: each is as large as what the last answer allows.
	mtuRounds = 6
	// What IP and UDP add to a datagram.
	overhead4, overhead6 = 28, 48
)

// pathMTU sends datagrams that may not be cut into pieces, as large as the way is said
// to take, and reads what routers answer. A port at which nobody listens is answered
// as well, by the other end, which confirms that the packet has arrived; libcrust
// answers nothing.
func pathMTU(to netip.AddrPort) (mtu int, confirmed bool, err error) {
	four := to.Addr().Unmap().Is4()
	family, level, discover, do, option, overhead := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, unix.IPV6_MTU, overhead6
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if four {
		family, level, discover, do, option, overhead = unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IP_MTU, overhead4
		address = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	}
	s, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false, err
	}
	defer unix.Close(s) //nolint:errcheck // it has served
	if err := errors.Join(unix.SetsockoptInt(s, level, discover, do), unix.Connect(s, address)); err != nil {
		return 0, false, err
	}
	for range mtuRounds {
		if mtu, err = unix.GetsockoptInt(s, level, option); err != nil {
			return 0, false, err
		}
		size := min(mtu, 65535) - overhead
		if size <= 0 {
			return 0, false, unix.EMSGSIZE
		}
		switch err := unix.Send(s, make([]byte, size), 0); {
		case errors.Is(err, unix.EMSGSIZE): // a router has said so meanwhile
			continue
		case err != nil:
			return 0, false, err
		}
		switch awaitError(s, mtuPatience) {
		case unix.EMSGSIZE:
			continue
		case unix.ECONNREFUSED:
			return mtu, true, nil
		}
		return mtu, false, nil
	}
	return mtu, false, nil
}

// awaitError waits for what comes back to a datagram, and returns 0 when nothing does.
func awaitError(s int, patience time.Duration) unix.Errno {
	polled := []unix.PollFd{{Fd: int32(s)}} // errors are always asked for
	if n, err := unix.Poll(polled, int(patience/time.Millisecond)); err != nil || n == 0 {
		return 0
	}
	code, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return 0
	}
	return unix.Errno(code)
}
