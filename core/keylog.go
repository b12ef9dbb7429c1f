package crust

import (
	"errors"
	"io"
	"os"
	"sync"
)

// keyLog writes the keys of sessions to where Config says. mu is held while it does.
type keyLog struct {
	mu     sync.Mutex
	to     []io.Writer // emptied when the service has ended
	file   *os.File    // nil when there is none
	failed bool        // it has been said
}

// openKeyLog has the keys of sessions written down, if that is wanted.
func (s *Service) openKeyLog() error {
	k := &s.keys
	if path := s.cfg.KeyLogFile; path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return &Error{Op: "key log", Code: CodeOf(err), Err: err}
		}
		k.file, k.to = file, append(k.to, file)
	}
	if s.cfg.KeyLog != nil {
		k.to = append(k.to, s.cfg.KeyLog)
	}
	if len(k.to) == 0 {
		return nil
	}
	s.log.Warn("THE KEYS OF ALL SESSIONS ARE WRITTEN DOWN: whoever has the key log reads everything that this service sends and receives", "file", s.cfg.KeyLogFile)
	s.secure.KeyLog = s.logKeys
	return nil
}

// logKeys writes a line.
func (s *Service) logKeys(line []byte) {
	k := &s.keys
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	for _, w := range k.to {
		_, e := w.Write(line)
		err = errors.Join(err, e)
	}
	if err != nil && !k.failed {
		k.failed = true
		s.log.Error("keys could not be written down; captures of these sessions cannot be read", "error", err)
	}
}

// closeKeyLog writes no more.
func (s *Service) closeKeyLog() {
	k := &s.keys
	k.mu.Lock()
	defer k.mu.Unlock()
	k.to = nil
	if k.file != nil {
		if err := k.file.Close(); err != nil {
			s.log.Error("the key log was not closed in order", "error", err)
		}
		k.file = nil
	}
}
