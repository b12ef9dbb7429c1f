package sessions

import (
	"strings"
	"testing"
)

// Who sends and sends before it is asked is ended, and what it sent is given back; what
// comes after that is not kept either.
func TestWhatComesEarlyHasABound(t *testing.T) {
	c := &served{woken: make(chan struct{}, 1)}
	message := make([]byte, 1<<20)
	for range maxEarly>>20 + 1 {
		if c.err != nil {
			t.Fatalf("ended within the bound: %v", c.err)
		}
		c.take(message)
	}
	for range 3 {
		c.take(message)
		if c.err == nil || !strings.Contains(c.err.Error(), "before anybody asked") || c.early != nil {
			t.Fatalf("%d messages are kept, %v", len(c.early), c.err)
		}
	}
}
