package crust_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

func banOf(t testing.TB, text string) crust.BanEntry {
	t.Helper()
	e, err := crust.ParseBan(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (n *node) ban(d time.Duration, texts ...string) {
	n.t.Helper()
	var list []crust.BanEntry
	for _, text := range texts {
		list = append(list, banOf(n.t, text))
	}
	if err := n.Ban(list, d); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) unban(texts ...string) {
	n.t.Helper()
	for _, text := range texts {
		if lifted, err := n.Unban([]crust.BanEntry{banOf(n.t, text)}); err != nil || lifted != 1 {
			n.t.Fatal("nothing is lifted:", lifted, err)
		}
	}
}

// TestBanEndsSessions: a session with who is banned, by its id, its address or a prefix,
// is lost at once on both sides, over any transport, busy or not; the other side is told
// why and does not come back, nor is it let in until the ban is lifted or over.
func TestBanEndsSessions(t *testing.T) {
	for _, transport := range []string{"tcp", "utp"} {
		for _, by := range []string{"peer", "10.0.0.2", "10.0.0.0/30", "::ffff:10.0.0.2"} {
			for _, busy := range []bool{false, true} {
				t.Run(fmt.Sprint(transport, " ", strings.ReplaceAll(by, "/", "-"), busy), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { banned(t, transport, by, busy) })
				})
			}
		}
	}
}

func banned(t *testing.T, transport, by string, busy bool) {
	net := simnet.New(1)
	net.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond, Bandwidth: 10 << 20})
	a := newNode(t, crust.On(net.Host("10.0.0.1"), over(crust.Config{}, "10.0.0.1", transport)))
	b := newNode(t, crust.On(net.Host("10.0.0.2"), over(crust.Config{}, "10.0.0.2", transport)))
	defer b.Close()
	defer a.Close()
	link(t, a, b)
	if by == "peer" {
		by = b.ID().String()
	}
	time.Sleep(time.Second)
	if busy {
		if err := a.Send(b.ID(), make([]byte, crust.MaxMessage), 1); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	a.ban(time.Hour, by)
	if e := a.past(t, crust.EventLost); e.Code() != crust.CodeBanned || e.Peer != b.ID() || time.Since(began) > 120*time.Millisecond {
		t.Errorf("%v after %v", e.Err(), time.Since(began))
	}
	if e := b.past(t, crust.EventLost); e.Code() != crust.CodeBanned || time.Since(began) > 500*time.Millisecond {
		t.Errorf("the other side: %v after %v", e.Err(), time.Since(began))
	}
	time.Sleep(time.Minute)
	if len(a.Peers())+len(b.Peers()) != 0 {
		t.Fatal("it has come back")
	}
	if err := b.Connect(a.info(), 9); err != nil {
		t.Fatal(err)
	}
	if e := b.final(t, 9); e.Type != crust.EventConnectFailed || by == b.ID().String() && e.Code() != crust.CodeBanned {
		t.Fatalf("it is let in: %v %v", e.Type, e.Err())
	}
	if e := a.waiting(); len(e) != 0 {
		t.Fatalf("%d events, the first a %v", len(e), e[0].Type)
	}
	if by == "10.0.0.2" || by == b.ID().String() {
		a.unban(by)
	} else {
		time.Sleep(time.Hour)
	}
	if len(a.Bans()) != 0 {
		t.Fatal("it is still banned")
	}
	if err := a.Connect(b.info(), 10); err != nil {
		t.Fatal(err)
	}
	if e := a.final(t, 10); e.Type != crust.EventConnected {
		t.Fatal(e.Err())
	}
}

// TestBanConnects: whatever would connect to who is banned fails with a code that says
// so, what is in flight at once, and nothing goes out.
func TestBanConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
		ha, hb, hc := net.Host("10.0.0.1"), net.Host("10.0.0.2"), net.Host("10.0.0.3")
		a := newNode(t, crust.On(ha, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
		b := newNode(t, crust.On(hb, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
		c := newNode(t, crust.On(hc, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
		defer a.Close()
		defer b.Close()
		defer c.Close()
		link(t, a, c)
		link(t, b, c)
		net.Silence(ha, hb)
		net.Silence(ha, net.Host("10.0.0.9"))
		info, id := b.info(), b.ID().String()
		at := func(text string) error { return a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt(text)}, 99) }

		// in flight
		ways := []func(token uint64) error{
			func(token uint64) error { return a.Connect(info, token) },
			func(token uint64) error { return a.ConnectPeer(b.ID(), token) },
			func(token uint64) error { return a.ConnectEndpoint(contactOf(t, b, crust.TCP, "10.0.0.2"), token) },
			func(token uint64) error { return a.ConnectEndpoint(contactOf(t, b, crust.UTP, "10.0.0.2"), token) },
			func(token uint64) error {
				return a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.9:1")}, token)
			},
			func(token uint64) error {
				return a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("utp://10.0.0.9:1")}, token)
			},
		}
		for i, way := range ways {
			if err := way(uint64(100 + i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
			a.ban(0, id, "10.0.0.9")
			began := time.Now()
			if e := a.final(t, uint64(100+i)); e.Type != crust.EventConnectFailed || e.Code() != crust.CodeBanned || time.Since(began) > time.Millisecond {
				t.Errorf("%d: %v %v after %v", i, e.Type, e.Err(), time.Since(began))
			}
			a.unban(id, "10.0.0.9")
		}

		// new ones
		a.ban(0, id, "10.0.0.9/32", "10.0.0.2")
		net.Watch(func(from, to netip.AddrPort, _ []byte) {
			if from.Addr().String() == "10.0.0.1" && (to.Addr().String() == "10.0.0.9" || to.Addr().String() == "10.0.0.2") {
				t.Errorf("a datagram goes to %v", to)
			}
		})
		for i, way := range ways {
			if err := way(uint64(200 + i)); crust.CodeOf(err) != crust.CodeBanned {
				t.Errorf("%d: %v", i, err)
			}
		}
		if err := at("utp://10.0.0.9:7"); crust.CodeOf(err) != crust.CodeBanned || !strings.Contains(err.Error(), "blacklisted") {
			t.Error(err)
		}
		a.unban(id) // its address is banned still
		if err := a.Connect(info, 300); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 300); e.Type != crust.EventConnectFailed || e.Code() != crust.CodeBanned {
			t.Errorf("%v %v", e.Type, e.Err())
		}
		if n := len(a.Peers()); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
}

// TestBanByPeerAtTheDoors: a banned peer is let in by no way: dialling, from another
// address, over a relay, introduced by others; and it is told.
func TestBanByPeerAtTheDoors(t *testing.T) {
	relayWorld(t, 0, 2, "tcp", crust.Config{}, crust.Config{}, func(t *testing.T, w *relayed) {
		w.meet()
		w.a.ban(0, w.b.ID().String())
		if e := w.a.past(t, crust.EventLost); e.Code() != crust.CodeBanned {
			t.Error(e.Err())
		}
		if e := w.b.past(t, crust.EventLost); e.Code() != crust.CodeBanned {
			t.Error(e.Err())
		}
		if err := w.a.ConnectPeer(w.b.ID(), 1); crust.CodeOf(err) != crust.CodeBanned {
			t.Error(err)
		}
		for i, heal := range []bool{false, true} {
			if heal {
				w.Heal(w.ha, w.hb)
			}
			if err := w.b.ConnectPeer(w.a.ID(), uint64(2+i)); err != nil {
				t.Fatal(err)
			}
			if e := w.b.final(t, uint64(2+i)); e.Type != crust.EventConnectFailed {
				t.Errorf("%v %v", e.Type, e.Err())
			}
		}
		if _, ok := w.a.Peer(w.b.ID()); ok || len(w.a.Peers()) != 2 {
			t.Error("it is let in, or others are gone")
		}
		w.a.unban(w.b.ID().String())
		if err := w.b.ConnectPeer(w.a.ID(), 5); err != nil {
			t.Fatal(err)
		}
		if e := w.b.final(t, 5); e.Type != crust.EventConnected {
			t.Error(e.Err())
		}
	})
}

// TestBanHandshakes: connections from a banned address that are not authenticated are
// closed at once, new ones before anything is read, and datagrams are not answered.
func TestBanHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
		ha, hb := net.Host("10.0.0.1"), net.Host("10.0.0.2")
		a := newNode(t, crust.On(ha, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
		defer a.Close()
		tcp, utp := contactOf(t, a, crust.TCP, "10.0.0.1").Endpoint.Addr, contactOf(t, a, crust.UTP, "10.0.0.1")
		for range 10 {
			conn, err := hb.Dial(t.Context(), netip.AddrPort{}, tcp)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		time.Sleep(time.Second)
		if n := a.Stats().Handshakes; n != 10 {
			t.Fatal(n)
		}
		a.ban(time.Minute, "10.0.0.2")
		synctest.Wait()
		if n := a.Stats().Handshakes; n != 0 {
			t.Errorf("%d handshakes go on", n)
		}
		conn, err := hb.Dial(t.Context(), netip.AddrPort{}, tcp)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if n, err := conn.Read(make([]byte, 1)); err == nil || time.Since(began) > 20*time.Millisecond {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(began))
		}
		b := newNode(t, crust.On(hb, over(crust.Config{}, "0.0.0.0", "tcp", "utp")))
		defer b.Close()
		net.Watch(func(from, _ netip.AddrPort, _ []byte) {
			if from.Addr().String() == "10.0.0.1" && time.Since(began) < 59*time.Second {
				t.Error("an answer goes out")
			}
		})
		if err := b.ConnectEndpoint(utp, 1); err != nil {
			t.Fatal(err)
		}
		if e := b.final(t, 1); e.Type != crust.EventConnectFailed {
			t.Error(e.Type, e.Err())
		}
		time.Sleep(time.Minute)
		if err := b.ConnectEndpoint(utp, 2); err != nil {
			t.Fatal(err)
		}
		if e := b.final(t, 2); e.Type != crust.EventConnected {
			t.Error("not let in when it is over:", e.Err())
		}
	})
}

// TestBanGossip: the record of who is banned is forgotten, is neither taken nor told on,
// and comes again when the ban is lifted.
func TestBanGossip(t *testing.T) {
	gossipChain(t, 4, func(t *testing.T, _ *simnet.Net, _ []*simnet.Host, nodes []*node) {
		allKnow(t, nodes, 10*time.Second)
		a, last := nodes[0], nodes[3]
		a.waiting()
		a.ban(0, last.ID().String())
		time.Sleep(time.Second)
		if a.hasHeard(last.ID()) {
			t.Error("it is still known")
		}
		if told := a.told(); len(told) != 1 || told[0].Type != crust.EventForgotten || told[0].Peer != last.ID() {
			t.Errorf("%d events", len(told))
		}
		for range 30 {
			time.Sleep(10 * time.Second)
			if a.hasHeard(last.ID()) {
				t.Fatal("it comes again")
			}
		}
		if len(a.told()) != 0 {
			t.Error("the program is told of it")
		}
		if len(a.Known()) != 2 {
			t.Errorf("%d others are known", len(a.Known()))
		}
		a.unban(last.ID().String())
		time.Sleep(30 * time.Minute)
		if !a.hasHeard(last.ID()) {
			t.Error("it does not come again")
		}
		a.ban(0, "10.0.0.4")
		time.Sleep(time.Second)
		if a.hasHeard(last.ID()) {
			t.Error("who can only be at a banned address is known")
		}
	})
}

// TestBanBeacon: who is banned is not discovered, is forgotten, and not answered.
func TestBanBeacon(t *testing.T) {
	t.Setenv("CRUST_BEACON", "")
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
		b := newNode(t, beaconing(t, net.Host("10.0.0.2"), crust.Config{Gossip: crust.GossipOff}, "0.0.0.0:0"))
		c := newNode(t, beaconing(t, net.Host("10.0.0.3"), crust.Config{Gossip: crust.GossipOff}, "0.0.0.0:0"))
		d := newNode(t, beaconing(t, net.Host("10.0.0.4"), crust.Config{Gossip: crust.GossipOff}, "0.0.0.0:0"))
		time.Sleep(time.Minute)
		a := newNode(t, beaconing(t, net.Host("10.0.0.1"), crust.Config{Gossip: crust.GossipOff, Bans: []crust.BanEntry{{Peer: b.ID()}, banOf(t, "10.0.0.4")}}, "0.0.0.0:0"))
		defer func() {
			for _, n := range []*node{a, b, c, d} {
				n.Close()
			}
		}()
		time.Sleep(time.Minute)
		if l := a.PeersOnLAN(); len(l) != 1 || l[0].Peer != c.ID() {
			t.Errorf("heard are %d", len(l))
		}
		for _, e := range a.waiting() {
			if e.Type == crust.EventDiscovered && e.Peer != c.ID() {
				t.Error("somebody else is discovered")
			}
		}
		a.ban(0, c.ID().String())
		if e := a.past(t, crust.EventForgotten); e.Peer != c.ID() || e.By() != crust.ByBeacon {
			t.Error("somebody else is forgotten")
		}
		time.Sleep(10 * time.Minute)
		if len(a.PeersOnLAN()) != 0 {
			t.Error("it is heard again")
		}
	})
}

// TestBanCacheAndGroup: peers of the cache that are banned are neither dialled nor
// tested, those that are connected to are not written down, and a banned member of a
// group is left alone until the ban is lifted.
func TestBanCacheAndGroup(t *testing.T) {
	path := t.TempDir() + "/cache"
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
		log := &dialLog{}
		b := newNode(t, crust.On(net.Host("10.0.0.2"), over(crust.Config{}, "10.0.0.2", "tcp")))
		defer b.Close()
		at := contactOf(t, b, crust.TCP, "10.0.0.2")
		fill(t, path, time.Now().Add(-25*time.Hour), at)
		a := newNode(t, crust.On(counting{net.Host("10.0.0.1"), log}, over(crust.Config{Cache: path, Bans: []crust.BanEntry{{Peer: b.ID(), Reason: "spam"}}}, "0.0.0.0", "tcp")))
		defer a.Close()
		began := time.Now()
		keep(t, a, crust.Group{Name: "g", Contacts: []crust.Contact{at}})
		if e := a.group(t, crust.GroupFailed); e.Code() != crust.CodeBanned || !strings.Contains(e.Err().Error(), "spam") {
			t.Error(e.Err())
		}
		if err := a.Bootstrap(1); err != nil {
			t.Fatal(err)
		}
		if e := a.past(t, crust.EventBootstrapFailed); e.Code() != crust.CodeNoEndpoint {
			t.Error(e.Err())
		}
		time.Sleep(10 * time.Minute)
		if n := log.since(at.Endpoint, began); n != 0 {
			t.Errorf("it is dialled %d times", n)
		}
		a.unban(b.ID().String())
		unbanned := time.Now()
		if e := a.group(t, crust.GroupUp); e.Peer != b.ID() || time.Since(unbanned) > 6*time.Second {
			t.Errorf("up after %v", time.Since(unbanned))
		}
		time.Sleep(time.Second) // else the attempt that has brought it up may still go on
		a.ban(time.Minute, b.ID().String())
		if e := a.group(t, crust.GroupDown); e.Code() != crust.CodeBanned {
			t.Error(e.Err())
		}
		if e := a.group(t, crust.GroupUp); e.Peer != b.ID() {
			t.Error("not kept")
		}
	})
}

// TestWhitelists: peers of a role must have an address on its list, in either direction;
// who is on no list is not listened to; and a change ends sessions.
func TestWhitelists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		net.SetDefaultLink(simnet.Link{Latency: 10 * time.Millisecond})
		prefix := func(texts ...string) (list []netip.Prefix) {
			for _, text := range texts {
				p, err := crust.ParsePrefix(text)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, p)
			}
			return list
		}
		a := newNode(t, crust.On(net.Host("10.0.0.1"), over(crust.Config{AllowNodes: prefix("10.0.1.0/24"), AllowClients: prefix("10.0.2.0/24", "10.0.3.1")}, "0.0.0.0", "tcp", "utp")))
		defer a.Close()
		for i, c := range []struct {
			host string
			role crust.Role
			ok   bool
		}{
			{"10.0.1.1", crust.Node, true}, {"10.0.2.1", crust.Client, true}, {"10.0.3.1", crust.Client, true},
			{"10.0.1.2", crust.Client, false}, {"10.0.2.2", crust.Node, false}, {"10.0.4.1", crust.Node, false}, {"10.0.4.2", crust.Client, false},
		} {
			host := net.Host(c.host)
			for k, transport := range []crust.Transport{crust.TCP, crust.UTP} {
				b := newNode(t, crust.On(host, over(crust.Config{Role: c.role}, "0.0.0.0", "tcp", "utp")))
				token := uint64(10*i + k + 1)
				if err := b.ConnectEndpoint(contactOf(t, a, transport, "10.0.0.1"), token); err != nil {
					t.Fatal(err)
				}
				if e := b.final(t, token); (e.Type == crust.EventConnected) != c.ok && e.Type != crust.EventConnected {
					t.Errorf("%v: %v %v", c, e.Type, e.Err())
				}
				time.Sleep(time.Second)
				if _, ok := a.Peer(b.ID()); ok != c.ok {
					t.Errorf("%v: a session is %v", c, ok)
				}
				if err := a.ConnectEndpoint(contactOf(t, b, transport, c.host), token); err != nil {
					t.Fatal(err)
				}
				if e := a.final(t, token); !c.ok && e.Code() != crust.CodeNotAllowed || c.ok && e.Type != crust.EventAlreadyConnected {
					t.Errorf("%v, dialled: %v %v", c, e.Type, e.Err())
				}
				if c.host == "10.0.3.1" && k == 1 {
					if err := a.SetAllowed(prefix("10.0.1.0/24"), prefix("10.0.2.0/24")); err != nil {
						t.Fatal(err)
					}
					if e := a.past(t, crust.EventLost); e.Peer != b.ID() || e.Code() != crust.CodeNotAllowed {
						t.Error(e.Err())
					}
				}
				b.Close()
				time.Sleep(time.Second)
			}
		}
		if err := a.SetAllowed(make([]netip.Prefix, 1), nil); crust.CodeOf(err) != crust.CodeInvalid {
			t.Error(err)
		}
		if err := a.SetAllowed(make([]netip.Prefix, crust.MaxAllowed+1), nil); crust.CodeOf(err) != crust.CodeLimit {
			t.Error(err)
		}
	})
}

// TestBanCalls: what is wrong is said, nothing is half done, and the list is told in
// order with reasons and ends.
func TestBanCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNode(t, crust.On(simnet.New(1).Host("10.0.0.1"), crust.Config{MaxBans: 3, Bans: []crust.BanEntry{banOf(t, "192.0.2.7")}, Listen: []crust.Endpoint{endpointAt("0.0.0.0:0")}}))
		defer a.Close()
		good := crust.BanEntry{Peer: keyOf(t, 1).ID(), Reason: "spam"}
		for name, c := range map[string]struct {
			list []crust.BanEntry
			d    time.Duration
			code crust.Code
		}{
			"nobody":   {[]crust.BanEntry{good, {}}, 0, crust.CodeInvalid},
			"both":     {[]crust.BanEntry{{Peer: good.Peer, Prefix: netip.MustParsePrefix("1.0.0.0/8")}}, 0, crust.CodeInvalid},
			"reason":   {[]crust.BanEntry{{Peer: good.Peer, Reason: strings.Repeat("x", crust.MaxBanReason+1)}}, 0, crust.CodeInvalid},
			"negative": {[]crust.BanEntry{good}, -1, crust.CodeInvalid},
			"self":     {[]crust.BanEntry{good, {Peer: a.ID()}}, 0, crust.CodeSelf},
			"full":     {[]crust.BanEntry{good, banOf(t, "1.0.0.0/8"), banOf(t, "2.0.0.0/8")}, 0, crust.CodeLimit},
		} {
			if err := a.Ban(c.list, c.d); crust.CodeOf(err) != c.code {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := len(a.Bans()); n != 1 {
			t.Fatalf("%d are banned", n)
		}
		if err := a.Ban([]crust.BanEntry{banOf(t, "2001:db8::1/32"), good}, time.Minute); err != nil {
			t.Fatal(err)
		}
		list, until := a.Bans(), time.Now().Add(time.Minute)
		if len(list) != 3 || list[0].Peer != good.Peer || list[0].Reason != "spam" || !list[0].Until.Equal(until) || list[1].String() != "192.0.2.7" || !list[1].Until.IsZero() || list[2].String() != "2001:db8::/32" {
			t.Errorf("%v", list)
		}
		if n, err := a.Unban([]crust.BanEntry{good, banOf(t, "192.0.2.8"), banOf(t, "192.0.2.7")}); n != 2 || err != nil {
			t.Error(n, err)
		}
		for _, text := range []string{"", "x", "1.2.3.4/33", "1.2.3.4:5", "tcp://1.2.3.4:5", strings.Repeat("0", 64)} {
			if _, err := crust.ParseBan(text); crust.CodeOf(err) != crust.CodeInvalid {
				t.Errorf("%q: %v", text, err)
			}
		}
		a.Close()
		if err := a.Ban([]crust.BanEntry{good}, 0); crust.CodeOf(err) != crust.CodeClosed {
			t.Error(err)
		}
	})
}

// TestBanEnMasse: ten thousand are banned at once while a thousand sessions live, some of
// them with who is banned. The best of three takes some 10 ms; work that grows with both
// numbers multiplied would take several times the bound.
func TestBanEnMasse(t *testing.T) {
	const sessions, offenders, entries, rounds = 1000, 60, 10_000, 3
	net := simnet.New(1)
	cfg := over(crust.Config{NoNetworkWatch: true}, "0.0.0.0", "tcp")
	a := newNode(t, crust.On(net.Host("10.0.0.1"), cfg))
	to := contactOf(t, a, crust.TCP, "10.0.0.1")
	nodes := make([]*node, sessions)
	host := func(i int) string { return fmt.Sprintf("10.1.%d.%d", i/250, i%250+1) }
	cfg.NoListen = true
	for i := range nodes {
		nodes[i] = newNode(t, crust.On(net.Host(host(i)), cfg))
		if err := nodes[i].ConnectEndpoint(to, 1); err != nil {
			t.Fatal(err)
		}
		if e := nodes[i].final(t, 1); e.Type != crust.EventConnected {
			t.Fatal(e.Err())
		}
	}
	for len(a.Peers()) < sessions {
		a.awaits(t, crust.EventConnected)
	}
	best := time.Hour
	for round := range rounds {
		list := make([]crust.BanEntry, 0, entries)
		for i := range entries {
			switch who := round*offenders + i; {
			case i < offenders/2:
				list = append(list, crust.BanEntry{Peer: nodes[who].ID()})
			case i < offenders:
				list = append(list, banOf(t, host(who)))
			case i%2 == 0:
				list = append(list, crust.BanEntry{Peer: crust.PeerID(bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(round), 1}, 8))})
			default:
				list = append(list, banOf(t, fmt.Sprintf("2001:%x:%x::/%d", round, i, 33+i%32)))
			}
		}
		began := time.Now()
		if err := a.Ban(list, time.Hour); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(began))
		for lost := 0; lost < offenders; lost++ {
			if e := a.awaits(t, crust.EventLost); e.Code() != crust.CodeBanned {
				t.Error(e.Err())
			}
		}
		if n := len(a.Peers()); n != sessions-(round+1)*offenders {
			t.Errorf("%d are left", n)
		}
	}
	t.Logf("banning %d entries took %v", entries, best)
	if most := 100 * time.Millisecond; best > most && !raceDetector {
		t.Errorf("banning took %v, want at most %v", best, most)
	}
	for _, n := range append(nodes, a) {
		n.Stop()
	}
	for _, n := range append(nodes, a) {
		n.Close()
	}
}
