package crust_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// Attackers that hold everything but the keys of others: they see all, know the names
// and the counts of sessions, are members of the network under an id of their own, and
// stand on the way.

// pair is two nodes that are connected, on hosts of one internet, and an attacker's host.
type pair struct {
	t        *testing.T
	net      *simnet.Net
	ha       *tap
	hb, he   *simnet.Host
	a, b     *node
	keyA     *identity.Key
	keyB     *identity.Key
	evil     crust.PeerID // whose events are passed over
	sent     byte
	messages uint64
}

// besieged connects two nodes over TCP. b listens at 10.0.0.2:1.
func besieged(t *testing.T, keyA, keyB *identity.Key, f func(p *pair)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
		p := &pair{t: t, net: internet, ha: &tap{Host: internet.Host("10.0.0.1")}, hb: internet.Host("10.0.0.2"), he: internet.Host("10.0.0.66"), keyA: keyA, keyB: keyB}
		p.a = newNode(t, crust.On(p.ha, crust.Config{Identity: keyA, NoListen: true, Gossip: crust.GossipOff}))
		p.b = newNode(t, crust.On(p.hb, p.listening(keyB)))
		defer func() { p.a.Close(); p.b.Close() }()
		p.connect(1)
		f(p)
	})
}

func (p *pair) listening(key *identity.Key) crust.Config {
	return crust.Config{Identity: key, Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}, Gossip: crust.GossipOff}
}

func (p *pair) connect(token uint64) {
	p.t.Helper()
	if err := p.a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: p.b.ID()}, token); err != nil {
		p.t.Fatal(err)
	}
	p.a.next(crust.EventConnected)
	p.b.next(crust.EventConnected)
	p.messages = 0
}

// talk sends a message each way. It must be the next event, and come once.
func (p *pair) talk() {
	p.t.Helper()
	p.sent++
	p.messages++
	for _, ends := range [][2]*node{{p.a, p.b}, {p.b, p.a}} {
		if err := ends[0].Send(ends[1].ID(), []byte{p.sent}, 0); err != nil {
			p.t.Fatal(err)
		}
		if e := p.next(ends[1], crust.EventMessage); e.Peer != ends[0].ID() || !bytes.Equal(e.Data, []byte{p.sent}) {
			p.t.Fatalf("%x of %v came where %x was due", e.Data, e.Peer.Short(), p.sent)
		}
	}
	p.unharmed(-1)
}

// next returns the next event of a node, but for those of the attacker. It must be of a type.
func (p *pair) next(n *node, want crust.EventType) crust.Event {
	p.t.Helper()
	for {
		e := n.next(want, crust.EventConnected, crust.EventSuspended, crust.EventResumed, crust.EventLost, crust.EventAlert)
		switch {
		case e.Type == want && e.Peer != p.evil:
			return e
		case e.Type != crust.EventAlert && e.Peer != p.evil:
			p.t.Fatalf("%v (%v) while waiting for %v", e.Type, e.Err(), want)
		}
	}
}

// unharmed fails when the session of the two is another one, or has moved more often.
func (p *pair) unharmed(resumed int) {
	p.t.Helper()
	synctest.Wait()
	for _, ends := range [][2]*node{{p.a, p.b}, {p.b, p.a}} {
		peer, ok := ends[0].Peer(ends[1].ID())
		if !ok || resumed >= 0 && peer.Resumed != uint64(resumed) {
			p.t.Fatalf("the session of %v is not what it was: %v, %+v", ends[0].ID().Short(), ok, peer)
		}
		if peer.ReceivedMessages != p.messages {
			p.t.Fatalf("%d messages were delivered of %d", peer.ReceivedMessages, p.messages)
		}
	}
}

// rest takes the events that there are, but for those of the machine.
func (n *node) rest() (events []crust.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	for e := range n.Events(ctx) {
		switch e.Type {
		case crust.EventListenerStarted, crust.EventNetworkChanged, crust.EventAlert:
		default:
			events = append(events, e)
		}
	}
	return events
}

// intruder makes a link to b in the name of the attacker, in the life that is said, and says something
// first. It returns what b answers.
func (p *pair) intruder(key *identity.Key, instance uint64, frames []byte) (kind wire.FrameType, body []byte, link *secure.Link) {
	p.t.Helper()
	conn, err := p.he.Dial(p.t.Context(), netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:1"))
	if err != nil {
		p.t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(15 * time.Second)) //nolint:errcheck // it is a simulation
	cfg := &secure.Config{
		Key: key, Network: secure.NewNetwork(""), Seen: new(secure.Seen),
		Hello: wire.Hello{Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120_000, Resume: 60_000, Instance: instance},
	}
	if link, err = secure.Initiate(conn, cfg, p.b.ID()); err != nil {
		p.t.Fatal(err)
	}
	if err := session.Tell(link, frames); err != nil {
		p.t.Fatal(err)
	}
	kind, body, err = session.Await(link)
	if err != nil {
		kind = wire.FramePad // it has hung up
	}
	return kind, body, link
}

// TestForgedResumption: an attacker with an identity of its own, who knows the name of a
// session of others, the life of its peers and how much has come in it, claims or chooses it. He
// gets a session of his own at the most; the other is not his, does not move, and loses nothing.
func TestForgedResumption(t *testing.T) {
	for _, greatest := range []bool{true, false} { // the attacker decides, or claims
		for _, suspended := range []bool{false, true} {
			t.Run(fmt.Sprint("decides ", greatest, ", suspended ", suspended), func(t *testing.T) {
				keys := sortedKeys(t, 3)
				evil := keys[0]
				if greatest {
					evil = keys[2]
					keys[2] = keys[0]
				}
				besieged(t, keys[1], keys[2], func(p *pair) { forge(p, evil, greatest, suspended) })
			})
		}
	}
}

// forge tries all that an attacker can say of the session of a and b.
func forge(p *pair, evil *identity.Key, decides, suspended bool) {
	p.evil = evil.ID()
	p.talk()
	name, received := crust.Secrets(p.b.Service, p.a.ID())
	instance := crust.Instance(p.a.Service)
	if suspended {
		p.net.Cut(p.ha.Host, p.hb)
		p.net.Reset(p.ha.Host, p.hb)
		p.a.next(crust.EventSuspended)
		p.b.next(crust.EventSuspended)
	}
	var says [][]byte
	for _, n := range []uint64{0, 1, received, received + 1, 1 << 62} {
		if decides {
			says = append(says, wire.Chosen{Session: name, Received: n, Order: 1 << 60, Past: 1 << 59}.Append(nil))
			continue
		}
		for _, c := range []wire.Claim{{}, {Only: true}, {Held: []uint64{1, 2, 3}}, {Past: 1 << 60}} {
			c.Seq, c.Session, c.Received = 1<<60, name, n
			says = append(says, c.Append(nil))
		}
	}
	if !decides {
		says = append(says, wire.Claim{Seq: 1 << 61, Session: name, Begun: true}.Append(nil))
	}
	own := uint64(0)
	for i, frames := range says {
		before := p.b.Stats().SessionsTotal
		kind, body, link := p.intruder(evil, instance, frames)
		if c, err := wire.ParseChosen(body); kind == wire.FrameChosen && err == nil && c.Session == name && i != len(says)-1 {
			p.t.Fatalf("a claim of another's session was granted")
		}
		link.Conn.Close()
		synctest.Wait()
		for _, e := range p.b.rest() {
			if e.Peer != evil.ID() {
				p.t.Fatalf("%v of another", e.Type)
			}
		}
		own += p.b.Stats().SessionsTotal - before
		p.unharmed(0)
	}
	if own == 0 {
		p.t.Error("the attacker did not even get a session of his own: this test shows nothing")
	}
	if !suspended {
		p.talk()
		p.unharmed(0)
		return
	}
	p.net.Heal(p.ha.Host, p.hb)
	p.next(p.a, crust.EventResumed)
	p.next(p.b, crust.EventResumed)
	p.talk()
	p.unharmed(1)
}

// TestReplayedLinks: a link that has resumed a session is played again, from another
// address, when the session has ended, to the service when it has been made anew with the same identity,
// to another member of the network, and to one of another network. Of those only who has not heard the first flight
// yet, and is of the network, answers it, once, with one flight; nobody has a session.
func TestReplayedLinks(t *testing.T) {
	keys := sortedKeys(t, 3)
	besieged(t, keys[0], keys[1], func(p *pair) {
		p.talk()
		p.net.Reset(p.ha.Host, p.hb)
		for _, n := range []*node{p.a, p.b} {
			n.next(crust.EventSuspended)
			n.next(crust.EventResumed)
		}
		p.talk()
		p.ha.mu.Lock()
		link := p.ha.conns[1]
		p.ha.mu.Unlock()
		link.mu.Lock()
		recording := bytes.Clone(link.sent)
		link.mu.Unlock()
		play := func(what, to string, answers bool) {
			p.t.Helper()
			for _, first := range []int{len(recording), 200} {
				c, err := p.he.Dial(p.t.Context(), netip.AddrPort{}, netip.MustParseAddrPort(to))
				if err != nil {
					p.t.Fatal(err)
				}
				c.SetDeadline(time.Now().Add(15 * time.Second)) //nolint:errcheck // it is a simulation
				c.Write(recording[:first])                      //nolint:errcheck // it may have been closed
				c.Write(recording[first:])                      //nolint:errcheck // the same
				n := 0
				for b := make([]byte, 4096); ; {
					m, err := c.Read(b)
					if n += m; err != nil {
						break
					}
				}
				c.Close()
				if n > 0 != answers || n > wire.FlightNonce+wire.FlightHeader+wire.MaxNoise+wire.MaxPadding {
					p.t.Errorf("%s: %d bytes of answer", what, n)
				}
				answers = false
			}
		}
		if err := p.a.Disconnect(p.b.ID()); err != nil {
			p.t.Fatal(err)
		}
		p.a.next(crust.EventLost)
		p.b.next(crust.EventLost)
		play("the session has ended", "10.0.0.2:1", false)
		p.b.Close()
		p.b = newNode(p.t, crust.On(p.hb, p.listening(p.keyB)))
		other := newNode(p.t, crust.On(p.net.Host("10.0.0.3"), p.listening(keys[2])))
		foreign := p.listening(p.keyB)
		foreign.NetworkName = "another"
		stranger := newNode(p.t, crust.On(p.net.Host("10.0.0.4"), foreign))
		play("it is made anew", "10.0.0.2:1", true)
		play("another member", "10.0.0.3:1", true)
		play("another network", "10.0.0.4:1", false)
		for _, n := range []*node{p.b, other, stranger} {
			if s := n.Stats(); s.SessionsTotal != 0 {
				p.t.Errorf("%d sessions came of it", s.SessionsTotal)
			}
		}
		other.Close()
		stranger.Close()
		p.connect(2)
		p.talk()
	})
}

// TestReplayedDatagrams: all datagrams of a session over uTP, that has been resumed, are sent again from the peer's address
// and from another: to the same service while the session lives, and when it has ended; to the service made
// anew at the same port, to another member and to one of another network. Nothing is delivered, nobody has a
// session, and no more comes out than goes in.
func TestReplayedDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
		keys := sortedKeys(t, 3)
		ha, hb, he := internet.Host("10.0.0.1"), internet.Host("10.0.0.2"), internet.Host("10.0.0.66")
		at := func(key *identity.Key, name string) crust.Config {
			return crust.Config{Identity: key, Listen: []crust.Endpoint{endpointAt("utp://0.0.0.0:1")}, NetworkName: name, Gossip: crust.GossipOff}
		}
		a, b := newNode(t, crust.On(ha, at(keys[0], ""))), newNode(t, crust.On(hb, at(keys[1], "")))
		var mu sync.Mutex
		var heard []datagramSeen
		out := map[netip.AddrPort]int{}
		internet.Watch(func(from, to netip.AddrPort, data []byte) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, datagramSeen{from, to, bytes.Clone(data)})
			out[from] += len(data)
		})
		contact := crust.Contact{Endpoint: endpointAt("utp://10.0.0.2:1"), Peer: b.ID()}
		if err := a.ConnectEndpoint(contact, 1); err != nil {
			t.Fatal(err)
		}
		a.next(crust.EventConnected)
		b.next(crust.EventConnected)
		for i := range uint64(20) {
			if err := a.Send(b.ID(), filled(5000, i), 1); err != nil {
				t.Fatal(err)
			}
			if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(5000, i)) {
				t.Fatal("another message came")
			}
		}
		time.Sleep(5 * time.Second)
		mu.Lock()
		recorded := slices.DeleteFunc(slices.Clone(heard), func(d datagramSeen) bool { return d.to.Addr() != netip.MustParseAddr("10.0.0.2") })
		mu.Unlock()
		if len(recorded) < 30 {
			t.Fatalf("%d datagrams are recorded", len(recorded))
		}
		replay := func(what string, to string) {
			t.Helper()
			target := netip.MustParseAddrPort(to)
			mu.Lock()
			before := out[target]
			mu.Unlock()
			sent := 0
			for _, d := range recorded {
				for _, from := range []netip.AddrPort{d.from, netip.MustParseAddrPort("10.0.0.66:9")} {
					he.Forge(from, target, d.data)
					sent += len(d.data)
				}
				time.Sleep(time.Millisecond)
			}
			time.Sleep(15 * time.Second)
			mu.Lock()
			answered := out[target] - before
			mu.Unlock()
			t.Logf("%s: %d bytes in, %d out", what, sent, answered)
			if answered > sent/10 {
				t.Errorf("%s: %d bytes in answer to %d", what, answered, sent)
			}
		}
		replay("it lives", "10.0.0.2:1")
		if p, ok := b.Peer(a.ID()); !ok || p.ReceivedMessages != 20 || p.Resumed != 0 || b.EventsPending() {
			t.Fatalf("the replay did something: %v, %+v", ok, p)
		}
		if err := a.Disconnect(b.ID()); err != nil {
			t.Fatal(err)
		}
		a.next(crust.EventLost)
		b.next(crust.EventLost)
		replay("it has ended", "10.0.0.2:1")
		b.Close()
		b = newNode(t, crust.On(hb, at(keys[1], "")))
		other := newNode(t, crust.On(internet.Host("10.0.0.3"), at(keys[2], "")))
		stranger := newNode(t, crust.On(internet.Host("10.0.0.4"), at(keys[1], "another")))
		replay("it is made anew", "10.0.0.2:1")
		replay("another member", "10.0.0.3:1")
		replay("another network", "10.0.0.4:1")
		for _, n := range []*node{b, other, stranger} {
			if s := n.Stats(); s.SessionsTotal != 0 {
				t.Errorf("%d sessions came of it", s.SessionsTotal)
			}
		}
		if err := a.ConnectEndpoint(contact, 2); err != nil {
			t.Fatal(err)
		}
		a.next(crust.EventConnected)
		b.next(crust.EventConnected)
		for _, n := range []*node{a, b, other, stranger} {
			n.Close()
		}
	})
}

// datagramSeen is a datagram on its way.
type datagramSeen struct {
	from, to netip.AddrPort
	data     []byte
}

// middleman stands at a port of his own and does something with each connection.
type middleman struct {
	host  *simnet.Host
	ctx   context.Context
	mu    sync.Mutex
	heard []byte // all that has come
	conns []net.Conn
	door  net.Listener
	lives sync.WaitGroup
}

// stand has a middleman accept connections at a port, until leave is called.
func stand(t *testing.T, h *simnet.Host, port uint16, do func(m *middleman, c net.Conn)) *middleman {
	t.Helper()
	m := &middleman{host: h, ctx: t.Context()}
	l, err := h.Listen(t.Context(), netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	if err != nil {
		t.Fatal(err)
	}
	m.door = l
	m.lives.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns = append(m.conns, c)
			m.mu.Unlock()
			m.lives.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second)) //nolint:errcheck // it is a simulation
				do(m, hearing{c, m})
			})
		}
	})
	return m
}

// leave ends all that the middleman does.
func (m *middleman) leave() {
	m.door.Close()
	m.mu.Lock()
	for _, c := range m.conns {
		c.Close()
	}
	m.mu.Unlock()
	m.lives.Wait()
}

// hearing notes what is read.
type hearing struct {
	net.Conn
	m *middleman
}

func (h hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.m.heard = append(h.m.heard, b[:n]...)
	return n, err
}

// pass carries a connection on to another address.
func pass(m *middleman, c net.Conn, to string) {
	out, err := m.host.Dial(m.ctx, netip.AddrPort{}, netip.MustParseAddrPort(to))
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		carry(c, out, nil)
		c.Close()
	}()
	carry(out, c, nil)
}

// carry copies until an end. change is nil, or gets each piece.
func carry(to, from net.Conn, change func([]byte) []byte) {
	for b := make([]byte, 8<<10); ; {
		n, err := from.Read(b)
		piece := b[:n]
		if change != nil {
			piece = change(piece)
		}
		if _, failed := to.Write(piece); err != nil || failed != nil {
			return
		}
	}
}

// TestMisbinding: an attacker connects two who did not mean each other: to the one who asks for C comes B, or the one itself,
// or the attacker, with a link to B behind. Who is asked for by id is there or the call fails; who is not is named as who he is;
// and nobody is taken for anybody else.
func TestMisbinding(t *testing.T) {
	keys := sortedKeys(t, 4)
	evil := &secure.Config{
		Key: keys[3], Network: secure.NewNetwork(""), Seen: new(secure.Seen),
		Hello: wire.Hello{Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120_000},
	}
	for name, c := range map[string]struct {
		expect crust.PeerID
		do     func(m *middleman, c net.Conn)
		code   crust.Code
		peer   crust.PeerID
	}{
		"B for C":                     {keys[2].ID(), func(m *middleman, c net.Conn) { pass(m, c, "10.0.0.2:1") }, crust.CodeWrongPeer, crust.PeerID{}},
		"B for anybody":               {crust.PeerID{}, func(m *middleman, c net.Conn) { pass(m, c, "10.0.0.2:1") }, crust.CodeOK, keys[1].ID()},
		"the one itself for B":        {keys[1].ID(), func(m *middleman, c net.Conn) { pass(m, c, "10.0.0.1:1") }, crust.CodeWrongPeer, crust.PeerID{}},
		"the one itself for anybody":  {crust.PeerID{}, func(m *middleman, c net.Conn) { pass(m, c, "10.0.0.1:1") }, crust.CodeSelf, crust.PeerID{}},
		"its own bytes for B":         {keys[1].ID(), func(_ *middleman, c net.Conn) { carry(c, c, nil) }, crust.CodeHandshake, crust.PeerID{}},
		"its own bytes for anybody":   {crust.PeerID{}, func(_ *middleman, c net.Conn) { carry(c, c, nil) }, crust.CodeHandshake, crust.PeerID{}},
		"the attacker for B":          {keys[1].ID(), func(_ *middleman, c net.Conn) { secure.Respond(c, evil) }, crust.CodeWrongPeer, crust.PeerID{}}, //nolint:errcheck // whatever comes of it
		"the attacker, with B behind": {keys[1].ID(), func(m *middleman, c net.Conn) { between(m, c, evil) }, crust.CodeWrongPeer, crust.PeerID{}},
		"his flights in those of B's": {keys[1].ID(), func(m *middleman, c net.Conn) { splice(m, c, evil) }, crust.CodeHandshake, crust.PeerID{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
				var nodes []*node
				for i, key := range keys[:3] {
					cfg := crust.Config{Identity: key, Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}, Gossip: crust.GossipOff}
					nodes = append(nodes, newNode(t, crust.On(internet.Host(fmt.Sprintf("10.0.0.%d", i+1)), cfg)))
				}
				m := stand(t, internet.Host("10.0.0.66"), 9, c.do)
				defer m.leave()
				if err := nodes[0].ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.66:9"), Peer: c.expect}, 1); err != nil {
					t.Fatal(err)
				}
				if e := nodes[0].next(crust.EventConnected, crust.EventConnectFailed); e.Code() != c.code || c.code == crust.CodeOK && e.Peer != c.peer {
					t.Errorf("%v with %v: %v", e.Type, e.Peer.Short(), e.Err())
				}
				time.Sleep(time.Minute)
				for i, n := range nodes[1:] {
					for _, e := range n.rest() {
						if e.Peer != keys[0].ID() || keys[i+1].ID() != c.peer {
							t.Errorf("%v: %v of %v", keys[i+1].ID().Short(), e.Type, e.Peer.Short())
						}
					}
				}
				for _, n := range nodes {
					n.Close()
				}
			})
		})
	}
}

// between answers in the attacker's name, and dials B in it.
func between(m *middleman, c net.Conn, evil *secure.Config) {
	go func() {
		if out, err := m.host.Dial(m.ctx, netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:1")); err == nil {
			secure.Initiate(out, evil, identity.PeerID{}) //nolint:errcheck // whatever comes of it
			out.Close()
		}
	}()
	secure.Respond(c, evil) //nolint:errcheck // the same
}

// splice lets the first flight through to B, and answers with a second flight that B has made for the
// attacker's own first one.
func splice(m *middleman, c net.Conn, evil *secure.Config) {
	b := make([]byte, 4096)
	if n, err := c.Read(b); err != nil || n == 0 {
		return
	}
	out, err := m.host.Dial(m.ctx, netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:1"))
	if err != nil {
		return
	}
	defer out.Close()
	heard := &middleman{}
	secure.Initiate(hearing{out, heard}, evil, identity.PeerID{}) //nolint:errcheck // its answer is what is wanted
	c.Write(heard.heard)                                          //nolint:errcheck // whatever comes of it
	c.Read(b)                                                     //nolint:errcheck // the same
}

// TestNoDowngrade: a man in the middle has every attempt fail, in whatever way and however often. Nobody is
// connected, and nothing but flights of encrypted handshakes is ever sent: no id, no app id, no message.
func TestNoDowngrade(t *testing.T) {
	garbage := filled(5000, 3)
	ways := map[string]func(m *middleman, c net.Conn){
		"hangs up":     func(*middleman, net.Conn) {},
		"says nothing": func(_ *middleman, c net.Conn) { carry(discard{c}, c, nil) },
		"says garbage": func(_ *middleman, c net.Conn) { c.Write(garbage); carry(discard{c}, c, nil) }, //nolint:errcheck // it may have gone
		"asks for clear": func(_ *middleman, c net.Conn) {
			c.Write([]byte("HTTP/1.1 426 Upgrade Required\r\nUpgrade: none\r\n\r\n"))
			carry(discard{c}, c, nil)
		}, //nolint:errcheck // the same
		"sends it back":   func(_ *middleman, c net.Conn) { carry(c, c, nil) },
		"flips the first": func(m *middleman, c net.Conn) { harm(m, c, 0, 40) },
		"flips the last":  func(m *middleman, c net.Conn) { harm(m, c, 1, 100) },
	}
	for n := 0; n < 200; n += 13 { // and lets so many bytes of B's answer through
		ways[fmt.Sprintf("cuts after %d", n)] = func(m *middleman, c net.Conn) { harm(m, c, 2, n) }
	}
	keys := sortedKeys(t, 2)
	for name, do := range ways {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
			const app = "the app id is nobody's business"
			cfg := crust.Config{Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}, Gossip: crust.GossipOff, AppID: []byte(app), NetworkName: "private"}
			cfg.Identity = keys[0]
			a := newNode(t, crust.On(internet.Host("10.0.0.1"), cfg))
			cfg.Identity = keys[1]
			b := newNode(t, crust.On(internet.Host("10.0.0.2"), cfg))
			m := stand(t, internet.Host("10.0.0.66"), 9, do)
			defer m.leave()
			for token := range uint64(3) {
				if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.66:9"), Peer: b.ID()}, token); err != nil {
					t.Fatal(err)
				}
				if e := a.next(crust.EventConnectFailed); e.Code() == crust.CodeOK {
					t.Errorf("%s: it failed with %v", name, e.Err())
				}
				if err := a.Send(b.ID(), []byte("a message in clear"), 0); err == nil {
					t.Errorf("%s: a message was taken", name)
				}
			}
			m.mu.Lock()
			if len(m.conns) < 3 || len(m.heard) == 0 && name != "hangs up" {
				t.Errorf("%s: %d connections, %d bytes", name, len(m.conns), len(m.heard))
			}
			for _, clear := range [][]byte{[]byte(app), []byte("in clear"), idBytes(keys[0]), idBytes(keys[1]), []byte("private")} {
				if bytes.Contains(m.heard, clear) {
					t.Errorf("%s: %q is on the wire", name, clear)
				}
			}
			m.mu.Unlock()
			if s := b.Stats(); s.SessionsTotal != 0 {
				t.Errorf("%s: %d sessions", name, s.SessionsTotal)
			}
			a.Close()
			b.Close()
		})
	}
}

// discard takes what is written to it for itself.
type discard struct{ net.Conn }

func (d discard) Write(b []byte) (int, error) { return len(b), nil }

// harm carries a connection on to B, and flips a bit of what goes there, or comes from there, at a place, or lets only so
// much come from there.
func harm(m *middleman, c net.Conn, way, at int) {
	out, err := m.host.Dial(m.ctx, netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:1"))
	if err != nil {
		return
	}
	defer out.Close()
	change := func(of int) func([]byte) []byte {
		seen := 0
		return func(b []byte) []byte {
			if way == of && seen <= at && at < seen+len(b) {
				b[at-seen] ^= 1
			}
			if way == 2 && of == 1 {
				b = b[:max(0, min(len(b), at-seen))]
			}
			seen += len(b)
			return b
		}
	}
	go func() {
		carry(c, out, change(1))
		c.Close()
	}()
	carry(out, c, change(0))
}

func idBytes(key *identity.Key) []byte {
	id := key.ID()
	return id[:]
}
