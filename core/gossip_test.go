package crust_test

import (
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// knows reports whether a node knows another one by gossip, or is connected to it.
func (n *node) knows(id crust.PeerID) bool {
	_, connected := n.Peer(id)
	return connected || n.hasHeard(id)
}

// hasHeard reports whether a node knows another one by gossip.
func (n *node) hasHeard(id crust.PeerID) bool {
	return slices.ContainsFunc(n.Known(), func(k crust.KnownPeer) bool { return k.Peer == id })
}

// waiting returns the events that wait.
func (n *node) waiting() (list []crust.Event) {
	for n.EventsPending() {
		b, err := n.TryNextBatch(0)
		if err != nil {
			break
		}
		list = append(list, b.Events...)
	}
	return list
}

// told returns those of them that are of gossip, and drops the others.
func (n *node) told() []crust.Event {
	return slices.DeleteFunc(n.waiting(), func(e crust.Event) bool { return e.By() != crust.ByGossip })
}

// allKnow waits in virtual time until each of some nodes knows each other one, and returns
// how long that took; it gives up after most.
func allKnow(t *testing.T, nodes []*node, most time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		missing := 0
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b && !a.knows(b.ID()) {
					missing++
				}
			}
		}
		took := time.Since(began)
		switch {
		case missing == 0:
			return took
		case took >= most:
			t.Fatalf("after %v %d pairs do not know each other", took, missing)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// gossiping is over with gossip as the configuration says.
func gossiping(cfg crust.Config, address string, transports ...string) crust.Config {
	mode := cfg.Gossip
	cfg = over(cfg, address, transports...)
	cfg.Gossip = mode
	return cfg
}

// gossipChain makes n nodes, 20 ms apart, each linked to the next.
func gossipChain(t *testing.T, n int, f func(t *testing.T, internet *simnet.Net, hosts []*simnet.Host, nodes []*node)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		var hosts []*simnet.Host
		var nodes []*node
		for i := range n {
			hosts = append(hosts, internet.Host(fmt.Sprintf("10.0.0.%d", i+1)))
			nodes = append(nodes, newNode(t, crust.On(hosts[i], gossiping(crust.Config{}, "0.0.0.0", "tcp", "utp"))))
			defer nodes[i].Close()
			if i > 0 {
				link(t, nodes[i-1], nodes[i])
			}
		}
		f(t, internet, hosts, nodes)
	})
}

// TestGossip: nodes in a row get to know each other, the program is told of those that it
// is not connected to and where they are, can connect to them where nobody introduces the
// two, and is told when they depart.
func TestGossip(t *testing.T) {
	gossipChain(t, 5, func(t *testing.T, _ *simnet.Net, _ []*simnet.Host, nodes []*node) {
		allKnow(t, nodes, 10*time.Second)
		a, c, last := nodes[0], nodes[2], nodes[4]
		if n := a.Stats().Known; n != 4 || len(a.Known()) != 4 {
			t.Errorf("%d are known, and %d listed; want 4", n, len(a.Known()))
		}
		time.Sleep(time.Second)
		found := map[crust.PeerID]crust.Event{}
		for _, e := range a.told() {
			if e.Type != crust.EventDiscovered || found[e.Peer].Type != 0 {
				t.Errorf("event %v of %s", e.Type, e.Peer.Short())
			}
			found[e.Peer] = e
		}
		for i, n := range nodes[2:] {
			e := found[n.ID()]
			if want := fmt.Sprintf("10.0.0.%d", i+3); e.Endpoint().Addr.Addr().String() != want || e.Role() != crust.Node {
				t.Errorf("node %d: %v at %v, want %s", i+2, e.Type, e.Endpoint(), want)
			}
		}
		if len(found) != 3 {
			t.Errorf("%d were discovered, want 3", len(found))
		}
		c.told()
		// Nobody is left who could introduce the two.
		if err := a.Disconnect(nodes[1].ID()); err != nil {
			t.Fatal(err)
		}
		a.next(crust.EventLost)
		if err := a.ConnectPeer(last.ID(), 7); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 7); e.Type != crust.EventConnected || e.How() != crust.Dialed || e.Peer != last.ID() {
			t.Fatalf("%v %v by %v", e.Type, e.Err(), e.How())
		}
		time.Sleep(time.Second)
		last.Close()
		time.Sleep(3 * time.Second)
		for i, n := range []*node{a, c} { // both have discovered it, and a is connected
			list := n.told()
			if len(list) != 1 || list[0].Type != crust.EventForgotten || list[0].Peer != last.ID() || n.knows(last.ID()) {
				t.Errorf("node %d: %d events, and it knows the one that went: %v", 2*i, len(list), n.knows(last.ID()))
			}
		}
	})
}

// TestGossipGoneSilently: a peer that nobody knows is still not found, at once where there is
// nobody to ask, and where gossip names a place at which nobody is, the error says so.
func TestGossipGoneSilently(t *testing.T) {
	gossipChain(t, 3, func(t *testing.T, _ *simnet.Net, _ []*simnet.Host, nodes []*node) {
		allKnow(t, nodes, 10*time.Second)
		a, b, gone := nodes[0], nodes[1], nodes[2]
		key, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		for _, ep := range gone.Listeners() {
			if err := gone.StopListening(ep); err != nil {
				t.Fatal(err)
			}
		}
		for _, pair := range [][2]*node{{gone, b}, {a, b}} {
			if err := pair[0].Disconnect(pair[1].ID()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		for token, c := range map[uint64]struct {
			id   crust.PeerID
			code crust.Code
		}{1: {key.ID(), crust.CodeNoEndpoint}, 2: {gone.ID(), crust.CodeRefused}} {
			if err := a.ConnectPeer(c.id, token); err != nil {
				t.Fatal(err)
			}
			if e := a.final(t, token); e.Type != crust.EventConnectFailed || e.Code() != c.code {
				t.Errorf("%d: %v %v, want %v", token, e.Type, e.Err(), c.code)
			}
		}
	})
}

// TestGossipModes: who only answers is known and knows nobody; who is off is neither.
func TestGossipModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
		modes := []crust.GossipMode{crust.GossipOn, crust.GossipOn, crust.GossipAnswer, crust.GossipOff, crust.GossipOn}
		var nodes []*node
		for i, mode := range modes {
			n := newNode(t, crust.On(internet.Host(fmt.Sprintf("10.0.0.%d", i+1)), gossiping(crust.Config{Gossip: mode}, "0.0.0.0", "tcp")))
			defer n.Close()
			nodes = append(nodes, n)
		}
		hub := nodes[0]
		for _, n := range nodes[1:4] {
			link(t, hub, n)
		}
		// The last one is known to two who do not tell.
		link(t, nodes[2], nodes[4])
		link(t, nodes[3], nodes[4])
		time.Sleep(30 * time.Second)
		known := func(n *node) (list []int) {
			for i, other := range nodes {
				if n.hasHeard(other.ID()) {
					list = append(list, i)
				}
			}
			return list
		}
		for i, want := range [][]int{{1, 2}, {0, 2}, nil, nil, {2}} {
			if got := known(nodes[i]); !slices.Equal(got, want) {
				t.Errorf("node %d (%v) knows %v, want %v", i, modes[i], got, want)
			}
		}
	})
	if _, err := crust.New(crust.Config{Gossip: 3}); crust.CodeOf(err) != crust.CodeInvalid {
		t.Errorf("mode 3: %v", err)
	}
	for _, m := range []crust.GossipMode{crust.GossipOn, crust.GossipAnswer, crust.GossipOff} {
		if got, err := crust.ParseGossipMode(m.String()); got != m || err != nil {
			t.Errorf("%v is read as %v, %v", m, got, err)
		}
	}
}

// TestGossipStaysOnMachine: where a service listens on loopback only, that is told to
// peers on its machine and to nobody else.
func TestGossipStaysOnMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		here, there := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
		var nodes []*node
		for _, c := range []struct {
			host *simnet.Host
			addr string
		}{{here, "127.0.0.1"}, {here, "127.0.0.1"}, {here, "0.0.0.0"}, {there, "0.0.0.0"}} {
			n := newNode(t, crust.On(c.host, gossiping(crust.Config{}, c.addr, "tcp")))
			defer n.Close()
			nodes = append(nodes, n)
		}
		a, b, open, far := nodes[0], nodes[1], nodes[2], nodes[3]
		dial := func(from, to *node, address string) {
			t.Helper()
			if err := from.ConnectEndpoint(contactOf(t, to, crust.TCP, address), 3); err != nil {
				t.Fatal(err)
			}
			from.next(crust.EventConnected)
			to.next(crust.EventConnected)
		}
		dial(a, open, "127.0.0.1")
		dial(b, open, "127.0.0.1")
		dial(b, far, "10.0.0.2")
		dial(open, far, "10.0.0.2")
		time.Sleep(20 * time.Second)
		for _, c := range []struct {
			who, of *node
			want    bool
		}{{a, b, true}, {b, a, true}, {open, a, true}, {a, open, true}, {far, open, true}, {a, far, true}, {far, a, false}, {far, b, false}} {
			if got := c.who.hasHeard(c.of.ID()); got != c.want {
				t.Errorf("node %d knows node %d: %v", slices.Index(nodes, c.who), slices.Index(nodes, c.of), got)
			}
		}
	})
}

// TestGossipFollows: a record says where a peer is now: its new ports, and nothing more
// when it lets nobody in.
func TestGossipFollows(t *testing.T) {
	gossipChain(t, 3, func(t *testing.T, _ *simnet.Net, _ []*simnet.Host, nodes []*node) {
		allKnow(t, nodes, 10*time.Second)
		a, c := nodes[0], nodes[2]
		time.Sleep(2 * time.Second)
		a.told()
		at := func() crust.Endpoint {
			for _, k := range a.Known() {
				if k.Peer == c.ID() {
					return k.Endpoints[0]
				}
			}
			return crust.Endpoint{}
		}
		before := at()
		for _, ep := range c.Listeners() {
			if err := c.StopListening(ep); err != nil {
				t.Fatal(err)
			}
		}
		ep, err := c.Listen(endpointAt("tcp://0.0.0.0:0"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if got := at(); got == before || got.Addr.Port() != ep.Addr.Port() {
			t.Errorf("it is said to be at %v, before at %v, and listens at %v", got, before, ep)
		}
		if list := a.told(); len(list) == 0 || list[len(list)-1].Type != crust.EventDiscovered || list[len(list)-1].Endpoint() != at() {
			t.Errorf("%d events, of which the last does not tell of it", len(list))
		}
		c.SetAccept(false)
		time.Sleep(3 * time.Hour) // its last record has ended
		if a.hasHeard(c.ID()) {
			t.Error("who lets nobody in is known")
		}
		c.SetAccept(true)
		// To b this is a renewal, whose key is held back for up to 3 s before a is told; then
		// come the trips, and the rest before c looks at itself.
		time.Sleep(4 * time.Second)
		if !a.hasHeard(c.ID()) {
			t.Error("who lets peers in again is not known")
		}
	})
}

// TestGossipAfterOutage: what happened while a session had no link is told soon after it
// has one again.
func TestGossipAfterOutage(t *testing.T) {
	gossipChain(t, 3, func(t *testing.T, internet *simnet.Net, hosts []*simnet.Host, nodes []*node) {
		allKnow(t, nodes, 10*time.Second)
		time.Sleep(10 * time.Minute) // digests are rare now
		a, b := nodes[0], nodes[1]
		a.told()
		internet.Cut(hosts[0], hosts[1])
		internet.Reset(hosts[0], hosts[1])
		for _, n := range []*node{a, b} {
			if e := n.next(crust.EventSuspended); e.Code() == crust.CodeOK {
				t.Error("suspended without a cause")
			}
		}
		d := newNode(t, crust.On(internet.Host("10.0.0.9"), gossiping(crust.Config{}, "0.0.0.0", "tcp")))
		defer d.Close()
		link(t, d, nodes[2])
		time.Sleep(5 * time.Second)
		if !b.hasHeard(d.ID()) || a.hasHeard(d.ID()) {
			t.Fatalf("b knows the newcomer: %v; a does: %v", b.hasHeard(d.ID()), a.hasHeard(d.ID()))
		}
		internet.Heal(hosts[0], hosts[1])
		a.next(crust.EventResumed)
		time.Sleep(3 * time.Second)
		if !a.hasHeard(d.ID()) {
			t.Error("a does not know the newcomer after 3 s")
		}
	})
}

// evilWorld is honest nodes on a ring of sessions, and one that has a session with
// each, says what it likes and takes no part otherwise.
func evilWorld(t *testing.T, honest int, f func(t *testing.T, internet *simnet.Net, nodes []*node, evil *node)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
		var nodes []*node
		for i := range honest {
			host := internet.Host(fmt.Sprintf("20.%d.0.1", i+1))
			nodes = append(nodes, newNode(t, crust.On(host, gossiping(crust.Config{}, "0.0.0.0", "tcp"))))
			defer nodes[i].Close()
			if i > 0 {
				link(t, nodes[i-1], nodes[i])
			}
		}
		link(t, nodes[0], nodes[honest-1])
		evil := newNode(t, crust.On(internet.Host("66.6.6.6"), gossiping(crust.Config{}, "0.0.0.0", "tcp")))
		defer evil.Close()
		for _, n := range nodes {
			link(t, evil, n)
		}
		allKnow(t, nodes, 10*time.Second)
		f(t, internet, nodes, evil)
	})
}

// madeUp returns the contact record of an identity that exists for it alone.
func madeUp(i int, change func(c *wire.Contact)) (crust.PeerID, []byte) {
	k := ed25519.NewKeyFromSeed(fmt.Appendf(nil, "made up %024d", i))
	c := wire.Contact{Peer: crust.PeerID(k.Public().(ed25519.PublicKey)), Seq: uint64(time.Now().UnixMilli()), Life: 24 * 60 * 60}
	c.Endpoints = []endpoint.Endpoint{endpointAt(fmt.Sprintf("tcp://198.51.100.%d:5483", 1+i%250))}
	if change != nil {
		change(&c)
	}
	return c.Peer, c.Append(nil, func(b []byte) []byte { return ed25519.Sign(k, b) })
}

// news returns a frame that tells records.
func news(raws ...[]byte) []byte {
	return wire.Gossip{Kind: wire.GossipNews, Contacts: raws}.Append(nil)
}

// TestGossipFlood: an attacker with 10,000 made-up identities on one /24, with valid
// signatures, which it brings over and over, pushes no honest node out, and a newcomer is
// known to all.
func TestGossipFlood(t *testing.T) {
	const ids, batch = 10000, 20
	evilWorld(t, 8, func(t *testing.T, internet *simnet.Net, nodes []*node, evil *node) {
		raws, invented := make([][]byte, ids), map[crust.PeerID]bool{}
		for i := range raws {
			var id crust.PeerID
			id, raws[i] = madeUp(i, nil)
			invented[id] = true
		}
		for _, n := range nodes {
			n.evil = evil.ID()
		}
		flood := func(rounds int) {
			for r := range rounds {
				for i, n := range nodes {
					at := (r + i*37) * batch % ids
					crust.Control(evil.Service, n.ID(), news(raws[at:at+batch]...))
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		flood(slowly(300))
		late := newNode(t, crust.On(internet.Host("21.0.0.1"), gossiping(crust.Config{}, "0.0.0.0", "tcp")))
		defer late.Close()
		link(t, late, nodes[0])
		flood(100)
		kept, all, most := 0, 0, 0
		for _, a := range nodes {
			lies := 0
			for _, k := range a.Known() {
				if invented[k.Peer] {
					lies++
				}
			}
			most = max(most, lies)
			for _, b := range append(nodes, late) {
				if a != b {
					all++
					if a.hasHeard(b.ID()) {
						kept++
					}
				}
			}
			if _, ok := a.Peer(evil.ID()); !ok {
				t.Error("the attacker, which has broken no rule, has lost a session")
			}
			if a.Stats().Alerts == 0 {
				t.Error("the program was not told of the attacker")
			}
		}
		t.Logf("%d of %d honest records are kept; at most %d made-up ones", kept, all, most)
		if kept != all || most == 0 || most > 256 {
			t.Errorf("%d of %d honest records are kept, and up to %d made-up ones; want all, and 1 to 256", kept, all, most)
		}
	})
}

// TestGossipLies: what is forged or malformed ends the session that brought it, and what
// has ended, ends too far ahead or was said before is not taken.
func TestGossipLies(t *testing.T) {
	for _, c := range []struct {
		name   string
		breaks bool
		frame  func(raw []byte) []byte
		change func(c *wire.Contact)
	}{
		{"forged", true, func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return news(raw) }, nil},
		{"another peer's", true, func(raw []byte) []byte { raw[5] ^= 1; return news(raw) }, nil},
		{"cut", true, func(raw []byte) []byte { return news(raw[:40]) }, nil},
		{"too large", true, func(raw []byte) []byte { return news(append(raw, make([]byte, wire.MaxContact)...)) }, nil},
		{"a frame too large", true, func([]byte) []byte { return wire.AppendFrame(nil, wire.FrameGossip, make([]byte, wire.MaxGossip+1)...) }, nil},
		{"empty", true, func([]byte) []byte { return wire.AppendFrame(nil, wire.FrameGossip) }, nil},
		{"over", false, func(raw []byte) []byte { return news(raw) }, func(c *wire.Contact) { c.Seq -= 3_700_000; c.Life = 3600 }},
		{"of the far future", false, func(raw []byte) []byte { return news(raw) }, func(c *wire.Contact) { c.Seq += 3_600_000 * 3 }},
		{"at the reader's own machine", false, func(raw []byte) []byte { return news(raw) }, func(c *wire.Contact) { c.Endpoints[0] = endpointAt("tcp://127.0.0.1:22") }},
		{"of an unknown kind", false, func([]byte) []byte { return wire.AppendFrame(nil, wire.FrameGossip, 99, 1, 2, 3) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			evilWorld(t, 3, func(t *testing.T, _ *simnet.Net, nodes []*node, evil *node) {
				id, raw := madeUp(1, c.change)
				crust.Control(evil.Service, nodes[0].ID(), c.frame(raw))
				time.Sleep(3 * time.Second)
				for i, n := range nodes {
					if n.hasHeard(id) {
						t.Errorf("node %d has taken it", i)
					}
				}
				if _, ok := nodes[0].Peer(evil.ID()); ok == c.breaks {
					t.Errorf("the session lives: %v", ok)
				}
				if _, ok := nodes[1].Peer(evil.ID()); !ok {
					t.Error("another session has ended, too")
				}
			})
		})
	}
}

// TestGossipReplay: what a peer has said is not believed again when it has said something
// newer, also that it has gone; and a lie about a record does not keep the record out.
func TestGossipReplay(t *testing.T) {
	evilWorld(t, 3, func(t *testing.T, _ *simnet.Net, nodes []*node, evil *node) {
		n := nodes[0]
		say := func(raw []byte) {
			t.Helper()
			if !crust.Control(evil.Service, n.ID(), news(raw)) {
				t.Fatal("it was not sent")
			}
			time.Sleep(time.Second)
		}
		id, first := madeUp(1, nil)
		say(first)
		if !n.hasHeard(id) {
			t.Fatal("a good record was not taken")
		}
		_, gone := madeUp(1, func(c *wire.Contact) { c.Seq++; c.Endpoints = nil })
		say(gone)
		say(first)
		if n.hasHeard(id) {
			t.Error("who has departed is back by what was said before")
		}
		other, good := madeUp(2, nil)
		_, late := madeUp(2, func(c *wire.Contact) { c.Life = 1 })
		time.Sleep(2 * time.Second)
		say(late)
		if n.hasHeard(other) {
			t.Error("a record that has ended was taken")
		}
		if !crust.Control(evil.Service, nodes[1].ID(), news(good)) {
			t.Fatal("it was not sent")
		}
		time.Sleep(5 * time.Second)
		if !n.hasHeard(other) {
			t.Error("a lie about a record has kept the record out")
		}
	})
}

// TestThreeSegments: segments L1, L2 and L3, of which everybody knows at first those in
// his own: L2's two routers, with a node on each, are in two segments. All know all, and
// can connect to all, within 5 s.
func TestThreeSegments(t *testing.T) {
	for seed := range slowly(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { threeSegments(t, uint64(seed)) }) }) //nolint:gosec // it is small
	}
}

func threeSegments(t *testing.T, seed uint64) {
	internet := simnet.New(seed)
	internet.SetDefaultLink(simnet.Link{Latency: time.Millisecond, Jitter: time.Millisecond})
	type place struct {
		addrs    []string
		segments []int
	}
	places := []place{{[]string{"10.0.1.1", "10.0.2.1"}, []int{1, 2}}, {[]string{"10.0.2.2", "10.0.3.1"}, []int{2, 3}}}
	for segment := 1; segment <= 3; segment++ {
		for i := range 4 {
			places = append(places, place{[]string{fmt.Sprintf("10.0.%d.%d", segment, i+10)}, []int{segment}})
		}
	}
	r := rand.New(rand.NewPCG(seed, 5))
	var nodes []*node
	var heard [][]crust.Contact
	for i, p := range places {
		var contacts []crust.Contact
		for j, other := range places {
			for _, addr := range other.addrs {
				if i != j && slices.ContainsFunc(p.segments, func(s int) bool { return addr[:7] == fmt.Sprintf("10.0.%d.", s) }) {
					contacts = append(contacts, crust.Contact{Endpoint: endpointAt(fmt.Sprintf("tcp://%s:5483", addr))})
				}
			}
		}
		n := newNode(t, crust.On(internet.Host(p.addrs...), crust.Config{Listen: []crust.Endpoint{endpointAt("tcp://0.0.0.0:5483")}}))
		defer n.Close()
		r.Shuffle(len(contacts), func(i, j int) { contacts[i], contacts[j] = contacts[j], contacts[i] })
		nodes, heard = append(nodes, n), append(heard, contacts[:3])
	}
	began := time.Now()
	for i, n := range nodes {
		for _, c := range heard[i] { // as who hears beacons, and wants three peers
			if err := n.ConnectEndpoint(c, uint64(1000+i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	took := allKnow(t, nodes, 5*time.Second)
	for _, a := range nodes {
		for j, b := range nodes {
			if a != b {
				if err := a.ConnectPeer(b.ID(), uint64(j+1)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for i, a := range nodes {
		for j, b := range nodes {
			if a == b {
				continue
			}
			for {
				if _, ok := a.Peer(b.ID()); ok {
					break
				}
				if time.Since(began) > 5*time.Second {
					t.Fatalf("node %d is not connected to node %d within 5 s", i, j)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	t.Logf("all knew all after %v, and all were connected after %v", took, time.Since(began))
}
