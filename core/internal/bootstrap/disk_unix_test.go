//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// complain ends a child.
func complain(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return 1
}

// inMemory opens a book that must be in memory, and uses it.
func inMemory(path string, room int, cause error, kept int) error {
	c, err := Open(path, Options{Peers: room})
	var w *Warning
	if c == nil || !errors.As(err, &w) || !w.Memory || !errors.Is(err, cause) || w.Kept != kept {
		return fmt.Errorf("open: %+v, %v; want %v, %d peers kept", w, err, cause, kept)
	}
	if err := c.Reached(start, contact(9)); err != nil {
		return err
	}
	list, err := c.List()
	if err != nil || len(list) != min(kept+1, room) || list[0].Peer != id(9) {
		return fmt.Errorf("list: %v, %v", numbers(list), err)
	}
	return c.Close()
}

// childAsNobody runs as a user who may not write, and then not read either.
func childAsNobody(dir string) int {
	if err := inMemory(filepath.Join(dir, "readable"), 50, os.ErrPermission, 4); err != nil {
		return complain("readable: %v", err)
	}
	if err := inMemory(filepath.Join(dir, "unreadable"), 50, os.ErrPermission, 0); err != nil {
		return complain("unreadable: %v", err)
	}
	if err := inMemory(filepath.Join(dir, "missing"), 50, os.ErrPermission, 0); err != nil {
		return complain("missing: %v", err)
	}
	return 0
}
