package main

import (
	"errors"
	"sync"
	"sync/atomic"

	crust "github.com/libcrust/libcrust/core"
)

// A handle is kind<<56 | generation<<16 | slot. Slots are used again, each time
// with the next generation, so a stale handle names nothing. A slot whose
// generations have run out is never used again. The lower 32 bits alone still
// hold slot and 16 bits of the generation, which is what a pointer of a 32-bit
// system can carry.
const (
	slotBits       = 16
	generationBits = 40
	kindService    = 0xC5
	kindConfig     = 0xCF
)

var errBadHandle = errors.New("the handle is unknown, stale or freed")

// table gives things of one kind handles. Looking up takes no lock.
type table[T any] struct {
	kind uint64
	what string // in errors

	slots atomic.Pointer[[]*slot[T]] // grows; never shrinks

	mu   sync.Mutex
	free []int // slots to be used again, the longest unused first
	live int
}

type slot[T any] struct {
	entry      atomic.Pointer[entry[T]]
	generation uint64 // guarded by table.mu
}

type entry[T any] struct {
	handle uint64
	value  *T
}

// add gives value a handle, or returns CodeLimit when 65,536 are alive.
func (t *table[T]) add(value *T) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var old []*slot[T]
	if p := t.slots.Load(); p != nil {
		old = *p
	}
	var index int
	switch {
	case len(t.free) > 0:
		index = t.free[0]
		t.free = t.free[1:]
	case len(old) < 1<<slotBits:
		index = len(old)
		grown := append(old[:index:index], new(slot[T]))
		t.slots.Store(&grown)
		old = grown
	default:
		return 0, &crust.Error{Op: t.what, Code: crust.CodeLimit, Err: errors.New("all handles are in use")}
	}
	s := old[index]
	s.generation++
	handle := t.kind<<56 | s.generation<<slotBits | uint64(index)
	s.entry.Store(&entry[T]{handle, value})
	t.live++
	return handle, nil
}

// get returns what handle names, nil when it names nothing.
func (t *table[T]) get(handle uint64) *T {
	e := t.find(handle)
	if e == nil || e.handle != handle {
		return nil
	}
	return e.value
}

// getPointer is get for a handle that travelled as a pointer, whose upper half
// is lost on 32-bit systems.
func (t *table[T]) getPointer(p uintptr) *T {
	e := t.find(uint64(p))
	if e == nil || uintptr(e.handle) != p {
		return nil
	}
	return e.value
}

func (t *table[T]) find(handle uint64) *entry[T] {
	p := t.slots.Load()
	if p == nil {
		return nil
	}
	index := handle & (1<<slotBits - 1)
	if index >= uint64(len(*p)) {
		return nil
	}
	return (*p)[index].entry.Load()
}

// removePointer is remove for a handle that travelled as a pointer.
func (t *table[T]) removePointer(p uintptr) bool {
	e := t.find(uint64(p))
	return e != nil && uintptr(e.handle) == p && t.remove(e.handle)
}

// remove makes handle stale. Only the first of several calls reports true.
func (t *table[T]) remove(handle uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.find(handle)
	if e == nil || e.handle != handle {
		return false
	}
	index := int(handle & (1<<slotBits - 1))
	s := (*t.slots.Load())[index]
	s.entry.Store(nil)
	t.live--
	if s.generation < 1<<generationBits-1 {
		t.free = append(t.free, index)
	}
	return true
}

// count returns how many things are alive.
func (t *table[T]) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live
}
