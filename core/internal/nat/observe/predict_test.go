package observe

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// TestNextSequential measures a NAT that counts, as is done before a punch, and
// checks that the port of a mapping made 300 ms later is where Next says.
func TestNextSequential(t *testing.T) {
	for _, c := range []struct {
		rate  float64
		first int // how many of Next are looked at
		least int // hits of 300
	}{{0, 1, 300}, {1, 4, 297}, {5, 8, 294}, {20, 24, 285}, {35, 32, 270}} {
		hits := 0
		for seed := range uint64(300) {
			r := rand.New(rand.NewPCG(seed, 5))
			b := newBox(r, wire.AddressPortDependent, "sequential")
			b.rate = c.rate
			b.step = []int{1, 2, -1, 3}[seed%4]
			h := newHost(b)
			for range 3 {
				h.sample(5, 5*time.Millisecond)
				h.now = h.now.Add(time.Second)
			}
			h.sample(4, 5*time.Millisecond)
			h.now = h.now.Add(300 * time.Millisecond)
			next := h.m.Next(udp4, h.now)
			if len(next) != MaxNext {
				t.Fatalf("rate %v, seed %d: %v of %+v", c.rate, seed, next, h.verdict())
			}
			if slices.Contains(next[:c.first], h.vote(0, ep("99.1.1.1:1")).Seen.Port()) {
				hits++
			}
		}
		if t.Logf("%v foreign a second: %d of 300 within %d", c.rate, hits, c.first); hits < c.least {
			t.Errorf("%v foreign a second: %d of 300 within %d, want %d", c.rate, hits, c.first, c.least)
		}
	}
}

// TestRate checks the measured rate of others' mappings against the true one.
func TestRate(t *testing.T) {
	for _, rate := range []float64{0, 5, 20, 50} {
		sum := 0.0
		for seed := range uint64(100) {
			b := newBox(rand.New(rand.NewPCG(seed, 6)), wire.AddressPortDependent, "sequential")
			b.rate, b.next = rate, 2000
			h := newHost(b)
			for range 3 {
				h.sample(4, 5*time.Millisecond)
				h.now = h.now.Add(time.Second)
			}
			sum += float64(h.verdict().NAT.Rate) / 10
		}
		if mean := sum / 100; math.Abs(mean-rate) > 0.1*rate {
			t.Errorf("%v a second measured as %.1f", rate, mean)
		}
	}
}

// TestNextBlock checks that the next port of a block is in what Next returns, and
// none that is in use.
func TestNextBlock(t *testing.T) {
	hits, probes := 0, 0
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		b := newBox(r, wire.AddressPortDependent, "block")
		b.low, b.size = 1024+512*r.IntN(120), 512
		h := newHost(b)
		for range 3 {
			h.sample(4, 5*time.Millisecond)
			h.now = h.now.Add(time.Second)
		}
		next := h.m.Next(udp4, h.now)
		probes += len(next)
		for _, made := range b.made {
			if slices.Contains(next, made.Port()) {
				t.Fatalf("seed %d: port %d is in use", seed, made.Port())
			}
		}
		if slices.Contains(next, h.vote(0, ep("99.1.1.1:1")).Seen.Port()) {
			hits++
		}
	}
	if t.Logf("%d of 200 in %d ports", hits, probes/200); hits < 190 || probes/200 > 700 {
		t.Errorf("%d of 200 in %d ports", hits, probes/200)
	}
}

// TestNextNone checks that nothing is predicted that cannot be.
func TestNextNone(t *testing.T) {
	for _, ports := range []string{"random", "preserve"} {
		h := newHost(newBox(rand.New(rand.NewPCG(1, 8)), wire.AddressPortDependent, ports))
		if got := h.m.Next(udp4, h.now); got != nil {
			t.Errorf("%s, before: %v", ports, got)
		}
		h.sample(8, time.Millisecond)
		if got := h.m.Next(udp4, h.now); got != nil {
			t.Errorf("%s: %v", ports, got)
		}
	}
}

// ports makes a sample of what observers saw, at intervals.
func (h *host) told(gap time.Duration, ports ...uint16) {
	var votes []Vote
	for i, p := range ports {
		votes = append(votes, Vote{Proto: UDP, Local: h.local, Seen: netip.AddrPortFrom(netip.MustParseAddr("5.9.1.1"), p), Observer: observer(h.fresh + i), Outbound: true, At: h.now})
		h.now = h.now.Add(gap)
	}
	h.fresh += len(ports)
	h.m.Sample(votes, h.now)
}

// TestPorts checks the rule of ports by what observers saw in one sample.
func TestPorts(t *testing.T) {
	for _, c := range []struct {
		name  string
		gap   time.Duration
		ports []uint16
		want  wire.PortRule
		step  int16
	}{
		{"one by one", 0, []uint16{2000, 2001, 2002}, wire.PortsSequential, 1},
		{"downwards", 0, []uint16{2000, 1998, 1996}, wire.PortsSequential, -2},
		{"others in between", 0, []uint16{2000, 2003, 2004, 2009}, wire.PortsSequential, 1},
		{"a step of others only", 0, []uint16{2000, 2004, 2012, 2016}, wire.PortsSequential, 4},
		{"a step of 16", 0, []uint16{2000, 2016, 2032}, wire.PortsSequential, 16},
		{"a step of 17", 0, []uint16{2000, 2017, 2034}, wire.PortsRandom, 0},
		{"from the last to the first", 0, []uint16{65534, 65535, 1024, 1025}, wire.PortsSequential, 1},
		{"from the first to the last", 0, []uint16{1025, 1024, 65535, 65534}, wire.PortsSequential, -1},
		{"one of four elsewhere", 0, []uint16{2000, 40000, 2002, 2003}, wire.PortsSequential, 1},
		{"the first one kept", 0, []uint16{50001, 2002, 2003, 2004}, wire.PortsSequential, 1},
		{"two of four elsewhere", 0, []uint16{2000, 40000, 2002, 9000}, wire.PortsRandom, 0},
		{"many others", 0, []uint16{2000, 2050, 2120, 2130, 2260, 2300, 2377}, wire.PortsSequential, 1},
		{"one mapping for all", 0, []uint16{2000, 2000, 2000, 2000}, wire.PortsUnknown, 0},
		{"one mapping for all, in turn", 1, []uint16{2000, 2000, 2000, 2000}, wire.PortsUnknown, 0},
		{"only two", 0, []uint16{2000, 2001}, wire.PortsUnknown, 0},
		{"too slowly", MaxGap + 1, []uint16{2000, 2001, 2002, 2003}, wire.PortsBlock, 0},
		{"just in time", MaxGap, []uint16{2000, 2001, 2002, 2003}, wire.PortsSequential, 1},
		{"near together", 0, []uint16{2300, 2170, 2010, 2480}, wire.PortsBlock, 0},
		{"near together but one", 0, []uint16{2300, 2170, 2010, 2480, 50000}, wire.PortsBlock, 0},
		{"far apart", 0, []uint16{2300, 12170, 42010, 52480}, wire.PortsRandom, 0},
	} {
		h := newHost(nil)
		h.told(c.gap, c.ports...)
		if d := h.verdict(); d.NAT.Ports != c.want || d.NAT.Step != c.step {
			t.Errorf("%s: rule %d, step %d of %v; want %d, %d", c.name, d.NAT.Ports, d.NAT.Step, c.ports, c.want, c.step)
		}
	}
}

// TestNewestSequential checks that peers are told of the newest mapping, and how
// old it is.
func TestNewestSequential(t *testing.T) {
	h := newHost(nil)
	h.told(0, 2000, 2001, 2002)
	h.now = h.now.Add(time.Second)
	h.told(0, 2013, 2014, 2015)
	h.now = h.now.Add(250 * time.Millisecond)
	d := h.verdict()
	if d.NAT.External != ep("5.9.1.1:2015") || d.NAT.Age != 250 || d.NAT.Rate != 100 {
		t.Errorf("%+v, want 2015, 250 ms ago, 10 a second", d.NAT)
	}
	if next := h.m.Next(udp4, h.now); !slices.Equal(next[:5], []uint16{2018, 2019, 2017, 2020, 2016}) {
		t.Errorf("next are %v; 2.5 of others' are expected", next[:5])
	}
	busy := newHost(nil)
	busy.told(0, 2000, 2001, 2002)
	busy.now = busy.now.Add(500 * time.Millisecond)
	for i := range uint16(10) {
		v := udp("5.9.1.1:1", observer(50+int(i)).String())
		v.Seen = netip.AddrPortFrom(v.Seen.Addr(), 2003+i)
		busy.m.Observe(v, busy.now)
	}
	busy.now = busy.now.Add(500 * time.Millisecond)
	busy.told(0, 2013, 2014, 2015)
	if d := busy.verdict(); d.NAT.Ports != wire.PortsSequential || d.NAT.Rate != 0 {
		t.Errorf("our own mappings are taken for others': %+v", d.NAT)
	}
	last := newHost(nil)
	last.told(0, 65530, 65532, 65534)
	if next := last.m.Next(udp4, last.now); !slices.Equal(next[:3], []uint16{1024, 1026, 1028}) {
		t.Errorf("after the last come %v", next[:3])
	}
	first := newHost(nil)
	first.told(0, 1030, 1028, 1026)
	if next := first.m.Next(udp4, first.now); !slices.Equal(next[:3], []uint16{1024, 65534, 65532}) {
		t.Errorf("before the first come %v", next[:3])
	}
}

// TestPooled checks that several external addresses at a time are noticed.
func TestPooled(t *testing.T) {
	for _, mapping := range []wire.Depends{wire.EndpointIndependent, wire.AddressPortDependent} {
		b := newBox(rand.New(rand.NewPCG(4, 9)), mapping, "random")
		b.addrs = nil
		for i := range 4 {
			b.addrs = append(b.addrs, netip.AddrFrom4([4]byte{5, 9, 1, byte(1 + i)}))
		}
		h := newHost(b)
		for range 3 {
			h.sample(4, 10*time.Millisecond)
			h.now = h.now.Add(time.Second)
		}
		d := h.verdict()
		if d.Pooled != (mapping != wire.EndpointIndependent) || d.NAT.Mapping != mapping || d.Confidence != Confirmed {
			t.Errorf("mapping %d: %+v", mapping, d)
		}
	}
}

// TestManySockets checks that the external address is known, and the rule of ports,
// when each connection has a socket of its own.
func TestManySockets(t *testing.T) {
	h := newHost(newBox(rand.New(rand.NewPCG(3, 10)), wire.EndpointIndependent, "preserve"))
	for i := range 5 {
		h.local = netip.AddrPortFrom(h.local.Addr(), uint16(40000+i))
		h.m.Observe(h.vote(i, observer(i)), h.now)
	}
	d := h.verdict()
	if d.Confidence != Confirmed || d.NAT.Mapping != wire.DependsUnknown || d.NAT.Ports != wire.PortsPreserving || d.NAT.External.Addr() != h.b.addrs[0] {
		t.Errorf("%+v", d)
	}
}

// TestOldMappings checks that observers that are asked again, while their mappings
// stand, spoil nothing of what a sample has shown, and show nothing of their own.
func TestOldMappings(t *testing.T) {
	for _, again := range []func(h *host){
		func(h *host) { h.fresh = 0; h.sample(4, time.Millisecond) },
		func(h *host) {
			for _, i := range []int{2, 0, 3, 1} {
				h.m.Observe(h.vote(i, observer(i)), h.now)
			}
		},
	} {
		b := newBox(rand.New(rand.NewPCG(2, 11)), wire.AddressPortDependent, "sequential")
		h := newHost(b)
		h.sample(4, time.Millisecond)
		want := h.verdict()
		if want.NAT.Ports != wire.PortsSequential {
			t.Fatalf("%+v", want)
		}
		h.now = h.now.Add(5 * time.Second)
		again(h)
		d := h.verdict()
		if d.NAT.Ports != want.NAT.Ports || d.NAT.Step != want.NAT.Step || d.NAT.External != want.NAT.External || d.NAT.Age < 5000 {
			t.Errorf("%+v, before %+v", d.NAT, want.NAT)
		}
	}
	b := newBox(rand.New(rand.NewPCG(2, 12)), wire.AddressPortDependent, "sequential")
	b.rate = 20
	h := newHost(b)
	for i := range 5 {
		h.m.Observe(h.vote(i, observer(i)), h.now)
		h.now = h.now.Add(7 * time.Second)
	}
	h.sample(5, 0)
	if d := h.verdict(); d.NAT.Ports == wire.PortsRandom || d.NAT.Ports == wire.PortsSequential {
		t.Errorf("a rule by mappings that were made seven seconds apart: %+v", d.NAT)
	}
}
