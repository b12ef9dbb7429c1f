package secure

import (
	"errors"
	"fmt"

	"github.com/flynn/noise"
	"github.com/libcrust/libcrust/core/identity"
)

// A letter is a message to a peer that is carried by others: they see for whom
// it is, no more: all that say little are of one length. It is one Noise message of pattern
// Xpsk0, so that only the reader can open it, and knows who wrote it. As with any
// one-way pattern, whoever gets the reader's identity key later can open letters
// that were kept: they hold addresses, and nothing of a session. Who keeps a letter
// can also deliver it again: its content must say which meeting it is for.

const (
	letterPrologue = "libcrust/1 letter"
	// LetterSize is the size of letters, so that their length tells nothing; it is paid
	// for what the reader sends because of one. Of longer ones the plaintext's length is
	// a multiple of letterStep.
	LetterSize = 640
	letterStep = 64
	// letterFixed is what Noise adds to the payload: the ephemeral key, the
	// static key and its tag, the payload's tag.
	letterFixed = 32 + 32 + 16 + 16
	letterHead  = identity.IDSize + 2
	// LetterOverhead is by how much a letter is longer than its content at most, when
	// it is longer than LetterSize.
	LetterOverhead = letterFixed + letterHead + letterStep - 1
)

// ErrLetter means that a letter is for somebody else, from another network, or
// was changed.
var ErrLetter = errors.New("the letter cannot be opened")

// letter prepares the one Noise message.
func (c *Config) letter(initiator bool, to []byte) (*noise.HandshakeState, func(), error) {
	static := c.Key.Static()
	public := c.Key.StaticPublic()
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: suite, Random: c.random(), Pattern: noise.HandshakeX, Initiator: initiator,
		Prologue: []byte(letterPrologue), PresharedKey: c.Network.psk[:], PresharedKeyPlacement: 0,
		StaticKeypair: noise.DHKey{Private: static[:], Public: public[:]}, PeerStatic: to,
	})
	return state, func() {
		clear(static[:])
		if state != nil {
			clear(state.LocalEphemeral().Private)
		}
	}, err
}

// SealLetter appends a letter to a peer. content may have up to 65,535 bytes. An
// error is that of a peer id that is none, or of Random.
func (c *Config) SealLetter(dst []byte, to identity.PeerID, content []byte) ([]byte, error) {
	image, err := c.Images.of(to)
	if err != nil {
		return nil, fmt.Errorf("letter: %w", err)
	}
	state, erase, err := c.letter(true, image[:])
	defer erase()
	if err != nil {
		return nil, err
	}
	size := (letterHead + len(content) + letterStep - 1) / letterStep * letterStep
	size = max(size, LetterSize-letterFixed)
	plain := make([]byte, 0, size)
	id := c.Key.ID()
	plain = append(plain, id[:]...)
	plain = append(plain, byte(len(content)>>8), byte(len(content)))
	plain = append(plain, content...)
	dst, _, _, err = state.WriteMessage(dst, plain[:size])
	return dst, err
}

// OpenLetter opens a letter to us and returns who wrote it. Its error is
// ErrLetter.
func (c *Config) OpenLetter(letter []byte) (from identity.PeerID, content []byte, err error) {
	if len(letter) < letterFixed+letterHead {
		return identity.PeerID{}, nil, ErrLetter
	}
	state, erase, err := c.letter(false, nil)
	defer erase()
	if err != nil {
		return identity.PeerID{}, nil, ErrLetter
	}
	plain, _, _, err := state.ReadMessage(nil, letter)
	if err != nil || len(plain) < letterHead {
		return identity.PeerID{}, nil, ErrLetter
	}
	from = identity.PeerID(plain)
	n := int(plain[letterHead-2])<<8 | int(plain[letterHead-1])
	image, err := c.Images.of(from)
	if err != nil || string(image[:]) != string(state.PeerStatic()) || n > len(plain)-letterHead {
		return identity.PeerID{}, nil, ErrLetter
	}
	return from, plain[letterHead : letterHead+n], nil
}
