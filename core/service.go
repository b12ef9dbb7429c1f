package crust

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"iter"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/gossip"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/transport/utp"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Service is one node: an identity, its listeners, its peers and one queue of
// events. All methods may be called from any goroutine at any time. Nothing
// but SendWait, NextBatch, Events and Close blocks.
//
// The service owns every goroutine: each is started by spawn, which guards it
// against panics, and Close waits for all. mu guards the tables and nothing
// else; the order of locks is mu, then a session's, then the queue's; nothing is
// called out with one of them held.
type Service struct {
	// constant after New
	cfg       Config
	key       *identity.Key
	network   netio.Network
	secure    *secure.Config
	accepting *secure.Config // secure, for accepted connections
	session   session.Config
	log       *slog.Logger    // of logs
	ctx       context.Context // ends when the service begins to stop
	cancel    context.CancelFunc
	events    eventQueue
	halls     waitingRoom // accepted, not yet authenticated

	accept   atomic.Bool
	claimSeq atomic.Uint64
	choices  atomic.Uint64 // how often we have decided for a link

	datagramsSent, datagramsReceived, datagramsLost, ratePauses, refusedBanned, refusedHelp atomic.Uint64

	failure atomic.Pointer[Error] // why the service stopped by itself
	lives   lives
	below   lives // of the goroutines under the links, which end later
	stack   *utp.Stack
	post    post // letters

	circuits circuits
	watch    watch

	net     changes // of this machine's network
	mapping mapping // of ports, by routers

	book book // of peers that were reached
	lan  lan  // of peers that were heard

	gossip gossiping // of peers that others have told of

	guard guarding // accounts of the work that others make

	groups keeping // that are kept connected; guarded by mu
	census census  // of sessions; guarded by mu

	lists  lists  // of who is not wanted
	muting muting // of those who come all the same
	keys   keyLog
	logs   logs
	gates  gates

	// guarded by udpMu, which is taken with no other lock held
	udpMu   sync.Mutex
	sockets []*udpSocket // those of listeners first

	// guarded by mu
	mu         sync.Mutex
	stopping   bool
	pending    map[PeerID][]uint64 // seqs of our claims that await an answer
	tombs      map[PeerID]tombstone
	listeners  map[Endpoint]*listener
	attempts   map[*attempt]struct{}
	bootstrap  *attempt
	past       session.Counters // of ended sessions
	sessions   uint64
	failed     uint64    // connects
	made       infoFacts // of the last connection info that we made
	attemptSeq uint64
	listenSeq  uint64
	upgrading  int       // tries to get better links, now
	seeking    int       // suspended sessions whose peers are sought, now
	moved      time.Time // when this machine's network changed last
	stopped    chan struct{}

	// guarded by mu and lookup for writing, by either for reading
	peers  map[PeerID]*peer
	early  map[PeerID]*peer // hidden ones, of whom there is none in peers
	lookup sync.RWMutex
}

// New makes a service and starts its listeners. It returns an *Error with
// CodeInvalid when a field of cfg is out of bounds.
func New(cfg Config) (*Service, error) {
	cfg, err := cfg.check()
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, key: cfg.Identity, network: cfg.network,
		peers: make(map[PeerID]*peer), early: make(map[PeerID]*peer), pending: make(map[PeerID][]uint64), tombs: make(map[PeerID]tombstone),
		listeners: make(map[Endpoint]*listener), attempts: make(map[*attempt]struct{}), stopped: make(chan struct{}),
		muting: muting{stir: make(chan struct{}, 1)},
		session: session.Config{
			Heartbeat: cfg.Heartbeat, LostAfter: cfg.LostAfter, CloseTimeout: cfg.CloseTimeout,
			MaxAge: cfg.MessageMaxAge, SendQueue: cfg.SendQueue, ResumeWindow: cfg.ResumeWindow, ResendBuffer: cfg.ResendBuffer,
			Budget:   session.NewBudget(int64(cfg.MaxMemory)-cfg.apart(), cfg.MaxPeers),
			Partings: new(session.Partings),
			Epoch:    time.Now().Add(-mathrand.N(session.Beat)), // services that were made together shall not beat together
		},
	}
	s.openLogs()
	var instance [8]byte
	if _, err := rand.Read(instance[:]); err != nil {
		return nil, &Error{Op: "new", Code: CodeInternal, Err: err}
	}
	if err := s.openLists(); err != nil {
		return nil, err
	}
	if err := s.openGossip(); err != nil {
		return nil, err
	}
	s.secure = &secure.Config{
		Key: s.key, Network: secure.NewNetwork(cfg.NetworkName), Seen: new(secure.Seen), Early: new(secure.Seen), Images: new(secure.Images), Spare: new(secure.Spare),
		Hello: wire.Hello{
			AppID: bytes.Clone(cfg.AppID), Role: uint8(cfg.Role), Instance: binary.BigEndian.Uint64(instance[:]),
			Ciphers: wire.CipherChaCha20Poly1305, LostAfter: uint32(cfg.LostAfter / time.Millisecond), Resume: uint32(cfg.ResumeWindow / time.Millisecond),
			Unacked: uint32(min(uint64(cfg.ResendBuffer), math.MaxUint32)),
		},
	}
	if err := s.openKeyLog(); err != nil {
		return nil, err
	}
	s.secure.Ready = s.ready
	s.secure.Hello.Flags |= gossip.Mode(cfg.Gossip).Flags()
	if cfg.Relay == RelayData {
		s.secure.Hello.Flags |= wire.FlagRelay
	}
	if cfg.Cipher == CipherAuto && secure.HasAES() {
		s.secure.Hello.Ciphers |= wire.CipherAES256GCM
	}
	s.events.limit, s.events.onEvents = cfg.EventQueue, cfg.OnEvents
	s.halls.limit, s.halls.perAddress = cfg.MaxHandshakes, cfg.MaxHandshakesPerAddress
	s.accept.Store(!cfg.NoAccept)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if s.stack, err = utp.New(utp.Config{Go: s.spawnBelow, Linger: cfg.CloseTimeout}); err != nil {
		s.closeKeyLog()
		return nil, &Error{Op: "new", Code: CodeInternal, Err: err}
	}
	s.lan.mode = BeaconOff
	if s.lan.key, err = s.secure.NewBeaconKey(); err != nil {
		s.closeKeyLog()
		return nil, &Error{Op: "new", Code: CodeInternal, Err: err}
	}
	s.startLogs()
	s.startGuard()
	s.openBook()
	s.addServers()
	s.lookAround()
	if !cfg.NoListen {
		for _, ep := range cfg.Listen {
			s.listenFirst(ep)
		}
	}
	if cfg.PortRotation > 0 {
		s.spawn(s.rotate)
	}
	s.setBeacon(cfg.Beacon)
	s.watchNetwork()
	s.surveySoon(false)
	s.startGossip()
	s.logStarted()
	return s, nil
}

// ID returns who the service is.
func (s *Service) ID() PeerID { return s.key.ID() }

// Listen starts one more listener and returns the endpoint it really got. It
// also queues EventListenerStarted or EventListenerFailed.
func (s *Service) Listen(ep Endpoint) (Endpoint, error) {
	got, err := s.listen(ep)
	if err != nil {
		if err.Code != CodeClosed {
			s.events.push(Event{Type: EventListenerFailed, detail: &detail{endpoint: ep, err: err}})
		}
		return Endpoint{}, err
	}
	return got, nil
}

// StopListening stops the listener at ep, as returned by Listen or Listeners.
// Sessions live on. CodeInvalid when nothing listens there.
func (s *Service) StopListening(ep Endpoint) error {
	s.mu.Lock()
	l := s.listeners[ep]
	delete(s.listeners, ep)
	s.mu.Unlock()
	if l == nil {
		return &Error{Op: "stop listening", Endpoint: ep, Code: CodeInvalid, Err: errors.New("nothing listens there")}
	}
	l.stop()
	s.remap()
	return nil
}

// Listeners returns where the service listens, in the order of Compare.
func (s *Service) Listeners() []Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	eps := make([]Endpoint, 0, len(s.listeners))
	for ep := range s.listeners {
		eps = append(eps, ep)
	}
	slices.SortFunc(eps, endpoint.Compare)
	return eps
}

// SetAccept allows or refuses sessions that peers begin. See Config.NoAccept.
func (s *Service) SetAccept(accept bool) {
	s.accept.Store(accept)
	s.beaconChanged()
	s.gossip.moved()
	s.rekey()
}

// PrepareConnectionInfo gathers where this service can be reached. The answer
// comes as EventConnectionInfo with the token. It is signed, holds for 24
// hours, and is to be given to the other peer by any channel.
func (s *Service) PrepareConnectionInfo(token uint64) error {
	if !s.enter() {
		return &Error{Op: "prepare connection info", Code: CodeClosed}
	}
	defer s.leave()
	info, err := s.connectionInfo()
	if err != nil {
		return &Error{Op: "prepare connection info", Code: CodeOf(err), Err: err}
	}
	s.events.push(Event{Type: EventConnectionInfo, Token: token, Data: info})
	return nil
}

// Connect connects to the peer that made info. One side or both may call it. It dials
// the endpoints in info; where they do not answer at once, peers that are connected to
// both sides introduce the two or relay, as for ConnectPeer, for up to 15 s; and when
// both sides call, within Config.ConnectTimeout of each other, they open their NATs
// together, as long as these have one port for all peers.
// Unless Connect returns an error (CodeBadInfo, CodeSelf, CodeLimit,
// CodeClosed), exactly one final event carries the token: EventConnected,
// EventAlreadyConnected or EventConnectFailed.
func (s *Service) Connect(info []byte, token uint64) error {
	i, err := parseInfo(info)
	if err != nil {
		return err
	}
	return s.connect(&attempt{
		token: token, peer: i.Peer, endpoints: i.Endpoints, mapped: marked(i.Endpoints, i.Mapped), info: true, facts: infoFacts{i.UDP, i.TCP},
		clear: s.cfg.Tracer == TracerOn && onlyClear(i.Endpoints),
	})
}

// ConnectEndpoint connects to an endpoint. With a peer id, nobody else is
// accepted there; without, whoever answers is. The final event is as for
// Connect; the peer being this service itself is CodeSelf.
func (s *Service) ConnectEndpoint(c Contact, token uint64) error {
	if err := s.checkDial(c.Endpoint); err != nil {
		return err
	}
	return s.connect(&attempt{token: token, peer: c.Peer, endpoints: []Endpoint{c.Endpoint}, bare: true, clear: c.Endpoint.Transport == Tracer})
}

// Bootstrap tries everybody of whom it knows, at once and in lots a tenth of a second
// apart, and keeps the first with whom a session stands: Config.Contacts, the peers
// of Config.Cache, and those whose beacons are heard meanwhile, for which it waits 2 s
// when nobody else answers. Who does not answer, or refuses, holds nobody up. Our own
// endpoints are left out. The
// final event is EventBootstrapped or EventBootstrapFailed with the token. It
// returns CodeState when a bootstrap is running.
func (s *Service) Bootstrap(token uint64) error { return s.startBootstrap(token, nil) }

// BootstrapExcept is Bootstrap that leaves some contacts out, for instance those that
// have refused the program: nothing is sent to an endpoint of except, and a peer of it
// is not the one that is kept; a contact of both stands for that peer there. It is
// for this one bootstrap. CodeInvalid, too, for one with neither.
func (s *Service) BootstrapExcept(token uint64, except []Contact) error {
	return s.startBootstrap(token, except)
}

// StopBootstrap gives up a running bootstrap, whose final event is then
// EventBootstrapFailed with CodeCanceled. Without one it does nothing.
func (s *Service) StopBootstrap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bootstrap != nil {
		s.bootstrap.cancel(CodeCanceled)
	}
}

// Send queues one message, copying it, and never blocks. Priority 0 is the most
// urgent: queued messages of a lower number overtake, also in the middle of a
// large one. Within a priority order is kept. An accepted message arrives, or an
// EventMessagesDropped or EventLost of the peer follows. Zero-length messages
// are messages.
//
// Errors: CodeUnknownPeer, CodeTooBig (over MaxMessage; the session is
// unharmed), CodeWouldBlock (an EventWritable will follow), CodeClosed.
func (s *Service) Send(peer PeerID, data []byte, priority uint8) error {
	p := s.find(peer)
	if p == nil {
		return s.notConnected("send", peer)
	}
	if err := p.sess.Send(data, priority); err != nil {
		return s.sendError("send", peer, len(data), err)
	}
	return nil
}

// SendReceipt is Send for a message whose sender wants to know when it has
// arrived. Unless it returns an error, exactly one EventDelivered carries the
// token: with no error when the peer's library has the message and all that was
// sent before it at its priority, in order, and will hand them to its program
// unless its service stops first; with CodeExpired when it was dropped for its
// age; with the code of the loss when the session is lost first, and then it may
// have arrived or not. At most 4,096 receipts of one peer can be outstanding; the
// next one gets CodeWouldBlock, as when the queue is full.
func (s *Service) SendReceipt(peer PeerID, data []byte, priority uint8, token uint64) error {
	p := s.find(peer)
	if p == nil {
		return s.notConnected("send", peer)
	}
	if err := p.sess.SendReceipt(data, priority, token); err != nil {
		return s.sendError("send", peer, len(data), err)
	}
	return nil
}

// SendWait is Send, but waits while the queue is full. It returns CodeCanceled
// or CodeTimeout when ctx ends, and CodeUnknownPeer when the session does.
func (s *Service) SendWait(ctx context.Context, peer PeerID, data []byte, priority uint8) error {
	p := s.find(peer)
	if p == nil {
		return s.notConnected("send", peer)
	}
	if err := p.sess.SendWait(ctx, data, priority); err != nil {
		return s.sendError("send", peer, len(data), err)
	}
	return nil
}

// Message is one message of SendBatch.
type Message struct {
	Peer     PeerID
	Data     []byte
	Priority uint8
}

// SendBatch queues messages in order until one is refused, and returns how many
// were accepted and why the next was not. It is cheaper than as many calls of
// Send, most of all when neighbours go to the same peer.
func (s *Service) SendBatch(messages []Message) (int, error) {
	for i := 0; i < len(messages); {
		id := messages[i].Peer
		p := s.find(id)
		if p == nil {
			return i, s.notConnected("send", id)
		}
		run := i + 1
		for run < len(messages) && messages[run].Peer == id {
			run++
		}
		n, err := p.sess.SendRun(run-i, func(k int) ([]byte, uint8) { return messages[i+k].Data, messages[i+k].Priority })
		if i += n; err != nil {
			return i, s.sendError("send", id, len(messages[i].Data), err)
		}
	}
	return len(messages), nil
}

// Disconnect ends a session in order: what Send accepted is delivered, then the
// peer is told. EventLost with CodeDisconnected follows, on both sides. It
// returns CodeUnknownPeer when there is no session. A peer of a group that is kept
// is left alone from then on, session or not: see Keep.
func (s *Service) Disconnect(peer PeerID) error {
	p := s.find(peer)
	if p != nil {
		p.unwanted.Store(true)
	}
	s.groupsDrop(peer, p != nil)
	if p == nil || !p.sess.Disconnect(wire.ReasonDisconnect, session.ErrDisconnected) {
		return s.notConnected("disconnect", peer)
	}
	return nil
}

// PeerInfo describes one session.
type PeerInfo struct {
	Peer             PeerID
	Endpoint         Endpoint // the peer's end of the link, or of the link to its relay
	How              How
	Role             Role
	AppID            []byte
	Cipher           string        // "AES-256-GCM" or "ChaCha20-Poly1305"; "none, in clear" over Tracer
	RTT              time.Duration // the last measured round trip; zero when there is none yet
	Since            time.Time
	SentMessages     uint64
	SentBytes        uint64 // of messages, without overhead
	ReceivedMessages uint64
	ReceivedBytes    uint64
	DroppedMessages  uint64
	QueuedBytes      int
	UnackedBytes     int    // sent, and kept in case the link breaks
	Suspended        bool   // there is no link now
	Resumed          uint64 // times that the session went over to another link
}

// Peers returns the sessions, in the order of their ids.
func (s *Service) Peers() []PeerInfo {
	s.lookup.RLock()
	infos := make([]PeerInfo, 0, len(s.peers))
	for _, p := range s.peers {
		infos = append(infos, p.info())
	}
	s.lookup.RUnlock()
	slices.SortFunc(infos, func(a, b PeerInfo) int { return a.Peer.Compare(b.Peer) })
	return infos
}

// info describes the session. mu or lookup is held.
func (p *peer) info() PeerInfo {
	c, link := p.sess.Counters(), p.sess.Link()
	_, suspended := p.sess.Suspended()
	return PeerInfo{
		Peer: p.id, Endpoint: p.endpoint, How: p.how, Role: Role(link.Remote.Role), AppID: bytes.Clone(link.Remote.AppID),
		Cipher: link.Cipher.String(), RTT: c.RTT, Since: p.since, SentMessages: c.SentMessages, SentBytes: c.SentBytes,
		ReceivedMessages: c.ReceivedMessages, ReceivedBytes: c.ReceivedBytes, DroppedMessages: c.DroppedMessages, QueuedBytes: c.Queued,
		UnackedBytes: c.Unacked, Suspended: suspended, Resumed: c.Resumed,
	}
}

// Peer returns one session, and whether there is one.
func (s *Service) Peer(peer PeerID) (PeerInfo, bool) {
	s.lookup.RLock()
	defer s.lookup.RUnlock()
	p := s.peers[peer]
	if p == nil {
		return PeerInfo{}, false
	}
	return p.info(), true
}

// Stats counts what the service has done since it was made.
type Stats struct {
	Peers              int    // sessions now
	Listeners          int    // now
	Handshakes         int    // accepted connections not yet authenticated, now
	Connects           int    // connection attempts in flight, now
	SessionsTotal      uint64 // sessions ever
	HandshakesFailed   uint64 // accepted connections that did not authenticate
	HandshakesEvicted  uint64 // of these, given up to make room
	ConnectsFailed     uint64
	SentMessages       uint64
	SentBytes          uint64 // of messages, without overhead
	ReceivedMessages   uint64
	ReceivedBytes      uint64
	DroppedMessages    uint64
	WireSentBytes      uint64 // on the links, with overhead
	WireReceivedBytes  uint64
	SentDatagrams      uint64
	ReceivedDatagrams  uint64
	LostDatagrams      uint64 // received ones for which the event queue had no room, or over PeerBytesPerSecond or PeerMessagesPerSecond
	EventsQueued       int    // now
	EventBytesQueued   int    // now
	EventsTotal        uint64
	Circuits           int    // links carried for others, now
	CarriedBytes       uint64 // of those, ever
	BackpressurePauses uint64 // times that reading stopped because the event queue was full
	Known              int    // peers of which gossip has told, now: see Known
	RefusedConnections uint64 // closed unread: over MaxAcceptsPerSecond or MaxAcceptsPerAddress
	RefusedHandshakes  uint64 // not answered: over HandshakePercent
	RefusedFiles       uint64 // closed unread: over ReservedFiles
	RefusedSessions    uint64 // over MaxPeers, MaxInbound, MaxPeersPerAddress or MaxPeersPerPrefix, or while too many events wait for the program
	ShedSessions       uint64 // ended to make room for those that are worth more
	RatePauses         uint64 // times that a peer was not read for a while: see PeerBytesPerSecond
	Alerts             uint64 // raised: see EventAlert
	SuppressedAlerts   uint64 // that came too fast, to be raised with the next offence
	Resumptions        uint64 // times that a session went over to another link
	RefusedBanned      uint64 // TCP connections and sessions refused for the blacklist or the whitelists; what the system drops before is not counted
	MemoryBytes        int    // that queues and buffers hold of MaxMemory, and beyond it, now, in the sizes that buffers come in
	RefusedMemory      uint64 // times that MaxMemory had no room
	DroppedLogs        uint64 // records for which Config.Logger, or the event queue, had no room
	RefusedHelp        uint64 // letters and answers to them, circuits and tests of reachability that peers asked for too often, or without leave
}

// Stats returns the counters.
func (s *Service) Stats() Stats {
	var st Stats
	s.mu.Lock()
	c := s.past
	for _, p := range s.peers {
		addCounters(&c, p.sess.Counters())
	}
	st.Peers, st.Listeners, st.Connects = len(s.peers), len(s.listeners), len(s.attempts)
	st.SessionsTotal, st.ConnectsFailed = s.sessions, s.failed
	s.mu.Unlock()
	st.SentMessages, st.SentBytes, st.DroppedMessages = c.SentMessages, c.SentBytes, c.DroppedMessages
	st.ReceivedMessages, st.ReceivedBytes = c.ReceivedMessages, c.ReceivedBytes
	st.WireSentBytes, st.WireReceivedBytes, st.Resumptions = c.WireSent, c.WireReceived, c.Resumed
	st.Handshakes, st.HandshakesFailed, st.HandshakesEvicted = s.halls.counts()
	st.SentDatagrams, st.ReceivedDatagrams, st.LostDatagrams = s.datagramsSent.Load(), s.datagramsReceived.Load(), s.datagramsLost.Load()
	st.Circuits, st.CarriedBytes = s.circuits.counts()
	st.Known = s.countKnown()
	s.guardStats(&st)
	q := &s.events
	q.mu.Lock()
	st.EventsQueued, st.EventBytesQueued, st.EventsTotal, st.BackpressurePauses = q.count, q.bytes, q.total, q.pauses
	st.MemoryBytes = q.bytes + int(s.session.Budget.Held()) + handshakeMemory*st.Handshakes
	q.mu.Unlock()
	st.RefusedMemory, st.RefusedBanned, st.DroppedLogs = s.session.Budget.Refused(), s.refusedBanned.Load(), s.logs.dropped.Load()
	st.RefusedHelp = s.refusedHelp.Load()
	return st
}

func addCounters(sum *session.Counters, c session.Counters) {
	sum.SentMessages += c.SentMessages
	sum.SentBytes += c.SentBytes
	sum.ReceivedMessages += c.ReceivedMessages
	sum.ReceivedBytes += c.ReceivedBytes
	sum.DroppedMessages += c.DroppedMessages
	sum.WireSent += c.WireSent
	sum.WireReceived += c.WireReceived
	sum.Resumed += c.Resumed
}

// Events returns an iterator over the events, until ctx ends or EventStopped
// has been yielded. The program owns each Event's Data. Several goroutines may
// iterate; each event goes to one of them.
func (s *Service) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			b, err := s.NextBatch(ctx, iterBatch)
			if err != nil {
				return
			}
			own(b.Events)
			for i, e := range b.Events {
				if !yield(e) {
					s.events.giveBack(b.Events[i+1:])
					b.Release()
					return
				}
			}
			b.Release()
		}
	}
}

// iterBatch is how many events the iterator takes at once.
const iterBatch = 512

// own copies the messages of a run of events out of borrowed memory: large ones
// each for itself, small ones into shared slabs, so that keeping one message
// keeps little else.
func own(events []Event) {
	const slabLen, largest = 16 << 10, 2 << 10
	var slab []byte
	for i := range events {
		e := &events[i]
		if e.Type != EventMessage && e.Type != EventDatagram {
			continue
		}
		if len(e.Data) > largest {
			e.Data = bytes.Clone(e.Data)
			continue
		}
		if cap(slab)-len(slab) < len(e.Data) {
			rest := 0
			for _, r := range events[i:] {
				if (r.Type == EventMessage || r.Type == EventDatagram) && len(r.Data) <= largest {
					if rest += len(r.Data); rest >= slabLen {
						break
					}
				}
			}
			slab = make([]byte, 0, max(min(rest, slabLen), len(e.Data)))
		}
		n := len(slab)
		slab = append(slab, e.Data...)
		e.Data = slab[n:len(slab):len(slab)]
	}
}

// Batch is a run of events. Their Data is borrowed: it is valid until Release,
// which gives the memory back. What is not released counts against
// Config.EventQueue, so a program that waits for events while it holds on to
// batches may wait for ever. The zero Batch is empty.
type Batch struct {
	Events []Event
	queue  *eventQueue
	chunk  *chunk
}

// Release gives the batch's memory back. It may be called again.
func (b *Batch) Release() {
	if b.chunk != nil {
		b.queue.release(b.chunk)
		*b = Batch{}
	}
}

// NextBatch waits for events and returns up to limit of them; limit 0 means as
// many as come together. It returns CodeCanceled or CodeTimeout when ctx ends,
// and CodeClosed after EventStopped has been taken. This is the fast way.
func (s *Service) NextBatch(ctx context.Context, limit int) (Batch, error) {
	for {
		if b, ok := s.events.take(limit); ok {
			return b, nil
		}
		if err := s.events.wait(ctx); err != nil {
			return Batch{}, &Error{Op: "next batch", Code: waitCode(err)}
		}
	}
}

// TryNextBatch is NextBatch without waiting: an empty Batch when there is
// nothing.
func (s *Service) TryNextBatch(limit int) (Batch, error) {
	b, ok := s.events.take(limit)
	if !ok && s.events.isDrained() {
		return Batch{}, &Error{Op: "next batch", Code: CodeClosed}
	}
	return b, nil
}

// EventsPending reports whether an event is waiting.
func (s *Service) EventsPending() bool { return s.events.pending() }

// Close stops the service in order: listeners, attempts, then every session as
// by Disconnect, within Config.CloseTimeout, and gives back what routers pass on,
// within 2 s more, which they need only when the router does not answer. It returns when every goroutine
// and descriptor of the service is gone. EventStopped is then the last event in
// the queue, which can still be read. It may be called again and from several
// goroutines; all wait.
func (s *Service) Close() error {
	s.Stop()
	<-s.stopped
	return nil
}

// Stop begins what Close does and returns at once.
func (s *Service) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	s.stopping = true
	go s.shutdown()
}

// Version is the version of the library.
const Version = "0.1.0"
