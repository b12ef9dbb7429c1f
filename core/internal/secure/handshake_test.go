package secure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flynn/noise"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// script is a connection whose other end has said everything beforehand. What
// is written to it is kept.
type script struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func replay(in []byte) *script { return &script{in: bytes.NewReader(in)} }

func (s *script) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error) { return s.out.Write(b) }
func (s *script) Close() error                { return nil }

// seeded is a configuration whose identity is the seed of one repeated byte.
func seeded(t testing.TB, fill byte, network string) *Config {
	t.Helper()
	k, err := identity.FromSeed(bytes.Repeat([]byte{fill}, identity.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return &Config{
		Key: k, Network: NewNetwork(network), Seen: new(Seen),
		Hello: wire.Hello{Role: 1, AppID: []byte("app"), Instance: uint64(fill), Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 60000},
	}
}

// result is what one end of a handshake came to.
type result struct {
	link *Link
	err  error
}

// meet runs both ends over a pipe. The initiator's third flight is written with
// the bytes of extra behind it, in one write. Both ends are closed afterwards.
func meet(t testing.TB, initiator, responder *Config, expect identity.PeerID, extra func(*Link) []byte) (a, b result) {
	t.Helper()
	x, y := net.Pipe()
	done := make(chan result, 1)
	go func() {
		defer y.Close()
		l, err := Respond(y, responder)
		done <- result{l, err}
	}()
	a.link, a.err = Initiate(x, initiator, expect)
	if a.err == nil {
		out := a.link.First
		if extra != nil {
			out = append(out, extra(a.link)...)
		}
		_, a.err = x.Write(out)
	}
	x.Close()
	return a, <-done
}

func TestBothEndsLearnWhoTheOtherIs(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	b.Hello.AppID = nil
	x, y := meet(t, a, b, b.Key.ID(), nil)
	if x.err != nil || y.err != nil {
		t.Fatal(x.err, y.err)
	}
	want := a.Hello
	want.Version, want.Peer = wire.Version, a.Key.ID()
	if fmt.Sprint(y.link.Remote) != fmt.Sprint(want) {
		t.Errorf("the responder heard %+v, want %+v", y.link.Remote, want)
	}
	want = b.Hello
	want.Version, want.Peer = wire.Version, b.Key.ID()
	if fmt.Sprint(x.link.Remote) != fmt.Sprint(want) {
		t.Errorf("the initiator heard %+v, want %+v", x.link.Remote, want)
	}
	if !x.link.Initiator || y.link.Initiator || y.link.First != nil {
		t.Errorf("roles: %v, %v, %x", x.link.Initiator, y.link.Initiator, y.link.First)
	}
}

// Records that come in the same segment as the third flight are not lost.
func TestRecordsRightBehindTheThirdFlight(t *testing.T) {
	var sent []byte
	x, y := meet(t, seeded(t, 1, "n"), seeded(t, 2, "n"), identity.PeerID{}, func(l *Link) []byte {
		sent = l.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, []byte("claim"))
		return append(sent, l.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, []byte("more"))...)
	})
	if x.err != nil || y.err != nil {
		t.Fatal(x.err, y.err)
	}
	rest := y.link.Rest
	for _, want := range []string{"claim", "more"} {
		h, err := y.link.Open.Header(rest[:wire.SealedHeader])
		if err != nil || h.Len != len(want) {
			t.Fatal(h, err)
		}
		rest = rest[wire.SealedHeader:]
		body, err := y.link.Open.Body(nil, rest[:h.Len+wire.TagSize])
		if err != nil || string(body) != want {
			t.Fatalf("%q, %v", body, err)
		}
		rest = rest[h.Len+wire.TagSize:]
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes too many", len(rest))
	}
}

func TestCipherIsTheBestThatBothOffer(t *testing.T) {
	for _, c := range []struct {
		a, b uint8
		want Cipher
	}{
		{1, 1, ChaCha20Poly1305}, {3, 1, ChaCha20Poly1305}, {1, 3, ChaCha20Poly1305}, {3, 3, AES256GCM},
		{255, 3, AES256GCM}, {255, 1, ChaCha20Poly1305}, // bits of later versions
	} {
		a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
		a.Hello.Ciphers, b.Hello.Ciphers = c.a, c.b
		x, y := meet(t, a, b, identity.PeerID{}, nil)
		if x.err != nil || y.err != nil {
			t.Fatal(x.err, y.err)
		}
		if x.link.Cipher != c.want || y.link.Cipher != c.want {
			t.Errorf("%d and %d: %v and %v, want %v", c.a, c.b, x.link.Cipher, y.link.Cipher, c.want)
		}
	}
}

func TestAnotherNetworkNameGetsNoAnswer(t *testing.T) {
	for _, names := range [][2]string{{"a", "b"}, {"", "a"}, {"a", ""}, {"a", "a\x00"}, {"a", "A"}} {
		x, y := meet(t, seeded(t, 1, names[0]), seeded(t, 2, names[1]), identity.PeerID{}, nil)
		if !errors.Is(x.err, ErrNoAnswer) {
			t.Errorf("%q meets %q: the initiator got %v", names[0], names[1], x.err)
		}
		if y.err == nil {
			t.Errorf("%q meets %q: the responder accepted", names[0], names[1])
		}
	}
}

// Whoever answers in the place of the expected peer learns nothing of ours.
func TestSomebodyElseAnswers(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	expected := seeded(t, 3, "n").Key.ID()
	x, y := meet(t, a, b, expected, nil)
	if !errors.Is(x.err, ErrWrongPeer) || x.link != nil {
		t.Errorf("%v, %v", x.link, x.err)
	}
	if y.err == nil || y.link != nil {
		t.Errorf("the responder has a link to a peer that has hung up")
	}
}

// firstFlight returns a valid first flight.
func firstFlight(t testing.TB, cfg *Config) []byte {
	t.Helper()
	s := replay(nil)
	if _, err := Initiate(s, cfg, identity.PeerID{}); !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("with nobody there: %v", err)
	}
	return s.out.Bytes()
}

// noiseOf1 is the length of the first Noise message: the ephemeral key, the
// offer of four bytes and a tag.
const noiseOf1 = 32 + 4 + wire.TagSize

func TestFirstFlightCutOrFlippedIsAnsweredWithSilence(t *testing.T) {
	responder := seeded(t, 2, "n")
	for range 3 {
		flight := firstFlight(t, seeded(t, 1, "n"))
		for n := range flight {
			s := replay(flight[:n])
			if l, err := Respond(s, responder); err == nil || l != nil || s.out.Len() != 0 {
				t.Fatalf("cut to %d of %d bytes: %v, %d bytes of answer", n, len(flight), err, s.out.Len())
			}
		}
		// The padding authenticates nothing, and its length is malleable.
		const end = wire.FlightNonce + wire.FlightHeader + noiseOf1
		for n := range flight[:end] {
			if n == wire.FlightNonce+2 || n == wire.FlightNonce+3 {
				continue
			}
			for bit := range 8 {
				flight[n] ^= 1 << bit
				s := replay(flight)
				if l, err := Respond(s, responder); err == nil || l != nil || s.out.Len() != 0 {
					t.Fatalf("bit %d of byte %d flipped: %v, %d bytes of answer", bit, n, err, s.out.Len())
				}
				flight[n] ^= 1 << bit
			}
		}
		// Untouched it is answered: the loops above did not pass for another reason.
		s := replay(flight)
		if _, err := Respond(s, responder); s.out.Len() == 0 {
			t.Fatalf("the untouched flight: %v and no answer", err)
		}
	}
}

func TestReplayedFirstFlightIsAnsweredWithSilence(t *testing.T) {
	responder := seeded(t, 2, "n")
	flight := firstFlight(t, seeded(t, 1, "n"))
	for i := range 5 {
		s := replay(flight)
		_, err := Respond(s, responder)
		if answered := s.out.Len() > 0; answered != (i == 0) {
			t.Fatalf("time %d: %v, %d bytes of answer", i, err, s.out.Len())
		}
		if i > 0 && !errors.Is(err, ErrFirstFlight) {
			t.Errorf("time %d: %v", i, err)
		}
		// Other padding makes no other flight of it.
		flight = append(flight[:len(flight):len(flight)], make([]byte, 64)...)
	}
}

func TestRandomBytesAreAnsweredWithSilence(t *testing.T) {
	responder, r := seeded(t, 2, "n"), deterministic(7)
	var answered, waiting int
	for range 3000 {
		b := make([]byte, 3000)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		s := replay(b)
		_, err := Respond(s, responder)
		if s.out.Len() > 0 {
			answered++
		}
		if !errors.Is(err, ErrFirstFlight) {
			waiting++
		}
	}
	if answered != 0 || waiting != 0 {
		t.Errorf("of 3,000 runs of random bytes %d were answered, %d did not end as ErrFirstFlight", answered, waiting)
	}
}

// A flipped bit in the second or third flight ends the handshake.
func TestLaterFlightsFlipped(t *testing.T) {
	second, third := recorded(t)
	const head = wire.FlightNonce + wire.FlightHeader
	for name, f := range map[string]struct {
		flight []byte
		noise  int
		play   func([]byte) (*Link, error)
	}{
		"second": {second.flight, second.noise, second.play},
		"third":  {third.flight, third.noise, third.play},
	} {
		if l, err := f.play(f.flight); err != nil || l == nil {
			t.Fatalf("%s flight untouched: %v", name, err)
		}
		for n := range f.flight[:head+f.noise] {
			if n == wire.FlightNonce+2 || n == wire.FlightNonce+3 {
				continue // the length of the padding
			}
			b := bytes.Clone(f.flight)
			b[n] ^= 1 << (n % 8)
			if l, err := f.play(b); err == nil || l != nil {
				t.Fatalf("%s flight with bit %d of byte %d flipped was accepted", name, n%8, n)
			} else if !errors.Is(err, ErrHandshake) {
				t.Fatalf("%s flight flipped at %d: %v does not wrap ErrHandshake", name, n, err)
			}
		}
		for n := range f.flight[:head+f.noise] {
			if l, err := f.play(f.flight[:n]); err == nil || l != nil {
				t.Fatalf("%s flight cut to %d bytes was accepted", name, n)
			}
		}
	}
}

// part is one recorded flight, and how to play it to whom it was meant for.
type part struct {
	flight []byte
	noise  int
	play   func([]byte) (*Link, error)
}

// recorded returns the second and third flight of a handshake whose
// randomness is fixed, so that it can be played again and again.
func recorded(t testing.TB) (second, third part) {
	t.Helper()
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	initiator := func(in []byte) (*Link, *script, error) {
		cfg := *a
		cfg.Random = deterministic(11)
		s := replay(in)
		l, err := Initiate(s, &cfg, b.Key.ID())
		return l, s, err
	}
	responder := func(in []byte) (*Link, *script, error) {
		cfg := *b
		cfg.Random, cfg.Seen = deterministic(12), new(Seen)
		s := replay(in)
		l, err := Respond(s, &cfg)
		return l, s, err
	}
	_, s, _ := initiator(nil)
	first := bytes.Clone(s.out.Bytes())
	_, s, _ = responder(first)
	answer := bytes.Clone(s.out.Bytes())
	l, _, err := initiator(answer)
	if err != nil {
		t.Fatal(err)
	}
	hello := func(cfg *Config) int {
		h := cfg.Hello
		h.Peer = cfg.Key.ID()
		return len(h.Append(nil))
	}
	second = part{answer, 32 + 48 + hello(b) + 16, func(in []byte) (*Link, error) {
		l, _, err := initiator(in)
		return l, err
	}}
	third = part{l.First, 48 + hello(a) + 16, func(in []byte) (*Link, error) {
		l, _, err := responder(append(bytes.Clone(first), in...))
		return l, err
	}}
	return second, third
}

// deterministic is a stream of bytes that is the same for the same seed.
func deterministic(seed byte) io.Reader {
	n := NewNetwork(fmt.Sprintf("deterministic %d", seed))
	stream, err := n.maskStream(make([]byte, wire.FlightNonce))
	if err != nil {
		panic(err)
	}
	return readerFunc(func(b []byte) (int, error) {
		clear(b)
		stream.XORKeyStream(b, b)
		return len(b), nil
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// insiderInitiates is an initiator that knows the network name and puts what it
// likes into its payloads. It returns what the responder came to.
func insiderInitiates(t *testing.T, cfg, responder *Config, offer, hello []byte) result {
	t.Helper()
	x, y := net.Pipe()
	defer x.Close()
	done := make(chan result, 1)
	go func() {
		defer y.Close()
		l, err := Respond(y, responder)
		done <- result{l, err}
	}()
	h, err := start(x, cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	h.buf = make([]byte, 0, flightBuffer)
	message, _, _, err := h.state.WriteMessage(nil, offer)
	if err != nil {
		t.Fatal(err)
	}
	send(t, x, cfg, message)
	if message, _, err = h.readFlight(); err != nil {
		return <-done // the responder has hung up
	}
	if _, _, _, err = h.state.ReadMessage(nil, message); err != nil {
		t.Fatal(err)
	}
	if message, _, _, err = h.state.WriteMessage(nil, hello); err != nil {
		t.Fatal(err)
	}
	send(t, x, cfg, message)
	return <-done
}

// insiderResponds is the same for a responder.
func insiderResponds(t *testing.T, initiator, cfg *Config, hello []byte) result {
	t.Helper()
	x, y := net.Pipe()
	done := make(chan result, 1)
	go func() {
		defer x.Close()
		l, err := Initiate(x, initiator, identity.PeerID{})
		done <- result{l, err}
	}()
	defer y.Close()
	h, err := start(y, cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	h.buf = make([]byte, 0, flightBuffer)
	message, _, err := h.readFlight()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err = h.state.ReadMessage(nil, message); err != nil {
		t.Fatal(err)
	}
	if message, _, _, err = h.state.WriteMessage(nil, hello); err != nil {
		t.Fatal(err)
	}
	send(t, y, cfg, message)
	return <-done
}

func send(t *testing.T, conn net.Conn, cfg *Config, message []byte) {
	t.Helper()
	flight, err := cfg.appendFlight(nil, message)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(flight); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
}

// twin returns the id with the sign of x flipped, which has the same image on
// Curve25519.
func twin(id identity.PeerID) identity.PeerID { id[31] ^= 0x80; return id }

// smallOrder returns keys that no honest peer has: of small order or in an
// encoding that is not canonical, as Edwards y and as Montgomery u.
func smallOrder() []identity.PeerID {
	one := identity.PeerID{1} // the neutral element
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	encode := func(n *big.Int) (id identity.PeerID) {
		n.FillBytes(id[:])
		for i := range 16 {
			id[i], id[31-i] = id[31-i], id[i]
		}
		return id
	}
	minusOne := encode(new(big.Int).Sub(p, big.NewInt(1))) // of order 2
	nonCanonical := encode(new(big.Int).Add(p, big.NewInt(1)))
	return []identity.PeerID{one, minusOne, nonCanonical, encode(p)}
}

func TestIdentityThatIsNotHeld(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	other := seeded(t, 3, "n").Key.ID()
	claim := func(id identity.PeerID) []byte {
		h := a.Hello
		h.Version, h.Peer = wire.Version, id
		return h.Append(nil)
	}
	for _, id := range append(smallOrder(), other, b.Key.ID()) {
		if r := insiderInitiates(t, a, b, wire.AppendOffer(nil), claim(id)); !errors.Is(r.err, ErrHandshake) || r.link != nil {
			t.Errorf("an initiator that claims %s: %v", id, r.err)
		}
	}
	for _, id := range append(smallOrder(), other, a.Key.ID()) {
		h := b.Hello
		h.Version, h.Peer = wire.Version, id
		if r := insiderResponds(t, a, b, h.Append(nil)); !errors.Is(r.err, ErrHandshake) || r.link != nil {
			t.Errorf("a responder that claims %s: %v", id, r.err)
		}
	}
	// The same harness with the truth, so that the refusals mean something.
	if r := insiderInitiates(t, a, b, wire.AppendOffer(nil), claim(a.Key.ID())); r.err != nil || r.link.Remote.Peer != a.Key.ID() {
		t.Errorf("with its own id: %v", r.err)
	}
	// Documented in docs/PROTOCOL.md: one key, two ids.
	if r := insiderInitiates(t, a, b, wire.AppendOffer(nil), claim(twin(a.Key.ID()))); r.err != nil {
		t.Errorf("with the twin of its own id: %v", r.err)
	}
}

func TestMalformedPayloadsOfAnInsider(t *testing.T) {
	a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
	good := a.Hello
	good.Version, good.Peer = wire.Version, a.Key.ID()
	hello := good.Append(nil)
	for name, offer := range map[string][]byte{"empty": nil, "version 0": {1, 0, 1, 0}, "cut short": {1, 0}, "long": make([]byte, 900)} {
		r := insiderInitiates(t, a, b, offer, hello)
		if !errors.Is(r.err, ErrFirstFlight) {
			t.Errorf("offer %s: %v", name, r.err)
		}
	}
	for n := range hello[:len(hello)-6] {
		r := insiderInitiates(t, a, b, wire.AppendOffer(nil), hello[:n])
		if r.link == nil && errors.Is(r.err, ErrHandshake) {
			continue
		}
		if n != len(hello)-6-7 && n != len(hello)-6-14 { // without the optional fields at the end it is whole
			t.Errorf("a payload cut to %d of %d bytes: %v", n, len(hello), r.err)
		}
	}
}

// forgedDH hands out one public key, whatever the secret.
type forgedDH struct {
	sodiumDH
	public []byte
}

func (f forgedDH) GenerateKeypair(io.Reader) (noise.DHKey, error) {
	return noise.DHKey{Private: make([]byte, 32), Public: f.public}, nil
}

// forgeFirst returns a first Noise message that authenticates and whose
// ephemeral key is public.
func forgeFirst(t *testing.T, cfg *Config, prologue string, public []byte) []byte {
	t.Helper()
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(forgedDH{public: public}, sodiumChaChaPoly{}, sodiumBLAKE2b{}),
		Pattern:     noise.HandshakeXX, Initiator: true, Prologue: []byte(prologue), PresharedKey: cfg.Network.psk[:],
	})
	if err != nil {
		t.Fatal(err)
	}
	message, _, _, err := state.WriteMessage(nil, wire.AppendOffer(nil))
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// An ephemeral key of small order, which only a member of the network can send,
// is an error and no panic.
func TestLowOrderEphemeral(t *testing.T) {
	for _, point := range append(smallOrder(), identity.PeerID{}) {
		a, b := seeded(t, 1, "n"), seeded(t, 2, "n")
		forged := forgeFirst(t, a, "libcrust/1", point[:])
		flight, err := a.appendFlight(nil, forged)
		if err != nil {
			t.Fatal(err)
		}
		s := replay(flight)
		if l, err := Respond(s, b); l != nil || !errors.Is(err, ErrHandshake) {
			t.Errorf("ephemeral %x: %v", point[:4], err)
		}
		if s.out.Len() != 0 {
			t.Errorf("ephemeral %x got an answer of %d bytes", point[:4], s.out.Len())
		}
	}
}

// The longest flights that the protocol allows are read, and no longer ones.
func TestFlightBounds(t *testing.T) {
	cfg := seeded(t, 2, "n")
	for _, c := range []struct {
		noise, padding int
		ok             bool
	}{{1, 0, true}, {wire.MaxNoise, wire.MaxPadding, true}, {wire.MaxNoise + 1, 0, false}, {0, 0, false}, {1, wire.MaxPadding + 1, false}} {
		nonce := bytes.Repeat([]byte{9}, wire.FlightNonce)
		stream, err := cfg.Network.maskStream(nonce)
		if err != nil {
			t.Fatal(err)
		}
		plain := wire.AppendFlightHeader(nil, c.noise, c.padding)
		plain = append(plain, bytes.Repeat([]byte{0xab}, c.noise)...)
		plain = append(plain, make([]byte, c.padding)...)
		stream.XORKeyStream(plain, plain)
		h := &handshake{cfg: cfg, conn: replay(append(append(bytes.Clone(nonce), plain...), "tail"...)), buf: make([]byte, 0, flightBuffer)}
		message, _, err := h.readFlight()
		if (err == nil) != c.ok {
			t.Errorf("%d and %d: %v", c.noise, c.padding, err)
		}
		if err == nil && !bytes.Equal(message, bytes.Repeat([]byte{0xab}, c.noise)) {
			t.Errorf("%d and %d: read %d bytes", c.noise, c.padding, len(message))
		}
		if err == nil && !strings.HasPrefix("tail", string(h.buf)) {
			t.Errorf("%d and %d: %q is left", c.noise, c.padding, h.buf)
		}
	}
}

func TestSeenForgetsTheOldestOnly(t *testing.T) {
	var s Seen
	nonce := func(i int) []byte { return fmt.Appendf(nil, "%024d", i)[:wire.FlightNonce] }
	// The first 16 bytes count, so put the number in front.
	key := func(i int) []byte { return append(fmt.Appendf(nil, "%016d", i), nonce(0)[16:]...) }
	const n = 5 * seenGeneration
	for i := range n {
		if !s.Add(key(i)) {
			t.Fatalf("nonce %d is new and was refused", i)
		}
		if i%997 == 0 && (s.Add(key(i)) || s.Add(key(max(0, i-seenGeneration+1)))) {
			t.Fatalf("a nonce among the last %d was forgotten at %d", seenGeneration, i)
		}
	}
	if held := len(s.now) + len(s.old); held > 2*seenGeneration {
		t.Errorf("%d nonces are held, over %d", held, 2*seenGeneration)
	}
}

func TestSeenFromManyGoroutines(t *testing.T) {
	var s Seen
	var wg sync.WaitGroup
	won := make([]int, 8)
	for g := range won {
		wg.Go(func() {
			for i := range 5000 {
				if s.Add(fmt.Appendf(nil, "%024d", i<<8)[8:]) {
					won[g]++
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range won {
		total += n
	}
	if total != 5000 {
		t.Errorf("5,000 nonces were taken for new %d times", total)
	}
}

// A peer that stops in the middle holds a handshake only as long as the
// connection's deadline.
func TestDeadlineOfTheConnectionHolds(t *testing.T) {
	x, y := net.Pipe()
	defer x.Close()
	defer y.Close()
	if err := y.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := Respond(y, seeded(t, 2, "n")); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v is no timeout", err)
	}
}

// Of the padding that hides the lengths every value comes.
func TestFlightLengthsSpread(t *testing.T) {
	cfg := seeded(t, 1, "n")
	seen := map[int]int{}
	const shortest = wire.FlightNonce + wire.FlightHeader + noiseOf1
	for range 4000 {
		flight, err := cfg.appendFlight(nil, make([]byte, noiseOf1))
		if err != nil {
			t.Fatal(err)
		}
		seen[len(flight)]++
	}
	for n := shortest; n <= shortest+255; n++ {
		// 4,000 throws at 256 lengths miss one of them with probability 256 e^-15.6.
		if seen[n] == 0 {
			t.Errorf("no flight of %d bytes among 4,000", n)
		}
		delete(seen, n)
	}
	if len(seen) != 0 {
		t.Errorf("lengths out of bounds: %v", seen)
	}
}

// The secrets of a handshake are gone when it is over.
func TestSecretsAreErased(t *testing.T) {
	h, err := start(nil, seeded(t, 1, "n"), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := h.state.WriteMessage(nil, nil); err != nil {
		t.Fatal(err)
	}
	ephemeral := h.state.LocalEphemeral().Private
	if bytes.Equal(h.secret, make([]byte, 32)) || bytes.Equal(ephemeral, make([]byte, 32)) {
		t.Fatal("there were no secrets to erase")
	}
	h.erase()
	if !bytes.Equal(h.secret, make([]byte, 32)) || !bytes.Equal(ephemeral, make([]byte, 32)) {
		t.Error("a secret is still there")
	}
}
