package crust

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/portmap"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// PeerID is a peer's Ed25519 public key: who it is.
type PeerID = identity.PeerID

// Endpoint is a transport, an IP address and a port: where a peer may be.
type Endpoint = endpoint.Endpoint

// Transport is the protocol under a link.
type Transport = endpoint.Transport

// Transports. This version speaks TCP and uTP, and TCP in clear as far as Config.Tracer
// allows it.
const (
	TCP    = endpoint.TCP
	UTP    = endpoint.UTP
	Tracer = endpoint.Tracer
)

// ParseEndpoint reads "tcp://203.0.113.5:5483", "tcp://[2001:db8::1]:5483" or
// bare "203.0.113.5:5483", which means TCP. Names are not resolved.
func ParseEndpoint(text string) (Endpoint, error) { return endpoint.Parse(text) }

// DefaultCache is what Config.Cache says for the user's own cache. A file of that name
// is "./default".
const DefaultCache = "default"

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
	// Role is handed to every peer. Zero means Node. In what gossip tells of the
	// service, a Node that peers on the Internet see and cannot reach unasked is a
	// Client: see NATReport.Reachable.
	Role Role

	// Listen is where to accept connections. Port 0 means a random port. nil
	// means a random TCP port and a random UDP port, for uTP, on all addresses. A listener that cannot start
	// is an EventListenerFailed, not an error of New.
	Listen []Endpoint
	// LivePort is the port that listeners with port 0 try first, over TCP and
	// over UDP, 5483 by convention; where it is taken they get a random one.
	// Zero means random ports.
	LivePort uint16
	// PortRotation is how often listeners that were asked for with port 0 move
	// to a new random port. The old one accepts for one more interval; sessions
	// stay. At least a second. Zero means never.
	PortRotation time.Duration
	// NoListen means no listener at start, whatever Listen says.
	NoListen bool
	// NoAccept refuses sessions that peers begin, after authentication, with
	// CodeNotAllowed. It may be changed later by SetAccept.
	NoAccept bool
	// NoNetworkWatch means that the service does not watch this machine's
	// addresses, interfaces and routes, nor whether it has slept: NetworkChanged
	// says when they change. Zero watches, where the system lets it.
	NoNetworkWatch bool
	// Relay says what the service does for peers that cannot reach each other, or want
	// to know whether they can be reached. Zero means RelaySignal. RelayData should be set where peers can reach the service
	// and traffic costs little; peers learn of it.
	Relay RelayMode
	// RelayCircuits bounds the links of others that are carried at a time, up to
	// 4096. Each takes up to 512 KiB of memory. Zero means 128.
	RelayCircuits int
	// RelayPerPeer bounds those of one peer, up to 32. Zero means 16.
	RelayPerPeer int
	// RelayBytesPerSecond bounds what is carried for all peers together, in bytes a
	// second; at least 16 KiB. Zero means 4 MiB.
	RelayBytesPerSecond int
	// RelayBytesPerCircuit bounds what is carried for one link, in both directions
	// together; at least 64 KiB. Zero means 256 MiB. The peers may then ask for
	// another one.
	RelayBytesPerCircuit int
	// RelayLifetime is for how long one link is carried, at least a second. Zero
	// means 1 hour. The peers may then ask for another one.
	RelayLifetime time.Duration
	// PortMap says whether routers are asked to pass ports on to the listeners. Zero
	// means PortMapOn. The environment variable CRUST_PORTMAP, when it is "off", turns
	// it off whatever PortMap says: for machines where no router may be asked. "" is as
	// if it were not set, and anything else is an error of New.
	PortMap PortMapMode
	// ExternalPort is the port that routers must give to listeners, or none: to one TCP
	// listener and to one UDP listener, which share the number, since ports of TCP and
	// of UDP are apart. It is the listener that was started first, or its successor by
	// PortRotation; others get any port. It says nothing about IPv6, where routers open
	// the port that the listener has. Zero means any port, that of the listener where
	// it is free.
	ExternalPort uint16
	// STUN are servers, "HOST:PORT" or "HOST" for port 3478, that tell what they see of
	// the service's UDP socket (RFC 8489), beside its peers: up to MaxSTUN. HOST is an IP
	// address, or a name, which the service looks up by the system's means when it needs
	// it; NAT says which could not be. They are asked in clear, so that an observer sees
	// STUN where the rest looks like random bytes. nil means none.
	STUN []string
	// Tracer says whether there may be sessions in clear, for looking at what peers say to
	// each other: over endpoints of transport Tracer, in Listen and where ConnectEndpoint
	// dials, and both sides must allow it. Zero means TracerOff. See TracerMode.
	Tracer TracerMode
	// Only are the ways in which links may come about: for policies, and for tests. A
	// link in another way is not tried, or refused after authentication with
	// CodeNotAllowed. Dials count as Mapped when a router of the peer passes them on,
	// as Dialed otherwise. nil means all.
	Only []How
	// Contacts are the fallback endpoints of Bootstrap, which tries the first 1,024.
	Contacts []Contact
	// Gossip says whether peers are told, over the sessions with them, where this service
	// and others that it knows of can be dialled, and asked for the same. Zero means
	// GossipOn: then Known grows, and ConnectPeer dials whom it has. It takes up to 64 KiB
	// a second, a few hundred bytes a second in a large network at rest.
	Gossip GossipMode
	// Cache is the file in which peers are written down that the service has connected
	// to directly. Bootstrap tries them as well as Contacts, most recent first, and
	// those that were not reached for a day are tested now and then. Several services
	// and processes may share a file. It is made when it is not there, its directory is
	// not. DefaultCache means that of DefaultCachePath, whose directory is made. A
	// file that cannot be used is an EventCacheTrouble, not an error of New. Empty means
	// no cache.
	Cache string
	// CachePeers is how many peers there is room for in Cache, up to 65,536. A larger
	// file stays as it is. Zero means 200.
	CachePeers int
	// Beacon says whether the service makes itself known on the networks that its machine
	// is in, and hears who else is there: EventDiscovered, EventForgotten, PeersOnLAN,
	// and one more source for Bootstrap; it connects to nobody by itself. What goes out
	// looks like random bytes to those without the network name. Zero means BeaconOn. The
	// environment variable CRUST_BEACON, when it is "off", turns it off whatever Beacon
	// says: for machines where nothing may be broadcast. "" is as if it were not set, and
	// anything else is an error of New. Where the port is taken by another program or
	// nothing may be sent, the service goes on without, and Logger is told.
	Beacon BeaconMode
	// BeaconPort is the UDP port of beacons, which all services of a machine share. Peers
	// find each other only by the same one. Zero means DefaultBeaconPort, 5484.
	BeaconPort uint16
	// Cipher restricts the record cipher. Zero means CipherAuto.
	Cipher CipherChoice

	// ConnectTimeout bounds one Connect altogether. Zero means 60 s.
	ConnectTimeout time.Duration
	// BootstrapTimeout bounds one Bootstrap altogether. Zero means 10 s.
	BootstrapTimeout time.Duration
	// HandshakeTimeout bounds one handshake. Zero means 10 s.
	HandshakeTimeout time.Duration
	// Heartbeat is how long a link stays silent at most before it says that it is
	// alive: up to three eighths less, for each session another time, so that those
	// that were begun together do not all speak at once. Zero means 20 s.
	Heartbeat time.Duration
	// LostAfter is how long nothing is heard before a link is given up. It must
	// be at least twice Heartbeat. Zero means 120 s. A session that can be resumed
	// gives its link up sooner when the peer does not answer what it sends, within
	// about 2.5 s, but is lost no sooner for it.
	LostAfter time.Duration
	// ResumeWindow is how long a session whose link is gone waits for another
	// one before the peer is lost; the lesser of both sides' counts. Zero means
	// 30 s.
	ResumeWindow time.Duration
	// NoResume means that a session is lost with its link, whatever
	// ResumeWindow says.
	NoResume bool
	// CloseTimeout is how long Disconnect and Close let queued messages drain.
	// Zero means 5 s.
	CloseTimeout time.Duration
	// MessageMaxAge is the age at which messages above MustArrive are dropped
	// from the queue: because the link does not move, or because more urgent
	// messages take all of it. Zero means 60 s.
	MessageMaxAge time.Duration

	// SendQueue bounds the bytes queued for one peer; at least MaxMessage.
	// Zero means 4 MiB.
	SendQueue int
	// ResendBuffer bounds the bytes that are sent to one peer and kept until it
	// has acknowledged them, in case the link breaks. Sending stops while it is
	// full, so it bounds the throughput over long ways: to as many bytes each
	// round trip. The peer's bound holds, too, when it is less. At least 512 KiB.
	// Zero means 8 MiB.
	ResendBuffer int
	// EventQueue bounds the bytes of messages that wait for the program.
	// When it is full, reading from the network stops, except from peers to
	// which sending has stopped until they acknowledge: their acknowledgements
	// come behind their messages, of which up to twice ResendBuffer of each such
	// peer are taken beyond the bound. Zero means 16 MiB.
	EventQueue int
	// MaxMemory bounds the memory of all queues together, in bytes: EventQueue, which counts
	// four times since buffers come in powers of four, 16 KiB for each of MaxHandshakes, and
	// with the rest what waits to be sent and acknowledged to all peers, what is sealed and not
	// yet taken by the peer, what is being read, links that are carried, large messages from the first part that has come until the program gives
	// them back, and what is taken beyond EventQueue. Half of the rest is set apart, for each of
	// MaxPeers an equal part; of the other half a peer gets more while what it holds is less
	// than what is free. Then Send says CodeWouldBlock and EventWritable follows; a peer whose large message finds no memory is not read, and after 10 s its session
	// ends with CodeLimit. Without room a session seals one record at a time, and reads one, of up to
	// 128 KiB of memory each, and lists what it has read, up to 512 KiB while the program takes
	// none: that counts, and may go beyond the bound. So do large messages, and what is taken beyond EventQueue, of peers
	// that have yet to acknowledge what they were sent, or to end another large message: up to 16 MiB together, or a sixteenth of the rest if that is more. Sockets are not counted, nor are buffers of a session of
	// up to 8 KiB. At least the first two, and 16 MiB. Zero means 512 MiB, and more when the first
	// two, or four times SendQueue and ResendBuffer, ask for it.
	MaxMemory int
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
	// MaxInbound bounds sessions that peers have begun, up to MaxPeers. Zero means seven
	// eighths of MaxPeers, or all of up to 64: the rest is for those that this service
	// begins. When there is no room, peers of kept groups, peers that were connected for 10 s
	// or more, and those that this service dials, get that of strangers, whose sessions
	// end with CodeLimit.
	MaxInbound int
	// MaxPeersPerAddress bounds them per IPv4 address or IPv6 /64, so that nobody takes
	// all. Zero means half of MaxPeers, or all of up to 64. Sessions over relays count for
	// no address.
	MaxPeersPerAddress int
	// MaxPeersPerPrefix bounds them per IPv4 /24 or IPv6 /48. Zero means three quarters of
	// MaxPeers, or all of up to 64.
	MaxPeersPerPrefix int
	// PeerBytesPerSecond bounds what one peer may send, in bytes of messages; at least
	// 16 KiB. A second's worth may come at once. Beyond it the peer is not read, so that its
	// link fills up and it has to wait: nothing is lost. Datagrams have as much for themselves;
	// those beyond it are lost. Zero means no bound.
	PeerBytesPerSecond int
	// PeerMessagesPerSecond is the same in messages, at least 100. Zero means no bound.
	PeerMessagesPerSecond int
	// MaxAcceptsPerSecond bounds accepted TCP connections; four seconds' worth may come
	// at once. When they become scarce, those get in that have come least before, and
	// known peers; the others are closed unread. Zero means 2048.
	MaxAcceptsPerSecond int
	// MaxAcceptsPerAddress bounds them per IPv4 address or IPv6 /64 and second; eight
	// seconds' worth may come at once: a crowd behind one NAT comes back together. Zero
	// means 256.
	MaxAcceptsPerAddress int
	// HandshakePercent bounds what answering strangers over TCP takes, in hundredths of
	// one processor, up to 800; four seconds' worth may be spent at once. An estimate of
	// 0.3 ms is counted for a whole handshake. Beyond it the rule of MaxAcceptsPerSecond
	// holds. Zero means 50.
	HandshakePercent int
	// ReservedFiles is how many of the process's file descriptors accepted connections
	// leave to the rest of the program, but never more than a quarter of the system's
	// limit. Zero means 64.
	ReservedFiles int

	// AllowNodes and AllowClients are whitelists: which addresses peers of role Node, and
	// of role Client, may have. Others are refused, before they can say anything when they
	// are on neither list, and not dialled; so are links that others carry, whose address
	// is not known. Up to MaxAllowed each. SetAllowed changes them. nil means everybody.
	AllowNodes, AllowClients []netip.Prefix
	// Bans is who is blacklisted from the beginning: see Ban. nil means nobody.
	Bans []BanEntry
	// MaxBans bounds the blacklist, in entries of some 100 bytes each beside their reasons.
	// Zero means 65,536.
	MaxBans int

	// Gate, when not nil, is the program's own policy: it is called once about each peer
	// that has proved its key and has no session, before it gets one, and true lets it in.
	// Otherwise it is refused with CodeNotAllowed, as when Gate has not answered within
	// GateTimeout, panics, or MaxGates other calls have not returned. It is called from
	// goroutines of their own, several at once, and may call the service. Nothing waits for
	// it longer than GateTimeout, also Close does not: it may still be running then. Peers
	// that dial must ask for a session, which takes a round trip more.
	Gate func(GateRequest) bool
	// GateTimeout is how long a peer waits for Gate, at most 5 s. Zero means 1 s.
	GateTimeout time.Duration
	// MaxGates bounds the calls of Gate that have not returned, up to 4,096. Zero means 64.
	MaxGates int

	// KeyLogFile is a file to which the keys of every session are appended, so that captures
	// of them can be read: docs/TRACER.md. It is made with mode 0600 when it is not there.
	// WHOEVER HAS IT READS EVERYTHING that the service sends and receives, and the service says so in
	// Logger. It is for looking at one's own sessions, as SSLKEYLOGFILE is. A file that
	// cannot be opened is an error of New. Empty means that no key leaves the service.
	KeyLogFile string
	// KeyLog gets the same lines, each in one call; the calls come one after another, from
	// goroutines of the library, and hold its handshakes up. nil means nobody.
	KeyLog io.Writer

	// OnEvents, when not nil, is called each time the event queue goes from
	// empty to not empty, from a goroutine of the library. It must not block
	// and must not call the service. It is for programs that wait elsewhere,
	// in a poll loop for instance.
	OnEvents func()
	// Logger receives what is worth knowing, and much of what is an event, too, as
	// docs/LOGS.md lists it. Its handler is called from a goroutine that does nothing else,
	// one record after another, and may call the service. While it takes longer than records
	// come, 1,024 wait, and others are left out and counted in Stats.DroppedLogs. Close waits
	// until it has had those that wait, for CloseTimeout at most: a call that has not returned
	// then may still be running, and no other begins. No key, no name of the network and
	// nothing of messages is in a record, and peers are named in short. nil means silence.
	Logger *slog.Logger
	// LogLevel is the least level of records; those below cost nothing. Zero means
	// slog.LevelInfo, a handful for each session. The levels of Logger hold, too.
	LogLevel slog.Level
	// LogEvents says that records also come as EventLog: for programs in other languages.
	LogEvents bool

	network netio.Network // nil means the kernel's

	beaconBarred bool                        // by the environment
	mapper       func(portmap.Config) mapper // nil means that of the kernel's network; after check: that no router is asked
	ownKey       bool                        // New made the identity
}

// Implementation constants: what zero fields of Config mean.
const (
	defaultConnectTimeout   = 60 * time.Second
	defaultBootstrapTimeout = 10 * time.Second
	defaultHandshakeTimeout = 10 * time.Second
	defaultHeartbeat        = 20 * time.Second
	defaultLostAfter        = 120 * time.Second
	defaultCloseTimeout     = 5 * time.Second
	defaultMessageMaxAge    = 60 * time.Second
	defaultResumeWindow     = 30 * time.Second
	defaultSendQueue        = 4 << 20
	defaultResendBuffer     = 8 << 20
	defaultEventQueue       = 16 << 20
	defaultMaxPeers         = 4096
	defaultMaxHandshakes    = 1024
	defaultPerAddress       = 256
	defaultMaxConnects      = 1024
	defaultMaxBans          = 1 << 16

	defaultRelayCircuits        = 128
	defaultRelayPerPeer         = 16
	defaultRelayBytesPerSecond  = 4 << 20
	defaultRelayBytesPerCircuit = 256 << 20
	defaultRelayLifetime        = time.Hour

	mostRelayCircuits = 4096
	mostRelayPerPeer  = 32 // times wire.RelayWindow: half of session.MaxLow
)

// check returns the configuration with all defaults in, or says what is wrong.
func (c Config) check() (Config, error) {
	bad := func(format string, args ...any) (Config, error) {
		return Config{}, &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf(format, args...)}
	}
	if len(c.NetworkName) > MaxNetworkName {
		return bad("the network name has %d bytes, at most %d are allowed", len(c.NetworkName), MaxNetworkName)
	}
	if len(c.AppID) > MaxAppID {
		return bad("the app id has %d bytes, at most %d are allowed", len(c.AppID), MaxAppID)
	}
	if c.Role > Client {
		return bad("role %d is unknown", c.Role)
	}
	if c.Cipher > CipherChaCha20Poly1305 {
		return bad("cipher choice %d is unknown", c.Cipher)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"ConnectTimeout", &c.ConnectTimeout, defaultConnectTimeout},
		{"BootstrapTimeout", &c.BootstrapTimeout, defaultBootstrapTimeout},
		{"HandshakeTimeout", &c.HandshakeTimeout, defaultHandshakeTimeout},
		{"Heartbeat", &c.Heartbeat, defaultHeartbeat},
		{"LostAfter", &c.LostAfter, defaultLostAfter},
		{"CloseTimeout", &c.CloseTimeout, defaultCloseTimeout},
		{"MessageMaxAge", &c.MessageMaxAge, defaultMessageMaxAge},
		{"ResumeWindow", &c.ResumeWindow, defaultResumeWindow},
		{"RelayLifetime", &c.RelayLifetime, defaultRelayLifetime},
	} {
		if *d.value < 0 || *d.value > maxDuration {
			return bad("%s is %v, want 0 to %v", d.name, *d.value, maxDuration)
		}
		*d.value = cmp.Or(*d.value, d.zero)
	}
	if c.PortRotation != 0 && (c.PortRotation < time.Second || c.PortRotation > maxRotation) {
		return bad("PortRotation is %v, want 0 or 1s to %v", c.PortRotation, maxRotation)
	}
	if c.NoResume {
		c.ResumeWindow = 0
	}
	if c.LostAfter < 2*c.Heartbeat {
		return bad("LostAfter is %v, want at least twice Heartbeat, which is %v", c.LostAfter, c.Heartbeat)
	}
	for _, n := range []struct {
		name        string
		value       *int
		zero, least int
	}{
		{"SendQueue", &c.SendQueue, defaultSendQueue, MaxMessage},
		{"ResendBuffer", &c.ResendBuffer, defaultResendBuffer, session.MinResendBuffer},
		{"EventQueue", &c.EventQueue, defaultEventQueue, 1},
		{"MaxPeers", &c.MaxPeers, defaultMaxPeers, 1},
		{"MaxHandshakes", &c.MaxHandshakes, defaultMaxHandshakes, 1},
		{"MaxHandshakesPerAddress", &c.MaxHandshakesPerAddress, defaultPerAddress, 1},
		{"MaxConnects", &c.MaxConnects, defaultMaxConnects, 1},
		{"MaxBans", &c.MaxBans, defaultMaxBans, 1},
		{"RelayCircuits", &c.RelayCircuits, defaultRelayCircuits, 1},
		{"RelayPerPeer", &c.RelayPerPeer, defaultRelayPerPeer, 1},
		{"RelayBytesPerSecond", &c.RelayBytesPerSecond, defaultRelayBytesPerSecond, 16 << 10},
		{"RelayBytesPerCircuit", &c.RelayBytesPerCircuit, defaultRelayBytesPerCircuit, 64 << 10},
	} {
		if *n.value != 0 && *n.value < n.least {
			return bad("%s is %d, want 0 or at least %d", n.name, *n.value, n.least)
		}
		*n.value = cmp.Or(*n.value, n.zero)
	}
	if err := c.checkRelay(); err != nil {
		return Config{}, err
	}
	if err := errors.Join(c.checkPortMap(), c.checkSTUN(), c.checkOnly(), c.checkCache(), c.checkBeacon(), c.checkGossip(), c.checkGate(), c.checkGuard(), c.checkMemory(), c.checkTracer()); err != nil {
		return Config{}, err
	}
	for _, contact := range c.Contacts {
		if err := checkDialable(contact.Endpoint); err != nil && !errors.Is(err, CodeUnsupported) { // those fail when tried
			return Config{}, err
		}
	}
	if c.Listen == nil {
		everywhere := netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		c.Listen = []Endpoint{endpoint.New(TCP, everywhere), endpoint.New(UTP, everywhere)}
	}
	c.Listen, c.Contacts = slices.Clone(c.Listen), slices.Clone(c.Contacts)
	c.STUN, c.Only = slices.Clone(c.STUN), slices.Clone(c.Only)
	if c.network == nil {
		c.network = netio.System
	}
	if c.Identity == nil {
		key, err := identity.Generate()
		if err != nil {
			return Config{}, &Error{Op: "new", Code: CodeInternal, Err: err}
		}
		c.Identity, c.ownKey = key, true
	}
	return c, nil
}

// What is counted of Config.MaxMemory.
const (
	defaultMaxMemory = 512 << 20
	leastMemory      = 8 * MaxMessage // beside what is set apart
	// handshakeMemory is a goroutine and its buffers.
	handshakeMemory = 16 << 10
	// bufferWaste is how much larger than its messages a buffer is at most.
	bufferWaste = 4
)

// apart is what is set apart of MaxMemory.
func (c *Config) apart() int64 {
	return bufferWaste*int64(c.EventQueue) + handshakeMemory*int64(c.MaxHandshakes)
}

// checkMemory checks what check has not, of MaxMemory.
func (c *Config) checkMemory() error {
	least := c.apart() + leastMemory
	if c.MaxMemory == 0 {
		c.MaxMemory = int(min(max(defaultMaxMemory, least, c.apart()+4*(int64(c.SendQueue)+int64(c.ResendBuffer))), math.MaxInt))
	}
	if int64(c.MaxMemory) < least {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf(
			"MaxMemory is %d, want 0 or at least %d: four times EventQueue, %d for each of MaxHandshakes, and %d", c.MaxMemory, least, handshakeMemory, leastMemory)}
	}
	return nil
}

// checkRelay checks what check has not, of relaying.
func (c *Config) checkRelay() error {
	bad := func(format string, args ...any) error {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case c.Relay > RelayData:
		return bad("relay mode %d is unknown", c.Relay)
	case c.RelayCircuits > mostRelayCircuits:
		return bad("RelayCircuits is %d, want at most %d", c.RelayCircuits, mostRelayCircuits)
	case c.RelayPerPeer > mostRelayPerPeer:
		return bad("RelayPerPeer is %d, want at most %d", c.RelayPerPeer, mostRelayPerPeer)
	case c.RelayLifetime < time.Second:
		return bad("RelayLifetime is %v, want 0 or at least 1s", c.RelayLifetime)
	}
	return nil
}

// maxDuration keeps every duration within the 32-bit milliseconds of the handshake.
const maxDuration = 24 * time.Hour

// maxRotation keeps rotation within what makes sense.
const maxRotation = 365 * 24 * time.Hour

// checkTransport refuses transports that this version does not speak by itself.
func checkTransport(ep Endpoint) *Error {
	if (ep.Transport == TCP || ep.Transport == UTP) && ep.Addr.IsValid() {
		return nil
	}
	if ep.Addr.IsValid() && ep.Transport.Known() {
		return &Error{Op: "check endpoint", Endpoint: ep, Code: CodeUnsupported, Err: errClear}
	}
	return &Error{Op: "check endpoint", Code: CodeInvalid, Err: errors.New("the endpoint is not set")}
}

// checkDialable refuses endpoints that nobody can be at.
func checkDialable(ep Endpoint) error {
	if err := checkTransport(ep); err != nil {
		return err
	}
	if ep.Scope() == endpoint.Unusable || ep.Addr.Port() == 0 {
		return &Error{Op: "check endpoint", Endpoint: ep, Code: CodeInvalid, Err: errors.New("nobody can be reached at this address")}
	}
	return nil
}

// Interface checks, and bounds that two rooms must agree on.
var (
	_ = [1]struct{}{}[MaxMessage-wire.MaxMessage]
	_ = [1]struct{}{}[MaxAppID-wire.MaxAppID]
)
