package linklab

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/natsim"
)

func TestShapeReadsWords(t *testing.T) {
	var s Shape
	if err := s.Set("delay=20ms", "jitter=5ms", "loss=1%", "loss-burst=4", "reorder=0.02", "reorder-by=7ms", "duplicate=3%",
		"rate=200mbit", "burst=64kb", "queue=1mb", "mtu=1280", "icmp", "cut=on"); err != nil {
		t.Fatal(err)
	}
	want := Shape{
		Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01, LossBurst: 4, Reorder: 0.02,
		ReorderBy: 7 * time.Millisecond, Duplicate: 0.03, Rate: 200e6, Burst: 64 << 10, Queue: 1 << 20, MTU: 1280, ICMP: true, Cut: true,
	}
	if s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	for _, word := range []string{
		"delay=1", "delay=-1s", "delay=2m", "jitter=21ms", "loss=x", "loss=101%", "loss=NaN", "reorder=-1", "duplicate=1.5",
		"rate=fast", "rate=-1", "rate=1e30", "burst=x", "queue=1e14", "mtu=67", "mtu=65536", "icmp=maybe", "cut=", "speed=1",
		"loss-burst=-1", "reorder-by=1h", "", "=",
	} {
		if s.Set(word) == nil || s != want {
			t.Errorf("%q was taken: %+v", word, s)
		}
	}
}

func FuzzShape(f *testing.F) {
	for _, word := range []string{"delay=20ms", "loss=1%", "rate=1gbit", "queue=1mb", "icmp", "cut=off", "mtu=1280", "burst=1e300gb"} {
		f.Add(word)
	}
	f.Fuzz(func(t *testing.T, word string) {
		var s Shape
		if s.Set(word) != nil {
			return
		}
		p := newPipe(s, 1, 2)
		for now := int64(0); now < 10; now++ {
			if !p.fits(100) {
				continue
			}
			due, copies := p.admit(now, 100)
			for i := range copies {
				// Ten packets of 800 s each at 1 bit/s, and two minutes of delay.
				if due[i] < now || due[i]-now > int64(8120*time.Second) {
					t.Fatalf("%q: a packet of the time %d arrives at %d", word, now, due[i])
				}
			}
		}
	})
}

// A wire of 1 byte per microsecond, times in microseconds.
func TestPipeKeepsRateBurstAndQueue(t *testing.T) {
	p := newPipe(Shape{Rate: 8e6, Delay: time.Millisecond, Burst: 300, Queue: 250}, 0, 0)
	for i, c := range []struct{ now, size, want int64 }{
		{0, 100, 0}, {0, 100, 0}, {0, 100, 0}, // the burst
		{0, 100, 100}, {0, 100, 200}, {0, 100, -1}, // the queue, and beyond it
		{200, 50, 250},
		{1000, 300, 1000}, // the burst is there again
	} {
		due, copies := p.admit(c.now*1000, int(c.size))
		got := due[0]/1000 - 1000
		if copies == 0 {
			got = -1
		}
		if got != c.want {
			t.Errorf("packet %d: leaves at %d us, want %d", i, got, c.want)
		}
	}
	if p.count.QueueDrops != 1 {
		t.Errorf("%d dropped, want 1", p.count.QueueDrops)
	}
}

func TestSeedRepeatsTheFates(t *testing.T) {
	shape := Shape{Delay: time.Second, Jitter: time.Second, Loss: 0.3, LossBurst: 3, Reorder: 0.2, Duplicate: 0.2}
	a, b, c := newPipe(shape, 1, 0), newPipe(shape, 1, 0), newPipe(shape, 2, 0)
	differs := false
	for now := range int64(1000) {
		due, copies := a.admit(now, 100)
		if again, more := b.admit(now, 100); again != due || more != copies {
			t.Fatalf("packet %d has another fate with the same seed", now)
		}
		if other, more := c.admit(now, 100); other != due || more != copies {
			differs = true
		}
	}
	if !differs {
		t.Error("another seed gives the same fates")
	}
}

func TestBurstLossKeepsItsShare(t *testing.T) {
	for _, c := range []struct{ loss, burst float64 }{{0.01, 2}, {0.1, 5}, {0.5, 20}} {
		p := newPipe(Shape{Loss: c.loss, LossBurst: c.burst}, 3, 0)
		const count = 1_000_000
		bursts := 0
		before := false
		for range count {
			_, copies := p.admit(0, 100)
			if copies == 0 && !before {
				bursts++
			}
			before = copies == 0
		}
		share, mean := float64(p.count.Lost)/count, float64(p.count.Lost)/float64(bursts)
		if math.Abs(share/c.loss-1) > 0.1 || math.Abs(mean/c.burst-1) > 0.1 {
			t.Errorf("share %.4f in runs of %.2f, want %v in runs of %v", share, mean, c.loss, c.burst)
		}
	}
}

// segment makes a valid UDP or TCP packet.
func segment(protocol byte, from, to netip.AddrPort, payload string) []byte {
	header := 8
	checksum := 6
	if protocol == protocolTCP {
		header, checksum = 20, 16
	}
	p := make([]byte, ipv4Header+header, 100)
	p = append(p, payload...)
	p[0], p[8], p[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	a, b := from.Addr().As4(), to.Addr().As4()
	copy(p[12:], a[:])
	copy(p[16:], b[:])
	s := p[ipv4Header:]
	binary.BigEndian.PutUint16(s, from.Port())
	binary.BigEndian.PutUint16(s[2:], to.Port())
	if protocol == protocolUDP {
		binary.BigEndian.PutUint16(s[4:], uint16(len(s)))
	} else {
		s[12] = 5 << 4
	}
	binary.BigEndian.PutUint16(p[10:], fold(sum(0, p[:ipv4Header])))
	binary.BigEndian.PutUint16(s[checksum:], fold(sum(pseudo(p), s)))
	return p
}

func pseudo(p []byte) uint32 { return sum(uint32(p[9])+uint32(len(p)-ipv4Header), p[12:20]) }

// valid tells whether the checksums of a packet are right.
func valid(p []byte) bool {
	return fold(sum(0, p[:ipv4Header])) == 0 && fold(sum(pseudo(p), p[ipv4Header:])) == 0
}

var begin = time.Unix(1, 0)

func newNAT(t testing.TB, words string) *natsim.NAT {
	t.Helper()
	n, err := natsim.New(natsim.MustParse(words), []netip.Addr{netip.MustParseAddr("11.77.1.1")}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTranslationKeepsChecksums(t *testing.T) {
	local, remote := netip.MustParseAddrPort("192.168.1.2:4000"), netip.MustParseAddrPort("11.77.2.1:80")
	for _, protocol := range []byte{protocolUDP, protocolTCP} {
		n := newNAT(t, "full-cone")
		for i := range 1000 {
			payload := string(binary.BigEndian.AppendUint32(nil, uint32(i*77777))) + "odd"
			p := segment(protocol, netip.AddrPortFrom(local.Addr(), uint16(4000+i)), remote, payload)
			if !valid(p) || !translate(n, begin, p, true).Pass || !valid(p) || !age(p, i%64) || !valid(p) || int(p[8]) != 64-i%64 {
				t.Fatalf("packet %d of protocol %d is not valid outside", i, protocol)
			}
			_, mapped, _, _, _ := ports(p)
			back := segment(protocol, remote, mapped, payload)
			if !translate(n, begin, back, false).Pass || !valid(back) {
				t.Fatalf("packet %d of protocol %d is not valid inside", i, protocol)
			}
			if _, _, to, _, _ := ports(back); to != netip.AddrPortFrom(local.Addr(), uint16(4000+i)) {
				t.Fatalf("the answer goes to %v", to)
			}
		}
	}
	// A UDP packet without a checksum stays without.
	p := segment(protocolUDP, local, remote, "x")
	p[26], p[27] = 0, 0
	if !translate(newNAT(t, "full-cone"), begin, p, true).Pass || p[26] != 0 || p[27] != 0 {
		t.Error("a checksum appeared")
	}
	if age(p, 64) || !age(p, 63) || p[8] != 1 {
		t.Errorf("a TTL of 64 became %d", p[8])
	}
}

func TestAnswers(t *testing.T) {
	from, to := netip.MustParseAddrPort("192.168.1.2:4000"), netip.MustParseAddrPort("11.77.1.1:80")
	p := segment(protocolTCP, from, to, "data")
	binary.BigEndian.PutUint32(p[24:], 1000)
	p[33] = byte(natsim.SYN)
	buffer := make([]byte, 200)
	answer := refuse(buffer, p, natsim.Reset)
	_, source, destination, s, ok := ports(answer)
	if !ok || source != to || destination != from || !valid(answer) || s[13] != byte(natsim.RST|natsim.ACK) || binary.BigEndian.Uint32(s[8:]) != 1005 {
		t.Errorf("a SYN of 4 bytes and number 1000 is answered by %x", answer)
	}
	p[33] = byte(natsim.ACK)
	binary.BigEndian.PutUint32(p[28:], 7)
	if answer := refuse(buffer, p, natsim.Reset); answer[33] != byte(natsim.RST) || binary.BigEndian.Uint32(answer[24:]) != 7 {
		t.Errorf("an acknowledgement is answered by %x", answer)
	}
	p = segment(protocolUDP, from, to, "data")
	answer = refuse(buffer, p, natsim.Unreachable)
	if answer[20] != 3 || answer[21] != 3 || string(answer[28:]) != string(p) || fold(sum(0, answer[:20])) != 0 || fold(sum(0, answer[20:])) != 0 {
		t.Errorf("a datagram is answered by %x", answer)
	}
	if refuse(buffer, p, natsim.NoAnswer) != nil || refuse(buffer[:40], p, natsim.Unreachable) != nil {
		t.Error("there is an answer where none may be")
	}
}

// FuzzPacket gives arbitrary bytes to all that looks into packets.
func FuzzPacket(f *testing.F) {
	from, to := netip.MustParseAddrPort("192.168.1.2:4000"), netip.MustParseAddrPort("11.77.1.1:80")
	f.Add(segment(protocolUDP, from, to, "hello"))
	f.Add(segment(protocolTCP, from, to, "hello"))
	six := append([]byte{0x60, 0, 0, 0, 0, 12, protocolUDP, 64}, make([]byte, 44)...)
	six[8], six[24], six[41], six[43] = 0x20, 0x2a, 1, 2
	f.Add(six)
	f.Add(append([]byte{0x60}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > 65535 {
			return
		}
		n := newNAT(t, "home ipv6=firewall strangers=refuse hairpin=on")
		before := string(p)
		if !translate(n, begin, p, true).Pass && string(p) != before {
			t.Error("a packet was refused and changed")
		}
		translate(n, begin, p, false)
		if _, _, ok := addresses(p); ok {
			age(p, 3)
		}
		for _, a := range []natsim.Answer{natsim.Reset, natsim.Unreachable} {
			if answer := refuse(make([]byte, 200), p, a); answer != nil {
				if from, _, ok := addresses(answer); !ok || len(answer) > 128 {
					t.Errorf("an answer of %d bytes from %v", len(answer), from)
				}
			}
		}
		if _, _, ok := addresses(p); !ok {
			return
		}
		if m := tooBig(make([]byte, 2048), p, 1280, to.Addr(), netip.IPv6Unspecified()); m != nil {
			if m[0]>>4 == 4 && (fold(sum(0, m[:ipv4Header])) != 0 || fold(sum(0, m[ipv4Header:])) != 0) {
				t.Error("the checksums of a notice are wrong")
			}
		}
	})
}
