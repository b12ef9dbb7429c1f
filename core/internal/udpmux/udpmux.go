// Package udpmux shares one UDP socket among all peers of a service, so that all
// of them have one mapping of a NAT. It drives handshakes, and owns the
// associations that come of them: sealed datagrams to and from one peer, with
// the machine that makes them reliable.
//
//	netio.PacketConn ──▶ reader ──header block──▶ Assoc ──▶ packets, datagrams
//	                       │ no association
//	                       ├──flights──▶ Dial, or the goroutine that answers
//	                       └──the rest──▶ Config.Stray
//
// One goroutine reads; it lends its turn to who waits for small packets that come
// one by one. Whoever has something to send seals and writes it: a
// caller of SendPacket when the association was quiet, else a goroutine that
// lives as long as there is something to send; the reader, after each batch, what
// its acknowledgements allow; a timer for the rest. No two do so at once for
// one association, and its lock is not held meanwhile.
//
// What strangers can cost is bounded: a datagram that belongs to nobody costs
// one block of AES, a look-up and one block of ChaCha20. Flights that
// authenticate are opened at a bounded rate, and the work of answering them is
// done beside the reader.
package udpmux

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/arq"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// Errors of Dial, and reasons why an association ends.
var (
	// ErrLimit means that Config.Associations is reached.
	ErrLimit = errors.New("too many associations")
	// ErrFamily means that the socket has no addresses of the family.
	ErrFamily = errors.New("the socket cannot reach this family of addresses")
	// ErrBarred means that Config.Barred holds for the address.
	ErrBarred = errors.New("the address is blacklisted")
	// ErrSilent means that nothing was heard for Config.IdleTimeout.
	ErrSilent = errors.New("nothing was heard from the peer")
	// ErrUnconfirmed means that the peer never confirmed the handshake.
	ErrUnconfirmed = errors.New("the peer did not confirm the handshake")
	// ErrState means that an association was committed twice, or after its end.
	ErrState = errors.New("the association is not waiting to be committed")
)

// Config says how a Mux works. Zero means the default that a field states.
type Config struct {
	// Secure is the service's handshake. Required.
	Secure *secure.Config
	// Go runs f in a goroutine that the owner joins. Required. It must not run f
	// on the caller's goroutine.
	Go func(f func())
	// Log takes what is worth a look when something is wrong. nil: nothing.
	Log *slog.Logger

	// HalfOpen bounds the handshakes that others have begun. Default 1,024. Over
	// the half of it, initiators must prove their address first.
	HalfOpen int
	// HalfOpenPerAddress bounds them per IPv4 address or IPv6 /64. Default 256.
	HalfOpenPerAddress int
	// HandshakeTimeout is how long a handshake may be half-open. Default 10 s.
	HandshakeTimeout time.Duration
	// Associations bounds them all, those included that Dial is making.
	// Default 4,096.
	Associations int
	// IdleTimeout ends an association from which nothing is heard. Default
	// 150 s; heartbeats of 20 s keep it alive.
	IdleTimeout time.Duration

	// SendBuffer bounds the packets of an association that are not acknowledged,
	// in bytes, at least 128 KiB. Default 16 MiB.
	SendBuffer int
	// ReceiveBuffer and DatagramBuffer bound each association, in bytes; see
	// arq.Config.
	ReceiveBuffer, DatagramBuffer int

	// Accept takes an association that a peer has begun, once for each handshake
	// that is complete. It must set the handlers before it returns, and must not
	// block. nil answers nobody.
	Accept func(a *Assoc)
	// Barred reports whether an address is blacklisted: what comes from there is dropped
	// before anything of it is opened, and nothing new is sent there. What associations
	// still have to send goes out. It must not block. nil: none is.
	Barred func(a netip.Addr) bool
	// Knocked is told where something came from that was dropped for Barred. It must not
	// block. nil: nobody is told.
	Knocked func(from netip.Addr)
	// Stray takes datagrams that belong to no association and no handshake. It
	// must not block, and must not keep the bytes. nil drops them.
	Stray func(from netip.AddrPort, datagram []byte)
	// Drained is called, in a goroutine of its own, each time the last association has
	// gone, those included that Dial was making and those that said good-bye. nil:
	// nobody is told.
	Drained func()
}

const (
	defaultTimeout      = 10 * time.Second
	defaultAssociations = 4096
	defaultIdle         = 150 * time.Second
	defaultSendBuffer   = 16 << 20
	minSendBuffer       = 128 << 10

	// readRuns is how many runs are read at once, of netio.ReadSize bytes each.
	readRuns = 16
	// flightQueue bounds flights that wait to be answered, each of up to
	// secure.FlightSize bytes, and as many of either kind.
	flightQueue = 128
	// flightRate bounds how many flights are opened in a second, and flightBurst
	// how many at once: as many of anybody as of those with a handshake under way.
	// At some 10 us for each with its answer, a flood of either takes some 2 % of
	// a processor.
	flightRate  = 2000
	flightBurst = 1000
	// closing is how many times Close of a Mux says good-bye.
	closing = 2
)

// reasonProtocol is wire.ReasonProtocol.
const reasonProtocol arq.Reason = 6

// Mux is one UDP socket and all that runs over it. Its methods may be called
// from any goroutine.
type Mux struct {
	cfg      Config
	conn     netio.PacketConn
	origin   time.Time
	header   *secure.HeaderKey // of who has the turn to read
	turn     turn
	done     chan struct{}  // closed by Close
	running  sync.WaitGroup // goroutines; none is added after closed
	stats    counters
	offers   chan flight // to the goroutine that answers
	finishes chan flight
	early    atomic.Int32 // len(limbo)
	deaf     atomic.Bool  // offers are not answered
	contacts contacts

	mu       sync.RWMutex
	closed   bool
	bindings *secure.HeaderKey // another copy of the same key
	table    map[uint64]*Assoc // by CID, from Commit or Accept on
	dials    map[uint64]*dialling
	dialled  map[netip.AddrPort]int // how many of dials go there
	limbo    map[netip.AddrPort]*limbo
	answered map[netip.AddrPort]time.Duration // handshakes that are half-open, until when
	held     int                              // associations, with those being made
	failure  error                            // why reading ended, before Close
}

// New makes a Mux that owns conn, and starts its two goroutines. Errors come from
// Config.Secure's randomness; then conn is closed.
func New(conn netio.PacketConn, cfg Config) (*Mux, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = defaultTimeout
	}
	if cfg.Associations <= 0 {
		cfg.Associations = defaultAssociations
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = defaultIdle
	}
	if cfg.SendBuffer == 0 {
		cfg.SendBuffer = defaultSendBuffer
	}
	cfg.SendBuffer = max(cfg.SendBuffer, minSendBuffer)
	m := &Mux{
		cfg: cfg, conn: conn, origin: time.Now(), done: make(chan struct{}),
		offers: make(chan flight, flightQueue), finishes: make(chan flight, flightQueue),
		table: map[uint64]*Assoc{}, dials: map[uint64]*dialling{}, dialled: map[netip.AddrPort]int{},
		limbo: map[netip.AddrPort]*limbo{}, answered: map[netip.AddrPort]time.Duration{},
	}
	m.SetAccept(true)
	keys, err := copies(cfg.Secure.Random)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	m.header, m.bindings = keys[0], keys[1]
	responder := secure.NewResponder(secure.ResponderConfig{
		Config: cfg.Secure, HeaderKey: keys[2], Limit: cfg.HalfOpen, PerAddress: cfg.HalfOpenPerAddress, Timeout: cfg.HandshakeTimeout,
	})
	m.turn.init(m)
	m.spawn(m.read)
	m.spawn(func() { m.answer(responder) })
	return m, nil
}

// copies draws a header key and returns it three times, since each copy is for
// one goroutine at a time.
func copies(random io.Reader) (keys [3]*secure.HeaderKey, err error) {
	if random == nil {
		random = rand.Reader
	}
	var key [len(secure.Binding{}.HeaderKey)]byte
	defer clear(key[:])
	if _, err = io.ReadFull(random, key[:]); err != nil {
		return keys, err
	}
	for i := range keys {
		if keys[i], err = secure.NewHeaderKey(bytes.NewReader(key[:])); err != nil {
			return keys, err
		}
	}
	return keys, nil
}

// now is the time of all machines.
func (m *Mux) now() time.Duration { return time.Since(m.origin) }

// spawn starts a goroutine that Close waits for, and reports false when it is
// too late.
func (m *Mux) spawn(f func()) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return false
	}
	m.running.Add(1)
	m.cfg.Go(func() {
		defer m.running.Done()
		f()
	})
	return true
}

// LocalAddr returns where the socket listens.
func (m *Mux) LocalAddr() netip.AddrPort { return m.conn.LocalAddr() }

// SetAccept says whether handshakes that others begin are answered; at first
// they are. Without Config.Accept they never are.
func (m *Mux) SetAccept(accept bool) { m.deaf.Store(!accept || m.cfg.Accept == nil) }

// Reaches reports whether the socket has addresses of the family of addr.
func (m *Mux) Reaches(addr netip.Addr) bool {
	return m.reachable(netip.AddrPortFrom(addr, 1)) == nil
}

// WriteTo sends one datagram as it is, for what Config.Stray answers and for
// probes of NATs: it is not sealed. What cannot be sent is lost; the error is
// net.ErrClosed, wrapped, after Close, and ErrBarred.
func (m *Mux) WriteTo(datagram []byte, to netip.AddrPort) error {
	if m.barred(to) {
		return ErrBarred
	}
	m.stats.sent(1, len(datagram))
	m.contacts.note(to.Addr())
	return m.conn.WriteBatch([]netio.Packets{{Buf: datagram, N: len(datagram), Segment: len(datagram), Addr: to}})
}

// WriteTTL is WriteTo with a time to live. Its error is also errors.ErrUnsupported,
// wrapped, where the socket has no such thing.
func (m *Mux) WriteTTL(ttl int, datagram []byte, to netip.AddrPort) error {
	w, ok := m.conn.(netio.TTLWriter)
	if !ok {
		return errors.ErrUnsupported
	}
	if m.barred(to) {
		return ErrBarred
	}
	m.stats.sent(1, len(datagram))
	m.contacts.note(to.Addr())
	return w.WriteTTL(ttl, []netio.Packets{{Buf: datagram, N: len(datagram), Segment: len(datagram), Addr: to}})
}

// barred reports whether an address is blacklisted.
func (m *Mux) barred(at netip.AddrPort) bool { return m.cfg.Barred != nil && m.cfg.Barred(at.Addr()) }

// write sends a flight.
func (m *Mux) write(datagram []byte, to netip.AddrPort) {
	_ = m.WriteTo(datagram, to) // a closed socket is seen by the reader
}

// Close tells all peers that this end is gone, for reason, closes the socket and
// returns when the goroutines of the Mux are gone; so it must not be called
// by a handler. The handlers of associations that were not closed are told
// net.ErrClosed. It may be called again.
func (m *Mux) Close(reason arq.Reason) error {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	all := make([]*Assoc, 0, len(m.table))
	for _, a := range m.table {
		all = append(all, a)
	}
	m.mu.Unlock()
	if first {
		close(m.done)
	}
	for range closing {
		for _, a := range all {
			a.shut(reason, net.ErrClosed)
			a.flush()
		}
	}
	err := m.conn.Close()
	m.running.Wait()
	m.end(net.ErrClosed)
	return err
}

// fail ends everything since the socket is of no more use.
func (m *Mux) fail(err error) {
	m.mu.Lock()
	closed := m.closed
	if m.failure == nil {
		m.failure = err
	}
	m.mu.Unlock()
	if !closed {
		m.cfg.Log.Warn("reading from the UDP socket ended", "at", m.conn.LocalAddr(), "error", err)
		m.end(err)
	}
}

// end ends all associations without a word to their peers.
func (m *Mux) end(err error) {
	m.mu.RLock()
	all := make([]*Assoc, 0, len(m.table))
	for _, a := range m.table {
		all = append(all, a)
	}
	m.mu.RUnlock()
	for _, a := range all {
		a.abort(err)
	}
}

// fault returns why nothing more can be done, or nil. Called with mu held.
func (m *Mux) fault() error {
	if m.closed {
		return net.ErrClosed
	}
	return m.failure
}

// hold counts an association that is being made.
func (m *Mux) hold() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(); err != nil {
		return err
	}
	if m.held >= m.cfg.Associations {
		return ErrLimit
	}
	m.held++
	return nil
}

// release is the end of one that hold has counted.
func (m *Mux) release() {
	m.mu.Lock()
	m.held--
	last := m.held == 0
	m.mu.Unlock()
	if last && m.cfg.Drained != nil {
		m.spawn(m.cfg.Drained)
	}
}

// reachable says whether the socket can send to an address at all.
func (m *Mux) reachable(addr netip.AddrPort) error {
	local := m.conn.LocalAddr().Addr()
	to := addr.Addr()
	switch {
	case !to.IsValid() || to.IsUnspecified() || to.IsMulticast() || addr.Port() == 0:
		return errors.New("not an address to send to")
	case local == netip.IPv6Unspecified():
		return nil
	case local.Is4() != to.Is4():
		return ErrFamily
	}
	return nil
}
