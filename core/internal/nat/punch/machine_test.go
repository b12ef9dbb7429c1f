package punch

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// bench steps a machine by hand.
type bench struct {
	t   *testing.T
	m   *Machine
	now time.Time
}

func (b *bench) poll() []Action {
	acts, _ := b.m.Poll(b.now)
	return slices.Clone(acts)
}

// wait polls each millisecond for d.
func (b *bench) wait(d time.Duration) (all []Action) {
	for end := b.now.Add(d); !b.now.After(end); b.now = b.now.Add(time.Millisecond) {
		all = append(all, b.poll()...)
	}
	return all
}

// heard takes a packet, of which all but probes prove that their sender is there.
func (b *bench) heard(socket int, from netip.AddrPort, k Kind) {
	b.m.Probe(b.now, Heard{Socket: socket, From: from, Kind: k, Size: MaxPacket, Proof: k != Probe})
}

func sends(acts []Action, k Kind) (out []Send) {
	for _, a := range acts {
		if s, ok := a.(Send); ok && s.Kind == k {
			out = append(out, s)
		}
	}
	return out
}

func only[T Action](acts []Action) (out []T) {
	for _, a := range acts {
		if x, ok := a.(T); ok {
			out = append(out, x)
		}
	}
	return out
}

var there = netip.MustParseAddrPort(them)

// TestSchedule holds when the first packets of two home NATs go.
func TestSchedule(t *testing.T) {
	c := facing(home, home)
	c.TCP = false
	b := &bench{t, New(c, epoch), epoch}
	var at []string
	note := func(d time.Duration) {
		for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(time.Millisecond) {
			for _, a := range b.poll() {
				s := a.(Send)
				at = append(at, fmt.Sprintf("%d:%d/%d", b.now.Sub(epoch).Milliseconds(), s.Kind, s.TTL))
				if s.To != there || s.Socket != 0 {
					t.Errorf("%+v", s)
				}
			}
		}
	}
	note(500 * time.Millisecond)
	b.m.Shoot(b.now)
	b.m.Shoot(b.now.Add(time.Hour)) // does nothing
	note(350 * time.Millisecond)
	if want := []string{"0:0/4", "100:0/4", "500:1/0", "520:1/0", "560:1/0", "620:1/0", "700:1/0", "800:1/0"}; !slices.Equal(at, want) {
		t.Errorf("sent at %v, want %v", at, want)
	}
	at = nil
	note(4600 * time.Millisecond)
	if len(at) < 15 || len(at) > 34 {
		t.Errorf("%d shots in 4.6 s, want one each 200 ms, half more or less", len(at))
	}
}

// TestQuiet leaves openers out where they would reach the peer or nobody.
func TestQuiet(t *testing.T) {
	same := facing(home, home)
	same.Mine.UDP.External = netip.MustParseAddrPort("198.51.100.2:5483")
	short := facing(home, home)
	short.RTT = 2 * time.Millisecond
	lan := facing(home, home)
	lan.Theirs.UDP.External = netip.MustParseAddrPort("192.168.1.7:5483")
	lan.Ours = []netip.Addr{netip.MustParseAddr("192.168.9.9")}
	for name, c := range map[string]Config{"one external address": same, "a short way": short, "one network": lan} {
		c.TCP = false
		b := &bench{t, New(c, epoch), epoch}
		if acts := b.wait(2 * time.Second); len(acts) != 0 {
			t.Errorf("%s: %v before go", name, acts)
		}
		b.m.Shoot(b.now)
		if acts := b.wait(time.Second); len(sends(acts, Probe)) < 6 || len(sends(acts, Opener)) > 0 {
			t.Errorf("%s: %v after go", name, acts)
		}
	}
}

// TestLarger follows the side that chooses: it answers, asks, chooses once an
// answer has come, and says so until the other confirms it.
func TestLarger(t *testing.T) {
	c := facing(home, home)
	c.TCP, c.Larger = false, true
	b := &bench{t, New(c, epoch), epoch}
	b.m.Shoot(b.now)
	b.wait(400 * time.Millisecond)
	b.heard(0, there, Probe)
	acts := b.wait(100 * time.Millisecond)
	if got := sends(acts, Answer); len(got) != 3 || got[0].To != there || got[0].Kind != Answer || got[0].Socket+got[0].TTL != 0 {
		t.Errorf("answers: %v", got)
	}
	if len(only[Nominated](acts)) > 0 {
		t.Error("chosen before an answer came")
	}
	b.heard(0, there, Nominate) // that is not the other's to say, but shows that it hears us
	b.heard(0, there, Answer)
	b.heard(1, there, Answer)                                     // no such socket
	b.heard(0, netip.MustParseAddrPort("198.51.100.2:7"), Answer) // too late
	acts = b.wait(500 * time.Millisecond)
	if got := only[Nominated](acts); len(got) != 1 || got[0] != (Nominated{0, there}) {
		t.Errorf("chosen: %v", got)
	}
	if got := sends(acts, Nominate); len(got) < 6 || slices.ContainsFunc(got, func(s Send) bool { return s.To != there }) {
		t.Errorf("it told the other: %v", got)
	}
	if got := sends(acts, Probe); len(got) != 0 {
		t.Errorf("it still probes: %v", got)
	}
	b.heard(0, there, Nominate)
	if acts = b.wait(time.Second); len(acts) != 0 {
		t.Errorf("after the confirmation: %v", acts)
	}
	b.heard(0, there, Probe)
	if acts = b.wait(0); len(sends(acts, Answer)) != 1 {
		t.Errorf("a late probe: %v", acts)
	}
	b.wait(Linger)
	b.heard(0, there, Probe)
	if acts, next := b.m.Poll(b.now); len(acts) != 0 || !next.IsZero() {
		t.Errorf("after the end: %v, again %v", acts, next)
	}
}

// TestSmaller follows the side that is told.
func TestSmaller(t *testing.T) {
	c := facing(home, home)
	c.TCP = false
	b := &bench{t, New(c, epoch), epoch}
	b.m.Shoot(b.now)
	b.wait(4900 * time.Millisecond)
	b.heard(0, there, Answer)
	acts := b.wait(900 * time.Millisecond)
	if got := sends(acts, Answer); len(got) != 3 {
		t.Errorf("answers to an answer: %v", got)
	}
	if len(only[Nominated](acts))+len(only[Failed](acts)) > 0 {
		t.Errorf("it did not wait for the choice: %v", acts)
	}
	other := netip.MustParseAddrPort("198.51.100.2:40000")
	for range 2 {
		b.heard(0, other, Nominate)
		b.heard(0, there, Nominate) // too late
	}
	acts = b.wait(300 * time.Millisecond)
	if got := only[Nominated](acts); len(got) != 1 || got[0] != (Nominated{0, other}) {
		t.Errorf("chosen: %v", got)
	}
	if got := sends(acts, Nominate); len(got) != 2 || got[0].To != other || got[1].To != other {
		t.Errorf("confirmed: %v", got)
	}
	// Another that is never told.
	b = &bench{t, New(c, epoch), epoch}
	b.m.Shoot(b.now)
	b.heard(0, there, Answer)
	if got := only[Failed](b.wait(7 * time.Second)); len(got) != 1 || got[0].Reason != ErrChoice {
		t.Errorf("never told: %v", got)
	}
}

// TestSockets opens the many sockets of a birthday, and does with fewer.
func TestSockets(t *testing.T) {
	for _, n := range []int{255, 10, 0, -1, 1000} {
		c := facing(rnd, home)
		c.TCP = false
		b := &bench{t, New(c, epoch), epoch}
		acts := b.wait(time.Second)
		if got := only[Open](acts); len(got) != 1 || got[0].Sockets != 255 {
			t.Fatalf("it asks for %v", got)
		}
		b.m.Opened(b.now, n)
		b.m.Opened(b.now, 7) // only the first counts
		used := map[int]int{}
		for _, s := range sends(b.wait(300*time.Millisecond), Opener) {
			used[s.Socket]++
			if s.To != there || s.TTL != OpenerTTL {
				t.Errorf("%+v", s)
			}
		}
		for i := 1; i <= min(max(n, 0), 255); i++ {
			if used[i] != 1 {
				t.Errorf("of %d sockets, number %d sent %d openers", n, i, used[i])
			}
		}
		if len(used) > 1+min(max(n, 0), 255) {
			t.Errorf("of %d sockets, %d send", n, len(used))
		}
		b.m.Shoot(b.now)
		b.wait(time.Second)
		if last := min(max(n, 0), 255); last > 0 {
			b.heard(last, there, Nominate)
			if got := only[Nominated](b.wait(0)); len(got) != 1 || got[0].Socket != last {
				t.Errorf("chosen: %v", got)
			}
		}
	}
}

// TestPause holds the guesses back once something came through.
func TestPause(t *testing.T) {
	c := facing(home, rnd)
	c.TCP, c.Larger = false, true
	b := &bench{t, New(c, epoch), epoch}
	b.m.Shoot(b.now)
	if got := len(sends(b.wait(time.Second), Probe)); got < 190 || got > 210 {
		t.Errorf("%d guesses in a second", got)
	}
	hit := netip.MustParseAddrPort("198.51.100.2:31234")
	b.heard(0, hit, Probe)
	acts := b.wait(400 * time.Millisecond)
	if got := sends(acts, Probe); len(got) < 5 || slices.ContainsFunc(got, func(s Send) bool { return s.To != hit }) {
		t.Errorf("after a hit: %v", got)
	}
	b.wait(200 * time.Millisecond)
	if got := len(sends(b.wait(time.Second), Probe)); got < 190 {
		t.Errorf("%d guesses in a second when nothing came of the hit", got)
	}
}

// TestDials follows TCP by hand: a redial after a pause, a port that cannot be used,
// the end of all others when one stands.
func TestDials(t *testing.T) {
	c := facing(home, home)
	c.UDP = false
	c.Vouched = []netip.Addr{netip.MustParseAddr("198.51.100.3")}
	mapped := netip.MustParseAddrPort("198.51.100.3:80")
	c.Theirs.Candidates = []endpoint.Endpoint{endpoint.New(endpoint.TCP, mapped)}
	b := &bench{t, New(c, epoch), epoch}
	first := only[Dial](b.wait(0))
	if len(first) != 2 || first[0].TTL != OpenerTTL || first[0].To != there || first[1].To != mapped {
		t.Fatalf("openers: %+v", first)
	}
	for _, d := range first {
		b.m.Dialled(b.now, d.ID, errRefused)
	}
	if again := only[Dial](b.wait(2 * time.Second)); len(again) != 0 {
		t.Errorf("openers again: %+v", again)
	}
	b.m.Shoot(b.now)
	dials := only[Dial](b.wait(0))
	if len(dials) != 2 || dials[0].TTL != 0 || dials[0].Hold != 0 || dials[0].Timeout != 420*time.Millisecond {
		t.Fatalf("at go: %+v", dials)
	}
	b.m.Dialled(b.now, 999, nil) // no such dial
	var pauses []time.Duration
	id := dials[0].ID
	for range 20 {
		b.m.Dialled(b.now, id, errRefused)
		b.m.Dialled(b.now, id, errRefused) // the second time it is nobody's
		from := b.now
		for {
			if d := only[Dial](b.wait(0)); len(d) == 1 {
				id = d[0].ID
				break
			}
		}
		pauses = append(pauses, b.now.Sub(from))
	}
	if slices.Min(pauses) < 20*time.Millisecond || slices.Max(pauses) > 182*time.Millisecond || slices.Max(pauses)-slices.Min(pauses) < 60*time.Millisecond {
		t.Errorf("pauses of %v", pauses)
	}
	other := dials[1].ID
	for i := range 3 {
		b.m.Dialled(b.now, other, fmt.Errorf("bind: %w", ErrPort))
		d := only[Dial](b.wait(100 * time.Millisecond))
		if (len(d) == 1) != (i < 2) {
			t.Fatalf("after %d times without a port: %+v", i+1, d)
		}
		if len(d) == 1 {
			other = d[0].ID
		}
	}
	b.m.Dialled(b.now, id, nil)
	if acts := b.wait(20 * time.Second); len(acts) != 0 {
		t.Errorf("after the end: %v", acts)
	}
}

// TestHeld: of many sockets each is asked for once and waits, with an opener.
func TestHeld(t *testing.T) {
	c := facing(rnd, home)
	c.UDP = false
	b := &bench{t, New(c, epoch), epoch}
	if early := only[Dial](b.wait(time.Second)); len(early) != 0 {
		t.Errorf("before go: %d dials", len(early))
	}
	b.m.Shoot(b.now)
	dials := only[Dial](b.wait(time.Second))
	if len(dials) != BirthdaySockets {
		t.Fatalf("%d dials", len(dials))
	}
	for i, d := range dials {
		if d.Hold != i+1 || d.TTL != OpenerTTL || d.To != there || d.Timeout != tryHeldOn {
			t.Fatalf("%+v", d)
		}
	}
	b.m.Dialled(b.now, dials[3].ID, errTimeout)
	if again := only[Dial](b.poll()); len(again) != 1 || again[0].To != there || again[0].Hold != 4 {
		t.Errorf("again: %+v", again)
	}
	if stops := only[Stop](b.wait(untilBirthday)); len(stops) != BirthdaySockets {
		t.Errorf("%d are stopped at the end", len(stops))
	}
}

// TestNoOpeners: where they cannot be made none is asked for, and many sockets dial.
func TestNoOpeners(t *testing.T) {
	for _, mine := range []wire.NAT{home, rnd} {
		c := facing(mine, home)
		c.UDP, c.Mine.TCP.Openers = false, false
		b := &bench{t, New(c, epoch), epoch}
		if early := only[Dial](b.wait(time.Second)); len(early) != 0 {
			t.Errorf("before go: %+v", early)
		}
		b.m.Shoot(b.now)
		dials := only[Dial](b.wait(time.Second))
		if len(dials) == 0 || dials[0].TTL != 0 || (dials[0].Hold != 0) != (mine == rnd) || dials[0].Timeout > tryHeld {
			t.Errorf("at go: %d dials, %+v", len(dials), dials[0])
		}
	}
}

// TestStop takes back what is under way when one dial has come through.
func TestStop(t *testing.T) {
	c := facing(home, rnd)
	c.UDP = false
	b := &bench{t, New(c, epoch), epoch}
	b.m.Shoot(b.now)
	dials := only[Dial](b.wait(300 * time.Millisecond))
	if len(dials) < 50 {
		t.Fatalf("%d dials", len(dials))
	}
	b.m.Dialled(b.now, dials[0].ID, errors.New("no route"))
	b.m.Dialled(b.now, dials[7].ID, nil)
	stopped := map[int]bool{}
	for _, s := range only[Stop](b.wait(0)) {
		stopped[s.ID] = true
	}
	for i, d := range dials {
		if stopped[d.ID] == (i == 0 || i == 7) {
			t.Errorf("dial %d: stopped %v", i, stopped[d.ID])
		}
	}
	if acts, next := b.m.Poll(b.now); len(acts) != 0 || !next.IsZero() {
		t.Errorf("after the end: %v, again %v", acts, next)
	}
}

// FuzzMachine feeds a machine any facts and any inputs at any times: it keeps its
// bounds, and it ends.
func FuzzMachine(f *testing.F) {
	f.Add(uint64(1), uint8(0), uint8(0), []byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add(uint64(2), uint8(45), uint8(78), []byte{6, 10, 6, 50, 4, 1, 1, 3, 200, 200, 2, 9, 1})
	f.Fuzz(func(t *testing.T, seed uint64, a, b uint8, ops []byte) {
		kinds := every()
		c := facing(kinds[int(a)%len(kinds)], kinds[int(b)%len(kinds)])
		c.Seed, c.Larger = seed, seed&1 == 0
		c.Theirs.UDP.Rate, c.Theirs.UDP.Age = uint16(seed>>8), uint32(seed>>24)
		c.Theirs.TCP.Rate, c.Theirs.TCP.Age = uint16(seed>>8), uint32(seed>>24)
		c.Theirs.UDP.Step = max(1, int16(seed>>40))
		now := epoch
		m := New(c, now)
		packets, dials, under, nominated := 0, 0, map[int]bool{}, 0
		step := func() (next time.Time) {
			var acts []Action
			for i := range 4 { // at one time there are not many things to do
				acts, next = m.Poll(now)
				for _, x := range acts {
					switch x := x.(type) {
					case Send:
						packets++
						if x.To.Port() == 0 || !x.To.IsValid() || x.Socket < 0 || x.Socket > 255 {
							t.Fatalf("%+v", x)
						}
					case Dial:
						if dials++; under[x.ID] || x.To.Addr() != there.Addr() {
							t.Fatalf("%+v", x)
						}
						under[x.ID] = true
					case Stop:
						if !under[x.ID] {
							t.Fatalf("stops %d", x.ID)
						}
						delete(under, x.ID)
					case Nominated:
						nominated++
					}
				}
				if next.IsZero() || next.After(now) {
					break
				}
				if i == 3 {
					t.Fatal("it wants to be asked again and again")
				}
			}
			if len(under) > 256 || packets > 8192 || dials > 2048 || nominated > 1 {
				t.Fatalf("%d dials at once of %d, %d packets, %d nominations", len(under), dials, packets, nominated)
			}
			return next
		}
		step()
		for i, op := range ops {
			arg := byte(i)
			if i+1 < len(ops) {
				arg = ops[i+1]
			}
			switch op % 8 {
			case 0:
				m.Shoot(now)
			case 1:
				m.Opened(now, int(arg)-2)
			case 2, 3:
				m.Probe(now, Heard{int(arg) % 3, netip.AddrPortFrom(there.Addr(), uint16(arg)), Kind(op/8) % 6, int(arg), arg%2 == 0})
			case 4:
				for id := range under {
					delete(under, id)
					m.Dialled(now, id, []error{ErrPort, errRefused, errTimeout}[int(arg)%3])
					break
				}
			case 5:
				if len(under) > 0 && arg == 77 {
					for id := range under {
						delete(under, id)
						m.Dialled(now, id, nil)
						break
					}
				}
			case 6, 7:
				now = now.Add(time.Duration(arg) * time.Millisecond * 4)
			}
			step()
		}
		for i := 0; ; i++ {
			next := step()
			if next.IsZero() {
				break
			}
			now = next
			for id := range under {
				delete(under, id)
				m.Dialled(now, id, errTimeout)
			}
			if i > 100000 || now.Sub(epoch) > 24*time.Hour {
				t.Fatal("it does not end")
			}
		}
	})
}
