package guard

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/identity"
)

var (
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	usual = Config{Accepts: 100, Burst: 400, AddressAccepts: 10, AddressBurst: 80, CPU: 0.5}
)

func four(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// at returns the address of one who offends and one who does not.
var bad, good = netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("198.51.100.7")

func TestAlertOncePerInterval(t *testing.T) {
	g, now := New(usual, start), start
	var got []Alert
	for range 600 { // a minute of ten a second
		now = now.Add(100 * time.Millisecond)
		got = append(got, g.Charge(now, Who{Addr: bad}, Garbage, 1, 20, time.Millisecond)...)
	}
	if len(got) < 4 || len(got) > 6 {
		t.Fatalf("%d alerts in a minute, want one in 10 s from when it was too much", len(got))
	}
	sum := uint64(0)
	for i, a := range got {
		if a.Kind != Garbage || !a.Peer.IsZero() || a.Prefix != netip.PrefixFrom(bad, 32) || a.Many {
			t.Fatalf("alert %+v", a)
		}
		if want := banFirst << i; a.Ban != want {
			t.Errorf("alert %d suggests %v, want %v", i, a.Ban, want)
		}
		if a.Bytes != 20*a.Count || a.CPU != time.Duration(a.Count)*time.Millisecond {
			t.Errorf("figures do not fit together: %+v", a.Figures)
		}
		sum += a.Count
	}
	if last := got[len(got)-1]; last.Total != sum {
		t.Errorf("counts of alerts sum to %d, the total says %d", sum, last.Total)
	}
}

func TestBelowTheBrimNothingIsSaid(t *testing.T) {
	g, now := New(usual, start), start
	for range 3600 {
		now = now.Add(time.Second)
		if got := g.Charge(now, Who{Addr: good}, Garbage, 1, 20, 0); got != nil {
			t.Fatalf("alert about one a second: %+v", got)
		}
	}
}

func TestPeersArePutBeforeTheirAddress(t *testing.T) {
	g := New(usual, start)
	peer := identity.PeerID{1}
	got := g.Charge(start, Who{peer, bad}, Protocol, 1, 0, 0)
	if len(got) != 1 || got[0].Peer != peer || got[0].Prefix.Addr() != bad {
		t.Fatalf("one breach gives %+v, want an alert about the peer alone", got)
	}
	for i := range 7 { // others of the same address
		got = g.Charge(start, Who{identity.PeerID{byte(i + 2)}, bad}, Protocol, 1, 0, 0)
	}
	if len(got) != 2 || !got[1].Peer.IsZero() || got[1].Prefix != netip.PrefixFrom(bad, 32) {
		t.Fatalf("eight peers of one address give %+v, want an alert about the address too", got)
	}
}

// TestSharesAddUp: of what goes over a peer's brim at once its address is charged with the part up
// to it, and with the bytes and the time of that part.
func TestSharesAddUp(t *testing.T) {
	g := New(usual, start)
	var told []Alert
	for i := range addressFactor {
		told = g.Charge(start, Who{identity.PeerID{byte(i + 1)}, bad}, Gossip, 1024, 1024*100, 1024*time.Millisecond)
	}
	if len(told) != 2 || told[0].Count != 1024 || told[0].Bytes != 102_400 {
		t.Fatalf("told %+v", told)
	}
	if a := told[1]; !a.Peer.IsZero() || a.Count != addressFactor*512 || a.Bytes != a.Count*100 || a.CPU != time.Duration(a.Count)*time.Millisecond {
		t.Errorf("of the address is told %+v", a)
	}
}

// TestNeighboursAreNotAccused: whatever one peer does in its sessions for an hour, its address and
// its prefix are not accused of it.
func TestNeighboursAreNotAccused(t *testing.T) {
	peer := identity.PeerID{1}
	for kind := Protocol; kind < kinds; kind++ {
		g, now, told := New(usual, start), start, 0
		for n := range 36_000 {
			now = now.Add(100 * time.Millisecond)
			for _, a := range g.Charge(now, Who{peer, bad}, kind, n%1000, 0, 0) {
				if a.Peer != peer {
					t.Fatalf("kind %d, after %v: alert about %v", kind, now.Sub(start), a.Prefix)
				}
				told++
			}
		}
		if told < 355 || told > 360 {
			t.Errorf("kind %d: %d alerts in an hour, want one in 10 s", kind, told)
		}
	}
}

func TestManyAddressesOfOnePrefix(t *testing.T) {
	g, now := New(usual, start), start
	prefixes := 0
	for i := range 2000 { // each of 250 addresses eight times
		now = now.Add(time.Millisecond)
		for _, a := range g.Charge(now, Who{Addr: four(0xcb007100 + uint32(i%250))}, Garbage, 1, 0, 0) {
			if !a.Many || a.Prefix.String() != "203.0.113.0/24" {
				t.Fatalf("alert about %v", a.Prefix)
			}
			prefixes++
		}
	}
	if prefixes != 1 {
		t.Errorf("%d alerts about the prefix in 2 s, want 1", prefixes)
	}
	for range 2000 { // one address alone does not accuse its neighbours
		for _, a := range g.Charge(now, Who{Addr: good}, Garbage, 1, 0, 0) {
			if a.Many {
				t.Fatalf("one address gives an alert about %v", a.Prefix)
			}
		}
	}
}

func TestSessionsPardonHandshakes(t *testing.T) {
	g, now := New(usual, start), start
	for i := range 2000 { // a crowd behind one NAT comes back
		now = now.Add(time.Millisecond)
		for range 3 {
			if got := g.Charge(now, Who{Addr: good}, Handshakes, 1, 0, answerTest); got != nil {
				t.Fatalf("peer %d of a crowd: %+v", i, got)
			}
		}
		g.Began(now, Who{identity.PeerID{byte(i), byte(i >> 8)}, good})
	}
	now = now.Add(time.Minute)
	told := 0
	for range 200 { // who only begins is told of
		told += len(g.Charge(now, Who{Addr: bad}, Handshakes, 1, 0, answerTest))
	}
	if told != 1 {
		t.Errorf("%d alerts about 200 handshakes that were not finished, want 1", told)
	}
}

const answerTest = 150 * time.Microsecond

func TestBriefSessions(t *testing.T) {
	g, now := New(usual, start), start
	alerts := map[Kind]int{}
	for range 200 {
		now = now.Add(100 * time.Millisecond)
		for _, a := range g.Ended(now, Who{identity.PeerID{1}, bad}, Brief-1, 1, 10, answerTest) {
			alerts[a.Kind]++
		}
		if got := g.Ended(now, Who{identity.PeerID{2}, good}, Brief, 1, 10, answerTest); got != nil {
			t.Fatalf("sessions that lasted: %+v", got)
		}
	}
	if alerts[Sessions] != 2 {
		t.Errorf("alerts %v about brief sessions, want 2", alerts)
	}
}

func TestTablesAreBounded(t *testing.T) {
	g, now := New(usual, start), start
	for range 60 {
		g.Charge(now, Who{Addr: bad}, Garbage, 1, 0, 0)
	}
	g.Trust(now, good, time.Hour)
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		now = now.Add(20 * time.Microsecond)
		g.Charge(now, Who{identity.PeerID{byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())}, four(random.Uint32())}, Gossip, 1, 0, 0)
	}
	s := g.Stats()
	if s.Peers > maxPeers || s.Addresses > maxAddresses || s.Prefixes > maxPrefixes {
		t.Fatalf("tables %+v", s)
	}
	if a := g.addresses.get(PlaceOf(bad), now); a.total != 60 {
		t.Error("a flood of others has pushed the offender out")
	}
	if a := g.addresses.get(PlaceOf(good), now); !a.trusts(now) {
		t.Error("a flood of others has pushed out who is trusted")
	}
}

func TestAlertsAreBounded(t *testing.T) {
	g, now := New(usual, start), start
	got := 0
	for i := range uint32(10_000) { // as many addresses as you like, in a second
		now = now.Add(100 * time.Microsecond)
		got += len(g.Charge(now, Who{Addr: four(i << 8)}, Garbage, 100, 0, 0))
	}
	if most := alertBurst + alertRate + 1; got > most || got < alertBurst {
		t.Errorf("%d alerts in a second, want at most %d", got, most)
	}
	if s := g.Stats(); s.Suppressed == 0 {
		t.Error("what was left out is not counted")
	}
}

// TestOneOffenderHidesNobody: who offends a thousand times a second from one address, whose
// prefix is not accused for that, takes no alert from another one.
func TestOneOffenderHidesNobody(t *testing.T) {
	g, now := New(usual, start), start
	loud, quiet := 0, 0
	for i := range 60_000 { // a minute
		now = now.Add(time.Millisecond)
		loud += len(g.Charge(now, Who{Addr: bad}, Garbage, 1, 20, 0))
		if i >= 30_000 && i%100 == 0 {
			quiet += len(g.Charge(now, Who{Addr: four(0xC0000201)}, Garbage, 1, 20, 0))
		}
	}
	if st := g.Stats(); loud < 5 || quiet < 2 || st.Suppressed != 0 {
		t.Errorf("%d alerts about the one, %d about the other, %d suppressed", loud, quiet, st.Suppressed)
	}
}

func TestOneAddressGetsNoMoreThanItsPart(t *testing.T) {
	g, now := New(usual, start), start
	in := 0
	for range 10_000 { // a thousand a second for ten seconds
		now = now.Add(time.Millisecond)
		if g.MayConnect(now, bad) {
			in++
		}
	}
	if most := 80 + 100; in > most+1 || in < most-1 {
		t.Errorf("%d connections of one address in 10 s, want %d", in, most)
	}
	if !g.MayConnect(now, good) {
		t.Error("another address is refused")
	}
}

// A newcomer gets in while a crowd of others asks for fifty times what there is.
func TestNewcomersGetThroughAFlood(t *testing.T) {
	for name, attacker := range map[string]func(i int) netip.Addr{
		"few addresses":      func(i int) netip.Addr { return four(0x0b000000 + uint32(i%50)<<8) },
		"thousand addresses": func(i int) netip.Addr { return four(0x0b000000 + uint32(i%1000)<<8) },
		"one prefix":         func(i int) netip.Addr { return four(0x0b000000 + uint32(i%256)) },
	} {
		t.Run(name, func(t *testing.T) {
			g, now := New(usual, start), start
			random := rand.New(rand.NewPCG(1, 2))
			admitted, asked, refused := 0, 0, 0
			for i := range 5000 * 20 {
				now = now.Add(200 * time.Microsecond)
				if g.Admit(now, attacker(random.IntN(1<<20)), Accept, 1) {
					admitted++
				}
				if i > 5000*5 && i%5000 == 0 {
					asked++
					if !g.Admit(now, four(0xc6336400+uint32(i/5000)), Accept, 1) {
						refused++
					}
				}
			}
			if refused > 0 {
				t.Errorf("%d of %d newcomers were refused", refused, asked)
			}
			if most := 400 + 100*20; admitted > most {
				t.Errorf("%d of the flood got in, the budget is %d", admitted, most)
			}
		})
	}
}

// While a flood asks for more than there is, an address that makes nothing of what it
// gets soon gets next to nothing, and others in the flood go on as before.
func TestWhoWastesGetsLittle(t *testing.T) {
	for name, c := range map[string]struct {
		kind        Kind
		asked       int // a second, of 250 addresses in one prefix
		least, most int // admitted in the last of 30 s
	}{
		"flood":           {Handshakes, 5000, 100, 300},
		"garbage":         {Garbage, 5000, 100, 300},
		"brief sessions":  {Sessions, 5000, 100, 2000}, // of which an address may have eight times as many
		"not pressed":     {Handshakes, 40, 40, 40},
		"nothing is lost": {0, 5000, 0, 110}, // the budget alone decides
	} {
		t.Run(name, func(t *testing.T) {
			cfg := usual
			if c.kind != 0 {
				cfg.Accepts, cfg.Burst = 2000, 8000
			}
			g, now, last := New(cfg, start), start, 0
			for i := range c.asked * 30 {
				now = now.Add(time.Second / time.Duration(c.asked))
				who := four(0xcb007100 + uint32(i%250))
				if !g.Admit(now, who, Accept, 1) {
					continue
				}
				g.Charge(now, Who{Addr: who}, c.kind, 1, 0, 0)
				if i >= c.asked*29 {
					last++
				}
			}
			if last < c.least || last > c.most {
				t.Errorf("%d were admitted in the last second, want %d to %d", last, c.least, c.most)
			}
			if !g.Admit(now, good, Accept, 1) {
				t.Error("a newcomer is refused")
			}
			g.Trust(now, bad, time.Hour)
			g.Charge(now, Who{Addr: bad}, Sessions, 8, 0, 0)
			if !g.Admit(now, bad, Accept, 1) {
				t.Error("who is trusted is refused")
			}
			if calm := now.Add(time.Minute); !g.Admit(calm, four(0xcb007100), Accept, 1) {
				t.Error("when the flood is over the address stays out")
			}
		})
	}
}

func TestTrustIsLostByOffences(t *testing.T) {
	g := New(usual, start)
	g.Trust(start, bad, time.Hour)
	g.gates[Accept].left = 0
	if !g.Admit(start, bad, Accept, 1) {
		t.Error("who is trusted is refused")
	}
	if g.Admit(start, good, Accept, 1) {
		t.Error("a stranger is let in beyond the budget")
	}
	g.Charge(start, Who{Addr: bad}, Garbage, 100, 0, 0)
	if g.Admit(start, bad, Accept, 1) {
		t.Error("who has offended is still trusted")
	}
	if g.gates[Accept].refused != 2 {
		t.Errorf("%d refusals were counted, want 2", g.gates[Accept].refused)
	}
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string][2]string{
		"203.0.113.5":        {"203.0.113.5/32", "203.0.113.0/24"},
		"::ffff:203.0.113.5": {"203.0.113.5/32", "203.0.113.0/24"},
		"2001:db8:1:2:3::4":  {"2001:db8:1:2::/64", "2001:db8:1::/48"},
		"fe80::1%eth0":       {"fe80::/64", "fe80::/48"},
	} {
		addr := netip.MustParseAddr(text)
		if got := [2]string{PlaceOf(addr).String(), AreaOf(addr).String()}; got != want {
			t.Errorf("%s is of %v, want %v", text, got, want)
		}
	}
	if p := PlaceOf(netip.Addr{}); p.IsValid() {
		t.Errorf("no address is of %v", p)
	}
}
