package secure

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

func TestLetter(t *testing.T) {
	writer, reader, other := config(t, "net"), config(t, "net"), config(t, "net")
	for _, n := range []int{0, 1, 30, 446, 900} {
		content := bytes.Repeat([]byte{7}, n)
		letter, err := writer.SealLetter([]byte("before"), reader.Key.ID(), content)
		if err != nil || !bytes.HasPrefix(letter, []byte("before")) {
			t.Fatal(err)
		}
		letter = letter[len("before"):]
		switch {
		case n <= 446 && len(letter) == LetterSize: // whatever it says
		case n <= 446, len(letter) > n+LetterOverhead, (len(letter)-letterFixed)%letterStep != 0:
			t.Errorf("a letter of %d bytes for %d", len(letter), n)
		}
		from, got, err := reader.OpenLetter(letter)
		if err != nil || from != writer.Key.ID() || !bytes.Equal(got, content) {
			t.Errorf("from %v: %q, %v", from, got, err)
		}
		id := writer.Key.ID()
		if bytes.Contains(letter, id[:]) {
			t.Error("the writer can be read off")
		}
		for name, c := range map[string]*Config{"who it is not for": other, "its writer": writer, "another network": {Key: reader.Key, Network: NewNetwork("other")}} {
			if _, _, err := c.OpenLetter(letter); !errors.Is(err, ErrLetter) {
				t.Errorf("opened by %s: %v", name, err)
			}
		}
		for i := range letter {
			letter[i] ^= 1
			if _, _, err := reader.OpenLetter(letter); !errors.Is(err, ErrLetter) {
				t.Errorf("byte %d changed: %v", i, err)
			}
			letter[i] ^= 1
		}
		for i := range letter {
			if _, _, err := reader.OpenLetter(letter[:i]); !errors.Is(err, ErrLetter) {
				t.Errorf("cut to %d bytes: %v", i, err)
			}
		}
	}
	largest := wire.Letter{UDP: wire.NAT{External: netip.MustParseAddrPort("[2001:db8::1]:7")}}
	largest.TCP = largest.UDP
	for range wire.MaxLetterEndpoints {
		largest.Endpoints = append(largest.Endpoints, endpoint.New(endpoint.TCP, largest.UDP.External))
	}
	letter, err := writer.SealLetter(nil, reader.Key.ID(), largest.Append(nil))
	if err != nil || len(letter) != LetterSize {
		t.Errorf("the largest letter has %d bytes, %v", len(letter), err)
	}
}

// Nobody can write in the name of another: the identity in a letter is that
// of the key which wrote it.
func TestLetterOfAnother(t *testing.T) {
	writer, reader, victim := config(t, "net"), config(t, "net"), config(t, "net")
	image, err := reader.Key.ID().Curve25519()
	if err != nil {
		t.Fatal(err)
	}
	state, erase, err := writer.letter(true, image[:])
	if err != nil {
		t.Fatal(err)
	}
	defer erase()
	id := victim.Key.ID()
	letter, _, _, err := state.WriteMessage(nil, append(id[:], 0, 1, 'x'))
	if err != nil {
		t.Fatal(err)
	}
	if from, content, err := reader.OpenLetter(letter); !errors.Is(err, ErrLetter) {
		t.Errorf("%v wrote %q, %v", from, content, err)
	}
}

func FuzzOpenLetter(f *testing.F) {
	reader := config(f, "net")
	letter, err := config(f, "net").SealLetter(nil, reader.Key.ID(), []byte("content"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(letter)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, content, err := reader.OpenLetter(b); err == nil && !bytes.Equal(content, []byte("content")) {
			t.Fatalf("%x is a letter that says %q", b, content)
		}
	})
}
