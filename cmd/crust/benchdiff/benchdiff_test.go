package benchdiff

import (
	"bytes"
	"strings"
	"testing"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

func document(results ...benchkit.Result) *benchkit.Document {
	return &benchkit.Document{Results: results}
}

func result(test string, runs ...float64) benchkit.Result {
	return benchkit.Result{Transport: "secure-tcp", Test: test, Unit: "x", Value: benchkit.Median(runs), Runs: runs}
}

func TestVerdicts(t *testing.T) {
	fast, slow, alike := []float64{110, 111, 112, 113, 114}, []float64{100, 101, 102, 103, 104}, []float64{103, 100, 104, 102, 101}
	for _, c := range []struct {
		test string
		a, b []float64
		want string
	}{
		{"out-64-1", slow, fast, Better},
		{"out-64-1", fast, slow, Worse},
		{"rtt-64", slow, fast, Worse}, // less is better
		{"rtt-64", fast, slow, Better},
		{"ping", fast, slow, Better},
		{"out-64-1", slow, alike, Same},
		{"out-64-1", slow, []float64{90, 99, 101, 115, 125}, Same}, // too wide to tell
		{"out-64-1", []float64{7, 7, 7, 7}, []float64{7, 7, 7, 7}, Same},
		{"out-64-1", slow[:3], fast, TooFew},
		{"not a test", slow, fast, Better},
		{"out-64-1", []float64{0, 0, 0, 0}, []float64{1, 1, 1, 1}, Better},
	} {
		rows := Compare(document(result(c.test, c.a...)), document(result(c.test, c.b...)))
		if len(rows) != 1 || rows[0].Verdict != c.want {
			t.Errorf("%s of %v and %v: %+v, want %s", c.test, c.a, c.b, rows, c.want)
			continue
		}
		r := rows[0]
		if (r.Verdict == Better || r.Verdict == Worse) && (r.P == nil || *r.P >= 0.05) {
			t.Errorf("%s by chance: %v", r.Verdict, r.P)
		}
		if r.A.Low > r.A.Median || r.A.High < r.A.Median {
			t.Errorf("%+v", *r.A)
		}
	}
}

func TestWhatOnlyOneHas(t *testing.T) {
	rows := Compare(document(result("rtt-64", 1, 2, 3), result("dial-1", 1)), document(result("rtt-64", 1, 2, 3), result("out-64-1", 5)))
	if len(rows) != 3 || rows[1].Verdict != OnlyInA || rows[1].B != nil || rows[2].Verdict != OnlyInB || rows[2].A != nil {
		t.Errorf("%+v", rows)
	}
	var text, lines bytes.Buffer
	if err := Write(&text, rows); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "0 better, 0 worse, 0 the same, 1 too few, 1 only in A, 1 only in B") {
		t.Errorf("%s", text.String())
	}
	if err := WriteJSON(&lines, rows); err != nil || strings.Count(lines.String(), "\n") != 3 {
		t.Errorf("%v\n%s", err, lines.String())
	}
}

func TestTable(t *testing.T) {
	rows := Compare(document(result("out-64-1", 100, 101, 102, 103, 104)), document(result("out-64-1", 110, 111, 112, 113, 114)))
	var text bytes.Buffer
	if err := Write(&text, rows); err != nil {
		t.Fatal(err)
	}
	if want := []string{"out-64-1", "secure-tcp", "102.0", "x", "±2", "%", "112.0", "x", "±2", "%", "+9.8", "%", "better", "(p", "=", "0.008,", "5", "+", "5", "runs)"}; strings.Join(strings.Fields(strings.Split(text.String(), "\n")[1]), " ") != strings.Join(want, " ") {
		t.Errorf("%s", text.String())
	}
}
