package crust_test

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// beggar is a peer that has a service send probes.
type beggar struct {
	helper *node
	host   *simnet.Host
	evil   *evilRelay
	sess   *session.Session // of the beggar with the service
	asked  int              // bytes of frames that asked for them

	mu      sync.Mutex
	answers map[wire.ReachResult]int
	last    wire.Reached
	sent    map[netip.Addr]int // datagrams of the service, by where they went
	bytes   int
}

func begging(t *testing.T, cfg crust.Config, f func(t *testing.T, b *beggar)) {
	plain := func(h *simnet.Host, _ netip.Addr) netio.Network { return h }
	beggingBy(t, cfg, plain, func(t *testing.T, _ *simnet.Net, b *beggar) { f(t, b) })
}

// beggingBy is begging with a network of the service that wraps that of its host.
func beggingBy[N netio.Network](t *testing.T, cfg crust.Config, wrap func(h *simnet.Host, beggar netip.Addr) N, f func(t *testing.T, internet *simnet.Net, b *beggar)) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		keys := sortedKeys(t, 2)
		b := &beggar{answers: map[wire.ReachResult]int{}, sent: map[netip.Addr]int{}}
		b.host = internet.Host("198.51.100.3")
		b.evil = newEvilRelay(t, b.host, keys[1], nil)
		b.evil.signal = func(_ crust.PeerID, kind wire.FrameType, body []byte) {
			if kind == wire.FrameReached {
				said, err := wire.ParseReached(body)
				if err != nil {
					t.Error(err)
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				b.answers[said.Result]++
				b.last = said
			}
		}
		cfg = over(cfg, "0.0.0.0", "tcp", "utp")
		cfg.Identity = keys[0]
		b.helper = newNode(t, crust.On(wrap(internet.Host("198.51.100.1"), netip.MustParseAddr("198.51.100.3")), cfg))
		if err := b.helper.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("198.51.100.3:9"), Peer: b.evil.id}, 1); err != nil {
			t.Fatal(err)
		}
		b.helper.next(crust.EventConnected)
		synctest.Wait()
		b.evil.mu.Lock()
		b.sess = b.evil.sessions[b.helper.ID()]
		b.evil.mu.Unlock()
		b.sess.SendControl(wire.Echo{Tag: 7, Port: 40000, TCP: 9}.Append(nil))
		time.Sleep(2 * time.Second) // the echoes that this lets come
		internet.Watch(func(from, to netip.AddrPort, data []byte) {
			if from.Addr() == netip.MustParseAddr("198.51.100.1") {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.sent[to.Addr()]++
				b.bytes += len(data)
			}
		})
		f(t, internet, b)
		internet.Watch(nil)
		b.evil.close()
		b.helper.Close()
	})
}

// ask asks for a probe.
func (b *beggar) ask(t crust.Transport, port uint16) {
	frame := wire.Reach{Nonce: [wire.ProbeNonce]byte{byte(b.asked), byte(b.asked >> 8), byte(b.asked >> 16)}, Transport: t, Port: port}.Append(nil)
	b.asked += len(frame)
	b.sess.SendControl(frame)
}

// TestReachIsBounded: however often a peer asks, it gets a few single datagrams, at its
// own address, of about what it has spent; and the others wait for as long as it takes.
func TestReachIsBounded(t *testing.T) {
	begging(t, crust.Config{}, func(t *testing.T, b *beggar) {
		const many, seconds = 500, 50
		for range seconds {
			for range many / seconds {
				b.ask(crust.UTP, 53)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		done := b.answers[wire.ReachDone]
		if done < 12 || done > 12+seconds/5+1 || b.answers[wire.ReachLimit] != many-done {
			t.Errorf("answers: %v", b.answers)
		}
		victim := netip.MustParseAddr("198.51.100.3")
		if len(b.sent) != 1 || b.sent[victim] != done {
			t.Errorf("datagrams: %v", b.sent)
		}
		// A request costs its frame, a record around it, and the headers of TCP and IP.
		if spent := b.asked + many*(wire.SealedHeader+wire.TagSize); b.bytes > spent {
			t.Errorf("%d bytes for %d", b.bytes, spent)
		}
		if r, from := b.last, b.last.To; r.Result == wire.ReachDone && from != victim {
			t.Errorf("sent to %v", from)
		}
	})
}

// TestReachIsSilent: of a connection nobody is told how it ended, so nothing can be
// learned of the ports behind an address that several share.
func TestReachIsSilent(t *testing.T) {
	begging(t, crust.Config{}, func(t *testing.T, b *beggar) {
		var said []wire.Reached
		for _, port := range []uint16{9, 10} { // one listens, the other one refuses
			b.ask(crust.TCP, port)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			b.mu.Lock()
			b.last.Nonce, b.last.From = [wire.ProbeNonce]byte{}, 0 // which are random
			said = append(said, b.last)
			b.mu.Unlock()
		}
		if said[0] != said[1] || said[0].Result != wire.ReachDone {
			t.Errorf("%+v, %+v", said[0], said[1])
		}
	})
}

// TestReachRefused: what is not done is told.
func TestReachRefused(t *testing.T) {
	begging(t, crust.Config{Relay: crust.RelayOff}, func(t *testing.T, b *beggar) {
		b.ask(crust.UTP, 53)
		b.ask(crust.TCP, 53)
		time.Sleep(time.Second)
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.answers[wire.ReachOff] != 2 || len(b.sent) != 0 {
			t.Errorf("off: %v, sent %v", b.answers, b.sent)
		}
	})
	begging(t, crust.Config{}, func(t *testing.T, b *beggar) {
		b.ask(crust.Tracer, 53)
		b.ask(200, 53)
		b.sess.SendControl(wire.Reached{Result: wire.ReachLimit}.Append(nil)) // an answer to nothing
		time.Sleep(time.Second)
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.answers[wire.ReachCannot] != 2 || len(b.sent) != 0 || b.helper.Stats().Peers != 1 {
			t.Errorf("impossible: %v, sent %v", b.answers, b.sent)
		}
		b.sess.SendControl(wire.Reached{}.Append(nil)) // malformed
		if e := b.helper.next(crust.EventLost); e.Code() != crust.CodeProtocol {
			t.Errorf("after a malformed one: %v", e.Err())
		}
	})
}
