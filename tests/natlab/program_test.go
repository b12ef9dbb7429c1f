//go:build linux

package natlab

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestMain lets the test program be a peer itself: as `crust peer --json`, but with
// the public Go API alone, and with times of the machine's clock.
func TestMain(m *testing.M) {
	if os.Getenv("CRUST_NATLAB_PEER") == "" {
		os.Setenv("CRUST_NATLAB_PEER", "1") // of those that it starts
		os.Setenv("CRUST_PORTMAP", "off")   // unless one is told to map
		os.Setenv("CRUST_BEACON", "off")
		os.Exit(m.Run())
	}
	if err := runPeer(os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// program is a peer at work.
type program struct {
	*crust.Service
	mu       sync.Mutex
	greeting map[crust.PeerID]string // what is said to a peer once it is connected
}

// runPeer runs until the end of its input. Words are those of crust.Config that the
// tests need: "relay", "map", and endpoints to listen at.
func runPeer(words []string) error {
	config := crust.Config{NetworkName: "natlab", CloseTimeout: time.Second, ConnectTimeout: 30 * time.Second, Gossip: crust.GossipOff}
	for _, word := range words {
		switch word {
		case "relay":
			config.Relay = crust.RelayData
			continue
		case "map":
			os.Unsetenv("CRUST_PORTMAP")
			continue
		}
		ep, err := crust.ParseEndpoint(word)
		if err != nil {
			return err
		}
		config.Listen = append(config.Listen, ep)
	}
	if os.Getenv("CRUST_NATLAB_DEBUG") != "" {
		config.LogLevel = slog.LevelDebug
		config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := crust.New(config)
	if err != nil {
		return err
	}
	p := &program{Service: s, greeting: map[crust.PeerID]string{}}
	p.say("started", nil)
	go func() {
		defer s.Close()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if err := p.obey(strings.SplitN(lines.Text(), " ", 3)); err != nil {
				fmt.Fprintln(os.Stderr, lines.Text(), err)
			}
		}
	}()
	for e := range s.Events(context.Background()) {
		if e.Type == crust.EventConnected {
			p.greet(e.Peer)
		}
		p.say(e.Type.String(), &e)
	}
	return nil
}

// say prints an event. at_ms is by the machine's clock, which all peers share.
func (p *program) say(name string, e *crust.Event) {
	line := map[string]any{"event": name, "at_ms": float64(time.Now().UnixMicro()) / 1000, "peer": p.ID().String()}
	if e != nil {
		line["peer"], line["how"], line["endpoint"], line["took_ms"] = e.Peer.String(), e.How().String(), e.Endpoint().String(), float64(e.Took().Microseconds())/1000
		line["text"] = string(e.Data)
		if e.Type == crust.EventConnectionInfo {
			line["info"] = hex.EncodeToString(e.Data)
		}
		if e.Err() != nil {
			line["error"] = e.Err().Error()
		}
	}
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

// greet says what was to be said to a peer.
func (p *program) greet(id crust.PeerID) {
	p.mu.Lock()
	text, ok := p.greeting[id]
	delete(p.greeting, id)
	p.mu.Unlock()
	if ok {
		if err := p.Send(id, []byte(text), 1); err != nil {
			fmt.Fprintln(os.Stderr, "greeting", err)
		}
	}
}

// obey does what a line says: "info", "connect INFO", "reach ENDPOINT PEER", "dial PEER
// GREETING", "call PEER GREETING" whose greeting goes with the call, "leave PEER", "send
// PEER TEXT".
func (p *program) obey(words []string) error {
	switch words[0] {
	case "info":
		return p.PrepareConnectionInfo(1)
	case "connect":
		info, err := hex.DecodeString(words[1])
		if err != nil {
			return err
		}
		return p.Connect(info, 2)
	case "reach":
		contact, err := crust.ParseContact(words[1] + "#" + words[2])
		if err != nil {
			return err
		}
		return p.ConnectEndpoint(contact, 2)
	}
	id, err := crust.ParsePeerID(words[1])
	if err != nil {
		return err
	}
	switch words[0] {
	case "dial":
		p.mu.Lock()
		p.greeting[id] = words[2]
		p.mu.Unlock()
		p.say("calls", nil)
		return p.ConnectPeer(id, 3)
	case "call":
		p.say("calls", nil)
		return p.ConnectPeer(id, 3, []byte(words[2]))
	case "leave":
		return p.Disconnect(id)
	}
	return p.Send(id, []byte(words[2]), 1)
}
