package crust

import (
	"context"
	"iter"
	"time"
)

// Service is one node: an identity, its listeners, its peers and one queue of
// events. All methods may be called from any goroutine at any time. Nothing
// but SendWait, NextBatch, Events and Close blocks.
type Service struct{}

// New makes a service and starts its listeners. It returns an *Error with
// CodeInvalid when a field of cfg is out of bounds.
func New(cfg Config) (*Service, error) { panic("soon") }

// ID returns who the service is.
func (s *Service) ID() PeerID { panic("soon") }

// Listen starts one more listener and returns the endpoint it really got. It
// also queues EventListenerStarted or EventListenerFailed.
func (s *Service) Listen(ep Endpoint) (Endpoint, error) { panic("soon") }

// StopListening stops the listener at ep, as returned by Listen or Listeners.
// Sessions live on. CodeInvalid when nothing listens there.
func (s *Service) StopListening(ep Endpoint) error { panic("soon") }

// Listeners returns where the service listens, in the order of Compare.
func (s *Service) Listeners() []Endpoint { panic("soon") }

// SetAccept allows or refuses sessions that peers begin. See Config.NoAccept.
func (s *Service) SetAccept(accept bool) { panic("soon") }

// PrepareConnectionInfo gathers where this service can be reached. The answer
// comes as EventConnectionInfo with the token. It is signed, holds for 24
// hours, and is to be given to the other peer by any channel.
func (s *Service) PrepareConnectionInfo(token uint64) error { panic("soon") }

// Connect connects to the peer that made info. One side or both may call it.
// Unless Connect returns an error (CodeBadInfo, CodeSelf, CodeLimit,
// CodeClosed), exactly one final event carries the token: EventConnected,
// EventAlreadyConnected or EventConnectFailed.
func (s *Service) Connect(info []byte, token uint64) error { panic("soon") }

// ConnectEndpoint connects to an endpoint. With a peer id, nobody else is
// accepted there; without, whoever answers is. The final event is as for
// Connect; the peer being this service itself is CodeSelf.
func (s *Service) ConnectEndpoint(c Contact, token uint64) error { panic("soon") }

// Bootstrap tries all contacts at once and keeps the first that answers. The
// final event is EventBootstrapped or EventBootstrapFailed with the token. It
// returns CodeState when a bootstrap is running.
func (s *Service) Bootstrap(token uint64) error { panic("soon") }

// StopBootstrap gives up a running bootstrap, whose final event is then
// EventBootstrapFailed with CodeCanceled. Without one it does nothing.
func (s *Service) StopBootstrap() { panic("soon") }

// Send queues one message, copying it, and never blocks. Priority 0 is the most
// urgent: queued messages of a lower number overtake, also in the middle of a
// large one. Within a priority order is kept. An accepted message arrives, or an
// EventMessagesDropped or EventLost of the peer follows. Zero-length messages
// are messages.
//
// Errors: CodeUnknownPeer, CodeTooBig (over MaxMessage; the session is
// unharmed), CodeWouldBlock (an EventWritable will follow), CodeClosed.
func (s *Service) Send(peer PeerID, data []byte, priority uint8) error { panic("soon") }

// SendWait is Send, but waits while the queue is full. It returns CodeCanceled
// or CodeTimeout when ctx ends, and CodeUnknownPeer when the session does.
func (s *Service) SendWait(ctx context.Context, peer PeerID, data []byte, priority uint8) error {
	panic("soon")
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
func (s *Service) SendBatch(messages []Message) (int, error) { panic("soon") }

// Disconnect ends a session in order: what Send accepted is delivered, then the
// peer is told. EventLost with CodeDisconnected follows, on both sides. It
// returns CodeUnknownPeer when there is no session.
func (s *Service) Disconnect(peer PeerID) error { panic("soon") }

// PeerInfo describes one session.
type PeerInfo struct {
	Peer             PeerID
	Endpoint         Endpoint // the peer's end of the link
	How              How
	Role             Role
	AppID            []byte
	Cipher           string        // "AES-256-GCM" or "ChaCha20-Poly1305"
	RTT              time.Duration // the last measured round trip; zero when there is none yet
	Since            time.Time
	SentMessages     uint64
	SentBytes        uint64 // of messages, without overhead
	ReceivedMessages uint64
	ReceivedBytes    uint64
	DroppedMessages  uint64
	QueuedBytes      int
}

// Peers returns the sessions, in the order of their ids.
func (s *Service) Peers() []PeerInfo { panic("soon") }

// Peer returns one session, and whether there is one.
func (s *Service) Peer(peer PeerID) (PeerInfo, bool) { panic("soon") }

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
	EventsQueued       int // now
	EventBytesQueued   int // now
	EventsTotal        uint64
	BackpressurePauses uint64 // times that reading stopped because the event queue was full
}

// Stats returns the counters.
func (s *Service) Stats() Stats { panic("soon") }

// Events returns an iterator over the events, until ctx ends or EventStopped
// has been yielded. The program owns each Event's Data. Several goroutines may
// iterate; each event goes to one of them.
func (s *Service) Events(ctx context.Context) iter.Seq[Event] { panic("soon") }

// Batch is a run of events. Their Data is borrowed: it is valid until Release,
// which gives the memory back. The zero Batch is empty.
type Batch struct {
	Events []Event
}

// Release gives the batch's memory back. It may be called again.
func (b *Batch) Release() { panic("soon") }

// NextBatch waits for events and returns up to limit of them; limit 0 means as
// many as come together. It returns CodeCanceled or CodeTimeout when ctx ends,
// and CodeClosed after EventStopped has been taken. This is the fast way.
func (s *Service) NextBatch(ctx context.Context, limit int) (Batch, error) { panic("soon") }

// TryNextBatch is NextBatch without waiting: an empty Batch when there is
// nothing.
func (s *Service) TryNextBatch(limit int) (Batch, error) { panic("soon") }

// EventsPending reports whether an event is waiting.
func (s *Service) EventsPending() bool { panic("soon") }

// Close stops the service in order: listeners, attempts, then every session as
// by Disconnect, within Config.CloseTimeout. It returns when every goroutine
// and descriptor of the service is gone. EventStopped is then the last event in
// the queue, which can still be read. It may be called again and from several
// goroutines; all wait.
func (s *Service) Close() error { panic("soon") }

// Stop begins what Close does and returns at once.
func (s *Service) Stop() { panic("soon") }

// ParseConnectionInfo checks what EventConnectionInfo gave to the other side:
// form, signature and age. It returns who made it and where it can be reached.
// Errors are CodeBadInfo.
func ParseConnectionInfo(info []byte) (PeerID, []Endpoint, error) { panic("soon") }

// ParseContact reads "ENDPOINT" or "ENDPOINT#PEER".
func ParseContact(text string) (Contact, error) { panic("soon") }

// Version is the version of the library.
const Version = "0.1.0"
