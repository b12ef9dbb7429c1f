package secure

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// SealOverhead is how many bytes sealing adds to a datagram.
const SealOverhead = wire.SealOverhead

var (
	// ErrReplayed is returned for a datagram that came before, or so late that
	// nobody knows.
	ErrReplayed = errors.New("a datagram came twice or too late")
	// ErrWornOut means that so many datagrams were forged that the keys may no
	// longer be trusted, or that the numbers are used up: the association must end.
	ErrWornOut = errors.New("the keys of the association are worn out")
)

// HeaderKey opens the header blocks of all datagrams to one socket. It is for
// one goroutine at a time.
type HeaderKey struct {
	key     [wire.HeaderKeySize]byte
	block   cipher.Block
	scratch [wire.HeaderBlock]byte
}

// NewHeaderKey draws a key; nil means crypto/rand. Errors come from random.
func NewHeaderKey(random io.Reader) (*HeaderKey, error) {
	if random == nil {
		random = rand.Reader
	}
	k := new(HeaderKey)
	if _, err := io.ReadFull(random, k.key[:]); err != nil {
		return nil, err
	}
	var err error
	k.block, err = aes.NewCipher(k.key[:])
	return k, err
}

// Open decrypts the header block of a datagram: which association it claims to
// belong to, and its number. Nothing is authentic until Box.Open says so: a
// datagram that is none of ours gives random numbers. ok is false when the
// datagram is too short. Open does not allocate.
func (k *HeaderKey) Open(datagram []byte) (cid, number uint64, ok bool) {
	block, _, ok := wire.SplitSealed(datagram)
	if !ok {
		return 0, 0, false
	}
	k.block.Decrypt(k.scratch[:], block)
	cid, number = wire.ParseSealedHeader(&k.scratch)
	return cid, number, true
}

// Bind draws a random CID; nil means crypto/rand. The caller makes sure that no
// two associations of a socket have the same. Errors come from random.
func (k *HeaderKey) Bind(random io.Reader) (Binding, error) {
	if random == nil {
		random = rand.Reader
	}
	var cid [8]byte
	if _, err := io.ReadFull(random, cid[:]); err != nil {
		return Binding{}, err
	}
	return Binding{CID: binary.BigEndian.Uint64(cid[:]), HeaderKey: k.key}, nil
}

// epochKey is the key of one epoch of one direction.
type epochKey struct{ aead cipher.AEAD }

// drop erases a key that nothing is sealed or opened with any more.
func (k *epochKey) drop() {
	erase(k.aead)
	k.aead = nil
}

// ratchet derives the keys of a direction's epochs, one after another. What it
// has gone past cannot be derived again.
type ratchet struct {
	cipher Cipher
	chain  [32]byte
}

func newRatchet(c Cipher, key *[32]byte) ratchet {
	return ratchet{cipher: c, chain: keyed(*key, "libcrust/1 datagrams "+c.String())}
}

// next returns the key of the next epoch, nil if it cannot be made.
func (r *ratchet) next() epochKey {
	key := keyed(r.chain, "key")
	r.chain = keyed(r.chain, "next")
	aead, err := newAEAD(r.cipher, &key)
	clear(key[:])
	if err != nil { // 32 bytes are a key of both ciphers
		return epochKey{}
	}
	return epochKey{aead}
}

// setNonce makes the nonce of a number, as in records.
func setNonce(nonce *[12]byte, c Cipher, number uint64) {
	if c == AES256GCM {
		binary.BigEndian.PutUint64(nonce[4:], number)
	} else {
		binary.LittleEndian.PutUint64(nonce[4:], number)
	}
}

// Box seals the datagrams of an association in one direction and opens those of
// the other. The two halves are independent: one goroutine at a time may seal
// while another one opens.
type Box struct {
	seal sealHalf
	_    [64]byte // two cores, two cache lines
	open openHalf
}

type sealHalf struct {
	key     epochKey
	block   cipher.Block // of the receiver's header key
	cid     uint64       // the receiver's
	next    uint64
	end     uint64 // first number of the next epoch; 0 when sealing is over
	nonce   [12]byte
	header  [wire.HeaderBlock]byte
	ratchet ratchet
}

type openHalf struct {
	last, key, next epochKey
	epoch           uint64 // of key
	refused         uint64
	over            bool
	nonce           [12]byte
	ratchet         ratchet
	window          window
}

// newBox makes a box from the two keys of a handshake, and erases them.
func newBox(c Cipher, send, receive *[32]byte, remote Binding) (*Box, error) {
	block, err := aes.NewCipher(remote.HeaderKey[:])
	if err != nil {
		return nil, err
	}
	b := new(Box)
	b.seal = sealHalf{block: block, cid: remote.CID, end: wire.EpochDatagrams, ratchet: newRatchet(c, send)}
	b.seal.key = b.seal.ratchet.next()
	b.open = openHalf{ratchet: newRatchet(c, receive)}
	b.open.key, b.open.next = b.open.ratchet.next(), b.open.ratchet.next()
	clear(send[:])
	clear(receive[:])
	return b, nil
}

// Number returns the number of the next datagram that Seal makes.
func (b *Box) Number() uint64 { return b.seal.next }

// Skip passes over n numbers, at most wire.ReplayWindow at once, which no datagram
// will have. It reports false, and does nothing, when that is over the bound.
func (b *Box) Skip(n uint64) bool {
	if n > wire.ReplayWindow || b.seal.next > wire.MaxNumber {
		return false
	}
	b.seal.next += n // the key is changed when the next datagram is sealed
	return true
}

// Seal appends to dst the datagram with the next number. The plaintext may lie
// exactly where its ciphertext goes, at dst[len(dst)+16:], or apart from dst. So
// datagrams that are to go out in one run are sealed one behind the other,
// each in its place. Seal allocates only to grow dst and, once in 4,194,304
// datagrams, for the next key. When the numbers are used up, or after ZeroSeal,
// it returns dst as it is.
func (b *Box) Seal(dst, plain []byte) ([]byte, uint64) {
	s := &b.seal
	n := s.next
	if n >= s.end { // by less than an epoch
		if s.end == 0 || n > wire.MaxNumber {
			return dst, n
		}
		s.key.drop()
		s.key = s.ratchet.next()
		s.end += wire.EpochDatagrams
	}
	if s.key.aead == nil {
		return dst, n
	}
	s.next++
	wire.PutSealedHeader(&s.header, s.cid, n)
	s.block.Encrypt(s.header[:], s.header[:])
	dst = append(dst, s.header[:]...)
	setNonce(&s.nonce, s.ratchet.cipher, n)
	return s.key.aead.Seal(dst, s.nonce[:], plain, s.header[:]), n
}

// Open opens a datagram in place and returns its plaintext, a part of it. The
// number is what HeaderKey.Open said. Open does not allocate but once in
// 4,194,304 datagrams.
//
// ErrReplayed, ErrForged: drop the datagram, whose bytes may be overwritten.
// ErrWornOut: end the association.
func (b *Box) Open(datagram []byte, number uint64) ([]byte, error) {
	o := &b.open
	block, sealed, ok := wire.SplitSealed(datagram)
	if !ok {
		return nil, ErrForged
	}
	if o.over {
		return nil, ErrWornOut
	}
	if number > wire.MaxNumber || !o.window.fresh(number) {
		return nil, ErrReplayed
	}
	key := &o.key
	epoch := number / wire.EpochDatagrams
	switch {
	case epoch == o.epoch:
	case epoch == o.epoch+1:
		key = &o.next
	case epoch+1 == o.epoch:
		key = &o.last
	default:
		return nil, ErrForged
	}
	if key.aead == nil {
		return nil, ErrForged
	}
	setNonce(&o.nonce, o.ratchet.cipher, number)
	plain, err := key.aead.Open(sealed[:0], o.nonce[:], sealed, block)
	if err != nil {
		if o.refused++; o.refused >= wire.MaxRefused {
			o.over = true
		}
		return nil, ErrForged
	}
	o.window.add(number)
	if epoch > o.epoch {
		o.last.drop()
		o.last, o.key, o.next = o.key, o.next, o.ratchet.next()
		o.epoch = epoch
	} else if o.last.aead != nil && number%wire.EpochDatagrams >= wire.ReplayWindow && epoch == o.epoch {
		o.last.drop() // the window has left its epoch
	}
	return plain, nil
}

// Highest returns the highest number that was opened; ok is false before the first.
func (b *Box) Highest() (number uint64, ok bool) {
	return b.open.window.top - 1, b.open.window.top > 0
}

// ZeroSeal erases the secrets of the sealing half, whose rules it obeys. Nothing
// is sealed afterwards.
func (b *Box) ZeroSeal() {
	b.seal.key.drop()
	b.seal.end = 0
	clear(b.seal.ratchet.chain[:])
}

// ZeroOpen erases the secrets of the opening half, whose rules it obeys. Nothing
// is opened afterwards.
func (b *Box) ZeroOpen() {
	b.open.last.drop()
	b.open.key.drop()
	b.open.next.drop()
	b.open.over = true
	clear(b.open.ratchet.chain[:])
}
