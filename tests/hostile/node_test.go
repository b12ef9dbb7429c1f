// Package hostile attacks the library through its public API and real sockets:
// it records, probes, mutates, floods and stays silent, and checks that nothing
// tells, breaks or stays behind.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// node is a service whose events are collected.
type node struct {
	*crust.Service
	t      testing.TB
	events chan crust.Event
}

// listenAt is a random port on loopback.
var listenAt = crust.Endpoint{Transport: crust.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:0")}

// start makes a service that listens on loopback, and closes it after the test. It lets
// in whoever comes, since everybody here comes from one address: these tests are of
// what becomes of those who got in, and who gets in through a flood is shown in core.
func start(t testing.TB, cfg crust.Config) *node {
	t.Helper()
	cfg.MaxAcceptsPerSecond, cfg.MaxAcceptsPerAddress, cfg.HandshakePercent = 1<<20, 1<<20, 800
	if cfg.Listen == nil {
		cfg.Listen = []crust.Endpoint{listenAt}
	}
	s, err := crust.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Service: s, t: t, events: make(chan crust.Event, 1<<16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range s.Events(context.Background()) {
			n.events <- e
		}
	}()
	t.Cleanup(func() { n.stop(done) })
	return n
}

func (n *node) stop(done chan struct{}) {
	if err := n.Close(); err != nil {
		n.t.Errorf("close: %v", err)
	}
	for {
		select {
		case <-n.events:
		case <-done:
			return
		}
	}
}

// at returns where the node listens.
func (n *node) at() crust.Endpoint {
	n.t.Helper()
	all := n.Listeners()
	if len(all) == 0 {
		n.t.Fatal("the service does not listen")
	}
	return all[0]
}

// patience is how long anything that must come may take on a busy machine.
const patience = 30 * time.Second

// next returns the next event that is wanted; others are passed over.
func (n *node) next(want func(crust.Event) bool) (crust.Event, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case e := <-n.events:
			if want(e) {
				return e, nil
			}
		case <-timer.C:
			return crust.Event{}, errors.New("the event did not come")
		}
	}
}

// of wants events of a type and a peer.
func of(kind crust.EventType, peer crust.PeerID) func(crust.Event) bool {
	return func(e crust.Event) bool { return e.Type == kind && e.Peer == peer }
}

// connect connects to a peer at an endpoint and returns how long it took.
func (n *node) connect(ep crust.Endpoint, peer crust.PeerID, token uint64) (time.Duration, error) {
	began := time.Now()
	if err := n.ConnectEndpoint(crust.Contact{Endpoint: ep, Peer: peer}, token); err != nil {
		return 0, err
	}
	e, err := n.next(func(e crust.Event) bool {
		return e.Token == token && (e.Type == crust.EventConnected || e.Type == crust.EventConnectFailed || e.Type == crust.EventAlreadyConnected)
	})
	if err == nil && e.Type != crust.EventConnected {
		err = fmt.Errorf("%v: %w", e.Type, e.Err())
	}
	return time.Since(began), err
}

// mustConnectWithinASecond is what a legitimate peer does during an attack: it
// connects, has a message echoed by hand, and leaves.
func mustConnectWithinASecond(t testing.TB, victim *node, network string) {
	t.Helper()
	honest, err := crust.New(crust.Config{NetworkName: network, NoListen: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer honest.Close() //nolint:errcheck // the check is done
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	began := time.Now()
	if err := honest.ConnectEndpoint(crust.Contact{Endpoint: victim.at(), Peer: victim.ID()}, 1); err != nil {
		t.Error(err)
		return
	}
	for e := range honest.Events(ctx) {
		switch e.Type {
		case crust.EventConnected:
			if took := time.Since(began); took > time.Second {
				t.Errorf("a legitimate peer needed %v to connect", took)
			}
			return
		case crust.EventConnectFailed:
			t.Errorf("a legitimate peer could not connect: %v", e.Err())
			return
		}
	}
	t.Error("a legitimate peer did not connect within a second")
}

// relay stands between two peers and keeps what it passes on.
type relay struct {
	ln     net.Listener
	target string
	mutate func(conversation int, toServer bool, at int, b []byte) []byte

	wg   sync.WaitGroup
	mu   sync.Mutex
	tape []*recording
}

// recording is one conversation.
type recording struct {
	mu     sync.Mutex
	out    []byte // from who dialled
	in     []byte // to who dialled
	first  int    // bytes out before the first byte in: the first flight
	second int    // bytes in before more came out: the second flight
}

func newRelay(t testing.TB, target crust.Endpoint) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, target: target.Addr.String()}
	r.wg.Go(r.run)
	t.Cleanup(func() {
		ln.Close() //nolint:errcheck // the test is over
		r.wg.Wait()
	})
	return r
}

// at returns where the relay can be dialled.
func (r *relay) at() crust.Endpoint {
	return crust.Endpoint{Transport: crust.TCP, Addr: r.ln.Addr().(*net.TCPAddr).AddrPort()}
}

func (r *relay) run() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", r.target)
		if err != nil {
			c.Close() //nolint:errcheck // nobody to relay to
			continue
		}
		rec := new(recording)
		r.mu.Lock()
		k := len(r.tape)
		r.tape = append(r.tape, rec)
		r.mu.Unlock()
		var both sync.WaitGroup
		both.Go(func() { r.pump(k, rec, s, c, true) })
		both.Go(func() { r.pump(k, rec, c, s, false) })
		r.wg.Go(func() {
			both.Wait()
			c.Close() //nolint:errcheck // both directions have ended
			s.Close() //nolint:errcheck // both directions have ended
		})
	}
}

func (r *relay) pump(k int, rec *recording, to, from net.Conn, toServer bool) {
	buf := make([]byte, 32<<10)
	at := 0
	for {
		n, err := from.Read(buf)
		b := buf[:n]
		if r.mutate != nil && n > 0 {
			b = r.mutate(k, toServer, at, b)
		}
		at += n
		rec.add(b, toServer)
		if len(b) > 0 {
			if _, werr := to.Write(b); werr != nil {
				from.Close() //nolint:errcheck // the other side must notice
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				to.(*net.TCPConn).CloseWrite() //nolint:errcheck // it may be closed already
			} else {
				to.Close() //nolint:errcheck // an abort is passed on as one
			}
			return
		}
	}
}

func (rec *recording) add(b []byte, toServer bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if toServer {
		if len(rec.in) > 0 && rec.second == 0 {
			rec.second = len(rec.in)
		}
		rec.out = append(rec.out, b...)
		return
	}
	if len(rec.in) == 0 {
		rec.first = len(rec.out)
	}
	rec.in = append(rec.in, b...)
}

// footprint is what a process holds.
type footprint struct {
	goroutines  int
	descriptors int
	heap        uint64
}

func measure(t testing.TB) footprint {
	t.Helper()
	runtime.GC()
	runtime.GC() // pools give up what they hold at the second collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system has no /proc")
	}
	return footprint{runtime.NumGoroutine(), len(fds), m.HeapAlloc}
}

// mustReturnTo waits until the process holds what it held before, but for a
// little memory of counters and tables.
func mustReturnTo(t testing.TB, before footprint) {
	t.Helper()
	const slack = 2 << 20
	var now footprint
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now = measure(t)
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && now.heap <= before.heap+slack {
			t.Logf("before: %d goroutines, %d descriptors, %d KiB; after: %d, %d, %d KiB",
				before.goroutines, before.descriptors, before.heap>>10, now.goroutines, now.descriptors, now.heap>>10)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("before the attack the process held %+v, now %+v", before, now)
		}
	}
}
