package arq

import (
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// minStream is the least room in bytes that is filled with stream behind
// other frames.
const minStream = 64

// Next appends the plaintext of the next datagram to b, at most MTUNow bytes,
// and notes that it is sealed as number. ok is false when nothing may go now;
// then b comes back and number is not used.
//
// Numbers rise from call to call. One left out was never sent: a peer that
// acknowledges it is found out. So its owner leaves one out at random now and
// then, against peers that acknowledge what they have not received.
//
// When the peer has closed, nothing goes any more.
func (c *Conn) Next(b []byte, number uint64, now time.Duration) (out []byte, ok bool) {
	if c.closed {
		return b, false
	}
	c.tick(now)
	if c.mayFlow(now) || c.flight.probes > 0 || c.pings > 0 {
		return c.data(b, number, now), true
	}
	if size, due := c.mtu.due(c.flight.srtt > 0); due && c.flight.bytes+size <= c.rate.window {
		c.take(number)
		start := len(b)
		b = wire.AppendInnerPad(wire.AppendInnerPing(b), size-2)
		c.note(now, record{number: number, size: len(b) - start, probe: true})
		return b, true
	}
	if len(c.tokens) > 0 || c.in.now || c.in.pending > 0 && now >= c.in.due {
		c.take(number)
		return c.control(b, c.mtu.now, now), true
	}
	return b, false
}

// sendable returns how many bytes wait that may go as far as the peer's limit
// is concerned, about.
func (c *Conn) sendable() int {
	n := c.last - c.first
	if c.lost.len() > 0 {
		r := c.lost.first()
		n += r.hi - r.lo
		if c.lost.len() > 1 {
			n += uint64(c.mtu.now)
		}
	}
	n += min(c.end, max(c.limit, c.fresh)) - c.fresh
	return int(n)
}

// windowOpen reports whether the window has room for a burst that is worth it.
func (c *Conn) windowOpen(want int) bool {
	return c.rate.window-c.flight.bytes >= min(want, c.rate.window/4) && c.flight.room()
}

// mayFlow reports whether stream or datagrams may go now. To make runs, it waits
// until a burst may go, and then lets it go to its end.
func (c *Conn) mayFlow(now time.Duration) bool {
	n := c.sendable()
	if n == 0 {
		if c.flight.bytes < c.rate.window {
			c.rate.starve(c.flight.bytes)
		}
		return false
	}
	c.pacer.fill(now, &c.rate)
	if c.pacer.open && c.pacer.tokens > 0 && c.flight.bytes < c.rate.window && c.flight.room() {
		return true
	}
	want := min(n, c.pacer.burst(&c.rate))
	c.pacer.open = c.pacer.tokens >= float64(want) && c.windowOpen(want)
	return c.pacer.open
}

// control appends acknowledgement and responses, if they are due or ride for
// nothing.
func (c *Conn) control(b []byte, room int, now time.Duration) []byte {
	start := len(b)
	if len(c.tokens) > 0 {
		b = append(b, c.tokens...)
		c.tokens = c.tokens[:0]
	}
	if c.in.pending > 0 || c.in.now {
		b = c.in.acknowledge(b, room-(len(b)-start), now)
	}
	return b
}

// data appends a datagram that the peer acknowledges.
func (c *Conn) data(b []byte, number uint64, now time.Duration) []byte {
	c.take(number)
	room := c.mtu.now
	if c.flight.backoff >= 2 {
		room = c.mtu.base // perhaps the large ones are what is lost
	}
	start := len(b)
	b = c.control(b, room, now)
	r := record{number: number}
	if c.pings > 0 || c.flight.probes > 0 {
		b = wire.AppendInnerPing(b)
		r.elicits = true
	}
	c.pings = 0
	c.flight.probes = max(c.flight.probes-1, 0)
	for c.last > c.first {
		n := c.oldest()
		head := wire.InnerDatagramHead(n)
		if n+head > c.mtu.now { // the MTU has come down
			c.first += uint64(lengthSize + n)
			c.dropped++
			continue
		}
		if len(b)-start+head+n > room {
			break
		}
		b = wire.AppendInnerDatagram(b, n)
		b = c.waiting.append(b, c.first+lengthSize, n)
		c.first += uint64(lengthSize + n)
		r.elicits = true
	}
	if room -= len(b) - start; room >= minStream && (c.last == c.first || !r.elicits) {
		b = c.stream(b, room, &r)
	}
	if r.size = len(b) - start; r.elicits {
		c.note(now, r)
	}
	return b
}

// stream appends the next part of the stream, if there is one: what was lost
// first.
func (c *Conn) stream(b []byte, room int, r *record) []byte {
	again := c.lost.len() > 0
	lo, hi := c.fresh, min(c.end, max(c.limit, c.fresh))
	if again {
		x := c.lost.first()
		lo, hi = x.lo, x.hi
	}
	if lo == hi {
		return b
	}
	room -= wire.InnerStreamHead(lo)
	closes := c.flight.bytes+room+1 >= c.rate.window || !again && lo+uint64(room) >= c.limit
	if closes && !r.elicits { // nothing may follow: the peer should not keep us waiting
		b = wire.AppendInnerPing(b)
		room--
	}
	n := int(min(hi-lo, uint64(room)))
	b = wire.AppendInnerStream(b, lo)
	b = c.out.append(b, lo, n)
	r.off, r.n, r.elicits = lo, n, true
	if again {
		c.lost.remove(lo, lo+uint64(n))
		c.retransmitted += uint64(n)
	} else {
		c.fresh += uint64(n)
	}
	return b
}

// note puts a datagram in flight.
func (c *Conn) note(now time.Duration, r record) {
	r.elicits = true
	c.rate.sending(now, c.flight.bytes)
	r.delivered, r.deliveredAt, r.firstAt = c.rate.delivered, c.rate.deliveredAt, c.rate.firstAt
	r.starved = c.rate.starved > 0
	r.at = now
	c.flight.add(r)
	if !r.probe {
		c.pacer.tokens -= float64(r.size)
	} else {
		c.mtu.sent(r.number)
	}
}

// pacer is a token bucket: it spreads datagrams over time, in bursts.
type pacer struct {
	tokens float64       // bytes that may go now
	at     time.Duration // when tokens was right
	open   bool          // a burst is going
}

func (p *pacer) init(now time.Duration, window int) {
	*p = pacer{tokens: float64(window) / 2, at: now}
}

const (
	// maxBurst is what may go at once in bytes: a run of GSO.
	maxBurst = 64 << 10
	// burstTime is how long a burst may take at the path's rate.
	burstTime = time.Millisecond
	// lateTime is how late whoever asks may be without sending less than the rate:
	// timers of a busy machine are. What gathers meanwhile is at most maxCredit
	// bytes.
	lateTime  = 5 * time.Millisecond
	maxCredit = 256 << 10
)

// burst returns how many bytes go at once.
func (p *pacer) burst(r *rate) int {
	return int(min(max(r.pacing*burstTime.Seconds(), float64(2*r.mtu)), maxBurst))
}

// fill adds the tokens of the time that has passed.
func (p *pacer) fill(now time.Duration, r *rate) {
	most := min(float64(p.burst(r))+r.pacing*lateTime.Seconds(), maxCredit)
	if now > p.at {
		if p.tokens < most {
			p.tokens = min(p.tokens+r.pacing*(now-p.at).Seconds(), most)
		}
		p.at = now
	}
}

// readyAt returns when a burst of want bytes may go.
func (p *pacer) readyAt(want int, r *rate) time.Duration {
	if p.open && p.tokens > 0 {
		return p.at
	}
	missing := float64(want) - p.tokens
	if missing <= 0 {
		return p.at
	}
	return p.at + time.Duration(missing/r.pacing*1e9) + 1
}
