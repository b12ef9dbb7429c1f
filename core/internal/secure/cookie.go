package secure

import (
	"crypto/subtle"
	"io"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// cookieTurn is how long one secret makes cookies: they hold for one to two turns.
const cookieTurn = time.Minute

// cookies makes and checks the proof that an initiator gets what is sent to its
// address, without remembering anything of it.
type cookies struct {
	random    io.Reader
	turn      time.Duration // now / cookieTurn at which now was drawn
	drawn     bool
	now, last [32]byte
	lastHolds bool
}

// rotate draws a new secret when it is time. Errors come from random.
func (c *cookies) rotate(now time.Duration) error {
	turn := now / cookieTurn
	if c.drawn && turn <= c.turn {
		return nil
	}
	var secret [32]byte
	if _, err := io.ReadFull(c.random, secret[:]); err != nil {
		return err
	}
	c.last, c.lastHolds = c.now, c.drawn && turn == c.turn+1
	c.now, c.turn, c.drawn = secret, turn, true
	return nil
}

// mac binds an address to an offer's ephemeral key.
func mac(secret *[32]byte, from netip.AddrPort, ephemeral *[wire.EphemeralSize]byte) (out [wire.CookieSize]byte) {
	addr := from.Addr().As16()
	port := from.Port()
	sum := keyed(*secret, string(addr[:])+string([]byte{byte(port >> 8), byte(port)})+string(ephemeral[:]))
	copy(out[:], sum[:])
	return out
}

// bake returns the cookie for an offer.
func (c *cookies) bake(now time.Duration, from netip.AddrPort, ephemeral *[wire.EphemeralSize]byte) (out [wire.CookieSize]byte, err error) {
	if err := c.rotate(now); err != nil {
		return out, err
	}
	return mac(&c.now, from, ephemeral), nil
}

// valid reports whether cookie was baked for this offer, lately.
func (c *cookies) valid(now time.Duration, from netip.AddrPort, ephemeral *[wire.EphemeralSize]byte, cookie *[wire.CookieSize]byte) bool {
	if c.rotate(now) != nil {
		return false
	}
	want := mac(&c.now, from, ephemeral)
	if subtle.ConstantTimeCompare(want[:], cookie[:]) == 1 {
		return true
	}
	if !c.lastHolds {
		return false
	}
	want = mac(&c.last, from, ephemeral)
	return subtle.ConstantTimeCompare(want[:], cookie[:]) == 1
}

// zero erases the secrets.
func (c *cookies) zero() { c.now, c.last, c.drawn, c.lastHolds = [32]byte{}, [32]byte{}, false, false }
