package gossip

import (
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// haveDelay and renewDelay are how long keys are held back, half more or less: of
	// news, which by then have come to most by another way, and of mere renewals.
	haveDelay  = 500 * time.Millisecond
	renewDelay = 2 * time.Second
	// wantPatience is after how long a wanted record is asked of another.
	wantPatience = 3 * time.Second
	// maxAsked bounds the records that are asked of one peer at once.
	maxAsked = 64
	// maxAlso bounds the others who are remembered to have a wanted record.
	maxAlso = 2
	// maxPushed and maxKeys bound what waits to be sent to a peer: records, and keys of
	// each kind. What is beyond is found by digests.
	maxPushed = 64
	maxKeys   = 512
	// reserve is the part of the budget for all peers that is kept for news and for what we
	// want: others' wants and digests do not use it up.
	reserve = TotalBurst / 4
	// leastRoom bytes of budget must be there before less than everything is sent.
	leastRoom = 1024
	// frameExtra is the most that a frame adds to its body.
	frameExtra = 3
	// refusedLife and maxRefused bound the memory of records not to be asked for.
	refusedLife = 10 * time.Minute
	maxRefused  = 4096
)

// bucket bounds a rate: tokens a second, and some at once.
type bucket struct {
	rate, burst int
	full        moment // when it is full again
}

func newBucket(rate, burst int) bucket { return bucket{rate: rate, burst: burst} }

// time returns how long n tokens take to come.
func (b *bucket) time(n int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(b.rate)
}

// left returns how many tokens are there.
func (b *bucket) left(at moment) int {
	missing := max(0, b.full-at)
	return b.burst - int((missing*time.Duration(b.rate)+time.Second-1)/time.Second)
}

// ready returns when n tokens are there.
func (b *bucket) ready(n int) moment { return b.full - b.time(b.burst-n) }

// take takes n tokens, and reports false when they are not there.
func (b *bucket) take(n int, at moment) bool {
	if b.left(at) < n {
		return false
	}
	b.full = max(b.full, at) + b.time(n)
	return true
}

// keyList holds keys in order, each once, up to maxKeys, and of each whether it is news.
type keyList struct {
	keys []wire.ContactKey
	news map[wire.ContactKey]bool
}

func (q *keyList) len() int { return len(q.keys) }

// add reports whether the key is in the list now.
func (q *keyList) add(k wire.ContactKey, news bool) bool {
	if had, ok := q.news[k]; ok {
		q.news[k] = had || news
		return true
	}
	if len(q.keys) >= maxKeys {
		return false
	}
	if q.news == nil {
		q.news = map[wire.ContactKey]bool{}
	}
	q.news[k] = news
	q.keys = append(q.keys, k)
	return true
}

func (q *keyList) drop(k wire.ContactKey) {
	if _, ok := q.news[k]; ok {
		delete(q.news, k)
		i := slices.Index(q.keys, k)
		q.keys = slices.Delete(q.keys, i, i+1)
	}
}

// pop takes the first key.
func (q *keyList) pop() (k wire.ContactKey, news bool) {
	k = q.keys[0]
	news = q.news[k]
	delete(q.news, k)
	if q.keys = q.keys[1:]; len(q.keys) == 0 {
		q.keys = nil
	}
	return k, news
}

// take takes up to n keys.
func (q *keyList) take(n int) (out []wire.ContactKey) {
	for len(out) < n && len(q.keys) > 0 {
		k, _ := q.pop()
		out = append(out, k)
	}
	return out
}

// link is a joined peer, and what is under way between the two.
type link struct {
	peer   Peer
	teller *teller
	gone   bool

	out, looks, ranges bucket

	pushes  []*record     // news for it, whole
	told    keyList       // news for it, by their keys
	toldAt  moment        // when they go
	haves   keyList       // what it lacks
	served  keyList       // what it wants
	asks    keyList       // what to ask of it
	asked   int           // what it was asked for and has not brought yet
	replies []wire.Gossip // ranges for it

	exchangeAt moment // when we compare digests with it
	interval   time.Duration
	gained     int // records that came of catching up, since the last exchange

	clock      uint64 // what its clock showed
	clockAt    moment // when
	clockKnown bool
}

func newLink(p Peer, c Config, t *teller) *link {
	return &link{
		peer: p, teller: t, exchangeAt: never,
		out:    newBucket(c.PeerRate, PeerBurst),
		looks:  newBucket(TellerRate, TellerBurst),
		ranges: newBucket(rangesRate, rangesBurst),
	}
}

// mayHave reports whether a record may be told to the peer: what is on this machine alone
// is of no use elsewhere.
func (l *link) mayHave(r *record) bool { return !r.here || l.peer.Local }

// push queues a record that goes whole. It reports false when too many wait.
func (l *link) push(r *record) bool {
	if len(l.pushes) >= maxPushed {
		return false
	}
	l.knows(r.key)
	l.pushes = append(l.pushes, r)
	return true
}

// tell queues the key of news, which goes out at a moment at the latest.
func (l *link) tell(k wire.ContactKey, at moment) {
	if !l.peer.News || !l.told.add(k, true) {
		return
	}
	if l.told.len() == 1 || at < l.toldAt {
		l.toldAt = at
	}
}

// lacks queues the key of a record that the peer lacks.
func (l *link) lacks(k wire.ContactKey) {
	if l.peer.News {
		l.haves.add(k, false)
	}
}

// knows says that the peer has a record.
func (l *link) knows(k wire.ContactKey) {
	l.told.drop(k)
	l.haves.drop(k)
	l.pushes = slices.DeleteFunc(l.pushes, func(r *record) bool { return r.key == k })
}

// serve queues a record that the peer wants.
func (l *link) serve(k wire.ContactKey) { l.served.add(k, false) }

// want is a record that was asked for.
type want struct {
	from  *link
	until moment
	news  bool
	also  []*link // who has it, too
}

// timeout says when a want is over.
type timeout struct {
	key   wire.ContactKey
	until moment
}

// haveCame takes notice that a peer has a record.
func (m *Machine) haveCame(l *link, k wire.ContactKey, news bool) {
	l.knows(k)
	if m.cfg.Mode != On && k.Position != wire.KeyOf(m.cfg.Self, 0).Position {
		return
	}
	r := m.table.at(k.Position)
	switch {
	case r == nil && l.teller.full(&m.table): // we would not keep it
	case r == nil || r.key.Seq < k.Seq:
		m.ask(l, k, news)
	case r.key.Seq > k.Seq:
		m.announce(l, r)
	}
}

// announce tells a peer that is behind what we have.
func (m *Machine) announce(l *link, r *record) {
	if (m.cfg.Mode == On || r.key.Position == wire.KeyOf(m.cfg.Self, 0).Position) && l.mayHave(r) {
		l.lacks(r.key)
	}
}

// ask sees to it that a record is asked for, of that peer or another.
func (m *Machine) ask(l *link, k wire.ContactKey, news bool) {
	if m.asksInVain(l, k) {
		return
	}
	w := m.wanted[k]
	if w == nil {
		l.asks.add(k, news)
		return
	}
	w.news = w.news || news
	if w.from != l && len(w.also) < maxAlso && !slices.Contains(w.also, l) {
		w.also = append(w.also, l)
	}
}

// settle notes that a wanted record has come, and reports whether it was wanted as news.
func (m *Machine) settle(k wire.ContactKey) (news bool) {
	w := m.wanted[k]
	if w == nil {
		return false
	}
	w.from.asked--
	delete(m.wanted, k)
	return w.news
}

// expireWants gives up on peers that have not brought what they were asked for.
func (m *Machine) expireWants(at moment) {
	for len(m.timeouts) > 0 && m.timeouts[0].until <= at {
		t := m.timeouts[0]
		m.timeouts = m.timeouts[1:]
		if w := m.wanted[t.key]; w != nil && w.until == t.until {
			m.askNext(t.key, w)
		}
	}
	if len(m.timeouts) > 0 {
		m.wake(m.timeouts[0].until)
	}
}

// askNext asks others for what one has not brought.
func (m *Machine) askNext(k wire.ContactKey, w *want) {
	m.settle(k)
	for _, other := range w.also {
		if !other.gone {
			other.asks.add(k, w.news) // the second is asked only if the first does not bring it
		}
	}
}

// mayAsk reports whether something may be asked of a peer now.
func (m *Machine) mayAsk(l *link, at moment) bool {
	return l.asks.len() > 0 && l.asked < maxAsked && m.verify.left(at) > len(m.wanted)
}

// nextAsks takes the keys that may be asked of a peer now.
func (m *Machine) nextAsks(l *link, most int, at moment) (keys []wire.ContactKey) {
	for len(keys) < most && m.mayAsk(l, at) {
		k, news := l.asks.pop()
		if m.wanted[k] != nil {
			m.ask(l, k, news)
			continue
		}
		if r := m.table.at(k.Position); r != nil && r.key.Seq >= k.Seq || m.asksInVain(l, k) {
			continue
		}
		w := &want{from: l, until: at + wantPatience, news: news}
		m.wanted[k] = w
		m.timeouts = append(m.timeouts, timeout{k, w.until})
		l.asked++
		keys = append(keys, k)
	}
	return keys
}

// flush sends to a peer what its budget and that of all allow.
func (m *Machine) flush(l *link, at moment) {
	for {
		kind, need := m.waiting(l, at)
		if kind == 0 {
			return
		}
		kept := reserve
		if kind == wire.GossipNews || kind == wire.GossipWant {
			kept = 0
		}
		need += frameExtra
		room := min(l.out.left(at), m.out.left(at)-kept)
		if room < need {
			m.wake(max(l.out.ready(need), m.out.ready(need+kept)))
			return
		}
		g := m.compose(l, kind, min(room-frameExtra, wire.MaxGossip), at)
		if len(g.Contacts)+len(g.Keys)+len(g.Ranges) == 0 {
			continue // what waited has become void
		}
		frame := g.Append(nil)
		l.out.take(len(frame), at)
		m.out.take(len(frame), at)
		m.stats.Messages++
		m.stats.Bytes += uint64(len(frame))
		m.messages = append(m.messages, Message{l.peer.ID, frame})
	}
}

// waiting returns of which kind the next message for a peer is, 0 for none, and how
// many bytes there must be room for.
func (m *Machine) waiting(l *link, at moment) (kind wire.GossipKind, need int) {
	keys := func(n int) int { return min(1+n*wire.GossipKeySize, leastRoom) }
	switch {
	case len(l.pushes) > 0:
		size := 1
		for _, r := range l.pushes {
			size += wire.GossipContactExtra + len(r.raw)
		}
		return wire.GossipNews, min(size, leastRoom)
	case m.mayAsk(l, at):
		return wire.GossipWant, keys(min(l.asks.len(), maxAsked-l.asked))
	case l.told.len() > 0 && l.toldAt <= at:
		return wire.GossipNewKeys, keys(l.told.len())
	case len(l.replies) > 0:
		size := wire.GossipRangesFixed
		for _, r := range l.replies[0].Ranges {
			size += r.Size()
		}
		return wire.GossipRanges, size
	case l.haves.len() > 0:
		return wire.GossipHave, keys(l.haves.len())
	case l.served.len() > 0:
		return wire.GossipContacts, leastRoom // what it is comes out when it is composed
	}
	if l.told.len() > 0 {
		m.wake(l.toldAt)
	}
	if l.asks.len() > 0 && l.asked < maxAsked {
		m.wake(m.verify.ready(min(len(m.wanted)+1, VerifyBurst)))
	}
	return 0, 0
}

// compose makes the next message for a peer, of the kind that waiting has found. It
// takes at least something from what waits.
func (m *Machine) compose(l *link, kind wire.GossipKind, room int, at moment) wire.Gossip {
	g := wire.Gossip{Kind: kind}
	keys := (room - 1) / wire.GossipKeySize
	fits := func(r *record) bool {
		if room -= wire.GossipContactExtra + len(r.raw); room < 1 {
			return false
		}
		g.Contacts = append(g.Contacts, r.raw)
		return true
	}
	switch kind {
	case wire.GossipNews:
		for len(l.pushes) > 0 && fits(l.pushes[0]) {
			l.pushes = l.pushes[1:]
		}
	case wire.GossipWant:
		g.Keys = m.nextAsks(l, keys, at)
	case wire.GossipNewKeys:
		g.Keys = l.told.take(keys)
	case wire.GossipHave:
		g.Keys = l.haves.take(keys)
	case wire.GossipRanges:
		g = l.replies[0]
		l.replies = l.replies[1:]
		g.Clock = m.millis()
	case wire.GossipContacts:
		for l.served.len() > 0 {
			k := l.served.keys[0]
			if r := m.table.at(k.Position); r != nil && r.key.Seq >= k.Seq && l.mayHave(r) && !fits(r) {
				break
			}
			l.served.pop()
		}
	}
	return g
}
