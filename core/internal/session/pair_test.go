package session

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// usual is a configuration that nothing runs out of.
var usual = Config{
	Heartbeat: 20 * time.Second, LostAfter: 120 * time.Second, CloseTimeout: 5 * time.Second,
	MaxAge: 60 * time.Second, SendQueue: 4 << 20,
}

// resuming is usual with links that may break.
var resuming = func() Config {
	c := usual
	c.ResumeWindow, c.ResendBuffer = 30*time.Second, 8<<20
	return c
}()

// links returns both ends of an authenticated link over an in-memory network
// with the given buffer. dress, if not nil, wraps the first end's connection.
func links(t testing.TB, buffer int, dress func(*simnet.Conn) net.Conn) (a, b *secure.Link) {
	t.Helper()
	return linksBy(t, wire.CipherChaCha20Poly1305, buffer, dress)
}

// linksBy is links with ciphers that both ends offer.
func linksBy(t testing.TB, ciphers uint8, buffer int, dress func(*simnet.Conn) net.Conn) (a, b *secure.Link) {
	t.Helper()
	internet := simnet.New(1)
	internet.SetDefaultLink(simnet.Link{Buffer: buffer})
	ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
	at := netip.MustParseAddrPort("10.0.0.2:1")
	l, err := hb.Listen(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := ha.Dial(t.Context(), netip.AddrPort{}, at)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := dialled
	if dress != nil {
		conn = dress(dialled.(*simnet.Conn))
	}
	var config [2]*secure.Config
	for i := range config {
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		config[i] = &secure.Config{
			Key: key, Network: secure.NewNetwork("test"), Seen: new(secure.Seen),
			Hello: wire.Hello{Ciphers: ciphers, LostAfter: uint32(usual.LostAfter / time.Millisecond), Resume: 60_000},
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if a, err = secure.Initiate(conn, config[0], identity.PeerID{}); err == nil {
			err = Tell(a, nil)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if b, err = secure.Respond(accepted, config[1]); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return a, b
}

// told is what an owner was told, in order.
type told struct {
	what     string // message, relay, writable, dropped, receipts, unlinked, suspended, resumed, ended, fault
	data     []byte
	priority uint8
	count    uint64
	bytes    uint64
	why      error
}

// lives counts goroutines. A timer may start one while somebody waits, which a
// sync.WaitGroup does not allow.
type lives struct {
	mu      sync.Mutex
	running int
	ever    int
	idle    chan struct{}
}

func (l *lives) Go(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running++
	l.ever++
	go func() {
		defer func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.running--; l.running == 0 && l.idle != nil {
				close(l.idle)
				l.idle = nil
			}
		}()
		f()
	}()
}

// begun returns how many there have been.
func (l *lives) begun() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ever
}

func (l *lives) Wait() {
	l.mu.Lock()
	for l.running > 0 {
		if l.idle == nil {
			l.idle = make(chan struct{})
		}
		idle := l.idle
		l.mu.Unlock()
		<-idle
		l.mu.Lock()
	}
	l.mu.Unlock()
}

// owner records what it is told.
type owner struct {
	wg     lives
	gate   chan struct{} // nil, or Deliver waits until it is closed
	refuse error         // what Answered returns

	unlinked chan struct{} // nil, or is told when a link is wanted
	freeze   *freezer      // what begins waits until it runs
	moving   bool          // another link seems to be about to come

	mu     sync.Mutex
	events []told
	last   string
}

func (o *owner) tell(e told) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
	o.last = e.what
}

func (o *owner) Lend(*Turn) bool { return false }

func (o *owner) Deliver(s *Session, messages []Message, buffers []*Buffer, _ bool) bool {
	if o.gate != nil {
		select {
		case <-o.gate:
		case <-s.Quit():
			return false
		}
	}
	for _, m := range messages {
		o.tell(told{what: "message", data: bytes.Clone(m.Data), priority: m.Priority})
		clear(m.Data[:cap(m.Data)]) // it is ours: whoever else looked at it would notice
	}
	for _, b := range buffers {
		b.Release()
	}
	return true
}

func (o *owner) Control(*Session, wire.FrameType, []byte) error { return nil }

func (o *owner) Relay(_ *Session, _ Line, _ wire.FrameType, body []byte) error {
	o.tell(told{what: "relay", data: bytes.Clone(body)})
	if len(body) == 0 {
		return wire.ErrShort
	}
	return nil
}

func (o *owner) Datagram(_ *Session, data []byte) {
	o.tell(told{what: "datagram", data: bytes.Clone(data)})
}

func (o *owner) Answered(_ *Session, _ Line, t wire.FrameType, body []byte) error {
	o.tell(told{what: "answered", count: uint64(t), data: bytes.Clone(body)})
	return o.refuse
}

func (o *owner) Writable(*Session) { o.tell(told{what: "writable"}) }

func (o *owner) Dropped(_ *Session, priority uint8, count, n uint64) {
	o.tell(told{what: "dropped", priority: priority, count: count, bytes: n})
}

func (o *owner) Receipts(_ *Session, tokens []uint64, why error) {
	for _, token := range tokens {
		o.tell(told{what: "receipt", count: token, why: why})
	}
}

func (o *owner) Unlinked(*Session, error) {
	select {
	case o.unlinked <- struct{}{}:
	default:
	}
}

func (o *owner) Moving(*Session) bool { return o.moving }

func (o *owner) Suspended(_ *Session, why error) { o.tell(told{what: "suspended", why: why}) }

func (o *owner) Resumed(*Session) { o.tell(told{what: "resumed"}) }

func (o *owner) Ended(_ *Session, why error) { o.tell(told{what: "ended", why: why}) }

func (o *owner) Fault(_ *Session, fault any) { o.tell(told{what: "fault"}) }

func (o *owner) Go(f func()) {
	o.wg.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				o.tell(told{what: "fault"})
			}
		}()
		o.freeze.wait()
		f()
	})
}

// take returns what has been told since the last call.
func (o *owner) take() []told {
	o.mu.Lock()
	defer o.mu.Unlock()
	events := o.events
	o.events = nil
	return events
}

// all returns what of one kind has been told since the last take.
func (o *owner) all(what string) (list []told) {
	for _, e := range o.take() {
		if e.what == what {
			list = append(list, e)
		}
	}
	return list
}

// start starts a session. When the test ends it is killed; its last word must be
// that it has ended, and nothing of it be left.
func start(t testing.TB, link *secure.Link, cfg Config, o *owner) *Session {
	t.Helper()
	s := New(link, wire.SessionID{1}, cfg, o, nil)
	t.Cleanup(func() {
		s.Kill(ErrReplaced)
		<-s.Done()
		o.wg.Wait()
		if o.last != "ended" && o.last != "fault" {
			t.Errorf("the last word of a session was %q", o.last)
		}
		if n := s.Counters().Queued; n != 0 {
			t.Errorf("%d bytes are queued after the end", n)
		}
	})
	s.Start()
	return s
}

// pair starts a session on each end of a link.
func pair(t testing.TB, cfg Config, buffer int, dress func(*simnet.Conn) net.Conn) (a, b *Session, oa, ob *owner) {
	t.Helper()
	la, lb := links(t, buffer, dress)
	oa, ob = new(owner), new(owner)
	return start(t, la, cfg, oa), start(t, lb, cfg, ob), oa, ob
}

// numbered returns a message that says its number and is filled with it.
func numbered(size, number int) []byte {
	m := bytes.Repeat([]byte{byte(number)}, size)
	copy(m, []byte{byte(number >> 16), byte(number >> 8)})
	return m
}

// same fails unless the messages are the wanted ones in order.
func same(t testing.TB, got []told, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d messages arrived instead of %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].data, want[i]) {
			t.Fatalf("message %d of %d bytes arrived as %d other ones", i, len(want[i]), len(got[i].data))
		}
	}
}

// byPriority picks messages of one priority.
func byPriority(events []told, priority uint8) []told {
	return slices.DeleteFunc(slices.Clone(events), func(e told) bool { return e.what != "message" || e.priority != priority })
}
