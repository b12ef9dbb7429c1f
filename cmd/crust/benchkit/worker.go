package benchkit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"
)

// order is what a worker process is to do: the one line that it reads first.
type order struct {
	Role      string `json:"role"` // "client" or "server"
	Transport string `json:"transport"`
	Test      string `json:"test,omitempty"`
	Volume    Volume `json:"volume"`
	Count     int    `json:"count,omitempty"`
	Servers   int    `json:"servers,omitempty"` // of a server: the number of accepting ends
	Profile   string `json:"profile,omitempty"` // file for a processor profile

	Listen netip.Addr `json:"listen"`           // where servers listen
	Server []string   `json:"server,omitempty"` // of a client: words before the command of a server
}

// reply is what a worker answers, a line each: a client's one outcome; a
// server's addresses and then its usage for each detail that it reads.
type reply struct {
	Error     string   `json:"error,omitempty"`
	Outcome   *Outcome `json:"outcome,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Usage     *usage   `json:"usage,omitempty"`
}

// Worker is what a process does that Run has started by Options.Command. It
// reads its order from in, answers to out, and returns when its work is done or
// in ends.
func Worker(ctx context.Context, transports []Transport, in io.Reader, out io.Writer, command func() *exec.Cmd) error {
	lines := bufio.NewScanner(in)
	answers := json.NewEncoder(out)
	if !lines.Scan() {
		return errors.Join(errors.New("a worker needs an order on its standard input"), lines.Err())
	}
	var o order
	if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
		return fmt.Errorf("the worker's order is malformed: %w", err)
	}
	transport, err := FindTransport(transports, o.Transport)
	if err != nil {
		return err
	}
	stopProfile, err := startProfile(o.Profile)
	if err != nil {
		return err
	}
	switch o.Role {
	case "server":
		err = workServer(transport, o.Listen, max(o.Servers, 1), lines, answers)
	case "client":
		err = workClient(ctx, transport, o, answers, command)
	default:
		err = fmt.Errorf("there is no worker of role %q", o.Role)
	}
	err = errors.Join(err, stopProfile())
	if err != nil {
		// Whoever started this worker reports the error.
		return answers.Encode(reply{Error: err.Error()})
	}
	return nil
}

// startProfile starts a processor profile, when a file is given.
func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, nil
}

// workServer holds accepting ends and tells the usage of the process when asked.
func workServer(transport Transport, at netip.Addr, ends int, lines *bufio.Scanner, answers *json.Encoder) (err error) {
	servers, err := listen(transport, at, ends)
	defer func() { err = errors.Join(err, servers.Close()) }()
	if err != nil {
		return err
	}
	if err := answers.Encode(reply{Addresses: servers.addresses()}); err != nil {
		return err
	}
	for lines.Scan() {
		used, err := takeUsage(detail(lines.Text()))
		if err != nil {
			return err
		}
		if err := answers.Encode(reply{Usage: &used}); err != nil {
			return err
		}
	}
	return lines.Err()
}

// servers are the accepting ends of this process.
type servers []Server

func listen(transport Transport, at netip.Addr, ends int) (servers, error) {
	var all servers
	for range ends {
		server, err := transport.Listen(at, func(conn Conn) {
			// The client sees its connection end and reports what it was doing.
			_ = serveTasks(conn)
		})
		if err != nil {
			return all, fmt.Errorf("%s cannot listen: %w", transport.Name(), err)
		}
		all = append(all, server)
	}
	return all, nil
}

func (s servers) addresses() []string {
	list := make([]string, len(s))
	for i, server := range s {
		list[i] = server.Address()
	}
	return list
}

func (s servers) Close() error {
	var errs []error
	for _, server := range s {
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}

// workClient measures one run against a server process of its own.
func workClient(ctx context.Context, transport Transport, o order, answers *json.Encoder, command func() *exec.Cmd) error {
	test, err := FindTest(o.Test)
	if err != nil {
		return err
	}
	b := &bench{
		transport: transport, test: test, volume: o.Volume.withDefaults(), count: o.Count,
		serve: func(ends int) (serverEnd, error) {
			return startServer(ctx, elsewhere(command(), o.Server), order{
				Role: "server", Transport: o.Transport, Servers: ends, Profile: serverProfile(o.Profile), Listen: o.Listen,
			})
		},
	}
	outcome, err := test.measure(ctx, b)
	if err != nil {
		return err
	}
	return answers.Encode(reply{Outcome: &outcome})
}

// elsewhere puts words before a command.
func elsewhere(command *exec.Cmd, words []string) *exec.Cmd {
	if len(words) == 0 {
		return command
	}
	there := exec.Command(words[0], slices.Concat(words[1:], command.Args)...)
	there.Env = command.Env
	return there
}

// serverProfile names the server's profile beside the client's.
func serverProfile(client string) string {
	if client == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(client), strings.TrimSuffix(filepath.Base(client), "-client.pprof")+"-server.pprof")
}

// serverEnd is the accepting side as the measuring process sees it.
type serverEnd interface {
	Addresses() []string
	// Usage asks for the counters of the server's process.
	Usage(how detail) (usage, error)
	Close() error
}

// localServer is an accepting side in this process. It closes when ctx ends,
// which ends whatever waits for it.
type localServer struct {
	servers servers
	stop    func() bool
	close   func() error
}

func startLocalServer(ctx context.Context, transport Transport, at netip.Addr, ends int) (serverEnd, error) {
	all, err := listen(transport, at, ends)
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	s := &localServer{servers: all, close: sync.OnceValue(all.Close)}
	s.stop = context.AfterFunc(ctx, func() {
		_ = s.close() // Close tells the error
	})
	return s, nil
}

func (s *localServer) Addresses() []string             { return s.servers.addresses() }
func (s *localServer) Usage(how detail) (usage, error) { return takeUsage(how) }

func (s *localServer) Close() error {
	s.stop()
	return s.close()
}

// remoteEnd is the address of an accepting end that others run.
type remoteEnd string

func (r remoteEnd) Addresses() []string { return []string{string(r)} }
func (remoteEnd) Usage(detail) (usage, error) {
	return usage{}, errors.New("the usage of a remote end is not known")
}
func (remoteEnd) Close() error { return nil }

// serverProcess is an accepting side in a process of its own.
type serverProcess struct {
	*process
	addresses []string
}

func startServer(ctx context.Context, command *exec.Cmd, o order) (serverEnd, error) {
	p, err := startProcess(ctx, command, o)
	if err != nil {
		return nil, err
	}
	answer, err := p.answer()
	if err == nil && len(answer.Addresses) != o.Servers {
		err = fmt.Errorf("the server told %d addresses, not %d", len(answer.Addresses), o.Servers)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &serverProcess{process: p, addresses: answer.Addresses}, nil
}

func (s *serverProcess) Addresses() []string { return s.addresses }

func (s *serverProcess) Usage(how detail) (usage, error) {
	if _, err := fmt.Fprintln(s.input, how); err != nil {
		return usage{}, err
	}
	answer, err := s.answer()
	if err != nil {
		return usage{}, err
	}
	if answer.Usage == nil {
		return usage{}, errors.New("the server did not tell its usage")
	}
	return *answer.Usage, nil
}

// process is a worker that this process has started.
type process struct {
	command *exec.Cmd
	stop    func() bool
	input   io.WriteCloser
	output  *bufio.Scanner
	errors  *strings.Builder
}

// startProcess starts a worker and gives it its order. When ctx ends, the worker
// is killed.
func startProcess(ctx context.Context, command *exec.Cmd, o order) (*process, error) {
	p := &process{command: command, errors: &strings.Builder{}}
	var err error
	if p.input, err = command.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.output = bufio.NewScanner(output)
	p.output.Buffer(nil, 1<<20)
	command.Stderr = p.errors
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	p.stop = context.AfterFunc(ctx, func() {
		_ = command.Process.Kill() // it may have ended already
	})
	if err := json.NewEncoder(p.input).Encode(o); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// answer reads one reply.
func (p *process) answer() (reply, error) {
	var r reply
	if !p.output.Scan() {
		return r, errors.Join(errors.New("the worker ended without an answer"), p.output.Err())
	}
	if err := json.Unmarshal(p.output.Bytes(), &r); err != nil {
		return r, fmt.Errorf("the worker answered %q: %w", p.output.Text(), err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// closeTimeout is how long a worker may take to end after it was told to.
const closeTimeout = 15 * time.Second

// Close tells the worker to end and waits until it has.
func (p *process) Close() error {
	err := p.input.Close()
	late := time.AfterFunc(closeTimeout, func() {
		_ = p.command.Process.Kill() // it may have ended already
	})
	defer late.Stop()
	if waited := p.command.Wait(); waited != nil {
		err = fmt.Errorf("a worker failed: %w: %s", waited, strings.TrimSpace(p.errors.String()))
	}
	p.stop()
	return err
}
