package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/edsrzf/mmap-go"
)

// region is where the slots are: a file in memory, or memory alone. Its methods are
// called by one goroutine at a time.
type region interface {
	// read and write copy. A faultError means that the region is lost.
	read(b []byte, at int) error
	write(b []byte, at int) error
	// flush returns once all that was written, by any process, is on the disk.
	flush() error
	// close gives the region back, whose bytes are then gone from memory.
	close() error
}

// faultError says that memory could not be accessed that belongs to a file.
type faultError struct{ fault any }

func (e faultError) Error() string {
	return fmt.Sprintf("the file could not be accessed in memory: %v", e.fault)
}

// mapped is a file in memory.
type mapped struct {
	file  *os.File
	bytes mmap.MMap
}

// mapFile maps the first size bytes of a file, which has them, and owns the file
// from then on.
func mapFile(f *os.File, size int) (*mapped, error) {
	b, err := mmap.MapRegion(f, size, mmap.RDWR, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot map it into memory: %w", err)
	}
	return &mapped{f, b}, nil
}

func (m *mapped) read(b []byte, at int) error  { return move(b, m.bytes[at:]) }
func (m *mapped) write(b []byte, at int) error { return move(m.bytes[at:], b) }

// move copies, and is the one place that touches the memory of a mapped file.
func move(to, from []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil { // nothing but a fault can happen between here and there
			err = faultError{fault}
		}
	}()
	copy(to, from)
	return nil
}

// flush hands the pages over and waits for the disk (msync(2), MS_SYNC).
func (m *mapped) flush() error {
	if err := m.bytes.Flush(); err != nil {
		return fmt.Errorf("cannot write it to the disk: %w", err)
	}
	if runtime.GOOS == "darwin" { // msync does not reach the drive there
		return m.file.Sync()
	}
	return nil
}

// close unmaps before it closes: on Windows the other order fails.
func (m *mapped) close() error { return errors.Join(m.bytes.Unmap(), m.file.Close()) }

// heap is a region that nobody else sees.
type heap []byte

func (h heap) read(b []byte, at int) error {
	copy(b, h[at:])
	return nil
}

func (h heap) write(b []byte, at int) error {
	copy(h[at:], b)
	return nil
}

func (h heap) flush() error { return nil }
func (h heap) close() error { return nil }

// look returns what a path names, which must be a regular file.
func look(path string) (fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: irregular(info.Mode())}
	}
	return info, err
}

// irregular is the error of what is no regular file.
type irregular fs.FileMode

func (e irregular) Error() string {
	switch mode := fs.FileMode(e); {
	case mode.IsDir():
		return "it is a directory"
	case mode&fs.ModeSymlink != 0:
		return "it is a symbolic link"
	}
	return "it is no regular file"
}

// open opens a regular file and never anything else: no link is followed, and nothing
// waits for who reads a pipe.
func open(path string, flag int) (*os.File, fs.FileInfo, error) {
	before, err := look(path)
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0) {
		return nil, nil, err
	}
	f, err := os.OpenFile(path, flag|careful, 0o600)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = &fs.PathError{Op: "open", Path: path, Err: irregular(info.Mode())}
	case before != nil && !os.SameFile(before, info):
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("another file has taken its place meanwhile")}
	}
	if err != nil {
		f.Close() //nolint:errcheck // nothing was written
		return nil, nil, err
	}
	return f, info, nil
}
