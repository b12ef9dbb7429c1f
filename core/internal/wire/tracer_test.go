package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestTracerHeader(t *testing.T) {
	for _, c := range []struct {
		h    TracerHeader
		want string
	}{
		{TracerHeader{Type: TypeShake, Dialer: true, Len: 66}, "63727531 00 01 00 00 00000042 00000000 0000000000000000"},
		{TracerHeader{Type: TypeFrames, Len: 300, Number: 0x0102030405060708}, "63727531 01 00 00 00 0000012c 00000000 0102030405060708"},
		{TracerHeader{Type: TypePiece, Dialer: true, Priority: 4, Len: 16384, Left: MaxMessage, Number: 9}, "63727531 02 01 04 00 00004000 00200000 0000000000000009"},
		{TracerHeader{Type: TypeControl, Number: 1<<64 - 1}, "63727531 03 00 00 00 00000000 00000000 ffffffffffffffff"},
	} {
		b := c.h.Append(nil)
		golden(t, "tracer header", b, c.want)
		if len(b) != TracerHeaderSize {
			t.Errorf("%d bytes", len(b))
		}
		if got, err := ParseTracerHeader(append(b, 1, 2, 3)); err != nil || got != c.h {
			t.Errorf("%+v came back as %+v, %v", c.h, got, err)
		}
		shortPrefixes(t, "tracer header", b, func(b []byte) error { _, err := ParseTracerHeader(b); return err })
		b[5] |= 0xfe
		b[7] = 0xff
		if got, err := ParseTracerHeader(b); err != nil || got != c.h {
			t.Errorf("with what is to be ignored: %+v, %v", got, err)
		}
		for i := range TracerMagic {
			bad := bytes.Clone(b)
			bad[i] ^= 0x20
			if _, err := ParseTracerHeader(bad); !errors.Is(err, ErrNoMagic) {
				t.Errorf("with another byte %d: %v", i, err)
			}
		}
	}
	for why, h := range map[string]TracerHeader{
		"no handshake":        {Type: TypeShake},
		"a long handshake":    {Type: TypeShake, Len: MaxTracerShake + 1},
		"an urgent handshake": {Type: TypeShake, Len: 1, Priority: 1},
		"a handshake to come": {Type: TypeShake, Len: 1, Left: 1},
		"an unknown type":     {Type: 4},
		"a long body":         {Type: TypeFrames, Len: MaxBody + 1},
		"a length that wraps": {Type: TypeFrames, Len: 1<<16 + 3},
		"a piece of nothing":  {Type: TypePiece},
		"a piece with less":   {Type: TypePiece, Len: 2, Left: 1},
		"a large message":     {Type: TypePiece, Len: 2, Left: MaxMessage + 1},
		"urgent frames":       {Type: TypeFrames, Priority: 1},
		"frames to come":      {Type: TypeControl, Left: 1},
	} {
		if got, err := ParseTracerHeader(h.Append(nil)); err == nil || got != (TracerHeader{}) {
			t.Errorf("%s: %+v, %v", why, got, err)
		}
	}
}

func TestTracerShake(t *testing.T) {
	hello := Hello{Version: 1, Peer: testKey(t, 1).ID(), Ciphers: CipherChaCha20Poly1305}.Append(nil)
	nonce := [TracerNonce]byte(bytes.Repeat([]byte{7}, TracerNonce))
	for _, m := range []TracerShake{
		{Step: 1, Nonce: nonce, Payload: AppendOffer(nil), Proof: bytes.Repeat([]byte{8}, TracerProof)},
		{Step: 2, Nonce: nonce, Payload: hello, Proof: bytes.Repeat([]byte{9}, TracerSignature)},
		{Step: 3, Payload: hello, Proof: bytes.Repeat([]byte{9}, TracerSignature)},
	} {
		b := m.Append(nil)
		got, err := ParseTracerShake(m.Step, b)
		if err != nil || got.Step != m.Step || got.Nonce != m.Nonce || !bytes.Equal(got.Payload, m.Payload) || !bytes.Equal(got.Proof, m.Proof) {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
		if !bytes.Equal(append(m.AppendUnproved(nil), m.Proof...), b) {
			t.Error("what is proved is not all but the proof")
		}
		shortPrefixes(t, "tracer handshake", b, func(b []byte) error { _, err := ParseTracerShake(m.Step, b); return err })
		for step := range uint8(6) {
			if _, err := ParseTracerShake(step, b); step != m.Step && err == nil {
				t.Errorf("step %d is taken for %d", m.Step, step)
			}
		}
		if _, err := ParseTracerShake(m.Step, append(bytes.Clone(b), 0)); err == nil {
			t.Errorf("step %d with a byte more", m.Step)
		}
		if len(b) > MaxTracerShake {
			t.Errorf("step %d has %d bytes", m.Step, len(b))
		}
	}
	golden(t, "tracer handshake", TracerShake{Step: 1, Nonce: nonce, Payload: AppendOffer(nil), Proof: bytes.Repeat([]byte{8}, TracerProof)}.Append(nil),
		"01 "+strings.Repeat("07", 32)+" 0004 01 0001 01 "+strings.Repeat("08", 32))
	long := Hello{Version: 1, Peer: testKey(t, 1).ID(), Ciphers: 1, AppID: make([]byte, MaxAppID), Unacked: 1, Flags: 1}
	if b := (TracerShake{Step: 2, Payload: long.Append(nil), Proof: make([]byte, TracerSignature)}).Append(nil); len(b) > MaxTracerShake {
		t.Errorf("the longest hello takes %d bytes", len(b))
	}
}

func FuzzTracer(f *testing.F) {
	hello := Hello{Version: 1, Peer: testKey(f, 1).ID(), Ciphers: CipherChaCha20Poly1305}.Append(nil)
	for _, m := range []TracerShake{
		{Step: 1, Payload: AppendOffer(nil), Proof: make([]byte, TracerProof)},
		{Step: 2, Payload: hello, Proof: make([]byte, TracerSignature)},
		{Step: 3, Payload: hello, Proof: make([]byte, TracerSignature)},
	} {
		b := m.Append(nil)
		f.Add(append(TracerHeader{Type: TypeShake, Dialer: m.Step != 2, Len: len(b)}.Append(nil), b...))
	}
	f.Add(TracerHeader{Type: TypePiece, Priority: 2, Len: 3, Left: 30, Number: 5}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseTracerHeader(b)
		if err != nil {
			return
		}
		if again, err := ParseTracerHeader(h.Append(nil)); err != nil || again != h {
			t.Fatalf("%+v comes back as %+v, %v", h, again, err)
		}
		if h.Type != TypeShake {
			if _, err := ParseHeader(h.Record().Append(nil)); err != nil {
				t.Fatalf("%+v is no record: %v", h, err)
			}
			return
		}
		body := b[TracerHeaderSize:]
		for step := range uint8(4) {
			if m, err := ParseTracerShake(step, body); err == nil && !bytes.Equal(m.Append(nil), body) {
				t.Fatalf("%x comes back as %x", body, m.Append(nil))
			}
		}
	})
}
