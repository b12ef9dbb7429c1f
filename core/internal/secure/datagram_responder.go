package secure

import (
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// ResponderConfig is how a socket answers offers.
type ResponderConfig struct {
	// Config is the service's. Its Seen is not used: each Responder remembers the
	// ephemeral keys of its offers itself.
	*Config
	// HeaderKey is the socket's; required.
	HeaderKey *HeaderKey
	// Limit bounds the half-open handshakes. Zero means 1,024.
	Limit int
	// PerAddress bounds them per IPv4 address or IPv6 /64. Zero means 256.
	PerAddress int
	// Timeout is how long a handshake may be half-open. Zero means 10 s.
	Timeout time.Duration
}

const (
	defaultHalfOpen   = 1024
	defaultPerAddress = 256
	defaultTimeout    = 10 * time.Second
)

// Responder answers offers, and keeps the bounded table of half-open handshakes.
// A handshake there is
//
//	(none) --Answer--> half-open --Finish--> complete --timeout--> (none)
//
// and a half-open one is given up after the timeout, or when the table is full
// and it is the oldest. What is complete is remembered for as long again, to
// tell a repeated finish. It is for one goroutine at a time. All times are
// since the same arbitrary moment, and do not go back.
type Responder struct {
	cfg     ResponderConfig
	cookies cookies
	seen    Seen
	table   map[halfKey]*half
	open    map[netip.Prefix]int // half-open handshakes by address
	ages    list.List            // of *half, half-open, the oldest first
	done    list.List            // of *half, complete, the oldest first
	stats   ResponderStats
}

// ResponderStats counts what a Responder did.
type ResponderStats struct {
	HalfOpen  int    // handshakes now
	Answered  uint64 // offers, without those that came again
	Cookies   uint64 // asked for
	Completed uint64
	Evicted   uint64 // half-open handshakes given up to make room
	Expired   uint64 // half-open handshakes given up after the timeout
}

// halfKey finds a handshake: flights from another address do not belong to it.
type halfKey struct {
	from netip.AddrPort
	id   uint64
}

type half struct {
	key       halfKey
	prefix    netip.Prefix
	ephemeral [wire.EphemeralSize]byte
	local     Binding
	h         *handshake // nil when complete
	answer    []byte     // Noise message
	until     time.Duration
	at        *list.Element // in ages, or in done
}

// NewResponder returns a Responder with nothing in it.
func NewResponder(cfg ResponderConfig) *Responder {
	if cfg.Limit <= 0 {
		cfg.Limit = defaultHalfOpen
	}
	if cfg.PerAddress <= 0 {
		cfg.PerAddress = defaultPerAddress
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	return &Responder{
		cfg: cfg, cookies: cookies{random: cfg.random()},
		table: make(map[halfKey]*half), open: make(map[netip.Prefix]int),
	}
}

// prefixOf is what counts as one address.
func prefixOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// Answer takes an offer and appends what is to be sent to where it came from: an
// answer, or under load a request to come again with a cookie. It is never longer
// than the offer's datagram. After an error, which is ErrFlight or comes from
// Config.Random, nothing must be sent.
func (r *Responder) Answer(dst []byte, from netip.AddrPort, f Flight, now time.Duration) ([]byte, error) {
	if f.Type != wire.FlightOffer {
		return nil, ErrFlight
	}
	r.Expire(now)
	key, ephemeral := halfKey{from, f.ID}, f.Ephemeral()
	if old := r.table[key]; old != nil {
		if old.h == nil || old.ephemeral != ephemeral {
			return nil, ErrFlight
		}
		return r.reply(dst, wire.DatagramFlight{Type: wire.FlightAnswer, ID: f.ID, Noise: old.answer}, f.size)
	}
	if r.seen.Has(ephemeral[:]) {
		return nil, ErrFlight
	}
	prefix := prefixOf(from.Addr())
	crowded := 2*r.ages.Len() >= r.cfg.Limit || 2*r.open[prefix] >= r.cfg.PerAddress
	if crowded && !r.cookies.valid(now, from, &ephemeral, &f.Cookie) {
		cookie, err := r.cookies.bake(now, from, &ephemeral)
		if err != nil {
			return nil, err
		}
		r.stats.Cookies++
		return r.reply(dst, wire.DatagramFlight{Type: wire.FlightCookie, ID: f.ID, Cookie: cookie}, f.size)
	}
	n := &half{key: key, prefix: prefix, ephemeral: ephemeral, until: now + r.cfg.Timeout}
	if err := r.accept(n, f.Noise); err != nil {
		return nil, err
	}
	r.admit(n)
	r.stats.Answered++
	return r.reply(dst, wire.DatagramFlight{Type: wire.FlightAnswer, ID: f.ID, Noise: n.answer}, f.size)
}

// reply appends a flight that is not longer than size, the one it replies to.
func (r *Responder) reply(dst []byte, f wire.DatagramFlight, size int) ([]byte, error) {
	return r.cfg.sealFlight(dst, f, 0, min(size, wire.FlightOverhead+len(f.Noise)+spread-1))
}

// accept reads an offer's Noise message and makes the answer's.
func (r *Responder) accept(n *half, message []byte) (err error) {
	if n.h, err = begin(r.cfg.Config, false, wire.DatagramPrologue); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			n.h.erase()
		}
	}()
	payload, _, _, err := n.h.state.ReadMessage(nil, message)
	if err != nil || !r.seen.Add(n.ephemeral[:]) {
		return ErrFlight
	}
	if _, err = wire.ParseOffer(payload); err != nil {
		return ErrFlight
	}
	if n.local, err = r.cfg.HeaderKey.Bind(r.cfg.random()); err != nil {
		return err
	}
	if n.answer, _, _, err = n.h.state.WriteMessage(nil, n.h.datagramHello(n.local)); errors.Is(err, errLowOrder) {
		return ErrFlight
	}
	return err
}

// admit puts a handshake into the table, and others out to make room: first one
// of the same address, so that nobody can push out everybody.
func (r *Responder) admit(n *half) {
	var out *half
	if r.open[n.prefix] >= r.cfg.PerAddress {
		for e := r.ages.Front(); out == nil && e != nil; e = e.Next() {
			if old := e.Value.(*half); old.prefix == n.prefix {
				out = old
			}
		}
	} else if r.ages.Len() >= r.cfg.Limit {
		out = r.ages.Front().Value.(*half)
	}
	if out != nil {
		r.stats.Evicted++
		r.drop(out)
	}
	r.table[n.key] = n
	r.open[n.prefix]++
	n.at = r.ages.PushBack(n)
}

// leave takes a handshake out of those that are half-open, and erases its secrets.
func (r *Responder) leave(n *half) {
	n.h.erase()
	n.h, n.answer = nil, nil
	r.ages.Remove(n.at)
	if r.open[n.prefix]--; r.open[n.prefix] == 0 {
		delete(r.open, n.prefix)
	}
}

// drop forgets a handshake.
func (r *Responder) drop(n *half) {
	if n.h != nil {
		r.leave(n)
	} else {
		r.done.Remove(n.at)
	}
	delete(r.table, n.key)
}

// Finish takes a third flight. The association is complete: the caller makes
// Local.CID known and seals a datagram to the peer at once, which confirms it.
//
// ErrFlight: drop it; the handshake goes on, unless a member of the network has
// copied the start of the genuine finish, which he can stop on its way as well.
// ErrRepeated: the association that Complete names should
// seal a datagram. Anything else wraps ErrHandshake: an initiator, who holds the
// network name, broke the protocol; the handshake is over.
func (r *Responder) Finish(from netip.AddrPort, f Flight, now time.Duration) (*Associated, error) {
	r.Expire(now)
	n := r.table[halfKey{from, f.ID}]
	if f.Type != wire.FlightFinish || n == nil {
		return nil, ErrFlight
	}
	if n.h == nil {
		return nil, ErrRepeated
	}
	if len(f.Noise) < 32+2*wire.TagSize {
		return nil, ErrFlight
	}
	payload, receive, send, err := n.h.state.ReadMessage(nil, f.Noise)
	if err != nil && !errors.Is(err, errLowOrder) {
		return nil, ErrFlight
	}
	if err != nil {
		r.drop(n)
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	remote, err := n.h.remote(payload)
	if err != nil {
		r.drop(n)
		return nil, err
	}
	theirs, err := wire.ParseBinding(payload)
	if err != nil {
		r.drop(n)
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	a, err := n.h.associate(f.ID, remote, theirs, n.local, send.UnsafeKey(), receive.UnsafeKey(), false)
	if err != nil {
		r.drop(n)
		return nil, err
	}
	r.stats.Completed++
	r.leave(n)
	if r.done.Len() >= r.cfg.Limit {
		r.drop(r.done.Front().Value.(*half))
	}
	n.until = now + r.cfg.Timeout
	n.at = r.done.PushBack(n)
	return a, nil
}

// Complete returns the CID of the association that a repeated finish belongs to.
func (r *Responder) Complete(from netip.AddrPort, f Flight) (cid uint64, ok bool) {
	n := r.table[halfKey{from, f.ID}]
	if n == nil || n.h != nil {
		return 0, false
	}
	return n.local.CID, true
}

// Expire gives up what is too old. Answer and Finish do it as well.
func (r *Responder) Expire(now time.Duration) {
	for e := r.ages.Front(); e != nil && e.Value.(*half).until <= now; e = r.ages.Front() {
		r.stats.Expired++
		r.drop(e.Value.(*half))
	}
	for e := r.done.Front(); e != nil && e.Value.(*half).until <= now; e = r.done.Front() {
		r.drop(e.Value.(*half))
	}
}

// Deadline returns when Expire has something to do; ok is false when never.
func (r *Responder) Deadline() (at time.Duration, ok bool) {
	for _, l := range []*list.List{&r.ages, &r.done} {
		if e := l.Front(); e != nil && (!ok || e.Value.(*half).until < at) {
			at, ok = e.Value.(*half).until, true
		}
	}
	return at, ok
}

// Stats returns the counters.
func (r *Responder) Stats() ResponderStats {
	s := r.stats
	s.HalfOpen = r.ages.Len()
	return s
}

// Close forgets all handshakes and erases their secrets.
func (r *Responder) Close() {
	for _, n := range r.table {
		r.drop(n)
	}
	r.cookies.zero()
}
