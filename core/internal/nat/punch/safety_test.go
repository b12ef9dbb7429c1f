package punch

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// record is what a machine did that nobody answered.
type record struct {
	packets, dials map[netip.Addr]int
	at             []time.Duration // of packets
	failed         map[endpoint.Transport]error
	chosen         []Nominated
	ports          map[netip.AddrPort]int
	openers        int
	last           time.Duration // when it did something
}

// alone runs a machine against nobody. Packets vanish; dials fail after slow, or at
// their timeout when that is sooner. go comes at the time word, if it is not negative.
func alone(t *testing.T, c Config, word, slow time.Duration) record {
	t.Helper()
	rec := record{packets: map[netip.Addr]int{}, dials: map[netip.Addr]int{}, failed: map[endpoint.Transport]error{}, ports: map[netip.AddrPort]int{}}
	w := &world{}
	m := New(c, w.time())
	var timer time.Time
	var pump func()
	pump = func() {
		acts, next := m.Poll(w.time())
		rec.note(t, w.now, acts)
		for _, a := range acts {
			switch a := a.(type) {
			case Open:
				m.Opened(w.time(), a.Sockets)
				w.after(0, pump)
			case Dial:
				err := errTimeout
				if slow < a.Timeout {
					err = errRefused
				}
				w.after(min(slow, a.Timeout), func() {
					m.Dialled(w.time(), a.ID, err)
					pump()
				})
			}
		}
		if timer = next; !next.IsZero() {
			w.after(next.Sub(w.time()), func() {
				if timer.Equal(next) {
					pump()
				}
			})
		}
	}
	pump()
	if word >= 0 {
		w.after(word, func() { m.Shoot(w.time()); pump() })
	}
	w.run(time.Minute)
	if w.events.Len() > 0 {
		t.Error("it goes on after a minute")
	}
	return rec
}

func (r *record) note(t *testing.T, now time.Duration, acts []Action) {
	t.Helper()
	for _, a := range acts {
		r.last = now
		switch a := a.(type) {
		case Send:
			r.packets[a.To.Addr()]++
			r.ports[a.To]++
			r.at = append(r.at, now)
			if a.Kind == Opener {
				r.openers++
			}
			if (a.Kind == Opener) != (a.TTL != 0) {
				t.Errorf("%+v", a)
			}
		case Dial:
			r.dials[a.To.Addr()]++
			if a.Timeout <= 0 || a.TTL > 0 && a.Hold == 0 && a.Timeout >= time.Second {
				t.Errorf("%+v", a)
			}
		case Nominated:
			r.chosen = append(r.chosen, a)
		case Failed:
			if r.failed[a.Transport] != nil {
				t.Errorf("%v failed twice", a.Transport)
			}
			r.failed[a.Transport] = a.Reason
		}
	}
}

// busiest returns the most packets in any span of time.
func (r *record) busiest(span time.Duration) (most int) {
	from := 0
	for i, at := range r.at {
		for at-r.at[from] >= span {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// rich returns an account that never lacks anything.
func rich() *Account {
	a := new(Account)
	a.Earn(endless)
	return a
}

const them = "198.51.100.2:30000"

func facing(mine, theirs wire.NAT) Config {
	mine.External, theirs.External = netip.MustParseAddrPort("203.0.113.1:5483"), netip.MustParseAddrPort(them)
	mine.Openers, theirs.Openers = true, true
	return Config{
		Mine: Side{UDP: mine, TCP: mine}, Theirs: Side{UDP: theirs, TCP: theirs}, RTT: 40 * time.Millisecond, UDP: true, TCP: true, Seed: 1,
		Account: rich(),
	}
}

// TestSilent holds the largest number of packets and dials that one address gets,
// for all pairs of NATs: it is kept, and it is not far from the truth.
func TestSilent(t *testing.T) {
	they := netip.MustParseAddrPort(them).Addr()
	for _, mine := range []wire.NAT{home, seq, blk, small, rnd} {
		for _, theirs := range []wire.NAT{{}, home, seq, blk, small, rnd} {
			for _, slow := range []time.Duration{time.Minute, time.Millisecond} {
				c := facing(mine, theirs)
				if slow < time.Second { // it lists mapped ports too
					mapped := netip.AddrPortFrom(they, 7777)
					c.Theirs.Candidates = []endpoint.Endpoint{endpoint.New(endpoint.UTP, mapped), endpoint.New(endpoint.TCP, mapped), endpoint.New(endpoint.UTP, mapped)}
				}
				name := fmt.Sprintf("%v to %v, dials fail after %v", mine.Ports, theirs.Ports, slow)
				rec := alone(t, c, 5*time.Second, slow)
				plan := Plan(c.Mine.UDP, c.Theirs.UDP, false)
				_, packets := c.Most()
				_, dials := c.MostDials()
				if got := rec.packets[they]; got > packets || got < packets/3 {
					t.Errorf("%s: %d packets, at most %d were to go", name, got, packets)
				}
				if got := rec.dials[they]; got > dials || slow < time.Second && got < dials/3 {
					t.Errorf("%s: %d dials, at most %d were to be made", name, got, dials)
				}
				if len(rec.packets) > 1 || len(rec.dials) > 1 {
					t.Errorf("%s: packets for %v, dials of %v", name, rec.packets, rec.dials)
				}
				want := ErrSilent
				if plan.Strategy == None {
					want = ErrNoWay
				}
				if rec.failed[endpoint.UTP] != want || len(rec.failed) != 2 {
					t.Errorf("%s: failed by %v", name, rec.failed)
				}
				if packets > 2048+60 || dials > 1024+70 {
					t.Errorf("%s: up to %d packets and %d dials", name, packets, dials)
				}
				if got := rec.busiest(time.Second); got > 1500+32 {
					t.Errorf("%s: %d packets in one second", name, got)
				}
				if plan.Ports == Any && rec.busiest(time.Second) > 204+10 {
					t.Errorf("%s: %d guesses in one second", name, rec.busiest(time.Second))
				}
				if rec.last > 5*time.Second+untilBirthday {
					t.Errorf("%s: it ended after %v", name, rec.last)
				}
			}
		}
	}
}

// TestBudget holds smaller budgets.
func TestBudget(t *testing.T) {
	they := netip.MustParseAddrPort(them).Addr()
	c := facing(home, rnd)
	c.Budget = Budget{Packets: 300, Rate: 50, Sprays: 100, SprayPPS: 20, Dials: 60, Sprayed: 40, AtOnce: 5}
	rec := alone(t, c, 0, time.Minute)
	_, packets := c.Most()
	if got := rec.packets[they]; got != 100 || packets != 100 {
		t.Errorf("%d packets sprayed, %d told, 100 allowed", got, packets)
	}
	if got := rec.busiest(time.Second); got > 24 {
		t.Errorf("%d packets in one second", got)
	}
	if got := rec.dials[they]; got > 40 || got < 20 {
		t.Errorf("%d dials, 40 allowed", got)
	}
	c = facing(rnd, home)
	c.Budget = Budget{Packets: 70, Sockets: 30, Dials: 20}
	rec = alone(t, c, 0, time.Millisecond)
	if rec.packets[they] != 70 || rec.dials[they] != 20 {
		t.Errorf("%v packets and %v dials, 70 and 20 allowed", rec.packets, rec.dials)
	}
	c.Budget = Budget{Packets: 1e9, Rate: 1e9, Sprays: 1e9, SprayPPS: 1e9, Sockets: 1e9, Dials: 1e9, Sprayed: 1e9, AtOnce: 1e9}
	if c.Budget.filled() != (Budget{}).filled() {
		t.Error("a budget above the bounds is kept")
	}
}

// TestStrangers lists addresses of others as candidates: each gets one packet and
// one dial, however many of its ports are listed, and there are not many.
func TestStrangers(t *testing.T) {
	for _, mine := range []wire.NAT{home, rnd} {
		for _, theirs := range []wire.NAT{home, seq, blk, rnd} {
			c := facing(mine, theirs)
			for i := range 200 {
				a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i / 4)}), uint16(1000+i))
				c.Theirs.Candidates = append(c.Theirs.Candidates, endpoint.New(endpoint.UTP, a), endpoint.New(endpoint.TCP, a))
			}
			for _, bad := range []string{"0.0.0.0:9", "224.0.0.1:9", "255.255.255.255:9", "127.0.0.1:22", "[::1]:22", "10.0.0.1:0"} {
				c.Theirs.Candidates[0] = endpoint.New(endpoint.UTP, netip.MustParseAddrPort(bad))
				c.Theirs.Candidates[1] = endpoint.New(endpoint.TCP, netip.MustParseAddrPort(bad))
				rec := alone(t, c, 0, time.Millisecond)
				if a := netip.MustParseAddrPort(bad).Addr(); rec.packets[a]+rec.dials[a] > 0 {
					t.Errorf("it went to %s", bad)
				}
				delete(rec.packets, netip.MustParseAddrPort(them).Addr())
				delete(rec.dials, netip.MustParseAddrPort(them).Addr())
				if len(rec.packets) == 0 || len(rec.packets)+len(rec.dials) > MaxCandidates {
					t.Errorf("%d strangers got packets, %d dials", len(rec.packets), len(rec.dials))
				}
				for a, n := range rec.packets {
					if n > 1 || rec.dials[a] > 1 {
						t.Errorf("the stranger %v got %d packets and %d dials", a, n, rec.dials[a])
					}
				}
			}
		}
	}
}

// TestSpoofed gives a machine valid packets that seem to come from everywhere: no
// address gets more than twice as many, and one.
func TestSpoofed(t *testing.T) {
	for _, larger := range []bool{true, false} {
		c := facing(home, home)
		c.TCP, c.Larger = false, larger
		now := epoch
		m := New(c, now)
		m.Shoot(now)
		heard, sent := map[netip.Addr]int{}, map[netip.Addr]int{}
		total := 0
		for i := range 20000 {
			now = now.Add(time.Millisecond)
			a := netip.AddrFrom4([4]byte{192, 0, byte(i % 3), byte(i / 16)})
			heard[a]++
			m.Probe(now, Heard{From: netip.AddrPortFrom(a, uint16(1+i)), Kind: Probe, Size: MaxPacket})
			acts, _ := m.Poll(now)
			for _, x := range acts {
				if s, ok := x.(Send); ok {
					total++
					sent[s.To.Addr()]++
				}
			}
		}
		for a, n := range sent {
			if n > 1+2*heard[a] && a != netip.MustParseAddrPort(them).Addr() {
				t.Errorf("%v got %d packets, and %d came from it", a, n, heard[a])
			}
		}
		if len(sent) < 2 || total > 8192 || total > 3*20000 {
			t.Errorf("%d packets to %d addresses", total, len(sent))
		}
	}
}

// TestReasons holds why a punch failed, and when that is known.
func TestReasons(t *testing.T) {
	rec := alone(t, facing(home, home), -1, time.Minute)
	if rec.failed[endpoint.UTP] != ErrNoGo || rec.failed[endpoint.TCP] != ErrNoGo || rec.last != Patience {
		t.Errorf("without go: %v after %v", rec.failed, rec.last)
	}
	if rec.openers != rec.packets[netip.MustParseAddrPort(them).Addr()] || rec.openers == 0 {
		t.Errorf("%d of %v packets before go were openers", rec.openers, rec.packets)
	}
	rec = alone(t, facing(rnd, rnd), time.Second, time.Minute)
	if rec.failed[endpoint.UTP] != ErrNoWay || rec.failed[endpoint.TCP] != ErrNoWay || rec.last != time.Second || len(rec.packets)+len(rec.dials) != 0 {
		t.Errorf("without a way: %v after %v", rec.failed, rec.last)
	}
	c := facing(home, home)
	c.TCP = false
	m := New(c, epoch)
	m.Shoot(epoch)
	m.Poll(epoch)
	m.Probe(epoch, Heard{From: netip.MustParseAddrPort(them), Kind: Probe, Size: MaxPacket})
	var reason error
	for now, next := epoch, epoch; !next.IsZero(); now = now.Add(time.Millisecond) {
		var acts []Action
		acts, next = m.Poll(now)
		for _, a := range acts {
			if f, ok := a.(Failed); ok {
				reason = f.Reason
			}
		}
	}
	if !errors.Is(reason, ErrOneWay) {
		t.Errorf("when only their packets come through: %v", reason)
	}
}
