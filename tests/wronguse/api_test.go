// Package wronguse tries what goes wrong for people who are new to the library,
// through the public Go API and through the command line. Every mistake must be
// answered by one clear sentence, with the right code, and leave the service
// usable.
package wronguse

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
)

// patience bounds the wait for one event; it is long because machines are busy.
const patience = 30 * time.Second

// local is the listener of every service of these tests.
func local(t *testing.T) crust.Endpoint {
	t.Helper()
	return endpoint(t, "tcp://127.0.0.1:0")
}

func endpoint(t *testing.T, text string) crust.Endpoint {
	t.Helper()
	ep, err := crust.ParseEndpoint(text)
	if err != nil {
		t.Fatal(err)
	}
	return ep
}

// node is a service and its events.
type node struct {
	*crust.Service
	t      *testing.T
	events chan crust.Event
}

// newNode makes a service that listens on loopback and is closed with the test.
func newNode(t *testing.T, cfg crust.Config) *node {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []crust.Endpoint{local(t)}
	}
	service, err := crust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Service: service, t: t, events: make(chan crust.Event, 1024)}
	go func() {
		defer close(n.events)
		for e := range service.Events(context.Background()) {
			n.events <- e
		}
	}()
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for range n.events {
		}
	})
	return n
}

// next returns the next event of one of the types, passing over others.
func (n *node) next(types ...crust.EventType) crust.Event {
	n.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case e, ok := <-n.events:
			if !ok {
				n.t.Fatalf("the service stopped, want an event %v", types)
			}
			for _, wanted := range types {
				if e.Type == wanted {
					return e
				}
			}
		case <-timer.C:
			n.t.Fatalf("no event %v within %v", types, patience)
		}
	}
}

// where returns the node's listener.
func (n *node) where() crust.Endpoint {
	n.t.Helper()
	listeners := n.Listeners()
	if len(listeners) != 1 {
		n.t.Fatalf("listeners %v, want one", listeners)
	}
	return listeners[0]
}

// info returns the node's connection info.
func (n *node) info() []byte {
	n.t.Helper()
	if err := n.PrepareConnectionInfo(99); err != nil {
		n.t.Fatal(err)
	}
	return n.next(crust.EventConnectionInfo).Data
}

// join connects two nodes.
func join(from, to *node) {
	from.t.Helper()
	if err := from.ConnectEndpoint(crust.Contact{Endpoint: to.where(), Peer: to.ID()}, 1); err != nil {
		from.t.Fatal(err)
	}
	if e := from.next(crust.EventConnected, crust.EventConnectFailed); e.Type != crust.EventConnected {
		from.t.Fatalf("not connected: %v", e.Err())
	}
	to.next(crust.EventConnected)
}

// talks asserts that a message still goes from one node to the other.
func talks(from, to *node) {
	from.t.Helper()
	if err := from.Send(to.ID(), []byte("still here"), 0); err != nil {
		from.t.Fatalf("the session does not work any more: %v", err)
	}
	if e := to.next(crust.EventMessage, crust.EventLost); e.Type != crust.EventMessage || string(e.Data) != "still here" {
		from.t.Fatalf("got %v %q (%v), want the message", e.Type, e.Data, e.Err())
	}
}

// sentence asserts one clear sentence with a code and the words that matter.
func sentence(t *testing.T, err error, code crust.Code, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want code %v", code)
	}
	var typed *crust.Error
	if !errors.As(err, &typed) {
		t.Errorf("%T is no *crust.Error: %v", err, err)
	}
	if crust.CodeOf(err) != code || !errors.Is(err, code) {
		t.Errorf("%q has the code %v, want %v", err, crust.CodeOf(err), code)
	}
	plain(t, err.Error(), words...)
}

// plain asserts that text is one sentence a person can use.
func plain(t *testing.T, text string, words ...string) {
	t.Helper()
	t.Logf("says: %s", text)
	if len(text) < 12 || len(text) > 400 {
		t.Errorf("%q is too short or too long for a sentence", text)
	}
	for _, ugly := range []string{"\n", "\r", "\x00", "%!", "<nil>", "panic", "goroutine", "runtime error", "0x"} {
		if strings.Contains(text, ugly) {
			t.Errorf("%q contains %q", text, ugly)
		}
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

func TestBusyPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := endpoint(t, "tcp://"+taken.Addr().String())

	n := newNode(t, crust.Config{Listen: []crust.Endpoint{busy}})
	e := n.next(crust.EventListenerFailed, crust.EventListenerStarted)
	if e.Type != crust.EventListenerFailed || e.Endpoint() != busy {
		t.Fatalf("got %v for %v, want listener_failed for %v", e.Type, e.Endpoint(), busy)
	}
	sentence(t, e.Err(), crust.CodeAddressInUse, busy.String())

	_, err = n.Listen(busy)
	sentence(t, err, crust.CodeAddressInUse, busy.String())
	if _, err := n.Listen(local(t)); err != nil { // the service lives on
		t.Errorf("another listener: %v", err)
	}
	other := newNode(t, crust.Config{})
	_, err = n.Listen(other.where())
	sentence(t, err, crust.CodeAddressInUse, other.where().String())
}

func TestListenWhereThereIsNoSuchAddress(t *testing.T) {
	n := newNode(t, crust.Config{})
	_, err := n.Listen(endpoint(t, "tcp://192.0.2.1:0")) // TEST-NET-1, which no machine has
	sentence(t, err, crust.CodeAddress, "192.0.2.1")
	_, err = n.Listen(crust.Endpoint{})
	sentence(t, err, crust.CodeInvalid)
	_, err = n.Listen(endpoint(t, "tracer://127.0.0.1:0"))
	sentence(t, err, crust.CodeUnsupported, "tracer")
	sentence(t, n.StopListening(endpoint(t, "tcp://127.0.0.1:1")), crust.CodeInvalid, "tcp://127.0.0.1:1")
}

func TestIdentityFileThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good")
	if err := key.Save(good); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path, words string
		code              crust.Code
	}{
		{"open to others", write("open", string(text), 0o644), "chmod 600", crust.CodePermission},
		{"something else", write("else", "-----BEGIN PRIVATE KEY-----\n", 0o600), "is not an identity file", crust.CodeInvalid},
		{"empty", write("empty", "", 0o600), "is not an identity file", crust.CodeInvalid},
		{"cut short", write("short", string(text[:40]), 0o600), "is not an identity file", crust.CodeInvalid},
		{"in no directory", filepath.Join(dir, "no", "where"), "no such file or directory", crust.CodeIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := crust.ParseConfigJSON([]byte(`{"identity_file":"` + c.path + `"}`))
			sentence(t, err, c.code, c.words, c.path)
			_, err = identity.LoadOrCreate(c.path)
			if err == nil {
				t.Fatal("LoadOrCreate: no error")
			}
			plain(t, err.Error(), c.words, c.path)
		})
	}
	t.Run("not readable", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root reads every file")
		}
		if err := os.Chmod(good, 0); err != nil {
			t.Fatal(err)
		}
		_, err := crust.ParseConfigJSON([]byte(`{"identity_file":"` + good + `"}`))
		sentence(t, err, crust.CodePermission, good)
	})
}

func TestMalformedInfo(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	info := a.info()
	flipped := append([]byte(nil), info...)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string][]byte{
		"nothing": nil, "text": []byte("hello, this is no connection info at all"), "cut": info[:len(info)-1], "longer": append(append([]byte(nil), info...), 0),
		"one bit": flipped, "huge": make([]byte, 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			sentence(t, b.Connect(bad, 7), crust.CodeBadInfo)
			_, _, err := crust.ParseConnectionInfo(bad)
			sentence(t, err, crust.CodeBadInfo)
		})
	}
	if err := b.Connect(info, 8); err != nil { // the true one works afterwards
		t.Fatal(err)
	}
	if e := b.next(crust.EventConnected, crust.EventConnectFailed); e.Type != crust.EventConnected || e.Token != 8 {
		t.Errorf("got %v with token %d (%v), want connected with token 8", e.Type, e.Token, e.Err())
	}
}

func TestSelfConnect(t *testing.T) {
	n := newNode(t, crust.Config{})
	sentence(t, n.Connect(n.info(), 1), crust.CodeSelf)
	for token, peer := range map[uint64]crust.PeerID{2: {}, 3: n.ID()} {
		err := n.ConnectEndpoint(crust.Contact{Endpoint: n.where(), Peer: peer}, token)
		if err == nil {
			e := n.next(crust.EventConnectFailed, crust.EventConnected)
			if e.Token != token {
				t.Errorf("token %d, want %d", e.Token, token)
			}
			err = e.Err()
		}
		sentence(t, err, crust.CodeSelf)
	}
	sentence(t, n.Send(n.ID(), nil, 0), crust.CodeUnknownPeer)
	if peers := n.Peers(); len(peers) != 0 {
		t.Errorf("peers %v, want none", peers)
	}
}

func TestNetworkNamesThatDiffer(t *testing.T) {
	short := 500 * time.Millisecond
	a := newNode(t, crust.Config{NetworkName: "orchard", HandshakeTimeout: short})
	b := newNode(t, crust.Config{NetworkName: "Orchard", HandshakeTimeout: short})
	if err := a.Connect(b.info(), 1); err != nil {
		t.Fatal(err)
	}
	e := a.next(crust.EventConnectFailed, crust.EventConnected)
	sentence(t, e.Err(), crust.CodeNetworkName, "network name", b.where().String())
	if e.Peer != b.ID() {
		t.Errorf("the event names peer %v, want %v", e.Peer, b.ID())
	}
	if len(a.Peers())+len(b.Peers()) != 0 {
		t.Errorf("sessions across networks: %v, %v", a.Peers(), b.Peers())
	}
}

func TestNobodyThere(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := endpoint(t, closed.Addr().String())
	closed.Close()
	n := newNode(t, crust.Config{HandshakeTimeout: 500 * time.Millisecond})
	if err := n.ConnectEndpoint(crust.Contact{Endpoint: free}, 1); err != nil {
		t.Fatal(err)
	}
	e := n.next(crust.EventConnectFailed)
	sentence(t, e.Err(), crust.CodeRefused, free.String(), "refused")

	zero := crust.Endpoint{Transport: crust.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:0")}
	for _, bad := range []crust.Endpoint{{}, zero, endpoint(t, "tcp://0.0.0.0:5483"), endpoint(t, "tcp://224.0.0.1:5483")} {
		err := n.ConnectEndpoint(crust.Contact{Endpoint: bad}, 2)
		if err == nil {
			e := n.next(crust.EventConnectFailed, crust.EventConnected)
			err = e.Err()
		}
		if code := crust.CodeOf(err); code != crust.CodeInvalid && code != crust.CodeAddress && code != crust.CodeNoEndpoint {
			t.Errorf("%v: code %v, want invalid, address or no_endpoint", bad, code)
		}
		plain(t, err.Error())
	}
}

// A web server, or anything else that is no libcrust, must not hold us.
func TestSomethingElseThere(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) // as a web server does; the other end may have gone
			c.Close()
		}
	}()
	n := newNode(t, crust.Config{HandshakeTimeout: 500 * time.Millisecond})
	if err := n.ConnectEndpoint(crust.Contact{Endpoint: endpoint(t, server.Addr().String())}, 1); err != nil {
		t.Fatal(err)
	}
	e := n.next(crust.EventConnectFailed, crust.EventConnected)
	if e.Type != crust.EventConnectFailed {
		t.Fatalf("connected to a web server: %v", e.Peer)
	}
	switch e.Code() {
	case crust.CodeNetworkName, crust.CodeHandshake, crust.CodeReset:
	default:
		t.Errorf("code %v, want network_name, handshake or reset", e.Code())
	}
	plain(t, e.Err().Error(), server.Addr().String())
}

func TestSomebodyElseThere(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	if err := a.ConnectEndpoint(crust.Contact{Endpoint: b.where(), Peer: crust.PeerID{1, 2, 3}}, 1); err != nil {
		t.Fatal(err)
	}
	e := a.next(crust.EventConnectFailed, crust.EventConnected)
	sentence(t, e.Err(), crust.CodeWrongPeer, b.where().String())
	if len(a.Peers()) != 0 {
		t.Errorf("peers %v, want none", a.Peers())
	}
}

func TestUnknownPeer(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	unknown := crust.PeerID{0xab, 0xcd}
	check := func(err error) {
		t.Helper()
		sentence(t, err, crust.CodeUnknownPeer, "abcd0000", "not connected")
	}
	check(a.Send(unknown, []byte("hello"), 0))
	check(a.SendWait(context.Background(), unknown, []byte("hello"), 0))
	check(a.Disconnect(unknown))
	if n, err := a.SendBatch([]crust.Message{{Peer: unknown}}); n != 0 {
		t.Errorf("%d messages were accepted for nobody", n)
	} else {
		check(err)
	}
	if _, known := a.Peer(unknown); known {
		t.Error("Peer knows somebody who is not connected")
	}
	sentence(t, a.Send(crust.PeerID{}, nil, 0), crust.CodeUnknownPeer)

	join(a, b)
	if err := a.Disconnect(b.ID()); err != nil {
		t.Fatal(err)
	}
	a.next(crust.EventLost)
	sentence(t, a.Send(b.ID(), nil, 0), crust.CodeUnknownPeer, b.ID().Short())
}

func TestTooBig(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	join(a, b)
	big := make([]byte, crust.MaxMessage+1)
	sentence(t, a.Send(b.ID(), big, 0), crust.CodeTooBig, "2 MiB")
	sentence(t, a.SendWait(context.Background(), b.ID(), big, 0), crust.CodeTooBig)
	n, err := a.SendBatch([]crust.Message{{Peer: b.ID(), Data: []byte("still here")}, {Peer: b.ID(), Data: big}, {Peer: b.ID()}})
	if n != 1 {
		t.Errorf("%d messages were accepted, want the one before the large one", n)
	}
	sentence(t, err, crust.CodeTooBig)
	if e := b.next(crust.EventMessage, crust.EventLost); string(e.Data) != "still here" {
		t.Fatalf("got %v %q (%v)", e.Type, e.Data, e.Err())
	}
	talks(a, b)
	talks(b, a)
}

func TestAlreadyConnected(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	join(a, b)
	if err := a.Connect(b.info(), 5); err != nil {
		t.Fatal(err)
	}
	if e := a.next(crust.EventAlreadyConnected, crust.EventConnected, crust.EventConnectFailed); e.Type != crust.EventAlreadyConnected || e.Token != 5 || e.Peer != b.ID() {
		t.Errorf("got %v with token %d, want already_connected with token 5", e.Type, e.Token)
	}
	talks(a, b)
}

func TestNotAllowed(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{NoAccept: true})
	if err := a.ConnectEndpoint(crust.Contact{Endpoint: b.where()}, 1); err != nil {
		t.Fatal(err)
	}
	e := a.next(crust.EventConnectFailed, crust.EventConnected)
	sentence(t, e.Err(), crust.CodeNotAllowed, b.where().String())
}

func TestBootstrapWithoutContacts(t *testing.T) {
	n := newNode(t, crust.Config{})
	err := n.Bootstrap(4)
	if err == nil {
		e := n.next(crust.EventBootstrapFailed, crust.EventBootstrapped)
		err = e.Err()
	}
	sentence(t, err, crust.CodeNoEndpoint)
	n.StopBootstrap() // there is none
}

func TestConfigOutOfBounds(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  crust.Config
		word string
	}{
		"network name":   {crust.Config{NetworkName: strings.Repeat("n", crust.MaxNetworkName+1)}, "network name"},
		"app id":         {crust.Config{AppID: make([]byte, crust.MaxAppID+1)}, "app id"},
		"role":           {crust.Config{Role: 7}, "role"},
		"cipher":         {crust.Config{Cipher: 7}, "cipher"},
		"send queue":     {crust.Config{SendQueue: crust.MaxMessage - 1}, "SendQueue"},
		"event queue":    {crust.Config{EventQueue: -1}, "EventQueue"},
		"peers":          {crust.Config{MaxPeers: -1}, "MaxPeers"},
		"handshakes":     {crust.Config{MaxHandshakes: -1}, "MaxHandshakes"},
		"per address":    {crust.Config{MaxHandshakesPerAddress: -1}, "MaxHandshakesPerAddress"},
		"connects":       {crust.Config{MaxConnects: -1}, "MaxConnects"},
		"connect time":   {crust.Config{ConnectTimeout: -1}, "ConnectTimeout"},
		"bootstrap time": {crust.Config{BootstrapTimeout: -1}, "BootstrapTimeout"},
		"handshake time": {crust.Config{HandshakeTimeout: -1}, "HandshakeTimeout"},
		"close time":     {crust.Config{CloseTimeout: -1}, "CloseTimeout"},
		"message age":    {crust.Config{MessageMaxAge: -1}, "MessageMaxAge"},
		"heartbeat":      {crust.Config{Heartbeat: -1}, "Heartbeat"},
		"lost too early": {crust.Config{Heartbeat: 2 * time.Second, LostAfter: 3 * time.Second}, "LostAfter"},
	} {
		t.Run(name, func(t *testing.T) {
			service, err := crust.New(c.cfg)
			if err == nil {
				service.Close()
			}
			sentence(t, err, crust.CodeInvalid, c.word)
		})
	}
}

func TestClosedService(t *testing.T) {
	a, b := newNode(t, crust.Config{}), newNode(t, crust.Config{})
	join(a, b)
	info := b.info()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if e := b.next(crust.EventLost); !errors.Is(e.Err(), crust.CodeDisconnected) {
		t.Errorf("the other side is told %v, want disconnected", e.Err())
	}
	closed := func(what string, err error) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			sentence(t, err, crust.CodeClosed, "closed")
			if !errors.Is(err, net.ErrClosed) {
				t.Error("errors.Is(err, net.ErrClosed) does not hold")
			}
		})
	}
	_, err := a.Listen(local(t))
	closed("Listen", err)
	closed("PrepareConnectionInfo", a.PrepareConnectionInfo(1))
	closed("Connect", a.Connect(info, 1))
	closed("ConnectEndpoint", a.ConnectEndpoint(crust.Contact{Endpoint: b.where()}, 1))
	closed("Bootstrap", a.Bootstrap(1))
	closed("Send", a.Send(b.ID(), nil, 0))
	closed("SendWait", a.SendWait(context.Background(), b.ID(), nil, 0))
	_, err = a.SendBatch([]crust.Message{{Peer: b.ID()}})
	closed("SendBatch", err)
	closed("Disconnect", a.Disconnect(b.ID()))
	for range a.events {
	}
	_, err = a.NextBatch(context.Background(), 0)
	closed("NextBatch", err)
	_, err = a.TryNextBatch(0)
	closed("TryNextBatch", err)

	// What asks nothing of the network answers, and closing again is no error.
	if a.ID().IsZero() || len(a.Peers()) != 0 || len(a.Listeners()) != 0 || a.EventsPending() || a.Stats().Peers != 0 {
		t.Error("a closed service has peers, listeners or events")
	}
	a.StopBootstrap()
	a.SetAccept(true)
	a.Stop()
	if err := a.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestTextThatCannotBeParsed(t *testing.T) {
	for _, text := range []string{"", "localhost:5483", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:80", "tcp://127.0.0.1:99999", "tcp://::1:5"} {
		if _, err := crust.ParseEndpoint(text); err == nil {
			t.Errorf("endpoint %q: no error", text)
		} else {
			plain(t, err.Error(), "endpoint")
		}
		if _, err := crust.ParseContact(text); err == nil {
			t.Errorf("contact %q: no error", text)
		} else {
			plain(t, err.Error())
		}
	}
	for _, text := range []string{"", "abc", strings.Repeat("g", 64), strings.Repeat("a", 65)} {
		if _, err := crust.ParsePeerID(text); err == nil {
			t.Errorf("peer id %q: no error", text)
		} else {
			plain(t, err.Error(), "peer id")
		}
		if _, err := crust.ParseContact("tcp://127.0.0.1:5#" + text); err == nil {
			t.Errorf("contact with peer id %q: no error", text)
		}
	}
}
