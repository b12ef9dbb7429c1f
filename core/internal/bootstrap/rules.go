package bootstrap

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// Implementation constants: what is kept, see the package's comment.
const (
	// DefaultPeers is what Options.Peers of 0 means: the ancestor's 200.
	DefaultPeers = 200
	// DefaultRetestAfter is what Options.RetestAfter of 0 means.
	DefaultRetestAfter = 24 * time.Hour
	// failing is from how many failures in a row on an entry is the first to go.
	failing = 3
	// MaxFailures is how many failures in a row remove a peer.
	MaxFailures = 10
	// firstPause and lastPause bound the time between two failures that count.
	firstPause = 15 * time.Minute
	lastPause  = 24 * time.Hour
	// clockSlack is how far in the future a time may be before it is taken for that
	// of a wrong clock, and for long past.
	clockSlack = time.Hour
)

// Contact is a peer that was reached.
type Contact struct {
	Peer identity.PeerID
	// At is where it was reached.
	At endpoint.Endpoint
	// Told are the endpoints that the peer has told, most useful first. nil means
	// that it has told none; those known from before stay, as far as there is room.
	Told []endpoint.Endpoint
	// Role and Flags are the caller's.
	Role, Flags uint8
	// Record is the peer's signed contact record, up to MaxRecord bytes. nil means
	// that the one known from before stays.
	Record []byte
}

// check says what is wrong with a contact.
func (c *Contact) check() error {
	switch {
	case c.Peer.IsZero():
		return errors.New("bootstrap cache: a contact needs a peer id")
	case !storable(c.At):
		return fmt.Errorf("bootstrap cache: the endpoint %q cannot be kept", c.At)
	case len(c.Record) > MaxRecord:
		return fmt.Errorf("bootstrap cache: a contact record of %d bytes is over %d", len(c.Record), MaxRecord)
	}
	return nil
}

// succeed returns the entry of a contact: known is what there was before, nil for
// nothing.
func succeed(known *Entry, c *Contact, now time.Time) Entry {
	e := Entry{Peer: c.Peer, Role: c.Role, Flags: c.Flags, Success: now, Record: bytes.Clone(c.Record)}
	if known != nil {
		e.Endpoints = known.Endpoints
		if c.Record == nil {
			e.Record = known.Record
		}
	}
	e.Endpoints = merge(e.Endpoints, c.At, c.Told, now)
	return e
}

// fail counts one more failure, if it does count, and reports whether it does.
func (e *Entry) fail(now time.Time, reached uint64) bool {
	if e.Failures > 0 && (reached <= e.failed || !past(now, e.Failure, pause(e.Failures))) {
		return false
	}
	e.Failures++
	e.Failure, e.failed = now, 0
	return true
}

// pause returns how long after a number of failures the next one counts.
func pause(failures int) time.Duration {
	p := firstPause
	for range failures - 1 {
		if p *= 2; p >= lastPause {
			return lastPause
		}
	}
	return p
}

// past reports whether a time is at least some time ago, by a clock that may have
// been wrong then.
func past(now, then time.Time, ago time.Duration) bool {
	return !now.Before(then.Add(ago)) || then.After(now.Add(clockSlack))
}

// due reports whether a peer should be tested.
func (e *Entry) due(now time.Time, after time.Duration) bool {
	return past(now, e.Success, after) && (e.Failures == 0 || past(now, e.Failure, pause(e.Failures)))
}

// tried returns when a peer was tried the last time.
func (e *Entry) tried() time.Time {
	if e.Failure.After(e.Success) {
		return e.Failure
	}
	return e.Success
}

// merge returns the endpoints of a peer that was reached: there, then what it has
// told, then what was known before, the last that worked first. The rest is left out.
func merge(known []Known, at endpoint.Endpoint, told []endpoint.Endpoint, now time.Time) []Known {
	worked := make(map[endpoint.Endpoint]time.Time, len(known))
	for _, k := range known {
		worked[k.Endpoint] = k.Worked
	}
	worked[at] = time.UnixMilli(int64(millis(now)))
	list := make([]Known, 0, MaxEndpoints)
	add := func(e endpoint.Endpoint) {
		same := func(k Known) bool { return k.Endpoint == e }
		if len(list) < MaxEndpoints && storable(e) && !slices.ContainsFunc(list, same) {
			list = append(list, Known{e, worked[e]})
		}
	}
	add(at)
	for _, e := range told {
		add(e)
	}
	rest := slices.Clone(known)
	slices.SortStableFunc(rest, func(a, b Known) int { return -cmp.Compare(millis(a.Worked), millis(b.Worked)) })
	for _, k := range rest {
		add(k.Endpoint)
	}
	return list
}

// storable reports whether an endpoint has a place in the file. An address with a
// zone means nothing after the next start.
func storable(e endpoint.Endpoint) bool {
	return e.Transport.Known() && e.Addr.IsValid() && e.Addr.Addr().Zone() == "" && e.Addr.Port() != 0
}

// worth orders entries by which is to go first when there is no room.
func worth(a, b *Entry) int {
	if fa, fb := a.Failures >= failing, b.Failures >= failing; fa != fb {
		if fa {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.order, b.order), a.Peer.Compare(b.Peer))
}
