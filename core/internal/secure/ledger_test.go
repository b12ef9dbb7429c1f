package secure

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/flynn/noise"
)

// ledger keeps what handshakes encrypt under which key and number, and computes
// key agreements, which are functions of their inputs, once only.
type ledger struct {
	t      testing.TB
	sealed map[ledgerEntry][32]byte // of the associated data and the plaintext
	pairs  map[[32]byte]noise.DHKey
	shared map[[64]byte]agreement
}

type ledgerEntry struct {
	key [32]byte
	n   uint64
}

type agreement struct {
	secret []byte
	err    error
}

// watch has all handshakes of the test keep a ledger. Tests of this package do not
// run beside each other.
func watch(t testing.TB) *ledger {
	l := &ledger{t: t, sealed: map[ledgerEntry][32]byte{}, pairs: map[[32]byte]noise.DHKey{}, shared: map[[64]byte]agreement{}}
	old := suite
	suite = noise.NewCipherSuite(watchedDH{l: l}, watchedCiphers{l: l}, sodiumBLAKE2b{})
	t.Cleanup(func() { suite = old })
	return l
}

// note records that something is encrypted. Nothing else may be under this key and
// number: the same again is a repetition, and tells nothing.
func (l *ledger) note(key [32]byte, n uint64, ad, plain []byte) {
	h := sha256.New()
	h.Write([]byte{byte(len(ad)), byte(len(ad) >> 8)})
	h.Write(ad)
	h.Write(plain)
	var sum [32]byte
	h.Sum(sum[:0])
	e := ledgerEntry{key, n}
	if old, ok := l.sealed[e]; ok && old != sum {
		l.t.Errorf("two texts are encrypted under one key and the number %d", n)
	}
	l.sealed[e] = sum
}

type watchedCiphers struct {
	sodiumChaChaPoly
	l *ledger
}

func (w watchedCiphers) Cipher(k [32]byte) noise.Cipher {
	return watchedCipher{Cipher: w.sodiumChaChaPoly.Cipher(k), key: k, l: w.l}
}

type watchedCipher struct {
	noise.Cipher
	key [32]byte
	l   *ledger
}

func (w watchedCipher) Encrypt(out []byte, n uint64, ad, plain []byte) []byte {
	w.l.note(w.key, n, ad, plain)
	return w.Cipher.Encrypt(out, n, ad, plain)
}

type watchedDH struct {
	sodiumDH
	l *ledger
}

func (w watchedDH) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	var secret [32]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return noise.DHKey{}, err
	}
	pair, ok := w.l.pairs[secret]
	if !ok {
		var err error
		if pair, err = w.sodiumDH.GenerateKeypair(bytes.NewReader(secret[:])); err != nil {
			return pair, err
		}
		w.l.pairs[secret] = noise.DHKey{Private: bytes.Clone(pair.Private), Public: pair.Public}
	}
	return noise.DHKey{Private: bytes.Clone(pair.Private), Public: bytes.Clone(pair.Public)}, nil
}

func (w watchedDH) DH(secret, public []byte) ([]byte, error) {
	if len(secret) != 32 || len(public) != 32 {
		return nil, errors.New("X25519 keys have 32 bytes")
	}
	key := [64]byte(append(bytes.Clone(secret), public...))
	a, ok := w.l.shared[key]
	if !ok {
		a.secret, a.err = w.sodiumDH.DH(secret, public)
		w.l.shared[key] = a
	}
	return bytes.Clone(a.secret), a.err
}

// TestLedgerCanFail: two texts under one number are found, one twice is not.
func TestLedgerCanFail(t *testing.T) {
	fake := &quiet{TB: t}
	l := watch(fake)
	c := watchedCiphers{l: l}.Cipher([32]byte{1})
	c.Encrypt(nil, 7, nil, []byte("a"))
	c.Encrypt(nil, 7, nil, []byte("a"))
	c.Encrypt(nil, 8, nil, []byte("b"))
	if fake.failed != 0 {
		t.Error("a repetition was found")
	}
	c.Encrypt(nil, 7, nil, []byte("b"))
	if fake.failed != 1 {
		t.Error("two texts under one number were not found")
	}
}

// quiet counts what a test would report.
type quiet struct {
	testing.TB
	failed int
}

func (q *quiet) Errorf(string, ...any) { q.failed++ }
