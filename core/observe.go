package crust

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/observe"
	"github.com/libcrust/libcrust/core/internal/nat/portmap"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Peers tell each other from where they see the other's links come, and answer
// echoes: small sealed datagrams that ask the same of the UDP socket, whatever the
// link runs over. What comes of it is the verdict on the NAT in front of us.

const (
	// echoTries is how often an echo is asked for, echoPause between.
	echoTries = 3
	echoPause = 250 * time.Millisecond
	// echoFresh is how long the answer of one peer is not asked for again.
	echoFresh = time.Minute
	// echoRate bounds the echoes that a peer is answered, in a second.
	echoRate = 8
	// sampleWidth is how many peers are asked at once when the NAT gives each another
	// port, each about sampleSockets new sockets: the ports of one alone are few enough
	// to look counted by chance. samplePatience is how long their answers are waited for.
	sampleWidth    = 4
	sampleSockets  = 2
	samplePatience = 400 * time.Millisecond
)

// watch is what a service learns about the NATs in front of it.
type watch struct {
	mu      sync.Mutex // taken while Service.mu is held, never the other way
	machine observe.Machine
	asks    map[uint64]*asker // by the tag that the other side puts before echoes to us
	seen    secure.Seen       // nonces of asks that were answered; has its own lock
	reaches reaches
	surveys surveys
	servers []*stunServer // constant
	told    toldBytes
	met     map[netip.Addr]bool // by the port of the TCP listener
	tried   [2]int              // how many peers could not reach a listener, by observe.Proto
	look    look                // at TCP

	stun    atomic.Pointer[chan heard] // where answers of servers go, while they are waited for
	hairpin atomic.Pointer[loop]       // what we have sent to ourselves
}

// asker is the echoes between us and one peer. Its address is that of the
// session's link when it told of the echo; watch.mu guards what is not constant.
type asker struct {
	peer   *peer
	key    *secure.ProbeKey
	ours   uint64         // the tag of what comes to us
	theirs uint64         // zero until they have told it
	at     netip.AddrPort // where they answer; with port 0 they do not
	stream netip.AddrPort // and over TCP
	deaf   time.Time      // when nothing could be asked there
	dialed bool           // we dialled their link
	asked  time.Time      // when the last ask went out
	answer time.Time      // when the last answer came
	order  []uint64       // the tokens of asks without an answer; at most echoTries
	budget float64        // of answers to them
	spent  time.Time
}

// introduce tells a peer what it should know about its new link and about us: how
// we see it, unless it is on this machine, and where we answer echoes, if there may
// be a NAT between us.
func (s *Service) introduce(p *peer, link *secure.Link) {
	ep := endpointOf(endpoint.TCP, link.Conn.RemoteAddr())
	from := ep.Addr
	if _, how := s.whereabouts(p); how == Relayed || !from.IsValid() || ep.Scope() == endpoint.Loopback {
		return
	}
	frames := wire.AppendSeen(nil, from)
	if ep.Scope() < endpoint.CGNAT {
		p.sess.SendControl(frames)
		return
	}
	echo := wire.Echo{TCP: s.listenPort(from.Addr()).Port()}
	s.udpMu.Lock()
	u := s.udpOpen(from.Addr()) // who has no UDP socket needs to know nothing of one
	s.udpMu.Unlock()
	if u != nil {
		echo.Port = u.mux.LocalAddr().Port()
	}
	if echo.Port != 0 || echo.TCP != 0 {
		var ok bool
		if echo.Tag, ok = s.asker(p); ok {
			frames = echo.Append(frames)
		}
	}
	p.sess.SendControl(frames)
}

// asker returns the tag of the echoes from a peer, and makes it if there is none.
func (s *Service) asker(p *peer) (tag uint64, ok bool) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if p.echo == nil {
		key, err := s.secure.NewProbeKey(p.id, meetingID{})
		if err != nil {
			return 0, false
		}
		var b [wire.EchoTag]byte
		for binary.BigEndian.Uint64(b[:]) == 0 || s.watch.asks[binary.BigEndian.Uint64(b[:])] != nil {
			if _, err := rand.Read(b[:]); err != nil {
				return 0, false
			}
		}
		p.echo = &asker{peer: p, key: key, ours: binary.BigEndian.Uint64(b[:]), budget: echoRate}
		if s.watch.asks == nil {
			s.watch.asks = make(map[uint64]*asker)
		}
		s.watch.asks[p.echo.ours] = p.echo
	}
	return p.echo.ours, true
}

// forget lets go of a session's echoes.
func (s *Service) forget(p *peer) {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if p.echo != nil {
		delete(s.watch.asks, p.echo.ours)
	}
}

// whereLink returns the two ends of a session's link, and whether we dialled it. The
// ends of a relayed link are nowhere: who is there sees nothing of us, and must not
// speak for the relay, nor have us send to it.
func (s *Service) whereLink(p *peer) (local, remote netip.AddrPort, transport endpoint.Transport, dialed bool) {
	link := p.sess.Link()
	s.lookup.RLock()
	how := p.how
	transport, dialed = p.endpoint.Transport, how == Dialed || how == Mapped
	s.lookup.RUnlock()
	if _, circuit := link.Conn.(*relayConn); circuit || how == Relayed {
		return netip.AddrPort{}, netip.AddrPort{}, transport, false
	}
	return endpointOf(transport, link.Conn.LocalAddr()).Addr, endpointOf(transport, link.Conn.RemoteAddr()).Addr, transport, dialed
}

// seenAs takes what a peer says about our link to it.
func (s *Service) seenAs(p *peer, seen netip.AddrPort) {
	local, remote, transport, dialed := s.whereLink(p)
	proto := observe.TCP
	if transport == UTP {
		proto = observe.UDP
	}
	if !remote.IsValid() {
		return
	}
	unasked := s.unasked(p)
	s.seenFrom(p, seen.Addr())
	defer s.gossip.moved()
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	p.says[0], p.saw[proto] = seen.Addr().Unmap(), seen
	s.watch.machine.Observe(observe.Vote{Proto: proto, Local: local, Seen: seen, Observer: remote, Outbound: dialed}, time.Now())
	if unasked && transport == TCP {
		s.watch.machine.Arrived(proto, remote, observe.Stranger, time.Now())
	}
}

// unasked reports whether a peer has come without us having sent anything to it.
func (s *Service) unasked(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.attempts {
		if a.peer == p.id {
			return false
		}
	}
	return p.how == Accepted
}

// echoAt takes where a peer answers echoes, and asks for one.
func (s *Service) echoAt(p *peer, e wire.Echo) {
	_, remote, _, dialed := s.whereLink(p)
	if !remote.IsValid() {
		return
	}
	if _, ok := s.asker(p); !ok {
		return
	}
	s.watch.mu.Lock()
	a := p.echo
	a.theirs, a.at, a.dialed = e.Tag, netip.AddrPortFrom(remote.Addr(), e.Port), dialed
	if stream := netip.AddrPortFrom(remote.Addr(), e.TCP); stream != a.stream {
		a.stream, a.deaf = stream, time.Time{}
	}
	fresh := a.isFresh()
	s.watch.mu.Unlock()
	if e.TCP != 0 && dialed {
		s.lookSoon()
	}
	if !fresh && e.Port != 0 && dialed {
		s.spawn(func() { s.askOften(a) })
	}
	s.surveySoon(false)
}

// isFresh reports whether a peer has answered, or was asked, a moment ago. watch.mu is held.
func (a *asker) isFresh() bool {
	return time.Since(a.answer) < echoFresh || time.Since(a.asked) < echoFresh
}

// askBack asks a peer that has come to us, once its own ask has shown that its NAT lets
// us in: there are NATs that take offence at what comes too early.
func (s *Service) askBack(a *asker, from netip.AddrPort) {
	s.watch.mu.Lock()
	wanted := !a.dialed && from == a.at && !a.isFresh()
	s.watch.mu.Unlock()
	if wanted {
		s.spawn(func() { s.askOften(a) })
	}
}

// askOften asks until there is an answer, some times. Who does not answer though its
// link is there over TCP says something, too.
func (s *Service) askOften(a *asker) {
	began := time.Now()
	for range echoTries {
		if s.ask(a, began) || !s.rest(s.ctx, echoPause) {
			return
		}
	}
	_, _, transport, _ := s.whereLink(a.peer)
	_, suspended := a.peer.sess.Suspended()
	_, how := s.whereabouts(a.peer)
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	if !a.answer.After(a.asked) && transport == TCP && !suspended && how == Dialed {
		s.watch.machine.Silent(observe.UDP, a.at, time.Now())
	}
}

// ask sends one ask, unless an answer has come since the first of several, of which it
// reports whether that is so. An answer of before says nothing about now.
func (s *Service) ask(a *asker, first time.Time) (answered bool) {
	now := time.Now()
	token, err := newToken()
	s.watch.mu.Lock()
	answered = a.answer.After(a.asked) && !a.answer.Before(first)
	tag, at := a.theirs, a.at
	if !answered {
		a.asked = now
		if len(a.order) >= echoTries {
			a.order = a.order[1:]
		}
		a.order = append(a.order, token)
	}
	s.watch.mu.Unlock()
	if answered {
		return true
	}
	u, fault := s.udpFor(at.Addr())
	if err = errors.Join(err, fault); err != nil {
		return false
	}
	if d, err := a.key.Seal(binary.BigEndian.AppendUint64(nil, tag), wire.Probe{Kind: wire.ProbeAsk, Token: token}); err == nil {
		u.mux.WriteTo(d, at) //nolint:errcheck // it may get lost
	}
	return false
}

// newToken returns what an ask says and its answer repeats: an answer that was kept
// from earlier is none.
func newToken() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:]) | 1, err
}

// stray takes a datagram that belongs to no association: an echo, a probe, or the
// answer of a server.
func (u *udpSocket) stray(from netip.AddrPort, datagram []byte) {
	if u.s.punched(u, from, datagram) {
		return
	}
	h, ok := u.s.understand(from, datagram)
	w, a := &u.s.watch, h.asker
	switch {
	case !ok:
	case a == nil:
		if to := w.stun.Load(); to != nil {
			select {
			case *to <- h:
			default:
			}
		}
	case h.probe.Kind == wire.ProbeAsk && u.s.affords(a, h.nonce):
		w.mu.Lock()
		tag := a.theirs
		w.mu.Unlock()
		if tag == 0 {
			return
		}
		if d, err := a.answerTo(tag, h); err == nil {
			u.mux.WriteTo(d, from) //nolint:errcheck // it may get lost
		}
		u.s.askBack(a, from)
	case h.probe.Kind == wire.ProbeAnswer:
		w.mu.Lock()
		defer w.mu.Unlock()
		if now := time.Now(); slices.Contains(a.order, h.probe.Echo) && h.probe.Seen.IsValid() && from == a.at {
			w.machine.Observe(a.vote(u.mux.LocalAddr(), h.probe.Seen), now)
			a.peer.says[1], a.peer.saw[observe.UDP] = h.probe.Seen.Addr(), h.probe.Seen
			a.order, a.answer = nil, now
		}
	case h.probe.Kind == wire.ProbeReach:
		u.s.reached(a, h.probe.Nonce, from)
	}
}

// spend reports whether one more ask is answered, and counts it. watch.mu is held.
func (a *asker) spend(now time.Time) bool {
	a.budget = min(a.budget+echoRate*now.Sub(a.spent).Seconds(), echoRate)
	a.spent = now
	if a.budget < 1 {
		return false
	}
	a.budget--
	return true
}

// vote is what an answer to an echo says. watch.mu is held.
func (a *asker) vote(local, seen netip.AddrPort) observe.Vote {
	return observe.Vote{Proto: observe.UDP, Local: local, Seen: seen, Observer: a.at, Outbound: a.dialed, At: a.asked}
}

// lookAround takes note of the addresses of this machine: what others said of
// sockets at other addresses says nothing any more.
func (s *Service) lookAround() {
	addrs, err := s.network.Addrs()
	if err != nil {
		return
	}
	list := s.mappings()
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	s.watch.machine.SetAddrs(addrs)
	s.noteMappings(list, time.Now())
}

// facts returns what is known of the NATs before the listeners, of IPv4 if there
// is anything.
func (s *Service) facts() (udp, tcp wire.NAT) {
	s.lookAround()
	list := s.mappings()
	s.watch.mu.Lock()
	now := time.Now()
	of := func(p observe.Proto) observe.Verdict {
		v := s.watch.machine.Verdict(observe.Flow{Proto: p}, now)
		if !v.NAT.External.IsValid() {
			v = s.watch.machine.Verdict(observe.Flow{Proto: p, IPv6: true}, now)
		}
		v.NAT.Agreed = v.Confidence > observe.None || v.None // the latter is an address of this machine
		return v
	}
	byUDP, byTCP := of(observe.UDP), of(observe.TCP)
	s.watch.mu.Unlock()
	udp, tcp = mappedFacts(byUDP.NAT, list, portmap.UDP), mappedFacts(s.ofListener(byTCP), list, portmap.TCP)
	_, tcp.Openers = s.network.(netio.Opener)
	return udp, tcp
}

// sample asks several peers at once what they see of new sockets, unless it is
// known that all see the same. Its mappings are new, so their ports show how the NAT
// chooses them, and where it is now. It reports whether anybody could be asked.
func (s *Service) sample() bool {
	udp, _ := s.facts()
	if udp.Mapping == wire.EndpointIndependent && udp.External.IsValid() {
		return false
	}
	var asked []*asker
	s.watch.mu.Lock()
	for _, a := range s.watch.asks {
		if a.dialed && !a.answer.IsZero() && a.at.Addr().Is4() && len(asked) < sampleWidth {
			asked = append(asked, a)
		}
	}
	s.watch.mu.Unlock()
	if len(asked) < 2 {
		return false
	}
	token, err := newToken()
	if err != nil {
		return false
	}
	seen := make(chan observe.Vote, sampleSockets*sampleWidth)
	began := time.Now()
	var locals []netip.AddrPort
	for range sampleSockets {
		conn, err := s.network.ListenPacket(s.ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
		if err != nil {
			break
		}
		defer conn.Close() //nolint:errcheck // it has served
		locals = append(locals, conn.LocalAddr())
		s.spawn(func() { s.readSample(conn, asked, token, seen) })
		s.askAll(conn, asked, token)
	}
	if len(locals) == 0 {
		return false
	}
	votes := make([]observe.Vote, 0, len(locals)*len(asked))
	timer := time.NewTimer(samplePatience)
	defer timer.Stop()
	for len(votes) < cap(votes) {
		select {
		case v := <-seen:
			votes = append(votes, v)
			continue
		case <-timer.C:
		case <-s.ctx.Done():
		}
		break
	}
	order := func(v observe.Vote) int {
		return slices.Index(locals, v.Local)*sampleWidth + slices.IndexFunc(asked, func(a *asker) bool { return a.at == v.Observer })
	}
	slices.SortFunc(votes, func(a, b observe.Vote) int { return order(a) - order(b) })
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	for i := range votes {
		votes[i].At = began
	}
	s.watch.machine.Sample(votes, time.Now())
	return true
}

// askAll asks all of them what they see of a socket.
func (s *Service) askAll(conn netio.PacketConn, asked []*asker, token uint64) {
	for _, a := range asked {
		s.watch.mu.Lock()
		tag, at := a.theirs, a.at
		s.watch.mu.Unlock()
		if d, err := a.key.Seal(binary.BigEndian.AppendUint64(nil, tag), wire.Probe{Kind: wire.ProbeAsk, Token: token}); err == nil {
			conn.WriteBatch([]netio.Packets{{Buf: d, N: len(d), Segment: len(d), Addr: at}}) //nolint:errcheck // it may get lost
		}
	}
}

// readSample is the goroutine that reads the answers to a sample, each once, until
// the socket is closed.
func (s *Service) readSample(conn netio.PacketConn, asked []*asker, token uint64, seen chan<- observe.Vote) {
	ps := []netio.Packets{{Buf: make([]byte, netio.ReadSize)}}
	for {
		n, err := conn.ReadBatch(ps)
		if err != nil {
			return
		}
		for at := 0; n > 0 && at < ps[0].N; at += ps[0].Segment {
			d := ps[0].Buf[at:min(at+ps[0].Segment, ps[0].N)]
			i := slices.IndexFunc(asked, func(a *asker) bool { return a != nil && a.at == ps[0].Addr })
			if i < 0 || len(d) < wire.EchoTag {
				continue
			}
			p, err := asked[i].key.Open(d[wire.EchoTag:])
			if err != nil || p.Kind != wire.ProbeAnswer || p.Echo != token || !p.Seen.IsValid() {
				continue
			}
			seen <- observe.Vote{Proto: observe.UDP, Local: conn.LocalAddr(), Seen: p.Seen, Observer: asked[i].at, Outbound: true}
			asked = slices.Clone(asked)
			asked[i] = nil
		}
	}
}
