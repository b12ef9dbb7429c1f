package crust_test

import (
	"bytes"
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

// TestEndedSessionStaysSo: the peer has begun a session, whose first link broke
// before it learnt that the session was taken and ended there. It carries the session
// on over a link that was claimed before all that, with every message again.
// They must not come twice, and the peer is told.
func TestEndedSessionStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := simnet.New(1)
		s, err := crust.New(crust.On(world.Host("203.0.113.1"), crust.Config{Listen: []crust.Endpoint{endpointAt("203.0.113.1:7")}}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		key, err := identity.Generate()
		for err == nil && key.ID().Compare(s.ID()) < 0 { // it is to decide
			key, err = identity.Generate()
		}
		if err != nil {
			t.Fatal(err)
		}
		cfg := &secure.Config{
			Key: key, Network: secure.NewNetwork(""), Seen: new(secure.Seen), Images: new(secure.Images),
			Hello: wire.Hello{Instance: 1, Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120_000, Resume: 1 << 20},
		}
		host := world.Host("203.0.113.2")
		link := func() *secure.Link {
			conn, err := host.Dial(t.Context(), netip.AddrPort{}, netip.MustParseAddrPort("203.0.113.1:7"))
			if err != nil {
				t.Fatal(err)
			}
			l, err := secure.Initiate(conn, cfg, s.ID())
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		first, second := link(), link()
		defer first.Conn.Close()
		defer second.Conn.Close()
		answer := func(l *secure.Link, want wire.FrameType) []byte {
			t.Helper()
			got, body, err := session.Await(l)
			if got != want || err != nil {
				t.Fatalf("frame %d, %v, want frame %d", got, err, want)
			}
			return body
		}
		// chosen is the choice of a link, and the session's only message behind it.
		name, text := wire.SessionID{1}, []byte("once")
		chosen := func(l *secure.Link, order uint64) {
			t.Helper()
			if err := session.Tell(l, wire.Chosen{Session: name, Order: order}.Append(nil)); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Conn.Write(l.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, wire.AppendMessage(nil, 1, text))); err != nil {
				t.Fatal(err)
			}
		}
		if err := session.Ask(second); err != nil {
			t.Fatal(err)
		}
		answer(second, wire.FrameClaim)
		chosen(first, 1)
		answer(first, wire.FrameClaim)
		got := map[crust.EventType]int{}
		take := func() {
			synctest.Wait()
			for s.EventsPending() {
				b, err := s.NextBatch(t.Context(), 0)
				if err != nil {
					t.Fatal(err)
				}
				for i := range b.Events {
					got[b.Events[i].Type]++
					if e := &b.Events[i]; e.Type == crust.EventMessage && !bytes.Equal(e.Data, text) {
						t.Errorf("the message is %q", e.Data)
					}
				}
				b.Release()
			}
		}
		take()
		if err := s.Disconnect(key.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		first.Conn.Close()
		time.Sleep(time.Second)
		take()
		if got[crust.EventLost] != 1 {
			t.Fatal("the session has not ended")
		}
		chosen(second, 2)
		reason, err := wire.ParseReason(answer(second, wire.FrameRefused))
		if reason != wire.ReasonOver || err != nil {
			t.Errorf("refused for reason %d, %v", reason, err)
		}
		time.Sleep(time.Second)
		take()
		if got[crust.EventConnected] != 1 || got[crust.EventMessage] != 1 || got[crust.EventLost] != 1 {
			t.Errorf("connected %d times, %d messages, lost %d times", got[crust.EventConnected], got[crust.EventMessage], got[crust.EventLost])
		}
	})
}
