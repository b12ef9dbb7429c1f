package secure

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"

	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20poly1305"
)

// A beacon is a datagram to all on a segment, or to one who has asked,
//
//	nonce   [24]byte  random
//	sealed            XChaCha20-Poly1305 of wire.Beacon and padding
//
// of MinBeacon to MaxBeacon bytes. Its key follows from the network name alone, so that
// everybody of the network can read and make one: who it is from is signed inside.

const (
	// MinBeacon is the least size of a beacon, in bytes: one in which all fits, so that
	// every hello can be answered and no answer is longer than the hello.
	MinBeacon = 640
	// MaxBeacon is the largest one.
	MaxBeacon = 800
	// BeaconNonce is the size of the nonce that a beacon begins with.
	BeaconNonce = chacha20poly1305.NonceSizeX
	beaconFix   = BeaconNonce + chacha20poly1305.Overhead
)

var _ = [1]struct{}{}[(wire.MaxBeacon+beaconFix)/(MinBeacon+1)] // all fits

// ErrBeacon means that a datagram is no beacon of this network.
var ErrBeacon = errors.New("no beacon of this network")

// BeaconKey seals and opens the beacons of a network. Its methods may be called from
// any goroutine.
type BeaconKey struct {
	aead   cipher.AEAD
	config *Config
}

// NewBeaconKey makes the key of the network.
func (c *Config) NewBeaconKey() (*BeaconKey, error) {
	key := c.Network.beacon
	defer clear(key[:])
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, fmt.Errorf("beacon key: %w", err)
	}
	return &BeaconKey{aead, c}, nil
}

// Seal returns a beacon of a random size up to most, which is taken as MinBeacon to
// MaxBeacon. An error is that of Random, or says that the content is too long.
func (k *BeaconKey) Seal(content []byte, most int) ([]byte, error) {
	if len(content) > MinBeacon-beaconFix {
		return nil, fmt.Errorf("beacon: %d bytes are over %d", len(content), MinBeacon-beaconFix)
	}
	var random [BeaconNonce + 2]byte
	if _, err := io.ReadFull(k.config.random(), random[:]); err != nil {
		return nil, fmt.Errorf("beacon: %w", err)
	}
	most = max(MinBeacon, min(most, MaxBeacon))
	size := MinBeacon + (int(random[BeaconNonce])<<8|int(random[BeaconNonce+1]))%(most-MinBeacon+1)
	plain := make([]byte, size-beaconFix)
	copy(plain, content)
	nonce := random[:BeaconNonce]
	return k.aead.Seal(append(make([]byte, 0, size), nonce...), nonce, plain, nil), nil
}

// Open returns the content of a beacon, and its padding, in memory of its own. Its error
// is ErrBeacon.
func (k *BeaconKey) Open(datagram []byte) ([]byte, error) {
	if len(datagram) < MinBeacon || len(datagram) > MaxBeacon {
		return nil, ErrBeacon
	}
	plain, err := k.aead.Open(nil, datagram[:BeaconNonce], datagram[BeaconNonce:], nil)
	if err != nil {
		return nil, ErrBeacon
	}
	return plain, nil
}
