package linklab

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable says that this machine does not let the caller make network
// namespaces or TUN devices. It wraps the reason.
var ErrUnavailable = errors.New("no link laboratory here")

// unavailable marks refusals of the machine as ErrUnavailable.
func unavailable(what string, err error) error {
	for _, refusal := range []error{
		unix.EPERM, unix.EACCES, unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.ENOSPC, unix.EUSERS,
	} {
		if errors.Is(err, refusal) {
			return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, err)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Namespace is a network namespace and the one thread in it, which ends with it.
// It lasts as long as its file, its thread or a program in it. Its methods may be
// called by any goroutine; none but Close after Close.
type Namespace struct {
	file *os.File
	work chan func()
	done chan struct{}
}

// NewNamespace makes one in which nothing is up. The error is ErrUnavailable where the
// machine forbids it. Close ends it.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{work: make(chan func()), done: make(chan struct{})}
	made := make(chan error)
	go func() {
		defer close(n.done)
		// Never unlocked: the thread ends with the goroutine, and nobody else
		// finds himself in the namespace.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			made <- unavailable("make a network namespace", err)
			return
		}
		n.file, err = os.Open("/proc/thread-self/ns/net")
		made <- err
		if err != nil {
			return
		}
		for f := range n.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		<-n.done
		return nil, err
	}
	return n, nil
}

// Path is the namespace's file, as other processes of the same user may open it. It
// is good until Close.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Do runs f on a thread in the namespace and waits for it: sockets that f itself
// opens are there, wherever they are used. f should not wait for long: the next Do or
// Start waits for it.
func (n *Namespace) Do(f func()) {
	ready := make(chan struct{})
	n.work <- func() {
		defer close(ready)
		f()
	}
	<-ready
}

// Close ends the namespace. Commands that Start started are killed.
func (n *Namespace) Close() {
	close(n.work)
	<-n.done
	_ = n.file.Close()
}

// Start starts a command in the namespace. It is killed by Close, and when this
// process ends.
func (n *Namespace) Start(command *exec.Cmd) (err error) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Pdeathsig = syscall.SIGKILL
	n.Do(func() { err = command.Start() })
	return err
}

// Run starts a command in the namespace and waits for its end.
func (n *Namespace) Run(command *exec.Cmd) error {
	if err := n.Start(command); err != nil {
		return err
	}
	return command.Wait()
}

const (
	interfaceName = "link0"
	// ring is how many packets of the host's the device holds. It is emptied within
	// a millisecond or so.
	ring = 8192
)

// open makes the namespace's one network device, with addresses and routes, and
// returns its other end, which does not block.
func (n *Namespace) open(mtu int, addrs []netip.Addr) (fd int, err error) {
	n.Do(func() {
		fd, err = openTUN(mtu, addrs)
	})
	return fd, err
}

func openTUN(mtu int, addrs []netip.Addr) (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, unavailable("open /dev/net/tun", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	request, err := unix.NewIfreq(interfaceName)
	if err != nil {
		return -1, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return -1, unavailable("make a TUN device", err)
	}
	return fd, configure(mtu, addrs)
}

// configure starts the interfaces of the namespace of the calling thread.
func configure(mtu int, addrs []netip.Addr) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	index := func(name string) (uint32, error) {
		request, err := unix.NewIfreq(name)
		if err != nil {
			return 0, err
		}
		err = unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, request)
		return request.Uint32(), err
	}
	link, err := openNetlink()
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer link.close()
	for name, size := range map[string]int{"lo": 0, interfaceName: mtu} {
		i, err := index(name)
		if err == nil {
			err = link.up(i, uint32(size), ring)
		}
		if err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
	}
	i, err := index(interfaceName)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := link.address(i, a); err != nil {
			return fmt.Errorf("give %s the address %v: %w", interfaceName, a, err)
		}
		if err := link.route(i, a); err != nil {
			return fmt.Errorf("route by %v: %w", a, err)
		}
	}
	for _, a := range addrs {
		if a.Is6() {
			if err := await6(a); err != nil {
				return err
			}
		}
	}
	return nil
}

// await6 waits until the kernel takes what is sent to an address of IPv6 for its own,
// in the namespace of the calling thread. It sees to that in the background, later
// when it is busy.
func await6(a netip.Addr) error {
	const (
		patience = 10 * time.Second
		local    = 0x80000000 // RTF_LOCAL of linux/ipv6_route.h
	)
	want := hex.EncodeToString(a.AsSlice())
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(time.Millisecond) {
		table, err := os.ReadFile("/proc/thread-self/net/ipv6_route")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			// Destination, its prefix, source, its prefix, next hop, metric, references,
			// use, flags, interface.
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[0] != want || fields[1] != "80" {
				continue
			}
			if flags, err := strconv.ParseUint(fields[8], 16, 32); err == nil && flags&local != 0 {
				return nil
			}
		}
	}
	return fmt.Errorf("%v does not work within %v", a, patience)
}
