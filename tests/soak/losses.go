//go:build linux

package soak

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Losses. Nobody may lose a peer that was alive and reachable, and whoever has lost one
// must be told within the promise.

// span is when a node could not be reached, or could not reach others.
type span struct{ from, to time.Time }

const (
	// recovery is how long it may take until a session has found a new link after the
	// last disturbance of either side: less than that between two is no calm.
	recovery = 6 * time.Second
	// grace is for a machine that has much else to do.
	grace = 10 * time.Second
)

// disturbed tells for how long, without a calm between, one of two nodes could not be
// reached: the longest such time of which a loss may still be told.
func disturbed(a, b []span, at time.Time) (most time.Duration) {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y span) int { return cmp.Compare(x.from.UnixNano(), y.from.UnixNano()) })
	var now span
	end := func() {
		if now.to.IsZero() || at.Sub(now.to) > promise+grace {
			return
		}
		if at.Sub(now.to) <= recovery {
			now.to = at
		}
		most = max(most, now.to.Sub(now.from))
	}
	for _, s := range all {
		switch {
		case s.from.After(at):
		case now.to.IsZero() || s.from.Sub(now.to) > recovery:
			end()
			now = s
		case s.to.After(now.to):
			now.to = s.to
		}
	}
	end()
	return most
}

// relay returns which node carries a link, -1 if none does. Fields are the peer, how the
// link came about, and an endpoint.
func relay(fields []string) int {
	if len(fields) < 3 || fields[1] != "relayed" {
		return -1
	}
	var node, rest int
	if _, err := fmt.Sscanf(fields[2][len("tcp://"):], "11.77.%d.%d", &node, &rest); err != nil {
		return -1
	}
	return node - 1 // as linklab numbers addresses
}

// losses checks what the lives were told of losses before the end.
func (a *accounts) losses(spans map[int][]span, end time.Time) {
	for _, l := range a.lives {
		until := end
		if !l.ended.IsZero() && l.ended.Before(end) {
			until = l.ended
		}
		via := map[int]int{} // by peer: who carried its last link
		for _, e := range l.entries {
			if e.word == "connected" || e.word == "resumed" {
				via[e.number(0)] = relay(e.fields)
			}
			if e.word != "lost" || !e.at.Before(until) {
				continue
			}
			peer := e.number(0)
			others := slices.Concat(spans[peer], spans[via[peer]])
			if !a.ended(peer, e.at) && disturbed(spans[l.node], others, e.at) < window {
				a.wrong("%v: false loss of node %d at %s: %v", l, peer, e.at.Format("15:04:05.000"), e.fields)
			}
		}
	}
	for _, dead := range a.lives {
		if dead.ended.IsZero() || !dead.ended.Before(end) {
			continue
		}
		for _, l := range a.lives {
			a.told(l, dead, spans[l.node], end)
		}
	}
}

// ended tells whether a life of a node ended within the promise before a time.
func (a *accounts) ended(node int, at time.Time) bool {
	for _, l := range a.lives {
		if l.node == node && !l.ended.IsZero() && l.ended.Before(at.Add(time.Second)) && at.Sub(l.ended) < promise+grace {
			return true
		}
	}
	return false
}

// told checks that a life was told of the end of another one in time, if the two were
// connected.
func (a *accounts) told(l, dead *life, own []span, end time.Time) {
	deadline := dead.ended.Add(promise + grace)
	for _, s := range own {
		if s.from.Before(deadline) && s.to.After(dead.ended) {
			deadline = deadline.Add(s.to.Sub(s.from)) // it stood still, or could not know
		}
	}
	if l.node == dead.node || !l.ended.IsZero() && l.ended.Before(deadline) || end.Before(deadline) {
		return
	}
	up := false
	for _, e := range l.entries {
		if e.number(0) != dead.node || e.word != "connected" && e.word != "lost" {
			continue
		}
		if e.at.After(dead.ended) {
			if up && (e.word != "lost" || e.at.After(deadline)) {
				a.wrong("%v was told only at %s (%s) that node %d has ended at %s", l, e.at.Format("15:04:05.000"), e.word, dead.node, dead.ended.Format("15:04:05.000"))
			}
			return
		}
		up = e.word == "connected"
	}
	if up {
		a.wrong("%v was not told that node %d has ended at %s", l, dead.node, dead.ended.Format("15:04:05.000"))
	}
}
