package secure

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/flynn/noise"
	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20poly1305"
)

// goldenFlight is the randomness of one flight.
type goldenFlight struct {
	nonce  []byte
	length uint32 // modulo the number of lengths, above the least
}

func flightOf(fill byte, length uint32) goldenFlight {
	return goldenFlight{bytes.Repeat([]byte{fill}, wire.FlightNonce), length}
}

func (g goldenFlight) random() []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(g.nonce), g.length)
}

// TestVectorsOfDatagrams plays a handshake in datagrams with fixed randomness, with
// a cookie, and the datagrams behind it, and compares every byte with
// docs/PROTOCOL.md. The flights are made once more from the primitives.
func TestVectorsOfDatagrams(t *testing.T) {
	a := newGoldenSide(t, 1, 0x11, "initiator", nil, nil)
	b := newGoldenSide(t, 2, 0x22, "", nil, nil)
	network := a.cfg.Network
	offer1, offer2, finish := flightOf(0xa1, 10), flightOf(0xa2, 0), flightOf(0xa3, 20)
	cookie, answer := flightOf(0xb1, 3), flightOf(0xb2, 7)
	id := []byte{0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7}
	secret := bytes.Repeat([]byte{0xc0}, 32)
	cid := func(fill byte) []byte { return bytes.Repeat([]byte{fill}, 8) }
	keyA, err := NewHeaderKey(bytes.NewReader(bytes.Repeat([]byte{0x1a}, 16)))
	if err != nil {
		t.Fatal(err)
	}
	keyB, err := NewHeaderKey(bytes.NewReader(bytes.Repeat([]byte{0x1b}, 16)))
	if err != nil {
		t.Fatal(err)
	}
	a.cfg.Random = bytes.NewReader(bytes.Join([][]byte{id, a.ephemeral, offer1.random(), offer2.random(), finish.random()}, nil))
	b.cfg.Random = bytes.NewReader(bytes.Join([][]byte{secret, cookie.random(), cid(0x2b), b.ephemeral, answer.random()}, nil))
	r := NewResponder(ResponderConfig{Config: b.cfg, HeaderKey: keyB, Limit: 2})
	r.ages.PushBack(&half{until: time.Hour}) // half of its bound is reached

	local, err := keyA.Bind(bytes.NewReader(cid(0x2a)))
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewInitiator(a.cfg, b.cfg.Key.ID(), local)
	if err != nil {
		t.Fatal(err)
	}
	var wires [][]byte
	keep := func(d []byte, err error) Flight {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		wires = append(wires, d)
		return flown(t, network, d)
	}
	o1 := keep(i.Offer(nil))
	c := keep(r.Answer(nil, here, o1, 0))
	if err := i.Cookie(c); err != nil {
		t.Fatal(err)
	}
	o2 := keep(i.Offer(nil))
	an := keep(r.Answer(nil, here, o2, 0))
	x, err := i.Answer(an)
	if err != nil {
		t.Fatal(err)
	}
	fi := keep(i.Finish(nil))
	y, err := r.Finish(here, fi, 0)
	if err != nil {
		t.Fatal(err)
	}
	for who, cfg := range map[string]*Config{"initiator": a.cfg, "responder": b.cfg} {
		if n, _ := io.ReadFull(cfg.Random, make([]byte, 1)); n != 0 {
			t.Errorf("the %s left randomness unused", who)
		}
	}

	var s sheet
	s.section("the network and the sides are those of section 18")
	s.add("datagram", network.datagram[:])
	s.add("handshake id", id)
	s.add("initiator CID", cid(0x2a))
	s.add("initiator header key", keyA.key[:])
	s.add("responder CID", cid(0x2b))
	s.add("responder header key", keyB.key[:])
	s.section("the handshake")
	for n, f := range []struct {
		name   string
		flight Flight
		nonce  []byte
	}{{"first offer", o1, offer1.nonce}, {"cookie", c, cookie.nonce}, {"second offer", o2, offer2.nonce}, {"answer", an, answer.nonce}, {"finish", fi, finish.nonce}} {
		plain := f.flight.Append(nil, len(wires[n])-wire.FlightOverhead-len(f.flight.Noise))
		aead, err := chacha20poly1305.NewX(network.datagram[:])
		if err != nil {
			t.Fatal(err)
		}
		if again := aead.Seal(bytes.Clone(f.nonce), f.nonce, plain, nil); !bytes.Equal(again, wires[n]) {
			t.Errorf("%s:\n got %x\nwant %x", f.name, wires[n], again)
		}
		s.add(f.name+", plaintext without padding", f.flight.Append(nil, 0))
		s.add(f.name+", padding", binary.BigEndian.AppendUint16(nil, uint16(len(plain)-wire.DatagramFlightHead-len(f.flight.Noise))))
		s.add(f.name+", datagram", wires[n])
	}
	hash, forth, back := datagramKeys(t, b, Binding{CID: 0x2b2b2b2b2b2b2b2b, HeaderKey: keyB.key}, o2.Noise, an.Noise, fi.Noise)
	s.add("handshake hash", hash)
	s.add("key to responder", forth[:])
	s.add("key to initiator", back[:])
	s.datagrams(t, x, y, forth, back)
	compareWithDocument(t, "datagram vectors", s.String())
}

// datagramKeys plays the responder's part with the noise package's own suite.
func datagramKeys(t *testing.T, b *goldenSide, local Binding, n1, n2, n3 []byte) (hash []byte, forth, back [32]byte) {
	t.Helper()
	theirs := noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2b)
	static := b.cfg.Key.Static()
	pair, err := theirs.GenerateKeypair(bytes.NewReader(static[:]))
	if err != nil {
		t.Fatal(err)
	}
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: theirs, Random: bytes.NewReader(b.ephemeral), Pattern: noise.HandshakeXX, Prologue: []byte("libcrust/1 datagram"),
		PresharedKey: b.cfg.Network.psk[:], StaticKeypair: pair,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err = state.ReadMessage(nil, n1); err != nil {
		t.Fatal(err)
	}
	h := b.cfg.Hello
	h.Version, h.Peer = wire.Version, b.cfg.Key.ID()
	if got, _, _, err := state.WriteMessage(nil, local.Append(h.Append(nil))); err != nil || !bytes.Equal(got, n2) {
		t.Fatalf("%v\n got %x\nwant %x", err, got, n2)
	}
	_, c1, c2, err := state.ReadMessage(nil, n3)
	if err != nil {
		t.Fatal(err)
	}
	return state.ChannelBinding(), c1.UnsafeKey(), c2.UnsafeKey()
}

// datagrams adds datagrams of both directions and of the second epoch, in both
// ciphers; the ends, which have agreed on one, must agree with that.
func (s *sheet) datagrams(t *testing.T, x, y *Associated, forth, back [32]byte) {
	t.Helper()
	toB := Binding{CID: y.Local.CID, HeaderKey: y.Local.HeaderKey}
	toA := Binding{CID: x.Local.CID, HeaderKey: x.Local.HeaderKey}
	text := []byte("a datagram")
	s.section("sealed datagrams, each with this plaintext")
	s.add("plaintext", text)
	for _, c := range bothCiphers {
		s.section("in " + c.String())
		name := strings.ToLower(c.String()[:3])
		r := newRatchet(c, &forth)
		s.add(name+" chain of epoch 0 to responder", r.chain[:])
		key := keyed(r.chain, "key")
		s.add(name+" key of epoch 0 to responder", key[:])
		first := referenceDatagram(t, c, forth, toB, 0, text)
		second := referenceDatagram(t, c, back, toA, 1, text)
		s.add(name+" to responder, number 0", first)
		s.add(name+" to initiator, number 1", second)
		r.next()
		key = keyed(r.chain, "key")
		s.add(name+" key of epoch 1 to responder", key[:])
		s.add(name+" to responder, number 4194304", referenceDatagram(t, c, forth, toB, 1<<22, text))
		if c != x.Cipher {
			continue
		}
		if d, _ := x.Box.Seal(nil, text); !bytes.Equal(d, first) {
			t.Errorf("the initiator seals %x, want %x", d, first)
		}
		if plain, err := x.Box.Open(second, 1); err != nil || !bytes.Equal(plain, text) {
			t.Errorf("the initiator opens %q, %v", plain, err)
		}
		if plain, err := y.Box.Open(first, 0); err != nil || !bytes.Equal(plain, text) {
			t.Errorf("the responder opens %q, %v", plain, err)
		}
	}
}
