package secure

import (
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
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
