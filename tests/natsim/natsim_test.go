package natsim

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	external = []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("203.0.113.6")}
	host     = at("192.168.1.2:4000")
	other    = at("192.168.1.3:4000")
	a1       = at("198.51.100.1:1000")
	a2       = at("198.51.100.1:2000")
	b1       = at("198.51.100.2:1000")
	start    = time.Unix(1_000_000, 0)
)

func at(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// lab is a NAT with a time of its own.
type lab struct {
	*testing.T
	*NAT
	now time.Time
}

func newLab(t *testing.T, words string, seed uint64) *lab {
	t.Helper()
	n, err := New(MustParse(words), external, seed)
	if err != nil {
		t.Fatal(err)
	}
	return &lab{t, n, start}
}

// send sends from inside and returns how the source looks outside; the zero
// AddrPort means that it does not get out.
func (l *lab) send(p Protocol, from, to netip.AddrPort, flags ...Flags) netip.AddrPort {
	r := l.Out(l.now, Packet{Protocol: p, From: from, To: to, Flags: only(flags)})
	if !r.Pass || r.Inside {
		return netip.AddrPort{}
	}
	if r.Packet.To != to || r.Packet.Protocol != p {
		l.Fatalf("%v to %v became %+v", from, to, r.Packet)
	}
	return r.Packet.From
}

// get sends from outside and returns where it arrives, and the answer.
func (l *lab) get(p Protocol, from, to netip.AddrPort, flags ...Flags) (netip.AddrPort, Answer) {
	r := l.In(l.now, Packet{Protocol: p, From: from, To: to, Flags: only(flags)})
	if !r.Pass {
		return netip.AddrPort{}, r.Answer
	}
	if r.Packet.From != from || !r.Inside {
		l.Fatalf("%v to %v became %+v", from, to, r.Packet)
	}
	return r.Packet.To, r.Answer
}

func only(flags []Flags) (out Flags) {
	for _, f := range flags {
		out |= f
	}
	return out
}

// arrives fails when a packet from outside does not arrive as it should.
func (l *lab) arrives(what string, p Protocol, from, to netip.AddrPort, want bool, flags ...Flags) {
	l.Helper()
	if got, _ := l.get(p, from, to, flags...); got.IsValid() != want {
		l.Errorf("%s: %v to %v arrives at %v, want %v", what, from, to, got, want)
	}
}

func TestMappingAndFilter(t *testing.T) {
	for _, p := range []Protocol{UDP, TCP} {
		for _, c := range []struct {
			words                     string
			samePort, sameAddr        bool // one mapping for two ports of one address, for two addresses
			sameEnd, address, anybody bool // who may answer
		}{
			{"full-cone", true, true, true, true, true},
			{"restricted", true, true, true, true, false},
			{"home", true, true, true, false, false},
			{"mapping=address filter=address", true, false, true, true, false},
			{"symmetric", false, false, true, false, false},
			{"symmetric filter=independent", false, false, true, true, true},
			{"firewall", true, true, true, false, false},
			{"firewall filter=independent", true, true, true, true, true},
		} {
			l := newLab(t, c.words, 1)
			seen := l.send(p, host, a1, SYN)
			if outside := seen.Addr() == external[0]; outside == strings.HasPrefix(c.words, "firewall") {
				t.Errorf("%s: it comes from %v", c.words, seen)
			}
			l.arrives(c.words+": the one asked", p, a1, seen, c.sameEnd, SYN, ACK)
			l.arrives(c.words+": its other port", p, a2, seen, c.address, SYN)
			l.arrives(c.words+": another address", p, b1, seen, c.anybody, SYN)
			if got := l.send(p, host, a2, SYN) == seen; got != c.samePort {
				t.Errorf("%s: the same mapping for two ports: %v", c.words, got)
			}
			if got := l.send(p, host, b1, SYN) == seen; got != c.sameAddr {
				t.Errorf("%s: the same mapping for two addresses: %v", c.words, got)
			}
			if to, _ := l.get(p, a1, seen); to != host {
				t.Errorf("%s: it arrives at %v", c.words, to)
			}
		}
	}
}

func TestPorts(t *testing.T) {
	draw := func(words string, seed uint64, count int) (out []int) {
		l := newLab(t, words, seed)
		for i := range count {
			out = append(out, int(l.send(UDP, host, netip.AddrPortFrom(a1.Addr(), uint16(1000+i))).Port()))
		}
		return out
	}
	for words, step := range map[string]int{"sequential": 1, "sequential step=-2": -2, "sequential step=7": 7, "sequential parity=on": 2} {
		for seed := range uint64(50) {
			got := draw(words, seed, 20)
			for i := range got[1:] {
				if d := got[i+1] - got[i]; d != step && d > -60_000 && d < 60_000 {
					t.Fatalf("%s: %v", words, got)
				}
			}
		}
	}
	for _, port := range draw("block", 3, 512) {
		if port < 40000 || port > 40511 {
			t.Errorf("port %d of a block", port)
		}
	}
	if got := draw("block", 3, 513); got[512] != 0 {
		t.Errorf("a block of 512 gave one more: %d", got[512])
	}
	if a, b := draw("symmetric", 1, 20), draw("symmetric", 2, 20); reflect.DeepEqual(a, b) || !reflect.DeepEqual(a, draw("symmetric", 1, 20)) {
		t.Error("random ports do not come from the seed")
	}
	for _, port := range draw("symmetric parity=on", 1, 50) {
		if port%2 != 0 {
			t.Errorf("port %d for an even one", port)
		}
	}
	l := newLab(t, "home", 1)
	if got := l.send(UDP, host, a1); got.Port() != 4000 {
		t.Errorf("a preserved port is %v", got)
	}
	if got := l.send(TCP, host, a1, SYN); got.Port() != 4000 {
		t.Errorf("a preserved port of TCP is %v", got)
	}
	if got := l.send(UDP, other, a1); got.Port() == 4000 || !got.IsValid() {
		t.Errorf("a taken port is given to another host as %v", got)
	}
	if l.send(UDP, host, b1).Port() != 4000 {
		t.Error("the first one lost its mapping")
	}
}

func TestNoiseTakesPorts(t *testing.T) {
	sum := 0
	for seed := range uint64(200) {
		l := newLab(t, "sequential step=3 noise=20 low=10000 high=60000", seed)
		first := l.send(UDP, host, a1).Port()
		l.now = l.now.Add(500 * time.Millisecond)
		d := int(l.send(UDP, host, a2).Port()) - int(first)
		if d < 0 {
			d += 50001
		}
		if d%3 != 0 {
			t.Fatalf("a distance of %d", d)
		}
		sum += d/3 - 1
	}
	if sum < 1800 || sum > 2200 {
		t.Errorf("others made %d mappings in 100 s, want about 2000", sum)
	}
}

func TestTCPDiffers(t *testing.T) {
	l := newLab(t, "home tcp-mapping=address-port tcp-ports=sequential", 1)
	if a, b := l.send(UDP, host, a1), l.send(UDP, host, b1); a != b || a.Port() != 4000 {
		t.Errorf("UDP comes from %v and %v", a, b)
	}
	if a, b := l.send(TCP, host, a1, SYN), l.send(TCP, host, b1, SYN); b.Port() != a.Port()+1 {
		t.Errorf("TCP comes from %v and %v", a, b)
	}
}

func TestTimeouts(t *testing.T) {
	for _, c := range []struct {
		words  string
		p      Protocol
		opened bool
		inward time.Duration // something comes in then; 0 for never
		lives  time.Duration
	}{
		{"home", UDP, false, 0, 30 * time.Second},
		{"home", UDP, false, 20 * time.Second, 30 * time.Second},
		{"home refresh=on", UDP, false, 20 * time.Second, 50 * time.Second},
		{"home timeout=5s", UDP, false, 0, 5 * time.Second},
		{"home", TCP, false, 0, 2 * time.Minute},
		{"home tcp-opening=3s", TCP, false, 0, 3 * time.Second},
		{"symmetric", TCP, true, 0, 2*time.Hour + 4*time.Minute},
		{"firewall tcp-timeout=1h", TCP, true, 0, time.Hour},
	} {
		for _, late := range []bool{false, true} {
			l := newLab(t, c.words, 1)
			seen := l.send(c.p, host, a1, SYN)
			if c.opened {
				l.arrives(c.words, c.p, a1, seen, true, SYN, ACK)
			}
			if c.inward > 0 {
				l.now = start.Add(c.inward)
				l.arrives(c.words, c.p, a1, seen, true)
			}
			l.now = start.Add(c.lives - time.Nanosecond)
			if late {
				l.now = start.Add(c.lives)
			}
			l.arrives(c.words, c.p, a1, seen, !late)
			if late && strings.HasPrefix(c.words, "symmetric") && l.send(c.p, host, a1, SYN) == seen {
				t.Errorf("%s: an old mapping is back", c.words)
			}
		}
	}
}

// TestPermissionEndsAlone: who was not talked to for a while is a stranger, though
// the mapping lives for others.
func TestPermissionEndsAlone(t *testing.T) {
	l := newLab(t, "home", 1)
	seen := l.send(UDP, host, a1)
	l.now = l.now.Add(20 * time.Second)
	l.send(UDP, host, b1)
	l.now = l.now.Add(20 * time.Second)
	l.arrives("the forgotten one", UDP, a1, seen, false)
	l.arrives("the other", UDP, b1, seen, true)
}

func TestTCPEnds(t *testing.T) {
	for _, words := range []string{"home", "symmetric", "restricted"} {
		// A refused connection is forgotten at once: the hole is closed.
		l := newLab(t, words, 1)
		seen := l.send(TCP, host, a1, SYN)
		l.arrives(words+": the refusal", TCP, a1, seen, true, RST, ACK)
		l.arrives(words+": after it", TCP, a1, seen, false, SYN)
		again := l.send(TCP, host, a1, SYN)
		if same := again == seen; same == (words == "symmetric") {
			t.Errorf("%s: dialled again from %v, before from %v", words, again, seen)
		}
		// Simultaneous open: SYN meets SYN.
		l.arrives(words+": a SYN from there", TCP, a1, again, true, SYN)
		l.now = l.now.Add(time.Hour)
		l.arrives(words+": an open connection", TCP, a1, again, true, ACK)
		// A reset one is known for a moment.
		l.arrives(words+": a reset", TCP, a1, again, true, RST)
		l.now = l.now.Add(9 * time.Second)
		l.arrives(words+": soon after", TCP, a1, again, true, ACK)
		l.now = l.now.Add(time.Second)
		l.arrives(words+": later", TCP, a1, again, false, ACK)
		// One that both ends have ended lives a little.
		third := l.send(TCP, host, a1, SYN)
		l.arrives(words, TCP, a1, third, true, SYN, ACK)
		l.send(TCP, host, a1, FIN, ACK)
		l.arrives(words+": half closed", TCP, a1, third, true, FIN, ACK)
		l.now = l.now.Add(2*time.Minute - 1)
		l.arrives(words+": closed", TCP, a1, third, true, ACK)
		l.now = l.now.Add(2 * time.Minute)
		l.arrives(words+": long closed", TCP, a1, third, false, ACK)
		if l.send(TCP, host, b1, RST) != (netip.AddrPort{}) && words == "symmetric" {
			t.Errorf("%s: a reset made a mapping", words)
		}
	}
}

func TestStrangers(t *testing.T) {
	for words, want := range map[string][2]Answer{
		"home": {}, "home strangers=punish": {},
		"home strangers=refuse": {Unreachable, Reset}, "symmetric strangers=accept": {Unreachable, Reset},
		"firewall strangers=refuse": {Unreachable, Reset},
	} {
		l := newLab(t, words, 1)
		for i, p := range []Protocol{UDP, TCP} {
			seen := l.send(p, host, a1, SYN)
			for _, to := range []netip.AddrPort{seen, netip.AddrPortFrom(seen.Addr(), 7)} {
				if got, answer := l.get(p, b1, to, SYN); got.IsValid() || answer != want[i] {
					t.Errorf("%s: protocol %d to %v arrives at %v, answer %d", words, p, to, got, answer)
				}
			}
			if got, answer := l.get(TCP, b1, seen, RST); got.IsValid() || answer != NoAnswer {
				t.Errorf("%s: a reset is answered by %d", words, answer)
			}
		}
	}
}

func TestAcceptPollutes(t *testing.T) {
	for _, ports := range []string{"ports=preserve", "ports=random"} {
		l := newLab(t, "home strangers=accept "+ports, 1)
		seen := l.send(UDP, host, a1)
		l.get(UDP, b1, seen) // too early
		bent := l.send(UDP, host, b1)
		if bent == seen || !bent.IsValid() {
			t.Fatalf("after the stranger's packet it comes from %v as before", bent)
		}
		if again := l.send(UDP, host, b1); again != bent {
			t.Errorf("then from %v", again)
		}
		if got := l.send(UDP, host, a2); got != seen {
			t.Errorf("to others it comes from %v, before from %v", got, seen)
		}
		l.arrives("the bent mapping", UDP, b1, bent, true)
		l.arrives("the straight one", UDP, b1, seen, false)
		l.arrives("the straight one", UDP, a1, seen, true)
		for range 3 { // it lasts while he goes on
			l.now = l.now.Add(20 * time.Second)
			l.get(UDP, b1, seen)
			l.send(UDP, host, a1)
			l.send(UDP, host, b1)
		}
		l.now = l.now.Add(30 * time.Second)
		l.send(UDP, host, a2)
		if got := l.send(UDP, host, b1); ports == "ports=preserve" && got.Port() != 4000 {
			t.Errorf("when he has been silent it comes from %v", got)
		}
	}
	// Without a mapping too, and not by TCP.
	l := newLab(t, "home strangers=accept", 1)
	l.get(UDP, b1, netip.AddrPortFrom(external[0], 4000))
	l.get(TCP, b1, netip.AddrPortFrom(external[0], 4000), SYN)
	if got := l.send(UDP, host, b1); got.Port() == 4000 {
		t.Error("an entry without a mapping does nothing")
	}
	if got := l.send(UDP, host, a1); got.Port() != 4000 {
		t.Errorf("to others it comes from %v", got)
	}
	if got := l.send(TCP, host, b1, SYN); got.Port() != 4000 {
		t.Errorf("TCP comes from %v", got)
	}
	// Who was asked first is no stranger.
	l = newLab(t, "home strangers=accept", 1)
	seen := l.send(UDP, host, b1)
	l.arrives("an answer", UDP, b1, seen, true)
	if l.send(UDP, host, b1) != seen {
		t.Error("an answer bends the mapping")
	}
}

func TestPunish(t *testing.T) {
	l := newLab(t, "home strangers=punish", 1)
	seen := l.send(UDP, host, a1)
	l.get(UDP, a2, seen)
	l.send(UDP, host, a2)
	for _, p := range []netip.AddrPort{a1, a2} {
		l.arrives("the punished", UDP, p, seen, false)
	}
	l.send(UDP, host, b1)
	l.arrives("another", UDP, b1, seen, true)
	l.now = l.now.Add(30 * time.Second)
	l.send(UDP, host, a1)
	l.arrives("after the punishment", UDP, a1, seen, true)
}

func TestHairpin(t *testing.T) {
	for _, on := range []bool{false, true} {
		l := newLab(t, "home strangers=refuse hairpin="+map[bool]string{true: "on", false: "off"}[on], 1)
		x, y := l.send(UDP, host, a1), l.send(UDP, other, a1)
		first := l.Out(l.now, Packet{Protocol: UDP, From: host, To: y})
		second := l.Out(l.now, Packet{Protocol: UDP, From: other, To: x})
		if !on {
			if first.Pass || first.Answer != Unreachable {
				t.Errorf("without a hairpin: %+v", first)
			}
			continue
		}
		if first.Pass {
			t.Errorf("the filter let the first one in: %+v", first)
		}
		if want := (Result{Pass: true, Inside: true, Packet: Packet{Protocol: UDP, From: y, To: host}}); second != want {
			t.Errorf("the second became %+v, want %+v", second, want)
		}
	}
}

func TestForward(t *testing.T) {
	l := newLab(t, "symmetric", 1)
	public := netip.AddrPortFrom(external[0], 5483)
	for range 2 {
		if !l.Forward(TCP, 5483, host) || l.Forward(TCP, 5483, other) {
			t.Fatal("a forward belongs to one endpoint")
		}
	}
	if to, _ := l.get(TCP, b1, public, SYN); to != host {
		t.Errorf("a stranger arrives at %v", to)
	}
	if from := l.send(TCP, host, b1, SYN, ACK); from != public {
		t.Errorf("the answer comes from %v", from)
	}
	l.arrives("UDP", UDP, b1, public, false)
	l.Unforward(TCP, 5483)
	l.arrives("after it was taken away", TCP, a2, public, false, SYN)
	l.Forward(UDP, 9, host)
	l.Reboot(false)
	l.arrives("after a reboot", UDP, b1, netip.AddrPortFrom(external[0], 9), false)
}

func TestReboot(t *testing.T) {
	for _, words := range []string{"home", "symmetric", "cone"} {
		l := newLab(t, words, 1)
		seen := l.send(UDP, host, a1)
		l.Reboot(false)
		l.arrives(words+": an old mapping", UDP, a1, seen, false)
		if again := l.send(UDP, host, a1); again.Addr() != external[0] || again == seen && words != "home" {
			t.Errorf("%s: %v, after a reboot %v", words, seen, again)
		}
		l.Reboot(true)
		if again := l.send(UDP, host, a1); again.Addr() != external[1] || l.External() != external[1] {
			t.Errorf("%s: after a reboot with another address %v", words, again)
		}
		l.arrives(words+": the old address", UDP, a1, seen, false)
	}
}

func TestIPv6AndBlockedUDP(t *testing.T) {
	in, out, stranger := at("[2001:db8:1::2]:4000"), at("[2001:db8:2::1]:1000"), at("[2001:db8:3::1]:1000")
	for words, want := range map[string][3]bool{ // out, the answer in, a stranger in
		"home ipv6=firewall": {true, true, false}, "symmetric ipv6=open": {true, true, true}, "home": {}, "home udp=off ipv6=open": {},
	} {
		l := newLab(t, words, 1)
		seen := l.send(UDP, in, out)
		if want[0] && seen != in || seen.IsValid() != want[0] {
			t.Errorf("%s: it comes from %v", words, seen)
		}
		l.arrives(words, UDP, out, in, want[1])
		l.arrives(words, UDP, stranger, in, want[2])
	}
	l := newLab(t, "home udp=off", 1)
	if l.send(UDP, host, a1).IsValid() || !l.send(TCP, host, a1, SYN).IsValid() {
		t.Error("UDP is not off, or TCP is")
	}
}

func TestArbitraryAddresses(t *testing.T) {
	l := newLab(t, "symmetric arbitrary=on", 1)
	seen := map[netip.Addr]bool{}
	for i := range 20 {
		seen[l.send(UDP, host, netip.AddrPortFrom(a1.Addr(), uint16(1+i))).Addr()] = true
	}
	if len(seen) != 2 {
		t.Errorf("it comes from %v", seen)
	}
}

func TestTablesAreBounded(t *testing.T) {
	l := newLab(t, "symmetric timeout=1s strangers=accept", 1)
	to := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 14), 1}), uint16(i&0x3fff+1))
	}
	for i := range mostMappings {
		if !l.send(UDP, host, to(i)).IsValid() {
			t.Fatalf("mapping %d was refused", i)
		}
	}
	if l.send(UDP, host, to(mostMappings)).IsValid() {
		t.Error("the table grows beyond its bound")
	}
	l.now = l.now.Add(time.Second)
	if !l.send(UDP, host, to(mostMappings)).IsValid() || len(l.inside) != 1 || len(l.outside) != 1 {
		t.Errorf("old mappings do not make room: %d and %d", len(l.inside), len(l.outside))
	}
	for i := range mostMarks + 10 {
		l.get(UDP, to(i), at("203.0.113.5:9"))
	}
	if len(l.polluted) != mostMarks {
		t.Errorf("%d strangers are known", len(l.polluted))
	}
	l = newLab(t, "cone timeout=1s", 1)
	for i := range mostSessions + 1 {
		if l.send(UDP, host, to(i)).IsValid() == (i == mostSessions) {
			t.Fatalf("session %d", i)
		}
	}
	l.now = l.now.Add(time.Second)
	if !l.send(UDP, host, to(0)).IsValid() {
		t.Error("old sessions do not make room")
	}
}

func TestWords(t *testing.T) {
	got := MustParse("sequential,step=-3 low=2000 high=3000 parity=on noise=2.5 timeout=5s tcp-timeout=1h tcp-opening=4m strangers=punish " +
		"punishment=9s hairpin=on arbitrary=on refresh=on ipv6=open addresses=3 udp=off firewall=on tcp-filter=independent")
	want := Config{
		Mapping: OnAddressPort, Filter: OnAddressPort, Ports: Sequential, Step: -3, Low: 2000, High: 3000, Parity: true, Noise: 2.5,
		UDPTimeout: 5 * time.Second, TCPTimeout: time.Hour, TCPOpening: 4 * time.Minute, Strangers: Punish, Punishment: 9 * time.Second,
		Hairpin: true, Arbitrary: true, InboundRefresh: true, IPv6: IPv6Open, Addresses: 3, NoUDP: true, Firewall: true,
	}
	tcp := want
	tcp.Filter = Independent
	want.TCP = &tcp
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for kind := range kinds {
		if _, err := Parse(kind); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, word := range []string{
		"round", "mapping=x", "filter", "timeout=1", "parity=1", "low=70000", "high=1000", "timeout=-1s", "noise=-1", "noise=NaN",
		"step=99999", "strangers=kiss", "ipv6=8", "tcp-mapping=x", "tcp-high=1", "addresses=999", "udp=maybe", "ports=all",
	} {
		if _, err := Parse(word); err == nil {
			t.Errorf("%q was taken", word)
		}
	}
}

// FuzzPackets gives a NAT of any kind any packets at any times.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, "home")
	f.Add([]byte("some packets or others, with times between"), "sequential strangers=accept hairpin=on noise=9")
	f.Add([]byte("\x00\x81\x02\x13\xff\xff\x00\x11"), "symmetric strangers=punish low=5 high=9")
	f.Fuzz(func(t *testing.T, script []byte, words string) {
		c, err := Parse(strings.Fields(words)...)
		if err != nil {
			return
		}
		n, err := New(c, external, 1)
		if err != nil {
			t.Fatal(err)
		}
		ends := []netip.AddrPort{host, other, a1, a2, b1, at("203.0.113.5:4000"), at("[2001:db8::1]:1"), at("[2001:db8::2]:2")}
		now := start
		for ; len(script) >= 4; script = script[4:] {
			v := binary.BigEndian.Uint32(script)
			p := Packet{Protocol: UDP, From: ends[v&7], To: ends[v>>3&7]}
			if v>>6&1 == 1 {
				p.Protocol, p.Flags = TCP, Flags(v>>7&31)
			}
			now = now.Add(time.Duration(v>>12&0xfff) * 10 * time.Millisecond)
			var r Result
			switch {
			case v>>24&1 == 0:
				r = n.Out(now, p)
			case v>>24 == 0xff:
				n.Reboot(true)
			default:
				r = n.In(now, p)
			}
			if r.Pass && (!r.Packet.From.IsValid() || !r.Packet.To.IsValid() || r.Answer != NoAnswer) {
				t.Fatalf("%+v became %+v", p, r)
			}
			for at, m := range n.outside {
				if n.inside[m.inner] != m || at.public != m.public {
					t.Fatalf("a mapping of %v that nothing inside has", at)
				}
			}
		}
	})
}
