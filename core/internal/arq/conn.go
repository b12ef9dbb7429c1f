package arq

import (
	"fmt"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	defaultMTU      = 1200
	defaultBuffer   = 16 << 20
	defaultWaiting  = 256 << 10
	lengthSize      = 2  // bytes of a packet's length in the stream
	rememberSkipped = 16 // numbers left out that are remembered
	rememberTokens  = 4  // challenges that wait for their response
)

// Conn is one end of the machine. It is not safe for concurrent use.
//
// Times are monotonic and count from any origin, the same in all calls.
type Conn struct {
	cfg Config

	// the stream that goes out: offsets [una, end) are kept in out
	out           ring
	una           uint64 // all before has arrived
	fresh         uint64 // all from here on has never been sent
	end           uint64
	limit         uint64 // the peer takes offsets before it
	acked         spans  // above una, has arrived
	lost          spans  // to be sent again
	outPeak       int    // most that out held since it was looked at
	outLook       time.Duration
	retransmitted uint64
	refused       uint64

	// unreliable datagrams, each behind its length, at [first, last) of waiting
	waiting     ring
	first, last uint64
	dropped     uint64

	// datagrams that went out
	next    uint64 // number: all from here on are not used
	skipped [rememberSkipped]uint64
	skips   int
	flight  flight
	rate    rate
	mtu     search
	pacer   pacer
	pings   int    // pings to be sent
	tokens  []byte // responses to be sent, as frames
	sent    uint64

	in     inbound
	closed bool // the peer is gone
}

// New makes a Conn. Values of cfg out of bounds are brought within them.
func New(cfg Config, now time.Duration) *Conn {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.SendBuffer == 0 {
		cfg.SendBuffer = defaultBuffer
	}
	if cfg.ReceiveBuffer == 0 {
		cfg.ReceiveBuffer = defaultBuffer
	}
	if cfg.DatagramBuffer == 0 {
		cfg.DatagramBuffer = defaultWaiting
	}
	cfg.MTU = min(max(cfg.MTU, MinMTU), MaxMTU)
	cfg.MaxMTU = min(max(cfg.MaxMTU, cfg.MTU), MaxMTU)
	cfg.SendBuffer = min(max(cfg.SendBuffer, MaxPacket+lengthSize), 1<<30)
	cfg.ReceiveBuffer = min(max(cfg.ReceiveBuffer, wire.InitialLimit), 1<<30)
	cfg.DatagramBuffer = min(max(cfg.DatagramBuffer, MaxMTU+lengthSize), 1<<30)
	cfg.RTT = max(cfg.RTT, 0)
	c := &Conn{cfg: cfg, limit: wire.InitialLimit, outLook: now}
	c.mtu.init(cfg.MTU, cfg.MaxMTU)
	c.flight.init(cfg.RTT)
	c.rate.init(cfg.MTU, cfg.RTT, now, cfg.Seed)
	c.pacer.init(now, c.rate.initialWindow())
	c.in.init(cfg.ReceiveBuffer, now)
	return c
}

// Send queues a copy of a packet of 1 to MaxPacket bytes. It reports false when
// the packet has another size or the send buffer is full: then it is dropped.
func (c *Conn) Send(packet []byte) bool {
	need := uint64(len(packet) + lengthSize)
	if len(packet) == 0 || len(packet) > MaxPacket || c.end+need-c.una > uint64(c.cfg.SendBuffer) || c.end+need > wire.MaxOffset {
		c.refused++
		return false
	}
	c.out.fit(c.una, c.end+need)
	c.out.write(c.end, []byte{byte(len(packet) >> 8), byte(len(packet))})
	c.out.write(c.end+lengthSize, packet)
	c.end += need
	c.outPeak = max(c.outPeak, int(c.end-c.una))
	return true
}

// SendDatagram queues a copy of an unreliable datagram, which goes before all
// packets. When the queue is full, the oldest in it are dropped. The error is
// ErrTooBig, wrapped, for more than MaxDatagram bytes.
func (c *Conn) SendDatagram(data []byte) error {
	if most := c.MaxDatagram(); len(data) > most {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooBig, len(data), most)
	}
	need := uint64(len(data) + lengthSize)
	for c.last+need-c.first > uint64(c.cfg.DatagramBuffer) {
		c.first += uint64(lengthSize + c.oldest())
		c.dropped++
	}
	c.waiting.fit(c.first, c.last+need)
	c.waiting.write(c.last, []byte{byte(len(data) >> 8), byte(len(data))})
	c.waiting.write(c.last+lengthSize, data)
	c.last += need
	return nil
}

// oldest returns the size of the first datagram that waits; there must be one.
func (c *Conn) oldest() int {
	return int(c.waiting.byteAt(c.first))<<8 | int(c.waiting.byteAt(c.first+1))
}

// MaxDatagram returns the largest datagram that SendDatagram takes now, in
// bytes. It grows when the path's MTU has been found, and may fall to what
// Config.MTU allows.
func (c *Conn) MaxDatagram() int { return c.mtu.now - DatagramOverhead }

// Ping makes Next send a datagram that the peer acknowledges at once.
func (c *Conn) Ping() { c.pings = 1 }

// MTUNow returns how many bytes Next appends at most, probes included.
func (c *Conn) MTUNow() int { return max(c.mtu.now, c.mtu.probe) }

// take notes that number is used.
func (c *Conn) take(number uint64) {
	for x := max(c.next, number-min(number, rememberSkipped)); x < number; x++ {
		c.skipped[c.skips%rememberSkipped] = x + 1 // zero is no number
		c.skips++
	}
	c.next = number + 1
	c.sent++
}

// Challenge appends a plaintext that asks for a Response with this token, for a
// path that is not proved: it is not counted for congestion nor sent again.
// number is used as by Next.
func (c *Conn) Challenge(b []byte, number, token uint64) []byte {
	c.take(number)
	return wire.AppendInnerToken(b, wire.InnerChallenge, token)
}

// Close appends a plaintext that says why this end is gone. It may be made and
// sent several times. number is used as by Next.
func (c *Conn) Close(b []byte, number uint64, reason Reason) []byte {
	c.take(number)
	return wire.AppendInnerClose(b, reason)
}

// Moved says that the path has changed so that nothing known of it holds: rate,
// round trip and MTU are found anew. A change of port alone needs no such call.
func (c *Conn) Moved(now time.Duration) {
	c.mtu.init(c.cfg.MTU, c.cfg.MaxMTU)
	c.flight.forgetRTT()
	c.rate.init(c.cfg.MTU, 0, now, c.rate.seed)
	c.pacer.init(now, c.rate.initialWindow())
}

// Deadline returns when Next should be asked again, if nothing else happens
// before. It may be past. ok is false when there is nothing to wait for.
func (c *Conn) Deadline() (at time.Duration, ok bool) {
	at = never
	if c.closed {
		return at, false
	}
	if c.pings > 0 || len(c.tokens) > 0 || c.flight.probes > 0 || c.in.now {
		return 0, true
	}
	if c.in.pending > 0 {
		at = c.in.due
	}
	at = min(at, c.flight.lossAt(), c.flight.probeAt())
	if want := c.sendable(); want > 0 {
		if want = min(want, c.pacer.burst(&c.rate)); c.windowOpen(want) {
			at = min(at, c.pacer.readyAt(want, &c.rate))
		}
	}
	return at, at != never
}

// Stats returns figures as of now.
func (c *Conn) Stats() Stats {
	s := Stats{
		RTT: c.flight.srtt, RTTVar: c.flight.rttvar, Rate: uint64(c.rate.best), Window: c.rate.window,
		InFlight: c.flight.bytes, Queued: int(c.end - c.una), Sent: c.sent, Received: c.in.received,
		Lost: c.flight.lostCount, Spurious: c.flight.spurious, Retransmitted: c.retransmitted,
		Dropped: c.dropped, Refused: c.refused, MTU: c.mtu.now, MaxDatagram: c.MaxDatagram(),
	}
	if c.flight.srtt > 0 {
		s.MinRTT = c.rate.minRTT
	} else {
		s.RTT = 0
	}
	return s
}
