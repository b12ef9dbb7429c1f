//go:build linux

// Package top_test drives crust top in a real terminal, a pane of tmux, and looks at
// its screens. With CRUST_TOP_OUT they are written down in that directory.
package top_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/tests/linklab"
)

// network is the name of the network of all peers here.
const network = "toplab"

// program builds crust, with the key that has top panic, once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "top")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "crust")
	out, err := exec.Command("go", "build", "-tags", "crusttest", "-o", path, "github.com/libcrust/libcrust/cmd/crust").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build crust: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} {
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if path, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func build(t *testing.T) string {
	t.Helper()
	needTmux(t)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// event is a line of crust peer --json.
type event struct {
	Event, Peer, Endpoint, Error string
}

// peer runs `crust peer --json` in a namespace, or beside the test, until the test ends.
func peer(t *testing.T, n *linklab.Namespace, arguments ...string) (await func(name string) event, input io.Writer) {
	t.Helper()
	command := exec.Command(build(t), append([]string{"peer", "--json", "--network", network}, arguments...)...)
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := command.Start
	if n != nil {
		start = func() error { return n.Start(command) }
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	events := make(chan event, 10_000)
	go func() {
		defer close(events)
		for text := bufio.NewScanner(out); text.Scan(); {
			var e event
			if json.Unmarshal(text.Bytes(), &e) == nil {
				events <- e
			}
		}
	}()
	t.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
		defer kill.Stop()
		for range events { // until its end
			continue
		}
		if err := command.Wait(); err != nil {
			t.Errorf("a peer ended with %v", err)
		}
	})
	return func(name string) event {
		t.Helper()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		for {
			select {
			case e, ok := <-events:
				if !ok {
					t.Fatalf("the peer ended before %s", name)
				}
				if e.Event == name {
					return e
				}
			case <-timer.C:
				t.Fatalf("no %s", name)
			}
		}
	}, in
}

// crowd makes so many services in this process, all connected to one contact, that send
// messages to it until the test ends.
func crowd(t *testing.T, count int, at crust.Contact) {
	t.Helper()
	var services []*crust.Service
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		for _, s := range services {
			s.Stop()
		}
		running.Wait()
		for _, s := range services {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	up := make(chan error, count)
	for range count {
		s, err := crust.New(crust.Config{NetworkName: network, NoListen: true, NoNetworkWatch: true, Gossip: crust.GossipOff, Beacon: crust.BeaconOff, CloseTimeout: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		services = append(services, s)
		if err := s.ConnectEndpoint(at, 1); err != nil {
			t.Fatal(err)
		}
		running.Add(1)
		go func() {
			defer running.Done()
			for e := range s.Events(context.Background()) {
				if e.Type == crust.EventConnected || e.Type == crust.EventConnectFailed {
					up <- e.Err()
				}
			}
		}()
	}
	for range count {
		if err := <-up; err != nil {
			t.Fatal(err)
		}
	}
	running.Add(1)
	go func() {
		defer running.Done()
		message := make([]byte, 1000)
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Millisecond):
			}
			// The later ones send more; who is suspended or lost, or slow, is passed over.
			for range 1 + i%count/50 {
				_ = services[i%count].Send(at.Peer, message, 2)
			}
		}
	}()
}

// column returns a word of each line of the peers that are shown, counted from the
// right: 1 is the age, 7 the number of IN/s, 11 the id.
func column(screen string, fromRight int) (list []string) {
	for _, l := range lines(screen) {
		if f := strings.Fields(l); row.MatchString(l) {
			list = append(list, f[len(f)-fromRight])
		}
	}
	return list
}

// row is the line of a peer.
var row = regexp.MustCompile(`^[0-9a-f]{8} (ok   |relay|SUSP ) (tcp|utp)://`)

// TestTopCrowd: 200 peers of a peer that runs elsewhere, scrolled, sorted, paused,
// through sizes of the terminal, until q.
func TestTopCrowd(t *testing.T) {
	t.Parallel()
	crustProgram := build(t)
	dir, err := os.MkdirTemp("", "top")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	await, _ := peer(t, nil, "--listen", "tcp://127.0.0.1:0", "--control", socket, "--quiet-messages", "--echo")
	id, err := crust.ParsePeerID(await("started").Peer)
	if err != nil {
		t.Fatal(err)
	}
	at, err := crust.ParseContact(await("listener_started").Endpoint + "#" + id.String())
	if err != nil {
		t.Fatal(err)
	}
	x := openTerminal(t, nil)
	before := x.settings()
	x.types(crustProgram + " top --attach " + socket + " --interval 300ms")
	x.shows("crust top  "+id.Short(), "(attached to "+socket, "no peers", "listening on tcp://127.0.0.1:", "q quit")
	x.keep("alone")

	crowd(t, 200, at)
	screen := x.awaits("200 peers with rates", func(s string) bool {
		return strings.Contains(s, "  200 peers  ") && strings.Contains(s, "peers 1-12 of 200") && regexp.MustCompile(`in [0-9.]+ [kM]B/s`).MatchString(s) &&
			len(column(s, 1)) == 12 && column(s, 7)[0] != "0"
	})
	x.keep("crowd")
	for i, l := range lines(screen) {
		if len([]rune(l)) > 80 {
			t.Errorf("line %d has %d characters: %q", i, len([]rune(l)), l)
		}
	}
	// Pause: the screen stays.
	x.key("Space")
	still := x.shows("PAUSED")
	// Scrolled, by keys of the keyboard.
	x.key("NPage")
	x.shows("peers 13-24 of 200")
	x.key("Down")
	x.shows("peers 14-25 of 200")
	x.key("End")
	x.shows("peers 189-200 of 200")
	x.key("Home")
	if again := x.shows("peers 1-12 of 200", "PAUSED"); figures(again) != figures(still) {
		t.Errorf("paused, the screen has changed from\n%s\nto\n%s", still, again)
	}
	// Sorted by id, and backward.
	for _, mark := range []string{"OUT/s<", "QUEUE<", "AGE<", "PEER<"} {
		x.key("s")
		x.shows(mark)
	}
	ids := column(x.shows("PEER<"), 11)
	x.key("r")
	back := column(x.shows("PEER>"), 11)
	if !slices.IsSorted(ids) || slices.IsSorted(back) || len(ids) != 12 || ids[0] >= back[0] {
		t.Errorf("by id: %q, backward: %q", ids, back)
	}
	x.key("Space")
	x.awaits("that it goes on", func(s string) bool { return !strings.Contains(s, "PAUSED") })
	// Larger, smaller, too small, and back.
	x.tmux("resize-window", "-x", "132", "-y", "45")
	screen = x.shows("peers 1-30 of 200", "q quit")
	x.keep("large")
	if l := lines(screen); len(l) != 45 || !strings.HasPrefix(l[44], "q quit") || len(column(screen, 1)) != 30 {
		t.Errorf("%d lines, the last is %q, %d peers", len(l), l[len(l)-1], len(column(screen, 1)))
	}
	x.tmux("resize-window", "-x", "70", "-y", "14")
	x.shows("peers 1-4 of 200", "q quit")
	x.keep("small")
	x.tmux("resize-window", "-x", "40", "-y", "8")
	x.shows("crust top needs 70x12, this is 40x8")
	x.tmux("resize-window", "-x", "80", "-y", "24")
	x.shows("peers 1-12 of 200")
	x.key("?")
	x.shows("crust top: help", "SUSP (no link now)")
	x.keep("help")
	x.key("x")
	x.shows("peers 1-12 of 200")
	x.key("q")
	x.restored(before)
	x.types("echo code $?")
	x.shows("code 0")
}

// figures are the lines of a screen of 80x24 that a pause keeps: not the first, which
// says PAUSED or not, nor what happens meanwhile.
func figures(screen string) string { return strings.Join(lines(screen)[1:18], "\n") }

// TestTopRestores: whatever ends top, the terminal is as before, and says what there is
// to say; so it does where it cannot work.
func TestTopRestores(t *testing.T) {
	t.Parallel()
	crustProgram := build(t)
	x := openTerminal(t, nil)
	before := x.settings()
	own := crustProgram + " top --network " + network + " --listen tcp://127.0.0.1:0"
	for i, c := range []struct {
		end  func()
		code string
		says string
	}{
		{func() { x.key("q") }, "0", ""},
		{func() { x.key("C-c") }, "0", ""},
		{func() { signal(t, x, "TERM") }, "0", ""},
		{func() { signal(t, x, "HUP") }, "0", ""},
		{func() { x.key("P") }, "2", "panic: the key that tests press"},
	} {
		x.types("clear; " + own)
		x.shows("(own peer)", "listening on tcp://127.0.0.1:")
		if now := x.settings(); now == before {
			t.Fatalf("the terminal is as if nothing ran: %s", now)
		}
		c.end()
		x.restored(before) // what is typed before that is still for top
		x.types(fmt.Sprintf("echo end %d is $?.", i))
		x.shows(fmt.Sprintf("end %d is %s.", i, c.code))
		if all := x.tmux("capture-pane", "-p", "-S", "-200"); !strings.Contains(all, c.says) {
			t.Errorf("it does not say %q:\n%s", c.says, all)
		}
	}
	x.types("clear; TERM=dumb " + own)
	x.shows(`(TERM is "dumb")`, "ready>")
	x.types("clear; " + own + " | cat")
	x.shows("crust: top needs a terminal")
	x.restored(before)
}

// signal sends a signal to the program in a terminal.
func signal(t *testing.T, x *terminal, name string) {
	t.Helper()
	pid := x.child()
	if _, err := strconv.Atoi(pid); err != nil {
		t.Fatalf("the shell's children are %q", pid)
	}
	if out, err := exec.Command("kill", "-"+name, pid).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
}

// TestTopColours: warnings have colours, unless NO_COLOR is set; then there are none.
func TestTopColours(t *testing.T) {
	t.Parallel()
	crustProgram := build(t)
	colour := regexp.MustCompile("\x1b\\[[0-9;]*(3[0-7]|38;[0-9;]+|9[0-7])m")
	for _, c := range []struct {
		environment string
		want        bool
	}{{"env -u NO_COLOR ", true}, {"NO_COLOR=1 ", false}} {
		x := openTerminal(t, nil)
		x.types("clear; " + c.environment + crustProgram + " top --network " + network + " --listen tcp://127.0.0.1:0 --contact 127.0.0.1:1 --bootstrap")
		x.shows("! not bootstrapped")
		if got := colour.MatchString(x.tmux("capture-pane", "-p", "-e")); got != c.want {
			t.Errorf("with %q there are colours: %v", c.environment, got)
		}
		x.key("q")
		x.shows("ready>")
	}
}

// TestTopLostNetwork: the cable is pulled and put back while top looks.
func TestTopLostNetwork(t *testing.T) {
	t.Parallel()
	crustProgram := build(t)
	here, there := namespace(t), namespace(t)
	sh(t, here, `ip link set lo up
		ip link add eth0 type veth peer name eth0 netns `+there.Path()+`
		ip address add 198.18.0.1/24 dev eth0
		ip link set eth0 up`)
	sh(t, there, `ip link set lo up
		ip address add 198.18.0.2/24 dev eth0
		ip link set eth0 up`)
	x := openTerminal(t, here)
	before := x.settings()
	x.types(crustProgram + " top --interval 300ms --network " + network + " --listen tcp://198.18.0.1:5483")
	x.shows("listening on tcp://198.18.0.1:5483")
	for range 3 {
		await, _ := peer(t, there, "--listen", "tcp://198.18.0.2:0", "--contact", "198.18.0.1:5483", "--bootstrap")
		await("bootstrapped")
	}
	x.awaits("three peers", func(s string) bool { return len(column(s, 1)) == 3 && strings.Contains(s, "peers 1-3 of 3") })
	x.keep("connected")
	sh(t, here, "ip link set eth0 down")
	x.awaits("that the network is lost", func(s string) bool {
		return strings.Contains(s, "! 3 of 3 sessions are SUSPENDED") && strings.Contains(s, "! suspended ") && strings.Count(s, " SUSP  tcp://") == 3
	})
	x.keep("lost")
	sh(t, here, "ip link set eth0 up")
	x.awaits("that all are back", func(s string) bool {
		return !strings.Contains(s, "SUSP") && len(column(s, 1)) == 3
	})
	x.keep("back")
	x.key("q")
	x.shows("ready>")
	x.restored(before)
}

// sh runs commands in a namespace.
func sh(t *testing.T, n *linklab.Namespace, commands string) {
	t.Helper()
	command := exec.Command("sh", "-ec", commands)
	var out strings.Builder
	command.Stdout, command.Stderr = &out, &out
	if err := n.Run(command); err != nil {
		t.Fatalf("%s: %v: %s", commands, err, out.String())
	}
}

// namespace makes one that ends with the test.
func namespace(t *testing.T) *linklab.Namespace {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	n, err := linklab.NewNamespace()
	if errors.Is(err, linklab.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}
