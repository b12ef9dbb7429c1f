package crust

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/punch"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
)

// NATs are opened by TCP from the port of the listener, which so takes whatever comes
// through: a SYN that meets ours, and one that comes before or after it.

// remember takes note of an endpoint of the peer that is about to hear from us.
func (p *punching) remember(to netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.to) < maxHeard {
		p.to[to] = struct{}{}
	}
}

// opener begins a dial by a SYN that does not travel far, if the dial is one; else it
// returns nil.
func (p *punching) opener(act punch.Dial) (netio.Opening, error) {
	if act.TTL == 0 {
		return nil, nil
	}
	o, ok := p.s.network.(netio.Opener)
	if !ok {
		return nil, fmt.Errorf("openers by TCP: %w", errors.ErrUnsupported)
	}
	opening, err := o.Open(p.local(act), act.To, act.TTL)
	if err != nil {
		return nil, portError(err)
	}
	if act.Hold > 0 {
		p.ports[act.Hold] = opening.LocalAddr().Port()
	}
	return opening, nil
}

// local returns from where to dial.
func (p *punching) local(act punch.Dial) netip.AddrPort {
	if act.Hold == 0 {
		return p.s.listenPort(act.To.Addr())
	}
	here := netip.IPv4Unspecified()
	if act.To.Addr().Is6() {
		here = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(here, p.ports[act.Hold])
}

// portError marks an error that a port cannot be used as one of nat/punch.
func portError(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("%w: %w", punch.ErrPort, err)
	}
	return err
}

// dial dials by TCP, or waits for what has begun already, and shakes hands.
func (p *punching) dial(ctx context.Context, local netip.AddrPort, act punch.Dial, opening netio.Opening) error {
	began := time.Now()
	var conn net.Conn
	var err error
	if opening != nil {
		release := closeWith(ctx, opening)
		conn, err = opening.Wait(began.Add(act.Timeout))
		release()
	} else {
		dialCtx, stop := context.WithTimeout(ctx, act.Timeout)
		conn, err = p.s.dialTCP(dialCtx, local, act.To)
		stop()
	}
	if err != nil {
		return portError(err)
	}
	return p.join(ctx, conn, act.To, began)
}

// join shakes hands on a connection and makes a session of it. It closes what fails.
func (p *punching) join(ctx context.Context, conn net.Conn, at netip.AddrPort, began time.Time) error {
	if !p.account.shake(ctx, p.s, at.Addr()) {
		conn.Close() //nolint:errcheck // it carries nothing
		return errUnpaid
	}
	release := closeWith(ctx, conn)
	link, err := p.shake(conn)
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close() //nolint:errcheck // it has failed already
		return err
	}
	return p.adopt(link, endpoint.New(TCP, at), began)
}

// listenPort returns the local end of dials that are to look like the listener.
func (s *Service) listenPort(to netip.Addr) netip.AddrPort {
	for _, l := range s.Listeners() {
		if l.Transport == TCP && !s.isOld(l) && (to.Is4() || l.Addr.Addr().Is6()) {
			local := netip.IPv4Unspecified()
			if to.Is6() {
				local = netip.IPv6Unspecified()
			}
			return netip.AddrPortFrom(local, l.Addr.Port())
		}
	}
	return netip.AddrPort{}
}

// shake shakes hands on a connection that the peer has dialled too, or accepted,
// which cannot be told apart: the side with the lesser peer id begins. The other
// one begins when nothing has come for a while: then it was accepted.
func (p *punching) shake(conn net.Conn) (*secure.Link, error) {
	now := time.Now()
	if p.s.ID().Compare(p.peer) < 0 {
		conn.SetDeadline(now.Add(p.s.cfg.HandshakeTimeout)) //nolint:errcheck // a closed connection shows in the first write
		return secure.Initiate(conn, p.s.secure, p.peer)
	}
	conn.SetReadDeadline(now.Add(turnPatience)) //nolint:errcheck // a closed connection shows in the read
	var first [1]byte
	n, err := conn.Read(first[:])
	conn.SetDeadline(now.Add(p.s.cfg.HandshakeTimeout)) //nolint:errcheck // a closed connection shows in the next read
	switch {
	case n > 0:
		link, err := secure.Respond(&begun{Conn: conn, first: first[:]}, p.s.secure)
		if err != nil {
			return nil, err
		}
		if link.Conn = conn; link.Remote.Peer != p.peer {
			return nil, secure.ErrWrongPeer
		}
		return link, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return secure.Initiate(conn, p.s.secure, p.peer)
	}
	return nil, err
}

// begun is a connection of which the first byte was read.
type begun struct {
	net.Conn
	first []byte
	came  uint64 // bytes that were read
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 && len(p) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		b.came += uint64(n)
		return n, nil
	}
	n, err := b.Conn.Read(p)
	b.came += uint64(n)
	return n, err
}

// punchedFrom returns the punch whose peer seems to have come, from an endpoint that
// we have sent SYNs to; nil for none.
func (s *Service) punchedFrom(from netip.AddrPort) *punching {
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	for _, p := range s.post.punches {
		p.mu.Lock()
		_, sent := p.to[from]
		p.mu.Unlock()
		if sent {
			return p
		}
	}
	return nil
}

// yield waits with a link over UDP while one over TCP may be nearly there: TCP is
// favoured, and who has punched both ways should not see the session move at once.
func (p *punching) yield(ctx context.Context) {
	timer := time.NewTimer(dial.Grace)
	defer timer.Stop()
	resolved := p.attempt.ctx.Done()
	if p.attempt.ctx.Err() != nil { // over a relay, perhaps
		resolved = nil
	}
	select {
	case <-timer.C:
	case <-p.settled:
	case <-resolved:
	case <-ctx.Done():
	}
}

// yield is the same for a link that was dialled beside a punch.
func (s *Service) yield(a *attempt, at Endpoint) {
	s.mu.Lock()
	p := a.punch
	s.mu.Unlock()
	if p != nil && at.Transport == UTP {
		p.yield(a.ctx)
	}
}
