package crust

import (
	"log/slog"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
)

// PeerID is a peer's Ed25519 public key: who it is.
type PeerID = identity.PeerID

// Endpoint is a transport, an IP address and a port: where a peer may be.
type Endpoint = endpoint.Endpoint

// Transport is the protocol under a link.
type Transport = endpoint.Transport

// Transports. This version speaks TCP.
const (
	TCP    = endpoint.TCP
	UTP    = endpoint.UTP
	Tracer = endpoint.Tracer
)

// ParseEndpoint reads "tcp://203.0.113.5:5483", "tcp://[2001:db8::1]:5483" or
// bare "203.0.113.5:5483", which means TCP. Names are not resolved.
func ParseEndpoint(text string) (Endpoint, error) { return endpoint.Parse(text) }

// ParsePeerID reads 64 hexadecimal digits.
func ParsePeerID(text string) (PeerID, error) { return identity.ParsePeerID(text) }

// Bounds of the protocol.
const (
	// MaxMessage is the largest message in bytes: 2 MiB.
	MaxMessage = 2 << 20
	// MaxAppID is the largest app id in bytes.
	MaxAppID = 256
	// MaxNetworkName is the longest network name in bytes.
	MaxNetworkName = 256
	// MustArrive is the least urgent priority whose messages are never
	// dropped: 0 and 1 are never, 2 to 255 when they grow older than
	// Config.MessageMaxAge on a link that does not move.
	MustArrive = 1
)

// CipherChoice tells which record ciphers a service offers.
type CipherChoice uint8

const (
	// CipherAuto means AES-256-GCM when both sides have AES hardware,
	// ChaCha20-Poly1305 otherwise.
	CipherAuto CipherChoice = 0
	// CipherChaCha20Poly1305 means always ChaCha20-Poly1305.
	CipherChaCha20Poly1305 CipherChoice = 1
)

// Contact is a fallback endpoint, with the peer expected there when it is known.
type Contact struct {
	Endpoint Endpoint
	Peer     PeerID // zero means whoever answers
}

// Config is how a service is made. Its zero value works: a fresh identity, one
// random port per transport, the default network. Every field says what its
// zero value means. New copies what it needs.
type Config struct {
	// Identity is who the service is. nil means a new random identity.
	Identity *identity.Key
	// NetworkName separates networks: services of different names never
	// connect, and without the name nobody can tell the traffic from random
	// bytes. Up to MaxNetworkName bytes. Empty means the public default
	// network. A name that can be guessed hides nothing from the guesser.
	NetworkName string
	// AppID is handed to every peer, authenticated. Up to MaxAppID bytes.
	AppID []byte
	// Role is handed to every peer. Zero means Node.
	Role Role

	// Listen is where to accept connections. Port 0 means a random port. nil
	// means a random TCP port on all addresses. A listener that cannot start
	// is an EventListenerFailed, not an error of New.
	Listen []Endpoint
	// NoListen means no listener at start, whatever Listen says.
	NoListen bool
	// NoAccept refuses sessions that peers begin, after authentication, with
	// CodeNotAllowed. It may be changed later by SetAccept.
	NoAccept bool
	// Contacts are the fallback endpoints of Bootstrap.
	Contacts []Contact
	// Cipher restricts the record cipher. Zero means CipherAuto.
	Cipher CipherChoice

	// ConnectTimeout bounds one Connect altogether. Zero means 60 s.
	ConnectTimeout time.Duration
	// BootstrapTimeout bounds one Bootstrap altogether. Zero means 10 s.
	BootstrapTimeout time.Duration
	// HandshakeTimeout bounds one handshake. Zero means 10 s.
	HandshakeTimeout time.Duration
	// Heartbeat is how long a link stays silent before it says that it is
	// alive. Zero means 20 s.
	Heartbeat time.Duration
	// LostAfter is how long nothing is heard before a peer is lost. It must
	// be at least twice Heartbeat. Zero means 120 s.
	LostAfter time.Duration
	// CloseTimeout is how long Disconnect and Close let queued messages drain.
	// Zero means 5 s.
	CloseTimeout time.Duration
	// MessageMaxAge is the age at which messages above MustArrive are dropped
	// from the queue of a link that does not move. Zero means 60 s.
	MessageMaxAge time.Duration

	// SendQueue bounds the bytes queued for one peer; at least MaxMessage.
	// Zero means 4 MiB.
	SendQueue int
	// EventQueue bounds the bytes of messages that wait for the program.
	// When it is full, reading from the network stops. Zero means 16 MiB.
	EventQueue int
	// MaxPeers bounds sessions. Zero means 4096.
	MaxPeers int
	// MaxHandshakes bounds accepted connections that are not yet
	// authenticated. The oldest gives way to the newest. Zero means 1024.
	MaxHandshakes int
	// MaxHandshakesPerAddress bounds them per IPv4 address or IPv6 /64. Zero
	// means 256.
	MaxHandshakesPerAddress int
	// MaxConnects bounds Connect calls in flight. Zero means 1024.
	MaxConnects int

	// OnEvents, when not nil, is called each time the event queue goes from
	// empty to not empty, from a goroutine of the library. It must not block
	// and must not call the service. It is for programs that wait elsewhere,
	// in a poll loop for instance.
	OnEvents func()
	// Logger receives what is worth knowing but is no event. nil means silence.
	Logger *slog.Logger
}
