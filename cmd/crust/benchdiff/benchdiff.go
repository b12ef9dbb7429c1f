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
	Same    = "same"    // no difference that chance would not make in 1 of 20 comparisons
	TooFew  = "too few" // runs to tell anything
	OnlyInA = "only in A"
	OnlyInB = "only in B"
)

// fewestOf is how many runs each side has, from which on a difference can be told: with 4
// of each, p is 0.029 at least.
const fewestOf = 4

// Side is what one document says: the median, and the interval that holds it.
type Side struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Runs   int     `json:"runs"`
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
	out := &Side{Median: summary.Center, Low: summary.Lo, High: summary.Hi, Runs: len(s.Values)}
	// With few runs no interval is certain enough: all that was seen stands for it.
	if math.IsInf(out.Low, 0) || math.IsInf(out.High, 0) {
		out.Low, out.High = s.Values[0], s.Values[len(s.Values)-1]
	}
	return out
}

func compare(a, b benchkit.Result) Row {
	one, two := sample(a), sample(b)
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
	count := map[string]int{}
	for _, r := range rows {
		count[r.Verdict]++
		change, p := "", ""
		if r.Change != nil {
			change = fmt.Sprintf("%+.1f %%", *r.Change)
		}
		if r.P != nil {
			p = fmt.Sprintf(" (p = %.3f, %d + %d runs)", *r.P, r.A.Runs, r.B.Runs)
		}
		fmt.Fprintf(&text, "%-18s %-16s %28s %28s %9s  %s%s\n", r.Test, r.Transport, r.A.text(r.Unit), r.B.text(r.Unit), change, r.Verdict, p)
	}
	fmt.Fprintf(&text, "\n%d better, %d worse, %d the same", count[Better], count[Worse], count[Same])
	for _, v := range []string{TooFew, OnlyInA, OnlyInB} {
		if count[v] > 0 {
			fmt.Fprintf(&text, ", %d %s", count[v], v)
		}
	}
	text.WriteString("\nMann-Whitney U-test: better and worse are what chance alone makes in less than 1 of 20 comparisons.\n" +
		"With many rows, some are such by chance: what matters should be measured again.\n")
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
