package utp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// noise returns n bytes that are the same each time.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b) //nolint:errcheck // never fails
	return b
}

func TestBytesArriveBothWays(t *testing.T) {
	a, b := conns(t, Config{})
	want := noise(20 << 20)
	for _, side := range []struct{ from, to *Conn }{{a, b}, {b, a}} {
		go func() {
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(300_000))
				if _, err := side.from.Write(rest[:n]); err != nil {
					t.Error(err)
				}
				rest = rest[n:]
			}
			side.from.CloseWrite()
		}()
	}
	for _, side := range []*Conn{a, b} {
		got := sha256.New()
		if n, err := io.Copy(got, side); err != nil || n != int64(len(want)) {
			t.Fatalf("copied %d, %v", n, err)
		}
		if sum := sha256.Sum256(want); !bytes.Equal(got.Sum(nil), sum[:]) {
			t.Fatal("other bytes arrived")
		}
	}
}

func TestCloseWriteLeavesTheOtherDirection(t *testing.T) {
	a, b := conns(t, Config{})
	if _, err := a.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := b.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
}

func TestDeadlinesHold(t *testing.T) {
	a, b := conns(t, Config{Window: minWindow, MaxWindow: minWindow})
	begin := time.Now()
	a.SetReadDeadline(begin.Add(50 * time.Millisecond))
	_, err := a.Read(make([]byte, 1))
	var timeout net.Error
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("Read: %v", err)
	}
	if d := time.Since(begin); d < 50*time.Millisecond || d > 2*time.Second {
		t.Errorf("Read waited %v", d)
	}
	a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := a.Write(make([]byte, 1<<20))
	if n != minWindow || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write into a window of %d: %d, %v", minWindow, n, err)
	}
	// A deadline in the past ends a call that waits, and a new one heals.
	a.SetReadDeadline(time.Time{})
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		a.SetReadDeadline(time.Unix(1, 0))
	}()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	<-moved
	a.SetDeadline(time.Time{})
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("Read after the deadline was lifted: %d, %v", n, err)
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	a, _ := conns(t, Config{Window: minWindow, MaxWindow: minWindow})
	ended := make(chan error, 4)
	for range 2 {
		go func() {
			_, err := a.Read(make([]byte, 1))
			ended <- err
		}()
		go func() {
			_, err := a.Write(make([]byte, 1<<20))
			ended <- err
		}()
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

func TestReadAfterThePeerClosed(t *testing.T) {
	a, b := conns(t, Config{})
	want := noise(300_000)
	if _, err := a.Write(want); err != nil {
		t.Fatal(err)
	}
	a.Close()
	<-a.port.Done()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Write to a peer that is gone: %v", err)
	}
	b.Close()
	<-b.port.Done()
}

func TestReadLazyTakesABufferOnlyForBytes(t *testing.T) {
	a, b := conns(t, Config{})
	asked := 0
	get := func() []byte {
		asked++
		return make([]byte, 3)
	}
	b.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := b.ReadLazy(get); !errors.Is(err, os.ErrDeadlineExceeded) || asked != 0 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	b.SetReadDeadline(time.Time{})
	a.Write([]byte("four"))
	a.CloseWrite()
	for _, want := range []int{3, 1} {
		if n, err := b.ReadLazy(get); n != want || err != nil {
			t.Errorf("ReadLazy: %d, %v, want %d", n, err, want)
		}
	}
	if n, err := b.ReadLazy(get); n != 0 || err != io.EOF || asked != 2 {
		t.Errorf("at the end: %d, %v, asked %d times", n, err, asked)
	}
}

func TestTryWriteNeverWaits(t *testing.T) {
	a, b := conns(t, Config{Window: minWindow, MaxWindow: minWindow})
	if n, err := a.TryWrite(make([]byte, 1<<20)); n != minWindow || err != nil {
		t.Fatalf("TryWrite: %d, %v", n, err)
	}
	if n, err := a.TryWrite([]byte("x")); n != 0 || err != nil {
		t.Errorf("TryWrite into a full window: %d, %v", n, err)
	}
	io.ReadFull(b, make([]byte, minWindow))
	if n, err := a.TryWrite([]byte("x")); n != 1 || err != nil {
		t.Errorf("TryWrite after the peer read: %d, %v", n, err)
	}
	a.Close()
	if _, err := a.TryWrite([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("TryWrite after Close: %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	a, b, ab, _ := ports(t, Config{})
	ab.sent = func([]byte) bool { return false }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.Dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial over a path that takes nothing: %v", err)
	}
	<-a.Done()
	if _, err := a.Dial(t.Context()); !errors.Is(err, errUsed) {
		t.Errorf("second Dial: %v", err)
	}
	b.Close()
	if _, err := b.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed Port: %v", err)
	}
}

func TestPortCloseTellsThePeer(t *testing.T) {
	a, b := conns(t, Config{})
	a.port.Close()
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer's Read: %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("our Read: %v", err)
	}
}

func TestARefusedPacketGoesLater(t *testing.T) {
	a, b, ab, _ := ports(t, Config{})
	c, d := connect(t, a, b)
	refuse := 0
	ab.sent = func([]byte) bool {
		refuse++
		return refuse%3 == 0
	}
	want := noise(1 << 20)
	go func() {
		c.Write(want)
		c.Close()
	}()
	if got, err := io.ReadAll(d); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	<-a.Done()
}

func TestNewChecksItsConfig(t *testing.T) {
	start := func(func()) { t.Error("a goroutine was started") }
	for _, cfg := range []Config{{}, {Go: start, Window: 1}, {Go: start, Window: 2 << 20, MaxWindow: 1 << 20}, {Go: start, MaxWindow: math.MaxInt}, {Go: start, Linger: -1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v) succeeded", cfg)
		}
	}
}

func TestStackCloseClosesItsPorts(t *testing.T) {
	a, b := conns(t, Config{})
	a.port.stack.Close()
	<-a.port.Done()
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer's Read: %v", err)
	}
	late := a.port.stack.Add(&lane{}, name("a"), name("b"))
	if _, err := late.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close: %v", err)
	}
}

// libutp splits what is written while it searches for its packet size, and the
// second packet waits while the first one goes out. What arrives meanwhile must
// be missing in the window that the second one grants.
func TestWindowOfAPacketThatWaited(t *testing.T) {
	const window = 1 << 20
	a, b, ab, _ := ports(t, Config{Window: window})
	from, to := connect(t, a, b)
	if _, err := from.Write(noise(1000)); err != nil { // libutp's first step of the search
		t.Fatal(err)
	}
	const meanwhile = 50_000
	var granted []uint32
	ab.sent = func(packet []byte) bool {
		if granted = append(granted, binary.BigEndian.Uint32(packet[12:])); len(granted) == 1 { // BEP 29: wnd_size
			if n, err := to.TryWrite(noise(meanwhile)); n != meanwhile || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
		}
		return true
	}
	if _, err := from.Write(noise(60_000)); err != nil {
		t.Fatal(err)
	}
	if len(granted) < 2 {
		t.Fatalf("%d packets, so this test shows nothing", len(granted))
	}
	for _, w := range granted[1:] {
		if w > window-meanwhile {
			t.Errorf("windows %d are granted, with %d of %d bytes unread", granted, meanwhile, window)
		}
	}
}
