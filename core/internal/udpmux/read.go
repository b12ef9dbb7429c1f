package udpmux

import (
	"errors"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/arq"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// groupSize bounds the datagrams of one association that are taken under its
// lock at once.
const groupSize = 64

// group is what came for one association from one address.
type group struct {
	assoc   *Assoc // nil: nothing
	from    netip.AddrPort
	n       int
	data    [groupSize][]byte // datagrams, then texts
	numbers [groupSize]uint64
}

// reader is what who reads needs: the Mux's goroutine, or who has its turn.
type reader struct {
	group
	mux      *Mux
	packets  []netio.Packets
	last     *Assoc // whom the last datagram of a batch was for, if somebody
	now      time.Duration
	touched  []*Assoc // to be flushed after the batch
	bucket   bucket   // flights of anybody
	expected bucket   // flights from where there is a handshake, when that is empty
	flight   [secure.FlightSize]byte
	repeats  repeats

	received, receivedBytes uint64 // of the batch
}

// bucket bounds how often something is done.
type bucket struct {
	left float64
	at   time.Duration
}

// fill adds what the time has brought, and reports whether there is any.
func (b *bucket) fill(now time.Duration) bool {
	b.left = min(b.left+flightRate*(now-b.at).Seconds(), flightBurst)
	b.at = now
	return b.left >= 1
}

// newReader returns a reader with memory for readRuns runs.
func (m *Mux) newReader() *reader {
	full := bucket{left: flightBurst, at: m.now()}
	r := &reader{mux: m, packets: make([]netio.Packets, readRuns), bucket: full, expected: full}
	memory := make([]byte, readRuns*netio.ReadSize)
	for i := range r.packets {
		r.packets[i].Buf = memory[i*netio.ReadSize:][:netio.ReadSize:netio.ReadSize]
	}
	return r
}

// read is the goroutine that reads.
func (m *Mux) read() {
	r := m.turn.reader
	for {
		n, err := m.conn.ReadBatch(r.packets)
		if err != nil {
			m.fail(err)
			return
		}
		naps := m.turn.naps.Load()
		if lone := r.batch(n); lone != nil {
			m.lend(lone, naps)
		}
	}
}

// batch takes the first n runs of packets. It returns whom the batch was for when it
// was a single datagram for an association.
func (r *reader) batch(n int) (lone *Assoc) {
	m := r.mux
	r.now, r.last = m.now(), nil
	for i := range r.packets[:n] {
		r.run(&r.packets[i])
	}
	if r.received == 1 {
		lone = r.last
	}
	r.last = nil
	m.stats.received.Add(r.received)
	m.stats.receivedBytes.Add(r.receivedBytes)
	r.received, r.receivedBytes = 0, 0
	for i, a := range r.touched {
		a.touched = false
		r.touched[i] = nil
		a.flush()
	}
	r.touched = r.touched[:0]
	return lone
}

// run takes a run of datagrams.
func (r *reader) run(p *netio.Packets) {
	if r.mux.barred(p.Addr) {
		r.mux.stats.barred.Add(1)
		if r.mux.cfg.Knocked != nil {
			r.mux.cfg.Knocked(p.Addr.Addr())
		}
		return
	}
	r.from = p.Addr
	r.receivedBytes += uint64(p.N)
	for rest := p.Buf[:p.N]; ; {
		d := rest
		if p.Segment > 0 && len(d) > p.Segment {
			d = d[:p.Segment:p.Segment]
		}
		rest = rest[len(d):]
		r.received++
		r.sort(d)
		if len(rest) == 0 {
			break
		}
	}
	r.flushGroup()
}

// sort gives a datagram to whom it is for.
func (r *reader) sort(d []byte) {
	cid, number, ok := r.mux.header.Open(d)
	if !ok {
		r.stray(d)
		return
	}
	a := r.assoc
	if a == nil || a.link.Local.CID != cid {
		if a = r.mux.find(cid); a == nil {
			r.stranger(d, cid, number)
			return
		}
	}
	r.add(a, d, number)
}

// add gathers a datagram for an association.
func (r *reader) add(a *Assoc, d []byte, number uint64) {
	if a != r.assoc {
		r.flushGroup()
		r.assoc = a
	}
	r.last = a
	r.data[r.n], r.numbers[r.n] = d, number
	if r.n++; r.n == groupSize {
		r.flushGroup()
	}
}

// flushGroup delivers what has gathered.
func (r *reader) flushGroup() {
	a := r.assoc
	if a == nil {
		return
	}
	if r.mux.deliver(&r.group, r.now) && !a.touched {
		a.touched = true
		r.touched = append(r.touched, a)
	}
	r.assoc = nil
}

// find returns the association of a CID, or nil.
func (m *Mux) find(cid uint64) *Assoc {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.table[cid]
}

// deliver opens the datagrams of a group and lets the association have them. It
// reports whether that may make it send something.
func (m *Mux) deliver(g *group, now time.Duration) bool {
	a := g.assoc
	var trouble error
	news := false // one is newer than all before
	k := 0
	a.opening.Lock()
	box := a.link.Box
	highest, some := box.Highest()
	for i, d := range g.data[:g.n] {
		number := g.numbers[i]
		text, err := box.Open(d, number)
		switch {
		case err == nil:
			if !some || number > highest {
				highest, some, news = number, true, true
			}
			g.data[k], g.numbers[k] = text, number
			k++
		case errors.Is(err, secure.ErrReplayed):
			m.stats.replayed.Add(1)
		case errors.Is(err, secure.ErrWornOut):
			trouble = err
		default:
			m.stats.forged.Add(1)
		}
	}
	a.opening.Unlock()
	g.n = 0
	if trouble != nil {
		a.abort(trouble)
		return false
	}
	return k > 0 && a.receive(g, k, news, now)
}

// inlet is an Assoc as its machine sees it.
type inlet Assoc

var _ arq.Handler = (*inlet)(nil)

// receive takes the k texts of a group.
func (a *Assoc) receive(g *group, k int, news bool, now time.Duration) bool {
	a.mu.Lock()
	if a.state != open {
		again := a.state == shutting && a.replies < maxReplies && now-a.saidAt >= replyWait
		if again {
			a.replies++
			a.sayAt = now
		}
		a.mux.stats.ended.Add(uint64(k))
		a.mu.Unlock()
		return again
	}
	a.heard = now
	a.initiator = nil // the handshake is confirmed
	if news && g.from != a.addr {
		a.wander(g.from)
	}
	machine, before := a.machine, a.addr
	for i := range k {
		if err := machine.Receive(g.numbers[i], g.data[i], now, (*inlet)(a)); err != nil {
			a.mu.Unlock()
			a.mux.cfg.Log.Debug("a peer broke the datagram protocol", "peer", a.link.Remote.Peer, "error", err)
			a.shut(reasonProtocol, err)
			return true
		}
		if a.state != open {
			break
		}
	}
	over, ready, addr := a.state == ended, a.hasRoom(), a.addr
	a.mu.Unlock()
	if addr != before {
		a.mux.cfg.Log.Debug("a peer's address changed", "peer", a.link.Remote.Peer, "from", before, "to", addr)
	}
	if over {
		a.tell()
	}
	if ready != nil {
		ready()
	}
	return true
}

// hasRoom returns Ready when it is to be called. Called with the lock held.
func (a *Assoc) hasRoom() func() {
	if !a.refused || a.state != open || !a.ready() {
		return nil
	}
	a.refused = false
	return a.handlers.Ready
}

// ready reports whether a packet that was refused is worth another attempt.
// Called with the lock held.
func (a *Assoc) ready() bool {
	s := a.machine.Stats()
	return 2*a.backlog() <= -(s.Window+minBacklog) && 2*s.Queued <= a.mux.cfg.SendBuffer
}

// call calls a handler without the lock, which the machine allows between
// packets: others may send meanwhile, but nobody receives.
func (a *Assoc) call(f func([]byte), p []byte) {
	if f == nil || a.state != open {
		return
	}
	a.mu.Unlock()
	f(p)
	a.mu.Lock()
}

// Packet implements arq.Handler.
func (i *inlet) Packet(p []byte) { (*Assoc)(i).call(i.handlers.Packet, p) }

// Datagram implements arq.Handler.
func (i *inlet) Datagram(p []byte) { (*Assoc)(i).call(i.handlers.Datagram, p) }

// Response implements arq.Handler.
func (i *inlet) Response(token uint64) {
	if a := (*Assoc)(i); a.state == open {
		a.proved(token, a.mux.now())
	}
}

// Closed implements arq.Handler.
func (i *inlet) Closed(reason arq.Reason) { (*Assoc)(i).over(&CloseError{reason}) }
