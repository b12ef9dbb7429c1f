package udp

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soonEnough is a patience that no test runs out of.
const soonEnough = 20 * time.Second

// TestReadSoonReadsWhatIsThere: what has come is returned in order, as many runs as
// there is memory for, beside ReadBatch.
func TestReadSoonReadsWhatIsThere(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		a, b := open(t, addr), open(t, addr)
		for _, text := range []string{"a", "bc", "def"} {
			mustWrite(t, a, run(b.LocalAddr(), len(text), []byte(text)))
		}
		ps := buffers(1)
		for i, want := range []string{"a", "bc", "def"} {
			read := func(ps []Packets) (int, error) { return b.ReadSoon(ps, soonEnough) }
			if i == 1 {
				read = b.ReadBatch
			}
			if n, err := read(ps); n != 1 || err != nil || string(ps[0].Buf[:ps[0].N]) != want || ps[0].Addr != a.LocalAddr() {
				t.Fatalf("%d, %v: %q from %v instead of %q", n, err, ps[0].Buf[:ps[0].N], ps[0].Addr, want)
			}
		}
	}
}

// TestReadSoonGivesUp: when nothing comes it returns nothing, after its patience, and
// so it does without batches and without memory.
func TestReadSoonGivesUp(t *testing.T) {
	b := open(t, "127.0.0.1:0")
	ps := buffers(1)
	for _, patience := range []time.Duration{-1, 0, 5 * time.Millisecond} {
		began := time.Now()
		if n, err := b.ReadSoon(ps, patience); n != 0 || err != nil || time.Since(began) < patience {
			t.Fatalf("%d, %v after %v", n, err, time.Since(began))
		}
	}
	if n, err := b.ReadSoon(nil, soonEnough); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	setPlain(t, b)
	if n, err := b.ReadSoon(ps, soonEnough); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

// TestReadSoonWaits: what comes within its patience is returned.
func TestReadSoonWaits(t *testing.T) {
	a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	text := bytes.Repeat([]byte("x"), 100)
	time.AfterFunc(5*time.Millisecond, func() { a.WriteBatch([]Packets{run(b.LocalAddr(), len(text), text)}) })
	ps := buffers(4)
	if n, err := b.ReadSoon(ps, soonEnough); n != 1 || err != nil || !bytes.Equal(ps[0].Buf[:ps[0].N], text) {
		t.Fatal(n, err)
	}
}

// TestReadSoonTrouble: trouble that passes is counted and looks like nothing; other
// trouble and Close are errors.
func TestReadSoonTrouble(t *testing.T) {
	b := open(t, "127.0.0.1:0")
	ps := buffers(1)
	trouble := unix.ECONNREFUSED
	b.batch.reader.soon = func(uintptr, []mmsghdr) (int, unix.Errno) { return -1, trouble }
	if n, err := b.ReadSoon(ps, soonEnough); n != 0 || err != nil || b.Stats().ReadErrors != 1 {
		t.Fatal(n, err, b.Stats().ReadErrors)
	}
	trouble = unix.EBADF
	if n, err := b.ReadSoon(ps, soonEnough); n != 0 || !errors.Is(err, unix.EBADF) {
		t.Fatal(n, err)
	}
	b.batch.reader.soon = recvmmsgSoon
	b.Close()
	if n, err := b.ReadSoon(ps, soonEnough); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Fatal(n, err)
	}
}

func TestReadSoonDoesNotAllocate(t *testing.T) {
	a, b := open(t, "127.0.0.1:0"), open(t, "127.0.0.1:0")
	ps, sent := buffers(1), []Packets{run(b.LocalAddr(), 3, []byte("abc"))}
	if allocs := testing.AllocsPerRun(200, func() {
		if err := a.WriteBatch(sent); err != nil {
			t.Fatal(err)
		}
		if n, err := b.ReadSoon(ps, soonEnough); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}); allocs > 0 {
		t.Fatalf("%v allocations", allocs)
	}
}
