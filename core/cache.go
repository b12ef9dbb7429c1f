package crust

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/libcrust/libcrust/core/internal/bootstrap"
)

// Cache is a bootstrap cache file, to be looked at and tidied up: the peers that
// services were connected to directly. Services write to it while this does; the file
// is locked for microseconds. A Cache holds nothing open. Its methods may be called
// from several goroutines.
type Cache struct{ path string }

// CachedPeer is a peer of a bootstrap cache. Times are whole milliseconds.
type CachedPeer struct {
	Peer PeerID
	Role Role
	// Endpoints are where the peer may be, up to 8: first where it was reached the
	// last time.
	Endpoints []CachedEndpoint
	// Reached is when it was reached the last time.
	Reached time.Time
	// Failed is when it could not be reached the last time, as far as it counted.
	// Zero means not since Reached.
	Failed time.Time
	// Failures is how many count since Reached. The tenth removes the peer.
	Failures int
}

// CachedEndpoint is where a peer of a bootstrap cache may be.
type CachedEndpoint struct {
	Endpoint Endpoint
	// Worked is when the peer was reached there the last time. Zero means never: the
	// peer has told of it.
	Worked time.Time
}

// CacheReport says what a bootstrap cache file holds, and what is wrong with it.
type CacheReport struct {
	// Size is the size of the file in bytes, and Want what it should be.
	Size, Want int64
	// Version is the version of the file's form.
	Version int
	// Slots is how many peers there is room for, and Peers how many there are.
	Slots, Peers int
	// Writes is how many times the file was written to.
	Writes uint64
	// Damage is what is wrong. nil means nothing.
	Damage []CacheDamage
}

// CacheDamage is one thing that is wrong with a bootstrap cache file.
type CacheDamage struct {
	// Where is "size", "header copy 2", "slot 17 copy 1" or the like, counted from 1.
	Where string
	// Err says what is wrong.
	Err error
	// Lost means that there is no peer in the slot because of it. Else the other
	// copy of the slot is good. What a killed process leaves looks the same, in a slot
	// that was free, where nothing is lost.
	Lost bool
}

// DefaultCachePath returns where this user's bootstrap cache is: bootstrap.cache in the
// directory crust of $XDG_STATE_HOME, which is ~/.local/state unless set, on Windows of
// %LocalAppData% and on macOS of ~/Library/Application Support. It makes nothing. The
// error is CodeInvalid when the environment does not say where that is.
func DefaultCachePath() (string, error) {
	dir, err := stateDir()
	if err != nil {
		return "", &Error{Op: "cache", Code: CodeInvalid, Err: err}
	}
	return filepath.Join(dir, "crust", "bootstrap.cache"), nil
}

func stateDir() (string, error) {
	switch runtime.GOOS {
	case "windows":
		return os.UserCacheDir()
	case "darwin", "ios":
		return os.UserConfigDir()
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) { // others are to be ignored, says the specification
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state"), nil
}

// OpenCache returns the bootstrap cache in a file that is there. It makes, mends and
// sets aside nothing. Errors: CodePermission, CodeIO when the file is not there or
// cannot be read, and CodeInvalid when it is no bootstrap cache or of a newer version;
// errors.Is(err, fs.ErrNotExist) tells which.
func OpenCache(path string) (*Cache, error) {
	if _, err := inspectCache(path); err != nil {
		return nil, err
	}
	return &Cache{path}, nil
}

func inspectCache(path string) (*bootstrap.Report, error) {
	r, err := bootstrap.Inspect(path)
	if err != nil {
		return nil, cacheError(err)
	}
	return r, nil
}

// cacheError dresses an error of a cache.
func cacheError(err error) *Error {
	e := &Error{Op: "cache", Code: CodeOf(err), Err: err}
	switch {
	case errors.Is(err, bootstrap.ErrBusy):
		e.Code = CodeTimeout
	case errors.Is(err, bootstrap.ErrNoCache):
		e.Code = CodeInvalid
	}
	return e
}

// List returns the peers, the one that was reached last first.
func (c *Cache) List() ([]CachedPeer, error) {
	r, err := inspectCache(c.path)
	if err != nil {
		return nil, err
	}
	return cachedPeers(r.Entries), nil
}

// Verify reads the whole file and says what is wrong with it.
func (c *Cache) Verify() (CacheReport, error) {
	r, err := inspectCache(c.path)
	if err != nil {
		return CacheReport{}, err
	}
	report := CacheReport{Size: r.Size, Want: r.Want, Version: r.Version, Slots: r.Slots, Peers: len(r.Entries), Writes: r.Last}
	for _, d := range r.Damage {
		report.Damage = append(report.Damage, CacheDamage(d))
	}
	return report, nil
}

// Prune removes the peers that were last reached longer ago than older, and returns
// them. A file whose size or header is wrong is mended or
// set aside first, as a service would do: see docs/CACHE.md.
func (c *Cache) Prune(older time.Duration) (removed []CachedPeer, err error) {
	err = c.change(func(b *bootstrap.Cache) error {
		gone, err := b.Prune(time.Now(), older)
		removed = cachedPeers(gone)
		return err
	})
	return removed, err
}

// Remove removes one peer, and reports whether it was there.
func (c *Cache) Remove(peer PeerID) (removed bool, err error) {
	err = c.change(func(b *bootstrap.Cache) error {
		removed, err = b.Remove(peer)
		return err
	})
	return removed, err
}

// change opens the file to write to it. What only memory would know of is an error.
func (c *Cache) change(do func(*bootstrap.Cache) error) error {
	r, err := inspectCache(c.path)
	if err != nil {
		return err
	}
	b, err := bootstrap.Open(c.path, bootstrap.Options{Peers: r.Slots})
	if b == nil {
		return cacheError(err)
	}
	if err == nil || isWarning(err) && !b.InMemory() {
		err = do(b)
	}
	if b.InMemory() && isWarning(err) {
		err = errors.Join(b.Close(), fmt.Errorf("%s cannot be changed: %w", c.path, errors.Unwrap(err)))
		return cacheError(err)
	}
	if isWarning(err) {
		err = nil
	}
	if err = errors.Join(err, b.Close()); err != nil {
		return cacheError(err)
	}
	return nil
}

func isWarning(err error) bool {
	var w *bootstrap.Warning
	return errors.As(err, &w)
}

func cachedPeers(entries []bootstrap.Entry) []CachedPeer {
	list := make([]CachedPeer, 0, len(entries))
	for _, e := range entries {
		p := CachedPeer{Peer: e.Peer, Role: Role(e.Role), Reached: e.Success, Failed: e.Failure, Failures: e.Failures}
		for _, k := range e.Endpoints {
			p.Endpoints = append(p.Endpoints, CachedEndpoint(k))
		}
		list = append(list, p)
	}
	return list
}
