package crust

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/netio"
)

// When this machine's network changes, every session proves that its link still
// works, those whose address of this machine is gone get another one at once, and
// those that wait for a link are dialled without a pause. Over UDP a session stays
// on its association, wherever its socket sends from: the peer sees that it comes
// from elsewhere, and follows when that is proved.

// changeRest is the least time between two changes that are acted upon: what comes
// in between is told as one. Programs may call NetworkChanged as often as they
// like.
const changeRest = 500 * time.Millisecond

// errAddressGone is why a link is given up.
var errAddressGone = errors.New("the address of this machine that the link used is gone")

// changes is what is noticed of changes.
type changes struct {
	watcher netio.Watcher // nil: nobody watches; constant after New

	mu      sync.Mutex
	running bool // a goroutine follows the changes
	pending bool
	moved   bool // it is more than the word of the program
	count   uint64
}

// NetworkChanged says that this machine's network has changed, or that it has
// slept. It is for programs that know before the system tells, or where it does
// not: see Config.NoNetworkWatch. It returns at once and may be called at any
// time, as often as one likes. EventNetworkChanged follows; calls within half a
// second are one.
func (s *Service) NetworkChanged() { s.changed(nil) }

// changed notes a change; nil is the word of the program.
func (s *Service) changed(c *netio.Change) {
	if !s.enter() {
		return
	}
	defer s.leave()
	n := &s.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = true
	if c != nil {
		n.moved = true
		n.count += uint64(len(c.Came) + len(c.Gone))
	}
	if !n.running {
		n.running = true
		s.spawn(s.follow)
	}
}

// follow is a goroutine that acts upon changes, until there have been none for a
// moment.
func (s *Service) follow() {
	n := &s.net
	for {
		n.mu.Lock()
		if !n.pending {
			n.running = false
			n.mu.Unlock()
			return
		}
		moved, count := n.moved, n.count
		n.pending, n.moved, n.count = false, false, 0
		n.mu.Unlock()
		s.react(moved, count)
		s.rest(s.ctx, changeRest)
	}
}

// react acts upon a change.
func (s *Service) react(moved bool, count uint64) {
	s.events.push(Event{Type: EventNetworkChanged, detail: &detail{count: count}})
	s.refreshMapping()
	s.beaconChanged()
	s.gossip.moved()
	addrs, err := s.network.Addrs()
	gone := func(a netip.Addr) bool {
		a = a.Unmap()
		nowhere := !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.Is6() && a.IsLinkLocalUnicast() // not listed
		return err == nil && !nowhere && !slices.Contains(addrs, a)
	}
	s.udpMu.Lock()
	for _, u := range s.sockets { // one whose address comes back is good again
		u.lost.Store(gone(u.ep.Addr.Addr()))
	}
	s.udpMu.Unlock()
	s.mu.Lock()
	s.moved = time.Now()
	peers := make([]*peer, 0, len(s.peers))
	for _, p := range s.peers {
		peers = append(peers, p)
		s.hasten(p, moved)
	}
	s.groupsMoved()
	s.mu.Unlock()
	s.otherNetwork()
	for _, p := range peers {
		if conn := p.sess.Link().Conn; gone(localAddr(conn)) {
			p.sess.Forsake(conn, errAddressGone)
		} else {
			p.sess.Prove()
		}
	}
}

// hasten makes who waits for a link, or for a better one, try at once. A try that
// was begun in another network has no hope; one of which only the program says so
// goes on. mu is held.
func (s *Service) hasten(p *peer, moved bool) {
	if p.redialing {
		p.loss.ours, p.fresh = true, true
		if p.giveUp != nil && (moved || p.resting) {
			p.giveUp()
		}
	}
	if moved {
		s.seek(p, true)
	}
}

// localAddr returns this machine's end of a connection.
func localAddr(conn net.Conn) netip.Addr {
	switch a := conn.LocalAddr().(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

// watchNetwork begins to watch this machine's network, where that can be done.
func (s *Service) watchNetwork() {
	watched, ok := s.network.(netio.Watched)
	if !ok || s.cfg.NoNetworkWatch {
		return
	}
	w, err := watched.Watch()
	if err != nil {
		s.log.Warn("changes of the network are not noticed", "error", err)
		return
	}
	s.net.watcher = w
	s.spawn(func() {
		for {
			c, err := w.Next()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					s.log.Warn("changes of the network are not noticed any more", "error", err)
				}
				return
			}
			s.changed(&c)
		}
	})
}

// unwatchNetwork ends that.
func (s *Service) unwatchNetwork() {
	if w := s.net.watcher; w != nil {
		w.Close() //nolint:errcheck // it returns nothing but nil
	}
}

// attendNetwork lets the watcher look for sleep while there are sessions. mu is
// held.
func (s *Service) attendNetwork() {
	if w := s.net.watcher; w != nil {
		w.Attend(len(s.peers) > 0)
	}
}

// Quiet returns how long ago anything came from the peer: see netio.Quiet.
func (c *utpConn) Quiet() (time.Duration, bool) { return c.assoc.Stats().Idle, true }

// Ask makes the peer's machine answer at once, wherever this one sends from now.
func (c *utpConn) Ask() { c.assoc.Ping() }
