package crust

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/transport/tracer"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A session may be in clear, over a tracer link, so that people can look at it. It never
// is unless both programs have allowed it, and one of them has named the endpoint to
// dial: by ConnectEndpoint, or by Connect with an info in which there is no endpoint of
// another kind. Attempts are of one kind: one that dials in clear dials nothing else, and
// all others leave Tracer endpoints out, so that no race between the two can be won by
// who blocks the one. Nobody is told of Tracer listeners but who gets a connection info.
//
// A session that stands over a secure link, or waits for one, goes on over no tracer link,
// and no tracer link ends it, as long as the peer's service is the same. One in clear
// goes over to a secure link when there is one, which nobody looks for, and does not come
// back; when its link is lost, it is dialled again in clear, where the program had named that.

// TracerMode tells whether sessions may be in clear.
type TracerMode uint8

const (
	// TracerOff means never: who dials in clear gets no byte back, and Tracer endpoints are
	// refused with CodeUnsupported.
	TracerOff TracerMode = 0
	// TracerOn means that listeners of Config.Listen and Listen may be of transport Tracer,
	// and that a program may dial such endpoints, by ConnectEndpoint, or by Connect with an
	// info that has no others. The identities are proved as ever, and the network name must be
	// the same; but whoever is between the two peers reads everything, and can change it.
	// EventClear and a warning in Logger tell of each such session. It is for
	// looking at a conversation, with tshark for instance: docs/TRACER.md.
	TracerOn TracerMode = 1
)

// errClear is why endpoints of Tracer are not used.
var errClear = errors.New("sessions in clear are made only where Config.Tracer allows them, and where the program names the endpoint itself")

// checkTracer checks the mode of a configuration.
func (c *Config) checkTracer() error {
	if c.Tracer > TracerOn {
		return &Error{Op: "new", Code: CodeInvalid, Err: fmt.Errorf("tracer mode %d is unknown", c.Tracer)}
	}
	return nil
}

// checkListen is checkTransport for a listener.
func (s *Service) checkListen(ep Endpoint) *Error {
	if s.cfg.Tracer == TracerOn && isTracer(ep) && ep.Addr.IsValid() {
		return nil
	}
	return checkTransport(ep)
}

// checkDial is checkDialable for an endpoint that the program names.
func (s *Service) checkDial(ep Endpoint) error {
	if s.cfg.Tracer == TracerOn && isTracer(ep) {
		return checkDialable(endpoint.New(TCP, ep.Addr))
	}
	return checkDialable(ep)
}

// mayReach reports whether somebody can be at an endpoint, in clear or not.
func mayReach(ep Endpoint) bool {
	return checkDialable(ep) == nil || isTracer(ep) && checkDialable(endpoint.New(TCP, ep.Addr)) == nil
}

func isTracer(ep Endpoint) bool { return ep.Transport == Tracer }

// onlyClear reports whether there are endpoints and all are in clear.
func onlyClear(eps []Endpoint) bool {
	return len(eps) > 0 && !slices.ContainsFunc(eps, func(ep Endpoint) bool { return !isTracer(ep) })
}

// ofKind returns those endpoints that are in clear, or the others.
func ofKind(eps []Endpoint, inClear bool) []Endpoint {
	if !slices.ContainsFunc(eps, func(ep Endpoint) bool { return isTracer(ep) != inClear }) {
		return eps
	}
	return slices.DeleteFunc(slices.Clone(eps), func(ep Endpoint) bool { return isTracer(ep) != inClear })
}

// inClear reports whether a session's link, or the one that it has lost, is in clear.
// Service.mu or lookup is held.
func (p *peer) inClear() bool { return isTracer(p.endpoint) }

// isClear is inClear without a lock held.
func (s *Service) isClear(p *peer) bool {
	ep, _ := s.whereabouts(p)
	return isTracer(ep)
}

// staysSecure reports whether a link is in clear and a session is not, so that it must not
// go on over the link, nor end for it. A nil peer is no session. mu is held.
func (p *peer) staysSecure(link *secure.Link) bool {
	return p != nil && link.InClear() && !p.inClear() && p.instance == link.Remote.Instance && p.sess.Live()
}

// secureBeside returns the session that a link in clear must leave alone, nil when there is
// none.
func (s *Service) secureBeside(link *secure.Link) *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.known(link.Remote.Peer); p.staysSecure(link) {
		return p
	}
	return nil
}

// withClear adds where this service can be dialled in clear to what a connection info
// tells.
func (s *Service) withClear(eps []Endpoint) []Endpoint {
	listeners := ofKind(s.Listeners(), true)
	addrs, err := s.network.Addrs()
	if err != nil || len(listeners) == 0 {
		return eps
	}
	for _, l := range listeners {
		if s.isOld(l) {
			continue
		}
		for _, ep := range reachable(l, addrs) {
			if len(eps) < wire.MaxEndpoints {
				eps = append(eps, ep)
			}
		}
	}
	return eps
}

// respondClear shakes hands in clear with who has come to a Tracer listener.
func (s *Service) respondClear(g *guest) (*secure.Link, error) {
	link, err := tracer.Respond(g.conn, s.accepting)
	s.shaken(g, err, 0)
	return link, err
}

// raceClear is race for an attempt in clear.
func (s *Service) raceClear(a *attempt, endpoints []Endpoint) (*secure.Link, Endpoint, error) {
	if a.bare && len(endpoints) == 1 {
		link, err := s.tryClear(a.ctx, endpoints[0], a.peer)
		return link, endpoints[0], err
	}
	ours, err := s.network.Addrs()
	if err != nil {
		s.log.Warn("cannot list the addresses of this machine", "error", err)
	}
	steps := moderate(dial.Plan(endpoints, ours))
	if len(steps) == 0 {
		return nil, Endpoint{}, &Error{Op: "connect", Peer: a.peer, Code: CodeNoEndpoint, Err: errors.New("the peer has told no endpoint that can be reached from here in clear")}
	}
	link, step, err := dial.Race(a.ctx, steps,
		func(ctx context.Context, step dial.Step) (*secure.Link, error) {
			return s.tryClear(ctx, step.Endpoint, a.peer)
		},
		func(link *secure.Link) { link.Conn.Close() })
	if err != nil {
		return nil, Endpoint{}, s.raceError("connect", a.peer, err)
	}
	return link, step.Endpoint, nil
}

// tryClear is try for an endpoint of Tracer. Nothing else dials in clear.
func (s *Service) tryClear(ctx context.Context, ep Endpoint, expect PeerID) (*secure.Link, error) {
	if s.cfg.Tracer != TracerOn {
		return nil, &Error{Op: "connect", Peer: expect, Endpoint: ep, Code: CodeUnsupported, Err: errClear}
	}
	if !s.allows(Dialed) {
		return nil, s.notAllowed(expect, ep)
	}
	ctx, end, err := s.mayDial(ctx, ep, expect)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	conn, err := s.network.Dial(ctx, netip.AddrPort{}, ep.Addr)
	if err != nil {
		return nil, s.linkError("connect", expect, ep, end(err))
	}
	link, err := s.shakeBy(ctx, conn, ep, expect, tracer.Initiate)
	return link, end(err)
}

// warnClear tells, and logs, that the session with a peer is in clear. mu is held; the
// returned function is to be called without it.
func (s *Service) warnClear(p *peer, link *secure.Link) func() {
	call := s.events.add(Event{Type: EventClear, Peer: p.id, detail: &detail{endpoint: p.endpoint, how: p.how}})
	from := link.Conn.LocalAddr()
	return func() {
		call()
		s.log.Warn("THIS SESSION IS IN CLEAR: whoever is between the two peers reads all of it, and can change it; Config.Tracer has allowed that", "peer", p.id, "endpoint", p.endpoint, "local", from)
	}
}
