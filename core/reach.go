package crust

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A service can have a peer send one probe to it, from a socket that has sent nothing
// before, to see what its NAT lets in. Nobody can be attacked by that: the peer sends
// to the address from which the link of the one that asks comes, which is proved, and
// no other; one datagram, or one SYN and a probe behind it, of about the size of what
// asked for it; so often, and no more; and the probe is sealed and looks like any other.
// Config.Relay turns it off together with all else that is done for others.

const (
	// reachRate bounds what is sent for one peer, a second, and reachBurst at once; twice
	// as much for one IPv4 address or IPv6 /64, whoever asks.
	reachRate  = 0.2
	reachBurst = 12
	// reachAtOnce bounds what is under way for all peers.
	reachAtOnce = 16
	// reachDial is how long a connection may take: less than a second, after which
	// kernels repeat the SYN.
	reachDial = 900 * time.Millisecond
	// reachLinger is how long the socket of a probe answers one echo, and how long the
	// other side may take to close a connection.
	reachLinger = 2 * time.Second
	// maxReachers bounds the peers, and the addresses, whose budgets are remembered. When
	// there are more, those that come are refused until an old one is full again.
	maxReachers = 4096
	// maxReaching bounds the probes that we have asked for.
	maxReaching = 32
)

// reaches is what is done for others, and what they do. watch.mu guards it.
type reaches struct {
	doing int
	peers map[PeerID]*budget
	addrs map[netip.Prefix]*budget
	asked map[[wire.ProbeNonce]byte]*reaching
}

// reaching is a probe that a peer was asked to send. Its nonce is in the table.
type reaching struct {
	asker *asker
	out   chan<- outcome
}

// outcome is something that has become of a probe: it has arrived, or the peer says
// that it was sent, or not. Each comes once at most.
type outcome struct {
	of   *reaching
	from netip.AddrPort // not valid unless it has arrived
	said wire.Reached
}

// spendOf takes from a budget of a table, and reports whether there was anything left.
// An error of the table's bound is none left, too.
func spendOf[K comparable](table *map[K]*budget, key K, rate, burst float64, now time.Time) bool {
	full := func(b *budget) bool { return b.left+rate*now.Sub(b.at).Seconds() >= burst }
	if *table == nil {
		*table = make(map[K]*budget)
	}
	b := (*table)[key]
	if b == nil {
		if len(*table) >= maxReachers {
			maps.DeleteFunc(*table, func(_ K, b *budget) bool { return full(b) })
		}
		if len(*table) >= maxReachers {
			return false
		}
		b = &budget{left: burst, at: now}
		(*table)[key] = b
	}
	b.left = min(b.left+rate*now.Sub(b.at).Seconds(), burst)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// mayReach reports whether one more probe is sent for a peer, and counts it.
func (s *Service) mayReach(p *peer, to netip.Addr, now time.Time) bool {
	bits := 32
	if to.Is6() {
		bits = 64
	}
	at, err := to.Prefix(bits)
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || w.reaches.doing >= reachAtOnce ||
		!spendOf(&w.reaches.peers, p.id, reachRate, reachBurst, now) || !spendOf(&w.reaches.addrs, at, 2*reachRate, 2*reachBurst, now) {
		return false
	}
	w.reaches.doing++
	return true
}

// reachCame does what a peer asks for.
func (s *Service) reachCame(p *peer, r wire.Reach) {
	_, remote, _, _ := s.whereLink(p)
	_, how := s.whereabouts(p)
	to := endpoint.New(r.Transport, netip.AddrPortFrom(remote.Addr(), r.Port))
	s.watch.mu.Lock()
	a := p.echo
	told := a != nil && a.theirs != 0
	s.watch.mu.Unlock()
	result := wire.ReachDone
	switch {
	case s.cfg.Relay == RelayOff:
		result = wire.ReachOff
	case how == Relayed || checkDialable(to) != nil || to.Scope() < endpoint.CGNAT || !told:
		result = wire.ReachCannot
	case !s.mayReach(p, to.Addr.Addr(), time.Now()):
		result = wire.ReachLimit
	}
	if result == wire.ReachLimit {
		s.refusedHelp.Add(1)
		s.charge(s.whoIs(p), AlertRelay, 1, 0, 0)
	}
	if result != wire.ReachDone {
		p.sess.SendControl(wire.Reached{Nonce: r.Nonce, Result: result}.Append(nil))
		return
	}
	s.spawn(func() {
		defer func() {
			s.watch.mu.Lock()
			defer s.watch.mu.Unlock()
			s.watch.reaches.doing--
		}()
		done := func(from uint16, err error) {
			answer := wire.Reached{Nonce: r.Nonce, From: from, To: to.Addr.Addr()}
			if err != nil {
				answer = wire.Reached{Nonce: r.Nonce, Result: wire.ReachCannot}
			}
			p.sess.SendControl(answer.Append(nil))
		}
		if to.Transport == TCP {
			s.reachTCP(a, to.Addr, r.Nonce, done)
		} else {
			s.reachUDP(a, to.Addr, r.Nonce, done)
		}
	})
}

// probe seals one to a peer, with the tag before it.
func (a *asker) probe(tag uint64, p wire.Probe) ([]byte, error) {
	return a.key.Seal(binary.BigEndian.AppendUint64(nil, tag), p)
}

// answerTo answers an ask of a peer. Nobody gets more than seems to come from there.
func (a *asker) answerTo(tag uint64, h heard) ([]byte, error) {
	p := wire.Probe{Kind: wire.ProbeAnswer, Echo: h.probe.Token, Seen: h.from}
	d, err := a.key.SealAnswer(binary.BigEndian.AppendUint64(nil, tag), p, h.size-wire.EchoTag)
	if err == nil && len(d) > h.size {
		err = errors.New("the ask is too short")
	}
	return d, err
}

// reachUDP sends a probe from a new socket, which then answers one echo of that peer.
func (s *Service) reachUDP(a *asker, to netip.AddrPort, nonce [wire.ProbeNonce]byte, done func(uint16, error)) {
	e, err := s.openEar(to.Addr())
	if err != nil {
		done(0, err)
		return
	}
	defer e.close()
	s.watch.mu.Lock()
	tag := a.theirs
	s.watch.mu.Unlock()
	d, err := a.probe(tag, wire.Probe{Kind: wire.ProbeReach, Nonce: nonce})
	if err == nil {
		e.send(d, to)
	}
	done(e.conn.LocalAddr().Port(), err)
	timer := time.NewTimer(reachLinger)
	defer timer.Stop()
	for {
		select {
		case h := <-e.heard:
			if h.asker == a && h.probe.Kind == wire.ProbeAsk && s.affords(a, h.nonce) {
				if d, err := a.answerTo(tag, h); err == nil {
					e.send(d, h.from)
				}
				return
			}
		case <-timer.C:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// reachTCP makes a connection from a new port, at which one echo of that peer is then
// answered, and writes a probe into it. How that ends is not told: who asked sees what
// comes, and about what does not come there is nothing to learn of the addresses behind
// its NAT.
func (s *Service) reachTCP(a *asker, to netip.AddrPort, nonce [wire.ProbeNonce]byte, done func(uint16, error)) {
	local := netip.AddrPort{}
	ln, err := s.network.Listen(s.ctx, netip.AddrPortFrom(anywhere(to.Addr().Is6()), 0))
	if err == nil {
		defer closeWith(s.ctx, ln)()
		defer ln.Close() //nolint:errcheck // it has served
		local = netip.AddrPortFrom(anywhere(to.Addr().Is6()), endpointOf(endpoint.TCP, ln.Addr()).Addr.Port())
	}
	ctx, stop := context.WithTimeout(s.ctx, reachDial)
	defer stop()
	conn, err := s.dialTCP(ctx, local, to)
	if err == nil {
		release := closeWith(s.ctx, conn)
		conn.SetDeadline(time.Now().Add(reachLinger)) //nolint:errcheck // a closed connection shows in the write
		s.watch.mu.Lock()
		tag := a.theirs
		s.watch.mu.Unlock()
		if d, err := a.probe(tag, wire.Probe{Kind: wire.ProbeReach, Nonce: nonce}); err == nil {
			conn.Write(d) //nolint:errcheck // then it does not arrive
		}
		s.spawn(func() { // the other side closes, and may then ask from that end
			defer release()
			conn.Read(make([]byte, 1)) //nolint:errcheck // only the waiting counts
			cutOff(conn)
		})
	}
	done(local.Port(), nil)
	if ln == nil {
		s.rest(s.ctx, reachLinger)
		return
	}
	linger, end := context.WithTimeout(s.ctx, reachLinger)
	defer end()
	defer closeWith(linger, ln)()
	if asking, err := ln.Accept(); err == nil {
		defer closeWith(s.ctx, asking)()
		asking.SetDeadline(time.Now().Add(reachLinger)) //nolint:errcheck // a closed connection shows in the read
		s.asked(asking)                                 //nolint:errcheck // it was answered or not
		asking.Close()                                  //nolint:errcheck // it has served
	}
}

// affords reports whether one more ask of a peer is answered, which must be new:
// somebody else may repeat what he has seen.
func (s *Service) affords(a *asker, nonce []byte) bool {
	if !s.watch.seen.Add(nonce) {
		return false
	}
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return a.spend(time.Now())
}

// askReach asks a peer to send a probe. What becomes of it comes to out, which must
// have room for two outcomes. It returns nil when the peer cannot be asked.
func (s *Service) askReach(a *asker, t Transport, port uint16, out chan<- outcome) *reaching {
	if _, how := s.whereabouts(a.peer); how == Relayed {
		return nil
	}
	r := &reaching{asker: a, out: out}
	frame := wire.Reach{Transport: t, Port: port}
	if _, err := rand.Read(frame.Nonce[:]); err != nil {
		return nil
	}
	w := &s.watch
	w.mu.Lock()
	if len(w.reaches.asked) >= maxReaching {
		w.mu.Unlock()
		return nil
	}
	if w.reaches.asked == nil {
		w.reaches.asked = make(map[[wire.ProbeNonce]byte]*reaching)
	}
	w.reaches.asked[frame.Nonce] = r
	w.mu.Unlock()
	a.peer.sess.SendControl(frame.Append(nil))
	return r
}

// forgetReaches lets go of probes.
func (s *Service) forgetReaches(list []*reaching) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.reaches.asked, func(_ [wire.ProbeNonce]byte, r *reaching) bool {
		for _, gone := range list {
			if r == gone {
				return true
			}
		}
		return false
	})
}

// reached takes a probe that we had asked for, and reports whether it is one.
func (s *Service) reached(a *asker, nonce [wire.ProbeNonce]byte, from netip.AddrPort) bool {
	return s.tellReach(a, nonce, func(r *reaching) outcome { return outcome{of: r, from: from} })
}

// reachedCame takes what a peer says about it.
func (s *Service) reachedCame(p *peer, said wire.Reached) {
	s.watch.mu.Lock()
	a := p.echo
	s.watch.mu.Unlock()
	s.tellReach(a, said.Nonce, func(r *reaching) outcome { return outcome{of: r, said: said} })
}

func (s *Service) tellReach(a *asker, nonce [wire.ProbeNonce]byte, what func(*reaching) outcome) bool {
	w := &s.watch
	w.mu.Lock()
	r := w.reaches.asked[nonce]
	w.mu.Unlock()
	if r == nil || r.asker != a {
		return false
	}
	select {
	case r.out <- what(r):
	default: // a second one
	}
	return true
}
