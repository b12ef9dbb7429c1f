package secure

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20poly1305"
)

// A probe is a datagram
//
//	nonce   [24]byte  random
//	sealed            XChaCha20-Poly1305 of wire.Probe and padding
//
// of MinProbe to MaxProbe bytes. Its key follows from the identity keys of the two,
// from the meeting that they have agreed and from the network name: nobody else can
// make one, those who carried the letters least of all. A pad has the same form, and
// goes as a letter.

const (
	// MinProbe is the least size of a probe that goes as a datagram, in bytes.
	MinProbe = 64
	// MaxProbe is the largest one.
	MaxProbe = 160
	// midProbe is the least size of one that nothing is paid for.
	midProbe = 96
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
	secret [32]byte // of our tokens
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
	k := &ProbeKey{aead: aead, larger: c.Key.ID().Compare(peer) > 0, random: c.random()}
	if _, err := io.ReadFull(k.random, k.secret[:]); err != nil {
		return nil, fmt.Errorf("probe key: %w", err)
	}
	return k, nil
}

// Token returns what a probe from a socket of ours to an endpoint says. Who can say
// it again gets what goes there. It is never 0.
func (k *ProbeKey) Token(socket int, to netip.AddrPort) uint64 {
	a := to.Addr().As16()
	b := binary.BigEndian.AppendUint16(a[:], to.Port())
	sum := keyed(k.secret, string(binary.BigEndian.AppendUint32(b, uint32(socket)))) //nolint:gosec // a number below 2^16
	return binary.BigEndian.Uint64(sum[:]) | 1
}

// Seal appends a probe of a random length of 96 bytes or more. An error is that of
// Random.
func (k *ProbeKey) Seal(dst []byte, p wire.Probe) ([]byte, error) {
	return k.SealSize(dst, p, k.probeSize(midProbe, MaxProbe))
}

// SealAnswer is Seal for the answer to a probe of a size: it is not longer.
func (k *ProbeKey) SealAnswer(dst []byte, p wire.Probe, size int) ([]byte, error) {
	return k.SealSize(dst, p, k.probeSize(MinProbe, max(MinProbe, min(size, MaxProbe))))
}

// SealSize appends a probe of a size, which is raised to what it needs. An error is
// that of Random.
func (k *ProbeKey) SealSize(dst []byte, p wire.Probe, size int) ([]byte, error) {
	var nonce [chacha20poly1305.NonceSizeX]byte
	if _, err := io.ReadFull(k.random, nonce[:]); err != nil {
		return dst, err
	}
	p.Larger = k.larger
	plain := p.Append(make([]byte, 0, max(size, MaxProbe)))
	if more := size - probeFix - len(plain); more > 0 {
		plain = plain[:len(plain)+more]
	}
	return k.aead.Seal(append(dst, nonce[:]...), nonce[:], plain, nil), nil
}

// probeSize returns a random size, from least to most.
func (k *ProbeKey) probeSize(least, most int) int {
	var random [4]byte
	if _, err := io.ReadFull(k.random, random[:]); err != nil {
		return least
	}
	return least + int(binary.BigEndian.Uint32(random[:])%uint32(most-least+1)) //nolint:gosec // sizes of datagrams
}

// Open opens a datagram if it is a probe of the other side, and no pad. Its error is
// ErrProbe. It does not change the datagram.
func (k *ProbeKey) Open(datagram []byte) (wire.Probe, error) {
	if len(datagram) < MinProbe || len(datagram) > MaxProbe {
		return wire.Probe{}, ErrProbe
	}
	var buf [MaxProbe]byte
	p, err := k.open(buf[:0], datagram)
	if err != nil || p.Kind == wire.ProbePad {
		return wire.Probe{}, ErrProbe
	}
	return p, nil
}

// OpenPad opens a letter if it is a pad of the other side, and returns its number.
// Its error is ErrProbe. It does not change the letter.
func (k *ProbeKey) OpenPad(letter []byte) (number uint64, err error) {
	if len(letter) > wire.MaxLetter {
		return 0, ErrProbe
	}
	p, err := k.open(make([]byte, 0, len(letter)), letter)
	if err != nil || p.Kind != wire.ProbePad {
		return 0, ErrProbe
	}
	return p.Token, nil
}

// open opens a probe of either kind, with buf as memory.
func (k *ProbeKey) open(buf, b []byte) (wire.Probe, error) {
	if len(b) < probeFix {
		return wire.Probe{}, ErrProbe
	}
	nonce, sealed := b[:chacha20poly1305.NonceSizeX], b[chacha20poly1305.NonceSizeX:]
	plain, err := k.aead.Open(buf, nonce, sealed, nil)
	if err != nil {
		return wire.Probe{}, ErrProbe
	}
	p, err := wire.ParseProbe(plain)
	if err != nil || p.Larger == k.larger {
		return wire.Probe{}, ErrProbe
	}
	return p, nil
}
