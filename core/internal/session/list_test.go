package session

import (
	"testing"
	"testing/synctest"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// keeper is an owner that keeps messages where they lie, and notes how many came at once.
type keeper struct {
	owner
	kept []Message
	held []*Buffer
	most int
}

func (o *keeper) Deliver(_ *Session, messages []Message, buffers []*Buffer, _ bool) bool {
	o.kept, o.held = append(o.kept, messages...), append(o.held, buffers...)
	o.most = max(o.most, len(messages))
	return true
}

// TestListIsBounded: of the smallest messages, of which a read has tens of thousands, some
// are handed over before the others are listed, and all stay what they are.
func TestListIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := links(t, 1<<20, nil)
		o := new(keeper)
		s := New(lb, wire.SessionID{1}, usual, o, nil)
		s.Start()
		defer func() {
			s.Kill(ErrReplaced)
			<-s.Done()
			o.wg.Wait()
		}()
		var stream []byte
		var want [][]byte
		for round := range 12 {
			var frames []byte
			for n := 0; ; n++ {
				size := [3]int{0, 20, 4}[round%3]
				if n >= mostListed && size == 4 { // those before stay in the buffer, these do not
					size = 0
				}
				m := numbered(20, len(want))[:size]
				if len(frames)+wire.MessageFrameSize(size) > wire.MaxBody {
					break
				}
				frames, want = wire.AppendMessage(frames, 1, m), append(want, m)
			}
			stream = sealFrames(la.Seal, stream, frames)
			if round >= 9 { // for which the buffer is larger
				large := numbered(200, round)
				stream, want = sealPiece(la.Seal, stream, large, len(large), 1), append(want, large)
			}
		}
		if _, err := la.Conn.Write(stream); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if o.most > mostListed {
			t.Errorf("%d messages came at once", o.most)
		}
		var got []told
		for _, m := range o.kept {
			got = append(got, told{data: m.Data})
		}
		same(t, got, want)
		for _, b := range o.held {
			b.Release()
		}
		if n := s.Counters().ReceivedMessages; n != uint64(len(want)) {
			t.Errorf("%d messages are counted of %d", n, len(want))
		}
	})
}
