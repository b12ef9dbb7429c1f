package main

import (
	"strings"
	"testing"
)

// A peer tells of those that it has heard of by gossip, lists them, and connects to them;
// one that takes no part hears of nobody.
func TestGossip(t *testing.T) {
	hub, deaf := start(t), start(t, "--gossip", "off")
	a, b := start(t), start(t)
	a.social = true
	for _, r := range []*running{a, deaf} {
		join(r, hub)
	}
	join(b, hub)
	l := a.next("discovered")
	has(t, l, "peer", "endpoint", "by")
	if l.text("peer") != b.id || l.text("endpoint") != b.at || l.text("by") != "gossip" {
		t.Errorf("got %s, want %s at %s by gossip", l.raw, b.id, b.at)
	}
	a.tell("known")
	l = a.next("known")
	has(t, l, "known")
	var list []string
	for _, k := range l.fields["known"].([]any) {
		of := k.(map[string]any)
		list = append(list, of["peer"].(string))
		if len(of) != 4 || of["role"] != "node" || len(of["endpoints"].([]any)) != 1 || of["expires_ms"].(float64) < 60_000 {
			t.Errorf("got %v", of)
		}
	}
	if text := strings.Join(list, " "); len(list) != 2 || !strings.Contains(text, hub.id) || !strings.Contains(text, b.id) {
		t.Errorf("%s is known, want %s and %s", text, hub.id, b.id)
	}
	deaf.tell("known")
	if l := deaf.next("known"); len(l.fields["known"].([]any)) != 0 {
		t.Errorf("got %s, want nobody", l.raw)
	}
	deaf.tell("known all")
	deaf.refuse("invalid")
	a.tell("dial %s", b.id)
	if l := a.next("connected"); l.text("peer") != b.id {
		t.Errorf("got %s", l.raw)
	}
	b.next("connected")
	b.stops()
	for range 2 { // in either order
		if l, err := parseLine(a.raw()); err != nil || l.event() != "lost" && l.event() != "forgotten" || l.text("peer") != b.id {
			t.Errorf("got %s, %v", l.raw, err)
		}
	}
	if _, stderr, code := invoke("peer", "--gossip", "loud"); code != exitUsage || !strings.Contains(stderr, "on, answer or off") {
		t.Errorf("--gossip loud: exit code %d, %q", code, stderr)
	}
}
