package main

import (
	"sync"
	"testing"
)

func TestTableFindsAndForgets(t *testing.T) {
	tab := table[int]{kind: kindService, what: "test"}
	values := make([]int, 3000)
	handles := make([]uint64, len(values))
	for i := range values {
		h, err := tab.add(&values[i])
		if err != nil {
			t.Fatal(err)
		}
		handles[i] = h
	}
	for i, h := range handles {
		if h == 0 || h>>56 != kindService {
			t.Fatalf("handle %d is %#x", i, h)
		}
		if tab.get(h) != &values[i] {
			t.Fatalf("handle %#x does not name value %d", h, i)
		}
		if tab.getPointer(uintptr(h)) != &values[i] {
			t.Fatalf("handle %#x as a pointer does not name value %d", h, i)
		}
	}
	for _, h := range []uint64{0, 1, handles[0] + 1<<slotBits, handles[0] ^ 1<<56, handles[0]&^0xffff | 0xffff, 1<<64 - 1} {
		if tab.get(h) != nil {
			t.Errorf("%#x names something", h)
		}
		if tab.remove(h) {
			t.Errorf("%#x could be removed", h)
		}
	}
	if !tab.remove(handles[7]) || tab.remove(handles[7]) {
		t.Error("removing works once and only once")
	}
	if tab.get(handles[7]) != nil {
		t.Error("a removed handle names something")
	}
	again, err := tab.add(&values[7])
	if err != nil {
		t.Fatal(err)
	}
	if again == handles[7] || again&0xffff != handles[7]&0xffff {
		t.Errorf("the slot of %#x was to be used again with a new generation, got %#x", handles[7], again)
	}
	if tab.count() != len(values) {
		t.Errorf("count is %d, want %d", tab.count(), len(values))
	}
}

func TestTableIsBounded(t *testing.T) {
	tab := table[int]{kind: kindConfig, what: "test"}
	var value int
	slots := make([]*slot[int], 1<<slotBits)
	for i := range slots {
		slots[i] = new(slot[int])
	}
	tab.slots.Store(&slots)
	if _, err := tab.add(&value); err == nil {
		t.Error("a full table took one more")
	}
}

func TestSpentSlotIsNotUsedAgain(t *testing.T) {
	tab := table[int]{kind: kindService, what: "test"}
	var value int
	if _, err := tab.add(&value); err != nil {
		t.Fatal(err)
	}
	(*tab.slots.Load())[0].generation = 1<<generationBits - 2
	first := (*tab.slots.Load())[0].entry.Load().handle
	tab.remove(first)
	last, err := tab.add(&value)
	if err != nil {
		t.Fatal(err)
	}
	if last>>56 != kindService || last&0xffff != 0 {
		t.Fatalf("the last generation spoils the handle: %#x", last)
	}
	tab.remove(last)
	next, err := tab.add(&value)
	if err != nil {
		t.Fatal(err)
	}
	if next&0xffff == 0 {
		t.Errorf("the spent slot was used again: %#x", next)
	}
}

func TestTableUnderConcurrency(t *testing.T) {
	tab := table[int]{kind: kindService, what: "test"}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			var mine int
			for range 500 {
				h, err := tab.add(&mine)
				if err != nil {
					t.Error(err)
					return
				}
				if tab.get(h) != &mine {
					t.Errorf("%#x names another's value", h)
				}
				if !tab.remove(h) || tab.get(h) != nil {
					t.Errorf("%#x was not removed", h)
				}
			}
		})
	}
	group.Wait()
	if tab.count() != 0 {
		t.Errorf("count is %d, want 0", tab.count())
	}
}
