package session

import (
	"context"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// quiet is how long after a write a caller may write itself. A sender in a
// flood comes back sooner, and its messages are gathered instead; an answer to
// a round trip, also on loopback, comes later.
const quiet = 2 * time.Microsecond

// directOver is the size in bytes above which a message is not written by the
// caller: what the connection does not take at once, nothing can overtake.
const directOver = 64 << 10

// Send queues or writes one message. It never blocks. Errors: ErrTooBig,
// ErrWouldBlock, ErrEnded.
func (s *Session) Send(data []byte, priority uint8) error { return s.send(data, priority, true) }

// send is Send; when it refuses the message, notify says whether a Writable is owed.
func (s *Session) send(data []byte, priority uint8, notify bool) error {
	if len(data) > wire.MaxMessage {
		return ErrTooBig
	}
	s.mu.Lock()
	if s.state != live {
		s.mu.Unlock()
		return ErrEnded
	}
	if s.queued > 0 && s.queued+len(data)+frameCost > s.cfg.SendQueue {
		s.refused = s.refused || notify
		s.mu.Unlock()
		return ErrWouldBlock
	}
	s.sent++
	s.sentBytes += uint64(len(data))
	if !s.writing && s.try != nil && len(data) <= directOver && len(s.first) == 0 && len(s.control) == 0 && !s.pongDue && s.queued == 0 &&
		s.clock()-s.written > int64(quiet) {
		s.writing = true
		s.queued = len(data) + frameCost
		s.mu.Unlock()
		s.writeDirect(data, priority)
		return nil
	}
	s.enqueue(data, priority)
	if !s.writing {
		s.startWriter()
	}
	s.mu.Unlock()
	return nil
}

// SendRun queues n messages until one is refused, and returns how many were
// accepted and why the next was not. message returns the k-th.
func (s *Session) SendRun(n int, message func(k int) ([]byte, uint8)) (int, error) {
	if n == 1 {
		if err := s.Send(message(0)); err != nil {
			return 0, err
		}
		return 1, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live {
		return 0, ErrEnded
	}
	k, err := 0, error(nil)
	for ; k < n; k++ {
		data, priority := message(k)
		if len(data) > wire.MaxMessage {
			err = ErrTooBig
			break
		}
		if s.queued > 0 && s.queued+len(data)+frameCost > s.cfg.SendQueue {
			s.refused = true
			err = ErrWouldBlock
			break
		}
		s.sent++
		s.sentBytes += uint64(len(data))
		s.enqueue(data, priority)
	}
	if !s.writing && k > 0 {
		s.startWriter()
	}
	return k, err
}

// SendWait is Send, but waits while much is queued: more than waitOver, although
// the queue may have a bound beyond that. What is in the caches is sealed faster
// than what is not. A message more urgent than all that is queued waits only for
// the bound. When ctx ends, what Send would accept is accepted.
func (s *Session) SendWait(ctx context.Context, data []byte, priority uint8) error {
	if len(data) > wire.MaxMessage {
		return ErrTooBig
	}
	for {
		s.mu.Lock()
		bound := s.cfg.SendQueue
		if !s.overtakes(priority) {
			bound = min(bound, waitOver)
		}
		full := s.state == live && s.queued > 0 && s.queued+len(data)+frameCost > bound
		var room chan struct{}
		if full {
			room = s.waitRoom()
		}
		s.mu.Unlock()
		if full {
			select {
			case <-room:
			case <-ctx.Done():
				if err := s.send(data, priority, false); err != ErrWouldBlock { //nolint:errorlint // it is returned bare
					return err
				}
				return context.Cause(ctx)
			}
			continue
		}
		if err := s.send(data, priority, false); err != ErrWouldBlock { //nolint:errorlint // it is returned bare
			return err
		}
	}
}

// owed reports, once, whether it is time to tell that a queue which refused a
// message has drained to half. mu is held.
func (s *Session) owed() bool {
	if !s.refused || s.queued > s.cfg.SendQueue/2 {
		return false
	}
	s.refused = false
	return s.state == live
}

// overtakes reports whether a message would go before all that is queued. mu is
// held.
func (s *Session) overtakes(priority uint8) bool {
	for _, q := range s.queues {
		if !q.empty() {
			return priority < q.priority
		}
	}
	return false
}

// waitRoom returns a channel that is closed when there is room, the writer
// stops or the session ends. mu is held.
func (s *Session) waitRoom() chan struct{} {
	if s.room == nil {
		s.room = make(chan struct{})
	}
	return s.room
}

// signalRoom wakes who waits. mu is held.
func (s *Session) signalRoom() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// startWriter starts the writer goroutine. mu is held and writing is not set.
func (s *Session) startWriter() {
	s.writing = true
	s.owner.Go(s.write)
}

// pieceLen returns how much of a message that has left bytes to go the next
// piece takes: pieces of one message are about equal.
func pieceLen(left int) int {
	n := (left + wire.MaxBody - 1) / wire.MaxBody
	return (left + n - 1) / n
}

// sealFrames seals a run of frames that lies apart.
func sealFrames(seal secure.Sealer, out, frames []byte) []byte {
	return seal.Seal(out, wire.Header{Type: wire.TypeFrames}, frames)
}

// sealPiece seals a piece of a message that has left bytes to go.
func sealPiece(seal secure.Sealer, out, piece []byte, left int, priority uint8) []byte {
	return seal.Seal(out, wire.Header{Type: wire.TypePiece, Priority: priority, Left: left}, piece)
}

// writeDirect writes one message on the caller's goroutine without waiting.
// What does not fit is left to the writer.
func (s *Session) writeDirect(data []byte, priority uint8) {
	defer func() {
		if fault := recover(); fault != nil { // the caller is the program, which has done nothing wrong
			s.broke()
			s.owner.Fault(s, fault)
		}
	}()
	out := NewBuffer(wire.SealedHeader + wire.MessageFrameSize(len(data)) + wire.TagSize + (len(data)/wire.MaxBody+1)*(wire.SealedHeader+wire.TagSize))
	b := out.B[:0]
	if len(data) <= pieceOver {
		// The frame is built where its ciphertext goes.
		frame := wire.AppendMessage(out.B[:wire.SealedHeader], priority, data)
		b = sealFrames(s.link.Seal, b, frame[wire.SealedHeader:])
	} else {
		for left := len(data); left > 0; {
			n := pieceLen(left)
			at := len(data) - left
			b = sealPiece(s.link.Seal, b, data[at:at+n], left, priority)
			left -= n
		}
	}
	n, err := s.try.TryWrite(b)
	s.wireOut.Add(uint64(n))
	now := s.clock()
	s.lastSent.Store(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = now
	if err == nil && n == len(b) {
		out.Release()
		s.queued -= len(data) + frameCost
		s.tell = s.owed()
		s.writing = false
		s.signalRoom()
		if s.tell || s.queued > 0 || len(s.first) > 0 || len(s.control) > 0 || s.pongDue || s.state == draining {
			s.startWriter()
		}
		return
	}
	s.out = append(s.out[:0], b[n:]...) // an error shows again when the writer writes
	out.Release()
	s.owner.Go(s.write)
}

// batch is what the writer has taken from the queues.
type batch struct {
	out   []byte
	freed int // bytes of the queue that the write makes free
	last  bool
}

// write is the writer goroutine. After a panic nobody waits for it.
func (s *Session) write() {
	fault := true
	defer func() {
		if fault {
			s.broke()
		}
	}()
	s.writeAll()
	fault = false
}

// broke ends the session after a fault of who had the write side.
func (s *Session) broke() {
	s.end(ErrFault)
	s.stopWriting()
}

// writeAll writes while there is something to write, and gives the write side up.
func (s *Session) writeAll() {
	mem := NewBuffer(batchBytes + 2*wire.MaxRecord)
	defer mem.Release()
	var b batch
	s.mu.Lock()
	rest := s.out
	s.out = nil
	if len(rest) > 0 {
		b.freed = s.queued - s.waiting()
	}
	tell := s.tell
	s.tell = false
	s.mu.Unlock()
	if tell {
		s.owner.Writable(s)
	}
	for {
		if len(rest) > 0 {
			b.out, rest = rest, nil
		} else if s.take(&b, mem.B[:0]); len(b.out) == 0 {
			return
		}
		n, err := s.link.Conn.Write(b.out)
		s.wireOut.Add(uint64(n))
		now := s.clock()
		s.lastSent.Store(now)
		s.mu.Lock()
		s.written = now
		s.queued -= b.freed
		b.freed = 0
		if s.queued <= waitOver/2 {
			s.signalRoom()
		}
		writable := s.owed()
		if err != nil || s.state == ended {
			s.writing = false
			s.signalRoom()
			s.mu.Unlock()
			s.end(broken(err))
			return
		}
		s.mu.Unlock()
		if writable {
			s.owner.Writable(s)
		}
		if b.last {
			s.stopWriting()
			s.halfClose()
			return
		}
	}
}

// stopWriting gives the write side up.
func (s *Session) stopWriting() {
	s.mu.Lock()
	s.writing = false
	s.signalRoom()
	s.mu.Unlock()
}

// waiting returns the bytes in the queues. mu is held.
func (s *Session) waiting() (n int) {
	for _, q := range s.queues {
		for _, it := range q.items[q.head:] {
			n += int(it.bytes) + int(it.count)*frameCost
		}
	}
	return n
}

// take seals what is most urgent into b.out, up to about batchBytes. With
// nothing to write it gives the write side up and leaves b.out empty.
func (s *Session) take(b *batch, mem []byte) {
	b.out, b.freed = mem, 0
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == ended {
		b.out = nil
		s.writing = false
		s.signalRoom()
		return
	}
	if len(s.first) > 0 { // Chosen: it must end its record
		b.out = sealFrames(s.link.Seal, b.out, s.first)
		s.first = nil
	}
	if s.pongDue {
		s.control = wire.AppendPing(s.control, wire.FramePong, s.pong)
		s.pongDue = false
	}
	if len(s.control) > 0 {
		b.out = sealFrames(s.link.Seal, b.out, s.control)
		s.control = nil
	}
	for len(b.out) < batchBytes {
		q := s.next()
		if q == nil {
			break
		}
		it := *q.first()
		if !it.large {
			q.pop()
			s.unlocked(func() { b.out = sealFrames(s.link.Seal, b.out, it.buf.B[:it.n]) })
			it.buf.Release()
			b.freed += int(it.bytes) + int(it.count)*frameCost
			continue
		}
		s.takePiece(b, q, it)
	}
	if len(b.out) == 0 {
		if s.state == draining {
			b.out = sealFrames(s.link.Seal, b.out, s.finish())
			b.last = true
			return
		}
		s.writing = false
		s.signalRoom()
	}
}

// unlocked runs f, which seals, without mu: the write side is ours, so nobody
// else does. A panic of f finds mu held, as the deferred unlocking expects.
func (s *Session) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// takePiece seals the next piece of the large message at the head of q. mu is
// held, and released while sealing: the head of a queue of which pieces are out
// stays, so the queue is safe meanwhile.
func (s *Session) takePiece(b *batch, q *queue, it item) {
	left := it.n - it.off
	n := pieceLen(left)
	last := n == left
	if it.off == 0 && !last {
		s.open++
	} else if it.off > 0 && last {
		s.open--
	}
	if last {
		q.pop()
	} else {
		q.first().off += n
	}
	s.unlocked(func() { b.out = sealPiece(s.link.Seal, b.out, it.buf.B[it.off:it.off+n], left, q.priority) })
	if last {
		it.buf.Release()
		b.freed += int(it.bytes) + frameCost
	}
}

// next returns the most urgent queue that may go on: a further message in
// pieces, be it one piece, must wait while wire.MaxOpenPieces are under way. mu
// is held.
func (s *Session) next() *queue {
	for _, q := range s.queues {
		if q.empty() {
			continue
		}
		if it := q.first(); it.large && it.off == 0 && s.open >= wire.MaxOpenPieces {
			continue
		}
		return q
	}
	return nil
}
