package session

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffer is pooled memory that several messages may lie in. Who holds a
// reference may read it; the last Release gives it back.
type Buffer struct {
	B    []byte // full capacity of its class
	refs atomic.Int32

	account *account // for whom it counts; nil: nobody
	by      holding
}

// holding is how the memory of a buffer was taken.
type holding uint8

const (
	byTake holding = iota
	byForce
	byLoan
)

// Buffers come in powers of four from 512 B to 8 MiB.
const (
	minClass = 9
	classes  = 8
)

var pools [classes]sync.Pool

func classOf(n int) int {
	c := (max(bits.Len(uint(max(n, 1)-1)), minClass) - minClass + 1) / 2
	return min(c, classes-1)
}

// NewBuffer returns a buffer of at least n bytes, at most 8 MiB, with one reference.
func NewBuffer(n int) *Buffer {
	c := classOf(n)
	b, _ := pools[c].Get().(*Buffer)
	if b == nil {
		b = &Buffer{B: make([]byte, 1<<(minClass+2*c))}
	}
	b.refs.Store(1)
	return b
}

// Retain adds a reference.
func (b *Buffer) Retain() { b.refs.Add(1) }

// Release drops a reference.
func (b *Buffer) Release() {
	if b.refs.Add(-1) == 0 {
		if a := b.account; a != nil {
			by := b.by
			b.account, b.by = nil, byTake
			switch by {
			case byTake:
				a.give(len(b.B))
			case byForce:
				a.unforce(len(b.B))
			case byLoan:
				a.repay(len(b.B))
			}
		}
		pools[classOf(len(b.B))].Put(b)
	}
}
