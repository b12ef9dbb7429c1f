package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeerLogs: what is logged goes to standard error, as text or one JSON object a line,
// by flag or by file, and to the contract goes nothing of it.
func TestPeerLogs(t *testing.T) {
	a := start(t, "--log-level", "info", "--log-json")
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(`{"log_level":"debug"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := start(t, "--config", file)
	silent := start(t, "--config", file, "--log-level", "off")
	b.tell("connect %s", a.at)
	b.next("connected")
	a.next("connected")
	b.stops()
	a.next("lost")
	a.stops()
	silent.stops()
	var names []string
	for text := range strings.Lines(a.stderr.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if record["msg"] == "connected" && (record["peer"] != b.id[:8] || record["level"] != "INFO") {
			t.Errorf("%s", text)
		}
		names = append(names, record["msg"].(string))
	}
	if got := strings.Join(names, ", "); got != "listener started, service started, connected, peer lost, service stopped" {
		t.Errorf("logged: %s", got)
	}
	for _, want := range []string{`level=DEBUG msg="endpoint tried"`, `level=INFO msg=connected peer=` + a.id[:8], `msg="service stopped"`} {
		if !strings.Contains(b.stderr.String(), want) {
			t.Errorf("no %s in %s", want, b.stderr)
		}
	}
	if text := silent.stderr.String(); text != "" {
		t.Errorf("with --log-level off: %s", text)
	}
	if _, stderr, code := invoke("peer", "--log-level", "loud"); code != exitUsage || !strings.Contains(stderr, `not "loud"`) {
		t.Errorf("%d %s", code, stderr)
	}
}
