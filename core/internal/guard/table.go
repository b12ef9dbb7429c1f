package guard

import (
	"container/list"
	"time"
)

// table is a bounded table of accounts.
type table[K comparable] struct {
	most int
	tier tier
	of   map[K]*list.Element
	ages list.List // of *row[K], the one that was used last in front
}

type row[K comparable] struct {
	key K
	account
}

func (t *table[K]) init(most int, of tier) {
	t.most, t.tier, t.of = most, of, make(map[K]*list.Element)
}

// get returns an account, a new one when there is none.
func (t *table[K]) get(key K, now time.Time) *account {
	if e := t.of[key]; e != nil {
		t.ages.MoveToFront(e)
		return &e.Value.(*row[K]).account
	}
	if len(t.of) >= t.most {
		t.evict(now)
	}
	r := &row[K]{key: key, account: account{tier: t.tier, opened: now, at: now}}
	t.of[key] = t.ages.PushFront(r)
	return &r.account
}

// evict takes an account out: of the oldest few the one that has least in it. So a
// flood of new ones, of which each has next to nothing, turns out itself.
func (t *table[K]) evict(now time.Time) {
	var worst *list.Element
	least := 0.0
	e := t.ages.Back()
	for range evictLook {
		if e == nil {
			break
		}
		prev := e.Prev()
		a := &e.Value.(*row[K]).account
		a.settle(now)
		if w := a.weight(now); worst == nil || w < least {
			worst, least = e, w
		}
		e = prev
	}
	for e := t.ages.Back(); e != nil && e != worst; { // the others get another turn
		prev := e.Prev()
		t.ages.MoveToFront(e)
		e = prev
	}
	delete(t.of, worst.Value.(*row[K]).key)
	t.ages.Remove(worst)
}

// weight is how near an account is to its brims, and more for who is trusted.
func (a *account) weight(now time.Time) float64 {
	w := a.use / mostUse
	if a.trusts(now) {
		w++
	}
	for i := range a.buckets {
		b := &a.buckets[i]
		w = max(w, b.level/(brims[b.kind].brim*a.tier.factor(b.kind)))
	}
	return w
}
