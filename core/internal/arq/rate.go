package arq

import (
	"math"
	"time"
)

// mode is where the congestion control is:
//
//	startup ──rate stops growing, or too much is lost──▶ drain
//	drain ──queue gone──▶ cruise
//	cruise ──no lower round trip for minRTTWindow──▶ look ──▶ cruise
type mode uint8

const (
	startup mode = iota // double the rate each round trip
	drain               // let the queue of startup run empty
	cruise              // eight phases: probe for more, drain what that queued, go on
	look                // little in flight, to see the round trip without queues
)

const (
	startupGain = 2.77
	windowGain  = 2.0
	pacingShare = 0.99 // of the estimate: queues shall drain
	growth      = 1.25 // what a round trip must bring in startup
	flatRounds  = 3    // round trips without it end startup
	bestSlots   = 10   // round trips that the estimate of the rate remembers
	slotTime    = 5 * time.Millisecond
	// initialDatagrams is the first window, in datagrams.
	initialDatagrams = 32
	minDatagrams     = 4
	// minRTTWindow is how long the least round trip is believed.
	minRTTWindow = 10 * time.Second
	// lookTime is how long the window stays low to measure it; lookTimeNear for
	// round trips below nearRTT.
	lookTime     = 200 * time.Millisecond
	lookTimeNear = 10 * time.Millisecond
	nearRTT      = 10 * time.Millisecond
	minPhase     = time.Millisecond
	// tooMuchLoss is the share of a round trip's bytes above which loss means
	// congestion; below, it is the path's own.
	tooMuchLoss = 0.15
	littleLoss  = 0.05
	// lossDoubt is by how many standard deviations a round trip's loss must be
	// above tooMuchLoss: short ones prove little.
	lossDoubt = 1.5
	lossCut   = 0.85
	// extraTime bounds the window's allowance for acknowledgements that come
	// in lumps.
	extraTime = 10 * time.Millisecond
	noCap     = math.MaxInt / 2
)

var phaseGain = [8]float64{1.25, 0.75, 1, 1, 1, 1, 1, 1}

// sample is what one acknowledgement tells.
type sample struct {
	acked     int // bytes
	lost      int
	inflight  int // before
	left      int // after
	rtt       time.Duration
	delivered uint64 // rate.delivered when the latest datagram acknowledged went out
	since     time.Duration
	spread    time.Duration // between sending it and the one before the flight
	starved   bool
	any       bool
}

// rate is the congestion control: it models the path by the rate of its
// bottleneck and its round trip without queues, as BBR does, and keeps about two
// such products in flight. Loss alone does not slow it, up to tooMuchLoss: above
// that a cap on the window comes down, which is how shallow queues and small
// receive buffers show.
type rate struct {
	mtu  int
	seed uint64

	// counters
	delivered   uint64 // bytes
	deliveredAt time.Duration
	firstAt     time.Duration // when the datagrams of the current flight began to go
	starved     uint64        // until delivered reaches it, samples are of the program's rate

	mode    mode
	pacing  float64 // bytes a second
	window  int     // bytes
	minRTT  time.Duration
	minAt   time.Duration
	round   uint64 // delivered at which the round trip ends
	rounds  uint64
	best    float64 // bottleneck, bytes a second
	slots   [bestSlots]float64
	slot    int
	slotAt  time.Duration
	slotIn  uint64  // rounds when the slot began
	full    bool    // the rate has been found
	timed   bool    // there was a round trip
	peak    float64 // best in startup, when it last grew
	flat    int
	phase   int
	phaseAt time.Duration
	lookEnd time.Duration // zero until little is in flight
	seen    time.Duration // least round trip since then

	cap                 int // bound on window because of loss
	roundLost, roundGot int
	roundFlight         int
	limited             bool // the window was full in this round
	extra               [2]float64
	extraRound          uint64
	lump                float64 // bytes that came since lumpAt
	lumpAt              time.Duration
}

func (r *rate) init(mtu int, rtt, now time.Duration, seed uint64) {
	delivered := r.delivered
	*r = rate{mtu: mtu, seed: seed | 1, delivered: delivered, deliveredAt: now, firstAt: now, slotAt: now, phaseAt: now, minAt: now}
	r.round = delivered
	r.minRTT = never
	r.cap = noCap
	r.window = r.initialWindow()
	r.pacing = startupGain * float64(r.window) / max(rtt, time.Millisecond).Seconds()
}

func (r *rate) initialWindow() int { return initialDatagrams * r.mtu }

// random returns a number that looks random.
func (r *rate) random() uint64 {
	r.seed ^= r.seed << 13
	r.seed ^= r.seed >> 7
	r.seed ^= r.seed << 17
	return r.seed
}

// product returns gain times what the path holds without queues, in bytes.
func (r *rate) product(gain float64) int {
	if r.minRTT == never || r.best == 0 {
		return r.initialWindow()
	}
	return int(gain * r.best * r.minRTT.Seconds())
}

// starve notes that there is nothing to send while inflight bytes are.
func (r *rate) starve(inflight int) { r.starved = max(r.delivered+uint64(inflight), 1) }

// sending notes that a datagram goes out.
func (r *rate) sending(now time.Duration, inflight int) {
	if inflight == 0 {
		r.firstAt, r.deliveredAt = now, now
	}
	r.limited = r.limited || inflight+2*r.mtu >= r.window
	r.roundFlight = max(r.roundFlight, inflight)
}

// arrived takes a datagram that is acknowledged into a sample
// (draft-cheng-iccrg-delivery-rate-estimation).
func (r *rate) arrived(now time.Duration, d *record, s *sample) {
	r.delivered += uint64(d.size)
	r.deliveredAt = now
	s.acked += d.size
	if !s.any || d.delivered >= s.delivered {
		s.any = true
		s.delivered, s.since, s.spread, s.starved = d.delivered, d.deliveredAt, d.at-d.firstAt, d.starved
		r.firstAt = d.at
	}
}

func (r *rate) lostBytes(n int) { r.roundLost += n }

func (r *rate) unlost(n int) { r.roundLost = max(r.roundLost-n, 0) }

// update takes the sample of an acknowledgement.
func (r *rate) update(now time.Duration, s *sample, mtu int) {
	r.mtu = mtu
	if r.starved > 0 && r.delivered > r.starved {
		r.starved = 0
	}
	r.roundGot += s.acked
	turn := s.delivered >= r.round
	if turn {
		r.round = r.delivered
		r.rounds++
	}
	r.lumps(now, s.acked)
	r.estimate(now, s)
	if turn {
		r.judgeStartup(s)
		r.judgeLoss()
	}
	if r.mode == drain && s.left <= r.product(1) {
		r.enterCruise(now)
	}
	r.advance(now, s)
	r.measure(now, s)
	r.set(s)
}

// estimate takes the sample into the estimate of the bottleneck's rate: the
// greatest of some round trips.
func (r *rate) estimate(now time.Duration, s *sample) {
	interval := max(s.spread, now-s.since)
	if interval <= 0 || r.minRTT != never && interval < r.minRTT {
		return
	}
	bw := float64(r.delivered-s.delivered) / interval.Seconds()
	if s.starved && bw < r.best {
		return
	}
	if old := now - r.slotAt; old >= slotTime && (r.rounds > r.slotIn || r.minRTT != never && old >= 2*r.minRTT) {
		r.slot = (r.slot + 1) % bestSlots
		r.slots[r.slot], r.slotIn, r.slotAt = 0, r.rounds, now
	}
	r.slots[r.slot] = max(r.slots[r.slot], bw)
	r.best = 0
	for _, b := range r.slots {
		r.best = max(r.best, b)
	}
}

// judgeLoss moves the cap at the end of a round trip.
func (r *rate) judgeLoss() {
	lost := float64(r.roundLost) / float64(r.mtu)
	all := lost + float64(r.roundGot)/float64(r.mtu)
	doubt := lossDoubt * math.Sqrt(all*tooMuchLoss*(1-tooMuchLoss))
	switch share := lost / max(all, 1); {
	case lost > tooMuchLoss*all+doubt && lost >= 8:
		floor := max(minDatagrams*r.mtu, r.product(0.5))
		r.cap = max(int(lossCut*float64(min(r.window, r.cap, max(r.roundFlight, floor)))), floor)
		if r.mode == startup && r.flat > 0 {
			r.full = true
			r.mode = drain
		}
	case share < littleLoss && r.cap < noCap && r.limited:
		if r.cap += max(r.cap/16, r.mtu); r.cap > 8*r.product(windowGain) {
			r.cap = noCap
		}
	}
	r.roundLost, r.roundGot, r.roundFlight, r.limited = 0, 0, 0, false
}

// judgeStartup ends startup when the rate has stopped growing.
func (r *rate) judgeStartup(s *sample) {
	if r.full || s.starved {
		return
	}
	if r.best >= growth*r.peak {
		r.peak, r.flat = r.best, 0
		return
	}
	if r.flat++; r.flat >= flatRounds {
		r.full, r.mode = true, drain
	}
}

func (r *rate) enterCruise(now time.Duration) {
	r.mode, r.phaseAt = cruise, now
	r.phase = 2 + int(r.random()%6) // flows that begin together do not probe together
}

// advance goes through the phases of cruise.
func (r *rate) advance(now time.Duration, s *sample) {
	if r.mode != cruise {
		return
	}
	over := now-r.phaseAt > max(min(r.minRTT, time.Second), minPhase)
	switch gain := phaseGain[r.phase]; {
	case gain > 1:
		over = over && (s.lost > 0 || s.inflight >= r.product(gain))
	case gain < 1:
		over = over || s.left <= r.product(1)
	}
	if over {
		r.phase = (r.phase + 1) % len(phaseGain)
		r.phaseAt = now
	}
}

// measure keeps the least round trip, and looks for it anew when the last is old.
func (r *rate) measure(now time.Duration, s *sample) {
	old := now-r.minAt > minRTTWindow
	if s.rtt > 0 && (s.rtt <= r.minRTT || old && !r.full) {
		r.minRTT, r.minAt = s.rtt, now
	}
	if old && r.mode != look && r.full {
		r.mode, r.lookEnd, r.seen = look, 0, never
		r.minAt = now
	}
	if r.mode != look {
		return
	}
	if r.starved == 0 {
		r.starved = max(r.delivered+uint64(s.left), 1) // its rate means nothing
	}
	if s.rtt > 0 && r.lookEnd > 0 {
		r.seen = min(r.seen, s.rtt)
	}
	if r.lookEnd == 0 {
		if s.left <= r.lookWindow() {
			r.lookEnd = now + max(r.minRTT, lookTimeNear)
			if r.minRTT > nearRTT {
				r.lookEnd = now + max(r.minRTT, lookTime)
			}
		}
	} else if now >= r.lookEnd && r.seen != never {
		r.minRTT, r.minAt = r.seen, now
		r.enterCruise(now)
	}
}

func (r *rate) lookWindow() int { return max(r.product(0.5), minDatagrams*r.mtu) }

// lumps measures how much more than the rate explains arrives at once.
func (r *rate) lumps(now time.Duration, acked int) {
	if r.best == 0 {
		return
	}
	if r.rounds >= r.extraRound+5 {
		r.extra[1], r.extra[0], r.extraRound = r.extra[0], 0, r.rounds
	}
	expected := r.best * (now - r.lumpAt).Seconds()
	if r.lump <= expected {
		r.lump, r.lumpAt, expected = 0, now, 0
	}
	r.lump = min(r.lump+float64(acked), float64(max(r.window, acked)))
	r.extra[0] = max(r.extra[0], min(r.lump-expected, r.best*extraTime.Seconds()))
}

// set computes the window and the pacing rate.
func (r *rate) set(s *sample) {
	gain := 1.0
	switch r.mode {
	case startup:
		gain = startupGain
	case drain:
		gain = 1 / startupGain
	case cruise:
		gain = phaseGain[r.phase]
	}
	if s.rtt > 0 && !r.timed { // what was paced for an unknown round trip
		r.timed = true
		r.pacing = startupGain * float64(r.window) / max(s.rtt, time.Millisecond/4).Seconds()
	}
	if p := gain * r.best * pacingShare; r.full || p > r.pacing {
		r.pacing = p
	}
	r.pacing = max(r.pacing, float64(r.mtu)) // a datagram a second
	burst := int(min(max(r.pacing*burstTime.Seconds(), float64(2*r.mtu)), maxBurst))
	target := r.product(windowGain) + 3*burst + int(max(r.extra[0], r.extra[1]))
	switch {
	case r.full:
		r.window = min(r.window+s.acked, target)
	case r.window < target || r.delivered < uint64(r.initialWindow()):
		r.window += s.acked
	}
	r.window = max(min(r.window, r.cap), minDatagrams*r.mtu)
	if r.mode == look {
		r.window = min(r.window, r.lookWindow())
	}
}
