package linklab

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/natsim"
)

// HostConfig describes a host and its link to the middle, where all links meet.
// A packet from one host to another passes the Up of the one and the Down of the
// other.
type HostConfig struct {
	Name     string // unique, not empty
	Up, Down Shape
	NAT      *NAT // between the host and its link; nil for none
	// Behind names the router that the link goes to, in place of the middle. With a
	// NAT as well there are two in a row.
	Behind string
	// Addr and Addr6 are the addresses of a host without NAT and router. Those that
	// are not valid the laboratory chooses.
	Addr, Addr6 netip.Addr
}

// Config describes a laboratory.
type Config struct {
	Hosts   []HostConfig // 1 to 250, together with the routers
	Routers []RouterConfig
	// Hops is how many routers of others each packet passes in the middle, which
	// takes as much off its TTL. At most 200.
	Hops int
	// Seed makes the fates of packets repeatable, as far as packets come the same
	// way again.
	Seed uint64
	// MTU is of the hosts' interfaces, in bytes. Zero means 1500. At least 1280.
	MTU int
	// Memory bounds the bytes of packets on their way. Zero means 512 MiB.
	Memory int
}

const (
	defaultMTU    = 1500
	leastMTU      = 1280 // of IPv6
	defaultMemory = 512 << 20
	mostHosts     = 250
	mostHops      = 200
)

// Lab is a laboratory at work. Its methods may be called by any goroutine.
type Lab struct {
	hosts   []*Host
	routers []*Router
	byAddr  map[netip.Addr]*node
	hops    int
	start   time.Time

	// Of the loop alone:
	timeline timeline
	buffers  buffers
	polls    []unix.PollFd
	notice   [2048]byte // for ICMP messages

	wake    int // an eventfd
	mu      sync.Mutex
	orders  []func()
	closed  bool
	stopped chan struct{}
	close   func() error
}

// Host is one of a laboratory.
type Host struct {
	lab  *Lab
	name string
	ns   *Namespace
	tun  int
	addr netip.Addr
	v6   netip.Addr // not valid where the NAT drops IPv6
	node *node
}

var (
	router4 = netip.AddrFrom4([4]byte{11, 77, 0, 1})
	router6 = netip.MustParseAddr("2a00:7700::1")
)

// public4 returns the n-th public IPv4 address of the i-th host: one that programs
// take for a global one, as nothing leaves the laboratory.
func public4(i, n int) netip.Addr { return netip.AddrFrom4([4]byte{11, 77, byte(i + 1), byte(n + 1)}) }

func public6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0x2a, 2: 0x77, 13: byte(i + 1), 15: 1})
}

// private4 returns the address of the n-th host behind the i-th NAT, carrier4 the
// n-th of the i-th router behind another one (RFC 6598).
func private4(i, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 168, byte(i + 1), byte(n + 2)})
}
func carrier4(i, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, byte(i + 1), byte(n + 1)})
}

// New builds a laboratory and starts it. The error is ErrUnavailable where the
// machine forbids what it needs. Close ends it.
func New(config Config) (*Lab, error) {
	if config.MTU == 0 {
		config.MTU = defaultMTU
	}
	if config.MTU < leastMTU || config.MTU > 65535 {
		return nil, fmt.Errorf("an MTU of %d is not between %d and 65535", config.MTU, leastMTU)
	}
	if config.Memory <= 0 {
		config.Memory = defaultMemory
	}
	if len(config.Hosts) == 0 || len(config.Hosts)+len(config.Routers) > mostHosts {
		return nil, fmt.Errorf("a laboratory has 1 to %d hosts and routers, not %d", mostHosts, len(config.Hosts)+len(config.Routers))
	}
	if config.Hops < 0 || config.Hops > mostHops {
		return nil, fmt.Errorf("%d hops are not between 0 and %d", config.Hops, mostHops)
	}
	l := &Lab{
		byAddr: map[netip.Addr]*node{}, hops: config.Hops, start: time.Now(), stopped: make(chan struct{}), wake: -1,
		buffers: buffers{size: config.MTU, limit: max(64, config.Memory/config.MTU)},
	}
	l.close = sync.OnceValue(l.closeOnce)
	for i, r := range config.Routers {
		if err := l.addRouter(i, r, config); err != nil {
			return nil, fmt.Errorf("router %q: %w", r.Name, err)
		}
	}
	for i, h := range config.Hosts {
		if err := l.add(i, h, config); err != nil {
			l.release()
			return nil, fmt.Errorf("host %q: %w", h.Name, err)
		}
	}
	var err error
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.release()
		return nil, err
	}
	for _, h := range l.hosts {
		l.polls = append(l.polls, unix.PollFd{Fd: int32(h.tun), Events: unix.POLLIN})
	}
	l.polls = append(l.polls, unix.PollFd{Fd: int32(l.wake), Events: unix.POLLIN})
	go l.run()
	return l, nil
}

func (l *Lab) add(i int, c HostConfig, config Config) error {
	if c.Name == "" || l.Host(c.Name) != nil {
		return errors.New("the name is empty or taken")
	}
	if err := errors.Join(c.Up.check(), c.Down.check()); err != nil {
		return err
	}
	n := &node{lab: l, name: c.Name, up: newPipe(c.Up, config.Seed, uint64(4*i)), down: newPipe(c.Down, config.Seed, uint64(4*i+1))}
	h := &Host{lab: l, name: c.Name, tun: -1, node: n}
	n.host = h
	if err := l.place(i, h, c, config); err != nil {
		return err
	}
	addrs := []netip.Addr{h.addr}
	if h.v6.IsValid() {
		addrs = append(addrs, h.v6)
	}
	var err error
	if h.ns, err = NewNamespace(); err != nil {
		return err
	}
	l.hosts = append(l.hosts, h)
	h.tun, err = h.ns.open(config.MTU, addrs)
	return err
}

// place gives a host its addresses, and the NAT that it has for itself.
func (l *Lab) place(i int, h *Host, c HostConfig, config Config) error {
	n := h.node
	outside := func(k int) netip.Addr { return public4(i, k) }
	if c.Behind != "" {
		at := slices.IndexFunc(l.routers, func(r *Router) bool { return r.node.name == c.Behind })
		if at < 0 {
			return fmt.Errorf("there is no router %q", c.Behind)
		}
		if n.router = l.routers[at].node; translates(n.router.config, public4(i, 0)) {
			outside = func(int) netip.Addr { return private4(len(config.Hosts)+at, len(n.router.inside)) }
		}
	}
	h.addr, h.v6 = outside(0), public6(i)
	if c.Addr.IsValid() || c.Addr6.IsValid() {
		if c.NAT != nil || c.Behind != "" || c.Addr.Is6() || c.Addr6.Is4() || l.byAddr[c.Addr] != nil || l.byAddr[c.Addr6] != nil {
			return fmt.Errorf("%v and %v cannot be its addresses", c.Addr, c.Addr6)
		}
		if c.Addr.IsValid() {
			h.addr = c.Addr
		}
		if c.Addr6.IsValid() {
			h.v6 = c.Addr6
		}
	}
	l.enter(n, h.addr)
	if c.NAT != nil {
		if err := c.NAT.Check(); err != nil {
			return err
		}
		n.config, n.external = c.NAT, []netip.Addr{h.addr}
		for k := 1; k < c.NAT.Count(); k++ {
			n.external = append(n.external, outside(k))
			l.enter(n, n.external[k])
		}
		if translates(c.NAT, h.addr) {
			h.addr = private4(i, 0)
		}
		var err error
		if n.nat, err = natsim.New(*c.NAT, n.external, config.Seed^uint64(i)<<32); err != nil {
			return err
		}
	}
	for r := n; r != nil; r = r.router {
		if r.config != nil && r.config.IPv6 == natsim.IPv6Off {
			h.v6 = netip.Addr{}
			return nil
		}
	}
	l.enter(n, h.v6)
	return nil
}

// release gives back what New has made.
func (l *Lab) release() {
	for _, h := range l.hosts {
		h.ns.Close()
		if h.tun >= 0 {
			_ = unix.Close(h.tun)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake >= 0 {
		_ = unix.Close(l.wake)
		l.wake = -1
	}
}

// Close ends the laboratory. Commands that Host.Start started are killed. It
// returns when nothing is left but what processes in the namespaces still hold.
func (l *Lab) Close() error { return l.close() }

func (l *Lab) closeOnce() error {
	l.order(func() { l.closed = true })
	<-l.stopped
	l.release()
	return nil
}

// Hosts returns the hosts in the order of the configuration.
func (l *Lab) Hosts() []*Host { return l.hosts }

// Host returns the host of that name, or nil.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.hosts {
		if h.name == name {
			return h
		}
	}
	return nil
}

// order has the loop run f between packets and waits for it. It does nothing when
// the laboratory is closed.
func (l *Lab) order(f func()) {
	done := make(chan struct{})
	l.mu.Lock()
	if l.wake >= 0 {
		l.orders = append(l.orders, func() { defer close(done); f() })
		// It fails only when the counter is full, and then the loop wakes anyway.
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	l.mu.Unlock()
	select {
	case <-done:
	case <-l.stopped:
	}
}

// Name is the name in the configuration.
func (h *Host) Name() string { return h.name }

// Addr is the IPv4 address of the host's interface: behind a NAT a private one.
func (h *Host) Addr() netip.Addr { return h.addr }

// Addr6 is the IPv6 address of the host's interface. It is not valid behind a NAT
// that drops IPv6.
func (h *Host) Addr6() netip.Addr { return h.v6 }

// Public is the IPv4 address under which others see the host now.
func (h *Host) Public() netip.Addr {
	a := h.addr
	h.lab.order(func() {
		for n := h.node; n != nil; n = n.router {
			if translates(n.config, a) {
				a = n.nat.External()
			}
		}
	})
	return a
}

// Namespace is the host's network namespace. It ends with the laboratory.
func (h *Host) Namespace() *Namespace { return h.ns }

// Do, Start and Run are those of the host's namespace.
func (h *Host) Do(f func())                   { h.ns.Do(f) }
func (h *Host) Start(command *exec.Cmd) error { return h.ns.Start(command) }
func (h *Host) Run(command *exec.Cmd) error   { return h.ns.Run(command) }

// ChangeUp changes what the host's link does to packets from the host, by words
// as Shape.Set has them.
func (h *Host) ChangeUp(words ...string) error { return h.node.change(&h.node.up, words) }

// ChangeDown is ChangeUp for packets to the host.
func (h *Host) ChangeDown(words ...string) error { return h.node.change(&h.node.down, words) }

// Change is ChangeUp and ChangeDown.
func (h *Host) Change(words ...string) error {
	return errors.Join(h.ChangeUp(words...), h.ChangeDown(words...))
}

// Rebind has the host's NAT forget all mappings, as one that restarts: what the
// host sends next comes from another port, and with address from another address.
// It fails without a NAT of the
// host's own.
func (h *Host) Rebind(address bool) (err error) {
	h.lab.order(func() {
		if h.node.nat == nil {
			err = fmt.Errorf("%s has no NAT", h.name)
			return
		}
		h.node.nat.Reboot(address)
	})
	return err
}

// Counters returns those of both directions of the host's link.
func (h *Host) Counters() (up, down Counters) {
	h.lab.order(func() { up, down = h.node.up.count, h.node.down.count })
	return up, down
}

// now is the time since the laboratory's start in nanoseconds.
func (l *Lab) now() int64 { return int64(time.Since(l.start)) }

// readTogether is how many packets are taken from one host before those that are
// due go first.
const readTogether = 32

// run is the loop that moves packets, on a thread of its own.
func (l *Lab) run() {
	defer close(l.stopped)
	runtime.LockOSThread() // not unlocked: the thread's settings end with it
	// Timers that are exact, and precedence where allowed: the link's accuracy must
	// not depend on how busy its ends are.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -15)
	for !l.closed {
		l.releaseDue()
		var wait *unix.Timespec
		if l.timeline.len() > 0 {
			t := unix.NsecToTimespec(max(0, l.timeline.first()-l.now()))
			wait = &t
		}
		if _, err := unix.Ppoll(l.polls, wait, nil); err != nil {
			continue // a signal
		}
		for i, h := range l.hosts {
			if l.polls[i].Revents != 0 {
				l.read(h)
			}
		}
		if l.polls[len(l.hosts)].Revents != 0 {
			l.obey()
		}
	}
}

// obey runs what order was given.
func (l *Lab) obey() {
	var counter [8]byte
	_, _ = unix.Read(l.wake, counter[:])
	l.mu.Lock()
	orders := l.orders
	l.orders = nil
	l.mu.Unlock()
	for _, f := range orders {
		f()
	}
}

// releaseDue moves the packets that are due.
func (l *Lab) releaseDue() {
	for now := l.now(); l.timeline.len() > 0 && l.timeline.first() <= now; {
		p := l.timeline.pop()
		if p.up {
			l.cross(p.node, p.data, p.due)
		} else {
			l.deliver(p.node, p.data, l.now())
		}
	}
}

// read takes packets that a host sends.
func (l *Lab) read(h *Host) {
	for range readTogether {
		buffer := l.buffers.take()
		if buffer == nil {
			h.node.up.count.Refused++
			var discard [1]byte
			if _, err := unix.Read(h.tun, discard[:]); err != nil {
				return
			}
			continue
		}
		n, err := unix.Read(h.tun, buffer)
		if err != nil || n <= 0 {
			l.buffers.give(buffer)
			return
		}
		l.leave(h.node, buffer[:n], l.now())
	}
}

// schedule has a pipe decide about a packet.
func (l *Lab) schedule(p *pipe, n *node, up bool, data []byte, now int64) {
	due, copies := p.admit(now, len(data))
	if copies == 0 {
		l.buffers.give(data)
		return
	}
	if copies == 2 {
		if second := l.buffers.take(); second != nil {
			second = second[:copy(second, data)]
			l.timeline.push(packet{due: due[1], data: second, up: up, node: n})
		}
	}
	p.count.Delivered += uint64(copies)
	if due[0] > now || (l.timeline.len() > 0 && l.timeline.first() <= due[0]) {
		l.timeline.push(packet{due: due[0], data: data, up: up, node: n})
	} else if up {
		l.cross(n, data, now)
	} else {
		l.deliver(n, data, now)
	}
}

// tell tells a host at once that its packet is too large.
func (l *Lab) tell(h *Host, data []byte, mtu int) {
	if message := tooBig(l.notice[:], data, mtu, router4, router6); message != nil {
		// The kernel may refuse it, as a network may lose it.
		_, _ = unix.Write(h.tun, message)
	}
}
