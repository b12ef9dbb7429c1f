package crust_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// link connects two nodes and takes the events of that.
func link(t testing.TB, a, b *node) {
	t.Helper()
	if err := a.Connect(b.info(), 1); err != nil {
		t.Fatal(err)
	}
	a.next(crust.EventConnected)
	b.next(crust.EventConnected)
}

// filled returns a message of a size whose bytes follow from a number.
func filled(size int, number uint64) []byte {
	m := make([]byte, size)
	for i := range m {
		m[i] = byte(uint64(i)*7 + number*31)
	}
	if size >= 8 {
		binary.BigEndian.PutUint64(m, number)
	}
	return m
}

// TestMesh: ten services, each pair connected by whoever comes first, 100
// messages of 20 KiB each way per pair, in order, none lost or doubled.
func TestMesh(t *testing.T) {
	const services, messages, size = 10, 100, 20 << 10
	nodes := make([]*node, services)
	for i := range nodes {
		nodes[i] = newNode(t, crust.Config{})
	}
	infos := make([][]byte, services)
	for i, n := range nodes {
		infos[i] = n.info()
	}
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { // both sides of each pair connect
			for j := range nodes {
				if i != j {
					if err := n.Connect(infos[j], uint64(j+1)); err != nil {
						t.Error(err)
					}
				}
			}
		})
		wg.Go(func() { meshNode(t, n, services-1, messages, size) })
	}
	wg.Wait()
}

func meshNode(t *testing.T, n *node, peers, messages, size int) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var senders sync.WaitGroup
	defer senders.Wait()
	got, connected, answers := map[crust.PeerID]uint64{}, map[crust.PeerID]bool{}, 0
	for left := peers * messages; left > 0 || answers < peers; {
		b, err := n.NextBatch(ctx, 0)
		if err != nil {
			t.Errorf("%d messages missing: %v", left, err)
			return
		}
		for _, e := range b.Events {
			switch e.Type {
			case crust.EventConnected:
				if connected[e.Peer] {
					t.Errorf("connected twice to %s", e.Peer.Short())
				}
				connected[e.Peer] = true
				if e.Token != 0 {
					answers++
				}
				senders.Go(func() {
					for k := range uint64(messages) {
						if err := n.SendWait(ctx, e.Peer, filled(size, k), 2); err != nil {
							t.Error(err)
						}
					}
				})
			case crust.EventAlreadyConnected:
				answers++
			case crust.EventMessage:
				if !connected[e.Peer] {
					t.Error("a message before its connection")
				}
				if !bytes.Equal(e.Data, filled(size, got[e.Peer])) {
					t.Errorf("message %d of %s is wrong", got[e.Peer], e.Peer.Short())
				}
				got[e.Peer]++
				left--
			case crust.EventConnectFailed, crust.EventLost, crust.EventMessagesDropped:
				t.Errorf("%v: %v", e.Type, e.Err())
			}
		}
		b.Release()
	}
}

// TestFarewell: 1,000 one-byte messages followed at once by an orderly close all
// arrive, before the loss, by Disconnect and by closing the service.
func TestFarewell(t *testing.T) {
	for name, end := range map[string]func(a *node, b crust.PeerID){
		"disconnect": func(a *node, b crust.PeerID) { a.Disconnect(b) },
		"close":      func(a *node, _ crust.PeerID) { a.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
			link(t, a, b)
			for i := range 1000 {
				if err := a.Send(b.ID(), []byte{byte(i)}, 0); err != nil {
					t.Fatal(err)
				}
			}
			end(a, b.ID())
			for i := range 1000 {
				if e := b.next(crust.EventMessage); len(e.Data) != 1 || e.Data[0] != byte(i) {
					t.Fatalf("message %d is %v", i, e.Data)
				}
			}
			if e := b.next(crust.EventLost); e.Code() != crust.CodeDisconnected {
				t.Fatal(e.Err())
			}
		})
	}
}

// TestFullQueue: a peer that takes nothing makes its own sender wait, with an
// error that says so and an event when there is room, and nobody else.
func TestFullQueue(t *testing.T) {
	a := newNode(t, crust.Config{SendQueue: crust.MaxMessage})
	slow, quick := newNode(t, crust.Config{EventQueue: 1 << 20}), newNode(t, crust.Config{})
	link(t, a, slow)
	link(t, a, quick)
	sent := uint64(0)
	for {
		err := a.Send(slow.ID(), filled(60<<10, sent), 1)
		if errors.Is(err, crust.CodeWouldBlock) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		sent++
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.SendWait(ctx, slow.ID(), filled(60<<10, sent), 1); err != nil && !errors.Is(err, crust.CodeCanceled) {
		t.Fatal(err)
	} else if err == nil {
		sent++
	}
	for i := range uint64(100) {
		if err := a.Send(quick.ID(), filled(1000, i), 1); err != nil {
			t.Fatal(err)
		}
		if e := quick.next(crust.EventMessage); !bytes.Equal(e.Data, filled(1000, i)) {
			t.Fatal("the quick peer got something else")
		}
	}
	for i := range sent {
		if e := slow.next(crust.EventMessage); !bytes.Equal(e.Data, filled(60<<10, i)) {
			t.Fatalf("message %d is wrong", i)
		}
	}
	if e := a.next(crust.EventWritable); e.Peer != slow.ID() {
		t.Fatal("writable for another peer")
	}
	if err := a.Send(slow.ID(), []byte("more"), 1); err != nil {
		t.Fatal(err)
	}
}

// TestErrors: wrong use gets one clear sentence and the right code.
func TestErrors(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{NetworkName: "another", HandshakeTimeout: time.Second})
	stranger := b.ID()
	own := crust.Contact{Endpoint: a.Listeners()[0]}
	forged := bytes.Clone(b.info())
	forged[10] ^= 1
	for name, c := range map[string]struct {
		err  error
		code crust.Code
	}{
		"unknown peer":      {a.Send(stranger, nil, 0), crust.CodeUnknownPeer},
		"disconnect nobody": {a.Disconnect(stranger), crust.CodeUnknownPeer},
		"self":              {a.Connect(a.info(), 1), crust.CodeSelf},
		"malformed info":    {a.Connect([]byte("hello"), 1), crust.CodeBadInfo},
		"forged info":       {a.Connect(forged, 1), crust.CodeBadInfo},
		"no port":           {a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("10.0.0.1:0")}, 1), crust.CodeInvalid},
		"tracer":            {a.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("tracer://10.0.0.1:5")}, 1), crust.CodeUnsupported},
	} {
		if !errors.Is(c.err, c.code) || c.err.Error() == "" {
			t.Errorf("%s gave %v, want %v", name, c.err, c.code)
		}
	}
	if err := a.ConnectEndpoint(own, 5); err != nil {
		t.Fatal(err)
	}
	if e := a.next(crust.EventConnectFailed); e.Code() != crust.CodeSelf || e.Token != 5 {
		t.Fatal(e.Err())
	}
	if err := b.ConnectEndpoint(own, 6); err != nil {
		t.Fatal(err)
	}
	if e := b.next(crust.EventConnectFailed); e.Code() != crust.CodeNetworkName || e.Token != 6 {
		t.Fatal(e.Code(), e.Err())
	}
	_, err := a.Listen(a.Listeners()[0])
	if !errors.Is(err, crust.CodeAddressInUse) {
		t.Fatal(err)
	}
	a.Close()
	if err := a.Send(stranger, nil, 0); !errors.Is(err, crust.CodeClosed) {
		t.Fatal(err)
	}
	if _, err := crust.New(crust.Config{LostAfter: time.Second, Heartbeat: time.Second}); !errors.Is(err, crust.CodeInvalid) {
		t.Fatal(err)
	}
}

func endpointAt(text string) crust.Endpoint {
	ep, err := crust.ParseEndpoint(text)
	if err != nil {
		panic(err)
	}
	return ep
}

// TestBootstrap: dead, deaf, foreign and refusing contacts beside a live one:
// the live one wins, and is the only session.
func TestBootstrap(t *testing.T) {
	live := newNode(t, crust.Config{})
	refusing := newNode(t, crust.Config{NoAccept: true})
	foreign := newNode(t, crust.Config{NetworkName: "other"})
	wrong := newNode(t, crust.Config{})
	dead := endpointAt("127.0.0.1:1")
	contacts := []crust.Contact{
		{Endpoint: dead}, {Endpoint: refusing.Listeners()[0]}, {Endpoint: foreign.Listeners()[0]},
		{Endpoint: wrong.Listeners()[0], Peer: live.ID()}, {Endpoint: live.Listeners()[0]},
	}
	for round := range 20 {
		n := newNode(t, crust.Config{Contacts: contacts, AppID: fmt.Append(nil, round)})
		if err := n.Bootstrap(9); err != nil {
			t.Fatal(err)
		}
		if err := n.Bootstrap(10); !errors.Is(err, crust.CodeState) && err != nil {
			t.Fatal(err)
		}
		if e := n.next(crust.EventConnected); e.Peer != live.ID() {
			t.Fatalf("connected to %v", e)
		}
		if e := n.next(crust.EventBootstrapped); e.Token != 9 || e.Peer != live.ID() || e.Endpoint() != live.Listeners()[0] {
			t.Fatalf("bootstrapped %v", e)
		}
		live.next(crust.EventConnected)
		n.Close()
		live.next(crust.EventLost)
	}
	for _, n := range []*node{refusing, foreign, wrong} {
		if b, _ := n.TryNextBatch(0); len(b.Events) != 1 || b.Events[0].Type != crust.EventListenerStarted {
			t.Fatalf("a contact that lost saw %v", b.Events)
		}
	}
	lonely := newNode(t, crust.Config{})
	if err := lonely.Bootstrap(3); err != nil {
		t.Fatal(err)
	}
	if e := lonely.next(crust.EventBootstrapFailed); e.Token != 3 || e.Code() != crust.CodeNoEndpoint {
		t.Fatal(e.Err())
	}
}

// TestCloseUnread: a program that reads no more closes at once, although its
// queue is full and a peer goes on sending.
func TestCloseUnread(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{CloseTimeout: 20 * time.Second})
	link(t, a, b)
	go func() {
		for a.SendWait(context.Background(), b.ID(), make([]byte, 50_000), 1) == nil {
		}
	}()
	for b.Stats().BackpressurePauses == 0 {
		runtime.Gosched()
	}
	began := time.Now()
	b.Close()
	if took := time.Since(began); took > 10*time.Second {
		t.Fatalf("closing took %v", took)
	}
	if e := a.next(crust.EventLost); e.Code() != crust.CodeDisconnected {
		t.Fatal(e.Err())
	}
}

// TestAnswersBeyondAllQueues: a program that answers each message before it takes
// the next one goes on, however much its peer sends meanwhile: what the peer has
// received of the answers lies behind messages for which the program has no room.
func TestAnswersBeyondAllQueues(t *testing.T) {
	for name, transport := range map[string]crust.Transport{"tcp": crust.TCP, "utp": crust.UTP} {
		t.Run(name, func(t *testing.T) {
			const messages, size, answer = 200, 50_000, 200_000
			listen := []crust.Endpoint{{Transport: transport, Addr: netip.MustParseAddrPort("127.0.0.1:0")}}
			a := newNode(t, crust.Config{Listen: listen})
			b := newNode(t, crust.Config{Listen: listen, EventQueue: 1 << 20})
			link(t, a, b)
			askAndAnswer(t, a, b, messages, size, answer, 30*time.Second)
		})
	}
}

// askAndAnswer has one node send numbered messages, and the other, before it takes the next, an
// answer to each: all come, in order, within a time.
func askAndAnswer(t *testing.T, a, b *node, messages uint64, size, answer int, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() {
		for k := range messages {
			if err := a.SendWait(ctx, b.ID(), filled(size, k), 1); err != nil {
				t.Error("question: ", err)
				return
			}
		}
	})
	group.Go(func() {
		for k := uint64(0); k < messages; {
			batch, err := b.NextBatch(ctx, 0)
			if err != nil {
				t.Error("next question: ", err)
				return
			}
			for range batch.Events {
				if err := b.SendWait(ctx, a.ID(), filled(answer, k), 1); err != nil {
					t.Errorf("answer %d: %v", k, err)
					return
				}
				k++
			}
			batch.Release()
		}
	})
	for k := uint64(0); k < messages; {
		batch, err := a.NextBatch(ctx, 0)
		if err != nil {
			t.Fatalf("answer %d: %v", k, err)
		}
		for _, e := range batch.Events {
			if e.Type != crust.EventMessage || !bytes.Equal(e.Data, filled(answer, k)) {
				t.Fatalf("got %v where answer %d should be", e.Type, k)
			}
			k++
		}
		batch.Release()
	}
}
