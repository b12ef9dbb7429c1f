//go:build linux

package soak

import (
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
	slices.SortFunc(all, func(x, y span) int { return x.from.Compare(y.from) })
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

// intersect returns when both were. Both are in order and do not overlap.
func intersect(a, b []span) (both []span) {
	for len(a) > 0 && len(b) > 0 {
		from, to := later(a[0].from, b[0].from), earlier(a[0].to, b[0].to)
		if from.Before(to) {
			both = append(both, span{from, to})
		}
		if a[0].to.Before(b[0].to) {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}

// gaps returns when none of them was, within another.
func gaps(all []span, within span) (none []span) {
	slices.SortFunc(all, func(x, y span) int { return x.from.Compare(y.from) })
	at := within.from
	for _, s := range all {
		if to := earlier(s.from, within.to); at.Before(to) {
			none = append(none, span{at, to})
		}
		at = later(at, s.to)
	}
	if at.Before(within.to) {
		none = append(none, span{at, within.to})
	}
	return none
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// linked returns when a node had a link to a peer, as it was told, before a time.
func (a *accounts) linked(node, peer int, end time.Time) (spans []span) {
	for _, l := range a.lives {
		if l.node != node {
			continue
		}
		var from time.Time
		down := func(at time.Time) {
			if from.Before(at) && !from.IsZero() {
				spans = append(spans, span{from, at})
			}
			from = time.Time{}
		}
		for _, e := range l.entries {
			switch {
			case e.at.After(end) || e.number(0) != peer:
			case e.word == "connected" || e.word == "resumed":
				from = e.at
			case e.word == "suspended" || e.word == "lost":
				down(e.at)
			}
		}
		if l.ended.IsZero() {
			down(end)
		}
		down(earlier(l.ended, end))
	}
	return spans
}

// apart returns when two nodes had nobody through whom they could find each other: nobody
// to whom both had a link, and to whom nothing was done. Nobody is needed when one of the
// two is public. Others are introduced by anybody, and where holes cannot be punched
// only a public node helps, as a relay.
func (a *accounts) apart(x, y int, spans map[int][]span, within span) []span {
	if public(x) || public(y) {
		return nil
	}
	var joined []span
	nodes := map[int]bool{}
	for _, l := range a.lives {
		nodes[l.node] = true
	}
	for c := range nodes {
		if c == x || c == y || !public(c) && (nat(x) == "symmetric" || nat(y) == "symmetric") {
			continue
		}
		both := intersect(a.linked(x, c, within.to), a.linked(y, c, within.to))
		joined = append(joined, intersect(both, gaps(slices.Clone(spans[c]), within))...)
	}
	return gaps(joined, within)
}

// losses checks what the lives were told of losses before the end.
func (a *accounts) losses(spans map[int][]span, end time.Time) {
	for _, l := range a.lives {
		until := end
		if !l.ended.IsZero() && l.ended.Before(end) {
			until = l.ended
		}
		up, down := map[int]time.Time{}, map[int]span{} // by peer: when its last link came about, and when it broke
		for _, e := range l.entries {
			peer := e.number(0)
			switch e.word {
			case "connected", "resumed":
				up[peer] = e.at
			case "suspended": // which may have been told a moment later
				down[peer] = span{e.at.Add(-time.Second), e.at}
			}
			if e.word != "lost" || !e.at.Before(until) {
				continue
			}
			if a.ended(peer, e.at) || disturbed(spans[l.node], spans[peer], e.at) >= window {
				continue
			}
			others := append(slices.Concat(spans[peer], a.apart(l.node, peer, spans, span{up[peer], e.at})), down[peer])
			if disturbed(spans[l.node], others, e.at) < window {
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
