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
	"strconv"
	"strings"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestMain lets the test program be a peer itself: as `crust peer --json`, but with
// the public Go API alone, and with "dial PEER".
func TestMain(m *testing.M) {
	if os.Getenv("CRUST_NATLAB_PEER") == "" {
		os.Setenv("CRUST_NATLAB_PEER", "1") // of those that it starts
		os.Setenv("CRUST_PORTMAP", "off")
		os.Exit(m.Run())
	}
	if err := runPeer(os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runPeer runs until the end of its input. Words are those of crust.Config that the
// tests need: "relay".
func runPeer(words []string) error {
	config := crust.Config{NetworkName: "natlab", CloseTimeout: time.Second}
	for _, text := range []string{"tcp://0.0.0.0:0", "utp://0.0.0.0:0"} {
		ep, err := crust.ParseEndpoint(text)
		if err != nil {
			return err
		}
		config.Listen = append(config.Listen, ep)
	}
	if len(words) > 0 && words[0] == "relay" {
		config.Relay = crust.RelayData
	}
	if os.Getenv("CRUST_NATLAB_DEBUG") != "" {
		config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := crust.New(config)
	if err != nil {
		return err
	}
	begin := time.Now()
	say := func(name string, e *crust.Event) {
		line := map[string]any{"event": name, "t_ms": float64(time.Since(begin).Microseconds()) / 1000, "peer": s.ID().String()}
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
	say("started", nil)
	go func() {
		defer s.Close()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if err := obey(s, strings.SplitN(lines.Text(), " ", 3)); err != nil {
				fmt.Fprintln(os.Stderr, lines.Text(), err)
			}
		}
	}()
	for e := range s.Events(context.Background()) {
		say(e.Type.String(), &e)
	}
	return nil
}

func obey(s *crust.Service, words []string) error {
	switch {
	case words[0] == "info":
		return s.PrepareConnectionInfo(1)
	case words[0] == "connect":
		info, err := hex.DecodeString(words[1])
		if err != nil {
			return err
		}
		return s.Connect(info, 2)
	}
	id, err := crust.ParsePeerID(words[1])
	if err != nil {
		return err
	}
	if words[0] == "dial" {
		return s.ConnectPeer(id, 3)
	}
	return s.Send(id, []byte(words[2]), 1)
}

// settle is how long peers are left alone to find out what their NATs are like.
const settle = 2 * time.Second

// meet lets a dial b, whom three public peers know, and returns how that ended.
func meet(t *testing.T, c Config, relay bool) (Event, error) {
	t.Helper()
	l := newLab(t, c)
	start := func(m *Machine, words ...string) *Peer {
		p, err := m.Peer("/proc/self/exe", words...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(m.Name, err, p)
			}
		})
		return p
	}
	tell := func(p *Peer, format string, arguments ...any) {
		if err := p.Tell(format, arguments...); err != nil {
			t.Fatal(err)
		}
	}
	a, b := start(l.A), start(l.B)
	for _, m := range l.Public[:3] {
		var words []string
		if relay {
			words = []string{"relay"}
		}
		s := start(m, words...)
		tell(s, "info")
		e, err := s.Await("info", patience)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []*Peer{a, b} {
			tell(p, "connect %s", e.Text("info"))
			if _, err := p.Await("connected", 2*patience, "peer", s.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(settle)
	begin := time.Now()
	tell(a, "dial %s", b.ID)
	e, err := a.Await("connected", 4*patience, "peer", b.ID)
	if err != nil {
		return nil, fmt.Errorf("%w; and b: %v", err, b)
	}
	e["took_ms"] = float64(time.Since(begin).Microseconds()) / 1000
	// What is said arrives.
	tell(a, "send %s hello", b.ID)
	if _, err := b.Await("message", patience, "peer", a.ID, "text", "hello"); err != nil {
		t.Error(err)
	}
	return e, nil
}

// TestPairs connects peers behind NATs by what they have themselves: no relay carries
// data.
func TestPairs(t *testing.T) {
	seed, _ := strconv.ParseUint(os.Getenv("CRUST_NATLAB_SEED"), 10, 64) // 0 when it is not given
	for _, c := range []struct {
		a, b, how string
		tcp       bool // it must be
	}{
		{"public", "home", "accepted", true},
		{"home", "home", "punched", false},
		{"kernel-home", "kernel-home", "punched", false},
		{"kernel-home-reset", "kernel-home-reset", "punched", false},
		{"kernel-home-accept", "kernel-home-accept", "punched", false},
		{"home", "sequential", "punched", false},
		{"home", "block", "punched", false},
		{"home", "symmetric", "punched", false},
		{"kernel-home", "kernel-symmetric", "punched", false},
		{"sequential", "sequential", "punched", false},
		{"udp-blocked", "kernel-udp-blocked", "punched", true},
		{"kernel-firewall", "firewall", "punched", false},
		{"home-in-carrier", "home", "punched", false},
	} {
		t.Run(c.a+" "+c.b, func(t *testing.T) {
			t.Parallel()
			e, err := meet(t, Config{A: named(t, c.a), B: named(t, c.b), Hops: 8, Seed: seed}, false)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s by %s after %v ms", e.Text("how"), e.Text("endpoint"), e.Number("took_ms"))
			if e.Text("how") != c.how || c.tcp && !strings.HasPrefix(e.Text("endpoint"), "tcp") {
				t.Errorf("%s by %s", e.Text("how"), e.Text("endpoint"))
			}
		})
	}
}

// TestRelayed: what cannot meet otherwise meets over a public peer that relays.
func TestRelayed(t *testing.T) {
	e, err := meet(t, Config{A: named(t, "symmetric"), B: named(t, "kernel-symmetric"), Hops: 8}, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s by %s after %v ms", e.Text("how"), e.Text("endpoint"), e.Number("took_ms"))
	if e.Text("how") != "relayed" {
		t.Errorf("%s by %s", e.Text("how"), e.Text("endpoint"))
	}
}
