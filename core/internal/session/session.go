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
//	live ──Disconnect──▶ draining ──queue empty, Close frame sent──▶ finishing
//	  │                     │                                           │
//	  └──── link breaks, peer closes, silence, protocol error ──────────┴──▶ ended
package session

import (
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
	ErrFault        = errors.New("a fault inside the library")
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
	// the program has no room, and reports whether to go on. Without wait it does
	// not block, and reports false without taking anything when there is no room.
	Deliver(s *Session, messages []Message, buffers []*Buffer, wait bool) bool
	// Lend offers the turn to read, and reports whether it is accepted: whoever
	// waits for events then uses it by Take and Step.
	Lend(t *Turn) bool
	// Writable says that a queue which refused a message has drained to half.
	Writable(s *Session)
	// Dropped says that accepted messages were dropped for their age.
	Dropped(s *Session, priority uint8, count, bytes uint64)
	// Ended is the last call for a session, when all its goroutines but the
	// calling one are gone.
	Ended(s *Session, why error)
	// Fault says that the library panicked in a call of the program: with what.
	Fault(s *Session, fault any)
	// Go runs f in a goroutine that the owner joins.
	Go(f func())
}

// Config bounds a session. All fields must be set.
type Config struct {
	Heartbeat    time.Duration
	LostAfter    time.Duration
	CloseTimeout time.Duration
	MaxAge       time.Duration
	SendQueue    int // bytes
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
// tcp.Conn.ReadSoon.
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
	RTT                             time.Duration
}

// Session is made by New and begins with Start.
type Session struct {
	// constant after New
	cfg   Config
	owner Owner
	link  *secure.Link
	try   tryWriter // nil when the connection has none
	base  time.Time // origin of the session's clock
	hb    time.Duration
	Tag   any // the owner's

	// atomic
	lastSent, lastHeard atomic.Int64 // session clock
	paused              atomic.Bool  // the reader waits for the program
	received, receivedB atomic.Uint64
	wireIn, wireOut     atomic.Uint64
	rtt                 atomic.Int64

	// owned by the reader
	in inbox

	// owned by whoever set writing
	out []byte

	// guarded by mu
	mu        sync.Mutex
	state     state
	why       error
	reason    wire.Reason
	queues    []*queue // by priority
	control   []byte   // frames to go out before all messages
	first     []byte   // the frames of New, a record of their own
	pongDue   bool
	pong      uint64
	pingSent  uint64 // value of the outstanding ping, 0 when there is none
	queued    int    // bytes in queues and in out
	open      int    // messages of which some pieces are out
	writing   bool
	ticking   int  // ticks that report drops
	refused   bool // a Writable is owed when half of the queue is free
	tell      bool // and it is: the next writer tells
	room      chan struct{}
	written   int64 // session clock at the end of the last write
	sent      uint64
	sentBytes uint64
	dropped   uint64
	timer     *time.Timer
	nextTick  int64
	quit      chan struct{} // closed when state becomes ended
	done      chan struct{}
}

// New makes a session of a link. Frames in first go out before anything else.
func New(link *secure.Link, cfg Config, owner Owner, first []byte) *Session {
	s := &Session{cfg: cfg, owner: owner, link: link, base: time.Now(), first: first, quit: make(chan struct{}), done: make(chan struct{})}
	s.try, _ = link.Conn.(tryWriter)
	s.in.init(s, link)
	s.hb = cfg.Heartbeat
	if theirs := time.Duration(link.Remote.LostAfter) * time.Millisecond / 4; theirs > 0 {
		s.hb = min(s.hb, max(theirs, 10*time.Millisecond))
	}
	return s
}

// Link returns the link under the session.
func (s *Session) Link() *secure.Link { return s.link }

// Live reports whether the session takes messages.
func (s *Session) Live() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == live
}

// Done is closed when the session has ended and its owner has been told.
func (s *Session) Done() <-chan struct{} { return s.done }

// Quit is closed when the link is given up; a Deliver that waits should return.
func (s *Session) Quit() <-chan struct{} { return s.quit }

// clock returns nanoseconds since the session was made.
func (s *Session) clock() int64 { return int64(time.Since(s.base)) }

// Start begins to read and write. On an accepted link, whose goroutine has
// nothing else to do, the calling goroutine becomes the first writer.
func (s *Session) Start() {
	s.link.Conn.SetDeadline(time.Time{}) //nolint:errcheck // a closed connection shows in the next read
	if c, ok := s.link.Conn.(interface{ SetNotSentLowat(bytes int) error }); ok {
		c.SetNotSentLowat(notSent) //nolint:errcheck // without it an urgent message waits for more that is in the kernel
	}
	now := s.clock()
	s.lastSent.Store(now)
	s.lastHeard.Store(now)
	s.mu.Lock()
	if s.state == live { // it may have been disconnected between New and Start
		first := min(time.Second, s.hb, s.cfg.LostAfter) // the first ping comes soon, to learn the round trip
		s.nextTick = now + int64(first)
		s.timer = time.AfterFunc(first, s.onTimer)
	}
	write := len(s.first) > 0 && !s.writing && s.state != ended
	s.writing = s.writing || write
	s.mu.Unlock()
	s.owner.Go(s.run)
	switch {
	case write && s.link.Initiator:
		s.owner.Go(s.write)
	case write:
		s.write()
	}
}

// run is the session's own goroutine.
func (s *Session) run() {
	defer s.finishRun()
	s.end(s.in.loop())
	s.in.free()
}

// finishRun waits for the writer and reports the end. It runs also when the
// reader panics, whose memory is then left to the garbage collector.
func (s *Session) finishRun() {
	s.end(ErrFault)
	s.mu.Lock()
	for s.writing || s.ticking > 0 { // its connection is closed: it is on its way out
		room := s.waitRoom()
		s.mu.Unlock()
		<-room
		s.mu.Lock()
	}
	for _, q := range s.queues {
		q.clear()
	}
	s.queues, s.control, s.out, s.queued = nil, nil, nil, 0
	why := s.why
	s.mu.Unlock()
	s.link.Seal.Zero()
	s.link.Open.Zero()
	s.owner.Ended(s, why)
	close(s.done)
}

// end closes the link. The first reason counts.
func (s *Session) end(why error) {
	s.mu.Lock()
	if s.state == ended {
		s.mu.Unlock()
		return
	}
	s.state = ended
	close(s.quit)
	if s.why == nil {
		s.why = why
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.signalRoom()
	s.mu.Unlock()
	s.link.Conn.Close()
}

// Kill ends the session at once.
func (s *Session) Kill(why error) { s.end(why) }

// Disconnect ends the session in order: what is queued goes out, then a Close
// frame with the reason, and what the peer has sent until then is delivered.
// After Config.CloseTimeout the link is closed in any case. It returns at once.
func (s *Session) Disconnect(reason wire.Reason, why error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != live {
		return false
	}
	s.state, s.reason, s.why = draining, reason, why
	s.signalRoom()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(s.cfg.CloseTimeout, func() { s.end(why) })
	if !s.writing {
		s.startWriter()
	}
	return true
}

// finish is called by the writer, with mu held, when the queue of a draining
// session is empty. It returns what is left to write.
func (s *Session) finish() []byte {
	s.state = finishing
	return wire.AppendReason(nil, wire.FrameClose, s.reason)
}

// halfClose tells the peer that nothing more comes.
func (s *Session) halfClose() {
	if c, ok := s.link.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite() //nolint:errcheck // the reader or the close timer ends the session
		return
	}
	s.end(nil)
}

// onTimer runs in a goroutine of the runtime.
func (s *Session) onTimer() { s.owner.Go(s.tick) }

// tick does what is due: heartbeat, detection of loss, dropping of old messages.
func (s *Session) tick() {
	now := s.clock()
	if s.paused.Load() {
		s.lastHeard.Store(now) // we do not listen, so we cannot say that the peer is silent
	}
	if now-s.lastHeard.Load() >= int64(s.cfg.LostAfter) {
		s.end(ErrSilent)
		return
	}
	s.mu.Lock()
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
	if due := s.lastSent.Load() + int64(s.hb); now >= due || s.rtt.Load() == 0 && s.pingSent == 0 {
		if len(s.control) == 0 { // else something is still to go out, which tells as much
			s.pingSent = uint64(now) + 1
			s.control = wire.AppendPing(s.control, wire.FramePing, s.pingSent)
		}
		s.lastSent.Store(now) // a stalled link gets one heartbeat each interval, not one each tick
		if !s.writing {
			s.startWriter()
		}
	}
	s.schedule(now)
	s.mu.Unlock()
	for _, d := range drops {
		s.owner.Dropped(s, d.priority, d.count, d.bytes)
	}
	if writable {
		s.owner.Writable(s)
	}
}

// schedule sets the timer to the next thing due. mu is held.
func (s *Session) schedule(now int64) {
	next := min(s.lastSent.Load()+int64(s.hb), s.lastHeard.Load()+int64(s.cfg.LostAfter))
	if s.timer == nil { // not yet started
		return
	}
	for _, q := range s.queues {
		if age, ok := q.oldest(); ok && q.priority > mustArrive {
			next = min(next, age+int64(s.cfg.MaxAge))
		}
	}
	s.nextTick = max(next, now+int64(time.Millisecond))
	s.timer.Reset(time.Duration(s.nextTick - now))
}

// Counters returns the counters.
func (s *Session) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Counters{
		SentMessages: s.sent, SentBytes: s.sentBytes, DroppedMessages: s.dropped, Queued: s.queued,
		ReceivedMessages: s.received.Load(), ReceivedBytes: s.receivedB.Load(),
		WireSent: s.wireOut.Load(), WireReceived: s.wireIn.Load(), RTT: time.Duration(s.rtt.Load()),
	}
}

// broken names the cause of a failed read or write.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrBroken
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}
