package session

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// A peer that is expelled is to learn why. But a connection that is closed with something
// unread is reset by the system, and what had not gone out yet, the reason with it, is
// lost. So the session ends at once, and its connection stays for a while: the write that
// is under way is finished, since no record makes sense without the one before; the
// reason follows it, before all that is queued, then the end of the stream; and what
// comes from the peer is thrown away unopened, until the peer closes, as it does when it
// has read the reason.
//
//	Expel ──the writer leaves──▶ reason, end of stream ──the reader leaves──▶ thrown away ──▶ closed

const (
	// dismissGrace is how long a peer that is dismissed may keep the word waiting.
	dismissGrace = 100 * time.Millisecond
	// partingLeast and partingMost bound how long the connection of an expelled session
	// stays. Between them it is partingTrips round trips: one that the peer's
	// acknowledgements take to make room for the reason, one for the reason and the
	// peer's end, and one to spare.
	partingLeast = time.Second
	partingMost  = 2 * time.Second
	partingTrips = 3
	// maxPartings bounds such connections: a flood of peers that are expelled and do not
	// close holds no more descriptors, and no more memory of writers, than of these.
	maxPartings = 64
	// partingBytes is how much is thrown away of what comes; then nothing is read, and
	// the peer's system keeps the rest.
	partingBytes = 1 << 20
)

// Partings counts the connections of expelled sessions, of all of an owner. When
// maxPartings stay, the next is closed at once. The zero Partings is ready.
type Partings struct{ now atomic.Int32 }

// begin reports whether another connection may stay; then end must follow.
func (p *Partings) begin() bool {
	if p == nil {
		return false
	}
	if p.now.Add(1) > maxPartings {
		p.now.Add(-1)
		return false
	}
	return true
}

func (p *Partings) end() { p.now.Add(-1) }

// parting is what is left of an expelled session: a connection.
type parting struct {
	line      *line
	unwritten chan struct{} // closed when nobody else writes
	unread    chan struct{} // closed when nobody else reads
	until     time.Time
}

// Dismiss is Kill, but tells the peer the reason, if that can be done at once, so that it
// does not come back to resume the session.
func (s *Session) Dismiss(reason wire.Reason, why error) {
	s.mu.Lock()
	l := s.line
	if l == nil || s.writing || s.state >= finishing || l.first != nil {
		s.mu.Unlock()
		s.end(why)
		return
	}
	s.writing, s.using = true, l
	s.mu.Unlock()
	defer func() { // after a panic, too, nobody waits for it
		s.end(why)
		s.mu.Lock()
		s.stopWriting()
		s.mu.Unlock()
	}()
	l.link.Conn.SetWriteDeadline(time.Now().Add(dismissGrace))                                          //nolint:errcheck // a closed connection shows in the write
	l.link.Conn.Write(sealControl(l.link.Seal, nil, wire.AppendReason(nil, wire.FrameRefused, reason))) //nolint:errcheck // it is on its way out
}

// Expel is Dismiss for a peer that is to hear why, also when much is under way to it and
// from it. The session ends at once; its connection stays until the peer closes it, for
// at most partingMost and Config.CloseTimeout. When too many stay already, Expel is
// Dismiss.
func (s *Session) Expel(reason wire.Reason, why error) {
	s.mu.Lock()
	l := s.line
	if l == nil || s.state >= finishing || !s.cfg.Partings.begin() {
		s.mu.Unlock()
		s.Dismiss(reason, why)
		return
	}
	p := &parting{line: l, unwritten: make(chan struct{}), unread: make(chan struct{}), until: time.Now().Add(s.partingTime())}
	s.parting = p
	word := wire.AppendReason(nil, wire.FrameRefused, reason)
	owed := l.owed // of a line on which nothing has gone out yet
	s.stop(why)
	s.mu.Unlock()
	l.link.Conn.SetWriteDeadline(p.until) //nolint:errcheck // a closed connection shows in the write
	l.link.Conn.SetReadDeadline(past)     //nolint:errcheck // likewise
	s.spawn(func() {
		defer s.cfg.Partings.end()
		defer l.link.Conn.Close() //nolint:errcheck // it carries nothing any more
		p.part(owed, word)
	})
}

// hearOut waits a moment until the reader has come to the end of a line that breaks in
// writing. A peer that refuses the session says so and closes; what was under way to it
// then breaks the connection, while its word is still to be read.
func (s *Session) hearOut(l *line) {
	timer := time.NewTimer(dismissGrace)
	defer timer.Stop()
	select {
	case <-l.gone:
	case <-s.quit:
	case <-timer.C:
	}
}

// partingTime returns how long the connection may stay. mu is held.
func (s *Session) partingTime() time.Duration {
	d := partingMost
	if trip := time.Duration(s.rtt.Load()); trip > 0 {
		d = min(max(partingLeast, partingTrips*trip), partingMost)
	}
	return min(d, max(dismissGrace, s.cfg.CloseTimeout))
}

// cede gives up what a line seals with: to the parting, if that is left. mu is held.
func (s *Session) cede(l *line) {
	if p := s.parting; p != nil && p.line == l {
		close(p.unwritten)
		return
	}
	l.link.Seal.Zero()
}

// part says the word and waits until the peer has heard it.
func (p *parting) part(owed, word []byte) {
	conn := p.line.link.Conn
	<-p.unwritten // the deadline ends what is being written
	_, err := conn.Write(sealControl(p.line.link.Seal, owed, word))
	p.line.link.Seal.Zero()
	c, ok := conn.(interface{ CloseWrite() error })
	if err != nil || !ok || c.CloseWrite() != nil {
		return
	}
	timer := time.NewTimer(time.Until(p.until))
	defer timer.Stop()
	select {
	case <-p.unread:
	case <-timer.C:
		return
	}
	for left := int64(partingBytes); left > 0; {
		conn.SetReadDeadline(p.until) //nolint:errcheck // a closed connection shows in the read
		n, err := io.Copy(io.Discard, io.LimitReader(conn, left))
		if left -= n; left > 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(p.until)) { // else a Turn was interrupted
			return
		}
	}
	<-timer.C
}
