package arq

import "time"

// Conn is one end of the machine. It is not safe for concurrent use.
//
// Times are monotonic and count from any origin, the same in all calls.
type Conn struct {
	cfg Config
}

// New makes a Conn. Values of cfg out of bounds are brought within them.
func New(cfg Config, now time.Duration) *Conn { return &Conn{cfg: cfg} }

// Send queues a copy of a packet of 1 to MaxPacket bytes. It reports false when
// the packet has another size or the send buffer is full: then it is dropped.
func (c *Conn) Send(packet []byte) bool { return false }

// SendDatagram queues a copy of an unreliable datagram, which goes before all
// packets. When the queue is full, the oldest in it are dropped. The error is
// ErrTooBig, wrapped, for more than MaxDatagram bytes.
func (c *Conn) SendDatagram(data []byte) error { return nil }

// MaxDatagram returns the largest datagram that SendDatagram takes now, in
// bytes. It grows when the path's MTU has been found, and may fall to what
// Config.MTU allows.
func (c *Conn) MaxDatagram() int { return 0 }

// Ping makes Next send a datagram that the peer acknowledges at once.
func (c *Conn) Ping() {}

// Next appends the plaintext of the next datagram to b, at most MTUNow bytes,
// and notes that it is sealed as number. ok is false when nothing may go now;
// then b comes back and number is not used.
//
// Numbers rise from call to call. One left out was never sent: a peer that
// acknowledges it is found out. So its owner leaves one out at random now and
// then, against peers that acknowledge what they have not received.
func (c *Conn) Next(b []byte, number uint64, now time.Duration) (out []byte, ok bool) {
	return b, false
}

// MTUNow returns how many bytes Next appends at most, probes included.
func (c *Conn) MTUNow() int { return 0 }

// Challenge appends a plaintext that asks for a Response with this token, for a
// path that is not proved: it is not counted for congestion nor sent again.
// number is used as by Next.
func (c *Conn) Challenge(b []byte, number, token uint64) []byte { return b }

// Close appends a plaintext that says why this end is gone. It may be made and
// sent several times. number is used as by Next.
func (c *Conn) Close(b []byte, number uint64, reason Reason) []byte { return b }

// Receive takes the plaintext of a datagram that was opened as number, in any
// order. Numbers that came before are ignored as far as they are remembered:
// the replay window below must hold them off. An error wraps ErrProtocol, and
// the Conn should be closed.
func (c *Conn) Receive(number uint64, plain []byte, now time.Duration, h Handler) error { return nil }

// Moved says that the path has changed so that nothing known of it holds: rate,
// round trip and MTU are found anew. A change of port alone needs no such call.
func (c *Conn) Moved(now time.Duration) {}

// Deadline returns when Next should be asked again, if nothing else happens
// before. It may be past. ok is false when there is nothing to wait for.
func (c *Conn) Deadline() (at time.Duration, ok bool) { return 0, false }

// Stats returns figures as of now.
func (c *Conn) Stats() Stats { return Stats{} }
