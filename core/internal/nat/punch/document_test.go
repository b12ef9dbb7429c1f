package punch

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libcrust/libcrust/core/internal/wire"
)

var update = flag.Bool("update", false, "write the table of budgets into docs/NAT.md")

const (
	document     = "../../../../docs/NAT.md"
	budgetsBegin = "<!-- budgets: made by `go test ./core/internal/nat/punch -run TestDocument -update`, not by hand -->\n"
	budgetsEnd   = "<!-- end of budgets -->\n"
	// probeBytes is the largest probe with the headers of UDP and IPv4.
	probeBytes = 160 + 28
)

// TestDocument: docs/NAT.md tells the budgets that machines have.
func TestDocument(t *testing.T) {
	want := budgetsBegin + "\n" + budgets(t) + "\n" + budgetsEnd
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), budgetsBegin)
	has, after, closed := strings.Cut(rest, budgetsEnd)
	switch {
	case !ok || !closed:
		t.Fatalf("%s has no place for the budgets", document)
	case budgetsBegin+has+budgetsEnd == want:
	case *update:
		if err := os.WriteFile(document, []byte(before+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the budgets in %s are not those of the code; with -update they are. Want\n%s", document, want)
	}
}

// budgets is the table: for each technique, and each side of it, what goes to an
// address that stays silent.
func budgets(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| our NAT | the other side's | technique | UDP sockets | UDP packets | of KiB | TCP tries | gives up after |\n|---|---|---|---|---|---|---|---|\n")
	name := map[*wire.NAT]string{&home: "home", &seq: "sequential", &blk: "block of 2,048", &rnd: "random"}
	for _, pair := range [][2]*wire.NAT{{&home, &home}, {&home, &seq}, {&seq, &home}, {&seq, &seq}, {&home, &blk}, {&blk, &home}, {&home, &rnd}, {&rnd, &home}} {
		c := facing(*pair[0], *pair[1])
		part := Plan(c.Mine.UDP, c.Theirs.UDP, c.Larger)
		_, packets := c.Most()
		_, dials := c.MostDials()
		r := alone(t, c, 0, time.Minute)
		they := netip.MustParseAddrPort(them).Addr()
		if r.packets[they] > packets || r.dials[they] > dials {
			t.Errorf("%v: %d packets and %d dials", pair, r.packets[they], r.dials[they])
		}
		fmt.Fprintf(&b, "| %s | %s | %v | %d | %d | %d | %d | %.0f s |\n", name[pair[0]], name[pair[1]], part.Strategy, part.Sockets,
			packets, (packets*probeBytes+1023)/1024, dials, r.last.Seconds())
	}
	full := Budget{}.filled()
	fmt.Fprintf(&b, "\nOver all addresses together one attempt sends at most %d UDP packets, %d a second, opens %d UDP sockets, and\nmakes %d TCP tries, %d at a time. Guessed ports get %d packets a second, and as many tries.\n",
		full.Packets, full.Rate, full.Sockets, full.Dials, full.AtOnce, full.SprayPPS)
	return b.String()
}
