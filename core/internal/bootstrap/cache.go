package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/identity"
)

// Options are how a book is opened. The zero value is what most want.
type Options struct {
	// Peers is how many peers there is room for, 1 to MaxPeers. A file that has less
	// room grows; one that has more stays, and this book shows as many as Peers. 0
	// means DefaultPeers.
	Peers int
	// RetestAfter is how long after it was reached a peer is due for a test. 0 means
	// DefaultRetestAfter.
	RetestAfter time.Duration
}

var (
	// ErrClosed is returned after Close.
	ErrClosed = fmt.Errorf("the bootstrap cache is closed: %w", fs.ErrClosed)
	// ErrBusy is returned when another process holds the lock for longer than 2 s.
	// Nothing was changed then.
	ErrBusy = errors.New("the bootstrap cache is locked by another process")
)

// Cache is an open book. Its methods may be called from several goroutines, and
// several books, of any processes, may have the same file. They wait for each other,
// at most 2 s (ErrBusy).
//
// An error that is a *Warning says that the call has done its work, but not where, or
// not as, it should have. Results are good with it.
type Cache struct {
	// constant
	path    string
	options Options

	mu     sync.Mutex
	lock   lock
	region region // nil before the first use, and when closed
	header header
	file   fs.FileInfo // of the mapped file; nil when the book is in memory
	synced uint64      // see view
	view   *view       // what was seen last; nil before
	closed bool
}

// Open opens the book of a file, which is made when it is not there; the directory is
// not. The book can always be used, but for bad options, when it is nil. The error
// then is a *Warning: the file was begun anew, or mended, or the book is in memory, or
// the lock could not be had yet, which later calls try again.
func Open(path string, o Options) (*Cache, error) {
	switch {
	case path == "":
		return nil, errors.New("bootstrap cache: it needs a name")
	case o.Peers < 0 || o.Peers > MaxPeers:
		return nil, fmt.Errorf("bootstrap cache: room for %d peers is out of bounds, want 1 to %d", o.Peers, MaxPeers)
	case o.RetestAfter < 0:
		return nil, fmt.Errorf("bootstrap cache: a test after %v is out of bounds", o.RetestAfter)
	}
	if o.Peers == 0 {
		o.Peers = DefaultPeers
	}
	if o.RetestAfter == 0 {
		o.RetestAfter = DefaultRetestAfter
	}
	c := &Cache{path: path, options: o, lock: lock{path: path + ".lock"}}
	err := c.use(func(*view) error { return nil })
	if errors.Is(err, ErrBusy) {
		err = &Warning{Path: path, Err: err}
	}
	return c, err
}

// use runs do on what the slots hold, under the lock, and once more on another region
// when the one it had is lost. Errors of do are those of the region.
func (c *Cache) use(do func(*view) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if c.memory() {
		return c.try(do)
	}
	if _, err := look(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) { // no lock beside what is no file
		return c.leave(err, c.last()).or(c.try(do))
	}
	if err := c.lock.take(); errors.Is(err, ErrBusy) {
		return err
	} else if err != nil {
		return c.leave(fmt.Errorf("it cannot be locked: %w", err), c.last()).or(c.try(do))
	}
	defer c.lock.release()
	var w *Warning
	if !c.current() {
		w = c.attach()
	}
	err := c.try(do)
	if err != nil && !c.memory() {
		w = w.and(c.attach())
		err = c.try(do)
	}
	if err != nil && !c.memory() {
		w = w.and(c.leave(err, c.last()))
		err = c.try(do)
	}
	return w.or(err)
}

// try runs do on what the slots hold now.
func (c *Cache) try(do func(*view) error) error {
	v, err := scan(c.region, c.header, &c.synced)
	if err != nil {
		return err
	}
	c.view = v
	return do(v)
}

// last returns what is known without the lock.
func (c *Cache) last() []Entry {
	if c.view != nil {
		return c.view.entries()
	}
	return c.readable()
}

// Reached writes down that a peer was reached, which makes it the most recent. now
// is the time. The caller says whose contact is worth keeping: peers that accept
// connections.
func (c *Cache) Reached(now time.Time, contact Contact) error {
	if err := contact.check(); err != nil {
		return err
	}
	return c.use(func(v *view) error { return v.store(succeed(v.find(contact.Peer), &contact, now)) })
}

// Failed writes down that a peer could not be reached, if it counts: see the rules.
// It reports whether the peer was removed because of it. A peer that is not in the
// book does not come in.
func (c *Cache) Failed(now time.Time, id identity.PeerID) (removed bool, err error) {
	err = c.use(func(v *view) error {
		removed = false
		known := v.find(id)
		if known == nil {
			return nil
		}
		e := *known
		switch {
		case !e.fail(now, v.reached()):
			return nil
		case e.Failures >= MaxFailures:
			removed = true
			return v.remove(id)
		}
		return v.store(e)
	})
	return removed, err
}

// List returns the peers, most recent first, up to Options.Peers. When the lock
// cannot be had it returns what was seen last.
func (c *Cache) List() ([]Entry, error) {
	var list []Entry
	err := c.use(func(v *view) error {
		list = v.entries()
		return nil
	})
	if errors.Is(err, ErrBusy) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.view == nil {
			return nil, err
		}
		list, err = c.view.entries(), nil
	}
	return list[:min(len(list), c.options.Peers)], err
}

// Due returns up to n peers that should be tested now, the one that was tried the
// longest ago first. The caller tries them and tells by Reached or Failed.
func (c *Cache) Due(now time.Time, n int) ([]Entry, error) {
	list, err := c.List()
	list = slices.DeleteFunc(list, func(e Entry) bool { return !e.due(now, c.options.RetestAfter) })
	slices.SortStableFunc(list, func(a, b Entry) int { return a.tried().Compare(b.tried()) })
	return list[:min(len(list), max(n, 0))], err
}

// Remove removes a peer, and reports whether it was there.
func (c *Cache) Remove(id identity.PeerID) (removed bool, err error) {
	err = c.use(func(v *view) error {
		removed = v.find(id) != nil
		return v.remove(id)
	})
	return removed, err
}

// Prune removes the peers that were last reached longer ago than older, and returns
// them.
func (c *Cache) Prune(now time.Time, older time.Duration) ([]Entry, error) {
	var gone []Entry
	err := c.use(func(v *view) error {
		gone = nil
		for _, e := range v.entries() {
			if !past(now, e.Success, older) {
				continue
			}
			if err := v.remove(e.Peer); err != nil {
				return err
			}
			gone = append(gone, e)
		}
		return nil
	})
	return gone, err
}

// InMemory reports whether the book is in memory only.
func (c *Cache) InMemory() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memory()
}

// Close writes everything to the disk and gives the file back. It may be called
// again.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	var err error
	if c.region != nil {
		err = c.region.flush()
	}
	c.detach()
	c.lock.close()
	c.view = nil
	return err
}
