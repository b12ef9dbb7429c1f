package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// foreignVariable names drivers of other machines than this one, run by an emulator
// for instance, one a line: a name, then the command with its arguments, between
// spaces. tests/platforms sets it.
const foreignVariable = "CRUST_CONFORMANCE_FOREIGN"

// foreigners returns the drivers that the variable names, by name, and the names in order.
func foreigners(t *testing.T) (map[string]program, []string) {
	t.Helper()
	programs, names := make(map[string]program), []string(nil)
	for line := range strings.Lines(os.Getenv(foreignVariable)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case len(words) == 1:
			t.Fatalf("%s has the line %q, want a name and a command", foreignVariable, line)
		case programs[words[0]].arguments != nil:
			t.Fatalf("%s names %s twice", foreignVariable, words[0])
		}
		programs[words[0]] = program{arguments: words[1:]}
		names = append(names, words[0])
	}
	return programs, names
}

// TestForeign lets each foreign driver talk with the C driver of this machine, over
// TCP and over uTP, each once as the one that connects.
func TestForeign(t *testing.T) {
	programs, names := foreigners(t)
	if len(names) == 0 {
		t.Skipf("%s names no driver; tests/platforms does", foreignVariable)
	}
	const here = "here"
	programs[here] = newWorkshop(t).build(t, "c")
	for _, name := range names {
		for _, way := range ways {
			if way.name == "mixed" {
				continue
			}
			for _, couple := range [][2]string{{name, here}, {here, name}} {
				t.Run(fmt.Sprintf("%s/%s/%s-%s", name, way.name, couple[0], couple[1]), func(t *testing.T) {
					network := fmt.Sprintf("conformance foreign %s %d", name, time.Now().UnixNano())
					a := start(t, couple[0], programs[couple[0]], network, way.listenA...)
					b := start(t, couple[1], programs[couple[1]], network, way.listenB...)
					pair(t, a, b, way.by)
				})
			}
		}
	}
}
