package secure

import (
	"bytes"
	"testing"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// fixed is two ends whose randomness is the same each time.
func fixed(t testing.TB) *ends {
	t.Helper()
	e := &ends{a: seeded(t, 1, "n"), b: seeded(t, 2, "n")}
	e.a.Random, e.b.Random = deterministic(41), deterministic(42)
	var err error
	if e.keyA, err = NewHeaderKey(deterministic(43)); err != nil {
		t.Fatal(err)
	}
	if e.keyB, err = NewHeaderKey(deterministic(44)); err != nil {
		t.Fatal(err)
	}
	e.responder = NewResponder(ResponderConfig{Config: e.b, HeaderKey: e.keyB})
	return e
}

// begun is an attempt of fixed ends, and its offer.
func (e *ends) begun(t testing.TB) (*Initiator, []byte) {
	t.Helper()
	local, err := e.keyA.Bind(deterministic(45))
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewInitiator(e.a, identity.PeerID{}, local)
	if err != nil {
		t.Fatal(err)
	}
	return i, e.offer(t, i)
}

// FuzzDatagramFlight gives any datagram to a network that knows one valid flight
// of each side: nothing else opens.
func FuzzDatagramFlight(f *testing.F) {
	e := fixed(f)
	_, offer := e.begun(f)
	answer := e.answer(f, offer)
	for n := 1; n <= 4; n++ {
		f.Add(bytes.Clone(offer[:len(offer)*n/4]))
	}
	f.Add(answer)
	f.Add(bytes.Repeat([]byte{0xff}, 1200))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		if g, err := e.b.Network.OpenFlight(nil, b); err == nil && !bytes.Equal(b, offer) && !bytes.Equal(b, answer) {
			t.Fatalf("%x opened as %+v", b, g)
		}
		if !bytes.Equal(b, before) {
			t.Fatal("a datagram was changed by looking at it")
		}
	})
}

// FuzzMemberFlights has a member of the network send any flight to both machines:
// a half-open responder and an initiator that waits.
func FuzzMemberFlights(f *testing.F) {
	e := fixed(f)
	i, offer := e.begun(f)
	answer := e.answer(f, offer)
	id := i.ID()
	o, a := flown(f, e.b.Network, offer), flown(f, e.a.Network, answer)
	if _, err := i.Answer(a); err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(1), o.Noise)
	f.Add(uint8(2), bytes.Clone(a.Noise))
	f.Add(uint8(3), i.finish)
	f.Add(uint8(4), []byte{})
	valid := [][]byte{o.Noise, a.Noise, i.finish}
	f.Fuzz(func(t *testing.T, kind uint8, noise []byte) {
		if len(noise) > wire.MaxDatagramNoise {
			return
		}
		e := fixed(t)
		i, offer := e.begun(t)
		e.answer(t, offer)
		b := wire.DatagramFlight{Type: wire.FlightType(kind), ID: id, Cookie: [16]byte{1}, Noise: noise}.Append(nil, max(0, wire.MinOffer-wire.FlightOverhead-len(noise)))
		g, err := wire.ParseDatagramFlight(b)
		if err != nil {
			return
		}
		flight := Flight{DatagramFlight: g, size: wire.FlightNonce + len(b) + wire.TagSize}
		_, known := e.responder.table[halfKey{here, id}]
		if !known || i.ID() != id {
			t.Fatal("the ends are not the same each time")
		}
		reply, err := e.responder.Answer(nil, place(1), flight, 0)
		if err == nil && len(reply) > flight.size {
			t.Fatalf("a reply of %d bytes to one of %d", len(reply), flight.size)
		}
		if err == nil && e.responder.seen.Has(o.Noise[:16]) && bytes.Equal(noise, valid[0]) {
			t.Fatal("the offer was answered a second time")
		}
		if x, err := i.Answer(flight); (err == nil) != (x != nil) || err == nil && !bytes.Equal(noise, valid[1]) {
			t.Fatalf("%x passed for an answer, %v", noise, err)
		}
		if y, err := e.responder.Finish(here, flight, 0); (err == nil) != (y != nil) || err == nil && !bytes.Equal(noise, valid[2]) {
			t.Fatalf("%x passed for a finish, %v", noise, err)
		}
	})
}

// FuzzDatagramPayload has a member of the network say anything in its hello.
func FuzzDatagramPayload(f *testing.F) {
	e := fixed(f)
	hello := e.a.Hello
	hello.Version, hello.Peer = wire.Version, e.a.Key.ID()
	f.Add(wire.AppendOffer(nil), Binding{CID: 3}.Append(hello.Append(nil)))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, offer, payload []byte) {
		if len(offer) > 400 || len(payload) > 400 {
			return // they would not fit a flight
		}
		a, err := e.insiderOffers(t, offer, payload)
		if (err == nil) != (a != nil) {
			t.Fatalf("%v and %v", a, err)
		}
		if a != nil && a.Remote.Peer != e.a.Key.ID() && a.Remote.Peer != twin(e.a.Key.ID()) {
			t.Fatalf("%s passed for %s", e.a.Key.ID(), a.Remote.Peer)
		}
	})
}

// FuzzBox opens any datagram, with the number that it says and with another one.
func FuzzBox(f *testing.F) {
	key := &HeaderKey{}
	newPair := func(t testing.TB, c Cipher) (*Box, *Box) {
		t.Helper()
		k, err := NewHeaderKey(bytes.NewReader(make([]byte, 16)))
		if err != nil {
			t.Fatal(err)
		}
		key = k
		remote := Binding{CID: 7, HeaderKey: k.key}
		x, err := newBox(c, &[32]byte{1}, &[32]byte{2}, remote)
		if err != nil {
			t.Fatal(err)
		}
		y, err := newBox(c, &[32]byte{2}, &[32]byte{1}, remote)
		if err != nil {
			t.Fatal(err)
		}
		return x, y
	}
	for _, c := range bothCiphers {
		x, _ := newPair(f, c)
		d, _ := x.Seal(nil, []byte("a datagram"))
		f.Add(d, uint64(0), c == AES256GCM)
		f.Add(d[:20], uint64(1<<62), c == AES256GCM)
	}
	f.Fuzz(func(t *testing.T, b []byte, number uint64, aes bool) {
		c := ChaCha20Poly1305
		if aes {
			c = AES256GCM
		}
		x, y := newPair(t, c)
		valid, _ := x.Seal(nil, []byte("a datagram"))
		_, said, _ := key.Open(b)
		for _, n := range []uint64{number, said} {
			_, y := newPair(t, c)
			plain, err := y.Open(bytes.Clone(b), n)
			if (err == nil) != (bytes.Equal(b, valid) && n == 0) || err != nil && plain != nil {
				t.Fatalf("%x as number %d: %x, %v", b, n, plain, err)
			}
		}
		y.Open(bytes.Clone(b), number) //nolint:errcheck // whatever it is, the valid one still opens unless it was this one
		if plain, err := y.Open(bytes.Clone(valid), 0); err != nil && !(bytes.Equal(b, valid) && number == 0) {
			t.Fatalf("after %x the valid one: %x, %v", b, plain, err)
		}
	})
}
