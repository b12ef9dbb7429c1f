package crust

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libcrust/libcrust/core/internal/dial"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/nat/portmap"
	"github.com/libcrust/libcrust/core/internal/nat/punch"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// A peer that we meet tells us addresses, and we send there: packets that open NATs,
// and dials. They may be those of others. So whatever goes to an address that has not
// proved to be the peer's is paid for beforehand: punch.Account. Letters pay; where
// the plan of both NATs wants more, the other side sends pads, letters that say
// nothing, the way that the others went. What a peer sends in a session counts as
// well. Nobody need be trusted for that: neither the peer, nor who carries letters.

const (
	// payAhead is how long before its time the peer has its pay.
	payAhead = time.Second
	// padsAtOnce go each padPause, as long as more is due; payPause is how often it is
	// looked whether it is.
	padsAtOnce = 6
	padPause   = 25 * time.Millisecond
	payPause   = 100 * time.Millisecond
	// padBurst and padRate bound the pads of one punch, at once and in a second:
	// carriers drop what is more than letterBurst and letterRate.
	padBurst = letterBurst - 12
	padRate  = letterRate - 4
	// payRest is for how long nothing is paid after a packet has come from the peer:
	// both have better to do than to guess.
	payRest = time.Second
	// leastPad is the least size of a pad: less is not worth a letter.
	leastPad = 200
	// shakeCost is what a first flight and the end of a connection cost at most, in
	// bytes with headers, and closeCost the end alone.
	shakeCost = 500
	closeCost = 160
	// shakes is how many handshakes are paid for beside what the plan wants.
	shakes = 2
	// maxTold bounds the external addresses of which it is remembered how much was
	// said about them.
	maxTold = 64
)

// account is what may go to the addresses that a peer tells in one meeting.
type account struct {
	key *secure.ProbeKey // of the meeting

	mu    sync.Mutex
	purse punch.Account
	last  uint64 // number of the last pad
	kinds uint8  // of the letters that have come, a bit each
	early int    // bytes of pads that came before
	wake  func() // wakes who waits for more; nil when nobody does
	sess  *peer  // the session whose bytes count
	had   uint64 // of them were received when it was last looked
}

// newAccount makes the account of a meeting.
func (s *Service) newAccount(peer PeerID, id meetingID) (*account, error) {
	key, err := s.secure.NewProbeKey(peer, id)
	if err != nil {
		return nil, err
	}
	return &account{key: key}, nil
}

// letter takes a letter of the peer, of a size. One that comes again counts nothing.
func (c *account) letter(l wire.Letter, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := uint8(1) << (l.Kind % 8)
	if c.kinds&kind != 0 {
		return
	}
	c.kinds |= kind
	if l.Kind != wire.LetterGo { // else it tells no facts
		c.purse.Agree(agreed(l.UDP) && agreed(l.TCP))
	}
	c.earn(size + c.early)
	c.early = 0
}

// agreed reports whether an external address, if there is one, was seen by several.
func agreed(n wire.NAT) bool { return n.Agreed || !n.External.IsValid() }

// earn takes note of bytes that came from the peer. mu is held.
func (c *account) earn(bytes int) {
	c.purse.Earn(bytes)
	if c.wake != nil {
		c.wake()
	}
}

// pad reports whether a letter is a pad of the peer, and takes it if so. One that
// comes again counts nothing.
func (c *account) pad(letter []byte) bool {
	number, err := c.key.OpenPad(letter)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case number <= c.last:
	case c.kinds != 0:
		c.earn(len(letter))
	default:
		c.early += len(letter)
	}
	c.last = max(c.last, number)
	return true
}

// left returns how many bytes may go, 0 when more has gone than might.
func (c *account) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.purse.Left())
}

// spend reports whether bytes may go to an address, and charges them if so.
func (c *account) spend(to netip.Addr, bytes int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.purse.Spend(to, bytes)
}

// shake is spend for the handshake on a connection that somebody at an address has
// taken: it waits for a moment, but not until the other side takes its turn. When it may not be, the end of the connection is charged
// all the same.
func (c *account) shake(ctx context.Context, s *Service, to netip.Addr) bool {
	for until := time.Now().Add(turnPatience / 2); !c.spend(to, shakeCost); {
		if time.Now().After(until) || !s.rest(ctx, padPause) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.purse.Book(to, closeCost)
			return false
		}
	}
	return true
}

// session counts what has come in a session with the peer since it was first looked
// at. mu is held.
func (c *account) session(p *peer) {
	if p == nil {
		return
	}
	received := p.sess.Counters().WireReceived
	if p == c.sess && received > c.had {
		c.purse.Earn(int(received - c.had)) //nolint:gosec // since it was last looked
	}
	c.sess, c.had = p, received
}

// routers returns the routers of this machine, where they are known.
func (s *Service) routers() (list []netip.Addr) {
	if s.network != netio.System {
		return nil
	}
	found, err := portmap.Interfaces(nil)
	if err != nil {
		return nil
	}
	for _, i := range found {
		if i.Gateway.IsValid() {
			list = append(list, i.Gateway)
		}
	}
	return list
}

// payer pays the peer of a punch. The punch's goroutine owns it.
type payer struct {
	plan  *punch.Payer
	ratio int                  // of our bytes for the peer
	paid  int                  // bytes, with the letters
	pads  uint64               // sent
	left  float64              // that may be sent now
	at    time.Time            // when that was
	send  func(letter []byte)  // hands a letter to who carries it
	may   func(bytes int) bool // whether more may be said about our external addresses
	heard time.Time            // when something came from the peer
}

// newPayer begins to pay. letters is what those of the meeting have paid already.
func newPayer(cfg punch.Config, letters int, now time.Time, send func([]byte), may func(int) bool) *payer {
	ratio := 1
	if agreed(cfg.Mine.UDP) && agreed(cfg.Mine.TCP) {
		ratio = punch.Ratio
	}
	return &payer{plan: punch.NewPayer(cfg, now), ratio: ratio, paid: letters, left: padBurst, at: now, send: send, may: may}
}

// pay sends the pads that are due, and returns when to look again.
func (y *payer) pay(now time.Time, key *secure.ProbeKey) time.Time {
	if rest := y.heard.Add(payRest); now.Before(rest) {
		return rest
	}
	due := (y.plan.Until(now.Add(payAhead))+shakes*shakeCost+y.ratio-1)/y.ratio - y.paid
	y.left = min(y.left+padRate*now.Sub(y.at).Seconds(), padBurst)
	y.at = now
	for range padsAtOnce {
		if due <= 0 || y.left < 1 {
			return now.Add(payPause)
		}
		size := min(max(due, leastPad), wire.MaxLetter)
		if !y.may(size) {
			return now.Add(payPause)
		}
		y.pads++
		pad, err := key.SealSize(nil, wire.Probe{Kind: wire.ProbePad, Token: y.pads}, size)
		if err != nil {
			return now.Add(payPause)
		}
		y.send(pad)
		y.left--
		y.paid += size
		due -= size
	}
	return now.Add(padPause)
}

// toldBytes is what was said about external addresses of ours on which no several
// observers agree: a peer that has invented one must not have others pay for what
// goes there.
type toldBytes map[netip.Addr]int

// sessionBytes is what a peer has sent at least, with headers, until there is a session.
const sessionBytes = 400

// doubtful returns the external addresses of facts on which nobody agrees.
func doubtful(facts ...wire.NAT) (list []netip.Addr) {
	for _, n := range facts {
		if a := n.External.Addr().Unmap(); !agreed(n) && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// mayTell reports whether bytes of letters may go out that tell such addresses, and
// counts them if so: as many as those who have told them to us have sent, times
// punch.Ratio.
func (s *Service) mayTell(addrs []netip.Addr, bytes int) bool {
	if len(addrs) == 0 {
		return true
	}
	peers := s.some(s.cfg.MaxPeers)
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addrs {
		sent := uint64(0)
		for _, p := range peers {
			if slices.Contains(p.says[:], a) {
				sent += p.sess.Counters().WireReceived + sessionBytes
			}
		}
		if uint64(w.told[a]+bytes) > punch.Ratio*sent || w.told[a] == 0 && len(w.told) >= maxTold {
			return false
		}
	}
	if w.told == nil {
		w.told = make(toldBytes)
	}
	for _, a := range addrs {
		w.told[a] += bytes
	}
	return true
}

// disputed reports whether a peer as far away says that our external address is
// another one.
func (s *Service) disputed(a netip.Addr) bool {
	peers := s.some(s.cfg.MaxPeers)
	scope := func(a netip.Addr) endpoint.Scope { return endpoint.New(TCP, netip.AddrPortFrom(a, 1)).Scope() }
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return slices.ContainsFunc(peers, func(p *peer) bool {
		return slices.ContainsFunc(p.says[:], func(other netip.Addr) bool { return other != a && other.Is4() == a.Is4() && scope(other) == scope(a) })
	})
}

// discreet leaves an external address that nobody agrees on out of facts when a peer
// denies it, or, in the answer to a letter, when enough was said about it. Who seeks
// has said nothing before somebody answers: see met.
func (s *Service) discreet(kind wire.LetterKind, n *wire.NAT) {
	for _, a := range doubtful(*n) {
		if s.disputed(a) || kind == wire.LetterAnswer && !s.mayTell([]netip.Addr{a}, secure.LetterSize) {
			n.External = netip.AddrPort{}
		}
	}
}

// knock costs, at most: of SYNs that nobody answers within HandshakeTimeout, and of first
// flights by UDP.
const (
	knockTCP = 11 * 80
	knockUTP = 9 * (1200 + 48)
)

// payable returns those of a peer's endpoints that may be dialled for its session:
// those that we know ourselves, those at an address from which its links have come,
// and of those that only a letter or an info has told, as many as it has paid for by
// what it sent; where a program has handed over an info, with infoMost on top. mu is
// held.
func (s *Service) payable(p *peer, eps []Endpoint) (out []Endpoint) {
	worth := punch.Ratio*p.sess.Counters().WireReceived + p.allowed
	for _, ep := range eps {
		if slices.Contains(p.told, ep) && !slices.Contains(p.proven, ep.Addr.Addr()) {
			if ep.Scope() == endpoint.Loopback && p.allowed == 0 { // see knocks
				continue
			}
			cost := uint64(knockTCP)
			if ep.Transport == UTP {
				cost = knockUTP
			}
			if p.knocked+cost > worth {
				continue
			}
			p.knocked += cost
		}
		out = append(out, ep)
	}
	return out
}

// hear is reach for endpoints that a letter or an info has told. Service.mu is held.
func (p *peer) hear(eps ...Endpoint) {
	for _, ep := range eps {
		if !slices.Contains(p.endpoints, ep) && len(p.told) < 4*wire.MaxEndpoints {
			p.told = append(p.told, ep)
		}
	}
	p.reach(eps...)
	p.told = slices.DeleteFunc(p.told, func(ep Endpoint) bool { return !slices.Contains(p.endpoints, ep) })
}

// prove takes note of the address from which a link of the peer comes. Service.mu is
// held.
func (p *peer) prove(how How, ep Endpoint) {
	a := ep.Addr.Addr()
	if how == Relayed || !a.IsValid() || slices.Contains(p.proven, a) {
		return
	}
	if len(p.proven) >= maxProven {
		p.proven = slices.Delete(p.proven, 0, 1)
	}
	p.proven = append(p.proven, a)
}

// maxProven bounds the addresses of one peer that are remembered.
const maxProven = 8

// tells has a session know where its peer may be: what the program of an attempt knows,
// or what letters have told. Service.mu is held.
func (a *attempt) tells(p *peer) {
	switch {
	case a.pays != nil:
		p.hear(a.endpoints...)
	case a.info:
		p.hear(a.endpoints...)
		p.allowed = infoMost
	default:
		p.reach(a.endpoints...)
	}
	p.markMapped(a.mapped...)
}

// errUnpaid is why an endpoint that a peer has told is not dialled.
var errUnpaid = errors.New("the peer has told too many addresses for what it has sent")

// knocks leaves those steps that may be tried though only a letter has told where: by
// TCP, whose first packet is small. A first flight by UDP is not: there the punch finds
// out who is at an endpoint. Loopback addresses are for letters that have come from this
// machine: a peer elsewhere shall not have us dial what listens here for us alone.
func (s *Service) knocks(steps []dial.Step, local bool) []dial.Step {
	never := s.routers()
	return slices.DeleteFunc(steps, func(step dial.Step) bool {
		return step.Endpoint.Transport == UTP || step.Endpoint.Scope() == endpoint.Loopback && !local || slices.Contains(never, step.Endpoint.Addr.Addr())
	})
}

// isLocal reports whether the link of a peer comes from this machine.
func (s *Service) isLocal(p *peer) bool {
	if p == nil {
		return false
	}
	ep, how := s.whereabouts(p)
	return how != Relayed && ep.Scope() == endpoint.Loopback
}

// knockTimeouts are those of the dials of one endpoint, after as long a pause as the
// last one: within the first, a kernel sends one SYN.
var knockTimeouts = [...]time.Duration{950 * time.Millisecond, 2900 * time.Millisecond, 5900 * time.Millisecond}

// knock is try for an endpoint that only a letter has told: it is dialled as far as its
// peer has paid for that.
func (s *Service) knock(ctx context.Context, pays *account, ep Endpoint, expect PeerID) (*secure.Link, error) {
	if err := checkTransport(ep); err != nil {
		return nil, err
	}
	ctx, end, err := s.mayDial(ctx, ep, expect)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	to := ep.Addr.Addr()
	err = errUnpaid
	var conn net.Conn
	for i := 0; i < len(knockTimeouts); {
		if !pays.spend(to, punch.DialCost(to, knockTimeouts[i])) {
			if !s.rest(ctx, payPause) {
				break
			}
			continue
		}
		dialCtx, stop := context.WithTimeout(ctx, knockTimeouts[i])
		conn, err = s.network.Dial(dialCtx, netip.AddrPort{}, ep.Addr)
		stop()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		i++
	}
	if err == nil && !pays.shake(ctx, s, to) {
		conn.Close() //nolint:errcheck // it carries nothing
		err = errUnpaid
	}
	if err != nil {
		return nil, s.linkError("connect", expect, ep, end(err))
	}
	link, err := s.shake(ctx, conn, ep, expect)
	return link, end(err)
}
