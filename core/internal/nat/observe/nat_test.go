package observe

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// start is when tests begin.
var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func ep(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

var udp4 = Flow{Proto: UDP}

// box is a NAT: it knows nothing of the code under test.
type box struct {
	r       *rand.Rand
	mapping wire.Depends
	ports   string // preserve, sequential, block, random
	step    int
	low     int
	size    int
	rate    float64 // mappings of others a second
	addrs   []netip.Addr
	next    int
	at      time.Time // of the next one of others
	made    map[[2]netip.AddrPort]netip.AddrPort
	used    map[int]bool
}

func newBox(r *rand.Rand, mapping wire.Depends, ports string) *box {
	return &box{
		r: r, mapping: mapping, ports: ports, step: 1, at: start, addrs: []netip.Addr{netip.MustParseAddr("5.9.1.1")},
		next: 1024 + r.IntN(64000), low: 1024, size: 64512, made: map[[2]netip.AddrPort]netip.AddrPort{}, used: map[int]bool{},
	}
}

// send returns the external endpoint of a packet.
func (b *box) send(local, to netip.AddrPort, now time.Time) netip.AddrPort {
	for b.rate > 0 && b.at.Before(now) {
		if !b.at.Equal(start) {
			b.allocate(0)
		}
		b.at = b.at.Add(time.Duration(b.r.ExpFloat64() / b.rate * float64(time.Second)))
	}
	k := [2]netip.AddrPort{local}
	switch b.mapping {
	case wire.AddressDependent:
		k[1] = netip.AddrPortFrom(to.Addr(), 0)
	case wire.AddressPortDependent:
		k[1] = to
	}
	if _, found := b.made[k]; !found {
		b.made[k] = netip.AddrPortFrom(b.addrs[b.r.IntN(len(b.addrs))], b.allocate(local.Port()))
	}
	return b.made[k]
}

func (b *box) allocate(local uint16) uint16 {
	switch b.ports {
	case "preserve":
		return local
	case "sequential":
		b.next = 1024 + (b.next-1024+b.step+64512)%64512
		return uint16(b.next)
	}
	for {
		p := b.low + b.r.IntN(b.size)
		if !b.used[p] {
			b.used[p] = true
			return uint16(p)
		}
	}
}

// observer returns the i-th observer, each in a network of its own.
func observer(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(20 + i/200), byte(1 + i%200), 7, byte(1 + i%250)}), 4000)
}

// host asks observers through a box.
type host struct {
	m     Machine
	b     *box
	local netip.AddrPort
	now   time.Time
	// lie, when set, replaces what the i-th observer tells.
	lie func(i int, seen netip.AddrPort) netip.AddrPort
	// fresh is where unused observers begin.
	fresh int
}

func newHost(b *box) *host { return &host{b: b, local: ep("0.0.0.0:50001"), now: start} }

func (h *host) vote(i int, to netip.AddrPort) Vote {
	seen := h.b.send(h.local, to, h.now)
	if h.lie != nil {
		seen = h.lie(i, seen)
	}
	return Vote{Proto: UDP, Local: h.local, Seen: seen, Observer: to, Outbound: true, At: h.now}
}

// sample asks n observers, at intervals of gap.
func (h *host) sample(n int, gap time.Duration) {
	var votes []Vote
	for i := range n {
		votes = append(votes, h.vote(i, observer(h.fresh+i)))
		h.now = h.now.Add(gap)
	}
	h.fresh += n
	h.m.Sample(votes, h.now)
}

func (h *host) verdict() Verdict { return h.m.Verdict(udp4, h.now) }

// TestKinds measures every kind of NAT as the wishes say, by thousands of seeds.
func TestKinds(t *testing.T) {
	seeds := 400
	if !thorough {
		seeds = 50
	}
	for _, kind := range []struct {
		name    string
		mapping wire.Depends
		ports   string
		step    int
		rate    float64
		size    int
		want    wire.PortRule
		misses  int // of seeds, by chance
	}{
		{"full cone or home, preserving", wire.EndpointIndependent, "preserve", 0, 0, 0, wire.PortsPreserving, 0},
		{"endpoint-independent, random", wire.EndpointIndependent, "random", 0, 0, 0, wire.PortsUnknown, 0},
		{"symmetric by address, random", wire.AddressDependent, "random", 0, 0, 0, wire.PortsRandom, 4},
		{"symmetric, random", wire.AddressPortDependent, "random", 0, 0, 0, wire.PortsRandom, 4},
		{"symmetric, +1", wire.AddressPortDependent, "sequential", 1, 0, 0, wire.PortsSequential, 0},
		{"symmetric, -1", wire.AddressPortDependent, "sequential", -1, 0, 0, wire.PortsSequential, 0},
		{"symmetric, +2", wire.AddressPortDependent, "sequential", 2, 0, 0, wire.PortsSequential, 0},
		{"symmetric, -16", wire.AddressPortDependent, "sequential", -16, 0, 0, wire.PortsSequential, 0},
		{"symmetric by address, +1", wire.AddressDependent, "sequential", 1, 0, 0, wire.PortsSequential, 0},
		{"symmetric, +1, 20 foreign a second", wire.AddressPortDependent, "sequential", 1, 20, 0, wire.PortsSequential, 0},
		{"symmetric, -4, 20 foreign a second", wire.AddressPortDependent, "sequential", -4, 20, 0, wire.PortsSequential, 4},
		{"symmetric, block of 2048", wire.AddressPortDependent, "block", 0, 0, 2048, wire.PortsBlock, 12},
		{"symmetric, block of 500", wire.AddressPortDependent, "block", 0, 0, 500, wire.PortsBlock, 12},
	} {
		t.Run(kind.name, func(t *testing.T) {
			misses := 0
			for seed := range uint64(seeds) {
				r := rand.New(rand.NewPCG(seed, 1))
				b := newBox(r, kind.mapping, kind.ports)
				b.rate = kind.rate
				if kind.step != 0 {
					b.step = kind.step
				}
				if kind.size > 0 {
					b.size = kind.size
					b.low = 1024 + kind.size*r.IntN(60000/kind.size)
				}
				h := newHost(b)
				h.follow(t)
				d := h.verdict()
				if d.NAT.Mapping != kind.mapping || d.Confidence != Confirmed || d.None || d.Pooled || d.NAT.Double {
					t.Fatalf("seed %d: %+v", seed, d)
				}
				if d.NAT.External.Addr() != b.addrs[0] {
					t.Fatalf("seed %d: external address %v", seed, d.NAT.External)
				}
				if d.NAT.Ports != kind.want || d.NAT.Ports == wire.PortsSequential && int(d.NAT.Step) != kind.step ||
					d.NAT.Ports == wire.PortsBlock && !blockIsGood(d.NAT, kind.size, b) {
					misses++
					if misses > kind.misses {
						t.Fatalf("seed %d, miss %d: %+v", seed, misses, d)
					}
				}
				if _, _, err := wire.ParseNAT(d.NAT.Append(nil)); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			t.Logf("%d of %d missed", misses, seeds)
		})
	}
}

// blockIsGood reports whether three ports in four of a block are within bounds that are
// no more than twice too wide.
func blockIsGood(n wire.NAT, size int, b *box) bool {
	inside := min(int(n.High), b.low+size-1) - max(int(n.Low), b.low) + 1
	return inside*4 >= size*3 && int(n.High)-int(n.Low) < 2*size && int(n.High)-int(n.Low) < 2*maxBlock
}

// follow does what the machine wishes until nothing is wished for within ten seconds.
func (h *host) follow(t *testing.T) {
	t.Helper()
	for range 40 {
		wishes := h.m.Wishes(udp4, h.now)
		if len(wishes) == 0 || wishes[0].At.Sub(h.now) > 10*time.Second {
			return
		}
		if w := wishes[0].At; w.After(h.now) {
			h.now = w
		}
		switch wishes[0].Probe {
		case AskVotes, AskSample:
			h.sample(4, 20*time.Millisecond)
		case AskPort:
			to := observer(h.fresh - 1)
			h.m.Observe(h.vote(0, netip.AddrPortFrom(to.Addr(), to.Port()+1)), h.now)
		case AskStranger:
			h.m.Missed(UDP, observer(1000+h.fresh), Stranger, h.now)
			h.fresh++
		case AskNeighbour:
			h.m.Missed(UDP, observer(1000+h.fresh), Neighbour, h.now)
			h.fresh++
		case AskHairpin:
			h.m.SetHairpin(udp4, false, h.now)
		}
	}
	t.Fatalf("still wishes for %v", h.m.Wishes(udp4, h.now))
}
