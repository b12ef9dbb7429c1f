package crust_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/simnet"
)

// TestEveryTokenBesideClose: a call that was accepted is answered, also when the
// service is being closed at that very moment.
func TestEveryTokenBesideClose(t *testing.T) {
	internet := simnet.New(1)
	host := internet.Host("10.0.0.1")
	peer := newNode(t, crust.On(internet.Host("10.0.0.2"), crust.Config{Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
	contact := crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: peer.ID()}
	accepted := 0
	for round := range 300 {
		w := newWitness(t, fmt.Sprint("round ", round), crust.On(host, crust.Config{NoListen: true, Contacts: []crust.Contact{contact}}))
		var wg sync.WaitGroup
		for _, call := range []func() error{
			func() error {
				return w.ask(false, func(token uint64) error { return w.ConnectEndpoint(contact, token) })
			},
			func() error { return w.ask(false, w.PrepareConnectionInfo) },
			func() error { return w.ask(true, w.Bootstrap) },
		} {
			wg.Go(func() {
				if err := call(); err != nil && !errors.Is(err, crust.CodeClosed) {
					t.Error(err)
				} else if err == nil {
					w.mu.Lock()
					accepted++
					w.mu.Unlock()
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				for range rand.IntN(50) {
					runtime.Gosched()
				}
				w.Close()
			})
		}
		wg.Wait()
		<-w.done
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	if accepted == 0 {
		t.Error("no call came before its Close")
	}
}

// TestInfosBesideLosses: connection infos are made while sessions end.
func TestInfosBesideLosses(t *testing.T) {
	internet := simnet.New(1)
	one := newNode(t, crust.On(internet.Host("10.0.0.1"), crust.Config{Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
	other := newWitness(t, "other", crust.On(internet.Host("10.0.0.2"), crust.Config{NoListen: true}))
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for token := uint64(1); ; token++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := one.PrepareConnectionInfo(token); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	go func() { // nobody looks at them
		for range one.Events(t.Context()) { //nolint:revive // that is all
		}
	}()
	contact := crust.Contact{Endpoint: endpointAt("10.0.0.1:1"), Peer: one.ID()}
	const losses = 100
	for i := range losses {
		if err := other.ask(false, func(token uint64) error { return other.ConnectEndpoint(contact, token) }); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("connection %d", i), func() string {
			if len(other.Peers()) == 0 {
				return "no session"
			}
			return ""
		})
		if err := other.Disconnect(one.ID()); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("end %d", i), func() string {
			if len(other.Peers()) > 0 {
				return "a session"
			}
			return ""
		})
	}
	close(stop)
	asking.Wait()
	other.Close()
	<-other.done
	if other.lost != losses {
		t.Errorf("lost %d times", other.lost)
	}
}

// brittle is a network whose connections panic on the n-th use, from when it is armed.
type brittle struct {
	netio.Network
	mu    sync.Mutex
	where string
	left  int
}

func (b *brittle) use(where string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.where == where {
		if b.left--; b.left < 0 {
			b.where = ""
			panic("fault in " + where)
		}
	}
}

func (b *brittle) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	b.use("dial")
	c, err := b.Network.Dial(ctx, local, remote)
	if err != nil {
		return nil, err
	}
	return &brittleConn{c.(*simnet.Conn), b}, nil
}

type brittleConn struct {
	*simnet.Conn
	net *brittle
}

func (c *brittleConn) Read(p []byte) (int, error)     { c.net.use("read"); return c.Conn.Read(p) }
func (c *brittleConn) Write(p []byte) (int, error)    { c.net.use("write"); return c.Conn.Write(p) }
func (c *brittleConn) TryWrite(p []byte) (int, error) { c.net.use("try"); return c.Conn.TryWrite(p) }
func (c *brittleConn) CloseWrite() error              { c.net.use("half"); return c.Conn.CloseWrite() }

func (c *brittleConn) ReadLazy(get func() []byte) (int, error) {
	c.net.use("lazy")
	return c.Conn.ReadLazy(get)
}

// TestFaultsStopTheService: a panic below, wherever it strikes, is the service's
// end and not the process's: every call is answered, every session is lost, the
// last event says why, and Close returns.
func TestFaultsStopTheService(t *testing.T) {
	for where, most := range map[string]int{"dial": 0, "read": 3, "write": 3, "try": 4, "half": 0} {
		for left := range most + 1 {
			t.Run(fmt.Sprint(where, left), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { fault(t, where, left) })
			})
		}
	}
}

func fault(t *testing.T, where string, left int) {
	internet := simnet.New(1)
	network := &brittle{Network: internet.Host("10.0.0.1"), where: where, left: left}
	var why error
	w := newWitness(t, "faulty", crust.On(network, crust.Config{NoListen: true, Heartbeat: time.Second, LostAfter: 10 * time.Second}))
	b := newWitness(t, "peer", crust.On(internet.Host("10.0.0.2"), crust.Config{Listen: []crust.Endpoint{endpointAt("0.0.0.0:1")}}))
	contact := crust.Contact{Endpoint: endpointAt("10.0.0.2:1"), Peer: b.ID()}
	w.onStopped = func(err error) { why = err }
	if err := w.ask(false, func(token uint64) error { return w.ConnectEndpoint(contact, token) }); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		time.Sleep(2 * time.Second)
		w.send(b.ID(), 100, 0) //nolint:errcheck // the service may have stopped
		if err := b.send(w.ID(), 100, 0); err == nil {
			b.send(w.ID(), 200_000, 1) //nolint:errcheck // as above
		}
	}
	if where == "half" {
		w.Disconnect(b.ID()) //nolint:errcheck // it is connected
		time.Sleep(time.Minute)
	}
	w.Close()
	<-w.done
	if !errors.Is(why, crust.CodePanicked) || !strings.Contains(why.Error(), "fault in "+where) {
		t.Errorf("stopped because of %v", why)
	}
	b.Close()
	<-b.done
}

// TestNothingIsLeft: after rounds of services that connect, talk and close in
// every way over the kernel's network, no goroutine and no descriptor remains.
func TestNothingIsLeft(t *testing.T) {
	round := func(i int) {
		cfg := crust.Config{CloseTimeout: 500 * time.Millisecond} // who is closed in the handshake says no goodbye
		a, b := newWitness(t, "a", cfg), newWitness(t, "b", cfg)
		contact := crust.Contact{Endpoint: endpointAt(fmt.Sprintf("127.0.0.1:%d", b.Listeners()[0].Addr.Port())), Peer: b.ID()}
		for range 3 {
			if err := a.ask(false, func(token uint64) error { return a.ConnectEndpoint(contact, token) }); err != nil {
				t.Fatal(err)
			}
		}
		for i%4 > 0 && a.pendingTokens() > 0 {
			runtime.Gosched()
		}
		for k := range 20 {
			if err := a.send(b.ID(), 1000*k, 1); err != nil && i%4 > 0 {
				t.Fatal(err)
			}
		}
		if i%4 == 1 {
			b.Disconnect(a.ID()) //nolint:errcheck // connected or not
		}
		var wg sync.WaitGroup
		for _, w := range []*witness{a, b} {
			wg.Go(func() { w.Close() })
			if i%4 == 2 {
				wg.Wait()
			}
		}
		wg.Wait()
		<-a.done
		<-b.done
	}
	round(0)
	descriptors := openDescriptors(t)
	for i := range 16 {
		round(i)
	}
	eventually(t, "goroutines of the library are left", func() string { return ours() })
	eventually(t, "descriptors are left", func() string {
		if n := openDescriptors(t); n > descriptors {
			return fmt.Sprintf("%d instead of %d", n, descriptors)
		}
		return ""
	})
}

// eventually waits until there is nothing to complain about: a goroutine that has
// done its last may take a moment to go.
func eventually(t *testing.T, what string, complaint func() string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		text := complaint()
		if text == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s", what, text)
		}
	}
}

// ours returns the stacks of goroutines that the library has started.
func ours() string {
	buf := make([]byte, 1<<20)
	var left []string
	for _, stack := range bytes.Split(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		if bytes.Contains(stack, []byte("created by github.com/libcrust/libcrust/core.")) || bytes.Contains(stack, []byte("libcrust/core/internal/")) {
			left = append(left, string(stack))
		}
	}
	return strings.Join(left, "\n\n")
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system does not list descriptors: ", err)
	}
	return len(entries)
}
