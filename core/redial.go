package crust

import (
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
)

// When to dial a peer whose session has lost its link. One who is alone with a broken
// link wants it back at once, and a hundred who have lost the same hub must not come to
// it in the same moment; from its own link alone a peer cannot tell which it is. So
// whoever cannot tell waits for a random part of a span, and who knows better does not:
//
//	                         first try          try n after that
//	the fault is ours        0 to 50 ms         0 to min(300 ms * 2^n, 5 s)
//	we had dialled           0 to W             the same
//	the peer had dialled     2 W to 3 W         the same
//	nothing listens there    -                  0 to min(1 s * 2^n, 8 s)
//
// W is 300 ms, or four round trips if that is longer, at most 1 s: about as long as the
// dial and the handshake take that follow, so that the pause seldom doubles the silence.
//
// The fault is ours when this machine's network has changed, or its own kernel has
// ended the connection. That several sessions have broken together does not show it:
// peers that share two hubs in one rack lose both at once.
//
// Each pause is drawn from all of its span ("full jitter": M. Brooker, Exponential Backoff
// And Jitter, AWS Architecture Blog, 2015), which spreads those who begin together the
// widest. Of n peers that lose a hub in the same moment, n/3 dial in any 100 ms of the first 300,
// on average, and never again as many; when nothing listens there, all have
// dialled 1.5 times after a second, and once in 4 s in the end.

// Implementation constants of redials.
const (
	redialOurs   = 50 * time.Millisecond // both sides may find out together, and one link is enough
	redialSpan   = 300 * time.Millisecond
	redialTrips  = 4
	redialWidest = time.Second
	redialMost   = 5 * time.Second
	retryFirst   = 200 * time.Millisecond // of redialPause
	// redialGone and redialGoneMost are for one whose machine answers that nothing listens:
	// its program is being started again, or will not be.
	redialGone     = time.Second
	redialGoneMost = 8 * time.Second
	// changeFresh is how long after a change of this machine's network a link that is lost
	// is taken to be lost by that: it has to prove itself within a second or four round trips.
	changeFresh = 5 * time.Second
)

// loss is what is known about the loss of a link.
type loss struct {
	ours    bool          // something here has broken it
	dialled bool          // by the peer, which will do so again
	refused bool          // at the last try nothing listened there
	trip    time.Duration // the last round trip over it; 0: not known
}

// window returns between which pauses one is drawn before a try, the first of which is
// number 0.
func (l loss) window(try int) (least, most time.Duration) {
	span := min(max(redialSpan, redialTrips*l.trip), redialWidest)
	switch {
	case try > 0 && l.refused:
		return 0, min(redialGone<<min(try, 16), redialGoneMost)
	case try > 0:
		return 0, min(redialSpan<<min(try, 16), redialMost)
	case l.ours:
		return 0, redialOurs
	case l.dialled:
		return 2 * span, 3 * span
	}
	return 0, span
}

// pause draws how long to wait before a try.
func (l loss) pause(try int) time.Duration {
	least, most := l.window(try)
	return least + rand.N(most-least)
}

// isOurs reports whether a link was lost for a cause in this machine. What its kernel
// tells of the peer, or of the way there, is no such.
func isOurs(why error) bool {
	for _, cause := range []error{errAddressGone, syscall.ECONNABORTED, syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL} {
		if errors.Is(why, cause) {
			return true
		}
	}
	return false
}

// isRefused reports whether a try failed since nothing listens at one of the peer's
// endpoints, whatever became of the others.
func isRefused(err error) bool {
	var race *dial.RaceError
	if errors.As(err, &race) {
		return slices.ContainsFunc(race.Errs, func(err error) bool { return CodeOf(err) == CodeRefused })
	}
	return CodeOf(err) == CodeRefused
}

// redialPause draws how long to wait between tries that are not of a session's own
// dials, doubled each time from 200 ms to 5 s: of half at least.
func redialPause(tries int) time.Duration {
	if tries == 0 {
		return rand.N(redialOurs)
	}
	most := min(retryFirst<<min(tries-1, 16), redialMost)
	return most/2 + rand.N(most/2)
}
