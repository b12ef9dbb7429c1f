package crust_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// couple is two connected services in virtual time, of which a has dialled b.
// With greater, a has the greater peer id, and decides.
func couple(t *testing.T, greater bool, ca, cb crust.Config, f func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 5 * time.Millisecond})
		ha, hb := internet.Host("10.0.0.1"), internet.Host("10.0.0.2")
		keys := sortedKeys(t, 2)
		ca.Identity, cb.Identity = keys[0], keys[1]
		if greater {
			ca.Identity, cb.Identity = keys[1], keys[0]
		}
		ca.Listen, cb.Listen = []crust.Endpoint{endpointAt("0.0.0.0:1")}, []crust.Endpoint{endpointAt("0.0.0.0:1")}
		a, b := newNode(t, crust.On(ha, ca)), newNode(t, crust.On(hb, cb))
		defer b.Close()
		defer a.Close()
		if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: b.ID()}, 1); err != nil {
			t.Fatal(err)
		}
		a.next(crust.EventConnected)
		b.next(crust.EventConnected)
		f(t, internet, ha, hb, a, b)
	})
}

// both runs a test with the dialling side claiming, and deciding.
func both(t *testing.T, ca, cb crust.Config, f func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node)) {
	for name, greater := range map[string]bool{"claiming": false, "deciding": true} {
		t.Run(name, func(t *testing.T) { couple(t, greater, ca, cb, f) })
	}
}

// TestResume: a session whose link breaks is suspended and resumed over another
// one, and what was sent before, meanwhile and after comes once and in order.
func TestResume(t *testing.T) {
	both(t, crust.Config{}, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		for round := range uint64(20) {
			for i, n := range []*node{a, b} {
				if err := n.Send([]*node{b, a}[i].ID(), filled(100_000, 3*round), 1); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Duration(round) * time.Millisecond)
			net.Reset(ha, hb)
			for i, n := range []*node{a, b} {
				if err := n.Send([]*node{b, a}[i].ID(), filled(10, 3*round+1), 1); err != nil {
					t.Fatal(err)
				}
				p, ok := n.Peer([]*node{b, a}[i].ID())
				if !ok || p.QueuedBytes == 0 && p.UnackedBytes == 0 {
					t.Fatalf("round %d: %+v", round, p)
				}
			}
			for i, n := range []*node{a, b} {
				other := []*node{b, a}[i]
				var got []uint64
				suspended, resumed := 0, 0
				for len(got) < 2 || resumed == 0 {
					switch e := n.next(crust.EventMessage, crust.EventSuspended, crust.EventResumed); e.Type {
					case crust.EventMessage:
						got = append(got, binary.BigEndian.Uint64(e.Data))
					case crust.EventSuspended:
						if suspended++; e.Peer != other.ID() || e.Code() != crust.CodeReset || resumed > 0 {
							t.Fatalf("%+v: %v", e, e.Err())
						}
					case crust.EventResumed:
						if resumed++; e.Peer != other.ID() || e.Endpoint().Transport != crust.TCP || e.How() == 0 {
							t.Fatalf("%+v", e)
						}
					}
				}
				if want := []uint64{3 * round, 3*round + 1}; !slices.Equal(got, want) || suspended > 1 || resumed > 1 {
					t.Fatalf("round %d: %d, %d times suspended, %d resumed", round, got, suspended, resumed)
				}
			}
			if pa, _ := a.Peer(b.ID()); pa.Suspended || pa.Resumed != round+1 {
				t.Fatalf("round %d: %+v", round, pa)
			}
		}
		if a.Stats().SessionsTotal != 1 || b.Stats().SessionsTotal != 1 {
			t.Fatal("more than one session")
		}
		if pa, _ := a.Peer(b.ID()); pa.Resumed == 0 || a.Stats().Resumptions != pa.Resumed {
			t.Errorf("%d resumptions, want the %d of the only session", a.Stats().Resumptions, pa.Resumed)
		}
	})
}

// quietly is a program that notes what it sees of one peer.
type quietly struct {
	mu     sync.Mutex
	last   map[uint8]uint64
	count  map[crust.EventType]int
	errors []string
	done   chan struct{}
}

func watch(n *node) *quietly {
	q := &quietly{last: map[uint8]uint64{}, count: map[crust.EventType]int{}, done: make(chan struct{})}
	go func() {
		defer close(q.done)
		for e := range n.Events(context.Background()) {
			q.mu.Lock()
			q.count[e.Type]++
			if e.Type == crust.EventLost && e.Code() != crust.CodeDisconnected {
				q.errors = append(q.errors, e.Err().Error())
			}
			if e.Type == crust.EventMessage {
				number := binary.BigEndian.Uint64(e.Data)
				if number != q.last[e.Priority]+1 || !bytes.Equal(e.Data, filled(len(e.Data), number)) {
					q.errors = append(q.errors, fmt.Sprintf("message %d of %d bytes of priority %d after %d", number, len(e.Data), e.Priority, q.last[e.Priority]))
				}
				q.last[e.Priority] = number
			}
			q.mu.Unlock()
		}
	}()
	return q
}

// TestManyCuts: whatever breaks whenever, in both directions, with pieces and
// priorities, also while a link is being made: all comes, once, in order, and
// nobody is lost.
func TestManyCuts(t *testing.T) {
	for seed := range uint64(slowly(40)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cfg := crust.Config{Heartbeat: time.Second, LostAfter: 4 * time.Second, ResumeWindow: time.Hour, ResendBuffer: 512 << 10}
			couple(t, seed%2 == 0, cfg, cfg, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
				net.SetLink(ha, hb, simnet.Link{Latency: time.Duration(seed%7) * time.Millisecond, Bandwidth: 20 << 20})
				r := rand.New(rand.NewPCG(seed, 1))
				qa, qb := watch(a), watch(b)
				var wg sync.WaitGroup
				var sent [2][3]uint64
				for i, n := range []*node{a, b} {
					mine := rand.New(rand.NewPCG(seed, uint64(i+2)))
					wg.Go(func() {
						for range 300 {
							p := mine.IntN(3)
							size := 8 + mine.IntN(100)
							if mine.IntN(5) == 0 {
								size = 8 + mine.IntN(300_000)
							}
							if err := n.SendWait(t.Context(), []*node{b, a}[i].ID(), filled(size, sent[i][p]+1), uint8(p)); err != nil {
								t.Error(err)
								return
							}
							sent[i][p]++
							time.Sleep(time.Duration(mine.IntN(4)) * time.Millisecond)
						}
					})
				}
				for range 30 {
					time.Sleep(time.Duration(r.IntN(60_000)) * time.Microsecond)
					switch r.IntN(6) {
					case 0:
						net.Cut(ha, hb)
						time.Sleep(time.Duration(r.IntN(6000)) * time.Millisecond)
						net.Heal(ha, hb)
					case 1:
						net.Silence(ha, hb)
						time.Sleep(time.Duration(r.IntN(6000)) * time.Millisecond)
						net.Heal(ha, hb)
					default:
						net.Reset(ha, hb)
					}
				}
				wg.Wait()
				time.Sleep(time.Minute)
				for i, q := range []*quietly{qb, qa} {
					q.mu.Lock()
					for p, n := range sent[i] {
						if q.last[uint8(p)] != n {
							t.Errorf("%d messages of priority %d were sent, the last that came is %d", n, p, q.last[uint8(p)])
						}
					}
					if len(q.errors) > 0 || q.count[crust.EventLost] > 0 || q.count[crust.EventResumed] == 0 || q.count[crust.EventSuspended] > q.count[crust.EventResumed] {
						t.Errorf("%v: %q", q.count, q.errors)
					}
					q.mu.Unlock()
				}
				if p, _ := a.Peer(b.ID()); p.UnackedBytes != 0 || p.QueuedBytes != 0 {
					t.Errorf("%d bytes are kept when all is quiet", p.UnackedBytes)
				}
				a.Close()
				b.Close()
				<-qa.done
				<-qb.done
			})
		})
	}
}

// TestBulkThroughCuts: a transfer goes on over 200 broken links, and what is kept
// stays within its bound.
func TestBulkThroughCuts(t *testing.T) {
	const bound = 1 << 20
	couple(t, true, crust.Config{ResendBuffer: bound}, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		net.SetLink(ha, hb, simnet.Link{Latency: 2 * time.Millisecond, Bandwidth: 12 << 20})
		qa, qb := watch(a), watch(b)
		const messages = 500
		done := make(chan struct{})
		go func() {
			defer close(done)
			for k := range uint64(messages) {
				if err := a.SendWait(t.Context(), b.ID(), filled(250_000, k+1), 1); err != nil {
					t.Error(err)
				}
			}
		}()
		most := 0
		r := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			for p, _ := a.Peer(b.ID()); p.Suspended; p, _ = a.Peer(b.ID()) {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Duration(r.IntN(30_000)) * time.Microsecond)
			net.Reset(ha, hb)
			time.Sleep(time.Millisecond)
			p, _ := a.Peer(b.ID())
			most = max(most, p.UnackedBytes)
		}
		<-done
		time.Sleep(time.Minute)
		qb.mu.Lock()
		if qb.last[1] != messages || len(qb.errors) > 0 || qb.count[crust.EventLost] > 0 {
			t.Errorf("the last message is %d; %v, %q", qb.last[1], qb.count, qb.errors)
		}
		qb.mu.Unlock()
		if most == 0 || most > bound {
			t.Errorf("%d bytes were kept", most)
		}
		if p, _ := a.Peer(b.ID()); p.Resumed < 200 {
			t.Errorf("resumed %d times", p.Resumed)
		}
		a.Close()
		b.Close()
		<-qa.done
		<-qb.done
	})
}

// TestWindowOver: a peer that cannot be reached is lost when the lesser window is
// over, with the cause, and with how much was not delivered.
func TestWindowOver(t *testing.T) {
	both(t, crust.Config{ResumeWindow: 10 * time.Second}, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		time.Sleep(30 * time.Second) // all is acknowledged
		net.Cut(ha, hb)
		net.Reset(ha, hb)
		began := time.Now()
		for i, n := range []*node{a, b} {
			if e := n.next(crust.EventSuspended); e.Code() != crust.CodeReset {
				t.Fatal(e.Err())
			}
			if p, ok := n.Peer([]*node{b, a}[i].ID()); !ok || !p.Suspended {
				t.Fatal("it does not say that it is suspended")
			}
		}
		for range 3 {
			if err := a.Send(b.ID(), []byte("too late"), 1); err != nil {
				t.Fatal(err)
			}
		}
		for i, n := range []*node{a, b} {
			e := n.next(crust.EventLost)
			if took := time.Since(began); e.Code() != crust.CodeReset || took < 10*time.Second || took > 11*time.Second || e.Count() != []uint64{3, 0}[i] {
				t.Fatalf("%v after %v, with %d messages", e.Err(), took, e.Count())
			}
			if !strings.Contains(e.Err().Error(), "10s") {
				t.Fatalf("%q does not say how long", e.Err())
			}
		}
		net.Heal(ha, hb)
		time.Sleep(time.Minute)
		if a.EventsPending() || b.EventsPending() {
			t.Fatal("something happened after the loss")
		}
	})
}

// TestNoResume: when one side does not want it, a session is lost with its link.
func TestNoResume(t *testing.T) {
	both(t, crust.Config{NoResume: true}, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		if err := a.Send(b.ID(), filled(100_000, 1), 1); err != nil {
			t.Fatal(err)
		}
		b.next(crust.EventMessage)
		if p, _ := a.Peer(b.ID()); p.UnackedBytes != 0 {
			t.Fatal("something is kept")
		}
		net.Reset(ha, hb)
		for _, n := range []*node{a, b} {
			if e := n.next(crust.EventLost); e.Code() != crust.CodeReset {
				t.Fatal(e.Err())
			}
		}
	})
}

// TestOneSideNotices: the dialling side finds the link broken, the other one does
// not until there is a new link, or the end of the old one shows.
func TestOneSideNotices(t *testing.T) {
	both(t, crust.Config{Heartbeat: time.Second, LostAfter: 3 * time.Second}, crust.Config{LostAfter: time.Hour}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		time.Sleep(10 * time.Second)
		net.Silence(ha, hb)
		if err := b.Send(a.ID(), []byte("into the void"), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.next(crust.EventSuspended); e.Code() != crust.CodePeerSilent {
			t.Fatal(e.Err())
		}
		net.Heal(ha, hb)
		a.next(crust.EventResumed)
		if e := b.next(crust.EventResumed, crust.EventSuspended); e.Type == crust.EventSuspended {
			b.next(crust.EventResumed)
		}
		if e := a.next(crust.EventMessage); string(e.Data) != "into the void" {
			t.Fatalf("%q", e.Data)
		}
	})
}

// TestRestartWithinWindow: a peer that comes back as a new service while its old
// session is suspended is lost and then connected, without being asked for.
func TestRestartWithinWindow(t *testing.T) {
	both(t, crust.Config{}, crust.Config{CloseTimeout: time.Second}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		net.Cut(ha, hb) // the old life ends without a word
		net.Reset(ha, hb)
		a.next(crust.EventSuspended)
		key := b.Service.ID()
		b.Close()
		keys := sortedKeys(t, 2)
		again := keys[slices.IndexFunc(keys, func(k *identity.Key) bool { return k.ID() == key })]
		second := newNode(t, crust.On(hb, crust.Config{Identity: again, Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
		defer second.Close()
		net.Heal(ha, hb)
		if e := a.next(crust.EventLost); e.Peer != key || e.Code() != crust.CodeReplaced {
			t.Fatal(e.Err())
		}
		if e := a.next(crust.EventConnected); e.Peer != key || e.Token != 0 {
			t.Fatalf("%+v", e)
		}
		second.next(crust.EventConnected)
		if err := second.Send(a.ID(), []byte("here again"), 0); err != nil {
			t.Fatal(err)
		}
		if e := a.next(crust.EventMessage); string(e.Data) != "here again" {
			t.Fatalf("%q", e.Data)
		}
	})
}

// TestEndWhileSuspended: a side that ends a session without a link does so within
// CloseTimeout, and says how much it could not deliver; the other side hears of it
// when it dials, and does not come back by itself.
func TestEndWhileSuspended(t *testing.T) {
	for _, how := range []string{"disconnect", "close"} {
		for _, queued := range []uint64{0, 2} {
			for _, greater := range []bool{false, true} {
				t.Run(fmt.Sprint(how, " with ", queued, " messages, deciding ", greater), func(t *testing.T) {
					couple(t, greater, crust.Config{}, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
						endWhileSuspended(t, net, ha, hb, a, b, how, queued)
					})
				})
			}
		}
	}
}

func endWhileSuspended(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node, how string, queued uint64) {
	time.Sleep(30 * time.Second) // all is acknowledged
	net.Cut(ha, hb)
	net.Reset(ha, hb)
	a.next(crust.EventSuspended)
	b.next(crust.EventSuspended)
	for range queued {
		if err := b.Send(a.ID(), []byte("never"), 1); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if how == "disconnect" {
		if err := b.Disconnect(a.ID()); err != nil {
			t.Fatal(err)
		}
	} else {
		b.Close()
	}
	e := b.next(crust.EventLost)
	took, most := time.Since(began), time.Duration(0)
	if queued > 0 {
		most = 5 * time.Second
	}
	if e.Code() != crust.CodeDisconnected || e.Count() != queued || took > most+100*time.Millisecond {
		t.Fatalf("%v after %v, with %d messages", e.Err(), took, e.Count())
	}
	net.Heal(ha, hb)
	e, _ = a.lostAfter(t)
	if how == "disconnect" && e.Code() != crust.CodeDisconnected {
		t.Fatal(e.Err())
	}
	time.Sleep(time.Minute)
	if len(a.Peers()) != 0 || a.EventsPending() || how == "disconnect" && (len(b.Peers()) != 0 || b.EventsPending()) {
		t.Fatal("it came back")
	}
}

// TestCloseWaitsForResumption: what is queued when a service with a suspended
// session closes is delivered if a link comes in time.
func TestCloseWaitsForResumption(t *testing.T) {
	both(t, crust.Config{}, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		net.Cut(ha, hb)
		net.Reset(ha, hb)
		a.next(crust.EventSuspended)
		if err := a.Send(b.ID(), filled(300_000, 5), 1); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { a.Close(); close(done) }()
		time.Sleep(time.Second)
		net.Heal(ha, hb)
		b.next(crust.EventSuspended)
		b.next(crust.EventResumed)
		if e := b.next(crust.EventMessage); !bytes.Equal(e.Data, filled(300_000, 5)) {
			t.Fatal("another message")
		}
		if e := b.next(crust.EventLost); e.Code() != crust.CodeDisconnected {
			t.Fatal(e.Err())
		}
		<-done
	})
}

// TestConnectToSuspended: a Connect to a peer whose session is suspended helps it
// to a link, and is answered as to one that is connected.
func TestConnectToSuspended(t *testing.T) {
	both(t, crust.Config{}, crust.Config{}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		// b has not dialled: without the Connect it could only wait.
		net.Silence(ha, hb)
		net.Reset(ha, hb)
		b.next(crust.EventSuspended)
		a.next(crust.EventSuspended)
		time.Sleep(11 * time.Second)
		net.Heal(ha, hb)
		if err := b.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.1:1"), Peer: a.ID()}, 9); err != nil {
			t.Fatal(err)
		}
		for seen := 0; seen < 2; seen++ {
			switch e := b.next(crust.EventAlreadyConnected, crust.EventResumed); {
			case e.Type == crust.EventAlreadyConnected && (e.Token != 9 || e.Peer != a.ID()):
				t.Fatalf("%+v", e)
			}
		}
		a.next(crust.EventResumed)
		if n := b.Stats().SessionsTotal; n != 1 {
			t.Fatalf("%d sessions", n)
		}
	})
}

// TestSendReceipt: the token comes back when the peer has the message, or when the
// peer is lost first.
func TestSendReceipt(t *testing.T) {
	both(t, crust.Config{}, crust.Config{ResumeWindow: 5 * time.Second}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		began := time.Now()
		if err := a.SendReceipt(b.ID(), []byte("did you get it"), 1, 77); err != nil {
			t.Fatal(err)
		}
		if e := a.next(crust.EventDelivered); e.Token != 77 || e.Peer != b.ID() || e.Err() != nil || time.Since(began) > 20*time.Millisecond {
			t.Fatalf("%+v: %v after %v", e, e.Err(), time.Since(began))
		}
		net.Cut(ha, hb)
		if err := a.SendReceipt(b.ID(), []byte("and this"), 1, 78); err != nil {
			t.Fatal(err)
		}
		net.Reset(ha, hb)
		net.Heal(ha, hb)
		a.next(crust.EventSuspended)
		a.next(crust.EventResumed)
		if e := a.next(crust.EventDelivered); e.Token != 78 || e.Err() != nil {
			t.Fatalf("%+v: %v", e, e.Err())
		}
		net.Cut(ha, hb)
		net.Reset(ha, hb)
		a.next(crust.EventSuspended)
		if err := a.SendReceipt(b.ID(), []byte("too late"), 1, 79); err != nil {
			t.Fatal(err)
		}
		if e := a.next(crust.EventDelivered); e.Token != 79 || e.Code() != crust.CodeReset {
			t.Fatalf("%+v: %v", e, e.Err())
		}
		a.next(crust.EventLost)
		if err := a.SendReceipt(b.ID(), nil, 1, 80); !errors.Is(err, crust.CodeUnknownPeer) {
			t.Fatal(err)
		}
	})
}

// tap is a network whose dialled connections are recorded.
type tap struct {
	*simnet.Host
	mu    sync.Mutex
	conns []*tapped
}

type tapped struct {
	*simnet.Conn
	mu   sync.Mutex
	sent []byte
}

func (h *tap) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	c, err := h.Host.Dial(ctx, local, remote)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &tapped{Conn: c.(*simnet.Conn)}
	h.conns = append(h.conns, t)
	return t, nil
}

func (c *tapped) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, p[:n]...)
	return n, err
}

func (c *tapped) TryWrite(p []byte) (int, error) {
	n, err := c.Conn.TryWrite(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, p[:n]...)
	return n, err
}

// TestReplayedResumption: all bytes of a link that resumed a session, sent again
// from elsewhere, get no answer and change nothing, while the session has a link
// and while it is suspended.
func TestReplayedResumption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: time.Millisecond})
		ha, hb, attacker := &tap{Host: internet.Host("10.0.0.1")}, internet.Host("10.0.0.2"), internet.Host("10.0.0.66")
		a := newNode(t, crust.On(ha, crust.Config{NoListen: true}))
		b := newNode(t, crust.On(hb, crust.Config{Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
		defer b.Close()
		defer a.Close()
		if err := a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: b.ID()}, 1); err != nil {
			t.Fatal(err)
		}
		a.next(crust.EventConnected)
		b.next(crust.EventConnected)
		internet.Reset(ha.Host, hb)
		a.next(crust.EventSuspended)
		a.next(crust.EventResumed)
		b.next(crust.EventSuspended)
		b.next(crust.EventResumed)
		if err := a.Send(b.ID(), []byte("pay once"), 0); err != nil {
			t.Fatal(err)
		}
		b.next(crust.EventMessage)
		time.Sleep(time.Minute)
		ha.mu.Lock()
		link := ha.conns[1]
		ha.mu.Unlock()
		for _, suspended := range []bool{false, true} {
			if suspended {
				internet.Cut(ha.Host, hb)
				internet.Reset(ha.Host, hb)
				b.next(crust.EventSuspended)
			}
			c, err := attacker.Dial(t.Context(), netip.AddrPort{}, netip.MustParseAddrPort("10.0.0.2:1"))
			if err != nil {
				t.Fatal(err)
			}
			link.mu.Lock()
			recording := bytes.Clone(link.sent)
			link.mu.Unlock()
			if _, err := c.Write(recording); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(15 * time.Second)) //nolint:errcheck // it is a simulation
			if n, err := c.Read(make([]byte, 100)); n != 0 || err == nil {
				t.Fatalf("%d bytes of answer, %v", n, err)
			}
			c.Close()
			if p, ok := b.Peer(a.ID()); !ok || p.Suspended != suspended || p.Resumed != 1 || b.EventsPending() {
				t.Fatalf("the replay did something: %+v", p)
			}
		}
		internet.Heal(ha.Host, hb)
		b.next(crust.EventResumed)
		if err := a.Send(b.ID(), []byte("still me"), 0); err != nil {
			t.Fatal(err)
		}
		if e := b.next(crust.EventMessage); string(e.Data) != "still me" {
			t.Fatalf("%q", e.Data)
		}
	})
}

// TestNoAcceptResumes: a service that takes no sessions that peers begin lets its
// own be resumed by whoever dials, and still takes no new one, not even from a peer
// that has restarted.
func TestNoAcceptResumes(t *testing.T) {
	both(t, crust.Config{}, crust.Config{CloseTimeout: time.Second}, func(t *testing.T, net *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		b.SetAccept(false)
		net.Reset(ha, hb)
		for _, n := range []*node{a, b} {
			n.next(crust.EventSuspended)
			n.next(crust.EventResumed)
		}
		net.Cut(ha, hb)
		net.Reset(ha, hb)
		b.next(crust.EventSuspended)
		key := a.Service.ID()
		a.Close()
		net.Heal(ha, hb)
		keys := sortedKeys(t, 2)
		again := keys[slices.IndexFunc(keys, func(k *identity.Key) bool { return k.ID() == key })]
		second := newNode(t, crust.On(ha, crust.Config{Identity: again, NoListen: true}))
		defer second.Close()
		if err := second.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: b.ID()}, 3); err != nil {
			t.Fatal(err)
		}
		if e := second.next(crust.EventConnectFailed); e.Code() != crust.CodeNotAllowed {
			t.Fatal(e.Err())
		}
		if e, _ := b.lostAfter(t); e.Peer != key {
			t.Fatalf("%+v", e)
		}
		if b.EventsPending() || len(b.Peers()) != 0 {
			t.Fatal("there is another session")
		}
	})
}
