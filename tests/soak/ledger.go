//go:build linux

package soak

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// The accounts. Each life of a node has a journal: what it sent, received and was told,
// in order. A message is missing when it was accepted and nobody has received it. That
// is announced, and so allowed, when
//   - the sender was told later that the peer was lost, with a number of messages of
//     which it is not known that they arrived, and no more are missing than that,
//   - it was told that as many had grown too old,
//   - the receiver was killed after the last message before it, and the next one went
//     to its next life: what a process has acknowledged and not yet written down dies
//     with it,
//   - or the sender was killed, and no later message of that life has arrived.
//
// Nothing else may be missing; nothing comes twice, out of order, or without having
// been sent.

// entry is one line of a journal.
type entry struct {
	at     time.Time
	word   string
	fields []string
}

func (e entry) number(i int) int {
	if i >= len(e.fields) {
		return -1
	}
	n, err := strconv.Atoi(e.fields[i])
	if err != nil {
		return -1
	}
	return n
}

// life is one run of a node's process.
type life struct {
	node, life int
	began      time.Time
	ended      time.Time // zero while it lives
	killed     bool
	entries    []entry
}

func (l *life) String() string { return fmt.Sprintf("node %d, life %d", l.node, l.life) }

// read reads a journal. The last line of a process that was killed is whole, too: each
// was one write.
func (l *life) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return fmt.Errorf("%s: no entry: %q", path, line)
		}
		at, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		l.entries = append(l.entries, entry{time.UnixMicro(at), fields[1], fields[2:]})
	}
	return nil
}

// flow is what one life of a node sends to another node with one priority.
type flow struct {
	from     *life
	to       int
	priority int
}

func (f flow) String() string {
	return fmt.Sprintf("%v to node %d, priority %d", f.from, f.to, f.priority)
}

// parcel is an accepted message, of which its place in the sender's journal counts.
type parcel struct {
	place int
	by    *life // who has received it; nil: nobody
}

// accounts are those of a soak.
type accounts struct {
	lives  []*life
	faults []string // what is wrong
	flows  map[flow][]parcel

	accepted, missing, received, lost, suspended, resumed int
	byKill                                                int // missing because a process was killed
}

func (a *accounts) wrong(format string, arguments ...any) {
	const most = 50
	if len(a.faults) < most {
		a.faults = append(a.faults, fmt.Sprintf(format, arguments...))
	}
}

// settle makes the accounts.
func (a *accounts) settle() {
	a.flows = map[flow][]parcel{}
	find := map[[2]int]*life{}
	for _, l := range a.lives {
		find[[2]int{l.node, l.life}] = l
		for place, e := range l.entries {
			if e.word != "accepted" {
				continue
			}
			a.accepted++
			f := flow{l, e.number(0), e.number(1)}
			if e.number(2) != len(a.flows[f]) {
				a.wrong("%v accepted message %d after %d others", f, e.number(2), len(a.flows[f]))
			}
			a.flows[f] = append(a.flows[f], parcel{place: place})
		}
	}
	for _, l := range a.lives {
		a.receive(l, find)
	}
	for f, parcels := range a.flows {
		a.gaps(f, parcels)
	}
	for _, l := range a.lives {
		a.announced(l)
	}
}

// receive goes through the journal of a receiver: what comes, comes from a connected
// peer, once and in order.
func (a *accounts) receive(l *life, find map[[2]int]*life) {
	up := map[int]bool{}
	last := map[flow]int{}
	for _, e := range l.entries {
		peer := e.number(0)
		switch e.word {
		case "connected":
			if up[peer] {
				a.wrong("%v: connected to %d twice, without a loss between", l, peer)
			}
			up[peer] = true
		case "suspended", "resumed":
			if !up[peer] {
				a.wrong("%v: %s by %d, which is not connected", l, e.word, peer)
			}
			if e.word == "resumed" {
				a.resumed++
			} else {
				a.suspended++
			}
		case "lost":
			if a.lost++; !up[peer] {
				a.wrong("%v: %d is lost, which is not connected", l, peer)
			}
			delete(up, peer)
		case "corrupt", "refused":
			a.wrong("%v: %s %s", l, e.word, strings.Join(e.fields, " "))
		case "received":
			a.received++
			if !up[peer] {
				a.wrong("%v: a message of %d, which is not connected", l, peer)
			}
			a.deliver(l, e, find, last)
		}
	}
}

// deliver enters a received message.
func (a *accounts) deliver(l *life, e entry, find map[[2]int]*life, last map[flow]int) {
	f := flow{find[[2]int{e.number(0), e.number(1)}], l.node, e.number(2)}
	number, parcels := e.number(3), a.flows[f]
	if f.from != nil && f.from.killed && number == len(parcels) {
		// It was killed before it could write down that it was accepted.
		parcels = append(parcels, parcel{place: len(f.from.entries)})
		a.flows[f] = parcels
	}
	if f.from == nil || number < 0 || number >= len(parcels) {
		a.wrong("%v received what nobody has sent: %s", l, strings.Join(e.fields, " "))
		return
	}
	if before, ok := last[f]; ok && number <= before {
		a.wrong("%v: message %d came after %d", f, number, before)
	}
	last[f] = number
	if by := parcels[number].by; by != nil {
		a.wrong("%v: message %d came twice, to life %d and %d", f, number, by.life, l.life)
	}
	parcels[number].by = l
}

// gaps strikes out what is missing because a process was killed.
func (a *accounts) gaps(f flow, parcels []parcel) {
	for i := 0; i < len(parcels); {
		if parcels[i].by != nil {
			i++
			continue
		}
		end := i
		for end < len(parcels) && parcels[end].by == nil {
			end++
		}
		var before, after *life
		if i > 0 {
			before = parcels[i-1].by
		}
		if end < len(parcels) {
			after = parcels[end].by
		}
		if after == nil && f.from.killed || a.died(f.to, before, after) {
			a.byKill += end - i
			for k := i; k < end; k++ {
				parcels[k].by = f.from // accounted for
			}
		}
		i = end
	}
}

// died tells whether a life of a node was killed between two of its lives, the one that
// received the last message before a gap and the one that received the first after it.
func (a *accounts) died(node int, before, after *life) bool {
	for _, l := range a.lives {
		if l.node == node && l.killed && (before == nil || l.life >= before.life) && (after == nil || l.life < after.life) {
			return true
		}
	}
	return false
}

// announced holds what is missing of what a life has sent against what it was told: of
// the messages after any place, no more may be missing than losses after it announce.
func (a *accounts) announced(l *life) {
	type key struct{ to, priority int } // priority -1: losses, which are of all together
	missing := map[int]map[int]key{}    // by place
	for f, parcels := range a.flows {
		if f.from != l {
			continue
		}
		for number, p := range parcels {
			if p.by == nil {
				if missing[f.to] == nil {
					missing[f.to] = map[int]key{}
				}
				missing[f.to][p.place] = key{number, f.priority}
				a.missing++
			}
		}
	}
	for to, places := range missing {
		credit := map[int]int{}
		for place := len(l.entries); place >= 0; place-- {
			if place < len(l.entries) {
				e := l.entries[place]
				if e.word == "lost" && e.number(0) == to {
					credit[-1] += e.number(1)
				}
				if e.word == "dropped" && e.number(0) == to {
					credit[e.number(1)] += e.number(2)
				}
			}
			k, ok := places[place]
			switch {
			case !ok:
			case credit[k.priority] > 0:
				credit[k.priority]--
			case credit[-1] > 0:
				credit[-1]--
			default:
				at := "the end"
				if place < len(l.entries) {
					at = l.entries[place].at.Format("15:04:05.000")
				}
				a.wrong("%v to node %d: message %d of priority %d, accepted at %s, has vanished, and no loss was told", l, to, k.to, k.priority, at)
			}
		}
	}
}
