package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// A time of Go's clock has two readings: of the date, which the machine's owner may set
// by a day, and of a clock that nobody sets. Differences and comparisons use the latter as
// long as both times have it. So whatever waits, expires or is given up inside one process
// (links, sessions, bans with a time, groups, leases of ports, timers) does not notice that
// the date jumps, unless a time is made of a date, or turned into one. dated lists the files
// that do that, each with the reason.
var dated = map[string]string{
	"core/info.go":                       "connection infos are given to other machines: they hold for a day by the date",
	"core/introduce.go":                  "letters come from other machines, whose clocks may be 26 hours off",
	"core/known.go":                      "for the program to read: the end of a record is made of a date",
	"core/metrics/metrics.go":            "an order for Prometheus",
	"core/internal/beacon/beacon.go":     "numbers of what is said, which only grow",
	"core/internal/beacon/hear.go":       "beacons come from other machines, and an old one that is played again must not count",
	"core/internal/bootstrap/format.go":  "the cache outlives the process: bootstrap.TestAWrongClock",
	"core/internal/bootstrap/rules.go":   "the same",
	"core/internal/gossip/gossip.go":     "records come from other machines: gossip.TestClockJumps, gossip.TestWrongClocks",
	"core/internal/netio/watch_other.go": "it looks for jumps",
	"core/internal/secure/call.go":       "one-time keys come from other machines; one that seems too old is not used",
	"core/internal/session/lend.go":      "a deadline that is over, whatever the time",
}

// strips are methods of time.Time whose result is a date, or has no other reading, and
// makes functions of package time that make such a time.
var (
	strips = []string{"Unix", "UnixMilli", "UnixMicro", "UnixNano", "UTC", "Local", "AppendBinary", "MarshalBinary", "UnmarshalBinary", "MarshalText", "UnmarshalText", "MarshalJSON", "GobEncode"}
	makes  = []string{"Unix", "UnixMilli", "UnixMicro", "Date", "Parse", "ParseInLocation"}
)

// TestDatesStayOutside: only the files of dated make times of dates or dates of times.
func TestDatesStayOutside(t *testing.T) {
	onlyIn(t, dated, isDated, "a jump of the machine's date would matter there", "nothing has to do with dates any more")
}

// onlyIn wants calls of a kind in the files that are listed, in each of them, and in no others.
func onlyIn(t *testing.T, listed map[string]string, is func(*ast.CallExpr) bool, more, less string) {
	t.Helper()
	found, err := callsIn(os.DirFS(root), is)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, f := range found {
		file, _, _ := strings.Cut(f, ":")
		files = append(files, file)
		if listed[file] == "" {
			t.Errorf("%s: %s", f, more)
		}
	}
	for file := range listed {
		if !slices.Contains(files, file) {
			t.Errorf("%s: %s", file, less)
		}
	}
}

// TestDatesAreFound: what makes a date of a time is found, and what does not, is not.
func TestDatesAreFound(t *testing.T) {
	const head = "package a\nimport \"time\"\nvar t, d = time.Now(), time.Second\n"
	for code, want := range map[string]int{
		"var x = t.UnixMilli()": 1, "var x = time.Unix(1, 0)": 1, "var x = t.Round(0)": 1, "var x = t.UTC().Sub(t)": 1, "var x = t.Truncate(0)": 1,
		"var x = t.Sub(time.Now())": 0, "var x = d.Round(d)": 0, "var x = t.Add(d).Before(t)": 0, "var x = d.Truncate(time.Minute)": 0,
	} {
		found, err := datesIn(fstest.MapFS{"core/a.go": {Data: []byte(head + code)}, "core/a_test.go": {Data: []byte(head + "var x = t.UTC()")}})
		if err != nil || len(found) != want {
			t.Errorf("%s: %q, %v", code, found, err)
		}
	}
}

// datesIn returns the places below core, tests excepted, in which times are made of dates
// or turned into them.
func datesIn(tree fs.FS) (found []string, err error) { return callsIn(tree, isDated) }

// callsIn returns the places below core, tests excepted, in which there are calls of a kind.
func callsIn(tree fs.FS, is func(*ast.CallExpr) bool) (found []string, err error) {
	set := token.NewFileSet()
	err = fs.WalkDir(tree, "core", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "simnet"):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && is(call) {
				at := set.Position(call.Pos())
				found = append(found, fmt.Sprintf("%s:%d", at.Filename, at.Line))
			}
			return true
		})
		return nil
	})
	return found, err
}

// isDated reports whether a call makes a time of a date, or a date of a time.
func isDated(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	of, _ := f.X.(*ast.Ident)
	if of != nil && of.Name == "time" {
		return slices.Contains(makes, f.Sel.Name)
	}
	if f.Sel.Name == "Round" || f.Sel.Name == "Truncate" {
		by, ok := call.Args[0].(*ast.BasicLit)
		return ok && by.Value == "0"
	}
	return slices.Contains(strips, f.Sel.Name)
}
