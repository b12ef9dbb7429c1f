package main

import (
	"strings"
	"testing"
)

// A peer that is banned is lost at once and told so, cannot come back until the ban is
// lifted, and is listed meanwhile; addresses and prefixes are banned likewise.
func TestBan(t *testing.T) {
	a, b := start(t), start(t)
	join(a, b)
	a.tell("ban %s 3600", b.id[:8])
	got := map[string]line{}
	for range 2 { // in either order
		l, err := parseLine(a.raw())
		if err != nil {
			t.Fatal(err)
		}
		got[l.event()] = l
	}
	if l := got["banned"]; l.text("who") != b.id || l.fields["seconds"] != 3600.0 {
		t.Errorf("got %v", got)
	}
	if l := got["lost"]; l.text("peer") != b.id || l.text("code") != "banned" {
		t.Errorf("got %v", got)
	}
	if l := b.next("lost"); l.text("peer") != a.id || l.text("code") != "banned" {
		t.Errorf("got %s, want code banned", l.raw)
	}
	b.tell("connect %s", a.at)
	if l := b.next("connect_failed"); l.text("code") != "banned" {
		t.Errorf("got %s, want code banned", l.raw)
	}
	a.tell("connect %s#%s", b.at, b.id)
	a.refuse("banned")
	a.tell("ban 192.0.2.77/24")
	if l := a.next("banned"); l.text("who") != "192.0.2.0/24" || l.fields["seconds"] != 0.0 {
		t.Errorf("got %s", l.raw)
	}
	a.tell("bans")
	l := a.next("bans")
	has(t, l, "bans")
	list := l.fields["bans"].([]any)
	if len(list) != 2 {
		t.Fatalf("got %s", l.raw)
	}
	first, second := list[0].(map[string]any), list[1].(map[string]any)
	if left := first["left_ms"].(float64); first["who"] != b.id || left < 3_000_000 || left > 3_600_000 || len(first) != 3 || second["who"] != "192.0.2.0/24" || second["left_ms"] != 0.0 {
		t.Errorf("got %s", l.raw)
	}
	for _, command := range []string{
		"ban", "ban x", "ban 1.2.3.4/33", "ban 1.2.3.4:5", "ban " + strings.Repeat("0", 64), "ban 1.2.3.4 0", "ban 1.2.3.4 -1", "ban 1.2.3.4 soon", "ban 1.2.3.4 3153600001", "ban 1.2.3.4 1 2",
		"unban", "unban 1.2.3.4", "unban 192.0.2.0/25", "unban " + strings.Repeat("ab", 32), "bans all",
	} {
		a.tell("%s", command)
		a.refuse("invalid")
	}
	a.tell("ban %s", a.id)
	a.refuse("self")
	a.tell("unban %s", b.id[:4])
	if l := a.next("unbanned"); l.text("who") != b.id {
		t.Errorf("got %s", l.raw)
	}
	b.tell("connect %s", a.at)
	b.next("connected")
	a.next("connected")
}
