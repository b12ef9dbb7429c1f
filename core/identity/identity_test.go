package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustGenerate(t testing.TB) *Key {
	t.Helper()
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestRFC8032 takes the test vectors 1 to 3 of RFC 8032, section 7.1.
func TestRFC8032(t *testing.T) {
	for _, v := range []struct{ seed, public, message, signature string }{
		{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		{"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
			"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
	} {
		k, err := FromSeed(unhex(t, v.seed))
		if err != nil {
			t.Fatal(err)
		}
		message := unhex(t, v.message)
		if k.ID().String() != v.public {
			t.Errorf("public key %s, want %s", k.ID(), v.public)
		}
		if got := hex.EncodeToString(k.Sign(message)); got != v.signature {
			t.Errorf("signature %s\nwant      %s", got, v.signature)
		}
		if !k.ID().Verify(message, unhex(t, v.signature)) {
			t.Errorf("the signature of %q does not verify", v.message)
		}
		if got := hex.EncodeToString(k.Seed()); got != v.seed {
			t.Errorf("seed %s, want %s", got, v.seed)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := mustGenerate(t)
	message := []byte("message")
	good := k.Sign(message)
	if !k.ID().Verify(message, good) || !ed25519.Verify(bytes.Clone(k.id[:]), message, good) {
		t.Fatal("a good signature is refused")
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if k.ID().Verify(message, bad) {
			t.Errorf("a signature with bit %d flipped verifies", 8*i)
		}
	}
	for n := range len(good) {
		if k.ID().Verify(message, good[:n]) {
			t.Errorf("the first %d bytes of a signature verify", n)
		}
	}
	if k.ID().Verify(message, append(bytes.Clone(good), 0)) || k.ID().Verify(nil, good) || mustGenerate(t).ID().Verify(message, good) {
		t.Error("a signature of something else verifies")
	}
	if (PeerID{}).Verify(message, good) || (PeerID{}).Verify(nil, make([]byte, SignatureSize)) {
		t.Error("the zero peer id signs")
	}
}

// TestCurve25519 takes the key of libsodium's own test of the conversion, and
// compares random keys with what crypto/ecdh makes of the secret half.
func TestCurve25519(t *testing.T) {
	k, err := FromSeed(unhex(t, "421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.ID().Curve25519()
	if err != nil || hex.EncodeToString(public[:]) != "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50" {
		t.Errorf("public %x, %v", public, err)
	}
	if secret := k.Static(); hex.EncodeToString(secret[:]) != "8052030376d47112be7f73ed7a019293dd12ad910b654455798b4667d73de166" {
		t.Errorf("secret %x", secret)
	}
	for range 50 {
		k := mustGenerate(t)
		static := k.Static()
		secret, err := ecdh.X25519().NewPrivateKey(static[:])
		if err != nil {
			t.Fatal(err)
		}
		public, err := k.ID().Curve25519()
		if err != nil || !bytes.Equal(secret.PublicKey().Bytes(), public[:]) {
			t.Fatalf("%v: the halves do not belong together: %v", k.ID(), err)
		}
	}
}

// bad are encodings that no honest key has.
var bad = map[string]string{
	"y=0, order 4":              strings.Repeat("00", 32),
	"y=0, sign set":             strings.Repeat("00", 31) + "80",
	"y=1, the neutral element":  "01" + strings.Repeat("00", 31),
	"y=-1, order 2":             "ec" + strings.Repeat("ff", 30) + "7f",
	"y=p, not canonical 0":      "ed" + strings.Repeat("ff", 30) + "7f",
	"y=p+1, not canonical 1":    "ee" + strings.Repeat("ff", 30) + "7f",
	"all ones":                  strings.Repeat("ff", 32),
	"order 8":                   "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"order 8, the other":        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"y=2, not on the curve":     "02" + strings.Repeat("00", 31),
	"outside the main subgroup": "da99e28ba529cdde35a25fba9059e78ecaee239f99755b9b1aa4f65df00803e2", // the base point plus the point of order 8 above
	"y=p+18, the greatest":      "ff" + strings.Repeat("ff", 30) + "7f",
	"y=p, sign set":             "ed" + strings.Repeat("ff", 31),
}

func TestBadKeys(t *testing.T) {
	for name, text := range bad {
		id, err := ParsePeerID(text)
		if err != nil {
			t.Fatal(name, err)
		}
		if got, err := id.Curve25519(); !errors.Is(err, ErrBadKey) || got != [32]byte{} {
			t.Errorf("%s: %x, %v; want ErrBadKey", name, got, err)
		}
		if id.Verify([]byte("x"), make([]byte, SignatureSize)) {
			t.Errorf("%s: verifies zeros", name)
		}
	}
}

func TestPeerIDText(t *testing.T) {
	id := mustGenerate(t).ID()
	if len(id.String()) != 64 || !strings.HasPrefix(id.String(), id.Short()) || len(id.Short()) != 8 {
		t.Errorf("%s, %s", id, id.Short())
	}
	for _, text := range []string{id.String(), strings.ToUpper(id.String())} {
		if got, err := ParsePeerID(text); err != nil || got != id {
			t.Errorf("ParsePeerID(%s) = %s, %v", text, got, err)
		}
	}
	for n := range 64 {
		if got, err := ParsePeerID(id.String()[:n]); err == nil || !got.IsZero() {
			t.Errorf("the first %d digits parse", n)
		}
	}
	for _, text := range []string{id.String() + "0", " " + id.String()[1:], strings.Repeat("g", 64), strings.Repeat("é", 32)} {
		if got, err := ParsePeerID(text); err == nil || !got.IsZero() {
			t.Errorf("%q parses as %s", text, got)
		}
	}
	type holder struct{ Peer PeerID }
	out, err := json.Marshal(holder{id})
	var back holder
	if err != nil || json.Unmarshal(out, &back) != nil || back.Peer != id {
		t.Errorf("JSON %s, %v came back as %v", out, err, back)
	}
	if err := json.Unmarshal([]byte(`{"Peer":"xyz"}`), &back); err == nil || back.Peer != id {
		t.Errorf("bad JSON: %v, and the value became %v", err, back.Peer)
	}
}

func TestPeerIDOrder(t *testing.T) {
	a, b := PeerID{0: 1}, PeerID{0: 1, 31: 1}
	if a.Compare(b) != -1 || b.Compare(a) != 1 || a.Compare(a) != 0 || (PeerID{31: 255}).Compare(a) != -1 {
		t.Error("not the order of big-endian numbers")
	}
	if a.IsZero() || !(PeerID{}).IsZero() {
		t.Error("IsZero")
	}
}

func TestSeedLength(t *testing.T) {
	for _, n := range []int{0, 31, 33, 64} {
		if k, err := FromSeed(make([]byte, n)); err == nil || k != nil {
			t.Errorf("a seed of %d bytes is accepted", n)
		}
	}
}

func TestFromSeedCopies(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, SeedSize)
	k, err := FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	clear(seed)
	if !bytes.Equal(k.Seed(), bytes.Repeat([]byte{7}, SeedSize)) {
		t.Error("clearing the caller's seed changed the key")
	}
	clear(k.Seed())
	static := k.Static()
	clear(static[:])
	if !k.ID().Verify([]byte("x"), k.Sign([]byte("x"))) || k.Static() == static {
		t.Error("clearing what the key gave out changed the key")
	}
}

func TestGenerateDiffers(t *testing.T) {
	if a, b := mustGenerate(t), mustGenerate(t); a.ID() == b.ID() {
		t.Error("two identities are equal")
	}
}

func TestZero(t *testing.T) {
	k := mustGenerate(t)
	k.Zero()
	if !bytes.Equal(k.Seed(), make([]byte, SeedSize)) || k.Static() != [32]byte{} {
		t.Error("the secret is still there")
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	k, err := FromSeed(bytes.Repeat([]byte{0xab}, SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	want := "identity of " + k.ID().Short()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, got := range []string{fmt.Sprintf(verb, k), fmt.Sprintf(verb, *k)} {
			if got != want {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
	if out, err := json.Marshal(map[string]any{"key": k}); err != nil || string(out) != `{"key":{}}` {
		t.Errorf("JSON %s, %v", out, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	k := mustGenerate(t)
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			message := []byte{byte(i)}
			if !k.ID().Verify(message, k.Sign(message)) {
				t.Error("a signature made beside others does not verify")
			}
		})
	}
	running.Wait()
}

func TestSaveAndLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "identity")
	k := mustGenerate(t)
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || got.ID() != k.ID() || !bytes.Equal(got.Seed(), k.Seed()) {
		t.Fatalf("loaded %v, %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if want := "crust-identity-1 " + hex.EncodeToString(k.Seed()) + "\n"; err != nil || string(text) != want {
		t.Errorf("the file holds %q, %v; want %q", text, err, want)
	}
	if err := mustGenerate(t).Save(path); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Save over a file: %v, want fs.ErrExist", err)
	}
	if again, err := Load(path); err != nil || again.ID() != k.ID() {
		t.Errorf("after the refused Save: %v, %v", again, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func TestSaveErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no such directory", "identity")
	if err := mustGenerate(t).Save(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Save: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	digits := strings.Repeat("ab", SeedSize)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty": "", "header": fileHeader, "binary": "\x00\xff\x00", "digits": digits, "version": "crust-identity-2 " + digits,
		"short": fileHeader + digits[2:], "long": fileHeader + digits + "00", "letters": fileHeader + strings.Repeat("xy", SeedSize),
		"twice": fileHeader + digits + "\n" + fileHeader + digits, "huge": fileHeader + digits + strings.Repeat(" ", maxFileSize),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := Load(path)
		if k != nil || err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "not an identity file") {
			t.Errorf("%s: %v, %v", name, k, err)
		}
		if err != nil && strings.Contains(err.Error(), "abab") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
	if k, err := Load(filepath.Join(dir, "none")); k != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, %v", k, err)
	}
	if k, err := Load(dir); k != nil || err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a directory: %v, %v", k, err)
	}
}

func TestLoadTakesSpaceAround(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity")
	k := mustGenerate(t)
	text := "\n " + fileHeader + strings.ToUpper(hex.EncodeToString(k.Seed())) + "\r\n\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); err != nil || got.ID() != k.ID() {
		t.Errorf("Load = %v, %v", got, err)
	}
}

func TestLoadOrCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity")
	ids := make([]PeerID, 8)
	var running sync.WaitGroup
	for i := range ids {
		running.Go(func() {
			k, err := LoadOrCreate(path)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.ID()
		})
	}
	running.Wait()
	for _, id := range ids {
		if id != ids[0] || id.IsZero() {
			t.Fatalf("creators at the same time differ: %v", ids)
		}
	}
	if err := os.WriteFile(path+"2", []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k, err := LoadOrCreate(path + "2"); k != nil || err == nil {
		t.Errorf("another file: %v, %v", k, err)
	}
	if text, err := os.ReadFile(path + "2"); err != nil || string(text) != "not ours" {
		t.Errorf("another file was changed: %q, %v", text, err)
	}
	if k, err := LoadOrCreate(filepath.Join(path, "below a file")); k != nil || err == nil {
		t.Errorf("an impossible path: %v, %v", k, err)
	}
}

func TestLoadRefusesWhatOthersMayRead(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing on Windows")
	}
	path := filepath.Join(t.TempDir(), "identity")
	if err := mustGenerate(t).Save(path); err != nil {
		t.Fatal(err)
	}
	for mode := range fs.FileMode(0o100) {
		if err := os.Chmod(path, 0o600|mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if refused := errors.Is(err, fs.ErrPermission); refused != (mode != 0) {
			t.Errorf("mode %04o: %v", 0o600|mode, err)
		}
		if mode != 0 && !strings.Contains(err.Error(), "run: chmod 600 "+path) {
			t.Errorf("mode %04o: the error does not say what to do: %v", 0o600|mode, err)
		}
	}
}

func FuzzParsePeerID(f *testing.F) {
	f.Add(strings.Repeat("0", 64))
	f.Add("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	f.Add("D75A980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f70751")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParsePeerID(text)
		if err != nil {
			if !id.IsZero() {
				t.Fatalf("%q: an error and a value", text)
			}
			return
		}
		if id.String() != strings.ToLower(text) {
			t.Fatalf("%q came back as %q", text, id)
		}
	})
}

// FuzzPeerID checks that no 32 bytes from the network upset the conversions.
func FuzzPeerID(f *testing.F) {
	for _, text := range bad {
		f.Add(unhex(f, text), []byte("message"), make([]byte, SignatureSize))
	}
	k := mustGenerate(f)
	f.Add(k.id[:], []byte("message"), k.Sign([]byte("message")))
	f.Add(k.id[:], []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, key, message, signature []byte) {
		if len(key) != IDSize {
			return
		}
		id := PeerID(key)
		public, err := id.Curve25519()
		if (err == nil) == (public == [32]byte{}) {
			t.Fatalf("Curve25519 = %x, %v", public, err)
		}
		if id.Verify(message, signature) && !ed25519.Verify(key, message, signature) {
			t.Fatalf("%v verifies what crypto/ed25519 does not", id)
		}
	})
}

func FuzzIdentityFile(f *testing.F) {
	f.Add([]byte(fileHeader + strings.Repeat("ab", SeedSize) + "\n"))
	f.Add([]byte("crust-identity-1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseFile(text)
		if err != nil {
			return
		}
		if want := fileHeader + hex.EncodeToString(k.Seed()); strings.ToLower(string(bytes.TrimSpace(text))) != want {
			t.Fatalf("%q was read as %q", text, want)
		}
	})
}
