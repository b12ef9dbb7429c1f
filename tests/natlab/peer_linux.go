package natlab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Build builds the program crust into a directory and returns its path.
func Build(directory string) (string, error) {
	path := filepath.Join(directory, "crust")
	out, err := exec.Command("go", "build", "-o", path, "github.com/libcrust/libcrust/cmd/crust").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build crust: %w: %s", err, out)
	}
	return path, nil
}

// Event is a line that a peer printed (docs/PEER.md).
type Event map[string]any

// Name is the event's name.
func (e Event) Name() string { return e.Text("event") }

// Text returns a field that is a string, "" if there is none.
func (e Event) Text(key string) string { s, _ := e[key].(string); return s }

// Number returns a field that is a number, 0 if there is none.
func (e Event) Number(key string) float64 { n, _ := e[key].(float64); return n }

// Peer is a `crust peer --json` that runs at a machine. Its methods may be called by
// any goroutine.
type Peer struct {
	// ID is the peer's id, as its first line tells it.
	ID string

	command *exec.Cmd
	input   io.WriteCloser
	ended   chan struct{} // closed when its output has ended
	heard   chan struct{} // has a value when there may be more

	mu     sync.Mutex
	events []Event // all
	next   int     // the first that Await has not looked at
	stderr strings.Builder
}

// Peer starts the program at a path as a peer with more arguments, and waits until it
// has started. It is killed when the laboratory ends.
func (m *Machine) Peer(program string, arguments ...string) (*Peer, error) {
	p := &Peer{ended: make(chan struct{}), heard: make(chan struct{}, 1)}
	p.command = exec.Command(program, append([]string{"peer", "--json"}, arguments...)...)
	p.command.Stderr = writer(func(b []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stderr.Write(b)
	})
	output, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.input, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := m.Start(p.command); err != nil {
		return nil, err
	}
	go p.listen(output)
	started, err := p.Await("started", patience)
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	p.ID = started.Text("peer")
	return p, nil
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

// listen reads the peer's output.
func (p *Peer) listen(output io.Reader) {
	defer close(p.ended)
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = Event{"event": "no JSON", "text": lines.Text()}
		}
		p.mu.Lock()
		p.events = append(p.events, e)
		p.mu.Unlock()
		select {
		case p.heard <- struct{}{}:
		default:
		}
	}
}

// Tell gives the peer a command.
func (p *Peer) Tell(format string, arguments ...any) error {
	_, err := fmt.Fprintf(p.input, format+"\n", arguments...)
	return err
}

// Await returns the next event of that name, any for "", that has all of the fields, given as
// pairs such as "peer", id. Other events before it are passed over. The error says
// what the peer did instead. It is for one goroutine at a time.
func (p *Peer) Await(name string, wait time.Duration, fields ...string) (Event, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		if e := p.take(name, fields); e != nil {
			return e, nil
		}
		select {
		case <-p.heard:
		case <-timer.C:
			return nil, fmt.Errorf("no event %q %q within %v; there were %s", name, fields, wait, p)
		case <-p.ended:
			if e := p.take(name, fields); e != nil {
				return e, nil
			}
			return nil, fmt.Errorf("no event %q %q before the end; there were %s", name, fields, p)
		}
	}
}

// take looks for an event among those that have come.
func (p *Peer) take(name string, fields []string) Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.next < len(p.events) {
		e := p.events[p.next]
		p.next++
		fits := name == "" || e.Name() == name
		for i := 0; i+1 < len(fields); i += 2 {
			fits = fits && e.Text(fields[i]) == fields[i+1]
		}
		if fits {
			return e
		}
	}
	return nil
}

// Events returns all that the peer has printed.
func (p *Peer) Events() []Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Event(nil), p.events...)
}

// String lists what the peer has printed.
func (p *Peer) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, e := range p.events {
		text, _ := json.Marshal(e) // it was JSON
		b.Write(append(text, '\n'))
	}
	return b.String() + p.stderr.String()
}

// Stop ends the peer in order; after 10 s it is killed. The error says how it ended,
// unless it was well.
func (p *Peer) Stop() error {
	_ = p.input.Close() // it may be closed
	late := time.AfterFunc(2*patience, func() { _ = p.command.Process.Kill() })
	defer late.Stop()
	<-p.ended
	return p.command.Wait()
}
