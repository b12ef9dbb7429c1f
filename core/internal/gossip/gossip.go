// Package gossip decides which contact records to tell whom, so that every node of
// an overlay gets to know every other one over the sessions that there are, and
// forgets those that have departed.
//
// A Machine is one node. It is pure: it knows no sockets, no clock and no lock. Its
// owner tells it what happens and when, by a clock that never goes back, as time.Now
// is, calls Tick after that and when it asks for it, and sends what Tick returns:
//
//	                     ┌──────────────────── Machine ────────────────────┐
//	Own, Depart ────────▶│ own record: made, made anew before it ends      │
//	Join, Leave ────────▶│ links: what each peer is to be told, asked,     │
//	                     │        and how many bytes of that are in budget │
//	Receive(now, peer, ─▶│ table: the newest record of each peer, within   │──▶ Lookup, Known, Pick
//	        body)        │        bounds by prefix, by teller, altogether  │
//	Tick(now) ──────────▶└─────────────────────────────────────────────────┘
//	   └──▶ Messages to peers, Facts (discovered, updated, forgotten), when to Tick again
//
// # How records travel
//
//	news      a record that says something new goes whole to Fanout peers at random, and
//	          its key (14 bytes) a moment later to the others, which ask for it (want) if
//	          they lack it; each of them does the same. A record that only lives
//	          longer than the one before goes by its key alone.
//	digests   now and then two peers compare what they have: sums over ranges of the table,
//	          which are split where they differ, down to lists of keys, and then each asks
//	          for what it lacks. So nodes catch up that have come late, lost a message
//	          or were cut off. What came this way is no news: who has caught up with
//	          much compares digests with its other peers soon.
//
//	   A ──ranges: one sum over all──▶ B    equal: nothing more is said
//	   A ◀──16 sums──────────────────  B    of the ranges that differ ...
//	   A ──keys of a range───────────▶ B    ... until few enough are left
//	   A ◀──want, have───────────────  B
//	   A ──contacts──────────────────▶ B
//
// A node makes its own record anew when half of its life is over, and lives are the
// longer the more nodes it knows: so an overlay of any size makes about one record
// a second, and that is what bounds the bytes of an idle node.
//
// # What hostile peers can do
//
// Anybody can make identities, sign records and put any addresses into them. So
// everything that a peer can bring is bounded: records of one address prefix, records
// that one teller brought, versions of one record in a time, signatures
// to be checked in a second, bytes to be sent. A record is refused by the cheapest
// test that fails, its signature is looked at last, and only what passed all is told on.
// A full table lets a new record in only by turning one out that is from a place at least
// as crowded and from a teller that has brought more. Records of connected peers are never
// turned out. See Config for the bounds.
//
// What this does not hold off: addresses are what the record says, until somebody
// dials them. Who has sessions with many nodes and invents peers all over the
// Internet fills their tables, and keeps others out of them; who was in before stays in.
package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Mode says what a Machine does of its own accord.
type Mode uint8

const (
	// On learns records, tells them on and compares digests.
	On Mode = iota
	// Answer tells its own record to peers that ask, begins nothing, and keeps
	// and tells nothing of others.
	Answer
	// Off takes no part: every input is ignored.
	Off
)

// String returns "on", "answer" or "off".
func (m Mode) String() string { return [...]string{"on", "answer", "off"}[min(m, Off)] }

// Flags returns the bits of a hello's flags that tell peers of the mode.
func (m Mode) Flags() uint8 {
	return [...]uint8{wire.FlagGossip | wire.FlagNews, wire.FlagGossip, 0}[min(m, Off)]
}

// Defaults of Config, and what is not configured.
const (
	// DefaultMaxKnown records take some 8 MiB.
	DefaultMaxKnown = 16384
	// DefaultPeerRate and DefaultTotalRate are bytes a second, frames and all, that go
	// to one peer and to all. Unused, they add up to PeerBurst and TotalBurst at most.
	DefaultPeerRate  = 8 << 10
	DefaultTotalRate = 64 << 10
	PeerBurst        = 8 << 10
	TotalBurst       = 256 << 10
	// Fanout is to how many peers news goes whole.
	Fanout = 3
	// VerifyRate and VerifyBurst bound the signatures checked in a second and at once;
	// TellerRate and TellerBurst the records of one peer for which a place is looked for.
	VerifyRate  = 200
	VerifyBurst = 1000
	TellerRate  = 50
	TellerBurst = 300
)

// Config is what a Machine is made of. Zero fields mean the defaults.
type Config struct {
	// Self is our peer id, and Sign signs as it. Both are needed, but for Off.
	Self identity.PeerID
	Sign func(message []byte) []byte
	// Verify reports whether raw is signed by the peer of c. Nil means c.Signed(raw).
	Verify func(c wire.Contact, raw []byte) bool
	Mode   Mode
	// Shun reports whether a record is neither kept nor told. Nil means that none is.
	Shun func(c wire.Contact) bool
	// Seed must be random: others must not foresee whom news goes to.
	Seed [32]byte
	// MaxKnown bounds the records that are kept, at least 16. The other bounds of the
	// table follow from it: of one /24 (IPv6 /48) a 64th and of one /16 (IPv6 /32) a 16th,
	// four times that of addresses that are not global; a quarter from one teller; an
	// eighth of departed peers.
	MaxKnown int
	// PeerRate and TotalRate bound what is sent, in bytes a second, at least 512.
	PeerRate, TotalRate int
}

func (c Config) filled() Config {
	fill := func(v *int, standard, least int) {
		if *v <= 0 {
			*v = standard
		}
		*v = max(*v, least)
	}
	fill(&c.MaxKnown, DefaultMaxKnown, 16)
	fill(&c.PeerRate, DefaultPeerRate, 512)
	fill(&c.TotalRate, DefaultTotalRate, 512)
	if c.Verify == nil {
		c.Verify = wire.Contact.Signed
	}
	return c
}

// Peer is a peer with which there is a session.
type Peer struct {
	ID identity.PeerID
	// News says that it takes records of others, by wire.FlagNews of its hello. One
	// without is asked for what it has, and told nothing.
	News bool
	// Outbound says that we dialled it. Only those are asked for the time.
	Outbound bool
	// Local says that it is on this machine. Records with loopback endpoints are told to,
	// and taken of, none but those.
	Local bool
}

// Message is a frame for a peer, as it goes into Session.SendControl. It may be lost.
type Message struct {
	To    identity.PeerID
	Frame []byte
}

// FactKind says what happened to what is known of a peer.
type FactKind uint8

const (
	Discovered FactKind = 1 // its record is the first that we have
	Updated    FactKind = 2 // its endpoints, role or flags are others than before
	Forgotten  FactKind = 3 // it has departed, its record has ended or was turned out
)

// Fact is something that a program may want to know.
type Fact struct {
	Kind FactKind
	// Contact is the peer's record: when it is forgotten the last one that had
	// endpoints. Raw are its bytes, which must not be changed.
	Contact wire.Contact
	Raw     []byte
	// By is the peer that told it; zero when a record ended.
	By identity.PeerID
	// Departed says of a forgotten peer that it said so itself.
	Departed bool
}

// Stats counts since New.
type Stats struct {
	Messages, Bytes uint64 // sent
	Received        uint64 // bytes of bodies
	Contacts        uint64 // records that came
	Taken           uint64 // of those, new and kept
	Known           uint64 // of those, known already, or older
	Expired         uint64 // refused: their end has passed or is too far ahead
	Early           uint64 // refused: another version too soon
	Crowded         uint64 // refused: a bound of the table
	Unchecked       uint64 // refused: too many signatures to check
	Forged          uint64 // refused: the signature is not the peer's
	Astray          uint64 // refused: loopback endpoints, from elsewhere
	Shunned         uint64 // refused: Config.Shun
	Checked         uint64 // signatures checked
	Displaced       uint64 // turned out for others
}

// maxFacts bounds the facts that wait for Tick. Beyond that records are not taken.
const maxFacts = 4096

// ErrForged is returned for a record that is not signed by its peer: who tells such
// a one on has not checked it, as everybody must.
var ErrForged = errors.New("gossip: a contact record that is not signed by its peer")

// Machine is one node. It is not safe for use by several goroutines.
type Machine struct {
	cfg   Config
	rand  *rand.Rand
	base  time.Time // moments are counted from here
	table table
	own   own
	links map[identity.PeerID]*link
	order []*link // by peer id

	wanted   map[wire.ContactKey]*want
	timeouts []timeout // of wanted, in order
	refused  map[wire.ContactKey]refusal
	cleared  moment // when refused was emptied

	out, verify, displace bucket

	clock  uint64        // what ours shows, in milliseconds since 1970
	offset time.Duration // to be added to it
	last   moment        // when it showed that

	messages []Message
	facts    []Fact
	next     moment // the soonest deadline found by this Tick
	turn     int    // which link is served first
	stats    Stats
	seed     maphash.Seed
	// read makes a record of bytes, which it copies. Simulations share records.
	read func(raw []byte) (*record, error)
}

// moment is a time as what has passed since the machine was made, by the
// monotonic clock: our own clock may jump.
type moment = time.Duration

// never is later than any moment.
const never moment = 1<<63 - 1

// New returns a machine without peers at the time now.
func New(c Config, now time.Time) *Machine {
	c = c.filled()
	return &Machine{
		cfg: c, base: now, rand: rand.New(rand.NewChaCha8(c.Seed)), clock: uint64(max(0, now.UnixMilli())),
		table:    newTable(c.MaxKnown),
		links:    map[identity.PeerID]*link{},
		wanted:   map[wire.ContactKey]*want{},
		refused:  map[wire.ContactKey]refusal{},
		out:      newBucket(c.TotalRate, TotalBurst),
		verify:   newBucket(VerifyRate, VerifyBurst),
		displace: newBucket(displaceRate, displaceRate),
		read:     readRecord, seed: maphash.MakeSeed(),
	}
}

// enter begins an input: it returns the moment, and reads the clock. When that has
// jumped, the peers' clocks are compared with it anew.
func (m *Machine) enter(now time.Time) moment {
	at, clock := max(now.Sub(m.base), m.last), uint64(max(0, now.UnixMilli()))
	jump := time.Duration(int64(clock)-int64(m.clock))*time.Millisecond - (at - m.last)
	m.clock, m.last = clock, at
	if jump.Abs() > clockSkew/2 {
		m.compareClocks()
	}
	return at
}

// millis returns the time in milliseconds since 1970, by our clock or, where that
// is far from most of those of the peers that we dialled, by theirs.
func (m *Machine) millis() uint64 {
	return uint64(max(1, int64(m.clock)+m.offset.Milliseconds()))
}

// between returns a random duration from low to high.
func (m *Machine) between(low, high time.Duration) time.Duration {
	return low + time.Duration(m.rand.Int64N(int64(high-low)+1))
}

// Join tells that there is a session with a peer that takes part, by
// wire.FlagGossip of its hello. A second Join of a peer does as Leave and Join.
func (m *Machine) Join(now time.Time, p Peer) {
	if m.cfg.Mode == Off || p.ID == m.cfg.Self || p.ID.IsZero() {
		return
	}
	m.Leave(now, p.ID)
	at := m.enter(now)
	l := newLink(p, m.cfg, m.table.account(p.ID))
	l.teller.linked = true
	m.links[p.ID] = l
	i, _ := slices.BinarySearchFunc(m.order, l, compareLinks)
	m.order = slices.Insert(m.order, i, l)
	if m.cfg.Mode == On {
		l.exchangeAt = at + m.between(exchangeFirst/10, exchangeFirst)
		if r := m.own.record; r != nil && p.News && l.mayHave(r) {
			l.push(r)
		}
	}
}

// Leave tells that the session with a peer is over. What it told is kept.
func (m *Machine) Leave(now time.Time, id identity.PeerID) {
	l := m.links[id]
	if l == nil {
		return
	}
	delete(m.links, id)
	i, _ := slices.BinarySearchFunc(m.order, l, compareLinks)
	m.order = slices.Delete(m.order, i, i+1)
	l.teller.linked = false
	m.table.release(l.teller)
	l.gone = true
	for _, t := range m.timeouts { // what was asked of it is asked of others
		if w := m.wanted[t.key]; w != nil && w.from == l && w.until == t.until {
			m.askNext(t.key, w)
		}
	}
}

func compareLinks(a, b *link) int { return a.peer.ID.Compare(b.peer.ID) }

// Receive takes the body of a FrameGossip from a peer, and keeps nothing of it. An error
// says that the peer broke the protocol, so that the session has to end. Bodies of peers
// that have not joined are ignored.
func (m *Machine) Receive(now time.Time, from identity.PeerID, body []byte) error {
	l := m.links[from]
	if l == nil {
		return nil
	}
	g, err := wire.ParseGossip(body)
	if err != nil {
		return err
	}
	at := m.enter(now)
	m.stats.Received += uint64(len(body))
	switch g.Kind {
	case wire.GossipNews, wire.GossipContacts:
		for _, raw := range g.Contacts {
			if err := m.contactCame(l, raw, g.Kind == wire.GossipNews, at); err != nil {
				return err
			}
		}
	case wire.GossipNewKeys, wire.GossipHave:
		for _, k := range g.Keys {
			m.haveCame(l, k, g.Kind == wire.GossipNewKeys)
		}
	case wire.GossipWant:
		for _, k := range g.Keys {
			l.serve(k)
		}
	case wire.GossipRanges:
		m.rangesCame(l, g, at)
	}
	return nil
}

// contactCame takes a record, if it is worth it.
func (m *Machine) contactCame(l *link, raw []byte, news bool, at moment) error {
	m.stats.Contacts++
	if len(raw) > 0 && raw[0] != wire.ContactVersion {
		return nil // a later version's
	}
	peer, seq, err := wire.ContactHead(raw)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	key := wire.KeyOf(peer, seq)
	news = m.settle(key) || news || peer == l.peer.ID
	l.knows(key)
	if peer == m.cfg.Self {
		return m.ownCame(l, raw, seq, at)
	}
	if no, ok := m.refused[key]; m.cfg.Mode != On || len(m.facts) >= maxFacts || ok && no.sum == maphash.Bytes(m.seed, raw) {
		return nil
	}
	old := m.table.find(peer)
	if old != nil && old.record.key.Seq >= seq {
		m.stats.Known++
		if old.record.key.Seq > seq {
			m.announce(l, old.record)
		}
		return nil
	}
	r, err := m.read(raw)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	switch {
	case r.here && !l.peer.Local:
		m.stats.Astray++
		m.refuse(r, l, at)
		return nil
	case m.cfg.Shun != nil && m.cfg.Shun(r.contact):
		m.stats.Shunned++
		m.refuse(r, l, at)
		return nil
	case r.contact.Current(m.millis()) != nil:
		m.stats.Expired++
		m.refuse(r, l, at)
		return nil
	case old != nil && !old.mayChange(r, at):
		m.stats.Early++
		return nil
	case !l.looks.take(1, at):
		m.stats.Unchecked++
		return nil
	}
	place, ok := m.table.admit(r, old, l.teller, func(id identity.PeerID) bool { return id == m.cfg.Self || m.links[id] != nil })
	if ok && place.displaces() {
		ok = m.displace.take(1, at)
	}
	if !ok {
		m.stats.Crowded++
		if old != nil || !l.teller.full(&m.table) {
			m.refuse(r, l, at)
		}
		return nil
	}
	if sound, err := m.check(r, at); !sound {
		return err
	}
	m.take(l, r, old, place, news, at)
	return nil
}

// check looks at the signature, if there is budget for that.
func (m *Machine) check(r *record, at moment) (bool, error) {
	if !m.verify.take(1, at) {
		m.stats.Unchecked++
		return false, nil
	}
	m.stats.Checked++
	if !m.cfg.Verify(r.contact, r.raw) {
		m.stats.Forged++
		return false, ErrForged
	}
	return true, nil
}

// take keeps a record that has passed all tests, and tells of it.
func (m *Machine) take(l *link, r *record, old *entry, place place, news bool, at moment) {
	m.stats.Taken++
	var before *record
	if old != nil {
		before = old.record
	}
	m.turnOut(place, at)
	m.table.put(r, l.teller, at, m.ends(r, at))
	m.tellFact(before, r, l.peer.ID)
	switch {
	case !news:
		m.caughtUp(l, r, at)
	case before == nil || !sameContent(before.contact, r.contact):
		m.spread(l, r, Fanout, haveDelay, at)
	default:
		m.spread(l, r, 0, renewDelay, at)
	}
}

// turnOut makes room.
func (m *Machine) turnOut(p place, at moment) {
	for _, victim := range p.victims {
		m.stats.Displaced++
		if !victim.contact.Departed() {
			m.fact(Fact{Kind: Forgotten, Contact: victim.contact, Raw: victim.raw})
		}
		m.refuse(victim, nil, at) // or it would be asked for at once
		m.table.remove(victim.contact.Peer)
	}
}

// tellFact says what a new record means.
func (m *Machine) tellFact(before, r *record, by identity.PeerID) {
	wasThere := before != nil && !before.contact.Departed()
	switch {
	case r.contact.Departed() && wasThere:
		m.fact(Fact{Kind: Forgotten, Contact: before.contact, Raw: before.raw, By: by, Departed: true})
	case r.contact.Departed():
	case !wasThere:
		m.fact(Fact{Kind: Discovered, Contact: r.contact, Raw: r.raw, By: by})
	case !sameContent(before.contact, r.contact):
		m.fact(Fact{Kind: Updated, Contact: r.contact, Raw: r.raw, By: by})
	}
}

func (m *Machine) fact(f Fact) { m.facts = append(m.facts, f) }

// ends returns the moment at which a record ends.
func (m *Machine) ends(r *record, at moment) moment {
	return at + time.Duration(int64(r.contact.Expires())-int64(m.millis()))*time.Millisecond
}

// sameContent reports whether two records of a peer differ in nothing but when they
// were made and when they end.
func sameContent(a, b wire.Contact) bool {
	return a.Role == b.Role && a.Flags == b.Flags && a.Unknown == b.Unknown && slices.Equal(a.Endpoints, b.Endpoints)
}

// caughtUp notes that l has brought something that is no news. Others may be behind
// as we were: they are told of a few such records as of news; when there are more,
// digests are compared with them.
func (m *Machine) caughtUp(l *link, r *record, at moment) {
	if l.gained++; l.gained <= fewGained {
		m.spread(l, r, 0, renewDelay, at)
		return
	}
	for _, other := range m.order {
		if other != l {
			other.soon(at + m.between(exchangeAgain/2, exchangeAgain*3/2))
		}
	}
}

// spread tells news on that l has brought: whole to some, by its key to others after a
// delay, half more or less.
func (m *Machine) spread(l *link, r *record, whole int, delay time.Duration, at moment) {
	for _, i := range m.rand.Perm(len(m.order)) {
		switch other := m.order[i]; {
		case other == l || !other.peer.News || !other.mayHave(r):
		case whole > 0 && other.push(r):
			whole--
		default:
			other.tell(r.key, at+m.between(delay/2, delay*3/2))
		}
	}
}

// refusal is a record that is not to be looked at, nor asked for, for a while. Nobody has
// checked its signature unless by is nil: so others may have another one of the same key.
type refusal struct {
	sum uint64
	by  *link // who brought it: not to be asked again; nil: nobody is
}

// refuse remembers a record that was refused, and who brought it.
func (m *Machine) refuse(r *record, by *link, at moment) {
	if at-m.cleared > refusedLife || len(m.refused) >= maxRefused {
		clear(m.refused)
		m.cleared = at
	}
	m.refused[r.key] = refusal{maphash.Bytes(m.seed, r.raw), by}
}

// asksInVain reports whether a record that was refused would come of asking a peer.
func (m *Machine) asksInVain(l *link, k wire.ContactKey) bool {
	no, ok := m.refused[k]
	return ok && (no.by == nil || no.by == l)
}

// Tick does what is due and returns what there is to send, what has happened since
// the last Tick, and when to call it again at the latest. It is to be called after every
// other input, too. The slices are valid until the next call.
func (m *Machine) Tick(now time.Time) (out []Message, facts []Fact, next time.Time) {
	if m.cfg.Mode == Off {
		return nil, nil, time.Time{}
	}
	at := m.enter(now)
	m.messages, m.next = m.messages[:0], never
	m.forgetOld(at)
	m.renew(at)
	m.expireWants(at)
	m.turn++
	for i := range m.order {
		l := m.order[(i+m.turn)%len(m.order)]
		m.beginExchange(l, at)
		m.flush(l, at)
	}
	m.wake(m.table.soonest)
	facts = m.facts
	m.facts = nil
	if m.next != never {
		next = m.base.Add(max(m.next, at))
	}
	return m.messages, facts, next
}

// wake sees to it that Tick is called at a moment.
func (m *Machine) wake(at moment) { m.next = min(m.next, at) }

// forgetOld drops records that have ended.
func (m *Machine) forgetOld(at moment) {
	if at < m.table.soonest {
		return
	}
	for _, r := range m.table.expire(at) {
		if !r.contact.Departed() && r.contact.Peer != m.cfg.Self {
			m.fact(Fact{Kind: Forgotten, Contact: r.contact, Raw: r.raw})
		}
	}
}

// Review forgets records that Config.Shun says to, since what it says has changed.
func (m *Machine) Review(now time.Time) {
	if m.cfg.Shun == nil {
		return
	}
	at := m.enter(now)
	for _, r := range m.table.drop(func(r *record) bool { return r.contact.Peer != m.cfg.Self && m.cfg.Shun(r.contact) }) {
		if !r.contact.Departed() {
			m.fact(Fact{Kind: Forgotten, Contact: r.contact, Raw: r.raw})
		}
		m.refuse(r, nil, at)
	}
}

// Stats returns the counters.
func (m *Machine) Stats() Stats { return m.stats }

// Len returns how many peers are known, without ourselves.
func (m *Machine) Len() int {
	n := len(m.table.entries) - m.table.departed
	if m.own.record != nil && !m.own.record.contact.Departed() {
		n--
	}
	return max(n, 0)
}

// Lookup returns the record of a peer, and its bytes, which must not be changed.
func (m *Machine) Lookup(id identity.PeerID) (c wire.Contact, raw []byte, ok bool) {
	e := m.table.find(id)
	if e == nil || e.record.contact.Departed() {
		return wire.Contact{}, nil, false
	}
	return e.record.contact, e.record.raw, true
}

// Known calls yield with the records of all known peers but ourselves and their
// bytes, which must not be changed, in the order of their peer ids, until it returns false.
func (m *Machine) Known(yield func(c wire.Contact, raw []byte) bool) {
	for i := range m.table.entries {
		r := m.table.entries[i].record
		if r.contact.Departed() || r.contact.Peer == m.cfg.Self {
			continue
		}
		if !yield(r.contact, r.raw) {
			return
		}
	}
}

// Pick returns up to n known peers to connect to, but those for which skip
// holds, at random and from as many address prefixes as there are: each /16
// (IPv6 /32) is as likely as another, however many peers are in it, and gives its
// second peer only when all have given one.
func (m *Machine) Pick(n int, skip func(identity.PeerID) bool) []wire.Contact {
	groups := map[prefix][]*record{}
	var names []prefix
	for i := range m.table.entries {
		r := m.table.entries[i].record
		if r.contact.Departed() || r.contact.Peer == m.cfg.Self || skip != nil && skip(r.contact.Peer) {
			continue
		}
		g := r.group()
		if groups[g] == nil {
			names = append(names, g)
		}
		groups[g] = append(groups[g], r)
	}
	var out []wire.Contact
	for len(names) > 0 && len(out) < n {
		m.rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		kept := names[:0]
		for _, g := range names {
			if len(out) >= n {
				break
			}
			in := groups[g]
			i := m.rand.IntN(len(in))
			out = append(out, in[i].contact)
			in[i] = in[len(in)-1]
			if groups[g] = in[:len(in)-1]; len(in) > 1 {
				kept = append(kept, g)
			}
		}
		names = kept
	}
	return out
}

// nonce returns the key of the sums of one exchange.
func (m *Machine) nonce() (n [wire.GossipNonce]byte) {
	binary.BigEndian.PutUint64(n[:], m.rand.Uint64())
	binary.BigEndian.PutUint64(n[8:], m.rand.Uint64())
	return n
}
