package gossip

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// Parts of MaxKnown that records of one prefix, of one teller, and of departed
	// peers may take.
	narrowPart   = 64 // a /24, or an IPv6 /48
	widePart     = 16 // a /16, or an IPv6 /32
	tellerPart   = 4
	departedPart = 8
	// localMore times as many records may have one prefix when none of their addresses
	// is global: whole sites are in one then.
	localMore = 4
	// displaceRate bounds how many records a second, and at once, a full table turns
	// out for others: it looks at all of them for that.
	displaceRate = 10
	// changeGap and changeBurst bound the versions of one record that are taken:
	// some at once, then one in each gap. Makers keep to half of that.
	changeGap   second = 30
	changeBurst        = 6
)

// prefix is an address prefix in one of the widths that are bounded: the width, family
// and reach in the high byte, the leading bits below.
type prefix uint64

// Kinds of prefixes, for the high byte.
const (
	narrow4 prefix = iota + 1 // /24
	wide4                     // /16
	narrow6                   // /48
	wide6                     // /32
	nowhere                   // of endpoints that this version cannot read
	local   prefix = 0x80     // flag: the address is not global
)

// prefixesOf returns the prefixes that an address counts for: the narrow one and
// the wide one.
func prefixesOf(a netip.Addr, flag prefix) (narrow, wide prefix) {
	if a.Is4() {
		b := a.As4()
		top := prefix(b[0])<<8 | prefix(b[1])
		return (flag|narrow4)<<56 | top<<8 | prefix(b[2]), (flag|wide4)<<56 | top
	}
	b := a.As16()
	top := prefix(b[0])<<24 | prefix(b[1])<<16 | prefix(b[2])<<8 | prefix(b[3])
	return (flag|narrow6)<<56 | top<<16 | prefix(b[4])<<8 | prefix(b[5]), (flag|wide6)<<56 | top
}

// wide reports whether p is of the wide kind.
func (p prefix) wide() bool { k := p >> 56 &^ local; return k == wide4 || k == wide6 }

// record is a contact record as it is kept. It does not change, and may be shared.
type record struct {
	key      wire.ContactKey
	contact  wire.Contact
	raw      []byte
	prefixes []prefix // each once; none when the peer has departed
	here     bool     // it has a loopback endpoint
}

// readRecord reads a record but for its signature, and copies it.
func readRecord(raw []byte) (*record, error) {
	c, err := wire.PeekContact(raw)
	if err != nil {
		return nil, err
	}
	return newRecord(c, bytes.Clone(raw)), nil
}

// newRecord returns the record of a contact. Its global addresses count or, if it has
// none, all of them: what is in a house has addresses that a million houses have.
func newRecord(c wire.Contact, raw []byte) *record {
	r := &record{key: wire.KeyOf(c.Peer, c.Seq), contact: c, raw: raw}
	flag := local
	if slices.ContainsFunc(c.Endpoints, func(e endpoint.Endpoint) bool { return e.Scope() == endpoint.Global }) {
		flag = 0
	}
	add := func(p prefix) {
		if !slices.Contains(r.prefixes, p) {
			r.prefixes = append(r.prefixes, p)
		}
	}
	for _, e := range c.Endpoints {
		r.here = r.here || e.Scope() == endpoint.Loopback
		if flag == 0 && e.Scope() != endpoint.Global {
			continue
		}
		narrow, wide := prefixesOf(e.Addr.Addr(), flag)
		add(narrow)
		add(wide)
	}
	if c.Unknown > 0 && len(c.Endpoints) == 0 {
		add(nowhere << 56)
	}
	return r
}

// group returns the prefix by which peers are picked: the wide one of the first endpoint
// that counts.
func (r *record) group() prefix {
	for _, p := range r.prefixes {
		if p.wide() {
			return p
		}
	}
	return nowhere << 56
}

// entry is a record in the table.
type entry struct {
	position uint64 // of record.key, to search by
	record   *record
	teller   *teller // nil: ourselves
	ends     moment
	since    second // when the peer became known
	pace     second // when changeBurst versions may come again
}

// second is a moment to the second, in half the space.
type second uint32

func seconds(at moment) second { return second(at / time.Second) }

// mayChange reports whether another version of a record may come already. Who departs
// may always.
func (e *entry) mayChange(r *record, at moment) bool {
	if r.contact.Departed() && !e.record.contact.Departed() {
		return true
	}
	return e.pace <= seconds(at)+(changeBurst-1)*changeGap
}

// teller is the account of a peer that brings records.
type teller struct {
	id     identity.PeerID
	count  int  // of records in the table that it brought
	linked bool // there is a session
}

// full reports whether a teller may bring no more records.
func (t *teller) full(in *table) bool { return t.count >= max(in.max/tellerPart, 16) }

// table holds the newest record of each peer.
type table struct {
	max      int
	entries  []entry // by position, then by peer id
	prefixes map[prefix]int
	tellers  map[identity.PeerID]*teller
	departed int    // how many say so
	soonest  moment // no record ends before
}

func newTable(most int) table {
	return table{max: most, prefixes: map[prefix]int{}, tellers: map[identity.PeerID]*teller{}, soonest: never}
}

// search returns where the record of a peer is, or would be.
func (t *table) search(id identity.PeerID) (int, bool) {
	position := wire.KeyOf(id, 0).Position
	i := t.from(position)
	for ; i < len(t.entries) && t.entries[i].position == position; i++ {
		if c := t.entries[i].record.contact.Peer.Compare(id); c >= 0 {
			return i, c == 0
		}
	}
	return i, false
}

// from returns the index of the first record at a position or behind it.
func (t *table) from(position uint64) int {
	low, high := 0, len(t.entries)
	for low < high {
		if mid := int(uint(low+high) / 2); t.entries[mid].position < position {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// find returns the entry of a peer, until the table changes, or nil.
func (t *table) find(id identity.PeerID) *entry {
	if i, ok := t.search(id); ok {
		return &t.entries[i]
	}
	return nil
}

// at returns the newest record at the position of a key, or nil.
func (t *table) at(position uint64) *record {
	if i := t.from(position); i < len(t.entries) && t.entries[i].position == position {
		return t.entries[i].record
	}
	return nil
}

// account returns the account of a teller.
func (t *table) account(id identity.PeerID) *teller {
	a := t.tellers[id]
	if a == nil {
		a = &teller{id: id}
		t.tellers[id] = a
	}
	return a
}

// release forgets an account that nothing hangs on.
func (t *table) release(a *teller) {
	if a != nil && a.count == 0 && !a.linked {
		delete(t.tellers, a.id)
	}
}

// limit returns how many records may have a prefix.
func (t *table) limit(p prefix) int {
	n := max(t.max/narrowPart, 2)
	if p.wide() {
		n = max(t.max/widePart, 4)
	}
	if p>>56&local != 0 {
		n *= localMore
	}
	return n
}

func (t *table) maxDeparted() int { return max(t.max/departedPart, 4) }

// place is where a new record goes.
type place struct{ victims []*record }

// displaces reports whether somebody who is there has to go.
func (p place) displaces() bool { return len(p.victims) > 0 && !p.victims[0].contact.Departed() }

// admit says whether there is room for a record, in place of old if that is not nil, and
// who has to go for it. Those that protected holds for stay.
func (t *table) admit(r *record, old *entry, by *teller, protected func(identity.PeerID) bool) (place, bool) {
	var mine []prefix
	if old != nil {
		mine = old.record.prefixes
	}
	for _, p := range r.prefixes {
		if t.prefixes[p] >= t.limit(p) && !slices.Contains(mine, p) {
			return place{}, false
		}
	}
	var out place
	if r.contact.Departed() && t.departed >= t.maxDeparted() && (old == nil || !old.record.contact.Departed()) {
		// Everybody turns out the same one, so that digests agree.
		first := t.firstDeparted()
		if old == nil && first.contact.Expires() >= r.contact.Expires() {
			return place{}, false
		}
		out.victims = append(out.victims, first)
	}
	switch {
	case old != nil:
		return out, true
	case by.full(t):
		return place{}, false
	case len(t.entries)-len(out.victims) < t.max:
		return out, true
	case t.departed > 0:
		return place{[]*record{t.firstDeparted()}}, !r.contact.Departed()
	}
	victim := t.crowded(r, by, protected)
	return place{[]*record{victim}}, victim != nil
}

// firstDeparted returns the record of a departed peer that ends first.
func (t *table) firstDeparted() (first *record) {
	for i := range t.entries {
		r := t.entries[i].record
		if r.contact.Departed() && (first == nil || r.contact.Expires() < first.contact.Expires()) {
			first = r
		}
	}
	return first
}

// crowd returns how many records share the most crowded wide prefix of a record.
func (t *table) crowd(r *record) (n int) {
	for _, p := range r.prefixes {
		if p.wide() || p>>56 == nowhere {
			n = max(n, t.prefixes[p])
		}
	}
	return n
}

// crowded returns the record that has to go for r, brought by a teller: the most crowded
// one, at least as crowded as r would be, of those whose teller has brought more, and of
// the most crowded the one that came last.
func (t *table) crowded(r *record, by *teller, protected func(identity.PeerID) bool) (victim *record) {
	most, since := t.crowd(r)+1, second(0)
	for i := range t.entries {
		e := &t.entries[i]
		if e.teller == nil || e.teller.count <= by.count+1 || protected(e.record.contact.Peer) {
			continue
		}
		if n := t.crowd(e.record); n > most || n == most && e.since >= since {
			most, since, victim = n, e.since, e.record
		}
	}
	return victim
}

// put keeps a record that ends at a moment, in place of what there is of its peer.
func (t *table) put(r *record, by *teller, at, ends moment) {
	i, found := t.search(r.contact.Peer)
	if found {
		e := &t.entries[i]
		t.count(e.record, -1)
		if by != nil && e.teller != by && !by.full(t) {
			t.charge(e, by)
		}
		e.record, e.ends = r, ends
		e.pace = max(e.pace, seconds(at)) + changeGap
	} else {
		e := entry{position: r.key.Position, record: r, ends: ends, since: seconds(at), pace: seconds(at) + changeGap}
		t.charge(&e, by)
		t.entries = slices.Insert(t.entries, i, e)
	}
	t.count(r, 1)
	t.soonest = min(t.soonest, ends)
}

// charge writes an entry to the account of a teller.
func (t *table) charge(e *entry, by *teller) {
	if e.teller != nil {
		e.teller.count--
		t.release(e.teller)
	}
	if e.teller = by; by != nil {
		by.count++
	}
}

// count adds n to everything that a record counts for.
func (t *table) count(r *record, n int) {
	if r.contact.Departed() {
		t.departed += n
	}
	for _, p := range r.prefixes {
		if t.prefixes[p] += n; t.prefixes[p] == 0 {
			delete(t.prefixes, p)
		}
	}
}

// remove forgets a peer.
func (t *table) remove(id identity.PeerID) {
	i, ok := t.search(id)
	if !ok {
		return
	}
	t.count(t.entries[i].record, -1)
	t.charge(&t.entries[i], nil)
	t.entries = slices.Delete(t.entries, i, i+1)
}

// expire removes the records that have ended, and returns them.
func (t *table) expire(at moment) []*record {
	return t.clear(func(e *entry) bool { return e.ends <= at })
}

// drop removes the records for which a function holds, and returns them.
func (t *table) drop(which func(*record) bool) []*record {
	return t.clear(func(e *entry) bool { return which(e.record) })
}

func (t *table) clear(which func(*entry) bool) (over []*record) {
	t.soonest = never
	kept := t.entries[:0]
	for i := range t.entries {
		e := t.entries[i]
		if which(&e) {
			t.count(e.record, -1)
			t.charge(&e, nil)
			over = append(over, e.record)
			continue
		}
		t.soonest = min(t.soonest, e.ends)
		kept = append(kept, e)
	}
	clear(t.entries[len(kept):])
	t.entries = kept
	return over
}
