package crust_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestKeyLog: both sides write the same line for each link, over either transport, and
// say that they do; without being asked nobody does.
func TestKeyLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	var log, keys safeBuffer
	ours := crust.Config{KeyLogFile: file, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	clearWorld(t, "tcp utp", "tcp utp", ours, crust.Config{KeyLog: &keys}, func(t *testing.T, n *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		if err := a.ConnectEndpoint(contactOf(t, b, crust.UTP, "10.0.0.2"), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 1); e.Type != crust.EventConnected {
			t.Fatalf("%v: %v", e.Type, e.Err())
		}
		b.nextBut(crust.EventConnected)
		anybody := contactOf(t, b, crust.TCP, "10.0.0.2")
		anybody.Peer = crust.PeerID{} // else it is connected
		if err := a.ConnectEndpoint(anybody, 2); err != nil {
			t.Fatal(err)
		}
		if e := a.nextBut(crust.EventAlreadyConnected, crust.EventConnectFailed); e.Type != crust.EventAlreadyConnected {
			t.Fatalf("%v: %v", e.Type, e.Err())
		}
	})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != keys.String() {
		t.Errorf("one side has written\n%s\nand the other one\n%s", text, keys.String())
	}
	stream := regexp.MustCompile(`(?m)^CRUST1_STREAM [0-9a-f]{48} [0-9a-f]{64} [12] [0-9a-f]{64} [0-9a-f]{64} [0-9a-f]+ [0-9a-f]+$`)
	datagram := regexp.MustCompile(`(?m)^CRUST1_DATAGRAM [0-9a-f]{16} [0-9a-f]{64} [12] [0-9a-f]{64} [0-9a-f]{64} [0-9a-f]+ [0-9a-f]+$`)
	if lines := bytes.Count(text, []byte("\n")); lines != 2 || !stream.Match(text) || !datagram.Match(text) {
		t.Errorf("the key log is\n%s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if !strings.Contains(log.String(), "THE KEYS OF ALL SESSIONS ARE WRITTEN DOWN") {
		t.Errorf("the log says %q", log.String())
	}
}

// badWriter takes nothing.
type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { return 0, errors.New("no room") }

// TestKeyLogTrouble: a file that cannot be opened is told at once, and one that cannot be
// written to ends no session.
func TestKeyLogTrouble(t *testing.T) {
	_, err := crust.New(crust.Config{KeyLogFile: filepath.Join(t.TempDir(), "none", "keys"), NoListen: true})
	if err == nil || crust.CodeOf(err) != crust.CodeIO {
		t.Errorf("a file in no directory: %v", err)
	}
	var log safeBuffer
	ours := crust.Config{KeyLog: badWriter{}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	clearWorld(t, "tcp", "tcp", ours, crust.Config{}, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		if err := a.ConnectEndpoint(contactOf(t, b, crust.TCP, "10.0.0.2"), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 1); e.Type != crust.EventConnected {
			t.Errorf("%v: %v", e.Type, e.Err())
		}
	})
	if strings.Count(log.String(), "no room") != 1 {
		t.Errorf("the log says %q", log.String())
	}
}
