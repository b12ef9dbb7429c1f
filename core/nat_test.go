package crust_test

import (
	"strings"
	"testing"
	"testing/synctest"

	crust "github.com/libcrust/libcrust/core"
)

// TestNATReport: what services say of the NATs in front of them, after four public
// peers in different networks have told what they see.
func TestNATReport(t *testing.T) {
	town(t, 1, "home", "symmetric", crust.Config{}, func(t *testing.T, a, b *node) {
		home, symmetric := settle(t, a), settle(t, b)
		if home.CGNAT || home.UDP.Blocked || home.TCP.Double {
			t.Errorf("home: %+v", home)
		}
		if home.UDP.Mapping != crust.NATEndpointIndependent || home.UDP.Confidence != "confirmed" || home.UDP.None {
			t.Errorf("home, UDP: %+v", home.UDP)
		}
		if symmetric.UDP.Mapping == crust.NATEndpointIndependent || symmetric.UDP.None {
			t.Errorf("symmetric, UDP: %+v", symmetric.UDP)
		}
		for _, f := range []struct {
			what string
			flow crust.NATFlow
			addr string
		}{
			{"home, UDP", home.UDP, "203.0.113.1"}, {"home, TCP", home.TCP, "203.0.113.1"},
			{"symmetric, UDP", symmetric.UDP, "192.0.2.1"}, {"symmetric, TCP", symmetric.TCP, "192.0.2.1"},
		} {
			if len(f.flow.External) == 0 || f.flow.External[0].Addr().String() != f.addr {
				t.Errorf("%s: external %v, want %s first", f.what, f.flow.External, f.addr)
			}
		}
		for what, r := range map[string]crust.NATReport{"203.0.113.1": home, "192.0.2.1": symmetric} {
			by, previous := map[crust.Transport]int{}, crust.PeerID{}
			for _, s := range r.Seen {
				by[s.At.Transport]++
				if s.At.Addr.Addr().String() != what || !s.From.IsValid() || previous.Compare(s.Peer) > 0 {
					t.Errorf("%s: seen %+v", what, s)
				}
				previous = s.Peer
			}
			if by[crust.TCP] < 4 || by[crust.UTP] < 4 {
				t.Errorf("%s: seen %v times", what, by)
			}
		}
		// Where the listeners of the symmetric one would be seen, nobody can tell.
		for why, r := range map[string]crust.NATReport{"nothing of them has come": home, "nobody on the Internet": symmetric} {
			if r.Reachable || !strings.Contains(r.Why, why) {
				t.Errorf("reachable %v because %q, want false because %s", r.Reachable, r.Why, why)
			}
		}
	})
}

// TestNATReportPublic: a service without a NAT says so, and that strangers reach it:
// of peers that do nothing for others the first to come proves that.
func TestNATReportPublic(t *testing.T) {
	town(t, 1, "public", "public", crust.Config{Relay: crust.RelayOff}, func(t *testing.T, a, b *node) {
		if r := a.NAT(); !r.UDP.None || !r.TCP.None || r.UDP.Ports != crust.NATPortsPreserving || r.Reachable {
			t.Errorf("before anybody came: %+v", r)
		}
		if err := b.ConnectEndpoint(contactOf(t, a, crust.TCP, "203.0.113.1"), 9); err != nil {
			t.Fatal(err)
		}
		if e := b.final(t, 9); e.Type != crust.EventConnected {
			t.Fatalf("got %v %v", e.Type, e.Err())
		}
		synctest.Wait() // b has told what it sees
		if err := b.Send(a.ID(), []byte("what I see came before"), 1); err != nil {
			t.Fatal(err)
		}
		a.message(t)
		if r := a.NAT(); !r.Reachable || !strings.HasPrefix(r.Why, "tcp by 192.0.2.1:") {
			t.Errorf("after a stranger came: %v because %q", r.Reachable, r.Why)
		}
	})
}
