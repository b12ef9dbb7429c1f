// Package benchdiff compares two runs of crust bench with the statistics of benchstat:
// the Mann-Whitney U-test, which assumes nothing of how measurements are distributed.
package benchdiff

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"golang.org/x/perf/benchmath"

	"github.com/libcrust/libcrust/cmd/crust/benchkit"
)

// Confidence is that of the intervals.
const Confidence = 0.95

// Verdicts on one test over one transport.
const (
	Better  = "better"
	Worse   = "worse"
	Same    = "same"       // no difference that chance would not make in 1 of 20 comparisons
	TooFew  = "too few"    // runs to tell anything
	Unlike  = "other unit" // so that figures cannot be compared
	OnlyInA = "only in A"
	OnlyInB = "only in B"
)

// fewestOf is how many runs each side has, from which on a difference can be told: with 4
// of each, p is 0.029 at least.
const fewestOf = 4

// fewestForConfidence is how many runs it takes for an interval of Confidence: the range of
// 6 holds the median with 97 %, that of 5 with 94 %.
const fewestForConfidence = 6

// Side is what one document says: the median, and the interval that holds it with a
// confidence. That is Confidence or a little more, and less where the runs are too few for
// it: then the interval is their range.
type Side struct {
	Median     float64 `json:"median"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"`
	Runs       int     `json:"runs"`
}

// Row compares one test over one transport.
type Row struct {
	Transport string   `json:"transport"`
	Test      string   `json:"test"`
	Unit      string   `json:"unit"`
	A         *Side    `json:"a"`
	B         *Side    `json:"b"`
	Change    *float64 `json:"change_percent"` // of the median
	P         *float64 `json:"p"`              // how often chance alone makes such a difference
	Verdict   string   `json:"verdict"`
}

// Compare compares the results of two documents, in the order of a, and then what only b has.
func Compare(a, b *benchkit.Document) []Row {
	var rows []Row
	for _, r := range a.Results {
		other, found := benchkit.Find(b.Results, r.Transport, r.Test)
		if !found {
			rows = append(rows, Row{Transport: r.Transport, Test: r.Test, Unit: r.Unit, A: side(sample(r)), Verdict: OnlyInA})
			continue
		}
		rows = append(rows, compare(r, other))
	}
	for _, r := range b.Results {
		if _, found := benchkit.Find(a.Results, r.Transport, r.Test); !found {
			rows = append(rows, Row{Transport: r.Transport, Test: r.Test, Unit: r.Unit, B: side(sample(r)), Verdict: OnlyInB})
		}
	}
	return rows
}

func sample(r benchkit.Result) *benchmath.Sample {
	return benchmath.NewSample(append([]float64(nil), r.Runs...), &benchmath.DefaultThresholds)
}

func side(s *benchmath.Sample) *Side {
	summary := benchmath.AssumeNothing.Summary(s, Confidence)
	n := len(s.Values)
	out := &Side{Median: summary.Center, Low: summary.Lo, High: summary.Hi, Confidence: summary.Confidence, Runs: n}
	// With few runs no interval is certain enough. Their range stands for it, which misses
	// the median when all runs fall on the same side of that.
	if math.IsInf(out.Low, 0) || math.IsInf(out.High, 0) {
		out.Low, out.High, out.Confidence = s.Values[0], s.Values[n-1], 1-math.Pow(0.5, float64(n-1))
	}
	return out
}

func compare(a, b benchkit.Result) Row {
	one, two := sample(a), sample(b)
	if a.Unit != b.Unit {
		return Row{Transport: a.Transport, Test: a.Test, Unit: a.Unit, A: side(one), B: side(two), Verdict: Unlike}
	}
	row := Row{Transport: a.Transport, Test: a.Test, Unit: a.Unit, A: side(one), B: side(two), Verdict: Same}
	if row.A.Median != 0 {
		change := 100 * (row.B.Median/row.A.Median - 1)
		row.Change = &change
	}
	if len(a.Runs) < fewestOf || len(b.Runs) < fewestOf {
		row.Verdict = TooFew
		return row
	}
	c := benchmath.AssumeNothing.Compare(one, two)
	if math.IsNaN(c.P) {
		return row // all runs are equal
	}
	row.P = &c.P
	if c.P < c.Alpha && row.A.Median != row.B.Median {
		test, err := benchkit.FindTest(a.Test)
		row.Verdict = Worse
		if better := row.B.Median > row.A.Median; better != (err == nil && test.LessIsBetter) {
			row.Verdict = Better
		}
	}
	return row
}

// WriteHead says what two files are, and in what they differ beside libcrust: then a
// difference in figures need not be one of libcrust.
func WriteHead(w io.Writer, nameA string, a *benchkit.Document, nameB string, b *benchkit.Document) error {
	var text strings.Builder
	for _, side := range []struct {
		letter, name string
		d            *benchkit.Document
	}{{"A", nameA, a}, {"B", nameB, b}} {
		machine := side.d.Machine()
		if machine == "" {
			machine = "does not say what it was measured on"
		}
		fmt.Fprintf(&text, "%s: %s: %s\n", side.letter, side.name, machine)
	}
	if a.Version != "" && b.Version != "" {
		var other []string
		for _, c := range []struct {
			what   string
			differ bool
		}{
			{"Go", a.Go != b.Go}, {"the system", a.System != b.System}, {"the processor", a.Processor != b.Processor}, {"the number of cores", a.Cores != b.Cores},
			{"the other end", a.Remote != b.Remote}, {"the duration of a run", a.Duration != b.Duration}, {"the round trips of a run", a.Pings != b.Pings},
		} {
			if c.differ {
				other = append(other, c.what)
			}
		}
		if len(other) > 0 {
			fmt.Fprintf(&text, "Not the same in both: %s.\n", strings.Join(other, ", "))
		}
	}
	text.WriteByte('\n')
	_, err := io.WriteString(w, text.String())
	return err
}

// WriteJSON writes a line for each row.
func WriteJSON(w io.Writer, rows []Row) error {
	lines := json.NewEncoder(w)
	for _, r := range rows {
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// Write writes rows for people.
func Write(w io.Writer, rows []Row) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%-18s %-16s %28s %28s %9s  %s\n", "test", "transport", "A", "B", "change", "")
	count, tested, few := map[string]int{}, 0, math.MaxInt
	for _, r := range rows {
		count[r.Verdict]++
		for _, s := range []*Side{r.A, r.B} {
			if s != nil {
				few = min(few, s.Runs)
			}
		}
		change, p := "", ""
		if r.Change != nil {
			change = fmt.Sprintf("%+.1f %%", *r.Change)
		}
		if r.P != nil {
			tested++
			p = fmt.Sprintf(" (p = %.3f, %d + %d runs)", *r.P, r.A.Runs, r.B.Runs)
		}
		fmt.Fprintf(&text, "%-18s %-16s %28s %28s %9s  %s%s\n", r.Test, r.Transport, r.A.text(r.Unit), r.B.text(r.Unit), change, r.Verdict, p)
	}
	fmt.Fprintf(&text, "\n%d better, %d worse, %d the same", count[Better], count[Worse], count[Same])
	for _, v := range []string{TooFew, Unlike, OnlyInA, OnlyInB} {
		if count[v] > 0 {
			fmt.Fprintf(&text, ", %d %s", count[v], v)
		}
	}
	text.WriteString("\n± goes to the farther end of the interval that holds the median with a confidence of 95 %")
	if few < fewestForConfidence {
		fmt.Fprintf(&text, "; with less than %d runs, of their range", fewestForConfidence)
	}
	text.WriteString(".\n")
	if tested > 0 {
		fmt.Fprintf(&text, "Better and worse are what chance alone makes in less than 1 of 20 comparisons, by the Mann-Whitney U-test:\n"+
			"of these %d, about %.0f would be so without any difference. What matters should be measured again.\n", tested, math.Ceil(float64(tested)/20))
	}
	if count[TooFew] > 0 {
		fmt.Fprintf(&text, "Less than %d runs on either side tell no difference: --runs %d or more does.\n", fewestOf, fewestForConfidence)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// text writes the median and how far the interval around it goes.
func (s *Side) text(unit string) string {
	if s == nil {
		return ""
	}
	around := 0.0
	if s.Median != 0 {
		around = 100 * max(s.High-s.Median, s.Median-s.Low) / math.Abs(s.Median)
	}
	return fmt.Sprintf("%s %s ±%.0f %%", benchkit.Figure(s.Median), unit, around)
}
