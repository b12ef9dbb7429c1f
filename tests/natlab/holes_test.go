//go:build linux

package natlab

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hole is a socket of a side and how it looks from outside.
type hole struct {
	*net.UDPConn
	external netip.AddrPort
}

// holes opens one at each side.
func holes(t *testing.T, l *Lab) (out [2]hole) {
	t.Helper()
	at := socketAt(t, l.Public[0])
	for i, m := range []*Machine{l.A, l.B} {
		out[i].UDPConn = socketAt(t, m)
		var err error
		if out[i].external, err = seen(out[i].UDPConn, at); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// send sends one datagram with a TTL.
func (h hole) send(t *testing.T, ttl int, to hole) {
	t.Helper()
	h.setTTL(t, ttl)
	if _, err := h.WriteToUDPAddrPort([]byte("open"), to.external); err != nil {
		t.Fatal(err)
	}
	h.setTTL(t, 64)
}

func (h hole) setTTL(t *testing.T, ttl int) {
	t.Helper()
	raw, err := h.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) }), err)
	if err != nil {
		t.Fatal(err)
	}
}

// TestHoles opens pairs of NATs by UDP, once with packets that reach the other side
// too early, and once with openers that die on the way.
func TestHoles(t *testing.T) {
	for _, c := range []struct {
		a, b        string
		early, open bool // works after an early packet, after openers
	}{
		{"home", "home", true, true},
		{"kernel-home", "home", true, true},
		{"kernel-home", "kernel-home-reset", true, true},
		{"kernel-home-accept", "kernel-home-accept", false, true},
		{"home-accept", "kernel-home-accept", false, true},
		{"home-punish", "home-punish", false, true},
		{"home", "symmetric", false, false},
		{"kernel-symmetric", "kernel-home", false, false},
		{"full-cone", "symmetric", true, true},
		{"home-in-carrier", "home", true, true},
	} {
		t.Run(c.a+" "+c.b, func(t *testing.T) {
			t.Parallel()
			for opener, want := range map[bool]bool{false: c.early, true: c.open} {
				l := newLab(t, Config{A: named(t, c.a), B: named(t, c.b), Hops: 8, Delay: 10 * time.Millisecond})
				h := holes(t, l)
				if opener {
					// The carrier's NAT is one router more.
					h[0].send(t, 3, h[1])
					h[1].send(t, 3, h[0])
				} else {
					h[0].send(t, 64, h[1])
				}
				time.Sleep(quiet)
				drain(t, h[1])
				if works := exchange(t, h); (works >= 4) != want {
					t.Errorf("openers %v: %d of 6 arrive, want a way %v", opener, works, want)
				}
			}
		})
	}
}

// exchange sends three times each way and returns how many arrive. Who has received
// answers to where it came from.
func exchange(t *testing.T, h [2]hole) (works int) {
	t.Helper()
	to := [2]netip.AddrPort{h[1].external, h[0].external}
	for n := range 6 {
		i := n % 2
		source, err := arrives(h[i].UDPConn, to[i], h[1-i].UDPConn, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if source.IsValid() {
			works++
			to[1-i] = source
		}
	}
	return works
}

// drain forgets what has come.
func drain(t *testing.T, h hole) {
	t.Helper()
	if err := h.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, _, err := h.ReadFromUDPAddrPort(make([]byte, 10)); err != nil {
			return
		}
	}
}

// TestSimultaneousOpen has two kernels dial each other through NATs, from ports that
// are preserved.
func TestSimultaneousOpen(t *testing.T) {
	for _, c := range []struct {
		a, b  string
		skew  time.Duration
		works bool
	}{
		{"kernel-home", "kernel-home", 0, true},
		{"kernel-home", "home", 200 * time.Millisecond, true},
		{"home", "home-reset", 0, true},
		{"home", "kernel-home-reset", 200 * time.Millisecond, false}, // a is refused
		{"symmetric", "home", 0, false},
	} {
		t.Run(c.a+" "+c.b, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Config{A: named(t, c.a), B: named(t, c.b), Delay: 50 * time.Millisecond})
			const port = 4000
			g := &gauge{lab: l, m: l.A}
			t.Cleanup(g.close)
			result := make(chan error, 1)
			go func() {
				_, err := (&gauge{lab: l, m: l.A}).dial(l.A, port, netip.AddrPortFrom(l.B.Public(), port).String(), 3*time.Second)
				result <- err
			}()
			time.Sleep(c.skew)
			_, errB := g.dial(l.B, port, netip.AddrPortFrom(l.A.Public(), port).String(), 3*time.Second)
			errA := <-result
			if works := errA == nil && errB == nil; works != c.works {
				t.Errorf("%v and %v", errA, errB)
			}
			if c.b == "kernel-home-reset" && !errors.Is(errA, syscall.ECONNREFUSED) {
				t.Errorf("the early one: %v", errA)
			}
		})
	}
}
