package crust

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// least draws no time, and most all but nothing of it.
func least(time.Duration) time.Duration  { return 0 }
func most(d time.Duration) time.Duration { return d - 1 }

var errGone = errors.New("gone")

func peerNumber(n int) (id PeerID) {
	id[0], id[31] = byte(n), 1
	return id
}

// show writes changes as "group state peer up/wanted next", one each.
func show(list []groupChange) (out []string) {
	for _, c := range list {
		text := fmt.Sprintf("%s %s", c.group, c.state)
		if !c.peer.IsZero() {
			text += fmt.Sprintf(" %d", c.peer[0])
		}
		text += fmt.Sprintf(" %d/%d", c.up, c.wanted)
		if c.next > 0 {
			text += " " + c.next.String()
		}
		if c.err != nil {
			text += " " + c.err.Error()
		}
		out = append(out, text)
	}
	return out
}

func wantChanges(t *testing.T, list []groupChange, want ...string) {
	t.Helper()
	if got := show(list); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// dueNow begins what is due, and returns whom; 0 is a search.
func (k *keeper) dueNow(t *testing.T, now time.Time) (ids []int) {
	t.Helper()
	tries, _, _ := k.due(now)
	for _, d := range tries {
		if d.group != nil {
			d.group.seek.stop = func() {}
		} else {
			k.members[d.peer].stop = func() {}
		}
		ids = append(ids, int(d.peer[0]))
	}
	slices.Sort(ids)
	return ids
}

// TestPausesGrow: who fails is tried after pauses that double, between half of the
// bound and the bound, up to a minute; who is lost after it was there for long, at once.
func TestPausesGrow(t *testing.T) {
	for _, c := range []struct {
		random func(time.Duration) time.Duration
		want   []time.Duration
	}{
		{least, []time.Duration{1, 2, 4, 8, 16, 30, 30, 30}},
		{most, []time.Duration{2, 4, 8, 16, 32, 60, 60, 60}},
	} {
		k := keeper{random: c.random}
		now, id := time.Unix(1000, 0), peerNumber(7)
		k.keep(now, &kept{name: "g", peers: []PeerID{id}}, nil)
		for i, want := range c.want {
			if got := k.dueNow(t, now); !slices.Equal(got, []int{7}) {
				t.Fatalf("try %d: %v", i, got)
			}
			list := k.tried(now, id, k.members[id], errGone)
			if len(list) != 1 || list[0].state != GroupFailed || list[0].err != errGone || list[0].next.Round(time.Millisecond) != want*time.Second {
				t.Fatalf("try %d: %q, want a pause of %d s", i, show(list), want)
			}
			if got := k.dueNow(t, now.Add(list[0].next-1)); got != nil {
				t.Fatalf("try %d came early", i)
			}
			now = now.Add(list[0].next)
		}
		k.connected(now, id, Node)
		now = now.Add(keepSettled)
		list := k.lost(now, id, errGone, endedAtOnce)
		if list[0].next > keepFirst {
			t.Errorf("lost after long, and tried after %v", list[0].next)
		}
		now = now.Add(list[0].next)
		k.dueNow(t, now)
		k.connected(now, id, Node)
		k.tried(now, id, k.members[id], nil)
		if list = k.lost(now.Add(time.Second), id, errGone, endedAtOnce); list[0].next < time.Second || list[0].next > 2*time.Second {
			t.Errorf("lost at once, and tried after %v", list[0].next)
		}
		k.connected(now, id, Node)
		now = now.Add(time.Hour)
		if list = k.lost(now, id, errGone, endedInOrder); list[0].next < 30*time.Second {
			t.Errorf("the peer does not want us, and is tried after %v", list[0].next)
		}
		k.connected(now, id, Node)
		now = now.Add(time.Hour)
		if list = k.lost(now, id, errGone, endedDialled); list[0].next < 4*time.Second || list[0].next > 8*time.Second {
			t.Errorf("dialled in vain for long, and tried after %v", list[0].next)
		}
	}
}

// TestTwoGroupsShareAPeer: each is told, there is one attempt, and the peer is kept
// until both are released.
func TestTwoGroupsShareAPeer(t *testing.T) {
	k := keeper{random: least}
	now, one, two := time.Unix(1000, 0), peerNumber(1), peerNumber(2)
	k.keep(now, &kept{name: "a", peers: []PeerID{one, two}}, map[PeerID]Role{two: Client})
	list, _ := k.keep(now, &kept{name: "b", peers: []PeerID{two, one}}, map[PeerID]Role{two: Client})
	wantChanges(t, list, "b up 2 1/2")
	tries, _, list := k.due(now)
	if len(tries) != 1 || tries[0].peer != one {
		t.Fatalf("%v", tries)
	}
	wantChanges(t, list, "a trying 1 1/2", "b trying 1 1/2")
	stopped := 0
	k.members[one].stop = func() { stopped++ }
	for _, stop := range k.release("a") {
		stop()
	}
	wantChanges(t, k.connected(now, one, Node), "b up 1 2/2")
	wantChanges(t, k.lost(now, one, errGone, endedAtOnce), "b trying 1 1/2") // the attempt has not ended
	wantChanges(t, k.tried(now, one, k.members[one], nil), "b failed 1 1/2 2s gone")
	k.dueNow(t, now.Add(2*time.Second))
	k.members[one].stop = func() { stopped++ }
	for _, stop := range k.release("b") {
		stop()
	}
	if stopped != 1 || k.dialing != 0 || len(k.members) != 0 || len(k.groups) != 0 {
		t.Errorf("%d attempts stopped; left %+v", stopped, k)
	}
	wantChanges(t, k.connected(now, one, Node))
	wantChanges(t, k.lost(now, one, errGone, endedAtOnce))
}

// TestDroppedIsLeftAlone: whoever the program disconnects is not tried, in any state,
// until it is asked for.
func TestDroppedIsLeftAlone(t *testing.T) {
	for _, state := range []GroupState{GroupUp, GroupDown, GroupTrying, GroupFailed} {
		k := keeper{random: least}
		now, id := time.Unix(1000, 0), peerNumber(1)
		k.keep(now, &kept{name: "g", peers: []PeerID{id}}, nil)
		m := k.members[id]
		stopped := false
		switch state {
		case GroupUp:
			k.connected(now, id, Node)
		case GroupTrying, GroupFailed:
			k.dueNow(t, now)
			m.stop = func() { stopped = true }
			if state == GroupFailed {
				k.tried(now, id, m, errGone)
			}
		}
		list, stops := k.drop(now, id, state == GroupUp)
		for _, stop := range stops {
			stop()
		}
		if !k.isDropped(id) || stopped != (state == GroupTrying) {
			t.Fatalf("%v: dropped %v, stopped %v", state, k.isDropped(id), stopped)
		}
		if state == GroupUp {
			wantChanges(t, list)
			list = k.lost(now, id, errGone, endedInOrder)
		}
		if len(list) != 1 || list[0].state != GroupDropped || list[0].next != 0 {
			t.Fatalf("%v: %q", state, show(list))
		}
		wantChanges(t, k.tried(now, id, m, errGone))
		k.hint(now.Add(time.Hour), id)
		k.moved(now.Add(time.Hour))
		if got := k.dueNow(t, now.Add(2*time.Hour)); got != nil {
			t.Fatalf("%v: tried", state)
		}
		if !k.asked(now, id) || k.isDropped(id) {
			t.Fatalf("%v: still dropped", state)
		}
		if got := k.dueNow(t, now.Add(time.Minute)); !slices.Equal(got, []int{1}) {
			t.Fatalf("%v: tried %v after it was asked for", state, got)
		}
	}
}

// TestAttemptsAreBounded: at most keepAtOnce at a time; the end of one makes room.
func TestAttemptsAreBounded(t *testing.T) {
	k := keeper{random: least}
	now := time.Unix(1000, 0)
	g := &kept{name: "g"}
	for n := range 100 {
		g.peers = append(g.peers, peerNumber(n+1))
	}
	k.keep(now, g, nil)
	k.keep(now, &kept{name: "any", any: 3}, nil)
	seen := map[int]bool{}
	for len(seen) < 101 {
		ids := k.dueNow(t, now)
		if len(ids) == 0 || k.dialing > keepAtOnce {
			t.Fatalf("%d attempts, %d after %d", len(ids), k.dialing, len(seen))
		}
		for _, n := range ids {
			seen[n] = true
			if n == 0 {
				k.sought(now, k.find("any"), errGone)
				continue
			}
			k.connected(now, peerNumber(n), Client)
			k.tried(now, peerNumber(n), k.members[peerNumber(n)], nil)
		}
	}
	if k.dialing != 0 || len(g.up) != 100 {
		t.Fatalf("%d attempts, %d up", k.dialing, len(g.up))
	}
}

// TestAnyOfARole: others do not count; a loss makes it search, and who was dropped is
// not counted on.
func TestAnyOfARole(t *testing.T) {
	k := keeper{random: least}
	now := time.Unix(1000, 0)
	g := &kept{name: "g", any: 2, role: Client}
	list, _ := k.keep(now, g, map[PeerID]Role{peerNumber(1): Client, peerNumber(2): Node})
	wantChanges(t, list, "g up 1 1/2")
	tries, _, list := k.due(now)
	if len(tries) != 1 || tries[0].group != g {
		t.Fatalf("%v", tries)
	}
	wantChanges(t, list, "g trying 1/2")
	wantChanges(t, k.sought(now, g, errGone), "g failed 1/2 1s gone")
	wantChanges(t, k.connected(now, peerNumber(3), Node))
	wantChanges(t, k.connected(now, peerNumber(4), Client), "g up 4 2/2")
	if tries, next, _ := k.due(now.Add(time.Hour)); tries != nil || !next.IsZero() {
		t.Fatalf("searches for more than enough: %v %v", tries, next)
	}
	k.drop(now, peerNumber(4), true)
	now = now.Add(keepSettled)
	wantChanges(t, k.lost(now, peerNumber(4), errGone, endedInOrder), "g dropped 4 1/2 gone")
	wantChanges(t, k.lost(now, peerNumber(3), errGone, endedInOrder))
	if !k.isDropped(peerNumber(4)) || k.isDropped(peerNumber(1)) {
		t.Error("who is dropped")
	}
	if tries, _, _ = k.due(now); len(tries) != 1 {
		t.Fatalf("does not search: %v", tries)
	}
	if info := k.describe(now, g); info.Up != 1 || info.Wanted != 2 || len(info.Peers) != 2 || info.Peers[1].State != GroupDropped {
		t.Errorf("%+v", info)
	}
	for n := range keepDropped + 10 {
		id := PeerID{1: byte(n), 2: byte(n >> 8), 3: 9}
		k.connected(now, id, Client)
		k.drop(now, id, true)
		k.lost(now, id, errGone, endedInOrder)
	}
	if len(g.drops) != keepDropped {
		t.Errorf("%d are remembered", len(g.drops))
	}
}

// TestNewsBringsTheNextTryForward, but not more often than keepHint.
func TestNewsBringsTheNextTryForward(t *testing.T) {
	k := keeper{random: most}
	now, id := time.Unix(1000, 0), peerNumber(1)
	k.keep(now, &kept{name: "g", peers: []PeerID{id}}, nil)
	m := k.members[id]
	m.learn(Endpoint{})
	for range 10 {
		k.dueNow(t, now)
		k.tried(now, id, m, errGone)
		now = m.next
	}
	k.dueNow(t, now)
	k.tried(now, id, m, errGone)
	if k.hint(now.Add(time.Second), id); m.next.Sub(now) < keepHint || m.next.Sub(now) > keepHint+keepFirst {
		t.Fatalf("with news the next one is after %v", m.next.Sub(now))
	}
	now = m.next
	k.dueNow(t, now)
	k.tried(now, id, m, errGone)
	if k.moved(now); m.next.Sub(now) > keepFirst {
		t.Fatalf("another network had no effect: next after %v", m.next.Sub(now))
	}
	for n := range 2 * keepEndpoints {
		m.learn(Endpoint{Transport: Transport(n)})
	}
	if len(m.at) != keepEndpoints || m.at[0].Transport != Transport(2*keepEndpoints-1) {
		t.Errorf("%d endpoints are remembered, first %v", len(m.at), m.at[0])
	}
}
