package observe

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// record is a vote as it is kept.
type record struct {
	local, seen, observer netip.AddrPort
	group                 netip.Prefix
	dialled, server       bool
	at                    time.Time
	made                  time.Time // when the mapping was first seen; never after at
}

func (r record) weight() int {
	switch {
	case r.server:
		return weightServer
	case r.dialled:
		return weightDialled
	}
	return weightInbound
}

// network returns by what an observer counts when addresses are elected, and place by
// what it counts when a socket's mapping is judged: a server by each of its addresses.
func (r record) network() netip.Prefix { return r.group }
func (r record) place() netip.Prefix {
	if r.server {
		return whole(r.observer.Addr())
	}
	return r.group
}

// sample are records of mappings made one right after another, never empty.
type sample []record

// view is what is known of one flow in one realm.
type view struct {
	dialled, inbound []record // in the order in which they came
	samples          []sample // the oldest first
	filter           filterFacts
	silent           []missed // of each network the newest
}

// add keeps a record in place of what the same observer said of the same socket,
// and of the oldest one where there are too many. It returns it with the time at
// which its mapping was made.
func (v *view) add(r record, now time.Time) record {
	v.expire(now)
	r.made = r.at
	for _, old := range v.dialled {
		if old.local == r.local && old.seen == r.seen && old.made.Before(r.made) {
			r.made = old.made
		}
	}
	list, limit := &v.dialled, MaxDialled
	if !r.dialled {
		list, limit = &v.inbound, MaxInbound
	}
	for _, old := range *list {
		if old.local == r.local && old.observer == r.observer && old.at.After(r.at) {
			return r
		}
	}
	*list = slices.DeleteFunc(*list, func(old record) bool { return old.local == r.local && old.observer == r.observer })
	same, first, oldest := 0, -1, 0
	for i, old := range *list {
		if old.at.Before((*list)[oldest].at) {
			oldest = i
		}
		if old.group != r.group {
			continue
		}
		same++
		if first < 0 || old.at.Before((*list)[first].at) {
			first = i
		}
	}
	switch {
	case same >= MaxGroup:
		*list = slices.Delete(*list, first, first+1)
	case len(*list) >= limit:
		*list = slices.Delete(*list, oldest, oldest+1)
	}
	*list = append(*list, r)
	return r
}

func (v *view) addSample(s sample, now time.Time) {
	v.expire(now)
	if len(s) < 2 {
		return
	}
	if len(v.samples) >= MaxSamples {
		v.samples = slices.Delete(v.samples, 0, 1)
	}
	v.samples = append(v.samples, s)
	slices.SortStableFunc(v.samples, func(a, b sample) int { return a[0].at.Compare(b[0].at) })
}

// expire drops what is too old.
func (v *view) expire(now time.Time) {
	old := func(r record) bool { return now.Sub(r.at) >= VoteLife }
	v.dialled = slices.DeleteFunc(v.dialled, old)
	v.inbound = slices.DeleteFunc(v.inbound, old)
	v.samples = slices.DeleteFunc(v.samples, func(s sample) bool { return old(s[len(s)-1]) })
	v.silent = slices.DeleteFunc(v.silent, func(s missed) bool { return now.Sub(s.at) >= VoteLife })
	v.filter.expire(now)
}

// blocked reports whether nobody answers.
func (v *view) blocked() bool {
	return len(v.dialled)+len(v.inbound) == 0 && len(v.silent) >= enoughSilent
}

// ballots returns the record of each observer in list that pass holds for, by what
// they count: the newest one, of a server only where no peer has one. The newest come
// first.
func ballots(list []record, by func(record) netip.Prefix, pass func(record) bool) []record {
	newest := map[netip.Prefix]record{}
	for _, r := range list {
		old, found := newest[by(r)]
		if pass(r) && (!found || old.server && !r.server || old.server == r.server && newer(r, old) < 0) {
			newest[by(r)] = r
		}
	}
	out := make([]record, 0, len(newest))
	for _, r := range newest {
		out = append(out, r)
	}
	slices.SortFunc(out, newer)
	return out
}

// newer orders records, the newest first, without regard to the order in which they came.
func newer(a, b record) int {
	return cmp.Or(b.at.Compare(a.at), a.seen.Compare(b.seen), a.observer.Compare(b.observer), a.local.Compare(b.local))
}

func all(record) bool { return true }

// voters returns one record for each network: of those that we dialled, and of
// those of the others that are not among them.
func (v *view) voters() (dialled, inbound []record) {
	dialled = ballots(v.dialled, record.network, all)
	inbound = ballots(v.inbound, record.network, func(r record) bool {
		return !slices.ContainsFunc(dialled, func(d record) bool { return d.group == r.group })
	})
	return dialled, inbound
}

// socket returns the ballots about the socket of ours that most networks that we
// dialled have seen, the newest of several.
func (v *view) socket() []record {
	var best []record
	done := map[netip.AddrPort]bool{}
	for _, r := range v.dialled {
		if done[r.local] {
			continue
		}
		done[r.local] = true
		b := ballots(v.dialled, record.place, func(o record) bool { return o.local == r.local })
		if len(b) > len(best) || len(b) == len(best) && newer(b[0], best[0]) < 0 {
			best = b
		}
	}
	return best
}

// cluster are ballots that say the same.
type cluster[T comparable] struct {
	what   T
	weight int
	list   []record // the newest first
}

// count puts ballots that say the same together, the weightiest first, of equal
// ones the one with the newest ballot.
func count[T comparable](list []record, what func(record) T) []cluster[T] {
	var out []cluster[T]
	for _, r := range list {
		w := what(r)
		i := slices.IndexFunc(out, func(c cluster[T]) bool { return c.what == w })
		if i < 0 {
			i = len(out)
			out = append(out, cluster[T]{what: w})
		}
		out[i].weight += r.weight()
		out[i].list = append(out[i].list, r)
	}
	slices.SortStableFunc(out, func(a, b cluster[T]) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), newer(a.list[0], b.list[0]))
	})
	return out
}

func seenAddr(r record) netip.Addr         { return r.seen.Addr() }
func seenEndpoint(r record) netip.AddrPort { return r.seen }
