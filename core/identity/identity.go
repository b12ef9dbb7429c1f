// Package identity says who a peer is: the key pair, the peer id made of its
// public half, the text form, signing, and the erasing of the secret.
//
// An identity is an Ed25519 key pair (RFC 8032). The same secret, mapped to
// Curve25519, is the static key of the Noise handshake, so whoever finishes a
// handshake has proved that it holds the identity.
package identity

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/jamesruan/sodium"
)

const (
	// IDSize is the length of a peer id in bytes: an Ed25519 public key.
	IDSize = 32
	// SeedSize is the length of the secret from which a key pair is made.
	SeedSize = 32
	// SignatureSize is the length of an Ed25519 signature.
	SignatureSize = 64
)

// PeerID is a peer's Ed25519 public key. The zero PeerID means "not known".
type PeerID [IDSize]byte

// String returns the id as 64 lower-case hexadecimal digits.
func (id PeerID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first eight digits, for logs and messages to people.
func (id PeerID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is the zero PeerID.
func (id PeerID) IsZero() bool { return id == PeerID{} }

// Compare orders peer ids as big-endian numbers: -1, 0 or +1.
func (id PeerID) Compare(other PeerID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id PeerID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *PeerID) UnmarshalText(text []byte) error {
	parsed, err := ParsePeerID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// ParsePeerID reads the text form: exactly 64 hexadecimal digits of either case.
func ParsePeerID(text string) (PeerID, error) {
	var id PeerID
	if len(text) != 2*IDSize {
		return id, fmt.Errorf("peer id has %d characters, want %d hexadecimal digits", len(text), 2*IDSize)
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return PeerID{}, fmt.Errorf("peer id %q is not hexadecimal", text)
	}
	return id, nil
}

// ErrBadKey is returned for bytes that are no Ed25519 public key of prime order
// in canonical form, which no honest peer can have.
var ErrBadKey = errors.New("not a valid Ed25519 public key")

// Curve25519 returns the X25519 form of the id (the birational map of RFC 7748,
// section 4.1). It refuses points of small order, points outside the main
// subgroup and non-canonical encodings with ErrBadKey.
func (id PeerID) Curve25519() ([32]byte, error) {
	var out [32]byte
	if !canonical(id) {
		return out, ErrBadKey
	}
	box := sodium.SignPublicKey{Bytes: sodium.Bytes(id[:])}.ToBox()
	copy(out[:], box.Bytes)
	if out == [32]byte{} { // the package drops the return code; a refused key leaves zeros
		return out, ErrBadKey
	}
	return out, nil
}

// canonical reports whether the y coordinate is below p = 2^255 - 19.
func canonical(id PeerID) bool {
	if id[31]&0x7f != 0x7f {
		return true
	}
	for _, b := range id[1:31] {
		if b != 0xff {
			return true
		}
	}
	return id[0] < 0xed
}

// Verify reports whether signature is id's signature of message.
func (id PeerID) Verify(message, signature []byte) bool {
	if len(signature) != SignatureSize || !canonical(id) {
		return false
	}
	key := sodium.SignPublicKey{Bytes: sodium.Bytes(id[:])}
	return sodium.Bytes(message).SignVerifyDetached(sodium.Signature{Bytes: sodium.Bytes(signature)}, key) == nil
}

// Key is a secret identity. It must not be copied; hand the pointer on. Its
// methods may be called from several goroutines at once, except Zero.
type Key struct {
	id     PeerID
	sign   sodium.SignSecretKey // 64 bytes: seed and public key
	static [32]byte             // X25519 secret
	public [32]byte             // X25519 public key
}

// Generate makes a new random identity.
func Generate() (*Key, error) {
	var seed [SeedSize]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	defer clear(seed[:])
	return FromSeed(seed[:])
}

// FromSeed makes the identity that belongs to a secret seed of SeedSize bytes.
// The seed is copied; the caller may clear it afterwards.
func FromSeed(seed []byte) (*Key, error) {
	if len(seed) != SeedSize {
		return nil, fmt.Errorf("identity: the seed has %d bytes, want %d", len(seed), SeedSize)
	}
	pair := sodium.SeedSignKP(sodium.SignSeed{Bytes: sodium.Bytes(seed)})
	k := &Key{sign: pair.SecretKey}
	copy(k.id[:], pair.PublicKey.Bytes)
	box := pair.SecretKey.ToBox()
	copy(k.static[:], box.Bytes)
	clear(box.Bytes)
	public, err := k.id.Curve25519()
	k.public = public
	return k, err
}

// ID returns the public half.
func (k *Key) ID() PeerID { return k.id }

// Static returns the X25519 secret that belongs to the identity. The caller
// owns the copy and should clear it.
func (k *Key) Static() [32]byte { return k.static }

// StaticPublic returns the X25519 public key of Static: ID().Curve25519().
func (k *Key) StaticPublic() [32]byte { return k.public }

// Seed returns a copy of the secret seed, which the caller should clear.
func (k *Key) Seed() []byte { return bytes.Clone(k.sign.Bytes[:SeedSize]) }

// Sign returns the detached Ed25519 signature of message.
func (k *Key) Sign(message []byte) []byte {
	return sodium.Bytes(message).SignDetached(k.sign).Bytes
}

// Format implements fmt.Formatter: whatever the verb, a key prints as the peer id
// of its public half, so that no log ever holds the secret.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "identity of %s", k.id.Short()) }

// Zero overwrites the secret. The key must not be used afterwards.
func (k *Key) Zero() {
	clear(k.sign.Bytes)
	clear(k.static[:])
	runtime.KeepAlive(k)
}

const (
	fileHeader  = "crust-identity-1 "
	maxFileSize = 4096
)

// Save writes the secret to a new file that only its owner may read (mode
// 0600). It never overwrites a file: an existing one gives fs.ErrExist.
func (k *Key) Save(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".crust-identity-*") // CreateTemp gives mode 0600
	if err != nil {
		return fmt.Errorf("identity: cannot create %s: %w", path, err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone already when the directory is
	text := make([]byte, 0, len(fileHeader)+2*SeedSize+1)
	defer clear(text[:cap(text)])
	text = append(text, fileHeader...)
	text = hex.AppendEncode(text, k.sign.Bytes[:SeedSize])
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path) // atomic, and refuses to replace
	}
	if err != nil {
		return fmt.Errorf("identity: cannot write %s: %w", path, err)
	}
	return nil
}

// Load reads a secret written by Save. On Unix it refuses a file that others
// may read or write.
func Load(path string) (*Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("identity: cannot read the identity file: %w", err)
	}
	if err := checkFile(path, info); err != nil { // before opening, which a named pipe would hold up
		return nil, fmt.Errorf("identity: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("identity: cannot read the identity file: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err == nil {
		err = checkFile(path, info) // what was opened may be another file
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	text := make([]byte, maxFileSize)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err == nil {
		return nil, fmt.Errorf("identity: %s is not an identity file: it is longer than one", path)
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("identity: cannot read the identity file: %w", err)
	}
	k, err := parseFile(text[:n])
	if err != nil {
		return nil, fmt.Errorf("identity: %s is not an identity file: %w", path, err)
	}
	return k, nil
}

// checkFile refuses what is no file, and what is open to others.
func checkFile(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not an identity file: it is no regular file", path)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return fmt.Errorf("%s is open to other users (mode %04o); run: chmod 600 %s: %w", path, mode, path, fs.ErrPermission)
	}
	return nil
}

// parseFile reads what Save wrote, with any white space around it.
func parseFile(text []byte) (*Key, error) {
	digits, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(fileHeader))
	if !ok || len(digits) != 2*SeedSize {
		return nil, fmt.Errorf("want one line %q and %d hexadecimal digits", strings.TrimSpace(fileHeader), 2*SeedSize)
	}
	var seed [SeedSize]byte
	defer clear(seed[:])
	if _, err := hex.Decode(seed[:], digits); err != nil {
		return nil, errors.New("its key is not hexadecimal")
	}
	return FromSeed(seed[:])
}

// LoadOrCreate loads path, or generates an identity and saves it there when the
// file does not exist. Two processes that create the same file at once end up
// with the same identity.
func LoadOrCreate(path string) (*Key, error) {
	k, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = Generate(); err != nil {
		return nil, err
	}
	if err = k.Save(path); errors.Is(err, fs.ErrExist) {
		return Load(path)
	} else if err != nil {
		return nil, err
	}
	return k, nil
}
