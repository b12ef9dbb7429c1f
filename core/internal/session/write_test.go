package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestSizes: messages at every bound of the encoding arrive as they were sent,
// written by the caller and queued alike, and all is accounted for.
func TestSizes(t *testing.T) {
	sizes := []int{0, 1, 125, 126, 127, 128, 16381, 16382, 16383, pieceOver, pieceOver + 1, wire.MaxBody - 1, wire.MaxBody,
		wire.MaxBody + 1, directOver, directOver + 1, 2*wire.MaxBody + 1, wire.MaxMessage - 1, wire.MaxMessage}
	for name, pause := range map[string]time.Duration{"by the caller": time.Second, "queued": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, _, ob := pair(t, usual, 0, nil)
				var want [][]byte
				bytes := uint64(0)
				for i, size := range sizes {
					time.Sleep(pause)
					synctest.Wait()
					want = append(want, numbered(size, i))
					if err := a.SendWait(t.Context(), want[i], 3); err != nil {
						t.Fatal(err)
					}
					bytes += uint64(size)
				}
				synctest.Wait()
				same(t, ob.all("message"), want)
				if err := a.Send(make([]byte, wire.MaxMessage+1), 0); err != ErrTooBig {
					t.Fatalf("too big gave %v", err)
				}
				ca, cb := a.Counters(), b.Counters()
				if n := uint64(len(sizes)); ca.Queued != 0 || ca.SentMessages != n || ca.SentBytes != bytes ||
					cb.ReceivedMessages != n || cb.ReceivedBytes != bytes || cb.WireReceived != ca.WireSent {
					t.Fatalf("counted %+v and %+v", ca, cb)
				}
			})
		})
	}
}

// TestOrderWithinPriority: senders beside each other, small and large messages,
// over a connection that takes little at a time: each priority keeps its order.
func TestOrderWithinPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, ob := pair(t, usual, 40_000, nil)
		var wg sync.WaitGroup
		want := make([][][]byte, 12)
		for p := range want {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(p), 1))
				for i := range 60 {
					size := []int{r.IntN(200), r.IntN(200), r.IntN(20_000), r.IntN(200_000)}[r.IntN(4)]
					m := numbered(size, i)
					want[p] = append(want[p], m)
					if err := a.SendWait(t.Context(), m, uint8(p)); err != nil {
						t.Error(err)
						return
					}
					if r.IntN(3) == 0 {
						time.Sleep(time.Duration(r.IntN(100)) * time.Microsecond)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		events := ob.take()
		for p := range want {
			same(t, byPriority(events, uint8(p)), want[p])
		}
		if n := a.Counters().Queued; n != 0 {
			t.Fatalf("%d bytes are still counted as queued", n)
		}
	})
}

// TestMessagesUnderWay: when as many messages are in pieces as the protocol
// allows, more urgent ones of every size wait their turn, and nothing breaks.
func TestMessagesUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 40_000, nil)
		oa, ob := new(owner), &owner{gate: make(chan struct{})}
		a := New(la, wire.SessionID{1}, usual, oa, nil)
		// Less urgent first, each begun before a more urgent one comes.
		taken := batch{line: a.line}
		for p := wire.MaxOpenPieces + 1; p > 0; p-- {
			a.mu.Lock()
			a.enqueue(numbered(200_000, p), uint8(p))
			q := a.next()
			if p > 1 {
				a.takePiece(&taken, q, *q.first())
			}
			a.mu.Unlock()
		}
		if a.open != wire.MaxOpenPieces {
			t.Fatalf("%d messages are under way", a.open)
		}
		a.mu.Lock()
		a.enqueue(numbered(20_000, 0), 0) // one piece, but a piece
		a.out = taken.out
		a.queued += len(taken.out)
		a.writing, a.using = true, a.line
		oa.Go(a.write)
		a.mu.Unlock()
		a.Start()
		start(t, lb, usual, ob)
		synctest.Wait()
		close(ob.gate)
		time.Sleep(time.Second)
		synctest.Wait()
		events := ob.take()
		for p := range wire.MaxOpenPieces + 2 {
			size := 200_000
			if p == 0 {
				size = 20_000
			}
			same(t, byPriority(events, uint8(p)), [][]byte{numbered(size, p)})
		}
		a.Kill(ErrReplaced)
		<-a.Done()
	})
}

// slowConn holds the first direct write of more than 1,000 bytes until it is let go.
type slowConn struct {
	*simnet.Conn
	once          sync.Once
	entered, free chan struct{}
}

func (c *slowConn) TryWrite(p []byte) (int, error) {
	if len(p) > 1000 {
		c.once.Do(func() {
			close(c.entered)
			<-c.free
		})
	}
	return c.Conn.TryWrite(p)
}

// TestWritableAfterDirectWrite: a message that was refused because another one
// was being written by its sender is followed by a Writable.
func TestWritableAfterDirectWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.SendQueue = directOver + 1000
		conn := &slowConn{entered: make(chan struct{}), free: make(chan struct{})}
		a, _, oa, ob := pair(t, cfg, 1<<20, func(c *simnet.Conn) net.Conn { conn.Conn = c; return conn })
		time.Sleep(2 * time.Second)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.Send(numbered(directOver, 1), 1); err != nil {
				t.Error(err)
			}
		})
		<-conn.entered
		if err := a.Send(numbered(2000, 2), 1); err != ErrWouldBlock {
			t.Fatalf("the full queue gave %v", err)
		}
		oa.take()
		close(conn.free)
		wg.Wait()
		synctest.Wait()
		if n := len(oa.all("writable")); n != 1 {
			t.Fatalf("%d times writable", n)
		}
		if err := a.Send(numbered(2000, 2), 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		same(t, ob.all("message"), [][]byte{numbered(directOver, 1), numbered(2000, 2)})
	})
}

// TestWritableAfterDrops: room that comes from dropping old messages is told.
func TestWritableAfterDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.MaxAge, cfg.LostAfter = 5*time.Second, time.Hour
		la, lb := links(t, 10_000, nil)
		oa := new(owner)
		a := start(t, la, cfg, oa)
		time.Sleep(2 * time.Second)
		for a.Send(numbered(100_000, 0), 7) == nil {
		}
		time.Sleep(4 * time.Second)
		if n := len(oa.all("writable")); n != 0 {
			t.Fatal("writable while nothing moves")
		}
		time.Sleep(2 * time.Second)
		events := oa.take()
		if len(events) != 2 || events[0].what != "dropped" || events[0].count < 35 || events[0].bytes != events[0].count*100_000 || events[1].what != "writable" {
			t.Fatalf("told %d events: %v", len(events), events)
		}
		if err := a.Send(numbered(100_000, 0), 7); err != nil {
			t.Fatal(err)
		}
		lb.Conn.Close()
	})
}

// TestDropsBesideOneUnderWay: a large message that has begun to go out before a link stalled
// is finished however old it grows. What is queued behind it is dropped at its own age, no
// sooner, and nobody wakes up for the other one meanwhile.
func TestDropsBesideOneUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.MaxAge, cfg.LostAfter = 5*time.Second, time.Hour
		la, lb := links(t, 10_000, nil)
		defer lb.Conn.Close()
		oa := new(owner)
		a := start(t, la, cfg, oa)
		time.Sleep(2 * time.Second)
		if err := a.Send(make([]byte, 1<<20), 7); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		before := oa.wg.begun()
		if err := errors.Join(a.Send([]byte("behind"), 7), a.Send([]byte("beside"), 8)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		if events := oa.take(); len(events) != 0 {
			t.Errorf("after four of five seconds: %v", events)
		}
		time.Sleep(2 * time.Second)
		if events := oa.all("dropped"); len(events) != 2 || events[0].priority != 7 || events[0].bytes != 6 || events[1].priority != 8 || events[1].bytes != 6 {
			t.Errorf("after six: %v", events)
		}
		if n := oa.wg.begun() - before; n > 3 {
			t.Errorf("%d goroutines were begun in six seconds", n)
		}
	})
}

// TestSendWait: it waits, is never followed by a Writable, says at once what can
// never be sent, and ends with its context or the session.
func TestSendWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 10_000, nil)
		oa, ob := new(owner), &owner{gate: make(chan struct{})}
		a := start(t, la, usual, oa)
		start(t, lb, usual, ob)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 10 {
					if err := a.SendWait(t.Context(), numbered(60_000, 0), 1); err != nil {
						t.Error(err)
					}
				}
			})
		}
		synctest.Wait()
		for a.Counters().Queued+wire.MaxMessage < usual.SendQueue {
			if err := a.Send(numbered(wire.MaxMessage/2, 0), 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.SendWait(t.Context(), make([]byte, wire.MaxMessage+1), 0); err != ErrTooBig {
			t.Fatalf("too big gave %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.SendWait(ctx, make([]byte, wire.MaxMessage), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("waiting too long gave %v", err)
		}
		close(ob.gate)
		wg.Wait()
		synctest.Wait()
		if n := len(oa.all("writable")); n != 0 {
			t.Fatalf("%d times writable", n)
		}
		if n := len(ob.all("message")); n < 500 {
			t.Fatalf("%d messages arrived", n)
		}
		a.Kill(ErrReplaced)
		if err := a.SendWait(t.Context(), nil, 0); err != ErrEnded {
			t.Fatalf("after the end: %v", err)
		}
	})
}

// TestStalledHeartbeats: heartbeats that cannot go out do not pile up.
func TestStalledHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual
		cfg.Heartbeat = 10 * time.Millisecond
		la, lb := links(t, 10_000, nil)
		oa, ob := new(owner), &owner{gate: make(chan struct{})}
		a, b := start(t, la, cfg, oa), start(t, lb, cfg, ob)
		var want [][]byte
		for i := range 20 {
			want = append(want, numbered(20_000, i))
			if err := a.Send(want[i], 1); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(15 * time.Second)
		a.mu.Lock()
		n := len(a.control)
		a.mu.Unlock()
		if n > 100 {
			t.Fatalf("%d bytes of heartbeats wait", n)
		}
		close(ob.gate)
		time.Sleep(time.Second)
		same(t, ob.all("message"), want)
		if !a.Live() || !b.Live() || a.Counters().RTT == 0 {
			t.Fatal("the session did not live on")
		}
	})
}

// faultyConn panics where it is told.
type faultyConn struct {
	*simnet.Conn
	in string
}

func (c *faultyConn) check(where string) {
	if c.in == where {
		panic("fault in " + where)
	}
}

func (c *faultyConn) Write(p []byte) (int, error)    { c.check("write"); return c.Conn.Write(p) }
func (c *faultyConn) TryWrite(p []byte) (int, error) { c.check("try"); return c.Conn.TryWrite(p) }
func (c *faultyConn) CloseWrite() error              { c.check("half"); return c.Conn.CloseWrite() }
func (c *faultyConn) ReadLazy(get func() []byte) (int, error) {
	return c.Conn.ReadLazy(func() []byte { c.check("read"); return get() })
}

// TestFaults: whatever panics, the session ends, says so last, and leaves nothing.
func TestFaults(t *testing.T) {
	for _, in := range []string{"write", "try", "half"} {
		t.Run(in, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := &faultyConn{}
				a, _, oa, _ := pair(t, usual, 0, func(c *simnet.Conn) net.Conn { conn.Conn = c; return conn })
				time.Sleep(2 * time.Second)
				synctest.Wait()
				conn.in = in
				if in != "half" {
					a.Send([]byte("direct"), 0)
					a.SendRun(2, func(int) ([]byte, uint8) { return []byte("queued"), 0 })
				}
				a.Disconnect(wire.ReasonDisconnect, ErrDisconnected)
				<-a.Done()
				oa.wg.Wait()
				events := oa.take()
				if n := len(events); n < 2 || events[n-1].what != "ended" && events[n-1].what != "fault" {
					t.Fatalf("told %v", events)
				}
			})
		})
	}
}

// TestFaultInDismiss: a connection that panics while a session tells why it is dismissed, or
// expelled, holds nobody up.
func TestFaultInDismiss(t *testing.T) {
	for name, leave := range map[string]func(*Session, wire.Reason, error){"dismiss": (*Session).Dismiss, "expel": (*Session).Expel} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := &faultyConn{}
				a, _, oa, _ := pair(t, parts(), 0, func(c *simnet.Conn) net.Conn { conn.Conn = c; return conn })
				time.Sleep(2 * time.Second)
				synctest.Wait()
				conn.in = "write"
				oa.Go(func() { leave(a, wire.ReasonBanned, ErrBanned) })
				select {
				case <-a.Done():
				case <-time.After(time.Minute):
					t.Fatal("the session does not end")
				}
				oa.wg.Wait()
			})
		})
	}
}

// TestDisconnectDelivers: what was accepted arrives before the end, whatever was
// under way, and the other side knows why.
func TestDisconnectDelivers(t *testing.T) {
	for _, reason := range []wire.Reason{wire.ReasonDisconnect, wire.ReasonStopping} {
		synctest.Test(t, func(t *testing.T) {
			a, b, oa, ob := pair(t, usual, 30_000, nil)
			var want [][]byte
			for i := range 50 {
				want = append(want, numbered(i*i*20, i))
				if err := a.Send(want[i], 2); err != nil {
					t.Fatal(err)
				}
			}
			if !a.Disconnect(reason, ErrDisconnected) || a.Disconnect(reason, ErrDisconnected) {
				t.Fatal("a session is disconnected once")
			}
			if err := a.Send(nil, 0); err != ErrEnded {
				t.Fatalf("after disconnecting: %v", err)
			}
			<-a.Done()
			<-b.Done()
			events := ob.take()
			same(t, byPriority(events, 2), want)
			why := ErrDisconnected
			if reason == wire.ReasonStopping {
				why = ErrStopped
			}
			if last := events[len(events)-1]; last.what != "ended" || !errors.Is(last.why, why) {
				t.Fatalf("the other side ended with %v", last.why)
			}
			if last := oa.all("ended"); len(last) != 1 || last[0].why != ErrDisconnected {
				t.Fatalf("our side ended with %v", last)
			}
			oa.wg.Wait()
			ob.wg.Wait()
		})
	}
}

// TestUrgentDoesNotWait: SendWait holds back a message behind much that is queued,
// but not one that overtakes it.
func TestUrgentDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 10_000, nil)
		a := start(t, la, usual, new(owner))
		start(t, lb, usual, &owner{gate: make(chan struct{})})
		for i := range 20 {
			if err := a.Send(numbered(60_000, i), 1); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began := time.Now()
		if err := a.SendWait(ctx, []byte("urgent"), 0); err != nil || time.Since(began) > 0 {
			t.Fatalf("urgent: %v after %v", err, time.Since(began))
		}
		time.AfterFunc(time.Minute, cancel)
		if err := a.SendWait(ctx, []byte("late"), 1); err != nil || time.Since(began) < time.Minute {
			t.Fatalf("late: %v after %v", err, time.Since(began))
		}
	})
}

// partedConn breaks in writing when it is told, and is slow to tell its reader what
// has come.
type partedConn struct {
	net.Conn
	parted atomic.Bool
}

func (c *partedConn) Write(p []byte) (int, error) {
	if c.parted.Load() {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

func (c *partedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.parted.Load() {
		time.Sleep(dismissGrace / 2)
	}
	return n, err
}

// TestLastWordOfAPeerThatCloses: a peer that refuses the session and closes is heard,
// though what is sent to it breaks the connection before its word has been read; and a
// connection that breaks without a word is given up soon.
func TestLastWordOfAPeerThatCloses(t *testing.T) {
	for _, says := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			conn := &partedConn{}
			a, b, oa, _ := pair(t, resuming, 0, func(c *simnet.Conn) net.Conn { conn.Conn = c; return conn })
			time.Sleep(2 * time.Second)
			synctest.Wait()
			oa.take()
			conn.parted.Store(true)
			if says {
				b.Dismiss(wire.ReasonBanned, ErrBanned)
			}
			if err := a.Send([]byte("on its way"), 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(dismissGrace + moveGrace)
			synctest.Wait()
			if says {
				if ended := oa.all("ended"); len(ended) != 1 || !errors.Is(ended[0].why, ErrBanned) || len(oa.all("unlinked")) != 0 {
					t.Fatalf("told %v", oa.take())
				}
			} else if suspended := oa.all("suspended"); len(suspended) != 1 || !errors.Is(suspended[0].why, syscall.EPIPE) {
				t.Fatalf("told %v", oa.take())
			}
		})
	}
}
