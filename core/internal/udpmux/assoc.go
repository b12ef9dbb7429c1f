package udpmux

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/arq"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// state is where an association is in its life:
//
//	answered --Commit--> open --Close, broken protocol--> closing --1 s--> ended
//	answered --Close--> ended
//	open --peer closes, silence, socket gone--> ended
//
// An association that the peer began is open from the start.
type state uint8

const (
	answered state = iota // the peer has proved itself and knows nothing of us
	open
	shutting // the peer is being told
	ended
)

const (
	// baseMTU is the plaintext in bytes that a path of 1280 bytes takes.
	baseMTU = 1280 - 48 - secure.SealOverhead
	// nearMTU is the largest plaintext over loopback: packets there may have 64 KiB,
	// but windows count in datagrams, and those of many peers would not fit into the
	// socket's buffer. Four make a run.
	nearMTU = 16300

	// minBacklog is how many bytes of packets may wait beside what the window
	// takes next: two of the largest.
	minBacklog = 2 * arq.MaxPacket

	// finishWait is when the third flight is repeated; the wait doubles.
	finishWait    = 250 * time.Millisecond
	maxFinishWait = 2 * time.Second
	// lingering is how long the peer is told that this end has closed: at once,
	// after farewellWait, after three times as long again, and when something
	// comes from it, maxReplies times, replyWait or more after the last.
	lingering    = time.Second
	farewellWait = 100 * time.Millisecond
	replyWait    = 10 * time.Millisecond
	maxReplies   = 3
)

// CloseError is why an association ended that the peer closed.
type CloseError struct{ Reason arq.Reason }

// Error says that the peer closed; the number is wire.Reason's.
func (e *CloseError) Error() string { return fmt.Sprintf("the peer closed: reason %d", e.Reason) }

// Handlers take what comes from a peer. A nil one drops it. They must not block,
// since one goroutine reads for all peers, the Mux's own or that of a Borrower; they
// may call any method of any Assoc. Slices are valid during the call only. Packet and
// Datagram are called by one goroutine at a time, in the order of arrival.
type Handlers struct {
	// Packet is a packet of the peer's SendPacket.
	Packet func(p []byte)
	// Datagram is one of the peer's SendDatagram.
	Datagram func(p []byte)
	// Ready says that there is room again after SendPacket returned false.
	Ready func()
	// Closed says why the association ended, once, unless Close ended it: a
	// CloseError, ErrSilent, ErrUnconfirmed, net.ErrClosed after the Mux's Close,
	// secure.ErrWornOut, an error that wraps arq.ErrProtocol, or what made the
	// socket useless. No packet or datagram comes after it.
	Closed func(why error)
}

// Assoc is an association: sealed datagrams between this end and one peer that
// has proved its identity. Its methods may be called from any goroutine.
type Assoc struct {
	mux  *Mux
	link *secure.Associated

	touched bool // of who has the turn to read: to be flushed after the batch

	// opening guards the opening half of link.Box. It is taken before mu or
	// without it.
	opening sync.Mutex

	// mu guards what follows. Mux.mu may be taken under it. The sealing half
	// of link.Box belongs to whoever has set flushing.
	mu        sync.Mutex
	state     state
	machine   *arq.Conn // nil from shutting on
	handlers  Handlers
	why       error // why it ended
	untold    bool  // Closed is to be called
	addr      netip.AddrPort
	moves     uint64
	heard     time.Duration
	refused   bool          // SendPacket has returned false
	flushing  bool          // somebody is in flush
	scheduled bool          // somebody is about to be
	flushed   time.Duration // when flush last ended
	sinceGap  int           // datagrams since a number was left out
	timer     *time.Timer
	timerAt   time.Duration // when it fires; never when it is not set

	// paths that are not proved
	paths [maxPaths]path
	turn  int // which to replace next

	// the third flight, until the peer confirms it
	initiator  *secure.Initiator // nil when confirmed
	begun      time.Duration     // Commit
	finishAt   time.Duration
	finishWait time.Duration

	// good-byes, while shutting
	farewell     []byte
	replies      int
	saidAt       time.Duration
	sayAt        time.Duration
	sayWait      time.Duration
	lingersUntil time.Duration
}

func (m *Mux) newAssoc(link *secure.Associated, addr netip.AddrPort, rtt time.Duration) *Assoc {
	now := m.now()
	most := 1500 - 28 - secure.SealOverhead
	switch {
	case addr.Addr().IsLoopback():
		most = nearMTU
	case addr.Addr().Is6():
		most -= 20
	}
	return &Assoc{
		mux: m, link: link, addr: addr, heard: now, timerAt: never, flushed: -time.Second,
		machine: arq.New(arq.Config{
			MTU: baseMTU, MaxMTU: most, SendBuffer: m.cfg.SendBuffer, ReceiveBuffer: m.cfg.ReceiveBuffer,
			DatagramBuffer: m.cfg.DatagramBuffer, RTT: rtt, Seed: rand.Uint64(),
		}, now),
	}
}

// Remote returns what the peer said of itself in the handshake.
func (a *Assoc) Remote() secure.Hello { return a.link.Remote }

// Cipher returns what seals the datagrams.
func (a *Assoc) Cipher() secure.Cipher { return a.link.Cipher }

// Initiator reports whether this end dialled.
func (a *Assoc) Initiator() bool { return a.link.Initiator }

// LocalAddr returns where the socket listens.
func (a *Assoc) LocalAddr() netip.AddrPort { return a.mux.conn.LocalAddr() }

// RemoteAddr returns where the peer is now. It changes when the peer's NAT does.
func (a *Assoc) RemoteAddr() netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addr
}

// SetHandlers says who takes what comes: inside Config.Accept, or before Commit.
// When the association has ended already, Closed is called at once.
func (a *Assoc) SetHandlers(h Handlers) {
	a.mu.Lock()
	a.handlers = h
	a.mu.Unlock()
	a.tell()
}

// Commit lets the peer know who we are, after Dial: from now on packets may be
// sent and come. Until the peer confirms, the third flight is repeated. The
// error is ErrState, or why the Mux takes no more.
func (a *Assoc) Commit() error {
	a.mu.Lock()
	if a.state != answered {
		a.mu.Unlock()
		return ErrState
	}
	if err := a.mux.enter(a); err != nil {
		a.mu.Unlock()
		return err
	}
	a.mux.stats.dialled.Add(1)
	now := a.mux.now()
	a.state, a.begun, a.heard, a.finishWait = open, now, now, finishWait
	a.finish(now)
	a.arm(now)
	a.mu.Unlock()
	return nil
}

// finish sends the third flight. Called with the lock held, which makes sure that
// it goes before sealed datagrams.
func (a *Assoc) finish(now time.Duration) {
	var b [secure.FlightSize]byte
	if d, err := a.initiator.Finish(b[:0]); err == nil {
		a.mux.write(d, a.addr)
	}
	a.finishAt = now + a.finishWait
	a.finishWait = min(2*a.finishWait, maxFinishWait)
}

// SendPacket queues a packet of 1 to arq.MaxPacket bytes, which is not kept,
// and sends what may go. The peer's Packet gets it, whole, once, in order, unless
// the association ends. It reports false when the association is not open, or
// when there is no room: then Handlers.Ready is called when there is again.
func (a *Assoc) SendPacket(p []byte) bool {
	a.mu.Lock()
	if a.state != open {
		a.mu.Unlock()
		return false
	}
	if a.backlog() > 0 || !a.machine.Send(p) {
		a.refused = true
		a.mu.Unlock()
		return false
	}
	a.kick()
	return true
}

// backlog returns how many bytes wait beyond what is useful, below zero when there
// is room: what cannot go out soon is better kept where it can still be
// overtaken. Called with the lock held.
func (a *Assoc) backlog() int {
	s := a.machine.Stats()
	return s.Queued - s.InFlight - s.Window - minBacklog
}

// SendDatagram queues an unreliable datagram, which is not kept, and sends what
// may go. It goes before packets; when too many wait, the oldest are dropped.
// The error is net.ErrClosed when the association is not open, or wraps
// arq.ErrTooBig.
func (a *Assoc) SendDatagram(p []byte) error {
	a.mu.Lock()
	if a.state != open {
		a.mu.Unlock()
		return net.ErrClosed
	}
	if err := a.machine.SendDatagram(p); err != nil {
		a.mu.Unlock()
		return err
	}
	a.kick()
	return nil
}

// MaxDatagram returns the largest datagram that SendDatagram takes now, in
// bytes; 0 when the association is over. It changes with the path.
func (a *Assoc) MaxDatagram() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.machine == nil {
		return 0
	}
	return a.machine.MaxDatagram()
}

// Ping makes the peer answer at once, for a fresh measure of the round trip, and
// to keep a NAT's mapping.
func (a *Assoc) Ping() {
	a.mu.Lock()
	if a.state != open {
		a.mu.Unlock()
		return
	}
	a.machine.Ping()
	a.kick()
}

// Stats returns figures as of now: only Idle and Moves when it is over.
func (a *Assoc) Stats() AssocStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := AssocStats{Idle: a.mux.now() - a.heard, Moves: a.moves}
	if a.machine != nil {
		s.Stats = a.machine.Stats()
	}
	return s
}

// Close ends the association at once: what has not arrived may be lost, and no
// handler is begun any more. The peer is told why, unless Commit was never called: then
// it never learns that there was anything. It may be called again.
func (a *Assoc) Close(reason arq.Reason) {
	a.shut(reason, nil)
	a.flush()
}

// shut begins to tell the peer that this end is gone, and why to the handlers,
// unless it is nil.
func (a *Assoc) shut(reason arq.Reason, why error) {
	a.mu.Lock()
	switch a.state {
	case answered:
		a.over(why)
	case open:
		a.state = shutting
		a.why, a.untold = why, why != nil
		a.farewell = a.machine.Close(nil, 0, reason) // its last call: the number does not matter
		a.machine, a.refused = nil, false
		now := a.mux.now()
		a.sayAt, a.sayWait, a.lingersUntil = now, farewellWait, now+lingering
	case shutting:
		a.sayAt = 0 // once more
	}
	a.mu.Unlock()
	a.tell()
}

// abort ends the association without a word to the peer.
func (a *Assoc) abort(why error) {
	a.mu.Lock()
	a.over(why)
	a.mu.Unlock()
	a.tell()
}

// over frees everything. Called with the lock held; tell must follow.
func (a *Assoc) over(why error) {
	if a.state == ended {
		return
	}
	if a.state != shutting {
		a.why, a.untold = why, why != nil
	}
	if a.state == answered {
		a.mux.release()
	} else {
		a.mux.leave(a)
	}
	a.state, a.machine, a.initiator = ended, nil, nil
	if a.timer != nil {
		a.timer.Stop()
	}
	if !a.flushing {
		a.link.Box.ZeroSeal()
	}
}

// tell calls Closed if that is due. The lock is not held. It erases the opening
// half of an association that is over.
func (a *Assoc) tell() {
	a.mu.Lock()
	closed, why := a.handlers.Closed, a.why
	due := a.untold && closed != nil
	if due {
		a.untold = false
	}
	over := a.state == ended
	a.mu.Unlock()
	if over {
		a.opening.Lock()
		a.link.Box.ZeroOpen()
		a.opening.Unlock()
	}
	if due {
		closed(why)
	}
}

// enter puts an association into the table, where the reader finds it. It was
// held before.
func (m *Mux) enter(a *Assoc) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fault(); err != nil {
		return err
	}
	cid := a.link.Local.CID
	if m.table[cid] != nil {
		return fmt.Errorf("association %x: %w", cid, ErrState)
	}
	m.table[cid] = a
	return nil
}

// leave takes an association out.
func (m *Mux) leave(a *Assoc) {
	m.mu.Lock()
	if m.table[a.link.Local.CID] == a {
		delete(m.table, a.link.Local.CID)
	}
	m.mu.Unlock()
	m.release()
}
