package bootstrap

import (
	"bytes"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzFile opens any bytes as a file. The book works then, and each good slot is in
// it.
func FuzzFile(f *testing.F) {
	good := written5(f)
	f.Add(good)
	f.Add(good[:header{count: 5}.at(2, 0)+77])
	f.Add(append([]byte(magic), 0, 9))
	f.Add([]byte{})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			b = b[:1<<16]
		}
		m := examine(bytes.NewReader(b), int64(len(b)))
		var before []Entry
		if m.view != nil {
			if m.header.count > 64 {
				t.Skip("it takes too long to make such files")
			}
			before = m.view.entries()
		}
		path := filepath.Join(dir, "cache")
		writeFile(t, path, b)
		defer cleanUp(t, path)
		c, err := Open(path, Options{Peers: 64})
		if c == nil || err != nil && !errors.As(err, new(*Warning)) || c.InMemory() {
			t.Fatal(err)
		}
		defer c.Close()
		after, err := c.List()
		if err != nil {
			t.Fatal(err)
		}
		want(t, "kept", numbers(after), numbers(before))
		reach(t, c, 1)
		if _, err := c.Failed(start, id(2)); err != nil {
			t.Fatal(err)
		}
		again, err := c.List()
		if err != nil || again[0].Peer != id(1) {
			t.Fatal(err)
		}
		intact(t, path)
	})
}

// FuzzSlot parses any bytes as a copy of a slot. What is taken is written again, and
// is then the same.
func FuzzSlot(f *testing.F) {
	f.Add(make([]byte, slotSize))
	good := written5(f)
	for i := range 5 {
		f.Add(good[header{count: 5}.at(i, 0):][:slotSize])
	}
	f.Add(appendSlot(nil, 9, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < slotSize {
			return
		}
		b = bytes.Clone(b[:slotSize])
		if len(b) > 8 && b[0] == 0 { // else nothing gets past the checksum
			b = appendCheck(b[:slotCheck], 0)
		}
		seq, e, err := parseSlot(b)
		if err != nil || seq == 0 {
			return
		}
		again := appendSlot(nil, seq, e)
		seq2, e2, err := parseSlot(again)
		if err != nil || seq2 != seq || !reflect.DeepEqual(e, e2) {
			t.Fatalf("%+v became %+v: %v", e, e2, err)
		}
	})
}
