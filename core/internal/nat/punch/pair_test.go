package punch

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/endpoint"
	"github.com/libcrust/libcrust/core/internal/wire"
)

// kind makes a NAT of one kind.
type kind struct {
	facts  wire.NAT
	manner manner
	rate   float64
}

var (
	home = wire.NAT{Mapping: wire.EndpointIndependent, Filtering: wire.AddressPortDependent, Ports: wire.PortsPreserving}
	seq  = wire.NAT{Mapping: wire.AddressPortDependent, Filtering: wire.AddressPortDependent, Ports: wire.PortsSequential, Step: 1}
	blk  = wire.NAT{Mapping: wire.AddressPortDependent, Filtering: wire.AddressPortDependent, Ports: wire.PortsBlock, Low: 30720, High: 32767}
	rnd  = wire.NAT{Mapping: wire.AddressPortDependent, Filtering: wire.AddressPortDependent, Ports: wire.PortsRandom}
	open = wire.NAT{Mapping: wire.EndpointIndependent, Filtering: wire.EndpointIndependent, Ports: wire.PortsPreserving}
)

// small is a block of 256 ports.
var small = wire.NAT{Mapping: wire.AddressDependent, Filtering: wire.AddressPortDependent, Ports: wire.PortsBlock, Low: 2048, High: 2303}

// stepping returns a sequential NAT of another step.
func stepping(step int16) wire.NAT {
	n := seq
	n.Step = step
	return n
}

var v6 = [2]string{"2001:db8:1::1", "2001:db8:2::2"}

// trial is a pair of NATs and what must come of it.
type trial struct {
	name  string
	a, b  kind
	loss  float64
	tcp   bool
	age   time.Duration // of the facts when they are told
	skew  time.Duration // the word to go comes later than the letters let one expect, up to this
	rtt   time.Duration // what the sides believe it is, when not 0
	vague bool          // the sides know no more than their external endpoints
	lies  bool          // the sides say that they have home NATs
	ips   [2]string     // when not those of IPv4
	lan   bool          // both are in one network too
	delay time.Duration // of a packet one way, when not 20 ms
	runs  int           // when not 1,000
	far   bool          // openers do not reach the NATs on this side
	close bool          // openers reach the NATs on the other side
	blunt bool          // SYNs cannot be sent with a low time to live

	success  float64 // share of runs
	p50, p99 time.Duration
}

// result is how one run went.
type result struct {
	ok   bool
	took time.Duration // since the first letter
	sent int           // packets or dials of both
	w    *world
}

// meet runs one trial. Packets take 20 to 22 ms, letters 20 to 40 ms, since they
// are carried by others.
func (tr trial) meet(seed uint64) result {
	r := rand.New(rand.NewPCG(seed, 7))
	w := &world{r: r, delay: 20 * time.Millisecond, loss: tr.loss, ttl: 9, own: 1, now: time.Minute}
	if tr.delay > 0 {
		w.delay = tr.delay
	}
	if tr.far {
		w.own = OpenerTTL + 1
	}
	if tr.close {
		w.ttl = OpenerTTL
	}
	ips := tr.ips
	if ips[0] == "" {
		ips = [2]string{"203.0.113.1", "198.51.100.2"}
	}
	boxes := [2]*box{newBox(r, ips[0], tr.a.facts, tr.a.manner, tr.a.rate), newBox(r, ips[1], tr.b.facts, tr.b.manner, tr.b.rate)}
	var sides [2]Side
	for i := range w.peers {
		p := &peer{w: w, blunt: tr.blunt, sent: map[netip.Addr]int{}, links: map[tuple]*conn{}, dialling: map[int]tuple{}}
		w.peers[i] = p
		facts := boxes[i].observe(w.now)
		facts.Age = uint32(tr.age.Milliseconds())
		if tr.lan {
			p.lan = netip.AddrFrom4([4]byte{192, 168, 1, byte(1 + i)})
			here := netip.AddrPortFrom(p.lan, listen)
			sides[i].Candidates = []endpoint.Endpoint{endpoint.New(endpoint.UTP, here), endpoint.New(endpoint.TCP, here)}
		}
		if tr.vague {
			facts = wire.NAT{External: facts.External, Age: facts.Age}
		}
		if tr.lies {
			said := home
			said.External = facts.External
			facts = said
		}
		facts.Openers = !tr.blunt
		if tr.tcp {
			p.tcp, sides[i].TCP = boxes[i], facts
		} else {
			p.udp, sides[i].UDP = boxes[i], facts
		}
	}
	w.peers[0].other, w.peers[1].other = w.peers[1], w.peers[0]
	larger := r.IntN(2)
	var letters [3]time.Duration
	for i := range letters {
		letters[i] = w.delay + time.Duration(r.IntN(20000))*time.Microsecond
	}
	rtt := letters[0] + letters[1]
	letters[2] += time.Duration(r.Int64N(int64(tr.skew) + 1))
	if tr.rtt > 0 {
		rtt = tr.rtt
	}
	begin := func(i int) {
		round := rtt // only who has written first has measured it
		if i == 1 && tr.rtt == 0 {
			round = 0
		}
		lead := time.Duration(0)
		if tr.blunt {
			lead = round / 2
		}
		waits := i == 1
		w.peers[i].m = New(Config{
			Mine: sides[i], Theirs: sides[1-i], Larger: i == larger, RTT: round, Lead: lead, Waits: waits,
			Seed: r.Uint64(), UDP: !tr.tcp, TCP: tr.tcp, Account: rich(),
		}, w.time())
		if i == 0 {
			w.peers[i].m.Shoot(w.time())
		}
		w.peers[i].pump()
	}
	w.now += tr.age
	offer := w.now
	w.after(letters[0], func() { begin(1) }) // the offer arrives
	w.after(letters[0]+letters[1], func() {  // the answer
		begin(0)
	})
	w.after(letters[0]+letters[1]+letters[2], func() { // go
		w.peers[1].m.Shoot(w.time())
		w.peers[1].pump()
	})
	res := result{w: w}
	done := func(p *peer) bool { return p.chosen != nil || p.linked }
	for w.events.Len() > 0 && w.now < offer+30*time.Second {
		w.run(w.events[0].at)
		if done(w.peers[0]) && done(w.peers[1]) {
			res.ok, res.took = true, w.now-offer
			break
		}
	}
	for _, p := range w.peers {
		res.sent += p.sent[p.other.box().ip]
	}
	return res
}

func (p *peer) box() *box {
	if p.tcp != nil {
		return p.tcp
	}
	return p.udp
}

// agree checks that what both nominated is one pair of endpoints.
func agree(w *world) error {
	for i, p := range w.peers {
		o := w.peers[1-i]
		if p.chosen.Remote.Addr() == o.lan {
			if p.chosen.Remote.Port() != internal(o.chosen.Socket) {
				return fmt.Errorf("side %d goes to %v, which is not what the other chose", i, p.chosen.Remote)
			}
			continue
		}
		ext := p.udp.leave(w.now, internal(p.chosen.Socket), p.chosen.Remote)
		port, _ := o.udp.enter(w.now, p.chosen.Remote.Port(), ext)
		if port != internal(o.chosen.Socket) || o.chosen.Remote != ext {
			return fmt.Errorf("side %d goes from %v to %v; the other chose socket %d and %v", i, ext, p.chosen.Remote, o.chosen.Socket, o.chosen.Remote)
		}
	}
	return nil
}

// measure runs a trial with many seeds and checks what came of it.
func (tr trial) measure(t *testing.T) {
	seeds := tr.seeds()
	var took []time.Duration
	sent := 0
	for seed := range seeds {
		res := tr.meet(uint64(seed))
		sent += res.sent
		if !res.ok {
			continue
		}
		took = append(took, res.took)
		if !tr.tcp {
			if err := agree(res.w); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
	slices.Sort(took)
	share := float64(len(took)) / float64(seeds)
	if share < tr.success {
		t.Errorf("%.1f %% met, want %.1f %%", 100*share, 100*tr.success)
	}
	if len(took) == 0 {
		return
	}
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	if p50 > tr.p50 || p99 > tr.p99 {
		t.Errorf("it took %v (half of the runs) and %v (99 of 100), want %v and %v", p50, p99, tr.p50, tr.p99)
	}
	t.Logf("%.1f %%, %v / %v, %d sent by both on average", 100*share, p50, p99, sent/seeds)
}

// seeds returns how often a pair meets.
func (tr trial) seeds() int {
	switch {
	case !thorough:
		return 60
	case tr.runs > 0:
		return tr.runs
	}
	return 1000
}

func TestUDP(t *testing.T) {
	ms := time.Millisecond
	for _, tr := range []trial{
		{name: "open x open", a: kind{facts: open}, b: kind{facts: open}, loss: 0.01, success: 1, p50: 200 * ms, p99: 500 * ms},
		{name: "open x home", a: kind{facts: open}, b: kind{facts: home}, loss: 0.01, success: 1, p50: 200 * ms, p99: 500 * ms},
		{name: "open x sequential", a: kind{facts: open}, b: kind{seq, drops, 20}, loss: 0.01, age: 300 * ms, success: 1, p50: 200 * ms, p99: 500 * ms},
		{name: "open x random", a: kind{facts: open}, b: kind{facts: rnd}, loss: 0.01, success: 1, p50: 200 * ms, p99: 500 * ms},
		{name: "home x home, drop", a: kind{facts: home}, b: kind{facts: home}, loss: 0.01, success: 1, p50: 300 * ms, p99: 1500 * ms},
		{name: "home x home, refuse", a: kind{home, refuses, 0}, b: kind{home, refuses, 0}, loss: 0.01, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, pollute", a: kind{home, pollutes, 0}, b: kind{home, pollutes, 0}, loss: 0.01, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, punish", a: kind{home, punishes, 0}, b: kind{home, punishes, 0}, loss: 0.01, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, late, punish", a: kind{home, punishes, 0}, b: kind{home, punishes, 0}, skew: 300 * ms, loss: 0.01, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, lossy", a: kind{facts: home}, b: kind{facts: home}, loss: 0.25, success: 1, p50: 300 * ms, p99: 1500 * ms},
		{name: "two IPv6 firewalls", a: kind{facts: home}, b: kind{facts: home}, ips: v6, loss: 0.01, success: 1, p50: 300 * ms, p99: 1500 * ms},
		{name: "home x home, far NATs", far: true, a: kind{facts: home}, b: kind{facts: home}, loss: 0.01, success: 1, p50: 300 * ms, p99: 1500 * ms},
		{name: "home x home, close NATs", close: true, a: kind{facts: home}, b: kind{facts: home}, loss: 0.01, success: 1, p50: 300 * ms, p99: 1500 * ms},
		{name: "home x busy sequential, far NATs", far: true, a: kind{facts: home}, b: kind{seq, drops, 20}, age: 300 * ms, loss: 0.01, success: 0.98, p50: 500 * ms, p99: 3000 * ms},
		{name: "home x random, far NATs", runs: 200, far: true, a: kind{facts: home}, b: kind{facts: rnd}, loss: 0.01, success: 0.98, p50: 8000 * ms, p99: 12000 * ms},
		{name: "busy sequential x sequential, far NATs", far: true, a: kind{seq, drops, 20}, b: kind{seq, drops, 20}, age: 300 * ms, loss: 0.01, success: 0.95, p50: 1500 * ms, p99: 6000 * ms},
		{name: "very busy sequential x sequential", a: kind{seq, drops, 80}, b: kind{seq, drops, 80}, loss: 0.01, age: 300 * ms, success: 0.95, p50: 1000 * ms, p99: 6000 * ms},
		{name: "sequential x sequential, pollute", a: kind{seq, pollutes, 20}, b: kind{seq, pollutes, 20}, loss: 0.01, age: 300 * ms, success: 0.95, p50: 1000 * ms, p99: 6000 * ms},
		{name: "home x sequential, vague", vague: true, a: kind{facts: home}, b: kind{seq, drops, 5}, age: 300 * ms, loss: 0.01, success: 0.98, p50: 1000 * ms, p99: 3000 * ms},
		{name: "home x home, long way", delay: 300 * ms, a: kind{facts: home}, b: kind{facts: home}, loss: 0.01, success: 1, p50: 2000 * ms, p99: 3000 * ms},
		{name: "home x busy sequential, long way", delay: 300 * ms, a: kind{facts: home}, b: kind{seq, drops, 20}, age: 300 * ms, loss: 0.01, success: 0.98, p50: 2500 * ms, p99: 4000 * ms},
		{name: "busy sequential x sequential, long way", delay: 300 * ms, a: kind{seq, drops, 20}, b: kind{seq, drops, 20}, age: 300 * ms, loss: 0.01, success: 0.95, p50: 4000 * ms, p99: 8000 * ms},
		{name: "random x random in one network", a: kind{facts: rnd}, b: kind{facts: rnd}, lan: true, skew: 100 * ms, success: 1, p50: 300 * ms, p99: 3000 * ms},
		{name: "home x decreasing sequence", a: kind{facts: home}, b: kind{stepping(-2), drops, 5}, loss: 0.01, age: 300 * ms, success: 0.98, p50: 500 * ms, p99: 3000 * ms},
		{name: "home x small block", a: kind{facts: home}, b: kind{facts: small}, loss: 0.01, success: 0.98, p50: 1000 * ms, p99: 5000 * ms},
		{name: "sequence of 4 x decreasing sequence", a: kind{stepping(4), drops, 10}, b: kind{stepping(-1), drops, 10}, loss: 0.01, age: 300 * ms, success: 0.95, p50: 1000 * ms, p99: 6000 * ms},
		{name: "home x sequential", a: kind{facts: home}, b: kind{seq, drops, 5}, loss: 0.01, age: 300 * ms, success: 0.98, p50: 500 * ms, p99: 3000 * ms},
		{name: "home x busy sequential", a: kind{facts: home}, b: kind{seq, drops, 20}, loss: 0.01, age: 500 * ms, success: 0.98, p50: 500 * ms, p99: 3000 * ms},
		{name: "home x sequential, punish", a: kind{home, punishes, 0}, b: kind{seq, punishes, 5}, loss: 0.01, age: 300 * ms, success: 0.98, p50: 500 * ms, p99: 3000 * ms},
		{name: "block x home", a: kind{facts: blk}, b: kind{facts: home}, loss: 0.01, success: 0.98, p50: 1000 * ms, p99: 5000 * ms},
		{name: "home x random", a: kind{facts: home}, b: kind{facts: rnd}, loss: 0.01, success: 0.98, p50: 2000 * ms, p99: 12000 * ms},
		{name: "home x random, pollute", runs: 200, a: kind{home, pollutes, 0}, b: kind{rnd, pollutes, 0}, loss: 0.01, success: 0.98, p50: 2000 * ms, p99: 12000 * ms},
		{name: "sequential x sequential", a: kind{seq, drops, 5}, b: kind{seq, drops, 5}, loss: 0.01, age: 300 * ms, success: 0.95, p50: 1000 * ms, p99: 6000 * ms},
		{name: "busy sequential x sequential", a: kind{seq, drops, 20}, b: kind{seq, drops, 20}, loss: 0.01, age: 300 * ms, success: 0.95, p50: 1000 * ms, p99: 6000 * ms},
	} {
		t.Run(tr.name, func(t *testing.T) { tr.measure(t) })
	}
}

func TestTCP(t *testing.T) {
	ms := time.Millisecond
	for _, tr := range []trial{
		{name: "open x home", a: kind{facts: open}, b: kind{facts: home}, loss: 0.01, tcp: true, success: 1, p50: 200 * ms, p99: 1500 * ms},
		{name: "home x home, drop", a: kind{facts: home}, b: kind{facts: home}, loss: 0.01, tcp: true, success: 0.99, p50: 300 * ms, p99: 3000 * ms},
		{name: "home x home, refuse", a: kind{home, refuses, 0}, b: kind{home, refuses, 0}, loss: 0.01, tcp: true, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, pollute", a: kind{home, pollutes, 0}, b: kind{home, pollutes, 0}, loss: 0.01, tcp: true, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "two IPv6 firewalls", a: kind{facts: home}, b: kind{facts: home}, ips: v6, loss: 0.01, tcp: true, skew: 100 * ms, success: 1, p50: 300 * ms, p99: 1500 * ms},
		{name: "random x random in one network", a: kind{facts: rnd}, b: kind{facts: rnd}, lan: true, tcp: true, skew: 100 * ms, success: 1, p50: 300 * ms, p99: 3000 * ms},
		{name: "home x sequential, vague", vague: true, a: kind{facts: home}, b: kind{seq, drops, 5}, age: 300 * ms, loss: 0.01, tcp: true, success: 0.98, p50: 2000 * ms, p99: 4000 * ms},
		{name: "home x home, long way, refuse", delay: 300 * ms, a: kind{home, refuses, 0}, b: kind{home, refuses, 0}, loss: 0.01, tcp: true, skew: 100 * ms, success: 0.99, p50: 3000 * ms, p99: 6000 * ms},
		{name: "home x home, far NATs, refuse", far: true, a: kind{home, refuses, 0}, b: kind{home, refuses, 0}, loss: 0.01, tcp: true, skew: 100 * ms, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, close NATs, refuse", close: true, a: kind{home, refuses, 0}, b: kind{home, refuses, 0}, loss: 0.01, tcp: true, skew: 100 * ms, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, blunt, drop", a: kind{facts: home}, b: kind{facts: home}, blunt: true, loss: 0.01, tcp: true, skew: 300 * ms, success: 0.99, p50: 500 * ms, p99: 3000 * ms},
		{name: "home x home, blunt, refuse", a: kind{home, refuses, 0}, b: kind{home, refuses, 0}, blunt: true, loss: 0.01, tcp: true, skew: 300 * ms, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, late, punish", a: kind{home, punishes, 0}, b: kind{home, punishes, 0}, loss: 0.01, tcp: true, skew: 300 * ms, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, late, drop", a: kind{facts: home}, b: kind{facts: home}, loss: 0.01, tcp: true, skew: 300 * ms, success: 0.99, p50: 500 * ms, p99: 3000 * ms},
		{name: "home x home, late, refuse", a: kind{home, refuses, 0}, b: kind{home, refuses, 0}, loss: 0.01, tcp: true, skew: 300 * ms, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x home, late, pollute", a: kind{home, pollutes, 0}, b: kind{home, pollutes, 0}, loss: 0.01, tcp: true, skew: 300 * ms, success: 0.99, p50: 600 * ms, p99: 3000 * ms},
		{name: "home x sequential", a: kind{facts: home}, b: kind{seq, drops, 5}, loss: 0.01, tcp: true, age: 300 * ms, success: 0.98, p50: 500 * ms, p99: 3000 * ms},
		{name: "home x busy sequential", a: kind{facts: home}, b: kind{seq, drops, 20}, loss: 0.01, tcp: true, age: 300 * ms, success: 0.98, p50: 500 * ms, p99: 3000 * ms},
		{name: "sequential x sequential", a: kind{seq, drops, 5}, b: kind{seq, drops, 5}, loss: 0.01, tcp: true, age: 300 * ms, success: 0.95, p50: 1000 * ms, p99: 6000 * ms},
		{name: "busy sequential x sequential", a: kind{seq, drops, 20}, b: kind{seq, drops, 20}, loss: 0.01, tcp: true, age: 300 * ms, success: 0.95, p50: 1000 * ms, p99: 6000 * ms},
		{name: "home x block", a: kind{facts: home}, b: kind{facts: blk}, loss: 0.01, tcp: true, success: 0.98, p50: 1000 * ms, p99: 8000 * ms},
		{name: "home x random", a: kind{facts: home}, b: kind{facts: rnd}, loss: 0.01, tcp: true, success: 0.9, p50: 3000 * ms, p99: 15000 * ms},
	} {
		t.Run(tr.name, func(t *testing.T) { tr.measure(t) })
	}
}

// TestHow shows that pairs meet by what the machine does about them: without it,
// these NATs do not let them.
func TestHow(t *testing.T) {
	none := func(tr trial, most float64) func(*testing.T) {
		return func(t *testing.T) {
			met := 0
			for seed := range 100 {
				if tr.meet(uint64(seed)).ok {
					met++
				}
			}
			if float64(met) > 100*most {
				t.Errorf("%d of 100 met", met)
			}
		}
	}
	// A round trip that seems too short for openers: the first shot comes too early.
	early := trial{a: kind{home, pollutes, 0}, b: kind{home, pollutes, 0}, skew: 100 * time.Millisecond, rtt: time.Millisecond}
	t.Run("openers against pollution", none(early, 0.3))
	early.a.manner, early.b.manner = punishes, punishes
	t.Run("openers against punishment", none(early, 0.3))
	t.Run("prediction", none(trial{a: kind{facts: home}, b: kind{seq, drops, 5}, lies: true}, 0))
	t.Run("cross", none(trial{a: kind{seq, drops, 5}, b: kind{seq, drops, 5}, lies: true}, 0))
	t.Run("birthday", none(trial{a: kind{facts: home}, b: kind{facts: rnd}, lies: true}, 0))
	t.Run("prediction by TCP", none(trial{a: kind{facts: home}, b: kind{seq, drops, 5}, lies: true, tcp: true}, 0))
	t.Run("birthday by TCP", none(trial{a: kind{facts: home}, b: kind{facts: rnd}, lies: true, tcp: true}, 0))
}
