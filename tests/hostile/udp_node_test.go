package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
)

// listenUDP is a random UDP port on loopback.
var listenUDP = crust.Endpoint{Transport: crust.UTP, Addr: netip.MustParseAddrPort("127.0.0.1:0")}

// startUDP is start with uTP as the only transport.
func startUDP(t testing.TB, cfg crust.Config) *node {
	t.Helper()
	cfg.Listen = []crust.Endpoint{listenUDP}
	return start(t, cfg)
}

// clientsMade counts the clients so far.
var clientsMade atomic.Uint32

// client is a service for one conversation: it costs little, and its address is
// its own for ever, so that whoever watches can tell conversations apart. A port
// alone would not do: another client may get it while a good-bye of the one that
// had it is still on its way.
type client struct {
	*crust.Service
	at netip.AddrPort
}

func newClient(cfg crust.Config) (*client, error) {
	n := clientsMade.Add(1)
	own := netip.AddrFrom4([4]byte{127, byte(n>>16) + 1, byte(n >> 8), byte(n)})
	cfg.Listen = []crust.Endpoint{{Transport: crust.UTP, Addr: netip.AddrPortFrom(own, 0)}}
	s, err := crust.New(cfg)
	if err != nil {
		return nil, err
	}
	all := s.Listeners()
	if len(all) != 1 {
		s.Close() //nolint:errcheck // it has done nothing yet
		return nil, fmt.Errorf("it listens at %v", all)
	}
	return &client{s, all[0].Addr}, nil
}

// await returns the next event of a type; failures of any kind end the wait.
func (c *client) await(kind crust.EventType) (crust.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for e := range c.Events(ctx) {
		switch e.Type {
		case kind:
			return e, nil
		case crust.EventConnectFailed, crust.EventLost, crust.EventStopped, crust.EventListenerFailed:
			return e, fmt.Errorf("%v: %w", e.Type, e.Err())
		}
	}
	return crust.Event{}, fmt.Errorf("%v did not come", kind)
}

// connect connects to a peer at an endpoint.
func (c *client) connect(ep crust.Endpoint, peer crust.PeerID) error {
	if err := c.ConnectEndpoint(crust.Contact{Endpoint: ep, Peer: peer}, 1); err != nil {
		return err
	}
	_, err := c.await(crust.EventConnected)
	return err
}

// udpRelay stands between peers that talk by datagrams. It keeps what it passes
// on, may change it, and can speak in the name of either side.
type udpRelay struct {
	front  *net.UDPConn
	target netip.AddrPort
	// mutate returns what is passed on instead of a datagram, which it may change;
	// number counts those of the direction. nil passes on everything.
	mutate func(conversation int, toServer bool, number int, b []byte) [][]byte
	keep   bool // record

	wg     sync.WaitGroup
	mu     sync.Mutex
	now    map[netip.AddrPort]*flow // by client; nil means that it has said its last
	tape   []*flow
	closed bool
}

// flow is one conversation.
type flow struct {
	number int
	up     *net.UDPConn // the server sees the client at its address
	client netip.AddrPort

	mu      sync.Mutex
	tape    []passed
	counts  [2]int // by direction
	inBytes atomic.Int64
}

// passed is a datagram on the tape.
type passed struct {
	toServer bool
	data     []byte
}

func newUDPRelay(t testing.TB, target crust.Endpoint) *udpRelay {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	front.SetReadBuffer(4 << 20) //nolint:errcheck // a relay that loses is still one
	r := &udpRelay{front: front, target: target.Addr, now: map[netip.AddrPort]*flow{}, keep: true}
	r.wg.Go(r.run)
	t.Cleanup(r.stop)
	return r
}

// stop ends the relay and returns when nothing more goes onto the tape.
func (r *udpRelay) stop() {
	r.mu.Lock()
	r.closed = true
	for _, f := range r.now {
		if f != nil {
			f.up.Close() //nolint:errcheck // it is over
		}
	}
	clear(r.now)
	r.mu.Unlock()
	r.front.Close() //nolint:errcheck // it is over
	r.wg.Wait()
}

// at returns where the relay can be dialled.
func (r *udpRelay) at() crust.Endpoint {
	return crust.Endpoint{Transport: crust.UTP, Addr: r.front.LocalAddr().(*net.UDPAddr).AddrPort()}
}

// forget ends the conversation of a client. What still comes from there is lost.
func (r *udpRelay) forget(client netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.now[client]; f != nil {
		f.up.Close() //nolint:errcheck // the conversation is over
		r.now[client] = nil
	}
}

// flowOf returns the conversation of a client, and begins one.
func (r *udpRelay) flowOf(client netip.AddrPort) *flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, had := r.now[client]
	if had || r.closed {
		return f
	}
	up, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.target))
	if err != nil {
		return nil
	}
	f = &flow{number: len(r.tape), up: up, client: client}
	r.now[client] = f
	r.tape = append(r.tape, f)
	r.wg.Go(func() { r.back(f) })
	return f
}

func (r *udpRelay) run() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if f := r.flowOf(from); f != nil {
			for _, b := range r.pass(f, true, buf[:n]) {
				f.up.Write(b) //nolint:errcheck // lost on the way
			}
		}
	}
}

// back passes on what the server says, until the conversation is forgotten.
func (r *udpRelay) back(f *flow) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.up.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		f.inBytes.Add(int64(n))
		for _, b := range r.pass(f, false, buf[:n]) {
			r.front.WriteToUDPAddrPort(b, f.client) //nolint:errcheck // lost on the way
		}
	}
}

// pass records a datagram and returns what becomes of it.
func (r *udpRelay) pass(f *flow, toServer bool, b []byte) [][]byte {
	side := 0
	if toServer {
		side = 1
	}
	f.mu.Lock()
	number := f.counts[side]
	f.counts[side]++
	if r.keep {
		f.tape = append(f.tape, passed{toServer, append([]byte(nil), b...)})
	}
	f.mu.Unlock()
	if r.mutate != nil {
		return r.mutate(f.number, toServer, number, b)
	}
	return [][]byte{b}
}

// datagrams returns what a direction has said so far, in order.
func (f *flow) datagrams(toServer bool) (list [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.tape {
		if p.toServer == toServer {
			list = append(list, p.data)
		}
	}
	return list
}

// ears are sockets that only listen for answers that must not come.
type ears struct {
	conns []*net.UDPConn
	wg    sync.WaitGroup
	heard atomic.Int64 // bytes
	count atomic.Int64
}

// listen opens n sockets to a victim.
func newEars(t testing.TB, victim netip.AddrPort, n int) *ears {
	t.Helper()
	e := &ears{}
	for range n {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(victim))
		if err != nil {
			t.Fatal(err)
		}
		e.conns = append(e.conns, c)
		e.wg.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := c.Read(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					e.heard.Add(int64(n))
					e.count.Add(1)
				}
			}
		})
	}
	return e
}

// close closes the sockets, after a moment in which late answers may come.
func (e *ears) close() {
	time.Sleep(100 * time.Millisecond)
	for _, c := range e.conns {
		c.Close() //nolint:errcheck // it has heard enough
	}
	e.wg.Wait()
}
