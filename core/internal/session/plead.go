package session

import "time"

// What was sent is kept until it is acknowledged, and a peer acknowledges what is little, or
// was the last, with heartbeats only. That costs nothing while there is memory. When somebody
// is refused some, his session asks its peer to acknowledge at once, by a ping, and so do all
// that keep something; each has one such ping under way, and asks no more until it was
// acknowledged what it has asked for.

// pleadEvery is how often all sessions are looked through for what they keep, at most.
const pleadEvery = time.Second

// unasked reports whether something is kept, and the peer is not being asked for it. mu is held.
func (k *backlog) unasked() bool { return k.retain && k.acked < k.next && k.asked <= k.acked }

// plead asks the peer to acknowledge what has gone out, if that makes memory free and it has
// not been asked; somebody must write the ping then. mu is held.
func (s *Session) plead() bool {
	if s.line == nil || s.state >= finishing || !s.kept.unasked() {
		return false
	}
	s.control = s.againPing(s.control)
	s.kept.asked = s.kept.next
	return true
}

// pleads reports whether a ping goes behind a batch for a line: receipts want it, or who was
// refused memory. mu is held.
func (s *Session) pleads(l *line, receipts bool) bool {
	if !receipts && !(s.poor && s.kept.unasked()) {
		return false
	}
	if s.line == l {
		s.kept.asked = s.kept.next
	}
	return true
}

// poorer notes that a call is refused memory. mu is held.
func (s *Session) poorer() {
	s.poor = true
	if s.plead() {
		s.wake()
	}
	s.starve() // a Deliver that waits may overdraw now
}

// eased has who was refused memory try again, and reports whether a Writable is due. mu is
// held.
func (s *Session) eased() (writable bool) {
	s.signalRoom()
	writable = s.owed()
	s.poor = s.refused
	return writable
}

// join is for a session that begins, and leave for one that ends.
func (b *Budget) join(s *Session) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[s] = struct{}{}
}

func (b *Budget) leave(s *Session) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.members, s)
	delete(b.waiting, s)
}

// plead has all sessions ask for what they keep.
func (b *Budget) plead() {
	b.mu.Lock()
	all := make([]*Session, 0, len(b.members))
	for s := range b.members {
		all = append(all, s)
	}
	b.mu.Unlock()
	for _, s := range all {
		s.pleadNow()
	}
}

// pleadNow is plead, and writes the ping when nobody writes.
func (s *Session) pleadNow() {
	s.mu.Lock()
	var l *line
	var frames []byte
	if s.plead() {
		l, frames = s.claimBeat(s.clock())
	}
	s.mu.Unlock()
	if len(frames) > 0 {
		s.writeBeat(l, frames)
	}
}
