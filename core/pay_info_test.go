package crust_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestPayInfo: an info of an attacker that names a victim as often as it can has one
// call of Connect send no more than 64 KiB there, however long the call lasts.
func TestPayInfo(t *testing.T) {
	for _, c := range []struct {
		transports []crust.Transport
		lasts      time.Duration
		least      int
	}{
		{[]crust.Transport{crust.TCP, crust.UTP}, time.Minute, 10_000},
		{[]crust.Transport{crust.UTP}, time.Minute, 10_000},
		{[]crust.Transport{crust.TCP}, time.Minute, 1_000},
		{nil, time.Hour, 10_000},
		{[]crust.Transport{crust.TCP, crust.UTP}, time.Hour, 10_000},
	} {
		t.Run(fmt.Sprint(c.transports, c.lasts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				internet := simnet.New(1)
				internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
				victim := netip.MustParseAddr(victimOf)
				network := &counted{Network: internet.Host("198.51.100.2"), victim: victim}
				internet.Watch(func(_, to netip.AddrPort, data []byte) {
					if to.Addr() == victim {
						network.add(28 + len(data))
					}
				})
				internet.Silence(network.Network.(*simnet.Host), internet.Host(victimOf)) // it says nothing
				keys := sortedKeys(t, 2)
				a := newNode(t, crust.On(network, over(crust.Config{Identity: keys[0], ConnectTimeout: c.lasts}, "0.0.0.0", "tcp", "utp")))
				defer a.Close()
				a.info() // as one that has been given away
				nat := wire.NAT{Mapping: wire.EndpointIndependent, Filtering: wire.AddressPortDependent, Ports: wire.PortsPreserving, Agreed: true, External: netip.AddrPortFrom(victim, 4000)}
				info := wire.Info{Peer: keys[1].ID(), Expires: uint64(time.Now().Add(2 * time.Hour).Unix()), UDP: nat, TCP: nat}
				for port := range uint16(wire.MaxEndpoints) {
					if len(c.transports) > 0 {
						transport := c.transports[int(port)%len(c.transports)]
						info.Endpoints = append(info.Endpoints, endpoint.New(transport, netip.AddrPortFrom(victim, 4000+port)))
					}
				}
				raw := info.Append(nil, keys[1].Sign)
				if err := a.Connect(raw, 7); err != nil {
					t.Fatal(err)
				}
				if e := a.lastly(t, 7); e.Type != crust.EventConnectFailed {
					t.Errorf("%v", e.Type)
				}
				time.Sleep(time.Minute)
				network.mu.Lock()
				defer network.mu.Unlock()
				t.Logf("the victim got %d bytes for an info of %d", network.bytes, len(raw))
				if network.bytes > 64<<10 || network.bytes < c.least {
					t.Error("that is too much, or next to nothing")
				}
			})
		})
	}
}

// lastly is final, however long that takes.
func (n *node) lastly(t *testing.T, token uint64) crust.Event {
	t.Helper()
	for e := range n.Events(t.Context()) {
		if e.Token == token {
			return e
		}
	}
	t.Fatal("no final event")
	return crust.Event{}
}

// weighed is a network of which the bytes are counted that go to ports of an address
// which did not ask, with all headers.
type weighed struct {
	counted
	ports map[uint16]bool
}

// weighedConn is a connection to such a port.
type weighedConn struct {
	net.Conn
	w *weighed
}

const tcpHeaders = 20 + 32 // with time stamps

func (w *weighed) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	if !w.ports[remote.Port()] {
		return w.Network.Dial(ctx, local, remote)
	}
	conn, err := w.counted.Dial(ctx, local, remote) // counts the SYN
	if err != nil {
		return nil, err
	}
	w.add(3 * tcpHeaders) // the end of the handshake, and that of the connection with what it answers
	return weighedConn{conn, w}, nil
}

func (c weighedConn) Write(b []byte) (int, error) {
	c.w.add(tcpHeaders + len(b))
	return c.Conn.Write(b)
}

// TestReachRatio: whoever has a service send probes to ports of its own address, of
// another machine behind the same NAT perhaps, spends more than a third of what goes
// there, whether anybody listens or not.
func TestReachRatio(t *testing.T) {
	for name, transport := range map[string]crust.Transport{"nobody by UDP": crust.UTP, "nobody by TCP": crust.TCP, "somebody by TCP": crust.TCP} {
		t.Run(name, func(t *testing.T) {
			var w *weighed
			wrap := func(h *simnet.Host, beggar netip.Addr) *weighed {
				w = &weighed{counted: counted{Network: h, victim: beggar}, ports: map[uint16]bool{53: true}}
				return w
			}
			beggingBy(t, crust.Config{}, wrap, func(t *testing.T, internet *simnet.Net, b *beggar) {
				internet.Watch(func(_, to netip.AddrPort, data []byte) {
					if to == netip.AddrPortFrom(w.victim, 53) {
						w.add(28 + len(data))
					}
				})
				if name == "somebody by TCP" {
					l, err := b.host.Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:53"))
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					b.evil.lives.Go(func() {
						for {
							conn, err := l.Accept()
							if err != nil {
								return
							}
							time.AfterFunc(time.Second, func() { conn.Close() })
						}
					})
				}
				w.mu.Lock()
				w.bytes = 0
				w.mu.Unlock()
				before := b.sess.Counters().WireSent
				for range 100 {
					b.ask(transport, 53)
					time.Sleep(5 * time.Second)
				}
				synctest.Wait()
				// Each request is a packet, and each answer takes one that acknowledges it.
				spent := int(b.sess.Counters().WireSent-before) + 2*100*tcpHeaders
				w.mu.Lock()
				defer w.mu.Unlock()
				t.Logf("%d bytes for %d, %.2f for each; %v", w.bytes, spent, float64(w.bytes)/float64(spent), b.answers)
				if w.bytes > 3*spent || w.bytes == 0 || b.answers[wire.ReachDone] < 50 {
					t.Errorf("%d bytes for %d; %v", w.bytes, spent, b.answers)
				}
			})
		})
	}
}
