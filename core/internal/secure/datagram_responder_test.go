package secure

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// place is one of many addresses.
func place(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 4000)
}

// fresh is the offer of a new attempt.
func (e *ends) fresh(t testing.TB) Flight {
	t.Helper()
	return flown(t, e.b.Network, e.offer(t, e.initiator(t, identity.PeerID{})))
}

// says gives an offer to the responder and returns the type of what comes back,
// zero for silence.
func (e *ends) says(t testing.TB, from netip.AddrPort, f Flight, now time.Duration) (wire.FlightType, Flight) {
	t.Helper()
	b, err := e.responder.Answer(nil, from, f, now)
	if errors.Is(err, ErrFlight) && b == nil {
		return 0, Flight{}
	}
	if err != nil {
		t.Fatal(err)
	}
	reply := flown(t, e.a.Network, b)
	if len(b) > f.size || reply.ID != f.ID {
		t.Fatalf("a reply of %d bytes to one of %d, of the handshake %x to %x", len(b), f.size, reply.ID, f.ID)
	}
	return reply.Type, reply
}

func TestReplayedOffersAreAnsweredWithSilence(t *testing.T) {
	e := newEnds(t, 1)
	f := e.fresh(t)
	if kind, _ := e.says(t, here, f, 0); kind != FlightAnswer {
		t.Fatalf("the first time: %v", kind)
	}
	if kind, _ := e.says(t, place(1), f, 0); kind != 0 {
		t.Errorf("from another address while it is half-open: %v", kind)
	}
	other := f
	other.ID++
	if kind, _ := e.says(t, here, other, 0); kind != 0 {
		t.Errorf("as another handshake: %v", kind)
	}
	mixed := e.fresh(t)
	mixed.ID = f.ID
	if kind, _ := e.says(t, here, mixed, 0); kind != 0 {
		t.Errorf("another offer under the same name: %v", kind)
	}
	for _, from := range []netip.AddrPort{here, place(1)} { // when it is given up
		if kind, _ := e.says(t, from, f, time.Hour); kind != 0 {
			t.Errorf("an hour later from %v: %v", from, kind)
		}
	}
	f = e.fresh(t)
	if kind, _ := e.says(t, here, f, time.Hour); kind != FlightAnswer {
		t.Errorf("a fresh one then: %v", kind)
	}
}

func TestFlightsOfTheWrongKindAreDropped(t *testing.T) {
	all, network := flights(t)
	for name, b := range all {
		e := newEnds(t, 1)
		f := flown(t, network, b)
		if got, err := e.responder.Answer(nil, here, f, 0); name != "offer" && (!errors.Is(err, ErrFlight) || got != nil) {
			t.Errorf("%s for an offer: %d bytes, %v", name, len(got), err)
		}
		if a, err := e.responder.Finish(here, f, 0); !errors.Is(err, ErrFlight) || a != nil {
			t.Errorf("%s for a finish of nobody's: %v", name, err)
		}
		i := e.initiator(t, identity.PeerID{})
		f.ID = i.ID()
		if a, err := i.Answer(f); !errors.Is(err, ErrFlight) || a != nil {
			t.Errorf("%s for an answer to another offer: %v", name, err)
		}
		if err := i.Cookie(f); name != "cookie" && !errors.Is(err, ErrFlight) {
			t.Errorf("%s for a cookie: %v", name, err)
		}
	}
}

// A finish counts only from where the offer came.
func TestFinishFromElsewhere(t *testing.T) {
	e := newEnds(t, 1)
	_, b := e.half(t)
	f := flown(t, e.b.Network, b)
	if a, err := e.responder.Finish(place(1), f, 0); !errors.Is(err, ErrFlight) || a != nil {
		t.Error(err)
	}
	if _, ok := e.responder.Complete(here, f); ok {
		t.Error("complete before the finish")
	}
	if _, err := e.responder.Finish(here, f, 0); err != nil {
		t.Error(err)
	}
}

func TestHalfOpenHandshakesExpire(t *testing.T) {
	e := newEnds(t, 1)
	if _, ok := e.responder.Deadline(); ok {
		t.Error("a deadline of nothing")
	}
	_, b := e.half(t)
	if at, ok := e.responder.Deadline(); !ok || at != defaultTimeout {
		t.Errorf("deadline %v, %v", at, ok)
	}
	e.responder.Expire(defaultTimeout - 1)
	if s := e.responder.Stats(); s.HalfOpen != 1 || s.Expired != 0 {
		t.Errorf("%+v", s)
	}
	if a, err := e.responder.Finish(here, flown(t, e.b.Network, b), defaultTimeout); !errors.Is(err, ErrFlight) || a != nil {
		t.Errorf("a finish after the timeout: %v", err)
	}
	if s := e.responder.Stats(); s.HalfOpen != 0 || s.Expired != 1 || len(e.responder.open) != 0 || len(e.responder.table) != 0 {
		t.Errorf("%+v", s)
	}
	// What is complete is remembered as long, and then forgotten.
	_, b = e.half(t)
	f := flown(t, e.b.Network, b)
	if _, err := e.responder.Finish(here, f, 9*time.Second); err != nil {
		t.Fatal(err)
	}
	if at, ok := e.responder.Deadline(); !ok || at != 9*time.Second+defaultTimeout {
		t.Errorf("deadline %v, %v", at, ok)
	}
	if _, err := e.responder.Finish(here, f, 18*time.Second); !errors.Is(err, ErrRepeated) {
		t.Error(err)
	}
	if _, err := e.responder.Finish(here, f, 20*time.Second); !errors.Is(err, ErrFlight) || len(e.responder.table) != 0 {
		t.Error(err)
	}
}

// TestCookies: over half of the bound an offer costs one short datagram and keeps
// nothing; who comes again with the cookie gets in.
func TestCookies(t *testing.T) {
	e := newEnds(t, 1)
	e.responder = NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB, Limit: 8})
	for n := range 4 {
		if kind, _ := e.says(t, place(n), e.fresh(t), 0); kind != FlightAnswer {
			t.Fatalf("offer %d: %v", n, kind)
		}
	}
	i := e.initiator(t, e.b.Key.ID())
	plain := flown(t, e.b.Network, e.offer(t, i))
	kind, cookie := e.says(t, here, plain, 0)
	if kind != FlightCookie || e.responder.Stats().HalfOpen != 4 {
		t.Fatalf("under load: %v, %+v", kind, e.responder.Stats())
	}
	if kind, _ := e.says(t, here, plain, 0); kind != FlightCookie {
		t.Errorf("the same offer again: %v", kind)
	}
	if err := i.Cookie(cookie); err != nil {
		t.Fatal(err)
	}
	if err := i.Cookie(cookie); !errors.Is(err, ErrFlight) {
		t.Errorf("the same cookie again: %v", err)
	}
	proven := flown(t, e.b.Network, e.offer(t, i))
	for name, from := range map[string]netip.AddrPort{"address": place(99), "port": netip.AddrPortFrom(here.Addr(), 1)} {
		if kind, _ := e.says(t, from, proven, 0); kind != FlightCookie {
			t.Errorf("the cookie from another %s: %v", name, kind)
		}
	}
	stolen := e.fresh(t)
	stolen.Cookie = proven.Cookie
	if kind, _ := e.says(t, here, stolen, 0); kind != FlightCookie {
		t.Errorf("the cookie of another offer: %v", kind)
	}
	for n := range proven.Cookie {
		forged := proven
		forged.Cookie[n] ^= 1
		if kind, _ := e.says(t, here, forged, 0); kind != FlightCookie {
			t.Errorf("a cookie forged at %d: %v", n, kind)
		}
	}
	kind, answer := e.says(t, here, proven, 0)
	if kind != FlightAnswer || e.responder.Stats().HalfOpen != 5 {
		t.Fatalf("with the cookie: %v, %+v", kind, e.responder.Stats())
	}
	if _, err := i.Answer(answer); err != nil {
		t.Error(err)
	}
}

// A cookie holds at least a minute and at most two.
func TestCookieLife(t *testing.T) {
	secs := func(n int) time.Duration { return time.Duration(n) * time.Second }
	ephemeral := [wire.EphemeralSize]byte{1}
	for _, c := range []struct {
		baked, eaten int
		want         bool
	}{
		{0, 0, true}, {0, 59, true}, {0, 60, true}, {0, 119, true}, {0, 120, false}, {59, 60, true}, {59, 119, true}, {59, 120, false},
		{61, 179, true}, {61, 180, false}, {61, 100000, false},
	} {
		jar := cookies{random: deterministic(4)}
		cookie, err := jar.bake(secs(c.baked), here, &ephemeral)
		if err != nil {
			t.Fatal(err)
		}
		if got := jar.valid(secs(c.eaten), here, &ephemeral, &cookie); got != c.want {
			t.Errorf("baked at %d s, at %d s it holds: %v", c.baked, c.eaten, got)
		}
		jar.zero()
		if jar.now != [32]byte{} || jar.last != [32]byte{} {
			t.Error("a secret is still there")
		}
	}
}

// No initiator goes on for ever at a cookie's bidding.
func TestCookiesAskedForWithoutEnd(t *testing.T) {
	e := newEnds(t, 1)
	i := e.initiator(t, identity.PeerID{})
	taken := 0
	for n := range 100 {
		f := Flight{DatagramFlight: wire.DatagramFlight{Type: FlightCookie, ID: i.ID(), Cookie: [16]byte{byte(n + 1)}}}
		if i.Cookie(f) == nil {
			taken++
		}
	}
	if taken != maxCookies {
		t.Errorf("%d cookies were taken", taken)
	}
}

// The table is bounded, in all and per address, and the oldest leave.
func TestHalfOpenHandshakesAreBounded(t *testing.T) {
	e := newEnds(t, 1)
	e.responder = NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB, Limit: 8, PerAddress: 4})
	enter := func(from netip.AddrPort) {
		t.Helper()
		i := e.initiator(t, identity.PeerID{})
		kind, reply := e.says(t, from, flown(t, e.b.Network, e.offer(t, i)), 0)
		if kind == FlightCookie {
			if err := i.Cookie(reply); err != nil {
				t.Fatal(err)
			}
			kind, _ = e.says(t, from, flown(t, e.b.Network, e.offer(t, i)), 0)
		}
		if kind != FlightAnswer {
			t.Fatalf("no answer to %v: %v", from, kind)
		}
	}
	enter(place(1))
	for n := range 20 {
		enter(place(0))
		if s, held := e.responder.Stats(), min(n+1, 4); s.HalfOpen != held+1 || len(e.responder.table) != held+1 {
			t.Fatalf("after %d from one address: %+v", n+1, s)
		}
	}
	if e.responder.open[prefixOf(place(1).Addr())] != 1 {
		t.Error("one address pushed out another one")
	}
	for n := range 50 {
		enter(place(n + 2))
	}
	if s := e.responder.Stats(); s.HalfOpen != 8 || len(e.responder.table) != 8 || len(e.responder.open) != 8 || s.Evicted != 16+50-3 {
		t.Errorf("%+v, %d in the table, %d addresses", s, len(e.responder.table), len(e.responder.open))
	}
	// What is complete is bounded too.
	e.responder.Expire(time.Hour)
	for range 30 {
		_, finish := e.half(t)
		if _, err := e.responder.Finish(here, flown(t, e.b.Network, finish), 0); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.responder.table) != 8 || e.responder.done.Len() != 8 {
		t.Errorf("%d complete handshakes are remembered", len(e.responder.table))
	}
	e.responder.Close()
	if len(e.responder.table)+len(e.responder.open)+e.responder.ages.Len()+e.responder.done.Len() != 0 {
		t.Error("something outlived Close")
	}
}

func TestPrefixesThatCountAsOneAddress(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true}, {"192.0.2.1", "192.0.2.2", false}, {"::ffff:192.0.2.1", "192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:0:0:1", true}, {"2001:db8::1", "2001:db8:0:1::1", false}, {"fe80::1%a", "fe80::2%b", true},
	} {
		if got := prefixOf(netip.MustParseAddr(c.a)) == prefixOf(netip.MustParseAddr(c.b)); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}

// Nobody who has not proved who it is gets more bytes than it sent, whatever the
// lengths, the load and the order.
func TestNobodyGetsMoreThanItSent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	e := newEnds(t, 1)
	e.b.Hello.AppID = make([]byte, wire.MaxAppID)
	e.responder = NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB, Limit: 40, PerAddress: 20})
	sent, got := map[netip.AddrPort]int{}, map[netip.AddrPort]int{}
	kinds := map[wire.FlightType]int{}
	var known []wire.DatagramFlight
	var now time.Duration
	for range 3000 {
		now += time.Duration(r.Int64N(int64(100 * time.Millisecond)))
		var f wire.DatagramFlight
		if len(known) == 0 || r.IntN(3) == 0 {
			i := e.initiator(t, identity.PeerID{})
			f = i.offer
			known = append(known, f)
			i.Close()
		} else {
			f = known[max(0, len(known)-1-r.IntN(50))]
		}
		least := wire.MinOffer
		if r.IntN(2) == 0 { // the shortest are the hardest
			least += r.IntN(wire.MaxDatagramFlight - wire.MinOffer + 1)
		}
		datagram, err := e.a.sealFlight(nil, f, least, least)
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(10) == 0 {
			datagram, _ = mutate(r, datagram, [][]byte{datagram})
		}
		from := place(r.IntN(10))
		sent[from] += len(datagram)
		g, err := e.b.Network.OpenFlight(nil, datagram)
		if err != nil {
			continue
		}
		kind, reply := e.says(t, from, g, now) // which compares this pair of lengths
		if kinds[kind]++; kind == FlightCookie && r.IntN(2) == 0 {
			f.Cookie = reply.Cookie
			known = append(known, f)
		}
		got[from] += reply.size
		for at, n := range got {
			if n > sent[at] {
				t.Fatalf("%v sent %d bytes and got %d", at, sent[at], n)
			}
		}
	}
	if kinds[FlightAnswer] < 100 || kinds[FlightCookie] < 100 || kinds[0] < 100 {
		t.Errorf("not all ways were gone: %v", kinds)
	}
	// Shorter offers than the smallest are no offers, though they authenticate.
	f := e.initiator(t, identity.PeerID{}).offer
	for n := wire.FlightOverhead + len(f.Noise); n < wire.MinOffer; n += 7 {
		b, err := e.a.sealFlight(nil, f, n, n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.b.Network.OpenFlight(nil, b); !errors.Is(err, ErrFlight) {
			t.Fatalf("an offer of %d bytes: %v", n, err)
		}
	}
}

// A source of randomness that fails makes an error, and no flight without it.
func TestRandomnessThatFails(t *testing.T) {
	e := newEnds(t, 1)
	local := Binding{CID: 1}
	for n := range 40 {
		cfg := *e.a
		cfg.Random = io.LimitReader(deterministic(1), int64(n))
		if i, err := NewInitiator(&cfg, identity.PeerID{}, local); err == nil || i != nil {
			t.Errorf("an initiator of %d random bytes", n)
		}
	}
	offer := e.fresh(t)
	for n := range 8 + 32 + 28 {
		cfg := *e.b
		cfg.Random = io.LimitReader(deterministic(1), int64(n))
		r := NewResponder(ResponderConfig{Config: &cfg, HeaderKey: e.keyB})
		if b, err := r.Answer(nil, here, offer, 0); err == nil || b != nil {
			t.Errorf("an answer of %d random bytes", n)
		}
	}
	if k, err := NewHeaderKey(bytes.NewReader(nil)); err == nil || k != nil {
		t.Error("a header key from nothing")
	}
}
