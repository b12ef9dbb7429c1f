// Package tracer makes a link that is in clear out of a TCP connection, for people who
// want to look at what two peers say to each other. Both sides prove their identities,
// by signatures over the whole handshake, in which each of them has drawn a nonce; and
// that they know the network name. Nothing is secret, and what comes after the handshake
// is not protected: who is between the two can read it all, and change it.
//
// So that a capture can be entered anywhere every frame begins with the same four bytes,
// "cru1". A responder says nothing before the first message proves that the initiator
// knows the network name, and nothing to one that it has seen before. docs/PROTOCOL.md
// says all this to the byte.
//
// The package reads no clock: the caller sets the deadlines of the connection.
package tracer

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Labels of what is proved: they keep one proof from being used as another.
const (
	labelOffer     = "libcrust/1 tracer offer\x00"
	labelResponder = "libcrust/1 tracer responder\x00"
	labelInitiator = "libcrust/1 tracer initiator\x00"
)

// Initiate makes a link as the side that dialled, with the same configuration as
// secure.Initiate. When it returns, the peer has proved its identity to us and knows
// nothing of ours: the caller either writes Link.First, or closes the connection. A zero
// expect accepts anybody.
//
// Errors wrap secure.ErrNoAnswer, secure.ErrWrongPeer, secure.ErrHandshake or come from
// the connection.
func Initiate(conn net.Conn, cfg *secure.Config, expect identity.PeerID) (*secure.Link, error) {
	offer := wire.TracerShake{Step: 1, Payload: wire.AppendOffer(nil)}
	if _, err := io.ReadFull(random(cfg), offer.Nonce[:]); err != nil {
		return nil, err
	}
	offer.Proof = cfg.Network.Transcript([]byte(labelOffer), offer.AppendUnproved(nil))
	first := offer.Append(nil)
	if _, err := conn.Write(appendFrame(nil, first, true, 0)); err != nil {
		return nil, err
	}
	second, n, err := readFrame(conn, false, 0)
	if err != nil && n == 0 {
		return nil, fmt.Errorf("%w (%w)", secure.ErrNoAnswer, err)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", secure.ErrHandshake, err)
	}
	answer, remote, err := parseHello(2, second)
	if err != nil {
		return nil, err
	}
	if !remote.Peer.Verify(signed(cfg, labelResponder, first, answer.AppendUnproved(nil)), answer.Proof) {
		return nil, fmt.Errorf("%w: the second message is not signed by its peer", secure.ErrHandshake)
	}
	if !expect.IsZero() && remote.Peer != expect {
		return nil, fmt.Errorf("%w: %s instead of %s", secure.ErrWrongPeer, remote.Peer.Short(), expect.Short())
	}
	third := wire.TracerShake{Step: 3, Payload: hello(cfg, false).Append(nil)}
	third.Proof = cfg.Key.Sign(signed(cfg, labelInitiator, first, second, third.AppendUnproved(nil)))
	link := &secure.Link{Conn: conn, Remote: remote, Initiator: true, First: appendFrame(nil, third.Append(nil), true, 1)}
	link.Clear(2, 1)
	return link, nil
}

// Respond makes a link as the side that accepted. On secure.ErrFirstFlight the caller
// must not write, nor let its closing tell anything, as for secure.Respond, whose errors
// these are.
func Respond(conn net.Conn, cfg *secure.Config) (*secure.Link, error) {
	first, n, err := readFrame(conn, true, 0)
	if err != nil && n < wire.TracerHeaderSize {
		return nil, err
	} else if err != nil {
		return nil, secure.ErrFirstFlight
	}
	offer, err := wire.ParseTracerShake(1, first)
	if err != nil {
		return nil, secure.ErrFirstFlight
	}
	proof := cfg.Network.Transcript([]byte(labelOffer), offer.AppendUnproved(nil))
	if subtle.ConstantTimeCompare(proof, offer.Proof) != 1 || !cfg.Seen.Add(offer.Nonce[:]) {
		return nil, secure.ErrFirstFlight
	}
	if cfg.Admit != nil && !cfg.Admit(conn) {
		return nil, secure.ErrBusy
	}
	answer := wire.TracerShake{Step: 2, Payload: hello(cfg, true).Append(nil)}
	if _, err := io.ReadFull(random(cfg), answer.Nonce[:]); err != nil {
		return nil, err
	}
	answer.Proof = cfg.Key.Sign(signed(cfg, labelResponder, first, answer.AppendUnproved(nil)))
	second := answer.Append(nil)
	if _, err := conn.Write(appendFrame(nil, second, false, 0)); err != nil {
		return nil, err
	}
	third, _, err := readFrame(conn, true, 1)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", secure.ErrHandshake, err)
	}
	last, remote, err := parseHello(3, third)
	if err != nil {
		return nil, err
	}
	if !remote.Peer.Verify(signed(cfg, labelInitiator, first, second, last.AppendUnproved(nil)), last.Proof) {
		return nil, fmt.Errorf("%w: the third message is not signed by its peer", secure.ErrHandshake)
	}
	link := &secure.Link{Conn: conn, Remote: remote}
	link.Clear(1, 2)
	return link, nil
}

func random(cfg *secure.Config) io.Reader {
	if cfg.Random != nil {
		return cfg.Random
	}
	return rand.Reader
}

// hello is what we say of ourselves.
func hello(cfg *secure.Config, responder bool) wire.Hello {
	h := cfg.Hello
	h.Version, h.Peer = wire.Version, cfg.Key.ID()
	if responder && cfg.Ready != nil && cfg.Ready() {
		h.Flags |= wire.FlagReady
	}
	return h
}

// parseHello reads the message of a step that has a hello.
func parseHello(step uint8, body []byte) (wire.TracerShake, wire.Hello, error) {
	m, err := wire.ParseTracerShake(step, body)
	if err != nil {
		return m, wire.Hello{}, fmt.Errorf("%w: %w", secure.ErrHandshake, err)
	}
	h, err := wire.ParseHello(m.Payload)
	if err == nil {
		_, err = h.Peer.Curve25519() // refuses what is no honest peer's key
	}
	if err != nil {
		return m, wire.Hello{}, fmt.Errorf("%w: %w", secure.ErrHandshake, err)
	}
	return m, h, nil
}

// signed is what a signature is of.
func signed(cfg *secure.Config, label string, parts ...[]byte) []byte {
	return append([]byte(label), cfg.Network.Transcript(parts...)...)
}

// appendFrame appends a frame of the handshake.
func appendFrame(b, body []byte, dialer bool, number uint64) []byte {
	b = wire.TracerHeader{Type: wire.TypeShake, Dialer: dialer, Len: len(body), Number: number}.Append(b)
	return append(append(b, body...), make([]byte, wire.TagSize)...)
}

// readFrame reads exactly one frame of the handshake, and returns its body and how many
// bytes have come.
func readFrame(conn net.Conn, dialer bool, number uint64) (body []byte, n int, err error) {
	var head [wire.TracerHeaderSize]byte
	if n, err = io.ReadFull(conn, head[:]); err != nil {
		return nil, n, err
	}
	h, err := wire.ParseTracerHeader(head[:])
	switch {
	case err != nil:
		return nil, n, err
	case h.Type != wire.TypeShake:
		return nil, n, fmt.Errorf("a tracer frame of type %d before the handshake is over", h.Type)
	case h.Dialer != dialer || h.Number != number:
		return nil, n, fmt.Errorf("tracer frame %d where %d was due", h.Number, number)
	}
	body = make([]byte, h.Len+wire.TagSize)
	m, err := io.ReadFull(conn, body)
	n += m
	if err != nil {
		return nil, n, err
	}
	var zeros [wire.TagSize]byte
	if string(body[h.Len:]) != string(zeros[:]) {
		return nil, n, errors.New("a tracer frame does not end with zeros")
	}
	return body[:h.Len], n, nil
}
