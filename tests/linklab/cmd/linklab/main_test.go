//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
)

// TestMain lets the test program be linklab itself.
func TestMain(m *testing.M) {
	if os.Getenv("LINKLAB_TEST_MAIN") != "" {
		main()
		return
	}
	for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // of those that it starts, too
		if err := os.Setenv(name, "off"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// call runs linklab with a temporary directory of its own and checks that it
// leaves nothing there.
func call(t *testing.T, args ...string) (out, notes string, status int) {
	t.Helper()
	temporary := t.TempDir()
	command := linklabCommand(t, temporary, args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if strings.Contains(stderr.String(), linklab.ErrUnavailable.Error()) {
		t.Skip(stderr.String())
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	return stdout.String(), stderr.String(), command.ProcessState.ExitCode()
}

func linklabCommand(t *testing.T, temporary string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self, args...)
	// A program with the race detector would wait a second before it exits.
	command.Env = append(os.Environ(), "LINKLAB_TEST_MAIN=1", "LINKLAB="+self, "TMPDIR="+temporary, "GORACE=atexit_sleep_ms=0")
	return command
}

func TestStatusAndAddresses(t *testing.T) {
	out, notes, status := call(t, "run", "--delay", "1ms", "--", "sh", "-c", "echo {a} {b} {b6} $LINKLAB_ADDR_B; exit 7")
	if want := "11.77.1.1 11.77.2.1 2a00:7700::2:1 11.77.2.1\n"; out != want || status != 7 || notes != "" {
		t.Errorf("got %q, status %d, %q, want %q and 7", out, status, notes, want)
	}
	if _, _, status := call(t, "run", "--", "sh", "-c", "kill -9 $$"); status != 128+9 {
		t.Errorf("a killed command gives %d", status)
	}
}

func TestBIsEndedAfterA(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	script := `trap 'echo told >>` + trace + `; exit' TERM; echo ready >>` + trace + `; while :; do sleep 0.01; done`
	start := time.Now()
	if _, notes, status := call(t, "run", "--", "sh", "-c", "while ! test -s "+trace+"; do sleep 0.01; done", "--", "sh", "-c", script); status != 0 {
		t.Fatalf("status %d: %s", status, notes)
	}
	if text, err := os.ReadFile(trace); err != nil || string(text) != "ready\ntold\n" {
		t.Errorf("b wrote %q, %v", text, err)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("b took %v to end", took)
	}
}

func TestTellAndEnter(t *testing.T) {
	out, notes, status := call(t, "run", "--nat-a", "cone,addresses=3", "--", "sh", "-c", `
		$LINKLAB tell address a
		$LINKLAB tell rebind a address
		$LINKLAB tell address a
		$LINKLAB tell set both delay=3ms loss=2%
		$LINKLAB tell cut
		$LINKLAB tell restore up
		$LINKLAB tell set both loss=7 || echo refused
		$LINKLAB tell stats
		test "$($LINKLAB enter b -- readlink /proc/self/ns/net)" != "$(readlink /proc/self/ns/net)" && echo elsewhere`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if status != 0 || len(lines) != 9 {
		t.Fatalf("status %d: %q, %q", status, out, notes)
	}
	var counters struct{ Up, Down *linklab.Counters }
	if err := json.Unmarshal([]byte(lines[7]), &counters); err != nil || counters.Up == nil || counters.Down == nil {
		t.Errorf("the counters are %q: %v", lines[7], err)
	}
	lines[7] = "stats"
	if want := []string{"11.77.1.1", "ok", "11.77.1.2", "ok", "ok", "ok", "refused", "stats", "elsewhere"}; !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	if !strings.Contains(notes, "no share") {
		t.Errorf("the refusal says %q", notes)
	}
}

func TestSignalEndsEverything(t *testing.T) {
	temporary := t.TempDir()
	command := linklabCommand(t, temporary, "run", "--", "sh", "-c", "echo $$; exec sleep 1000", "--", "sleep", "1000")
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var notes bytes.Buffer
	command.Stderr = &notes
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var line [32]byte
	n, err := output.Read(line[:])
	if err != nil {
		_ = command.Wait()
		if strings.Contains(notes.String(), linklab.ErrUnavailable.Error()) {
			t.Skip(notes.String())
		}
		t.Fatal(err, notes.String())
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	if got := command.ProcessState.ExitCode(); got != 128+15 {
		t.Errorf("the status is %d: %s", got, notes.String())
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(line[:n]))); err == nil {
		t.Error("the command lives on")
	}
}

func TestWrongUse(t *testing.T) {
	for args, want := range map[string]string{
		"":                            "what to do",
		"dance":                       `no "dance"`,
		"run":                         "one or two commands",
		"run --loss 2 -- true":        "no share",
		"run --speed 2 -- true":       "not defined: -speed",
		"run -- a -- b -- c":          "one or two commands",
		"run --nat-a round -- true":   "a NAT knows",
		"run -- /no/such/program":     "no such file",
		"run --icmp perhaps -- true":  "on or off",
		"enter":                       "say enter HOST",
		"enter a -- true":             `no host "a" around`,
		"tell stats":                  "no laboratory around",
		"run --interface-mtu 9 -- id": "an MTU of 9",
	} {
		_, notes, status := call(t, strings.Fields(args)...)
		if status == 0 || !strings.Contains(notes, want) || strings.Count(notes, "\n") != 1 {
			t.Errorf("linklab %s: status %d, %q, want %q", args, status, notes, want)
		}
	}
	for _, args := range [][]string{{"--help"}, {"run", "--help"}} {
		if out, notes, status := call(t, args...); out != usage || status != 0 || notes != "" {
			t.Errorf("%q: status %d, %q", args, status, notes)
		}
	}
}

// TestRouters: a is behind a NAT and a carrier's, whose address it shows, or beside b.
func TestRouters(t *testing.T) {
	print := "echo $LINKLAB_ADDR_A $LINKLAB_ADDR_B {a6}"
	for args, want := range map[string]string{
		"--nat-a home --carrier-a sequential,noise=5 --hops 3": "11.77.3.1 11.77.2.1 invalid IP\n",
		"--nat restricted,hairpin=on":                          "11.77.3.1 11.77.3.1 invalid IP\n",
		"--nat-a firewall":                                     "11.77.1.1 11.77.2.1 2a00:7700::1:1\n",
	} {
		out, notes, status := call(t, append(append([]string{"run"}, strings.Fields(args)...), "--", "sh", "-c", print)...)
		if out != want || status != 0 {
			t.Errorf("%s: status %d, %q, %q, want %q", args, status, out, notes, want)
		}
	}
	if _, notes, status := call(t, "run", "--nat", "home", "--carrier-b", "home", "--", "true"); status == 0 || !strings.Contains(notes, "one carrier") {
		t.Errorf("two routers before b: %q", notes)
	}
}

func TestSplit(t *testing.T) {
	got := split(strings.Fields("a b -- c -- d e"))
	if len(got) != 3 || !slices.Equal(got[0], []string{"a", "b"}) || !slices.Equal(got[1], []string{"c"}) || !slices.Equal(got[2], []string{"d", "e"}) {
		t.Errorf("got %q", got)
	}
}
