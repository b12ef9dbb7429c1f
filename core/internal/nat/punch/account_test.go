package punch

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

var stranger = netip.MustParseAddr("198.51.100.99")

func TestAccount(t *testing.T) {
	a := new(Account)
	if a.Spend(stranger, 1) || a.Left() != 0 {
		t.Error("an empty account pays")
	}
	a.Earn(100)
	if !a.Spend(stranger, 60) || a.Spend(stranger, 41) || a.Left() != 40 {
		t.Errorf("%d are left of 100 less 60", a.Left())
	}
	a.Agree(true)
	a.Earn(100)
	a.Earn(-5)
	if a.Left() != 40+300 {
		t.Errorf("%d are left, want 40 and three times 100", a.Left())
	}
	a.divide(64)
	if a.spend(ofTCP, stranger, 256) || !a.spend(ofTCP, stranger, 255) || a.spend(ofUDP, stranger, 86) || !a.spend(ofUDP, stranger, 80) {
		t.Errorf("a quarter of 340 is not UDP's: %+v", a)
	}
	if a.Spend(stranger, 6) || !a.Spend(stranger, 5) { // of what is left of UDP's
		t.Errorf("%+v", a)
	}
	rich := new(Account)
	rich.divide(128)
	rich.Earn(2*cushion + 200)
	for range cushion/100 + 2 { // its own, and what the other can spare
		if !rich.spend(ofUDP, stranger, 100) {
			t.Fatalf("%+v", rich)
		}
	}
	if rich.spend(ofUDP, stranger, 1) || !rich.Spend(stranger, cushion) || rich.Left() != 0 {
		t.Errorf("%+v", rich)
	}
	a.Earn(4)
	a.Book(stranger, 100)
	if a.Left() >= 0 || a.spend(ofUDP, stranger, 1) {
		t.Errorf("it pays though it owes %d", -a.Left())
	}
	a.Prove(netip.MustParseAddr("::ffff:198.51.100.99"))
	before := a.Left()
	a.Book(stranger, 1000)
	if !a.Spend(stranger, 1000) || a.Left() != before {
		t.Error("what goes to the peer is charged")
	}
	for i := range 1000 {
		a.Prove(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if len(a.proven) > maxProven {
		t.Errorf("%d addresses are remembered", len(a.proven))
	}
}

func TestCosts(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct{ got, want int }{
		{PacketCost(stranger, 64), 92}, {PacketCost(six, 64), 112}, {PacketCost(netip.MustParseAddr("::ffff:1.2.3.4"), 64), 92},
		{DialCost(stranger, 0), 60}, {DialCost(stranger, 999*time.Millisecond), 60}, {DialCost(stranger, time.Second), 120}, {DialCost(six, 2500*time.Millisecond), 240},
	} {
		if c.got != c.want {
			t.Errorf("%d, want %d", c.got, c.want)
		}
	}
}

// cost returns what actions put on the wire.
func cost(acts []Action) (bytes int) {
	for _, a := range acts {
		switch a := a.(type) {
		case Send:
			bytes += PacketCost(a.To.Addr(), a.Size)
		case Dial:
			bytes += DialCost(a.To.Addr(), a.Timeout)
		}
	}
	return bytes
}

// TestPaid holds that a machine never sends more to an address that says nothing than
// what was earned, at any time, and that it uses most of it where it wants more; and
// that a payer knows how much it wants.
func TestPaid(t *testing.T) {
	for _, mine := range []wire.NAT{home, seq, blk, small, rnd} {
		for _, theirs := range []wire.NAT{{}, home, seq, blk, small, rnd} {
			for _, agreed := range []bool{true, false} {
				theirs.Agreed = agreed
				c := facing(mine, theirs)
				for i := range 8 { // some of others too
					a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7)
					c.Theirs.Candidates = append(c.Theirs.Candidates, endpoint.New(endpoint.UTP, a), endpoint.New(endpoint.TCP, a))
				}
				c.Account = new(Account)
				name := fmt.Sprintf("%v to %v, agreed %v", mine.Ports, theirs.Ports, agreed)
				earned, sent := paid(t, name, c)
				want := 1
				if agreed {
					want = Ratio
				}
				if sent > want*earned {
					t.Errorf("%s: %d bytes went out for %d", name, sent, earned)
				}
				turned := c
				turned.Mine, turned.Theirs, turned.Larger, turned.Account = c.Theirs, c.Mine, true, nil
				p := NewPayer(turned, epoch)
				wanted := 0
				for at := epoch; !at.After(epoch.Add(20 * time.Second)); at = at.Add(50 * time.Millisecond) {
					now := p.Until(at)
					if now < wanted {
						t.Fatalf("%s: it wants %d bytes, and later %d", name, wanted, now)
					}
					wanted = now
				}
				if least := min(wanted, want*earned); sent < least*9/10-200 {
					t.Errorf("%s: %d bytes went out, %d were earned and %d wanted", name, sent, earned, wanted)
				}
				rec := 0
				c.Account = rich()
				silent(t, c, func(_ time.Duration, acts []Action) { rec += cost(acts) }, nil)
				if rec > wanted*11/10+200 || rec < wanted*9/10-200 {
					t.Errorf("%s: it sends %d bytes, the payer said %d", name, rec, wanted)
				}
			}
		}
	}
}

// paid runs a machine that earns something now and then.
func paid(t *testing.T, name string, c Config) (earned, sent int) {
	ratio := 1
	if c.Theirs.UDP.Agreed {
		ratio = Ratio
	}
	silent(t, c, func(at time.Duration, acts []Action) {
		if sent += cost(acts); sent > ratio*earned {
			t.Fatalf("%s: %d bytes after %v, %d were earned", name, sent, at, earned)
		}
	}, func(at time.Duration) {
		if at%(100*time.Millisecond) == 0 && at < 2*time.Second {
			earned += 1200
			c.Account.Earn(1200)
		}
	})
	return earned, sent
}

// silent steps a machine each millisecond for 20 s, with nobody answering.
func silent(t *testing.T, c Config, note func(time.Duration, []Action), before func(time.Duration)) {
	t.Helper()
	m := New(c, epoch)
	type end struct {
		at time.Duration
		id int
	}
	var ends []end
	var next time.Time
	for at := time.Duration(0); at < 20*time.Second; at += time.Millisecond {
		now := epoch.Add(at)
		asked := at == 0
		if before != nil {
			before(at)
			asked = asked || at%(50*time.Millisecond) == 0
		}
		if at == 0 {
			m.Shoot(now)
		}
		for len(ends) > 0 && ends[0].at <= at {
			m.Dialled(now, ends[0].id, errTimeout)
			ends, asked = ends[1:], true
		}
		for asked || !next.IsZero() && !next.After(now) {
			asked = false
			var acts []Action
			acts, next = m.Poll(now)
			note(at, acts)
			for _, a := range acts {
				switch a := a.(type) {
				case Open:
					m.Opened(now, a.Sockets)
					asked = true
				case Dial:
					i := len(ends)
					for i > 0 && ends[i-1].at > at+a.Timeout {
						i--
					}
					ends = append(ends[:i], append([]end{{at + max(a.Timeout, time.Millisecond), a.ID}}, ends[i:]...)...)
				}
			}
		}
	}
}

// TestAllowed holds where nothing goes, whatever the peer says.
func TestAllowed(t *testing.T) {
	c := facing(home, home)
	c.Ours = []netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("fd00:1:2::5")}
	c.Never = []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("203.0.113.254")}
	same := c
	same.Mine.UDP.External = netip.MustParseAddrPort("198.51.100.2:1")
	for text, want := range map[string][2]bool{ // usually; when both have one external address
		"198.51.100.7:80": {true, true}, "198.51.100.7:0": {}, "[2001:db8::1]:7": {true, true},
		"127.0.0.1:7": {}, "[::1]:7": {}, "0.0.0.0:7": {}, "[::]:7": {}, "224.0.0.251:5353": {}, "[ff02::1]:7": {},
		"255.255.255.255:7": {}, "240.0.0.1:7": {}, "0.1.2.3:7": {}, "[::7f00:1]:7": {}, "[64:ff9b::7f00:1]:7": {}, "[100::1]:7": {},
		"192.168.77.9:7": {true, true}, "10.0.0.9:7": {false, true}, "172.16.0.9:7": {false, true}, "100.64.0.9:7": {false, true}, "169.254.0.9:7": {false, true},
		"[fd00:1:2:3::9]:7": {true, true}, "[fd00:1:3::9]:7": {false, true}, "[fe80::1]:7": {},
		"192.168.1.1:80": {}, "203.0.113.254:53": {}, "[::ffff:192.168.1.1]:80": {}, "[::ffff:127.0.0.1]:7": {},
	} {
		a := netip.MustParseAddrPort(text)
		if got := [2]bool{c.allowed(a), same.allowed(a)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	near := facing(home, home) // we have told an address of the block
	near.Mine.Candidates = []endpoint.Endpoint{endpoint.New(endpoint.TCP, netip.MustParseAddrPort("10.7.7.7:7"))}
	if !near.allowed(netip.MustParseAddrPort("10.0.0.9:7")) || near.allowed(netip.MustParseAddrPort("192.168.0.9:7")) {
		t.Error("what we have told does not say where we are")
	}
	// What must not be sent to is no target, be it the external endpoint of the facts.
	for _, to := range []string{"127.0.0.1:7", "10.0.0.9:7", "224.0.0.1:7"} {
		c := facing(home, rnd)
		c.Theirs.UDP.External, c.Theirs.TCP.External = netip.MustParseAddrPort(to), netip.MustParseAddrPort(to)
		rec := alone(t, c, 0, time.Millisecond)
		if len(rec.packets)+len(rec.dials) > 0 {
			t.Errorf("it went to %v and %v", rec.packets, rec.dials)
		}
	}
}

// TestLowPorts: the ports of services are not guessed, though the facts name them.
func TestLowPorts(t *testing.T) {
	low := blk
	low.Low, low.High = 1, 1100
	wide := rnd
	wide.Low, wide.High = 1, 1023
	for _, theirs := range []wire.NAT{low, wide, stepping(-3)} {
		theirs.External = netip.MustParseAddrPort("198.51.100.2:1100")
		c := facing(home, theirs)
		c.Theirs.UDP.External = theirs.External
		rec := alone(t, c, 0, time.Millisecond)
		for to := range rec.ports {
			if to.Port() < 1024 {
				t.Errorf("%v: it went to %v", theirs.Ports, to)
			}
		}
		if len(rec.ports) == 0 {
			t.Errorf("%v: it went nowhere", theirs.Ports)
		}
	}
}

// TestManyPorts: of the ports of one address only some are tried.
func TestManyPorts(t *testing.T) {
	c := facing(home, home)
	there := netip.MustParseAddr(them[:len("198.51.100.2")])
	for i := range MaxCandidates {
		c.Theirs.Candidates = append(c.Theirs.Candidates, endpoint.New(endpoint.UTP, netip.AddrPortFrom(there, uint16(7000+i))))
	}
	rec := alone(t, c, 0, time.Millisecond)
	if len(rec.ports) != 1+maxPorts {
		t.Errorf("it went to %d ports", len(rec.ports))
	}
}

// TestProof holds that an answer from an address that has not seen our packet proves
// nothing: it is answered once, as a probe is, and nothing is chosen.
func TestProof(t *testing.T) {
	for _, larger := range []bool{true, false} {
		c := facing(home, home)
		c.TCP, c.Larger = false, larger
		c.Account = new(Account)
		c.Account.Earn(10_000)
		b := &bench{t, New(c, epoch), epoch}
		b.m.Shoot(b.now)
		b.wait(time.Second)
		victim := netip.AddrPortFrom(stranger, 7)
		heard, sent := 0, 0
		for range 50 {
			for _, k := range []Kind{Answer, Probe} {
				b.m.Probe(b.now, Heard{From: victim, Kind: k, Size: MaxPacket})
				heard += PacketCost(stranger, MaxPacket)
				acts := b.wait(20 * time.Millisecond)
				if got := only[Nominated](acts); len(got) > 0 {
					t.Fatalf("it chose %v", got)
				}
				for _, x := range acts {
					if s, ok := x.(Send); ok && s.To == victim {
						sent += PacketCost(stranger, s.Size)
					}
				}
			}
		}
		if sent > heard+PacketCost(stranger, MaxPacket) || sent == 0 {
			t.Errorf("%d bytes went to who seemed to send %d", sent, heard)
		}
		if c.Account.Proven(stranger) {
			t.Error("it is taken for the peer")
		}
		b.m.Probe(b.now, Heard{From: victim, Kind: Answer, Size: MaxPacket, Proof: true})
		if got := only[Nominated](b.wait(20 * time.Millisecond)); len(got) == 1 != larger || !c.Account.Proven(stranger) {
			t.Errorf("with proof: %v", got)
		}
	}
}

// TestAnswerSize: an answer is not longer than what it answers.
func TestAnswerSize(t *testing.T) {
	c := facing(home, home)
	c.TCP = false
	b := &bench{t, New(c, epoch), epoch}
	b.m.Shoot(b.now)
	b.wait(time.Second)
	for i := range 200 {
		size := MinPacket + i%(MaxPacket-MinPacket+10)
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7)
		b.m.Probe(b.now, Heard{From: from, Kind: Probe, Size: size})
		for _, s := range sends(b.wait(30*time.Millisecond), Answer) {
			if s.To == from && s.Size > size || s.Size < MinPacket || s.Size > MaxPacket {
				t.Errorf("%d bytes answer %d", s.Size, size)
			}
		}
	}
}
