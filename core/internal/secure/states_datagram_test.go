package secure

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// The handshake in datagrams is a machine at each end, so its states are walked through as
// well: whatever has been sent may come at any moment, in any order, again or never; offers and finishes
// are repeated; time passes; attempts are given up. Before each step everything
// comes that an attacker can make of it and that must change nothing.

// host is a service at an address.
type host struct {
	cfg    *Config
	at     netip.AddrPort
	limit  int  // of its responder; 0: the default
	deaf   bool // it has no responder
	header *HeaderKey
	answer *Responder
}

// attempt is a dial from one host to another.
type attempt struct {
	from, to *host
	expect   identity.PeerID
}

// setting is what a walk begins with.
type setting struct {
	name     string
	hosts    []host
	attempts []attempt         // from and to are set from ends
	ends     [][2]int          // of attempts: hosts
	expects  []identity.PeerID // of attempts
	// Some host sends on what comes to it, in its own name.
	between int
	lives   bool     // all attempts succeed when the attacker stops
	old     []packet // of a handshake that is over
}

// packet is a datagram that was sent.
type packet struct {
	from, to netip.AddrPort
	data     []byte
	flight   Flight
}

// what names a packet but for its nonce and its length.
func (p *packet) what() string {
	f := &p.flight
	return fmt.Sprintf("%v %v %d %x %x %x", p.from, p.to, f.Type, f.ID, f.Cookie, f.Noise)
}

// ending is an association that one end has made.
type ending struct {
	*Associated
	host *host
	with int // the other end among endings; -1
}

// world is a walk. Everything random is the same in each.
type world struct {
	t       *testing.T
	set     *setting
	ledger  *ledger
	hosts   []*host
	tries   []*Initiator
	places  []attempt
	air     []packet
	here    map[string]bool // what is in the air
	nonces  map[string]bool
	now     time.Duration
	endings []ending
	failed  map[int]error
	heard   map[string]bool // answers that hosts have made: host and Noise message
	taken   map[string]bool // offers that hosts have accepted: host and Noise message
}

func newWorld(t *testing.T, set *setting, l *ledger) *world {
	w := &world{
		t: t, set: set, ledger: l, here: map[string]bool{}, nonces: map[string]bool{}, failed: map[int]error{},
		heard: map[string]bool{}, taken: map[string]bool{},
	}
	clear(l.sealed)
	for i := range set.hosts {
		h := set.hosts[i]
		cfg := *h.cfg
		cfg.Random = deterministic(byte(100 + i))
		h.cfg = &cfg
		var err error
		if h.header, err = NewHeaderKey(cfg.Random); err != nil {
			t.Fatal(err)
		}
		h.answer = NewResponder(ResponderConfig{Config: h.cfg, HeaderKey: h.header, Limit: h.limit})
		w.hosts = append(w.hosts, &h)
	}
	w.now = time.Minute
	if set.old == nil { // a handshake that is over is recorded
		w.dial(0, [2]int{0, 1}, w.hosts[1].cfg.Key.ID())
		for i := 0; i < len(w.air); i++ {
			w.deliver(w.air[i], w.air[i].from, w.air[i].to)
		}
		if len(w.endings) != 2 {
			t.Fatalf("the first handshake has %d ends", len(w.endings))
		}
		set.old = w.air
		return newWorld(t, set, l)
	}
	for _, p := range set.old { // its offer has been heard
		if ephemeral := p.flight.Ephemeral(); p.flight.Type == FlightOffer && !w.hostAt(p.to).answer.seen.Add(ephemeral[:]) {
			t.Fatal("an offer has been heard already")
		}
	}
	for i, ends := range set.ends {
		w.dial(i+1, ends, set.expects[i])
	}
	return w
}

// dial begins an attempt.
func (w *world) dial(n int, ends [2]int, expect identity.PeerID) {
	p := attempt{from: w.hosts[ends[0]], to: w.hosts[ends[1]], expect: expect}
	cfg := *p.from.cfg
	cfg.Random = deterministic(byte(110 + n))
	local, err := p.from.header.Bind(cfg.Random)
	if err != nil {
		w.t.Fatal(err)
	}
	i, err := NewInitiator(&cfg, expect, local)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tries, w.places = append(w.tries, i), append(w.places, p)
	w.repeat(len(w.tries) - 1)
}

// repeat sends what an attempt sends until it is answered.
func (w *world) repeat(k int) {
	i, p := w.tries[k], w.places[k]
	switch {
	case i == nil:
	case i.finish != nil:
		w.send(p.from, p.to.at, i.Finish)
	default:
		w.send(p.from, p.to.at, i.Offer)
	}
}

func (w *world) send(from *host, to netip.AddrPort, flight func([]byte) ([]byte, error)) {
	b, err := flight(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(from, to, b)
}

// put has a datagram go out.
func (w *world) put(from *host, to netip.AddrPort, data []byte) {
	p := packet{from: from.at, to: to, data: data, flight: flown(w.t, from.cfg.Network, data)}
	if nonce := string(data[:wire.FlightNonce]); w.nonces[nonce] {
		w.t.Fatal("two flights have the same nonce")
	} else {
		w.nonces[nonce] = true
	}
	if !w.here[p.what()] {
		w.here[p.what()] = true
		w.air = append(w.air, p)
	}
}

// hostAt returns who is at an address.
func (w *world) hostAt(at netip.AddrPort) *host {
	i := slices.IndexFunc(w.hosts, func(h *host) bool { return h.at == at })
	if i < 0 {
		return nil
	}
	return w.hosts[i]
}

// deliver has a datagram come to a host, and reports whether that did anything.
func (w *world) deliver(p packet, from, to netip.AddrPort) bool {
	h := w.hostAt(to)
	f, err := h.cfg.Network.OpenFlight(nil, p.data)
	if err != nil {
		return false
	}
	switch f.Type {
	case FlightOffer:
		if h.deaf {
			return false
		}
		before := h.answer.Stats().Answered
		b, err := h.answer.Answer(nil, from, f, w.now)
		if err != nil {
			return false
		}
		if len(b) > len(p.data) {
			w.t.Fatalf("%d bytes in answer to %d", len(b), len(p.data))
		}
		w.put(h, from, b)
		if g := flown(w.t, h.cfg.Network, b); g.Type == FlightAnswer {
			w.heard[fmt.Sprint(h.cfg.Key.ID(), g.Noise)] = true
		}
		if h.answer.Stats().Answered != before {
			w.taken[fmt.Sprint(to, f.Noise)] = true
		}
		return true
	case FlightFinish:
		if h.deaf {
			return false
		}
		a, err := h.answer.Finish(from, f, w.now)
		if err == nil {
			w.end(h, a)
		}
		return err == nil || errors.Is(err, ErrRepeated)
	}
	for k, i := range w.tries {
		if i == nil || i.ID() != f.ID || w.places[k].to.at != from || w.places[k].from != h {
			continue
		}
		if i.Cookie(f) == nil {
			w.repeat(k)
			return true
		}
		a, err := i.Answer(f)
		switch {
		case err == nil:
			if !w.heard[fmt.Sprint(a.Remote.Peer, f.Noise)] {
				w.t.Fatal("an answer counts that its peer has not made")
			}
			if e := w.places[k].expect; !e.IsZero() && a.Remote.Peer != e {
				w.t.Fatal("another peer than the one that was wanted counts")
			}
			w.end(h, a)
			w.repeat(k)
		case !errors.Is(err, ErrFlight):
			w.failed[k] = err
			w.tries[k] = nil
		}
		return !errors.Is(err, ErrFlight)
	}
	return false
}

// end notes that one end has an association. A responder's has one partner, which is
// who it is taken for, and which can read what is sealed; and it is nobody else's.
func (w *world) end(h *host, a *Associated) {
	w.endings = append(w.endings, ending{a, h, -1})
	if a.Initiator {
		return
	}
	mine := &w.endings[len(w.endings)-1]
	for k := range w.endings {
		other := &w.endings[k]
		if !other.Initiator || other.host.cfg.Key.ID() != a.Remote.Peer || other.Remote.Peer != h.cfg.Key.ID() || !joined(other, mine) {
			continue
		}
		if mine.with >= 0 || other.with >= 0 {
			w.t.Fatal("an association has three ends")
		}
		mine.with, other.with = k, len(w.endings)-1
	}
	if mine.with < 0 {
		w.t.Fatalf("an association with %s has one end", a.Remote.Peer.Short())
	}
}

// joined reports whether each of two ends reads what the other one seals.
func joined(x, y *ending) bool {
	for _, e := range [][2]*ending{{x, y}, {y, x}} {
		d, _ := e[0].Box.Seal(nil, []byte("joined"))
		cid, number, ok := e[1].host.header.Open(d)
		if !ok || cid != e[1].Local.CID {
			return false
		}
		if text, err := e[1].Box.Open(d, number); err != nil || string(text) != "joined" {
			return false
		}
	}
	return true
}

// late lets time pass.
func (w *world) late(d time.Duration) {
	w.now += d
	for _, h := range w.hosts {
		h.answer.Expire(w.now)
		for at, ok := h.answer.Deadline(); ok && at <= w.now; {
			w.t.Fatal("a handshake that is over is kept")
		}
	}
}

// step is one thing that happens.
type step struct {
	kind     string // deliver, repeat, late, close
	n        int
	from, to netip.AddrPort
}

// moves lists what may happen.
func (w *world) moves() (all []step) {
	for k, p := range w.air {
		all = append(all, step{kind: "deliver", n: k, from: p.from, to: p.to})
		if w.set.between > 0 { // what comes to the one between goes on, in his name
			evil := w.hosts[w.set.between].at
			for _, h := range w.hosts {
				if p.to == evil && h.at != evil && h.at != p.from {
					all = append(all, step{kind: "deliver", n: k, from: evil, to: h.at})
				}
			}
		}
		if w.hostAt(p.from) != nil && !w.hostAt(p.from).deaf && p.flight.Type != FlightCookie {
			all = append(all, step{kind: "deliver", n: k, from: p.to, to: p.from}) // back to who has sent it
		}
	}
	for k, i := range w.tries {
		if i != nil {
			all = append(all, step{kind: "repeat", n: k}, step{kind: "close", n: k})
		}
	}
	if w.now < 2*time.Minute {
		all = append(all, step{kind: "late", n: 10}, step{kind: "late", n: 150})
	}
	return all
}

func (w *world) do(m step) {
	switch m.kind {
	case "deliver":
		w.deliver(w.air[m.n], m.from, m.to)
	case "repeat":
		w.repeat(m.n)
	case "late":
		w.late(time.Duration(m.n) * time.Second)
	case "close":
		w.tries[m.n].Close()
		w.tries[m.n] = nil
	}
}

// key tells states apart: it leaves out nonces and lengths.
func (w *world) key() string {
	var b strings.Builder
	fmt.Fprintln(&b, w.now)
	for k, i := range w.tries {
		if i == nil {
			fmt.Fprintln(&b, k, w.failed[k] != nil)
			continue
		}
		fmt.Fprintf(&b, "%d %x %d %x\n", k, i.offer.Cookie, i.asked, i.finish)
	}
	for _, h := range w.hosts {
		for e := h.answer.ages.Front(); e != nil; e = e.Next() {
			n := e.Value.(*half)
			fmt.Fprintf(&b, "half %v %x %v\n", n.key, n.answer, n.until)
		}
		for e := h.answer.done.Front(); e != nil; e = e.Next() {
			fmt.Fprintf(&b, "done %v %v\n", e.Value.(*half).key, e.Value.(*half).until)
		}
		fmt.Fprintln(&b, len(h.answer.seen.now), h.answer.cookies.turn)
	}
	for _, what := range slices.Sorted(maps.Keys(w.here)) {
		fmt.Fprintln(&b, what)
	}
	return b.String()
}

// noise has everything come that must change nothing: what is harmed, what comes from
// elsewhere, what is of other handshakes, and what a member of the network makes of it.
func (w *world) noise() {
	evil := netip.MustParseAddrPort("203.0.113.66:6")
	before, count := w.key(), len(w.nonces)
	ends := len(w.endings)
	for _, p := range slices.Concat(w.air, w.set.old) {
		harmed := p
		harmed.data = slices.Clone(p.data)
		harmed.data[len(p.data)-1] ^= 1
		w.deliver(harmed, p.from, p.to)
		w.member(p, func(f *wire.DatagramFlight) bool { // a bit of the Noise message: not behind what has been copied of a finish
			f.Noise = slices.Clone(f.Noise)
			if len(f.Noise) > 0 {
				f.Noise[0] ^= 1
			}
			return len(f.Noise) > 0
		})
		w.member(p, func(f *wire.DatagramFlight) bool { f.ID++; return f.Type != FlightOffer })
		w.member(p, func(f *wire.DatagramFlight) bool { f.Type = FlightFinish; return f.Type != p.flight.Type })
		w.member(p, func(f *wire.DatagramFlight) bool { f.Type = FlightAnswer; return f.Type != p.flight.Type })
		if f := p.flight; f.Type != FlightOffer || w.taken[fmt.Sprint(p.to, f.Noise)] { // who is faster than an offer gets the answer
			w.deliver(p, evil, p.to)
			w.member(p, func(f *wire.DatagramFlight) bool { f.ID++; return true })
		}
	}
	for _, p := range w.set.old {
		w.deliver(p, p.from, p.to)
	}
	if w.key() != before || len(w.nonces) != count || len(w.endings) != ends {
		w.t.Fatalf("an attacker has changed something, or got an answer:\n%s\n\n%s", before, w.key())
	}
}

// member delivers a flight that a member of the network has changed.
func (w *world) member(p packet, change func(*wire.DatagramFlight) bool) {
	f := p.flight.DatagramFlight
	if !change(&f) || w.hostAt(p.to).limit > 0 && f.Type == FlightOffer { // under load that gets a cookie, as any offer of a member
		return
	}
	cfg := *w.hosts[0].cfg
	cfg.Random = nil
	b, err := cfg.sealFlight(nil, f, len(p.data), len(p.data))
	if err != nil {
		return // it does not fit
	}
	w.deliver(packet{data: b}, p.from, p.to)
}

// good lets the network work, and returns how many attempts have come to nothing.
func (w *world) good() (failed int) {
	for range 4 {
		for k := range w.tries {
			w.repeat(k)
		}
		for i := 0; i < len(w.air); i++ {
			w.deliver(w.air[i], w.air[i].from, w.air[i].to)
		}
	}
	for k, i := range w.tries {
		if i != nil && i.finish == nil || w.failed[k] != nil {
			failed++
		}
	}
	for _, e := range w.endings {
		if e.Initiator && e.with < 0 && w.open(e) {
			failed++
		}
	}
	return failed
}

// open reports whether the attempt of an end has not been given up.
func (w *world) open(e ending) bool {
	return slices.ContainsFunc(w.tries, func(i *Initiator) bool { return i != nil && i.local.CID == e.Local.CID })
}

// walk explores a setting, and returns how many states and steps there are.
func (set *setting) walk(t *testing.T, l *ledger, most int) (states, steps, texts int) {
	play := func(path []step) *world {
		w := newWorld(t, set, l)
		for _, m := range path {
			w.do(m)
		}
		return w
	}
	visited := map[string]bool{}
	joined := map[int]int{}
	for queue := [][]step{nil}; len(queue) > 0; queue = queue[1:] {
		path := queue[0]
		w := play(path)
		w.noise()
		for _, m := range w.moves() {
			steps++
			next := append(slices.Clone(path), m)
			w := play(next)
			if key := w.key(); !visited[key] {
				visited[key] = true
				if len(next) < most {
					queue = append(queue, next)
				}
				joined[len(w.endings)]++
				if quick := w.now < 2*time.Minute && !slices.ContainsFunc(next, func(m step) bool {
					return m.kind == "late" || m.from != (netip.AddrPort{}) && w.air[m.n].from != m.from
				}); set.lives && quick {
					if failed := w.good(); failed > 0 {
						t.Fatalf("%s: after %v, %d attempts fail in a network that works", set.name, next, failed)
					}
				}
				texts += len(l.sealed)
				w.late(time.Hour)
				for _, h := range w.hosts {
					if h.answer.Close(); len(h.answer.table) != 0 || len(h.answer.open) != 0 || h.answer.ages.Len()+h.answer.done.Len() != 0 {
						t.Fatal("something is left of handshakes that are over")
					}
				}
			}
		}
	}
	t.Logf("%s: %d states, %d steps, %d texts encrypted; ends in states: %v", set.name, len(visited), steps, texts, joined)
	return len(visited), steps, texts
}

// depth bounds the walks of TestStatesOfDatagrams: go test -run TestStatesOfDatagrams -states 7.
var depth = flag.Int("states", 5, "how many steps the walks through handshakes in datagrams have")

// TestStatesOfDatagrams walks through the states of handshakes in datagrams that an
// attacker can bring about, and holds in each that the ends agree, that nobody is
// taken for another, that what must change nothing changes nothing and gets no answer, that in
// a network that works all attempts succeed, and that nothing is left when time is over.
func TestStatesOfDatagrams(t *testing.T) {
	l := watch(t)
	images := new(Images)
	member := func(fill byte, network string) *Config {
		c := seeded(t, fill, network)
		c.Images = images
		return c
	}
	a, b, c := member(1, "n"), member(2, "n"), member(3, "n")
	at := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 4000)
	}
	idB, idA := b.Key.ID(), a.Key.ID()
	goroutines := runtime.NumGoroutine()
	states, steps, texts := 0, 0, 0
	for _, set := range []setting{
		{name: "one", hosts: []host{{cfg: a, at: at(1), deaf: true}, {cfg: b, at: at(2)}}, ends: [][2]int{{0, 1}}, expects: []identity.PeerID{idB}, lives: true},
		{name: "two of one", hosts: []host{{cfg: a, at: at(1), deaf: true}, {cfg: b, at: at(2)}}, ends: [][2]int{{0, 1}, {0, 1}}, expects: []identity.PeerID{idB, {}}, lives: true},
		{name: "two of two", hosts: []host{{cfg: a, at: at(1), deaf: true}, {cfg: b, at: at(2)}, {cfg: c, at: at(3), deaf: true}}, ends: [][2]int{{0, 1}, {2, 1}}, expects: []identity.PeerID{idB, idB}, lives: true},
		{name: "under load", hosts: []host{{cfg: a, at: at(1), deaf: true}, {cfg: b, at: at(2), limit: 2}, {cfg: c, at: at(3), deaf: true}}, ends: [][2]int{{0, 1}, {2, 1}}, expects: []identity.PeerID{idB, idB}, lives: true},
		{name: "to each other", hosts: []host{{cfg: a, at: at(1)}, {cfg: b, at: at(2)}}, ends: [][2]int{{0, 1}, {1, 0}}, expects: []identity.PeerID{idB, idA}},
		{name: "an insider between", hosts: []host{{cfg: a, at: at(1), deaf: true}, {cfg: b, at: at(2)}, {cfg: c, at: at(3)}}, ends: [][2]int{{0, 2}, {2, 1}}, expects: []identity.PeerID{idB, {}}, between: 2},
		{name: "an insider, and whoever answers", hosts: []host{{cfg: a, at: at(1), deaf: true}, {cfg: b, at: at(2)}, {cfg: c, at: at(3)}}, ends: [][2]int{{0, 2}, {2, 1}}, expects: []identity.PeerID{{}, {}}, between: 2},
	} {
		most := *depth
		if !thorough {
			most = min(most, 3)
		}
		s, n, x := set.walk(t, l, most)
		states, steps, texts = states+s, steps+n, texts+x
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines are left of %d", n, goroutines)
	}
	t.Logf("%d states, %d steps between them, %d texts encrypted", states, steps, texts)
}
