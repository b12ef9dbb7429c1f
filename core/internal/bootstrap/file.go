package bootstrap

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/libcrust/libcrust/core/identity"
)

const (
	// maxAside bounds the files that are set aside beside one cache.
	maxAside = 8
	// spareSeq is how many numbers of writings a file must have left when it is
	// opened.
	spareSeq = 1 << 32
)

// image is what there is in a file.
type image struct {
	size    int64
	header  header
	copies  [2]error // what is wrong with each copy of the header
	view    *view    // nil when the file says nothing that can be understood
	err     error    // why view is nil
	numbers bool     // enough are left
}

// examine reads a file from end to end.
func examine(f io.ReaderAt, size int64) *image {
	m := &image{size: size}
	head, err := readUpTo(f, 2*blockSize)
	for which := range m.copies {
		var h header
		if m.copies[which] = err; err == nil {
			h, m.copies[which] = parseHeader(head[which*blockSize:][:blockSize])
		}
		if m.copies[which] == nil && m.header.count == 0 {
			m.header = h
		}
	}
	if m.header.count == 0 {
		if m.err = m.copies[0]; errors.Is(m.err, errForeign) {
			m.err = m.copies[1]
		}
		return m
	}
	all, err := readUpTo(f, m.header.size())
	if m.err = err; err == nil {
		m.view, m.err = scan(heap(all), m.header, new(uint64))
		m.numbers = m.view.last < maxSeq-spareSeq
	}
	return m
}

// readUpTo reads the beginning of a file. What is missing is zeros.
func readUpTo(f io.ReaderAt, size int) ([]byte, error) {
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// whole says why a file that has a header cannot be mapped as it is, nil when it can.
func (m *image) whole() error {
	if want := int64(m.header.size()); m.size != want {
		return fmt.Errorf("it has %d bytes where its header says %d", m.size, want)
	}
	return nil
}

// memory reports whether the book is in memory only.
func (c *Cache) memory() bool { return c.region != nil && c.file == nil }

// current reports whether the file that is mapped is still the one that the path
// names, and of the same form.
func (c *Cache) current() bool {
	if c.region == nil {
		return false
	}
	info, err := os.Lstat(c.path)
	if err != nil || !os.SameFile(info, c.file) || info.Size() != int64(c.header.size()) {
		return false
	}
	b := make([]byte, headerSize)
	if c.region.read(b, 0) != nil {
		return false
	}
	h, err := parseHeader(b)
	return err == nil && h == c.header
}

// detach gives the region up. What it held stays in c.view.
func (c *Cache) detach() {
	if c.region != nil {
		c.region.close() //nolint:errcheck // what could not be written was told by flush
	}
	c.region, c.file, c.synced = nil, nil, 0
}

// attach maps the file, which it makes, mends or replaces when that is needed. When
// it cannot, the book goes on in memory. The lock is held.
func (c *Cache) attach() *Warning {
	lost := c.region != nil // it was mapped, and is not what it was
	c.detach()
	f, info, err := open(c.path, os.O_RDWR)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.begin(nil, nil)
	case err != nil:
		return c.leave(err, c.readable())
	}
	m := examine(f, info.Size())
	switch {
	case m.view == nil || m.whole() != nil:
		f.Close() //nolint:errcheck // nothing was written
		return c.renew(m, lost)
	case m.header.count < c.options.Peers || !m.numbers:
		f.Close() //nolint:errcheck // nothing was written
		return c.grow(m)
	}
	warning, err := mend(f, m)
	if err == nil {
		err = c.occupy(f, info, m.header)
	}
	if err != nil {
		f.Close() //nolint:errcheck // it is given up
		return c.leave(err, m.view.entries())
	}
	if warning != nil {
		return &Warning{Path: c.path, Err: warning}
	}
	return nil
}

// occupy maps an open file.
func (c *Cache) occupy(f *os.File, info fs.FileInfo, h header) error {
	if err := allocate(f, h.size()); err != nil {
		return err
	}
	r, err := mapFile(f, h.size())
	if err != nil {
		return err
	}
	c.region, c.file, c.header, c.synced = r, info, h, 0
	return nil
}

// mend writes a damaged copy of the header over by the good one.
func mend(f *os.File, m *image) (warning, err error) {
	for which, damage := range m.copies {
		if damage == nil {
			continue
		}
		warning = fmt.Errorf("copy %d of its header was damaged, and is mended: %w", which+1, damage)
		if _, err := f.WriteAt(m.header.append(nil), int64(which*blockSize)); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
	}
	return warning, nil
}

// renew sets a file aside that cannot be used, and begins a new one with what is
// sound in it, and, when it was lost while it was in use, with what was seen in it.
func (c *Cache) renew(m *image, lost bool) *Warning {
	var entries []Entry
	reason := m.err
	if m.view != nil {
		entries, reason = m.view.entries(), m.whole()
	}
	if lost && c.view != nil {
		entries = union(entries, c.view.entries())
	}
	if m.size == 0 { // made by who wanted a name, or cut off: there is nothing to set aside
		reason = nil
		if lost {
			reason = errors.New("it was emptied by another program")
		}
		w := c.begin(entries, nil)
		if w == nil && reason != nil {
			w = &Warning{Path: c.path, Kept: len(entries), Err: reason}
		}
		return w
	}
	return c.begin(entries, reason)
}

// union returns two books as one, most recent first. What a says of a peer counts,
// unless b knows something later.
func union(a, b []Entry) []Entry {
	of := make(map[identity.PeerID]Entry, len(a))
	for _, e := range slices.Concat(a, b) {
		if there, ok := of[e.Peer]; !ok || e.Success.After(there.Success) {
			of[e.Peer] = e
		}
	}
	sum := slices.Collect(maps.Values(of))
	slices.SortFunc(sum, func(a, b Entry) int { return cmp.Or(b.Success.Compare(a.Success), recent(a, b)) })
	return sum
}

// grow replaces a file by one with more room, or with lower numbers.
func (c *Cache) grow(m *image) *Warning {
	h := header{count: max(m.header.count, c.options.Peers)}
	if err := c.replace(h, m.view.entries()); err != nil {
		return c.leave(fmt.Errorf("it cannot be given room for %d peers: %w", h.count, err), m.view.entries())
	}
	return nil
}

// begin makes a new file with some entries, most recent first. A reason means that
// the one which is there is set aside.
func (c *Cache) begin(entries []Entry, reason error) *Warning {
	h := header{count: c.options.Peers}
	entries = entries[:min(len(entries), h.count)]
	aside := ""
	var err error
	if reason != nil {
		aside, err = setAside(c.path)
	}
	if err == nil {
		err = c.replace(h, entries)
	}
	switch {
	case err != nil && reason != nil:
		w := c.leave(fmt.Errorf("%w; %w", reason, err), entries)
		w.Aside = aside
		return w
	case err != nil:
		return c.leave(err, entries)
	case reason != nil:
		return &Warning{Path: c.path, Aside: aside, Kept: len(entries), Err: reason}
	}
	return nil
}

// setAside gives a file one more name. It keeps the old one until it is replaced, so
// that there is a file at every moment.
func setAside(path string) (string, error) {
	mine, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	for i := range maxAside {
		name := fmt.Sprintf("%s.bad-%d", path, i+1)
		switch there, err := os.Lstat(name); {
		case err == nil && os.SameFile(mine, there): // by who died then
			return name, nil
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		if os.Link(path, name) == nil {
			return name, nil
		}
		return name, os.Rename(path, name) // where files have one name only
	}
	return "", fmt.Errorf("it cannot be set aside, because all names from %s.bad-1 to %s.bad-%d are taken", path, path, maxAside)
}

// replace puts a new file in the place of the one which is there, whole or not at
// all, and maps it.
func (c *Cache) replace(h header, entries []Entry) error {
	name := c.path + ".new"
	if _, err := look(name); err == nil {
		if err := os.Remove(name); err != nil { // ours, from who died when it was made
			return err
		}
	}
	if err := writeNew(name, h, entries); err != nil {
		os.Remove(name) //nolint:errcheck // the next one will try again
		return err
	}
	if err := os.Rename(name, c.path); err != nil {
		os.Remove(name) //nolint:errcheck // the next one will try again
		return err
	}
	if err := syncDir(filepath.Dir(c.path)); err != nil {
		return err
	}
	f, info, err := open(c.path, os.O_RDWR)
	if err == nil {
		if err = c.occupy(f, info, h); err != nil {
			f.Close() //nolint:errcheck // it is given up
		}
	}
	return err
}

// writeNew writes a new file, on the disk when it returns.
func writeNew(name string, h header, entries []Entry) error {
	f, _, err := open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if err = allocate(f, h.size()); err == nil {
		_, err = f.Write(newImage(h, entries))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// newImage returns the bytes of a file with some entries, most recent first, which
// are numbered from 1 on.
func newImage(h header, entries []Entry) []byte {
	b := make([]byte, h.size())
	for which := range 2 {
		h.append(b[which*blockSize : which*blockSize])
	}
	v, err := scan(heap(b), h, new(uint64))
	for _, e := range slices.Backward(entries) {
		if e.order = 0; err == nil {
			e.failed = 0
			err = v.store(e)
		}
	}
	return b
}

// leave goes on in memory, with some entries, most recent first.
func (c *Cache) leave(why error, entries []Entry) *Warning {
	c.detach()
	c.lock.close()
	c.header = header{count: c.options.Peers}
	entries = entries[:min(len(entries), c.header.count)]
	c.region = heap(newImage(c.header, entries))
	c.synced = maxSeq
	return &Warning{Path: c.path, Memory: true, Kept: len(entries), Err: why}
}

// readable returns the entries of a file that may be read but not written.
func (c *Cache) readable() []Entry {
	f, info, err := open(c.path, os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	if m := examine(f, info.Size()); m.view != nil {
		return m.view.entries()
	}
	return nil
}
