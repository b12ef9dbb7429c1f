package secure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/flynn/noise"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A peer may make an ephemeral key in advance, sign it, and leave it with a relay: a
// one-time key. Who calls the peer over that relay gets it there, half a round trip
// before the peer's answer can come. The key, the peer's static key and its hello, which
// goes with the key, are all that the second message of the handshake is made of. So the
// caller makes that message itself, from the other side's public keys and its own
// ephemeral secret, and goes on with the third flight at once, as if it had come:
//
//	caller ──flight 1──────────────────▶ peer
//	       ◀──one-time key── relay
//	       ──flight 3, records─────────▶
//	       ◀─────────────────flight 2───
//
// The peer answers with that key, and sees an ordinary handshake. When the second flight
// is what the caller has made, the peer is there and has the key's secret; until
// then it is known only that the peer has made the key, lately. When it is another one the
// peer does not use the key: what was sealed is of no use to anybody, and the handshake
// goes on as any.

var (
	// ErrKey means that a one-time key is not the peer's, or not good any more.
	ErrKey = errors.New("the one-time key is of no use")
	// ErrTooLate means that the second flight has come before the key was used.
	ErrTooLate = errors.New("the second flight has come")
)

// OneTime is the secret half of a one-time key.
type OneTime struct {
	Name  wire.KeyName
	Until time.Time // it is not used after that
	pair  noise.DHKey
	hello []byte
}

// Zero erases the secret.
func (o *OneTime) Zero() { clear(o.pair.Private) }

// NewOneTime makes n keys that are good until some time.
func (c *Config) NewOneTime(n int, until time.Time) ([]wire.OneTimeKey, []*OneTime, error) {
	hello := c.Hello
	hello.Version, hello.Peer = wire.Version, c.Key.ID()
	hello.Flags |= wire.FlagReady
	bytes := hello.Append(nil)
	if len(bytes) > wire.MaxKeyHello {
		return nil, nil, fmt.Errorf("%w: the hello is too long", ErrKey)
	}
	public, secret := make([]wire.OneTimeKey, n), make([]*OneTime, n)
	for i := range n {
		pair, err := sodiumDH{}.GenerateKeypair(c.random())
		if err != nil {
			return nil, nil, err
		}
		k := wire.OneTimeKey{Until: uint64(until.UnixMilli()), Public: [32]byte(pair.Public), Hello: bytes} //nolint:gosec // it is not before 1970
		k.Signature = [64]byte(c.Key.Sign(k.Signed()))
		public[i], secret[i] = k, &OneTime{Name: k.Name(), Until: until, pair: pair, hello: bytes}
	}
	return public, secret, nil
}

// givenDH is the DH function of one handshake whose ephemeral key is there already.
type givenDH struct {
	sodiumDH
	pair noise.DHKey
}

func (d givenDH) GenerateKeypair(_ io.Reader) (noise.DHKey, error) { return d.pair, nil }

// mirrorDH is the DH function of the other side of a handshake, for who has no secret but its own
// ephemeral one: the secrets of the other side are its public keys instead.
type mirrorDH struct {
	sodiumDH
	secret []byte
	public [32]byte // the other side's ephemeral key
}

func (d mirrorDH) GenerateKeypair(_ io.Reader) (noise.DHKey, error) {
	return noise.DHKey{Private: d.public[:], Public: d.public[:]}, nil
}

func (d mirrorDH) DH(theirs, _ []byte) ([]byte, error) { return d.sodiumDH.DH(d.secret, theirs) }

// RespondOnce is Respond with a one-time key, which it erases. The hello is the key's.
func RespondOnce(conn net.Conn, cfg *Config, key *OneTime) (*Link, error) {
	defer key.Zero()
	pair := noise.DHKey{Private: bytes.Clone(key.pair.Private), Public: key.pair.Public} // erased with the handshake
	h, err := beginWith(cfg, withDH(givenDH{pair: pair}), false, prologue)
	if err != nil {
		clear(pair.Private)
		return nil, err
	}
	defer clear(pair.Private)
	h.conn, h.prepared = conn, key.hello
	return h.respond()
}

// Call is a handshake as the side that dials, which can go on early: when there is a
// one-time key of the peer. Shake is called once; Early may be called meanwhile, by
// another goroutine.
type Call struct {
	cfg    *Config
	expect identity.PeerID
	h      *handshake
	offer  []byte // the first Noise message
	flight []byte // nil when it is sent

	mu     sync.Mutex
	over   bool   // the second flight has come, or none will
	second []byte // the second Noise message, as Early has made it
	early  *Link
}

// NewCall prepares a call. Nothing is sent. A zero expect accepts anybody.
func NewCall(conn net.Conn, cfg *Config, expect identity.PeerID) (*Call, error) {
	h, err := start(conn, cfg, true)
	if err != nil {
		return nil, err
	}
	c := &Call{cfg: cfg, expect: expect, h: h}
	if c.offer, _, _, err = h.state.WriteMessage(nil, wire.AppendOffer(nil)); err == nil {
		c.flight, err = cfg.appendFlight(nil, c.offer)
	}
	if err != nil {
		h.erase()
		return nil, err
	}
	h.keep(&h.first, c.flight[:wire.FlightNonce])
	return c, nil
}

// Drop erases a call that is not to be made.
func (c *Call) Drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		c.h.erase()
	}
}

// Send sends the first flight, if Shake is not to do it: what is sealed early must come
// behind.
func (c *Call) Send() error {
	_, err := c.h.conn.Write(c.flight)
	c.flight = nil
	return err
}

// Shake does what Initiate does. When the peer has answered with the key that Early
// was called with, early is true, and the link is the one that Early has returned, whose
// other side is known to be there now; rest is what was read beyond the handshake.
func (c *Call) Shake() (link *Link, rest []byte, early bool, err error) {
	h := c.h
	defer c.Drop()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	h.buf = (*buf)[:0]
	if c.flight != nil {
		if err := c.Send(); err != nil {
			return nil, nil, false, err
		}
	}
	c.cfg.Spare.refill(c.cfg.random()) // while the other side works
	message, _, err := h.readFlight()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.over = true }()
	defer h.erase()
	switch {
	case c.over:
		return nil, nil, false, net.ErrClosed
	case err != nil && len(h.buf) == 0:
		return nil, nil, false, fmt.Errorf("%w (%w)", ErrNoAnswer, err)
	case err != nil:
		return nil, nil, false, fmt.Errorf("%w: %w", ErrHandshake, err)
	case c.second != nil && bytes.Equal(message, c.second):
		return c.early, append([]byte(nil), h.buf...), true, nil
	}
	link, err = h.third(message, c.expect)
	return link, nil, false, err
}

// third reads the second Noise message, and makes the link with the third flight.
func (h *handshake) third(message []byte, expect identity.PeerID) (*Link, error) {
	payload, _, _, err := h.state.ReadMessage(nil, message)
	if err != nil {
		return nil, fmt.Errorf("%w: the second flight does not authenticate", ErrHandshake)
	}
	remote, err := h.remote(payload)
	if err != nil {
		return nil, err
	}
	if !expect.IsZero() && remote.Peer != expect {
		return nil, fmt.Errorf("%w: %s instead of %s", ErrWrongPeer, remote.Peer.Short(), expect.Short())
	}
	mine := h.hello().Append(nil)
	h.keep(&h.mine, mine)
	message, send, receive, err := h.state.WriteMessage(nil, mine)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	flight, err := h.cfg.appendFlight(nil, message)
	if err != nil {
		return nil, err
	}
	return h.finish(remote, send, receive, flight)
}

// Early makes the link at once, by a one-time key of the peer. It is to be used over
// nothing but what leads to who has the key, and said of it that it is for that key:
// when Shake returns without early, what was sealed is void.
//
// Errors wrap ErrKey or ErrTooLate.
func (c *Call) Early(k *wire.OneTimeKey, now time.Time) (*Link, error) {
	if err := c.holds(k, now); err != nil {
		return nil, err
	}
	static, err := c.cfg.Images.of(c.expect)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.second != nil {
		return nil, ErrTooLate
	}
	mine := c.h.state.LocalEphemeral()
	second, err := c.mirror(mine.Private, k, static)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	pair := noise.DHKey{Private: bytes.Clone(mine.Private), Public: mine.Public}
	h, err := beginWith(c.cfg, withDH(givenDH{pair: pair}), true, prologue)
	if err != nil {
		clear(pair.Private)
		return nil, err
	}
	defer clear(pair.Private)
	defer h.erase()
	h.conn, h.first = c.h.conn, c.h.first
	if message, _, _, err := h.state.WriteMessage(nil, wire.AppendOffer(nil)); err != nil || !bytes.Equal(message, c.offer) {
		return nil, fmt.Errorf("%w: the offer is another one", ErrKey)
	}
	link, err := h.third(second, c.expect)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	c.second, c.early = second, link
	return link, nil
}

// holds says why a key is not to be used.
func (c *Call) holds(k *wire.OneTimeKey, now time.Time) error {
	at := time.UnixMilli(int64(k.Until)) //nolint:gosec // an absurd time is refused
	switch {
	case c.expect.IsZero():
		return fmt.Errorf("%w: no certain peer is called", ErrKey)
	case !now.Before(at) || at.After(now.Add(MaxKeyLife)):
		return fmt.Errorf("%w: it is good until %v, as nothing is that was made lately", ErrKey, at)
	case !c.expect.Verify(k.Signed(), k.Signature[:]):
		return fmt.Errorf("%w: the signature is not the peer's", ErrKey)
	}
	return nil
}

// MaxKeyLife is for how long a one-time key may be good, at most.
const MaxKeyLife = 15 * time.Minute

// mirror makes the second message as who has the secret halves would.
func (c *Call) mirror(secret []byte, k *wire.OneTimeKey, static [32]byte) ([]byte, error) {
	state, err := noise.NewHandshakeState(noise.Config{
		CipherSuite: withDH(mirrorDH{secret: secret, public: k.Public}), Pattern: noise.HandshakeXX,
		Prologue: []byte(prologue), PresharedKey: c.cfg.Network.psk[:], PresharedKeyPlacement: 0,
		StaticKeypair: noise.DHKey{Private: static[:], Public: static[:]},
	})
	if err != nil {
		return nil, err
	}
	if _, _, _, err := state.ReadMessage(nil, c.offer); err != nil {
		return nil, err
	}
	message, _, _, err := state.WriteMessage(nil, k.Hello)
	return message, err
}

// withDH returns the functions of a handshake with its own DH function.
func withDH(dh noise.DHFunc) noise.CipherSuite {
	return noise.NewCipherSuite(dh, sodiumChaChaPoly{}, sodiumBLAKE2b{})
}
