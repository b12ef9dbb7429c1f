package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Report is what a file holds, and what is wrong with it.
type Report struct {
	// Size is the size of the file in bytes, Want what its header says.
	Size, Want int64
	// Version is that of the form.
	Version int
	// Slots is how many peers there is room for.
	Slots int
	// Last is the number of the last writing.
	Last uint64
	// Entries are the peers, most recent first.
	Entries []Entry
	// Damage is what is wrong, nil when nothing is.
	Damage []Damage
}

// Damage is one thing that is wrong with a file.
type Damage struct {
	// Where is "size", "header copy 1", "slot 17 copy 2" or the like. Slots and
	// copies count from 1.
	Where string
	// Err says what is wrong.
	Err error
	// Lost means that the slot holds no peer. Else its other copy is good, and
	// nothing is lost but what was written last. A process that was killed while it
	// wrote leaves damage as well; in a slot that was free nothing is lost by it.
	Lost bool
}

// ErrNoCache is the error of a file that is no bootstrap cache, or one of a newer
// version.
var ErrNoCache = errors.New("it cannot be used")

// Inspect reads a file as it is. It changes nothing and makes nothing. Errors are
// those of opening, locking and reading, and ErrNoCache.
func Inspect(path string) (*Report, error) {
	f, info, err := open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	release, err := lockThere(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer release()
	m := examine(f, info.Size())
	if m.view == nil {
		if errors.As(m.err, new(*fs.PathError)) {
			return nil, m.err
		}
		return nil, fmt.Errorf("%s: %w: %w", path, ErrNoCache, m.err)
	}
	r := &Report{
		Size: m.size, Want: int64(m.header.size()), Version: version, Slots: m.header.count,
		Last: m.view.last, Entries: m.view.entries(),
	}
	if err := m.whole(); err != nil {
		r.Damage = append(r.Damage, Damage{Where: "size", Err: err})
	}
	for which, err := range m.copies {
		if err != nil {
			r.Damage = append(r.Damage, Damage{Where: fmt.Sprintf("header copy %d", which+1), Err: err})
		}
	}
	for i, s := range m.view.slots {
		for which, err := range s.bad {
			if err != nil {
				r.Damage = append(r.Damage, Damage{fmt.Sprintf("slot %d copy %d", i+1, which+1), err, s.seq == 0})
			}
		}
	}
	return r, nil
}

// lockThere takes a lock that is there. Where none is, nobody writes: a file has its
// lock as long as it has been written to.
func lockThere(path string) (release func(), err error) {
	if _, err := look(path); errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	} else if err != nil {
		return nil, err
	}
	l := lock{path: path, readOnly: true}
	if err := l.take(); err != nil {
		return nil, err
	}
	return l.close, nil
}
