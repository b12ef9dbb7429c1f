package bootstrap

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives each byte of a file its place on the disk, so that writing to
// memory cannot find the disk full (fallocate(2)). A file system that cannot is no error:
// what was written once has its place, but where writing never overwrites.
func allocate(f *os.File, size int) error {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); {
		case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		case !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
		}
	}
}
