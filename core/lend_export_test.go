package crust

// ReadsItself reports whether a goroutine of the program waits at the connection
// of a session, inside NextBatch.
func (s *Service) ReadsItself() bool {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	return s.events.reading
}
