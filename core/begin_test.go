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

// decider is a peer that decides about links with a service, by hand.
type decider struct {
	t    *testing.T
	s    *crust.Service
	host *simnet.Host
	cfg  *secure.Config
	got  map[crust.EventType]int // events of the service
	text []byte                  // that all messages must have
}

const deciderAt, serviceAt = "203.0.113.2", "203.0.113.1"

func newDecider(t *testing.T) *decider { return newByHand(t, 1) }

// newByHand makes a peer whose id compares with the service's as given: it decides, or
// claims.
func newByHand(t *testing.T, order int) *decider {
	t.Helper()
	world := simnet.New(1)
	s, err := crust.New(crust.On(world.Host(serviceAt), crust.Config{
		Listen: []crust.Endpoint{endpointAt(serviceAt + ":7")}, CloseTimeout: 500 * time.Millisecond,
	}))
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.Generate()
	for err == nil && key.ID().Compare(s.ID()) != order {
		key, err = identity.Generate()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &decider{t: t, s: s, host: world.Host(deciderAt), got: map[crust.EventType]int{}, text: []byte("once"), cfg: &secure.Config{
		Key: key, Network: secure.NewNetwork(""), Seen: new(secure.Seen), Images: new(secure.Images), Ready: func() bool { return true },
		Hello: wire.Hello{Instance: 1, Ciphers: wire.CipherChaCha20Poly1305, LostAfter: 120_000, Resume: 1 << 20},
	}}
}

// dial makes a link to the service.
func (d *decider) dial() *secure.Link {
	d.t.Helper()
	conn, err := d.host.Dial(d.t.Context(), netip.AddrPort{}, netip.MustParseAddrPort(serviceAt+":7"))
	if err != nil {
		d.t.Fatal(err)
	}
	l, err := secure.Initiate(conn, d.cfg, d.s.ID())
	if err != nil {
		d.t.Fatal(err)
	}
	return l
}

// cross makes a link to the service, and has the service dial one.
func (d *decider) cross() (own, theirs *secure.Link) {
	d.t.Helper()
	l, err := d.host.Listen(d.t.Context(), netip.MustParseAddrPort(deciderAt+":9"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer l.Close()
	own = d.dial()
	if err := d.s.ConnectEndpoint(crust.Contact{Endpoint: endpointAt(deciderAt + ":9"), Peer: d.cfg.Key.ID()}, 1); err != nil {
		d.t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		d.t.Fatal(err)
	}
	if theirs, err = secure.Respond(conn, d.cfg); err != nil {
		d.t.Fatal(err)
	}
	return own, theirs
}

// await reads the frame that the service says next about a link.
func (d *decider) await(l *secure.Link, want wire.FrameType) []byte {
	d.t.Helper()
	got, body, err := session.Await(l)
	if got != want || err != nil {
		d.t.Fatalf("frame %d, %v, want frame %d", got, err, want)
	}
	return body
}

// choose chooses a link for a session, and sends its only message behind that.
func (d *decider) choose(l *secure.Link, name wire.SessionID, order uint64) {
	d.t.Helper()
	d.begin(l, wire.Chosen{Session: name, Order: order}.Append(nil))
}

// begin says something about a link, and sends the only message behind that.
func (d *decider) begin(l *secure.Link, first []byte) {
	d.t.Helper()
	if err := session.Tell(l, first); err != nil {
		d.t.Fatal(err)
	}
	if _, err := l.Conn.Write(l.Seal.Seal(nil, wire.Header{Type: wire.TypeFrames}, wire.AppendMessage(nil, 1, d.text))); err != nil {
		d.t.Fatal(err)
	}
}

// refusedAsOver checks that the service says that the session of a link is over.
func (d *decider) refusedAsOver(l *secure.Link) {
	d.t.Helper()
	if reason, err := wire.ParseReason(d.await(l, wire.FrameRefused)); reason != wire.ReasonOver || err != nil {
		d.t.Errorf("refused for reason %d, %v", reason, err)
	}
}

// saw checks how often the service has told of a connection, a message and a loss
// in all.
func (d *decider) saw(connected, messages, lost int) {
	d.t.Helper()
	time.Sleep(time.Second)
	for d.s.EventsPending() {
		b, err := d.s.NextBatch(d.t.Context(), 0)
		if err != nil {
			d.t.Fatal(err)
		}
		for i := range b.Events {
			d.got[b.Events[i].Type]++
			if e := &b.Events[i]; e.Type == crust.EventMessage && !bytes.Equal(e.Data, d.text) {
				d.t.Errorf("the message is %q", e.Data)
			}
		}
		b.Release()
	}
	if c, m, l := d.got[crust.EventConnected], d.got[crust.EventMessage], d.got[crust.EventLost]; c != connected || m != messages || l != lost {
		d.t.Fatalf("connected %d times, %d messages, lost %d times; want %d, %d, %d", c, m, l, connected, messages, lost)
	}
}

// TestEndedSessionStaysSo: the peer has begun a session, whose first link broke
// before it learnt that the session was taken and ended there. It carries the session
// on over a link that was claimed before all that, with every message again.
// They must not come twice, and the peer is told.
func TestEndedSessionStaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDecider(t)
		defer d.s.Close()
		first, second := d.dial(), d.dial()
		defer second.Conn.Close()
		if err := session.Ask(second); err != nil {
			t.Fatal(err)
		}
		d.await(second, wire.FrameClaim)
		d.choose(first, wire.SessionID{1}, 1)
		d.await(first, wire.FrameClaim)
		d.saw(1, 1, 0)
		if err := d.s.Disconnect(d.cfg.Key.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		first.Conn.Close()
		d.saw(1, 1, 1)
		d.choose(second, wire.SessionID{1}, 2)
		d.refusedAsOver(second)
		d.saw(1, 1, 1)
	})
}

// TestDisconnectWhileBothBegin: both sides dial and begin a session at once, and one
// program drops the peer before it knows which link is kept. The peer prefers its
// own link, on which it has begun: it is told that this is over, too.
func TestDisconnectWhileBothBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDecider(t)
		defer d.s.Close()
		own, theirs := d.cross()
		defer own.Conn.Close()
		if claim, err := wire.ParseClaim(d.await(theirs, wire.FrameClaim)); err != nil || !claim.Begun {
			t.Fatalf("claim %+v, %v", claim, err)
		}
		d.saw(1, 0, 0)
		if err := d.s.Disconnect(d.cfg.Key.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := session.Tell(theirs, wire.AppendReason(nil, wire.FrameRefused, wire.ReasonDuplicate)); err != nil {
			t.Fatal(err)
		}
		theirs.Conn.Close()
		d.saw(1, 0, 1) // nothing came within CloseTimeout
		d.choose(own, wire.SessionID{1}, 1)
		d.refusedAsOver(own)
		d.saw(1, 0, 1)
	})
}

// TestRenamedSessionStaysEnded: both sides have begun a session, and the name that
// the decider gave is the one that stays. The peer does not learn of that, nor that the
// session was taken and ended there, since its link breaks before. It carries on the
// session that it has begun over a new link, with every message again. They must not
// come twice, and the peer is told.
func TestRenamedSessionStaysEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newByHand(t, -1)
		defer d.s.Close()
		own, theirs := d.cross()
		d.await(theirs, wire.FrameChosen)
		d.saw(1, 0, 0)
		if err := session.Tell(theirs, wire.AppendReason(nil, wire.FrameRefused, wire.ReasonDuplicate)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the claim comes by another link, which keeps no order with this one
		claim := wire.Claim{Seq: 1, Begun: true, Session: wire.SessionID{1}}
		d.begin(own, claim.Append(nil))
		d.await(own, wire.FrameChosen)
		d.saw(1, 1, 0)
		if err := d.s.Disconnect(d.cfg.Key.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		own.Conn.Close()
		theirs.Conn.Close()
		d.saw(1, 1, 1)
		again := d.dial()
		claim.Seq = 2
		d.begin(again, claim.Append(nil))
		d.refusedAsOver(again)
		d.saw(1, 1, 1)
	})
}

// TestRenamedInTheOtherOrder: as before, but the claim comes sooner than the refusal of the
// other link, so that each side refuses the link of the other one. The session that is ended
// then had taken nothing of the peer: what the peer has begun is another one, whose message
// comes once.
func TestRenamedInTheOtherOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newByHand(t, -1)
		defer d.s.Close()
		own, theirs := d.cross()
		d.await(theirs, wire.FrameChosen)
		d.saw(1, 0, 0)
		claim := wire.Claim{Seq: 1, Begun: true, Session: wire.SessionID{1}}
		d.begin(own, claim.Append(nil))
		if reason, err := wire.ParseReason(d.await(own, wire.FrameRefused)); reason != wire.ReasonDuplicate || err != nil {
			t.Fatalf("refused for reason %d, %v", reason, err)
		}
		if err := session.Tell(theirs, wire.AppendReason(nil, wire.FrameRefused, wire.ReasonDuplicate)); err != nil {
			t.Fatal(err)
		}
		d.saw(1, 0, 0) // both wait for another link
		if err := d.s.Disconnect(d.cfg.Key.ID()); err != nil {
			t.Fatal(err)
		}
		own.Conn.Close()
		theirs.Conn.Close()
		d.saw(1, 0, 1)
		again := d.dial()
		defer again.Conn.Close()
		claim.Seq = 2
		d.begin(again, claim.Append(nil))
		d.await(again, wire.FrameChosen)
		d.saw(2, 1, 1)
	})
}
