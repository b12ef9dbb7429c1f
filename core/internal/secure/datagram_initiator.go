package secure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// maxCookies bounds how often an initiator can be made to offer again.
const maxCookies = 4

// Initiator is one attempt to make an association, from the side that dials:
//
//	offering --Answer--> answered --Close--> closed
//
// Offer and Finish make the datagram anew each time: the caller sends it again
// while nothing comes, and decides when to give up, with ErrNoAnswer. It is for
// one goroutine at a time.
type Initiator struct {
	cfg    *Config
	h      *handshake // nil when it is not offering
	expect identity.PeerID
	local  Binding
	offer  wire.DatagramFlight
	finish []byte // Noise message; nil unless answered
	asked  int    // for cookies
}

// NewInitiator begins an attempt. A zero expect accepts anybody. local is how the
// peer will address datagrams to us (HeaderKey.Bind). Errors come from
// Config.Random.
func NewInitiator(cfg *Config, expect identity.PeerID, local Binding) (*Initiator, error) {
	h, err := begin(cfg, true, wire.DatagramPrologue)
	if err != nil {
		return nil, err
	}
	i := &Initiator{cfg: cfg, h: h, expect: expect, local: local}
	var id [8]byte
	if _, err = io.ReadFull(cfg.random(), id[:]); err == nil {
		i.offer = wire.DatagramFlight{Type: wire.FlightOffer, ID: binary.BigEndian.Uint64(id[:])}
		i.offer.Noise, _, _, err = h.state.WriteMessage(nil, wire.AppendOffer(nil))
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// ID returns the random name of the handshake: all its flights carry it, so that
// the caller finds the Initiator of an answer or a cookie.
func (i *Initiator) ID() uint64 { return i.offer.ID }

// Offer appends the first flight, with the cookie if one was asked for. Each time
// it looks different.
func (i *Initiator) Offer(dst []byte) ([]byte, error) {
	return i.cfg.sealFlight(dst, i.offer, wire.MinOffer, wire.MaxDatagramFlight)
}

// Cookie takes the cookie that a responder under load asks for: the caller sends
// Offer again at once. It returns ErrFlight when there is nothing to be done.
func (i *Initiator) Cookie(f Flight) error {
	if i.h == nil || f.Type != wire.FlightCookie || f.ID != i.offer.ID || i.asked >= maxCookies || f.Cookie == i.offer.Cookie {
		return ErrFlight
	}
	i.asked++
	i.offer.Cookie = f.Cookie
	return nil
}

// Answer takes the second flight. When it returns without error, the peer has
// proved its identity to us and knows nothing of ours: the caller either sends
// Finish, or forgets the association. The caller makes sure that the flight came
// from where the offer went.
//
// After ErrFlight the attempt goes on as if nothing had come. Any other error
// ends it, and wraps ErrWrongPeer or ErrHandshake.
func (i *Initiator) Answer(f Flight) (*Associated, error) {
	const least = wire.EphemeralSize + 32 + 2*wire.TagSize // a shorter one would break the state of the handshake
	if i.h == nil || f.Type != wire.FlightAnswer || f.ID != i.offer.ID || len(f.Noise) < least {
		return nil, ErrFlight
	}
	payload, _, _, err := i.h.state.ReadMessage(nil, f.Noise)
	if err != nil && !errors.Is(err, errLowOrder) {
		return nil, ErrFlight
	}
	defer i.Close()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	remote, err := i.h.remote(payload)
	if err != nil {
		return nil, err
	}
	if !i.expect.IsZero() && remote.Peer != i.expect {
		return nil, fmt.Errorf("%w: %s instead of %s", ErrWrongPeer, remote.Peer.Short(), i.expect.Short())
	}
	theirs, err := wire.ParseBinding(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	finish, send, receive, err := i.h.state.WriteMessage(nil, i.h.datagramHello(i.local))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	a, err := i.h.associate(i.offer.ID, remote, theirs, i.local, send.UnsafeKey(), receive.UnsafeKey(), true)
	if err != nil {
		return nil, err
	}
	i.finish = finish
	return a, nil
}

// Finish appends the third flight, by which the responder learns who we are. The
// caller sends it again until a sealed datagram of the responder comes; sealed
// datagrams may go out at once behind it. It is an error before Answer.
func (i *Initiator) Finish(dst []byte) ([]byte, error) {
	if i.finish == nil {
		return nil, fmt.Errorf("%w: not answered", ErrHandshake)
	}
	f := wire.DatagramFlight{Type: wire.FlightFinish, ID: i.offer.ID, Noise: i.finish}
	need := wire.FlightOverhead + len(i.finish)
	return i.cfg.sealFlight(dst, f, need, min(need+spread-1, wire.MaxDatagramFlight))
}

// Close erases the secrets of the handshake. What Answer returned stays, and so
// does Finish.
func (i *Initiator) Close() {
	if i.h != nil {
		i.h.erase()
		i.h = nil
	}
}
