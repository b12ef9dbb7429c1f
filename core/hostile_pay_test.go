package crust_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	crust "github.com/libcrust/libcrust/core"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/session"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// counted is the network of a service of which every packet to one address is counted,
// with headers: datagrams by the internet, SYNs here, one for each second of a dial.
type counted struct {
	netio.Network
	victim netip.Addr

	mu    sync.Mutex
	bytes int
}

func (c *counted) Dial(ctx context.Context, local, remote netip.AddrPort) (net.Conn, error) {
	began := time.Now()
	conn, err := c.Network.Dial(ctx, local, remote)
	if remote.Addr() == c.victim {
		c.add(60 * (1 + int(time.Since(began)/time.Second)))
	}
	return conn, err
}

func (c *counted) add(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += bytes
}

// liar is a peer of an introducer, to which a service is connected as well, and knows
// where that service is. It tells the address of a victim in letters.
type liar struct {
	t      *testing.T
	evil   *evilRelay
	into   *node
	target *node
	at     netip.AddrPort // of the target's UDP socket
	host   *simnet.Host
	net    *counted
	spent  int
}

const victimOf = "203.0.113.66"

// lie has a liar do something, and returns how many bytes the victim got for each that
// the liar has spent.
func lie(t *testing.T, do func(l *liar)) (ratio float64) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		keys := sortedKeys(t, 3)
		l := &liar{t: t, host: internet.Host("198.51.100.3")}
		l.evil = newEvilRelay(t, l.host, keys[2], nil)
		l.evil.see = func(wire.FrameType, []byte) {}
		l.into = newNode(t, crust.On(internet.Host("198.51.100.1"), over(crust.Config{Identity: keys[0]}, "0.0.0.0", "tcp")))
		l.net = &counted{Network: internet.Host("198.51.100.2"), victim: netip.MustParseAddr(victimOf)}
		l.target = newNode(t, crust.On(l.net, over(crust.Config{Identity: keys[1]}, "0.0.0.0", "tcp", "utp")))
		l.at = contactOf(t, l.target, crust.UTP, "198.51.100.2").Endpoint.Addr
		internet.Watch(func(from, to netip.AddrPort, data []byte) {
			if to.Addr() == l.net.victim {
				l.net.add(28 + len(data))
			}
		})
		link(t, l.into, l.target)
		if err := l.into.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("198.51.100.3:9"), Peer: l.evil.id}, 1); err != nil {
			t.Fatal(err)
		}
		l.into.next(crust.EventConnected)
		time.Sleep(3 * time.Second)
		do(l)
		time.Sleep(time.Minute)
		l.net.mu.Lock()
		ratio = float64(l.net.bytes) / float64(max(1, l.spent))
		t.Logf("the victim got %d bytes for %d, %.2f for each", l.net.bytes, l.spent, ratio)
		l.net.mu.Unlock()
		l.evil.close()
		l.into.Close()
		l.target.Close()
	})
	return ratio
}

// send sends a frame with a letter to the introducer.
func (l *liar) send(frame, letter []byte) {
	l.evil.mu.Lock()
	sess := l.evil.sessions[l.into.ID()]
	l.evil.mu.Unlock()
	sess.SendControl(frame)
	l.spent += len(letter)
}

// write seals a letter to the target.
func (l *liar) write(w wire.Letter) []byte {
	w.Written = uint64(time.Now().UnixMilli())
	sealed, err := l.evil.secure.SealLetter(nil, l.target.ID(), w.Append(nil))
	if err != nil {
		l.t.Fatal(err)
	}
	return sealed
}

// meet sends an offer, and some time later go and pads.
func (l *liar) meet(id byte, w wire.Letter, pads int) *secure.ProbeKey {
	w.Kind, w.ID = wire.LetterOffer, [wire.MeetingID]byte{id}
	offer := l.write(w)
	l.send(wire.Seek{ID: w.ID, To: l.target.ID(), Hops: 1, Letter: offer}.Append(nil), offer)
	time.Sleep(500 * time.Millisecond)
	letter := l.write(wire.Letter{Kind: wire.LetterGo, ID: w.ID})
	l.send(wire.Reply{ID: w.ID, Letter: letter}.Append(nil), letter)
	key, err := l.evil.secure.NewProbeKey(l.target.ID(), w.ID)
	if err != nil {
		l.t.Fatal(err)
	}
	for n := range pads {
		pad, err := key.SealSize(nil, wire.Probe{Kind: wire.ProbePad, Token: uint64(n + 1)}, wire.MaxLetter)
		if err != nil {
			l.t.Fatal(err)
		}
		l.send(wire.Reply{ID: w.ID, Letter: pad}.Append(nil), pad)
		time.Sleep(60 * time.Millisecond)
	}
	return key
}

// claims are facts that name the victim.
func claims(ports wire.PortRule, agreed bool) wire.Letter {
	n := wire.NAT{Mapping: wire.AddressPortDependent, Filtering: wire.AddressPortDependent, Ports: ports, Low: 2000, High: 4000, Step: 1, Agreed: agreed}
	if ports == wire.PortsPreserving {
		n.Mapping = wire.EndpointIndependent
	}
	n.External = netip.MustParseAddrPort(victimOf + ":4000")
	w := wire.Letter{UDP: n, TCP: n}
	for port := range uint16(8) {
		at := netip.AddrPortFrom(n.External.Addr(), 80+port)
		w.Endpoints = append(w.Endpoints, endpoint.New(endpoint.TCP, at), endpoint.New(endpoint.UTP, at))
	}
	return w
}

// TestPayLyingPeer: whatever a peer says of its addresses, a victim there gets no more
// than three times what the peer has sent.
func TestPayLyingPeer(t *testing.T) {
	worst := 0.0
	for _, ports := range []wire.PortRule{wire.PortsPreserving, wire.PortsSequential, wire.PortsBlock, wire.PortsRandom} {
		for _, pads := range []int{0, 10, 40} {
			for _, agreed := range []bool{true, false} {
				ratio := lie(t, func(l *liar) { l.meet(1, claims(ports, agreed), pads) })
				most := 3.0
				if !agreed {
					most = 1
				}
				if ratio > most {
					t.Errorf("ports %d, %d pads, agreed %v: %.2f bytes for each", ports, pads, agreed, ratio)
				}
				worst = max(worst, ratio)
			}
		}
	}
	t.Logf("at most %.2f bytes for each that the attacker spent", worst)
	if worst < 0.5 {
		t.Error("nothing was sent: this test shows nothing")
	}
}

// TestPaySpoofed: a peer that sends probes as if they came from the victim, answers
// too, gets it no more than that, and never a first flight.
func TestPaySpoofed(t *testing.T) {
	for _, kind := range []wire.ProbeKind{wire.ProbeAsk, wire.ProbeAnswer, wire.ProbeNominate} {
		ratio := lie(t, func(l *liar) {
			key := l.meet(1, claims(wire.PortsPreserving, true), 0)
			for n := range 300 {
				d, err := key.SealSize(nil, wire.Probe{Kind: kind, Token: uint64(n + 1), Echo: uint64(n)}, secure.MinProbe)
				if err != nil {
					l.t.Fatal(err)
				}
				l.host.Forge(netip.MustParseAddrPort(victimOf+":4000"), l.at, d)
				l.spent += 28 + len(d)
				time.Sleep(10 * time.Millisecond)
			}
		})
		if ratio > 3 {
			t.Errorf("kind %d: %.2f bytes for each", kind, ratio)
		}
	}
}

// TestPayIntroducer: who carries letters and delivers them again, as often as he can,
// has a victim get no more than three times what that takes.
func TestPayIntroducer(t *testing.T) {
	ratio := lie(t, func(l *liar) {
		w := claims(wire.PortsRandom, true)
		w.Kind, w.ID = wire.LetterOffer, [wire.MeetingID]byte{1}
		offer, letter := l.write(w), l.write(wire.Letter{Kind: wire.LetterGo, ID: w.ID})
		key, err := l.evil.secure.NewProbeKey(l.target.ID(), w.ID)
		if err != nil {
			l.t.Fatal(err)
		}
		pad, err := key.SealSize(nil, wire.Probe{Kind: wire.ProbePad, Token: 1}, wire.MaxLetter)
		if err != nil {
			l.t.Fatal(err)
		}
		for range 5 {
			for range 3 {
				l.send(wire.Seek{ID: w.ID, To: l.target.ID(), Hops: 1, Letter: offer}.Append(nil), offer)
			}
			time.Sleep(200 * time.Millisecond)
			for range 3 {
				l.send(wire.Reply{ID: w.ID, Letter: letter}.Append(nil), letter)
				l.send(wire.Reply{ID: w.ID, Letter: pad}.Append(nil), pad)
			}
			time.Sleep(90 * time.Second)
		}
	})
	if ratio > 3 || ratio == 0 {
		t.Errorf("%.2f bytes for each", ratio)
	}
}

// TestPayObserver: a peer that tells a service a wrong address of its own, and is the only
// one to tell it any, has others send no more there than three times what it has sent.
func TestPayObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		internet := simnet.New(1)
		internet.SetDefaultLink(simnet.Link{Latency: 20 * time.Millisecond, Hops: 8})
		keys := sortedKeys(t, 3)
		evil := newEvilRelay(t, internet.Host("198.51.100.3"), keys[2], nil)
		evil.see = func(wire.FrameType, []byte) {}
		c := &counted{Network: internet.Host("198.51.100.2"), victim: netip.MustParseAddr(victimOf)}
		internet.Watch(func(_, to netip.AddrPort, data []byte) {
			if to.Addr() == c.victim {
				c.add(28 + len(data))
			}
		})
		a := newNode(t, crust.On(internet.Host("192.168.1.2"), over(crust.Config{Identity: keys[0], ConnectTimeout: 10 * time.Second}, "0.0.0.0", "tcp", "utp")))
		b := newNode(t, crust.On(c, over(crust.Config{Identity: keys[1]}, "0.0.0.0", "tcp", "utp")))
		all := func() (list []*session.Session) {
			evil.mu.Lock()
			defer evil.mu.Unlock()
			for _, s := range evil.sessions {
				list = append(list, s)
			}
			return list
		}
		// Letters go to the other side. What the attacker spends are they, and the lies: the
		// rest of what it sends, and all that goes around these, it would send anyway.
		spent := 0
		evil.signal = func(from crust.PeerID, kind wire.FrameType, body []byte) {
			if kind != wire.FrameSeek && kind != wire.FrameReply {
				return
			}
			evil.mu.Lock()
			defer evil.mu.Unlock()
			for id, s := range evil.sessions {
				if frame := wire.AppendFrame(nil, kind, body...); id != from {
					spent += len(frame)
					s.SendControl(frame)
				}
			}
		}
		for _, n := range []*node{a, b} {
			if err := n.ConnectEndpoint(crust.Contact{Endpoint: endpointAt("198.51.100.3:9"), Peer: evil.id}, 1); err != nil {
				t.Fatal(err)
			}
			n.next(crust.EventConnected)
		}
		time.Sleep(time.Second)
		for i := range uint64(10) {
			for _, s := range all() {
				frame := wire.AppendSeen(nil, netip.MustParseAddrPort(victimOf+":4000"))
				evil.mu.Lock()
				spent += len(frame)
				evil.mu.Unlock()
				s.SendControl(frame)
			}
			if err := a.ConnectPeer(b.ID(), i+2); err != nil {
				t.Fatal(err)
			}
			a.final(t, i+2)
			a.Disconnect(b.ID()) //nolint:errcheck // it may not have come about
			time.Sleep(30 * time.Second)
		}
		evil.mu.Lock()
		t.Logf("the victim got %d bytes for %d", c.bytes, spent)
		if c.bytes > 3*spent || c.bytes == 0 {
			t.Error("that is too much, or nothing")
		}
		evil.mu.Unlock()
		evil.close()
		a.Close()
		b.Close()
	})
}

// TestLoopbackIsOurs: who is told of a loopback address by a letter from elsewhere does
// not dial what listens there on its own machine.
func TestLoopbackIsOurs(t *testing.T) {
	loopback := crust.Config{Listen: []crust.Endpoint{endpointAt("tcp://127.0.0.1:0")}, ConnectTimeout: 10 * time.Second}
	relayWorld(t, 1, 1, "tcp", loopback, crust.Config{}, func(t *testing.T, w *relayed) {
		l, err := w.ha.Listen(t.Context(), w.b.Listeners()[0].Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				t.Error("the own loopback address was dialled")
				conn.Close()
			}
		}()
		if err := w.a.ConnectPeer(w.b.ID(), 7); err != nil {
			t.Fatal(err)
		}
		if e := w.a.final(t, 7); e.How() != crust.Relayed {
			t.Errorf("%v %v", e.Type, e.Err())
		}
		time.Sleep(time.Minute)
	})
}
