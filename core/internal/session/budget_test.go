package session

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestBudgetIsShared: however many take as much as they get, each gets the same, one more
// that comes then gets its part, and so do all that there may be.
func TestBudgetIsShared(t *testing.T) {
	const limit, step, sessions = 1 << 20, 1 << 10, 64
	for _, greedy := range []int{1, 3, 9} {
		b := NewBudget(limit, sessions)
		accounts := make([]account, greedy)
		for busy := true; busy; {
			busy = false
			for i := range accounts {
				accounts[i].of = b
				busy = accounts[i].take(step) || busy
			}
		}
		fair := int64(limit / 2 / (greedy + 1))
		for i := range accounts {
			if got := accounts[i].held.Load(); got < fair-2*step || got > fair+step {
				t.Errorf("%d of %d: %d bytes, want %d", i, greedy, got, fair)
			}
		}
		for range sessions - greedy { // one after the other, and all that they can get
			late := account{of: b}
			for late.take(step) {
			}
			if got := late.held.Load(); got < limit/2/sessions {
				t.Errorf("beside %d greedy ones one more gets %d bytes, want %d", greedy, got, limit/2/sessions)
			}
			accounts = append(accounts, account{of: b})
			accounts[len(accounts)-1].held.Store(late.held.Load())
		}
		if b.Held() > limit {
			t.Errorf("%d bytes are held of %d", b.Held(), limit)
		}
		for i := range accounts {
			accounts[i].give(int(accounts[i].held.Load()))
		}
		if b.Held() != 0 || b.Refused() == 0 {
			t.Errorf("%d bytes are held in the end, %d were refused", b.Held(), b.Refused())
		}
	}
}

// budgeted returns sessions that share a budget, and their peers, which take nothing
// until the gate opens.
func budgeted(t *testing.T, limit int64, n int) (b *Budget, senders, peers []*Session, ofSenders, ofPeers []*owner, gate chan struct{}) {
	t.Helper()
	b, gate = NewBudget(limit, 64), make(chan struct{})
	cfg := resuming
	cfg.Budget = b
	for range n {
		la, lb := links(t, 40_000, nil)
		oa, ob := new(owner), &owner{gate: gate}
		senders, ofSenders = append(senders, start(t, la, cfg, oa)), append(ofSenders, oa)
		peers, ofPeers = append(peers, start(t, lb, resuming, ob)), append(ofPeers, ob)
	}
	return b, senders, peers, ofSenders, ofPeers, gate
}

// TestMemoryIsBounded: sessions whose peers take nothing are refused when together they
// hold what they may, one whose peer takes goes on, and when they take all arrives, those
// that were refused are told, and nothing is held.
func TestMemoryIsBounded(t *testing.T) {
	for _, size := range []int{10, 1000, 40_000, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			const limit, stalled = 32 << 20, 7
			b, senders, _, ofSenders, ofPeers, gate := budgeted(t, limit, stalled)
			data := bytes.Repeat([]byte{1}, size)
			sent, most := make([]int, stalled), int64(0)
			for i, s := range senders {
				waited, cancel := context.WithTimeout(t.Context(), time.Minute)
				for err := error(nil); err == nil; most = max(most, b.Held()) {
					if err = s.SendWait(waited, data, 1); err == nil {
						sent[i]++
					}
					for k := 0; k < 100 && err == nil; k++ {
						if err = s.Send(data, 1); err == nil {
							sent[i]++
						}
					}
				}
				cancel()
				if err := s.SendReceipt(data, 1, 7); err == nil {
					sent[i]++
				} else if !errors.Is(err, ErrWouldBlock) {
					t.Fatal(err)
				}
			}
			if most = max(most, b.Held()); most > limit {
				t.Errorf("%d bytes are held, the bound is %d", most, limit)
			}
			cfg := resuming
			cfg.Budget = b
			la, lb := links(t, 40_000, nil)
			free, taker := new(owner), new(owner)
			quick := start(t, la, cfg, free)
			start(t, lb, resuming, taker)
			for range 3 { // each takes 32 KiB of memory
				if err := quick.SendWait(t.Context(), make([]byte, 30_000), 1); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(20 * time.Second)
			if n := len(taker.all("message")); n != 3 {
				t.Errorf("%d of 3 messages arrive at a peer that takes them", n)
			}
			close(gate)
			time.Sleep(time.Minute)
			for i := range senders {
				if n := len(ofPeers[i].all("message")); n != sent[i] {
					t.Errorf("%d of %d messages arrive", n, sent[i])
				}
				if n := len(ofSenders[i].all("writable")); n == 0 {
					t.Error("who was refused is not told")
				}
				if c := senders[i].Counters(); c.Queued+c.Unacked != 0 {
					t.Errorf("%d bytes wait", c.Queued+c.Unacked)
				}
			}
			time.Sleep(time.Minute) // heartbeats, with which what is quiet is given back
			if b.Held() != 0 || b.Refused() == 0 {
				t.Errorf("%d bytes are held in the end, %d were refused", b.Held(), b.Refused())
			}
		})
	}
}

// TestForcedTakesNothing: what is taken although there is none counts, and each gets what it
// would get without.
func TestForcedTakesNothing(t *testing.T) {
	const limit, step, sessions = 1 << 20, 1 << 10, 4
	var got [2][sessions]int64
	for forced := range got {
		b := NewBudget(limit, sessions)
		var accounts [sessions]account
		for i := range accounts {
			a := &accounts[i]
			a.of = b
			a.force(forced * limit)
			for a.take(step) {
			}
			got[forced][i] = a.held.Load()
		}
		if held, all := b.Held(), b.all(); held-all != int64(forced*limit*sessions) {
			t.Errorf("%d bytes are held, %d of them were not forced", held, all)
		}
		for i := range accounts {
			accounts[i].unforce(forced * limit)
			accounts[i].give(int(got[forced][i]))
		}
		if b.Held() != 0 {
			t.Errorf("%d bytes are held in the end", b.Held())
		}
	}
	if got[0] != got[1] {
		t.Errorf("they get %d bytes, and %d when much is forced", got[0], got[1])
	}
}

// TestReadersLeaveRoom: whatever readers take, a session gets its part, and more.
func TestReadersLeaveRoom(t *testing.T) {
	const limit, sessions = 64 << 20, 1000
	b := NewBudget(limit, sessions)
	readers := make([]Session, sessions)
	for i := range readers {
		s := &readers[i]
		s.account.of, s.in.s = b, s
		s.in.want = bulkRead
		s.in.room()
	}
	a := account{of: b}
	for a.take(1 << 10) {
	}
	if got := a.held.Load(); got < limit/16 {
		t.Errorf("a session gets %d bytes of %d beside readers that hold %d", got, limit, b.Held()-got)
	}
	a.give(int(a.held.Load()))
	for i := range readers {
		readers[i].in.free()
	}
	if b.Held() != 0 {
		t.Errorf("%d bytes are held in the end", b.Held())
	}
}

// full returns a budget of which there is nothing left, and what is held of it.
func full(t *testing.T, sessions int) (b *Budget, held int64) {
	t.Helper()
	b = NewBudget(1<<20, sessions)
	fill(t, b, sessions)
	return b, b.Held()
}

// fill has others take what is left of a budget.
func fill(t *testing.T, b *Budget, sessions int) {
	t.Helper()
	for i := 0; b.limit-b.Held() >= 1<<10; i++ {
		for a := (&account{of: b}); a.take(1 << 10); {
		}
		if i == 2*sessions {
			t.Fatalf("%d bytes of the budget are left", b.limit-b.Held())
		}
	}
}

// TestWhatIsReadCounts: a record that comes in part counts, and when there is no memory for
// it, it gets what is in proportion to what has come.
func TestWhatIsReadCounts(t *testing.T) {
	for _, short := range []bool{false, true} {
		for _, came := range []int{100, 5_000, 12_000, 60_000} {
			synctest.Test(t, func(t *testing.T) {
				b, held := NewBudget(64<<20, 1), int64(0)
				if short {
					b, held = full(t, 4)
				}
				cfg := usual
				cfg.Budget = b
				la, lb := links(t, 1<<20, nil)
				o := new(owner)
				start(t, lb, cfg, o)
				m := numbered(wire.MaxBody-16, 1)
				stream := sealFrames(la.Seal, nil, wire.AppendMessage(nil, 1, m))
				write := func(p []byte) {
					if _, err := la.Conn.Write(p); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				write(stream[:came])
				n := b.Held() - held
				if least := int64(came - freeBuffer); n < least {
					t.Errorf("short %v: %d bytes have come, %d are held", short, came, n)
				}
				if most := int64(16 * max(0, came-freeBuffer)); short && n > most {
					t.Errorf("%d bytes have come, %d are held", came, n)
				}
				write(stream[came:])
				same(t, o.all("message"), [][]byte{m})
				if n := b.Held() - held; n != 0 {
					t.Errorf("%d bytes are held in the end", n)
				}
			})
		}
	}
}

// TestWithoutMemory: two whose budgets have nothing send each other as much as they are
// let; all arrives, although what each waits for comes behind what the other sends, and
// neither takes the other one for lost.
func TestWithoutMemory(t *testing.T) {
	for _, size := range []int{100, 4_000, 15_000} {
		synctest.Test(t, func(t *testing.T) {
			la, lb := links(t, 10_000, nil)
			var sessions [2]*Session
			var owners [2]*owner
			var budgets [2]*Budget
			var held, sent [2]int64
			for i, link := range []*secure.Link{la, lb} {
				cfg := resuming
				budgets[i], held[i] = full(t, 4)
				cfg.Budget = budgets[i]
				owners[i] = new(owner)
				sessions[i] = start(t, link, cfg, owners[i])
			}
			// What there is for messages is room that one of the others gives back.
			for i, b := range budgets {
				b.freed(256 << 10)
				held[i] -= 256 << 10
			}
			data := numbered(size, 1)
			for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
				for i, s := range sessions {
					for s.Send(data, 1) == nil {
						sent[i]++
					}
				}
			}
			time.Sleep(5 * time.Minute)
			for i, o := range owners {
				if n := int64(len(o.all("message"))); n != sent[1-i] || n < 100 {
					t.Errorf("%d of %d messages of %d bytes arrive", n, sent[1-i], size)
				}
				if lost := len(o.all("unlinked")) + len(o.all("ended")); lost != 0 {
					t.Error("a link was given up")
				}
				if n := budgets[i].Held() - held[i]; n > 32<<10 { // which the side keeps for small messages that sends no heartbeats
					t.Errorf("%d bytes are held in the end", n)
				}
			}
		})
	}
}

// TestWhatIsSealedCounts: what is sealed for a peer that does not take it counts, and is
// one record when there is no memory for more; all arrives all the same.
func TestWhatIsSealedCounts(t *testing.T) {
	for _, short := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const limit, sessions, item = 4 << 20, 8, 32 << 10
			b, gate := NewBudget(limit, sessions), make(chan struct{})
			cfg := usual // nothing is kept: what is sealed is not queued any more
			cfg.Budget = b
			la, lb := links(t, 10_000, nil)
			taker := &owner{gate: gate}
			s := start(t, la, cfg, new(owner))
			start(t, lb, usual, taker)
			others := make([]account, sessions-1)
			for i := range others {
				for others[i].of = b; short && others[i].take(item); {
				}
			}
			held := b.Held()
			var want [][]byte
			for i := range limit / 2 / sessions / item {
				want = append(want, numbered(30_000, i))
			}
			if n, err := s.SendRun(len(want), func(k int) ([]byte, uint8) { return want[k], 1 }); err != nil {
				t.Fatalf("after %d of %d messages: %v", n, len(want), err)
			}
			time.Sleep(time.Second)
			n, queued := b.Held()-held, int64(s.Counters().Queued)
			if n < queued {
				t.Errorf("short %v: %d bytes are held, %d are queued or sealed", short, n, queued)
			}
			if most := queued/30_000*item + item; short && n > most {
				t.Errorf("%d bytes are held, %d with one sealed record", n, most)
			}
			close(gate)
			time.Sleep(time.Second)
			same(t, taker.all("message"), want)
			if n := b.Held() - held; n != 0 {
				t.Errorf("%d bytes are held in the end", n)
			}
		})
	}
}

// TestLargeMessagesWithoutMemory: a large message for which there is no memory waits, and
// arrives whole when there is some; when there is none for 10 s its session ends.
func TestLargeMessagesWithoutMemory(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := NewBudget(16<<20, 4)
			cfg := resuming
			cfg.Budget = b
			la, lb := links(t, 40_000, nil)
			oa, ob := new(owner), new(owner)
			sender := start(t, la, resuming, oa)
			start(t, lb, cfg, ob)
			others := make([]account, 8) // which leave less than what a large message takes
			for i := range others {
				others[i].of = b
				for others[i].take(1 << 16) {
				}
			}
			data := make([]byte, 2<<20)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			for _, m := range [][]byte{data, []byte("small")} {
				if err := sender.Send(m, 1); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(budgetPatience * 9 / 10)
			if n := len(ob.all("message")); n != 0 {
				t.Fatalf("%d messages have arrived without memory", n)
			}
			if late {
				time.Sleep(2 * budgetPatience)
				if ended := ob.all("ended"); len(ended) != 1 || !errors.Is(ended[0].why, ErrMemory) {
					t.Errorf("without memory the session ends like this: %v", ended)
				}
			}
			for i := range others {
				others[i].give(int(others[i].held.Load()))
			}
			time.Sleep(time.Minute)
			if got := ob.all("message"); !late {
				same(t, got, [][]byte{data, []byte("small")})
			}
			if b.Held() != 0 {
				t.Errorf("%d bytes are held in the end", b.Held())
			}
		})
	}
}

// TestEndsWithoutMemory: a session that waits for memory for a large message ends at once,
// and so does its line when it is given up: another one carries the message then.
func TestEndsWithoutMemory(t *testing.T) {
	for _, resumes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b, _ := full(t, 4)
			cfg := resuming
			cfg.Budget = b
			la, lb := links(t, 40_000, nil)
			oa, ob := new(owner), new(owner)
			sender, s := start(t, la, resuming, oa), start(t, lb, cfg, ob)
			data := make([]byte, 100_000)
			if err := sender.Send(data, 1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			refused := b.Refused()
			if refused == 0 {
				t.Fatal("there is memory")
			}
			if resumes {
				s.Forsake(lb.Conn, ErrBroken)
			} else {
				s.Kill(ErrReplaced)
			}
			over := func() bool { return len(ob.all("suspended"))+len(ob.all("ended")) > 0 }
			for range 100_000 { // no time passes while somebody is busy
				if over() {
					break
				}
				runtime.Gosched()
			}
			if n := b.Refused() - refused; n > 10 {
				t.Errorf("it was refused memory %d times since", n)
				b.freed(1 << 20)
			}
		})
	}
}
