//go:build linux

package natlab

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/libcrust/libcrust/tests/natlab/pairs"
)

// TestDescriptors: after many punches, of which some open hundreds of sockets, the
// processes have as many descriptors as before. CRUST_NATLAB_PUNCHES says how many.
func TestDescriptors(t *testing.T) {
	many, _ := strconv.Atoi(os.Getenv("CRUST_NATLAB_PUNCHES")) // 0 when it is not given
	for _, c := range []struct {
		a, b  string
		times int
		calm  bool // who guesses ports is let come to rest: one attempt at a time does
	}{{"kernel-home", "home", 20, false}, {"kernel-symmetric", "kernel-home", 3, true}} {
		t.Run(c.a+" and "+c.b, func(t *testing.T) {
			t.Parallel()
			p := &pair{t: t, c: pairs.Case{KindA: c.a, KindB: c.b}, lab: newLab(t, Config{A: named(t, c.a), B: named(t, c.b), Hops: 8, Seed: 3})}
			p.a, p.b = p.side(p.lab.A, named(t, c.a)), p.side(p.lab.B, named(t, c.b))
			p.publics()
			time.Sleep(settle)
			before := p.descriptors(3*time.Second, [2]int{})
			if many > 0 && !c.calm {
				c.times = many
			}
			began, met := time.Now(), 0
			for range c.times {
				if p.punched() {
					met++
				}
				if c.calm {
					p.descriptors(30*time.Second, before)
				}
			}
			took := time.Since(began)
			after := p.descriptors(30*time.Second, before)
			t.Logf("%d of %d punched in %v; descriptors %v, before %v", met, c.times, took, after, before)
			if met < c.times*2/3 || after[0] > before[0] || after[1] > before[1] {
				t.Error("too few were punched, or something is left")
			}
			for _, peer := range p.peers {
				if err := peer.Stop(); err != nil {
					t.Error(err, peer)
				}
			}
		})
	}
}

// punched has a call b, and leave it again, and reports whether they were connected by a
// punch.
func (p *pair) punched() bool {
	p.tell(p.a, "dial %s hello", p.b.ID)
	e, err := p.a.Await("connected", 40*time.Second, "peer", p.b.ID)
	if err != nil {
		return false
	}
	p.await(p.b, "message", "peer", p.a.ID)
	p.tell(p.a, "leave %s", p.b.ID)
	for _, side := range [][2]*Peer{{p.a, p.b}, {p.b, p.a}} {
		p.await(side[0], "lost", "peer", side[1].ID)
	}
	return e.Text("how") == "punched"
}

// descriptors returns how many both processes have, as soon as they are not more than
// wanted, or after some time.
func (p *pair) descriptors(patience time.Duration, wanted [2]int) (count [2]int) {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		for i, peer := range []*Peer{p.a, p.b} {
			entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", peer.command.Process.Pid))
			if err != nil {
				p.t.Fatal(err)
			}
			count[i] = len(entries)
		}
		if count[0] <= wanted[0] && count[1] <= wanted[1] || time.Now().After(deadline) {
			return count
		}
	}
}
