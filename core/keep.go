package crust

import (
	"maps"
	"slices"
	"time"
)

// Groups of peers that are kept connected: when to try whom. Nothing here sends, waits
// or reads the clock; keeper.go does that. A peer that is in several groups has one
// schedule.
//
//	          ┌──────────── failed ◀──────────┐
//	          ▼ due                           │ in vain
//	down ──due──▶ trying ─────────────────────┤
//	  ▲                                       ▼ a session, whoever began it
//	  └──────────────── lost ──────────────── up
//	dropped ◀── the program disconnects it, in any state
//	dropped ──▶ down or up, when the program asks for it again
//
// Who has failed n times in a row is tried again after a random time between 2^(n-1) s
// and 2^n s, at most keepMost, and who is lost after a random time of at most
// keepFirst, so that those who have lost the same peer do not come back to it all at
// once.

// Bounds of groups.
const (
	// MaxGroups is how many groups a service keeps.
	MaxGroups = 64
	// MaxGroupName is the longest name of a group in bytes.
	MaxGroupName = 64
	// MaxKept is how many peers all groups of a service may have together, a peer in
	// two groups counted twice, and how many contacts and infos one group.
	MaxKept = 4096
)

// Implementation constants of groups.
const (
	// keepFirst bounds the first pause, and is doubled with each failure up to keepMost.
	keepFirst = time.Second
	keepMost  = time.Minute
	// keepSettled is how long a session must have lived for the next loss to count as
	// the first: a peer that goes each time it comes is tried ever less often.
	keepSettled = 30 * time.Second
	// keepAtOnce bounds the attempts of all groups at any moment.
	keepAtOnce = 16
	// keepSpurned is as how many failures it counts when the peer has disconnected us, and
	// keepDialled when it was dialled in vain until the session was lost: many may have
	// done so together.
	keepSpurned = 6
	keepDialled = 3
	// keepHint is how long after a try news of its peer may bring about the next one: made-up
	// news shall not have us dial more often.
	keepHint = 5 * time.Second
	// keepEndpoints bounds what is remembered of where a peer was.
	keepEndpoints = 16
	// keepDropped bounds the peers that a group of any leaves alone.
	keepDropped = 1024
)

// GroupState tells how it stands with a peer of a group.
type GroupState uint8

const (
	GroupUp      GroupState = 1 // there is a session, which may be suspended
	GroupDown    GroupState = 2 // there is none, or none any more; the next attempt is due in a while
	GroupTrying  GroupState = 3 // an attempt is under way
	GroupFailed  GroupState = 4 // an attempt has failed; the next one is due in a while
	GroupDropped GroupState = 5 // the program has disconnected it: nothing is tried until it asks again
)

// String returns "up", "down", "trying", "failed" or "dropped".
func (g GroupState) String() string {
	return wordOf(g, "", "up", "down", "trying", "failed", "dropped")
}

// keeper is the schedule of all groups.
type keeper struct {
	groups  []*kept // in the order in which they came
	members map[PeerID]*member
	dialing int                               // attempts under way, at most keepAtOnce
	random  func(time.Duration) time.Duration // a random time below another one, which is above zero
}

// kept is one group.
type kept struct {
	name     string
	any      int // how many peers of role; 0: those of peers
	role     Role
	contacts []Contact
	peers    []PeerID
	in       map[PeerID]bool // the same as peers
	up       map[PeerID]bool // who is connected, of peers or of role
	drops    []PeerID        // of a group of any: whom the program has disconnected, the last one last
	seek     schedule        // of a group of any: the search for more
}

// schedule is when something is tried.
type schedule struct {
	trying bool
	next   time.Time // while not trying: when it is due
	tries  int       // in vain, in a row
	since  time.Time // when it has succeeded; zero while it has not
	last   time.Time // when the last try began
	why    error     // of the last failure or loss
	stop   func()    // ends the try
}

// member is a peer of one group or more.
type member struct {
	schedule
	state    GroupState
	groups   int  // how many it is in
	dropping bool // the program has disconnected it, and the session has not ended yet
	at       []Endpoint
	mapped   []Endpoint // which of these a router passes on
	facts    infoFacts  // of its NATs, from an info
}

// groupChange is what the program is told.
type groupChange struct {
	group      string
	state      GroupState
	peer       PeerID // zero: of the search of a group of any
	up, wanted int
	next       time.Duration // until the next attempt; 0: none is due
	err        error
}

// groupTry is an attempt that is due.
type groupTry struct {
	peer  PeerID // zero: group seeks more
	group *kept
}

// wanted is how many peers of the group should be connected.
func (g *kept) wanted() int {
	if g.any > 0 {
		return g.any
	}
	return len(g.peers)
}

// has reports whether a session with a peer counts.
func (g *kept) has(id PeerID, role Role) bool {
	if g.any > 0 {
		return g.role == role
	}
	return g.in[id]
}

// short reports whether a group of any has too few.
func (g *kept) short() bool { return g.any > 0 && len(g.up) < g.any }

// find returns a group, nil when there is none of that name.
func (k *keeper) find(name string) *kept {
	for _, g := range k.groups {
		if g.name == name {
			return g
		}
	}
	return nil
}

// pause draws how long to wait after so many failures.
func (k *keeper) pause(tries int) time.Duration {
	if tries == 0 {
		return k.random(keepFirst)
	}
	most := min(keepFirst<<min(tries, 16), keepMost)
	return most/2 + k.random(most/2)
}

// change describes a state for one group.
func (g *kept) change(now time.Time, state GroupState, id PeerID, at *schedule) groupChange {
	c := groupChange{group: g.name, state: state, peer: id, up: len(g.up), wanted: g.wanted()}
	if state != GroupUp && state != GroupTrying {
		c.err = at.why
	}
	if state == GroupDown || state == GroupFailed {
		c.next = max(at.next.Sub(now), 1)
	}
	return c
}

// each describes a member's state for all groups that it is in.
func (k *keeper) each(now time.Time, id PeerID, m *member) (list []groupChange) {
	for _, g := range k.groups {
		if g.in[id] {
			list = append(list, g.change(now, m.state, id, &m.schedule))
		}
	}
	return list
}

// keep begins a group, or puts it in the place of the one of that name. sessions are
// the peers that are connected, and their roles. It also returns what ends attempts
// that are of no more use.
func (k *keeper) keep(now time.Time, g *kept, sessions map[PeerID]Role) (list []groupChange, stops []func()) {
	if k.members == nil {
		k.members = make(map[PeerID]*member)
	}
	g.in, g.up = make(map[PeerID]bool, len(g.peers)), make(map[PeerID]bool)
	for _, id := range g.peers {
		g.in[id] = true
		m := k.members[id]
		if m == nil {
			m = &member{state: GroupDown, schedule: schedule{next: now}}
			k.members[id] = m
		}
		m.groups++
		k.revive(now, m)
		m.next = now
	}
	stops = k.release(g.name)
	k.groups = append(k.groups, g)
	for _, id := range slices.SortedFunc(maps.Keys(sessions), PeerID.Compare) {
		if !g.has(id, sessions[id]) {
			continue
		}
		g.up[id] = true
		at := &schedule{}
		if m := k.members[id]; m != nil {
			if m.state != GroupUp {
				m.state, m.since, m.next = GroupUp, now, time.Time{}
			}
			at = &m.schedule
		}
		list = append(list, g.change(now, GroupUp, id, at))
	}
	if g.seek.next = now; !g.short() {
		g.seek.since = now
	}
	return list, stops
}

// release ends a group, and returns what ends its attempts.
func (k *keeper) release(name string) (stops []func()) {
	g := k.find(name)
	if g == nil {
		return nil
	}
	k.groups = slices.DeleteFunc(k.groups, func(o *kept) bool { return o == g })
	if g.seek.trying {
		k.dialing--
		stops = append(stops, g.seek.stop)
	}
	for _, id := range g.peers {
		m := k.members[id]
		if m.groups--; m.groups > 0 {
			continue
		}
		delete(k.members, id)
		if m.trying {
			k.dialing--
			stops = append(stops, m.stop)
		}
	}
	return stops
}

// connected takes note of a new session.
func (k *keeper) connected(now time.Time, id PeerID, role Role) (list []groupChange) {
	m := k.members[id]
	if m != nil {
		m.state, m.since, m.next, m.dropping = GroupUp, now, time.Time{}, false
	}
	for _, g := range k.groups {
		if !g.has(id, role) {
			continue
		}
		g.up[id] = true
		g.drops = slices.DeleteFunc(g.drops, func(o PeerID) bool { return o == id })
		if g.any > 0 && !g.short() && g.seek.since.IsZero() {
			g.seek.since = now
		}
		list = append(list, g.change(now, GroupUp, id, &schedule{}))
	}
	for _, o := range k.members { // whom it may introduce
		if len(o.at) == 0 {
			k.hasten(now, &o.schedule, o.state)
		}
	}
	return list
}

// hasten has news bring the next try forward.
func (k *keeper) hasten(now time.Time, at *schedule, state GroupState) {
	if state != GroupDown && state != GroupFailed {
		return
	}
	soon := now
	if again := at.last.Add(keepHint); again.After(now) {
		soon = again
	}
	if soon = soon.Add(k.random(keepFirst)); soon.Before(at.next) {
		at.next = soon
	}
}

// hint takes note that somebody has told where a peer is.
func (k *keeper) hint(now time.Time, id PeerID) {
	if m := k.members[id]; m != nil {
		k.hasten(now, &m.schedule, m.state)
	}
	for _, g := range k.groups {
		if g.short() && !g.seek.trying {
			k.hasten(now, &g.seek, GroupDown)
		}
	}
}

// moved takes note that this machine's network has changed: what has failed may not
// any more.
func (k *keeper) moved(now time.Time) {
	for _, m := range k.members {
		m.last = time.Time{}
		k.hasten(now, &m.schedule, m.state)
	}
	for _, g := range k.groups {
		if g.seek.last = (time.Time{}); !g.seek.trying {
			k.hasten(now, &g.seek, GroupDown)
		}
	}
}

// ending is how a session has ended.
type ending uint8

const (
	endedAtOnce  ending = iota
	endedDialled        // its peer was dialled in vain for as long as it could be resumed
	endedInOrder        // it was disconnected: by the peer, unless the program has
)

// lost takes note of the end of a session.
func (k *keeper) lost(now time.Time, id PeerID, why error, how ending) (list []groupChange) {
	m := k.members[id]
	if m != nil {
		switch m.after(now); {
		case how == endedInOrder && !m.dropping:
			m.tries = max(m.tries, keepSpurned)
		case how == endedDialled:
			m.tries = max(m.tries, keepDialled)
		}
		m.why, m.next = why, now.Add(k.pause(m.tries))
		if m.state = GroupDown; m.dropping {
			m.state, m.dropping = GroupDropped, false
		} else if m.trying { // a link that came to nothing, while the attempt goes on
			m.state = GroupTrying
		}
	}
	for _, g := range k.groups {
		if !g.up[id] {
			continue
		}
		delete(g.up, id)
		if g.any == 0 {
			list = append(list, g.change(now, m.state, id, &m.schedule))
			continue
		}
		if g.short() && !g.seek.since.IsZero() {
			g.seek.after(now)
			g.seek.next = now.Add(k.pause(g.seek.tries))
		}
		state := GroupDown
		if slices.Contains(g.drops, id) {
			state = GroupDropped
		}
		at := g.seek
		at.why = why
		list = append(list, g.change(now, state, id, &at))
	}
	return list
}

// after ends a success, which counts as a failure when it was short.
func (at *schedule) after(now time.Time) {
	if at.tries++; now.Sub(at.since) >= keepSettled {
		at.tries = 0
	}
	at.since = time.Time{}
}

// drop takes note that the program has disconnected a peer, which there is a session
// with or not. It also returns what ends an attempt.
func (k *keeper) drop(now time.Time, id PeerID, session bool) (list []groupChange, stops []func()) {
	for _, g := range k.groups {
		if g.any > 0 && g.up[id] && !slices.Contains(g.drops, id) {
			g.drops = append(g.drops, id)
			g.drops = slices.Delete(g.drops, 0, max(0, len(g.drops)-keepDropped))
		}
	}
	m := k.members[id]
	if m == nil || m.state == GroupDropped {
		return nil, nil
	}
	if m.trying {
		stops = append(stops, m.stop)
	}
	if m.dropping = session; session {
		return nil, stops
	}
	m.state, m.why = GroupDropped, CodeDisconnected
	return k.each(now, id, m), stops
}

// isDropped reports whether the program has disconnected a peer and not asked for it
// again.
func (k *keeper) isDropped(id PeerID) bool {
	if m := k.members[id]; m != nil && (m.dropping || m.state == GroupDropped) {
		return true
	}
	return slices.ContainsFunc(k.groups, func(g *kept) bool { return slices.Contains(g.drops, id) })
}

// asked takes note that the program wants to be connected to a peer, and has begun
// to. It reports whether it was dropped.
func (k *keeper) asked(now time.Time, id PeerID) bool {
	was := k.isDropped(id)
	for _, g := range k.groups {
		g.drops = slices.DeleteFunc(g.drops, func(o PeerID) bool { return o == id })
	}
	if m := k.members[id]; m != nil {
		k.revive(now, m)
	}
	return was
}

// revive ends that a member is dropped.
func (k *keeper) revive(now time.Time, m *member) {
	m.dropping = false
	if m.state == GroupDropped {
		m.state, m.tries, m.next = GroupDown, 0, now.Add(k.pause(1))
	}
}

// due begins the attempts that are due, as many as there may be, and returns when the
// next one is: the zero time when none is.
func (k *keeper) due(now time.Time) (tries []groupTry, next time.Time, list []groupChange) {
	begin := func(at *schedule) bool {
		switch {
		case at.trying:
			return false
		case at.next.After(now):
			if next.IsZero() || at.next.Before(next) {
				next = at.next
			}
			return false
		case k.dialing >= keepAtOnce: // the end of one wakes
			return false
		}
		k.dialing++
		at.trying, at.last = true, now
		return true
	}
	for id, m := range k.members {
		if (m.state == GroupDown || m.state == GroupFailed) && begin(&m.schedule) {
			m.state = GroupTrying
			tries = append(tries, groupTry{peer: id})
			list = append(list, k.each(now, id, m)...)
		}
	}
	for _, g := range k.groups {
		if g.short() && begin(&g.seek) {
			tries = append(tries, groupTry{group: g})
			list = append(list, g.change(now, GroupTrying, PeerID{}, &g.seek))
		}
	}
	return tries, next, list
}

// tried takes note of the end of a member's attempt. m is the member as due has found it.
func (k *keeper) tried(now time.Time, id PeerID, m *member, why error) []groupChange {
	if k.members[id] != m || !m.trying { // released meanwhile
		return nil
	}
	k.dialing--
	m.trying, m.stop = false, nil
	if m.state != GroupTrying {
		return nil
	}
	if why != nil { // else there was a session, which is lost
		m.why = why
	}
	m.tries++
	m.state, m.next = GroupFailed, now.Add(k.pause(m.tries))
	return k.each(now, id, m)
}

// sought takes note of the end of a group's search.
func (k *keeper) sought(now time.Time, g *kept, why error) []groupChange {
	if k.find(g.name) != g || !g.seek.trying {
		return nil
	}
	k.dialing--
	g.seek.trying, g.seek.stop = false, nil
	if !g.short() {
		return nil
	}
	g.seek.tries++
	g.seek.why, g.seek.next = why, now.Add(k.pause(g.seek.tries))
	return []groupChange{g.change(now, GroupFailed, PeerID{}, &g.seek)}
}

// learn notes where a peer may be, the best first.
func (m *member) learn(eps ...Endpoint) {
	for _, ep := range slices.Backward(eps) {
		m.at = slices.DeleteFunc(m.at, func(o Endpoint) bool { return o == ep })
		m.at = slices.Insert(m.at, 0, ep)
	}
	m.at = m.at[:min(len(m.at), keepEndpoints)]
}
