package secure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// madeAt is when the keys of the tests are made.
var madeAt = time.UnixMilli(1_800_000_000_000)

// oneTime makes a key that is good for ten minutes.
func oneTime(t testing.TB, c *Config) (wire.OneTimeKey, *OneTime) {
	t.Helper()
	public, secret, err := c.NewOneTime(1, madeAt.Add(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return public[0], secret[0]
}

// calls makes a call over one end of a pipe. The peer at the other end answers with key,
// unless that is nil. first is given what the caller has made of the key that it got
// meanwhile, before the peer answers.
type called struct {
	early  *Link // by the key
	link   *Link
	rest   []byte
	was    bool
	err    error
	peer   result
	behind []byte // what was sealed behind the third flight
}

func callWith(t testing.TB, a, b *Config, got *wire.OneTimeKey, has *OneTime) (c called) {
	t.Helper()
	x, y := net.Pipe()
	call, err := NewCall(x, a, b.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got != nil {
		if c.early, err = call.Early(got, madeAt); err != nil {
			t.Fatal(err)
		}
	}
	answered := make(chan result, 1)
	go func() {
		defer y.Close()
		var r result
		if has != nil {
			r.link, r.err = RespondOnce(y, b, has)
		} else {
			r.link, r.err = Respond(y, b)
		}
		answered <- r
	}()
	c.link, c.rest, c.was, c.err = call.Shake()
	if c.err == nil {
		out := append([]byte(nil), c.link.First...)
		c.behind = c.link.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, []byte("first message"))
		_, c.err = x.Write(append(out, c.behind...))
	}
	x.Close()
	c.peer = <-answered
	return c
}

// opened returns what a link has read behind its handshake.
func opened(t testing.TB, l *Link) string {
	t.Helper()
	h, err := l.Open.Header(l.Rest[:wire.SealedHeader])
	if err != nil {
		t.Fatal(err)
	}
	body, err := l.Open.Body(nil, l.Rest[wire.SealedHeader:wire.SealedHeader+h.Len+wire.TagSize])
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestEarlyCall: who has a key of the peer has the link, and can seal, before the peer has
// said anything; the peer's answer is what the caller has made itself, and both then have
// the same link.
func TestEarlyCall(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	public, secret := oneTime(t, b)
	c := callWith(t, a, b, &public, secret)
	if c.err != nil || c.peer.err != nil {
		t.Fatal(c.err, c.peer.err)
	}
	if !c.was || c.link != c.early {
		t.Fatal("the peer has answered with the key, and it does not count")
	}
	if got := opened(t, c.peer.link); got != "first message" {
		t.Errorf("%q", got)
	}
	if c.link.Remote.Peer != b.Key.ID() || c.peer.link.Remote.Peer != a.Key.ID() {
		t.Error("the ends do not know each other")
	}
	if c.link.Remote.Flags&wire.FlagReady == 0 || !bytes.Equal(c.link.Remote.AppID, b.Hello.AppID) {
		t.Errorf("the hello is %+v", c.link.Remote)
	}
	if !bytes.Equal(secret.pair.Private, make([]byte, 32)) {
		t.Error("the secret half is still there")
	}
}

// TestKeyIsNotUsed: when the peer answers without the key, with another key, or
// with the key of somebody else's call, the handshake is an ordinary one; what was sealed
// for the key is not the link's.
func TestKeyIsNotUsed(t *testing.T) {
	for _, name := range []string{"none", "another"} {
		a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
		public, secret := oneTime(t, b)
		_, other := oneTime(t, b)
		has := other
		if name == "none" {
			has = nil
		}
		c := callWith(t, a, b, &public, has)
		if c.err != nil || c.peer.err != nil {
			t.Fatal(name, c.err, c.peer.err)
		}
		if c.was || c.link == c.early {
			t.Errorf("%s: the peer seems to have the key", name)
		}
		if got := opened(t, c.peer.link); got != "first message" {
			t.Errorf("%s: %q", name, got)
		}
		if c.early.Seal.half.key == c.link.Seal.half.key || c.early.Open.half.key == c.link.Open.half.key {
			t.Errorf("%s: the void link has the keys of the other one", name)
		}
		_ = secret
	}
}

// TestKeysThatAreRefused: a key that is not the peer's own, of this time and as it was
// signed, is not used. The call goes on without.
func TestKeysThatAreRefused(t *testing.T) {
	a, b, evil := seeded(t, 1, "n"), seeded(t, 2, "n"), seeded(t, 3, "n")
	good, _ := oneTime(t, b)
	of := func(c *Config) wire.OneTimeKey { k, _ := oneTime(t, c); return k }
	resigned := good // by who relays it
	resigned.Public = of(evil).Public
	resigned.Signature = [64]byte(evil.Key.Sign(resigned.Signed()))
	borrowed := good // with the signature of another key
	borrowed.Public = of(b).Public
	posing := of(evil) // the hello says that it is b
	posing.Hello = good.Hello
	posing.Signature = [64]byte(evil.Key.Sign(posing.Signed()))
	foreign := good // signed by b, but the hello is of another peer
	foreign.Hello = of(evil).Hello
	foreign.Signature = [64]byte(b.Key.Sign(foreign.Signed()))
	garbled := good
	garbled.Hello = []byte{1}
	garbled.Signature = [64]byte(b.Key.Sign(garbled.Signed()))
	small := good
	small.Public = [32]byte{}
	small.Signature = [64]byte(b.Key.Sign(small.Signed()))
	later := good
	later.Until++
	for name, c := range map[string]struct {
		key wire.OneTimeKey
		at  time.Time
	}{
		"another peer's":       {of(evil), madeAt},
		"of the relay":         {resigned, madeAt},
		"another signature":    {borrowed, madeAt},
		"somebody poses":       {posing, madeAt},
		"hello of another":     {foreign, madeAt},
		"no hello":             {garbled, madeAt},
		"a key of small order": {small, madeAt},
		"prolonged":            {later, madeAt},
		"too old":              {good, madeAt.Add(time.Hour)},
		"of the future":        {good, madeAt.Add(-time.Hour)},
	} {
		conn := replay(nil)
		call, err := NewCall(conn, a, b.Key.ID())
		if err != nil {
			t.Fatal(err)
		}
		if link, err := call.Early(&c.key, c.at); link != nil || !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := call.Early(&good, madeAt); err != nil {
			t.Errorf("%s: a good key then: %v", name, err)
		}
		if _, err := call.Early(&good, madeAt); !errors.Is(err, ErrTooLate) {
			t.Errorf("%s: twice: %v", name, err)
		}
		call.Drop()
		if _, err := call.Early(&good, madeAt); !errors.Is(err, ErrTooLate) {
			t.Errorf("%s: in the end: %v", name, err)
		}
	}
	call, err := NewCall(replay(nil), a, identity.PeerID{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call.Early(&good, madeAt); !errors.Is(err, ErrKey) {
		t.Errorf("nobody is expected: %v", err)
	}
}

// TestKeyForTwo: of two who get the same key one has a link by it. The other one, whose
// peer has the secret no more, goes on as without.
func TestKeyForTwo(t *testing.T) {
	b := seeded(t, 2, "n")
	public, secret := oneTime(t, b)
	first := callWith(t, seeded(t, 1, "n"), b, &public, secret)
	second := callWith(t, seeded(t, 3, "n"), b, &public, nil)
	if first.err != nil || second.err != nil || first.peer.err != nil || second.peer.err != nil {
		t.Fatal(first.err, second.err, first.peer.err, second.peer.err)
	}
	if !first.was || second.was {
		t.Errorf("by the key: %v, %v", first.was, second.was)
	}
	if opened(t, second.peer.link) != "first message" {
		t.Error("the second one cannot be understood")
	}
}

// saidEarly is a call that goes on by a one-time key, and all that goes out on it: its
// flights, and "first message".
func saidEarly(t *testing.T, a, b *Config, public *wire.OneTimeKey) (*Call, []byte) {
	t.Helper()
	call, err := NewCall(replay(nil), a, b.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	early, err := call.Early(public, madeAt)
	if err != nil {
		t.Fatal(err)
	}
	all := append(bytes.Clone(call.flight), early.First...)
	return call, early.Seal.Seal(all, wire.Header{Type: wire.TypeFrames}, []byte("first message"))
}

// TestEarlyCallReplayed: who has recorded all that a caller has sent for a key, flights
// and messages, gets nothing for it: the peer has seen the first flight, and once it runs
// anew it has the key no more.
func TestEarlyCallReplayed(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	public, secret := oneTime(t, b)
	kept := *secret
	kept.pair.Private = bytes.Clone(secret.pair.Private)
	call, all := saidEarly(t, a, b, &public)

	link, err := RespondOnce(replay(all), b, secret)
	if err != nil || opened(t, link) != "first message" {
		t.Fatal("the first time: ", err)
	}
	if _, err := Respond(replay(all), b); !errors.Is(err, ErrFirstFlight) {
		t.Errorf("the second time: %v", err)
	}
	// In another flight, as only a member of the network can make it.
	masked, err := seeded(t, 4, "n").appendFlight(nil, call.offer)
	if err != nil {
		t.Fatal(err)
	}
	again := append(masked, all[len(call.flight):]...)
	if _, err := RespondOnce(replay(again), b, &kept); !errors.Is(err, ErrFirstFlight) {
		t.Errorf("the second time, in another flight and with the key: %v", err)
	}
	restarted := seeded(t, 2, "n")
	if _, err := Respond(replay(all), restarted); err == nil || errors.Is(err, ErrFirstFlight) {
		t.Errorf("after a restart: %v", err)
	}
	_, other := oneTime(t, restarted)
	restarted.Seen = new(Seen)
	if _, err := RespondOnce(replay(all), restarted, other); err == nil || !strings.Contains(err.Error(), "third flight") {
		t.Errorf("after a restart, with another key: %v", err)
	}
}

// TestEarlyFlightIsRemembered: what was answered with a one-time key is not answered again
// after however many other first flights.
func TestEarlyFlightIsRemembered(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	b.Early = new(Seen)
	public, secret := oneTime(t, b)
	call, all := saidEarly(t, a, b, &public)
	if _, err := RespondOnce(replay(all), b, secret); err != nil {
		t.Fatal(err)
	}
	for n := range uint64(3 * seenGeneration) {
		b.Seen.Add(binary.BigEndian.AppendUint64(make([]byte, 8, 16), n))
	}
	if b.Seen.Has([]byte(call.offer)) {
		t.Error("the flight is not forgotten, and so nothing is shown")
	}
	if _, err := Respond(replay(all), b); !errors.Is(err, ErrFirstFlight) {
		t.Errorf("the second time: %v", err)
	}
}

// TestEarlyCallIsForwardSecret: with the long-term keys of both, and all that went over
// the network, and the public key, but without the one-time secret, which is erased,
// what was sent early cannot be opened.
func TestEarlyCallIsForwardSecret(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	public, _ := oneTime(t, b)
	_, all := saidEarly(t, a, b, &public)
	thief := seeded(t, 2, "n") // it has b's key, and makes a key pair of its own
	_, own := oneTime(t, thief)
	for name, with := range map[string]*OneTime{"its own": own, "with the public half": {Name: public.Name(), pair: own.pair, hello: own.hello}} {
		secret := *with
		secret.pair.Private = bytes.Clone(own.pair.Private)
		if name != "its own" {
			secret.pair.Public = public.Public[:]
		}
		thief.Seen = new(Seen)
		if link, err := RespondOnce(replay(all), thief, &secret); link != nil || err == nil {
			t.Errorf("%s: the thief reads what was sent", name)
		}
	}
}

// TestOneTimeKeyOfTheDocument holds a key and what is made of it against docs/PROTOCOL.md.
func TestOneTimeKeyOfTheDocument(t *testing.T) {
	a := newGoldenSide(t, 1, 0x11, "initiator", []byte{0xa1, 0xa3}, []byte{5, 0})
	b := newGoldenSide(t, 2, 0x22, "", []byte{0xb2}, []byte{33})
	maker := *b.cfg
	maker.Random = bytes.NewReader(b.ephemeral)
	public, secret := oneTime(t, &maker)
	conn := replay(nil)
	call, err := NewCall(conn, a.cfg, b.cfg.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	early, err := call.Early(&public, madeAt)
	if err != nil {
		t.Fatal(err)
	}
	third := bytes.Clone(early.First)
	answer := replay(append(bytes.Clone(call.flight), third...))
	responder := *b.cfg
	responder.Random = bytes.NewReader(append(bytes.Clone(b.nonces[0]), b.paddings[0]))
	link, err := RespondOnce(answer, &responder, secret)
	if err != nil {
		t.Fatal(err)
	}
	network := a.cfg.Network
	if second := unmask(t, network, answer.out.Bytes(), b.paddings[0]); !bytes.Equal(second, call.second) {
		t.Fatalf("the peer says %x, and what is made up is %x", second, call.second)
	}
	var s sheet
	s.add("signed", public.Signed())
	s.add("RelayKeys", wire.RelayKeys{Anew: true, Keys: []wire.OneTimeKey{public}}.Append(nil))
	s.add("RelayKey, id 2", wire.AppendRelayKey(nil, 2, &public))
	name := public.Name()
	s.add("name", name[:])
	s.add("RelayOpen to the target, id 3", wire.RelayOpen{ID: 3, From: true, Keyed: true, Peer: a.cfg.Key.ID(), Key: name}.Append(nil))
	s.add("noise 2", call.second)
	s.add("noise 3", unmask(t, network, third, a.paddings[1]))
	s.add("RelayEarly, id 2, with flight 3", wire.AppendRelayEarly(nil, 2, name, third))
	s.add("key to responder", link.Open.half.key[:])
	s.add("key to initiator", link.Seal.half.key[:])
	if link.Open.half.key != early.Seal.half.key || link.Seal.half.key != early.Open.half.key {
		t.Error("the ends have different keys")
	}
	compareWithDocument(t, "one-time key", s.String())
}
