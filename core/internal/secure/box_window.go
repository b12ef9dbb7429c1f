package secure

import "github.com/libcrust/libcrust/core/internal/wire"

// window remembers which of the last wire.ReplayWindow numbers below the highest
// came, as a ring of bits that moves by whole words (RFC 6479).
type window struct {
	top  uint64 // the highest number that came, plus one
	bits [windowWords]uint64
}

// windowWords makes the ring larger than the window by more than a word, and a
// power of two.
const windowWords = 2 * wire.ReplayWindow / 64

// fresh reports whether number has not come and is not too old to tell.
func (w *window) fresh(number uint64) bool {
	if number >= w.top {
		return true
	}
	return w.top-number <= wire.ReplayWindow && w.bits[number/64%windowWords]&(1<<(number%64)) == 0
}

// add notes that a fresh number came.
func (w *window) add(number uint64) {
	word := number / 64
	if number >= w.top {
		last := uint64(0) // the word that has the highest number so far
		if w.top > 0 {
			last = (w.top - 1) / 64
		}
		for i := range min(word-last, windowWords) {
			w.bits[(word-i)%windowWords] = 0
		}
		w.top = number + 1
	}
	w.bits[word%windowWords] |= 1 << (number % 64)
}
