package crust

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/bootstrap"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// book is the service's bootstrap cache: whom it reached directly.
type book struct {
	// constant after New
	cache *bootstrap.Cache // nil: none was asked for
	notes chan note        // nil when there is no cache

	mu   sync.Mutex
	told error // guarded by mu: the last trouble that the program was told of
}

// note is what is to be written down: a peer that was reached or, without an
// endpoint, one that could not be.
type note struct {
	contact bootstrap.Contact
	at      time.Time
}

// Implementation constants of the book.
const (
	// maxNotes bounds what waits to be written. What comes when they are full is not
	// written down.
	maxNotes = 1024
	// maxCached bounds the endpoints of the cache that one bootstrap tries.
	maxCached = 256
	// firstRetest and retestEvery are when peers are tested that were not reached for
	// long, retestPeers at most how many at a time, and retestEndpoints at how many
	// endpoints each.
	firstRetest     = time.Minute
	retestEvery     = 15 * time.Minute
	retestPeers     = 8
	retestEndpoints = 3
)

// checkCache checks what check has not, of the cache.
func (c *Config) checkCache() error {
	var err error
	if c.CachePeers < 0 || c.CachePeers > bootstrap.MaxPeers {
		err = fmt.Errorf("CachePeers is %d, want 0 to %d", c.CachePeers, bootstrap.MaxPeers)
	} else if c.Cache == DefaultCache {
		if _, err = DefaultCachePath(); err != nil {
			err = fmt.Errorf("Cache is %q, and there is none: %w", c.Cache, errors.Unwrap(err))
		}
	}
	if err != nil {
		return &Error{Op: "new", Code: CodeInvalid, Err: err}
	}
	return nil
}

// openBook opens the cache of the configuration, and begins to keep it.
func (s *Service) openBook() {
	path := s.cfg.Cache
	if path == "" {
		return
	}
	var err error
	if path == DefaultCache {
		if path, err = DefaultCachePath(); err == nil { // check has found it
			err = os.MkdirAll(filepath.Dir(path), 0o700)
		}
		if err != nil {
			s.log.Warn("cannot make the directory of the bootstrap cache", "error", err)
		}
	}
	cache, err := bootstrap.Open(path, bootstrap.Options{Peers: s.cfg.CachePeers})
	s.bookTrouble(err)
	if cache == nil {
		return
	}
	s.book.cache, s.book.notes = cache, make(chan note, maxNotes)
	s.spawn(s.keepBook)
	if s.allows(Dialed, Mapped) {
		s.spawn(s.retestBook)
	}
}

// bookTrouble tells the program what is wrong with the cache, once.
func (s *Service) bookTrouble(err error) {
	if err == nil || errors.Is(err, bootstrap.ErrClosed) {
		return
	}
	s.book.mu.Lock()
	again := s.book.told != nil && s.book.told.Error() == err.Error()
	s.book.told = err
	s.book.mu.Unlock()
	if !again {
		s.events.push(Event{Type: EventCacheTrouble, detail: &detail{err: cacheError(err)}})
	}
}

// keepBook is the goroutine that writes to the cache.
func (s *Service) keepBook() {
	for {
		select {
		case n := <-s.book.notes:
			s.jot(n)
		case <-s.ctx.Done():
			return
		}
	}
}

// closeBook writes down what is left to be, and closes the cache. Nobody notes
// anything any more.
func (s *Service) closeBook() {
	if s.book.cache == nil {
		return
	}
	for len(s.book.notes) > 0 {
		s.jot(<-s.book.notes)
	}
	s.bookTrouble(s.book.cache.Close())
}

// jot writes a note into the cache.
func (s *Service) jot(n note) {
	if !s.jots(&n.contact) {
		return
	}
	var err error
	if n.contact.At.IsZero() {
		_, err = s.book.cache.Failed(n.at, n.contact.Peer)
	} else {
		err = s.book.cache.Reached(n.at, n.contact)
	}
	s.bookTrouble(err)
}

// note writes something down soon. It never waits.
func (s *Service) note(contact bootstrap.Contact) {
	if s.book.cache == nil {
		return
	}
	select {
	case s.book.notes <- note{contact, time.Now()}:
	default:
		s.log.Warn("the bootstrap cache is too slow; a peer is not written down", "peer", contact.Peer.Short())
	}
}

// noteReached writes down that a link was dialled, when that shows that whoever
// dials its peer there reaches it. It does not when the peer may have opened its NAT
// for us.
func (s *Service) noteReached(link *secure.Link, a *adoption) {
	met := a.attempt != nil && a.attempt.meets || a.resume != nil && a.endpoint.Transport != endpoint.TCP
	if s.book.cache == nil || a.how != Dialed || a.within == nil || met || link.InClear() {
		return
	}
	c := contactOf(link, a.endpoint)
	if a.attempt != nil {
		c.Told = a.attempt.endpoints
	}
	s.note(c)
}

func contactOf(link *secure.Link, at Endpoint) bootstrap.Contact {
	return bootstrap.Contact{Peer: link.Remote.Peer, At: at, Role: link.Remote.Role, Flags: link.Remote.Flags & 1}
}

// cached returns the contacts of the cache: where each peer was reached the last
// time, most recent first, and then where else each may be.
func (s *Service) cached() (list []Contact) {
	if s.book.cache == nil {
		return nil
	}
	entries, err := s.book.cache.List()
	s.bookTrouble(err)
	for n := 0; n < bootstrap.MaxEndpoints && len(list) < maxCached; n++ {
		for _, e := range entries {
			if n < len(e.Endpoints) && e.Peer != s.ID() && checkDialable(e.Endpoints[n].Endpoint) == nil {
				list = append(list, Contact{e.Endpoints[n].Endpoint, e.Peer})
			}
		}
	}
	return list[:min(len(list), maxCached)]
}

// outcomes is who could be reached in a bootstrap, and who could not.
type outcomes struct {
	mu             sync.Mutex
	reached, tried map[PeerID]bool
	open           map[PeerID]int // tries that have no end yet, or were given up
}

func newOutcomes(expected map[Endpoint][]PeerID) *outcomes {
	o := &outcomes{reached: map[PeerID]bool{}, tried: map[PeerID]bool{}, open: map[PeerID]int{}}
	for _, ids := range expected {
		for _, id := range ids {
			o.open[id]++
		}
	}
	return o
}

// failed notes the end of a try with the peers that were expected there.
func (o *outcomes) failed(ids []PeerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		o.open[id]--
		o.tried[id] = true
	}
}

// succeeded notes who was there.
func (o *outcomes) succeeded(id PeerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reached[id] = true
}

// noteFailures writes down which peers were tried everywhere in vain.
func (s *Service) noteFailures(o *outcomes) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.tried {
		if !id.IsZero() && !o.reached[id] && o.open[id] <= 0 {
			s.note(bootstrap.Contact{Peer: id})
		}
	}
}

// retestBook is the goroutine that tests peers of the cache which were not reached
// for long.
func (s *Service) retestBook() {
	timer := time.NewTimer(firstRetest)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		due, err := s.book.cache.Due(time.Now(), bootstrap.MaxPeers)
		s.bookTrouble(err)
		due = slices.DeleteFunc(due, func(e bootstrap.Entry) bool { return e.Peer == s.ID() })
		tested := 0
		for _, e := range due {
			if tested == retestPeers || s.ctx.Err() != nil {
				break
			}
			if s.retest(e) {
				tested++
			}
		}
		timer.Reset(retestEvery)
	}
}

// retest finds out whether a peer can still be reached, without becoming its peer:
// it proves who it is, and does not learn who asked. It reports whether anything was
// sent: a peer with a session is not tested.
func (s *Service) retest(e bootstrap.Entry) bool {
	if p := s.find(e.Peer); p != nil {
		if at, how := s.whereabouts(p); how == Dialed || how == Mapped {
			s.note(bootstrap.Contact{Peer: e.Peer, At: at, Role: e.Role, Flags: e.Flags})
		}
		return false
	}
	barred := true
	for _, k := range e.Endpoints[:min(len(e.Endpoints), retestEndpoints)] {
		if s.barred(Contact{k.Endpoint, e.Peer}) {
			continue
		}
		barred = false
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.HandshakeTimeout)
		link, err := s.try(ctx, k.Endpoint, e.Peer)
		cancel()
		if err == nil {
			s.note(contactOf(link, k.Endpoint))
			link.Conn.Close() //nolint:errcheck // it carries nothing
			return true
		}
	}
	if s.ctx.Err() == nil && !barred {
		s.note(bootstrap.Contact{Peer: e.Peer})
	}
	return !barred
}
