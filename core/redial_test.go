package crust

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/session"
)

// TestRedialWindow: who knows that the fault is its own hurries, who was dialled lets
// the other side go first, and whoever cannot tell waits for a part of what a dial takes;
// later for parts of spans that double, from more when nothing listens.
func TestRedialWindow(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name        string
		loss        loss
		try         int
		least, most time.Duration
	}{
		{"nothing is known", loss{}, 0, 0, 300 * ms},
		{"a near peer", loss{trip: 10 * ms}, 0, 0, 300 * ms},
		{"a far peer", loss{trip: 200 * ms}, 0, 0, 800 * ms},
		{"a peer on the moon", loss{trip: 2600 * ms}, 0, 0, 1000 * ms},
		{"it dials", loss{dialled: true}, 0, 600 * ms, 900 * ms},
		{"it dials from afar", loss{dialled: true, trip: 100 * ms}, 0, 800 * ms, 1200 * ms},
		{"ours", loss{ours: true, trip: 200 * ms}, 0, 0, 50 * ms},
		{"ours, though it dials", loss{ours: true, dialled: true}, 0, 0, 50 * ms},
		{"second try", loss{}, 1, 0, 600 * ms},
		{"second try, ours", loss{ours: true}, 1, 0, 600 * ms},
		{"second try, it dials", loss{dialled: true, trip: 200 * ms}, 1, 0, 600 * ms},
		{"third", loss{}, 2, 0, 1200 * ms},
		{"fourth", loss{}, 3, 0, 2400 * ms},
		{"fifth", loss{}, 4, 0, 4800 * ms},
		{"sixth", loss{}, 5, 0, 5000 * ms},
		{"last", loss{}, math.MaxInt, 0, 5000 * ms},
		{"nothing listens", loss{refused: true}, 1, 0, 2000 * ms},
		{"nothing listens, though it dials", loss{refused: true, dialled: true}, 2, 0, 4000 * ms},
		{"nothing listens, fourth", loss{refused: true}, 3, 0, 8000 * ms},
		{"nothing listens, last", loss{refused: true}, math.MaxInt, 0, 8000 * ms},
	} {
		least, most := c.loss.window(c.try)
		if least != c.least || most != c.most {
			t.Errorf("%s: from %v to %v, want %v to %v", c.name, least, most, c.least, c.most)
		}
		low, high := most, time.Duration(0)
		for range 200 { // a tenth at either end is missed once in 10^9
			pause := c.loss.pause(c.try)
			low, high = min(low, pause), max(high, pause)
		}
		if tenth := (most - least) / 10; low < least || high >= most || low > least+tenth || high < most-tenth {
			t.Errorf("%s: 200 pauses from %v to %v, of %v to %v", c.name, low, high, least, most)
		}
	}
}

// TestWhoseFault: a link is lost by our fault when our own kernel or network has ended it, and
// not by what is heard from the peer or the way to it.
func TestWhoseFault(t *testing.T) {
	for cause, ours := range map[error]bool{
		errAddressGone: true, syscall.ECONNABORTED: true, syscall.ENETDOWN: true, syscall.ENETUNREACH: true, syscall.EADDRNOTAVAIL: true,
		syscall.ECONNRESET: false, syscall.EPIPE: false, syscall.EHOSTUNREACH: false, syscall.ETIMEDOUT: false, session.ErrSilent: false, session.ErrElsewhere: false,
	} {
		if why := fmt.Errorf("%w: %w", session.ErrBroken, cause); isOurs(why) != ours {
			t.Errorf("%v: ours %v, want %v", why, isOurs(why), ours)
		}
	}
	if isOurs(nil) {
		t.Error("no cause is ours")
	}
	gone := &Error{Op: "connect", Code: CodeRefused, Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {errNobody, false}, {errDuplicate, false}, {CodeTimeout, false}, {gone, true},
		{&Error{Op: "connect", Code: CodeHandshake, Err: &dial.RaceError{Errs: []error{errors.New("no handshake"), gone}}}, true},
		{&Error{Op: "connect", Code: CodeTimeout, Err: &dial.RaceError{Errs: []error{CodeTimeout, syscall.EHOSTUNREACH}}}, false},
	} {
		if got := isRefused(c.err); got != c.want {
			t.Errorf("%v: refused %v", c.err, got)
		}
	}
}
