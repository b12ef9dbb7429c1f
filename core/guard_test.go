package crust_test

import (
	"context"
	"crypto/rand"
	"io"
	"net/netip"
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

const (
	guardedAt  = "203.0.113.1"
	offenderAt = "198.51.100.66"
	innocentAt = "198.51.100.7"
)

// siege is a service that others make work for.
type siege struct {
	net   *simnet.Net
	node  *node
	at    crust.Endpoint
	hosts map[string]*simnet.Host
}

// host returns the one host at an address.
func (s *siege) host(at string) *simnet.Host {
	if s.hosts[at] == nil {
		s.hosts[at] = s.net.Host(at)
	}
	return s.hosts[at]
}

func besiege(t *testing.T, cfg crust.Config, f func(t *testing.T, s *siege)) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		cfg.Listen = []crust.Endpoint{endpointAt(guardedAt + ":7")}
		n := newNode(t, crust.On(net.Host(guardedAt), cfg))
		defer n.Close()
		f(t, &siege{net, n, endpointAt(guardedAt + ":7"), map[string]*simnet.Host{}})
	})
}

// dial opens a connection to the service and lets f use it.
func (s *siege) dial(t *testing.T, from *simnet.Host, f func(conn io.ReadWriter)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, netip.AddrPort{}, s.at.Addr)
	if err != nil {
		return // it is refused
	}
	f(conn)
	conn.Close()
}

// alerts returns the alerts that come within a time.
func (s *siege) alerts(d time.Duration) (list []crust.Alert) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	for e := range s.node.Events(ctx) {
		if e.Type == crust.EventAlert {
			a := e.Alert()
			if a.Peer != e.Peer {
				s.node.t.Errorf("the event is about %s, its alert about %s", e.Peer.Short(), a.Peer.Short())
			}
			list = append(list, a)
		}
	}
	return list
}

// stranger is a peer that shakes hands as it likes.
func stranger(t *testing.T) *secure.Config {
	t.Helper()
	c, err := anybody()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// anybody is a new member of the network.
func anybody() (*secure.Config, error) {
	key, err := identity.Generate()
	if err != nil {
		return nil, err
	}
	return &secure.Config{Key: key, Network: secure.NewNetwork(""), Hello: wire.Hello{Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120_000}}, nil
}

func TestAlertsNameTheOffender(t *testing.T) {
	for name, c := range map[string]struct {
		kind crust.AlertKind
		cfg  crust.Config
		make func(t *testing.T, s *siege, from *simnet.Host)
	}{
		"connections": {crust.AlertConnections, crust.Config{MaxAcceptsPerAddress: 1}, func(t *testing.T, s *siege, from *simnet.Host) {
			for range 4 {
				s.dial(t, from, func(io.ReadWriter) {})
			}
		}},
		"forgery": {crust.AlertForgery, crust.Config{}, func(t *testing.T, s *siege, from *simnet.Host) {
			if s.node.Stats().Alerts == 0 {
				s.forge(t, from)
			}
		}},
		"garbage": {crust.AlertGarbage, crust.Config{}, func(t *testing.T, s *siege, from *simnet.Host) {
			junk := make([]byte, 300)
			s.dial(t, from, func(conn io.ReadWriter) {
				rand.Read(junk)  //nolint:errcheck // it never fails
				conn.Write(junk) //nolint:errcheck // it may be refused
			})
		}},
		"silence": {crust.AlertGarbage, crust.Config{}, func(t *testing.T, s *siege, from *simnet.Host) {
			s.dial(t, from, func(io.ReadWriter) {})
		}},
		"handshakes": {crust.AlertHandshakes, crust.Config{}, func(t *testing.T, s *siege, from *simnet.Host) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			conn, err := from.Dial(ctx, netip.AddrPort{}, s.at.Addr)
			if err != nil {
				return
			}
			if _, err := secure.Initiate(conn, stranger(t), identity.PeerID{}); err != nil {
				t.Errorf("no answer to a genuine first flight: %v", err)
			}
			conn.Close() // it has had its answer
		}},
	} {
		t.Run(name, func(t *testing.T) {
			besiege(t, c.cfg, func(t *testing.T, s *siege) {
				from := s.net.Host(offenderAt)
				good := newNode(t, crust.On(s.net.Host(innocentAt), crust.Config{NoListen: true}))
				defer good.Close()
				for range 100 {
					c.make(t, s, from)
				}
				if err := good.ConnectEndpoint(crust.Contact{Endpoint: s.at}, 1); err != nil {
					t.Fatal(err)
				}
				good.next(crust.EventConnected)
				got := s.alerts(15 * time.Second)
				if len(got) != 1 {
					t.Fatalf("alerts %+v, want one", got)
				}
				a := got[0]
				if a.Kind != c.kind || !a.Peer.IsZero() || a.Address.String() != offenderAt+"/32" || a.Suggest.String() != offenderAt || a.For != 10*time.Minute {
					t.Errorf("alert %+v", a)
				}
				least, most := uint64(64), uint64(100)
				switch c.kind {
				case crust.AlertConnections:
					least, most = 256, 400
				case crust.AlertForgery:
					least, most = 4, 5
				}
				if a.Figures.Count < least || a.Figures.Count > most {
					t.Errorf("%d were counted, want %d to %d", a.Figures.Count, least, most)
				}
				if each := a.Figures.Bytes / a.Figures.Count; name == "silence" && each > 0 || (name == "garbage" || name == "handshakes") && (each < wire.FlightNonce || each > 4096) {
					t.Errorf("%d bytes came with each", each)
				}
				if (c.kind == crust.AlertHandshakes) != (a.Figures.CPU > 0) {
					t.Errorf("%v of processor time", a.Figures.CPU)
				}
				st := s.node.Stats()
				if st.Peers != 1 || st.Alerts != 1 {
					t.Errorf("%d peers, %d alerts were counted", st.Peers, st.Alerts)
				}
			})
		})
	}
}

// forge begins a session and sends a record that does not authenticate.
func (s *siege) forge(t *testing.T, from *simnet.Host) {
	t.Helper()
	conn, err := from.Dial(t.Context(), netip.AddrPort{}, s.at.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cfg := stranger(t)
	for cfg.Key.ID().Compare(s.node.ID()) > 0 { // else it would have to choose
		cfg = stranger(t)
	}
	link, err := secure.Initiate(conn, cfg, s.node.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Tell(link, wire.Claim{Seq: 1}.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := session.Await(link); kind != wire.FrameChosen {
		t.Fatal(kind, err)
	}
	conn.Write(make([]byte, 200)) //nolint:errcheck // it may be closed
	time.Sleep(time.Second)
}

// TestAlertOfSessions: a peer whose sessions come and go is named by its key, with what its
// handshakes have cost and what it has delivered.
func TestAlertOfSessions(t *testing.T) {
	besiege(t, crust.Config{}, func(t *testing.T, s *siege) {
		bad := newNode(t, crust.On(s.net.Host(offenderAt), crust.Config{NoListen: true}))
		defer bad.Close()
		for range 80 {
			if e := s.again(t, bad); e.Type != crust.EventConnected {
				t.Fatal(e.Err())
			}
			if err := bad.Send(s.node.ID(), []byte("hello"), 0); err != nil {
				t.Fatal(err)
			}
			if err := bad.Disconnect(s.node.ID()); err != nil {
				t.Fatal(err)
			}
			bad.next(crust.EventLost)
		}
		got := s.alerts(15 * time.Second)
		if len(got) != 1 || got[0].Kind != crust.AlertSessions || got[0].Peer != bad.ID() || got[0].Suggest.Peer != bad.ID() || got[0].Address.String() != offenderAt+"/32" {
			t.Fatalf("alerts %+v", got)
		}
		if f := got[0].Figures; f.Count < 64 || f.Count > 80 || f.Sessions < f.Count || f.Messages < f.Count || f.Given != 5*f.Messages || f.CPU < time.Duration(f.Count)*100*time.Microsecond {
			t.Errorf("figures %+v", f)
		}
	})
}

// A peer that breaks the protocol is named by its key.
func TestAlertAboutAPeer(t *testing.T) {
	besiege(t, crust.Config{NoAccept: false}, func(t *testing.T, s *siege) {
		bad := newNode(t, crust.On(s.net.Host(offenderAt), crust.Config{NoListen: true}))
		defer bad.Close()
		if err := bad.ConnectEndpoint(crust.Contact{Endpoint: s.at}, 1); err != nil {
			t.Fatal(err)
		}
		bad.next(crust.EventConnected)
		s.node.next(crust.EventConnected)
		if !crust.Control(bad.Service, s.node.ID(), wire.RelayOpen{ID: 0xffffff}.Append(nil)) || !crust.Control(bad.Service, s.node.ID(), []byte{0xff, 0xff, 0xff}) {
			t.Fatal("the frame was not sent")
		}
		got := s.alerts(15 * time.Second)
		if len(got) != 1 || got[0].Kind != crust.AlertProtocol || got[0].Peer != bad.ID() || got[0].Suggest.Peer != bad.ID() || got[0].Address.String() != offenderAt+"/32" {
			t.Fatalf("alerts %+v", got)
		}
		if got := bad.Stats(); got.Alerts != 0 {
			t.Error("who is accused of breaking the protocol has accused the other")
		}
	})
}

// Floods from everywhere do not keep a newcomer out.
func TestNewcomerConnectsThroughAFlood(t *testing.T) {
	besiege(t, crust.Config{MaxAcceptsPerSecond: 50, MaxAcceptsPerAddress: 20}, func(t *testing.T, s *siege) {
		stop := make(chan struct{})
		done := make(chan struct{}, 20)
		for i := range 20 {
			from := s.net.Host(netip.AddrFrom4([4]byte{100, 1, byte(i), 1}).String())
			go func() {
				defer func() { done <- struct{}{} }()
				for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
					select {
					case <-stop:
						tick.Stop()
						return
					default:
						s.dial(t, from, func(conn io.ReadWriter) { conn.Write(make([]byte, 100)) }) //nolint:errcheck // it may be refused
					}
				}
			}()
		}
		time.Sleep(20 * time.Second)
		for i := range 10 {
			n := newNode(t, crust.On(s.net.Host(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}).String()), crust.Config{NoListen: true}))
			began := time.Now()
			if err := n.ConnectEndpoint(crust.Contact{Endpoint: s.at}, 1); err != nil {
				t.Fatal(err)
			}
			if e := n.next(crust.EventConnected, crust.EventConnectFailed); e.Err() != nil {
				t.Errorf("newcomer %d: %v", i, e.Err())
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("newcomer %d connected after %v", i, took)
			}
			n.Close()
		}
		close(stop)
		for range 20 {
			<-done
		}
		if st := s.node.Stats(); st.RefusedConnections < 10_000 {
			t.Errorf("%d connections were refused, of some 20,000", st.RefusedConnections)
		}
		for _, a := range s.alerts(time.Second) {
			if !netip.MustParsePrefix("100.1.0.0/16").Contains(a.Address.Addr()) {
				t.Errorf("an innocent is accused: %+v", a)
			}
		}
	})
}
