package secure

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// mutate changes a copy of b in one of the ways in which bytes go wrong, and
// reports whether it is changed at all.
func mutate(r *rand.Rand, b []byte, others [][]byte) ([]byte, bool) {
	out := bytes.Clone(b)
	at := r.IntN(len(out))
	switch r.IntN(8) {
	case 0, 1, 2: // flip bits
		for range 1 + r.IntN(3) {
			out[r.IntN(len(out))] ^= 1 << r.IntN(8)
		}
	case 3: // overwrite a run
		for i := at; i < min(at+1+r.IntN(40), len(out)); i++ {
			out[i] = byte(r.Uint32())
		}
	case 4: // cut off
		out = out[:at]
	case 5: // drop a run
		out = append(out[:at], out[min(at+1+r.IntN(20), len(out)):]...)
	case 6: // repeat a run
		end := min(at+1+r.IntN(40), len(out))
		out = append(out[:end:end], out[at:]...)
	case 7: // go on with another one
		other := others[r.IntN(len(others))]
		out = append(out[:at:at], other[min(at, len(other)):]...)
	}
	return out, !bytes.Equal(out, b)
}

const (
	mutatedFlights  = 30_000
	mutatedRecords  = 770_000
	mutatedInsiders = 200_000
)

// TestAMillionMutations feeds flights and records to both ends that differ from
// valid ones, without sockets in between. None may panic, none may pass for
// what it is not.
func TestAMillionMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 11))
	flights := mutateFlights(t, r)
	records := mutateRecords(t, r)
	insiders := mutateInsiders(t, r)
	t.Logf("count: %d mutated flights, %d mutated records, %d malformed records of a member of the network", flights, records, insiders)
	if total := flights + records + insiders; total < 1_000_000 {
		t.Errorf("only %d mutations were made", total)
	}
}

// mutateFlights changes each flight of a handshake and plays it to whom it was
// meant for.
func mutateFlights(t *testing.T, r *rand.Rand) (count int) {
	second, third := recorded(t)
	first := firstFlight(t, seeded(t, 1, "n"))
	responder := seeded(t, 2, "n")
	all := [][]byte{first, second.flight, third.flight}
	const head = wire.FlightNonce + wire.FlightHeader
	for count < mutatedFlights {
		// The first flight is what strangers send: most of all that one.
		which := max(0, r.IntN(8)-5)
		b, changed := mutate(r, all[which], all)
		if !changed {
			continue
		}
		count++
		// What is changed in the padding alone, or behind it, does no harm.
		same := func(noise int) bool {
			return len(b) >= head+noise && bytes.Equal(b[:wire.FlightNonce+2], all[which][:wire.FlightNonce+2]) &&
				bytes.Equal(b[head:head+noise], all[which][head:head+noise])
		}
		switch which {
		case 0:
			s := replay(b)
			responder.Seen = new(Seen)
			if l, err := Respond(s, responder); l != nil || err == nil || s.out.Len() != 0 && !same(noiseOf1) {
				t.Fatalf("first flight %x: %d bytes of answer, %v", b, s.out.Len(), err)
			}
		case 1:
			if l, err := second.play(b); l != nil && !same(second.noise) {
				t.Fatalf("second flight %x passed, %v", b, err)
			}
		case 2:
			if l, err := third.play(b); l != nil && !same(third.noise) {
				t.Fatalf("third flight %x passed, %v", b, err)
			}
		}
	}
	return count
}

// mutateRecords changes sealed records.
func mutateRecords(t *testing.T, r *rand.Rand) (count int) {
	for _, c := range bothCiphers {
		s, o := oneWay(t, c)
		var records [][]byte
		for _, n := range []int{0, 1, 30, 64, 200, 1000} {
			records = append(records, s.Seal(nil, frames(0), bytes.Repeat([]byte{7}, n)))
		}
		for range mutatedRecords / 2 {
			k := r.IntN(len(records))
			b, changed := mutate(r, records[k], records)
			if !changed {
				// Cutting and joining may give the record back: count it, as a
				// replay at the wrong place.
				o.half.n = uint64(2*k + 2)
			} else {
				o.half.n = uint64(2 * k)
			}
			count++
			h, body, err := open(o, b)
			if err == nil || body != nil {
				t.Fatalf("%v: %x opened as %+v %x", c, b, h, body)
			}
			if !errors.Is(err, ErrForged) && !errors.Is(err, wire.ErrShort) {
				t.Fatalf("%v: %x: %v", c, b, err)
			}
		}
	}
	return count
}

// mutateInsiders seals headers and frames that are malformed, as a member of
// the network can, and reads them as a session does.
func mutateInsiders(t *testing.T, r *rand.Rand) (count int) {
	valid := wire.AppendMessage(nil, 3, []byte("a message"))
	valid = wire.AppendPing(valid, wire.FramePing, 77)
	valid = wire.Claim{Seq: 4, Held: []uint64{1, 2}}.Append(valid)
	valid = wire.Chosen{Session: wire.SessionID{7}, Received: 9}.Append(valid)
	valid = wire.AppendAck(valid, 3)
	valid = wire.AppendReason(valid, wire.FrameClose, wire.ReasonLimit)
	headers := [][]byte{frames(len(valid)).Append(nil), wire.Header{Type: wire.TypePiece, Priority: 9, Len: 40, Left: 5000}.Append(nil)}
	for _, c := range bothCiphers {
		s, o := oneWay(t, c)
		for range mutatedInsiders / 2 {
			count++
			header, _ := mutate(r, headers[r.IntN(2)], headers)
			body, _ := mutate(r, valid, headers)
			sealed := sealRaw(s, header)
			h, err := o.Header(sealed)
			if err != nil {
				if errors.Is(err, ErrForged) {
					t.Fatalf("%v: header %x, sealed in order, does not open", c, header)
				}
				continue
			}
			if h.Len > wire.MaxBody || h.Left > wire.MaxMessage || len(header) < wire.HeaderSize {
				t.Fatalf("header %x passed as %+v", header, h)
			}
			s.half.n = o.half.n
			plain, err := o.Body(nil, sealRaw(s, body))
			if err != nil || !bytes.Equal(plain, body) {
				t.Fatalf("%v: a body of %d bytes, sealed in order: %v", c, len(body), err)
			}
			readFrames(t, plain)
		}
	}
	return count
}

// sealRaw seals bytes as one AEAD message, without the checks of Seal.
func sealRaw(s Sealer, plain []byte) []byte {
	s.half.next()
	return s.half.aead.Seal(nil, s.half.nonce[:], plain, nil)
}

// readFrames takes a run of frames apart down to the last field.
func readFrames(t *testing.T, b []byte) {
	for len(b) > 0 {
		kind, body, rest, err := wire.NextFrame(b)
		if err != nil {
			return
		}
		if len(rest) >= len(b) {
			t.Fatalf("no progress in %x", b)
		}
		switch kind {
		case wire.FrameMessage:
			_, _, err = wire.ParseMessage(body)
		case wire.FramePing, wire.FramePong:
			_, err = wire.ParsePing(body)
		case wire.FrameClaim:
			_, err = wire.ParseClaim(body)
		case wire.FrameChosen:
			_, err = wire.ParseChosen(body)
		case wire.FrameAck:
			_, err = wire.ParseAck(body)
		case wire.FrameRefused, wire.FrameClose:
			_, err = wire.ParseReason(body)
		}
		if err != nil {
			return
		}
		b = rest
	}
}

// FuzzRespond plays anything to a responder. Only the valid flight of its seed
// may be answered, with whatever padding.
func FuzzRespond(f *testing.F) {
	initiator := seeded(f, 1, "n")
	initiator.Random = deterministic(11) // every worker must know the same valid flight
	first := firstFlight(f, initiator)
	for i := range 8 {
		f.Add(bytes.Clone(first[:len(first)*(i+1)/8]))
	}
	f.Add(bytes.Repeat([]byte{0xff}, 3000))
	responder := seeded(f, 2, "n")
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := *responder
		cfg.Seen = new(Seen)
		s := replay(b)
		l, err := Respond(s, &cfg)
		if l != nil || err == nil {
			t.Fatal("a link without a third flight")
		}
		if s.out.Len() == 0 {
			return
		}
		const head = wire.FlightNonce + wire.FlightHeader
		if !bytes.Equal(b[:wire.FlightNonce+2], first[:wire.FlightNonce+2]) || !bytes.Equal(b[head:head+noiseOf1], first[head:head+noiseOf1]) {
			t.Fatalf("%x was answered", b)
		}
	})
}

// FuzzInitiate plays anything to an initiator that has sent its first flight.
func FuzzInitiate(f *testing.F) {
	second, _ := recorded(f)
	for i := range 8 {
		f.Add(bytes.Clone(second.flight[:len(second.flight)*(i+1)/8]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := second.play(b)
		if (l == nil) != (err != nil) {
			t.Fatalf("%v and %v", l, err)
		}
		const head = wire.FlightNonce + wire.FlightHeader
		if l != nil && !bytes.Equal(b[head:head+second.noise], second.flight[head:head+second.noise]) {
			t.Fatalf("%x was accepted", b)
		}
	})
}

// FuzzThirdFlight plays anything to a responder that has sent its second flight.
func FuzzThirdFlight(f *testing.F) {
	_, third := recorded(f)
	for i := range 8 {
		f.Add(bytes.Clone(third.flight[:len(third.flight)*(i+1)/8]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := third.play(b)
		if (l == nil) != (err != nil) {
			t.Fatalf("%v and %v", l, err)
		}
		const head = wire.FlightNonce + wire.FlightHeader
		if l != nil && !bytes.Equal(b[head:head+third.noise], third.flight[head:head+third.noise]) {
			t.Fatalf("%x was accepted", b)
		}
	})
}

// FuzzPayload has a member of the network say anything in its hello, and masks
// and authenticates it, so that mutations reach the parser.
func FuzzPayload(f *testing.F) {
	a := seeded(f, 1, "n")
	hello := a.Hello
	hello.Version, hello.Peer = wire.Version, a.Key.ID()
	f.Add(wire.AppendOffer(nil), hello.Append(nil))
	f.Add([]byte{}, []byte{})
	b := seeded(f, 2, "n")
	f.Fuzz(func(t *testing.T, offer, payload []byte) {
		if len(offer) > 900 || len(payload) > 900 {
			return // they would not fit a flight
		}
		b.Seen = new(Seen)
		r := insiderInitiates(t, a, b, offer, payload)
		if r.link != nil && r.link.Remote.Peer != a.Key.ID() && r.link.Remote.Peer != twin(a.Key.ID()) {
			t.Fatalf("%s passed for %s", a.Key.ID(), r.link.Remote.Peer)
		}
	})
}

// FuzzRecord opens anything with either cipher.
func FuzzRecord(f *testing.F) {
	for _, c := range bothCiphers {
		s, _ := oneWay(f, c)
		f.Add(s.Seal(nil, frames(0), []byte("a record of frames")), c == AES256GCM)
	}
	f.Fuzz(func(t *testing.T, b []byte, aes bool) {
		c := ChaCha20Poly1305
		if aes {
			c = AES256GCM
		}
		s, o := oneWay(t, c)
		valid := s.Seal(nil, frames(0), []byte("a record of frames"))
		if _, body, err := open(o, b); (err == nil) != bytes.Equal(b, valid) || err != nil && body != nil {
			t.Fatalf("%x: %x, %v", b, body, err)
		}
	})
}

// Every fuzz target has a corpus beside it.
func TestCorporaAreThere(t *testing.T) {
	for _, name := range []string{"FuzzRespond", "FuzzInitiate", "FuzzThirdFlight", "FuzzPayload", "FuzzRecord",
		"FuzzDatagramFlight", "FuzzMemberFlights", "FuzzDatagramPayload", "FuzzBox"} {
		files, err := os.ReadDir(filepath.Join("testdata", "fuzz", name))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %d files, %v", name, len(files), err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join("testdata", "fuzz", name, f.Name()))
			if err != nil || !strings.HasPrefix(string(b), "go test fuzz v1") {
				t.Errorf("%s: %v", f.Name(), err)
			}
		}
	}
}
