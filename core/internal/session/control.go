package session

// maxControl bounds the frames of SendControl that wait to be written, in bytes.
// They go out in one record.
const maxControl = 16 << 10

// SendControl queues a frame that is no content, before all messages. It never
// blocks, and reports false when the frame is dropped: the session is without a
// link or closing, or too many wait. What is queued is lost with the link.
func (s *Session) SendControl(frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live || !s.started || s.line == nil || len(s.control)+len(frame) > maxControl {
		return false
	}
	s.control = append(s.control, frame...)
	s.wake()
	return true
}
