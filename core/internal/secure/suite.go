package secure

import (
	"encoding/binary"
	"errors"
	"hash"
	"io"

	"github.com/flynn/noise"
	"github.com/jamesruan/sodium"
)

// suite is Noise's 25519_ChaChaPoly_BLAKE2b with all its functions taken from
// libsodium. The wrappers check every length before they call, because the
// package underneath panics on a wrong one.
var suite = noise.NewCipherSuite(sodiumDH{}, sodiumChaChaPoly{}, sodiumBLAKE2b{})

// Suite returns the Noise cipher suite, for tests against published vectors.
func Suite() noise.CipherSuite { return suite }

var errLowOrder = errors.New("public key of small order")

type sodiumDH struct{}

func (sodiumDH) DHLen() int     { return 32 }
func (sodiumDH) DHName() string { return "25519" }

func (sodiumDH) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	secret := make([]byte, 32)
	if _, err := io.ReadFull(random, secret); err != nil {
		return noise.DHKey{}, err
	}
	public := sodium.CryptoScalarmultBase(sodium.Scalar{Bytes: secret})
	return noise.DHKey{Private: secret, Public: public.Bytes}, nil
}

// DH refuses points of small order, for which libsodium reports a failure and
// the Go package panics: that panic is what recover turns into an error.
func (sodiumDH) DH(secret, public []byte) (shared []byte, err error) {
	if len(secret) != 32 || len(public) != 32 {
		return nil, errors.New("X25519 keys have 32 bytes")
	}
	defer func() {
		if recover() != nil {
			shared, err = nil, errLowOrder
		}
	}()
	return sodium.CryptoScalarmult(sodium.Scalar{Bytes: secret}, sodium.Scalar{Bytes: public}).Bytes, nil
}

type sodiumBLAKE2b struct{}

func (sodiumBLAKE2b) Hash() hash.Hash  { return newBLAKE2b() }
func (sodiumBLAKE2b) HashName() string { return "BLAKE2b" }

type sodiumChaChaPoly struct{}

func (sodiumChaChaPoly) CipherName() string { return "ChaChaPoly" }

func (sodiumChaChaPoly) Cipher(k [32]byte) noise.Cipher {
	return &handshakeCipher{key: sodium.AEADCPKey{Bytes: append([]byte(nil), k[:]...)}}
}

type handshakeCipher struct{ key sodium.AEADCPKey }

func (c *handshakeCipher) nonce(n uint64) sodium.AEADCPNonce {
	return sodium.AEADCPNonce{Bytes: binary.LittleEndian.AppendUint64(make([]byte, 4, 12), n)}
}

func (c *handshakeCipher) Encrypt(out []byte, n uint64, ad, plaintext []byte) []byte {
	return append(out, sodium.Bytes(plaintext).AEADCPEncrypt(ad, c.nonce(n), c.key)...)
}

func (c *handshakeCipher) Decrypt(out []byte, n uint64, ad, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) < 16 {
		return nil, errors.New("ciphertext shorter than its tag")
	}
	plaintext, err := sodium.Bytes(ciphertext).AEADCPDecrypt(ad, c.nonce(n), c.key)
	if err != nil {
		return nil, err
	}
	return append(out, plaintext...), nil
}

// keyed returns the 32-byte BLAKE2b of data under a 32-byte key.
func keyed(key [32]byte, data string) (out [32]byte) {
	h := sodium.NewGenericHashKeyed(32, sodium.GenericHashKey{Bytes: key[:]})
	h.Write([]byte(data)) //nolint:errcheck // it fails only after Sum
	copy(out[:], h.Sum(nil))
	return out
}
