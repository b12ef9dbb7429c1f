package observe

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// lies are what a liar may tell instead of what it saw; k counts its lies.
var lies = map[string]func(r *rand.Rand, i int, seen netip.AddrPort) netip.AddrPort{
	"anything": func(r *rand.Rand, _ int, _ netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(30 + r.IntN(60)), byte(r.IntN(256)), 1, 1}), uint16(1+r.IntN(65535)))
	},
	"another port": func(r *rand.Rand, _ int, seen netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(seen.Addr(), uint16(1024+r.IntN(64000)))
	},
	"all one victim": func(*rand.Rand, int, netip.AddrPort) netip.AddrPort { return ep("99.98.97.96:53") },
	"all one port": func(_ *rand.Rand, _ int, seen netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(seen.Addr(), 53)
	},
	"a near address": func(_ *rand.Rand, i int, seen netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{5, 9, 1, byte(100 + i%100)}), seen.Port())
	},
	"our private address": func(_ *rand.Rand, _ int, seen netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("192.168.1.5"), seen.Port())
	},
	"a preserved port": func(_ *rand.Rand, _ int, seen netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(seen.Addr(), 50001)
	},
	"a port before": func(_ *rand.Rand, _ int, seen netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(seen.Addr(), seen.Port()-700)
	},
}

// TestLiars has every fourth observer lie, in votes and samples, newest or not: the
// verdict is confirmed and what it is without them.
func TestLiars(t *testing.T) {
	seeds := 60
	if !thorough {
		seeds = 10
	}
	for _, kind := range []struct {
		name    string
		mapping wire.Depends
		ports   string
		want    wire.PortRule
	}{
		{"home", wire.EndpointIndependent, "preserve", wire.PortsPreserving},
		{"cone", wire.EndpointIndependent, "random", wire.PortsUnknown},
		{"random", wire.AddressPortDependent, "random", wire.PortsRandom},
		{"sequential", wire.AddressPortDependent, "sequential", wire.PortsSequential},
		{"block", wire.AddressPortDependent, "block", wire.PortsBlock},
	} {
		for name, lie := range lies {
			t.Run(kind.name+"/"+name, func(t *testing.T) {
				misses := 0
				for seed := range uint64(seeds) {
					r := rand.New(rand.NewPCG(seed, 2))
					b := newBox(r, kind.mapping, kind.ports)
					b.step, b.rate = 1+r.IntN(3), float64(r.IntN(15))
					if kind.ports == "block" {
						b.low, b.size = 1024+512*r.IntN(120), 512
					}
					h := newHost(b)
					h.now = start
					for h.b.next < 3000 || h.b.next > 60000 { // not around the end, where one sample is lost
						h.b.next = r.IntN(65536)
					}
					at := r.IntN(4)
					h.lie = func(i int, seen netip.AddrPort) netip.AddrPort {
						if i%4 == at {
							return lie(r, i, seen)
						}
						return seen
					}
					for range 4 {
						h.sample(4, 10*time.Millisecond)
						h.now = h.now.Add(time.Second)
					}
					d := h.verdict()
					if d.Confidence != Confirmed || d.NAT.Mapping != kind.mapping || d.Pooled || d.None || d.NAT.External.Addr() != b.addrs[0] {
						t.Fatalf("seed %d: %+v", seed, d)
					}
					if d.NAT.Ports != kind.want {
						misses++
						t.Logf("seed %d: %+v", seed, d.NAT)
					}
				}
				if misses > 1 {
					t.Errorf("the rule of ports was wrong %d times in %d", misses, seeds)
				}
			})
		}
	}
}

// TestLiarsInVotes has as many liars as may be, for every number of observers, in
// votes that came one by one.
func TestLiarsInVotes(t *testing.T) {
	for name, lie := range lies {
		for n := 3; n <= 40; n++ {
			for _, mapping := range []wire.Depends{wire.EndpointIndependent, wire.AddressPortDependent} {
				r := rand.New(rand.NewPCG(uint64(n), 3))
				h := newHost(newBox(r, mapping, "random"))
				order := r.Perm(n)
				for _, i := range order {
					v := h.vote(i, observer(i))
					if i < spare(n) {
						v.Seen = lie(r, i, v.Seen)
					}
					h.m.Observe(v, h.now)
					h.now = h.now.Add(time.Second)
				}
				d := h.verdict()
				honest := n - spare(n)
				if d.Confidence != Confirmed && honest >= 3 || d.NAT.Mapping != mapping && honest >= 3 || d.Pooled || d.NAT.External.Addr() != h.b.addrs[0] {
					t.Errorf("%s, %d of %d: %+v", name, spare(n), n, d)
				}
			}
		}
	}
}

// TestFlood checks that peers that come to us neither push out nor outvote those that
// we dialled, however many they are.
func TestFlood(t *testing.T) {
	t.Run("home", func(t *testing.T) { flood(t, 0) })
	t.Run("symmetric", func(t *testing.T) { flood(t, 1000) })
}

// flood has three observers see ports that are so far apart.
func flood(t *testing.T, apart int) {
	m := Machine{}
	for i := range 3 {
		observeAll(t, &m, udp(fmt.Sprintf("5.9.1.1:%d", 3000+i*apart), observer(i).String()))
	}
	want := m.Verdict(udp4, start)
	for i := range 20_000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(30 + i/250%90), byte(i % 250), byte(i >> 8), 1}), uint16(1+i%60000))
		now := start.Add(time.Duration(i) * time.Millisecond)
		v := inbound(udp("66.6.6.6:6", from.String()))
		m.Observe(v, now)
		v.Local = netip.AddrPortFrom(v.Local.Addr(), uint16(1+i%60000))
		m.Observe(v, now)
	}
	now := start.Add(time.Minute)
	d := m.Verdict(udp4, now)
	if d.Confidence != Confirmed || d.NAT.External != want.NAT.External || d.NAT.Mapping != want.NAT.Mapping || d.NAT.Ports != want.NAT.Ports || d.Pooled {
		t.Errorf("%+v, before %+v", d, want)
	}
	bounded(t, &m)
	// One network that we dialled cannot push out the others either.
	for i := range 5000 {
		v := udp("66.6.6.6:6", netip.AddrPortFrom(netip.AddrFrom4([4]byte{77, 7, byte(i >> 8), byte(i)}), 1).String())
		v.Local = netip.AddrPortFrom(v.Local.Addr(), uint16(1+i))
		m.Observe(v, now)
	}
	if d := m.Verdict(udp4, now); d.NAT.External != want.NAT.External || d.Confidence != Confirmed {
		t.Errorf("after one network's flood: %+v", d)
	}
	bounded(t, &m)
}

// bounded checks the limits.
func bounded(t *testing.T, m *Machine) {
	t.Helper()
	if len(m.views) > 4*int(realms-1) || len(m.facts) > 4 || len(m.addrs) > MaxAddrs {
		t.Fatalf("%d views, %d facts, %d addresses", len(m.views), len(m.facts), len(m.addrs))
	}
	for k, v := range m.views {
		if len(v.dialled) > MaxDialled || len(v.inbound) > MaxInbound || len(v.samples) > MaxSamples {
			t.Fatalf("%v: %d dialled, %d inbound, %d samples", k, len(v.dialled), len(v.inbound), len(v.samples))
		}
		groups := map[netip.Prefix]int{}
		for _, r := range v.dialled {
			if groups[r.group]++; groups[r.group] > MaxGroup {
				t.Fatalf("%v: more than %d of %v", k, MaxGroup, r.group)
			}
		}
		for _, s := range v.samples {
			if len(s) < 2 || len(s) > MaxSample {
				t.Fatalf("%v: a sample of %d", k, len(s))
			}
		}
		for c, f := range v.filter.by {
			if len(f.missed) > maxMissed {
				t.Fatalf("%v: %d missed of contact %d", k, len(f.missed), c)
			}
		}
	}
}

// checkVerdicts checks what holds whatever was told.
func checkVerdicts(t *testing.T, m *Machine, now time.Time) {
	t.Helper()
	for _, f := range []Flow{{UDP, false}, {UDP, true}, {TCP, false}, {TCP, true}} {
		d := m.Verdict(f, now)
		if again := m.Verdict(f, now); again.NAT != d.NAT || again.Confidence != d.Confidence || !slices.Equal(again.External, d.External) {
			t.Fatalf("%v: two verdicts at one time:\n%+v\n%+v", f, d, again)
		}
		encoded := d.NAT.Append(nil)
		if n, rest, err := wire.ParseNAT(encoded); err != nil || len(rest) > 0 || n != d.NAT {
			t.Fatalf("%v: %+v came back as %+v, %v", f, d.NAT, n, err)
		}
		if len(d.External) > MaxExternal || d.Confidence > Confirmed {
			t.Fatalf("%v: %+v", f, d)
		}
		if e := d.NAT.External; e.IsValid() && (e.Addr().Is6() != f.IPv6 || e.Port() == 0 || realmOf(e.Addr()) == nowhere) {
			t.Fatalf("%v: external %v", f, e)
		}
		switch next := m.Next(f, now); {
		case d.NAT.Ports == wire.PortsSequential && len(next) != MaxNext, d.NAT.Ports == wire.PortsBlock && len(next) > maxBlock,
			d.NAT.Ports != wire.PortsSequential && d.NAT.Ports != wire.PortsBlock && next != nil:
			t.Fatalf("%v: %d next ports of rule %d", f, len(next), d.NAT.Ports)
		case slices.Contains(next, 0):
			t.Fatalf("%v: port 0 is next", f)
		}
		wishes := m.Wishes(f, now)
		for i, w := range wishes {
			if w.At.Before(now) || i > 0 && w.At.Before(wishes[i-1].At) {
				t.Fatalf("%v: wishes %v at %v", f, wishes, now)
			}
		}
	}
	if p, ok := m.Reachable(now); ok && !realmOf(p.From.Addr()).wide() {
		t.Fatalf("reachable %v", p)
	}
}

// decoder takes bytes apart; at the end it gives zeros.
type decoder struct{ b []byte }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		return 0
	}
	x := d.b[0]
	d.b = d.b[1:]
	return x
}

// endpoint returns one of a few interesting endpoints, or any.
func (d *decoder) endpoint() netip.AddrPort {
	few := [...]string{
		"5.9.1.1", "5.9.1.2", "20.1.1.1", "20.2.1.1", "20.3.1.1", "20.4.1.1", "192.168.1.5", "192.168.1.6", "100.64.0.9", "127.0.0.1", "169.254.1.1",
		"203.0.113.1", "203.0.113.2", "198.51.100.1", "0.0.0.0", "::", "2a00::5", "2a01::5", "2a02::5", "fe80::1%eth0", "fd00::1", "::ffff:5.9.1.1", "255.255.255.255",
	}
	kind := int(d.byte())
	var a netip.Addr
	switch {
	case kind < 8*len(few):
		a = netip.MustParseAddr(few[kind%len(few)])
	case kind%2 == 0:
		a = netip.AddrFrom4([4]byte{d.byte(), d.byte(), d.byte(), d.byte()})
	case kind%4 == 1:
		var b [16]byte
		for i := range b {
			b[i] = d.byte()
		}
		a = netip.AddrFrom16(b)
	}
	port := uint16(d.byte())
	if port >= 128 {
		port = port<<8 | uint16(d.byte())
	}
	return netip.AddrPortFrom(a, port)
}

func (d *decoder) vote(now time.Time) Vote {
	kind := d.byte()
	v := Vote{Proto: Proto(kind & 3), Outbound: kind&4 != 0, Server: kind&8 != 0, Local: d.endpoint(), Seen: d.endpoint(), Observer: d.endpoint()}
	if kind&16 != 0 {
		v.At = now.Add(-time.Duration(d.byte()) * 5 * time.Millisecond)
	}
	return v
}

// FuzzMachine does with a machine what bytes say.
func FuzzMachine(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d := decoder{in[:min(len(in), 4096)]}
		m := Machine{}
		now := start
		for len(d.b) > 0 {
			switch op := d.byte(); op % 16 {
			default:
				m.Observe(d.vote(now), now)
			case 6, 7:
				var votes []Vote
				for range int(d.byte()) % (MaxSample + 4) {
					votes = append(votes, d.vote(now))
				}
				m.Sample(votes, now)
			case 8:
				m.Arrived(Proto(d.byte()%3), d.endpoint(), Contact(d.byte()%3), now)
			case 9:
				m.Missed(Proto(d.byte()%3), d.endpoint(), Contact(d.byte()%3), now)
				if op&32 != 0 {
					m.Punished(Proto(d.byte()%3), d.endpoint(), now)
				}
				if op&16 != 0 {
					m.Silent(Proto(d.byte()%3), d.endpoint(), now)
				}
			case 10:
				m.SetMapped(Proto(d.byte()%3), d.endpoint(), now)
			case 11:
				m.ClearMapped(Flow{Proto(d.byte() % 3), op&16 != 0})
			case 12:
				m.SetHairpin(Flow{Proto(d.byte() % 3), op&16 != 0}, op&32 != 0, now)
			case 13:
				var addrs []netip.Addr
				for range int(d.byte()) % (MaxAddrs + 8) {
					addrs = append(addrs, d.endpoint().Addr())
				}
				m.SetAddrs(addrs)
			case 14:
				now = now.Add(time.Duration(binary.BigEndian.Uint16([]byte{d.byte(), d.byte()})) * 20 * time.Millisecond)
			case 15:
				if op == 255 {
					m.Reset()
				}
				checkVerdicts(t, &m, now)
			}
		}
		bounded(t, &m)
		checkVerdicts(t, &m, now)
	})
}

// seeds are short lives of machines.
func seeds() (out [][]byte) {
	for _, ports := range [][]byte{{7, 7, 7, 7, 7, 7}, {7, 8, 9, 10, 11, 12}, {10, 12, 15, 17, 19, 29}, {100, 90, 80, 5, 9, 1}, {128, 140, 190, 250, 200, 133}} {
		votes, sample := []byte{13, 1, 6, 1}, []byte{6, 6}
		for i, p := range ports {
			v := []byte{4, 14, 50, 0, p}
			if p >= 128 {
				v = append(v, 77)
			}
			v = append(v, byte(2+i%4), 9)
			votes = append(append(votes, 0), v...)
			sample = append(sample, v...)
		}
		out = append(out, votes, sample, slices.Concat(votes, []byte{14, 1, 0, 15}, sample, []byte{14, 0, 50}, sample, []byte{10, 0, 0, 80, 8, 0, 3, 9, 0, 9, 0, 4, 9, 1, 255}))
	}
	return out
}

// TestAnything does many random things, and looks at all verdicts now and then.
func TestAnything(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 4))
			m := Machine{}
			now := start
			b := make([]byte, 64)
			for range 400 {
				for i := range b {
					b[i] = byte(r.IntN(256))
				}
				d := decoder{b}
				now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
				switch r.IntN(8) {
				case 0:
					m.Sample([]Vote{d.vote(now), d.vote(now), d.vote(now), d.vote(now)}, now)
				case 1:
					m.Missed(UDP, d.endpoint(), Contact(r.IntN(2)), now)
				case 2:
					m.Arrived(UDP, d.endpoint(), Contact(r.IntN(2)), now)
				default:
					m.Observe(d.vote(now), now)
				}
			}
			bounded(t, &m)
			checkVerdicts(t, &m, now)
		})
	}
}
