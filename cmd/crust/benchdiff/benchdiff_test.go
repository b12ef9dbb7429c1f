package benchdiff

import (
	"bytes"
	"math"
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
		if want := map[int]float64{3: 0.75, 4: 0.875, 5: 0.9375}[len(c.a)]; math.Abs(r.A.Confidence-want) > 1e-9 {
			t.Errorf("%d runs give a confidence of %v, want %v", len(c.a), r.A.Confidence, want)
		}
		if r.A.Low > r.A.Median || r.A.High < r.A.Median {
			t.Errorf("%+v", *r.A)
		}
	}
}

// With six runs on, the interval is one of 95 %, and narrower than the range with more.
func TestIntervals(t *testing.T) {
	for runs, want := range map[int][3]float64{6: {1, 6, 0.96875}, 9: {2, 8, 0.9609375}} {
		var values []float64
		for k := range runs {
			values = append(values, float64(1+k))
		}
		s := side(sample(result("out-64-1", values...)))
		if s.Low != want[0] || s.High != want[1] || math.Abs(s.Confidence-want[2]) > 1e-9 {
			t.Errorf("%d runs: %+v, want %v", runs, *s, want)
		}
	}
}

func TestOtherUnit(t *testing.T) {
	a, b := result("out-64-1", 1, 2, 3, 4), result("out-64-1", 11, 12, 13, 14)
	b.Unit = "y"
	if rows := Compare(document(a), document(b)); len(rows) != 1 || rows[0].Verdict != Unlike || rows[0].Change != nil {
		t.Errorf("%+v", rows)
	}
}

func TestHead(t *testing.T) {
	a := &benchkit.Document{Version: "1.0.0", Go: "go1", System: "linux", Cores: 2, Duration: 1}
	b := &benchkit.Document{Version: "1.1.0", Go: "go1", System: "linux", Cores: 4, Duration: 1, Remote: "tcp://203.0.113.5"}
	for _, c := range []struct {
		b    *benchkit.Document
		want string
	}{
		{b, "A: a.json: libcrust 1.0.0, go1, linux, 2 cores, on 0001-01-01\nB: b.json: libcrust 1.1.0, go1, linux, 4 cores, to tcp://203.0.113.5, on 0001-01-01\nNot the same in both: the number of cores, the other end.\n\n"},
		{a, "A: a.json: libcrust 1.0.0, go1, linux, 2 cores, on 0001-01-01\nB: b.json: libcrust 1.0.0, go1, linux, 2 cores, on 0001-01-01\n\n"},
		{document(), "A: a.json: libcrust 1.0.0, go1, linux, 2 cores, on 0001-01-01\nB: b.json: does not say what it was measured on\n\n"},
	} {
		var text bytes.Buffer
		if err := WriteHead(&text, "a.json", a, "b.json", c.b); err != nil || text.String() != c.want {
			t.Errorf("%v\n%s\nwant\n%s", err, text.String(), c.want)
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
