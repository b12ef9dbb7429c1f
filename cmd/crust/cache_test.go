package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	crust "github.com/libcrust/libcrust/core"
)

// cacheOf makes a cache with one peer, whose endpoint it returns.
func cacheOf(t *testing.T) (path string, peer crust.PeerID, at string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "node.cache")
	b := start(t)
	a := start(t, "--cache", path, "--contact", b.at, "--bootstrap")
	a.next("connected")
	a.next("bootstrapped")
	a.stops()
	again := start(t, "--cache", path, "--bootstrap")
	again.next("connected")
	if l := again.next("bootstrapped"); l.text("peer") != b.id {
		t.Fatalf("back with %s, want %s", l.text("peer"), b.id)
	}
	again.stops()
	id, err := crust.ParsePeerID(b.id)
	if err != nil {
		t.Fatal(err)
	}
	return path, id, b.at
}

func TestCacheCommands(t *testing.T) {
	path, peer, at := cacheOf(t)
	stdout, stderr, code := invoke("cache", "list", "--cache", path)
	if code != exitOK || stderr != "" || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, peer.String()) || !strings.Contains(stdout, at) {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	stdout, _, code = invoke("cache", "list", "--cache", path, "--json")
	var row struct {
		Peer, Role, Reached string
		Failed              *string
		Failures            *int
		Endpoints           []struct{ Endpoint, Worked string }
	}
	if err := json.Unmarshal([]byte(stdout), &row); err != nil || code != exitOK {
		t.Fatalf("%d %q: %v", code, stdout, err)
	}
	if row.Peer != peer.String() || row.Role != "node" || row.Failed != nil || row.Failures == nil || *row.Failures != 0 || row.Endpoints[0].Endpoint != at || row.Endpoints[0].Worked != row.Reached {
		t.Fatalf("%q", stdout)
	}
	if stdout, _, code = invoke("cache", "verify", "--cache", path); code != exitOK || !strings.Contains(stdout, "1 of 200 slots") || !strings.Contains(stdout, "nothing is wrong") {
		t.Fatalf("%d %q", code, stdout)
	}
	if stdout, _, code = invoke("cache", "prune", "--cache", path); code != exitOK || stdout != "" {
		t.Fatalf("%d %q", code, stdout)
	}
	if stdout, _, code = invoke("cache", "prune", "--cache", path, "--older", "0s"); code != exitOK || !strings.HasPrefix(stdout, peer.String()) {
		t.Fatalf("%d %q", code, stdout)
	}
	if stdout, _, code = invoke("cache", "list", "--cache", path); code != exitOK || stdout != "" {
		t.Fatalf("%d %q", code, stdout)
	}
}

func TestCacheVerifyFindsDamage(t *testing.T) {
	path, _, _ := cacheOf(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[4096]++
	const firstSlot = 8192 // and its second copy is in the other half
	b[firstSlot+50]++
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := invoke("cache", "verify", "--cache", path, "--json")
	var v struct {
		Sound  *bool
		Peers  int
		Damage []struct {
			Where, Error string
			Lost         bool
		}
	}
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != exitOK || stderr != "" {
		t.Fatalf("%d %q %q: %v", code, stdout, stderr, err)
	}
	if v.Sound == nil || *v.Sound || v.Peers != 1 || len(v.Damage) != 2 || v.Damage[0].Where != "header copy 2" || v.Damage[1].Where != "slot 1 copy 1" || v.Damage[1].Lost {
		t.Fatalf("%q", stdout)
	}
	if err := os.Truncate(path, 100_000); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code = invoke("cache", "verify", "--cache", path); code != exitFailure || !strings.Contains(stdout, "100000 bytes where its header says") || !strings.Contains(stderr, "may be lost") {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	if after, err := os.ReadDir(filepath.Dir(path)); err != nil || len(after) != 2 { // the lock
		t.Fatalf("verify has made something: %v", after)
	}
}

func TestCacheFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	if err := os.WriteFile(foreign, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"list", "verify", "prune"} {
		for path, what := range map[string]string{foreign: "no bootstrap cache", filepath.Join(dir, "missing"): "no such file", dir: "directory"} {
			if stdout, stderr, code := invoke("cache", verb, "--cache", path); code != exitFailure || stdout != "" || !strings.Contains(stderr, what) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s %s: %d %q %q", verb, path, code, stdout, stderr)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("something was made: %v", left)
	}
	p := startText(t, "--json", "--listen", "tcp://127.0.0.1:0", "--cache", foreign)
	p.next("started")
	l := p.next("cache_trouble")
	has(t, l, "error")
	if !strings.Contains(l.text("error"), "set aside as "+foreign+".bad-1") {
		t.Errorf("%s", l.raw)
	}
	p.next("listener_started")
	p.stops()
}
