package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds the wait for one line; it is long because machines are busy.
const patience = 30 * time.Second

// line is one line of output.
type line struct {
	raw    string
	keys   []string // in their order, of the outermost object
	fields map[string]any
}

func (l line) event() string { return l.text("event") }

func (l line) text(key string) string { s, _ := l.fields[key].(string); return s }

func (l line) number(key string) float64 { n, _ := l.fields[key].(float64); return n }

// parseLine reads a line of the contract.
func parseLine(raw string) (line, error) {
	l := line{raw: raw}
	if err := json.Unmarshal([]byte(raw), &l.fields); err != nil {
		return l, fmt.Errorf("%q is no JSON object: %w", raw, err)
	}
	reader := json.NewDecoder(strings.NewReader(raw))
	if _, err := reader.Token(); err != nil {
		return l, err
	}
	for reader.More() {
		key, err := reader.Token()
		if err != nil {
			return l, err
		}
		var value json.RawMessage
		if err := reader.Decode(&value); err != nil {
			return l, err
		}
		l.keys = append(l.keys, key.(string))
	}
	return l, nil
}

// running is `crust peer` running inside the test.
type running struct {
	t      *testing.T
	input  *io.PipeWriter
	lines  chan string
	stderr *syncedBuffer
	code   chan int
	once   sync.Once
	exit   int
	id     string // with --json
	at     string // its listener, with --json
	mobile bool   // changes of the machine's network are not passed over
	social bool   // what gossip tells is not passed over
}

type syncedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startText runs `crust peer` for people.
func startText(t *testing.T, arguments ...string) *running {
	t.Helper()
	in, input := io.Pipe()
	output, out := io.Pipe()
	r := &running{t: t, input: input, lines: make(chan string, 1024), stderr: &syncedBuffer{}, code: make(chan int, 1)}
	go func() {
		defer out.Close()
		r.code <- run(append([]string{"peer"}, arguments...), in, out, r.stderr)
	}()
	go func() {
		defer close(r.lines)
		reader := bufio.NewScanner(output)
		reader.Buffer(nil, 1<<20)
		for reader.Scan() {
			r.lines <- reader.Text()
		}
	}()
	t.Cleanup(func() { r.end() })
	return r
}

// start runs `crust peer --json` with one listener on loopback.
func start(t *testing.T, arguments ...string) *running {
	t.Helper()
	r := startText(t, append([]string{"--json", "--listen", "tcp://127.0.0.1:0"}, arguments...)...)
	r.id = r.next("started").text("peer")
	r.at = r.next("listener_started").text("endpoint")
	return r
}

func (r *running) tell(format string, arguments ...any) {
	r.t.Helper()
	if _, err := fmt.Fprintf(r.input, format+"\n", arguments...); err != nil {
		r.t.Fatal(err)
	}
}

// raw returns the next line of output.
func (r *running) raw() string {
	r.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case text, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("the output ended; standard error: %s", r.stderr)
			}
			of := func(words ...string) bool {
				return slices.ContainsFunc(words, func(word string) bool {
					return strings.HasPrefix(text, word+" ") || strings.HasPrefix(text, `{"event":"`+word+`"`)
				})
			}
			if (r.mobile || !of("network_changed")) && (r.social || !of("discovered", "forgotten") || !strings.Contains(text, "gossip")) {
				return text
			}
		case <-timer.C:
			r.t.Fatalf("no output within %v", patience)
		}
	}
}

// next returns the next line, which must be this event.
func (r *running) next(event string) line {
	r.t.Helper()
	l, err := parseLine(r.raw())
	if err != nil {
		r.t.Fatal(err)
	}
	if l.event() != event {
		r.t.Fatalf("got %s, want the event %q", l.raw, event)
	}
	return l
}

// counted returns the counters when one has reached a value, which is a moment
// after the events that it counts, or as they are after long patience.
func (r *running) counted(key string, want float64) line {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		r.tell("stats")
		if l := r.next("stats"); l.number(key) >= want || time.Now().After(deadline) {
			return l
		}
	}
}

// refuse asserts that the next line is an error with this code.
func (r *running) refuse(code string) line {
	r.t.Helper()
	l := r.next("error")
	if l.text("code") != code || l.text("error") == "" {
		r.t.Errorf("got %s, want code %q and a sentence", l.raw, code)
	}
	return l
}

// end ends the input, and returns what was still written and the exit code.
func (r *running) end() (rest []string, code int) {
	r.t.Helper()
	r.input.Close()
	for text := range r.lines {
		rest = append(rest, text)
	}
	r.once.Do(func() { r.exit = <-r.code })
	return rest, r.exit
}

// stops ends the input and asserts an orderly end.
func (r *running) stops() {
	r.t.Helper()
	rest, code := r.end()
	if code != exitOK || len(rest) == 0 || !strings.Contains(rest[len(rest)-1], `"stopped"`) {
		r.t.Errorf("ended with exit code %d after %q, want 0 after stopped; standard error: %s", code, rest, r.stderr)
	}
}

// join connects a to b by endpoint.
func join(a, b *running) {
	a.t.Helper()
	a.tell("connect %s#%s", b.at, b.id)
	a.next("connected")
	b.next("connected")
}

// has asserts the names of a line's fields and their order.
func has(t *testing.T, l line, keys ...string) {
	t.Helper()
	if want := append([]string{"event", "t_ms"}, keys...); !slices.Equal(l.keys, want) {
		t.Errorf("%s has the fields %q, want %q", l.event(), l.keys, want)
	}
}
