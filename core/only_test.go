package crust_test

import (
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// TestOnly: links come about in the ways that are allowed, and in no other.
func TestOnly(t *testing.T) {
	for how, only := range map[crust.How][]crust.How{
		crust.Punched: {crust.Dialed, crust.Accepted, crust.Punched},
		crust.Relayed: {crust.Dialed, crust.Accepted, crust.Relayed},
		0:             {crust.Dialed, crust.Accepted},
	} {
		cfg := crust.Config{Relay: crust.RelayData, Only: only, ConnectTimeout: 20 * time.Second}
		town(t, 1, "home", "home", cfg, func(t *testing.T, a, b *node) {
			if err := a.ConnectPeer(b.ID(), 5); err != nil {
				t.Fatal(err)
			}
			e := a.final(t, 5)
			if how == 0 {
				if e.Type != crust.EventConnectFailed {
					t.Errorf("%v: %v by %v", only, e.Type, e.How())
				}
				return
			}
			time.Sleep(10 * time.Second) // a better link would have come
			synctest.Wait()
			if p, _ := a.Peer(b.ID()); e.Type != crust.EventConnected || p.How != how {
				t.Errorf("%v: %v, %v by %v", only, e.Type, e.Err(), p.How)
			}
		})
	}
}

// TestOnlyRefuses: who may not come is told so, and who may not go does not.
func TestOnlyRefuses(t *testing.T) {
	a := newNode(t, crust.Config{Listen: []crust.Endpoint{endpointAt("127.0.0.1:0")}, Only: []crust.How{crust.Dialed}})
	defer a.Close()
	b := newNode(t, crust.Config{Listen: []crust.Endpoint{endpointAt("127.0.0.1:0")}, Only: []crust.How{crust.Accepted}})
	defer b.Close()
	for i, c := range []struct{ from, to *node }{{b, a}, {a, a}} { // b may not dial
		if i == 1 {
			c.from = newNode(t, crust.Config{NoListen: true}) // and a takes nobody in
			defer c.from.Close()
		}
		if err := c.from.ConnectEndpoint(contactOf(t, c.to, crust.TCP, "127.0.0.1"), 7); err != nil {
			t.Fatal(err)
		}
		if e := c.from.final(t, 7); e.Type != crust.EventConnectFailed || e.Code() != crust.CodeNotAllowed {
			t.Errorf("%v %v", e.Type, e.Err())
		}
	}
	if err := a.ConnectEndpoint(contactOf(t, b, crust.TCP, "127.0.0.1"), 8); err != nil {
		t.Fatal(err)
	}
	if e := a.final(t, 8); e.Type != crust.EventConnected {
		t.Errorf("%v %v", e.Type, e.Err())
	}
	if _, err := crust.New(crust.Config{NoListen: true, Only: []crust.How{9}}); crust.CodeOf(err) != crust.CodeInvalid {
		t.Errorf("way 9: %v", err)
	}
}
