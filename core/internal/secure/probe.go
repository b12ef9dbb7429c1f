package secure

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20poly1305"
)

// A probe is a datagram
//
//	nonce   [24]byte  random
//	sealed            XChaCha20-Poly1305 of wire.Probe and padding
//
// of 96 to 160 bytes. Its key follows from the identity keys of the two, from the
// meeting that they have agreed and from the network name: nobody else can make
// one, those who carried the letters least of all.

const (
	minProbe = 96
	maxProbe = 160
	probeFix = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
)

// ErrProbe means that a datagram is no probe of the other side under this key.
var ErrProbe = errors.New("no probe of this meeting")

// ProbeKey seals and opens the probes of one side of a meeting. Its methods may
// be called from any goroutine.
type ProbeKey struct {
	aead   cipher.AEAD
	larger bool
	random io.Reader
}

// NewProbeKey makes the key of a meeting with a peer. An error is that of a peer
// id that is none.
func (c *Config) NewProbeKey(peer identity.PeerID, meeting [wire.MeetingID]byte) (*ProbeKey, error) {
	image, err := c.Images.of(peer)
	if err != nil {
		return nil, fmt.Errorf("probe key: %w", err)
	}
	static := c.Key.Static()
	defer clear(static[:])
	shared, err := sodiumDH{}.DH(static[:], image[:])
	if err != nil {
		return nil, fmt.Errorf("probe key: %w", err)
	}
	defer clear(shared)
	root := keyed([32]byte(shared), string(c.Network.psk[:]))
	key := keyed(root, "libcrust/1 probe\x00"+string(meeting[:]))
	defer clear(root[:])
	defer clear(key[:])
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("probe key: %w", err)
	}
	return &ProbeKey{aead: aead, larger: c.Key.ID().Compare(peer) > 0, random: c.random()}, nil
}

// Seal appends a probe of a random length. An error is that of Random.
func (k *ProbeKey) Seal(dst []byte, p wire.Probe) ([]byte, error) {
	var random [chacha20poly1305.NonceSizeX + 4]byte
	if _, err := io.ReadFull(k.random, random[:]); err != nil {
		return dst, err
	}
	nonce := random[:chacha20poly1305.NonceSizeX]
	size := minProbe - probeFix + int(binary.BigEndian.Uint32(random[len(nonce):])%(maxProbe-minProbe+1))
	p.Larger = k.larger
	plain := p.Append(make([]byte, 0, maxProbe))
	return k.aead.Seal(append(dst, nonce...), nonce, plain[:size], nil), nil
}

// Open opens a datagram if it is a probe of the other side. Its error is
// ErrProbe. It does not change the datagram.
func (k *ProbeKey) Open(datagram []byte) (wire.Probe, error) {
	if len(datagram) < minProbe || len(datagram) > maxProbe {
		return wire.Probe{}, ErrProbe
	}
	var buf [maxProbe]byte
	nonce, sealed := datagram[:chacha20poly1305.NonceSizeX], datagram[chacha20poly1305.NonceSizeX:]
	plain, err := k.aead.Open(buf[:0], nonce, sealed, nil)
	if err != nil {
		return wire.Probe{}, ErrProbe
	}
	p, err := wire.ParseProbe(plain)
	if err != nil || p.Larger == k.larger {
		return wire.Probe{}, ErrProbe
	}
	return p, nil
}
