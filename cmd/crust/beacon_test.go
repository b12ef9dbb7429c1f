package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestPeersDiscover: two on the loopback network tell of each other, and of the goodbye;
// one with --no-beacon does not.
func TestPeersDiscover(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("whether other systems broadcast on the loopback network has not been tried")
	}
	t.Setenv("CRUST_BEACON", "")
	config := filepath.Join(t.TempDir(), "config")
	port := 20_000 + os.Getpid()%10_000 // none that sockets get at random
	text := fmt.Sprintf(`{"network":"TestPeersDiscover","beacon":"on","beacon_port":%d}`, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	silent := start(t, "--config", config, "--no-beacon")
	a := start(t, "--config", config)
	b := start(t, "--config", config)
	for _, pair := range [][2]*running{{a, b}, {b, a}} {
		l := pair[0].next("discovered")
		has(t, l, "peer", "endpoint", "by")
		if l.text("peer") != pair[1].id || l.text("endpoint") != pair[1].at || l.text("by") != "beacon" {
			t.Errorf("%s", l.raw)
		}
	}
	b.stops()
	l := a.next("forgotten")
	has(t, l, "peer", "by")
	if l.text("peer") != b.id || l.text("by") != "beacon" {
		t.Errorf("%s", l.raw)
	}
	a.stops()
	silent.stops()
}
