// Package ban keeps a blacklist: peer ids, and prefixes of addresses, each for good or
// until a time. It holds no clock and no lock. A look-up allocates nothing, and costs one
// look into a table, or for an address one for each length of prefix that is in use.
package ban

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libcrust/libcrust/core/identity"
)

// MaxReason is the longest reason in bytes.
const MaxReason = 256

// Errors.
var (
	// ErrFull means that there is no room for all; then none was added.
	ErrFull = errors.New("the blacklist is full")
	// ErrSubject means that an entry names neither a peer nor addresses, or both.
	ErrSubject = errors.New("neither a peer nor an address")
)

// Entry says who is banned: a peer, or the addresses of a prefix.
type Entry struct {
	Peer   identity.PeerID // zero: Prefix says who
	Prefix netip.Prefix
	Until  time.Time // zero: for good
	Reason string    // up to MaxReason bytes
}

// Parse reads the text of a peer id, of an address or of a prefix.
func Parse(text string) (Entry, error) {
	if len(text) == 2*len(identity.PeerID{}) && !strings.ContainsAny(text, ".:/") {
		id, err := identity.ParsePeerID(text)
		if err == nil && id.IsZero() {
			err = ErrSubject
		}
		return Entry{Peer: id}, err
	}
	var e Entry
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return e, fmt.Errorf("%.80q is no prefix, want for instance 203.0.113.0/24 or 2001:db8::/32", text)
		}
		e.Prefix = p
	} else {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return e, fmt.Errorf("%.80q is neither a peer id of 64 hexadecimal digits nor an IP address nor a prefix", text)
		}
		e.Prefix = netip.PrefixFrom(a.WithZone(""), a.BitLen())
	}
	return e.Clean()
}

// Subject returns the text of who is banned, which Parse reads. A prefix of one address
// is that address.
func (e Entry) Subject() string {
	switch {
	case !e.Peer.IsZero():
		return e.Peer.String()
	case e.Prefix.IsSingleIP():
		return e.Prefix.Addr().String()
	}
	return e.Prefix.String()
}

// Clean returns an entry in the form in which entries are kept and compared: prefixes
// without the bits behind them, and those of IPv4 as such. Errors: ErrSubject, and what
// is wrong with the prefix or the reason.
func (e Entry) Clean() (Entry, error) {
	if e.Peer.IsZero() == !e.Prefix.IsValid() {
		return e, ErrSubject
	}
	if len(e.Reason) > MaxReason {
		return e, fmt.Errorf("the reason has %d bytes, at most %d are allowed", len(e.Reason), MaxReason)
	}
	if e.Prefix.IsValid() {
		p, err := CleanPrefix(e.Prefix)
		if err != nil {
			return e, err
		}
		e.Prefix = p
	}
	return e, nil
}

// CleanPrefix returns a prefix without the bits behind it, and as one of IPv4 when it is
// that in IPv6's clothes.
func CleanPrefix(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, errors.New("the prefix is not set")
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("the prefix %v is of IPv4 and IPv6 both", p)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// value is what is kept of an entry.
type value struct {
	until  time.Time
	reason string
}

func (v *value) holds(now time.Time) bool { return v.until.IsZero() || now.Before(v.until) }

// key stands for the two ids that the holder of one key can prove: they differ in the
// top bit of their last byte.
type key identity.PeerID

func keyOf(id identity.PeerID) key {
	id[len(id)-1] &^= 0x80
	return key(id)
}

// banned is what is kept of an entry of a peer, with the id that was named.
type banned struct {
	value
	id identity.PeerID
}

// family is the prefixes of IPv4 or IPv6.
type family struct {
	entries map[netip.Prefix]value
	count   [129]int // of entries, by their length
	lengths []uint8  // those that have entries, the longest first
}

// Set is a blacklist. Its zero value takes nobody.
type Set struct {
	Max int // entries at most

	peers    map[key]banned
	families [2]family // IPv4, IPv6
	soonest  time.Time // no entry ends before; zero: none ends
}

// Len returns how many entries there are, of peers and of prefixes, with those that have
// ended and were not forgotten yet.
func (s *Set) Len() (peers, prefixes int) {
	return len(s.peers), len(s.families[0].entries) + len(s.families[1].entries)
}

// Add adds entries, which are clean, or replaces those of the same peers and prefixes.
// When there is no room for all of them it adds none and returns ErrFull, wrapped.
func (s *Set) Add(now time.Time, list []Entry) error {
	if peers, prefixes := s.Len(); peers+prefixes+len(list) > s.Max {
		s.Expire(now)
		if n := s.size() + s.fresh(list); n > s.Max {
			return fmt.Errorf("%w: %d entries at most, %d would be", ErrFull, s.Max, n)
		}
	}
	last := ""
	for _, e := range list {
		if e.Reason != last {
			last = strings.Clone(e.Reason)
		}
		v := value{e.Until, last}
		if !e.Until.IsZero() && (s.soonest.IsZero() || e.Until.Before(s.soonest)) {
			s.soonest = e.Until
		}
		if !e.Peer.IsZero() {
			if s.peers == nil {
				s.peers = make(map[key]banned, len(list))
			}
			s.peers[keyOf(e.Peer)] = banned{v, e.Peer}
			continue
		}
		s.of(e.Prefix.Addr()).put(e.Prefix, v)
	}
	return nil
}

func (s *Set) size() int {
	peers, prefixes := s.Len()
	return peers + prefixes
}

// fresh returns how many of a list there is no entry of.
func (s *Set) fresh(list []Entry) (n int) {
	type subject struct {
		peer   key
		prefix netip.Prefix
	}
	counted := make(map[subject]struct{}, len(list))
	for _, e := range list {
		if !s.has(e) {
			counted[subject{keyOf(e.Peer), e.Prefix}] = struct{}{}
		}
	}
	return len(counted)
}

func (s *Set) has(e Entry) (ok bool) {
	if !e.Peer.IsZero() {
		_, ok = s.peers[keyOf(e.Peer)]
		return ok
	}
	_, ok = s.of(e.Prefix.Addr()).entries[e.Prefix]
	return ok
}

// of returns the family of an address.
func (s *Set) of(a netip.Addr) *family {
	if a.Is4() {
		return &s.families[0]
	}
	return &s.families[1]
}

func (f *family) put(p netip.Prefix, v value) {
	if f.entries == nil {
		f.entries = make(map[netip.Prefix]value)
	}
	if _, old := f.entries[p]; !old {
		if f.count[p.Bits()]++; f.count[p.Bits()] == 1 {
			f.list()
		}
	}
	f.entries[p] = v
}

func (f *family) remove(p netip.Prefix) {
	delete(f.entries, p)
	if f.count[p.Bits()]--; f.count[p.Bits()] == 0 {
		f.list()
	}
}

// list finds out which lengths are in use.
func (f *family) list() {
	f.lengths = f.lengths[:0]
	for bits := len(f.count) - 1; bits >= 0; bits-- {
		if f.count[bits] > 0 {
			f.lengths = append(f.lengths, uint8(bits))
		}
	}
}

// Remove takes an entry out, which is clean, and reports whether it was there. What
// other entries say of the same addresses holds on.
func (s *Set) Remove(now time.Time, e Entry) bool {
	if !e.Peer.IsZero() {
		v, ok := s.peers[keyOf(e.Peer)]
		delete(s.peers, keyOf(e.Peer))
		return ok && v.holds(now)
	}
	f := s.of(e.Prefix.Addr())
	v, ok := f.entries[e.Prefix]
	if ok {
		f.remove(e.Prefix)
	}
	return ok && v.holds(now)
}

// Peer returns the entry of a peer, also one that was made by the other id of the same
// key, and whether there is one.
func (s *Set) Peer(now time.Time, id identity.PeerID) (Entry, bool) {
	v, ok := s.peers[keyOf(id)]
	if !ok || !v.holds(now) {
		return Entry{}, false
	}
	return Entry{Peer: v.id, Until: v.until, Reason: v.reason}, true
}

// Addr returns the entry with the longest prefix that an address is in, and whether
// there is one. The address may be one of IPv4 in IPv6's clothes, and have a zone.
func (s *Set) Addr(now time.Time, a netip.Addr) (Entry, bool) {
	if a = a.Unmap().WithZone(""); !a.IsValid() {
		return Entry{}, false
	}
	f := s.of(a)
	for _, bits := range f.lengths {
		p, err := a.Prefix(int(bits))
		if err != nil {
			continue
		}
		if v, ok := f.entries[p]; ok && v.holds(now) {
			return Entry{Prefix: p, Until: v.until, Reason: v.reason}, true
		}
	}
	return Entry{}, false
}

// Prefix returns the entry of this very prefix, which is clean, and whether there is one.
func (s *Set) Prefix(now time.Time, p netip.Prefix) (Entry, bool) {
	v, ok := s.of(p.Addr()).entries[p]
	if !ok || !v.holds(now) {
		return Entry{}, false
	}
	return Entry{Prefix: p, Until: v.until, Reason: v.reason}, true
}

// Expire forgets entries that have ended. It looks at them only when one may have.
func (s *Set) Expire(now time.Time) {
	if s.soonest.IsZero() || now.Before(s.soonest) {
		return
	}
	s.soonest = time.Time{}
	stays := func(v *value) bool {
		if v.holds(now) && !v.until.IsZero() && (s.soonest.IsZero() || v.until.Before(s.soonest)) {
			s.soonest = v.until
		}
		return v.holds(now)
	}
	for id, v := range s.peers {
		if !stays(&v.value) {
			delete(s.peers, id)
		}
	}
	for i := range s.families {
		f := &s.families[i]
		for p, v := range f.entries {
			if !stays(&v) {
				f.remove(p)
			}
		}
	}
}

// List returns the entries that hold: the peers in the order of their ids, then the
// prefixes, IPv4 first, in the order of their addresses, and of one address the shortest
// first.
func (s *Set) List(now time.Time) []Entry {
	s.Expire(now)
	list := make([]Entry, 0, s.size())
	for _, v := range s.peers {
		list = append(list, Entry{Peer: v.id, Until: v.until, Reason: v.reason})
	}
	n := len(list)
	slices.SortFunc(list, func(a, b Entry) int { return a.Peer.Compare(b.Peer) })
	for i := range s.families {
		for p, v := range s.families[i].entries {
			list = append(list, Entry{Prefix: p, Until: v.until, Reason: v.reason})
		}
	}
	slices.SortFunc(list[n:], func(a, b Entry) int { return comparePrefix(a.Prefix, b.Prefix) })
	return list
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 { // IPv4 is before IPv6
		return c
	}
	return a.Bits() - b.Bits()
}
