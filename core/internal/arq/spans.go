package arq

import (
	"math/bits"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// span is a run of stream offsets, hi not included.
type span struct{ lo, hi uint64 }

// spans is a set of stream offsets: runs in order, which do not touch. The zero
// value is empty. Adding at either end and taking from the front are cheap.
type spans struct {
	s    []span
	head int // s[:head] is unused
}

func (r *spans) len() int { return len(r.s) - r.head }

// first returns the lowest run; there must be one.
func (r *spans) first() span { return r.s[r.head] }

func (r *spans) pop() {
	if r.head++; r.head == len(r.s) {
		r.s, r.head = r.s[:0], 0
	}
}

// search returns the index of the first run with hi >= at.
func (r *spans) search(at uint64) int {
	lo, hi := r.head, len(r.s)
	if hi > lo && r.s[hi-1].hi < at {
		return hi // the usual place
	}
	for lo < hi {
		if m := int(uint(lo+hi) >> 1); r.s[m].hi < at {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// isolated reports whether adding a run would make one more.
func (r *spans) isolated(lo, hi uint64) bool {
	i := r.search(lo)
	return i == len(r.s) || r.s[i].lo > hi
}

// add puts lo to hi into the set.
func (r *spans) add(lo, hi uint64) {
	if lo >= hi {
		return
	}
	i := r.search(lo)
	j := i
	for j < len(r.s) && r.s[j].lo <= hi {
		lo, hi = min(lo, r.s[j].lo), max(hi, r.s[j].hi)
		j++
	}
	if i == j {
		r.insert(i, span{lo, hi})
		return
	}
	r.s[i] = span{lo, hi}
	r.cut(i+1, j)
}

// remove takes lo to hi out of the set.
func (r *spans) remove(lo, hi uint64) {
	i := r.search(lo + 1)
	if lo >= hi || i == len(r.s) || r.s[i].lo >= hi {
		return
	}
	if old := r.s[i]; old.lo < lo {
		r.s[i].hi = lo
		i++
		if old.hi > hi {
			r.insert(i, span{hi, old.hi})
			return
		}
	}
	j := i
	for j < len(r.s) && r.s[j].hi <= hi {
		j++
	}
	if j < len(r.s) && r.s[j].lo < hi {
		r.s[j].lo = hi
	}
	r.cut(i, j)
}

// insert puts x before index i.
func (r *spans) insert(i int, x span) {
	if r.head > 0 && i-r.head < len(r.s)-i {
		copy(r.s[r.head-1:], r.s[r.head:i])
		r.head--
		r.s[i-1] = x
		return
	}
	if r.head > 0 && len(r.s) == cap(r.s) { // make use of the front instead of growing
		n := copy(r.s, r.s[r.head:])
		i -= r.head
		r.s, r.head = r.s[:n], 0
	}
	r.s = append(r.s, span{})
	copy(r.s[i+1:], r.s[i:])
	r.s[i] = x
}

// cut removes the runs i to j-1.
func (r *spans) cut(i, j int) {
	switch {
	case i == j:
	case i == r.head:
		if r.head = j; r.head == len(r.s) {
			r.s, r.head = r.s[:0], 0
		}
	default:
		n := copy(r.s[i:], r.s[j:])
		r.s = r.s[:i+n]
	}
}

// gaps calls f for each part of lo to hi that is not in the set. f may not
// change it.
func (r *spans) gaps(lo, hi uint64, f func(lo, hi uint64)) {
	for i := r.search(lo); i < len(r.s) && lo < hi && r.s[i].lo < hi; i++ {
		if r.s[i].lo > lo {
			f(lo, r.s[i].lo)
		}
		lo = max(lo, r.s[i].hi)
	}
	if lo < hi {
		f(lo, hi)
	}
}

// numbers is the set of datagram numbers that have arrived, lowest run first,
// the highest wire.MaxAckRanges runs only.
type numbers struct {
	n int
	r [wire.MaxAckRanges + 1]wire.AckRange
}

// add reports whether x is new to the set; what was forgotten is new.
func (s *numbers) add(x uint64) bool {
	i := s.n // the runs before i end below x
	for i > 0 && s.r[i-1].Last >= x {
		i--
	}
	if i < s.n && s.r[i].First <= x {
		return false
	}
	below := i > 0 && s.r[i-1].Last+1 == x
	above := i < s.n && s.r[i].First == x+1
	switch {
	case below && above:
		s.r[i-1].Last = s.r[i].Last
		copy(s.r[i:s.n], s.r[i+1:s.n])
		s.n--
	case below:
		s.r[i-1].Last = x
	case above:
		s.r[i].First = x
	default:
		copy(s.r[i+1:s.n+1], s.r[i:s.n])
		s.r[i] = wire.AckRange{First: x, Last: x}
		if s.n++; s.n > wire.MaxAckRanges {
			copy(s.r[:], s.r[1:s.n])
			s.n--
		}
	}
	return true
}

// has reports whether x is in the set.
func (s *numbers) has(x uint64) bool {
	for i := s.n - 1; i >= 0 && s.r[i].Last >= x; i-- {
		if s.r[i].First <= x {
			return true
		}
	}
	return false
}

// ring is memory for a window of a stream of bytes. Its size is a power of two.
type ring struct {
	b    []byte
	base uint64 // offset that lies at b[0]
}

// smallRing is the least size of a ring in bytes: a packet with its length fits.
const smallRing = 128 << 10

// fit makes room for the bytes lo to hi, and keeps what lies from lo on.
func (r *ring) fit(lo, hi uint64) {
	if hi-lo <= uint64(len(r.b)) {
		return
	}
	old := *r
	r.b = make([]byte, max(smallRing, 1<<bits.Len64(hi-lo-1)))
	if len(old.b) > 0 {
		a, b := old.at(lo, len(old.b))
		r.write(lo, a)
		r.write(lo+uint64(len(a)), b)
	}
}

// at returns the n bytes from off on, in one or two parts.
func (r *ring) at(off uint64, n int) (a, b []byte) {
	i := int(off-r.base) & (len(r.b) - 1)
	if n <= len(r.b)-i {
		return r.b[i : i+n], nil
	}
	return r.b[i:], r.b[:n-(len(r.b)-i)]
}

// write puts p at off, where there must be room.
func (r *ring) write(off uint64, p []byte) {
	a, b := r.at(off, len(p))
	copy(b, p[copy(a, p):])
}

// append appends n bytes from off on to b.
func (r *ring) append(b []byte, off uint64, n int) []byte {
	x, y := r.at(off, n)
	return append(append(b, x...), y...)
}

// byteAt returns the byte at off.
func (r *ring) byteAt(off uint64) byte { return r.b[int(off-r.base)&(len(r.b)-1)] }
