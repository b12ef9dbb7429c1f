//go:build linux

package soak

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/linklab"
)

const (
	port      = 5483
	linkDelay = 5 * time.Millisecond // of each link, in each direction
	disk      = 1 << 20              // of a node whose disk may be full: room for the cache
	patience  = 20 * time.Second     // for an answer of a process
)

// public tells whether a node is behind no NAT. Of ten nodes four are not, one is behind
// a NAT through which only relays lead, and the others can be punched.
func public(node int) bool { return node%5 < 2 }

// nat returns the words of a node's NAT.
func nat(node int) string {
	switch {
	case public(node):
		return ""
	case node%10 == 9:
		return "symmetric"
	case node%2 == 0:
		return "restricted"
	}
	return "home"
}

// field is where the soak takes place: the laboratory, its processes and the journals.
type field struct {
	lab       *linklab.Lab
	program   string
	directory string
	nodes     []*process
	rest      time.Duration // between two messages of a node
}

// process is a node and its present process.
type process struct {
	*field
	host *linklab.Host
	orders

	mu      sync.Mutex // of what follows; held while it is being asked
	command *exec.Cmd
	input   io.WriteCloser
	answers chan state
	stderr  *strings.Builder
	now     *life
	lives   []*life
	spans   []span
	busy    bool // a fault is at work
}

// build makes the field. Program is what to start: this test's own.
func build(p plan, program, directory string, rest time.Duration) (*field, error) {
	f := &field{program: program, directory: directory, rest: rest}
	way := linklab.Shape{Delay: linkDelay}
	config := linklab.Config{Seed: p.seed}
	for i := range p.nodes {
		h := linklab.HostConfig{Name: fmt.Sprint("node", i), Up: way, Down: way}
		if words := nat(i); words != "" {
			n, err := linklab.ParseNAT(words)
			if err != nil {
				return nil, err
			}
			h.NAT = n
		}
		config.Hosts = append(config.Hosts, h)
	}
	var err error
	if f.lab, err = linklab.New(config); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(p.seed, 0x6b657973))
	seeds := make([][]byte, p.nodes)
	for i := range seeds {
		seeds[i] = make([]byte, 32)
		for k := range seeds[i] {
			seeds[i][k] = byte(random.Uint32())
		}
	}
	for i, h := range f.lab.Hosts() {
		n := &process{field: f, host: h}
		n.orders = orders{Node: i, Seeds: seeds, At: map[int]string{}, Every: rest, Relay: public(i)}
		n.Listen = []string{fmt.Sprintf("tcp://0.0.0.0:%d", port), fmt.Sprintf("utp://0.0.0.0:%d", port)}
		for k := 1; k <= min(4, p.nodes-1); k++ {
			to := (i + k) % p.nodes
			n.Keep = append(n.Keep, to)
			if public(to) {
				n.At[to] = fmt.Sprintf("%s://%v:%d", []string{"tcp", "utp"}[(i+to)%2], f.lab.Hosts()[to].Addr(), port)
			}
		}
		own := filepath.Join(directory, h.Name())
		n.Cache = filepath.Join(own, "cache")
		if n.Disk = disk; i%2 == 1 {
			n.Disk = 0
		}
		if err := os.MkdirAll(own, 0o700); err != nil {
			return nil, errors.Join(err, f.lab.Close())
		}
		f.nodes = append(f.nodes, n)
	}
	return f, nil
}

// start starts the next life of a node.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Life = len(p.lives)
	p.Journal = filepath.Join(p.directory, fmt.Sprintf("%s.%d", p.host.Name(), p.Life))
	p.command = exec.Command(p.program)
	p.command.Env = append(os.Environ(), asNode+"=1", "GOMAXPROCS=2")
	// A small disk is mounted where nobody else sees it.
	p.command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	p.stderr = &strings.Builder{}
	p.command.Stderr = p.stderr
	output, err := p.command.StdoutPipe()
	if err != nil {
		return err
	}
	if p.input, err = p.command.StdinPipe(); err != nil {
		return err
	}
	if err := p.host.Start(p.command); err != nil {
		return err
	}
	p.now = &life{node: p.Node, life: p.Life, began: time.Now()}
	p.lives = append(p.lives, p.now)
	answers := make(chan state, 16)
	p.answers = answers
	go func() {
		defer close(answers)
		lines := bufio.NewScanner(output)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var s state
			if json.Unmarshal(lines.Bytes(), &s) != nil {
				s.Err = lines.Text()
			}
			answers <- s
		}
	}()
	text, err := json.Marshal(p.orders)
	if err == nil {
		_, err = p.input.Write(append(text, '\n'))
	}
	return err
}

// ask gives a node a command and returns its answer.
func (p *process) ask(command string) (state, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tell(command)
}

// tell is ask with the lock held.
func (p *process) tell(command string) (state, error) {
	if _, err := fmt.Fprintln(p.input, command); err != nil {
		return state{}, fmt.Errorf("%v: %q: %w", p.now, command, err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case s, ok := <-p.answers:
		switch {
		case !ok:
			return s, fmt.Errorf("%v ended on %q: %s", p.now, command, p.stderr)
		case s.Err != "":
			return s, fmt.Errorf("%v: %q: %s", p.now, command, s.Err)
		}
		return s, nil
	case <-timer.C:
		_ = p.command.Process.Signal(unix.SIGQUIT) // it says what it does instead
		for range p.answers {
		}
		return state{}, fmt.Errorf("%v does not answer %q: %w: %s", p.now, command, p.command.Wait(), p.stderr)
	}
}

// close ends a node in order and checks what it has left behind.
func (p *process) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.ended = time.Now()
	s, err := p.tell("close")
	if err == nil && s.Leaks != "" {
		err = fmt.Errorf("%v has left behind: %s", p.now, s.Leaks)
	}
	if err != nil {
		_ = p.command.Process.Kill() // it may have ended
	}
	return errors.Join(err, p.wait())
}

// wait waits for the end of the process.
func (p *process) wait() error {
	for range p.answers {
	}
	if err := p.command.Wait(); err != nil && !p.now.killed {
		return fmt.Errorf("%v: %w: %s", p.now, err, p.stderr)
	}
	return nil
}

// suffer does what a fault says, and mends it.
func (p *process) suffer(f fault) (err error) {
	p.mu.Lock()
	p.busy = true
	p.mu.Unlock()
	from := time.Now()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.busy = false; f.kind.severs() {
			p.spans = append(p.spans, span{from, time.Now()})
		}
		if err != nil {
			err = fmt.Errorf("%v: %w", f, err)
		}
	}()
	switch f.kind {
	case frozen, hibernation:
		process := p.command.Process
		if err := process.Signal(unix.SIGSTOP); err != nil {
			return err
		}
		time.Sleep(f.span)
		return process.Signal(unix.SIGCONT)
	case full:
		if _, err := p.ask("fill"); err != nil {
			return err
		}
		time.Sleep(f.span)
		_, err := p.ask("free")
		return err
	case poor:
		return p.impoverish(f.span)
	case killed:
		p.mu.Lock()
		p.now.killed, p.now.ended = true, time.Now()
		err := errors.Join(p.command.Process.Kill(), p.wait())
		p.mu.Unlock()
		if err != nil {
			return err
		}
		time.Sleep(f.span)
		return p.start()
	case left:
		if err := p.close(); err != nil {
			return err
		}
		time.Sleep(f.span)
		return p.start()
	case reboot:
		if nat(p.Node) != "" {
			return p.host.Rebind(false)
		}
		f.words = []string{"cut"}
	}
	if err := p.host.Change(f.words...); err != nil {
		return err
	}
	time.Sleep(f.span)
	return p.host.Change(healed(linkDelay)...)
}

// impoverish lets a node open no more descriptors for a while.
func (p *process) impoverish(span time.Duration) error {
	pid := p.command.Process.Pid
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		return err
	}
	limit := before
	limit.Cur = uint64(len(open))
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return err
	}
	time.Sleep(span)
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil)
}

// accounts reads all journals.
func (f *field) accounts() (*accounts, map[int][]span, error) {
	a, spans := &accounts{}, map[int][]span{}
	for _, p := range f.nodes {
		for _, l := range p.lives {
			if err := l.read(filepath.Join(f.directory, fmt.Sprintf("%s.%d", p.host.Name(), l.life))); err != nil {
				return nil, nil, err
			}
			a.lives = append(a.lives, l)
		}
		spans[p.Node] = p.spans
	}
	return a, spans, nil
}
