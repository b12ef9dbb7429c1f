//go:build linux

// Command linklab runs programs at the ends of a link that is as bad as asked for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/libcrust/libcrust/tests/linklab"
)

const usage = `linklab runs programs at the ends of a link that is as bad as asked for.

  linklab run [SETTING...] -- COMMAND_A... [-- COMMAND_B...]
  linklab enter HOST -- COMMAND...     run a command at a host of the laboratory around
  linklab tell WORD...                 change the laboratory around

run makes two hosts, a and b, in network namespaces, and a link between them.
COMMAND_B starts first. When COMMAND_A ends, COMMAND_B is told to end (SIGTERM,
after 5 s SIGKILL), and linklab ends with the status of COMMAND_A. Nothing is left.
{a}, {b}, {a6} and {b6} in commands become the addresses of the hosts.

Example: 200 Mbit/s and 40 ms there and back, and one packet in a hundred lost:
  linklab run --delay 20ms --loss 1% --rate 200mbit -- ping -c 10 {b}

Settings of both directions, each also with --up-... (a to b) and --down-... (b to a):
  --delay 20ms       time on the way
  --jitter 5ms       added or taken off, without changing the order
  --loss 1%          share of packets lost; --loss-burst 4: in runs of that mean length
  --reorder 1%       share of packets held back; --reorder-by 5ms: for how long
  --duplicate 1%     share of packets that arrive twice
  --rate 200mbit     bits per second; --queue 1mb: bytes that wait (50 ms of the rate
                     if not given); --burst 64kb: bytes that pass at once after a pause
  --mtu 1280         largest IP packet; --icmp on: tell the sender, not swallow it
Settings of the laboratory:
  --nat-a KIND       put a NAT between a and its link; --nat-b KIND
  --carrier-a KIND   and another one behind that link; --carrier-b KIND
  --nat KIND         put a and b behind one NAT together
                     KIND is full-cone, cone, home, restricted, symmetric, sequential,
                     block or firewall, and words with commas between:
                     mapping=independent|address|address-port, filter=(the same),
                     ports=random|preserve|sequential, step=1, low=1024, high=65535,
                     parity=on, noise=20 (mappings of others per second); each of these
                     but noise also with tcp- in front; timeout=30s, tcp-timeout=2h4m,
                     tcp-opening=2m, refresh=on (by what comes in), strangers=drop|
                     refuse|accept|punish, punishment=30s, hairpin=on, arbitrary=on
                     (any of its addresses), addresses=2, udp=off, ipv6=off|firewall|open
  --hops 8           routers of others on the way, which lower the TTL
  --seed 7           repeat the fates of packets; --interface-mtu 1500: of the hosts

tell, or lines on the socket that LINKLAB_CONTROL names; each is answered by one line:
  set up|down|both WORD...    delay=50ms loss=0 rate=1mbit ... as above
  cut [up|down|both]          drop everything; restore [up|down|both]
  rebind a|b [address]        its NAT forgets: other ports, and another address
  address a|b                 its public address now
  stats                       the counters, as JSON
Commands find in their environment: LINKLAB_CONTROL, LINKLAB_NS_A, LINKLAB_NS_B,
LINKLAB_ADDR_A, LINKLAB_ADDR_B.
`

func main() {
	status, err := dispatch(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "linklab: %v\n", err)
		if status == 0 {
			status = 1
		}
	}
	os.Exit(status)
}

func dispatch(args []string, out io.Writer) (status int, err error) {
	if len(args) == 0 {
		return 2, errors.New("what to do? See linklab --help")
	}
	switch args[0] {
	case "run":
		return run(args[1:], out)
	case "enter":
		return 0, enter(args[1:])
	case "tell":
		return 0, tell(args[1:], out)
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(out, usage)
		return 0, err
	}
	return 2, fmt.Errorf("there is no %q; see linklab --help", args[0])
}

// shapeKeys are the settings of a direction.
var shapeKeys = []string{
	"delay", "jitter", "loss", "loss-burst", "reorder", "reorder-by", "duplicate", "rate", "burst", "queue", "mtu", "icmp",
}

// settings is what the flags of run ask for.
type settings struct {
	config   linklab.Config
	up, down linklab.Shape
	commands [][]string
}

func parse(args []string) (*settings, error) {
	s := &settings{config: linklab.Config{Hosts: []linklab.HostConfig{{Name: "a"}, {Name: "b"}}, Seed: 1}}
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var both, up, down []string
	for _, key := range shapeKeys {
		for prefix, words := range map[string]*[]string{"": &both, "up-": &up, "down-": &down} {
			flags.Func(prefix+key, "", func(value string) error {
				*words = append(*words, key+"="+value)
				return nil
			})
		}
	}
	for i, name := range []string{"a", "b"} {
		flags.Func("nat-"+name, "", func(value string) (err error) {
			s.config.Hosts[i].NAT, err = linklab.ParseNAT(strings.Split(value, ",")...)
			return err
		})
		flags.Func("carrier-"+name, "", func(value string) error { return s.router(value, i) })
	}
	flags.Func("nat", "", func(value string) error { return s.router(value, 0, 1) })
	flags.IntVar(&s.config.Hops, "hops", 0, "")
	flags.Uint64Var(&s.config.Seed, "seed", 1, "")
	flags.IntVar(&s.config.MTU, "interface-mtu", 0, "")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if err := s.up.Set(append(both, up...)...); err != nil {
		return nil, err
	}
	if err := s.down.Set(append(both, down...)...); err != nil {
		return nil, err
	}
	// The link of a is the one between them; that of b is perfect.
	s.config.Hosts[0].Up, s.config.Hosts[0].Down = s.up, s.down
	s.commands = split(flags.Args())
	if len(s.commands) == 0 || len(s.commands) > 2 {
		return nil, errors.New("one or two commands must follow, each behind --; see linklab --help")
	}
	return s, nil
}

// router puts a router of a kind before hosts.
func (s *settings) router(kind string, hosts ...int) error {
	nat, err := linklab.ParseNAT(strings.Split(kind, ",")...)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("router%d", len(s.config.Routers))
	s.config.Routers = append(s.config.Routers, linklab.RouterConfig{Name: name, NAT: *nat})
	for _, i := range hosts {
		if s.config.Hosts[i].Behind != "" {
			return errors.New("a host is behind one carrier or one common NAT")
		}
		s.config.Hosts[i].Behind = name
	}
	return nil
}

// split cuts words at "--".
func split(words []string) (commands [][]string) {
	begin := 0
	for i := range len(words) + 1 {
		if i == len(words) || words[i] == "--" {
			if i > begin {
				commands = append(commands, words[begin:i])
			}
			begin = i + 1
		}
	}
	return commands
}

// run runs the commands and returns the status of the first.
func run(args []string, out io.Writer) (status int, err error) {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, err = io.WriteString(out, usage)
		return 0, err
	}
	if err != nil {
		return 2, err
	}
	lab, err := linklab.New(s.config)
	if errors.Is(err, linklab.ErrUnavailable) && os.Getuid() != 0 {
		return asRoot()
	}
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	control, err := serveControl(lab)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, control.close()) }()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	commands := make([]*exec.Cmd, len(s.commands))
	for i, words := range s.commands {
		commands[i] = prepare(ctx, lab, words, control.path)
	}
	commands[0].Stdin = os.Stdin
	if len(commands) == 2 {
		b := commands[1]
		if err := lab.Host("b").Start(b); err != nil {
			return 1, err
		}
		// How it ends says nothing: it is told to.
		defer func() { _ = end(b) }()
	}
	err = lab.Host("a").Run(commands[0])
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status = exit.ExitCode(); status < 0 {
			status = 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
		}
		return status, nil
	}
	return 0, err
}

const patience = 5 * time.Second

// prepare makes a command that ends when ctx does.
func prepare(ctx context.Context, lab *linklab.Lab, words []string, control string) *exec.Cmd {
	a, b := lab.Host("a"), lab.Host("b")
	replace := strings.NewReplacer("{a}", a.Public().String(), "{b}", b.Public().String(),
		"{a6}", a.Addr6().String(), "{b6}", b.Addr6().String())
	for i := range words {
		words[i] = replace.Replace(words[i])
	}
	command := exec.CommandContext(ctx, words[0], words[1:]...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = patience
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "LINKLAB_CONTROL="+control,
		"LINKLAB_NS_A="+a.Namespace().Path(), "LINKLAB_NS_B="+b.Namespace().Path(),
		"LINKLAB_ADDR_A="+a.Public().String(), "LINKLAB_ADDR_B="+b.Public().String())
	return command
}

// end tells a command to end, and waits.
func end(command *exec.Cmd) error {
	_ = command.Process.Signal(syscall.SIGTERM) // it may have ended
	late := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
	defer late.Stop()
	return command.Wait()
}

// asRoot runs this program again as root of a user namespace of its own.
func asRoot() (status int, err error) {
	const again = "LINKLAB_AGAIN"
	if os.Getenv(again) != "" {
		return 1, errors.New("this needs root, or user namespaces and /dev/net/tun open to all")
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	command := exec.Command(self, os.Args[1:]...)
	command.Env = append(os.Environ(), again+"=1")
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	runtime.LockOSThread() // the signal would come when the thread ends
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// enter replaces this program by a command in a host's namespace.
func enter(args []string) error {
	if len(args) < 2 {
		return errors.New("say enter HOST -- COMMAND")
	}
	words := args[1:]
	if words[0] == "--" {
		words = words[1:]
	}
	path := os.Getenv("LINKLAB_NS_" + strings.ToUpper(args[0]))
	if path == "" || len(words) == 0 {
		return fmt.Errorf("there is no host %q around, or no command", args[0])
	}
	program, err := exec.LookPath(words[0])
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", args[0], err)
	}
	return syscall.Exec(program, words, os.Environ())
}
