package crust_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// clearWorld is two hosts with a node each, which listens at the given transports.
func clearWorld(t *testing.T, ours, theirs string, cfgA, cfgB crust.Config, f func(t *testing.T, n *simnet.Net, ha, hb *simnet.Host, a, b *node)) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1)
		ha, hb := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		a := newNode(t, crust.On(ha, over(cfgA, "0.0.0.0", strings.Fields(ours)...)))
		defer a.Close()
		b := newNode(t, crust.On(hb, over(cfgB, "0.0.0.0", strings.Fields(theirs)...)))
		defer b.Close()
		f(t, n, ha, hb, a, b)
	})
}

var tracerOn = crust.Config{Tracer: crust.TracerOn}

// TestTracer: a session in clear carries messages both ways, tells loudly what it is, and
// goes on over another link in clear when it loses its own.
func TestTracer(t *testing.T) {
	var log safeBuffer
	cfg := tracerOn
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	clearWorld(t, "tcp", "tcp tracer utp", cfg, tracerOn, func(t *testing.T, n *simnet.Net, ha, hb *simnet.Host, a, b *node) {
		to := contactOf(t, b, crust.Tracer, "10.0.0.2")
		if err := a.ConnectEndpoint(to, 3); err != nil {
			t.Fatal(err)
		}
		e := a.next(crust.EventConnected, crust.EventConnectFailed)
		if e.Type != crust.EventConnected || e.Token != 3 || e.Endpoint() != to.Endpoint || e.How() != crust.Dialed {
			t.Fatalf("%v %v at %v", e.Type, e.Err(), e.Endpoint())
		}
		if e := a.next(crust.EventClear, crust.EventMessage, crust.EventLost); e.Type != crust.EventClear || e.Peer != b.ID() || e.Endpoint() != to.Endpoint || e.How() != crust.Dialed {
			t.Errorf("after connected: %v of %v at %v", e.Type, e.Peer, e.Endpoint())
		}
		b.next(crust.EventConnected)
		if e := b.next(crust.EventClear); e.Peer != a.ID() || e.Endpoint().Transport != crust.Tracer || e.How() != crust.Accepted {
			t.Errorf("%v at %v", e.Peer, e.Endpoint())
		}
		for _, side := range []*node{a, b} {
			other := map[*node]*node{a: b, b: a}[side]
			if p, ok := side.Peer(other.ID()); !ok || p.Cipher != "none, in clear" || p.Endpoint.Transport != crust.Tracer {
				t.Errorf("%+v", p)
			}
		}
		synctest.Wait() // records are handed on a moment later
		if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "THIS SESSION IS IN CLEAR") {
			t.Errorf("the log says %q", text)
		}
		talk := func(size int) {
			t.Helper()
			for _, side := range []*node{a, b} {
				other := map[*node]*node{a: b, b: a}[side]
				if err := side.Send(other.ID(), filled(size, 7), 1); err != nil {
					t.Fatal(err)
				}
				if m := other.next(crust.EventMessage); !bytes.Equal(m.Data, filled(size, 7)) {
					t.Errorf("%d bytes came as %d", size, len(m.Data))
				}
			}
		}
		for _, size := range []int{8, 5000, 300_000} {
			talk(size)
		}
		n.Reset(ha, hb)
		for _, side := range []*node{a, b} {
			if e := side.nextBut(crust.EventResumed, crust.EventLost); e.Type != crust.EventResumed || e.Endpoint().Transport != crust.Tracer {
				t.Fatalf("%v, %v at %v", e.Type, e.Err(), e.Endpoint())
			}
		}
		talk(100_000)
		time.Sleep(time.Hour) // nobody looks for what is better, though there is TCP
		if p, _ := a.Peer(b.ID()); p.Endpoint.Transport != crust.Tracer || p.Resumed != 1 {
			t.Errorf("after an hour: %+v", p)
		}
	})
}

// safeBuffer is a buffer for a logger.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestTracerOff: without Config.Tracer there is no listener in clear and no dial.
func TestTracerOff(t *testing.T) {
	clearWorld(t, "tcp tracer", "tcp tracer", crust.Config{}, tracerOn, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		if e := a.next(crust.EventListenerFailed); e.Code() != crust.CodeUnsupported || !strings.Contains(e.Err().Error(), "Config.Tracer") {
			t.Errorf("%v", e.Err())
		}
		if err := a.ConnectEndpoint(contactOf(t, b, crust.Tracer, "10.0.0.2"), 1); crust.CodeOf(err) != crust.CodeUnsupported {
			t.Errorf("a dial in clear: %v", err)
		}
		if len(a.Listeners()) != 1 {
			t.Errorf("it listens at %v", a.Listeners())
		}
	})
	if _, err := crust.New(crust.Config{Tracer: 2}); crust.CodeOf(err) != crust.CodeInvalid {
		t.Errorf("a mode that there is not: %v", err)
	}
}

// TestTracerRefused: who dials in clear where nobody has asked for that gets not one byte
// back, and has sent none that says who it is.
func TestTracerRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1)
		ha, hb := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		a := newNode(t, crust.On(ha, over(tracerOn, "0.0.0.0", "tcp")))
		defer a.Close()
		b := newNode(t, crust.On(hb, over(crust.Config{}, "0.0.0.0", "tcp")))
		defer b.Close()
		middle := newMiddle(t, n.Host("10.0.0.3"), contactOf(t, b, crust.TCP, "10.0.0.2").Endpoint.Addr)
		defer middle.close()
		at := crust.Endpoint{Transport: crust.Tracer, Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.3"), middle.port)}
		if err := a.ConnectEndpoint(crust.Contact{Endpoint: at, Peer: b.ID()}, 1); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 1); e.Type != crust.EventConnectFailed || e.Code() != crust.CodeNetworkName && e.Code() != crust.CodeTimeout {
			t.Errorf("%v: %v", e.Type, e.Err())
		}
		up, down := middle.said()
		id := a.ID()
		if len(down) != 0 || !bytes.HasPrefix(up, []byte("cru1")) || bytes.Contains(up, id[:]) {
			t.Errorf("%d bytes came back, of %d that went", len(down), len(up))
		}
	})
}

// middle is a man in the middle of TCP: he passes on, keeps what was said, and breaks what
// he does not like.
type middle struct {
	ln       net.Listener
	port     uint16
	mu       sync.Mutex
	up, down []byte
	wg       sync.WaitGroup
	stop     context.CancelFunc
}

func newMiddle(t *testing.T, h *simnet.Host, to netip.AddrPort) *middle {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ln, err := h.Listen(ctx, netip.MustParseAddrPort("0.0.0.0:0"))
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{ln: ln, stop: stop, port: uint16(ln.Addr().(*net.TCPAddr).Port)}
	m.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := h.Dial(ctx, netip.AddrPort{}, to)
			if err != nil {
				in.Close()
				continue
			}
			m.wg.Go(func() { m.pass(out, in, &m.up) })
			m.wg.Go(func() { m.pass(in, out, &m.down) })
		}
	})
	return m
}

func (m *middle) pass(to, from net.Conn, said *[]byte) {
	defer to.Close()
	defer from.Close()
	var b [4096]byte
	for {
		n, err := from.Read(b[:])
		m.mu.Lock()
		*said = append(*said, b[:n]...)
		m.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (m *middle) said() (up, down []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.up), slices.Clone(m.down)
}

func (m *middle) close() {
	m.stop()
	m.ln.Close()
	m.wg.Wait()
}

// censor is the network of a host for which somebody on the way blocks TCP to all ports but
// some. It counts the dials to those.
type censor struct {
	*simnet.Host
	mu      sync.Mutex
	open    map[uint16]bool
	through int
}

func (c *censor) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	c.mu.Lock()
	open := c.open[remote.Port()]
	if open {
		c.through++
	}
	c.mu.Unlock()
	if !open {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return c.Host.Dial(ctx, local, remote)
}

// TestTracerNoDowngrade: whoever blocks every secure way gets no session in clear, though
// both sides have configured it, listen in clear, and tell so in their infos.
func TestTracerNoDowngrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1)
		ha, hb := n.Host("10.0.0.1"), n.Host("10.0.0.2")
		n.SetLink(ha, hb, simnet.Link{Loss: 1})
		ways := &censor{Host: ha, open: map[uint16]bool{}}
		cfg := over(tracerOn, "0.0.0.0", "tcp", "utp", "tracer")
		cfg.ConnectTimeout = 40 * time.Second
		a, b := newNode(t, crust.On(ways, cfg)), newNode(t, crust.On(hb, cfg))
		defer a.Close()
		defer b.Close()
		clear := contactOf(t, b, crust.Tracer, "10.0.0.2")
		ways.open[clear.Endpoint.Addr.Port()] = true
		info := b.info()
		_, eps, err := crust.ParseConnectionInfo(info)
		if err != nil || !slices.Contains(eps, clear.Endpoint) {
			t.Fatalf("the info tells of %v, %v", eps, err)
		}
		for token, dial := range []func(token uint64) error{
			func(token uint64) error { return a.Connect(info, token) },
			func(token uint64) error {
				return a.ConnectEndpoint(contactOf(t, b, crust.TCP, "10.0.0.2"), token)
			},
			func(token uint64) error {
				return a.ConnectEndpoint(contactOf(t, b, crust.UTP, "10.0.0.2"), token)
			},
			func(uint64) error { return a.Keep(crust.Group{Name: "group", Infos: [][]byte{info}}) },
		} {
			if err := dial(uint64(token + 1)); err != nil {
				t.Errorf("attempt %d: %v", token, err)
			}
		}
		for range 3 {
			if e := a.nextBut(crust.EventConnectFailed); e.Type != crust.EventConnectFailed {
				t.Errorf("%v at %v", e.Type, e.Endpoint())
			}
		}
		time.Sleep(10 * time.Minute)
		if ways.through != 0 || len(a.Peers())+len(b.Peers()) != 0 {
			t.Errorf("%d dials in clear, and %v", ways.through, a.Peers())
		}
		if err := a.Release("group"); err != nil {
			t.Error(err)
		}
		if err := a.Keep(crust.Group{Name: "clear", Contacts: []crust.Contact{clear}}); crust.CodeOf(err) != crust.CodeUnsupported {
			t.Errorf("a group in clear: %v", err)
		}
		if err := a.ConnectEndpoint(clear, 9); err != nil { // the way is there, for who names it
			t.Fatal(err)
		}
		if e := a.nextBut(crust.EventConnected, crust.EventConnectFailed); e.Type != crust.EventConnected || ways.through != 1 {
			t.Errorf("by name: %v, %v", e.Type, e.Err())
		}
	})
}

// TestTracerInfo: an info that tells of nothing but listeners in clear is dialled there.
func TestTracerInfo(t *testing.T) {
	clearWorld(t, "tcp", "tracer", tracerOn, tracerOn, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		if err := a.Connect(b.info(), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 1); e.Type != crust.EventConnected || e.Endpoint().Transport != crust.Tracer {
			t.Errorf("%v at %v: %v", e.Type, e.Endpoint(), e.Err())
		}
	})
	clearWorld(t, "tcp", "tracer", crust.Config{}, tracerOn, func(t *testing.T, _ *simnet.Net, _, _ *simnet.Host, a, b *node) {
		if err := a.Connect(b.info(), 1); err != nil {
			t.Fatal(err)
		}
		if e := a.final(t, 1); e.Type != crust.EventConnectFailed || e.Code() != crust.CodeNoEndpoint {
			t.Errorf("%v at %v: %v", e.Type, e.Endpoint(), e.Err())
		}
	})
}

// TestTracerStaysSecure: a session that is not in clear does not become so, whichever side
// decides: not while it has a link, and not while it waits for one. One in clear goes over
// to a link that is not, when somebody makes one.
func TestTracerStaysSecure(t *testing.T) {
	keys := sortedKeys(t, 2)
	for decider := range 2 {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(1)
			ha, hb := n.Host("10.0.0.1"), n.Host("10.0.0.2")
			ways := &censor{Host: ha, open: map[uint16]bool{}}
			cfg := over(tracerOn, "0.0.0.0", "tcp", "tracer")
			cfg.Identity, cfg.ConnectTimeout, cfg.ResumeWindow = keys[decider], 20*time.Second, 10*time.Minute
			a := newNode(t, crust.On(ways, cfg))
			defer a.Close()
			cfg.Identity = keys[1-decider]
			b := newNode(t, crust.On(hb, cfg))
			defer b.Close()
			secure, clear := contactOf(t, b, crust.TCP, "10.0.0.2"), contactOf(t, b, crust.Tracer, "10.0.0.2")
			ways.open[secure.Endpoint.Addr.Port()], ways.open[clear.Endpoint.Addr.Port()] = true, true
			token := uint64(0)
			dial := func(c crust.Contact, want crust.EventType, over crust.Transport) {
				t.Helper()
				token++
				if err := a.ConnectEndpoint(c, token); err != nil {
					t.Fatal(err)
				}
				if e := a.nextBut(crust.EventConnected, crust.EventAlreadyConnected, crust.EventConnectFailed); e.Type != want || e.Token != token {
					t.Errorf("decider %d: dialled %v: %v, %v", decider, c.Endpoint, e.Type, e.Err())
				}
				synctest.Wait()
				for _, p := range append(a.Peers(), b.Peers()...) {
					if p.Endpoint.Transport != over {
						t.Errorf("decider %d: dialled %v: %+v", decider, c.Endpoint, p)
					}
				}
			}
			dial(clear, crust.EventConnected, crust.Tracer)
			dial(secure, crust.EventAlreadyConnected, crust.TCP)
			dial(clear, crust.EventAlreadyConnected, crust.TCP)
			anybody := clear
			anybody.Peer = crust.PeerID{}
			dial(anybody, crust.EventAlreadyConnected, crust.TCP)
			ways.mu.Lock()
			ways.open[secure.Endpoint.Addr.Port()] = false
			ways.mu.Unlock()
			n.SetLink(hb, ha, simnet.Link{NoTCP: true}) // b does not come back either
			n.Reset(ha, hb)
			a.nextBut(crust.EventSuspended)
			n.SetLink(hb, ha, simnet.Link{})
			dial(clear, crust.EventAlreadyConnected, crust.TCP)
			if p := a.Peers(); len(p) != 1 || !p[0].Suspended {
				t.Errorf("decider %d: %+v", decider, p)
			}
		})
	}
}

// nextBut returns the next event of one of the types, whatever comes before.
func (n *node) nextBut(types ...crust.EventType) crust.Event {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for e := range n.Events(ctx) {
		if slices.Contains(types, e.Type) {
			return e
		}
	}
	n.t.Fatalf("no event of %v", types)
	return crust.Event{}
}
