package bootstrap

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
)

// oracle is a book as one would write it down on paper: most recent first.
type oracle struct {
	room int
	list []noted
	now  time.Time
	told int // how many successes there were
}

type noted struct {
	peer     int
	failures int
	failed   time.Time
	told     int // successes of anybody before the last failure that counted
	order    int // which success of all the last one was
}

func (o *oracle) find(n int) int {
	return slices.IndexFunc(o.list, func(e noted) bool { return e.peer == n })
}

func (o *oracle) reached(n int) {
	o.told++
	if i := o.find(n); i >= 0 {
		o.list = slices.Delete(o.list, i, i+1)
	} else if len(o.list) == o.room {
		last := len(o.list) - 1
		for i := range o.list { // the last one that fails goes before the last one
			if o.list[i].failures >= 3 {
				last = i
			}
		}
		o.list = slices.Delete(o.list, last, last+1)
	}
	o.list = slices.Insert(o.list, 0, noted{peer: n, order: o.told})
}

func (o *oracle) fails(n int) (removed bool) {
	i := o.find(n)
	if i < 0 {
		return false
	}
	e := &o.list[i]
	pauses := []time.Duration{0, 15, 30, 60, 120, 240, 480, 960, 1440, 1440} // minutes
	if e.failures > 0 && (o.list[0].order <= e.told || o.now.Before(e.failed.Add(pauses[e.failures]*time.Minute))) {
		return false
	}
	if e.failures++; e.failures == 10 {
		o.list = slices.Delete(o.list, i, i+1)
		return true
	}
	e.failed, e.told = o.now, o.told
	return false
}

func (o *oracle) peers() (list []int) {
	for _, e := range o.list {
		list = append(list, e.peer)
	}
	return list
}

// Whatever happens, the book holds what the rules say, in their order.
func TestTheRulesHold(t *testing.T) {
	removed, evicted := 0, 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 11))
		room := 1 + r.IntN(12)
		c, _ := onTape(newImage(header{count: room}, nil), room)
		o := &oracle{room: room, now: start}
		for n := range 1500 {
			o.now = o.now.Add(time.Duration(r.IntN(300)) * time.Minute)
			peer := r.IntN(room + 4)
			switch k := r.IntN(20); {
			case k == 0:
				if _, err := c.Remove(id(peer)); err != nil {
					t.Fatal(err)
				}
				o.list = slices.DeleteFunc(o.list, func(e noted) bool { return e.peer == peer })
			case k < 2+int(seed%10):
				if len(o.list) == room && o.find(peer) < 0 {
					evicted++
				}
				if err := c.Reached(o.now, contact(peer)); err != nil {
					t.Fatal(err)
				}
				o.reached(peer)
			default:
				got, err := c.Failed(o.now, id(peer))
				if wanted := o.fails(peer); err != nil || got != wanted {
					t.Fatalf("seed %d, step %d: removed %v, want %v, %v", seed, n, got, wanted, err)
				}
				if got {
					removed++
				}
			}
			want(t, "book", peers(t, c), o.peers())
			if k := c.view; n%100 == 0 {
				for _, e := range k.entries() {
					if e.Failures != o.list[o.find(number(e.Peer))].failures {
						t.Fatalf("seed %d, step %d: %d failures", seed, n, e.Failures)
					}
				}
			}
		}
	}
	if removed < 10 || evicted < 1000 {
		t.Errorf("%d removed, %d evicted: little was tried", removed, evicted)
	}
}

// A machine without a network, started every hour for a month, keeps its book.
func TestWithoutANetworkTheBookDoesNotWearOut(t *testing.T) {
	c, _ := onTape(newImage(header{count: 5}, nil), 5)
	reach(t, c, 1, 2, 3)
	for h := range 24 * 30 {
		for n := 1; n <= 3; n++ {
			if removed, err := c.Failed(start.Add(time.Duration(h)*time.Hour), id(n)); removed || err != nil {
				t.Fatal(h, removed, err)
			}
		}
	}
	list, _ := c.List()
	for _, e := range list {
		if e.Failures != 1 {
			t.Fatalf("%d failures count", e.Failures)
		}
	}
	want(t, "book", numbers(list), []int{3, 2, 1})
}

// A peer that is gone for good is tested less and less, and then removed: after 79 h
// and 45 min, when another one answers.
func TestAPeerThatIsGoneIsTestedAndRemoved(t *testing.T) {
	c, _ := onTape(newImage(header{count: 5}, nil), 5)
	reach(t, c, 1)
	began := start.Add(DefaultRetestAfter)
	tests := 0
	for m := 0; ; m += 5 {
		now := start.Add(time.Duration(m) * time.Minute)
		if err := c.Reached(now, contact(2)); err != nil {
			t.Fatal(err)
		}
		due, err := c.Due(now, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(due) == 0 {
			continue
		}
		want(t, "due", numbers(due), []int{1})
		tests++
		removed, err := c.Failed(now, id(1))
		if err != nil {
			t.Fatal(err)
		}
		if !removed {
			continue
		}
		if took := now.Sub(began); tests != MaxFailures || took != 79*time.Hour+45*time.Minute {
			t.Fatalf("removed after %d tests, %v", tests, took)
		}
		break
	}
}

func TestDueIsTheLongestUntriedFirst(t *testing.T) {
	c, _ := onTape(newImage(header{count: 9}, nil), 9)
	for n := range 6 {
		if err := c.Reached(start.Add(time.Duration(n)*time.Hour), contact(n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Failed(start.Add(10*time.Hour), id(0)); err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct {
		hours, n int
		want     []int
	}{{23, 9, nil}, {24, 9, []int{0}}, {27, 9, []int{1, 2, 3, 0}}, {27, 2, []int{1, 2}}, {27, -1, nil}, {400, 9, []int{1, 2, 3, 4, 5, 0}}} {
		got, err := c.Due(start.Add(time.Duration(at.hours)*time.Hour), at.n)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "due", numbers(got), at.want)
	}
}

// A clock that was wrong for a while makes nobody immortal, and changes no order.
func TestAWrongClock(t *testing.T) {
	c, _ := onTape(newImage(header{count: 3}, nil), 3)
	future := start.Add(20 * 365 * 24 * time.Hour)
	if err := c.Reached(future, contact(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Failed(future, id(1)); err != nil {
		t.Fatal(err)
	}
	reach(t, c, 2)
	want(t, "order", peers(t, c), []int{2, 1})
	due, err := c.Due(start, 9)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "due", numbers(due), []int{1})
	if _, err := c.Failed(start, id(1)); err != nil {
		t.Fatal(err)
	}
	list, _ := c.List()
	if e := list[1]; e.Failures != 2 || !e.Failure.Equal(start) {
		t.Fatalf("%+v", e)
	}
	gone, err := c.Prune(start, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "pruned", numbers(gone), []int{1})
}

func TestPauses(t *testing.T) {
	sum := time.Duration(0)
	for n := 1; n < MaxFailures; n++ {
		sum += pause(n)
	}
	if sum != 79*time.Hour+45*time.Minute || pause(1<<20) != lastPause {
		t.Fatal(sum)
	}
	for _, e := range []Entry{{}, {Peer: identity.PeerID{1}}} {
		if !e.due(start, 0) {
			t.Fatal("a peer of long ago is not due")
		}
	}
}
