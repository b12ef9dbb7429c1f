package secure

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

var here = netip.MustParseAddrPort("192.0.2.1:4000")

// flown opens a datagram that must be a flight.
func flown(t testing.TB, n *Network, datagram []byte) Flight {
	t.Helper()
	f, err := n.OpenFlight(nil, datagram)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ends is two services that shake hands over datagrams.
type ends struct {
	a, b       *Config
	keyA, keyB *HeaderKey
	responder  *Responder
}

func newEnds(t testing.TB, ciphers uint8) *ends {
	t.Helper()
	e := &ends{a: seeded(t, 1, "n"), b: seeded(t, 2, "n")}
	e.a.Hello.Ciphers, e.b.Hello.Ciphers = ciphers, ciphers
	e.keyA, e.keyB = headerKey(t), headerKey(t)
	e.responder = NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB})
	return e
}

func headerKey(t testing.TB) *HeaderKey {
	t.Helper()
	k, err := NewHeaderKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// initiator begins an attempt of a.
func (e *ends) initiator(t testing.TB, expect identity.PeerID) *Initiator {
	t.Helper()
	local, err := e.keyA.Bind(nil)
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewInitiator(e.a, expect, local)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// join plays a whole handshake.
func (e *ends) join(t testing.TB, from netip.AddrPort, now time.Duration) (x, y *Associated) {
	t.Helper()
	i := e.initiator(t, e.b.Key.ID())
	offer, err := i.Offer(nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := e.responder.Answer(nil, from, flown(t, e.b.Network, offer), now)
	if err != nil {
		t.Fatal(err)
	}
	if x, err = i.Answer(flown(t, e.a.Network, answer)); err != nil {
		t.Fatal(err)
	}
	finish, err := i.Finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	if y, err = e.responder.Finish(from, flown(t, e.b.Network, finish), now); err != nil {
		t.Fatal(err)
	}
	return x, y
}

func TestDatagramHandshake(t *testing.T) {
	for _, ciphers := range []uint8{1, 3} {
		e := newEnds(t, ciphers)
		x, y := e.join(t, here, 0)
		if x.Remote.Peer != e.b.Key.ID() || y.Remote.Peer != e.a.Key.ID() || !x.Initiator || y.Initiator || x.Cipher != y.Cipher {
			t.Fatalf("%+v and %+v", x, y)
		}
		for i := range 10 {
			pass(t, x, y, e.keyB, uint64(i), "a to b")
			pass(t, y, x, e.keyA, uint64(i), "b to a")
		}
	}
}

// pass seals a datagram at one end and opens it at the other.
func pass(t testing.TB, from, to *Associated, key *HeaderKey, number uint64, text string) {
	t.Helper()
	d, n := from.Box.Seal(nil, []byte(text))
	cid, m, ok := key.Open(d)
	if !ok || cid != to.Local.CID || n != number || m != number || len(d) != len(text)+SealOverhead {
		t.Fatalf("datagram of %d bytes: association %x, want %x, numbers %d, %d, want %d", len(d), cid, to.Local.CID, n, m, number)
	}
	if plain, err := to.Box.Open(d, m); err != nil || string(plain) != text {
		t.Fatalf("%q, %v", plain, err)
	}
	if h, ok := to.Box.Highest(); !ok || h != number {
		t.Fatalf("highest %d", h)
	}
}

// offer makes a datagram of i.
func (e *ends) offer(t testing.TB, i *Initiator) []byte {
	t.Helper()
	b, err := i.Offer(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answer has the responder answer an offer.
func (e *ends) answer(t testing.TB, offer []byte) []byte {
	t.Helper()
	b, err := e.responder.Answer(nil, here, flown(t, e.b.Network, offer), 0)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// half plays a handshake up to the finish, which it returns.
func (e *ends) half(t testing.TB) (x *Associated, finish []byte) {
	t.Helper()
	i := e.initiator(t, e.b.Key.ID())
	x, err := i.Answer(flown(t, e.a.Network, e.answer(t, e.offer(t, i))))
	if err == nil {
		finish, err = i.Finish(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x, finish
}

func TestBothEndsOfDatagramsLearnWhoTheOtherIs(t *testing.T) {
	e := newEnds(t, 1)
	e.b.Hello.AppID = nil
	x, y := e.join(t, here, 0)
	for who, c := range map[string]struct {
		got Hello
		cfg *Config
	}{"initiator": {x.Remote, e.b}, "responder": {y.Remote, e.a}} {
		want := c.cfg.Hello
		want.Version, want.Peer = wire.Version, c.cfg.Key.ID()
		if fmt.Sprint(c.got) != fmt.Sprint(want) {
			t.Errorf("the %s heard %+v, want %+v", who, c.got, want)
		}
	}
	for _, c := range []struct {
		a, b uint8
		want Cipher
	}{{1, 3, ChaCha20Poly1305}, {3, 1, ChaCha20Poly1305}, {255, 3, AES256GCM}} {
		e.a.Hello.Ciphers, e.b.Hello.Ciphers = c.a, c.b
		if x, y := e.join(t, here, 0); x.Cipher != c.want || y.Cipher != c.want {
			t.Errorf("%d and %d: %v and %v, want %v", c.a, c.b, x.Cipher, y.Cipher, c.want)
		}
	}
}

// A flight that is lost is made anew: it looks different and means the same.
func TestFlightsThatComeAgain(t *testing.T) {
	e := newEnds(t, 3)
	i := e.initiator(t, e.b.Key.ID())
	if _, err := i.Finish(nil); !errors.Is(err, ErrHandshake) {
		t.Errorf("a finish before the answer: %v", err)
	}
	var offers, answers [][]byte
	for range 3 {
		offers = append(offers, e.offer(t, i))
		answers = append(answers, e.answer(t, offers[len(offers)-1]))
	}
	if s := e.responder.Stats(); s.HalfOpen != 1 || s.Answered != 1 {
		t.Fatalf("one handshake whose offer came three times: %+v", s)
	}
	if bytes.Equal(offers[0][:64], offers[1][:64]) || bytes.Equal(answers[0][:64], answers[1][:64]) {
		t.Error("a flight was repeated byte for byte")
	}
	x, err := i.Answer(flown(t, e.a.Network, answers[2]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Answer(flown(t, e.a.Network, answers[0])); !errors.Is(err, ErrFlight) {
		t.Errorf("the answer once more: %v", err)
	}
	var y *Associated
	for n := range 3 {
		finish, err := i.Finish(nil)
		if err != nil {
			t.Fatal(err)
		}
		f := flown(t, e.b.Network, finish)
		got, err := e.responder.Finish(here, f, 0)
		if n == 0 {
			if y = got; err != nil {
				t.Fatal(err)
			}
			continue
		}
		if cid, ok := e.responder.Complete(here, f); !errors.Is(err, ErrRepeated) || got != nil || !ok || cid != y.Local.CID {
			t.Errorf("finish %d: %v, association %x, %v, want %x", n, err, cid, ok, y.Local.CID)
		}
	}
	pass(t, x, y, e.keyB, 0, "once")
	// A late offer, and a late finish of nobody's, get nothing.
	if b, err := e.responder.Answer(nil, here, flown(t, e.b.Network, offers[0]), 0); !errors.Is(err, ErrFlight) || b != nil {
		t.Errorf("an offer after the finish: %d bytes, %v", len(b), err)
	}
}

func TestAnotherNetworkNameOpensNoFlight(t *testing.T) {
	for _, names := range [][2]string{{"a", "b"}, {"", "a"}, {"a", ""}, {"a", "a\x00"}} {
		e := newEnds(t, 1)
		e.a.Network = NewNetwork(names[0])
		offer := e.offer(t, e.initiator(t, identity.PeerID{}))
		if f, err := NewNetwork(names[1]).OpenFlight(nil, offer); !errors.Is(err, ErrFlight) {
			t.Errorf("%q opens an offer of %q: %+v", names[1], names[0], f)
		}
		flown(t, NewNetwork(names[0]), offer)
	}
}

// One who has the mask of the datagrams but not the key of the handshake.
func TestOfferWithoutTheSharedKey(t *testing.T) {
	e := newEnds(t, 1)
	network := *e.a.Network
	network.psk[0] ^= 1
	e.a.Network = &network
	f := flown(t, e.b.Network, e.offer(t, e.initiator(t, identity.PeerID{})))
	if b, err := e.responder.Answer(nil, here, f, 0); !errors.Is(err, ErrFlight) || b != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestSomebodyElseAnswersADatagram(t *testing.T) {
	e := newEnds(t, 1)
	i := e.initiator(t, seeded(t, 3, "n").Key.ID())
	a, err := i.Answer(flown(t, e.a.Network, e.answer(t, e.offer(t, i))))
	if !errors.Is(err, ErrWrongPeer) || a != nil || !strings.Contains(err.Error(), e.b.Key.ID().Short()) {
		t.Errorf("%v, %v", a, err)
	}
	if _, err := i.Finish(nil); err == nil {
		t.Error("a finish for the wrong peer, who would learn who we are")
	}
}

// Flights of streams and of datagrams do not pass for each other.
func TestStreamsAndDatagramsDoNotMix(t *testing.T) {
	e := newEnds(t, 1)
	if f, err := e.b.Network.OpenFlight(nil, append(firstFlight(t, e.a), make([]byte, 700)...)); err == nil {
		t.Errorf("a first flight of a stream is %+v", f)
	}
	f := flown(t, e.b.Network, e.offer(t, e.initiator(t, identity.PeerID{})))
	flight, err := e.a.appendFlight(nil, f.Noise)
	if err != nil {
		t.Fatal(err)
	}
	s := replay(flight)
	if _, err := Respond(s, e.b); !errors.Is(err, ErrFirstFlight) || s.out.Len() > 0 {
		t.Errorf("the Noise message of an offer over a stream: %d bytes, %v", s.out.Len(), err)
	}
}

// flights returns one of each type, by name, and the network that opens them.
func flights(t testing.TB) (map[string][]byte, *Network) {
	t.Helper()
	e := newEnds(t, 1)
	all := map[string][]byte{}
	i := e.initiator(t, identity.PeerID{})
	all["offer"] = e.offer(t, i)
	all["answer"] = e.answer(t, all["offer"])
	if _, err := i.Answer(flown(t, e.a.Network, all["answer"])); err != nil {
		t.Fatal(err)
	}
	var err error
	if all["finish"], err = i.Finish(nil); err != nil {
		t.Fatal(err)
	}
	crowded := NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB, Limit: 1, PerAddress: 1})
	for all["cookie"] == nil { // the second offer finds half of one place taken
		b, err := crowded.Answer(nil, here, flown(t, e.b.Network, e.offer(t, e.initiator(t, identity.PeerID{}))), 0)
		if err != nil {
			t.Fatal(err)
		}
		if flown(t, e.a.Network, b).Type == FlightCookie {
			all["cookie"] = b
		}
	}
	return all, e.b.Network
}

// Every prefix and every flipped bit of every flight is refused, padding and all.
func TestFlightsCutOrFlipped(t *testing.T) {
	all, network := flights(t)
	buf := make([]byte, FlightSize)
	for name, b := range all {
		before := bytes.Clone(b)
		for n := range b {
			if f, err := network.OpenFlight(buf, b[:n]); !errors.Is(err, ErrFlight) {
				t.Fatalf("%s cut to %d of %d bytes: %+v, %v", name, n, len(b), f, err)
			}
			for bit := range 8 {
				b[n] ^= 1 << bit
				if f, err := network.OpenFlight(buf, b); !errors.Is(err, ErrFlight) {
					t.Fatalf("%s with bit %d of byte %d flipped: %+v, %v", name, bit, n, f, err)
				}
				b[n] ^= 1 << bit
			}
		}
		if _, err := network.OpenFlight(buf, append(bytes.Clone(b), 0)); !errors.Is(err, ErrFlight) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
		if f := flown(t, network, b); !bytes.Equal(b, before) || f.size != len(b) {
			t.Errorf("%s was changed by looking at it", name)
		}
	}
}

// remask puts another Noise message into a flight, as a member of the network can.
func remask(t testing.TB, cfg *Config, f Flight, noise []byte) Flight {
	t.Helper()
	g := f.DatagramFlight
	g.Noise = noise
	b, err := cfg.sealFlight(nil, g, wire.MinOffer, wire.MaxDatagramFlight)
	if err != nil {
		t.Fatal(err)
	}
	return flown(t, cfg.Network, b)
}

// What a member of the network changes inside a flight is refused without harm to
// the handshake; only a finish whose static key is genuine ends it.
func TestNoiseMessagesCutOrFlipped(t *testing.T) {
	e := newEnds(t, 1)
	i := e.initiator(t, e.b.Key.ID())
	offer := flown(t, e.b.Network, e.offer(t, i))
	for n := range offer.Noise {
		noise := bytes.Clone(offer.Noise)
		noise[n] ^= 1 << (n % 8)
		if b, err := e.responder.Answer(nil, here, remask(t, e.a, offer, noise), 0); !errors.Is(err, ErrFlight) || b != nil {
			t.Fatalf("an offer flipped at %d: %d bytes, %v", n, len(b), err)
		}
	}
	answer := flown(t, e.a.Network, e.answer(t, e.offer(t, i)))
	for n := range answer.Noise {
		noise := bytes.Clone(answer.Noise)
		noise[n] ^= 1 << (n % 8)
		if a, err := i.Answer(remask(t, e.b, answer, noise)); !errors.Is(err, ErrFlight) || a != nil {
			t.Fatalf("an answer flipped at %d: %v", n, err)
		}
		if n > 0 {
			if a, err := i.Answer(remask(t, e.b, answer, noise[:n])); !errors.Is(err, ErrFlight) || a != nil {
				t.Fatalf("an answer cut to %d: %v", n, err)
			}
		}
	}
	x, err := i.Answer(answer)
	if err != nil {
		t.Fatalf("after all this the genuine answer: %v", err)
	}
	b, err := i.Finish(nil)
	if err != nil {
		t.Fatal(err)
	}
	finish := flown(t, e.b.Network, b)
	const static = 32 + wire.TagSize
	for n := range static {
		noise := bytes.Clone(finish.Noise)
		noise[n] ^= 1 << (n % 8)
		if a, err := e.responder.Finish(here, remask(t, e.a, finish, noise), 0); !errors.Is(err, ErrFlight) || a != nil {
			t.Fatalf("a finish flipped at %d: %v", n, err)
		}
		if n > 0 {
			if a, err := e.responder.Finish(here, remask(t, e.a, finish, noise[:n]), 0); !errors.Is(err, ErrFlight) || a != nil {
				t.Fatalf("a finish cut to %d: %v", n, err)
			}
		}
	}
	y, err := e.responder.Finish(here, finish, 0)
	if err != nil {
		t.Fatalf("after all this the genuine finish: %v", err)
	}
	pass(t, x, y, e.keyB, 0, "still here")
	for n := static; n < len(finish.Noise); n++ { // each on a handshake of its own
		_, b := e.half(t)
		f := flown(t, e.b.Network, b)
		f.Noise[n] ^= 1 << (n % 8)
		if a, err := e.responder.Finish(here, f, 0); err == nil || a != nil {
			t.Fatalf("a finish flipped at %d was accepted", n)
		}
	}
}

// insiderOffers plays an initiator that puts what it likes into its payloads, and
// returns what the responder came to.
func (e *ends) insiderOffers(t testing.TB, offer, hello []byte) (*Associated, error) {
	t.Helper()
	h, err := begin(e.a, true, wire.DatagramPrologue)
	if err != nil {
		t.Fatal(err)
	}
	f := Flight{DatagramFlight: wire.DatagramFlight{Type: FlightOffer, ID: 5}, size: 1200}
	if f.Noise, _, _, err = h.state.WriteMessage(nil, offer); err != nil {
		t.Fatal(err)
	}
	e.responder.Close()
	b, err := e.responder.Answer(nil, here, f, 0)
	if err != nil {
		return nil, err
	}
	if _, _, _, err = h.state.ReadMessage(nil, flown(t, e.a.Network, b).Noise); err != nil {
		t.Fatal(err)
	}
	f.Type = FlightFinish
	if f.Noise, _, _, err = h.state.WriteMessage(nil, hello); err != nil {
		t.Fatal(err)
	}
	return e.responder.Finish(here, f, 0)
}

// insiderAnswers is the same for a responder.
func (e *ends) insiderAnswers(t testing.TB, hello []byte) (*Associated, error) {
	t.Helper()
	i := e.initiator(t, identity.PeerID{})
	h, err := begin(e.b, false, wire.DatagramPrologue)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err = h.state.ReadMessage(nil, flown(t, e.b.Network, e.offer(t, i)).Noise); err != nil {
		t.Fatal(err)
	}
	f := Flight{DatagramFlight: wire.DatagramFlight{Type: FlightAnswer, ID: i.ID()}}
	if f.Noise, _, _, err = h.state.WriteMessage(nil, hello); err != nil {
		t.Fatal(err)
	}
	return i.Answer(f)
}

func TestPayloadsOfAnInsiderInDatagrams(t *testing.T) {
	e := newEnds(t, 1)
	binding := Binding{CID: 1}
	claim := func(cfg *Config, id identity.PeerID) []byte {
		h := cfg.Hello
		h.Version, h.Peer = wire.Version, id
		return h.Append(nil)
	}
	idA, idB := e.a.Key.ID(), e.b.Key.ID()
	for _, id := range append(smallOrder(), idB, seeded(t, 3, "n").Key.ID()) {
		if a, err := e.insiderOffers(t, wire.AppendOffer(nil), binding.Append(claim(e.a, id))); !errors.Is(err, ErrHandshake) || a != nil {
			t.Errorf("an initiator that claims %s: %v", id, err)
		}
	}
	for _, id := range append(smallOrder(), idA, seeded(t, 3, "n").Key.ID()) {
		if a, err := e.insiderAnswers(t, binding.Append(claim(e.b, id))); !errors.Is(err, ErrHandshake) || a != nil {
			t.Errorf("a responder that claims %s: %v", id, err)
		}
	}
	for name, payload := range map[string][]byte{
		"empty": nil, "without a binding": claim(e.a, idA), "with two": binding.Append(binding.Append(claim(e.a, idA))),
		"without a hello": binding.Append(nil), "cut short": binding.Append(claim(e.a, idA))[:60],
	} {
		if a, err := e.insiderOffers(t, wire.AppendOffer(nil), payload); !errors.Is(err, ErrHandshake) || a != nil {
			t.Errorf("a finish %s: %v", name, err)
		}
	}
	if a, err := e.insiderAnswers(t, claim(e.b, idB)); !errors.Is(err, ErrHandshake) || a != nil {
		t.Errorf("an answer without a binding: %v", err)
	}
	for name, offer := range map[string][]byte{"empty": nil, "version 0": {1, 0, 1, 0}, "cut short": {1, 0}} {
		if a, err := e.insiderOffers(t, offer, nil); !errors.Is(err, ErrFlight) || a != nil {
			t.Errorf("an offer %s: %v", name, err)
		}
	}
	// With the truth, so that the refusals mean something.
	if a, err := e.insiderOffers(t, wire.AppendOffer(nil), binding.Append(claim(e.a, idA))); err != nil || a.Remote.Peer != idA {
		t.Error(err)
	}
	if a, err := e.insiderAnswers(t, binding.Append(claim(e.b, idB))); err != nil || a.Remote.Peer != idB {
		t.Error(err)
	}
}

// Ephemeral keys of small order are refused in silence, and no panic.
func TestLowOrderEphemeralInDatagrams(t *testing.T) {
	for _, point := range append(smallOrder(), identity.PeerID{}) {
		e := newEnds(t, 1)
		forged := forgeFirst(t, e.a, wire.DatagramPrologue, point[:])
		f := Flight{DatagramFlight: wire.DatagramFlight{Type: FlightOffer, Noise: forged}, size: 1200}
		if b, err := e.responder.Answer(nil, here, f, 0); !errors.Is(err, ErrFlight) || b != nil {
			t.Errorf("ephemeral %x: %d bytes, %v", point[:4], len(b), err)
		}
		if s := e.responder.Stats(); s.HalfOpen != 0 {
			t.Errorf("ephemeral %x: %+v", point[:4], s)
		}
		// And in an answer: it ends the attempt, whose state is of no more use.
		i := e.initiator(t, identity.PeerID{})
		f = Flight{DatagramFlight: wire.DatagramFlight{Type: FlightAnswer, ID: i.ID(), Noise: append(point[:], make([]byte, 200)...)}}
		if a, err := i.Answer(f); !errors.Is(err, ErrHandshake) || a != nil {
			t.Errorf("ephemeral %x in an answer: %v", point[:4], err)
		}
	}
}

// The secrets of a handshake are gone when it is over, whichever way.
func TestDatagramSecretsAreErased(t *testing.T) {
	e := newEnds(t, 1)
	zeros := make([]byte, 32)
	i := e.initiator(t, identity.PeerID{})
	initiator := [][]byte{i.h.secret, i.h.state.LocalEphemeral().Private}
	answer := e.answer(t, e.offer(t, i))
	var responder [][]byte
	for _, n := range e.responder.table {
		responder = append(responder, n.h.secret, n.h.state.LocalEphemeral().Private)
	}
	erased := func(secrets [][]byte) bool {
		return !slices.ContainsFunc(secrets, func(b []byte) bool { return !bytes.Equal(b, zeros) })
	}
	if erased(initiator[:1]) || erased(initiator[1:]) || len(responder) != 2 || erased(responder[:1]) || erased(responder[1:]) {
		t.Fatal("there were no secrets to erase")
	}
	x, err := i.Answer(flown(t, e.a.Network, answer))
	if err != nil || !erased(initiator) {
		t.Errorf("the initiator keeps secrets after the answer (%v)", err)
	}
	e.responder.Expire(defaultTimeout)
	if !erased(responder) {
		t.Error("the responder keeps secrets of what is given up")
	}
	if x.Box.seal.ratchet.chain == [32]byte{} || x.Box.open.ratchet.chain == [32]byte{} {
		t.Error("the box has no keys to erase")
	}
	x.Box.ZeroSeal()
	x.Box.ZeroOpen()
	if x.Box.seal.ratchet.chain != [32]byte{} || x.Box.open.ratchet.chain != [32]byte{} {
		t.Error("the box keeps keys")
	}
}
