package ban

import (
	"net/netip"
	"slices"
)

// heardKnocks is how often who is banned is turned away before it is not heard any more:
// who comes now and then learns at once that it is not wanted, who comes all the time
// costs nothing.
const heardKnocks = 8

// Knocks counts how often those are turned away who are banned by prefixes, and tells
// which are not to be heard any more. It holds no clock and no lock, and knows no more
// prefixes than there are in the blacklist, as long as Keep is called when entries go.
type Knocks struct {
	counts map[netip.Prefix]uint8
	mute   []netip.Prefix
	full   bool
}

// Refused notes that somebody was turned away for the entry of a prefix, and reports
// whether Mute has got longer.
func (k *Knocks) Refused(p netip.Prefix) bool {
	n := k.counts[p]
	if n >= heardKnocks {
		return false
	}
	if k.counts == nil {
		k.counts = make(map[netip.Prefix]uint8)
	}
	if n+1 < heardKnocks || k.full {
		k.counts[p] = min(n+1, heardKnocks-1)
		return false
	}
	k.counts[p] = heardKnocks
	k.mute = append(k.mute, p)
	return true
}

// Mute returns whom not to hear any more: who came most often within a time is first. It
// is not to be changed.
func (k *Knocks) Mute() []netip.Prefix { return k.mute }

// Full says that there is no room for more than the first n of Mute, until some of them
// are not banned any more. The others are heard again, and come behind.
func (k *Knocks) Full(n int) {
	for _, p := range k.mute[n:] {
		k.counts[p] = heardKnocks - 1
	}
	k.mute, k.full = k.mute[:n:n], true
}

// Keep forgets prefixes that are not banned any more: those for which a function does not
// hold.
func (k *Knocks) Keep(stays func(netip.Prefix) bool) {
	for p := range k.counts {
		if !stays(p) {
			delete(k.counts, p)
		}
	}
	n := len(k.mute)
	k.mute = slices.DeleteFunc(slices.Clone(k.mute), func(p netip.Prefix) bool { return k.counts[p] == 0 })
	k.full = k.full && len(k.mute) == n
}
