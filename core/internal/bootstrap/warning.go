package bootstrap

import (
	"errors"
	"fmt"
	"strings"
)

// Warning says that a book is not what it should be, and what was done about it. The
// call that returns it has done its work all the same.
type Warning struct {
	// Path is the file.
	Path string
	// Aside is what the file is called now that was set aside, "" when none was.
	Aside string
	// Memory means that the book is in memory only from now on.
	Memory bool
	// Kept is how many peers are in the new file or in memory that were in the old
	// one.
	Kept int
	// Err says why.
	Err error
}

// Error returns one sentence.
func (w *Warning) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "bootstrap cache %s: %v", w.Path, w.Err)
	if w.Aside != "" {
		fmt.Fprintf(&b, "; it is set aside as %s", w.Aside)
	}
	if w.Memory {
		b.WriteString("; going on in memory only")
	}
	if w.Aside != "" || w.Memory {
		fmt.Fprintf(&b, "; peers kept: %d", w.Kept)
	}
	return b.String()
}

// Unwrap returns the cause.
func (w *Warning) Unwrap() error { return w.Err }

// and adds what happened next. Each may be nil.
func (w *Warning) and(next *Warning) *Warning {
	switch {
	case w == nil:
		return next
	case next == nil:
		return w
	}
	sum := *next
	if sum.Aside == "" {
		sum.Aside = w.Aside
	}
	sum.Err = errors.Join(w.Err, next.Err)
	return &sum
}

// or returns err, else the warning, else nil.
func (w *Warning) or(err error) error {
	if err != nil || w == nil {
		return err
	}
	return w
}
