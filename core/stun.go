package crust

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Servers of STUN (RFC 8489) tell what they see like peers do, from the service's own
// UDP socket, but in clear, and nothing proves who they are: each counts half of a
// peer. An answer is taken from whom it was asked for, with the random id of the
// question. Some have two addresses and two ports (RFC 5780), and answer from another
// one when asked to: they can show what a NAT depends on.

const (
	// MaxSTUN bounds Config.STUN.
	MaxSTUN = 8
	// stunPort is where servers are that do not say (RFC 8489 section 18.6).
	stunPort = 3478
	// stunTries is how often a question is sent; the first answer is waited for that
	// long, the next one twice as long, and so on (RFC 8489 section 6.2.1 has 500 ms).
	stunTries = 3
	stunWait  = 300 * time.Millisecond
	// stunFresh is how long an answer is not asked for again, and a name not looked up.
	stunFresh = time.Minute
	// stunLookup bounds looking a name up.
	stunLookup = 5 * time.Second
)

// stunServer is one of Config.STUN.
type stunServer struct {
	// constant
	text string
	host string
	addr netip.Addr // not valid when host is a name
	port uint16

	// guarded by watch.mu
	addrs    []netip.Addr // what a name stands for
	resolved time.Time
	asked    [2]time.Time      // when it was asked last, over IPv4 and IPv6
	seen     [2]netip.AddrPort // what it said
	other    [2]netip.AddrPort // where else it answers
	err      error             // why there is no answer
}

// NATServer is what a server of Config.STUN has said.
type NATServer struct {
	// Server is as in Config.
	Server string
	// Seen is our endpoint as the server has seen it last; not valid when it has not.
	Seen netip.AddrPort
	// Err says why there is no answer; nil when there is one, or none is due yet.
	Err error
}

// parseSTUN reads one of Config.STUN.
func parseSTUN(text string) (*stunServer, error) {
	s := &stunServer{text: text, host: text, port: stunPort}
	if host, port, err := net.SplitHostPort(text); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q: the port is a number from 1 to 65535", text)
		}
		s.host, s.port = host, uint16(n)
	} else if _, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		s.host = strings.Trim(text, "[]")
	}
	if a, err := netip.ParseAddr(s.host); err == nil {
		s.addr = a.Unmap()
		if checkDialable(endpoint.New(UTP, netip.AddrPortFrom(s.addr, s.port))) != nil || a.Zone() != "" {
			return nil, fmt.Errorf("%q: nobody can be reached at this address", text)
		}
		return s, nil
	}
	if !isName(s.host) {
		return nil, fmt.Errorf("%q: want HOST:PORT, with a name or an IP address", text)
	}
	return s, nil
}

// ParseSTUNServer checks one of Config.STUN and returns it. Errors are CodeInvalid.
func ParseSTUNServer(text string) (string, error) {
	if _, err := parseSTUN(text); err != nil {
		return "", &Error{Op: "parse", Code: CodeInvalid, Err: fmt.Errorf("STUN server %w", err)}
	}
	return text, nil
}

// isName reports whether a text can be the name of a host (RFC 1123 section 2.1).
func isName(text string) bool {
	const most = 253
	text = strings.TrimSuffix(text, ".")
	if len(text) == 0 || len(text) > most {
		return false
	}
	for _, label := range strings.Split(text, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// checkSTUN checks the servers of a configuration.
func (c *Config) checkSTUN() error {
	bad := func(err error) error { return &Error{Op: "new", Code: CodeInvalid, Err: err} }
	if len(c.STUN) > MaxSTUN {
		return bad(fmt.Errorf("there are %d STUN servers, at most %d are allowed", len(c.STUN), MaxSTUN))
	}
	for _, text := range c.STUN {
		if _, err := parseSTUN(text); err != nil {
			return bad(fmt.Errorf("STUN server %w", err))
		}
	}
	return nil
}

// addServers enters those of the configuration, which is checked.
func (s *Service) addServers() {
	for _, text := range s.cfg.STUN {
		if server, err := parseSTUN(text); err == nil {
			s.watch.servers = append(s.watch.servers, server)
		}
	}
}

// servers returns those that may be asked about a flow.
func (s *Service) servers(f observe.Flow) []*stunServer {
	if f.Proto != observe.UDP {
		return nil
	}
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.watch.servers), func(server *stunServer) bool { return !server.at(f).IsValid() })
}

// at returns where a server is, of a flow's family, as far as that is known. watch.mu is
// held.
func (v *stunServer) at(f observe.Flow) netip.AddrPort {
	for _, a := range append([]netip.Addr{v.addr}, v.addrs...) {
		if a.IsValid() && a.Is6() == f.IPv6 {
			return netip.AddrPortFrom(a, v.port)
		}
	}
	return netip.AddrPort{}
}

// findServers looks the names of servers up that are not known, or no more.
func (s *Service) findServers() {
	count := 0
	s.watch.mu.Lock()
	over := make(chan struct{}, len(s.watch.servers))
	for _, v := range s.watch.servers {
		if v.addr.IsValid() || time.Since(v.resolved) < stunFresh {
			continue
		}
		count++
		s.spawn(func() {
			addrs, err := s.lookUp(v.host)
			s.watch.mu.Lock()
			v.resolved = time.Now()
			if err != nil {
				v.err = err
			} else {
				v.addrs = addrs
			}
			s.watch.mu.Unlock()
			over <- struct{}{}
		})
	}
	s.watch.mu.Unlock()
	for range count {
		select {
		case <-over:
		case <-s.ctx.Done():
			return
		}
	}
}

// lookUp returns the addresses of a name that a server may have.
func (s *Service) lookUp(host string) ([]netip.Addr, error) {
	r, ok := s.network.(netio.Resolver)
	if !ok {
		return nil, fmt.Errorf("%s: names cannot be looked up here", host)
	}
	ctx, stop := context.WithTimeout(s.ctx, stunLookup)
	defer stop()
	addrs, err := r.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return endpoint.New(UTP, netip.AddrPortFrom(a, 1)).Scope() == endpoint.Unusable
	})
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address that anybody can be at", host)
	}
	return addrs, nil
}

// question is one that waits for an answer.
type question struct {
	server  *stunServer
	from    netip.AddrPort // who must answer
	observe netip.AddrPort // who then has seen us
	message wire.STUN
}

// askServers asks servers what they see of the socket that peers know, and reports
// whether any was asked. Those that can are asked at their other address and port as
// well, once, for it is theirs by their own word alone.
func (s *Service) askServers(f observe.Flow) bool {
	if f.Proto != observe.UDP || len(s.cfg.STUN) == 0 {
		return false
	}
	s.findServers()
	var first []*question
	w := &s.watch
	w.mu.Lock()
	for _, v := range w.servers {
		at := v.at(f)
		i := family(f)
		if at.IsValid() && time.Since(v.asked[i]) >= stunFresh {
			v.asked[i] = time.Now()
			first = append(first, &question{server: v, from: at, observe: at})
		}
	}
	w.mu.Unlock()
	if len(first) == 0 {
		return false
	}
	u, err := s.udpFor(first[0].from.Addr())
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, q := range first {
			q.server.err = err
		}
		return false
	}
	send := func(d []byte, to netip.AddrPort) { u.mux.WriteTo(d, to) } //nolint:errcheck // it may get lost
	answers := make(chan heard, earQueue)
	w.stun.Store(&answers)
	defer w.stun.Store(nil)
	var more []*question
	s.question(first, stunTries, send, answers, func(q *question, a wire.STUN) {
		s.learn(f, u.mux.LocalAddr(), q, a)
		if o := a.Other; o.IsValid() && o.Addr() != q.from.Addr() && o.Addr().Is6() == f.IPv6 && observe.Wide(o.Addr()) && o.Port() != 0 {
			for _, at := range []netip.AddrPort{netip.AddrPortFrom(o.Addr(), q.from.Port()), o} {
				more = append(more, &question{server: q.server, from: at, observe: at})
			}
		}
	})
	s.question(more, 1, send, answers, func(q *question, a wire.STUN) { s.learn(f, u.mux.LocalAddr(), q, a) })
	return true
}

// family is the index of a flow's family.
func family(f observe.Flow) int {
	if f.IPv6 {
		return 1
	}
	return 0
}

// learn takes an answer.
func (s *Service) learn(f observe.Flow, local netip.AddrPort, q *question, a wire.STUN) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if q.from == q.server.at(f) {
		q.server.seen[family(f)], q.server.other[family(f)] = a.Mapped, a.Other
	}
	w.machine.Observe(observe.Vote{Proto: observe.UDP, Local: local, Seen: a.Mapped, Observer: q.observe, Server: true}, time.Now())
}

// errNoSTUN is why there is no answer.
var errNoSTUN = errors.New("no answer")

// question asks, again and again, until all have answered or too long have not, and
// gives each answer to take. What is of no use is an error of the server.
func (s *Service) question(list []*question, tries int, send func([]byte, netip.AddrPort), answers <-chan heard, take func(*question, wire.STUN)) {
	waiting := map[[wire.STUNID]byte]*question{}
	for _, q := range list {
		if _, err := rand.Read(q.message.ID[:]); err != nil {
			return
		}
		q.message.Type = wire.STUNRequest
		waiting[q.message.ID] = q
	}
	fail := func(q *question, err error) {
		s.watch.mu.Lock()
		defer s.watch.mu.Unlock()
		q.server.err = err
	}
	for wait := stunWait; tries > 0 && len(waiting) > 0; tries, wait = tries-1, 2*wait {
		for _, q := range waiting {
			to := q.from
			if q.message.ChangeIP || q.message.ChangePort {
				to = q.observe
			}
			send(q.message.Append(nil), to)
		}
		timer := time.NewTimer(wait)
		for open := true; open && len(waiting) > 0; {
			select {
			case h := <-answers:
				q := waiting[h.stun.ID]
				if h.asker != nil || q == nil || h.from != q.from {
					continue
				}
				delete(waiting, h.stun.ID)
				switch {
				case h.stun.Type == wire.STUNError:
					fail(q, fmt.Errorf("error %d: %s", h.stun.Code, strings.ToValidUTF8(h.stun.Reason, "?")))
				case h.stun.Unknown != 0:
					fail(q, fmt.Errorf("it wants attribute %#04x to be understood", h.stun.Unknown))
				case !h.stun.Mapped.IsValid():
					fail(q, errors.New("an answer without an address"))
				default:
					fail(q, nil)
					take(q, h.stun)
				}
			case <-timer.C:
				open = false
			case <-s.ctx.Done():
				timer.Stop()
				return
			}
		}
		timer.Stop()
	}
	for _, q := range waiting {
		if q.observe == q.from && !q.message.ChangeIP && !q.message.ChangePort {
			s.watch.mu.Lock()
			if q.server.at(observe.Flow{IPv6: q.from.Addr().Is6()}) == q.from {
				q.server.err = errNoSTUN
			}
			s.watch.mu.Unlock()
		}
	}
}

// filterServers has servers answer from where a new socket has not sent to, and reports
// whether any can.
func (s *Service) filterServers(f observe.Flow, contact observe.Contact) bool {
	var first []*question
	w := &s.watch
	w.mu.Lock()
	for _, v := range w.servers {
		if o := v.other[family(f)]; f.Proto == observe.UDP && o.IsValid() && o.Addr() != v.at(f).Addr() && observe.Wide(o.Addr()) {
			first = append(first, &question{server: v, from: v.at(f), observe: v.at(f)})
		}
	}
	w.mu.Unlock()
	if len(first) == 0 {
		return false
	}
	e, err := s.openWindow(f)
	if err != nil {
		return false
	}
	defer e.close()
	var changed []*question
	s.question(first, stunTries, e.send, e.heard, func(q *question, a wire.STUN) {
		from := a.Other
		if contact == observe.Neighbour {
			from = netip.AddrPortFrom(q.from.Addr(), a.Other.Port())
		}
		if a.Other.IsValid() && a.Other.Addr() != q.from.Addr() && from != q.from {
			changed = append(changed, &question{
				server: q.server, from: from, observe: q.from,
				message: wire.STUN{ChangeIP: contact == observe.Stranger, ChangePort: true},
			})
		}
	})
	came := map[*question]bool{}
	s.question(changed, stunTries, e.send, e.heard, func(q *question, _ wire.STUN) {
		came[q] = true
		w.mu.Lock()
		defer w.mu.Unlock()
		w.machine.Arrived(f.Proto, q.from, contact, time.Now())
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range changed {
		if !came[q] && q.server.err == nil && s.ctx.Err() == nil {
			w.machine.Missed(f.Proto, q.from, contact, time.Now())
		}
	}
	return len(changed) > 0
}

// serversOf returns what the servers have said. watch.mu is held.
func (w *watch) serversOf() (list []NATServer) {
	for _, v := range w.servers {
		out := NATServer{Server: v.text, Seen: v.seen[0], Err: v.err}
		if !out.Seen.IsValid() {
			out.Seen = v.seen[1]
		}
		list = append(list, out)
	}
	return list
}
