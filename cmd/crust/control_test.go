//go:build unix

package main

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// socketIn returns the name of a socket in a directory with a short name.
func socketIn(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "crust")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// looker is who looks at a peer over its socket.
type looker struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Scanner
}

func look(t *testing.T, socket string) *looker {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	l := &looker{t, conn, bufio.NewScanner(conn)}
	l.lines.Buffer(nil, 1<<20)
	return l
}

func (l *looker) ask(text string) {
	l.t.Helper()
	if _, err := l.conn.Write([]byte(text + "\n")); err != nil {
		l.t.Fatal(err)
	}
}

// past returns the next line of an event, passing over others.
func (l *looker) past(event string) line {
	l.t.Helper()
	for l.lines.Scan() {
		got, err := parseLine(l.lines.Text())
		if err != nil {
			l.t.Fatal(err)
		}
		switch got.event() {
		case event:
			return got
		case "message", "sent", "info":
			l.t.Errorf("got %s", got.raw)
		}
	}
	l.t.Fatalf("no %s: %v", event, l.lines.Err())
	return line{}
}

// Whoever may open the socket sees what happens and may ask, and changes nothing.
func TestControl(t *testing.T) {
	socket := socketIn(t)
	a, b := start(t, "--control", socket), start(t)
	if info, err := os.Stat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("the socket: %v, %v", info, err)
	}
	l := look(t, socket)
	if got := l.past("started"); got.text("peer") != a.id {
		t.Errorf("got %s, want %s", got.raw, a.id)
	}
	if got := l.past("listener_started"); got.text("endpoint") != a.at {
		t.Errorf("got %s, want %s", got.raw, a.at)
	}
	join(a, b)
	if got := l.past("connected"); got.text("peer") != b.id {
		t.Errorf("got %s", got.raw)
	}
	a.tell("info")
	a.next("info")
	a.tell("send %s hello", b.id)
	a.next("sent")
	b.next("message")
	b.tell("send %s hello", a.id)
	a.next("message") // which the looker is not told of: past sees to that
	for _, question := range looks {
		l.ask(question)
		if got := l.past(question); got.number("t_ms") <= 0 {
			t.Errorf("got %s", got.raw)
		}
	}
	for _, wrong := range []string{"disconnect " + b.id, "quit", "send " + b.id + " x", "ban " + b.id, "\x00", "peers x"} {
		l.ask(wrong)
		if got := l.past("error"); got.text("code") != "invalid" || !strings.Contains(got.text("error"), "peers, stats, nat, known, bans") {
			t.Errorf("%q: %s", wrong, got.raw)
		}
	}
	l.ask(strings.Repeat("x", 2*maxWatcherLine))
	if got := l.past("error"); got.text("code") != "too_big" {
		t.Errorf("a long line: %s", got.raw)
	}
	if l.lines.Scan() {
		t.Errorf("after a long line: %s", l.lines.Text())
	}
	last := look(t, socket)
	last.past("started")
	a.stops()
	last.past("lost")
	last.past("stopped")
	if last.lines.Scan() {
		t.Errorf("after the end: %s", last.lines.Text())
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// One who does not read is let go and slows nobody; there is a bound to how many look.
func TestControlBounds(t *testing.T) {
	socket := socketIn(t)
	a := start(t, "--control", socket)
	slow := look(t, socket)
	slow.past("started")
	for range 3 * watcherQueue { // of lines that are told to all
		a.tell("nonsense")
		a.next("error")
	}
	a.tell("stats")
	a.next("stats")
	var all []*looker
	for range maxWatchers + 1 {
		l := look(t, socket)
		all = append(all, l)
		if !l.lines.Scan() {
			t.Fatal(l.lines.Err())
		}
	}
	refused := 0
	for _, l := range all {
		if strings.Contains(l.lines.Text(), `"code":"limit"`) {
			refused++
		}
	}
	if refused < 1 || refused > 2 { // of the slow one the kernel may hold all that was written
		t.Errorf("%d of %d were refused", refused, len(all))
	}
}

// A socket that is left over is replaced; one that is used, and what is none, is not.
func TestControlSocket(t *testing.T) {
	socket := socketIn(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want string }{
		{socket, "another peer listens there"}, {filepath.Dir(socket), "no socket"}, {"/" + strings.Repeat("x", maxSocketPath), "at most 103 bytes"},
		{filepath.Join(socket, "x"), "not a directory"}, {filepath.Join(filepath.Dir(socket), "none", "x"), "no such file"},
	} {
		if _, stderr, code := invoke("peer", "--control", c.name); code != exitFailure || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d, %q", c.name, code, stderr)
		}
	}
	if _, stderr, code := invoke("peer", "--control", ""); code != exitUsage || !strings.Contains(stderr, "--control") {
		t.Errorf("no name: exit code %d, %q", code, stderr)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	a := start(t, "--control", socket)
	look(t, socket).past("started")
	a.stops()
}
