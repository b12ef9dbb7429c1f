//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package bootstrap

import (
	"errors"
	"os"
)

const careful = 0

// tryLock fails: without locks between processes the book is in memory.
func tryLock(f *os.File) (bool, error) {
	return false, &os.PathError{Op: "lock", Path: f.Name(), Err: errors.ErrUnsupported}
}

func unlock(*os.File) error { return nil }
func isReadOnly(error) bool { return false }
func syncDir(string) error  { return nil }
