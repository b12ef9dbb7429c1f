package beacon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libcrust/libcrust/core/identity"
	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/netio"
	"github.com/libcrust/libcrust/core/internal/secure"
	"github.com/libcrust/libcrust/core/internal/simnet"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// attacker knows the network name, and speaks from a host of his own.
type attacker struct {
	t    *testing.T
	seal *secure.BeaconKey
	conn netio.CastConn
	all  netip.AddrPort
	from netip.Addr
}

// newAttacker makes one at the first segment of a host that is not the loopback one.
func newAttacker(t *testing.T, host *simnet.Host, network string) *attacker {
	segments, err := host.Segments()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		if s.Addr.IsLoopback() {
			continue
		}
		conn, err := host.ListenCast(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &attacker{t, sealer(t, network), conn, netip.AddrPortFrom(s.All, port), s.Addr}
	}
	t.Fatal("no segment")
	return nil
}

// contact makes a record by a key.
func contact(key *identity.Key, now time.Time, eps ...string) []byte {
	c := wire.Contact{Peer: key.ID(), Seq: uint64(now.UnixMilli()), Life: 3600, Endpoints: at(eps...).Endpoints}
	return c.Append(nil, key.Sign)
}

// hello makes the content of a hello from the attacker's address.
func (a *attacker) hello(key *identity.Key, eps ...string) wire.Beacon {
	return wire.Beacon{
		Kind: wire.BeaconHello, Flags: wire.BeaconFlagAsks, Time: uint64(time.Now().UnixMilli()), From: a.from,
		Doors: []wire.Door{{Transport: endpoint.TCP, Port: 666}}, Record: contact(key, time.Now(), eps...),
	}
}

// say sends a beacon to all, signed by a key, of the least size.
func (a *attacker) say(m wire.Beacon, key *identity.Key) []byte {
	a.t.Helper()
	d, err := a.seal.Seal(m.Append(nil, key.Sign), 0)
	if err != nil {
		a.t.Fatal(err)
	}
	a.repeat(d)
	return d
}

func (a *attacker) repeat(d []byte) {
	if err := a.conn.WriteTo(d, a.all); err != nil {
		a.t.Fatal(err)
	}
}

// under runs a station that is attacked from another host of its network.
func under(t *testing.T, f func(t *testing.T, net *simnet.Net, victim *station, a *attacker)) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		victim := newStation(t, net.Host("10.0.0.1"), "net", at("tcp://10.0.0.1:1"), false).run()
		time.Sleep(time.Minute)
		f(t, net, victim, newAttacker(t, net.Host("10.0.0.66"), "net"))
		victim.stop()
	})
}

// TestForgeries: whoever knows the network name can still not speak for others, nor of
// other places than his own.
func TestForgeries(t *testing.T) {
	under(t, func(t *testing.T, net *simnet.Net, victim *station, a *attacker) {
		honest, own := newKey(t), newKey(t)
		for name, change := range map[string]func(m *wire.Beacon) *identity.Key{
			"another's record": func(m *wire.Beacon) *identity.Key {
				m.Record = contact(honest, time.Now(), "tcp://10.0.0.7:1")
				return own
			},
			"a forged record":      func(m *wire.Beacon) *identity.Key { m.Record[60] ^= 1; return own },
			"from elsewhere":       func(m *wire.Beacon) *identity.Key { m.From = netip.MustParseAddr("10.0.0.7"); return own },
			"from the victim":      func(m *wire.Beacon) *identity.Key { m.From = netip.MustParseAddr("10.0.0.1"); return own },
			"of three hours ago":   func(m *wire.Beacon) *identity.Key { m.Time -= 3 * 3600_000; return own },
			"of three hours ahead": func(m *wire.Beacon) *identity.Key { m.Time += 3 * 3600_000; return own },
			"an expired record": func(m *wire.Beacon) *identity.Key {
				m.Record = contact(own, time.Now().Add(-2*time.Hour), "tcp://10.0.0.66:1")
				return own
			},
			"a record of the day after next": func(m *wire.Beacon) *identity.Key {
				m.Record = contact(own, time.Now().Add(48*time.Hour), "tcp://10.0.0.66:1")
				return own
			},
			"an answer to nothing":     func(m *wire.Beacon) *identity.Key { m.Kind = wire.BeaconAnswer; return own },
			"a goodbye with endpoints": func(m *wire.Beacon) *identity.Key { m.Kind = wire.BeaconGoodbye; return own },
			"no endpoint that can be near": func(m *wire.Beacon) *identity.Key {
				m.Doors, m.Record = nil, contact(own, time.Now(), "tcp://203.0.113.5:1")
				return own
			},
			"in the victim's name": func(m *wire.Beacon) *identity.Key {
				m.Record = contact(victim.key, time.Now(), "tcp://10.0.0.66:1")
				return victim.key
			},
		} {
			m := a.hello(own, "tcp://10.0.0.66:1")
			key := change(&m)
			a.say(m, key)
			time.Sleep(time.Second)
			if facts, _ := victim.told(); len(facts) > 0 || len(victim.Peers()) > 0 {
				t.Errorf("%s: %+v", name, facts)
			}
		}
		far := a.hello(own, "tcp://203.0.113.5:1", "tcp://10.0.0.66:5", "tcp://10.0.0.9:1", "tcp://127.0.0.1:22", "tcp://10.0.1.9:1")
		a.say(far, own)
		time.Sleep(time.Second)
		if list := victim.Peers(); len(list) != 1 || fmt.Sprint(list[0].Endpoints) != "[tcp://10.0.0.9:1 tcp://10.0.0.66:5 tcp://10.0.0.66:666]" {
			t.Errorf("of near and far endpoints these are believed: %+v", list)
		}
	})
}

// TestReplay: what was said once is not taken twice, and does not bring back who has
// gone; a goodbye does not work for the next life.
func TestReplay(t *testing.T) {
	under(t, func(t *testing.T, net *simnet.Net, victim *station, a *attacker) {
		w := watch(net)
		key := newKey(t)
		first := a.say(a.hello(key, "tcp://10.0.0.66:1"), key)
		time.Sleep(time.Second)
		victim.wants(t, "a hello", "+", &station{key: key})
		if n := len(w.take("10.0.0.1", "10.0.0.66")); n != 1 {
			t.Errorf("%d answers", n)
		}
		for range 20 {
			a.repeat(first)
			time.Sleep(time.Second)
		}
		m := a.hello(key, "tcp://10.0.0.66:1")
		m.Kind, m.Flags, m.Doors = wire.BeaconGoodbye, 0, nil
		c := wire.Contact{Peer: key.ID(), Seq: uint64(time.Now().UnixMilli()), Life: 60}
		m.Record = c.Append(nil, key.Sign)
		gone := a.say(m, key)
		time.Sleep(time.Second)
		victim.wants(t, "a goodbye", "-", &station{key: key})
		for range 20 {
			a.repeat(first)
			a.repeat(gone)
			time.Sleep(6 * time.Minute)
		}
		victim.wants(t, "what was said before it has gone")
		if n := len(w.take("10.0.0.1", "10.0.0.66")); n != 0 {
			t.Errorf("%d answers to what was said before", n)
		}
		a.say(a.hello(key, "tcp://10.0.0.66:1"), key)
		time.Sleep(time.Second)
		a.repeat(gone)
		time.Sleep(time.Second)
		victim.wants(t, "the next life", "+", &station{key: key})

		question := a.hello(key)
		question.Record, question.Doors = nil, nil
		d := a.say(question, key)
		w.take("", "")
		for range 20 {
			a.repeat(d)
			time.Sleep(time.Second)
		}
		if n := len(w.take("10.0.0.1", "10.0.0.66")); n > 1 {
			t.Errorf("%d answers to one question", n)
		}
	})
}

// TestLateAnswer: an answer that was overtaken by the goodbye of its sender does not bring it back.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New(1)
		a, w := newAttacker(t, net.Host("10.0.0.66"), "net"), watch(net)
		victim := newStation(t, net.Host("10.0.0.1"), "net", at("tcp://10.0.0.1:1"), false).run()
		time.Sleep(time.Second)
		hello, key := w.take("10.0.0.1", "")[0], newKey(t)
		answer := func() wire.Beacon {
			m := a.hello(key, "tcp://10.0.0.66:1")
			m.Kind, m.Flags, m.Echo = wire.BeaconAnswer, 0, nonce(hello.data)
			return m
		}
		say := func(m wire.Beacon) {
			d, err := a.seal.Seal(m.Append(nil, key.Sign), 0)
			if err == nil {
				err = a.conn.WriteTo(d, hello.from)
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		say(answer())
		victim.wants(t, "an answer", "+", &station{key: key})
		late := answer()
		time.Sleep(time.Second)
		m := a.hello(key)
		m.Kind, m.Flags, m.Doors = wire.BeaconGoodbye, 0, nil
		a.say(m, key)
		time.Sleep(time.Second)
		victim.wants(t, "a goodbye", "-", &station{key: key})
		say(late)
		victim.wants(t, "an answer that comes late")
		say(answer())
		victim.wants(t, "an answer of the next life", "+", &station{key: key})
		victim.stop()
	})
}

// TestOutsider: who does not know the name gets nothing for whatever he sends, of others
// and his own.
func TestOutsider(t *testing.T) {
	under(t, func(t *testing.T, net *simnet.Net, victim *station, a *attacker) {
		w := watch(net)
		key := newKey(t)
		stranger := newAttacker(t, net.Host("10.0.0.67"), "guess")
		stranger.say(stranger.hello(key, "tcp://10.0.0.67:1"), key)
		d := a.say(a.hello(key, "tcp://10.0.0.66:1"), key)
		time.Sleep(time.Second)
		w.take("", "")
		victim.told()
		stranger.repeat(d) // from another address than the one in it
		for n := range 900 {
			stranger.repeat(make([]byte, n))
		}
		for n := range d {
			d[n] ^= 1
			stranger.repeat(d)
			d[n] ^= 1
		}
		time.Sleep(time.Second)
		victim.wants(t, "what a stranger says")
		if n := len(w.take("10.0.0.1", "")); n > 0 {
			t.Errorf("%d answers to a stranger", n)
		}
	})
}

// TestAmplification: no more comes out than goes in, in datagrams and in bytes, of any
// address, and of one address no more than its budget.
func TestAmplification(t *testing.T) {
	under(t, func(t *testing.T, net *simnet.Net, victim *station, a *attacker) {
		w := watch(net)
		in := 0
		for range 2000 {
			key := newKey(t)
			m := a.hello(key, "tcp://10.0.0.66:1")
			in += len(a.say(m, key)) // of the least size
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		out, answers := 0, w.take("10.0.0.1", "10.0.0.66")
		for _, s := range answers {
			out += len(s.data)
			if len(s.data) > secure.MinBeacon {
				t.Fatalf("%d bytes for %d", len(s.data), secure.MinBeacon)
			}
		}
		if out > in || len(answers) > int(answered.burst+4*answered.rate) || len(answers) < int(answered.burst) {
			t.Errorf("%d answers, %d bytes for %d: %.3f", len(answers), out, in, float64(out)/float64(in))
		}
		if n := len(victim.Peers()); n > maxPerAddress {
			t.Errorf("%d peers of one address", n)
		}
		t.Logf("bytes out per byte in: %.3f", float64(out)/float64(in))
	})
}

// TestFlood: a flood of made-up peers from one address does not push out those of others,
// and one from many addresses is bounded.
func TestFlood(t *testing.T) {
	under(t, func(t *testing.T, net *simnet.Net, victim *station, a *attacker) {
		honest := map[identity.PeerID]bool{}
		for i := range 20 {
			key := newKey(t)
			honest[key.ID()] = true
			h := newAttacker(t, net.Host(fmt.Sprintf("10.0.0.%d", 100+i)), "net")
			h.say(h.hello(key, "tcp://10.0.0.100:1"), key)
		}
		time.Sleep(time.Second)
		hosts := []*attacker{a}
		for i := range 40 {
			hosts = append(hosts, newAttacker(t, net.Host(fmt.Sprintf("10.0.0.%d", 150+i)), "net"))
		}
		for i, h := range hosts {
			for range 70 {
				key := newKey(t)
				h.say(h.hello(key, "tcp://10.0.0.66:1"), key)
				time.Sleep(10 * time.Millisecond)
			}
			if n := len(victim.Peers()); n > min(maxPeers, 20+(i+1)*maxPerAddress) {
				t.Fatalf("%d peers after %d addresses", n, i+1)
			}
		}
		if n := len(victim.Peers()); n != maxPeers {
			t.Errorf("%d peers of %d", n, maxPeers)
		}
		kept := 0
		for _, p := range victim.Peers() {
			if honest[p.ID] {
				kept++
			}
		}
		if kept != len(honest) {
			t.Errorf("%d of %d honest ones are left", kept, len(honest))
		}
		victim.mu.Lock()
		facts := len(victim.facts)
		victim.mu.Unlock()
		if facts > 2*70*41+20 {
			t.Errorf("%d facts", facts)
		}
	})
}

// TestTimely: clocks may differ by the window, and no more.
func TestTimely(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	ms := func(d time.Duration) uint64 { return uint64(now.Add(d).UnixMilli()) }
	for _, good := range []uint64{ms(0), ms(window), ms(-window)} {
		if !timely(good, now) {
			t.Errorf("%d is refused", good)
		}
	}
	for _, bad := range []uint64{1, 1<<48 - 1, ms(window + time.Millisecond), ms(-window - time.Millisecond)} {
		if timely(bad, now) {
			t.Errorf("%d is taken", bad)
		}
	}
}

// TestTablesAreBounded: what is remembered of those that are gone, of questions and of
// addresses has a bound.
func TestTablesAreBounded(t *testing.T) {
	var tab table
	tab.init()
	for i := range uint64(3 * maxGone) {
		id := identity.PeerID{byte(i >> 16), byte(i >> 8), byte(i)}
		tab.depart(id, i+1)
		tab.depart(id, i)
		if tab.gone[id] != i+1 {
			t.Fatal("a departure is forgotten at once, or was set back")
		}
	}
	if len(tab.gone) != maxGone {
		t.Errorf("%d that are gone", len(tab.gone))
	}
	for i := range 5 * maxNonces {
		id := nonce{byte(i >> 16), byte(i >> 8), byte(i)}
		if !tab.fresh(id) || tab.fresh(id) {
			t.Fatal("a question is not new, or new twice")
		}
	}
	if n := len(tab.now) + len(tab.old); n > 2*maxNonces {
		t.Errorf("%d questions", n)
	}
	now := time.Now()
	for i := range 2 * maxBudgets {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if tab.taken.spend(a, taken, now) != (i < maxBudgets) {
			t.Fatalf("address %d", i)
		}
	}
	if now = now.Add(time.Second); !tab.taken.spend(netip.MustParseAddr("10.9.9.9"), taken, now) || len(tab.taken) > maxBudgets {
		t.Errorf("%d budgets", len(tab.taken))
	}
	spent := 0
	for range 1000 {
		if tab.answers.spend(answering, now) {
			spent++
		}
	}
	if again := tab.answers.spend(answering, now.Add(time.Second)); spent != int(answering.burst) || !again {
		t.Errorf("%d at once, and a second later one more: %v", spent, again)
	}
}

// TestNoiseIsNoTrouble: whatever comes, nothing happens; a fuzz target of the parser is
// in wire.
func TestNoiseIsNoTrouble(t *testing.T) {
	under(t, func(t *testing.T, net *simnet.Net, victim *station, a *attacker) {
		for _, content := range []string{"", "x", strings.Repeat("\x01", 600), "\x02" + strings.Repeat("\x00", 599), strings.Repeat("\xff", 600)} {
			d, err := a.seal.Seal([]byte(content), 0)
			if err != nil {
				t.Fatal(err)
			}
			a.repeat(d)
		}
		time.Sleep(time.Second)
		victim.wants(t, "noise")
	})
}
