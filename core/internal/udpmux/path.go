package udpmux

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	// maxPaths is how many addresses a peer may seem to have come to at once.
	maxPaths = 4
)

// path is an address from which a datagram of the peer came, newer than all
// before, and that is not proved: whoever sees a datagram on its way can send
// it on from anywhere. Such datagrams, of at least 33 bytes, earn one challenge of
// 41 bytes for each or for several. The response, which only the peer can seal,
// proves that it gets what is sent there.
type path struct {
	addr   netip.AddrPort // invalid: none
	token  uint64
	earned bool // a challenge is to be sent
}

// wander notes that the newest datagram came from elsewhere. Called with the
// lock held.
func (a *Assoc) wander(from netip.AddrPort) {
	for i := range a.paths {
		if p := &a.paths[i]; p.addr == from {
			p.earned = true
			return
		}
	}
	a.mux.contacts.note(from.Addr())
	var token [8]byte
	rand.Read(token[:]) //nolint:errcheck // never fails since Go 1.24
	a.paths[a.turn] = path{addr: from, token: binary.NativeEndian.Uint64(token[:]), earned: true}
	a.turn = (a.turn + 1) % maxPaths
}

// proved takes the response to a challenge. Called with the lock held.
func (a *Assoc) proved(token uint64, now time.Duration) {
	for i := range a.paths {
		if p := &a.paths[i]; p.addr.IsValid() && p.token == token {
			a.move(p.addr, now)
			return
		}
	}
}

// move goes on towards another address. Called with the lock held.
func (a *Assoc) move(to netip.AddrPort, now time.Duration) {
	old := a.addr
	a.addr, a.paths = to, [maxPaths]path{}
	a.moves++
	a.mux.stats.moved.Add(1)
	if old.Addr() != to.Addr() {
		a.machine.Moved(now)
	}
	a.machine.Ping() // what was sent to the old address is missed the sooner
}
