package arq

import (
	"errors"
	"fmt"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

const (
	// maxHoles bounds the runs of the stream that are held behind holes.
	maxHoles = 8192
	// earlyAcks is how many datagrams are acknowledged by twos, for the start.
	earlyAcks = 128
	// ackEvery is how many datagrams wait for one acknowledgement later.
	ackEvery = 16
	// lookEvery is how often memory of a quiet stream is given back.
	lookEvery = 5 * time.Second
	maxDelay  = wire.MaxAckDelay * time.Millisecond
	minDelay  = time.Millisecond
)

// inbound is what comes in: the stream up to limit, and what to acknowledge.
type inbound struct {
	buffer uint64 // Config.ReceiveBuffer

	// the stream: offsets [done, ready) and those in held are kept in ring
	ring    ring
	done    uint64 // all packets before are delivered
	ready   uint64 // all before has arrived
	held    spans  // above ready
	limit   uint64 // greatest limit told
	peak    uint64 // most that the ring held since it was looked at
	look    time.Duration
	scratch []byte // for packets that wrap in ring

	// acknowledgements
	seen     numbers
	received uint64
	newest   time.Duration // when the highest number came
	pending  int           // datagrams that want an acknowledgement
	due      time.Duration // when they get it, if pending
	now      bool          // at once

	frame wire.Inner // of the datagram at hand
}

func (in *inbound) init(buffer int, now time.Duration) {
	in.buffer, in.limit, in.look = uint64(buffer), wire.InitialLimit, now
}

// Receive takes the plaintext of a datagram that was opened as number, in any
// order. Numbers that came before are ignored as far as they are remembered:
// the replay window below must hold them off. An error wraps ErrProtocol, and
// the Conn should be closed.
func (c *Conn) Receive(number uint64, plain []byte, now time.Duration, h Handler) error {
	if number >= wire.MaxOffset {
		return fmt.Errorf("%w: number %d", ErrProtocol, number)
	}
	in := &c.in
	if c.closed || in.seen.has(number) {
		return nil
	}
	in.received++
	elicits, ping, kept := false, false, true
	for rest := plain; len(rest) > 0; {
		var err error
		f := &in.frame
		if rest, err = wire.NextInner(rest, f); err == nil {
			switch f.Type {
			case wire.InnerPing:
				elicits, ping = true, true
			case wire.InnerAck:
				err = c.acknowledged(&f.Ack, now)
			case wire.InnerStream:
				elicits = true
				kept, err = in.stream(f.Value, f.Data, h)
			case wire.InnerDatagram:
				elicits = true
				h.Datagram(f.Data)
			case wire.InnerChallenge:
				if len(c.tokens) < rememberTokens*9 {
					c.tokens = wire.AppendInnerToken(c.tokens, wire.InnerResponse, f.Value)
				}
			case wire.InnerResponse:
				h.Response(f.Value)
			case wire.InnerClose:
				c.closed = true
				h.Closed(Reason(f.Value))
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	if kept {
		in.arrived(number, elicits, ping, now, c.flight.srtt)
	}
	in.trim(now)
	return nil
}

// arrived notes a datagram to be acknowledged.
func (in *inbound) arrived(number uint64, elicits, ping bool, now, srtt time.Duration) {
	last := int64(-1)
	if in.seen.n > 0 {
		last = int64(in.seen.r[in.seen.n-1].Last)
	}
	in.seen.add(number)
	if int64(number) > last {
		in.newest = now
	}
	if !elicits {
		return
	}
	if in.pending++; in.pending == 1 {
		in.due = now + min(max(srtt/4, minDelay), maxDelay)
	}
	every := ackEvery
	if in.received < earlyAcks {
		every = 2
	}
	if ping || in.pending >= every || int64(number) != last+1 {
		in.now = true
	}
}

// acknowledge appends an acknowledgement of all that has arrived.
func (in *inbound) acknowledge(b []byte, room int, now time.Duration) []byte {
	if room < wire.MinAckRoom {
		return b
	}
	in.pending, in.now = 0, false
	in.limit = max(in.limit, in.done+in.buffer)
	delay := max(now-in.newest, 0) / time.Microsecond
	return wire.AppendInnerAck(b, uint64(delay), in.limit, in.seen.r[:in.seen.n], room)
}

// stream takes a part of the stream and delivers the packets that it completes.
// kept is false when the part had to be dropped.
func (in *inbound) stream(off uint64, data []byte, h Handler) (kept bool, err error) {
	end := off + uint64(len(data))
	switch {
	case end > in.limit:
		return false, errors.New("the stream goes beyond its limit")
	case end <= in.ready:
		return true, nil
	case off < in.ready:
		data = data[in.ready-off:]
		off = in.ready
	}
	in.peak = max(in.peak, end-in.done)
	if in.held.len() == 0 && off == in.ready {
		return true, in.inOrder(data, h)
	}
	if off > in.ready && in.held.len() >= maxHoles && in.held.isolated(off, end) {
		return false, nil
	}
	in.ring.fit(in.done, end)
	in.ring.write(off, data)
	in.held.add(off, end)
	if r := in.held.first(); r.lo <= in.ready {
		in.ready = r.hi
		in.held.pop()
	}
	return true, in.deliver(h)
}

// inOrder takes the next part of the stream when nothing is held. What completes
// a packet is delivered at once, and the beginning of the next one goes to the
// front of the ring: so a stream in order stays in cached memory.
func (in *inbound) inOrder(data []byte, h Handler) error {
	for len(data) > 0 {
		n := uint64(len(data))
		if in.done == in.ready {
			if len(data) >= lengthSize {
				size := int(data[0])<<8 | int(data[1])
				if size == 0 {
					return errors.New("a packet of no bytes")
				}
				if len(data) >= lengthSize+size {
					h.Packet(data[lengthSize : lengthSize+size])
					in.done += uint64(lengthSize + size)
					in.ready = in.done
					data = data[lengthSize+size:]
					continue
				}
			}
			in.ring.base = in.done
		} else if in.ready-in.done >= lengthSize {
			n = min(n, in.done+lengthSize+uint64(in.size())-in.ready)
		} else {
			n = 1 // the other half of the length
		}
		in.ring.fit(in.done, in.ready+n)
		in.ring.write(in.ready, data[:n])
		in.ready += n
		data = data[n:]
		if err := in.deliver(h); err != nil {
			return err
		}
	}
	return nil
}

// size returns the length of the packet at done, whose length has arrived.
func (in *inbound) size() int {
	return int(in.ring.byteAt(in.done))<<8 | int(in.ring.byteAt(in.done+1))
}

// deliver hands out all packets that are complete.
func (in *inbound) deliver(h Handler) error {
	for in.ready-in.done >= lengthSize {
		n := in.size()
		if n == 0 {
			return errors.New("a packet of no bytes")
		}
		if in.ready-in.done < uint64(lengthSize+n) {
			break
		}
		p, wrapped := in.ring.at(in.done+lengthSize, n)
		if wrapped != nil {
			in.scratch = append(append(in.scratch[:0], p...), wrapped...)
			p = in.scratch
		}
		h.Packet(p)
		in.done += uint64(lengthSize + n)
	}
	return nil
}

// trim gives back memory that has not been needed for a while.
func (in *inbound) trim(now time.Duration) {
	if now-in.look < lookEvery || in.held.len() > 0 {
		return
	}
	in.look = now
	shrink(&in.ring, in.done, in.ready, in.peak)
	in.peak = in.ready - in.done
}

// shrink replaces a ring that is far larger than what it has lately held.
func shrink(r *ring, lo, hi, peak uint64) {
	if len(r.b) <= smallRing || 4*peak > uint64(len(r.b)) {
		return
	}
	small := ring{base: lo}
	small.fit(lo, max(hi, lo+1))
	if n := int(hi - lo); n > 0 {
		a, b := r.at(lo, n)
		small.write(lo, a)
		small.write(lo+uint64(len(a)), b)
	}
	*r = small
}
