//go:build linux

package lan_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/tests/linklab"
)

const peerVariable = "CRUST_LAN_PEER"

// TestMain lets the test program be a peer itself.
func TestMain(m *testing.M) {
	if os.Getenv(peerVariable) == "" {
		for _, name := range []string{"CRUST_PORTMAP", "CRUST_BEACON"} { // unless one is told to
			if err := os.Setenv(name, "off"); err != nil {
				panic(err)
			}
		}
		os.Exit(m.Run())
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// event is a line that a peer prints.
type event struct {
	Event    string
	At       float64 // milliseconds since 1970, by the machine's clock
	Self     string  // which service it is
	Peer     string
	Endpoint string
	By       string
}

// lines writes events.
type lines struct {
	mu sync.Mutex
	to *json.Encoder
}

func (l *lines) say(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to.Encode(e) //nolint:errcheck // who reads is gone
}

func now() float64 { return float64(time.Now().UnixMicro()) / 1000 }

// run is a peer: it begins with one service, and obeys "connect CONTACT" and "another",
// which makes one more, until the end of its input.
func run(network string, listen []string) error {
	out := &lines{to: json.NewEncoder(os.Stdout)}
	var services []*crust.Service
	var wg sync.WaitGroup
	begin := func() error {
		config := crust.Config{NetworkName: network, PortMap: crust.PortMapOff, Gossip: crust.GossipOff, CloseTimeout: time.Second}
		for _, text := range listen {
			ep, err := crust.ParseEndpoint(text)
			if err != nil {
				return err
			}
			config.Listen = append(config.Listen, ep)
		}
		began := now()
		s, err := crust.New(config)
		if err != nil {
			return err
		}
		services = append(services, s)
		id := s.ID().String()
		out.say(event{Event: "started", At: began, Self: id, Peer: id})
		wg.Go(func() {
			for e := range s.Events(context.Background()) {
				out.say(event{e.Type.String(), now(), id, e.Peer.String(), e.Endpoint().String(), e.By().String()})
			}
		})
		return nil
	}
	err := begin()
	for input := bufio.NewScanner(os.Stdin); err == nil && input.Scan(); {
		word, rest, _ := strings.Cut(input.Text(), " ")
		switch word {
		case "another":
			err = begin()
		case "connect":
			var contact crust.Contact
			if contact, err = crust.ParseContact(rest); err == nil {
				err = services[0].ConnectEndpoint(contact, 1)
			}
		}
	}
	for _, s := range services {
		s.Close()
	}
	wg.Wait()
	return err
}

// peer is one at work.
type peer struct {
	t       *testing.T
	id      string
	began   float64
	command *exec.Cmd
	input   io.WriteCloser
	stderr  strings.Builder
	done    chan struct{}

	mu     sync.Mutex
	events []event
	taken  map[int]bool
}

// patience is how long an event is waited for, on a machine that does much else.
const patience = 30 * time.Second

// start starts a peer in a namespace and waits until it has begun.
func start(t *testing.T, at *linklab.Namespace, network string, listen ...string) *peer {
	t.Helper()
	p := &peer{t: t, done: make(chan struct{}), taken: map[int]bool{}}
	p.command = exec.Command("/proc/self/exe", append([]string{network}, listen...)...)
	p.command.Env = append(os.Environ(), peerVariable+"=1", "CRUST_BEACON=")
	p.command.Stderr = &p.stderr
	var err error
	if p.input, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := at.Start(p.command); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for decoder := json.NewDecoder(output); ; {
			var e event
			if decoder.Decode(&e) != nil {
				return
			}
			p.mu.Lock()
			p.events = append(p.events, e)
			p.mu.Unlock()
		}
	}()
	t.Cleanup(p.end)
	e := p.await("started", "")
	p.id, p.began = e.Peer, e.At
	return p
}

// say has the peer obey a line.
func (p *peer) say(format string, a ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.input, format+"\n", a...); err != nil {
		p.t.Fatal(err)
	}
}

// end ends the peer in order. It may be called again.
func (p *peer) end() {
	p.input.Close()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Errorf("a peer does not end")
		p.command.Process.Kill()
	}
	p.command.Wait() //nolint:errcheck // a second time it is an error
	if p.stderr.Len() > 0 {
		p.t.Errorf("a peer says: %s", p.stderr.String())
		p.stderr.Reset()
	}
}

// await waits for an event about a peer, "" for any, and takes it: the next time it is
// another one.
func (p *peer) await(name, id string) event {
	p.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		p.mu.Lock()
		for i, e := range p.events {
			if !p.taken[i] && e.Event == name && (id == "" || e.Peer == id) {
				p.taken[i] = true
				p.mu.Unlock()
				return e
			}
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.Fatalf("no event %q about %q within %v; there are %+v; %s", name, id, patience, p.events, p.stderr.String())
	return event{}
}

// last returns the last event of a name.
func (p *peer) last(name string) (last event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Event == name {
			last = e
		}
	}
	return last
}

// has reports whether there was an event of a name.
func (p *peer) has(name string) (event, bool) {
	e := p.last(name)
	return e, e.Event != ""
}
