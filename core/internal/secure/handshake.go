// Package secure makes a link out of a connection: the handshake
// Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b, masked so that it looks like random
// bytes, and the record cipher of what follows.
//
// The responder says nothing before the first flight proves that the initiator
// knows the network name, and nothing to a flight that it has seen before. The
// static key of a peer is its identity mapped to X25519; the Ed25519 key
// travels inside, and each side checks that one is the image of the other.
//
// The package reads no clock: the caller sets the deadlines of the connection.
// docs/PROTOCOL.md says all this to the byte.
package secure

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/flynn/noise"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20"
)

// flightBuffer holds the largest flight and, after the third, first records.
const flightBuffer = wire.FlightNonce + wire.FlightHeader + wire.MaxNoise + wire.MaxPadding

// prologue is that of the handshake over streams.
const prologue = "libcrust/1"

// maxPadding bounds the padding that we send; the protocol allows more.
const maxPadding = 255

var (
	// ErrNoAnswer means that the other end closed or stayed silent without
	// one byte, as a responder of another network name does.
	ErrNoAnswer = errors.New("no answer to the first flight: the peer has another network name, or is no libcrust")
	// ErrFirstFlight means that a first flight did not authenticate, or had
	// been seen before. The responder must stay silent.
	ErrFirstFlight = errors.New("the first flight does not authenticate")
	// ErrBusy means that Config.Admit did not let a first flight be answered.
	ErrBusy = errors.New("there is no time to answer the first flight")
	// ErrWrongPeer means that somebody else than expected answered.
	ErrWrongPeer = errors.New("somebody else answered")
	// ErrHandshake means that a later flight is malformed or forged.
	ErrHandshake = errors.New("the handshake failed")
)

// Network is what follows from a network name.
type Network struct {
	psk      [32]byte // of the Noise handshake
	mask     [32]byte // of the flights in streams
	datagram [32]byte // of the flights in datagrams
	beacon   [32]byte // of the beacons
	tracer   [32]byte // of the handshakes of tracer links
}

// NewNetwork derives the keys of a network. The empty name is the public
// default network.
func NewNetwork(name string) *Network {
	root := keyed([32]byte{}, "libcrust/1 network\x00"+name)
	return &Network{
		psk: keyed(root, "psk"), mask: keyed(root, "mask"), datagram: keyed(root, "datagram"), beacon: keyed(root, "beacon"), tracer: keyed(root, "tracer"),
	}
}

// Config is how a service shakes hands. It is shared by all its handshakes.
type Config struct {
	Key     *identity.Key
	Network *Network
	Hello   wire.Hello // Version, Peer are set by the handshake
	Seen    *Seen      // for responders
	Early   *Seen      // of these, what was answered with one-time keys; nil remembers none
	Images  *Images    // nil remembers none
	Spare   *Spare     // nil makes each key when it is needed
	// Ready reports whether a new session would be taken now, for the hello of a
	// responder. nil means that nobody is told.
	Ready func() bool
	// Admit reports whether a first flight that is genuine is answered, for Respond:
	// an answer is what costs. nil means always.
	Admit func(conn net.Conn) bool
	// Random is the source of randomness; nil means crypto/rand.
	Random io.Reader
	// KeyLog takes the line of each finished handshake by which its session can be
	// read. nil means that the keys are told to nobody.
	KeyLog func(line []byte)
}

func (c *Config) random() io.Reader {
	if c.Random != nil {
		return c.Random
	}
	return rand.Reader
}

// Link is a connection whose other end has proved its identity.
type Link struct {
	Conn      net.Conn
	Remote    wire.Hello
	Initiator bool
	Cipher    Cipher
	Seal      Sealer
	Open      Opener
	// First must be written before anything else: the initiator's third
	// flight. Until it is written, the responder does not know who we are.
	First []byte
	// Rest is what was read beyond the handshake.
	Rest []byte
}

// suite returns the functions for one handshake.
func (c *Config) suite() noise.CipherSuite {
	if c.Spare == nil {
		return suite
	}
	return noise.NewCipherSuite(spareDH{spare: c.Spare}, sodiumChaChaPoly{}, sodiumBLAKE2b{})
}

// handshake is the state of one attempt.
type handshake struct {
	cfg   *Config
	conn  net.Conn
	state *noise.HandshakeState
	buf   []byte // read and not yet used

	initiator bool

	secret []byte // the static X25519 secret, shared with state

	first, mine, theirs []byte // for KeyLog alone: the nonce of the first flight, the hellos

	prepared []byte // the hello to answer with, when it was made in advance
}

// erase overwrites the secrets of the attempt, whichever way it ended.
func (h *handshake) erase() {
	clear(h.secret)
	clear(h.state.LocalEphemeral().Private)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, flightBuffer); return &b }}

func start(conn net.Conn, cfg *Config, initiator bool) (*handshake, error) {
	h, err := begin(cfg, initiator, prologue)
	if err == nil {
		h.conn = conn
	}
	return h, err
}

// begin prepares the Noise handshake, whose prologue says what carries it.
func begin(cfg *Config, initiator bool, carrier string) (*handshake, error) {
	return beginWith(cfg, cfg.suite(), initiator, carrier)
}

// beginWith is begin with certain functions.
func beginWith(cfg *Config, functions noise.CipherSuite, initiator bool, carrier string) (*handshake, error) {
	static := cfg.Key.Static()
	defer clear(static[:])
	public := cfg.Key.StaticPublic()
	secret := append([]byte(nil), static[:]...)
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: functions, Random: cfg.random(), Pattern: noise.HandshakeXX, Initiator: initiator,
		Prologue: []byte(carrier), PresharedKey: cfg.Network.psk[:], PresharedKeyPlacement: 0,
		StaticKeypair: noise.DHKey{Private: secret, Public: public[:]},
	})
	if err != nil {
		return nil, err
	}
	return &handshake{cfg: cfg, state: state, initiator: initiator, secret: secret}, nil
}

// mask applies the stream of a flight's nonce.
func (n *Network) maskStream(nonce []byte) (*chacha20.Cipher, error) {
	return chacha20.NewUnauthenticatedCipher(n.mask[:], nonce) // 24 bytes of nonce: XChaCha20
}

// AppendFlight appends a masked flight around a Noise message.
func (c *Config) appendFlight(b, message []byte) ([]byte, error) {
	var random [wire.FlightNonce + 1]byte
	if _, err := io.ReadFull(c.random(), random[:]); err != nil {
		return nil, err
	}
	padding := int(random[wire.FlightNonce]) % (maxPadding + 1)
	stream, err := c.Network.maskStream(random[:wire.FlightNonce])
	if err != nil {
		return nil, err
	}
	b = append(b, random[:wire.FlightNonce]...)
	start := len(b)
	b = wire.AppendFlightHeader(b, len(message), padding)
	b = append(b, message...)
	b = append(b, make([]byte, padding)...)
	stream.XORKeyStream(b[start:], b[start:])
	return b, nil
}

// fill reads until at least n bytes are buffered.
func (h *handshake) fill(n int) error {
	for len(h.buf) < n {
		m, err := h.conn.Read(h.buf[len(h.buf):cap(h.buf)])
		h.buf = h.buf[:len(h.buf)+m]
		if err != nil && len(h.buf) < n {
			return err
		}
	}
	return nil
}

// readFlight reads one flight and returns its Noise message.
func (h *handshake) readFlight() (message, nonce []byte, err error) {
	const fixed = wire.FlightNonce + wire.FlightHeader
	if err := h.fill(fixed); err != nil {
		return nil, nil, err
	}
	nonce = append([]byte(nil), h.buf[:wire.FlightNonce]...)
	stream, err := h.cfg.Network.maskStream(nonce)
	if err != nil {
		return nil, nil, err
	}
	head := h.buf[wire.FlightNonce:fixed]
	stream.XORKeyStream(head, head)
	noiseLen, padLen, err := wire.ParseFlightHeader(head)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if err := h.fill(fixed + noiseLen + padLen); err != nil {
		return nil, nil, err
	}
	message = append([]byte(nil), h.buf[fixed:fixed+noiseLen]...)
	stream.XORKeyStream(message, message)
	rest := copy(h.buf, h.buf[fixed+noiseLen+padLen:])
	h.buf = h.buf[:rest]
	return message, nonce, nil
}

// Initiate makes a link as the side that dialled. When it returns, the peer has
// proved its identity to us and knows nothing of ours: the caller either writes
// Link.First, or closes the connection. A zero expect accepts anybody.
//
// Errors wrap ErrNoAnswer, ErrWrongPeer, ErrHandshake or come from the connection.
func Initiate(conn net.Conn, cfg *Config, expect identity.PeerID) (*Link, error) {
	c, err := NewCall(conn, cfg, expect)
	if err != nil {
		return nil, err
	}
	link, _, _, err := c.Shake()
	return link, err
}

// Respond makes a link as the side that accepted. On ErrFirstFlight the caller
// must not write, nor let its closing tell anything: see the package comment.
func Respond(conn net.Conn, cfg *Config) (*Link, error) {
	h, err := start(conn, cfg, false)
	if err != nil {
		return nil, err
	}
	return h.respond()
}

// respond is the responder's side of a handshake.
func (h *handshake) respond() (*Link, error) {
	defer h.erase()
	cfg, conn := h.cfg, h.conn
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	h.buf = (*buf)[:0]

	message, nonce, err := h.readFlight()
	if errors.Is(err, ErrHandshake) {
		return nil, ErrFirstFlight
	} else if err != nil {
		return nil, err
	}
	payload, _, _, err := h.state.ReadMessage(nil, message)
	if err != nil || cfg.Early.Has(message) || !cfg.Seen.Add(message) { // its beginning is the ephemeral key
		return nil, ErrFirstFlight
	}
	if h.prepared != nil {
		cfg.Early.Add(message)
	}
	if _, err := wire.ParseOffer(payload); err != nil {
		return nil, ErrFirstFlight
	}
	if cfg.Admit != nil && !cfg.Admit(conn) {
		return nil, ErrBusy
	}
	h.keep(&h.first, nonce)
	mine := h.prepared
	if mine == nil {
		mine = h.hello().Append(nil)
	}
	h.keep(&h.mine, mine)
	if message, _, _, err = h.state.WriteMessage(nil, mine); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	flight, err := cfg.appendFlight(nil, message)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(flight); err != nil {
		return nil, err
	}
	cfg.Spare.refill(cfg.random()) // while the other side works
	if message, _, err = h.readFlight(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	payload, receive, send, err := h.state.ReadMessage(nil, message)
	if err != nil {
		return nil, fmt.Errorf("%w: the third flight does not authenticate", ErrHandshake)
	}
	remote, err := h.remote(payload)
	if err != nil {
		return nil, err
	}
	return h.finish(remote, send, receive, nil)
}

func (h *handshake) hello() wire.Hello {
	hello := h.cfg.Hello
	hello.Version, hello.Peer = wire.Version, h.cfg.Key.ID()
	if !h.initiator && h.cfg.Ready != nil && h.cfg.Ready() {
		hello.Flags |= wire.FlagReady
	}
	return hello
}

// remote reads what the peer says of itself and checks that the identity it
// claims is the one whose secret it has just proved to hold.
func (h *handshake) remote(payload []byte) (wire.Hello, error) {
	h.keep(&h.theirs, payload)
	remote, err := wire.ParseHello(payload)
	if err != nil {
		return wire.Hello{}, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	static, err := h.cfg.Images.of(remote.Peer)
	if err != nil || string(static[:]) != string(h.state.PeerStatic()) {
		return wire.Hello{}, fmt.Errorf("%w: the peer claims an identity that it does not hold", ErrHandshake)
	}
	return remote, nil
}

func (h *handshake) finish(remote wire.Hello, send, receive *noise.CipherState, first []byte) (*Link, error) {
	c := choose(h.cfg.Hello.Ciphers, remote.Ciphers)
	seal, open, err := split(c, send.UnsafeKey(), receive.UnsafeKey())
	if err != nil {
		return nil, err
	}
	h.logStream(c, send.UnsafeKey(), receive.UnsafeKey())
	return &Link{
		Conn: h.conn, Remote: remote, Initiator: first != nil, Cipher: c, Seal: seal, Open: open,
		First: first, Rest: append([]byte(nil), h.buf...),
	}, nil
}

// Images remembers the Curve25519 images of peers that have proved them. To
// compute one, with the check that the key is in the main subgroup, costs more
// than a key agreement, and peers come back.
type Images struct {
	mu    sync.Mutex
	known map[identity.PeerID][32]byte
}

// maxImages bounds the table, which begins anew when it is full.
const maxImages = 1024

func (i *Images) of(id identity.PeerID) ([32]byte, error) {
	if i == nil {
		return id.Curve25519()
	}
	i.mu.Lock()
	image, ok := i.known[id]
	i.mu.Unlock()
	if ok {
		return image, nil
	}
	image, err := id.Curve25519()
	if err != nil {
		return image, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known == nil || len(i.known) >= maxImages {
		i.known = make(map[identity.PeerID][32]byte)
	}
	i.known[id] = image
	return image, nil
}

// Seen remembers the ephemeral keys of first flights that authenticated, so that a
// recorded one gets no second answer, in whatever flight it comes: who carries it knows
// the network name, too, and can mask it anew. It holds the last 32,768 to 65,536.
type Seen struct {
	mu       sync.Mutex
	now, old map[[16]byte]struct{}
}

const seenGeneration = 1 << 15

// Add reports whether a key, or whatever else comes once, is new, and remembers it. The first 16 bytes count.
func (s *Seen) Add(what []byte) bool {
	if s == nil {
		return true
	}
	var key [16]byte
	copy(key[:], what)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds(key) {
		return false
	}
	if s.now == nil || len(s.now) >= seenGeneration {
		s.old, s.now = s.now, make(map[[16]byte]struct{})
	}
	s.now[key] = struct{}{}
	return true
}

// Has reports whether it is remembered.
func (s *Seen) Has(what []byte) bool {
	if s == nil {
		return false
	}
	var key [16]byte
	copy(key[:], what)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holds(key)
}

func (s *Seen) holds(key [16]byte) bool {
	_, now := s.now[key]
	_, old := s.old[key]
	return now || old
}
