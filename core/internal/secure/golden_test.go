package secure

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flynn/noise"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

var update = flag.Bool("update", false, "write the test vectors into docs/PROTOCOL.md instead of checking them")

const (
	vectorsBegin = "<!-- %s: begin -->\n```\n"
	vectorsEnd   = "```\n<!-- %s: end -->\n"
)

// sheet collects named byte strings in the form of docs/PROTOCOL.md.
type sheet struct{ strings.Builder }

func (s *sheet) section(text string) { fmt.Fprintf(s, "# %s\n", text) }

func (s *sheet) add(name string, b []byte) {
	text := hex.EncodeToString(b)
	if len(text) <= 64 {
		fmt.Fprintln(s, strings.TrimSpace(name+": "+text))
		return
	}
	fmt.Fprintf(s, "%s:\n", name)
	for ; len(text) > 96; text = text[96:] {
		fmt.Fprintf(s, "  %s\n", text[:96])
	}
	fmt.Fprintf(s, "  %s\n", text)
}

// goldenSide is one end of the conversation in docs/PROTOCOL.md: its
// configuration, whose randomness is used up exactly, and the parts of that
// randomness.
type goldenSide struct {
	cfg       *Config
	ephemeral []byte
	nonces    [][]byte
	paddings  []byte
}

func newGoldenSide(t *testing.T, seed, ephemeral byte, appID string, nonces, paddings []byte) *goldenSide {
	t.Helper()
	g := &goldenSide{cfg: seeded(t, seed, goldenNetwork), ephemeral: bytes.Repeat([]byte{ephemeral}, 32), paddings: paddings}
	g.cfg.Hello = wire.Hello{
		Role: seed - 1, AppID: []byte(appID), Instance: 0x1011121314151600 + uint64(seed), Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120000, Resume: 30000,
	}
	random := bytes.Clone(g.ephemeral)
	for i, n := range nonces {
		g.nonces = append(g.nonces, bytes.Repeat([]byte{n}, wire.FlightNonce))
		random = append(append(random, g.nonces[i]...), paddings[i])
	}
	g.cfg.Random = bytes.NewReader(random)
	return g
}

const goldenNetwork = "libcrust test vectors"

// unmask returns the Noise message of a flight.
func unmask(t *testing.T, n *Network, flight []byte, padding byte) []byte {
	t.Helper()
	stream, err := n.maskStream(flight[:wire.FlightNonce])
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, len(flight)-wire.FlightNonce)
	stream.XORKeyStream(plain, flight[wire.FlightNonce:])
	noiseLen, padLen, err := wire.ParseFlightHeader(plain)
	if err != nil || padLen != int(padding) || wire.FlightHeader+noiseLen+padLen != len(plain) {
		t.Fatalf("a flight of %d bytes says %d and %d, %v", len(flight), noiseLen, padLen, err)
	}
	return plain[wire.FlightHeader : wire.FlightHeader+noiseLen]
}

// TestVectorsOfTheDocument plays one whole handshake with fixed randomness and
// the records behind it, and compares every byte with docs/PROTOCOL.md.
func TestVectorsOfTheDocument(t *testing.T) {
	a := newGoldenSide(t, 1, 0x11, "initiator", []byte{0xa1, 0xa3}, []byte{5, 0})
	b := newGoldenSide(t, 2, 0x22, "", []byte{0xb2}, []byte{33})
	first := replay(nil)
	_, err := Initiate(first, withRandom(a.cfg, a.ephemeral, a.nonces[0], a.paddings[0]), identity.PeerID{})
	if err == nil {
		t.Fatal("a handshake with nobody")
	}
	flight1 := first.out.Bytes()
	second := replay(flight1)
	if _, err := Respond(second, withRandom(b.cfg, b.ephemeral, b.nonces[0], b.paddings[0])); err == nil {
		t.Fatal("half a handshake")
	}
	flight2 := second.out.Bytes()
	third := replay(flight2)
	x, err := Initiate(third, a.cfg, b.cfg.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	y, err := Respond(replay(append(bytes.Clone(flight1), x.First...)), b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for who, cfg := range map[string]*Config{"initiator": a.cfg, "responder": b.cfg} {
		if n, _ := io.ReadFull(cfg.Random, make([]byte, 1)); n != 0 {
			t.Errorf("the %s left randomness unused", who)
		}
	}

	var s sheet
	network := a.cfg.Network
	s.section("the network")
	s.add("network name", []byte(goldenNetwork))
	root := keyed([32]byte{}, "libcrust/1 network\x00"+goldenNetwork)
	s.add("root", root[:])
	s.add("psk", network.psk[:])
	s.add("mask", network.mask[:])
	s.side(t, "initiator", a)
	s.side(t, "responder", b)

	s.section("the handshake")
	s.add("payload 1", wire.AppendOffer(nil))
	n1 := unmask(t, network, flight1, a.paddings[0])
	s.add("noise 1", n1)
	s.add("nonce 1", a.nonces[0])
	s.add("padding 1", []byte{0, a.paddings[0]})
	s.add("flight 1", flight1)
	hello := func(cfg *Config) []byte {
		h := cfg.Hello
		h.Version, h.Peer = wire.Version, cfg.Key.ID()
		return h.Append(nil)
	}
	s.add("payload 2", hello(b.cfg))
	n2 := unmask(t, network, flight2, b.paddings[0])
	s.add("noise 2", n2)
	s.add("nonce 2", b.nonces[0])
	s.add("padding 2", []byte{0, b.paddings[0]})
	s.add("flight 2", flight2)
	s.add("payload 3", hello(a.cfg))
	n3 := unmask(t, network, x.First, a.paddings[1])
	s.add("noise 3", n3)
	s.add("nonce 3", a.nonces[1])
	s.add("padding 3", []byte{0, a.paddings[1]})
	s.add("flight 3", x.First)
	hash, forth, back := rerun(t, b, n1, n2, n3)
	s.add("handshake hash", hash)
	s.add("key to responder", forth[:])
	s.add("key to initiator", back[:])
	if x.Seal.half.key != forth || y.Open.half.key != forth || x.Open.half.key != back || y.Seal.half.key != back {
		t.Error("the links have other keys than the Noise handshake")
	}
	s.records(t, forth, back)
	s.info(t, a.cfg.Key)
	compareWithDocument(t, "vectors", s.String())
}

// withRandom is cfg with one flight's worth of randomness and a memory of its own.
func withRandom(cfg *Config, ephemeral, nonce []byte, padding byte) *Config {
	c := *cfg
	c.Random = bytes.NewReader(append(append(bytes.Clone(ephemeral), nonce...), padding))
	c.Seen = new(Seen)
	return &c
}

func (s *sheet) side(t *testing.T, name string, g *goldenSide) {
	t.Helper()
	s.section("the " + name)
	s.add(name+" seed", g.cfg.Key.Seed())
	id := g.cfg.Key.ID()
	s.add(name+" peer id", id[:])
	static := g.cfg.Key.Static()
	s.add(name+" static secret", static[:])
	public, err := id.Curve25519()
	if err != nil {
		t.Fatal(err)
	}
	s.add(name+" static public", public[:])
	pair, err := suite.GenerateKeypair(bytes.NewReader(g.ephemeral))
	if err != nil {
		t.Fatal(err)
	}
	s.add(name+" ephemeral secret", pair.Private)
	s.add(name+" ephemeral public", pair.Public)
	s.add(name+" role", []byte{g.cfg.Hello.Role})
	s.add(name+" app id", g.cfg.Hello.AppID)
	s.add(name+" instance", binary.BigEndian.AppendUint64(nil, g.cfg.Hello.Instance))
}

// rerun plays the responder's part of the Noise handshake with the noise
// package's own cipher suite, so that the vectors do not rest on ours alone.
func rerun(t *testing.T, b *goldenSide, n1, n2, n3 []byte) (hash []byte, forth, back [32]byte) {
	t.Helper()
	theirs := noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2b)
	static := b.cfg.Key.Static()
	pair, err := theirs.GenerateKeypair(bytes.NewReader(static[:]))
	if err != nil {
		t.Fatal(err)
	}
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: theirs, Random: bytes.NewReader(b.ephemeral), Pattern: noise.HandshakeXX, Prologue: []byte("libcrust/1"),
		PresharedKey: b.cfg.Network.psk[:], PresharedKeyPlacement: 0, StaticKeypair: pair,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err = state.ReadMessage(nil, n1); err != nil {
		t.Fatal(err)
	}
	h := b.cfg.Hello
	h.Version, h.Peer = wire.Version, b.cfg.Key.ID()
	if got, _, _, err := state.WriteMessage(nil, h.Append(nil)); err != nil || !bytes.Equal(got, n2) {
		t.Fatalf("%v\n got %x\nwant %x", err, got, n2)
	}
	_, c1, c2, err := state.ReadMessage(nil, n3)
	if err != nil {
		t.Fatal(err)
	}
	return state.ChannelBinding(), c1.UnsafeKey(), c2.UnsafeKey()
}

// records adds the first record of each direction, and the first after a change
// of key, in both ciphers.
func (s *sheet) records(t *testing.T, forth, back [32]byte) {
	t.Helper()
	claim := wire.Claim{Seq: 1}.Append(nil)
	chosen := wire.Chosen{Session: wire.SessionID(bytes.Repeat([]byte{0x77}, 16))}.Append(nil)
	piece := bytes.Repeat([]byte{0x5a}, 20)
	s.section("the plaintext of the records below")
	s.add("header A", wire.Header{Type: wire.TypeControl, Len: len(claim)}.Append(nil))
	s.add("body A (claim)", claim)
	s.add("header B", wire.Header{Type: wire.TypeControl, Len: len(chosen)}.Append(nil))
	s.add("body B (chosen)", chosen)
	s.add("header C", wire.Header{Type: wire.TypePiece, Priority: 3, Len: 20, Left: 20000}.Append(nil))
	s.add("body C (piece)", piece)
	for _, c := range bothCiphers {
		s.section("records in " + c.String())
		out, err := newHalf(c, forth)
		if err != nil {
			t.Fatal(err)
		}
		in, err := newHalf(c, back)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(c.String()[:3])
		s.add(name+" key to responder", out.key[:])
		s.add(name+" key to initiator", in.key[:])
		s.add(name+" to responder, nonces 0 and 1, record A", Sealer{out}.Seal(nil, wire.Header{Type: wire.TypeControl}, claim))
		s.add(name+" to initiator, nonces 0 and 1, record B", Sealer{in}.Seal(nil, wire.Header{Type: wire.TypeControl}, chosen))
		buf := make([]byte, 0, 200)
		for out.n < wire.RekeyInterval {
			Sealer{out}.Seal(buf, wire.Header{Type: wire.TypeFrames}, nil)
		}
		record := Sealer{out}.Seal(nil, wire.Header{Type: wire.TypePiece, Priority: 3, Left: 20000}, piece)
		s.add(name+" key to responder after the rekey", out.key[:])
		s.add(name+" to responder, nonces 65536 and 65537, record C", record)
	}
}

// info adds a connection info and a contact record.
func (s *sheet) info(t *testing.T, key *identity.Key) {
	t.Helper()
	i := wire.Info{Peer: key.ID(), Expires: 0x0000000070000000, Endpoints: []endpoint.Endpoint{
		endpoint.New(endpoint.TCP, netip.MustParseAddrPort("203.0.113.5:5483")),
		endpoint.New(endpoint.TCP, netip.MustParseAddrPort("[2001:db8::1]:5483")),
	}}
	for n := range i.Nonce {
		i.Nonce[n] = byte(n)
	}
	s.section("a connection info of the initiator")
	s.add("connection info", i.Append(nil, key.Sign))
	c := wire.Contact{Peer: key.ID(), Seq: 0x0199c0ffee00, Life: 7200, Flags: wire.ContactRelay | wire.ContactDirect, Endpoints: i.Endpoints}
	s.section("a contact record of the initiator")
	s.add("contact record", c.Append(nil, key.Sign))
}

// compareWithDocument holds text against the vectors of that name.
func compareWithDocument(t *testing.T, name, text string) {
	t.Helper()
	begin, end := fmt.Sprintf(vectorsBegin, name), fmt.Sprintf(vectorsEnd, name)
	path := filepath.Join("..", "..", "..", "docs", "PROTOCOL.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the %s", path, name)
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+text+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, want := strings.Split(text, "\n"), strings.Split(old, "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("line %d of the %s in docs/PROTOCOL.md differs: got %q", i+1, name, got[min(i, len(got)-1)])
		}
	}
}
