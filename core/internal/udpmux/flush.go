package udpmux

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
)

const (
	// sealHeader is where in a sealed datagram its text begins; see Box.Seal.
	sealHeader = 16
	// runLength bounds the datagrams that are sealed and written at once.
	runLength = 64
	// quiet is how long an association must not have sent so that a caller sends
	// by itself: after less, more is likely to come and goes in one run.
	quiet = 100 * time.Microsecond
	// maxTurns bounds how often a borrowed goroutine goes on to send: each time is
	// up to 64 KiB. Then pump takes over.
	maxTurns = 4
	// grain is the least that the timer waits, so that pacing at a high rate
	// costs few timers: arq lets 256 KiB go at once when it is late.
	grain = 250 * time.Microsecond
	// gap is after how many datagrams a number is left out, on average: a peer
	// that acknowledges it acknowledges what it has not received.
	gap = 4096

	never = time.Duration(math.MaxInt64)
)

// outgoing is memory for one run of datagrams.
type outgoing struct {
	n, size   int // datagrams, bytes
	datagrams [runLength]slot
	runs      [runLength]netio.Packets
	buf       [2 * netio.MaxRun]byte
}

// slot is one datagram of an outgoing.
type slot struct {
	plain int // bytes of text
	to    netip.AddrPort
}

var outgoings = sync.Pool{New: func() any { return new(outgoing) }}

// text returns the empty slice to which the text of the next datagram is appended.
func (o *outgoing) text() []byte {
	return o.buf[o.size+sealHeader : o.size+sealHeader : len(o.buf)-secure.SealOverhead+sealHeader]
}

// full reports whether there is no room for another datagram. There is always
// room for a first one, and behind others of one length as long as a run takes
// them, so that a long one may follow them: a probe of the path.
func (o *outgoing) full() bool {
	return o.n == runLength || o.n > 0 && o.size+o.datagrams[o.n-1].plain+secure.SealOverhead > netio.MaxRun
}

// put notes that a text was appended.
func (o *outgoing) put(plain int, to netip.AddrPort) {
	o.datagrams[o.n] = slot{plain, to}
	o.n++
	o.size += plain + secure.SealOverhead
}

// seal seals all datagrams, each in its place. It reports false when the keys
// are worn out.
func (o *outgoing) seal(box *secure.Box) bool {
	at := 0
	for i := range o.datagrams[:o.n] {
		text := at + sealHeader
		out, _ := box.Seal(o.buf[:at], o.buf[text:text+o.datagrams[i].plain])
		if len(out) == at {
			return false
		}
		at = len(out)
	}
	return true
}

// cut makes runs of datagrams of one length to one address.
func (o *outgoing) cut() []netio.Packets {
	k, at := -1, 0
	for i := range o.datagrams[:o.n] {
		d := &o.datagrams[i]
		size := d.plain + secure.SealOverhead
		if k >= 0 {
			r := &o.runs[k]
			if r.Addr == d.to && size <= r.Segment && r.N%r.Segment == 0 && r.N+size <= netio.MaxRun {
				r.N += size
				r.Buf = r.Buf[:r.N]
				at += size
				continue
			}
		}
		k++
		o.runs[k] = netio.Packets{Buf: o.buf[at : at+size], N: size, Segment: size, Addr: d.to}
		at += size
	}
	return o.runs[:k+1]
}

// kick sees to it that what was queued goes out: at once on this goroutine when
// the association has been quiet, otherwise on another one, which takes with it
// what is queued meanwhile. Called with the lock held, which it releases.
func (a *Assoc) kick() {
	if a.flushing || a.scheduled {
		a.mu.Unlock() // they come by
		return
	}
	now := a.mux.now()
	if at, ok := a.machine.Deadline(); !ok || at > now {
		a.arm(now)
		a.mu.Unlock()
		return
	}
	if now-a.flushed >= quiet || a.machine.Stats().InFlight == 0 {
		a.mu.Unlock()
		a.flush()
		return
	}
	a.schedule()
}

// schedule starts pump. Called with the lock held, which it releases.
func (a *Assoc) schedule() {
	a.scheduled = true
	a.mu.Unlock()
	if !a.mux.spawn(a.pump) {
		a.mu.Lock()
		a.scheduled = false
		a.mu.Unlock()
	}
}

// pump is a goroutine that sends until nothing may go any more.
func (a *Assoc) pump() {
	a.mu.Lock()
	a.scheduled = false
	a.mu.Unlock()
	a.send(math.MaxInt)
}

// flush sends what may go now, on a goroutine that has other things to do.
func (a *Assoc) flush() {
	if a.send(maxTurns) {
		return
	}
	a.mu.Lock()
	if a.flushing || a.scheduled || a.state != open {
		a.mu.Unlock()
		return
	}
	a.schedule()
}

// send seals and writes what may go now, unless somebody else does, who then
// goes on until nothing is left. The lock is not held while it seals and writes.
// It reports false when there may be more after that many turns.
func (a *Assoc) send(turns int) (done bool) {
	a.mu.Lock()
	if a.flushing || a.state != open && a.state != shutting {
		a.mu.Unlock()
		return true
	}
	a.flushing = true
	o := outgoings.Get().(*outgoing)
	var now time.Duration
	var trouble error
	for turn := 0; trouble == nil && turn < turns; turn++ {
		now = a.mux.now()
		if a.fill(o, now); o.n == 0 {
			done = true
			break
		}
		a.mu.Unlock()
		if o.seal(a.link.Box) {
			a.mux.stats.sent(o.n, o.size)
			trouble = a.mux.conn.WriteBatch(o.cut())
		} else {
			trouble = secure.ErrWornOut
		}
		a.mu.Lock()
	}
	a.flushing, a.flushed = false, now
	switch {
	case a.state == ended:
		a.link.Box.ZeroSeal()
	case trouble != nil:
		a.over(trouble)
	default:
		a.arm(now)
	}
	over := a.state == ended
	a.mu.Unlock()
	outgoings.Put(o)
	if over {
		a.tell()
	}
	return done || over
}

// fill makes the texts of the next datagrams. Called with the lock held, by who
// has set flushing.
func (a *Assoc) fill(o *outgoing, now time.Duration) {
	o.n, o.size = 0, 0
	box := a.link.Box
	if a.state == shutting && now >= a.sayAt {
		o.put(copy(o.text()[:len(a.farewell)], a.farewell), a.addr)
		a.saidAt, a.sayAt = now, now+a.sayWait
		a.sayWait *= 3
	}
	if a.state != open {
		return
	}
	if a.sinceGap >= gap {
		a.sinceGap = -rand.IntN(gap)
		box.Skip(1)
	}
	number := box.Number()
	for i := range a.paths {
		p := &a.paths[i]
		if p.earned {
			p.earned = false
			o.put(len(a.machine.Challenge(o.text(), number, p.token)), p.addr)
			number++
		}
	}
	for !o.full() {
		text, ok := a.machine.Next(o.text(), number, now)
		if !ok {
			break
		}
		o.put(len(text), a.addr)
		number++
	}
	a.sinceGap += o.n
}

// arm sets the timer to when something has to be done next. One that fires too
// early is left alone: it will see. Called with the lock held.
func (a *Assoc) arm(now time.Duration) {
	at := never
	switch a.state {
	case open:
		at = a.heard + a.mux.cfg.IdleTimeout
		if a.initiator != nil {
			at = min(at, a.finishAt, a.begun+a.mux.cfg.HandshakeTimeout)
		}
		if next, ok := a.machine.Deadline(); ok {
			at = min(at, next)
		}
	case shutting:
		at = min(a.sayAt, a.lingersUntil)
	}
	if at == never || a.timerAt <= at {
		return
	}
	at = max(at, now+grain)
	if a.timerAt <= at {
		return
	}
	a.timerAt = at
	if a.timer == nil {
		a.timer = time.AfterFunc(at-now, a.onTimer)
	} else {
		a.timer.Reset(at - now)
	}
}

func (a *Assoc) onTimer() { a.mux.spawn(a.tick) }

// tick does what is due.
func (a *Assoc) tick() {
	a.mu.Lock()
	a.timerAt = never
	now := a.mux.now()
	switch {
	case a.state == shutting && now >= a.lingersUntil:
		a.over(nil)
	case a.state != open:
	case a.initiator != nil && now >= a.begun+a.mux.cfg.HandshakeTimeout:
		a.over(ErrUnconfirmed)
	case now >= a.heard+a.mux.cfg.IdleTimeout:
		a.over(ErrSilent)
	case a.initiator != nil && now >= a.finishAt:
		a.finish(now)
	}
	a.mu.Unlock()
	a.tell()
	a.flush()
}
