package secure

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/flynn/noise"
)

// hexBytes is a byte string that JSON holds in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// vector is one conversation in the form that the Noise projects share.
type vector struct {
	Name         string     `json:"protocol_name"`
	InitPrologue hexBytes   `json:"init_prologue"`
	RespPrologue hexBytes   `json:"resp_prologue"`
	InitStatic   hexBytes   `json:"init_static"`
	RespStatic   hexBytes   `json:"resp_static"`
	InitEphem    hexBytes   `json:"init_ephemeral"`
	RespEphem    hexBytes   `json:"resp_ephemeral"`
	InitRemote   hexBytes   `json:"init_remote_static"`
	RespRemote   hexBytes   `json:"resp_remote_static"`
	InitPSKs     []hexBytes `json:"init_psks"`
	RespPSKs     []hexBytes `json:"resp_psks"`
	Hash         hexBytes   `json:"handshake_hash"`
	Messages     []struct {
		Payload    hexBytes `json:"payload"`
		Ciphertext hexBytes `json:"ciphertext"`
	} `json:"messages"`
}

var basePatterns = map[string]noise.HandshakePattern{
	"NN": noise.HandshakeNN, "KN": noise.HandshakeKN, "NK": noise.HandshakeNK, "KK": noise.HandshakeKK,
	"NX": noise.HandshakeNX, "KX": noise.HandshakeKX, "XN": noise.HandshakeXN, "IN": noise.HandshakeIN,
	"XK": noise.HandshakeXK, "IK": noise.HandshakeIK, "XX": noise.HandshakeXX, "IX": noise.HandshakeIX,
	"N": noise.HandshakeN, "K": noise.HandshakeK, "X": noise.HandshakeX,
}

var patternName = regexp.MustCompile(`^([A-Z]+)((?:psk[0-3]\+?)*)$`)

// side is one end of a vector's conversation.
type side struct {
	state    *noise.HandshakeState
	psks     map[int][]byte // of each placement
	out, in  *noise.CipherState
	finished bool
}

// placeAt is the number of the message that holds psk placement p.
func placeAt(p int) int { return max(p-1, 0) }

// newSide makes an end. The noise package knows one psk; the further ones of a
// name such as XXpsk0+psk2 are put into the pattern here, and handed over
// before the message that uses them.
func newSide(t *testing.T, v vector, initiator bool) *side {
	t.Helper()
	parts := patternName.FindStringSubmatch(strings.Split(v.Name, "_")[1])
	if parts == nil {
		t.Fatalf("a name that is not understood: %s", v.Name)
	}
	base, ok := basePatterns[parts[1]]
	if !ok {
		t.Fatalf("an unknown pattern: %s", v.Name)
	}
	prologue, static, ephemeral, remote, psks := v.RespPrologue, v.RespStatic, v.RespEphem, v.RespRemote, v.RespPSKs
	if initiator {
		prologue, static, ephemeral, remote, psks = v.InitPrologue, v.InitStatic, v.InitEphem, v.InitRemote, v.InitPSKs
	}
	config := noise.Config{
		CipherSuite: Suite(), Random: bytes.NewReader(ephemeral), Initiator: initiator, Prologue: prologue, PeerStatic: remote,
	}
	if static != nil {
		pair, err := Suite().GenerateKeypair(bytes.NewReader(static))
		if err != nil {
			t.Fatal(err)
		}
		config.StaticKeypair = pair
	}
	s := &side{psks: map[int][]byte{}}
	pattern := noise.HandshakePattern{
		Name: base.Name, InitiatorPreMessages: base.InitiatorPreMessages, ResponderPreMessages: base.ResponderPreMessages,
		Messages: append([][]noise.MessagePattern(nil), base.Messages...),
	}
	if parts[2] != "" {
		names := strings.Split(parts[2], "+")
		for i, name := range names {
			place, err := strconv.Atoi(strings.TrimPrefix(name, "psk"))
			if err != nil || len(psks) != len(names) {
				t.Fatalf("%s with %d psks", v.Name, len(psks))
			}
			s.psks[placeAt(place)] = psks[i]
			if i == len(names)-1 {
				config.PresharedKey, config.PresharedKeyPlacement = psks[0], place
				continue
			}
			pattern.Name += name + "+"
			tokens := &pattern.Messages[placeAt(place)]
			if place == 0 {
				*tokens = append([]noise.MessagePattern{noise.MessagePatternPSK}, *tokens...)
			} else {
				*tokens = append((*tokens)[:len(*tokens):len(*tokens)], noise.MessagePatternPSK)
			}
		}
	}
	config.Pattern = pattern
	var err error
	if s.state, err = noise.NewHandshakeState(config); err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return s
}

func (s *side) prepare(t *testing.T, message int) {
	t.Helper()
	if psk := s.psks[message]; psk != nil {
		if err := s.state.SetPresharedKey(psk); err != nil {
			t.Fatal(err)
		}
	}
}

// runVector plays a conversation and compares every message.
func runVector(t *testing.T, v vector) {
	a, b := newSide(t, v, true), newSide(t, v, false)
	oneWay := len(strings.TrimRight(strings.Split(v.Name, "_")[1], "psk0123+")) == 1
	for i, m := range v.Messages {
		from, to := a, b
		if i%2 == 1 && !oneWay {
			from, to = b, a
		}
		var cipher, plain []byte
		var err error
		if !from.finished {
			from.prepare(t, i)
			to.prepare(t, i)
			var c1, c2, d1, d2 *noise.CipherState
			if cipher, c1, c2, err = from.state.WriteMessage(nil, m.Payload); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			if plain, d1, d2, err = to.state.ReadMessage(nil, m.Ciphertext); err != nil {
				t.Fatalf("message %d of the other project does not authenticate: %v", i, err)
			}
			if c1 != nil {
				from.finish(c1, c2, from == a)
				to.finish(d1, d2, to == a)
				if v.Hash != nil && !bytes.Equal(from.state.ChannelBinding(), v.Hash) {
					t.Errorf("handshake hash %x", from.state.ChannelBinding())
				}
			}
		} else {
			if cipher, err = from.out.Encrypt(nil, nil, m.Payload); err != nil {
				t.Fatal(err)
			}
			if plain, err = to.in.Decrypt(nil, nil, m.Ciphertext); err != nil {
				t.Fatalf("message %d of the other project does not authenticate: %v", i, err)
			}
		}
		if !bytes.Equal(cipher, m.Ciphertext) {
			t.Fatalf("message %d\n got %x\nwant %x", i, cipher, []byte(m.Ciphertext))
		}
		if !bytes.Equal(plain, m.Payload) {
			t.Fatalf("payload %d\n got %x\nwant %x", i, plain, []byte(m.Payload))
		}
	}
	if !a.finished || !b.finished {
		t.Error("the conversation ends before the handshake does")
	}
}

// finish takes the two keys of a handshake: first the initiator's.
func (s *side) finish(c1, c2 *noise.CipherState, initiator bool) {
	s.finished, s.out, s.in = true, c1, c2
	if !initiator {
		s.out, s.in = c2, c1
	}
}

// TestNoiseVectors holds the libsodium suite against conversations written by
// other implementations: see testdata/noise/README.md. The counts are there so
// that a file that has become empty cannot pass.
func TestNoiseVectors(t *testing.T) {
	names := map[string]int{}
	for file, count := range map[string]int{"cacophony.json": 36, "snow.json": 25, "snow-xxpsk0.json": 2} {
		text, err := os.ReadFile(filepath.Join("testdata", "noise", file))
		if err != nil {
			t.Fatal(err)
		}
		var all struct {
			Vectors []vector `json:"vectors"`
		}
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(all.Vectors) != count {
			t.Errorf("%s holds %d conversations, want %d", file, len(all.Vectors), count)
		}
		for _, v := range all.Vectors {
			names[v.Name]++
			if len(v.Messages) == 0 {
				t.Errorf("%s: %s has no messages", file, v.Name)
			}
			t.Run(strings.TrimSuffix(file, ".json")+"/"+strings.Split(v.Name, "_")[1], func(t *testing.T) { runVector(t, v) })
		}
	}
	for _, ours := range []string{"XX", "XXpsk0", "XXpsk0+psk2", "XXpsk0+psk3", "XXpsk3"} {
		if names["Noise_"+ours+"_25519_ChaChaPoly_BLAKE2b"] == 0 {
			t.Errorf("no conversation of %s, the handshake of libcrust or its neighbour", ours)
		}
	}
}
