//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package bootstrap

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// careful are flags of opening: follow no link, wait for no pipe.
const careful = unix.O_NOFOLLOW | unix.O_NONBLOCK

// tryLock locks a file, unless another descriptor has (flock(2)).
func tryLock(f *os.File) (bool, error) {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
		default:
			return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}

func unlock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// isReadOnly reports whether the file system is read-only.
func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// syncDir makes names in a directory last.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems cannot
		return err
	}
	return nil
}
