package bootstrap

import (
	"cmp"
	"errors"
	"maps"
	"slices"

	"github.com/libcrust/libcrust/core/identity"
)

// errUsedUp means that a file has to be numbered anew.
var errUsedUp = errors.New("the numbers of its writings are used up")

// view is what the slots hold, and changes them. It is good for as long as the lock
// is held.
type view struct {
	region region
	header header
	slots  []slot
	index  map[identity.PeerID]int // the slot of each peer
	last   uint64                  // the greatest number of a writing
	synced *uint64                 // up to here everything is on the disk, as far as is known
	buf    []byte
}

// slot is what one slot holds.
type slot struct {
	entry *Entry // nil: nothing
	seq   uint64 // of the copy that counts; 0 when neither does
	which int    // the copy that counts
	bad   [2]error
}

// scan reads all slots.
func scan(r region, h header, synced *uint64) (*view, error) {
	v := &view{region: r, header: h, slots: make([]slot, h.count), index: map[identity.PeerID]int{}, synced: synced, buf: make([]byte, slotSize)}
	for i := range v.slots {
		s := &v.slots[i]
		for which := range 2 {
			if err := r.read(v.buf, h.at(i, which)); err != nil {
				return nil, err
			}
			seq, e, err := parseSlot(v.buf)
			if s.bad[which] = err; err == nil && seq > s.seq {
				s.entry, s.seq, s.which = e, seq, which
			}
		}
		v.last = max(v.last, s.seq)
		v.enter(i)
	}
	return v, nil
}

// enter puts a slot into the index. Of two slots with the same peer, which only
// damage can bring about, the one that was written last counts.
func (v *view) enter(i int) {
	e := v.slots[i].entry
	if e == nil {
		return
	}
	other, taken := v.index[e.Peer]
	switch {
	case !taken:
		v.index[e.Peer] = i
	case v.slots[other].seq < v.slots[i].seq:
		v.slots[other].entry = nil
		v.index[e.Peer] = i
	default:
		v.slots[i].entry = nil
	}
}

// find returns what is known of a peer, nil for nothing.
func (v *view) find(id identity.PeerID) *Entry {
	if i, ok := v.index[id]; ok {
		return v.slots[i].entry
	}
	return nil
}

// entries returns all entries, most recent first.
func (v *view) entries() []Entry {
	list := make([]Entry, 0, len(v.index))
	for _, i := range v.index {
		list = append(list, v.slots[i].entry.clone())
	}
	slices.SortFunc(list, recent)
	return list
}

// recent is the order of entries: who was reached last comes first.
func recent(a, b Entry) int {
	return cmp.Or(cmp.Compare(b.order, a.order), a.Peer.Compare(b.Peer))
}

// reached returns the number of the writing that told of the last success of any
// peer.
func (v *view) reached() (order uint64) {
	for _, i := range v.index {
		order = max(order, v.slots[i].entry.order)
	}
	return order
}

// store writes an entry: over the peer's own, or to a free slot, or in the place of
// the one that is worth least. Its numbers of 0 are those of this writing.
func (v *view) store(e Entry) error {
	if e.order == 0 {
		e.order = v.last + 1
	}
	if e.Failures > 0 && e.failed == 0 {
		e.failed = v.last + 1
	}
	i, ok := v.index[e.Peer]
	if !ok {
		i = v.place()
	}
	return v.put(i, &e)
}

// remove empties the slot of a peer.
func (v *view) remove(id identity.PeerID) error {
	if i, ok := v.index[id]; ok {
		return v.put(i, nil)
	}
	return nil
}

// put writes a slot: the copy that does not count. The one that stays is on the disk
// before.
func (v *view) put(i int, e *Entry) error {
	s := &v.slots[i]
	if v.last >= maxSeq {
		return errUsedUp
	}
	if s.seq > *v.synced {
		if err := v.region.flush(); err != nil {
			return err
		}
		*v.synced = v.last
	}
	which := 0
	if s.seq > 0 {
		which = 1 - s.which
	}
	v.buf = appendSlot(v.buf[:0], v.last+1, e)
	if err := v.region.write(v.buf, v.header.at(i, which)); err != nil {
		return err
	}
	v.last++
	if s.entry != nil {
		delete(v.index, s.entry.Peer)
	}
	s.entry, s.seq, s.which, s.bad[which] = e, v.last, which, nil
	if e != nil {
		v.index[e.Peer] = i
	}
	return nil
}

// place returns the slot for one more peer: a free one, sound ones first, or that of
// the peer whose turn it is to go.
func (v *view) place() int {
	free := slices.IndexFunc(v.slots, func(s slot) bool { return s.entry == nil && s.bad == [2]error{} })
	if free < 0 {
		free = slices.IndexFunc(v.slots, func(s slot) bool { return s.entry == nil })
	}
	if free >= 0 {
		return free
	}
	return slices.MinFunc(slices.Collect(maps.Values(v.index)), func(i, j int) int {
		return worth(v.slots[i].entry, v.slots[j].entry)
	})
}
