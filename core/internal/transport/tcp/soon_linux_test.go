package tcp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// soonEnough is a patience that no test runs out of.
const soonEnough = 20 * time.Second

// TestReadSoonReadsWhatIsThere: what has come is returned, as much as fits, and
// the rest by the next read of whatever kind.
func TestReadSoonReadsWhatIsThere(t *testing.T) {
	a, b := pair(t)
	if _, err := a.Write([]byte("abcdefgh")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	reads := []func([]byte) (int, error){
		func(p []byte) (int, error) { return b.ReadSoon(p, soonEnough) },
		b.Read,
		func(p []byte) (int, error) { return b.ReadSoon(p, soonEnough) },
	}
	for i, want := range []string{"abc", "def", "gh"} {
		if n, err := reads[i](buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("read %q, %v; want %q", buf[:n], err, want)
		}
	}
}

// TestReadSoonGivesUp: when nothing comes it returns nothing, after its patience
// and not long after, and the connection is read as before.
func TestReadSoonGivesUp(t *testing.T) {
	a, b := pair(t)
	buf := make([]byte, 8)
	for _, patience := range []time.Duration{0, 100 * time.Microsecond, 20 * time.Millisecond} {
		began := time.Now()
		n, err := b.ReadSoon(buf, patience)
		if took := time.Since(began); n != 0 || err != nil || took < patience || took > patience+5*time.Second {
			t.Fatalf("with a patience of %v: %d, %v after %v", patience, n, err, took)
		}
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(buf); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

// TestReadSoonWaits: what comes within its patience is returned, without waiting
// for the rest of the patience.
func TestReadSoonWaits(t *testing.T) {
	a, b := pair(t)
	buf := make([]byte, 8)
	for range 100 {
		go a.Write([]byte("x"))
		began := time.Now()
		n, err := b.ReadSoon(buf, soonEnough)
		if took := time.Since(began); n != 1 || err != nil || buf[0] != 'x' || took > soonEnough/2 {
			t.Fatalf("%d, %v after %v", n, err, took)
		}
	}
}

// TestReadSoonEnds: the end of the stream, a reset and a closed connection show
// as they do in Read.
func TestReadSoonEnds(t *testing.T) {
	buf := make([]byte, 8)
	a, b := pair(t)
	if _, err := a.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if n, err := b.ReadSoon(buf, soonEnough); string(buf[:n]) != "last" || err != nil {
		t.Fatalf("before the end: %q, %v", buf[:n], err)
	}
	for range 2 {
		if n, err := b.ReadSoon(buf, soonEnough); n != 0 || err != io.EOF {
			t.Fatalf("at the end: %d, %v; want EOF", n, err)
		}
	}
	c, d := pair(t)
	if err := c.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	var op *net.OpError
	if n, err := d.ReadSoon(buf, soonEnough); n != 0 || !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Addr == nil {
		t.Fatalf("after a reset: %d, %v", n, err)
	}
	d.Close()
	if n, err := d.ReadSoon(buf, soonEnough); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %d, %v; want net.ErrClosed", n, err)
	}
}

// TestReadSoonBesideOthers: writing, setting deadlines and closing go on while
// ReadSoon waits. Close has to wait for it, but not longer than its patience.
func TestReadSoonBesideOthers(t *testing.T) {
	a, b := pair(t)
	const patience = 200 * time.Millisecond
	done := make(chan error)
	begun := make(chan struct{})
	go func() {
		close(begun)
		buf := make([]byte, 8)
		for {
			if _, err := b.ReadSoon(buf, patience); err != nil {
				done <- err
				return
			}
		}
	}()
	<-begun
	if err := b.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := b.TryWrite([]byte("hello")); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	began := time.Now()
	b.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("beside Close: %v, want net.ErrClosed", err)
	}
	if took := time.Since(began); took > patience+5*time.Second {
		t.Fatalf("Close and the end of ReadSoon took %v", took)
	}
}

// TestReadSoonIgnoresTheDeadline: the deadline is for the reads that sleep, and
// holds for them afterwards.
func TestReadSoonIgnoresTheDeadline(t *testing.T) {
	a, b := pair(t)
	if err := b.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	if n, err := b.ReadSoon(buf, soonEnough); n != 1 || err != nil {
		t.Fatalf("past the deadline: %d, %v", n, err)
	}
	if n, err := b.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read past the deadline: %d, %v", n, err)
	}
}

// TestReadSoonMixed: a stream read by turns in all three ways is whole.
func TestReadSoonMixed(t *testing.T) {
	a, b := pair(t)
	want := bytes.Repeat([]byte("there is no gap "), 1<<16)
	go func() {
		for rest := want; len(rest) > 0; {
			n, err := a.Write(rest[:min(len(rest), 1+len(rest)%4000)])
			if err != nil {
				return // the other end will miss something
			}
			rest = rest[n:]
		}
		a.CloseWrite()
	}()
	var got bytes.Buffer
	buf := make([]byte, 1000)
	for i := 0; ; i++ {
		var n int
		var err error
		switch i % 3 {
		case 0:
			n, err = b.ReadSoon(buf, 50*time.Microsecond)
		case 1:
			n, err = b.Read(buf)
		case 2:
			n, err = b.ReadLazy(func() []byte { return buf })
		}
		got.Write(buf[:n])
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Fatalf("%d bytes came that differ from the %d sent", got.Len(), len(want))
	}
}

func TestReadSoonDoesNotAllocate(t *testing.T) {
	a, b := pair(t)
	buf := make([]byte, 64)
	allocs := testing.AllocsPerRun(200, func() {
		if n, err := b.ReadSoon(buf, 0); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := a.TryWrite(buf); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
		if n, err := b.ReadSoon(buf, soonEnough); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
	})
	if allocs != 0 {
		t.Fatalf("ReadSoon allocates %v times", allocs)
	}
}
