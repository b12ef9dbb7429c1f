//go:build !race

package session

import (
	"runtime"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// counting is an owner that only counts messages.
type counting struct {
	owner
	n    int
	want int
	done chan struct{}
}

func (c *counting) Deliver(_ *Session, messages []Message, buffers []*Buffer, _ bool) bool {
	for _, b := range buffers {
		b.Release()
	}
	if c.n += len(messages); c.n == c.want {
		close(c.done)
	}
	return true
}

// TestAllocations: a small message costs less than a tenth of an allocation from
// its sender to the receiver's owner.
func TestAllocations(t *testing.T) {
	for name, cfg := range map[string]Config{"nothing kept": usual, "resuming": resuming} {
		t.Run(name, func(t *testing.T) { allocations(t, cfg) })
	}
}

func allocations(t *testing.T, cfg Config) {
	const warm, count = 20_000, 200_000
	la, lb := links(t, 4<<20, nil)
	o := &counting{want: warm, done: make(chan struct{})}
	a := start(t, la, cfg, new(owner))
	b := New(lb, wire.SessionID{1}, cfg, o, nil)
	b.Start()
	defer func() {
		b.Kill(ErrReplaced)
		<-b.Done()
	}()
	message := numbered(64, 1)
	send := func(n int) {
		t.Helper()
		for range n {
			if err := a.SendWait(t.Context(), message, 1); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-o.done:
		case <-time.After(30 * time.Second):
			t.Fatal("messages are missing")
		}
	}
	send(warm)
	o.n, o.want, o.done = 0, count, make(chan struct{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send(count)
	runtime.ReadMemStats(&after)
	if per := float64(after.Mallocs-before.Mallocs) / count; per >= 0.1 {
		t.Fatalf("%.3f allocations a message", per)
	} else {
		t.Logf("%.4f allocations a message", per)
	}
}

// TestMemoryOfSession: a session takes at most 2,176 bytes, beside its link, its goroutine and
// what it reads.
func TestMemoryOfSession(t *testing.T) {
	const count = 1000
	link, _ := links(t, 4<<10, nil)
	sessions, o := make([]*Session, count), new(owner)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range sessions {
		sessions[i] = New(link, wire.SessionID{1}, resuming, o, nil)
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / count
	if each > 2176 {
		t.Fatalf("%d bytes", each)
	}
	t.Logf("%d bytes", each)
	link.Conn.Close()
}
