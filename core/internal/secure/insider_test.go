package secure_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// insider is a member of the network with bad manners.
type insider struct {
	t   *testing.T
	r   *rand.Rand
	cfg *secure.Config
	at  string
}

// join makes a link to the service and takes its part in the adoption, which is
// now and then malformed too.
func (i *insider) join(victim crust.PeerID) (net.Conn, *secure.Link) {
	conn, err := net.Dial("tcp", i.at)
	if err != nil {
		i.t.Error(err)
		return nil, nil
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a closed one shows at once
	link, err := secure.Initiate(conn, i.cfg, victim)
	if err != nil {
		i.t.Error(err)
		return conn, nil
	}
	frames := wire.Claim{Seq: i.r.Uint64() >> 1, Only: i.r.IntN(9) == 0, Held: make([]uint64, i.r.IntN(4))}.Append(nil)
	if i.cfg.Key.ID().Compare(victim) > 0 {
		frames = wire.Chosen{Session: wire.SessionID{1, byte(i.r.Uint32())}, Received: uint64(i.r.IntN(2))}.Append(nil)
	}
	if i.r.IntN(8) == 0 {
		frames = i.spoil(frames)
	}
	out := link.Seal.Seal(link.First, wire.Header{Type: wire.TypeControl}, frames)
	if _, err := conn.Write(out); err != nil {
		return conn, nil
	}
	return conn, link
}

// spoil changes a copy of b.
func (i *insider) spoil(b []byte) []byte {
	out := bytes.Clone(b)
	for range 1 + i.r.IntN(3) {
		if len(out) == 0 {
			break
		}
		switch at := i.r.IntN(len(out)); i.r.IntN(4) {
		case 0:
			out[at] ^= 1 << i.r.IntN(8)
		case 1:
			out[at] = byte(i.r.Uint32())
		case 2:
			out = out[:at]
		case 3:
			out = append(out[:at], out[min(len(out), at+1+i.r.IntN(9)):]...)
		}
	}
	return out
}

// record is a sealed record that is valid, or malformed on the inside only.
func (i *insider) record(link *secure.Link) []byte {
	frames := wire.AppendMessage(nil, uint8(i.r.IntN(256)), make([]byte, i.r.IntN(200)))
	kind := wire.TypeFrames
	switch i.r.IntN(10) {
	case 0:
		kind, frames = wire.TypeControl, wire.AppendPing(nil, wire.FramePing, i.r.Uint64())
	case 1:
		kind, frames = wire.TypeControl, wire.AppendPing(nil, wire.FramePong, i.r.Uint64())
	case 7:
		kind, frames = wire.TypeControl, wire.AppendAck(nil, i.r.Uint64()>>i.r.IntN(65))
	case 2:
		frames = wire.AppendFrame(frames, wire.FrameType(i.r.IntN(256)), make([]byte, i.r.IntN(30))...)
	case 3:
		frames = i.spoil(frames)
	case 4: // many open pieces, of sizes that are never sent
		h := wire.Header{Type: wire.TypePiece, Priority: uint8(i.r.IntN(9)), Left: wire.MaxMessage}
		return link.Seal.Seal(nil, h, []byte{1})
	case 5:
		h := wire.Header{Type: wire.RecordType(i.r.IntN(5)), Priority: uint8(i.r.IntN(2)), Left: i.r.IntN(1 << 22)}
		return link.Seal.Seal(nil, h, frames)
	case 6:
		frames = nil
	}
	return link.Seal.Seal(nil, wire.Header{Type: kind}, frames)
}

// TestInsidersAgainstAService lets members of the network break the protocol in
// every way they can, in thousands of sessions, against a real service.
func TestInsidersAgainstAService(t *testing.T) {
	const network, attackers, sessions = "insiders", 4, 300
	key, err := identity.FromSeed(bytes.Repeat([]byte{0x60}, 32))
	if err != nil {
		t.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	s, err := crust.New(crust.Config{
		Identity: key, NetworkName: network, Listen: []crust.Endpoint{endpoint.New(endpoint.TCP, netip.MustParseAddrPort("127.0.0.1:0"))},
		CloseTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // checked below
	var connected, lost atomic.Int64
	over := make(chan struct{}, 2*attackers*sessions)
	var reader sync.WaitGroup
	reader.Go(func() {
		for e := range s.Events(context.Background()) {
			switch e.Type {
			case crust.EventConnected:
				connected.Add(1)
			case crust.EventLost:
				lost.Add(1)
				over <- struct{}{}
			}
		}
	})
	var count atomic.Int64
	var wg sync.WaitGroup
	for a := range attackers {
		k, err := identity.Generate()
		if err != nil {
			t.Fatal(err)
		}
		i := &insider{
			t: t, r: rand.New(rand.NewPCG(uint64(a), 77)), at: s.Listeners()[0].Addr.String(),
			cfg: &secure.Config{Key: k, Network: secure.NewNetwork(network), Hello: wire.Hello{Ciphers: 1 + 2*uint8(a%2), Instance: uint64(a)}},
		}
		wg.Go(func() {
			for range sessions {
				i.cfg.Hello.LostAfter = i.r.Uint32() >> i.r.IntN(32)
				i.cfg.Hello.Instance += uint64(i.r.IntN(2))
				conn, link := i.join(s.ID())
				for range i.r.IntN(40) {
					if link == nil {
						break
					}
					count.Add(1)
					if _, err := conn.Write(i.record(link)); err != nil {
						break
					}
				}
				if conn != nil {
					conn.Close() //nolint:errcheck // an end without Close is one more insult
				}
			}
		})
	}
	honest(t, s, network) // during the attack
	wg.Wait()
	t.Logf("count: %d records of badly behaved members of the network over sockets, in %d sessions of %d links", count.Load(), connected.Load(), attackers*sessions)
	if connected.Load() < attackers*sessions/4 || count.Load() < attackers*sessions {
		t.Error("most links did not get as far as a session")
	}
	honest(t, s, network)
	for timer := time.NewTimer(20 * time.Second); lost.Load() != connected.Load(); {
		select {
		case <-over:
		case <-timer.C:
			t.Fatalf("%d sessions began and %d ended", connected.Load(), lost.Load())
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	reader.Wait()
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); { // the last ones may be on their very last instruction
		if runtime.NumGoroutine() <= goroutines {
			return
		}
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", n, goroutines, stacks[:runtime.Stack(stacks, true)])
	}
}

// honest checks that a peer with good manners is still welcome.
func honest(t *testing.T, s *crust.Service, network string) {
	t.Helper()
	h, err := crust.New(crust.Config{NetworkName: network, NoListen: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close() //nolint:errcheck // the check is done
	if err := h.ConnectEndpoint(crust.Contact{Endpoint: s.Listeners()[0], Peer: s.ID()}, 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for e := range h.Events(ctx) {
		if e.Type == crust.EventConnected {
			return
		}
	}
	t.Error("an honest peer could not connect within a second")
}
