package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// agent is one way to ask one router. hello may run beside the other methods, of
// which only one runs at a time. All return when their context ends.
type agent interface {
	// means returns the way; of UPnP which one is known after hello.
	means() Means
	// hello finds out whether the router speaks it.
	hello(ctx context.Context) error
	// check asks whether the router is there, and, of one mapping of ours, whether
	// it still has it when deep is set. What it learns forgot tells.
	check(ctx context.Context, l *lease, deep bool) error
	// add maps, or renews what l holds. l.mapping.External says which external
	// port is preferred, if any.
	add(ctx context.Context, l *lease) (grant, error)
	// remove gives a mapping back.
	remove(ctx context.Context, l *lease) error
	// forgot reports whether answers since the last call have shown that the router
	// has lost its mappings.
	forgot() bool
}

// lease is one wanted port at one router. The site's goroutine owns it.
type lease struct {
	want    Want
	local   netip.Addr
	mapping Mapping // zero External: there is none
	agent   agent   // that holds the mapping
	err     error   // why there is none
	renew   []time.Time
	retry   time.Time // not before, after a failure
	wait    time.Time // a better way is waited for
	pinhole uint16    // UPnP's id of it
	life    uint32    // asked for, in seconds
	unsure  bool      // whether there is a mapping, and whose
}

// held reports whether there is a mapping.
func (l *lease) held() bool { return l.agent != nil }

// grant is what a router gave.
type grant struct {
	external netip.AddrPort
	lifetime time.Duration // 0: for ever
	pinhole  uint16
}

// When requests are sent, after the first; the answer is waited for until the last.
var (
	helloTimes   = []time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond, 1750 * time.Millisecond}
	requestTimes = []time.Duration{0, 250 * time.Millisecond, 750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second}
	removeTimes  = []time.Duration{0, 250 * time.Millisecond, 600 * time.Millisecond, time.Second}
)

// patience is how long a read may take before it looks whether it is still wanted.
const patience = 100 * time.Millisecond

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// caller sends requests to one UDP port of a router from one local address.
type caller struct {
	local  netip.Addr
	server netip.AddrPort
}

// errUnknownGateway means that nobody can be asked: see Interface.Gateway.
var errUnknownGateway = fmt.Errorf("the router's address is not known: %w", ErrUnsupported)

// ask sends a request at times[:n-1] and hands answers to match until it returns
// true or times[n-1] has passed: ErrSilent. The socket is connected, so that only
// the router is heard. Errors of the system have ErrSilent in their chain too.
func (c caller) ask(ctx context.Context, request []byte, times []time.Duration, match func(answer []byte) bool) error {
	if !c.server.Addr().IsValid() {
		return errUnknownGateway
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.local, 0))}
	conn, err := d.DialContext(ctx, "udp", c.server.String())
	if err != nil {
		return silent(ctx, err)
	}
	defer conn.Close()
	begin, buf := time.Now(), make([]byte, maxSSDP)
	var closed error // the port is, until now: the router may be starting
	for i := range times[1:] {
		_, err := conn.Write(request)
		if errors.Is(err, syscall.ECONNREFUSED) { // of the request before
			_, err = conn.Write(request)
		}
		if err != nil {
			return silent(ctx, err)
		}
		for next := begin.Add(times[i+1]); time.Now().Before(next); {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := conn.SetReadDeadline(earlier(next, time.Now().Add(patience))); err != nil {
				return silent(ctx, err)
			}
			n, err := conn.Read(buf)
			switch {
			case timeout(err):
			case errors.Is(err, syscall.ECONNREFUSED):
				closed = err
			case err != nil:
				return silent(ctx, err)
			case match(buf[:n]):
				return nil
			}
		}
	}
	return silent(ctx, closed)
}

// silent makes the error of a router that did not answer.
func silent(ctx context.Context, cause error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case cause == nil:
		return ErrSilent
	case errors.Is(cause, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: the port is closed", ErrSilent)
	}
	return fmt.Errorf("%w: %w", ErrSilent, cause)
}

func timeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// gone reports whether an error means that the router does not answer, not that it
// said no.
func gone(err error) bool { return errors.Is(err, ErrSilent) }
