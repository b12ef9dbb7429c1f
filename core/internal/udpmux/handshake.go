package udpmux

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
)

const (
	// offerWait is when the first flight is repeated; the wait doubles.
	offerWait    = 250 * time.Millisecond
	maxOfferWait = 2 * time.Second

	// Bounds on what is kept of peers whose third flight is being looked at.
	maxLimbo      = 64       // addresses
	limboCount    = 64       // datagrams of one
	maxLimboBytes = 96 << 10 // bytes of one
)

// flight is a flight on its way from the reader to who answers it.
type flight struct {
	secure.Flight
	from netip.AddrPort
}

// dialling is a handshake that this end has begun.
type dialling struct {
	addr    netip.AddrPort
	flights chan secure.Flight
}

// limbo holds sealed datagrams that came behind a third flight, until that has
// been looked at: an initiator may send at once.
type limbo struct {
	flights   int // third flights from there that are not yet looked at
	bytes     int
	datagrams []early
}

type early struct {
	cid, number uint64
	data        []byte
}

// Dial shakes hands with whoever is at addr, and returns when the peer has
// proved its identity; it knows nothing of ours until Commit. expect is the
// peer's id; zero accepts anybody. An Assoc that is not committed must be
// closed. Nothing is repeated for longer than ctx lives.
//
// The error wraps secure.ErrWrongPeer, secure.ErrHandshake, ErrLimit, ErrFamily,
// net.ErrClosed, or ctx's. When ctx's deadline passed without any answer, it
// wraps secure.ErrNoAnswer as well.
func (m *Mux) Dial(ctx context.Context, addr netip.AddrPort, expect [32]byte) (*Assoc, error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	a, err := m.dial(ctx, addr, expect)
	if err != nil {
		return nil, fmt.Errorf("dial udp %s: %w", addr, err)
	}
	return a, nil
}

func (m *Mux) dial(ctx context.Context, addr netip.AddrPort, expect [32]byte) (a *Assoc, err error) {
	if err := errors.Join(ctx.Err(), m.reachable(addr)); err != nil {
		return nil, err
	}
	if err := m.hold(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.release()
		}
	}()
	m.mu.Lock()
	local, err := m.bindings.Bind(m.cfg.Secure.Random)
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	initiator, err := secure.NewInitiator(m.cfg.Secure, expect, local)
	if err != nil {
		return nil, err
	}
	defer initiator.Close()
	d := &dialling{addr: addr, flights: make(chan secure.Flight, 4)}
	m.expect(initiator.ID(), d)
	defer m.unexpect(initiator.ID(), d)
	link, rtt, err := m.shake(ctx, d, initiator)
	if err != nil {
		return nil, err
	}
	a = m.newAssoc(link, addr, rtt)
	a.initiator = initiator
	return a, nil
}

func (m *Mux) expect(id uint64, d *dialling) {
	m.mu.Lock()
	m.dials[id] = d
	m.dialled[d.addr]++
	m.mu.Unlock()
}

func (m *Mux) unexpect(id uint64, d *dialling) {
	m.mu.Lock()
	delete(m.dials, id)
	if m.dialled[d.addr]--; m.dialled[d.addr] == 0 {
		delete(m.dialled, d.addr)
	}
	m.mu.Unlock()
}

// shake sends offers until one is answered. rtt is zero when it is not known
// which of them was.
func (m *Mux) shake(ctx context.Context, d *dialling, initiator *secure.Initiator) (link *secure.Associated, rtt time.Duration, err error) {
	var buf [secure.FlightSize]byte
	timer := time.NewTimer(offerWait)
	defer timer.Stop()
	wait := offerWait
	tries, heard := 0, false
	var sent time.Duration
	offer := func() error {
		b, err := initiator.Offer(buf[:0])
		if err != nil {
			return err
		}
		tries++
		sent = m.now()
		return m.WriteTo(b, d.addr)
	}
	if err := offer(); err != nil {
		return nil, 0, err
	}
	m.cfg.Secure.Prepare()
	for {
		select {
		case <-m.done:
			return nil, 0, net.ErrClosed
		case <-ctx.Done():
			if err := ctx.Err(); heard || !errors.Is(err, context.DeadlineExceeded) {
				return nil, 0, err
			}
			return nil, 0, fmt.Errorf("%w: %w", secure.ErrNoAnswer, ctx.Err())
		case <-timer.C:
			wait = min(2*wait, maxOfferWait)
			timer.Reset(wait)
			if err := offer(); err != nil {
				return nil, 0, err
			}
		case f := <-d.flights:
			if initiator.Cookie(f) == nil {
				heard, tries = true, 0
				if err := offer(); err != nil {
					return nil, 0, err
				}
				continue
			}
			if tries == 1 {
				rtt = max(m.now()-sent, 1)
			}
			link, err := initiator.Answer(f)
			if errors.Is(err, secure.ErrFlight) {
				m.stats.refusedFlights.Add(1)
				continue
			}
			return link, rtt, err
		}
	}
}

// stray is a datagram that is nothing of ours.
func (r *reader) stray(d []byte) {
	r.mux.stats.strays.Add(1)
	if r.mux.cfg.Stray != nil {
		r.mux.cfg.Stray(r.from, d)
	}
}

// stranger takes a datagram that belongs to no association in the table.
func (r *reader) stranger(d []byte, cid, number uint64) {
	m := r.mux
	mark, repeated := r.repeats.look(d)
	if repeated {
		m.stats.replayed.Add(1)
		return
	}
	allowance := &r.bucket
	may := allowance.fill(r.now)
	if !may {
		allowance = &r.expected
		may = allowance.fill(r.now) && m.expects(r.from)
	}
	var f secure.Flight
	err := secure.ErrFlight
	if may {
		f, err = m.cfg.Secure.Network.OpenFlight(r.flight[:0], d)
	}
	if err != nil {
		a, kept := m.keep(r.from, d, cid, number)
		switch {
		case a != nil:
			r.add(a, d, number)
		case kept:
		case may:
			r.stray(d)
		default:
			m.stats.overload.Add(1)
		}
		return
	}
	allowance.left--
	r.repeats.put(mark)
	f.Noise = slices.Clone(f.Noise)
	if !m.dispatch(flight{f, r.from}) {
		m.stats.overload.Add(1)
	}
}

// repeats remembers flights that have authenticated. Each is made anew when it is
// sent again, and nobody outside of the network can change one, so that one which
// comes twice is a replay or was doubled on the way. Without this, who has
// recorded a few could use up the allowance that everybody shares.
type repeats struct {
	seed  maphash.Seed        // drawn with the first look
	marks [repeatSlots]uint64 // by their last bits; the latest stays
}

// repeatSlots bounds the memory of flights: a recorder who has more of them is
// held to the allowance.
const repeatSlots = 1 << 13

// look returns the mark of a datagram and whether it is that of a known flight.
func (p *repeats) look(d []byte) (mark uint64, known bool) {
	if p.seed == (maphash.Seed{}) {
		p.seed = maphash.MakeSeed()
	}
	mark = maphash.Bytes(p.seed, d)
	return mark, mark != 0 && p.marks[mark%repeatSlots] == mark
}

func (p *repeats) put(mark uint64) { p.marks[mark%repeatSlots] = mark }

// expects reports whether flights may come from an address.
func (m *Mux) expects(from netip.AddrPort) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, answered := m.answered[from]
	return answered || m.dialled[from] > 0
}

// dispatch gives a flight to who awaits it. It reports false when that one has
// too much to do.
func (m *Mux) dispatch(f flight) bool {
	switch f.Type {
	case secure.FlightAnswer, secure.FlightCookie:
		m.mu.RLock()
		d := m.dials[f.ID]
		m.mu.RUnlock()
		if d == nil || d.addr != f.from {
			m.stats.refusedFlights.Add(1)
			return true
		}
		return put(d.flights, f.Flight)
	case secure.FlightOffer:
		return m.deaf.Load() || put(m.offers, f)
	case secure.FlightFinish:
		if m.cfg.Accept == nil { // who is deaf finishes what was answered
			return true
		}
		m.await(f.from)
		if !put(m.finishes, f) {
			m.awaited(f.from)
			return false
		}
	}
	return true
}

// put reports whether there was room in a channel.
func put[T any](c chan T, v T) bool {
	select {
	case c <- v:
		return true
	default:
		return false
	}
}

// await opens a limbo for an address, until as many calls of awaited.
func (m *Mux) await(from netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.limbo[from]
	if l == nil {
		l = new(limbo)
		m.limbo[from] = l
		m.early.Add(1)
	}
	l.flights++
}

func (m *Mux) awaited(from netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.limbo[from]; l != nil {
		if l.flights--; l.flights == 0 {
			delete(m.limbo, from)
			m.early.Add(-1)
		}
	}
}

// keep puts a datagram that nobody knew into the limbo of its address, and
// reports whether there is one. If the association has become known, it returns
// that instead.
func (m *Mux) keep(from netip.AddrPort, d []byte, cid, number uint64) (a *Assoc, kept bool) {
	if m.early.Load() == 0 {
		return m.find(cid), false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.table[cid]; a != nil {
		return a, false
	}
	l := m.limbo[from]
	if l == nil || len(m.limbo) > maxLimbo || len(l.datagrams) >= limboCount || l.bytes+len(d) > maxLimboBytes {
		return nil, false
	}
	l.bytes += len(d)
	l.datagrams = append(l.datagrams, early{cid, number, slices.Clone(d)})
	return nil, true
}

// answer is the goroutine that answers the handshakes of others.
func (m *Mux) answer(responder *secure.Responder) {
	defer responder.Close()
	timer := time.NewTimer(m.cfg.HandshakeTimeout)
	defer timer.Stop()
	for {
		select {
		case <-m.done:
			return
		case f := <-m.finishes:
			m.finished(responder, f)
			m.awaited(f.from)
		case f := <-m.offers:
			m.offered(responder, f)
		case <-timer.C:
			timer.Reset(m.cfg.HandshakeTimeout)
			responder.Expire(m.now())
			m.expire()
			continue
		}
		if len(m.offers)+len(m.finishes) == 0 {
			m.cfg.Secure.Prepare()
		}
	}
}

// expire forgets where answers went long ago.
func (m *Mux) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for addr, until := range m.answered {
		if until <= now {
			delete(m.answered, addr)
		}
	}
}

// offered answers a first flight.
func (m *Mux) offered(responder *secure.Responder, f flight) {
	m.mu.RLock()
	full := m.held >= m.cfg.Associations
	m.mu.RUnlock()
	if full {
		m.stats.overload.Add(1)
		return
	}
	var buf [secure.FlightSize]byte
	before := responder.Stats().Answered
	b, err := responder.Answer(buf[:0], f.from, f.Flight, m.now())
	if err != nil {
		m.stats.refusedFlights.Add(1)
		return
	}
	if responder.Stats().Answered != before {
		m.mu.Lock()
		m.answered[f.from] = m.now() + m.cfg.HandshakeTimeout
		m.mu.Unlock()
	}
	m.write(b, f.from)
}

// finished takes a third flight.
func (m *Mux) finished(responder *secure.Responder, f flight) {
	link, err := responder.Finish(f.from, f.Flight, m.now())
	switch {
	case errors.Is(err, secure.ErrRepeated):
		if cid, ok := responder.Complete(f.from, f.Flight); ok {
			if a := m.find(cid); a != nil {
				a.Ping() // confirms once more
			}
		}
		return
	case err != nil:
		m.stats.refusedFlights.Add(1)
		return
	}
	m.mu.Lock()
	delete(m.answered, f.from)
	m.mu.Unlock()
	if m.hold() != nil {
		m.stats.overload.Add(1)
		return
	}
	m.stats.accepted.Add(1)
	a := m.newAssoc(link, f.from, 0)
	a.state = open
	m.cfg.Accept(a)
	m.welcome(a, f.from)
	a.Ping() // confirms
}

// welcome puts an association into the table, behind what came early for it.
func (m *Mux) welcome(a *Assoc, from netip.AddrPort) {
	var g group
	for {
		mine, done := m.settle(a, from)
		if done {
			m.mu.RLock()
			err := m.failure
			m.mu.RUnlock()
			if err != nil {
				a.abort(err)
			}
			return
		}
		for _, e := range mine {
			g.assoc, g.from = a, from
			g.data[0], g.numbers[0], g.n = e.data, e.number, 1
			m.deliver(&g, m.now())
		}
	}
}

// settle takes what came early for an association out of the limbo of its
// address. When there is nothing, it makes the association known.
func (m *Mux) settle(a *Assoc, from netip.AddrPort) (mine []early, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	cid := a.link.Local.CID
	if l := m.limbo[from]; l != nil {
		l.datagrams = slices.DeleteFunc(l.datagrams, func(e early) bool {
			if e.cid == cid {
				mine = append(mine, e)
				l.bytes -= len(e.data)
			}
			return e.cid == cid
		})
	}
	if a.state == ended || len(mine) > 0 {
		return mine, a.state == ended
	}
	m.table[cid] = a
	return nil, true
}
