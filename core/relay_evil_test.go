package crust_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// evilRelay is a relay that does to the bytes of circuits what it likes. It is the
// decider of all its sessions, and carries one circuit at a time between two peers.
type evilRelay struct {
	t      *testing.T
	secure *secure.Config
	id     crust.PeerID
	lives  sync.WaitGroup
	tamper func(n int, data []byte) [][]byte   // what to send for the n-th frame of data
	see    func(t wire.FrameType, body []byte) // nil, or takes frames instead of carrying
	liar   bool                                // it announces circuits as another peer's
	// signal is nil, or takes signals of a peer.
	signal func(from crust.PeerID, t wire.FrameType, body []byte)
	// hold is nil, or says how late a frame of a peer goes on, or with a late below zero
	// that it does not; and of data, in pieces of how many bytes, each so late after the
	// one before, or 0 for in one.
	hold func(from crust.PeerID, t wire.FrameType) (late time.Duration, pieces int)
	// give is nil, or says which key an opener gets that takes one, of all that the target has
	// ever left, the newest last, and of which the target is told.
	give func(target crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey)
	// keep reports whether it keeps a frame of a session to itself; nil: it keeps none.
	keep func(sess *session.Session, t wire.FrameType, body []byte) bool

	mu       sync.Mutex
	sessions map[crust.PeerID]*session.Session
	ways     map[wayID]wayID // both directions
	next     uint32
	frames   int
	early    int // frames of data that were sealed for a key
	left     map[crust.PeerID][]wire.OneTimeKey
	due      map[*session.Session]time.Time // when the last frame that is held goes on, by where
}

// wayID is an end of a circuit.
type wayID struct {
	sess *session.Session
	id   uint32
}

func newEvilRelay(t *testing.T, h *simnet.Host, key *identity.Key, tamper func(n int, data []byte) [][]byte) *evilRelay {
	e := &evilRelay{
		t: t, id: key.ID(), tamper: tamper, sessions: map[crust.PeerID]*session.Session{}, ways: map[wayID]wayID{},
		secure: &secure.Config{
			Key: key, Network: secure.NewNetwork(""), Seen: new(secure.Seen), Images: new(secure.Images),
			Hello: wire.Hello{Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120_000, Flags: wire.FlagRelay},
		},
	}
	l, err := h.Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:9"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	e.lives.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			e.Go(func() { e.serve(conn) })
		}
	})
	return e
}

// serve makes a session of a connection.
func (e *evilRelay) serve(conn net.Conn) {
	link, err := secure.Respond(conn, e.secure)
	if err != nil {
		conn.Close()
		return
	}
	if _, _, err := session.Await(link); err != nil { // the claim
		conn.Close()
		return
	}
	e.mu.Lock()
	name := wire.SessionID{byte(len(e.sessions) + 1)}
	e.mu.Unlock()
	cfg := session.Config{
		Heartbeat: 20 * time.Second, LostAfter: 120 * time.Second, CloseTimeout: time.Second, MaxAge: time.Minute,
		SendQueue: 4 << 20, ResendBuffer: 8 << 20,
	}
	sess := session.New(link, name, cfg, e, wire.Chosen{Session: name}.Append(nil))
	e.mu.Lock()
	e.sessions[link.Remote.Peer] = sess
	e.mu.Unlock()
	sess.Start()
}

// Relay carries circuits, in its way.
func (e *evilRelay) Relay(sess *session.Session, _ session.Line, t wire.FrameType, body []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.see != nil {
		e.see(t, body)
		return nil
	}
	if e.keep != nil && e.keep(sess, t, body) {
		return nil
	}
	late, pieces := time.Duration(0), 0
	if e.hold != nil {
		if late, pieces = e.hold(sess.Remote().Peer, t); late < 0 {
			return nil
		}
	}
	send := func(to *session.Session, frame []byte) { e.pass(to, frame, late, pieces > 0) }
	switch t {
	case wire.FrameRelayOpen:
		open, err := wire.ParseRelayOpen(body)
		if err != nil {
			return err
		}
		to := e.sessions[open.Peer]
		e.next++
		here, there := wayID{sess, open.ID}, wayID{to, e.next<<1 | 1}
		e.ways[here], e.ways[there] = there, here
		from := sess.Remote().Peer
		if e.liar {
			from[5] ^= 1
		}
		announce := wire.RelayOpen{ID: there.id, From: true, Peer: from}
		if open.Keyed && e.give != nil {
			key, named := e.give(open.Peer, e.left[open.Peer])
			if named != nil {
				announce.Keyed, announce.Key = true, named.Name()
			}
			if key != nil {
				send(sess, wire.AppendRelayKey(nil, open.ID, key))
			}
		}
		send(to, announce.Append(nil))
	case wire.FrameRelayKeys:
		keys, err := wire.ParseRelayKeys(body)
		if err != nil {
			return err
		}
		if e.left == nil {
			e.left = map[crust.PeerID][]wire.OneTimeKey{}
		}
		e.left[sess.Remote().Peer] = append(e.left[sess.Remote().Peer], keys.Keys...)
	case wire.FrameRelayData, wire.FrameRelayEarly:
		id, data, err := wire.ParseRelayBytes(t, body)
		if err != nil {
			return err
		}
		var name []byte
		if t == wire.FrameRelayEarly {
			e.early++
			name, data = bytes.Clone(data[:8]), data[8:]
		}
		e.frames++
		if to, ok := e.ways[wayID{sess, id}]; ok {
			for _, d := range e.tamper(e.frames, bytes.Clone(data)) {
				for part := range slices.Chunk(d, cmp.Or(pieces, len(d))) {
					send(to.sess, wire.AppendRelayAs(nil, t, to.id, append(name[:len(name):len(name)], part...)))
				}
			}
		}
	case wire.FrameRelayCredit:
		id, n, err := wire.ParseRelayCredit(body)
		if to, ok := e.ways[wayID{sess, id}]; ok && err == nil {
			send(to.sess, wire.AppendRelayCredit(nil, to.id, n))
		}
	case wire.FrameRelayClose:
		id, r, err := wire.ParseRelayClose(body)
		if to, ok := e.ways[wayID{sess, id}]; ok && err == nil {
			send(to.sess, wire.AppendRelayClose(nil, to.id, r))
		}
	}
	return nil
}

// pass sends a frame so much later, behind all that are held, or so much behind them.
// mu is held.
func (e *evilRelay) pass(to *session.Session, frame []byte, late time.Duration, behind bool) {
	send := func() {
		if at, ok := to.At(); ok {
			to.SendLow(at, frame)
		}
	}
	now := time.Now()
	if e.due == nil {
		e.due = map[*session.Session]time.Time{}
	}
	switch at := later(e.due[to], now); {
	case late == 0 && at == now:
		send()
		return
	case at.Sub(now) > 10*time.Minute: // nobody will wait for it
		return
	case behind:
		e.due[to] = at.Add(late)
	default:
		e.due[to] = later(at.Add(1), now.Add(late))
	}
	time.AfterFunc(e.due[to].Sub(now), send)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (e *evilRelay) Deliver(_ *session.Session, _ []session.Message, buffers []*session.Buffer, _ bool) bool {
	for _, b := range buffers {
		b.Release()
	}
	return true
}

func (e *evilRelay) Go(f func())                       { e.lives.Go(f) }
func (e *evilRelay) Lend(*session.Turn) bool           { return false }
func (e *evilRelay) Datagram(*session.Session, []byte) {}
func (e *evilRelay) Control(sess *session.Session, t wire.FrameType, body []byte) error {
	if e.signal != nil {
		e.signal(sess.Remote().Peer, t, body)
	}
	return nil
}
func (e *evilRelay) Answered(*session.Session, session.Line, wire.FrameType, []byte) error {
	return nil
}
func (e *evilRelay) Writable(*session.Session)                       {}
func (e *evilRelay) Dropped(*session.Session, uint8, uint64, uint64) {}
func (e *evilRelay) Receipts(*session.Session, []uint64, error)      {}
func (e *evilRelay) Unlinked(*session.Session, error)                {}
func (e *evilRelay) Moving(*session.Session) bool                    { return false }
func (e *evilRelay) Suspended(*session.Session, error)               {}
func (e *evilRelay) Resumed(*session.Session)                        {}
func (e *evilRelay) Ended(*session.Session, error)                   {}
func (e *evilRelay) Fault(_ *session.Session, fault any)             { e.t.Errorf("panic: %v", fault) }

// newestKey gives what an honest relay would.
func newestKey(_ crust.PeerID, left []wire.OneTimeKey) (key, named *wire.OneTimeKey) {
	if len(left) == 0 {
		return nil, nil
	}
	k := left[len(left)-1]
	return &k, &k
}

// TestRelayEvil: whatever a relay does to a link that it carries, its ends deliver
// nothing but what was sent, once and in order, and notice.
func TestRelayEvil(t *testing.T) {
	var held [][]byte
	tampers := map[string]func(n int, d []byte) [][]byte{
		"flips":    func(_ int, d []byte) [][]byte { d[len(d)/2] ^= 4; return [][]byte{d} },
		"drops":    func(int, []byte) [][]byte { return nil },
		"replays":  func(_ int, d []byte) [][]byte { return [][]byte{d, d} },
		"cuts":     func(_ int, d []byte) [][]byte { return [][]byte{d[:(len(d)+1)/2]} },
		"adds":     func(_ int, d []byte) [][]byte { return [][]byte{append(d[:min(len(d), 9000)], 7)} },
		"exceeds":  func(int, []byte) [][]byte { return slices.Repeat([][]byte{filled(1000, 3)}, 600) },
		"reorders": func(_ int, d []byte) [][]byte { held = append(held, d); return nil },
	}
	for name, tamper := range tampers {
		for _, at := range []int{1, 2, 3, 5, 40} { // the handshake, the claim, messages
			for i := range 4 {
				forever, keyed := i%2 == 1, i/2 == 1
				t.Run(fmt.Sprint(name, at, forever, keyed), func(t *testing.T) {
					held = nil
					connected, messages, breaks := evil(t, false, keyed, func(n int, d []byte) [][]byte {
						if n == at || n > at && forever {
							return tamper(n, d)
						}
						out := append([][]byte{d}, held...)
						held = nil
						return out
					})
					if at == 40 && (!connected || messages == 0 || messages == evilMessages || breaks == 0) {
						t.Errorf("connected: %v, %d messages, %d times broken", connected, messages, breaks)
					}
				})
			}
		}
	}
}

// TestRelayFaithful: without tampering all messages come. When the relay lies about
// who has opened the circuit its target takes no session.
func TestRelayFaithful(t *testing.T) {
	faithful := func(_ int, d []byte) [][]byte { return [][]byte{d} }
	if connected, messages, breaks := evil(t, false, false, faithful); !connected || messages != evilMessages || breaks != 0 {
		t.Errorf("connected: %v, %d messages, %d times broken", connected, messages, breaks)
	}
	if connected, messages, breaks := evil(t, false, true, faithful); !connected || messages != evilMessages || breaks != 0 {
		t.Errorf("with keys: connected: %v, %d messages, %d times broken", connected, messages, breaks)
	}
	if connected, messages, _ := evil(t, true, false, faithful); connected || messages != 0 {
		t.Errorf("by a liar: connected: %v, %d messages", connected, messages)
	}
}

// evilMessages is how many messages are sent over an evil relay.
const evilMessages = 400

// evil connects two peers by an evil relay and sends messages from one to the
// other. What comes must be what was sent, up to some message. It returns whether
// the receiver was connected, how many messages came, and how often it was told of a
// loss. With keyed the relay gives the keys that it has, and the first messages go with the call.
func evil(t *testing.T, liar, keyed bool, tamper func(n int, data []byte) [][]byte) (connected bool, messages uint64, breaks int) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		ha, hb, hr := internet.Host("10.0.0.1"), internet.Host("10.0.0.2"), internet.Host("10.0.0.3")
		internet.Silence(ha, hb)
		keys := sortedKeys(t, 3)
		e := newEvilRelay(t, hr, keys[2], tamper)
		e.liar = liar
		if keyed {
			e.give = newestKey
		}
		cfg := over(crust.Config{Heartbeat: time.Second, LostAfter: 4 * time.Second, ResumeWindow: 5 * time.Second, ConnectTimeout: 5 * time.Second}, "0.0.0.0", "tcp")
		cfg.Identity = keys[0]
		a := newNode(t, crust.On(ha, cfg))
		cfg.Identity = keys[1]
		b := newNode(t, crust.On(hb, cfg))
		for _, n := range []*node{a, b} {
			if err := n.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.3:9"), Peer: e.id}, 1); err != nil {
				t.Fatal(err)
			}
			n.next(crust.EventConnected)
		}
		var first [][]byte
		for i := uint64(0); keyed && i < 5; i++ {
			first = append(first, filled(1000+int(i)*50, i))
		}
		if err := a.ConnectPeer(b.ID(), 2, first...); err != nil {
			t.Fatal(err)
		}
		begun := a.final(t, 2).Type == crust.EventConnected
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		var sender sync.WaitGroup
		sender.Go(func() {
			for i := uint64(len(first)); begun && i < evilMessages; i++ {
				if a.Send(b.ID(), filled(1000+int(i)*50, i), 1) != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		for ev := range b.Events(ctx) {
			switch ev.Type {
			case crust.EventMessage:
				if ev.Peer != a.ID() || !bytes.Equal(ev.Data, filled(1000+int(messages)*50, messages)) {
					t.Errorf("%d bytes of %v came where message %d was due", len(ev.Data), ev.Peer.Short(), messages)
				}
				messages++
			case crust.EventSuspended, crust.EventLost:
				if breaks++; ev.Peer != a.ID() {
					t.Errorf("%v of %v", ev.Type, ev.Peer.Short())
				}
			case crust.EventConnected:
				if connected = true; ev.Peer != a.ID() {
					t.Errorf("connected to %v", ev.Peer.Short())
				}
			}
			if messages == evilMessages {
				break
			}
		}
		cancel()
		sender.Wait()
		a.Close()
		b.Close()
		e.close()
	})
	return connected, messages, breaks
}

// close ends all sessions.
func (e *evilRelay) close() {
	e.mu.Lock()
	for _, s := range e.sessions {
		s.Kill(session.ErrDisconnected)
	}
	e.mu.Unlock()
}
