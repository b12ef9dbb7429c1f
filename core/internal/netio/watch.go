package netio

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Change says what has become different about this machine's network. It is
// never empty.
type Change struct {
	// Came and Gone are the addresses of Network.Addrs that are new, and those
	// that are there no more, in its order.
	Came, Gone []netip.Addr
	// Links means that an interface with addresses got or lost its carrier.
	Links bool
	// Routes means that a route has changed: another gateway, or a tunnel.
	Routes bool
	// Woke means that the machine has slept.
	Woke bool
}

// Watched is a Network that can tell when it changes. A Network may implement
// it.
type Watched interface {
	// Watch begins to watch. It starts no goroutine. An error means that changes
	// cannot be noticed here.
	Watch() (Watcher, error)
}

// Watcher tells of changes. Next is for one goroutine at a time; the other
// methods may be called from any.
type Watcher interface {
	// Next waits for changes, gathers what comes within the next moment, at most
	// 100 ms, and tells all of it. The error is net.ErrClosed after Close, or why
	// nothing more will be noticed.
	Next() (Change, error)
	// Attend says whether anybody cares that the machine has slept. If so, Next
	// looks every few seconds. At first nobody does.
	Attend(attend bool)
	// Close ends Next. It may be called again.
	Close() error
}

const (
	// gather is how long changes are gathered: an interface that comes up brings
	// several addresses and routes.
	gather = 75 * time.Millisecond
	// pollEvery is how often interfaces are looked at where nothing tells.
	pollEvery = 2 * time.Second
	// sleepEvery is how often it is looked whether the machine has slept: all that an idle
	// program wakes up for besides its heartbeats.
	sleepEvery = 5 * time.Second
	// leastSleep is the shortest sleep that matters: nothing on the way forgets a
	// connection sooner.
	leastSleep = 3 * time.Second
)

// view is what is compared to notice a change.
type view struct {
	addrs   []netip.Addr
	running []netip.Addr // those whose interface has a carrier
	from    [2]netip.Addr
	asleep  time.Duration
}

// look returns what there is now. What cannot be listed is as it was in old.
func look(old view, routes bool) view {
	v := view{asleep: asleep(), from: old.from}
	if addrs, running, err := listed(); err == nil {
		v.addrs, v.running = addrs, running
	} else {
		v.addrs, v.running = old.addrs, old.running
	}
	if routes {
		v.from = [2]netip.Addr{sourceTo("udp4", "192.0.2.1:9"), sourceTo("udp6", "[2001:db8::1]:9")}
	}
	return v
}

// listed returns the addresses of interfaces that are up, and those of them whose
// interface has a carrier.
func listed() (addrs, running []netip.Addr, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, nil, err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		of, err := i.Addrs()
		if err != nil {
			continue // it has gone since
		}
		for _, addr := range of {
			if prefix, ok := addr.(*net.IPNet); ok {
				a, _ := netip.AddrFromSlice(prefix.IP)
				addrs = append(addrs, a)
				if i.Flags&net.FlagRunning != 0 {
					running = append(running, a)
				}
			}
		}
	}
	return Usable(addrs), Usable(running), nil
}

// sourceTo returns from which address this machine would send to another one, as
// its routes say. Nothing is sent.
func sourceTo(network, to string) netip.Addr {
	c, err := net.Dial(network, to)
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close() //nolint:errcheck // it has carried nothing
	if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Differ returns the addresses that are in now only and those that are in old
// only, in the order of each. It is for implementations of Watched.
func Differ(old, now []netip.Addr) (came, gone []netip.Addr) {
	return missing(now, old), missing(old, now)
}

func missing(of, in []netip.Addr) (out []netip.Addr) {
	for _, a := range of {
		if !slices.Contains(in, a) {
			out = append(out, a)
		}
	}
	return out
}

// differ compares two views.
func (v *view) differ(old *view) (c Change, changed bool) {
	c.Came, c.Gone = Differ(old.addrs, v.addrs)
	came, gone := Differ(old.running, v.running)
	c.Links = len(missing(came, c.Came))+len(missing(gone, c.Gone)) > 0
	c.Routes = v.from != old.from
	c.Woke = v.asleep-old.asleep >= leastSleep
	return c, len(c.Came)+len(c.Gone) > 0 || c.Links || c.Routes || c.Woke
}

// poller is a Watcher that looks from time to time.
type poller struct {
	last  view
	every time.Duration
	once  sync.Once
	done  chan struct{}
}

func newPoller(every time.Duration) *poller {
	return &poller{last: look(view{}, true), every: every, done: make(chan struct{})}
}

// Next implements Watcher.
func (p *poller) Next() (Change, error) {
	timer := time.NewTimer(p.every)
	defer timer.Stop()
	for {
		select {
		case <-p.done:
			return Change{}, net.ErrClosed
		case <-timer.C:
		}
		now := look(p.last, true)
		c, changed := now.differ(&p.last)
		p.last = now
		if changed {
			return c, nil
		}
		timer.Reset(p.every)
	}
}

// Attend implements Watcher. Each look sees whether the machine has slept.
func (p *poller) Attend(bool) {}

// Close implements Watcher.
func (p *poller) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}
