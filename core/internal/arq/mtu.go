package arq

import "time"

const (
	// mtuTries is how many probes of one size must be lost (MAX_PROBES of
	// RFC 8899, 5.1.2).
	mtuTries = 3
	// mtuStep is the gain in bytes that is not worth another probe.
	mtuStep = 16
	// blackRounds is how many round trips must pass in which large datagrams
	// only are lost before the path is thought to drop them all.
	blackRounds = 3
	// raiseAfter is how long a size below the greatest is believed
	// (PMTU_RAISE_TIMER of RFC 8899, 5.1.1).
	raiseAfter = 10 * time.Minute
)

// search finds how large datagrams may be, in bytes of plaintext (RFC 8899):
//
//	probe max ──arrives──▶ done
//	   │ lost mtuTries times
//	   ▼
//	bisect between base and max ──less than mtuStep left──▶ done
//
// When large datagrams stop arriving, it falls to base and bisects again. A
// search that ended below max begins again after raiseAfter.
// Probes follow acknowledgements: a path that is idle is not probed.
type search struct {
	base, now int
	max       int
	high      int // no larger size is worth a probe
	first     bool
	probe     int    // size of the probe to be sent or in flight; zero: none
	number    uint64 // of the probe in flight
	flying    bool
	tries     int
	fed       bool          // something arrived since the last probe
	rest      time.Duration // when to search again; zero: not known yet

	rounds int           // round trips in which large ones were lost only
	round  time.Duration // when the last of these began
}

func (s *search) init(base, high int) {
	*s = search{base: base, now: base, max: high, high: high, first: true}
	s.choose()
}

// choose sets the size of the next probe.
func (s *search) choose() {
	s.tries = 0
	switch {
	case s.high-s.now < mtuStep && !(s.first && s.high > s.now):
		s.probe = 0
	case s.first:
		s.probe = s.high
	default:
		s.probe = s.now + (s.high-s.now+1)/2
	}
}

// due returns the size of the probe to be sent now. measured says that there is
// a round trip.
func (s *search) due(measured bool) (size int, ok bool) {
	return s.probe, s.probe > 0 && !s.flying && s.fed && measured
}

// sent notes that the probe went out.
func (s *search) sent(number uint64) {
	s.number, s.flying, s.fed = number, true, false
}

// arrived notes that a datagram arrived.
func (s *search) arrived(now time.Duration, r *record) {
	s.fed = true
	if s.probe == 0 && s.now < s.max {
		if s.rest == 0 {
			s.rest = now + raiseAfter
		} else if now >= s.rest {
			s.high, s.first, s.rest = s.max, true, 0
			s.choose()
		}
	}
	if r.size > s.base && !r.probe {
		s.rounds = 0
	}
	if r.probe && s.flying && r.number == s.number {
		s.flying, s.now, s.rounds = false, max(s.now, r.size), 0
		s.first = false
		s.choose()
	}
}

// failed notes that a probe was lost.
func (s *search) failed(r *record) {
	if !s.flying || r.number != s.number {
		return
	}
	s.flying = false
	if s.tries++; s.tries == mtuTries {
		s.high, s.first = s.probe-1, false
		s.choose()
	}
}

// lost notes that a datagram was lost: if all large ones are for some round
// trips, the path does not take them any more.
func (s *search) lost(now time.Duration, r *record, srtt time.Duration) {
	if r.size <= s.base || s.rounds > 0 && now-s.round < srtt {
		return
	}
	s.round = now
	if s.rounds++; s.rounds == blackRounds {
		s.fall()
	}
}

// fall goes back to the size that every path takes, and searches again below
// the size that failed.
func (s *search) fall() {
	high := max(s.base, s.now-1)
	s.init(s.base, s.max)
	s.high, s.first = high, false
	s.choose()
}
