//go:build linux

package soak

import (
	"strings"
	"testing"
	"time"
)

// journal makes a life of its lines, a second apart, of which "-" is none.
func journal(node, number int, lines ...string) *life {
	l := &life{node: node, life: number, began: at(0)}
	for i, line := range lines {
		if fields := strings.Fields(line); fields[0] != "-" {
			l.entries = append(l.entries, entry{at(i), fields[0], fields[1:]})
		}
	}
	return l
}

func at(second int) time.Time { return time.Unix(1_000_000+int64(second), 0) }

// TestAccounts: whatever the accounts are to find, they find, and nothing else.
func TestAccounts(t *testing.T) {
	const up = "connected 1 dialed tcp://11.77.2.1:1"
	sender := func(lines ...string) *life { return journal(0, 0, append([]string{up}, lines...)...) }
	receiver := func(lines ...string) *life {
		return journal(1, 0, append([]string{"connected 0 accepted tcp://11.77.1.1:1"}, lines...)...)
	}
	one, two := "accepted 1 1 0", "accepted 1 1 1"
	gotOne, gotTwo := "received 0 0 1 0", "received 0 0 1 1"
	killed := func(l *life) *life { l.killed, l.ended = true, at(10); return l }
	for _, test := range []struct {
		name  string
		lives []*life
		want  string // part of the only complaint; none: there is none
	}{
		{"all well", []*life{sender(one, two), receiver(gotOne, gotTwo)}, ""},
		{"the last one is missing", []*life{sender(one, two), receiver(gotOne)}, "message 1 of priority 1"},
		{"and that was announced", []*life{sender(one, two, "lost 1 1 peer_silent"), receiver(gotOne)}, ""},
		{"announced of another peer", []*life{sender(one, two, "connected 2 x x", "lost 2 1 peer_silent"), receiver(gotOne)}, "vanished"},
		{"announced before", []*life{sender(one, "lost 1 1 peer_silent", up, two), receiver(gotOne)}, "vanished"},
		{"more missing than announced", []*life{sender(one, two, "lost 1 1 peer_silent"), receiver()}, "message 0 of priority 1"},
		{"grown too old", []*life{sender(one, two, "dropped 1 1 1"), receiver(gotTwo)}, ""},
		{"another priority grown too old", []*life{sender(one, two, "dropped 1 2 1"), receiver(gotTwo)}, "vanished"},
		{"doubled", []*life{sender(one, two), receiver(gotOne, gotTwo, gotTwo)}, ""},
		{"out of order", []*life{sender(one, two), receiver(gotTwo, gotOne)}, "message 0 came after 1"},
		{"out of nothing", []*life{sender(one), receiver(gotOne, gotTwo)}, "nobody has sent"},
		{"corrupt", []*life{sender(one), receiver(gotOne, "corrupt 0 of 3 bytes")}, "corrupt 0 of 3 bytes"},
		{"by nobody", []*life{sender(one), journal(1, 0, gotOne)}, "a message of 0, which is not connected"},
		{"connected twice", []*life{sender(up)}, "twice, without a loss between"},
		{"lost twice", []*life{sender("lost 1 0 x", "lost 1 0 x")}, "lost, which is not connected"},
		{"resumed without a session", []*life{journal(0, 0, "resumed 1 x")}, "resumed by 1"},
		{"the receiver was killed", []*life{sender(one, two), killed(receiver(gotOne))}, ""},
		{"killed, but the next one came to the same life", []*life{sender(one, two), killed(receiver(gotTwo))}, "vanished"},
		{"the sender was killed", []*life{killed(sender(one, two)), receiver(gotOne)}, ""},
		{"killed before it could write it down", []*life{killed(sender(one)), receiver(gotOne, gotTwo)}, ""},
		{"killed, but a later one came", []*life{killed(sender(one, two)), receiver(gotTwo)}, "vanished"},
	} {
		a := accounts{lives: test.lives}
		a.settle()
		if test.name == "doubled" {
			if len(a.faults) != 2 || !strings.Contains(a.faults[1], "came twice") {
				t.Errorf("%s: %q", test.name, a.faults)
			}
			continue
		}
		if test.want == "" && len(a.faults) > 0 || test.want != "" && (len(a.faults) != 1 || !strings.Contains(a.faults[0], test.want)) {
			t.Errorf("%s: %q, want one with %q", test.name, a.faults, test.want)
		}
	}
}

// TestLosses: a loss has a reason, and whoever ends is missed within the promise.
func TestLosses(t *testing.T) {
	const up, lost = "connected 1 x x", "lost 1 0 peer_silent"
	// pause is a journal's time that passes.
	pause := func(n int) []string { return strings.Split(strings.Repeat("- ", n-1)+"-", " ") }
	lines := func(first string, n int, last string, others ...string) []string {
		return append(append(append(others, first), pause(n)...), last)
	}
	const toThree, lostThree, both = "connected 3 x x", "lost 3 0 peer_silent", "connected 4 x x"
	late := int((promise + grace).Seconds()) + 5
	dead := func() *life { l := journal(1, 0, "connected 0 x x"); l.killed, l.ended = true, at(2); return l }
	for _, test := range []struct {
		name  string
		lives []*life
		spans map[int][]span
		want  string
	}{
		{"no reason", []*life{journal(0, 0, lines(up, 30, lost)...), journal(1, 0)}, nil, "false loss of node 1"},
		{"a short cut", []*life{journal(0, 0, lines(up, 30, lost)...), journal(1, 0)}, map[int][]span{1: {{at(20), at(28)}}}, "false loss of node 1"},
		{"long ago", []*life{journal(0, 0, lines(up, 100, lost)...), journal(1, 0)}, map[int][]span{1: {{at(1), at(35)}}}, "false loss of node 1"},
		{"calm between", []*life{journal(0, 0, lines(up, 30, lost)...), journal(1, 0)}, map[int][]span{0: {{at(1), at(8)}}, 1: {{at(20), at(28)}}}, "false loss of node 1"},
		{"a long cut", []*life{journal(0, 0, lines(up, 30, lost)...), journal(1, 0)}, map[int][]span{1: {{at(1), at(35)}}}, ""},
		{"no calm between", []*life{journal(0, 0, lines(up, 30, lost)...), journal(1, 0)}, map[int][]span{0: {{at(5), at(12)}}, 1: {{at(14), at(22)}, {at(25), at(28)}}}, ""},
		{"a short one after a long one", []*life{journal(0, 0, lines(up, 50, lost)...), journal(1, 0)}, map[int][]span{0: {{at(1), at(35)}}, 1: {{at(43), at(47)}}}, ""},
		{"nobody joins the two", []*life{journal(2, 0, lines(toThree, 30, lostThree)...), journal(3, 0)}, nil, ""},
		{"somebody does", []*life{journal(2, 0, lines(toThree, 30, lostThree, both)...), journal(3, 0, both), journal(4, 0)}, nil, "false loss of node 3"},
		{"somebody did, and is cut", []*life{journal(2, 0, lines(toThree, 30, lostThree, both)...), journal(3, 0, both), journal(4, 0)}, map[int][]span{4: {{at(5), at(30)}}}, ""},
		{"somebody did, and was lost", []*life{journal(2, 0, lines(toThree, 30, lostThree, both)...), journal(3, 0, both, "-", "-", "suspended 4 x"), journal(4, 0)}, nil, ""},
		{"only a relay would help", []*life{journal(9, 0, lines(toThree, 30, lostThree, both)...), journal(3, 0, both), journal(4, 0)}, nil, ""},
		{"a relay does", []*life{journal(9, 0, lines(toThree, 30, lostThree, "connected 5 x x")...), journal(3, 0, "connected 5 x x"), journal(5, 0)}, nil, "false loss of node 3"},
		{"not for long enough", []*life{journal(9, 0, lines(toThree, 30, lostThree, "connected 5 x x", "suspended 5 x")...), journal(3, 0, "connected 5 x x"), journal(5, 0)}, nil, ""},
		{"it has died", []*life{journal(0, 0, lines(up, 20, lost)...), dead()}, nil, ""},
		{"told too late", []*life{journal(0, 0, lines(up, late, lost)...), dead()}, map[int][]span{1: {{at(1), at(late)}}}, "was told only at"},
		{"never told", []*life{journal(0, 0, up), dead()}, nil, "was not told"},
		{"it could not know", []*life{journal(0, 0, lines(up, late, lost)...), dead()}, map[int][]span{0: {{at(3), at(late - 2)}}}, ""},
		{"it was not connected", []*life{journal(0, 0, "connected 2 x x"), dead()}, nil, ""},
	} {
		a := accounts{lives: test.lives}
		a.losses(test.spans, at(200))
		if test.want == "" && len(a.faults) > 0 || test.want != "" && (len(a.faults) != 1 || !strings.Contains(a.faults[0], test.want)) {
			t.Errorf("%s: %q, want one with %q", test.name, a.faults, test.want)
		}
	}
}
