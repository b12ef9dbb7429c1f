//go:build linux

package top_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/linklab"
)

// patience bounds every wait; it is long because machines are busy.
const patience = 40 * time.Second

// look is how often the screen is looked at.
const look = 30 * time.Millisecond

// terminal is a real terminal: a pane of a tmux of its own, in which a shell runs.
type terminal struct {
	t      *testing.T
	socket string
	within *linklab.Namespace // nil: the machine's own network
}

// needTmux skips the test where there is no tmux.
func needTmux(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux is not installed")
	}
}

// openTerminal opens one of 80x24 in a namespace, or in the machine's own network.
func openTerminal(t *testing.T, within *linklab.Namespace) *terminal {
	t.Helper()
	dir, err := os.MkdirTemp("", "top") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t, filepath.Join(dir, "tmux"), within}
	t.Cleanup(func() {
		_ = x.command("kill-server").Run() // it may have ended
		os.RemoveAll(dir)
	})
	start := x.command("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=ready> ", "sh")
	start.Env = append(os.Environ(), "CRUST_PORTMAP=off", "CRUST_BEACON=off", "LC_ALL=C.UTF-8", "TERM=xterm-256color")
	run := start.Run
	if within != nil {
		run = func() error { return within.Run(start) }
	}
	if err := run(); err != nil {
		t.Fatalf("tmux: %v", err)
	}
	x.shows("ready>")
	return x
}

func (x *terminal) command(arguments ...string) *exec.Cmd {
	return exec.Command("tmux", append([]string{"-S", x.socket}, arguments...)...)
}

// tmux runs a command of tmux and returns what it prints.
func (x *terminal) tmux(arguments ...string) string {
	x.t.Helper()
	out, err := x.command(arguments...).CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %q: %v: %s", arguments, err, out)
	}
	return string(out)
}

// types types a line.
func (x *terminal) types(line string) {
	x.t.Helper()
	x.tmux("send-keys", "-l", line)
	x.tmux("send-keys", "Enter")
}

// key presses keys, by tmux's names.
func (x *terminal) key(names ...string) {
	x.t.Helper()
	x.tmux(append([]string{"send-keys"}, names...)...)
}

// screen is what is seen now.
func (x *terminal) screen() string { x.t.Helper(); return x.tmux("capture-pane", "-p") }

// awaits waits until the screen is as it should be, and returns it.
func (x *terminal) awaits(what string, fits func(screen string) bool) string {
	x.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(look) {
		screen := x.screen()
		if fits(screen) {
			return screen
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("the screen does not show %s:\n%s", what, screen)
		}
	}
}

// shows waits until the screen shows all texts.
func (x *terminal) shows(texts ...string) string {
	x.t.Helper()
	return x.awaits(fmt.Sprintf("%q", texts), func(screen string) bool {
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return false
			}
		}
		return true
	})
}

// lines are those of a screen, each without what is blank at its end.
func lines(screen string) []string {
	list := strings.Split(strings.TrimSuffix(screen, "\n"), "\n")
	for i := range list {
		list[i] = strings.TrimRight(list[i], " ")
	}
	return list
}

// keep writes a screen down where CRUST_TOP_OUT says, for people to look at.
func (x *terminal) keep(name string) {
	x.t.Helper()
	if dir := os.Getenv("CRUST_TOP_OUT"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".txt"), []byte(x.screen()), 0o644); err != nil {
			x.t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".ansi"), []byte(x.tmux("capture-pane", "-p", "-e")), 0o644); err != nil {
			x.t.Error(err)
		}
	}
}

// settings are those of the terminal that programs change, as stty tells them, and
// whether the other screen is shown, and the cursor.
func (x *terminal) settings() string {
	x.t.Helper()
	tty := strings.TrimSpace(x.tmux("display", "-p", "#{pane_tty}"))
	out, err := exec.Command("stty", "-F", tty, "-g").CombinedOutput()
	if err != nil {
		x.t.Fatalf("stty: %v: %s", err, out)
	}
	return string(out) + x.tmux("display", "-p", "other screen #{alternate_on}, cursor #{cursor_flag}, keypad #{keypad_flag} #{keypad_cursor_flag}, mouse #{mouse_any_flag}")
}

// restored waits until the terminal is as it was before.
func (x *terminal) restored(before string) {
	x.t.Helper()
	for deadline := time.Now().Add(patience); x.settings() != before; time.Sleep(look) {
		if time.Now().After(deadline) {
			x.t.Fatalf("the terminal was\n%sand is\n%s", before, x.settings())
		}
	}
}

// child returns the process id of the program that the shell runs.
func (x *terminal) child() string {
	x.t.Helper()
	shell := strings.TrimSpace(x.tmux("display", "-p", "#{pane_pid}"))
	text, err := os.ReadFile("/proc/" + shell + "/task/" + shell + "/children")
	if err != nil {
		x.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
