package crust_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/tests/natsim"
)

// counting is a host that counts the dials from it.
type counting struct {
	*simnet.Host
	seen *dialLog
}

// dialLog is when dials were begun, to where.
type dialLog struct {
	mu    sync.Mutex
	dials []dialled
}

type dialled struct {
	to netip.AddrPort
	at time.Time
}

// Dial implements netio.Network.
func (c counting) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	c.seen.mu.Lock()
	c.seen.dials = append(c.seen.dials, dialled{remote, time.Now()})
	c.seen.mu.Unlock()
	return c.Host.Dial(ctx, local, remote)
}

// since returns how many dials went to an endpoint since a time.
func (d *dialLog) since(to crust.Endpoint, at time.Time) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, one := range d.dials {
		if one.to == to.Addr && !one.at.Before(at) {
			n++
		}
	}
	return n
}

// busiest returns the most dials that went to an endpoint in any span of a length.
func (d *dialLog) busiest(to crust.Endpoint, from time.Time, span time.Duration) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var times []time.Time
	for _, one := range d.dials {
		if one.to == to.Addr && !one.at.Before(from) {
			times = append(times, one.at)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	first := 0
	for i, at := range times {
		for at.Sub(times[first]) >= span {
			first++
		}
		n = max(n, i-first+1)
	}
	return n
}

// group returns the next event of groups with a state, after any others.
func (n *node) group(t testing.TB, want ...crust.GroupState) crust.Event {
	t.Helper()
	var seen []string
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for e := range n.Events(ctx) {
		if e.Type == crust.EventGroup && slices.Contains(want, e.State()) {
			return e
		}
		seen = append(seen, e.Type.String())
	}
	t.Fatalf("no event of a group that is %v; there were %v", want, seen)
	return crust.Event{}
}

// awaits returns the next event of a type, after any others.
func (n *node) awaits(t testing.TB, want crust.EventType) crust.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for e := range n.Events(ctx) {
		if e.Type == want {
			return e
		}
	}
	t.Fatalf("no event %v came", want)
	return crust.Event{}
}

// sessions returns the peers with a link.
func (n *node) sessions() (ids []crust.PeerID) {
	for _, p := range n.Peers() {
		if !p.Suspended {
			ids = append(ids, p.Peer)
		}
	}
	return ids
}

func (n *node) isLinked(to *node) bool { return slices.Contains(n.sessions(), to.ID()) }

func keep(t testing.TB, n *node, g crust.Group) {
	t.Helper()
	if err := n.Keep(g); err != nil {
		t.Fatal(err)
	}
}

// A peer of a group is connected, connected again each time it comes back, over the
// transport that there is, and left alone when the group is released.
func TestAGroupIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		var log dialLog
		ha, hb := counting{internet.Host("10.0.0.1"), &log}, internet.Host("10.0.0.2")
		at := endpointAt("10.0.0.2:4000")
		begin := func(listen ...crust.Endpoint) *node {
			return newNode(t, crust.On(hb, crust.Config{Identity: keyOf(t, 1), Listen: listen}))
		}
		a := newNode(t, crust.On(ha, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
		defer a.Close()
		b := begin(at, endpointAt("utp://10.0.0.2:4000"))
		keep(t, a, crust.Group{Name: "friends", Contacts: []crust.Contact{{Endpoint: at, Peer: b.ID()}, {Endpoint: endpointAt("utp://10.0.0.2:4000"), Peer: b.ID()}}})
		if e := a.group(t, crust.GroupTrying); e.Peer != b.ID() || e.Group() != "friends" || e.Count() != 0 || e.Wanted() != 1 {
			t.Fatalf("%+v", e)
		}
		a.next(crust.EventConnected)
		if e := a.next(crust.EventGroup); e.State() != crust.GroupUp || e.Peer != b.ID() || e.Count() != 1 || e.Wanted() != 1 || e.Err() != nil {
			t.Fatalf("%v %d of %d, %v", e.State(), e.Count(), e.Wanted(), e.Err())
		}
		time.Sleep(time.Second) // it may have been told of by now
		for _, listen := range [][]crust.Endpoint{{at}, {endpointAt("utp://10.0.0.2:4000")}, {at}} {
			b.Close()
			a.past(t, crust.EventLost)
			if e := a.next(crust.EventGroup); e.State() != crust.GroupDown || e.Code() != crust.CodeDisconnected || e.Count() != 0 || e.Next() == 0 || e.Next() > 2*time.Second {
				t.Fatalf("%v %v, next in %v", e.State(), e.Err(), e.Next())
			}
			time.Sleep(5 * time.Second)
			b = begin(listen...)
			back := time.Now()
			if e := a.group(t, crust.GroupUp); e.Peer != b.ID() || time.Since(back) > 20*time.Second {
				t.Fatalf("back after %v", time.Since(back))
			}
			if p, _ := a.Peer(b.ID()); p.Endpoint.Transport != listen[0].Transport {
				t.Fatalf("over %v", p.Endpoint)
			}
			time.Sleep(time.Minute)
		}
		if g := a.Groups(); len(g) != 1 || g[0].Name != "friends" || g[0].Up != 1 || g[0].Wanted != 1 || len(g[0].Peers) != 1 || g[0].Peers[0].State != crust.GroupUp {
			t.Fatalf("%+v", g)
		}
		if err := a.Release("friends"); err != nil {
			t.Fatal(err)
		}
		if !a.isLinked(b) || len(a.Groups()) != 0 {
			t.Fatal("releasing the group has cost the session")
		}
		b.Close()
		a.past(t, crust.EventLost)
		time.Sleep(time.Second)
		released := time.Now()
		time.Sleep(10 * time.Minute)
		if log.since(at, released) != 0 || a.EventsPending() {
			t.Fatalf("%d dials after the group was released", log.since(at, released))
		}
	})
}

// Both sides keep each other, and one program disconnects: for as long as it does not
// ask again there is no session, whatever the other side tries.
func TestADroppedPeerStaysDropped(t *testing.T) {
	asks := map[string]func(a, b *node) error{
		"connect": func(a, b *node) error {
			return a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:4000"), Peer: b.ID()}, 9)
		},
		"keep":    func(a, b *node) error { return a.Keep(crust.Group{Name: "b", Peers: []crust.PeerID{b.ID()}}) },
		"release": func(a, _ *node) error { return a.Release("b") },
	}
	for how, ask := range asks {
		synctest.Test(t, func(t *testing.T) {
			internet := simnet.New(1)
			internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
			ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
			a := newNode(t, crust.On(ha, crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.1:4000")}}))
			defer a.Close()
			b := newNode(t, crust.On(hb, crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.2:4000")}}))
			defer b.Close()
			keep(t, a, crust.Group{Name: "b", Contacts: []crust.Contact{{Endpoint: endpointAt("10.0.0.2:4000"), Peer: b.ID()}}})
			keep(t, b, crust.Group{Name: "a", Contacts: []crust.Contact{{Endpoint: endpointAt("10.0.0.1:4000"), Peer: a.ID()}}})
			a.group(t, crust.GroupUp)
			b.group(t, crust.GroupUp)
			time.Sleep(time.Minute)
			if err := a.Disconnect(b.ID()); err != nil {
				t.Fatal(err)
			}
			a.past(t, crust.EventLost)
			if e := a.next(crust.EventGroup); e.State() != crust.GroupDropped || e.Code() != crust.CodeDisconnected || e.Next() != 0 || e.Count() != 0 {
				t.Fatalf("%v %v", e.State(), e.Err())
			}
			dropped := time.Now()
			if e := b.group(t, crust.GroupDown); e.Next() < 30*time.Second {
				t.Fatalf("the other side tries again after %v", e.Next())
			}
			tried := 0
			for time.Since(dropped) < 30*time.Minute {
				if e := b.group(t, crust.GroupFailed, crust.GroupDown); e.Code() != crust.CodeNotAllowed {
					t.Fatal(e.Err())
				}
				tried++
			}
			if a.EventsPending() || len(a.sessions()) != 0 || tried < 20 {
				t.Fatalf("after %d tries of the other side there are %d sessions", tried, len(a.sessions()))
			}
			if g := a.Groups(); g[0].Peers[0].State != crust.GroupDropped || g[0].Peers[0].Next != 0 {
				t.Fatalf("%+v", g)
			}
			if err := a.Disconnect(b.ID()); crust.CodeOf(err) != crust.CodeUnknownPeer {
				t.Fatal(err)
			}
			if err := ask(a, b); err != nil {
				t.Fatal(how, err)
			}
			asked := time.Now()
			a.awaits(t, crust.EventConnected)
			if took := time.Since(asked); took > time.Second && how != "release" {
				t.Fatalf("%s: %v", how, took)
			}
		})
	}
}

// A peer that is disconnected while it is down, or being tried, is left alone as well.
func TestDroppingWhoIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		var log dialLog
		ha, hb := counting{internet.Host("10.0.0.1"), &log}, internet.Host("10.0.0.2")
		internet.Silence(ha.Host, hb)
		a := newNode(t, crust.On(ha, crust.Config{NoListen: true}))
		defer a.Close()
		at, id := endpointAt("10.0.0.2:4000"), keyOf(t, 1).ID()
		keep(t, a, crust.Group{Name: "g", Contacts: []crust.Contact{{Endpoint: at, Peer: id}}})
		a.group(t, crust.GroupTrying)
		time.Sleep(time.Second)
		if err := a.Disconnect(id); crust.CodeOf(err) != crust.CodeUnknownPeer {
			t.Fatal(err)
		}
		if e := a.next(crust.EventGroup); e.State() != crust.GroupDropped {
			t.Fatal(e.State())
		}
		dropped := time.Now()
		time.Sleep(time.Hour)
		if log.since(at, dropped) != 0 || a.EventsPending() || a.Stats().Connects != 0 {
			t.Fatal("it was tried again")
		}
	})
}

// Any three of a role: clients do not count, dead, deaf and foreign contacts and our
// own address do not hold up, who is lost is replaced, and who is dropped stays so.
func TestAnyOfARoleIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		deaf := internet.Host("10.0.0.99")
		l, err := deaf.Listen(context.Background(), endpointAt("10.0.0.99:1").Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		contacts := []crust.Contact{{Endpoint: endpointAt("10.0.0.99:1")}, {Endpoint: endpointAt("10.0.0.98:1")}, {Endpoint: endpointAt("10.0.0.1:4000")}}
		nodes := map[crust.PeerID]*node{}
		for i := range 8 {
			at := fmt.Sprintf("10.0.0.%d:4000", 10+i)
			n := newNode(t, crust.On(internet.Host(fmt.Sprintf("10.0.0.%d", 10+i)), crust.Config{
				Identity: keyOf(t, byte(i+1)), Role: crust.Role(i % 2), NetworkName: []string{"", "other"}[i/7], Listen: []crust.Endpoint{endpointAt(at)},
			}))
			defer n.Close()
			nodes[n.ID()] = n
			contacts = append(contacts, crust.Contact{Endpoint: endpointAt(at)})
		}
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.1:4000")}, Contacts: contacts[:4]}))
		defer a.Close()
		began := time.Now()
		keep(t, a, crust.Group{Name: "relays", Any: 3, Contacts: contacts[4:]})
		var up []crust.PeerID
		for len(up) < 3 {
			e := a.group(t, crust.GroupUp)
			up = append(up, e.Peer)
			if e.Count() != uint64(len(up)) || e.Wanted() != 3 {
				t.Fatalf("%d of %d", e.Count(), e.Wanted())
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Fatalf("three of them took %v", took)
		}
		if g := a.Groups(); g[0].Up != 3 || g[0].Any != 3 || len(g[0].Peers) != 3 || g[0].Err != nil {
			t.Fatalf("%+v", g)
		}
		time.Sleep(time.Minute)
		if err := a.Disconnect(up[0]); err != nil {
			t.Fatal(err)
		}
		if e := a.group(t, crust.GroupDropped); e.Peer != up[0] || e.Count() != 2 {
			t.Fatalf("%+v", e)
		}
		fourth := a.group(t, crust.GroupUp)
		if slices.Contains(up, fourth.Peer) {
			t.Fatal("who was disconnected is connected again")
		}
		nodes[up[1]].Close()
		a.group(t, crust.GroupDown)
		if e := a.group(t, crust.GroupFailed); !e.Peer.IsZero() || e.Count() != 2 || !strings.Contains(e.Err().Error(), "client, not a node") {
			t.Fatalf("%v", e.Err())
		}
		for _, p := range a.Peers() {
			if p.Role != crust.Node || p.Peer == up[0] {
				t.Errorf("%s has a session", p.Peer.Short())
			}
		}
		time.Sleep(20 * time.Minute)
		if len(a.sessions()) != 2 {
			t.Fatalf("%d sessions", len(a.sessions()))
		}
		back := newNode(t, crust.On(internet.Host("10.0.0.50"), crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.50:1")}}))
		defer back.Close()
		if err := back.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.1:4000")}, 1); err != nil { // whoever begins it
			t.Fatal(err)
		}
		for {
			if e := a.group(t, crust.GroupUp); e.Peer == back.ID() {
				break
			}
		}
	})
}

// Of whom only the id is known is found by who is connected to both, also when that one
// comes later.
func TestAGroupIsFoundByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		var nodes []*node
		for i := range 3 {
			n := newNode(t, crust.On(internet.Host(fmt.Sprintf("10.0.0.%d", i+1)), over(crust.Config{}, "0.0.0.0", "tcp")))
			defer n.Close()
			nodes = append(nodes, n)
		}
		a, hub, b := nodes[0], nodes[1], nodes[2]
		keep(t, a, crust.Group{Name: "g", Peers: []crust.PeerID{b.ID()}})
		if e := a.group(t, crust.GroupFailed); e.Code() != crust.CodeNoEndpoint {
			t.Fatal(e.Err())
		}
		time.Sleep(10 * time.Minute)
		for a.EventsPending() {
			if e := a.next(crust.EventGroup); e.State() == crust.GroupFailed && e.Next() > time.Minute {
				t.Fatalf("next in %v", e.Next())
			}
		}
		link(t, b, hub)
		joined := time.Now()
		if err := a.ConnectEndpoint(contactOf(t, hub, crust.TCP, "10.0.0.2"), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.group(t, crust.GroupUp); e.Peer != b.ID() || time.Since(joined) > 10*time.Second {
			t.Fatalf("after %v", time.Since(joined))
		}
	})
}

// A peer that was met before is dialled where the cache says it is.
func TestAGroupIsFoundInTheCache(t *testing.T) {
	path := t.TempDir() + "/cache"
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.2:4000")}}))
		defer b.Close()
		fill(t, path, time.Now(), crust.Contact{Endpoint: endpointAt("10.0.0.2:4000"), Peer: b.ID()})
		a := newNode(t, crust.On(internet.Host("10.0.0.1"), crust.Config{Cache: path, NoListen: true}))
		defer a.Close()
		keep(t, a, crust.Group{Name: "g", Peers: []crust.PeerID{b.ID()}})
		began := time.Now()
		a.group(t, crust.GroupUp)
		if took := time.Since(began); took > time.Second {
			t.Fatalf("after %v", took)
		}
	})
}

func TestGroupsThatCannotBe(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	id, other := b.ID(), keyOf(t, 1).ID()
	here := crust.Contact{Endpoint: b.Listeners()[0], Peer: id}
	many := make([]crust.PeerID, crust.MaxKept+1)
	for i := range many {
		many[i] = crust.PeerID{byte(i), byte(i >> 8), 7}
	}
	for _, c := range []struct {
		group crust.Group
		code  crust.Code
		what  string
	}{
		{crust.Group{Peers: []crust.PeerID{id}}, crust.CodeInvalid, "the name of a group is 1 to 64 bytes"},
		{crust.Group{Name: strings.Repeat("x", 65), Any: 1}, crust.CodeInvalid, "not 65 bytes"},
		{crust.Group{Name: "\xff", Any: 1}, crust.CodeInvalid, "UTF-8"},
		{crust.Group{Name: "g"}, crust.CodeInvalid, `group "g" is of nobody`},
		{crust.Group{Name: "g", Any: -1}, crust.CodeInvalid, "Any is -1"},
		{crust.Group{Name: "g", Any: crust.MaxKept + 1}, crust.CodeInvalid, "Any is 4097"},
		{crust.Group{Name: "g", Any: 1, Peers: []crust.PeerID{id}}, crust.CodeInvalid, "want one of the two"},
		{crust.Group{Name: "g", Any: 1, Role: 9}, crust.CodeInvalid, "role 9"},
		{crust.Group{Name: "g", Peers: []crust.PeerID{id, {}}}, crust.CodeInvalid, "the id of peer 2 is zero"},
		{crust.Group{Name: "g", Contacts: []crust.Contact{here, {Endpoint: here.Endpoint}}}, crust.CodeInvalid, "does not name its peer"},
		{crust.Group{Name: "g", Contacts: []crust.Contact{{Peer: id}}}, crust.CodeInvalid, "contact 1"},
		{crust.Group{Name: "g", Infos: [][]byte{[]byte("x")}}, crust.CodeBadInfo, "info 1"},
		{crust.Group{Name: "g", Peers: []crust.PeerID{id, a.ID()}}, crust.CodeSelf, "our own service"},
		{crust.Group{Name: "g", Peers: many}, crust.CodeLimit, "4097 peers"},
	} {
		err := a.Keep(c.group)
		if crust.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.what) {
			t.Errorf("%+v: %v, want %v and %q", c.group.Name, err, c.code, c.what)
		}
	}
	if len(a.Groups()) != 0 {
		t.Fatalf("%+v", a.Groups())
	}
	keep(t, a, crust.Group{Name: "many", Peers: many[:crust.MaxKept-1]})
	keep(t, a, crust.Group{Name: "g", Peers: []crust.PeerID{other}})
	if err := a.Keep(crust.Group{Name: "h", Peers: []crust.PeerID{other}}); crust.CodeOf(err) != crust.CodeLimit {
		t.Error(err)
	}
	keep(t, a, crust.Group{Name: "many", Any: 1, Role: crust.Client})
	for n := range crust.MaxGroups - 2 {
		keep(t, a, crust.Group{Name: fmt.Sprint(n), Peers: []crust.PeerID{other}})
	}
	if err := a.Keep(crust.Group{Name: "h", Any: 1}); crust.CodeOf(err) != crust.CodeLimit {
		t.Error(err)
	}
	if err := a.Release("none"); crust.CodeOf(err) != crust.CodeInvalid || !strings.Contains(err.Error(), `there is no group "none"`) {
		t.Error(err)
	}
	if g := a.Groups(); len(g) != crust.MaxGroups || g[0].Name != "g" || g[1].Name != "many" || g[1].Wanted != 1 {
		t.Errorf("%d groups, the first %q", len(g), g[0].Name)
	}
	a.Close()
	if err := a.Keep(crust.Group{Name: "h", Any: 1}); !errors.Is(err, crust.CodeClosed) {
		t.Error(err)
	}
}

// A group is made of connection infos, in real time over the machine's own loopback.
func TestAGroupOfInfos(t *testing.T) {
	a, b, c := newNode(t, crust.Config{}), newNode(t, crust.Config{}), newNode(t, crust.Config{})
	keep(t, a, crust.Group{Name: "g", Infos: [][]byte{b.info(), c.info()}})
	for want := range uint64(2) {
		if e := a.group(t, crust.GroupUp); e.Count() != want+1 || e.Wanted() != 2 {
			t.Errorf("%d of %d", e.Count(), e.Wanted())
		}
	}
}

// Of a group of any the peers are found by gossip: somebody is connected who knows them.
func TestAnyAreFoundByGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond})
		var nodes []*node
		for i := range 5 {
			at := fmt.Sprintf("198.51.100.%d", i+1)
			cfg := crust.Config{Listen: []crust.Endpoint{endpointAt(at + ":4000")}}
			if i > 0 {
				cfg.Contacts = []crust.Contact{{Endpoint: endpointAt("198.51.100.1:4000")}}
			}
			n := newNode(t, crust.On(internet.Host(at), cfg))
			defer n.Close()
			nodes = append(nodes, n)
			if i > 0 {
				if err := n.Bootstrap(1); err != nil {
					t.Fatal(err)
				}
				n.awaits(t, crust.EventBootstrapped)
			}
		}
		time.Sleep(time.Minute)
		keep(t, nodes[1], crust.Group{Name: "any", Any: 4})
		began := time.Now()
		for up := uint64(0); up < 4; {
			e := nodes[1].group(t, crust.GroupUp)
			up = e.Count()
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("all of them took %v", took)
		}
	})
}

// Two behind NATs keep each other by id, over a peer that both keep, and come together
// again after one of them was started anew.
func TestGroupsBehindNATs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		hub := newNode(t, crust.On(internet.Host("198.51.100.1"), crust.Config{Listen: []crust.Endpoint{endpointAt("198.51.100.1:4000")}}))
		defer hub.Close()
		at := crust.Contact{Endpoint: endpointAt("198.51.100.1:4000"), Peer: hub.ID()}
		ha := internet.NAT(natsim.MustParse("home"), "203.0.113.1").Host("192.168.1.2")
		hb := internet.NAT(natsim.MustParse("home"), "203.0.113.2").Host("192.168.1.2")
		begin := func(h *simnet.Host, key, other byte) *node {
			n := newNode(t, crust.On(h, over(crust.Config{Identity: keyOf(t, key)}, "0.0.0.0", "tcp", "utp")))
			keep(t, n, crust.Group{Name: "hub", Contacts: []crust.Contact{at}})
			keep(t, n, crust.Group{Name: "other", Peers: []crust.PeerID{keyOf(t, other).ID()}})
			return n
		}
		together := func(n *node, other crust.PeerID) crust.Event {
			for {
				if e := n.group(t, crust.GroupUp); e.Peer == other {
					return e
				}
			}
		}
		a := begin(ha, 1, 2)
		defer a.Close()
		for range 3 {
			began := time.Now()
			b := begin(hb, 2, 1)
			together(b, a.ID())
			together(a, b.ID())
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("together after %v", took)
			} else {
				t.Logf("together after %v", took)
			}
			time.Sleep(time.Minute)
			b.Close()
			a.group(t, crust.GroupDown)
			time.Sleep(10 * time.Second)
		}
	})
}
