package session

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/transport/tcp"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// borrower is an owner that accepts as many turns as wanted says. It keeps
// messages as owner does.
type borrower struct {
	owner
	wanted atomic.Int32
	turns  chan *Turn  // has room for one
	full   atomic.Bool // nothing is taken without waiting
	panic  atomic.Bool // of the next Deliver without waiting
}

func newBorrower() *borrower { return &borrower{turns: make(chan *Turn, 1)} }

func (o *borrower) Lend(t *Turn) bool {
	if o.wanted.Add(-1) < 0 {
		return false
	}
	o.turns <- t
	return true
}

func (o *borrower) Deliver(s *Session, messages []Message, buffers []*Buffer, wait bool) bool {
	if !wait && o.panic.Load() {
		panic("a fault in the library")
	}
	if !wait && o.full.Load() {
		return false
	}
	return o.owner.Deliver(s, messages, buffers, wait)
}

// borrow starts a session on each end of a link, and lends the turn of the
// second, which has got one message.
func borrow(t *testing.T, la, lb *secure.Link) (a, b *Session, o *borrower, turn *Turn) {
	t.Helper()
	o = newBorrower()
	a, b = start(t, la, usual, new(owner)), startBorrower(t, lb, o)
	return a, b, o, o.turn(t, a)
}

// count returns how often something of one kind was told since the last take.
func (o *borrower) count(what string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.events {
		if e.what == what {
			n++
		}
	}
	return n
}

// turn has the peer send message 1, which lends the next turn, and again if it
// came together with another one.
func (o *borrower) turn(t *testing.T, peer *Session) *Turn {
	t.Helper()
	o.wanted.Store(1)
	for {
		say(t, peer, 1)
		select {
		case turn := <-o.turns:
			return turn
		case <-time.After(time.Second):
		}
	}
}

// startBorrower is start for a borrower.
func startBorrower(t testing.TB, link *secure.Link, o *borrower) *Session {
	t.Helper()
	s := New(link, wire.SessionID{1}, usual, o, nil)
	t.Cleanup(func() {
		s.Kill(ErrReplaced)
		<-s.Done()
		o.wg.Wait()
		if o.last != "ended" {
			t.Errorf("the last word of a session was %q", o.last)
		}
	})
	s.Start()
	return s
}

func say(t testing.TB, s *Session, number int) {
	t.Helper()
	if err := s.Send(numbered(20, number), 1); err != nil {
		t.Fatal(err)
	}
}

// virtually runs f in virtual time with a turn that is lent.
func virtually(t *testing.T, f func(t *testing.T, a, b *Session, o *borrower, turn *Turn)) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 1<<20, nil)
		a, b, o, turn := borrow(t, la, lb)
		synctest.Wait()
		same(t, o.all("message"), [][]byte{numbered(20, 1)})
		f(t, a, b, o, turn)
	})
}

// heard fails unless the messages of these numbers have come by now.
func heard(t *testing.T, o *borrower, numbers ...int) {
	t.Helper()
	synctest.Wait()
	var want [][]byte
	for _, n := range numbers {
		want = append(want, numbered(20, n))
	}
	same(t, o.all("message"), want)
}

// TestTurnUnused: a turn that nobody takes, or takes no more, is the reader's
// again within two ticks, and not before one.
func TestTurnUnused(t *testing.T) {
	for _, steps := range []int{0, 1, 5} {
		virtually(t, func(t *testing.T, a, _ *Session, o *borrower, turn *Turn) {
			for i := range steps {
				say(t, a, i)
				if !turn.Take() || !turn.Step(nil) {
					t.Fatal("the turn was taken back")
				}
				heard(t, o, i)
			}
			say(t, a, 7)
			time.Sleep(lendTick - 1)
			heard(t, o)
			if !turn.Free() {
				t.Fatal("taken back too soon")
			}
			time.Sleep(lendTick + 1)
			heard(t, o, 7)
			if turn.Free() || turn.Take() {
				t.Fatal("a turn that is back can be taken")
			}
		})
	}
}

// TestTurnUnusedAfterSleep: the same when the reader slept because one step took long.
func TestTurnUnusedAfterSleep(t *testing.T) {
	virtually(t, func(t *testing.T, a, _ *Session, o *borrower, turn *Turn) {
		for i := range 3 {
			go func() {
				time.Sleep(time.Duration(i+1) * 777 * lendTick)
				say(t, a, i)
			}()
			for came := 0; came == 0; came = o.count("message") { // heartbeats come too
				if !turn.Take() || !turn.Step(nil) {
					t.Fatal("the turn was taken back")
				}
			}
			heard(t, o, i)
		}
		say(t, a, 7)
		time.Sleep(2 * lendTick)
		heard(t, o, 7)
	})
}

// TestTurnUntil: a step ends when its channel is closed, at once, whatever the
// channels of earlier steps were; what comes next is read by the reader.
func TestTurnUntil(t *testing.T) {
	for _, late := range []time.Duration{0, time.Millisecond, 10 * lendTick, time.Minute} {
		virtually(t, func(t *testing.T, a, _ *Session, o *borrower, turn *Turn) {
			older, until := make(chan struct{}), make(chan struct{})
			for i, c := range []chan struct{}{older, nil, older, until} {
				say(t, a, i)
				if !turn.Take() || !turn.Step(c) {
					t.Fatal("the turn was taken back")
				}
				heard(t, o, i)
			}
			close(older) // of no step that runs
			go func() {
				time.Sleep(late)
				close(until)
			}()
			began := time.Now()
			for turn.Take() && turn.Step(until) {
			}
			if took := time.Since(began); took != late {
				t.Fatalf("the step took %v instead of %v", took, late)
			}
			say(t, a, 9)
			heard(t, o, 9)
		})
	}
}

// TestTurnInterrupt: an interruption at any moment neither loses nor delays
// anything, and ends a step.
func TestTurnInterrupt(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, a *Session, turn *Turn){
		"before it is taken": func(_ *testing.T, _ *Session, turn *Turn) {
			turn.Interrupt()
			turn.Take()
		},
		"with something to read": func(t *testing.T, a *Session, turn *Turn) {
			say(t, a, 1)
			synctest.Wait()
			turn.Take()
			turn.Interrupt()
		},
		"when it has begun": func(_ *testing.T, _ *Session, turn *Turn) {
			turn.Take()
			go func() {
				time.Sleep(lendTick / 3)
				turn.Interrupt()
			}()
		},
		"when the reader sleeps": func(_ *testing.T, _ *Session, turn *Turn) {
			turn.Take()
			go func() {
				time.Sleep(100 * lendTick)
				turn.Interrupt()
			}()
		},
		"together with a message": func(t *testing.T, a *Session, turn *Turn) {
			turn.Take()
			go func() {
				time.Sleep(lendTick)
				say(t, a, 1)
				turn.Interrupt()
			}()
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, a, _ *Session, o *borrower, turn *Turn) {
				f(t, a, turn)
				for turn.Step(nil) { // the message may come first
					if !turn.Take() {
						t.Fatal("a free turn cannot be taken")
					}
				}
				turn.Interrupt() // of a turn that is back
				synctest.Wait()
				came := o.all("message")
				if len(came) == 0 && (name == "with something to read" || name == "together with a message") {
					t.Fatal("the message is delayed")
				}
				say(t, a, 2)
				heard(t, o, 2)
				next := o.turn(t, a)
				turn.Interrupt()
				say(t, a, 3)
				for o.count("message") < 2 {
					if !next.Take() || !next.Step(nil) {
						t.Fatal("an interruption of an old turn ends a step of the next")
					}
				}
				heard(t, o, 1, 3)
			})
		})
	}
}

// TestTurnInterruptAnyTime: messages arrive in order, once each, while the turn
// is used, left, and interrupted at random moments of real time.
func TestTurnInterruptAnyTime(t *testing.T) {
	const count = 3000
	la, lb := links(t, 1<<20, nil)
	o := newBorrower()
	o.wanted.Store(count)
	a := start(t, la, usual, new(owner))
	startBorrower(t, lb, o)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	var current atomic.Pointer[Turn]
	wg.Go(func() {
		for {
			select {
			case turn := <-o.turns:
				current.Store(turn)
				for turn.Take() && turn.Step(quit) {
				}
			case <-quit:
				return
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if turn := current.Load(); turn != nil {
				turn.Interrupt()
			}
			runtime.Gosched()
		}
	})
	var got []told
	for i := range count {
		say(t, a, i)
		for len(got) <= i {
			got = append(got, o.all("message")...)
			runtime.Gosched()
		}
	}
	close(quit)
	wg.Wait()
	var want [][]byte
	for i := range count {
		want = append(want, numbered(20, i))
	}
	same(t, got, want)
}

// TestTurnNoRoom: what a step has read and cannot deliver is delivered by the
// reader, at once and unharmed, however much has come behind it.
func TestTurnNoRoom(t *testing.T) {
	virtually(t, func(t *testing.T, a, _ *Session, o *borrower, turn *Turn) {
		o.gate = make(chan struct{}) // the reader has to wait
		o.full.Store(true)
		say(t, a, 2)
		if !turn.Take() || turn.Step(nil) {
			t.Fatal("the turn is free although there is no room")
		}
		for i := range 50 {
			say(t, a, 3+i)
		}
		synctest.Wait()
		if came := o.all("message"); len(came) > 0 {
			t.Fatalf("%d messages came although there is no room", len(came))
		}
		close(o.gate)
		synctest.Wait()
		var want [][]byte
		for i := range 51 {
			want = append(want, numbered(20, 2+i))
		}
		same(t, o.all("message"), want)
	})
}

// TestTurnSeesTheEnd: a session that ends while a step reads ends for the same
// reason as without.
func TestTurnSeesTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end func(a, b *Session)
		why error
	}{
		"the peer disconnects": {func(a, _ *Session) { a.Disconnect(wire.ReasonDisconnect, ErrDisconnected) }, ErrDisconnected},
		"the peer stops":       {func(a, _ *Session) { a.Disconnect(wire.ReasonStopping, ErrDisconnected) }, ErrStopped},
		"we disconnect":        {func(_, b *Session) { b.Disconnect(wire.ReasonDisconnect, ErrDisconnected) }, ErrDisconnected},
		"killed":               {func(_, b *Session) { b.Kill(ErrReplaced) }, ErrReplaced},
		"broken":               {func(a, _ *Session) { a.Kill(ErrReplaced) }, ErrBroken},
		"nonsense": {func(a, _ *Session) {
			a.Link().Conn.Write(bytes.Repeat([]byte{7}, 100)) //nolint:errcheck // the other end will notice
		}, ErrProtocol},
	} {
		for _, late := range []time.Duration{0, lendTick / 2, time.Minute} {
			t.Run(name+" after "+late.String(), func(t *testing.T) {
				virtually(t, func(t *testing.T, a, b *Session, o *borrower, turn *Turn) {
					go func() {
						time.Sleep(late)
						c.end(a, b)
					}()
					began := time.Now()
					for turn.Take() && turn.Step(nil) {
					}
					<-b.Done()
					if took := time.Since(began); took != late {
						t.Fatalf("ended after %v instead of %v", took, late)
					}
					if end := o.all("ended"); len(end) != 1 || !errors.Is(end[0].why, c.why) {
						t.Fatalf("ended as %v", end)
					}
				})
			})
		}
	}
}

// TestTurnEndsUnused: a session ends at once while its turn lies free.
func TestTurnEndsUnused(t *testing.T) {
	virtually(t, func(t *testing.T, _, b *Session, _ *borrower, turn *Turn) {
		began := time.Now()
		b.Kill(ErrReplaced)
		<-b.Done()
		if took := time.Since(began); took > 0 {
			t.Fatalf("ended after %v", took)
		}
		if turn.Take() {
			t.Fatal("the turn of a session that has ended can be taken")
		}
		turn.Interrupt()
	})
}

// TestTurnFault: a fault of ours inside a step ends the session and does not
// reach the program, which called it.
func TestTurnFault(t *testing.T) {
	virtually(t, func(t *testing.T, a, b *Session, o *borrower, turn *Turn) {
		o.panic.Store(true)
		say(t, a, 2)
		if !turn.Take() || turn.Step(nil) {
			t.Fatal("the turn is free after a fault")
		}
		<-b.Done()
		events := o.take()
		end := events[len(events)-1]
		if events[0].what != "fault" || end.what != "ended" || !errors.Is(end.why, ErrFault) {
			t.Fatalf("told %v", events)
		}
	})
}

// TestTurnNotCalm: the turn goes back when more than a lone small message comes,
// and all of it arrives.
func TestTurnNotCalm(t *testing.T) {
	for name, sizes := range map[string][]int{"several": {20, 20, 20}, "large": {5000}, "largest": {wire.MaxMessage}} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, a, _ *Session, o *borrower, turn *Turn) {
				var want [][]byte
				for i, size := range sizes {
					want = append(want, numbered(size, i))
				}
				if n, err := a.SendRun(len(want), func(k int) ([]byte, uint8) { return want[k], 1 }); n != len(want) || err != nil {
					t.Fatal(n, err)
				}
				for turn.Take() && turn.Step(nil) {
				}
				synctest.Wait()
				same(t, o.all("message"), want)
			})
		})
	}
}

// watchedConn is a TCP connection that counts how it is read.
type watchedConn struct {
	*tcp.Conn
	soon, most, plain int
}

func (c *watchedConn) ReadSoon(p []byte, patience time.Duration) (int, error) {
	c.soon++
	c.most = max(c.most, c.soon)
	return c.Conn.ReadSoon(p, patience)
}

func (c *watchedConn) Read(p []byte) (int, error) {
	c.soon = 0
	c.plain++
	return c.Conn.Read(p)
}

// TestStepsLeaveTheProcessor: a program that reads without ever sleeping lets
// other goroutines run, and sleeps now and then if it has to, so that the
// scheduler looks at other connections.
func TestStepsLeaveTheProcessor(t *testing.T) {
	if _, ok := any((*tcp.Conn)(nil)).(soonReader); !ok {
		t.Skip("no connection can be read without sleeping here")
	}
	const steps = 20 * soonSpell
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	la, lb := tcpLinks(t)
	conn := &watchedConn{Conn: lb.Conn.(*tcp.Conn)}
	lb.Conn = conn
	a, b, o, turn := borrow(t, la, lb)
	runtime.GOMAXPROCS(1)
	n, others, last, step := 0, 0, -1, atomic.Int32{} // others counts during how many steps another goroutine ran
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-quit:
				return
			default:
				if k := int(step.Load()); k != last {
					last = k
					others++
				}
				runtime.Gosched()
			}
		}
	}()
	for ; n < steps; n++ {
		step.Store(int32(n))
		for began := time.Now(); time.Since(began) <= 2*quiet; { // so that the sender writes itself
		}
		if !turn.Take() { // the machine has stopped us for too long
			turn = o.turn(t, a)
			continue
		}
		say(t, a, n)
		if !turn.Step(nil) {
			turn = o.turn(t, a)
		}
	}
	close(quit)
	<-gone
	if came := o.count("message"); came < n {
		t.Fatalf("%d messages in %d steps", came, n)
	}
	b.Kill(ErrReplaced)
	<-b.Done()
	if want := n / soonYield / 2; others < want {
		t.Fatalf("another goroutine ran during %d of %d steps; want %d", others, n, want)
	}
	if conn.plain == 0 || conn.most >= soonSpell {
		t.Fatalf("%d reads after one another could not sleep, %d could", conn.most, conn.plain)
	}
	t.Logf("another goroutine ran during %d of %d steps; %d reads could sleep", others, n, conn.plain)
}

// tcpLinks returns both ends of an authenticated link over the loopback interface.
func tcpLinks(t testing.TB) (a, b *secure.Link) {
	t.Helper()
	l, err := tcp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := tcp.Dial(t.Context(), netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var config [2]*secure.Config
	for i := range config {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		config[i] = &secure.Config{
			Key: key, Network: secure.NewNetwork("test"), Seen: new(secure.Seen), Hello: wire.Hello{Ciphers: wire.CipherChaCha20Poly1305},
		}
	}
	done := make(chan error)
	go func() {
		var err error
		if a, err = secure.Initiate(dialled, config[0], identity.PeerID{}); err == nil {
			err = Tell(a, nil)
		}
		done <- err
	}()
	b, err = secure.Respond(accepted, config[1])
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return a, b
}
