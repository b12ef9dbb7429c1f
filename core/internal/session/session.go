// Package session is one authenticated peer: what is queued for it, what it
// sends, and whether it is still there.
//
// A session has one goroutine that reads. Writing is done by whoever finds the
// write side free: a caller of Send seals and writes its message itself when
// nothing is queued and the link has been quiet; otherwise messages are queued,
// and a writer goroutine that lives as long as there is something to write takes
// all that has gathered, seals it and writes it at once. So a lone message
// costs no goroutine switch, and a flood costs one system call for thousands.
//
// A session outlives its links. Records of content are counted on both sides,
// and kept by the sender until the receiver has acknowledged them, so that
// another link goes on where the last one broke.
//
//	live ──Disconnect──▶ draining ──queue empty, Close frame sent──▶ finishing
//	  │                     │                                           │
//	  └── peer closes, protocol error, no link for too long, Kill ──────┴──▶ ended
//
// In each state but the last the session is on a line or, after a line broke,
// suspended until the next one.
package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Why a message is refused or a session ends.
var (
	ErrWouldBlock   = errors.New("the send queue is full")
	ErrTooBig       = errors.New("the message is over the limit of 2 MiB")
	ErrEnded        = errors.New("the session has ended")
	ErrDisconnected = errors.New("closed in order")
	ErrStopped      = errors.New("the peer stopped")
	ErrSilent       = errors.New("nothing was heard from the peer")
	ErrBroken       = errors.New("the connection broke")
	ErrProtocol     = errors.New("the peer broke the protocol")
	ErrReplaced     = errors.New("the peer came back as a new session")
	ErrOver         = errors.New("the peer has ended the session")
	ErrExpired      = errors.New("the message grew too old in the queue")
	ErrFault        = errors.New("a fault inside the library")
	// ErrAccused is ErrProtocol of a peer that says that we broke it.
	ErrAccused = fmt.Errorf("the peer says that we broke the protocol: %w", ErrProtocol)
	// ErrBanned is ErrDisconnected, and the peer wants no other session either.
	ErrBanned = fmt.Errorf("%w: the peer has blacklisted us", ErrDisconnected)
	// ErrFull is ErrDisconnected of a peer that says that it has no room.
	ErrFull = fmt.Errorf("%w: the peer has no room for the session", ErrDisconnected)
	// ErrElsewhere is ErrBroken of a link that the peer has refused for another one,
	// over which Close, too, is still to go.
	ErrElsewhere = fmt.Errorf("%w: the peer has chosen another link", ErrBroken)
)

// Message is one received message. Data lies in one of the buffers that are
// handed over with it.
type Message struct {
	Data     []byte
	Priority uint8
	own      bool // it fills a buffer alone
}

// Owner is who a session reports to. Its methods may block; none is called with
// a lock of the session held.
type Owner interface {
	// Deliver takes messages and one reference to each buffer. It blocks while
	// the program has no room and the session may not Overdraw, and reports whether
	// to go on. Without wait it does
	// not block, and reports false without taking anything when there is no room.
	Deliver(s *Session, messages []Message, buffers []*Buffer, wait bool) bool
	// Lend offers the turn to read, and reports whether it is accepted: whoever
	// waits for events then uses it by Take and Step.
	Lend(t *Turn) bool
	// Datagram takes a datagram, which is valid during the call only. It does not
	// block.
	Datagram(s *Session, data []byte)
	// Control takes the body of a FrameSeen, FrameEcho, FrameDoors, FrameSeek or FrameReply, which is
	// valid during the call only. It does not block. An error says how the peer
	// broke the protocol.
	Control(s *Session, t wire.FrameType, body []byte) error
	// Answered takes the body of the FrameClaim, FrameChosen or FrameRefused that
	// answers Begin, and the line that it came by. An error is why the line is of no
	// use: one that wraps ErrBroken when the session may go on over another one.
	Answered(s *Session, at Line, t wire.FrameType, body []byte) error
	// Relay takes the body of one of the frames of circuits, which is valid during
	// the call only, and the line that it came by. It does not block. An error says
	// how the peer broke the protocol.
	Relay(s *Session, at Line, t wire.FrameType, body []byte) error
	// Writable says that a queue which refused a message has drained to half.
	Writable(s *Session)
	// Dropped says that accepted messages were dropped for their age.
	Dropped(s *Session, priority uint8, count, bytes uint64)
	// Receipts is the last word on messages of SendReceipt: the peer's session has
	// them when why is nil.
	Receipts(s *Session, tokens []uint64, why error)
	// Unlinked says that the link is gone, why, and another one wanted. It comes at once,
	// from any goroutine.
	Unlinked(s *Session, why error)
	// Moving reports whether another link is about to come, so that the loss of
	// one is not worth telling yet.
	Moving(s *Session) bool
	// Suspended says that the link is gone, after all messages that came by it.
	Suspended(s *Session, why error)
	// Resumed says that the session goes on over another link, before all messages
	// that come by it. It need not follow Suspended.
	Resumed(s *Session)
	// Ended is the last call for a session, when all its goroutines but the
	// calling one are gone.
	Ended(s *Session, why error)
	// Fault says that the library panicked in a call of the program: with what.
	Fault(s *Session, fault any)
	// Go runs f in a goroutine that the owner joins.
	Go(f func())
}

// Config bounds a session. All fields must be set but ResumeWindow, Epoch, Budget and
// Partings.
type Config struct {
	Heartbeat    time.Duration
	LostAfter    time.Duration
	CloseTimeout time.Duration
	MaxAge       time.Duration
	ResumeWindow time.Duration // how long to wait for another link; zero: not at all
	SendQueue    int           // bytes
	ResendBuffer int           // bytes, at least MinResendBuffer
	// Epoch is of the owner, whose sessions look after their heartbeats at whole beats since
	// then, so that it is woken for many of them at once; zero: each when it likes.
	Epoch time.Time
	// Budget bounds what all sessions of the owner hold; nil: nothing does.
	Budget *Budget
	// Partings bounds the connections that Expel leaves for a while; nil: it leaves none.
	Partings *Partings
}

// tryWriter is a connection that can write without waiting; see netio.TryWriter.
type tryWriter interface {
	TryWrite(p []byte) (int, error)
}

// lazyReader is a connection that asks for a buffer when there is something to
// read; see netio.LazyReader.
type lazyReader interface {
	ReadLazy(get func() []byte) (int, error)
}

// soonReader is a connection that can be read without sleeping: it tries for as
// long as patience, and returns 0 and no error when nothing has come; see
// tcp.Conn.ReadSoon. It returns ErrLater, at once, when it can not try now and can
// after a read that sleeps.
type soonReader interface {
	ReadSoon(p []byte, patience time.Duration) (int, error)
}

// state is where a session is in its life, drawn in the package comment.
type state uint8

const (
	live state = iota
	draining
	finishing
	ended
)

// Counters count what a session has done.
type Counters struct {
	SentMessages, SentBytes         uint64
	ReceivedMessages, ReceivedBytes uint64
	DroppedMessages                 uint64
	WireSent, WireReceived          uint64
	Queued                          int
	Unacked                         int    // bytes kept until they are acknowledged
	Undelivered                     uint64 // messages queued or kept
	Resumed                         uint64 // times that the session went over to another link
	RTT                             time.Duration
}

// Session is made by New and begins with Start. Memory comes in steps, and there may be
// thousands: what is small lies together here and in inbox, so that none of it is filled up.
type Session struct {
	// constant after New
	cfg    Config
	owner  Owner
	remote wire.Hello
	window time.Duration // the lesser of both sides'; zero: nothing is kept
	base   time.Time     // origin of the session's clock
	hb     time.Duration
	phase  int64 // nanoseconds from Config.Epoch to base, -1 when there are no beats
	Tag    any   // the owner's

	// atomic
	link                atomic.Pointer[secure.Link] // the last one
	lastSent, lastHeard atomic.Int64                // session clock
	lastWhole           atomic.Int64                // when a record was complete
	paused              atomic.Bool                 // the reader waits for the program
	received, receivedB atomic.Uint64
	wireIn, wireOut     atomic.Uint64
	rtt                 atomic.Int64
	has                 atomic.Uint64 // records of content that have come

	account account // what it holds of Config.Budget

	// owned by the reader
	in inbox

	// owned by whoever set writing
	out       []byte
	outCounts int // bytes that out counts for

	// guarded by mu
	mu        sync.Mutex
	id        wire.SessionID
	why       error
	line      *line    // nil while suspended
	using     *line    // what the owner of the write side writes to
	reading   *line    // what the reader reads from
	cause     error    // why there is no line
	since     int64    // session clock when there was none
	queues    []*queue // by priority
	kept      backlog
	control   []byte // frames to go out before all messages
	low       lowQueue
	pong      uint64
	owing     int64  // session clock when all was acknowledged last, as far as ticks see
	overdrawn int    // bytes delivered since nothing is acknowledged
	borrowed  int    // of overdrawn: see account.borrow
	pingSent  uint64 // value of the outstanding ping, 0 when there is none
	alive     alive
	trip      int64 // the shortest round trip on the line in nanoseconds, 0 when none was measured
	queued    int   // bytes in queues and in out
	open      int32 // messages of which some pieces are out
	ticking   int32 // ticks that report drops
	tokens    int32 // receipts that are owed
	reason    wire.Reason
	state     state
	pongDue   bool
	ackDue    bool
	withheld  bool // nothing is acknowledged until Settle
	writing   bool
	started   bool
	refused   bool // a Writable is owed when half of the queue is free
	poor      bool // a call was refused memory, and is not told that there may be some
	tell      bool // and it is: the next writer tells
	atWire    bool // who has the write side is in a write, after which it only takes note of it
	finished  bool // nobody takes note any more
	answering bool // the reader's: it has the write side
	parting   *parting
	room      chan struct{}
	changed   chan struct{} // has room for one: another line has come
	starved   chan struct{} // has room for one: see Starved
	written   int64         // session clock at the end of the last write
	sent      uint64
	sentBytes uint64
	dropped   uint64
	resumed   uint64

	undelivered uint64 // messages of which nobody knows, when the session has ended

	timer    *time.Timer
	nextTick int64
	quit     chan struct{} // closed when state becomes ended
	done     chan struct{}

	// scrap is where the reader puts a pong, an acknowledgement and a ping. To allocate, or
	// to seal from deeper than inbox.loop, needs more than the smallest stack, 2 KiB,
	// which is all that the reader's goroutine of an idle session has.
	scrap [80]byte
}

// Begin is New for a session that the peer does not know of: frames in first tell
// it, and Owner.Answered takes what it says.
func Begin(link *secure.Link, id wire.SessionID, cfg Config, owner Owner, first []byte) *Session {
	s := New(link, id, cfg, owner, first)
	s.line.begun, s.line.asks = true, true
	return s
}

// New makes a session of its first link. Frames in first go out before anything
// else, in a record of control, behind what the link owes of its handshake.
func New(link *secure.Link, id wire.SessionID, cfg Config, owner Owner, first []byte) *Session {
	s := &Session{
		cfg: cfg, id: id, owner: owner, remote: link.Remote, base: time.Now(),
		changed: make(chan struct{}, 1), starved: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	s.window = min(cfg.ResumeWindow, time.Duration(link.Remote.Resume)*time.Millisecond)
	s.kept.retain = s.window > 0
	s.account.of = cfg.Budget
	s.in.s, s.in.want = s, smallRead
	s.line = newLine(link, first, 0)
	s.link.Store(link)
	s.hb = cfg.Heartbeat
	if theirs := time.Duration(link.Remote.LostAfter) * time.Millisecond / 4; theirs > 0 {
		s.hb = min(s.hb, max(theirs, leastHeartbeat))
	}
	s.phase = -1
	if !cfg.Epoch.IsZero() && s.hb >= leastBeats*Beat {
		s.phase = max(0, int64(s.base.Sub(cfg.Epoch)))
	}
	s.hb = spread(s.hb, id, link.Initiator)
	return s
}

const (
	// Beat is the time between two moments at which an owner's sessions look after their
	// heartbeats: what is sooner than it must be costs the less the longer they are
	// together.
	Beat = 250 * time.Millisecond
	// leastHeartbeat is how often a peer's short LostAfter is obeyed at most. It costs the
	// peer nothing to say so, and us a ping each time, in each of thousands of sessions; a
	// peer that hears less than it wants pings itself, and is answered.
	leastHeartbeat = 250 * time.Millisecond
	// leastBeats is how many of them a heartbeat must be: both sides' come less than that
	// sooner than spread has them an eighth apart.
	leastBeats = 16
)

// beat returns when the heartbeat is looked after that is due at a time: then, or less
// than a Beat before.
func (s *Session) beat(at int64) int64 {
	if s.phase < 0 {
		return at
	}
	return at - (at+s.phase)%int64(Beat)
}

// spread returns how long a session is silent of the time that it may be, for each
// another one: sessions that were begun together, or were written to together, shall not
// all speak at once ever after. The initiator's is always the shorter one, so that each
// time one side speaks and the other one need only answer. The id is random.
func spread(d time.Duration, id wire.SessionID, initiator bool) time.Duration {
	by := d * time.Duration(binary.BigEndian.Uint16(id[:])) / (1 << 16)
	if initiator {
		return d*7/8 - by/4
	}
	return d - by/8
}

// ID returns the name that both sides have for the session.
func (s *Session) ID() wire.SessionID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Link returns the link under the session, or the last one.
func (s *Session) Link() *secure.Link { return s.link.Load() }

// Remote returns what the peer told about itself on the first link.
func (s *Session) Remote() *wire.Hello { return &s.remote }

// Live reports whether the session takes messages.
func (s *Session) Live() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == live
}

// Over reports whether the session has ended.
func (s *Session) Over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == ended
}

// Done is closed when the session has ended and its owner has been told.
func (s *Session) Done() <-chan struct{} { return s.done }

// Quit is closed when the link is given up; a Deliver that waits should return.
func (s *Session) Quit() <-chan struct{} { return s.quit }

// clock returns nanoseconds since the session was made.
func (s *Session) clock() int64 { return int64(time.Since(s.base)) }

// Start begins to read and write. On an accepted link, whose goroutine has
// nothing else to do, the calling goroutine becomes the first writer. Start may
// be called again, which does nothing.
func (s *Session) Start() {
	now := s.clock()
	s.lastSent.Store(now)
	s.heard(now)
	s.mu.Lock()
	if s.started {
		s.mu.Unlock()
		return
	}
	s.started = true
	s.account.of.join(s)
	initiator := true
	if l := s.line; l != nil {
		l.ready()
		initiator = l.link.Initiator
	}
	if s.state == live { // it may have been disconnected between New and Start
		first := s.soon()
		if !initiator { // whose ping comes with the answer to the initiator's, if that comes
			first += first / 4
		}
		s.nextTick = now + int64(first)
		s.timer = time.AfterFunc(first, s.onTimer)
	}
	write := !s.writing && s.sendable()
	s.writing = s.writing || write
	s.mu.Unlock()
	s.owner.Go(func() { // the session's own goroutine, the reader
		defer s.finishRun()
		for l := s.await(nil); l != nil; l = s.await(l) {
			s.in.begin(l)
			s.unlink(l, s.in.loop())
		}
		s.in.free()
	})
	switch {
	case write && initiator:
		s.owner.Go(s.write)
	case write:
		s.write()
	}
}

// soon is when the first ping on a line comes, to learn the round trip.
func (s *Session) soon() time.Duration { return min(time.Second, s.hb, s.cfg.LostAfter) }

// finishRun waits for the writer and reports the end. It runs also when the
// reader panics, whose memory is then left to the garbage collector.
func (s *Session) finishRun() {
	s.end(ErrFault)
	s.mu.Lock()
	if s.parting != nil {
		close(s.parting.unread)
	}
	if s.answering { // the reader had the write side when it panicked
		s.stopWriting()
	}
	for s.writing && !(s.atWire && s.parting != nil) || s.ticking > 0 { // its connection is closed, or it needs the session no more
		room := s.waitRoom()
		s.mu.Unlock()
		<-room
		s.mu.Lock()
	}
	if s.reading != nil {
		s.reading.link.Open.Zero()
	}
	tokens := s.kept.tokensLeft()
	s.undelivered += s.kept.messages()
	for _, q := range s.queues {
		tokens = append(tokens, q.tokensLeft()...)
		s.undelivered += q.messages()
		q.clear()
	}
	s.kept.clear()
	s.queues, s.control, s.out, s.queued, s.tokens, s.finished = nil, nil, nil, 0, 0, true
	s.clearLow()
	s.clearOverdraft()
	s.account.unforce(s.outCounts)
	s.outCounts = 0
	s.account.of.leave(s)
	why := s.why
	s.mu.Unlock()
	s.receipts(tokens, why)
	s.owner.Ended(s, why)
	close(s.done)
}

// receipts tells the owner the last word on messages.
func (s *Session) receipts(tokens []uint64, why error) {
	if len(tokens) > 0 {
		s.owner.Receipts(s, tokens, why)
	}
}

// end ends the session. The first reason counts.
func (s *Session) end(why error) {
	s.mu.Lock()
	if s.state == ended {
		s.mu.Unlock()
		return
	}
	l := s.stop(why)
	s.mu.Unlock()
	if l != nil {
		l.link.Conn.Close()
	}
}

// stop is end, but returns the line that is given up, if there was one, whose connection
// is to be closed. mu is held, and the session has not ended.
func (s *Session) stop(why error) *line {
	s.state = ended
	close(s.quit)
	if s.why == nil {
		s.why = why
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	l := s.drop()
	s.signalRoom()
	return l
}

// Kill ends the session at once.
func (s *Session) Kill(why error) { s.end(why) }

// Disconnect ends the session in order: what is queued goes out, then a Close
// frame with the reason, and what the peer has sent until then is delivered.
// After Config.CloseTimeout the session is ended in any case, and at once when it
// is suspended and has nothing to deliver. It returns at once.
func (s *Session) Disconnect(reason wire.Reason, why error) bool {
	return s.DisconnectWithin(s.cfg.CloseTimeout, reason, why)
}

// DisconnectWithin is Disconnect with another bound than Config.CloseTimeout.
func (s *Session) DisconnectWithin(d time.Duration, reason wire.Reason, why error) bool {
	s.mu.Lock()
	if s.state != live {
		s.mu.Unlock()
		return false
	}
	s.state, s.reason, s.why = draining, reason, why
	s.signalRoom()
	idle := s.line == nil && s.drained() && s.kept.empty()
	if !idle {
		s.endAfter(d, why)
		s.wake()
	}
	s.mu.Unlock()
	if idle {
		s.end(why)
	}
	return true
}

// endAfter ends the session after a while, unless it has ended before. mu is held.
func (s *Session) endAfter(d time.Duration, why error) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(d, func() { s.end(why) })
}

// drained reports whether no message is queued. mu is held.
func (s *Session) drained() bool {
	for _, q := range s.queues {
		if !q.empty() {
			return false
		}
	}
	return true
}

// halfClose tells the peer that nothing more comes.
func (s *Session) halfClose(l *line) {
	if c, ok := l.link.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite() //nolint:errcheck // the reader or the close timer ends the session
		return
	}
	s.end(nil)
}

// onTimer runs in a goroutine of the runtime.
func (s *Session) onTimer() {
	if !s.reassured() {
		s.spawn(s.tick)
	}
}

// spawn runs f in a goroutine that the owner joins.
func (s *Session) spawn(f func()) { s.owner.Go(f) }

// tick does what is due: heartbeat, detection of silence, dropping of old messages.
func (s *Session) tick() {
	now := s.clock()
	if s.paused.Load() {
		s.heard(now) // we do not listen, so we cannot say that the peer is silent
	}
	s.look(now)
	s.mu.Lock()
	if l := s.line; s.state == live && l != nil && now >= s.silentAt() {
		s.mu.Unlock()
		s.unlink(l, ErrSilent)
		s.mu.Lock()
	}
	if s.state != live {
		s.mu.Unlock()
		return
	}
	s.ticking++
	defer func() {
		s.mu.Lock()
		s.ticking--
		s.signalRoom()
		s.mu.Unlock()
	}()
	drops := s.expire(now)
	writable := s.owed()
	if due := s.beat(s.lastSent.Load() + int64(s.hb)); s.line != nil && (now >= due || s.rtt.Load() == 0 && s.pingSent == 0) {
		if len(s.control) == 0 { // else something is still to go out, which tells as much
			s.control = s.ping(s.control, now)
		}
		s.lastSent.Store(now) // a stalled link gets one heartbeat each interval, not one each tick
	}
	s.rest()
	s.owe(now)
	l, frames := s.claimBeat(now)
	s.schedule(now)
	s.mu.Unlock()
	if len(frames) > 0 {
		s.writeBeat(l, frames)
	}
	for _, d := range drops {
		s.owner.Dropped(s, d.priority, d.count, d.bytes)
		s.receipts(d.tokens, ErrExpired)
	}
	if writable {
		s.owner.Writable(s)
	}
}

// owe has what came acknowledged that was not for two heartbeats: frames of the low class
// put off the heartbeats with which acknowledgements go. mu is held.
func (s *Session) owe(now int64) {
	l := s.line
	switch {
	case l == nil || l.position.Load() == l.acked.Load():
		s.owing = now
	case now-s.owing >= 2*int64(s.hb) && !s.withheld:
		s.ackDue = true
		s.wake()
	}
}

// schedule sets the timer to the next thing due. mu is held.
func (s *Session) schedule(now int64) {
	if s.timer == nil || s.state != live { // not yet started
		return
	}
	s.nextTick = max(s.dueTick(now), now+int64(time.Millisecond))
	s.timer.Reset(time.Duration(s.nextTick - now))
}

// dueTick returns when the next thing is due. mu is held.
func (s *Session) dueTick(now int64) int64 {
	next := now + int64(s.cfg.LostAfter)
	if s.line != nil {
		next = min(s.beat(s.lastSent.Load()+int64(s.hb)), s.silentAt())
	}
	next = s.dueAlive(next, now)
	for _, q := range s.queues {
		if age, ok := q.oldest(); ok && q.priority > mustArrive {
			next = min(next, age+int64(s.cfg.MaxAge))
		}
	}
	return next
}

// Counters returns the counters.
func (s *Session) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	undelivered := s.undelivered + s.kept.messages()
	for _, q := range s.queues {
		undelivered += q.messages()
	}
	return Counters{
		Unacked: s.kept.bytes, Undelivered: undelivered, Resumed: s.resumed,
		SentMessages: s.sent, SentBytes: s.sentBytes, DroppedMessages: s.dropped, Queued: s.queued,
		ReceivedMessages: s.received.Load(), ReceivedBytes: s.receivedB.Load(),
		WireSent: s.wireOut.Load(), WireReceived: s.wireIn.Load(), RTT: time.Duration(s.rtt.Load()),
	}
}

// errHungUp is the end of the stream between two records.
var errHungUp = fmt.Errorf("%w: the peer hung up", ErrBroken)

// broken names the cause of a failed read or write.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrBroken
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}
