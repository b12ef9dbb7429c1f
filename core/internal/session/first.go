package session

import (
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// SendFirst queues messages of the same priority, all or none: in one run of frames, so that
// they go into one record. They may have wire.MaxBody bytes together with their frames. It writes
// nothing itself, and no Writable is owed when they are refused. Errors: ErrTooBig, ErrWouldBlock, ErrEnded.
func (s *Session) SendFirst(messages [][]byte, priority uint8) error {
	frames, bytes := 0, 0
	for _, m := range messages {
		frames += wire.MessageFrameSize(len(m))
		bytes += len(m)
	}
	if frames > wire.MaxBody {
		return ErrTooBig
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cost := bytes + len(messages)*frameCost
	switch {
	case s.state != live:
		return ErrEnded
	case s.queued > 0 && s.queued+cost > s.cfg.SendQueue:
		return ErrWouldBlock
	}
	buf := s.buffer(frames)
	if buf == nil {
		return ErrWouldBlock
	}
	run := buf.B[:0]
	for _, m := range messages {
		run = wire.AppendMessage(run, priority, m)
	}
	it := item{buf: buf, n: len(run), count: uint64(len(messages)), bytes: uint64(bytes), capacity: len(run)}
	if priority > mustArrive {
		it.born = s.clock()
	}
	q := s.queueFor(priority)
	q.items = append(q.items, it)
	s.sent += it.count
	s.sentBytes += it.bytes
	s.queued += cost
	s.wake()
	return nil
}

// sayFirst waits a moment until what goes first on a line is out, which the reader may
// overtake: a peer that has begun the session and closes it at once takes the end of the line for the word that
// all was read only when it knows that we have the session.
func (s *Session) sayFirst(l *line) {
	timer := time.NewTimer(dismissGrace)
	defer timer.Stop()
	for {
		s.mu.Lock()
		if l.said || s.line != l {
			s.mu.Unlock()
			return
		}
		room := s.waitRoom()
		s.mu.Unlock()
		select {
		case <-room:
		case <-timer.C:
			return
		}
	}
}
