package session

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// audit looks at a budget again and again until done is closed: nothing is less than
// nothing, and what is not forced, and what is lent, has its bound.
func audit(t *testing.T, b *Budget, done <-chan struct{}) {
	for tick := time.NewTicker(time.Millisecond); ; {
		all, forced, lent := b.all(), b.forced.Load(), b.lent.Load()
		if all < 0 || all > b.limit || forced < 0 || lent < 0 || lent > max(leastLent, b.limit/lentPart) {
			t.Errorf("%d bytes of %d are held, %d forced, %d of them lent", all, b.limit, forced, lent)
			return
		}
		select {
		case <-tick.C:
		case <-done:
			tick.Stop()
			return
		}
	}
}

// settled fails unless nothing is held once all sessions have ended.
func settled(t *testing.T, b *Budget, sessions ...*Session) {
	t.Helper()
	for _, s := range sessions {
		<-s.Done()
	}
	synctest.Wait()
	if held, forced, lent := b.Held(), b.forced.Load(), b.lent.Load(); held != 0 || forced != 0 || lent != 0 {
		t.Errorf("%d bytes are held in the end, %d are forced, %d lent", held, forced, lent)
	}
	for _, s := range sessions {
		if n := s.account.held.Load(); n != 0 {
			t.Errorf("a session holds %d bytes in the end", n)
		}
	}
	if len(b.members)+len(b.waiting) != 0 {
		t.Errorf("%d sessions are left, %d wait", len(b.members), len(b.waiting))
	}
}

// TestBudgetAcrossBreaks: whatever breaks when, what is held of a budget of which there is
// too little stays within its bounds, and all of it is given back.
func TestBudgetAcrossBreaks(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	refused := uint64(0)
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 11))
			cfg := resuming
			cfg.ResendBuffer = MinResendBuffer << r.IntN(3)
			c := newCutter(t, 1<<(12+seed%8), randomCuts(r, 22))
			done := make(chan struct{})
			defer close(done)
			for i := range c.budgets {
				c.budgets[i] = NewBudget(4<<20, 1<<r.IntN(8))
				go audit(t, c.budgets[i], done)
			}
			a, b := conversation(t, cfg, seed, 100, 200_000, c)
			settled(t, c.budgets[0], a)
			settled(t, c.budgets[1], b)
			refused += c.budgets[0].Refused() + c.budgets[1].Refused()
		})
	}
	if refused == 0 {
		t.Error("memory was never short")
	}
}

// TestLoanIsBounded: of a loan all sessions together get what there is, and what is repaid again.
func TestLoanIsBounded(t *testing.T) {
	for limit, most := range map[int64]int{1 << 20: leastLent, 1 << 30: 1 << 30 / lentPart} {
		b := NewBudget(limit, 4)
		accounts := [3]account{{of: b}, {of: b}, {of: b}}
		lent := 0
		for i := 0; lent <= most && accounts[i%3].borrow(1<<20); i++ {
			lent += 1 << 20
		}
		if lent != most || b.Held() != int64(lent) || b.all() != 0 {
			t.Errorf("of %d bytes %d are lent, %d held, %d of them not as a loan; want %d lent", limit, lent, b.Held(), b.all(), most)
		}
		accounts[0].repay(1 << 20)
		if !accounts[1].borrow(1<<20) || accounts[2].borrow(1) {
			t.Error("what is repaid is not lent once more")
		}
	}
}

// TestOverdraftIsGivenBack: what was overdrawn, of the budget and as a loan, is given back when
// there is room for the messages, and when the session ends before that.
func TestOverdraftIsGivenBack(t *testing.T) {
	for _, ends := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			cfg := resuming
			b := NewBudget(1<<20, 4)
			cfg.Budget = b
			la, _ := links(t, 40_000, nil) // nobody acknowledges anything
			s := start(t, la, cfg, new(owner))
			if err := s.Send([]byte("kept"), 1); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			fill(t, b, 4)
			if s.Send(make([]byte, 30_000), 1) == nil {
				t.Fatal("there is memory")
			}
			before, own := b.Held(), s.account.held.Load()
			if !s.Overdraw(3_000) || b.lent.Load() != 3_000 {
				t.Fatalf("%d bytes are lent", b.lent.Load())
			}
			b.freed(8 << 10) // another session has given something back
			if !s.Overdraw(2_000) || b.lent.Load() != 3_000 {
				t.Fatalf("%d bytes are lent, though there is memory", b.lent.Load())
			}
			if n := b.Held() - before; n != 5_000-8<<10 {
				t.Fatalf("%d bytes are held for an overdraft of 5000, beside 8 KiB less", n)
			}
			if ends {
				s.Kill(ErrReplaced)
				<-s.Done()
				synctest.Wait()
				before, own = before-own, 0
			} else {
				s.Settle()
			}
			if n, held := b.Held()-before+8<<10, s.account.held.Load(); n != 0 || held != own || b.lent.Load() != 0 || b.forced.Load() != 0 {
				t.Errorf("ended %v: %d bytes are still held, the session holds %d, %d before, %d are lent", ends, n, held, own, b.lent.Load())
			}
		})
	}
}

// evil returns what a peer may send that means to have memory held: records that begin, and
// large messages that do not end.
func evil(r *rand.Rand, seal secure.Sealer) (stream []byte) {
	left := map[uint8]int{}
	for len(stream) < 1<<(4+r.IntN(20)) {
		switch n := r.IntN(1 << r.IntN(16)); r.IntN(5) {
		case 0:
			stream = sealFrames(seal, stream, wire.AppendMessage(nil, uint8(r.IntN(4)), make([]byte, n)))
		case 1:
			frames := []byte(nil)
			for range n % 1000 {
				frames = wire.AppendMessage(frames, 1, nil)
			}
			stream = sealFrames(seal, stream, frames)
		case 2:
			stream = sealControl(seal, stream, wire.AppendPing(nil, wire.FramePing, uint64(n)))
		default:
			p := uint8(r.IntN(wire.MaxOpenPieces))
			if left[p] == 0 {
				left[p] = 1 + r.IntN(wire.MaxMessage)
			}
			n = min(n+1, left[p], wire.MaxBody)
			stream = sealPiece(seal, stream, make([]byte, n), left[p], p)
			left[p] -= n
		}
	}
	return stream[:len(stream)-r.IntN(min(len(stream), 70_000))]
}

// TestBudgetOfEvilPeers: peers that send what is not complete, take nothing or leave have
// held no more than is allowed, and in the end nothing.
func TestBudgetOfEvilPeers(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 13))
			cfg := []Config{usual, resuming}[r.IntN(2)]
			cfg.Budget = NewBudget(1<<(20+r.IntN(5)), 1<<r.IntN(8))
			done, gate := make(chan struct{}), make(chan struct{})
			defer close(done)
			go audit(t, cfg.Budget, done)
			var sessions []*Session
			for range 1 + r.IntN(12) {
				la, lb := links(t, 1<<(10+r.IntN(12)), nil)
				o := new(owner)
				if r.IntN(3) == 0 {
					o.gate = gate
				}
				s := start(t, lb, cfg, o)
				sessions = append(sessions, s)
				stream := evil(r, la.Seal)
				go func() {
					la.Conn.Write(stream) //nolint:errcheck // it may be cut off
				}()
				for range r.IntN(100) {
					data := make([]byte, r.IntN(1<<r.IntN(20)))
					switch r.IntN(4) {
					case 0:
						s.SendReceipt(data, 1, 1) //nolint:errcheck // there may be no memory
					case 1:
						s.SendSpare(data[:len(data)%1000])
					default:
						s.Send(data, uint8(r.IntN(4))) //nolint:errcheck // likewise
					}
				}
				if time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond); r.IntN(3) == 0 {
					la.Conn.Close()
				}
			}
			time.Sleep(time.Duration(r.IntN(20_000)) * time.Millisecond)
			close(gate)
			time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
			for _, s := range sessions {
				if r.IntN(2) == 0 {
					s.Disconnect(wire.ReasonStopping, ErrDisconnected)
				} else {
					s.Kill(ErrReplaced)
				}
			}
			settled(t, cfg.Budget, sessions...)
		})
	}
}
