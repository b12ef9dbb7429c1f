package session

import "github.com/libcrust/libcrust/core/internal/wire"

// What a program carries for others goes after what it sends itself, but is never
// starved: frames of the low class go out when no message may, and one record of
// them after each lowEach bytes of messages. They are no content: what is queued,
// and what is under way, is lost with the link.

const (
	// MaxLow bounds the frames of the low class that wait to be written, in bytes.
	MaxLow = 16 << 20
	// MaxSpare bounds those that wait when a frame of SendSpare is queued, in bytes.
	MaxSpare = 64 << 10
	// lowRecord is the size of their records, in bytes: two full frames of a circuit
	// fit in.
	lowRecord = 33 << 10
	// lowEach is after how many bytes of messages such a record goes out while more
	// messages wait: one in twenty.
	lowEach = 19 * lowRecord
	// lowBatch is how many bytes of them are sealed for one write: a message that
	// comes meanwhile waits for no more.
	lowBatch = lowRecord
)

// lowQueue is the frames of the low class, in runs of up to lowRecord bytes each.
// Session.mu guards it.
type lowQueue struct {
	runs   [][]byte
	head   int // runs before it are gone
	bytes  int
	passed int // bytes of messages since a record of the low class went out
}

func (q *lowQueue) empty() bool { return q.bytes == 0 }

// add copies a frame into the last run, or a new one.
func (q *lowQueue) add(frame []byte) {
	n := len(q.runs)
	if n == q.head || len(q.runs[n-1])+len(frame) > lowRecord {
		if q.head > 64 && q.head*2 > n {
			m := copy(q.runs, q.runs[q.head:])
			clear(q.runs[m:])
			q.runs, q.head = q.runs[:m], 0
		}
		q.runs = append(q.runs, nil)
		n = len(q.runs)
	}
	q.runs[n-1] = append(q.runs[n-1], frame...)
	q.bytes += len(frame)
}

// pop takes the first run.
func (q *lowQueue) pop() []byte {
	run := q.runs[q.head]
	q.runs[q.head] = nil
	q.head++
	if q.bytes -= len(run); q.bytes == 0 {
		q.runs, q.head = nil, 0
	}
	return run
}

// clearLow drops what waits. mu is held.
func (s *Session) clearLow() {
	s.account.give(s.low.bytes)
	s.low = lowQueue{}
}

// SendLow queues a frame of the low class, of which there is room for several in
// lowRecord, on a line that At has returned. Frames go out in the order of the
// calls, without regard to those of SendControl. It never blocks, and reports false
// when the frame is dropped: the session has another line or none, closes, MaxLow
// bytes wait, or there is no memory.
func (s *Session) SendLow(at Line, frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live || !s.started || s.line == nil || s.line != at.line || s.low.bytes+len(frame) > MaxLow || !s.takes(len(frame)) {
		return false
	}
	s.low.add(frame)
	s.wake()
	return true
}

// SendSpare is SendLow on whatever line there is, for a frame that need not arrive: it is
// dropped, too, when more than MaxSpare bytes would wait.
func (s *Session) SendSpare(frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live || !s.started || s.line == nil || s.low.bytes+len(frame) > MaxSpare || !s.takes(len(frame)) {
		return false
	}
	s.low.add(frame)
	s.wake()
	return true
}

// Line names a link under a session: frames of the low class are bound to one.
type Line struct{ line *line }

// At returns the line that the session is on, and whether there is one.
func (s *Session) At() (Line, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Line{s.line}, s.line != nil && s.started && s.state == live
}

// On reports whether the session is on a line.
func (s *Session) On(at Line) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.line != nil && s.line == at.line
}

// lowDue reports whether there are frames of the low class that may go. mu is held.
func (s *Session) lowDue() bool { return !s.low.empty() && s.state == live }

// takeLow seals frames of the low class that are due: one record of them at most
// while messages wait, or are in the batch with so many bytes; else up to lowBatch
// bytes. mu is held, and released while
// sealing.
func (s *Session) takeLow(b *batch, messages int) {
	s.low.passed += messages
	for taken := 0; s.line == b.line && s.lowDue() && taken < lowBatch; {
		busy := messages > 0 || s.next() != nil
		if busy && s.low.passed < lowEach {
			return
		}
		if len(b.out) > 0 && len(b.out)+len(s.low.runs[s.low.head])+sealCost+tailRoom > cap(b.out) { // it has grown since fit
			return
		}
		run := s.low.pop()
		s.account.give(len(run))
		s.unlocked(func() { b.out = sealControl(b.line.link.Seal, b.out, run) })
		s.low.passed = 0
		taken += len(run)
	}
}

// relayed hands a frame of a circuit to the owner.
func (in *inbox) relayed(t wire.FrameType, body []byte) error {
	if err := in.s.owner.Relay(in.s, Line{in.line}, t, body); err != nil {
		return protocol(err)
	}
	return nil
}
