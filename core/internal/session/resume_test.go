package session

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// cutter makes links between two sessions, each of which breaks after some bytes
// have come in the one direction or the other.
type cutter struct {
	t        testing.TB
	net      *simnet.Net
	host     [2]*simnet.Host
	listener net.Listener
	next     func(made int) [2]int // how many bytes come in each direction; -1: all
	made     int

	dress func(side int, conn *cutConn) net.Conn // nil: links have bare connections
	ready func()                                 // nil, or waits until another link may be made

	budgets [2]*Budget // of the sessions of a conversation
}

func newCutter(t testing.TB, buffer int, next func(made int) [2]int) *cutter {
	t.Helper()
	internet := simnet.New(1)
	internet.SetDefaultLink(simnet.Link{Buffer: buffer, Latency: time.Millisecond})
	c := &cutter{t: t, net: internet, host: [2]*simnet.Host{internet.Host("10.0.0.1"), internet.Host("10.0.0.2")}, next: next}
	var err error
	if c.listener, err = c.host[1].Listen(t.Context(), netip.MustParseAddrPort("10.0.0.2:1")); err != nil {
		t.Fatal(err)
	}
	return c
}

// cutConn breaks the connection before more than left bytes are read from it.
type cutConn struct {
	*simnet.Conn
	mu   sync.Mutex
	left int
	cut  func()
}

// most returns how many bytes may be read now.
func (c *cutConn) most(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < 0 {
		return n
	}
	return min(n, c.left)
}

func (c *cutConn) took(n int) {
	c.mu.Lock()
	if c.left > 0 {
		c.left -= n
	}
	over := c.left == 0
	c.mu.Unlock()
	if over {
		c.cut()
	}
}

func (c *cutConn) Read(p []byte) (int, error) {
	most := c.most(len(p))
	if most == 0 {
		c.cut()
	}
	n, err := c.Conn.Read(p[:max(most, 1)])
	c.took(n)
	return n, err
}

func (c *cutConn) ReadLazy(get func() []byte) (int, error) {
	n, err := c.Conn.ReadLazy(func() []byte {
		p := get()
		return p[:max(c.most(len(p)), 1)]
	})
	c.took(n)
	return n, err
}

// link makes a link, whose records are in clear.
func (c *cutter) link() (a, b *secure.Link) {
	c.t.Helper()
	dialled, err := c.host[0].Dial(c.t.Context(), netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:1"))
	if err != nil {
		c.t.Fatal(err)
	}
	accepted, err := c.listener.Accept()
	if err != nil {
		c.t.Fatal(err)
	}
	bytes := c.next(c.made)
	c.made++
	cut := sync.OnceFunc(func() {
		for _, conn := range []net.Conn{dialled, accepted} {
			conn.(*simnet.Conn).SetLinger(0) //nolint:errcheck // it is a simulation
			conn.Close()
		}
	})
	hello := wire.Hello{LostAfter: 120_000, Resume: 60_000}
	make := func(conn net.Conn, left int, initiator bool) *secure.Link {
		l := &secure.Link{Remote: hello, Initiator: initiator}
		bare, side := &cutConn{Conn: conn.(*simnet.Conn), left: left, cut: cut}, 1
		if l.Conn = bare; initiator {
			side = 0
		}
		if c.dress != nil {
			l.Conn = c.dress(side, bare)
		}
		l.Seal, l.Open = secure.Plain()
		return l
	}
	return make(dialled, bytes[1], true), make(accepted, bytes[0], false)
}

// join makes new links for two sessions whenever one of them has none, until both
// have ended.
func (c *cutter) join(a, b *Session, oa, ob *owner) {
	for {
		select {
		case <-oa.unlinked:
		case <-ob.unlinked:
		case <-a.Done():
			return
		case <-b.Done():
			return
		}
		if c.ready != nil {
			c.ready()
		}
		_, one := a.Suspended()
		_, other := b.Suspended()
		if !one && !other {
			continue
		}
		la, lb := c.link()
		na, nb := a.Received(), b.Received()
		later, err := a.Resume(la, nil, na, nb)
		if err == nil {
			later()
			later, err = b.Resume(lb, nil, nb, na)
		}
		if err != nil {
			la.Conn.Close()
			lb.Conn.Close()
			if !errors.Is(err, ErrEnded) {
				c.t.Error(err)
			}
			continue
		}
		later()
	}
}

// conversation sends messages of many sizes and priorities in both directions
// over links that break, and checks that each comes once and in its order.
func conversation(t testing.TB, cfg Config, seed uint64, count, largest int, c *cutter) (sa, sb *Session) {
	t.Helper()
	oa, ob := &owner{unlinked: make(chan struct{}, 1)}, &owner{unlinked: make(chan struct{}, 1)}
	la, lb := c.link()
	cfg.Budget = c.budgets[0]
	sa = start(t, la, cfg, oa)
	cfg.Budget = c.budgets[1]
	sb = start(t, lb, cfg, ob)
	joined := make(chan struct{})
	go func() { c.join(sa, sb, oa, ob); close(joined) }()
	var wg sync.WaitGroup
	for i, s := range []*Session{sa, sb} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for k := range count {
				size := 3 + r.IntN(20)
				if r.IntN(3) == 0 {
					size = 3 + r.IntN(largest)
				}
				if err := s.SendWait(t.Context(), numbered(size, k), uint8(k%3)); err != nil {
					t.Error(err)
					return
				}
				if r.IntN(4) == 0 {
					time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
				}
			}
		})
	}
	wg.Wait()
	time.Sleep(25 * time.Second) // a heartbeat is enough to find every break
	for i, o := range []*owner{oa, ob} {
		r := rand.New(rand.NewPCG(seed, uint64(1-i)))
		want := make([][][]byte, 3)
		for k := range count {
			size := 3 + r.IntN(20)
			if r.IntN(3) == 0 {
				size = 3 + r.IntN(largest)
			}
			if r.IntN(4) == 0 {
				r.IntN(2000)
			}
			want[k%3] = append(want[k%3], numbered(size, k))
		}
		events := o.take()
		for p := range want {
			same(t, byPriority(events, uint8(p)), want[p])
		}
		if i := slices.IndexFunc(events, func(e told) bool { return e.what == "ended" }); i >= 0 {
			t.Fatalf("a session ended: %v", events[i].why)
		}
	}
	sa.Kill(ErrReplaced)
	sb.Kill(ErrReplaced)
	<-joined
	return sa, sb
}

// TestCutAtEveryByte: a conversation whose first link breaks after any number of
// bytes in the one or the other direction loses and doubles nothing.
func TestCutAtEveryByte(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for way := range 2 {
		t.Run(fmt.Sprint("way ", way), func(t *testing.T) {
			for at := 1; at < 2500; at += step {
				synctest.Test(t, func(t *testing.T) {
					conversation(t, resuming, 1, 25, 30, newCutter(t, 0, func(made int) [2]int {
						cut := [2]int{-1, -1}
						if made == 0 {
							cut[way] = at
						}
						return cut
					}))
				})
			}
		})
	}
}

// TestRandomCuts: links break again and again, in the middle of everything, and
// also during a resumption; messages go in pieces, and every memory is small.
func TestRandomCuts(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			cfg := resuming
			cfg.ResendBuffer = MinResendBuffer
			c := newCutter(t, 1<<(12+seed%8), randomCuts(r, 20))
			conversation(t, cfg, seed, 100, 200_000, c)
		})
	}
}

// TestMovesWhileAlive: a session whose link is fine goes over to others again and
// again, and nobody notices.
func TestMovesWhileAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCutter(t, 64<<10, func(int) [2]int { return [2]int{-1, -1} })
		la, lb := c.link()
		oa, ob := &owner{unlinked: make(chan struct{}, 1)}, &owner{unlinked: make(chan struct{}, 1)}
		a, b := start(t, la, resuming, oa), start(t, lb, resuming, ob)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for k := range 200 {
				if err := a.SendWait(t.Context(), numbered(50_000, k), uint8(k%2)); err != nil {
					t.Error(err)
				}
				if err := b.SendWait(t.Context(), numbered(300, k), 0); err != nil {
					t.Error(err)
				}
			}
		}()
		for range 50 {
			time.Sleep(3 * time.Millisecond)
			la, lb := c.link()
			na := a.Received()
			time.Sleep(time.Millisecond) // more comes on the old link than was told
			nb := b.Received()
			later, err := b.Resume(lb, nil, nb, na)
			if err != nil {
				t.Fatal(err)
			}
			later()
			time.Sleep(time.Millisecond)
			if later, err = a.Resume(la, nil, na, nb); err != nil {
				t.Fatal(err)
			}
			later()
		}
		<-done
		time.Sleep(30 * time.Second)
		events := ob.take()
		for p := range uint8(2) {
			var want [][]byte
			for k := int(p); k < 200; k += 2 {
				want = append(want, numbered(50_000, k))
			}
			same(t, byPriority(events, p), want)
		}
		var want [][]byte
		for k := range 200 {
			want = append(want, numbered(300, k))
		}
		same(t, byPriority(oa.take(), 0), want)
		if n := a.Counters().Resumed; n != 50 {
			t.Fatalf("resumed %d times", n)
		}
	})
}

// TestResumedCounts: a number of records that cannot be true is refused, and the
// session stays as it was.
func TestResumedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCutter(t, 0, func(int) [2]int { return [2]int{-1, -1} })
		la, lb := c.link()
		oa, ob := new(owner), new(owner)
		a, b := start(t, la, resuming, oa), start(t, lb, resuming, ob)
		for k := range 300 { // 128 of them are acknowledged at least, and not all
			if err := a.Send(numbered(10, k), 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Millisecond)
		}
		a.mu.Lock()
		acked, sealed := a.kept.acked, a.kept.sealed
		a.mu.Unlock()
		if acked == 0 || acked == sealed {
			t.Fatalf("%d of %d are acknowledged", acked, sealed)
		}
		for _, theirs := range []uint64{0, acked - 1, sealed + 1, 1 << 63, 1<<64 - 1} {
			la, _ := c.link()
			if _, err := a.Resume(la, nil, a.Received(), theirs); !errors.Is(err, ErrProtocol) {
				t.Fatalf("%d of %d records, with %d acknowledged: %v", theirs, sealed, acked, err)
			}
		}
		if err := a.Send([]byte("still here"), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		messages := ob.all("message")
		if len(messages) != 301 || string(messages[300].data) != "still here" {
			t.Fatalf("%d messages came", len(messages))
		}
		b.Kill(ErrReplaced)
	})
}

// TestResendMemory: what is kept has a bound, which stops a sender whose peer
// does not acknowledge, and is given back.
func TestResendMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 64<<20, nil)
		la.Remote.Resume, lb.Remote.Resume = 60_000, 60_000
		oa, ob := new(owner), &owner{gate: make(chan struct{})}
		a := start(t, la, resuming, oa)
		want := 0
		for ; ; want++ { // nobody reads
			if err := a.Send(numbered(1000, want), 1); err != nil {
				break
			}
			if want%64 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(2 * time.Second)
		if c := a.Counters(); c.Unacked < keptBase-wire.MaxBody-keptCost || c.Unacked > keptBase || c.Undelivered != uint64(want) {
			t.Fatalf("%d bytes and %d messages of %d are kept or queued", c.Unacked, c.Undelivered, want)
		}
		b := start(t, lb, resuming, ob)
		close(ob.gate)
		time.Sleep(25 * time.Second)
		if got := len(ob.all("message")); got != want {
			t.Fatalf("%d messages of %d came", got, want)
		}
		if c := a.Counters(); c.Unacked != 0 || c.Undelivered != 0 {
			t.Fatalf("%d bytes and %d messages are kept when all is quiet", c.Unacked, c.Undelivered)
		}
		time.Sleep(25 * time.Second)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.kept.chunk != nil || a.kept.records != nil {
			t.Fatal("memory is kept for nothing")
		}
		_ = b
	})
}

// TestReceipts: who asks is told when the peer has a message, within a round
// trip, also across a break; and when it was dropped, or lost.
func TestReceipts(t *testing.T) {
	for name, cfg := range map[string]Config{"nothing kept": usual, "resuming": resuming} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg.MaxAge, cfg.LostAfter = 5*time.Second, time.Hour
				c := newCutter(t, 0, func(int) [2]int { return [2]int{-1, -1} })
				la, lb := c.link()
				oa, ob := new(owner), new(owner)
				a, _ := start(t, la, cfg, oa), start(t, lb, cfg, ob)
				for k, size := range []int{0, 100, 20_000, 300_000} {
					began := time.Now()
					if err := a.SendReceipt(numbered(max(size, 3), k), 1, uint64(k)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond)
					got := oa.all("receipt")
					if len(got) != 1 || got[0].count != uint64(k) || got[0].why != nil {
						t.Fatalf("message %d of %d bytes: %v after %v", k, size, got, time.Since(began))
					}
				}
				c.net.Cut(c.host[0], c.host[1])
				fill := 0
				for ; a.SendReceipt(nil, 5, uint64(fill)) == nil; fill++ {
				}
				if fill != maxTokens {
					t.Fatalf("%d receipts are outstanding", fill)
				}
				for range 40 {
					if err := a.Send(make([]byte, 50_000), 0); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(6 * time.Second)
				expired := 0
				for _, e := range oa.take() {
					if e.what == "receipt" && errors.Is(e.why, ErrExpired) {
						expired++
					} else if e.what == "receipt" {
						t.Fatalf("receipt %d: %v", e.count, e.why)
					}
				}
				a.Kill(ErrSilent)
				<-a.Done()
				events := oa.take()
				if n := len(events) - 1; n+expired != fill || events[n].what != "ended" || n > 0 && !errors.Is(events[0].why, ErrSilent) {
					t.Fatalf("%d receipts expired and %d were lost, of %d", expired, n, fill)
				}
			})
		})
	}
}

// TestCloseAcrossBreaks: a session that is disconnected while it has no link says
// all it had to say, and Close, when it gets one in time.
func TestCloseAcrossBreaks(t *testing.T) {
	for _, wait := range []time.Duration{time.Second, 6 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c := newCutter(t, 0, func(int) [2]int { return [2]int{-1, -1} })
			la, lb := c.link()
			oa, ob := new(owner), new(owner)
			a, b := start(t, la, resuming, oa), start(t, lb, resuming, ob)
			time.Sleep(2 * time.Second)
			c.net.Reset(c.host[0], c.host[1])
			time.Sleep(time.Second)
			want := [][]byte{numbered(100, 1), numbered(100_000, 2)}
			for _, m := range want {
				if err := a.Send(m, 1); err != nil {
					t.Fatal(err)
				}
			}
			a.Disconnect(wire.ReasonDisconnect, ErrDisconnected)
			time.Sleep(wait)
			la, lb = c.link()
			na, nb := a.Received(), b.Received()
			later, err := a.Resume(la, nil, na, nb)
			if wait > resuming.CloseTimeout {
				if !errors.Is(err, ErrEnded) {
					t.Fatal(err)
				}
				if n := a.Counters().Undelivered; n != 2 {
					t.Fatalf("%d messages were not delivered", n)
				}
				b.Kill(ErrReplaced)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			later()
			if later, err = b.Resume(lb, nil, nb, na); err != nil {
				t.Fatal(err)
			}
			later()
			<-a.Done()
			<-b.Done()
			var what []string
			var got []told
			for _, e := range ob.take() {
				what = append(what, e.what)
				if e.what == "message" {
					got = append(got, e)
				} else if e.what == "ended" && !errors.Is(e.why, ErrDisconnected) {
					t.Fatal(e.why)
				}
			}
			same(t, got, want)
			if !slices.Equal(what, []string{"suspended", "resumed", "message", "message", "ended"}) {
				t.Fatalf("told %q", what)
			}
			if n := a.Counters().Undelivered; n != 0 {
				t.Fatalf("%d messages count as not delivered", n)
			}
		})
	}
}

// TestEndOfStreamIsNoWord: that the stream ends, which whoever carries it can bring about,
// does not tell who has said goodbye that the peer has read it all. It says all again over another
// link, or counts what was not acknowledged.
func TestEndOfStreamIsNoWord(t *testing.T) {
	for _, another := range []bool{false, true} {
		t.Run(fmt.Sprintf("another link %v", another), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				la, lb := links(t, 1<<16, nil)
				oa, ob := &owner{moving: true}, new(owner)
				a := start(t, la, resuming, oa)
				if err := a.Send([]byte("last words"), 1); err != nil {
					t.Fatal(err)
				}
				a.Disconnect(wire.ReasonDisconnect, ErrDisconnected)
				if _, err := io.Copy(io.Discard, lb.Conn); err != nil {
					t.Fatal(err)
				}
				lb.Conn.Close()
				synctest.Wait()
				if _, suspended := a.Suspended(); !suspended {
					t.Fatal("a takes the end of the stream for a word of the peer")
				}
				want := uint64(1)
				if another {
					want = 0
					l, r := links(t, 1<<16, nil)
					start(t, r, resuming, ob)
					call, err := a.Resume(l, nil, a.Received(), 0)
					if err != nil {
						t.Fatal(err)
					}
					call()
				}
				<-a.Done()
				synctest.Wait()
				if n := a.Counters().Undelivered; n != want {
					t.Errorf("%d messages count as not delivered, want %d", n, want)
				}
				if got := ob.all("message"); another && (len(got) != 1 || string(got[0].data) != "last words") {
					t.Errorf("b got %d messages", len(got))
				}
			})
		})
	}
}

// TestStoppedWhileWriting: whose peer has said goodbye, and breaks the line before all that is
// being written has gone, is told of the goodbye, and does not wait for another line.
func TestStoppedWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 10_000, nil)
		oa, gate := new(owner), make(chan struct{})
		a, b := start(t, la, resuming, oa), start(t, lb, resuming, &owner{gate: gate})
		for i := range 100 {
			if err := a.Send(numbered(30_000, i), 1); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		b.DisconnectWithin(200*time.Millisecond, wire.ReasonStopping, ErrDisconnected)
		time.Sleep(500 * time.Millisecond)
		close(gate)
		select {
		case <-a.Done():
		default:
			_, suspended := a.Suspended()
			t.Fatalf("a has not ended; suspended: %v", suspended)
		}
		if told := oa.take(); len(told) != 1 || !errors.Is(told[0].why, ErrStopped) {
			t.Errorf("a was told %v", told)
		}
		<-b.Done()
	})
}

// TestWindow: a session without a link is lost when the lesser window of both
// sides is over, and takes messages until then.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCutter(t, 0, func(int) [2]int { return [2]int{-1, -1} })
		la, lb := c.link()
		la.Remote.Resume = 7_000
		oa, ob := new(owner), new(owner)
		a, b := start(t, la, resuming, oa), start(t, lb, usual, ob)
		time.Sleep(2 * time.Second)
		began := time.Now()
		c.net.Reset(c.host[0], c.host[1])
		<-b.Done() // it does not wait
		time.Sleep(6 * time.Second)
		if err := a.Send(bytes.Repeat([]byte{1}, 5000), 1); err != nil {
			t.Fatal(err)
		}
		<-a.Done()
		if took := time.Since(began); took < 7*time.Second || took > 7100*time.Millisecond {
			t.Fatalf("lost after %v", took)
		}
		events := oa.take()
		if len(events) != 2 || events[0].what != "suspended" || events[1].what != "ended" || !errors.Is(events[1].why, ErrBroken) {
			t.Fatalf("told %v", events)
		}
	})
}

// randomCuts has a cutter cut each direction of a link after a number of bytes of up to so many
// bits and two, or not at all.
func randomCuts(r *rand.Rand, bits int) func(made int) [2]int {
	return func(int) (cut [2]int) {
		for i := range cut {
			if cut[i] = 1 + r.IntN(1<<(2+r.IntN(bits))); r.IntN(4) == 0 {
				cut[i] = -1
			}
		}
		return cut
	}
}
