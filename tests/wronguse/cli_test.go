package wronguse

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary builds the command line once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "crust-wronguse-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "crust")
	build := exec.Command("go", "build", "-o", path, "github.com/libcrust/libcrust/cmd/crust")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, output)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // of those that it starts, too
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func tool(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// crustRun runs the command line to its end.
func crustRun(t *testing.T, input string, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(tool(t), arguments...)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &complaints
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), complaints.String(), cmd.ProcessState.ExitCode()
}

// complains asserts an exit code, one clear sentence on standard error, and
// nothing on standard output.
func complains(t *testing.T, want int, words []string, arguments ...string) {
	t.Helper()
	stdout, stderr, code := crustRun(t, "", arguments...)
	if code != want {
		t.Errorf("%q: exit code %d, want %d", arguments, code, want)
	}
	if stdout != "" {
		t.Errorf("%q: standard output has %q, want nothing", arguments, stdout)
	}
	line, rest, _ := strings.Cut(stderr, "\n")
	if rest != "" || !strings.HasPrefix(line, "crust: ") {
		t.Errorf("%q: standard error has %q, want one line that begins with \"crust: \"", arguments, stderr)
	}
	plain(t, line, words...)
}

func TestCommandLineMisused(t *testing.T) {
	long := strings.Repeat("x", 257)
	for _, c := range []struct {
		words     []string
		arguments []string
	}{
		{[]string{`"pier"`, "did you mean peer?", "crust --help"}, []string{"pier"}},
		{[]string{"--frobnicate", "crust peer --help"}, []string{"peer", "--frobnicate"}},
		{[]string{"--listen", "argument"}, []string{"peer", "--listen"}},
		{[]string{"--listen", "localhost:5483"}, []string{"peer", "--listen", "localhost:5483"}},
		{[]string{"--listen", "http"}, []string{"peer", "--listen", "http://127.0.0.1:80"}},
		{[]string{"--contact", "nowhere"}, []string{"peer", "--contact", "nowhere"}},
		{[]string{"--contact", "peer id"}, []string{"peer", "--contact", "127.0.0.1:5#abc"}},
		{[]string{"--role", "node", "client", `"server"`}, []string{"peer", "--role", "server"}},
		{[]string{"--network", "257", "256"}, []string{"peer", "--network", long}},
		{[]string{"--app-id", "257", "256"}, []string{"peer", "--app-id", long}},
		{[]string{"--identity"}, []string{"peer", "--identity", ""}},
		{[]string{"--config"}, []string{"peer", "--config", ""}},
		{[]string{"peer", "takes no arguments"}, []string{"peer", "now"}},
		{[]string{"keygen", "one file"}, []string{"keygen"}},
		{[]string{"keygen", "one file"}, []string{"keygen", "a", "b"}},
		{[]string{"--cache"}, []string{"peer", "--cache", ""}},
		{[]string{"cache list", "takes no arguments"}, []string{"cache", "list", "file"}},
		{[]string{`"show"`, "crust cache --help"}, []string{"cache", "show"}},
		{[]string{"--older", "-1s"}, []string{"cache", "prune", "--older", "-1s"}},
		{[]string{"version", "takes no arguments"}, []string{"version", "1"}},
		{[]string{"help", `"pier"`}, []string{"help", "pier"}},
		{[]string{`"tcsh"`}, []string{"completion", "tcsh"}},
	} {
		complains(t, 2, c.words, c.arguments...)
	}
}

func TestCommandLineFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	open, garbage := path("open", "x", 0o644), path("garbage", "x", 0o600)
	unknown, notJSON := path("unknown.json", `{"colour":"x"}`, 0o600), path("not.json", "network = x", 0o600)
	bounds := path("bounds.json", `{"heartbeat_ms":2000,"lost_after_ms":3000}`, 0o600)
	missing := filepath.Join(dir, "missing")

	complains(t, 1, []string{open, "chmod 600"}, "peer", "--identity", open)
	complains(t, 1, []string{garbage, "is not an identity file"}, "peer", "--identity", garbage)
	complains(t, 1, []string{missing, "no such file"}, "peer", "--identity", filepath.Join(missing, "id"))
	complains(t, 1, []string{missing, "no such file"}, "peer", "--config", missing)
	complains(t, 1, []string{unknown, `"colour"`}, "peer", "--config", unknown)
	complains(t, 1, []string{notJSON, "not JSON", "line 1"}, "peer", "--config", notJSON)
	complains(t, 2, []string{"LostAfter"}, "peer", "--config", bounds)
	complains(t, 1, []string{open, "exists already"}, "keygen", open)
	complains(t, 1, []string{missing, "no such file"}, "keygen", filepath.Join(missing, "id"))
	if text, err := os.ReadFile(open); err != nil || string(text) != "x" {
		t.Errorf("keygen touched the file: %q, %v", text, err)
	}
}

// event is one line of `crust peer --json`.
type event map[string]any

func (e event) text(key string) string { s, _ := e[key].(string); return s }

// tooled is a running `crust peer --json`.
type tooled struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.WriteCloser
	lines chan event
	id    string
	at    string // its listener
}

func startPeer(t *testing.T, arguments ...string) *tooled {
	t.Helper()
	p := &tooled{t: t, cmd: exec.Command(tool(t), append([]string{"peer", "--json", "--listen", "tcp://127.0.0.1:0"}, arguments...)...), lines: make(chan event, 64)}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for reader := bufio.NewScanner(output); reader.Scan(); {
			var e event
			if err := json.Unmarshal(reader.Bytes(), &e); err != nil {
				e = event{"event": "no JSON", "error": reader.Text()}
			}
			p.lines <- e
		}
	}()
	t.Cleanup(func() {
		p.input.Close()
		for range p.lines {
		}
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("the peer ended with %v, want exit code 0", err)
		}
	})
	p.id = p.next("started").text("peer")
	p.at = p.next("listener_started", "listener_failed").text("endpoint")
	return p
}

func (p *tooled) tell(format string, arguments ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.input, format+"\n", arguments...); err != nil {
		p.t.Fatal(err)
	}
}

// next returns the next line, which must be one of the events.
func (p *tooled) next(names ...string) event {
	p.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case e, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("the peer ended, want %v", names)
		}
		for _, name := range names {
			if e["event"] == name {
				return e
			}
		}
		p.t.Fatalf("got %v, want %v", e, names)
	case <-timer.C:
		p.t.Fatalf("no %v within %v", names, patience)
	}
	return nil
}

// refused asserts that the next line has this code and says these words.
func (p *tooled) refused(name, code string, words ...string) {
	p.t.Helper()
	e := p.next(name)
	if e["code"] != code {
		p.t.Errorf("code %v, want %s: %v", e["code"], code, e)
	}
	plain(p.t, e.text("error"), words...)
}

func TestPeerCommandsMisused(t *testing.T) {
	p := startPeer(t, "--network", "orchard")
	for _, c := range []struct {
		command, code string
		words         []string
	}{
		{"dance", "invalid", []string{`unknown command "dance"`}},
		{"help", "invalid", []string{`unknown command "help"`}},
		{"info now", "invalid", []string{"wrong arguments; usage: info"}},
		{"connect", "invalid", []string{"wrong arguments; usage: connect INFO | ENDPOINT[#PEER]"}},
		{"connect localhost:5483", "invalid", []string{"localhost:5483"}},
		{"connect 127.0.0.1:5483#abc", "invalid", []string{"peer id"}},
		{"connect !nfo", "bad_info", []string{`"!nfo"`}},
		{"connect aGVsbG8", "bad_info", nil},
		{"send", "invalid", []string{"wrong arguments; usage: send PEER TEXT"}},
		{"send abc", "invalid", []string{"wrong arguments; usage: send PEER TEXT"}},
		{"send abc hello", "unknown_peer", []string{"no connected peer's id begins with"}},
		{"send xyz hello", "invalid", []string{`"xyz"`, "no peer id"}},
		{"send " + strings.Repeat("ab", 32) + " hello", "unknown_peer", []string{"abababab", "not connected"}},
		{"send " + strings.Repeat("ab", 33) + " hello", "invalid", []string{"no peer id"}},
		{"bulk abc 1", "invalid", []string{"wrong arguments; usage: bulk PEER COUNT SIZE [PRIORITY]"}},
		{"bulk abc -1 5", "invalid", []string{"COUNT", `"-1"`}},
		{"bulk abc 1 big", "invalid", []string{"SIZE", `"big"`}},
		{"bulk abc 1 1 256", "invalid", []string{"PRIORITY", `"256"`}},
		{"bulk abc 1 1", "unknown_peer", nil},
		{"disconnect", "invalid", []string{"wrong arguments; usage: disconnect PEER"}},
		{"disconnect " + strings.Repeat("ab", 32), "unknown_peer", []string{"abababab"}},
		{"peers please", "invalid", []string{"wrong arguments; usage: peers"}},
		{"stats please", "invalid", []string{"wrong arguments; usage: stats"}},
		{"quit now", "invalid", []string{"wrong arguments; usage: quit"}},
	} {
		p.tell("%s", c.command)
		p.refused("error", c.code, c.words...)
	}
	p.tell("peers") // nothing of that changed anything
	if e := p.next("peers"); len(e["peers"].([]any)) != 0 {
		t.Errorf("peers %v, want none", e["peers"])
	}
}

func TestPeerConnectsToItself(t *testing.T) {
	p := startPeer(t)
	p.tell("info")
	p.tell("connect %s", p.next("info").text("info"))
	p.refused("error", "self")
	p.tell("connect %s", p.at)
	p.refused("connect_failed", "self")
}

func TestPeersOfDifferentNetworks(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(settings, []byte(`{"handshake_timeout_ms":500}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := startPeer(t, "--config", settings, "--network", "orchard")
	b := startPeer(t, "--config", settings, "--network", "meadow")
	a.tell("connect %s#%s", b.at, b.id)
	e := a.next("connect_failed")
	if e["code"] != "network_name" || e["peer"] != b.id {
		t.Errorf("got %v, want code network_name and peer %s", e, b.id)
	}
	plain(t, e.text("error"), "network name", b.at)
}

func TestPeerOnABusyPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := "tcp://" + taken.Addr().String()
	cmd := exec.Command(tool(t), "peer", "--json", "--listen", busy)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil { // standard input is empty: it stops at once, in order
		t.Fatal(err)
	}
	var failed event
	for line := range strings.Lines(out.String()) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if e["event"] == "listener_failed" {
			failed = e
		}
	}
	if failed == nil || failed["endpoint"] != busy {
		t.Fatalf("no listener_failed for %s in:\n%s", busy, out.String())
	}
	plain(t, failed.text("error"), busy, "in use")
}

func TestPeerBootstrapsFromNowhere(t *testing.T) {
	p := startPeer(t, "--bootstrap")
	p.refused("bootstrap_failed", "no_endpoint")
}

func TestPeerWhoseReaderGoesAway(t *testing.T) {
	cmd := exec.Command(tool(t), "peer", "--json", "--listen", "tcp://127.0.0.1:0")
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	output.Close()
	fmt.Fprintln(input, "stats") // the answer has nowhere to go; the input stays open
	fmt.Fprintln(input, "stats")
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the peer ended with %v, want exit code 1", err)
	}
	plain(t, strings.TrimSuffix(complaints.String(), "\n"), "cannot write the output")
	input.Close()
}

// Ctrl-C and a service manager's SIGTERM end a peer in order.
func TestPeerThatIsInterrupted(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		other := startPeer(t)
		p := startPeer(t) // its end is asserted when the test ends: exit code 0
		p.tell("connect %s", other.at)
		p.next("connected")
		other.next("connected")
		if err := p.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if e := p.next("lost"); e["code"] != "disconnected" {
			t.Errorf("got %v, want code disconnected", e)
		}
		p.next("stopped")
		if e := other.next("lost"); e["code"] != "disconnected" {
			t.Errorf("the other side got %v, want code disconnected", e)
		}
	}
}
