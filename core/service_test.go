package crust_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// node is a service with its events sorted out.
type node struct {
	*crust.Service
	t    testing.TB
	evil crust.PeerID // of whom alerts are due
	rush bool         // sessions come and go as fast as none should: alerts are due
}

func newNode(t testing.TB, cfg crust.Config) *node {
	t.Helper()
	if cfg.Listen == nil {
		ep, err := crust.ParseEndpoint("tcp://127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen = []crust.Endpoint{ep}
	}
	s, err := crust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &node{Service: s, t: t}
}

// next returns the next event that is of one of the types, and fails on others.
func (n *node) next(types ...crust.EventType) crust.Event {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for e := range n.Events(ctx) {
		for _, t := range types {
			if e.Type == t {
				return e
			}
		}
		switch e.Type {
		case crust.EventListenerStarted, crust.EventNetworkChanged, crust.EventDiscovered, crust.EventForgotten: // the machine's network may change
			continue
		case crust.EventAlert:
			if n.rush && e.Alert().Kind == crust.AlertSessions || !n.evil.IsZero() && e.Alert().Peer == n.evil {
				continue
			}
		}
		n.t.Fatalf("event %v (%v) %+v while waiting for %v", e.Type, e.Err(), e.Alert(), types)
	}
	n.t.Fatalf("no event of %v", types)
	return crust.Event{}
}

func (n *node) info() []byte {
	n.t.Helper()
	if err := n.PrepareConnectionInfo(1); err != nil {
		n.t.Fatal(err)
	}
	return n.next(crust.EventConnectionInfo).Data
}

func TestHello(t *testing.T) {
	a, b := newNode(t, crust.Config{AppID: []byte("alice")}), newNode(t, crust.Config{AppID: []byte("bob"), Role: crust.Client})
	if err := a.Connect(b.info(), 42); err != nil {
		t.Fatal(err)
	}
	ea, eb := a.next(crust.EventConnected), b.next(crust.EventConnected)
	if ea.Peer != b.ID() || ea.Token != 42 || string(ea.AppID()) != "bob" || ea.Role() != crust.Client || ea.How() != crust.Dialed {
		t.Fatalf("dialler saw %+v", ea)
	}
	if eb.Peer != a.ID() || eb.Token != 0 || string(eb.AppID()) != "alice" || eb.Role() != crust.Node || eb.How() != crust.Accepted {
		t.Fatalf("acceptor saw %+v", eb)
	}
	for size := 0; size <= crust.MaxMessage; size = size*3 + 1 {
		want := bytes.Repeat([]byte{byte(size), 7, 9}, size/3+1)[:size]
		if err := a.Send(b.ID(), want, 3); err != nil {
			t.Fatal(err)
		}
		if got := b.next(crust.EventMessage); !bytes.Equal(got.Data, want) || got.Priority != 3 || got.Peer != a.ID() {
			t.Fatalf("message of %d bytes arrived as %d", size, len(got.Data))
		}
		if err := b.Send(a.ID(), want, 0); err != nil {
			t.Fatal(err)
		}
		if got := a.next(crust.EventMessage); !bytes.Equal(got.Data, want) {
			t.Fatalf("message of %d bytes came back as %d", size, len(got.Data))
		}
	}
	if err := a.Send(b.ID(), make([]byte, crust.MaxMessage+1), 0); !errors.Is(err, crust.CodeTooBig) {
		t.Fatalf("too big gave %v", err)
	}
	if err := a.Disconnect(b.ID()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		if e := n.next(crust.EventLost); e.Code() != crust.CodeDisconnected {
			t.Fatal(e.Err())
		}
	}
}

func TestCrossedConnects(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	a.rush, b.rush = true, true
	ia, ib := a.info(), b.info()
	for i := range 1000 {
		done := make(chan error, 2)
		go func() { done <- a.Connect(ib, 1) }()
		go func() { done <- b.Connect(ia, 2) }()
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		want := fmt.Appendf(nil, "round %d", i)
		for _, n := range []*node{a, b} {
			if e := n.next(crust.EventConnected); e.Type != crust.EventConnected {
				t.Fatal(e)
			}
		}
		for _, pair := range [][2]*node{{a, b}, {b, a}} {
			if err := pair[0].Send(pair[1].ID(), want, 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []*node{a, b} {
			if e := n.pastMoves(crust.EventMessage); !bytes.Equal(e.Data, want) {
				t.Fatalf("got %q", e.Data)
			}
		}
		if len(a.Peers()) != 1 || len(b.Peers()) != 1 {
			t.Fatal("not one session")
		}
		n := []*node{a, b}[i%2]
		if err := n.Disconnect([]*node{b, a}[i%2].ID()); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*node{a, b} {
			n.pastMoves(crust.EventLost)
		}
	}
}
