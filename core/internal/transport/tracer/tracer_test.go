package tracer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files")

// script is a connection whose other end has said everything beforehand. What is
// written to it is kept.
type script struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error) { return s.out.Write(b) }

// repeated is randomness of one byte.
type repeated byte

func (r repeated) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r)
	}
	return len(b), nil
}

func seeded(t testing.TB, fill byte, network string) *secure.Config {
	t.Helper()
	k, err := identity.FromSeed(bytes.Repeat([]byte{fill}, identity.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return &secure.Config{
		Key: k, Network: secure.NewNetwork(network), Seen: new(secure.Seen), Random: repeated(fill + 0x10),
		Hello: wire.Hello{Role: 1, AppID: []byte("app"), Instance: uint64(fill), Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 60000},
	}
}

type result struct {
	link *secure.Link
	err  error
}

// tap keeps what is written through a connection.
type tap struct {
	net.Conn
	out bytes.Buffer
}

func (c *tap) Write(b []byte) (int, error) {
	c.out.Write(b)
	return c.Conn.Write(b)
}

// meet runs both ends over a pipe, with records of each behind, and returns what both
// have written.
func meet(t testing.TB, initiator, responder *secure.Config, expect identity.PeerID) (a, b result, said [2][]byte) {
	t.Helper()
	pa, pb := net.Pipe()
	x, y := &tap{Conn: pa}, &tap{Conn: pb}
	for _, c := range []net.Conn{x, y} {
		c.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // of a pipe
	}
	done := make(chan result, 1)
	go func() {
		defer y.Close()
		var r result
		if r.link, r.err = Respond(y, responder); r.err == nil {
			_, r.err = io.ReadFull(y, make([]byte, wire.SealedHeader+5+wire.TagSize))
		}
		if r.err == nil {
			_, r.err = y.Write(r.link.Seal.Seal(nil, wire.Header{Type: wire.TypeControl}, wire.AppendPing(nil, wire.FramePing, 7)))
		}
		done <- r
	}()
	a.link, a.err = Initiate(x, initiator, expect)
	if a.err == nil {
		out := a.link.Seal.Seal(a.link.First, wire.Header{Type: wire.TypePiece, Priority: 3, Left: 9}, []byte("piece"))
		_, a.err = x.Write(out)
	}
	if a.err == nil {
		_, a.err = io.ReadAll(x)
	}
	x.Close()
	b = <-done
	return a, b, [2][]byte{x.out.Bytes(), y.out.Bytes()}
}

func TestHandshake(t *testing.T) {
	i, r := seeded(t, 1, "net"), seeded(t, 2, "net")
	r.Ready = func() bool { return true }
	pa, pb := net.Pipe()
	done := make(chan result, 1)
	go func() {
		l, err := Respond(pb, r)
		done <- result{l, err}
	}()
	a, err := Initiate(pa, i, r.Key.ID())
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("words "), 100)
	record := a.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, body)
	go pa.Write(append(bytes.Clone(a.First), record...)) //nolint:errcheck // it is read below
	b := <-done
	if b.err != nil {
		t.Fatal(b.err)
	}
	if a.Remote.Peer != r.Key.ID() || b.link.Remote.Peer != i.Key.ID() || a.Remote.Instance != 2 || b.link.Remote.Instance != 1 || string(b.link.Remote.AppID) != "app" {
		t.Errorf("%+v, %+v", a.Remote, b.link.Remote)
	}
	if !a.InClear() || !b.link.InClear() || !a.Initiator || b.link.Initiator || a.Cipher.String() != "none, in clear" {
		t.Errorf("%v, %v", a.Cipher, b.link.Cipher)
	}
	if a.Remote.Flags&wire.FlagReady == 0 || b.link.Remote.Flags != 0 {
		t.Error("who is ready is not said")
	}
	got := make([]byte, len(record))
	if _, err := io.ReadFull(pb, got); err != nil || !bytes.Equal(got, record) || !bytes.Contains(got, body) || !bytes.HasPrefix(got, []byte("cru1")) {
		t.Errorf("%x, %v", got, err)
	}
	h, err := b.link.Open.Header(got[:wire.SealedHeader])
	if err != nil || h.Type != wire.TypeFrames || h.Len != len(body) {
		t.Fatalf("%+v, %v", h, err)
	}
	if plain, err := b.link.Open.Body(got[wire.SealedHeader:wire.SealedHeader], got[wire.SealedHeader:]); err != nil || !bytes.Equal(plain, body) {
		t.Errorf("%q, %v", plain, err)
	}
}

// TestOrder: frames that are missing, come twice or are one's own are noticed, past any
// count at which other links change their keys.
func TestOrder(t *testing.T) {
	a, b := &secure.Link{Initiator: true}, &secure.Link{}
	a.Clear(2, 1)
	b.Clear(1, 2)
	var record []byte
	for i := range wire.RekeyInterval + 3 {
		record = a.Seal.Seal(record[:0], wire.Header{Type: wire.TypeFrames}, nil)
		if _, err := b.Open.Header(record[:wire.SealedHeader]); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if _, err := b.Open.Body(nil, record[wire.SealedHeader:]); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	if _, err := b.Open.Header(record[:wire.SealedHeader]); !errors.Is(err, secure.ErrForged) || !strings.Contains(err.Error(), "not the next one") {
		t.Errorf("the last one again: %v", err)
	}
	fresh := func() (*secure.Link, []byte) {
		l := &secure.Link{}
		l.Clear(1, 2)
		x := &secure.Link{Initiator: true}
		x.Clear(2, 1)
		return l, x.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, []byte{0, 0})
	}
	l, r := fresh()
	if _, err := l.Open.Header(r[:wire.SealedHeader]); err != nil {
		t.Fatal(err)
	}
	r[len(r)-1] = 1
	if _, err := l.Open.Body(nil, r[wire.SealedHeader:]); !errors.Is(err, secure.ErrForged) {
		t.Errorf("a trailer that is not zeros: %v", err)
	}
	for name, at := range map[string]int{"magic": 0, "type": 4, "direction": 5, "number": 23} {
		l, r := fresh()
		r[at] ^= 1
		if _, err := l.Open.Header(r[:wire.SealedHeader]); !errors.Is(err, secure.ErrForged) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// TestGolden pins the bytes of a whole conversation.
func TestGolden(t *testing.T) {
	i, r := seeded(t, 1, "net"), seeded(t, 2, "net")
	a, b, said := meet(t, i, r, identity.PeerID{})
	if a.err != nil || b.err != nil {
		t.Fatal(a.err, b.err)
	}
	var text strings.Builder
	for k, who := range []string{"initiator", "responder"} {
		text.WriteString(who + "\n")
		for rest := said[k]; len(rest) > 0; {
			n := min(32, len(rest))
			text.WriteString(hex.EncodeToString(rest[:n]) + "\n")
			rest = rest[n:]
		}
	}
	path := filepath.Join("testdata", "golden.txt")
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != text.String() {
		t.Errorf("the bytes have changed (%v):\n%s", err, text.String())
	}
}

// TestOtherNetwork: who has another network name gets no byte.
func TestOtherNetwork(t *testing.T) {
	a, b, said := meet(t, seeded(t, 1, "net"), seeded(t, 2, "other"), identity.PeerID{})
	if !errors.Is(a.err, secure.ErrNoAnswer) || !errors.Is(b.err, secure.ErrFirstFlight) || len(said[1]) != 0 {
		t.Errorf("%v, %v, and %d bytes", a.err, b.err, len(said[1]))
	}
}

func TestWrongPeer(t *testing.T) {
	a, b, said := meet(t, seeded(t, 1, "net"), seeded(t, 2, "net"), seeded(t, 3, "net").Key.ID())
	if !errors.Is(a.err, secure.ErrWrongPeer) || b.err == nil {
		t.Errorf("%v, %v", a.err, b.err)
	}
	if id := seeded(t, 1, "net").Key.ID(); bytes.Contains(said[0], id[:]) {
		t.Error("somebody else was told who we are")
	}
}

// TestMutations: no byte of the handshake may be another one, and what has been said once
// is of no use to who says it again.
func TestMutations(t *testing.T) {
	i, r := seeded(t, 1, "net"), seeded(t, 2, "net")
	_, _, said := meet(t, i, r, identity.PeerID{})
	answer := said[1][:len(said[1])-wire.SealedHeader-wire.TagSize-10]
	for at := range answer {
		if at == 5 || at == 7 { // what is ignored of a header, but for one bit
			continue
		}
		b := bytes.Clone(answer)
		b[at] ^= 0x10
		if l, err := Initiate(&script{in: bytes.NewReader(b)}, i, identity.PeerID{}); err == nil {
			t.Fatalf("the answer with another byte %d: %+v", at, l.Remote)
		}
	}
	other := *i
	other.Random = repeated(0x55)
	if _, err := Initiate(&script{in: bytes.NewReader(answer)}, &other, identity.PeerID{}); !errors.Is(err, secure.ErrHandshake) {
		t.Errorf("an answer to somebody else: %v", err)
	}
	opening := said[0]
	for at := range opening {
		fresh := *r
		fresh.Seen = new(secure.Seen)
		b := bytes.Clone(opening)
		b[at] ^= 0x10
		conn := &script{in: bytes.NewReader(b)}
		l, err := Respond(conn, &fresh)
		const offer = wire.TracerHeaderSize + 1 + wire.TracerNonce + 2 + 4 + wire.TracerProof + wire.TagSize
		third := len(opening) - (wire.SealedHeader + 5 + wire.TagSize)
		switch ignored := at%offer == 5 || at%offer == 7; {
		case at < offer && at != 5 && at != 7 && (err == nil || conn.out.Len() > 0):
			t.Fatalf("the first message with another byte %d: %v, and %d bytes", at, err, conn.out.Len())
		case at >= offer && at < third && !ignored && err == nil:
			t.Fatalf("the third message with another byte %d: %+v", at, l.Remote)
		}
	}
	if _, err := Respond(&script{in: bytes.NewReader(opening)}, r); !errors.Is(err, secure.ErrFirstFlight) {
		t.Errorf("the same again: %v", err)
	}
	fresh := *r
	fresh.Seen, fresh.Random = new(secure.Seen), repeated(0x66)
	if _, err := Respond(&script{in: bytes.NewReader(opening)}, &fresh); !errors.Is(err, secure.ErrHandshake) {
		t.Errorf("a signature over another nonce: %v", err)
	}
	busy := *r
	busy.Seen, busy.Admit = new(secure.Seen), func(net.Conn) bool { return false }
	conn := &script{in: bytes.NewReader(opening)}
	if _, err := Respond(conn, &busy); !errors.Is(err, secure.ErrBusy) || conn.out.Len() > 0 {
		t.Errorf("while there is no time: %v", err)
	}
}

// TestPrefixes: a connection that ends anywhere is an error on both sides.
func TestPrefixes(t *testing.T) {
	i, r := seeded(t, 1, "net"), seeded(t, 2, "net")
	_, _, said := meet(t, i, r, identity.PeerID{})
	for n := range len(said[0]) - (wire.SealedHeader + 5 + wire.TagSize) {
		fresh := *r
		fresh.Seen = new(secure.Seen)
		if _, err := Respond(&script{in: bytes.NewReader(said[0][:n])}, &fresh); err == nil {
			t.Fatalf("after %d bytes", n)
		}
	}
	for n := range len(said[1]) - (wire.SealedHeader + 10 + wire.TagSize) {
		if _, err := Initiate(&script{in: bytes.NewReader(said[1][:n])}, i, identity.PeerID{}); err == nil {
			t.Fatalf("after %d bytes", n)
		}
	}
}

// FuzzRespond: whatever comes, a responder that has not been shown the network name says
// nothing.
func FuzzRespond(f *testing.F) {
	i, r := seeded(f, 1, "net"), seeded(f, 2, "net")
	_, _, said := meet(f, i, r, identity.PeerID{})
	f.Add(said[0])
	f.Add(said[0][:100])
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n and some more"))
	stranger := seeded(f, 3, "other")
	f.Fuzz(func(t *testing.T, b []byte) {
		stranger.Seen = new(secure.Seen)
		conn := &script{in: bytes.NewReader(b)}
		if _, err := Respond(conn, stranger); err == nil || conn.out.Len() > 0 {
			t.Fatalf("%v, and %d bytes", err, conn.out.Len())
		}
		Initiate(&script{in: bytes.NewReader(b)}, stranger, identity.PeerID{}) //nolint:errcheck // it must not panic
	})
}
