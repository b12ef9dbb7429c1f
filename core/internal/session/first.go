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

// readGrace bounds how long the word that the peer's Close was read may take to go out.
const readGrace = time.Second

// sayRead acknowledges all that has come by a line, the peer's Close last, and waits until
// that is out. The peer takes nothing else for the word that all was read: that a stream
// ends proves nothing, since a relay or whoever is on the path can end it, and so does who
// gives a silent link up. When our stream has ended already there is no such word. If the
// line breaks meanwhile, it has ended for why, as the peer has told. Without bye, when the peer has
// given the session up, it wants no such word.
func (s *Session) sayRead(l *line, why error, bye bool) {
	timer := time.NewTimer(readGrace)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != l {
		return
	}
	if l.over = why; l.shut || !bye {
		return
	}
	read := l.position.Load()
	s.withheld, l.waits = false, true
	switch {
	case l.acked.Load() == read: // it is out, or about to be
	case !s.writing && l.try != nil && l.first == nil:
		frames := s.takeControls(l)
		s.mu.Unlock()
		s.writeNow(l, sealControl(l.link.Seal, s.scrap[:0], frames), 0)
		s.mu.Lock()
		s.answering = false
	default:
		s.ackDue = true
		s.wake()
	}
	for s.line == l && l.told < read {
		room := s.waitRoom()
		s.mu.Unlock()
		select {
		case <-room:
		case <-timer.C:
			s.mu.Lock()
			return
		}
		s.mu.Lock()
	}
}

// tells takes note that what was acknowledged before a write has gone out with it. mu is
// held.
func (s *Session) tells(l *line, acks uint64) {
	if acks > l.told {
		l.told = acks
		if l.waits {
			s.signalRoom()
		}
	}
}
