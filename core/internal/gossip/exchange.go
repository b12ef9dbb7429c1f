package gossip

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// exchangeFirst is within how long after Join digests are compared.
	exchangeFirst = 2 * time.Second
	// exchangeAgain is until the next time when that brought more than fewGained records.
	// Otherwise the time doubles, from exchangeLeast to exchangeMost.
	exchangeAgain = 2 * time.Second
	fewGained     = 16
	exchangeLeast = 15 * time.Second
	exchangeMost  = 4 * time.Minute
	// exchangeBusy is how long an exchange waits for what was asked of that peer.
	exchangeBusy = 500 * time.Millisecond
	// splits is in how many parts a range is divided.
	splits = 16
	// rangesRate and rangesBurst bound the ranges of one peer that are looked at,
	// which takes a sum over the table.
	rangesRate  = 4
	rangesBurst = 32
	// maxReplies bounds the answers to ranges that wait.
	maxReplies = 2
	// clockSkew is by how much clocks may differ before one is wrong, and clockVoters
	// are how many peers that we dialled can say so.
	clockSkew   = 10 * time.Minute
	clockVoters = 3
)

// soon sees to it that digests are compared by a moment.
func (l *link) soon(at moment) {
	l.interval = min(l.interval, exchangeLeast/2)
	l.exchangeAt = min(l.exchangeAt, at)
}

// later sets when digests are compared again, after nothing came of it.
func (m *Machine) later(l *link, at moment) {
	l.interval = min(max(2*l.interval, exchangeLeast), exchangeMost)
	l.exchangeAt = at + m.between(l.interval*4/5, l.interval*6/5)
}

// beginExchange compares digests with a peer, when that is due.
func (m *Machine) beginExchange(l *link, at moment) {
	switch {
	case m.cfg.Mode != On:
		return
	case at < l.exchangeAt:
	case len(l.asks.keys) > 0 || l.asked > 0:
		l.exchangeAt = at + exchangeBusy
	case len(l.replies) < maxReplies:
		g := wire.Gossip{Kind: wire.GossipRanges, Nonce: m.nonce()}
		g.Ranges = []wire.Range{{Last: math.MaxUint64, Mode: wire.RangeSum, Sum: m.table.sum(g.Nonce, 0, len(m.table.entries))}}
		l.replies = append(l.replies, g)
		if l.gained > fewGained {
			l.interval = 0
			l.exchangeAt = at + m.between(exchangeAgain/2, exchangeAgain*3/2)
		} else {
			m.later(l, at)
		}
		l.gained = 0
	default:
		l.exchangeAt = at + exchangeBusy
	}
	m.wake(l.exchangeAt)
}

// rangesCame compares what a peer has with what we have.
func (m *Machine) rangesCame(l *link, g wire.Gossip, at moment) {
	m.clockCame(l, g.Clock, at)
	if !l.ranges.take(1, at) {
		return
	}
	c := comparison{m: m, l: l, reply: wire.Gossip{Kind: wire.GossipRanges, Nonce: g.Nonce, First: g.First}, size: wire.GossipRangesFixed}
	first := g.First
	for _, r := range g.Ranges {
		low, high := m.table.from(first), len(m.table.entries)
		if r.Last < math.MaxUint64 {
			high = m.table.from(r.Last + 1)
		}
		switch r.Mode {
		case wire.RangeSum:
			c.sum(r, first, low, high)
		case wire.RangeKeys:
			c.keys(r, low, high)
			c.skip(r.Last)
		default:
			c.skip(r.Last)
		}
		first = r.Last + 1
	}
	whole := g.First == 0 && len(g.Ranges) == 1 && g.Ranges[0].Last == math.MaxUint64
	if whole && !c.differs && m.cfg.Mode == On && l.gained <= fewGained {
		m.later(l, at) // as good as if we had begun
	}
	if c.differs && len(l.replies) < maxReplies {
		l.replies = append(l.replies, c.reply)
	}
	m.tellMissing(l, c.missing)
}

// tellMissing tells a peer the keys of what it lacks: when there are more than fit,
// others than the next one does.
func (m *Machine) tellMissing(l *link, missing []wire.ContactKey) {
	if len(missing) > maxKeys {
		m.rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	}
	for _, k := range missing {
		l.lacks(k)
	}
}

// comparison makes the answer to ranges.
type comparison struct {
	m       *Machine
	l       *link
	reply   wire.Gossip
	size    int
	full    bool // nothing more fits
	differs bool // there is something to be answered
	missing []wire.ContactKey
}

// add appends a range to the answer. Ranges that are skipped become one.
func (c *comparison) add(r wire.Range) {
	if c.full {
		return
	}
	if n := len(c.reply.Ranges); n > 0 && r.Mode == wire.RangeSkip && c.reply.Ranges[n-1].Mode == wire.RangeSkip {
		c.reply.Ranges[n-1].Last = r.Last
		return
	}
	if c.size+r.Size() > wire.MaxGossip {
		c.full = true
		return
	}
	c.size += r.Size()
	c.differs = c.differs || r.Mode != wire.RangeSkip
	c.reply.Ranges = append(c.reply.Ranges, r)
}

func (c *comparison) skip(last uint64) { c.add(wire.Range{Last: last}) }

// sum compares a range of which the sum came, which has the records from low to high here.
func (c *comparison) sum(r wire.Range, first uint64, low, high int) {
	t := &c.m.table
	switch {
	case t.sum(c.reply.Nonce, low, high) == r.Sum:
		c.skip(r.Last)
		return
	case high-low <= wire.MaxRangeKeys:
		c.add(wire.Range{Last: r.Last, Mode: wire.RangeKeys, Keys: t.keys(low, high)})
		return
	}
	for part := range splits {
		from, to := low+(high-low)*part/splits, low+(high-low)*(part+1)/splits
		last := r.Last
		if part < splits-1 {
			if last = t.entries[to].position - 1; last < first || t.entries[to].position == t.entries[to-1].position {
				continue // the next part has it, too
			}
		}
		for from > low && t.entries[from-1].position >= first {
			from--
		}
		c.add(wire.Range{Last: last, Mode: wire.RangeSum, Sum: t.sum(c.reply.Nonce, from, to)})
		first = last + 1
	}
}

// keys compares a range of which all keys came.
func (c *comparison) keys(r wire.Range, low, high int) {
	for _, k := range r.Keys {
		c.m.haveCame(c.l, k, false)
	}
	for _, mine := range c.m.table.keys(low, high) {
		if c.l.mayHave(c.m.table.at(mine.Position)) && !slices.ContainsFunc(r.Keys, func(k wire.ContactKey) bool { return k.Position == mine.Position }) {
			c.missing = append(c.missing, mine)
		}
	}
}

// keys returns the keys of the records from low to high.
func (t *table) keys(low, high int) (keys []wire.ContactKey) {
	for i := low; i < high; i++ {
		keys = append(keys, t.entries[i].record.key)
	}
	return keys
}

// sum returns the sum of a range: see wire.Range.
func (t *table) sum(nonce [wire.GossipNonce]byte, low, high int) (sum uint64) {
	k0, k1 := binary.LittleEndian.Uint64(nonce[:]), binary.LittleEndian.Uint64(nonce[8:])
	for i := low; i < high; i++ {
		r := t.entries[i].record
		sum += hash(k0, k1, (*[32]byte)(&r.contact.Peer), r.key.Seq)
	}
	return sum
}

// hash is SipHash-2-4 of 40 bytes: a peer id and a big-endian seq.
func hash(k0, k1 uint64, peer *[32]byte, seq uint64) uint64 {
	v0, v1 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d
	v2, v3 := k0^0x6c7967656e657261, k1^0x7465646279746573
	words := [6]uint64{5: 40 << 56, 4: bits.ReverseBytes64(seq)}
	for i := range 4 {
		words[i] = binary.LittleEndian.Uint64(peer[8*i:])
	}
	const compress = 2 * len(words)
	for i := range compress + 4 { // two rounds each word, and four at the end
		switch {
		case i == compress:
			v2 ^= 0xff
		case i < compress && i%2 == 0:
			v3 ^= words[i/2]
		}
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
		if i < compress && i%2 == 1 {
			v0 ^= words[i/2]
		}
	}
	return v0 ^ v1 ^ v2 ^ v3
}

// clockCame takes what the clock of a peer shows.
func (m *Machine) clockCame(l *link, clock uint64, at moment) {
	if l.peer.Outbound && clock <= math.MaxInt64/uint64(time.Millisecond) {
		l.clock, l.clockAt, l.clockKnown = clock, at, true
		m.compareClocks()
	}
}

// compareClocks sets what is to be added to our clock: when most of at least clockVoters
// peers that we dialled agree that it is wrong, theirs holds.
func (m *Machine) compareClocks() {
	var offsets []time.Duration
	for _, l := range m.order {
		if l.clockKnown {
			theirs := time.Duration(int64(l.clock)-int64(m.clock)) * time.Millisecond
			offsets = append(offsets, theirs+(m.last-l.clockAt))
		}
	}
	before := m.offset
	m.offset = 0
	if len(offsets) >= clockVoters {
		slices.Sort(offsets)
		middle := offsets[len(offsets)/2]
		agree := 0
		for _, o := range offsets {
			if (o - middle).Abs() <= clockSkew {
				agree++
			}
		}
		if middle.Abs() > clockSkew && 2*agree > len(offsets) {
			m.offset = middle
		}
	}
	if (m.offset - before).Abs() > clockSkew {
		m.clockSet()
	}
}

// clockSet begins with another time: what was refused for the old one may hold, and our
// record may not.
func (m *Machine) clockSet() {
	clear(m.refused)
	for _, l := range m.order {
		if m.cfg.Mode == On {
			l.soon(m.last + m.between(0, exchangeAgain))
		}
	}
	o := &m.own
	if o.record == nil {
		return
	}
	o.changed = true
	if now := m.millis(); o.record.contact.Current(now) != nil && o.floor > now {
		o.floor, o.until = 0, 0 // nobody has taken it
	}
}
