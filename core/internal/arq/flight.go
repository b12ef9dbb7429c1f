package arq

import (
	"errors"
	"math"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// never is after all times.
const never = time.Duration(math.MaxInt64)

const (
	// unknownRTT is the round trip assumed before there is one; RFC 9002 6.2.2
	// says 333 ms, which a handshake that just took place makes too careful.
	unknownRTT = 100 * time.Millisecond
	// granularity is the least that timers wait (RFC 9002, 6.1.2).
	granularity = time.Millisecond
	// maxProbeWait bounds the wait between probes of a dead path.
	maxProbeWait = 2 * time.Second
	// initialReorder is the packet threshold to begin with (RFC 9002, 6.1.1).
	initialReorder = 3
	maxReorder     = 4096
	// initialLate is the time threshold to begin with, in eighths of a round
	// trip above one (RFC 9002, 6.1.2); it grows to maxLate.
	initialLate = 1
	maxLate     = 8
	// calmLosses is how many losses in a row that were none of reordering bring
	// the thresholds back.
	calmLosses = 1024
	// maxRecords bounds the datagrams in flight.
	maxRecords = 1 << 17
	// keptRecords is how many are kept when all is quiet.
	keptRecords = 2048
	// maxMissing bounds the lost datagrams that are remembered, to tell
	// reordering from loss.
	maxMissing = 256
	// persistent is how many probes in a row without an answer make what is
	// known of the path worthless.
	persistent = 4
)

// record is a datagram that went out and wants an acknowledgement.
type record struct {
	number     uint64
	off        uint64 // of its part of the stream
	n          int    // bytes of it
	size       int    // of the plaintext
	at         time.Duration
	prev, next int32 // in its list; index + 1, zero is none

	// state of the rate's counters when it went
	delivered   uint64
	deliveredAt time.Duration
	firstAt     time.Duration

	starved bool // there was nothing more to send then
	probe   bool // of the MTU
	elicits bool
}

// list is a doubly linked list of records, in order of number.
type list struct {
	head, tail int32
	n          int
}

// flight is what is in flight, what was lost of it, and the timers of both.
type flight struct {
	rec     []record
	free    int32
	live    list // in flight
	missing list // declared lost, lately
	bytes   int  // of live

	largest  uint64 // highest number acknowledged
	anything bool   // there is one

	srtt, rttvar, latest time.Duration
	reorder              uint64 // packet threshold
	late                 int    // time threshold: eighths of a round trip above one
	calm                 int    // losses since thresholds were raised
	backoff              int    // probes in a row
	probes               int    // probe datagrams to be sent
	spare                bool   // rec is far too large
	initial              time.Duration

	lostCount, spurious uint64
}

func (f *flight) init(rtt time.Duration) {
	f.reorder, f.late, f.initial = initialReorder, initialLate, unknownRTT
	if rtt > 0 {
		f.initial = rtt
	}
}

// forgetRTT makes the round trip unknown.
func (f *flight) forgetRTT() {
	f.srtt, f.rttvar, f.latest, f.initial = 0, 0, 0, unknownRTT
	f.backoff = 0
}

// room reports whether another record may be made.
func (f *flight) room() bool { return f.live.n < maxRecords }

// add puts a record in flight.
func (f *flight) add(r record) {
	i := f.free
	if i != 0 {
		f.free = f.rec[i-1].next
	} else {
		f.rec = append(f.rec, record{})
		i = int32(len(f.rec))
	}
	f.rec[i-1] = r
	f.push(&f.live, i)
	f.bytes += r.size
}

func (f *flight) push(l *list, i int32) {
	r := &f.rec[i-1]
	r.prev, r.next = l.tail, 0
	if l.tail != 0 {
		f.rec[l.tail-1].next = i
	} else {
		l.head = i
	}
	l.tail = i
	l.n++
}

func (f *flight) unlink(l *list, i int32) {
	r := &f.rec[i-1]
	if r.prev != 0 {
		f.rec[r.prev-1].next = r.next
	} else {
		l.head = r.next
	}
	if r.next != 0 {
		f.rec[r.next-1].prev = r.prev
	} else {
		l.tail = r.prev
	}
	l.n--
}

// drop frees a record that is in no list.
func (f *flight) drop(i int32) {
	f.rec[i-1] = record{next: f.free}
	f.free = i
}

// measure takes a sample of the round trip (RFC 9002, 5.3).
func (f *flight) measure(rtt, delay, least time.Duration) {
	rtt = max(rtt, time.Microsecond)
	if delay = min(delay, 5*maxDelay); rtt-delay >= least {
		rtt -= delay
	}
	f.latest = rtt
	if f.srtt == 0 {
		f.srtt, f.rttvar = rtt, rtt/2
		return
	}
	f.rttvar += (max(f.srtt-rtt, rtt-f.srtt) - f.rttvar) / 4
	f.srtt += (rtt - f.srtt) / 8
}

// wait returns how long what may only be late is waited for.
func (f *flight) wait() time.Duration {
	rtt := max(f.srtt, f.latest)
	return max(rtt+rtt*time.Duration(f.late)/8, granularity)
}

// lossAt returns when the oldest datagram in flight is late, if a later one has
// arrived.
func (f *flight) lossAt() time.Duration {
	if h := f.live.head; h != 0 && f.anything && f.rec[h-1].number < f.largest {
		return f.rec[h-1].at + f.wait()
	}
	return never
}

// probeAt returns when to probe since nothing is heard (RFC 9002, 6.2).
func (f *flight) probeAt() time.Duration {
	if f.live.tail == 0 {
		return never
	}
	wait := 3 * f.initial
	if f.srtt > 0 {
		wait = f.srtt + max(4*f.rttvar, granularity)
	}
	wait += maxDelay
	return f.rec[f.live.tail-1].at + max(min(wait<<min(f.backoff, 16), maxProbeWait), wait)
}

// tick lets the timers run out that have.
func (c *Conn) tick(now time.Duration) {
	f := &c.flight
	if now >= f.lossAt() {
		c.detect(now)
	}
	if now < f.probeAt() || f.probes > 0 {
		return
	}
	f.backoff++
	f.probes = 2
	for i, n := f.live.head, 0; i != 0 && n < 2; i, n = f.rec[i-1].next, n+1 {
		c.again(&f.rec[i-1])
	}
	if f.backoff == persistent {
		c.rate.init(c.cfg.MTU, 0, now, c.rate.seed)
		c.pacer.open = false
	}
	if f.backoff >= persistent && c.mtu.now > c.mtu.base {
		c.mtu.init(c.mtu.base, c.mtu.max)
	}
}

// again queues the part of the stream in a record to be sent again.
func (c *Conn) again(r *record) {
	if r.n > 0 {
		c.acked.gaps(max(r.off, c.una), r.off+uint64(r.n), c.lost.add)
	}
}

// acknowledged takes an acknowledgement. An error says that it names datagrams
// that were never sent.
func (c *Conn) acknowledged(a *wire.Ack, now time.Duration) error {
	f := &c.flight
	if a.Ranges[0].Last >= c.next {
		return errors.New("a datagram is acknowledged that was never sent")
	}
	for _, x := range c.skipped {
		for _, r := range a.Ranges[:a.N] {
			if x != 0 && r.First < x && x-1 <= r.Last {
				return errors.New("a datagram is acknowledged that was left out")
			}
		}
	}
	c.limit = max(c.limit, a.Limit)
	if !f.anything || a.Ranges[0].Last > f.largest {
		f.largest, f.anything = a.Ranges[0].Last, true
	}
	s := sample{inflight: f.bytes}
	k := a.N - 1
	for i := f.live.head; i != 0; {
		r := &f.rec[i-1]
		this := i
		i = r.next
		for k >= 0 && a.Ranges[k].Last < r.number {
			k--
		}
		if k < 0 {
			break
		}
		if r.number < a.Ranges[k].First {
			continue
		}
		if r.number == a.Ranges[0].Last {
			f.measure(now-r.at, time.Duration(min(a.Delay, 1e9))*time.Microsecond, c.rate.minRTT)
			s.rtt = f.latest
		}
		c.rate.arrived(now, r, &s)
		c.mtu.arrived(now, r)
		c.done(r)
		f.bytes -= r.size
		f.unlink(&f.live, this)
		f.drop(this)
	}
	c.late(a, now)
	if f.spare = f.spare && f.live.n == 0; f.spare {
		f.rec, f.free, f.live, f.missing, f.spare = nil, 0, list{}, list{}, false
	}
	if s.acked > 0 {
		f.backoff = 0
	}
	s.lost = c.detect(now)
	if s.acked > 0 {
		s.left = f.bytes
		c.rate.update(now, &s, c.mtu.now)
	}
	return nil
}

// done notes that the part of the stream in a record has arrived.
func (c *Conn) done(r *record) {
	if r.n == 0 {
		return
	}
	lo, hi := max(r.off, c.una), r.off+uint64(r.n)
	if c.lost.len() > 0 {
		c.lost.remove(lo, hi)
	}
	switch {
	case lo >= hi:
		return
	case lo == c.una && c.acked.len() == 0:
		c.una = hi
	default:
		c.acked.add(lo, hi)
		if x := c.acked.first(); x.lo <= c.una {
			c.una = x.hi
			c.acked.pop()
		}
	}
	if c.una == c.end && r.at-c.outLook >= lookEvery {
		c.outLook = r.at
		shrink(&c.out, c.una, c.end, uint64(c.outPeak))
		c.outPeak = 0
		f := &c.flight
		if f.live.n <= 1 && len(f.rec) > keptRecords { // this record is the one
			f.spare = true
		}
	}
}

// late looks for acknowledgements of what was declared lost: then the path
// reorders, and the thresholds are too low.
func (c *Conn) late(a *wire.Ack, now time.Duration) {
	f := &c.flight
	k := a.N - 1
	for i := f.missing.head; i != 0; {
		r := &f.rec[i-1]
		this := i
		i = r.next
		for k >= 0 && a.Ranges[k].Last < r.number {
			k--
		}
		if k < 0 {
			break
		}
		if r.number < a.Ranges[k].First {
			continue
		}
		f.spurious++
		f.calm = 0
		f.reorder = min(max(f.reorder, f.largest-r.number+1), maxReorder)
		for f.late < maxLate && r.at+f.wait() < now {
			f.late *= 2
		}
		c.rate.unlost(r.size)
		c.done(r)
		f.unlink(&f.missing, this)
		f.drop(this)
	}
}

// detect declares lost what is late, and returns how many bytes that is
// (RFC 9002, 6.1).
func (c *Conn) detect(now time.Duration) (lost int) {
	f := &c.flight
	if !f.anything {
		return 0
	}
	wait := f.wait()
	for i := f.live.head; i != 0; i = f.live.head {
		r := &f.rec[i-1]
		if r.number >= f.largest || f.largest-r.number < f.reorder && r.at+wait > now {
			break
		}
		f.unlink(&f.live, i)
		f.bytes -= r.size
		if r.probe {
			c.mtu.failed(r)
			f.drop(i)
			continue
		}
		f.lostCount++
		lost += r.size
		c.again(r)
		c.mtu.lost(now, r, f.srtt)
		if f.calm++; f.calm == calmLosses {
			f.reorder, f.late = initialReorder, initialLate
		}
		if f.missing.n == maxMissing {
			old := f.missing.head
			f.unlink(&f.missing, old)
			f.drop(old)
		}
		f.push(&f.missing, i)
	}
	c.rate.lostBytes(lost)
	return lost
}
