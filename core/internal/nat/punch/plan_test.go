package punch

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

// every returns facts of all kinds of NAT.
func every() []wire.NAT {
	var out []wire.NAT
	for mapping := range wire.Depends(4) {
		for filtering := range wire.Depends(4) {
			for ports := range wire.PortRule(5) {
				n := wire.NAT{Mapping: mapping, Filtering: filtering, Ports: ports, External: netip.MustParseAddrPort("203.0.113.1:30000")}
				switch ports {
				case wire.PortsSequential:
					n.Step, n.Rate = 2, 50
				case wire.PortsBlock:
					n.Low, n.High = 30000, 30511
				}
				out = append(out, n)
			}
		}
	}
	return out
}

func TestPlanFits(t *testing.T) {
	for _, a := range every() {
		for _, b := range every() {
			for _, larger := range []bool{true, false} {
				p, q := Plan(a, b, larger), Plan(b, a, !larger)
				if p.Strategy != q.Strategy || p.Sockets < 1 || q.Sockets < 1 {
					t.Fatalf("%+v and %+v: %+v does not fit %+v", a, b, p, q)
				}
				fits := false
				switch p.Strategy {
				case None, Direct:
					fits = p == q && p.Ports == Known && p.Sockets == 1
				case Predict:
					fits = p.Ports == Predicted && q.Ports == Known || p.Ports == Known && q.Ports == Predicted
				case Cross:
					fits = p.Ports == Line && q.Ports == Line && p.Slope+q.Slope == 3 && (p.Slope == 1) == larger
				case Spray:
					fits = p.Ports == Block && q.Ports == Known && q.Sockets > 1 && p.Sockets == 1 || p.Ports == Known && q.Ports == Block
				case Birthday:
					fits = p.Ports == Any && q.Ports == Known && q.Sockets == BirthdaySockets && p.Sockets == 1 || p.Ports == Known && q.Ports == Any
				}
				if !fits {
					t.Fatalf("%+v and %+v: %+v does not fit %+v", a, b, p, q)
				}
			}
		}
	}
}

func TestPlan(t *testing.T) {
	wide := blk
	wide.Low, wide.High = 1024, 65535
	adf := home
	adf.Filtering = wire.AddressDependent
	kept := rnd
	kept.Ports = wire.PortsPreserving
	unknown := seq
	unknown.Ports = wire.PortsUnknown
	for _, c := range []struct {
		name         string
		mine, theirs wire.NAT
		want         Part
	}{
		{"nothing known", wire.NAT{}, wire.NAT{}, Part{Direct, Known, 1, 0}},
		{"home, home", home, home, Part{Direct, Known, 1, 0}},
		{"home, sequential", home, seq, Part{Predict, Predicted, 1, 0}},
		{"sequential, home", seq, home, Part{Predict, Known, 1, 0}},
		{"home, block", home, blk, Part{Spray, Block, 1, 0}},
		{"block, home", blk, home, Part{Spray, Known, 64, 0}},
		{"small block, home", small, home, Part{Spray, Known, 64, 0}},
		{"home, too large a block", home, wide, Part{Birthday, Any, 1, 0}},
		{"home, random", home, rnd, Part{Birthday, Any, 1, 0}},
		{"random, home", rnd, home, Part{Birthday, Known, 256, 0}},
		{"home, unknown ports", home, unknown, Part{Birthday, Any, 1, 0}},
		{"open, random", open, rnd, Part{Direct, Known, 1, 0}},
		{"random, address-dependent filter", rnd, adf, Part{Direct, Known, 1, 0}},
		{"home, ports kept", home, kept, Part{Direct, Known, 1, 0}},
		{"sequential, sequential", seq, seq, Part{Cross, Line, 1, 1}},
		{"sequential, random", seq, rnd, Part{None, Known, 1, 0}},
		{"block, block", blk, blk, Part{None, Known, 1, 0}},
		{"random, random", rnd, rnd, Part{None, Known, 1, 0}},
	} {
		if got := Plan(c.mine, c.theirs, true); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	if None.String() != "none" || Birthday.String() != "birthday" || Strategy(99).String() != "unknown" {
		t.Error("names of strategies")
	}
}

func TestSprayed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	n := rnd
	n.External = netip.MustParseAddrPort("203.0.113.1:30000")
	n.Low, n.High = 30000, 30511
	all := sprayed(n, Any, 70000, r)
	if len(all) != 65536-1024 {
		t.Errorf("%d ports, want each from 1024 to 65535 once", len(all))
	}
	for i, p := range all[:129] {
		if p < 30000-64 || p > 30000+64 {
			t.Fatalf("port %d is number %d, before those near the observed one", p, i)
		}
	}
	for i, p := range all[129 : 512+64] {
		if p < n.Low || p > n.High {
			t.Fatalf("port %d is number %d, before those of the block", p, 129+i)
		}
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 65536-1024 || all[0] != 1024 {
		t.Error("a port comes twice")
	}
	some := sprayed(n, Block, 100, r)
	if len(some) != 100 || slices.Min(some) < n.Low || slices.Max(some) > n.High || slices.IsSorted(some) {
		t.Errorf("of a block: %v", some)
	}
	n.External = netip.MustParseAddrPort("203.0.113.1:1")
	if got := sprayed(n, Any, 2000, r); len(got) != 2000 || slices.Min(got) < 1024 {
		t.Errorf("%d ports from %d on when the observed one is low", len(got), slices.Min(got))
	}
}

func TestAhead(t *testing.T) {
	n := stepping(-3)
	n.External = netip.MustParseAddrPort("203.0.113.1:1030")
	for k, want := range []uint16{1030, 1027, 1024, 0, 0} {
		if got := ahead(n, k); got != want {
			t.Errorf("%d steps ahead: %d, want %d", k, got, want)
		}
	}
	n.Step, n.External = 32767, netip.MustParseAddrPort("203.0.113.1:65000")
	if got := ahead(n, 1); got != 0 {
		t.Errorf("beyond the last port: %d", got)
	}
	n.Rate = 200 // 20 a second
	if least, most := foreign(n, 5*time.Second, 10*time.Second); least != 70 || most != 243 {
		t.Errorf("from %d to %d mappings of others, want 100 less 30 and 200 more 43", least, most)
	}
	if least, most := foreign(n, 0, 0); least != 0 || most != 0 {
		t.Errorf("from %d to %d mappings in no time", least, most)
	}
}
