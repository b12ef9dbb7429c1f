package secure

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/libcrust/libcrust/core/internal/wire"
	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// The handshake in datagrams is that of streams, with another prologue and under
// another mask key. Each flight is one datagram, sealed under the network's key
// so that who does not know the name can neither make nor change one:
//
//	initiator                                responder
//	   |  offer, 640 to 1,200 bytes              |
//	   |---------------------------------------->|  under load: nothing kept, a cookie
//	   |<- - - - - - - - - - - - - - - - cookie  |
//	   |  offer again, with the cookie           |
//	   |---------------------------------------->|  a half-open handshake
//	   |  answer, not longer than the offer      |
//	   |<----------------------------------------|
//	   |  finish                                 |
//	   |---------------------------------------->|  an association
//	   |  sealed datagrams both ways             |
//
// Initiator and Responder are machines: the owner of the socket hands them
// flights and the time, sends what they return, and repeats offers and finishes.

// ErrFlight means that a flight does not authenticate, belongs to no handshake
// or came too late. It is dropped without an answer, and nothing has changed.
var ErrFlight = errors.New("the flight belongs to no handshake")

// ErrRepeated means that a finish came once more after its handshake was complete:
// the other side has not yet received one of our sealed datagrams.
var ErrRepeated = errors.New("the handshake is complete")

// Binding is what each side tells the other of how to address datagrams to it.
type Binding = wire.Binding

// Hello is what a peer tells about itself.
type Hello = wire.Hello

// The types of flights, as in Flight.Type.
const (
	FlightOffer  = wire.FlightOffer
	FlightAnswer = wire.FlightAnswer
	FlightFinish = wire.FlightFinish
	FlightCookie = wire.FlightCookie
)

// Flight is the plaintext of one flight. Its Noise message is a part of the
// buffer given to OpenFlight.
type Flight struct {
	wire.DatagramFlight
	size int // of the datagram: no answer may be longer
}

// FlightSize is the size of the largest flight, and of the buffers for them.
const FlightSize = wire.MaxDatagramFlight

// Associated is an association whose other end has proved its identity.
type Associated struct {
	Remote    wire.Hello
	Cipher    Cipher
	Initiator bool
	// Local is how the peer addresses datagrams to us. Local.CID is what
	// HeaderKey.Open gives for them.
	Local Binding
	// Box seals and opens the datagrams.
	Box *Box
}

// Prepare makes the next ephemeral key, so that making it takes no time of a
// handshake. It takes about as long as a key agreement: call it when flights have
// been sent and there is time. It does nothing without Spare.
func (c *Config) Prepare() { c.Spare.refill(c.random()) }

// OpenFlight opens the datagram of a flight into buf, which needs a capacity of
// FlightSize to avoid an allocation. The datagram is unchanged. Any error is
// ErrFlight: then it is no flight of this network. To find that out costs one
// block of ChaCha20 for 99 of 100 random datagrams.
func (n *Network) OpenFlight(buf, datagram []byte) (Flight, error) {
	nonce, sealed, ok := wire.SplitFlight(datagram)
	if !ok {
		return Flight{}, ErrFlight
	}
	// The stream of the AEAD without its tag: block 0 makes the key of the tag,
	// the text begins with block 1 (RFC 8439, section 2.8).
	stream, err := chacha20.NewUnauthenticatedCipher(n.datagram[:], nonce)
	if err != nil {
		return Flight{}, ErrFlight
	}
	var head [wire.DatagramFlightHead]byte
	stream.SetCounter(1)
	stream.XORKeyStream(head[:], sealed[:len(head)])
	if !wire.PossibleFlight(head[:], len(datagram)) {
		return Flight{}, ErrFlight
	}
	aead, err := chacha20poly1305.NewX(n.datagram[:])
	if err != nil {
		return Flight{}, ErrFlight
	}
	plain, err := aead.Open(buf[:0], nonce, sealed, nil)
	if err != nil {
		return Flight{}, ErrFlight
	}
	f, err := wire.ParseDatagramFlight(plain)
	if err != nil {
		return Flight{}, ErrFlight
	}
	return Flight{DatagramFlight: f, size: len(datagram)}, nil
}

// sealFlight appends the datagram of a flight, of a random length between least
// and most bytes, and no shorter than the flight needs. It uses up 24 bytes of
// randomness for the nonce and 4 for the length.
func (c *Config) sealFlight(dst []byte, f wire.DatagramFlight, least, most int) ([]byte, error) {
	need := wire.FlightOverhead + len(f.Noise)
	if least = max(least, need); least > most || most > wire.MaxDatagramFlight || len(f.Noise) > wire.MaxDatagramNoise {
		return nil, errors.New("a flight is too long")
	}
	var random [wire.FlightNonce + 4]byte
	if _, err := io.ReadFull(c.random(), random[:]); err != nil {
		return nil, err
	}
	size := least + int(binary.BigEndian.Uint32(random[wire.FlightNonce:])%uint32(most-least+1))
	aead, err := chacha20poly1305.NewX(c.Network.datagram[:])
	if err != nil {
		return nil, err
	}
	dst = append(dst, random[:wire.FlightNonce]...)
	start := len(dst)
	dst = f.Append(dst, size-need)
	return aead.Seal(dst[:start], random[:wire.FlightNonce], dst[start:], nil), nil
}

// spread is over how many lengths answers, finishes and cookies spread.
const spread = 512

// datagramHello returns the payload of our flight.
func (h *handshake) datagramHello(local Binding) []byte {
	mine := local.Append(h.hello().Append(nil))
	h.keep(&h.mine, mine)
	return mine
}

// associate makes the association from what the peer's payload says.
func (h *handshake) associate(id uint64, remote wire.Hello, theirs, ours Binding, send, receive [32]byte, initiator bool) (*Associated, error) {
	c := choose(h.cfg.Hello.Ciphers, remote.Ciphers)
	h.logDatagram(id, c, send, receive)
	box, err := newBox(c, &send, &receive, theirs)
	if err != nil {
		return nil, err
	}
	return &Associated{Remote: remote, Cipher: c, Initiator: initiator, Local: ours, Box: box}, nil
}
