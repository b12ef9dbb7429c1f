package session

import "github.com/libcrust/libcrust/core/internal/wire"

// MaxDatagram is the largest datagram that SendDatagram takes.
const MaxDatagram = wire.MaxStreamDatagram

// maxDatagrams bounds the bytes of control and datagrams that wait to be written,
// so that all of it fits into one record.
const maxDatagrams = 48 << 10

// SendDatagram sends a datagram over a link that has no way for them beside the
// stream: before all messages that wait, at most once. It is lost while the
// session has no link and when too many wait already. It never blocks. Errors:
// ErrTooBig, ErrEnded.
func (s *Session) SendDatagram(data []byte) error {
	if len(data) > MaxDatagram {
		return ErrTooBig
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state != live:
		return ErrEnded
	case s.line == nil || len(s.control)+len(data) > maxDatagrams:
		return nil
	}
	s.control = wire.AppendFrame(s.control, wire.FrameDatagram, data...)
	s.wake()
	return nil
}
