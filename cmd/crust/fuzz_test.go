package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	crust "github.com/libcrust/libcrust/core"
)

// FuzzCommand gives any line to a peer whose service is closed, so that nothing
// reaches a network. Each line has at most one answer, a well-formed one.
func FuzzCommand(f *testing.F) {
	id := strings.Repeat("ab", 32)
	for _, seed := range []string{
		"", " ", "info", "quit", "quit now", "help", "connect 127.0.0.1:1", "connect 127.0.0.1:1#" + id, "connect AZH8", "connect AZ==",
		"send " + id + " text", "send a", "bulk " + id + " 3 64 9", "bulk a 1 1 256", "bulk a 18446744073709551616 1", "disconnect " + id,
		"peers", "known", "stats", "nat", "nat x", "bans", "ban 1.2.3.0/24 60", "ban " + id, "ban 1.2.3.4 0", "unban ::1", "unban a", "dial " + id, "dial a", "dial", "dial " + id + ` ["hello","\u00e9\n"]`, "dial " + id + " [null]", "dial a [\"\xff\"]", "dial " + id + ` ["` + strings.Repeat(`","`, 64) + `"]`, "receipt " + id + " text", "receipt a", "datagram " + id + " text", "datagram a", "\tpeers", "send \x00\xff \xff", "INFO",
	} {
		f.Add(seed)
	}
	service, err := crust.New(crust.Config{NoListen: true})
	if err != nil {
		f.Fatal(err)
	}
	if err := service.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\n") {
			t.Skip("more than one line")
		}
		var answers bytes.Buffer
		p := newPeer(service, newOutput(&answers, true), 0)
		quit := p.execute(t.Context(), text)
		p.senders.stop()
		if quit && (strings.TrimSpace(text) != "quit" || answers.Len() > 0) {
			t.Fatalf("%q ends the peer with the answer %q", text, answers.String())
		}
		if answers.Len() == 0 {
			return
		}
		answer, ended := strings.CutSuffix(answers.String(), "\n")
		l, err := parseLine(answer)
		if err != nil || !ended || strings.Contains(answer, "\n") {
			t.Fatalf("%q is answered by %q: %v", text, answers.String(), err)
		}
		switch l.event() {
		case "error":
			has(t, l, "code", "error")
			if l.text("code") == "" || l.text("error") == "" {
				t.Fatalf("%q is answered by %s", text, answer)
			}
		case "peers", "known", "stats", "nat", "bans", "unbanned":
		default:
			t.Fatalf("%q is answered by %s", text, answer)
		}
	})
}

// FuzzReadLine reads any input as lines: none is lost, and none is too long.
func FuzzReadLine(f *testing.F) {
	for _, seed := range []string{"", "\n", "a\nb", "a\r\nb\r\n", strings.Repeat("x", 200) + "\ny"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := bufio.NewReaderSize(strings.NewReader(text), 16)
		var got []string
		for {
			line, whole, err := readLine(r)
			if !whole {
				t.Fatalf("a line of at most %d bytes is said to be too long", len(text))
			}
			got = append(got, line)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var want []string
		for _, line := range strings.Split(text, "\n") {
			want = append(want, strings.TrimSuffix(line, "\r"))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("%q is read as %q, want %q", text, got, want)
		}
	})
}
