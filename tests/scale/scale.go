//go:build linux

// Package scale measures one peer that is connected to very many: hubs and clients are
// processes of their own on the loopback network. What a hub and a client are is a
// Stack, so that libcrust can be measured beside others.
package scale

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Stack makes hubs and clients.
type Stack interface {
	Name() string
	// Hub listens on the loopback network.
	Hub() (Hub, error)
	// Client does not listen.
	Client() (Client, error)
}

// Hub is a peer to which many connect.
type Hub interface {
	Address() string
	Sessions() int
	// Traffic returns the bytes that were sent and received, 0 when it cannot tell.
	Traffic() uint64
	// Broadcast sends a message to all and returns when all have it, or
	// errors.ErrUnsupported.
	Broadcast(ctx context.Context, message []byte) error
	Close() error
}

// Client is a peer that connects to hubs.
type Client interface {
	Connect(ctx context.Context, address string) error
	Close() error
}

// role is the environment variable that makes a program of this package a child.
const role = "CRUST_SCALE_ROLE"

// perWorker is how many clients one process has.
const perWorker = 500

// patience is for what is done with thousands of sessions.
const patience = 3 * time.Minute

// settled is how long it may take until a hub has the sessions that its clients have.
const settled = 20 * time.Second

// Rest is what a hub was like while nothing was sent.
type Rest struct {
	Sessions   int
	Memory     uint64  // of the Go runtime in use: heap and stacks, after a collection, in bytes
	Resident   uint64  // of the process, in bytes
	CPU        float64 // share of one core
	Traffic    float64 // bytes a second, both ways
	Worst      uint64  // most bytes within 100 ms
	Goroutines int
}

// Child does what a child does, if this process is one, and reports whether it was.
// Programs that use Run call it first.
func Child(stacks ...Stack) bool {
	words := strings.Fields(os.Getenv(role))
	if len(words) != 2 {
		return false
	}
	for _, s := range stacks {
		if s.Name() != words[1] {
			continue
		}
		var err error
		if words[0] == "hub" {
			err = hub(s)
		} else {
			err = worker(s)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return true
	}
	fmt.Fprintln(os.Stderr, "there is no stack", words[1])
	os.Exit(1)
	return true
}

// answer is a line of JSON from a child.
type answer struct {
	Address string
	Took    time.Duration
	Rest    Rest
	Err     string
}

// obey answers the lines that a child is sent.
func obey(do func(words []string) (answer, error)) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		a, err := do(strings.Fields(lines.Text()))
		if err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// hub is the process of a hub.
func hub(s Stack) error {
	h, err := s.Hub()
	if err != nil {
		return err
	}
	err = obey(func(words []string) (a answer, err error) {
		switch words[0] {
		case "address":
			a.Address = h.Address()
		case "sessions":
			n := 0
			if _, err := fmt.Sscan(words[1], &n); err != nil {
				return a, err
			}
			for began := time.Now(); h.Sessions() != n; time.Sleep(10 * time.Millisecond) {
				if time.Since(began) > settled {
					return a, fmt.Errorf("the hub has %d sessions, want %d", h.Sessions(), n)
				}
			}
		case "rest":
			span, err := time.ParseDuration(words[1])
			if err != nil {
				return a, err
			}
			a.Rest, err = rest(h, span)
			return a, err
		case "broadcast":
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			began := time.Now()
			err = h.Broadcast(ctx, make([]byte, 100))
			a.Took = time.Since(began)
		}
		return a, err
	})
	return errors.Join(err, h.Close())
}

// rest watches a hub for a while, and then as long again for how even its traffic is.
func rest(h Hub, span time.Duration) (r Rest, err error) {
	r.Sessions = h.Sessions()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Memory, r.Goroutines = m.HeapInuse+m.StackInuse, runtime.NumGoroutine()
	if r.Resident, err = resident(); err != nil {
		return r, err
	}
	cpu, bytes := used(), h.Traffic()
	time.Sleep(span)
	r.CPU = float64(used()-cpu) / float64(span)
	r.Traffic = float64(h.Traffic()-bytes) / span.Seconds()
	if r.Traffic == 0 {
		return r, nil
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := h.Traffic()
	for began := time.Now(); time.Since(began) < span; {
		<-tick.C
		now := h.Traffic()
		r.Worst, last = max(r.Worst, now-last), now
	}
	return r, nil
}

// resident returns the memory that the process holds.
func resident() (uint64, error) {
	text, err := os.ReadFile("/proc/self/statm")
	var size, pages uint64
	if err == nil {
		_, err = fmt.Sscan(string(text), &size, &pages)
	}
	return pages * uint64(os.Getpagesize()), err
}

// used is the time of processors that the process has used.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail for the caller itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// worker is a process of clients. "connect N ADDRESS..." has N more clients connect to all.
func worker(s Stack) error {
	var clients []Client
	err := obey(func(words []string) (a answer, err error) {
		n := 0
		if _, err := fmt.Sscan(words[1], &n); err != nil {
			return a, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		began := time.Now()
		fresh := make([]Client, n)
		errs := make([]error, n)
		gate := make(chan struct{}, 32)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				gate <- struct{}{}
				defer func() { <-gate }()
				c, err := s.Client()
				for _, address := range words[2:] {
					if err == nil {
						err = c.Connect(ctx, address)
					}
				}
				fresh[i], errs[i] = c, err
			})
		}
		wg.Wait()
		clients = append(clients, fresh...)
		a.Took = time.Since(began)
		return a, errors.Join(errs...)
	})
	for _, c := range clients {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// child is a process that was started.
type child struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Scanner
}

// begin starts this program as a child.
func begin(s Stack, what string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{command: exec.Command(self)}
	c.command.Env = append(os.Environ(), role+"="+what+" "+s.Name(), "CRUST_PORTMAP=off", "CRUST_BEACON=off")
	c.command.Stderr = os.Stderr
	c.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if c.input, err = c.command.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := c.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.output = bufio.NewScanner(output)
	c.output.Buffer(nil, 1<<20)
	return c, c.command.Start()
}

// ask sends a line and waits for the answer.
func (c *child) ask(format string, arguments ...any) (a answer, err error) {
	if _, err := fmt.Fprintf(c.input, format+"\n", arguments...); err != nil {
		return a, err
	}
	if !c.output.Scan() {
		return a, fmt.Errorf("the child has ended: %w", errors.Join(c.output.Err(), c.command.Wait()))
	}
	if err := json.Unmarshal(c.output.Bytes(), &a); err != nil {
		return a, err
	}
	if a.Err != "" {
		err = errors.New(a.Err)
	}
	return a, err
}

// end ends a child.
func (c *child) end() error {
	_ = c.input.Close() // it may have ended
	late := time.AfterFunc(time.Minute, func() { _ = c.command.Process.Kill() })
	defer late.Stop()
	for c.output.Scan() { // until it has ended
	}
	return c.command.Wait()
}

// Field is hubs and the workers whose clients are connected to all of them.
type Field struct {
	stack   Stack
	hubs    []*child
	workers []*child
	// Addresses are those of the hubs.
	Addresses []string
	clients   int
}

// New starts hubs. Close ends them.
func New(s Stack, hubs int) (*Field, error) {
	f := &Field{stack: s}
	for range hubs {
		h, err := begin(s, "hub")
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.hubs = append(f.hubs, h)
		a, err := h.ask("address")
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.Addresses = append(f.Addresses, a.Address)
	}
	return f, nil
}

// Grow adds clients until there are as many, and returns how long that took.
func (f *Field) Grow(clients int) (took time.Duration, err error) {
	for f.clients < clients {
		if f.clients%perWorker == 0 {
			w, err := begin(f.stack, "worker")
			if err != nil {
				return took, err
			}
			f.workers = append(f.workers, w)
		}
		n := min(clients-f.clients, perWorker-f.clients%perWorker)
		a, err := f.workers[len(f.workers)-1].ask("connect %d %s", n, strings.Join(f.Addresses, " "))
		if err != nil {
			return took, err
		}
		took += a.Took
		f.clients += n
	}
	for _, h := range f.hubs {
		if _, err := h.ask("sessions %d", clients); err != nil {
			return took, err
		}
	}
	return took, nil
}

// Rest measures a hub for twice that long.
func (f *Field) Rest(hub int, span time.Duration) (Rest, error) {
	a, err := f.hubs[hub].ask("rest %v", span)
	return a.Rest, err
}

// Broadcast has a hub send to all its peers and returns how long that took.
func (f *Field) Broadcast(hub int) (time.Duration, error) {
	a, err := f.hubs[hub].ask("broadcast")
	return a.Took, err
}

// Close ends all processes: the clients first.
func (f *Field) Close() (err error) {
	for _, c := range append(f.workers, f.hubs...) {
		err = errors.Join(err, c.end())
	}
	f.workers, f.hubs = nil, nil
	return err
}

// Flood opens connections to a hub's port, writes junk and leaves them open until it
// ends, at a rate and from an address of the loopback network, until ctx ends. It
// returns how many there were.
func Flood(ctx context.Context, to string, from net.IP, rate int) (n int) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: time.Second}
	junk := make([]byte, 200)
	for i := range junk {
		junk[i] = byte(i * 37)
	}
	const most = 2000 // open at a time
	var open []net.Conn
	var mu sync.Mutex
	var wg sync.WaitGroup
	gate := make(chan struct{}, 128)
	defer func() {
		wg.Wait()
		for _, c := range open {
			_ = c.Close() // nothing was to be had of it
		}
	}()
	for began := time.Now(); ctx.Err() == nil; {
		for n < int(time.Since(began).Seconds()*float64(rate)) && ctx.Err() == nil {
			n++
			gate <- struct{}{}
			wg.Go(func() {
				defer func() { <-gate }()
				c, err := dialer.DialContext(ctx, "tcp", to)
				if err != nil {
					return
				}
				_, _ = c.Write(junk) // it may be refused
				mu.Lock()
				defer mu.Unlock()
				if open = append(open, c); len(open) > most {
					_ = open[0].Close()
					open = open[1:]
				}
			})
		}
		<-tick.C
	}
	return n
}

// Heading is above the lines of Line.
const Heading = "sessions   KiB each   RSS each   CPU %   B/s each   worst 100 ms / mean       connected in   broadcast"

// Line writes what was measured of a hub, given what it was like without sessions.
func Line(empty, r Rest, took, broadcast time.Duration) string {
	n := float64(max(1, r.Sessions))
	worst := 0.0
	if r.Traffic > 0 {
		worst = float64(r.Worst) / (r.Traffic / 10)
	}
	each := func(now, before uint64) float64 { return (float64(now) - float64(before)) / n / 1024 }
	return fmt.Sprintf("%8d %10.1f %10.1f %7.2f %10.1f %21.1f %15.2f ms %8.0f ms", r.Sessions, each(r.Memory, empty.Memory), each(r.Resident, empty.Resident),
		100*r.CPU, r.Traffic/n, worst, took.Seconds()*1000, broadcast.Seconds()*1000)
}
