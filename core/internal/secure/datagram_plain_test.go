package secure

import (
	"bytes"
	"errors"
	"testing"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// The records of Plain have the form and the size of all others.
func TestPlainRecords(t *testing.T) {
	s, _ := Plain()
	_, o := Plain()
	sealer, _ := oneWay(t, AES256GCM)
	for _, n := range []int{0, 1, 1000, wire.MaxBody} {
		body := bytes.Repeat([]byte{byte(n)}, n)
		record := s.Seal([]byte("before"), frames(0), body)[6:]
		want := append(frames(n).Append(nil), make([]byte, wire.TagSize)...)
		want = append(append(want, body...), make([]byte, wire.TagSize)...)
		if !bytes.Equal(record, want) || len(record) != len(sealer.Seal(nil, frames(0), body)) {
			t.Fatalf("a body of %d bytes makes a record of %d", n, len(record))
		}
		if h, got, err := open(o, record); err != nil || h != frames(n) || !bytes.Equal(got, body) {
			t.Errorf("%d bytes: %+v, %d bytes, %v", n, h, len(got), err)
		}
	}
	if s.half.cipher.String() != "none" {
		t.Error(s.half.cipher)
	}
}

// They go on for ever: no change of key gets in the way.
func TestPlainRecordsBeyondTheChangeOfKey(t *testing.T) {
	s, _ := Plain()
	_, o := Plain()
	buf := make([]byte, 0, 100)
	for i := range wire.RekeyInterval {
		if _, body, err := open(o, s.Seal(buf, frames(0), []byte("abc"))); err != nil || string(body) != "abc" {
			t.Fatalf("record %d: %q, %v", i, body, err)
		}
	}
	s.Zero()
	o.Zero()
}

func TestPlainTagsAreChecked(t *testing.T) {
	s, _ := Plain()
	record := s.Seal(nil, frames(0), []byte("text"))
	for n := range record {
		if inHeader, inBody := n >= 8 && n < 24, n >= 28; !inHeader && !inBody {
			continue
		}
		record[n] ^= 1
		_, o := Plain()
		if _, body, err := open(o, record); !errors.Is(err, ErrForged) || body != nil {
			t.Errorf("byte %d of a tag flipped: %q, %v", n, body, err)
		}
		record[n] ^= 1
	}
	for n := range record {
		_, o := Plain()
		if _, body, err := open(o, record[:n]); err == nil {
			t.Errorf("cut to %d bytes: %q", n, body)
		}
	}
}

// In place, nothing is copied and nothing allocated.
func TestPlainInPlace(t *testing.T) {
	const n = 60000
	s, _ := Plain()
	_, o := Plain()
	buf := make([]byte, wire.SealedHeader+n, wire.SealedHeader+n+wire.TagSize)
	allocs := testing.AllocsPerRun(100, func() {
		record := s.Seal(buf[:0], frames(0), buf[wire.SealedHeader:])
		h, err := o.Header(record[:wire.SealedHeader])
		if err != nil || h.Len != n || &record[0] != &buf[0] {
			t.Fatal(h, err)
		}
		body, err := o.Body(record[wire.SealedHeader:][:0], record[wire.SealedHeader:])
		if err != nil || &body[0] != &buf[wire.SealedHeader] {
			t.Fatal("moved", err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
