package bootstrap

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// sector is what a disk writes whole or not at all, at least.
const sector = 512

// tape is a region that remembers what was written since the last flush.
type tape struct {
	heap
	disk   []byte // what is on the disk for certain
	writes []written
}

type written struct {
	at    int
	bytes []byte
}

func (t *tape) write(b []byte, at int) error {
	t.writes = append(t.writes, written{at, bytes.Clone(b)})
	return t.heap.write(b, at)
}

func (t *tape) flush() error {
	t.disk, t.writes = bytes.Clone(t.heap), nil
	return nil
}

// onTape returns a book whose file is image.
func onTape(image []byte, peers int) (*Cache, *tape) {
	r := &tape{heap: bytes.Clone(image), disk: bytes.Clone(image)}
	return &Cache{region: r, header: header{count: peers}, options: Options{Peers: peers, RetestAfter: DefaultRetestAfter}}, r
}

// contents returns what a file holds, most recent first.
func contents(t testing.TB, image []byte) []Entry {
	t.Helper()
	m := examine(bytes.NewReader(image), int64(len(image)))
	if m.view == nil {
		t.Fatal(m.err)
	}
	return m.view.entries()
}

// step changes a book at random.
func step(t testing.TB, r *rand.Rand, c *Cache, n int) {
	now := start.Add(time.Duration(n) * 20 * time.Minute)
	k := contact(r.IntN(9))
	var err error
	switch r.IntN(6) {
	case 0:
		_, err = c.Remove(k.Peer)
	case 1:
		_, err = c.Failed(now, k.Peer)
	default:
		k.Record = fmt.Appendf(nil, "%0*d", 1+r.IntN(MaxRecord), n)
		err = c.Reached(now, k)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A process may die after any number of bytes of a write, and the words of a copy
// need not be written in order. What is read then is what there was before, or
// after, and the book can be used as ever.
func TestATornWriteIsNoWriteAtAll(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const peers = 4
	image := newImage(header{count: peers}, nil)
	torn := 0
	for n := range 60 {
		c, tp := onTape(image, peers)
		before := contents(t, image)
		step(t, r, c, n)
		writes := tp.writes
		if len(writes) > 1 {
			t.Fatalf("%d writes for one change", len(writes))
		}
		after := contents(t, tp.heap)
		for _, w := range writes {
			check := func(cut []byte) {
				torn++
				if got := contents(t, cut); !reflect.DeepEqual(got, before) && !reflect.DeepEqual(got, after) {
					t.Fatalf("step %d: got %v, want %v or %v", n, numbers(got), numbers(before), numbers(after))
				}
			}
			for size := range len(w.bytes) + 1 {
				cut := bytes.Clone(image)
				copy(cut[w.at:], w.bytes[:size])
				check(cut)
			}
			for range 200 {
				cut := bytes.Clone(image)
				for i := 0; i < len(w.bytes); i += 8 {
					if r.IntN(2) == 0 {
						copy(cut[w.at+i:w.at+i+8], w.bytes[i:])
					}
				}
				check(cut)
				if r.IntN(40) == 0 { // the next one who writes finds the torn copy
					again, _ := onTape(cut, peers)
					step(t, r, again, n)
					if got := contents(t, again.region.(*tape).heap); len(got) > peers {
						t.Fatal(numbers(got))
					}
				}
			}
		}
		image = tp.heap
		if r.IntN(3) == 0 && len(writes) > 0 { // go on with a torn one
			w := writes[0]
			copy(image[w.at+r.IntN(slotSize):w.at+slotSize], make([]byte, slotSize))
		}
	}
	t.Logf("%d torn files", torn)
}

// When the power fails, each sector that was written since the last flush may be on
// the disk as it was after any of the writes, and one may be lost while it is written.
// Each peer is then as it was at some time since that flush: not one that was there
// all the time is lost.
func TestAPowerCutCostsNothingThatWasFlushed(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	const peers = 5
	image := newImage(header{count: peers}, nil)
	cuts := 0
	for n := 0; n < 4000; {
		c, tp := onTape(image, peers)
		for range 1 + r.IntN(30) {
			n++
			if r.IntN(10) == 0 {
				c.synced = 0 // another process goes on, which knows of no flush
			}
			step(t, r, c, n)
		}
		states := [][]Entry{contents(t, tp.disk)}
		now := bytes.Clone(tp.disk)
		for _, w := range tp.writes {
			copy(now[w.at:], w.bytes)
			states = append(states, contents(t, now))
		}
		for range 30 {
			cuts++
			image = powerCut(r, tp)
			survived(t, states, contents(t, image))
		}
	}
	t.Logf("%d power cuts after %d writes", cuts, 4000)
}

// powerCut returns what a disk may hold.
func powerCut(r *rand.Rand, tp *tape) []byte {
	left := bytes.Clone(tp.disk)
	for s := 0; s < len(left); s += sector {
		applied := r.IntN(len(tp.writes) + 1)
		for _, w := range tp.writes[:applied] {
			if from, to := max(w.at, s), min(w.at+len(w.bytes), s+sector); from < to {
				copy(left[from:to], w.bytes[from-w.at:])
			}
		}
	}
	if len(tp.writes) > 0 && r.IntN(4) == 0 { // one that was being written is lost
		s := tp.writes[r.IntN(len(tp.writes))].at + sector*r.IntN(slotSize/sector)
		for i := range sector {
			left[s+i] = byte(r.IntN(256))
		}
	}
	return left
}

// survived fails unless each peer is as it was in one of some states.
func survived(t testing.TB, states [][]Entry, got []Entry) {
	t.Helper()
	of := func(state []Entry, e Entry) *Entry {
		for i := range state {
			if state[i].Peer == e.Peer {
				return &state[i]
			}
		}
		return nil
	}
	for _, e := range got {
		known := false
		for _, s := range states {
			was := of(s, e)
			known = known || was != nil && reflect.DeepEqual(*was, e)
		}
		if !known {
			t.Fatalf("peer %d is as it never was", number(e.Peer))
		}
	}
	for _, e := range states[0] {
		always := true
		for _, s := range states {
			always = always && of(s, e) != nil
		}
		if always && of(got, e) == nil {
			t.Fatalf("peer %d is lost", number(e.Peer))
		}
	}
}

// The power cut test notices it when writes are not ordered.
func TestAPowerCutWouldCostWithoutFlushes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	c, tp := onTape(newImage(header{count: 1}, []Entry{{Peer: id(1), Endpoints: []Known{{at(1), start}}, Success: start}}), 1)
	for range 2 {
		c.synced = maxSeq // believe that all is on the disk
		reach(t, c, 1)
	}
	for range 1000 {
		if len(contents(t, powerCut(r, tp))) == 0 {
			return
		}
	}
	t.Fatal("a peer that was written twice without a flush always survived")
}

// A file that was cut off at any length still has every slot of which a whole copy
// is left, and nothing that never was.
func TestTruncationAtEveryLength(t *testing.T) {
	const peers = 3
	c, tp := onTape(newImage(header{count: peers}, nil), peers)
	r := rand.New(rand.NewPCG(9, 10))
	key := func(e *Entry) string { return string(appendSlot(nil, 1, e)) }
	history := map[string]bool{}
	for n := range 40 {
		step(t, r, c, n)
		for _, e := range contents(t, tp.heap) {
			history[key(&e)] = true
		}
	}
	whole := tp.heap
	h := header{count: peers}
	for n := range len(whole) {
		m := examine(bytes.NewReader(whole[:n]), int64(n))
		if n < headerSize {
			if m.view != nil {
				t.Fatalf("%d bytes were understood", n)
			}
			continue
		}
		if m.view == nil || m.whole() == nil {
			t.Fatalf("%d bytes: %v", n, m.err)
		}
		for _, e := range m.view.entries() {
			if !history[key(&e)] {
				t.Fatalf("%d bytes: peer %d is as it never was", n, number(e.Peer))
			}
		}
		for i := range peers {
			var newest uint64
			var of *Entry
			for which := range 2 {
				if at := h.at(i, which); at+slotSize <= n {
					if seq, e, err := parseSlot(whole[at : at+slotSize]); err == nil && seq > newest {
						newest, of = seq, e
					}
				}
			}
			if of != nil && m.view.find(of.Peer) == nil {
				t.Fatalf("%d bytes: slot %d is lost", n, i)
			}
		}
	}
}
