package crust_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// staller is a peer that proves who it is and never says another word.
func staller(t *testing.T, h *simnet.Host, at string, key byte) {
	t.Helper()
	l, err := h.Listen(context.Background(), endpointAt(at).Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				cfg := &secure.Config{
					Key: keyOf(t, key), Network: secure.NewNetwork(""), Seen: new(secure.Seen), Images: new(secure.Images), Spare: new(secure.Spare),
					Hello: wire.Hello{Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120_000, Resume: 30_000, Unacked: 1 << 20, Flags: wire.FlagReady},
				}
				if _, err := secure.Respond(conn, cfg); err != nil {
					conn.Close()
				}
			}()
		}
	}()
}

// A cache full of poison, a dead fallback, a deaf one, our own address, peers that
// refuse and peers that prove who they are and then say nothing: the one good contact
// is found without waiting for them.
func TestBootstrapWaitsForNobodyBad(t *testing.T) {
	path := t.TempDir() + "/cache"
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 40 * time.Millisecond})
		var log dialLog
		ha := counting{internet.Host("10.0.0.1"), &log}
		good := newNode(t, crust.On(internet.Host("10.0.0.2"), crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.2:4000")}}))
		defer good.Close()
		deaf := internet.Host("10.0.0.3")
		l, err := deaf.Listen(context.Background(), endpointAt("10.0.0.3:1").Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var contacts []crust.Contact
		for i := range 3 { // they answer sooner than the good one does
			h := internet.Host(fmt.Sprintf("10.0.2.%d", i+1))
			internet.SetLink(ha.Host, h, simnet.Link{Latency: time.Duration(i+1) * time.Millisecond})
			at := fmt.Sprintf("10.0.2.%d:4000", i+1)
			staller(t, h, at, byte(100+i))
			contacts = append(contacts, crust.Contact{Endpoint: endpointAt(at)})
		}
		refusing := internet.Host("10.0.3.1")
		internet.SetLink(ha.Host, refusing, simnet.Link{Latency: time.Millisecond})
		no := newNode(t, crust.On(refusing, crust.Config{NoAccept: true, Listen: []crust.Endpoint{endpointAt("10.0.3.1:4000")}}))
		defer no.Close()
		var poison []crust.Contact
		for n := range 100 {
			poison = append(poison, crust.Contact{Endpoint: endpointAt([]string{
				fmt.Sprintf("10.0.9.%d:4000", 1+n), "10.0.0.3:1", "10.0.0.2:4000", "10.0.0.1:4000"}[n%4]), Peer: keyOf(t, byte(n)).ID()})
		}
		fill(t, path, time.Now(), poison...)
		own, dead, barred := endpointAt("10.0.0.1:4000"), endpointAt("10.0.0.4:1"), endpointAt("10.0.0.5:1")
		internet.Silence(ha.Host, internet.Host("10.0.0.4"))
		internet.Host("10.0.0.5")
		contacts = append(contacts, crust.Contact{Endpoint: own}, crust.Contact{Endpoint: dead}, crust.Contact{Endpoint: endpointAt("10.0.0.3:1")},
			crust.Contact{Endpoint: endpointAt("10.0.3.1:4000")}, crust.Contact{Endpoint: barred}, crust.Contact{Endpoint: endpointAt("10.0.0.2:4000")})
		cfg := crust.Config{Listen: []crust.Endpoint{own}, Contacts: contacts, Cache: path, Bans: []crust.BanEntry{{Prefix: netip.MustParsePrefix("10.0.0.5/32")}}}
		a := newNode(t, crust.On(ha, cfg))
		defer a.Close()
		began := time.Now()
		if err := a.Bootstrap(7); err != nil {
			t.Fatal(err)
		}
		e := a.past(t, crust.EventBootstrapped)
		if took := time.Since(began); e.Peer != good.ID() || e.Token != 7 || took > 1500*time.Millisecond {
			t.Fatalf("bootstrapped from %v after %v", e.Endpoint(), took)
		} else {
			t.Logf("bootstrapped after %v", took)
		}
		if log.since(own, began) != 0 {
			t.Error("its own address was dialled")
		}
		if log.since(barred, began) != 0 {
			t.Error("who is blacklisted was dialled")
		}
	})
}

// watchful is a host from which nothing may be dialled at an address.
type watchful struct {
	*simnet.Host
	t     *testing.T
	never netip.Addr
}

// Dial implements netio.Network.
func (h watchful) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	if remote.Addr() == h.never {
		h.t.Errorf("%v is dialled", remote)
	}
	return h.Host.Dial(ctx, local, remote)
}

// Blacklisted addresses get no packet, whatever names them: contacts, the cache, a
// group, over TCP or UDP.
func TestBlacklistedAddressesGetNoPacket(t *testing.T) {
	path := t.TempDir() + "/cache"
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		never := netip.MustParseAddr("10.0.0.2")
		b := newNode(t, crust.On(internet.Host("10.0.0.2"), crust.Config{Listen: []crust.Endpoint{endpointAt("10.0.0.2:4000"), endpointAt("utp://10.0.0.2:4000")}}))
		defer b.Close()
		internet.Watch(func(_, to netip.AddrPort, _ []byte) {
			if to.Addr() == never {
				t.Errorf("a datagram goes to %v", to)
			}
		})
		contacts := []crust.Contact{{Endpoint: endpointAt("10.0.0.2:4000"), Peer: b.ID()}, {Endpoint: endpointAt("utp://10.0.0.2:4000"), Peer: b.ID()}}
		fill(t, path, time.Now().Add(-25*time.Hour), contacts...)
		cfg := over(crust.Config{Contacts: contacts, Cache: path, Bans: []crust.BanEntry{{Prefix: netip.PrefixFrom(never, 32)}}}, "0.0.0.0", "tcp", "utp")
		a := newNode(t, crust.On(watchful{internet.Host("10.0.0.1"), t, never}, cfg))
		defer a.Close()
		if err := a.Bootstrap(1); err != nil {
			t.Fatal(err)
		}
		if e := a.past(t, crust.EventBootstrapFailed); e.Code() != crust.CodeNoEndpoint {
			t.Error(e.Err())
		}
		keep(t, a, crust.Group{Name: "g", Contacts: contacts})
		keep(t, a, crust.Group{Name: "any", Any: 1, Contacts: contacts})
		time.Sleep(5 * time.Minute) // the cache is tested, too
		if len(a.Peers()) != 0 {
			t.Error("there is a session")
		}
	})
}

// A bootstrap leaves out whom it is told to: nothing is sent to such an endpoint, and
// such a peer is not kept, wherever it answers.
func TestBootstrapExcept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 40 * time.Millisecond})
		never := netip.MustParseAddr("10.0.0.2")
		var nodes []*node
		var contacts []crust.Contact
		for i := 2; i <= 4; i++ {
			at := endpointAt(fmt.Sprintf("10.0.0.%d:4000", i))
			n := newNode(t, crust.On(internet.Host(at.Addr.Addr().String()), crust.Config{Listen: []crust.Endpoint{at}}))
			defer n.Close()
			nodes, contacts = append(nodes, n), append(contacts, crust.Contact{Endpoint: at})
		}
		cfg := over(crust.Config{Contacts: contacts}, "0.0.0.0", "tcp")
		a := newNode(t, crust.On(watchful{internet.Host("10.0.0.1"), t, never}, cfg))
		defer a.Close()
		peer := func(i int) crust.Contact { return crust.Contact{Peer: nodes[i].ID()} }
		for i, want := range []*node{nil, nodes[2], nodes[1]} {
			except := [][]crust.Contact{
				{contacts[0], peer(1), peer(2)},
				{contacts[0], {Endpoint: contacts[1].Endpoint}, {Endpoint: contacts[2].Endpoint, Peer: nodes[0].ID()}},
				{contacts[0], peer(2)},
			}[i]
			if err := a.BootstrapExcept(uint64(i), except); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				if e := a.past(t, crust.EventBootstrapFailed); e.Code() != crust.CodeNotAllowed {
					t.Error(e.Err())
				}
				continue
			}
			if e := a.past(t, crust.EventBootstrapped); e.Peer != want.ID() {
				t.Errorf("%d: %s answered at %s", i, e.Peer.Short(), e.Endpoint())
			}
			a.Disconnect(want.ID())
			time.Sleep(time.Second)
		}
		if err := a.BootstrapExcept(9, []crust.Contact{{}}); !errors.Is(err, crust.CodeInvalid) {
			t.Error(err)
		}
	})
}

// Alone with its own address a node says so.
func TestBootstrapFromOurselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := endpointAt("10.0.0.1:4000")
		a := newNode(t, crust.On(simnet.New(1).Host("10.0.0.1"), crust.Config{Listen: []crust.Endpoint{at}, Contacts: []crust.Contact{{Endpoint: at}}}))
		defer a.Close()
		if err := a.Bootstrap(1); err != nil {
			t.Fatal(err)
		}
		if e := a.past(t, crust.EventBootstrapFailed); e.Code() != crust.CodeSelf {
			t.Error(e.Err())
		}
	})
}

// A node that knows nobody bootstraps from whom it hears on its network, also when that
// one comes a moment later; and of a group it finds a peer there of which it knows the
// id, and any node.
func TestBootstrapFromTheNetworkAround(t *testing.T) {
	t.Setenv("CRUST_BEACON", "")
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
		a := newNode(t, beaconing(t, internet.Host("10.0.0.1"), crust.Config{}, "0.0.0.0:0"))
		defer a.Close()
		if err := a.Bootstrap(1); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if e := a.past(t, crust.EventBootstrapFailed); e.Code() != crust.CodeNoEndpoint || time.Since(began) > 3*time.Second {
			t.Fatalf("%v after %v", e.Err(), time.Since(began))
		}
		if err := a.Bootstrap(2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		began = time.Now()
		b := newNode(t, beaconing(t, internet.Host("10.0.0.2"), crust.Config{}, "0.0.0.0:0"))
		defer b.Close()
		if e := a.past(t, crust.EventBootstrapped); e.Peer != b.ID() || time.Since(began) > time.Second {
			t.Fatalf("after %v", time.Since(began))
		}
		began = time.Now()
		c := newNode(t, beaconing(t, internet.Host("10.0.0.3"), crust.Config{}, "0.0.0.0:0"))
		defer c.Close()
		if err := c.Bootstrap(3); err != nil {
			t.Fatal(err)
		}
		if c.past(t, crust.EventBootstrapped); time.Since(began) > time.Second {
			t.Fatalf("after %v", time.Since(began))
		}
		c.Close()
		later := keyOf(t, 9)
		keep(t, a, crust.Group{Name: "it", Peers: []crust.PeerID{later.ID()}})
		keep(t, a, crust.Group{Name: "nodes", Any: 2})
		time.Sleep(10 * time.Minute)
		began = time.Now()
		d := newNode(t, beaconing(t, internet.Host("10.0.0.4"), crust.Config{Identity: later}, "0.0.0.0:0"))
		defer d.Close()
		for up := 0; up < 2; { // in both
			if e := a.group(t, crust.GroupUp); e.Peer == later.ID() {
				up++
			}
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("connected %v after it was heard", took)
		}
	})
}
