// Package portmap is a laboratory for port mapping: this machine, a router with
// miniupnpd, and a machine outside, in network namespaces of their own.
//
//	this process ── eth0 ── lan0 router wan0 ── out0 outside
//	192.168.77.2            .1  |  5.5.5.1      5.5.5.9
//	2a0a:77::2              ::1 |  2a0a:55::1   2a0a:55::9
//
// The process that uses it must be in a network namespace of its own: see Main.
// It needs ip, nft, nsenter and miniupnpd.
package portmap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Addresses of the laboratory.
const (
	Host, Host6       = "192.168.77.2", "2a0a:77::2"
	Router, Router6   = "192.168.77.1", "fe80::77"
	External          = "5.5.5.1"
	Outside, Outside6 = "5.5.5.9", "2a0a:55::9"
	Neighbour         = "192.168.77.66" // an address in the router's network for whom a test needs
)

// ErrUnavailable says that this machine does not let the caller make network
// namespaces, or lacks a program. It wraps the reason.
var ErrUnavailable = errors.New("no laboratory for port mapping here")

// inside is set in processes that Main has started.
const inside = "CRUST_PORTMAP_LAB"

// Main runs the calling test program again in a network namespace of its own and
// returns its exit status; in there, and where that is not possible, it returns
// what run returns.
func Main(run func() int) int {
	if os.Getenv(inside) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "ip link set lo up: %v: %s\n", err, out)
		}
		return run()
	}
	if err := available(); err != nil {
		return run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose end would be the child's
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return run()
	}
	if err := cmd.Wait(); err != nil {
		return max(1, cmd.ProcessState.ExitCode())
	}
	return 0
}

// available tells what is missing.
func available() error {
	for _, name := range []string{"ip", "nft", "nsenter", "miniupnpd"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("%w: make a network namespace: %w", ErrUnavailable, err)
	}
	return nil
}

// Lab is the router and the machine outside. Its methods are for one goroutine.
type Lab struct {
	dir     string
	router  *holder
	outside *holder
	daemon  *exec.Cmd
	stop    io.Closer // its shell's standard input
	log     *os.File
	zone    int // of conntrack, since the last boot
}

// holder is a process that keeps a namespace.
type holder struct {
	cmd  *exec.Cmd
	hold io.Closer // its standard input
}

func newHolder() (*holder, error) {
	cmd := exec.Command("cat") // ends when this process does
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &holder{cmd, in}, nil
}

func (h *holder) pid() string { return strconv.Itoa(h.cmd.Process.Pid) }

func (h *holder) close() {
	_ = h.hold.Close()
	_ = h.cmd.Wait()
}

// command makes a command that runs in the namespace.
func (h *holder) command(words ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", h.pid(), "-n", "--"}, words...)...)
}

// do runs f on a thread in the namespace.
func (h *holder) do(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		file, err := os.Open("/proc/" + h.pid() + "/ns/net")
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			_ = file.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// New makes the laboratory, without a daemon, and eth0 of this process. dir is
// for files of it.
func New(dir string) (lab *Lab, err error) {
	if os.Getenv(inside) == "" {
		if err := available(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: this process was not started by Main", ErrUnavailable)
	}
	l := &Lab{dir: dir}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.log, err = os.Create(filepath.Join(dir, "miniupnpd.log")); err != nil {
		return nil, err
	}
	if l.router, err = newHolder(); err != nil {
		return nil, err
	}
	if l.outside, err = newHolder(); err != nil {
		return nil, err
	}
	router, outside := l.router.pid(), l.outside.pid()
	here := func(words string) error { return execute(exec.Command("ip", strings.Fields(words)...)) }
	there := func(h *holder, words string) error { return execute(h.command(strings.Fields(words)...)) }
	return l, errors.Join(
		here("link add eth0 type veth peer name lan0 netns "+router),
		there(l.router, "ip link add wan0 type veth peer name out0 netns "+outside),
		there(l.router, "ip link set lo up"),
		there(l.router, "ip addr add 192.168.77.1/24 dev lan0"),
		there(l.router, "ip link set lan0 addrgenmode none"),
		there(l.router, "ip link set lan0 up"),
		there(l.router, "ip addr add fe80::77/64 dev lan0 nodad"),
		there(l.router, "ip addr add 2a0a:77::1/64 dev lan0 nodad"),
		there(l.router, "ip link set wan0 up"),
		there(l.router, "ip addr add 5.5.5.1/24 dev wan0"),
		there(l.router, "ip addr add 2a0a:55::1/64 dev wan0 nodad"),
		there(l.router, "ip route add default via 5.5.5.9"),
		there(l.router, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"),
		there(l.outside, "ip link set lo up"),
		there(l.outside, "ip link set out0 up"),
		there(l.outside, "ip addr add 5.5.5.9/24 dev out0"),
		there(l.outside, "ip addr add 2a0a:55::9/64 dev out0 nodad"),
		there(l.outside, "ip route add 2a0a:77::/64 via 2a0a:55::1"),
		here("addr add 192.168.77.2/24 dev eth0"),
		here("link set eth0 up"),
		here("route add default via 192.168.77.1"),
		l.rules(),
	)
}

// Enable6 gives this process an IPv6 address and a route.
func (l *Lab) Enable6() error {
	return errors.Join(
		execute(exec.Command("ip", "addr", "add", Host6+"/64", "dev", "eth0", "nodad")),
		execute(exec.Command("ip", "-6", "route", "add", "default", "via", Router6, "dev", "eth0")),
	)
}

func execute(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// table is the router's: nothing comes in but what miniupnpd lets in. The names
// are those that it expects.
const table = `
table inet filter {
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain forward { type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan0" accept
    jump miniupnpd
  }
  chain prerouting { type nat hook prerouting priority -100; policy accept;
    jump prerouting_miniupnpd
  }
  chain postrouting { type nat hook postrouting priority 100; policy accept;
    jump postrouting_miniupnpd
    ip saddr 192.168.77.0/24 oifname "wan0" masquerade
  }
}
`

// rules puts the router's rules in place, without mappings: what a boot does.
func (l *Lab) rules() error {
	cmd := l.router.command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader("flush ruleset\n" + table)
	return execute(cmd)
}

// Boot forgets all mappings and connections, as a router does that starts.
func (l *Lab) Boot() error {
	if err := l.rules(); err != nil {
		return err
	}
	// What is known of connections ends with the zone that packets are in.
	l.zone++
	cmd := l.router.command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`table inet zone {
  chain early { type filter hook prerouting priority raw; ct zone set %d; }
  chain local { type filter hook output priority raw; ct zone set %d; }
}
`, l.zone, l.zone))
	return execute(cmd)
}

// Start starts miniupnpd with lines added to its configuration, of which the ones
// here count when they say the same.
func (l *Lab) Start(lines ...string) error {
	settings := map[string]string{
		"ext_ifname": "wan0", "listening_ip": "lan0", "http_port": "0", "enable_natpmp": "yes", "enable_upnp": "yes",
		"min_lifetime": "5", "max_lifetime": "86400", "secure_mode": "yes", "ipv6_disable": "yes", "system_uptime": "no",
		"notify_interval": "900", "uuid": "6c9a9f0d-0d0f-4e08-8c5b-5f2d0a7c1e01",
	}
	permissions := "allow 1024-65535 192.168.77.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, "="); ok {
			settings[name] = value
		} else {
			permissions = line + "\n" + permissions
		}
	}
	var text strings.Builder
	for name, value := range settings {
		fmt.Fprintf(&text, "%s=%s\n", name, value)
	}
	text.WriteString(permissions)
	config := filepath.Join(l.dir, "miniupnpd.conf")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return err
	}
	before := len(l.Log())
	// The shell ends it when its standard input ends: also when this process is
	// killed. What depends on the thread that started it would end too soon.
	script := `miniupnpd -d -f "$1" -P "$2" </dev/null & read -r _; kill -9 $!; wait $!`
	l.daemon = l.router.command("sh", "-c", script, "sh", config, filepath.Join(l.dir, "miniupnpd.pid"))
	l.daemon.Stdout, l.daemon.Stderr = l.log, l.log
	var err error
	if l.stop, err = l.daemon.StdinPipe(); err != nil {
		return err
	}
	if err := l.daemon.Start(); err != nil {
		return err
	}
	ready := "HTTP listening" // what it says last before it listens everywhere
	if settings["enable_natpmp"] == "yes" {
		ready = "Listening for NAT-PMP"
	}
	for range 500 {
		if strings.Contains(l.Log()[before:], ready) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("miniupnpd does not start: %s", l.Log()[before:])
}

// Kill ends miniupnpd without giving it time to clean up.
func (l *Lab) Kill() {
	if l.daemon != nil {
		_ = l.stop.Close()
		_ = l.daemon.Wait()
		l.daemon = nil
	}
}

// Rules returns what of the router's rules miniupnpd has made: one line for each.
func (l *Lab) Rules() ([]string, error) {
	var rules []string
	for _, chain := range []string{"miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"} {
		out, err := l.router.command("nft", "list", "chain", "inet", "filter", chain).Output()
		if err != nil {
			return nil, fmt.Errorf("nft list chain %s: %w", chain, err)
		}
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); strings.Contains(line, "port ") || strings.Contains(line, "nat ") {
				rules = append(rules, line)
			}
		}
	}
	return rules, nil
}

// Outside runs f on a thread of the machine outside: sockets that it opens there
// stay there.
func (l *Lab) Outside(f func() error) error { return l.outside.do(f) }

// OutsideCommand makes a command that runs on the machine outside.
func (l *Lab) OutsideCommand(words ...string) *exec.Cmd { return l.outside.command(words...) }

// Router runs f on a thread of the router.
func (l *Lab) Router(f func() error) error { return l.router.do(f) }

// OnRouter runs a command on the router.
func (l *Lab) OnRouter(words ...string) error { return execute(l.router.command(words...)) }

// Log returns what miniupnpd has printed.
func (l *Lab) Log() string {
	text, _ := os.ReadFile(l.log.Name())
	return string(text)
}

// Close ends all of it.
func (l *Lab) Close() {
	l.Kill()
	for _, h := range []*holder{l.router, l.outside} {
		if h != nil {
			h.close()
		}
	}
	if l.log != nil {
		_ = l.log.Close()
	}
	// The pair goes with the router's namespace, a moment after it.
	for range 100 {
		if exec.Command("ip", "link", "del", "eth0").Run() != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
