package wire

import (
	"bytes"
	"reflect"
	"testing"
)

// Each fuzz target asserts that a parser neither panics nor accepts what the
// appender could not have made, up to what later versions may add.

func FuzzFlightHeader(f *testing.F) {
	f.Add([]byte{0, 52, 0, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, p, err := ParseFlightHeader(b)
		if err != nil {
			return
		}
		if n < 1 || n > MaxNoise || p < 0 || p > MaxPadding {
			t.Fatalf("out of bounds: %d, %d", n, p)
		}
		if !bytes.Equal(AppendFlightHeader(nil, n, p), b[:FlightHeader]) {
			t.Fatal("comes back differently")
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(Header{Type: TypeFrames, Len: 300}.Append(nil))
	f.Add(Header{Type: TypePiece, Priority: 4, Len: 16384, Left: MaxMessage}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		if h.Len < 0 || h.Len > MaxBody || h.Left < 0 || h.Left > MaxMessage || h.Type == TypePiece && h.Len > h.Left {
			t.Fatalf("out of bounds: %+v", h)
		}
		if !bytes.Equal(h.Append(nil), b[:HeaderSize]) {
			t.Fatal("comes back differently")
		}
	})
}

func FuzzFrames(f *testing.F) {
	b := AppendMessage(AppendPing(nil, FramePing, 9), 3, []byte("message"))
	f.Add(b)
	f.Add(Claim{Seq: 1, Held: []uint64{2}}.Append(AppendReason(b, FrameClose, ReasonLimit)))
	f.Add(Claim{Seq: 1, Only: true, Session: SessionID{3}, Received: 4}.Append(Chosen{SessionID{5}, 6, 8, 9}.Append(AppendAck(nil, 7))))
	f.Add(Claim{Seq: 1, Begun: true, Session: SessionID{3}}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			kind, body, tail, err := NextFrame(rest)
			if err != nil {
				return
			}
			if used := len(rest) - len(tail); used < 2+len(body) || !bytes.Equal(rest[used-len(body):used], body) {
				t.Fatalf("a frame of %d bytes with a body of %d", used, len(body))
			}
			again := AppendFrame(nil, kind, body...)
			if k, same, left, err := NextFrame(again); err != nil || k != kind || !bytes.Equal(same, body) || len(left) != 0 {
				t.Fatal("comes back differently")
			}
			frameBody(t, kind, bytes.Clone(body))
			rest = tail
		}
	})
}

// frameBody checks that the parser of a known frame agrees with its appender.
func frameBody(t *testing.T, kind FrameType, body []byte) {
	var again []byte
	var err error
	switch kind {
	case FrameMessage:
		var p uint8
		var m []byte
		if p, m, err = ParseMessage(body); err == nil {
			again = AppendMessage(nil, p, m)
		}
	case FramePing, FramePong:
		var v uint64
		if v, err = ParsePing(body); err == nil {
			again, body = AppendPing(nil, kind, v), body[:8]
		}
	case FrameRefused, FrameClose:
		var r Reason
		if r, err = ParseReason(body); err == nil {
			again, body = AppendReason(nil, kind, r), body[:2]
		}
	case FrameClaim:
		var c Claim
		if c, err = ParseClaim(body); err == nil {
			body[8] &= claimOnly | claimBegun // other flags are ignored
			again = c.Append(nil)
		}
	case FrameChosen:
		var c Chosen
		if c, err = ParseChosen(body); err == nil {
			again, body = c.Append(nil), body[:40]
		}
	case FrameAck:
		var n uint64
		if n, err = ParseAck(body); err == nil {
			again, body = AppendAck(nil, n), body[:8]
		}
	default:
		return
	}
	if err != nil {
		return
	}
	if k, same, _, err := NextFrame(again); err != nil || k != kind || !bytes.Equal(same, body) {
		t.Fatalf("frame %d comes back as %d %x, was %x, %v", kind, k, same, body, err)
	}
}

func FuzzHello(f *testing.F) {
	f.Add(testHello(f).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHello(b)
		if err != nil {
			return
		}
		if len(h.AppID) > MaxAppID || h.Peer.IsZero() || h.Version == 0 || h.Ciphers&CipherChaCha20Poly1305 == 0 {
			t.Fatalf("accepted %+v", h)
		}
		again, err := ParseHello(h.Append(nil))
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%+v comes back as %+v, %v", h, again, err)
		}
	})
}

func FuzzOffer(f *testing.F) {
	f.Add(AppendOffer(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := ParseOffer(b); err == nil && v == 0 {
			t.Fatal("accepted version 0")
		}
	})
}

// FuzzInfo signs what it mutates, so that mutations reach what lies behind the
// signature.
func FuzzInfo(f *testing.F) {
	k := testKey(f, 1)
	b := testInfo(f).Append(nil, k.Sign)
	f.Add(b[:len(b)-64], true)
	f.Add(b, false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		if sign {
			b = append(b[:len(b):len(b)], k.Sign(append([]byte(InfoContext), b...))...)
		}
		i, err := ParseInfo(b)
		if err != nil {
			return
		}
		if !sign {
			return // a signature by somebody else's key: nothing to sign again with
		}
		if i.Peer != k.ID() || len(i.Endpoints) > MaxEndpoints {
			t.Fatalf("accepted %+v", i)
		}
		again, err := ParseInfo(i.Append(nil, k.Sign))
		if err != nil || !reflect.DeepEqual(again, i) {
			t.Fatalf("%+v comes back as %+v, %v", i, again, err)
		}
	})
}
