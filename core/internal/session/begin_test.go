package session

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestBegin: a session that is begun before the peer is asked sends what tells it
// first, and takes one answer, before which there is no content.
func TestBegin(t *testing.T) {
	claim := wire.Claim{Seq: 1, Begun: true, Session: wire.SessionID{1}}.Append(nil)
	chosen := wire.Chosen{Session: wire.SessionID{1}, Order: 1}.Append(nil)
	refused := wire.AppendReason(nil, wire.FrameRefused, wire.ReasonDuplicate)
	elsewhere := errors.New("elsewhere")
	for name, c := range map[string]struct {
		answer   []byte
		type_    wire.RecordType
		refuse   error
		answered wire.FrameType
		why      error // nil: the session goes on
	}{
		"chosen":                     {answer: chosen, type_: wire.TypeControl, answered: wire.FrameChosen},
		"refused":                    {answer: refused, type_: wire.TypeControl, refuse: elsewhere, answered: wire.FrameRefused, why: elsewhere},
		"twice":                      {answer: append(append([]byte{}, chosen...), chosen...), type_: wire.TypeControl, why: ErrProtocol},
		"a ping before it":           {answer: append(wire.AppendPing(nil, wire.FramePing, 3), chosen...), type_: wire.TypeControl, answered: wire.FrameChosen},
		"a message before it":        {answer: wire.AppendMessage(nil, 1, []byte("early")), type_: wire.TypeFrames, why: ErrProtocol},
		"acknowledgement before it":  {answer: wire.AppendAck(nil, 0), type_: wire.TypeControl, why: ErrProtocol},
		"a second one in the record": {answer: append(append([]byte{}, chosen...), refused...), type_: wire.TypeControl, why: ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				la, lb := links(t, 0, nil)
				o := &owner{refuse: c.refuse}
				a := Begin(la, wire.SessionID{1}, resuming, o, claim)
				a.Start()
				if err := a.Send([]byte("at once"), 1); err != nil {
					t.Fatal(err)
				}
				if got, body, err := Await(lb); got != wire.FrameClaim || err != nil {
					t.Fatalf("frame %d, %x, %v", got, body, err)
				}
				if _, err := lb.Conn.Write(lb.Seal.Seal(nil, wire.Header{Type: c.type_}, c.answer)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				events := o.take()
				if c.answered != 0 && (len(events) == 0 || events[0].what != "answered" || events[0].count != uint64(c.answered)) {
					t.Errorf("told %+v", events)
				}
				select {
				case <-a.Done():
					if end := events[len(events)-1]; c.why == nil || end.what != "ended" || !errors.Is(end.why, c.why) {
						t.Errorf("ended: %v", end.why)
					}
				default:
					if c.why != nil {
						t.Errorf("it goes on, told %+v", events)
					}
					a.Kill(ErrReplaced)
					<-a.Done()
				}
				lb.Conn.Close()
			})
		})
	}
}
