//go:build linux

package natlab

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/natlab/pairs"
	"github.com/libcrust/libcrust/tests/natsim"
)

const (
	// settle is how long peers are left alone to find out what their NATs are like.
	settle = 2 * time.Second
	// tries is how often a case may fail when nobody asked for figures: some are
	// allowed to fail at times.
	tries = 3
)

// pair is a case of the table at work: a laboratory, and a peer at each host of it.
type pair struct {
	t     *testing.T
	lab   *Lab
	c     pairs.Case
	relay bool
	given bool // the first message goes with the call
	a, b  *Peer
	peers []*Peer // all
}

// meet runs a case once.
func meet(t *testing.T, row pairs.Row, c pairs.Case, seed uint64, relay, given bool) pairs.Run {
	t.Helper()
	config := Config{A: named(t, c.KindA), Same: c.World == pairs.Neighbours, OneCarrier: c.World == pairs.OneCarrier, Chain: c.Chain, Hops: 8, Seed: seed}
	if !config.Same {
		config.B = named(t, c.KindB)
	}
	p := &pair{t: t, lab: newLab(t, config), c: c, relay: relay || c.Relay, given: given}
	p.a, p.b = p.side(p.lab.A, config.A), p.side(p.lab.B, config.B)
	if c.Chain > 0 {
		p.chain()
	} else {
		p.publics()
	}
	time.Sleep(settle)
	run := p.call()
	run.Row, run.Case, run.Seed, run.Relay, run.Given = row.Name, c.Name, seed, relay, given
	if run.How == "" || os.Getenv("CRUST_NATLAB_DEBUG") != "" {
		t.Logf("seed %d: a: %s\nb: %s", seed, p.a, p.b)
	}
	for _, peer := range p.peers {
		if err := peer.Stop(); err != nil {
			t.Error(err, peer)
		}
	}
	if err := p.lab.Close(); err != nil {
		t.Error(err)
	}
	return run
}

func (p *pair) start(m *Machine, words ...string) *Peer {
	p.t.Helper()
	peer, err := m.Peer("/proc/self/exe", words...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.peers = append(p.peers, peer)
	return peer
}

// side starts one of the two.
func (p *pair) side(m *Machine, k Kind) *Peer {
	words := p.listen(p.c.Listen)
	if k.Mapper != "" {
		words = append(words, "map")
	}
	return p.start(m, words...)
}

func (p *pair) tell(to *Peer, format string, arguments ...any) {
	p.t.Helper()
	if err := to.Tell(format, arguments...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) await(by *Peer, name string, fields ...string) Event {
	p.t.Helper()
	e, err := by.Await(name, 2*patience, fields...)
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// listen returns the endpoints to listen at, of one transport or both.
func (p *pair) listen(only string) (words []string) {
	at := "0.0.0.0"
	if p.c.IPv6 {
		at = "[::]"
	}
	for _, transport := range []string{"tcp", "utp"} {
		if only == "" || only == transport {
			words = append(words, transport+"://"+at+":0")
		}
	}
	return words
}

// publics connects both to three public peers.
func (p *pair) publics() {
	for _, m := range p.lab.Public[:3] {
		words := p.listen("")
		if p.relay {
			words = append(words, "relay")
		}
		s := p.start(m, words...)
		p.tell(s, "info")
		info := p.await(s, "info").Text("info")
		for _, side := range []*Peer{p.a, p.b} {
			p.tell(side, "connect %s", info)
			p.await(side, "connected", "peer", s.ID)
		}
	}
}

// chain connects both by peers of which each knows the next, and each is behind a NAT
// that forwards one port to it.
func (p *pair) chain() {
	var last *Peer
	var at netip.AddrPort
	reach := func(from *Peer) {
		p.tell(from, "reach tcp://%v %s", at, last.ID)
		p.await(from, "connected", "peer", last.ID)
	}
	for i, m := range p.lab.Chain {
		s := p.start(m, p.listen("")...)
		_, port, _ := strings.Cut(p.await(s, "listener_started").Text("endpoint"), "0.0.0.0:")
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			p.t.Fatal(err)
		}
		if err := p.lab.Forward(m, natsim.TCP, uint16(number), netip.AddrPortFrom(m.Addr(), uint16(number))); err != nil {
			p.t.Fatal(err)
		}
		if i > 0 {
			reach(s)
		}
		last, at = s, netip.AddrPortFrom(m.Public(), uint16(number))
		if i == 0 {
			reach(p.a)
		}
	}
	reach(p.b)
}

// call has a call b, and returns what came of it.
func (p *pair) call() (run pairs.Run) {
	word := "dial"
	if p.given {
		word = "call"
	}
	p.tell(p.a, "%s %s hello", word, p.b.ID)
	began := p.await(p.a, "calls").Number("at_ms")
	var e Event
	for deadline := time.Now().Add(40 * time.Second); ; {
		var err error
		if e, err = p.a.Await("", time.Until(deadline), "peer", p.b.ID); err != nil {
			run.Error, run.Took = "nothing came of the call", 40_000
			return run
		}
		if e.Name() == "connect_failed" {
			run.Error, run.Took = e.Text("error"), e.Number("at_ms")-began
			return run
		}
		if e.Name() == "connected" {
			break
		}
	}
	run.Took = e.Number("at_ms") - began
	if p.relay && (p.given || !p.c.Relay) {
		run.Connected = run.Took
	}
	if m, err := p.b.Await("message", 2*patience, "peer", p.a.ID, "text", "hello"); err != nil {
		p.t.Error("the first message did not come:", err)
	} else {
		run.First = m.Number("at_ms") - began
	}
	for p.relay && !p.c.Relay && e.Text("how") == "relayed" {
		next, err := p.a.Await("resumed", 30*time.Second, "peer", p.b.ID)
		if err != nil {
			break
		}
		e = next
		run.Took = e.Number("at_ms") - began
	}
	run.How = e.Text("how")
	run.Transport, _, _ = strings.Cut(e.Text("endpoint"), "://")
	return run
}

// TestPairs runs the table of pairs between real kernels: each case until it comes to
// what it must, three times at most; or as many runs of each row as CRUST_NATLAB_RUNS
// says, which CRUST_NATLAB_OUT then records. With every fourth two more runs tell how
// soon a message comes over a relay: one that is sent when the caller is connected, and one that is
// given with the call. In the cases of relays alone it is always given, unless runs are recorded.
func TestPairs(t *testing.T) {
	count, _ := strconv.Atoi(os.Getenv("CRUST_NATLAB_RUNS")) // 0 when it is not given
	first, _ := strconv.ParseUint(os.Getenv("CRUST_NATLAB_SEED"), 10, 64)
	out, err := pairs.Record(os.Getenv("CRUST_NATLAB_OUT"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for _, row := range pairs.Rows {
		t.Run(row.Name, func(t *testing.T) {
			if count == 0 {
				for seed, c := range row.InNamespaces() {
					t.Run(c.Name, func(t *testing.T) {
						t.Parallel()
						once(t, row, c, first+uint64(seed))
					})
				}
				return
			}
			runs := several(t, row, count, first, out)
			s := pairs.Summarise(row, "", runs)
			t.Logf("%d of %d, %v, half of them within %v, 99 of 100 within %v; over a relay %v, given with the call %v",
				s.Succeeded, s.Runs, s.Ways, s.P50, s.P99, s.First, s.Given)
			blame(t, row, runs)
		})
	}
}

// once wants a case to come to what it must.
func once(t *testing.T, row pairs.Row, c pairs.Case, seed uint64) {
	for try := range uint64(tries) {
		run := meet(t, row, c, seed+try<<32, false, c.Relay)
		t.Logf("%s by %s after %v ms, the first message after %v ms", run.How, run.Transport, run.Took, run.First)
		if row.Allows(run) {
			return
		}
	}
	t.Errorf("%d times it did not come to %s", tries, c.Ways)
}

// blame fails a test for what its row misses.
func blame(t *testing.T, row pairs.Row, runs []pairs.Run) {
	t.Helper()
	for _, miss := range row.Misses(runs) {
		t.Error(miss)
	}
}

// several runs the cases of a row.
func several(t *testing.T, row pairs.Row, count int, first uint64, out *pairs.Recorder) (runs []pairs.Run) {
	var mu sync.Mutex
	cases := row.InNamespaces()
	one := func(t *testing.T, c pairs.Case, seed uint64, relay, given bool) {
		run := meet(t, row, c, seed, relay, given)
		mu.Lock()
		defer mu.Unlock()
		runs = append(runs, run)
		if err := out.Add(run); err != nil {
			t.Error(err)
		}
	}
	t.Run("runs", func(t *testing.T) {
		for i := range count {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				c := cases[i%len(cases)]
				one(t, c, first+uint64(i), false, false)
				if i/len(cases)%4 == 0 && c.Chain == 0 {
					if !c.Relay { // else it has just been done
						one(t, c, first+uint64(i), true, false)
					}
					one(t, c, first+uint64(i), true, true)
				}
			})
		}
	})
	return runs
}
